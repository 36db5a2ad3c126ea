//! What breaks direct routing and tunnels, mostly on the servers.

use super::Heal::{By, Said};
use super::{Break, DIRECT4, DIRECT6, breaks};
use crate::common::TestLab;

const VIP4: &str = "virtual address 192.0.2.10";
const VIP6: &str = "virtual address 2001:db8::10";

#[test]
fn what_breaks_direct_routing_is_found() {
    let lab = TestLab::up(&["--servers", "1", "--mode", "dr"]);
    let all: &[Break] = &[
        (&[("server1", "ip address del 192.0.2.10/32 dev lo")], &[("no_virtual_address", DIRECT4)], Said),
        (&[("server1", "ip address del 2001:db8::10/128 dev lo")], &[("no_virtual_address", DIRECT6)], Said),
        (
            &[("server1", "sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0")],
            &[("server_answers_arp", VIP4)],
            Said,
        ),
        (
            &[("server1", "ip -6 address add 2001:db8::10/128 dev eth0 nodad")],
            &[("server_answers_arp", VIP6)],
            By(&[("server1", "ip -6 address del 2001:db8::10/128 dev eth0")]),
        ),
        (
            &[("router", "ip address add 192.0.2.10/32 dev servers0")],
            &[("second_director", VIP4)],
            By(&[("router", "ip address del 192.0.2.10/32 dev servers0")]),
        ),
        (
            &[("router", "ip -6 address add 2001:db8::10/128 dev servers0 nodad")],
            &[("second_director", VIP6)],
            By(&[("router", "ip -6 address del 2001:db8::10/128 dev servers0")]),
        ),
        // As if the program were bound to the server's own address alone.
        (
            &[("server1", nft!("ip", "input", "accept", "ip daddr 192.0.2.10 tcp dport 80 reject with tcp reset"))],
            &[("port_closed", DIRECT4)],
            By(&[("server1", "nft delete table ip gone")]),
        ),
    ];
    breaks(&lab, 4, all);
}

#[test]
fn what_breaks_tunnels_is_found() {
    let lab = TestLab::up(&["--servers", "1", "--mode", "tun", "--tunnel", "gue"]);
    let all: &[Break] = &[
        (&[("server1", "ip address del 192.0.2.10/32 dev lo")], &[("no_tunnel_end", DIRECT4)], Said),
        (
            &[("server1", "$BIN realserver undo --yes --state $STATE")],
            &[("no_tunnel_end", DIRECT4), ("no_tunnel_end", DIRECT6)],
            Said,
        ),
        (
            &[("director", "ip link set r0 mtu 1300")],
            &[("tunnel_mtu", "server fd00::2")],
            By(&[("director", "ip link set r0 mtu 1500")]),
        ),
        (
            &[("server1", "ip link set eth0 down")],
            &[("neighbour", "server 10.0.0.2"), ("neighbour", "server fd00::2")],
            By(&[(
                "server1",
                "ip link set eth0 up; ip route add default via 10.0.0.254; ip -6 address add fd00::2/64 dev eth0 nodad; \
                 ip -6 route add default via fd00::254",
            )]),
        ),
    ];
    breaks(&lab, 4, all);
}
