//! The command line without root: help, exit codes, what is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

fn dirigent(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirigent"));
    command.args(args).env_remove("DIRIGENT_INSTANCE").env_remove("DIRIGENT_SOCKET").env_remove("RUST_LOG");
    command.output().expect("the binary runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file that goes with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dirigent-cli-{}-{name}", std::process::id()));
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        Self(path)
    }
    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn help_has_examples_and_every_command_has_help() {
    let help = dirigent(&["--help"]);
    assert_eq!(code(&help), 0);
    assert!(out(&help).contains("Examples:") && out(&help).contains("Exit codes:"), "{}", out(&help));
    let commands: [&[&str]; 21] = [
        &["run"],
        &["check"],
        &["service", "list"],
        &["server", "list"],
        &["connection", "list"],
        &["stats"],
        &["status"],
        &["reload"],
        &["failover", "now"],
        &["failover", "rehearse"],
        &["stop"],
        &["import"],
        &["import", "iptables"],
        &["import", "nft"],
        &["lab"],
        &["lab", "up"],
        &["lab", "down"],
        &["lab", "status"],
        &["lab", "exec"],
        &["lab", "walk"],
        &["lab", "traffic"],
    ];
    for command in commands {
        let help = dirigent(&[command, &["--help"]].concat());
        assert_eq!(code(&help), 0, "{command:?}: {}", err(&help));
        assert!(out(&help).contains("Usage: dirigent"), "{command:?}");
    }
    assert_eq!(code(&dirigent(&["--version"])), 0);
}

#[test]
fn wrong_usage_is_2() {
    for args in [
        &[][..],
        &["nonsense"],
        &["run"],
        &["check"],
        &["service"],
        &["stop"],
        &["import"],
        &["import", "iptables"],
        &["import", "ipfw", "-"],
        &["lab"],
        &["lab", "up", "--family", "5"],
        &["lab", "up", "--servers", "0"],
        &["lab", "up", "--mode", "bridge"],
        &["lab", "up", "--path", "native"],
        &["lab", "exec", "client"],
        &["stats", "--nonsense"],
    ] {
        assert_eq!(code(&dirigent(args)), 2, "{args:?}");
    }
}

#[test]
fn a_wrong_configuration_is_3_with_all_its_mistakes() {
    let file =
        File::new("bad.toml", "version = 1\nnonsense = 2\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10\"\n");
    for args in [&["check", "--config", file.path()][..], &["run", "--config", file.path()]] {
        let output = dirigent(args);
        assert_eq!(code(&output), 3, "{args:?}: {}", err(&output));
        let text = err(&output);
        assert!(text.contains(&format!("{}:2:1: ", file.path())) && text.contains("nonsense"), "{text}");
        assert!(text.contains(&format!("{}:5:", file.path())) && text.contains("has no port"), "{text}");
        assert!(!text.contains('\x1b'), "colour only on a terminal");
    }
    let output = dirigent(&["check", "--json", "--config", file.path()]);
    assert_eq!(code(&output), 3);
    let checked: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(checked["valid"], false);
    assert_eq!(checked["problems"].as_array().unwrap().len(), 2);
}

#[test]
fn a_right_configuration_is_0_and_unheld_addresses_are_named() {
    let text = "version = 1\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.77:80\"\n\
                [[service.server]]\naddress = \"10.0.0.2:8080\"\n";
    let file = File::new("good.toml", text);
    let output = dirigent(&["check", "--config", file.path()]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("valid, 1 service, 1 server\n"), "{}", out(&output));
    assert!(err(&output).contains("192.0.2.77"), "nobody holds it: {}", err(&output));
}

#[test]
fn an_instance_that_is_no_name_is_refused() {
    let file = File::new("name.toml", "version = 1\n");
    let output = dirigent(&["check", "--instance", "../x", "--config", file.path()]);
    assert_eq!(code(&output), 3, "{}", err(&output));
    assert!(err(&output).contains("is no name"), "{}", err(&output));
}

