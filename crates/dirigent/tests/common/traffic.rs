//! What real programs do through a lab's director, whatever its forwarding method: the rows of the traffic matrix.

use super::TestLab;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Family as an option of programs, virtual address, and the same as URLs want it.
pub const VIPS: [(&str, &str, &str); 2] =
    [("-4", "192.0.2.10", "192.0.2.10"), ("-6", "2001:db8::10", "[2001:db8::10]")];
/// Where server 1 has an echo of its own, which answers any number of datagrams at once.
const ECHO: u16 = 9000;
/// Where server 1 tells the checksum of what it is sent.
const SUM: u16 = 5202;
/// The longest datagram.
const LONGEST: usize = 8000;

/// How a lab forwards.
#[derive(Clone, Copy)]
pub struct Method {
    /// The keys of a server in dirigent.toml.
    pub keys: &'static str,
    /// Addresses of server 1 for the services in IPv4 and in IPv6.
    pub servers: [&'static str; 2],
    /// Where server 1 receives: its own addresses with NAT, otherwise the virtual ones.
    pub listens: [&'static str; 2],
}

/// Masquerading.
pub const NAT: Method = Method { keys: "", servers: OWN, listens: OWN };
/// Direct routing.
pub const DR: Method = Method { keys: "method = \"dr\"\n", servers: OWN, listens: VIRTUAL };
const OWN: [&str; 2] = ["10.0.0.2", "[fd00::2]"];
const VIRTUAL: [&str; 2] = ["192.0.2.10", "[2001:db8::10]"];

/// A tunnel over IPv4 or IPv6, whatever is inside.
pub fn tunnel(kind: &str, family: &str) -> Method {
    let keys = match kind {
        "gue" => "method = \"tun\"\ntunnel = \"gue\"\ntunnel_port = 6080\n",
        "gre" => "method = \"tun\"\ntunnel = \"gre\"\n",
        _ => "method = \"tun\"\n",
    };
    let server = if family == "4" { OWN[0] } else { OWN[1] };
    Method { keys, servers: [server; 2], listens: VIRTUAL }
}

/// The lab's own services, with some for these checks on server 1, and one without servers.
pub fn add_services(lab: &TestLab, method: Method) {
    let mut text = lab.config();
    for ((_, _, vip), server) in VIPS.into_iter().zip(method.servers) {
        for (protocol, port) in [("tcp", 5201), ("tcp", SUM), ("udp", ECHO)] {
            text.push_str(&format!(
                "\n[[service]]\nprotocol = \"{protocol}\"\naddress = \"{vip}:{port}\"\nvip = \"manage\"\n\
                 \n[[service.server]]\naddress = \"{server}:{port}\"\n{}",
                method.keys
            ));
        }
        text.push_str(&format!("\n[[service]]\nprotocol = \"udp\"\naddress = \"{vip}:99\"\nvip = \"manage\"\n"));
    }
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
}

/// What listens on server 1 for these checks, until it is dropped.
pub struct Listeners {
    programs: Vec<Child>,
    ended: Arc<AtomicBool>,
    echoes: Vec<JoinHandle<()>>,
}

impl Listeners {
    pub fn start(lab: &TestLab, method: Method) -> Self {
        let sum = format!("TCP6-LISTEN:{SUM},ipv6only=0,reuseaddr,fork");
        let programs =
            vec![lab.start("server1", &["iperf3", "-s"]), lab.start("server1", &["socat", &sum, "SYSTEM:sha256sum"])];
        let ended = Arc::new(AtomicBool::new(false));
        let echo = |address: &str| {
            let socket = lab.run("server1", || UdpSocket::bind(format!("{address}:{ECHO}"))).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                let mut buffer = [0; 9000];
                while !ended.load(Ordering::Relaxed) {
                    if let Ok((n, from)) = socket.recv_from(&mut buffer) {
                        // A client that has gone is not this thread's matter.
                        let _ = socket.send_to(&buffer[..n], from);
                    }
                }
            })
        };
        let echoes = method.listens.map(echo).into();
        for port in [5201, SUM] {
            let listens = format!("ss -Hltn 'sport = {port}' | grep -q .");
            lab.sh("server1", &format!("for i in $(seq 100); do {listens} && exit; sleep 0.1; done; exit 1"));
        }
        Self { programs, ended, echoes }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.echoes.drain(..) {
            let _ = thread.join();
        }
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// Files come whole both ways: curl gets one, socat sends one, and checksums are compared.
pub fn files_come_whole(lab: &TestLab) {
    let sum = lab.publish("file", 8 << 20);
    let file = lab.file("www/file");
    for (_, _, host) in VIPS {
        let get = format!("curl -sSg --max-time 30 http://{host}/file | sha256sum");
        let put = format!("socat -t20 - TCP:{host}:{SUM} < {}", file.display());
        for (way, command) in [("from the server", get), ("to the server", put)] {
            let got = lab.sh("client", &command);
            assert_eq!(got.split_whitespace().next(), Some(sum.as_str()), "{host} {way}\n{}", lab.log());
        }
    }
}

/// Bulk TCP towards the server and from it; on tc with segmentation and checksum offload.
pub fn bulk_flows_both_ways(lab: &TestLab) {
    for (family, vip, _) in VIPS {
        for reverse in ["", "-R"] {
            let run = format!("timeout 30 iperf3 {family} -c {vip} -n 16M -J {reverse}");
            let report: Value = serde_json::from_str(&lab.sh("client", &run)).unwrap();
            let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap();
            // Not a measure of speed: a stream whose packets do not fit gets nowhere near.
            assert!(bits > 2e7, "{vip} {reverse}: {bits} bit/s");
        }
    }
}

/// Errors as IPVS gives them: the director answers probes that expire at it from the virtual address, as a router
/// between router and server; a service without servers refuses by ICMP, and the address answers pings.
pub fn probes_and_errors_are_answered(lab: &TestLab) {
    for (family, vip, host) in VIPS {
        lab.sh("client", &format!("ping {family} -c 2 -i 0.2 -W 2 {vip}"));
        for kind in ["-U -p 7", "-T -p 80"] {
            let hops = lab.sh("client", &format!("traceroute {family} -n -q 1 -w 2 -m 5 {kind} {vip}"));
            let lines: Vec<_> = hops.lines().skip(1).collect();
            assert!(lines.len() >= 3 && lines[1].contains(vip), "router, director, server:\n{hops}");
            // A SYN-ACK ends the way; what an open UDP port answers does not.
            assert!(kind == "-U -p 7" || (lines.len() == 3 && lines[2].contains(vip)), "{hops}");
        }
        let refused = format!("echo x | socat -t2 - UDP{}:{host}:99 2>&1 || true", family.trim_start_matches('-'));
        let said = lab.sh("client", &refused);
        assert!(said.contains("refused"), "{vip}: {said:?}");
    }
    for reason in ["ttl_expired", "no_server"] {
        assert!(lab.count(reason) > 0, "{reason}: {}", lab.dirigent(&["stats", "--drops"]).0);
    }
}

/// UDP of every size, whole and in pieces, there and back. IPv4: from a client that allows it to be cut, and from one
/// that finds the path's MTU, as of IPv6 every client must.
pub fn datagrams_of_every_size(lab: &TestLab) {
    // As on a real network: checksums are right when packets come to the director.
    lab.sh("client", "ethtool -K eth0 tx off >/dev/null");
    for (cut, vip) in [(true, VIPS[0].2), (false, VIPS[0].2), (false, VIPS[1].2)] {
        let one = if cut { "1" } else { "0" };
        lab.sh("client", &format!("echo {one} > /proc/sys/net/ipv4/ip_no_pmtu_disc"));
        let any = if vip.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = lab.run("client", || UdpSocket::bind(any)).unwrap();
        socket.connect(format!("{vip}:{ECHO}")).unwrap();
        let lost = every_size(&socket, if cut { 3000 } else { 500 });
        // The first that are too long are lost, and teach the client what its path carries (RFC 1191, RFC 8201); a busy
        // machine may take its time over a few more. A size that never fits, or each that does not, would be thousands.
        let may = if cut { 0 } else { 12 * WINDOW };
        let counters = |host| lab.sh(host, "nstat -a | grep -E 'Udp6?RcvbufE|Reasm' || true");
        assert!(
            lost <= may,
            "{vip}, cut {cut}: {lost} lost\nserver {}\nclient {}\n{}",
            counters("server1"),
            counters("client"),
            lab.dirigent(&["stats", "--drops"]).0
        );
    }
    lab.sh("client", "echo 0 > /proc/sys/net/ipv4/ip_no_pmtu_disc; ethtool -K eth0 tx on >/dev/null");
}

/// Datagrams under way at once, and their bytes: what is in pieces takes much more room in the receiver's buffer.
const WINDOW: usize = 8;
const WINDOW_BYTES: usize = 20_000;

/// Sends a datagram of each size and gets each back as it was; says how many had to be sent again.
fn every_size(socket: &UdpSocket, patience: u64) -> usize {
    let pattern: Vec<u8> = (0..LONGEST + 251).map(|i| (i % 251) as u8).collect();
    // Other bytes for other sizes.
    let content = |size: usize| &pattern[size % 251..][..size];
    socket.set_read_timeout(Some(Duration::from_millis(patience))).unwrap();
    let mut sizes = 1..=LONGEST;
    // With how often each was sent.
    let mut under_way: BTreeMap<usize, usize> = BTreeMap::new();
    let mut buffer = [0; 9000];
    let mut lost = 0;
    loop {
        while under_way.len() < WINDOW
            && under_way.keys().sum::<usize>() < WINDOW_BYTES
            && let Some(size) = sizes.next()
        {
            // An error that came meanwhile is told once; the datagram is sent again later.
            let _ = socket.send(content(size));
            under_way.insert(size, 1);
        }
        if under_way.is_empty() {
            return lost;
        }
        match socket.recv(&mut buffer) {
            Ok(size) => {
                assert!(buffer[..size] == *content(size), "{size} bytes came back as others");
                under_way.remove(&size);
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                for (size, times) in &mut under_way {
                    assert!(*times < 6, "a datagram of {size} bytes does not come through");
                    *times += 1;
                    lost += 1;
                    let _ = socket.send(content(*size));
                }
            }
            Err(_) => {}
        }
    }
}

/// The servers' network takes less from now on.
pub fn narrow_servers(lab: &TestLab, mtu: u32) {
    let set = |host: &str, script: &str| lab.sh(host, &script.replace("MTU", &mtu.to_string()));
    set("switch", "for d in $(ls /sys/class/net); do [ $d = lo ] || ip link set dev $d mtu MTU; done");
    set("router", "ip link set dev servers0 mtu MTU");
    set("director", "for d in r0 eth0; do [ ! -e /sys/class/net/$d ] || ip link set dev $d mtu MTU; done");
    for server in ["server1", "server2"] {
        set(server, "ip link set dev eth0 mtu MTU");
    }
}
