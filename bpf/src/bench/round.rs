//! The wrapper around what is measured: `BPF_PROG_TEST_RUN` with `repeat` gives each run
//! the packet as the last one left it, so this puts the frame back, names another
//! connection in it, and sees what became of it.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_head, bpf_xdp_adjust_meta};
use aya_ebpf::macros::btf_map;

use crate::window::{Context, window};

/// Bytes of every frame.
pub const FRAME: u32 = 96;

/// Which packet of its connections a round sends: where in the frame the client is.
#[repr(C)]
pub struct Round {
    /// The frame's first 80 bytes. In words: later loads of parts of a word come from the
    /// store of the whole one, which the CPU forwards.
    template: [u64; 10],
    /// Packets of the round.
    packets: u64,
    /// Packets so far.
    done: u64,
    /// Nanoseconds on the kernel's clock at the first packet.
    begun: u64,
    /// The same at the last packet.
    ended: u64,
    /// Packets that did not end as expected.
    astray: u64,
    /// Which packet is the next; goes on from round to round.
    counter: u64,
    /// Connections − 1; their number is a power of two.
    mask: u32,
    /// Whether the addresses are IPv6.
    v6: u32,
    /// Whether the client is the destination.
    reply: u32,
    /// The verdict that is expected.
    action: u32,
    /// The length that is expected.
    len: u32,
    /// Zero.
    spare: u32,
}

#[btf_map]
static ROUND: Array<Round, 1> = Array::new();

struct Xdp;

impl Context for Xdp {
    const DATA: i32 = 0;
    const DATA_END: i32 = 4;
}

/// `bytes` of the packet from `at`, to be written.
#[inline(always)]
unsafe fn put<T>(ctx: *mut xdp_md, at: usize, value: T) -> bool {
    match window::<Xdp>(ctx.cast(), at, size_of::<T>()) {
        // SAFETY: the window holds a T; packets are written unaligned.
        Some(to) => unsafe { (to as *mut T).write_volatile(value) },
        None => return false,
    }
    true
}

/// Puts the frame back, as a packet of connection `n` (of 2^30 at most).
#[inline(always)]
fn restore(ctx: *mut xdp_md, round: &Round, n: u32) -> bool {
    let words = if round.v6 != 0 { 10 } else { 7 };
    #[repr(C)]
    struct Head([u64; 7]);
    #[repr(C)]
    struct Rest([u64; 3]);
    let Some(head) = window::<Xdp>(ctx.cast(), 0, size_of::<Head>()) else { return false };
    let [a, b, c, d, e, f, g, h, i, j] = &round.template;
    let head = head as *mut u64;
    // SAFETY: within the window.
    unsafe {
        head.write_volatile(*a);
        head.add(1).write_volatile(*b);
        head.add(2).write_volatile(*c);
        head.add(3).write_volatile(*d);
        head.add(4).write_volatile(*e);
        head.add(5).write_volatile(*f);
        head.add(6).write_volatile(*g);
    }
    if words == 10 {
        let Some(rest) = window::<Xdp>(ctx.cast(), size_of::<Head>(), size_of::<Rest>()) else { return false };
        let rest = rest as *mut u64;
        // SAFETY: within the window.
        unsafe {
            rest.write_volatile(*h);
            rest.add(1).write_volatile(*i);
            rest.add(2).write_volatile(*j);
        }
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
    // SAFETY: plain words.
    unsafe { (round.v6 != 0 || put(ctx, 18, id)) && put(ctx, addr_at, addr) && put(ctx, port_at, port) }
}

/// Sends one packet of the round through `measured`.
#[inline(always)]
pub fn round(ctx: *mut xdp_md, measured: fn(*mut xdp_md) -> u32) -> u32 {
    let Some(round) = ROUND.get_ptr_mut(0) else { return 0 };
    // SAFETY: one test run at a time, on one CPU.
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
        if len != FRAME {
            bpf_xdp_adjust_head(ctx, len.wrapping_sub(FRAME) as i32);
        }
    }
    round.done += 1;
    if round.done == round.packets {
        // SAFETY: no arguments.
        round.ended = unsafe { bpf_ktime_get_ns() };
    }
    action
}
