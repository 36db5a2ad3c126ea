//! SCTP (RFC 9260), packet by packet: ports and the CRC that covers them, what opens an
//! association, pieces, offloads, and the errors about it.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use dirigent_director::Reason;
use dirigent_director::direct::{Stage, leave, leave_sctp};
use dirigent_director::family::{V4, V6};
use dirigent_director::records::{Tuple, hop, kind, setting, tunnel};
use dirigent_director::sctp::State;
use dirigent_director::verdict::{Action, Verdict};
use dirigent_wire::{Addr4, Addr6, Be16, checksum};
use support::{
    CLIENT_LINK, Frame, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, checksums_hold, client4, client6,
    crc_holds, frame4, frame6, server4, server6,
};

const DATA: u8 = 0;
const INIT: u8 = 1;
const ABORT: u8 = 6;
const COOKIE_ECHO: u8 = 10;
const PORT: u16 = 4000;
/// Where the transport header is, by family.
const L4: [usize; 2] = [34, 54];

fn request(v6: bool, chunk: u8, payload: usize) -> Vec<u8> {
    if v6 {
        frame6(Spec { src: (client6(1), PORT), dst: (VIP6, VPORT), protocol: 132, flags: chunk, ttl: 64, payload })
    } else {
        frame4(Spec { src: (client4(1), PORT), dst: (VIP4, VPORT), protocol: 132, flags: chunk, ttl: 64, payload })
    }
}

fn answer(v6: bool, chunk: u8, payload: usize) -> Vec<u8> {
    let src_port = SERVER_PORT;
    if v6 {
        let (src, dst) = ((server6(0), src_port), (client6(1), PORT));
        frame6(Spec { src, dst, protocol: 132, flags: chunk, ttl: 64, payload })
    } else {
        let (src, dst) = ((server4(0), src_port), (client4(1), PORT));
        frame4(Spec { src, dst, protocol: 132, flags: chunk, ttl: 64, payload })
    }
}

fn director(method: u8) -> Memory {
    Memory::new(0, method, &[1])
}

fn sent(link: u32, reason: Reason) -> Verdict {
    Verdict::out(Action::Transmit, reason, link)
}

fn state(m: &Memory) -> u8 {
    let (v4, v6) = (client4(1), client6(1));
    let key4 = Tuple::new(132, Addr4::new(v4), Be16::new(PORT), Addr4::new(VIP4), Be16::new(VPORT));
    let key6 = Tuple::new(132, Addr6::new(v6), Be16::new(PORT), Addr6::new(VIP6), Be16::new(VPORT));
    match (m.conns4.get(&key4), m.conns6.get(&key6)) {
        (Some(conn), None) => conn.word().state(),
        (None, Some(conn)) => conn.word().state(),
        _ => panic!("no association, or two"),
    }
}

/// Makes an IPv4 header's checksum right.
fn mend(frame: &mut [u8]) {
    if frame[12..14] == [8, 0] {
        frame[24..26].fill(0);
        let check = !checksum::sum_bytes(&frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_ne_bytes());
    }
}

