//! What is wrong on the director itself: interfaces, programs, netfilter, kernel parameters.

use super::Heal::{By, Fix, Said};
use super::{Break, WEB4, breaks, doctor, find, findings, is_healthy, recovers};
use crate::common::{TestLab, with_checks};
use serde_json::Value;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn interfaces_and_programs_are_looked_at() {
    let lab = TestLab::up(&["--servers", "1"]);
    let all: &[Break] = &[
        (
            &[("director", "ip link set r0 down")],
            &[("interface_down", "interface r0")],
            By(&[("director", "ip link set r0 up; ip -6 address add fd00::1/64 dev r0 nodad")]),
        ),
        (
            &[("router", "ip link set outside0 down")],
            &[("interface_down", "interface c0")],
            By(&[(
                "router",
                "ip link set outside0 up; ip route replace 192.0.2.0/24 via 203.0.113.2; \
                 ip route replace 10.0.0.0/24 via 203.0.113.2",
            )]),
        ),
        (
            &[("director", "ip route del default")],
            &[("no_way_to_clients", "IPv4 routes")],
            By(&[("director", "ip route add default via 203.0.113.1")]),
        ),
        (
            &[("director", "ip -6 route del default")],
            &[("no_way_to_clients", "IPv6 routes")],
            By(&[("director", "ip -6 route add default via 2001:db8:1::1")]),
        ),
        (
            &[("director", "rm /sys/fs/bpf/dirigent/$NAME/links/tcx-ingress-$(ip -o link show r0 | cut -d: -f1)")],
            &[("program_gone", "interface r0")],
            Said,
        ),
    ];
    breaks(&lab, 4, all);
}

#[test]
fn netfilter_is_read_anew() {
    let lab = TestLab::up(&["--servers", "1"]);
    let all: &[Break] = &[
        (
            &[(
                "director",
                nft!("ip", "input", "accept", "ip daddr 192.0.2.10 tcp dport 80 ip saddr 198.51.100.0/24 drop"),
            )],
            &[("rule_sees_nothing", "nft chain ip gone input, handle 2")],
            By(&[("director", "nft delete table ip gone")]),
        ),
        (
            &[("director", nft!("ip", "forward", "drop", "tcp dport 22 accept"))],
            &[("rule_sees_nothing", "nft chain ip gone forward")],
            By(&[("director", "nft delete table ip gone")]),
        ),
        (
            &[("director", nft!("arp", "input", "accept", "iifname r0 arp operation request drop"))],
            &[("neighbours_filtered", "nft chain arp gone input, handle 2")],
            By(&[("director", "nft delete table arp gone")]),
        ),
        // A policy that forgets neighbour discovery.
        (
            &[("director", nft!("ip6", "input", "drop", "ct state established,related accept"))],
            &[("neighbours_filtered", "nft chain ip6 gone input"), ("rule_sees_nothing", "nft chain ip6 gone input")],
            By(&[("director", "nft delete table ip6 gone")]),
        ),
    ];
    breaks(&lab, 4, all);
}

/// Checks are this host's own packets, which pass its routing and its netfilter.
#[test]
fn what_keeps_checks_from_servers_is_found() {
    let lab = TestLab::up(&["--servers", "1"]);
    let check = "type = \"tcp\"\ninterval = \"200ms\"\nwarmup = \"0ms\"\ntimeout = \"500ms\"";
    lab.write_config(&with_checks(&lab, "", check));
    lab.dirigent(&["reload"]);
    let all: &[Break] = &[
        (
            &[("director", nft!("ip", "output", "accept", "ip daddr 10.0.0.2 tcp dport 8080 drop"))],
            &[("check_fails", WEB4)],
            By(&[("director", "nft delete table ip gone")]),
        ),
        // To the server by the router, and back directly.
        (
            &[
                ("router", "ip route add 10.0.0.2/32 dev servers0"),
                ("director", "ip route add 10.0.0.2/32 via 203.0.113.1; sysctl -qw net.ipv4.conf.r0.rp_filter=1"),
            ],
            &[("rp_filter", WEB4)],
            Fix,
        ),
    ];
    breaks(&lab, 4, all);
}

#[test]
fn addresses_that_nobody_holds_or_answers_for_are_found() {
    let lab = TestLab::up(&["--servers", "1"]);
    let all: &[Break] = &[(
        &[("director", "ip address add 192.0.2.1/24 dev c0; sysctl -qw net.ipv4.conf.all.arp_ignore=1")],
        &[("arp_ignored", "interface c0")],
        Fix,
    )];
    breaks(&lab, 4, all);
    // The operator holds them from now on, and forgets it.
    lab.write_config(&lab.config().replace("vip = \"manage\"\n", ""));
    lab.dirigent(&["reload"]);
    let unheld =
        ["virtual address 192.0.2.10", "virtual address 2001:db8::10"].map(|at| ("virtual_address_unheld", at));
    let answer = find(&lab, &unheld, "nobody holds them");
    super::obey(&lab, &answer);
    recovers(&lab, 4, "nobody holds them");
}

