//! The single changes: what is, what shall be, why, and the way back.

use crate::failure::{Failure, Result};
use dirigent_datapath::kernel::{Endpoint, Hook, Instance, TcKind, attached, detach_all, has_tcx};
use dirigent_net::links::{Neighbour, RouteEntry};
use dirigent_net::{Link, Mac, Netlink, RouteSpec, Snapshot, SourceRule, mac_text, receive, sysctl, vip};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Change {
    /// A virtual address on `lo`.
    Address {
        /// The address.
        address: IpAddr,
    },
    /// A kernel parameter.
    Sysctl {
        /// Its name, with slashes.
        name: String,
        /// What it shall be.
        value: String,
        /// What it was, once it was changed.
        before: Option<String>,
        /// Why.
        why: String,
        /// What is in force is as good already, by this parameter or another.
        #[serde(skip)]
        right: bool,
    },
    /// A default route in a table of its own.
    Route {
        /// The next router.
        gateway: IpAddr,
        /// The interface that leads there.
        interface: String,
        /// The table.
        table: u32,
    },
    /// What comes from a virtual address is routed by that table.
    Rule {
        /// The address.
        address: IpAddr,
        /// The table.
        table: u32,
    },
    /// An entry of the neighbour table that was set by hand goes.
    Neighbour {
        /// On which interface.
        interface: String,
        /// Whose.
        address: IpAddr,
        /// What it says.
        mac: Mac,
        /// Why.
        why: String,
    },
    /// To which CPUs the packets of a receive queue are handed (RPS).
    Steering {
        /// Of which interface.
        interface: String,
        /// The queue, like `rx-0`.
        queue: String,
        /// A mask in hexadecimal.
        cpus: String,
        /// What it was, once it was changed.
        before: Option<String>,
        /// Why.
        why: String,
    },
    /// The programs of the server's end of tunnels.
    Programs {
        /// On which interface.
        interface: String,
        /// The instance that holds their pins.
        instance: String,
        /// What they do.
        terms: Tunnels,
        /// The interface had a place for classic filters before, which kernels before tcx need.
        clsact_before: Option<bool>,
    },
}

/// What the programs are to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnels {
    /// `ipip`, `gre` or `gue`.
    pub tunnels: Vec<String>,
    /// GUE: UDP port.
    pub port: u16,
    /// Virtual addresses.
    pub vips: Vec<IpAddr>,
    /// From whom packets are taken; empty: from everybody.
    pub directors: Vec<IpAddr>,
    /// Largest segment offered to IPv4 and to IPv6 clients.
    pub mss: (u16, u16),
    /// The interface's MAC.
    pub mac: [u8; 6],
}

/// The kinds of tunnels: name and number of `dirigent_director::records::tunnel`.
const TUNNELS: [(&str, u32); 3] = [("ipip", 1), ("gre", 2), ("gue", 3)];

impl Tunnels {
    fn endpoint(&self) -> Endpoint {
        let bit = |name: &String| TUNNELS.iter().find(|(n, _)| n == name).map_or(0, |(_, kind)| 1 << kind);
        let (mss4, mss6) = self.mss;
        Endpoint {
            kinds: self.tunnels.iter().map(bit).fold(0, |all, bit| all | bit),
            port: self.port,
            mac: self.mac,
            mss4,
            mss6,
            vips: self.vips.clone(),
            directors: self.directors.clone(),
        }
    }
}

