//! What happened, for whoever listens.

use dirigent_api::{Event, Happened};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// Events that wait for a slow listener; what is older he misses, and is told so.
const KEPT: usize = 1024;

/// Events that are remembered for whoever asks later.
const REMEMBERED: usize = 500;

/// Where events are told, and listened to.
#[derive(Clone, Debug)]
pub struct Events {
    sender: Arc<Mutex<Option<broadcast::Sender<Event>>>>,
    past: Arc<Mutex<Past>>,
}

/// The last events, the latest first.
#[derive(Debug, Default)]
struct Past {
    told: u64,
    last: VecDeque<Happened>,
}

impl Past {
    /// Remembers an event, if it is none of the many that counters tell as well.
    fn remember(&mut self, event: &Event) {
        if matches!(event, Event::Drops { .. } | Event::Missed { .. }) {
            return;
        }
        self.told += 1;
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        self.last.push_front(Happened { number: self.told, time_s, event: event.clone() });
        self.last.truncate(REMEMBERED);
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: Arc::new(Mutex::new(Some(broadcast::Sender::new(KEPT)))), past: Arc::default() }
    }
}

impl Events {
    fn sender(&self) -> MutexGuard<'_, Option<broadcast::Sender<Event>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The last ones, the latest first: no more than that many.
    pub fn last(&self, limit: usize) -> Vec<Happened> {
        self.past().last.iter().take(limit).cloned().collect()
    }
    /// Tells everyone who listens.
    pub fn tell(&self, event: Event) {
        self.past().remember(&event);
        if let Some(sender) = self.sender().as_ref() {
            // Nobody does: then it is not an error.
            let _ = sender.send(event);
        }
    }
    /// Whether anybody listens, for what costs something to find out.
    pub fn heard(&self) -> bool {
        self.sender().as_ref().is_some_and(|sender| sender.receiver_count() > 0)
    }
    /// From now on, until all has ended.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        match self.sender().as_ref() {
            Some(sender) => sender.subscribe(),
            None => broadcast::channel(1).1,
        }
    }
    /// Tells this, and nothing any more.
    pub fn end(&self, last: Event) {
        self.tell(last);
        *self.sender() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_remembered_but_for_those_that_are_counted() {
        let events = Events::default();
        let role = |n: usize| Event::Role { role: format!("master r{n}"), why: String::new() };
        (0..REMEMBERED + 2).for_each(|n| events.tell(role(n)));
        events.tell(Event::Drops { reason: "x".into(), text: String::new(), per_second: 1 });
        events.tell(Event::Missed { events: 3 });
        let last = events.last(usize::MAX);
        assert_eq!(last.len(), REMEMBERED);
        assert_eq!((last[0].number, &last[0].event), (REMEMBERED as u64 + 2, &role(REMEMBERED + 1)));
        assert_eq!(events.last(2), last[..2]);
        assert!(last[0].time_s > 1_600_000_000);
    }
}
