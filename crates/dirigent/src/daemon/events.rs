//! What happened, for whoever listens.

use dirigent_api::Event;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// Events that wait for a slow listener; what is older he misses, and is told so.
const KEPT: usize = 1024;

/// Where events are told, and listened to.
#[derive(Clone, Debug)]
pub struct Events(Arc<Mutex<Option<broadcast::Sender<Event>>>>);

impl Default for Events {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(broadcast::Sender::new(KEPT)))))
    }
}

impl Events {
    fn sender(&self) -> MutexGuard<'_, Option<broadcast::Sender<Event>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Tells everyone who listens.
    pub fn tell(&self, event: Event) {
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
