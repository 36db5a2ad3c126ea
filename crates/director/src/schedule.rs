//! Which real server gets a new connection. Each scheduler is a file below;
//! lists, ties and formulas are IPVS's (ipvs-semantics §4): servers are walked
//! from the newest to the oldest, and of equals the first met wins.

mod mh;
mod rr;
mod wlc;
mod wrr;

pub use mh::{FREE as MH_FREE, MhServer, PRIME as MH_SIZE, fill as fill_mh};

use crate::records::{Scheduler, Server, Service, server_flag};
use crate::tables::{Step, Tables};

/// What a scheduler may know of the client.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its address, folded for hashing ([`crate::family::Address::hash_fold`]).
    pub addr: u32,
    /// Its port.
    pub port: u16,
}

/// Whether the server takes new connections: weight, threshold, configured.
#[inline(always)]
pub fn available(server: &Server) -> bool {
    let flags = server.flags.load();
    server.weight.load() > 0 && flags & (server_flag::AVAILABLE | server_flag::OVERLOAD) == server_flag::AVAILABLE
}

/// The service's list: where it begins in the slots, and its length.
#[inline(always)]
pub(crate) fn list(service: &Service) -> (u32, u32) {
    let word = service.list.load();
    ((word >> 32) as u32, word as u32)
}

/// Chooses a server: its index.
#[inline(never)]
pub fn schedule<T: Tables>(t: &T, service: &Service, client: Client) -> Option<u32> {
    const RR: u32 = Scheduler::Rr as u32;
    const WRR: u32 = Scheduler::Wrr as u32;
    const WLC: u32 = Scheduler::Wlc as u32;
    const MH: u32 = Scheduler::Mh as u32;
    match service.scheduler {
        RR => rr::pick(t, service),
        WRR => wrr::pick(t, service),
        WLC => wlc::pick(t, service),
        MH => mh::pick(t, service, client),
        _ => None,
    }
}

/// The first available server of the list after `skip` of them.
struct NthAvailable {
    base: u32,
    skip: u32,
    found: Option<u32>,
}

impl<T: Tables> Step<T> for NthAvailable {
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(index) = t.slot(self.base.wrapping_add(i)) else { return false };
        if t.server(index).is_some_and(available) {
            if self.skip == 0 {
                self.found = Some(index);
                return false;
            }
            self.skip -= 1;
        }
        true
    }
}

/// The `n`th available server in list order: for a connection that its
/// scheduled server cannot take.
#[inline(never)]
pub fn nth_available<T: Tables>(t: &T, service: &Service, n: u32) -> Option<u32> {
    let (base, len) = list(service);
    let mut walk = NthAvailable { base, skip: n, found: None };
    t.walk(len, &mut walk);
    walk.found
}
