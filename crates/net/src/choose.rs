//! Which interfaces the packet path goes on when the configuration names none: those that lead to clients and to servers.
//! A pure function of what is there, with a reason for each.

use crate::links::{Link, RouteEntry, Snapshot, contains};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

const MAIN_TABLE: u32 = 254;

/// Why an interface was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The default route (of this family's unspecified address) leads over it.
    DefaultRoute(IpAddr),
    /// There is no default route, and it has this global address.
    HasAddress(IpAddr),
    /// The route to this server leads over it.
    Server(IpAddr),
}

/// Why an interface was not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// It is the loopback interface.
    Loopback,
    /// It is down.
    Down,
    /// It is a port of another device, which has the addresses.
    Port,
    /// Neither clients nor servers are known to be behind it.
    LeadsNowhere,
}

/// The choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The chosen interfaces, by number.
    pub chosen: BTreeMap<u32, Chosen>,
    /// The others: name and reason.
    pub left_out: Vec<(String, LeftOut)>,
    /// Servers that no route leads to.
    pub unreachable: Vec<IpAddr>,
}

/// A chosen interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// All reasons for it.
    pub reasons: Vec<Reason>,
}

/// Chooses. Servers that are this host's own addresses need no interface.
pub fn interfaces(snapshot: &Snapshot, servers: &[IpAddr]) -> Choice {
    let mut choice = Choice::default();
    let defaults = to_clients(snapshot);
    for (index, reason) in defaults {
        choice.add(snapshot, index, reason);
    }
    for server in servers.iter().filter(|server| !snapshot.is_local(**server)) {
        match best_route(snapshot, *server) {
            Some(route) => {
                route.hops.iter().for_each(|hop| choice.add(snapshot, hop.ifindex, Reason::Server(*server)));
            }
            None => choice.unreachable.push(*server),
        }
    }
    for link in snapshot.links.values().filter(|link| !choice.chosen.contains_key(&link.index)) {
        choice.left_out.push((link.name.clone(), why_not(link)));
    }
    choice
}

impl Choice {
    fn add(&mut self, snapshot: &Snapshot, index: u32, reason: Reason) {
        let Some(link) = snapshot.links.get(&index).filter(|link| !link.loopback) else { return };
        let chosen =
            self.chosen.entry(index).or_insert_with(|| Chosen { name: link.name.clone(), reasons: Vec::new() });
        if !chosen.reasons.contains(&reason) {
            chosen.reasons.push(reason);
        }
    }
}

/// The default routes' interfaces; without any, all that have a global address.
fn to_clients(snapshot: &Snapshot) -> Vec<(u32, Reason)> {
    let is_default = |route: &&RouteEntry| !route.local && route.table == MAIN_TABLE && route.destination.1 == 0;
    let routes = snapshot.routes.iter().filter(is_default);
    let found: Vec<_> = routes
        .flat_map(|route| route.hops.iter().map(|hop| (hop.ifindex, Reason::DefaultRoute(route.destination.0))))
        .collect();
    if !found.is_empty() {
        return found;
    }
    // What comes for a virtual router's device is seen on the interface below it.
    let up = |index: &u32| snapshot.links.get(index).is_some_and(|link| link.up && !link.is_virtual_router());
    let global = snapshot.addresses.iter().filter(|address| address.is_global() && up(&address.ifindex));
    global.map(|address| (address.ifindex, Reason::HasAddress(address.ip))).collect()
}

/// The main table's route: longest prefix, then lowest metric.
fn best_route(snapshot: &Snapshot, ip: IpAddr) -> Option<&RouteEntry> {
    let routes = snapshot.routes.iter().filter(|route| !route.local && route.table == MAIN_TABLE);
    routes
        .filter(|route| contains(route.destination, ip))
        .max_by_key(|route| (route.destination.1, std::cmp::Reverse(route.metric)))
}

