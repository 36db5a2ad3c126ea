//! What goes beyond IPVS, in memory, on XDP and on tc: connections that go on with a director
//! that knows nothing of them, and QUIC clients that come from elsewhere. Needs root.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dirigent_config::{Model, Plan};
use dirigent_datapath::memory::Capacity;
use dirigent_director::Reason;
use dirigent_testkit::decode::{Ip, packet as packet_of, unhex};
use dirigent_testkit::golden::kernel::{InKernel, Path};
use dirigent_testkit::golden::{Bed, Does, Executor, Side, memory::Memory};
use dirigent_testkit::packet::{self as build, IpOptions, Tcp, flag, proto};

fn executors() -> Vec<Box<dyn Executor>> {
    // For two tables of mh of the larger sizes, and those that they take the place of.
    let room = Capacity { slots: 1 << 18, ..Capacity::default() };
    vec![Box::new(Memory::with_room(room)), Box::new(InKernel::new(Path::Xdp)), Box::new(InKernel::new(Path::Tc))]
}

fn model(text: &str) -> Model {
    dirigent_config::file::parse("test", &format!("version = 1\n{text}")).unwrap_or_else(|e| panic!("{e}"))
}

fn client(v6: bool, n: u32) -> IpAddr {
    let [_, _, high, low] = n.to_be_bytes();
    match v6 {
        false => Ipv4Addr::new(203, 0, 113 + high, low).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, n as u16).into(),
    }
}

fn vip(v6: bool) -> IpAddr {
    if v6 { "2001:db8::10" } else { "192.0.2.10" }.parse().unwrap()
}

fn frame(src: IpAddr, dst: IpAddr, protocol: u8, l4: &[u8]) -> Vec<u8> {
    build::eth(Side::C.mac(), [2, 0, 0, 0, 0, 0xfe], &build::ip(src, dst, protocol, l4, &IpOptions::default()))
}

/// The server's number (by its MAC) that a client's frame goes to; `None`: to none.
fn goes_to(executor: &mut dyn Executor, frame: &[u8]) -> Option<u8> {
    match executor.run(Side::C, frame).unwrap().0 {
        Does::Out(Side::R, out) => Some(out[5]),
        _ => None,
    }
}

fn tcp(n: u32, flags: u8) -> Vec<u8> {
    let (src, dst) = (client(false, n), vip(false));
    let tcp = Tcp { sport: 20_000 + n as u16, dport: 80, flags, seq: 1, ack: 1, payload: b"x" };
    frame(src, dst, proto::TCP, &build::tcp(src, dst, &tcp))
}

fn sctp(n: u32, chunk: u8) -> Vec<u8> {
    let (src, dst) = (client(false, n), vip(false));
    frame(src, dst, proto::SCTP, &build::sctp(20_000 + n as u16, 80, &[chunk, 0, 0, 4]))
}

const SERVERS: u8 = 10;

/// Services of TCP and SCTP by mh with servers 1 to [`SERVERS`], but for one.
fn hashed(without: Option<u8>, further: &str) -> Model {
    let services = ["tcp", "sctp"].map(|protocol| {
        let servers = (1..=SERVERS)
            .filter(|n| Some(*n) != without)
            .map(|n| format!("\n[[service.server]]\naddress = \"10.1.0.{}:80\"\nmethod = \"dr\"\n", 10 + n));
        let servers: String = servers.collect();
        format!(
            "[[service]]\nprotocol = \"{protocol}\"\naddress = \"192.0.2.10:80\"\nscheduler = \"mh\"\n\
             scheduler_flags = [\"mh-port\"]\n{further}\n{servers}"
        )
    });
    model(&services.concat())
}

