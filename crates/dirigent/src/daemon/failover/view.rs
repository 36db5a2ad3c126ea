//! What the status says of virtual routers.

use super::kept::now;
use dirigent_api::VirtualRouter;
use dirigent_failover::Time;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// One of them, as of the last change.
#[derive(Clone, Debug)]
pub struct Seen {
    pub router: VirtualRouter,
    pub since: SystemTime,
    pub heard: Option<Time>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<Mutex<Vec<Seen>>>);

impl View {
    /// They are these now.
    pub fn set(&self, all: Vec<Seen>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// With ages as of now.
    pub fn routers(&self) -> Vec<VirtualRouter> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (time, now) = (SystemTime::now(), now());
        let aged = |seen: Seen| {
            let mut router = seen.router;
            router.for_s = time.duration_since(seen.since).map_or(0, |age| age.as_secs());
            if let (Some(master), Some(heard)) = (&mut router.master, seen.heard) {
                master.heard_ms = u64::try_from(now.since(heard).as_millis()).unwrap_or(u64::MAX);
            }
            router
        };
        all.into_iter().map(aged).collect()
    }
}
