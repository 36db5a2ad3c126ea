//! The two address families behind one interface: everything in which IPv4 and
//! IPv6 differ. The rest of the packet path is written once, over [`Family`].

use crate::conn::Held;
use crate::packet::{Packet, Words as _};
use crate::records::{Conn, Datagram, Known, Link, Piece, Place, Tuple};
use crate::tables::{Insert, Route, Tables};
use dirigent_wire::{Addr4, Addr6, Be16, Be32, Ipv4Header, Ipv6Header, checksum, icmp, ip::proto};

/// Offset of the IP header: behind an untagged Ethernet header.
pub const L3: usize = 14;

/// An address of either family.
pub trait Address: Copy + PartialEq + Default + core::fmt::Debug + 'static {
    /// Folded checksum sum of its words.
    fn sum(&self) -> u16;
    /// From the widest form (IPv4 in the first two words).
    fn from_words(words: &[u16; 8]) -> Self;
    /// To the widest form.
    fn to_words(self) -> [u16; 8];
    /// Writes the part of it that a mask covers: see [`crate::records::Service::mask`].
    fn write_network(&self, mask: u32, to: &mut Self);
    /// A firewall mark where an address is expected: in its first bytes, in network order.
    fn of_mark(mark: u32) -> Self;
    /// The bits of it that `mask` has.
    fn masked(&self, mask: &Self) -> Self;
    /// IPVS's fold for hashing: the IPv4 address, or the four IPv6 words
    /// exclusive-ored, in host order.
    fn hash_fold(&self) -> u32;
    /// Four bytes that tell most from each other: hosts, networks, and marks in their place.
    fn digest(&self) -> u32;
    /// Whether no packet can come from there (RFC 6890, RFC 4291): loopback,
    /// multicast, unspecified, reserved.
    fn impossible_source(&self) -> bool;
}

/// As one word: as they lie in memory, so that the compiler reads both at once where they are aligned.
#[inline(always)]
fn pair([a, b]: [u16; 2]) -> u32 {
    #[cfg(target_endian = "little")]
    let word = u32::from(b) << 16 | u32::from(a);
    #[cfg(target_endian = "big")]
    let word = u32::from(a) << 16 | u32::from(b);
    word
}

impl Address for Addr4 {
    #[inline(always)]
    fn sum(&self) -> u16 {
        let [a, b] = self.0;
        checksum::fold(a as u32 + b as u32)
    }
    #[inline(always)]
    fn from_words(words: &[u16; 8]) -> Self {
        let [a, b, ..] = *words;
        Addr4([a, b])
    }
    #[inline(always)]
    fn to_words(self) -> [u16; 8] {
        let [a, b] = self.0;
        [a, b, 0, 0, 0, 0, 0, 0]
    }
    #[inline(always)]
    fn write_network(&self, mask: u32, to: &mut Self) {
        let [a, b] = self.0;
        to.0 = [a & mask as u16, b & (mask >> 16) as u16];
    }
    #[inline(always)]
    fn of_mark(mark: u32) -> Self {
        Addr4([((mark >> 16) as u16).to_be(), (mark as u16).to_be()])
    }
    #[inline(always)]
    fn masked(&self, mask: &Self) -> Self {
        let ([a, b], [m, n]) = (self.0, mask.0);
        Addr4([a & m, b & n])
    }
    #[inline(always)]
    fn hash_fold(&self) -> u32 {
        self.number()
    }
    #[inline(always)]
    fn digest(&self) -> u32 {
        pair(self.0)
    }
    #[inline(always)]
    fn impossible_source(&self) -> bool {
        let first = self.number() >> 24;
        first == 0 || first == 127 || first >= 224
    }
}

