//! IPv4 (RFC 791) and IPv6 (RFC 8200).

use crate::{Be16, Be32, checksum};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Protocol numbers (IANA).
pub mod proto {
    /// Hop-by-hop options (RFC 8200 §4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213).
    pub const IPV6: u8 = 41;
    /// Routing header (RFC 8200 §4.4).
    pub const ROUTING: u8 = 43;
    /// Fragment header (RFC 8200 §4.5).
    pub const FRAGMENT: u8 = 44;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Destination options (RFC 8200 §4.6).
    pub const DEST_OPTIONS: u8 = 60;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
}

/// An IPv4 address, bytes as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Addr4(pub [u16; 2]);

impl Addr4 {
    /// From the four bytes in wire order.
    pub const fn new(b: [u8; 4]) -> Self {
        Self([u16::from_ne_bytes([b[0], b[1]]), u16::from_ne_bytes([b[2], b[3]])])
    }
    /// The four bytes in wire order.
    pub const fn bytes(self) -> [u8; 4] {
        let (a, b) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        [a[0], a[1], b[0], b[1]]
    }
    /// As a number in host order: 192.0.2.1 is 0xc0000201.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        (u16::from_be(self.0[0]) as u32) << 16 | u16::from_be(self.0[1]) as u32
    }
}

/// An IPv6 address, bytes as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Addr6(pub [u16; 8]);

impl Addr6 {
    /// From the sixteen bytes in wire order.
    pub const fn new(b: [u8; 16]) -> Self {
        let mut w = [0u16; 8];
        let mut i = 0;
        while i < 8 {
            w[i] = u16::from_ne_bytes([b[2 * i], b[2 * i + 1]]);
            i += 1;
        }
        Self(w)
    }
    /// The sixteen bytes in wire order.
    pub const fn bytes(self) -> [u8; 16] {
        let mut b = [0u8; 16];
        let mut i = 0;
        while i < 8 {
            let [x, y] = self.0[i].to_ne_bytes();
            b[2 * i] = x;
            b[2 * i + 1] = y;
            i += 1;
        }
        b
    }
}

/// The IPv4 header without options.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4 bits) and header length in 32-bit words (4 bits).
    pub version_ihl: u8,
    /// DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// Bytes of header and payload.
    pub total_len: Be16,
    /// Identification.
    pub id: Be16,
    /// Reserved, DF, MF (3 bits) and fragment offset in 8-byte units (13 bits).
    pub fragment: Be16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum.
    pub check: Be16,
    /// Source.
    pub src: Addr4,
    /// Destination.
    pub dst: Addr4,
}

impl Ipv4Header {
    /// "Don't fragment" in [`Ipv4Header::fragment`].
    pub const DF: u16 = 0x4000;
    /// "More fragments" and the offset in [`Ipv4Header::fragment`].
    pub const MF_OR_OFFSET: u16 = 0x3fff;
    /// The offset in [`Ipv4Header::fragment`].
    pub const OFFSET: u16 = 0x1fff;

    /// Sum of the ten words, checksum included: 0xffff when it is right.
    #[inline(always)]
    pub fn sum(&self) -> u16 {
        checksum::fold(
            u32::from(u16::from_ne_bytes([self.version_ihl, self.tos]))
                + u32::from(self.total_len.raw())
                + u32::from(self.id.raw())
                + u32::from(self.fragment.raw())
                + u32::from(u16::from_ne_bytes([self.ttl, self.protocol]))
                + u32::from(self.check.raw())
                + u32::from(self.src.0[0])
                + u32::from(self.src.0[1])
                + u32::from(self.dst.0[0])
                + u32::from(self.dst.0[1]),
        )
    }

    /// TTL less one, with the checksum (RFC 1141). The TTL must not be 0.
    #[inline(always)]
    pub fn decrement_ttl(&mut self) {
        self.ttl = self.ttl.wrapping_sub(1);
        let sum = u32::from(self.check.raw()) + u32::from(u16::from_ne_bytes([1, 0]));
        self.check = Be16::from_raw((sum + u32::from(sum >= 0xffff)) as u16);
    }

    /// The checksum after covered words changed by `delta`.
    #[inline(always)]
    pub fn patch_check(&mut self, delta: u16) {
        self.check = Be16::from_raw(checksum::apply(self.check.raw(), delta));
    }
}

/// The IPv6 header.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: Be32,
    /// Bytes after this header.
    pub payload_len: Be16,
    /// Type of the next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: Addr6,
    /// Destination.
    pub dst: Addr6,
}

/// The start all IPv6 extension headers share, the fragment header's excepted.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ExtHeader {
    /// Type of the next header.
    pub next_header: u8,
    /// Length in 8-byte units, the first not counted.
    pub len: u8,
}

/// The IPv6 fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FragHeader {
    /// Type of the next header.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in 8-byte units (13 bits), reserved (2), "more fragments" (1).
    pub offset_more: Be16,
    /// Identification.
    pub id: Be32,
}

impl FragHeader {
    /// The offset in [`FragHeader::offset_more`].
    pub const OFFSET: u16 = 0xfff8;
    /// "More fragments" in [`FragHeader::offset_more`].
    pub const MORE: u16 = 0x0001;
}

impl core::fmt::Debug for Addr4 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&core::net::Ipv4Addr::from(self.bytes()), f)
    }
}

impl core::fmt::Debug for Addr6 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&core::net::Ipv6Addr::from(self.bytes()), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// As when the words had been summed anew, the two forms of nothing included (RFC 1624 §3).
        #[test]
        fn a_decremented_ttl_keeps_the_checksum_true(mut bytes in any::<[u8; 20]>()) {
            bytes[8] = bytes[8].max(1);
            bytes[10..12].fill(0);
            let sum = !checksum::sum_bytes(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_ne_bytes());
            let mut header = Ipv4Header::read_from_bytes(&bytes).unwrap();
            prop_assert_eq!(header.sum(), 0xffff);
            let by_delta = {
                let old = u16::from_ne_bytes([header.ttl, header.protocol]);
                checksum::apply(sum, checksum::delta(old, u16::from_ne_bytes([header.ttl - 1, header.protocol])))
            };
            header.decrement_ttl();
            prop_assert_eq!(header.ttl, bytes[8] - 1);
            prop_assert_eq!(header.sum(), 0xffff);
            prop_assert_eq!(header.check.raw(), by_delta);
        }
    }
}
