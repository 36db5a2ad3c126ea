//! The search that fo and ovf share: the server of the largest weight; of equals the
//! first in the list.

use super::{available, list};
use crate::records::{Server, Service};
use crate::tables::{Step, Tables};

/// Whether a server may take the connection.
pub trait Takes {
    /// Of an available one.
    fn takes(server: &Server) -> bool;
}

struct Heaviest<W> {
    base: u32,
    /// (weight, index) of the best so far; weights are never 0.
    best: (u32, u32),
    who: core::marker::PhantomData<W>,
}

impl<W: Takes, T: Tables> Step<T> for Heaviest<W> {
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(index) = t.slot(self.base.wrapping_add(i)) else { return false };
        let Some(server) = t.server(index) else { return true };
        let weight = server.weight.load();
        if available(server) && weight > self.best.0 && W::takes(server) {
            self.best = (weight, index);
        }
        true
    }
}

/// The service's heaviest server that takes the connection.
#[inline(always)]
pub fn heaviest<W: Takes, T: Tables>(t: &T, service: &Service) -> Option<u32> {
    let (base, len) = list(service);
    let mut heaviest = Heaviest::<W> { base, best: (0, 0), who: core::marker::PhantomData };
    t.walk(len, &mut heaviest);
    match heaviest.best {
        (0, _) => None,
        (_, index) => Some(index),
    }
}
