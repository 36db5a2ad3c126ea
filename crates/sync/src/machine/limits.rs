//! Budgets: how much may be sent or is taken within a time.

/// A token bucket that fills by the millisecond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    per_second: u64,
    burst: u64,
    /// Thousandths.
    tokens: i64,
    at_ms: u64,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(per_second: u64, burst: u64, now_ms: u64) -> Self {
        let burst = burst.min(i64::MAX as u64 / 2000);
        Self { per_second, burst, tokens: (burst * 1000) as i64, at_ms: now_ms }
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let more = i64::try_from(passed.saturating_mul(self.per_second)).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(more).min((self.burst * 1000) as i64);
    }

    /// How much there is.
    pub(super) fn available(&mut self, now_ms: u64) -> u64 {
        self.fill(now_ms);
        u64::try_from(self.tokens / 1000).unwrap_or(0)
    }

    /// Takes that much if there is any at all: what is too much is waited for afterwards.
    pub(super) fn take(&mut self, now_ms: u64, amount: u64) -> bool {
        if self.available(now_ms) == 0 {
            return false;
        }
        let cost = i64::try_from(amount.saturating_mul(1000)).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_sub(cost);
        true
    }

    /// When there is something again.
    pub(super) fn next_ms(&self) -> u64 {
        let lacking = u64::try_from(1000i64.saturating_sub(self.tokens)).unwrap_or(0);
        self.at_ms.saturating_add(lacking.div_ceil(self.per_second.max(1)))
    }

    /// When it was last used.
    pub(super) fn used_ms(&self) -> u64 {
        self.at_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_too_much_is_waited_for() {
        let mut b = Bucket::new(1000, 10, 0);
        assert!(b.take(0, 15));
        assert_eq!((b.available(0), b.take(0, 1)), (0, false));
        assert_eq!(b.next_ms(), 6);
        assert!(!b.take(5, 1));
        assert!(b.take(6, 1));
        assert_eq!(b.available(1000), 10);
        // A clock that goes back fills nothing.
        assert!(b.take(500, 10));
        assert!(!b.take(900, 1));
    }
}
