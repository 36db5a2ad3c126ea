//! `dirigent realserver`, on the servers of a lab. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use common::traffic::VIPS;
use dirigent_datapath::kernel::{Endpoint, Instance, TcKind};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a real server's network looks like.
fn network(lab: &TestLab) -> String {
    lab.sh(
        "server1",
        "ip -br address; ip route show table all; ip -6 route show table all | sort; ip rule; ip -6 rule; \
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
    // Programs that do something else than these words say are wrong, and renewed; so they are when the MTU has changed.
    for other in ["--tunnel ipip", "--director 10.0.0.9", "--vip 192.0.2.11"] {
        let checked = lab.sh("server1", &format!("{check} {other} || echo exit $?"));
        assert!(checked.contains("WRONG  eth0: tc programs") && checked.contains("exit 1"), "{other}: {checked}");
    }
    lab.sh("server1", "ip link set dev eth0 mtu 1400");
    assert!(lab.sh("server1", &format!("{check} || true")).contains("WRONG  eth0: tc programs"));
    let renewed = lab.sh("server1", &format!("{setup} --yes"));
    assert!(renewed.contains("at most 1328 (IPv4)") && !renewed.contains("arp_ignore"), "{renewed}");
    assert!(!lab.sh("server1", &check).contains("WRONG"));
    lab.sh("server1", "ip link set dev eth0 mtu 1500");
    lab.sh("server1", &format!("dirigent realserver undo --yes --state {state}"));
    assert_eq!(network(&lab), before);
    assert!(lab.sh("server1", &format!("dirigent realserver undo --yes --state {state}")).contains("nothing to undo"));
}

/// As on kernels before tcx (6.6): what classic filters hang on goes with them, unless it was there before or somebody
/// else's filter hangs there.
#[test]
fn classic_filters_leave_nothing_behind() {
    let lab = TestLab::up(&["--servers", "1", "--no-daemon"]);
    let state = lab.file("classic.json");
    let words = "--mode tun --vip 192.0.2.10 --yes";
    let instance = lab.sh("server1", "echo rs-$(stat -Lc %i /proc/self/ns/net)-$(cat /sys/class/net/eth0/ifindex)");
    let endpoint = Endpoint {
        kinds: 2,
        port: 6080,
        mac: [2, 0, 0, 0, 3, 1],
        mss4: 1400,
        mss6: 1380,
        vips: vec!["192.0.2.10".parse().unwrap()],
        directors: Vec::new(),
    };
    let another = "tc filter add dev eth0 ingress protocol ip prio 7 bpf bytecode '1,6 0 0 0' flowid 1:1";
    for (before, beside, left) in
        [("true", "true", false), ("tc qdisc add dev eth0 clsact", "true", true), ("true", another, true)]
    {
        lab.sh("server1", before);
        lab.sh("server1", &format!("dirigent realserver setup {words} --state {}", state.display()));
        let instance = Instance::new(&instance).unwrap();
        let done = lab.run("server1", || endpoint.attach(&instance, "eth0", TcKind::Classic)).unwrap();
        assert!(!done.tcx && lab.sh("server1", "tc qdisc show dev eth0").contains("clsact"));
        lab.sh("server1", beside);
        // Renewed: what was before is still known.
        lab.sh("server1", &format!("dirigent realserver setup {words} --port 7000 --state {}", state.display()));
        lab.run("server1", || endpoint.attach(&instance, "eth0", TcKind::Classic)).unwrap();
        lab.sh("server1", &format!("dirigent realserver undo --yes --state {}", state.display()));
        assert_eq!(lab.sh("server1", "tc qdisc show dev eth0").contains("clsact"), left, "{before}, {beside}");
        assert_eq!(
            lab.sh("server1", "tc filter show dev eth0 ingress").is_empty(),
            beside == "true",
            "{before}, {beside}"
        );
        lab.sh("server1", "tc qdisc del dev eth0 clsact 2>/dev/null || true");
    }
}

/// Answers leave by the gateway that is named, though the default route leads elsewhere.
#[test]
fn answers_leave_by_the_gateway_that_is_named() {
    // The router by its link-local address, as IPv6 routers announce themselves, and by a global one.
    for (mode, path, router6) in [("dr", "tc", "fe80::ff:fe00:103"), ("tun", "xdp", "fd00::254")] {
        let lab = TestLab::up(&["--servers", "1", "--mode", mode, "--path", path, "--no-offloads"]);
        // Another network's default route, by a router that knows no clients (and here is not there at all).
        lab.sh("server1", "ip route replace default via 10.0.0.200; ip -6 route replace default via fd00::200");
        for (_, _, host) in VIPS {
            let answer = lab.sh("client", &format!("curl -sSg --max-time 1 http://{host}/ 2>&1 || true"));
            assert!(answer.starts_with("curl: "), "{mode} {host}: {answer}");
        }
        let words =
            format!("--mode {mode} --vip 192.0.2.10 --vip 2001:db8::10 --gateway 10.0.0.254 --gateway {router6}");
        let check = format!("dirigent realserver check {words} || echo exit $?");
        let state = lab.file("server1-realserver.json");
        let undo = format!("dirigent realserver undo --yes --state {}", state.display());
        lab.sh("server1", &undo);
        let before = network(&lab);
        let wrong = lab.sh("server1", &check);
        for point in [
            "WRONG  default route via 10.0.0.254 on eth0 in table 100",
            "WRONG  rule: from 2001:db8::10 lookup table 100",
        ] {
            assert!(wrong.contains(point) && wrong.contains("exit 1"), "{point}: {wrong}");
        }
        let setup = format!("dirigent realserver setup {words} --yes --state {}", state.display());
        lab.sh("server1", &setup);
        assert!(!lab.sh("server1", &check).contains("WRONG"));
        for (_, _, host) in VIPS {
            assert_eq!(lab.curl(&format!("http://{host}/")), "server1", "{mode} {path}");
        }
        assert!(lab.sh("server1", &setup).contains("nothing to do"));
        // Only the answers: what the server asks itself goes where it went.
        assert!(lab.sh("server1", "ip route get 198.51.100.7").contains("via 10.0.0.200"));
        lab.sh("server1", &undo);
        assert_eq!(network(&lab), before);
    }
}

/// A director that is told to cut outer packets makes pieces that nobody here puts together: `check` says how many.
#[test]
fn pieces_of_outer_packets_are_counted_and_told() {
    let lab = TestLab::up(&["--servers", "1", "--mode", "tun", "--path", "tc"]);
    lab.write_config(&lab.config().replace("[director]\n", "[director]\npmtu_disc = false\n"));
    lab.dirigent(&["reload"]);
    lab.sh("client", "ethtool -K eth0 tx off >/dev/null; echo 1 > /proc/sys/net/ipv4/ip_no_pmtu_disc");
    let send = |bytes: usize| {
        let echo = format!("head -c {bytes} /dev/zero | socat -b9000 -t1 - UDP4:192.0.2.10:7 | wc -c");
        lab.sh("client", &echo)
    };
    // 1,500 bytes with the outer header, and one more.
    assert_eq!(send(1452), "1452");
    let check = "dirigent realserver check --mode tun --vip 192.0.2.10 --vip 2001:db8::10";
    assert!(!lab.sh("server1", check).contains("packets fragment"));
    assert_eq!(send(1453), "0");
    let told = lab.sh("server1", check);
    assert!(told.contains("packets fragment: 2 (pieces of tunnelled packets, left to the host"), "{told}");
    let json: Value = serde_json::from_str(&lab.sh("server1", &format!("{check} --json"))).unwrap();
    let fragments = json["packets"].as_array().unwrap().iter().find(|pair| pair[0] == "fragment").unwrap();
    assert_eq!(fragments[1], 2);
}

/// What cannot be is refused before anything is changed.
#[test]
fn gateways_that_cannot_be_are_refused() {
    let lab = TestLab::up(&["--servers", "1", "--no-daemon"]);
    lab.sh("server1", "ip route add default via 10.0.0.253 table 77");
    let before = network(&lab);
    for (words, said) in [
        ("--gateway 203.0.113.9", "on none of this host's links"),
        ("--gateway 10.0.0.2", "on none of this host's links"),
        ("--gateway fd00::254", "no virtual address has this gateway's family"),
        ("--gateway 10.0.0.254 --gateway 10.0.0.253", "a second gateway"),
        ("--gateway 10.0.0.254 --table 77", "has another default route"),
        ("--gateway 10.0.0.254 --table 254", "the kernel's"),
    ] {
        let command = format!("dirigent realserver setup --mode dr --vip 192.0.2.10 {words} --yes 2>&1 || true");
        let output = lab.sh("server1", &command);
        assert!(output.contains(said), "{words}: {output}");
        assert_eq!(network(&lab), before, "{words}");
    }
}

const WORDS: &str = "--mode tun --vip 192.0.2.10 --vip 2001:db8::10 --tunnel gue --tunnel gre --director 10.0.0.1 \
                     --gateway 10.0.0.254 --gateway fd00::254";

/// Starts a `realserver` command that can be killed at once.
fn realserver(lab: &TestLab, command: &str, state: &Path) -> Child {
    let words = if command == "setup" { WORDS } else { "" };
    lab.run("server1", || {
        Command::new(env!("CARGO_BIN_EXE_dirigent"))
            .args(["realserver", command, "--yes", "--state"])
            .arg(state)
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    })
}

/// How many changes are recorded.
fn recorded(state: &Path) -> usize {
    let Ok(text) = std::fs::read_to_string(state) else { return 0 };
    serde_json::from_str::<Value>(&text).unwrap()["changes"].as_array().unwrap().len()
}

fn finish(mut child: Child) {
    assert!(child.wait().unwrap().success());
}

/// Killed as soon as so many changes are recorded, or so long after it was started; whatever was changed by then is
/// recorded, so that `undo` restores exactly what was before. So does the second `undo` after one that was killed.
#[test]
fn a_setup_that_is_killed_half_way_is_undone_exactly() {
    let lab = TestLab::up(&["--servers", "1", "--no-daemon"]);
    lab.sh("server1", "echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter");
    let before = network(&lab);
    let state: PathBuf = lab.file("killed.json");
    let begun = Instant::now();
    finish(realserver(&lab, "setup", &state));
    let whole = begun.elapsed();
    let (changes, after) = (recorded(&state), network(&lab));
    assert_eq!(changes, 10);
    finish(realserver(&lab, "undo", &state));
    assert_eq!((network(&lab), state.exists()), (before.clone(), false));

    let kill = |mut child: Child, when: &dyn Fn() -> bool| {
        while child.try_wait().unwrap().is_none() && !when() {}
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let mut cut_short = 0;
    let mut round = |when: &dyn Fn() -> bool, what: &str| {
        kill(realserver(&lab, "setup", &state), when);
        cut_short += usize::from((1..changes).contains(&recorded(&state)));
        finish(realserver(&lab, "undo", &state));
        assert_eq!(network(&lab), before, "killed {what}");
        assert!(!state.exists(), "killed {what}");
    };
    for count in 1..=changes {
        round(&|| recorded(&state) >= count, &format!("with {count} changes recorded"));
    }
    for part in 0..16 {
        let begun = Instant::now();
        round(&|| begun.elapsed() > whole * part / 16, &format!("after {part}/16 of its time"));
    }
    assert!(cut_short >= 8, "only {cut_short} were killed in the middle");

    // Begun again it goes on; and an undo that is killed is begun again.
    kill(realserver(&lab, "setup", &state), &|| recorded(&state) >= changes / 2);
    finish(realserver(&lab, "setup", &state));
    assert_eq!((network(&lab), recorded(&state)), (after, changes));
    for left in (0..changes).rev() {
        kill(realserver(&lab, "undo", &state), &|| recorded(&state) <= left);
    }
    finish(realserver(&lab, "undo", &state));
    assert_eq!(network(&lab), before);
    let files = std::fs::read_dir(state.parent().unwrap()).unwrap().flatten();
    let left: Vec<_> = files.map(|f| f.file_name()).filter(|f| f.to_string_lossy().starts_with("killed")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(begun.elapsed() < Duration::from_secs(120));
}
