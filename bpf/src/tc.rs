//! The tc shells: ingress of every link beside XDP, egress for what this host
//! itself sends.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::helpers::{
    bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_vlan_pop,
};
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use dirigent_director::direct::{self, Stage};
use dirigent_director::packet::{L4, Packet};
use dirigent_director::{Action, Reason, Verdict};
use dirigent_wire::Header;

use crate::maps::{self, KernelTables, count_reason};
use crate::window::{self, Context, Load, window};
use crate::xdp::JUDGED;

/// A packet, in the first stage or a later one.
pub struct Skb<const EASY: bool> {
    ctx: *mut __sk_buff,
}

impl<const EASY: bool> Context for Skb<EASY> {
    const DATA: i32 = 76;
    const DATA_END: i32 = 80;
}

struct Loader(*mut __sk_buff);

impl Load for Loader {
    #[inline(always)]
    fn load(&self, off: u32, to: *mut [u64; 8], len: u32) -> bool {
        // SAFETY: `to` holds 64 bytes and `len` is at most that.
        unsafe { bpf_skb_load_bytes(self.0.cast(), off, to.cast(), len) == 0 }
    }
}

impl<const E: bool> Packet for Skb<E> {
    const EASY: bool = E;
    const LAST: bool = true;

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: ctx is the program's.
        unsafe { (*self.ctx).len }
    }
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: ctx is the program's.
        unsafe { (*self.ctx).gso_size }
    }
    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: ctx is the program's.
        unsafe { (*self.ctx).ifindex }
    }
    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        // SAFETY: ctx is the program's.
        unsafe { if (*self.ctx).vlan_present != 0 { Some((*self.ctx).vlan_tci as u16) } else { None } }
    }
    #[inline(always)]
    fn get<H: Header>(&self, off: usize) -> Option<&H> {
        // SAFETY: the window holds H::LEN bytes; H is valid for any bytes and
        // needs no more alignment than packets have.
        window::<Self>(self.ctx.cast(), off, H::LEN).map(|at| unsafe { &*(at as *const H) })
    }
    #[inline(always)]
    fn get_mut<H: Header>(&mut self, off: usize) -> Option<&mut H> {
        // SAFETY: as `get`; the borrow of the packet keeps it single.
        window::<Self>(self.ctx.cast(), off, H::LEN).map(|at| unsafe { &mut *(at as *mut H) })
    }
    #[inline(always)]
    fn pull(&mut self, len: u32) {
        let len = if len > self.len() { self.len() } else { len };
        // SAFETY: ctx is the program's; this only compares two of its fields.
        let linear = unsafe { (*self.ctx).data_end.wrapping_sub((*self.ctx).data) };
        if linear < len {
            // SAFETY: ctx is the program's.
            unsafe { bpf_skb_pull_data(self.ctx, len) };
        }
    }
    #[inline(always)]
    fn patch_l4(&mut self, at: usize, addr_delta: u16, port_delta: u16, l4: L4, v6: bool) -> bool {
        const PSEUDO_HEADER: u64 = 0x10;
        const MANGLED_0: u64 = 0x20;
        let _ = v6;
        let zero = if l4 == L4::Udp { MANGLED_0 } else { 0 };
        // SAFETY: ctx is the program's. From 0 and size 0: `to` is a difference.
        unsafe {
            (port_delta == 0 || bpf_l4_csum_replace(self.ctx, at as u32, 0, port_delta as u64, zero) == 0)
                && bpf_l4_csum_replace(self.ctx, at as u32, 0, addr_delta as u64, PSEUDO_HEADER | zero) == 0
        }
    }
    #[inline(always)]
    fn sum(&self, off: usize, len: u32) -> Option<u16> {
        window::sum(Loader(self.ctx), off as u32, len)
    }
    #[inline(always)]
    fn pop_tag(&mut self) -> bool {
        // SAFETY: ctx is the program's.
        unsafe { bpf_skb_vlan_pop(self.ctx) == 0 }
    }
    #[inline(always)]
    fn reshape(&mut self, keep: u32, grow: u32) -> bool {
        // SAFETY: ctx is the program's.
        unsafe {
            (keep >= self.len() || bpf_skb_change_tail(self.ctx, keep, 0) == 0)
                && bpf_skb_change_head(self.ctx, grow, 0) == 0
        }
    }
}

/// The later stages of what comes in, by [`Stage`].
#[btf_map]
static INGRESS_STAGES: ProgramArray<{ Stage::COUNT as usize }> = ProgramArray::new();
/// The later stages of what this host sends.
#[btf_map]
static EGRESS_STAGES: ProgramArray<{ Stage::COUNT as usize }> = ProgramArray::new();

#[classifier]
pub fn dirigent_ingress(ctx: TcContext) -> i32 {
    if judged(ctx.skb.skb) {
        return TC_ACT_UNSPEC;
    }
    let (mut skb, mut tables) = (Skb::<true> { ctx: ctx.skb.skb }, tables(&ctx));
    entered(&ctx, direct::direct(&mut skb, &mut tables))
}

