//! The tables in memory as a [`Store`].

use std::collections::HashMap;
use std::net::IpAddr;

use dirigent_director::conn::{self, Expiry};
use dirigent_director::family::{Address, Family, V4, V6};
use dirigent_director::probe::Pin;
use dirigent_director::records::{
    Conn, Counters, Known, Lesson, Link, MarkRule, NextHop, Note, Noted, Server, Service, Settings, Tuple,
};
use dirigent_director::reset;
use dirigent_director::shared::S64;
use dirigent_director::sync::learn::{self, Room};
use dirigent_director::tables::Tables as _;
use dirigent_director::verdict::Reason;
use dirigent_wire::{Addr4, Addr6};

use super::Error;
use super::store::{self, Due, Entry, Expired, Store};
use crate::keys::{Flow, Spot, address, slot};
use crate::memory::{LocalNet, MemoryTables, SourceNet};

/// Ticks a second, as most kernels have.
const HZ: u32 = 250;

fn entry<A: Address>(flow: Flow, conn: &Conn<A>) -> Entry {
    Entry {
        address: address(&conn.addr.to_words(), flow.src.is_ipv6()),
        flow,
        word: conn.word.load(),
        link: conn.link.load(),
        last_seen: conn.last_seen.load(),
        packets: conn.packets.load(),
        server: conn.server,
        service: conn.service,
        port: conn.port.get(),
        kind: conn.kind,
        flags: conn.flags,
        mark: conn.mark,
        mask: conn.mask,
        template: conn.template.load(),
        timeout: conn.timeout.load(),
        extra: conn.extra.load(),
    }
}

fn at<'t, T>(table: &'static str, list: &'t [T], index: u32) -> Result<&'t T, Error> {
    list.get(index as usize).ok_or(Error::NoEntry { table, index })
}

fn at_mut<'t, T>(table: &'static str, list: &'t mut [T], index: u32) -> Result<&'t mut T, Error> {
    list.get_mut(index as usize).ok_or(Error::NoEntry { table, index })
}

/// Part of a table.
fn range<T>(table: &'static str, slots: &[T], base: u32, len: usize) -> Result<std::ops::Range<usize>, Error> {
    let base = base as usize;
    match base.checked_add(len) {
        Some(end) if end <= slots.len() => Ok(base..end),
        _ => Err(Error::NoEntry { table, index: u32::MAX }),
    }
}

impl MemoryTables {
    /// The connections and templates that other directors are to be told of since the last call.
    pub fn news(&mut self) -> Vec<Flow> {
        let four = self.news4.get_mut().drain(..).map(|key| Flow::of4(&key)).collect::<Vec<_>>();
        four.into_iter().chain(self.news6.get_mut().drain(..).map(|key| Flow::of6(&key))).collect()
    }
    fn expire_all<F: Family>(&mut self, suspects: Vec<(Tuple<F::Addr>, Due)>, out: &mut Expired) {
        for (key, due) in suspects.into_iter().filter(|(_, due)| *due != Due::Not) {
            let outcome = match due {
                Due::Reset => reset::begin::<F, Self>(self, &key),
                _ => conn::expire::<F, Self>(self, &key, due == Due::AtOnce),
            };
            match outcome {
                Expiry::Gone => out.gone += 1,
                Expiry::Alive => out.alive += 1,
                Expiry::Absent => {}
            }
        }
    }
}

/// Adds an entry if there is none with its key.
fn add<A: Address + Eq + std::hash::Hash>(
    pins: &mut HashMap<Tuple<A>, Conn<A>>,
    key: &Tuple<A>,
    conn: &Conn<A>,
) -> bool {
    let free = !pins.contains_key(key);
    if free {
        pins.insert(*key, conn.clone());
    }
    free
}

impl Store for MemoryTables {
    fn room(&self) -> store::Room {
        store::Room {
            services: self.services.len() as u32,
            servers: self.servers.len() as u32,
            slots: self.slots.len() as u32,
        }
    }
    fn hz(&self) -> u32 {
        HZ
    }
    fn now(&self) -> u32 {
        dirigent_director::tables::Tables::now(self)
    }
    fn settings(&self) -> Result<Settings, Error> {
        Ok(self.settings.clone().unwrap_or(Settings { version: 0, ..Settings::default() }))
    }
    fn put_settings(&mut self, settings: &Settings) -> Result<(), Error> {
        self.written += 1;
        self.settings = Some(settings.clone());
        Ok(())
    }

