//! TCP (RFC 9293), UDP (RFC 768) and SCTP (RFC 9260) headers.

use crate::{Be16, Be32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Source and destination port: how TCP, UDP and SCTP headers start.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Ports {
    /// Source port.
    pub src: Be16,
    /// Destination port.
    pub dst: Be16,
}

/// The TCP header without options.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TcpHeader {
    /// Source and destination port.
    pub ports: Ports,
    /// Sequence number.
    pub seq: Be32,
    /// Acknowledgement number.
    pub ack: Be32,
    /// Header length in 32-bit words (4 bits) and reserved bits.
    pub data_offset: u8,
    /// Flags: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
    pub flags: u8,
    /// Window.
    pub window: Be16,
    /// Checksum.
    pub check: Be16,
    /// Urgent pointer.
    pub urgent: Be16,
}

impl TcpHeader {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Hand what was received to the program.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
    /// Offset of the checksum in the header.
    pub const CHECK: usize = 16;
}

/// The UDP header.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct UdpHeader {
    /// Source and destination port.
    pub ports: Ports,
    /// Bytes of header and payload.
    pub len: Be16,
    /// Checksum; 0 means none (IPv4 only, RFC 768).
    pub check: Be16,
}

impl UdpHeader {
    /// Offset of the checksum in the header.
    pub const CHECK: usize = 6;
}

/// The SCTP common header (RFC 9260 §3.1).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SctpHeader {
    /// Source and destination port.
    pub ports: Ports,
    /// Verification tag.
    pub tag: Be32,
    /// CRC32c over header and chunks, counted as 0 itself.
    pub check: Be32,
}

/// How an SCTP chunk starts (RFC 9260 §3.2).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ChunkHeader {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Bytes of the chunk, without what pads it to a multiple of four.
    pub len: Be16,
}
