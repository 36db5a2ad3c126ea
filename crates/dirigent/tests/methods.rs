//! Direct routing and tunnelling with real clients and real servers, which were set up by `dirigent realserver`, as a
//! user would. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use common::traffic::{self, DR, Method, VIPS, tunnel};

/// Everything that clients do, with one method on one path with one shape of lab, in both families; then again with a
/// narrower servers' network.
fn works(method: Method, arguments: &str) {
    let arguments: Vec<_> = ["--servers", "2"].into_iter().chain(arguments.split_whitespace()).collect();
    let lab = TestLab::up(&arguments);
    traffic::add_services(&lab, method);
    let _listeners = traffic::Listeners::start(&lab, method);
    for (_, _, host) in VIPS {
        let mut answers: Vec<_> = (0..4).map(|_| lab.curl(&format!("http://{host}/"))).collect();
        answers.sort();
        assert_eq!(answers, ["server1", "server1", "server2", "server2"]);
    }
    traffic::probes_and_errors_are_answered(&lab);
    for mtu in [1500, 1400] {
        traffic::narrow_servers(&lab, mtu);
        traffic::files_come_whole(&lab);
        traffic::datagrams_of_every_size(&lab);
        traffic::bulk_flows_both_ways(&lab);
    }
    // The director carries one half, and its counters show it.
    let stats = lab.json(&["stats", "--json"]);
    for service in stats["services"].as_array().unwrap() {
        let counters = &service["counters"];
        let used = !service["servers"].as_array().unwrap().is_empty();
        assert!(!used || counters["in_packets"].as_u64().unwrap() > 0, "{service}");
        assert_eq!((counters["out_packets"].as_u64(), counters["out_bytes"].as_u64()), (Some(0), Some(0)), "{service}");
    }
    let connections = lab.json(&["connection", "list", "--json"]);
    let states = connections["connections"].as_array().unwrap();
    assert!(states.iter().any(|c| c["state"] == "FIN_WAIT"), "closed by the client, as far as is seen: {connections}");
}

// The matrix: a test for each lab. A tunnel leads both families over one, so half of what it carries is mixed.

#[test]
fn direct_routing_on_tc() {
    works(DR, "--mode dr --path tc");
}

#[test]
fn direct_routing_on_native_xdp() {
    works(DR, "--mode dr --path xdp --no-offloads");
}

#[test]
fn direct_routing_on_tc_with_one_arm() {
    works(DR, "--mode dr --path tc --one-arm");
}

#[test]
fn direct_routing_on_native_xdp_with_one_arm() {
    works(DR, "--mode dr --path xdp --no-offloads --one-arm");
}

#[test]
fn ipip_over_ipv4_on_tc() {
    works(tunnel("ipip", "4"), "--mode tun --tunnel ipip --tunnel-family 4 --path tc");
}

#[test]
fn ipip_over_ipv4_on_native_xdp_with_one_arm() {
    works(tunnel("ipip", "4"), "--mode tun --tunnel ipip --tunnel-family 4 --path xdp --no-offloads --one-arm");
}

#[test]
fn ipip_over_ipv6_on_tc_with_one_arm() {
    works(tunnel("ipip", "6"), "--mode tun --tunnel ipip --tunnel-family 6 --path tc --one-arm");
}

#[test]
fn ipip_over_ipv6_on_native_xdp() {
    works(tunnel("ipip", "6"), "--mode tun --tunnel ipip --tunnel-family 6 --path xdp --no-offloads");
}

#[test]
fn gre_over_ipv4_on_tc_with_one_arm() {
    works(tunnel("gre", "4"), "--mode tun --tunnel gre --tunnel-family 4 --path tc --one-arm");
}

#[test]
fn gre_over_ipv4_on_native_xdp() {
    works(tunnel("gre", "4"), "--mode tun --tunnel gre --tunnel-family 4 --path xdp --no-offloads");
}

#[test]
fn gre_over_ipv6_on_tc() {
    works(tunnel("gre", "6"), "--mode tun --tunnel gre --tunnel-family 6 --path tc");
}

#[test]
fn gre_over_ipv6_on_native_xdp_with_one_arm() {
    works(tunnel("gre", "6"), "--mode tun --tunnel gre --tunnel-family 6 --path xdp --no-offloads --one-arm");
}

#[test]
fn gue_over_ipv4_on_tc() {
    works(tunnel("gue", "4"), "--mode tun --tunnel gue --tunnel-family 4 --path tc");
}

#[test]
fn gue_over_ipv4_on_native_xdp_with_one_arm() {
    works(tunnel("gue", "4"), "--mode tun --tunnel gue --tunnel-family 4 --path xdp --no-offloads --one-arm");
}

#[test]
fn gue_over_ipv6_on_tc_with_one_arm() {
    works(tunnel("gue", "6"), "--mode tun --tunnel gue --tunnel-family 6 --path tc --one-arm");
}

#[test]
fn gue_over_ipv6_on_native_xdp() {
    works(tunnel("gue", "6"), "--mode tun --tunnel gue --tunnel-family 6 --path xdp --no-offloads");
}

/// The host forwards nothing: the director sends frames itself.
#[test]
fn a_host_that_does_not_forward_still_directs() {
    for (mode, path) in [("dr", "tc"), ("tun", "xdp")] {
        let lab = TestLab::up(&["--servers", "1", "--mode", mode, "--path", path, "--no-offloads"]);
        let off = "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding";
        lab.sh("director", off);
        assert_eq!(lab.sh("director", "cat /proc/sys/net/ipv4/conf/c0/forwarding"), "0");
        for (_, _, host) in VIPS {
            assert_eq!(lab.curl(&format!("http://{host}/")), "server1", "{mode} {path}");
        }
    }
}
