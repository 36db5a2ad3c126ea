//! The AH header around adverts of version 2 with authentication type 2: HMAC-MD5-96 (RFC 2402,
//! RFC 2403) over the whole IPv4 packet, as keepalived has it. IPv4 only.
//!
//! ```text
//! IPv4 header, protocol 51 | next 112 | length 4 | 0 0 | SPI | sequence | ICV, 12 bytes | VRRP
//!                          '------------------ 24 bytes --------------------------------'
//! ```
//!
//! Where keepalived is not RFC 2402, this is keepalived: the SPI is the sender's address; and the ICV
//! covers a multicast packet's TTL, which no router may have changed (RFC 2402 §3.3.3.1.1.1 zeroes
//! it). A receiver takes either.

use crate::address::{PROTOCOL, PROTOCOL_AH};
use dirigent_wire::checksum;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use std::net::Ipv4Addr;
use thiserror::Error;

/// Bytes of the AH header.
pub const AH_LEN: usize = 24;

const IP_LEN: usize = 20;
/// Where the ICV stands in the packet.
const ICV: std::ops::Range<usize> = IP_LEN + 12..IP_LEN + AH_LEN;
/// The header's 32-bit words minus 2 (RFC 2402 §2.2).
const LENGTH_WORDS: u8 = 4;

/// The secret, at most eight bytes (`auth_pass`).
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 8]);

impl Key {
    /// Shorter keys are padded with zero, which HMAC does anyway; `None` for longer ones.
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut padded = [0; 8];
        padded.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self(padded))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The sequence number of a virtual router. One for all who speak for it, as a multicast group has
/// one security association: who hears a number goes on from there, so that a new master's packets
/// are newer than its predecessor's. It starts at 0 and must not wrap: at an advert each second it
/// lasts 136 years.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sequence {
    last: u32,
}

impl Sequence {
    /// Goes on from a number that was stored (a restarted sender is taken for a replay otherwise).
    pub const fn after(last: u32) -> Self {
        Self { last }
    }

    /// The last number that was sent or heard.
    pub const fn last(self) -> u32 {
        self.last
    }
}

/// The IPv4 header of a packet to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outer {
    /// The sender.
    pub source: Ipv4Addr,
    /// The group or a peer.
    pub destination: Ipv4Addr,
    /// 255, but for unicast peers.
    pub ttl: u8,
    /// Not 0: the ICV covers it, and Linux would write another into a raw packet.
    pub id: u16,
    /// Type of service; the ICV does not cover it.
    pub tos: u8,
}

/// A packet whose ICV was right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened<'a> {
    /// The sender.
    pub source: Ipv4Addr,
    /// The group or this host.
    pub destination: Ipv4Addr,
    /// Its TTL.
    pub ttl: u8,
    /// The VRRP payload.
    pub payload: &'a [u8],
}

/// Why a packet is not taken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AhError {
    /// No room for both headers.
    #[error("{got} bytes, fewer than the 44 of both headers")]
    Short {
        /// Bytes there are.
        got: usize,
    },
    /// Not a plain IPv4 header.
    #[error("first byte {got:#04x}: not an IPv4 header of 20 bytes")]
    Header {
        /// Version and header length.
        got: u8,
    },
    /// The IP header says another length.
    #[error("{got} bytes, the IP header says {want}")]
    Length {
        /// Bytes there are.
        got: usize,
        /// Bytes that the header says.
        want: usize,
    },
    /// A part of a packet.
    #[error("a fragment")]
    Fragment,
    /// Not AH around VRRP.
    #[error("protocol {outer} around {inner} instead of 51 around 112")]
    Protocol {
        /// In the IP header.
        outer: u8,
        /// In the AH header.
        inner: u8,
    },
    /// The AH header has another length than HMAC-MD5-96's.
    #[error("an AH header of {got} words instead of 4")]
    Words {
        /// The header's.
        got: u8,
    },
    /// The SPI is not the sender's address.
    #[error("SPI {got} instead of the sender's address {want}")]
    Spi {
        /// The header's.
        got: Ipv4Addr,
        /// The sender.
        want: Ipv4Addr,
    },
    /// Wrong key, or the packet was changed.
    #[error("a wrong integrity check value")]
    Icv,
    /// A packet that was sent before.
    #[error("sequence number {got}, not above {last}")]
    Replay {
        /// The packet's.
        got: u32,
        /// The last that was taken.
        last: u32,
    },
    /// Sending only: all numbers were used.
    #[error("no sequence numbers left: the key must be changed")]
    Exhausted,
}

