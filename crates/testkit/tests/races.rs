//! Two CPUs at once in the kernel: connections that come and go on one while the other forwards,
//! one packet that comes on both, and a recount after all of it. Needs root and two CPUs.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use dirigent_config::{Command, Model, Plan};
use dirigent_datapath::control::{Store as _, Sweep, tally};
use dirigent_director::tcp;
use dirigent_testkit::golden::kernel::{Path, Programs};
use dirigent_testkit::golden::{Bed, Does, Side, tables};
use dirigent_testkit::packet::{self as build, IpOptions, Tcp, flag, proto};

/// A thread in a namespace of its own, that has its children in it.
fn in_namespace<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// This thread runs on that CPU alone, if there is one.
fn pin(cpu: usize) {
    // SAFETY: a set on the stack, of the size that is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        let outcome = libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        assert_eq!(outcome, 0, "these tests need two CPUs: {}", std::io::Error::last_os_error());
    }
}

fn model(rules: &[&str]) -> Model {
    let mut model = Model::default();
    apply(&mut model, rules);
    model
}

fn apply(model: &mut Model, rules: &[&str]) {
    for line in rules {
        let words: Vec<&str> = line.split_whitespace().collect();
        Command::from_args(&words).unwrap().apply(model).unwrap();
    }
}

/// Packets of the first test on each CPU.
fn packets() -> u32 {
    std::env::var("DIRIGENT_RACE_PACKETS").map_or(60_000, |n| n.parse().expect("DIRIGENT_RACE_PACKETS"))
}

fn frame(from: (IpAddr, u16), to: (IpAddr, u16), protocol: u8, flags: u8, side: Side) -> Vec<u8> {
    let l4 = match protocol {
        proto::TCP => {
            let tcp = Tcp { sport: from.1, dport: to.1, flags, seq: 1, ack: 1, payload: b"" };
            build::tcp(from.0, to.0, &tcp)
        }
        _ => build::udp(from.0, to.0, from.1, to.1, b"ping"),
    };
    let ip = build::ip(from.0, to.0, protocol, &l4, &IpOptions::default());
    build::eth(side.mac(), [2, 0, 0, 0, 0, 0xfe], &ip)
}

fn client(n: u32) -> (IpAddr, u16) {
    (Ipv4Addr::from(0xcb00_7100 + n / 1000).into(), 20_000 + (n % 1000) as u16)
}

fn vip(last: u8) -> (IpAddr, u16) {
    (Ipv4Addr::new(192, 0, 2, last).into(), 80)
}

/// Where a request goes: the server's last byte by the address that was written (NAT).
fn to(does: &Does) -> Option<u8> {
    match does {
        Does::Out(Side::R, out) => Some(out[33]),
        _ => None,
    }
}

/// Servers are a function of client and service (sh with ports), so that every packet's server
/// is known, whichever connection its entry was a moment ago.
const HASHED: [&str; 6] = [
    "-A -t 192.0.2.10:80 -s sh -b sh-port",
    "-a -t 192.0.2.10:80 -r 10.1.0.11:8080 -m",
    "-a -t 192.0.2.10:80 -r 10.1.0.12:8080 -m",
    "-A -t 192.0.2.11:80 -s sh -b sh-port",
    "-a -t 192.0.2.11:80 -r 10.1.0.13:8080 -m",
    "-a -t 192.0.2.11:80 -r 10.1.0.14:8080 -m",
];

/// What was sent to each server, by its last byte: packets.
type Sent = HashMap<u8, u64>;

