//! A daemon that is not root's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{BIN, TestLab};
use std::time::{Duration, Instant};

/// CAP_NET_ADMIN (12), CAP_NET_RAW (13), CAP_PERFMON (38) and CAP_BPF (39).
const FOUR: &str = "000000c000003000";

/// A line of /proc/PID/status.
fn status(pid: &str, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

fn pid(lab: &TestLab) -> String {
    lab.json(&["status", "--json"])["daemon"]["pid"].to_string()
}

fn is_unprivileged(lab: &TestLab) {
    let pid = pid(lab);
    for threads in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let thread = format!("{pid}/task/{}", threads.unwrap().file_name().to_string_lossy());
        // The thread that starts scripts has none, so that they have none.
        let own = if status(&thread, "Name") == "scripts" { "0000000000000000" } else { FOUR };
        for (set, expected) in [("CapEff", own), ("CapPrm", own), ("CapBnd", FOUR), ("CapAmb", own)] {
            assert_eq!(status(&thread, set), expected, "{set}");
        }
        assert_eq!((status(&thread, "Uid"), status(&thread, "NoNewPrivs")), ("65534".into(), "1".into()));
    }
}

/// How a daemon is started without root.
fn unprivileged(lab: &TestLab) {
    let config = lab.file("dirigent.toml").display().to_string();
    lab.start_daemon_with(&["--config", &config, "--user", "nobody"]);
    is_unprivileged(lab);
}

fn answers(lab: &TestLab) {
    let answer = lab.curl("http://192.0.2.10/");
    assert!(answer.starts_with("server"), "{answer}");
}

fn connections(lab: &TestLab) -> usize {
    lab.json(&["connection", "list", "--json"])["connections"].as_array().unwrap().len()
}

fn holds(lab: &TestLab, address: &str) -> bool {
    lab.sh("director", "ip -o address show dev lo").contains(address)
}

fn nothing_was_denied(lab: &TestLab) {
    let log = lab.log();
    assert!(!log.contains("ermission denied") && !log.contains("not permitted"), "{log}");
}

/// Loading, attaching, pinning, addresses, following the network, changes, taking over, and removing it all.
#[test]
fn a_daemon_needs_no_root_on_tc() {
    let lab = TestLab::up(&["--servers", "2", "--path", "tc", "--no-daemon"]);
    unprivileged(&lab);
    answers(&lab);
    lab.dirigent(&["service", "add", "tcp:192.0.2.88:80", "--vip", "manage", "--scheduler", "rr"]);
    let server = lab.json(&["server", "list", "--json"])[0]["address"].as_str().unwrap().to_owned();
    lab.dirigent(&["server", "add", "tcp:192.0.2.88:80", &server]);
    assert!(holds(&lab, "192.0.2.88/32"));
    let ip = server.rsplit_once(':').unwrap().0;
    lab.sh("director", &format!("ip route replace unreachable {ip}/32"));
    let begun = Instant::now();
    while lab.json(&["server", "list", "--json"])[0]["next_hop"]["state"] != "no route" {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", lab.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.sh("director", &format!("ip route del unreachable {ip}/32"));
    lab.dirigent(&["reload"]);
    // Killed, it is taken over by another.
    lab.kill_daemon();
    unprivileged(&lab);
    assert!(holds(&lab, "192.0.2.88/32"));
    answers(&lab);
    let (said, _) = lab.dirigent(&["stop", "--detach"]);
    assert!(said.contains("removed the maps") && said.contains("detached"), "{said}");
    assert!(!lab.pins().join("maps").exists() && !holds(&lab, "192.0.2.88/32"));
    nothing_was_denied(&lab);
}

/// It takes over what root's daemon left, and root's takes over what it left.
#[test]
fn a_daemon_needs_no_root_on_xdp() {
    let lab = TestLab::up(&["--servers", "2", "--path", "xdp-generic"]);
    answers(&lab);
    let before = connections(&lab);
    lab.kill_daemon();
    unprivileged(&lab);
    assert!(lab.log().contains("took over the programs and maps"), "{}", lab.log());
    assert!(connections(&lab) >= before && before > 0);
    answers(&lab);
    nothing_was_denied(&lab);
    lab.kill_daemon();
    lab.start_daemon();
    answers(&lab);
    lab.dirigent(&["stop", "--detach"]);
    assert!(!lab.pins().join("maps").exists());
}

#[test]
fn users_that_cannot_be_are_refused() {
    let lab = TestLab::up(&["--servers", "1", "--no-daemon"]);
    let config = lab.file("dirigent.toml").display().to_string();
    let (code, said) = lab.dirigent_fails(&["run", "--config", &config, "--user", "nosuchuser"]);
    assert!(code == 1 && said.contains("there is no user nosuchuser") && said.contains("useradd"), "{code} {said}");
    let own = std::env::temp_dir().join(format!("dirigent-{}", lab.name()));
    std::fs::copy(BIN, &own).unwrap();
    let script = format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups {} prepare --user nobody 2>&1 || echo exit $?",
        own.display()
    );
    let said = lab.sh("director", &script);
    std::fs::remove_file(&own).unwrap();
    assert!(said.contains("run it as root") && said.ends_with("exit 4"), "{said}");
}
