//! Synchronisation in the packet path: which packets make a connection told, and what becomes of
//! one that another director told of.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

mod support;

use dirigent_director::family::{Address as _, V4, V6};
use dirigent_director::records::{Lesson, Service, Tuple, kind, lesson, service_flag, setting};
use dirigent_director::sync::Told;
use dirigent_director::sync::learn::{Room, learn};
use dirigent_director::tcp;
use dirigent_director::verdict::{Action, Reason};
use dirigent_wire::{Addr4, Addr6, Be16};
use support::{
    CLIENT_LINK, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, client4, client6, frame4, frame6, server4,
    server6,
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN: u8 = 0x11;
const RR: u32 = 0;
const SEVEN: u8 = 7;

fn master(method: u8) -> Memory {
    let mut m = Memory::new(RR, method, &[1, 1]);
    m.settings.flags |= setting::SYNC | setting::SYNC_MASTER;
    m
}

fn request(v6: bool, flags: u8) -> Vec<u8> {
    of_client(v6, 6, flags)
}

fn of_client(v6: bool, protocol: u8, flags: u8) -> Vec<u8> {
    let (ttl, payload) = (64, 3);
    match v6 {
        true => frame6(Spec { src: (client6(1), 4000), dst: (VIP6, VPORT), protocol, flags, ttl, payload }),
        false => frame4(Spec { src: (client4(1), 4000), dst: (VIP4, VPORT), protocol, flags, ttl, payload }),
    }
}

fn reply(v6: bool, server: u8, flags: u8) -> Vec<u8> {
    let (ttl, payload, protocol) = (64, 3, 6);
    match v6 {
        true => {
            frame6(Spec { src: (server6(server), SERVER_PORT), dst: (client6(1), 4000), protocol, flags, ttl, payload })
        }
        false => {
            frame4(Spec { src: (server4(server), SERVER_PORT), dst: (client4(1), 4000), protocol, flags, ttl, payload })
        }
    }
}

fn key4() -> Tuple<Addr4> {
    Tuple::new(6, Addr4::new(client4(1)), Be16::new(4000), Addr4::new(VIP4), Be16::new(VPORT))
}

fn key6() -> Tuple<Addr6> {
    Tuple::new(6, Addr6::new(client6(1)), Be16::new(4000), Addr6::new(VIP6), Be16::new(VPORT))
}

fn wide(key: &Tuple<Addr4>) -> Tuple<Addr6> {
    let Tuple { src, dst, sport, dport, protocol } = *key;
    Tuple { src: Addr6(src.to_words()), dst: Addr6(dst.to_words()), sport, dport, protocol }
}

/// How often it was told until now.
fn told(m: &Memory) -> usize {
    let (four, six) = (m.told4.borrow(), m.told6.borrow());
    assert!(four.iter().all(|key| *key == key4()) && six.iter().all(|key| *key == key6()));
    four.len() + six.len()
}

fn do_lesson(m: &mut Memory, mut lesson: Lesson) -> u32 {
    let (mut four, mut six) = (Room::<V4>::default(), Room::<V6>::default());
    learn(m, &mut lesson, &mut four, &mut six);
    assert_eq!(m.counted(), m.recount());
    lesson.result
}

/// That the client's connection goes to the second server of its service.
fn lesson_of(m: &Memory, v6: bool, state: u8) -> Lesson {
    let key = if v6 { key6() } else { wide(&key4()) };
    let service = if v6 { m.places6.get(&place6()) } else { m.places4.get(&place4()) };
    let service = *service.unwrap();
    Lesson {
        key,
        flags: if v6 { lesson::V6 } else { 0 },
        server: second(m, service),
        service,
        state: state.into(),
        packets: 3,
        told: Told::learned(SEVEN, state).0,
        until: 5,
        ..Lesson::default()
    }
}

fn place4() -> dirigent_director::records::Place<Addr4> {
    dirigent_director::records::Place::new(6, Addr4::new(VIP4), Be16::new(VPORT))
}

fn place6() -> dirigent_director::records::Place<Addr6> {
    dirigent_director::records::Place::new(6, Addr6::new(VIP6), Be16::new(VPORT))
}

fn second(m: &Memory, service: u32) -> u32 {
    m.slots[(m.services[service as usize].list.load() >> 32) as usize + 1]
}

fn tag(m: &Memory, v6: bool) -> u32 {
    if v6 { m.conns6[&key6()].word().tag() } else { m.conns4[&key4()].word().tag() }
}

fn its_told(m: &Memory, v6: bool) -> Told {
    if v6 { m.conns6[&key6()].told() } else { m.conns4[&key4()].told() }
}

#[test]
fn the_third_packet_each_fiftieth_and_what_closes_it_are_told() {
    for (v6, method) in [(false, kind::NAT_REQUEST), (true, kind::NAT_REQUEST), (false, kind::DR_REQUEST)] {
        let mut m = master(method);
        _ = m.run(&request(v6, SYN), CLIENT_LINK);
        let server = if v6 { m.conns6[&key6()].server } else { m.conns4[&key4()].server };
        let server = (server % 2) as u8;
        if method == kind::NAT_REQUEST {
            _ = m.run(&reply(v6, server, SYN | ACK), SERVER_LINK);
        }
        for packets in 2..=104 {
            _ = m.run(&request(v6, ACK), CLIENT_LINK);
            let expected = usize::from(packets >= 3) + usize::from(packets >= 53) + usize::from(packets >= 103);
            assert_eq!(told(&m), expected, "IPv6 {v6}, method {method}, packet {packets}");
        }
        // Of the server's packets only the client's next one tells.
        if method == kind::NAT_REQUEST {
            _ = m.run(&reply(v6, server, FIN), SERVER_LINK);
            assert_eq!(told(&m), 3);
            _ = m.run(&request(v6, ACK), CLIENT_LINK);
            assert_eq!((told(&m), its_told(&m, v6).state()), (4, tcp::State::FinWait as u8));
        } else {
            _ = m.run(&request(v6, FIN), CLIENT_LINK);
            assert_eq!((told(&m), its_told(&m, v6).state()), (4, tcp::State::FinWait as u8));
        }
        _ = m.run(&request(v6, ACK), CLIENT_LINK);
        assert_eq!(told(&m), 4, "once");
        assert_eq!(m.counted(), m.recount());
    }
}

#[test]
fn nothing_is_told_if_it_is_off_or_only_learned() {
    for flags in [0, setting::SYNC] {
        let mut m = Memory::new(RR, kind::NAT_REQUEST, &[1]);
        m.settings.flags |= flags;
        for flags in [SYN, ACK, ACK, ACK, FIN] {
            assert_eq!(m.run(&request(false, flags), CLIENT_LINK).0.reason, Reason::Request);
        }
        assert_eq!(told(&m), 0);
    }
}

#[test]
fn udp_is_told_by_its_count() {
    let mut m = master(kind::NAT_REQUEST);
    for _ in 0..53 {
        _ = m.run(&of_client(false, 17, 0), CLIENT_LINK);
    }
    assert_eq!(m.told4.borrow().len(), 2);
    assert!(m.told4.borrow().iter().all(|key| key.proto() == 17));
}

#[test]
fn a_refresh_period_tells_by_time() {
    let mut m = master(kind::NAT_REQUEST);
    (m.settings.sync_threshold, m.settings.sync_period, m.settings.sync_refresh) = (0, 0, 10 * m.settings.hz);
    _ = m.run(&request(false, SYN), CLIENT_LINK);
    assert_eq!(told(&m), 0, "a state that is not told");
    for _ in 0..45 {
        m.now += m.settings.hz;
        _ = m.run(&request(false, ACK), CLIENT_LINK);
        _ = m.run(&reply(false, 0, ACK), SERVER_LINK);
        _ = m.run(&reply(false, 1, ACK), SERVER_LINK);
    }
    let once = told(&m);
    assert!((4..=6).contains(&once), "{once}");
}

#[test]
fn what_was_learned_goes_on_here_and_its_peers_hear_that() {
    for (v6, method) in [(false, kind::NAT_REQUEST), (true, kind::NAT_REQUEST), (true, kind::DR_REQUEST)] {
        let mut m = master(method);
        let established = tcp::State::Established as u8;
        let first = lesson_of(&m, v6, established);
        assert_eq!(do_lesson(&mut m, first), lesson::DONE);
        assert_eq!(m.counted()[first.server as usize], (1, 0));
        assert_eq!(m.counters.borrow()[first.server as usize].conns, 0, "it was counted where it was opened");
        assert_eq!(its_told(&m, v6).origin(), SEVEN);
        // Again: the entry is there.
        assert_eq!(do_lesson(&mut m, first), lesson::CHANGED);
        let (verdict, _) = m.run(&request(v6, ACK), CLIENT_LINK);
        assert_eq!((verdict.reason, verdict.action), (Reason::Request, Action::Transmit));
        assert_eq!((told(&m), its_told(&m, v6).origin()), (1, 0), "IPv6 {v6}");
        if method == kind::NAT_REQUEST {
            let server = (first.server % 2) as u8;
            assert_eq!(m.run(&reply(v6, server, ACK), SERVER_LINK).0.reason, Reason::Reply);
            let back = m.conns6.values().find(|c| c.kind == kind::NAT_REPLY).map(|c| c.extra.load());
            let back = back.or(m.conns4.values().find(|c| c.kind == kind::NAT_REPLY).map(|c| c.extra.load()));
            assert_eq!(back, Some(CLIENT_LINK), "where the client is, for a host that does not forward");
        }
        // It is this director's: what its peer says no more does not end it.
        let tag = tag(&m, v6);
        let gone = Lesson { flags: first.flags | lesson::FORGET | lesson::UNLESS_OWN, tag, ..first };
        assert_eq!(do_lesson(&mut m, gone), lesson::CHANGED);
        let gone = Lesson { flags: first.flags | lesson::FORGET, tag, ..first };
        assert_eq!(do_lesson(&mut m, gone), lesson::DONE);
        assert!(m.conns4.is_empty() && m.conns6.is_empty());
    }
}

#[test]
fn lessons_change_what_is_there() {
    let mut m = master(kind::NAT_REQUEST);
    let new = lesson_of(&m, false, tcp::State::Established as u8);
    assert_eq!(do_lesson(&mut m, Lesson { tag: 9, ..new }), lesson::CHANGED, "it is not there");
    assert_eq!(do_lesson(&mut m, new), lesson::DONE);
    let tag = tag(&m, false);
    let closing = tcp::State::FinWait as u8;
    m.now += 100;
    let change = Lesson { tag, state: closing.into(), told: Told::learned(8, closing).0, idle: 40, ..new };
    assert_eq!(do_lesson(&mut m, change), lesson::DONE);
    assert_eq!(m.counted()[new.server as usize], (0, 1));
    let entry = &m.conns4[&key4()];
    assert_eq!((entry.word().state(), entry.told().origin()), (closing, 8));
    assert_eq!(m.now.wrapping_sub(entry.last_seen.load()), 40);
    let reply = m.conns4.values().find(|c| c.kind == kind::NAT_REPLY).unwrap();
    assert_eq!(reply.word().state(), closing);
    // What another knows of an older packet makes it no older.
    assert_eq!(do_lesson(&mut m, Lesson { idle: 400, ..change }), lesson::DONE);
    assert_eq!(m.now.wrapping_sub(m.conns4[&key4()].last_seen.load()), 40);
    assert_eq!(do_lesson(&mut m, Lesson { tag: tag ^ 1, ..change }), lesson::CHANGED);
    // A server that is not there, and a full table.
    m.now += 1_000_000;
    let gone = Lesson { flags: lesson::FORGET, tag, ..new };
    assert_eq!(do_lesson(&mut m, gone), lesson::DONE);
    assert_eq!(do_lesson(&mut m, Lesson { server: 9999, ..new }), lesson::REFUSED);
    m.room = 0;
    assert_eq!(do_lesson(&mut m, new), lesson::FULL);
}

#[test]
fn a_learned_template_leads_new_connections() {
    let mut m = master(kind::NAT_REQUEST);
    let service = *m.places4.get(&place4()).unwrap();
    let hz = m.settings.hz;
    let old = &m.services[service as usize];
    let persistent = Service {
        flags: service_flag::PERSISTENT,
        persistence: 100 * hz,
        mask: u32::MAX,
        list: dirigent_director::shared::S64::new(old.list.load()),
        ..old.clone()
    };
    m.services[service as usize] = persistent;
    let address = dirigent_director::persist::of::ADDRESS;
    let template = Tuple { sport: Be16::new(0), protocol: [6, address, 0, 0], ..wide(&key4()) };
    let lesson = Lesson { key: template, timeout: 100 * hz, ..lesson_of(&m, false, 1) };
    assert_eq!(do_lesson(&mut m, lesson), lesson::DONE);
    assert_eq!(m.servers[lesson.server as usize].persistent.load(), 1);
    for port in [4000, 4001, 4002] {
        let spec = Spec { src: (client4(1), port), dst: (VIP4, VPORT), protocol: 6, flags: SYN, ttl: 64, payload: 0 };
        assert_eq!(m.run(&frame4(spec), CLIENT_LINK).0.reason, Reason::Request);
    }
    assert_eq!(m.counted()[lesson.server as usize].0, 3, "all go where the template leads");
    let entry = m.conns4.values().find(|c| c.kind == kind::TEMPLATE).unwrap();
    assert_eq!((entry.told().origin(), entry.told_until().load(), entry.timeout.load()), (SEVEN, 5, 100 * hz));
    // While it has connections it stays.
    let tag = entry.word().tag();
    let gone = Lesson { flags: lesson::FORGET | lesson::UNLESS_OWN, tag, ..lesson };
    assert_eq!(do_lesson(&mut m, gone), lesson::CHANGED);
}
