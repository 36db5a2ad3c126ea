//! The tables as the API tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dirigent_api::{
    Connection, Connections, Counters, NextHop, Persistence, Reason, Server, Service, Stats, Timeouts, Tunnel,
};
use dirigent_config::ServiceKey;
use dirigent_director::records::{self, hop, kind, server_flag, service_flag};
use dirigent_director::schedule::Scheduler;
use dirigent_director::verdict::ReasonKind;

use super::Error;
use super::store::{Store, server_address};
use super::tally::{self, Tally};
use crate::keys::Spot;
use crate::memory::SourceNet;

/// How fast counters grow, from whoever looks at them.
pub trait Growth {
    /// Of everything, each second.
    fn total(&self) -> records::Counters;
    /// Of a service, by its index.
    fn service(&self, index: u32) -> records::Counters;
    /// Of a server, by its index.
    fn server(&self, index: u32) -> records::Counters;
}

/// Whose connections are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// Of this service; none: of all.
    pub service: Option<ServiceKey>,
    /// Of the servers of this address and, if one is said, this port; none: of all.
    pub server: Option<(IpAddr, Option<u16>)>,
}

/// Tells what is in tables.
pub struct Report<'a, S> {
    store: &'a S,
    rates: Option<&'a dyn Growth>,
}

/// `tcp`, or a number that has no name.
pub fn protocol(number: u8) -> String {
    let known = dirigent_config::Protocol::of_number(number);
    known.map_or_else(|| number.to_string(), |p| p.name().to_owned())
}

