//! Services by firewall mark: real traffic, and what mark rules depend on in the network. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{TestLab, checksum, read_slowly};
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

/// Netfilter counts connections, which no rule of the director's can: they go to one server and the other in turn. One
/// mark has no service, another's has no server, and a third leads to a server that answers by itself.
const NETFILTER: &str = r#"
nft -f - <<END
table inet marks {
    set prefix { type ipv4_addr; flags interval; elements = { 192.0.2.10, 192.0.2.192/26 } }
    set prefix6 { type ipv6_addr; flags interval; elements = { 2001:db8::10, 2001:db8:0:0:8000::/65 } }
    chain prerouting {
        type filter hook prerouting priority mangle;
        iifname != "c0" return
        ip daddr @prefix tcp dport 8080 meta mark set numgen inc mod 2 offset 7
        ip6 daddr @prefix6 tcp dport 8080 meta mark set numgen inc mod 2 offset 7
        ip daddr 192.0.2.203 tcp dport 8080 meta mark set 10
        meta l4proto tcp th dport 9009 meta mark set 9
        meta l4proto tcp th dport 9011 meta mark set 11
    }
}
END
for family in -4 -6; do
    ip $family rule add pref 5 lookup local
    ip $family rule del pref 0
    for mark in 7 8 9 10 11; do ip $family rule add pref 1 fwmark $mark iif c0 lookup 107; done
    ip $family route add default dev td-marks table 107
done
"#;

const BY_NETFILTER: &str = r#"
[[service]]
fwmark = 7
scheduler = "rr"
server = [{ address = "10.0.0.2" }]

[[service]]
fwmark = 8
scheduler = "rr"
server = [{ address = "10.0.0.3" }]

[[service]]
fwmark = 7
family = 6
scheduler = "rr"
server = [{ address = "fd00::2" }]

[[service]]
fwmark = 8
family = 6
scheduler = "rr"
server = [{ address = "fd00::3" }]

[[service]]
fwmark = 10
scheduler = "rr"
server = [{ address = "10.0.0.2", method = "dr" }]

[[service]]
fwmark = 11
scheduler = "rr"

[[service]]
fwmark = 11
family = 6
scheduler = "rr"
"#;

