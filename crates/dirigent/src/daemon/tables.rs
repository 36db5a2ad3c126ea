//! The kernel's tables, as the daemon writes them.

use super::network::LinkFacts;
use super::rates::Rates;
use super::size;
use crate::failure::Result;
use dirigent_config::{Model, Plan, ServiceKey};
use dirigent_datapath::control::paths::{Networks, Path, Witness};
use dirigent_datapath::control::words;
use dirigent_datapath::control::{Aim, Census, Control, KernelStore, PAUSE, Store, Sweep, Target};
use dirigent_datapath::kernel::Kernel;
use dirigent_datapath::memory::LocalNet;
use dirigent_director::records::{LINKS, Link, NextHop, hop, link_flag, tunnel, virtual_mac};
use dirigent_director::shared::S32;
use dirigent_net::NextHopState;
use dirigent_wire::{Addr4, Addr6, Mac};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two sweeps.
const ROUND: Duration = Duration::from_millis(250);

/// The tables of one director.
pub struct Tables {
    control: Control<KernelStore>,
    local: BTreeSet<IpAddr>,
    links: BTreeMap<u32, LinkFacts>,
    /// When weights last grew.
    paced: Instant,
}

impl Tables {
    /// Takes them over, and makes them say what the Model does.
    pub fn open(kernel: &Kernel, model: &Model) -> Result<Self> {
        let control = Control::open(KernelStore::new(kernel)?, model)?;
        let mut tables = Self { control, local: BTreeSet::new(), links: BTreeMap::new(), paced: Instant::now() };
        tables.local = tables.control.store().locals()?.into_iter().collect();
        // Of an earlier daemon: unused until they are found in use again.
        for index in 1..LINKS {
            tables.links.insert(index, LinkFacts::default());
        }
        Ok(tables)
    }

    /// The Model in force.
    pub fn model(&self) -> &Model {
        self.control.model()
    }

    /// Does a Plan; after a failure the tables are as before.
    pub fn apply(&mut self, plan: &Plan) -> Result<()> {
        Ok(self.control.apply(plan)?)
    }

    /// The connections of a server that failed may be reset: gives its index.
    pub fn allow_resets(&mut self, (key, address, port): &(ServiceKey, IpAddr, u16)) -> Result<Option<u32>> {
        Ok(self.control.allow_resets(key, *address, *port)?)
    }

    /// How frames reach a server.
    pub fn set_hop(&mut self, ip: IpAddr, next: &dirigent_net::NextHop) -> Result<()> {
        let state = match next.state {
            NextHopState::Resolved => hop::RESOLVED,
            NextHopState::NoNeighbour => hop::NO_NEIGHBOUR,
            NextHopState::NoRoute => hop::NO_ROUTE,
            NextHopState::Local => hop::LOCAL,
        };
        let record = NextHop {
            state: S32::new(state),
            ifindex: next.ifindex,
            mtu: next.mtu,
            src: Mac::new(next.source_mac),
            dst: Mac::new(next.mac),
            flags: if next.neighbour.is_some_and(|a| a.is_ipv6()) { tunnel::PEER_V6 } else { 0 },
            source: next.source.map(words).unwrap_or_default(),
            peer: next.neighbour.map(words).unwrap_or_default(),
            ..NextHop::default()
        };
        Ok(self.control.set_next_hop(ip, &record)?)
    }

    /// Something changed in the network: see [`Control::ways_changed`].
    pub fn ways_changed(&mut self) -> Result<()> {
        Ok(self.control.ways_changed()?)
    }

    /// Nothing else did: see [`Control::ways_followed`].
    pub fn ways_followed(&mut self) -> Result<()> {
        Ok(self.control.ways_followed()?)
    }

    /// The servers that are probed along the clients' path.
    pub fn set_targets(&mut self, targets: &HashSet<Target>) -> Result<()> {
        Ok(self.control.set_targets(targets)?)
    }

    /// Whether connections are told to other directors.
    pub fn set_sync(&mut self, sync: Option<&dirigent_config::failover::Sync>) -> Result<()> {
        Ok(self.control.set_sync(sync.cloned())?)
    }

    /// What pins to such a server need to know.
    pub fn aim(&self, target: &Target) -> Option<Aim> {
        self.control.aim(target)
    }

    /// The services of the servers that have these indexes, with their addresses and ports.
    pub fn members(&self, indexes: &BTreeSet<u32>) -> HashMap<u32, (ServiceKey, IpAddr, u16)> {
        self.control.members(indexes)
    }

    /// Bytes of the largest packet on the way to a server, and of the largest of a client's.
    pub fn carries(&self, key: &ServiceKey, address: IpAddr, port: u16) -> Result<Option<(u32, u32)>> {
        Ok(self.control.carries(key, address, port)?)
    }

    /// This host's address on the way to a server.
    pub fn source_towards(&self, server: IpAddr) -> Option<IpAddr> {
        self.control.source_towards(server)
    }

