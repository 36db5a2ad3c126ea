//! When and where something was measured.

use std::process::Command;

/// The day, as documents write it: `30 November 2026`.
#[must_use]
pub fn day() -> String {
    let day = Command::new("date").env("LC_ALL", "C").arg("+%-d %B %Y").output();
    day.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The kernel's release.
#[must_use]
pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// How many CPUs, and which: `2 CPUs (Intel Xeon)`.
#[must_use]
pub fn cpus() -> String {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let all = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = all.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    format!("{count} CPUs ({})", model.map_or("of an unknown model", |(_, model)| model.trim()))
}
