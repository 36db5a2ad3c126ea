//! Models written into tables in memory: what stands there after every operation.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dirigent_config::{
    Command, Method, Model, Op, Overlay, Plan, Scheduler, Server as WantedServer, Service as WantedService, ServiceKey,
};
use dirigent_director::family::Address as _;
use dirigent_director::records::{
    Conn, MarkRule, NextHop, Place, Server, Settings, hop, kind, mark_flag, server_flag, service_flag, setting,
};
use dirigent_director::schedule::{Client, schedule};
use dirigent_director::shared::S32;
use dirigent_director::sieve::{SERVER, VIRTUAL};
use dirigent_director::tables::Tables as _;
use dirigent_wire::{Addr4, Addr6};
use proptest::prelude::*;

use super::apply::spot;
use super::*;
use crate::keys::{address, slot, words};
use crate::memory::{Capacity, LocalNet, MemoryTables};

fn model(lines: &[&str]) -> Model {
    let mut model = Model::default();
    rules(&mut model, lines);
    model
}

fn rules(model: &mut Model, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        Command::from_args(&words).unwrap().apply(model).unwrap();
    }
}

fn open(model: &Model) -> Control<MemoryTables> {
    Control::open(MemoryTables::default(), model).unwrap()
}

/// Whether packets of an address that nobody noted are nobody's business.
fn sieves(control: &Control<MemoryTables>) -> bool {
    noted(control, "203.0.113.1") == 0
}

/// The bits of an address in the sieve.
fn noted(control: &Control<MemoryTables>, address: &str) -> u8 {
    let slot = usize::from(slot(address.parse().unwrap()));
    control.store().sieve.get(slot).copied().unwrap()
}

/// Applies ipvsadm lines one after the other.
fn change(control: &mut Control<MemoryTables>, lines: &[&str]) {
    for line in lines {
        let mut model = control.model().clone();
        rules(&mut model, &[line]);
        control.change_to(&model).unwrap();
    }
}

/// The last bytes of the servers that the next connections get.
fn picks(control: &Control<MemoryTables>, count: usize) -> Vec<u8> {
    let store = control.store();
    let (_, index) = store.places().unwrap().into_iter().find(|(place, _)| place.port == 80).unwrap();
    let client = &Client { addr: 1, port: 1, dest: 1, service: index, ..Client::default() };
    let pick = || schedule(store, client).unwrap();
    (0..count).map(|_| last_byte(store, pick())).collect()
}

/// Two at random by weight: without connections the first stands, with them the better.
#[test]
fn twos_draws_by_weight_and_takes_the_less_loaded() {
    let mut control = open(&model(&[
        "-A -t 192.0.2.1:80 -s twos",
        "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 1",
        "-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m -w 3",
        "-a -t 192.0.2.1:80 -r 10.0.0.3:80 -m -w 0",
        "-a -t 192.0.2.1:80 -r 10.0.0.4:80 -m -w 2147483647",
    ]));
    let share = |control: &Control<MemoryTables>, last: u8| picks(control, 4000).iter().filter(|p| **p == last).count();
    // Others than the heavy one: one in a billion.
    assert_eq!(share(&control, 4), 4000);
    change(&mut control, &["-e -t 192.0.2.1:80 -r 10.0.0.4:80 -m -w 0"]);
    let of = [1, 2, 3, 4].map(|last| share(&control, last));
    assert!((900..1100).contains(&of[0]) && (2900..3100).contains(&of[1]) && of[2..] == [0, 0], "{of:?}");
    // With connections on .2 it is chosen only where both draws are its: 9 in 16.
    let store = control.store_mut();
    let busy = (0..8).find(|i| last_byte(store, *i) == 2).unwrap();
    store.servers.get(busy as usize).unwrap().load.store(5 << 32);
    let of = [1, 2].map(|last| share(&control, last));
    assert!((1650..1850).contains(&of[0]) && (2150..2350).contains(&of[1]), "{of:?}");
}

fn last_byte(store: &MemoryTables, server: u32) -> u8 {
    match address(&Store::server(store, server).unwrap().addr, false) {
        IpAddr::V4(a) => a.octets()[3],
        IpAddr::V6(a) => a.octets()[15],
    }
}

const RR: [&str; 4] = [
    "-A -t 192.0.2.1:80 -s rr",
    "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m",
    "-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m",
    "-a -t 192.0.2.1:80 -r 10.0.0.3:80 -m",
];

#[test]
fn rr_begins_with_the_newest_and_keeps_its_place() {
    let mut control = open(&model(&RR));
    assert_eq!(picks(&control, 4), [3, 2, 1, 3]);
    change(&mut control, &["-a -t 192.0.2.1:80 -r 10.0.0.4:80 -m"]);
    assert_eq!(picks(&control, 3), [2, 1, 4]);
    change(&mut control, &["-d -t 192.0.2.1:80 -r 10.0.0.4:80"]);
    assert_eq!(picks(&control, 2), [3, 2]);
    change(&mut control, &["-e -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 0"]);
    assert_eq!(picks(&control, 3), [3, 2, 3]);
}

/// golden/sched/change-wrr-position: an edit goes back to the head at the same weight.
#[test]
fn wrr_goes_on_at_its_weight_after_an_edit() {
    let mut control = open(&Model::default());
    change(
        &mut control,
        &[
            "-A -t 192.0.2.1:80 -s wrr",
            "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 3",
            "-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m -w 2",
            "-a -t 192.0.2.1:80 -r 10.0.0.3:80 -m -w 1",
        ],
    );
    let key = control.model().services()[0].key;
    let server = control.model().services()[0].server("10.0.0.1".parse().unwrap(), 80).unwrap().clone();
    let edit = Plan { ops: vec![Op::EditServer { service: key, server }] };
    assert_eq!(picks(&control, 1), [3]);
    for expected in [&[3, 2][..], &[3, 2, 1], &[3, 2, 1, 1], &[1, 2, 1, 3, 2], &[3, 2, 1, 1, 2, 1]] {
        control.apply(&edit).unwrap();
        assert_eq!(picks(&control, expected.len()), expected);
    }
}

#[test]
fn a_server_that_returns_takes_its_index_back() {
    let mut control = open(&model(&RR));
    let key = control.model().services()[0].key;
    let two = "10.0.0.2".parse().unwrap();
    let before = control.server_status(&key, two, 80).unwrap().unwrap();
    control.store_mut().servers[before.index as usize].load.store(1 << 32);
    change(&mut control, &["-d -t 192.0.2.1:80 -r 10.0.0.2:80"]);
    let store = control.store();
    assert_eq!(store.next_hops[before.index as usize].state.load(), hop::REMOVED);
    assert_eq!(store.servers[before.index as usize].flags.load() & server_flag::AVAILABLE, 0);
    // Its index is nobody else's, though it is the lowest without a list.
    change(&mut control, &["-a -t 192.0.2.1:80 -r 10.0.0.9:80 -m"]);
    let nine = control.server_status(&key, "10.0.0.9".parse().unwrap(), 80).unwrap().unwrap();
    assert_ne!(nine.index, before.index);
    control.collect().unwrap();
    assert_eq!(control.lingering_servers(), 1);
    change(&mut control, &["-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m"]);
    let after = control.server_status(&key, two, 80).unwrap().unwrap();
    assert_eq!((after.index, after.active), (before.index, 1));
    assert_eq!(picks(&control, 1).len(), 1);
    // And a service that returns takes all of them back.
    change(&mut control, &["-D -t 192.0.2.1:80"]);
    assert!(control.store().places().unwrap().is_empty());
    for line in RR {
        change(&mut control, &[line]);
    }
    assert_eq!(control.server_status(&key, two, 80).unwrap().unwrap().index, before.index);
}

#[test]
fn an_index_is_free_when_no_connection_refers_to_it() {
    let mut control = open(&model(&RR));
    change(&mut control, &["-D -t 192.0.2.1:80"]);
    assert_eq!(control.lingering_servers(), 3);
    control.store_mut().servers[0].load.store(1);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    control.collect().unwrap();
    assert_eq!(control.lingering_servers(), 1);
    control.store_mut().servers[0].load.store(0);
    control.collect().unwrap();
    assert_eq!(control.lingering_servers(), 0);
    assert!(control.used_servers.iter().chain(control.used_services.iter()).next().is_none());
    assert!(control.store().servers.iter().all(|s| s.method == 0));
}

