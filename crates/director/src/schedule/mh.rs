//! Maglev hashing (Eisenbud et al., NSDI 2016, §3.4) with IPVS's table size,
//! hash and turns (ipvs-semantics §4.9).

use super::{Client, FREE, TableServer, available, serves};
use crate::records::{Service, service_flag};
use crate::tables::{Step, Tables};

/// Slots of the table: IPVS's default prime.
pub const PRIME: u32 = 4093;
/// Bits of a weight that count: half the index of the prime in IPVS's list.
const WEIGHT_BITS: u32 = 6;
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

pub fn pick<T: Tables>(t: &T, service: &Service, client: &Client) -> Option<u32> {
    let size = service.table_size;
    let port = if service.flags & service_flag::HASH_PORT != 0 { u32::from(client.port) } else { 0 };
    let x = client.addr.wrapping_add(port);
    let first = hash(KEY1, x).checked_rem(size)?;
    let index = t.slot(service.table_base.wrapping_add(first))?;
    if t.server(index).is_some_and(|server| serves(server, client)) {
        return Some(index);
    }
    if service.flags & service_flag::HASH_FALLBACK == 0 {
        return None;
    }
    let mut fallback = Fallback { base: service.table_base, size, x, first, found: None };
    t.walk(size, &mut fallback);
    fallback.found
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Fills `slots` ([`PRIME`] of them, [`FREE`] before) from the servers in list
/// order: round after round each takes its turns at the next free slots of its
/// own permutation of the table, by its last weight that was not 0, so that
/// quiescing it moves nobody else's clients. User space only.
pub fn fill(servers: &mut [TableServer], slots: &mut [u32]) {
    let divisor = servers.iter().fold(0, |g, s| gcd(g, s.last_weight)).max(1);
    let largest = servers.iter().map(|s| s.last_weight).max().unwrap_or(0) / divisor;
    let shift = (u32::BITS - largest.leading_zeros()).saturating_sub(WEIGHT_BITS);
    for server in servers.iter_mut() {
        let x = server.addr.wrapping_add(u32::from(server.port));
        (server.next, server.skip) = (hash(KEY1, x) % PRIME, hash(KEY2, x) % (PRIME - 1) + 1);
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
                    server.next = (server.next + server.skip) % PRIME;
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

    fn fold(a: [u8; 4]) -> u32 {
        Addr4::new(a).hash_fold()
    }

    /// The vectors of ipvs-semantics §4.9.
    #[test]
    fn hashes_as_the_kernel() {
        assert_eq!(hash(KEY1, fold([192, 168, 1, 1])), 0xd3f1_b4d3);
        let slot = |a| hash(KEY1, fold(a)) % PRIME;
        assert_eq!([slot([192, 168, 1, 1]), slot([192, 168, 1, 2]), slot([10, 0, 0, 1])], [2456, 811, 3711]);
        assert_eq!(hash(KEY1, fold([10, 0, 0, 1]) + 40000) % PRIME, 2940);
        let mut s = [TableServer::new(0, fold([172, 16, 0, 1]), 80, (1, 1))];
        fill(&mut s, &mut []);
        assert_eq!((s[0].next, s[0].skip), (407, 507));
    }

    /// The paper's promises (Maglev §3.4, §5.3) for its rule of a hundred slots a server: equal
    /// servers differ by a slot, and when one leaves few of the others' slots move. The paper
    /// shows the latter as a curve; this is what tables of this size do, with some room.
    #[test]
    fn one_that_leaves_moves_few_of_the_others_slots() {
        let mut seed = 1_u32;
        let mut draw = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        };
        for (run, count) in [2_u32, 3, 5, 10, 20, 40].into_iter().cycle().take(60).enumerate() {
            let network = draw();
            let all: Vec<u32> = (0..count).map(|n| network.wrapping_add(n * (1 + draw() % 3))).collect();
            let table = |addresses: &[u32]| {
                let server = |(n, a): (usize, &u32)| TableServer::new(n as u32, *a, 80, (1, 1));
                let mut servers: Vec<_> = addresses.iter().enumerate().map(server).collect();
                let mut slots = [FREE; PRIME as usize];
                fill(&mut servers, &mut slots);
                slots.map(|slot| addresses[slot as usize])
            };
            let mut some = all.clone();
            let gone = some.remove(draw() as usize % all.len());
            if all.iter().any(|a| all.iter().filter(|b| *b == a).count() > 1) {
                continue; // twice the same server
            }
            let (before, after) = (table(&all), table(&some));
            let owned: Vec<_> = all.iter().map(|a| before.iter().filter(|slot| *slot == a).count()).collect();
            let (most, least) = owned.iter().fold((0, usize::MAX), |(m, l), n| (m.max(*n), l.min(*n)));
            assert!(most - least <= 1, "run {run}: {owned:?}");
            assert!(!after.contains(&gone));
            let others = before.iter().filter(|slot| **slot != gone).count();
            let moved = before.iter().zip(&after).filter(|(was, is)| **was != gone && was != is).count();
            assert!(moved * 100 <= others * 6, "run {run}, {count} servers: {moved} of {others} moved");
        }
    }

    fn table(weights: [u32; 3]) -> ([usize; 3], impl Fn([u8; 4]) -> u32) {
        // List order: .3, .2, .1; the index is the last byte.
        let mut servers =
            [3u8, 2, 1].map(|n| TableServer::new(n.into(), fold([172, 16, 0, n]), 80, (1, weights[usize::from(n) - 1])));
        let mut slots = [FREE; PRIME as usize];
        fill(&mut servers, &mut slots);
        let owned = [3, 2, 1].map(|n| slots.iter().filter(|s| **s == n).count());
        (owned, move |a| slots[(hash(KEY1, fold(a)) % PRIME) as usize])
    }

    #[test]
    fn fills_as_the_kernel() {
        let (owned, of) = table([1, 1, 1]);
        assert_eq!(owned, [1365, 1364, 1364]);
        assert_eq!([of([192, 168, 1, 1]), of([192, 168, 1, 2]), of([10, 0, 0, 1])], [2, 1, 2]);
        assert_eq!(table([3, 2, 1]).0, [683, 1364, 2046]);
    }
}
