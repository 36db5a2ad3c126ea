//! The sweep: connections that nobody's packet ends.

use dirigent_director::conn::{self, Word};
use dirigent_director::records::kind;

use super::Error;
use super::store::{Entry, Expired, Store};

/// What a sweep did.
pub type Swept = Expired;

/// Walks over both tables once and expires what is idle. `pause` is called every few
/// thousand entries, so that a sweep of millions disturbs nobody.
pub fn sweep<S: Store>(store: &mut S, pause: &mut dyn FnMut()) -> Result<Swept, Error> {
    let settings = store.settings()?;
    let now = store.now();
    let idle = |entry: &Entry| {
        let age = conn::age(now, entry.last_seen);
        let timeout = conn::timeout(&settings, entry.flow.protocol, Word(entry.word).state());
        match entry.kind {
            // The request entry is the connection. A reply entry is looked at only to find
            // one that lost it (a daemon or CPU that stopped half-way).
            kind::NAT_REPLY => age >= timeout.saturating_add(60 * settings.hz),
            kind::TEMPLATE => age >= entry.timeout,
            _ => age >= timeout,
        }
    };
    store.sweep(&idle, pause)
}
