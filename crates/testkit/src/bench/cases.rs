//! What is measured: the floors, and every case of reference/performance.md §3 with its
//! goal, for each method, direction and family.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dirigent_config::Model;
use dirigent_director::Reason;
use dirigent_director::schedule::Scheduler;

use super::instance::FRAME;
use super::{Options, options};
use crate::golden::bed::server;
use crate::golden::{Side, setup as models};
use crate::packet::{IpOptions, Tcp, eth, flag, ip, proto, tcp, udp};

/// Servers of the cases that schedule.
pub const SERVERS: u8 = 16;

/// With how many servers each scheduler opens connections.
pub const SERVERS_OF_SCHEDULERS: [u32; 4] = [1, 16, 256, 4096];
/// What tells the instances of these cases: their services stand side by side in few.
const SCHEDULERS: &str = "schedulers";
/// Services of 4096 servers that fit into the table of servers.
const LARGE: usize = 3;

/// Each scheduler with each number of servers: its instance, and the service's port there.
fn scheduled(options: &Options) -> impl Iterator<Item = (Scheduler, u32, String, u16)> {
    let counts = SERVERS_OF_SCHEDULERS.into_iter().filter(|count| *count <= options.servers);
    let each = counts.flat_map(|count| Scheduler::ALL.iter().enumerate().map(move |(n, s)| (n, *s, count)));
    each.map(|(n, scheduler, count)| {
        let of = if count > 256 { format!("{SCHEDULERS} {}", n / LARGE) } else { SCHEDULERS.to_owned() };
        (scheduler, count, of, 8000 + count as u16 + n as u16 * 16)
    })
}

/// Services for the cases of this instance, by direct routing.
fn schedulers(name: &str, options: &Options) -> Model {
    let mut lines = Vec::new();
    for (scheduler, count, _, port) in scheduled(options).filter(|(_, _, of, _)| of == name) {
        let place = SocketAddr::new(vip(false), port);
        lines.push(format!("-A -t {place} -s {}", scheduler.name()));
        for n in 1..=count {
            let server = Ipv4Addr::from(0x0a02_0000 + n);
            // More than there will be connections: ovf refuses what is beyond them.
            lines.push(format!("-a -t {place} -r {server}:{port} -g -w {}", 10_000_000 * (1 + n % 3)));
        }
    }
    models::model(std::iter::empty(), lines.iter().map(String::as_str)).unwrap_or_else(|e| panic!("{e:?}"))
}

/// Floors by which a run shows that the machine and the method are sound:
/// hot floor / macswap lies between these.
pub const SANITY: [&str; 2] = ["hot floor", "macswap"];
/// See [`SANITY`].
pub const SANE: std::ops::RangeInclusive<f64> = 2.4..=3.3;

/// A goal: so many times a floor, at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// Name of the floor, or of the case.
    pub floor: &'static str,
    /// How many times; `None`: only given against it.
    pub factor: Option<f64>,
}

/// One thing measured.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// The row of the page, for those of ours.
    pub row: Option<&'static str>,
    /// The instance that it runs on.
    pub of: String,
    /// The program.
    pub program: &'static str,
    /// What it gets.
    pub packets: Packets,
    /// What it is held against, floors or other cases, which stand before it; nothing: it is a floor.
    pub goals: Vec<Goal>,
    /// Of how many packets that others have it gets one: where each opens a connection, which
    /// stays until the end.
    pub(super) fewer: u32,
}

impl Case {
    /// Whether that floor is one of its own.
    #[must_use]
    pub fn needs(&self, floor: &Self) -> bool {
        self.goals.iter().any(|goal| goal.floor == floor.name)
    }
    /// Packets of a round.
    #[must_use]
    pub fn packets(&self, options: &Options) -> u32 {
        (options.packets / self.fewer).max(1)
    }
}

/// Packets that differ in the client only, and what must become of them.
#[derive(Clone, Debug)]
pub struct Packets {
    /// The frame.
    pub frame: Vec<u8>,
    /// How many clients; a power of two.
    pub connections: u32,
    /// Whether the addresses are IPv6.
    pub v6: bool,
    /// Whether the client is the destination.
    pub reply: bool,
    /// XDP's verdict.
    pub action: u32,
    /// Bytes afterwards.
    pub len: u32,
    /// The reason that is counted, of a director.
    pub reason: Option<Reason>,
}

pub(super) const DROP: u32 = 1;
const PASS: u32 = 2;
pub(super) const TX: u32 = 3;

