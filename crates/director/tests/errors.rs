//! The ICMP errors that the director makes: whom they reach, what they say, how many; and
//! the options that decide about them and about the way of replies.
#![expect(clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::records::{Place, hop, kind, setting};
use dirigent_director::verdict::{Action, Reason, Verdict};
use dirigent_wire::{Addr4, Addr6, checksum};
use support::{
    CLIENT_LINK, MAC, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, checksums_hold, client4, client6,
    frame4, frame6, ip_checksum_holds, server4,
};

fn syn4(client: u8, port: u16, ttl: u8) -> Vec<u8> {
    let src = (client4(client), port);
    frame4(Spec { src, dst: (VIP4, VPORT), protocol: 6, flags: 2, ttl, payload: 0 })
}

fn syn6(client: u8, port: u16, ttl: u8) -> Vec<u8> {
    let src = (client6(client), port);
    frame6(Spec { src, dst: (VIP6, VPORT), protocol: 6, flags: 2, ttl, payload: 0 })
}

fn director() -> Memory {
    Memory::new(0, kind::NAT_REQUEST, &[1])
}

fn answered(reason: Reason) -> Verdict {
    Verdict::out(Action::Transmit, reason, CLIENT_LINK)
}

/// Back to the MAC it came from, on the interface it came by, quoting the packet.
#[test]
fn an_error_goes_back_the_way_its_packet_came() {
    let mut m = director();
    let packet = syn4(1, 7, 1);
    let (verdict, error) = m.run(&packet, CLIENT_LINK);
    assert_eq!(verdict, answered(Reason::TtlExpired));
    assert_eq!((&error[..6], &error[6..12]), (&packet[6..12], &MAC[..]));
    assert!(ip_checksum_holds(&error));
    assert_eq!((&error[26..30], &error[30..34]), (&VIP4[..], &client4(1)[..]));
    assert_eq!((error[34], error[35]), (11, 0), "time exceeded in transit");
    assert_eq!(checksum::sum_bytes(&error[34..]), 0xffff);
    assert_eq!(&error[42..], &packet[14..], "all of the packet is quoted");
}

#[test]
fn an_error_of_ipv6_covers_the_pseudo_header() {
    let mut m = director();
    let packet = syn6(1, 7, 1);
    let (verdict, error) = m.run(&packet, CLIENT_LINK);
    assert_eq!(verdict, answered(Reason::TtlExpired));
    assert_eq!((error[54], error[55]), (3, 0), "hop limit exceeded in transit");
    let length = (error.len() - 54) as u8;
    let covered = [&error[22..54], &[0, 0, 0, length, 0, 0, 0, 58], &error[54..]].concat();
    assert_eq!(checksum::sum_bytes(&covered), 0xffff);
}

#[test]
fn each_dead_end_has_its_error() {
    let mut m = director();
    m.hops[0].state.store(hop::NO_ROUTE);
    let (verdict, error) = m.run(&syn4(1, 7, 64), CLIENT_LINK);
    assert_eq!((verdict, error[34], error[35]), (answered(Reason::NoRoute), 3, 1));
    m.servers[0].weight.store(0);
    let (verdict, error) = m.run(&syn4(1, 8, 64), CLIENT_LINK);
    assert_eq!((verdict, error[34], error[35]), (answered(Reason::NoServer), 3, 3));

    let mut m = director();
    m.hops[0].mtu = 600;
    let spec = Spec { src: (client4(1), 7), dst: (VIP4, VPORT), protocol: 6, flags: 2, ttl: 64, payload: 1000 };
    let (verdict, error) = m.run(&frame4(spec), CLIENT_LINK);
    assert_eq!((verdict, error[34], error[35]), (answered(Reason::TooBig), 3, 4));
    assert_eq!(u16::from_be_bytes([error[40], error[41]]), 600, "the MTU to come by");
    assert!(error.len() <= 14 + 576, "RFC 1812 §4.3.2.3");
}

