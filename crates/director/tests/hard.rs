//! Hard packets, each by packet-rules: options, extension headers, ICMP errors in all
//! combinations, too long in every direction and method, martian sources, port 0, short and
//! lying headers, and what is the host's.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests")]

mod support;

use dirigent_director::Reason;
use dirigent_director::family::Address as _;
use dirigent_director::records::{Place, kind, setting, tunnel, virtual_mac};
use dirigent_director::verdict::{Action, Verdict};
use dirigent_wire::{Addr4, Addr6, Mac, checksum};
use support::{
    CLIENT_LINK, MAC, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, checksums_hold, client4, client6,
    frame4, frame6, ip_checksum_holds, server4, server6,
};

const PORT: u16 = 4000;
const SYN: u8 = 2;
const ACK: u8 = 16;
const METHODS: [u8; 3] = [kind::NAT_REQUEST, kind::DR_REQUEST, kind::TUN_REQUEST];

/// A director whose servers are reached by this method, in a tunnel of the service's family.
fn director(method: u8, v6: bool) -> Memory {
    let mut m = Memory::new(0, method, &[1]);
    if method == kind::TUN_REQUEST {
        for hop in &mut m.hops {
            hop.tunnel = tunnel::IPIP;
            hop.flags = if v6 { tunnel::PEER_V6 } else { 0 };
            (hop.source, hop.peer) = match v6 {
                false => (Addr4::new([10, 1, 0, 1]).to_words(), Addr4::new(server4(0)).to_words()),
                true => (Addr6::new(client6(99)).to_words(), Addr6::new(server6(0)).to_words()),
            };
        }
    }
    m
}

/// A packet of the client, or of the server: TCP flags, or the type of the SCTP chunk.
fn packet(v6: bool, reply: bool, (protocol, flags): (u8, u8), ttl: u8, payload: usize) -> Vec<u8> {
    if v6 {
        let (client, service, server) = ((client6(1), PORT), (VIP6, VPORT), (server6(0), SERVER_PORT));
        let (src, dst) = if reply { (server, client) } else { (client, service) };
        frame6(Spec { src, dst, protocol, flags, ttl, payload })
    } else {
        let (client, service, server) = ((client4(1), PORT), (VIP4, VPORT), (server4(0), SERVER_PORT));
        let (src, dst) = if reply { (server, client) } else { (client, service) };
        frame4(Spec { src, dst, protocol, flags, ttl, payload })
    }
}

fn opening(v6: bool, protocol: u8) -> Vec<u8> {
    packet(v6, false, (protocol, if protocol == 6 { SYN } else { 1 }), 64, 8)
}

/// Makes an IPv4 header's length and checksum right.
fn mend(frame: &mut [u8]) {
    if frame[12..14] == [8, 0] {
        let (header, len) = (usize::from(frame[14] & 15) * 4, (frame.len() - 14) as u16);
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        frame[24..26].fill(0);
        let check = !checksum::sum_bytes(&frame[14..14 + header]);
        frame[24..26].copy_from_slice(&check.to_ne_bytes());
    }
}

fn without_df(mut frame: Vec<u8>) -> Vec<u8> {
    frame[20] = 0;
    mend(&mut frame);
    frame
}

fn pseudo_sum(addresses: &[u8], protocol: u8, len: usize) -> u16 {
    checksum::sum_bytes(&[addresses, &[0, 0], &(len as u16).to_be_bytes(), &[0, protocol]].concat())
}

/// Whether an ICMP message in a frame without options has the right checksum.
fn icmp_holds(frame: &[u8]) -> bool {
    match frame[12..14] == [8, 0] {
        true => ip_checksum_holds(frame) && checksum::sum_bytes(&frame[34..]) == 0xffff,
        false => {
            let pseudo = pseudo_sum(&frame[22..54], 58, frame.len() - 54);
            usize::from(u16::from_be_bytes([frame[18], frame[19]])) == frame.len() - 54
                && checksum::add(checksum::sum_bytes(&frame[54..]), pseudo) == 0xffff
        }
    }
}