/// A director takes over from another one, or begins anew: it knows no connection.
#[test]
fn connections_go_on_with_a_director_that_knows_none() {
    const CONNECTIONS: u32 = 400;
    let bed = Bed::with_servers(SERVERS, &[]).unwrap();
    let (all, gone) = (hashed(None, "stateless = true"), hashed(Some(3), "stateless = true"));
    for executor in &mut executors() {
        let name = executor.name();
        let executor = &mut **executor;
        executor.set_up(&bed, &all).unwrap();
        let begun: Vec<_> = (0..CONNECTIONS).map(|n| goes_to(executor, &tcp(n, flag::SYN)).unwrap()).collect();
        let associated: Vec<_> = (0..50).map(|n| goes_to(executor, &sctp(n, 1)).unwrap()).collect();
        for n in 0..SERVERS {
            assert!(begun.contains(&(n + 1)), "{name}: server {} has no connection", n + 1);
        }
        let next = |executor: &mut dyn Executor| -> Vec<_> {
            (0..CONNECTIONS).map(|n| goes_to(executor, &tcp(n, flag::ACK | flag::PSH)).unwrap()).collect()
        };
        // Nothing is known any more: all go on where they were, and as established ones.
        executor.set_up(&bed, &all).unwrap();
        assert_eq!(next(executor), begun, "{name}");
        let data: Vec<_> = (0..50).map(|n| goes_to(executor, &sctp(n, 0)).unwrap()).collect();
        assert_eq!(data, associated, "{name}");
        let rows = executor.conns().unwrap();
        let tcp_rows: Vec<_> = rows.iter().filter(|row| format!("{row:?}").contains("ESTABLISHED")).collect();
        assert_eq!(tcp_rows.len() as u32, CONNECTIONS + 50, "{name}: {:?}", rows.first());
        // The end of one that nobody knows opens nothing.
        assert_eq!(goes_to(executor, &tcp(5000, flag::RST)), None);
        assert_eq!(goes_to(executor, &tcp(5000, flag::RST | flag::ACK)), None);
        assert_eq!(goes_to(executor, &sctp(5000, 6)), None);

        // A server is removed while they are known: those of the others stay, all of them.
        executor.change(&Plan::between(&all, &gone)).unwrap();
        let known = (0..CONNECTIONS).zip(&begun).filter(|(_, to)| **to != 3);
        for (n, to) in known {
            assert_eq!(goes_to(executor, &tcp(n, flag::ACK)), Some(*to), "{name}");
        }
        // And between two directors that do not know of each other: no more than the table
        // moves, which is a few of its slots.
        executor.set_up(&bed, &gone).unwrap();
        let after = next(executor);
        assert!(!after.contains(&3), "{name}");
        let of_others = begun.iter().filter(|to| **to != 3).count();
        let moved = begun.iter().zip(&after).filter(|(was, is)| **was != 3 && was != is).count();
        println!("{name}: {moved} of {of_others} connections of other servers moved");
        assert!(moved * 20 <= of_others, "{name}: {moved} of {of_others} moved");
        a_quiesced_server_keeps_what_it_has(executor, &bed);
        without_the_option_unknown_connections_are_the_hosts(executor, &bed);
    }
}

/// A quiesced server keeps the connections that it has: other directors began them.
fn a_quiesced_server_keeps_what_it_has(executor: &mut dyn Executor, bed: &Bed) {
    let (name, all) = (executor.name(), hashed(None, "stateless = true"));
    executor.set_up(bed, &all).unwrap();
    let first = (0..200).find(|n| goes_to(executor, &tcp(*n, flag::SYN)) == Some(4)).unwrap();
    executor.set_up(bed, &all).unwrap();
    let mut quiesced = all.clone();
    let key = all.services().iter().find(|s| s.key.protocol() == Some(dirigent_config::Protocol::Tcp)).unwrap().key;
    let server = all.service(&key).unwrap().server("10.1.0.14".parse().unwrap(), 80).unwrap().clone();
    quiesced.edit_server(&key, dirigent_config::Server { weight: 0, ..server }).unwrap();
    executor.change(&Plan::between(&all, &quiesced)).unwrap();
    assert_eq!(goes_to(executor, &tcp(first, flag::SYN)), None, "{name}: a new connection");
    assert_eq!(goes_to(executor, &tcp(first, flag::ACK)), Some(4), "{name}: an old one");
}

