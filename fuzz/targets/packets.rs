//! Frames against small tables, through the in-memory executor.
//!
//! The input is eight bytes that shape the tables (see `tables`), then frames, each with
//! a byte of how it comes in (see `Frames`) and its length in two bytes, big-endian.
//! Checked: no panic; verdict, reason and frame agree; checksums that were right stay
//! right; XDP, tc and the way that takes nothing for easy come to the same end; counters
//! equal a recount.
#![no_main]

#[allow(dead_code, reason = "the executor uses its part")]
#[path = "../../crates/datapath/src/keys.rs"]
mod keys;
/// The executor's own source: as a dependency, its crate would build the BPF object too.
#[allow(dead_code, unused_imports, reason = "the target uses its part")]
#[path = "../../crates/datapath/src/memory/mod.rs"]
mod memory;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dirigent_director::family::Address;
use dirigent_director::records::{
    Conn, Known, Link, NextHop, Place, Server, Service, Settings, Tuple, hop, kind, server_flag, service_flag, setting,
    tunnel,
};
use dirigent_director::schedule::{FREE, Scheduler, TableServer};
use dirigent_director::shared::{S32, S64};
use dirigent_director::sieve;
use dirigent_director::verdict::{Action, Reason, ReasonKind, Verdict};
use dirigent_wire::{Addr4, Addr6, Be16, Mac, checksum, crc32c};
use libfuzzer_sys::fuzz_target;
use memory::{Capacity, Incoming, MemoryTables, Outcome, Target, leave, run, run_slow, run_tc};

/// The network of the recordings, from which the corpus comes.
const CLIENT_SIDE: u32 = 2;
const SERVER_SIDE: u32 = 3;
const MACS: [(u32, [u8; 6], [u8; 6]); 2] =
    [(CLIENT_SIDE, [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0xfe]), (SERVER_SIDE, [2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 1, 1])];
const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const PORTS: [(u8, u16, u16); 3] = [(6, 80, 8080), (17, 53, 5353), (132, 80, 8080)];

fuzz_target!(|data: &[u8]| {
    let Some((shape, frames)) = data.split_first_chunk::<8>() else { return };
    // Twins: what each way does to its tables, the others do to theirs.
    let (mut main, mut tc, mut slow) = (tables(*shape), tables(*shape), tables(*shape));
    for (how, frame) in Frames(frames) {
        let mut frame = frame.to_vec();
        if how & 2 != 0 {
            mend(&mut frame);
            mend_crc(&mut frame);
        }
        let ticks = 1u32 << (how >> 4) * 2 & !1;
        for tables in [&mut main, &mut tc, &mut slow] {
            tables.now = tables.now.wrapping_add(ticks);
        }
        let ingress = if how & 1 == 0 { CLIENT_SIDE } else { SERVER_SIDE };
        let gso_size = if how & 8 == 0 { 0 } else { 1400 };
        let packet = Incoming { frame: &frame, ingress, gso_size, ..Incoming::default() };
        if how & 4 != 0 {
            check(&frame, &leave(&mut main, &packet));
            leave(&mut tc, &packet);
            leave(&mut slow, &packet);
        } else {
            let out = run(&mut main, &packet);
            check(&frame, &out);
            same("tc", &out, &run_tc(&mut tc, &packet));
            let mut thorough = run_slow(&mut slow, &packet);
            let cut_short = matches!(thorough.verdict.reason, Reason::Malformed | Reason::ShortTransport);
            if cut_short && out.verdict == Verdict::pass(Reason::NoService) {
                // Where the addresses are nobody's, the sieve does not read on.
                thorough.verdict = out.verdict;
            }
            same("the slow way", &out, &thorough);
        }
        recount(&main);
    }
});

/// The frames of an input: bit 0 of the first byte: from the server's side; 1: with the
/// IPv4 and SCTP checksums made right; 2: this host sends it; 3: it stands for several segments;
/// the high half: how much time has passed.
struct Frames<'d>(&'d [u8]);

