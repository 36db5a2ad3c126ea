//! Labs of all modes in which nothing is wrong: the doctor is silent. (Native XDP on virtual links needs offloads off.)

use super::is_healthy;
use crate::common::TestLab;

#[test]
fn it_says_nothing_of_healthy_nat() {
    for args in [&["--path", "tc"][..], &["--path", "xdp", "--no-offloads"], &["--one-arm"]] {
        is_healthy(&TestLab::up(&[&["--servers", "2"], args].concat()), 8);
    }
}

#[test]
fn it_says_nothing_of_healthy_direct_routing() {
    for args in [&["--path", "tc"][..], &["--path", "xdp", "--no-offloads"], &["--one-arm"]] {
        is_healthy(&TestLab::up(&[&["--servers", "2", "--mode", "dr"], args].concat()), 8);
    }
}

#[test]
fn it_says_nothing_of_healthy_tunnels() {
    for kind in ["ipip", "gre", "gue"] {
        is_healthy(&TestLab::up(&["--servers", "1", "--mode", "tun", "--tunnel", kind]), 4);
    }
    is_healthy(&TestLab::up(&["--servers", "1", "--mode", "tun", "--path", "xdp", "--no-offloads"]), 4);
}

/// Settings that look wrong and do no harm here: packets of services meet neither the host's routing nor its netfilter.
#[test]
fn it_says_nothing_of_what_does_no_harm() {
    let lab = TestLab::up(&["--servers", "1", "--path", "tc"]);
    lab.sh(
        "director",
        "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv4.conf.all.rp_filter=1 \
         net.ipv4.conf.all.accept_local=0 net.ipv4.conf.all.arp_ignore=1; \
         nft 'add table netdev gone; add chain netdev gone out { type filter hook egress device r0 priority 0; }; \
         add rule netdev gone out ip protocol tcp drop; add rule netdev gone out ip6 nexthdr tcp drop'",
    );
    lab.drop_invalid();
    for url in ["http://192.0.2.10/", "http://[2001:db8::10]/"] {
        assert_eq!(lab.curl(url), "server1");
    }
    is_healthy(&lab, 4);
}
