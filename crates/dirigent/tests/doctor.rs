//! `dirigent doctor`: silent where all is well; where something is broken it finds that, and nothing else, and what it
//! says helps. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{BIN, TestLab};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// Neighbours that are gone are known to be so after some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Exit code and answer.
fn doctor(lab: &TestLab, args: &[&str]) -> (i32, Value) {
    let mut command = Command::new(BIN);
    command.args(["lab", "exec", "--name", lab.name(), "director", "--", BIN, "--instance", lab.name(), "doctor"]);
    let output = command.args(args).arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}\n{error}\n{}", lab.log()));
    (output.status.code().unwrap(), value)
}

fn findings(answer: &Value) -> Vec<(String, String)> {
    let all = answer["findings"].as_array().unwrap().iter();
    all.map(|f| (f["name"].as_str().unwrap().to_owned(), f["place"].as_str().unwrap().to_owned())).collect()
}

fn is_healthy(lab: &TestLab, ways: usize) {
    let (code, answer) = doctor(lab, &[]);
    assert_eq!((code, findings(&answer)), (0, Vec::new()), "{answer:#}");
    let paths = answer["paths"].as_array().unwrap();
    assert!(paths.len() == ways && paths.iter().all(|path| path["right"] == true), "{answer:#}");
}

/// The command on a host; `$BIN` and `$STATE` stand for the program, and what it noted of that server.
fn sh(lab: &TestLab, host: &str, script: &str) {
    let state = lab.file(&format!("{host}-realserver.json")).display().to_string();
    let _ = lab.sh(host, &script.replace("$BIN", BIN).replace("$STATE", &state));
}

