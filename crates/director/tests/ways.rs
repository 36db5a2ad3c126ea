//! Ways to clients that reply entries remember: when they are asked for again.

mod support;

use dirigent_director::records::kind;
use dirigent_director::tables::Route;
use dirigent_director::verdict::{Action, Reason};
use dirigent_director::ways;
use dirigent_wire::Mac;
use support::{
    CLIENT_LINK, MAC, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, client4, client6, frame4, frame6,
    server4, server6,
};

const HZ: u32 = 250;
const SYN: u8 = 2;
const ACK: u8 = 0x10;
const FIRST: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const SECOND: [u8; 6] = [2, 0, 0, 0, 0, 0xfd];

fn way(mac: [u8; 6], mtu: u32) -> Route {
    Route::To { ifindex: CLIENT_LINK, src: Mac::new(MAC), dst: Mac::new(mac), mtu }
}

fn request(v6: bool) -> Vec<u8> {
    let (protocol, flags, ttl, payload) = (6, SYN, 64, 0);
    match v6 {
        true => frame6(Spec { src: (client6(1), 7), dst: (VIP6, VPORT), protocol, flags, ttl, payload }),
        false => frame4(Spec { src: (client4(1), 7), dst: (VIP4, VPORT), protocol, flags, ttl, payload }),
    }
}

fn reply(v6: bool, payload: usize) -> Vec<u8> {
    let (protocol, flags, ttl) = (6, ACK, 64);
    match v6 {
        true => frame6(Spec { src: (server6(0), SERVER_PORT), dst: (client6(1), 7), protocol, flags, ttl, payload }),
        false => frame4(Spec { src: (server4(0), SERVER_PORT), dst: (client4(1), 7), protocol, flags, ttl, payload }),
    }
}

/// A connection whose ways are remembered, at the beginning of a period, and of some minutes.
fn connected(v6: bool) -> Memory {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    (m.settings.ways, m.settings.ways_period) = (1, ways::period(HZ));
    m.now &= m.settings.ways_period << 10;
    let _ = m.run(&request(v6), CLIENT_LINK);
    assert_eq!(gateway(&mut m, v6), Some(FIRST), "the first answer");
    m
}

/// The MAC that an answer leaves to, if it leaves.
fn gateway(m: &mut Memory, v6: bool) -> Option<[u8; 6]> {
    answer(m, v6, 0).0
}

/// The same for one with so much payload, and why.
fn answer(m: &mut Memory, v6: bool, payload: usize) -> (Option<[u8; 6]>, Reason) {
    let (verdict, frame) = m.run(&reply(v6, payload), SERVER_LINK);
    let mac = frame.first_chunk().copied().filter(|_| verdict.action == Action::Transmit);
    if mac.is_some() {
        assert_eq!((verdict.ifindex, frame.get(6..12)), (CLIENT_LINK, Some(&MAC[..])), "whose frame, and out of what");
    }
    (mac, verdict.reason)
}

#[test]
fn a_way_is_asked_for_again_when_the_network_changed() {
    for v6 in [false, true] {
        let mut m = connected(v6);
        m.way_back = way(SECOND, 1500);
        assert_eq!(gateway(&mut m, v6), Some(FIRST), "nobody said that it changed");
        m.settings.ways = ways::next(m.settings.ways);
        assert_eq!(gateway(&mut m, v6), Some(SECOND));
        m.way_back = Route::None;
        assert_eq!(answer(&mut m, v6, 0), (Some(SECOND), Reason::Reply));
        m.settings.ways = ways::next(m.settings.ways);
        assert_eq!(answer(&mut m, v6, 0), (None, Reason::ReplyUnroutable));
    }
}

#[test]
fn without_word_of_changes_a_way_is_asked_for_in_each_period() {
    for v6 in [false, true] {
        let mut m = connected(v6);
        m.way_back = way(SECOND, 1500);
        let period = !m.settings.ways_period + 1;
        assert!(period <= HZ && 2 * period > HZ, "{period} ticks");
        m.now += period - 1;
        assert_eq!(gateway(&mut m, v6), Some(FIRST), "its last tick");
        m.now += 1;
        assert_eq!(gateway(&mut m, v6), Some(SECOND), "the next one's first tick");
    }
}

