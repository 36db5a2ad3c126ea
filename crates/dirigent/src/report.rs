//! The tables as the API tells them: read from the pinned maps, with or without a daemon.

use crate::daemon::in_use;
use crate::daemon::rates::Rates;
use crate::daemon::size::Size;
use crate::failure::{Failure, Result};
use dirigent_api::{
    Connection, Connections, Counters, Interface, NextHop, Persistence, Reason, Room, Server, Service, Stats, Status,
    Timeouts, Tunnel,
};
use dirigent_datapath::control::tally::{self, Tally};
use dirigent_datapath::control::{self, KernelStore, Spot, Store};
use dirigent_datapath::kernel::{Attached, Hook, Instance};
use dirigent_director::records::{self, hop, kind, map, server_flag, service_flag};
use dirigent_director::schedule::Scheduler;
use dirigent_director::verdict::ReasonKind;
use dirigent_net::{Snapshot, mac_text};
use dirigent_wire::Addr4;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Reads one director's tables.
pub struct Reader {
    instance: Instance,
    store: KernelStore,
    /// The daemon's, if it is the daemon that reads.
    rates: Option<Rates>,
}

/// The size of a director's connection tables, if it has any.
pub fn size(instance: &Instance) -> Option<Size> {
    type Table = dirigent_datapath::kernel::Table<records::Tuple<Addr4>, records::Conn<Addr4>>;
    let table: Table = instance.open_table(map::CONNS4).ok()?;
    Some(Size::of_entries(table.max_entries()))
}

