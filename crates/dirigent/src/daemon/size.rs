//! How many connections, services and servers there is room for.

use crate::failure::{Failure, Result};
use dirigent_config::{MAX_SERVERS, MAX_SERVICES, MAX_SLOTS, Model, Service, Settings};
use dirigent_datapath::control::Room;
use dirigent_director::records::{Conn, Tuple, map};
use dirigent_wire::{Addr4, Addr6};
use nix::unistd::{SysconfVar, sysconf};
use std::fs;

/// The default is no more than this many.
const DEFAULT: u64 = 1 << 20;
/// Room for services, servers and slots of all of them together, if no more is needed.
const SERVICES: u32 = 16384;
const SERVERS: u32 = 131_072;
const SLOTS: u32 = 4_194_304;
/// Room for addresses of this host that are no services'.
const LOCALS: u32 = 4096;
/// The default is no more than this part of memory.
const SHARE: u64 = 16;
/// NAT has one entry for each direction.
const ENTRIES: u64 = 2;
/// What the kernel adds to key and value of a hash table's element.
const ELEMENT: u64 = 48;
/// Its hash bucket, of which there are as many as elements or up to twice.
const BUCKET: u64 = 16;

/// Bytes that a connection takes in the table of its family.
const fn bytes_each<A>() -> u64 {
    ENTRIES * (size_of::<Tuple<A>>() as u64 + size_of::<Conn<A>>() as u64 + ELEMENT)
}

/// The sizes of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Connections of each address family.
    pub connections: u64,
    /// What is configured.
    pub room: Room,
}

/// For this much there is room, unless more is said or needed: a quarter more than what is there from the beginning, and
/// twice its slots, of which a change takes new ones before it gives the old ones back.
fn room(settings: &Settings, model: &Model) -> Room {
    let sum = |of: &dyn Fn(&Service) -> u64| model.services().iter().map(of).sum::<u64>();
    let number = |n: usize| n as u64;
    let services = number(model.services().len());
    let servers = sum(&|service| number(service.servers.len()));
    let slots = sum(&|service| {
        let servers = number(service.servers.len());
        let ids = if service.quic { 2 * servers + 1 } else { 0 };
        servers + u64::from(service.table_slots()) + ids
    });
    let fits = |least: u32, needed: u64, most: u32| u32::try_from(needed).unwrap_or(most).clamp(least, most);
    Room {
        services: settings.services.unwrap_or_else(|| fits(SERVICES, services + services / 4, MAX_SERVICES)),
        servers: settings.servers.unwrap_or_else(|| fits(SERVERS, servers + servers / 4, MAX_SERVERS)),
        slots: settings.slots.unwrap_or_else(|| fits(SLOTS, 2 * slots, MAX_SLOTS)),
    }
}

impl Size {
    /// As configured, or by this host's memory and what the director begins with.
    pub fn of(settings: &Settings, model: &Model) -> Result<Self> {
        let connections = match settings.connections {
            Some(connections) => connections,
            None => for_memory(memory()?),
        };
        Ok(Self { connections, room: room(settings, model) })
    }

    /// That of tables which are there, but as configured where that is said: whoever takes them over is told of
    /// what cannot be.
    pub fn as_said(self, settings: &Settings) -> Self {
        let Room { services, servers, slots } = self.room;
        let room = Room {
            services: settings.services.unwrap_or(services),
            servers: settings.servers.unwrap_or(servers),
            slots: settings.slots.unwrap_or(slots),
        };
        Self { connections: settings.connections.unwrap_or(self.connections), room }
    }

    /// Entries of each table.
    pub fn entries(self) -> u32 {
        u32::try_from(self.connections * ENTRIES).unwrap_or(u32::MAX)
    }

    /// What tables with that many entries have room for: connections' of one family, and the others'.
    pub fn of_entries(connections: u32, room: Room) -> Self {
        Self { connections: u64::from(connections) / ENTRIES, room }
    }

    /// Memory of both tables of connections.
    pub fn bytes(self) -> u64 {
        let buckets = 2 * BUCKET * u64::from(self.entries()).next_power_of_two();
        self.connections * (bytes_each::<Addr4>() + bytes_each::<Addr6>()) + buckets
    }

