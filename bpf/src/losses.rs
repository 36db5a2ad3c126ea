//! Frames that the kernel lost after the verdict: counted, so that they are not
//! lost without a word. Tracepoints are the whole machine's and interface numbers
//! each network namespace's own, so the raw ones are used: they give the device
//! itself, and by it the namespace.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use dirigent_director::Reason;
use dirigent_director::records::link_flag;
use dirigent_director::tables::Tables;

use crate::maps::{KernelTables, count_reasons};

/// Where the running kernel has `net_device.ifindex`, `net_device.nd_net` and
/// `net.ns.inum`, and which number of a namespace is ours. The loader writes them.
#[unsafe(no_mangle)]
static LOSSES: [u32; 4] = [0; 4];

#[inline(always)]
fn setting(i: usize) -> u32 {
    // SAFETY: within the array; volatile, since the loader changes what the compiler sees.
    unsafe { LOSSES.as_ptr().add(i).read_volatile() }
}

/// A value of the kernel's memory, zero if the address is bad.
#[inline(always)]
fn read<T>(base: usize, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let from = (base + offset as usize) as *const c_void;
    // SAFETY: T is an integer here; the helper writes all of it, zeros where it cannot read.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        value.assume_init()
    }
}

/// Adds `n` losses of frames that came in by the device of the first argument. A device
/// has one XDP program: if it is this director's, so are the frames.
#[inline(always)]
fn lost(ctx: &RawTracePointContext, n: i32) -> u32 {
    let device: usize = ctx.arg(0);
    let namespace: u32 = read(read(device, setting(1)), setting(2));
    if n <= 0 || namespace == 0 || namespace != setting(3) {
        return 0;
    }
    let tables = KernelTables::aside();
    if tables.link(read(device, setting(0))).is_some_and(|link| link.flags & link_flag::XDP != 0) {
        count_reasons(Reason::TransmitFailed, n as u64);
    }
    0
}

// Arguments as in include/trace/events/xdp.h (the same since 5.6).

/// XDP_TX or a verdict the driver cannot carry out.
#[raw_tracepoint]
pub fn dirigent_lost_exception(ctx: RawTracePointContext) -> u32 {
    lost(&ctx, 1)
}

/// bpf_redirect to an interface that cannot transmit.
#[raw_tracepoint]
pub fn dirigent_lost_redirect(ctx: RawTracePointContext) -> u32 {
    lost(&ctx, 1)
}

/// Frames the outgoing device did not take: from, to, sent, lost.
#[raw_tracepoint]
pub fn dirigent_lost_transmit(ctx: RawTracePointContext) -> u32 {
    lost(&ctx, ctx.arg(3))
}

/// Frames the incoming device did not take back (XDP_TX in bulk): device, sent, lost.
#[raw_tracepoint]
pub fn dirigent_lost_return(ctx: RawTracePointContext) -> u32 {
    lost(&ctx, ctx.arg(2))
}
