//! What is nobody's business here is told from the rest before any table is asked: a packet neither to a virtual service's
//! address nor from a real server's. (Of probes by direct routing, answers come from the virtual address.) It is not read on:
//! what is cut short, its recipient drops.
//!
//! User space notes an address before a service or server has it, and never takes it back: connections outlive both. Where
//! packets of any address may be a service's it notes all there are, for as long as the tables last: marks lead them there,
//! and an FTP server may name any address for its data (a service of all ports may be FTP's). Several addresses may share a
//! slot; then tables are asked in vain.

use crate::family::Address;
use crate::packet::Packet;
use crate::parse::ReadIp;
use crate::tables::Tables;

/// Slots, a byte of bits each: less than a hundredth of a thousand addresses' neighbours share one.
pub const SLOTS: usize = 1 << 16;
/// Packets to addresses of this slot may be the director's.
pub const TO: u8 = 1;
/// Packets from them may be.
pub const FROM: u8 = 2;
/// The bits of a virtual service's address.
pub const VIRTUAL: u8 = TO | FROM;
/// The bits of a real server's.
pub const SERVER: u8 = FROM;

/// The slot of an address: Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4).
#[inline(always)]
pub fn slot<A: Address>(address: &A) -> u16 {
    (address.digest().wrapping_mul(0x9e37_79b1) >> 16) as u16
}

/// Whether a packet with this header has no connection and no service. Only of TCP and UDP is that known.
#[inline(always)]
pub fn retains<F: ReadIp, P: Packet, T: Tables>(t: &T, header: &F::Header) -> bool {
    let (Some((src, dst)), Some(bits)) = (F::ends::<P>(header), t.sieve()) else { return false };
    let of = |address| bits.get(usize::from(slot(&address))).copied().unwrap_or(u8::MAX);
    of(dst) & TO == 0 && of(src) & FROM == 0
}
