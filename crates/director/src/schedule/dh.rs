//! Destination hashing (ipvs-semantics §4.8): the address that the client asked for
//! decides, for clusters of caches behind a firewall mark.

use super::hashed::{BUCKETS, bucket};
use super::{Client, TableServer, serves};
use crate::records::Service;
use crate::tables::Tables;

pub fn pick<T: Tables>(t: &T, service: &Service, client: &Client) -> Option<u32> {
    let (base, size) = service.table();
    if size != BUCKETS {
        return None;
    }
    let index = t.slot(base.wrapping_add(bucket(client.dest, 0, 0)))?;
    t.server(index).is_some_and(|server| serves(server, client)).then_some(index)
}

/// Each server in list order takes one bucket, round after round, whatever its weight.
/// User space only.
pub fn fill(servers: &mut [TableServer], slots: &mut [u32]) {
    for (slot, server) in slots.iter_mut().zip(servers.iter().cycle()) {
        *slot = server.index;
    }
}
