//! Next hops, neighbours, changes, virtual addresses and device features, in real labs (needs root).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dirigent_net::lab::{Family, Lab, LabGuard, LabSpec};
use dirigent_net::links::link_named;
use dirigent_net::nexthop::NextHopState;
use dirigent_net::raw::PacketSocket;
use dirigent_net::vrrp::{Hears, Heeded, Kind, VrrpSocket};
use dirigent_net::{
    Change, HopKeeper, Kept, LocalNet, Mac, Netlink, NextHop, Resolver, RouteSpec, Snapshot, Watcher, choose, ethtool,
    routes, seen, vip,
};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SERVER1: Mac = [2, 0, 0, 0, 3, 1];
const ROUTER_OUTSIDE: Mac = [2, 0, 0, 0, 1, 2];
const DIRECTOR_C0: Mac = [2, 0, 0, 0, 2, 1];
const DIRECTOR_R0: Mac = [2, 0, 0, 0, 2, 2];

fn lab() -> LabGuard {
    LabGuard::up(&LabSpec { servers: 2, ..LabSpec::default() }).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Tries until it holds, for the five seconds that a busy machine may need.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what} does not come true");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs it to its end in the director's namespace.
fn in_director(lab: &LabGuard, work: impl Future<Output = ()> + Send) {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    lab.run("director", || runtime().block_on(work)).unwrap();
}

