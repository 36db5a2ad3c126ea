//! The bed of the recordings: everything that is constant and not in their files
//! (packet-rules §4.1).

use std::collections::BTreeSet;
use std::net::IpAddr;

use dirigent_datapath::control::words;
use dirigent_datapath::memory::{LocalNet, Routes, Target};
use dirigent_director::family::Address as _;
use dirigent_director::records::{Link, NextHop, hop, link_flag, tunnel};
use dirigent_director::shared::S32;
use dirigent_wire::{Addr4, Addr6};

/// A side of the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Of the clients: c0.
    C,
    /// Of the servers: r0.
    R,
    /// Of probes: p0. Of no recording.
    P,
}

impl Side {
    /// Both that have networks behind them.
    pub const ALL: [Self; 2] = [Self::C, Self::R];
    /// With that of probes.
    pub const EVERY: [Self; 3] = [Self::C, Self::R, Self::P];
    /// As recordings call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::R => "r",
            Self::P => "p",
        }
    }
    /// The MAC of the director's interface.
    pub fn mac(self) -> [u8; 6] {
        match self {
            Self::C => [2, 0, 0, 0, 0, 1],
            Self::R => [2, 0, 0, 0, 1, 0],
            Self::P => [2, 0, 0, 0, 2, 0],
        }
    }
    /// Number of the interface, where there is no real one.
    pub fn ifindex(self) -> u32 {
        2 + self as u32
    }
    /// The side of an interface number.
    pub fn of_ifindex(ifindex: u32) -> Option<Self> {
        Self::EVERY.into_iter().find(|side| side.ifindex() == ifindex)
    }
    /// The addresses of the interface, if it has any.
    pub fn addresses(self) -> [IpAddr; 2] {
        let [four, six] = if self == Self::C { ["10.0.0.1", "fd00::1"] } else { ["10.1.0.1", "fd00:1::1"] };
        [address(four), address(six)]
    }
}

/// The gateway to the clients.
pub const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

/// Address of server `n`: rs1 is 10.1.0.11 and fd00:1::11, with its number in decimal
/// digits.
pub fn server(n: u8, v6: bool) -> IpAddr {
    address(&format!("{}{}", if v6 { "fd00:1::" } else { "10.1.0." }, 10 + n))
}

/// The first virtual address.
pub fn vip(v6: bool) -> IpAddr {
    address(if v6 { "2001:db8::10" } else { "192.0.2.10" })
}

/// MAC of server `n`.
pub fn server_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, n]
}

/// Name of a server: `rsN`.
pub fn server_name(address: IpAddr) -> String {
    let text = address.to_string();
    match text.rsplit(['.', ':']).next().and_then(|last| last.parse::<u8>().ok()?.checked_sub(10)) {
        Some(n) => format!("rs{n}"),
        None => text,
    }
}

/// The router behind which further servers are; its MAC ends in its number too.
const ROUTER: (u8, u8) = (89, 0x99);

/// Addresses, routes and neighbours of one recording.
#[derive(Clone, Debug)]
pub struct Bed {
    /// What the director's host would route where.
    pub routes: Routes,
    /// MTU of c0.
    pub mtu_c: u32,
    /// MTU of r0.
    pub mtu_r: u32,
    /// The director's addresses.
    pub locals: Vec<IpAddr>,
    /// Prefixes that are the director's.
    pub nets: BTreeSet<LocalNet>,
    /// How many servers there are.
    servers: u8,
    ifindex: [u32; 3],
    further: Vec<String>,
    plan: Vec<(IpAddr, u8, Option<Hop>)>,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug)]
struct Hop {
    side: Side,
    mtu: u32,
    gateway: Option<IpAddr>,
}

impl Bed {
    /// The bed with these MTUs, and further routes as arguments of `ip`.
    pub fn new(mtu_c: u32, mtu_r: u32, routes: &[String]) -> Result<Self, String> {
        Self::of(2, mtu_c, mtu_r, routes)
    }
    /// The bed with so many servers, and further routes and rules as arguments of `ip`.
    pub fn with_servers(servers: u8, routes: &[String]) -> Result<Self, String> {
        Self::of(servers, 1500, 1500, routes)
    }
    /// The bed with all of these.
    pub(crate) fn of(servers: u8, mtu_c: u32, mtu_r: u32, routes: &[String]) -> Result<Self, String> {
        let mut locals: Vec<IpAddr> = Side::ALL.into_iter().flat_map(Side::addresses).collect();
        for n in 10..18 {
            locals.push(address(&format!("192.0.2.{n}")));
            locals.push(address(&format!("2001:db8::{n}")));
        }
        let ifindex = Side::EVERY.map(Side::ifindex);
        let mut bed = Self {
            routes: Routes::default(),
            mtu_c,
            mtu_r,
            locals,
            nets: BTreeSet::new(),
            servers,
            ifindex,
            further: routes.to_vec(),
            plan: Vec::new(),
        };
        bed.fill()?;
        Ok(bed)
    }
    /// The same with real interface numbers.
    pub fn with_ifindex(mut self, ifindex: [u32; 3]) -> Result<Self, String> {
        self.ifindex = ifindex;
        self.routes = Routes::default();
        self.fill()?;
        Ok(self)
    }
    /// Whether it is the same but for interface numbers.
    pub fn same_as(&self, other: &Self) -> bool {
        let shape = |bed: &Self| (bed.servers, bed.mtu_c, bed.mtu_r, bed.further.clone());
        shape(self) == shape(other)
    }
    /// Number of an interface.
    pub fn ifindex(&self, side: Side) -> u32 {
        self.ifindex[side as usize]
    }
    /// The side of an interface.
    pub fn side(&self, ifindex: u32) -> Option<Side> {
        Side::EVERY.into_iter().find(|side| self.ifindex(*side) == ifindex)
    }
    /// MTU of an interface.
    pub fn mtu(&self, side: Side) -> u32 {
        if side == Side::C { self.mtu_c } else { self.mtu_r }
    }

