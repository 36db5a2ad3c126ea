//! How fast counters grow: the daemon looks at them every two seconds, as IPVS's estimator does.

use super::events::Events;
use super::health::Doubts;
use crate::failure::Result;
use dirigent_api::Event;
use dirigent_datapath::control::report::Growth;
use dirigent_datapath::control::tally::{self, Estimator, Tally};
use dirigent_datapath::control::{KernelStore, Store, server_address};
use dirigent_director::records::{Counters, Server, kind};
use dirigent_director::verdict::{Reason, ReasonKind};
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks (ipvs-semantics §8.2).
const PERIOD: Duration = Duration::from_secs(2);
/// Its protocol number.
const TCP: u8 = dirigent_wire::ip::proto::TCP;

/// Estimators of all that is counted.
#[derive(Clone, Debug, Default)]
pub struct Averages {
    total: Estimator,
    /// By index.
    services: BTreeMap<u32, Estimator>,
    /// By index, from 0 on: there may be a million.
    servers: Vec<Option<Watched>>,
}

/// A server whose counters are watched.
#[derive(Clone, Debug)]
struct Watched {
    /// The address and port that it had: another may come to its index.
    identity: Identity,
    estimator: Estimator,
}

type Identity = ([u16; 8], u16);

fn identity(server: &Server) -> Identity {
    (server.addr, server.port.get())
}

/// What grows how fast, as of the newest look.
#[derive(Clone, Debug, Default)]
pub struct Rates(Arc<Mutex<Arc<Averages>>>);

impl Growth for Averages {
    fn total(&self) -> Counters {
        self.total.rates()
    }
    fn service(&self, index: u32) -> Counters {
        self.services.get(&index).map(Estimator::rates).unwrap_or_default()
    }
    fn server(&self, index: u32) -> Counters {
        self.servers.get(index as usize).and_then(Option::as_ref).map(|w| w.estimator.rates()).unwrap_or_default()
    }
}

impl Rates {
    fn averages(&self) -> MutexGuard<'_, Arc<Averages>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// For one report: a look that comes while it is made changes nothing in it, so that its sums are right.
    pub fn now(&self) -> Arc<Averages> {
        self.averages().clone()
    }
    /// What was zeroed begins anew: this service with its servers, or everything.
    pub fn zero(&self, store: &KernelStore, service: Option<u32>) -> Result<()> {
        let mut averages = self.averages();
        let Some(service) = service else {
            *averages = Arc::default();
            return Ok(());
        };
        let averages = Arc::make_mut(&mut averages);
        averages.services.remove(&service);
        for (index, watched) in (0..).zip(&mut averages.servers) {
            if watched.is_some() && store.server(index)?.service == service {
                *watched = None;
            }
        }
        Ok(())
    }

    /// What was counted before is no growth.
    fn begin(&self, store: &KernelStore) -> Result<()> {
        let Tally { total, services, servers } = tally::read(store)?;
        let mut averages = Averages {
            total: Estimator::new(total),
            services: services.into_iter().map(|(index, counters)| (index, Estimator::new(counters))).collect(),
            servers: Vec::new(),
        };
        averages.make_room(&servers);
        for (index, counters) in servers {
            let identity = identity(&store.server(index)?);
            if let Some(place) = averages.servers.get_mut(index as usize) {
                *place = Some(Watched { identity, estimator: Estimator::new(counters) });
            }
        }
        *self.averages() = Arc::new(averages);
        Ok(())
    }

    /// Lets averages follow. All counters are read once, for all that looks at them.
    fn look(&self, store: &KernelStore, doubts: &Doubts) -> Result<()> {
        let Tally { total, services, servers } = tally::read(store)?;
        let mut averages = self.averages();
        let averages = Arc::make_mut(&mut averages);
        averages.total.tick(total);
        averages.services.retain(|index, _| services.contains_key(index));
        for (index, counters) in services {
            averages.services.entry(index).or_default().tick(counters);
        }
        averages.make_room(&servers);
        let mut there = servers.into_iter().peekable();
        for (index, watched) in (0..).zip(&mut averages.servers) {
            let Some((_, counters)) = there.next_if(|(there, _)| *there == index) else {
                *watched = None;
                continue;
            };
            let server = store.server(index)?;
            let identity = identity(&server);
            if watched.as_ref().is_none_or(|w| w.identity != identity) {
                *watched = Some(Watched { identity, estimator: Estimator::default() });
            } else if watched.as_ref().is_some_and(|w| is_silent(&server, &w.estimator.last, &counters)) {
                doubts.cast(server_address(&server));
            }
            if let Some(watched) = watched {
                watched.estimator.tick(counters);
            }
        }
        Ok(())
    }
}

impl Averages {
    /// One place for each of these, and no more.
    fn make_room(&mut self, servers: &[(u32, Counters)]) {
        self.servers.resize(servers.last().map_or(0, |(last, _)| *last as usize + 1), None);
    }
}

/// Whether a NAT server got packets of TCP between two looks and answered nothing at all: its answers come by here. Of
/// other methods no answers are seen, and what else is sent need not be answered.
fn is_silent(server: &Server, before: &Counters, now: &Counters) -> bool {
    let silent = now.out_packets == before.out_packets && now.in_packets > before.in_packets;
    silent && server.method == kind::NAT_REQUEST && server.protocol == TCP
}

/// The thread that looks; it ends when this is dropped.
pub struct Watch(#[expect(dead_code, reason = "closed by being dropped")] Sender<()>);

impl Watch {
    /// Looks at these tables from now on. What was counted before is no growth.
    pub fn start(store: KernelStore, rates: Rates, events: Events, doubts: Doubts) -> std::io::Result<Self> {
        let (running, ended) = channel();
        std::thread::Builder::new().name("rates".into()).spawn(move || {
            if let Err(error) = rates.begin(&store) {
                tracing::error!("reading counters: {error}");
            }
            let mut drops = Drops::default();
            let mut next = Instant::now() + PERIOD;
            while ended.recv_timeout(next.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = rates.look(&store, &doubts) {
                    tracing::error!("reading counters: {error}");
                }
                if let Err(error) = drops.look(&store, &events) {
                    tracing::error!("reading counters: {error}");
                }
                next += PERIOD;
            }
        })?;
        Ok(Self(running))
    }
}

/// Counters of packets that were dropped, as of the last look.
#[derive(Default)]
struct Drops(Option<Vec<u64>>);

impl Drops {
    /// Tells which grew since the last look, if anybody listens.
    fn look(&mut self, store: &KernelStore, events: &Events) -> Result<()> {
        if !events.heard() {
            self.0 = None;
            return Ok(());
        }
        let counts = store.reasons()?;
        let Some(before) = self.0.replace(counts.to_vec()) else { return Ok(()) };
        for ((reason, now), before) in Reason::ALL.iter().zip(&counts).zip(before) {
            // Counters that were zeroed meanwhile begin anew.
            let more = now.checked_sub(before).unwrap_or(*now);
            if reason.kind() == ReasonKind::Dropped && more > 0 {
                let per_second = more.div_ceil(PERIOD.as_secs());
                let (reason, text) = (reason.name().to_owned(), reason.text().to_owned());
                events.tell(Event::Drops { reason, text, per_second });
            }
        }
        Ok(())
    }
}
