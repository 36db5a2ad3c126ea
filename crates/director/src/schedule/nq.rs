//! Never queue (ipvs-semantics §4.6): the first idle server, else by the shortest
//! expected delay.

use super::Client;
use super::least::{Cost, least};
use super::sed::Sed;
use crate::records::{Server, Service};
use crate::tables::Tables;

struct Nq;

impl Cost for Nq {
    #[inline(always)]
    fn of(server: &Server) -> (u32, u32) {
        Sed::of(server)
    }
    #[inline(always)]
    fn settles(server: &Server) -> bool {
        server.connections().0 == 0
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: &Client) -> Option<u32> {
    least::<Nq, T>(t, service)
}
