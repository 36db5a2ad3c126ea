//! Integers in network byte order, alignment 2.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 16-bit integer in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From host order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }
    /// To host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
    /// The two bytes as they lie in memory: what checksums are made of.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }
    /// From bytes as they lie in memory.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

impl core::fmt::Debug for Be16 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(&self.get(), f)
    }
}

/// A 32-bit integer in network byte order, kept as two halves so that it needs
/// alignment 2 only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Be32 {
    hi: Be16,
    lo: Be16,
}

impl Be32 {
    /// From host order.
    #[inline(always)]
    pub const fn new(host: u32) -> Self {
        Self { hi: Be16::new((host >> 16) as u16), lo: Be16::new(host as u16) }
    }
    /// To host order.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        (self.hi.get() as u32) << 16 | self.lo.get() as u32
    }
}

impl Be32 {
    /// The same bytes with those of a little-endian integer exclusive-ored in.
    #[inline(always)]
    pub const fn xor_le(self, le: u32) -> Self {
        Self::new(self.get() ^ le.swap_bytes())
    }
}

impl core::fmt::Debug for Be32 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(&self.get(), f)
    }
}
