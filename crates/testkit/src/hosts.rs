//! Hosts of labs: network namespaces, with a director and other programs in them.

use dirigent_datapath::kernel::{Instance, detach_all};
use dirigent_net::netns::Namespace;
use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a program may take to end in order.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ends programs, in order where they can: keepalived ends its child, which SIGKILL would leave.
pub fn end<'c>(children: impl IntoIterator<Item = &'c mut Child>) {
    let mut children: Vec<_> = children.into_iter().collect();
    for child in &children {
        for signal in ["-CONT", "-TERM"] {
            let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
        }
    }
    for child in &mut children {
        let begun = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Takes a host away: all that runs there, its namespace, and its director with all that it keeps in `/run`.
pub fn remove(namespace: &str, instance: &str) {
    let pids = Command::new("ip").args(["netns", "pids", namespace]).output();
    for pid in pids.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default().split_whitespace() {
        let _ = Command::new("kill").args(["-9", pid]).status();
    }
    let _ = Namespace::delete(namespace);
    if let Ok(pinned) = Instance::new(instance)
        && pinned.directory().exists()
    {
        let _ = detach_all(&pinned);
    }
    for file in fs::read_dir("/run/dirigent").into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().starts_with(&format!("{instance}.")) {
            let _ = fs::remove_file(file.path());
        }
    }
}
