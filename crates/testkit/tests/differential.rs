//! Random tables, and random frames in order through each: in memory, on XDP and on tc.
//! Every frame must come to the same bytes, the same end and the same reason.
//!
//! `DIRIGENT_RANDOM_TABLES=N` for more than the usual few, `DIRIGENT_SEED=N` for one of
//! them again. (`random.rs` has the same over one table, with proptest's shrinking.)
//! `make random FRAMES=N` runs many more frames, 10 million if not told: the executors take
//! them by the thousand, and reasons are compared by how often each was counted.

use std::net::{IpAddr, SocketAddr};

use dirigent_config::{
    Command, MarkRule, Method, Model, Plan, Scheduler, Server, ServiceKey, Sources, VipDefault, mark,
};
use dirigent_datapath::control::{Flow, Target};
use dirigent_director::Reason;
use dirigent_testkit::decode::{Ip, describe, packet as packet_of};
use dirigent_testkit::golden::compare::{same_deed, same_rows};
use dirigent_testkit::golden::kernel::{InKernel, Path, Taken};
use dirigent_testkit::golden::memory::{Memory, Plays};
use dirigent_testkit::golden::{Bed, Does, Executor, Side};
use dirigent_testkit::packet::{self as build, IpOptions, Tcp, proto};

/// Tables in `make test`, and frames through each.
const TABLES: u64 = 14;
const FRAMES: usize = 300; // in less than the shortest timeout, by the clock in memory

/// Numbers that depend on a seed only (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// A service as the generator of frames knows it.
#[derive(Clone, Debug)]
struct Known {
    vip: IpAddr,
    protocol: u8,
    port: u16,
    servers: Vec<(IpAddr, u16)>,
}

/// The port of a service that is for any, and the one of packets that are marked.
const ANY: u16 = 7777;
const MARKED: u16 = 90;
const MARK: u32 = 7;
/// Of FTP: control connections, what servers connect from, and what is agreed on.
const FTP: u16 = 21;
const FTP_DATA: u16 = 20;
const AGREED: [u16; 2] = [5001, 5257];

/// Servers: two with neighbours, one that nobody answers for, one behind a gateway, one by
/// the clients' router, one without a route, the director itself.
const SERVERS: [(&str, &str); 7] = [
    ("10.1.0.11", "fd00:1::11"),
    ("10.1.0.12", "fd00:1::12"),
    ("10.1.0.77", "fd00:1::77"),
    ("10.2.0.5", "fd00:2::5"),
    ("198.51.100.9", "2001:db8:9::9"),
    ("10.3.0.5", "fd00:3::5"),
    ("10.1.0.1", "fd00:1::1"),
];
const ROUTES: [&str; 4] = [
    "route add 10.2.0.0/24 via 10.1.0.99 mtu 1300",
    "-6 route add fd00:2::/64 via fd00:1::99 mtu 1300",
    "route add unreachable 10.3.0.0/24",
    "-6 route add unreachable fd00:3::/64",
];

struct Table {
    bed: Bed,
    model: Model,
    services: Vec<Known>,
    lines: Vec<String>,
}

fn place(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What packets are inside of.
const TUNNELS: [&str; 5] = [
    "",
    " --tun-type gre",
    " --tun-type gre --tun-csum",
    " --tun-type gue --tun-port 6080",
    " --tun-type gue --tun-port 6080 --tun-csum",
];

/// Schedulers that do not draw lots, with their flags.
const SCHEDULERS: [&str; 17] = [
    "rr",
    "wrr",
    "lc",
    "wlc",
    "wlc",
    "sed",
    "nq",
    "sh",
    "sh -b sh-port,sh-fallback",
    "dh",
    "lblc",
    "lblcr",
    "fo",
    "ovf",
    "mh",
    "mh -b mh-port",
    "mh -b mh-fallback",
];

/// A table in the making.
struct Draft<'r> {
    r: &'r mut Random,
    services: Vec<Known>,
    lines: Vec<String>,
}

impl Draft<'_> {
    /// A service, called so by ipvsadm, and what is known of it; `keeps`: it must be persistent.
    fn service(&mut self, at: &str, mut known: Known, keeps: bool) {
        let (v6, port, r) = (known.vip.is_ipv6(), known.port, &mut *self.r);
        let one_packet = if known.protocol == proto::UDP && r.one_in(3) { " -o" } else { "" };
        let persistent = match keeps || r.one_in(4) {
            false => "",
            true if r.one_in(2) => " -p 100",
            true => [" -p 100 -M 255.255.255.0", " -p 100 -M 64"][usize::from(v6)],
        };
        self.lines.push(format!("-A {at} -s {}{one_packet}{persistent}", r.pick(&SCHEDULERS)));
        // What has no port of its own, or a control connection of FTP.
        let (portless, ftp) = (matches!(port, ANY | MARKED), port == FTP);
        let (first, mut taken) = (r.below(SERVERS.len()), Vec::new());
        for i in 0..r.below(4) {
            let (four, six) = SERVERS[(if r.one_in(2) { i } else { first + i * 2 }) % SERVERS.len()];
            let server = address(if v6 { six } else { four });
            let method = match r.below(8) {
                0 | 1 if !ftp => "-g".to_owned(),
                2 | 3 if !ftp => format!("-i{}", r.pick(&TUNNELS)),
                _ => "-m".to_owned(),
            };
            // Through a tunnel a server may be of the other family.
            let server =
                if method.starts_with("-i") && r.one_in(3) { address(if v6 { four } else { six }) } else { server };
            let own = if portless { 0 } else { port };
            let sport = if method == "-m" && !ftp { r.pick(&[own, own, 8080]) } else { own };
            if taken.contains(&server) {
                continue;
            }
            taken.push(server);
            // One of the other family sends nothing to clients of this one.
            if server.is_ipv6() == v6 {
                known.servers.push((server, if sport == 0 { port } else { sport }));
            }
            let limits = if r.one_in(4) { [" -x 2", " -x 3 -y 2", " -x 5"][r.below(3)] } else { "" };
            self.lines.push(format!("-a {at} -r {} {method} -w {}{limits}", place(server, sport), r.below(4)));
        }
        self.services.push(known);
    }
}

