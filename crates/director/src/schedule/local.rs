//! What lblc and lblcr share (ipvs-semantics §4.10, 4.11): when a server has too much to do
//! for the destinations that are its own.

use super::list;
use crate::records::{Server, Service};
use crate::tables::{Step, Tables};

struct Idle {
    base: u32,
    found: bool,
}

impl<T: Tables> Step<T> for Idle {
    #[inline(always)]
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(server) = t.slot(self.base.wrapping_add(i)).and_then(|index| t.server(index)) else { return true };
        let (active, _) = server.connections();
        self.found = active.wrapping_mul(2) < server.weight.load();
        !self.found
    }
}

/// Whether the server has more active connections than its weight while some other has
/// fewer than half of its own.
#[inline(always)]
pub fn overloaded<T: Tables>(t: &T, service: &Service, server: &Server) -> bool {
    if server.connections().0 <= server.weight.load() {
        return false;
    }
    let (base, len) = list(service);
    let mut idle = Idle { base, found: false };
    t.walk(len, &mut idle);
    idle.found
}
