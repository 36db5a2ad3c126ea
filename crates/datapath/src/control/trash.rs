//! Servers that were removed while connections refer to them (ipvs-semantics §1.3).
//! Their indexes are not used again before the last one is gone; a server that comes
//! back takes its index back, and its connections go on.

use std::collections::{BTreeSet, HashMap, HashSet};
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

/// The removed servers, by index.
#[derive(Debug, Default)]
pub(super) struct Trash {
    all: HashMap<u32, Removed>,
    /// Those whose service is known.
    named: HashMap<(ServiceKey, IpAddr, u16), u32>,
    /// Those of a service.
    of: HashMap<u32, BTreeSet<u32>>,
    /// The services that have any, where they are known.
    services: HashMap<ServiceKey, u32>,
}

impl Trash {
    pub fn add(&mut self, key: Option<ServiceKey>, service: u32, member: Member) {
        let since = Instant::now();
        let removed = Removed { key, service, member, since, service_gone: false };
        self.all.insert(member.index, removed);
        self.of.entry(service).or_default().insert(member.index);
        if let Some(key) = key {
            self.named.insert((key, member.address, member.port), member.index);
            self.services.insert(key, service);
        }
    }
    /// The index of a removed server.
    pub fn find(&self, key: &ServiceKey, address: IpAddr, port: u16) -> Option<u32> {
        self.named.get(&(*key, address, port)).copied()
    }
    /// The index of a removed service.
    pub fn service(&self, key: &ServiceKey) -> Option<u32> {
        self.services.get(key).copied()
    }
    /// The removed servers of a service.
    pub fn servers(&self, service: u32) -> impl Iterator<Item = u32> {
        self.of.get(&service).into_iter().flatten().copied()
    }
    /// Takes a server out.
    pub fn take(&mut self, index: u32) -> Option<Removed> {
        let removed = self.all.remove(&index)?;
        if let Some(of) = self.of.get_mut(&removed.service) {
            of.remove(&index);
            if of.is_empty() {
                self.of.remove(&removed.service);
                removed.key.iter().for_each(|key| _ = self.services.remove(key));
            }
        }
        if let Some(key) = removed.key {
            self.named.remove(&(key, removed.member.address, removed.member.port));
        }
        Some(removed)
    }
    /// The service went too.
    pub fn service_left(&mut self, key: &ServiceKey, service: u32) {
        if self.of.contains_key(&service) {
            self.services.insert(*key, service);
        }
        for index in self.of.get(&service).into_iter().flatten() {
            let Some(removed) = self.all.get_mut(index) else { continue };
            let key = *removed.key.get_or_insert(*key);
            removed.service_gone = true;
            self.named.insert((key, removed.member.address, removed.member.port), *index);
        }
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }
}

impl<S: Store> Control<S> {
    /// How many removed servers wait for their connections to end.
    pub fn lingering_servers(&self) -> usize {
        self.trash.len()
    }

    /// Frees the indexes that no connection refers to any more; to be called now and then.
    pub fn collect(&mut self) -> Result<(), Error> {
        let old: Vec<Removed> = self.trash.all.values().filter(|r| r.since.elapsed() >= GRACE).copied().collect();
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
                self.used_servers.remove(index);
            }
        }
        self.forget_old_notes()?;
        let held: HashSet<u32> = self.held.values().map(|held| held.index).collect();
        let unused = |index: &u32| !held.contains(index) && !self.trash.of.contains_key(index);
        let free: Vec<u32> = self.used_services.iter().filter(unused).collect();
        for index in free {
            self.store.put_service_rules(index, &Service::default())?;
            self.used_services.remove(index);
        }
        Ok(())
    }
}
