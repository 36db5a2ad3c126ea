//! Packets that nobody sends: made of what is asked about, and put into words again.

use super::Question;
use crate::failure::{Failure, Result, code};
use dirigent_config::Protocol;
use dirigent_datapath::control::report::mac;
use etherparse::err::packet::BuildWriteError;
use etherparse::{
    Icmpv4Slice, Icmpv6Slice, IpHeaders, IpNumber, LaxIpSlice, PacketBuilder, PacketBuilderStep, TcpHeaderSlice,
    UdpHeaderSlice,
};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Hops that are left to it.
const TTL: u8 = 64;
/// A usual window of TCP, bytes.
const WINDOW: u16 = 64240;
/// INIT, the first chunk of an association (RFC 9260 §3.3.2), without parameters.
const INIT: [u8; 20] = [1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 1];

/// The frame that is asked about, for this interface's MAC.
pub fn frame(question: &Question, mac: [u8; 6]) -> Result<Vec<u8>> {
    let fail = |e: &dyn std::fmt::Display| Failure {
        code: code::INVALID,
        ..Failure::new("the packet", format!("cannot be made: {e}"), "ask about a shorter one")
    };
    let (from, to) = (question.from, question.to);
    // Of a neighbour that is nobody's.
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], mac);
    let ip: PacketBuilderStep<IpHeaders> = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), TTL),
        _ => {
            let what = format!("{} and {} are not of one family", from.ip(), to.ip());
            let remedy = "name two addresses of IPv4, or two of IPv6";
            return Err(Failure { code: code::INVALID, ..Failure::new("the packet", what, remedy) });
        }
    };
    let payload = vec![0; question.length.into()];
    let mut frame = Vec::new();
    let written: Result<(), BuildWriteError> = match question.protocol {
        Protocol::Tcp => {
            let mut tcp = ip.tcp(from.port(), to.port(), 1, WINDOW);
            for flag in &question.flags {
                tcp = match flag {
                    Flag::Syn => tcp.syn(),
                    Flag::Ack => tcp.ack(1),
                    Flag::Fin => tcp.fin(),
                    Flag::Rst => tcp.rst(),
                    Flag::Psh => tcp.psh(),
                };
            }
            tcp.write(&mut frame, &payload)
        }
        Protocol::Udp => ip.udp(from.port(), to.port()).write(&mut frame, &payload),
        Protocol::Sctp => ip.write(&mut frame, IpNumber::SCTP, &sctp(from, to)),
    };
    written.map_err(|e| fail(&e))?;
    Ok(frame)
}

/// An INIT (RFC 9260 §3): ports, tag 0, CRC32c, chunk.
fn sctp(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut bytes = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    bytes.extend([0; 8]);
    bytes.extend(INIT);
    let crc = dirigent_wire::crc32c::of(&bytes);
    if let Some(place) = bytes.get_mut(8..12) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

/// A flag of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Flag {
    /// Opens a connection.
    Syn,
    /// Acknowledges.
    Ack,
    /// Ends a direction.
    Fin,
    /// Ends a connection at once.
    Rst,
    /// Pushes data.
    Psh,
}

/// An Ethernet frame: whom it is from, whom it is for, and what is in it.
pub fn told(frame: &[u8]) -> (String, String, String) {
    let part = |at: usize| frame.get(at..).and_then(<[u8]>::first_chunk).map_or_else(String::new, |bytes| mac(*bytes));
    let inside = frame.get(14..).map(|packet| ip(packet, 0)).unwrap_or_default();
    (part(6), part(0), inside)
}

/// Tunnels in tunnels that are looked into.
const DEEPEST: usize = 2;
/// Where GUE is received (draft-ietf-intarea-gue §3).
const GUE: u16 = 6080;