impl<'d> Iterator for Frames<'d> {
    type Item = (u8, &'d [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let ([how, hi, lo], rest) = self.0.split_first_chunk::<3>()?;
        let len = usize::from(u16::from_be_bytes([*hi, *lo])).min(rest.len());
        let (frame, rest) = rest.split_at(len);
        self.0 = rest;
        Some((*how, frame))
    }
}

fn words(addr: IpAddr) -> [u16; 8] {
    match addr {
        IpAddr::V4(a) => Addr4::new(a.octets()).to_words(),
        IpAddr::V6(a) => Addr6::new(a.octets()).0,
    }
}

/// Three services of each family with two servers each. The shape's bytes: 0: scheduler,
/// one-packet UDP, options; 1: states of the next hops, QUIC, services without state; 2: their MTU, method and tunnel; 3:
/// weights; 4: room for entries (0: plenty); 5: the way back; 6: ticks before the clock
/// wraps; 7: full and missing servers, hash flags, the scheduler's upper bits.
fn tables(shape: [u8; 8]) -> MemoryTables {
    let [first, hops, mtu, weights, room, way_back, wrap, flagged] = shape;
    let scheduler = u32::from(first & 3 | flagged >> 6 << 2);
    let hashed = Scheduler::from_number(scheduler).and_then(Scheduler::table);
    let hashed_slots = hashed.map_or(0, |table| table.size);
    let slots = 6 * (7 + hashed_slots as usize);
    let mut m = MemoryTables::new(&Capacity { conns: 1 << 12, services: 6, servers: 12, slots });
    m.now = u32::MAX - u32::from(wrap) * 1000;
    if room != 0 {
        m.conn_limit = usize::from(room);
    }
    let mut settings = Settings { flags: 0, ..Settings::default() };
    for (bit, flag) in [
        (8, setting::SCHEDULE_ICMP),
        (16, setting::NAT_ICMP_SEND),
        (32, setting::SNAT_REROUTE),
        (64, setting::KNOW_SERVERS),
        (128, setting::PMTU_DISC),
    ] {
        settings.flags |= if first & bit != 0 { flag } else { 0 };
    }
    m.settings = Some(settings);
    for (number, mac, _) in MACS {
        let mut link = Link { mac: Mac::new(mac), used: 1, ..Link::default() };
        link.addr4 = Addr4::new([10, 1, 0, 1]).0;
        link.addr6 = words(IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1)));
        m.links.insert(number, link);
    }
    let mtu_servers = [1500, 1400, 1280, 576][usize::from(mtu & 3)];
    let method = match mtu & 12 {
        0 => kind::NAT_REQUEST,
        4 => kind::DR_REQUEST,
        _ => kind::TUN_REQUEST,
    };
    let outer6 = mtu & 0x80 != 0;
    let (mut service, mut server, mut slot) = (0u32, 0u32, 0u32);
    for v6 in [false, true] {
        for (protocol, vport, rport) in PORTS {
            let base = slot;
            let mut members = Vec::new();
            let vip = if v6 { IpAddr::V6(VIP6) } else { IpAddr::V4(VIP4) };
            note(&mut m, vip, sieve::VIRTUAL);
            let one_packet = protocol == 17 && first & 4 != 0 && method == kind::NAT_REQUEST;
            for n in 0..2u8 {
                let addr: IpAddr = if v6 {
                    Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x11 + u16::from(n)).into()
                } else {
                    Ipv4Addr::new(10, 1, 0, 11 + n).into()
                };
                let weight = u32::from(weights >> (4 * n) & 15);
                let full = u32::from(flagged >> n & 1 != 0);
                let missing = if flagged >> n & 4 != 0 { server_flag::AVAILABLE } else { 0 };
                let at = server as usize;
                m.servers[at] = Server {
                    addr: words(addr),
                    port: Be16::new(rport),
                    method,
                    protocol,
                    weight: S32::new(weight),
                    flags: S32::new(server_flag::AVAILABLE & !missing),
                    full: S32::new(full),
                    upper: full * 2,
                    service,
                    ..Server::default()
                };
                let (_, src, dst) = MACS[1];
                m.next_hops[at] = NextHop {
                    state: S32::new(match hops >> (4 * n) & 7 {
                        0 | 6 | 7 => hop::RESOLVED,
                        1 => hop::NO_NEIGHBOUR,
                        2 => hop::NO_ROUTE,
                        3 => hop::LOCAL,
                        4 => hop::REMOVED,
                        _ => hop::UNKNOWN,
                    }),
                    ifindex: SERVER_SIDE,
                    mtu: mtu_servers,
                    src: Mac::new(src),
                    dst: Mac::new(dst),
                    ..NextHop::default()
                };
                if method == kind::TUN_REQUEST {
                    let hop = &mut m.next_hops[at];
                    hop.tunnel = [tunnel::IPIP, tunnel::GRE, tunnel::GUE, tunnel::GUE][usize::from(mtu >> 4 & 3)];
                    hop.flags = if mtu & 0x40 != 0 { tunnel::CHECKSUM } else { 0 };
                    hop.flags |= if outer6 { tunnel::PEER_V6 } else { 0 };
                    hop.port = Be16::new(6080);
                    let end = |last: u8| -> IpAddr {
                        match outer6 {
                            true => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into()).into(),
                            false => Ipv4Addr::new(10, 1, 0, last).into(),
                        }
                    };
                    (hop.source, hop.peer) = (words(end(1)), words(end(11 + n)));
                }
                note(&mut m, addr, sieve::SERVER);
                let known = Known { vip: words(vip), vport: Be16::new(vport), one_packet: one_packet.into(), server };
                if v6 {
                    m.known6.insert(Place::new(protocol, Addr6(words(addr)), Be16::new(rport)), known);
                    members.push(TableServer::new(server, Addr6(words(addr)).hash_fold(), rport, (weight, weight)));
                } else {
                    let a = Addr4::from_words(&words(addr));
                    m.known4.insert(Place::new(protocol, a, Be16::new(rport)), known);
                    members.push(TableServer::new(server, a.hash_fold(), rport, (weight, weight)));
                }
                m.slots[slot as usize] = server;
                (server, slot) = (server + 1, slot + 1);
            }
            let table_base = slot;
            if let Some(table) = hashed {
                let slots = &mut m.slots[slot as usize..][..table.size as usize];
                slots.fill(FREE);
                (table.fill)(&mut members, slots);
                slot += table.size;
            }
            // Their ids as control would have them: the last bytes of the addresses.
            let quic = protocol == 17 && hops & 8 != 0 && flagged & 64 == 0;
            let ids = quic.then_some(slot);
            if quic {
                let last = if v6 { 0x11 } else { 0x0a01_000b };
                m.slots[slot as usize..][..5].copy_from_slice(&[2, last, server - 2, last + 1, server - 1]);
                slot += 5;
            }
            m.services[service as usize] = Service {
                list: S64::new(u64::from(base) << 32 | 2),
                scheduler,
                flags: u32::from(one_packet) * service_flag::ONE_PACKET
                    | u32::from(flagged & 16 != 0) * service_flag::HASH_FALLBACK
                    | u32::from(flagged & 32 != 0) * service_flag::HASH_PORT
                    | u32::from(flagged & 64 != 0) * service_flag::PERSISTENT
                    | u32::from(quic) * service_flag::QUIC
                    | u32::from(hops & 128 != 0) * service_flag::STATELESS,
                joint: S64::new(Service::with_ids(ids)),
                wrr_max: u32::from(weights >> 4).max(u32::from(weights & 15)),
                wrr_step: 1,
                table: S64::new(Service::with_table(table_base, hashed_slots)),
                persistence: 300 * 250,
                mask: if v6 { 64 } else { u32::from_ne_bytes([255, 255, 255, 0]) },
                port: Be16::new(vport),
                ..Service::default()
            };
            if v6 {
                m.services6.insert(Place::new(protocol, Addr6(words(vip)), Be16::new(vport)), service);
            } else {
                m.services4.insert(Place::new(protocol, Addr4::from_words(&words(vip)), Be16::new(vport)), service);
            }
            service += 1;
        }
    }
    m.local4.insert(Addr4::new(VIP4.octets()));
    m.local4.insert(Addr4::new([10, 1, 0, 1]));
    m.local6.insert(Addr6::new(VIP6.octets()));
    let (ifindex, src, dst) = MACS[0];
    let target = Target {
        ifindex,
        mtu: if way_back & 4 == 0 { 1500 } else { 600 },
        src: Mac::new(src),
        dst: if way_back & 1 == 0 { Some(Mac::new(dst)) } else { None },
    };
    let target = (way_back & 8 == 0).then_some(target);
    m.routes.not_forwarding = way_back & 2 != 0;
    m.routes.set(Ipv4Addr::UNSPECIFIED.into(), 0, target);
    m.routes.set(Ipv6Addr::UNSPECIFIED.into(), 0, target);
    m
}

