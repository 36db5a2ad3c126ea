//! Tunnels (ipvs-semantics §2.5, packet-rules §2.2): exact headers, what the way carries, and
//! what ICMP errors teach about it.
#![expect(clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::Reason;
use dirigent_director::family::Address as _;
use dirigent_director::records::{hop, kind, setting, tunnel};
use dirigent_director::shared::S32;
use dirigent_director::verdict::{Action, Verdict};
use dirigent_wire::{Addr4, Addr6, Be16, checksum};
use support::{
    CLIENT_LINK, MAC, Memory, SERVER_LINK, Spec, VIP4, VIP6, VPORT, client4, client6, frame4, frame6,
    ip_checksum_holds, server4, server6,
};

const OURS4: [u8; 4] = [10, 1, 0, 1];
const GUE_PORT: u16 = 6080;

/// A director whose servers are reached by such a tunnel; `v6`: over IPv6.
fn director(tunnel: u8, checksums: bool, v6: bool) -> Memory {
    let mut m = Memory::new(0, kind::TUN_REQUEST, &[1]);
    for hop in &mut m.hops {
        hop.tunnel = tunnel;
        hop.flags = if checksums { tunnel::CHECKSUM } else { 0 } | if v6 { tunnel::PEER_V6 } else { 0 };
        hop.port = Be16::new(GUE_PORT);
        (hop.source, hop.peer) = match v6 {
            false => (Addr4::new(OURS4).to_words(), Addr4::new(server4(0)).to_words()),
            true => (Addr6::new(client6(99)).to_words(), Addr6::new(server6(0)).to_words()),
        };
    }
    m.local4.insert(Addr4::new(OURS4));
    m
}

fn request(ttl: u8, payload: usize) -> Vec<u8> {
    frame4(Spec { src: (client4(1), 4000), dst: (VIP4, VPORT), protocol: 6, flags: 2, ttl, payload })
}

/// The frame as it is inside: one hop further.
fn decremented(frame: &[u8]) -> Vec<u8> {
    let mut packet = frame[14..].to_vec();
    packet[8] -= 1;
    packet[10..12].fill(0);
    let check = !checksum::sum_bytes(&packet[..20]);
    packet[10..12].copy_from_slice(&check.to_ne_bytes());
    packet
}

#[test]
fn ipip_puts_a_plain_header_in_front() {
    let mut m = director(tunnel::IPIP, false, false);
    let frame = request(64, 0);
    let (verdict, out) = m.run(&frame, CLIENT_LINK);
    assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Request, SERVER_LINK));
    assert_eq!((&out[..6], &out[6..12], &out[12..14]), (&[2, 0, 0, 0, 1, 0][..], &MAC[..], &[8, 0][..]));
    assert_eq!((out[14], out[22], out[23]), (0x45, 63, 4), "no options, the inner TTL, IPv4 inside");
    assert_eq!((&out[26..30], &out[30..34]), (&OURS4[..], &server4(0)[..]));
    assert_eq!(u16::from_be_bytes([out[16], out[17]]) as usize, out.len() - 14);
    assert!(ip_checksum_holds(&out));
    assert_eq!(out[34..], decremented(&frame), "what is inside is what came");
}

/// DF follows the inner packet's, and then there is no identification; congestion marks are not copied (IPVS).
#[test]
fn the_outer_header_follows_the_inner_one() {
    for (tos, outer) in [(0, 0), (0xb8, 0xb8), (1, 1), (2, 2), (3, 2), (0xbb, 0xba)] {
        for (df, pmtu_disc) in [(true, true), (true, false), (false, true)] {
            let mut m = director(tunnel::IPIP, false, false);
            if !pmtu_disc {
                m.settings.flags &= !setting::PMTU_DISC;
            }
            let mut frame = request(64, 0);
            frame[15] = tos;
            frame[20] = if df { 0x40 } else { 0 };
            frame[24..26].fill(0);
            let check = !checksum::sum_bytes(&frame[14..34]);
            frame[24..26].copy_from_slice(&check.to_ne_bytes());
            let (_, out) = m.run(&frame, CLIENT_LINK);
            let outer_df = df && pmtu_disc;
            assert_eq!((out[15], out[20] & 0x40 != 0), (outer, outer_df), "TOS {tos}, DF {df}, pmtu_disc {pmtu_disc}");
            assert_eq!(out[18..20] == [0, 0], outer_df, "an identification where it can be cut");
        }
    }
}