#[test]
fn a_take_over_finds_everything_again() {
    let old = model(&[&RR[..], &["-A -u 192.0.2.1:53 -s mh", "-a -u 192.0.2.1:53 -r 10.0.0.1:53 -m"]].concat());
    let mut control = open(&old);
    picks(&control, 2);
    let tcp = old.services()[0].key;
    change(&mut control, &["-d -t 192.0.2.1:80 -r 10.0.0.3:80"]);
    let indexes = |control: &Control<MemoryTables>| -> Vec<_> {
        let of = |s: &WantedService| s.servers.iter().map(|r| (s.key, r.identity())).collect::<Vec<_>>();
        let all = control.model().services().iter().flat_map(of);
        all.map(|(key, (a, p))| control.server_status(&key, a, p).unwrap().unwrap().index).collect()
    };
    let (before, slots) = (indexes(&control), control.store().slots.clone());
    let now = control.model().clone();
    let mut control = Control::open(control.into_store(), &now).unwrap();
    assert_eq!((indexes(&control), &control.store().slots), (before, &slots));
    assert_eq!(picks(&control, 2), [1, 2]);
    // The removed one is still there, and returns.
    assert_eq!(control.lingering_servers(), 1);
    // Another Model at take-over: the old indexes, but for what is new.
    let mut other = now.clone();
    rules(&mut other, &["-a -t 192.0.2.1:80 -r 10.0.0.3:80 -m", "-D -u 192.0.2.1:53"]);
    let three = control.trash.find(&tcp, "10.0.0.3".parse().unwrap(), 80).unwrap();
    control = Control::open(control.into_store(), &other).unwrap();
    assert_eq!(control.server_status(&tcp, "10.0.0.3".parse().unwrap(), 80).unwrap().unwrap().index, three);
    assert_eq!(control.lingering_servers(), 1);
    assert_consistent(&control);
}

#[test]
fn one_packet_servers_are_known() {
    let mut control = open(&model(&[
        "-A -u 192.0.2.1:53 -s rr -o",
        "-a -u 192.0.2.1:53 -r 10.0.0.1:53 -m",
        "-A -u 192.0.2.2:53 -s rr",
        "-a -u 192.0.2.2:53 -r 10.0.0.1:53 -m",
    ]));
    let kind = |control: &Control<MemoryTables>| {
        let known = control.store().known().unwrap();
        known.iter().find(|(spot, _)| spot.port == 53).unwrap().1.one_packet
    };
    let flags = |control: &Control<MemoryTables>| Store::settings(control.store()).unwrap().flags;
    // The place, and the whole address beside it.
    assert_eq!((control.store().known().unwrap().len(), kind(&control)), (2, 1));
    assert_ne!(flags(&control) & setting::KNOW_SERVERS, 0);
    change(&mut control, &["-E -u 192.0.2.2:53 -s rr -o"]);
    assert_eq!(kind(&control), 2);
    change(&mut control, &["-E -u 192.0.2.2:53 -s rr", "-E -u 192.0.2.1:53 -s rr"]);
    assert_eq!((kind(&control), flags(&control) & setting::KNOW_SERVERS), (0, 0));
    change(&mut control, &["-C"]);
    assert!(control.store().known().unwrap().is_empty());
}

#[test]
fn addresses_are_noted_before_they_are_used_and_for_good() {
    let mut control = open(&model(&["-A -t 192.0.2.1:80 -s rr", "-a -t 192.0.2.1:80 -r 10.0.0.1 -m"]));
    let all = |control: &Control<MemoryTables>| {
        ["192.0.2.1", "10.0.0.1", "2001:db8::1", "2001:db8::2", "10.0.0.3"].map(|address| noted(control, address))
    };
    assert_eq!(all(&control), [VIRTUAL, SERVER, 0, 0, 0]);
    change(&mut control, &["-A -u [2001:db8::1]:53 -s rr", "-a -u [2001:db8::1]:53 -r [2001:db8::2]:53 -m"]);
    control.set_targets(&HashSet::from([target("10.0.0.3", Method::Dr)])).unwrap();
    assert_eq!(all(&control), [VIRTUAL, SERVER, VIRTUAL, SERVER, SERVER]);
    // Their connections outlive them, and a take-over.
    change(&mut control, &["-D -t 192.0.2.1:80", "-d -u [2001:db8::1]:53 -r [2001:db8::2]:53"]);
    let control = Control::open(control.into_store(), &Model::default()).unwrap();
    assert!(sieves(&control));
    assert_eq!(all(&control), [VIRTUAL, SERVER, VIRTUAL, SERVER, SERVER]);
}

/// Once packets of any address could open connections, nobody knows what addresses there are: until the tables are new.
#[test]
fn marks_and_ftp_have_tables_asked_about_every_packet() {
    let plain = "-A -t 192.0.2.1:80 -s rr";
    let marked = |line: &str| dirigent_config::file::parse("test.toml", &format!("version = 1\n{line}\n")).unwrap();
    for wanted in [
        model(&["-A -t 192.0.2.1:21 -s rr"]),
        model(&["-A -t 192.0.2.1:0 -s rr -p 60"]),
        model(&["-A -f 7 -s rr"]),
        marked("[director]\nmark_device = \"marked\""),
        marked("[[mark]]\nset = 7\ndestination = \"192.0.2.0/24\""),
    ] {
        let mut control = open(&model(&[plain]));
        assert!(sieves(&control));
        control.change_to(&wanted).unwrap();
        assert!(!sieves(&control));
        control.change_to(&model(&[plain])).unwrap();
        assert!(!sieves(&control), "their connections are there");
        let control = Control::open(control.into_store(), &model(&[plain])).unwrap();
        assert!(!sieves(&control), "and outlive the daemon");
    }
}

#[test]
fn next_hops_follow_the_address() {
    let mut control = open(&Model::default());
    let next = NextHop { state: S32::new(hop::RESOLVED), ifindex: 7, ..NextHop::default() };
    control.set_next_hop("10.0.0.1".parse().unwrap(), &next).unwrap();
    change(&mut control, &RR);
    let key = control.model().services()[0].key;
    let hop_of = |control: &Control<MemoryTables>, a: &str| {
        control.server_status(&key, a.parse().unwrap(), 80).unwrap().unwrap().hop
    };
    assert_eq!((hop_of(&control, "10.0.0.1"), hop_of(&control, "10.0.0.2")), (hop::RESOLVED, hop::UNKNOWN));
    control.set_next_hop("10.0.0.2".parse().unwrap(), &next).unwrap();
    assert_eq!(hop_of(&control, "10.0.0.2"), hop::RESOLVED);
    // Of one that is removed the way stays: a packet may be just going it.
    let two = control.server_status(&key, "10.0.0.2".parse().unwrap(), 80).unwrap().unwrap().index;
    change(&mut control, &["-d -t 192.0.2.1:80 -r 10.0.0.2:80"]);
    let left = Store::next_hop(control.store(), two).unwrap();
    assert_eq!((left.state.load(), left.ifindex), (hop::REMOVED, 7));
}

#[test]
fn what_does_not_fit_is_taken_back() {
    let capacity = Capacity { servers: 2, ..Capacity::default() };
    let mut control = Control::open(MemoryTables::new(&capacity), &Model::default()).unwrap();
    change(&mut control, &RR[..2]);
    let before = control.model().clone();
    let mut wanted = before.clone();
    rules(&mut wanted, &RR[2..]);
    let error = control.change_to(&wanted).unwrap_err();
    assert_eq!(error.to_string(), "no room for another real server: the table holds 2");
    assert_eq!(control.model(), &before);
    assert_consistent(&control);
}

/// What was written before the failure is written anew, though the Model is as it was.
#[test]
fn an_edit_that_fails_half_way_is_taken_back() {
    // One table of sh and its list, and no second one.
    let capacity = Capacity { slots: 300, ..Capacity::default() };
    let sh = RR.map(|line| line.replace("rr", "sh"));
    let model = model(&sh.each_ref().map(String::as_str));
    let mut control = Control::open(MemoryTables::new(&capacity), &model).unwrap();
    let mut wanted = model.clone();
    rules(&mut wanted, &["-e -t 192.0.2.1:80 -r 10.0.0.2:80 -m -w 7"]);
    let error = control.change_to(&wanted).unwrap_err();
    assert_eq!(error.to_string(), "no room for another table of a scheduler: the table holds 300");
    assert_eq!(control.model(), &model);
    assert_consistent(&control);
}

/// A change costs what it changes, and not what there is beside it: so many writes with two hundred services as with twenty,
/// whose servers are the same machines.
#[test]
fn writes_are_as_many_as_there_are_changes() {
    let many = |services: u8, weight: &dyn Fn(u8, u8) -> u32| {
        let mut model = Model::default();
        for service in 1..=services {
            let at = format!("192.0.2.{service}:80");
            rules(&mut model, &[&format!("-A -t {at} -s wrr")]);
            for server in 1..=20 {
                rules(&mut model, &[&format!("-a -t {at} -r 10.0.0.{server}:80 -m -w {}", weight(service, server))]);
            }
        }
        model
    };
    let measured = [20, 200].map(|services| {
        let capacity = Capacity { servers: 2 * 20 * usize::from(services), ..Capacity::default() };
        let first = many(services, &|_, _| 2);
        let mut control = Control::open(MemoryTables::new(&capacity), &first).unwrap();
        let servers = 20 * u64::from(services);
        let change = |control: &mut Control<MemoryTables>, to: &Model| {
            let before = control.store().written;
            control.change_to(to).unwrap();
            control.store().written - before
        };
        let began = control.store().written;
        assert!(began < servers * 8, "{began} writes for {servers} servers");
        let none = change(&mut control, &first);
        let one =
            change(&mut control, &many(services, &|service, server| if (service, server) == (9, 9) { 3 } else { 2 }));
        let all = change(&mut control, &many(services, &|_, _| 5));
        assert!(all < servers * 8, "{all} writes for {servers} servers");
        let mut fewer = many(services, &|_, _| 5);
        rules(&mut fewer, &["-d -t 192.0.2.9:80 -r 10.0.0.9:80"]);
        let gone = change(&mut control, &fewer);
        let model = control.model().clone();
        let again = control.store().written;
        control = Control::open(control.into_store(), &model).unwrap();
        let taken_over = control.store().written - again;
        assert!(taken_over < servers * 8, "{taken_over} writes for {servers} servers");
        [none, one, gone]
    });
    let [few, many] = measured;
    assert_eq!(few, many);
    let [none, one, gone] = few;
    assert!(none == 0 && one <= 5 && gone <= 40, "{few:?}");
}

