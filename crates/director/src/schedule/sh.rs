//! Source hashing (ipvs-semantics §4.7): the client's address decides.

use super::hashed::{BUCKETS, bucket};
use super::{Client, FREE, TableServer, available, serves};
use crate::records::{Service, service_flag};
use crate::tables::{Step, Tables};

/// Looks for an available server from a bucket onwards (sh-fallback).
struct Fallback {
    base: u32,
    addr: u32,
    port: u32,
    first: u32,
    found: Option<u32>,
}

impl<T: Tables> Step<T> for Fallback {
    fn step(&mut self, t: &T, i: u32) -> bool {
        // As IPVS has it: the first bucket is an offset, to which its hash is added again.
        let offset = i.wrapping_add(self.first) & (BUCKETS - 1);
        let bucket = bucket(self.addr, self.port, offset);
        let Some(index) = t.slot(self.base.wrapping_add(bucket)).filter(|index| *index != FREE) else { return false };
        if t.server(index).is_some_and(available) {
            self.found = Some(index);
            return false;
        }
        true
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, client: &Client) -> Option<u32> {
    let (base, size) = service.table();
    if size != BUCKETS {
        return None;
    }
    let port = if service.flags & service_flag::HASH_PORT != 0 { u32::from(client.port) } else { 0 };
    let first = bucket(client.addr, port, 0);
    let index = t.slot(base.wrapping_add(first))?;
    if t.server(index).is_some_and(|server| serves(server, client)) {
        return Some(index);
    }
    if service.flags & service_flag::HASH_FALLBACK == 0 {
        return None;
    }
    let mut fallback = Fallback { base, addr: client.addr, port, first, found: None };
    t.walk(BUCKETS, &mut fallback);
    fallback.found
}

/// Each server in list order takes as many buckets as its weight, one at least, round
/// after round. User space only.
pub fn fill(servers: &mut [TableServer], slots: &mut [u32]) {
    let each = servers.iter().flat_map(|s| core::iter::repeat_n(s.index, s.weight.max(1) as usize)).cycle();
    for (slot, index) in slots.iter_mut().zip(each) {
        *slot = index;
    }
}
