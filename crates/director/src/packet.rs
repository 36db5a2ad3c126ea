//! What the packet path needs of a packet. XDP, tc and the in-memory executor
//! each have one; offsets count from the first byte of the Ethernet header.

use crate::ftp::Line;
use crate::tunnel::Outer;
use dirigent_wire::{Addr4, Addr6, Be16, EthHeader, Header, Ipv4Header, Ipv6Header, Mac, checksum};

/// Whose checksum field is patched: decides what the value 0 means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L4 {
    /// The field always holds a checksum.
    Tcp,
    /// 0 stands for "no checksum", so a computed 0 is written as 0xffff (RFC 768).
    Udp,
}

impl L4 {
    /// The field of a finished checksum, after words that it covers changed by the two deltas.
    #[inline(always)]
    pub fn patch(self, field: &mut Be16, addr_delta: u16, port_delta: u16) {
        let sum = checksum::apply_both(field.raw(), addr_delta, port_delta);
        *field = Be16::from_raw(if sum == 0 && self == Self::Udp { 0xffff } else { sum });
    }
}

/// Several words of a header at once. Packets lie so that IP begins at an even address and no more, so the compiler goes
/// through a header by 16 bits; an executor whose machine can do better says how.
pub trait Words {
    /// Whom a frame is for.
    #[inline(always)]
    fn recipient(eth: &EthHeader) -> Mac {
        eth.dst
    }
    /// Source and destination of an IPv4 header.
    #[inline(always)]
    fn ends4(ip: &Ipv4Header) -> (Addr4, Addr4) {
        (ip.src, ip.dst)
    }
    /// The same of IPv6.
    #[inline(always)]
    fn ends6(ip: &Ipv6Header) -> (Addr6, Addr6) {
        (ip.src, ip.dst)
    }
    /// Writes an address into an IPv6 header.
    #[inline(always)]
    fn put6(to: &mut Addr6, addr: Addr6) {
        *to = addr;
    }
    /// Whether an IPv4 header without options has a checksum that is right.
    #[inline(always)]
    fn sound4(ip: &Ipv4Header) -> bool {
        ip.sum() == 0xffff
    }
}

/// As the compiler does it.
pub struct Plainly;
impl Words for Plainly {}

/// A packet under way. Whatever may move it takes `&mut self`, so no reference
/// into it survives: the borrow checker states the BPF verifier's rule.
#[expect(clippy::len_without_is_empty, reason = "a frame has an Ethernet header")]
pub trait Packet {
    /// How it is read and written where that is most of the work.
    type Words: Words;
    /// Whether this is the first stage: it does the easy cases and leaves the
    /// others, untouched, to a later stage ([`crate::direct::Stage`]). The
    /// kernel verifies and runs each stage as a program of its own.
    const EASY: bool;
    /// Whether this executor can finish anything (tc, memory), or hands what it
    /// cannot to the next one (XDP).
    const LAST: bool;
    /// Whether what puts it into a tunnel fits into the program; else that is a stage of its own.
    const CARRIES: bool = Self::EASY;
    /// Whether it is known to be SCTP: see [`crate::sctp::Association`].
    const SCTP: bool = false;
    /// Whether it is known to be a probe's: see [`crate::probe::Probe`].
    const PROBE: bool = false;
    /// Whether it is known to be of a one-packet service: see [`crate::open::Alone`].
    const ALONE: bool = false;

    /// Bytes from the Ethernet header to the end, fragments of the buffer included.
    fn len(&self) -> u32;
    /// Whether there are so many.
    #[inline(always)]
    fn reaches(&self, len: u32) -> bool {
        len <= self.len()
    }
    /// Whether more follow than these. (Padding that is left behind a packet does no harm: an executor looks where it can
    /// do so cheaply.)
    #[inline(always)]
    fn padded(&self, len: u32) -> bool {
        self.len() > len
    }
    /// Payload bytes of each TCP segment that the device will make of it; 0: none.
    fn gso_size(&self) -> u32;
    /// The number of the interface it came in by.
    fn ingress(&self) -> u32;
    /// A VLAN tag that the device took out of the frame.
    fn stripped_tag(&self) -> Option<u16>;
    /// The mark that netfilter has given it, which is then taken from it; 0: none, or it is not to be had.
    fn take_mark(&mut self) -> u32 {
        0
    }

    /// The header at `off`, if it lies within the bytes that can be read.
    fn get<H: Header>(&self, off: usize) -> Option<&H>;
    /// The same to be written.
    fn get_mut<H: Header>(&mut self, off: usize) -> Option<&mut H>;
    /// Makes the first `len` bytes readable, or all if there are fewer.
    fn pull(&mut self, len: u32);

