//! What breaks NAT, on the servers and on the way to them.

use super::Heal::{By, Fix, Said};
use super::{Break, WEB4, WEB6, breaks, find, recovers};
use crate::common::TestLab;

const ECHO4: &str = "server 10.0.0.2:7 of udp 192.0.2.10:7";
const ECHO6: &str = "server [fd00::2]:7 of udp [2001:db8::10]:7";

const WRONG4: &str = "ip neigh replace 10.0.0.2 lladdr 02:00:00:00:09:09 dev r0 nud permanent";
const WRONG6: &str = "ip neigh replace fd00::2 lladdr 02:00:00:00:01:03 dev r0 nud permanent";

const AROUND4: &str = "ip route replace default via 10.0.0.254";
const AROUND6: &str = "ip -6 route replace default via fd00::254";

#[test]
fn servers_ways_back_are_found() {
    let lab = TestLab::up(&["--servers", "1"]);
    let all: &[Break] = &[
        (&[("server1", AROUND4)], &[("replies_bypass", WEB4)], Said),
        (&[("server1", AROUND4), ("server1", AROUND6)], &[("replies_bypass", WEB4), ("replies_bypass", WEB6)], Said),
        (&[("server1", "ip route del default")], &[("replies_bypass", WEB4)], Said),
        (&[("server1", "ip -6 route del default")], &[("replies_bypass", WEB6)], Said),
        (&[("server1", "ip route replace blackhole default")], &[("replies_bypass", WEB4)], Said),
        // Its own network it answers, and nobody else.
        (
            &[("server1", nft!("ip", "input", "accept", "ip saddr != 10.0.0.0/24 drop"))],
            &[("replies_bypass", WEB4)],
            By(&[("server1", "nft delete table ip gone")]),
        ),
        // The other router sends answers to probes to the director, and those to clients it would not.
        (
            &[("router", "ip route add 198.18.0.0/15 via 203.0.113.2"), ("server1", AROUND4)],
            &[("answers_detour", "server 10.0.0.2")],
            Said,
        ),
        // Datagrams to it are answered.
        (
            &[("server1", nft!("ip", "input", "accept", "tcp dport 8080 ip saddr != 10.0.0.0/24 drop"))],
            &[("server_drops", WEB4)],
            By(&[("server1", "nft delete table ip gone")]),
        ),
        // The server believes the wrong one of two that have the director's address.
        (
            &[
                ("router", "ip address add 10.0.0.1/32 dev servers0"),
                ("server1", "ip neigh replace 10.0.0.1 lladdr 02:00:00:00:01:03 dev eth0 nud reachable"),
            ],
            &[("own_address_twice", "interface r0")],
            By(&[("router", "ip address del 10.0.0.1/32 dev servers0"), ("server1", "ip neigh del 10.0.0.1 dev eth0")]),
        ),
    ];
    breaks(&lab, 4, all);
}

#[test]
fn what_keeps_servers_from_answering_is_found() {
    let lab = TestLab::up(&["--servers", "1"]);
    let over = By(&[("server1", "nft delete table inet gone")]);
    let all: &[Break] = &[
        (
            &[("server1", nft!("inet", "input", "accept", "tcp dport 8080 reject with tcp reset"))],
            &[("port_closed", WEB4), ("port_closed", WEB6)],
            over,
        ),
        (
            &[("server1", nft!("inet", "input", "accept", "udp dport 7 reject"))],
            &[("port_closed", ECHO4), ("port_closed", ECHO6)],
            over,
        ),
        (&[("server1", nft!("inet", "input", "accept", "meta nfproto ipv4 drop"))], &[("server_down", WEB4)], over),
    ];
    breaks(&lab, 4, all);
    // The wrong port is mapped.
    let config = lab.config();
    lab.write_config(&config.replace("10.0.0.2:8080", "10.0.0.2:8081"));
    lab.dirigent(&["reload"]);
    find(&lab, &[("port_closed", "server 10.0.0.2:8081 of tcp 192.0.2.10:80")], "another port");
    lab.write_config(&config);
    lab.dirigent(&["reload"]);
    recovers(&lab, 4, "another port");
    // As a check that asks has it: something must come.
    let check = "[[service.server.check]]\ntype = \"udp\"\nreply = \"00\"\ninterval = \"1s\"\n";
    let echo = "address = \"10.0.0.2:7\"\n";
    lab.write_config(&config.replace(echo, &format!("{echo}{check}")));
    lab.dirigent(&["reload"]);
    find(&lab, &[("wrong_answer", ECHO4)], "an answer that is not the one wanted");
    lab.write_config(&config);
    lab.dirigent(&["reload"]);
    recovers(&lab, 4, "a check");
}

#[test]
fn ways_to_servers_are_found_wanting() {
    let lab = TestLab::up(&["--servers", "1"]);
    let all: &[Break] = &[
        (
            &[("server1", "ip address del 10.0.0.2/24 dev eth0")],
            &[("neighbour", "server 10.0.0.2")],
            By(&[("server1", "ip address add 10.0.0.2/24 dev eth0; ip route add default via 10.0.0.1")]),
        ),
        (
            &[("director", "ip route add unreachable 10.0.0.2/32")],
            &[("no_route", "server 10.0.0.2")],
            By(&[("director", "ip route del unreachable 10.0.0.2/32")]),
        ),
        (
            &[("director", "ip -6 route add blackhole fd00::2/128")],
            &[("no_route", "server fd00::2")],
            By(&[("director", "ip -6 route del blackhole fd00::2/128")]),
        ),
        (&[("director", WRONG4)], &[("neighbour_wrong", "server 10.0.0.2")], Fix),
        (&[("director", WRONG6)], &[("neighbour_wrong", "server fd00::2")], Said),
        (
            &[("director", WRONG4), ("director", WRONG6), ("server1", "ip route del default")],
            &[("neighbour_wrong", "server 10.0.0.2"), ("neighbour_wrong", "server fd00::2")],
            By(&[
                ("director", "ip neigh del 10.0.0.2 dev r0; ip neigh del fd00::2 dev r0"),
                ("server1", "ip route add default via 10.0.0.1"),
            ]),
        ),
        (
            &[("router", "ip address add 10.0.0.2/32 dev servers0")],
            &[("server_twice", "server 10.0.0.2")],
            By(&[("router", "ip address del 10.0.0.2/32 dev servers0")]),
        ),
    ];
    breaks(&lab, 4, all);
}