    fn places(&self) -> Result<Vec<(Spot, u32)>, Error> {
        let four = self.services4.iter().map(|(place, index)| (Spot::of4(place), *index));
        let six = self.services6.iter().map(|(place, index)| (Spot::of6(place), *index));
        Ok(four.chain(six).filter(|(spot, _)| !spot.is_whole()).collect())
    }
    fn set_place(&mut self, spot: &Spot, index: Option<u32>) -> Result<(), Error> {
        self.written += 1;
        match (spot.address, index) {
            (IpAddr::V4(a), Some(index)) => _ = self.services4.insert(spot.place4(a), index),
            (IpAddr::V6(a), Some(index)) => _ = self.services6.insert(spot.place6(a), index),
            (IpAddr::V4(a), None) => _ = self.services4.remove(&spot.place4(a)),
            (IpAddr::V6(a), None) => _ = self.services6.remove(&spot.place6(a)),
        }
        Ok(())
    }
    fn service(&self, index: u32) -> Result<Service, Error> {
        at("SERVICES", &self.services, index).cloned()
    }
    fn put_service_rules(&mut self, index: u32, service: &Service) -> Result<(), Error> {
        self.written += 1;
        let old = at_mut("SERVICES", &mut self.services, index)?;
        let joint = S64::new(service.joint.load() >> 32 << 32 | u64::from(old.joint.load() as u32));
        *old = Service { list: old.list.clone(), cursor: old.cursor.clone(), joint, ..service.clone() };
        Ok(())
    }
    fn set_list(&mut self, index: u32, list: u64) -> Result<(), Error> {
        self.written += 1;
        at("SERVICES", &self.services, index)?.list.store(list);
        Ok(())
    }
    fn swap_cursor(&mut self, index: u32, old: u64, new: u64) -> Result<bool, Error> {
        self.written += 1;
        Ok(at("SERVICES", &self.services, index)?.cursor.swap_if(old, new))
    }

    fn server(&self, index: u32) -> Result<Server, Error> {
        at("SERVERS", &self.servers, index).cloned()
    }
    fn used_servers(&self) -> Result<Vec<u32>, Error> {
        Ok((0..).zip(&self.servers).filter(|(_, server)| server.method != 0).map(|(index, _)| index).collect())
    }
    fn put_server(&mut self, index: u32, server: &Server) -> Result<(), Error> {
        self.written += 1;
        let old = at_mut("SERVERS", &mut self.servers, index)?;
        *old = Server { load: old.load.clone(), persistent: old.persistent.clone(), ..server.clone() };
        Ok(())
    }
    fn next_hop(&self, index: u32) -> Result<NextHop, Error> {
        at("NEXT_HOPS", &self.next_hops, index).cloned()
    }
    fn put_next_hop(&mut self, index: u32, hop: &NextHop) -> Result<(), Error> {
        self.written += 1;
        *at_mut("NEXT_HOPS", &mut self.next_hops, index)? = hop.clone();
        Ok(())
    }
    fn counters(&self, index: u32) -> Result<Counters, Error> {
        Ok(MemoryTables::counters(self, index))
    }
    fn zero_counters(&mut self, index: u32) -> Result<(), Error> {
        self.written += 1;
        MemoryTables::zero_counters(self, index);
        Ok(())
    }
    fn origin(&self, index: u32) -> Result<Counters, Error> {
        at("ORIGINS", &self.origins, index).copied()
    }
    fn put_origin(&mut self, index: u32, origin: &Counters) -> Result<(), Error> {
        self.written += 1;
        *at_mut("ORIGINS", &mut self.origins, index)? = *origin;
        Ok(())
    }
    fn base(&self, index: u32) -> Result<Counters, Error> {
        at("BASES", &self.bases, index).copied()
    }
    fn put_base(&mut self, index: u32, base: &Counters) -> Result<(), Error> {
        self.written += 1;
        *at_mut("BASES", &mut self.bases, index)? = *base;
        Ok(())
    }