/// How an instance is made.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Entries of maps.
    pub map_sizes: Vec<(&'static str, u32)>,
    /// Services and servers of a director.
    pub model: Option<Model>,
    /// Keys of the floors' services.
    pub floor_services: Vec<u64>,
    /// What is sent before: program, packets, how many.
    pub before: Vec<(&'static str, Packets, u32)>,
}

/// A way to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Nat,
    Dr,
    Ipip,
    Gre,
    Gue,
}

impl Method {
    const ALL: [Self; 5] = [Self::Nat, Self::Dr, Self::Ipip, Self::Gre, Self::Gue];
    fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
        }
    }
    fn arguments(self) -> &'static str {
        match self {
            Self::Nat => "-m",
            Self::Dr => "-g",
            Self::Ipip => "-i",
            Self::Gre => "-i --tun-type gre",
            Self::Gue => "-i --tun-type gue --tun-port 6080",
        }
    }
    /// Bytes that a frame grows by.
    fn growth(self, v6: bool) -> u32 {
        let ip = if v6 { 40 } else { 20 };
        match self {
            Self::Nat | Self::Dr => 0,
            Self::Ipip => ip,
            Self::Gre => ip + 4,
            Self::Gue => ip + 12,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        if self == Self::Tcp { "tcp" } else { "udp" }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

pub(super) fn vip(v6: bool) -> IpAddr {
    address(if v6 { "2001:db8::10" } else { "192.0.2.10" })
}

/// Any client: the wrapper writes the real ones.
pub(super) fn client(v6: bool) -> IpAddr {
    address(if v6 { "2001:db8:c::6440:1" } else { "100.64.0.1" })
}

/// The side that frames come in by.
pub(super) const FRAME_SIDE: Side = Side::R;
pub(super) const ROUTER: [u8; 6] = [2, 0, 0, 0, 1, 0x99];

/// A frame of the right length that comes in on the servers' side, where clients are too.
pub(super) fn frame(protocol: Protocol, src: SocketAddr, dst: SocketAddr, flags: u8) -> Vec<u8> {
    let (headers, number) = match protocol {
        Protocol::Tcp => (20, proto::TCP),
        Protocol::Udp => (8, proto::UDP),
    };
    let payload = vec![0; FRAME - 14 - if src.is_ipv6() { 40 } else { 20 } - headers];
    let (a, b) = (src.ip(), dst.ip());
    let segment = Tcp { sport: src.port(), dport: dst.port(), flags, seq: 1, ack: 1, payload: &payload };
    let l4 = match protocol {
        Protocol::Tcp => tcp(a, b, &segment),
        Protocol::Udp => udp(a, b, src.port(), dst.port(), &payload),
    };
    // The wrapper counts down from this identification as it counts up addresses.
    eth(FRAME_SIDE.mac(), ROUTER, &ip(a, b, number, &l4, &IpOptions { ident: 0xffff, ..IpOptions::default() }))
}

fn request(method: Method, v6: bool, protocol: Protocol, flags: u8, connections: u32) -> Packets {
    let frame = frame(protocol, (client(v6), 1024).into(), (vip(v6), 80).into(), flags);
    let len = FRAME as u32 + method.growth(v6);
    Packets { frame, connections, v6, reply: false, action: TX, len, reason: Some(Reason::Request) }
}

fn reply(v6: bool, protocol: Protocol, flags: u8, connections: u32) -> Packets {
    let frame = frame(protocol, (server(1, v6), 8080).into(), (client(v6), 1024).into(), flags);
    Packets { frame, connections, v6, reply: true, action: TX, len: FRAME as u32, reason: Some(Reason::Reply) }
}

/// To an address that is no virtual one.
fn stray(v6: bool, connections: u32) -> Packets {
    let other = address(if v6 { "2001:db8::99" } else { "192.0.2.99" });
    let frame = frame(Protocol::Tcp, (client(v6), 1024).into(), (other, 80).into(), flag::ACK);
    let len = FRAME as u32;
    Packets { frame, connections, v6, reply: false, action: PASS, len, reason: Some(Reason::NoService) }
}

/// What a floor gets: the same frames.
fn plain(connections: u32, growth: u32) -> Packets {
    Packets {
        reason: None,
        len: FRAME as u32 + growth,
        ..request(Method::Nat, false, Protocol::Tcp, flag::ACK, connections)
    }
}

fn four_six(v6: bool) -> &'static str {
    if v6 { "v6" } else { "v4" }
}

/// A service of each protocol, with servers of one method.
fn model(method: Method, v6: bool, scheduler: &str, servers: u8) -> Model {
    weighted(method, v6, scheduler, servers, 1)
}

/// The same with these weights and one and two more, in turn.
fn weighted(method: Method, v6: bool, scheduler: &str, servers: u8, weight: u8) -> Model {
    let place = |address: IpAddr, port: u16| SocketAddr::new(address, port).to_string();
    let mut lines = Vec::new();
    for option in ["-t", "-u"] {
        lines.push(format!("-A {option} {} -s {scheduler}", place(vip(v6), 80)));
        for n in 1..=servers {
            let port = if method == Method::Nat { 8080 } else { 80 };
            let (server, weight) = (place(server(n, v6), port), weight + n % 3);
            let arguments = method.arguments();
            lines.push(format!("-a {option} {} -r {server} {arguments} -w {weight}", place(vip(v6), 80)));
        }
    }
    models::model(std::iter::empty(), lines.iter().map(String::as_str)).unwrap_or_else(|e| panic!("{e:?}"))
}

/// What the configuration of an instance of services changes to, and from: its own, other weights, more servers or fewer. The first
/// server stays.
#[must_use]
pub fn changed(name: &str) -> [Model; 3] {
    let (method, v6, scheduler) = parsed(name);
    let (scheduler, servers) = (scheduler.unwrap_or(ONE.0), if scheduler.is_some() { SERVERS } else { ONE.1 });
    let others = if servers == SERVERS { SERVERS / 2 } else { SERVERS };
    [(servers, 1), (servers, 2), (others, 1)].map(|(servers, weight)| weighted(method, v6, scheduler, servers, weight))
}

/// Scheduler and servers of instances that do not name a scheduler.
const ONE: (&str, u8) = ("rr", 1);

/// What an instance's name says.
fn parsed(name: &str) -> (Method, bool, Option<&str>) {
    let words: Vec<&str> = name.split(' ').collect();
    let method = Method::ALL.into_iter().find(|m| words.first() == Some(&m.name())).unwrap_or(Method::Nat);
    (method, words.get(1) == Some(&"v6"), words.get(2).copied())
}

/// Entries of the tables: as many again as are used.
pub(super) fn sizes(v6: bool, entries: u32) -> Vec<(&'static str, u32)> {
    let (four, six) = if v6 { (1, entries) } else { (entries, 1) };
    vec![("CONNS4", four), ("CONNS6", six), ("SLOTS", 1 << 18), ("FLOOR_LRU", 1), ("FLOOR_HASH", 1)]
}

/// How many connections the table has room for, where so many are live.
#[must_use]
pub fn live_room(connections: u32) -> u32 {
    connections.saturating_add(connections / 8).max(64)
}

/// Kernel memory that each live connection takes, with the room beside it: two elements of 128
/// bytes, what finds them, and an eighth more.
pub const LIVE_BYTES: u64 = 350;

/// A director with room for so many connections, and what opens and establishes them.
#[must_use]
pub fn live(connections: u32) -> (Setup, [Packets; 3]) {
    let n = connections.next_power_of_two();
    let map_sizes = sizes(false, 2 * live_room(connections));
    let model = Some(model(Method::Nat, false, "rr", 1));
    let setup = Setup { map_sizes, model, floor_services: Vec::new(), before: Vec::new() };
    let fill = [
        request(Method::Nat, false, Protocol::Tcp, flag::SYN, n),
        reply(false, Protocol::Tcp, flag::SYN | flag::ACK, n),
        live_request(connections),
    ];
    (setup, fill)
}

/// What clients of so many connections send.
#[must_use]
pub fn live_request(connections: u32) -> Packets {
    request(Method::Nat, false, Protocol::Tcp, flag::ACK, connections.next_power_of_two())
}

/// How an instance is made, by its name.
#[must_use]
pub fn setup(name: &str, options: &Options) -> Setup {
    let n = options.connections;
    if name.starts_with(SCHEDULERS) {
        let model = schedulers(name, options);
        let connections = options.packets / FEW * options.rounds as u32 * model.services().len() as u32;
        let map_sizes = sizes(false, connections + 64);
        return Setup { map_sizes, model: Some(model), floor_services: Vec::new(), before: Vec::new() };
    }
    if let Some(setup) = options::setup(name, options) {
        return setup;
    }
    if name.starts_with("floors") {
        let service = u64::from(u16::from_ne_bytes([192, 0]))
            | u64::from(u16::from_ne_bytes([2, 10])) << 16
            | u64::from(80u16.to_be()) << 32
            | 6 << 48;
        let map_sizes = vec![("CONNS4", 1), ("CONNS6", 1), ("FLOOR_LRU", 2 * n), ("FLOOR_HASH", 2 * n)];
        // The floors of known connections know them; those that insert find a full table.
        let (lru, hash) = if name == "floors" { (n, n) } else { (4 * n, 0) };
        let mut before = vec![("bench_lru", plain(lru, 0), lru)];
        if hash > 0 {
            before.push(("bench_hash", plain(hash, 0), hash));
        }
        return Setup { map_sizes, model: None, floor_services: vec![service], before };
    }
    let (method, v6, scheduler) = parsed(name);
    match scheduler {
        Some(scheduler) => Setup {
            map_sizes: sizes(v6, 4 * n),
            model: Some(model(method, v6, scheduler, SERVERS)),
            floor_services: Vec::new(),
            before: Vec::new(),
        },
        None => {
            let entries = if method == Method::Nat { 4 * n } else { 2 * n };
            let mut before = vec![("bench_director", request(method, v6, Protocol::Tcp, flag::SYN, n), n)];
            if method == Method::Nat {
                before.push(("bench_director", reply(v6, Protocol::Tcp, flag::SYN | flag::ACK, n), n));
            }
            before.push(("bench_director", request(method, v6, Protocol::Tcp, flag::ACK, n), n));
            before.push(("bench_director", request(method, v6, Protocol::Udp, 0, 1), 1));
            let model = Some(model(method, v6, ONE.0, ONE.1));
            Setup { map_sizes: sizes(v6, entries.max(64)), model, floor_services: Vec::new(), before }
        }
    }
}

/// Rows of the page.
pub mod row {
    /// Known connections of the three plain methods.
    pub const KNOWN: &str = "NAT, DR or IPIP, v4 TCP, known connection, 1 connection, each direction";
    /// The same, many.
    pub const MANY: &str = "the same over 512K connections (1M-entry table)";
    /// UDP.
    pub const UDP: &str = "UDP known connection";
    /// IPv6.
    pub const V6: &str = "v6, known connection";
    /// GUE; GRE is held to the same.
    pub const GUE: &str = "GUE";
    /// New connections.
    pub const NEW: &str = "new connection, wrr or mh, insert included";
    /// Nobody's.
    pub const STRAY: &str = "not for a virtual service (pass)";
    /// All compiled in.
    pub const ALL_IN: &str = "with statistics, TCP state, timeouts and trace hooks (off) all compiled in";
}

/// The page's goals: row, the numbers in its goal.
pub const GOALS: &[(&str, &[f64])] = &[
    (row::KNOWN, &[1.5]),
    (row::MANY, &[1.5, 1.2]),
    (row::UDP, &[1.5]),
    (row::V6, &[1.6]),
    (row::GUE, &[2.0]),
    (row::NEW, &[1.5, 2.5]),
    (row::STRAY, &[0.6]),
    // Everything is compiled in always: each case is one of this row.
    (row::ALL_IN, &[]),
];

/// The page's floors.
pub const FLOORS: &[&str] = &["wrapper only", "macswap", "ipip only", "hot floor", "cold floor", "insert floor"];

/// [`Case::fewer`] of new connections, and of those by scheduler, of which there are many.
pub(super) const NEW: u32 = 5;
const FEW: u32 = 50;

fn floor(name: &str, of: &str, program: &'static str, packets: Packets) -> Case {
    let fewer = if name.contains("insert") { NEW } else { 1 };
    Case { name: name.into(), row: None, of: of.into(), program, packets, goals: Vec::new(), fewer }
}

fn at_most(floor: &'static str, factor: f64) -> Goal {
    Goal { floor, factor: Some(factor) }
}

/// The goals of a known connection's packet.
fn goals(method: Method, v6: bool, protocol: Protocol, many: bool) -> (&'static str, Vec<Goal>) {
    let floor = if many { "cold floor" } else { "hot floor" };
    match (method, v6, protocol) {
        (Method::Gre | Method::Gue, ..) => (row::GUE, vec![at_most(floor, 2.0)]),
        (_, true, _) => (row::V6, vec![at_most(floor, 1.6)]),
        (_, _, Protocol::Udp) => (row::UDP, vec![at_most(floor, 1.5)]),
        _ if many => (row::MANY, vec![at_most("cold floor", 1.5), at_most("cold floor, hash", 1.2)]),
        _ => (row::KNOWN, vec![at_most("hot floor", 1.5)]),
    }
}

/// The case of this name.
pub fn named<'c>(all: &'c [Case], name: &str) -> Result<&'c Case, String> {
    all.iter().find(|case| case.name == name).ok_or_else(|| format!("there is no case {name}"))
}

