//! The XDP shell: the packet, the verdict's action, and the mark that tells tc
//! what has been decided.

use core::ffi::c_void;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::helpers::{
    bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
    bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use dirigent_director::direct::{self, Stage};
use dirigent_director::ftp::{LINE, Line};
use dirigent_director::packet::Packet;
use dirigent_director::trace::by;
use dirigent_director::tunnel::Outer;
use dirigent_director::{Action, Reason, Verdict};
use dirigent_wire::{Header, eth::EthHeads};

use crate::maps::{self, KernelTables, count_reason};
use crate::trace::{self, Around};
use crate::window::{self, Context, Load, Whole, bounded, header};

/// Put before the packet for tc: decided, leave it alone.
pub const JUDGED: u32 = 0x4469_7267;

/// A frame, in the first stage or a later one.
pub struct Frame<const EASY: bool> {
    ctx: *mut xdp_md,
}

impl<const EASY: bool> Context for Frame<EASY> {
    const DATA: i32 = 0;
    const DATA_END: i32 = 4;
}

/// Copies its bytes.
struct Loader(*mut xdp_md);

impl Load for Loader {
    #[inline(always)]
    fn load(&self, off: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: ctx is the program's; there is room for so many bytes.
        unsafe { bpf_xdp_load_bytes(self.0, off, to.cast(), len) == 0 }
    }
}

impl<const E: bool> Packet for Frame<E> {
    type Words = Whole;
    const EASY: bool = E;
    const LAST: bool = false;

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: ctx is the program's.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as u32 }
    }
    /// Of most, all lies in the first buffer: then the helper is not asked.
    #[inline(always)]
    fn reaches(&self, len: u32) -> bool {
        len <= self.linear() || len <= self.len()
    }
    #[inline(always)]
    fn padded(&self, len: u32) -> bool {
        self.linear() > len
    }
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }
    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: ctx is the program's.
        unsafe { (*self.ctx).ingress_ifindex }
    }
    #[inline(always)]
    fn stripped_tag(&self) -> Option<u16> {
        None
    }
    #[inline(always)]
    fn get<H: Header>(&self, off: usize) -> Option<&H> {
        // SAFETY: it lies in the packet; nothing moves the packet while it is borrowed.
        header::<Self, H>(self.ctx.cast(), off).map(|at| unsafe { &*at })
    }
    #[inline(always)]
    fn get_mut<H: Header>(&mut self, off: usize) -> Option<&mut H> {
        // SAFETY: as `get`; the borrow of the frame keeps it single.
        header::<Self, H>(self.ctx.cast(), off).map(|at| unsafe { &mut *at })
    }
    #[inline(always)]
    fn pull(&mut self, _: u32) {}
    #[inline(always)]
    fn sum(&self, off: usize, len: u32) -> Option<u16> {
        window::sum(Loader(self.ctx), off as u32, len)
    }
    #[inline(always)]
    fn load(&self, off: usize, len: u32, to: &mut Line) -> bool {
        // SAFETY: ctx is the program's; the line has room for what a length is bounded to.
        unsafe { bpf_xdp_load_bytes(self.ctx, off as u32, to.0.as_mut_ptr().cast(), bounded::<LINE>(len)) == 0 }
    }
    #[inline(always)]
    fn store(&mut self, off: usize, len: u32, from: &Line) -> bool {
        // SAFETY: as `load`; it is only read.
        unsafe {
            bpf_xdp_store_bytes(self.ctx, off as u32, from.0.as_ptr().cast_mut().cast(), bounded::<LINE>(len)) == 0
        }
    }
    #[inline(always)]
    fn pop_tag(&mut self) -> bool {
        let Some(heads) = self.get::<EthHeads>(0).copied() else { return false };
        let Some(at) = self.get_mut::<EthHeads>(4) else { return false };
        *at = heads;
        // SAFETY: ctx is the program's.
        unsafe { bpf_xdp_adjust_head(self.ctx, 4) == 0 }
    }
    #[inline(always)]
    fn reshape(&mut self, keep: u32, grow: u32) -> bool {
        let cut = self.len().wrapping_sub(keep) as i32;
        // SAFETY: ctx is the program's.
        unsafe {
            (cut <= 0 || bpf_xdp_adjust_tail(self.ctx, -cut) == 0)
                && (grow == 0 || bpf_xdp_adjust_head(self.ctx, -(grow as i32)) == 0)
        }
    }
    #[inline(always)]
    fn grow(&mut self, bytes: u32, _: Outer) -> bool {
        // SAFETY: ctx is the program's.
        unsafe { bpf_xdp_adjust_head(self.ctx, -(bytes as i32)) == 0 }
    }
    /// Only behind the Ethernet header, whose MACs the caller writes: what XDP would have
    /// to cut it hands over.
    #[inline(always)]
    fn adjust(&mut self, header: u32, change: i32) -> bool {
        // SAFETY: ctx is the program's.
        header == 0 && unsafe { bpf_xdp_adjust_head(self.ctx, -change) == 0 }
    }
    #[inline(always)]
    fn fork(&mut self, _: u64) -> bool {
        false
    }
}

