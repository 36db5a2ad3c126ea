//! What kernel 6.1's sync master sent, and what its backup made of our datagrams
//! (recordings/*.json, made by recordings/record.sh), against this crate.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use dirigent_director::sync::when::{self, Asked, Controller, Remembered, Settings};
use dirigent_sync::backup::{Configured, Counted, Decision, Existing, Found, From, Owner, decide, server_ports};
use dirigent_sync::extension::{self, Seen};
use dirigent_sync::message::{Datagram, Packer, Version};
use dirigent_sync::record::Method;
use dirigent_sync::{Flags, Key, Record, state};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

fn load(name: &str) -> Value {
    let path = format!("{}/recordings/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    let text = text(value);
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// A connection as /proc/net/ip_vs_conn_sync has it, without its timer.
fn row(record: &Record, origin: &str) -> String {
    let ends = record.ends;
    let end = |e: SocketAddr| match e {
        SocketAddr::V4(v4) => format!("{:08X} {:04X}", u32::from(*v4.ip()), v4.port()),
        SocketAddr::V6(v6) => {
            let words: Vec<_> = v6.ip().segments().iter().map(|s| format!("{s:04x}")).collect();
            format!("{} {:04X}", words.join(":"), v6.port())
        }
    };
    let protocol = match record.protocol {
        0 => "IP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        132 => "SCTP".into(),
        other => format!("IP_{other}"),
    };
    let state = state::name(record.protocol, record.flags.template(), record.state);
    format!("{protocol} {} {} {} {state} {origin}", end(ends.client()), end(ends.service()), end(ends.real()))
}

fn split_timer(row: &str) -> (String, u32) {
    let (row, timer) = row.rsplit_once(' ').unwrap();
    (row.into(), timer.parse().unwrap())
}

fn records(datagram: &[u8]) -> Vec<Record> {
    Datagram::parse(datagram).unwrap().records().map(|r| r.unwrap()).collect()
}

#[test]
fn every_datagram_of_the_kernel_says_what_its_table_says() {
    let mut seen = 0;
    for scenario in list(&load("master")) {
        let name = text(&scenario["name"]);
        for step in list(&scenario["steps"]) {
            // The last record of each connection is how it stood when the table was read.
            let mut last: BTreeMap<Key, Record> = BTreeMap::new();
            for datagram in list(&step["datagrams"]) {
                for record in records(&hex(datagram)) {
                    seen += 1;
                    last.insert(record.key(), record);
                }
            }
            let table: BTreeSet<_> = list(&step["table"]["proc"]).iter().map(|r| split_timer(text(r))).collect();
            let sent: BTreeSet<_> = last.values().map(|r| row(r, "LOCAL")).collect();
            for record in last.values() {
                let expected = row(record, "LOCAL");
                let timers: Vec<_> = table.iter().filter(|(row, _)| *row == expected).map(|(_, t)| *t).collect();
                assert!(!timers.is_empty(), "{name}: {expected}");
                if record.timeout_seconds > 0 {
                    // The table was read some seconds after the last packet.
                    let about = record.timeout_seconds.saturating_sub(8)..=record.timeout_seconds;
                    assert!(timers.iter().all(|t| about.contains(t)), "{name}: {expected}: {timers:?}");
                }
            }
            // What was not sent in the step: connections that had no packet of a client in it, and an
            // expected one.
            let unsent = table.iter().filter(|(row, _)| !sent.contains(row));
            assert!(
                unsent.clone().all(|(row, _)| row.starts_with("UDP") || row.contains("LISTEN")),
                "{name}: {:?}",
                unsent.collect::<Vec<_>>()
            );
        }
    }
    assert!(seen > 80, "{seen}");
}

#[test]
fn every_datagram_of_the_kernel_is_written_again_byte_by_byte() {
    let master = load("master");
    let when = load("when");
    let steps = list(&master).iter().chain(list(&when)).flat_map(|s| list(&s["steps"]));
    let mut count = 0;
    for datagram in steps.flat_map(|s| list(&s["datagrams"])).map(hex) {
        let read = Datagram::parse(&datagram).unwrap();
        if read.version() == Version::V0 {
            continue;
        }
        assert_eq!(read.trailer(), Some(&[][..]));
        assert_eq!(extension::parse(&datagram, None), Ok(Seen::Plain));
        let mut packer = Packer::new(read.sync_id(), 1472, 0);
        for record in records(&datagram) {
            assert!(packer.push(0, &record).is_none());
        }
        assert_eq!(packer.flush(), Some(datagram));
        count += 1;
    }
    assert!(count > 100, "{count}");
    // Forty records are the most that the kernel put into 1472 bytes, and that this packer does.
    let many = list(&master).iter().find(|s| s["name"] == "many").unwrap();
    let sizes: Vec<_> = list(&many["steps"][0]["datagrams"]).iter().map(|d| hex(d)[4]).collect();
    assert_eq!(sizes, [40, 5]);
}

#[test]
fn the_kernels_master_sends_when_the_rules_say_so() {
    const HZ: u32 = 250; // Debian's kernel
    #[derive(Default)]
    struct Conn {
        packets: u32,
        remembered: Remembered,
    }
    let (mut sent, mut kept) = (0, 0);
    for run in list(&load("when")) {
        let number = |name: &str| run["settings"][name].as_u64().unwrap_or(0) as u32;
        let threshold: Vec<u32> =
            text(&run["settings"]["sync_threshold"]).split(' ').map(|n| n.parse().unwrap()).collect();
        let settings = Settings {
            threshold: threshold[0],
            period: threshold[1],
            refresh_ticks: number("sync_refresh_period") * HZ,
            retries: number("sync_retries"),
            persist_mode: number("sync_persist_mode") != 0,
            ticks_per_second: HZ,
        };
        let mut conns: BTreeMap<u64, Conn> = BTreeMap::new();
        let (mut template, mut assured) = (Conn::default(), 0);
        for step in list(&run["steps"]) {
            let (port, service) = (step["sport"].as_u64().unwrap(), step["dport"].as_u64().unwrap());
            let protocol = if text(&step["packet"]) == "udp" { 17 } else { 6 };
            let state = state::number(protocol, text(&step["state"])).unwrap();
            let persistent = service == 81;
            if persistent && state == 1 {
                assured = 1;
            }
            let now_ticks = (step["at_s"].as_f64().unwrap() * f64::from(HZ)) as u32;
            let conn = conns.entry(port).or_default();
            conn.packets += 1;
            let asked = Asked {
                template: false,
                persistent,
                one_packet: false,
                protocol,
                state: state as u8,
                packets: conn.packets,
                timeout_ticks: state::default_seconds(protocol, false, state) * HZ,
                now_ticks,
            };
            let mut expected = Vec::new();
            if let Some(remembered) = when::decide(&asked, conn.remembered, &settings).send() {
                conn.remembered = remembered;
                expected.push((false, port as u16, state, asked.timeout_ticks / HZ));
            }
            if persistent {
                template.packets = when::controller_packets(Controller::Template, template.packets, &settings);
                let (packets, timeout_ticks) = (template.packets, 100 * HZ);
                let asked =
                    Asked { template: true, persistent: false, state: assured as u8, packets, timeout_ticks, ..asked };
                if let Some(remembered) = when::decide(&asked, template.remembered, &settings).send() {
                    template.remembered = remembered;
                    expected.push((true, 0, assured, 100));
                }
            }
            let got: Vec<_> = list(&step["datagrams"])
                .iter()
                .flat_map(|d| records(&hex(d)))
                .map(|r| (r.flags.template(), r.ends.client().port(), r.state, r.timeout_seconds))
                .collect();
            assert_eq!(got, expected, "{} at {}", run["settings"], step["at_s"]);
            sent += expected.len();
            kept += usize::from(expected.is_empty());
        }
    }
    assert!(sent > 200 && kept > 100, "{sent} {kept}");
}

/// A server of an ipvsadm command line.
#[derive(Clone, Copy)]
struct Server {
    real: SocketAddr,
    method: Method,
}

/// The kernel's backup, as this crate says that it decides.
#[derive(Default)]
struct Model {
    services: BTreeMap<String, Vec<Server>>,
    table: BTreeMap<Key, Entry>,
}

#[derive(Clone)]
struct Entry {
    record: Record,
    flags: Flags,
    bound: Option<SocketAddr>,
    counted: Option<(String, Counted)>,
    seconds: u32,
}

fn zero_port(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| format!("{text}:0").parse().unwrap())
}

impl Model {
    fn ipvsadm(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let service = match words[1] {
            "-t" => format!("6 {}", words[2]),
            "-u" => format!("17 {}", words[2]),
            "-f" => format!("mark {}", words[2]),
            other => panic!("{other}"),
        };
        if words[0] == "-A" {
            self.services.insert(service, Vec::new());
            return;
        }
        let method = match words[5] {
            "-m" => Method::Nat,
            "-g" => Method::Route,
            "-i" => Method::Tunnel,
            other => panic!("{other}"),
        };
        self.services.get_mut(&service).unwrap().push(Server { real: zero_port(words[4]), method });
    }

    /// The service and server that a record is about.
    fn find(&self, record: &Record) -> Option<(String, Server)> {
        let mark = Some(format!("mark {}", record.fwmark)).filter(|_| record.fwmark != 0);
        let direct = format!("{} {}", record.protocol, record.ends.service());
        let (name, servers) =
            [mark, Some(direct)].into_iter().flatten().find_map(|n| self.services.get_key_value(&n))?;
        server_ports(record).into_iter().find_map(|port| {
            let real = SocketAddr::new(record.ends.real().ip(), port);
            servers.iter().find(|s| s.real == real).map(|s| (name.clone(), *s))
        })
    }

    fn apply(&mut self, record: &Record) {
        // As for a packet of a client: what has no port yet is found by any.
        let mut key = record.key();
        let unknown = Key { client: SocketAddr::new(key.client.ip(), 0), ..key.clone() };
        if !key.template
            && !self.table.contains_key(&key)
            && self.table.get(&unknown).is_some_and(|e| e.flags.has(Flags::NO_CLIENT_PORT))
        {
            key = unknown;
        }
        let server = self.find(record);
        let configured = server.as_ref().map(|(_, s)| Configured { method: s.method });
        let owner = Owner::Learned { node: Owner::KERNEL, idle_ms: 0 };
        let existing = self.table.get(&key).map(|e| Existing {
            flags: e.flags,
            real: e.record.ends.real(),
            bound: e.bound.is_some(),
            owner,
        });
        let engine = record.pe.as_ref().is_none_or(|pe| pe.name() == b"sip");
        let found = Found { existing, configured, engine };
        let from = From { node: Owner::KERNEL, here: 1, seen_by: Owner::KERNEL, idle_ms: 0 };
        let counted = |c| server.as_ref().map(|(name, s)| (format!("{name} {}", s.real), c));
        match decide(record, &found, &from, 3) {
            Decision::Ignore(_) => {}
            Decision::Update { flags, recount, bind, contents } => {
                let entry = self.table.get_mut(&key).unwrap();
                entry.record.state = contents.state;
                entry.seconds = contents.timeout_seconds;
                entry.flags = bind.map_or(flags, |b| b.flags);
                if let Some(b) = bind {
                    entry.bound = server.as_ref().map(|(_, s)| s.real);
                    entry.counted = counted(b.counted);
                } else if let (Some(c), Some(at)) = (recount, &mut entry.counted) {
                    at.1 = c;
                }
            }
            Decision::Create { replace, bind, flags, contents } => {
                assert_eq!(replace, self.table.contains_key(&key));
                let entry = Entry {
                    record: Record { state: contents.state, ..record.clone() },
                    flags: bind.map_or(flags, |b| b.flags),
                    bound: bind.and(server.as_ref().map(|(_, s)| s.real)),
                    counted: bind.and_then(|b| counted(b.counted)),
                    seconds: contents.timeout_seconds,
                };
                self.table.insert(key, entry);
            }
        }
    }

    fn rows(&self) -> BTreeMap<String, u32> {
        self.table.values().map(|e| (row(&e.record, "SYNC"), e.seconds)).collect()
    }

    /// Active and inactive connections of each server.
    fn counts(&self) -> BTreeMap<String, (u64, u64)> {
        let mut counts = BTreeMap::new();
        for (service, servers) in &self.services {
            for server in servers {
                let name = format!("{service} {}", server.real);
                let of = |what| {
                    self.table.values().filter(|e| e.counted.as_ref() == Some(&(name.clone(), what))).count() as u64
                };
                let both = (of(Counted::Active), of(Counted::Inactive));
                counts.insert(name, both);
            }
        }
        counts
    }
}

/// The kernel's names of services and servers, as the model has them.
fn server_counts(servers: &Value) -> BTreeMap<String, (u64, u64)> {
    let end = |text: &str| -> SocketAddr {
        let (address, port) = text.rsplit_once(':').unwrap();
        let port = u16::from_str_radix(port, 16).unwrap();
        match address.strip_prefix('[') {
            Some(v6) => SocketAddr::new(v6.trim_end_matches(']').parse().unwrap(), port),
            None => SocketAddr::new(u32::from_str_radix(address, 16).unwrap().to_be_bytes().into(), port),
        }
    };
    let mut counts = BTreeMap::new();
    for (service, of) in servers.as_object().unwrap() {
        let (kind, at) = service.split_once(' ').unwrap();
        let service = match kind {
            "TCP" => format!("6 {}", end(at)),
            "UDP" => format!("17 {}", end(at)),
            _ => format!("mark {}", u32::from_str_radix(at, 16).unwrap()),
        };
        for (server, numbers) in of.as_object().unwrap() {
            let number = |i: usize| numbers[i].as_u64().unwrap();
            counts.insert(format!("{service} {}", end(server)), (number(1), number(2)));
        }
    }
    counts
}

#[test]
fn the_kernels_backup_does_what_the_decisions_say() {
    let (mut steps, mut rows) = (0, 0);
    for scenario in list(&load("backup")) {
        let mut model = Model::default();
        let mut kernel: BTreeSet<String> = BTreeSet::new();
        let mut counts = BTreeMap::new();
        for line in list(&scenario["setup"]) {
            model.ipvsadm(text(line));
        }
        for step in list(&scenario["steps"]) {
            let what = format!("{}: {}", scenario["name"], step["what"]);
            if let Some(line) = step["ipvsadm"].as_str() {
                model.ipvsadm(line);
                continue;
            }
            steps += 1;
            let datagram = hex(&step["datagram"]);
            let mut touched = BTreeSet::new();
            if let Ok(read) = Datagram::parse(&datagram)
                && read.sync_id() == 7
            {
                for record in read.records().filter_map(Result::ok) {
                    model.apply(&record);
                    touched.insert(row(&record, "SYNC"));
                }
            }
            let expected = model.rows();
            for gone in list(&step["gone"]) {
                assert!(kernel.remove(text(gone)), "{what}");
            }
            for (row, timer) in list(&step["rows"]).iter().map(|r| split_timer(text(r))) {
                let seconds = expected.get(&row).unwrap_or_else(|| panic!("{what}: the kernel has {row}"));
                assert!(*seconds == timer + 1 || *seconds == timer, "{what}: {row} {timer}, not {seconds}");
                kernel.insert(row);
                rows += 1;
            }
            // Short ones go by themselves: the model has no clock.
            let live = |row: &&String| kernel.contains(*row) || touched.contains(*row);
            model.table.retain(|_, e| kernel.contains(&row(&e.record, "SYNC")) || e.seconds > 10);
            let here: BTreeSet<_> = expected.keys().filter(live).cloned().collect();
            assert_eq!(here, kernel, "{what}");
            if step["servers"].is_object() {
                counts = server_counts(&step["servers"]);
            }
            assert_eq!(model.counts(), counts, "{what}");
        }
    }
    assert!(steps > 70 && rows > 120, "{steps} {rows}");
}

/// The kernel logs what makes it drop the rest of a datagram.
#[test]
fn the_kernels_log_agrees_with_the_reasons() {
    use dirigent_sync::Reason::*;
    let mut logged = 0;
    for scenario in list(&load("backup")) {
        for step in list(&scenario["steps"]).iter().filter(|s| s["log"].is_array()) {
            let datagram = hex(&step["datagram"]);
            let read = Datagram::parse(&datagram);
            let reason =
                read.as_ref().ok().filter(|d| d.sync_id() == 7).and_then(|d| d.records().find_map(Result::err));
            let line = list(&step["log"]).first().map_or("", |l| text(l));
            let expected = match reason {
                Some(RecordType) => "Err: -10 ",
                Some(RecordLength) => "Err: -20 ",
                Some(OptionShort) => "Err: -30 ",
                Some(OptionLength) => "Err: -40 ",
                Some(OptionSequence) => "Err: -50 ",
                Some(OptionPeData) => "Err: -60 ",
                Some(OptionPeName) => "Err: -70 ",
                Some(RecordVersion) => "Unknown version 1",
                Some(RecordOverruns) => "msg > buffer",
                Some(RecordShort) => "too small",
                Some(PeUnnamed) => "Invalid PE parameters",
                Some(OldRecordShort) => "bogus conn options",
                // The kernel reads the version behind the end of such a header: of what came before.
                _ if datagram.len() < 8 => continue,
                _ => "",
            };
            assert!(line.contains(expected) && line.is_empty() == expected.is_empty(), "{}: {line}", step["what"]);
            logged += usize::from(!expected.is_empty());
        }
    }
    assert!(logged > 15, "{logged}");
}

#[test]
fn the_kernels_backup_is_not_disturbed_by_the_extension() {
    let backup = load("backup");
    let scenario = list(&backup).iter().find(|s| s["name"] == "extension").unwrap();
    let mut messages = 0;
    for step in list(&scenario["steps"]).iter().skip(1) {
        assert!(list(&step["log"]).is_empty(), "{}", step["what"]);
        assert!(list(&step["gone"]).is_empty(), "{}", step["what"]);
        let datagram = hex(&step["datagram"]);
        match extension::parse(&datagram, None) {
            Ok(Seen::Message(..)) => {
                messages += 1;
                assert!(list(&step["rows"]).is_empty(), "{}: something changed", step["what"]);
            }
            Ok(Seen::Records(_)) => assert_eq!(list(&step["rows"]).len(), 2, "{}", step["what"]),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(messages, 14);
}
