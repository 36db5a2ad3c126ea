//! The tc shells: ingress of every link beside XDP, egress for what this host
//! itself sends.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room,
    bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_vlan_pop,
};
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use dirigent_director::direct::{self, Stage};
use dirigent_director::packet::{L4, Packet};
use dirigent_director::records::tunnel;
use dirigent_director::tables::Tables as _;
use dirigent_director::tunnel::Outer;
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
                && (grow == 0 || bpf_skb_change_head(self.ctx, grow, 0) == 0)
        }
    }
    /// The kernel is told what is inside: it must segment what offloads have put together.
    #[inline(always)]
    fn grow(&mut self, bytes: u32, outer: Outer) -> bool {
        let family = if outer.v6 { ENCAP_L3_IPV6 } else { ENCAP_L3_IPV4 };
        let inside = match outer.kind {
            tunnel::GRE => ENCAP_L4_GRE,
            tunnel::GUE => ENCAP_L4_UDP,
            _ => 0,
        };
        let segments = if outer.smaller_segments { 0 } else { FIXED_GSO };
        // SAFETY: ctx is the program's.
        unsafe { bpf_skb_adjust_room(self.ctx, bytes as i32, BEHIND_MAC, family | inside | segments) == 0 }
    }
    #[inline(always)]
    fn adjust(&mut self, header: u32, change: i32) -> bool {
        let place = if header == 0 { BEHIND_MAC } else { BEHIND_IP };
        // SAFETY: ctx is the program's.
        unsafe { bpf_skb_adjust_room(self.ctx, change, place, FIXED_GSO) == 0 }
    }
    /// The copy comes in by the same interface again, with the word in its control block.
    #[inline(always)]
    fn fork(&mut self, word: u64) -> bool {
        const INGRESS: u64 = 1;
        // SAFETY: ctx is the program's.
        unsafe {
            leave_word(self.ctx, REST, word);
            let forked = bpf_clone_redirect(self.ctx, (*self.ctx).ifindex, INGRESS) == 0;
            leave_word(self.ctx, [0; 2], 0);
            forked
        }
    }
}

// linux/bpf.h: where and how bpf_skb_adjust_room makes room.
const BEHIND_IP: u32 = 0;
const BEHIND_MAC: u32 = 1;
const FIXED_GSO: u64 = 1;
const ENCAP_L3_IPV4: u64 = 2;
const ENCAP_L3_IPV6: u64 = 4;
const ENCAP_L4_GRE: u64 = 8;
const ENCAP_L4_UDP: u64 = 16;

/// In the control block of a packet's rest. What was there of earlier layers of the kernel
/// are pointers, lengths and times: never this.
const REST: [u32; 2] = [0x4469_7267, 0x5265_7374];

/// The later stages of what comes in, by [`Stage`].
#[btf_map]
static INGRESS_STAGES: ProgramArray<{ Stage::COUNT as usize }> = ProgramArray::new();
/// The later stages of what this host sends.
#[btf_map]
static EGRESS_STAGES: ProgramArray<{ Stage::COUNT as usize }> = ProgramArray::new();

#[classifier]
pub fn dirigent_ingress(ctx: TcContext) -> i32 {
    if let Some(stage) = rest(&ctx) {
        return entered(&ctx, stage);
    }
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
    dirigent_ingress_tunnel_error4: tunnel_error, work4;
    dirigent_ingress_tunnel_error6: tunnel_error, work6;
    dirigent_ingress_encapsulate4: encapsulate, work4;
    dirigent_ingress_encapsulate6: encapsulate, work6;
    dirigent_ingress_cut4: cut, work4;
    dirigent_ingress_cut6: cut, work6;
    dirigent_ingress_rest4: rest, work4;
    dirigent_ingress_rest6: rest, work6;
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
        Action::Resolve => resolve(&tables(ctx), verdict.ifindex),
    }
}

/// Out of `ifindex` to the neighbour of the next hop that the packet path left word of, or
/// to that of the packet's own destination.
#[inline(always)]
fn resolve(t: &KernelTables, ifindex: u32) -> i32 {
    let via = t.stashed() as u32;
    let next = if via == 0 { None } else { t.next_hop(via - 1) };
    let Some(next) = next else {
        // SAFETY: no parameters: the kernel routes by the packet's own header.
        return unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 };
    };
    let [a, b, c, d, e, f, g, h] = next.peer;
    let word = |hi: u16, lo: u16| u32::from(lo) << 16 | u32::from(hi);
    let family = if next.flags & tunnel::PEER_V6 != 0 { 10 } else { 2 };
    let mut neighbour = [family, word(a, b), word(c, d), word(e, f), word(g, h)];
    // SAFETY: a struct bpf_redir_neigh: family and address.
    unsafe { bpf_redirect_neigh(ifindex, neighbour.as_mut_ptr().cast(), size_of_val(&neighbour) as i32, 0) as i32 }
}

/// Writes into the packet's control block, word by word: it is no memory to the verifier.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
unsafe fn leave_word(skb: *mut __sk_buff, mark: [u32; 2], word: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        let cb = (&raw mut (*skb).cb).cast::<u32>();
        cb.write_volatile(mark[0]);
        cb.add(1).write_volatile(mark[1]);
        cb.add(2).write_volatile(word as u32);
        cb.add(3).write_volatile((word >> 32) as u32);
    }
}

/// Whether this is the rest of a packet that was cut: the stage that goes on with it.
#[inline(always)]
fn rest(ctx: &TcContext) -> Option<Verdict> {
    let skb = ctx.skb.skb;
    // SAFETY: ctx is the program's.
    unsafe {
        let word = |i: usize| (&raw const (*skb).cb).cast::<u32>().add(i).read_volatile();
        if word(0) != REST[0] || word(1) != REST[1] {
            return None;
        }
        let (low, high) = (word(2), word(3));
        leave_word(skb, [0; 2], 0);
        tables(ctx).stash(u64::from(high) << 32 | u64::from(low));
        let v6 = (*skb).protocol == u32::from(dirigent_wire::eth::IPV6.to_be());
        Some(Verdict::out(Action::Continue, Reason::LaterStage, Stage::Rest.number(v6)))
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

/// Whether XDP has decided already.
#[inline(always)]
fn judged(ctx: *mut __sk_buff) -> bool {
    // SAFETY: ctx is the program's; the bounds of the metadata are checked.
    unsafe {
        let (meta, data) = ((*ctx).data_meta as usize, (*ctx).data as usize);
        meta + 4 <= data && (meta as *const u32).read_volatile() == JUDGED
    }
}
