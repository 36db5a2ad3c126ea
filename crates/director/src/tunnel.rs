//! Tunnelling: the packet goes to its server unchanged inside another (ipvs-semantics
//! §2.5, packet-rules §2.2 "TUN outer header"), and what the way there is learned to carry.

use crate::direct::Flow;
use crate::family::{Address, Family, L3, pseudo_tail};
use crate::packet::{Packet, Words as _};
use crate::parse::{self, Fragment};
use crate::records::{NextHop, Settings, setting, tunnel};
use crate::tables::Tables;
use dirigent_wire::{
    Addr4, Addr6, Be16, Be32, EthHeader, GreChecksum, GreHeader, GueHeader, Ipv4Header, Ipv6Header, Ports, UdpHeader,
    checksum, eth, ip::proto,
};

/// What is put in front of a packet, for executors that must tell the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The new IP header is IPv6.
    pub v6: bool,
    /// One of [`tunnel`]'s kinds.
    pub kind: u8,
    /// Of a packet that the device will segment the segments become smaller, so that
    /// each fits with its outer header.
    pub smaller_segments: bool,
    /// The inner packet's family.
    pub from_v6: bool,
    /// The packet will be cut: it is one of its own from here on, nothing that the device
    /// could know the inside of.
    pub to_be_cut: bool,
}

/// Bytes of a GUE header behind UDP.
const GUE: u32 = 12;

/// Ports that GUE is sent from: the ephemeral ones, by flow, so that routers and
/// network cards spread flows (RFC 7510 §3).
const FIRST_PORT: u32 = 32768;
const PORTS: u32 = 60999 - FIRST_PORT + 1;

impl NextHop {
    /// Whether packets are put into another packet.
    #[inline(always)]
    pub fn tunnelled(&self) -> bool {
        self.tunnel != tunnel::NONE
    }
    /// Bytes that a tunnel adds to a packet.
    #[inline(always)]
    pub fn overhead(&self) -> u32 {
        let ip = if self.flags & tunnel::PEER_V6 != 0 { 40 } else { 20 };
        match self.tunnel {
            tunnel::IPIP => ip,
            tunnel::GRE if self.flags & tunnel::CHECKSUM != 0 => ip + 8,
            tunnel::GRE => ip + 4,
            tunnel::GUE => ip + GUE,
            _ => 0,
        }
    }
    /// The largest packet that the way carries, outer headers included; bytes.
    #[inline(always)]
    pub fn path_mtu(&self) -> u32 {
        let learned = self.learned.load() & 0xffff;
        if learned != 0 && learned < self.mtu { learned } else { self.mtu }
    }
    /// The largest packet that can be sent to the server in one piece. (Of tunnels only a smaller MTU is learned.)
    #[inline(always)]
    pub fn room(&self) -> u32 {
        if !self.tunnelled() {
            return self.mtu;
        }
        self.path_mtu().saturating_sub(self.overhead())
    }
}

/// A smaller MTU that a router on the way to a tunnel's end told: the low half of
/// [`NextHop::learned`]; when, in 256 ticks, the high half. 0: none.
pub struct Learned;

impl Learned {
    /// Seconds that it holds (RFC 1191 §6.3: ten minutes).
    const LIFE_S: u32 = 600;
    /// Less is no MTU but an attack (RFC 791: hosts take 576; RFC 8200 §5).
    const LEAST: [u32; 2] = [576, 1280];

    /// Notes what was told, if it is believable and less than what is known. Says whether
    /// it is believable.
    #[inline(always)]
    pub fn note(next: &NextHop, mtu: u32, now: u32) -> bool {
        let least = if next.flags & tunnel::PEER_V6 != 0 { Self::LEAST[1] } else { Self::LEAST[0] };
        if mtu < least {
            return false;
        }
        if mtu <= next.path_mtu() && mtu < next.mtu {
            next.learned.store((now >> 8) << 16 | mtu);
        }
        true
    }
    /// Forgets an MTU learned long ago: the way may have changed. Says whether it did.
    #[inline(always)]
    pub fn forget_old(next: &NextHop, settings: &Settings, now: u32) -> bool {
        let word = next.learned.load();
        // Hours later it may look young again, which costs ten more minutes.
        let age = ((now >> 8) as u16).wrapping_sub((word >> 16) as u16);
        if word == 0 || u32::from(age) < Self::LIFE_S.saturating_mul(settings.hz) >> 8 {
            return false;
        }
        next.learned.store(0);
        true
    }
}

/// Whether an IPv4 packet may be cut on its way through a tunnel although its sender
/// forbade it (IPVS `pmtu_disc` 0).
#[inline(always)]
pub fn may_cut_all<T: Tables>(t: &T, next: &NextHop) -> bool {
    next.tunnelled() && t.settings().is_some_and(|s| s.flags & setting::PMTU_DISC == 0)
}

