//! Overflow (ipvs-semantics §4.13): the heaviest server that has not more active
//! connections than its weight.

use super::Client;
use super::heaviest::{Takes, heaviest};
use crate::records::{Server, Service};
use crate::tables::Tables;

struct Below;

impl Takes for Below {
    #[inline(always)]
    fn takes(server: &Server) -> bool {
        server.connections().0 <= server.weight.load()
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: Client) -> Option<u32> {
    heaviest::<Below, T>(t, service)
}