fn socket(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

fn counters(c: &records::Counters) -> Counters {
    Counters {
        connections: c.conns,
        in_packets: c.in_packets,
        in_bytes: c.in_bytes,
        out_packets: c.out_packets,
        out_bytes: c.out_bytes,
    }
}

impl<'a, S: Store> Report<'a, S> {
    /// Of these tables; with rates if somebody knows them.
    pub fn of(store: &'a S, rates: Option<&'a dyn Growth>) -> Self {
        Self { store, rates }
    }

    /// All services with their servers, also removed ones that still have connections.
    pub fn services(&self) -> Result<Vec<Service>, Error> {
        let mut removed = self.removed()?;
        let tally = tally::read(self.store)?;
        let mut clients: BTreeMap<u32, Vec<(SourceNet, bool)>> = BTreeMap::new();
        for (net, may) in self.store.sources()? {
            clients.entry(net.service).or_default().push((net, may));
        }
        let mut places = self.store.places()?;
        // As ipvsadm lists them: those of marks behind those of addresses.
        places.sort_by_key(|(spot, _)| {
            let mark = spot.to_mark().map_or(0, |(mark, _)| mark);
            (mark, spot.address.is_ipv6(), spot.protocol, spot.address, spot.port)
        });
        let mut all = Vec::new();
        for (spot, index) in places {
            let mut service = self.service(&spot, index, removed.remove(&index).unwrap_or_default(), &tally)?;
            [service.allow, service.deny] = judged(clients.remove(&index).unwrap_or_default());
            all.push(service);
        }
        for (_, servers) in removed {
            let mut service = Service { address: "removed".into(), ..Service::default() };
            for (index, record) in servers {
                service.protocol = protocol(record.protocol);
                service.family = if record.flags.load() & server_flag::IPV6 != 0 { 6 } else { 4 };
                let server = self.server(index, &record, &service.name(), &tally)?;
                service.servers.push(server);
            }
            all.push(service);
        }
        Ok(all)
    }

    /// Servers that are in no list and still have connections, by service.
    fn removed(&self) -> Result<BTreeMap<u32, Vec<(u32, records::Server)>>, Error> {
        let mut found: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for index in self.store.used_servers()? {
            let record = self.store.server(index)?;
            let lingers = record.flags.load() & server_flag::AVAILABLE == 0;
            if lingers && record.connections() != (0, 0) {
                found.entry(record.service).or_default().push((index, record));
            }
        }
        Ok(found)
    }

    fn service(
        &self,
        spot: &Spot,
        index: u32,
        removed: Vec<(u32, records::Server)>,
        tally: &Tally,
    ) -> Result<Service, Error> {
        let record = self.store.service(index)?;
        let scheduler = Scheduler::from_number(record.scheduler);
        let (fallback, port) = scheduler.and_then(Scheduler::flags).unwrap_or(("flag-1", "flag-2"));
        let scheduler = scheduler.map_or("unknown", Scheduler::name);
        let flags = [
            (service_flag::ONE_PACKET, "one-packet"),
            (service_flag::HASH_PORT, port),
            (service_flag::HASH_FALLBACK, fallback),
        ];
        let flags = flags.into_iter().filter(|(bit, _)| record.flags & bit != 0);
        let mark = spot.to_mark().map(|(mark, _)| mark);
        let ipv6 = spot.address.is_ipv6();
        let hz = self.store.settings()?.hz.max(1);
        let persistence = (record.flags & service_flag::PERSISTENT != 0).then(|| Persistence {
            timeout_s: record.persistence / hz,
            mask: if ipv6 {
                format!("/{}", record.mask)
            } else {
                Ipv4Addr::from(record.mask.to_ne_bytes()).to_string()
            },
        });
        let mut service = Service {
            protocol: mark.map_or_else(|| protocol(spot.protocol), |_| "fwm".to_owned()),
            address: mark.map_or_else(|| socket(spot.address, spot.port), |mark| mark.to_string()),
            fwmark: mark,
            family: if ipv6 { 6 } else { 4 },
            persistence,
            scheduler: scheduler.to_owned(),
            flags: flags.map(|(_, name)| name.to_owned()).collect(),
            table_size: Some(record.table().1).filter(|size| *size > 0),
            counters: tally.services.get(&index).map(counters).unwrap_or_default(),
            rates: self.rates.map(|rates| counters(&rates.service(index))),
            ..Service::default()
        };
        let list = record.list.load();
        let mut members = Vec::new();
        for index in self.store.slots((list >> 32) as u32, list as u32)? {
            members.push((index, self.store.server(index)?));
        }
        // The list has the newest first.
        members.reverse();
        for (index, record) in members.into_iter().chain(removed) {
            let server = self.server(index, &record, &service.name(), tally)?;
            service.servers.push(server);
        }
        Ok(service)
    }

    fn server(&self, index: u32, record: &records::Server, service: &str, tally: &Tally) -> Result<Server, Error> {
        let (active, inactive) = record.connections();
        let (weight, flags) = (record.configured_weight(), record.flags.load());
        let share = record.share();
        let next = self.store.next_hop(index)?;
        let state = match flags {
            flags if flags & server_flag::AVAILABLE == 0 => "removed",
            flags if flags & server_flag::DRAINING != 0 => "draining",
            _ if weight == 0 => "quiesced",
            _ if record.full.load() != 0 => "overloaded",
            _ if share.is_some() => "starting",
            _ => "available",
        };
        Ok(Server {
            service: service.to_owned(),
            address: socket(server_address(record), record.port.get()),
            method: match record.method {
                kind::NAT_REQUEST => "nat",
                kind::TUN_REQUEST => "tun",
                _ => "dr",
            }
            .to_owned(),
            tunnel: (record.method == kind::TUN_REQUEST).then(|| tunnel(&next)),
            weight,
            effective_weight: match share {
                _ if matches!(state, "removed" | "draining") => 0.0,
                // No more digits than the share has.
                Some(share) => (f64::from(weight) * f64::from(share) / 65.536).round() / 1000.0,
                None => weight.into(),
            },
            upper: record.upper,
            lower: record.lower,
            active,
            inactive,
            templates: record.persistent.load(),
            state: state.to_owned(),
            next_hop: next_hop(&next),
            counters: tally.server(index).map(counters).unwrap_or_default(),
            rates: self.rates.map(|rates| counters(&rates.server(index))),
            // Not the tables' to know.
            health: None,
        })
    }

    /// The indexes of the servers that are meant, removed ones too.
    fn servers_of(&self, whose: &Whose) -> Result<BTreeSet<u32>, Error> {
        let places = self.store.places()?;
        let service = whose.service.map(|key| {
            let spot = super::apply::spot(&key);
            places.iter().find(|(place, _)| *place == spot).map(|(_, index)| *index)
        });
        let mut found = BTreeSet::new();
        for index in self.store.used_servers()? {
            let record = self.store.server(index)?;
            let at = |(ip, port): (IpAddr, Option<u16>)| {
                server_address(&record) == ip && port.is_none_or(|port| port == record.port.get())
            };
            if service.is_none_or(|service| service == Some(record.service)) && whose.server.is_none_or(at) {
                found.insert(index);
            }
        }
        Ok(found)
    }

    /// The first `limit` connections of those that are wanted.
    pub fn connections(&self, limit: usize, whose: &Whose) -> Result<Connections, Error> {
        let mut out = Connections::default();
        let of = if *whose == Whose::default() { None } else { Some(self.servers_of(whose)?) };
        let wanted = |server| of.as_ref().is_none_or(|of| of.contains(&server));
        super::connections::connections_of(self.store, &wanted, &mut |c| {
            if out.connections.len() >= limit {
                out.more = true;
                return;
            }
            out.connections.push(Connection {
                protocol: protocol(c.protocol),
                client: socket(c.client.0, c.client.1),
                virtual_address: socket(c.service.0, c.service.1),
                server: socket(c.server.0, c.server.1),
                state: c.state.to_owned(),
                expires_s: c.remaining_s,
                in_packets: c.packets.0,
                out_packets: c.packets.1,
            });
        })?;
        Ok(out)
    }

    /// The counters of everything, without those of services.
    pub fn totals(&self) -> Result<Stats, Error> {
        let counts = self.store.reasons()?;
        let all = dirigent_director::verdict::Reason::ALL.iter().zip(counts);
        let reason = |(reason, count): (&dirigent_director::verdict::Reason, u64)| Reason {
            name: reason.name().to_owned(),
            kind: kind_name(reason.kind()).to_owned(),
            text: reason.text().to_owned(),
            count,
        };
        Ok(Stats {
            total: counters(&tally::read(self.store)?.total),
            rates: self.rates.map(|rates| counters(&rates.total())),
            services: Vec::new(),
            matching: 0,
            reasons: all.map(reason).collect(),
        })
    }

    /// All counters.
    pub fn stats(&self) -> Result<Stats, Error> {
        let services = self.services()?;
        Ok(Stats { matching: services.len(), services, ..self.totals()? })
    }

    /// The timeouts that ipvsadm knows.
    pub fn timeouts(&self) -> Result<Timeouts, Error> {
        let settings = self.store.settings()?;
        let seconds = |ticks: u32| ticks / settings.hz.max(1);
        // By IPVS's number of the state: 1 ESTABLISHED, 4 FIN_WAIT.
        let [_, tcp, _, _, tcp_fin, ..] = settings.tcp_timeouts;
        Ok(Timeouts { tcp_s: seconds(tcp), tcp_fin_s: seconds(tcp_fin), udp_s: seconds(settings.udp_timeout) })
    }
}

/// `02:00:00:00:00:01`.
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn next_hop(found: &records::NextHop) -> NextHop {
    let state = found.state.load();
    let word = match state {
        hop::RESOLVED => "resolved",
        hop::NO_NEIGHBOUR => "no neighbour",
        hop::NO_ROUTE => "no route",
        hop::LOCAL => "local",
        hop::REMOVED => "removed",
        _ => "unknown",
    };
    let mac = if state == hop::RESOLVED { mac(found.dst.bytes()) } else { String::new() };
    NextHop { state: word.to_owned(), interface: found.ifindex, mac, mtu: found.mtu }
}

fn tunnel(hop: &records::NextHop) -> Tunnel {
    let (kind, port) = match hop.tunnel {
        records::tunnel::GRE => ("gre", None),
        records::tunnel::GUE => ("gue", Some(hop.port.get())),
        _ => ("ipip", None),
    };
    let checksum = match hop.flags {
        flags if flags & records::tunnel::REMOTE != 0 => "remote",
        flags if flags & records::tunnel::CHECKSUM != 0 => "full",
        _ => "none",
    };
    Tunnel { kind: kind.to_owned(), port, checksum: checksum.to_owned() }
}

/// The same of one that is configured.
pub fn tunnel_of(tunnel: dirigent_config::Tunnel) -> Tunnel {
    let port = match tunnel.kind {
        dirigent_config::TunnelKind::Gue { port } => Some(port),
        _ => None,
    };
    Tunnel { kind: tunnel.kind.name().to_owned(), port, checksum: tunnel.checksum.name().to_owned() }
}

/// As counters are told.
pub fn kind_name(kind: ReasonKind) -> &'static str {
    match kind {
        ReasonKind::Forwarded => "forwarded",
        ReasonKind::Passed => "passed",
        ReasonKind::Answered => "answered",
        ReasonKind::Dropped => "dropped",
    }
}

/// Prefixes that are allowed, and those that are denied. What is said of the rest of the clients only where nothing else is.
fn judged(mut clients: Vec<(SourceNet, bool)>) -> [Vec<String>; 2] {
    clients.sort_unstable_by_key(|(net, _)| (net.address, net.length));
    let alone = clients.len() == 1;
    let said = |(net, _): &&(SourceNet, bool)| net.length != 0 || alone;
    let of = |may: bool| {
        let nets = clients.iter().filter(|(_, its)| *its == may).filter(said);
        nets.map(|(net, _)| format!("{}/{}", net.address, net.length)).collect()
    };
    [of(true), of(false)]
}
