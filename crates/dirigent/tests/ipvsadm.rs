//! ipvsadm's habits: the recordings of ipvsadm 1.31 on the real kernel, and scripts made for it.

mod common;

use common::{BIN, TestLab};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A director without a file, and the program under ipvsadm's name.
struct Ipvsadm {
    lab: TestLab,
    program: PathBuf,
}

#[derive(Debug, PartialEq)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Ipvsadm {
    fn start() -> Self {
        let lab = TestLab::up(&["--servers", "1", "--no-daemon"]);
        lab.start_daemon_with(&["--empty"]);
        let program = lab.file("ipvsadm");
        std::os::unix::fs::symlink(BIN, &program).unwrap();
        Self { lab, program }
    }

    /// A command line as a shell reads it, on the director.
    fn run(&self, args: &str, stdin: &str) -> Said {
        let mut command = Command::new(BIN);
        command.args(["lab", "exec", "--name", self.lab.name(), "director", "--", "sh", "-c"]);
        command.arg(format!("exec {} {args}", self.program.display())).env("DIRIGENT_INSTANCE", self.lab.name());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Who reads no stdin may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Said { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn ok(&self, args: &str, stdin: &str) -> String {
        let said = self.run(args, stdin);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{args}\n{}", self.lab.log());
        said.out
    }
}

/// The recordings, if they are there; `make test` says when they are not.
fn recording<T: for<'de> Deserialize<'de>>(name: &str) -> Option<T> {
    let directory = std::env::var_os("DIRIGENT_GOLDEN").map(PathBuf::from).or_else(|| {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle/golden");
        beside.is_dir().then_some(beside)
    })?;
    let text = std::fs::read_to_string(directory.join("text").join(name)).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

#[derive(Deserialize)]
struct Output {
    args: String,
    rc: i32,
    stdout: String,
    stderr: String,
    stdin: Option<String>,
}

#[derive(Deserialize)]
struct Config {
    config: Vec<String>,
    outputs: Vec<Output>,
    sysctl: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Errors {
    base: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    output: Output,
    changed: Vec<String>,
}

/// What this director does and IPVS's of the recordings does not, or the other way round (docs/differences.md).
fn differs(args: &str) -> bool {
    args.contains("-s twos") || args.contains("--pe sip")
}

/// The second line of a table has the size of the connection table.
fn sized(text: &str) -> String {
    let Some((head, rest)) = text.split_once("(size=") else { return text.to_owned() };
    format!("{head}(size={}", rest.split_once(')').map_or(rest, |(_, rest)| rest))
}

#[test]
fn wrong_and_doubtful_lines_are_answered_as_recorded() {
    let Some(recorded) = recording::<Errors>("text-errors.json") else { return };
    let director = Ipvsadm::start();
    let base = recorded.base.join("\n");
    let mut wrong = Vec::new();
    for Case { output, changed } in recorded.cases.iter().filter(|case| !differs(&case.output.args)) {
        director.ok("-C", "");
        if output.stdin.is_none() {
            director.ok("-R", &base);
        }
        let before = director.ok("-S -n", "");
        let said = director.run(&output.args, output.stdin.as_deref().unwrap_or_default());
        let after = director.ok("-S -n", "");
        let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
        let new = after.iter().filter(|line| !before.contains(line)).map(|line| (*line).to_owned());
        let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("gone: {line}"));
        let did: Vec<_> = new.chain(gone).collect();
        let is = (said.code, sized(&said.out), said.err, did);
        let was = (output.rc, sized(&output.stdout), output.stderr.clone(), changed.clone());
        if is != was {
            wrong.push(format!("ipvsadm {} {:?}\n  is  {is:?}\n  was {was:?}", output.args, output.stdin));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), recorded.cases.len(), wrong.join("\n"));
}

#[test]
fn a_table_is_saved_and_restored_as_recorded() {
    let Some(recorded) = recording::<Config>("text-config.json") else { return };
    let director = Ipvsadm::start();
    director.ok("-R", &recorded.config.join("\n"));
    let output = |args: &str| recorded.outputs.iter().find(|output| output.args == args).unwrap();
    let saved = director.ok("-S -n", "");
    assert_eq!(saved, output("-S -n").stdout);
    // Without traffic: the columns of connections are zero.
    let idle = |text: &str| {
        let row = |line: &str| match line.strip_prefix("  -> ").and_then(|row| row.split_once("  ")) {
            Some((name, rest)) if !name.starts_with("Remote") => {
                let columns: Vec<_> = rest.split_whitespace().collect();
                let (configured, _) = columns.split_at(columns.len() - 2);
                format!("{name} {}", configured.join(" "))
            }
            _ => line.trim_end().to_owned(),
        };
        text.lines().map(row).collect::<Vec<_>>()
    };
    for args in
        ["-L -n", "-l -n", "-Ln", "-L -n --thresholds", "-L -n --tun-info", "-L -n --sort", "-L -n -f 8 -6", "-n"]
    {
        let was = output(args);
        let said = director.run(args, "");
        assert_eq!((said.code, said.err), (was.rc, was.stderr.clone()), "{args}");
        assert_eq!(idle(&sized(&said.out)), idle(&sized(&was.stdout)), "{args}");
    }
    for args in [
        "-L --timeout",
        "-L --daemon",
        "-L --timeout --daemon",
        "-L -n -f 8",
        "-L -n -t 192.0.2.99:80",
        "-L -n -6",
        "-L -n -4",
        "-L -n -c -t 192.0.2.10:80",
        "-h",
        "--help",
        "--version",
    ] {
        let was = output(args);
        let said = director.run(args, "");
        assert_eq!((said.code, said.out, said.err), (was.rc, was.stdout.clone(), was.stderr.clone()), "{args}");
    }
    director.ok("-C", "");
    assert_eq!(director.ok("-S -n", ""), "");
    director.ok("-R", &saved);
    assert_eq!(director.ok("-S -n", ""), saved);
    director.ok("--set 100 50 40", "");
    director.ok("--set 0 0 77", "");
    assert_eq!(director.ok("-L --timeout", ""), "Timeout (tcp tcpfin udp): 100 50 77\n");
    let shown: BTreeMap<String, String> = serde_json::from_value(director.lab.json(&["sysctl", "--json"])).unwrap();
    for (name, value) in &recorded.sysctl {
        // It depends on memory there; here there is no queue.
        if name != "sync_qlen_max" {
            assert_eq!(shown.get(name), Some(value), "{name}");
        }
    }
}

/// As people write them, with quotes by the shell and names of services.
const SCRIPT: &str = r#"
set -e
ipvsadm -C
ipvsadm -A -t 192.0.2.10:http -s wrr
for n in 11 12; do ipvsadm -a -t 192.0.2.10:80 -r 10.1.0.$n:8080 -m -w 3; done
ipvsadm -e -t 192.0.2.10:80 -r 10.1.0.12:8080 -m -w 0
ipvsadm -S -n > "$DIR/rules"
ipvsadm -D -t 192.0.2.10:80
if ipvsadm -D -t 192.0.2.10:80 2> "$DIR/err"; then exit 9; else test $? = 255; fi
ipvsadm -R < "$DIR/rules"
ipvsadm -Z
ipvsadm -Z -t 192.0.2.10:80
ipvsadm -L -n -t 192.0.2.10:80 | grep -c -- '->' > "$DIR/count"
"#;

#[test]
fn a_script_made_for_ipvsadm_runs_unchanged() {
    let director = Ipvsadm::start();
    let directory = director.lab.file("");
    let script = SCRIPT.replace("$DIR", directory.to_str().unwrap());
    let path = format!("PATH={}:$PATH DIRIGENT_INSTANCE={}", directory.display(), director.lab.name());
    director.lab.sh("director", &format!("export {path}\n{script}"));
    let read = |name: &str| std::fs::read_to_string(director.lab.file(name)).unwrap();
    assert_eq!(read("err"), "No such service\n");
    assert_eq!(read("count"), "3\n");
    assert_eq!(
        read("rules"),
        "-A -t 192.0.2.10:80 -s wrr\n-a -t 192.0.2.10:80 -r 10.1.0.11:8080 -m -w 3\n-a -t 192.0.2.10:80 -r 10.1.0.12:8080 -m -w 0\n"
    );
    // What happened is in the history, like every change.
    let history = director.lab.json(&["config", "history", "--json"]);
    assert!(history[0]["what"].as_str().unwrap().starts_with("ipvsadm"), "{history}");
    let proc = director.lab.dirigent(&["proc", "/proc/net/ip_vs"]).0;
    assert!(
        proc.contains("\nTCP  C000020A:0050 wrr  \n  -> 0A01000C:1F90      Masq    0      0          0         \n"),
        "{proc}"
    );
    director.lab.dirigent(&["stop", "--detach"]);
    let said = director.run("-L -n", "");
    assert_eq!(said.code, 2);
    assert!(said.err.starts_with("Can't initialize ipvs: Protocol not available\nAre you sure"), "{}", said.err);
}
