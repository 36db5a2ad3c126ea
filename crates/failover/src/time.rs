//! Points in time. The crate has no clock: whoever calls brings one.

use std::ops::Add;
use std::time::Duration;

/// A point in time as the caller's clock has it: nanoseconds since any start. The clock must be
/// monotonic **and run while the machine sleeps** (`CLOCK_BOOTTIME`): a master that was suspended
/// has to find out. Sums saturate at the end of 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Time {
    ns: u64,
}

impl Time {
    /// The clock's start.
    pub const ZERO: Self = Self { ns: 0 };

    /// So many nanoseconds after the clock's start.
    pub const fn from_ns(ns: u64) -> Self {
        Self { ns }
    }

    /// So many milliseconds after the clock's start.
    pub const fn from_ms(ms: u64) -> Self {
        Self { ns: ms.saturating_mul(1_000_000) }
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_ns(self) -> u64 {
        self.ns
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        let ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        Self { ns: self.ns.saturating_add(ns) }
    }
}

/// The earlier of those that are there.
pub(crate) fn earliest(times: impl IntoIterator<Item = Option<Time>>) -> Option<Time> {
    times.into_iter().flatten().min()
}
