//! Carries a topology out: namespaces, settings, wires, addresses, routes.

use super::spec::LabSpec;
use super::state::State;
use super::topology::{BRIDGE, Host, SWITCH, Topology, Wire};
use crate::error::{Error, Result, libc};
use crate::ethtool::{self, Offloads};
use crate::netns::Namespace;
use crate::nl::{Netlink, VethEnd};
use crate::sysctl;
use std::os::fd::AsFd;

/// Settings of every host, made before its interfaces exist so that they inherit them. Errors are not rationed, because
/// tests count them.
const EVERY_HOST: [(&str, &str); 12] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
];

/// Builds everything into the namespaces that `state` names.
pub(crate) fn build(spec: &LabSpec, state: &State) -> Result<()> {
    let topology = Topology::of(spec);
    for host in &topology.hosts {
        let namespace = Namespace::create(&state.namespace(&host.name)?)?;
        namespace.run(|| settings(host))??;
    }
    let switch = Namespace::open(&state.namespace(SWITCH)?)?;
    switch.run(|| Netlink::route()?.add_bridge(BRIDGE, topology.switch_mac, topology.switch_mtu))??;
    for wire in &topology.wires {
        lay(wire, state)?;
    }
    switch.run(|| plug_ports(&topology))??;
    for host in &topology.hosts {
        Namespace::open(&state.namespace(&host.name)?)?.run(|| configure(host, &topology, spec.offloads))??;
    }
    Ok(())
}

fn settings(host: &Host) -> Result<()> {
    for (name, value) in EVERY_HOST {
        sysctl::set_if_there(name, value)?;
    }
    if host.name == SWITCH {
        // A switch has no address of its own and must say nothing on its wires.
        sysctl::set_if_there("net/ipv6/conf/default/disable_ipv6", "1")?;
    }
    if host.forwards {
        sysctl::set("net/ipv4/ip_forward", "1")?;
        sysctl::set_if_there("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn lay(wire: &Wire, state: &State) -> Result<()> {
    let [one, other] = &wire.ends;
    let here = Namespace::open(&state.namespace(&one.host)?)?;
    let there = Namespace::open(&state.namespace(&other.host)?)?.file()?;
    here.run(|| {
        let end = |name, mac, namespace| VethEnd { name, mac: Some(mac), mtu: Some(wire.mtu), namespace };
        Netlink::route()?
            .add_veth(&end(&one.interface, one.mac, None), &end(&other.interface, other.mac, Some(there.as_fd())))
    })?
}

fn plug_ports(topology: &Topology) -> Result<()> {
    let mut netlink = Netlink::route()?;
    for port in ends_of(SWITCH, topology) {
        netlink.set_master(port, BRIDGE)?;
    }
    netlink.set_up(BRIDGE, true)
}

fn configure(host: &Host, topology: &Topology, offloads: bool) -> Result<()> {
    let mut netlink = Netlink::route()?;
    for interface in ends_of(&host.name, topology) {
        if !offloads {
            ethtool::set_offloads(interface, Offloads::OFF)?;
        }
        netlink.set_up(interface, true)?;
    }
    for (interface, ip, prefix) in &host.addresses {
        if !netlink.add_address(interface, *ip, *prefix)? {
            return Err(Error::refused(format!("{ip} is on {interface} twice"), "please report this"));
        }
    }
    host.routes.iter().try_for_each(|route| netlink.replace_route(route))
}

/// Sets an interface down, or up with what the kernel took away while it was down, as a network manager would.
pub(crate) fn set_link(spec: &LabSpec, name: &str, interface: &str, up: bool) -> Result<()> {
    let mut netlink = Netlink::route()?;
    netlink.set_up(interface, up)?;
    let topology = Topology::of(spec);
    let Some(host) = topology.hosts.iter().find(|host| up && host.name == name) else { return Ok(()) };
    for (_, ip, prefix) in host.addresses.iter().filter(|(on, ..)| *on == interface) {
        netlink.add_address(interface, *ip, *prefix)?;
    }
    for route in &host.routes {
        match netlink.replace_route(route) {
            // Its link is another one, and down.
            Err(error) if matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => {}
            other => other?,
        }
    }
    Ok(())
}

fn ends_of<'a>(host: &'a str, topology: &'a Topology) -> impl Iterator<Item = &'a str> {
    let ends = topology.wires.iter().flat_map(|wire| &wire.ends);
    ends.filter(move |end| end.host == host).map(|end| end.interface.as_str())
}
