//! Finished packets that are longer than their way carries, and whose senders allow it,
//! are cut (RFC 791 §3.2; the outer packet of a tunnel over IPv6: RFC 8200 §4.5). The
//! first piece leaves at once, a copy becomes the rest, which is cut in turn.

use crate::direct::{Stage, Work};
use crate::family::{Family, L3};
use crate::forward::Way;
use crate::packet::Packet;
use crate::parse::Ip;
use crate::tables::{Route, Tables};
use crate::verdict::{Reason, Verdict};
use dirigent_wire::{Be16, Be32, EthHeader, FragHeader, Ipv4Header, Ipv6Header, checksum, ip::proto};

/// Where the pieces go and how long they may be: one word that goes with the packet from
/// stage to stage. Their MACs are written already, or found for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parting(pub u64);

impl Parting {
    const RESOLVED: u64 = 1 << 63;
    const AGAIN: u64 = 1 << 62;

    /// Back to the slow path as packets of their own, of at most `mtu` bytes.
    #[inline(always)]
    pub fn again(mtu: u32) -> Self {
        Parting(Self::AGAIN | u64::from(mtu & 0xffff))
    }

    /// By this way in pieces of at most `mtu` bytes.
    #[inline(always)]
    pub fn new(way: &Way, mtu: u32, reason: Reason) -> Self {
        let resolved = if way.resolved { Self::RESOLVED } else { 0 };
        // Interface numbers are below 4096 (records::LINKS), servers' below 2^31 / 64.
        let (mtu, ifindex) = (u64::from(mtu & 0xffff), u64::from(way.ifindex & 0xfff));
        let reason = match reason {
            Reason::Request => 0,
            Reason::Reply => 1,
            Reason::IcmpRequest => 2,
            _ => 3,
        };
        Parting(resolved | reason << 60 | u64::from(way.via & 0x3ff_ffff) << 28 | ifindex << 16 | mtu)
    }
    #[inline(always)]
    fn mtu(self) -> u32 {
        self.0 as u32 & 0xffff
    }
    #[inline(always)]
    fn reason(self) -> Reason {
        match self.0 >> 60 & 3 {
            0 => Reason::Request,
            1 => Reason::Reply,
            2 => Reason::IcmpRequest,
            _ => Reason::IcmpReply,
        }
    }
    #[inline(always)]
    fn ifindex(self) -> u32 {
        (self.0 >> 16) as u32 & 0xfff
    }
    /// Sends a piece on its way: the one that was found before, or what the routing table
    /// says now.
    #[inline(always)]
    fn send<F: Family, P: Packet, T: Tables>(self, p: &mut P, t: &T, ip: &Ip<F::Addr>) -> Verdict {
        if self.0 & Self::AGAIN != 0 {
            return Stage::Slow.verdict::<F>();
        }
        let via = (self.0 >> 28) as u32 & 0x3ff_ffff;
        let resolved = self.0 & Self::RESOLVED != 0;
        if resolved || via != 0 {
            return Way::depart(t, resolved, self.ifindex(), via, self.reason());
        }
        match F::route(t, p.ingress(), &ip.src, &ip.dst, self.mtu()) {
            Route::To { ifindex, src, dst, .. } => {
                let Some(ethernet) = p.get_mut::<EthHeader>(0) else { return Verdict::drop(Reason::RewriteFailed) };
                (ethernet.src, ethernet.dst) = (src, dst);
                Way::depart(t, true, ifindex, 0, self.reason())
            }
            Route::NoNeighbour(ifindex) => Way::depart(t, false, ifindex, 0, self.reason()),
            Route::NotForwarding => Way::depart(t, false, self.ifindex(), 0, self.reason()),
            Route::TooBig(_) | Route::None => Verdict::drop(Reason::ReplyUnroutable),
        }
    }
}

/// Sends what the way carries of the packet, all of it if it fits.
#[inline(always)]
pub fn cut<F: Pieces, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>, parting: Parting) -> Verdict {
    let ip = &mut w.flow.ip;
    if ip.len <= parting.mtu() {
        return parting.send::<F, P, T>(p, t, ip);
    }
    let failed = Verdict::drop(Reason::RewriteFailed);
    if !F::prepare(p, t, ip) {
        return failed;
    }
    let unit = unit(ip, parting);
    if unit == 0 || !p.fork(parting.0) {
        return failed;
    }
    let header = (ip.l4 - L3) as u32;
    if !p.reshape(L3 as u32 + header + unit, 0) || !F::first(p, header, unit) {
        return failed;
    }
    parting.send::<F, P, T>(p, t, ip)
}

/// Bytes of payload in each piece but the last: a multiple of eight.
#[inline(always)]
fn unit<A>(ip: &Ip<A>, parting: Parting) -> u32 {
    parting.mtu().saturating_sub((ip.l4 - L3) as u32) & 0xfff8
}

/// Takes the first piece away from the copy that [`cut`] left: what is left is a packet
/// of its own, to be cut again if need be.
#[inline(always)]
pub fn rest<F: Pieces, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>, parting: Parting) -> bool {
    let ip = &w.flow.ip;
    let unit = unit(ip, parting);
    let header = (ip.l4 - L3) as u32;
    unit != 0 && ip.len > header + unit && F::later(p, t, ip, unit)
}

