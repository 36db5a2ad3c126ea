//! One look at the director: what is asked of the daemon, which is no more than is shown, and what it says.

use super::rates::Rates;
use crate::ask::{Target, connections_path, stats_path};
use crate::events;
use crate::failure::{Failure, Result};
use dirigent_api::{Connections, ConnectionsOf, Event, Service, Stats, StatsOf, Status, path};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Connections that are asked for: more rows than anybody scrolls through.
pub const CONNECTIONS: usize = 1000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
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
    /// Asks. A daemon that hangs does not answer, and that is said.
    pub async fn at(target: &Target, want: &Want) -> Result<Self> {
        let late = || {
            let (place, what) = (target.socket.display().to_string(), "the daemon takes too long to answer");
            Failure::new(place, what, "see its log, and what the host is busy with")
        };
        tokio::time::timeout(PATIENCE, Self::asked(target, want)).await.unwrap_or_else(|_| Err(late()))
    }
    async fn asked(target: &Target, want: &Want) -> Result<Self> {
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
    /// How long the daemon took for it.
    pub took: Duration,
    /// How fast it counts.
    pub rates: Rates,
    /// What happened, the latest first, and when it was heard.
    pub events: VecDeque<(Instant, String)>,
    /// Since when the daemon does not answer, and why.
    pub trouble: Option<(Instant, String)>,
}

impl Known {
    /// After another look, whose answer `took` so long.
    pub fn seen(&mut self, at: Instant, took: Duration, want: &Want, mut look: Look) {
        let whole = want.stats == StatsOf::default();
        self.rates.look(at, &look.stats, whole);
        if !whole {
            // What was not asked for is shown as it was, until it is: that is when one comes back to it.
            let new = std::mem::replace(&mut look.stats.services, std::mem::take(&mut self.look.stats.services));
            for service in new {
                match look.stats.services.iter_mut().find(|old| old.name() == service.name()) {
                    Some(old) => *old = service,
                    None => look.stats.services.push(service),
                }
            }
        }
        (self.look, self.took, self.trouble) = (look, took, None);
    }
    /// Something else will be asked for: whose connections these are, they are not what is looked at.
    pub fn turned(&mut self) {
        self.look.connections = None;
    }
    /// From one look to the next: the daemon shall not spend more than a quarter of its time on answers.
    pub fn pause(&self, interval: Duration) -> Duration {
        interval.max(self.took.saturating_mul(3))
    }
    /// After a look that failed.
    pub fn failed(&mut self, at: Instant, why: String) {
        // It is asked as often as an operator wants to know whether it is back.
        self.took = Duration::ZERO;
        let since = self.trouble.as_ref().map_or(at, |(since, _)| *since);
        self.trouble = Some((since, why));
    }
    /// Something happened.
    pub fn heard(&mut self, at: Instant, event: &Event) {
        self.events.push_front((at, events::line(event)));
        self.events.truncate(EVENTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_daemon_is_asked_less_often() {
        let (mut known, interval) = (Known::default(), Duration::from_secs(2));
        for (took_ms, pause_s) in [(20, 2), (600, 2), (3000, 9)] {
            known.seen(Instant::now(), Duration::from_millis(took_ms), &Want::default(), Look::default());
            assert_eq!(known.pause(interval), Duration::from_secs(pause_s));
        }
        known.failed(Instant::now(), "no answer".into());
        assert_eq!(known.pause(interval), interval);
    }

    #[test]
    fn what_was_not_asked_for_stays_as_it_was() {
        let service = |address: &str, scheduler: &str| Service {
            address: address.into(),
            scheduler: scheduler.into(),
            ..Service::default()
        };
        let look = |services| Look { stats: Stats { services, ..Stats::default() }, ..Look::default() };
        let schedulers = |known: &Known| -> Vec<String> {
            known.look.stats.services.iter().map(|service| service.scheduler.clone()).collect()
        };
        let (mut known, now) = (Known::default(), Instant::now());
        known.seen(now, Duration::ZERO, &Want::default(), look(vec![service("a", "rr"), service("b", "rr")]));
        let stats = StatsOf { service: Some("b".into()), ..StatsOf::default() };
        known.seen(now, Duration::ZERO, &Want { stats, connections: None }, look(vec![service("b", "wrr")]));
        assert_eq!(schedulers(&known), ["rr", "wrr"]);
        let stats = StatsOf { services: Some(false), ..StatsOf::default() };
        known.seen(now, Duration::ZERO, &Want { stats, connections: None }, look(Vec::new()));
        assert_eq!(schedulers(&known), ["rr", "wrr"]);
        known.seen(now, Duration::ZERO, &Want::default(), look(vec![service("b", "wlc")]));
        assert_eq!(schedulers(&known), ["wlc"]);
    }

    #[test]
    fn trouble_has_its_beginning_and_its_newest_reason() {
        let (mut known, begun) = (Known::default(), Instant::now());
        known.failed(begun, "no daemon".into());
        known.failed(begun + Duration::from_secs(2), "no answer".into());
        assert_eq!(known.trouble, Some((begun, "no answer".into())));
        known.seen(begun + Duration::from_secs(4), Duration::ZERO, &Want::default(), Look::default());
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