/// The frame with its IP packet cut to so many bytes of transport header.
fn cut(mut frame: Vec<u8>, v6: bool, len: usize) -> Vec<u8> {
    frame.truncate(L4[usize::from(v6)] + len);
    let (at, length) = if v6 { (18, len) } else { (16, 20 + len) };
    frame[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    mend(&mut frame);
    frame
}

#[test]
fn translation_keeps_the_crc_right() {
    for (v6, l4) in [(false, 34), (true, 54)] {
        let mut m = director(kind::NAT_REQUEST);
        for payload in [0, 1, 2, 3, 4, 252, 253, 1400] {
            let before = request(v6, INIT, payload);
            let (verdict, out) = m.run(&before, CLIENT_LINK);
            assert_eq!(verdict, sent(SERVER_LINK, Reason::Request));
            assert_eq!((&out[l4..l4 + 2], &out[l4 + 2..l4 + 4]), (&before[l4..l4 + 2], &SERVER_PORT.to_be_bytes()[..]));
            assert!(checksums_hold(&out), "{payload} bytes in a chunk");
            assert_eq!(out[l4 + 12..], before[l4 + 12..]);
            let (verdict, out) = m.run(&answer(v6, 2, payload), SERVER_LINK);
            assert_eq!(verdict, sent(CLIENT_LINK, Reason::Reply));
            assert_eq!(out[l4..l4 + 2], VPORT.to_be_bytes());
            assert!(checksums_hold(&out));
        }
        assert_eq!(m.recount(), m.counted());
    }
}

/// A wrong CRC stays wrong by as much (C16); one that is not there yet stays so; and where
/// the port does not change nothing does.
#[test]
fn a_wrong_crc_stays_as_wrong_as_it_was() {
    for (v6, l4) in [(false, 34), (true, 54)] {
        let mut m = director(kind::NAT_REQUEST);
        let (_, right) = m.run(&request(v6, INIT, 20), CLIENT_LINK);
        let mut wrong = request(v6, INIT, 20);
        wrong[l4 + 9] ^= 0x40;
        let (_, out) = m.run(&wrong, CLIENT_LINK);
        assert_eq!(out[l4 + 9], right[l4 + 9] ^ 0x40);
        assert!(!crc_holds(&out[l4..]));
        let mut unfinished = request(v6, DATA, 20);
        unfinished[l4 + 8..l4 + 12].fill(0);
        let (verdict, out) = m.run(&unfinished, CLIENT_LINK);
        assert_eq!((verdict.reason, &out[l4 + 8..l4 + 12]), (Reason::Request, &[0; 4][..]));

        let mut m = director(kind::NAT_REQUEST);
        for server in &mut m.servers {
            server.port = Be16::new(VPORT);
        }
        let (_, out) = m.run(&wrong, CLIENT_LINK);
        assert_eq!(out[l4..], wrong[l4..], "same port: not a byte of it");
    }
}

#[test]
fn only_an_init_opens() {
    for v6 in [false, true] {
        for chunk in (0..=255).filter(|chunk| *chunk != INIT) {
            let mut m = director(kind::NAT_REQUEST);
            let frame = request(v6, chunk, 8);
            assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(Reason::NotSyn), frame));
            assert!(m.conns4.is_empty() && m.conns6.is_empty());
        }
        let mut m = director(kind::NAT_REQUEST);
        let bare = cut(request(v6, INIT, 0), v6, 12);
        assert_eq!(m.run(&bare, CLIENT_LINK).0, Verdict::drop(Reason::ShortTransport), "no chunk at all");
        assert_eq!(m.run(&request(v6, INIT, 0), CLIENT_LINK).0.reason, Reason::Request);
        assert_eq!(state(&m), State::Init1 as u8, "one INIT, one step");
        let bare = cut(request(v6, DATA, 0), v6, 12);
        assert_eq!(m.run(&bare, CLIENT_LINK).0.reason, Reason::Request, "no chunk, no change");
        assert_eq!(state(&m), State::Init1 as u8);
        assert_eq!(m.recount(), m.counted());
    }
}

/// C4, in every method and direction.
#[test]
fn headers_cut_short_are_dropped() {
    for method in [kind::NAT_REQUEST, kind::DR_REQUEST, kind::TUN_REQUEST] {
        for v6 in [false, true] {
            let mut m = director(method);
            m.hops.iter_mut().filter(|_| method == kind::TUN_REQUEST).for_each(|hop| hop.tunnel = tunnel::IPIP);
            assert_eq!(m.run(&request(v6, INIT, 4), CLIENT_LINK).0.reason, Reason::Request);
            for len in [0, 3, 4, 8, 11] {
                let short = cut(request(v6, DATA, 0), v6, len);
                assert_eq!(m.run(&short, CLIENT_LINK).0, Verdict::drop(Reason::ShortTransport), "{len} bytes");
                if method == kind::NAT_REQUEST {
                    let short = cut(answer(v6, DATA, 0), v6, len);
                    assert_eq!(m.run(&short, SERVER_LINK).0, Verdict::drop(Reason::ShortTransport), "{len} bytes");
                }
            }
        }
    }
}

#[test]
fn direct_routing_and_tunnels_change_no_byte_of_it() {
    for (v6, l4) in [(false, 34), (true, 54)] {
        let mut m = director(kind::DR_REQUEST);
        let before = request(v6, INIT, 9);
        let (verdict, out) = m.run(&before, CLIENT_LINK);
        assert_eq!(verdict, sent(SERVER_LINK, Reason::Request));
        assert_eq!(out[l4..], before[l4..]);
        for (kind, checksums) in [(tunnel::IPIP, 0), (tunnel::GRE, tunnel::CHECKSUM), (tunnel::GUE, tunnel::CHECKSUM)] {
            let mut m = director(kind::TUN_REQUEST);
            for hop in &mut m.hops {
                (hop.tunnel, hop.flags, hop.port) = (kind, checksums, Be16::new(6080));
            }
            let (verdict, out) = m.run(&before, CLIENT_LINK);
            assert_eq!(verdict, sent(SERVER_LINK, Reason::Request));
            assert!(out.ends_with(&before[l4..]));
            if kind == tunnel::GRE {
                assert_eq!(checksum::sum_bytes(&out[34..]), 0xffff, "GRE's checksum, over it all");
            }
        }
    }
}

