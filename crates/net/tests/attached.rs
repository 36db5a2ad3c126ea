//! A foreign XDP program is seen with its number and mode (needs root).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dirigent_net::lab::{LabGuard, LabSpec};
use dirigent_net::links::{AttachedXdp, XdpMode, link_named};
use nix::libc;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 4;

/// `union bpf_attr` as 32-bit words.
fn bpf(command: libc::c_long, attributes: &mut [u32; 32]) -> OwnedFd {
    let size = size_of_val(attributes);
    // SAFETY: the attributes outlive the call, and their size is given.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size) };
    assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

/// "return XDP_PASS".
fn pass() -> OwnedFd {
    let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
    let words = |pointer: usize| [pointer as u32, (pointer as u64 >> 32) as u32];
    let mut attributes = [0; 32];
    attributes[0] = BPF_PROG_TYPE_XDP;
    attributes[1] = instructions.len() as u32;
    attributes[2..4].copy_from_slice(&words(instructions.as_ptr() as usize));
    attributes[4..6].copy_from_slice(&words(c"GPL".as_ptr() as usize));
    bpf(BPF_PROG_LOAD, &mut attributes)
}

fn attach(program: &OwnedFd, ifindex: u32, flags: u32) -> OwnedFd {
    let mut attributes = [0; 32];
    attributes[..4].copy_from_slice(&[program.as_raw_fd() as u32, ifindex, BPF_XDP, flags]);
    bpf(BPF_LINK_CREATE, &mut attributes)
}

#[test]
fn a_programs_number_and_mode_are_seen() {
    let lab = LabGuard::up(&LabSpec { servers: 1, offloads: false, ..LabSpec::default() }).unwrap();
    lab.run("director", || {
        let program = pass();
        let index = link_named("c0").unwrap().index;
        for (flags, mode) in [(XDP_FLAGS_DRV_MODE, XdpMode::Driver), (XDP_FLAGS_SKB_MODE, XdpMode::Generic)] {
            let link = attach(&program, index, flags);
            let seen = link_named("c0").unwrap().xdp;
            assert!(matches!(seen[..], [AttachedXdp { program: 1.., mode: is }] if is == mode), "{seen:?}");
            drop(link);
            // The kernel detaches a link without holders in its own time.
            while !link_named("c0").unwrap().xdp.is_empty() {
                std::thread::yield_now();
            }
        }
    })
    .unwrap();
}
