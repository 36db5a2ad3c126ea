//! Weighted least-connection (ipvs-semantics §4.4): the least
//! (256 · active + inactive) / weight, compared without dividing.

use super::{available, list};
use crate::records::Service;
use crate::tables::{Step, Tables};

struct Least {
    base: u32,
    /// (overhead, weight, index) of the best so far.
    best: Option<(u64, u64, u32)>,
}

impl<T: Tables> Step<T> for Least {
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(index) = t.slot(self.base.wrapping_add(i)) else { return false };
        let Some(server) = t.server(index) else { return true };
        if !available(server) {
            return true;
        }
        let (active, inactive) = server.connections();
        let overhead = u64::from(active.wrapping_mul(256).wrapping_add(inactive));
        let weight = u64::from(server.weight.load());
        let better = match self.best {
            None => true,
            Some((best, best_weight, _)) => best.wrapping_mul(weight) > overhead.wrapping_mul(best_weight),
        };
        if better {
            self.best = Some((overhead, weight, index));
        }
        true
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service) -> Option<u32> {
    let (base, len) = list(service);
    let mut least = Least { base, best: None };
    t.walk(len, &mut least);
    least.best.map(|(_, _, index)| index)
}