    /// Patches the transport checksum at `at` for words that changed by the two
    /// deltas. Apart, because a checksum that is still to be finished by the
    /// device covers the pseudo header only (`addr_delta`).
    fn patch_l4(&mut self, at: usize, addr_delta: u16, port_delta: u16, l4: L4, v6: bool) -> bool {
        let _ = v6;
        let Some(field) = self.get_mut::<Be16>(at) else { return false };
        l4.patch(field, addr_delta, port_delta);
        true
    }
    /// The same of a packet with an address, and perhaps a port, that are translated by then. `pseudo`: the sum of its
    /// pseudo header before that, which tells a checksum that is still to be finished.
    fn patch_translated(
        &mut self,
        at: usize,
        addr_delta: u16,
        port_delta: u16,
        l4: L4,
        v6: bool,
        pseudo: impl FnOnce() -> u16,
    ) -> bool {
        let _ = pseudo;
        self.patch_l4(at, addr_delta, port_delta, l4, v6)
    }
    /// The folded sum of `len` bytes at `off`, beyond the readable ones too.
    fn sum(&self, off: usize, len: u32) -> Option<u16>;
    /// Copies `len` bytes (at least 1, at most a line's) at `off`, beyond the readable ones too.
    fn load(&self, off: usize, len: u32, to: &mut Line) -> bool;
    /// Writes them back. Checksums are the caller's business.
    fn store(&mut self, off: usize, len: u32, from: &Line) -> bool;
    /// Takes out the tag behind the MAC addresses, wherever it is kept.
    fn pop_tag(&mut self) -> bool;
    /// Cuts the packet to `keep` bytes and adds `grow` in front. The front's
    /// content is then undefined.
    fn reshape(&mut self, keep: u32, grow: u32) -> bool;
    /// Adds `bytes` in front for the headers of a tunnel. Their content, and that of the
    /// Ethernet header, is then undefined.
    fn grow(&mut self, bytes: u32, outer: Outer) -> bool;
    /// Adds (undefined) or takes away bytes behind the Ethernet header and the first
    /// `header` bytes of the IP header: 0, or the fixed header's length.
    fn adjust(&mut self, header: u32, change: i32) -> bool;
    /// Takes `bytes` away behind the Ethernet header: a tunnel's headers. `from_v6` and
    /// `to_v6`: the families of what went and of what is left.
    fn shed(&mut self, bytes: u32, from_v6: bool, to_v6: bool) -> bool {
        let _ = (from_v6, to_v6);
        self.adjust(0, -(bytes as i32))
    }
    /// Leaves a copy of the packet as it is now to [`crate::direct::Stage::Rest`], which
    /// will find `word` stashed. Only where [`Packet::LAST`].
    fn fork(&mut self, word: u64) -> bool;
}

/// What a wrapper of a packet, which says by a constant what the packet is known to be, leaves
/// to the packet: all the rest.
macro_rules! as_the_one_inside {
    () => {
        type Words = P::Words;
        #[inline(always)]
        fn len(&self) -> u32 {
            self.0.len()
        }
        #[inline(always)]
        fn gso_size(&self) -> u32 {
            self.0.gso_size()
        }
        #[inline(always)]
        fn ingress(&self) -> u32 {
            self.0.ingress()
        }
        #[inline(always)]
        fn stripped_tag(&self) -> Option<u16> {
            self.0.stripped_tag()
        }
        #[inline(always)]
        fn take_mark(&mut self) -> u32 {
            self.0.take_mark()
        }
        #[inline(always)]
        fn get<H: dirigent_wire::Header>(&self, off: usize) -> Option<&H> {
            self.0.get(off)
        }
        #[inline(always)]
        fn get_mut<H: dirigent_wire::Header>(&mut self, off: usize) -> Option<&mut H> {
            self.0.get_mut(off)
        }
        #[inline(always)]
        fn reaches(&self, len: u32) -> bool {
            self.0.reaches(len)
        }
        #[inline(always)]
        fn padded(&self, len: u32) -> bool {
            self.0.padded(len)
        }
        #[inline(always)]
        fn pull(&mut self, len: u32) {
            self.0.pull(len);
        }
        #[inline(always)]
        fn patch_l4(&mut self, at: usize, addr_delta: u16, port_delta: u16, l4: $crate::packet::L4, v6: bool) -> bool {
            self.0.patch_l4(at, addr_delta, port_delta, l4, v6)
        }
        #[inline(always)]
        fn patch_translated(
            &mut self,
            at: usize,
            addr_delta: u16,
            port_delta: u16,
            l4: $crate::packet::L4,
            v6: bool,
            pseudo: impl FnOnce() -> u16,
        ) -> bool {
            self.0.patch_translated(at, addr_delta, port_delta, l4, v6, pseudo)
        }
        #[inline(always)]
        fn sum(&self, off: usize, len: u32) -> Option<u16> {
            self.0.sum(off, len)
        }
        #[inline(always)]
        fn load(&self, off: usize, len: u32, to: &mut $crate::ftp::Line) -> bool {
            self.0.load(off, len, to)
        }
        #[inline(always)]
        fn store(&mut self, off: usize, len: u32, from: &$crate::ftp::Line) -> bool {
            self.0.store(off, len, from)
        }
        #[inline(always)]
        fn pop_tag(&mut self) -> bool {
            self.0.pop_tag()
        }
        #[inline(always)]
        fn reshape(&mut self, keep: u32, grow: u32) -> bool {
            self.0.reshape(keep, grow)
        }
        #[inline(always)]
        fn grow(&mut self, bytes: u32, outer: $crate::tunnel::Outer) -> bool {
            self.0.grow(bytes, outer)
        }
        #[inline(always)]
        fn adjust(&mut self, header: u32, change: i32) -> bool {
            self.0.adjust(header, change)
        }
        #[inline(always)]
        fn shed(&mut self, bytes: u32, from_v6: bool, to_v6: bool) -> bool {
            self.0.shed(bytes, from_v6, to_v6)
        }
        #[inline(always)]
        fn fork(&mut self, word: u64) -> bool {
            self.0.fork(word)
        }
    };
}
pub(crate) use as_the_one_inside;
