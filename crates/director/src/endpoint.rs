//! The server's end of a tunnel, for real servers whose kernel has no tunnel devices or
//! whose operators want none: the outer header comes off (RFC 2003, RFC 2473, RFC 2784,
//! GUE version 0), and the segments that the server offers to take become as small as the
//! tunnel carries. Runs on the real server; it shares headers and parsing with the director,
//! and none of its tables.

use crate::direct::MAX_L4;
use crate::family::{Family, L3, V4, V6};
use crate::packet::{L4, Packet};
use crate::parse::{self, Fragment, Ip, Payload, ReadIp};
use crate::records::tunnel;
use crate::relay::inside;
use dirigent_wire::{
    Addr4, Addr6, Be16, Be32, EthHeader, GreHeader, Ipv4Header, Ipv6Header, Mac, TcpHeader, UdpHeader, checksum, eth,
    ip::proto,
};

/// What the server is told; one record.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Terms {
    /// Version of this layout.
    pub version: u32,
    /// Bit n: packets of [`tunnel`]'s kind n are taken out.
    pub kinds: u32,
    /// GUE: UDP port, network byte order.
    pub port: Be16,
    /// The interface's MAC.
    pub mac: Mac,
    /// Largest segment to be offered to IPv4 clients; 0: as it is.
    pub mss4: u16,
    /// Largest segment to be offered to IPv6 clients; 0: as it is.
    pub mss6: u16,
    /// 1: only packets from known directors are taken out.
    pub known_directors: u16,
    /// Zero.
    pub spare: u16,
}

/// Version of [`Terms`] and of the sets beside it.
pub const TERMS_VERSION: u32 = 1;

const _: () = assert!(size_of::<Terms>() == 24);

/// What the server's end remembers.
pub trait EndTables {
    /// What it is told; `None`: nothing yet.
    fn terms(&self) -> Option<&Terms>;
    /// Whether this is a virtual address of the server.
    fn vip4(&self, addr: &Addr4) -> bool;
    /// The same for IPv6.
    fn vip6(&self, addr: &Addr6) -> bool;
    /// Whether a director sends from there.
    fn director4(&self, addr: &Addr4) -> bool;
    /// The same for IPv6.
    fn director6(&self, addr: &Addr6) -> bool;
    /// The same number, forgotten by the verifier: see [`crate::tables::Tables::forget`].
    fn forget(&self, value: u32) -> u32;
}

/// What became of a packet; each is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Outcome {
    /// Not a tunnel's, or not for a virtual address: the host gets it as it came.
    Passed = 0,
    /// The outer header is off.
    Decapsulated = 1,
    /// A piece of a tunnelled packet: only whole ones can be taken out.
    Fragment = 2,
    /// From somebody who is no director of this server.
    Stranger = 3,
    /// What is inside is no sound IP packet, or longer than what it is inside of.
    Malformed = 4,
    /// Congestion was marked on the way, and the flow does not know marks (RFC 6040 §4.2).
    Congested = 5,
    /// The packet could not be rewritten.
    Failed = 6,
    /// A segment size offered to a client was lowered.
    Clamped = 7,
}

impl Outcome {
    /// All, in the order of their counters.
    pub const ALL: [Outcome; 8] = [
        Outcome::Passed,
        Outcome::Decapsulated,
        Outcome::Fragment,
        Outcome::Stranger,
        Outcome::Malformed,
        Outcome::Congested,
        Outcome::Failed,
        Outcome::Clamped,
    ];
    /// The counter's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Decapsulated => "decapsulated",
            Self::Fragment => "fragment",
            Self::Stranger => "stranger",
            Self::Malformed => "malformed",
            Self::Congested => "congested",
            Self::Failed => "failed",
            Self::Clamped => "clamped",
        }
    }
    /// What that means for whoever reads the counter.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Passed => "no tunnel's, or not for a virtual address: the host got them as they came",
            Self::Decapsulated => "taken out of a tunnel",
            Self::Fragment => {
                "pieces of tunnelled packets, left to the host, which loses them: let the director cut inside"
            }
            Self::Stranger => "dropped: no director of this server sent them",
            Self::Malformed => "dropped: what was inside is no sound IP packet",
            Self::Congested => "dropped: marked as congested on the way, for a flow that does not know marks",
            Self::Failed => "dropped: they could not be rewritten",
            Self::Clamped => "SYNs whose segment size was lowered to what the tunnel carries",
        }
    }
    /// Whether the packet ends here.
    #[must_use]
    pub const fn dropped(self) -> bool {
        matches!(self, Self::Stranger | Self::Malformed | Self::Congested | Self::Failed)
    }
}