/// A table of another size is another one, of which a packet sees all or nothing; and there is an end to room.
#[test]
fn tables_are_of_the_sizes_that_services_choose() {
    let mh = RR.map(|line| line.replace("rr", "mh"));
    let small = model(&mh.each_ref().map(String::as_str));
    let sized = |slots| {
        let mut service = small.services()[0].clone();
        service.table_size = slots;
        let mut model = small.clone();
        model.put_service(service).map(|()| model)
    };
    let capacity = Capacity { slots: 80_000, ..Capacity::default() };
    let mut control = Control::open(MemoryTables::new(&capacity), &small).unwrap();
    let key = small.services()[0].key;
    let table = |control: &Control<MemoryTables>| {
        let (_, index) = control.store().places().unwrap()[0];
        let (base, size) = Store::service(control.store(), index).unwrap().table();
        let slots = control.store().slots(base, size).unwrap();
        let servers: HashSet<u32> = control.held[&key].members.iter().map(|member| member.index).collect();
        assert!(slots.iter().all(|slot| servers.contains(slot)));
        size
    };
    assert_eq!(table(&control), 4093);
    for size in [65521, 251, 65521] {
        control.change_to(&sized(Some(size)).unwrap()).unwrap();
        assert_eq!(table(&control), size);
        assert_consistent(&control);
    }
    // The old table and the new one would have to fit.
    let error = control.change_to(&sized(Some(32749)).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "no room for another table of a scheduler: the table holds 80000");
    assert!(matches!(error, Error::Full { key: "slots", .. }));
    assert_eq!(table(&control), 65521);
    assert_consistent(&control);
    let model = control.model().clone();
    control = Control::open(control.into_store(), &model).unwrap();
    assert_eq!(table(&control), 65521);
    control.change_to(&small).unwrap();
    assert_eq!(table(&control), 4093);
    assert!(sized(Some(65536)).is_err());
}

/// Without an available server nobody is chosen, however many slots there are to look at.
#[test]
fn a_fallback_finds_whoever_is_available() {
    let mh = ["-A -t 192.0.2.1:80 -s mh -b mh-fallback", RR[1], RR[2], RR[3]];
    let mut control = open(&model(&mh));
    let key = control.model().services()[0].key;
    for (n, left) in (1..=3).zip([vec![2, 3], vec![3], vec![]]) {
        change(&mut control, &[&format!("-e -t 192.0.2.1:80 -r 10.0.0.{n}:80 -m -w 0")]);
        let seen: HashSet<u8> = (0..200)
            .filter_map(|client| match goes_to(&control, &key, client)? {
                IpAddr::V4(a) => Some(a.octets()[3]),
                IpAddr::V6(_) => None,
            })
            .collect();
        assert_eq!(seen, left.into_iter().collect(), "without {n}");
    }
}

#[test]
fn a_change_of_one_server_leaves_the_others_records_alone() {
    let mut control = open(&model(&RR));
    let key = control.model().services()[0].key;
    let index = control.server_status(&key, [10, 0, 0, 1].into(), 80).unwrap().unwrap().index;
    let mark = Server { upper: 77, ..record(&control, 1) };
    control.store_mut().put_server(index, &mark).unwrap();
    for line in ["-e -t 192.0.2.1:80 -r 10.0.0.2:80 -m -w 5", "-d -t 192.0.2.1:80 -r 10.0.0.3:80"] {
        change(&mut control, &[line]);
        assert_eq!((record(&control, 1).upper, record(&control, 2).weight.load()), (77, 5));
    }
    change(&mut control, &["-e -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 3"]);
    assert_eq!(record(&control, 1).upper, 0);
}

/// The tables say what the Model does.
fn assert_consistent(control: &Control<MemoryTables>) {
    let store = control.store();
    let mut places = store.places().unwrap();
    assert_eq!(places.len(), control.model().services().len());
    for wanted in control.model().services() {
        let at = places.iter().position(|(place, _)| *place == spot(&wanted.key)).unwrap();
        let (_, index) = places.swap_remove(at);
        let record = Store::service(store, index).unwrap();
        let list = record.list.load();
        let found: Vec<_> = store.slots((list >> 32) as u32, list as u32).unwrap();
        let found: Vec<_> = found.into_iter().map(|i| Store::server(store, i).unwrap()).collect();
        let identity = |s: &dirigent_director::records::Server| {
            (address(&s.addr, wanted.key.is_ipv6()), s.port.get(), s.configured_weight(), s.method == 1)
        };
        let expected: Vec<_> =
            wanted.servers_in_list_order().map(|s| (s.address, s.port, s.weight, s.method == Method::Nat)).collect();
        assert_eq!(found.iter().map(identity).collect::<Vec<_>>(), expected);
        assert!(found.iter().all(|s| s.flags.load() & server_flag::AVAILABLE != 0 && s.service == index));
        for (record, wanted) in found.iter().zip(wanted.servers_in_list_order()) {
            assert_eq!(record.flags.load() & server_flag::DRAINING != 0, wanted.draining);
            assert_eq!(record.weight.load() > 0, wanted.takes());
        }
        if found.iter().all(|s| s.share().is_none()) {
            let exact =
                |(record, wanted): (&Server, &WantedServer)| wanted.draining || record.weight.load() == wanted.weight;
            assert!(found.iter().zip(wanted.servers_in_list_order()).all(exact));
        }
        assert_eq!(record.flags & service_flag::ONE_PACKET != 0, wanted.one_packet);
        assert_eq!(record.flags & service_flag::BY_MARK != 0, wanted.key.mark() != 0);
        assert_eq!((record.mark, record.port.get()), (wanted.key.mark(), wanted.key.port()));
        assert!((record.cursor.load() >> 32) as usize <= expected.len());
        assert_eq!(record.table().1, wanted.table_slots());
        assert_eq!(record.flags & service_flag::QUIC != 0, wanted.quic);
        assert_eq!(record.ids().is_some(), wanted.quic);
        let count = record.ids().map_or(0, |base| store.slots(base, 1).unwrap()[0]);
        let ids = record.ids().map_or(vec![], |base| store.slots(base + 1, count * 2).unwrap());
        let told: Vec<_> = ids.chunks(2).map(|pair| (pair[0], Store::server(store, pair[1]).unwrap().addr)).collect();
        let mut expected: Vec<_> =
            wanted.servers.iter().filter(|_| wanted.quic).map(|s| (s.quic_id().0, words(s.address))).collect();
        expected.sort_unstable();
        assert_eq!(told, expected);
    }
}

/// No index is in use by nobody.
fn assert_nothing_leaks(control: &Control<MemoryTables>) {
    let members: usize = control.held.values().map(|held| held.members.len()).sum();
    assert_eq!(control.used_servers.iter().count(), members + control.lingering_servers());
}

fn mark_key(mark: u32) -> ServiceKey {
    ServiceKey::Mark { mark: mark.try_into().unwrap(), ipv6: false }
}

fn any_model() -> impl Strategy<Value = Model> {
    let server = (1u8..6, 0u32..4, any::<bool>(), proptest::bool::weighted(0.2));
    let schedulers = proptest::sample::select(dirigent_config::Scheduler::ALL);
    let service = (1u8..4, any::<bool>(), schedulers, any::<bool>(), proptest::collection::vec(server, 0..5));
    proptest::collection::vec(service, 0..4).prop_map(|services| {
        let mut model = Model::default();
        for (vip, udp, scheduler, one_packet, servers) in services {
            let protocol = if udp { dirigent_config::Protocol::Udp } else { dirigent_config::Protocol::Tcp };
            let key = match vip {
                3 => mark_key(u32::from(udp) + 1),
                _ => ServiceKey::Address { protocol, address: IpAddr::from([192, 0, 2, vip]), port: 80 },
            };
            let (one_packet, quic) = (one_packet && udp, !one_packet && udp && vip != 3);
            let slowly = [Scheduler::Wrr, Scheduler::Wlc, Scheduler::Twos].contains(&scheduler);
            let slow_start = slowly.then_some(Duration::from_secs(10));
            let service = WantedService { scheduler, one_packet, quic, slow_start, ..WantedService::new(key) };
            if model.add_service(service).is_err() {
                continue;
            }
            for (last, weight, dr, draining) in servers {
                let method = if dr { Method::Dr } else { Method::Nat };
                let server = WantedServer::new(IpAddr::from([10, 0, 0, last]), 80, method);
                let _ = model.add_server(&key, WantedServer { weight, draining, ..server });
            }
        }
        model
    })
}

