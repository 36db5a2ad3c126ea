//! What a packet looked at on its way through the packet path: the steps of an explanation.

use std::cell::RefCell;
use std::net::IpAddr;

use dirigent_director::tables::{Insert, Route};

use crate::keys::{Flow, Spot};

/// One thing that was looked at, or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The packet went to a later stage, by its number: [`dirigent_director::direct::Stage::number`].
    Stage(u32),
    /// XDP left it to tc, which begins anew.
    HandedToTc,
    /// The interface it came in by; whether it is one of the director's.
    Link(u32, bool),
    /// The connection table was asked for an entry, or (see [`Flow::template`]) for a template.
    Conn {
        /// The key.
        flow: Flow,
        /// The server of the entry, if there is one.
        server: Option<u32>,
    },
    /// The services were asked for one at this place.
    Service(Spot, Option<u32>),
    /// Whether an address is this host's.
    Local(IpAddr, bool),
    /// The same, of a marked packet.
    LocalByMark(IpAddr, bool),
    /// Whether a client may open connections to the service of this index.
    Allows(u32, IpAddr, bool),
    /// Whether a NAT server is there: its index.
    Known(Spot, Option<u32>),
    /// A mark rule, by its place.
    Rule(u32),
    /// A scheduler begins to choose a server, or (`false`) has ended.
    Scheduling(bool),
    /// A server's record.
    Server(u32),
    /// How frames reach a server.
    NextHop(u32),
    /// The routing table was asked for the way of a packet of so many bytes.
    Route(IpAddr, u32, Route),
    /// An entry was made.
    Insert(Flow, Insert),
    /// An entry was removed.
    Remove(Flow),
    /// A packet was counted for a server; whether it is an answer.
    Count(u32, bool),
}

/// The list, if somebody wants it.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch(RefCell<Option<Vec<Seen>>>);

impl Watch {
    /// Begins a new list.
    pub fn begin(&self) {
        self.0.replace(Some(Vec::new()));
    }
    /// Ends it.
    pub fn end(&self) -> Vec<Seen> {
        self.0.take().unwrap_or_default()
    }
    /// Notes something, once if it comes again and again.
    pub fn note(&self, seen: impl FnOnce() -> Seen) {
        if let Some(list) = self.0.borrow_mut().as_mut() {
            let seen = seen();
            if list.last() != Some(&seen) {
                list.push(seen);
            }
        }
    }
}
