//! Under a service manager such as systemd: what it is told, and how the journal is written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{BIN, TestLab};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

struct Manager {
    lab: TestLab,
    socket: UnixDatagram,
}

impl Manager {
    /// A daemon whose manager this is, with a watchdog of half a second.
    fn start() -> Self {
        let lab = TestLab::up(&["--servers", "1", "--no-daemon"]);
        let path = lab.file("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let config = lab.file("dirigent.toml");
        let environment =
            [format!("NOTIFY_SOCKET={}", path.display()), "WATCHDOG_USEC=500000".into(), "JOURNAL_STREAM=8:1".into()];
        let argv: Vec<&str> = environment
            .iter()
            .map(String::as_str)
            .chain([BIN, "run", "--instance", lab.name(), "--config", config.to_str().unwrap()])
            .collect();
        lab.start_process("env", &argv);
        Self { lab, socket }
    }

    /// Waits for a message that says this; it, and how many were not it.
    fn hear(&self, word: &str) -> (String, usize) {
        let begun = Instant::now();
        for others in 0.. {
            let mut buffer = [0; 4096];
            if let Ok(bytes) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8(buffer[..bytes].to_vec()).unwrap();
                if text.lines().any(|line| line.starts_with(word)) {
                    return (text, others);
                }
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "no {word}\n{}", self.lab.log());
        }
        unreachable!()
    }
}

#[test]
fn a_service_manager_is_told_what_the_daemon_does() {
    let manager = Manager::start();
    let (ready, _) = manager.hear("READY=1");
    assert!(ready.contains("STATUS=forwarding "), "{ready}");
    for _ in 0..3 {
        manager.hear("WATCHDOG=1");
    }
    // Who is stopped does not come round.
    manager.lab.signal_daemon_only("-STOP");
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    std::thread::sleep(Duration::from_millis(600));
    assert!(manager.socket.recv(&mut [0; 4096]).is_err());
    manager.lab.signal_daemon_only("-CONT");
    manager.hear("WATCHDOG=1");
    manager.lab.signal_daemon_only("-HUP");
    let (reloading, _) = manager.hear("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hear("READY=1");
    manager.lab.signal_daemon("-TERM");
    manager.hear("STOPPING=1");

    let log = manager.lab.log();
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    assert!(
        !lines.is_empty() && lines.iter().all(|line| line.starts_with(['<']) && line.as_bytes()[2] == b'>'),
        "{log}"
    );
    assert!(lines.iter().any(|line| line.starts_with("<6>ready: ")), "{log}");
}
