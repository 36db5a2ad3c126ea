//! Steps that user space runs by BPF_PROG_TEST_RUN on the first entries of a table. Never attached.

use core::ffi::c_void;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::programs::XdpContext;

use crate::window::{Context, repeat, window};

struct Request;

impl Context for Request {
    const DATA: i32 = 0;
    const DATA_END: i32 = 4;
}

/// Calls `one` for each. The "packet" starts with how many they are, in the machine's order.
#[inline(always)]
pub fn each(ctx: &XdpContext, one: extern "C" fn(u32, *mut c_void) -> i64) -> u32 {
    let ctx: *mut xdp_md = ctx.ctx;
    let Some(at) = window::<Request>(ctx.cast(), 0, 4) else { return xdp_action::XDP_ABORTED };
    // SAFETY: four bytes of the packet.
    let count = unsafe { (at as *const u32).read_unaligned() };
    // SAFETY: the callbacks take no context.
    unsafe { repeat(count, one, core::ptr::null_mut()) };
    xdp_action::XDP_PASS
}
