//! Prints, as JSON, what recordings/record.sh sends to a kernel's sync backup: scenarios of
//! commands and datagrams. The kernel's answers are in recordings/backup.json.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use dirigent_sync::auth::Key;
use dirigent_sync::extension::{Body, Hello, Origin, Range, Stamp, emit, stamp_records};
use dirigent_sync::{Ends, Flags, Packer, Pe, Recency, Record, Sequence};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

fn server(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, 10 + n)
}

fn record(client: u16, service: u16, real: (u8, u16)) -> Record {
    Record {
        protocol: 6,
        flags: Flags(0),
        state: 1,
        ends: Ends::v4((CLIENT, client), (VIP, service), (server(real.0), real.1)),
        fwmark: 0,
        timeout_seconds: 900,
        sequence: None,
        pe: None,
        recency: None,
    }
}

fn pack(records: &[Record]) -> Vec<u8> {
    let mut packer = Packer::new(7, 1472, 0);
    for record in records {
        assert!(packer.push(0, record).is_none());
    }
    packer.flush().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn send(what: &str, datagram: &[u8]) -> Value {
    json!({ "what": what, "datagram": hex(datagram) })
}

fn run(command: &str) -> Value {
    json!({ "what": command, "ipvsadm": command })
}

fn scenario(name: &str, setup: &[&str], steps: Vec<Value>) -> Value {
    json!({ "name": name, "setup": setup, "steps": steps })
}

const SERVICES: [&str; 11] = [
    "-A -t 192.0.2.10:80 -s rr",
    "-a -t 192.0.2.10:80 -r 10.1.0.11:8080 -m",
    "-a -t 192.0.2.10:80 -r 10.1.0.12:8080 -m",
    "-A -t 192.0.2.10:81 -s rr",
    "-a -t 192.0.2.10:81 -r 10.1.0.11:81 -g",
    "-A -t 192.0.2.10:82 -s rr",
    "-a -t 192.0.2.10:82 -r 10.1.0.11:82 -i",
    "-A -u 192.0.2.10:53 -s rr",
    "-a -u 192.0.2.10:53 -r 10.1.0.12:53 -m",
    "-A -t 192.0.2.10:84 -s rr -p 77",
    "-a -t 192.0.2.10:84 -r 10.1.0.13:84 -g",
];

fn bound() -> Value {
    let nat = record(4000, 80, (1, 8080));
    let route = Record { flags: Flags(0x83), ..record(4001, 81, (1, 81)) };
    let closing = Record { flags: Flags(0x183), state: 4, timeout_seconds: 120, ..record(4002, 81, (1, 81)) };
    let tunnel_says_nat = record(4003, 82, (1, 82));
    let ends = Ends::v4((CLIENT, 4004), (VIP, 53), (server(2), 53));
    let udp =
        Record { protocol: 17, flags: Flags(0x100), state: 0, timeout_seconds: 300, ends, ..record(0, 0, (1, 0)) };
    let template = Record { flags: Flags(0x1183), timeout_seconds: 77, ..record(0, 84, (3, 84)) };
    let recount = Record { flags: Flags(0x100), state: 7, timeout_seconds: 60, ..nat.clone() };
    scenario(
        "bound",
        &SERVICES,
        vec![
            send(
                "NAT, DR, closing, TUN that says NAT, UDP, a template",
                &pack(&[nat.clone(), route, closing, tunnel_says_nat, udp, template.clone()]),
            ),
            send("the NAT connection closes", &pack(&[recount])),
            send("and is established again; the template is renewed", &pack(&[nat, template])),
        ],
    )
}

fn unbound() -> Value {
    let nat = record(4000, 80, (1, 8080));
    let tunnel = Record { flags: Flags(0x82), ..record(4001, 82, (1, 82)) };
    let template = Record { flags: Flags(0x1183), timeout_seconds: 77, ..record(0, 84, (3, 84)) };
    let all = pack(&[nat, tunnel, template]);
    let mut steps = vec![send("no services", &all)];
    steps.extend(SERVICES.map(run));
    steps.push(send("now there are", &all));
    scenario("unbound", &[], steps)
}

fn replaced() -> Value {
    let first = record(4000, 80, (1, 8080));
    let second = record(4000, 80, (2, 8080));
    let closing = Record { flags: Flags(0x100), state: 6, timeout_seconds: 10, ..first.clone() };
    let template = Record { flags: Flags(0x1100), timeout_seconds: 77, ..record(0, 84, (3, 84)) };
    let moved = Record { timeout_seconds: 50, ..Record { flags: Flags(0x1100), ..record(0, 84, (1, 84)) } };
    scenario(
        "replaced",
        &SERVICES,
        vec![
            send("to the first server", &pack(&[first, template])),
            send("to the second", &pack(&[second])),
            send("the first one closes", &pack(&[closing])),
            send("a template to another server", &pack(&[moved])),
        ],
    )
}

fn timeouts() -> Value {
    let mut records: Vec<_> =
        (0..11).map(|s| Record { state: s, timeout_seconds: 0, ..record(4000 + s, 80, (1, 8080)) }).collect();
    for (i, protocol) in [17u8, 50, 51].into_iter().enumerate() {
        let client = 5000 + i as u16;
        records.push(Record { protocol, state: 0, timeout_seconds: 0, ..record(client, 53, (2, 53)) });
    }
    let sctp = (0..14).map(|s| Record { protocol: 132, state: s, timeout_seconds: 0, ..record(6000 + s, 90, (2, 90)) });
    let template = Record { flags: Flags(0x1100), timeout_seconds: 0, ..record(0, 84, (3, 84)) };
    let long = Record { timeout_seconds: 100_000, ..record(7000, 80, (1, 8080)) };
    scenario(
        "timeouts",
        &SERVICES,
        vec![
            send("TCP, UDP, ESP and AH without timeouts, a template, a long one", &{
                records.extend([template, long]);
                pack(&records)
            }),
            send("SCTP", &pack(&sctp.collect::<Vec<_>>())),
        ],
    )
}

fn marks() -> Value {
    let real = |port| (server(1), port);
    let vip = Ipv4Addr::new(198, 51, 100, 7);
    let marked = |client, port, flags| Record {
        flags: Flags(flags),
        fwmark: 9,
        ends: Ends::v4((CLIENT, client), (vip, 443), real(port)),
        ..record(0, 0, (1, 0))
    };
    let template = Record {
        protocol: 0,
        flags: Flags(0x1183),
        timeout_seconds: 60,
        ends: Ends::v4((CLIENT, 0), (Ipv4Addr::new(0, 0, 0, 9), 0), real(0)),
        fwmark: 9,
        ..record(0, 0, (1, 0))
    };
    let setup = ["-A -f 9 -s rr -p 60", "-a -f 9 -r 10.1.0.11:0 -g", "-a -f 9 -r 10.1.0.12:443 -m"];
    let records =
        [marked(4000, 443, 0x83), marked(4001, 443, 0), marked(4002, 0, 0), marked(4003, 444, 0x82), template];
    scenario("marks", &setup, vec![send("connections and template of a mark", &pack(&records))])
}

fn options() -> Value {
    let sequence = Some(Sequence::default());
    let all = [
        Record { flags: Flags(0x600), sequence, ..record(4000, 80, (1, 8080)) },
        Record { sequence, ..record(4001, 80, (1, 8080)) },
        Record { flags: Flags(0x0001_2040), ..record(4002, 80, (1, 8080)) },
        Record { recency: Some(Recency { idle_ms: 5, node: 0 }), ..record(4003, 80, (1, 8080)) },
    ];
    let udp = |data: &[u8], name: &[u8]| Record {
        protocol: 17,
        flags: Flags(0x1100),
        state: 0,
        timeout_seconds: 90,
        pe: Pe::new(name, data),
        ..record(0, 53, (2, 53))
    };
    let engines = [udp(b"call-1", b"sip"), udp(b"call-2", b"sip"), udp(b"call-3", b"pie"), record(4004, 80, (1, 8080))];
    scenario(
        "options",
        &SERVICES,
        vec![
            send("sequence data, odd flags, the extension's option", &pack(&all)),
            send("two calls of sip, one of an engine that is not there, and another record", &pack(&engines)),
        ],
    )
}

/// One record for each bit of the flags (HASHED cannot be: a sender clears it).
fn flags() -> Value {
    let bits = (0..32u16).filter(|bit| *bit != 6 && *bit != 11 && *bit != 12);
    let all: Vec<_> = bits.map(|bit| Record { flags: Flags(1 << bit), ..record(4000 + bit, 80, (1, 8080)) }).collect();
    scenario("flags", &SERVICES, vec![send("each bit", &pack(&all))])
}

/// Templates of any state, and with a client's port.
fn templates() -> Value {
    let template = |client: u16, service, state| Record {
        flags: Flags(0x1100),
        state,
        timeout_seconds: 77,
        ..record(client, service, (1, 8080))
    };
    let steps =
        [(0, 80, 0), (0, 81, 1), (0, 82, 2), (0, 83, 9), (0, 84, 11), (77, 85, 1)].map(|(client, service, state)| {
            send(&format!("port {client}, state {state}"), &pack(&[template(client, service, state)]))
        });
    let active = Record { flags: Flags(0x1000), ..template(0, 86, 1) };
    let steps = steps.into_iter().chain([send("active", &pack(&[active]))]);
    scenario("templates", &SERVICES, steps.collect())
}

fn no_client_port() -> Value {
    let expected = Record { flags: Flags(0x900), state: 9, timeout_seconds: 120, ..record(0, 80, (1, 8080)) };
    let arrived = record(4000, 80, (1, 8080));
    scenario(
        "no-client-port",
        &SERVICES,
        vec![
            send("a connection whose client's port is not known", &pack(&[expected])),
            send("one with a port", &pack(&[arrived])),
        ],
    )
}

/// A good record, a bad one, and another good one, with client ports that tell them apart.
fn malformed() -> Value {
    let sequence = [&[1u8, 24][..], &[0; 24]].concat();
    let long_name = [&[3u8, 17][..], &[b'x'; 17]].concat();
    let short_sequence = [&[1u8, 23][..], &[0; 23]].concat();
    let twice = [&sequence[..], &sequence].concat();
    let optional_sequence = [&[0x41u8, 24][..], &[0; 24]].concat();
    // Options of the bad record, and bytes written over it at an offset.
    let cases: Vec<(&str, Vec<u8>, usize, Vec<u8>)> = vec![
        ("nothing wrong", vec![], 0, vec![]),
        ("type 2", vec![], 0, vec![2]),
        ("type 3", vec![], 0, vec![3]),
        ("record version 1", vec![], 2, vec![0x10, 36]),
        ("record of 35 bytes", vec![], 2, vec![0, 35]),
        ("record of 0 bytes", vec![], 2, vec![0, 0]),
        ("record of 300 bytes", vec![], 2, vec![1, 44]),
        ("unknown protocol", vec![], 1, vec![1]),
        ("unknown state", vec![], 8, vec![0, 11]),
        ("template of an unknown state", vec![], 4, vec![0, 0, 0x10, 0, 0, 9]),
        ("unknown mandatory option", vec![9, 1, 0], 0, vec![]),
        ("unknown optional option", vec![0x49, 1, 0], 0, vec![]),
        ("sequence data", sequence.clone(), 0, vec![]),
        ("sequence data as an optional option", optional_sequence, 0, vec![]),
        ("sequence data twice", twice, 0, vec![]),
        ("sequence data of 23 bytes", short_sequence, 0, vec![]),
        ("option without length", vec![0x49], 0, vec![]),
        ("option of length 0", vec![0x49, 0], 0, vec![]),
        ("option that overruns", vec![0x49, 2, 0], 0, vec![]),
        ("engine's data without a name", vec![2, 1, b'x'], 0, vec![]),
        ("engine's name without data", vec![3, 3, b's', b'i', b'p'], 0, vec![]),
        ("engine's data twice", vec![2, 1, b'x', 2, 1, b'x'], 0, vec![]),
        ("engine's name twice", vec![3, 1, b'x', 3, 1, b'x'], 0, vec![]),
        ("engine's name too long", long_name, 0, vec![]),
        ("an IPv6 address family", vec![0; 36], 0, vec![1]),
    ];
    let mut steps = Vec::new();
    for (i, (what, options, at, bytes)) in cases.into_iter().enumerate() {
        let port = 10_000 + 10 * i as u16;
        let good = |n: u16| pack(&[record(port + n, 80, (1, 8080))]).split_off(8);
        let mut bad = [good(1), options].concat();
        let length = (bad.len() as u16).to_be_bytes();
        bad[2..4].copy_from_slice(&length);
        bad[at..at + bytes.len()].copy_from_slice(&bytes);
        bad.resize(bad.len().next_multiple_of(4), 0);
        steps.push(send(what, &assemble(3, &[good(0), bad, good(2)].concat())));
    }
    let good = |n: u16| pack(&[record(20_000 + n, 80, (1, 8080))]).split_off(8);
    steps.push(send("one more counted than there is", &assemble(2, &good(0))));
    steps.push(send("one less counted", &assemble(1, &[good(1), good(2)].concat())));
    let mut size = assemble(1, &good(3));
    size[3] += 1;
    steps.push(send("another size", &size));
    let mut other = assemble(1, &good(4));
    other[1] = 8;
    steps.push(send("another sync id", &other));
    for (what, at, value) in [("version 2", 5, 2), ("reserved field", 7, 1), ("first byte", 0, 1)] {
        let mut odd = assemble(1, &good(5));
        odd[at] = value;
        steps.push(send(what, &odd));
    }
    steps.push(send("a record without its last byte", &{
        let mut cut = assemble(1, &good(6));
        cut.pop();
        cut[3] -= 1;
        cut
    }));
    steps.push(send("three bytes", &[0, 7, 0]));
    steps.push(send("a header of version 0", &[0, 7, 0, 4]));
    scenario("malformed", &SERVICES, steps)
}

fn assemble(count: u8, records: &[u8]) -> Vec<u8> {
    let [a, b] = ((8 + records.len()) as u16).to_be_bytes();
    [&[0, 7, a, b, count, 1, 0, 0][..], records].concat()
}

fn old(protocol: u8, client: u16, flags: u16, state: u16, more: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, protocol];
    for port in [client, 80, 8080] {
        bytes.extend(port.to_be_bytes());
    }
    for address in [CLIENT, VIP, server(1)] {
        bytes.extend(address.octets());
    }
    bytes.extend(flags.to_be_bytes());
    bytes.extend(state.to_be_bytes());
    bytes.extend(more);
    bytes
}

