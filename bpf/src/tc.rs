//! The tc shells: ingress of every link beside XDP, egress for what this host
//! itself sends.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use dirigent_director::direct::{self, Stage};
use dirigent_director::records::tunnel;
use dirigent_director::tables::Tables as _;
use dirigent_director::trace::by;
use dirigent_director::{Action, Reason, Verdict};

use crate::maps::{self, KernelTables, count_reason};
use crate::skb::{Loader, REST, Skb, leave_word};
use crate::trace::{self, Around};
use crate::xdp::JUDGED;

/// The later stages of what comes in, by [`Stage`].
#[btf_map]
static INGRESS_STAGES: ProgramArray<{ Stage::COUNT as usize }> = ProgramArray::new();
/// The later stages of what this host sends.
#[btf_map]
static EGRESS_STAGES: ProgramArray<{ Stage::COUNT as usize }> = ProgramArray::new();

/// What packets go through while they are traced.
#[btf_map]
static TRACE_INGRESS: Around = Around::new();
/// The same for what this host sends.
#[btf_map]
static TRACE_EGRESS: Around = Around::new();

// Into what the macro makes of it: kernel 6.1 counts 32 bytes of the stack for a function that has none.
#[classifier]
#[inline(always)]
pub fn dirigent_ingress(ctx: TcContext) -> i32 {
    if trace::on() {
        // SAFETY: nothing of this program is held.
        unsafe { TRACE_INGRESS.tail_call(&ctx, trace::BEFORE) };
    }
    first(&ctx, || false)
}

#[inline(always)]
fn first(ctx: &TcContext, traced: impl FnOnce() -> bool) -> i32 {
    if let Some(stage) = rest(ctx) {
        return entered(ctx, stage, traced);
    }
    if judged(ctx.skb.skb) {
        return TC_ACT_UNSPEC;
    }
    let (mut skb, mut tables) = (Skb::<true> { ctx: ctx.skb.skb }, tables(ctx));
    entered(ctx, direct::direct(&mut skb, &mut tables), traced)
}

/// The programs around those of a direction: into what the macro makes of them, as above.
macro_rules! around {
    ($($who:ident, $map:ident: $before:ident, $first:ident by $work:ident, $after:ident;)*) => { $(
        #[classifier]
        #[inline(always)]
        pub fn $before(ctx: TcContext) -> i32 {
            let skb = ctx.skb.skb;
            trace::began(by::$who, &Skb::<false> { ctx: skb }, &Loader(skb));
            // SAFETY: nothing of this program is held.
            unsafe { $map.tail_call(&ctx, trace::FIRST) };
            count_reason(Reason::StageMissing);
            TC_ACT_SHOT
        }
        #[classifier]
        #[inline(always)]
        pub fn $first(ctx: TcContext) -> i32 {
            $work(&ctx, || true)
        }
        #[classifier]
        #[inline(always)]
        pub fn $after(ctx: TcContext) -> i32 {
            let skb = ctx.skb.skb;
            trace::ended(by::$who, &Skb::<false> { ctx: skb }, &Loader(skb)).map_or(TC_ACT_SHOT, |action| action as i32)
        }
    )* };
}

around! {
    INGRESS, TRACE_INGRESS: trace_ingress_before, trace_ingress_first by first, trace_ingress_after;
    EGRESS, TRACE_EGRESS: trace_egress_before, trace_egress_first by leave, trace_egress_after;
}

