//! Connections and templates as records of synchronisation, and back: what of them is written
//! for `dirigent_sync`, and what its decisions change in the tables.

use std::net::SocketAddr;

use dirigent_director::conn::{self, Word};
use dirigent_director::records::{Lesson, Server, Settings, conn_flag, kind, lesson};
use dirigent_director::sync::Told;
use dirigent_director::{persist, reset};
use dirigent_sync::backup::{self, Configured, Decision, Existing, Found, Owner};
use dirigent_sync::record::{Ends, Flags, Key, Method, Recency, Record};
use dirigent_wire::{Be16, ip::proto};

use super::Error;
use super::apply::Control;
use super::connections::goes_to;
use super::shapes;
use super::store::{Entry, Store, server_address};
use crate::keys::{Flow, Spot};

/// FTP's port for control connections, whose service's templates have no port.
const FTP: u16 = 21;

impl<S: Store> Control<S> {
    /// Whether connections are told to other directors, or learned from them, and when.
    pub fn set_sync(&mut self, sync: Option<dirigent_config::failover::Sync>) -> Result<(), Error> {
        self.sync = sync;
        self.settle_settings()
    }
}

/// The settings and the packet path's time, read once for many records.
#[derive(Clone, Debug)]
pub struct Moment {
    settings: Settings,
    now: u32,
}

impl Moment {
    /// As they are now.
    pub fn of<S: Store>(store: &S) -> Result<Self, Error> {
        Ok(Self { settings: store.settings()?, now: store.now() })
    }
}

/// The tables as synchronisation reads them, at one time.
pub struct Shared<'s, S> {
    store: &'s S,
    settings: &'s Settings,
    now: u32,
}

/// What is known of a record's connection.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its key.
    pub flow: Flow,
    /// The entry that is there, if any: tag and who told of it.
    pub there: Option<(u32, Told)>,
    /// Indexes of the service and the server of the configuration.
    pub bound: Option<(u32, u32)>,
}

/// What goes with a record's decision into the tables.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Number of who told it.
    pub origin: u8,
    /// The bulk's mark.
    pub mark: u32,
    /// Milliseconds since its last packet.
    pub idle_ms: u64,
}

impl<'s, S: Store> Shared<'s, S> {
    /// The tables at that moment.
    pub fn at(store: &'s S, moment: &'s Moment) -> Self {
        Self { store, settings: &moment.settings, now: moment.now }
    }

    fn hz(&self) -> u64 {
        u64::from(self.settings.hz.max(1))
    }
    fn ms(&self, ticks: u32) -> u64 {
        u64::from(ticks) * 1000 / self.hz()
    }
    fn ticks(&self, ms: u64) -> u32 {
        u32::try_from(ms.saturating_mul(self.hz()) / 1000).unwrap_or(u32::MAX / 2)
    }

    /// Milliseconds since the entry's last packet.
    pub fn idle_ms(&self, entry: &Entry) -> u64 {
        self.ms(conn::age(self.now, entry.last_seen))
    }

    /// Address and port of the server as a record has them, and how it is reached.
    fn real(&self, entry: &Entry) -> Result<(SocketAddr, Method), Error> {
        let server = self.store.server(entry.server)?;
        Ok((goes_to(entry, &server).into(), method_of(&server)))
    }

    fn flags(entry: &Entry, method: Method) -> Flags {
        let word = Word(entry.word);
        let bit = |set, bit| if set { bit } else { 0 };
        let template = entry.kind == kind::TEMPLATE;
        Flags(
            method as u32
                | bit(method != Method::Nat, Flags::NO_OUTPUT)
                | bit(template, Flags::TEMPLATE)
                | bit(template || !word.active(), Flags::INACTIVE),
        )
    }