/// Where a new connection of this client would go now.
fn goes_to(control: &Control<MemoryTables>, key: &ServiceKey, client: u32) -> Option<IpAddr> {
    let store = control.store();
    let (_, index) = store.places().unwrap().into_iter().find(|(place, _)| *place == spot(key))?;
    let server = schedule(store, &Client { addr: client, port: 1, dest: 1, service: index, ..Client::default() })?;
    Some(address(&Store::server(store, server).ok()?.addr, false))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// After every operation the tables say what the Model does, and each new connection
    /// goes to a server of the old or the new Model; the same after a take-over.
    #[test]
    fn plans_are_written_operation_by_operation(models in proptest::collection::vec(any_model(), 2..4)) {
        let mut control = open(&models[0]);
        assert_consistent(&control);
        for pair in models.windows(2) {
            let plan = Plan::between(control.model(), &pair[1]);
            for op in plan.ops {
                control.apply(&Plan { ops: vec![op] }).unwrap();
                assert_consistent(&control);
                for key in pair[0].services().iter().chain(pair[1].services()).map(|s| s.key) {
                    let allowed = |m: &Model, a: IpAddr| m.service(&key).is_some_and(|s| s.server(a, 80).is_some());
                    for client in 0..3 {
                        if let Some(to) = goes_to(&control, &key, client) {
                            prop_assert!(allowed(&pair[0], to) || allowed(&pair[1], to));
                        }
                    }
                }
            }
            let model = control.model().clone();
            control = Control::open(control.into_store(), &model).unwrap();
            assert_consistent(&control);
        }
    }

    /// A plan that fails in the middle leaves the tables as they were.
    #[test]
    fn failed_plans_are_taken_back(old in any_model(), new in any_model()) {
        let servers = |m: &Model| m.services().iter().map(|s| s.servers.len()).sum::<usize>();
        let capacity = Capacity { servers: servers(&old), services: 3, slots: 1 << 15, conns: 10 };
        let mut control = Control::open(MemoryTables::new(&capacity), &old).unwrap();
        match control.change_to(&new) {
            Ok(()) => prop_assert_eq!(control.model(), &new),
            Err(e) => {
                prop_assert!(matches!(e, Error::Full { .. }), "{}", e);
                prop_assert_eq!(control.model(), &old);
            }
        }
        assert_consistent(&control);
        assert_nothing_leaks(&control);
    }
}

/// A request entry of a connection to this server.
fn connect(control: &mut Control<MemoryTables>, kind: u8, dst: ([u8; 4], u16), server: u32, mark: u32) {
    let tables = control.store_mut();
    let dst = (IpAddr::from(dst.0), dst.1);
    let flow = Flow { template: 0, protocol: 6, src: [198, 51, 100, 1].into(), sport: 4000, dst: dst.0, dport: dst.1 };
    let service = tables.servers[server as usize].service;
    let conn = Conn { kind, server, service, mark, ..Conn::default() };
    tables.insert4(&flow.tuple4().unwrap(), &conn);
    tables.servers[server as usize].load.store(1 << 32);
}

/// The service of a removed server is known by its connections only, whatever their method,
/// port and mark.
#[test]
fn a_take_over_learns_places_from_connections() {
    for (service, server, dst, method, mark) in [
        ("-t 192.0.2.1:80", "10.0.0.1:80 -m", ([192, 0, 2, 1], 80), kind::NAT_REQUEST, 0),
        ("-t 192.0.2.1:80", "10.0.0.1:80 -g", ([192, 0, 2, 1], 80), kind::DR_REQUEST, 0),
        ("-t 192.0.2.1:80", "10.0.0.1:80 -i", ([192, 0, 2, 1], 80), kind::TUN_REQUEST, 0),
        // Marked, but by the address.
        ("-t 192.0.2.1:80", "10.0.0.1:80 -i", ([192, 0, 2, 1], 80), kind::TUN_REQUEST, 5),
        // An FTP data connection.
        ("-t 192.0.2.1:21", "10.0.0.1:21 -m", ([192, 0, 2, 1], 2345), kind::NAT_REQUEST, 0),
        ("-f 70000", "10.0.0.1:0 -i", ([203, 0, 113, 9], 443), kind::TUN_REQUEST, 70000),
        ("-f 7", "10.0.0.1:0 -m", ([203, 0, 113, 9], 443), kind::NAT_REQUEST, 7),
    ] {
        let lines = [format!("-A {service}"), format!("-a {service} -r {server}")];
        let lines = lines.each_ref().map(String::as_str);
        let mut control = open(&model(&lines));
        let key = control.model().services()[0].key;
        let (address, port) = control.model().services()[0].servers[0].identity();
        let before = control.server_status(&key, address, port).unwrap().unwrap().index;
        connect(&mut control, method, dst, before, mark);
        change(&mut control, &[&format!("-D {service}")]);
        // Another server must not get its index, and it gets it back itself.
        let mut control = Control::open(control.into_store(), &Model::default()).unwrap();
        assert_eq!(control.trash.find(&key, address, port), Some(before), "{service} {server}");
        change(&mut control, &["-A -t 192.0.2.9:80", "-a -t 192.0.2.9:80 -r 10.0.0.1:80 -m"]);
        change(&mut control, &lines);
        assert_eq!(control.server_status(&key, address, port).unwrap().unwrap().index, before, "{service} {server}");
    }
}

#[test]
fn mark_services_have_places_flags_and_persistence() {
    let mut control = open(&model(&[
        "-A -f 7 -p 300 -M 255.255.0.0",
        "-a -f 7 -r 10.0.0.1:0 -m",
        "-a -f 7 -r 10.0.0.2:8080 -m",
        "-A -f 7 -6 -p 10 -M 64",
        "-A -t 192.0.2.1:21",
    ]));
    let store = control.store();
    let service = |store: &MemoryTables, place| Store::service(store, store.service4(&place).unwrap()).unwrap();
    let four = service(store, Place::mark(Addr4::of_mark(7)));
    assert_eq!((four.mark, four.port.get(), four.persistence), (7, 0, 300 * 250));
    assert_eq!(four.flags, service_flag::BY_MARK | service_flag::PERSISTENT);
    let mut network = Addr4::default();
    Addr4::new([10, 1, 2, 3]).write_network(four.mask, &mut network);
    assert_eq!(network.bytes(), [10, 1, 0, 0]);
    let six = Store::service(store, store.service6(&Place::mark(Addr6::of_mark(7))).unwrap()).unwrap();
    assert_eq!((six.mark, six.mask, six.persistence), (7, 64, 2500));
    // No address is said to be virtual by a mark.
    assert_eq!(store.services4.len() + store.services6.len(), 4);
    // Its NAT servers are known for each protocol, and by their addresses.
    let mut known: Vec<_> = store.known().unwrap().into_iter().map(|(s, _)| (s.port, s.protocol)).collect();
    known.sort_unstable();
    let of = |port| [(port, 6), (port, 17), (port, 132)];
    assert_eq!(known, [[(0, 0), (0, 0)].as_slice(), &of(0), &of(8080)].concat());
    let flags = |control: &Control<MemoryTables>| {
        Store::settings(control.store()).unwrap().flags & (setting::FTP | setting::ANY_PORT | setting::LOCAL_NETS)
    };
    assert_eq!(flags(&control), setting::FTP);
    change(&mut control, &["-D -t 192.0.2.1:21", "-A -u 192.0.2.1:0 -p"]);
    assert_eq!(flags(&control), setting::ANY_PORT);
    change(&mut control, &["-C"]);
    assert_eq!((flags(&control), control.store().services4.len(), control.store().services6.len()), (0, 0, 0));
    assert!(control.store().known().unwrap().is_empty());
}

#[test]
fn a_one_packet_service_by_mark_has_no_one_address() {
    let control = open(&model(&["-A -f 7 -o", "-a -f 7 -r 10.0.0.1:53 -m"]));
    let known = control.store().known().unwrap();
    assert!(known.iter().filter(|(spot, _)| spot.port == 53).all(|(_, known)| known.one_packet == 2));
}

