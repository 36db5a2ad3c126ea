//! Writing a Model: [`Control`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use dirigent_config::failover::{Sync, SyncRole};
use dirigent_config::{
    Method, Model, Op, Plan, Prefix, Protocol, Server as Wanted, Service as WantedService, ServiceKey,
    Settings as WantedSettings, Tunnel, TunnelChecksum, TunnelKind, VipDefault,
};
use dirigent_director::ftp;
use dirigent_director::records::{
    Counters, LAYOUT_VERSION, NextHop, Noted, Server, Service, Settings, hop, kind, server_flag, setting, tunnel,
};
use dirigent_director::schedule::{Scheduler, Table};
use dirigent_director::shared::{S32, S64};
use dirigent_director::sieve;
use dirigent_director::ways;
use dirigent_wire::Be16;

use super::Error;
use super::defence;
use super::features::may_be_ftp;
use super::known::KnownServers;
use super::lists;
use super::marks::Marks;
use super::pace::{Paced, Paces};
use super::probes::Targets;
use super::slots::{Indexes, Region, Slots};
use super::store::Store;
use super::tally;
use super::trash::Trash;
use crate::keys::{Spot, words};
use crate::memory::{LocalNet, SourceNet};

/// A real server of a service, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub index: u32,
    pub address: IpAddr,
    pub port: u16,
}

impl Member {
    /// Members by address and port: a service may have thousands.
    pub fn by_identity(members: &[Self]) -> HashMap<(IpAddr, u16), Self> {
        members.iter().map(|member| ((member.address, member.port), *member)).collect()
    }
}

/// A service as the tables have it.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub index: u32,
    pub list: Region,
    pub table: Region,
    /// Ids of QUIC servers.
    pub ids: Region,
    /// Its clients, and whether they may open connections.
    pub sources: HashMap<SourceNet, bool>,
    /// In list order: newest first.
    pub members: Vec<Member>,
    /// What was made of the records of its members, by index, as far as that is known.
    pub written: HashMap<u32, Written>,
}

/// What a server's record is made of. One of thousands that changes leaves the others' records alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    method: Method,
    weight: u32,
    upper: u32,
    lower: u32,
    paced: Paced,
}

impl Written {
    fn of(wanted: &Wanted, paced: &Paced) -> Self {
        Self { method: wanted.method, weight: wanted.weight, upper: wanted.upper, lower: wanted.lower, paced: *paced }
    }
}

/// What was prepared for a service.
#[derive(Debug, Default)]
struct Made {
    members: Vec<Member>,
    written: HashMap<u32, Written>,
    /// Those of them that were in no list.
    fresh: Vec<Member>,
    list: Region,
    table: Region,
    ids: Region,
    /// Those of them that are new.
    regions: Vec<Region>,
}

/// Keeps the tables as a Model says. One a director; whoever else writes them is lost.
#[derive(Debug)]
pub struct Control<S> {
    pub(super) store: S,
    pub(super) model: Model,
    pub(super) held: HashMap<ServiceKey, Held>,
    pub(super) slots: Slots,
    pub(super) used_services: Indexes,
    pub(super) used_servers: Indexes,
    pub(super) trash: Trash,
    pub(super) known: KnownServers,
    pub(super) marks: Marks,
    pub(super) paces: Paces,
    /// The servers that are probed, which have records of their own.
    pub(super) targets: Targets,
    /// Whether connections are told to other directors.
    pub(super) sync: Option<Sync>,
    /// What [`Control::set_local_nets`] said last.
    pub(super) local_nets: BTreeSet<LocalNet>,
    /// Pages of memory that are free or hold buffers, as last said.
    available: Option<u64>,
    /// What [`Control::set_next_hop`] said last of an address.
    pub(super) hops: HashMap<IpAddr, NextHop>,
    /// The servers in lists, and those that are probed, that have an address, by index.
    users: HashMap<IpAddr, BTreeMap<u32, Method>>,
    /// Services by their addresses: how many.
    places: HashMap<IpAddr, usize>,
    /// Whether all bits of the sieve are known to be set.
    sieve_is_open: bool,
}

/// A real server with what the tables say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its index in the tables.
    pub index: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Traffic.
    pub counters: dirigent_director::records::Counters,
    /// One of [`hop`].
    pub hop: u32,
}

/// What operations on one service, or on what is no service's, are going to change.
struct Before {
    presence: u32,
    part: Part,
}

enum Part {
    Service(ServiceKey, Option<WantedService>),
    Rest(Box<WantedSettings>, Vec<dirigent_config::MarkRule>, Box<dirigent_config::Failover>),
}