/// IPVS's 3.8: an INIT that finds a closed association begins anew, counted once.
#[test]
fn an_init_reopens_what_is_closed() {
    let mut m = director(kind::NAT_REQUEST);
    for chunk in [INIT, ABORT] {
        let _ = m.run(&request(false, chunk, 8), CLIENT_LINK);
    }
    assert_eq!(state(&m), State::Closed as u8);
    assert_eq!(m.run(&request(false, INIT, 8), CLIENT_LINK).0.reason, Reason::Request);
    assert_eq!(state(&m), State::Init1 as u8, "not INIT, as a second one of an open association");
    assert_eq!(m.counters.borrow()[4].conns, 2);
    assert_eq!(m.recount(), m.counted());
}

/// RFC 9260 §3.3.7: an ABORT may stand behind other chunks.
#[test]
fn an_abort_behind_a_cookie_counts() {
    for (len, after) in [(4u16, State::Closed), (6, State::Closed), (8, State::Closed), (3, State::Init)] {
        let mut m = director(kind::NAT_REQUEST);
        let _ = m.run(&request(false, INIT, 8), CLIENT_LINK);
        let mut frame = request(false, COOKIE_ECHO, 12);
        frame[48..50].copy_from_slice(&len.to_be_bytes());
        let second = 46 + usize::from(len.div_ceil(4) * 4);
        frame[second] = ABORT;
        assert_eq!(m.run(&frame, CLIENT_LINK).0.reason, Reason::Request);
        assert_eq!(state(&m), after as u8, "a cookie of {len} bytes");
    }
}

#[test]
fn timeouts_are_those_of_the_state() {
    let mut m = director(kind::NAT_REQUEST);
    let _ = m.run(&request(false, INIT, 8), CLIENT_LINK);
    m.now += 4 * m.settings.hz - 1;
    assert_eq!(m.run(&request(false, DATA, 8), CLIENT_LINK).0.reason, Reason::Request);
    m.now += 4 * m.settings.hz;
    assert_eq!(m.run(&request(false, DATA, 8), CLIENT_LINK).0, Verdict::pass(Reason::NotSyn), "INIT1 lives 4 s");
    assert!(m.conns4.is_empty());
    let _ = m.run(&request(false, INIT, 8), CLIENT_LINK);
    let _ = m.run(&answer(false, 11, 0), SERVER_LINK);
    assert_eq!((state(&m), m.counted()[4]), (State::Established as u8, (1, 0)));
    m.now += 900 * m.settings.hz - 1;
    assert_eq!(m.run(&request(false, DATA, 8), CLIENT_LINK).0.reason, Reason::Request);
}

/// An SCTP packet without DF, cut at byte 1000 of its transport.
fn pieces(packet: &[u8]) -> Vec<Vec<u8>> {
    let parts = [(0, 1000), (1000, packet.len() - 34)];
    let piece = |(from, to): (usize, usize)| {
        let mut piece = [&packet[..34], &packet[34 + from..34 + to]].concat();
        piece[16..18].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
        let more = if from == 0 { 0x2000 } else { 0 };
        piece[20..22].copy_from_slice(&((from / 8) as u16 | more).to_be_bytes());
        mend(&mut piece);
        piece
    };
    parts.map(piece).to_vec()
}

/// Where no port changes pieces are translated one by one; else they are dropped, each.
#[test]
fn pieces_go_on_where_no_port_changes() {
    for (port, goes) in [(VPORT, true), (SERVER_PORT, false)] {
        let mut m = director(kind::NAT_REQUEST);
        for server in &mut m.servers {
            server.port = Be16::new(port);
        }
        let _ = m.run(&request(false, INIT, 8), CLIENT_LINK);
        for piece in pieces(&request(false, DATA, 1400)) {
            let (verdict, out) = m.run(&piece, CLIENT_LINK);
            match goes {
                true => {
                    assert_eq!(verdict, sent(SERVER_LINK, Reason::Request));
                    assert_eq!((&out[30..34], &out[34..]), (&server4(0)[..], &piece[34..]));
                }
                false => assert_eq!(verdict, Verdict::drop(Reason::SctpPiece)),
            }
        }
        if !goes {
            for piece in pieces(&answer(false, DATA, 1400)) {
                assert_eq!(m.run(&piece, SERVER_LINK).0, Verdict::drop(Reason::SctpPiece));
            }
        }
    }
}

