//! The kernel's maps as a [`Store`]. Arrays that packets read are mapped into memory and
//! written word by word, each word at once; the records' layouts are held against the
//! director's by the assertions at the end.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use dirigent_director::family::{V4, V6};
use dirigent_director::probe::Pin;
use dirigent_director::records::{
    CANDIDATES, Counters, Known, LESSONS, Lesson, Link, MarkRule, NextHop, Note, Noted, Server, Service, Settings,
    candidate, hop, local_net, map,
};
use dirigent_director::shared::S64;
use dirigent_director::sieve;
use dirigent_director::verdict::Reason;

use super::Error;
use super::clock::Clock;
use super::shapes::{self, Conn4, Conn6, Key4, Key6, Net4, Net6, Place4, Place6, halves, pair, words_of_key};
use super::shapes::{Source4, Source6};
use super::store::{Due, Entry, Expired, Room, Store};
use crate::kernel::sys::Cursor;
use crate::kernel::{self, Features, Instance, Kernel, Mapped, PerCpuTable, Step, Table};
use crate::keys::{Flow, Spot, slot};
use crate::memory::{LocalNet, SourceNet};
use crate::names;

/// Entries of one step of a walk.
const CHUNK: usize = 4096;

/// Where a walk over both tables of connections is; at first at their begin.
#[derive(Clone, Debug, Default)]
pub struct Page {
    v6: bool,
    cursor: Cursor,
}

/// All maps of one director. It lives on its own: several may be open at once, if only
/// one of them is written to; those of one [`Kernel`] may sweep at once.
#[derive(Debug)]
pub struct KernelStore {
    conns4: Table<Key4, Conn4>,
    conns6: Table<Key6, Conn6>,
    services4: Table<Place4, u32>,
    services6: Table<Place6, u32>,
    services: Mapped<[AtomicU64; 8]>,
    servers: Mapped<[AtomicU64; 8]>,
    slots: Mapped<AtomicU32>,
    next_hops: Mapped<[AtomicU32; 16]>,
    counters: PerCpuTable<u32, Counters>,
    origins: Mapped<[AtomicU64; 5]>,
    bases: Table<u32, Counters>,
    reasons: PerCpuTable<u32, u64>,
    local4: Table<[u16; 2], u32>,
    local6: Table<[u16; 8], u32>,
    local_nets4: Table<Net4, u32>,
    local_nets6: Table<Net6, u32>,
    sources4: Table<Source4, u32>,
    sources6: Table<Source6, u32>,
    notes: Table<Noted, Note>,
    known4: Table<Place4, Known>,
    known6: Table<Place6, Known>,
    links: Table<u32, [u32; 24]>,
    settings: Table<u32, [u32; 64]>,
    sieve: Mapped<[AtomicU8; sieve::SLOTS]>,
    mark_rules: Table<u32, MarkRule>,
    pins4: Table<Key4, Conn4>,
    pins6: Table<Key6, Conn6>,
    candidates: Mapped<[AtomicU64; 6]>,
    lessons: Mapped<[AtomicU64; 12]>,
    /// Expire, and learn if that is loaded.
    steps: Option<(Step, Option<Step>)>,
    clock: Clock,
}