/// The part of the families that tells servers and directors apart.
pub trait EndFamily: ReadIp {
    /// Whether this is a virtual address of the server.
    fn vip<T: EndTables>(t: &T, addr: &Self::Addr) -> bool;
    /// Whether a director sends from there.
    fn director<T: EndTables>(t: &T, addr: &Self::Addr) -> bool;
    /// Writes the congestion mark (ECN) into the header at `at`.
    fn mark<P: Packet>(p: &mut P, at: usize, ecn: u8) -> bool;
    /// The largest segment to be offered.
    fn mss(terms: &Terms) -> u16;
}

impl EndFamily for V4 {
    #[inline(always)]
    fn vip<T: EndTables>(t: &T, addr: &Addr4) -> bool {
        t.vip4(addr)
    }
    #[inline(always)]
    fn director<T: EndTables>(t: &T, addr: &Addr4) -> bool {
        t.director4(addr)
    }
    #[inline(always)]
    fn mark<P: Packet>(p: &mut P, at: usize, ecn: u8) -> bool {
        let Some(ip) = p.get_mut::<Ipv4Header>(at) else { return false };
        let old = u16::from_ne_bytes([ip.version_ihl, ip.tos]);
        ip.tos = ip.tos & !3 | ecn;
        let new = u16::from_ne_bytes([ip.version_ihl, ip.tos]);
        ip.patch_check(checksum::delta(old, new));
        true
    }
    #[inline(always)]
    fn mss(terms: &Terms) -> u16 {
        terms.mss4
    }
}

impl EndFamily for V6 {
    #[inline(always)]
    fn vip<T: EndTables>(t: &T, addr: &Addr6) -> bool {
        t.vip6(addr)
    }
    #[inline(always)]
    fn director<T: EndTables>(t: &T, addr: &Addr6) -> bool {
        t.director6(addr)
    }
    #[inline(always)]
    fn mark<P: Packet>(p: &mut P, at: usize, ecn: u8) -> bool {
        let Some(ip) = p.get_mut::<Ipv6Header>(at) else { return false };
        let word = ip.version_class_flow.get();
        ip.version_class_flow = Be32::new(word & !(3 << 20) | u32::from(ecn) << 20);
        true
    }
    #[inline(always)]
    fn mss(terms: &Terms) -> u16 {
        terms.mss6
    }
}

/// A frame that came in: a tunnel's packet loses its outer header.
#[inline(always)]
pub fn receive<P: Packet, T: EndTables>(p: &mut P, t: &T) -> Outcome {
    let Some(terms) = t.terms() else { return Outcome::Passed };
    match parse::ethernet(p, |mac| mac == terms.mac) {
        Ok(Payload::Ipv4) => outer::<V4, P, T>(p, t, terms),
        Ok(Payload::Ipv6) => outer::<V6, P, T>(p, t, terms),
        Err(_) => Outcome::Passed,
    }
}

#[inline(always)]
fn outer<F: EndFamily, P: Packet, T: EndTables>(p: &mut P, t: &T, terms: &Terms) -> Outcome {
    let Some(ip) = F::read(p, L3, false) else { return Outcome::Passed };
    let tunnelled = match ip.protocol {
        proto::IPIP | proto::IPV6 => takes(terms, tunnel::IPIP),
        proto::GRE => takes(terms, tunnel::GRE),
        proto::UDP => takes(terms, tunnel::GUE),
        _ => false,
    };
    if !tunnelled {
        return Outcome::Passed;
    }
    let l4 = (t.forget(ip.l4 as u32) & MAX_L4) as usize;
    if ip.fragment == Fragment::Later {
        // Of UDP it is not known to be a tunnel's.
        return if ip.protocol == proto::UDP { Outcome::Passed } else { Outcome::Fragment };
    }
    if ip.protocol == proto::UDP && p.get::<UdpHeader>(l4).is_none_or(|udp| udp.ports.dst != terms.port) {
        return Outcome::Passed;
    }
    if ip.protocol == proto::GRE && p.get::<GreHeader>(l4).is_none() {
        return Outcome::Passed;
    }
    let (kind, v6, at) = inside(p, &ip, l4);
    if kind == tunnel::NONE {
        return Outcome::Passed;
    }
    if ip.fragment == Fragment::First {
        return Outcome::Fragment;
    }
    let at = (t.forget(at as u32) & MAX_L4) as usize;
    if v6 { take_out::<F, V6, P, T>(p, t, terms, &ip, at) } else { take_out::<F, V4, P, T>(p, t, terms, &ip, at) }
}

#[inline(always)]
fn takes(terms: &Terms, kind: u8) -> bool {
    terms.kinds >> kind & 1 != 0
}

/// Congestion marks (RFC 3168 §5).
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CONGESTED: u8 = 3;