/// An ICMP error of a router, to `dst`.
fn error(v6: bool, dst: &[u8], (kind, code): (u8, u8), quote: &[u8]) -> Vec<u8> {
    let mut icmp = [&[kind, code, 0, 0, 0, 0, 5, 0], quote].concat();
    let head = if v6 {
        let src = client6(77);
        let pseudo = pseudo_sum(&[&src, dst].concat(), 58, icmp.len());
        let check = !checksum::add(checksum::sum_bytes(&icmp), pseudo);
        icmp[2..4].copy_from_slice(&check.to_ne_bytes());
        let len = (icmp.len() as u16).to_be_bytes();
        [&MAC[..], &[2, 0, 0, 0, 9, 9, 0x86, 0xdd, 0x60, 0, 0, 0], &len, &[58, 64], &src, dst].concat()
    } else {
        let check = !checksum::sum_bytes(&icmp);
        icmp[2..4].copy_from_slice(&check.to_ne_bytes());
        let ip = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, 1, 0, 0];
        [&MAC[..], &[2, 0, 0, 0, 9, 9, 8, 0], &ip, &client4(77), dst].concat()
    };
    let mut frame = [head, icmp].concat();
    mend(&mut frame);
    frame
}

/// What an error quotes: the answer that a client's side got, or the request that a
/// server's side did (NAT).
fn quoted(v6: bool, of_answer: bool, protocol: u8, payload: usize) -> Vec<u8> {
    let flags = if protocol == 6 { ACK } else { 0 };
    let frame = match (v6, of_answer) {
        (false, true) => {
            let (src, dst) = ((VIP4, VPORT), (client4(1), PORT));
            frame4(Spec { src, dst, protocol, flags, ttl: 60, payload })
        }
        (false, false) => {
            let (src, dst) = ((client4(1), PORT), (server4(0), SERVER_PORT));
            frame4(Spec { src, dst, protocol, flags, ttl: 60, payload })
        }
        (true, true) => {
            let (src, dst) = ((VIP6, VPORT), (client6(1), PORT));
            frame6(Spec { src, dst, protocol, flags, ttl: 60, payload })
        }
        (true, false) => {
            let (src, dst) = ((client6(1), PORT), (server6(0), SERVER_PORT));
            frame6(Spec { src, dst, protocol, flags, ttl: 60, payload })
        }
    };
    frame[14..].to_vec()
}

fn vip(v6: bool) -> Vec<u8> {
    if v6 { VIP6.to_vec() } else { VIP4.to_vec() }
}

fn server(v6: bool) -> Vec<u8> {
    if v6 { server6(0).to_vec() } else { server4(0).to_vec() }
}

fn client(v6: bool) -> Vec<u8> {
    if v6 { client6(1).to_vec() } else { client4(1).to_vec() }
}

/// Offsets: (IP source, IP destination, ICMP, quoted source, quoted ports).
fn places(v6: bool) -> (usize, usize, usize, usize, usize) {
    if v6 { (22, 38, 54, 54 + 8 + 8, 54 + 8 + 40) } else { (26, 30, 34, 34 + 8 + 12, 34 + 8 + 20) }
}

#[test]
fn errors_about_answers_go_to_the_server_in_every_method() {
    for method in METHODS {
        for v6 in [false, true] {
            for protocol in [6, 17, 132] {
                let mut m = director(method, v6);
                assert_eq!(m.run(&opening(v6, protocol), CLIENT_LINK).0.reason, Reason::Request);
                let kinds: &[(u8, u8)] = if v6 {
                    &[(1, 4), (2, 0), (3, 0), (4, 1), (100, 0), (127, 9)]
                } else {
                    &[(3, 3), (3, 4), (4, 0), (11, 1)]
                };
                for kind in kinds {
                    let frame = error(v6, &vip(v6), *kind, &quoted(v6, true, protocol, 20));
                    let (verdict, out) = m.run(&frame, CLIENT_LINK);
                    assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::IcmpRequest, SERVER_LINK), "{kind:?}");
                    let (_, dst, icmp, from, ports) = places(v6);
                    let n = server(v6).len();
                    match method {
                        kind::NAT_REQUEST => {
                            assert!(icmp_holds(&out));
                            assert_eq!((&out[dst..dst + n], &out[from..from + n]), (&server(v6)[..], &server(v6)[..]));
                            assert_eq!(out[ports..ports + 2], SERVER_PORT.to_be_bytes());
                        }
                        kind::DR_REQUEST => assert_eq!(out[icmp..], frame[icmp..], "not a byte of it"),
                        _ => assert!(out.ends_with(&frame[dst..]) && out.len() > frame.len()),
                    }
                }
                let others: &[(u8, u8)] =
                    if v6 { &[(128, 0), (129, 0), (135, 0)] } else { &[(0, 0), (5, 1), (8, 0), (12, 0)] };
                for kind in others {
                    let frame = error(v6, &vip(v6), *kind, &quoted(v6, true, protocol, 20));
                    assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(Reason::IcmpUnrelated), frame));
                }
            }
        }
    }
}