/// A new set of rules stands beside the old one, and takes its place with one word.
#[test]
fn mark_rules_are_switched_at_once() {
    let text = r#"
version = 1
[[mark]]
interface = "eth0"
source = "10.1.0.0/16"
destination_ports = "80-90"
protocol = "tcp"
not = ["source", "destination_ports"]
set = 1
[[mark]]
destination = "2001:db8::/32"
set = 0x10
mask = 0xf0
"#;
    let wanted = dirigent_config::file::parse("f", text).unwrap();
    let rules = |control: &Control<MemoryTables>| {
        let word = Store::settings(control.store()).unwrap().mark_rules;
        (word >> 16, control.store().mark_rules(word >> 16, word & 0xffff).unwrap())
    };
    let mut control = open(&Model::default());
    assert_eq!(rules(&control), (0, vec![]));
    control.change_to(&wanted).unwrap();
    let (base, found) = rules(&control);
    let first = MarkRule {
        flags: mark_flag::NOT_SOURCE | mark_flag::NOT_DPORT,
        ifindex: u32::MAX,
        source: words("10.1.0.0".parse().unwrap()),
        source_mask: words("255.255.0.0".parse().unwrap()),
        sports: [0, 65535],
        dports: [80, 90],
        protocol: 6,
        keep: 0,
        value: 1,
        ..MarkRule::default()
    };
    let second = MarkRule {
        flags: mark_flag::V6,
        dest: words("2001:db8::".parse().unwrap()),
        dest_mask: words("ffff:ffff::".parse().unwrap()),
        sports: [0, 65535],
        dports: [0, 65535],
        keep: !0xf0,
        value: 0x10,
        ..MarkRule::default()
    };
    assert_eq!((base, found), (4096, vec![first, second]));
    // The interface comes, and comes again with another number; others do not matter.
    let links = |index| std::collections::HashMap::from([("eth0".into(), index), ("lo".into(), 1)]);
    control.set_interfaces(links(5)).unwrap();
    assert_eq!(rules(&control), (0, vec![MarkRule { ifindex: 5, ..first }, second]));
    assert_eq!(control.store().mark_rules(4096, 2).unwrap(), [first, second]);
    control.set_interfaces(links(6)).unwrap();
    assert_eq!(rules(&control), (4096, vec![MarkRule { ifindex: 6, ..first }, second]));
    control.set_interfaces(std::collections::HashMap::from([("eth0".into(), 6)])).unwrap();
    assert_eq!(rules(&control).0, 4096);
    // A take-over does not know of interfaces at first, and trusts its predecessor.
    let mut control = Control::open(control.into_store(), &wanted).unwrap();
    assert_eq!(rules(&control), (4096, vec![MarkRule { ifindex: 6, ..first }, second]));
    control.set_interfaces(links(8)).unwrap();
    assert_eq!(rules(&control), (0, vec![MarkRule { ifindex: 8, ..first }, second]));
    control.set_interfaces(Default::default()).unwrap();
    assert_eq!(rules(&control), (4096, vec![first, second]));
    control.change_to(&Model::default()).unwrap();
    assert_eq!(rules(&control).1, []);
}

#[test]
fn prefixes_are_local_always_or_by_mark() {
    let net = |text: &str, marked| {
        let prefix = dirigent_config::Prefix::parse(text).unwrap();
        LocalNet { address: prefix.address(), length: prefix.length(), marked }
    };
    let mut control = open(&Model::default());
    let local = |control: &Control<MemoryTables>, address: [u8; 4]| {
        let (tables, address) = (control.store(), Addr4::new(address));
        (tables.local4(&address), tables.local_by_mark4(&address))
    };
    let nets = [net("0.0.0.0/0", true), net("198.51.100.0/24", false), net("198.51.100.0/28", true)];
    control.set_local_nets(&nets.into()).unwrap();
    assert_eq!(local(&control, [198, 51, 100, 1]), (true, true));
    assert_eq!(local(&control, [203, 0, 113, 1]), (false, true));
    // The longest prefix decides in the kernel: it says what the wider one does.
    let narrow = control.store().local_nets().unwrap().into_iter().find(|net| net.length == 28).unwrap();
    assert!(!narrow.marked);
    let six = net("2001:db8:64::/48", false);
    let in_six = Addr6::from_words(&words("2001:db8:64::7".parse().unwrap()));
    control.set_local_nets(&[net("0.0.0.0/0", true), six].into()).unwrap();
    assert_eq!(local(&control, [198, 51, 100, 1]), (false, true));
    assert!(control.store().local6(&in_six));
    // They are found again, and removed.
    let mut control = Control::open(control.into_store(), &Model::default()).unwrap();
    assert_eq!(control.local_nets.len(), 2);
    control.set_local_nets(&Default::default()).unwrap();
    assert_eq!(local(&control, [203, 0, 113, 1]), (false, false));
    assert_eq!(Store::settings(control.store()).unwrap().flags & setting::LOCAL_NETS, 0);
}

#[test]
fn idle_connections_are_swept_and_counted_out() {
    use dirigent_director::conn::{self, Word};
    use dirigent_director::family::V4;
    use dirigent_director::shared::S64;
    let mut control = open(&model(&RR));
    let tables = control.store_mut();
    let flow = |last: u8| Flow {
        template: 0,
        protocol: 6,
        src: IpAddr::from([198, 51, 100, last]),
        sport: 4000,
        dst: IpAddr::from([192, 0, 2, 1]),
        dport: 80,
    };
    for last in [1, 2] {
        let seen = tables.now.wrapping_sub(u32::from(last - 1) * 901 * 250);
        let word = Word::new(1, true, u32::from(last)).0;
        let server = dirigent_wire::Addr4::new([10, 0, 0, 1]);
        let port = dirigent_wire::Be16::new(80);
        let request = Conn { word: S64::new(word), last_seen: S32::new(seen), addr: server, port, ..Conn::default() };
        let reply = flow(last).reply(IpAddr::from([10, 0, 0, 1]), 80);
        for (flow, kind) in [(flow(last), kind::NAT_REQUEST), (reply, kind::NAT_REPLY)] {
            conn::insert::<V4, _>(tables, &flow.tuple4().unwrap(), &mut Conn { kind, ..request.clone() });
        }
    }
    tables.servers[0].load.store(2 << 32);
    let mut seen = Vec::new();
    connections(tables, &mut |c| seen.push((c.client, c.server, c.state, c.remaining_s))).unwrap();
    seen.sort();
    let server = (IpAddr::from([10, 0, 0, 1]), 80);
    assert_eq!(seen[0], ((IpAddr::from([198, 51, 100, 1]), 4000), server, "ESTABLISHED", 900));
    assert_eq!((seen[1].3, seen.len()), (0, 2));
    let swept = Sweep::default().run(tables, &mut || ()).unwrap();
    assert_eq!((swept.gone, swept.alive, tables.conns4.len()), (1, 0, 2));
    assert_eq!(tables.servers[0].connections(), (1, 0));
}

/// A connection in direct routing on the first server, of a client's port: so many seconds
/// silent, after so many packets.
fn connected(tables: &mut MemoryTables, sport: u16, protocol: u8, state: u8, silent_s: u32, packets: u32) -> Flow {
    use dirigent_director::conn::{self, Word};
    use dirigent_director::family::V4;
    use dirigent_director::records::{Conn, kind};
    use dirigent_director::shared::S64;
    let (src, dst) = (IpAddr::from([198, 51, 100, 1]), IpAddr::from([192, 0, 2, 1]));
    let flow = Flow { template: 0, protocol, src, sport, dst, dport: 80 };
    let mut request = Conn {
        // Tags are random in the packet path.
        word: S64::new(Word::new(state, false, u32::from(sport).wrapping_mul(0x9e37_79b1)).0),
        last_seen: S32::new(tables.now.wrapping_sub(silent_s * 250)),
        packets: S32::new(packets),
        addr: dirigent_wire::Addr4::new([192, 0, 2, 1]),
        port: dirigent_wire::Be16::new(80),
        kind: kind::DR_REQUEST,
        ..Conn::default()
    };
    conn::insert::<V4, _>(tables, &flow.tuple4().unwrap(), &mut request);
    tables.servers[0].load.add(1);
    flow
}

#[test]
fn with_expire_nodest_conn_the_sweep_ends_connections_of_removed_servers() {
    for expire in [false, true] {
        let mut control = open(&model(&RR));
        settings_of(&mut control, |settings| settings.expire_nodest_conn = expire);
        let flow = connected(control.store_mut(), 4000, 6, 1, 0, 5);
        let index = Store::entry(control.store(), &flow).unwrap().unwrap().server;
        let address = address(&Store::server(control.store(), index).unwrap().addr, false);
        assert_eq!(Sweep::default().run(control.store_mut(), &mut || ()).unwrap().gone, 0);
        change(&mut control, &[&format!("-d -t 192.0.2.1:80 -r {address}:80")]);
        let gone = Sweep::default().run(control.store_mut(), &mut || ()).unwrap().gone;
        assert_eq!(gone, u64::from(expire));
        assert_eq!(control.store().conns4.len(), usize::from(!expire));
        assert_eq!(Store::server(control.store(), index).unwrap().connections(), (0, u32::from(!expire)));
    }
}