impl Before {
    fn of(model: &Model, key: Option<ServiceKey>) -> Self {
        let service = key.and_then(|key| model.service(&key));
        let part = match key {
            Some(key) => Part::Service(key, service.cloned()),
            None => {
                let failover = Box::new(model.failover().clone());
                Part::Rest(Box::new(model.settings().clone()), model.marks().to_vec(), failover)
            }
        };
        Self { presence: presence(service), part }
    }

    /// What was in a Model can be put back.
    fn restore(self, model: &mut Model) {
        let back = match self.part {
            Part::Service(_, Some(service)) => model.put_service(service),
            Part::Service(key, None) => model.remove_service(&key),
            Part::Rest(settings, marks, failover) => model
                .set_settings(*settings)
                .and_then(|()| model.set_marks(marks))
                .and_then(|()| model.set_failover(*failover)),
        };
        // It was never added.
        let _ = back;
    }
}

impl<S: Store> Control<S> {
    pub(super) fn empty(store: S) -> Self {
        let slots = Slots::new(store.room().slots);
        Self {
            store,
            model: Model::default(),
            held: HashMap::new(),
            slots,
            used_services: Indexes::default(),
            used_servers: Indexes::default(),
            trash: Trash::default(),
            known: KnownServers::default(),
            marks: Marks::default(),
            paces: Paces::default(),
            targets: Targets::default(),
            sync: None,
            local_nets: BTreeSet::new(),
            available: None,
            hops: HashMap::new(),
            users: HashMap::new(),
            places: HashMap::new(),
            sieve_is_open: false,
        }
    }

