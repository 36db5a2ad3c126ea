//! Connections of a server that failed (`director/src/reset.rs`): whoever sends gets a reset that he believes, and the
//! client's next try another server.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

mod support;

use dirigent_director::conn::{self, Expiry, Word};
use dirigent_director::family::{Address as _, Family, V4, V6};
use dirigent_director::records::{Tuple, kind, server_flag};
use dirigent_director::reset;
use dirigent_director::verdict::{Action, Reason, Verdict};
use dirigent_wire::{Addr4, Addr6, Be16};
use support::{
    CLIENT_LINK, MAC, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, checksums_hold, client4, client6,
    frame4, frame6, server4, server6,
};

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 0x10;
const PORT: u16 = 40_000;
/// Round-robin begins with it.
const FAILED: usize = 0;
const OTHER: usize = 1;

/// A segment of the client, or of the failed server.
fn segment(v6: bool, reply: bool, protocol: u8, flags: u8, payload: usize) -> Vec<u8> {
    let n = FAILED as u8;
    let ttl = 64;
    if v6 {
        let (client, vip, server) = ((client6(1), PORT), (VIP6, VPORT), (server6(n), SERVER_PORT));
        let (src, dst) = if reply { (server, client) } else { (client, vip) };
        frame6(Spec { src, dst, protocol, flags, ttl, payload })
    } else {
        let (client, vip, server) = ((client4(1), PORT), (VIP4, VPORT), (server4(n), SERVER_PORT));
        let (src, dst) = if reply { (server, client) } else { (client, vip) };
        frame4(Spec { src, dst, protocol, flags, ttl, payload })
    }
}

fn key4(protocol: u8) -> Tuple<Addr4> {
    Tuple::new(protocol, Addr4::new(client4(1)), Be16::new(PORT), Addr4::new(VIP4), Be16::new(VPORT))
}
fn key6(protocol: u8) -> Tuple<Addr6> {
    Tuple::new(protocol, Addr6::new(client6(1)), Be16::new(PORT), Addr6::new(VIP6), Be16::new(VPORT))
}

fn begin(m: &mut Memory, v6: bool, protocol: u8) -> Expiry {
    if v6 { reset::begin::<V6, _>(m, &key6(protocol)) } else { reset::begin::<V4, _>(m, &key4(protocol)) }
}

fn word_of<F: Family>(m: &Memory, key: &Tuple<F::Addr>) -> Option<Word> {
    conn::held::<F, _>(m, key).map(|held| held.word)
}

fn word(m: &Memory, v6: bool, protocol: u8) -> Option<Word> {
    if v6 { word_of::<V6>(m, &key6(protocol)) } else { word_of::<V4>(m, &key4(protocol)) }
}

/// The word of the answers' entry.
fn copy(m: &Memory, v6: bool) -> Word {
    let (server, client) = (Be16::new(SERVER_PORT), Be16::new(PORT));
    if v6 {
        let key = Tuple::new(6, Addr6::new(server6(FAILED as u8)), server, Addr6::new(client6(1)), client);
        word_of::<V6>(m, &key).unwrap()
    } else {
        let key = Tuple::new(6, Addr4::new(server4(FAILED as u8)), server, Addr4::new(client4(1)), client);
        word_of::<V4>(m, &key).unwrap()
    }
}

/// A director of two servers, and a connection that both sides speak on (as far as it is seen).
fn established(method: u8, v6: bool) -> Memory {
    let mut m = Memory::new(0, method, &[1, 1]);
    let mut see = |frame: &[u8], link| assert!(matches!(m.run(frame, link).0.reason, Reason::Request | Reason::Reply));
    see(&segment(v6, false, 6, SYN, 0), CLIENT_LINK);
    if method == kind::NAT_REQUEST {
        see(&segment(v6, true, 6, SYN | ACK, 0), SERVER_LINK);
    }
    see(&segment(v6, false, 6, ACK, 10), CLIENT_LINK);
    assert_eq!(load(&m, v6, 6, FAILED), (1, 0));
    m
}

