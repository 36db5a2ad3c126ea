//! `dirigent doctor`: silent where all is well; where something is broken it finds that, and nothing else, and what it
//! says helps. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

/// A table `gone` with one chain: its family, hook, policy and rule.
macro_rules! nft {
    ($family:literal, $hook:literal, $policy:literal, $rule:literal) => {
        concat!(
            "nft 'add table ",
            $family,
            " gone; add chain ",
            $family,
            " gone ",
            $hook,
            " { type filter hook ",
            $hook,
            " priority 0; policy ",
            $policy,
            "; }; add rule ",
            $family,
            " gone ",
            $hook,
            " ",
            $rule,
            "'"
        )
    };
}

mod common;
#[path = "doctor/director.rs"]
mod director;
#[path = "doctor/healthy.rs"]
mod healthy;
#[path = "doctor/nat.rs"]
mod nat;
#[path = "doctor/real_servers.rs"]
mod real_servers;
#[path = "doctor/traffic.rs"]
mod traffic;

use common::{BIN, TestLab};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// Neighbours that are gone are known to be so after some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Exit code and answer.
pub fn doctor(lab: &TestLab, args: &[&str]) -> (i32, Value) {
    let mut command = Command::new(BIN);
    command.args(["lab", "exec", "--name", lab.name(), "director", "--", BIN, "--instance", lab.name(), "doctor"]);
    let output = command.args(args).arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}\n{error}\n{}", lab.log()));
    (output.status.code().unwrap(), value)
}

/// Name and place of each.
pub fn findings(answer: &Value) -> Vec<(String, String)> {
    let all = answer["findings"].as_array().unwrap().iter();
    all.map(|f| (f["name"].as_str().unwrap().to_owned(), f["place"].as_str().unwrap().to_owned())).collect()
}

/// What breaks or heals a lab: hosts and scripts. `$BIN`, `$STATE` and `$NAME` stand for the program, for what it noted of that
/// server, and for the director.
pub type Scripts = &'static [(&'static str, &'static str)];

/// What heals what was broken.
#[derive(Clone, Copy)]
pub enum Heal {
    /// The commands that the doctor says, on the hosts that he names.
    Said,
    /// `dirigent doctor --fix`.
    Fix,
    /// This: what helps is no command, or not known to the director.
    By(Scripts),
}