    /// This host's addresses.
    pub fn set_local(&mut self, wanted: BTreeSet<IpAddr>) -> Result<()> {
        let store = self.control.store_mut();
        wanted.difference(&self.local).try_for_each(|ip| store.set_local(*ip, true))?;
        self.local.difference(&wanted).try_for_each(|ip| store.set_local(*ip, false))?;
        self.local = wanted;
        Ok(())
    }

    /// The prefixes that routes deliver to this host.
    pub fn set_local_nets(&mut self, nets: &BTreeSet<dirigent_net::LocalNet>) -> Result<()> {
        let net = |net: &dirigent_net::LocalNet| {
            let (address, length) = net.destination;
            LocalNet { address, length, marked: net.marked }
        };
        Ok(self.control.set_local_nets(&nets.iter().map(net).collect())?)
    }

    /// All interfaces by name: mark rules name some.
    pub fn set_interfaces(&mut self, interfaces: HashMap<String, u32>) -> Result<()> {
        Ok(self.control.set_interfaces(interfaces)?)
    }

    /// The interfaces in use.
    pub fn set_links(&mut self, wanted: BTreeMap<u32, LinkFacts>) -> Result<()> {
        let store = self.control.store_mut();
        for (index, facts) in wanted.iter().filter(|(index, facts)| self.links.get(index) != Some(facts)) {
            store.put_link(*index, &record(facts))?;
        }
        for index in self.links.keys().filter(|index| !wanted.contains_key(index)) {
            store.put_link(*index, &Link::default())?;
        }
        self.links = wanted;
        Ok(())
    }

    /// Zeroes the counters of this service and its servers, or all of them.
    pub fn zero(&mut self, service: Option<&ServiceKey>, rates: &Rates) -> Result<()> {
        let index = self.control.zero(service)?;
        rates.zero(self.control.store(), index)
    }

    /// What of the defence against floods depends on memory.
    pub fn defend(&mut self) -> Result<()> {
        if self.control.model().settings().defence.is_automatic() {
            self.control.set_available(size::available_pages()?)?;
        }
        Ok(())
    }

    /// Lets the weights of servers that start slowly grow.
    pub fn pace(&mut self) -> Result<()> {
        let passed = self.paced.elapsed();
        self.paced += passed;
        Ok(self.control.pace(passed)?)
    }

    /// Frees what removed servers held, when their last connection is gone.
    pub fn collect(&mut self) -> Result<()> {
        Ok(self.control.collect()?)
    }
}

fn record(facts: &LinkFacts) -> Link {
    let Addr4(addr4) = Addr4::new(facts.v4.map_or([0; 4], |ip| ip.octets()));
    let Addr6(addr6) = Addr6::new(facts.v6.map_or([0; 16], |ip| ip.octets()));
    let bit = |set, bit| if set { bit } else { 0 };
    let flags =
        bit(facts.xdp, link_flag::XDP) | bit(facts.marked, link_flag::MARKED) | bit(facts.probes, link_flag::PROBE);
    let mut link = Link { mac: Mac::new(facts.mac), used: 1, addr4, addr6, flags, ..Link::default() };
    for (word, bit) in facts.virtual_macs.iter().filter_map(|mac| virtual_mac(Mac::new(*mac))) {
        if let Some(word) = link.virtual_macs.get_mut(word as usize) {
            *word |= bit;
        }
    }
    link
}

/// What the last sweep saw, and what the next one is to know.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    census: Census,
    suspected: Vec<(Path, Witness)>,
    networks: Networks,
}

impl Seen {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// How many connections there are.
    pub fn census(&self) -> Census {
        self.shared().census.clone()
    }
    /// The ways on which clients ask in vain.
    pub fn suspected(&self) -> Vec<(Path, Witness)> {
        self.shared().suspected.clone()
    }
    /// The networks that the director is in.
    pub fn networks(&self) -> Networks {
        self.shared().networks.clone()
    }
    /// They are these.
    pub fn set_networks(&self, networks: Networks) {
        self.shared().networks = networks;
    }
    fn set(&self, sweep: &Sweep) {
        let (census, suspected) = (sweep.census().clone(), sweep.paths().suspected().collect());
        let mut shared = self.shared();
        (shared.census, shared.suspected) = (census, suspected);
    }
}

/// The thread that expires idle connections; it ends when this is dropped.
pub struct Sweeper(Arc<AtomicBool>);

impl Sweeper {
    /// Walks the tables round and round, a chunk at a time, on a thread of its own: the daemon's task never waits for it.
    pub fn start(mut store: KernelStore, seen: Seen) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::Builder::new().name("sweep".into()).spawn(move || {
            let mut sweep = Sweep::default();
            while !stopped.load(Ordering::Relaxed) {
                sweep.set_networks(seen.networks());
                match sweep.run(&mut store, &mut || std::thread::sleep(PAUSE)) {
                    Ok(swept) if swept.gone > 0 => tracing::debug!("{} connections expired", swept.gone),
                    Ok(_) => {}
                    Err(error) => tracing::error!("expiring connections: {error}"),
                }
                seen.set(&sweep);
                std::thread::sleep(ROUND);
            }
        })?;
        Ok(Self(stop))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