/// What comes out is a configuration; what cannot be is named, and is an exit code.
#[test]
fn import_prints_tables_and_names_what_it_cannot() {
    let rules = "iptables -t mangle -A PREROUTING -i c0 -d 198.51.100.0/24 -j MARK --set-mark 1\n\
                 ip6tables -t mangle -A PREROUTING -d 2001:db8:64::/48 -j MARK --set-mark 2\n";
    let file = File::new("marks.sh", rules);
    let output = dirigent(&["import", "iptables", file.path()]);
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
    let tables = "[[mark]]\ninterface = \"c0\"\ndestination = \"198.51.100.0/24\"\nset = 1\n\n\
                  [[mark]]\ndestination = \"2001:db8:64::/48\"\nset = 2\n";
    assert_eq!(out(&output), tables);
    let config = File::new("imported.toml", &format!("version = 1\n{tables}\n[[service]]\nfwmark = 1\n"));
    let output = dirigent(&["check", "--config", config.path()]);
    assert_eq!(code(&output), 0, "{}", err(&output));

    let file = File::new(
        "more.sh",
        &format!("{rules}iptables -t mangle -A PREROUTING -m set --match-set x src -j MARK --set-mark 3\n"),
    );
    let output = dirigent(&["import", "iptables", file.path()]);
    assert_eq!((code(&output), out(&output).as_str()), (1, tables));
    let said = format!(
        "not translated: {}: line 3: only netfilter knows what match set looks at: \
         iptables -t mangle -A PREROUTING -m set --match-set x src -j MARK --set-mark 3\n",
        file.path()
    );
    assert_eq!(err(&output), said);

    let nft = r#"{"nftables": [{"chain": {"family": "ip6", "table": "t", "name": "c", "hook": "prerouting", "prio": -150}},
        {"rule": {"family": "ip6", "table": "t", "chain": "c", "handle": 2,
                  "expr": [{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 9}}]}}]}"#;
    let file = File::new("rules.json", nft);
    let output = dirigent(&["import", "nft", file.path()]);
    assert_eq!(
        (code(&output), out(&output).as_str(), err(&output).as_str()),
        (0, "[[mark]]\nfamily = 6\nset = 9\n", "")
    );
    let output = dirigent(&["import", "nft", config.path()]);
    assert_eq!((code(&output), out(&output).as_str()), (1, ""));
    assert!(err(&output).contains("nft -j list ruleset"), "{}", err(&output));
}

#[test]
fn a_table_of_ipvsadm_is_imported() {
    let saved = "# by ipvsadm-save\n-A -t 192.0.2.10:80 -s wrr\n-a -t 192.0.2.10:80 -r 10.0.0.2:8080 -m -w 3\n";
    let file = File::new("rules", saved);
    let output = dirigent(&["import", "ipvsadm", file.path()]);
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
    let config = File::new("of-ipvsadm.toml", &out(&output));
    let output = dirigent(&["check", "--config", config.path()]);
    assert!(code(&output) == 0 && out(&output).ends_with("valid, 1 service, 1 server\n"), "{}", err(&output));
    let file = File::new("wrong-rules", &format!("{saved}-a -t 192.0.2.11:80 -r 10.0.0.2:80\n"));
    let wrong = dirigent(&["import", "ipvsadm", file.path()]);
    assert_eq!((code(&wrong), out(&wrong)), (1, std::fs::read_to_string(config.path()).unwrap()));
    let said =
        format!("not translated: {}: line 4: Service not defined: -a -t 192.0.2.11:80 -r 10.0.0.2:80\n", file.path());
    assert_eq!(err(&wrong), said);
}