/// What only netfilter can tell, on the device that its marks lead to: clients, servers and the host all as they are.
fn netfilters_marks_lead_to_services(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "2"], path].concat());
    let before = lab.config();
    let with = |name: &str| before.replacen("[director]\n", &format!("[director]\nmark_device = \"{name}\"\n"), 1);
    // Another's device is left alone.
    lab.sh("director", "ip link add td-marks type veth peer name td-other");
    lab.write_config(&(with("td-marks") + BY_NETFILTER));
    let said = lab.dirigent_fails(&["reload"]).1;
    assert!(
        said.contains("interface td-marks is there already") && said.contains("`ip link delete td-marks`"),
        "{said}"
    );
    lab.sh("director", "ip link show td-other; ip link delete td-marks");
    lab.dirigent(&["reload"]);
    let state = || lab.dirigent(&["status"]).0;
    assert!(state().contains("interface td-marks-in: tc"), "{}", state());
    assert!(state().contains("problem: mark_device td-marks: no rule and route lead packets to it"), "{}", state());
    let says = |what: &str, holds: bool| {
        let begun = Instant::now();
        while state().contains(what) != holds {
            assert!(begun.elapsed() < Duration::from_secs(5), "{}", state());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    lab.sh("director", NETFILTER);
    says("problem:", false);
    // What the director leaves to the host has no mark, so that it is not led there again, whoever the rule is for.
    lab.sh("director", "ip rule add pref 1 fwmark 9 lookup 107; ip rule del pref 1 fwmark 9 iif c0 lookup 107");
    says("a rule that looks up table 107 leads packets to it whatever interface they come by", true);
    assert_eq!(lab.sh("client", "curl -sS --max-time 4 http://192.0.2.10:9009/ || echo $?"), "7");
    lab.sh("director", "ip rule add pref 1 fwmark 9 iif c0 lookup 107; ip rule del pref 1 fwmark 9 lookup 107");
    says("problem:", false);
    lab.sh("server1", "ip address add 192.0.2.203/32 dev lo");
    let number = || lab.sh("director", "cat /sys/class/net/td-marks/ifindex /sys/class/net/td-marks-in/ifindex");
    let device = number();
    let in_turn = || {
        for [one, other] in [
            ["http://192.0.2.200:8080/", "http://192.0.2.250:8080/"],
            ["http://192.0.2.10:8080/", "http://192.0.2.10:8080/"],
            ["http://[2001:db8::8000:0:0:1]:8080/", "http://[2001:db8::8000:0:0:2]:8080/"],
            ["http://[2001:db8::10]:8080/", "http://[2001:db8::10]:8080/"],
        ] {
            let mut answers = [one, other].map(|url| lab.curl(url));
            answers.sort();
            assert_eq!(answers, ["server1", "server2"], "{one} {other}");
        }
        assert_eq!(lab.curl("http://192.0.2.203:8080/"), "server1");
        // Refused at once, by the host and by the director, and not only after some time on the way: curl's 7, not 28.
        for address in ["192.0.2.10", "[2001:db8::10]"] {
            for port in [9009, 9011] {
                let ask = format!("curl -sS -g --max-time 4 http://{address}:{port}/ || echo $?");
                assert_eq!(lab.sh("client", &ask), "7", "{address} {port}");
            }
        }
    };
    let passed = lab.count("no_service");
    in_turn();
    // A client busy with sending may miss the first.
    assert!(lab.count("no_server") >= 2);
    assert!(lab.count("no_service") > passed);
    // The device is there as long as the director is: with a transfer under way, and for new connections.
    let sum = lab.publish("marked", 4 << 20);
    let get = |url: &str| lab.start("client", &["curl", "-sS", "-g", "--max-time", "60", url]);
    let urls = ["http://192.0.2.200:8080/marked", "http://[2001:db8::8000:0:0:1]:8080/marked"];
    let transfers = urls.map(|url| read_slowly(get(url), Duration::from_millis(5)));
    std::thread::sleep(Duration::from_millis(200));
    lab.kill_daemon();
    in_turn();
    lab.start_daemon();
    in_turn();
    assert_eq!(number(), device, "not made anew");
    for transfer in transfers {
        let got = lab.file("got");
        std::fs::write(&got, transfer.join().unwrap()).unwrap();
        assert_eq!(checksum(&got), sum);
    }
    assert!(state().contains("took over") && !state().contains("problem:"), "{}", state());
    // It goes with its setting, also where that changed meanwhile, and with the director.
    let there = || lab.sh("director", "ls -m /sys/class/net");
    lab.kill_daemon();
    lab.write_config(&with("td-other"));
    lab.start_daemon();
    assert!(there().contains("td-other-in") && !there().contains("td-marks"), "{}", there());
    lab.write_config(&before);
    lab.dirigent(&["reload"]);
    assert!(!there().contains("td-"), "{}", there());
    assert!(!state().contains("td-other"), "{}", state());
    let fails = "curl -sS --max-time 2 http://192.0.2.200:8080/ >/dev/null 2>&1 || echo failed";
    assert_eq!(lab.sh("client", fails), "failed");
    lab.write_config(&with("td-other"));
    lab.dirigent(&["reload"]);
    assert!(there().contains("td-other-in"), "{}", there());
    let (said, _) = lab.dirigent(&["stop", "--detach"]);
    assert!(said.contains("removed the device td-other"), "{said}");
    assert!(!there().contains("td-"), "{}", there());
}

#[test]
fn netfilters_marks_lead_to_services_on_tc() {
    netfilters_marks_lead_to_services(&["--path", "tc"]);
}

#[test]
fn netfilters_marks_lead_to_services_on_xdp() {
    netfilters_marks_lead_to_services(&["--path", "xdp", "--no-offloads"]);
}