fn version_0() -> Value {
    let message = |records: &[Vec<u8>]| {
        let body = records.concat();
        let [a, b] = ((4 + body.len()) as u16).to_be_bytes();
        [&[records.len() as u8, 7, a, b][..], &body].concat()
    };
    let good = old(6, 4000, 0, 1, &[]);
    let steps = vec![
        send(
            "connection, closing one, template",
            &message(&[good, old(6, 4001, 0x100, 4, &[]), old(6, 0, 0x1100, 1, &[])]),
        ),
        send("sequence data", &message(&[old(6, 4002, 0x600, 1, &[0; 24]), old(6, 4003, 0, 1, &[])])),
        send("sequence data missing", &message(&[old(6, 4004, 0, 1, &[]), old(6, 4005, 0x200, 1, &[])])),
        send(
            "unknown protocol and state",
            &message(&[old(1, 4006, 0, 1, &[]), old(6, 4007, 0, 11, &[]), old(6, 4008, 0, 1, &[])]),
        ),
        send("templates", &message(&[old(6, 0, 0x1100, 2, &[]), old(6, 1, 0x1000, 9, &[]), old(6, 2, 0x1100, 1, &[])])),
        send("flags that version 1 does not keep", &message(&[old(6, 4009, 0xe078, 1, &[])])),
    ];
    scenario("version-0", &SERVICES, steps)
}