impl<const E: bool> Frame<E> {
    /// Bytes in the first buffer.
    #[inline(always)]
    fn linear(&self) -> u32 {
        // SAFETY: ctx is the program's; this only compares two of its fields.
        unsafe { (*self.ctx).data_end.wrapping_sub((*self.ctx).data) }
    }
}

/// The later stages, by [`Stage`].
#[btf_map]
static XDP_STAGES: ProgramArray<{ Stage::COUNT as usize }> = ProgramArray::new();

#[xdp]
#[inline(always)]
pub fn dirigent_xdp(ctx: XdpContext) -> u32 {
    enter(&ctx)
}

/// What packets go through while they are traced.
#[btf_map]
static TRACE_XDP: Around = Around::new();

/// The first stage.
#[inline(always)]
pub fn enter(ctx: &XdpContext) -> u32 {
    if trace::on() {
        // SAFETY: nothing of this program is held.
        unsafe { TRACE_XDP.tail_call(ctx, trace::BEFORE) };
    }
    first(ctx, || false)
}

#[inline(always)]
fn first(ctx: &XdpContext, traced: impl FnOnce() -> bool) -> u32 {
    let (mut frame, mut tables) = (Frame::<true> { ctx: ctx.ctx }, tables(ctx));
    act(ctx, direct::direct(&mut frame, &mut tables), traced)
}

/// The first program as if packets could not be traced: what `scripts/bench-instructions.sh` holds the real one against.
/// Never attached.
#[xdp]
#[inline(always)]
pub fn untraced_xdp(ctx: XdpContext) -> u32 {
    first(&ctx, || false)
}

#[xdp]
#[inline(always)]
pub fn trace_xdp_before(ctx: XdpContext) -> u32 {
    trace::began(by::XDP, &Frame::<false> { ctx: ctx.ctx }, &Loader(ctx.ctx));
    // SAFETY: nothing of this program is held.
    unsafe { TRACE_XDP.tail_call(&ctx, trace::FIRST) };
    count_reason(Reason::StageMissing);
    xdp_action::XDP_DROP
}

#[xdp]
#[inline(always)]
pub fn trace_xdp_first(ctx: XdpContext) -> u32 {
    first(&ctx, || true)
}

#[xdp]
#[inline(always)]
pub fn trace_xdp_after(ctx: XdpContext) -> u32 {
    trace::ended(by::XDP, &Frame::<false> { ctx: ctx.ctx }, &Loader(ctx.ctx)).unwrap_or(xdp_action::XDP_DROP)
}

/// One program for each stage and family.
macro_rules! stages {
    ($($name:ident: $stage:ident, $work:ident;)*) => { $(
        #[xdp]
        pub fn $name(ctx: XdpContext) -> u32 {
            let Some(work) = maps::$work() else { return xdp_action::XDP_ABORTED };
            let (mut frame, mut tables) = (Frame::<false> { ctx: ctx.ctx }, tables(&ctx));
            act(&ctx, direct::$stage(&mut frame, &mut tables, work), trace::on)
        }
    )* };
}

