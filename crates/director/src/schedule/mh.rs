//! Maglev hashing (Eisenbud et al., NSDI 2016, §3.4) with IPVS's table size,
//! hash and turns (ipvs-semantics §4.9).

use super::{Client, FREE, TableServer, available, list, serves};
use crate::records::{Service, service_flag};
use crate::tables::{Step, Tables};

/// The sizes that a table may have: IPVS's primes (there it is one for all, chosen when the kernel is built).
pub const PRIMES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131_071];
/// The slots of a table for which none were chosen: IPVS's default.
pub const SIZE: u32 = 4093;
const KEY1: u64 = 2_654_435_761;
const KEY2: u64 = 2_654_446_892;

/// SipHash-1-3 of the four little-endian bytes of `x` under the key (k, k),
/// folded as Linux's `hsiphash_1u32` does on 64-bit machines.
#[inline(always)]
fn hash(key: u64, x: u32) -> u32 {
    let word = 4 << 56 | u64::from(x);
    let v = [
        0x736f_6d65_7073_6575 ^ key,
        0x646f_7261_6e64_6f6d ^ key,
        0x6c79_6765_6e65_7261 ^ key,
        0x7465_6462_7974_6573 ^ key ^ word,
    ];
    let [v0, v1, v2, v3] = round(v);
    let [v0, v1, v2, v3] = round(round(round([v0 ^ word, v1, v2 ^ 0xff, v3])));
    (v0 ^ v1 ^ v2 ^ v3) as u32
}

#[inline(always)]
fn round([mut v0, mut v1, mut v2, mut v3]: [u64; 4]) -> [u64; 4] {
    v0 = v0.wrapping_add(v1);
    v1 = v1.rotate_left(13) ^ v0;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v3);
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.wrapping_add(v3);
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(17) ^ v2;
    v2 = v2.rotate_left(32);
    [v0, v1, v2, v3]
}

/// Bits of a weight that count in a table of `size` slots: half of what the first power of two over it has, as IPVS's
/// build index says.
fn weight_bits(size: usize) -> u32 {
    (usize::BITS - size.leading_zeros()) / 2
}

/// Looks for an available server from a slot onwards (mh-fallback).
struct Fallback {
    base: u32,
    size: u32,
    x: u32,
    first: u32,
    found: Option<u32>,
}

impl<T: Tables> Step<T> for Fallback {
    fn step(&mut self, t: &T, i: u32) -> bool {
        let offset = self.first.wrapping_add(i).checked_rem(self.size).unwrap_or(0);
        let slot = hash(KEY1, self.x.wrapping_add(offset)).checked_rem(self.size).unwrap_or(0);
        let Some(index) = t.slot(self.base.wrapping_add(slot)) else { return false };
        if t.server(index).is_some_and(available) {
            self.found = Some(index);
            return false;
        }
        true
    }
}

/// Looks whether any server of a list is available.
struct Someone {
    base: u32,
    found: bool,
}

impl<T: Tables> Step<T> for Someone {
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(index) = t.slot(self.base.wrapping_add(i)) else { return false };
        self.found = t.server(index).is_some_and(available);
        !self.found
    }
}

