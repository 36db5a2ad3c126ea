//! The BPF object of a real server: the end of tunnels, and the segment sizes that fit
//! them. What happens to a packet is decided in dirigent-director, module `endpoint`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod object;
#[allow(dead_code, reason = "the director cuts and grows packets, the server does not")]
mod skb;
#[allow(dead_code, reason = "the director walks tables, the server does not")]
mod window;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use dirigent_director::endpoint::{self, EndTables, Outcome, Terms};
use dirigent_wire::{Addr4, Addr6};
use skb::Skb;

#[btf_map]
static SETTINGS: Array<Terms, 1> = Array::new();
#[btf_map]
static VIPS4: HashMap<Addr4, u32, 1024> = HashMap::new();
#[btf_map]
static VIPS6: HashMap<Addr6, u32, 1024> = HashMap::new();
#[btf_map]
static DIRECTORS4: HashMap<Addr4, u32, 1024> = HashMap::new();
#[btf_map]
static DIRECTORS6: HashMap<Addr6, u32, 1024> = HashMap::new();
/// Packets by [`Outcome`].
#[btf_map]
static OUTCOMES: PerCpuArray<u64, 16> = PerCpuArray::new();

struct Tables;

impl EndTables for Tables {
    #[inline(always)]
    fn terms(&self) -> Option<&Terms> {
        SETTINGS.get(0).filter(|terms| terms.version != 0)
    }
    #[inline(always)]
    fn vip4(&self, addr: &Addr4) -> bool {
        VIPS4.get_ptr(addr).is_some()
    }
    #[inline(always)]
    fn vip6(&self, addr: &Addr6) -> bool {
        VIPS6.get_ptr(addr).is_some()
    }
    #[inline(always)]
    fn director4(&self, addr: &Addr4) -> bool {
        DIRECTORS4.get_ptr(addr).is_some()
    }
    #[inline(always)]
    fn director6(&self, addr: &Addr6) -> bool {
        DIRECTORS6.get_ptr(addr).is_some()
    }
    #[inline(always)]
    fn forget(&self, value: u32) -> u32 {
        window::dirigent_forget(value.into()) as u32
    }
}

#[inline(always)]
fn end(outcome: Outcome) -> i32 {
    if let Some(count) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { *count += 1 };
    }
    if outcome.dropped() { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

/// Ingress: what comes out of tunnels.
#[classifier]
pub fn dirigent_ingress(ctx: TcContext) -> i32 {
    end(endpoint::receive(&mut Skb::<false> { ctx: ctx.skb.skb }, &Tables))
}

/// Egress: the segment sizes that the server offers.
#[classifier]
pub fn dirigent_egress(ctx: TcContext) -> i32 {
    end(endpoint::send(&mut Skb::<false> { ctx: ctx.skb.skb }, &Tables))
}