    fn slots(&self, base: u32, len: u32) -> Result<Vec<u32>, Error> {
        let range = range("SLOTS", &self.slots, base, len as usize)?;
        Ok(self.slots.get(range).unwrap_or_default().to_vec())
    }
    fn put_slots(&mut self, base: u32, slots: &[u32]) -> Result<(), Error> {
        self.written += slots.len() as u64;
        let range = range("SLOTS", &self.slots, base, slots.len())?;
        if let Some(place) = self.slots.get_mut(range) {
            place.copy_from_slice(slots);
        }
        Ok(())
    }

    fn notes(&self) -> Result<Vec<(Noted, Note)>, Error> {
        Ok(self.notes.borrow().iter().map(|(of, note)| (*of, *note)).collect())
    }
    fn forget_note(&mut self, of: &Noted) -> Result<(), Error> {
        self.notes.get_mut().remove(of);
        Ok(())
    }

    fn add_to_sieve(&mut self, address: IpAddr, bits: u8) -> Result<(), Error> {
        self.written += 1;
        if let Some(slot) = self.sieve.get_mut(usize::from(slot(address))) {
            *slot |= bits;
        }
        Ok(())
    }

    fn open_sieve(&mut self) -> Result<(), Error> {
        self.written += 1;
        self.sieve.fill(u8::MAX);
        Ok(())
    }

    fn known(&self) -> Result<Vec<(Spot, Known)>, Error> {
        let four = self.known4.iter().map(|(place, known)| (Spot::of4(place), *known));
        Ok(four.chain(self.known6.iter().map(|(place, known)| (Spot::of6(place), *known))).collect())
    }
    fn set_known(&mut self, spot: &Spot, known: Option<Known>) -> Result<(), Error> {
        self.written += 1;
        match (spot.address, known) {
            (IpAddr::V4(a), Some(known)) => _ = self.known4.insert(spot.place4(a), known),
            (IpAddr::V6(a), Some(known)) => _ = self.known6.insert(spot.place6(a), known),
            (IpAddr::V4(a), None) => _ = self.known4.remove(&spot.place4(a)),
            (IpAddr::V6(a), None) => _ = self.known6.remove(&spot.place6(a)),
        }
        Ok(())
    }
    fn locals(&self) -> Result<Vec<IpAddr>, Error> {
        let four = self.local4.iter().map(|a| IpAddr::from(a.bytes()));
        Ok(four.chain(self.local6.iter().map(|a| IpAddr::from(a.bytes()))).collect())
    }
    fn set_local(&mut self, address: IpAddr, present: bool) -> Result<(), Error> {
        self.written += 1;
        match (address, present) {
            (IpAddr::V4(a), true) => self.local4.insert(Addr4::new(a.octets())),
            (IpAddr::V6(a), true) => self.local6.insert(Addr6::new(a.octets())),
            (IpAddr::V4(a), false) => self.local4.remove(&Addr4::new(a.octets())),
            (IpAddr::V6(a), false) => self.local6.remove(&Addr6::new(a.octets())),
        };
        Ok(())
    }
    fn local_nets(&self) -> Result<Vec<LocalNet>, Error> {
        Ok(self.local_nets.iter().copied().collect())
    }
    fn set_local_net(&mut self, net: &LocalNet, present: bool) -> Result<(), Error> {
        self.written += 1;
        match present {
            true => self.local_nets.insert(*net),
            false => self.local_nets.remove(net),
        };
        Ok(())
    }
    fn sources(&self) -> Result<Vec<(SourceNet, bool)>, Error> {
        Ok(self.sources.iter().map(|(net, may)| (*net, *may)).collect())
    }
    fn set_source(&mut self, net: &SourceNet, may: Option<bool>) -> Result<(), Error> {
        self.written += 1;
        match may {
            Some(may) => self.sources.insert(*net, may),
            None => self.sources.remove(net),
        };
        Ok(())
    }
    fn mark_rules(&self, base: u32, len: u32) -> Result<Vec<MarkRule>, Error> {
        let range = range("MARK_RULES", &self.mark_rules, base, len as usize)?;
        Ok(self.mark_rules.get(range).unwrap_or_default().to_vec())
    }
    fn put_mark_rules(&mut self, base: u32, rules: &[MarkRule]) -> Result<(), Error> {
        self.written += 1;
        let range = range("MARK_RULES", &self.mark_rules, base, rules.len())?;
        if let Some(place) = self.mark_rules.get_mut(range) {
            place.copy_from_slice(rules);
        }
        Ok(())
    }
    fn links(&self) -> Result<Vec<(u32, Link)>, Error> {
        let used = self.links.iter().filter(|(_, link)| link.used != 0);
        Ok(used.map(|(ifindex, link)| (*ifindex, link.clone())).collect())
    }
    fn put_link(&mut self, ifindex: u32, link: &Link) -> Result<(), Error> {
        self.written += 1;
        self.links.insert(ifindex, link.clone());
        Ok(())
    }
    fn add_pin4(&mut self, (key, conn): &Pin<V4>) -> Result<bool, Error> {
        Ok(add(&mut self.pins4, key, conn))
    }
    fn add_pin6(&mut self, (key, conn): &Pin<V6>) -> Result<bool, Error> {
        Ok(add(&mut self.pins6, key, conn))
    }
    fn remove_pin(&mut self, flow: &Flow) -> Result<(), Error> {
        flow.tuple4().iter().for_each(|key| _ = self.pins4.remove(key));
        flow.tuple6().iter().for_each(|key| _ = self.pins6.remove(key));
        Ok(())
    }
    fn pins(&self) -> Result<Vec<(Flow, u32)>, Error> {
        let four = self.pins4.iter().map(|(key, conn)| (Flow::of4(key), conn.server));
        Ok(four.chain(self.pins6.iter().map(|(key, conn)| (Flow::of6(key), conn.server))).collect())
    }
    fn reasons(&self) -> Result<Vec<u64>, Error> {
        Ok(Reason::ALL.iter().map(|reason| self.reason(*reason)).collect())
    }

