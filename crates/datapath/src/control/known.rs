//! The table of NAT servers by place: whose strange packets are a server's.

use std::collections::{BTreeMap, HashMap, HashSet};

use dirigent_config::{Method, Protocol, Service as WantedService, ServiceKey};
use dirigent_director::records::Known;
use dirigent_wire::Be16;

use super::Error;
use super::apply::{Control, Held, Member};
use super::store::Store;
use crate::keys::{Spot, words};

/// Which services have a server at a place: its index, and if the service is one-packet.
type Users = BTreeMap<ServiceKey, (u32, bool)>;

/// The places of all NAT servers.
#[derive(Debug, Default)]
pub(super) struct KnownServers {
    all: HashMap<Spot, Users>,
    /// Those of a service.
    of: HashMap<ServiceKey, HashSet<Spot>>,
}

fn record(users: &Users) -> Option<Known> {
    let any = users.values().next()?;
    let mut one_packet = users.iter().filter(|(_, (_, one_packet))| *one_packet);
    Some(match (one_packet.next(), one_packet.next()) {
        (Some((ServiceKey::Address { address, port, .. }, (server, _))), None) => {
            Known { vip: words(*address), vport: Be16::new(*port), one_packet: 1, server: *server }
        }
        // Several, or a mark, which may stand for any address.
        (Some((_, (server, _))), _) => Known { one_packet: 2, server: *server, ..Known::default() },
        _ => Known { server: any.0, ..Known::default() },
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
                    users.insert(*key, user);
                    used.insert(place);
                }
                None => _ = users.remove(key),
            }
            let new = record(users);
            if users.is_empty() {
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
