//! The lab as data: hosts, wires, addresses and routes. Pure; [`super::build`] carries it out.
//!
//! ```text
//! two arms:  client ── router ── c0 director r0 ── switch ── server1, server2, …
//!                        └───────────────────────────┘   (router's second leg, unused by default)
//! one arm:   client ── router ── switch ── director eth0, server1, server2, …
//! ```

use super::spec::{self, LabSpec, Mode, Pair};
use crate::links::Mac;
use crate::nl::RouteSpec;
use std::net::IpAddr;

/// The bridge in the switch's namespace.
pub(crate) const BRIDGE: &str = "br0";

/// A host of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) forwards: bool,
    /// Interface, address, prefix length.
    pub(crate) addresses: Vec<(&'static str, IpAddr, u8)>,
    pub(crate) routes: Vec<RouteSpec>,
}

/// One end of a wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) host: String,
    pub(crate) interface: String,
    pub(crate) mac: Mac,
}

/// A veth pair between two hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) ends: [End; 2],
    pub(crate) mtu: u32,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) hosts: Vec<Host>,
    pub(crate) wires: Vec<Wire>,
    pub(crate) switch_mac: Mac,
    pub(crate) switch_mtu: u32,
}

/// The name of the host that is the servers' switch.
pub(crate) const SWITCH: &str = "switch";

impl Topology {
    /// What `spec` asks for.
    pub(crate) fn of(spec: &LabSpec) -> Self {
        let mut topology = Topology {
            hosts: vec![client(), router(spec), director(spec), Host::new(SWITCH, false)],
            wires: vec![Wire::new(end("client", "eth0", 0, 7), end("router", "client0", 1, 1), spec.client_mtu)],
            switch_mac: mac(4, 0),
            switch_mtu: spec.server_mtu,
        };
        if !spec.one_arm {
            let outside = Wire::new(end("router", "outside0", 1, 2), end("director", "c0", 2, 1), spec.outside_mtu);
            topology.wires.push(outside);
        }
        let inside = spec.director_interfaces().1;
        topology.plug("router", end("router", "servers0", 1, 3), 254, spec);
        topology.plug("director", end("director", inside, 2, 2), 253, spec);
        for k in 1..=spec.servers {
            let name = format!("server{k}");
            topology.hosts.push(server(&name, k, spec.mode));
            topology.plug(&name, end(&name, "eth0", 3, k), k, spec);
        }
        topology
    }

    /// Connects `host_end` to the switch's port named after its host.
    fn plug(&mut self, port: &str, host_end: End, number: u8, spec: &LabSpec) {
        self.wires.push(Wire::new(host_end, end(SWITCH, port, 4, number), spec.server_mtu));
    }
}

impl Host {
    fn new(name: &str, forwards: bool) -> Self {
        Host { name: name.to_string(), forwards, addresses: Vec::new(), routes: Vec::new() }
    }

    fn address(mut self, interface: &'static str, pair: Pair) -> Self {
        self.addresses.extend(pair.both().map(|(ip, prefix)| (interface, ip, prefix)));
        self
    }

    fn default_route(mut self, gateway: Pair) -> Self {
        self.routes.extend(gateway.both().map(|(ip, _)| RouteSpec::default_via(ip)));
        self
    }

    fn route(mut self, network: Pair, gateway: Pair) -> Self {
        let pairs = network.both().into_iter().zip(gateway.both());
        self.routes.extend(pairs.map(|((ip, prefix), (via, _))| RouteSpec::to(ip, prefix).via(via)));
        self
    }
}

impl Wire {
    fn new(one: End, other: End, mtu: u32) -> Self {
        Wire { ends: [one, other], mtu }
    }
}

fn client() -> Host {
    Host::new("client", false).address("eth0", spec::CLIENT).default_route(spec::ROUTER_CLIENTS)
}

fn router(spec: &LabSpec) -> Host {
    let router = Host::new("router", true).address("client0", spec::ROUTER_CLIENTS);
    if spec.one_arm {
        return router.address("servers0", spec::ROUTER_INSIDE).route(spec::VIP_NETWORK, spec::DIRECTOR_INSIDE);
    }
    // The leg on the servers' switch has a host's prefix length: the router itself reaches the servers through the
    // director, so that traffic is symmetric until a server is told to answer around the director.
    router
        .address("outside0", spec::ROUTER_OUTSIDE)
        .address("servers0", spec::ROUTER_INSIDE.host())
        .route(spec::VIP_NETWORK, spec::DIRECTOR_OUTSIDE)
        .route(spec::SERVER_NETWORK, spec::DIRECTOR_OUTSIDE)
}

fn director(spec: &LabSpec) -> Host {
    let inside = spec.director_interfaces().1;
    let mut director = Host::new("director", true).address(inside, spec::DIRECTOR_INSIDE);
    if spec.hold_vip {
        director = director.address("lo", spec::VIP);
    }
    if spec.one_arm {
        return director.default_route(spec::ROUTER_INSIDE);
    }
    director.address("c0", spec::DIRECTOR_OUTSIDE).default_route(spec::ROUTER_OUTSIDE)
}

fn server(name: &str, k: u8, mode: Mode) -> Host {
    let gateway = match mode {
        Mode::Nat => spec::DIRECTOR_INSIDE,
        Mode::Dr | Mode::Tun => spec::ROUTER_INSIDE,
    };
    Host::new(name, false).address("eth0", spec::server(k)).default_route(gateway)
}

fn end(host: &str, interface: &str, group: u8, number: u8) -> End {
    End { host: host.to_string(), interface: interface.to_string(), mac: mac(group, number) }
}

/// Locally administered, and the same in every lab: 0 client, 1 router, 2 director, 3 servers, 4 the switch's ports.
fn mac(group: u8, number: u8) -> Mac {
    [0x02, 0, 0, 0, group, number]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn specs() -> [LabSpec; 2] {
        let two = LabSpec { servers: 250, ..LabSpec::default() };
        [LabSpec { one_arm: true, ..two.clone() }, two]
    }

    #[test]
    fn addresses_and_hardware_addresses_are_unique_and_names_fit() {
        for topology in specs().map(|spec| Topology::of(&spec)) {
            let mut macs = HashSet::from([topology.switch_mac]);
            for end in topology.wires.iter().flat_map(|wire| &wire.ends) {
                assert!(macs.insert(end.mac), "{end:?}");
                assert!(end.interface.len() < 16, "{end:?}");
                assert!(topology.hosts.iter().any(|host| host.name == end.host), "{end:?}");
            }
            let mut ips = HashSet::new();
            for (_, ip, _) in topology.hosts.iter().flat_map(|host| &host.addresses) {
                assert!(ips.insert(*ip), "{ip}");
            }
        }
    }

    #[test]
    fn every_address_is_on_an_interface_that_the_host_has() {
        for topology in specs().map(|spec| Topology::of(&spec)) {
            let ends: Vec<_> = topology.wires.iter().flat_map(|wire| &wire.ends).collect();
            for host in &topology.hosts {
                for (interface, ..) in &host.addresses {
                    let there = *interface == "lo"
                        || ends.iter().any(|end| end.host == host.name && end.interface == *interface);
                    assert!(there, "{interface} of {}", host.name);
                }
            }
        }
    }
}
