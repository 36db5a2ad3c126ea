//! Directors side by side on one machine, each with a name that holds its pins, socket and lock. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::TestLab;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn run_file(instance: &str, kind: &str) -> PathBuf {
    PathBuf::from(format!("/run/dirigent/{instance}.{kind}"))
}

fn config_file(lab: &TestLab) -> String {
    format!("{}/{}/dirigent.toml", dirigent_net::lab::DIRECTORY, lab.name())
}

fn connections(lab: &TestLab) -> u64 {
    let stats = lab.json(&["stats", "--json"]);
    stats["services"].as_array().unwrap().iter().map(|s| s["counters"]["connections"].as_u64().unwrap()).sum()
}

#[test]
fn two_labs_run_side_by_side_and_one_detaches_alone() {
    let one = TestLab::up(&["--servers", "2"]);
    let other = TestLab::up(&["--servers", "1", "--path", "xdp-generic", "--no-offloads", "--one-arm"]);
    // The same virtual address in both, and more of it in one.
    other.write_config(&other.config().replace("192.0.2.10:80", "192.0.2.10:8000"));
    other.dirigent(&["reload"]);
    let mut answers: Vec<_> = (0..4).map(|_| one.curl("http://192.0.2.10/")).collect();
    answers.sort();
    assert_eq!(answers, ["server1", "server1", "server2", "server2"]);
    for _ in 0..3 {
        assert_eq!(other.curl("http://192.0.2.10:8000/"), "server1");
    }
    assert_eq!([connections(&one), connections(&other)], [4, 3]);

    let pid = |lab: &TestLab| lab.json(&["status", "--json"])["daemon"]["pid"].to_string();
    for lab in [&one, &other] {
        assert!(lab.pins().ends_with(lab.name()) && lab.pins().join("maps").exists());
        assert!(run_file(lab.name(), "sock").exists());
        assert_eq!(std::fs::read_to_string(run_file(lab.name(), "lock")).unwrap().trim(), pid(lab));
    }

    // The name is taken wherever it is asked for, and asking does no harm.
    for place in [&one, &other] {
        let run = format!("dirigent run --instance {} --config {} 2>&1 || echo exit $?", one.name(), config_file(&one));
        let said = place.sh("director", &run);
        let who = format!("a daemon of {} runs already (process {})", one.name(), pid(&one));
        assert!(said.contains(&who) && said.contains("choose another --instance"), "{said}");
        assert!(said.ends_with("exit 1") && said.lines().count() == 2, "{said}");
    }
    assert_eq!(one.curl("http://192.0.2.10/").len(), "server1".len());
    assert_eq!(connections(&one), 5);

    let (said, _) = one.dirigent(&["stop", "--detach"]);
    assert!(said.contains("removed the maps, with all connections and counters"), "{said}");
    assert!(!one.pins().exists() && !run_file(one.name(), "sock").exists());
    assert_eq!(one.sh("client", "curl -s --max-time 1 http://192.0.2.10/ || echo nothing"), "nothing");
    assert_eq!(connections(&other), 3, "the other one's counters stay");
    assert_eq!(other.curl("http://192.0.2.10:8000/"), "server1");
    assert_eq!(connections(&other), 4);
    assert!(other.pins().exists() && run_file(other.name(), "sock").exists());

    // Nothing of the old one is in the way of a new one, even at once.
    one.start_daemon();
    one.dirigent(&["stop", "--detach"]);
    one.start_daemon();
    assert_eq!(connections(&one), 0);
    assert_eq!(one.curl("http://192.0.2.10/").len(), "server1".len());
}

/// A second director in the network namespace of a lab's own.
struct Second<'a> {
    lab: &'a TestLab,
    name: String,
    file: PathBuf,
}

impl<'a> Second<'a> {
    fn new(lab: &'a TestLab) -> Self {
        let name = format!("{}-b", lab.name());
        let file = std::env::temp_dir().join(format!("{name}.toml"));
        Self { lab, name, file }
    }

    /// Writes its configuration: a service at 192.0.2.20 with server 1.
    fn configure(&self, mode: &str) {
        let text = format!(
            "version = 1\n[director]\ninstance = \"{}\"\nmode = \"{mode}\"\nconnections = 1024\n\n[[service]]\n\
             protocol = \"tcp\"\naddress = \"192.0.2.20:80\"\nvip = \"manage\"\n[[service.server]]\n\
             address = \"10.0.0.2:8080\"\n",
            self.name
        );
        std::fs::write(&self.file, text).unwrap();
    }

