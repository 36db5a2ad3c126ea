//! What is in an Ethernet frame, captured or imagined: addresses, ports and TTL, of what is in a tunnel too; and in words.

use dirigent_net::Mac;
use etherparse::{Icmpv4Slice, Icmpv6Slice, IpNumber, LaxIpSlice, TcpHeaderSlice, UdpHeaderSlice};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Tunnels in tunnels that are looked into.
const DEEPEST: usize = 2;
/// The UDP port of GUE (draft-ietf-intarea-gue §3).
pub const GUE_PORT: u16 = 6080;

/// An Ethernet frame with an IP packet in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'f> {
    /// Whom it is from.
    pub source: Mac,
    /// Whom it is for.
    pub destination: Mac,
    /// The packets, the outermost first.
    packets: Vec<Packet<'f>>,
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'f> {
    /// What is in it.
    pub kind: Kind,
    /// Source.
    pub from: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// Of TCP, UDP and SCTP: source and destination port. (Not of GUE, which is in UDP.)
    pub ports: Option<(u16, u16)>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes as its header says, that included.
    pub length: usize,
    /// Not all of it is there.
    pub incomplete: bool,
    /// What is behind the header of its kind.
    pub payload: &'f [u8],
    /// Bytes of that, as the headers say.
    pub payload_length: usize,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP with these flags, as in its header.
    Tcp(u8),
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP: type and code.
    Icmp(u8, u8),
    /// ICMPv6: type and code.
    Icmpv6(u8, u8),
    /// Another packet.
    Ipip,
    /// Another packet, behind a GRE header.
    Gre,
    /// Another packet, behind UDP's and GUE's headers.
    Gue,
    /// Something else, or what is cut short in its header: the protocol's number.
    Other(u8),
}

impl Kind {
    /// Its name in small letters.
    pub fn name(self) -> String {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp(..) => "icmp",
            Self::Icmpv6(..) => "icmpv6",
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
            Self::Other(number) => return format!("protocol {number}"),
        }
        .to_owned()
    }
    fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gre | Self::Gue)
    }
}

/// Names of TCP's flags (RFC 9293 §3.1) that are set.
pub fn flag_names(flags: u8) -> Vec<&'static str> {
    let names = [(2, "SYN"), (1, "FIN"), (4, "RST"), (8, "PSH"), (16, "ACK")];
    names.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name).collect()
}

impl<'f> Frame<'f> {
    /// Reads a frame; none if there is no IP header in it.
    pub fn read(frame: &'f [u8]) -> Option<Self> {
        Self::read_with(frame, GUE_PORT)
    }

    /// The same where GUE has another port.
    pub fn read_with(frame: &'f [u8], gue: u16) -> Option<Self> {
        let mac = |at: usize| frame.get(at..)?.first_chunk().copied();
        let (destination, source) = (mac(0)?, mac(6)?);
        let mut packets = vec![Packet::read(frame.get(ETHERNET..)?, gue)?];
        while let Some(last) = packets.last()
            && last.kind.is_tunnel()
            && packets.len() <= DEEPEST
            && let Some(inside) = Packet::read(last.payload, gue)
        {
            packets.push(inside);
        }
        Some(Self { source, destination, packets })
    }

    /// The packet that is carried: the innermost.
    pub fn packet(&self) -> Option<&Packet<'f>> {
        self.packets.last()
    }

    /// The packet of the tunnel that it is in, if it is.
    pub fn outer(&self) -> Option<&Packet<'f>> {
        self.packets.first().filter(|_| self.packets.len() > 1)
    }

    /// Something of it is missing.
    pub fn is_incomplete(&self) -> bool {
        self.packets.iter().any(|packet| packet.incomplete)
    }
}

impl<'f> Packet<'f> {
    fn read(packet: &'f [u8], gue: u16) -> Option<Self> {
        let (slice, _) = LaxIpSlice::from_slice(packet).ok()?;
        let (ttl, length) = match &slice {
            LaxIpSlice::Ipv4(v4) => (v4.header().ttl(), usize::from(v4.header().total_len())),
            LaxIpSlice::Ipv6(v6) => (v6.header().hop_limit(), 40 + usize::from(v6.header().payload_length())),
        };
        let inside = slice.payload();
        let body = inside.payload;
        // What is incomplete goes on to the end of what is there.
        let body_length = match inside.incomplete {
            true => length.saturating_sub(packet.len().saturating_sub(body.len())),
            false => body.len(),
        };
        let (kind, ports, header) = kind(inside.ip_number, body, gue);
        Some(Self {
            kind,
            from: slice.source_addr(),
            to: slice.destination_addr(),
            ports,
            ttl,
            length,
            incomplete: inside.incomplete,
            payload: body.get(header..).unwrap_or_default(),
            payload_length: body_length.saturating_sub(header),
        })
    }

    /// The source with its port; 0 if it has none.
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.from, self.ports.map_or(0, |(from, _)| from))
    }

    /// The destination with its port; 0 if it has none.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.to, self.ports.map_or(0, |(_, to)| to))
    }
}