fn protocol(number: u8) -> String {
    let known = dirigent_config::Protocol::ALL.into_iter().find(|p| p.number() == number);
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

/// The address in a server's record.
fn address(words: &[u16; 8], v6: bool) -> IpAddr {
    let mut bytes = [0; 16];
    for (pair, word) in bytes.chunks_exact_mut(2).zip(words) {
        pair.copy_from_slice(&word.to_ne_bytes());
    }
    let [a, b, c, d, ..] = bytes;
    if v6 { IpAddr::from(bytes) } else { IpAddr::from([a, b, c, d]) }
}

impl Reader {
    /// Opens the pins.
    pub fn open(instance: &Instance) -> Result<Self> {
        let store = KernelStore::open(instance)?;
        Ok(Self { instance: instance.clone(), store, rates: None })
    }

    /// With how fast counters grow.
    pub fn with_rates(self, rates: Rates) -> Self {
        Self { rates: Some(rates), ..self }
    }

    /// All services with their servers, also removed ones that still have connections.
    pub fn services(&self) -> Result<Vec<Service>> {
        let mut removed = self.removed()?;
        let tally = self.tally()?;
        let mut places = self.store.places()?;
        // As ipvsadm lists them: those of marks behind those of addresses.
        places.sort_by_key(|(spot, _)| {
            let mark = spot.to_mark().map_or(0, |(mark, _)| mark);
            (mark, spot.address.is_ipv6(), spot.protocol, spot.address, spot.port)
        });
        let mut all = Vec::new();
        for (spot, index) in places {
            all.push(self.service(&spot, index, removed.remove(&index).unwrap_or_default(), &tally)?);
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
    fn removed(&self) -> Result<BTreeMap<u32, Vec<(u32, records::Server)>>> {
        let mut found: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for index in 0..self.store.room().servers {
            let record = self.store.server(index)?;
            let lingers = record.method != 0 && record.flags.load() & server_flag::AVAILABLE == 0;
            if lingers && record.connections() != (0, 0) {
                found.entry(record.service).or_default().push((index, record));
            }
        }
        Ok(found)
    }

    fn tally(&self) -> Result<Tally> {
        Ok(tally::read(&self.store, self.store.places()?.into_iter().map(|(_, index)| index))?)
    }

    fn service(&self, spot: &Spot, index: u32, removed: Vec<(u32, records::Server)>, tally: &Tally) -> Result<Service> {
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
            counters: tally.services.get(&index).map(counters).unwrap_or_default(),
            rates: self.rates.as_ref().map(|rates| counters(&rates.service(index))),
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

    fn server(&self, index: u32, record: &records::Server, service: &str, tally: &Tally) -> Result<Server> {
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
            address: socket(address(&record.addr, flags & server_flag::IPV6 != 0), record.port.get()),
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
            counters: tally.servers.get(&index).map(counters).unwrap_or_default(),
            rates: self.rates.as_ref().map(|rates| counters(&rates.server(index))),
        })
    }

    /// The first `limit` connections.
    pub fn connections(&self, limit: usize) -> Result<Connections> {
        let mut out = Connections::default();
        control::connections(&self.store, &mut |c| {
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

    /// All counters.
    pub fn stats(&self) -> Result<Stats> {
        let counts = self.store.reasons()?;
        let all = dirigent_director::verdict::Reason::ALL.iter().zip(counts);
        let reason = |(reason, count): (&dirigent_director::verdict::Reason, u64)| Reason {
            name: reason.name().to_owned(),
            kind: kind_name(reason.kind()).to_owned(),
            text: reason.text().to_owned(),
            count,
        };
        Ok(Stats {
            total: counters(&self.tally()?.total),
            rates: self.rates.as_ref().map(|rates| counters(&rates.total())),
            services: self.services()?,
            reasons: all.map(reason).collect(),
        })
    }

    fn timeouts(&self) -> Result<Timeouts> {
        let settings = self.store.settings()?;
        let seconds = |ticks: u32| ticks / settings.hz.max(1);
        // By IPVS's number of the state: 1 ESTABLISHED, 4 FIN_WAIT.
        let [_, tcp, _, _, tcp_fin, ..] = settings.tcp_timeouts;
        Ok(Timeouts { tcp_s: seconds(tcp), tcp_fin_s: seconds(tcp_fin), udp_s: seconds(settings.udp_timeout) })
    }

    /// What can be told without the daemon.
    pub fn status(&self) -> Result<Status> {
        let services = self.services()?;
        let servers = services.iter().flat_map(|service| &service.servers);
        let used = servers.map(|s| u64::from(s.active) + u64::from(s.inactive)).sum();
        let size = size(&self.instance);
        let room =
            Room { connections: size.map_or(0, |size| size.connections), bytes: size.map_or(0, Size::bytes), used };
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.name().to_owned(),
            interfaces: interfaces(&in_use(&self.instance)?),
            connections: room,
            timeouts: self.timeouts()?,
            ..Status::default()
        })
    }
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
    let mac = if state == hop::RESOLVED { mac_text(found.dst.bytes()) } else { String::new() };
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

fn kind_name(kind: ReasonKind) -> &'static str {
    match kind {
        ReasonKind::Forwarded => "forwarded",
        ReasonKind::Passed => "passed",
        ReasonKind::Answered => "answered",
        ReasonKind::Dropped => "dropped",
    }
}

/// From the pins; the names are those of the asker's namespace, if the interface is there.
fn interfaces(all: &[Attached]) -> Vec<Interface> {
    let snapshot = Snapshot::take().ok();
    let mut found: BTreeMap<u32, Interface> = BTreeMap::new();
    for one in all.iter().filter(|one| one.alive) {
        let link = snapshot.as_ref().and_then(|s| s.links.get(&one.ifindex));
        let name = link.map(|link| link.name.clone()).unwrap_or_default();
        let entry = found.entry(one.ifindex).or_insert_with(|| Interface {
            name,
            index: one.ifindex,
            path: "tc".into(),
            reasons: Vec::new(),
        });
        if one.hook == Hook::Xdp {
            entry.path = "xdp".into();
        }
    }
    found.into_values().collect()
}

impl From<control::Error> for Failure {
    fn from(error: control::Error) -> Self {
        match error {
            control::Error::Kernel(error) => error.into(),
            other => Self::new("", other.to_string(), ""),
        }
    }
}