/// They are marked, are not swept before they were reset, and end. When the server is back, nobody touches its new ones.
#[test]
fn connections_of_a_failed_server_are_reset() {
    let mut control = open(&model(&RR));
    settings_of(&mut control, |settings| settings.expire_nodest_conn = true);
    let live = connected(control.store_mut(), 4000, 6, 1, 0, 5);
    connected(control.store_mut(), 4001, 17, 0, 0, 5);
    let index = Store::entry(control.store(), &live).unwrap().unwrap().server;
    let address = address(&Store::server(control.store(), index).unwrap().addr, false);
    let key = control.model().services()[0].key;
    assert_eq!(Resets::of([index]).mark(control.store_mut(), &mut || ()).unwrap(), 0, "it did not fail");
    let server = format!("-t 192.0.2.1:80 -r {address}:80");
    change(&mut control, &[&format!("-d {server}")]);
    assert_eq!(control.allow_resets(&key, address, 80).unwrap(), Some(index));
    assert_eq!(control.allow_resets(&key, address, 81).unwrap(), None);
    let resets = Resets::of([index]);
    let untold = |control: &Control<MemoryTables>| {
        let mut all = Vec::new();
        resets.untold(control.store(), &mut |flow| all.push(*flow)).unwrap();
        all
    };
    assert_eq!(resets.mark(control.store_mut(), &mut || ()).unwrap(), 1, "that of UDP ends");
    assert_eq!(untold(&control), [live]);
    let mut states = Vec::new();
    connections(control.store(), &mut |c| states.push(c.state)).unwrap();
    assert_eq!(states, ["RESET"]);
    assert_eq!(Sweep::default().run(control.store_mut(), &mut || ()).unwrap().gone, 0);
    change(&mut control, &[&format!("-a {server} -m")]);
    connected(control.store_mut(), 4002, 6, 1, 0, 5);
    assert_eq!(resets.mark(control.store_mut(), &mut || ()).unwrap(), 0);
    assert_eq!(untold(&control), [live]);
    assert_eq!(resets.end(control.store_mut(), &mut || ()).unwrap(), 1);
    assert_eq!(Store::server(control.store(), index).unwrap().connections(), (0, 1));
    // What nobody ended is swept at last.
    change(&mut control, &[&format!("-d {server}")]);
    control.allow_resets(&key, address, 80).unwrap();
    settings_of(&mut control, |settings| settings.expire_nodest_conn = false);
    resets.mark(control.store_mut(), &mut || ()).unwrap();
    let tables = control.store_mut();
    tables.now = tables.now.wrapping_add(121 * 250);
    assert_eq!(Sweep::default().run(tables, &mut || ()).unwrap().gone, 1);
}

/// The candidates of `drop_entry` (ipvs-semantics §3.7), one in 32 of them each second.
#[test]
fn drop_entry_drops_what_looks_like_a_flood() {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const SCTP: u8 = 132;
    let mut control = open(&model(&RR));
    settings_of(&mut control, |settings| settings.defence.drop_entry = 3);
    let tables = control.store_mut();
    let gone_of = |protocol, state, silent_s, packets, tables: &mut MemoryTables| {
        tables.conns4.clear();
        for sport in 1..=3200 {
            connected(tables, sport, protocol, state, silent_s, packets);
        }
        let mut sweep = Sweep::default();
        // The first only begins to count the time.
        assert_eq!(sweep.run(tables, &mut || ()).unwrap().gone, 0);
        tables.now = tables.now.wrapping_add(250);
        sweep.run(tables, &mut || ()).unwrap().gone
    };
    // All that are looked at: about 100 of 3200.
    for (protocol, state) in [(TCP, 3), (TCP, 10), (SCTP, 1), (SCTP, 2)] {
        let gone = gone_of(protocol, state, 0, 1, tables);
        assert!((60..160).contains(&gone), "{protocol} {state}: {gone}");
    }
    // After a minute's silence one in as many as it had packets, up to eight.
    for (protocol, state) in [(TCP, 1), (SCTP, 8), (UDP, 0)] {
        let one = gone_of(protocol, state, 60, 1, tables);
        let eight = gone_of(protocol, state, 60, 8, tables);
        assert!((60..160).contains(&one) && (5..25).contains(&eight), "{protocol}: {one} {eight}");
        for (silent_s, packets) in [(58, 1), (60, 0), (60, 9)] {
            assert_eq!(gone_of(protocol, state, silent_s, packets, tables), 0, "{protocol} {silent_s} {packets}");
        }
    }
    // What closes, or was answered, is spared.
    for (protocol, state) in [(TCP, 2), (TCP, 4), (TCP, 5), (TCP, 7), (SCTP, 3), (SCTP, 13)] {
        assert_eq!(gone_of(protocol, state, 3, 1, tables), 0, "{protocol} {state}");
    }
    // Off again.
    settings_of(&mut control, |settings| settings.defence.drop_entry = 0);
    assert_eq!(gone_of(TCP, 3, 0, 1, control.store_mut()), 0);
}

/// Changes the settings in force.
fn settings_of(control: &mut Control<MemoryTables>, change: impl FnOnce(&mut dirigent_config::Settings)) {
    let mut wanted = control.model().clone();
    let mut settings = wanted.settings().clone();
    change(&mut settings);
    wanted.set_settings(settings).unwrap();
    control.change_to(&wanted).unwrap();
}

#[test]
fn word_that_changes_are_followed_outlives_other_settings() {
    let record = |control: &Control<MemoryTables>| Store::settings(control.store()).unwrap();
    let mut control = open(&model(&RR));
    control.ways_changed().unwrap();
    let before = record(&control);
    control.store_mut().now += 1000;
    control.ways_followed().unwrap();
    let after = record(&control);
    // A CPU whose clock is a little behind must not take it for the future.
    let passed = control.store().now.wrapping_sub(after.ways_followed);
    assert!((1..5).contains(&passed), "{passed} ticks");
    let else_the_same = Settings { ways_followed: before.ways_followed, ..after.clone() };
    assert_eq!(format!("{else_the_same:?}"), format!("{before:?}"));
    settings_of(&mut control, |settings| settings.sloppy_tcp = true);
    assert_eq!(record(&control).ways_followed, after.ways_followed);
}

#[test]
fn sysctls_reach_the_record_that_packets_look_at() {
    let mut control = open(&model(&RR));
    let record = |control: &Control<MemoryTables>| Store::settings(control.store()).unwrap();
    let flags = |control: &Control<MemoryTables>| record(control).flags;
    let plain = flags(&control);
    // What is set by default is what the packet path has by itself.
    let default = dirigent_director::records::Settings::default();
    assert_eq!(plain, default.flags);
    assert_eq!(record(&control).tcp_timeouts, default.tcp_timeouts);
    assert_eq!(record(&control).sctp_timeouts, default.sctp_timeouts);
    assert_eq!(record(&control).udp_timeout, default.udp_timeout);
    for (name, value, set, cleared) in [
        ("expire_nodest_conn", 1, setting::EXPIRE_NODEST, 0),
        ("expire_quiescent_template", 1, setting::EXPIRE_QUIESCENT, 0),
        ("sloppy_tcp", 1, setting::SLOPPY_TCP, 0),
        ("sloppy_sctp", 1, setting::SLOPPY_SCTP, 0),
        ("cache_bypass", 1, setting::CACHE_BYPASS, 0),
        ("conn_reuse_mode", 0, 0, setting::REUSE),
        ("conn_reuse_mode", 2, setting::REUSE_FIN_WAIT, 0),
        ("conn_reuse_mode", 3, setting::REUSE_FIN_WAIT, 0),
        ("secure_tcp", 3, setting::SECURE_TCP, 0),
        ("drop_entry", 3, setting::DROP_ENTRY, 0),
        ("schedule_icmp", 1, setting::SCHEDULE_ICMP, 0),
        ("nat_icmp_send", 1, setting::NAT_ICMP_SEND | setting::KNOW_SERVERS, 0),
        ("snat_reroute", 0, 0, setting::SNAT_REROUTE),
        ("pmtu_disc", 0, 0, setting::PMTU_DISC),
    ] {
        settings_of(&mut control, |settings| settings.ipvs_sysctl(name, value).unwrap());
        assert_eq!(flags(&control), (plain | set) & !cleared, "{name} {value}");
        settings_of(&mut control, |settings| *settings = dirigent_config::Settings::default());
        assert_eq!(flags(&control), plain);
    }
    settings_of(&mut control, |settings| settings.vip_default = dirigent_config::VipDefault::Reject);
    assert_eq!(flags(&control), plain | setting::REJECT);
    settings_of(&mut control, |settings| *settings = dirigent_config::Settings::default());
    settings_of(&mut control, |settings| {
        settings.timeouts.sctp.0[8] = std::time::Duration::from_secs(7);
        settings.defence.drop_packet = 3;
    });
    assert_eq!((record(&control).sctp_timeouts[8], record(&control).drop_rate), (7 * 250, 10));
    // Automatic: by memory, as it is said.
    settings_of(&mut control, |settings| {
        (settings.defence.drop_packet, settings.defence.secure_tcp, settings.defence.drop_entry) = (1, 1, 1);
    });
    let defended = |control: &Control<MemoryTables>| {
        let both = setting::SECURE_TCP | setting::DROP_ENTRY;
        (flags(control) & both == both, record(control).drop_rate)
    };
    assert_eq!(defended(&control), (false, 0));
    control.set_available(512).unwrap();
    assert_eq!(defended(&control), (true, 2));
    control.set_available(1024).unwrap();
    assert_eq!(defended(&control), (false, 0));
}