    /// For the director's shell; the lab's own name is the default there.
    fn command(&self, words: &str) -> String {
        format!("dirigent --instance {} {words}", self.name)
    }

    fn start(&self) -> std::process::Child {
        let run = self.command(&format!("run --config {}", self.file.display()));
        let daemon = self.lab.start("director", &["sh", "-c", &format!("exec {run} 2>&1")]);
        let begun = Instant::now();
        let ask = format!("{} 2>&1 || true", self.command("status"));
        while !self.lab.sh("director", &ask).contains("forwarding (process") {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", self.lab.sh("director", &ask));
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    /// It must refuse; what it said.
    fn refusal(&self) -> String {
        let run = self.command(&format!("run --config {}", self.file.display()));
        let said = self.lab.sh("director", &format!("timeout 20 {run} 2>&1 || echo exit $?"));
        assert!(said.ends_with("exit 1"), "{said}");
        said
    }

    fn connections(&self) -> u64 {
        let stats = self.lab.sh("director", &self.command("stats --json"));
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        assert_eq!(stats["services"].as_array().unwrap().len(), 1);
        stats["services"][0]["counters"]["connections"].as_u64().unwrap()
    }

    fn pins(&self) -> PathBuf {
        self.lab.pins().with_file_name(&self.name)
    }
}

impl Drop for Second<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
        let end = format!("{} || true", self.command("stop --detach"));
        self.lab.sh("director", &end);
        for kind in ["lock", "vips"] {
            let _ = std::fs::remove_file(run_file(&self.name, kind));
        }
    }
}

/// Two directors on the same interfaces, both by tc: each takes its own services' packets and leaves the other's.
#[test]
fn two_directors_share_interfaces_by_tc() {
    let lab = TestLab::up(&["--servers", "1"]);
    let second = Second::new(&lab);
    second.configure("auto");
    let mut daemon = second.start();
    let ask = |count: usize| {
        for _ in 0..count {
            for vip in ["192.0.2.10", "192.0.2.20"] {
                assert_eq!(lab.curl(&format!("http://{vip}/")), "server1", "{vip}");
            }
        }
    };
    ask(3);
    assert_eq!([connections(&lab), second.connections()], [3, 3]);
    let status = lab.sh("director", &second.command("status"));
    assert!(status.contains("interface c0: tc") && status.contains("interface r0: tc"), "{status}");

    // XDP in front would make the other one deaf: the first may not change to it now.
    let text = lab.config();
    lab.write_config(&text.replacen("mode = \"auto\"", "mode = \"xdp-generic\"", 1));
    let (code, said) = lab.dirigent_fails(&["reload"]);
    let who = format!("is used by the director {} (tc)", second.name);
    assert!(code == 1 && said.contains(&who) && said.contains("mode = \"tc\""), "{said}");
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    ask(1);
    assert_eq!([connections(&lab), second.connections()], [4, 4]);

    // Each detaches for itself alone.
    lab.sh("director", &second.command("stop --detach"));
    daemon.wait().unwrap();
    assert!(!second.pins().exists() && lab.pins().exists());
    assert_eq!(lab.curl("http://192.0.2.10/"), "server1");
    assert_eq!(connections(&lab), 5);
    let held = lab.sh("director", "ip -br address show lo");
    assert!(held.contains("192.0.2.10") && !held.contains("192.0.2.20"), "{held}");
}

/// A director on XDP has its interfaces to itself: a second one is refused, whatever its mode, and leaves no trace.
#[test]
fn an_interface_with_xdp_belongs_to_one_director() {
    let lab = TestLab::up(&["--servers", "1", "--path", "xdp", "--no-offloads"]);
    let second = Second::new(&lab);
    let programs =
        || lab.sh("director", "for d in c0 r0; do ip -d link show dev $d | grep -o 'prog/xdp id [0-9]*'; done");
    let before = programs();
    assert_eq!(before.lines().count(), 2, "{before}");
    for mode in ["auto", "tc", "xdp", "xdp-generic"] {
        second.configure(mode);
        let said = second.refusal();
        let who = format!("interface c0 is used by the director {} (XDP)", lab.name());
        assert!(said.contains(&who) && said.contains("name other `interfaces`"), "{mode}: {said}");
        assert_eq!(programs(), before, "{mode}");
        assert!(!second.pins().exists() && !run_file(&second.name, "sock").exists(), "{mode}");
    }
    assert!(!lab.sh("director", "ip -br address show lo").contains("192.0.2.20"));
    assert_eq!(lab.curl("http://192.0.2.10/"), "server1");
    assert_eq!(connections(&lab), 1);
}