#[test]
fn a_missing_file_is_1_and_says_which() {
    let output = dirigent(&["check", "--config", "/nonexistent/dirigent.toml"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("/nonexistent/dirigent.toml"), "{}", err(&output));
}

#[test]
fn without_a_director_commands_say_so() {
    for args in [
        &["status"][..],
        &["service", "list"],
        &["top"],
        &["top", "--once"],
        &["stats", "--drops"],
        &["reload"],
        &["stop", "--detach"],
    ] {
        let output = dirigent(&[args, &["--instance", "nosuch", "--socket", "/nonexistent/x.sock"]].concat());
        assert!(matches!(code(&output), 1 | 4), "{args:?}: {}", err(&output));
        assert!(err(&output).contains("nosuch"), "{args:?}: {}", err(&output));
        assert!(out(&output).is_empty());
    }
}

/// All commands with their own, as help names them.
fn commands(of: &[&str]) -> Vec<Vec<String>> {
    let help = out(&dirigent(&[of, &["--help"]].concat()));
    let Some((_, list)) = help.split_once("Commands:\n") else { return Vec::new() };
    let list = list.split("\n\n").next().unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ").filter(|l| !l.starts_with(' ')));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names
        .flat_map(|name| {
            let path = [of, &[name]].concat();
            let own = if name == "ipvsadm" { Vec::new() } else { commands(&path) };
            let path = path.iter().map(|word| (*word).to_owned()).collect();
            std::iter::once(path).chain(own)
        })
        .collect()
}

#[test]
fn every_command_has_a_page_and_is_completed() {
    let directory = std::env::temp_dir().join(format!("dirigent-man-{}", std::process::id()));
    let output = dirigent(&["man", directory.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let all = commands(&[]);
    assert!(all.len() > 40, "{all:?}");
    let bash = out(&dirigent(&["completions", "bash"]));
    for command in &all {
        let page = std::fs::read_to_string(directory.join(format!("dirigent-{}.8", command.join("-"))));
        let page = page.unwrap_or_else(|e| panic!("{command:?}: {e}"));
        assert!(page.contains(".TH") && page.contains("SYNOPSIS"), "{command:?}");
        let label = format!("dirigent__subcmd__{})", command.join("__subcmd__"));
        assert!(bash.contains(&label), "{label}");
    }
    let main = std::fs::read_to_string(directory.join("dirigent.8")).unwrap();
    assert!(main.contains("Exit codes:"), "{main}");
    std::fs::remove_dir_all(&directory).unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&dirigent(&["completions", shell])).contains("rollback"), "{shell}");
    }
    let file = File::new("completions", &bash);
    let checked = Command::new("bash").args(["-n", file.path()]).output().unwrap();
    assert!(checked.status.success(), "{}", err(&checked));
}

#[test]
fn misspelt_words_get_a_suggestion() {
    for (args, meant) in [
        (&["servce", "list"][..], "service"),
        (&["service", "lst"], "list"),
        (&["config", "rolback"], "rollback"),
        (&["status", "--jsn"], "--json"),
        (&["reload", "--dry-rum"], "--dry-run"),
    ] {
        let output = dirigent(args);
        assert!(code(&output) == 2 && err(&output).contains(&format!("'{meant}'")), "{args:?}: {}", err(&output));
    }
}