/// A breakage: by what, what is found then (name and place), and what heals it.
pub type Break = (Scripts, &'static [(&'static str, &'static str)], Heal);

fn run(lab: &TestLab, host: &str, script: &str) {
    let state = lab.file(&format!("{host}-realserver.json")).display().to_string();
    let _ = lab.sh(host, &script.replace("$BIN", BIN).replace("$STATE", &state).replace("$NAME", lab.name()));
}

/// Runs what the doctor says.
fn obey(lab: &TestLab, answer: &Value) {
    for command in answer["findings"].as_array().unwrap().iter().flat_map(|f| f["commands"].as_array().unwrap()) {
        let server = ["10.0.0.2", "fd00::2"].contains(&command["host"].as_str().unwrap());
        let said = command["command"].as_str().unwrap();
        let said = match said.strip_prefix("dirigent ") {
            Some(rest) if server => format!("$BIN {rest} --yes --state $STATE"),
            Some(rest) => format!("$BIN --instance $NAME {rest}"),
            None => said.to_owned(),
        };
        run(lab, if server { "server1" } else { "director" }, &said);
    }
}

/// Until exactly this is found, with evidence, rule and remedy; what is said.
pub fn find(lab: &TestLab, expected: &[(&str, &str)], broken: &str) -> Value {
    let mut expected: Vec<_> =
        expected.iter().map(|(name, at)| ((*name).to_owned(), at.replace("$NAME", lab.name()))).collect();
    expected.sort();
    let begun = Instant::now();
    let (code, answer) = loop {
        let (code, answer) = doctor(lab, &[]);
        let mut found = findings(&answer);
        found.sort();
        if found == expected {
            break (code, answer);
        }
        assert!(begun.elapsed() < PATIENCE, "{broken}, expected {expected:?}: {answer:#}\n{}", lab.log());
    };
    let all = answer["findings"].as_array().unwrap();
    let errors = all.iter().any(|finding| finding["severity"] == "error");
    assert_eq!(code, if errors { 1 } else { 9 }, "{answer:#}");
    let documented = include_str!("../../../docs/doctor.md");
    for finding in all {
        assert!(!finding["evidence"].as_array().unwrap().is_empty(), "{finding:#}");
        for word in ["what", "rule", "remedy"] {
            assert_ne!(finding[word], "", "{finding:#}");
        }
        let row = format!("| `{}` | {} |", finding["name"].as_str().unwrap(), finding["severity"].as_str().unwrap());
        assert!(documented.contains(&row), "docs/doctor.md lacks {row}");
    }
    answer
}

/// Until nothing is found, and all ways are right.
pub fn recovers(lab: &TestLab, ways: usize, what: &str) {
    let begun = Instant::now();
    loop {
        let (code, answer) = doctor(lab, &[]);
        let paths = answer["paths"].as_array().unwrap();
        if code == 0 && paths.len() == ways && paths.iter().all(|path| path["right"] == true) {
            return assert_eq!(findings(&answer), []);
        }
        assert!(begun.elapsed() < PATIENCE, "after {what}: {answer:#}\n{}", lab.log());
    }
}

/// Nothing is found, and so many ways are right, as soon as the lab's servers have begun.
pub fn is_healthy(lab: &TestLab, ways: usize) {
    recovers(lab, ways, "its beginning");
}

/// Each breaks the lab, is found with evidence, rule and remedy, and with what helps the lab is as it was.
pub fn breaks(lab: &TestLab, ways: usize, all: &[Break]) {
    is_healthy(lab, ways);
    for (scripts, expected, heal) in all {
        let broken = format!("{scripts:?}");
        scripts.iter().for_each(|(host, script)| run(lab, host, script));
        let answer = find(lab, expected, &broken);
        match heal {
            Heal::By(scripts) => scripts.iter().for_each(|(host, script)| run(lab, host, script)),
            Heal::Said => obey(lab, &answer),
            Heal::Fix => {
                let (_, done) = doctor(lab, &["--fix", "--yes"]);
                let done = done.as_array().unwrap();
                assert!(!done.is_empty() && done.iter().all(|one| one["done"] == true), "{broken}: {done:#?}");
            }
        }
        recovers(lab, ways, &broken);
    }
}

pub const WEB4: &str = "server 10.0.0.2:8080 of tcp 192.0.2.10:80";
pub const WEB6: &str = "server [fd00::2]:8080 of tcp [2001:db8::10]:80";
pub const DIRECT4: &str = "server 10.0.0.2:80 of tcp 192.0.2.10:80";
pub const DIRECT6: &str = "server [fd00::2]:80 of tcp [2001:db8::10]:80";

#[test]
fn it_looks_at_one_service_or_server_and_names_mistakes() {
    let lab = TestLab::up(&["--servers", "2"]);
    lab.sh("server1", "ip route replace default via 10.0.0.254");
    for (about, ways, found) in [("tcp:192.0.2.10:80", 2, 1), ("10.0.0.3:8080", 1, 0), ("10.0.0.2:8080", 1, 1)] {
        let (code, answer) = doctor(&lab, &[about]);
        assert_eq!((code, answer["paths"].as_array().unwrap().len()), (found, ways), "{about}: {answer:#}");
    }
    let (code, error) = lab.dirigent_fails(&["doctor", "10.9.9.9:80"]);
    assert!(code == 7 && error.contains("`dirigent server list` names them"), "{code}: {error}");
    let mut command = Command::new(BIN);
    let output = command.args(["--instance", lab.name(), "doctor"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "error: server 10.0.0.2:8080 of tcp 192.0.2.10:80: timeout: it takes connections by its own address",
        "[replies_bypass]",
        "  seen   sent a SYN to 10.0.0.2, port 8080, by r0 to 02:00:00:00:03:01: timeout",
        "  do     on 10.0.0.2: ip route replace default via 10.0.0.1",
        "8 ways tried, 7 right; 1 error, 0 warnings",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