/// Tables are asked about packets of this address.
fn note(m: &mut MemoryTables, addr: IpAddr, bits: u8) {
    m.sieve[usize::from(keys::slot(addr))] |= bits;
}

/// Verdict, reason and frame agree with each other and with the frame before.
fn check(before: &[u8], out: &Outcome) {
    let (verdict, after) = (out.verdict, &out.frame);
    let kind = verdict.reason.kind();
    match verdict.action {
        Action::Continue | Action::HandOver => panic!("unfinished: {verdict:?}"),
        Action::Pass => {
            let tagged = before.get(12..14) == Some(&[0x81, 0]);
            assert!(after == before || tagged, "{verdict:?} changed the frame");
            assert_eq!(kind, ReasonKind::Passed, "{verdict:?}");
        }
        Action::Drop => assert_eq!(kind, ReasonKind::Dropped, "{verdict:?}"),
        Action::Deliver | Action::Forward | Action::Transmit | Action::Resolve => {
            assert!(matches!(kind, ReasonKind::Forwarded | ReasonKind::Answered), "{verdict:?}");
            assert!(verdict.ifindex != 0 || matches!(verdict.action, Action::Deliver | Action::Forward));
            assert!(!header_holds(before) || header_holds(after), "{verdict:?}: the IP checksum of {after:02x?}");
            if matches!(verdict.reason, Reason::Request | Reason::Reply | Reason::OnePacketReply) {
                let (then, now) = (transport_holds(before), transport_holds(after));
                // Of a piece nobody can tell.
                assert!(then != Some(true) || now != Some(false), "{verdict:?}: the checksum of {after:02x?}");
            }
            if kind == ReasonKind::Answered {
                assert!(header_holds(after), "{verdict:?}: {after:02x?}");
            }
        }
    }
}

