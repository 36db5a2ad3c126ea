//! Frames, built layer by layer, with right checksums.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A MAC address.
pub type Mac = [u8; 6];

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Protocol numbers.
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
/// TCP flags.
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// PSH.
    pub const PSH: u8 = 8;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// The Internet checksum (RFC 1071) over these bytes, written plainly: the tests'
/// measure for the packet path's own.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u64 = bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | u64::from(c.get(1).copied().unwrap_or(0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The pseudo header of TCP, UDP and ICMPv6.
pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut out = [octets(src), octets(dst)].concat();
    out.extend((len as u32).to_be_bytes());
    out.extend([0, 0, 0, protocol]);
    out
}

/// An Ethernet frame.
pub fn eth(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|b| b >> 4 == 6) { IPV6 } else { IPV4 };
    [&dst[..], &src[..], &ethertype.to_be_bytes(), packet].concat()
}

/// What an IP header holds beside addresses, protocol and length.
#[derive(Clone, Debug)]
pub struct IpOptions {
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4 identification.
    pub ident: u16,
    /// IPv4 flags and fragment offset, as in the header.
    pub fragment: u16,
    /// IPv4 options, padded to four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers, with the type of the first.
    pub extensions: Option<(u8, Vec<u8>)>,
}

impl Default for IpOptions {
    fn default() -> Self {
        Self { ttl: 64, tos: 0, ident: 0x1234, fragment: 0x4000, options: Vec::new(), extensions: None }
    }
}

/// An IP packet of the addresses' family.
pub fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8], with: &IpOptions) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(src, dst, protocol, payload, with),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src, dst, protocol, payload, with),
        _ => panic!("{src} and {dst} are of two families"),
    }
}

/// An IPv4 packet.
pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8], with: &IpOptions) -> Vec<u8> {
    let header = 20 + with.options.len();
    let mut out = vec![0x40 | (header / 4) as u8, with.tos];
    out.extend(((header + payload.len()) as u16).to_be_bytes());
    out.extend(with.ident.to_be_bytes());
    out.extend(with.fragment.to_be_bytes());
    out.extend([with.ttl, protocol, 0, 0]);
    out.extend(src.octets());
    out.extend(dst.octets());
    out.extend(&with.options);
    let check = checksum(&[&out]);
    out[10..12].copy_from_slice(&check.to_be_bytes());
    out.extend(payload);
    out
}

/// An IPv6 packet.
pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, payload: &[u8], with: &IpOptions) -> Vec<u8> {
    let (next, extensions) = with.extensions.clone().unwrap_or((protocol, Vec::new()));
    let mut out = (0x6000_0000 | u32::from(with.tos) << 20).to_be_bytes().to_vec();
    out.extend(((extensions.len() + payload.len()) as u16).to_be_bytes());
    out.extend([next, with.ttl]);
    out.extend(src.octets());
    out.extend(dst.octets());
    out.extend(extensions);
    out.extend(payload);
    out
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp<'a> {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Data.
    pub payload: &'a [u8],
}

/// Builds it, window 64240, without options.
pub fn tcp(src: IpAddr, dst: IpAddr, of: &Tcp<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(of.sport.to_be_bytes());
    out.extend(of.dport.to_be_bytes());
    out.extend(of.seq.to_be_bytes());
    out.extend(of.ack.to_be_bytes());
    out.extend([0x50, of.flags]);
    out.extend(64240u16.to_be_bytes());
    out.extend([0; 4]);
    out.extend(of.payload);
    let check = checksum(&[&pseudo(src, dst, proto::TCP, out.len()), &out]);
    out[16..18].copy_from_slice(&check.to_be_bytes());
    out
}

/// A UDP datagram.
pub fn udp(src: IpAddr, dst: IpAddr, sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(sport.to_be_bytes());
    out.extend(dport.to_be_bytes());
    out.extend((8 + payload.len() as u16).to_be_bytes());
    out.extend([0; 2]);
    out.extend(payload);
    let check = match checksum(&[&pseudo(src, dst, proto::UDP, out.len()), &out]) {
        0 => 0xffff,
        check => check,
    };
    out[6..8].copy_from_slice(&check.to_be_bytes());
    out
}

/// CRC32c (RFC 9260 appendix A) over these bytes, written plainly.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// An SCTP packet with these chunks.
pub fn sctp(sport: u16, dport: u16, chunks: &[u8]) -> Vec<u8> {
    let mut out = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    out.extend([0; 8]);
    out.extend(chunks);
    let check = crc32c(&out);
    out[8..12].copy_from_slice(&check.to_le_bytes());
    out
}

/// An ICMP or, with addresses, ICMPv6 message.
pub fn icmp(kind: u8, code: u8, rest: u32, payload: &[u8], v6: Option<(Ipv6Addr, Ipv6Addr)>) -> Vec<u8> {
    let mut out = vec![kind, code, 0, 0];
    out.extend(rest.to_be_bytes());
    out.extend(payload);
    let pseudo = v6.map(|(src, dst)| pseudo(src.into(), dst.into(), proto::ICMPV6, out.len())).unwrap_or_default();
    let check = checksum(&[&pseudo, &out]);
    out[2..4].copy_from_slice(&check.to_be_bytes());
    out
}

/// An ICMP error in its IP packet, TTL 64, about `packet`, cut to `quote` bytes.
pub fn error(src: IpAddr, dst: IpAddr, (kind, code): (u8, u8), rest: u32, packet: &[u8], quote: usize) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(quote)];
    let with = IpOptions { fragment: 0, ..IpOptions::default() };
    match (src, dst) {
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            ip(src, dst, proto::ICMPV6, &icmp(kind, code, rest, quoted, Some((s, d))), &with)
        }
        _ => ip(src, dst, proto::ICMP, &icmp(kind, code, rest, quoted, None), &with),
    }
}
