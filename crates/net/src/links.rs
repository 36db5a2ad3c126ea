//! Links, addresses, routes and neighbours as the kernel describes them, and a snapshot of all.

use crate::error::{Error, Result, libc};
use crate::nl::codec::{Attributes, Message, read_ip, read_str, read_u16, read_u32};
use crate::nl::{NLM_F_DUMP, NLM_F_REQUEST, Netlink, Reply};
use crate::rules::TableRule;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTAX_MTU: u16 = 2;
const RTM_F_CLONED: u32 = 0x200;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_FLAGS_EXT: u16 = 15;
const NTF_EXT_MANAGED: u32 = 1;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;

/// The tables local, main and default, which every packet is routed by.
const EVERYBODYS_TABLES: [u32; 3] = [255, 254, 253];

/// A hardware address.
pub type Mac = [u8; 6];

/// A hardware address as people write it.
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// How an XDP program is attached to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// By the driver (native).
    Driver,
    /// By the stack, after the packet buffer is made (generic).
    Generic,
    /// By the card.
    Hardware,
}

/// An XDP program on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttachedXdp {
    /// The program's number, as in `bpftool prog show id`.
    pub program: u32,
    /// How it is attached.
    pub mode: XdpMode,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// The largest IP packet it takes.
    pub mtu: u32,
    /// What kind of virtual device it is ("veth", "bridge", "vlan", …); `None` for physical ones and `lo`.
    pub kind: Option<String>,
    /// It is set up.
    pub up: bool,
    /// It is up and has a carrier.
    pub running: bool,
    /// It is the loopback interface.
    pub loopback: bool,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// The device below it, or a veth's peer, as a number in that device's namespace.
    pub lower: Option<u32>,
    /// The XDP programs on it.
    pub xdp: Vec<AttachedXdp>,
}

impl Link {
    /// A device with the MAC of a virtual router (RFC 9568 section 7.3).
    pub fn is_virtual_router(&self) -> bool {
        self.kind.as_deref() == Some("macvlan") && self.mac.is_some_and(crate::virtual_mac::is_standard)
    }
}

/// An address of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The interface it is on.
    pub ifindex: u32,
    /// The address.
    pub ip: IpAddr,
    /// The prefix length of its network.
    pub prefix: u8,
    /// Its scope: 0 global, 253 link, 254 host.
    pub scope: u8,
}

impl Address {
    /// Valid beyond its link and this host.
    pub fn is_global(&self) -> bool {
        self.scope < 253
    }
}

/// One next hop of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The interface.
    pub ifindex: u32,
    /// The next router; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
}

/// A route of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// Destination and prefix length.
    pub destination: (IpAddr, u8),
    /// The table: 254 main, 255 local.
    pub table: u32,
    /// Its metric; lower wins.
    pub metric: u32,
    /// The preferred source address.
    pub prefsrc: Option<IpAddr>,
    /// The route's MTU, where one is set.
    pub mtu: Option<u32>,
    /// It delivers to this host.
    pub local: bool,
    /// Where it leads; several for a multipath route, none for a local one without interface.
    pub hops: Vec<Hop>,
}

/// A neighbour's state, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NeighbourState {
    /// Its hardware address is known (also when it is due to be confirmed).
    Valid,
    /// It is being asked for.
    Incomplete,
    /// It does not answer.
    Failed,
    /// Nothing is known yet.
    None,
}

/// A neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface it is on.
    pub ifindex: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address, if one is recorded.
    pub mac: Option<Mac>,
    /// Whether that may be used.
    pub state: NeighbourState,
    /// Set by hand, or the device has no neighbours: the kernel never asks.
    pub permanent: bool,
    /// The kernel keeps it resolved by itself.
    pub managed: bool,
}

impl Neighbour {
    /// The hardware address to send to.
    pub fn usable(&self) -> Option<Mac> {
        if self.state == NeighbourState::Valid { self.mac } else { None }
    }
}

/// The network of a namespace at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The interfaces by number.
    pub links: BTreeMap<u32, Link>,
    /// This host's addresses.
    pub addresses: Vec<Address>,
    /// The routes of all tables, without the cached ones.
    pub routes: Vec<RouteEntry>,
    /// Which tables are asked, and for which packets.
    pub rules: Vec<TableRule>,
    /// The neighbours.
    pub neighbours: Vec<Neighbour>,
}

/// A prefix that routes deliver to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalNet {
    /// Destination and prefix length.
    pub destination: (IpAddr, u8),
    /// Not all packets are routed so: rules choose some by their mark, interface or the like. The packet path cannot ask
    /// those rules, and takes the prefix for local where a packet has a mark.
    pub marked: bool,
}

