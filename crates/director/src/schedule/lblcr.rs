//! Locality-based least-connection with replication (ipvs-semantics §4.11): a destination has
//! a set of servers, of which the least loaded takes the connection; a server joins it when
//! that one has too much to do, and the most loaded leaves when the set has long been as it is.
//!
//! The set is a chain of notes, newest first. One CPU at a time changes a service's sets; who
//! comes meanwhile leaves them as they are.

use super::Client;
use super::least::{least, overhead};
use super::local::overloaded;
use super::wlc::Wlc;
use crate::conn::age;
use crate::records::{NOBODY, Note, Noted, Server, Service, server_flag};
use crate::tables::{Step, Tables};

/// A look at the whole set.
struct Set {
    /// The key of the note under way.
    at: Noted,
    /// (overhead, weight, index) of the least loaded that takes connections.
    least: (u32, u32, u32),
    /// The same of the most loaded.
    most: (u32, u32, u32),
    /// Who stands before the most loaded; [`NOBODY`]: the destination itself.
    before_most: u32,
    before: u32,
}

impl<T: Tables> Step<T> for Set {
    #[inline(always)]
    fn step(&mut self, t: &T, _: u32) -> bool {
        let index = self.at.server;
        let (Some(note), Some(server)) = (t.note(&self.at), t.server(index)) else { return false };
        self.compare(index, server);
        (self.before, self.at.server) = (index, note.server);
        note.server != NOBODY
    }
}

impl Set {
    #[inline(always)]
    fn compare(&mut self, index: u32, server: &Server) {
        let (load, weight) = (overhead(server), server.weight.load());
        if weight == 0 {
            return;
        }
        let product = |load: u32, weight: u32| u64::from(load) * u64::from(weight);
        let takes = server.flags.load() & server_flag::AVAILABLE != 0 && server.full.load() == 0;
        let (least, least_weight, _) = self.least;
        if takes && (least_weight == 0 || product(least, weight) > product(load, least_weight)) {
            self.least = (load, weight, index);
        }
        let (most, most_weight, _) = self.most;
        if most_weight == 0 || product(most, weight) < product(load, most_weight) {
            (self.most, self.before_most) = ((load, weight, index), self.before);
        }
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, client: &Client) -> Option<u32> {
    let none = (0, 0, NOBODY);
    // One key on the stack, of which kernel 6.1 has little here: its server changes.
    let at = Noted { service: client.service, server: NOBODY, to: client.to };
    let mut set = Set { at, least: none, most: none, before_most: NOBODY, before: NOBODY };
    let now = t.now();
    let mut head = t.note(&set.at).unwrap_or(Note { server: NOBODY, size: 0, used: now, changed: now });
    head.used = now;
    if head.server != NOBODY {
        set.at.server = head.server;
        t.walk(head.size, &mut set);
    }
    let locked = service.try_lock();
    let long = t.settings().is_some_and(|settings| age(now, head.changed) > settings.lblcr_expiration);
    if locked && head.size > 1 && long && set.most.1 != 0 {
        leave(t, &mut set, &mut head);
    }
    let own = Some(set.least.2).filter(|own| t.server(*own).is_some_and(|server| !overloaded(t, service, server)));
    let chosen = match own {
        Some(own) => Some(own),
        None => least::<Wlc, T>(t, service),
    };
    if locked {
        if let (Some(chosen), None) = (chosen, own) {
            join(t, &mut set.at, &mut head, chosen);
        }
        if head.size > 0 {
            set.at.server = NOBODY;
            t.write_note(&set.at, &head);
        }
        service.unlock();
    }
    chosen
}

/// A server joins the set, if it is not in it.
#[inline(always)]
fn join<T: Tables>(t: &T, at: &mut Noted, head: &mut Note, server: u32) {
    at.server = server;
    if t.note(at).is_some() {
        return;
    }
    if t.write_note(at, &Note { server: head.server, ..Note::default() }) {
        (head.server, head.size, head.changed) = (server, head.size.wrapping_add(1), head.used);
    }
}

/// The most loaded server leaves the set.
#[inline(always)]
fn leave<T: Tables>(t: &T, set: &mut Set, head: &mut Note) {
    set.at.server = set.most.2;
    let Some(note) = t.note(&set.at) else { return };
    t.forget_note(&set.at);
    if set.before_most == NOBODY {
        head.server = note.server;
    } else {
        set.at.server = set.before_most;
        t.write_note(&set.at, &Note { server: note.server, ..Note::default() });
    }
    (head.size, head.changed) = (head.size.wrapping_sub(1), head.used);
}