/// What an offload has yet to finish: segments nobody can tell apart here; a CRC that is not
/// there is left to whom it is left to, unless a tunnel's checksum must cover it.
#[test]
fn offloads_are_left_to_the_device_or_dropped() {
    let mut m = director(kind::NAT_REQUEST);
    let _ = m.run(&request(false, INIT, 8), CLIENT_LINK);
    let verdict = m.run_segments(&request(false, DATA, 900), CLIENT_LINK, 0xffff).0;
    assert_eq!(verdict, Verdict::drop(Reason::SctpOffload));
    let verdict = m.run_segments(&answer(false, DATA, 900), SERVER_LINK, 0xffff).0;
    assert_eq!(verdict, Verdict::drop(Reason::SctpOffload));
    for (flags, expected) in [(0, Reason::Request), (tunnel::CHECKSUM, Reason::SctpOffload)] {
        let mut m = director(kind::TUN_REQUEST);
        for hop in &mut m.hops {
            (hop.tunnel, hop.flags) = (tunnel::GRE, flags);
        }
        let mut init = request(false, INIT, 8);
        init[42..46].fill(0);
        assert_eq!(m.run(&init, CLIENT_LINK).0.reason, expected);
    }
    // Too long for its way and not finished: nobody here can cut it.
    let mut m = director(kind::NAT_REQUEST);
    m.hops.iter_mut().for_each(|hop| hop.mtu = 600);
    let _ = m.run(&request(false, INIT, 8), CLIENT_LINK);
    let mut long = request(false, DATA, 1000);
    long[42..46].fill(0);
    long[20] = 0;
    mend(&mut long);
    let (verdict, out) = m.run(&long, CLIENT_LINK);
    assert_eq!((verdict.action, &out[30..34]), (Action::Forward, &server4(0)[..]), "the host's stack can");
}

/// An ICMP error about an association: addresses and ports of the quote are translated back,
/// its checksum follows, the quoted CRC stays (IPVS).
#[test]
fn errors_about_associations_are_relayed() {
    let mut m = director(kind::NAT_REQUEST);
    let (_, out) = m.run(&request(false, INIT, 40), CLIENT_LINK);
    let quote = &out[14..14 + 20 + 24];
    let mut icmp = [&[3, 2, 0, 0, 0, 0, 0, 0], quote].concat();
    let check = !checksum::sum_bytes(&icmp);
    icmp[2..4].copy_from_slice(&check.to_ne_bytes());
    let mut frame =
        [&out[..14], &[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 1, 0, 0], &server4(0)[..], &client4(1), &icmp].concat();
    frame[..6].copy_from_slice(&support::MAC);
    frame[16..18].copy_from_slice(&(20 + icmp.len() as u16).to_be_bytes());
    mend(&mut frame);
    let (verdict, told) = m.run(&frame, SERVER_LINK);
    assert_eq!(verdict, sent(CLIENT_LINK, Reason::IcmpReply));
    assert_eq!((&told[26..30], &told[58..62], &told[64..66]), (&VIP4[..], &VIP4[..], &VPORT.to_be_bytes()[..]));
    assert_eq!(told[66..], quote[24..]);
    assert_eq!(checksum::sum_bytes(&told[34..]), 0xffff);
}

/// nat_icmp_send: no error about an ABORT.
#[test]
fn stray_aborts_are_not_refused() {
    let mut m = director(kind::NAT_REQUEST);
    m.settings.flags = setting::KNOW_SERVERS | setting::NAT_ICMP_SEND;
    assert_eq!(m.run(&answer(false, DATA, 8), SERVER_LINK).0, sent(SERVER_LINK, Reason::Stray));
    let frame = answer(false, ABORT, 8);
    assert_eq!(m.run(&frame, SERVER_LINK), (Verdict::pass(Reason::NoService), frame));
}

/// A server on the director: its answers are translated on their way out.
#[test]
fn a_local_server_answers_as_the_service() {
    for (v6, l4) in [(false, 34), (true, 54)] {
        let mut m = director(kind::NAT_REQUEST);
        m.hops.iter_mut().for_each(|hop| hop.state.store(hop::LOCAL));
        let (verdict, out) = m.run(&request(v6, INIT, 8), CLIENT_LINK);
        assert_eq!(verdict, Verdict::of(Action::Deliver, Reason::LocalServer));
        assert!(checksums_hold(&out));
        let mut first = Frame::<true>::new(&answer(v6, 2, 8), 0);
        assert_eq!(
            leave(&mut first, &mut m),
            if v6 { Stage::Sctp.verdict::<V6>() } else { Stage::Sctp.verdict::<V4>() }
        );
        let mut frame = first.later();
        let verdict = match v6 {
            false => leave_sctp::<V4, _, _>(&mut frame, &mut m, &mut Default::default()),
            true => leave_sctp::<V6, _, _>(&mut frame, &mut m, &mut Default::default()),
        };
        assert_eq!(verdict, Verdict::of(Action::Deliver, Reason::LocalReply));
        assert_eq!(frame.bytes()[l4..l4 + 2], VPORT.to_be_bytes());
        assert!(checksums_hold(frame.bytes()));
        assert_eq!(state(&m), State::CookieSent as u8);
    }
}