#[test]
fn errors_about_requests_go_to_the_client_as_from_the_service() {
    for v6 in [false, true] {
        for protocol in [6, 17, 132] {
            let mut m = director(kind::NAT_REQUEST, v6);
            let _ = m.run(&opening(v6, protocol), CLIENT_LINK);
            let kind = if v6 { (1, 4) } else { (3, 3) };
            let frame = error(v6, &client(v6), kind, &quoted(v6, false, protocol, 20));
            let (verdict, out) = m.run(&frame, SERVER_LINK);
            assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::IcmpReply, CLIENT_LINK));
            let (src, _, _, from, ports) = places(v6);
            let n = vip(v6).len();
            assert!(icmp_holds(&out));
            assert_eq!((&out[src..src + n], &out[from + n..from + 2 * n]), (&vip(v6)[..], &vip(v6)[..]));
            assert_eq!(out[ports + 2..ports + 4], VPORT.to_be_bytes());
        }
    }
}

/// Packet-rules 7.1 and 7.2: what is asked of an error before it is relayed.
#[test]
fn errors_are_related_by_four_bytes_of_ports_and_verified_in_nat_only() {
    for method in METHODS {
        for v6 in [false, true] {
            let mut m = director(method, v6);
            let _ = m.run(&opening(v6, 6), CLIENT_LINK);
            let kind = if v6 { (1, 4) } else { (3, 3) };
            let mut run = |frame: &[u8]| m.run(frame, CLIENT_LINK).0.reason;
            let header = if v6 { 40 } else { 20 };
            let quote = quoted(v6, true, 6, 20);
            assert_eq!(run(&error(v6, &vip(v6), kind, &quote[..header + 4])), Reason::IcmpRequest);
            assert_eq!(run(&error(v6, &vip(v6), kind, &quote[..header + 3])), Reason::IcmpUnrelated);
            let mut wrong = error(v6, &vip(v6), kind, &quote);
            *wrong.last_mut().unwrap_or(&mut 0) ^= 1;
            let expected = if method == kind::NAT_REQUEST { Reason::IcmpChecksum } else { Reason::IcmpRequest };
            assert_eq!(run(&wrong), expected);
            // TTL 1: no error about an error.
            let mut last = error(v6, &vip(v6), kind, &quote);
            last[if v6 { 21 } else { 22 }] = 1;
            mend(&mut last);
            assert_eq!(run(&last), Reason::NoErrorAboutIcmp);
            // About a packet that was not for this one's sender.
            assert_eq!(run(&error(v6, &server(v6), kind, &quote)), Reason::IcmpUnrelated);
            // Quoting a first piece, a later one, and one with options or extension headers.
            let pieces: [(Vec<u8>, Reason); 3] = if v6 {
                let behind = |place: u16| {
                    let mut q = [&quote[..40], &[6, 0], &place.to_be_bytes()[..], &[0, 0, 0, 7], &quote[40..]].concat();
                    q[6] = 44;
                    q
                };
                let mut options = [&quote[..40], &[6, 0, 1, 4, 0, 0, 0, 0], &quote[40..]].concat();
                options[6] = 60;
                [(behind(1), Reason::IcmpRequest), (behind(9), Reason::IcmpUnrelated), (options, Reason::IcmpRequest)]
            } else {
                let place = |at: u16| {
                    let mut q = quote.clone();
                    q[6..8].copy_from_slice(&at.to_be_bytes());
                    q
                };
                let mut options = [&quote[..20], &[1, 1, 1, 0], &quote[20..]].concat();
                options[0] = 0x46;
                [
                    (place(0x2000), Reason::IcmpRequest),
                    (place(0x2001), Reason::IcmpUnrelated),
                    (options, Reason::IcmpRequest),
                ]
            };
            for (quote, expected) in pieces {
                assert_eq!(run(&error(v6, &vip(v6), kind, &quote)), expected);
            }
        }
    }
}

