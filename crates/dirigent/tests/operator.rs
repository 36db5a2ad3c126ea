//! What an operator does to a daemon that runs, and what it says to that: signals, addresses that come and go. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Within a second, and the time of a question.
fn soon(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_millis(1500), "not within a second: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn status(lab: &TestLab) -> Value {
    lab.json(&["status", "--json"])
}

fn pid(lab: &TestLab) -> u64 {
    status(lab)["daemon"]["pid"].as_u64().unwrap()
}

fn hang_up(lab: &TestLab) {
    assert!(Command::new("kill").args(["-HUP", &pid(lab).to_string()]).status().unwrap().success());
}

/// The problems that the status names: in JSON, and each as a line of the text.
fn problems(lab: &TestLab) -> Vec<Value> {
    let (text, _) = lab.dirigent(&["status"]);
    let problems = status(lab)["problems"].as_array().unwrap().clone();
    for p in &problems {
        let [place, what, remedy] = ["place", "what", "remedy"].map(|key| p[key].as_str().unwrap());
        let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        let line = format!("  problem: {place}{what}{remedy}");
        assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    }
    assert_eq!(text.matches("problem:").count(), problems.len(), "{text}");
    problems
}

fn services(lab: &TestLab) -> Vec<(String, Vec<u64>)> {
    let services = lab.json(&["service", "list", "--json"]);
    let weights = |s: &Value| s["servers"].as_array().unwrap().iter().map(|s| s["weight"].as_u64().unwrap()).collect();
    let name = |s: &Value| format!("{} {}", s["protocol"].as_str().unwrap(), s["address"].as_str().unwrap());
    services.as_array().unwrap().iter().map(|s| (name(s), weights(s))).collect()
}

#[test]
fn sighup_goes_to_what_the_file_says() {
    let lab = TestLab::up(&["--servers", "2"]);
    let (daemon, text) = (pid(&lab), lab.config());
    lab.write_config(&text.replace("address = \"10.0.0.3:8080\"", "address = \"10.0.0.3:8080\"\nweight = 0"));
    hang_up(&lab);
    soon("the weight", || services(&lab)[0].1 == [1, 0]);
    for _ in 0..4 {
        assert_eq!(lab.curl("http://192.0.2.10/"), "server1");
    }
    let log = lab.log();
    assert!(log.contains("edit server 10.0.0.3:8080 method nat weight 0 of tcp 192.0.2.10:80"), "{log}");
    assert_eq!((pid(&lab), problems(&lab).len()), (daemon, 0));
}

/// Who sends a signal gets no answer: so the log has all mistakes, and the status has them until a reload is taken.
#[test]
fn a_refused_sighup_changes_nothing_and_is_seen() {
    let lab = TestLab::up(&["--servers", "2"]);
    let (daemon, text, before) = (pid(&lab), lab.config(), services(&lab));
    let wrong = text.replacen("scheduler = \"rr\"", "scheduler = \"round\"", 1).replacen(
        "version = 1",
        "version = 1\nnonsense = 1",
        1,
    );
    let wrong = format!("{wrong}\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:443\"\n");
    lab.write_config(&wrong);
    hang_up(&lab);
    soon("the log", || lab.log().contains("the old one stays in force"));
    let line = |wanted: &str| wrong.lines().position(|line| line == wanted).unwrap() + 1;
    let file = format!("{}/{}/dirigent.toml", dirigent_net::lab::DIRECTORY, lab.name());
    let places = [format!("{file}:{}:", line("nonsense = 1")), format!("{file}:{}:", line("scheduler = \"round\""))];
    let log = lab.log();
    for place in &places {
        let said = log.lines().find(|line| line.contains(place)).unwrap_or_else(|| panic!("{place} is not in\n{log}"));
        assert!(said.contains("ERROR") && said.contains("; "), "with a remedy: {said}");
    }
    // The daemon goes on, and so does all it does.
    assert_eq!((pid(&lab), services(&lab)), (daemon, before.clone()));
    let mut answers = [lab.curl("http://192.0.2.10/"), lab.curl("http://192.0.2.10/")];
    answers.sort();
    assert_eq!(answers, ["server1", "server2"]);
    // The status says it, in both forms.
    let found = problems(&lab);
    assert_eq!((found.len(), found[0]["place"].as_str().unwrap()), (3, file.as_str()), "{found:?}");
    assert!(found[0]["what"].as_str().unwrap().contains("the last reload was refused"), "{found:?}");
    for (problem, place) in found[1..].iter().zip(&places) {
        assert!(problem["place"].as_str().unwrap().starts_with(place), "{found:?}");
        assert_ne!(problem["remedy"], "", "{found:?}");
    }
    // Until it is put right.
    lab.write_config(&text);
    hang_up(&lab);
    soon("the problems are gone", || problems(&lab).is_empty());
    assert_eq!(services(&lab), before);
}

