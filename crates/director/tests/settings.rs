//! IPVS's sysctls in the packet path (ipvs-semantics §3.5 to 3.9): what opens a connection,
//! what ends one, and which table its states follow.
#![expect(clippy::indexing_slicing, clippy::expect_used, reason = "tests")]

mod support;

use dirigent_director::Reason;
use dirigent_director::conn::{self, Expiry};
use dirigent_director::family::V4;
use dirigent_director::records::{Tuple, conn_flag, hop, kind, setting};
use dirigent_director::sctp;
use dirigent_director::shared::S32;
use dirigent_director::tcp::State;
use dirigent_wire::{Addr4, Be16};
use support::{CLIENT_LINK, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VPORT, client4, frame4, server4};

const PORT: u16 = 4000;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

fn key(protocol: u8) -> Tuple<Addr4> {
    Tuple::new(protocol, Addr4::new(client4(1)), Be16::new(PORT), Addr4::new(VIP4), Be16::new(VPORT))
}

fn sends(m: &mut Memory, protocol: u8, flags: u8) -> Reason {
    let (src, dst) = ((client4(1), PORT), (VIP4, VPORT));
    m.run(&frame4(Spec { src, dst, protocol, flags, ttl: 64, payload: 8 }), CLIENT_LINK).0.reason
}

fn answers(m: &mut Memory, flags: u8) -> Reason {
    let (src, dst) = ((server4(0), SERVER_PORT), (client4(1), PORT));
    m.run(&frame4(Spec { src, dst, protocol: 6, flags, ttl: 64, payload: 8 }), SERVER_LINK).0.reason
}

fn state(m: &Memory, protocol: u8) -> Option<u8> {
    m.conns4.get(&key(protocol)).map(|conn| conn.word().state())
}

fn of(state: State) -> Option<u8> {
    Some(state as u8)
}

fn director(method: u8, set: u32, clear: u32) -> Memory {
    let mut m = Memory::new(0, method, &[1]);
    m.settings.flags = m.settings.flags & !clear | set;
    m
}

#[test]
fn sloppy_tcp_opens_without_a_syn() {
    for (set, reason) in [(0, Reason::NotSyn), (setting::SLOPPY_TCP, Reason::Request)] {
        for (flags, after) in [(ACK, State::Established), (0, State::Close), (FIN_ACK, State::Close)] {
            let mut m = director(kind::NAT_REQUEST, set, 0);
            assert_eq!(sends(&mut m, 6, flags), reason);
            assert_eq!(state(&m, 6), if set == 0 { None } else { of(after) });
            assert_eq!(m.recount(), m.counted());
        }
        // A reset never does.
        assert_eq!(sends(&mut director(kind::NAT_REQUEST, set, 0), 6, RST | ACK), Reason::NotSyn);
    }
}

#[test]
fn sloppy_sctp_opens_without_an_init() {
    const DATA: u8 = 0;
    const ABORT: u8 = 6;
    let mut m = director(kind::DR_REQUEST, setting::SLOPPY_SCTP, 0);
    assert_eq!(sends(&mut m, 132, ABORT), Reason::NotSyn);
    assert_eq!(sends(&mut m, 132, DATA), Reason::Request);
    assert_eq!(state(&m, 132), Some(sctp::State::Established as u8));
    assert_eq!(m.recount(), m.counted());
    // Each protocol by its own setting.
    assert_eq!(sends(&mut m, 6, ACK), Reason::NotSyn);
    assert_eq!(sends(&mut director(kind::DR_REQUEST, setting::SLOPPY_TCP, 0), 132, DATA), Reason::NotSyn);
}