/// Puts the packet, whose TTL is decremented already, into another. `smaller` and `cut`:
/// see [`Outer`]. `false`: it could not grow.
#[inline(always)]
pub fn encapsulate<F: Family, P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    flow: &Flow<F>,
    next: &NextHop,
    (smaller, cut): (bool, bool),
) -> bool {
    let ip = &flow.ip;
    // What follows the IP packet in its frame is padding.
    if p.padded(L3 as u32 + ip.len) && !p.reshape(L3 as u32 + ip.len, 0) {
        return false;
    }
    // Each segment would need a checksum of its own, and the device does not make them.
    let summed = !P::EASY && next.flags & tunnel::CHECKSUM != 0 && p.gso_size() == 0;
    let payload = if summed {
        match inner_sum(p, flow) {
            Some(sum) => sum,
            None => return false,
        }
    } else {
        0
    };
    let v6 = next.flags & tunnel::PEER_V6 != 0;
    let mut grow = next.overhead();
    if next.tunnel == tunnel::GRE && next.flags & tunnel::CHECKSUM != 0 && !summed {
        grow -= 4;
    }
    let outer = Outer { v6, kind: next.tunnel, smaller_segments: smaller, from_v6: F::V6, to_be_cut: cut };
    if !p.grow(grow, outer) {
        return false;
    }
    let protocol = match next.tunnel {
        tunnel::GRE => proto::GRE,
        tunnel::GUE => proto::UDP,
        _ => inner_protocol::<F>(),
    };
    let outer = OuterIp {
        len: grow + ip.len,
        protocol,
        ttl: ip.ttl.wrapping_sub(1),
        // RFC 6040 §4.1 would keep CE; IPVS and Linux send it as ECT(0).
        tos: if ip.tos & 3 == 3 { ip.tos & !1 } else { ip.tos },
        df: !F::V6 && !ip.may_cut && t.settings().is_some_and(|s| s.flags & setting::PMTU_DISC != 0),
    };
    let Some(ethernet) = p.get_mut::<EthHeader>(0) else { return false };
    (ethernet.src, ethernet.dst) = (next.src, next.dst);
    ethernet.ethertype = Be16::new(if v6 { eth::IPV6 } else { eth::IPV4 });
    let written = if v6 { outer.write6(p, next) } else { outer.write4(p, t, next) };
    let at = L3 + if v6 { 40 } else { 20 };
    written
        && match next.tunnel {
            tunnel::GRE => write_gre::<F, P>(p, at, summed, payload),
            tunnel::GUE => write_gue(p, at, flow, next, summed, payload),
            _ => true,
        }
}

/// The IP protocol number of what is inside.
#[inline(always)]
fn inner_protocol<F: Family>() -> u8 {
    if F::V6 { proto::IPV6 } else { proto::IPIP }
}

/// The outer IP header's variable parts.
struct OuterIp {
    len: u32,
    protocol: u8,
    ttl: u8,
    tos: u8,
    df: bool,
}

impl OuterIp {
    /// A length that the field cannot say ("BIG TCP") is 0.
    fn length(bytes: u32) -> Be16 {
        Be16::new(if bytes > 0xffff { 0 } else { bytes as u16 })
    }

    #[inline(always)]
    fn write4<P: Packet, T: Tables>(&self, p: &mut P, t: &T, next: &NextHop) -> bool {
        // RFC 6864 §4.1: atomic datagrams need none.
        let ident = if self.df { 0 } else { t.random() as u16 | 1 };
        let Some(ip) = p.get_mut::<Ipv4Header>(L3) else { return false };
        *ip = Ipv4Header {
            version_ihl: 0x45,
            tos: self.tos,
            total_len: Self::length(self.len),
            id: Be16::new(ident),
            fragment: Be16::new(if self.df { Ipv4Header::DF } else { 0 }),
            ttl: self.ttl,
            protocol: self.protocol,
            check: Be16::new(0),
            src: Addr4::from_words(&next.source),
            dst: Addr4::from_words(&next.peer),
        };
        ip.check = Be16::from_raw(!ip.sum());
        true
    }
    #[inline(always)]
    fn write6<P: Packet>(&self, p: &mut P, next: &NextHop) -> bool {
        let Some(ip) = p.get_mut::<Ipv6Header>(L3) else { return false };
        ip.version_class_flow = Be32::new(6 << 28 | u32::from(self.tos) << 20);
        ip.payload_len = Self::length(self.len.wrapping_sub(40));
        (ip.next_header, ip.hop_limit) = (self.protocol, self.ttl);
        P::Words::put6(&mut ip.src, Addr6(next.source));
        P::Words::put6(&mut ip.dst, Addr6(next.peer));
        true
    }
}

