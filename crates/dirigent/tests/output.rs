//! What commands print, as text and as JSON: both say the same, and the text can be read. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use dirigent_api::{Changed, Connections, Counters, Persistence, Problem, Reason, Server, Service, Stats, Status};
use serde_json::{Value, json};
use std::process::Child;

/// A bit of everything: weights, a quiesced server, flags, both families, a service without servers, and a virtual
/// address that nobody holds.
const CONFIG: &str = r#"version = 1

[director]
mode = "tc"
connections = 4096

[[service]]
protocol = "tcp"
address = "192.0.2.10:80"
scheduler = "wrr"
vip = "manage"

[[service.server]]
address = "10.0.0.2:8080"
weight = 3

[[service.server]]
address = "10.0.0.3:8080"

[[service.server]]
address = "10.0.0.4:8080"
weight = 0

[[service]]
protocol = "udp"
address = "192.0.2.10:7"
scheduler = "rr"
vip = "manage"

[[service.server]]
address = "10.0.0.2:7"

[[service]]
protocol = "tcp"
address = "[2001:db8::10]:80"
scheduler = "mh"
scheduler_flags = ["mh-port", "mh-fallback"]
vip = "manage"

[[service.server]]
address = "[fd00::3]:8080"
weight = 1000

[[service]]
protocol = "tcp"
address = "192.0.2.10:81"
vip = "manage"

[[service]]
protocol = "tcp"
address = "192.0.2.99:80"

[[service.server]]
address = "10.0.0.2:8080"

[[mark]]
destination = "203.0.113.0/24"
set = 7

[[service]]
fwmark = 7
scheduler = "rr"
persistence = { timeout = "5m", mask = "/24" }

[[service.server]]
address = "10.0.0.2"

[[service]]
protocol = "sctp"
address = "192.0.2.10:80"
vip = "manage"

[[service.server]]
address = "10.0.0.2:81"
"#;

/// A lab with that configuration, after eight requests and an echo, with one connection open and one refused.
fn lab() -> (TestLab, Child) {
    let file = std::env::temp_dir().join(format!("dirigent-output-{}.toml", std::process::id()));
    std::fs::write(&file, CONFIG).unwrap();
    let lab = TestLab::up(&["--servers", "3", "--config", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    let sum = lab.publish("large", 64 << 20);
    assert_eq!(sum.len(), 64);
    for _ in 0..7 {
        lab.curl("http://192.0.2.10/");
    }
    lab.curl("http://[2001:db8::10]/");
    lab.sh("client", "echo hello | socat -t1 - UDP4:192.0.2.10:7");
    lab.sh("client", "! curl -s --max-time 1 http://192.0.2.10:81/");
    // Open, and after the first buffers silent: the client does not read on.
    let open = lab.start("client", &["sh", "-c", "exec curl -s http://192.0.2.10/large | sleep 60"]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    (lab, open)
}

/// Text and JSON of the same moment: what is counted in between (neighbours talk, seconds pass) makes it ask again.
fn both<T: serde::de::DeserializeOwned + serde::Serialize>(lab: &TestLab, command: &[&str]) -> (String, T) {
    for _ in 0..50 {
        let (before, said) = lab.dirigent(command);
        assert_eq!(said, "", "{command:?}");
        let (json, _) = lab.dirigent(&[command, &["--json"]].concat());
        if lab.dirigent(command).0 != before {
            continue;
        }
        for text in [&before, &json] {
            assert!(!text.contains('\x1b') && text.ends_with('\n'), "no colour where there is no terminal: {text:?}");
        }
        assert!(before.lines().all(|line| line.trim_end() == line), "blanks at the end of a line: {before:?}");
        let typed: T = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{command:?}: {e}\n{json}"));
        // Nothing in it that the API's types do not know.
        let plain: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(plain, json!(typed), "{command:?}");
        return (before, typed);
    }
    panic!("{command:?} never says the same twice");
}

/// A table of the text, cut where all its lines have two blanks: so columns that do not line up are not found.
fn table<'a>(text: &'a str, columns: &[&str]) -> Vec<Vec<&'a str>> {
    let lines: Vec<&str> = text.lines().collect();
    let characters: Vec<Vec<char>> = lines.iter().map(|line| line.chars().collect()).collect();
    let width = characters.iter().map(Vec::len).max().unwrap();
    let blank = |at: usize| characters.iter().all(|line| line.get(at).is_none_or(|c| *c == ' '));
    let mut starts = vec![0];
    starts.extend((2..width).filter(|at| blank(at - 1) && blank(at - 2) && !blank(*at)));
    let ends = starts[1..].iter().copied().chain([width + 2]);
    let fields: Vec<_> = starts.iter().copied().zip(ends.map(|end| end - 2)).collect();
    let cut = |line: &'a str, (from, to): (usize, usize)| {
        let place = |n: usize| line.char_indices().nth(n).map_or(line.len(), |(at, _)| at);
        &line[place(from)..place(to)]
    };
    let rows: Vec<Vec<_>> = lines.iter().map(|line| fields.iter().map(|field| cut(line, *field)).collect()).collect();
    let headings: Vec<_> = rows[0].iter().map(|cell| cell.trim()).collect();
    assert_eq!(headings, columns, "\n{text}");
    for (n, heading) in headings.iter().enumerate() {
        let (from, to) = fields[n];
        for (cell, line) in
            rows[1..].iter().map(|row| row[n]).zip(&lines[1..]).filter(|(cell, _)| !cell.trim().is_empty())
        {
            let number = cell.trim_start().starts_with(|c: char| c.is_ascii_digit()) && !cell.contains('.');
            let words = ["SERVER", "STATE", "MEANING", "CLIENT", "VIRTUAL"].contains(heading);
            if number && !words {
                assert_eq!(cell.chars().count(), to - from, "{heading} is not flush right: {line:?}\n{text}");
            }
        }
    }
    rows[1..].iter().map(|row| row.iter().map(|cell| cell.trim()).collect()).collect()
}