/// Everything that is measured, floors first.
#[must_use]
pub fn all(options: &Options) -> Vec<Case> {
    let n = options.connections;
    let mut all = vec![
        floor("wrapper only", "floors", "bench_wrapper", plain(1, 0)),
        floor("macswap", "floors", "bench_macswap", plain(1, 0)),
        floor("ipip only", "floors", "bench_ipip", plain(1, 20)),
        floor("hot floor", "floors", "bench_lru", plain(1, 0)),
        floor("cold floor", "floors", "bench_lru", plain(n, 0)),
        floor("cold floor, hash", "floors", "bench_hash", plain(n, 0)),
        floor("insert floor", "floors that insert", "bench_lru", plain(1 << 30, 0)),
        floor("insert floor, hash", "floors that insert", "bench_hash_renew", plain(1 << 30, 0)),
    ];
    for (method, v6) in Method::ALL.into_iter().flat_map(|m| [(m, false), (m, true)]) {
        let of = format!("{} {}", method.name(), four_six(v6));
        let mut known = |protocol: Protocol, back: bool, connections: u32| {
            let (row, goals) = goals(method, v6, protocol, connections > 1);
            let packets = match back {
                true => reply(v6, protocol, flag::ACK, connections),
                false => request(method, v6, protocol, flag::ACK, connections),
            };
            let direction = if back { "reply" } else { "request" };
            let many = if connections > 1 { "512K" } else { "1" };
            let name = format!("{of} {} {direction}, {many}", protocol.name());
            let of = of.clone();
            all.push(Case { name, row: Some(row), of, program: "bench_director", packets, goals, fewer: 1 });
        };
        for back in [false, true] {
            if back && method != Method::Nat {
                continue; // these see the inbound half only
            }
            known(Protocol::Tcp, back, 1);
            known(Protocol::Tcp, back, n.max(2));
            known(Protocol::Udp, back, 1);
        }
    }
    for (method, v6, scheduler) in [
        (Method::Nat, false, "wrr"),
        (Method::Nat, false, "mh"),
        (Method::Dr, false, "wrr"),
        (Method::Dr, false, "mh"),
        (Method::Ipip, false, "wrr"),
        (Method::Ipip, false, "mh"),
        (Method::Nat, true, "wrr"),
        (Method::Dr, true, "wrr"),
    ] {
        let of = format!("{} {} {scheduler}", method.name(), four_six(v6));
        // NAT writes two entries.
        let factor = if method == Method::Nat { 2.5 } else { 1.5 };
        all.push(Case {
            name: format!("{of} tcp new"),
            row: Some(row::NEW),
            of,
            program: "bench_director",
            packets: request(method, v6, Protocol::Tcp, flag::SYN, 1 << 30),
            goals: vec![at_most("insert floor", factor), Goal { floor: "insert floor, hash", factor: None }],
            fewer: NEW,
        });
    }
    for (scheduler, count, of, port) in scheduled(options) {
        let frame = frame(Protocol::Tcp, (client(false), 1024).into(), (vip(false), port).into(), flag::SYN);
        let packets = request(Method::Dr, false, Protocol::Tcp, flag::SYN, 1 << 30);
        all.push(Case {
            name: format!("{} of {count} tcp new", scheduler.name()),
            row: None,
            of,
            program: "bench_director",
            packets: Packets { frame, ..packets },
            goals: vec![
                Goal { floor: "insert floor", factor: None },
                Goal { floor: "insert floor, hash", factor: None },
            ],
            fewer: FEW,
        });
    }
    for v6 in [false, true] {
        let of = format!("nat {}", four_six(v6));
        all.push(Case {
            name: format!("{} no service, pass", four_six(v6)),
            row: Some(row::STRAY),
            of,
            program: "bench_director",
            packets: stray(v6, 1),
            goals: vec![at_most("hot floor", 0.6)],
            fewer: 1,
        });
    }
    all.extend(options::cases());
    all
}
