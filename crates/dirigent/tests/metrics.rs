//! Metrics of a running director as Prometheus gets them, by its own checker too, and the log as objects. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;
mod link;

use common::http::{Answer, ask, get, socket};
use common::{BIN, TestLab};
use dirigent_api::log;
use dirigent_api::metrics::{self, ALL, Row};
use link::Link;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TEXT: &str = "text/plain";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";
const WEB: &str = "tcp 192.0.2.10:80";

/// Prometheus's own checker, which scripts/setup.sh provides.
fn promtool() -> Command {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
    let own = cache.unwrap_or_default().join("dirigent/tools/bin/promtool");
    Command::new(if own.exists() { own } else { "promtool".into() })
}

/// What it says of a text, or of files; it must find nothing wrong.
fn promtool_agrees(args: &[&str], text: &str) -> String {
    let mut command = promtool();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool: `scripts/setup.sh test` provides it");
    let (mut to, text) = (child.stdin.take().unwrap(), text.to_owned());
    let writer = std::thread::spawn(move || {
        // Whoever has read enough may close it.
        let _ = to.write_all(text.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {args:?}: {said}");
    said
}

fn packaged(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(file).to_str().unwrap().to_owned()
}

type Labels = BTreeMap<String, String>;

/// A scrape, read again.
#[derive(Default)]
struct Scraped {
    help: HashMap<String, String>,
    kinds: HashMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Scraped {
    fn of(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let word =
                |rest: &str| rest.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.to_owned())).unwrap();
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = word(rest);
                assert!(found.help.insert(name, help).is_none(), "{line}: twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = word(rest);
                assert!(found.kinds.insert(name, kind).is_none(), "{line}: twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = name.split_once('{').map_or((name, ""), |(name, rest)| (name, rest));
                let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty());
                let pair = |label: &str| {
                    let (name, value) = label.split_once("=\"").unwrap();
                    (name.to_owned(), value.trim_end_matches('"').to_owned())
                };
                found.samples.push((name.to_owned(), labels.map(pair).collect(), value.parse().unwrap()));
            }
        }
        found
    }

    /// The value of the sample with these labels, among others.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |all: &Labels| labels.iter().all(|(label, value)| all.get(*label).is_some_and(|is| is == value));
        let mut found = self.samples.iter().filter(|(known, all, _)| known == name && has(all));
        let value = found.next()?.2;
        assert!(found.next().is_none(), "several {name} {labels:?}");
        Some(value)
    }

    fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|(known, ..)| known == name).map(|(.., value)| value).sum()
    }

    /// Names, types, help and labels are the table's; those of its metrics that are missing.
    fn against_the_table(&self) -> Vec<&'static str> {
        let row = |name: &str| ALL.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("there is no {name}"));
        for (name, kind) in &self.kinds {
            let Row { kind: stated, help, .. } = row(name);
            assert_eq!((kind.as_str(), self.help[name].as_str()), (stated.name(), *help), "{name}");
        }
        let mut seen = BTreeSet::new();
        for (name, labels, value) in &self.samples {
            let names: BTreeSet<_> = labels.keys().map(String::as_str).collect();
            assert_eq!(names, row(name).labels.iter().copied().collect(), "{name}");
            assert!(self.kinds.contains_key(name) && value.is_finite() && *value >= 0.0, "{name} {value}");
            assert!(seen.insert((name, labels)), "{name} {labels:?} twice");
        }
        ALL.iter().map(|row| row.name).filter(|name| !self.kinds.contains_key(*name)).collect()
    }
}

fn scrape(lab: &TestLab) -> Scraped {
    let Answer { status, text, .. } = get(&socket(lab.name()), "/metrics", TEXT);
    assert_eq!(status, 200, "{text}\n{}", lab.log());
    Scraped::of(&text)
}

