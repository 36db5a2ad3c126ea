//! What a packet looked at, in sentences.

use crate::failure::Result;
use dirigent_datapath::control::report::{mac, protocol};
use dirigent_datapath::control::{Flow, Spot, Store, connection_of, server_address};
use dirigent_datapath::memory::{MemoryTables, Seen};
use dirigent_director::direct::Stage;
use dirigent_director::records::hop;
use dirigent_director::schedule::Scheduler;
use dirigent_director::tables::{Insert, Route};
use dirigent_net::Snapshot;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

/// Names of what has only numbers in the tables.
pub struct Names<'a, S> {
    store: &'a S,
    services: HashMap<u32, Spot>,
    interfaces: BTreeMap<u32, String>,
}

fn place(spot: &Spot) -> String {
    spot.key().map_or_else(|| spot.address.to_string(), |key| key.to_string())
}

/// Protocol, and both ends.
pub fn flow(flow: &Flow) -> String {
    let (from, to) = (SocketAddr::new(flow.src, flow.sport), SocketAddr::new(flow.dst, flow.dport));
    format!("{} {from} → {to}", protocol(flow.protocol))
}

impl<'a, S: Store> Names<'a, S> {
    /// Of these tables, and the interfaces of this host.
    pub fn of(store: &'a S, host: &Snapshot) -> Result<Self> {
        let interfaces = host.links.values().map(|link| (link.index, link.name.clone())).collect();
        let services = store.places()?.into_iter().map(|(spot, index)| (index, spot)).collect();
        Ok(Self { store, services, interfaces })
    }

    /// An interface.
    pub fn interface(&self, index: u32) -> String {
        self.interfaces.get(&index).cloned().unwrap_or_else(|| format!("interface {index}"))
    }

    /// A virtual service.
    pub fn service(&self, index: u32) -> String {
        self.services.get(&index).map_or_else(|| format!("service {index}"), place)
    }

    /// The scheduler of a virtual service.
    pub fn scheduler(&self, index: u32) -> &'static str {
        let record = self.store.service(index).ok();
        record
            .and_then(|record| Scheduler::from_number(record.scheduler))
            .map_or("an unknown scheduler", Scheduler::name)
    }

    /// A real server.
    pub fn server(&self, index: u32) -> String {
        match self.store.server(index) {
            Ok(record) => SocketAddr::new(server_address(&record), record.port.get()).to_string(),
            Err(_) => format!("server {index}"),
        }
    }

    /// What a scheduler sees of a server.
    fn candidate(&self, index: u32) -> Option<String> {
        let record = self.store.server(index).ok()?;
        Some(considers(&self.server(index), record.weight.load(), record.connections(), record.full.load() != 0))
    }

    fn known(&self, asked: &Flow) -> Option<String> {
        let found = connection_of(self.store, asked).ok()??;
        let at = |(ip, port)| SocketAddr::new(ip, port);
        let what = if found.template { "persistence template" } else { "connection" };
        Some(format!(
            "{what} {} {} → {} of server {}: {}, expires in {} s without a packet",
            protocol(found.protocol),
            at(found.client),
            at(found.service),
            at(found.server),
            found.state,
            found.remaining_s
        ))
    }

    fn way(&self, index: u32) -> Option<String> {
        let way = self.store.next_hop(index).ok()?;
        let (server, out) = (self.server(index), self.interface(way.ifindex));
        Some(match way.state.load() {
            hop::RESOLVED => {
                let at = mac(way.dst.bytes());
                format!("server {server} is reached by {out}, at {at}, with packets of up to {} bytes", way.mtu)
            }
            hop::NO_NEIGHBOUR => {
                format!("server {server} is behind {out}, and no neighbour there has answered for it yet")
            }
            hop::NO_ROUTE => format!("no route leads to server {server}"),
            hop::LOCAL => format!("server {server} is this host"),
            _ => format!("server {server} was removed"),
        })
    }
}

/// What a scheduler sees of a server: its weight, active and inactive connections, and whether they are all it may have.
pub fn considers(server: &str, weight: u32, (active, inactive): (u32, u32), full: bool) -> String {
    let full = if full { ", at its limit of connections" } else { "" };
    format!("  considers {server}: weight {weight}, {active} active and {inactive} inactive connections{full}")
}