/// The server failed: it gets no new connections, and those that it has are reset.
fn fail(m: &mut Memory, v6: bool, protocol: u8) {
    let server = &m.servers[index(m, v6, protocol, FAILED)];
    server.weight.store(0);
    server.flags.store(server.flags.load() | server_flag::RESETTING);
}

/// The index of a server: each protocol's service has its own.
fn index(m: &Memory, v6: bool, protocol: u8, server: usize) -> usize {
    let n = server as u8;
    let words = if v6 { Addr6::new(server6(n)).to_words() } else { Addr4::new(server4(n)).to_words() };
    m.servers.iter().position(|server| (server.addr, server.protocol) == (words, protocol)).unwrap()
}

/// Active and inactive connections.
fn load(m: &Memory, v6: bool, protocol: u8, server: usize) -> (u32, u32) {
    m.counted()[index(m, v6, protocol, server)]
}

fn exact(m: &Memory) {
    assert_eq!(m.recount(), m.counted());
}

/// Offsets of the TCP header and its numbers.
fn l4(v6: bool) -> usize {
    if v6 { 54 } else { 34 }
}

fn assert_resets(said: &[u8], out: &[u8], v6: bool) {
    let at = l4(v6);
    assert_eq!(out.len(), at + 20, "neither options nor data");
    assert_eq!((&out[..6], &out[6..12]), (&said[6..12], &MAC[..]));
    let addr = if v6 { 16 } else { 4 };
    let (sources, destinations) = (at - 2 * addr..at - addr, at - addr..at);
    assert_eq!((&out[sources.clone()], &out[destinations.clone()]), (&said[destinations], &said[sources]));
    assert_eq!((&out[at..at + 2], &out[at + 2..at + 4]), (&said[at + 2..at + 4], &said[at..at + 2]));
    assert_eq!(out[at + 4..at + 8], said[at + 8..at + 12], "its sequence number is what was acknowledged");
    assert_eq!((out[at + 12], out[at + 13]), (0x50, RST));
    assert!(checksums_hold(out), "{out:02x?}");
}

#[test]
fn whoever_sends_gets_a_reset_that_he_believes() {
    for (method, v6) in [
        (kind::NAT_REQUEST, false),
        (kind::NAT_REQUEST, true),
        (kind::DR_REQUEST, false),
        (kind::DR_REQUEST, true),
        (kind::TUN_REQUEST, false),
    ] {
        let mut m = established(method, v6);
        fail(&mut m, v6, 6);
        assert_eq!(begin(&mut m, v6, 6), Expiry::Alive);
        // Counted as inactive until it is gone.
        assert_eq!(load(&m, v6, 6, FAILED), (0, 1));
        exact(&m);
        assert!(!word(&m, v6, 6).unwrap().told());
        // An acknowledgement, data, the end: as often as he asks, whatever budget there is for errors.
        (m.settings.error_rate, m.settings.error_burst) = (1, 1);
        for (flags, payload) in [(ACK, 0), (ACK, 700), (ACK | 1, 3), (ACK, 0), (ACK, 0)] {
            let said = segment(v6, false, 6, flags, payload);
            let (verdict, out) = m.run(&said, CLIENT_LINK);
            assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Reset, CLIENT_LINK));
            assert_resets(&said, &out, v6);
        }
        assert!(word(&m, v6, 6).unwrap().told());
        // A reset is not answered with one.
        let (verdict, _) = m.run(&segment(v6, false, 6, RST, 0), CLIENT_LINK);
        assert_eq!(verdict, Verdict::drop(Reason::ResetOver));
        if method == kind::NAT_REQUEST {
            assert!(!copy(&m, v6).told());
            let said = segment(v6, true, 6, ACK, 100);
            let (verdict, out) = m.run(&said, SERVER_LINK);
            assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Reset, SERVER_LINK));
            assert_resets(&said, &out, v6);
            assert!(copy(&m, v6).told());
        }
        exact(&m);
        // The next try goes elsewhere, without waiting for anything.
        let (verdict, _) = m.run(&segment(v6, false, 6, SYN, 0), CLIENT_LINK);
        assert_eq!(verdict.reason, Reason::Request);
        assert_eq!((load(&m, v6, 6, FAILED), load(&m, v6, 6, OTHER)), ((0, 0), (1, 0)));
        exact(&m);
    }
}

