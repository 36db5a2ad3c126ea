//! Tables that are in use already: a new daemon finds the indexes of the old one again,
//! so that no connection and no count is lost.

use std::collections::HashMap;

use dirigent_config::{Model, ServiceKey};
use dirigent_director::records::{Service, kind, server_flag};

use super::Error;
use super::apply::{Control, Held, Member};
use super::slots::Region;
use super::store::{Entry, Store, server_address};
use crate::keys::Spot;
use crate::memory::SourceNet;

/// The high half (where) and the low half (how many) of a list word.
fn region(list: u64) -> Region {
    Region { base: (list >> 32) as u32, len: list as u32 }
}

impl<S: Store> Control<S> {
    /// Takes over the tables, empty or not, and makes them say what the Model does. Servers that
    /// are drained in them stay so, and those that start slowly go on.
    pub fn open(store: S, model: &Model) -> Result<Self, Error> {
        let mut control = Self::empty(store);
        control.clear_pins()?;
        control.find_services()?;
        control.local_nets = control.store.local_nets()?.into_iter().collect();
        control.find_trash()?;
        let stale: Vec<Spot> = control.store.known()?.into_iter().map(|(spot, _)| spot).collect();
        control.model = model.clone();
        control.find_paces()?;
        for service in model.services() {
            control.settle(&service.key, 0)?;
        }
        control.paces.end(&control.model);
        let left: Vec<ServiceKey> = control.held.keys().filter(|k| model.service(k).is_none()).copied().collect();
        for key in left {
            control.settle(&key, 0)?;
        }
        for spot in stale {
            if !control.known.has(&spot) {
                control.store.set_known(&spot, None)?;
            }
        }
        control.settle_settings()?;
        Ok(control)
    }

    fn find_services(&mut self) -> Result<(), Error> {
        let mut sources: HashMap<u32, HashMap<SourceNet, bool>> = HashMap::new();
        for (net, may) in self.store.sources()? {
            sources.entry(net.service).or_default().insert(net, may);
        }
        for (spot, index) in self.store.places()? {
            let Some(key) = spot.key() else { continue };
            let record = self.store.service(index)?;
            let list = region(record.list.load());
            let (base, len) = record.table();
            let table = Region { base, len };
            let ids = match record.ids() {
                Some(base) => {
                    let count = self.store.slots(base, 1)?.first().copied().unwrap_or(0);
                    Region { base, len: count.saturating_mul(2).saturating_add(1) }
                }
                None => Region::default(),
            };
            let mut members = Vec::new();
            for index in self.store.slots(list.base, list.len)? {
                let server = self.store.server(index)?;
                members.push(Member { index, address: server_address(&server), port: server.port.get() });
                self.used_servers.insert(index);
            }
            self.slots.take(list);
            self.slots.take(table);
            self.slots.take(ids);
            self.used_services.insert(index);
            self.hold(
                key,
                Held {
                    index,
                    list,
                    table,
                    ids,
                    sources: sources.remove(&index).unwrap_or_default(),
                    members,
                    ..Held::default()
                },
            );
        }
        Ok(())
    }

    /// What the tables know of weights, and a configuration does not.
    fn find_paces(&mut self) -> Result<(), Error> {
        for (key, held) in &self.held {
            for member in &held.members {
                let record = self.store.server(member.index)?;
                self.paces.found(*key, member, &record);
                let wanted = self.model.service(key).and_then(|s| s.server(member.address, member.port));
                if let Some(wanted) = wanted.filter(|_| record.flags.load() & server_flag::DRAINING != 0) {
                    let server = dirigent_config::Server { draining: true, ..wanted.clone() };
                    self.model.edit_server(key, server)?;
                }
            }
        }
        Ok(())
    }

    /// Servers that are in no list but have a record. The place of a service that is gone
    /// is known by the connections only.
    fn find_trash(&mut self) -> Result<(), Error> {
        let mut keys: HashMap<u32, (ServiceKey, bool)> =
            self.held.iter().map(|(key, held)| (held.index, (*key, false))).collect();
        let mut found = Vec::new();
        for index in self.store.used_servers()? {
            if !self.used_servers.contains(index) {
                found.push((index, self.store.server(index)?));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        // Of these the records still say mark and port.
        let mut wanted: HashMap<u32, Service> = HashMap::new();
        for (_, record) in found.iter().filter(|(_, record)| !keys.contains_key(&record.service)) {
            wanted.insert(record.service, self.store.service(record.service)?);
        }
        let mut learn = |entry: Entry| {
            let Some(service) = wanted.get(&entry.service) else { return };
            let request = matches!(entry.kind, kind::NAT_REQUEST | kind::DR_REQUEST | kind::TUN_REQUEST);
            let flow = entry.flow;
            let spot = match service.mark {
                0 => Spot { address: flow.dst, port: service.port.get(), protocol: flow.protocol, mark: false },
                mark => Spot::of_mark(mark, flow.dst.is_ipv6()),
            };
            if request && let Some(key) = spot.key() {
                keys.insert(entry.service, (key, true));
            }
        };
        if !wanted.is_empty() {
            self.store.walk(false, &mut learn)?;
            self.store.walk(true, &mut learn)?;
        }
        for (index, record) in found {
            let known = keys.get(&record.service).copied();
            let member = Member { index, address: server_address(&record), port: record.port.get() };
            self.used_servers.insert(index);
            self.used_services.insert(record.service);
            self.trash.add(known.map(|(key, _)| key), record.service, member);
            if let Some((key, true)) = known {
                self.trash.service_left(&key, record.service);
            }
        }
        Ok(())
    }
}
