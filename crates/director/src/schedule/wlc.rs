//! Weighted least-connection (ipvs-semantics §4.4), ipvsadm's default: the least
//! (256 · active + inactive) / weight.

use super::Client;
use super::least::{Cost, least, overhead};
use crate::records::{Server, Service};
use crate::tables::Tables;

pub struct Wlc;

impl Cost for Wlc {
    #[inline(always)]
    fn of(server: &Server) -> (u32, u32) {
        (overhead(server), server.weight.load())
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: &Client) -> Option<u32> {
    least::<Wlc, T>(t, service)
}