/// RFC 9293 §3.10.7.1: without an acknowledgement the reset acknowledges what came.
#[test]
fn a_segment_that_acknowledges_nothing_is_acknowledged() {
    for v6 in [false, true] {
        let mut m = established(kind::DR_REQUEST, v6);
        fail(&mut m, v6, 6);
        begin(&mut m, v6, 6);
        let said = segment(v6, false, 6, 1, 5);
        let (verdict, out) = m.run(&said, CLIENT_LINK);
        assert_eq!(verdict.reason, Reason::Reset);
        let at = l4(v6);
        let number = |frame: &[u8], at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        assert_eq!((number(&out, at + 4), out[at + 13]), (0, RST | ACK));
        assert_eq!(number(&out, at + 8), number(&said, at + 4).wrapping_add(5 + 1), "data and FIN");
        assert!(checksums_hold(&out));
    }
}

#[test]
fn what_is_not_live_ends_at_once() {
    for v6 in [false, true] {
        for protocol in [6, 17] {
            let mut m = Memory::new(0, kind::NAT_REQUEST, &[1, 1]);
            // Of TCP a SYN that was not answered.
            let first = segment(v6, false, protocol, SYN, 0);
            assert_eq!(m.run(&first, CLIENT_LINK).0.reason, Reason::Request);
            fail(&mut m, v6, protocol);
            assert_eq!(begin(&mut m, v6, protocol), Expiry::Gone);
            assert_eq!((load(&m, v6, protocol, FAILED), m.conns4.len(), m.conns6.len()), ((0, 0), 0, 0));
            // Its repetition is scheduled anew.
            assert_eq!(m.run(&first, CLIENT_LINK).0.reason, Reason::Request);
            assert_eq!(load(&m, v6, protocol, OTHER).0 + load(&m, v6, protocol, OTHER).1, 1);
            exact(&m);
            assert_eq!(begin(&mut m, v6, protocol), Expiry::Alive, "its server is well");
        }
    }
}

#[test]
fn a_server_that_is_back_keeps_its_connections() {
    for v6 in [false, true] {
        let mut m = established(kind::NAT_REQUEST, v6);
        assert_eq!(begin(&mut m, v6, 6), Expiry::Alive, "it did not fail");
        assert_eq!(load(&m, v6, 6, FAILED), (1, 0));
        assert_eq!(m.run(&segment(v6, false, 6, ACK, 1), CLIENT_LINK).0.reason, Reason::Request);
        exact(&m);
    }
}

/// What is marked ends as any: by user space, with exact counters, once.
#[test]
fn the_end_is_counted_once() {
    for v6 in [false, true] {
        let mut m = established(kind::NAT_REQUEST, v6);
        fail(&mut m, v6, 6);
        begin(&mut m, v6, 6);
        assert_eq!(begin(&mut m, v6, 6), Expiry::Alive, "marked already");
        let mut end = || {
            if v6 {
                conn::expire::<V6, _>(&mut m, &key6(6), true)
            } else {
                conn::expire::<V4, _>(&mut m, &key4(6), true)
            }
        };
        assert_eq!((end(), end()), (Expiry::Gone, Expiry::Absent));
        assert_eq!((load(&m, v6, 6, FAILED), m.conns4.len(), m.conns6.len()), ((0, 0), 0, 0));
    }
}
