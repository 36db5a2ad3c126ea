//! What the wrapper is told and tells. Read twice: by the BPF object, and by the bench's
//! user space.

/// Bytes of every frame.
pub const FRAME: usize = 96;

/// The packets of a round, which differ in the client only.
#[repr(C)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Clone, Copy, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)
)]
pub struct Round {
    /// The frame's first 78 bytes: eight, and from the seventh on all in words of eight. They lie as headers do, so that
    /// what is loaded of a header, down to a whole address, comes from one store, which the CPU forwards: what a network
    /// card writes need not be waited for either.
    pub template: [u64; 10],
    /// Packets of the round.
    pub packets: u64,
    /// Packets so far.
    pub done: u64,
    /// Nanoseconds on the kernel's clock at the first packet.
    pub begun: u64,
    /// The same at the last packet.
    pub ended: u64,
    /// Packets that did not end as expected.
    pub astray: u64,
    /// Which packet is the next; goes on from round to round.
    pub counter: u64,
    /// Connections − 1; their number is a power of two.
    pub mask: u32,
    /// Whether the addresses are IPv6.
    pub v6: u32,
    /// Whether the client is the destination.
    pub reply: u32,
    /// The verdict that is expected.
    pub action: u32,
    /// The length that is expected.
    pub len: u32,
    /// Zero.
    pub spare: u32,
}