#[inline(always)]
fn write_gre<F: Family, P: Packet>(p: &mut P, at: usize, summed: bool, payload: u16) -> bool {
    let protocol = Be16::new(if F::V6 { eth::IPV6 } else { eth::IPV4 });
    let flags = Be16::new(if summed { GreHeader::CHECKSUM } else { 0 });
    let Some(gre) = p.get_mut::<GreHeader>(at) else { return false };
    *gre = GreHeader { flags, protocol };
    if !summed {
        return true;
    }
    let sum = checksum::add(checksum::add(flags.raw(), protocol.raw()), payload);
    let Some(check) = p.get_mut::<GreChecksum>(at + size_of::<GreHeader>()) else { return false };
    *check = GreChecksum { check: Be16::from_raw(!sum), reserved: Be16::new(0) };
    true
}

#[inline(always)]
fn write_gue<F: Family, P: Packet>(
    p: &mut P,
    at: usize,
    flow: &Flow<F>,
    next: &NextHop,
    summed: bool,
    payload: u16,
) -> bool {
    let len = GUE + flow.ip.len;
    let gue = GueHeader { version_len: 0, protocol: inner_protocol::<F>(), flags: Be16::new(0) };
    let ports = Ports { src: Be16::new(source_port(flow)), dst: next.port };
    let mut udp = UdpHeader { ports, len: OuterIp::length(len), check: Be16::new(0) };
    if summed {
        let addresses = checksum::add(checksum::sum8(&next.source), checksum::sum8(&next.peer));
        let pseudo = checksum::add(addresses, pseudo_tail(proto::UDP, len));
        let header = checksum::add(checksum::add(ports.src.raw(), ports.dst.raw()), udp.len.raw());
        let gue_sum = u16::from_ne_bytes([gue.version_len, gue.protocol]);
        let sum = checksum::add(checksum::add(pseudo, header), checksum::add(gue_sum, payload));
        // 0 would say that there is none (RFC 768).
        udp.check = Be16::from_raw(if !sum == 0 { 0xffff } else { !sum });
    }
    let Some(header) = p.get_mut::<UdpHeader>(at) else { return false };
    *header = udp;
    let Some(header) = p.get_mut::<GueHeader>(at + size_of::<UdpHeader>()) else { return false };
    *header = gue;
    true
}

/// The UDP port that a flow's packets are sent from.
#[inline(always)]
fn source_port<F: Family>(flow: &Flow<F>) -> u16 {
    let key = &flow.key;
    let ports = u32::from(key.sport.get()) << 16 | u32::from(key.dport.get());
    // Multiplicative hashing (Knuth), one factor for each word.
    let hash = key.src.hash_fold().wrapping_mul(0x9e37_79b1)
        ^ key.dst.hash_fold().wrapping_mul(0x85eb_ca77)
        ^ ports.wrapping_mul(0xc2b2_ae3d);
    let hash = (hash ^ hash >> 15).wrapping_mul(0x27d4_eb2f);
    (FIRST_PORT + ((u64::from(hash) * u64::from(PORTS)) >> 32) as u32) as u16
}

/// The sum over the inner packet as it will arrive. A checksum that the device has yet to
/// finish holds the sum of the pseudo header so far; what it covers will sum to that
/// sum's opposite (the kernel's "local checksum offload").
#[inline(always)]
fn inner_sum<F: Family, P: Packet>(p: &P, flow: &Flow<F>) -> Option<u16> {
    let l4 = p.sum(flow.ip.l4, flow.ip.l4_len())?;
    let header = p.sum(L3, (flow.ip.l4 - L3) as u32)?;
    let l4 = if P::LAST && unfinished(p, flow, l4) { !p.get::<Be16>(flow.l4.check_at)?.raw() } else { l4 };
    Some(checksum::add(header, l4))
}

/// Whether the transport checksum of a whole packet waits for the device to finish it.
/// `l4`: the sum of transport header and payload. Nobody says so in BPF; but then the field
/// holds the pseudo header's sum, and the checksum is not right as it stands.
#[inline(always)]
pub fn unfinished<F: Family, P: Packet>(p: &P, flow: &Flow<F>, l4: u16) -> bool {
    if flow.ip.fragment != Fragment::Whole || !parse::has_ports(flow.ip.protocol) {
        return false;
    }
    let pseudo = flow.pseudo();
    let field = p.get::<Be16>(flow.l4.check_at).map_or(0, |f| f.raw());
    field == pseudo && checksum::add(l4, pseudo) != 0xffff
}
