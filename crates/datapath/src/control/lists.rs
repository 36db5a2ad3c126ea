//! What the schedulers find: positions, weights and tables (ipvs-semantics §4).

use std::net::IpAddr;

use dirigent_config::{Netmask, Service};
use dirigent_director::family::Address as _;
use dirigent_director::records::service_flag;
use dirigent_director::schedule::{FREE, Table, TableServer};
use dirigent_wire::{Addr4, Addr6};

/// The record's flags of a service.
pub fn flags(of: &Service) -> u32 {
    let (bit, flags) = (|set, bit| if set { bit } else { 0 }, of.scheduler_flags);
    bit(of.one_packet, service_flag::ONE_PACKET)
        | bit(of.persistence.is_some(), service_flag::PERSISTENT)
        | bit(of.key.mark() != 0, service_flag::BY_MARK)
        | bit(of.stateless, service_flag::STATELESS)
        | bit(of.quic, service_flag::QUIC)
        | bit(!of.sources.is_empty(), service_flag::JUDGED)
        | bit(flags.port, service_flag::HASH_PORT)
        | bit(flags.fallback, service_flag::HASH_FALLBACK)
}

/// The record's mask of persistence: bits of an IPv4 address as they lie in a packet, or the
/// length of an IPv6 prefix.
pub fn mask(of: Netmask) -> u32 {
    match of {
        Netmask::V4(bits) => u32::from_ne_bytes(bits.octets()),
        Netmask::V6(length) => length.into(),
    }
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// wrr's (largest weight − (divisor − 1), divisor).
pub fn wrr(weights: impl Iterator<Item = u32>) -> (u32, u32) {
    let (divisor, largest) = weights.fold((0, 0), |(d, l), w| (gcd(d, w), w.max(l)));
    let divisor = divisor.max(1);
    (largest.saturating_sub(divisor - 1), divisor)
}

/// wrr's current weight after the last `changes` of these servers came, or one went or was
/// edited: as if each had come by itself.
pub fn wrr_round(current: u32, weights: &[u32], changes: usize) -> u32 {
    let first = weights.len().saturating_sub(changes.max(1) - 1).max(1);
    let (mut divisor, mut largest, mut current) = (0, 0, current);
    for (n, weight) in (1..).zip(weights) {
        (divisor, largest) = (gcd(divisor, *weight), largest.max(*weight));
        if n >= first {
            let step = divisor.max(1);
            current = wrr_weight(current, (largest.saturating_sub(step - 1), step));
        }
    }
    if weights.is_empty() { wrr_weight(current, (0, 1)) } else { current }
}

/// wrr's current weight after a server came, went or was edited (the round starts at
/// the head again, at the same weight).
fn wrr_weight(current: u32, (max, step): (u32, u32)) -> u32 {
    if current == 0 || current > max {
        max
    } else if step > 1 {
        current / step * step + 1
    } else {
        current
    }
}

/// rr's position in a new list: on the same server, or, if that one left, on the
/// nearest before it that stays; 0 is before the first.
pub fn rr_position<T: PartialEq>(position: u32, old: &[T], new: &[T]) -> u32 {
    let met = old.get(..(position as usize).min(old.len())).unwrap_or_default();
    let stays = met.iter().rev().find_map(|server| new.iter().position(|other| other == server));
    stays.map_or(0, |at| at as u32 + 1)
}

/// A scheduler's table of so many slots for servers in list order: (index, address, port, weight and the
/// last one that was not 0).
pub fn table((of, size): (Table, u32), servers: impl Iterator<Item = (u32, IpAddr, u16, (u32, u32))>) -> Vec<u32> {
    let mut servers: Vec<_> = servers
        .map(|(index, address, port, weights)| {
            let folded = match address {
                IpAddr::V4(a) => Addr4::new(a.octets()).hash_fold(),
                IpAddr::V6(a) => Addr6::new(a.octets()).hash_fold(),
            };
            TableServer::new(index, folded, port, weights)
        })
        .collect();
    let mut slots = vec![FREE; size as usize];
    (of.fill)(&mut servers, &mut slots);
    slots
}

/// Gives the slots of drained servers to those that take connections, in the shares that these
/// have already: nobody else's slot changes. Where nobody takes any, nothing does.
pub fn hand_on(slots: &mut [u32], drained: impl Fn(u32) -> bool, takes: impl Fn(u32) -> bool) {
    let heirs: Vec<u32> = slots.iter().copied().filter(|server| takes(*server)).collect();
    for (slot, heir) in slots.iter_mut().filter(|slot| drained(**slot)).zip(heirs.iter().cycle()) {
        *slot = *heir;
    }
}

/// The ids of a QUIC service's servers with their indexes, as the packet path searches them:
/// how many, then an id and a server each, in order. What two servers have, which a change may pass through,
/// is nobody's.
pub fn ids(servers: impl Iterator<Item = (u32, u32)>) -> Vec<u32> {
    let mut ids: Vec<_> = servers.collect();
    ids.sort_unstable();
    let alone = ids.chunk_by(|(a, _), (b, _)| a == b).filter(|same| same.len() == 1);
    let pairs: Vec<_> = alone.flatten().flat_map(|(id, server)| [*id, *server]).collect();
    std::iter::once(pairs.len() as u32 / 2).chain(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order_and_nobody_shares_one() {
        assert_eq!(ids([(9, 1), (2, 3), (7, 0), (9, 2), (u32::MAX, 5)].into_iter()), [3, 2, 3, 7, 0, u32::MAX, 5]);
        assert_eq!(ids(std::iter::empty()), [0]);
    }

    #[test]
    fn slots_are_handed_on_in_the_heirs_shares() {
        let mut slots = [1, 1, 2, 1, 3, 2, 1, 1, FREE];
        hand_on(&mut slots, |s| s == 1, |s| s == 2 || s == 3);
        assert_eq!(slots, [2, 3, 2, 2, 3, 2, 2, 3, FREE]);
        let all = slots;
        hand_on(&mut slots, |s| s == 2, |_| false);
        assert_eq!(slots, all);
    }

    #[test]
    fn wrr_is_bound_as_in_ipvs() {
        // ipvs-semantics §4.2: weights 4, 2, 6 added one by one leave 1.
        let mut weight = 0;
        for list in [&[4][..], &[2, 4], &[6, 2, 4]] {
            weight = wrr_weight(weight, wrr(list.iter().copied()));
        }
        assert_eq!((weight, wrr([6, 2, 4].into_iter())), (1, (5, 2)));
        assert_eq!(wrr([0, 0].into_iter()), (0, 1));
        assert_eq!(wrr_weight(3, (5, 2)), 3);
    }

    #[test]
    fn rr_stays_on_its_server() {
        let old = ["c", "b", "a"];
        assert_eq!(rr_position(2, &old, &["d", "c", "b", "a"]), 3); // one more in front
        assert_eq!(rr_position(2, &old, &["c", "a"]), 1); // its predecessor
        assert_eq!(rr_position(1, &old, &["b", "a"]), 0);
        assert_eq!(rr_position(3, &old, &["b", "a"]), 2);
        assert_eq!(rr_position(9, &old, &old), 3);
        assert_eq!(rr_position(0, &old, &old), 0);
    }
}