    /// An entry as a record; nothing of one that is no request or template, is going, or whose server
    /// is of the other family (records have one).
    pub fn record(&self, entry: &Entry) -> Result<Option<Record>, Error> {
        let word = Word(entry.word);
        let template = entry.kind == kind::TEMPLATE;
        // (What was put aside has a port in place of the client's.)
        let goes = word.dead() || !template && reset::is_marked(entry.flow.protocol, word);
        if entry.kind == kind::NAT_REPLY || goes || template && entry.flow.sport != 0 {
            return Ok(None);
        }
        let (real, method) = self.real(entry)?;
        let flow = &entry.flow;
        let service = SocketAddr::new(flow.dst, flow.dport);
        let Some(ends) = Ends::new(SocketAddr::new(flow.src, flow.sport), service, real) else { return Ok(None) };
        let ticks = match template {
            true => entry.timeout,
            false => conn::timeout(self.settings, flow.protocol, word.state()),
        };
        let idle_ms = u32::try_from(self.idle_ms(entry)).unwrap_or(u32::MAX);
        Ok(Some(Record {
            protocol: flow.protocol,
            flags: Self::flags(entry, method),
            state: u16::from(word.state()),
            ends,
            fwmark: entry.mark,
            timeout_seconds: u32::try_from(u64::from(ticks) / self.hz()).unwrap_or(u32::MAX).max(1),
            sequence: None,
            pe: None,
            recency: Some(Recency { idle_ms, node: 0 }),
        }))
    }

    /// The template, or the control connection of FTP, that stands behind a connection.
    pub fn controller(&self, entry: &Entry) -> Result<Option<Entry>, Error> {
        if entry.flags & (conn_flag::CONTROLLED | conn_flag::FTP_DATA) == 0 {
            return Ok(None);
        }
        let whose = persist::Whose { mask: entry.mask, mark: entry.mark, tag: entry.template, flags: entry.flags };
        match entry.flow.controller(&whose) {
            Some(flow) => self.store.entry(&flow),
            None => Ok(None),
        }
    }

