//! Probes (`director/src/probe.rs`): what comes out of their link goes to the server that it is pinned to and nowhere
//! else, and the answers come back.
#![expect(clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::family::{Address as _, V4, V6};
use dirigent_director::probe::pins;
use dirigent_director::records::{Server, Tuple, hop, kind, server_flag, setting, tunnel};
use dirigent_director::verdict::{Action, Reason, Verdict};
use dirigent_wire::{Addr4, Addr6, Be16, checksum};
use support::{
    CLIENT_LINK, MAC, Memory, PROBE_LINK, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, checksums_hold, client4,
    client6, frame4, frame6, ip_checksum_holds, server4, server6,
};

const SYN: u8 = 2;
const SYN_ACK: u8 = 0x12;
/// What probes come from: of this host itself, or of nobody.
const SOURCE4: [u8; 4] = [198, 18, 0, 1];
const PORT: u16 = 41_000;
/// The record of the server that is probed: of no service.
const PROBED: u32 = 9;

fn source6() -> [u8; 16] {
    let mut a = VIP6;
    (a[0], a[1]) = (0xfd, 0);
    a
}

/// A director with two servers of this method. The probed one is the second, by a record of its own.
fn director(method: u8) -> Memory {
    let mut m = Memory::new(0, method, &[1, 1]);
    m.settings.flags |= setting::PROBES;
    while m.hops.len() <= PROBED as usize + 1 {
        m.servers.push(Server::default());
        m.hops.push(m.hops[1].clone());
        m.counters.borrow_mut().push(Default::default());
    }
    m
}

/// Has a probe of this protocol and port pinned to the second server, in both families.
fn pin(m: &mut Memory, method: u8, protocol: u8, port: u16) {
    let (sport, vport) = (Be16::new(port), Be16::new(VPORT));
    let to = |addr| Server { addr, port: Be16::new(SERVER_PORT), method, ..Server::default() };
    let key = Tuple::new(protocol, Addr4::new(SOURCE4), sport, Addr4::new(VIP4), vport);
    let four = pins::<V4>(&key, &to(Addr4::new(server4(1)).to_words()), PROBED, PROBE_LINK);
    m.pins4.extend(four);
    let key = Tuple::new(protocol, Addr6::new(source6()), sport, Addr6::new(VIP6), vport);
    let six = pins::<V6>(&key, &to(Addr6::new(server6(1)).to_words()), PROBED, PROBE_LINK);
    m.pins6.extend(six);
}

fn frame(v6: bool, src: ([[u8; 16]; 1], [u8; 4], u16), dst: ([[u8; 16]; 1], [u8; 4], u16), of: (u8, u8)) -> Vec<u8> {
    let ((protocol, flags), (ttl, payload)) = (of, (64, 5));
    if v6 {
        return frame6(Spec { src: (src.0[0], src.2), dst: (dst.0[0], dst.2), protocol, flags, ttl, payload });
    }
    frame4(Spec { src: (src.1, src.2), dst: (dst.1, dst.2), protocol, flags, ttl, payload })
}

fn probe(v6: bool, protocol: u8, port: u16) -> Vec<u8> {
    frame(v6, ([source6()], SOURCE4, port), ([VIP6], VIP4, VPORT), (protocol, SYN))
}

/// What the second server says to that: as itself, or as the virtual address.
fn answer(v6: bool, protocol: u8, port: u16, nat: bool) -> Vec<u8> {
    let from = if nat { ([server6(1)], server4(1), SERVER_PORT) } else { ([VIP6], VIP4, VPORT) };
    frame(v6, from, ([source6()], SOURCE4, port), (protocol, SYN_ACK))
}

/// Source and destination address, and ports.
fn ends(frame: &[u8]) -> (&[u8], &[u8], [u16; 2]) {
    let (at, len, l4) = if frame[12] == 8 { (26, 4, 34) } else { (22, 16, 54) };
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (&frame[at..at + len], &frame[at + len..at + 2 * len], [port(l4), port(l4 + 2)])
}

fn bytes<'a>(v6: bool, six: &'a [u8; 16], four: &'a [u8; 4]) -> &'a [u8] {
    if v6 { six } else { four }
}