fn bytes(count: u64) -> String {
    match count {
        0..1000 => format!("{count} B"),
        1000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

fn expect(rows: Vec<Vec<&str>>, wanted: Vec<Vec<String>>) {
    assert_eq!(rows.len(), wanted.len(), "{rows:#?}\n{wanted:#?}");
    for (row, wanted) in rows.iter().zip(&wanted) {
        assert_eq!(row, wanted);
    }
}

fn services_say_the_same(lab: &TestLab) {
    let (text, services): (_, Vec<Service>) = both(lab, &["service", "list"]);
    let rows = table(&text, &["SERVICE", "SCHEDULER", "METHOD", "WEIGHT", "ACTIVE", "INACTIVE", "STATE"]);
    let mut wanted = Vec::new();
    for s in &services {
        let sum = |of: fn(&Server) -> u32| s.servers.iter().map(of).sum::<u32>().to_string();
        let flags = if s.flags.is_empty() { String::new() } else { format!(" ({})", s.flags.join(",")) };
        let none = String::new;
        let name = if s.fwmark.is_some() { "FWM  7".into() } else { format!("{} {}", s.protocol, s.address) };
        let kept = s.persistence.as_ref().map(|p| format!(" persistent {} mask {}", p.timeout_s, p.mask));
        let head = [
            name,
            format!("{}{flags}{}", s.scheduler, kept.unwrap_or_default()),
            none(),
            none(),
            sum(|s| s.active),
            sum(|s| s.inactive),
            none(),
        ];
        wanted.push(head.to_vec());
        for s in &s.servers {
            let (weight, active, inactive) = (s.weight.to_string(), s.active.to_string(), s.inactive.to_string());
            wanted.push(
                [format!("→ {}", s.address), none(), s.method.clone(), weight, active, inactive, s.state.clone()]
                    .to_vec(),
            );
        }
    }
    expect(rows, wanted);
    // And it is what was configured and happened.
    let [site, _, other, echo, sctp, six, mark] = services.as_slice() else { panic!("{services:#?}") };
    assert_eq!((site.address.as_str(), site.scheduler.as_str()), ("192.0.2.10:80", "wrr"));
    assert_eq!(site.servers.iter().map(|s| s.weight).collect::<Vec<_>>(), [3, 1, 0]);
    assert_eq!(
        site.servers.iter().map(|s| s.state.as_str()).collect::<Vec<_>>(),
        ["available", "available", "quiesced"]
    );
    assert_eq!(site.servers.iter().map(|s| s.active + s.inactive).collect::<Vec<_>>(), [6, 2, 0], "3:1 of eight");
    assert_eq!(site.servers.iter().map(|s| s.active).sum::<u32>(), 1);
    assert_eq!((other.address.as_str(), echo.address.as_str()), ("192.0.2.99:80", "192.0.2.10:7"));
    assert_eq!(echo.servers[0].inactive, 1);
    assert_eq!((mark.protocol.as_str(), mark.fwmark, mark.family), ("fwm", Some(7), 4));
    assert_eq!(mark.persistence, Some(Persistence { timeout_s: 300, mask: "255.255.255.0".into() }));
    assert_eq!(mark.servers[0].address, "10.0.0.2:0");
    assert_eq!((sctp.protocol.as_str(), sctp.address.as_str()), ("sctp", "192.0.2.10:80"));
    assert_eq!(
        (six.scheduler.as_str(), six.flags.as_slice()),
        ("mh", ["mh-port".to_owned(), "mh-fallback".to_owned()].as_slice())
    );
    assert_eq!((six.servers[0].weight, six.servers[0].inactive), (1000, 1));
}

fn servers_say_the_same(lab: &TestLab) {
    let (text, servers): (_, Vec<Server>) = both(lab, &["server", "list"]);
    let headings = ["SERVER", "SERVICE", "METHOD", "WEIGHT", "LIMITS", "ACTIVE", "INACTIVE", "STATE", "NEXT HOP"];
    let wanted = servers.iter().map(|s| {
        let (weight, active, inactive) = (s.weight.to_string(), s.active.to_string(), s.inactive.to_string());
        let hop = format!("{} {}", s.next_hop.state, s.next_hop.mac);
        let limits = "-".to_owned();
        vec![
            s.address.clone(),
            s.service.clone(),
            s.method.clone(),
            weight,
            limits,
            active,
            inactive,
            s.state.clone(),
            hop,
        ]
    });
    expect(table(&text, &headings), wanted.collect());
    assert_eq!(servers.len(), 8);
    let first = &servers[0];
    assert_eq!((first.address.as_str(), first.method.as_str()), ("10.0.0.2:8080", "nat"));
    assert_eq!((first.next_hop.state.as_str(), first.next_hop.mac.as_str()), ("resolved", "02:00:00:00:03:01"));
    assert_eq!(first.next_hop.mtu, 1500);
}

fn connections_say_the_same(lab: &TestLab) {
    let (text, all): (_, Connections) = both(lab, &["connection", "list"]);
    let headings = ["PROTOCOL", "CLIENT", "VIRTUAL", "SERVER", "STATE", "EXPIRES", "IN PACKETS", "OUT PACKETS"];
    let wanted = all.connections.iter().map(|c| {
        let (arrived, left) = (c.in_packets.to_string(), c.out_packets.to_string());
        let (client, vip, server) = (c.client.clone(), c.virtual_address.clone(), c.server.clone());
        vec![c.protocol.clone(), client, vip, server, c.state.clone(), format!("{} s", c.expires_s), arrived, left]
    });
    expect(table(&text, &headings), wanted.collect());
    assert_eq!((all.connections.len(), all.more), (10, false));
    let of = |state: &str| all.connections.iter().filter(|c| c.state == state).count();
    assert_eq!((of("ESTABLISHED"), of("TIME_WAIT"), of("UDP")), (1, 8, 1), "{text}");
    for c in &all.connections {
        assert!(c.client.starts_with("198.51.100.7:") || c.client.starts_with("[2001:db8:51::7]:"), "{text}");
        assert!(c.in_packets > 0 && c.out_packets > 0 && c.expires_s <= 900, "{text}");
    }
    // No more than were asked for, and a word about it.
    let (few, said) = lab.dirigent(&["connection", "list", "--limit", "3"]);
    assert_eq!(few.lines().count(), 4, "{few}");
    assert!(said.contains("more than 3"), "{said}");
    let few = lab.json(&["connection", "list", "--limit", "3", "--json"]);
    assert_eq!((few["connections"].as_array().unwrap().len(), &few["more"]), (3, &json!(true)));
}

fn reason_row(r: &Reason) -> Vec<String> {
    vec![r.kind.clone(), r.name.clone(), r.count.to_string(), r.text.clone()]
}

fn stats_say_the_same(lab: &TestLab) {
    let (text, stats): (_, Stats) = both(lab, &["stats"]);
    let (services, reasons) = text.split_once("\n\n").unwrap();
    let row = |name: String, c: &Counters| {
        let (arrived, left) = (c.in_packets.to_string(), c.out_packets.to_string());
        vec![name, c.connections.to_string(), arrived, bytes(c.in_bytes), left, bytes(c.out_bytes)]
    };
    let wanted = stats.services.iter().flat_map(|s| {
        let servers = s.servers.iter().map(|one| row(format!("→ {}", one.address), &one.counters));
        std::iter::once(row(s.name(), &s.counters)).chain(servers)
    });
    let headings = ["SERVICE", "CONNECTIONS", "IN PACKETS", "IN BYTES", "OUT PACKETS", "OUT BYTES"];
    expect(table(services, &headings), wanted.chain([row("total".into(), &stats.total)]).collect());
    let counted = stats.reasons.iter().filter(|r| r.count > 0).map(reason_row);
    expect(table(reasons, &["VERDICT", "REASON", "PACKETS", "MEANING"]), counted.collect());
    let site = &stats.services[0];
    assert_eq!(site.counters.connections, 8);
    assert_eq!(site.servers.iter().map(|s| s.counters.connections).collect::<Vec<_>>(), [6, 2, 0]);
    assert!(site.counters.out_bytes > site.counters.in_bytes && site.counters.in_packets > 40);
    let count = |name: &str| stats.reasons.iter().find(|r| r.name == name).unwrap().count;
    // Each packet of a client or server to another is one verdict.
    let sum = |of: fn(&Counters) -> u64| stats.services.iter().map(|s| of(&s.counters)).sum::<u64>();
    assert_eq!((stats.total.in_packets, stats.total.out_bytes), (sum(|c| c.in_packets), sum(|c| c.out_bytes)));
    assert_eq!(count("request"), sum(|c| c.in_packets));
    assert_eq!(count("reply"), sum(|c| c.out_packets));
}

fn drops_say_the_same(lab: &TestLab) {
    let (text, reasons): (_, Vec<Reason>) = both(lab, &["stats", "--drops"]);
    assert!(reasons.iter().all(|r| ["dropped", "answered"].contains(&r.kind.as_str())), "{reasons:?}");
    let lost: Vec<_> = reasons.iter().filter(|r| r.count > 0).collect();
    let rows = lost.iter().map(|r| reason_row(r)).collect();
    expect(table(&text, &["VERDICT", "REASON", "PACKETS", "MEANING"]), rows);
    let [refused] = lost.as_slice() else { panic!("{lost:?}") };
    assert!(refused.name.contains("no_server") && refused.count > 0, "{refused:?}");
}

fn statuses_say_the_same(lab: &TestLab) {
    let (text, status): (_, Status) = both(lab, &["status"]);
    let has = |line: String| assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    let daemon = status.daemon.as_ref().unwrap();
    let (pid, up, config) = (daemon.pid, daemon.uptime_s, &daemon.config);
    has(format!("director {}: forwarding (process {pid}, up {up} s, {config})", lab.name()));
    assert_eq!((status.instance.as_str(), status.version.as_str()), (lab.name(), env!("CARGO_PKG_VERSION")));
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists() && std::path::Path::new(config).exists());
    for i in &status.interfaces {
        has(format!("  interface {}: {}", i.name, i.path));
        i.reasons.iter().for_each(|reason| has(format!("    {reason}")));
    }
    let named: Vec<_> = status.interfaces.iter().map(|i| (i.name.as_str(), i.path.as_str())).collect();
    assert_eq!(named, [("c0", "tc"), ("r0", "tc")]);
    let room = &status.connections;
    assert_eq!((room.used, room.connections), (10, 4096));
    let size = bytes(room.bytes);
    has(format!("  connections: 10; room for 4096 in each address family, in tables of {size}"));
    let held: Vec<_> =
        status.virtual_addresses.iter().map(|v| (v.address.as_str(), v.managed, v.holder.as_deref())).collect();
    let lo = Some("lo");
    assert_eq!(held, [("192.0.2.10", true, lo), ("192.0.2.99", false, None), ("2001:db8::10", true, lo)]);
    has("  virtual address 192.0.2.10: on lo, managed by the daemon".into());
    has("  virtual address 192.0.2.99: nobody here".into());
    let [problem] = status.problems.as_slice() else { panic!("{text}") };
    has(format!("  problem: {problem}"));
}

fn reloads_say_the_same(lab: &TestLab) {
    assert_eq!(lab.dirigent(&["reload"]).0, "nothing to do\n");
    assert_eq!(lab.json(&["reload", "--json"]), json!({"generation": 1, "operations": [], "notes": []}));
    let lighter = CONFIG.replacen("weight = 3", "weight = 2", 1).replace("connections = 4096", "connections = 5000");
    lab.write_config(&lighter);
    let (text, said) = lab.dirigent(&["reload"]);
    lab.write_config(CONFIG);
    lab.dirigent(&["reload"]);
    lab.write_config(&lighter);
    let changed: Changed = serde_json::from_value(lab.json(&["reload", "--json"])).unwrap();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [changed.operations.clone(), changed.notes.clone()].concat(),
        "{said}"
    );
    let edit = "edit server 10.0.0.2:8080 method nat weight 2 of tcp 192.0.2.10:80";
    assert!(changed.operations.iter().any(|op| op == edit), "{changed:?}");
    let [note] = changed.notes.as_slice() else { panic!("{changed:?}") };
    assert!(note.starts_with("connections takes effect with `dirigent stop --detach`"), "{note}");
    // It is said as long as it is so.
    assert_eq!(lab.dirigent(&["reload"]).0, format!("{note}\n"));
    lab.write_config("version = 1\nnonsense = 2\n");
    let (code, said) = lab.dirigent_fails(&["reload", "--json"]);
    assert!(code == 3 && said.starts_with("error: ") && said.contains("dirigent.toml:2:1: "), "{said}");
    lab.write_config(CONFIG);
    lab.dirigent(&["reload"]);
}