/// Takes a whole IPv4 packet apart. The sequence number counts only when the ICV was right, so that
/// a forged packet cannot lock out true ones.
pub fn open<'a>(packet: &'a [u8], key: &Key, sequence: &mut Sequence) -> Result<Opened<'a>, AhError> {
    let short = AhError::Short { got: packet.len() };
    let (ip, rest) = packet.split_first_chunk::<IP_LEN>().ok_or(short.clone())?;
    let (ah, payload) = rest.split_first_chunk::<AH_LEN>().ok_or(short)?;
    let &[first, _, len_a, len_b, _, _, frag_a, frag_b, ttl, outer, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = ip;
    let &[inner, words, _, _, p0, p1, p2, p3, n0, n1, n2, n3, ..] = ah;
    if first != 0x45 {
        return Err(AhError::Header { got: first });
    }
    let want = usize::from(u16::from_be_bytes([len_a, len_b]));
    if want != packet.len() {
        return Err(AhError::Length { got: packet.len(), want });
    }
    // More to come, or not the first.
    if u16::from_be_bytes([frag_a, frag_b]) & 0x3fff != 0 {
        return Err(AhError::Fragment);
    }
    if (outer, inner) != (PROTOCOL_AH, PROTOCOL) {
        return Err(AhError::Protocol { outer, inner });
    }
    if words != LENGTH_WORDS {
        return Err(AhError::Words { got: words });
    }
    let source = Ipv4Addr::new(s0, s1, s2, s3);
    let destination = Ipv4Addr::new(d0, d1, d2, d3);
    let spi = Ipv4Addr::new(p0, p1, p2, p3);
    if spi != source {
        return Err(AhError::Spi { got: spi, want: source });
    }
    let icv = packet.get(ICV).unwrap_or_default();
    let right = |with_ttl| mac(packet, key, with_ttl).verify_truncated_left(icv).is_ok();
    if !(right(true) && destination.is_multicast() || right(false)) {
        return Err(AhError::Icv);
    }
    let number = u32::from_be_bytes([n0, n1, n2, n3]);
    if number <= sequence.last {
        return Err(AhError::Replay { got: number, last: sequence.last });
    }
    sequence.last = number;
    Ok(Opened { source, destination, ttl, payload })
}

/// Puts a VRRP payload into a whole IPv4 packet.
pub fn seal(outer: &Outer, payload: &[u8], key: &Key, sequence: &mut Sequence) -> Result<Vec<u8>, AhError> {
    let len = IP_LEN + AH_LEN + payload.len();
    let total = u16::try_from(len).map_err(|_| AhError::Length { got: len, want: usize::from(u16::MAX) })?;
    let number = sequence.last.checked_add(1).ok_or(AhError::Exhausted)?;
    let mut packet = vec![0x45, outer.tos];
    packet.extend(total.to_be_bytes());
    packet.extend(outer.id.to_be_bytes());
    packet.extend([0, 0, outer.ttl, PROTOCOL_AH, 0, 0]);
    packet.extend(outer.source.octets());
    packet.extend(outer.destination.octets());
    packet.extend([PROTOCOL, LENGTH_WORDS, 0, 0]);
    packet.extend(outer.source.octets());
    packet.extend(number.to_be_bytes());
    packet.extend([0; 12]);
    packet.extend(payload);
    let icv = mac(&packet, key, outer.destination.is_multicast()).finalize().into_bytes();
    if let (Some(field), Some(icv)) = (packet.get_mut(ICV), icv.get(..12)) {
        field.copy_from_slice(icv);
    }
    let check = !checksum::sum_bytes(packet.get(..IP_LEN).unwrap_or_default());
    if let Some(field) = packet.get_mut(10..12) {
        field.copy_from_slice(&check.to_ne_bytes());
    }
    sequence.last = number;
    Ok(packet)
}

/// HMAC-MD5 over the packet with the fields zeroed that routers may change (TOS, flags and offset,
/// checksum, perhaps TTL) and the ICV itself.
fn mac(packet: &[u8], key: &Key, with_ttl: bool) -> Hmac<Md5> {
    let mut bytes = packet.to_vec();
    let ttl = if with_ttl { 8..8 } else { 8..9 };
    for range in [1..2, 6..8, ttl, 10..12, ICV] {
        bytes.get_mut(range).unwrap_or_default().fill(0);
    }
    // A key shorter than a block is the block with zeros behind (RFC 2104 §2).
    let mut block = hmac::digest::Key::<Hmac<Md5>>::default();
    block.iter_mut().zip(key.0).for_each(|(byte, of_key)| *byte = of_key);
    let mut mac = Hmac::<Md5>::new(&block);
    mac.update(&bytes);
    mac
}

#[cfg(test)]
mod tests;
