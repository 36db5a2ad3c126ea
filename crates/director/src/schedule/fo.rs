//! Failover (ipvs-semantics §4.12): the available server of the largest weight takes all.

use super::Client;
use super::least::{Cost, least};
use crate::records::{Server, Service};
use crate::tables::Tables;

struct Fo;

impl Cost for Fo {
    #[inline(always)]
    fn of(server: &Server) -> (u32, u32) {
        (1, server.weight.load())
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: &Client) -> Option<u32> {
    least::<Fo, T>(t, service)
}