/// Nothing is wrong with the file, but it cannot be carried out to its end: what was done is taken back.
#[test]
fn a_reload_that_fails_half_way_is_taken_back() {
    let lab = TestLab::up(&["--servers", "2"]);
    let (text, before) = (lab.config(), services(&lab));
    let pin = format!("/sys/fs/bpf/{}-foreign", lab.name());
    dirigent_datapath::kernel::pin_pass(Path::new(&pin)).unwrap();
    lab.sh("director", &format!("ip link set dev r0 xdpgeneric pinned {pin}; rm {pin}"));
    let foreign = || lab.sh("director", "ip -d link show dev r0 | grep -o 'prog/xdp id [0-9]*'");
    let theirs = foreign();
    let generic = text.replacen("mode = \"auto\"", "mode = \"xdp-generic\"", 1);
    let generic = generic.replacen("192.0.2.10:80", "192.0.2.11:80", 1);
    lab.write_config(&generic);
    let (code, said) = lab.dirigent_fails(&["reload"]);
    assert_eq!(code, 1);
    assert!(said.contains("interface r0 carries XDP program") && said.contains("is left alone"), "{said}");
    assert_eq!(foreign(), theirs);
    assert_eq!(services(&lab), before);
    let attached = status(&lab)["interfaces"].clone();
    let paths: Vec<_> = attached.as_array().unwrap().iter().map(|i| (i["name"].as_str(), i["path"].as_str())).collect();
    assert_eq!(paths, [(Some("c0"), Some("tc")), (Some("r0"), Some("tc"))]);
    let links = lab.sh("director", "ip -d link show dev c0");
    assert!(!links.contains("prog/xdp"), "the interface before it is as it was: {links}");
    let held = lab.sh("director", "ip -br address show lo");
    assert!(held.contains("192.0.2.10/32") && !held.contains("192.0.2.11"), "{held}");
    let mut answers = [lab.curl("http://192.0.2.10/"), lab.curl("http://192.0.2.10/")];
    answers.sort();
    assert_eq!(answers, ["server1", "server2"]);
    assert_eq!(problems(&lab).len(), 2);
    // With the foreign program gone it can be done.
    lab.sh("director", "ip link set dev r0 xdpgeneric off");
    lab.dirigent(&["reload"]);
    assert!(problems(&lab).is_empty());
    assert_eq!(lab.curl("http://192.0.2.11/").len(), "server1".len());
}

/// The status names a virtual address that is the operator's and that nobody holds, until it is added as it says.
#[test]
fn virtual_addresses_that_nobody_holds_are_named_until_they_are_added() {
    let lab = TestLab::up(&["--servers", "1"]);
    let service = |vip: &str, server: &str| {
        format!(
            "\n[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:80\"\n[[service.server]]\naddress = \"{server}:8080\"\n"
        )
    };
    let [four, six] = [service("192.0.2.77", "10.0.0.2"), service("[2001:db8::77]", "[fd00::2]")];
    lab.write_config(&format!("{}{four}{six}", lab.config()));
    lab.dirigent(&["reload"]);
    for (vip, url, length) in
        [("192.0.2.77", "http://192.0.2.77/", 32), ("2001:db8::77", "http://[2001:db8::77]/", 128)]
    {
        let holder = |status: &Value| {
            let all = status["virtual_addresses"].as_array().unwrap().clone();
            let found = all.into_iter().find(|v| v["address"] == vip).unwrap();
            assert_eq!(found["managed"], false);
            found["holder"].clone()
        };
        let named = |lab: &TestLab| problems(lab).into_iter().find(|p| p["place"] == format!("virtual address {vip}"));
        let problem = named(&lab).unwrap();
        let remedy = problem["remedy"].as_str().unwrap();
        let add = remedy.split('`').nth(1).unwrap();
        assert_eq!(add, format!("ip address add {vip}/{length} dev lo"));
        assert!(remedy.contains("vip = \"manage\""), "{remedy}");
        assert_eq!(holder(&status(&lab)), Value::Null);
        let text = lab.dirigent(&["status"]).0;
        assert!(text.contains(&format!("  virtual address {vip}: nobody here\n")), "{text}");
        let refused = lab.sh("client", &format!("curl -s -g --max-time 0.3 {url} || echo nothing"));
        assert_eq!(refused, "nothing", "its packets pass untouched");

        // As it says.
        lab.sh("director", add);
        soon("held", || holder(&status(&lab)) == "lo");
        assert_eq!(named(&lab), None);
        assert!(lab.dirigent(&["status"]).0.contains(&format!("  virtual address {vip}: on lo\n")));
        soon("answers", || lab.sh("client", &format!("curl -s -g --max-time 0.3 {url} || true")) == "server1");

        lab.sh("director", &format!("ip address del {vip}/{length} dev lo"));
        soon("named again", || named(&lab).is_some() && holder(&status(&lab)).is_null());
    }
    assert_eq!(problems(&lab).len(), 2);
    let again: Vec<_> = problems(&lab).iter().map(|p| p["place"].as_str().unwrap().to_owned()).collect();
    assert_eq!(again, ["virtual address 192.0.2.77", "virtual address 2001:db8::77"]);
}

