//! How many connections there is room for.

use crate::failure::{Failure, Result};
use dirigent_director::records::{Conn, Tuple, map};
use dirigent_wire::{Addr4, Addr6};
use nix::unistd::{SysconfVar, sysconf};
use std::fs;

/// The default is no more than this many.
const DEFAULT: u64 = 1 << 20;
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

/// The sizes of the connection tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Connections of each address family.
    pub connections: u64,
}

impl Size {
    /// As configured, or by this host's memory.
    pub fn of(configured: Option<u64>) -> Result<Self> {
        match configured {
            Some(connections) => Ok(Self { connections }),
            None => Ok(Self::for_memory(memory()?)),
        }
    }

    /// Both families' tables within their share of the memory.
    fn for_memory(memory: u64) -> Self {
        let each = bytes_each::<Addr4>() + bytes_each::<Addr6>() + 2 * ENTRIES * BUCKET;
        Self { connections: (memory / SHARE / each).clamp(1024, DEFAULT) }
    }

    /// Entries of each table.
    pub fn entries(self) -> u32 {
        u32::try_from(self.connections * ENTRIES).unwrap_or(u32::MAX)
    }

    /// What a table with that many entries has room for.
    pub fn of_entries(entries: u32) -> Self {
        Self { connections: u64::from(entries) / ENTRIES }
    }

    /// Memory of both tables.
    pub fn bytes(self) -> u64 {
        let buckets = 2 * BUCKET * u64::from(self.entries()).next_power_of_two();
        self.connections * (bytes_each::<Addr4>() + bytes_each::<Addr6>()) + buckets
    }

    /// For the loader.
    pub fn maps(self) -> [(&'static str, u32); 2] {
        [(map::CONNS4, self.entries()), (map::CONNS6, self.entries())]
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
        assert_eq!(Size::for_memory(1 << 40).connections, 1 << 20);
        let small = Size::for_memory(1 << 30);
        assert!(small.bytes() <= (1 << 30) / 16 + (8 << 20), "{}", small.bytes());
        assert!(small.connections > 50_000);
        assert_eq!(Size::for_memory(0).connections, 1024);
    }
}
