//! Real programs through the director, on every packet path and both families. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::TestLab;
use serde_json::Value;

const VIPS: [(&str, &str, &str); 2] = [("-4", "192.0.2.10", "192.0.2.10"), ("-6", "2001:db8::10", "[2001:db8::10]")];

/// A file through the virtual address comes whole, in both families.
fn files_come_whole(lab: &TestLab) {
    let sum = lab.publish("file", 8 << 20);
    for (_, _, host) in VIPS {
        let get = format!("curl -sS -g --max-time 30 http://{host}/file | sha256sum");
        let got = lab.on("client", &["sh", "-c", &get]);
        assert_eq!(got.split_whitespace().next(), Some(sum.as_str()), "{host}\n{}", lab.log());
    }
}

fn echo_answers(lab: &TestLab) {
    for (family, _, host) in VIPS {
        // 1,000 bytes, a checksum to be translated both ways.
        let family = family.trim_start_matches('-');
        let echo = format!("head -c 1000 /dev/zero | tr '\\0' x | socat -t2 - UDP{family}:{host}:7 | wc -c");
        assert_eq!(lab.on("client", &["sh", "-c", &echo]), "1000", "{host}");
    }
}

fn path_of(lab: &TestLab) -> String {
    let status = lab.json(&["status", "--json"]);
    status["interfaces"][0]["path"].as_str().unwrap().to_owned()
}

#[test]
fn two_arms_on_tc_with_offloads() {
    let lab = TestLab::up(&["--servers", "2", "--path", "tc"]);
    assert_eq!(path_of(&lab), "tc");
    files_come_whole(&lab);
    echo_answers(&lab);
}

#[test]
fn one_arm_on_tc_with_offloads() {
    let lab = TestLab::up(&["--servers", "2", "--path", "tc", "--one-arm"]);
    files_come_whole(&lab);
    echo_answers(&lab);
}

#[test]
fn two_arms_on_native_xdp() {
    let lab = TestLab::up(&["--servers", "2", "--path", "xdp", "--no-offloads"]);
    assert_eq!(path_of(&lab), "xdp");
    files_come_whole(&lab);
    echo_answers(&lab);
}

#[test]
fn one_arm_on_native_xdp() {
    let lab = TestLab::up(&["--servers", "2", "--path", "xdp", "--no-offloads", "--one-arm"]);
    files_come_whole(&lab);
    echo_answers(&lab);
}

/// The lab's own configuration and a service for iperf3.
fn with_iperf(lab: &TestLab) {
    let mut text = lab.config();
    for (vip, server) in [("192.0.2.10", "10.0.0.2"), ("[2001:db8::10]", "[fd00::2]")] {
        text.push_str(&format!(
            "\n[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:5201\"\nvip = \"manage\"\n\
             \n[[service.server]]\naddress = \"{server}:5201\"\n"
        ));
    }
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
}

/// Bulk TCP both ways over virtual links with segmentation and checksum offload: what tc must keep true.
#[test]
fn bulk_tcp_both_ways_with_offloads() {
    let lab = TestLab::up(&["--servers", "1", "--path", "tc"]);
    with_iperf(&lab);
    let mut server = lab.start("server1", &["iperf3", "-s"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    for (family, vip, _) in VIPS {
        for reverse in ["", "-R"] {
            let run = format!("iperf3 {family} -c {vip} -t 2 -J {reverse}");
            let report: Value = serde_json::from_str(&lab.on("client", &["sh", "-c", &run])).unwrap();
            let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap();
            // Not a measure of speed: a stalled or resegmented stream gets nowhere near.
            assert!(bits > 1e8, "{vip} {reverse}: {bits} bit/s");
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Errors as IPVS gives them: the director answers probes that expire at it from the virtual address, a service without
/// servers refuses by ICMP, and the address answers pings.
#[test]
fn probes_and_errors_are_answered() {
    let lab = TestLab::up(&["--servers", "1"]);
    let mut text = lab.config();
    for vip in ["192.0.2.10", "[2001:db8::10]"] {
        text.push_str(&format!("\n[[service]]\nprotocol = \"udp\"\naddress = \"{vip}:99\"\nvip = \"manage\"\n"));
    }
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    for (family, vip, host) in VIPS {
        let ping = if family == "-4" { "ping -4" } else { "ping -6" };
        lab.on("client", &["sh", "-c", &format!("{ping} -c 2 -i 0.2 -W 2 {vip}")]);
        let trace = format!("traceroute {family} -n -q 1 -w 2 -m 5 -U -p 7 {vip}");
        let hops = lab.on("client", &["sh", "-c", &trace]);
        let lines: Vec<_> = hops.lines().skip(1).collect();
        assert!(lines.len() >= 3 && lines[1].contains(vip), "router, director, server:\n{hops}");
        let refused = format!("echo x | socat -t2 - UDP{}:{host}:99 2>&1 || true", family.trim_start_matches('-'));
        let said = lab.on("client", &["sh", "-c", &refused]);
        assert!(said.contains("refused"), "{vip}: {said:?}");
    }
    let stats = lab.json(&["stats", "--json"]);
    for reason in ["ttl_expired", "no_server"] {
        assert!(count(&stats, reason) > 0, "{reason}: {stats}");
    }
}

fn count(stats: &Value, reason: &str) -> u64 {
    let reasons = stats["reasons"].as_array().unwrap();
    reasons.iter().find(|r| r["name"] == reason).and_then(|r| r["count"].as_u64()).unwrap_or(0)
}

/// Connections opened and closed as fast as asked; afterwards every counter equals what can be counted.
#[test]
fn a_thousand_connections_a_second_leave_exact_counters() {
    let seconds: u64 = std::env::var("DIRIGENT_CONNECTION_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let lab = TestLab::up(&["--servers", "2"]);
    let load = format!("wrk -t1 -c20 -d{seconds}s -H 'Connection: close' http://192.0.2.10/");
    let report = lab.on("client", &["sh", "-c", &load]);
    let requests: u64 = report
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ").map(|(n, _)| n.parse().unwrap()))
        .unwrap_or_else(|| panic!("{report}"));
    assert!(requests > 1000 * seconds / 2, "{report}");
    let listed = lab.json(&["connection", "list", "--json", "--limit", "1000000"]);
    let connections = listed["connections"].as_array().unwrap();
    let servers = lab.json(&["server", "list", "--json"]);
    let mut opened = 0;
    for server in servers.as_array().unwrap() {
        if server["service"] != "tcp 192.0.2.10:80" {
            continue;
        }
        let (active, inactive) = (server["active"].as_u64().unwrap(), server["inactive"].as_u64().unwrap());
        let of = |wanted: bool| {
            let states = ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"];
            connections
                .iter()
                .filter(|c| c["server"] == server["address"] && c["protocol"] == "tcp")
                .filter(|c| states.contains(&c["state"].as_str().unwrap()) == wanted)
                .count() as u64
        };
        assert_eq!((active, inactive), (of(true), of(false)), "{server}");
        opened += server["counters"]["connections"].as_u64().unwrap();
    }
    // wrk leaves up to one unfinished request on each of its connections.
    assert!(opened >= requests && opened <= requests + 40, "{opened} opened, {requests} answered\n{report}");
}
