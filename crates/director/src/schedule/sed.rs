//! Shortest expected delay (ipvs-semantics §4.5): the least (active + 1) / weight.

use super::Client;
use super::least::{Cost, least};
use crate::records::{Server, Service};
use crate::tables::Tables;

pub struct Sed;

impl Cost for Sed {
    #[inline(always)]
    fn of(server: &Server) -> (u32, u32) {
        (server.connections().0.wrapping_add(1), server.weight.load())
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: &Client) -> Option<u32> {
    least::<Sed, T>(t, service)
}
