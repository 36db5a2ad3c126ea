//! The whole thing: real clients, the daemon, real servers, in a lab. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use std::time::{Duration, Instant};

#[test]
fn clients_reach_servers_by_the_virtual_address() {
    let lab = TestLab::up(&["--servers", "2"]);
    for url in ["http://192.0.2.10/", "http://[2001:db8::10]/"] {
        let mut answers: Vec<_> = (0..4).map(|_| lab.curl(url)).collect();
        answers.sort();
        assert_eq!(answers, ["server1", "server1", "server2", "server2"], "{url}");
    }
    for vip in ["UDP4:192.0.2.10:7", "UDP6:[2001:db8::10]:7"] {
        let echo = format!("echo hello | socat -t2 - {vip}");
        assert_eq!(lab.on("client", &["sh", "-c", &echo]), "hello", "{vip}");
    }
    let stats = lab.json(&["stats", "--json"]);
    let counted = |address: &str| {
        let services = stats["services"].as_array().unwrap();
        let service = services.iter().find(|s| s["address"] == address && s["protocol"] == "tcp").unwrap();
        service["counters"]["connections"].as_u64().unwrap()
    };
    assert_eq!([counted("192.0.2.10:80"), counted("[2001:db8::10]:80")], [4, 4]);
    let connections = lab.json(&["connection", "list", "--json"]);
    assert_eq!(connections["connections"].as_array().unwrap().len(), 10);
    let status = lab.json(&["status", "--json"]);
    let names: Vec<_> = status["interfaces"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c0", "r0"]);
    assert_eq!(status["problems"].as_array().unwrap().len(), 0, "{status}");
    assert!(status["virtual_addresses"].as_array().unwrap().iter().all(|v| v["holder"] == "lo"), "{status}");
}

#[test]
fn one_arm_and_generic_xdp_work_too() {
    let lab = TestLab::up(&["--servers", "2", "--one-arm", "--path", "xdp-generic", "--no-offloads"]);
    for url in ["http://192.0.2.10/", "http://[2001:db8::10]/"] {
        let mut answers: Vec<_> = (0..2).map(|_| lab.curl(url)).collect();
        answers.sort();
        assert_eq!(answers, ["server1", "server2"], "{url}");
    }
    assert_eq!(lab.json(&["status", "--json"])["interfaces"][0]["path"], "xdp-generic");
}

/// The daemon is killed while a file is being transferred; without it forwarding goes on, and a new one takes over with
/// connections and counters.
#[test]
fn a_killed_daemon_costs_no_byte_and_no_count() {
    let lab = TestLab::up(&["--servers", "1"]);
    let sum = lab.publish("file", 64 << 20);
    // Ten seconds at this rate.
    let get = "curl -sS --limit-rate 12M http://192.0.2.10/file | sha256sum";
    let transfer = lab.start("client", &["sh", "-c", get]);
    std::thread::sleep(Duration::from_millis(800));
    lab.kill_daemon();
    assert_eq!(lab.curl("http://192.0.2.10/"), "server1", "forwarding goes on, new connections too");
    let (text, said) = lab.dirigent(&["stats", "--json"]);
    assert!(said.contains("no daemon"), "{said}");
    let before: serde_json::Value = serde_json::from_str(&text).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    lab.start_daemon();
    let after = lab.json(&["stats", "--json"]);
    let counter = |stats: &serde_json::Value, name: &str| {
        stats["services"][0]["counters"][name].as_u64().unwrap_or_else(|| panic!("{stats}"))
    };
    for name in ["connections", "in_packets", "out_bytes"] {
        assert!(counter(&after, name) >= counter(&before, name), "{name} was reset");
    }
    assert_eq!(counter(&after, "connections"), 2);
    assert_eq!(lab.json(&["status", "--json"])["daemon"]["took_over"], true);
    let output = transfer.wait_with_output().unwrap();
    let got = String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned();
    assert_eq!(got, sum, "the file came whole");
    let ended = lab.json(&["connection", "list", "--json"]);
    assert_eq!(ended["connections"].as_array().unwrap().len(), 2, "{ended}");
}

#[test]
fn reload_goes_to_what_the_file_says_and_a_mistake_changes_nothing() {
    let lab = TestLab::up(&["--servers", "2"]);
    let text = lab.config();
    assert!(lab.dirigent(&["reload"]).0.contains("nothing to do"));
    lab.write_config(&text.replace("address = \"10.0.0.3:8080\"", "address = \"10.0.0.3:8080\"\nweight = 0"));
    let (told, _) = lab.dirigent(&["reload"]);
    assert!(told.contains("edit server 10.0.0.3:8080 method nat weight 0 of tcp 192.0.2.10:80"), "{told}");
    for _ in 0..4 {
        assert_eq!(lab.curl("http://192.0.2.10/"), "server1");
    }
    lab.write_config(&format!("{text}\nnonsense = 1\n"));
    let failed = lab.dirigent_fails(&["reload"]);
    assert_eq!(failed.0, 3, "{}", failed.1);
    assert!(failed.1.contains("nonsense"), "{}", failed.1);
    assert_eq!(lab.curl("http://192.0.2.10/"), "server1");
    // A service that goes takes its managed address along.
    let (without, _) = text.split_once("[[service]]\nprotocol = \"tcp\"\naddress = \"[").unwrap();
    lab.write_config(without);
    lab.dirigent(&["reload"]);
    let addresses = lab.on("director", &["ip", "-br", "address", "show", "lo"]);
    assert!(addresses.contains("192.0.2.10") && !addresses.contains("2001:db8::10"), "{addresses}");
}

#[test]
fn stop_detach_leaves_nothing_with_and_without_a_daemon() {
    for kill in [false, true] {
        let lab = TestLab::up(&["--servers", "1"]);
        assert!(lab.pins().exists());
        if kill {
            lab.kill_daemon();
        }
        // In the director's namespace: without a daemon the command itself removes the addresses there.
        lab.on("director", &["dirigent", "stop", "--detach"]);
        assert!(!lab.pins().exists(), "pins are left");
        let addresses = lab.on("director", &["ip", "-br", "address", "show", "lo"]);
        assert!(!addresses.contains("192.0.2.10"), "{addresses}");
        assert!(lab.dirigent_fails(&["status"]).1.contains("there is no director"));
        assert!(!lab.on("director", &["ip", "-d", "link", "show", "c0"]).contains("xdp"));
    }
}

#[test]
fn the_walk_shows_all_four_stages_and_who_refuses_the_way_around() {
    let lab = TestLab::up(&["--servers", "2"]);
    let (walk, _) = lab.dirigent_lab("walk", &["--around"]);
    for line in [
        "A 198.51.100.7:40000 → B 192.0.2.10:80",
        "director NAT: A → C 10.0.0.",
        "C → A",
        "director un-NAT: B → A",
        "A refuses",
        "resets sent",
        "nothing came from C",
        "packets dropped as invalid",
    ] {
        assert!(walk.contains(line), "{line:?} is not in:\n{walk}");
    }
    let (walk, _) = lab.dirigent_lab("walk", &["--family", "6"]);
    assert!(walk.contains("→ B [2001:db8::10]:80"), "{walk}");
    assert_eq!(lab.curl("http://192.0.2.10/").len(), "server1".len(), "routes are as before");
}

#[test]
fn sigterm_leaves_forwarding_in_place_and_says_so() {
    let lab = TestLab::up(&["--servers", "1"]);
    let config = std::path::Path::new(dirigent_net::lab::DIRECTORY).join(lab.name()).join("dirigent.toml");
    let second = lab.dirigent_fails(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(second.0, 1);
    assert!(second.1.contains("runs already"), "{}", second.1);
    lab.signal_daemon("-TERM");
    assert!(lab.log().contains("forwarding goes on"), "{}", lab.log());
    assert_eq!(lab.curl("http://192.0.2.10/"), "server1");
    let (text, said) = lab.dirigent(&["status"]);
    assert!(text.contains("without a daemon") && said.contains("no daemon"), "{text}{said}");
}

/// Within a second each: a link that goes down and up, is renamed, and goes and comes back under another number.
#[test]
fn links_that_go_return_or_are_renamed_are_followed() {
    let lab = TestLab::up(&["--servers", "1"]);
    let name = lab.name();
    lab.sh("director", "ip link set r0 down; sleep 0.3; ip link set r0 up; ip -6 addr add fd00::1/64 dev r0 nodad");
    eventually(&lab, "http://192.0.2.10/");
    eventually(&lab, "http://[2001:db8::10]/");

    lab.sh("director", "ip link set r0 down; ip link set r0 name inside; ip link set inside up");
    eventually(&lab, "http://192.0.2.10/");
    let names = |lab: &TestLab| {
        let status = lab.json(&["status", "--json"]);
        let all = status["interfaces"].as_array().unwrap().iter();
        all.map(|i| i["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&lab), ["c0", "inside"]);

    lab.sh("director", "ip link delete c0");
    let veth = format!("ip link add c0 type veth peer name outside0 netns {name}-router");
    lab.sh("director", &format!("{veth}; ip addr add 203.0.113.2/30 dev c0; ip link set c0 up"));
    let back = "ip addr add 203.0.113.1/30 dev outside0; ip link set outside0 up; ip route replace 192.0.2.0/24 via 203.0.113.2";
    lab.sh("router", back);
    lab.sh("director", "ip route replace default via 203.0.113.1");
    eventually(&lab, "http://192.0.2.10/");
    assert_eq!(names(&lab).len(), 2);
}

/// Answers come again within a second (and the time of an attempt).
fn eventually(lab: &TestLab, url: &str) {
    let begun = Instant::now();
    let try_it = format!("curl -sS -g --max-time 0.3 {url} || true");
    while lab.sh("client", &try_it) != "server1" {
        assert!(begun.elapsed() < Duration::from_millis(1500), "{url}: {}", lab.log());
    }
}

/// The group of the socket may look and not touch.
#[test]
fn the_sockets_group_may_read_only() {
    let lab = TestLab::up(&["--servers", "1"]);
    let text = lab.config();
    lab.write_config(&text.replace("[director]\n", "[director]\ngroup = \"nogroup\"\n"));
    lab.signal_daemon("-TERM");
    lab.start_daemon();
    let as_nobody = |command: &str| {
        // From a place that anyone may execute.
        let dirigent = std::env::temp_dir().join(format!("dirigent-{}", lab.name()));
        std::fs::copy(env!("CARGO_BIN_EXE_dirigent"), &dirigent).unwrap();
        let argv = format!("setpriv --reuid 65534 --regid 65534 --clear-groups {} {command}", dirigent.display());
        let output = lab.sh("director", &format!("{argv} 2>&1 || echo failed"));
        std::fs::remove_file(&dirigent).unwrap();
        output
    };
    assert!(as_nobody("status").contains("forwarding"));
    assert!(as_nobody("service list").contains("192.0.2.10:80"));
    let refused = as_nobody("reload");
    assert!(
        refused.contains("only root and members of the group `operators` may change") && refused.contains("failed"),
        "{refused}"
    );
}

/// The sweep removes idle connections by itself, and the counts go down with them; a timeout changes for those there are.
#[test]
fn idle_connections_expire_and_counts_return_to_zero() {
    let lab = TestLab::up(&["--servers", "2"]);
    lab.curl("http://192.0.2.10/");
    lab.curl("http://[2001:db8::10]/");
    lab.sh("client", "echo hello | socat -t1 - UDP4:192.0.2.10:7");
    let there = |lab: &TestLab| lab.json(&["connection", "list", "--json"])["connections"].as_array().unwrap().len();
    assert_eq!(there(&lab), 3);
    let timeouts = "[director.timeouts]\nudp = \"500ms\"\ntcp_time_wait = \"500ms\"\n\n[[service]]";
    lab.write_config(&lab.config().replacen("[[service]]", timeouts, 1));
    lab.dirigent(&["reload"]);
    let begun = Instant::now();
    while there(&lab) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "{}", lab.dirigent(&["connection", "list"]).0);
        std::thread::sleep(Duration::from_millis(50));
    }
    let servers = lab.json(&["server", "list", "--json"]);
    assert!(servers.as_array().unwrap().iter().all(|s| s["active"] == 0 && s["inactive"] == 0), "{servers}");
    assert_eq!(lab.json(&["status", "--json"])["connections"]["used"], 0);
}

/// What is managed is kept: an address that someone removes is there again at once.
#[test]
fn a_managed_address_that_is_removed_comes_back() {
    let lab = TestLab::up(&["--servers", "1"]);
    lab.sh("director", "ip address del 192.0.2.10/32 dev lo");
    eventually(&lab, "http://192.0.2.10/");
    let addresses = lab.sh("director", "sleep 0.2; ip -br address show lo");
    assert!(addresses.contains("192.0.2.10"), "{addresses}");
}

/// A daemon that starts while a link is down keeps to the interfaces of the one before it; one whose configuration names
/// other interfaces leaves them.
#[test]
fn a_new_daemon_keeps_the_interfaces_of_the_old_one() {
    let lab = TestLab::up(&["--servers", "1"]);
    lab.kill_daemon();
    lab.sh("director", "ip link set c0 down");
    lab.start_daemon();
    lab.sh("director", "ip link set c0 up; ip route replace default via 203.0.113.1");
    eventually(&lab, "http://192.0.2.10/");
    lab.kill_daemon();
    lab.write_config(&lab.config().replace("[director]\n", "[director]\ninterfaces = [\"r0\"]\n"));
    lab.start_daemon();
    let interfaces = lab.json(&["status", "--json"])["interfaces"].clone();
    assert_eq!(interfaces.as_array().unwrap().len(), 1, "{interfaces}");
    lab.signal_daemon("-TERM");
    let interfaces = lab.json(&["status", "--json"])["interfaces"].clone();
    assert_eq!(interfaces.as_array().unwrap().len(), 1, "as the pins tell it: {interfaces}");
}