/// One program for each stage and family.
macro_rules! stages {
    ($($name:ident: $stage:ident, $work:ident;)*) => { $(
        #[classifier]
        pub fn $name(ctx: TcContext) -> i32 {
            let Some(work) = maps::$work() else { return TC_ACT_SHOT };
            let (mut skb, mut tables) = (Skb::<false> { ctx: ctx.skb.skb }, tables(&ctx));
            entered(&ctx, direct::$stage(&mut skb, &mut tables, work))
        }
    )* };
}

stages! {
    dirigent_ingress_slow4: slow, work4;
    dirigent_ingress_slow6: slow, work6;
    dirigent_ingress_open4: open, work4;
    dirigent_ingress_open6: open, work6;
    dirigent_ingress_one_packet4: one_packet, work4;
    dirigent_ingress_one_packet6: one_packet, work6;
    dirigent_ingress_stranger4: stranger, work4;
    dirigent_ingress_stranger6: stranger, work6;
    dirigent_ingress_refuse4: refuse, work4;
    dirigent_ingress_refuse6: refuse, work6;
    dirigent_ingress_icmp4: icmp, work4;
    dirigent_ingress_icmp6: icmp, work6;
    dirigent_ingress_icmp_open4: icmp_open, work4;
    dirigent_ingress_icmp_open6: icmp_open, work6;
}

#[inline(always)]
fn tables(ctx: &TcContext) -> KernelTables {
    KernelTables { ctx: ctx.skb.skb.cast::<c_void>() }
}

/// The verdict's action for a packet that came in.
#[inline(always)]
fn entered(ctx: &TcContext, verdict: Verdict) -> i32 {
    if verdict.action == Action::Continue {
        // SAFETY: nothing of this program is held.
        unsafe { INGRESS_STAGES.tail_call(ctx, verdict.ifindex) };
        count_reason(Reason::StageMissing);
        return TC_ACT_SHOT;
    }
    count_reason(verdict.reason);
    match verdict.action {
        Action::Pass | Action::HandOver => TC_ACT_UNSPEC,
        Action::Deliver | Action::Forward => TC_ACT_OK,
        Action::Drop | Action::Continue => TC_ACT_SHOT,
        // SAFETY: no pointers.
        Action::Transmit => unsafe { bpf_redirect(verdict.ifindex, 0) as i32 },
        // SAFETY: no parameters: the kernel routes by the packet's own header.
        Action::Resolve => unsafe { bpf_redirect_neigh(verdict.ifindex, core::ptr::null_mut(), 0, 0) as i32 },
    }
}

#[classifier]
pub fn dirigent_egress(ctx: TcContext) -> i32 {
    // SAFETY: the context is the program's. What came in by a link is decided.
    if unsafe { (*ctx.skb.skb).ingress_ifindex } != 0 {
        return TC_ACT_UNSPEC;
    }
    let (mut skb, mut tables) = (Skb::<true> { ctx: ctx.skb.skb }, tables(&ctx));
    left(&ctx, direct::leave(&mut skb, &mut tables))
}

#[classifier]
pub fn dirigent_egress_icmp4(ctx: TcContext) -> i32 {
    let Some(work) = maps::work4() else { return TC_ACT_SHOT };
    let (mut skb, mut tables) = (Skb::<false> { ctx: ctx.skb.skb }, tables(&ctx));
    left(&ctx, direct::leave_icmp(&mut skb, &mut tables, work))
}

#[classifier]
pub fn dirigent_egress_icmp6(ctx: TcContext) -> i32 {
    let Some(work) = maps::work6() else { return TC_ACT_SHOT };
    let (mut skb, mut tables) = (Skb::<false> { ctx: ctx.skb.skb }, tables(&ctx));
    left(&ctx, direct::leave_icmp(&mut skb, &mut tables, work))
}

/// The verdict's action for a packet of this host: what is none of ours is not
/// counted, it is nearly everything.
#[inline(always)]
fn left(ctx: &TcContext, verdict: Verdict) -> i32 {
    match verdict.action {
        Action::Continue => {
            // SAFETY: nothing of this program is held.
            unsafe { EGRESS_STAGES.tail_call(ctx, verdict.ifindex) };
            TC_ACT_UNSPEC
        }
        Action::Drop => {
            count_reason(verdict.reason);
            TC_ACT_SHOT
        }
        Action::Deliver => {
            count_reason(verdict.reason);
            TC_ACT_UNSPEC
        }
        _ => TC_ACT_UNSPEC,
    }
}

/// Whether XDP has decided already. The mark is taken out: the packet may go on to a bridge or another host's device,
/// where another director has yet to decide.
#[inline(always)]
fn judged(ctx: *mut __sk_buff) -> bool {
    // SAFETY: ctx is the program's; the bounds of the metadata are checked.
    unsafe {
        let (meta, data) = ((*ctx).data_meta as usize, (*ctx).data as usize);
        let mark = meta as *mut u32;
        let judged = meta + 4 <= data && mark.read_volatile() == JUDGED;
        if judged {
            mark.write_volatile(0);
        }
        judged
    }
}