/// The packet at `at` inside, of family `G`, if it is for a virtual address.
#[inline(always)]
fn take_out<F: EndFamily, G: EndFamily, P: Packet, T: EndTables>(
    p: &mut P,
    t: &T,
    terms: &Terms,
    outer: &Ip<F::Addr>,
    at: usize,
) -> Outcome {
    let Some(inner) = G::read(p, at, false) else { return Outcome::Malformed };
    if !G::vip(t, &inner.dst) {
        return Outcome::Passed;
    }
    if at as u32 + inner.len > L3 as u32 + outer.len && p.gso_size() == 0 {
        return Outcome::Malformed;
    }
    if terms.known_directors != 0 && !F::director(t, &outer.src) {
        return Outcome::Stranger;
    }
    let (mark, own) = (outer.tos & 3, inner.tos & 3);
    if mark == CONGESTED && own == 0 {
        return Outcome::Congested;
    }
    // RFC 6040 §4.2, figure 4: all else keeps its own mark.
    let changed = mark == CONGESTED && own != CONGESTED || mark == ECT_1 && own == ECT_0;
    if changed && !G::mark(p, at, mark) {
        return Outcome::Failed;
    }
    let surplus = at.wrapping_sub(L3) as u32 & MAX_L4;
    if !p.shed(surplus, F::V6, G::V6) {
        return Outcome::Failed;
    }
    let Some(ethernet) = p.get_mut::<EthHeader>(0) else { return Outcome::Failed };
    ethernet.ethertype = Be16::new(if G::V6 { eth::IPV6 } else { eth::IPV4 });
    Outcome::Decapsulated
}

/// A packet that the server sends: the segment size it offers from a virtual address.
#[inline(always)]
pub fn send<P: Packet, T: EndTables>(p: &mut P, t: &T) -> Outcome {
    let Some(terms) = t.terms() else { return Outcome::Passed };
    p.pull(parse::HEADERS);
    let Some(ethernet) = p.get::<EthHeader>(0) else { return Outcome::Passed };
    match ethernet.ethertype.get() {
        eth::IPV4 => clamp::<V4, P, T>(p, t, terms),
        eth::IPV6 => clamp::<V6, P, T>(p, t, terms),
        _ => Outcome::Passed,
    }
}

/// Bytes of TCP options at most (RFC 9293 §3.1).
const OPTIONS: usize = 40;

#[inline(always)]
fn clamp<F: EndFamily, P: Packet, T: EndTables>(p: &mut P, t: &T, terms: &Terms) -> Outcome {
    let most = F::mss(terms);
    let Some(ip) = F::read_plain(p, L3) else { return Outcome::Passed };
    if most == 0 || ip.protocol != proto::TCP {
        return Outcome::Passed;
    }
    let l4 = ip.l4;
    let Some(tcp) = p.get::<TcpHeader>(l4) else { return Outcome::Passed };
    if tcp.flags & TcpHeader::SYN == 0 || !F::vip(t, &ip.src) {
        return Outcome::Passed;
    }
    let end = u32::from(tcp.data_offset >> 4) * 4;
    let (mut skip, mut i) = (0u32, 0);
    while i < OPTIONS {
        // Neither the header's length nor what was skipped so far must make the verifier
        // tell the rounds apart, or the compiler count them from what it cannot see.
        if 20 + i as u32 + 3 >= t.forget(end) {
            return Outcome::Passed;
        }
        let at = l4 + 20 + i;
        let Some([kind, len]) = pair(p, at) else { return Outcome::Passed };
        skip = t.forget(skip);
        match kind {
            _ if skip > 0 => skip -= 1,
            0 => return Outcome::Passed,
            1 => {}
            2 if len == 4 => return lower::<F, P>(p, l4, at + 2, most),
            _ => skip = u32::from(len).wrapping_sub(1),
        }
        i += 1;
    }
    Outcome::Passed
}

#[inline(always)]
fn pair<P: Packet>(p: &P, at: usize) -> Option<[u8; 2]> {
    Some([*p.get::<u8>(at)?, *p.get::<u8>(at + 1)?])
}

/// Lowers the segment size at `at` (which may be odd) to `most`.
#[inline(always)]
fn lower<F: Family, P: Packet>(p: &mut P, l4: usize, at: usize, most: u16) -> Outcome {
    let Some(old) = pair(p, at) else { return Outcome::Passed };
    if u16::from_be_bytes(old) <= most {
        return Outcome::Passed;
    }
    let new = most.to_be_bytes();
    for (i, byte) in new.into_iter().enumerate() {
        let Some(to) = p.get_mut::<u8>(at + i) else { return Outcome::Failed };
        *to = byte;
    }
    let delta = checksum::delta(u16::from_ne_bytes(old), u16::from_ne_bytes(new));
    // Astride two words each byte counts in the other half (RFC 1071 §2(B)).
    let delta = if (at - l4).is_multiple_of(2) { delta } else { delta.swap_bytes() };
    if !p.patch_l4(l4 + TcpHeader::CHECK, 0, delta, L4::Tcp, F::V6) {
        return Outcome::Failed;
    }
    Outcome::Clamped
}
