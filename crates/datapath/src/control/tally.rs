//! What was counted, for services, servers and the whole (ipvs-semantics §8.1), and how fast it
//! grows (§8.2).
//!
//! The packet path counts by server, and never looks back. What it has counted when somebody
//! zeroes a server becomes that one's origin; what a server had when it was freed goes to its
//! service's base, and what a service had when it was removed or zeroed to the base of all. So
//! that sums stay right over a new daemon, bases and origins lie in tables beside the counters.

use std::collections::BTreeMap;

use dirigent_director::records::Counters;

use super::Error;
use super::store::Store;

/// Counters of all that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All since the director was loaded, or since all was zeroed.
    pub total: Counters,
    /// Services by index.
    pub services: BTreeMap<u32, Counters>,
    /// Servers with their indexes, in ascending order: those with a record, in a list or not.
    pub servers: Vec<(u32, Counters)>,
}

impl Tally {
    /// Those of a server.
    #[must_use]
    pub fn server(&self, index: u32) -> Option<&Counters> {
        let at = self.servers.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        self.servers.get(at).map(|(_, counters)| counters)
    }
}

/// Reads all counters.
pub fn read<S: Store>(store: &S) -> Result<Tally, Error> {
    let mut tally = Tally { total: store.base(nobody(store))?, ..Tally::default() };
    for (_, index) in store.places()? {
        let base = store.base(index)?;
        tally.services.insert(index, base);
        tally.total = tally.total.plus(base);
    }
    let servers = store.used_servers()?;
    let counted = store.counted_of(&servers)?;
    tally.servers.reserve_exact(servers.len());
    for (index, counted) in servers.into_iter().zip(counted) {
        let record = store.server(index)?;
        tally.total = tally.total.plus(counted);
        tally.servers.push((index, counted));
        if let Some(sum) = tally.services.get_mut(&record.service) {
            *sum = sum.plus(counted);
        }
    }
    Ok(tally)
}

/// The base of what is no service's.
fn nobody<S: Store>(store: &S) -> u32 {
    store.room().services
}

fn add<S: Store>(store: &mut S, base: u32, more: Counters) -> Result<(), Error> {
    let sum = store.base(base)?.plus(more);
    store.put_base(base, &sum)
}

/// Lets a server count from 0 on: what it had. (A daemon that dies between this and what
/// becomes of it loses counts, and doubles none.)
fn take<S: Store>(store: &mut S, index: u32) -> Result<Counters, Error> {
    let had = store.counted(index)?;
    let raw = store.origin(index)?.plus(had);
    store.put_origin(index, &raw)?;
    Ok(had)
}

/// A server is zeroed; the whole keeps what it had.
pub(super) fn zero_server<S: Store>(store: &mut S, index: u32) -> Result<(), Error> {
    let had = take(store, index)?;
    add(store, nobody(store), had)
}

/// A server is freed, and its service (or if that one is gone the whole) keeps what it had.
pub(super) fn retire_server<S: Store>(store: &mut S, index: u32, service_gone: bool) -> Result<(), Error> {
    let service = store.server(index)?.service;
    let had = take(store, index)?;
    add(store, if service_gone { nobody(store) } else { service }, had)
}

/// A service goes, or is zeroed with all servers that it has or had; the whole keeps what they had.
pub(super) fn retire<S: Store>(
    store: &mut S,
    service: u32,
    servers: impl IntoIterator<Item = u32>,
) -> Result<(), Error> {
    let mut had = store.base(service)?;
    store.put_base(service, &Counters::default())?;
    for index in servers {
        had = had.plus(take(store, index)?);
    }
    add(store, nobody(store), had)
}

/// Everything is zeroed.
pub(super) fn zero_all<S: Store>(store: &mut S) -> Result<(), Error> {
    for index in store.used_servers()? {
        take(store, index)?;
    }
    (0..=nobody(store)).try_for_each(|index| store.put_base(index, &Counters::default()))
}

/// How fast counters grow, each second; bytes are bytes.
pub type Rates = Counters;

/// IPVS's estimator: a moving average that takes a quarter of each two seconds' growth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimator {
    /// The counters at the last tick.
    pub last: Counters,
    /// Averages, in units of 2^-10 a second; bytes in those of 2^-5.
    average: Counters,
}

impl Estimator {
    /// One for what has these counters now.
    #[must_use]
    pub fn new(now: Counters) -> Self {
        Self { last: now, average: Counters::default() }
    }

    /// Two seconds have passed. Counters that fell were zeroed, and begin anew.
    pub fn tick(&mut self, now: Counters) {
        let fell = now.conns < self.last.conns || now.in_packets < self.last.in_packets;
        if fell {
            *self = Self::default();
        }
        let growth = now.since(self.last);
        // Half of what came in two seconds, in the averages' units.
        let sample = Counters {
            conns: growth.conns << 9,
            in_packets: growth.in_packets << 9,
            in_bytes: growth.in_bytes << 4,
            out_packets: growth.out_packets << 9,
            out_bytes: growth.out_bytes << 4,
        };
        self.average = self.average.with(sample, |average, sample| {
            let quarter = (sample as i64).wrapping_sub(average as i64) >> 2;
            average.wrapping_add(quarter as u64)
        });
        self.last = now;
    }

    /// What it shows.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let per_second = |average: u64| (average + 0x1ff) >> 10;
        let bytes = |average: u64| (average + 0xf) >> 5;
        Counters {
            conns: per_second(self.average.conns),
            in_packets: per_second(self.average.in_packets),
            in_bytes: bytes(self.average.in_bytes),
            out_packets: per_second(self.average.out_packets),
            out_bytes: bytes(self.average.out_bytes),
        }
    }
}