/// Connections come and go on one CPU, the other forwards packets of lasting ones and of those
/// that come and go: elements of the tables are used again while somebody holds them. No packet
/// goes to a wrong server, and no other server's counters move.
fn connections_come_and_go(path: Path) {
    const LASTING: u32 = 64;
    const PASSING: u32 = 1500;
    let (programs, mut control) = Programs::direct(&Bed::with_servers(4, &[]).unwrap(), &model(&HASHED)).unwrap();
    let of = |n: u32| if n.is_multiple_of(2) { vip(10) } else { vip(11) };
    let run = |n: u32, flags: u8| {
        to(&programs.does(path, Side::C, &frame(client(n), of(n), proto::TCP, flags, Side::C)).unwrap())
    };
    let mut sent = Sent::new();
    // The servers of all, one after the other: the hash says the same each time.
    let servers: Vec<u8> = (0..LASTING + PASSING)
        .map(|n| {
            let server = run(n, flag::SYN).expect("a new connection has a server");
            *sent.entry(server).or_default() += 1;
            server
        })
        .collect();
    for n in 0..LASTING {
        let answer = frame(
            ([10, 1, 0, servers[n as usize]].into(), 8080),
            client(n),
            proto::TCP,
            flag::SYN | flag::ACK,
            Side::R,
        );
        assert!(matches!(programs.does(path, Side::R, &answer).unwrap(), Does::Out(Side::C, _)));
        assert_eq!(run(n, flag::ACK), Some(servers[n as usize]));
        *sent.entry(servers[n as usize]).or_default() += 1;
    }
    // From now on a tick later the next SYN opens a new one, in an element that was another.s.
    let store = control.store_mut();
    let mut settings = store.settings().unwrap();
    settings.tcp_timeouts[tcp::State::SynRecv as usize] = 1;
    store.put_settings(&settings).unwrap();

    let count = packets();
    let worker = |cpu: usize, forwards: bool| {
        pin(cpu);
        let mut mine = Sent::new();
        for i in 0..count {
            let passing = LASTING + i.wrapping_mul(7) % PASSING;
            let (n, flags) = match (forwards, i % 3) {
                (false, _) => (passing, flag::SYN),
                (true, 0) => (passing, flag::ACK),
                (true, _) => (i % LASTING, flag::ACK),
            };
            let went = run(n, flags);
            let known = servers[n as usize];
            match went {
                Some(server) => {
                    assert_eq!(server, known, "client {n}, flags {flags:#x}, packet {i}");
                    *mine.entry(server).or_default() += 1;
                }
                // What came and went: the host answers, and where the other CPU is just opening
                // it, or the table has no element free at that instant, the client comes again.
                None => assert!(n >= LASTING, "a lasting connection's packet {i} went nowhere"),
            }
        }
        mine
    };
    let (opened, forwarded) = std::thread::scope(|scope| {
        let opener = scope.spawn(|| worker(0, false));
        let forwarder = scope.spawn(|| worker(1, true));
        (opener.join().unwrap(), forwarder.join().unwrap())
    });
    for (server, packets) in opened.into_iter().chain(forwarded) {
        *sent.entry(server).or_default() += packets;
    }
    let store = control.store();
    let tally = tally::read(store).unwrap();
    let reopened = tally.total.conns - u64::from(LASTING + PASSING);
    println!("{path:?}: {} packets, {reopened} connections came and went", 2 * count);
    assert!(reopened > u64::from(count) / 50, "only {reopened} connections came and went");
    for (index, counters) in tally.servers {
        let last = store.server(index).unwrap().addr[1].to_ne_bytes()[1];
        assert_eq!(counters.in_packets, sent.get(&last).copied().unwrap_or(0), "packets of server {last}");
    }
    // In the end nothing is left, and nothing is counted.
    tables::empty(control).unwrap();
}

#[test]
fn connections_come_and_go_beside_forwarding_on_xdp() {
    in_namespace(|| connections_come_and_go(Path::Xdp));
}

#[test]
fn connections_come_and_go_beside_forwarding_on_tc() {
    in_namespace(|| connections_come_and_go(Path::Tc));
}

const SERVICES: [&str; 21] = [
    "-A -t 192.0.2.10:80 -s rr",
    "-a -t 192.0.2.10:80 -r 10.1.0.11:8080 -m",
    "-a -t 192.0.2.10:80 -r 10.1.0.12:8080 -m",
    "-A -t 192.0.2.11:80 -s wlc -p 60",
    "-a -t 192.0.2.11:80 -r 10.1.0.11:80 -m",
    "-a -t 192.0.2.11:80 -r 10.1.0.12:80 -m",
    "-A -u 192.0.2.12:80 -s wrr",
    "-a -u 192.0.2.12:80 -r 10.1.0.11:80 -g -w 2",
    "-a -u 192.0.2.12:80 -r 10.1.0.12:80 -g",
    "-A -t [2001:db8::10]:80 -s rr",
    "-a -t [2001:db8::10]:80 -r [fd00:1::11]:8080 -m",
    "-a -t [2001:db8::10]:80 -r [fd00:1::12]:8080 -m",
    "-A -t [2001:db8::11]:80 -s rr -p 60",
    "-a -t [2001:db8::11]:80 -r [fd00:1::11]:80 -g",
    "-a -t [2001:db8::11]:80 -r [fd00:1::12]:80 -g",
    "-A -u [2001:db8::12]:80 -s wrr",
    "-a -u [2001:db8::12]:80 -r [fd00:1::11]:80 -m",
    "-a -u [2001:db8::12]:80 -r [fd00:1::12]:80 -m",
    "-A -u 192.0.2.11:80 -s rr -p 60",
    "-a -u 192.0.2.11:80 -r 10.1.0.11:80 -m",
    "-a -u 192.0.2.11:80 -r 10.1.0.12:80 -m",
];

