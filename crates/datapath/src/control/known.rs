//! The table of NAT servers by place: whose strange packets are a server's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use dirigent_config::{Method, Protocol, Service as WantedService, ServiceKey};
use dirigent_director::records::Known;
use dirigent_wire::Be16;

use super::Error;
use super::apply::{Control, Held, Member};
use super::store::Store;
use crate::keys::{Spot, words};

/// Which services have a server at a place. An address may be that of a server of each of ten thousand.
#[derive(Debug, Default)]
struct Users {
    /// Its index.
    all: BTreeMap<ServiceKey, u32>,
    /// Those of them that are one-packet.
    one_packet: BTreeSet<ServiceKey>,
}

impl Users {
    fn put(&mut self, key: &ServiceKey, (server, one_packet): (u32, bool)) {
        self.all.insert(*key, server);
        match one_packet {
            true => self.one_packet.insert(*key),
            false => self.one_packet.remove(key),
        };
    }
    fn remove(&mut self, key: &ServiceKey) {
        self.all.remove(key);
        self.one_packet.remove(key);
    }
}

/// The places of all NAT servers.
#[derive(Debug, Default)]
pub(super) struct KnownServers {
    all: HashMap<Spot, Users>,
    /// Those of a service.
    of: HashMap<ServiceKey, HashSet<Spot>>,
}

fn record(users: &Users) -> Option<Known> {
    let any = *users.all.values().next()?;
    let mut one_packet = users.one_packet.iter();
    Some(match (one_packet.next(), one_packet.next()) {
        (Some(key @ ServiceKey::Address { address, port, .. }), None) => {
            let server = users.all.get(key).copied().unwrap_or(any);
            Known { vip: words(*address), vport: Be16::new(*port), one_packet: 1, server }
        }
        // Several, or a mark, which may stand for any address.
        (Some(key), _) => {
            let server = users.all.get(key).copied().unwrap_or(any);
            Known { one_packet: 2, server, ..Known::default() }
        }
        _ => Known { server: any, ..Known::default() },
    })
}

impl<S: Store> Control<S> {
    /// Writes the places of a service's NAT servers.
    pub(super) fn settle_known(&mut self, key: &ServiceKey, wanted: &WantedService, held: &Held) -> Result<(), Error> {
        let protocols = key.protocol().map_or(Protocol::ALL.to_vec(), |protocol| vec![protocol]);
        let places = |address, port| {
            let port = if port == 0 { key.port() } else { port };
            let place = move |protocol: &Protocol| Spot { address, port, protocol: protocol.number(), mark: false };
            protocols.iter().map(place).chain([Spot::whole(address)])
        };
        let members = Member::by_identity(&held.members);
        let nat = wanted.servers.iter().filter(|s| s.method == Method::Nat);
        let places: HashMap<Spot, u32> = nat
            .filter_map(|s| members.get(&s.identity()))
            .flat_map(|m| places(m.address, m.port).map(|place| (place, m.index)))
            .collect();
        let one_packet = |place: &Spot| wanted.one_packet && *place != Spot::whole(place.address);
        self.write_known(key, |place| places.get(place).map(|index| (*index, one_packet(place))), places.keys())
    }

    /// The service went.
    pub(super) fn forget_known(&mut self, key: &ServiceKey) -> Result<(), Error> {
        self.write_known(key, |_| None, [].iter())
    }

    fn write_known<'p>(
        &mut self,
        key: &ServiceKey,
        user: impl Fn(&Spot) -> Option<(u32, bool)>,
        new: impl Iterator<Item = &'p Spot>,
    ) -> Result<(), Error> {
        let mut spots = self.known.of.get(key).cloned().unwrap_or_default();
        spots.extend(new.copied());
        // As long as it is not known which stay: something may fail on the way.
        self.known.of.insert(*key, spots.clone());
        let mut used = HashSet::new();
        for place in spots {
            let users = self.known.all.entry(place).or_default();
            let old = record(users);
            match user(&place) {
                Some(user) => {
                    users.put(key, user);
                    used.insert(place);
                }
                None => users.remove(key),
            }
            let new = record(users);
            if users.all.is_empty() {
                self.known.all.remove(&place);
            }
            if new != old {
                self.store.set_known(&place, new)?;
            }
        }
        match used.is_empty() {
            true => self.known.of.remove(key),
            false => self.known.of.insert(*key, used),
        };
        Ok(())
    }
}

impl KnownServers {
    /// Whether a server is there.
    pub fn has(&self, spot: &Spot) -> bool {
        self.all.contains_key(spot)
    }
}