impl Snapshot {
    /// Reads everything in the calling thread's namespace.
    pub fn take() -> Result<Self> {
        Self::read(&mut Netlink::route()?)
    }

    /// Reads everything through an open socket.
    pub fn read(netlink: &mut Netlink) -> Result<Self> {
        Ok(Snapshot {
            links: netlink.links()?.into_iter().map(|link| (link.index, link)).collect(),
            addresses: netlink.addresses()?,
            routes: netlink.routes()?,
            rules: netlink.table_rules()?,
            neighbours: netlink.neighbours()?,
        })
    }

    /// Reads links and addresses, and nothing else.
    pub fn read_own(netlink: &mut Netlink) -> Result<Self> {
        Ok(Snapshot {
            links: netlink.links()?.into_iter().map(|link| (link.index, link)).collect(),
            addresses: netlink.addresses()?,
            ..Snapshot::default()
        })
    }

    /// Whether the address is one of this host's to every packet.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        let delivers = |route: &RouteEntry| route.local && contains(route.destination, ip);
        self.addresses.iter().any(|address| address.ip == ip)
            || self.routes.iter().any(|route| delivers(route) && self.for_some(route) == Some(false))
    }

    /// The prefixes that routes deliver to this host, but for its own addresses and loopback.
    pub fn local_nets(&self) -> BTreeSet<LocalNet> {
        let own = |(ip, prefix): (IpAddr, u8)| {
            let whole = prefix == if ip.is_ipv4() { 32 } else { 128 };
            ip.is_loopback() || whole && self.addresses.iter().any(|address| address.ip == ip)
        };
        let nets = self.routes.iter().filter(|route| route.local && !own(route.destination)).filter_map(|route| {
            let marked = self.for_some(route)?;
            Some(LocalNet { destination: route.destination, marked })
        });
        nets.collect()
    }

    /// Whether a route is for some packets only; `None`: no packet is routed by its table.
    fn for_some(&self, route: &RouteEntry) -> Option<bool> {
        if EVERYBODYS_TABLES.contains(&route.table) {
            return Some(false);
        }
        let ipv6 = route.destination.0.is_ipv6();
        let rules = self.rules.iter().filter(|rule| (rule.ipv6, rule.table) == (ipv6, route.table));
        rules.map(|rule| rule.some).reduce(|one, other| one && other)
    }

    /// The interface of a name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// What the neighbour table of an interface says of an address.
    pub fn neighbour(&self, ifindex: u32, ip: IpAddr) -> Option<&Neighbour> {
        self.neighbours.iter().find(|entry| (entry.ifindex, entry.ip) == (ifindex, ip))
    }
}

/// Whether `ip` lies in a network.
pub fn contains((network, prefix): (IpAddr, u8), ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            (network.to_bits() ^ ip.to_bits()) & mask == 0
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            (network.to_bits() ^ ip.to_bits()) & mask == 0
        }
        _ => false,
    }
}

impl Netlink {
    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.dump(libc::RTM_GETLINK, &[0; 16], libc::RTM_NEWLINK, "listing the interfaces", parse_link)
    }

    /// All addresses.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        self.dump(libc::RTM_GETADDR, &[0; 8], libc::RTM_NEWADDR, "listing the addresses", parse_address)
    }

    /// All routes but cached ones.
    pub fn routes(&mut self) -> Result<Vec<RouteEntry>> {
        self.dump(libc::RTM_GETROUTE, &[0; 12], libc::RTM_NEWROUTE, "listing the routes", parse_route)
    }

    /// All neighbours.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        self.dump(libc::RTM_GETNEIGH, &[0; 12], libc::RTM_NEWNEIGH, "listing the neighbours", parse_neighbour)
    }

    /// One interface by number; `None` when it is gone.
    pub fn link(&mut self, index: u32) -> Result<Option<Link>> {
        let message =
            Message::new(libc::RTM_GETLINK, NLM_F_REQUEST | crate::nl::NLM_F_ACK, &crate::nl::link_header(index, 0, 0));
        let place = || format!("reading interface number {index}");
        let Some(replies) = crate::nl::absent(self.request(message, &place))? else { return Ok(None) };
        Ok(replies.iter().find_map(|reply| parse_link(&reply.body)))
    }

    pub(crate) fn dump<T>(
        &mut self,
        kind: u16,
        header: &[u8],
        answer: u16,
        place: &'static str,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        let message = Message::new(kind, NLM_F_REQUEST | NLM_F_DUMP, header);
        let replies = self.request(message, &|| place.to_string())?;
        let of_kind = |reply: &&Reply| reply.kind == answer;
        Ok(replies.iter().filter(of_kind).filter_map(|reply| parse(&reply.body)).collect())
    }
}

