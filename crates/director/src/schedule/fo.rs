//! Failover (ipvs-semantics §4.12): the available server of the largest weight takes all.

use super::Client;
use super::heaviest::{Takes, heaviest};
use crate::records::{Server, Service};
use crate::tables::Tables;

struct Any;

impl Takes for Any {
    #[inline(always)]
    fn takes(_: &Server) -> bool {
        true
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: Client) -> Option<u32> {
    heaviest::<Any, T>(t, service)
}