/// Without the option it is as in IPVS.
fn without_the_option_unknown_connections_are_the_hosts(executor: &mut dyn Executor, bed: &Bed) {
    executor.set_up(bed, &hashed(None, "")).unwrap();
    for frame in [tcp(1, flag::ACK), tcp(1, flag::FIN | flag::ACK), sctp(1, 0)] {
        let (does, verdict) = executor.run(Side::C, &frame).unwrap();
        assert!(matches!(does, Does::ToHost(_)), "{}", executor.name());
        assert_eq!(verdict.unwrap().reason, Reason::NotSyn);
    }
}

/// All executors look into a large table alike; and when it takes the place of another, connections stay where they are.
#[test]
fn a_table_of_another_size_is_for_new_connections_only() {
    const CONNECTIONS: u32 = 300;
    let bed = Bed::with_servers(SERVERS, &[]).unwrap();
    let (small, large) = (hashed(None, ""), hashed(None, "table_size = 65521"));
    let mut told: Vec<[Vec<Option<u8>>; 2]> = Vec::new();
    for executor in &mut executors() {
        let (name, executor) = (executor.name(), &mut **executor);
        executor.set_up(&bed, &small).unwrap();
        let all = |executor: &mut dyn Executor, from: u32, flags: u8| -> Vec<_> {
            (from..from + CONNECTIONS).map(|n| goes_to(executor, &tcp(n, flags))).collect()
        };
        let begun = all(executor, 0, flag::SYN);
        executor.change(&Plan::between(&small, &large)).unwrap();
        assert_eq!(all(executor, 0, flag::ACK), begun, "{name}: those that were there");
        // The same clients anew, by the other table.
        let further = all(executor, CONNECTIONS, flag::SYN);
        executor.set_up(&bed, &large).unwrap();
        let anew = all(executor, 0, flag::SYN);
        assert!(anew.iter().all(Option::is_some) && anew != begun, "{name}");
        assert_eq!(all(executor, CONNECTIONS, flag::SYN), further, "{name}: new ones, by the table that came");
        told.push([begun, anew]);
    }
    assert!(told.windows(2).all(|two| two[0] == two[1]), "executors differ: {told:?}");
}

/// Server 1 takes all that is scheduled; 2 has weight 0; each has an id.
fn quic(further: &str) -> Model {
    let services = [("192.0.2.10", "10.1.0.11", "10.1.0.12"), ("[2001:db8::10]", "[fd00:1::11]", "[fd00:1::12]")];
    let services = services.map(|(vip, one, two)| {
        format!(
            "[[service]]\nprotocol = \"udp\"\naddress = \"{vip}:443\"\nscheduler = \"rr\"\nquic = true\n\
             [[service.server]]\naddress = \"{one}:4433\"\nserver_id = \"c0ffee00\"\n\
             [[service.server]]\naddress = \"{two}:4433\"\nweight = 0\n{further}"
        )
    });
    model(&services.concat())
}

fn quic_frame(v6: bool, port: u16, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (client(v6, 7), vip(v6));
    frame(src, dst, proto::UDP, &build::udp(src, dst, port, 443, payload))
}

/// A connection id of this server.
fn cid(first: u8, server: [u8; 4], nonce: &[u8]) -> Vec<u8> {
    [&[first][..], &server, nonce].concat()
}

fn long(first: u8, version: u32, dcid: &[u8]) -> Vec<u8> {
    [&[first][..], &version.to_be_bytes(), &[dcid.len() as u8], dcid, &[0], &[0x55; 40]].concat()
}

/// The last four bytes of server 2's address.
fn second(v6: bool) -> [u8; 4] {
    if v6 { [0, 0, 0, 0x12] } else { [10, 1, 0, 12] }
}

