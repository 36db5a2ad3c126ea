//! From bytes to what the packet path decides on. Nothing here changes the
//! packet or a table.

use crate::family::{Family, L3, V4, V6};
use crate::packet::{Packet, Words as _};
use crate::tables::Tables;
use crate::verdict::{Decision, Reason, Verdict};
use dirigent_wire::{
    Be16, EthHeader, ExtHeader, FragHeader, Ipv4Header, Ipv6Header, Ports, TcpHeader, UdpHeader, checksum, ip::proto,
};

/// Where a packet stands among its fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fragment {
    /// It is none (or an atomic one, RFC 6946).
    #[default]
    Whole,
    /// The first: ports are there, more follow.
    First,
    /// A later one, without ports.
    Later,
}

/// An IP header, read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ip<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// Protocol behind all extension headers.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class: DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// Whether routers may cut it (IPv4 without DF).
    pub may_cut: bool,
    /// Place among its fragments.
    pub fragment: Fragment,
    /// Identification of the datagram, if it is one.
    pub ident: u32,
    /// Offset of the transport header.
    pub l4: usize,
    /// Bytes of the IP packet, header included.
    pub len: u32,
}

impl<A> Ip<A> {
    /// Bytes of transport header and payload.
    #[inline(always)]
    pub fn l4_len(&self) -> u32 {
        (self.len + L3 as u32).wrapping_sub(self.l4 as u32)
    }
}

/// The part of [`Family`] that reads headers.
pub trait ReadIp: Family {
    /// Reads the header at `at`. `quoted`: it stands in an ICMP error, where the
    /// packet is cut and its checksum is none of ours.
    fn read<P: Packet>(p: &P, at: usize, quoted: bool) -> Option<Ip<Self::Addr>>;
    /// The header without options and extension headers.
    type Header: dirigent_wire::Header;
    /// Source and destination of TCP and UDP.
    fn ends<P: Packet>(header: &Self::Header) -> Option<(Self::Addr, Self::Addr)>;
    /// What the header at `at` says, if it is as simple as nearly all are: no options, no extension headers.
    fn plain<P: Packet>(p: &P, header: &Self::Header, at: usize) -> Option<Ip<Self::Addr>>;
    /// Reads the header at `at` if it is as simple.
    #[inline(always)]
    fn read_plain<P: Packet>(p: &P, at: usize) -> Option<Ip<Self::Addr>> {
        Self::plain(p, p.get(at)?, at)
    }
}

/// TCP and UDP.
#[inline(always)]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP)
}

impl ReadIp for V4 {
    type Header = Ipv4Header;
    #[inline(always)]
    fn ends<P: Packet>(ip: &Ipv4Header) -> Option<(Self::Addr, Self::Addr)> {
        has_ports(ip.protocol).then(|| P::Words::ends4(ip))
    }
    #[inline(always)]
    fn plain<P: Packet>(p: &P, ip: &Ipv4Header, at: usize) -> Option<Ip<Self::Addr>> {
        let len = u32::from(ip.total_len.get());
        let sound = ip.version_ihl == 0x45 && len >= 20 && p.reaches(at as u32 + len) && P::Words::sound4(ip);
        if !sound || ip.fragment.get() & Ipv4Header::MF_OR_OFFSET != 0 {
            return None;
        }
        let (src, dst) = P::Words::ends4(ip);
        Some(Ip {
            src,
            dst,
            protocol: ip.protocol,
            ttl: ip.ttl,
            tos: ip.tos,
            may_cut: ip.fragment.get() & Ipv4Header::DF == 0,
            fragment: Fragment::Whole,
            ident: 0,
            l4: at + 20,
            len,
        })
    }
    #[inline(always)]
    fn read<P: Packet>(p: &P, at: usize, quoted: bool) -> Option<Ip<Self::Addr>> {
        let ip = p.get::<Ipv4Header>(at)?;
        let header = usize::from(ip.version_ihl & 0x0f) * 4;
        if ip.version_ihl >> 4 != 4 || header < 20 {
            return None;
        }
        let mut len = u32::from(ip.total_len.get());
        if !quoted {
            let room = p.len().wrapping_sub(at as u32);
            if len == 0 && p.gso_size() != 0 {
                len = room; // longer than the field can say ("BIG TCP")
            }
            if len > room || len < header as u32 {
                return None;
            }
        }
        let fragment = ip.fragment.get();
        let (src, dst) = P::Words::ends4(ip);
        let out = Ip {
            src,
            dst,
            protocol: ip.protocol,
            ttl: ip.ttl,
            tos: ip.tos,
            may_cut: fragment & Ipv4Header::DF == 0,
            fragment: match (fragment & Ipv4Header::OFFSET, fragment & Ipv4Header::MF_OR_OFFSET) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            },
            ident: u32::from(ip.id.get()),
            l4: at + header,
            len,
        };
        if !quoted {
            let mut sum = ip.sum();
            if header > 20 {
                sum = checksum::add(sum, p.sum(at + 20, header as u32 - 20)?);
            }
            if sum != 0xffff {
                return None;
            }
        }
        Some(out)
    }
}

