//! Frames, read field by field for people, and the parts that comparisons mask.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{IPV4, IPV6, checksum, pseudo};

/// 16 bits in network order.
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// 32 bits in network order.
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An IP packet, its headers walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// IPv6.
    pub v6: bool,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// Protocol behind extension headers.
    pub protocol: u8,
    /// Offset of the transport header in the packet.
    pub l4: usize,
    /// Bytes that the header speaks of.
    pub len: usize,
    /// Part of a datagram (not an atomic fragment): (ident, offset, more).
    pub fragment: Option<(u32, usize, bool)>,
    /// Offset of an IPv6 fragment header, atomic ones too.
    pub fragment_header: Option<usize>,
    /// Offset of the byte that names the protocol.
    pub next_at: usize,
}

impl Ip {
    /// Reads a packet, however much of it is there.
    pub fn read(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::read4(packet),
            6 => Self::read6(packet),
            _ => None,
        }
    }
    fn read4(p: &[u8]) -> Option<Self> {
        let header = p.get(..20)?;
        let place = be16(p, 6)?;
        let l4 = usize::from(header[0] & 15) * 4;
        let cut = place & 0x3fff != 0;
        Some(Self {
            v6: false,
            src: IpAddr::V4(Ipv4Addr::from(be32(p, 12)?)),
            dst: IpAddr::V4(Ipv4Addr::from(be32(p, 16)?)),
            ttl: header[8],
            tos: header[1],
            protocol: header[9],
            l4,
            len: be16(p, 2)?.into(),
            fragment: cut.then_some((be16(p, 4)?.into(), usize::from(place & 0x1fff) * 8, place & 0x2000 != 0)),
            fragment_header: None,
            next_at: 9,
        })
    }
    fn read6(p: &[u8]) -> Option<Self> {
        let address = |at: usize| Some(IpAddr::V6(Ipv6Addr::from(*p.get(at..)?.first_chunk::<16>()?)));
        let mut out = Self {
            v6: true,
            src: address(8)?,
            dst: address(24)?,
            ttl: p[7],
            tos: (be16(p, 0)? >> 4) as u8,
            protocol: p[6],
            l4: 40,
            len: 40 + usize::from(be16(p, 4)?),
            fragment: None,
            fragment_header: None,
            next_at: 6,
        };
        for _ in 0..8 {
            let at = out.l4;
            match out.protocol {
                0 | 43 | 60 => out.l4 += (usize::from(*p.get(at + 1)?) + 1) * 8,
                44 => {
                    let place = be16(p, at + 2)?;
                    out.fragment_header = Some(at);
                    if place & 0xfff9 != 0 {
                        out.fragment = Some((be32(p, at + 4)?, usize::from(place & 0xfff8), place & 1 != 0));
                    }
                    out.l4 += 8;
                }
                _ => break,
            }
            (out.protocol, out.next_at) = (*p.get(at)?, at);
            if out.fragment.is_some_and(|(_, offset, _)| offset > 0) {
                break;
            }
        }
        Some(out)
    }
    /// Ports of TCP and UDP.
    pub fn ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        let later = self.fragment.is_some_and(|(_, offset, _)| offset > 0);
        if !matches!(self.protocol, 6 | 17) || later {
            return None;
        }
        Some((be16(packet, self.l4)?, be16(packet, self.l4 + 2)?))
    }
    /// IPv4 options, or nothing.
    pub fn options<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        if self.v6 { &[] } else { packet.get(20..self.l4).unwrap_or_default() }
    }
    /// Whether an IPv4 option of one of these types is there.
    pub fn has_option(&self, packet: &[u8], types: &[u8]) -> bool {
        let mut left = self.options(packet);
        while let [kind, rest @ ..] = left {
            if types.contains(kind) {
                return true;
            }
            left = match (kind, rest.first()) {
                (0, _) => &[],
                (1, _) => rest,
                (_, Some(len)) if *len >= 2 => left.get(usize::from(*len)..).unwrap_or_default(),
                _ => &[],
            };
        }
        false
    }
}

/// The IP packet in a frame, padding and a priority tag left out.
pub fn packet(frame: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    if be16(frame, at)? == 0x8100 {
        at += 4;
    }
    if !matches!(be16(frame, at)?, IPV4 | IPV6) {
        return None;
    }
    let packet = frame.get(at + 2..)?;
    let len = Ip::read(packet).map_or(packet.len(), |ip| ip.len);
    Some(packet.get(..len).unwrap_or(packet))
}

fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// A frame as fields, then as hexadecimal digits.
pub fn describe(frame: &[u8]) -> String {
    let mut out = String::new();
    if let (Some(dst), Some(src)) = (frame.get(..6), frame.get(6..12)) {
        let _ = write!(out, "{} > {}", mac(src), mac(dst));
    }
    match packet(frame) {
        Some(packet) => out += &describe_packet(packet, 0),
        None => out += &format!(" type {:04x}", be16(frame, 12).unwrap_or(0)),
    }
    format!("{out}\n      {}", hex(frame))
}

fn describe_packet(p: &[u8], depth: usize) -> String {
    let Some(ip) = Ip::read(p) else { return " unreadable".into() };
    let mut out = format!(" {} > {} ttl {} tos {:02x} len {}", ip.src, ip.dst, ip.ttl, ip.tos, ip.len);
    if !ip.v6 {
        let place = be16(p, 6).unwrap_or(0);
        let good = p.get(..ip.l4).is_some_and(|h| checksum(&[h]) == 0);
        let _ = write!(
            out,
            " id {:04x}{}{}",
            be16(p, 4).unwrap_or(0),
            if place & 0x4000 != 0 { " DF" } else { "" },
            if good { "" } else { " BAD HEADER CHECKSUM" }
        );
        if !ip.options(p).is_empty() {
            let _ = write!(out, " options {}", hex(ip.options(p)));
        }
    } else if ip.l4 > 40 {
        let _ = write!(out, " extensions {}", hex(p.get(40..ip.l4).unwrap_or_default()));
    }
    if let Some((ident, offset, more)) = ip.fragment {
        let _ = write!(out, " fragment {ident:x} at {offset}{}", if more { "+" } else { "" });
    }
    let l4 = p.get(ip.l4..).unwrap_or_default();
    let sound = ip.fragment.is_none() && depth == 0 && p.len() == ip.len;
    let verdict = |pseudo: &[u8], protocol: &str| match checksum(&[pseudo, l4]) == 0 || !sound {
        true => String::new(),
        false => format!(" BAD {protocol} CHECKSUM"),
    };
    let with_pseudo = pseudo(ip.src, ip.dst, ip.protocol, l4.len());
    match (ip.protocol, ip.ports(p)) {
        (6, Some((s, d))) => {
            let flags = l4.get(13).copied().unwrap_or(0);
            let names: String =
                "FSRPAU".chars().enumerate().filter(|(i, _)| flags >> i & 1 == 1).map(|(_, c)| c).collect();
            let (seq, ack) = (be32(l4, 4).unwrap_or(0), be32(l4, 8).unwrap_or(0));
            let _ = write!(out, " TCP {s} > {d} {names} seq {seq} ack {ack} data {}", l4.len().saturating_sub(20));
            out += &verdict(&with_pseudo, "TCP");
        }
        (17, Some((s, d))) => {
            let _ = write!(out, " UDP {s} > {d} data {}", l4.len().saturating_sub(8));
            if be16(l4, 6) != Some(0) {
                out += &verdict(&with_pseudo, "UDP");
            }
        }
        (132, Some((s, d))) => {
            let _ = write!(out, " SCTP {s} > {d} chunk {:?} data {}", l4.get(12), l4.len().saturating_sub(12));
            let right = match (l4.get(..8), l4.get(8..12), l4.get(12..)) {
                (Some(head), Some(check), Some(rest)) => {
                    check == crate::packet::crc32c(&[head, &[0; 4], rest].concat()).to_le_bytes()
                }
                _ => false,
            };
            if sound && !right {
                out += " BAD SCTP CHECKSUM";
            }
        }
        (1 | 58, _) if l4.len() >= 8 => {
            let _ = write!(out, " ICMP {}/{} rest {:08x}", l4[0], l4[1], be32(l4, 4).unwrap_or(0));
            out += &verdict(if ip.v6 { &with_pseudo } else { &[] }, "ICMP");
            let error = if ip.v6 { l4[0] < 128 } else { matches!(l4[0], 3 | 4 | 5 | 11 | 12) };
            if error && depth == 0 {
                let _ = write!(out, " about [{} ]", describe_packet(&l4[8..], 1));
            }
        }
        (other, _) => _ = write!(out, " protocol {other} {} bytes", l4.len()),
    }
    out
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// From hexadecimal digits.
pub fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| {
            std::str::from_utf8(pair)
                .ok()
                .and_then(|s| u8::from_str_radix(s, 16).ok())
                .ok_or(format!("{text}: not hex"))
        })
        .collect()
}