/// How often a new SYN in these states was scheduled, by conn_reuse_mode.
#[test]
fn conn_reuse_mode_says_which_syn_is_scheduled_anew() {
    let modes = [0, setting::REUSE, setting::REUSE | setting::REUSE_FIN_WAIT];
    for (method, path, anew) in [
        // To CLOSE, and FIN_WAIT; with NAT the client's FIN leads to CLOSE_WAIT.
        (kind::NAT_REQUEST, [SYN, ACK, RST], [false, true, true]),
        (kind::DR_REQUEST, [SYN, ACK, RST], [false, true, true]),
        (kind::DR_REQUEST, [SYN, ACK, FIN_ACK], [false, false, true]),
        (kind::NAT_REQUEST, [SYN, ACK, FIN_ACK], [false, false, false]),
        (kind::DR_REQUEST, [SYN, ACK, ACK], [false, false, false]),
    ] {
        for (mode, anew) in modes.into_iter().zip(anew) {
            for controlled in [false, true] {
                let mut m = director(method, mode, setting::REUSE);
                for flags in path {
                    assert_eq!(sends(&mut m, 6, flags), Reason::Request);
                }
                if controlled && let Some(conn) = m.conns4.get_mut(&key(6)) {
                    conn.flags |= conn_flag::CONTROLLED;
                }
                assert_eq!(sends(&mut m, 6, SYN), Reason::Request);
                let conns = if anew && !controlled { 2 } else { 1 };
                assert_eq!(m.counters.borrow()[0].conns, conns, "{method} {path:?} {mode} {controlled}");
                assert_eq!(m.recount(), m.counted());
            }
        }
    }
    // With NAT and both FINs: TIME_WAIT. A server in FIN_WAIT is not asked either.
    for (flags, anew) in [(FIN_ACK, true), (ACK, false)] {
        let mut m = director(kind::NAT_REQUEST, setting::REUSE_FIN_WAIT, 0);
        for flags in [SYN, ACK] {
            assert_eq!(sends(&mut m, 6, flags), Reason::Request);
        }
        assert_eq!(answers(&mut m, FIN_ACK), Reason::Reply);
        assert_eq!(sends(&mut m, 6, flags), Reason::Request);
        assert_eq!(state(&m, 6), of(if anew { State::TimeWait } else { State::FinWait }));
        assert_eq!(sends(&mut m, 6, SYN), Reason::Request);
        assert_eq!(m.counters.borrow()[0].conns, 1 + u64::from(anew));
    }
}

#[test]
fn a_removed_servers_connections_wait_or_end_with_their_next_packet() {
    for (set, reason) in [(0, Reason::ServerRemoved), (setting::EXPIRE_NODEST, Reason::NotSyn)] {
        let mut m = director(kind::NAT_REQUEST, set, 0);
        for flags in [SYN, ACK] {
            assert_eq!(sends(&mut m, 6, flags), Reason::Request);
        }
        m.hops[0].state = S32::new(hop::REMOVED);
        // Answers are sent on: only a request ends it.
        assert_eq!(answers(&mut m, ACK), Reason::Reply);
        assert_eq!(sends(&mut m, 6, ACK), reason);
        assert_eq!(state(&m, 6).is_some(), set == 0);
        assert_eq!(m.recount(), m.counted());
        // The server is back, and with it what has not ended.
        m.hops[0].state = S32::new(hop::RESOLVED);
        assert_eq!(sends(&mut m, 6, ACK), if set == 0 { Reason::Request } else { Reason::NotSyn });
    }
}

/// As when a CPU has chosen a server, and another removes it before the connection is open.
#[test]
fn a_server_that_goes_while_it_is_chosen_costs_no_connection() {
    for (method, protocol, flags) in [
        (kind::NAT_REQUEST, 6, SYN),
        (kind::DR_REQUEST, 6, SYN),
        (kind::NAT_REQUEST, 17, 0),
        (kind::TUN_REQUEST, 17, 0),
    ] {
        let what = format!("{method} {protocol}");
        let mut m = Memory::new(0, method, &[1, 1]);
        let client = |n| ((client4(n), 5000), (VIP4, VPORT));
        let packet = |(src, dst), flags| frame4(Spec { src, dst, protocol, flags, ttl: 64, payload: 8 });
        assert_eq!(m.run(&packet(client(1), flags), CLIENT_LINK).0.reason, Reason::Request, "{what}");
        let busy = |m: &Memory| m.recount().iter().position(|count| *count != (0, 0)).expect("a connection");
        let (chosen, other) = (busy(&m), busy(&m) ^ 1);
        // Its first packet has not gone on yet.
        m.conns4.values().for_each(|conn| conn.packets.store(0));
        m.servers[chosen].flags = S32::new(0);
        m.hops[chosen].state = S32::new(hop::REMOVED);
        assert_eq!(m.run(&packet(client(1), flags), CLIENT_LINK).0.reason, Reason::Request, "{what}");
        assert_eq!(m.recount(), m.counted(), "{what}");
        assert_eq!((busy(&m), m.recount()[chosen]), (other, (0, 0)), "{what}");
        // One that has sent something waits for its server's return.
        m.servers[other].flags = S32::new(0);
        m.hops[other].state = S32::new(hop::REMOVED);
        assert_eq!(m.run(&packet(client(1), flags), CLIENT_LINK).0.reason, Reason::ServerRemoved, "{what}");
        // With nobody left none is opened.
        m.conns4.values().for_each(|conn| conn.packets.store(0));
        let verdict = m.run(&packet(client(1), flags), CLIENT_LINK).0;
        assert_eq!(verdict.reason, Reason::NoServer, "{what}");
        assert!(m.recount().iter().all(|count| *count == (0, 0)), "{what}");
    }
}

