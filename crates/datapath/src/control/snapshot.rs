//! A copy of a director's tables in memory, for packets that nobody sends.
//!
//! All but the connections is copied, of which there may be millions: those that a packet asks for are fetched when it
//! has asked for them, and it begins anew.

use std::collections::{BTreeSet, HashSet};

use dirigent_director::family::Address;
use dirigent_director::open::addr_delta;
use dirigent_director::records::{Conn, MARK_RULES, Settings, Tuple, kind, server_flag};
use dirigent_director::schedule::Scheduler;
use dirigent_director::shared::{S32, S64};
use dirigent_wire::{Be16, checksum};

use super::Error;
use super::store::{Entry, Store};
use crate::keys::{Spot, words};
use crate::memory::{Capacity, Incoming, MemoryTables, Outcome, Seen, run, run_tc};

/// What would become of a packet.
#[derive(Debug)]
pub struct Foretold {
    /// The outcome.
    pub outcome: Outcome,
    /// What it looked at, in order.
    pub seen: Vec<Seen>,
    /// The tables afterwards.
    pub tables: MemoryTables,
}

/// A packet asks for fewer connections than this, one after the other.
const ROUNDS: usize = 32;

/// What would become of a packet that came in now, if nobody else changed anything. `xdp`: the interface has XDP.
/// `prepare` gets the copy before the packet does: it knows the way to addresses, which no table does.
pub fn foretell<S: Store>(
    store: &S,
    packet: &Incoming<'_>,
    xdp: bool,
    prepare: impl FnOnce(&mut MemoryTables),
) -> Result<Foretold, Error> {
    let mut base = copy(store)?;
    prepare(&mut base);
    let mut asked = HashSet::new();
    let mut left = ROUNDS;
    loop {
        let mut tables = base.clone();
        tables.watch();
        let outcome = if xdp { run(&mut tables, packet) } else { run_tc(&mut tables, packet) };
        let seen = tables.seen();
        left = left.saturating_sub(1);
        let flows = seen.iter().filter_map(|seen| match seen {
            // Where an entry is to be, there may be one.
            Seen::Conn { flow, .. } | Seen::Insert(flow, _) | Seen::Remove(flow) => Some(*flow),
            _ => None,
        });
        let mut more = false;
        for flow in flows.filter(|flow| asked.insert(*flow)).collect::<Vec<_>>() {
            if let Some(entry) = store.entry(&flow)? {
                put(&mut base, &entry);
                more = true;
            }
        }
        if !more || left == 0 {
            return Ok(Foretold { outcome, seen, tables });
        }
    }
}

/// Has the service of this index only the server of that index, which takes connections: in a copy, for packets that are to
/// get to this server. (Clients that persistence has sent to another one still go there.)
pub fn leave_only(tables: &mut MemoryTables, service: u32, server: u32) {
    let place = tables.slots.len() as u64;
    tables.slots.push(server);
    if let Some(record) = tables.services.get_mut(service as usize) {
        record.list.store(place << 32 | 1);
        record.cursor.store(0);
        record.scheduler = Scheduler::Rr as u32;
    }
    if let Some(record) = tables.servers.get_mut(server as usize) {
        record.weight.store(record.weight.load().max(1));
        let flags = record.flags.load() & !(server_flag::DRAINING | server_flag::RESETTING);
        record.flags.store(flags | server_flag::AVAILABLE);
        record.full.store(0);
    }
}

/// All but connections.
fn copy<S: Store>(store: &S) -> Result<MemoryTables, Error> {
    let places = store.places()?;
    // Servers that are probed have records beside the services'.
    let probed = store.pins()?.into_iter().map(|(_, index)| index);
    let servers: BTreeSet<u32> = store.used_servers()?.into_iter().chain(probed).collect();
    let room = |last: Option<u32>| last.map_or(1, |last| last as usize + 1);
    let mut lists = Vec::new();
    for index in places.iter().map(|(_, index)| *index) {
        let service = store.service(index)?;
        let list = service.list.load();
        let mut regions = vec![((list >> 32) as u32, list as u32), service.table()];
        if let Some(base) = service.ids() {
            // First stands how many there are, then two words each.
            let count = store.slots(base, 1)?.first().copied().unwrap_or(0);
            regions.push((base, 1 + 2 * count));
        }
        regions.retain(|(_, len)| *len > 0);
        lists.push((index, service, regions));
    }
    let slots = lists.iter().flat_map(|(.., regions)| regions).map(|(base, len)| (base + len) as usize).max();
    let mut tables = MemoryTables::new(&Capacity {
        services: room(places.iter().map(|(_, index)| *index).max()),
        servers: room(servers.last().copied()),
        slots: slots.unwrap_or(0),
        ..Capacity::default()
    });
    // Whoever is told what becomes of a packet is told what the routing table says now, and that no table has it.
    tables.open_sieve()?;
    let settings = Settings { ways: 0, ..store.settings()? };
    tables.now = store.now().wrapping_sub(settings.clock_offset);
    tables.settings = (settings.version != 0).then_some(settings);
    for (index, service, regions) in lists {
        for (base, len) in regions {
            let slots = store.slots(base, len)?;
            tables.put_slots(base, &slots)?;
        }
        if let Some(place) = tables.services.get_mut(index as usize) {
            *place = service;
        }
    }
    for (spot, index) in places {
        tables.set_place(&spot, Some(index))?;
        if spot.to_mark().is_none() {
            tables.set_place(&Spot::whole(spot.address), Some(u32::MAX))?;
        }
    }
    for index in servers {
        if let Some(place) = tables.servers.get_mut(index as usize) {
            *place = store.server(index)?;
        }
        tables.put_next_hop(index, &store.next_hop(index)?)?;
    }
    tables.notes.get_mut().extend(store.notes()?);
    store.known()?.into_iter().try_for_each(|(spot, known)| tables.set_known(&spot, Some(known)))?;
    store.locals()?.into_iter().try_for_each(|address| tables.set_local(address, true))?;
    store.local_nets()?.iter().try_for_each(|net| tables.set_local_net(net, true))?;
    store.sources()?.iter().try_for_each(|(net, may)| tables.set_source(net, Some(*may)))?;
    tables.put_mark_rules(0, &store.mark_rules(0, 2 * MARK_RULES)?)?;
    tables.links.extend(store.links()?);
    Ok(tables)
}

fn put(tables: &mut MemoryTables, entry: &Entry) {
    if let Some(key) = entry.flow.tuple4() {
        tables.conns4.insert(key, conn(&key, entry));
    } else if let Some(key) = entry.flow.tuple6() {
        tables.conns6.insert(key, conn(&key, entry));
    }
}

/// The record of an entry. What checksums change by follows from what is written.
fn conn<A: Address>(key: &Tuple<A>, entry: &Entry) -> Conn<A> {
    let (addr, port) = (A::from_words(&words(entry.address)), Be16::new(entry.port));
    let (old, old_port) = if entry.kind == kind::NAT_REPLY { (key.src, key.sport) } else { (key.dst, key.dport) };
    Conn {
        word: S64::new(entry.word),
        link: S64::new(entry.link),
        last_seen: S32::new(entry.last_seen),
        packets: S32::new(entry.packets),
        server: entry.server,
        service: entry.service,
        extra: S32::new(entry.extra),
        addr_delta: addr_delta(&old, &addr),
        port_delta: checksum::delta(old_port.raw(), port.raw()),
        addr,
        port,
        kind: entry.kind,
        flags: entry.flags,
        mark: entry.mark,
        mask: entry.mask,
        template: S32::new(entry.template),
        timeout: S32::new(entry.timeout),
    }
}
