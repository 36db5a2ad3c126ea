//! Packets that nobody sends, made of what is asked about.

use super::Question;
use crate::failure::{Failure, Result, code};
use dirigent_config::Protocol;
use dirigent_net::Mac;
use etherparse::err::packet::BuildWriteError;
use etherparse::{IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep};
use std::net::{IpAddr, SocketAddr};

/// TTL of what Linux sends.
pub const TTL: u8 = 64;
/// The MAC of a neighbour that is nobody's.
pub const NOBODY: Mac = [2, 0, 0, 0, 0, 1];
/// A usual window of TCP, bytes.
const WINDOW: u16 = 64240;
/// INIT, the first chunk of an association (RFC 9260 §3.3.2), without parameters.
const INIT: [u8; 20] = [1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 1];

/// How a packet comes: from which MAC, to which, and with how many hops left.
#[derive(Clone, Copy, Debug)]
pub struct Coming {
    /// Whom the frame is from.
    pub source: Mac,
    /// Whom it is for.
    pub destination: Mac,
    /// TTL.
    pub ttl: u8,
}

/// The frame that is asked about.
pub fn frame(question: &Question, coming: Coming) -> Result<Vec<u8>> {
    let fail = |e: &dyn std::fmt::Display| Failure {
        code: code::INVALID,
        ..Failure::new("the packet", format!("cannot be made: {e}"), "ask about a shorter one")
    };
    let (from, to) = (question.from, question.to);
    let Coming { source, destination, ttl } = coming;
    let ethernet = PacketBuilder::ethernet2(source, destination);
    let ip: PacketBuilderStep<IpHeaders> = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), ttl),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), ttl),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;

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
            let coming = Coming { source: NOBODY, destination: [2, 0, 0, 0, 0, 9], ttl: 63 };
            let frame = frame(&question(protocol, from, to), coming).unwrap();
            let read = Frame::read(&frame).unwrap();
            assert_eq!((read.source, read.destination), (coming.source, coming.destination));
            assert_eq!((read.packet().unwrap().ttl, read.to_string().as_str()), (63, text));
        }
        let coming = Coming { source: NOBODY, destination: [0; 6], ttl: TTL };
        assert!(frame(&question(Protocol::Tcp, "198.51.100.7:1", "[2001:db8::10]:2"), coming).is_err());
    }
}