#[test]
fn quic_clients_stay_with_their_server() {
    let bed = Bed::with_servers(2, &[]).unwrap();
    // RFC 9001, appendix A.2: the client's Initial, up to its token; and A.5: a short header
    // with a connection id of no length, whose bytes say nothing.
    let initial = unhex("c300000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11").unwrap();
    let chacha = unhex("4cfe4189655e5cd55c41f69080575d7999c25a5bfb").unwrap();
    // RFC 9001, A.4: Retry of the server. None comes from clients.
    let retry = unhex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba").unwrap();
    for executor in &mut executors() {
        let name = executor.name();
        let executor = &mut **executor;
        for v6 in [false, true] {
            executor.set_up(&bed, &quic("")).unwrap();
            let mut port = 1000;
            let mut to = |executor: &mut dyn Executor, payload: &[u8]| {
                port += 1;
                goes_to(executor, &quic_frame(v6, port, payload))
            };
            let two = cid(0x48, second(v6), &[9; 4]);
            let one = cid(0x48, [0xc0, 0xff, 0xee, 0], &[9; 4]);
            let short = |first: u8, cid: &[u8]| [&[first][..], cid, &[0x77; 20]].concat();
            // The server's own.
            for payload in [
                short(0x40, &two),
                short(0x7f, &two),
                short(0x00, &two), // RFC 9287: the fixed bit may be greased
                short(0x40, &cid(0xdf, second(v6), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])),
                [&[0x40][..], &two].concat(),
                long(0xe0, 1, &two),
                long(0xa0, 1, &two),
                long(0xf0, 0x6b33_43cf, &two),
                long(0xe0, 1, &cid(0, second(v6), &[3; 15])),
            ] {
                assert_eq!(to(executor, &payload), Some(2), "{name} {v6}: {payload:02x?}");
            }
            for payload in [short(0x40, &one), long(0xe0, 1, &one)] {
                assert_eq!(to(executor, &payload), Some(1), "{name} {v6}: {payload:02x?}");
            }
            // What says nothing is scheduled.
            for payload in [
                initial.clone(),
                chacha.clone(),
                retry.clone(),
                short(0x40, &cid(0x48, [10, 1, 0, 99], &[9; 4])), // nobody's id
                short(0x40, &cid(0xe8, second(v6), &[9; 4])),     // rotation 7: unroutable
                [&[0x40][..], &two[..8]].concat(),                // too short
                long(0xc0, 1, &two),                              // Initial
                long(0xd0, 1, &two),                              // 0-RTT
                long(0xd0, 0x6b33_43cf, &two),                    // version 2: Initial
                long(0xe0, 0x6b33_43cf, &two),                    // version 2: 0-RTT
                long(0xe0, 0x1a2a_3a4a, &two),                    // a greased version
                long(0xe0, 0, &two),                              // Version Negotiation
                long(0xe0, 1, &two[..8]),                         // too short an id
                long(0xe0, 1, &cid(0x48, second(v6), &[3; 16])),  // too long a one
                long(0xe0, 1, &[]),
                Vec::new(),
                vec![0x40],
                vec![0xe0, 0, 0, 0, 1, 9],
            ] {
                assert_eq!(to(executor, &payload), Some(1), "{name} {v6}: {payload:02x?}");
            }
            // The answers come from the virtual address, to where the client is now.
            let server: IpAddr = if v6 { "fd00:1::12" } else { "10.1.0.12" }.parse().unwrap();
            assert_eq!(goes_to(executor, &quic_frame(v6, 77, &short(0x40, &two))), Some(2));
            let answer = build::udp(server, client(v6, 7), 4433, 77, &[0x40; 30]);
            let answer = build::ip(server, client(v6, 7), proto::UDP, &answer, &IpOptions::default());
            let answer = build::eth(Side::R.mac(), [2, 0, 0, 0, 1, 2], &answer);
            let Does::Out(Side::C, out) = executor.run(Side::R, &answer).unwrap().0 else {
                panic!("{name}: no answer")
            };
            let packet = packet_of(&out).unwrap();
            let ip = Ip::read(packet).unwrap();
            assert_eq!((ip.src, ip.ports(packet).unwrap()), (vip(v6), (443, 77)), "{name}");
            // A tuple that is known needs no id.
            assert_eq!(goes_to(executor, &quic_frame(v6, 77, &short(0x40, &one))), Some(2), "{name}");
            assert_eq!(goes_to(executor, &quic_frame(v6, 77, &initial)), Some(2), "{name}");
            // Other services' servers have other ids, and none of a removed server counts.
            let mut gone = quic("");
            let key = gone.services().iter().find(|s| s.key.is_ipv6() == v6).unwrap().key;
            gone.remove_server(&key, server, 4433).unwrap();
            executor.change(&Plan::between(&quic(""), &gone)).unwrap();
            assert_eq!(to(executor, &short(0x40, &two)), Some(1), "{name}");
            assert_eq!(to(executor, &short(0x40, &one)), Some(1), "{name}");
        }
        random_quic_headers_go_where_they_say(executor, &bed);
    }
}

