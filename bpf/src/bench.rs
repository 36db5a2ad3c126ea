//! The BPF object of `make bench`: a whole director, and the floors that its cost is held
//! against. Each is called by the same frame of code, [`round`], once a packet.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod expire;
#[path = "bench/floors.rs"]
mod floors;
mod learn;
mod maps;
mod object;
#[path = "bench/record.rs"]
mod record;
#[path = "bench/round.rs"]
mod round;
mod step;
mod trace;
mod window;
mod xdp;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// One program for each thing that is measured. The thing itself is a function of its
/// own, as it would be a program of its own.
macro_rules! measured {
    ($($(#[$doc:meta])* $program:ident: $function:ident, $work:expr;)*) => { $(
        #[inline(never)]
        fn $function(ctx: *mut xdp_md) -> u32 {
            $work(ctx)
        }
        $(#[$doc])*
        #[xdp]
        pub fn $program(ctx: XdpContext) -> u32 {
            round::round(ctx.ctx, $function)
        }
    )* };
}

measured! {
    /// The director.
    bench_director: director, |ctx| xdp::enter(&XdpContext::new(ctx));
    /// The wrapper alone.
    bench_wrapper: wrapper, floors::nothing;
    /// The least that sends a frame back.
    bench_macswap: macswap, floors::macswap;
    /// A tunnel's header in front, nothing read.
    bench_ipip: ipip, floors::ipip;
    /// The least that balances, over an LRU table; an unknown packet is inserted.
    bench_lru: lru, floors::balance::<floors::Lru>;
    /// The same over a preallocated hash table of 128-byte elements, with a last-seen store.
    bench_hash: hash, floors::balance::<floors::Hash>;
    /// The same, and it is removed again: every packet is an unknown one.
    bench_hash_renew: hash_renew, floors::balance::<floors::Renewed>;
}
