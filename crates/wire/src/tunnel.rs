//! What stands between the two IP headers of a tunnelled packet: GRE (RFC 2784) and
//! GUE (draft-ietf-intarea-gue, version 0) behind UDP. IPIP has nothing there.

use crate::Be16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first four bytes of a GRE header, all there are without a checksum.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GreHeader {
    /// [`GreHeader::CHECKSUM`], reserved bits (12) and version (3).
    pub flags: Be16,
    /// EtherType of the payload.
    pub protocol: Be16,
}

impl GreHeader {
    /// A [`GreChecksum`] follows.
    pub const CHECKSUM: u16 = 0x8000;
}

/// What follows a [`GreHeader`] with [`GreHeader::CHECKSUM`].
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GreChecksum {
    /// Internet checksum of GRE header and payload.
    pub check: Be16,
    /// Zero.
    pub reserved: Be16,
}

/// A GUE header without options.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GueHeader {
    /// Version (2 bits), control (1), length of the options in 32-bit words (5).
    pub version_len: u8,
    /// IP protocol of the payload.
    pub protocol: u8,
    /// Flags: which options there are.
    pub flags: Be16,
}