/// Reads a link message; `None` when it is not about an interface as such (bridge port messages).
pub(crate) fn parse_link(body: &[u8]) -> Option<Link> {
    if *body.first()? != libc::AF_UNSPEC as u8 {
        return None;
    }
    let flags = read_u32(body, 8)?;
    let on = |flag: libc::c_int| flags & flag as u32 != 0;
    let mut link = Link {
        index: read_u32(body, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        kind: None,
        up: on(libc::IFF_UP),
        running: on(libc::IFF_UP) && on(libc::IFF_LOWER_UP),
        loopback: on(libc::IFF_LOOPBACK),
        master: None,
        lower: None,
        xdp: Vec::new(),
    };
    for (kind, value) in Attributes::after(body, 16) {
        match kind {
            IFLA_IFNAME => link.name = read_str(value),
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_MTU => link.mtu = read_u32(value, 0)?,
            IFLA_MASTER => link.master = read_u32(value, 0),
            IFLA_LINK => link.lower = read_u32(value, 0),
            IFLA_LINKINFO => {
                link.kind = Attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND).map(|(_, v)| read_str(v));
            }
            IFLA_XDP => link.xdp = parse_xdp(value),
            _ => {}
        }
    }
    Some(link)
}

fn parse_xdp(value: &[u8]) -> Vec<AttachedXdp> {
    let find = |wanted| Attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
    let number = |wanted| find(wanted).and_then(|v| read_u32(v, 0)).filter(|id| *id != 0);
    let modes = [
        (IFLA_XDP_DRV_PROG_ID, XdpMode::Driver),
        (IFLA_XDP_SKB_PROG_ID, XdpMode::Generic),
        (IFLA_XDP_HW_PROG_ID, XdpMode::Hardware),
    ];
    let mut found: Vec<_> =
        modes.into_iter().filter_map(|(kind, mode)| Some(AttachedXdp { program: number(kind)?, mode })).collect();
    if let (true, Some(program)) = (found.is_empty(), number(IFLA_XDP_PROG_ID)) {
        let mode = match find(IFLA_XDP_ATTACHED).and_then(|v| v.first().copied()) {
            Some(1) => XdpMode::Driver,
            Some(3) => XdpMode::Hardware,
            _ => XdpMode::Generic,
        };
        found.push(AttachedXdp { program, mode });
    }
    found
}

pub(crate) fn parse_address(body: &[u8]) -> Option<Address> {
    let find = |wanted| Attributes::after(body, 8).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
    // On a point-to-point link IFA_ADDRESS is the peer, IFA_LOCAL this host.
    let ip = read_ip(find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS))?)?;
    Some(Address { ifindex: read_u32(body, 4)?, ip, prefix: *body.get(1)?, scope: *body.get(3)? })
}

/// Reads a route message; `None` for cached, multicast, unreachable and other routes that lead nowhere.
pub(crate) fn parse_route(body: &[u8]) -> Option<RouteEntry> {
    let kind = *body.get(7)?;
    if read_u32(body, 8)? & RTM_F_CLONED != 0 || !matches!(kind, RTN_UNICAST | RTN_LOCAL) {
        return None;
    }
    parse_any_route(body)
}

