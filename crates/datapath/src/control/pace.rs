//! The weights that packets see, where they are not the Model's: of servers that are drained,
//! and of servers that start slowly.
//!
//! Schedulers know weights and nothing of this. A drained server has weight 0 for them. One that
//! starts slowly has a share of its weight, which [`Control::pace`] lets grow; so that there are
//! shares of a weight of 1, all weights of its service are multiplied meanwhile, which these
//! schedulers do not notice. The shares stand in the servers' records, where the next daemon
//! finds them; while there is none they stay as they are.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use dirigent_config::model::MAX_WEIGHT;
use dirigent_config::{Model, Server as Wanted, Service as WantedService, ServiceKey};
use dirigent_director::records::{Server, server_flag};

use super::Error;
use super::apply::{Control, Member};
use super::store::Store;

/// A weight grows in so many steps, or more: the first is its share at the start.
const STEPS: u32 = 16;
/// A whole weight.
const WHOLE: u64 = 1 << 32;
const FIRST: u64 = WHOLE / STEPS as u64;

type Identity = (IpAddr, u16);

/// Who starts slowly.
#[derive(Debug, Default)]
pub(super) struct Paces {
    /// Of these servers, the share of the weight: parts of [`WHOLE`].
    shares: HashMap<(ServiceKey, Identity), u64>,
    /// While a change is made: who took new connections before it.
    before: HashMap<ServiceKey, HashSet<Identity>>,
}

/// What a server's record says of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paced {
    /// The weight that schedulers see.
    pub weight: u32,
    /// Bits of [`server_flag`].
    pub flags: u32,
}

impl Paces {
    /// A change of these services of this Model begins.
    pub fn begin(&mut self, model: &Model, keys: impl IntoIterator<Item = ServiceKey>) {
        let takers = |s: &WantedService| s.servers.iter().filter(|s| s.takes()).map(Wanted::identity).collect();
        for key in keys {
            if let (Entry::Vacant(entry), Some(service)) = (self.before.entry(key), model.service(&key)) {
                entry.insert(takers(service));
            }
        }
    }

    /// Such a server is in the tables that are taken over.
    pub fn found(&mut self, key: ServiceKey, member: &Member, record: &Server) {
        let identity = (member.address, member.port);
        let takers = self.before.entry(key).or_default();
        if record.weight.load() > 0 && record.flags.load() & server_flag::AVAILABLE != 0 {
            takers.insert(identity);
        }
        if let Some(share) = record.share() {
            self.shares.insert((key, identity), u64::from(share) << 16);
        }
    }

    /// The change is made, or taken back, and this is the Model.
    pub fn end(&mut self, model: &Model) {
        self.before.clear();
        self.shares.retain(|(key, (address, port)), _| {
            let service = model.service(key).filter(|s| s.slow_start.is_some());
            service.and_then(|s| s.server(*address, *port)).is_some_and(Wanted::takes)
        });
    }

    /// What the records of a service's servers say, in the Model's order. Whoever begins to take
    /// connections beside others that took them before the change starts slowly; where all are
    /// new there is nobody to spare it.
    pub fn of(&mut self, service: &WantedService) -> Vec<Paced> {
        let took = self.before.get(&service.key).filter(|took| !took.is_empty());
        let mut shares = Vec::with_capacity(service.servers.len());
        for server in &service.servers {
            let name = (service.key, server.identity());
            if service.slow_start.is_none() || !server.takes() {
                self.shares.remove(&name);
            } else if took.is_some_and(|took| !took.contains(&server.identity())) {
                self.shares.entry(name).or_insert(FIRST);
            }
            shares.push(self.shares.get(&name).copied());
        }
        let servers = service.servers.iter().zip(shares);
        let slow = servers.clone().filter(|(_, share)| share.is_some()).map(|(server, _)| server.weight);
        let heaviest = service.servers.iter().map(|s| s.weight).max().unwrap_or(0).max(1);
        let scale = slow.min().map_or(1, |least| STEPS.div_ceil(least.max(1)).min(MAX_WEIGHT / heaviest).max(1));
        servers.map(|(server, share)| paced(server, scale, share)).collect()
    }
}

fn paced(server: &Wanted, scale: u32, share: Option<u64>) -> Paced {
    let weight = server.weight.saturating_mul(scale);
    match share {
        _ if server.draining && server.weight == 0 => {
            Paced { weight: 0, flags: server_flag::DRAINING | server_flag::WEIGHTLESS }
        }
        _ if server.draining => Paced { weight: 0, flags: server_flag::DRAINING },
        None => Paced { weight, flags: 0 },
        Some(share) => {
            let grown = ((u128::from(weight) * u128::from(share) + u128::from(WHOLE / 2)) / u128::from(WHOLE)) as u32;
            Paced { weight: grown.max(1), flags: server_flag::of_share((share >> 16) as u16) }
        }
    }
}

impl<S: Store> Control<S> {
    /// So much time has passed: lets the weights of servers that start slowly grow. To be called
    /// once a second or so.
    pub fn pace(&mut self, passed: Duration) -> Result<(), Error> {
        let mut services = HashSet::new();
        for ((key, _), share) in &mut self.paces.shares {
            let Some(time) = self.model.service(key).and_then(|s| s.slow_start) else { continue };
            let more = passed.as_nanos().saturating_mul((WHOLE - FIRST).into()) / time.as_nanos().max(1);
            *share = share.saturating_add(u64::try_from(more).unwrap_or(WHOLE));
            services.insert(*key);
        }
        self.paces.shares.retain(|_, share| *share < WHOLE);
        // No restart: wrr, begun anew each second, would favour the head of its list.
        services.into_iter().try_for_each(|key| self.settle(&key, 0))
    }
}