    /// Routes beside the usual ones, as arguments of `ip`.
    pub fn further_routes(&self) -> &[String] {
        &self.further
    }
    /// Permanent neighbours: address, MAC, interface.
    pub fn neighbours(&self) -> Vec<(IpAddr, [u8; 6], &'static str)> {
        let mut all = vec![(address("10.0.0.2"), GATEWAY, "c0"), (address("fd00::2"), GATEWAY, "c0")];
        for (n, last) in (1..=self.servers).map(|n| (n, n)).chain([ROUTER]) {
            all.extend([false, true].map(|v6| (server(n, v6), server_mac(last), "r0")));
        }
        all
    }

    fn target(&self, hop: &Hop, neighbour: IpAddr) -> Target {
        let mac = self.neighbours().into_iter().find(|(address, ..)| *address == neighbour).map(|(_, mac, _)| mac);
        Target {
            ifindex: self.ifindex(hop.side),
            mtu: hop.mtu,
            src: dirigent_wire::Mac::new(hop.side.mac()),
            dst: mac.map(dirigent_wire::Mac::new),
        }
    }
    /// Whether what is sent to it is the director's own, by an address or by a route.
    pub(crate) fn is_local(&self, to: IpAddr) -> bool {
        self.locals.contains(&to) || self.nets.iter().any(|net| net.contains(to))
    }
    /// The longest route of the plan to an address.
    fn planned(&self, to: IpAddr) -> Option<Hop> {
        let routes = self.plan.iter().filter(|(net, length, _)| contains(*net, *length, to));
        routes.max_by_key(|(_, length, _)| *length).and_then(|(.., hop)| *hop)
    }
    fn plan(&mut self, net: IpAddr, length: u8, hop: Option<Hop>) {
        self.plan.retain(|(n, l, _)| (*n, *l) != (net, length));
        self.plan.push((net, length, hop));
    }
    /// Routes first, as `ip` would have them; then what the director's routing table
    /// says: a neighbour on a link has a route of its own there.
    fn fill(&mut self) -> Result<(), String> {
        self.plan.clear();
        self.nets.clear();
        let (c, r) = (self.link_hop(Side::C), self.link_hop(Side::R));
        let by_gateway = |gateway| Some(Hop { gateway: Some(address(gateway)), ..c });
        for (net, length, hop) in [
            ("0.0.0.0", 0, by_gateway("10.0.0.2")),
            ("::", 0, by_gateway("fd00::2")),
            ("10.0.0.0", 30, Some(c)),
            ("fd00::", 64, Some(c)),
            ("10.1.0.0", 24, Some(r)),
            ("fd00:1::", 64, Some(r)),
        ] {
            self.plan(address(net), length, hop);
        }
        // Loopback, multicast, broadcast and link-local: nothing is forwarded there.
        for (net, length) in
            [("127.0.0.0", 8), ("::1", 128), ("ff00::", 8), ("fe80::", 10), ("10.0.0.3", 32), ("10.1.0.255", 32)]
        {
            self.plan(address(net), length, None);
        }
        self.further.clone().iter().try_for_each(|line| self.change_route(line))?;
        for (net, length, hop) in self.plan.clone() {
            // What is on the link itself has no neighbour of its own here.
            let target = hop.map(|hop| self.target(&hop, hop.gateway.unwrap_or(net)));
            self.routes.set(net, length, target);
        }
        for (neighbour, ..) in self.neighbours() {
            match self.planned(neighbour) {
                Some(hop) if hop.gateway.is_none() => {
                    let target = self.target(&hop, neighbour);
                    self.routes.set(neighbour, whole(neighbour), Some(target));
                }
                _ => {}
            }
        }
        for local in self.locals.clone() {
            self.routes.set(local, whole(local), None);
        }
        Ok(())
    }
    fn link_hop(&self, side: Side) -> Hop {
        Hop { side, mtu: self.mtu(side), gateway: None }
    }
    /// `ip route` as recordings use it.
    fn change_route(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> =
            line.split_whitespace().filter(|w| !matches!(*w, "ip" | "-6" | "-4" | "lock" | "onlink")).collect();
        let bad = || format!("route not understood: {line}");
        let [object, verb, rest @ ..] = words.as_slice() else { return Err(bad()) };
        if *object == "rule" {
            // Which table it leads to is looked up where a route is in one.
            return if *verb == "add" && rest.contains(&"fwmark") { Ok(()) } else { Err(bad()) };
        }
        if let ["local", net, options @ ..] = rest
            && *verb == "add"
        {
            return self.add_local(net, options).ok_or_else(bad);
        }
        if !matches!(*object, "route" | "r" | "ro") {
            return Err(bad());
        }
        let (refused, rest) = match rest {
            ["blackhole" | "unreachable" | "prohibit" | "throw", rest @ ..] => (true, rest),
            _ => (false, rest),
        };
        let [net, options @ ..] = rest else { return Err(bad()) };
        let v6 = line.split_whitespace().any(|w| w == "-6") || options.iter().any(|o| o.contains(':'));
        let (net, length) = match net.split_once('/') {
            Some((net, length)) => (net.parse().map_err(|_| bad())?, length.parse().map_err(|_| bad())?),
            None if *net == "default" => (address(if v6 { "::" } else { "0.0.0.0" }), 0),
            None => net.parse().map(|net| (net, whole(net))).map_err(|_| bad())?,
        };
        let option = |name| options.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
        match *verb {
            "del" | "delete" => self.plan.retain(|(n, l, _)| (*n, *l) != (net, length)),
            "add" | "replace" | "change" if refused => self.plan(net, length, None),
            "add" | "replace" | "change" => {
                let gateway = option("via").map(|via| via.parse::<IpAddr>().map_err(|_| bad())).transpose()?;
                let side = match (option("dev"), gateway) {
                    (Some("c0"), _) => Side::C,
                    (Some("r0"), _) => Side::R,
                    (None, Some(gateway)) => self.planned(gateway).ok_or_else(bad)?.side,
                    _ => return Err(bad()),
                };
                let mtu = option("mtu").map(|mtu| mtu.parse().map_err(|_| bad())).transpose()?;
                self.plan(net, length, Some(Hop { side, mtu: mtu.unwrap_or(self.mtu(side)), gateway }));
            }
            _ => return Err(bad()),
        }
        Ok(())
    }