impl Change {
    /// What will be done, in a line, and why.
    pub fn describe(&self) -> (String, String) {
        match self {
            Self::Address { address } => (
                format!("address {address}/{} on lo", if address.is_ipv4() { 32 } else { 128 }),
                "packets to it come here unchanged; on lo nobody is told that it is here".into(),
            ),
            Self::Sysctl { name, value, why, right, .. } => {
                let now = sysctl::get(name).unwrap_or_else(|_| "absent".into());
                let change = if *right { format!("{now}, which is in order") } else { format!("{now} → {value}") };
                (format!("{} {change}", name.replace('/', ".")), why.clone())
            }
            Self::Route { gateway, interface, table } => (
                format!("default route via {gateway} on {interface} in table {table}"),
                "answers from the virtual address leave by it; this host's other packets do not".into(),
            ),
            Self::Rule { address, table } => (
                format!("rule: from {address} lookup table {table}"),
                "answers from the virtual address leave by that table's route".into(),
            ),
            Self::Neighbour { interface, address, mac, why } => {
                (format!("remove the entry {address} dev {interface} lladdr {} PERMANENT", mac_text(*mac)), why.clone())
            }
            Self::Steering { interface, queue, cpus, before, why } => {
                let now = || receive::steered(interface, queue).unwrap_or_else(|_| "absent".into());
                let was = before.clone().unwrap_or_else(now);
                (format!("rps_cpus of {interface}'s queue {queue} {was} → {cpus}"), why.clone())
            }
            Self::Programs { interface, terms, .. } => {
                let from = match terms.directors.as_slice() {
                    [] => "anybody (--director ADDR narrows it)".to_owned(),
                    some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                };
                let port = if terms.tunnels.iter().any(|t| t == "gue") {
                    format!(" (UDP port {})", terms.port)
                } else {
                    String::new()
                };
                let (mss4, mss6) = terms.mss;
                (
                    format!(
                        "{interface}: tc programs that take packets out of {}{port} from {from}",
                        terms.tunnels.join(", ")
                    ),
                    format!(
                        "no tunnel device is needed; answers offer segments of at most {mss4} (IPv4) and {mss6} (IPv6) bytes"
                    ),
                )
            }
        }
    }

    /// Whether it is so already.
    pub fn is_done(&self, network: &Snapshot) -> Result<bool> {
        Ok(match self {
            Self::Address { address } => vip::holder(network, *address) == Some("lo"),
            Self::Sysctl { right, .. } => *right,
            Self::Route { gateway, interface, table } => {
                let index = network.link_named(interface).map(|link| link.index);
                let via = |hop: &dirigent_net::links::Hop| Some(hop.ifindex) == index && hop.gateway == Some(*gateway);
                default_routes(network, *table, *gateway).any(|route| route.hops.iter().any(via))
            }
            Self::Rule { address, table } => {
                let rules = Netlink::route()?.source_rules()?;
                rules.iter().any(|rule| (rule.from, rule.table) == (*address, *table))
            }
            Self::Neighbour { interface, address, .. } => by_hand(network, interface, *address).is_none(),
            Self::Steering { interface, queue, cpus, .. } => {
                receive::steered(interface, queue).is_ok_and(|now| now == *cpus)
            }
            Self::Programs { interface, instance, terms, .. } => {
                let instance = Instance::new(instance)?;
                let index = network.link_named(interface).map(|link| link.index);
                let there = attached(&instance)?.iter().filter(|a| a.alive && Some(a.ifindex) == index).count();
                there == 2 && terms.endpoint().in_force(&instance)?
            }
        })
    }