/// Pieces of ICMP messages are the host's, and counted as such (difference icmp-pieces).
#[test]
fn icmp_in_pieces_is_left_to_the_host() {
    let mut m = director(kind::NAT_REQUEST, false);
    let _ = m.run(&opening(false, 6), CLIENT_LINK);
    for place in [0x2000u16, 0x2001, 1] {
        let mut frame = error(false, &VIP4, (3, 3), &quoted(false, true, 6, 20));
        frame[20..22].copy_from_slice(&place.to_be_bytes());
        mend(&mut frame);
        assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(Reason::IcmpPiece), frame));
    }
    for place in [1u16, 9, 8] {
        let mut frame = error(true, &VIP6, (1, 4), &quoted(true, true, 6, 20));
        frame.splice(54..54, [&[58, 0][..], &place.to_be_bytes(), &[0, 0, 0, 7]].concat());
        let len = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        frame[20] = 44;
        assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(Reason::IcmpPiece), frame));
    }
}

/// C13: an ICMPv6 error that is too long quotes less, in every method and direction.
#[test]
fn an_error_of_ipv6_that_is_too_long_quotes_less() {
    for (method, keeps) in METHODS.into_iter().zip([1280, 1280, 1240]) {
        let mut m = director(method, true);
        m.hops.iter_mut().for_each(|hop| hop.mtu = 1280);
        let _ = m.run(&opening(true, 6), CLIENT_LINK);
        let frame = error(true, &VIP6, (1, 4), &quoted(true, true, 6, 1300));
        let (verdict, out) = m.run(&frame, CLIENT_LINK);
        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::IcmpRequest, SERVER_LINK));
        assert_eq!(out.len(), 14 + 1280, "{keeps} with what is around it");
        let inner = if method == kind::TUN_REQUEST { [&out[..14], &out[54..]].concat() } else { out };
        assert_eq!(inner.len(), 14 + keeps);
        assert!(icmp_holds(&inner));
        let mut wrong = frame;
        wrong[800] ^= 1;
        assert_eq!(m.run(&wrong, CLIENT_LINK).0, Verdict::drop(Reason::IcmpChecksum), "or it would become right");
    }
    // To the client, whose route carries 1500.
    let mut m = director(kind::NAT_REQUEST, true);
    let _ = m.run(&opening(true, 6), CLIENT_LINK);
    let frame = error(true, &client6(1), (1, 4), &quoted(true, false, 6, 1500));
    let (verdict, out) = m.run(&frame, SERVER_LINK);
    assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::IcmpReply, CLIENT_LINK));
    assert!(icmp_holds(&out) && out.len() == 14 + 1280);
    // A tunnel so narrow that not even the ports would be left.
    let mut m = director(kind::TUN_REQUEST, true);
    let _ = m.run(&opening(true, 6), CLIENT_LINK);
    m.hops.iter_mut().for_each(|hop| hop.mtu = 40 + 40 + 8 + 40 + 3);
    let frame = error(true, &VIP6, (1, 4), &quoted(true, true, 6, 20));
    assert_eq!(m.run(&frame, CLIENT_LINK).0, Verdict::drop(Reason::NoErrorAboutIcmp));
}

/// Requests: the sender is told the MTU, or the packet is cut if it may be. With
/// `pmtu_disc` 0 what goes into a tunnel may always be, but for IPv6.
#[test]
fn too_long_for_the_server_in_every_method() {
    for method in METHODS {
        for v6 in [false, true] {
            for (df, pmtu_disc) in [(true, true), (true, false), (false, true), (false, false)] {
                let mut m = director(method, v6);
                let _ = m.run(&opening(v6, 6), CLIENT_LINK);
                let overhead = m.hops[0].overhead().max(m.hops[2].overhead()) as usize;
                m.hops.iter_mut().for_each(|hop| hop.mtu = 1300);
                if !pmtu_disc {
                    m.settings.flags &= !setting::PMTU_DISC;
                }
                let fits = 1300 - overhead - if v6 { 40 } else { 20 } - 20;
                for (payload, long) in [(fits, false), (fits + 1, true)] {
                    let frame = packet(v6, false, (6, ACK), 64, payload);
                    let frame = if df || v6 { frame } else { without_df(frame) };
                    let (verdict, out) = m.run(&frame, CLIENT_LINK);
                    let told = v6 || (df && (pmtu_disc || method != kind::TUN_REQUEST));
                    if long && told {
                        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::TooBig, CLIENT_LINK));
                        let (_, _, icmp, _, _) = places(v6);
                        assert_eq!(out[icmp..icmp + 2], if v6 { [2, 0] } else { [3, 4] });
                        let mtu = u16::from_be_bytes([out[icmp + 6], out[icmp + 7]]);
                        assert_eq!(usize::from(mtu), 1300 - overhead);
                        assert!(icmp_holds(&out));
                    } else {
                        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Request, SERVER_LINK));
                        assert!(out.len() <= 14 + 1300);
                        assert_eq!(out.len() - overhead < frame.len(), long, "whole or a first piece");
                    }
                }
            }
        }
    }
}