/// Options of a command, out of its own help: `--name` and whether it takes a value.
fn options(of: &[String]) -> Vec<(String, bool)> {
    let args: Vec<&str> = of.iter().map(String::as_str).chain(["--help"]).collect();
    let help = out(&dirigent(&args));
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let option = |line: &str| {
        let at = line.find("--")?;
        let name: String = line[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let rest = &line[at + name.len()..];
        // What may have a value or none is right either way.
        (!rest.starts_with(" [")).then(|| (name, rest.starts_with(" <")))
    };
    lines.filter_map(option).filter(|(name, _)| !["--help", "--version"].contains(&name.as_str())).collect()
}

/// Command lines that are wrong in every way that there is to get one wrong: exit code 2, nothing on stdout, and what is
/// wrong with a way out. None of them gets as far as a director.
#[test]
fn broken_command_lines_are_told_why() {
    let mut broken: Vec<Vec<String>> = Vec::new();
    let with = |command: &[String], more: &[&str]| -> Vec<String> {
        command.iter().cloned().chain(more.iter().map(|word| (*word).to_owned())).collect()
    };
    for command in commands(&[]) {
        // ipvsadm's own grammar has its own corpus; and what runs other programs takes any words.
        if command.first().is_some_and(|word| word == "ipvsadm") {
            continue;
        }
        for unknown in ["--nonsense", "--no-such-option=1", "-%", "--=", "--j son"] {
            broken.push(with(&command, &[unknown]));
        }
        for (name, takes) in options(&command) {
            broken.push(with(&command, &[&format!("{name}x")]));
            if takes {
                broken.push(with(&command, &[&name]));
            } else {
                broken.push(with(&command, &[&format!("{name}=")]));
            }
            if ["--instance", "--socket"].contains(&name.as_str()) {
                broken.push(with(&command, &[&name, "a", &name, "b"]));
            }
        }
    }
    for words in [
        "service add",
        "service edit",
        "service remove",
        "server add tcp:192.0.2.10:80",
        "server edit",
        "server remove x",
        "server drain",
        "server drain 192.0.2.10:80",
        "server drain a b --timeout soon",
        "server drain a b --timeout -1s",
        "server drain a b --no-wait --timeout 5s",
        "server undrain a",
        "server undrain a b c",
        "service list --watch=",
        "service list --watch=0s",
        "service list --watch=never",
        "service list --watch 5s",
        "service add a --one-packet=perhaps",
        "service add a --quic=2",
        "server add a b --weight many",
        "server add a b --weight -1",
        "server add a b --weight 1.5",
        "server add a b --weight 99999999999999999999",
        "connection list --limit",
        "connection list --limit many",
        "connection list --limit -5",
        "connection list --server",
        "top it",
        "top --interval",
        "top --interval soon",
        "top --interval 1ms",
        "top --service",
        "top --once=yes",
        "stats --drops --rate",
        "stats --zero --drops",
        "stats --zero a b",
        "events --drops -1",
        "events --drops many",
        "reload --generation",
        "reload --generation now",
        "reload --generation -1",
        "config",
        "config show it",
        "config apply",
        "config apply a b",
        "config diff a b",
        "config history --limit x",
        "config rollback yesterday",
        "config rollback 1 2",
        "config save it",
        "stop",
        "stop --detach now",
        "import",
        "import nonsense f",
        "import ipvsadm",
        "import iptables",
        "import nft a b",
        "import keepalived",
        "import keepalived a b",
        "proc",
        "proc a b",
        "sysctl a b",
        "completions",
        "completions csh",
        "man a b",
        "openapi x",
        "prepare",
        "prepare --user",
        "run",
        "run --empty --config f",
        "run --user",
        "check",
        "check --config",
        "check f",
        "lab",
        "lab up --servers 0",
        "lab up --servers 251",
        "lab up --servers x",
        "lab up --mode magic",
        "lab up --family 5",
        "lab up --path fast",
        "lab up --tunnel l2tp",
        "lab exec",
        "lab exec client",
        "lab compare",
        "realserver",
        "realserver setup",
        "realserver setup --mode nat --vip 192.0.2.10",
        "realserver setup --mode dr",
        "realserver setup --mode dr --vip nowhere",
        "realserver setup --mode tun --vip 192.0.2.10 --tunnel x",
        "realserver setup --mode tun --vip 192.0.2.10 --port 0",
        "realserver setup --mode dr --vip 192.0.2.10 --table 254",
        "realserver check",
        "realserver undo x",
    ] {
        broken.push(words.split(' ').map(str::to_owned).collect());
    }
    assert!(broken.len() > 300, "{}", broken.len());
    for command in &broken {
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        let output = dirigent(&args);
        let said = err(&output);
        // Of a group without a command its help is shown.
        assert_eq!(code(&output), 2, "{command:?}: {said}{}", out(&output));
        assert!(out(&output).is_empty(), "{command:?}: {}", out(&output));
        let helps = ["--help", "Usage:", "tip:", "possible values"].iter().any(|word| said.contains(word));
        assert!(helps && !said.contains("panicked"), "{command:?}: {said}");
    }
}
