//! Connections as people see them: both directions as one.

use std::net::IpAddr;

use dirigent_director::conn::{self, Word};
use dirigent_director::records::{Server, kind};
use dirigent_director::{persist, sctp, tcp};

use super::Error;
use super::store::{Entry, Store, server_address};
use crate::keys::Flow;

/// A connection, or a persistence template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IP protocol; of a firewall mark's template 0: any.
    pub protocol: u8,
    /// It is a template: the client is a network, with port 0.
    pub template: bool,
    /// The client.
    pub client: (IpAddr, u16),
    /// The virtual service; of a firewall mark's template the mark, in the address's first
    /// four bytes, as IPVS shows it.
    pub service: (IpAddr, u16),
    /// The real server.
    pub server: (IpAddr, u16),
    /// IPVS's name of the state.
    pub state: &'static str,
    /// Seconds until it is gone, without a packet.
    pub remaining_s: u32,
    /// Packets of the client and of the server.
    pub packets: (u32, u32),
}

/// Address and port of the server that a request entry or a template leads to, whose record this is. (By a tunnel the
/// address need not be of the client's family.)
pub(super) fn goes_to(entry: &Entry, server: &Server) -> (IpAddr, u16) {
    match (entry.kind, server.port.get()) {
        (kind::NAT_REQUEST, _) => (entry.address, entry.port),
        (kind::TEMPLATE, _) => (server_address(server), entry.port),
        (_, 0) => (server_address(server), entry.flow.dport),
        (_, port) => (server_address(server), port),
    }
}

/// Shows all connections, IPv4 first.
pub fn connections<S: Store>(store: &S, see: &mut dyn FnMut(Connection)) -> Result<(), Error> {
    connections_of(store, &|_| true, see)
}

/// Shows the connections of those servers whose index is `wanted`, IPv4 first.
pub fn connections_of<S: Store>(
    store: &S,
    wanted: &dyn Fn(u32) -> bool,
    see: &mut dyn FnMut(Connection),
) -> Result<(), Error> {
    let settings = store.settings()?;
    let hz = settings.hz.max(1);
    let mut failed = None;
    for v6 in [false, true] {
        let now = store.now();
        let mut show = |entry: Entry| {
            if !wanted(entry.server) {
                return;
            }
            match connection(store, &settings, hz, now, &entry) {
                Ok(Some(connection)) => see(connection),
                Ok(None) => {}
                Err(e) => _ = failed.get_or_insert(e),
            }
        };
        store.walk(v6, &mut show)?;
    }
    failed.map_or(Ok(()), Err)
}

/// The connection, or template, that a packet of this tuple belongs to, in either direction.
pub fn connection_of<S: Store>(store: &S, flow: &Flow) -> Result<Option<Connection>, Error> {
    let settings = store.settings()?;
    let request = match store.entry(flow)? {
        // Of what the server sends: its client's side is the other one.
        Some(entry) if entry.kind == kind::NAT_REPLY => {
            store.entry(&Flow { src: flow.dst, sport: flow.dport, dst: entry.address, dport: entry.port, ..*flow })?
        }
        entry => entry,
    };
    let Some(request) = request else { return Ok(None) };
    connection(store, &settings, settings.hz.max(1), store.now(), &request)
}

/// What lists call a state of a protocol's connections.
pub fn state_name(protocol: u8, state: u8) -> &'static str {
    let names: &[&'static str] = match protocol {
        6 => &tcp::NAMES,
        132 => &sctp::NAMES,
        _ => return "UDP",
    };
    names.get(usize::from(state)).copied().unwrap_or("NONE")
}

fn connection<S: Store>(
    store: &S,
    settings: &dirigent_director::records::Settings,
    hz: u32,
    now: u32,
    entry: &Entry,
) -> Result<Option<Connection>, Error> {
    let word = Word(entry.word);
    if entry.kind == kind::NAT_REPLY || word.dead() {
        return Ok(None);
    }
    let flow = &entry.flow;
    let mut age = conn::age(now, entry.last_seen);
    let server = goes_to(entry, &store.server(entry.server)?);
    if entry.kind == kind::TEMPLATE {
        return Ok(Some(Connection {
            protocol: flow.protocol,
            template: true,
            // What stands in the key of one put aside tells it from others.
            client: (flow.src, 0),
            service: (flow.dst, flow.dport),
            server,
            state: persist::NAMES.get(usize::from(word.state())).copied().unwrap_or("NONE"),
            remaining_s: persist::remaining(age, entry.timeout, hz) / hz,
            packets: (entry.packets, 0),
        }));
    }
    let mut replies = 0;
    if entry.kind == kind::NAT_REQUEST
        && let Some(reply) = store.entry(&flow.reply(entry.address, entry.port))?
    {
        age = age.min(conn::age(now, reply.last_seen));
        replies = reply.packets;
    }
    let state = state_name(flow.protocol, word.state());
    let left = conn::timeout(settings, flow.protocol, word.state()).saturating_sub(age);
    Ok(Some(Connection {
        protocol: flow.protocol,
        template: false,
        client: (flow.src, flow.sport),
        service: (flow.dst, flow.dport),
        server,
        state,
        remaining_s: left / hz,
        packets: (entry.packets, replies),
    }))
}