/// Whether the IPv4 options before `end` ask for a source route (RFC 791 §3.1: loose
/// 131, strict 137). The host's stack refuses those, and is left to.
#[inline(always)]
pub fn source_routed<P: Packet, T: Tables>(p: &P, t: &T, end: usize) -> bool {
    const MOST: usize = 40;
    let (mut skip, mut i) = (0u32, 0);
    while i < MOST && L3 + 21 + i < end {
        let Some(option) = p.get::<ExtHeader>(L3 + 20 + i) else { return false };
        // What was skipped so far must not make the verifier tell the rounds apart.
        skip = t.forget(skip);
        match option.next_header {
            _ if skip > 0 => skip -= 1,
            0 => return false,
            1 => {}
            131 | 137 => return true,
            _ => skip = u32::from(option.len).wrapping_sub(1),
        }
        i += 1;
    }
    false
}

/// Extension headers looked through before a packet is left to the host.
const MAX_EXTENSIONS: usize = 6;

impl ReadIp for V6 {
    type Header = Ipv6Header;
    #[inline(always)]
    fn ends<P: Packet>(ip: &Ipv6Header) -> Option<(Self::Addr, Self::Addr)> {
        has_ports(ip.next_header).then(|| P::Words::ends6(ip))
    }
    #[inline(always)]
    fn plain<P: Packet>(p: &P, ip: &Ipv6Header, at: usize) -> Option<Ip<Self::Addr>> {
        let len = u32::from(ip.payload_len.get()) + 40;
        let plain = matches!(ip.next_header, proto::TCP | proto::UDP | proto::ICMPV6);
        if ip.version_class_flow.get() >> 28 != 6 || !p.reaches(at as u32 + len) || !plain {
            return None;
        }
        let (src, dst) = P::Words::ends6(ip);
        Some(Ip {
            src,
            dst,
            protocol: ip.next_header,
            ttl: ip.hop_limit,
            tos: (ip.version_class_flow.get() >> 20) as u8,
            may_cut: false,
            fragment: Fragment::Whole,
            ident: 0,
            l4: at + 40,
            len,
        })
    }
    #[inline(always)]
    fn read<P: Packet>(p: &P, at: usize, quoted: bool) -> Option<Ip<Self::Addr>> {
        let ip = p.get::<Ipv6Header>(at)?;
        let word = ip.version_class_flow.get();
        if word >> 28 != 6 {
            return None;
        }
        let mut len = u32::from(ip.payload_len.get()) + 40;
        if !quoted {
            let room = p.len().wrapping_sub(at as u32);
            if len == 40 && p.gso_size() != 0 {
                len = room;
            }
            if len > room {
                return None;
            }
        }
        let (src, dst) = P::Words::ends6(ip);
        let mut out = Ip {
            src,
            dst,
            protocol: ip.next_header,
            ttl: ip.hop_limit,
            tos: (ip.version_class_flow.get() >> 20) as u8,
            may_cut: false,
            fragment: Fragment::Whole,
            ident: 0,
            l4: at + 40,
            len,
        };
        if matches!(out.protocol, proto::TCP | proto::UDP | proto::ICMPV6) {
            return Some(out);
        }
        // Such that end behind the packet's end have nothing behind them.
        (extensions(p, &mut out) && (quoted || out.l4 <= at + len as usize)).then_some(out)
    }
}

/// Walks the extension headers of `ip` up to the transport header.
#[inline(always)]
fn extensions<P: Packet, A>(p: &P, ip: &mut Ip<A>) -> bool {
    let mut n = 0;
    while n < MAX_EXTENSIONS {
        match ip.protocol {
            proto::HOP_BY_HOP | proto::ROUTING | proto::DEST_OPTIONS => {
                let Some(ext) = p.get::<ExtHeader>(ip.l4) else { return false };
                ip.protocol = ext.next_header;
                ip.l4 += (usize::from(ext.len) + 1) * 8;
            }
            proto::FRAGMENT => {
                let Some(frag) = p.get::<FragHeader>(ip.l4) else { return false };
                ip.protocol = frag.next_header;
                ip.ident = frag.id.get();
                let place = frag.offset_more.get();
                if place & FragHeader::OFFSET != 0 {
                    ip.fragment = Fragment::Later;
                    ip.l4 += 8;
                    return true;
                }
                if place & FragHeader::MORE != 0 {
                    ip.fragment = Fragment::First;
                }
                ip.l4 += 8;
            }
            _ => return true,
        }
        n += 1;
    }
    true
}