    /// The tables.
    pub fn store(&self) -> &S {
        &self.store
    }
    /// The tables, to be run on or read; not to be written.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }
    /// The tables, left to another.
    pub fn into_store(self) -> S {
        self.store
    }
    /// What the tables say now.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Does a Plan, in order. If an operation fails, those before it are taken back.
    pub fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        self.paces.begin(&self.model, plan.ops.iter().filter_map(Op::service));
        let done = self.apply_all(plan);
        self.paces.end(&self.model);
        done
    }

    fn apply_all(&mut self, plan: &Plan) -> Result<(), Error> {
        // What each part of the Model was before its first change: a change of one service of ten thousand has no
        // business with the others.
        let (mut before, mut known) = (Vec::new(), HashSet::new());
        for ops in plan.ops.chunk_by(Op::is_continued_by) {
            let key = ops.first().and_then(Op::service);
            if known.insert(key) {
                before.push(Before::of(&self.model, key));
            }
            if let Err(source) = self.apply_ops(ops) {
                let mut was = self.model.clone();
                before.into_iter().for_each(|before| before.restore(&mut was));
                let back = Plan::between(&self.model, &was);
                let undone = back.ops.chunk_by(Op::is_continued_by).try_for_each(|ops| self.apply_ops(ops));
                return Err(match undone {
                    Ok(()) => source,
                    Err(undo) => Error::NotUndone { source: Box::new(source), undo: Box::new(undo) },
                });
            }
        }
        Ok(())
    }

    /// Makes the Model so.
    pub fn change_to(&mut self, model: &Model) -> Result<(), Error> {
        self.apply(&Plan::between(&self.model, model))
    }

    /// One operation; or a service that comes with all of its servers, which packets see at
    /// once. If it fails, the tables are as before it.
    fn apply_ops(&mut self, ops: &[Op]) -> Result<(), Error> {
        let key = ops.first().and_then(Op::service);
        let before = Before::of(&self.model, key);
        let of_servers = |op: &Op| matches!(op, Op::AddServer { .. } | Op::EditServer { .. } | Op::RemoveServer { .. });
        let changes = ops.iter().filter(|op| of_servers(op)).count();
        let done = ops.iter().try_for_each(|op| op.apply(&mut self.model)).map_err(Error::from);
        let done = done.and_then(|()| key.map_or(Ok(()), |key| self.settle(&key, changes)));
        let done = done.and_then(|()| match key {
            // Where nothing about it matters to the settings, they need no look at all the services.
            Some(key) if before.presence == presence(self.model.service(&key)) => Ok(()),
            _ => self.settle_settings(),
        });
        if done.is_err() {
            before.restore(&mut self.model);
            // Best effort: the first error is the one to tell.
            if let Some(key) = key {
                let _ = self.settle(&key, 0);
            }
            let _ = self.settle_settings();
        }
        done
    }

    /// Makes the tables say of one service what the Model does. `changes`: so many servers came,
    /// went or were edited, upon which wrr starts its round at the head.
    pub(super) fn settle(&mut self, key: &ServiceKey, changes: usize) -> Result<(), Error> {
        match self.model.service(key).cloned() {
            Some(wanted) => self.settle_service(&wanted, changes).inspect_err(|_| {
                // Who knows how far it came.
                self.held.get_mut(key).into_iter().for_each(|held| held.written.clear());
            }),
            None => self.remove_service(key),
        }
    }

    fn settle_service(&mut self, wanted: &WantedService, changes: usize) -> Result<(), Error> {
        let key = wanted.key;
        let (mut held, new) = match self.held.get(&key) {
            Some(held) => (held.clone(), false),
            None => (Held { index: self.new_service(&key)?, ..Held::default() }, true),
        };
        let mut made = Made::default();
        if let Err(error) = self.prepare(&held, wanted, changes > 0, &mut made) {
            for member in made.fresh {
                self.discard(key, held.index, member)?;
            }
            made.regions.into_iter().for_each(|region| self.slots.free(region));
            return Err(error);
        }
        let Made { members, written, list, table, ids, .. } = made;
        let stay: HashSet<_> = members.iter().collect();
        let gone: Vec<_> = held.members.iter().filter(|m| !stay.contains(m)).copied().collect();
        let list_changed = members != held.members;

        let (sources, strangers) = self.write_sources(&held, wanted)?;
        // All that the service will refer to stands. From here on packets see it.
        let old = self.store.service(held.index)?;
        let scheduler = wanted.scheduler as u32;
        let rebound = new || old.scheduler != scheduler;
        if list_changed {
            self.store.set_list(held.index, u64::from(list.base) << 32 | u64::from(list.len))?;
        }
        let weights: Vec<u32> = self.paces.of(wanted).iter().map(|p| p.weight).collect();
        let (wrr_max, wrr_step) = lists::wrr(weights.iter().copied());
        let rules = Service {
            scheduler,
            flags: lists::flags(wanted),
            wrr_max,
            wrr_step,
            table: S64::new(Service::with_table(table.base, table.len)),
            persistence: wanted.persistence.map_or(0, |p| p.timeout_s.saturating_mul(self.store.hz())),
            mask: wanted.persistence.map_or(0, |p| lists::mask(p.mask)),
            mark: key.mark(),
            port: Be16::new(key.port()),
            joint: S64::new(Service::with_ids((ids.len > 0).then_some(ids.base))),
            ..Service::default()
        };
        self.store.put_service_rules(held.index, &rules)?;
        for net in strangers {
            self.store.set_source(&net, None)?;
        }
        held.sources = sources;
        let is_wrr = wanted.scheduler == Scheduler::Wrr;
        loop {
            let was = self.store.service(held.index)?.cursor.load();
            let (at, weight) = ((was >> 32) as u32, was as u32);
            let cursor = match (rebound, is_wrr) {
                (true, true) if changes == 0 => u64::from(wrr_max),
                (true, true) => u64::from(lists::wrr_round(0, &weights, changes)),
                (true, false) => 0,
                (false, true) if changes > 0 || list_changed => u64::from(lists::wrr_round(weight, &weights, changes)),
                (false, true) => was,
                (false, false) => u64::from(lists::rr_position(at, &held.members, &members)) << 32 | u64::from(weight),
            };
            if self.store.swap_cursor(held.index, was, cursor)? {
                break;
            }
        }
        if rebound {
            self.forget_notes(|of| of.service == held.index)?;
        }
        if new {
            // Packets with a mark, and those of FTP's data, may be of any address.
            if may_be_ftp(&key) {
                self.open_sieve()?;
            }
            if let Some(address) = key.address() {
                self.store.add_to_sieve(address, sieve::VIRTUAL)?;
                self.store.set_place(&Spot::whole(address), Some(u32::MAX))?;
            }
            self.store.set_place(&spot(&key), Some(held.index))?;
        }
        if list_changed {
            self.slots.free(held.list);
        }
        if table != held.table {
            self.slots.free(held.table);
        }
        if ids != held.ids {
            self.slots.free(held.ids);
        }
        (held.list, held.table, held.ids) = (list, table, ids);
        (held.members, held.written) = (members, written);
        self.hold(key, held.clone());
        for member in gone {
            self.discard(key, held.index, member)?;
        }
        self.settle_known(&key, wanted, &held)
    }

    /// Writes who may open connections to a service; says what its prefixes are now, and which
    /// of the old ones are to go once the service's flags agree. In between a client may be
    /// judged by the longer of an old and a new prefix.
    fn write_sources(
        &mut self,
        held: &Held,
        wanted: &WantedService,
    ) -> Result<(HashMap<SourceNet, bool>, Vec<SourceNet>), Error> {
        let service = held.index;
        let net = |prefix: Prefix| SourceNet { service, address: prefix.address(), length: prefix.length() };
        // A prefix of everybody that is named comes after what holds for the rest.
        let new: HashMap<_, _> =
            wanted.sources.rules(wanted.key.is_ipv6()).map(|(prefix, may)| (net(prefix), may)).collect();
        let changed: Vec<_> = new.iter().filter(|(net, may)| held.sources.get(net) != Some(may)).collect();
        for (done, (net, may)) in changed.iter().enumerate() {
            if let Err(error) = self.store.set_source(net, Some(**may)) {
                for (net, _) in changed.iter().take(done) {
                    // The first error is the one to tell.
                    let _ = self.store.set_source(net, held.sources.get(net).copied());
                }
                return Err(error);
            }
        }
        let gone = held.sources.keys().filter(|net| !new.contains_key(net)).copied().collect();
        Ok((new, gone))
    }

    /// Writes what a service is going to refer to, where no packet looks yet.
    fn prepare(&mut self, held: &Held, wanted: &WantedService, restart: bool, made: &mut Made) -> Result<(), Error> {
        let (paced, there) = (self.paces.of(wanted), Member::by_identity(&held.members));
        for (server, paced) in wanted.servers.iter().zip(&paced).rev() {
            let (there, writes) = (there.get(&server.identity()), Written::of(server, paced));
            let member = match there.filter(|member| held.written.get(&member.index) == Some(&writes)) {
                Some(member) => *member,
                None => self.settle_server(held.index, there, &wanted.key, server, paced)?,
            };
            if there.is_none() {
                made.fresh.push(member);
            }
            made.members.push(member);
            made.written.insert(member.index, writes);
        }
        let list_changed = made.members != held.members;
        (made.list, made.table) = (held.list, Region::default());
        if list_changed {
            made.list = self.new_region(made.members.iter().map(|m| m.index).collect())?;
            made.regions.push(made.list);
        }
        if let Some(table) = wanted.scheduler.table() {
            made.table = held.table;
            let size = wanted.table_slots();
            // sh's and dh's are of one size. Who takes a drained server's part depends on the service's flags.
            let rebound = self.store.service(held.index)?.scheduler != wanted.scheduler as u32
                || wanted.servers.iter().any(|s| s.draining);
            if restart || list_changed || rebound || held.table.len != size {
                made.table = self.table_region((table, size), &made.members, wanted.scheduler_flags.fallback)?;
                made.regions.push(made.table);
            }
        }
        if wanted.quic {
            made.ids = held.ids;
            let servers = wanted.servers_in_list_order().zip(&made.members);
            let ids = lists::ids(servers.map(|(server, member)| (server.quic_id().0, member.index)));
            if self.store.slots(held.ids.base, held.ids.len)? != ids {
                made.ids = self.new_region(ids)?;
                made.regions.push(made.ids);
            }
        }
        Ok(())
    }

    /// The index of a service that comes: the one it had, if its servers still linger.
    fn new_service(&mut self, key: &ServiceKey) -> Result<u32, Error> {
        if let Some(index) = self.trash.service(key) {
            return Ok(index);
        }
        let room = self.store.room().services;
        let index = self.used_services.lowest_free(room).ok_or(Error::Full {
            what: "virtual service",
            room,
            key: "services",
        })?;
        self.store.set_list(index, 0)?;
        self.used_services.insert(index);
        Ok(index)
    }

    /// Writes a server's record, which may be `there`; a new one's index comes from the trash or is new.
    fn settle_server(
        &mut self,
        service: u32,
        there: Option<&Member>,
        key: &ServiceKey,
        wanted: &Wanted,
        paced: &Paced,
    ) -> Result<Member, Error> {
        let (address, port) = wanted.identity();
        let index = match there {
            Some(member) => member.index,
            None => match self.trash.find(key, address, port) {
                Some(index) => index,
                None => {
                    let index = self.new_server()?;
                    self.store.zero_counters(index)?;
                    self.store.put_origin(index, &Counters::default())?;
                    index
                }
            },
        };
        let old = self.store.server(index)?;
        let record = Server {
            // What it has: the thresholds are held against it.
            load: S64::new(old.load.load()),
            persistent: S64::new(0),
            addr: words(address),
            port: Be16::new(port),
            method: kind_of(wanted.method),
            protocol: key.protocol().map_or(0, Protocol::number),
            weight: S32::new(paced.weight),
            flags: S32::new(
                server_flag::AVAILABLE | paced.flags | if address.is_ipv6() { server_flag::IPV6 } else { 0 },
            ),
            service,
            upper: wanted.upper,
            lower: wanted.lower,
            last_weight: if wanted.weight == 0 { old.last_weight } else { wanted.weight },
            full: S32::new(old.full.load()),
        };
        record.follow_thresholds();
        self.store.put_server(index, &record)?;
        if there.is_none() {
            self.used_servers.insert(index);
            if self.trash.take(index).is_some_and(|was| was.service_gone) {
                tally::zero_server(&mut self.store, index)?;
            }
        }
        // With the tunnel that an edit may have changed, for existing connections too.
        self.add_user(address, index, wanted.method)?;
        Ok(Member { index, address, port })
    }

    fn new_region(&mut self, slots: Vec<u32>) -> Result<Region, Error> {
        self.region(slots, "list of servers")
    }

    fn region(&mut self, slots: Vec<u32>, what: &'static str) -> Result<Region, Error> {
        let room = self.slots.room();
        let region = self.slots.alloc(slots.len() as u32).ok_or(Error::Full { what, room, key: "slots" })?;
        self.store.put_slots(region.base, &slots)?;
        Ok(region)
    }

    fn table_region(&mut self, table: (Table, u32), members: &[Member], fallback: bool) -> Result<Region, Error> {
        let mut servers = Vec::with_capacity(members.len());
        let (mut takers, mut drained) = (HashMap::new(), HashMap::new());
        for member in members {
            let server = self.store.server(member.index)?;
            let weights = (server.configured_weight(), server.last_weight);
            servers.push((member.index, member.address, member.port, weights));
            let draining = server.flags.load() & server_flag::DRAINING != 0;
            (if draining { &mut drained } else { &mut takers }).insert(member.index, server.weight.load());
        }
        let mut slots = lists::table(table, servers.into_iter());
        // With a fallback the packet path looks further by itself.
        if !fallback {
            takers.retain(|_, weight| *weight > 0);
            lists::hand_on(&mut slots, |server| drained.contains_key(&server), |server| takers.contains_key(&server));
        }
        self.region(slots, "table of a scheduler")
    }

    /// lblc and lblcr forget these destinations' servers.
    pub(super) fn forget_notes(&mut self, which: impl Fn(&Noted) -> bool) -> Result<(), Error> {
        let notes = self.store.notes()?;
        notes.iter().filter(|(of, _)| which(of)).try_for_each(|(of, _)| self.store.forget_note(of))
    }

    fn remove_service(&mut self, key: &ServiceKey) -> Result<(), Error> {
        let Some(held) = self.held.get(key).cloned() else { return Ok(()) };
        self.store.set_place(&spot(key), None)?;
        self.forget_held(key)?;
        for net in held.sources.keys() {
            self.store.set_source(net, None)?;
        }
        self.store.set_list(held.index, 0)?;
        for member in &held.members {
            self.discard(*key, held.index, *member)?;
        }
        self.forget_notes(|of| of.service == held.index)?;
        self.retire(held.index, &held.members)?;
        self.slots.free(held.list);
        self.slots.free(held.table);
        self.slots.free(held.ids);
        self.trash.service_left(key, held.index);
        self.forget_known(key)
    }

    /// A service is in the tables.
    pub(super) fn hold(&mut self, key: ServiceKey, held: Held) {
        if self.held.insert(key, held).is_none()
            && let Some(address) = key.address()
        {
            *self.places.entry(address).or_default() += 1;
        }
    }

    /// It is not any more; with the last one of an address goes that.
    fn forget_held(&mut self, key: &ServiceKey) -> Result<(), Error> {
        let (Some(_), Some(address)) = (self.held.remove(key), key.address()) else { return Ok(()) };
        let Some(services) = self.places.get_mut(&address) else { return Ok(()) };
        *services -= 1;
        if *services > 0 {
            return Ok(());
        }
        self.places.remove(&address);
        self.store.set_place(&Spot::whole(address), None)
    }

    /// A server that left its list: its connections wait for its return.
    fn discard(&mut self, key: ServiceKey, service: u32, member: Member) -> Result<(), Error> {
        let record = self.store.server(member.index)?;
        record.flags.store(record.flags.load() & server_flag::IPV6);
        self.store.put_server(member.index, &record)?;
        self.forget_user(member.address, member.index);
        // The way there stays as it is: packets that are on it go on.
        let removed = NextHop { state: S32::new(hop::REMOVED), ..self.store.next_hop(member.index)? };
        self.store.put_next_hop(member.index, &removed)?;
        self.trash.add(Some(key), service, member);
        Ok(())
    }

    /// An index for a server's record.
    pub(super) fn new_server(&mut self) -> Result<u32, Error> {
        let room = self.store.room().servers;
        self.used_servers.lowest_free(room).ok_or(Error::Full { what: "real server", room, key: "servers" })
    }

    /// A record has this address: its next hop is kept true from now on.
    pub(super) fn add_user(&mut self, address: IpAddr, index: u32, method: Method) -> Result<(), Error> {
        self.store.add_to_sieve(address, sieve::SERVER)?;
        self.users.entry(address).or_default().insert(index, method);
        self.write_hop(index, address, method)
    }

    /// It has not any more.
    pub(super) fn forget_user(&mut self, address: IpAddr, index: u32) {
        if let Some(users) = self.users.get_mut(&address) {
            users.remove(&index);
            if users.is_empty() {
                self.users.remove(&address);
            }
        }
    }

    /// A service goes, or is zeroed with its servers, removed ones too.
    fn retire(&mut self, service: u32, listed: &[Member]) -> Result<(), Error> {
        let servers: BTreeSet<u32> = listed.iter().map(|m| m.index).chain(self.trash.servers(service)).collect();
        tally::retire(&mut self.store, service, servers)
    }

    /// The services of the servers in lists that have these indexes, with their addresses and ports.
    pub fn members(&self, indexes: &BTreeSet<u32>) -> HashMap<u32, (ServiceKey, IpAddr, u16)> {
        if indexes.is_empty() {
            return HashMap::new();
        }
        let all = self.held.iter().flat_map(|(key, held)| held.members.iter().map(move |member| (*key, member)));
        let these = all.filter(|(_, member)| indexes.contains(&member.index));
        these.map(|(key, member)| (member.index, (key, member.address, member.port))).collect()
    }

    /// Zeroes the counters of this service, of which there is one, and its servers; or all.
    /// Says which service that is.
    pub fn zero(&mut self, service: Option<&ServiceKey>) -> Result<Option<u32>, Error> {
        let held = service.and_then(|key| self.held.get(key)).cloned();
        match (service, &held) {
            (_, Some(held)) => self.retire(held.index, &held.members)?,
            (None, None) => tally::zero_all(&mut self.store)?,
            (Some(_), None) => {}
        }
        Ok(held.map(|held| held.index))
    }

    /// Says how frames reach an address, now and when a server of it comes.
    pub fn set_next_hop(&mut self, address: IpAddr, next: &NextHop) -> Result<(), Error> {
        let all = |n: &NextHop| (n.state.load(), n.ifindex, n.mtu, n.src, n.dst, n.flags, n.source, n.peer);
        if self.hops.get(&address).is_some_and(|old| all(old) == all(next)) {
            // A server that came since has it.
            return Ok(());
        }
        self.hops.insert(address, next.clone());
        let users = self.users.get(&address).cloned().unwrap_or_default();
        users.into_iter().try_for_each(|(index, method)| self.write_hop(index, address, method))
    }

    /// Writes how frames reach a server by its method. What was learned of the way stays
    /// while the way does.
    fn write_hop(&mut self, index: u32, address: IpAddr, method: Method) -> Result<(), Error> {
        let mut next = self.hops.get(&address).cloned().unwrap_or_default();
        if let Method::Tun(shape) = method {
            tunnelled(&mut next, address, shape);
        }
        let old = self.store.next_hop(index)?;
        let way = |n: &NextHop| (n.ifindex, n.mtu, n.tunnel, n.flags, n.source, n.peer);
        let learned = if way(&old) == way(&next) { old.learned.load() } else { 0 };
        next.learned = S32::new(learned);
        self.store.put_next_hop(index, &next)
    }

    /// Bytes of the largest packet that the way to a server carries, and of the largest of a client's that can be sent
    /// there in one piece; nothing if it is in no list, or if no way is known.
    pub fn carries(&self, key: &ServiceKey, address: IpAddr, port: u16) -> Result<Option<(u32, u32)>, Error> {
        let found = self.held.get(key).and_then(|h| h.members.iter().find(|m| (m.address, m.port) == (address, port)));
        let Some(member) = found else { return Ok(None) };
        let next = self.store.next_hop(member.index)?;
        Ok((next.mtu != 0).then(|| (next.path_mtu(), next.room())))
    }

    /// What the tables say of a server.
    pub fn server_status(&self, key: &ServiceKey, address: IpAddr, port: u16) -> Result<Option<ServerStatus>, Error> {
        let found = self.held.get(key).and_then(|h| h.members.iter().find(|m| (m.address, m.port) == (address, port)));
        let Some(member) = found else { return Ok(None) };
        let (active, inactive) = self.store.server(member.index)?.connections();
        let counters = self.store.counters(member.index)?;
        let hop = self.store.next_hop(member.index)?.state.load();
        Ok(Some(ServerStatus { index: member.index, active, inactive, counters, hop }))
    }

    /// Says how many pages of memory are free or hold buffers, by which automatic defence
    /// goes on and off (ipvs-semantics §3.7: each second).
    pub fn set_available(&mut self, pages: u64) -> Result<(), Error> {
        self.available = Some(pages);
        self.settle_settings()
    }

    /// Routes, neighbours or interfaces changed, as far as the caller can tell, who goes on telling: packets ask for their
    /// ways to clients anew, and remember them from now on.
    pub fn ways_changed(&mut self) -> Result<(), Error> {
        let old = self.store.settings()?;
        self.store.put_settings(&Settings { ways: ways::next(old.ways), ..old })
    }

    /// Nothing changed in the network that [`Control::ways_changed`] was not told of: to be said ten times a second, or
    /// packets ask for their ways each half second.
    pub fn ways_followed(&mut self) -> Result<(), Error> {
        let old = self.store.settings()?;
        // A CPU may be a little behind, and of the future nothing can be said.
        let ways_followed = self.store.now().wrapping_sub(2);
        self.store.put_settings(&Settings { ways_followed, ..old })
    }

    /// Has packets of all addresses looked at, from now on.
    fn open_sieve(&mut self) -> Result<(), Error> {
        if !self.sieve_is_open {
            self.store.open_sieve()?;
            self.sieve_is_open = true;
        }
        Ok(())
    }

    /// Writes the settings if they differ.
    pub(super) fn settle_settings(&mut self) -> Result<(), Error> {
        let old = self.store.settings()?;
        let hz = self.store.hz();
        let mark_rules = self.prepare_marks(old.mark_rules)?;
        let mut new = Settings { mark_rules, ..settings(self.model.settings(), hz, self.presence(), &old) };
        if let Some(sync) = &self.sync {
            new.sync_threshold = sync.threshold;
            new.sync_period = sync.period;
            new.sync_refresh = if sync.refresh_period.is_zero() { 0 } else { ticks(sync.refresh_period, hz) };
            new.sync_retries = sync.retries.into();
        }
        defence::settle(&self.model.settings().defence, self.available, &mut new);
        if !self.model.marks().is_empty() || new.flags & setting::LED != 0 {
            self.open_sieve()?;
        }
        if format!("{old:?}") == format!("{new:?}") {
            return Ok(());
        }
        new.ways = if old.ways == 0 { 0 } else { ways::next(old.ways) };
        self.store.put_settings(&new)?;
        if new.mark_rules != old.mark_rules {
            self.marks.switched();
        }
        Ok(())
    }

    /// What of the services and of this host has packets looked at more closely: bits of
    /// [`setting`].
    fn presence(&self) -> u32 {
        let services = self.model.services().iter().fold(0, |bits, service| bits | presence(Some(service)));
        let bit = |set, bit| if set { bit } else { 0 };
        let known = self.model.settings().nat_icmp_send;
        services
            | bit(known, setting::KNOW_SERVERS)
            | bit(!self.local_nets.is_empty(), setting::LOCAL_NETS)
            | bit(!self.targets.is_empty(), setting::PROBES)
            | bit(self.sync.is_some(), setting::SYNC)
            | bit(self.sync.as_ref().is_some_and(|sync| sync.role != SyncRole::Backup), setting::SYNC_MASTER)
    }
}