/// A daemon that cannot start says why and leaves nothing: no program on any interface, no table, no socket.
#[test]
fn a_start_that_fails_leaves_nothing() {
    let lab = TestLab::up(&["--servers", "1", "--no-daemon"]);
    let file = format!("{}/{}/dirigent.toml", dirigent_net::lab::DIRECTORY, lab.name());
    let run = || lab.sh("director", &format!("timeout 60 dirigent run --config {file} 2>&1 || echo exit $?"));
    let nothing = || {
        assert!(!lab.pins().exists());
        assert!(!Path::new(&format!("/run/dirigent/{}.sock", lab.name())).exists());
        let programs =
            lab.sh("director", "for d in c0 r0 lo; do tc filter show dev $d ingress; ip -d link show dev $d; done");
        assert!(!programs.contains("dirigent") && !programs.contains("prog/xdp"), "{programs}");
        assert!(!lab.sh("director", "ip -br address show lo").contains("192.0.2.10"));
        assert!(lab.dirigent_fails(&["status"]).1.contains("there is no director"));
    };
    let text = lab.config();
    lab.write_config(&text.replacen("[director]\n", "[director]\ngroup = \"nosuchgroup\"\n", 1));
    let said = run();
    assert!(said.contains("there is no group nosuchgroup") && said.ends_with("exit 1"), "{said}");
    nothing();

    let pin = format!("/sys/fs/bpf/{}-foreign", lab.name());
    dirigent_datapath::kernel::pin_pass(Path::new(&pin)).unwrap();
    lab.sh("director", &format!("ip link set dev r0 xdpgeneric pinned {pin}; rm {pin}"));
    lab.write_config(&text.replacen("mode = \"auto\"", "mode = \"xdp-generic\"", 1));
    let said = run();
    assert!(said.contains("interface r0 carries XDP program") && said.ends_with("exit 1"), "{said}");
    lab.sh("director", "ip link set dev r0 xdpgeneric off");
    nothing();
    lab.start_daemon();
    assert_eq!(lab.curl("http://192.0.2.10/"), "server1");
}

/// Counters are zeroed by service or all; the rest goes on counting, over a new daemon too. Rates need a daemon.
#[test]
fn counters_are_zeroed_and_rates_are_told() {
    let lab = TestLab::up(&["--servers", "2"]);
    let connections = |of: &Value| of["counters"]["connections"].as_u64().unwrap();
    let counted = || {
        let stats = lab.json(&["stats", "--json"]);
        let service = &stats["services"][0];
        let servers: Vec<_> = service["servers"].as_array().unwrap().iter().map(connections).collect();
        (servers, connections(service), stats["total"]["connections"].as_u64().unwrap())
    };
    let curl = |times: usize| (0..times).for_each(|_| _ = lab.curl("http://192.0.2.10/"));
    curl(20);
    assert_eq!(counted(), (vec![10, 10], 20, 20));
    // The average takes a quarter of what came in two seconds: 20 connections are 10 a second, and 2 in the average.
    let begun = Instant::now();
    let rate = loop {
        let stats = lab.json(&["stats", "--rate", "--json"]);
        let rate = stats["services"][0]["rates"]["connections"].as_u64().unwrap();
        assert_eq!(stats["rates"]["connections"], rate, "{stats}");
        if rate > 0 || begun.elapsed() > Duration::from_secs(5) {
            break rate;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!((1..=2).contains(&rate), "{rate}");
    let (text, _) = lab.dirigent(&["stats", "--rate"]);
    assert!(text.starts_with("SERVICE") && text.contains("CONNECTIONS/S") && text.contains("\ntotal "), "{text}");

    let (said, _) = lab.dirigent(&["stats", "--zero", "tcp/192.0.2.10:80"]);
    assert_eq!(said, "zeroed the counters of tcp 192.0.2.10:80 and its servers\n");
    assert_eq!(counted(), (vec![0, 0], 0, 20));
    curl(2);
    assert_eq!(counted(), (vec![1, 1], 2, 22));
    let (code, said) = lab.dirigent_fails(&["stats", "--zero", "tcp 192.0.2.99:80"]);
    assert!(code == 7 && said.contains("there is no such service") && said.contains("service list"), "{said}");

    lab.kill_daemon();
    assert_eq!(counted(), (vec![1, 1], 2, 22));
    for what in [&["stats", "--rate"][..], &["stats", "--zero"]] {
        let (code, said) = lab.dirigent_fails(what);
        assert!(code == 1 && said.contains("daemon"), "{said}");
    }
    curl(2);
    lab.start_daemon();
    assert_eq!(counted(), (vec![2, 2], 4, 24));
    lab.dirigent(&["stats", "--zero"]);
    assert_eq!(counted(), (vec![0, 0], 0, 0));
}