    /// For the loader.
    pub fn maps(self) -> [(&'static str, u32); 15] {
        let Room { services, servers, slots } = self.room;
        [
            (map::CONNS4, self.entries()),
            (map::CONNS6, self.entries()),
            (map::SERVICES, services),
            // The last one is of no service.
            (map::BASES, services + 1),
            // A place each, and one of its whole address.
            (map::SERVICES4, 2 * services),
            (map::SERVICES6, 2 * services),
            // Each service may have an address of its own.
            (map::LOCAL4, LOCALS + services),
            (map::LOCAL6, LOCALS + services),
            (map::SERVERS, servers),
            (map::NEXT_HOPS, servers),
            (map::COUNTERS, servers),
            (map::ORIGINS, servers),
            (map::KNOWN4, 4 * servers),
            (map::KNOWN6, 4 * servers),
            (map::SLOTS, slots),
        ]
    }

    /// For the operator.
    pub fn sentence(self, configured: bool) -> String {
        let why = if configured { "as configured" } else { "by default" };
        format!(
            "room for {} connections in each address family ({why}), two entries each: the tables take {} of memory; \
             `connections = N` in [director] changes that",
            self.connections,
            crate::print::bytes(self.bytes())
        )
    }
}

/// Connections whose tables, both families', are within their share of the memory.
fn for_memory(memory: u64) -> u64 {
    let each = bytes_each::<Addr4>() + bytes_each::<Addr6>() + 2 * ENTRIES * BUCKET;
    (memory / SHARE / each).clamp(1024, DEFAULT)
}

/// Memory of this host, bytes.
fn memory() -> Result<u64> {
    lines(&read()?, &["MemTotal:"]).map(|kb| kb * 1024)
}

/// Pages of memory that are free or hold buffers: what IPVS's defence goes by.
pub fn available_pages() -> Result<u64> {
    Ok(lines(&read()?, &["MemFree:", "Buffers:"])? * 1024 / page_size()?)
}

/// Bytes of a page.
fn page_size() -> Result<u64> {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
    size.filter(|size| *size > 0).ok_or_else(|| Failure::new("", "the system does not tell the size of a page", ""))
}

const FILE: &str = "/proc/meminfo";

fn read() -> Result<String> {
    fs::read_to_string(FILE).map_err(|e| Failure::io(FILE, &e))
}

/// The sum of these lines, kB.
fn lines(text: &str, names: &[&str]) -> Result<u64> {
    let line = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let sum = names.iter().try_fold(0u64, |sum, name| sum.checked_add(line(name)?));
    sum.ok_or_else(|| Failure::new(FILE, "it does not tell the memory", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        let text = "MemTotal:       2000 kB\nMemFree:         300 kB\nBuffers:          44 kB\n";
        assert_eq!(lines(text, &["MemFree:", "Buffers:"]).unwrap(), 344);
        assert!(lines("MemFree: 300 kB\n", &["MemFree:", "Buffers:"]).is_err());
        assert!(lines("MemFree: many\n", &["MemFree:"]).is_err());
        assert!(available_pages().unwrap() * page_size().unwrap() <= memory().unwrap());
    }

    #[test]
    fn an_ipv4_entry_is_two_cache_lines() {
        assert_eq!(bytes_each::<Addr4>(), 2 * 128);
    }

    #[test]
    fn the_default_is_a_million_or_a_sixteenth_of_memory() {
        assert_eq!(for_memory(1 << 40), 1 << 20);
        let small = Size { connections: for_memory(1 << 30), room: room(&Settings::default(), &Model::default()) };
        assert!(small.bytes() <= (1 << 30) / 16 + (8 << 20), "{}", small.bytes());
        assert!(small.connections > 50_000);
        assert_eq!(for_memory(0), 1024);
    }

    /// A director that begins with much has room for it and some more, unless it is told otherwise.
    #[test]
    fn the_room_is_that_of_what_it_begins_with() {
        let of = |settings: &Settings, text: &str| room(settings, &dirigent_config::file::parse("f", text).unwrap());
        let default = Room { services: SERVICES, servers: SERVERS, slots: SLOTS };
        assert_eq!(of(&Settings::default(), "version = 1\n"), default);
        let service = |n: u32| {
            let at = format!("protocol = \"tcp\"\naddress = \"192.0.2.{n}:80\"");
            let server = "[[service.server]]\naddress = \"10.0.0.2:80\"";
            format!("[[service]]\n{at}\nscheduler = \"mh\"\ntable_size = 131071\n{server}\n")
        };
        let large = (1..=40).fold("version = 1\n".to_owned(), |text, n| text + &service(n));
        assert_eq!(of(&Settings::default(), &large), Room { slots: 2 * 40 * 131_072, ..default });
        let said = Settings { services: Some(3), servers: Some(2), slots: Some(5_000_000), ..Settings::default() };
        assert_eq!(of(&said, &large), Room { services: 3, servers: 2, slots: 5_000_000 });
    }
}