impl Address for Addr6 {
    #[inline(always)]
    fn sum(&self) -> u16 {
        checksum::sum8(&self.0)
    }
    #[inline(always)]
    fn from_words(words: &[u16; 8]) -> Self {
        Addr6(*words)
    }
    #[inline(always)]
    fn to_words(self) -> [u16; 8] {
        self.0
    }
    #[inline(always)]
    fn write_network(&self, prefix: u32, to: &mut Self) {
        // Word by word, so that not all of them are in registers, and so on the stack, at once.
        let mut left = prefix;
        for (to, from) in to.0.iter_mut().zip(&self.0) {
            let bits = if left < 16 { left } else { 16 };
            left -= bits;
            *to = from & !(((0xffff_u32 >> bits) as u16).to_be());
        }
    }
    #[inline(always)]
    fn of_mark(mark: u32) -> Self {
        Addr6([((mark >> 16) as u16).to_be(), (mark as u16).to_be(), 0, 0, 0, 0, 0, 0])
    }
    #[inline(always)]
    fn masked(&self, mask: &Self) -> Self {
        let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) = (self.0, mask.0);
        Addr6([a & i, b & j, c & k, d & l, e & m, f & n, g & o, h & p])
    }
    #[inline(always)]
    fn hash_fold(&self) -> u32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        let (hi, lo) = (u16::from_be(a ^ c ^ e ^ g), u16::from_be(b ^ d ^ f ^ h));
        (hi as u32) << 16 | lo as u32
    }
    #[inline(always)]
    fn digest(&self) -> u32 {
        let [a, b, c, d, _, _, g, h] = self.0;
        pair([a, b]) ^ pair([c, d]) ^ pair([g, h])
    }
    #[inline(always)]
    fn impossible_source(&self) -> bool {
        let [a, b, c, d, e, f, g, h] = self.0;
        let unspecified_or_loopback = a | b | c | d | e | f | g == 0 && u16::from_be(h) <= 1;
        u16::from_be(a) >> 8 == 0xff || unspecified_or_loopback
    }
}

/// The ICMP error kinds the director sends, as (type, code).
#[derive(Clone, Copy)]
pub struct ErrorKinds {
    /// TTL or hop limit used up.
    pub time_exceeded: (u8, u8),
    /// Too long for the route.
    pub too_big: (u8, u8),
    /// No route to the server.
    pub host_unreachable: (u8, u8),
    /// Nobody to take it.
    pub port_unreachable: (u8, u8),
}

/// An address family.
pub trait Family: Copy + Default + core::fmt::Debug + 'static {
    /// Its addresses.
    type Addr: Address;
    /// For adapters whose helpers ask.
    const V6: bool;
    /// Bytes of the fixed header.
    const HEADER: usize;
    /// Offset of the source address in the header; the destination follows it.
    const SRC_AT: usize;
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// Most bytes of an ICMP error, IP header included (RFC 1812 §4.3.2.3;
    /// RFC 4443 §2.4).
    const ERROR_MAX: u32;
    /// Types and codes of the errors.
    const ERRORS: ErrorKinds;

    /// The entry of this tuple.
    fn conn<'t, T: Tables>(t: &'t T, key: &Tuple<Self::Addr>) -> Option<&'t Conn<Self::Addr>>;
    /// The entry of the key that `make` writes, which is nobody's tuple: a template. (The key
    /// is not on the stack, of which kernel 6.1 has none left where this is asked.)
    fn template<T: Tables>(t: &T, make: impl FnOnce(&mut Tuple<Self::Addr>)) -> Option<Held<'_, Self::Addr>>;
    /// Has user space tell other directors of the entry; says whether there was room.
    fn tell<T: Tables>(t: &T, key: &Tuple<Self::Addr>) -> bool;
    /// Adds an entry.
    fn insert<T: Tables>(t: &mut T, key: &Tuple<Self::Addr>, conn: &Conn<Self::Addr>) -> Insert;
    /// Removes an entry.
    fn remove<T: Tables>(t: &mut T, key: &Tuple<Self::Addr>);
    /// Index of the virtual service there.
    fn service<T: Tables>(t: &T, at: &Place<Self::Addr>) -> Option<u32>;
    /// Whether the address is this host's.
    fn local<T: Tables>(t: &T, addr: &Self::Addr) -> bool;
    /// Whether it is for a marked packet, if not anyway.
    fn local_by_mark<T: Tables>(t: &T, addr: &Self::Addr) -> bool;
    /// Whether the client may open connections to that service, which judges its clients.
    fn allows<T: Tables>(t: &T, service: u32, client: &Self::Addr) -> bool;
    /// The NAT server there.
    fn known<'t, T: Tables>(t: &'t T, at: &Place<Self::Addr>) -> Option<&'t Known>;
    /// The pin of this tuple.
    fn pin<'t, T: Tables>(t: &'t T, key: &Tuple<Self::Addr>) -> Option<&'t Conn<Self::Addr>>;
    /// What the first piece of that datagram said.
    fn datagram<'t, T: Tables>(t: &'t T, piece: &Piece<Self::Addr>) -> Option<&'t Datagram>;
    /// Notes it.
    fn remember<T: Tables>(t: &mut T, piece: &Piece<Self::Addr>, datagram: &Datagram);
    /// What the routing table says.
    fn route<T: Tables>(t: &T, ingress: u32, src: &Self::Addr, dst: &Self::Addr, len: u32) -> Route;
    /// The address a link's errors carry.
    fn link_addr(link: &Link) -> Self::Addr;

    /// Takes one from the TTL of the header at [`L3`].
    fn decrement_ttl<P: Packet>(p: &mut P) -> bool;
    /// Writes an address in the header at `at`, keeping its checksum true.
    /// `offset`: [`Family::SRC_AT`] or the destination behind it.
    fn write_addr<P: Packet>(p: &mut P, at: usize, offset: usize, addr: Self::Addr, delta: u16) -> bool;
    /// Writes the IP header of an error of `len` bytes, header included, TTL 64.
    fn write_error_header<P: Packet>(p: &mut P, src: Self::Addr, dst: Self::Addr, len: u32, tos: u8, id: u16) -> bool;
    /// Turns a header without options into that of an answer: addresses exchanged, a new TTL,
    /// `len` bytes header included.
    fn answer<P: Packet>(p: &mut P, len: u32) -> bool;
    /// Sum of the pseudo header for an upper-layer packet of `len` bytes; 0 for
    /// ICMP over IPv4, which has none.
    fn icmp_pseudo_sum(src: &Self::Addr, dst: &Self::Addr, len: u32) -> u16;
}