    fn place(&self, spot: &Spot) -> Result<Option<u32>, Error> {
        Ok(match spot.address {
            IpAddr::V4(a) => self.services4.get(&spot.place4(a)).copied(),
            IpAddr::V6(a) => self.services6.get(&spot.place6(a)).copied(),
        })
    }
    fn learn(&mut self, lessons: &mut [Lesson]) -> Result<(), Error> {
        let (mut four, mut six) = (Room::<V4>::default(), Room::<V6>::default());
        lessons.iter_mut().for_each(|lesson| learn::learn(self, lesson, &mut four, &mut six));
        Ok(())
    }

    fn entry(&self, flow: &Flow) -> Result<Option<Entry>, Error> {
        let four = flow.tuple4().and_then(|key| self.conn4(&key).map(|conn| entry(*flow, conn)));
        Ok(four.or_else(|| flow.tuple6().and_then(|key| self.conn6(&key).map(|conn| entry(*flow, conn)))))
    }
    fn walk(&self, v6: bool, see: &mut dyn FnMut(Entry)) -> Result<(), Error> {
        match v6 {
            false => self.conns4.iter().for_each(|(key, conn)| see(entry(Flow::of4(key), conn))),
            true => self.conns6.iter().for_each(|(key, conn)| see(entry(Flow::of6(key), conn))),
        }
        Ok(())
    }
    fn sweep(
        &mut self,
        due: &mut dyn FnMut(&Self, &Entry) -> Result<Due, Error>,
        pause: &mut dyn FnMut(),
    ) -> Result<Expired, Error> {
        let mut out = Expired::default();
        let four = self.conns4.iter().map(|(key, conn)| Ok((*key, due(self, &entry(Flow::of4(key), conn))?)));
        let four = four.collect::<Result<_, Error>>()?;
        self.expire_all::<V4>(four, &mut out);
        pause();
        let six = self.conns6.iter().map(|(key, conn)| Ok((*key, due(self, &entry(Flow::of6(key), conn))?)));
        let six = six.collect::<Result<_, Error>>()?;
        self.expire_all::<V6>(six, &mut out);
        Ok(out)
    }
}