pub fn pick<T: Tables>(t: &T, service: &Service, client: &Client) -> Option<u32> {
    let (base, size) = service.table();
    let port = if service.flags & service_flag::HASH_PORT != 0 { u32::from(client.port) } else { 0 };
    let x = client.addr.wrapping_add(port);
    let first = hash(KEY1, x).checked_rem(size)?;
    let index = t.slot(base.wrapping_add(first))?;
    if t.server(index).is_some_and(|server| serves(server, client)) {
        return Some(index);
    }
    if service.flags & service_flag::HASH_FALLBACK == 0 {
        return None;
    }
    // Where nobody is available, a look at the servers says so, rather than one at each of a hundred thousand slots.
    let (list, len) = list(service);
    let mut someone = Someone { base: list, found: false };
    t.walk(len, &mut someone);
    if !someone.found {
        return None;
    }
    let mut fallback = Fallback { base, size, x, first, found: None };
    t.walk(size, &mut fallback);
    fallback.found
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Where a server's permutation of a table of `size` slots begins, and its steps. `x`: its address and port, folded.
fn permutation(x: u32, size: u32) -> (u32, u32) {
    (hash(KEY1, x) % size, hash(KEY2, x) % (size - 1) + 1)
}

/// Fills `slots` (one of [`PRIMES`] of them, [`FREE`] before) from the servers in list
/// order: round after round each takes its turns at the next free slots of its
/// own permutation of the table, by its last weight that was not 0, so that
/// quiescing it moves nobody else's clients. User space only.
pub fn fill(servers: &mut [TableServer], slots: &mut [u32]) {
    let divisor = servers.iter().fold(0, |g, s| gcd(g, s.last_weight)).max(1);
    let largest = servers.iter().map(|s| s.last_weight).max().unwrap_or(0) / divisor;
    let shift = (u32::BITS - largest.leading_zeros()).saturating_sub(weight_bits(slots.len()));
    let size = slots.len() as u32;
    for server in servers.iter_mut() {
        let x = server.addr.wrapping_add(u32::from(server.port));
        (server.next, server.skip) = permutation(x, size);
        server.turns = match server.last_weight {
            0 => 0,
            w => ((w / divisor) >> shift).max(1),
        };
    }
    if largest == 0 {
        return;
    }
    let mut free = slots.iter().filter(|s| **s == FREE).count();
    loop {
        for server in servers.iter_mut() {
            for _ in 0..server.turns {
                if free == 0 {
                    return;
                }
                while slots.get(server.next as usize).is_some_and(|s| *s != FREE) {
                    server.next = (server.next + server.skip) % size;
                }
                let Some(slot) = slots.get_mut(server.next as usize) else { return };
                *slot = server.index;
                free -= 1;
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test")]
mod tests {
    use super::*;
    use crate::family::Address;
    use dirigent_wire::Addr4;
    use std::collections::HashMap;

    fn fold(a: [u8; 4]) -> u32 {
        Addr4::new(a).hash_fold()
    }

    /// The vectors of ipvs-semantics §4.9.
    #[test]
    fn hashes_as_the_kernel() {
        assert_eq!(hash(KEY1, fold([192, 168, 1, 1])), 0xd3f1_b4d3);
        let slot = |a| hash(KEY1, fold(a)) % SIZE;
        assert_eq!([slot([192, 168, 1, 1]), slot([192, 168, 1, 2]), slot([10, 0, 0, 1])], [2456, 811, 3711]);
        assert_eq!(hash(KEY1, fold([10, 0, 0, 1]) + 40000) % SIZE, 2940);
        assert_eq!(permutation(fold([172, 16, 0, 1]) + 80, SIZE), (407, 507));
    }

    fn draw(seed: &mut u32) -> u32 {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *seed >> 8
    }

    /// Fills tables of `size` slots with `count` servers of weight 1 and without one of them. What the
    /// first has, and the slots of the servers that stay, with how many of those moved.
    fn without_one(seed: &mut u32, size: u32, count: u32) -> (Vec<usize>, usize, usize) {
        let (network, step) = (draw(seed), 1 + draw(seed) % 3);
        let all: Vec<u32> = (0..count).map(|n| network.wrapping_add(n * step)).collect();
        let table = |addresses: &[u32]| {
            let server = |(n, a): (usize, &u32)| TableServer::new(n as u32, *a, 80, (1, 1));
            let mut servers: Vec<_> = addresses.iter().enumerate().map(server).collect();
            let mut slots = vec![FREE; size as usize];
            fill(&mut servers, &mut slots);
            let owners: Vec<u32> = slots.into_iter().map(|slot| addresses[slot as usize]).collect();
            owners
        };
        let mut some = all.clone();
        let gone = some.remove(draw(seed) as usize % all.len());
        let (before, after) = (table(&all), table(&some));
        let mut owned = HashMap::new();
        before.iter().for_each(|slot| *owned.entry(*slot).or_insert(0) += 1);
        assert!(!after.contains(&gone));
        let others = before.iter().filter(|slot| **slot != gone).count();
        let moved = before.iter().zip(&after).filter(|(was, is)| **was != gone && was != is).count();
        (owned.into_values().collect(), others, moved)
    }

    /// The paper's promises (Maglev §3.4, §5.3) for its rule of a hundred slots a server: equal
    /// servers differ by a slot, and when one leaves few of the others' slots move. The paper
    /// shows the latter as a curve; this is what tables of these sizes do, with some room. The larger
    /// is the paper's own, with as many servers as the rule allows it.
    #[test]
    fn one_that_leaves_moves_few_of_the_others_slots() {
        let seed = &mut 1;
        let small = [2_u32, 3, 5, 10, 20, 40].into_iter().cycle().take(60).map(|count| (SIZE, count, 60));
        let large = [(65521, 2, 5), (65521, 100, 15), (65521, 655, 35)];
        for (size, count, of_thousand) in small.chain(large) {
            let (owned, others, moved) = without_one(seed, size, count);
            let (most, least) = owned.iter().fold((0, usize::MAX), |(m, l), n| (m.max(*n), l.min(*n)));
            assert_eq!(owned.len(), count as usize);
            assert!(most - least <= 1, "{count} servers: {owned:?}");
            assert!(moved * 1000 <= others * of_thousand, "{size} slots, {count} servers: {moved} of {others} moved");
        }
    }

    /// More slots a server, fewer that move: what the larger table is for.
    #[test]
    fn the_larger_table_moves_fewer() {
        let part = |size| {
            let (_, others, moved) = without_one(&mut 7, size, 100);
            moved as f64 / others as f64
        };
        let parts = [4093, 65521].map(part);
        assert!(parts[1] * 2.0 < parts[0], "{parts:?}");
    }

    /// Half the index of the prime in IPVS's list, which begins with 8.
    #[test]
    fn more_bits_of_a_weight_count_in_larger_tables() {
        assert_eq!(PRIMES.map(|size| weight_bits(size as usize)), [4, 4, 5, 5, 6, 6, 7, 7, 8, 8]);
        let shares = |size: u32| {
            let mut servers = [1, 255].map(|w| TableServer::new(w, 7 * w, 80, (w, w)));
            let mut slots = vec![FREE; size as usize];
            fill(&mut servers, &mut slots);
            [1, 255].map(|w| slots.iter().filter(|s| **s == w).count())
        };
        // 255 is 63 >> 2 of 6 bits, and all of it of 8; the smallest turn is one.
        assert_eq!(shares(4093), [64, 4029]);
        assert_eq!(shares(65521), [256, 65265]);
    }

    fn table(weights: [u32; 3]) -> ([usize; 3], impl Fn([u8; 4]) -> u32) {
        // List order: .3, .2, .1; the index is the last byte.
        let mut servers =
            [3u8, 2, 1].map(|n| TableServer::new(n.into(), fold([172, 16, 0, n]), 80, (1, weights[usize::from(n) - 1])));
        let mut slots = [FREE; SIZE as usize];
        fill(&mut servers, &mut slots);
        let owned = [3, 2, 1].map(|n| slots.iter().filter(|s| **s == n).count());
        (owned, move |a| slots[(hash(KEY1, fold(a)) % SIZE) as usize])
    }

    #[test]
    fn fills_as_the_kernel() {
        let (owned, of) = table([1, 1, 1]);
        assert_eq!(owned, [1365, 1364, 1364]);
        assert_eq!([of([192, 168, 1, 1]), of([192, 168, 1, 2]), of([10, 0, 0, 1])], [2, 1, 2]);
        assert_eq!(table([3, 2, 1]).0, [683, 1364, 2046]);
    }
}
