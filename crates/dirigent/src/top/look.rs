//! One look at the director: what is asked of the daemon, which is no more than is shown, and what it says.

use super::rates::Rates;
use crate::ask::{Target, connections_path, stats_path};
use crate::events;
use crate::failure::Result;
use dirigent_api::{Connections, ConnectionsOf, Event, Service, Stats, StatsOf, Status, path};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Connections that are asked for: more rows than anybody scrolls through.
pub const CONNECTIONS: usize = 1000;
/// Events that are remembered.
const EVENTS: usize = 500;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Whose counters.
    pub stats: StatsOf,
    /// Whose connections; none: nobody's.
    pub connections: Option<ConnectionsOf>,
}

/// What the daemon says.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// How it is doing.
    pub status: Status,
    /// What is counted.
    pub stats: Stats,
    /// The connections, if they were asked for.
    pub connections: Option<Connections>,
}

impl Look {
    /// Asks.
    pub async fn at(target: &Target, want: &Want) -> Result<Self> {
        let status = target.get(path::STATUS).await?;
        let stats = target.get(&stats_path(&want.stats)).await?;
        let connections = match &want.connections {
            Some(of) => Some(target.get(&connections_path(of)).await?),
            None => None,
        };
        Ok(Self { status, stats, connections })
    }
    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.stats.services.iter().find(|service| service.name() == name)
    }
}

/// All that is known of the director.
#[derive(Debug, Default)]
pub struct Known {
    /// The newest look.
    pub look: Look,
    /// How fast it counts.
    pub rates: Rates,
    /// What happened, the latest first, and when it was heard.
    pub events: VecDeque<(Instant, String)>,
    /// Since when the daemon does not answer, and why.
    pub trouble: Option<(Instant, String)>,
}

impl Known {
    /// After another look.
    pub fn seen(&mut self, at: Instant, want: &Want, look: Look) {
        self.rates.look(at, &look.stats, want.stats == StatsOf::default());
        self.look = look;
        self.trouble = None;
    }
    /// After a look that failed.
    pub fn failed(&mut self, at: Instant, why: String) {
        let since = self.trouble.as_ref().map_or(at, |(since, _)| *since);
        self.trouble = Some((since, why));
    }
    /// Something happened.
    pub fn heard(&mut self, at: Instant, event: &Event) {
        self.events.push_front((at, events::line(event)));
        self.events.truncate(EVENTS);
    }
}

/// When to look again after an answer that took so long: the daemon shall not spend more than a tenth of its time on it.
pub fn pause(interval: Duration, took: Duration) -> Duration {
    interval.max(took.saturating_mul(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_daemon_is_asked_less_often() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(3));
        assert_eq!(pause(Duration::from_secs(2), short), Duration::from_secs(2));
        assert_eq!(pause(Duration::from_secs(2), long), Duration::from_secs(30));
    }

    #[test]
    fn trouble_has_its_beginning_and_its_newest_reason() {
        let (mut known, begun) = (Known::default(), Instant::now());
        known.failed(begun, "no daemon".into());
        known.failed(begun + Duration::from_secs(2), "no answer".into());
        assert_eq!(known.trouble, Some((begun, "no answer".into())));
        known.seen(begun + Duration::from_secs(4), &Want::default(), Look::default());
        assert_eq!(known.trouble, None);
    }

    #[test]
    fn no_more_events_are_kept_than_anybody_reads() {
        let mut known = Known::default();
        for events in 0..EVENTS as u64 + 10 {
            known.heard(Instant::now(), &Event::Missed { events });
        }
        assert_eq!(known.events.len(), EVENTS);
        assert!(known.events[0].1.contains("509 events"), "{:?}", known.events[0]);
    }
}
