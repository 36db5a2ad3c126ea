//! The keys of the packet path's tables as user space writes them.

use std::net::IpAddr;
use std::num::NonZeroU32;

use dirigent_config::{Protocol, ServiceKey};

use dirigent_director::family::Address as _;
use dirigent_director::records::{Place, Tuple};
use dirigent_director::sieve;
use dirigent_wire::{Addr4, Addr6, Be16};

/// An address and port with protocol: where a service or a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// The address is a firewall mark, and no more.
    pub mark: bool,
}

/// The tuple of one direction's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// IP protocol.
    pub protocol: u8,
    /// 0, or what template it is the key of: [`dirigent_director::persist::of`].
    pub template: u8,
    /// Source.
    pub src: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination, of the same family.
    pub dst: IpAddr,
    /// Destination port.
    pub dport: u16,
}

/// To the packet path's widest address.
pub fn words(address: IpAddr) -> [u16; 8] {
    match address {
        IpAddr::V4(a) => Addr4::new(a.octets()).to_words(),
        IpAddr::V6(a) => Addr6::new(a.octets()).to_words(),
    }
}

/// From the packet path's widest address.
pub fn address(words: &[u16; 8], v6: bool) -> IpAddr {
    match v6 {
        false => IpAddr::from(Addr4::from_words(words).bytes()),
        true => IpAddr::from(Addr6::from_words(words).bytes()),
    }
}

impl Spot {
    /// Stands for an address with all its places: [`Place::whole`].
    pub(crate) fn whole(address: IpAddr) -> Self {
        Self { address, port: 0, protocol: 0, mark: false }
    }
    /// Where the service of a firewall mark is.
    pub(crate) fn of_mark(mark: u32, ipv6: bool) -> Self {
        let address = match ipv6 {
            false => IpAddr::from(Addr4::of_mark(mark).bytes()),
            true => IpAddr::from(Addr6::of_mark(mark).bytes()),
        };
        Self { address, port: 0, protocol: 0, mark: true }
    }
    /// The firewall mark that it stands for, and whether of IPv6.
    pub fn to_mark(self) -> Option<(u32, bool)> {
        let [high, low, ..] = words(self.address).map(u16::from_be);
        self.mark.then(|| (u32::from(high) << 16 | u32::from(low), self.address.is_ipv6()))
    }
    /// The virtual service that would be there.
    pub fn key(&self) -> Option<ServiceKey> {
        if let Some((mark, ipv6)) = self.to_mark() {
            return NonZeroU32::new(mark).map(|mark| ServiceKey::Mark { mark, ipv6 });
        }
        let protocol = Protocol::of_number(self.protocol)?;
        Some(ServiceKey::Address { protocol, address: self.address, port: self.port })
    }
    /// Whether it stands for an address with all its places.
    pub fn is_whole(&self) -> bool {
        self.protocol == 0 && !self.mark
    }
    /// As an IPv4 key.
    pub(crate) fn place4(&self, address: std::net::Ipv4Addr) -> Place<Addr4> {
        Place {
            zero: self.mark.into(),
            ..Place::new(self.protocol, Addr4::new(address.octets()), Be16::new(self.port))
        }
    }
    /// As an IPv6 key.
    pub(crate) fn place6(&self, address: std::net::Ipv6Addr) -> Place<Addr6> {
        Place {
            zero: self.mark.into(),
            ..Place::new(self.protocol, Addr6::new(address.octets()), Be16::new(self.port))
        }
    }
    /// From an IPv4 key.
    pub(crate) fn of4(place: &Place<Addr4>) -> Self {
        Self::at(IpAddr::from(place.addr.bytes()), place)
    }
    /// From an IPv6 key.
    pub(crate) fn of6(place: &Place<Addr6>) -> Self {
        Self::at(IpAddr::from(place.addr.bytes()), place)
    }
    fn at<A>(address: IpAddr, place: &Place<A>) -> Self {
        Self { address, port: place.port.get(), protocol: place.protocol, mark: place.zero != 0 }
    }
}

impl Flow {
    /// The answers to a request of this tuple, from `server`.
    pub(crate) fn reply(&self, server: IpAddr, port: u16) -> Self {
        Self { src: server, sport: port, dst: self.src, dport: self.sport, ..*self }
    }
    /// As an IPv4 key, if it is one.
    pub(crate) fn tuple4(&self) -> Option<Tuple<Addr4>> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (self.src, self.dst) else { return None };
        let (src, dst) = (Addr4::new(src.octets()), Addr4::new(dst.octets()));
        Some(self.tuple(src, dst))
    }
    /// As an IPv6 key, if it is one.
    pub(crate) fn tuple6(&self) -> Option<Tuple<Addr6>> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (self.src, self.dst) else { return None };
        let (src, dst) = (Addr6::new(src.octets()), Addr6::new(dst.octets()));
        Some(self.tuple(src, dst))
    }
    fn tuple<A>(&self, src: A, dst: A) -> Tuple<A> {
        let protocol = [self.protocol, self.template, 0, 0];
        Tuple { src, dst, sport: Be16::new(self.sport), dport: Be16::new(self.dport), protocol }
    }
    /// From an IPv4 key.
    pub(crate) fn of4(key: &Tuple<Addr4>) -> Self {
        Self::between(IpAddr::from(key.src.bytes()), IpAddr::from(key.dst.bytes()), key)
    }
    /// From an IPv6 key.
    pub(crate) fn of6(key: &Tuple<Addr6>) -> Self {
        Self::between(IpAddr::from(key.src.bytes()), IpAddr::from(key.dst.bytes()), key)
    }
    fn between<A>(src: IpAddr, dst: IpAddr, key: &Tuple<A>) -> Self {
        let [protocol, template, ..] = key.protocol;
        Self { protocol, template, src, sport: key.sport.get(), dst, dport: key.dport.get() }
    }
}

/// The slot of an address in the sieve.
pub fn slot(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(a) => sieve::slot(&Addr4::new(a.octets())),
        IpAddr::V6(a) => sieve::slot(&Addr6::new(a.octets())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marks_place_says_which() {
        for mark in [1, 70_000, u32::MAX] {
            for ipv6 in [false, true] {
                assert_eq!(Spot::of_mark(mark, ipv6).to_mark(), Some((mark, ipv6)));
            }
        }
        assert_eq!(Spot::whole(IpAddr::from([0, 0, 0, 1])).to_mark(), None);
    }
}