/// The Model with one server drained, or not any more.
fn drained(control: &Control<MemoryTables>, last: u8, draining: bool) -> Model {
    let mut model = control.model().clone();
    let service = model.services()[0].clone();
    let server = service.server(IpAddr::from([10, 0, 0, last]), 80).unwrap().clone();
    model.edit_server(&service.key, WantedServer { draining, ..server }).unwrap();
    model
}

fn record(control: &Control<MemoryTables>, last: u8) -> Server {
    let key = control.model().services()[0].key;
    let index = control.server_status(&key, IpAddr::from([10, 0, 0, last]), 80).unwrap().unwrap().index;
    Store::server(control.store(), index).unwrap()
}

/// With every scheduler, also those that would refuse a quiesced server's clients: nobody comes
/// to a drained server, all others stay where they were, and all is as before when it ends.
#[test]
fn a_drained_server_is_chosen_by_no_scheduler() {
    for scheduler in Scheduler::ALL.iter().map(|s| s.name()) {
        for weight in ["1", "7"] {
            let add = |last: u8| format!("-a -t 192.0.2.1:80 -r 10.0.0.{last}:80 -m -w {weight}");
            let lines = ["-A -t 192.0.2.1:80 -s ".to_owned() + scheduler, add(1), add(2), add(3)];
            let mut control = open(&model(&lines.each_ref().map(String::as_str)));
            let key = control.model().services()[0].key;
            let of_clients = |control: &Control<MemoryTables>| -> Vec<_> {
                (0..200).map(|client| goes_to(control, &key, client * 77)).collect()
            };
            let before = of_clients(&control);
            let drained_one = IpAddr::from([10, 0, 0, 2]);
            let two = Some(drained_one);
            control.change_to(&drained(&control, 2, true)).unwrap();
            let during = of_clients(&control);
            assert!(during.iter().all(|to| to.is_some() && *to != two), "{scheduler}: {during:?}");
            let hashes = control.model().services()[0].scheduler.hashes();
            if hashes && scheduler != "dh" {
                let both = before.iter().zip(&during);
                assert!(both.clone().all(|(was, is)| *was == two || was == is), "{scheduler}");
                let heirs: std::collections::HashSet<_> = both.filter(|(was, _)| **was == two).map(|b| b.1).collect();
                assert_eq!(heirs.len(), 2, "{scheduler}: both others take of its clients");
            }
            // A daemon that comes anew finds it drained; its configuration says nothing of it.
            let file = drained(&control, 2, false);
            let mut control = Control::open(control.into_store(), &file).unwrap();
            assert!(control.model().services()[0].server(drained_one, 80).unwrap().draining);
            assert_eq!(record(&control, 2).configured_weight(), weight.parse::<u32>().unwrap());
            assert!(of_clients(&control).iter().all(|to| to.is_some() && *to != two), "{scheduler}");
            control.change_to(&file).unwrap();
            if hashes {
                assert_eq!(of_clients(&control), before, "{scheduler}");
            }
            assert_eq!(record(&control, 2).flags.load(), server_flag::AVAILABLE);
            assert_nothing_leaks(&control);
        }
    }
}

/// The packet path looks further by itself: a connection that a stateless service does not know
/// still finds a drained server by its hash.
#[test]
fn a_fallback_leaves_a_drained_servers_slots() {
    let mut control = open(&model(&[
        "-A -t 192.0.2.1:80 -s mh -b mh-fallback",
        "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m",
        "-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m",
    ]));
    let key = control.model().services()[0].key;
    let ask = |control: &Control<MemoryTables>, addr, resumes| {
        let store = control.store();
        let service = control.held[&key].index;
        schedule(store, &Client { addr, resumes, service, ..Client::default() }).map(|s| last_byte(store, s))
    };
    let of_two: Vec<u32> = (0..100).filter(|client| ask(&control, *client, false) == Some(2)).collect();
    control.change_to(&drained(&control, 2, true)).unwrap();
    assert!(!of_two.is_empty());
    for client in of_two {
        assert_eq!((ask(&control, client, false), ask(&control, client, true)), (Some(1), Some(2)));
    }
}

/// A plan that puts servers into another order removes and adds them: they are drained before
/// and after, and only a server that really left returns undrained.
#[test]
fn a_drain_ends_with_its_server() {
    let mut control = open(&model(&RR));
    control.change_to(&drained(&control, 1, true)).unwrap();
    let overlay = Overlay::between(&model(&RR), control.model());
    let (other, _) = overlay.apply(&model(&[RR[0], RR[3], RR[1], RR[2]]));
    control.change_to(&other).unwrap();
    assert_consistent(&control);
    assert!(!picks(&control, 6).contains(&1));
    change(&mut control, &["-e -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 9"]);
    assert!(!picks(&control, 6).contains(&1));
    assert_eq!(record(&control, 1).configured_weight(), 9);
    change(&mut control, &["-e -t 192.0.2.1:80 -r 10.0.0.1:80 -m -w 0"]);
    assert_eq!(record(&control, 1).configured_weight(), 0);
    change(&mut control, &["-d -t 192.0.2.1:80 -r 10.0.0.1:80", "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m"]);
    assert!(picks(&control, 6).contains(&1));
}

/// A service that starts its servers slowly, in ten seconds.
fn slowly(scheduler: &str, weights: &[(u8, u32)]) -> Model {
    let mut model = model(&[&format!("-A -t 192.0.2.1:80 -s {scheduler}")]);
    let mut service = model.services()[0].clone();
    service.slow_start = Some(Duration::from_secs(10));
    model.edit_service(&service).unwrap();
    for (last, weight) in weights {
        rules(&mut model, &[&format!("-a -t 192.0.2.1:80 -r 10.0.0.{last}:80 -m -w {weight}")]);
    }
    model
}

/// The share of new connections, in hundredths, that a server gets.
fn hundredths(control: &Control<MemoryTables>, last: u8) -> usize {
    picks(control, 2000).iter().filter(|p| **p == last).count() / 20
}

#[test]
fn a_server_that_comes_starts_slowly() {
    const SECOND: Duration = Duration::from_secs(1);
    for (scheduler, weight) in [("wrr", 1), ("wrr", 100), ("twos", 1), ("twos", i32::MAX as u32)] {
        let about = |control: &Control<MemoryTables>, share: usize, what| {
            let (found, near) = (hundredths(control, 3), if scheduler == "twos" { 4 } else { 1 });
            assert!(found.abs_diff(share) <= near, "{scheduler} {weight} {what}: {found} of 100, not {share}");
        };
        // All at once: nobody is there to spare another.
        let mut control = open(&slowly(scheduler, &[(1, weight), (2, weight)]));
        assert_eq!(record(&control, 1).weight.load(), weight);
        control.change_to(&slowly(scheduler, &[(1, weight), (2, weight), (3, weight)])).unwrap();
        assert!(hundredths(&control, 3) <= 5, "{scheduler} {weight}");
        assert_consistent(&control);
        for _ in 0..5 {
            control.pace(SECOND).unwrap();
        }
        // 17 of 32 parts of its weight.
        about(&control, 21, "half of the time");
        // The next daemon goes on from there, and another order of the servers changes nothing.
        let wanted = control.model().clone();
        let mut control = Control::open(control.into_store(), &wanted).unwrap();
        assert_eq!(record(&control, 3).share().map(|share| share / 655), Some(53));
        control.change_to(&slowly(scheduler, &[(3, weight), (2, weight), (1, weight)])).unwrap();
        about(&control, 21, "after both");
        // A new weight keeps the share.
        if weight == 100 {
            control.change_to(&slowly(scheduler, &[(3, 300), (2, 100), (1, 100)])).unwrap();
            assert_eq!([1, 2, 3].map(|n| record(&control, n).weight.load()), [100, 100, 159]);
            control.change_to(&slowly(scheduler, &[(3, 100), (2, 100), (1, 100)])).unwrap();
        }
        (0..4).for_each(|_| control.pace(SECOND).unwrap());
        about(&control, 31, "nine tenths of the time");
        (0..2).for_each(|_| control.pace(SECOND).unwrap());
        about(&control, 33, "all of the time");
        let weights = [1, 2, 3].map(|n| (record(&control, n).weight.load(), record(&control, n).share()));
        assert_eq!(weights, [(weight, None); 3]);
        // Whoever returns begins anew: from weight 0, and from a drain.
        control.change_to(&slowly(scheduler, &[(3, 0), (2, weight), (1, weight)])).unwrap();
        control.change_to(&slowly(scheduler, &[(3, weight), (2, weight), (1, weight)])).unwrap();
        assert!(hundredths(&control, 3) <= 5, "{scheduler} {weight}");
        control.change_to(&drained(&control, 2, true)).unwrap();
        assert_eq!(hundredths(&control, 2), 0);
        control.change_to(&drained(&control, 2, false)).unwrap();
        let share = |control: &Control<MemoryTables>, last| record(control, last).share();
        assert!(share(&control, 2).is_some() && share(&control, 1).is_none());
        // Without the option all weights are whole at once.
        let mut service = control.model().services()[0].clone();
        service.slow_start = None;
        control.apply(&Plan { ops: vec![Op::EditService(service.without_servers())] }).unwrap();
        assert_eq!([1, 2, 3].map(|n| record(&control, n).weight.load()), [weight; 3]);
    }
}