/// What the families cut differently.
pub trait Pieces: Family {
    /// Makes room for what says that the packet is a piece.
    fn prepare<P: Packet, T: Tables>(p: &mut P, t: &T, ip: &mut Ip<Self::Addr>) -> bool;
    /// Makes the header that of the first piece, with `unit` bytes of payload.
    fn first<P: Packet>(p: &mut P, header: u32, unit: u32) -> bool;
    /// Takes `unit` bytes of payload away, and makes the header that of what is left.
    fn later<P: Packet, T: Tables>(p: &mut P, t: &T, ip: &Ip<Self::Addr>, unit: u32) -> bool;
}

/// Most words of IPv4 options.
const OPTIONS: usize = 10;

impl Pieces for crate::family::V4 {
    #[inline(always)]
    fn prepare<P: Packet, T: Tables>(_: &mut P, _: &T, _: &mut Ip<Self::Addr>) -> bool {
        true
    }
    #[inline(always)]
    fn first<P: Packet>(p: &mut P, header: u32, unit: u32) -> bool {
        const MORE: u16 = 0x2000;
        let Some(ip) = p.get_mut::<Ipv4Header>(L3) else { return false };
        let place = ip.fragment.get() & (Ipv4Header::OFFSET | 0x8000) | MORE;
        set(ip, (header + unit) as u16, place);
        true
    }
    #[inline(always)]
    fn later<P: Packet, T: Tables>(p: &mut P, t: &T, ip: &Ip<Self::Addr>, unit: u32) -> bool {
        let mut options = [0u32; OPTIONS];
        let words = (ip.l4 - L3) / 4 - 5;
        for (i, word) in options.iter_mut().enumerate() {
            if i < words {
                *word = p.get::<Be32>(L3 + 20 + 4 * i).map_or(0, |w| w.get());
            }
        }
        if !p.adjust(20, -(unit as i32)) {
            return false;
        }
        for (i, word) in options.iter().enumerate() {
            if i < words {
                let Some(to) = p.get_mut::<Be32>(L3 + 20 + 4 * i) else { return false };
                *to = Be32::new(*word);
            }
        }
        let _ = t;
        let Some(header) = p.get_mut::<Ipv4Header>(L3) else { return false };
        let place = header.fragment.get();
        let offset = (place & Ipv4Header::OFFSET) + (unit / 8) as u16;
        set(header, (ip.len - unit) as u16, place & !(Ipv4Header::OFFSET | Ipv4Header::DF) | offset);
        true
    }
}

/// Length and place of a piece, with the header's checksum.
#[inline(always)]
fn set(ip: &mut Ipv4Header, len: u16, place: u16) {
    let (len, place) = (Be16::new(len), Be16::new(place));
    let delta = checksum::delta(ip.total_len.raw(), len.raw());
    ip.patch_check(checksum::add(delta, checksum::delta(ip.fragment.raw(), place.raw())));
    (ip.total_len, ip.fragment) = (len, place);
}

impl Pieces for crate::family::V6 {
    /// Only the outer packet of a tunnel is cut, whose header is plain: a fragment header
    /// comes behind it, once.
    #[inline(always)]
    fn prepare<P: Packet, T: Tables>(p: &mut P, t: &T, ip: &mut Ip<Self::Addr>) -> bool {
        const FRAGMENT: u32 = size_of::<FragHeader>() as u32;
        let Some(header) = p.get::<Ipv6Header>(L3) else { return false };
        let (next, len) = (header.next_header, header.payload_len.get());
        if next == proto::FRAGMENT {
            return true;
        }
        if !p.adjust(40, FRAGMENT as i32) {
            return false;
        }
        let Some(fragment) = p.get_mut::<FragHeader>(L3 + 40) else { return false };
        *fragment = FragHeader { next_header: next, reserved: 0, offset_more: Be16::new(0), id: Be32::new(t.random()) };
        let Some(header) = p.get_mut::<Ipv6Header>(L3) else { return false };
        header.next_header = proto::FRAGMENT;
        header.payload_len = Be16::new(len.wrapping_add(FRAGMENT as u16));
        ip.l4 = L3 + 48;
        ip.len += FRAGMENT;
        true
    }
    #[inline(always)]
    fn first<P: Packet>(p: &mut P, header: u32, unit: u32) -> bool {
        let Some(fragment) = p.get_mut::<FragHeader>(L3 + 40) else { return false };
        fragment.offset_more = Be16::new(fragment.offset_more.get() | FragHeader::MORE);
        let Some(ip) = p.get_mut::<Ipv6Header>(L3) else { return false };
        ip.payload_len = Be16::new((header + unit - 40) as u16);
        true
    }
    #[inline(always)]
    fn later<P: Packet, T: Tables>(p: &mut P, _: &T, ip: &Ip<Self::Addr>, unit: u32) -> bool {
        let Some(fragment) = p.get::<FragHeader>(L3 + 40).copied() else { return false };
        if !p.adjust(40, -(unit as i32)) {
            return false;
        }
        let Some(to) = p.get_mut::<FragHeader>(L3 + 40) else { return false };
        // The offset in units of eight stands above three other bits: bytes as they are.
        *to = FragHeader { offset_more: Be16::new(fragment.offset_more.get() + unit as u16), ..fragment };
        let Some(header) = p.get_mut::<Ipv6Header>(L3) else { return false };
        header.payload_len = Be16::new((ip.len - unit - 40) as u16);
        true
    }
}
