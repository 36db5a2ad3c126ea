//! What lists say of servers' health: shared with those who read tables.

use crate::daemon::naming;
use dirigent_api::{Health, NextHop, Server as Listed, Service as ListedService};
use dirigent_config::{Method, Model, Server, ServiceKey};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug)]
struct Entry {
    server: Server,
    /// Why it is down.
    why: Option<String>,
    /// Whether all of its checks had a result.
    sure: bool,
    since: (Instant, SystemTime),
}

type Entries = BTreeMap<ServiceKey, HashMap<(IpAddr, u16), Entry>>;

/// What is known.
#[derive(Debug, Default)]
struct All {
    servers: Entries,
    /// Whether services have their quorum.
    quorums: HashMap<ServiceKey, bool>,
}

/// Health of all servers that are checked.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<RwLock<All>>);

impl View {
    fn all(&self) -> RwLockReadGuard<'_, All> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn all_mut(&self) -> RwLockWriteGuard<'_, All> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all that this Model does not have, or does not check.
    pub fn begin(&self, model: &Model) {
        self.all_mut().servers.retain(|key, servers| {
            let Some(service) = model.service(key) else { return false };
            servers.retain(|(address, port), _| {
                service.server(*address, *port).is_some_and(|server| !server.health.checks.is_empty())
            });
            !servers.is_empty()
        });
    }

    /// A server's health is this. Whether it was up before, and whether that was known, if it was there.
    pub fn put(&self, key: ServiceKey, server: &Server, why: Option<String>, sure: bool) -> Option<(bool, bool)> {
        let mut all = self.all_mut();
        let servers = all.servers.entry(key).or_default();
        let before = servers.get(&server.identity());
        if let Some(entry) = before
            && (&entry.why, entry.sure, &entry.server) == (&why, sure, server)
        {
            return Some((why.is_none(), sure));
        }
        let was = before.map(|entry| (entry.why.is_none(), entry.sure));
        let since = match before {
            Some(entry) if entry.why.is_none() == why.is_none() => entry.since,
            _ => (Instant::now(), SystemTime::now()),
        };
        servers.insert(server.identity(), Entry { server: server.clone(), why, sure, since });
        was
    }

    /// Whether a service has its quorum is this.
    pub fn put_quorum(&self, key: ServiceKey, up: bool) {
        self.all_mut().quorums.insert(key, up);
    }
    /// The same of all whose servers' health matters.
    pub fn set_quorums(&self, quorums: HashMap<ServiceKey, bool>) {
        self.all_mut().quorums = quorums;
    }

    /// Whether a server is known to be down.
    pub fn is_down(&self, key: &ServiceKey, server: &Server) -> bool {
        self.all().servers.get(key).and_then(|all| all.get(&server.identity())).is_some_and(|entry| entry.why.is_some())
    }

    /// Servers that are down: service, server, why.
    pub fn down(&self) -> Vec<(String, String, String)> {
        let all = self.all();
        let all = all.servers.iter().flat_map(|(key, servers)| servers.values().map(move |entry| (key, entry)));
        let mut down: Vec<_> =
            all.filter_map(|(key, entry)| Some((key.to_string(), entry.server.name(), entry.why.clone()?))).collect();
        down.sort();
        down
    }

    /// Adds to lists what they do not know from the tables.
    pub fn add_to(&self, services: &mut [ListedService]) {
        let all = self.all();
        for service in services {
            let Some(key) = naming::listed_key(service) else { continue };
            service.quorum = all.quorums.get(&key).copied();
            let Some(servers) = all.servers.get(&key) else { continue };
            let mut missing: HashMap<String, &Entry> = servers.values().map(|e| (e.server.name(), e)).collect();
            for server in &mut service.servers {
                let Some(entry) = missing.remove(&server.address) else { continue };
                server.health = Some(entry.health());
                if entry.why.is_some() {
                    server.effective_weight = 0.0;
                    server.state = entry.state().into();
                }
            }
            let mut missing: Vec<_> = missing.into_values().collect();
            missing.sort_by_key(|entry| entry.server.identity());
            let name = service.name();
            service.servers.extend(missing.into_iter().map(|entry| entry.listed(&name)));
        }
    }
}

impl Entry {
    /// Of one that gets no connections. Who drains a server waits for it, whatever its health.
    fn state(&self) -> &'static str {
        match &self.why {
            _ if self.server.draining => "draining",
            Some(_) => "down",
            None => "away",
        }
    }

    fn health(&self) -> Health {
        let state = match (&self.why, self.sure) {
            (Some(_), _) => "down",
            (None, true) => "up",
            (None, false) => "unknown",
        };
        let since = self.since.1.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Health {
            state: state.into(),
            why: self.why.clone(),
            since_s: since,
            for_s: self.since.0.elapsed().as_secs(),
            checks: self.server.health.checks.iter().map(|check| check.probe.name().to_owned()).collect(),
        }
    }

    /// A server that is in no table.
    fn listed(&self, service: &str) -> Listed {
        Listed {
            service: service.to_owned(),
            address: self.server.name(),
            method: self.server.method.name().to_owned(),
            tunnel: match self.server.method {
                Method::Tun(tunnel) => Some(dirigent_datapath::control::report::tunnel_of(tunnel)),
                _ => None,
            },
            weight: self.server.weight,
            upper: self.server.upper,
            lower: self.server.lower,
            state: self.state().into(),
            next_hop: NextHop { state: "removed".into(), ..NextHop::default() },
            health: Some(self.health()),
            ..Listed::default()
        }
    }
}