/// Seldom packets need not ask while somebody is there who would tell.
#[test]
fn a_way_whose_changes_are_followed_lasts() {
    for v6 in [false, true] {
        let mut m = connected(v6);
        m.way_back = way(SECOND, 1500);
        let (period, begin) = (!m.settings.ways_period + 1, m.now);
        let long = period << 10;
        assert!((4 * 60 * HZ..15 * 60 * HZ).contains(&long), "{long} ticks");
        for later in [period, 2 * period - 1, 50 * period, long - period / 2, long - 1] {
            m.now = begin + later;
            // Of the time just past, or as long ago as it may be.
            m.settings.ways_followed = m.now - later % (period / 2);
            assert_eq!(gateway(&mut m, v6), Some(FIRST), "{later} ticks later");
        }
        m.now += 1;
        m.settings.ways_followed = m.now;
        assert_eq!(gateway(&mut m, v6), Some(SECOND), "some minutes are over");
        m.way_back = way(FIRST, 1500);
        m.settings.ways = ways::next(m.settings.ways);
        assert_eq!(gateway(&mut m, v6), Some(FIRST), "somebody told");
    }
}

#[test]
fn when_nobody_follows_changes_any_more_a_way_is_asked_for_in_each_period() {
    for v6 in [false, true] {
        let mut m = connected(v6);
        m.way_back = way(SECOND, 1500);
        let period = !m.settings.ways_period + 1;
        assert!(period + period / 2 <= HZ, "{period} ticks");
        m.settings.ways_followed = m.now + period - 2;
        // At most half a period after the last word the period counts again, and it ends the next time.
        m.now += period - 1;
        assert_eq!(gateway(&mut m, v6), Some(FIRST));
        m.now += 1;
        assert_eq!(gateway(&mut m, v6), Some(FIRST), "somebody is there to tell");
        m.now += period - 1;
        assert_eq!(gateway(&mut m, v6), Some(FIRST), "of the same period");
        m.now += 1;
        assert_eq!(gateway(&mut m, v6), Some(SECOND), "nobody is there");
        // What is to come says nothing.
        m.now += period;
        m.settings.ways_followed = m.now + 1;
        m.way_back = way(FIRST, 1500);
        assert_eq!(gateway(&mut m, v6), Some(FIRST));
    }
}

#[test]
fn who_is_told_of_no_change_remembers_nothing() {
    let mut m = connected(false);
    m.settings.ways = 0;
    for mac in [SECOND, FIRST] {
        m.way_back = way(mac, 1500);
        assert_eq!(gateway(&mut m, false), Some(mac));
    }
}

/// What is longer than the way carries has the table asked, and so does a way that cannot be told in an entry.
#[test]
fn what_a_way_does_not_carry_is_asked_for() {
    let mut m = connected(true);
    m.way_back = way(SECOND, 1400);
    assert_eq!(gateway(&mut m, true), Some(FIRST));
    m.settings.ways = ways::next(m.settings.ways);
    assert_eq!(gateway(&mut m, true), Some(SECOND));
    m.way_back = way(FIRST, 1500);
    let room = 1400 - 40 - 20;
    assert_eq!(answer(&mut m, true, room), (Some(SECOND), Reason::Reply));
    assert_eq!(answer(&mut m, true, room + 1), (Some(FIRST), Reason::Reply));
    // An interface of another MAC than the director knows it by: not to be remembered.
    m.way_back = Route::To { ifindex: CLIENT_LINK, src: Mac::new(SECOND), dst: Mac::new(FIRST), mtu: 1500 };
    m.settings.ways = ways::next(m.settings.ways);
    let (verdict, frame) = m.run(&reply(true, 0), SERVER_LINK);
    assert_eq!((verdict.action, frame.get(6..12)), (Action::Transmit, Some(&SECOND[..])));
    m.way_back = way(SECOND, 1500);
    assert_eq!(gateway(&mut m, true), Some(SECOND));
}

#[test]
fn a_number_is_never_none() {
    assert_eq!([ways::next(0), ways::next(1), ways::next(0xfffe), ways::next(0xffff)], [1, 2, 0xffff, 1]);
    assert_eq!([100, 250, 300, 1000].map(|hz| !ways::period(hz) + 1), [64, 128, 128, 512]);
}