fn table(r: &mut Random, bed: Option<&Bed>) -> Table {
    let mut draft = Draft { r, services: Vec::new(), lines: Vec::new() };
    let vips = |v6| if v6 { ["2001:db8::10", "2001:db8::11"] } else { ["192.0.2.10", "192.0.2.11"] }.map(address);
    let known = |vip, protocol, port| Known { vip, protocol, port, servers: Vec::new() };
    let kinds = [("-t", proto::TCP), ("-u", proto::UDP), ("--sctp-service", proto::SCTP)];
    for (v6, kind, n) in (0..12).map(|i| (i & 1 == 1, i / 2 % 3, i / 6)) {
        let ((option, protocol), vip) = (kinds[kind], vips(v6)[n]);
        let port = if protocol == proto::UDP { 53 } else { 80 };
        draft.service(&format!("{option} {}", place(vip, port)), known(vip, protocol, port), false);
    }
    for v6 in [false, true] {
        let [one, other] = vips(v6);
        draft.service(&format!("-t {}", place(one, FTP)), known(one, proto::TCP, FTP), false);
        let (option, protocol) = draft.r.pick(&kinds);
        draft.service(&format!("{option} {}", place(other, 0)), known(other, protocol, ANY), true);
        let marked = known(draft.r.pick(&[one, other]), draft.r.pick(&kinds).1, MARKED);
        draft.service(&format!("-f {MARK}{}", if v6 { " -6" } else { "" }), marked, false);
    }
    let Draft { services, lines, .. } = draft;
    let mut model = Model::default();
    let mut settings = model.settings().clone();
    (settings.errors.rate, settings.errors.destination_rate) = (0, 0);
    for switch in [
        &mut settings.schedule_icmp,
        &mut settings.nat_icmp_send,
        &mut settings.snat_reroute,
        &mut settings.pmtu_disc,
        &mut settings.expire_nodest_conn,
        &mut settings.expire_quiescent_template,
        &mut settings.sloppy_tcp,
        &mut settings.sloppy_sctp,
        &mut settings.cache_bypass,
    ] {
        *switch = r.one_in(2);
    }
    settings.conn_reuse_mode = r.below(4) as u8;
    settings.vip_default = Random(r.0 ^ 0x517c_c1b7_2722_0a95).pick(&VipDefault::ALL);
    settings.defence.secure_tcp = r.pick(&[0, 0, 3]);
    model.set_settings(settings).unwrap();
    for line in &lines {
        let words: Vec<&str> = line.split(' ').collect();
        Command::from_args(&words).unwrap().apply(&mut model).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    let port = mark::Ports::new(MARKED, MARKED).map(mark::Test::is);
    let rule = |v6| MarkRule { destination_ports: port, ..MarkRule::all(v6, MARK) };
    model.set_marks([false, true].map(rule).into()).unwrap();
    let keys: Vec<ServiceKey> = model.services().iter().map(|service| service.key).collect();
    for key in keys {
        // Where they may be: else the Model refuses, and stays as it was.
        let Some(mut service) = model.service(&key).map(|service| service.without_servers()) else { continue };
        (service.stateless, service.quic) = (r.one_in(2), false);
        let _ = model.edit_service(&service);
        (service.stateless, service.quic) = (false, r.one_in(2));
        let _ = model.edit_service(&service);
        let (stateless, quic) = model.service(&key).map_or((false, false), |is| (is.stateless, is.quic));
        (service.stateless, service.quic, service.sources) = (stateless, quic, judgement(r, key.is_ipv6()));
        model.edit_service(&service).unwrap();
    }
    let (mtu_c, mtu_r) = (r.pick(&[1500, 1400]), r.pick(&[1500, 1400, 1280]));
    let bed = bed.cloned().unwrap_or_else(|| a_bed(mtu_c, mtu_r));
    Table { bed, model, services, lines }
}

/// Who may open connections: mostly all, or not some of the clients.
fn judgement(r: &Random, ipv6: bool) -> Sources {
    // Numbers of its own: the rest of a seed's table stays what it was.
    let r = &mut Random(r.0 ^ 0x9e37_79b9_7f4a_7c15);
    let prefixes: [&str; 4] = match ipv6 {
        false => ["203.0.113.0/24", "203.0.113.5", "198.51.100.0/22", "0.0.0.0/0"],
        true => ["2001:db8:5::/48", "2001:db8:5::5", "2001:db8:7::/63", "::/0"],
    };
    let mut sources = Sources::default();
    if r.one_in(4) {
        for prefix in prefixes.map(|text| mark::Prefix::parse(text).unwrap()) {
            match r.below(6) {
                0 | 1 => sources.allow.push(prefix),
                2 => sources.deny.push(prefix),
                _ => {}
            }
        }
    }
    sources
}

/// Another Model: other clients let in, a server weighed, limited, drained, removed or back, another scheduler, a
/// service away or back. What the Model refuses changes nothing.
fn altered(r: &mut Random, model: &Model, gone: &mut Vec<(ServiceKey, Server)>) -> Model {
    let mut after = model.clone();
    let Some(service) = (!model.services().is_empty()).then(|| r.pick(model.services())) else { return after };
    let key = service.key;
    let server = (!service.servers.is_empty()).then(|| r.pick(&service.servers));
    let _ = match (r.below(8), server) {
        (0, Some(server)) => after.edit_server(&key, Server { weight: r.below(4) as u32, ..server }),
        (1, Some(server)) => {
            let upper = r.below(5) as u32;
            after.edit_server(&key, Server { upper, lower: upper / 2, ..server })
        }
        (2, Some(server)) => after.edit_server(&key, Server { draining: !server.draining, ..server }),
        (3 | 4, Some(server)) => {
            gone.push((key, server.clone()));
            after.remove_server(&key, server.address, server.port)
        }
        (5, _) => {
            let scheduler = Scheduler::from_name(r.pick(&["rr", "wrr", "wlc", "sh", "mh", "lblc", "lblcr", "dh"]));
            let changed =
                scheduler.map(|scheduler| dirigent_config::Service { scheduler, ..service.without_servers() });
            changed.map_or(Ok(()), |service| after.edit_service(&service))
        }
        _ if gone.is_empty() => {
            let sources = judgement(r, key.is_ipv6());
            after.edit_service(&dirigent_config::Service { sources, ..service.without_servers() })
        }
        _ => {
            let (key, server) = gone.swap_remove(r.below(gone.len()));
            after.add_server(&key, server)
        }
    };
    after
}

fn a_bed(mtu_c: u32, mtu_r: u32) -> Bed {
    Bed::new(mtu_c, mtu_r, &ROUTES.map(String::from)).unwrap()
}

/// The ends of a flow: client and its port, service, server.
#[derive(Clone, Copy)]
struct Ends {
    client: IpAddr,
    port: u16,
    vip: IpAddr,
    vport: u16,
    server: (IpAddr, u16),
    protocol: u8,
}

fn ends(r: &mut Random, services: &[Known], from_servers: bool) -> Ends {
    let of = r.pick(services);
    let v6 = of.vip.is_ipv6();
    // Usual ones, a server as client, and some that cannot be (as destinations they would
    // ask the kernel's routing for more than the bed has).
    let odd = !from_servers && r.one_in(12);
    let client = match (v6, odd) {
        (false, false) => r.pick(&["203.0.113.5", "203.0.113.6", "198.51.100.7", "10.1.0.12"]),
        (false, true) => r.pick(&["127.0.0.1", "0.1.2.3", "240.0.0.1", "192.0.2.10", "169.254.1.1", "10.1.0.11"]),
        (true, false) => r.pick(&["2001:db8:5::5", "2001:db8:5::6", "2001:db8:7::1", "fd00:1::12"]),
        (true, true) => r.pick(&["::", "::1", "fe80::1", "ff02::1", "2001:db8::10", "fd00:1::11"]),
    };
    let fallback = (address(if v6 { "fd00:1::11" } else { "10.1.0.11" }), 8080);
    let server = if of.servers.is_empty() || r.one_in(20) { fallback } else { r.pick(&of.servers) };
    let vport = if r.one_in(15) { 81 } else { of.port };
    let (client, port) = (address(client), r.pick(&[4000, 4001, 4002, 20, 0]));
    let usual = Ends { client, port, vip: of.vip, vport, server, protocol: of.protocol };
    let agreed = r.pick(&AGREED);
    match r.below(6) {
        // Data of FTP: to where the server said, or to where the client did.
        0 | 1 if of.port == FTP => Ends { vport: agreed, server: (server.0, agreed), ..usual },
        2 if of.port == FTP => Ends { port: agreed, vport: FTP_DATA, server: (server.0, FTP_DATA), ..usual },
        _ => usual,
    }
}

/// What a client, or a server, says on a control connection of FTP, perhaps with something wrong.
fn line(r: &mut Random, e: &Ends, reply: bool) -> Vec<u8> {
    let agreed = r.pick(&AGREED);
    let (high, low) = (agreed >> 8, agreed & 255);
    let (of, v6) = (if reply { e.server.0 } else { e.client }, e.vip.is_ipv6());
    let commas = of.to_string().replace('.', ",");
    let mut line = match (reply, r.below(5)) {
        (_, 0) => "200 or NOOP\r\n".into(),
        (false, 1 | 2) => format!("PORT {commas},{high},{low}\r\n"),
        (false, _) => format!("EPRT |{}|{of}|{agreed}|\r\n", if v6 { 2 } else { 1 }),
        (true, 1 | 2) => format!("227 Entering Passive Mode ({commas},{high},{low}).\r\n"),
        (true, _) => format!("229 Entering Extended Passive Mode (|||{agreed}|)\r\n"),
    };
    if r.one_in(8) {
        line.truncate(r.below(line.len()));
    }
    line.into_bytes()
}

/// The beginning of a packet of QUIC with an id of this server.
fn quic(r: &mut Random, e: &Ends) -> Vec<u8> {
    let id: Vec<u8> = match e.server.0 {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets()[12..].into(),
    };
    let cid = [&[r.pick(&[0x09, 0x49, 0xe9])][..], &id, &[1, 2, 3, 4]].concat();
    let long = [&[r.pick(&[0xc3, 0xe3, 0xf0]), 0, 0, 0, 1, r.pick(&[9, 9, 20, 3])][..], &cid].concat();
    if r.one_in(2) { long } else { [&[0x40][..], &cid].concat() }
}

/// TCP, UDP or SCTP between these, perhaps odd.
fn segment(r: &mut Random, e: &Ends, reply: bool, size: usize) -> Vec<u8> {
    let ((src, sport), (dst, dport)) =
        if reply { (e.server, (e.client, e.port)) } else { ((e.client, e.port), (e.vip, e.vport)) };
    let mut payload: Vec<u8> = (0..size).map(|i| i as u8).collect();
    let control = e.vport == FTP || e.server.1 == FTP;
    if control && e.protocol == proto::TCP && !r.one_in(3) {
        payload = line(r, e, reply);
    } else if e.protocol == proto::UDP && r.one_in(3) {
        payload = quic(r, e);
    }
    let l4 = if e.protocol == proto::UDP {
        let mut udp = build::udp(src, dst, sport, dport, &payload);
        if r.one_in(8) {
            udp[6..8].fill(0);
        }
        udp
    } else if e.protocol == proto::SCTP {
        let chunk = if r.one_in(10) { r.below(256) as u8 } else { r.pick(&[1, 1, 1, 0, 2, 3, 10, 11, 6, 7, 8, 14]) };
        let mut chunks = [&[chunk, 0, 0, 4][..], &payload].concat();
        if r.one_in(8) {
            chunks = [&[10, 0, 0, 4 + r.below(5) as u8, 0, 0, 0, 0][..], &chunks].concat();
        }
        let mut sctp = build::sctp(sport, dport, &chunks);
        match r.below(16) {
            0 => sctp[8..12].fill(0),
            1 => sctp[9] ^= 4,
            2 => sctp.truncate(r.below(17)),
            _ => {}
        }
        sctp
    } else {
        let flags = if r.one_in(10) { r.below(256) as u8 } else { r.pick(&[2, 2, 2, 16, 24, 18, 17, 4, 20]) };
        build::tcp(src, dst, &Tcp { sport, dport, flags, seq: 1, ack: 1, payload: &payload })
    };
    build::ip(src, dst, e.protocol, &l4, &odd_header(r, src.is_ipv6(), e.protocol))
}

fn odd_header(r: &mut Random, v6: bool, protocol: u8) -> IpOptions {
    let mut with = IpOptions { ttl: if r.one_in(10) { r.below(3) as u8 } else { 64 }, ..IpOptions::default() };
    with.fragment = if r.one_in(3) { 0 } else { 0x4000 };
    if !r.one_in(6) {
        return with;
    }
    let p = protocol;
    match (v6, r.below(5)) {
        (false, 0) => with.fragment = 0x2000,
        (false, 1) => with.fragment = 0x00b9,
        (false, 2) => with.options = vec![1, 1, 1, 0],
        (false, 3) => with.options = vec![7, 7, 4, 0, 0, 0, 0, 0],
        (false, _) => with.options = vec![1, 131, 7, 4, 192, 0, 2, 1],
        (true, 0) => with.extensions = Some((44, vec![p, 0, 0, 1, 0, 0, 0, 7])),
        (true, 1) => with.extensions = Some((44, vec![p, 0, 0, 9, 0, 0, 0, 7])),
        (true, 2) => with.extensions = Some((44, vec![p, 0, 0, 0, 0, 0, 0, 7])),
        (true, 3) => with.extensions = Some((60, vec![p, 0, 1, 4, 0, 0, 0, 0])),
        (true, _) => with.extensions = Some((0, vec![43, 0, 1, 4, 0, 0, 0, 0, p, 0, 4, 0, 0, 0, 0, 0])),
    }
    with
}

/// An ICMP error: from beyond the servers about a request, or from beyond the clients
/// about an answer.
fn error(r: &mut Random, e: &Ends, from_servers: bool) -> Vec<u8> {
    let size = if r.one_in(10) { 1400 } else { r.below(64) };
    let v6 = e.vip.is_ipv6();
    let kind = match v6 {
        false => r.pick(&[(3, 3), (3, 4), (11, 0), (4, 0), (12, 0), (5, 1), (8, 0)]),
        true => r.pick(&[(1, 4), (2, 0), (3, 0), (4, 1), (100, 0), (129, 0)]),
    };
    // What the quote says was sent: to the server, or from the virtual address.
    let (vip, vport) = (e.vip, e.vport);
    let sent = if from_servers {
        Ends { vip: e.server.0, vport: e.server.1, ..*e }
    } else {
        Ends { server: (vip, vport), ..*e }
    };
    let about = segment(r, &sent, !from_servers, size);
    let (src, dst) = if from_servers { (e.server.0, e.client) } else { (e.client, e.vip) };
    let mut out = build::error(src, dst, kind, 1400, &about, if v6 { 1232 } else { 548 });
    if r.one_in(10) {
        out[if v6 { 7 } else { 8 }] = 1;
        mend(&mut out);
    }
    out
}

/// Makes the checksum of an IPv4 header right.
fn mend(p: &mut [u8]) {
    let header = p.first().map_or(0, |b| usize::from(b & 15) * 4);
    if p.first().is_some_and(|b| b >> 4 == 4) && header >= 20 && p.len() >= header {
        p[10..12].fill(0);
        let check = build::checksum(&[&p[..header]]);
        p[10..12].copy_from_slice(&check.to_be_bytes());
    }
}

/// Where probes come from: of NAT servers what leads back over the director, of others the director's own.
fn source(v6: bool, nat: bool) -> IpAddr {
    address(match (v6, nat) {
        (false, true) => "198.18.0.1",
        (true, true) => "fd00:198:18::1",
        (false, false) => "10.1.0.1",
        (true, false) => "fd00:1::1",
    })
}

/// Probes of some of the servers, and their ends with what answers them.
fn probes(r: &mut Random, model: &Model) -> (Vec<(Flow, Target)>, Vec<Ends>) {
    let (mut pins, mut all) = (Vec::new(), Vec::new());
    for (number, service) in (0..).zip(model.services()) {
        let ServiceKey::Address { protocol, address: vip, port } = service.key else { continue };
        let vport = if port == 0 { ANY } else { port };
        for server in service.servers.iter().filter(|_| r.one_in(2)) {
            let nat = server.method == Method::Nat;
            let from = SocketAddr::new(source(vip.is_ipv6(), nat), 20_000 + number);
            let flow = Flow::of_probe(protocol.number(), from, SocketAddr::new(vip, vport));
            pins.push((flow, Target { address: server.address, port: server.port, method: server.method }));
            let own = if server.port == 0 { vport } else { server.port };
            let server = if nat { (server.address, own) } else { (vip, vport) };
            all.push(Ends { client: from.ip(), port: from.port(), vip, vport, server, protocol: protocol.number() });
        }
    }
    (pins, all)
}

/// A frame of a probe or for one, now and then by the wrong interface or of a port that is not pinned.
fn probe_frame(r: &mut Random, probes: &[Ends]) -> Option<(Side, Vec<u8>, Ends)> {
    if probes.is_empty() || !r.one_in(5) {
        return None;
    }
    let mut ends = r.pick(probes);
    ends.port += u16::from(r.one_in(12));
    let from_servers = r.one_in(2);
    let (mut side, mut frame, ends) = frame(r, &[], &[ends], Some(from_servers));
    if !from_servers {
        side = if r.one_in(15) { Side::C } else { Side::P };
        if frame[5] != 0x55 {
            frame[..6].copy_from_slice(&side.mac());
        }
    }
    Some((side, frame, ends))
}

/// A frame of one of these flows, or of a new one; of `whose` always of one of them, from servers or not.
fn frame(r: &mut Random, services: &[Known], live: &[Ends], whose: Option<bool>) -> (Side, Vec<u8>, Ends) {
    let from_servers = whose.unwrap_or_else(|| r.one_in(2));
    let known = whose.is_some() || !live.is_empty() && !r.one_in(3);
    let e = if known { r.pick(live) } else { ends(r, services, from_servers) };
    let size = if r.one_in(8) { 1200 + r.below(320) } else { r.below(40) };
    let mut packet = match r.below(8) {
        0 | 1 => error(r, &e, from_servers),
        2 if r.one_in(4) => {
            let with = odd_header(r, e.vip.is_ipv6(), 50);
            build::ip(e.client, e.vip, 50, &[7; 24], &with)
        }
        _ => segment(r, &e, from_servers, size),
    };
    // Damage, unnoticed by the header's checksum or not.
    if r.one_in(6) {
        for _ in 0..=r.below(3) {
            let at = r.below(packet.len().min(120));
            packet[at] ^= 1 << r.below(8);
        }
        if r.one_in(2) {
            mend(&mut packet);
        }
    }
    if r.one_in(12) {
        packet.truncate(20 + r.below(80));
    }
    if r.one_in(12) {
        packet.extend(vec![0xee; r.below(20)]);
    }
    // BPF_PROG_TEST_RUN takes no less than an IP header.
    let least = if packet[0] >> 4 == 6 { 40 } else { 20 };
    packet.resize(packet.len().max(least), 0);
    let side = if from_servers { Side::R } else { Side::C };
    let mac = if r.one_in(40) { [2, 0, 0, 0, 0, 0x55] } else { side.mac() };
    let mut frame = build::eth(mac, [2, 0, 0, 0, 0, 0xfe], &packet);
    if r.one_in(25) {
        let tci = r.pick(&[0u8, 0, 5]);
        frame.splice(12..12, [0x81, 0, 0x20, tci]);
    }
    (side, frame, e)
}

/// The server that a client's packet went to.
fn went_to(out: &[u8]) -> Option<(IpAddr, u16)> {
    let packet = packet_of(out)?;
    let ip = Ip::read(packet)?;
    Some((ip.dst, ip.ports(packet)?.1))
}

fn about(bed: &Bed, model: &Model, lines: &[String]) -> String {
    let beyond = model.services().iter().filter(|s| s.stateless || s.quic || !s.sources.is_empty());
    let beyond: Vec<_> = beyond
        .map(|s| {
            let (stateless, quic) = (["", " stateless"][usize::from(s.stateless)], ["", " quic"][usize::from(s.quic)]);
            format!("  {}{stateless}{quic} {:?}", s.key, s.sources)
        })
        .collect();
    format!(
        "MTU {} and {}, {:?}\nconn_reuse_mode {} secure_tcp {}\n  {}\n{}",
        bed.mtu_c,
        bed.mtu_r,
        model.settings().switches(),
        model.settings().conn_reuse_mode,
        model.settings().defence.secure_tcp,
        lines.join("\n  "),
        beyond.join("\n")
    )
}

/// What one did with a frame, for people.
fn show(name: &str, does: &Does, reason: Option<Reason>) -> String {
    let (what, frame) = match does {
        Does::Drop => ("drop".into(), String::new()),
        Does::ToHost(f) => ("to the host".into(), describe(f)),
        Does::Out(s, f) => (format!("out of {}", s.name()), describe(f)),
        Does::Pieces(pieces) => (format!("{} pieces", pieces.len()), String::new()),
        Does::Resolve(s, f, _) => (format!("out of {}, neighbour to be found", s.name()), describe(f)),
    };
    format!("\n  {name}: {what} ({}) {frame}", reason.map_or("?", |reason| reason.name()))
}

/// Flows that servers have got packets of.
fn learn(live: &mut Vec<Ends>, ends: Ends, why: Option<Reason>, does: &Does) {
    if let (Some(Reason::Request), Does::Out(_, out) | Does::Resolve(_, out, _)) = (why, does) {
        live.extend(
            went_to(out).filter(|(to, _)| to.is_ipv6() == ends.vip.is_ipv6()).map(|server| Ends { server, ..ends }),
        );
    }
}

/// How often what was met.
type Met = std::collections::BTreeMap<String, usize>;

/// Runs a frame, which must come to the same everywhere; says to what.
fn run_one(
    executors: &mut [Box<dyn Executor>],
    (side, frame): (Side, &[u8]),
    about: &str,
    met: &mut Met,
) -> (Does, Option<Reason>) {
    let run = |executor: &mut Box<dyn Executor>| {
        let (does, verdict) = executor.run(side, frame).unwrap_or_else(|e| panic!("{about}, {}: {e}", executor.name()));
        (executor.name(), does, verdict.map(|verdict| verdict.reason))
    };
    let outcomes: Vec<_> = executors.iter_mut().map(run).collect();
    let (_, first, why) = &outcomes[0];
    *met.entry(why.map_or("?", |why| why.name()).into()).or_default() += 1;
    if !outcomes.iter().all(|(_, does, reason)| same_deed(side, frame, first, does) && reason == why) {
        let shown: String = outcomes.iter().map(|(name, does, why)| show(name, does, *why)).collect();
        panic!("{about} by {}: {}{shown}", side.name(), describe(frame));
    }
    (first.clone(), *why)
}

fn one_table(executors: &mut [Box<dyn Executor>], seed: u64, met: &mut Met) {
    let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let Table { bed, mut model, services, lines } = table(&mut r, None);
    for executor in executors.iter_mut() {
        executor.set_up(&bed, &model).unwrap();
    }
    let mut about = format!("DIRIGENT_SEED={seed}, {}", about(&bed, &model, &lines));
    let (mut live, mut gone) = (Vec::new(), Vec::new());
    // Numbers of their own: all else stays what it was.
    let (mut apart, mut probing) = (Random(r.0 ^ 0x517c_c1b7_2722_0a95), Vec::new());
    let mut failing = Random(r.0 ^ 0x6a09_e667_f3bc_c908);
    for number in 0..FRAMES {
        if r.one_in(15) {
            let after = altered(&mut r, &model, &mut gone);
            let plan = Plan::between(&model, &after);
            about += &format!("\nbefore frame {number}: {:?}", plan.ops);
            executors.iter_mut().for_each(|executor| executor.change(&plan).unwrap());
            *met.entry("a change".into()).or_default() += plan.ops.len();
            model = after;
        }
        if failing.one_in(40) {
            // Of health's making, whatever else is said of the servers.
            let all = model
                .services()
                .iter()
                .flat_map(|s| s.servers.iter().map(|server| (s.key, server.address, server.port)));
            let failed: Vec<_> = all.filter(|_| !failing.one_in(3)).collect();
            about += &format!("\nbefore frame {number} failed: {failed:?}");
            let ended: Vec<_> = executors.iter_mut().map(|executor| executor.fail(&failed).unwrap()).collect();
            assert!(ended.iter().all(|one| *one == ended[0]), "{about}\nended, to be told: {ended:?}");
        }
        if number == FRAMES / 2 {
            // Not near any timeout, of states or of persistence.
            let seconds = r.pick(&[0, 40, 200]);
            about += &format!("\nbefore frame {number}: {seconds} seconds");
            let swept: Vec<_> = executors.iter_mut().map(|executor| executor.sweep_after(seconds).unwrap()).collect();
            assert!(swept.iter().all(|one| *one == swept[0]), "{about}\ngone and still alive: {swept:?}");
        }
        if number % (FRAMES / 4) == FRAMES / 8 {
            let probed = probes(&mut apart, &model);
            let pinned: Vec<_> = executors.iter_mut().map(|executor| executor.probe(&probed.0).unwrap()).collect();
            assert!(pinned.iter().all(|one| *one == pinned[0]), "{about}\npinned: {pinned:?} of {:?}", probed.0);
            about += &format!("\nbefore frame {number}: pins {:?} of {:?}", pinned[0], probed.0);
            probing = probed.1;
        }
        if let Some((side, frame, _)) = probe_frame(&mut apart, &probing) {
            run_one(executors, (side, &frame), &format!("{about}\nprobe before frame {number}"), met);
        }
        let (side, frame, ends) = frame(&mut r, &services, &live, None);
        let (does, why) = run_one(executors, (side, &frame), &format!("{about}\nframe {number}"), met);
        learn(&mut live, ends, why, &does);
    }
    let rows: Vec<_> = executors.iter_mut().map(|executor| executor.conns().unwrap()).collect();
    for (executor, got) in executors.iter().zip(&rows) {
        assert!(same_rows(&rows[0], got), "{about}\nrows in memory: {:#?}\n{}: {got:#?}", rows[0], executor.name());
    }
    for [protocol, state, ..] in &rows[0] {
        *met.entry(format!("{protocol} {state}")).or_default() += 1;
    }
    let loads: Vec<_> = executors.iter_mut().map(|executor| executor.loads().unwrap()).collect();
    assert!(loads.iter().all(|one| *one == loads[0]), "{about}\nweights, active and inactive: {loads:#?}");
}

/// That they agree says little unless frames come far: through each kind of service.
fn came_far(met: &Met) {
    for what in [
        "request",
        "reply",
        "icmp_request",
        "icmp_reply",
        "probe_reply",
        "unpinned",
        "no_server",
        "denied",
        "too_big",
        "ttl_expired",
        "no_route",
        "a change",
        "reset",
        "TCP LISTEN",
        "TCP ASSURED",
        "UDP ASSURED",
        "IP ",
        "SCTP ESTABLISHED",
    ] {
        assert!(met.keys().any(|met| met.starts_with(what)), "nothing came to {what}: {met:?}");
    }
}

/// What is taken for easy comes to the same as what is not, and XDP's part and tc's to the same
/// as tc's alone, and all of it is foretold: in memory, so many more tables.
#[test]
fn easy_and_slow_stages_agree_on_random_tables() {
    let mut executors: Vec<Box<dyn Executor>> =
        [Plays::Tc, Plays::SlowTc, Plays::Foretold].map(|plays| Box::new(Memory::playing(plays)) as _).into();
    let mut met = Met::new();
    match number("DIRIGENT_SEED") {
        Some(seed) => one_table(&mut executors, seed, &mut met),
        None => {
            (1..=60).for_each(|seed| one_table(&mut executors, seed, &mut met));
            came_far(&met);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Needs root.
#[test]
fn memory_xdp_and_tc_agree_on_random_tables() {
    let seeds = match number("DIRIGENT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("DIRIGENT_RANDOM_TABLES").unwrap_or(TABLES),
    };
    let one = seeds.end - seeds.start < TABLES;
    let mut executors: Vec<Box<dyn Executor>> =
        vec![Box::new(Memory::default()), Box::new(InKernel::new(Path::Xdp)), Box::new(InKernel::new(Path::Tc))];
    let mut met = Met::new();
    for seed in seeds {
        if seed % 10 == 0 {
            eprintln!("table {seed}");
        }
        one_table(&mut executors, seed, &mut met);
    }
    println!("{met:?}");
    if !one {
        came_far(&met);
    }
}

/// Frames through each of many tables, and how many tables one set of loaded programs gets.
const MANY: usize = 2000;
const PER_BED: usize = 400_000;

/// A table and its frames: in memory first, which makes the flows known that the frames are
/// then of; the others take them at once. `Err`: they disagree.
fn many_frames(memory: &mut Memory, kernels: &mut [InKernel], bed: &Bed, seed: u64) -> Result<Vec<u64>, String> {
    let mut r = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let Table { model, services, lines, .. } = table(&mut r, Some(bed));
    let about = format!("table {seed}: {}", about(bed, &model, &lines));
    memory.set_up(bed, &model)?;
    let (mut live, mut frames, mut did) = (Vec::new(), Vec::new(), Vec::new());
    let mut apart = Random(r.0 ^ 0x517c_c1b7_2722_0a95);
    let (probed, probing) = probes(&mut apart, &model);
    memory.probe(&probed)?;
    for _ in 0..MANY {
        let (side, frame, ends) =
            probe_frame(&mut apart, &probing).unwrap_or_else(|| frame(&mut r, &services, &live, None));
        let (does, verdict) = memory.run(side, &frame)?;
        // Nor does time pass in the kernel: see `run_all`.
        let tables = memory.tables().ok_or("no tables")?;
        tables.now = tables.now.wrapping_sub(dirigent_testkit::golden::memory::TICKS);
        if side != Side::P {
            learn(&mut live, ends, verdict.map(|v| v.reason), &does);
        }
        frames.push((side, frame));
        did.push((does, verdict.map(|v| v.reason)));
    }
    let frames = std::sync::Arc::new(frames);
    let taken: Vec<Result<Taken, String>> = std::thread::scope(|scope| {
        let run = |kernel: &mut InKernel, frames| {
            kernel.set_up(bed, &model)?;
            kernel.probe(&probed)?;
            kernel.run_all(frames)
        };
        let running: Vec<_> = kernels
            .iter_mut()
            .map(|kernel| (frames.clone(), kernel))
            .map(|(f, k)| scope.spawn(move || run(k, f)))
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut counted = vec![0; Reason::ALL.len()];
    did.iter().filter_map(|(_, why)| *why).for_each(|why| counted[why as usize] += 1);
    let rows = memory.conns()?;
    for (kernel, taken) in kernels.iter_mut().zip(taken) {
        let Taken { does, reasons: rose, rows: got } = taken.map_err(|e| format!("{about}\n{}: {e}", kernel.name()))?;
        for (number, ((side, frame), ((ours, why), theirs))) in frames.iter().zip(did.iter().zip(&does)).enumerate() {
            if !same_deed(*side, frame, ours, theirs) {
                let (ours, theirs) = (show("memory", ours, *why), show(kernel.name(), theirs, None));
                return Err(format!("{about}\nframe {number} by {}: {}{ours}{theirs}", side.name(), describe(frame)));
            }
        }
        for reason in Reason::ALL {
            // XDP's word to tc, and pieces after the first, that come by again.
            let more = matches!(reason, Reason::HandedToTc | Reason::Request | Reason::Reply | Reason::IcmpRequest);
            let (ours, theirs) = (counted[*reason as usize], rose[*reason as usize]);
            if ours != theirs && !(more || *reason == Reason::IcmpReply && ours < theirs) {
                return Err(format!("{about}\n{}: {} {theirs} times, in memory {ours}", kernel.name(), reason.name()));
            }
        }
        if !same_rows(&rows, &got) {
            return Err(format!("{about}\nrows in memory: {rows:#?}\n{}: {got:#?}", kernel.name()));
        }
    }
    Ok(counted)
}

/// Needs root. `DIRIGENT_RANDOM_FRAMES=N` for so many, `DIRIGENT_RANDOM_SEED=N` to begin with
/// another table.
#[test]
fn memory_xdp_and_tc_agree_on_many_frames() {
    let wanted = number("DIRIGENT_RANDOM_FRAMES").map_or(4 * MANY, |frames| frames as usize);
    let mut seed = number("DIRIGENT_RANDOM_SEED").unwrap_or(1);
    let mut kernels = [InKernel::new(Path::Xdp), InKernel::new(Path::Tc)];
    let mut memory = Memory::default();
    let (begun, mut done) = (std::time::Instant::now(), 0);
    let mut met = vec![0u64; Reason::ALL.len()];
    while done < wanted {
        let [mtu_c, mtu_r] = [[1500, 1500], [1500, 1400], [1400, 1500], [1500, 1280], [1400, 1280]][done / PER_BED % 5];
        let bed = a_bed(mtu_c, mtu_r);
        let until = wanted.min((done / PER_BED + 1) * PER_BED);
        while done < until {
            match many_frames(&mut memory, &mut kernels, &bed, seed) {
                Ok(counted) => counted.iter().zip(&mut met).for_each(|(n, sum)| *sum += n),
                Err(why) => panic!("{why}"),
            }
            (seed, done) = (seed + 1, done + MANY);
            if done % 100_000 == 0 {
                eprintln!("{done} of {wanted} frames after {} s", begun.elapsed().as_secs());
            }
        }
    }
    let met: Vec<_> = Reason::ALL.iter().zip(&met).filter(|(_, n)| **n > 0).map(|(r, n)| (r.name(), *n)).collect();
    println!("{done} frames in {} s: {met:?}", begun.elapsed().as_secs());
}