/// What is in a packet, its ports, and the bytes of its header.
fn kind(number: IpNumber, body: &[u8], gue: u16) -> (Kind, Option<(u16, u16)>, usize) {
    let other = (Kind::Other(number.0), None, 0);
    match number {
        IpNumber::TCP => match TcpHeaderSlice::from_slice(body) {
            Ok(tcp) => {
                let flags = body.get(13).copied().unwrap_or(0);
                (Kind::Tcp(flags), Some((tcp.source_port(), tcp.destination_port())), tcp.slice().len())
            }
            Err(_) => other,
        },
        IpNumber::UDP => match UdpHeaderSlice::from_slice(body) {
            // Behind UDP's header its own, with so many words of options.
            Ok(udp) if udp.destination_port() == gue => {
                (Kind::Gue, None, 12 + 4 * usize::from(body.get(8).map_or(0, |byte| byte & 0x1f)))
            }
            Ok(udp) => (Kind::Udp, Some((udp.source_port(), udp.destination_port())), udp.slice().len()),
            Err(_) => other,
        },
        IpNumber::SCTP => match body {
            [a, b, c, d, ..] => (Kind::Sctp, Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))), 12),
            _ => other,
        },
        IpNumber::ICMP => match Icmpv4Slice::from_slice(body) {
            Ok(icmp) => (Kind::Icmp(icmp.type_u8(), icmp.code_u8()), None, 8),
            Err(_) => other,
        },
        IpNumber::IPV6_ICMP => match Icmpv6Slice::from_slice(body) {
            Ok(icmp) => (Kind::Icmpv6(icmp.type_u8(), icmp.code_u8()), None, 8),
            Err(_) => other,
        },
        IpNumber::IPV4 | IpNumber::IPV6 => (Kind::Ipip, None, 0),
        // With a checksum it is four bytes longer (RFC 2784 §2.1).
        IpNumber::GRE => (Kind::Gre, None, if body.first().is_some_and(|b| b & 0x80 != 0) { 8 } else { 4 }),
        _ => other,
    }
}

impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.name())?;
        match self.ports {
            Some(_) => write!(f, "{} → {}", self.source(), self.destination())?,
            None => write!(f, "{} → {}", self.from, self.to)?,
        }
        match self.kind {
            Kind::Tcp(flags) => write!(f, " [{}]", flag_names(flags).join(" ")),
            Kind::Icmp(kind, code) | Kind::Icmpv6(kind, code) => write!(f, " type {kind} code {code}"),
            _ => Ok(()),
        }
    }
}

/// Of what is in a tunnel: `ipip 10.0.0.1 → 10.0.0.2 [udp …]`.
impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, packet) in self.packets.iter().enumerate() {
            let before = if depth > 0 { " [" } else { "" };
            write!(f, "{before}{packet}")?;
        }
        write!(f, "{}", "]".repeat(self.packets.len().saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn udp() -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9]);
        let builder = builder.ipv4([198, 51, 100, 7], [192, 0, 2, 10], 63).udp(1, 2);
        builder.write(&mut frame, b"hello").unwrap();
        frame
    }

    #[test]
    fn tunnels_are_looked_into() {
        let inner = udp();
        let carried = &inner[ETHERNET..];
        let gre = [&[0, 0, 8, 0][..], carried].concat();
        let gue = [&[0xc0, 0, 0x17, 0xc0, 0, 0, 0, 0, 0, 4, 0, 0][..], carried].concat();
        for (number, body, name) in
            [(IpNumber::IPV4, carried, "ipip"), (IpNumber::GRE, &gre, "gre"), (IpNumber::UDP, &gue, "gue")]
        {
            let mut outer = Vec::new();
            let builder = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            builder.write(&mut outer, number, body).unwrap();
            let frame = Frame::read(&outer).unwrap();
            let told = format!("{name} 10.0.0.1 → 10.0.0.2 [udp 198.51.100.7:1 → 192.0.2.10:2]");
            assert_eq!(frame.to_string(), told);
            let (outer, packet) = (frame.outer().unwrap(), frame.packet().unwrap());
            assert_eq!((outer.ttl, packet.ttl, packet.payload), (64, 63, &b"hello"[..]));
            assert_eq!(outer.length - packet.length, 20 + body.len() - carried.len());
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let whole = udp();
        let frame = Frame::read(&whole).unwrap();
        assert!(!frame.is_incomplete() && frame.outer().is_none());
        assert_eq!((frame.source, frame.destination), ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9]));
        let part = Frame::read(&whole[..whole.len() - 3]).unwrap();
        assert!(part.is_incomplete());
        let packet = part.packet().unwrap();
        assert_eq!((packet.payload, packet.payload_length), (&b"he"[..], 5));
        for length in 0..ETHERNET + 20 {
            assert_eq!(Frame::read(&whole[..length]), None, "{length}");
        }
        // Padding of short frames belongs to nobody.
        let padded = [&whole[..], &[0; 9]].concat();
        assert_eq!(Frame::read(&padded).unwrap().packet().unwrap().payload, b"hello");
    }
}