/// Answers: the host tells the server, of a packet that is untouched; or it is cut.
#[test]
fn too_long_for_the_client() {
    for v6 in [false, true] {
        let mut m = director(kind::NAT_REQUEST, v6);
        let _ = m.run(&opening(v6, 6), CLIENT_LINK);
        let long = packet(v6, true, (6, ACK), 64, 1500);
        assert_eq!(m.run(&long, SERVER_LINK), (Verdict::pass(Reason::ReplyTooBig), long.clone()));
        if !v6 {
            let (verdict, out) = m.run(&without_df(long), SERVER_LINK);
            assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Reply, CLIENT_LINK));
            assert!(out.len() <= 14 + 1500 && out[20] & 0x20 != 0, "its first piece");
        }
    }
}

/// RFC 791 options stay as they are, but for source routes, which are the host's to refuse.
#[test]
fn options_are_forwarded_and_source_routes_are_not() {
    let options: [(&[u8], bool); 7] = [
        (&[1, 1, 1, 0], true),
        (&[148, 4, 0, 0], true),
        (&[7, 7, 4, 0, 0, 0, 0, 0], true),
        (&[68, 8, 5, 0, 0, 0, 0, 0], true),
        (&[1, 131, 7, 4, 192, 0, 2, 1], false),
        (&[137, 7, 4, 192, 0, 2, 1, 0], false),
        (&[0, 131, 7, 4, 192, 0, 2, 1], true), // behind the end of options nothing counts
    ];
    for method in METHODS {
        for (options, goes) in options {
            let mut m = director(method, false);
            let mut frame = opening(false, 6);
            frame.splice(34..34, options.iter().copied());
            frame[14] = 0x45 + (options.len() / 4) as u8;
            mend(&mut frame);
            let (verdict, out) = m.run(&frame, CLIENT_LINK);
            if !goes {
                assert_eq!((verdict, out), (Verdict::pass(Reason::Malformed), frame));
                continue;
            }
            assert_eq!(verdict.reason, Reason::Request);
            let inner = if method == kind::TUN_REQUEST { [&out[..14], &out[34..]].concat() } else { out };
            let n = 34 + options.len();
            assert_eq!((&inner[34..n], inner[22]), (options, 63));
            assert_eq!(checksum::sum_bytes(&inner[14..n]), 0xffff);
            let bare = [&inner[..34], &inner[n..]].concat();
            let pseudo = pseudo_sum(&bare[26..34], 6, bare.len() - 34);
            assert_eq!(checksum::add(checksum::sum_bytes(&bare[34..]), pseudo), 0xffff);
        }
    }
}

/// What is behind hop-by-hop, routing, destination and (atomic) fragment headers is
/// translated and followed; they stay.
#[test]
fn extension_headers_stay_and_are_looked_behind() {
    let one = |next: u8| vec![next, 0, 1, 4, 0, 0, 0, 0];
    let chain = |types: &[u8], last: u8| -> Vec<u8> {
        let nexts = types.iter().skip(1).copied().chain([last]);
        types
            .iter()
            .zip(nexts)
            .flat_map(|(t, n)| if *t == 44 { vec![n, 0, 0, 0, 0, 0, 0, 7] } else { one(n) })
            .collect()
    };
    let chains: [&[u8]; 6] = [&[60], &[0], &[43], &[44], &[0, 60, 43, 44], &[0, 60, 43, 60, 60, 60]];
    for protocol in [6, 17, 132] {
        for types in chains {
            for method in METHODS {
                let mut m = director(method, true);
                let with = |mut frame: Vec<u8>| {
                    let headers = chain(types, protocol);
                    frame.splice(54..54, headers.iter().copied());
                    let len = (frame.len() - 54) as u16;
                    frame[18..20].copy_from_slice(&len.to_be_bytes());
                    frame[20] = types[0];
                    frame
                };
                let bare = |out: &[u8]| {
                    let n = 54 + types.len() * 8;
                    assert_eq!((&out[54..n], out[20]), (&chain(types, protocol)[..], types[0]));
                    let mut bare = [&out[..54], &out[n..]].concat();
                    bare[20] = protocol;
                    bare
                };
                let frame = with(opening(true, protocol));
                let (verdict, out) = m.run(&frame, CLIENT_LINK);
                assert_eq!(verdict.reason, Reason::Request, "{types:?}");
                let inner = if method == kind::TUN_REQUEST { [&out[..14], &out[54..]].concat() } else { out };
                assert!(checksums_hold(&bare(&inner)));
                if method == kind::NAT_REQUEST {
                    let flags = if protocol == 6 { 18 } else { 2 };
                    let (verdict, out) = m.run(&with(packet(true, true, (protocol, flags), 64, 5)), SERVER_LINK);
                    assert_eq!(verdict.reason, Reason::Reply);
                    assert!(checksums_hold(&bare(&out)));
                }
            }
        }
    }
    // More of them than anybody sends: the host's.
    let mut m = director(kind::NAT_REQUEST, true);
    let mut frame = opening(true, 6);
    frame.splice(54..54, chain(&[60; 7], 6));
    let len = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame[20] = 60;
    assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(Reason::OtherProtocol), frame));
}