fn checks_say_the_same(lab: &TestLab) {
    let file = format!("{}/{}/dirigent.toml", dirigent_net::lab::DIRECTORY, lab.name());
    // Beside the director, whose addresses count.
    let check = |more: &str| lab.sh("director", &format!("dirigent check --config {file} {more} 2>&1 || echo exit $?"));
    let checked = |text: &str| -> Value { serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}")) };
    let text = check("");
    let json = checked(&check("--json"));
    assert_eq!((&json["valid"], &json["problems"]), (&json!(true), &json!([])));
    let warnings: Vec<Problem> = serde_json::from_value(json["warnings"].clone()).unwrap();
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_eq!(text, format!("warning: {warning}\n{file}: valid, 7 services, 8 servers"));
    lab.write_config("version = 1\nnonsense = 2\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10\"\n");
    let text = check("");
    let json =
        checked(&lab.sh("director", &format!("dirigent check --config {file} --json 2>/dev/null || test $? = 3")));
    assert_eq!((&json["valid"], &json["warnings"]), (&json!(false), &json!([])));
    let problems: Vec<Problem> = serde_json::from_value(json["problems"].clone()).unwrap();
    assert_eq!(problems.len(), 2);
    let lines = problems.iter().map(|p| format!("error: {p}\n")).collect::<String>();
    assert_eq!(text, format!("{lines}exit 3"));
    lab.write_config(CONFIG);
}

#[test]
fn text_and_json_of_every_command_say_the_same() {
    let (lab, mut open) = lab();
    services_say_the_same(&lab);
    servers_say_the_same(&lab);
    connections_say_the_same(&lab);
    stats_say_the_same(&lab);
    drops_say_the_same(&lab);
    statuses_say_the_same(&lab);
    checks_say_the_same(&lab);
    reloads_say_the_same(&lab);
    // Colour is for people.
    let seen = lab.sh("director", "socat -u EXEC:'dirigent status',pty STDOUT");
    assert!(seen.contains("\x1b[32mforwarding\x1b[0m") && seen.contains("\x1b[31mproblem:\x1b[0m"), "{seen}");
    let _ = open.kill();
    let _ = open.wait();
}

#[test]
fn nothing_lost_is_said_in_both_forms() {
    let lab = TestLab::up(&["--servers", "1"]);
    assert_eq!(lab.dirigent(&["stats", "--drops"]).0, "no packet was dropped or answered with an error\n");
    let json = lab.json(&["stats", "--drops", "--json"]);
    assert!(json.as_array().unwrap().iter().all(|r| r["count"] == 0), "{json}");
}
