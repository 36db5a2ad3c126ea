//! What only clients' own connections show: they are looked at, and told with the name of what the director suspects.

use super::Heal::{By, Said};
use super::{Scripts, WEB4, find, is_healthy, obey};
use crate::common::TestLab;
use std::process::Child;

/// Clients that ask in vain, for as long as it takes.
fn in_vain(lab: &TestLab, host: &str) -> Vec<Child> {
    let argv = ["curl", "-sS", "--max-time", "30", "-o", "/dev/null", "http://192.0.2.10/"];
    (0..3).map(|_| lab.start(host, &argv)).collect()
}

/// What the doctor tries comes back; clients of one network are answered around the director, or directly.
#[test]
fn ways_back_to_some_clients_only_are_found() {
    let lab = TestLab::up(&["--servers", "2"]);
    lab.dirigent(&["server", "remove", "192.0.2.10:80", "10.0.0.3:8080"]);
    let cases: [(&str, Scripts, &str, super::Heal); 2] = [
        ("client", &[("server1", "ip route add 198.51.100.0/24 via 10.0.0.254")], "replies_bypass", Said),
        ("server2", &[], "replies_bypass_nearby", By(&[("server2", "ip route flush cache")])),
    ];
    for (host, broken, name, heal) in cases {
        is_healthy(&lab, 7);
        broken.iter().for_each(|(host, script)| _ = lab.sh(host, script));
        let mut vain = in_vain(&lab, host);
        let answer = find(&lab, &[(name, WEB4)], name);
        let seen = answer["findings"][0]["evidence"].to_string();
        assert!(seen.contains("seen in connections: the client"), "{seen}");
        if matches!(heal, Said) {
            obey(&lab, &answer);
            assert_eq!(lab.curl("http://192.0.2.10/"), "server1");
        }
        for child in &mut vain {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
