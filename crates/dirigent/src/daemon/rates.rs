//! How fast counters grow: the daemon looks at them every two seconds, as IPVS's estimator does.

use super::events::Events;
use super::health::Doubts;
use crate::failure::Result;
use dirigent_api::Event;
use dirigent_datapath::control::report::Growth;
use dirigent_datapath::control::tally::{self, Estimator, Tally};
use dirigent_datapath::control::{KernelStore, Store};
use dirigent_director::records::{Counters, kind};
use dirigent_director::verdict::{Reason, ReasonKind};
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks (ipvs-semantics §8.2).
const PERIOD: Duration = Duration::from_secs(2);
/// Its protocol number.
const TCP: u8 = dirigent_wire::ip::proto::TCP;

/// Estimators of all that is counted, by index.
#[derive(Clone, Debug, Default)]
pub struct Averages {
    total: Estimator,
    services: BTreeMap<u32, Estimator>,
    /// With the address and port that the server had: another may come to its index.
    servers: BTreeMap<u32, (Identity, Estimator)>,
}

type Identity = ([u16; 8], u16);

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
        self.servers.get(&index).map(|(_, e)| e.rates()).unwrap_or_default()
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
        for index in averages.servers.keys().copied().collect::<Vec<_>>() {
            if store.server(index)?.service == service {
                averages.servers.remove(&index);
            }
        }
        Ok(())
    }

    fn look(&self, store: &KernelStore) -> Result<()> {
        let services: Vec<u32> = store.places()?.into_iter().map(|(_, index)| index).collect();
        let Tally { total, services, servers } = tally::read(store, services)?;
        let mut there = BTreeMap::new();
        for (index, counters) in servers {
            let record = store.server(index)?;
            there.insert(index, ((record.addr, record.port.get()), counters));
        }
        let mut averages = self.averages();
        let averages = Arc::make_mut(&mut averages);
        averages.total.tick(total);
        averages.services.retain(|index, _| services.contains_key(index));
        for (index, counters) in services {
            averages.services.entry(index).or_default().tick(counters);
        }
        averages.servers.retain(|index, (was, _)| there.get(index).is_some_and(|(is, _)| is == was));
        for (index, (identity, counters)) in there {
            averages.servers.entry(index).or_insert((identity, Estimator::default())).1.tick(counters);
        }
        Ok(())
    }
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
            let (mut drops, mut silence) = (Drops::default(), Silence::default());
            let mut next = Instant::now() + PERIOD;
            while ended.recv_timeout(next.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = rates.look(&store) {
                    tracing::error!("reading counters: {error}");
                }
                if let Err(error) = drops.look(&store, &events) {
                    tracing::error!("reading counters: {error}");
                }
                if let Err(error) = silence.look(&store, &doubts) {
                    tracing::error!("looking for servers that do not answer: {error}");
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

/// Servers' counters as of the last look.
#[derive(Default)]
struct Silence(HashMap<u32, (Identity, Counters)>);

impl Silence {
    /// Casts doubt on NAT servers that got packets of TCP since the last look and answered nothing at all: their answers
    /// come by here. Of other methods no answers are seen, and what else is sent need not be answered.
    fn look(&mut self, store: &KernelStore, doubts: &Doubts) -> Result<()> {
        let mut now = HashMap::new();
        for (index, counters) in tally::read(store, std::iter::empty())?.servers {
            let record = store.server(index)?;
            let identity = (record.addr, record.port.get());
            if let Some((_, before)) = self.0.get(&index).filter(|(was, _)| *was == identity) {
                let silent = counters.out_packets == before.out_packets && counters.in_packets > before.in_packets;
                if silent && record.method == kind::NAT_REQUEST && record.protocol == TCP {
                    doubts.cast(dirigent_datapath::control::server_address(&record));
                }
            }
            now.insert(index, (identity, counters));
        }
        self.0 = now;
        Ok(())
    }
}

impl Rates {
    fn begin(&self, store: &KernelStore) -> Result<()> {
        let services: Vec<u32> = store.places()?.into_iter().map(|(_, index)| index).collect();
        let Tally { total, services, servers } = tally::read(store, services)?;
        let servers = servers.into_iter().map(|(index, counters)| {
            let record = store.server(index)?;
            Ok((index, ((record.addr, record.port.get()), Estimator::new(counters))))
        });
        *self.averages() = Arc::new(Averages {
            total: Estimator::new(total),
            services: services.into_iter().map(|(index, counters)| (index, Estimator::new(counters))).collect(),
            servers: servers.collect::<Result<_>>()?,
        });
        Ok(())
    }
}
