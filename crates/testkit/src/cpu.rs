//! Which CPUs programs run on, and how much of them they took.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use std::fs;
use std::time::Duration;

/// Keeps a process, or with 0 the calling thread, on these CPUs.
pub fn pin(pid: i32, cpus: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    let pinned = cpus.iter().try_for_each(|cpu| set.set(*cpu));
    pinned
        .and_then(|()| sched_setaffinity(Pid::from_raw(pid), &set))
        .map_err(|e| format!("CPU {cpus:?} cannot be had: {e}"))
}

/// What some processes, this one, its children that have ended and the kernel's softirq threads have taken.
///
/// The scheduler charges a softirq to the task that it interrupts or follows, and gives it a thread (`ksoftirqd`) when there is
/// too much: so both are in it. A softirq on an idle CPU is in nobody's account; here packets go on where they were sent.
#[derive(Clone, Debug)]
pub struct Account {
    pids: Vec<i32>,
}

impl Account {
    /// Of these processes, and those that they have started so far.
    pub fn of(processes: impl IntoIterator<Item = i32>) -> Self {
        let mut pids: Vec<i32> = processes.into_iter().collect();
        let mut next = 0;
        while let Some(pid) = pids.get(next) {
            pids.extend(children(*pid));
            next += 1;
        }
        Self { pids: pids.into_iter().chain(softirq_threads()).collect() }
    }

    /// So far.
    pub fn taken(&self) -> Duration {
        let others: Duration = self.pids.iter().map(|pid| scheduled(*pid)).sum();
        let own = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].map(|who| {
            let Ok(usage) = getrusage(who) else { return Duration::ZERO };
            let both = [usage.user_time(), usage.system_time()].map(|time| {
                Duration::from_secs(time.tv_sec().try_into().unwrap_or(0))
                    + Duration::from_micros(time.tv_usec().try_into().unwrap_or(0))
            });
            both[0] + both[1]
        });
        others + own[0] + own[1]
    }
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn softirq_threads() -> Vec<i32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"));
    pids.filter(is_one).collect()
}

/// How long a process was on a CPU: the first number of `schedstat` of each of its threads, nanoseconds.
pub fn scheduled(pid: i32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let on_cpu = |text: String| text.split_ascii_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
    let ns = threads.filter_map(|thread| on_cpu(fs::read_to_string(thread.path().join("schedstat")).ok()?));
    Duration::from_nanos(ns.sum())
}

/// How long all CPUs of the machine were busy since it started, by `/proc/stat`: all but idle, waiting and stolen time.
pub fn machine_busy() -> Duration {
    busy(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn busy(stat: &str) -> Duration {
    const TICK: Duration = Duration::from_millis(10); // USER_HZ is 100 on every architecture that BPF runs on
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u32> = line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).map(|ticks| TICK * *ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn idle_waiting_and_stolen_time_is_nobodys() {
        let stat = "cpu  100 20 30 4000 500 6 7 800 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy(stat), Duration::from_millis(1630));
    }

    #[test]
    fn what_this_thread_and_a_child_take_is_counted() {
        let account = Account::of([]);
        let (before, begun) = (account.taken(), Instant::now());
        // A busy machine may give it little at first.
        while account.taken() - before < Duration::from_millis(5) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", account.taken() - before);
        }
        let own = account.taken() - before;
        let busy = "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done";
        assert!(Command::new("sh").args(["-c", busy]).status().unwrap().success());
        assert!(account.taken() - before > own);
    }

    #[test]
    fn a_process_is_counted_while_it_lives() {
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let pid = child.id() as i32;
        assert!(Account::of([pid]).pids.contains(&pid));
        let begun = Instant::now();
        while scheduled(pid) < Duration::from_millis(5) && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let taken = scheduled(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(taken >= Duration::from_millis(5), "{taken:?}");
    }
}
