//! The power of two choices (ipvs-semantics §4.14): two servers at random, in proportion
//! to their weights, and of them the one with fewer connections for its weight.

use super::least::overhead;
use super::{Client, FREE, available, list};
use crate::records::{Server, Service};
use crate::tables::{Step, Tables};

/// Both choices in one walk: each server takes the place of an earlier one with the chance
/// of its weight in the sum so far, which leaves each with its weight in the whole. (IPVS
/// walks twice, and gives its first server one chance more; kernel 6.18's verifier gives
/// up on two walks.)
struct Two {
    base: u32,
    first: u32,
    second: u32,
    sum: u64,
}

impl<T: Tables> Step<T> for Two {
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(index) = t.slot(self.base.wrapping_add(i)) else { return false };
        let Some(server) = t.server(index) else { return true };
        if !available(server) {
            return true;
        }
        let weight = u64::from(server.weight.load());
        self.sum = self.sum.wrapping_add(weight);
        if below(t, self.sum) < weight {
            self.first = index;
        }
        if below(t, self.sum) < weight {
            self.second = index;
        }
        true
    }
}

/// A number below `sum`, which has 43 bits at most: 4096 weights of 2^31 − 1. Its upper
/// part is drawn alone where there is one, else the lower: off by 2^-32 at most.
#[inline(always)]
fn below<T: Tables>(t: &T, sum: u64) -> u64 {
    let random = u64::from(t.random());
    let (upper, lower) = (sum >> 32, sum & 0xffff_ffff);
    upper.wrapping_mul(random).wrapping_add(lower.wrapping_mul(random) >> 32)
}

/// Overhead times the other's weight.
#[inline(always)]
fn cost(server: &Server, other: &Server) -> u64 {
    u64::from(overhead(server)).wrapping_mul(u64::from(other.weight.load()))
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: &Client) -> Option<u32> {
    let (base, len) = list(service);
    let mut two = Two { base, first: FREE, second: FREE, sum: 0 };
    t.walk(len, &mut two);
    // The first available server is taken for sure: there are both or none.
    let (one, other) = (t.server(two.first)?, t.server(two.second)?);
    Some(if cost(one, other) > cost(other, one) { two.second } else { two.first })
}
