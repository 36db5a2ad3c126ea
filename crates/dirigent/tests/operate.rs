//! What operators change while a director runs: by ipvsadm's rules, as a whole, back again; and what outlasts what.

mod common;

use common::TestLab;
use serde_json::{Value, json};
use std::process::Command;

/// Asks the daemon of a lab by its socket, as any program can; status and answer.
fn post(lab: &TestLab, path: &str, body: &Value) -> (u16, Value) {
    let socket = format!("/run/dirigent/{}.sock", lab.name());
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "--unix-socket", &socket, "-H", "content-type: application/json"])
        .args(["-w", "\n%{http_code}", "--data-binary", &body.to_string()])
        .arg(format!("http://dirigent{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (answer, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(answer).unwrap_or(Value::Null))
}

fn rules(lab: &TestLab, lines: &[&str]) -> Value {
    let (status, done) = post(lab, "/v1/ipvsadm", &json!({ "lines": lines }));
    assert_eq!(status, 200, "{done}\n{}", lab.log());
    done["refused"].clone()
}

/// Address and weight of the servers of the first service.
fn weights(lab: &TestLab) -> Vec<(String, u64)> {
    let services = lab.json(&["service", "list", "--json"]);
    let servers = services[0]["servers"].as_array().unwrap().clone();
    let one = |s: &Value| (s["address"].as_str().unwrap().to_owned(), s["weight"].as_u64().unwrap());
    servers.iter().filter(|s| s["state"] != "removed").map(one).collect()
}

fn generation(lab: &TestLab) -> u64 {
    lab.json(&["status", "--json"])["daemon"]["generation"].as_u64().unwrap()
}

/// What `config diff` prints; its exit code must be that of a difference.
fn drift(lab: &TestLab) -> Value {
    lab.json(&["status", "--json"])["daemon"]["drift"].clone()
}

#[test]
fn runtime_changes_outlast_reload_restart_and_kill_until_they_are_dropped() {
    let lab = TestLab::up(&["--servers", "2"]);
    assert_eq!(drift(&lab), json!([]));
    let begun = generation(&lab);
    let before = weights(&lab);
    let [(one, _), (two, _)] = before.as_slice() else { panic!("{before:?}") };
    let vip = lab.json(&["service", "list", "--json"])[0]["address"].as_str().unwrap().to_owned();

    let edit = format!("-e -t {vip} -r {one} -m -w 7");
    let add = format!("-A -t {vip} -s rr");
    let refused = rules(&lab, &[&edit, &add, "-A -u 192.0.2.77:53 -s rr"]);
    assert_eq!(refused, json!([{ "line": 1, "what": "Service already exists" }]));
    assert_eq!(generation(&lab), begun + 1);
    let told = json!([
        format!("server {one} of tcp {vip}: weight is 7, the file says 1"),
        "service udp 192.0.2.77:53 is there, the file does not have it",
    ]);
    let changed = vec![(one.clone(), 7), (two.clone(), 1)];
    let holds = |after: &str| {
        assert_eq!(drift(&lab), told, "{after}");
        assert_eq!(weights(&lab), changed, "{after}");
    };
    holds("ipvsadm");
    let (code, _) = lab.dirigent_fails(&["config", "diff"]);
    assert_eq!(code, 1);

    let (text, _) = lab.dirigent(&["reload"]);
    assert!(text.contains("kept from runtime: server") && !text.contains("edit"), "{text}");
    holds("reload");
    lab.signal_daemon("-TERM");
    lab.start_daemon();
    holds("restart");
    lab.kill_daemon();
    lab.start_daemon();
    holds("kill -9");
    assert_eq!(generation(&lab), begun + 1);

    // The file changes meanwhile: what nobody touched comes from it.
    lab.kill_daemon();
    let address = two.split(':').next().unwrap();
    let text = lab.config();
    let (head, tail) = text.split_once(address).unwrap();
    let tail = tail.split_once('\n').unwrap();
    lab.write_config(&format!("{head}{address}{}\nweight = 4\n{}", tail.0, tail.1.replacen("weight = 1\n", "", 1)));
    lab.start_daemon();
    assert_eq!(weights(&lab), [(one.clone(), 7), (two.clone(), 4)]);
    assert_eq!(generation(&lab), begun + 2);

    let (text, _) = lab.dirigent(&["reload", "--replace", "--dry-run"]);
    assert!(text.contains("remove service udp 192.0.2.77:53"), "{text}");
    assert_eq!(weights(&lab), [(one.clone(), 7), (two.clone(), 4)]);
    lab.dirigent(&["reload", "--replace"]);
    assert_eq!(weights(&lab), [(one.clone(), 1), (two.clone(), 4)]);
    assert_eq!(drift(&lab), json!([]));
}

#[test]
fn a_change_is_shown_before_made_once_and_taken_back() {
    let lab = TestLab::up(&["--servers", "2"]);
    let before = weights(&lab);
    let begun = generation(&lab);
    let first = lab.config();
    let wanted = format!("{first}\n[[service]]\nprotocol = \"udp\"\naddress = \"192.0.2.77:53\"\n");
    let file = lab.file("wanted.toml");
    std::fs::write(&file, &wanted).unwrap();
    let file = file.to_str().unwrap();

    let services = || lab.json(&["service", "list", "--json"]).as_array().unwrap().len();
    let had = services();
    // Nobody is there to be asked.
    let (code, said) = lab.dirigent_fails(&["config", "apply", file]);
    assert_eq!((code, services(), generation(&lab)), (1, had, begun), "{said}");
    assert!(said.contains("add service udp 192.0.2.77:53") && said.contains("--yes"), "{said}");
    let (text, _) = lab.dirigent(&["config", "apply", file, "--dry-run"]);
    assert!(text.contains("add service udp 192.0.2.77:53"), "{text}");
    assert_eq!((services(), generation(&lab)), (had, begun));

    // Meant for another state of things.
    let stale = (begun + 7).to_string();
    let (code, said) = lab.dirigent_fails(&["config", "apply", file, "--yes", "--generation", &stale]);
    assert_eq!((code, services()), (6, had), "{said}");
    let path = format!("/v1/config/apply?generation={stale}");
    let (status, refusal) = post(&lab, &path, &json!({ "name": "x", "text": wanted }));
    assert_eq!((status, &refusal["stale"]), (409, &json!(true)));

    lab.dirigent(&["config", "apply", file, "--yes", "--generation", &begun.to_string()]);
    assert_eq!((services(), generation(&lab)), (had + 1, begun + 1));
    let (one, vip) = (&before[0].0, lab.json(&["service", "list", "--json"]));
    let vip = vip.as_array().unwrap().iter().find(|s| s["protocol"] == "tcp").unwrap()["address"].clone();
    assert_eq!(rules(&lab, &[&format!("-d -t {} -r {one}", vip.as_str().unwrap())]), json!([]));
    let history = lab.json(&["config", "history", "--json"]);
    let entry = |at: usize| (history[at]["generation"].as_u64().unwrap(), history[at]["what"].as_str().unwrap());
    assert_eq!(entry(0).0, begun + 2);
    assert!(entry(0).1.starts_with("ipvsadm -d"), "{history}");
    assert_eq!(entry(1), (begun + 1, format!("apply {file}").as_str()));
    assert!(history[1]["by"].as_str().unwrap().starts_with("root, process "), "{history}");

    // One step, then to a generation; and that can be taken back, too.
    lab.dirigent(&["config", "rollback", "--yes"]);
    assert_eq!(weights(&lab), before);
    assert_eq!(services(), had + 1);
    lab.dirigent(&["config", "rollback", &begun.to_string(), "--yes"]);
    assert_eq!((services(), generation(&lab)), (had, begun + 4));
    lab.dirigent(&["config", "rollback", "--yes"]);
    assert_eq!(services(), had + 1);
    let (code, said) = lab.dirigent_fails(&["config", "rollback", "99", "--yes"]);
    assert!(code == 1 && said.contains("generation 99"), "{said}");

    // A mistake changes nothing, and says where it is.
    std::fs::write(file, "version = 1\n[[service]]\nprotocol = \"tcp\"\n").unwrap();
    let now = generation(&lab);
    let (code, said) = lab.dirigent_fails(&["config", "apply", file, "--yes"]);
    assert_eq!((code, generation(&lab)), (3, now));
    assert!(said.contains("wanted.toml:2:"), "{said}");
}

#[test]
fn what_was_saved_outlasts_the_maps() {
    let lab = TestLab::up(&["--servers", "1"]);
    rules(&lab, &["-A -u 192.0.2.77:53 -s rr"]);
    // Without maps, as after a reboot.
    let again = |lab: &TestLab| {
        lab.dirigent(&["stop", "--detach"]);
        lab.start_daemon();
    };
    again(&lab);
    assert_eq!(drift(&lab), json!([]));
    rules(&lab, &["-A -u 192.0.2.77:53 -s rr"]);
    lab.dirigent(&["config", "save"]);
    again(&lab);
    assert_eq!(drift(&lab), json!(["service udp 192.0.2.77:53 is there, the file does not have it"]));
    lab.dirigent(&["reload", "--replace"]);
    again(&lab);
    assert_eq!(drift(&lab), json!([]));
}

#[test]
fn a_director_needs_no_file() {
    let lab = TestLab::up(&["--servers", "2", "--no-daemon"]);
    lab.start_daemon_with(&["--empty"]);
    let file = lab.file("dirigent.toml");
    lab.dirigent(&["config", "apply", file.to_str().unwrap(), "--yes"]);
    let vip = lab.json(&["service", "list", "--json"])[0]["address"].as_str().unwrap().to_owned();
    assert!(lab.curl(&format!("http://{vip}/")).contains("server"), "{}", lab.log());
    lab.kill_daemon();
    lab.start_daemon_with(&["--empty"]);
    assert!(lab.curl(&format!("http://{vip}/")).contains("server"), "{}", lab.log());
}

/// Whatever is asked is answered in JSON, with the place and what helps.
#[test]
fn requests_that_are_none_are_told_why() {
    let lab = TestLab::up(&["--servers", "1"]);
    let begun = generation(&lab);
    for (path, body, status) in [
        ("/v1/nothing", json!({}), 404),
        ("/", json!({}), 404),
        ("/v1/status", json!({}), 405),
        ("/v1/config/apply", json!([]), 422),
        ("/v1/config/apply", json!({ "name": 7, "text": "version = 1" }), 422),
        ("/v1/config/apply", json!({ "name": "x" }), 422),
        ("/v1/config/apply", json!({ "name": "x", "text": "version = 1\nnonsense = 2" }), 422),
        ("/v1/config/apply?generation=many", json!({ "name": "x", "text": "version = 1" }), 400),
        ("/v1/config/apply?dry_run=perhaps", json!({ "name": "x", "text": "version = 1" }), 400),
        ("/v1/config/rollback?to=-1", json!({}), 400),
        ("/v1/ipvsadm", json!({ "lines": "-C" }), 422),
        ("/v1/ipvsadm", json!({ "lines": ["-L"] }), 422),
        ("/v1/ipvsadm", json!({ "lines": [""] }), 422),
        ("/v1/drain", json!({ "service": "tcp:192.0.2.10:80" }), 422),
        ("/v1/drain", json!({ "service": "nowhere", "server": "10.0.0.2" }), 404),
        ("/v1/config/apply?dryrun=true", json!({ "name": "x", "text": "version = 1" }), 400),
    ] {
        let (is, refusal) = post(&lab, path, &body);
        assert_eq!(is, status, "{path} {body}: {refusal}");
        let problem = &refusal["problems"][0];
        for part in ["place", "what", "remedy"] {
            assert!(problem[part].as_str().is_some_and(|text| !text.is_empty()), "{path} {body}: {part} of {refusal}");
        }
    }
    assert_eq!(generation(&lab), begun);
}

/// keepalived.conf as it is: served, reloaded, and what of it is not done is said.
#[test]
fn a_daemon_runs_by_keepalived_conf() {
    let lab = TestLab::up(&["--servers", "2", "--no-daemon"]);
    let conf = |weight: u32| {
        format!(
            "! as it was for keepalived\nglobal_defs {{\n    router_id LVS\n}}\n\
             virtual_server 192.0.2.10 80 {{\n    delay_loop 6\n    lb_algo wrr\n    lb_kind NAT\n    protocol TCP\n\
             \x20   real_server 10.0.0.2 8080 {{\n        weight {weight}\n        TCP_CHECK {{\n            connect_timeout 3\n\
             \x20       }}\n    }}\n    real_server 10.0.0.3 8080 {{\n        weight 1\n    }}\n}}\n"
        )
    };
    let file = lab.file("keepalived.conf");
    std::fs::write(&file, conf(3)).unwrap();
    // keepalived's VRRP, or somebody else, holds the address.
    lab.sh("director", "ip address add 192.0.2.10/32 dev lo");
    lab.start_daemon_with(&["--config", file.to_str().unwrap()]);
    let answers =
        |lab: &TestLab| -> usize { (0..8).filter(|_| lab.curl("http://192.0.2.10/").starts_with("server1")).count() };
    assert_eq!(answers(&lab), 6, "{}", lab.log());
    // The one with a checker is checked.
    let servers = lab.json(&["server", "list", "--json"]);
    let checks: Vec<_> = servers.as_array().unwrap().iter().map(|server| server["health"]["checks"].clone()).collect();
    assert_eq!(checks, [serde_json::json!(["tcp"]), serde_json::Value::Null]);
    // A mistake changes nothing, and is told with its line.
    std::fs::write(&file, conf(3).replace("10.0.0.3", "10.0.0.300")).unwrap();
    let (code, said) = lab.dirigent_fails(&["reload"]);
    assert!(code == 3 && said.contains("keepalived.conf:") && said.contains("10.0.0.300"), "{code} {said}");
    assert_eq!(weights(&lab), [("10.0.0.2:8080".to_owned(), 3), ("10.0.0.3:8080".to_owned(), 1)]);
    std::fs::write(&file, conf(1)).unwrap();
    lab.dirigent(&["reload"]);
    assert_eq!(weights(&lab), [("10.0.0.2:8080".to_owned(), 1), ("10.0.0.3:8080".to_owned(), 1)]);
    assert_eq!(answers(&lab), 4, "{}", lab.log());
}
