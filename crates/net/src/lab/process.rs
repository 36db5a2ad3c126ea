//! Processes started in a lab: told apart from later ones with the same number by their start time.

use crate::error::{Context, Error, Result};
use crate::netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::{Duration, Instant};

/// How long a process has to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_millis(2500);
/// How long the kernel has to carry out a SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that cannot be mistaken for a later one with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

impl Identity {
    /// The process with this number now; `None` when there is none.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Identity { pid, start_time: stat.start_time })
    }

    /// The calling process.
    pub fn of_this_process() -> Result<Self> {
        let pid = std::process::id() as i32;
        Self::of(pid).ok_or_else(|| Error::refused("/proc does not show this process", "mount /proc"))
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !stat.is_zombie())
    }
}

/// A process that was started in a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The host it runs on.
    pub host: String,
    /// What it was started as; with the host it names the process.
    pub label: String,
    /// Who it is.
    pub identity: Identity,
    /// Its command line.
    pub command: Vec<String>,
    /// Where its output goes; `None` for one in the foreground.
    pub log: Option<std::path::PathBuf>,
}

/// The fields of `/proc/PID/stat` that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: char,
    group: i32,
    session: i32,
    threads: u32,
    start_time: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command's name may hold blanks and brackets: what counts starts after the last bracket.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let mut number = |skip: usize| fields.nth(skip);
        Some(Stat {
            state,
            group: number(1)?.parse().ok()?,
            session: number(0)?.parse().ok()?,
            threads: number(13)?.parse().ok()?,
            start_time: number(1)?.parse().ok()?,
        })
    }

    /// The state is the first thread's: as long as another has not ended, the process still holds its files and locks.
    fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

/// Ends the recorded processes, and what they started in the lab's namespaces (`inodes`). Returns how many were ended.
pub(crate) fn end_all(records: &[ProcessRecord], inodes: &[u64]) -> Result<usize> {
    let first = victims(records, inodes)?;
    signal_all(&first, Signal::SIGTERM)?;
    if !gone_within(GRACE, records, inodes)? {
        signal_all(&victims(records, inodes)?, Signal::SIGKILL)?;
        if !gone_within(PATIENCE, records, inodes)? {
            let stuck: Vec<_> = victims(records, inodes)?.iter().map(|v| v.pid.to_string()).collect();
            return Err(Error::refused(
                format!("processes {} do not die", stuck.join(", ")),
                "they hang in the kernel; look at /proc/PID/stack",
            ));
        }
    }
    Ok(first.len())
}

/// Processes that still are in the namespaces, with their names: nobody's records know them, so they are only reported.
pub(crate) fn others(inodes: &[u64]) -> Result<Vec<(i32, String)>> {
    let mine = std::process::id() as i32;
    let inside = |pid: &i32| *pid != mine && netns::inode_of_process(*pid).is_some_and(|inode| inodes.contains(&inode));
    let name = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        (pid, text.trim_end().to_string())
    };
    Ok(pids()?.into_iter().filter(inside).map(name).collect())
}

fn victims(records: &[ProcessRecord], inodes: &[u64]) -> Result<Vec<Identity>> {
    let mut found = Vec::new();
    if records.is_empty() {
        return Ok(found);
    }
    for pid in pids()? {
        let Some(stat) = Stat::read(pid) else { continue };
        let identity = Identity { pid, start_time: stat.start_time };
        let recorded = records.iter().any(|record| record.identity == identity);
        let descends = || {
            records.iter().any(|r| r.identity.pid == stat.group || r.identity.pid == stat.session)
                && netns::inode_of_process(pid).is_some_and(|inode| inodes.contains(&inode))
        };
        if !stat.is_zombie() && (recorded || descends()) {
            found.push(identity);
        }
    }
    Ok(found)
}

fn gone_within(time: Duration, records: &[ProcessRecord], inodes: &[u64]) -> Result<bool> {
    let start = Instant::now();
    while !victims(records, inodes)?.is_empty() {
        if start.elapsed() > time {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(true)
}

fn signal_all(victims: &[Identity], signal: Signal) -> Result<()> {
    for victim in victims {
        if !victim.is_alive() {
            continue;
        }
        match kill(Pid::from_raw(victim.pid), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context(|| format!("ending process {}", victim.pid)),
        }
    }
    Ok(())
}

fn pids() -> Result<Vec<i32>> {
    let entries = fs::read_dir("/proc").context(|| "listing /proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let text = "42 (a) b) c) S 1 40 39 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 9";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { state: 'S', group: 40, session: 39, threads: 1, start_time: 123_456 });
        assert!(!stat.is_zombie() && Stat { state: 'Z', ..stat }.is_zombie());
        assert!(!Stat { state: 'Z', threads: 2, ..stat }.is_zombie(), "killed, but a thread has yet to end");
    }

    #[test]
    fn an_identity_ends_with_its_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id() as i32).unwrap();
        assert!(identity.is_alive());
        assert!(!Identity { start_time: identity.start_time + 1, ..identity }.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!identity.is_alive());
    }
}
