//! Synchronisation by the kernel's programs and in memory: both tell of the same packets, and learn the same. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use dirigent_config::failover::Sync;
use dirigent_datapath::control::sync::{Moment, Shared, Source};
use dirigent_datapath::control::{Control, Flow, KernelStore, Store};
use dirigent_datapath::kernel::{Direction, Features, Kernel, LoadOptions, News, SkbContext};
use dirigent_datapath::memory::{Capacity, Incoming, MemoryTables, run_tc, run_xdp};
use dirigent_director::records::{Link, NextHop, hop, lesson};
use dirigent_director::shared::S32;
use dirigent_sync::Record;
use dirigent_sync::backup::{self, From};
use dirigent_sync::record::{Ends, Flags};
use dirigent_wire::Mac;
use support::{in_namespace, segment};

const MODEL: &str = r#"
version = 1
[[service]]
protocol = "tcp"
address = "198.18.0.1:80"
server = [{ address = "10.0.0.2:8080" }, { address = "10.0.0.3:8080" }]
[[service]]
protocol = "tcp"
address = "[2001:db8:1::1]:80"
persistence = {}
server = [{ address = "fd00::2", method = "dr" }, { address = "fd00::3", method = "dr" }]
"#;

fn set_up<S: Store>(store: S, link: u32) -> Control<S> {
    let model = dirigent_config::file::parse("f", MODEL).unwrap();
    let mut control = Control::open(store, &model).unwrap();
    let (mac, dst) = (Mac::new([2, 0, 0, 0, 0, 1]), Mac::new([2, 0, 0, 0, 0, 3]));
    let way = NextHop { state: S32::new(hop::RESOLVED), ifindex: link, mtu: 1500, src: mac, dst, ..NextHop::default() };
    for server in ["10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3"] {
        control.set_next_hop(server.parse().unwrap(), &way).unwrap();
    }
    control.set_sync(Some(Sync::default())).unwrap();
    let store = control.store_mut();
    store.put_link(link, &Link { mac, used: 1, ..Link::default() }).unwrap();
    for vip in ["198.18.0.1", "2001:db8:1::1"] {
        store.set_local(vip.parse().unwrap(), true).unwrap();
    }
    control
}

fn record(v6: bool, port: u16, state: u16) -> Record {
    let text = |v6: bool| match v6 {
        false => ("198.51.100.7", "198.18.0.1:80", "10.0.0.3:8080"),
        true => ("[2001:db8:7::7]", "[2001:db8:1::1]:80", "[fd00::3]:80"),
    };
    let (client, service, real) = text(v6);
    let client = format!("{client}:{port}").parse().unwrap();
    Record {
        protocol: 6,
        flags: Flags(if v6 { 0x83 } else { 0 } | if state == 1 { 0 } else { Flags::INACTIVE }),
        state,
        ends: Ends::new(client, service.parse().unwrap(), real.parse().unwrap()).unwrap(),
        fwmark: 0,
        timeout_seconds: if state == 1 { 900 } else { 60 },
        sequence: None,
        pe: None,
        recency: None,
    }
}

/// What a record changes: the lessons, each with what came of it.
fn learn<S: Store>(control: &mut Control<S>, record: &Record) -> Vec<u32> {
    let moment = Moment::of(control.store()).unwrap();
    let shared = Shared::at(control.store(), &moment);
    let (place, found) = shared.find(record, &|_| 9).unwrap();
    let from = From { node: 9, here: 1, seen_by: 9, idle_ms: 0 };
    let decision = backup::decide(record, &found, &from, 3);
    let mut lessons = shared
        .lessons(record, &place, &decision, &Source { origin: 4, mark: 2, idle_ms: 0 })
        .unwrap_or_else(|| panic!("{decision:?}"));
    control.store_mut().learn(&mut lessons).unwrap();
    lessons.iter().map(|lesson| lesson.result).collect()
}

