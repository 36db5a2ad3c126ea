//! Rules about clients, which netfilter no longer sees: said in the service, kept by the packet path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What curl says of a request: the answer, or the number of its error.
fn curl(lab: &TestLab, url: &str) -> String {
    lab.sh("client", &format!("curl -sg --max-time 1 {url} || echo error $?"))
}

/// Asks over a connection that is open; it has `answers` answers then.
fn ask(lab: &TestLab, talk: &mut Child, heard: &Path, answers: usize) {
    write!(talk.stdin.as_mut().unwrap(), "GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let begun = Instant::now();
    while std::fs::read_to_string(heard).unwrap().matches("HTTP/1.1 200").count() < answers {
        assert!(begun.elapsed() < Duration::from_secs(5), "no answer {answers}\n{}", lab.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Denied clients open nothing, those that are allowed do; what is open goes on; nothing else is touched.
fn clients_are_judged(path: &str) {
    let lab = TestLab::up(&["--servers", "2", "--path", path]);
    let client4 = lab.sh("client", "ip -4 -o route get 192.0.2.10 | sed 's/.* src \\([^ ]*\\).*/\\1/'");
    let client6 = lab.sh("client", "ip -6 -o route get 2001:db8::10 | sed 's/.* src \\([^ ]*\\).*/\\1/'");
    let services = [
        ("tcp:192.0.2.10:80", "http://192.0.2.10/", client4),
        ("tcp:[2001:db8::10]:80", "http://[2001:db8::10]/", client6),
    ];
    for (service, url, client) in &services {
        let whole = if client.contains(':') { 128 } else { 32 };
        let dropped = lab.count("denied");
        // Open before it is denied: it goes on.
        let heard = lab.file("heard");
        let host = url.trim_start_matches("http://").trim_end_matches('/');
        let family = if whole == 32 { "TCP4" } else { "TCP6" };
        let mut talk = std::process::Command::new(common::BIN)
            .args(["lab", "exec", "--name", lab.name(), "client", "--", "socat", "-", &format!("{family}:{host}:80")])
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(&heard).unwrap())
            .spawn()
            .unwrap();
        ask(&lab, &mut talk, &heard, 1);
        lab.dirigent(&["service", "edit", service, "--deny", &format!("{client}/{whole}")]);
        assert_eq!(curl(&lab, url), "error 28", "{service}");
        let (list, all) = (lab.dirigent(&["service", "list"]).0, lab.json(&["service", "list", "--json"]));
        let denied = format!("{client}/{whole}");
        assert!(list.contains(&format!("deny {denied}")), "{list}");
        let found = all.as_array().unwrap().iter().find(|s| s["deny"][0] == denied.as_str()).unwrap();
        assert_eq!((&found["allow"], found["deny"].as_array().unwrap().len()), (&serde_json::json!([]), 1), "{found}");
        assert!(lab.count("denied") > dropped, "{}", lab.dirigent(&["stats", "--drops"]).0);
        ask(&lab, &mut talk, &heard, 2);
        talk.kill().unwrap();
        talk.wait().unwrap();

        // The longest prefix decides; what is in no list is denied where there is one of those allowed.
        let wide = if whole == 32 { "0.0.0.0/0" } else { "::/0" };
        lab.dirigent(&["service", "edit", service, "--deny", wide, "--allow", &format!("{client}/{whole}")]);
        assert!(curl(&lab, url).starts_with("server"), "{service}");
        let other = if whole == 32 { "203.0.113.0/24" } else { "2001:db8:99::/48" };
        lab.dirigent(&["service", "edit", service, "--deny", "none", "--allow", other]);
        assert_eq!(curl(&lab, url), "error 28", "{service}");
        // A daemon that takes over, and a reload, keep it.
        if whole == 32 {
            lab.kill_daemon();
            assert_eq!(curl(&lab, url), "error 28", "{service}");
            lab.start_daemon();
        }
        lab.dirigent(&["reload"]);
        assert_eq!(curl(&lab, url), "error 28", "{service}");
        lab.dirigent(&["service", "edit", service, "--allow", "none"]);
        assert!(curl(&lab, url).starts_with("server"), "{service}");
        let (code, said) = lab.dirigent_fails(&["service", "edit", service, "--allow", "10.0.0.0/33"]);
        assert!(code == 3 && said.contains("allow"), "{said}");
    }
}

#[test]
fn clients_are_judged_on_tc() {
    clients_are_judged("tc");
}

#[test]
fn clients_are_judged_on_xdp() {
    clients_are_judged("xdp-generic");
}

/// Rules that stood before IPVS are named by whoever reads a configuration, with what to write instead.
#[test]
fn rules_of_netfilter_are_named() {
    let lab = TestLab::up(&["--servers", "1", "--no-daemon"]);
    let config = lab.file("dirigent.toml").display().to_string();
    let check = |lab: &TestLab| {
        let text = lab.sh("director", &format!("{} check --json --config {config}", common::BIN));
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = found["warnings"].as_array().unwrap().clone();
        all.iter().map(|w| format!("{}|{}|{}", w["place"], w["what"], w["remedy"])).collect::<Vec<_>>()
    };
    let of_rules =
        |all: &[String]| all.iter().filter(|text| text.contains("netfilter") || text.contains("policy")).count();
    assert_eq!(of_rules(&check(&lab)), 0);
    let rules = "table inet mine {
        set bad { type ipv4_addr; flags interval; elements = { 203.0.113.0/24, 198.51.100.7 } }
        chain input {
            type filter hook input priority 0; policy drop;
            ct state established,related accept
            ip saddr @bad tcp dport 80 drop
            ip6 daddr 2001:db8::10 tcp dport { 80, 443 } accept
            tcp dport 22 accept
            icmp type echo-request accept
            meta l4proto ipv6-icmp accept
        }
    }";
    let file = lab.file("rules.nft");
    std::fs::write(&file, rules).unwrap();
    lab.sh("director", &format!("nft -f {}", file.display()));
    let has = |all: &[String], parts: &[&str]| {
        assert!(all.iter().any(|text| parts.iter().all(|part| text.contains(part))), "{parts:?} in {all:#?}");
    };
    let warned = |all: &[String]| {
        assert_eq!(of_rules(all), 3, "{all:#?}");
        has(
            all,
            &[
                "nft chain inet mine input, handle",
                "tcp 192.0.2.10:80",
                "write deny = [",
                "198.51.100.7/32",
                "203.0.113.0/24",
            ],
        );
        has(all, &["tcp [2001:db8::10]:80", "remove it: the service is reached without it"]);
        has(all, &["nft chain inet mine input|", "policy drops", "`allow`"]);
    };
    let brief: Vec<String> = check(&lab).iter().map(|text| text.replace(['"', '\\'], "")).collect();
    warned(&brief);

    // The daemon: in its log and its status; and the traffic is served all the same, for that is what they say.
    lab.start_daemon();
    let problems = |lab: &TestLab| -> Vec<String> {
        let status = lab.json(&["status", "--json"]);
        let all = status["problems"].as_array().unwrap().clone();
        all.iter().map(|w| format!("{}|{}|{}", w["place"], w["what"], w["remedy"]).replace(['"', '\\'], "")).collect()
    };
    warned(&problems(&lab));
    assert!(lab.log().contains("no longer sees packets"), "{}", lab.log());
    assert!(curl(&lab, "http://192.0.2.10/").starts_with("server"));
    lab.sh("director", "nft delete table inet mine");
    lab.dirigent(&["reload"]);
    assert_eq!(of_rules(&problems(&lab)), 0);

    // What is imported on such a host.
    lab.sh("director", &format!("nft -f {}", file.display()));
    let saved = lab.file("saved");
    std::fs::write(&saved, "-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.2:8080 -m -w 1\n").unwrap();
    let said = lab.sh("director", &format!("{} import ipvsadm {} 2>&1", common::BIN, saved.display()));
    assert!(said.contains("warning: nft chain inet mine input, handle") && said.contains("write deny = ["), "{said}");
}

/// What an attempt to connect comes to, with the host's own programs on the virtual addresses.
fn other_ports_are_refused(path: &str) {
    let lab = TestLab::up(&["--servers", "1", "--path", path]);
    // Bound, for a socket of any address answers UDP from whichever the route says.
    let listen = "socat TCP6-LISTEN:2222,fork,reuseaddr,ipv6only=0 SYSTEM:'echo host' & \
                  socat UDP4-LISTEN:2222,fork,reuseaddr,bind=192.0.2.10 SYSTEM:'echo host' & \
                  socat UDP6-LISTEN:2222,fork,reuseaddr,bind=[2001:db8::10] SYSTEM:'echo host' & wait";
    let mut host = lab.start("director", &["timeout", "60", "sh", "-c", listen]);
    let ask = |lab: &TestLab, place: &str| lab.sh("client", &format!("echo | socat -t1 -T2 - {place} 2>&1 || true"));
    let ports =
        ["TCP4:192.0.2.10:2222", "TCP6:[2001:db8::10]:2222", "UDP4:192.0.2.10:2222", "UDP6:[2001:db8::10]:2222"];
    let heard = |lab: &TestLab, place: &str| {
        let begun = Instant::now();
        while ask(lab, place) != "host" {
            assert!(begun.elapsed() < Duration::from_secs(5), "{place}: {}", ask(lab, place));
        }
    };
    for place in ports {
        heard(&lab, place);
    }
    let open = lab.config();
    let shut = open.replacen("[director]\n", "[director]\nvip_default = \"reject\"\n", 1);
    assert_ne!(open, shut);
    lab.write_config(&shut);
    lab.dirigent(&["reload"]);
    for (n, place) in (1..).zip(ports) {
        let said = ask(&lab, place);
        assert!(said.contains("Connection refused"), "{place}: {said}");
        assert_eq!(lab.count("refused"), n, "one packet, one answer");
    }
    // Services, the host's other addresses, what the host itself begins from a virtual address, and pings go on.
    assert!(curl(&lab, "http://192.0.2.10/").starts_with("server"));
    assert!(curl(&lab, "http://[2001:db8::10]/").starts_with("server"));
    let own = lab.sh("director", "ip -4 -o address show dev c0 | sed 's/.* inet \\([^/]*\\).*/\\1/'");
    heard(&lab, &format!("TCP4:{own}:2222"));
    lab.sh("client", "ping -qc1 -W2 192.0.2.10; ping -qc1 -W2 2001:db8::10");
    let there = lab.sh("client", "ip -4 -o route get 192.0.2.10 | sed 's/.* src \\([^ ]*\\).*/\\1/'");
    let mut client =
        lab.start("client", &["timeout", "30", "socat", "TCP4-LISTEN:3333,fork,reuseaddr", "SYSTEM:echo client"]);
    let begun = Instant::now();
    let from_vip = format!("echo | socat -t1 - TCP4:{there}:3333,bind=192.0.2.10 2>&1 || true");
    while lab.sh("director", &from_vip) != "client" {
        assert!(begun.elapsed() < Duration::from_secs(5), "{}", lab.sh("director", &from_vip));
    }
    for mut child in [client.kill().map(|()| client), host.kill().map(|()| host)].into_iter().flatten() {
        child.wait().unwrap();
    }
    lab.write_config(&open);
    lab.dirigent(&["reload"]);
    assert_eq!(lab.count("refused"), 4);
}

#[test]
fn other_ports_of_a_virtual_address_are_refused_on_tc() {
    other_ports_are_refused("tc");
}

#[test]
fn other_ports_of_a_virtual_address_are_refused_on_xdp() {
    other_ports_are_refused("xdp-generic");
}