#[test]
fn martian_sources_are_refused_in_both_families() {
    let mut m = director(kind::NAT_REQUEST, false);
    let from4 =
        |src| frame4(Spec { src: (src, PORT), dst: (VIP4, VPORT), protocol: 6, flags: SYN, ttl: 64, payload: 0 });
    for src in [[0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 5], [240, 0, 0, 1], [255; 4], VIP4] {
        assert_eq!(m.run(&from4(src), CLIENT_LINK).0, Verdict::drop(Reason::Martian), "{src:?}");
    }
    for src in [[169, 254, 1, 1], [10, 1, 0, 50]] {
        assert_eq!(m.run(&from4(src), CLIENT_LINK).0.reason, Reason::Request, "{src:?}");
    }
    let from6 =
        |src| frame6(Spec { src: (src, PORT), dst: (VIP6, VPORT), protocol: 6, flags: SYN, ttl: 64, payload: 0 });
    let (mut loopback, mut multicast, mut link_local) = ([0; 16], [0; 16], [0; 16]);
    loopback[15] = 1;
    (multicast[0], multicast[15]) = (0xff, 1);
    (link_local[0], link_local[1], link_local[15]) = (0xfe, 0x80, 1);
    for src in [[0; 16], loopback, multicast, VIP6] {
        assert_eq!(m.run(&from6(src), CLIENT_LINK).0, Verdict::drop(Reason::Martian), "{src:?}");
    }
    assert_eq!(m.run(&from6(link_local), CLIENT_LINK).0.reason, Reason::Request);
}

/// A client port 0 is one like others; a service on port 0 is none of one port.
#[test]
fn port_0_is_a_port() {
    for protocol in [6, 17, 132] {
        let mut m = director(kind::NAT_REQUEST, false);
        let send = |port, flags| {
            let src = (client4(1), port);
            frame4(Spec { src, dst: (VIP4, VPORT), protocol, flags, ttl: 64, payload: 4 })
        };
        let first = if protocol == 6 { SYN } else { 1 };
        assert_eq!(m.run(&send(0, first), CLIENT_LINK).0.reason, Reason::Request);
        let (verdict, out) = m.run(&send(0, if protocol == 6 { ACK } else { 0 }), CLIENT_LINK);
        assert_eq!((verdict.reason, checksums_hold(&out)), (Reason::Request, true), "the entry is found");
        assert_eq!(m.conns4.len(), 2);
        let dst = (VIP4, 0);
        let frame = frame4(Spec { src: (client4(1), 9), dst, protocol, flags: first, ttl: 64, payload: 4 });
        assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(Reason::NoService), frame));
    }
}

/// C4: in every method and direction; and never an answer that nobody translated.
#[test]
fn short_headers_are_dropped_in_every_method_and_direction() {
    for method in METHODS {
        for (protocol, least) in [(6, 20), (17, 8), (132, 12)] {
            for v6 in [false, true] {
                let mut m = director(method, v6);
                let _ = m.run(&opening(v6, protocol), CLIENT_LINK);
                let mut run = |reply: bool, len: usize| {
                    let mut frame = packet(v6, reply, (protocol, 0), 64, 30);
                    frame.truncate(if v6 { 54 } else { 34 } + len);
                    if v6 {
                        frame[18..20].copy_from_slice(&(len as u16).to_be_bytes());
                    }
                    mend(&mut frame);
                    m.run(&frame, if reply { SERVER_LINK } else { CLIENT_LINK }).0
                };
                for len in 0..least {
                    assert_eq!(run(false, len), Verdict::drop(Reason::ShortTransport), "{len} bytes of {protocol}");
                    if method == kind::NAT_REQUEST {
                        assert_eq!(run(true, len), Verdict::drop(Reason::ShortTransport));
                    }
                }
                assert_eq!(run(false, least).reason, Reason::Request);
            }
        }
    }
}

