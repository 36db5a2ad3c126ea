//! The exactness of the connection counters: after any interleaving of packets, expiry
//! and time the servers' counters equal a recount of the entries. Time starts shortly
//! before the clock's 32 bits wrap.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use dirigent_director::conn::{self, Expiry, Held};
use dirigent_director::family::{Family, V4, V6};
use dirigent_director::records::{Candidate, Place, Tuple, hop, kind, server_flag};
use dirigent_director::tables::Route;
use dirigent_director::verdict::Reason;
use dirigent_wire::{Addr4, Addr6, Be16};
use proptest::prelude::*;
use support::{
    CLIENT_LINK, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, checksums_hold, client4, client6, frame4,
    frame6, server4, server6,
};

/// A flag byte of TCP.
const FLAGS: [u8; 8] = [0x02, 0x12, 0x10, 0x11, 0x04, 0x14, 0x00, 0x06];

#[derive(Clone, Debug)]
enum Op {
    /// A client's packet: family, client, its port, protocol, TCP flags.
    Request { v6: bool, client: u8, port: u16, protocol: u8, flags: u8 },
    /// A server's packet to that client.
    Reply { v6: bool, client: u8, port: u16, protocol: u8, flags: u8, server: u8 },
    /// Time goes on, ticks.
    Wait(u32),
    /// User space's sweep over all entries, from either direction.
    Sweep { replies_first: bool },
    /// One entry is removed at once, whatever its age (the n-th, either direction).
    Remove(usize),
    /// A server is configured, quiesced, overloaded or taken out.
    Server { n: usize, weight: u32, flags: u32 },
    /// The way to a server changes.
    Hop { n: usize, state: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let who = || (any::<bool>(), 1..4u8, 1000..1003u16, prop::sample::select(vec![6u8, 6, 6, 17]));
    let flags = || prop::sample::select(FLAGS.to_vec());
    prop_oneof![
        10 => (who(), flags()).prop_map(|((v6, client, port, protocol), flags)| {
            Op::Request { v6, client, port, protocol, flags }
        }),
        6 => (who(), flags(), 0..3u8).prop_map(|((v6, client, port, protocol), flags, server)| {
            Op::Reply { v6, client, port, protocol, flags, server }
        }),
        3 => prop_oneof![1..500u32, 1000..20_000u32, 30_000..300_000u32].prop_map(Op::Wait),
        1 => any::<bool>().prop_map(|replies_first| Op::Sweep { replies_first }),
        1 => (0..40usize).prop_map(Op::Remove),
        1 => (0..12usize, 0..4u32, prop::sample::select(vec![
            0, server_flag::AVAILABLE, server_flag::AVAILABLE,
        ])).prop_map(|(n, weight, flags)| Op::Server { n, weight, flags }),
        1 => (0..12usize, prop::sample::select(vec![
            hop::RESOLVED, hop::RESOLVED, hop::NO_NEIGHBOUR, hop::NO_ROUTE, hop::LOCAL, hop::REMOVED,
        ])).prop_map(|(n, state)| Op::Hop { n, state }),
    ]
}

/// All keys, as user space's sweep finds them.
fn candidates(m: &Memory) -> Vec<Candidate> {
    let mut all: Vec<_> =
        m.conns6.keys().map(|key| Candidate { key: *key, flags: 1, ..Candidate::default() }).collect();
    for key in m.conns4.keys() {
        let wide = |a: Addr4| Addr6([a.0[0], a.0[1], 0, 0, 0, 0, 0, 0]);
        let Tuple { src, dst, sport, dport, protocol } = *key;
        let key = Tuple { src: wide(src), dst: wide(dst), sport, dport, protocol };
        all.push(Candidate { key, ..Candidate::default() });
    }
    all.sort_by_key(|c| (c.key.sport.get(), c.key.dport.get(), format!("{:?}", c.key)));
    all
}

fn request(v6: bool, client: u8, port: u16, protocol: u8, flags: u8) -> Vec<u8> {
    let (ttl, payload) = (64, usize::from(port % 7));
    if v6 {
        frame6(Spec { src: (client6(client), port), dst: (VIP6, VPORT), protocol, flags, ttl, payload })
    } else {
        frame4(Spec { src: (client4(client), port), dst: (VIP4, VPORT), protocol, flags, ttl, payload })
    }
}

fn reply(v6: bool, client: u8, port: u16, protocol: u8, flags: u8, server: u8) -> Vec<u8> {
    let (ttl, payload) = (64, usize::from(port % 5));
    if v6 {
        let src = (server6(server), SERVER_PORT);
        frame6(Spec { src, dst: (client6(client), port), protocol, flags, ttl, payload })
    } else {
        let src = (server4(server), SERVER_PORT);
        frame4(Spec { src, dst: (client4(client), port), protocol, flags, ttl, payload })
    }
}

/// A client's connection: its tag, its server, and whether its time is over.
fn bound(m: &Memory, v6: bool, client: u8, port: u16, protocol: u8) -> Option<(u64, u32, bool)> {
    fn of<F: Family>(m: &Memory, key: &Tuple<F::Addr>) -> Option<(u64, u32, bool)> {
        let entry = F::conn(m, key)?;
        let idle = |conn| conn::looks_idle(&m.settings, key.proto(), &Held::own(conn), m.now);
        let over = idle(entry) && F::conn(m, &conn::partner::<F>(key, entry)).is_none_or(idle);
        Some((entry.word().0 >> 32, entry.server, over))
    }
    let (sport, dport) = (Be16::new(port), Be16::new(VPORT));
    if v6 {
        let (src, dst) = (Addr6::new(client6(client)), Addr6::new(VIP6));
        return of::<V6>(m, &Tuple::new(protocol, src, sport, dst, dport));
    }
    of::<V4>(m, &Tuple::new(protocol, Addr4::new(client4(client)), sport, Addr4::new(VIP4), dport))
}

/// No connection changes its server while that one lives, and its packets go there.
fn keeps_its_server(
    m: &Memory,
    before: Option<(u64, u32, bool)>,
    after: Option<(u64, u32, bool)>,
    (v6, flags): (bool, u8),
    out: &[u8],
) {
    let Some((tag, server, _)) = after else { panic!("a packet that was forwarded has a connection") };
    if let Some((was, from, over)) = before {
        let lives = m.servers[from as usize].flags.load() & server_flag::AVAILABLE != 0;
        let begins_anew = over || !lives || flags & 0x02 != 0;
        assert!(was == tag || begins_anew, "a connection of server {from} is one of {server} now");
        assert!(was != tag || from == server);
    }
    let record = &m.servers[server as usize];
    if record.method == kind::NAT_REQUEST {
        let words = if v6 { &record.addr[..] } else { &record.addr[..2] };
        let address: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let at = if v6 { 14 + 24 } else { 14 + 16 };
        assert_eq!(out[at..at + address.len()], address, "its packet went elsewhere");
    }
}

/// Does it.
fn apply(m: &mut Memory, op: &Op) {
    match *op {
        Op::Request { v6, client, port, protocol, flags } => {
            let before = bound(m, v6, client, port, protocol);
            let (verdict, out) = m.run(&request(v6, client, port, protocol, flags), CLIENT_LINK);
            if verdict.reason == Reason::Request {
                keeps_its_server(m, before, bound(m, v6, client, port, protocol), (v6, flags), &out);
                assert!(checksums_hold(&out), "{op:?}: wrong checksums in {out:02x?}");
            }
        }
        Op::Reply { v6, client, port, protocol, flags, server } => {
            let (verdict, out) = m.run(&reply(v6, client, port, protocol, flags, server), SERVER_LINK);
            if verdict.reason == Reason::Reply {
                assert!(checksums_hold(&out), "{op:?}: wrong checksums in {out:02x?}");
            }
        }
        Op::Wait(ticks) => m.now = m.now.wrapping_add(ticks),
        Op::Sweep { replies_first } => {
            let mut all = candidates(m);
            if replies_first {
                all.reverse();
            }
            for candidate in &mut all {
                conn::expire_candidate(m, candidate);
                assert!((1..=3).contains(&candidate.result));
            }
        }
        Op::Remove(n) => {
            if let Some(candidate) = candidates(m).get_mut(n) {
                candidate.flags |= 2;
                conn::expire_candidate(m, candidate);
                assert_eq!(candidate.result, 1, "one CPU alone: it is gone");
            }
        }
        Op::Server { n, weight, flags } => {
            m.servers[n].weight.store(weight);
            m.servers[n].flags.store(flags);
        }
        Op::Hop { n, state } => m.hops[n].state.store(state),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn counters_equal_a_recount(
        ops in prop::collection::vec(op(), 1..120),
        scheduler in 0..3u32,
        room in prop_oneof![Just(1 << 20), 1..12usize],
        before_wrap in 0..200_000u32,
    ) {
        let mut m = Memory::new(scheduler, kind::NAT_REQUEST, &[1, 2, 3]);
        m.room = room;
        m.now = u32::MAX - before_wrap;
        for op in &ops {
            apply(&mut m, op);
            prop_assert_eq!(m.recount(), m.counted(), "after {:?}", op);
        }
        // In the end everything idles out, and nothing is left of it.
        apply(&mut m, &Op::Wait(901 * 250));
        apply(&mut m, &Op::Sweep { replies_first: false });
        prop_assert!(m.conns4.is_empty() && m.conns6.is_empty());
        prop_assert!(m.counted().iter().all(|load| *load == (0, 0)));
    }

    #[test]
    fn counters_equal_a_recount_in_direct_routing(
        ops in prop::collection::vec(op(), 1..80), room in prop_oneof![Just(1 << 20), 1..6usize],
    ) {
        let mut m = Memory::new(2, kind::DR_REQUEST, &[1, 1, 2]);
        m.room = room;
        for op in &ops {
            apply(&mut m, op);
            prop_assert_eq!(m.recount(), m.counted(), "after {:?}", op);
        }
    }
}

fn syn_of(port: u16) -> Vec<u8> {
    request(false, 1, port, 6, 0x02)
}

fn key_of(port: u16) -> Tuple<Addr4> {
    Tuple::new(6, Addr4::new(client4(1)), Be16::new(port), Addr4::new(VIP4), Be16::new(VPORT))
}

/// The clock's wrap in the middle of a connection's life: it neither dies early nor lives on.
#[test]
fn a_connection_outlives_the_wrap_by_exactly_its_timeout() {
    let timeout = 60 * 250; // SYN_RECV
    for before in [0, 1, 5, timeout - 1, timeout, timeout + 1] {
        let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
        m.now = u32::MAX - before;
        let opened = m.now;
        assert_eq!(m.run(&syn_of(7), CLIENT_LINK).0.reason, Reason::Request);
        m.now = opened.wrapping_add(timeout - 1);
        assert_eq!(conn::expire::<V4, _>(&mut m, &key_of(7), false), Expiry::Alive, "{before} before the wrap");
        m.now = opened.wrapping_add(timeout);
        assert_eq!(conn::expire::<V4, _>(&mut m, &key_of(7), false), Expiry::Gone, "{before} before the wrap");
        assert_eq!(m.counted()[0], (0, 0));
        assert!(m.conns4.is_empty());
    }
}

/// The same by packets: what finds its entry past the timeout expires it first, swept or not.
#[test]
fn a_packet_expires_what_it_finds_too_old() {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    m.now = u32::MAX - 100;
    assert_eq!(m.run(&syn_of(7), CLIENT_LINK).0.reason, Reason::Request);
    m.now = m.now.wrapping_add(60 * 250);
    let (verdict, _) = m.run(&request(false, 1, 7, 6, 0x10), CLIENT_LINK);
    assert_eq!(verdict.reason, Reason::NotSyn);
    assert_eq!((m.counted()[0], m.conns4.len()), ((0, 0), 0));
}

/// A reply keeps the connection alive that its own direction would let go, and the other
/// way round: idle is what neither direction used.
#[test]
fn either_direction_keeps_a_connection() {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    let _ = m.run(&syn_of(7), CLIENT_LINK);
    for _ in 0..3 {
        m.now = m.now.wrapping_add(59 * 250);
        assert_eq!(m.run(&reply(false, 1, 7, 6, 0x12, 0), SERVER_LINK).0.reason, Reason::Reply);
    }
    assert_eq!(conn::expire::<V4, _>(&mut m, &key_of(7), false), Expiry::Alive);
    m.now = m.now.wrapping_add(60 * 250);
    assert_eq!(conn::expire::<V4, _>(&mut m, &key_of(7), false), Expiry::Gone);
}

/// A time slightly ahead is another CPU's tick, no age of four billion.
#[test]
fn a_time_ahead_is_no_age() {
    assert_eq!(conn::age(10, 11), 0);
    assert_eq!(conn::age(5, u32::MAX), 6);
    assert_eq!(conn::age(u32::MAX, 5), 0);
    assert_eq!(conn::age(7, 7), 0);
}

/// When the table is full, known connections go on, and the refused leave no trace.
#[test]
fn a_full_table_harms_no_known_connection() {
    for room in [2, 3] {
        let mut m = Memory::new(0, kind::NAT_REQUEST, &[1, 1]);
        m.room = room;
        assert_eq!(m.run(&syn_of(1), CLIENT_LINK).0.reason, Reason::Request);
        assert_eq!(m.run(&syn_of(2), CLIENT_LINK).0.reason, Reason::TableFull);
        assert_eq!(m.recount(), m.counted());
        assert_eq!(m.conns4.len(), 2);
        assert_eq!(m.run(&request(false, 1, 1, 6, 0x10), CLIENT_LINK).0.reason, Reason::Request);
    }
}

/// Two virtual addresses, one client port, the same servers: the second connection gets
/// another server, and with none left a reason of its own.
#[test]
fn equal_reply_keys_get_another_server_or_a_reason() {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1, 1]);
    let vips = [[192, 0, 2, 10], [192, 0, 2, 11], [192, 0, 2, 12]];
    for vip in vips {
        m.local4.insert(Addr4::new(vip));
        m.places4.insert(Place::new(6, Addr4::new(vip), Be16::new(VPORT)), 0);
    }
    let reasons = vips.map(|vip| {
        let spec = Spec { src: (client4(1), 7), dst: (vip, VPORT), protocol: 6, flags: 2, ttl: 64, payload: 0 };
        m.run(&frame4(spec), CLIENT_LINK).0.reason
    });
    assert_eq!(reasons, [Reason::Request, Reason::Request, Reason::ReplyKeyTaken]);
    assert_eq!(m.recount(), m.counted());
    assert_eq!(m.counted()[..2], [(1, 0), (1, 0)]);
}

/// Without a way to the client an answer is dropped for that, and changes nothing.
#[test]
fn an_unroutable_reply_has_no_effect() {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    let _ = m.run(&request(true, 1, 7, 6, 0x02), CLIENT_LINK);
    m.way_back = Route::None;
    let (verdict, _) = m.run(&reply(true, 1, 7, 6, 0x14, 0), SERVER_LINK);
    assert_eq!(verdict.reason, Reason::ReplyUnroutable);
    let key = Tuple::new(6, Addr6::new(client6(1)), Be16::new(7), Addr6::new(VIP6), Be16::new(VPORT));
    let Some(conn) = m.conns6.get(&key) else { panic!("the connection is gone") };
    assert!(conn.word().active());
    assert_eq!(conn::expire::<V6, _>(&mut m, &key, true), Expiry::Gone);
}
