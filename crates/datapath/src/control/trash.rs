//! Servers that were removed while connections refer to them (ipvs-semantics §1.3).
//! Their indexes are not used again before the last one is gone; a server that comes
//! back takes its index back, and its connections go on.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dirigent_config::ServiceKey;
use dirigent_director::records::{NextHop, Server, Service};

use super::Error;
use super::apply::{Control, Member};
use super::store::Store;
use super::tally;

/// A packet that was scheduled before the removal may still open its connection.
const GRACE: Duration = Duration::from_secs(1);

/// A removed server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removed {
    /// Its service; nothing if a take-over could not tell.
    key: Option<ServiceKey>,
    service: u32,
    member: Member,
    since: Instant,
    /// The service was removed too, since.
    pub service_gone: bool,
}

/// The removed servers.
#[derive(Debug, Default)]
pub(super) struct Trash(Vec<Removed>);

impl Trash {
    pub fn add(&mut self, key: Option<ServiceKey>, service: u32, member: Member) {
        let since = Instant::now();
        self.0.push(Removed { key, service, member, since, service_gone: false });
    }
    /// The index of a removed server.
    pub fn find(&self, key: &ServiceKey, address: IpAddr, port: u16) -> Option<u32> {
        let same = |r: &&Removed| r.key == Some(*key) && (r.member.address, r.member.port) == (address, port);
        self.0.iter().find(same).map(|r| r.member.index)
    }
    /// The index of a removed service.
    pub fn service(&self, key: &ServiceKey) -> Option<u32> {
        self.0.iter().find(|r| r.key == Some(*key)).map(|r| r.service)
    }
    /// Takes a server out.
    pub fn take(&mut self, index: u32) -> Option<Removed> {
        let at = self.0.iter().position(|r| r.member.index == index)?;
        Some(self.0.swap_remove(at))
    }
    /// The service went too.
    pub fn service_left(&mut self, key: &ServiceKey, service: u32) {
        for removed in self.0.iter_mut().filter(|r| r.service == service) {
            removed.key.get_or_insert(*key);
            removed.service_gone = true;
        }
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<S: Store> Control<S> {
    /// How many removed servers wait for their connections to end.
    pub fn lingering_servers(&self) -> usize {
        self.trash.len()
    }

    /// Frees the indexes that no connection refers to any more; to be called now and then.
    pub fn collect(&mut self) -> Result<(), Error> {
        let old: Vec<Removed> = self.trash.0.iter().filter(|r| r.since.elapsed() >= GRACE).copied().collect();
        let notes = if old.is_empty() { Vec::new() } else { self.store.notes()? };
        let noted: HashSet<u32> = notes.iter().flat_map(|(of, note)| [of.server, note.server]).collect();
        for removed in old {
            let index = removed.member.index;
            let server = self.store.server(index)?;
            if server.connections() == (0, 0) && server.persistent.load() == 0 && !noted.contains(&index) {
                tally::retire_server(&mut self.store, index, removed.service_gone)?;
                self.store.put_server(index, &Server::default())?;
                self.store.put_next_hop(index, &NextHop::default())?;
                self.trash.take(index);
                self.used_servers.remove(&index);
            }
        }
        self.forget_old_notes()?;
        let lingering = |index: &u32| self.trash.0.iter().any(|r| r.service == *index);
        let held = |index: &u32| self.held.values().any(|h| h.index == *index);
        let free: Vec<u32> = self.used_services.iter().filter(|i| !lingering(i) && !held(i)).copied().collect();
        for index in free {
            self.store.put_service_rules(index, &Service::default())?;
            self.used_services.remove(&index);
        }
        Ok(())
    }
}
