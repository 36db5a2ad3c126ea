//! Packets of addresses that nobody noted: no table is asked about them.
#![expect(clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::records::kind;
use dirigent_director::sieve::{FROM, TO, slot};
use dirigent_director::verdict::{Action, Reason, Verdict};
use dirigent_wire::{Addr4, Addr6};
use proptest::prelude::*;
use support::{
    CLIENT_LINK, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, client4, client6, frame4, frame6, server4,
    server6,
};

const SYN: u8 = 2;
const ACK: u8 = 0x10;

fn packet(v6: bool, reply: bool) -> (Vec<u8>, u32) {
    let (protocol, ttl, payload) = (6, 64, 0);
    let flags = if reply { SYN | ACK } else { SYN };
    let frame = match (v6, reply) {
        (false, false) => frame4(Spec { src: (client4(1), 7), dst: (VIP4, VPORT), protocol, flags, ttl, payload }),
        (true, false) => frame6(Spec { src: (client6(1), 7), dst: (VIP6, VPORT), protocol, flags, ttl, payload }),
        (false, true) => {
            frame4(Spec { src: (server4(0), SERVER_PORT), dst: (client4(1), 7), protocol, flags, ttl, payload })
        }
        (true, true) => {
            frame6(Spec { src: (server6(0), SERVER_PORT), dst: (client6(1), 7), protocol, flags, ttl, payload })
        }
    };
    (frame, if reply { SERVER_LINK } else { CLIENT_LINK })
}

/// A connection by NAT whose addresses nobody has noted.
fn connected() -> Memory {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    for v6 in [false, true] {
        let (frame, link) = packet(v6, false);
        assert_eq!(m.run(&frame, link).0.reason, Reason::Request);
    }
    m.sieve.fill(0);
    m
}

fn note(m: &mut Memory, v6: bool, virtual_address: u8, server: u8) {
    let (at, from) = match v6 {
        false => (slot(&Addr4::new(VIP4)), slot(&Addr4::new(server4(0)))),
        true => (slot(&Addr6::new(VIP6)), slot(&Addr6::new(server6(0)))),
    };
    m.sieve[usize::from(at)] = virtual_address;
    m.sieve[usize::from(from)] = server;
}

#[test]
fn tables_are_asked_about_packets_of_noted_addresses_only() {
    for v6 in [false, true] {
        let went = |m: &mut Memory, reply: bool| {
            let (frame, link) = packet(v6, reply);
            let (verdict, out) = m.run(&frame, link);
            if verdict.action == Action::Pass {
                assert_eq!((verdict, out), (Verdict::pass(Reason::NoService), frame));
            }
            verdict.reason
        };
        let mut m = connected();
        assert_eq!([went(&mut m, false), went(&mut m, true)], [Reason::NoService; 2], "none is noted");
        note(&mut m, v6, TO, 0);
        assert_eq!([went(&mut m, false), went(&mut m, true)], [Reason::Request, Reason::NoService]);
        note(&mut m, v6, 0, FROM);
        assert_eq!([went(&mut m, false), went(&mut m, true)], [Reason::NoService, Reason::Reply]);
        note(&mut m, v6, FROM, TO);
        assert_eq!([went(&mut m, false), went(&mut m, true)], [Reason::NoService; 2], "as what they are not");
        note(&mut m, v6, TO, FROM);
        assert_eq!([went(&mut m, false), went(&mut m, true)], [Reason::Request, Reason::Reply]);
        m.sieve.fill(u8::MAX);
        assert_eq!([went(&mut m, false), went(&mut m, true)], [Reason::Request, Reason::Reply], "all there are");
    }
}

proptest! {
    /// Addresses that differ in their last bytes, as those of one network do, rarely share a slot.
    #[test]
    fn neighbours_have_slots_of_their_own(net in any::<[u8; 16]>(), count in 256..1024_u32) {
        let shared = |slots: Vec<u16>| slots.len() - std::collections::HashSet::<u16>::from_iter(slots).len();
        let four = (0..count).map(|n| {
            let [.., c, d] = n.to_be_bytes();
            slot(&Addr4::new([net[0], net[1], c, d]))
        });
        let six = (0..count).map(|n| {
            let (mut address, [.., c, d]) = (net, n.to_be_bytes());
            (address[14], address[15]) = (c, d);
            slot(&Addr6::new(address))
        });
        prop_assert!(shared(four.collect()) <= count as usize / 100);
        prop_assert!(shared(six.collect()) <= count as usize / 100);
    }
}