fn ipv6() -> Value {
    let vip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
    let client = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 5);
    let real = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x11);
    let connection = |port| Record { ends: Ends::v6((client, port), (vip, 80), (real, 8080)), ..record(0, 0, (1, 0)) };
    let setup = ["-A -t [2001:db8::10]:80 -s rr", "-a -t [2001:db8::10]:80 -r [fd00:1::11]:8080 -m"];
    let mixed = [connection(4000), record(4001, 80, (1, 8080)), connection(4002)];
    scenario("ipv6", &setup, vec![send("IPv6, IPv4, IPv6", &pack(&mixed))])
}

fn extension() -> Value {
    let to = Origin { node: 1, boot: 2 };
    let key = record(4000, 80, (1, 8080)).key();
    let bodies = [
        Body::Hello(Hello { abilities: 3, epoch: 4, oldest: 1, next: 5, connections: 2 }),
        Body::Nack { to, ranges: vec![Range { first: 1, last: 9 }; 64] },
        Body::Gone { to, oldest: 3 },
        Body::BulkRequest { to, request: 1 },
        Body::BulkBegin { bulk: 1, asked: vec![to] },
        Body::BulkEnd { bulk: 1, count: 77 },
        Body::Delete(vec![key; 30]),
    ];
    let secret = Key::new(b"a secret of both nodes").unwrap();
    let stamp = Stamp { node: 3, boot: 4, number: 1, sent_ms: 99 };
    let mut steps = vec![send("a connection that must stay as it is", &pack(&[record(4000, 80, (1, 8080))]))];
    for secret in [None, Some(&secret)] {
        for body in &bodies {
            let name = format!("{body:?}");
            let what = format!(
                "{}{}",
                name.split([' ', '(']).next().unwrap_or_default(),
                if secret.is_some() { " with tag" } else { "" }
            );
            steps.push(send(&what, &emit(7, &stamp, body, secret)));
        }
        let port = if secret.is_some() { 4003 } else { 4001 };
        let idle = Record { recency: Some(Recency { idle_ms: 250, node: 3 }), ..record(port, 80, (1, 8080)) };
        let mut datagram = pack(&[idle, record(port + 1, 80, (1, 8080))]);
        stamp_records(&mut datagram, &stamp, secret);
        steps.push(send("stamped records, with recency", &datagram));
    }
    scenario("extension", &SERVICES, steps)
}

fn main() {
    let all = [
        bound(),
        unbound(),
        replaced(),
        timeouts(),
        marks(),
        options(),
        no_client_port(),
        templates(),
        flags(),
        malformed(),
        version_0(),
        ipv6(),
        extension(),
    ];
    println!("{}", serde_json::to_string(&all.to_vec()).unwrap());
}