/// Opens every map by two functions of whoever has them.
macro_rules! open {
    ($from:expr, $table:ident, $mapped:ident, $per_cpu:ident, $steps:expr) => {
        Ok(KernelStore {
            conns4: $from.$table(map::CONNS4)?,
            conns6: $from.$table(map::CONNS6)?,
            services4: $from.$table(map::SERVICES4)?,
            services6: $from.$table(map::SERVICES6)?,
            services: $from.$mapped(map::SERVICES)?,
            servers: $from.$mapped(map::SERVERS)?,
            slots: $from.$mapped(map::SLOTS)?,
            next_hops: $from.$mapped(map::NEXT_HOPS)?,
            counters: $from.$per_cpu(map::COUNTERS)?,
            origins: $from.$mapped(map::ORIGINS)?,
            bases: $from.$table(map::BASES)?,
            reasons: $from.$per_cpu(map::REASONS)?,
            local4: $from.$table(map::LOCAL4)?,
            local6: $from.$table(map::LOCAL6)?,
            local_nets4: $from.$table(map::LOCAL_NETS4)?,
            local_nets6: $from.$table(map::LOCAL_NETS6)?,
            sources4: $from.$table(map::SOURCES4)?,
            sources6: $from.$table(map::SOURCES6)?,
            notes: $from.$table(map::NOTES)?,
            known4: $from.$table(map::KNOWN4)?,
            known6: $from.$table(map::KNOWN6)?,
            links: $from.$table(map::LINKS)?,
            settings: $from.$table(map::SETTINGS)?,
            sieve: $from.$mapped(map::SIEVE)?,
            mark_rules: $from.$table(map::MARK_RULES)?,
            pins4: $from.$table(map::PINS4)?,
            pins6: $from.$table(map::PINS6)?,
            candidates: $from.$mapped(map::CANDIDATES)?,
            lessons: $from.$mapped(map::LESSONS)?,
            steps: $steps,
            clock: Clock::of_this_machine(),
        })
    };
}

impl KernelStore {
    /// The maps of a director that is loaded.
    pub fn new(kernel: &Kernel) -> Result<Self, Error> {
        open!(
            kernel,
            table,
            mapped,
            per_cpu_table,
            Some((
                kernel.step("dirigent_expire")?,
                kernel.has(Features::SYNC).then(|| kernel.step(names::LEARN)).transpose()?,
            ))
        )
    }
    /// The pinned maps of a director, to be read: nothing can be expired or learned by it.
    pub fn open(instance: &Instance) -> Result<Self, Error> {
        open!(instance, open_table, open_mapped, open_per_cpu_table, None)
    }

    fn service_words(&self, index: u32) -> Result<&[AtomicU64; 8], Error> {
        self.services.get(index).ok_or(Error::NoEntry { table: map::SERVICES, index })
    }
    fn server_words(&self, index: u32) -> Result<&[AtomicU64; 8], Error> {
        self.servers.get(index).ok_or(Error::NoEntry { table: map::SERVERS, index })
    }
    fn hop_words(&self, index: u32) -> Result<&[AtomicU32; 16], Error> {
        self.next_hops.get(index).ok_or(Error::NoEntry { table: map::NEXT_HOPS, index })
    }

    /// Shows some entries, about so many, and says where to go on; nothing at the end. A table that
    /// changes meanwhile may show some twice.
    pub fn page(&self, from: Page, at_most: usize, see: &mut dyn FnMut(Entry)) -> Result<Option<Page>, Error> {
        let Page { v6, cursor } = from;
        if v6 {
            let mut walk = self.conns6.walk_on(cursor, at_most);
            walk.next_chunk(|key, conn| see(shapes::entry6(&key, &conn)))?;
            return Ok(walk.cursor().map(|cursor| Page { v6, cursor }));
        }
        let mut walk = self.conns4.walk_on(cursor, at_most);
        walk.next_chunk(|key, conn| see(shapes::entry4(&key, &conn)))?;
        let on = walk.cursor().map(|cursor| Page { v6, cursor });
        Ok(Some(on.unwrap_or(Page { v6: true, cursor: Cursor::default() })))
    }

