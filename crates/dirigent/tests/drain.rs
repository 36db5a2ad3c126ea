//! Servers that go and come without harm: drains, with transfers and persistent clients, and slow starts. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{TestLab, read_slowly};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const VIPS: [&str; 2] = ["192.0.2.10", "[2001:db8::10]"];

/// A server of the web service of this virtual address.
fn server(lab: &TestLab, vip: &str, which: impl Fn(&Value) -> bool) -> Option<Value> {
    let servers = lab.json(&["server", "list", "--json"]);
    let own = |s: &&Value| s["service"] == format!("tcp {vip}:80") && which(s);
    servers.as_array().unwrap().iter().find(own).cloned()
}

fn named(lab: &TestLab, vip: &str, name: &str) -> Value {
    server(lab, vip, |s| s["address"] == name).unwrap()
}

/// Which server answers how many of so many requests.
fn answers(lab: &TestLab, vip: &str, count: usize) -> BTreeMap<String, usize> {
    let script = format!("for i in $(seq {count}); do curl -sS -g --max-time 5 http://{vip}/; done");
    let mut met = BTreeMap::new();
    lab.sh("client", &script).lines().for_each(|line| *met.entry(line.to_owned()).or_default() += 1);
    assert_eq!(met.values().sum::<usize>(), count, "{met:?}");
    met
}

/// `server2` of 10.0.0.3:8080.
fn host(server: &str) -> String {
    let last = server.trim_end_matches(":8080").trim_end_matches(']').rsplit(['.', ':']).next().unwrap();
    format!("server{}", last.parse::<u32>().unwrap() - 1)
}

fn drain(lab: &TestLab, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirigent"));
    command.args(["--instance", lab.name(), "server", "drain"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn transfers_survive_a_drain(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "3"], path].concat());
    // Or their ends would be waited for, two minutes each.
    let quick = "[director.timeouts]\ntcp_fin_wait = \"1s\"\ntcp_time_wait = \"1s\"\ntcp_close = \"1s\"\n\
                 tcp_last_ack = \"1s\"\ntcp_close_wait = \"1s\"\n\n[[service]]";
    let text = lab.config().replacen("[[service]]", quick, 1);
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    lab.publish("file", 8 << 20);
    let wanted = std::fs::read(lab.file("www").join("file")).unwrap();
    // Or much of the file waits at the client when the server has closed.
    lab.sh("client", "sysctl -qw net.ipv4.tcp_rmem='4096 65536 131072'");
    for vip in VIPS {
        let url = format!("http://{vip}/file");
        let begun = Instant::now();
        // Eight seconds.
        let get = ["curl", "-sSg", "--max-time", "60", &url];
        let transfer = read_slowly(lab.start("client", &get), Duration::from_millis(32));
        let busy = loop {
            if let Some(busy) = server(&lab, vip, |s| s["active"] == 1) {
                break busy["address"].as_str().unwrap().to_owned();
            }
            assert!(begun.elapsed() < Duration::from_secs(3), "no transfer");
            std::thread::sleep(Duration::from_millis(50));
        };
        let service = format!("tcp:{vip}:80");
        // Too short: it says what is left.
        let late = drain(&lab, &[&service, &busy, "--timeout", "1s"]).wait_with_output().unwrap();
        assert_eq!(late.status.code(), Some(5));
        let said = String::from_utf8_lossy(&late.stderr).into_owned();
        assert!(said.contains("1 connection (1 active, 0 inactive), 0 templates left"), "{said}");
        let waiting = drain(&lab, &[&service, &busy, "--timeout", "60s", "--json"]);
        let drained = named(&lab, vip, &busy);
        assert_eq!((&drained["state"], &drained["weight"]), (&Value::from("draining"), &Value::from(1)));
        assert_eq!(drained["effective_weight"], 0.0);
        let before = answers(&lab, vip, 9);
        assert!(!before.contains_key(&host(&busy)) && before.len() == 2, "{busy}: {before:?}");
        // What the file says does not undo it.
        lab.write_config(&text.replace("scheduler = \"rr\"", "scheduler = \"wrr\""));
        lab.dirigent(&["reload"]);
        let after = answers(&lab, vip, 9);
        assert!(!after.contains_key(&host(&busy)) && after.len() == 2, "{busy}: {after:?}");
        assert_eq!(named(&lab, vip, &busy)["counters"]["connections"], drained["counters"]["connections"]);
        assert!(!transfer.is_finished(), "it was to last longer");

        assert!(transfer.join().unwrap() == wanted, "the transfer comes whole");
        let done = waiting.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        let end: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(
            (&end["state"], &end["active"], &end["server"]),
            (&"drained".into(), &0.into(), &busy.clone().into())
        );

        // And back; after which nothing is left of it.
        lab.dirigent(&["server", "undrain", &service, &busy]);
        assert_eq!(named(&lab, vip, &busy)["state"], "available");
        assert_eq!(answers(&lab, vip, 9)[&host(&busy)], 3);
        lab.write_config(&text);
        lab.dirigent(&["reload"]);
    }
}

#[test]
fn transfers_survive_a_drain_on_tc() {
    transfers_survive_a_drain(&["--path", "tc"]);
}

#[test]
fn transfers_survive_a_drain_on_native_xdp() {
    transfers_survive_a_drain(&["--path", "xdp", "--no-offloads"]);
}

