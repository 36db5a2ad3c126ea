//! Changes of every kind, upgrades and kills under constant load hurt nobody. `SOAK_SECONDS=60` for the whole minute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{BIN, TestLab};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Begun each minute, so that a thousand are made although there are moments without a daemon.
const CHANGES: u64 = 1200;
/// Kinds of change that go round.
const KINDS: u64 = 16;

struct Soak {
    lab: TestLab,
    file: String,
    over: AtomicBool,
    changes: AtomicU64,
    /// The next change.
    next: AtomicU64,
    /// Changes that found no daemon, and were made again.
    again: AtomicU64,
    requests: AtomicU64,
}

/// The command of a change, of one kind after the other. None of them takes a server from a connection of the load.
fn change(number: u64, lab: &str) -> Vec<String> {
    let turn = number / KINDS;
    let ipvsadm = |line: &str| format!("ipvsadm {line}");
    let line = match number % KINDS {
        0 => ipvsadm(&format!("-e -t 192.0.2.10:80 -r 10.0.0.2:8080 -m -w {}", turn % 5 + 1)),
        1 => ipvsadm(&format!("-E -t 192.0.2.10:80 -s {}", ["rr", "wrr", "wlc", "lc", "sed"][(turn % 5) as usize])),
        2 => ipvsadm(&format!("-A -t 192.0.2.10:{} -s rr", 2000 + turn % 500)),
        3 => ipvsadm(&format!("-a -t 192.0.2.10:{} -r 10.0.0.4:8080 -m", 2000 + turn % 500)),
        4 => "server drain 192.0.2.10:80 10.0.0.3:8080 --no-wait".into(),
        5 => ipvsadm("-e -t 192.0.2.10:80 -r 10.0.0.3:8080 -m -w 3 -x 10000 -y 5000"),
        6 => "server undrain 192.0.2.10:80 10.0.0.3:8080".into(),
        7 => ipvsadm(&format!("-d -t 192.0.2.10:{} -r 10.0.0.4:8080", 2000 + turn % 500)),
        8 => "reload".into(),
        9 => ipvsadm("-e -t 192.0.2.10:80 -r 10.0.0.3:8080 -m -w 0"),
        10 => ipvsadm(&format!("-D -t 192.0.2.10:{}", 2000 + turn % 500)),
        11 => "config rollback --yes".into(),
        12 => ipvsadm(&format!("--set {} 60 {}", 600 + turn % 100, 200 + turn % 100)),
        13 => format!("config apply /run/dirigent/lab/{lab}/dirigent.toml --yes"),
        14 => ipvsadm(&format!("-A -f {} -s wlc", turn % 200 + 1)),
        _ => "reload --replace".into(),
    };
    line.split(' ').map(str::to_owned).collect()
}

