//! What is known, as tables.

use super::look::Known;
use super::state::Place;
use super::table::{Cell, Column, Row, Sort, Table, Tone};
use super::words::{self, age};
use crate::print;
use dirigent_api::{Connection, Health, Reason, Server, Service};
use std::time::Instant;

/// What a table is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Virtual services.
    Services,
    /// Real servers of one.
    Servers,
    /// Connections of a server.
    Connections,
    /// Reasons of losses.
    Drops,
    /// Events.
    Events,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Services, Self::Servers, Self::Connections, Self::Drops, Self::Events];
    /// The order that it begins with: of losses the fastest first, all else as the daemon tells it.
    pub fn sort(self) -> Sort {
        match self {
            Self::Drops => Sort { column: 2, descending: true },
            _ => Sort { column: 0, descending: false },
        }
    }
}

/// At 80 columns all are there while names are short; then packets go, and so on by their rank.
const SERVICES: [Column; 10] = [
    Column::words("SERVICE", 18, 0),
    Column::numbers("UP", 3, 0),
    Column::numbers("ACTIVE", 6, 0),
    Column::numbers("INACT", 5, 3),
    Column::numbers("CONN/S", 6, 1),
    Column::numbers("IN P/S", 6, 5),
    Column::numbers("OUT P/S", 7, 4),
    Column::numbers("IN B/S", 8, 2),
    Column::numbers("OUT B/S", 8, 2),
    Column::words("SCHEDULER", 9, 6),
];

const SERVERS: [Column; 12] = [
    Column::words("SERVER", 14, 0),
    Column::numbers("WEIGHT", 6, 0),
    Column::words("STATE", 9, 0),
    Column::words("HEALTH", 7, 1),
    Column::numbers("ACTIVE", 6, 0),
    Column::numbers("INACT", 5, 4),
    Column::numbers("CONN/S", 6, 2),
    Column::numbers("IN P/S", 6, 6),
    Column::numbers("OUT P/S", 7, 5),
    Column::numbers("IN B/S", 8, 3),
    Column::numbers("OUT B/S", 8, 3),
    Column::words("METHOD", 6, 7),
];

const CONNECTIONS: [Column; 7] = [
    Column::words("CLIENT", 20, 0),
    Column::words("STATE", 11, 0),
    Column::numbers("EXPIRES", 7, 0),
    Column::numbers("IN PACKETS", 10, 2),
    Column::numbers("OUT PACKETS", 11, 2),
    Column::words("VIRTUAL", 14, 3),
    Column::words("PROTOCOL", 8, 4),
];

const DROPS: [Column; 5] = [
    Column::words("REASON", 18, 0),
    Column::words("VERDICT", 8, 1),
    Column::numbers("PACKETS/S", 9, 0),
    Column::numbers("PACKETS", 8, 0),
    Column::words("MEANING", 20, 2),
];

const EVENTS: [Column; 2] = [Column::numbers("AGO", 8, 0), Column::words("EVENT", 20, 0)];

/// The columns of a table.
pub fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Services => &SERVICES,
        Kind::Servers => &SERVERS,
        Kind::Connections => &CONNECTIONS,
        Kind::Drops => &DROPS,
        Kind::Events => &EVENTS,
    }
}

/// The table of a place.
pub fn table(place: &Place, known: &Known, now: Instant) -> Table {
    let (rows, nothing, more) = match place {
        Place::Services => (services(known), "there are no services", false),
        Place::Servers { service } => (servers(known, service), "it has no servers", false),
        Place::Connections { .. } => {
            let all = known.look.connections.as_ref();
            let rows = all.into_iter().flat_map(|all| &all.connections).enumerate().map(connection).collect();
            let nothing = if all.is_some() { "it has no connections" } else { "asking the daemon" };
            (rows, nothing, all.is_some_and(|all| all.more))
        }
        Place::Drops => (drops(known), "no packet was dropped or answered with an error", false),
        Place::Events => (events(known, now), "nothing has happened since this command began", false),
    };
    Table { columns: columns(place.kind()), rows, nothing: nothing.to_owned(), more }
}

fn numbers<const N: usize>(all: [f64; N], text: fn(f64) -> String) -> [Cell; N] {
    all.map(|number| {
        let tone = if number == 0.0 { Tone::Faint } else { Tone::Plain };
        Cell::number(text(number), number).meant(tone)
    })
}

/// Why packets do not get to it, other than by its own state.
fn lost(server: &Server) -> Option<&str> {
    Some(server.next_hop.state.as_str()).filter(|state| ["no neighbour", "no route"].contains(state))
}

/// Whether its service has it in use.
fn used(server: &Server) -> bool {
    !["down", "away", "removed"].contains(&server.state.as_str())
}

fn up(server: &Server) -> bool {
    used(server) && server.is_in_table() && lost(server).is_none()
}

fn services(known: &Known) -> Vec<Row> {
    known.look.stats.services.iter().enumerate().map(|(place, one)| service(place, one, known)).collect()
}