/// Nothing is remembered or counted of a probe.
fn unmoved(m: &Memory) -> bool {
    let quiet = m.counters.borrow().iter().all(|c| *c == Default::default());
    quiet && m.conns4.is_empty() && m.conns6.is_empty() && m.counted().iter().all(|load| *load == (0, 0))
}

#[test]
fn nat_goes_to_the_pinned_server_and_back() {
    for (v6, protocol) in [(false, 6), (true, 6), (false, 17), (true, 17)] {
        let mut m = director(kind::NAT_REQUEST);
        pin(&mut m, kind::NAT_REQUEST, protocol, PORT);
        for _ in 0..3 {
            let (verdict, out) = m.run(&probe(v6, protocol, PORT), PROBE_LINK);
            assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Request, SERVER_LINK));
            assert_eq!((&out[..6], &out[6..12]), (&[2, 0, 0, 0, 1, 1][..], &MAC[..]));
            let (src, dst) = (source6(), server6(1));
            let to = (bytes(v6, &src, &SOURCE4), bytes(v6, &dst, &[10, 1, 0, 12]), [PORT, SERVER_PORT]);
            assert_eq!(ends(&out), to);
            assert!(checksums_hold(&out));
        }
        let (verdict, out) = m.run(&answer(v6, protocol, PORT, true), SERVER_LINK);
        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::ProbeReply, PROBE_LINK));
        assert_eq!((&out[..6], &out[6..12]), (&MAC[..], &MAC[..]));
        let (src, dst) = (VIP6, source6());
        assert_eq!(ends(&out), (bytes(v6, &src, &VIP4), bytes(v6, &dst, &SOURCE4), [VPORT, PORT]));
        assert!(checksums_hold(&out));
        assert!(unmoved(&m));
    }
}

#[test]
fn direct_routing_changes_the_mac_and_the_answer_comes_from_the_virtual_address() {
    for (v6, protocol) in [(false, 6), (true, 6), (false, 17), (true, 17)] {
        let mut m = director(kind::DR_REQUEST);
        pin(&mut m, kind::DR_REQUEST, protocol, PORT);
        // As it is on a director that is asked from its own address.
        m.local4.insert(Addr4::new(SOURCE4));
        m.local6.insert(Addr6::new(source6()));
        let sent = probe(v6, protocol, PORT);
        let (verdict, out) = m.run(&sent, PROBE_LINK);
        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Request, SERVER_LINK));
        assert_eq!(&out[..6], &[2, 0, 0, 0, 1, 1]);
        assert_eq!(ends(&out), ends(&sent));
        let said = answer(v6, protocol, PORT, false);
        let (verdict, out) = m.run(&said, SERVER_LINK);
        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::ProbeReply, PROBE_LINK));
        assert_eq!((&out[..12], &out[12..]), ([MAC, MAC].as_flattened(), &said[12..]));
        assert!(unmoved(&m));
    }
}

#[test]
fn a_tunnel_carries_it() {
    for v6 in [false, true] {
        let mut m = director(kind::TUN_REQUEST);
        pin(&mut m, kind::TUN_REQUEST, 6, PORT);
        let hop = &mut m.hops[PROBED as usize];
        (hop.tunnel, hop.source) = (tunnel::IPIP, Addr4::new(client4(9)).to_words());
        hop.peer = Addr4::new(server4(1)).to_words();
        let sent = probe(v6, 6, PORT);
        let (verdict, out) = m.run(&sent, PROBE_LINK);
        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Request, SERVER_LINK));
        assert_eq!((out[23], &out[30..34]), (if v6 { 41 } else { 4 }, &server4(1)[..]));
        assert_eq!(out.len(), sent.len() + 20);
        let (verdict, _) = m.run(&answer(v6, 6, PORT, false), SERVER_LINK);
        assert_eq!((verdict.reason, verdict.ifindex), (Reason::ProbeReply, PROBE_LINK));
        assert!(unmoved(&m));
    }
}

