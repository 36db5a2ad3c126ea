//! Header layouts, big-endian integers and checksums.
//!
//! Decides nothing: it says where a field stands in a frame and how a checksum
//! follows from a change. Every header is a plain overlay of alignment 2 (an
//! Ethernet header is 14 bytes, so IP headers in a frame are never better
//! aligned than that), without padding, valid for any bytes. Checks of content
//! (versions, lengths) belong to whoever parses: `dirigent-director::parse`.
#![no_std]
#![forbid(unsafe_code)]

pub mod be;
pub mod checksum;
pub mod crc32c;
pub mod eth;
pub mod icmp;
pub mod ip;
pub mod quic;
pub mod transport;
pub mod tunnel;

pub use be::{Be16, Be32};
pub use eth::{EthHeader, Mac};
pub use icmp::IcmpHeader;
pub use ip::{Addr4, Addr6, ExtHeader, FragHeader, Ipv4Header, Ipv6Header};
pub use quic::{QuicLong, QuicShort, ServerCid};
pub use transport::{ChunkHeader, Ports, SctpHeader, TcpHeader, UdpHeader};
pub use tunnel::{GreChecksum, GreHeader, GueHeader};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A header that may be laid over packet bytes: any bit pattern is a value, no
/// padding, alignment at most 2.
pub trait Header: FromBytes + IntoBytes + KnownLayout + Immutable + Copy + Sized {
    /// Bytes the header occupies.
    const LEN: usize = size_of::<Self>();
}

macro_rules! headers {
    ($($t:ty = $len:literal),* $(,)?) => { $(
        impl Header for $t {}
        const _: () = assert!(align_of::<$t>() <= 2 && size_of::<$t>() == $len);
    )* };
}

headers!(
    u8 = 1,
    Be16 = 2,
    Be32 = 4,
    Addr4 = 4,
    Addr6 = 16,
    EthHeader = 14,
    Ipv4Header = 20,
    Ipv6Header = 40,
    ExtHeader = 2,
    FragHeader = 8,
    Ports = 4,
    TcpHeader = 20,
    UdpHeader = 8,
    SctpHeader = 12,
    ChunkHeader = 4,
    IcmpHeader = 8,
    GreHeader = 4,
    GreChecksum = 4,
    GueHeader = 4,
    eth::VlanTag = 4,
    eth::EthHeads = 12,
    ServerCid = 9,
    QuicShort = 10,
    QuicLong = 15,
);