    /// The service of a record, in the packet path's order.
    fn service(&self, record: &Record, flow: &Flow) -> Result<Option<u32>, Error> {
        let at = |port| Spot { address: flow.dst, port, protocol: flow.protocol, mark: false };
        if record.fwmark != 0
            && let Some(index) = self.store.place(&Spot::of_mark(record.fwmark, flow.dst.is_ipv6()))?
        {
            return Ok(Some(index));
        }
        for port in [flow.dport, FTP, 0] {
            if (port != FTP || flow.protocol == proto::TCP)
                && let Some(index) = self.store.place(&at(port))?
            {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// What there is of a record's connection. `owner`: which node a number stands for.
    pub fn find(&self, record: &Record, owner: &dyn Fn(u8) -> u32) -> Result<(Place, Found), Error> {
        let flow = flow_of(&record.key());
        let mut place = Place { flow, there: None, bound: None };
        let mut found = Found { existing: None, configured: None, engine: record.pe.is_none() };
        if let Some(entry) = self.store.entry(&flow)?.filter(|entry| !Word(entry.word).dead()) {
            let told = Told(entry.extra);
            place.there = Some((Word(entry.word).tag(), told));
            place.bound = Some((entry.service, entry.server));
            let (real, method) = self.real(&entry)?;
            let idle_ms = self.idle_ms(&entry);
            let owner = match told.origin() {
                0 => Owner::Own { idle_ms },
                number => Owner::Learned { node: owner(number), idle_ms },
            };
            found.existing = Some(Existing { flags: Self::flags(&entry, method), real, bound: true, owner });
            if real == record.ends.real() {
                return Ok((place, found));
            }
        }
        let Some(index) = self.service(record, &flow)? else { return Ok((place, found)) };
        let service = self.store.service(index)?;
        let list = service.list.load();
        let members = self.store.slots((list >> 32) as u32, list as u32)?;
        for port in backup::server_ports(record) {
            for member in &members {
                let server = self.store.server(*member)?;
                if (server_address(&server), server.port.get()) == (record.ends.real().ip(), port) {
                    place.bound = Some((index, *member));
                    found.configured = Some(Configured { method: method_of(&server) });
                    return Ok((place, found));
                }
            }
        }
        Ok((place, found))
    }

    /// What a decision changes in the tables, in this order; nothing if there is no server for it.
    pub fn lessons(&self, record: &Record, place: &Place, decision: &Decision, from: &Source) -> Option<Vec<Lesson>> {
        let blank = Lesson { key: shapes::wide_tuple(&place.flow), flags: v6_bit(&place.flow), ..Lesson::default() };
        let (contents, replace) = match decision {
            Decision::Ignore(_) => return None,
            Decision::Update { contents, .. } => (contents, false),
            Decision::Create { contents, bind, replace, .. } => {
                bind.as_ref()?;
                (contents, *replace)
            }
        };
        let (service, server) = place.bound?;
        let template = record.flags.template();
        let there = place.there.filter(|_| !replace);
        let seconds = self.ticks(u64::from(contents.timeout_seconds) * 1000);
        let state = contents.state as u8;
        // Of connections the state says how long they live: what the record gives less is counted as idle.
        let less = match template {
            true => 0,
            false => conn::timeout(self.settings, record.protocol, state).saturating_sub(seconds),
        };
        let flag = |set, bit| if set { bit } else { 0 };
        let by_mark = record.protocol == 0;
        let learned = Lesson {
            flags: blank.flags
                | flag(template && by_mark, lesson::BY_MARK)
                | flag(template && place.flow.dport == 0, lesson::ANY_PORT),
            tag: there.map_or(0, |(tag, _)| tag),
            server,
            service,
            state: u32::from(state),
            idle: self.ticks(from.idle_ms).saturating_add(less),
            packets: contents.packets,
            timeout: seconds.max(1),
            told: Told::learned(from.origin, state).0,
            until: from.mark,
            mark: record.fwmark,
            port: Be16::new(record.ends.real().port()),
            ..blank
        };
        let gone = place.there.filter(|_| replace).map(|(tag, _)| Lesson {
            flags: blank.flags | lesson::FORGET,
            tag,
            ..blank
        });
        Some(gone.into_iter().chain([learned]).collect())
    }

    /// What removes the connection of a key, if `ours` says that it was learned from the right one.
    pub fn forget(&self, key: &Key, ours: &dyn Fn(Told, u32) -> bool) -> Result<Option<Lesson>, Error> {
        let entry = self.store.entry(&flow_of(key))?;
        Ok(entry.and_then(|entry| forget_entry(&entry, ours)))
    }
}

fn method_of(server: &Server) -> Method {
    match server.method {
        kind::DR_REQUEST => Method::Route,
        kind::TUN_REQUEST => Method::Tunnel,
        _ => Method::Nat,
    }
}

/// The mark that a learned entry has.
fn mark_of(entry: &Entry) -> u32 {
    if entry.kind == kind::TEMPLATE { entry.template } else { entry.timeout }
}

/// What removes an entry that was learned, if `ours` says so of whom it was learned from and its mark.
pub fn forget_entry(entry: &Entry, ours: &dyn Fn(Told, u32) -> bool) -> Option<Lesson> {
    let (told, word) = (Told(entry.extra), Word(entry.word));
    let learned = entry.kind != kind::NAT_REPLY && told.origin() != 0 && !word.dead();
    (learned && ours(told, mark_of(entry))).then(|| Lesson {
        key: shapes::wide_tuple(&entry.flow),
        flags: v6_bit(&entry.flow) | lesson::FORGET | lesson::UNLESS_OWN,
        tag: word.tag(),
        ..Lesson::default()
    })
}

/// Who an entry was learned from, if from anyone, and its mark.
pub fn learned(entry: &Entry) -> Option<(u8, u32)> {
    let origin = Told(entry.extra).origin();
    (entry.kind != kind::NAT_REPLY && origin != 0).then(|| (origin, mark_of(entry)))
}

fn v6_bit(flow: &Flow) -> u32 {
    if flow.src.is_ipv6() { lesson::V6 } else { 0 }
}

/// The key in the tables.
fn flow_of(key: &Key) -> Flow {
    let template = match (key.template, key.protocol) {
        (false, _) => 0,
        (true, 0) => persist::of::MARK,
        (true, _) => persist::of::ADDRESS,
    };
    Flow {
        protocol: key.protocol,
        template,
        src: key.client.ip(),
        sport: key.client.port(),
        dst: key.service.ip(),
        dport: key.service.port(),
    }
}

impl Flow {
    /// Of a key as the packet path writes it: 16 bytes of IPv4, 40 of IPv6.
    pub(crate) fn of_key(bytes: &[u8]) -> Option<Self> {
        let words = |bytes: &[u8]| -> Vec<u16> {
            bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(u16::from_ne_bytes)).collect()
        };
        match bytes.len() {
            16 => Some(shapes::flow4(words(bytes).first_chunk()?)),
            40 => Some(shapes::flow6(words(bytes).first_chunk()?)),
            _ => None,
        }
    }

    /// The key of what controls this connection.
    fn controller(&self, whose: &persist::Whose) -> Option<Self> {
        if let Some(key) = self.tuple4() {
            let mut to = dirigent_director::records::Tuple::default();
            whose.write(&key, &mut to);
            return Some(Self::of4(&to));
        }
        let key = self.tuple6()?;
        let mut to = dirigent_director::records::Tuple::default();
        whose.write(&key, &mut to);
        Some(Self::of6(&to))
    }
}
