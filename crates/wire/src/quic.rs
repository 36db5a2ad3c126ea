//! The beginnings of QUIC packets as far as every version has them (RFC 8999), with a
//! connection id that says which server made it (draft-ietf-quic-load-balancers, plaintext).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A connection id of a server, as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ServerCid {
    /// Configuration rotation in the upper three bits, the id's length or chance below.
    pub first: u8,
    /// The server's id.
    pub server: [u8; 4],
    /// The least that must follow: what tells the server's connections apart.
    pub nonce: [u8; 4],
}

impl ServerCid {
    /// Configuration rotation that says: no server's id is in here.
    pub const UNROUTABLE: u8 = 7;

    /// Configuration rotation.
    #[inline(always)]
    pub fn rotation(&self) -> u8 {
        self.first >> 5
    }
    /// The server's id, its first byte the highest.
    #[inline(always)]
    pub fn server(&self) -> u32 {
        u32::from_be_bytes(self.server)
    }
}

/// Short header (RFC 8999 §5.2): the connection id has no length of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct QuicShort {
    /// Form (0) and bits of the version.
    pub first: u8,
    /// Destination connection id.
    pub cid: ServerCid,
}

/// Long header (RFC 8999 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct QuicLong {
    /// Form (1) and bits of the version.
    pub first: u8,
    /// Version.
    pub version: [u8; 4],
    /// Bytes of the destination connection id.
    pub length: u8,
    /// Destination connection id.
    pub cid: ServerCid,
}

impl QuicLong {
    /// The bit of the first byte that says which form.
    pub const FORM: u8 = 0x80;
    /// Version 1 (RFC 9000).
    pub const V1: u32 = 1;
    /// Version 2 (RFC 9369).
    pub const V2: u32 = 0x6b33_43cf;

    /// Version.
    #[inline(always)]
    pub fn version(&self) -> u32 {
        u32::from_be_bytes(self.version)
    }
    /// Whether the version is known and the packet one of whose destination id the server
    /// surely made: a client's Handshake (RFC 9000 §17.2.4, RFC 9369 §3.2). Those of Initial
    /// and 0-RTT packets are the client's own at first.
    #[inline(always)]
    pub fn is_handshake(&self) -> bool {
        let kind = self.first >> 4 & 3;
        match self.version() {
            Self::V1 => kind == 2,
            Self::V2 => kind == 3,
            _ => false,
        }
    }
}