    /// Whether both change the same thing.
    pub fn same_thing(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address { address: a }, Self::Address { address: b }) => a == b,
            (Self::Sysctl { name: a, .. }, Self::Sysctl { name: b, .. }) => a == b,
            (Self::Programs { instance: a, .. }, Self::Programs { instance: b, .. }) => a == b,
            (Self::Neighbour { interface, address, .. }, Self::Neighbour { interface: other, address: of, .. }) => {
                (interface, address) == (other, of)
            }
            (Self::Steering { interface, queue, .. }, Self::Steering { interface: other, queue: of, .. }) => {
                (interface, queue) == (other, of)
            }
            (Self::Route { .. }, Self::Route { .. }) | (Self::Rule { .. }, Self::Rule { .. }) => self == other,
            _ => false,
        }
    }

    /// What it was, to be noted before it is changed. `earlier`: the record of the same thing, if it was changed before.
    pub fn note(&mut self, earlier: Option<&Self>) -> Result<()> {
        match self {
            Self::Sysctl { name, before, .. } => *before = sysctl::get(name).ok(),
            Self::Steering { interface, queue, before, .. } => *before = receive::steered(interface, queue).ok(),
            Self::Programs { interface, clsact_before, .. } => {
                *clsact_before = match earlier {
                    Some(Self::Programs { clsact_before, .. }) => *clsact_before,
                    _ => {
                        let mut netlink = Netlink::route()?;
                        let index = netlink.index_of(interface)?;
                        Some(netlink.has_clsact(index)?)
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Does it.
    pub fn apply(&self) -> Result<()> {
        match self {
            Self::Address { address } => _ = vip::add(*address)?,
            Self::Sysctl { name, value, .. } => sysctl::set(name, value)?,
            Self::Route { gateway, interface, table } => {
                let mut netlink = Netlink::route()?;
                let index = netlink.index_of(interface)?;
                if !netlink.add_route(&own_route(*gateway, index, *table))? {
                    let what = format!("somebody has just given table {table} a default route");
                    return Err(Failure::new("", what, "look at it with `ip route show table all`, and try again"));
                }
            }
            Self::Rule { address, table } => _ = Netlink::route()?.add_rule(&own_rule(*address, *table))?,
            Self::Neighbour { interface, address, .. } => {
                let mut netlink = Netlink::route()?;
                let index = netlink.index_of(interface)?;
                netlink.delete_neighbour(index, *address)?;
            }
            Self::Steering { interface, queue, cpus, .. } => receive::steer(interface, queue, cpus)?,
            Self::Programs { interface, instance, terms, .. } => {
                terms.endpoint().attach(&Instance::new(instance)?, interface, TcKind::Auto)?;
            }
        }
        Ok(())
    }

    /// Takes it back; says what was done, or why not.
    pub fn undo(&self) -> Result<String> {
        Ok(match self {
            Self::Address { address } => match vip::remove(*address)? {
                true => format!("removed {address} from lo"),
                false => format!("{address} was not on lo any more"),
            },
            Self::Sysctl { name, value, before, .. } => {
                let dotted = name.replace('/', ".");
                match (sysctl::get(name), before) {
                    (Ok(now), Some(before)) if now == *value => {
                        sysctl::set(name, before)?;
                        format!("{dotted} {now} → {before}")
                    }
                    (Ok(now), _) => format!("{dotted} is {now}, not {value} any more: left as it is"),
                    (Err(_), _) => format!("{dotted} is gone"),
                }
            }
            Self::Route { gateway, interface, table } => {
                let mut netlink = Netlink::route()?;
                let index = Snapshot::read(&mut netlink)?.link_named(interface).map(|link| link.index);
                let removed = match index {
                    Some(index) => netlink.delete_route(&own_route(*gateway, index, *table))?,
                    None => false,
                };
                let route = format!("the default route via {gateway} in table {table}");
                if removed { format!("removed {route}") } else { format!("{route} was not there any more") }
            }
            Self::Rule { address, table } => match Netlink::route()?.delete_rule(&own_rule(*address, *table))? {
                true => format!("removed the rule from {address} lookup {table}"),
                false => format!("the rule from {address} lookup {table} was not there any more"),
            },
            Self::Neighbour { interface, address, mac, .. } => {
                let (network, entry) =
                    (Snapshot::take()?, format!("{address} dev {interface} lladdr {}", mac_text(*mac)));
                match (network.link_named(interface), by_hand(&network, interface, *address)) {
                    (Some(link), None) => {
                        Netlink::route()?.set_neighbour(link.index, *address, *mac)?;
                        format!("set the entry {entry} PERMANENT")
                    }
                    (Some(_), Some(_)) => format!("{address} dev {interface} was set by hand since: left as it is"),
                    (None, _) => format!("{interface} is gone, and the entry {entry} with it"),
                }
            }
            Self::Steering { interface, queue, cpus, before, .. } => {
                let what = format!("rps_cpus of {interface}'s queue {queue}");
                match (receive::steered(interface, queue), before) {
                    (Ok(now), Some(before)) if now == *cpus => {
                        receive::steer(interface, queue, before)?;
                        format!("{what} {now} → {before}")
                    }
                    (Ok(now), _) => format!("{what} is {now}, not {cpus} any more: left as it is"),
                    (Err(_), _) => format!("{what} is gone"),
                }
            }
            Self::Programs { interface, instance, clsact_before, .. } => {
                let gone = detach_all(&Instance::new(instance)?)?;
                let classic = |hook| matches!(hook, Hook::ClassicIngress | Hook::ClassicEgress);
                let made = *clsact_before == Some(false) && (!has_tcx() || gone.iter().any(|one| classic(one.hook)));
                if made && let Some(link) = Snapshot::take()?.link_named(interface) {
                    Netlink::route()?.delete_empty_clsact(link.index)?;
                }
                match gone.len() {
                    0 => format!("the programs were not on {interface} any more"),
                    _ => format!("took the programs off {interface}"),
                }
            }
        })
    }
}

/// The entry of the neighbour table for an address, if somebody set it by hand.
fn by_hand<'s>(network: &'s Snapshot, interface: &str, address: IpAddr) -> Option<&'s Neighbour> {
    let index = network.link_named(interface)?.index;
    network.neighbour(index, address).filter(|entry| entry.permanent)
}

/// The number of the main table.
const MAIN: u32 = 254;
/// When our rules are asked: after those that people number by hand, before the main table.
const PRIORITY: u32 = 20_000;

fn own_rule(from: IpAddr, table: u32) -> SourceRule {
    SourceRule { from, table, priority: PRIORITY }
}

fn own_route(gateway: IpAddr, index: u32, table: u32) -> RouteSpec {
    RouteSpec { ifindex: Some(index), table: Some(table), ..RouteSpec::default_via(gateway) }
}

/// The default routes that a table has in the family of an address.
fn default_routes(network: &Snapshot, table: u32, like: IpAddr) -> impl Iterator<Item = &RouteEntry> {
    let of = move |route: &&RouteEntry| {
        let (network, prefix) = route.destination;
        route.table == table && prefix == 0 && !route.local && network.is_ipv4() == like.is_ipv4()
    };
    network.routes.iter().filter(of)
}

/// What has answers from the virtual addresses of a gateway's family leave by it: the route, then the rules.
/// `link`: where clients' packets come by, and so where a link-local gateway is.
pub fn source_route(
    network: &Snapshot,
    link: &Link,
    gateway: IpAddr,
    table: u32,
    vips: &[IpAddr],
) -> Result<Vec<Change>> {
    let vips: Vec<_> = vips.iter().filter(|vip| vip.is_ipv4() == gateway.is_ipv4()).collect();
    if vips.is_empty() {
        let remedy = "leave it out, or name a virtual address of its family with --vip";
        return Err(Failure::new(gateway.to_string(), "no virtual address has this gateway's family", remedy));
    }
    let place = gateway.to_string();
    let on_link = Netlink::route()?.route_to(gateway)?.filter(|route| route.gateway.is_none() && !route.local);
    let link_local = matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let found = on_link.and_then(|route| if link_local { Some(link) } else { network.links.get(&route.ifindex) });
    let link = found.ok_or_else(|| {
        let what = "this gateway is on none of this host's links";
        Failure::new(&place, what, "name the address that the next router has on a link of this host")
    })?;
    let route = Change::Route { gateway, interface: link.name.clone(), table };
    if default_routes(network, table, gateway).next().is_some() && !route.is_done(network)? {
        let what = format!("table {table} has another default route already");
        return Err(Failure::new(place, what, "choose a free one: --table N"));
    }
    let rules = vips.into_iter().map(|vip| Change::Rule { address: *vip, table });
    Ok(std::iter::once(route).chain(rules).collect())
}

/// The largest segments that fit: IPv4, IPv6.
pub fn segments(mtu: u32, overhead: u32) -> (u16, u16) {
    let room = |headers: u32| u16::try_from(mtu.saturating_sub(overhead + headers)).unwrap_or(u16::MAX).max(536);
    (room(40), room(60))
}

/// The interface that is meant, or that leads to the director or the default gateway.
pub fn interface(network: &Snapshot, named: Option<&str>) -> Result<Link> {
    let found = match named {
        Some(name) => network.link_named(name),
        None => {
            let mut default =
                network.routes.iter().filter(|route| route.destination.1 == 0 && !route.local && route.table == MAIN);
            default.find_map(|route| network.links.get(&route.hops.first()?.ifindex))
        }
    };
    found.cloned().ok_or_else(|| match named {
        Some(name) => Failure::new(name, "no such interface", "ip -br link lists them"),
        None => Failure::new("", "no default route says by which interface packets come", "name it: --interface DEV"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_fit_the_tunnel() {
        assert_eq!(segments(1500, 20), (1440, 1420));
        assert_eq!(segments(1500, 52), (1408, 1388));
        assert_eq!(segments(500, 52), (536, 536), "RFC 9293 §3.7.1: never below the default");
    }
}
