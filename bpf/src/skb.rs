//! A packet as tc sees it.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_csum_update, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_head,
    bpf_skb_change_proto, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    bpf_skb_vlan_pop,
};
use dirigent_director::ftp::{LINE, Line};
use dirigent_director::packet::{L4, Packet};
use dirigent_director::records::tunnel;
use dirigent_director::tunnel::Outer;
use dirigent_wire::{Be16, Header, checksum};

use crate::window::{self, Context, Load, Whole, bounded, header};

/// A packet, in the first stage or a later one.
pub struct Skb<const EASY: bool> {
    pub ctx: *mut __sk_buff,
}

impl<const EASY: bool> Context for Skb<EASY> {
    const DATA: i32 = 76;
    const DATA_END: i32 = 80;
}

/// Copies its bytes.
pub struct Loader(pub *mut __sk_buff);

impl Load for Loader {
    #[inline(always)]
    fn load(&self, off: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: ctx is the program's; there is room for so many bytes.
        unsafe { bpf_skb_load_bytes(self.0.cast(), off, to.cast(), len) == 0 }
    }
}

impl<const E: bool> Packet for Skb<E> {
    type Words = Whole;
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
    fn take_mark(&mut self) -> u32 {
        // SAFETY: ctx is the program's.
        unsafe {
            let at = &raw mut (*self.ctx).mark;
            let mark = at.read_volatile();
            at.write_volatile(0);
            mark
        }
    }
    #[inline(always)]
    fn get<H: Header>(&self, off: usize) -> Option<&H> {
        // SAFETY: it lies in the packet; nothing moves the packet while it is borrowed.
        header::<Self, H>(self.ctx.cast(), off).map(|at| unsafe { &*at })
    }
    #[inline(always)]
    fn get_mut<H: Header>(&mut self, off: usize) -> Option<&mut H> {
        // SAFETY: as `get`; the borrow of the packet keeps it single.
        header::<Self, H>(self.ctx.cast(), off).map(|at| unsafe { &mut *at })
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
    /// Without the helpers, each of which is dear, wherever the checksum is surely finished: one that is not is the pseudo
    /// header's sum, and the kernel says of what it has yet to segment that it will.
    #[inline(always)]
    fn patch_translated(
        &mut self,
        at: usize,
        addr_delta: u16,
        port_delta: u16,
        l4: L4,
        v6: bool,
        pseudo: impl FnOnce() -> u16,
    ) -> bool {
        if E && self.gso_size() == 0
            && let Some(field) = self.get_mut::<Be16>(at)
        {
            let old = field.raw();
            let none = l4 == L4::Udp && old == 0;
            // 0 and 0xffff are the same number.
            let differs = checksum::add(old, !pseudo());
            if differs != 0 && differs != 0xffff && !none {
                l4.patch(field, addr_delta, port_delta);
                if !v6 {
                    // The device's sum over all, if there is one: the IPv4 header's has not changed, the rest's has as the
                    // field has by the address.
                    // SAFETY: ctx is the program's.
                    unsafe { bpf_csum_update(self.ctx, u32::from(!addr_delta)) };
                }
                return true;
            }
        }
        self.patch_l4(at, addr_delta, port_delta, l4, v6)
    }
    #[inline(always)]
    fn sum(&self, off: usize, len: u32) -> Option<u16> {
        window::sum(Loader(self.ctx), off as u32, len)
    }
    #[inline(always)]
    fn load(&self, off: usize, len: u32, to: &mut Line) -> bool {
        // SAFETY: ctx is the program's; the line has room for what a length is bounded to.
        unsafe { bpf_skb_load_bytes(self.ctx.cast(), off as u32, to.0.as_mut_ptr().cast(), bounded::<LINE>(len)) == 0 }
    }
    #[inline(always)]
    fn store(&mut self, off: usize, len: u32, from: &Line) -> bool {
        // SAFETY: as `load`; it is only read.
        unsafe { bpf_skb_store_bytes(self.ctx, off as u32, from.0.as_ptr().cast(), bounded::<LINE>(len), 0) == 0 }
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
        if outer.to_be_cut {
            // What the kernel knows to be encapsulated it lets nobody shorten.
            return self.change(outer.from_v6, outer.v6, bytes as i32);
        }
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
    #[inline(always)]
    fn shed(&mut self, bytes: u32, from_v6: bool, to_v6: bool) -> bool {
        self.change(from_v6, to_v6, -(bytes as i32))
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

impl<const E: bool> Skb<E> {
    /// Makes the packet longer or shorter behind the Ethernet header, of another family.
    #[inline(always)]
    fn change(&mut self, from_v6: bool, to_v6: bool, bytes: i32) -> bool {
        // Changing the family also changes the length, by what the two headers differ.
        const DIFFER: i32 = 20;
        let (protocol, bytes) = match (from_v6, to_v6) {
            (false, true) => (dirigent_wire::eth::IPV6, bytes - DIFFER),
            (true, false) => (dirigent_wire::eth::IPV4, bytes + DIFFER),
            _ => (0, bytes),
        };
        // SAFETY: ctx is the program's.
        unsafe {
            (protocol == 0 || bpf_skb_change_proto(self.ctx, protocol.to_be(), 0) == 0)
                && (bytes == 0 || bpf_skb_adjust_room(self.ctx, bytes, BEHIND_MAC, FIXED_GSO) == 0)
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
pub const REST: [u32; 2] = [0x4469_7267, 0x5265_7374];

/// Writes into the packet's control block, word by word: it is no memory to the verifier.
///
/// # Safety
/// `skb` must be the program's context.
#[inline(always)]
pub unsafe fn leave_word(skb: *mut __sk_buff, mark: [u32; 2], word: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        let cb = (&raw mut (*skb).cb).cast::<u32>();
        cb.write_volatile(mark[0]);
        cb.add(1).write_volatile(mark[1]);
        cb.add(2).write_volatile(word as u32);
        cb.add(3).write_volatile((word >> 32) as u32);
    }
}
