//! Marks of netfilter's, on the link that they lead packets to.
#![expect(clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::Reason;
use dirigent_director::family::Address as _;
use dirigent_director::records::{MarkRule, Place, kind, mark_flag, service_flag, setting};
use dirigent_wire::{Addr4, Addr6};
use support::{
    CLIENT_LINK, MARK_LINK, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP6, client4, client6, frame4, frame6, server4,
    server6,
};

/// An address that no service has, and this host does not.
const ELSEWHERE4: [u8; 4] = [198, 18, 0, 1];
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn elsewhere6() -> [u8; 16] {
    let mut a = VIP6;
    a[5] = 9;
    a
}

/// Of the two families, what begins with `flags` from a port of the client.
fn request(v6: bool, port: u16, protocol: u8, flags: u8) -> Vec<u8> {
    let (ttl, payload) = (64, 8);
    if v6 {
        let (src, dst) = ((client6(1), port), (elsewhere6(), 4711));
        return frame6(Spec { src, dst, protocol, flags, ttl, payload });
    }
    let (src, dst) = ((client4(1), port), (ELSEWHERE4, 4711));
    frame4(Spec { src, dst, protocol, flags, ttl, payload })
}

fn answer(v6: bool, port: u16) -> Vec<u8> {
    let (protocol, flags, ttl, payload) = (6, SYN | ACK, 64, 8);
    if v6 {
        let (src, dst) = ((server6(0), SERVER_PORT), (client6(1), port));
        return frame6(Spec { src, dst, protocol, flags, ttl, payload });
    }
    let (src, dst) = ((server4(0), SERVER_PORT), (client4(1), port));
    frame4(Spec { src, dst, protocol, flags, ttl, payload })
}

/// A service of mark 7 in each family, and the link that marks lead to.
fn director(method: u8) -> Memory {
    let mut m = Memory::new(0, method, &[1]);
    m.settings.flags |= setting::LED;
    for index in [0, 2] {
        m.services[index as usize].flags |= service_flag::BY_MARK;
    }
    m.places4.insert(Place::mark(Addr4::of_mark(7)), 0);
    m.places6.insert(Place::mark(Addr6::of_mark(7)), 2);
    m
}

#[test]
fn a_marked_packet_opens_a_connection_and_is_rid_of_its_mark() {
    for v6 in [false, true] {
        for (protocol, flags) in [(6, SYN), (17, 0), (132, 1)] {
            let mut m = director(kind::DR_REQUEST);
            let (verdict, left) = m.run_marked(&request(v6, 4000, protocol, flags), MARK_LINK, 7);
            assert_eq!((verdict.reason, verdict.ifindex, left), (Reason::Request, SERVER_LINK, 0));
            // From now on it is found where its packets come by: none needs a mark.
            assert_eq!(m.run(&request(v6, 4000, protocol, flags & !SYN | ACK), CLIENT_LINK).0.reason, Reason::Request);
            assert_eq!((m.recount(), m.conns4.len() + m.conns6.len()), (m.counted(), 1));
        }
        let mut m = director(kind::NAT_REQUEST);
        assert_eq!(m.run_marked(&request(v6, 4000, 6, SYN), MARK_LINK, 7).0.reason, Reason::Request);
        assert_eq!(m.run(&answer(v6, 4000), SERVER_LINK).0.reason, Reason::Reply);
        assert_eq!(m.run(&request(v6, 4000, 6, ACK), CLIENT_LINK).0.reason, Reason::Request);
    }
}

/// What is left to the host has no mark either: it would come again and again.
#[test]
fn what_is_not_taken_loses_its_mark_too() {
    for v6 in [false, true] {
        let mut m = director(kind::NAT_REQUEST);
        let mut passes = |frame: &[u8], link, mark| {
            let (verdict, left) = m.run_marked(frame, link, mark);
            assert_eq!(verdict.action, dirigent_director::Action::Pass);
            (verdict.reason, left)
        };
        let syn = request(v6, 4000, 6, SYN);
        assert_eq!(passes(&syn, MARK_LINK, 9), (Reason::NoService, 0));
        assert_eq!(passes(&syn, MARK_LINK, 0), (Reason::NoService, 0));
        assert_eq!(passes(&request(v6, 4000, 6, ACK), MARK_LINK, 7), (Reason::NotSyn, 0));
        let mut other = syn.clone();
        other[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(passes(&other, MARK_LINK, 7), (Reason::OtherEthertype, 0));
        // Elsewhere a mark means something to others, and nothing here.
        assert_eq!(passes(&syn, CLIENT_LINK, 7), (Reason::NoService, 7));
        assert_eq!(passes(&syn, support::MARK_LINK + 1, 7), (Reason::UnusedLink, 7));
    }
}

/// The director's own rules go on from netfilter's mark.
#[test]
fn own_rules_change_the_mark_that_led_a_packet_here() {
    for v6 in [false, true] {
        let mut m = director(kind::NAT_REQUEST);
        let all = [0, u16::MAX];
        let flags = if v6 { mark_flag::V6 } else { 0 };
        m.mark_rules.push(MarkRule { flags, sports: all, dports: all, keep: !8, value: 2, ..MarkRule::default() });
        m.settings.mark_rules = 1;
        let mut with = |mark, port| m.run_marked(&request(v6, port, 6, SYN), MARK_LINK, mark).0.reason;
        assert_eq!(with(13, 4000), Reason::Request);
        assert_eq!(with(7, 4001), Reason::NoService);
        // The rules' own marks are not netfilter's.
        assert_eq!(m.run_marked(&request(v6, 4002, 6, SYN), CLIENT_LINK, 13).0.reason, Reason::NoService);
    }
}