fn persistent_clients_move(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "3"], path].concat());
    let services: Vec<_> = lab.config().split("\n[[service.server]]").map(str::to_owned).collect();
    let persistent = |s: &String| {
        if s.contains("\"tcp\"") { format!("{s}\n[service.persistence]\ntimeout = \"10m\"\n") } else { s.clone() }
    };
    lab.write_config(&services.iter().map(persistent).collect::<Vec<_>>().join("\n[[service.server]]"));
    lab.dirigent(&["reload"]);
    for vip in VIPS {
        let first = answers(&lab, vip, 3);
        let own = server(&lab, vip, |s| s["templates"] == 1).unwrap()["address"].as_str().unwrap().to_owned();
        assert_eq!(first, BTreeMap::from([(host(&own), 3)]));
        let (told, _) = lab.dirigent(&["server", "drain", &format!("{vip}:80"), &own, "--no-wait"]);
        assert!(told.contains("weight 1 draining") && told.contains("1 template left"), "{told}");
        let (list, _) = lab.dirigent(&["service", "list"]);
        let line = list.lines().find(|line| line.contains(&own)).unwrap();
        assert!(line.contains("1 (0)") && line.ends_with("draining"), "{list}");
        if vip == VIPS[0] {
            // A daemon that dies does not end it.
            lab.kill_daemon();
            lab.start_daemon();
            assert_eq!(named(&lab, vip, &own)["state"], "draining");
        }
        // To one other, and there they stay, also when the drain ends.
        let moved = answers(&lab, vip, 4);
        assert!(moved.len() == 1 && !moved.contains_key(&host(&own)), "{moved:?}");
        lab.dirigent(&["server", "undrain", &format!("{vip}:80"), &own]);
        assert_eq!(answers(&lab, vip, 4), moved);
    }
}

#[test]
fn persistent_clients_move_on_tc() {
    persistent_clients_move(&["--path", "tc"]);
}

#[test]
fn persistent_clients_move_on_native_xdp() {
    persistent_clients_move(&["--path", "xdp", "--no-offloads"]);
}

#[test]
fn drains_that_cannot_be_are_refused() {
    let lab = TestLab::up(&["--servers", "2"]);
    let (code, said) = lab.dirigent_fails(&["server", "drain", "192.0.2.99:80", "10.0.0.2"]);
    assert!(code == 7 && said.contains("there is no such service") && said.contains("tcp 192.0.2.10:80"), "{said}");
    let (code, said) = lab.dirigent_fails(&["server", "drain", "192.0.2.10:80", "10.0.0.9"]);
    assert!(code == 7 && said.contains("has no such real server") && said.contains("10.0.0.3:8080"), "{said}");
    assert_eq!(lab.dirigent_fails(&["server", "drain", "192.0.2.10:80", "10.0.0.2", "--timeout", "5"]).0, 2);
    // The last one that took connections: done, and said.
    lab.dirigent(&["server", "drain", "192.0.2.10:80", "10.0.0.2"]);
    let (_, said) = lab.dirigent(&["server", "drain", "192.0.2.10:80", "10.0.0.3"]);
    assert!(said.contains("no server of tcp 192.0.2.10:80 takes new connections now"), "{said}");
    lab.kill_daemon();
    let (code, said) = lab.dirigent_fails(&["server", "undrain", "192.0.2.10:80", "10.0.0.2"]);
    assert!(code == 1 && said.contains("no daemon listens"), "{said}");
}

/// A server that is added gets its share little by little, through a new daemon too.
fn a_server_starts_slowly(path: &[&str]) {
    const TIME: u32 = 12;
    let lab = TestLab::up(&[&["--servers", "2"], path].concat());
    let whole = lab.config();
    let slow = format!("scheduler = \"wrr\"\nslow_start = \"{TIME}s\"");
    let whole = whole.replace("scheduler = \"rr\"", &slow);
    let second = "\n[[service.server]]\naddress = \"10.0.0.3:8080\"\n";
    assert_eq!(whole.matches(second).count(), 1);
    lab.write_config(&whole.replace(second, ""));
    lab.dirigent(&["reload"]);
    let effective = || {
        let server = named(&lab, VIPS[0], "10.0.0.3:8080");
        assert_eq!(server["weight"], 1);
        (server["effective_weight"].as_f64().unwrap(), server["state"].as_str().unwrap().to_owned())
    };
    lab.write_config(&whole);
    lab.dirigent(&["reload"]);
    let begun = Instant::now();
    let (weight, state) = effective();
    assert!(weight < 0.2 && state == "starting", "{weight} {state}");
    // 16 of the old one's for each of the new one's, and the first of them comes last.
    let met = answers(&lab, VIPS[0], 16);
    assert!(met.get("server2").copied().unwrap_or(0) <= 4, "{met:?}");
    let mut last = weight;
    while begun.elapsed() < Duration::from_secs(u64::from(TIME) / 2) {
        let (weight, _) = effective();
        assert!(weight >= last, "{weight} after {last}");
        last = weight;
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!((0.25..0.75).contains(&last), "half of its weight after half of the time: {last}");
    lab.kill_daemon();
    let (left, state) = effective();
    assert!(left >= last && state == "starting");
    lab.start_daemon();
    // While there was none, no time has passed.
    let begun = Instant::now();
    let (weight, _) = effective();
    assert!((left..left + 0.3).contains(&weight), "a new daemon goes on from {left}: {weight}");
    while effective().1 == "starting" {
        assert!(begun.elapsed() < Duration::from_secs(u64::from(TIME)));
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(effective(), (1.0, "available".to_owned()));
    assert_eq!(answers(&lab, VIPS[0], 10), BTreeMap::from([("server1".into(), 5), ("server2".into(), 5)]));
}

#[test]
fn a_server_starts_slowly_on_tc() {
    a_server_starts_slowly(&["--path", "tc"]);
}

#[test]
fn a_server_starts_slowly_on_native_xdp() {
    a_server_starts_slowly(&["--path", "xdp", "--no-offloads"]);
}