/// All that is known, but for tags and times.
fn known<S: Store>(control: &Control<S>) -> Vec<String> {
    let moment = Moment::of(control.store()).unwrap();
    let shared = Shared::at(control.store(), &moment);
    let mut all = Vec::new();
    for v6 in [false, true] {
        control.store().walk(v6, &mut |entry| all.push(entry)).unwrap();
    }
    let text = |entry: &dirigent_datapath::control::Entry| {
        let record = shared.record(entry).unwrap().map(|record| Record { recency: None, ..record });
        format!("{:?} {} {} {:x} {record:?}", entry.flow, entry.kind, entry.packets, entry.extra)
    };
    let mut text: Vec<_> = all.iter().map(text).collect();
    text.sort();
    text
}

#[test]
fn the_kernel_and_memory_tell_and_learn_the_same() {
    in_namespace(|| {
        let ip =
            "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up && ip -o link show v0";
        let shown = std::process::Command::new("sh").args(["-c", ip]).output().unwrap();
        let link: u32 = String::from_utf8_lossy(&shown.stdout).split(':').next().unwrap().trim().parse().unwrap();
        let sizes = [("CONNS4", 1024), ("CONNS6", 1024)];
        let options = LoadOptions { instance: None, layout: 1, map_sizes: &sizes, features: Features::ALL };
        for xdp in [true, false] {
            let kernel = Kernel::load(&options).unwrap_or_else(|e| panic!("{e}"));
            let mut news = News::of(&kernel).unwrap();
            let mut in_kernel = set_up(KernelStore::new(&kernel).unwrap(), link);
            let mut in_memory = set_up(MemoryTables::new(&Capacity::default()), link);
            for v6 in [false, true] {
                // What was learned first: the clients of ports from 2000 on.
                for port in [2000, 2001] {
                    for control in 0..2 {
                        let record = record(v6, port, 1);
                        let results =
                            if control == 0 { learn(&mut in_kernel, &record) } else { learn(&mut in_memory, &record) };
                        assert_eq!(results, [lesson::DONE], "IPv6 {v6}");
                    }
                }
                let packets =
                    [(1000, 2), (1000, 16), (1000, 16), (2000, 16), (1000, 16), (1000, 17), (2000, 17), (2000, 4)];
                for (port, flags) in packets {
                    let frame = segment(v6, [port, 80], flags);
                    let packet = Incoming { frame: &frame, ingress: link, ..Incoming::default() };
                    if xdp {
                        kernel.run_xdp(link, &frame).unwrap();
                        run_xdp(in_memory.store_mut(), &packet);
                    } else {
                        let context = SkbContext { ifindex: link, ingress_ifindex: link, ..SkbContext::default() };
                        kernel.run_tc(Direction::Ingress, &context, &frame).unwrap();
                        run_tc(in_memory.store_mut(), &packet);
                    }
                    let mut told: Vec<Flow> = Vec::new();
                    news.take(100, |flow| told.push(flow));
                    assert_eq!(told, in_memory.store_mut().news(), "XDP {xdp}, IPv6 {v6}, port {port}, flags {flags}");
                }
                // It changes, and goes to another server, which replaces it.
                for (record, expected) in [
                    (record(v6, 2001, 7), vec![lesson::DONE]),
                    (
                        Record {
                            ends: Ends::new(
                                record(v6, 2001, 1).ends.client(),
                                record(v6, 2001, 1).ends.service(),
                                if v6 { "[fd00::2]:80" } else { "10.0.0.2:8080" }.parse().unwrap(),
                            )
                            .unwrap(),
                            ..record(v6, 2001, 1)
                        },
                        vec![lesson::DONE, lesson::DONE],
                    ),
                ] {
                    assert_eq!(learn(&mut in_kernel, &record), expected, "{record:?}");
                    assert_eq!(learn(&mut in_memory, &record), expected, "{record:?}");
                }
            }
            assert_eq!(known(&in_kernel), known(&in_memory), "XDP {xdp}");
        }
    });
}
