//! Least-connection (ipvs-semantics §4.3): the least 256 · active + inactive; a weight
//! counts only by being 0.

use super::Client;
use super::least::{Cost, least, overhead};
use crate::records::{Server, Service};
use crate::tables::Tables;

struct Lc;

impl Cost for Lc {
    #[inline(always)]
    fn of(server: &Server) -> (u32, u32) {
        (overhead(server), 1)
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: &Client) -> Option<u32> {
    least::<Lc, T>(t, service)
}
