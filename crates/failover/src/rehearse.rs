//! What would happen if this router stopped, lost its link or handed over: who takes over, and when
//! at the latest. For an operator who wants to know before it happens (`dirigent failover rehearse`).
//!
//! A forecast, not a promise: of backups VRRP says nothing (they are silent), so what is known of
//! peers is what they said when they were masters, or what the configuration says of them.

use crate::action::Role;
use crate::parameters::{OWNER, skew_time};
use crate::router::Router;
use crate::time::Time;
use std::net::IpAddr;

/// What is imagined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhatIf {
    /// The router stops in order: its priority 0 tells the others.
    Stops,
    /// Its link, its host or its process is gone, without a word.
    LosesLink,
    /// A planned hand-over.
    HandsOver,
}

/// What is known of another router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The priority that it said last, or that is configured for it; not 0.
    pub priority: u8,
    /// When it was heard last, if ever.
    pub heard_at: Option<Time>,
}

/// What would happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forecast {
    /// The router is not master: nothing changes for clients while the master, if there is one, lives.
    NothingChanges {
        /// The master that was heard last.
        master: Option<IpAddr>,
    },
    /// A peer takes over.
    TakenOver {
        /// Which.
        by: Peer,
        /// When, if all adverts are heard.
        expected: Time,
        /// When at the latest: the word of it is lost (an orderly end), or this router's last advert is
        /// still to come (link). Adverts lost before that make it earlier, not later.
        latest: Time,
    },
    /// No peer is known. Any there is takes over in these times.
    Unknown {
        /// The least: by an owner of the addresses.
        earliest: Time,
        /// The most: by a router of priority 1.
        latest: Time,
        /// With a hand-over: when this router comes back if there is none.
        comes_back: Option<Time>,
    },
}

/// What would happen at `now`. `router` is asked only, never changed.
pub fn rehearse(now: Time, router: &Router, peers: &[Peer], what_if: WhatIf) -> Forecast {
    if router.role() != Role::Master {
        return Forecast::NothingChanges { master: router.heard().map(|heard| heard.source) };
    }
    let times = |priority: u8| expected_and_latest(now, router, priority, what_if);
    // Who waits least; of equal ones whose advert makes the other one give way.
    match peers.iter().filter(|peer| peer.priority != 0).max_by_key(|peer| (peer.priority, peer.address)) {
        Some(peer) => {
            let (expected, latest) = times(peer.priority);
            Forecast::TakenOver { by: *peer, expected, latest }
        }
        None => Forecast::Unknown {
            earliest: times(OWNER).0,
            latest: times(1).1,
            comes_back: (what_if == WhatIf::HandsOver).then(|| now + router.hand_over_bound()),
        },
    }
}

fn expected_and_latest(now: Time, router: &Router, priority: u8, what_if: WhatIf) -> (Time, Time) {
    let p = router.parameters();
    let down = p.master_down(priority, p.advert_int);
    let last = router.last_advert().unwrap_or(now);
    match what_if {
        WhatIf::Stops | WhatIf::HandsOver => {
            let skew = skew_time(p.version(), priority, p.advert_int);
            // The word is said a second time by who hands over, not by who is gone.
            let again = if what_if == WhatIf::HandsOver { now + router.repeat_zero_after() + skew } else { now };
            (now + skew, (now + skew).max(last + down).max(again))
        }
        // It may go right after an advert that it sends now.
        WhatIf::LosesLink => (last + down, now.max(last) + down),
    }
}

#[cfg(test)]
mod tests;