/// One program for each stage and family.
macro_rules! stages {
    ($($name:ident: $stage:ident, $work:ident;)*) => { $(
        #[classifier]
        pub fn $name(ctx: TcContext) -> i32 {
            let Some(work) = maps::$work() else { return TC_ACT_SHOT };
            let (mut skb, mut tables) = (Skb::<false> { ctx: ctx.skb.skb }, tables(&ctx));
            entered(&ctx, direct::$stage(&mut skb, &mut tables, work), trace::on)
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
    dirigent_ingress_sctp4: sctp, work4;
    dirigent_ingress_sctp6: sctp, work6;
    dirigent_ingress_shorten4: shorten, work4;
    dirigent_ingress_shorten6: shorten, work6;
    dirigent_ingress_over4: over, work4;
    dirigent_ingress_over6: over, work6;
    dirigent_ingress_mark4: mark, work4;
    dirigent_ingress_mark6: mark, work6;
    dirigent_ingress_persist4: persist, work4;
    dirigent_ingress_persist6: persist, work6;
    dirigent_ingress_clear4: clear, work4;
    dirigent_ingress_clear6: clear, work6;
    dirigent_ingress_assign4: assign, work4;
    dirigent_ingress_assign6: assign, work6;
    dirigent_ingress_choose4: choose, work4;
    dirigent_ingress_choose6: choose, work6;
    dirigent_ingress_quic4: quic, work4;
    dirigent_ingress_quic6: quic, work6;
    dirigent_ingress_ftp4: ftp, work4;
    dirigent_ingress_ftp6: ftp, work6;
    dirigent_ingress_claim4: claim, work4;
    dirigent_ingress_claim6: claim, work6;
    dirigent_ingress_probe4: probe, work4;
    dirigent_ingress_probe6: probe, work6;
    dirigent_ingress_tell4: tell, work4;
    dirigent_ingress_tell6: tell, work6;
}

#[inline(always)]
fn tables(ctx: &TcContext) -> KernelTables {
    KernelTables::new(ctx.skb.skb.cast::<c_void>())
}

/// The verdict's action for a packet that came in.
#[inline(always)]
fn entered(ctx: &TcContext, mut verdict: Verdict, traced: impl FnOnce() -> bool) -> i32 {
    if verdict.action == Action::Continue {
        // SAFETY: nothing of this program is held.
        unsafe { INGRESS_STAGES.tail_call(ctx, verdict.ifindex) };
        verdict = Stage::missing(verdict.ifindex);
    }
    count_reason(verdict.reason);
    let action = match verdict.action {
        Action::Pass | Action::HandOver => TC_ACT_UNSPEC,
        Action::Deliver | Action::Forward => TC_ACT_OK,
        Action::Drop | Action::Continue => TC_ACT_SHOT,
        // SAFETY: no pointers.
        Action::Transmit => unsafe { bpf_redirect(verdict.ifindex, 0) as i32 },
        Action::Resolve => resolve(&tables(ctx), verdict.ifindex),
    };
    if traced() {
        trace::decided(by::INGRESS, &verdict, action as u32);
        // SAFETY: nothing of this program is held.
        unsafe { TRACE_INGRESS.tail_call(ctx, trace::AFTER) };
    }
    action
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
    if trace::on() {
        // SAFETY: nothing of this program is held.
        unsafe { TRACE_EGRESS.tail_call(&ctx, trace::BEFORE) };
    }
    leave(&ctx, || false)
}

#[inline(always)]
fn leave(ctx: &TcContext, traced: impl FnOnce() -> bool) -> i32 {
    let (mut skb, mut tables) = (Skb::<true> { ctx: ctx.skb.skb }, tables(ctx));
    left(ctx, direct::leave(&mut skb, &mut tables), traced)
}

/// The same for what this host sends.
macro_rules! leaving {
    ($($name:ident: $stage:ident, $work:ident;)*) => { $(
        #[classifier]
        pub fn $name(ctx: TcContext) -> i32 {
            let Some(work) = maps::$work() else { return TC_ACT_SHOT };
            let (mut skb, mut tables) = (Skb::<false> { ctx: ctx.skb.skb }, tables(&ctx));
            left(&ctx, direct::$stage(&mut skb, &mut tables, work), trace::on)
        }
    )* };
}

leaving! {
    dirigent_egress_icmp4: leave_icmp, work4;
    dirigent_egress_icmp6: leave_icmp, work6;
    dirigent_egress_sctp4: leave_sctp, work4;
    dirigent_egress_sctp6: leave_sctp, work6;
}

/// The verdict's action for a packet of this host: what is none of ours is not
/// counted, it is nearly everything.
#[inline(always)]
fn left(ctx: &TcContext, verdict: Verdict, traced: impl FnOnce() -> bool) -> i32 {
    let action = match verdict.action {
        Action::Continue => {
            // SAFETY: nothing of this program is held.
            unsafe { EGRESS_STAGES.tail_call(ctx, verdict.ifindex) };
            return TC_ACT_UNSPEC;
        }
        Action::Drop => {
            count_reason(verdict.reason);
            TC_ACT_SHOT
        }
        Action::Deliver => {
            count_reason(verdict.reason);
            TC_ACT_UNSPEC
        }
        // What is none of ours is not told of either.
        _ => return TC_ACT_UNSPEC,
    };
    if traced() {
        trace::decided(by::EGRESS, &verdict, action as u32);
        // SAFETY: nothing of this program is held.
        unsafe { TRACE_EGRESS.tail_call(ctx, trace::AFTER) };
    }
    action
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