/// What lies about itself in the IP header is the host's to drop; what lies behind it is
/// the server's.
#[test]
fn lying_headers_pass_untouched_or_go_to_whom_they_concern() {
    let good = opening(false, 6);
    let cases: [(usize, &[u8]); 6] = [
        (14, &[0x55]),       // version 5
        (14, &[0x44]),       // a header of 16 bytes
        (14, &[0x4f]),       // a header of 60, of which the rest is no options
        (16, &[0xff, 0xff]), // longer than the frame
        (16, &[0, 19]),      // shorter than the header
        (24, &[0x12, 0x34]), // a wrong checksum
    ];
    for (at, bytes) in cases {
        let mut m = director(kind::NAT_REQUEST, false);
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        if at != 24 {
            frame[24..26].fill(0);
            let check = !checksum::sum_bytes(&frame[14..34]);
            frame[24..26].copy_from_slice(&check.to_ne_bytes());
        }
        assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(Reason::Malformed), frame), "{at}: {bytes:?}");
    }
    let good = opening(true, 6);
    for (at, byte) in [(14, 0x40), (18, 0xff)] {
        let mut m = director(kind::NAT_REQUEST, true);
        let mut frame = good.clone();
        frame[at] = byte;
        assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(Reason::Malformed), frame), "{at}: {byte}");
    }
    // Extension headers that end behind the packet's end, as its length has it.
    for protocol in [6, 17, 132] {
        let mut m = director(kind::NAT_REQUEST, true);
        let mut frame = opening(true, protocol);
        frame.splice(54..54, [protocol, 0, 1, 4, 0, 0, 0, 0]);
        (frame[18], frame[19], frame[20]) = (0, 6, 60);
        assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(Reason::Malformed), frame));
    }
    // TCP's data offset and UDP's length are never checked, nor are checksums.
    for (protocol, at, value) in
        [(6, 46, 0x40), (6, 46, 0xf0), (17, 38, 0xff), (17, 39, 1), (6, 50, 0x55), (17, 40, 0x55)]
    {
        let mut m = director(kind::NAT_REQUEST, false);
        let mut frame = opening(false, protocol);
        frame[at] = value;
        let (verdict, out) = m.run(&frame, CLIENT_LINK);
        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Request, SERVER_LINK));
        let differ = frame.iter().zip(&out).filter(|(a, b)| a != b).count();
        assert!(differ < 32 && out.len() == frame.len() && out[46] == frame[46], "translated, no more");
    }
    // Padding behind the packet is not part of it.
    let mut m = director(kind::NAT_REQUEST, false);
    let mut frame = opening(false, 17);
    frame.extend([0xee; 9]);
    assert_eq!(m.run(&frame, CLIENT_LINK).0.reason, Reason::Request);
}

/// A virtual router's MAC is this host's while it is master: then its packets are taken as those to the interface's own,
/// and nobody else's number is.
#[test]
fn a_virtual_mac_is_taken_as_the_interfaces_own() {
    for (v6, kind_of_mac) in [(false, 1), (true, 2)] {
        for vrid in [1, 31, 32, 255] {
            let to = |last: [u8; 2]| [&[0, 0, 0x5e, 0], &last[..], &opening(v6, 6)[6..]].concat();
            let mut m = director(kind::NAT_REQUEST, v6);
            let (word, bit) = virtual_mac(Mac::new([0, 0, 0x5e, 0, kind_of_mac, vrid])).unwrap();
            m.link.virtual_macs[word as usize] = bit;
            let (verdict, frame) = m.run(&to([kind_of_mac, vrid]), CLIENT_LINK);
            let (plain, same) = director(kind::NAT_REQUEST, v6).run(&opening(v6, 6), CLIENT_LINK);
            assert_eq!((verdict, frame), (plain, same), "IPv6 {v6}, {vrid}");
            for other in [[kind_of_mac, vrid - 1], [3 - kind_of_mac, vrid], [3, vrid], [0, vrid]] {
                let (verdict, frame) = m.run(&to(other), CLIENT_LINK);
                assert_eq!((verdict, frame), (Verdict::pass(Reason::OtherMac), to(other)), "{other:?}");
            }
        }
    }
}