/// So many to one destination at once, then so many a second; others are not their victims.
#[test]
fn errors_to_one_destination_are_limited() {
    for now in [1_000_000, u32::MAX - 40] {
        let mut m = director();
        m.now = now;
        let sent = |m: &mut Memory, client| {
            let reasons = (0..100).map(|port| m.run(&syn4(client, 1000 + port, 1), CLIENT_LINK).0.reason);
            reasons.filter(|r| *r == Reason::TtlExpired).count() as u32
        };
        assert_eq!(sent(&mut m, 1), m.settings.error_dest_burst);
        assert_eq!(m.run(&syn4(1, 999, 1), CLIENT_LINK).0, Verdict::drop(Reason::ErrorWithheld));
        assert_eq!(sent(&mut m, 2), m.settings.error_dest_burst, "another destination has its own budget");
        m.now = m.now.wrapping_add(m.settings.hz);
        assert_eq!(sent(&mut m, 1), m.settings.error_dest_rate, "a second later");
    }
}

#[test]
fn errors_in_total_are_limited() {
    let mut m = director();
    m.settings.error_rate = 100;
    let reasons: Vec<_> = (0..=255).map(|c| m.run(&syn4(c, 7, 1), CLIENT_LINK).0.reason).collect();
    let sent = reasons.iter().filter(|r| **r == Reason::TtlExpired).count();
    assert_eq!(sent, m.settings.error_burst as usize);
    assert!(reasons.iter().skip(sent).all(|r| *r == Reason::ErrorWithheld));
    m.settings.error_rate = 0;
    assert_eq!(m.run(&syn4(3, 8, 1), CLIENT_LINK).0.reason, Reason::TtlExpired, "0: no limit");
}

/// Another CPU's clock may be a tick ahead of ours.
#[test]
fn a_clock_one_tick_behind_fills_no_budget() {
    let mut m = director();
    m.settings.error_rate = 0;
    while m.run(&syn4(1, 7, 1), CLIENT_LINK).0.reason == Reason::TtlExpired {}
    m.now = m.now.wrapping_add(m.settings.hz);
    assert_eq!(m.run(&syn4(1, 7, 1), CLIENT_LINK).0.reason, Reason::TtlExpired);
    m.now = m.now.wrapping_sub(1);
    let sent = (0..100).filter(|_| m.run(&syn4(1, 7, 1), CLIENT_LINK).0.reason == Reason::TtlExpired).count();
    assert!(sent < m.settings.error_dest_rate as usize, "{sent} errors at once");
}

/// An error that cannot go on gets none about itself (RFC 1122 §3.2.2).
#[test]
fn no_error_about_an_error() {
    let mut m = director();
    assert_eq!(m.run(&syn4(1, 7, 64), CLIENT_LINK).0.reason, Reason::Request);
    // A router on the client's side, about an answer: port unreachable, with TTL 1.
    let answer = Spec { src: (VIP4, VPORT), dst: (client4(1), 7), protocol: 6, flags: 0x12, ttl: 60, payload: 0 };
    let quoted = frame4(answer)[14..].to_vec();
    let mut icmp = [&[3, 3, 0, 0, 0, 0, 0, 0], &quoted[..]].concat();
    let check = !checksum::sum_bytes(&icmp);
    icmp[2..4].copy_from_slice(&check.to_ne_bytes());
    for (ttl, expected) in [(1, Reason::NoErrorAboutIcmp), (64, Reason::IcmpRequest)] {
        let mut ip = [&[0x45, 0, 0, 20 + icmp.len() as u8, 0, 1, 0, 0, ttl, 1, 0, 0][..], &client4(9), &VIP4].concat();
        let check = !checksum::sum_bytes(&ip);
        ip[10..12].copy_from_slice(&check.to_ne_bytes());
        let frame = [&MAC[..], &[2, 0, 0, 0, 9, 9, 8, 0], &ip, &icmp].concat();
        let (verdict, out) = m.run(&frame, CLIENT_LINK);
        assert_eq!(verdict.reason, expected, "TTL {ttl}");
        if ttl > 1 {
            assert_eq!((&out[30..34], &out[54..58]), (&server4(0)[..], &server4(0)[..]), "outer and quoted address");
            assert_eq!(checksum::sum_bytes(&out[34..]), 0xffff);
            assert!(ip_checksum_holds(&out));
        }
    }
}

