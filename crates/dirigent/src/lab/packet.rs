//! Captured frames: the pcap file format, and of each frame what a reader of a walk wants to know.

use crate::frame::{Frame, Kind, flag_names};
use dirigent_net::mac_text;
use serde::Serialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A TCP packet as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tcp {
    /// When, microseconds.
    pub at: u64,
    /// Hardware address it came from.
    pub from_mac: String,
    /// Hardware address it went to.
    pub to_mac: String,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// TCP flags.
    pub flags: u8,
    /// Bytes of the frame.
    pub frame: u64,
    /// Bytes of payload.
    pub payload: usize,
    /// Its first line, if it is text.
    pub text: String,
    /// The packet it is inside of, if it is.
    pub outer: Option<Outer>,
}

/// The packet of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outer {
    /// `ipip`, `gre` or `gue`.
    pub kind: String,
    /// Source.
    pub from: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
}

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {} {}", self.from, self.to, self.kind.to_uppercase())
    }
}

impl Tcp {
    /// Has all of these flags.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
    /// Names of the flags, and the payload.
    pub fn what(&self) -> String {
        let set = flag_names(self.flags);
        match self.payload {
            0 => set.join("+"),
            n if self.text.is_empty() => format!("{} {n} bytes", set.join("+")),
            n => format!("{} {n} bytes, {:?}", set.join("+"), self.text),
        }
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.from, self.to)
    }
}

/// All TCP packets of a pcap file; what is no TCP, or cut short on the wire, is left out.
pub fn read_pcap(bytes: &[u8]) -> Vec<Tcp> {
    let mut out = Vec::new();
    let number = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map(|b| u32::from_ne_bytes(*b));
    if number(0) != Some(0xa1b2_c3d4) {
        return out;
    }
    let mut at = 24;
    while let (Some(seconds), Some(micros), Some(length), Some(whole)) =
        (number(at), number(at + 4), number(at + 8), number(at + 12))
    {
        let Some(frame) = bytes.get(at + 16..).and_then(|rest| rest.get(..length as usize)) else { break };
        out.extend(parse(u64::from(seconds) * 1_000_000 + u64::from(micros), frame, whole.into()));
        at += 16 + length as usize;
    }
    out
}

/// `whole`: how long the frame was; the file may have only its beginning.
fn parse(at: u64, bytes: &[u8], whole: u64) -> Option<Tcp> {
    let frame = Frame::read(bytes)?;
    if frame.is_incomplete() && whole <= bytes.len() as u64 {
        return None;
    }
    let packet = frame.packet()?;
    let Kind::Tcp(flags) = packet.kind else { return None };
    let line = packet.payload.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    let text = std::str::from_utf8(line).ok().filter(|t| t.len() < 80).unwrap_or_default().to_owned();
    Some(Tcp {
        at,
        from_mac: mac_text(frame.source),
        to_mac: mac_text(frame.destination),
        ttl: packet.ttl,
        from: packet.source(),
        to: packet.destination(),
        flags,
        frame: whole,
        payload: packet.payload_length,
        text,
        outer: frame.outer().map(|outer| Outer {
            kind: outer.kind.name(),
            from: outer.from,
            to: outer.to,
            ttl: outer.ttl,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 1, 1, 8, 0];
        frame.extend([0x45, 0, 0, 44, 0, 0, 0x40, 0, 63, 6, 0, 0, 198, 51, 100, 7, 192, 0, 2, 10]);
        frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0xab, 0xcd, 0, 0]);
        frame.extend(*b"GET\n");
        frame
    }

    fn pcap(frame: &[u8]) -> Vec<u8> {
        let mut file = 0xa1b2_c3d4u32.to_ne_bytes().to_vec();
        file.resize(24, 0);
        for word in [1u32, 2, frame.len() as u32, frame.len() as u32] {
            file.extend(word.to_ne_bytes());
        }
        file.extend(frame);
        file
    }

    #[test]
    fn a_packet_is_read_as_it_was() {
        let all = read_pcap(&pcap(&frame()));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].to_string(), "198.51.100.7:40000 → 192.0.2.10:80");
        assert_eq!((all[0].ttl, all[0].at), (63, 1_000_002));
        assert_eq!(all[0].what(), "PSH+ACK 4 bytes, \"GET\"");
        assert_eq!(all[0].to_mac, "02:00:00:00:02:01");
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let (file, frame) = (pcap(&frame()), frame());
        for length in 0..frame.len() {
            assert!(read_pcap(&file[..24 + 16 + length]).is_empty());
            assert!(parse(0, &frame[..length], length as u64).is_none());
        }
    }

    #[test]
    fn of_what_is_captured_in_part_the_lengths_are_true() {
        let mut frame = frame();
        frame[17] = 40 + 100;
        let packet = parse(0, &frame, 154).unwrap();
        assert_eq!((packet.payload, packet.frame, packet.text.as_str()), (100, 154, "GET"));
    }
}
