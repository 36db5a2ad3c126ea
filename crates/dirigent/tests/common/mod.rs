//! A lab with the daemon, for the length of a test.
#![allow(dead_code, missing_docs, reason = "each test program uses a part of it")]

pub mod http;
pub mod traffic;

use dirigent_datapath::kernel::{Instance, detach_all};
use dirigent_net::lab::{DIRECTORY, Lab, LabGuard};
use dirigent_net::netns::Namespace;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const BIN: &str = env!("CARGO_BIN_EXE_dirigent");

/// SHA-256 of a file, in hexadecimal.
pub fn checksum(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap().to_owned()
}

/// What a transfer to stdout brings, of which 32 KiB are read at once, with a pause before the next: curl's own limit
/// lets megabytes come at once.
pub fn read_slowly(mut transfer: Child, pause: Duration) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut from, mut got) = (transfer.stdout.take().unwrap(), Vec::new());
        while std::io::copy(&mut from.by_ref().take(32 << 10), &mut got).unwrap() > 0 {
            std::thread::sleep(pause);
        }
        transfer.wait().unwrap();
        got
    })
}

pub struct TestLab {
    lab: LabGuard,
}

/// Waits until that is so.
pub fn until(lab: &TestLab, what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        let servers = lab.dirigent(&["server", "list"]).0;
        assert!(begun.elapsed() < limit, "{what}\n{servers}\n{}", lab.log());
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// The lab's configuration with a check of each web server, and these keys of their services' health.
pub fn with_checks(lab: &TestLab, service: &str, check: &str) -> String {
    let config = lab.config();
    let (head, services) = config.split_once("[[service]]").unwrap();
    let mut out = head.to_owned();
    for block in services.split("[[service]]") {
        out += "[[service]]";
        if !block.contains(":80\"") {
            out += block;
            continue;
        }
        let mut servers = block.split("[[service.server]]");
        out += &format!("{}[service.health]\n{service}\n", servers.next().unwrap());
        for server in servers {
            out += &format!("[[service.server]]{server}\n[[service.server.check]]\n{check}\n");
        }
    }
    out
}

/// Removes the pins of labs whose test was killed; the labs themselves are the guard's matter.
fn clean_stale() {
    Lab::clean_stale().unwrap();
    let labs = Lab::list().unwrap();
    let Ok(pins) = std::fs::read_dir("/sys/fs/bpf/dirigent") else { return };
    for name in pins.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let process = name.strip_prefix("td").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let dead = process.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if dead && !labs.contains(&name) {
            let _ = detach_all(&Instance::new(&name).unwrap());
            for kind in ["vips", "lock", "sock"] {
                let _ = std::fs::remove_file(format!("/run/dirigent/{name}.{kind}"));
            }
        }
    }
}