/// What the id in a UDP payload says, written plainly: the server of the two whose it is.
fn plainly(v6: bool, payload: &[u8]) -> Option<u8> {
    let cid = match payload {
        [first, cid @ ..] if first & 0x80 == 0 => cid,
        [first, a, b, c, d, length, rest @ ..] => {
            let handshake = match [*a, *b, *c, *d] {
                [0, 0, 0, 1] => 2,
                [0x6b, 0x33, 0x43, 0xcf] => 3,
                _ => return None,
            };
            if first >> 4 & 3 != handshake || !(9..=20).contains(length) {
                return None;
            }
            rest
        }
        _ => return None,
    };
    let [first, a, b, c, d, _, _, _, _, ..] = cid else { return None };
    let id = [*a, *b, *c, *d];
    match first >> 5 {
        7 => None,
        _ if id == [0xc0, 0xff, 0xee, 0] => Some(1),
        _ if id == second(v6) => Some(2),
        _ => None,
    }
}

fn random_quic_headers_go_where_they_say(executor: &mut dyn Executor, bed: &Bed) {
    let name = executor.name();
    let rounds: u16 = if name == "memory" { 20_000 } else { 2_000 };
    executor.set_up(bed, &quic("")).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) % n
    };
    let mut met = [0_usize; 3];
    for n in 0..rounds {
        let v6 = n % 2 == 1;
        let mut payload: Vec<u8> = (0..below(40)).map(|_| below(256) as u8).collect();
        // Most look like something.
        if below(8) != 0 {
            let id = [second(v6), [0xc0, 0xff, 0xee, 0], second(!v6)][below(3) as usize];
            let of = cid(below(256) as u8, id, &[below(256) as u8; 16][..below(17) as usize]);
            payload = match below(3) {
                0 => [&[below(128) as u8][..], &of].concat(),
                _ => {
                    let version = [1, 0x6b33_43cf, 0, 0xff00_001d, 0x0a0a_0a0a][below(5) as usize];
                    long(0x80 | below(128) as u8, version, &of)
                }
            };
            payload.truncate(if below(4) == 0 { below(30) as usize } else { 1000 });
        }
        let expected = plainly(v6, &payload);
        met[usize::from(expected.unwrap_or(0))] += 1;
        let got = goes_to(executor, &quic_frame(v6, 2000 + n, &payload));
        assert_eq!(got, Some(expected.unwrap_or(1)), "{name} {v6}: {payload:02x?}");
    }
    println!("{name}: {met:?} of no server, one, two");
    assert!(met.iter().all(|n| *n > usize::from(rounds) / 20), "{met:?}");
}

