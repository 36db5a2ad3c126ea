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

/// The word with `value` in place of so many bytes of it, `at` from its start in memory.
#[inline(always)]
fn with(word: u64, at: u32, bytes: u32, value: u64) -> u64 {
    let mask = ((1 << (8 * bytes)) - 1) << (8 * at);
    word & !mask | value << (8 * at)
}

/// Puts the frame back, as a packet of connection `n` (of 2^30 at most).
#[inline(always)]
fn restore(ctx: *mut xdp_md, round: &Round, n: u32) -> bool {
    let Some(to) = window::<Frame<true>>(ctx.cast(), 0, 78) else { return false };
    // SAFETY: the window holds the word; packets are written unaligned.
    let store = |at: usize, word: u64| unsafe { ((to + at) as *mut u64).write_volatile(word) };
    // The client: 32,768 ports of each of its addresses 100.64.0.0/10 or 2001:db8:c::/96.
    let port = u64::from((1024 + (n & 0x7fff) as u16).to_be());
    let addr = u64::from((0x6440_0001 + (n >> 15)).to_be());
    let (v6, reply) = (round.v6 != 0, round.reply != 0);
    let [macs, ether, a, b, c, d, e, f, g, h] = round.template;
    // The MACs are read by the first word, too.
    store(6, ether);
    store(0, macs);
    if v6 {
        store(14, a);
        store(22, b);
        store(30, if reply { c } else { with(c, 4, 4, addr) });
        store(38, d);
        store(46, if reply { with(e, 4, 4, addr) } else { e });
        store(54, with(f, if reply { 2 } else { 0 }, 2, port));
        store(62, g);
        store(70, h);
    } else {
        // The identification makes up for the address, so that the header's checksum stands.
        let id = u64::from((0xffff - (n >> 15) as u16).to_be());
        let (b, c) = match reply {
            false => (with(b, 4, 4, addr), with(c, 4, 2, port)),
            true => (b, with(with(c, 0, 4, addr), 6, 2, port)),
        };
        store(14, with(a, 4, 2, id));
        store(22, b);
        store(30, c);
        store(38, d);
        store(46, e);
        // Both addresses are read by one word.
        store(26, b >> 32 | c << 32);
    }
    true
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