impl TestLab {
    pub fn up(args: &[&str]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        clean_stale();
        let name = format!("td{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let output = Command::new(BIN).args(["lab", "up", "--name", &name]).args(args).output().unwrap();
        assert!(output.status.success(), "lab up: {}", String::from_utf8_lossy(&output.stderr));
        Self { lab: LabGuard::adopt(&name).unwrap() }
    }

    pub fn name(&self) -> &str {
        self.lab.name()
    }

    /// The output of a command on a host, which must succeed.
    pub fn on(&self, host: &str, argv: &[&str]) -> String {
        let output =
            Command::new(BIN).args(["lab", "exec", "--name", self.name(), host, "--"]).args(argv).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{argv:?} on {host}: {err}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Work of this process in the namespace of a host.
    pub fn run<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> T {
        self.lab.run(host, work).unwrap()
    }

    pub fn namespace(&self, host: &str) -> Namespace {
        self.lab.namespace(host).unwrap()
    }

    pub fn curl(&self, url: &str) -> String {
        self.on("client", &["curl", "-sS", "-g", "--max-time", "5", url])
    }

    /// A command that goes on in the background.
    pub fn start(&self, host: &str, argv: &[&str]) -> Child {
        let mut command = Command::new(BIN);
        command.args(["lab", "exec", "--name", self.name(), host, "--"]).args(argv);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn output(&self, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(BIN).args(["--instance", self.name()]).args(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// What a command of this lab's director prints and says; it must succeed.
    pub fn dirigent(&self, args: &[&str]) -> (String, String) {
        let (code, out, err) = self.output(args);
        assert_eq!(code, 0, "{args:?}: {err}\n{}", self.log());
        (out, err)
    }

    pub fn dirigent_fails(&self, args: &[&str]) -> (i32, String) {
        let (code, _, err) = self.output(args);
        assert_ne!(code, 0, "{args:?}");
        (code, err)
    }

    pub fn dirigent_lab(&self, command: &str, args: &[&str]) -> (String, String) {
        let all = [&["lab", command, "--name", self.name()], args].concat();
        self.dirigent(&all)
    }

    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.dirigent(args).0).unwrap()
    }

    /// A file of the lab.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new(DIRECTORY).join(self.name()).join(name)
    }

    /// The packets of a reason.
    pub fn count(&self, reason: &str) -> u64 {
        let stats = self.json(&["stats", "--json"]);
        let reasons = stats["reasons"].as_array().unwrap();
        reasons.iter().find(|r| r["name"] == reason).and_then(|r| r["count"].as_u64()).unwrap_or(0)
    }

    /// Has the director's netfilter drop, wherever it can, what conntrack cannot place.
    pub fn drop_invalid(&self) {
        let chain =
            |hook| format!("chain {hook} {{ type filter hook {hook} priority 0; ct state invalid counter drop; }}");
        let hooks = ["prerouting", "input", "forward", "output", "postrouting"].map(chain).join("\n");
        let file = self.file("strict.nft");
        std::fs::write(&file, format!("table inet strict {{\n{hooks}\n}}")).unwrap();
        self.sh("director", &format!("nft -f {}", file.display()));
    }

    pub fn config(&self) -> String {
        std::fs::read_to_string(self.file("dirigent.toml")).unwrap()
    }

    pub fn write_config(&self, text: &str) {
        std::fs::write(self.file("dirigent.toml"), text).unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("director-daemon.log")).unwrap_or_default()
    }

    pub fn pins(&self) -> PathBuf {
        Instance::new(self.name()).unwrap().directory()
    }

    /// A file that all servers serve; its checksum.
    pub fn publish(&self, name: &str, bytes: usize) -> String {
        let path = self.file("www").join(name);
        let mut word = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_le_bytes()
        };
        let content: Vec<u8> = (0..bytes / 8).flat_map(|_| next()).collect();
        std::fs::write(&path, content).unwrap();
        checksum(&path)
    }

    pub fn kill_daemon(&self) {
        self.signal_daemon("-9");
    }

    pub fn start_daemon(&self) {
        let config = self.file("dirigent.toml");
        self.start_daemon_with(&["--config", config.to_str().unwrap()]);
    }

    /// The daemon with other arguments.
    pub fn start_daemon_with(&self, args: &[&str]) {
        self.start_daemon_as(BIN, args);
    }

    /// A program that becomes the daemon, which is not waited for.
    pub fn start_process(&self, program: &str, args: &[&str]) {
        let argv = [&[program], args].concat();
        self.lab.start("director", "daemon", &argv).unwrap();
    }

    /// The daemon of another program.
    pub fn start_daemon_as(&self, program: &str, args: &[&str]) {
        let argv = [&[program, "run", "--instance", self.name()], args].concat();
        let daemon = self.lab.start("director", "daemon", &argv).unwrap();
        let begun = Instant::now();
        loop {
            let (code, out, err) = self.output(&["status", "--json"]);
            if code == 0 && out.contains(&format!("\"pid\": {}", daemon.child.id())) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{err}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        // With the pins; the guard then finds nothing left to do.
        let output = Command::new(BIN).args(["lab", "down", "--name", self.name()]).output();
        if !output.is_ok_and(|o| o.status.success()) {
            eprintln!("lab {} could not be removed", self.name());
        }
    }
}

impl TestLab {
    /// Runs a shell script on a host.
    pub fn sh(&self, host: &str, script: &str) -> String {
        self.on(host, &["sh", "-ec", script])
    }

    /// Sends the daemon a signal; who it is.
    pub fn signal_daemon_only(&self, signal: &str) -> dirigent_net::lab::Identity {
        let status = Lab::status(self.name()).unwrap().unwrap();
        let daemon = status.processes.iter().find(|p| p.label == "daemon" && p.running).expect("a daemon runs");
        let pid = daemon.identity.pid.to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        daemon.identity
    }

    /// Ends the daemon with a signal, and waits for its end.
    pub fn signal_daemon(&self, signal: &str) {
        let daemon = self.signal_daemon_only(signal);
        let begun = Instant::now();
        while daemon.is_alive() {
            assert!(begun.elapsed() < Duration::from_secs(5), "{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
