//! What is not the director's passes untouched: frames for other MACs, on promiscuous and on bridged ports, and packets
//! for virtual addresses that this host does not hold. On a bridge that has the addresses it works as IPVS does. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use dirigent_net::lab::spec;
use dirigent_net::links::link_named;
use dirigent_net::raw::PacketSocket;
use dirigent_net::{Mac, Namespace};
use dirigent_testkit::packet::{self, IpOptions, proto};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TC: &[&str] = &["--path", "tc"];
const XDP: &[&str] = &["--path", "xdp", "--no-offloads"];
const ROUTER: Mac = [2, 0, 0, 0, 1, 2];
const DIRECTOR: Mac = [2, 0, 0, 0, 2, 1];
const BRIDGE: Mac = [2, 0, 0, 0, 2, 9];
const STRANGER: Mac = [2, 0, 0, 0, 0x77, 0x77];
const MARK: &[u8] = b"a frame that dirigent's tests have sent";

/// For each family a datagram to the echo service and a SYN to the web service, from the client.
fn frames(to: Mac) -> Vec<Vec<u8>> {
    let pairs = spec::CLIENT.both().into_iter().zip(spec::VIP.both());
    let both = pairs.flat_map(|((client, _), (vip, _))| {
        let datagram = packet::udp(client, vip, 40_000, 7, MARK);
        let syn = packet::Tcp { sport: 40_000, dport: 80, flags: packet::flag::SYN, seq: 1, ack: 0, payload: MARK };
        let whole = |protocol, payload: &[u8]| {
            packet::eth(to, ROUTER, &packet::ip(client, vip, protocol, payload, &IpOptions::default()))
        };
        [whole(proto::UDP, &datagram), whole(proto::TCP, &packet::tcp(client, vip, &syn))]
    });
    both.collect()
}

/// For each family what needs a stage of its own, which no service here has use for: an SCTP packet, and an error about what
/// some tunnel of this host's may have carried.
fn odd_frames() -> Vec<Vec<u8>> {
    let pairs = spec::CLIENT.both().into_iter().zip(spec::VIP.both());
    let both = pairs.flat_map(|((client, _), (vip, _))| {
        let whole = |from, to, protocol, payload: &[u8]| packet::ip(from, to, protocol, payload, &IpOptions::default());
        // IP in IP (RFC 2003, 2473), and destinations that are unreachable.
        let (inside, unreachable) = if vip.is_ipv6() { (41, (1, 0)) } else { (4, (3, 1)) };
        let error = packet::error(client, vip, unreachable, 0, &whole(vip, client, inside, MARK), usize::MAX);
        let association = whole(client, vip, proto::SCTP, &packet::sctp(40_000, 7, MARK));
        [association, error].map(|one| packet::eth(DIRECTOR, ROUTER, &one))
    });
    both.collect()
}

/// The router sends them to the director.
fn send(lab: &TestLab, frames: &[Vec<u8>]) {
    lab.run("router", || {
        let (socket, index) = (PacketSocket::sender().unwrap(), link_named("outside0").unwrap().index);
        frames.iter().for_each(|frame| socket.send(index, frame).unwrap());
    });
}

/// Collects the marked frames that an interface receives.
struct Ear {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Vec<u8>>>,
}

impl Ear {
    fn on(host: Namespace, interface: &'static str) -> Self {
        let ((stop, stopped), (ready, is_ready)) = (mpsc::channel(), mpsc::channel());
        let listen = move || {
            let socket = PacketSocket::listening(link_named(interface).unwrap().index).unwrap();
            ready.send(()).unwrap();
            let mut heard = Vec::new();
            loop {
                // Asked first: what came before the end was called for is heard.
                let last = stopped.try_recv().is_ok();
                while let Some(frame) = socket.receive(Duration::from_millis(20)).unwrap() {
                    // Errors quote it: the client refuses answers to what it never asked.
                    let quoted =
                        matches!((frame.bytes[12], frame.bytes[20], frame.bytes[23]), (0x08, _, 1) | (0x86, 58, _));
                    if !frame.outgoing && !quoted && frame.bytes.ends_with(MARK) {
                        heard.push(frame.bytes);
                    }
                }
                if last {
                    return heard;
                }
            }
        };
        let thread = std::thread::spawn(move || host.run(listen).unwrap());
        is_ready.recv().unwrap();
        Self { stop, thread }
    }

