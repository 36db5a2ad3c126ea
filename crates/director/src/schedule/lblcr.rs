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
    /// Looked for.
    wanted: u32,
    found: bool,
}

impl<T: Tables> Step<T> for Set {
    #[inline(always)]
    fn step(&mut self, t: &T, _: u32) -> bool {
        let index = self.at.server;
        let (Some(note), Some(server)) = (t.note(&self.at), t.server(index)) else { return false };
        self.found |= index == self.wanted;
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

/// Looks through the set of `dest`, also for `wanted`.
#[inline(always)]
fn look<T: Tables>(t: &T, dest: &Noted, head: &Note, wanted: u32) -> Set {
    let none = (0, 0, NOBODY);
    let at = Noted { server: head.server, ..*dest };
    let mut set = Set { at, least: none, most: none, before_most: NOBODY, before: NOBODY, wanted, found: false };
    if head.server != NOBODY {
        t.walk(head.size, &mut set);
    }
    set
}

pub fn pick<T: Tables>(t: &T, service: &Service, client: &Client) -> Option<u32> {
    let dest = Noted { service: client.service, server: NOBODY, to: client.to };
    let now = t.now();
    let fresh = Note { server: NOBODY, size: 0, used: now, changed: now };
    let mut head = t.note(&dest).unwrap_or(fresh);
    head.used = now;
    let set = look(t, &dest, &head, NOBODY);
    let locked = service.lock.swap_if(0, 1);
    let long = t.settings().is_some_and(|settings| age(now, head.changed) > settings.lblcr_expiration);
    if locked && head.size > 1 && long && set.most.1 != 0 {
        leave(t, &dest, &mut head, set.most.2, set.before_most);
    }
    let own = Some(set.least.2).filter(|own| t.server(*own).is_some_and(|server| !overloaded(t, service, server)));
    let chosen = match own {
        Some(own) => Some(own),
        None => least::<Wlc, T>(t, service),
    };
    if locked {
        if let (Some(chosen), None) = (chosen, own) {
            join(t, &dest, &mut head, chosen);
        }
        if head.size > 0 {
            t.write_note(&dest, &head);
        }
        service.lock.store(0);
    }
    chosen
}

/// A server joins the set, if it is not in it.
#[inline(always)]
fn join<T: Tables>(t: &T, dest: &Noted, head: &mut Note, server: u32) {
    if look(t, dest, head, server).found {
        return;
    }
    let note = Note { server: head.server, ..Note::default() };
    if t.write_note(&Noted { server, ..*dest }, &note) {
        (head.server, head.size, head.changed) = (server, head.size.wrapping_add(1), head.used);
    }
}

/// A server leaves the set.
#[inline(always)]
fn leave<T: Tables>(t: &T, dest: &Noted, head: &mut Note, server: u32, before: u32) {
    let gone = Noted { server, ..*dest };
    let Some(note) = t.note(&gone) else { return };
    if before == NOBODY {
        head.server = note.server;
    } else {
        t.write_note(&Noted { server: before, ..*dest }, &Note { server: note.server, ..Note::default() });
    }
    t.forget_note(&gone);
    (head.size, head.changed) = (head.size.wrapping_sub(1), head.used);
}