fn service(place: usize, service: &Service, known: &Known) -> Row {
    let name = service.name();
    let speed = known.rates.service(&name);
    let sum = |of: fn(&Server) -> u32| service.servers.iter().map(|s| u64::from(of(s))).sum::<u64>() as f64;
    let all = service.servers.iter().filter(|server| server.state != "removed").count();
    let alive = service.servers.iter().filter(|server| up(server)).count();
    let tone = match alive {
        0 => Tone::Bad,
        alive if alive < all => Tone::Odd,
        _ => Tone::Good,
    };
    let scheduler = print::scheduler(service);
    let mut cells = vec![
        Cell::number(name.clone(), place as f64),
        Cell::number(format!("{alive}/{all}"), alive as f64).meant(tone),
    ];
    let [connections, arrived, left] = numbers([speed.connections, speed.in_packets, speed.out_packets], words::rate);
    cells.extend(numbers([sum(|s| s.active), sum(|s| s.inactive)], words::number));
    cells.extend([connections, arrived, left]);
    cells.extend(numbers([speed.in_bytes, speed.out_bytes], words::bytes));
    cells.push(Cell::text(scheduler.clone()));
    let connections = words::number(service.counters.connections as f64);
    let down: Vec<_> = service.servers.iter().filter(|s| !up(s)).map(|s| s.address.as_str()).collect();
    let not_up = if down.is_empty() { String::new() } else { format!("; not up: {}", down.join(", ")) };
    let detail = format!("{name}: scheduler {scheduler}, {connections} connections so far{not_up}");
    Row { id: name, cells, detail }
}

fn servers(known: &Known, service: &str) -> Vec<Row> {
    let servers = known.look.service(service).into_iter().flat_map(|service| &service.servers);
    servers.enumerate().map(|(place, one)| server(place, one, known)).collect()
}

fn health_tone(health: &Health) -> Tone {
    match health.state.as_str() {
        "up" => Tone::Good,
        "down" => Tone::Bad,
        _ => Tone::Odd,
    }
}

fn server(place: usize, server: &Server, known: &Known) -> Row {
    let speed = known.rates.server(&server.service, &server.address);
    // What keeps packets from it says more than that it would get some.
    let state = lost(server).filter(|_| used(server)).unwrap_or(&server.state);
    let tone = match state {
        "available" => Tone::Good,
        "down" | "no neighbour" | "no route" => Tone::Bad,
        "removed" | "away" => Tone::Faint,
        _ => Tone::Odd,
    };
    let health = server.health.as_ref().map_or_else(
        || Cell::text("-").meant(Tone::Faint),
        |health| {
            let text = format!("{} {}", health.state, words::roughly(health.for_s));
            Cell::text(text).meant(health_tone(health))
        },
    );
    let mut cells = vec![
        Cell::number(server.address.clone(), place as f64),
        Cell::number(print::weight(server), server.effective_weight),
        Cell::text(state).meant(tone),
        health,
    ];
    let [connections, arrived, left] = numbers([speed.connections, speed.in_packets, speed.out_packets], words::rate);
    cells.extend(numbers([server.active.into(), server.inactive.into()], words::number));
    cells.extend([connections, arrived, left]);
    cells.extend(numbers([speed.in_bytes, speed.out_bytes], words::bytes));
    cells.push(Cell::text(server.method.clone()));
    Row { id: server.address.clone(), cells, detail: server_detail(server) }
}

fn server_detail(server: &Server) -> String {
    let hop = &server.next_hop;
    let mut parts = vec![
        format!("{}: {}, {}", server.address, server.method, server.state),
        format!("next hop {} {}", hop.state, hop.mac).trim_end().to_owned(),
    ];
    if let Some(health) = &server.health {
        let checks = health.checks.join(", ");
        let why = health.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        parts.push(format!("checks ({checks}) {} for {}{why}", health.state, words::span(health.for_s)));
    }
    if server.upper > 0 {
        parts.push(format!("thresholds {}/{}", server.lower, server.upper));
    }
    if server.templates > 0 {
        parts.push(format!("{} persistence templates", server.templates));
    }
    parts.push(format!("{} connections so far", words::number(server.counters.connections as f64)));
    parts.join("; ")
}

fn connection((place, c): (usize, &Connection)) -> Row {
    let tone = if c.state == "ESTABLISHED" { Tone::Good } else { Tone::Plain };
    let cells = vec![
        Cell::number(c.client.clone(), place as f64),
        Cell::text(c.state.clone()).meant(tone),
        Cell::number(format!("{} s", c.expires_s), c.expires_s.into()),
        Cell::number(words::number(c.in_packets.into()), c.in_packets.into()),
        Cell::number(words::number(c.out_packets.into()), c.out_packets.into()),
        Cell::text(c.virtual_address.clone()),
        Cell::text(c.protocol.clone()),
    ];
    let way = format!("{} {} to {}, by {}", c.protocol, c.client, c.virtual_address, c.server);
    let id = format!("{} {} {}", c.protocol, c.client, c.virtual_address);
    Row { id, cells, detail: format!("{way}: {}, gone in {} s without a packet", c.state, c.expires_s) }
}

fn drops(known: &Known) -> Vec<Row> {
    let lost = known.look.stats.reasons.iter().filter(|reason| reason.is_loss() && reason.count > 0);
    lost.map(|reason| drop(reason, known.rates.reason(&reason.name))).collect()
}

fn drop(reason: &Reason, rate: f64) -> Row {
    let tone = if rate > 0.0 && reason.kind == "dropped" { Tone::Bad } else { Tone::Plain };
    let [each_second] = numbers([rate], words::rate);
    let [packets] = numbers([reason.count as f64], words::number);
    let cells = vec![
        Cell::text(reason.name.clone()).meant(tone),
        Cell::text(reason.kind.clone()),
        each_second,
        packets,
        Cell::text(reason.text.clone()),
    ];
    let detail = format!("{}: {} What to do: docs/drops.md.", reason.name, reason.text);
    Row { id: reason.name.clone(), cells, detail }
}

fn events(known: &Known, now: Instant) -> Vec<Row> {
    let row = |(place, (at, text)): (usize, &(Instant, String))| {
        let cells = vec![Cell::number(age(now, *at), place as f64), Cell::number(text.clone(), place as f64)];
        // Later ones come in front of it: it is told by its place from the end.
        Row { id: (known.events.len() - place).to_string(), cells, detail: text.clone() }
    };
    known.events.iter().enumerate().map(row).collect()
}