/// Of these: protocol, virtual address, and the servers' port where answers come by here.
const PLACES: [(u8, &str, u16); 7] = [
    (proto::TCP, "192.0.2.10", 8080),
    (proto::TCP, "192.0.2.11", 80),
    (proto::UDP, "192.0.2.12", 0),
    (proto::TCP, "2001:db8::10", 8080),
    (proto::TCP, "2001:db8::11", 0),
    (proto::UDP, "2001:db8::12", 80),
    (proto::UDP, "192.0.2.11", 80),
];

/// A client of that family with an address of its own.
fn somebody(v6: bool, n: u32) -> (IpAddr, u16) {
    let address = match v6 {
        false => Ipv4Addr::from(0xc633_6400 + n).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 1, n as u16).into(),
    };
    (address, 20_000)
}

/// The same first packet on two CPUs at the same instant: one connection, one server. Each client
/// is new: where a service is persistent they race for its template too.
fn one_packet_on_two_cpus(path: Path) {
    const RACES: u32 = 300 * PLACES.len() as u32;
    let (programs, mut control) = Programs::direct(&Bed::with_servers(2, &[]).unwrap(), &model(&SERVICES)).unwrap();
    let gate = Barrier::new(2);
    let send = |n: u32, at: Option<&Barrier>| {
        let (protocol, address, _) = PLACES[n as usize % PLACES.len()];
        let vip: IpAddr = address.parse().unwrap();
        let frame = frame(somebody(vip.is_ipv6(), n), (vip, 80), protocol, flag::SYN, Side::C);
        at.map(Barrier::wait);
        match programs.does(path, Side::C, &frame).unwrap() {
            Does::Out(Side::R, out) => Some(out),
            _ => None,
        }
    };
    let racer = |cpu: usize| {
        pin(cpu);
        (0..RACES).map(|n| send(n, Some(&gate))).collect::<Vec<_>>()
    };
    let (one, other) = std::thread::scope(|scope| {
        let threads = [0, 1].map(|cpu| scope.spawn(move || racer(cpu)));
        let [one, other] = threads.map(|thread| thread.join().unwrap());
        (one, other)
    });
    // A CPU that the machine holds up between its two entries keeps the other waiting for longer
    // than tail calls last. That one's packet is lost, and its client's next goes the same way.
    let mut again = 0;
    for (n, (one, other)) in (0..).zip(one.into_iter().zip(other)) {
        again += usize::from(one.is_none() || other.is_none());
        let (one, other) = (one.or_else(|| send(n, None)), other.or_else(|| send(n, None)));
        assert!(one.is_some() && one == other, "race {n}: {one:02x?} and {other:02x?}");
    }
    assert!(again < RACES as usize / 100, "{again} packets were lost");
    let tally = tables::tally(&control).unwrap();
    assert_eq!((tally.total.conns, tally.total.in_packets), (RACES.into(), u64::from(RACES) * 2));
    let loads: u32 = tables::loads(&control).unwrap().iter().map(|load| load.counts[1] + load.counts[2]).sum();
    assert_eq!(loads, RACES);
    let rows = tables::rows(&control).unwrap();
    assert_eq!(rows.iter().filter(|row| !row[3].ends_with(":0")).count() as u32, RACES);
    // Of three services each client has a template, and no more than one.
    assert_eq!(rows.iter().filter(|row| row[3].ends_with(":0")).count() as u32, RACES / PLACES.len() as u32 * 3);
    control.change_to(&Model::default()).unwrap();
    tables::empty(control).unwrap();
}

#[test]
fn one_packet_on_two_cpus_makes_one_connection_on_xdp() {
    in_namespace(|| one_packet_on_two_cpus(Path::Xdp));
}