fn same(way: &str, a: &Outcome, b: &Outcome) {
    assert!(
        a.verdict == b.verdict && a.frame == b.frame && a.more == b.more,
        "{way} differs: {:?} and {:?}\n{:02x?}\n{:02x?}",
        a.verdict,
        b.verdict,
        a.frame,
        b.frame
    );
}

/// Whether an IPv4 header's checksum is right; an IPv6 header has none.
fn header_holds(frame: &[u8]) -> bool {
    match frame.get(12..15) {
        Some([8, 0, first]) => {
            let header = usize::from(first & 15) * 4;
            frame.get(14..14 + header).is_some_and(|h| checksum::sum_bytes(h) == 0xffff)
        }
        _ => true,
    }
}

/// Whether the TCP, UDP or SCTP checksum is right, for packets without options.
fn transport_holds(frame: &[u8]) -> Option<bool> {
    if frame.get(12..14) == Some(&[8, 0]) && (frame.get(20)? & 0x3f, *frame.get(21)?) != (0, 0) {
        return None; // a piece
    }
    let (addresses, protocol, l4) = match frame.get(12..15)? {
        [8, 0, 0x45] => {
            let len = usize::from(u16::from_be_bytes([*frame.get(16)?, *frame.get(17)?]));
            (frame.get(26..34)?, *frame.get(23)?, frame.get(34..14 + len)?)
        }
        [0x86, 0xdd, _] => {
            let len = usize::from(u16::from_be_bytes([*frame.get(18)?, *frame.get(19)?]));
            (frame.get(22..54)?, *frame.get(20)?, frame.get(54..54 + len)?)
        }
        _ => return None,
    };
    match protocol {
        6 => {}
        17 if l4.get(6..8)? != [0, 0] => {}
        132 => {
            return Some(crc32c::of(&[l4.get(..8)?, &[0; 4], l4.get(12..)?].concat()).to_le_bytes() == l4.get(8..12)?);
        }
        _ => return None,
    }
    let mut covered = addresses.to_vec();
    covered.extend([0, protocol]);
    covered.extend((l4.len() as u16).to_be_bytes());
    covered.extend(l4);
    Some(checksum::sum_bytes(&covered) == 0xffff)
}