/// A SYN or what follows it, of this port of a client.
fn from_port(v6: bool, sport: u16, flags: u8) -> Vec<u8> {
    let (src, dst) = (client(v6, 9), vip(v6));
    let tcp = Tcp { sport, dport: 80, flags, seq: 1, ack: 1, payload: b"x" };
    frame(src, dst, proto::TCP, &build::tcp(src, dst, &tcp))
}

/// Begins or ends the drain of the server of that number.
fn drain(executor: &mut dyn Executor, model: &mut Model, v6: bool, server: u8, draining: bool) {
    let old = model.clone();
    let service = old.services().iter().find(|s| s.key.is_ipv6() == v6).unwrap();
    let address: IpAddr = if v6 { format!("fd00:1::1{server}") } else { format!("10.1.0.1{server}") }.parse().unwrap();
    let server = service.servers.iter().find(|s| s.address == address).unwrap().clone();
    model.edit_server(&service.key, dirigent_config::Server { draining, ..server }).unwrap();
    executor.change(&Plan::between(&old, model)).unwrap();
}

/// Its connections go on, new ones go elsewhere, and its persistent clients with them, for good.
#[test]
fn a_drained_server_keeps_what_it_has_and_gets_no_more() {
    let bed = Bed::with_servers(3, &[]).unwrap();
    let servers = |of: &str, port: u16| -> String {
        let one = |n| format!("[[service.server]]\naddress = \"{}:{port}\"\nmethod = \"dr\"\n", of.replace('N', n));
        ["1", "2", "3"].map(one).concat()
    };
    let service = |vip: &str, further: &str, of: &str| {
        format!("[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:80\"\n{further}\n{}", servers(of, 80))
    };
    let (syn, data) = (flag::SYN, flag::ACK | flag::PSH);
    for executor in &mut executors() {
        let name = executor.name();
        let executor = &mut **executor;
        for further in ["", "[service.persistence]", "scheduler = \"mh\"\n[service.persistence]"] {
            for v6 in [false, true] {
                let both =
                    service("192.0.2.10", further, "10.1.0.1N") + &service("[2001:db8::10]", further, "[fd00:1::1N]");
                let mut model = model(&both);
                executor.set_up(&bed, &model).unwrap();
                let own = goes_to(executor, &from_port(v6, 1000, syn)).unwrap();
                drain(executor, &mut model, v6, own, true);
                let what = format!("{name} {further:?} IPv6 {v6}: server {own}");
                let next = goes_to(executor, &from_port(v6, 1001, syn)).unwrap();
                assert_ne!(next, own, "{what}");
                for port in 1002..1030 {
                    let to = goes_to(executor, &from_port(v6, port, syn)).unwrap();
                    assert!(if further.is_empty() { to != own } else { to == next }, "{what}: {to} after {next}");
                }
                for (port, to) in [(1000, own), (1001, next), (1000, own)] {
                    assert_eq!(goes_to(executor, &from_port(v6, port, data)), Some(to), "{what}");
                }
                drain(executor, &mut model, v6, own, false);
                let back: Vec<_> =
                    (1030..1100).filter_map(|port| goes_to(executor, &from_port(v6, port, syn))).collect();
                assert_eq!(back.len(), 70);
                assert!(
                    if further.is_empty() { back.contains(&own) } else { !back.contains(&own) },
                    "{what}: {back:?}"
                );
                assert_eq!(goes_to(executor, &from_port(v6, 1000, data)), Some(own), "{what}");
            }
        }
        // QUIC: by the id of the server, an entry or none.
        let mut model = quic("");
        executor.set_up(&bed, &model).unwrap();
        drain(executor, &mut model, false, 1, true);
        let one = [&[0x40][..], &cid(0x48, [0xc0, 0xff, 0xee, 0], &[9; 4]), &[0x77; 30]].concat();
        assert_eq!(goes_to(executor, &quic_frame(false, 2000, &one)), Some(1), "{name}");
        // The other one has weight 0.
        assert_eq!(goes_to(executor, &quic_frame(false, 2001, &long(0xc3, 1, &[7; 8]))), None, "{name}");
    }
}