fn until(what: &str, log: impl Fn() -> String, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}\n{}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The lab's configuration, whose first web service checks its servers.
fn checked(lab: &TestLab, more: &str) -> String {
    let check =
        "[[service.server.check]]\ntype = \"tcp\"\ninterval = \"100ms\"\nretry_interval = \"50ms\"\nwarmup = \"0ms\"\n";
    let config = lab.config();
    let (head, services) = config.split_once("[[service]]").unwrap();
    let (first, rest) = services.split_once("[[service]]").unwrap();
    let servers = first.replace("[[service.server]]", &format!("{check}[[service.server]]"));
    // Behind each server; the first one's place had none before it.
    let servers = servers.replacen(check, "", 1) + check;
    format!("{head}{more}\n[[service]]{servers}\n[[service]]{rest}")
}

/// The checker finds nothing to complain about, and the numbers are those that the commands tell.
#[test]
fn a_scrape_says_what_the_commands_say_and_promtool_agrees() {
    let lab = TestLab::up(&["--servers", "3"]);
    lab.write_config(&checked(&lab, "[director.metrics]\nipvs_names = true\n"));
    lab.dirigent(&["reload"]);
    until("all are up", || lab.log(), || scrape(&lab).sum("dirigent_server_up") == 3.0);
    for _ in 0..6 {
        lab.curl("http://192.0.2.10/");
    }
    // To a port that the service has not.
    lab.dirigent(&["service", "add", "tcp:192.0.2.10:81", "--scheduler", "rr"]);
    lab.sh("client", "curl -s --max-time 0.3 http://192.0.2.10:81/ || true");
    lab.dirigent(&["server", "drain", WEB, "10.0.0.3:8080", "--no-wait"]);

    // Nothing moves between the two: all connections are over.
    until(
        "the last packets",
        || lab.log(),
        || {
            let [one, two] = [lab.json(&["stats", "--json"]), lab.json(&["stats", "--json"])];
            one["total"] == two["total"]
        },
    );
    let Answer { text, content_type, .. } = get(&socket(lab.name()), "/metrics", TEXT);
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    promtool_agrees(&["check", "metrics"], &text);
    let (all, stats) = (Scraped::of(&text), lab.json(&["stats", "--json"]));
    let missing = all.against_the_table();
    // There are no virtual routers and no synchronisation, and nothing is suspected.
    let none = ["dirigent_virtual_router_", "dirigent_sync_", "dirigent_suspected"];
    let missing: Vec<_> = missing.iter().filter(|name| !none.iter().any(|prefix| name.starts_with(prefix))).collect();
    assert!(missing.is_empty(), "{missing:?}");

    let counters = [
        ("connections", "connections"),
        ("in_packets", "incoming_packets"),
        ("in_bytes", "incoming_bytes"),
        ("out_packets", "outgoing_packets"),
        ("out_bytes", "outgoing_bytes"),
    ];
    let mut compared = 0;
    for (key, word) in counters {
        let name = |of: &str| format!("dirigent_{of}{word}_total");
        assert_eq!(all.value(&name(""), &[]), stats["total"][key].as_f64(), "{key}");
        for service in stats["services"].as_array().unwrap() {
            let label = format!("{} {}", service["protocol"].as_str().unwrap(), service["address"].as_str().unwrap());
            let of_service = all.value(&name("service_"), &[("service", &label)]);
            assert_eq!(of_service, service["counters"][key].as_f64(), "{label} {key}");
            for server in service["servers"].as_array().unwrap() {
                let labels = [("service", label.as_str()), ("server", server["address"].as_str().unwrap())];
                let said = all.value(&name("server_"), &labels);
                assert_eq!(said, server["counters"][key].as_f64(), "{labels:?} {key}");
                let gauges = [("weight", "weight"), ("effective_weight", "effective_weight")];
                let gauges = gauges
                    .into_iter()
                    .chain([("active", "active_connections"), ("templates", "persistence_templates")]);
                for (key, word) in gauges {
                    assert_eq!(
                        all.value(&format!("dirigent_server_{word}"), &labels),
                        server[key].as_f64(),
                        "{labels:?}"
                    );
                }
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 5 * 12);
    assert!(all.value("dirigent_service_connections_total", &[("service", WEB)]).unwrap() >= 6.0);
    let drained = [("service", WEB), ("server", "10.0.0.3:8080")];
    assert_eq!(all.value("dirigent_server_effective_weight", &drained), Some(0.0));
    for reason in stats["reasons"].as_array().unwrap() {
        let (kind, name) = (reason["kind"].as_str().unwrap(), reason["name"].as_str().unwrap());
        let said = all.value(&format!("dirigent_packets_{kind}_total"), &[("reason", name)]);
        // The scrape came first.
        assert!(said.unwrap() <= reason["count"].as_f64().unwrap(), "{name}");
    }
    assert!(all.sum("dirigent_packets_forwarded_total") >= 6.0);
    assert_eq!(all.value("dirigent_build_info", &[("director", lab.name())]), Some(1.0));
    assert_eq!(all.value("dirigent_service_quorum", &[]), Some(1.0));
    assert_eq!(all.value("dirigent_services", &[]), Some(5.0));
    let room = lab.json(&["status", "--json"])["connections"]["connections"].as_f64().unwrap();
    assert_eq!(all.value("dirigent_connection_table_entries_limit", &[("family", "ipv4")]), Some(2.0 * room));
    // What is left of each connection is two entries.
    let left: f64 =
        ["active", "inactive"].iter().map(|word| all.sum(&format!("dirigent_server_{word}_connections"))).sum();
    assert_eq!(all.sum("dirigent_connection_table_entries"), 2.0 * left);
    // As node_exporter has them.
    let labels =
        [("proto", "TCP"), ("local_address", "192.0.2.10"), ("local_port", "80"), ("remote_address", "10.0.0.2")];
    let labels = [&labels[..], &[("remote_port", "8080"), ("local_mark", "")]].concat();
    assert_eq!(all.value("node_ipvs_backend_weight", &labels), Some(1.0));
    assert_eq!(all.value("node_ipvs_connections_total", &[]), stats["total"]["connections"].as_f64());

    // The same in the other format.
    let Answer { text, content_type, .. } = get(&socket(lab.name()), "/metrics", OPEN_METRICS);
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE dirigent_connections counter\n"), "{text}");
    let samples =
        |all: &Scraped| all.samples.iter().map(|(name, labels, _)| (name.clone(), labels.clone())).collect::<Vec<_>>();
    assert_eq!(samples(&Scraped::of(&text)), samples(&all));
}

/// What fails, what is refused and what is changed at runtime is seen, and the other names come and go with their key.
#[test]
fn what_happens_is_in_the_next_scrape() {
    let lab = TestLab::up(&["--servers", "2"]);
    let text = checked(&lab, "");
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    let server = |n: u8| format!("10.0.0.{}:8080", n + 1);
    let up = |n: u8| scrape(&lab).value("dirigent_server_up", &[("service", WEB), ("server", &server(n))]);
    until("both are up", || lab.log(), || [up(1), up(2)] == [Some(1.0); 2]);
    assert_eq!(scrape(&lab).sum("node_ipvs_connections_total"), 0.0);
    let since =
        || scrape(&lab).value("dirigent_server_health_change_timestamp_seconds", &[("server", &server(1))]).unwrap();
    let before = since();

    lab.sh(
        "server1",
        "nft 'add table inet gone; add chain inet gone input { type filter hook input priority 0; }; \
                 add rule inet gone input tcp dport 8080 reject with tcp reset'",
    );
    until("server1 is down", || lab.log(), || [up(1), up(2)] == [Some(0.0), Some(1.0)]);
    assert!(since() >= before);
    let all = scrape(&lab);
    assert_eq!(all.value("dirigent_server_effective_weight", &[("service", WEB), ("server", &server(1))]), Some(0.0));
    assert_eq!(all.value("dirigent_service_quorum", &[]), Some(1.0));
    lab.sh(
        "server2",
        "nft 'add table inet gone; add chain inet gone input { type filter hook input priority 0; }; \
                 add rule inet gone input tcp dport 8080 reject with tcp reset'",
    );
    until("the quorum is lost", || lab.log(), || scrape(&lab).value("dirigent_service_quorum", &[]) == Some(0.0));
    for host in ["server1", "server2"] {
        lab.sh(host, "nft delete table inet gone");
    }
    until("all is well", || lab.log(), || scrape(&lab).value("dirigent_service_quorum", &[]) == Some(1.0));

    // A reload that is refused, and one that is taken.
    let of = |name: &str| scrape(&lab).value(&format!("dirigent_config_{name}"), &[]).unwrap();
    let (taken, generation) = (of("last_reload_success_timestamp_seconds"), of("generation"));
    assert_eq!((of("last_reload_successful"), of("runtime_changes")), (1.0, 0.0));
    lab.write_config(&text.replace("version = 1", "version = 1\nnonsense = 1"));
    lab.dirigent_fails(&["reload"]);
    assert_eq!((of("last_reload_successful"), of("last_reload_success_timestamp_seconds")), (0.0, taken));
    lab.write_config(&text.replacen("\n[[service]]", "\n[director.metrics]\nipvs_names = true\n\n[[service]]", 1));
    lab.dirigent(&["reload"]);
    assert_eq!((of("last_reload_successful"), of("generation")), (1.0, generation + 1.0));
    assert!(of("last_reload_success_timestamp_seconds") > taken);
    assert!(scrape(&lab).value("node_ipvs_connections_total", &[]).is_some());
    lab.dirigent(&["service", "add", "udp:192.0.2.77:53"]);
    assert_eq!((of("runtime_changes"), of("generation")), (1.0, generation + 2.0));
    // A daemon that is killed leaves counters and generation to the next one.
    lab.curl("http://192.0.2.10/");
    let connections = scrape(&lab).value("dirigent_connections_total", &[]).unwrap();
    lab.kill_daemon();
    lab.start_daemon();
    let all = scrape(&lab);
    assert!(connections >= 1.0 && all.value("dirigent_connections_total", &[]).unwrap() >= connections);
    assert_eq!((of("runtime_changes"), of("generation")), (1.0, generation + 2.0));
}

/// The port of its own has metrics for everybody and nothing else, and who floods it keeps nobody off the API.
#[test]
fn the_port_for_scrapers_has_metrics_and_nothing_else() {
    let lab = TestLab::up(&["--servers", "1"]);
    let address = lab.sh("director", "ip -4 -o address show dev r0 | awk '{print $4}' | cut -d/ -f1");
    let listen = format!("{address}:9103");
    let text = lab.config();
    let with = |listen: &str| {
        text.replacen("\n[[service]]", &format!("\n[director.metrics]\nlisten = {listen:?}\n\n[[service]]"), 1)
    };
    // Only a new start opens it.
    lab.write_config(&with(&listen));
    let (said, _) = lab.dirigent(&["reload"]);
    assert!(said.contains("metrics.listen takes effect when the daemon is ended"), "{said}");
    lab.signal_daemon("-TERM");
    // Taken by another: said before anything is attached.
    let other = lab.run("director", || std::net::TcpListener::bind(&listen).unwrap());
    let config = lab.file("dirigent.toml").display().to_string();
    let run = lab.sh("director", &format!("{BIN} run --instance {} --config {config} 2>&1 || true", lab.name()));
    assert!(run.contains(&format!("[director.metrics] listen {listen}: ")), "{run}");
    drop(other);
    lab.start_daemon();

    let ask = |method: &str, path: &str| {
        let script = format!("curl -s --max-time 10 -X {method} -w '\\n%{{http_code}}' http://{listen}{path}");
        let all = lab.sh("server1", &script);
        let (body, code) = all.rsplit_once('\n').unwrap_or(("", all.as_str()));
        (code.trim().to_owned(), body.to_owned())
    };
    let (code, body) = ask("GET", "/metrics");
    assert_eq!(code, "200", "{body}");
    assert!(Scraped::of(&body).value("dirigent_build_info", &[("director", lab.name())]).is_some(), "{body}");
    for (method, path, wanted) in [
        ("POST", "/metrics", "405"),
        ("GET", "/v1/status", "404"),
        ("GET", "/v1/config", "404"),
        ("POST", "/v1/detach", "404"),
        ("GET", "/", "404"),
    ] {
        let (code, body) = ask(method, path);
        assert_eq!(code, wanted, "{method} {path}: {body}");
        let refusal: Value = serde_json::from_str(&body).unwrap();
        assert!(refusal["problems"][0]["remedy"].as_str().unwrap().contains("/metrics"), "{refusal}");
    }
    // More than it takes of one address, none of which asks for anything.
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(lab.start("server1", &["socat", "-", &format!("TCP:{listen}")]));
    }
    assert!(lab.dirigent(&["status"]).0.contains("forwarding"));
    assert_eq!(get(&socket(lab.name()), "/metrics", TEXT).status, 200);
    for child in &mut held {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    until("there is room again", || lab.log(), || ask("GET", "/metrics").0 == "200");
}

/// Two directors who share virtual routers and tell each other of connections.
#[test]
fn virtual_routers_and_synchronisation_are_told_too() {
    let link = Link::up();
    let config = |priority: u8| {
        format!(
            "[[router]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\npriority = {priority}\ninterval = \"200ms\"\n\
             addresses = [\"10.9.0.100/24\"]\n\
             [[service]]\nprotocol = \"tcp\"\naddress = \"10.9.0.100:80\"\nserver = [{{ address = \"10.9.0.3:8080\" }}]\n\
             [director]\nconnections = 4096\n[sync]\ninterface = \"eth0\"\nid = 7\nkey = \"a shared secret that nobody knows\"\n"
        )
    };
    link.director("a", &config(150));
    link.director("b", &config(100));
    let scrape = |host: &str| {
        let Answer { status: 200, text, .. } = get(&socket(&link.instance(host)), "/metrics", TEXT) else {
            panic!("{}", link.logs())
        };
        Scraped::of(&text)
    };
    let state = |host: &str, state: &str| {
        scrape(host).value("dirigent_virtual_router_state", &[("router", "web"), ("state", state)])
    };
    link.until("a is master", || state("a", "master") == Some(1.0) && state("b", "backup") == Some(1.0));
    assert_eq!((state("a", "backup"), state("b", "master"), state("b", "fault")), (Some(0.0), Some(0.0), Some(0.0)));
    let complete = |host: &str, node: &str| scrape(host).value("dirigent_sync_peer_complete", &[("node", node)]);
    link.until("each knows all of the other", || {
        complete("a", "10.9.0.2") == Some(1.0) && complete("b", "10.9.0.1") == Some(1.0)
    });
    let times = |host: &str, state: &str| {
        scrape(host).value("dirigent_virtual_router_transitions_total", &[("router", "web"), ("state", state)])
    };
    assert_eq!((times("a", "master"), times("b", "master")), (Some(1.0), Some(0.0)));
    link.dirigent("a", &["failover", "now"]).unwrap();
    link.until("b takes over", || state("b", "master") == Some(1.0) && state("a", "master") == Some(0.0));
    link.dirigent("a", &["failover", "back"]).unwrap();
    link.until("a takes it back", || state("a", "master") == Some(1.0));
    assert_eq!((times("a", "master"), times("b", "master")), (Some(2.0), Some(1.0)));

    let Answer { text, .. } = get(&socket(&link.instance("a")), "/metrics", TEXT);
    promtool_agrees(&["check", "metrics"], &text);
    let (all, missing) = (Scraped::of(&text), Scraped::of(&text).against_the_table());
    // Nothing was checked, dropped or suspected.
    let other = [
        "node_ipvs_",
        "dirigent_suspected",
        "dirigent_server_up",
        "dirigent_server_health",
        "dirigent_service_quorum",
        "dirigent_sync_dropped",
    ];
    let missing: Vec<_> = missing.iter().filter(|name| !other.iter().any(|prefix| name.starts_with(prefix))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let info = [("router", "web"), ("interface", "eth0"), ("vrid", "51"), ("family", "ipv4")];
    assert_eq!(all.value("dirigent_virtual_router_info", &info), Some(1.0));
    assert_eq!(all.value("dirigent_virtual_router_priority", &[("router", "web")]), Some(150.0));
    assert!(all.value("dirigent_sync_peer_silence_seconds", &[("node", "10.9.0.2")]).unwrap() < 60.0);
}

/// What is packaged, as Prometheus itself reads it: rules, what they mean, and what the dashboard asks for.
#[test]
fn promtool_takes_what_is_packaged() {
    promtool_agrees(&["check", "rules", &packaged("prometheus/dirigent.rules.yml")], "");
    promtool_agrees(&["test", "rules", &packaged("prometheus/dirigent.rules.test.yml")], "");
    let board: Value =
        serde_json::from_str(&std::fs::read_to_string(packaged("grafana/dirigent.json")).unwrap()).unwrap();
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    let mut asked = 0;
    let mut take = |panel: &Value| {
        for target in panel["targets"].as_array().into_iter().flatten() {
            // As Grafana puts them in.
            let text = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            let text =
                ["$job", "$instance", "$service"].iter().fold(text, |text, variable| text.replace(variable, ".*"));
            rules += &format!("  - record: asked:{asked}\n    expr: {}\n", json!(text));
            asked += 1;
        }
    };
    board["panels"].as_array().unwrap().iter().for_each(&mut take);
    take(&json!({ "targets": board["annotations"]["list"].as_array().unwrap()[1..] }));
    let file = std::env::temp_dir().join(format!("dirigent-dashboard-{}.yml", std::process::id()));
    std::fs::write(&file, rules.replace("asked:", "asked_")).unwrap();
    let said = promtool_agrees(&["check", "rules", file.to_str().unwrap()], "");
    std::fs::remove_file(&file).unwrap();
    assert!(said.contains(&format!("{asked} rules found")) && asked > 30, "{said}");
}

/// A scrape of four times as many services takes no more than some four times as long, and keeps nobody waiting.
#[test]
fn scrapes_of_many_services_take_their_time_and_hold_nobody_up() {
    let lab = TestLab::up(&["--servers", "1", "--path", "tc"]);
    let path = socket(lab.name());
    let apply = |services: usize| {
        let mut text = String::from("version = 1\n");
        for n in 0..services {
            text += &format!(
                "[[service]]\nprotocol = \"tcp\"\naddress = \"10.77.{}.{}:80\"\nserver = [{{ address = \"10.0.0.2:8080\" }}, \
                 {{ address = \"10.0.0.3:8080\" }}]\n",
                n / 250,
                n % 250 + 1
            );
        }
        let file = lab.file("many.toml");
        std::fs::write(&file, text).unwrap();
        lab.dirigent(&["config", "apply", "--yes", file.to_str().unwrap()]);
    };
    let timed = || {
        // The best of a few: the machine has other things to do.
        let one = || {
            let begun = Instant::now();
            let Answer { status: 200, text, .. } = get(&path, "/metrics", TEXT) else { panic!("{}", lab.log()) };
            (begun.elapsed(), text)
        };
        (0..3).map(|_| one()).min_by_key(|(took, _)| *took).unwrap()
    };
    apply(1_000);
    let (few, _) = timed();
    apply(4_000);
    let (many, text) = timed();
    println!("1,000 services: {few:?}, 4,000: {many:?}, {} bytes", text.len());
    let all = Scraped::of(&text);
    assert_eq!(all.value("dirigent_services", &[]), Some(4_000.0));
    assert_eq!(all.samples.iter().filter(|(name, ..)| name == metrics::SERVER_WEIGHT.name).count(), 8_000);
    assert!(many < few * 10, "{few:?} became {many:?}");
    // The daemon's own task answers in the middle of it.
    let scraping = {
        let path = path.clone();
        std::thread::spawn(move || (0..3).for_each(|_| assert_eq!(get(&path, "/metrics", TEXT).status, 200)))
    };
    let (mut answers, mut slowest) = (0, Duration::ZERO);
    while !scraping.is_finished() || answers < 3 {
        let begun = Instant::now();
        assert_eq!(ask(&path, "GET", "/v1/failover", &Value::Null).status, 200);
        slowest = slowest.max(begun.elapsed());
        answers += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    scraping.join().unwrap();
    println!("{answers} answers meanwhile, the slowest after {slowest:?}");
    assert!(slowest < many.max(Duration::from_millis(200)), "{slowest:?}");
}

/// Each line of the log is an object; those with a name have its fields, and say what the stream of events says.
#[test]
fn the_log_is_one_of_objects_if_that_is_asked_for() {
    let lab = TestLab::up(&["--servers", "2", "--no-daemon"]);
    let config = lab.file("dirigent.toml");
    lab.write_config(&checked(&lab, ""));
    let run = [BIN, "run", "--instance", lab.name(), "--config", config.to_str().unwrap()];
    lab.start_process("env", &[&["DIRIGENT_LOG_FORMAT=json"], &run[..]].concat());
    let objects = || -> Vec<Value> {
        lab.log().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    };
    let has = |event: &str| objects().iter().any(|line| line["event"] == event);
    until("it is ready", || lab.log(), || has("ready"));
    let mut events =
        Command::new(BIN).args(["--instance", lab.name(), "events", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let told = BufReader::new(events.stdout.take().unwrap()).lines();
    // Until it listens.
    std::thread::sleep(Duration::from_millis(700));
    lab.dirigent(&["service", "add", "udp:192.0.2.77:53"]);
    for host in ["server1", "server2"] {
        lab.sh(
            host,
            "nft 'add table inet gone; add chain inet gone input { type filter hook input priority 0; }; \
                 add rule inet gone input tcp dport 8080 reject with tcp reset'",
        );
    }
    until("the quorum is lost", || lab.log(), || has("quorum"));
    let text = lab.config();
    lab.write_config(&text.replace("version = 1", "version = 1\nnonsense = 1"));
    lab.dirigent_fails(&["reload"]);
    lab.signal_daemon("-TERM");
    events.wait().unwrap();
    let told: Vec<Value> = told.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();

    let mut seen = BTreeSet::new();
    for line in objects() {
        let level = line["level"].as_str().unwrap();
        assert!(["INFO", "WARN", "ERROR"].contains(&level), "{line}");
        assert!(
            line["timestamp"].as_str().unwrap().ends_with('Z') && !line["message"].as_str().unwrap().is_empty(),
            "{line}"
        );
        let Some(event) = line["event"].as_str() else { continue };
        let known = log::ALL.iter().find(|one| one.event == event).unwrap_or_else(|| panic!("{line}"));
        for field in known.fields {
            assert!(!line[field].is_null(), "{field} of {line}");
        }
        seen.insert(event.to_owned());
    }
    for event in
        ["ready", "applied", "health", "quorum", "refused", "role", "interface_attached", "address_added", "server"]
    {
        assert!(seen.contains(event), "{event} is not in {seen:?}\n{}", lab.log());
    }
    // Word by word: drops alone are not for the log, nor is the end of the stream.
    let told: Vec<_> = told
        .iter()
        .filter(|event| ["applied", "health", "quorum"].contains(&event["event"].as_str().unwrap()))
        .collect();
    assert!(told.len() >= 4, "{told:?}");
    let lines = objects();
    for event in told {
        let same = |line: &&Value| event.as_object().unwrap().iter().all(|(key, value)| &line[key] == value);
        assert_eq!(lines.iter().filter(same).count(), 1, "{event} in\n{}", lab.log());
    }

    // What is no format is said at once; and for people a line ends in its name.
    let wrong = lab.sh("director", &format!("DIRIGENT_LOG_FORMAT=xml {} 2>&1 || true", run.join(" ")));
    assert!(wrong.contains("\"xml\" is no format of logs; use text or json"), "{wrong}");
    lab.write_config(&text);
    std::fs::write(lab.file("director-daemon.log"), "").unwrap();
    lab.start_daemon();
    let log = lab.log();
    assert!(log.lines().any(|line| line.contains("INFO ready: ") && line.ends_with(" event=ready")), "{log}");
}