fn why_not(link: &Link) -> LeftOut {
    match link {
        link if link.loopback => LeftOut::Loopback,
        link if !link.up => LeftOut::Down,
        link if link.master.is_some() => LeftOut::Port,
        _ => LeftOut::LeadsNowhere,
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::DefaultRoute(IpAddr::V4(_)) => write!(f, "the IPv4 default route leads to clients over it"),
            Reason::DefaultRoute(IpAddr::V6(_)) => write!(f, "the IPv6 default route leads to clients over it"),
            Reason::HasAddress(ip) => write!(f, "there is no default route, and it has the address {ip}"),
            Reason::Server(ip) => write!(f, "the route to server {ip} leads over it"),
        }
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeftOut::Loopback => "it is the loopback interface",
            LeftOut::Down => "it is down",
            LeftOut::Port => "it is a port of another device",
            LeftOut::LeadsNowhere => "no route to clients or servers leads over it",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::{Address, Hop};

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            mac: None,
            mtu: 1500,
            kind: None,
            up: true,
            running: true,
            loopback: name == "lo",
            master: None,
            lower: None,
            xdp: Vec::new(),
        }
    }

    fn route(network: &str, prefix: u8, metric: u32, ifindex: u32) -> RouteEntry {
        RouteEntry {
            destination: (network.parse().unwrap(), prefix),
            table: MAIN_TABLE,
            metric,
            prefsrc: None,
            mtu: None,
            local: false,
            hops: vec![Hop { ifindex, gateway: None }],
        }
    }

    fn snapshot() -> Snapshot {
        let address = |ifindex, ip: &str| Address { ifindex, ip: ip.parse().unwrap(), prefix: 24, scope: 0 };
        let mut snapshot = Snapshot {
            addresses: vec![address(2, "203.0.113.2"), address(3, "10.0.0.1"), address(1, "192.0.2.10")],
            routes: vec![route("0.0.0.0", 0, 0, 2), route("10.0.0.0", 24, 100, 4), route("10.0.0.0", 24, 0, 3)],
            ..Snapshot::default()
        };
        for (index, name) in [(1, "lo"), (2, "c0"), (3, "r0"), (4, "slow"), (5, "port")] {
            snapshot.links.insert(index, link(index, name));
        }
        snapshot.links.get_mut(&5).unwrap().master = Some(4);
        snapshot
    }

    fn names(choice: &Choice) -> Vec<&str> {
        choice.chosen.values().map(|chosen| chosen.name.as_str()).collect()
    }

    #[test]
    fn two_arms_are_the_default_route_and_the_best_route_to_servers() {
        let servers = ["10.0.0.2".parse().unwrap(), "192.0.2.10".parse().unwrap(), "fd00::2".parse().unwrap()];
        let choice = interfaces(&snapshot(), &servers);
        assert_eq!(names(&choice), ["c0", "r0"]);
        assert_eq!(choice.chosen[&3].reasons, [Reason::Server(servers[0])]);
        let reasons = [("lo", LeftOut::Loopback), ("slow", LeftOut::LeadsNowhere), ("port", LeftOut::Port)];
        assert_eq!(choice.left_out, reasons.map(|(name, why)| (name.to_string(), why)));
        assert_eq!(choice.unreachable, [servers[2]]);
    }

    #[test]
    fn one_arm_has_both_reasons() {
        let mut snapshot = snapshot();
        snapshot.routes = vec![route("0.0.0.0", 0, 0, 3), route("10.0.0.0", 24, 0, 3)];
        let choice = interfaces(&snapshot, &["10.0.0.2".parse().unwrap()]);
        assert_eq!(names(&choice), ["r0"]);
        assert_eq!(choice.chosen[&3].reasons.len(), 2);
    }

    #[test]
    fn without_a_default_route_all_addressed_links_lead_to_clients() {
        let mut snapshot = snapshot();
        snapshot.routes.remove(0);
        assert_eq!(names(&interfaces(&snapshot, &[])), ["c0", "r0"]);
    }
}
