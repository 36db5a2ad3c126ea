//! Direct routing and tunnelling with real clients and real servers, which were set up by `dirigent realserver`, as a
//! user would. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use serde_json::Value;

const VIPS: [(&str, &str, &str); 2] = [("-4", "192.0.2.10", "192.0.2.10"), ("-6", "2001:db8::10", "[2001:db8::10]")];

/// A service for iperf3, of the lab's method.
fn with_iperf(lab: &TestLab, method: &str) {
    let mut text = lab.config();
    for (vip, server) in [("192.0.2.10", "10.0.0.2"), ("[2001:db8::10]", "[fd00::2]")] {
        text.push_str(&format!(
            "\n[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:5201\"\nvip = \"manage\"\n\
             \n[[service.server]]\naddress = \"{server}:5201\"\n{method}"
        ));
    }
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
}

/// Bulk TCP towards the server (the half that the director carries) and from it.
fn bulk_both_ways(lab: &TestLab) {
    let mut server = lab.start("server1", &["iperf3", "-s"]);
    lab.sh("server1", "for i in $(seq 100); do ss -Hltn 'sport = 5201' | grep -q . && exit; sleep 0.1; done; exit 1");
    for (family, vip, _) in VIPS {
        for reverse in ["", "-R"] {
            let report = lab.sh("client", &format!("iperf3 {family} -c {vip} -t 1 -J {reverse}"));
            let report: Value = serde_json::from_str(&report).unwrap();
            let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap();
            // Not a measure of speed: a stream whose packets do not fit gets nowhere near.
            assert!(bits > 2e7, "{vip} {reverse}: {bits} bit/s");
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// UDP that its sender allows to be cut, whole and in pieces.
fn datagrams_of_all_sizes(lab: &TestLab) {
    // Of IPv6 only the sender cuts: the first long datagram is lost to teach it (RFC 8201).
    // As a real network would: checksums are right when packets come to the director.
    lab.sh("client", "ethtool -K eth0 tx off >/dev/null");
    let script = "import socket, sys\n\
        for family, vip in ((socket.AF_INET, '192.0.2.10'), (socket.AF_INET6, '2001:db8::10')):\n\
        \x20   s = socket.socket(family, socket.SOCK_DGRAM)\n\
        \x20   if family == socket.AF_INET: s.setsockopt(socket.IPPROTO_IP, 10, 0)\n\
        \x20   s.settimeout(2)\n\
        \x20   for n in (1, 1400, 3000, 6000) + ((1472,) if family == socket.AF_INET else ()):\n\
        \x20       data = bytes(i % 251 for i in range(n))\n\
        \x20       for attempt in range(4):\n\
        \x20           s.sendto(data, (vip, 7))\n\
        \x20           try: got = s.recv(9000)\n\
        \x20           except socket.timeout: continue\n\
        \x20           break\n\
        \x20       assert got == data, (vip, n)\n\
        \x20       assert attempt == 0 or family == socket.AF_INET6, (vip, n, attempt)\n";
    lab.on("client", &["python3", "-c", script]);
}

fn works(arguments: &[&str], method: &str) {
    let lab = TestLab::up(&[&["--servers", "2"], arguments].concat());
    with_iperf(&lab, method);
    let sum = lab.publish("file", 8 << 20);
    for (_, _, host) in VIPS {
        let mut answers: Vec<_> = (0..4).map(|_| lab.curl(&format!("http://{host}/"))).collect();
        answers.sort();
        assert_eq!(answers, ["server1", "server1", "server2", "server2"]);
        let got = lab.sh("client", &format!("curl -sSg --max-time 30 http://{host}/file | sha256sum"));
        assert_eq!(got.split_whitespace().next(), Some(sum.as_str()), "{host}\n{}", lab.log());
    }
    datagrams_of_all_sizes(&lab);
    bulk_both_ways(&lab);
    // The director carries one half, and its counters show it.
    let stats = lab.json(&["stats", "--json"]);
    for service in stats["services"].as_array().unwrap() {
        let counters = &service["counters"];
        assert!(counters["in_packets"].as_u64().unwrap() > 0, "{service}");
        assert_eq!((counters["out_packets"].as_u64(), counters["out_bytes"].as_u64()), (Some(0), Some(0)), "{service}");
    }
    let connections = lab.json(&["connection", "list", "--json"]);
    let states = connections["connections"].as_array().unwrap();
    assert!(states.iter().any(|c| c["state"] == "FIN_WAIT"), "closed by the client, as far as is seen: {connections}");
}

#[test]
fn direct_routing_on_tc() {
    works(&["--mode", "dr", "--path", "tc"], "method = \"dr\"\n");
}

#[test]
fn direct_routing_on_native_xdp_with_one_arm() {
    works(&["--mode", "dr", "--path", "xdp", "--no-offloads", "--one-arm"], "method = \"dr\"\n");
}

#[test]
fn ipip_on_tc() {
    works(&["--mode", "tun", "--path", "tc"], "method = \"tun\"\n");
}

#[test]
fn ipip_on_native_xdp() {
    works(&["--mode", "tun", "--path", "xdp", "--no-offloads"], "method = \"tun\"\n");
}

#[test]
fn gre_on_native_xdp() {
    let method = "method = \"tun\"\ntunnel = \"gre\"\n";
    works(&["--mode", "tun", "--tunnel", "gre", "--path", "xdp", "--no-offloads"], method);
}

#[test]
fn gue_on_tc_with_one_arm() {
    let method = "method = \"tun\"\ntunnel = \"gue\"\ntunnel_port = 6080\n";
    works(&["--mode", "tun", "--tunnel", "gue", "--path", "tc", "--one-arm"], method);
}

/// What a real server's network looks like.
fn network(lab: &TestLab) -> String {
    lab.sh(
        "server1",
        "ip -br address; ip route; ip -6 route | sort; \
         ls /sys/fs/bpf/dirigent | grep -c ^rs-$(stat -Lc %i /proc/self/ns/net)- || true; \
         for f in all eth0; do for k in arp_ignore arp_announce rp_filter; do cat /proc/sys/net/ipv4/conf/$f/$k; done; done",
    )
}

/// Set up, found right, set up again without a change, and taken back to exactly what it was.
#[test]
fn a_real_server_is_set_up_and_put_back() {
    let lab = TestLab::up(&["--servers", "1", "--no-daemon"]);
    lab.sh("server1", "echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter");
    let before = network(&lab);
    let state = format!("/run/dirigent/lab/{}/test.json", lab.name());
    let words = "--mode tun --vip 192.0.2.10 --vip 2001:db8::10 --tunnel gue --director 10.0.0.1";
    let setup = format!("dirigent realserver setup {words} --state {state}");
    let shown = lab.sh("server1", &format!("{setup} --dry-run"));
    for word in
        ["arp_ignore 0 → 1", "rp_filter 1 → 2", "address 192.0.2.10/32 on lo", "gue (UDP port 6080) from 10.0.0.1"]
    {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert_eq!(network(&lab), before, "a dry run changes nothing");
    let refused = lab.sh("server1", &format!("{setup} </dev/null 2>&1 || true"));
    assert!(refused.contains("--yes"), "{refused}");
    let check = format!("dirigent realserver check {words}");
    assert!(lab.sh("server1", &format!("{check} || echo exit $?")).contains("exit 1"));
    lab.sh("server1", &format!("{setup} --yes"));
    let checked = lab.sh("server1", &check);
    assert!(checked.contains("right") && !checked.contains("WRONG"), "{checked}");
    assert!(lab.sh("server1", &format!("{setup} --yes")).contains("nothing to do"));
    assert_ne!(network(&lab), before);
    lab.sh("server1", &format!("dirigent realserver undo --yes --state {state}"));
    assert_eq!(network(&lab), before);
    assert!(lab.sh("server1", &format!("dirigent realserver undo --yes --state {state}")).contains("nothing to undo"));
}

/// The host forwards nothing: the director sends frames itself.
#[test]
fn a_host_that_does_not_forward_still_directs() {
    for (mode, path) in [("dr", "tc"), ("tun", "xdp")] {
        let lab = TestLab::up(&["--servers", "1", "--mode", mode, "--path", path, "--no-offloads"]);
        let off = "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding";
        lab.sh("director", off);
        assert_eq!(lab.sh("director", "cat /proc/sys/net/ipv4/conf/c0/forwarding"), "0");
        for (_, _, host) in VIPS {
            assert_eq!(lab.curl(&format!("http://{host}/")), "server1", "{mode} {path}");
        }
    }
}
