//! A daemon that is not root's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{BIN, TestLab};
use std::os::unix::fs::PermissionsExt as _;
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

/// The same and CAP_SYS_ADMIN (21), which may be in the bounding set: with no_new_privs nothing comes of it.
const FIVE: &str = "000000c000203000";

fn is_unprivileged(lab: &TestLab, bounding: &str) {
    let pid = pid(lab);
    for threads in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let thread = format!("{pid}/task/{}", threads.unwrap().file_name().to_string_lossy());
        // The thread that starts scripts has none, so that they have none.
        let own = if status(&thread, "Name") == "scripts" { "0000000000000000" } else { FOUR };
        for (set, expected) in [("CapEff", own), ("CapPrm", own), ("CapBnd", bounding), ("CapAmb", own)] {
            assert_eq!(status(&thread, set), expected, "{set}");
        }
        assert_eq!((status(&thread, "Uid"), status(&thread, "NoNewPrivs")), ("65534".into(), "1".into()));
    }
}

/// How a daemon is started without root.
fn unprivileged(lab: &TestLab) {
    let config = lab.file("dirigent.toml").display().to_string();
    lab.start_daemon_with(&["--config", &config, "--user", "nobody"]);
    is_unprivileged(lab, FOUR);
}

/// As the package's unit with its drop-in starts it: as its user and with capabilities, one of which it gives up.
fn as_by_systemd(lab: &TestLab) {
    let own = std::env::temp_dir().join(format!("dirigent-{}", lab.name()));
    std::fs::copy(BIN, &own).unwrap();
    let config = lab.file("dirigent.toml").display().to_string();
    lab.sh("director", &format!("{} --instance {} prepare --user nobody --config {config}", own.display(), lab.name()));
    let packaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging");
    let read = |file: &str| std::fs::read_to_string(format!("{packaging}/{file}")).unwrap();
    let unit = read("dirigent.service") + &read("real-path.conf");
    let given = |key: &str| -> String {
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key));
        lines
            .flat_map(|line| line.split(' '))
            .map(|name| format!(",+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()))
            .collect()
    };
    let (ambient, bounding) = (given("AmbientCapabilities="), given("CapabilityBoundingSet="));
    let script = format!(
        "#!/bin/sh\nexec setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --inh-caps=-all{ambient} \
         --ambient-caps=-all{ambient} --bounding-set=-all{bounding} {} \"$@\"\n",
        own.display()
    );
    let wrapper = lab.file("as-unit");
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    lab.start_daemon_as(wrapper.to_str().unwrap(), &["--config", &config]);
    std::fs::remove_file(&own).unwrap();
    is_unprivileged(lab, FIVE);
}

/// Health checks go along the clients' path, whose namespace was made before the daemon gave up the right to do so.
fn checks_go_the_clients_way(lab: &TestLab, config: &str) {
    let check = "check = [{ type = \"tcp\", real_path = true, interval = \"100ms\", warmup = \"0ms\" }]\n";
    let server = "address = \"10.0.0.2:8080\"\n";
    for text in [config.replace(server, &format!("{server}{check}")), config.to_owned()].iter().cycle().take(4) {
        lab.write_config(text);
        lab.dirigent(&["reload"]);
        let (with, begun) = (text.contains("real_path"), Instant::now());
        let link = || lab.sh("director", "ip -o link show | grep -c dgp || true") == "1";
        let up =
            || lab.json(&["server", "list", "--json"]).as_array().unwrap().iter().any(|s| s["health"]["state"] == "up");
        while link() != with || up() != with {
            assert!(begun.elapsed() < Duration::from_secs(10), "{with}: {}", lab.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
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
    // What nothing had a use for so far is loaded now.
    lab.dirigent(&["service", "edit", "tcp:192.0.2.88:80", "--persistence", "60s"]);
    assert!(lab.curl("http://192.0.2.88/").starts_with("server"));
    assert_eq!(lab.count("stage_missing"), 0);
    let ip = server.rsplit_once(':').unwrap().0;
    lab.sh("director", &format!("ip route replace unreachable {ip}/32"));
    let begun = Instant::now();
    while lab.json(&["server", "list", "--json"])[0]["next_hop"]["state"] != "no route" {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", lab.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.sh("director", &format!("ip route del unreachable {ip}/32"));
    lab.dirigent(&["reload"]);
    let config = lab.config();
    checks_go_the_clients_way(&lab, &config);
    // Killed, it is taken over by another.
    lab.kill_daemon();
    as_by_systemd(&lab);
    checks_go_the_clients_way(&lab, &config);
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