/// An IP packet.
fn ip(packet: &[u8], depth: usize) -> String {
    let Ok((slice, _)) = LaxIpSlice::from_slice(packet) else { return format!("{} bytes", packet.len()) };
    let (from, to) = match &slice {
        LaxIpSlice::Ipv4(v4) => (v4.header().source_addr().into(), v4.header().destination_addr().into()),
        LaxIpSlice::Ipv6(v6) => (v6.header().source_addr().into(), v6.header().destination_addr().into()),
    };
    let (from, to): (IpAddr, IpAddr) = (from, to);
    let inside = slice.payload();
    let between = |name: &str, ports: Option<(u16, u16)>| match ports {
        Some((a, b)) => format!("{name} {} → {}", SocketAddr::new(from, a), SocketAddr::new(to, b)),
        None => format!("{name} {from} → {to}"),
    };
    let nested = |name: &str, at: usize| match inside.payload.get(at..) {
        Some(rest) if depth < DEEPEST => format!("{} [{}]", between(name, None), ip(rest, depth + 1)),
        _ => between(name, None),
    };
    match inside.ip_number {
        IpNumber::TCP => match TcpHeaderSlice::from_slice(inside.payload) {
            Ok(tcp) => {
                let flags = [
                    (tcp.syn(), "SYN"),
                    (tcp.fin(), "FIN"),
                    (tcp.rst(), "RST"),
                    (tcp.psh(), "PSH"),
                    (tcp.ack(), "ACK"),
                ];
                let flags: Vec<_> = flags.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
                let mut text = between("tcp", Some((tcp.source_port(), tcp.destination_port())));
                let _ = write!(text, " [{}]", flags.join(" "));
                text
            }
            Err(_) => between("tcp", None),
        },
        IpNumber::UDP => match UdpHeaderSlice::from_slice(inside.payload) {
            // Behind UDP's header its own, with so many words of options.
            Ok(udp) if udp.destination_port() == GUE => {
                nested("gue", 12 + 4 * usize::from(inside.payload.get(8).map_or(0, |byte| byte & 0x1f)))
            }
            Ok(udp) => between("udp", Some((udp.source_port(), udp.destination_port()))),
            Err(_) => between("udp", None),
        },
        IpNumber::SCTP => match inside.payload {
            [a, b, c, d, ..] => between("sctp", Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))),
            _ => between("sctp", None),
        },
        IpNumber::ICMP => match Icmpv4Slice::from_slice(inside.payload) {
            Ok(icmp) => format!("{} type {} code {}", between("icmp", None), icmp.type_u8(), icmp.code_u8()),
            Err(_) => between("icmp", None),
        },
        IpNumber::IPV6_ICMP => match Icmpv6Slice::from_slice(inside.payload) {
            Ok(icmp) => format!("{} type {} code {}", between("icmpv6", None), icmp.type_u8(), icmp.code_u8()),
            Err(_) => between("icmpv6", None),
        },
        IpNumber::IPV4 | IpNumber::IPV6 => nested("ipip", 0),
        // With a checksum it is four bytes longer (RFC 2784 §2.1).
        IpNumber::GRE => nested("gre", if inside.payload.first().is_some_and(|b| b & 0x80 != 0) { 8 } else { 4 }),
        IpNumber(other) => between(&format!("protocol {other}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(protocol: Protocol, from: &str, to: &str) -> Question {
        Question {
            protocol,
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            interface: None,
            flags: vec![Flag::Syn],
            mark: 0,
            length: 0,
        }
    }

    #[test]
    fn what_is_made_is_told_again() {
        for (protocol, from, to, text) in [
            (Protocol::Tcp, "198.51.100.7:40000", "192.0.2.10:80", "tcp 198.51.100.7:40000 → 192.0.2.10:80 [SYN]"),
            (Protocol::Udp, "[2001:db8::7]:53", "[2001:db8::10]:53", "udp [2001:db8::7]:53 → [2001:db8::10]:53"),
            (Protocol::Sctp, "198.51.100.7:5", "192.0.2.10:6", "sctp 198.51.100.7:5 → 192.0.2.10:6"),
        ] {
            let frame = frame(&question(protocol, from, to), [2, 0, 0, 0, 0, 9]).unwrap();
            let (source, destination, inside) = told(&frame);
            assert_eq!((source.as_str(), destination.as_str()), ("02:00:00:00:00:01", "02:00:00:00:00:09"));
            assert_eq!(inside, text);
        }
        assert!(frame(&question(Protocol::Tcp, "198.51.100.7:1", "[2001:db8::10]:2"), [0; 6]).is_err());
    }

    #[test]
    fn tunnels_are_looked_into() {
        let inner = frame(&question(Protocol::Udp, "198.51.100.7:1", "192.0.2.10:2"), [0; 6]).unwrap();
        let mut outer = Vec::new();
        let builder = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.write(&mut outer, IpNumber::IPV4, &inner[14..]).unwrap();
        assert_eq!(told(&outer).2, "ipip 10.0.0.1 → 10.0.0.2 [udp 198.51.100.7:1 → 192.0.2.10:2]");
    }
}
