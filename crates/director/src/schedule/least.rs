//! The search that the least-connection schedulers share: the server with the least cost
//! for its weight, compared without dividing; of equals the first in the list.

use super::{available, list};
use crate::records::{Server, Service};
use crate::tables::{Step, Tables};

/// What a scheduler counts.
pub trait Cost {
    /// The cost of one more connection on this server, and the weight that divides it.
    fn of(server: &Server) -> (u32, u32);
    /// Whether an available server may take the connection.
    #[inline(always)]
    fn takes(_: &Server) -> bool {
        true
    }
    /// Whether the search ends with this server.
    #[inline(always)]
    fn settles(_: &Server) -> bool {
        false
    }
}

/// IPVS's overhead: an active connection is as much as 256 inactive ones.
#[inline(always)]
pub fn overhead(server: &Server) -> u32 {
    let (active, inactive) = server.connections();
    active.wrapping_mul(256).wrapping_add(inactive)
}

struct Least<C> {
    base: u32,
    /// (cost, weight, index) of the best so far.
    best: Option<(u64, u64, u32)>,
    cost: core::marker::PhantomData<C>,
}

impl<C: Cost, T: Tables> Step<T> for Least<C> {
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(index) = t.slot(self.base.wrapping_add(i)) else { return false };
        let Some(server) = t.server(index) else { return true };
        if !available(server) || !C::takes(server) {
            return true;
        }
        let (cost, weight) = C::of(server);
        let (cost, weight) = (u64::from(cost), u64::from(weight));
        if C::settles(server) {
            self.best = Some((cost, weight, index));
            return false;
        }
        let better = match self.best {
            None => true,
            Some((best, best_weight, _)) => best.wrapping_mul(weight) > cost.wrapping_mul(best_weight),
        };
        if better {
            self.best = Some((cost, weight, index));
        }
        true
    }
}

/// The service's server of the least cost.
#[inline(always)]
pub fn least<C: Cost, T: Tables>(t: &T, service: &Service) -> Option<u32> {
    let (base, len) = list(service);
    let mut least = Least::<C> { base, best: None, cost: core::marker::PhantomData };
    t.walk(len, &mut least);
    least.best.map(|(_, _, index)| index)
}
