//! Which real server gets a new connection. Each scheduler is a file below;
//! lists, ties and formulas are IPVS's (ipvs-semantics §4): servers are walked
//! from the newest to the oldest, and of equals the first met wins.

mod mh;
mod rr;
mod wlc;
mod wrr;

pub use mh::{FREE as MH_FREE, MhServer, PRIME as MH_SIZE, fill as fill_mh};

use crate::family::Family;
use crate::open;
use crate::records::{Scheduler, Server, Service, Tuple, server_flag};
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
pub fn list(service: &Service) -> (u32, u32) {
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

/// Repeats a try that lost the race for the service's cursor; after the second
/// the choice stands without moving it. Written out: kernel 6.1 refuses a loop
/// whose end falls through to its middle, as the compiler likes to lay it out.
#[inline(always)]
fn settle(attempt: impl Fn() -> Option<(u32, bool)>) -> Option<u32> {
    let (index, moved) = attempt()?;
    if moved {
        return Some(index);
    }
    attempt().map(|(index, _)| index)
}

/// Looks for a server whose answers to `key` would not be mistaken.
struct Free<'k, F: Family> {
    base: u32,
    key: &'k Tuple<F::Addr>,
    found: Option<u32>,
}

impl<F: Family, T: Tables> Step<T> for Free<'_, F> {
    #[inline(always)]
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(index) = t.slot(self.base.wrapping_add(i)) else { return false };
        let Some(server) = t.server(index) else { return true };
        if !available(server) || F::conn(t, &open::reply_tuple::<F>(self.key, server)).is_some() {
            return true;
        }
        self.found = Some(index);
        false
    }
}

/// The first available server in list order that has no connection of `key`'s
/// client port yet: for a connection that its scheduled server cannot take.
#[inline(never)]
pub fn first_free<F: Family, T: Tables>(t: &T, service: u32, key: &Tuple<F::Addr>) -> Option<u32> {
    let (base, len) = list(t.service(service)?);
    let mut walk = Free::<F> { base, key, found: None };
    t.walk(len, &mut walk);
    walk.found
}