/// A day's slow start grows too, and a second's is not longer than a second.
#[test]
fn slow_starts_last_as_long_as_they_shall() {
    for time in [86_400, 1] {
        let with = |weights: &[(u8, u32)]| {
            let mut model = slowly("wlc", weights);
            let service = WantedService { slow_start: Some(Duration::from_secs(time)), ..model.services()[0].clone() };
            model.edit_service(&service).unwrap();
            model
        };
        let mut control = open(&with(&[(1, 1)]));
        control.change_to(&with(&[(1, 1), (2, 1)])).unwrap();
        (0..1000).for_each(|_| control.pace(Duration::from_secs(time) / 100_000).unwrap());
        assert_eq!(record(&control, 2).share().map(|share| share / 655), Some(7));
        control.pace(Duration::from_millis(time * 980)).unwrap();
        assert!(record(&control, 2).share().is_some(), "{time} s");
        control.pace(Duration::from_millis(time * 11)).unwrap();
        assert!(record(&control, 2).share().is_none(), "{time} s");
    }
}

fn target(address: &str, method: Method) -> Target {
    Target { address: address.parse().unwrap(), port: 80, method }
}

/// From 198.18.0.1 and this port to the service of [`RR`].
fn probe(port: u16) -> Flow {
    let at = |text: &str, port| SocketAddr::new(text.parse().unwrap(), port);
    Flow::of_probe(6, at("198.18.0.1", port), at("192.0.2.1", 80))
}

/// The next hop that a probe's packets take.
fn way(control: &Control<MemoryTables>, flow: &Flow) -> NextHop {
    let pin = control.store().pins4.get(&flow.tuple4().unwrap()).unwrap();
    control.store().next_hops.get(pin.server as usize).unwrap().clone()
}

#[test]
fn a_probed_server_has_a_record_of_its_own() {
    let mut control = open(&model(&RR));
    assert_eq!(control.store().settings.as_ref().unwrap().flags & setting::PROBES, 0);
    let next = NextHop { state: S32::new(hop::RESOLVED), ifindex: 7, ..NextHop::default() };
    control.set_next_hop("10.0.0.2".parse().unwrap(), &next).unwrap();
    // One in the service's list, and one that health has taken out of it.
    let (two, four) = (target("10.0.0.2", Method::Nat), target("10.0.0.4", Method::Dr));
    control.set_targets(&HashSet::from([two, four])).unwrap();
    assert_ne!(control.store().settings.as_ref().unwrap().flags & setting::PROBES, 0);
    control.set_next_hop("10.0.0.4".parse().unwrap(), &NextHop { ifindex: 8, ..next.clone() }).unwrap();
    let aims = [two, four].map(|target| control.aim(&target).unwrap());
    let pinned = [(5000, 0), (5001, 1)].map(|(port, n)| control.pin(&probe(port), &aims[n], 3).unwrap());
    assert_eq!([5000, 5001].map(|port| way(&control, &probe(port)).ifindex), [7, 8]);
    assert_eq!(control.store().pins().unwrap().len(), 4);

    // Removed from its service its own record waits for its return, and the probe's leads on; it follows the network.
    let key = control.model().services()[0].key;
    let index = control.server_status(&key, two.address, 80).unwrap().unwrap().index;
    change(&mut control, &["-d -t 192.0.2.1:80 -r 10.0.0.2:80"]);
    assert_eq!(control.store().next_hops[index as usize].state.load(), hop::REMOVED);
    assert_eq!(way(&control, &probe(5000)).state.load(), hop::RESOLVED);
    control.set_next_hop("10.0.0.2".parse().unwrap(), &NextHop { ifindex: 9, ..next }).unwrap();
    assert_eq!(way(&control, &probe(5000)).ifindex, 9);
    change(&mut control, &["-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m"]);
    assert_eq!(control.server_status(&key, two.address, 80).unwrap().unwrap().index, index);
    assert_ne!(control.aim(&two).unwrap(), control.aim(&four).unwrap());

    // Not probed any more: its pins are gone, the other's are not.
    control.set_targets(&HashSet::from([four])).unwrap();
    assert_eq!(control.aim(&two), None);
    assert_eq!(control.store().pins().unwrap().len(), 2);
    control.unpin(&pinned[0]).unwrap();
    control.unpin(&pinned[1]).unwrap();
    assert_eq!(control.store().pins().unwrap().len(), 0);
    control.set_targets(&HashSet::new()).unwrap();
    assert_eq!(control.store().settings.as_ref().unwrap().flags & setting::PROBES, 0);
    change(&mut control, &["-C"]);
    std::thread::sleep(Duration::from_millis(1100));
    control.collect().unwrap();
    assert!(control.used_servers.iter().next().is_none());
}

/// A tunnel's shape is in the record; a source is known as soon as the way is.
#[test]
fn a_probe_through_a_tunnel_knows_its_way_and_its_source() {
    let mut control = open(&Model::default());
    let tun = model(&["-A -t 192.0.2.1:80", "-a -t 192.0.2.1:80 -r 10.0.0.1 -i --tun-type gre"]);
    let through = target("10.0.0.1", tun.services()[0].servers[0].method);
    control.set_targets(&HashSet::from([through])).unwrap();
    assert_eq!(control.source_towards(through.address), None);
    let (state, source) = (S32::new(hop::NO_NEIGHBOUR), words("10.0.0.254".parse().unwrap()));
    control.set_next_hop(through.address, &NextHop { state, source, ..NextHop::default() }).unwrap();
    assert_eq!(control.source_towards(through.address), Some("10.0.0.254".parse().unwrap()));
    let aim = control.aim(&through).unwrap();
    control.pin(&probe(5000), &aim, 3).unwrap();
    assert_eq!(way(&control, &probe(5000)).tunnel, dirigent_director::records::tunnel::GRE);
}

#[test]
fn what_cannot_be_probed_is_refused_and_leaves_no_pin() {
    let mut control = open(&Model::default());
    let one = target("10.0.0.1", Method::Nat);
    control.set_targets(&HashSet::from([one])).unwrap();
    let aim = control.aim(&one).unwrap();
    let pinned = control.pin(&probe(5000), &aim, 3).unwrap();
    let refuses = |control: &mut Control<MemoryTables>, flow: Flow| {
        let refused = control.pin(&flow, &aim, 3);
        assert!(matches!(refused, Err(Error::NotPinned { .. })), "{refused:?}");
        assert_eq!(control.store().pins().unwrap().len(), 2);
    };
    refuses(&mut control, probe(5000));
    // By another virtual address the answers would be the same.
    refuses(&mut control, Flow { dst: "192.0.2.2".parse().unwrap(), ..probe(5000) });
    refuses(&mut control, Flow { protocol: 132, ..probe(5001) });
    refuses(&mut control, Flow { src: "fd00::1".parse().unwrap(), ..probe(5001) });
    let here = NextHop { state: S32::new(hop::LOCAL), ..NextHop::default() };
    control.set_next_hop(one.address, &here).unwrap();
    refuses(&mut control, probe(5001));
    control.unpin(&pinned).unwrap();
    assert!(control.store().pins().unwrap().is_empty());
}

/// Probes end with their daemon.
#[test]
fn a_new_daemon_finds_no_pins_and_no_targets() {
    let mut control = open(&model(&RR));
    let one = target("10.0.0.1", Method::Nat);
    control.set_targets(&HashSet::from([one])).unwrap();
    let aim = control.aim(&one).unwrap();
    control.pin(&probe(5000), &aim, 3).unwrap();
    let used = control.store().used_servers().unwrap();
    let control = Control::open(control.into_store(), &model(&RR)).unwrap();
    assert!(control.store().pins().unwrap().is_empty());
    assert_eq!((control.aim(&one), control.lingering_servers()), (None, 0));
    assert_eq!(control.store().used_servers().unwrap(), used, "records of probes are nobody's servers");
    assert_eq!(control.store().settings.as_ref().unwrap().flags & setting::PROBES, 0);
    assert!(Pins::new(control.into_store()).is_empty().unwrap());
}