#[test]
fn one_packet_on_two_cpus_makes_one_connection_on_tc() {
    in_namespace(|| one_packet_on_two_cpus(Path::Tc));
}

/// Packets of few connections on two CPUs, the sweep, time that runs, servers that are weighed,
/// removed and added: in the end a recount gives what is counted.
#[test]
fn counters_equal_a_recount_after_two_cpus() {
    in_namespace(|| {
        let before = model(&SERVICES);
        let bed = Bed::with_servers(2, &[]).unwrap();
        let (programs, mut control) = Programs::direct(&bed, &before).unwrap();
        let ended = AtomicBool::new(false);
        let worker = |cpu: usize| {
            pin(cpu);
            let mut seed = cpu as u32 + 1;
            let mut draw = |below: u32| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 8) % below
            };
            for _ in 0..packets() / 2 {
                let (n, (protocol, address, port)) = (draw(12), PLACES[draw(PLACES.len() as u32) as usize]);
                let vip: IpAddr = address.parse().unwrap();
                let who = somebody(vip.is_ipv6(), n / 4);
                let (who, server) = ((who.0, who.1 + (n % 4) as u16), 11 + draw(2) as u8);
                let flags =
                    [flag::SYN, flag::ACK, flag::FIN | flag::ACK, flag::RST, flag::SYN | flag::ACK][draw(5) as usize];
                let path = if draw(2) == 0 { Path::Xdp } else { Path::Tc };
                let (side, from, to) = match draw(3) {
                    0 if port != 0 => {
                        let server: IpAddr = match vip {
                            IpAddr::V4(_) => [10, 1, 0, server].into(),
                            IpAddr::V6(_) => format!("fd00:1::{server}").parse().unwrap(),
                        };
                        (Side::R, (server, port), who)
                    }
                    _ => (Side::C, who, (vip, 80)),
                };
                programs.does(path, side, &frame(from, to, protocol, flags, side)).unwrap();
            }
        };
        std::thread::scope(|scope| {
            let workers = [0, 1].map(|cpu| scope.spawn(move || worker(cpu)));
            let user_space = scope.spawn(|| {
                let mut round = 0u32;
                while !ended.load(Ordering::Relaxed) {
                    let mut after = before.clone();
                    apply(
                        &mut after,
                        match round % 7 {
                            0 => &["-d -t 192.0.2.10:80 -r 10.1.0.11:8080"][..],
                            1 => &["-e -t 192.0.2.11:80 -r 10.1.0.12:80 -m -w 0"],
                            2 => &["-e -u 192.0.2.12:80 -r 10.1.0.11:80 -g -w 5 -x 2"],
                            3 => &["-D -t 192.0.2.11:80"],
                            4 => &["-d -t [2001:db8::11]:80 -r [fd00:1::12]:80"],
                            5 => &["-e -t [2001:db8::10]:80 -r [fd00:1::11]:8080 -m -x 3 -y 1"],
                            _ => &[],
                        },
                    );
                    let plan = Plan::between(control.model(), &after);
                    tables::change(&mut control, programs.bed(), &plan).unwrap();
                    tables::sweep_after(&mut control, [0, 1, 30, 200][(round / 7 % 4) as usize]).unwrap();
                    round += 1;
                }
                (round, control)
            });
            let workers = workers.map(|worker| worker.join());
            // Whatever became of them, or nobody would ever be told.
            ended.store(true, Ordering::Relaxed);
            let (rounds, mut control) = user_space.join().unwrap();
            workers.into_iter().for_each(|worker| worker.unwrap());
            assert!(rounds > 10, "{rounds}");
            let plan = Plan::between(control.model(), &before);
            tables::change(&mut control, programs.bed(), &plan).unwrap();
            // Counted and there, by server; then all of it ends, and nothing is counted.
            let rows = tables::rows(&control).unwrap();
            let mut counted: u32 = 0;
            for index in 0..control.store().room().servers {
                let (active, inactive) = control.store().server(index).unwrap().connections();
                counted += active + inactive;
            }
            let there = rows.iter().filter(|row| !row[3].ends_with(":0")).count();
            assert_eq!(counted as usize, there, "{rows:#?}");
            Sweep::default().run(control.store_mut(), &mut || ()).unwrap();
            tables::empty(control).unwrap();
        });
    });
}