#[test]
fn with_expire_nodest_conn_a_syn_leaves_a_quiesced_server() {
    for (set, conns) in [(0, [1, 0]), (setting::EXPIRE_NODEST, [1, 1])] {
        let mut m = Memory::new(0, kind::DR_REQUEST, &[1, 0]);
        m.settings.flags |= set;
        assert_eq!(sends(&mut m, 6, SYN), Reason::Request);
        m.servers[0].weight = S32::new(0);
        m.servers[1].weight = S32::new(1);
        // Anything but a SYN stays.
        assert_eq!(sends(&mut m, 6, ACK), Reason::Request);
        assert_eq!(sends(&mut m, 6, SYN), Reason::Request);
        assert_eq!([0, 1].map(|server| m.counters.borrow()[server].conns), conns);
        assert_eq!(m.recount(), m.counted());
    }
}

#[test]
fn drop_packet_drops_one_in_so_many_new_flows_and_no_other() {
    let mut m = director(kind::NAT_REQUEST, 0, 0);
    m.settings.drop_rate = 3;
    let mut opens = |sport, protocol, flags| {
        let (src, dst) = ((client4(1), sport), (VIP4, VPORT));
        m.run(&frame4(Spec { src, dst, protocol, flags, ttl: 64, payload: 8 }), CLIENT_LINK).0.reason
    };
    // The first, and each third after it; protocols together.
    for (sport, protocol) in (5000..5009).zip([6, 17, 132].into_iter().cycle()) {
        let dropped = sport % 3 == 5000 % 3;
        let said = if protocol == 6 { SYN } else { 1 };
        let expected = if dropped { Reason::DropPacket } else { Reason::Request };
        assert_eq!(opens(sport, protocol, said), expected, "{sport}");
    }
    // Packets of known connections, and what opens none, do not count.
    for _ in 0..6 {
        assert_eq!(opens(5001, 17, 0), Reason::Request);
        assert_eq!(opens(6000, 6, ACK), Reason::NotSyn);
    }
    assert_eq!(opens(6000, 6, SYN), Reason::DropPacket);
    assert_eq!(opens(6000, 6, SYN), Reason::Request);
}

/// Direct routing by the secure table: the client alone makes nothing of a SYN.
#[test]
fn secure_tcp_follows_its_own_table() {
    let mut m = director(kind::DR_REQUEST, setting::SECURE_TCP, 0);
    for (flags, after) in [(SYN, State::SynAck), (ACK, State::Established), (RST, State::Close), (SYN, State::SynAck)] {
        assert_eq!(sends(&mut m, 6, flags), Reason::Request);
        assert_eq!(state(&m, 6), of(after));
        assert_eq!(m.recount(), m.counted());
    }
    let mut m = director(kind::NAT_REQUEST, setting::SECURE_TCP, 0);
    for (by_client, flags, after) in [
        (true, SYN, State::SynRecv),
        (true, ACK, State::SynRecv),
        (false, SYN | ACK, State::SynAck),
        (true, ACK, State::SynAck),
        (false, ACK, State::Established),
    ] {
        let _ = if by_client { sends(&mut m, 6, flags) } else { answers(&mut m, flags) };
        assert_eq!(state(&m, 6), of(after));
        assert_eq!(m.recount(), m.counted());
    }
    // Switched while connections live: all follow the other table at once.
    m.settings.flags &= !setting::SECURE_TCP;
    assert_eq!(sends(&mut m, 6, FIN_ACK), Reason::Request);
    assert_eq!(state(&m, 6), of(State::CloseWait));
}

/// SCTP's timeouts by state, as set, over the clock's wrap, swept or found by a packet.
#[test]
fn an_association_lives_by_its_states_timeout() {
    const INIT: u8 = 1;
    const DATA: u8 = 0;
    for (set, timeout) in [(None, 4 * 250), (Some(70), 70)] {
        for before in [0, 1, timeout - 1, timeout, timeout + 1, 1 << 20] {
            let mut m = director(kind::NAT_REQUEST, 0, 0);
            if let Some(ticks) = set {
                m.settings.sctp_timeouts[sctp::State::Init1 as usize] = ticks;
            }
            m.now = u32::MAX - before;
            let opened = m.now;
            assert_eq!(sends(&mut m, 132, INIT), Reason::Request);
            m.now = opened.wrapping_add(timeout - 1);
            assert_eq!(conn::expire::<V4, _>(&mut m, &key(132), false), Expiry::Alive, "{before} before the wrap");
            m.now = opened.wrapping_add(timeout);
            // Nobody swept: the packet itself ends it, and opens none.
            assert_eq!(sends(&mut m, 132, DATA), Reason::NotSyn, "{before} before the wrap");
            assert!(m.conns4.is_empty());
            assert_eq!(m.recount(), m.counted());
        }
    }
}
