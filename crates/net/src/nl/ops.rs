//! What can be changed: links, addresses, routes. Each call does one thing and names it in its error.

use super::codec::{Message, read_u32};
use super::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, Netlink, absent};
use crate::error::{Error, Result, libc};
use crate::links::{Mac, mac_text};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_NODAD: u32 = 0x02;
const FOR_EVER: u32 = u32::MAX;
const IFLA_LINK: u16 = 5;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_VEPA: u32 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

const CHANGE: u16 = NLM_F_REQUEST | NLM_F_ACK;
const ADD: u16 = CHANGE | NLM_F_CREATE | NLM_F_EXCL;

/// One end of a veth pair.
#[derive(Debug, Clone)]
pub struct VethEnd<'a> {
    /// The interface's name.
    pub name: &'a str,
    /// Its hardware address; `None` lets the kernel choose.
    pub mac: Option<Mac>,
    /// Its MTU; `None` is the kernel's 1500.
    pub mtu: Option<u32>,
    /// The namespace it is born in; `None` is that of the socket.
    pub namespace: Option<BorrowedFd<'a>>,
}

/// What an address may have beside itself, as `ip address add` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct AddressOptions {
    /// IPv4: its label.
    pub label: Option<String>,
    /// Its scope: 0 global, 253 link, 254 host.
    pub scope: u8,
    /// IPv4: the broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// The other end, whose network the prefix is.
    pub peer: Option<IpAddr>,
    /// Seconds that it is preferred for; `None`: for ever. It is valid for ever.
    pub preferred: Option<u32>,
    /// Bits of IFA_FLAGS.
    pub flags: u32,
    /// Metric of the route to its network.
    pub metric: Option<u32>,
}

/// A route to add or remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// Destination and prefix length; 0 is the default route.
    pub destination: (IpAddr, u8),
    /// The next router; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The interface's index; needed where there is no gateway, or its link is ambiguous.
    pub ifindex: Option<u32>,
    /// The metric (priority); lower wins.
    pub metric: Option<u32>,
    /// The route's MTU.
    pub mtu: Option<u32>,
    /// The table; `None` is the main one.
    pub table: Option<u32>,
}

impl RouteSpec {
    /// The default route of the gateway's family.
    pub fn default_via(gateway: IpAddr) -> Self {
        RouteSpec { gateway: Some(gateway), ..Self::to(unspecified(gateway), 0) }
    }

    /// A route to a network, to be completed by the caller.
    pub fn to(network: IpAddr, prefix: u8) -> Self {
        RouteSpec { destination: (network, prefix), gateway: None, ifindex: None, metric: None, mtu: None, table: None }
    }

    /// The same by a gateway.
    pub fn via(self, gateway: IpAddr) -> Self {
        RouteSpec { gateway: Some(gateway), ..self }
    }
}

impl std::fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "route {}/{}", self.destination.0, self.destination.1)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(table) = self.table {
            write!(f, " in table {table}")?;
        }
        Ok(())
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

pub(crate) fn family_of(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

/// `struct ifinfomsg`.
pub(crate) fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    for (slot, value) in header.chunks_exact_mut(4).skip(1).zip([index, flags, change]) {
        slot.copy_from_slice(&value.to_ne_bytes());
    }
    header
}

impl Netlink {
    /// The index of a named interface.
    pub fn index_of(&mut self, name: &str) -> Result<u32> {
        let message = Message::new(libc::RTM_GETLINK, CHANGE, &link_header(0, 0, 0)).attr_str(IFLA_IFNAME, name);
        let place = || format!("looking for interface {name}");
        let replies = self.request(message, &place)?;
        replies
            .iter()
            .find_map(|reply| read_u32(&reply.body, 4))
            .ok_or_else(|| Error::malformed(place(), "no link in it"))
    }

