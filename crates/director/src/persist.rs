//! Persistence (ipvs-semantics §5): templates, which send a client's new connections to the
//! server of its earlier ones.
//!
//! A template lies in the table of connections, under a key that no packet has.

/// What a template's key stands for; the second byte of [`crate::records::Tuple::protocol`].
pub mod of {
    /// A client of a virtual address.
    pub const ADDRESS: u8 = 1;
    /// A client of a firewall mark.
    pub const MARK: u8 = 2;
}

/// The number of connections that a template controls (32 bits), below its tag: one word
/// decides, so that nobody counts a connection on a template that is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link(pub u64);

impl Link {
    /// How many connections.
    #[inline(always)]
    pub fn connections(self) -> u32 {
        self.0 as u32
    }
}
