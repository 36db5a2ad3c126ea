//! The wrapper around what is measured: `BPF_PROG_TEST_RUN` with `repeat` gives each run
//! the packet as the last one left it, so this puts the frame back, names another
//! connection in it, and sees what became of it.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_head, bpf_xdp_adjust_meta};
use aya_ebpf::macros::btf_map;

use crate::record::{FRAME, Round};
use crate::window::window;
use crate::xdp::Frame;

#[btf_map]
static ROUND: PerCpuArray<Round, 1> = PerCpuArray::new();

/// Writes a value into the packet.
#[inline(always)]
fn put<T>(ctx: *mut xdp_md, at: usize, value: T) -> bool {
    match window::<Frame<true>>(ctx.cast(), at, size_of::<T>()) {
        // SAFETY: the window holds a T; packets are written unaligned.
        Some(to) => unsafe { (to as *mut T).write_volatile(value) },
        None => return false,
    }
    true
}

/// Copies `N` words into the packet, each by a store of its own.
///
/// # Safety
/// `from` must point at that many.
#[inline(always)]
unsafe fn copy<const N: usize>(ctx: *mut xdp_md, at: usize, from: *const u64) -> bool {
    let Some(to) = window::<Frame<true>>(ctx.cast(), at, 8 * N) else { return false };
    let mut i = 0;
    while i < N {
        // SAFETY: within the window, and as the caller promises.
        unsafe { (to as *mut u64).add(i).write_volatile(*from.add(i)) };
        i += 1;
    }
    true
}

/// Puts the frame back, as a packet of connection `n` (of 2^30 at most).
#[inline(always)]
fn restore(ctx: *mut xdp_md, round: &Round, n: u32) -> bool {
    let template = round.template.as_ptr();
    // SAFETY: 7 words, or all 10: IPv6's header is that much longer.
    let copied = unsafe { copy::<7>(ctx, 0, template) && (round.v6 == 0 || copy::<3>(ctx, 56, template.add(7))) };
    if !copied {
        return false;
    }
    // The client: 32,768 ports of each of its addresses 100.64.0.0/10 or 2001:db8:c::/96.
    let port = (1024 + (n & 0x7fff) as u16).to_be();
    let addr = (0x6440_0001 + (n >> 15)).to_be();
    // The identification makes up for the address, so that the header's checksum stands.
    let id = (0xffff - (n >> 15) as u16).to_be();
    let (addr_at, port_at) = match (round.v6, round.reply) {
        (0, 0) => (26, 34),
        (0, _) => (30, 36),
        (_, 0) => (34, 54),
        (..) => (50, 56),
    };
    (round.v6 != 0 || put(ctx, 18, id)) && put(ctx, addr_at, addr) && put(ctx, port_at, port)
}

/// Sends one packet of the round through `measured`.
#[inline(always)]
pub fn round(ctx: *mut xdp_md, measured: fn(*mut xdp_md) -> u32) -> u32 {
    let Some(round) = ROUND.get_ptr_mut(0) else { return 0 };
    // SAFETY: one test run at a time on each CPU.
    let round = unsafe { &mut *round };
    if round.done == 0 {
        // SAFETY: no arguments.
        round.begun = unsafe { bpf_ktime_get_ns() };
    }
    // An odd factor: all connections in an order that no prefetcher guesses.
    let n = (round.counter as u32).wrapping_mul(0x9e37_79b1) & round.mask;
    round.counter += 1;
    if !restore(ctx, round, n) {
        round.astray += 1;
        return 0;
    }
    let action = measured(ctx);
    // SAFETY: fields of a live context.
    let (data, end, meta) = unsafe { ((*ctx).data, (*ctx).data_end, (*ctx).data_meta) };
    let len = end.wrapping_sub(data);
    if action != round.action || len != round.len {
        round.astray += 1;
    }
    // SAFETY: the context is the program's.
    unsafe {
        if meta != data {
            bpf_xdp_adjust_meta(ctx, data.wrapping_sub(meta) as i32);
        }
        if len != FRAME as u32 {
            bpf_xdp_adjust_head(ctx, len.wrapping_sub(FRAME as u32) as i32);
        }
    }
    round.done += 1;
    if round.done == round.packets {
        // SAFETY: no arguments.
        round.ended = unsafe { bpf_ktime_get_ns() };
    }
    action
}
