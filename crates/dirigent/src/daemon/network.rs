//! What the tables must know of the network: this host's addresses, and the interfaces in use.

use dirigent_net::{Link, Mac, NextHop, NextHopState, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An interface as the packet path knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Its hardware address.
    pub mac: Mac,
    /// Those of virtual routers' devices on it that are up: what is for them is for this host.
    pub virtual_macs: BTreeSet<Mac>,
    /// The address that errors are sent from.
    pub v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub v6: Option<Ipv6Addr>,
    /// Whether our XDP program takes its packets.
    pub xdp: bool,
    /// Whether its packets were led there by netfilter's marks.
    pub marked: bool,
    /// Whether probes come by it, and nothing else.
    pub probes: bool,
}

/// Interfaces that the director makes for itself, by name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own<'a> {
    /// What netfilter's marks lead packets to.
    pub marked: Option<&'a str>,
    /// What probes come by.
    pub probes: Option<&'a str>,
}

/// Whether a server is reached by its next hop, and how or why not.
pub fn reached(hop: &NextHop) -> (bool, &'static str) {
    match hop.state {
        NextHopState::Resolved => (true, "resolved"),
        NextHopState::Local => (true, "local"),
        NextHopState::NoNeighbour => (false, "no neighbour"),
        NextHopState::NoRoute => (false, "no route"),
    }
}

/// These interfaces, as far as they are there; on those of `xdp` our XDP program is attached.
pub fn links(used: &BTreeSet<u32>, xdp: &BTreeSet<u32>, own: Own<'_>, snapshot: &Snapshot) -> BTreeMap<u32, LinkFacts> {
    let used = snapshot.links.values().filter(|link| used.contains(&link.index));
    let facts = |Link { index, mac, name, .. }: &Link| {
        let (index, name) = (*index, Some(name.as_str()));
        // The kernel lists an interface's primary address first.
        let of = |ipv6: bool| {
            let mut own = snapshot.addresses.iter().filter(|a| a.ifindex == index && a.ip.is_ipv6() == ipv6);
            own.clone().find(|a| a.is_global()).or_else(|| own.next()).map(|a| a.ip)
        };
        let v4 = of(false).and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
        let v6 = of(true).and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
        let (marked, probes) = (name == own.marked, name == own.probes);
        let on_it = snapshot.links.values().filter(|l| l.up && l.lower == Some(index) && l.is_virtual_router());
        let virtual_macs = on_it.filter_map(|link| link.mac).collect();
        LinkFacts { mac: mac.unwrap_or_default(), virtual_macs, v4, v6, xdp: xdp.contains(&index), marked, probes }
    };
    used.map(|link| (link.index, facts(link))).collect()
}

/// This host's addresses, and of the virtual ones those that a local route delivers here and those that are managed:
/// they are about to be added, and the host itself must not answer for them in between.
pub fn local(snapshot: &Snapshot, virtual_addresses: &[(IpAddr, bool)]) -> BTreeSet<IpAddr> {
    let held = virtual_addresses.iter().filter(|(ip, managed)| *managed || snapshot.is_local(*ip)).map(|(ip, _)| *ip);
    snapshot.addresses.iter().map(|address| address.ip).chain(held).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_net::links::{Address, RouteEntry};

    #[test]
    fn a_virtual_address_behind_a_local_route_is_held() {
        let address = Address { ifindex: 1, ip: "10.0.0.1".parse().unwrap(), prefix: 24, scope: 0 };
        let route = RouteEntry {
            destination: ("192.0.2.0".parse().unwrap(), 24),
            table: 255,
            metric: 0,
            prefsrc: None,
            mtu: None,
            local: true,
            hops: Vec::new(),
        };
        let snapshot = Snapshot { addresses: vec![address], routes: vec![route], ..Snapshot::default() };
        let vips = [("192.0.2.10", false), ("192.0.3.10", false), ("192.0.4.10", true)];
        let vips = vips.map(|(ip, managed)| (ip.parse().unwrap(), managed));
        let local = local(&snapshot, &vips);
        assert_eq!(local.into_iter().collect::<Vec<_>>(), [address.ip, vips[0].0, vips[2].0]);
    }
}