/// Reads a route message of any type.
pub(crate) fn parse_any_route(body: &[u8]) -> Option<RouteEntry> {
    let unspecified: IpAddr = match i32::from(*body.first()?) {
        libc::AF_INET => std::net::Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = RouteEntry {
        destination: (unspecified, *body.get(1)?),
        table: u32::from(*body.get(4)?),
        metric: 0,
        prefsrc: None,
        mtu: None,
        local: *body.get(7)? == RTN_LOCAL,
        hops: Vec::new(),
    };
    let (mut ifindex, mut gateway) = (None, None);
    for (kind, value) in Attributes::after(body, 12) {
        match kind {
            RTA_DST => route.destination.0 = read_ip(value)?,
            RTA_OIF => ifindex = read_u32(value, 0),
            RTA_GATEWAY | RTA_VIA => gateway = read_gateway(kind, value),
            RTA_PRIORITY => route.metric = read_u32(value, 0)?,
            RTA_PREFSRC => route.prefsrc = read_ip(value),
            RTA_TABLE => route.table = read_u32(value, 0)?,
            RTA_METRICS => {
                let mtu = Attributes(value).find(|(kind, _)| *kind == RTAX_MTU);
                route.mtu = mtu.and_then(|(_, v)| read_u32(v, 0)).filter(|mtu| *mtu != 0);
            }
            RTA_MULTIPATH => route.hops = parse_hops(value),
            _ => {}
        }
    }
    if let Some(ifindex) = ifindex {
        route.hops.insert(0, Hop { ifindex, gateway });
    }
    Some(route)
}

/// RTA_VIA is a gateway of the other family, with its family in front.
fn read_gateway(kind: u16, value: &[u8]) -> Option<IpAddr> {
    read_ip(if kind == RTA_VIA { value.get(2..)? } else { value })
}

/// A list of `struct rtnexthop`: length, flags, weight, interface, attributes.
fn parse_hops(mut value: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    while let Some(length) = read_u16(value, 0).map(usize::from) {
        let (Some(one), Some(ifindex)) = (value.get(..length), read_u32(value, 4)) else { break };
        let gateway = Attributes::after(one, 8).find(|(kind, _)| matches!(*kind, RTA_GATEWAY | RTA_VIA));
        hops.push(Hop { ifindex, gateway: gateway.and_then(|(kind, v)| read_gateway(kind, v)) });
        value = value.get(length.next_multiple_of(4).max(8)..).unwrap_or(&[]);
    }
    hops
}

pub(crate) fn parse_neighbour(body: &[u8]) -> Option<Neighbour> {
    const INCOMPLETE: u16 = 0x01;
    const FAILED: u16 = 0x20;
    const NOARP: u16 = 0x40;
    const PERMANENT: u16 = 0x80;
    const VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | NOARP | PERMANENT;
    if !matches!(i32::from(*body.first()?), libc::AF_INET | libc::AF_INET6) {
        return None; // bridge forwarding entries
    }
    let bits = read_u16(body, 8)?;
    let state = match bits {
        bits if bits & VALID != 0 => NeighbourState::Valid,
        bits if bits & INCOMPLETE != 0 => NeighbourState::Incomplete,
        bits if bits & FAILED != 0 => NeighbourState::Failed,
        _ => NeighbourState::None,
    };
    let find = |wanted| Attributes::after(body, 12).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
    let flags = find(NDA_FLAGS_EXT).and_then(|v| read_u32(v, 0)).unwrap_or(0);
    Some(Neighbour {
        ifindex: read_u32(body, 4)?,
        ip: read_ip(find(NDA_DST)?)?,
        mac: find(NDA_LLADDR).and_then(|v| v.try_into().ok()),
        state,
        permanent: bits & (NOARP | PERMANENT) != 0,
        managed: flags & NTF_EXT_MANAGED != 0,
    })
}

/// The interface of a name in the calling thread's namespace.
pub fn link_named(name: &str) -> Result<Link> {
    let mut netlink = Netlink::route()?;
    let index = netlink.index_of(name)?;
    let missing = || Error::refused(format!("interface {name} has just gone"), "see `ip link`");
    netlink.link(index)?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_their_prefix_says() {
        let net: (IpAddr, u8) = ("10.0.0.0".parse().unwrap(), 24);
        assert!(contains(net, "10.0.0.255".parse().unwrap()));
        assert!(!contains(net, "10.0.1.0".parse().unwrap()));
        assert!(!contains(net, "fd00::1".parse().unwrap()));
        assert!(contains(("0.0.0.0".parse().unwrap(), 0), "8.8.8.8".parse().unwrap()));
        assert!(contains(("::".parse().unwrap(), 0), "fd00::1".parse().unwrap()));
        assert!(contains(("fd00::".parse().unwrap(), 64), "fd00::ffff".parse().unwrap()));
        assert!(!contains(("fd00::1".parse().unwrap(), 128), "fd00::".parse().unwrap()));
    }

    #[test]
    fn a_multipath_route_shows_all_hops() {
        let mut hops = Vec::new();
        for (index, last) in [(3u32, 1u8), (4, 2)] {
            hops.extend([16, 0, 0, 0]);
            hops.extend(index.to_ne_bytes());
            hops.extend([8, 0, RTA_GATEWAY as u8, 0, 10, 0, 0, last]);
        }
        let bytes = Message::new(24, 0, &[2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]).attr(RTA_MULTIPATH, &hops).finish(0);
        let route = parse_route(&bytes[16..]).unwrap();
        let wanted = |ifindex, ip: &str| Hop { ifindex, gateway: Some(ip.parse().unwrap()) };
        assert_eq!(route.hops, [wanted(3, "10.0.0.1"), wanted(4, "10.0.0.2")]);
        assert_eq!(route.table, 254);
    }

    #[test]
    fn cut_short_messages_are_skipped() {
        for length in 0..12 {
            let body = vec![2; length];
            assert!(parse_link(&body).is_none());
            assert!(parse_route(&body).is_none());
            assert!(parse_neighbour(&body).is_none());
        }
    }
}
