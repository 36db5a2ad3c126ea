//! What goes on when a director knows nothing of it: real TCP through one that begins anew, and clients that speak
//! QUIC's headers from addresses and ports that nobody knows. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{TestLab, read_slowly};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The lab's web services by Maglev's hash, and whether they go on without state.
fn hashed(lab: &TestLab, stateless: bool) {
    let services: Vec<_> = lab.config().split("[[service]]").map(str::to_owned).collect();
    let rules = format!("scheduler = \"mh\"\nscheduler_flags = [\"mh-port\"]\nstateless = {stateless}");
    let services: Vec<_> = services
        .into_iter()
        .map(|s| if s.contains("\"tcp\"") { s.replace("scheduler = \"rr\"", &rules) } else { s })
        .collect();
    lab.write_config(&services.join("[[service]]"));
    lab.dirigent(&["reload"]);
}

/// Transfers of both families, in whose middle the director is removed with all it knows and started anew: how many
/// come to their end, whole.
fn transfers_through_a_new_director(stateless: bool, path: &[&str]) -> usize {
    const TRANSFERS: usize = 8;
    let lab = TestLab::up(&[&["--servers", "3", "--mode", "dr"], path].concat());
    hashed(&lab, stateless);
    lab.publish("file", 6 << 20);
    // Or much of the file waits at the client before the director goes.
    lab.sh("client", "sysctl -qw net.ipv4.tcp_rmem='4096 65536 131072'");
    let transfers: Vec<_> = (0..TRANSFERS)
        .map(|n| {
            let host = ["192.0.2.10", "[2001:db8::10]"][n % 2];
            let get = ["curl", "-sSg", "--max-time", "40", &format!("http://{host}/file")];
            read_slowly(lab.start("client", &get), Duration::from_millis(16))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(1000));
    // A director that failed is silent. (The host of one that is only stopped holds the virtual addresses for a
    // moment yet, and resets what comes.)
    let silent = |how: &str| {
        lab.sh("client", &format!("ip route {how} blackhole 192.0.2.10; ip -6 route {how} blackhole 2001:db8::10"));
    };
    silent("add");
    lab.dirigent(&["stop", "--detach"]);
    assert!(!lab.pins().exists(), "nothing is left of the old director");
    lab.start_daemon();
    silent("del");
    let file = std::fs::read(lab.file("www").join("file")).unwrap();
    let whole = transfers.into_iter().filter_map(|transfer| transfer.join().ok()).filter(|got| *got == file).count();
    let stats = lab.json(&["stats", "--json"]);
    let taken: u64 =
        stats["services"].as_array().unwrap().iter().map(|s| s["counters"]["connections"].as_u64().unwrap()).sum();
    assert_eq!(taken > 0, stateless, "connections that the new director took: {taken}");
    whole
}

#[test]
fn transfers_go_on_through_a_director_that_begins_anew_on_tc() {
    assert_eq!(transfers_through_a_new_director(true, &["--path", "tc"]), 8);
}

#[test]
fn transfers_go_on_through_a_director_that_begins_anew_on_native_xdp() {
    assert_eq!(transfers_through_a_new_director(true, &["--path", "xdp", "--no-offloads"]), 8);
}

/// So the others do show something.
#[test]
fn without_the_option_transfers_end() {
    assert_eq!(transfers_through_a_new_director(false, &["--path", "tc"]), 0);
}

/// A server of what looks like QUIC: answers each datagram with a connection id of its own and its number.
struct Speaker {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Speaker {
    fn start(lab: &TestLab, number: u8) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, namespace) = (Arc::clone(&ended), lab.namespace(&format!("server{number}")));
        let work = move || {
            let socket = UdpSocket::bind("0.0.0.0:4433").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut buffer = [0; 2000];
            while !stop.load(Ordering::Relaxed) {
                let Ok((_, client)) = socket.recv_from(&mut buffer) else { continue };
                // A short header with no id of the client's, and what a NEW_CONNECTION_ID frame would say: rotation 0,
                // the last four bytes of the server's address, a nonce.
                let cid = [0x08, 10, 0, 0, number + 1, 0xde, 0xad, 0xbe, number];
                socket.send_to(&[&[0x40][..], &cid, &[number]].concat(), client).unwrap();
            }
        };
        Self { ended, thread: Some(std::thread::spawn(move || namespace.run(work).unwrap())) }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends from a new port of this address; the connection id and the number in the answer. (Of ports that the kernel
/// chooses one in some runs was there before, and the director knew its connection.)
fn ask(from: Ipv4Addr, packet: &[u8]) -> (Vec<u8>, u8) {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let socket = UdpSocket::bind(SocketAddr::new(IpAddr::V4(from), NEXT.fetch_add(1, Ordering::Relaxed))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.connect("192.0.2.10:443").unwrap();
    socket.send(packet).unwrap();
    let mut buffer = [0; 100];
    let len = socket.recv(&mut buffer).unwrap();
    (buffer[1..len - 1].to_vec(), buffer[len - 1])
}

fn quic_clients_move(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "3"], path].concat());
    let servers: String = (2..5).map(|n| format!("\n[[service.server]]\naddress = \"10.0.0.{n}:4433\"\n")).collect();
    let service = format!(
        "\n[[service]]\nprotocol = \"udp\"\naddress = \"192.0.2.10:443\"\nscheduler = \"rr\"\nvip = \"manage\"\nquic = true\n{servers}"
    );
    lab.write_config(&format!("{}{service}", lab.config()));
    lab.dirigent(&["reload"]);
    let _speakers: Vec<_> = (1..4).map(|number| Speaker::start(&lab, number)).collect();
    // Another address of the client, which its network routes as the first.
    let own = lab.sh("client", "ip -4 -o addr show scope global | awk '{print $4}' | head -1");
    let own: Ipv4Addr = own.split('/').next().unwrap().parse().unwrap();
    let [a, b, c, d] = own.octets();
    let other = Ipv4Addr::new(a, b, c, d + 100);
    lab.sh(
        "client",
        &format!("dev=$(ip -4 -o addr show to {own} | awk '{{print $2}}'); ip addr add {other}/24 dev $dev"),
    );
    let initial = [&[0xc3, 0, 0, 0, 1, 8][..], &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 8], &[0; 1186]].concat();
    let mut met = std::collections::BTreeSet::new();
    lab.run("client", || {
        std::thread::sleep(Duration::from_millis(200));
        for round in 0..12 {
            let (cid, server) = ask(own, &initial);
            met.insert(server);
            for from in [own, other, own, other] {
                let moved = [&[0x40][..], &cid, &[0x77; 30]].concat();
                assert_eq!(ask(from, &moved), (cid.clone(), server), "round {round} from {from}");
            }
        }
        // Nobody's id goes to each in turn.
        let nobodys = [&[0x40, 0x08, 9, 9, 9, 9][..], &[0x77; 30]].concat();
        let others: std::collections::BTreeSet<_> = (0..6).map(|_| ask(own, &nobodys).1).collect();
        assert_eq!(others.len(), 3);
    });
    assert_eq!(met.len(), 3, "clients of every server moved");
    // A director that knows nothing goes by the ids alone.
    let cids: Vec<_> = lab.run("client", || (0..3).map(|_| ask(own, &initial)).collect());
    lab.dirigent(&["stop", "--detach"]);
    lab.start_daemon();
    lab.run("client", || {
        for (cid, server) in cids.iter().rev().chain(&cids) {
            assert_eq!(ask(other, &[&[0x40][..], cid, &[0x77; 30]].concat()), (cid.clone(), *server));
        }
    });
}

#[test]
fn quic_clients_move_on_tc() {
    quic_clients_move(&["--path", "tc"]);
}

#[test]
fn quic_clients_move_on_native_xdp() {
    quic_clients_move(&["--path", "xdp", "--no-offloads"]);
}
