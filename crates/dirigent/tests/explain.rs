//! `dirigent explain`: what it says of packets is what becomes of them. Needs root.

mod common;

use common::{BIN, TestLab};
use serde_json::Value;
use std::time::{Duration, Instant};

const CLIENT: &str = "198.51.100.7:40000";
const VIP: &str = "192.0.2.10:80";

fn explained(lab: &TestLab, args: &[&str]) -> Value {
    lab.json(&[&["explain"], args, &["--json"]].concat())
}

fn steps(told: &Value) -> String {
    told["steps"].as_array().unwrap().iter().map(|step| format!("{}\n", step.as_str().unwrap())).collect()
}

/// A new connection, the connection that is there, the answer, and what leads nowhere.
#[test]
fn what_it_says_comes_true() {
    let lab = TestLab::up(&["--servers", "2"]);
    let new = explained(&lab, &["tcp", CLIENT, VIP]);
    assert_eq!((new["reason"].as_str(), new["kind"].as_str()), (Some("request"), Some("forwarded")), "{new:#}");
    let story = steps(&new);
    for part in [
        "no connection tcp 198.51.100.7:40000 → 192.0.2.10:80",
        "virtual service tcp 192.0.2.10:80, scheduler ",
        "192.0.2.10 is an address of this host",
        "considers 10.0.0.3:8080: weight 1, 0 active and 0 inactive connections",
        "opens tcp 198.51.100.7:40000 → 192.0.2.10:80 with server 10.0.0.",
        " is reached by r0, at ",
    ] {
        assert!(story.contains(part), "{part:?} is not in\n{story}");
    }
    let sent = &new["sent"][0];
    assert_eq!(sent["interface"], "r0");
    let packet = sent["packet"].as_str().unwrap();
    assert!(packet.starts_with("tcp 198.51.100.7:40000 → 10.0.0.") && packet.ends_with(":8080 [SYN]"), "{packet}");
    // Nothing happened by it.
    assert!(!lab.dirigent(&["connection", "list"]).0.contains("40000"));

    // A real one.
    let mut curl = lab.start("client", &["socat", "-T", "20", "-", "TCP4:192.0.2.10:80,bind=198.51.100.7:40000"]);
    let begun = Instant::now();
    while !lab.dirigent(&["connection", "list"]).0.contains("198.51.100.7:40000") {
        assert!(begun.elapsed() < Duration::from_secs(10), "no connection\n{}", lab.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let known = explained(&lab, &["tcp", CLIENT, VIP, "--flags", "ack"]);
    let story = steps(&known);
    assert!(story.contains("connection tcp 198.51.100.7:40000 → 192.0.2.10:80 of server 10.0.0."), "{story}");
    assert_eq!(known["reason"], "request", "{known:#}");
    let server = known["sent"][0]["packet"].as_str().unwrap().split(" → ").nth(1).unwrap();
    let server = server.split(' ').next().unwrap().to_owned();
    let answer = explained(&lab, &["tcp", &server, CLIENT, "--flags", "ack,psh", "--length", "100"]);
    assert_eq!(answer["reason"], "reply", "{answer:#}");
    assert_eq!(answer["sent"][0]["packet"], "tcp 192.0.2.10:80 → 198.51.100.7:40000 [PSH ACK]", "{answer:#}");
    let _ = curl.kill();
    let _ = curl.wait();

    let nowhere = explained(&lab, &["udp", CLIENT, "192.0.2.10:9"]);
    assert_eq!((nowhere["reason"].as_str(), nowhere["kind"].as_str()), (Some("no_service"), Some("passed")));
    let six = explained(&lab, &["udp", "[2001:db8:7::7]:4000", "[2001:db8::10]:53", "--interface", "c0"]);
    assert_eq!(six["interface"], "c0", "{six:#}");

    let (text, _) = lab.dirigent(&["explain", "tcp", CLIENT, VIP]);
    assert!(text.contains("forwarded: A client's packet went to its real server. (request)"), "{text}");
}

/// Without a daemon it is read from the pinned maps; mistakes are named.
#[test]
fn it_needs_no_daemon_and_names_mistakes() {
    let lab = TestLab::up(&["--servers", "1"]);
    for (args, code, says) in [
        (["tcp", CLIENT, "[2001:db8::10]:80", "--mark", "0"], 3, "are not of one family"),
        (["tcp", CLIENT, VIP, "--interface", "none0"], 3, "there is no such interface"),
        (["tcp", "192.0.2.77:1", VIP, "--flags", "urgent"], 2, "urgent"),
        (["icmp", CLIENT, VIP, "--mark", "0"], 2, "it is tcp, udp or sctp"),
    ] {
        let (got, refused) = lab.dirigent_fails(&[&["explain"], &args[..]].concat());
        assert!(got == code && refused.contains(says), "{args:?}: {got}, {refused}");
    }
    lab.kill_daemon();
    let told = lab.on("director", &[BIN, "--instance", lab.name(), "explain", "tcp", CLIENT, VIP, "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"));
    assert_eq!((told["reason"].as_str(), told["interface"].as_str()), (Some("request"), Some("c0")), "{told:#}");
}
