//! What only clients' own connections show: they are looked at, and told with the name of what the director suspects.

use super::{WEB4, WEB6, find, is_healthy, obey, recovers};
use crate::common::TestLab;
use std::process::Child;

const VIP4: &str = "http://192.0.2.10/";
const VIP6: &str = "http://[2001:db8::10]/";

/// Clients that ask in vain, for as long as it takes.
fn in_vain(lab: &TestLab, host: &str, url: &str) -> Vec<Child> {
    let argv = ["curl", "-sSg", "--max-time", "30", "-o", "/dev/null", url];
    (0..3).map(|_| lab.start(host, &argv)).collect()
}

fn end(vain: Vec<Child>) {
    for mut child in vain {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What the doctor tries comes back; clients of one network are answered around the director, or directly, or the director
/// has no way to them.
#[test]
fn ways_back_to_some_clients_only_are_found() {
    let lab = TestLab::up(&["--servers", "2"]);
    lab.dirigent(&["server", "remove", "192.0.2.10:80", "10.0.0.3:8080"]);
    is_healthy(&lab, 7);
    lab.dirigent(&["server", "remove", "[2001:db8::10]:80", "[fd00::3]:8080"]);
    lab.sh("director", "ip -6 route add blackhole 2001:db8:51::/64");
    let vain = in_vain(&lab, "client", VIP6);
    find(&lab, &[("no_way_to_clients", WEB6)], "no way to a client");
    end(vain);
    lab.sh("director", "ip -6 route del blackhole 2001:db8:51::/64");
    assert_eq!(lab.curl(VIP6), "server1");
    recovers(&lab, 6, "no way to a client");
    lab.sh("server1", "ip route add 198.51.100.0/24 via 10.0.0.254");
    let vain = in_vain(&lab, "client", VIP4);
    let answer = find(&lab, &[("replies_bypass", WEB4)], "around the director");
    let seen = answer["findings"][0]["evidence"].to_string();
    assert!(
        seen.contains("seen in connections: the client") && seen.contains("came back through the director"),
        "{seen}"
    );
    obey(&lab, &answer);
    assert_eq!(lab.curl(VIP4), "server1");
    end(vain);
    recovers(&lab, 6, "around the director");
    let vain = in_vain(&lab, "server2", VIP4);
    find(&lab, &[("replies_bypass_nearby", WEB4)], "clients nearby");
    end(vain);
}
