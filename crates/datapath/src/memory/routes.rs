//! A small routing table: what `bpf_fib_lookup` would say.

use std::net::IpAddr;

use dirigent_director::tables::Route;
use dirigent_wire::Mac;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Outgoing interface.
    pub ifindex: u32,
    /// Largest IP packet.
    pub mtu: u32,
    /// The interface's MAC.
    pub src: Mac,
    /// The neighbour's MAC, if it is known.
    pub dst: Option<Mac>,
}

/// Routes by prefix, longest first.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// `ip_forward` is 0.
    pub not_forwarding: bool,
    entries: Vec<(IpAddr, u8, Option<Target>)>,
}

/// An address as a number, its bits at the top.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// Whether the first bits of both are the same.
pub(crate) fn within(address: IpAddr, net: IpAddr, length: u8) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
    address.is_ipv4() == net.is_ipv4() && (bits(address) ^ bits(net)) & mask == 0
}

/// A prefix that is this host's by its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalNet {
    /// Its first address.
    pub address: IpAddr,
    /// Length of the prefix.
    pub length: u8,
    /// It is for marked packets only: just rules by mark lead to the route.
    pub marked: bool,
}

impl LocalNet {
    /// Whether the address is one of its.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        within(address, self.address, self.length)
    }
}

/// Clients of a service, and whether they may open connections to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceNet {
    /// Index of the service.
    pub service: u32,
    /// The first address of the prefix.
    pub address: IpAddr,
    /// Its length.
    pub length: u8,
}

impl SourceNet {
    /// Whether the address is one of its.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        within(address, self.address, self.length)
    }
}

impl Routes {
    /// Adds or replaces a route; no target: local, or a blackhole.
    pub fn set(&mut self, net: IpAddr, length: u8, target: Option<Target>) {
        self.remove(net, length);
        let at = self.entries.partition_point(|(_, other, _)| *other >= length);
        self.entries.insert(at, (net, length, target));
    }
    /// Removes a route.
    pub fn remove(&mut self, net: IpAddr, length: u8) {
        self.entries.retain(|(n, l, _)| (*n, *l) != (net, length));
    }
    /// The longest route to an address.
    #[must_use]
    pub fn find(&self, to: IpAddr) -> Option<Target> {
        self.entries.iter().find(|(net, length, _)| within(to, *net, *length)).and_then(|(_, _, target)| *target)
    }
    /// The answer about a packet of `len` bytes.
    #[must_use]
    pub fn route(&self, to: IpAddr, len: u32) -> Route {
        if self.not_forwarding {
            return Route::NotForwarding;
        }
        match self.find(to) {
            None => Route::None,
            Some(target) if len > target.mtu => Route::TooBig(target.mtu),
            Some(Target { ifindex, dst: None, .. }) => Route::NoNeighbour(ifindex),
            Some(Target { ifindex, src, dst: Some(dst), mtu }) => Route::To { ifindex, src, dst, mtu },
        }
    }
}
