//! How far behind a peer this node is, though their clocks differ: measured against the fastest
//! delivery seen of late, whose way is taken to have cost nothing.

/// Time for which the fastest delivery counts; twice that at most.
const WINDOW_MS: u64 = 60_000;

/// What is known of the difference of the clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lag {
    /// Smallest difference of arrival and sending, in this window and in the one before.
    now: Option<i64>,
    before: Option<i64>,
    since_ms: u64,
    /// When the peer sent the last datagram that was put in order.
    sent_ms: Option<u64>,
    /// How long the last arrival took.
    took_ms: u64,
}

fn difference(arrived_ms: u64, sent_ms: u64) -> i64 {
    arrived_ms.wrapping_sub(sent_ms) as i64
}

impl Lag {
    /// A datagram arrived that was sent then (not one that was sent again).
    pub(super) fn arrived(&mut self, now_ms: u64, sent_ms: u64) {
        if now_ms.saturating_sub(self.since_ms) > WINDOW_MS {
            self.before = self.now.take();
            self.since_ms = now_ms;
        }
        let d = difference(now_ms, sent_ms);
        self.now = Some(self.now.map_or(d, |least| least.min(d)));
        self.took_ms = self.since(now_ms, sent_ms);
    }
    /// A datagram was put in order.
    pub(super) fn delivered(&mut self, sent_ms: u64) {
        self.sent_ms = Some(sent_ms);
    }
    /// Milliseconds from sending to here of the last that arrived.
    pub(super) fn delivery(&self) -> u64 {
        self.took_ms
    }
    /// Milliseconds since something was sent, as of now.
    pub(super) fn since(&self, now_ms: u64, sent_ms: u64) -> u64 {
        let least = [self.now, self.before].into_iter().flatten().min();
        let d = difference(now_ms, sent_ms);
        u64::try_from(d.saturating_sub(least.unwrap_or(d))).unwrap_or(0)
    }
    /// Milliseconds since the last datagram in order was sent.
    pub(super) fn behind(&self, now_ms: u64) -> u64 {
        self.sent_ms.map_or(0, |sent| self.since(now_ms, sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_delivery_is_the_measure() {
        let mut lag = Lag::default();
        // The peer's clock is far ahead, the way takes 5 to 9 ms.
        for (sent, way) in [(0, 9), (10, 5), (20, 7)] {
            lag.arrived(1000 + sent + way, 1 << 40 | sent);
        }
        assert_eq!(lag.since(1000 + 20 + 7, 1 << 40 | 20), 2);
        lag.delivered(1 << 40 | 20);
        assert_eq!(lag.delivery(), 2);
        assert_eq!(lag.behind(1000 + 20 + 5 + 300), 300);
        // A way that has become longer is known to have, for a while.
        for minute in 1..=4u64 {
            lag.arrived(1020 + minute * 60_001, (1 << 40) + minute * 60_001);
        }
        assert_eq!(lag.since(1020 + 60_001 * 5, (1 << 40) + 60_001 * 5), 0);
    }
}