/// A transport header, read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transport {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// TCP flags; 0 for UDP; one of [`crate::sctp::event`].
    pub flags: u8,
    /// Bytes of the TCP header, as it says. SCTP: what its checksum changes by if the port is
    /// rewritten (a field for it would be one more word through TCP's and UDP's way).
    pub header: u32,
    /// Offset of the checksum field.
    pub check_at: usize,
    /// UDP without a checksum.
    pub no_check: bool,
}

/// How much of a transport header is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All of it.
    Full,
    /// The ports only: the rest is cut off.
    Ports,
    /// Not even the ports.
    Nothing,
}

/// Reads the TCP or UDP header of `ip`; what is not there is 0. (Always a whole
/// `Transport`: an enum's unused payload would be registers never set.)
#[inline(always)]
pub fn transport<P: Packet, A>(p: &P, ip: &Ip<A>) -> (Extent, Transport) {
    let mut l4 = Transport {
        sport: Be16::new(0),
        dport: Be16::new(0),
        flags: 0,
        header: 8,
        check_at: ip.l4 + UdpHeader::CHECK,
        no_check: false,
    };
    let room = ip.l4_len();
    if ip.protocol == proto::TCP {
        l4.check_at = ip.l4 + TcpHeader::CHECK;
        if let Some(tcp) = p.get::<TcpHeader>(ip.l4)
            && room >= 20
        {
            (l4.sport, l4.dport) = (tcp.ports.src, tcp.ports.dst);
            l4.flags = tcp.flags;
            l4.header = u32::from(tcp.data_offset >> 4) * 4;
            return (Extent::Full, l4);
        }
    } else if let Some(udp) = p.get::<UdpHeader>(ip.l4)
        && room >= 8
    {
        (l4.sport, l4.dport) = (udp.ports.src, udp.ports.dst);
        l4.no_check = udp.check.raw() == 0;
        return (Extent::Full, l4);
    }
    match p.get::<Ports>(ip.l4) {
        Some(ports) if room >= 4 => {
            (l4.sport, l4.dport) = (ports.src, ports.dst);
            (Extent::Ports, l4)
        }
        _ => (Extent::Nothing, l4),
    }
}

/// Bytes made readable before parsing: IPv4 with options and TCP, or IPv6 with a
/// few extension headers.
pub const HEADERS: u32 = 128;

/// What an Ethernet frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// An IPv4 packet.
    Ipv4,
    /// An IPv6 packet.
    Ipv6,
}

/// Reads the Ethernet header: a frame for a MAC that is `own`, with an IP packet, untagged or
/// with a priority tag (VLAN 0, IEEE 802.1Q §6.9), which is taken out. Service tags
/// (802.1ad) are tags as others: of one that the device stripped nothing else is known.
#[inline(always)]
pub fn ethernet<P: Packet>(p: &mut P, own: impl Fn(dirigent_wire::Mac) -> bool) -> Decision<Payload> {
    p.pull(HEADERS);
    let Some(eth) = p.get::<EthHeader>(0) else { return Err(Verdict::pass(Reason::OtherEthertype)) };
    if !own(P::Words::recipient(eth)) {
        return Err(Verdict::pass(Reason::OtherMac));
    }
    let mut ethertype = eth.ethertype.get();
    let tag = match p.stripped_tag() {
        Some(tci) => Some(tci),
        None if tagged(ethertype) => p.get::<dirigent_wire::eth::VlanTag>(L3).map(|tag| tag.tci.get()),
        None => None,
    };
    if let Some(tci) = tag {
        if tci & 0x0fff != 0 {
            return Err(Verdict::pass(Reason::Vlan));
        }
        if !p.pop_tag() {
            return Err(Verdict::drop(Reason::RewriteFailed));
        }
        ethertype = match p.get::<EthHeader>(0) {
            Some(eth) => eth.ethertype.get(),
            None => 0,
        };
        // A tag in the tag; the kernel strips it, too, as it takes the outer one.
        if tagged(ethertype) || p.stripped_tag().is_some() {
            return Err(Verdict::pass(Reason::Vlan));
        }
    }
    match ethertype {
        dirigent_wire::eth::IPV4 => Ok(Payload::Ipv4),
        dirigent_wire::eth::IPV6 => Ok(Payload::Ipv6),
        _ => Err(Verdict::pass(Reason::OtherEthertype)),
    }
}

#[inline(always)]
fn tagged(ethertype: u16) -> bool {
    matches!(ethertype, dirigent_wire::eth::VLAN | dirigent_wire::eth::SERVICE_VLAN)
}