stages! {
    dirigent_xdp_slow4: slow, work4;
    dirigent_xdp_slow6: slow, work6;
    dirigent_xdp_open4: open, work4;
    dirigent_xdp_open6: open, work6;
    dirigent_xdp_one_packet4: one_packet, work4;
    dirigent_xdp_one_packet6: one_packet, work6;
    dirigent_xdp_stranger4: stranger, work4;
    dirigent_xdp_stranger6: stranger, work6;
    dirigent_xdp_refuse4: refuse, work4;
    dirigent_xdp_refuse6: refuse, work6;
    dirigent_xdp_icmp4: icmp, work4;
    dirigent_xdp_icmp6: icmp, work6;
    dirigent_xdp_icmp_open4: icmp_open, work4;
    dirigent_xdp_icmp_open6: icmp_open, work6;
    dirigent_xdp_tunnel_error4: tunnel_error, work4;
    dirigent_xdp_tunnel_error6: tunnel_error, work6;
    dirigent_xdp_encapsulate4: encapsulate, work4;
    dirigent_xdp_encapsulate6: encapsulate, work6;
    dirigent_xdp_sctp4: sctp, work4;
    dirigent_xdp_sctp6: sctp, work6;
    dirigent_xdp_over4: over, work4;
    dirigent_xdp_over6: over, work6;
    dirigent_xdp_mark4: mark, work4;
    dirigent_xdp_mark6: mark, work6;
    dirigent_xdp_persist4: persist, work4;
    dirigent_xdp_persist6: persist, work6;
    dirigent_xdp_clear4: clear, work4;
    dirigent_xdp_clear6: clear, work6;
    dirigent_xdp_assign4: assign, work4;
    dirigent_xdp_assign6: assign, work6;
    dirigent_xdp_choose4: choose, work4;
    dirigent_xdp_choose6: choose, work6;
    dirigent_xdp_quic4: quic, work4;
    dirigent_xdp_quic6: quic, work6;
    dirigent_xdp_ftp4: ftp, work4;
    dirigent_xdp_ftp6: ftp, work6;
    dirigent_xdp_claim4: claim, work4;
    dirigent_xdp_claim6: claim, work6;
    dirigent_xdp_tell4: tell, work4;
    dirigent_xdp_tell6: tell, work6;
}

/// For the other end of a veth link whose driver only takes XDP frames back when
/// it has a program itself.
#[xdp]
pub fn dirigent_pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[inline(always)]
fn tables(ctx: &XdpContext) -> KernelTables {
    KernelTables::new(ctx.ctx.cast::<c_void>())
}

/// The verdict's action, which is told of if the packet is traced.
#[inline(always)]
fn act(ctx: &XdpContext, mut verdict: Verdict, traced: impl FnOnce() -> bool) -> u32 {
    // Most packets are sent on: of them nothing else is asked.
    let action = if verdict.action == Action::Transmit {
        count_reason(verdict.reason);
        transmit(ctx, verdict.ifindex)
    } else {
        if verdict.action == Action::Continue {
            // SAFETY: nothing of this program is held.
            unsafe { XDP_STAGES.tail_call(ctx, verdict.ifindex) };
            verdict = Stage::missing(verdict.ifindex);
        }
        let judged = matches!(verdict.action, Action::Pass | Action::Deliver | Action::Forward);
        if judged {
            mark(ctx.ctx);
        }
        count_reason(verdict.reason);
        if judged || verdict.action == Action::HandOver { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
    };
    if traced() {
        trace::decided(by::XDP, &verdict, action);
        // SAFETY: nothing of this program is held.
        unsafe { TRACE_XDP.tail_call(ctx, trace::AFTER) };
    }
    action
}

/// Out of an interface, which may be the one it came in by.
#[inline(always)]
fn transmit(ctx: &XdpContext, ifindex: u32) -> u32 {
    // SAFETY: the context is the program's.
    if ifindex == unsafe { (*ctx.ctx).ingress_ifindex } {
        return xdp_action::XDP_TX;
    }
    // SAFETY: no pointers.
    unsafe { bpf_redirect(ifindex, 0) as u32 }
}

/// Tells tc, where the driver carries metadata; where not, tc decides the same
/// packet again, to the same end.
#[inline(always)]
fn mark(ctx: *mut xdp_md) {
    // SAFETY: ctx is the program's; the bounds of the metadata are checked.
    unsafe {
        if bpf_xdp_adjust_meta(ctx, -4) == 0 {
            let (meta, data) = ((*ctx).data_meta as usize, (*ctx).data as usize);
            if meta + 4 <= data {
                (meta as *mut u32).write_volatile(JUDGED);
            }
        }
    }
}