    fn heard(self) -> Vec<Vec<u8>> {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

/// Waits until a reason has counted so many packets.
fn counted(lab: &TestLab, reason: &str, packets: u64) {
    let begun = Instant::now();
    while lab.count(reason) < packets {
        assert!(begun.elapsed() < Duration::from_secs(5), "{reason}: {}\n{}", lab.count(reason), lab.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The interfaces in use.
fn used(lab: &TestLab) -> Vec<String> {
    let status = lab.json(&["status", "--json"]);
    status["interfaces"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect()
}

fn until_used(lab: &TestLab, interface: &str) {
    let begun = Instant::now();
    while !used(lab).iter().any(|name| name == interface) {
        assert!(begun.elapsed() < Duration::from_secs(5), "{interface} is not used\n{}", lab.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the services have counted, and the connections.
fn touched(lab: &TestLab) -> u64 {
    let stats = lab.json(&["stats", "--json"]);
    let sum =
        |counters: &serde_json::Value| counters.as_object().unwrap().values().filter_map(|v| v.as_u64()).sum::<u64>();
    let services: u64 = stats["services"].as_array().unwrap().iter().map(|s| sum(&s["counters"])).sum();
    services + lab.json(&["status", "--json"])["connections"]["used"].as_u64().unwrap()
}

fn promiscuous(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    lab.sh("director", "ip link set c0 promisc on");
    let (port, server) = (Ear::on(lab.namespace("director"), "c0"), Ear::on(lab.namespace("server1"), "eth0"));
    let strange = frames(STRANGER);
    send(&lab, &strange);
    counted(&lab, "other_mac", strange.len() as u64);
    assert_eq!(touched(&lab), 0, "{}", lab.dirigent(&["stats"]).0);
    assert!(server.heard().is_empty(), "nothing was forwarded");
    assert_eq!(port.heard(), strange, "whoever listens there sees them as they were sent");
    // The same, for the director: they go to the server.
    let server = Ear::on(lab.namespace("server1"), "eth0");
    let ours = frames(DIRECTOR);
    send(&lab, &ours);
    counted(&lab, "request", ours.len() as u64);
    assert!(touched(&lab) > 0);
    assert_eq!(server.heard().len(), ours.len());
}

#[test]
fn frames_for_other_macs_on_a_promiscuous_port_pass_on_tc() {
    promiscuous(TC);
}

#[test]
fn frames_for_other_macs_on_a_promiscuous_port_pass_on_xdp() {
    promiscuous(XDP);
}

/// The director's interface becomes a port of the bridge b0, whose other port leads to the client's host.
fn bridge(lab: &TestLab) {
    let bridge = format!(
        "ip link add b0 type bridge; ip link add p0 type veth peer name far0 netns {}-client; \
         ip link set c0 master b0; ip link set p0 master b0; ip link set p0 up; ip link set b0 up",
        lab.name()
    );
    lab.sh("director", &bridge);
    lab.sh("client", "ip link set far0 up");
}

/// What comes out at the other port. Until the bridge has both forwarding, frames are lost on it.
fn over_the_bridge(lab: &TestLab, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let begun = Instant::now();
    loop {
        let far = Ear::on(lab.namespace("client"), "far0");
        send(lab, frames);
        std::thread::sleep(Duration::from_millis(50));
        let heard = far.heard();
        if !heard.is_empty() {
            return heard;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "nothing comes over the bridge");
    }
}

/// What is for the director, by this MAC, goes to the server and nowhere else.
fn directed(lab: &TestLab, mac: Mac) {
    let (far, server) = (Ear::on(lab.namespace("client"), "far0"), Ear::on(lab.namespace("server1"), "eth0"));
    let (ours, before) = (frames(mac), lab.count("request"));
    send(lab, &ours);
    counted(lab, "request", before + ours.len() as u64);
    assert_eq!((server.heard().len(), far.heard().len()), (ours.len(), 0));
}

fn bridged(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    bridge(&lab);
    assert!(used(&lab).contains(&"c0".to_owned()), "still attached to the port: {:?}", used(&lab));
    let strange = frames(STRANGER);
    assert_eq!(over_the_bridge(&lab, &strange), strange, "bridged as they were sent");
    assert!(lab.count("other_mac") >= strange.len() as u64);
    assert_eq!(touched(&lab), 0, "{}", lab.dirigent(&["stats"]).0);
    // On the port, too, what is for the director is directed.
    directed(&lab, DIRECTOR);
}

#[test]
fn frames_for_other_macs_on_a_bridged_port_are_bridged_on_tc() {
    bridged(TC);
}

#[test]
fn frames_for_other_macs_on_a_bridged_port_are_bridged_on_xdp() {
    bridged(XDP);
}

/// b0 takes over what c0 had, under a MAC of its own; the router learns it.
fn move_addresses_to_the_bridge(lab: &TestLab) {
    let addresses = "ip link set b0 address 02:00:00:00:02:09; ip address flush dev c0; \
                     ip address add 203.0.113.2/30 dev b0; ip -6 address add 2001:db8:1::2/64 dev b0 nodad; \
                     ip route replace default via 203.0.113.1; ip -6 route replace default via 2001:db8:1::1";
    lab.sh("director", addresses);
    lab.sh("router", "ip neigh flush dev outside0; ip -6 neigh flush dev outside0");
}

/// As IPVS works on the bridge that has the host's addresses, so does the director: by the bridge's MAC and by its
/// port's, which is this host's too. What is for others is bridged untouched.
#[test]
fn a_bridge_that_has_the_addresses_is_directed_on_and_bridges_the_rest() {
    let lab = TestLab::up(&[&["--servers", "1"], TC].concat());
    bridge(&lab);
    move_addresses_to_the_bridge(&lab);
    until_used(&lab, "b0");
    for url in ["http://192.0.2.10/", "http://[2001:db8::10]/"] {
        assert_eq!(lab.curl(url), "server1");
    }
    let before = touched(&lab);
    let strange = frames(STRANGER);
    assert_eq!(over_the_bridge(&lab, &strange), strange, "bridged as they were sent");
    assert_eq!(touched(&lab), before, "{}", lab.dirigent(&["stats"]).0);
    directed(&lab, BRIDGE);
    directed(&lab, DIRECTOR);
}

/// A standby: the service is configured, its address is elsewhere. The host routes the packets, as it would without us.
fn not_held(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "1"], path].concat());
    lab.write_config(&lab.config().replace("vip = \"manage\"", "vip = \"operator\""));
    lab.dirigent(&["reload"]);
    let held = lab.sh("director", "ip -br address show lo");
    assert!(!held.contains("192.0.2.10") && !held.contains("2001:db8::10"), "{held}");
    lab.sh("director", "ip route add 192.0.2.10/32 via 10.0.0.2; ip -6 route add 2001:db8::10/128 via fd00::2");
    let server = Ear::on(lab.namespace("server1"), "eth0");
    let sent = frames(DIRECTOR);
    send(&lab, &sent);
    counted(&lab, "not_held", sent.len() as u64);
    // These are nobody's business without even a program that looks at them.
    send(&lab, &odd_frames());
    counted(&lab, "other_protocol", 2);
    counted(&lab, "icmp_unrelated", 2);
    // The kernel may have to find the neighbour first.
    std::thread::sleep(Duration::from_millis(300));
    let mut heard = server.heard();
    let associations = heard.extract_if(.., |frame| [frame[20], frame[23]].contains(&proto::SCTP)).count();
    assert_eq!((associations, lab.count("stage_missing")), (2, 0));
    assert_eq!(touched(&lab), 0, "{}", lab.dirigent(&["stats"]).0);
    assert_eq!(heard.len(), sent.len(), "the host sent them on");
    let whole = |frame: &[u8]| {
        let packet = dirigent_testkit::decode::packet(frame).unwrap();
        // Past the header that routing changes (TTL, checksum): ports, sums and content.
        let header = if packet[0] >> 4 == 6 { 8 } else { 12 };
        packet[header..].to_vec()
    };
    let mut ways = [&heard, &sent].map(|frames| frames.iter().map(|f| whole(f)).collect::<Vec<_>>());
    ways.iter_mut().for_each(|frames| frames.sort());
    assert_eq!(ways[0], ways[1], "to the virtual address and port, from the client");
}

#[test]
fn packets_for_an_address_that_is_not_held_go_to_the_host_on_tc() {
    not_held(TC);
}

#[test]
fn packets_for_an_address_that_is_not_held_go_to_the_host_on_xdp() {
    not_held(XDP);
}

/// Two directors of one host: the first, by XDP, on a bridge's port; the second, by tc, on the bridge. What the first leaves
/// as foreign, marked as decided for its own tc program, is the second's to direct.
#[test]
fn what_one_director_leaves_on_xdp_another_directs() {
    let lab = TestLab::up(&[&["--servers", "1"], XDP].concat());
    bridge(&lab);
    let text = lab.config();
    let services = &text[text.find("[[service]]").unwrap()..];
    lab.write_config("version = 1\n[director]\nmode = \"xdp\"\ninterfaces = [\"c0\"]\n");
    lab.dirigent(&["reload"]);
    move_addresses_to_the_bridge(&lab);
    let (file, instance) = (lab.file("second.toml"), format!("{}-b", lab.name()));
    let head = "version = 1\n[director]\nconnections = 4096\nmode = \"tc\"\ninterfaces = [\"b0\", \"r0\"]\n";
    std::fs::write(&file, [head, services].concat()).unwrap();
    let argv = ["dirigent", "run", "--config", file.to_str().unwrap(), "--instance", &instance];
    let mut second = lab.start("director", &argv);
    let ready =
        // The socket is there before the director forwards.
        format!("for i in $(seq 200); do dirigent --instance {instance} status | grep -q forwarding && exit; sleep 0.1; done; exit 1");
    lab.sh("director", &ready);
    let strange = frames(STRANGER);
    assert_eq!(over_the_bridge(&lab, &strange), strange, "bridged as they were sent");
    let server = Ear::on(lab.namespace("server1"), "eth0");
    let theirs = frames(BRIDGE);
    send(&lab, &theirs);
    // What does not come is not to be waited for.
    std::thread::sleep(Duration::from_millis(500));
    let heard = server.heard().len();
    let stats = lab.sh("director", &format!("dirigent --instance {instance} stats"));
    lab.sh("director", &format!("dirigent --instance {instance} stop --detach"));
    second.wait().unwrap();
    assert_eq!(heard, theirs.len(), "{stats}");
}
