//! Services by firewall mark: real traffic, and what mark rules depend on in the network. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use dirigent_datapath::control::{KernelStore, Store};
use dirigent_datapath::kernel::Instance;
use dirigent_director::records::MarkRule;
use std::time::{Duration, Instant};

/// All of a prefix in each family: what comes by c0 for the servers' port.
const MARKED: &str = r#"
[[mark]]
interface = "c0"
destination = "192.0.2.192/26"
protocol = "tcp"
destination_ports = "8000-8100"
set = 7

[[mark]]
destination = "2001:db8:0:0:8000::/65"
set = 7

[[service]]
fwmark = 7
scheduler = "rr"

[[service.server]]
address = "10.0.0.2"

[[service.server]]
address = "10.0.0.3"

[[service]]
fwmark = 7
family = 6
scheduler = "rr"

[[service.server]]
address = "fd00::2"

[[service.server]]
address = "fd00::3"
"#;

fn prefixes_are_served(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "2"], path].concat());
    let fails = |url: &str| {
        let ask = format!("curl -sS -g --max-time 2 {url} >/dev/null 2>&1 && echo answered || echo failed");
        assert_eq!(lab.on("client", &["sh", "-c", &ask]), "failed", "{url}");
    };
    let before = lab.config();
    lab.write_config(&(before.clone() + MARKED));
    let said = lab.dirigent(&["reload"]).0;
    assert!(said.contains("set the mark rules to\n  IPv4 interface c0 destination 192.0.2.192/26"), "{said}");
    // Marked, but nobody's: IPVS would not look at them either.
    fails("http://192.0.2.200:8080/");
    assert!(lab.count("not_held") > 0);
    lab.sh("director", "ip route add local 192.0.2.192/26 dev lo");
    lab.sh("director", "ip -6 route add local 2001:db8:0:0:8000::/65 dev lo");
    for urls in [
        ["http://192.0.2.200:8080/", "http://192.0.2.250:8080/"],
        ["http://[2001:db8::8000:0:0:1]:8080/", "http://[2001:db8::8000:0:0:2]:8080/"],
    ] {
        let mut answers = urls.map(|url| lab.curl(url));
        answers.sort();
        assert_eq!(answers, ["server1", "server2"], "{urls:?}");
    }
    // Not of the rule's ports.
    fails("http://192.0.2.200:80/");
    let (list, _) = lab.dirigent(&["service", "list"]);
    assert!(list.lines().any(|line| line.starts_with("FWM  7  ")), "{list}");
    assert!(list.lines().any(|line| line.starts_with("FWM  7 IPv6  ")), "{list}");
    // A daemon that ends leaves them, and the next one takes them over.
    lab.kill_daemon();
    assert!(lab.curl("http://192.0.2.201:8080/").starts_with("server"));
    lab.start_daemon();
    assert!(lab.curl("http://192.0.2.201:8080/").starts_with("server"));
    lab.sh("director", "ip route del local 192.0.2.192/26 dev lo");
    fails("http://192.0.2.202:8080/");
    lab.write_config(&before);
    lab.dirigent(&["reload"]);
}

#[test]
fn prefixes_are_served_on_tc() {
    prefixes_are_served(&["--path", "tc"]);
}

#[test]
fn prefixes_are_served_on_xdp() {
    prefixes_are_served(&["--path", "xdp", "--no-offloads"]);
}

/// The number of the interface in the one mark rule in force.
fn number(lab: &TestLab) -> u32 {
    let store = KernelStore::open(&Instance::new(lab.name()).unwrap()).unwrap();
    let word = store.settings().unwrap().mark_rules;
    let rules: Vec<MarkRule> = store.mark_rules(word >> 16, word & 0xffff).unwrap();
    assert_eq!(rules.len(), 1);
    rules[0].ifindex
}

/// A rule names an interface, which comes, is called otherwise, goes, and comes again.
#[test]
fn mark_rules_follow_the_names_of_interfaces() {
    const NOWHERE: u32 = u32::MAX;
    let lab = TestLab::up(&["--servers", "1"]);
    let is = |what: &str, wanted: u32| {
        let begun = Instant::now();
        while number(&lab) != wanted {
            assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {} is not {wanted}", number(&lab));
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    lab.write_config(&(lab.config() + "\n[[mark]]\ninterface = \"m0\"\nset = 7\n"));
    lab.dirigent(&["reload"]);
    assert_eq!(number(&lab), NOWHERE);
    let index = |name: &str| lab.sh("director", &format!("cat /sys/class/net/{name}/ifindex")).parse().unwrap();
    lab.sh("director", "ip link add m0 type veth peer name m1");
    let first = index("m0");
    is("it came", first);
    // The name is what counts: its peer takes it.
    lab.sh("director", "ip link set m0 name m2");
    is("it is called otherwise", NOWHERE);
    lab.sh("director", "ip link set m1 name m0");
    let peer = index("m0");
    assert_ne!(peer, first);
    is("another one is called so", peer);
    lab.sh("director", "ip link del m0");
    is("it went", NOWHERE);
    lab.sh("director", "ip link add m0 type veth peer name m1");
    is("it came again", index("m0"));
    // A new daemon finds it too, also where it changed meanwhile.
    lab.kill_daemon();
    lab.sh("director", "ip link del m0; ip link add m0 type veth peer name m1");
    lab.start_daemon();
    is("it came again without a daemon", index("m0"));
}