/// What is none of the director's is the host's, to the last byte.
#[test]
fn packets_of_the_local_stack_pass_untouched() {
    for v6 in [false, true] {
        let syn = opening(v6, 6);
        let changed = |at: usize, bytes: &[u8]| {
            let mut frame = syn.clone();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            mend(&mut frame);
            frame
        };
        let l4 = if v6 { 54 } else { 34 };
        let protocol = if v6 { 20 } else { 23 };
        let own = if v6 { 128 } else { 8 };
        let cases = [
            (changed(0, &[2, 0, 0, 0, 0, 0x55]), Reason::OtherMac),
            (changed(0, &[0xff; 6]), Reason::OtherMac),
            (changed(0, &[0, 0, 0x5e, 0, 1, 51]), Reason::OtherMac),
            ([&syn[..12], &[8, 6], &syn[14..]].concat(), Reason::OtherEthertype),
            ([&syn[..12], &[0x81, 0, 0, 5], &syn[12..]].concat(), Reason::Vlan),
            (changed(protocol, &[50]), Reason::OtherProtocol),
            (changed(protocol, &[51]), Reason::OtherProtocol),
            (changed(l4 + 2, &[0, 22]), Reason::NoService),
            (changed(l4 + 13, &[ACK]), Reason::NotSyn),
            (changed(l4 + 13, &[SYN | 4]), Reason::NotSyn),
            (changed(l4, &[0, 20]), Reason::FtpData),
            (error(v6, &vip(v6), (own, 0), &[7; 40]), Reason::IcmpUnrelated),
        ];
        for (frame, reason) in cases {
            let mut m = director(kind::NAT_REQUEST, v6);
            assert_eq!(m.run(&frame, CLIENT_LINK), (Verdict::pass(reason), frame), "IPv6 {v6}");
            assert!(m.conns4.is_empty() && m.conns6.is_empty());
        }
        // A virtual address that somebody else holds now; pieces that are none of ours.
        let mut m = director(kind::NAT_REQUEST, v6);
        (m.local4, m.local6) = Default::default();
        assert_eq!(m.run(&syn, CLIENT_LINK), (Verdict::pass(Reason::NotHeld), syn.clone()));
        if !v6 {
            let mut piece = opening(false, 17);
            piece[20..22].copy_from_slice(&[0, 9]);
            mend(&mut piece);
            assert_eq!(m.run(&piece, CLIENT_LINK), (Verdict::pass(Reason::LaterFragment), piece.clone()));
            m.places4.insert(Place::whole(Addr4::new(VIP4)), u32::MAX);
            assert_eq!(m.run(&piece, CLIENT_LINK).0, Verdict::drop(Reason::FragNoFirst), "of ours, too early");
        }
    }
}

/// UDP without a checksum: whole packets get one in NAT (C15), pieces over IPv4 have none
/// still, and over IPv6, where that is forbidden, they are dropped in every method.
#[test]
fn udp_without_a_checksum() {
    for method in METHODS {
        let mut m = director(method, true);
        let mut frame = opening(true, 17);
        frame[60..62].fill(0);
        let (verdict, out) = m.run(&frame, CLIENT_LINK);
        assert_eq!(verdict.reason, Reason::Request);
        assert_eq!(method == kind::NAT_REQUEST, out.len() == frame.len() && checksums_hold(&out));
        let mut piece = frame.clone();
        piece.splice(54..54, [17, 0, 0, 1, 0, 0, 0, 7]);
        let len = (piece.len() - 54) as u16;
        piece[18..20].copy_from_slice(&len.to_be_bytes());
        piece[20] = 44;
        assert_eq!(m.run(&piece, CLIENT_LINK).0, Verdict::drop(Reason::NoChecksum));

        let mut m = director(method, false);
        let mut frame = opening(false, 17);
        frame[40..42].fill(0);
        let (verdict, out) = m.run(&frame, CLIENT_LINK);
        assert_eq!(verdict.reason, Reason::Request);
        assert_eq!(method == kind::NAT_REQUEST, out.len() == frame.len() && out[40..42] != [0, 0]);
        frame[20] = 0x20;
        mend(&mut frame);
        let (verdict, out) = m.run(&frame, CLIENT_LINK);
        assert_eq!(verdict.reason, Reason::Request);
        let inner = if method == kind::TUN_REQUEST { &out[20..] } else { &out[..] };
        assert_eq!(inner[40..42], [0, 0]);
    }
}