impl Soak {
    fn start() -> Self {
        let lab = TestLab::up(&["--servers", "3", "--no-daemon"]);
        let service = |port: u16, servers: &[(u8, u16)]| {
            let mut text = format!(
                "\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:{port}\"\nscheduler = \"rr\"\nvip = \"manage\"\n"
            );
            for (last, port) in servers {
                text += &format!("\n[[service.server]]\naddress = \"10.0.0.{last}:{port}\"\n");
            }
            text
        };
        // Server 3 has a service of its own.
        let file = format!(
            "version = 1\n{}{}{}",
            service(80, &[(2, 8080), (3, 8080)]),
            service(81, &[(4, 8080)]),
            service(5201, &[(2, 5201)])
        );
        lab.write_config(&file);
        lab.start_daemon();
        let [changes, next, again, requests] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { lab, file, over: AtomicBool::new(false), changes, next, again, requests }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// One change after the other, as many as are wanted in the time that has passed; for several threads.
    fn change(&self, pace: Duration) {
        let begun = Instant::now();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep((begun + pace * number as u32).saturating_duration_since(Instant::now()));
            // What the file says changes too.
            let weight = number % 7 + 1;
            let text = self.file.replacen("10.0.0.4:8080\"", &format!("10.0.0.4:8080\"\nweight = {weight}"), 1);
            let path = self.lab.file("dirigent.toml");
            let new = path.with_extension(format!("{number}"));
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, path).unwrap();
            let args = change(number, self.lab.name());
            loop {
                if self.is_over() {
                    return;
                }
                let mut command = std::process::Command::new(BIN);
                command.args(&args).env("DIRIGENT_INSTANCE", self.lab.name());
                let output = command.output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                // Between two daemons, or as one was killed: who asked does it again, and finds it done perhaps.
                let lost = ["no daemon", "see the daemon's log", "the daemon is ending", "Can't initialize"];
                let done =
                    ["already exists", "No such", "not defined", "there is no such", "no change was made", "meanwhile"];
                if output.status.success() || done.iter().any(|text| said.contains(text)) {
                    break;
                }
                assert!(lost.iter().any(|text| said.contains(text)), "{args:?}: {said}\n{}", self.lab.log());
                self.again.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks, each time on a connection of its own, and looks who answers.
    fn ask(&self, port: u16, servers: &[&str]) {
        self.lab.run("client", || {
            while !self.is_over() {
                let mut stream = TcpStream::connect(("192.0.2.10", port)).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(servers.iter().any(|server| answer.contains(server)), "port {port}: {answer}");
                self.requests.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
    }

    /// No counter of the load's services ever falls, whoever tells it.
    fn count(&self) {
        let mut before: Vec<u64> = Vec::new();
        while !self.is_over() {
            let args = ["--instance", self.lab.name(), "stats", "--json"];
            let output = std::process::Command::new(BIN).args(args).output().unwrap();
            // As a daemon ends, the answer may be lost with it.
            if let Ok(stats) = serde_json::from_slice::<Value>(&output.stdout) {
                let service = |port: &str| {
                    let all = stats["services"].as_array().unwrap().clone();
                    let at = format!("192.0.2.10:{port}");
                    all.into_iter().find(|s| s["address"] == at.as_str()).map(|s| s["counters"].clone()).unwrap()
                };
                let counters = [stats["total"].clone(), service("80"), service("81"), service("5201")];
                let now: Vec<u64> = counters
                    .iter()
                    .flat_map(|c| c.as_object().unwrap().values())
                    .map(|n| n.as_u64().unwrap())
                    .collect();
                assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{before:?} then {now:?}");
                before = now;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(!before.is_empty());
    }
}

#[test]
fn changes_upgrades_and_kills_under_load_hurt_nobody() {
    let seconds: u64 = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(24);
    let soak = Soak::start();
    let lab = &soak.lab;
    // Another version of the program.
    let new = lab.file("dirigent-new");
    std::fs::copy(BIN, &new).unwrap();
    let mut iperf3 = lab.start("server1", &["iperf3", "-s"]);
    lab.sh("server1", "for i in $(seq 100); do ss -ltn | grep -q :5201 && exit 0; sleep 0.1; done; exit 1");
    let time = Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        // Whatever fails ends the others.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let over = &soak.over;
        let soak = &soak;
        let load = |how: &str| {
            let script = format!("nice -n 19 wrk -t1 -c4 -d{seconds}s --timeout 10s {how} http://192.0.2.10/");
            scope.spawn(move || {
                let _end = End(over);
                let report = lab.sh("client", &script);
                assert!(report.contains("requests in"), "{report}");
                assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}\n{}", lab.log());
            })
        };
        let loads = [load("-H 'Connection: close'"), load("")];
        let bulk = scope.spawn(move || {
            let _end = End(over);
            let report = lab.sh("client", &format!("iperf3 -c 192.0.2.10 -t {seconds} -b 50M -J"));
            let report: Value = serde_json::from_str(&report).unwrap();
            let intervals = report["intervals"].as_array().unwrap();
            let stalled = intervals.iter().filter(|i| i["sum"]["bytes"].as_f64().unwrap() == 0.0).count();
            assert_eq!((report.get("error"), stalled), (None, 0), "{report}");
        });
        let pace = Duration::from_secs(60) / CHANGES as u32;
        let others = [
            scope.spawn(move || {
                let _end = End(over);
                soak.change(pace)
            }),
            // A second operator.
            scope.spawn(move || {
                let _end = End(over);
                soak.change(pace)
            }),
            scope.spawn(move || {
                let _end = End(over);
                soak.ask(80, &["server1", "server2"])
            }),
            scope.spawn(move || {
                let _end = End(over);
                soak.ask(81, &["server3"])
            }),
            scope.spawn(move || {
                let _end = End(over);
                soak.count()
            }),
        ];
        // Two upgrades and three kills.
        for (at, kill) in [true, false, true, false, true].into_iter().enumerate() {
            let until = Instant::now() + time / 7;
            while Instant::now() < until && !soak.is_over() {
                std::thread::sleep(Duration::from_millis(20));
            }
            lab.signal_daemon(if kill { "-9" } else { "-TERM" });
            let config = lab.file("dirigent.toml");
            let program = if at < 2 { BIN } else { new.to_str().unwrap() };
            lab.start_daemon_as(program, &["--config", config.to_str().unwrap()]);
        }
        for load in loads {
            load.join().unwrap();
        }
        bulk.join().unwrap();
        over.store(true, Ordering::Relaxed);
        for other in others {
            other.join().unwrap();
        }
    });
    let _ = iperf3.kill();
    let _ = iperf3.wait();
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (changes, again, requests) = (of(&soak.changes), of(&soak.again), of(&soak.requests));
    println!("{changes} changes ({again} asked for again) and {requests} requests beside the load, in {seconds} s");
    // A change that waits for the next daemon waits, and a slow machine is no failure: what counts is that none failed.
    assert!(changes > 5 * KINDS && requests > 100, "{changes} changes, {requests} requests");
}
