//! Real programs through the director, on every packet path and both families. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use common::traffic::{self, NAT};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Everything that clients do, on one path with one shape of lab.
fn all_traffic(path: &str, shape: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "2", "--path", path], shape].concat());
    traffic::add_services(&lab, NAT);
    let _listeners = traffic::Listeners::start(&lab, NAT);
    let interfaces = lab.json(&["status", "--json"])["interfaces"].as_array().unwrap().clone();
    assert!(interfaces.iter().all(|i| i["path"] == path), "{interfaces:?}");
    assert_eq!(interfaces.len(), if shape.contains(&"--one-arm") { 1 } else { 2 });
    traffic::probes_and_errors_are_answered(&lab);
    for mtu in [1500, 1400] {
        traffic::narrow_servers(&lab, mtu);
        traffic::files_come_whole(&lab);
        traffic::datagrams_of_every_size(&lab);
        traffic::bulk_flows_both_ways(&lab);
    }
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
    // Entries expire between two commands: counts are compared once no connection went meanwhile.
    let mut opened = None;
    common::until(&lab, "counts equal the list", TIME, || {
        opened = settled(&lab);
        opened.is_some()
    });
    let opened = opened.unwrap();
    // wrk leaves up to one unfinished request on each of its connections.
    assert!(opened >= requests && opened <= requests + 40 * runs, "{opened} opened, {requests} answered");
}

/// Connections that web servers were given in all, if each one's count of entries equals those that are listed.
fn settled(lab: &TestLab) -> Option<u64> {
    let listed = lab.json(&["connection", "list", "--json", "--limit", "1000000"]);
    let servers = lab.json(&["server", "list", "--json"]);
    let of = |server: &Value, wanted: bool| {
        let states = ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"];
        let connections = listed["connections"].as_array().unwrap().iter();
        connections
            .filter(|c| c["server"] == server["address"] && c["protocol"] == "tcp")
            .filter(|c| states.contains(&c["state"].as_str().unwrap()) == wanted)
            .count() as u64
    };
    let mut opened = 0;
    for server in servers.as_array().unwrap().iter().filter(|server| server["service"] == "tcp 192.0.2.10:80") {
        let counted = ["active", "inactive"].map(|key| server[key].as_u64().unwrap());
        if counted != [of(server, true), of(server, false)] {
            return None;
        }
        opened += server["counters"]["connections"].as_u64().unwrap();
    }
    Some(opened)
}