    /// Has the packet path expire those of these entries that are due.
    fn expire(&self, suspects: &[(Flow, Due)], out: &mut Expired) -> Result<(), Error> {
        let Some((step, _)) = &self.steps else { return Ok(()) };
        for chunk in suspects.chunks(CANDIDATES as usize) {
            let _turn = step.turn();
            for (place, (flow, due)) in (0..).zip(chunk) {
                let no_entry = Error::NoEntry { table: map::CANDIDATES, index: place };
                let words = self.candidates.get(place).ok_or(no_entry)?;
                let [head @ .., last] = words;
                for (to, word) in head.iter().zip(words_of_key(flow)) {
                    to.store(word, Ordering::Relaxed);
                }
                let family = if flow.src.is_ipv6() { candidate::IPV6 } else { 0 };
                let how = match due {
                    Due::Not | Due::IfIdle => 0,
                    Due::AtOnce => candidate::AT_ONCE,
                    Due::Reset => candidate::RESET,
                };
                last.store(pair(family | how, 0), Ordering::Release);
            }
            step.run(chunk.len() as u32)?;
            for place in 0..chunk.len() as u32 {
                let result = self.candidates.get(place).map(|[.., last]| halves(last.load(Ordering::Acquire)).1);
                match result {
                    Some(1) => out.gone += 1,
                    Some(2) => out.alive += 1,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Counters are read in batches unless more than so many places were read for one that is used.
const SPARSE: usize = 8;

/// What all CPUs have counted.
fn sum(each: impl Iterator<Item = Counters>) -> Counters {
    each.fold(Counters::default(), Counters::plus)
}

/// Adds or removes an entry of a hash map.
fn set<K, V>(table: &Table<K, V>, key: K, value: Option<V>) -> Result<(), Error>
where
    K: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable,
    V: zerocopy::IntoBytes + zerocopy::FromBytes,
{
    match value {
        Some(value) => table.insert(key, value)?,
        None => _ = table.remove(&key)?,
    }
    Ok(())
}

/// The low half of a word.
const LOW: u64 = 0xffff_ffff;

impl Store for KernelStore {
    fn room(&self) -> Room {
        Room {
            services: self.services.len() as u32,
            servers: self.servers.len() as u32,
            slots: self.slots.len() as u32,
        }
    }
    fn hz(&self) -> u32 {
        self.clock.hz()
    }
    fn now(&self) -> u32 {
        let offset = self.settings().map_or(0, |s| s.clock_offset);
        self.clock.now().wrapping_add(offset)
    }

    fn settings(&self) -> Result<Settings, Error> {
        Ok(shapes::settings(&self.settings.get(&0)?.unwrap_or([0; 64])))
    }
    fn put_settings(&mut self, settings: &Settings) -> Result<(), Error> {
        Ok(self.settings.insert(0, shapes::settings_words(settings))?)
    }

    fn places(&self) -> Result<Vec<(Spot, u32)>, Error> {
        let four = self.services4.entries()?.into_iter().map(|(key, index)| (shapes::spot4(&key), index));
        let six = self.services6.entries()?.into_iter().map(|(key, index)| (shapes::spot6(&key), index));
        Ok(four.chain(six).filter(|(spot, _)| !spot.is_whole()).collect())
    }
    fn set_place(&mut self, spot: &Spot, index: Option<u32>) -> Result<(), Error> {
        match spot.address {
            IpAddr::V4(a) => set(&self.services4, shapes::place4(spot, a), index),
            IpAddr::V6(a) => set(&self.services6, shapes::place6(spot, a), index),
        }
    }
    fn service(&self, index: u32) -> Result<Service, Error> {
        let [list, cursor, kind, wrr, table, persistence, place, joint] = self.service_words(index)?;
        let read = |word: &AtomicU64| halves(word.load(Ordering::Acquire));
        let ((scheduler, flags), (wrr_max, wrr_step)) = (read(kind), read(wrr));
        let ((persistence, mask), (mark, port)) = (read(persistence), read(place));
        Ok(Service {
            list: S64::new(list.load(Ordering::Acquire)),
            cursor: S64::new(cursor.load(Ordering::Acquire)),
            scheduler,
            flags,
            wrr_max,
            wrr_step,
            table: S64::new(table.load(Ordering::Acquire)),
            persistence,
            mask,
            mark,
            port: shapes::port_of(port),
            zero: 0,
            joint: S64::new(joint.load(Ordering::Acquire)),
        })
    }
    fn put_service_rules(&mut self, index: u32, s: &Service) -> Result<(), Error> {
        let [_, _, kind, wrr, table, persistence, place, joint] = self.service_words(index)?;
        persistence.store(pair(s.persistence, s.mask), Ordering::Release);
        place.store(pair(s.mark, shapes::word_of(s.port)), Ordering::Release);
        // Its other half is the packet path's.
        let halves = |word| Some(s.joint.load() & !LOW | word & LOW);
        let _ = joint.fetch_update(Ordering::AcqRel, Ordering::Acquire, halves);
        // What a scheduler needs stands before it is chosen, and goes after it was.
        let choose = || kind.store(pair(s.scheduler, s.flags), Ordering::Release);
        wrr.store(pair(s.wrr_max, s.wrr_step), Ordering::Release);
        if s.table().1 == 0 {
            choose();
        }
        table.store(s.table.load(), Ordering::Release);
        choose();
        Ok(())
    }
    fn set_list(&mut self, index: u32, list: u64) -> Result<(), Error> {
        let [word, ..] = self.service_words(index)?;
        word.store(list, Ordering::Release);
        Ok(())
    }
    fn swap_cursor(&mut self, index: u32, old: u64, new: u64) -> Result<bool, Error> {
        let [_, cursor, ..] = self.service_words(index)?;
        Ok(cursor.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }

    fn server(&self, index: u32) -> Result<Server, Error> {
        let words = self.server_words(index)?.each_ref().map(|word| word.load(Ordering::Acquire));
        Ok(shapes::server(words))
    }
    fn used_servers(&self) -> Result<Vec<u32>, Error> {
        // There is room for many: of each only the word is read that has the method, behind port.
        let mut used = Vec::new();
        for index in 0..self.servers.len() as u32 {
            let [_, _, _, _, word, ..] = self.server_words(index)?;
            let [_, _, method, ..] = word.load(Ordering::Acquire).to_ne_bytes();
            if method != 0 {
                used.push(index);
            }
        }
        Ok(used)
    }
    fn put_server(&mut self, index: u32, server: &Server) -> Result<(), Error> {
        let [_, _, rest @ ..] = self.server_words(index)?;
        let [_, _, words @ ..] = shapes::server_words(server);
        for (to, word) in rest.iter().zip(words) {
            to.store(word, Ordering::Release);
        }
        Ok(())
    }
    fn next_hop(&self, index: u32) -> Result<NextHop, Error> {
        let words = self.hop_words(index)?.each_ref().map(|word| word.load(Ordering::Acquire));
        Ok(shapes::next_hop(words))
    }
    fn put_next_hop(&mut self, index: u32, next: &NextHop) -> Result<(), Error> {
        let words = self.hop_words(index)?;
        let new = shapes::hop_words(next);
        if words.each_ref().map(|word| word.load(Ordering::Acquire)) == new {
            return Ok(());
        }
        let ([state, fields @ ..], [new_state, new_fields @ ..]) = (words, new);
        if fields.each_ref().map(|word| word.load(Ordering::Acquire)) != new_fields {
            // While the MACs change the kernel finds the neighbour.
            if matches!(state.load(Ordering::Acquire), hop::RESOLVED | hop::REMOVED) {
                state.store(hop::NO_NEIGHBOUR, Ordering::SeqCst);
            }
            for (to, word) in fields.iter().zip(new_fields) {
                to.store(word, Ordering::SeqCst);
            }
        }
        state.store(new_state, Ordering::SeqCst);
        Ok(())
    }
    fn counters(&self, index: u32) -> Result<Counters, Error> {
        Ok(sum(self.counters.get(&index)?.unwrap_or_default().into_iter()))
    }
    fn counted_of(&self, servers: &[u32]) -> Result<Vec<Counters>, Error> {
        let end = servers.last().map_or(0, |last| *last as usize + 1);
        if servers.len() * SPARSE < end {
            return servers.iter().map(|index| self.counted(*index)).collect();
        }
        // One by one, a call each, a million servers would keep a CPU busy all the time.
        let mut raw = Vec::with_capacity(end);
        self.counters.first(end, |each| raw.push(sum(each)))?;
        let one = |index: &u32| {
            let raw = raw.get(*index as usize).ok_or(Error::NoEntry { table: map::COUNTERS, index: *index })?;
            Ok(raw.since(self.origin(*index)?))
        };
        servers.iter().map(one).collect()
    }
    fn zero_counters(&mut self, index: u32) -> Result<(), Error> {
        Ok(self.counters.set_all(index, Counters::default())?)
    }
    fn origin(&self, index: u32) -> Result<Counters, Error> {
        let words = self.origins.get(index).ok_or(Error::NoEntry { table: map::ORIGINS, index })?;
        Ok(shapes::counters(words.each_ref().map(|word| word.load(Ordering::Acquire))))
    }
    fn put_origin(&mut self, index: u32, origin: &Counters) -> Result<(), Error> {
        let words = self.origins.get(index).ok_or(Error::NoEntry { table: map::ORIGINS, index })?;
        for (to, word) in words.iter().zip(shapes::counter_words(origin)) {
            to.store(word, Ordering::Release);
        }
        Ok(())
    }
    fn base(&self, index: u32) -> Result<Counters, Error> {
        self.bases.get(&index)?.ok_or(Error::NoEntry { table: map::BASES, index })
    }
    fn put_base(&mut self, index: u32, base: &Counters) -> Result<(), Error> {
        set(&self.bases, index, Some(*base))
    }

    fn slots(&self, base: u32, len: u32) -> Result<Vec<u32>, Error> {
        let slot = |index| self.slots.get(index).ok_or(Error::NoEntry { table: map::SLOTS, index });
        (base..base.saturating_add(len)).map(|index| Ok(slot(index)?.load(Ordering::Acquire))).collect()
    }
    fn put_slots(&mut self, base: u32, slots: &[u32]) -> Result<(), Error> {
        for (index, slot) in (base..).zip(slots) {
            let place = self.slots.get(index).ok_or(Error::NoEntry { table: map::SLOTS, index })?;
            place.store(*slot, Ordering::Release);
        }
        Ok(())
    }

    fn notes(&self) -> Result<Vec<(Noted, Note)>, Error> {
        Ok(self.notes.entries()?)
    }
    fn forget_note(&mut self, of: &Noted) -> Result<(), Error> {
        set(&self.notes, *of, None)
    }

    fn add_to_sieve(&mut self, address: IpAddr, bits: u8) -> Result<(), Error> {
        let slot = self.sieve.get(0).and_then(|all| all.get(usize::from(slot(address))));
        slot.ok_or(Error::NoEntry { table: map::SIEVE, index: 0 })?.fetch_or(bits, Ordering::AcqRel);
        Ok(())
    }

    fn open_sieve(&mut self) -> Result<(), Error> {
        let all = self.sieve.get(0).ok_or(Error::NoEntry { table: map::SIEVE, index: 0 })?;
        all.iter().for_each(|bits| bits.store(u8::MAX, Ordering::Release));
        Ok(())
    }

    fn known(&self) -> Result<Vec<(Spot, Known)>, Error> {
        let four = self.known4.entries()?.into_iter().map(|(key, known)| (shapes::spot4(&key), known));
        let six = self.known6.entries()?.into_iter().map(|(key, known)| (shapes::spot6(&key), known));
        Ok(four.chain(six).collect())
    }
    fn set_known(&mut self, spot: &Spot, known: Option<Known>) -> Result<(), Error> {
        match spot.address {
            IpAddr::V4(a) => set(&self.known4, shapes::place4(spot, a), known),
            IpAddr::V6(a) => set(&self.known6, shapes::place6(spot, a), known),
        }
    }
    fn locals(&self) -> Result<Vec<IpAddr>, Error> {
        let four = self.local4.entries()?.into_iter().map(|(key, _)| shapes::address4(key));
        let six = self.local6.entries()?.into_iter().map(|(key, _)| shapes::address6(key));
        Ok(four.chain(six).collect())
    }
    fn set_local(&mut self, address: IpAddr, present: bool) -> Result<(), Error> {
        let value = present.then_some(1);
        match address {
            IpAddr::V4(a) => set(&self.local4, shapes::words4(a), value),
            IpAddr::V6(a) => set(&self.local6, shapes::words6(a), value),
        }
    }
    fn local_nets(&self) -> Result<Vec<LocalNet>, Error> {
        let net = |(address, length), bits| LocalNet { address, length, marked: bits & local_net::ALWAYS == 0 };
        let four = self.local_nets4.entries()?.into_iter().map(|(key, bits)| net(shapes::of_net4(&key), bits));
        let six = self.local_nets6.entries()?.into_iter().map(|(key, bits)| net(shapes::of_net6(&key), bits));
        Ok(four.chain(six).collect())
    }
    fn set_local_net(&mut self, net: &LocalNet, present: bool) -> Result<(), Error> {
        let bits = local_net::BY_MARK | if net.marked { 0 } else { local_net::ALWAYS };
        match net.address {
            IpAddr::V4(a) => set(&self.local_nets4, shapes::net4(a, net.length), present.then_some(bits)),
            IpAddr::V6(a) => set(&self.local_nets6, shapes::net6(a, net.length), present.then_some(bits)),
        }
    }
    fn sources(&self) -> Result<Vec<(SourceNet, bool)>, Error> {
        let four = self.sources4.entries()?.into_iter().map(|(key, may)| (shapes::of_source4(&key), may != 0));
        let six = self.sources6.entries()?.into_iter().map(|(key, may)| (shapes::of_source6(&key), may != 0));
        Ok(four.chain(six).collect())
    }
    fn set_source(&mut self, net: &SourceNet, may: Option<bool>) -> Result<(), Error> {
        let (service, length, may) = (net.service, net.length, may.map(u32::from));
        match net.address {
            IpAddr::V4(a) => set(&self.sources4, shapes::source4(service, a, length), may),
            IpAddr::V6(a) => set(&self.sources6, shapes::source6(service, a, length), may),
        }
    }
    fn mark_rules(&self, base: u32, len: u32) -> Result<Vec<MarkRule>, Error> {
        let rule = |index| Ok(self.mark_rules.get(&index)?.unwrap_or_default());
        (base..base.saturating_add(len)).map(rule).collect()
    }
    fn put_mark_rules(&mut self, base: u32, rules: &[MarkRule]) -> Result<(), Error> {
        Ok(self.mark_rules.insert_all((base..).zip(rules.iter().copied()))?)
    }
    fn links(&self) -> Result<Vec<(u32, Link)>, Error> {
        let all = self.links.entries()?.into_iter().map(|(ifindex, words)| (ifindex, shapes::link(&words)));
        Ok(all.filter(|(_, link)| link.used != 0).collect())
    }
    fn put_link(&mut self, ifindex: u32, link: &Link) -> Result<(), Error> {
        Ok(self.links.insert(ifindex, shapes::link_words(link))?)
    }
    fn add_pin4(&mut self, (key, conn): &Pin<V4>) -> Result<bool, Error> {
        let Some(key) = shapes::key4(&Flow::of4(key)) else { return Ok(false) };
        Ok(self.pins4.insert_new(key, shapes::pin4(conn))?)
    }
    fn add_pin6(&mut self, (key, conn): &Pin<V6>) -> Result<bool, Error> {
        let Some(key) = shapes::key6(&Flow::of6(key)) else { return Ok(false) };
        Ok(self.pins6.insert_new(key, shapes::pin6(conn))?)
    }
    fn remove_pin(&mut self, flow: &Flow) -> Result<(), Error> {
        if let Some(key) = shapes::key4(flow) {
            self.pins4.remove(&key)?;
        } else if let Some(key) = shapes::key6(flow) {
            self.pins6.remove(&key)?;
        }
        Ok(())
    }
    fn pins(&self) -> Result<Vec<(Flow, u32)>, Error> {
        let of = |entry: Entry| (entry.flow, entry.server);
        let four = self.pins4.entries()?.into_iter().map(|(key, pin)| of(shapes::entry4(&key, &pin)));
        let six = self.pins6.entries()?.into_iter().map(|(key, pin)| of(shapes::entry6(&key, &pin)));
        Ok(four.chain(six).collect())
    }
    fn reasons(&self) -> Result<Vec<u64>, Error> {
        let count = |reason: u32| Ok(self.reasons.get(&reason)?.unwrap_or_default().into_iter().sum());
        (0..Reason::ALL.len() as u32).map(count).collect()
    }

    fn place(&self, spot: &Spot) -> Result<Option<u32>, Error> {
        Ok(match spot.address {
            IpAddr::V4(a) => self.services4.get(&shapes::place4(spot, a))?,
            IpAddr::V6(a) => self.services6.get(&shapes::place6(spot, a))?,
        })
    }
    fn learn(&mut self, lessons: &mut [Lesson]) -> Result<(), Error> {
        let Some((_, step)) = &self.steps else { return Ok(()) };
        let missing = || kernel::Error::Program { program: names::LEARN.to_owned(), kind: "XDP" };
        let step = step.as_ref().ok_or_else(missing)?;
        for chunk in lessons.chunks_mut(LESSONS as usize) {
            let _turn = step.turn();
            let place = |index| self.lessons.get(index).ok_or(Error::NoEntry { table: map::LESSONS, index });
            for (index, lesson) in (0..).zip(&*chunk) {
                for (to, word) in place(index)?.iter().zip(shapes::lesson_words(lesson)) {
                    to.store(word, Ordering::Release);
                }
            }
            step.run(chunk.len() as u32)?;
            for (index, lesson) in (0..).zip(chunk) {
                let [_, _, _, _, _, result, ..] = place(index)?;
                lesson.result = halves(result.load(Ordering::Acquire)).1;
            }
        }
        Ok(())
    }

    fn entry(&self, flow: &Flow) -> Result<Option<Entry>, Error> {
        if let Some(key) = shapes::key4(flow) {
            return Ok(self.conns4.get(&key)?.map(|conn| shapes::entry4(&key, &conn)));
        }
        let Some(key) = shapes::key6(flow) else { return Ok(None) };
        Ok(self.conns6.get(&key)?.map(|conn| shapes::entry6(&key, &conn)))
    }
    fn walk(&self, v6: bool, see: &mut dyn FnMut(Entry)) -> Result<(), Error> {
        if v6 {
            let mut walk = self.conns6.walk(CHUNK);
            while walk.next_chunk(|key, conn| see(shapes::entry6(&key, &conn)))? {}
        } else {
            let mut walk = self.conns4.walk(CHUNK);
            while walk.next_chunk(|key, conn| see(shapes::entry4(&key, &conn)))? {}
        }
        Ok(())
    }
    fn sweep(
        &mut self,
        due: &mut dyn FnMut(&Self, &Entry) -> Result<Due, Error>,
        pause: &mut dyn FnMut(),
    ) -> Result<Expired, Error> {
        let mut out = Expired::default();
        let mut suspects = Vec::new();
        let mut failed = Ok(());
        let mut note = |entry: Entry, suspects: &mut Vec<(Flow, Due)>| match due(self, &entry) {
            Ok(Due::Not) => {}
            Ok(due) => suspects.push((entry.flow, due)),
            Err(error) => failed = Err(error),
        };
        let mut walk = self.conns4.walk(CHUNK);
        while walk.next_chunk(|key, conn| note(shapes::entry4(&key, &conn), &mut suspects))? {
            self.expire(&suspects, &mut out)?;
            suspects.clear();
            pause();
        }
        let mut walk = self.conns6.walk(CHUNK);
        while walk.next_chunk(|key, conn| note(shapes::entry6(&key, &conn), &mut suspects))? {
            self.expire(&suspects, &mut out)?;
            suspects.clear();
            pause();
        }
        failed?;
        Ok(out)
    }
}