/// Bytes that each tunnel adds, over IPv4 and over IPv6, and where its checksums are right.
#[test]
fn every_tunnel_in_every_mix() {
    let shapes = [
        (tunnel::IPIP, false, 0),
        (tunnel::GRE, false, 4),
        (tunnel::GRE, true, 8),
        (tunnel::GUE, false, 12),
        (tunnel::GUE, true, 12),
    ];
    for (kind, summed, more) in shapes {
        for (outer6, inner6) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut m = director(kind, summed, outer6);
            let spec6 =
                Spec { src: (client6(1), 4000), dst: (VIP6, VPORT), protocol: 6, flags: 2, ttl: 64, payload: 33 };
            let frame = if inner6 { frame6(spec6) } else { request(64, 33) };
            let (verdict, out) = m.run(&frame, CLIENT_LINK);
            let case = format!("{kind} {summed} over v6 {outer6}, v6 inside {inner6}");
            assert_eq!(verdict.reason, Reason::Request, "{case}");
            let ip = if outer6 { 40 } else { 20 };
            assert_eq!(out.len(), frame.len() + ip + more, "{case}");
            assert_eq!(out[12..14], if outer6 { [0x86, 0xdd] } else { [8, 0] }, "{case}");
            let at = 14 + ip;
            let l4 = &out[at..];
            match kind {
                tunnel::GRE => {
                    assert_eq!((l4[0] & 0x80 != 0, l4[2..4] == [0x86, 0xdd]), (summed, inner6), "{case}");
                    assert!(!summed || checksum::sum_bytes(l4) == 0xffff, "{case}");
                }
                tunnel::GUE => {
                    let port = u16::from_be_bytes([l4[0], l4[1]]);
                    assert!((32768..=60999).contains(&port), "{case}");
                    assert_eq!(u16::from_be_bytes([l4[2], l4[3]]), GUE_PORT);
                    assert_eq!((l4[8], l4[9]), (0, if inner6 { 41 } else { 4 }), "{case}");
                    let ends = if outer6 { &out[22..54] } else { &out[26..34] };
                    let pseudo = [ends, &[0, 17], &(l4.len() as u16).to_be_bytes()].concat();
                    let sum = checksum::add(checksum::sum_bytes(&pseudo), checksum::sum_bytes(l4));
                    assert_eq!(sum == 0xffff, summed, "{case}");
                    assert_eq!(l4[6..8] == [0, 0], !summed, "{case}");
                }
                _ => {}
            }
        }
    }
}

/// What fits passes whole; one byte more is refused with the room that there is.
#[test]
fn the_tunnels_headers_count_against_the_mtu() {
    for (more, fits) in [(0, true), (1, false)] {
        let mut m = director(tunnel::GUE, false, false);
        m.hops[0].mtu = 1400;
        let room = 1400 - 32;
        let (verdict, out) = m.run(&request(64, room - 40 + more), CLIENT_LINK);
        assert_eq!(verdict.reason == Reason::Request, fits);
        if !fits {
            assert_eq!((out[34], out[35]), (3, 4));
            assert_eq!(usize::from(u16::from_be_bytes([out[40], out[41]])), room);
        }
    }
}

/// Ethernet padding stays outside.
#[test]
fn padding_is_not_carried() {
    let mut m = director(tunnel::IPIP, false, false);
    let mut frame = request(64, 0);
    frame.resize(60, 0xee);
    let (_, out) = m.run(&frame, CLIENT_LINK);
    assert_eq!(out.len(), 14 + 20 + 40);
}

/// "Fragmentation needed" from a router on the way to the server, about this tunnelled packet.
fn told(outer: &[u8], mtu: u16, kind: (u8, u8)) -> Vec<u8> {
    let mut icmp = [&[kind.0, kind.1, 0, 0, 0, 0][..], &mtu.to_be_bytes(), &outer[14..14 + 48]].concat();
    let check = !checksum::sum_bytes(&icmp);
    icmp[2..4].copy_from_slice(&check.to_ne_bytes());
    let len = (20 + icmp.len()) as u16;
    let mut ip = [&[0x45, 0][..], &len.to_be_bytes(), &[0, 1, 0x40, 0, 64, 1, 0, 0], &[10, 1, 0, 254], &OURS4].concat();
    let check = !checksum::sum_bytes(&ip);
    ip[10..12].copy_from_slice(&check.to_ne_bytes());
    [&MAC[..], &[2, 0, 0, 0, 9, 9, 8, 0], &ip, &icmp].concat()
}