/// What breaks a lab, what is found then (name and place), and what heals it; none: what the doctor says.
type Break = (&'static str, &'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

/// Each breaks the lab, is found with evidence, rule and remedy, and with what helps the lab is as it was.
fn breaks(lab: &TestLab, ways: usize, all: &[Break]) {
    is_healthy(lab, ways);
    for (host, script, expected, healed) in all {
        sh(lab, host, script);
        let expected: Vec<_> = expected.iter().map(|(name, place)| ((*name).to_owned(), (*place).to_owned())).collect();
        let begun = Instant::now();
        let (code, answer) = loop {
            let (code, answer) = doctor(lab, &[]);
            let mut found = findings(&answer);
            found.sort();
            if found == expected {
                break (code, answer);
            }
            assert!(begun.elapsed() < PATIENCE, "{script} on {host}: {answer:#}\n{}", lab.log());
        };
        let errors = answer["findings"].as_array().unwrap().iter().any(|finding| finding["severity"] == "error");
        assert_eq!(code, if errors { 1 } else { 9 }, "{answer:#}");
        for finding in answer["findings"].as_array().unwrap() {
            assert!(!finding["evidence"].as_array().unwrap().is_empty(), "{finding:#}");
            for word in ["what", "rule", "remedy"] {
                assert_ne!(finding[word], "", "{finding:#}");
            }
        }
        match healed {
            Some(script) => sh(lab, host, script),
            None => {
                for command in
                    answer["findings"].as_array().unwrap().iter().flat_map(|f| f["commands"].as_array().unwrap())
                {
                    let on = command["host"].as_str().unwrap();
                    let server = ["10.0.0.2", "fd00::2"].contains(&on);
                    let said = command["command"].as_str().unwrap();
                    let said = match said.strip_prefix("dirigent realserver setup") {
                        Some(rest) => format!("$BIN realserver setup --yes --state $STATE{rest}"),
                        None => said.to_owned(),
                    };
                    sh(lab, if server { "server1" } else { "director" }, &said);
                }
            }
        }
        let begun = Instant::now();
        while doctor(lab, &[]).0 != 0 {
            assert!(begun.elapsed() < PATIENCE, "after {script} on {host}: {:#}", doctor(lab, &[]).1);
        }
        is_healthy(lab, ways);
    }
}

const WEB4: &str = "server 10.0.0.2:8080 of tcp 192.0.2.10:80";
const WEB6: &str = "server [fd00::2]:8080 of tcp [2001:db8::10]:80";
const DIRECT4: &str = "server 10.0.0.2:80 of tcp 192.0.2.10:80";
const DIRECT6: &str = "server [fd00::2]:80 of tcp [2001:db8::10]:80";

#[test]
fn it_says_nothing_of_healthy_nat() {
    for path in ["tc", "xdp"] {
        is_healthy(&TestLab::up(&["--servers", "2", "--path", path]), 4);
    }
    is_healthy(&TestLab::up(&["--servers", "2", "--one-arm"]), 4);
}

#[test]
fn it_says_nothing_of_healthy_direct_routing() {
    for args in [&["--path", "tc"][..], &["--path", "xdp"], &["--one-arm"]] {
        is_healthy(&TestLab::up(&[&["--servers", "2", "--mode", "dr"], args].concat()), 4);
    }
}

#[test]
fn it_says_nothing_of_healthy_tunnels() {
    for kind in ["ipip", "gre", "gue"] {
        is_healthy(&TestLab::up(&["--servers", "1", "--mode", "tun", "--tunnel", kind]), 2);
    }
    is_healthy(&TestLab::up(&["--servers", "1", "--mode", "tun", "--path", "xdp"]), 2);
}

#[test]
fn what_breaks_nat_is_found() {
    let lab = TestLab::up(&["--servers", "1"]);
    let around = "ip route replace default via 10.0.0.254";
    let both = "ip route replace default via 10.0.0.254; ip -6 route replace default via fd00::254";
    breaks(
        &lab,
        2,
        &[
            ("server1", around, &[("replies_bypass", WEB4)], None),
            ("server1", both, &[("replies_bypass", WEB4), ("replies_bypass", WEB6)], None),
            ("server1", "ip -6 route del default", &[("replies_bypass", WEB6)], None),
            (
                "server1",
                "nft 'add table inet gone; add chain inet gone input { type filter hook input priority 0; }; \
                 add rule inet gone input tcp dport 8080 reject with tcp reset'",
                &[("port_closed", WEB4), ("port_closed", WEB6)],
                Some("nft delete table inet gone"),
            ),
            (
                "server1",
                "nft 'add table ip gone; add chain ip gone input { type filter hook input priority 0; }; \
                 add rule ip gone input drop'",
                &[("server_down", WEB4)],
                Some("nft delete table ip gone"),
            ),
            (
                "server1",
                "ip address del 10.0.0.2/24 dev eth0",
                &[("neighbour", "server 10.0.0.2")],
                Some("ip address add 10.0.0.2/24 dev eth0; ip route add default via 10.0.0.1"),
            ),
            (
                "director",
                "ip route add unreachable 10.0.0.2/32",
                &[("no_route", "server 10.0.0.2")],
                Some("ip route del unreachable 10.0.0.2/32"),
            ),
        ],
    );
}

/// Shown first, changed when it is agreed to, and taken back.
#[test]
fn it_mends_this_host_and_takes_it_back() {
    let lab = TestLab::up(&["--servers", "1", "--one-arm"]);
    let read = || lab.on("director", &["cat", "/proc/sys/net/ipv4/conf/eth0/send_redirects"]);
    lab.sh("director", "sysctl -qw net.ipv4.conf.eth0.send_redirects=1");
    let (code, answer) = doctor(&lab, &[]);
    assert_eq!(
        (code, findings(&answer)),
        (9, vec![("redirects".to_owned(), "interface eth0".to_owned())]),
        "{answer:#}"
    );
    let (code, shown) = doctor(&lab, &["--fix", "--dry-run"]);
    assert_eq!((code, shown[0]["what"].as_str()), (9, Some("net.ipv4.conf.eth0.send_redirects 1 → 0")), "{shown:#}");
    assert_eq!(read(), "1");
    let (code, done) = doctor(&lab, &["--fix", "--yes"]);
    assert_eq!((code, &done[0]["done"]), (0, &Value::from(true)), "{done:#}");
    assert_eq!(read(), "0");
    is_healthy(&lab, 2);
    let (code, back) = doctor(&lab, &["--undo", "--yes"]);
    assert_eq!((code, back[0].as_str()), (0, Some("net.ipv4.conf.eth0.send_redirects 0 → 1")), "{back:#}");
    assert_eq!(read(), "1");
}

#[test]
fn what_breaks_direct_routing_is_found() {
    let lab = TestLab::up(&["--servers", "1", "--mode", "dr"]);
    breaks(
        &lab,
        2,
        &[
            ("server1", "ip address del 192.0.2.10/32 dev lo", &[("no_virtual_address", DIRECT4)], None),
            ("server1", "ip address del 2001:db8::10/128 dev lo", &[("no_virtual_address", DIRECT6)], None),
            (
                "server1",
                "sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0",
                &[("server_answers_arp", "virtual address 192.0.2.10")],
                None,
            ),
            (
                "router",
                "ip address add 192.0.2.10/32 dev servers0",
                &[("second_director", "virtual address 192.0.2.10")],
                Some("ip address del 192.0.2.10/32 dev servers0"),
            ),
        ],
    );
}

#[test]
fn what_breaks_tunnels_is_found() {
    let lab = TestLab::up(&["--servers", "1", "--mode", "tun", "--tunnel", "gue"]);
    breaks(
        &lab,
        2,
        &[
            ("server1", "ip address del 192.0.2.10/32 dev lo", &[("no_tunnel_end", DIRECT4)], None),
            (
                "server1",
                "$BIN realserver undo --yes --state $STATE",
                &[("no_tunnel_end", DIRECT4), ("no_tunnel_end", DIRECT6)],
                None,
            ),
            (
                "director",
                "ip link set r0 mtu 1300",
                &[("tunnel_mtu", "server fd00::2")],
                Some("ip link set r0 mtu 1500"),
            ),
        ],
    );
}

#[test]
fn it_looks_at_one_service_or_server_and_names_mistakes() {
    let lab = TestLab::up(&["--servers", "2"]);
    lab.sh("server1", "ip route replace default via 10.0.0.254");
    for (about, ways, found) in [("tcp:192.0.2.10:80", 2, 1), ("10.0.0.3:8080", 1, 0), ("10.0.0.2:8080", 1, 1)] {
        let (code, answer) = doctor(&lab, &[about]);
        assert_eq!((code, answer["paths"].as_array().unwrap().len()), (found, ways), "{about}: {answer:#}");
    }
    let (code, error) = lab.dirigent_fails(&["doctor", "10.9.9.9:80"]);
    assert!(code == 7 && error.contains("`dirigent server list` names them"), "{code}: {error}");
    let mut command = Command::new(BIN);
    let output = command.args(["--instance", lab.name(), "doctor"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "error: server 10.0.0.2:8080 of tcp 192.0.2.10:80: timeout: it takes connections by its own address",
        "[replies_bypass]",
        "  seen   sent a SYN to 10.0.0.2, port 8080, by r0 to 02:00:00:00:03:01: timeout",
        "  do     on 10.0.0.2: ip route replace default via 10.0.0.1",
        "4 ways tried, 3 right; 1 error, 0 warnings",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