/// snat_reroute: replies are routed by the virtual address, else by the server's.
#[test]
fn replies_are_routed_by_the_source_that_the_option_names() {
    use dirigent_director::family::Address as _;
    for (flags, source) in [(setting::SNAT_REROUTE, VIP4), (0, server4(0))] {
        let mut m = director();
        m.settings.flags = flags;
        let _ = m.run(&syn4(1, 7, 64), CLIENT_LINK);
        let src = (server4(0), SERVER_PORT);
        let spec = Spec { src, dst: (client4(1), 7), protocol: 6, flags: 0x12, ttl: 64, payload: 0 };
        assert_eq!(m.run(&frame4(spec), SERVER_LINK).0.reason, Reason::Reply);
        assert_eq!(m.routed_from.get(), Addr4::new(source).to_words());
    }
}

/// nat_icmp_send: a server's packet of no connection is refused, or left to the host as it came.
#[test]
fn stray_packets_of_servers_are_refused_where_the_option_says_so() {
    let from_server = |flags, ttl| {
        let src = (server4(0), SERVER_PORT);
        frame4(Spec { src, dst: (client4(1), 7), protocol: 6, flags, ttl, payload: 9 })
    };
    let mut m = director();
    m.settings.flags = setting::KNOW_SERVERS | setting::NAT_ICMP_SEND;
    let (verdict, error) = m.run(&from_server(0x10, 64), SERVER_LINK);
    assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Stray, SERVER_LINK));
    assert_eq!(error[30..34], server4(0), "to the server");
    assert_eq!((error[34], error[35]), (3, 3), "port unreachable");
    assert_eq!((error[50], &error[54..58]), (63, &server4(0)[..]), "IP forwarding comes first, translation never");
    assert!(ip_checksum_holds(&error));
    // No error about a reset; one that expires is the host's.
    for (flags, ttl) in [(4, 64), (0x10, 1)] {
        let frame = from_server(flags, ttl);
        assert_eq!(m.run(&frame, SERVER_LINK), (Verdict::pass(Reason::NoService), frame));
    }
    m.settings.flags = setting::KNOW_SERVERS;
    let frame = from_server(0x10, 64);
    assert_eq!(m.run(&frame, SERVER_LINK), (Verdict::pass(Reason::NoService), frame));
}

/// A director whose virtual addresses user space has written down as such.
fn director_of_addresses(flags: u32) -> Memory {
    let mut m = director();
    m.places4.insert(Place::whole(Addr4::new(VIP4)), u32::MAX);
    m.places6.insert(Place::whole(Addr6::new(VIP6)), u32::MAX);
    m.settings.flags = flags;
    m
}

/// A packet of each family to a port of the virtual address that no service has.
fn in_vain(protocol: u8, flags: u8, payload: usize) -> [Vec<u8>; 2] {
    let (port, ttl) = (VPORT + 1, 64);
    [
        frame4(Spec { src: (client4(1), 7), dst: (VIP4, port), protocol, flags, ttl, payload }),
        frame6(Spec { src: (client6(1), 7), dst: (VIP6, port), protocol, flags, ttl, payload }),
    ]
}

