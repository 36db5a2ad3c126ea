//! Who may be client and who server, and what the host need not provide. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::TestLab;

const URLS: [&str; 2] = ["http://192.0.2.10/", "http://[2001:db8::10]/"];

/// NAT here needs no forwarding by the host: replies then leave by the interface the client came in by.
#[test]
fn a_host_that_does_not_forward_still_directs() {
    let lab = TestLab::up(&["--servers", "2"]);
    lab.on("director", &["sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"]);
    for url in URLS {
        let mut answers = [lab.curl(url), lab.curl(url)];
        answers.sort();
        assert_eq!(answers, ["server1", "server2"], "{url}");
    }
}

/// A reply whose way out has no neighbour entry is held by the kernel until it has one, not lost.
#[test]
fn a_missing_neighbour_costs_no_packet() {
    let lab = TestLab::up(&["--servers", "1"]);
    lab.drop_invalid();
    for url in URLS {
        assert_eq!(lab.curl(url), "server1");
        for _ in 0..5 {
            lab.on("director", &["ip", "neigh", "flush", "dev", "c0"]);
            // One packet lost would cost a second's retransmission.
            let took = lab.on("client", &["curl", "-sS", "-g", "-o", "/dev/null", "-w", "%{time_total}", url]);
            let seconds: f64 = took.parse().unwrap();
            assert!(seconds < 0.9, "{url}: {took} s");
        }
    }
}

/// As in IPVS: another server answers a server directly, which refuses; picked itself, it is dropped with a reason.
#[test]
fn a_server_as_client_of_its_own_service() {
    let lab = TestLab::up(&["--servers", "1"]);
    let failed = "curl -sS -g --max-time 2 http://192.0.2.10/ >/dev/null 2>&1 && echo answered || echo failed";
    assert_eq!(lab.on("server1", &["sh", "-c", failed]), "failed");
    assert!(lab.count("server_is_client") > 0);
}

/// A client in the servers' subnet: the server answers it directly, as in IPVS, and it refuses what it did not ask.
#[test]
fn a_client_in_the_servers_subnet_is_answered_around_the_director() {
    let lab = TestLab::up(&["--servers", "2"]);
    let text = lab.config().replace("address = \"10.0.0.3:8080\"", "address = \"10.0.0.3:8080\"\nweight = 0");
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    let failed = "curl -sS --max-time 2 http://192.0.2.10/ >/dev/null 2>&1 && echo answered || echo failed";
    assert_eq!(lab.on("server2", &["sh", "-c", failed]), "failed");
    assert!(lab.count("request") > 0);
    assert_eq!(lab.count("reply"), 0, "no answer came through the director");
}

/// The director as a real server: requests go up its own stack, answers leave as the virtual service.
#[test]
fn the_director_itself_can_be_a_server() {
    let lab = TestLab::up(&["--servers", "1"]);
    lab.drop_invalid();
    let text = lab
        .config()
        .replace("address = \"10.0.0.2:8080\"", "address = \"10.0.0.1:8080\"")
        .replace("address = \"[fd00::2]:8080\"", "address = \"[fd00::1]:8080\"");
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    // Nobody listens: the stack's own reset comes back as the service's.
    let refused = "curl -sS --max-time 3 http://192.0.2.10/ 2>&1 || true";
    let said = lab.on("client", &["sh", "-c", refused]);
    assert!(said.contains("refused") || said.contains("Couldn't connect"), "{said}");
    let serve = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\ndirector' | socat -t1 - TCP6-LISTEN:8080,reuseaddr,ipv6only=0; done";
    let mut server = lab.start("director", &["timeout", "20", "sh", "-c", serve]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    for url in URLS {
        let get = format!("for i in 1 2 3 4 5; do curl -sS -g --http0.9 --max-time 3 {url} && break; sleep 0.3; done");
        assert_eq!(lab.on("client", &["sh", "-c", &get]), "director", "{url}");
    }
    assert!(lab.count("local_server") > 0 && lab.count("local_reply") > 0);
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Unlike IPVS, which would balance it: dropped, with a reason that says so.
#[test]
fn a_client_on_the_director_is_dropped_with_a_reason() {
    let lab = TestLab::up(&["--servers", "1"]);
    for url in URLS {
        let ask = format!("curl -sS -g --max-time 1 {url} >/dev/null 2>&1 && echo answered || echo failed");
        assert_eq!(lab.on("director", &["sh", "-c", &ask]), "failed", "{url}");
    }
    assert!(lab.count("client_on_director") >= 2);
}

/// Start says what the tables take and how to change it.
#[test]
fn start_prints_the_size_of_the_tables() {
    let lab = TestLab::up(&["--servers", "1"]);
    let log = lab.log();
    assert!(log.contains("MB of memory") && log.contains("connections = N"), "{log}");
}