/// Weight 0, full, drained, or in no list: what keeps clients away keeps no probe away.
#[test]
fn a_server_that_gets_no_clients_is_reached() {
    for v6 in [false, true] {
        let mut m = director(kind::NAT_REQUEST);
        pin(&mut m, kind::NAT_REQUEST, 6, PORT);
        for server in &m.servers {
            server.weight.store(0);
            server.full.store(1);
            server.flags.store(server.flags.load() | server_flag::DRAINING);
        }
        assert_eq!(m.run(&probe(v6, 6, PORT), PROBE_LINK).0.reason, Reason::Request);
        // Removed: its own record says so, and those of probes lead on.
        m.hops.iter().take(PROBED as usize).for_each(|hop| hop.state.store(hop::REMOVED));
        m.services.iter().for_each(|service| service.list.store(0));
        m.room = 0;
        assert_eq!(m.run(&probe(v6, 6, PORT), PROBE_LINK).0.reason, Reason::Request);
        assert_eq!(m.run(&answer(v6, 6, PORT, true), SERVER_LINK).0.reason, Reason::ProbeReply);
    }
}

/// Whatever comes out of the link and is not announced stays there.
#[test]
fn unpinned_packets_go_nowhere() {
    let dropped = Verdict::drop(Reason::Unpinned);
    for v6 in [false, true] {
        let mut m = director(kind::NAT_REQUEST);
        pin(&mut m, kind::NAT_REQUEST, 6, PORT);
        assert_eq!(m.run(&probe(v6, 6, PORT + 1), PROBE_LINK).0, dropped, "another port");
        assert_eq!(m.run(&probe(v6, 17, PORT), PROBE_LINK).0, dropped, "another protocol");
        assert_eq!(m.run(&probe(v6, 132, PORT), PROBE_LINK).0, dropped, "no TCP or UDP");
        assert_eq!(m.run(&answer(v6, 6, PORT, true), PROBE_LINK).0, dropped, "an answer that comes out of it");
        let mut other = probe(v6, 6, PORT);
        other[0] = 0x33;
        assert_eq!(m.run(&other, PROBE_LINK).0, dropped, "multicast");
        let mut arp = probe(v6, 6, PORT);
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(m.run(&arp, PROBE_LINK).0, dropped, "ARP");
        let mut broken = probe(v6, 6, PORT);
        broken[14] = 0x4f;
        assert_eq!(m.run(&broken, PROBE_LINK).0, dropped, "not IP");
        assert_eq!(m.run(&probe(v6, 6, PORT)[..30], PROBE_LINK).0, dropped, "cut short");
        // Nor does an error of its own stack.
        let protocol = if v6 { 58 } else { 1 };
        assert_eq!(m.run(&probe(v6, protocol, PORT), PROBE_LINK).0, dropped);
        // And nobody else comes to a server by a probe's addresses.
        assert_eq!(m.run(&probe(v6, 6, PORT), CLIENT_LINK).0, dropped);
        assert!(unmoved(&m));
    }
}

/// Without probes nothing is looked up, and a link that is flagged still lets nothing out.
#[test]
fn without_the_setting_no_pin_counts() {
    for v6 in [false, true] {
        let mut m = director(kind::NAT_REQUEST);
        pin(&mut m, kind::NAT_REQUEST, 6, PORT);
        m.settings.flags &= !setting::PROBES;
        let (verdict, out) = m.run(&answer(v6, 6, PORT, true), SERVER_LINK);
        assert_eq!((verdict, out), (Verdict::pass(Reason::NoService), answer(v6, 6, PORT, true)));
        assert_eq!(m.run(&probe(v6, 6, PORT + 1), PROBE_LINK).0, Verdict::drop(Reason::Unpinned));
    }
}

#[test]
fn clients_fare_as_before() {
    for v6 in [false, true] {
        let mut m = director(kind::NAT_REQUEST);
        pin(&mut m, kind::NAT_REQUEST, 6, PORT);
        let client = ([client6(1)], client4(1), 4000);
        let (verdict, _) = m.run(&frame(v6, client, ([VIP6], VIP4, VPORT), (6, SYN)), CLIENT_LINK);
        assert_eq!(verdict.reason, Reason::Request);
        assert_eq!(m.conns4.len() + m.conns6.len(), 2);
        assert_eq!(m.recount(), m.counted());
    }
}

