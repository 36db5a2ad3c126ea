//! How long this process's threads wait for locks of the kernel: its samples of what they do, by `perf` where that is there.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// There on every machine; virtual ones often have no counters of the CPU's.
const EVENT: &str = "cpu-clock";
/// Samples a second of each CPU: no divisor of the tick.
const RATE: &str = "4999";
/// After that `perf` watches.
const START: Duration = Duration::from_millis(300);

/// What this process does is sampled until [`Samples::end`].
#[derive(Debug)]
pub struct Samples {
    perf: Child,
    file: PathBuf,
}

impl Samples {
    /// Begins; none where `perf` is not installed.
    pub fn begin() -> Result<Option<Self>, String> {
        let id = std::process::id();
        let file = std::env::temp_dir().join(format!("dirigent-locks-{id}"));
        let mut command = Command::new("perf");
        command.args(["record", "--quiet", "-e", EVENT, "-F", RATE, "-p", &id.to_string(), "-o"]).arg(&file);
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(perf) => {
                std::thread::sleep(START);
                Ok(Some(Self { perf, file }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("perf: {error}")),
        }
    }

    /// Of 100 samples, those in which a lock was waited for.
    pub fn end(mut self) -> Result<f64, String> {
        let fail = |error: std::io::Error| format!("perf: {error}");
        kill(Pid::from_raw(self.perf.id().cast_signed()), Signal::SIGINT).map_err(|error| format!("perf: {error}"))?;
        self.perf.wait().map_err(fail)?;
        let mut report = Command::new("perf");
        report.args(["report", "--quiet", "--no-children", "--stdio", "-F", "overhead,sym", "-i"]).arg(&self.file);
        let output = report.output().map_err(fail)?;
        waits(&String::from_utf8_lossy(&output.stdout))
            .ok_or_else(|| format!("perf saw nothing: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        // After an error; else it has ended.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The sum of what such a report says of functions that wait for locks; none if it says nothing.
fn waits(report: &str) -> Option<f64> {
    let mut lines = report.lines().filter_map(|line| {
        let (share, symbol) = line.trim().split_once('%')?;
        Some((share.parse::<f64>().ok()?, symbol))
    });
    let first = lines.next()?;
    let waits = std::iter::once(first).chain(lines).filter(|(_, symbol)| symbol.contains("lock_slowpath"));
    // (No negative zero.)
    Some(waits.fold(0.0, |sum, (share, _)| sum + share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_wait_for_locks_are_summed() {
        let report = "    22.92%  [k] lookup_nulls_elem_raw\n     4.36%  [k] _raw_spin_unlock_irqrestore\n     \
                      2.50%  [k] resilient_queued_spin_lock_slowpath\n     0.25%  [k] native_queued_spin_lock_slowpath\n";
        assert_eq!(waits(report), Some(2.75));
        assert_eq!(waits("   99.10%  [k] jhash\n"), Some(0.0));
        assert_eq!(waits("\n# nothing was sampled\n"), None);
    }
}
