//! Real programs through the director, on every packet path and both families. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use serde_json::Value;
use std::time::{Duration, Instant};

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

/// iperf3 through the service, both ways: bulk TCP, on tc with segmentation and checksum offload.
fn bulk_tcp_flows_both_ways(lab: &TestLab) {
    let mut server = lab.start("server1", &["iperf3", "-s"]);
    let listens = "for i in $(seq 100); do ss -Hltn 'sport = 5201' | grep -q . && exit; sleep 0.1; done; exit 1";
    lab.sh("server1", listens);
    for (family, vip, _) in VIPS {
        for reverse in ["", "-R"] {
            let run = format!("iperf3 {family} -c {vip} -t 1 -J {reverse}");
            let report: Value = serde_json::from_str(&lab.sh("client", &run)).unwrap();
            let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap();
            // Not a measure of speed: a stalled or resegmented stream gets nowhere near.
            assert!(bits > 2e7, "{vip} {reverse}: {bits} bit/s");
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Errors as IPVS gives them: the director answers probes that expire at it from the virtual address, a service without
/// servers refuses by ICMP, and the address answers pings.
fn probes_and_errors_are_answered(lab: &TestLab) {
    for (family, vip, host) in VIPS {
        lab.sh("client", &format!("ping {family} -c 2 -i 0.2 -W 2 {vip}"));
        let hops = lab.sh("client", &format!("traceroute {family} -n -q 1 -w 2 -m 5 -U -p 7 {vip}"));
        let lines: Vec<_> = hops.lines().skip(1).collect();
        assert!(lines.len() >= 3 && lines[1].contains(vip), "router, director, server:\n{hops}");
        let refused = format!("echo x | socat -t2 - UDP{}:{host}:99 2>&1 || true", family.trim_start_matches('-'));
        let said = lab.sh("client", &refused);
        assert!(said.contains("refused"), "{vip}: {said:?}");
    }
    for reason in ["ttl_expired", "no_server"] {
        assert!(lab.count(reason) > 0, "{reason}: {}", lab.dirigent(&["stats", "--drops"]).0);
    }
}

/// The lab's own configuration, with a service for iperf3 and one without servers.
fn with_more_services(lab: &TestLab) {
    let mut text = lab.config();
    for (vip, server) in [("192.0.2.10", "10.0.0.2"), ("[2001:db8::10]", "[fd00::2]")] {
        text.push_str(&format!(
            "\n[[service]]\nprotocol = \"udp\"\naddress = \"{vip}:99\"\nvip = \"manage\"\n\
             \n[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:5201\"\nvip = \"manage\"\n\
             \n[[service.server]]\naddress = \"{server}:5201\"\n"
        ));
    }
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
}

/// Everything that clients do, on one path with one shape of lab.
fn all_traffic(path: &str, shape: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "2", "--path", path], shape].concat());
    with_more_services(&lab);
    let interfaces = lab.json(&["status", "--json"])["interfaces"].as_array().unwrap().clone();
    assert!(interfaces.iter().all(|i| i["path"] == path), "{interfaces:?}");
    assert_eq!(interfaces.len(), if shape.contains(&"--one-arm") { 1 } else { 2 });
    files_come_whole(&lab);
    echo_answers(&lab);
    probes_and_errors_are_answered(&lab);
    bulk_tcp_flows_both_ways(&lab);
}

#[test]
fn all_traffic_with_two_arms_on_tc_with_offloads() {
    all_traffic("tc", &[]);
}

#[test]
fn all_traffic_with_one_arm_on_tc_with_offloads() {
    all_traffic("tc", &["--one-arm"]);
}

#[test]
fn all_traffic_with_two_arms_on_native_xdp() {
    all_traffic("xdp", &["--no-offloads"]);
}

#[test]
fn all_traffic_with_one_arm_on_native_xdp() {
    all_traffic("xdp", &["--no-offloads", "--one-arm"]);
}

/// A thousand connections a second, for half a minute; afterwards every counter equals what can be counted.
#[test]
fn a_thousand_connections_a_second_leave_exact_counters() {
    const CONNECTIONS: u64 = 30_000;
    const TIME: Duration = Duration::from_secs(30);
    let lab = TestLab::up(&["--servers", "2"]);
    // Both at least: a slow machine takes longer, a fast one opens more.
    let (mut requests, mut runs) = (0, 0);
    let begun = Instant::now();
    while requests < CONNECTIONS || begun.elapsed() < TIME {
        assert!(begun.elapsed() < 3 * TIME, "{requests} connections in {:?}", begun.elapsed());
        let report = lab.sh("client", "wrk -t1 -c20 -d10s -H 'Connection: close' http://192.0.2.10/");
        let line = report.lines().find_map(|line| line.trim().split_once(" requests in "));
        requests += line.unwrap_or_else(|| panic!("{report}")).0.parse::<u64>().unwrap();
        runs += 1;
    }
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
    assert!(opened >= requests && opened <= requests + 40 * runs, "{opened} opened, {requests} answered");
}
