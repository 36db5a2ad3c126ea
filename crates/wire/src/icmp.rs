//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the eight bytes both start with.

use crate::{Be16, Be32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The common eight bytes of an error message.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IcmpHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub check: Be16,
    /// Unused (0), or the MTU: low 16 bits in ICMP 3/4, all 32 in ICMPv6 2/0.
    pub rest: Be32,
}

/// ICMP types (RFC 792) that quote the packet they are about and that IPVS
/// relates to connections.
pub mod v4 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: no route to the host.
    pub const HOST: u8 = 1;
    /// Code of [`UNREACHABLE`]: nobody listens on the port.
    pub const PORT: u8 = 3;
    /// Code of [`UNREACHABLE`]: too big and DF set (RFC 1191).
    pub const FRAG_NEEDED: u8 = 4;
    /// Source quench (deprecated by RFC 6633, still related by IPVS).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Time exceeded; code 0: in transit.
    pub const TIME_EXCEEDED: u8 = 11;
}

/// ICMPv6 types (RFC 4443).
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Code of [`UNREACHABLE`]: address unreachable.
    pub const ADDRESS: u8 = 3;
    /// Code of [`UNREACHABLE`]: port unreachable.
    pub const PORT: u8 = 4;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded; code 0: hop limit in transit.
    pub const TIME_EXCEEDED: u8 = 3;
    /// First type that is informational, not an error (RFC 4443 §2.1).
    pub const FIRST_INFORMATIONAL: u8 = 128;
}