    /// Creates a veth pair.
    pub fn add_veth(&mut self, one: &VethEnd<'_>, other: &VethEnd<'_>) -> Result<()> {
        let message = veth_end(Message::new(libc::RTM_NEWLINK, ADD, &link_header(0, 0, 0)), one).nest(
            IFLA_LINKINFO,
            &[],
            |info| {
                info.attr_str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, &[], |data| {
                    data.nest(VETH_INFO_PEER, &link_header(0, 0, 0), |peer| veth_end(peer, other))
                })
            },
        );
        self.ask(message, &|| format!("creating the veth pair {} and {}", one.name, other.name))
    }

    /// Creates a bridge (spanning tree off).
    pub fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<()> {
        let message = Message::new(libc::RTM_NEWLINK, ADD, &link_header(0, 0, 0))
            .attr_str(IFLA_IFNAME, name)
            .attr(IFLA_ADDRESS, &mac)
            .attr_u32(IFLA_MTU, mtu)
            .nest(IFLA_LINKINFO, &[], |info| info.attr_str(IFLA_INFO_KIND, "bridge"));
        self.ask(message, &|| format!("creating the bridge {name}"))
    }

    /// Creates a device with a MAC of its own on another one. In the mode "vepa" it leaves to that what comes from its own
    /// MAC, as another host's adverts do that has the same.
    pub fn add_macvlan(&mut self, name: &str, on: u32, mac: Mac, alias: &str, group: u32) -> Result<()> {
        let message = Message::new(libc::RTM_NEWLINK, ADD, &link_header(0, 0, 0))
            .attr_str(IFLA_IFNAME, name)
            .attr(IFLA_ADDRESS, &mac)
            .attr_u32(IFLA_LINK, on)
            .attr_u32(IFLA_GROUP, group)
            .nest(IFLA_LINKINFO, &[], |info| {
                info.attr_str(IFLA_INFO_KIND, "macvlan")
                    .nest(IFLA_INFO_DATA, &[], |data| data.attr_u32(IFLA_MACVLAN_MODE, MACVLAN_MODE_VEPA))
            });
        self.ask(message, &|| format!("creating the device {name} with MAC {}", mac_text(mac)))?;
        // Not taken with the creation.
        self.set_link(name, |m| m.attr_str(IFLA_IFALIAS, alias), &|| format!("giving {name} an alias"))
    }

    /// Deletes an interface; false when there is none of that name.
    pub fn delete_link(&mut self, name: &str) -> Result<bool> {
        let message = Message::new(libc::RTM_DELLINK, CHANGE, &link_header(0, 0, 0)).attr_str(IFLA_IFNAME, name);
        let deleted = self.ask(message, &|| format!("deleting interface {name}"));
        Ok(absent(deleted)?.is_some())
    }

    /// Sets an interface up or down.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<()> {
        let index = self.index_of(name)?;
        let flag = libc::IFF_UP as u32;
        let header = link_header(index, if up { flag } else { 0 }, flag);
        let word = if up { "up" } else { "down" };
        self.ask(Message::new(libc::RTM_NEWLINK, CHANGE, &header), &|| format!("setting interface {name} {word}"))
    }

    /// Says that a device, which must be down, has no neighbours: frames out of it are for its own hardware address.
    pub fn set_no_arp(&mut self, name: &str) -> Result<()> {
        let index = self.index_of(name)?;
        let flag = libc::IFF_NOARP as u32;
        let message = Message::new(libc::RTM_NEWLINK, CHANGE, &link_header(index, flag, flag));
        self.ask(message, &|| format!("taking ARP off interface {name}"))
    }

    /// Makes `name` a port of the bridge `master`.
    pub fn set_master(&mut self, name: &str, master: &str) -> Result<()> {
        let master_index = self.index_of(master)?;
        self.set_link(name, |m| m.attr_u32(IFLA_MASTER, master_index), &|| format!("making {name} a port of {master}"))
    }

    /// Changes the hardware address.
    pub fn set_mac(&mut self, name: &str, mac: Mac) -> Result<()> {
        self.set_link(name, |m| m.attr(IFLA_ADDRESS, &mac), &|| {
            format!("changing the hardware address of {name} to {}", mac_text(mac))
        })
    }

    /// Changes the MTU.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<()> {
        self.set_link(name, |m| m.attr_u32(IFLA_MTU, mtu), &|| format!("changing the MTU of {name} to {mtu}"))
    }

    /// Renames an interface.
    pub fn rename(&mut self, name: &str, new: &str) -> Result<()> {
        self.set_link(name, |m| m.attr_str(IFLA_IFNAME, new), &|| format!("renaming interface {name} to {new}"))
    }

    fn set_link(
        &mut self,
        name: &str,
        fill: impl FnOnce(Message) -> Message,
        place: &dyn Fn() -> String,
    ) -> Result<()> {
        let index = self.index_of(name)?;
        self.ask(fill(Message::new(libc::RTM_NEWLINK, CHANGE, &link_header(index, 0, 0))), place)
    }

    /// Adds an address, usable at once (no duplicate address detection). False when it was there already.
    pub fn add_address(&mut self, name: &str, ip: IpAddr, prefix: u8) -> Result<bool> {
        self.add_address_with(name, ip, prefix, &AddressOptions::default())
    }

    /// The same with all that it may have.
    pub fn add_address_with(&mut self, name: &str, ip: IpAddr, prefix: u8, options: &AddressOptions) -> Result<bool> {
        let place = || format!("adding {ip}/{prefix} to {name}");
        let message = self.address(libc::RTM_NEWADDR, ADD, name, ip, prefix, options)?;
        match self.ask(message, &place) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Removes an address. False when it was not there.
    pub fn delete_address(&mut self, name: &str, ip: IpAddr, prefix: u8) -> Result<bool> {
        self.delete_address_with(name, ip, prefix, &AddressOptions::default())
    }

    /// The same of one that was added with these.
    pub fn delete_address_with(
        &mut self,
        name: &str,
        ip: IpAddr,
        prefix: u8,
        options: &AddressOptions,
    ) -> Result<bool> {
        // The kernel compares no more than the other end.
        let options = AddressOptions { peer: options.peer, ..AddressOptions::default() };
        let message = self.address(libc::RTM_DELADDR, CHANGE, name, ip, prefix, &options)?;
        let deleted = self.ask(message, &|| format!("removing {ip}/{prefix} from {name}"));
        Ok(absent(deleted)?.is_some())
    }

    fn address(
        &mut self,
        kind: u16,
        flags: u16,
        name: &str,
        ip: IpAddr,
        prefix: u8,
        options: &AddressOptions,
    ) -> Result<Message> {
        let index = self.index_of(name)?;
        let AddressOptions { label, scope, broadcast, peer, preferred, flags: own, metric } = options;
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        let mut header = [family_of(ip), prefix, 0, *scope, 0, 0, 0, 0];
        if let Some(field) = header.get_mut(4..) {
            field.copy_from_slice(&index.to_ne_bytes());
        }
        let mut message = Message::new(kind, flags, &header)
            .attr_ip(IFA_LOCAL, ip)
            .attr_ip(IFA_ADDRESS, peer.unwrap_or(ip))
            .attr_u32(IFA_FLAGS, IFA_F_NODAD | own);
        if let Some(label) = label {
            message = message.attr_str(IFA_LABEL, label);
        }
        if let Some(broadcast) = broadcast {
            message = message.attr_ip(IFA_BROADCAST, (*broadcast).into());
        }
        if let Some(preferred) = preferred {
            // struct ifa_cacheinfo: preferred, valid, and two stamps of the kernel's.
            let words = [*preferred, FOR_EVER, 0, 0].map(u32::to_ne_bytes);
            message = message.attr(IFA_CACHEINFO, words.as_flattened());
        }
        if let Some(metric) = metric {
            message = message.attr_u32(IFA_RT_PRIORITY, *metric);
        }
        Ok(message)
    }

    /// Adds a route. False when its table has one to the same destination with the same metric.
    pub fn add_route(&mut self, route: &RouteSpec) -> Result<bool> {
        match self.ask(route_message(libc::RTM_NEWROUTE, ADD, route), &|| format!("adding the {route}")) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Adds a route; one with the same destination and metric is replaced.
    pub fn replace_route(&mut self, route: &RouteSpec) -> Result<()> {
        let message = route_message(libc::RTM_NEWROUTE, CHANGE | NLM_F_CREATE | NLM_F_REPLACE, route);
        self.ask(message, &|| format!("adding the {route}"))
    }

    /// Removes a route. False when it was not there.
    pub fn delete_route(&mut self, route: &RouteSpec) -> Result<bool> {
        let deleted = self.ask(route_message(libc::RTM_DELROUTE, CHANGE, route), &|| format!("removing the {route}"));
        Ok(absent(deleted)?.is_some())
    }
}

fn veth_end(message: Message, end: &VethEnd<'_>) -> Message {
    let mut message = message.attr_str(IFLA_IFNAME, end.name);
    if let Some(mac) = end.mac {
        message = message.attr(IFLA_ADDRESS, &mac);
    }
    if let Some(mtu) = end.mtu {
        message = message.attr_u32(IFLA_MTU, mtu);
    }
    if let Some(fd) = end.namespace {
        message = message.attr_u32(IFLA_NET_NS_FD, fd.as_raw_fd() as u32);
    }
    message
}

fn route_message(kind: u16, flags: u16, route: &RouteSpec) -> Message {
    let (network, prefix) = route.destination;
    let deleting = kind == libc::RTM_DELROUTE;
    let scope = match (deleting, route.gateway, network) {
        (true, _, IpAddr::V4(_)) => 255, // RT_SCOPE_NOWHERE: any
        (false, None, IpAddr::V4(_)) => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let protocol = if deleting { 0 } else { RTPROT_STATIC };
    let kind_of_route = if deleting { 0 } else { RTN_UNICAST };
    // struct rtmsg: family, prefix lengths of destination and source, tos, table, protocol, scope, type, flags.
    let table = route.table.unwrap_or(RT_TABLE_MAIN.into());
    // A table that does not fit here stands in the attribute alone.
    let short = u8::try_from(table).unwrap_or(0);
    let header = [family_of(network), prefix, 0, 0, short, protocol, scope, kind_of_route, 0, 0, 0, 0];
    let mut message = Message::new(kind, flags, &header).attr_u32(RTA_TABLE, table);
    if prefix > 0 {
        message = message.attr_ip(RTA_DST, network);
    }
    if let Some(gateway) = route.gateway {
        message = message.attr_ip(RTA_GATEWAY, gateway);
    }
    if let Some(index) = route.ifindex {
        message = message.attr_u32(RTA_OIF, index);
    }
    if let Some(metric) = route.metric {
        message = message.attr_u32(RTA_PRIORITY, metric);
    }
    if let Some(mtu) = route.mtu {
        message = message.nest(RTA_METRICS, &[], |m| m.attr_u32(RTAX_MTU, mtu));
    }
    message
}