/// Shown first, changed when it is agreed to, and taken back.
#[test]
fn it_mends_this_host_and_takes_it_back() {
    let lab = TestLab::up(&["--servers", "1", "--one-arm"]);
    let entry = "10.0.0.2 dev eth0 lladdr 02:00:00:00:09:09 PERMANENT";
    let read = || {
        let redirects = lab.on("director", &["cat", "/proc/sys/net/ipv4/conf/eth0/send_redirects"]);
        (redirects, lab.sh("director", "ip neigh show nud permanent").trim().to_owned())
    };
    lab.sh(
        "director",
        "sysctl -qw net.ipv4.conf.eth0.send_redirects=1; \
         ip neigh replace 10.0.0.2 lladdr 02:00:00:00:09:09 dev eth0 nud permanent",
    );
    let broken = ("1".to_owned(), entry.to_owned());
    assert_eq!(read(), broken);
    find(&lab, &[("neighbour_wrong", "server 10.0.0.2"), ("redirects", "interface eth0")], "both");
    let (code, shown) = doctor(&lab, &["--fix", "--dry-run"]);
    let whats = |shown: &Value| -> Vec<String> {
        shown.as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap().to_owned()).collect()
    };
    let both = [format!("remove the entry {entry}"), "net.ipv4.conf.eth0.send_redirects 1 → 0".to_owned()];
    assert_eq!((code, whats(&shown)), (1, both.to_vec()), "{shown:#}");
    assert_eq!(read(), broken);
    let (_, done) = doctor(&lab, &["--fix", "--yes"]);
    assert!(done.as_array().unwrap().iter().all(|one| one["done"] == true), "{done:#}");
    assert_eq!(read(), ("0".to_owned(), String::new()));
    recovers(&lab, 4, "--fix");
    let (_, back) = doctor(&lab, &["--undo", "--yes"]);
    let back: Vec<_> = back.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(back, ["net.ipv4.conf.eth0.send_redirects 0 → 1", &format!("set the entry {entry}")]);
    assert_eq!(read(), broken);
}

#[test]
fn what_xdp_cannot_do_is_found() {
    let lab = TestLab::up(&["--servers", "1", "--path", "xdp", "--no-offloads"]);
    let all: &[Break] = &[
        (&[("director", "sysctl -qw net.ipv4.conf.r0.forwarding=0")], &[("forwarding_off", "interface r0")], Fix),
        (&[("director", "sysctl -qw net.ipv6.conf.r0.forwarding=0")], &[("forwarding_off", "interface r0")], Said),
        // Frames of servers come with checksums that nobody has filled in, as on veth by default.
        (
            &[("server1", "ethtool -K eth0 tx on >/dev/null"), ("switch", "ethtool -K director tx on >/dev/null")],
            &[("offloads", "interface r0")],
            By(&[
                ("server1", "ethtool -K eth0 tx off >/dev/null"),
                ("switch", "ethtool -K director tx off >/dev/null"),
            ]),
        ),
    ];
    breaks(&lab, 4, all);
}

/// Ends senders, also when a test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A flood from one CPU comes on that CPU: it is seen by where packets are counted, and RPS is set, and set back.
#[test]
fn packets_that_all_come_on_one_cpu_are_spread() {
    let lab = TestLab::up(&["--servers", "1", "--path", "tc"]);
    is_healthy(&lab, 4);
    let ended = AtomicBool::new(false);
    // To a port that no service has: counted, and left to the host.
    let flood = || {
        dirigent_testkit::cpu::pin(0, &[0]).unwrap();
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        while !ended.load(Ordering::Acquire) {
            let _ = socket.send_to(b"x", "192.0.2.10:9");
        }
    };
    std::thread::scope(|scope| {
        let _end = End(&ended);
        for _ in 0..3 {
            scope.spawn(|| lab.run("client", flood));
        }
        let answer = find(&lab, &[("one_cpu_receives", "interface c0")], "all on one CPU");
        let finding = &answer["findings"][0];
        assert!(finding["evidence"][0].as_str().unwrap().contains(" packets came on CPU 0 in "), "{finding:#}");
        let mask = || lab.sh("director", "cat /sys/class/net/c0/queues/rx-0/rps_cpus");
        let before = mask();
        let (_, done) = doctor(&lab, &["--fix", "--yes"]);
        assert_eq!(done[0]["done"], true, "{done:#}");
        assert!(done[0]["what"].as_str().unwrap().starts_with("rps_cpus of c0's queue rx-0 0 → "), "{done:#}");
        assert_ne!(mask(), before);
        recovers(&lab, 4, "all on one CPU");
        let (_, back) = doctor(&lab, &["--undo", "--yes"]);
        assert!(back[0].as_str().unwrap().ends_with(" → 0"), "{back:#}");
        assert_eq!(mask(), before);
    });
}

/// A word of it on whatever is asked about.
#[test]
fn several_things_at_once_are_all_found() {
    let lab = TestLab::up(&["--servers", "2"]);
    is_healthy(&lab, 8);
    lab.sh("server1", "ip route del default");
    lab.sh("server2", "ip address del 10.0.0.3/24 dev eth0");
    lab.sh("router", "ip address add 192.0.2.10/32 dev outside0");
    lab.sh(
        "director",
        "ip neigh replace fd00::2 lladdr 02:00:00:00:09:09 dev r0 nud permanent; \
         nft 'add table ip gone; add chain ip gone input { type filter hook input priority 0; policy drop; }'",
    );
    let all = [
        ("neighbour", "server 10.0.0.3"),
        ("neighbour_wrong", "server fd00::2"),
        ("replies_bypass", WEB4),
        ("rule_sees_nothing", "nft chain ip gone input"),
        ("second_director", "virtual address 192.0.2.10"),
    ];
    let answer = find(&lab, &all, "five things");
    // Errors first.
    let last = answer["findings"].as_array().unwrap().last().unwrap();
    assert_eq!((findings(&answer).len(), &last["severity"]), (5, &Value::from("warning")));
}