#[test]
fn an_error_about_the_tunnel_teaches_and_is_told_on() {
    let mut m = director(tunnel::IPIP, false, false);
    let (_, outer) = m.run(&request(64, 600), CLIENT_LINK);
    let (verdict, error) = m.run(&told(&outer, 1300, (3, 4)), SERVER_LINK);
    assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::TunnelError, CLIENT_LINK));
    assert_eq!((&error[26..30], &error[30..34]), (&VIP4[..], &client4(1)[..]), "as if from the server");
    assert_eq!((error[34], error[35], u16::from_be_bytes([error[40], error[41]])), (3, 4, 1280));
    assert_eq!((checksum::sum_bytes(&error[34..]), ip_checksum_holds(&error)), (0xffff, true));
    assert_eq!(error[42..70], outer[34..62], "quoting the client's packet");
    // From now on, for all connections of that server.
    let spec = Spec { src: (client4(2), 7), dst: (VIP4, VPORT), protocol: 6, flags: 2, ttl: 64, payload: 1241 };
    let (verdict, refused) = m.run(&frame4(spec), CLIENT_LINK);
    assert_eq!((verdict.reason, u16::from_be_bytes([refused[40], refused[41]])), (Reason::TooBig, 1280));
    // RFC 1191 §6.3: ten minutes later it may be better.
    m.now = m.now.wrapping_add(601 * m.settings.hz);
    assert_eq!(m.run(&frame4(spec), CLIENT_LINK).0.reason, Reason::Request);
    // Other errors go on as what they are.
    let (verdict, error) = m.run(&told(&outer, 0, (3, 1)), SERVER_LINK);
    assert_eq!((verdict.reason, error[34], error[35]), (Reason::TunnelError, 3, 1));
}

/// Nobody slows a server down with a number, or without a packet of a connection that there is.
#[test]
fn errors_that_cannot_be_true_teach_nothing() {
    let mut m = director(tunnel::IPIP, false, false);
    let (_, outer) = m.run(&request(64, 600), CLIENT_LINK);
    for mtu in [0, 68, 575] {
        assert_eq!(m.run(&told(&outer, mtu, (3, 4)), SERVER_LINK).0, Verdict::drop(Reason::TunnelTold), "{mtu}");
    }
    let mut other = outer.clone();
    other[55] ^= 1; // another client port, inside
    assert_eq!(m.run(&told(&other, 1300, (3, 4)), SERVER_LINK).0, Verdict::pass(Reason::IcmpUnrelated));
    let mut elsewhere = outer.clone();
    elsewhere[33] ^= 1; // not where that connection's server is
    assert_eq!(m.run(&told(&elsewhere, 1300, (3, 4)), SERVER_LINK).0, Verdict::pass(Reason::IcmpUnrelated));
    let mut broken = told(&outer, 1300, (3, 4));
    broken[41] ^= 1;
    assert_eq!(m.run(&broken, SERVER_LINK).0, Verdict::drop(Reason::IcmpChecksum));
    assert_eq!(m.hops[0].learned.load(), 0);
}

/// A flow keeps its source port; others have others.
#[test]
fn gue_spreads_flows_by_their_source_port() {
    let mut m = director(tunnel::GUE, false, false);
    let mut port = |client: u8| {
        let spec = Spec { src: (client4(client), 7), dst: (VIP4, VPORT), protocol: 6, flags: 2, ttl: 64, payload: 0 };
        let (_, out) = m.run(&frame4(spec), CLIENT_LINK);
        u16::from_be_bytes([out[34], out[35]])
    };
    let ports: Vec<u16> = (1..100).map(&mut port).collect();
    assert_eq!(ports[4], port(5));
    let distinct: std::collections::HashSet<_> = ports.iter().collect();
    assert!(distinct.len() > 90, "{distinct:?}");
}

/// Where there is no way there is no MTU either: no route, not too long.
#[test]
fn without_a_route_the_client_is_told_so() {
    for df in [true, false] {
        let mut m = director(tunnel::GRE, true, false);
        m.hops.iter_mut().for_each(|hop| (hop.state, hop.mtu) = (S32::new(hop::NO_ROUTE), 0));
        let mut frame = request(64, 100);
        frame[20] = if df { 0x40 } else { 0 };
        frame[24..26].fill(0);
        let check = !checksum::sum_bytes(&frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_ne_bytes());
        let (verdict, error) = m.run(&frame, CLIENT_LINK);
        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::NoRoute, CLIENT_LINK), "DF {df}");
        assert_eq!((error[34], error[35]), (3, 1));
    }
}