/// What one service has packets looked at more closely for.
fn presence(service: Option<&WantedService>) -> u32 {
    let Some(service) = service else { return 0 };
    let bit = |set, bit| if set { bit } else { 0 };
    let one_packet_nat = service.one_packet && service.servers.iter().any(|s| s.method == Method::Nat);
    let (port, by_mark) = (service.key.port(), service.key.mark() != 0);
    bit(one_packet_nat, setting::KNOW_SERVERS)
        | bit(port == ftp::CONTROL, setting::FTP)
        | bit(port == 0 && !by_mark, setting::ANY_PORT)
}

/// Turns the next hop of a server's address into that of a tunnel to it.
fn tunnelled(next: &mut NextHop, address: IpAddr, shape: Tunnel) {
    let kind = match shape.kind {
        TunnelKind::Ipip => tunnel::IPIP,
        TunnelKind::Gre => tunnel::GRE,
        TunnelKind::Gue { port } => {
            next.port = Be16::new(port);
            tunnel::GUE
        }
    };
    // "Remote" is a full checksum wherever the inner one is complete, as in IPVS; and here
    // it always is, or is taken for what it will be.
    let checksum = match shape.checksum {
        TunnelChecksum::None => 0,
        TunnelChecksum::Full => tunnel::CHECKSUM,
        TunnelChecksum::Remote => tunnel::CHECKSUM | tunnel::REMOTE,
    };
    next.tunnel = kind;
    next.flags = checksum | if address.is_ipv6() { tunnel::PEER_V6 } else { 0 };
    next.peer = words(address);
}

