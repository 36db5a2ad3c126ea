//! The kernel's ticks, from user space: `jiffies` cannot be read, but it advances with
//! the monotonic clock.

use std::fs;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// How ticks follow from the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    hz: u32,
    /// Ticks at time 0.
    start: u32,
}

impl Clock {
    /// Asks the kernel.
    pub fn of_this_machine() -> Self {
        // The coarse clock moves with the tick: its resolution is 1/HZ.
        let hz = match resolution() {
            0 => 250,
            ns => u32::try_from((SECOND + ns / 2) / ns).unwrap_or(250).max(1),
        };
        let listed = fs::read_to_string("/proc/timer_list").ok().and_then(|text| start(&text, hz));
        // INITIAL_JIFFIES: five minutes before the (32-bit) wrap.
        Self { hz, start: listed.unwrap_or_else(|| (300 * hz).wrapping_neg()) }
    }
    /// Ticks a second.
    pub fn hz(&self) -> u32 {
        self.hz
    }
    /// Ticks now.
    pub fn now(&self) -> u32 {
        ticks(monotonic(), self.hz).wrapping_add(self.start)
    }
}

fn ticks(ns: u64, hz: u32) -> u32 {
    (u128::from(ns) * u128::from(hz) / u128::from(SECOND)) as u32
}

/// Ticks at time 0 by /proc/timer_list, which says both clocks.
fn start(text: &str, hz: u32) -> Option<u32> {
    let now = text.lines().find_map(|line| line.strip_prefix("now at ")?.strip_suffix(" nsecs")?.parse().ok())?;
    let jiffies: u64 = text.lines().find_map(|line| line.trim().strip_prefix("jiffies: ")?.parse().ok())?;
    Some((jiffies as u32).wrapping_sub(ticks(now, hz)))
}

fn clock(ask: unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int, of: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both functions write one timespec.
    if unsafe { ask(of, &raw mut time) } != 0 {
        return 0;
    }
    let (seconds, rest) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds * SECOND + rest
}

fn resolution() -> u64 {
    clock(libc::clock_getres, libc::CLOCK_MONOTONIC_COARSE)
}

fn monotonic() -> u64 {
    clock(libc::clock_gettime, libc::CLOCK_MONOTONIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_timers_says_both_clocks() {
        let text = "Timer List Version: v0.10\nnow at 2000000000 nsecs\n\ncpu: 0\njiffies: 4294892796\n";
        assert_eq!(start(text, 250), Some((300u32 * 250).wrapping_neg()));
        assert!([100, 250, 300, 1000].contains(&Clock::of_this_machine().hz()));
    }
}
