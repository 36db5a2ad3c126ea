//! What the status says of virtual routers.

use super::kept::now;
use dirigent_api::VirtualRouter;
use dirigent_failover::Time;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// One of them, as of the last change.
#[derive(Clone, Debug)]
pub struct Seen {
    pub router: VirtualRouter,
    pub since: SystemTime,
    pub heard: Option<Time>,
}

/// All of them.
#[derive(Debug, Default)]
struct All {
    seen: Vec<Seen>,
    /// How often each came into each state, by its name.
    transitions: HashMap<String, BTreeMap<String, u64>>,
}

/// The same, shared.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<Mutex<All>>);

impl View {
    /// They are these now.
    pub fn set(&self, seen: Vec<Seen>) {
        let mut all = self.all();
        all.transitions.retain(|name, _| seen.iter().any(|one| one.router.name == *name));
        all.seen = seen;
    }

    /// One of them came into a state.
    pub fn came(&self, router: &str, state: &str) {
        let mut all = self.all();
        let states = all.transitions.entry(router.to_owned()).or_default();
        *states.entry(state.to_owned()).or_default() += 1;
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With ages as of now.
    pub fn routers(&self) -> Vec<VirtualRouter> {
        let all = self.all();
        let (time, now) = (SystemTime::now(), now());
        let aged = |seen: &Seen| {
            let mut router = seen.router.clone();
            router.transitions = all.transitions.get(&router.name).cloned().unwrap_or_default();
            router.for_s = time.duration_since(seen.since).map_or(0, |age| age.as_secs());
            if let (Some(master), Some(heard)) = (&mut router.master, seen.heard) {
                master.heard_ms = u64::try_from(now.since(heard).as_millis()).unwrap_or(u64::MAX);
            }
            router
        };
        all.seen.iter().map(aged).collect()
    }
}