/// What the request entries of such a server's connections are.
pub(super) fn kind_of(method: Method) -> u8 {
    match method {
        Method::Nat => kind::NAT_REQUEST,
        Method::Dr => kind::DR_REQUEST,
        Method::Tun(_) => kind::TUN_REQUEST,
    }
}

/// Where a service is.
pub(super) fn spot(key: &ServiceKey) -> Spot {
    match *key {
        ServiceKey::Address { protocol, address, port } => {
            Spot { address, port, protocol: protocol.number(), mark: false }
        }
        ServiceKey::Mark { mark, ipv6 } => Spot::of_mark(mark.get(), ipv6),
    }
}

/// A time in ticks, at least one.
fn ticks(time: std::time::Duration, hz: u32) -> u32 {
    let ticks = time.as_nanos().saturating_mul(u128::from(hz)) / 1_000_000_000;
    u32::try_from(ticks).unwrap_or(u32::MAX / 2).max(1)
}

/// The settings' record.
fn settings(of: &WantedSettings, hz: u32, presence: u32, old: &Settings) -> Settings {
    let ticks = |d| ticks(d, hz);
    let bit = |set, bit| if set { bit } else { 0 };
    let mut record = Settings {
        version: LAYOUT_VERSION,
        flags: bit(of.schedule_icmp, setting::SCHEDULE_ICMP)
            | bit(of.nat_icmp_send, setting::NAT_ICMP_SEND)
            | bit(of.snat_reroute, setting::SNAT_REROUTE)
            | bit(of.pmtu_disc, setting::PMTU_DISC)
            | bit(of.vip_default == VipDefault::Reject, setting::REJECT)
            | bit(of.expire_nodest_conn, setting::EXPIRE_NODEST)
            | bit(of.expire_quiescent_template, setting::EXPIRE_QUIESCENT)
            | bit(of.sloppy_tcp, setting::SLOPPY_TCP)
            | bit(of.sloppy_sctp, setting::SLOPPY_SCTP)
            | bit(of.cache_bypass, setting::CACHE_BYPASS)
            | bit(of.mark_device.is_some(), setting::LED)
            | bit(of.conn_reuse_mode != 0, setting::REUSE)
            | bit(of.conn_reuse_mode & 2 != 0, setting::REUSE_FIN_WAIT)
            | presence,
        hz,
        clock_offset: old.clock_offset,
        ways: old.ways,
        ways_period: ways::period(hz),
        ways_followed: old.ways_followed,
        tcp_timeouts: [0; 16],
        udp_timeout: ticks(of.timeouts.udp),
        error_rate: of.errors.rate,
        error_burst: of.errors.burst,
        error_dest_rate: of.errors.destination_rate,
        error_dest_burst: of.errors.destination_burst,
        ..Settings::default()
    };
    for (slot, timeout) in record.sctp_timeouts.iter_mut().zip(of.timeouts.sctp.0) {
        *slot = ticks(timeout);
    }
    record.lblc_expiration = ticks(of.timeouts.lblc_expiration);
    record.lblcr_expiration = ticks(of.timeouts.lblcr_expiration);
    for (slot, timeout) in record.tcp_timeouts.iter_mut().zip(of.timeouts.tcp.by_state()) {
        *slot = ticks(timeout);
    }
    record
}
