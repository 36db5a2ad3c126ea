//! What changes in the network reaches connections that exist, within a second, on each path and in both families.
//! Needs root.
//!
//! Each test runs two transfers through the director, which show that nothing is lost for good, and two UDP connections
//! with a datagram every [`BEAT`], which show how long nothing came through: TCP would add its own patience to that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use dirigent_datapath::control::{KernelStore, Store as _};
use dirigent_datapath::kernel::Instance;
use dirigent_net::Namespace;
use dirigent_net::lab::spec::{self, Pair};
use dirigent_net::vip::announce;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TC: &[&str] = &["--path", "tc"];
const XDP: &[&str] = &["--path", "xdp", "--no-offloads"];
/// Six seconds at the rate of the transfers.
const FILE: usize = 12 << 20;
const SECOND: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_millis(20);

/// Datagrams of one connection: when each was sent, and whether its echo came.
struct Pulse {
    beats: Arc<Mutex<Vec<(Instant, bool)>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Pulse {
    fn start(client: Namespace, vip: IpAddr) -> Self {
        let (beats, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (its_beats, its_stop) = (Arc::clone(&beats), Arc::clone(&stop));
        let work = move || {
            let socket = UdpSocket::bind(if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
            socket.connect((vip, 7)).unwrap();
            socket.set_read_timeout(Some(BEAT / 4)).unwrap();
            for number in 0u32.. {
                its_beats.lock().unwrap().push((Instant::now(), false));
                // Refused, unreachable: as good as lost.
                let _ = socket.send(&number.to_be_bytes());
                let sent = Instant::now();
                let mut echo = [0; 4];
                while sent.elapsed() < BEAT {
                    if socket.recv(&mut echo).is_ok() {
                        its_beats.lock().unwrap()[u32::from_be_bytes(echo) as usize].1 = true;
                    }
                }
                if its_stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        let thread = std::thread::spawn(move || client.run(work).unwrap());
        Self { beats, stop, thread }
    }

    /// The longest time without an echo of what was sent after `from`. Counted in beats: a prober that did not get its
    /// turn shows nothing about the director.
    fn silence(&self, from: Instant) -> Duration {
        let beats = self.beats.lock().unwrap();
        let after: Vec<_> = beats.iter().filter(|(sent, _)| *sent >= from).map(|(_, came)| *came).collect();
        let longest = after.split(|came| *came).map(<[bool]>::len).max().unwrap_or(0);
        BEAT * u32::try_from(longest).unwrap()
    }

    fn echoes(&self) -> usize {
        self.beats.lock().unwrap().iter().filter(|(_, came)| *came).count()
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "{what} after {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn size(file: &Path) -> usize {
    std::fs::metadata(file).map_or(0, |m| usize::try_from(m.len()).unwrap())
}

/// Takes what comes to a file, a piece at a time: curl's own limit lets megabytes come at once, and then waits for seconds.
/// Returns whether the transfer succeeded.
fn read_slowly(mut transfer: Child, to: PathBuf) -> JoinHandle<bool> {
    std::thread::spawn(move || {
        let (mut from, mut file) = (transfer.stdout.take().unwrap(), File::create(to).unwrap());
        while std::io::copy(&mut from.by_ref().take(32 << 10), &mut file).unwrap() > 0 {
            std::thread::sleep(Duration::from_millis(16));
        }
        transfer.wait().unwrap().success()
    })
}

/// Carries `change` out in the middle of transfers; when it returns, the change is announced or visible to the
/// director's kernel.
fn under_transfer(lab: &TestLab, change: impl FnOnce(&TestLab)) {
    let sum = lab.publish("file", FILE);
    // What the client received shows what came through only if little of it waits at the client.
    lab.sh("client", "sysctl -qw net.ipv4.tcp_rmem='4096 65536 131072'");
    let pulses = spec::VIP.both().map(|(vip, _)| Pulse::start(lab.namespace("client"), vip));
    let transfers = ["192.0.2.10", "[2001:db8::10]"].map(|host| {
        let url = format!("http://{host}/file");
        let to = lab.file(&format!("got-{}", host.len()));
        let transfer = lab.start("client", &["curl", "-sS", "-g", "--max-time", "30", &url]);
        (read_slowly(transfer, to.clone()), to)
    });
    for ((_, to), pulse) in transfers.iter().zip(&pulses) {
        until("nothing comes", 10 * SECOND, || size(to) > FILE / 16 && pulse.echoes() > 5);
    }
    change(lab);
    let changed = Instant::now();
    for (_, to) in &transfers {
        let before = size(to);
        assert!(before + (1 << 20) < FILE, "the transfer is over before the change");
        // More than can have been on its way. What TCP waits after losses is its own affair.
        until("the transfer stands still", 5 * SECOND, || size(to) > before + (1 << 20));
    }
    for (transfer, to) in transfers {
        assert!(transfer.join().unwrap(), "{}", lab.log());
        let got = lab.sh("client", &format!("sha256sum {}", to.display()));
        assert_eq!(got.split_whitespace().next(), Some(sum.as_str()), "the file came whole");
    }
    for pulse in pulses {
        let silence = pulse.silence(changed);
        pulse.end();
        assert!(silence < SECOND, "nothing came through for {silence:?}\n{}", lab.log());
    }
}

/// A host gets another MAC, and says so.
fn change_mac(lab: &TestLab, host: &str, interface: &str, addresses: Pair) {
    lab.sh(host, &format!("ip link set {interface} address 02:00:00:00:99:01"));
    let say = || addresses.both().map(|(ip, _)| announce(interface, ip).unwrap());
    lab.run(host, say);
}

/// MACs of the server's next hops, as the director knows them.
fn next_hops(lab: &TestLab) -> Vec<String> {
    let servers = lab.json(&["server", "list", "--json"]);
    servers.as_array().unwrap().iter().map(|s| s["next_hop"]["mac"].as_str().unwrap().to_owned()).collect()
}

fn a_servers_mac(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    under_transfer(&lab, |lab| change_mac(lab, "server1", "eth0", spec::server(1)));
    assert!(next_hops(&lab).iter().all(|mac| mac == "02:00:00:00:99:01"), "{:?}", next_hops(&lab));
}

#[test]
fn a_servers_new_mac_is_followed_within_a_second_on_tc() {
    a_servers_mac(TC);
}

#[test]
fn a_servers_new_mac_is_followed_within_a_second_on_xdp() {
    a_servers_mac(XDP);
}

/// Nobody announces it: the server's own traffic tells the director's kernel.
#[test]
fn a_servers_unannounced_mac_is_followed_within_a_second() {
    let lab = TestLab::up(&["--servers", "1"]);
    under_transfer(&lab, |lab| {
        lab.sh("server1", "ip link set eth0 address 02:00:00:00:99:01");
    });
}

fn the_clients_gateways_mac(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    under_transfer(&lab, |lab| change_mac(lab, "router", "outside0", spec::ROUTER_OUTSIDE));
}

#[test]
fn the_clients_gateways_new_mac_is_followed_within_a_second_on_tc() {
    the_clients_gateways_mac(TC);
}

#[test]
fn the_clients_gateways_new_mac_is_followed_within_a_second_on_xdp() {
    the_clients_gateways_mac(XDP);
}

/// Connections remember their ways to clients: so long as nobody tells them of changes, for less than a second.
#[test]
fn without_a_daemon_the_clients_gateways_new_mac_is_followed_within_a_second() {
    let lab = TestLab::up(&["--servers", "1"]);
    under_transfer(&lab, |lab| {
        lab.kill_daemon();
        change_mac(lab, "router", "outside0", spec::ROUTER_OUTSIDE);
    });
}

/// As long as the daemon watches the network, packets know it.
#[test]
fn packets_are_told_that_the_network_is_watched_while_it_is() {
    let lab = TestLab::up(&["--servers", "1"]);
    let store = KernelStore::open(&Instance::new(lab.name()).unwrap()).unwrap();
    let told = || store.settings().unwrap().ways_followed;
    let recently = || store.now().wrapping_sub(told()) < store.hz() / 4;
    for _ in 0..3 {
        let before = told();
        until("nobody watches", 5 * SECOND, || told() != before && recently());
    }
    lab.kill_daemon();
    let last = told();
    std::thread::sleep(SECOND);
    assert_eq!(told(), last);
    assert!(!recently());
}

/// server1 is behind server2 or server3, its gateways; answers come directly.
fn behind_gateways(path: &[&str]) -> TestLab {
    let lab = TestLab::up(&[&["--servers", "3"], path].concat());
    let text = lab.config();
    let others = ["10.0.0.3:", "10.0.0.4:", "[fd00::3]:", "[fd00::4]:"];
    let stays = |block: &&str| !(block.starts_with("service.server]]") && others.iter().any(|o| block.contains(o)));
    lab.write_config(&text.split("\n[[").filter(stays).collect::<Vec<_>>().join("\n[["));
    for gateway in ["server2", "server3"] {
        let send_on = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
                       net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0 \
                       net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0";
        lab.sh(gateway, send_on);
    }
    lab.sh("director", "ip route add 10.0.0.2/32 via 10.0.0.3; ip -6 route add fd00::2/128 via fd00::3");
    lab.dirigent(&["reload"]);
    until("the gateway is not used", 5 * SECOND, || next_hops(&lab).iter().all(|mac| mac == "02:00:00:00:03:02"));
    lab
}

fn a_servers_gateways_mac(path: &[&str]) {
    let lab = behind_gateways(path);
    under_transfer(&lab, |lab| change_mac(lab, "server2", "eth0", spec::server(2)));
    assert!(next_hops(&lab).iter().all(|mac| mac == "02:00:00:00:99:01"), "{:?}", next_hops(&lab));
}

#[test]
fn a_servers_gateways_new_mac_is_followed_within_a_second_on_tc() {
    a_servers_gateways_mac(TC);
}

#[test]
fn a_servers_gateways_new_mac_is_followed_within_a_second_on_xdp() {
    a_servers_gateways_mac(XDP);
}

/// The old gateway is gone when the route goes to the new one.
fn a_route_by_another_gateway(path: &[&str]) {
    let lab = behind_gateways(path);
    under_transfer(&lab, |lab| {
        lab.sh("server2", "ip link set eth0 down");
        lab.sh("director", "ip route replace 10.0.0.2/32 via 10.0.0.4; ip -6 route replace fd00::2/128 via fd00::4");
    });
    assert!(next_hops(&lab).iter().all(|mac| mac == "02:00:00:00:03:03"), "{:?}", next_hops(&lab));
}

#[test]
fn a_route_by_another_gateway_is_followed_within_a_second_on_tc() {
    a_route_by_another_gateway(TC);
}

#[test]
fn a_route_by_another_gateway_is_followed_within_a_second_on_xdp() {
    a_route_by_another_gateway(XDP);
}

/// The way to the server leaves by the clients' interface from now on: through the router, whose second leg is on the
/// servers' switch. The server refuses what still comes the old way.
fn a_route_by_another_interface(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    lab.sh("router", "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.outside0.rp_filter=0");
    lab.sh("router", "ip route add 10.0.0.2/32 dev servers0; ip -6 route add fd00::2/128 dev servers0");
    under_transfer(&lab, |lab| {
        let rule = "ether saddr 02:00:00:00:02:02 meta l4proto { tcp, udp } drop";
        let refuse = "nft add table inet t; nft add chain inet t c '{ type filter hook prerouting priority -300; }'";
        lab.sh("server1", &format!("{refuse}; nft add rule inet t c '{rule}'"));
        let by_c0 = "ip route add 10.0.0.2/32 via 203.0.113.1; ip -6 route add fd00::2/128 via 2001:db8:1::1";
        lab.sh("director", by_c0);
    });
}

#[test]
fn a_route_by_another_interface_is_followed_within_a_second_on_tc() {
    a_route_by_another_interface(TC);
}

#[test]
fn a_route_by_another_interface_is_followed_within_a_second_on_xdp() {
    a_route_by_another_interface(XDP);
}

/// Links go down and up again, each on its own: on the host, with what that takes from the kernel's tables, and at the
/// other end of the wire. Down for so long that a daemon that is late has to learn of both.
fn links_down_and_up(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    // While r0 is down, the default route leads to servers too. The router must not send what comes so back to the host.
    lab.sh("router", "ip route replace blackhole 10.0.0.0/24; ip -6 route replace blackhole fd00::/64");
    let down_and_up = |host: &str, interface: &str, again: &str| {
        under_transfer(&lab, |lab| {
            let link = format!("ip link set {interface}");
            lab.sh(host, &format!("{link} down; sleep 2; {link} up; {again}"));
        });
    };
    // IPv6 addresses go with the link, IPv4 routes by a gateway too; their owner brings them back.
    down_and_up("director", "r0", "ip -6 address add fd00::1/64 dev r0 nodad");
    let routes = "ip route replace default via 203.0.113.1; ip -6 route replace default via 2001:db8:1::1";
    down_and_up("director", "c0", &format!("ip -6 address add 2001:db8:1::2/64 dev c0 nodad; {routes}"));
    down_and_up("switch", "director", ":");
}

#[test]
fn links_down_and_up_cost_connections_no_more_than_a_second_on_tc() {
    links_down_and_up(TC);
}

#[test]
fn links_down_and_up_cost_connections_no_more_than_a_second_on_xdp() {
    links_down_and_up(XDP);
}

/// The link to the servers goes down for good, and a route by the clients' interface, which stood behind, takes over.
/// The server's answers come by the router from the start.
fn a_link_down(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    lab.sh("router", "for i in all outside0 servers0; do sysctl -qw net.ipv4.conf.$i.rp_filter=0; done");
    lab.sh("router", "ip route add 10.0.0.2/32 dev servers0; ip -6 route add fd00::2/128 dev servers0");
    let to_director = "ip rule add iif servers0 table 7; ip route add default via 203.0.113.2 table 7; \
                       ip -6 rule add iif servers0 table 7; ip -6 route add default via 2001:db8:1::2 table 7";
    lab.sh("router", to_director);
    lab.sh("server1", "ip route replace default via 10.0.0.254; ip -6 route replace default via fd00::254");
    let behind = "ip route add 10.0.0.0/24 via 203.0.113.1 metric 5000; \
                  ip -6 route add fd00::/64 via 2001:db8:1::1 metric 5000";
    lab.sh("director", behind);
    assert!(next_hops(&lab).iter().all(|mac| mac == "02:00:00:00:03:01"), "{:?}", next_hops(&lab));
    under_transfer(&lab, |lab| {
        lab.sh("director", "ip link set r0 down");
    });
    assert!(next_hops(&lab).iter().all(|mac| mac == "02:00:00:00:01:02"), "{:?}", next_hops(&lab));
}

#[test]
fn a_link_down_gives_way_to_the_route_behind_within_a_second_on_tc() {
    a_link_down(TC);
}

#[test]
fn a_link_down_gives_way_to_the_route_behind_within_a_second_on_xdp() {
    a_link_down(XDP);
}

/// The route's MTU that a host has learned for a destination.
fn learned(lab: &TestLab, host: &str, destination: &str) -> bool {
    lab.sh(host, &format!("ip route get {destination}")).contains("mtu 1300")
}

/// The way to the client gets narrow: servers are told.
fn a_narrow_way_to_the_client(path: &[&str], narrow: &str) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    // The host's stack finds that out, and its conntrack knows no such connection.
    lab.drop_invalid();
    under_transfer(&lab, |lab| {
        lab.sh("director", narrow);
        for client in ["198.51.100.7", "2001:db8:51::7"] {
            // And the time of an attempt.
            until("the server does not know", SECOND * 3 / 2, || learned(lab, "server1", client));
        }
    });
    assert!(lab.count("reply_too_big") > 0);
}

/// Locked, since the kernel's route lookup for programs heeds the MTU of a route only then (docs/differences.md).
const NARROW_ROUTE: &str = "ip route add 198.51.100.0/24 via 203.0.113.1 mtu lock 1300; \
                            ip -6 route add 2001:db8:51::/64 via 2001:db8:1::1 mtu lock 1300";

#[test]
fn a_narrow_way_to_the_client_is_told_to_servers_within_a_second_on_tc() {
    a_narrow_way_to_the_client(TC, NARROW_ROUTE);
}

#[test]
fn a_narrow_way_to_the_client_is_told_to_servers_within_a_second_on_xdp() {
    a_narrow_way_to_the_client(XDP, NARROW_ROUTE);
}

#[test]
fn a_narrow_link_to_the_client_is_told_to_servers_within_a_second_on_tc() {
    a_narrow_way_to_the_client(TC, "ip link set c0 mtu 1300");
}

#[test]
fn a_narrow_link_to_the_client_is_told_to_servers_within_a_second_on_xdp() {
    a_narrow_way_to_the_client(XDP, "ip link set c0 mtu 1300");
}

/// The way to the server gets narrow while clients send much: they are told.
fn a_narrow_way_to_the_server(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    let text = lab.config().replace(":80\"", ":9000\"").replace(":8080\"", ":9000\"");
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    let content: Arc<Vec<u8>> =
        Arc::new((0..FILE / 4).flat_map(|n| (n as u32).wrapping_mul(0x9e37_79b9).to_be_bytes()).collect());
    let arrived = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let listener = lab.run("server1", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 9000)).unwrap());
    let (mut senders, mut receivers) = (Vec::new(), Vec::new());
    for ((vip, _), arrived) in spec::VIP.both().into_iter().zip(&arrived) {
        let mut to = lab.run("client", || TcpStream::connect((vip, 9000)).unwrap());
        let (mut from, _) = listener.accept().unwrap();
        let (its_content, its_arrived) = (Arc::clone(&content), Arc::clone(arrived));
        senders.push(std::thread::spawn(move || {
            for chunk in its_content.chunks(16 << 10) {
                to.write_all(chunk).unwrap();
                std::thread::sleep(Duration::from_millis(8));
            }
        }));
        receivers.push(std::thread::spawn(move || {
            from.set_read_timeout(Some(10 * SECOND)).unwrap();
            let (mut all, mut some) = (Vec::new(), [0; 16 << 10]);
            loop {
                match from.read(&mut some).unwrap() {
                    0 => return all,
                    n => all.extend_from_slice(&some[..n]),
                }
                its_arrived.store(all.len(), Ordering::Relaxed);
            }
        }));
    }
    for arrived in &arrived {
        until("nothing comes", 10 * SECOND, || arrived.load(Ordering::Relaxed) > FILE / 16);
    }
    lab.sh("director", "ip route add 10.0.0.2/32 dev r0 mtu 1300; ip -6 route add fd00::2/128 dev r0 mtu 1300");
    for vip in ["192.0.2.10", "2001:db8::10"] {
        until("the client does not know", SECOND * 3 / 2, || learned(&lab, "client", vip));
    }
    let before = arrived.each_ref().map(|a| a.load(Ordering::Relaxed));
    assert!(before.iter().all(|b| *b + (1 << 20) < FILE), "the transfer is over before the change");
    for (arrived, before) in arrived.iter().zip(before) {
        until("the transfer stands still", 5 * SECOND, || arrived.load(Ordering::Relaxed) > before + (1 << 20));
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    for receiver in receivers {
        assert!(receiver.join().unwrap() == *content, "the content came whole");
    }
    assert!(lab.count("too_big") > 0);
}

#[test]
fn a_narrow_way_to_the_server_is_told_to_clients_within_a_second_on_tc() {
    a_narrow_way_to_the_server(TC);
}

#[test]
fn a_narrow_way_to_the_server_is_told_to_clients_within_a_second_on_xdp() {
    a_narrow_way_to_the_server(XDP);
}