/// The probe hears of what stands in its way as a client would.
#[test]
fn errors_reach_the_probe() {
    let mut m = director(kind::NAT_REQUEST);
    pin(&mut m, kind::NAT_REQUEST, 6, PORT);
    m.hops[PROBED as usize].state.store(hop::NO_ROUTE);
    let (verdict, error) = m.run(&probe(false, 6, PORT), PROBE_LINK);
    assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::NoRoute, PROBE_LINK));
    assert_eq!((&error[30..34], error[34], error[35]), (&SOURCE4[..], 3, 1));
    m.hops[PROBED as usize].state.store(hop::LOCAL);
    assert_eq!(m.run(&probe(false, 6, PORT), PROBE_LINK).0, Verdict::drop(Reason::ClientOnDirector));
}

/// An ICMP error about `about`, a frame, from its destination to its source.
fn error4(about: &[u8]) -> Vec<u8> {
    let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
    icmp.extend(&about[14..]);
    let check = !checksum::sum_bytes(&icmp);
    icmp[2..4].copy_from_slice(&check.to_ne_bytes());
    let mut ip = vec![0x45, 0];
    ip.extend((20 + icmp.len() as u16).to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, 1, 0, 0]);
    ip.extend(&about[30..34]);
    ip.extend(&about[26..30]);
    let check = !checksum::sum_bytes(&ip);
    ip[10..12].copy_from_slice(&check.to_ne_bytes());
    [&MAC[..], &[2, 0, 0, 0, 9, 9], &[8, 0], &ip, &icmp].concat()
}

/// A server that does not take packets out of the tunnel says so about the tunnel: the probe hears of it.
#[test]
fn the_end_of_a_tunnel_reaches_the_probe() {
    let mut m = director(kind::TUN_REQUEST);
    pin(&mut m, kind::TUN_REQUEST, 6, PORT);
    let hop = &mut m.hops[PROBED as usize];
    (hop.tunnel, hop.source) = (tunnel::IPIP, Addr4::new(client4(9)).to_words());
    hop.peer = Addr4::new(server4(1)).to_words();
    let (_, sent) = m.run(&probe(false, 6, PORT), PROBE_LINK);
    let mut about = error4(&sent);
    // Protocol unreachable instead.
    about[35] = 2;
    about[36..38].copy_from_slice(&[0, 0]);
    let check = !checksum::sum_bytes(&about[34..]);
    about[36..38].copy_from_slice(&check.to_ne_bytes());
    let (verdict, error) = m.run(&about, SERVER_LINK);
    assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::ProbeReply, PROBE_LINK));
    assert_eq!((&error[..12], &error[26..34]), ([MAC, MAC].as_flattened(), [VIP4, SOURCE4].as_flattened()));
    assert_eq!((error[34], error[35], checksum::sum_bytes(&error[34..])), (3, 2, 0xffff));
    assert_eq!(error[54..62], [SOURCE4, VIP4].concat(), "it quotes the probe");
    assert!(unmoved(&m));
    // One about another's port is nobody's.
    about[88 - 22 + 2] ^= 1;
    let check = !checksum::add(checksum::sum_bytes(&about[34..36]), checksum::sum_bytes(&about[38..]));
    about[36..38].copy_from_slice(&check.to_ne_bytes());
    assert!(matches!(m.run(&about, SERVER_LINK).0.action, Action::Pass), "{:?}", &about[34..]);
}

/// Port unreachable, which is all that tells a UDP probe of a closed port at once.
#[test]
fn an_error_about_a_probe_reaches_it() {
    for method in [kind::NAT_REQUEST, kind::DR_REQUEST] {
        let mut m = director(method);
        pin(&mut m, method, 17, PORT);
        let (_, sent) = m.run(&probe(false, 17, PORT), PROBE_LINK);
        let (verdict, error) = m.run(&error4(&sent), SERVER_LINK);
        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::ProbeReply, PROBE_LINK));
        assert_eq!((&error[..12], &error[26..34]), ([MAC, MAC].as_flattened(), [VIP4, SOURCE4].as_flattened()));
        assert!(ip_checksum_holds(&error) && checksum::sum_bytes(&error[34..]) == 0xffff);
        // It quotes what the probe sent, but for the TTL.
        let quoted = &error[42..];
        assert_eq!(
            (&quoted[12..20], &quoted[20..24]),
            ([SOURCE4, VIP4].as_flattened(), &probe(false, 17, PORT)[34..38])
        );
        // One about what nobody sent is the host's.
        let mut other = director(method);
        assert_eq!(other.run(&error4(&sent), SERVER_LINK).0, Verdict::pass(Reason::IcmpUnrelated));
    }
}