/// Makes the checksum of an IPv4 header right, options and all.
fn mend(frame: &mut [u8]) {
    let header = frame.get(14).map_or(0, |b| usize::from(b & 15) * 4);
    if frame.get(12..14) == Some(&[8, 0]) && header >= 20 && frame.len() >= 14 + header {
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = !checksum::sum_bytes(&frame[14..14 + header]);
        frame[24..26].copy_from_slice(&sum.to_ne_bytes());
    }
}

/// Makes the CRC of an SCTP packet without options right.
fn mend_crc(frame: &mut [u8]) {
    let l4 = match frame.get(12..24) {
        Some([8, 0, 0x45, .., 132]) => 34,
        Some([0x86, 0xdd, _, _, _, _, _, _, 132, ..]) => 54,
        _ => return,
    };
    if frame.len() >= l4 + 12 {
        frame[l4 + 8..l4 + 12].fill(0);
        let check = crc32c::of(&frame[l4..]);
        frame[l4 + 8..l4 + 12].copy_from_slice(&check.to_le_bytes());
    }
}

/// The servers' counters are what the entries say, and entries come in pairs.
fn recount(m: &MemoryTables) {
    let mut loads = vec![((0, 0), 0); m.servers.len()];
    count(&m.conns4, &mut loads);
    count(&m.conns6, &mut loads);
    for (server, load) in m.servers.iter().zip(loads) {
        assert_eq!((server.connections(), server.persistent.load()), load);
    }
}

fn count<A: Address + Eq + std::hash::Hash>(conns: &HashMap<Tuple<A>, Conn<A>>, loads: &mut [((u32, u32), u64)]) {
    for (key, conn) in conns {
        if conn.kind == kind::NAT_REPLY {
            let request = Tuple::new(key.proto(), key.dst, key.dport, conn.addr, conn.port);
            assert!(conns.contains_key(&request), "an answer's entry without its request's: {key:?}");
            continue;
        }
        if conn.kind == kind::NAT_REQUEST {
            let reply = Tuple::new(key.proto(), conn.addr, conn.port, key.src, key.sport);
            assert!(conns.contains_key(&reply), "a request's entry without its answer's: {key:?}");
        }
        let (load, templates) = &mut loads[conn.server as usize];
        if conn.kind == kind::TEMPLATE {
            *templates += 1;
            continue;
        }
        if conn.word().active() {
            load.0 += 1;
        } else {
            load.1 += 1;
        }
    }
}
