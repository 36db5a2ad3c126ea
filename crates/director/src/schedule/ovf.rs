//! Overflow (ipvs-semantics §4.13): the server of the largest weight takes all until its
//! active connections exceed its weight, then the next.

use super::Client;
use super::least::{Cost, least};
use crate::records::{Server, Service};
use crate::tables::Tables;

struct Ovf;

impl Cost for Ovf {
    #[inline(always)]
    fn of(server: &Server) -> (u32, u32) {
        (1, server.weight.load())
    }
    #[inline(always)]
    fn takes(server: &Server) -> bool {
        server.connections().0 <= server.weight.load()
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: &Client) -> Option<u32> {
    least::<Ovf, T>(t, service)
}