/// IPv4.
#[derive(Clone, Copy, Debug, Default)]
pub struct V4;
/// IPv6.
#[derive(Clone, Copy, Debug, Default)]
pub struct V6;

/// Words of the UDP or TCP pseudo header beside the addresses (RFC 9293 §3.1,
/// RFC 8200 §8.1).
#[inline(always)]
pub fn pseudo_tail(protocol: u8, len: u32) -> u16 {
    let len = checksum::add((((len >> 16) & 0xffff) as u16).to_be(), (len as u16).to_be());
    checksum::add(len, u16::from(protocol).to_be())
}

impl Family for V4 {
    type Addr = Addr4;
    const V6: bool = false;
    const HEADER: usize = 20;
    const SRC_AT: usize = 12;
    const ICMP: u8 = proto::ICMP;
    const ERROR_MAX: u32 = 576;
    const ERRORS: ErrorKinds = ErrorKinds {
        time_exceeded: (icmp::v4::TIME_EXCEEDED, 0),
        too_big: (icmp::v4::UNREACHABLE, icmp::v4::FRAG_NEEDED),
        host_unreachable: (icmp::v4::UNREACHABLE, icmp::v4::HOST),
        port_unreachable: (icmp::v4::UNREACHABLE, icmp::v4::PORT),
    };