/// vip_default = "reject": a SYN gets the reset of a closed port (RFC 9293 §3.10.7.1), whatever
/// budget there is for errors, and also one whose checksum a device has yet to finish.
#[test]
fn a_syn_for_a_port_without_a_service_is_reset_where_vip_default_says_so() {
    for (payload, v6) in [(0, false), (0, true), (9, false), (9, true)] {
        let syn = in_vain(6, 0x02, payload)[usize::from(v6)].clone();
        let mut m = director_of_addresses(setting::REJECT);
        (m.settings.error_rate, m.settings.error_burst) = (1, 1);
        for _ in 0..20 {
            let (verdict, reset) = m.run(&syn, CLIENT_LINK);
            assert_eq!(verdict, answered(Reason::Refused));
            let (l3, addr) = if v6 { (40, 16) } else { (20, 4) };
            let at = 14 + l3;
            assert_eq!(reset.len(), at + 20, "neither options nor data");
            assert_eq!((&reset[..6], &reset[6..12]), (&syn[6..12], &MAC[..]));
            let (sources, destinations) = (at - 2 * addr..at - addr, at - addr..at);
            assert_eq!((&reset[sources.clone()], &reset[destinations.clone()]), (&syn[destinations], &syn[sources]));
            assert_eq!((&reset[at..at + 2], &reset[at + 2..at + 4]), (&syn[at + 2..at + 4], &syn[at..at + 2]));
            let number =
                |frame: &[u8], at: usize| frame[at..at + 4].iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
            assert_eq!(number(&reset, at + 4), 0, "sequence");
            assert_eq!(number(&reset, at + 8), number(&syn, at + 4) + 1 + payload as u32, "acknowledgement");
            assert_eq!((reset[at + 12], reset[at + 13], &reset[at + 14..at + 16]), (0x50, 0x14, &[0, 0][..]));
            assert!(checksums_hold(&reset), "{reset:02x?}");
        }
        assert_eq!(m.recount(), m.counted());
    }
}

#[test]
fn what_else_asks_for_such_a_port_gets_an_error_or_goes_to_the_host() {
    let reject = setting::REJECT;
    for (protocol, flags, settings, refused) in [
        (17, 0, reject, true),
        (132, 1, reject, true),
        // What the host itself began, or what ended.
        (6, 0x12, reject, false),
        (6, 0x10, reject, false),
        (6, 0x04, reject, false),
        (132, 2, reject, false),
        // By default, and for what is asked of the host's other addresses.
        (6, 0x02, 0, false),
        (17, 0, 0, false),
    ] {
        for frame in in_vain(protocol, flags, 20) {
            let mut m = director_of_addresses(settings);
            let (verdict, out) = m.run(&frame, CLIENT_LINK);
            if refused {
                assert_eq!(verdict, answered(Reason::Refused), "{protocol}");
                let (at, unreachable) = if frame[12] == 8 { (34, (3, 3)) } else { (54, (1, 4)) };
                assert_eq!((out[at], out[at + 1]), unreachable, "port unreachable");
            } else {
                assert_eq!((verdict, out), (Verdict::pass(Reason::NoService), frame), "{protocol} {flags:#x}");
            }
        }
    }
    let mut m = director_of_addresses(reject);
    m.places4.remove(&Place::whole(Addr4::new(VIP4)));
    let [syn, _] = in_vain(6, 2, 0);
    assert_eq!(m.run(&syn, CLIENT_LINK), (Verdict::pass(Reason::NoService), syn.clone()), "no virtual address");
    let mut m = director_of_addresses(reject);
    m.local4.clear();
    assert_eq!(m.run(&syn, CLIENT_LINK), (Verdict::pass(Reason::NoService), syn), "not held");
    let mut m = director_of_addresses(reject);
    assert_eq!(m.run(&syn4(1, 7, 64), CLIENT_LINK).0.reason, Reason::Request, "a service's port");
}

/// A server that is its own client, and sources that cannot be.
#[test]
fn impossible_clients_are_dropped_for_what_they_are() {
    let mut m = director();
    let from = |src| frame4(Spec { src: (src, 7), dst: (VIP4, VPORT), protocol: 6, flags: 2, ttl: 64, payload: 0 });
    assert_eq!(m.run(&from(server4(0)), SERVER_LINK).0, Verdict::drop(Reason::ServerIsClient));
    for source in [[127, 0, 0, 1], [224, 0, 0, 1], [0, 0, 0, 0], [255, 255, 255, 255], VIP4] {
        assert_eq!(m.run(&from(source), CLIENT_LINK).0, Verdict::drop(Reason::Martian), "{source:?}");
    }
    assert_eq!(m.run(&from([10, 1, 0, 77]), SERVER_LINK).0.reason, Reason::Request, "a client among the servers");
    assert_eq!(m.recount(), m.counted());
}