/// `ip` with these words, in the calling thread's namespace.
fn ip_does(line: &str) {
    let done = std::process::Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Adverts of version 3 to the group, in both families, and of version 2 with a password, from the router: what each of
/// them hears who hears what may be heeded, and who hears the rest.
#[test]
fn adverts_are_told_apart_in_the_kernel() {
    let lab = lab();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let heeded = |head, vrid, on_link, password| Heeded { head, vrid, on_link, password };
    for (kind, group) in [(Kind::V4, ip("224.0.0.18")), (Kind::V6, ip("ff02::12"))] {
        let rules =
            [heeded(0x31, 51, true, None), heeded(0x21, 60, true, Some(*b"password")), heeded(0x31, 70, false, None)];
        let open = |which| {
            let mut socket = VrrpSocket::open("c0", link_named("c0").unwrap().index, kind).unwrap();
            socket.join(group).unwrap();
            socket.hear(&rules, which).unwrap();
            socket
        };
        let in_director = || {
            let _entered = runtime.enter();
            [Hears::Heeded, Hears::Others].map(open)
        };
        let [those, others] = lab.run("director", in_director).unwrap();
        // Of version 2, which has its password behind the addresses: with one of them, and none.
        let two = |count: u8, password: &[u8]| {
            let addresses = vec![9; usize::from(count) * 4];
            [&[0x21, 60, 100, count, 1, 1, 0, 0], addresses.as_slice(), password].concat()
        };
        let three = |vrid: u8| vec![0x31, vrid, 100, 0, 0, 100, 0, 0];
        let right = [(255, three(51)), (255, two(1, b"password")), (255, two(0, b"password")), (3, three(70))];
        let wrong = [
            (254, three(51)),
            (255, three(52)),
            (255, two(1, b"passwore")),
            (255, two(0, b"qassword")),
            (255, two(0, &[1; 8])),
        ];
        let wrong = [&wrong[..], &[(255, [&[0x21][..], &three(51)[1..]].concat())]].concat();
        lab.run("router", || {
            let (socket, index) = (PacketSocket::sender().unwrap(), link_named("outside0").unwrap().index);
            for (ttl, payload) in right.iter().chain(&wrong) {
                let frame = match kind {
                    Kind::V6 => {
                        let IpAddr::V6(to) = group else { panic!() };
                        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
                        let from = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
                        let head = [0x60, 0, 0, 0, length[0], length[1], 112, *ttl];
                        let mac: &[u8] = &[0x33, 0x33, 0, 0, 0, 0x12, 2, 0, 0, 0, 1, 2, 0x86, 0xdd];
                        [mac, &head, &from, &to.octets(), payload].concat()
                    }
                    _ => {
                        let length = u16::try_from(24 + payload.len()).unwrap().to_be_bytes();
                        // With an option: where VRRP begins is not always the same.
                        let mut head = vec![0x46, 0, length[0], length[1], 0, 0, 0, 0, *ttl, 112, 0, 0, 203, 0, 113, 1];
                        head.extend([224, 0, 0, 18, 1, 1, 1, 1]);
                        let sum: u32 = head.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
                        let sum = (sum & 0xffff) + (sum >> 16);
                        head[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
                        let mac: &[u8] = &[1, 0, 0x5e, 0, 0, 18, 2, 0, 0, 0, 1, 2, 8, 0];
                        [mac, &head, payload].concat()
                    }
                };
                socket.send(index, &frame).unwrap();
            }
        })
        .unwrap();
        for (socket, expected) in [(&those, &right[..]), (&others, &wrong)] {
            let mut heard = Vec::new();
            eventually("adverts come", || {
                heard.extend(
                    std::iter::from_fn(|| socket.receive().unwrap()).map(|packet| (packet.ttl, packet.payload)),
                );
                heard.len() >= expected.len()
            });
            std::thread::sleep(Duration::from_millis(50));
            heard.extend(std::iter::from_fn(|| socket.receive().unwrap()).map(|packet| (packet.ttl, packet.payload)));
            assert_eq!(heard, expected, "{kind:?}");
        }
    }
}

/// Packets come without a pause; who listens for their senders ends all the same when he is told to.
#[test]
fn senders_are_heard_until_the_end_is_called_for() {
    let lab = lab();
    let (to4, to6) = ("198.18.0.1".parse().unwrap(), "fd00:d1:198:18::1".parse().unwrap());
    let (stop, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let index = lab.run("director", || link_named("c0").unwrap().index).unwrap();
    let mut frame = [DIRECTOR_C0, ROUTER_OUTSIDE].concat();
    frame.extend([8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 203, 0, 113, 1, 198, 18, 0, 1]);
    frame.resize(60, 0);
    let heard = std::thread::scope(|scope| {
        let ears = scope.spawn(|| lab.run("director", || seen::senders(index, to4, to6, &stop).unwrap()).unwrap());
        scope.spawn(|| {
            let flood = || {
                let (socket, index) = (PacketSocket::sender().unwrap(), link_named("outside0").unwrap().index);
                while !over.load(Ordering::Relaxed) {
                    socket.send(index, &frame).unwrap();
                }
            };
            lab.run("router", flood).unwrap();
        });
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Release);
        let begun = Instant::now();
        while !ears.is_finished() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let ended = ears.is_finished();
        over.store(true, Ordering::Relaxed);
        assert!(ended, "it goes on as long as packets come");
        ears.join().unwrap()
    });
    assert_eq!(heard, BTreeSet::from([(ip("203.0.113.1"), ROUTER_OUTSIDE)]));
}

#[test]
fn a_next_hop_is_kept_by_the_kernel_and_follows_the_route() {
    let lab = lab();
    lab.run("director", || {
        let mut resolver = Resolver::new().unwrap();
        let index = |name| link_named(name).unwrap().index;
        for (server, client) in [("10.0.0.2", "198.51.100.7"), ("fd00::2", "2001:db8:51::7")] {
            let (_, kept) = resolver.resolve_and_keep(ip(server)).unwrap();
            assert_eq!(kept, Some(Kept::ByKernel));
            let resolved = |resolver: &mut Resolver, to| resolver.resolve(to).unwrap().state == NextHopState::Resolved;
            eventually("the server resolves", || resolved(&mut resolver, ip(server)));
            let hop = resolver.resolve(ip(server)).unwrap();
            assert_eq!((hop.ifindex, hop.source_mac, hop.mac, hop.mtu), (index("r0"), DIRECTOR_R0, SERVER1, 1500));
            assert_eq!(hop.neighbour, Some(ip(server)));
            resolver.resolve_and_keep(ip(client)).unwrap();
            eventually("the gateway resolves", || resolved(&mut resolver, ip(client)));
            let hop = resolver.resolve(ip(client)).unwrap();
            assert_eq!((hop.ifindex, hop.mac), (index("c0"), ROUTER_OUTSIDE));
            assert_ne!(hop.neighbour, Some(ip(client)), "the gateway is the neighbour");
        }
        for vip in ["192.0.2.10", "2001:db8::10", "10.0.0.1", "fd00::1"] {
            assert_eq!(resolver.resolve(ip(vip)).unwrap().state, NextHopState::Local, "{vip}");
        }
        let route = RouteSpec { mtu: Some(1300), ..RouteSpec::to(ip("198.51.100.0"), 24).via(ip("10.0.0.254")) };
        resolver.netlink().replace_route(&route).unwrap();
        let hop = resolver.resolve(ip("198.51.100.7")).unwrap();
        assert_eq!((hop.ifindex, hop.neighbour, hop.mtu), (index("r0"), Some(ip("10.0.0.254")), 1300));
        assert!(resolver.netlink().delete_route(&route).unwrap());
        assert!(!resolver.netlink().delete_route(&route).unwrap());
        assert_eq!(resolver.resolve(ip("198.51.100.7")).unwrap().ifindex, index("c0"));
        for gateway in ["203.0.113.1", "2001:db8:1::1"] {
            assert!(resolver.netlink().delete_route(&RouteSpec::default_via(ip(gateway))).unwrap());
        }
        for client in ["198.51.100.7", "2001:db8:51::7"] {
            assert_eq!(resolver.resolve(ip(client)).unwrap().state, NextHopState::NoRoute, "{client}");
        }
    })
    .unwrap();
}

#[test]
fn a_neighbour_set_by_hand_is_left_alone() {
    let lab = lab();
    lab.run("director", || {
        let mut netlink = Netlink::route().unwrap();
        let index = netlink.index_of("r0").unwrap();
        let (server, mac) = (ip("10.0.0.3"), [2, 9, 9, 9, 9, 9]);
        assert_eq!(netlink.neighbour(index, server).unwrap(), None);
        netlink.set_neighbour(index, server, mac).unwrap();
        assert_eq!(netlink.keep_neighbour(index, server).unwrap(), Kept::ByKernel);
        netlink.release_neighbour(index, server).unwrap();
        assert_eq!(netlink.neighbour(index, server).unwrap(), Some(mac));
        let entry = netlink.neighbour_entry(index, server).unwrap().unwrap();
        assert!(entry.permanent && !entry.managed);
        assert!(netlink.delete_neighbour(index, server).unwrap());
        netlink.keep_neighbour(index, server).unwrap();
        netlink.release_neighbour(index, server).unwrap();
        assert!(netlink.neighbour_entry(index, server).unwrap().is_none_or(|entry| !entry.managed));
    })
    .unwrap();
}

/// Waits until the watcher has reported all of `wanted`, and returns everything that it reported.
async fn wait_for(watcher: &mut Watcher, wanted: &[Change]) -> HashSet<Change> {
    let mut seen = HashSet::new();
    let all = async {
        while !wanted.iter().all(|change| seen.contains(change)) {
            seen.extend(watcher.changes().await.unwrap());
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(5), all).await;
    assert!(done.is_ok(), "wanted {wanted:?}, saw {seen:?}");
    seen
}

#[test]
fn every_change_is_reported_and_the_snapshot_keeps_up() {
    let lab = lab();
    let watching = async {
        let mut watcher = Watcher::start().unwrap();
        let mut netlink = Netlink::route().unwrap();
        let r0 = netlink.index_of("r0").unwrap();
        netlink.set_mac("r0", [2, 0, 0, 0, 9, 9]).unwrap();
        wait_for(&mut watcher, &[Change::Link(r0)]).await;
        assert_eq!(watcher.snapshot().unwrap().links[&r0].mac, Some([2, 0, 0, 0, 9, 9]));

        let vip = ip("192.0.2.11");
        assert!(vip::add(vip).unwrap() && !vip::add(vip).unwrap());
        wait_for(&mut watcher, &[Change::Address(1, vip), Change::Routes]).await;
        assert!(watcher.snapshot().unwrap().is_local(vip));
        assert_eq!(vip::holder(watcher.snapshot().unwrap(), vip), Some("lo"));
        assert!(vip::remove(vip).unwrap() && !vip::remove(vip).unwrap());
        wait_for(&mut watcher, &[Change::AddressGone(1, vip)]).await;
        assert!(!watcher.snapshot().unwrap().is_local(vip));

        netlink.keep_neighbour(r0, ip("10.0.0.2")).unwrap();
        wait_for(&mut watcher, &[Change::Neighbour(r0, ip("10.0.0.2"))]).await;

        netlink.set_up("r0", false).unwrap();
        wait_for(&mut watcher, &[Change::Link(r0), Change::Routes]).await;
        let over_r0 =
            |snapshot: &Snapshot| snapshot.routes.iter().any(|r| !r.local && r.hops.iter().any(|h| h.ifindex == r0));
        assert!(!over_r0(watcher.snapshot().unwrap()), "the kernel drops these routes without a word");
        netlink.rename("r0", "renamed").unwrap();
        netlink.set_up("renamed", true).unwrap();
        wait_for(&mut watcher, &[Change::Link(r0)]).await;
        while !watcher.snapshot().unwrap().links[&r0].up {
            wait_for(&mut watcher, &[Change::Link(r0)]).await;
        }
        assert_eq!(watcher.snapshot().unwrap().links[&r0].name, "renamed");
        netlink.delete_link("renamed").unwrap();
        wait_for(&mut watcher, &[Change::LinkGone(r0)]).await;
        assert!(watcher.snapshot().unwrap().link_named("renamed").is_none());
    };
    in_director(&lab, watching);
}

/// What routes name instead of a gateway may change without a word about the routes.
#[test]
fn nexthops_that_routes_name_are_watched() {
    let lab = lab();
    let watching = async {
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0").unwrap();
        ip_does("nexthop add id 1 via 10.0.0.2 dev r0");
        ip_does("route add 198.51.100.0/24 nhid 1");
        let mut watcher = Watcher::start().unwrap();
        ip_does("nexthop replace id 1 via 10.0.0.3 dev r0");
        wait_for(&mut watcher, &[Change::Routes]).await;
        ip_does("nexthop del id 1");
        wait_for(&mut watcher, &[Change::Routes]).await;
    };
    in_director(&lab, watching);
}

/// Prefixes made local for IPVS: by a route for all, or by a rule for marked packets.
#[test]
fn local_prefixes_follow_routes_and_rules() {
    let lab = lab();
    let net = |prefix: &str, marked| {
        let (address, length) = prefix.split_once('/').unwrap();
        LocalNet { destination: (ip(address), length.parse().unwrap()), marked }
    };
    let watching = async {
        let mut watcher = Watcher::start().unwrap();
        let mut after = async |line: &str| {
            ip_does(line);
            wait_for(&mut watcher, &[Change::Routes]).await;
            let snapshot = watcher.snapshot().unwrap();
            // What is local to marked packets only is not local.
            assert!(!snapshot.is_local(ip("203.0.113.9")), "{line}");
            snapshot.local_nets().into_iter().collect::<Vec<_>>()
        };
        let everything = net("0.0.0.0/0", true);
        assert_eq!(after("route add local 198.51.100.0/24 dev lo").await, [net("198.51.100.0/24", false)]);
        let both = [net("198.51.100.0/24", false), net("2001:db8:64::/48", false)];
        assert_eq!(after("-6 route add local 2001:db8:64::/48 dev lo").await, both);
        // A table that no rule leads to.
        assert_eq!(after("route add local 0.0.0.0/0 dev lo table 100").await, both);
        let all = [everything, both[0], both[1]];
        assert_eq!(after("rule add fwmark 7 lookup 100").await, all);
        assert_eq!(after("rule del fwmark 7 lookup 100").await, both);
        // What is for some packets anyhow is so for marked ones only.
        assert_eq!(after("rule add iif c0 lookup 100").await, all);
        assert_eq!(after("rule del iif c0 lookup 100").await, both);
        assert_eq!(after("route del local 198.51.100.0/24 dev lo").await, both[1..]);
    };
    in_director(&lab, watching);
}

/// The server says nothing of its new address by itself; its own ARP or ND, when it next sends, does.
#[test]
fn a_servers_new_hardware_address_is_known_within_a_second_of_its_next_packet() {
    let lab = lab();
    for (server, director) in [(ip("10.0.0.2"), ip("10.0.0.1")), (ip("fd00::2"), ip("fd00::1"))] {
        let r0 = lab.run("director", || link_named("r0").unwrap().index).unwrap();
        let mac_of = |netlink: &mut Netlink| netlink.neighbour(r0, server).unwrap();
        let mut netlink = lab.run("director", || Netlink::route().unwrap()).unwrap();
        netlink.keep_neighbour(r0, server).unwrap();
        let old = lab.run("server1", || link_named("eth0").unwrap().mac.unwrap()).unwrap();
        eventually("the old address is known", || mac_of(&mut netlink) == Some(old));
        let new = [2, 0, 0, 0, 9, old[5] + 1];
        let socket = lab.run("server1", || std::net::UdpSocket::bind((server, 0)).unwrap()).unwrap();
        lab.run("server1", || Netlink::route().unwrap().set_mac("eth0", new).unwrap()).unwrap();
        let changed = Instant::now();
        eventually("the new address is known", || {
            // Under transfer the server sends all the time; an ICMP error from the director may come back.
            let _ = socket.send_to(b"ack", (director, 9));
            mac_of(&mut netlink) == Some(new)
        });
        println!("{server}: new address known after {:?}", changed.elapsed());
    }
}

/// Waits until the keeper knows a next hop that fits, and returns how long that took.
async fn hop_becomes(keeper: &mut HopKeeper, to: IpAddr, what: &str, fits: impl Fn(&NextHop) -> bool) -> Duration {
    let start = Instant::now();
    while !keeper.hop(to).is_some_and(&fits) {
        let update = tokio::time::timeout(Duration::from_secs(5), keeper.update()).await;
        let Ok(update) = update else { panic!("{what}: {:?}", keeper.hop(to)) };
        update.unwrap();
    }
    println!("{to} {what} after {:?}", start.elapsed());
    start.elapsed()
}

#[test]
fn next_hops_follow_addresses_routes_mtu_and_links() {
    let lab = lab();
    let resolved = |hop: &NextHop| hop.state == NextHopState::Resolved;
    let server1 = lab.namespace("server1").unwrap();
    let following = async {
        let mut keeper = HopKeeper::start().unwrap();
        let mut netlink = Netlink::route().unwrap();
        let r0 = netlink.index_of("r0").unwrap();
        for (server, client, around) in
            [("10.0.0.2", "198.51.100.7", "10.0.0.254"), ("fd00::2", "2001:db8:51::7", "fd00::254")]
        {
            let (server, client, around) = (ip(server), ip(client), ip(around));
            assert_eq!(keeper.set_destinations(&BTreeSet::from([server, client])).unwrap().len(), 2);
            hop_becomes(&mut keeper, server, "resolved", resolved).await;
            hop_becomes(&mut keeper, client, "resolved", resolved).await;

            let mac = [2, 0, 0, 0, 9, if server.is_ipv4() { 4 } else { 6 }];
            server1.run(|| Netlink::route().unwrap().set_mac("eth0", mac).unwrap()).unwrap();
            let sender = server1.run(|| std::net::UdpSocket::bind((server, 0)).unwrap()).unwrap();
            sender.send_to(b"traffic", (client, 9)).unwrap();
            let time = hop_becomes(&mut keeper, server, "new MAC", |hop| hop.mac == mac).await;
            assert!(time < Duration::from_secs(1));

            let gateway = |hop: &NextHop| hop.neighbour == Some(around) && hop.ifindex == r0;
            netlink.replace_route(&RouteSpec::to(client, if client.is_ipv4() { 32 } else { 128 }).via(around)).unwrap();
            let time = hop_becomes(&mut keeper, client, "new gateway", |hop| gateway(hop) && resolved(hop)).await;
            assert!(time < Duration::from_secs(1));

            netlink.set_mtu("r0", 1400).unwrap();
            hop_becomes(&mut keeper, server, "new MTU", |hop| hop.mtu == 1400).await;
            netlink.set_mtu("r0", 1500).unwrap();
            hop_becomes(&mut keeper, server, "old MTU", |hop| hop.mtu == 1500).await;

            lab.set_link("director", "r0", false).unwrap();
            hop_becomes(&mut keeper, server, "link down", |hop| hop.ifindex != r0).await;
            lab.set_link("director", "r0", true).unwrap();
            let back = |hop: &NextHop| hop.ifindex == r0 && resolved(hop);
            let time = hop_becomes(&mut keeper, server, "link up", back).await;
            assert!(time < Duration::from_secs(1));
            eventually("kept again", || netlink.neighbour_entry(r0, server).unwrap().is_some_and(|n| n.managed));

            let own = [2, 0, 0, 0, 8, 8];
            netlink.set_mac("r0", own).unwrap();
            hop_becomes(&mut keeper, server, "own MAC", |hop| hop.source_mac == own && resolved(hop)).await;
            netlink.set_mac("r0", DIRECTOR_R0).unwrap();
            hop_becomes(&mut keeper, server, "own MAC", |hop| hop.source_mac == DIRECTOR_R0 && resolved(hop)).await;
        }
        keeper.set_destinations(&BTreeSet::new()).unwrap();
        assert!(netlink.neighbours().unwrap().iter().all(|neighbour| !neighbour.managed));
    };
    in_director(&lab, following);
}

#[test]
fn lost_reports_are_made_good_by_reading_again() {
    let lab = lab();
    let burst = async {
        let mut watcher = Watcher::start().unwrap();
        let mut netlink = Netlink::route().unwrap();
        let mtu_rounds = 6000;
        for round in 0..mtu_rounds {
            netlink.set_mtu("r0", 1400 + round % 2).unwrap();
        }
        netlink.set_mtu("r0", 1450).unwrap();
        let mut seen = HashSet::new();
        while let Ok(changes) = tokio::time::timeout(Duration::from_millis(300), watcher.changes()).await {
            seen.extend(changes.unwrap());
        }
        assert!(seen.contains(&Change::Everything), "no overflow: {seen:?}");
        assert_eq!(watcher.snapshot().unwrap().link_named("r0").unwrap().mtu, 1450);
        assert_eq!(*watcher.snapshot().unwrap(), Snapshot::take().unwrap());
    };
    in_director(&lab, burst);
}

#[test]
fn default_interfaces_follow_the_arms() {
    let names = |lab: &Lab| {
        let servers = [ip("10.0.0.2"), ip("fd00::3")];
        let choice = lab.run("director", || choose::interfaces(&Snapshot::take().unwrap(), &servers)).unwrap();
        assert!(choice.unreachable.is_empty());
        let mut names: Vec<_> = choice.chosen.into_values().map(|chosen| chosen.name).collect();
        names.sort();
        names
    };
    assert_eq!(names(&lab()), ["c0", "r0"]);
    let one_arm = LabGuard::up(&LabSpec { one_arm: true, servers: 2, ..LabSpec::default() }).unwrap();
    assert_eq!(names(&one_arm), ["eth0"]);
}

#[test]
fn an_announced_address_moves_the_neighbours_entries() {
    let lab = LabGuard::up(&LabSpec { one_arm: true, servers: 2, ..LabSpec::default() }).unwrap();
    for family in [Family::V4, Family::V6] {
        let spec = LabSpec { family, ..lab.spec().clone() };
        let director = spec.director();
        // server2 knows the director under a wrong address, as after a failover.
        let router_knows = || {
            lab.run("server2", || {
                let mut netlink = Netlink::route().unwrap();
                let index = netlink.index_of("eth0").unwrap();
                netlink.neighbour(index, director).unwrap()
            })
            .unwrap()
        };
        lab.run("server1", || assert!(Netlink::route().unwrap().add_address("eth0", director, 32).is_ok())).unwrap();
        lab.run("director", || {
            let mut netlink = Netlink::route().unwrap();
            netlink.set_up("eth0", false).unwrap();
        })
        .unwrap();
        lab.run("server2", || {
            let mut netlink = Netlink::route().unwrap();
            let index = netlink.index_of("eth0").unwrap();
            netlink.keep_neighbour(index, director).unwrap();
        })
        .unwrap();
        eventually("server2 learns server1 as holder", || router_knows() == Some(SERVER1));
        lab.run("server1", || Netlink::route().unwrap().delete_address("eth0", director, 32).unwrap()).unwrap();
        lab.run("director", || {
            let mut netlink = Netlink::route().unwrap();
            netlink.set_up("eth0", true).unwrap();
        })
        .unwrap();
        eventually("server2 learns the director", || {
            lab.run("director", || vip::announce("eth0", director).unwrap()).unwrap();
            router_knows() == Some(DIRECTOR_R0)
        });
    }
}

#[test]
fn frames_are_seen_as_sent() {
    let lab = lab();
    let frame: Vec<u8> =
        [[0xff; 6], [2, 0, 0, 0, 7, 7]].concat().into_iter().chain([0x88, 0xb5]).chain(0..60).collect();
    let listener = |host: &str, interface: &str| {
        lab.run(host, || PacketSocket::listening(link_named(interface).unwrap().index).unwrap()).unwrap()
    };
    let (there, here) = (listener("server1", "eth0"), listener("director", "r0"));
    lab.run("director", || {
        // Before that the kernel takes frames and loses them without a word.
        while !link_named("r0").unwrap().running {
            std::thread::sleep(Duration::from_millis(10));
        }
        PacketSocket::sender().unwrap().send(link_named("r0").unwrap().index, &frame).unwrap();
    })
    .unwrap();
    for (socket, outgoing) in [(there, false), (here, true)] {
        let seen = loop {
            let seen = socket.receive(Duration::from_secs(5)).unwrap().expect("the frame comes");
            if seen.bytes == frame {
                break seen;
            }
        };
        assert_eq!(seen.outgoing, outgoing);
        assert_eq!(socket.receive(Duration::from_millis(1)).unwrap().filter(|f| f.bytes == frame), None);
    }
}

#[test]
fn a_device_tells_its_driver() {
    let lab = lab();
    lab.run("director", || {
        let link = link_named("r0").unwrap();
        assert_eq!(ethtool::driver("r0").unwrap().as_deref(), Some("veth"));
        assert!(link.xdp.is_empty() && link.running);
        assert!(ethtool::driver("nosuch").unwrap_err().to_string().contains("ip link"));
        let route: routes::Route = Netlink::route().unwrap().route_to(ip("192.0.2.10")).unwrap().unwrap();
        assert!(route.local);
    })
    .unwrap();
}