    #[inline(always)]
    fn conn<'t, T: Tables>(t: &'t T, key: &Tuple<Addr4>) -> Option<&'t Conn<Addr4>> {
        t.conn4(key)
    }
    #[inline(always)]
    fn template<T: Tables>(t: &T, make: impl FnOnce(&mut Tuple<Addr4>)) -> Option<Held<'_, Addr4>> {
        t.template4(make)
    }
    #[inline(always)]
    fn tell<T: Tables>(t: &T, key: &Tuple<Addr4>) -> bool {
        t.tell4(key)
    }
    #[inline(always)]
    fn insert<T: Tables>(t: &mut T, key: &Tuple<Addr4>, conn: &Conn<Addr4>) -> Insert {
        t.insert4(key, conn)
    }
    #[inline(always)]
    fn remove<T: Tables>(t: &mut T, key: &Tuple<Addr4>) {
        t.remove4(key);
    }
    #[inline(always)]
    fn service<T: Tables>(t: &T, at: &Place<Addr4>) -> Option<u32> {
        t.service4(at)
    }
    #[inline(always)]
    fn local<T: Tables>(t: &T, addr: &Addr4) -> bool {
        t.local4(addr)
    }
    #[inline(always)]
    fn local_by_mark<T: Tables>(t: &T, addr: &Addr4) -> bool {
        t.local_by_mark4(addr)
    }
    #[inline(always)]
    fn allows<T: Tables>(t: &T, service: u32, client: &Addr4) -> bool {
        t.allows4(service, client)
    }
    #[inline(always)]
    fn known<'t, T: Tables>(t: &'t T, at: &Place<Addr4>) -> Option<&'t Known> {
        t.known4(at)
    }
    #[inline(always)]
    fn pin<'t, T: Tables>(t: &'t T, key: &Tuple<Addr4>) -> Option<&'t Conn<Addr4>> {
        t.pin4(key)
    }
    #[inline(always)]
    fn datagram<'t, T: Tables>(t: &'t T, piece: &Piece<Addr4>) -> Option<&'t Datagram> {
        t.datagram4(piece)
    }
    #[inline(always)]
    fn remember<T: Tables>(t: &mut T, piece: &Piece<Addr4>, datagram: &Datagram) {
        t.remember4(piece, datagram);
    }
    #[inline(always)]
    fn route<T: Tables>(t: &T, ingress: u32, src: &Addr4, dst: &Addr4, len: u32) -> Route {
        t.route4(ingress, src, dst, len)
    }
    #[inline(always)]
    fn link_addr(link: &Link) -> Addr4 {
        Addr4(link.addr4)
    }

    #[inline(always)]
    fn decrement_ttl<P: Packet>(p: &mut P) -> bool {
        let Some(ip) = p.get_mut::<Ipv4Header>(L3) else { return false };
        ip.decrement_ttl();
        true
    }
    #[inline(always)]
    fn write_addr<P: Packet>(p: &mut P, at: usize, offset: usize, addr: Addr4, delta: u16) -> bool {
        let Some(ip) = p.get_mut::<Ipv4Header>(at) else { return false };
        if offset == Self::SRC_AT {
            ip.src = addr;
        } else {
            ip.dst = addr;
        }
        ip.patch_check(delta);
        true
    }
    #[inline(always)]
    fn write_error_header<P: Packet>(p: &mut P, src: Addr4, dst: Addr4, len: u32, tos: u8, id: u16) -> bool {
        let Some(ip) = p.get_mut::<Ipv4Header>(L3) else { return false };
        *ip = Ipv4Header {
            version_ihl: 0x45,
            // RFC 1812 §4.3.2.5: precedence 6 (internetwork control).
            tos: (tos & 0x1e) | 0xc0,
            total_len: Be16::new(len as u16),
            id: Be16::new(id),
            fragment: Be16::new(0),
            ttl: 64,
            protocol: proto::ICMP,
            check: Be16::new(0),
            src,
            dst,
        };
        ip.check = Be16::from_raw(!ip.sum());
        true
    }
    #[inline(always)]
    fn answer<P: Packet>(p: &mut P, len: u32) -> bool {
        let Some(ip) = p.get_mut::<Ipv4Header>(L3) else { return false };
        (ip.src, ip.dst) = (ip.dst, ip.src);
        // DF and identification 0, as of any reset (RFC 6864 §4.1). ECN is for what carries data.
        (ip.id, ip.fragment) = (Be16::new(0), Be16::new(Ipv4Header::DF));
        ip.tos &= 0xfc;
        ip.ttl = 64;
        ip.total_len = Be16::new(len as u16);
        ip.check = Be16::new(0);
        ip.check = Be16::from_raw(!ip.sum());
        true
    }
    #[inline(always)]
    fn icmp_pseudo_sum(_: &Addr4, _: &Addr4, _: u32) -> u16 {
        0
    }
}

impl Family for V6 {
    type Addr = Addr6;
    const V6: bool = true;
    const HEADER: usize = 40;
    const SRC_AT: usize = 8;
    const ICMP: u8 = proto::ICMPV6;
    const ERROR_MAX: u32 = 1280;
    const ERRORS: ErrorKinds = ErrorKinds {
        time_exceeded: (icmp::v6::TIME_EXCEEDED, 0),
        too_big: (icmp::v6::TOO_BIG, 0),
        host_unreachable: (icmp::v6::UNREACHABLE, icmp::v6::ADDRESS),
        port_unreachable: (icmp::v6::UNREACHABLE, icmp::v6::PORT),
    };

