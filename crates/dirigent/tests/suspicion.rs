//! What the director suspects without anybody's asking, from its clients' connections and other hosts' ARP. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::http::{get, socket};
use common::{BIN, TestLab, until, with_checks};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const VIP: &str = "http://192.0.2.10/";
const VIP6: &str = "http://[2001:db8::10]/";
/// Clients ask again after 1, 2 and 4 seconds; a sweep and a look take less than two more.
const PATIENCE: Duration = Duration::from_secs(20);

fn problems(lab: &TestLab) -> Vec<Value> {
    lab.json(&["status", "--json"])["problems"].as_array().unwrap().clone()
}

/// The one problem that there is says this, about this; `None`: there is none.
fn only(lab: &TestLab, place: &str, what: &str) -> Option<Value> {
    let all = problems(lab);
    let [one] = &all[..] else {
        assert!(all.is_empty(), "{all:#?}");
        return None;
    };
    assert_eq!(one["place"], place, "{one:#}");
    assert!(one["what"].as_str().unwrap().contains(what), "{one:#}");
    Some(one.clone())
}

/// Listens to what is suspected; to be killed.
fn listen(lab: &TestLab) -> (Child, impl Iterator<Item = Value>) {
    let mut events =
        Command::new(BIN).args(["--instance", lab.name(), "events", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(events.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Until it listens.
    std::thread::sleep(SECOND / 2);
    let parsed = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    (events, parsed.filter(|event| event["event"] == "suspected"))
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Clients on a host that ask in vain, for as long as a test takes.
fn in_vain(lab: &TestLab, host: &str, url: &str) -> Vec<Child> {
    (0..2).map(|_| lab.start(host, &["curl", "-sSg", "--max-time", "30", "-o", "/dev/null", url])).collect()
}

/// The founding case: the server's answers take another way than the director. It is found, said with its cause, and
/// over as soon as an answer comes by again.
#[test]
fn replies_around_the_director_are_found() {
    let lab = TestLab::up(&["--servers", "1"]);
    lab.write_config(&with_checks(&lab, "", "type = \"tcp\"\ninterval = \"200ms\"\nwarmup = \"0ms\""));
    lab.dirigent(&["reload"]);
    let (listener, mut events) = listen(&lab);
    for url in [VIP, VIP6] {
        assert_eq!(lab.curl(url), "server1");
    }
    assert_eq!(problems(&lab), [] as [Value; 0]);

    // The router is in the servers' network, too; it does not know these connections any better than the clients.
    lab.sh("server1", "ip route replace default via 10.0.0.254; ip -6 route replace default via fd00::254");
    let server = "server 10.0.0.2:8080 of tcp 192.0.2.10:80";
    // What is open is no witness for more than half a minute.
    let vain = in_vain(&lab, "client", VIP);
    until(&lab, "it is found", 3 * PATIENCE, || {
        only(&lab, server, "it answers its checks, but none of its answers").is_some()
    });
    let told = only(&lab, server, "198.51.100.7:").unwrap();
    assert!(told["remedy"].as_str().unwrap().contains("must lead to the director, 10.0.0.1"), "{told:#}");
    let begun = events.next().unwrap();
    assert_eq!((&begun["cause"], &begun["over"]), (&Value::from("replies_bypass"), &Value::from(false)), "{begun:#}");
    assert_eq!(
        (&begun["service"], &begun["server"]),
        (&Value::from("tcp 192.0.2.10:80"), &Value::from("10.0.0.2:8080"))
    );
    assert_eq!(begun["what"], told["what"]);
    let metric =
        "dirigent_suspected{service=\"tcp 192.0.2.10:80\",server=\"10.0.0.2:8080\",cause=\"replies_bypass\"} 1";
    let metrics = || get(&socket(lab.name()), "/metrics", "text/plain").text;
    assert!(metrics().contains(metric), "{}", metrics());
    vain.into_iter().for_each(end);

    lab.sh("server1", "ip route replace default via 10.0.0.1; ip -6 route replace default via fd00::1");
    assert_eq!(lab.curl(VIP), "server1");
    until(&lab, "it is over", 5 * SECOND, || problems(&lab).is_empty());
    let over = events.next().unwrap();
    assert_eq!((&over["cause"], &over["over"]), (&begun["cause"], &Value::from(true)), "{over:#}");
    end(listener);
    let log = lab.log();
    assert!(log.contains("none of its answers to clients comes back") && log.contains("it is over that"), "{log}");
}

/// Clients in the servers' own network get answers that they do not expect; others fare well, and so does IPv6.
#[test]
fn clients_in_the_servers_network_are_named() {
    let lab = TestLab::up(&["--servers", "2"]);
    for server in ["10.0.0.3:8080", "[fd00::3]:8080"] {
        let vip = if server.starts_with('[') { "[2001:db8::10]:80" } else { "192.0.2.10:80" };
        lab.dirigent(&["server", "remove", vip, server]);
    }
    for (url, service, server, network) in [
        (VIP, "tcp 192.0.2.10:80", "10.0.0.2:8080", "10.0.0.1/24"),
        (VIP6, "tcp [2001:db8::10]:80", "[fd00::2]:8080", "fd00::1/64"),
    ] {
        let place = format!("server {server} of {service}");
        assert_eq!(lab.curl(url), "server1");
        let vain = in_vain(&lab, "server2", url);
        let what = format!("none of its answers to clients in its own network ({network}) comes back");
        until(&lab, "it is found", PATIENCE, || only(&lab, &place, &what).is_some());
        assert_eq!(lab.curl(url), "server1");
        vain.into_iter().for_each(end);
        // Nobody asks in vain any more.
        lab.sh("server2", "ip link set eth0 down");
        until(&lab, "it is over", 2 * PATIENCE, || problems(&lab).iter().all(|p| p["place"] != place.as_str()));
        lab.sh("server2", "ip link set eth0 up; ip route add default via 10.0.0.1; ip -6 addr add fd00::3/64 dev eth0 nodad; ip -6 route add default via fd00::1");
    }
}

fn the_virtual_address_is_missed(mode: &str) {
    let lab = TestLab::up(&["--servers", "1", "--mode", mode]);
    for url in [VIP, VIP6] {
        assert_eq!(lab.curl(url), "server1");
    }
    assert_eq!(problems(&lab), [] as [Value; 0]);
    lab.sh("server1", "ip -6 address del 2001:db8::10/128 dev lo");
    let vain = in_vain(&lab, "client", VIP6);
    let place = "server [fd00::2]:80 of tcp [2001:db8::10]:80";
    until(&lab, "it is found", 3 * PATIENCE, || {
        only(&lab, place, "connections to it never get past their first packet").is_some()
    });
    let told = only(&lab, place, "[2001:db8:51::7]:").unwrap();
    let remedy = told["remedy"].as_str().unwrap();
    assert!(remedy.contains("holds 2001:db8::10") && remedy.contains("dirigent realserver check"), "{remedy}");
    assert_eq!(remedy.contains("unwraps ipip"), mode == "tun", "{remedy}");
    vain.into_iter().for_each(end);
    assert_eq!(lab.curl(VIP), "server1", "IPv4 is as it was");
    lab.sh("server1", "ip -6 address add 2001:db8::10/128 dev lo nodad");
    assert_eq!(lab.curl(VIP6), "server1");
    until(&lab, "it is over", 5 * SECOND, || problems(&lab).is_empty());
}

#[test]
fn servers_without_the_virtual_address_are_found_in_direct_routing() {
    the_virtual_address_is_missed("dr");
}

#[test]
fn servers_without_the_virtual_address_are_found_behind_tunnels() {
    the_virtual_address_is_missed("tun");
}

/// A server that asks for others in the virtual address's name.
#[test]
fn a_virtual_address_that_another_host_claims_is_named() {
    let lab = TestLab::up(&["--servers", "1", "--mode", "dr"]);
    assert_eq!(lab.curl(VIP), "server1");
    assert_eq!(problems(&lab), [] as [Value; 0]);
    let (listener, mut events) = listen(&lab);
    let wrong = "sysctl -qw net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.eth0.arp_announce=0; ip neigh flush dev eth0; \
                 ping -c 1 -W 1 -I 192.0.2.10 10.0.0.254 || true";
    lab.sh("server1", wrong);
    let what = "the real server 10.0.0.2 (02:00:00:00:03:01) claims it";
    until(&lab, "it is found", 5 * SECOND, || only(&lab, "virtual address 192.0.2.10", what).is_some());
    let begun = events.next().unwrap();
    assert_eq!(
        (&begun["cause"], &begun["service"]),
        (&Value::from("address_claimed"), &Value::from("virtual address 192.0.2.10"))
    );
    end(listener);
}
