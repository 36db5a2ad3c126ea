//! The learning step: user space writes what other directors told of connections, this enters
//! it, by the same steps as the packet path. Run by BPF_PROG_TEST_RUN, never attached.

use core::ffi::c_void;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use dirigent_director::sync::learn;

use crate::maps::{KernelTables, lesson};
use crate::window::{Context, repeat, window};

struct Request;

impl Context for Request {
    const DATA: i32 = 0;
    const DATA_END: i32 = 4;
}

extern "C" fn learn_one(i: u32, _: *mut c_void) -> i64 {
    let mut tables = KernelTables { ctx: core::ptr::null_mut() };
    match lesson(i) {
        Some((lesson, four, six)) => {
            learn::learn(&mut tables, lesson, four, six);
            0
        }
        None => 1,
    }
}

/// The "packet" starts with the number of lessons, in the machine's order.
#[xdp]
pub fn dirigent_learn(ctx: XdpContext) -> u32 {
    let ctx: *mut xdp_md = ctx.ctx;
    let Some(at) = window::<Request>(ctx.cast(), 0, 4) else { return xdp_action::XDP_ABORTED };
    // SAFETY: four bytes of the packet.
    let count = unsafe { (at as *const u32).read_unaligned() };
    // SAFETY: the callback takes no context.
    unsafe { repeat(count, learn_one, core::ptr::null_mut()) };
    xdp_action::XDP_PASS
}
