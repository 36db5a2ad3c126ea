//! The daemon as a process, under the names that Prometheus's libraries have for it.

use super::families::Families;
use dirigent_api::metrics as table;
use procfs::WithCurrentSystemInfo as _;
use procfs::process::{LimitValue, Process as Entry};
use std::fmt;

/// What /proc says; none: it does not say.
#[derive(Debug, Default)]
pub struct Process {
    cpu_s: Option<f64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    virtual_bytes: Option<u64>,
    resident_bytes: Option<u64>,
    start_s: Option<f64>,
    threads: Option<u64>,
}

impl Process {
    /// What it says now. A daemon that gave up root may not be told all of it.
    pub fn look() -> Self {
        let Ok(entry) = Entry::myself() else { return Self::default() };
        let hz = procfs::ticks_per_second() as f64;
        let mut found = Self {
            open_fds: entry.fd_count().ok().map(|count| count as u64),
            max_fds: entry.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Value(most) => Some(most),
                LimitValue::Unlimited => None,
            }),
            ..Self::default()
        };
        if let Ok(stat) = entry.stat() {
            found.cpu_s = Some((stat.utime + stat.stime) as f64 / hz);
            found.virtual_bytes = Some(stat.vsize);
            found.resident_bytes = Some(stat.rss_bytes().get());
            found.threads = u64::try_from(stat.num_threads).ok();
            found.start_s = procfs::boot_time_secs().ok().map(|boot| boot as f64 + stat.starttime as f64 / hz);
        }
        found
    }

    /// Tells what is known.
    pub fn tell(&self, to: &mut Families<'_>) -> fmt::Result {
        let none: [&str; 0] = [];
        to.put(&table::PROCESS_CPU, self.cpu_s.map(|value| (none, value)))?;
        to.put(&table::PROCESS_OPEN_FDS, self.open_fds.map(|value| (none, value)))?;
        to.put(&table::PROCESS_MAX_FDS, self.max_fds.map(|value| (none, value)))?;
        to.put(&table::PROCESS_VIRTUAL_MEMORY, self.virtual_bytes.map(|value| (none, value)))?;
        to.put(&table::PROCESS_RESIDENT_MEMORY, self.resident_bytes.map(|value| (none, value)))?;
        to.put(&table::PROCESS_START_TIME, self.start_s.map(|value| (none, value)))?;
        to.put(&table::PROCESS_THREADS, self.threads.map(|value| (none, value)))
    }
}