/// The sentences, each once: later stages read the packet anew, and ask again.
pub fn tell<S: Store>(seen: &[Seen], names: &Names<'_, S>, after: &MemoryTables) -> Vec<String> {
    let (mut told, mut lines, mut chooses) = (HashSet::new(), Vec::new(), false);
    for one in seen {
        match one {
            // The server is the one that knows the connection.
            Seen::Stage(number) => chooses = number / 2 == Stage::Quic as u32,
            Seen::Scheduling(begins) => chooses = *begins,
            _ => {}
        }
        let line = match one {
            Seen::Server(index) if chooses => names.candidate(*index),
            other => sentence(other, names, after),
        };
        lines.extend(line.filter(|line| told.insert(line.clone())));
    }
    lines
}

fn sentence<S: Store>(seen: &Seen, names: &Names<'_, S>, after: &MemoryTables) -> Option<String> {
    let is = |is: bool, of: &str| if is { format!("is {of}") } else { format!("is not {of}") };
    Some(match seen {
        Seen::Link(index, true) => format!("came in by {}, which the director uses", names.interface(*index)),
        Seen::Link(index, false) => format!("came in by {}, which the director does not use", names.interface(*index)),
        Seen::HandedToTc => "XDP cannot finish it and leaves it to tc, which begins anew".to_owned(),
        Seen::Conn { flow: asked, server: Some(_) } => names.known(asked)?,
        Seen::Conn { flow: asked, server: None } if asked.template != 0 => {
            format!("no persistence template of client {} for {}", asked.src, asked.dst)
        }
        Seen::Conn { flow: asked, server: None } => format!("no connection {}", flow(asked)),
        // What stands for a whole address.
        Seen::Service(spot, _) if spot.is_whole() => return None,
        Seen::Service(spot, Some(index)) => {
            format!("virtual service {}, scheduler {}", place(spot), names.scheduler(*index))
        }
        Seen::Service(spot, None) => format!("no virtual service {}", place(spot)),
        Seen::Local(address, local) => format!("{address} {}", is(*local, "an address of this host")),
        Seen::LocalByMark(address, local) => format!("{address} {}", is(*local, "led here by its mark")),
        Seen::Allows(service, client, may) => {
            let may = if *may { "may" } else { "may not" };
            format!("client {client} {may} open connections to {} (allow, deny)", names.service(*service))
        }
        Seen::Known(spot, Some(index)) => format!("{} is server {}", place(spot), names.server(*index)),
        Seen::Known(spot, None) => format!("{} is no NAT server", place(spot)),
        Seen::Rule(index) => format!("looks at mark rule {index}"),
        Seen::NextHop(index) => names.way(*index)?,
        Seen::Route(to, length, answer) => route(&format!("{to}, for {length} bytes"), answer, names),
        Seen::Insert(made, Insert::Done) => {
            let entry = after.entry(made).ok().flatten()?;
            format!("opens {} with server {}", flow(made), names.server(entry.server))
        }
        Seen::Insert(made, Insert::Exists) => format!("{} is another connection's", flow(made)),
        Seen::Insert(made, Insert::Full) => format!("no room for {}: the table is full", flow(made)),
        Seen::Remove(gone) => format!("ends {}", flow(gone)),
        Seen::Scheduling(true) => "a server is chosen:".to_owned(),
        Seen::Stage(number) => match number / 2 {
            stage if stage == Stage::Refuse as u32 => "an error is sent about it".to_owned(),
            stage if stage == Stage::Encapsulate as u32 => "it is put into a tunnel".to_owned(),
            stage if stage == Stage::Cut as u32 => "it is cut".to_owned(),
            stage if stage == Stage::Over as u32 => "its connection is over, or was to be ended".to_owned(),
            _ => return None,
        },
        Seen::Scheduling(false) | Seen::Server(_) | Seen::Count(..) => return None,
    })
}

fn route<S: Store>(to: &str, answer: &Route, names: &Names<'_, S>) -> String {
    match answer {
        Route::To { ifindex, dst, .. } => {
            let out = names.interface(*ifindex);
            format!("the way to {to}: by {out}, at {}", mac(dst.bytes()))
        }
        Route::NoNeighbour(ifindex) => {
            format!("the way to {to}: by {}, where the kernel has yet to find the neighbour", names.interface(*ifindex))
        }
        Route::TooBig(mtu) => format!("the way to {to}: carries no more than {mtu} bytes"),
        Route::NotForwarding => format!("the way to {to}: this host does not forward (ip_forward)"),
        Route::None => format!("no way to {to}"),
    }
}