    /// A prefix that is the director's: for every packet, or for what a rule by mark leads to it.
    fn add_local(&mut self, net: &str, options: &[&str]) -> Option<()> {
        let (address, length) = net.split_once('/')?;
        let (address, length) = (address.parse().ok()?, length.parse().ok()?);
        let table = options.windows(2).find(|pair| pair[0] == "table").map(|pair| pair[1]);
        let by_mark = |table: &&str| {
            let rules = self.further.iter().filter(|line| line.contains("rule add ") && line.contains("fwmark "));
            let leads = |line: &String| line.split(' ').next_back() == Some(table);
            rules.into_iter().any(leads)
        };
        let marked = table.filter(by_mark).is_some();
        if table.is_none() {
            self.plan(address, length, None);
        }
        if table.is_none() || marked {
            self.nets.insert(LocalNet { address, length, marked });
        }
        Some(())
    }

    /// How frames reach a server.
    pub fn next_hop(&self, server: IpAddr) -> NextHop {
        if self.locals.contains(&server) {
            return NextHop { state: S32::new(hop::LOCAL), ..NextHop::default() };
        }
        match self.routes.find(server) {
            None => NextHop { state: S32::new(hop::NO_ROUTE), ..NextHop::default() },
            Some(Target { ifindex, mtu, src, dst }) => NextHop {
                state: S32::new(if dst.is_some() { hop::RESOLVED } else { hop::NO_NEIGHBOUR }),
                ifindex,
                mtu,
                src,
                dst: dst.unwrap_or_default(),
                flags: if server.is_ipv6() { tunnel::PEER_V6 } else { 0 },
                source: self.source(ifindex, server.is_ipv6()),
                peer: words(server),
                ..NextHop::default()
            },
        }
    }
    /// The address of this host on an interface.
    fn source(&self, ifindex: u32, v6: bool) -> [u16; 8] {
        self.side(ifindex).map(|side| words(side.addresses()[usize::from(v6)])).unwrap_or_default()
    }
    /// The record of an interface.
    pub fn link(&self, side: Side) -> Link {
        let mut link = Link { mac: dirigent_wire::Mac::new(side.mac()), used: 1, ..Link::default() };
        if side == Side::P {
            return Link { flags: link_flag::PROBE, ..link };
        }
        for address in side.addresses() {
            match address {
                IpAddr::V4(a) => link.addr4 = Addr4::new(a.octets()).0,
                IpAddr::V6(a) => link.addr6 = Addr6::new(a.octets()).to_words(),
            }
        }
        link
    }
}

fn whole(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn contains(net: IpAddr, length: u8, address: IpAddr) -> bool {
    let bits = |address| match address {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    net.is_ipv4() == address.is_ipv4() && (bits(net) ^ bits(address)) & mask == 0
}
