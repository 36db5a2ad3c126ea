//! The expire step: user space names idle candidates, this removes those that
//! are past their timeout, by the same compare-and-swap as the packet path.
//! Run by BPF_PROG_TEST_RUN, never attached.

use core::ffi::c_void;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use dirigent_director::conn;

use crate::maps::{KernelTables, candidate};
use crate::window::{Context, repeat, window};

struct Request;

impl Context for Request {
    const DATA: i32 = 0;
    const DATA_END: i32 = 4;
}

extern "C" fn expire_one(i: u32, _: *mut c_void) -> i64 {
    let mut tables = KernelTables { ctx: core::ptr::null_mut() };
    match candidate(i) {
        Some(candidate) => {
            conn::expire_candidate(&mut tables, candidate);
            0
        }
        None => 1,
    }
}

/// The "packet" starts with the number of candidates, in the machine's order.
#[xdp]
pub fn dirigent_expire(ctx: XdpContext) -> u32 {
    let ctx: *mut xdp_md = ctx.ctx;
    let Some(at) = window::<Request>(ctx.cast(), 0, 4) else { return xdp_action::XDP_ABORTED };
    // SAFETY: four bytes of the packet.
    let count = unsafe { (at as *const u32).read_unaligned() };
    // SAFETY: the callback takes no context.
    unsafe { repeat(count, expire_one, core::ptr::null_mut()) };
    xdp_action::XDP_PASS
}