    #[inline(always)]
    fn conn<'t, T: Tables>(t: &'t T, key: &Tuple<Addr6>) -> Option<&'t Conn<Addr6>> {
        t.conn6(key)
    }
    #[inline(always)]
    fn template<T: Tables>(t: &T, make: impl FnOnce(&mut Tuple<Addr6>)) -> Option<Held<'_, Addr6>> {
        t.template6(make)
    }
    #[inline(always)]
    fn tell<T: Tables>(t: &T, key: &Tuple<Addr6>) -> bool {
        t.tell6(key)
    }
    #[inline(always)]
    fn insert<T: Tables>(t: &mut T, key: &Tuple<Addr6>, conn: &Conn<Addr6>) -> Insert {
        t.insert6(key, conn)
    }
    #[inline(always)]
    fn remove<T: Tables>(t: &mut T, key: &Tuple<Addr6>) {
        t.remove6(key);
    }
    #[inline(always)]
    fn service<T: Tables>(t: &T, at: &Place<Addr6>) -> Option<u32> {
        t.service6(at)
    }
    #[inline(always)]
    fn local<T: Tables>(t: &T, addr: &Addr6) -> bool {
        t.local6(addr)
    }
    #[inline(always)]
    fn local_by_mark<T: Tables>(t: &T, addr: &Addr6) -> bool {
        t.local_by_mark6(addr)
    }
    #[inline(always)]
    fn allows<T: Tables>(t: &T, service: u32, client: &Addr6) -> bool {
        t.allows6(service, client)
    }
    #[inline(always)]
    fn known<'t, T: Tables>(t: &'t T, at: &Place<Addr6>) -> Option<&'t Known> {
        t.known6(at)
    }
    #[inline(always)]
    fn pin<'t, T: Tables>(t: &'t T, key: &Tuple<Addr6>) -> Option<&'t Conn<Addr6>> {
        t.pin6(key)
    }
    #[inline(always)]
    fn datagram<'t, T: Tables>(t: &'t T, piece: &Piece<Addr6>) -> Option<&'t Datagram> {
        t.datagram6(piece)
    }
    #[inline(always)]
    fn remember<T: Tables>(t: &mut T, piece: &Piece<Addr6>, datagram: &Datagram) {
        t.remember6(piece, datagram);
    }
    #[inline(always)]
    fn route<T: Tables>(t: &T, ingress: u32, src: &Addr6, dst: &Addr6, len: u32) -> Route {
        t.route6(ingress, src, dst, len)
    }
    #[inline(always)]
    fn link_addr(link: &Link) -> Addr6 {
        Addr6(link.addr6)
    }

    #[inline(always)]
    fn decrement_ttl<P: Packet>(p: &mut P) -> bool {
        let Some(ip) = p.get_mut::<Ipv6Header>(L3) else { return false };
        ip.hop_limit = ip.hop_limit.wrapping_sub(1);
        true
    }
    #[inline(always)]
    fn write_addr<P: Packet>(p: &mut P, at: usize, offset: usize, addr: Addr6, _: u16) -> bool {
        let Some(ip) = p.get_mut::<Ipv6Header>(at) else { return false };
        P::Words::put6(if offset == Self::SRC_AT { &mut ip.src } else { &mut ip.dst }, addr);
        true
    }
    #[inline(always)]
    fn write_error_header<P: Packet>(p: &mut P, src: Addr6, dst: Addr6, len: u32, _: u8, _: u16) -> bool {
        let Some(ip) = p.get_mut::<Ipv6Header>(L3) else { return false };
        *ip = Ipv6Header {
            version_class_flow: Be32::new(0x6000_0000),
            payload_len: Be16::new((len as u16).wrapping_sub(40)),
            next_header: proto::ICMPV6,
            hop_limit: 64,
            src,
            dst,
        };
        true
    }
    #[inline(always)]
    fn answer<P: Packet>(p: &mut P, len: u32) -> bool {
        let Some(ip) = p.get_mut::<Ipv6Header>(L3) else { return false };
        (ip.src, ip.dst) = (ip.dst, ip.src);
        // Neither flow label nor ECN: DSCP only.
        ip.version_class_flow = Be32::new(ip.version_class_flow.get() & 0xffc0_0000);
        ip.hop_limit = 64;
        ip.payload_len = Be16::new((len as u16).wrapping_sub(40));
        true
    }
    #[inline(always)]
    fn icmp_pseudo_sum(src: &Addr6, dst: &Addr6, len: u32) -> u16 {
        checksum::add(checksum::add(src.sum(), dst.sum()), pseudo_tail(proto::ICMPV6, len))
    }
}
