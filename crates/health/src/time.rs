//! Sums of times that no setting can make overflow, and shares of them by a random number.

use std::time::{Duration, Instant};

/// The instant `wait` after `now`; after a year if it is longer or beyond what the clock can say.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
    now.checked_add(wait.min(YEAR)).unwrap_or(now)
}

/// `whole` times `random` / 2^64: uniform in 0 to `whole` for a uniform `random`.
pub(crate) fn share(whole: Duration, random: u64) -> Duration {
    // 128 bits hold it: no Duration has more than 2^94 nanoseconds, so the upper bits of it are cut first.
    let ns = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(ns) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overflows() {
        let now = Instant::now();
        assert!(after(now, Duration::MAX) > now);
        assert_eq!(share(Duration::from_secs(8), 1 << 63), Duration::from_secs(4));
        assert_eq!(share(Duration::from_secs(8), 0), Duration::ZERO);
        assert!(share(Duration::from_secs(8), u64::MAX) < Duration::from_secs(8));
        assert!(share(Duration::MAX, u64::MAX) < Duration::MAX);
    }
}
