//! The server's end of tunnels: what comes out of them, what stays in, and the segment
//! sizes that are offered.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "support/ends.rs"]
mod ends;
mod support;

use dirigent_director::endpoint::{Outcome, TERMS_VERSION, Terms};
use dirigent_director::records::tunnel;
use dirigent_wire::{Be16, Mac, checksum};
use ends::{Ends, hold, l4_holds};
use proptest::prelude::*;
use support::{Frame, MAC, Spec, VIP4, VIP6, VPORT, client4, client6, frame4, frame6, ip_checksum_holds, server6};

const DIRECTOR4: [u8; 4] = [10, 1, 0, 1];
const SERVER4: [u8; 4] = [10, 1, 0, 11];
const PORT: u16 = 6080;
const KINDS: [u8; 3] = [tunnel::IPIP, tunnel::GRE, tunnel::GUE];

fn director6() -> [u8; 16] {
    client6(99)
}

fn ends(known_directors: bool) -> Ends {
    let terms = Terms {
        version: TERMS_VERSION,
        kinds: KINDS.iter().fold(0, |all, kind| all | 1 << kind),
        port: Be16::new(PORT),
        mac: Mac::new(MAC),
        mss4: 1400,
        mss6: 1380,
        known_directors: known_directors.into(),
        spare: 0,
    };
    Ends { terms: Some(terms), vips: (VIP4, VIP6), directors: (DIRECTOR4, director6()) }
}

fn run(ends: &Ends, frame: &[u8], out: bool) -> (Outcome, Vec<u8>) {
    hold(ends, frame, out, |bytes| Frame::<false>::new(bytes, 2), |frame| frame.bytes().to_vec())
}

fn arrives(ends: &Ends, frame: &[u8]) -> (Outcome, Vec<u8>) {
    run(ends, frame, false)
}

/// What a client sent, in IPv4 or IPv6, with a mark of congestion.
fn request(v6: bool, ecn: u8, payload: usize) -> Vec<u8> {
    let flags = 0x10;
    if v6 {
        let mut frame =
            frame6(Spec { src: (client6(1), 4000), dst: (VIP6, VPORT), protocol: 6, flags, ttl: 60, payload });
        frame[15] |= ecn << 4;
        return frame;
    }
    let mut frame = frame4(Spec { src: (client4(1), 4000), dst: (VIP4, VPORT), protocol: 6, flags, ttl: 60, payload });
    frame[15] = ecn;
    mend(&mut frame[14..]);
    frame
}

/// An IPv4 header's checksum.
fn mend(ip: &mut [u8]) {
    let header = usize::from(ip[0] & 15) * 4;
    ip[10..12].fill(0);
    let check = !checksum::sum_bytes(&ip[..header]);
    ip[10..12].copy_from_slice(&check.to_ne_bytes());
}

/// What stands between the IP headers, with the protocol of the outer one.
fn between(kind: u8, inner6: bool, inner: &[u8]) -> (u8, Vec<u8>) {
    let protocol = if inner6 { 41 } else { 4 };
    match kind {
        tunnel::GRE => (47, vec![0, 0, if inner6 { 0x86 } else { 8 }, if inner6 { 0xdd } else { 0 }]),
        tunnel::GUE => {
            let len = (12 + inner.len() as u16).to_be_bytes();
            let port = PORT.to_be_bytes();
            (17, [&[0x90, 0], &port[..], &len, &[0, 0, 0, protocol, 0, 0]].concat())
        }
        _ => (protocol, Vec::new()),
    }
}

/// The packet of a frame in a tunnel, from the director to the server.
fn tunnelled(kind: u8, outer6: bool, outer_ecn: u8, frame: &[u8]) -> Vec<u8> {
    let inner = &frame[14..];
    let (protocol, head) = between(kind, frame[12] == 0x86, inner);
    let rest = [&head, inner].concat();
    let mut ip = if outer6 {
        let len = (rest.len() as u16).to_be_bytes();
        [&[0x60, outer_ecn << 4, 0, 0][..], &len, &[protocol, 60], &director6(), &server6(0)].concat()
    } else {
        let len = (20 + rest.len() as u16).to_be_bytes();
        [&[0x45, outer_ecn][..], &len, &[0, 0, 0x40, 0, 60, protocol, 0, 0], &DIRECTOR4, &SERVER4].concat()
    };
    if !outer6 {
        mend(&mut ip);
    }
    let ethertype = if outer6 { [0x86, 0xdd] } else { [8, 0] };
    [&MAC[..], &[2, 0, 0, 0, 0, 2], &ethertype, &ip, &rest].concat()
}

/// All kinds in all mixes of families.
fn each() -> impl Iterator<Item = (u8, bool, bool)> {
    let mixes = [(false, false), (false, true), (true, false), (true, true)];
    KINDS.into_iter().flat_map(move |kind| mixes.into_iter().map(move |(outer6, inner6)| (kind, outer6, inner6)))
}

#[test]
fn what_comes_out_is_what_went_in() {
    for (kind, outer6, inner6) in each() {
        for payload in [0, 1, 33, 1360] {
            let frame = request(inner6, 0, payload);
            let (outcome, out) = arrives(&ends(true), &tunnelled(kind, outer6, 0, &frame));
            let case = format!("{kind}, over v6 {outer6}, v6 inside {inner6}, {payload} bytes");
            assert_eq!(outcome, Outcome::Decapsulated, "{case}");
            assert_eq!((&out[..6], &out[6..12]), (&MAC[..], &[2, 0, 0, 0, 0, 2][..]), "{case}");
            assert_eq!(out[12..], frame[12..], "{case}");
        }
    }
    // Byte by byte: an empty UDP datagram in IPIP.
    let mut wire = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    wire.extend([0x45, 0, 0, 48, 0, 0, 0x40, 0, 60, 4, 0x29, 0xc0, 10, 1, 0, 1, 10, 1, 0, 11]);
    let inner = [
        0x45, 0, 0, 28, 0, 0, 0x40, 0, 60, 17, 0x8d, 0x83, 198, 51, 100, 7, 192, 0, 2, 10, 0x0f, 0xa0, 0, 53, 0, 8, 0,
        0,
    ];
    wire.extend(inner);
    mend(&mut wire[14..]);
    let mut inner = inner;
    mend(&mut inner);
    wire[34..].copy_from_slice(&inner);
    let (outcome, out) = arrives(&ends(true), &wire);
    assert_eq!((outcome, &out[14..]), (Outcome::Decapsulated, &inner[..]));
}

/// With a checksum, and with every other option that GRE and GUE have.
#[test]
fn headers_with_options() {
    let frame = request(false, 0, 10);
    let plain = tunnelled(tunnel::GRE, false, 0, &frame);
    let with = |flags: u8, more: usize| {
        let mut wire = plain.clone();
        wire[34] = flags;
        wire.splice(38..38, vec![0; more]);
        let len = (wire.len() as u16 - 14).to_be_bytes();
        wire[16..18].copy_from_slice(&len);
        mend(&mut wire[14..]);
        arrives(&ends(false), &wire).0
    };
    assert_eq!(with(0x80, 4), Outcome::Decapsulated, "checksum");
    for (flags, more) in [(0x20, 4), (0x10, 4), (0xa0, 8), (0x40, 4), (0x01, 0)] {
        assert_eq!(with(flags, more), Outcome::Passed, "key, sequence, routing or another version: {flags:#x}");
    }
    let gue = tunnelled(tunnel::GUE, false, 0, &frame);
    for (at, value) in [(42, 0x20), (42, 0x40), (42, 1), (43, 6), (37, 0xff)] {
        let mut wire = gue.clone();
        wire[at] = value;
        assert_eq!(arrives(&ends(false), &wire).0, Outcome::Passed, "control, version, options, protocol, port: {at}");
    }
    // IPv4 options and IPv6 extension headers of the outer header are looked through.
    let mut wire = tunnelled(tunnel::IPIP, false, 0, &frame);
    wire[14] = 0x46;
    wire.splice(34..34, [1, 1, 1, 0]);
    let len = (wire.len() as u16 - 14).to_be_bytes();
    wire[16..18].copy_from_slice(&len);
    mend(&mut wire[14..]);
    assert_eq!(arrives(&ends(false), &wire).1[14..], frame[14..]);
    let mut wire = tunnelled(tunnel::IPIP, true, 0, &frame);
    wire[20] = 60;
    // Tunnel encapsulation limit (RFC 2473 §4.1.1), as Linux' ip6tnl sends it.
    wire.splice(54..54, [4, 0, 4, 1, 4, 1, 0, 0]);
    let len = (wire.len() as u16 - 54).to_be_bytes();
    wire[18..20].copy_from_slice(&len);
    assert_eq!(arrives(&ends(false), &wire).1[14..], frame[14..]);
}

/// RFC 6040 §4.2, figure 4.
#[test]
fn marks_of_congestion_come_out_as_the_standard_says() {
    // Rows: the inner mark; columns: the outer. 9: dropped. 0 not ECT, 1 ECT(1), 2 ECT(0), 3 CE.
    let figure = [[0, 0, 0, 9], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
    for (inner, row) in figure.into_iter().enumerate() {
        for (outer, wanted) in row.into_iter().enumerate() {
            for (kind, outer6, inner6) in each() {
                let frame = request(inner6, inner as u8, 5);
                let (outcome, out) = arrives(&ends(true), &tunnelled(kind, outer6, outer as u8, &frame));
                let case = format!("{kind} {outer6} {inner6}: inner {inner}, outer {outer}");
                if wanted == 9 {
                    assert_eq!(outcome, Outcome::Congested, "{case}");
                    continue;
                }
                assert_eq!(outcome, Outcome::Decapsulated, "{case}");
                let mark = if inner6 { out[15] >> 4 & 3 } else { out[15] & 3 };
                assert_eq!((mark, ip_checksum_holds(&out)), (wanted, true), "{case}");
            }
        }
    }
}

#[test]
fn only_directors_are_heard_where_they_are_named() {
    for (kind, outer6, inner6) in each() {
        let mut wire = tunnelled(kind, outer6, 0, &request(inner6, 0, 5));
        if outer6 {
            wire[37] ^= 1;
        } else {
            wire[29] ^= 1;
            mend(&mut wire[14..]);
        }
        assert_eq!(arrives(&ends(true), &wire).0, Outcome::Stranger, "{kind} {outer6} {inner6}");
        assert_eq!(arrives(&ends(false), &wire).0, Outcome::Decapsulated, "{kind} {outer6} {inner6}");
    }
}

/// Other tunnels of this host, other kinds, other MACs, and a server that has been told nothing yet.
#[test]
fn what_is_not_meant_stays_as_it_is() {
    for (kind, outer6, inner6) in each() {
        let frame = request(inner6, 0, 5);
        let wire = tunnelled(kind, outer6, 0, &frame);
        let mut other_kinds = ends(false);
        other_kinds.terms.iter_mut().for_each(|terms| terms.kinds &= !(1 << kind));
        assert_eq!(arrives(&other_kinds, &wire).0, Outcome::Passed);
        let untold = Ends { terms: None, ..ends(false) };
        assert_eq!(arrives(&untold, &wire).0, Outcome::Passed);
        let mut other_vip = ends(false);
        (other_vip.vips.0[3], other_vip.vips.1[15]) = (77, 77);
        assert_eq!(arrives(&other_vip, &wire).0, Outcome::Passed, "another tunnel of this host");
        let mut other_mac = wire.clone();
        other_mac[5] ^= 1;
        assert_eq!(arrives(&ends(false), &other_mac).0, Outcome::Passed);
        assert_eq!(arrives(&ends(false), &frame).0, Outcome::Passed, "in no tunnel");
    }
}

/// A length inside that leads outside, of the header or of the packet; a sum that is wrong; and frames of every length.
#[test]
fn lengths_that_lie() {
    for (kind, outer6, inner6) in each() {
        let wire = tunnelled(kind, outer6, 0, &request(inner6, 0, 40));
        let at = wire.len() - request(inner6, 0, 40).len() + 14;
        let lie = |change: &dyn Fn(&mut [u8])| {
            let mut wire = wire.clone();
            change(&mut wire[at..]);
            if !inner6 {
                mend(&mut wire[at..]);
            }
            arrives(&ends(true), &wire).0
        };
        let len = if inner6 { 5 } else { 3 };
        assert_eq!(lie(&|ip| ip[len] += 1), Outcome::Malformed, "longer than what it is in");
        assert_eq!(lie(&|ip| ip[len] -= 1), Outcome::Decapsulated, "shorter: padding, as Ethernet has it");
        assert_eq!(lie(&|ip| ip[0] ^= 0x10), Outcome::Malformed, "of no version");
        if !inner6 {
            assert_eq!(lie(&|ip| ip[0] = 0x44), Outcome::Malformed, "a header too short");
            assert_eq!(lie(&|ip| ip[2..4].copy_from_slice(&[0, 19])), Outcome::Malformed, "shorter than its header");
            let mut wrong = wire.clone();
            wrong[at + 10] ^= 1;
            assert_eq!(arrives(&ends(true), &wrong).0, Outcome::Malformed, "its sum");
        }
        for length in 0..wire.len() {
            let outcome = arrives(&ends(true), &wire[..length]).0;
            assert_eq!(outcome, Outcome::Passed, "cut to {length}: the outer header lies");
        }
        // The outer header says less than there is: what is inside is longer than that.
        let mut wire = wire.clone();
        if outer6 {
            wire[19] -= 1;
        } else {
            wire[17] -= 1;
            mend(&mut wire[14..]);
        }
        assert_eq!(arrives(&ends(true), &wire).0, Outcome::Malformed, "{kind} {outer6} {inner6}");
    }
}

/// Pieces of outer packets are counted and left to the host; pieces inside whole ones come out.
#[test]
fn pieces() {
    for (kind, outer6, inner6) in each() {
        let frame = request(inner6, 0, 40);
        let whole = tunnelled(kind, outer6, 0, &frame);
        for later in [false, true] {
            let mut wire = whole.clone();
            if outer6 {
                let place: u16 = if later { 100 << 3 } else { 1 };
                let [hi, lo] = place.to_be_bytes();
                let next = std::mem::replace(&mut wire[20], 44);
                wire.splice(54..54, [next, 0, hi, lo, 0, 0, 0, 7]);
                wire[19] += 8;
            } else {
                wire[20..22].copy_from_slice(&if later { [0, 100] } else { [0x20, 0] });
                mend(&mut wire[14..]);
            }
            // Of UDP only the first piece tells that it is a tunnel's.
            let wanted = if later && kind == tunnel::GUE { Outcome::Passed } else { Outcome::Fragment };
            assert_eq!(arrives(&ends(true), &wire).0, wanted, "{kind} {outer6} {inner6}, later {later}");
        }
    }
    let mut piece = request(false, 0, 40);
    piece[20..22].copy_from_slice(&[0x20, 100]);
    mend(&mut piece[14..]);
    assert_eq!(arrives(&ends(true), &tunnelled(tunnel::GRE, true, 0, &piece)).1[14..], piece[14..]);
}

/// A SYN-ACK of the server with these TCP options, padded to whole words.
fn syn_ack(v6: bool, options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let payload = options.len();
    let mut frame = if v6 {
        frame6(Spec { src: (VIP6, VPORT), dst: (client6(1), 4000), protocol: 6, flags: 0x12, ttl: 64, payload })
    } else {
        frame4(Spec { src: (VIP4, VPORT), dst: (client4(1), 4000), protocol: 6, flags: 0x12, ttl: 64, payload })
    };
    let l4 = if v6 { 54 } else { 34 };
    frame[l4 + 12] = (((20 + payload) / 4) << 4) as u8;
    frame[l4 + 20..].copy_from_slice(&options);
    frame[l4 + 16..l4 + 18].fill(0);
    let addresses = if v6 { frame[22..54].to_vec() } else { frame[26..34].to_vec() };
    let segment = &frame[l4..];
    let covered = [&addresses, &[0, 6][..], &(segment.len() as u16).to_be_bytes(), segment].concat();
    let check = !checksum::sum_bytes(&covered);
    frame[l4 + 16..l4 + 18].copy_from_slice(&check.to_ne_bytes());
    frame
}

#[test]
fn the_segment_size_is_lowered_wherever_it_stands() {
    // The size 1460, behind what stands before it; at odd places, too.
    let before: [&[u8]; 8] = [
        &[],
        &[1],
        &[1, 1],
        &[1, 1, 1],
        &[4, 2],
        &[3, 3, 7],
        &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 4, 2, 1, 3, 3, 7],
        &[
            34, 18, 2, 4, 0xff, 0xff, 2, 4, 0xff, 0xff, 2, 4, 0xff, 0xff, 2, 4, 0xff, 0xff, 1, 30, 12, 0, 1, 2, 3, 4,
            5, 6, 7, 8, 9, 1, 1, 1, 1, 1,
        ],
    ];
    for (v6, wanted) in [(false, 1400u16), (true, 1380)] {
        let l4 = if v6 { 54 } else { 34 };
        for before in before {
            let frame = syn_ack(v6, &[before, &[2, 4, 0x05, 0xb4]].concat());
            let (outcome, out) = run(&ends(false), &frame, true);
            let at = l4 + 20 + before.len() + 2;
            assert_eq!(outcome, Outcome::Clamped, "behind {before:?}");
            assert_eq!(out[at..at + 2], wanted.to_be_bytes(), "behind {before:?}");
            assert!(l4_holds(&frame, l4) && l4_holds(&out, l4), "behind {before:?}");
        }
        for (size, outcome) in [(wanted, Outcome::Passed), (wanted + 1, Outcome::Clamped), (536, Outcome::Passed)] {
            let [hi, lo] = size.to_be_bytes();
            assert_eq!(run(&ends(false), &syn_ack(v6, &[1, 2, 4, hi, lo]), true).0, outcome, "{size}");
        }
    }
}

/// No option, one that is cut off or lies, an option behind the end, no SYN, no virtual address, no limit.
#[test]
fn what_offers_no_segment_size_is_left_alone() {
    for v6 in [false, true] {
        let options: [&[u8]; 8] = [
            &[],
            &[1, 1, 1, 1],
            &[0, 2, 4, 5, 0xb4],
            &[2, 4, 5],
            &[2, 3, 5, 0xb4],
            &[8, 0, 2, 4, 5, 0xb4],
            &[8, 255, 2, 4, 5, 0xb4],
            &[1, 1, 1, 1, 1, 2],
        ];
        for options in options {
            assert_eq!(run(&ends(false), &syn_ack(v6, options), true).0, Outcome::Passed, "{options:?}");
        }
        let sized = syn_ack(v6, &[2, 4, 0x05, 0xb4]);
        let l4 = if v6 { 54 } else { 34 };
        let changed = |at: usize, value: u8| {
            let mut frame = sized.clone();
            frame[at] = value;
            if !v6 {
                mend(&mut frame[14..]);
            }
            run(&ends(false), &frame, true).0
        };
        assert_eq!(changed(l4 + 13, 0x10), Outcome::Passed, "no SYN");
        assert_eq!(changed(l4 + 12, 0x50), Outcome::Passed, "no options, says the header");
        let (source, protocol) = if v6 { (37, 20) } else { (29, 23) };
        assert_eq!(changed(source, 77), Outcome::Passed, "another source");
        assert_eq!(changed(protocol, 17), Outcome::Passed, "another protocol");
        let mut unlimited = ends(false);
        unlimited.terms.iter_mut().for_each(|terms| (terms.mss4, terms.mss6) = (0, 0));
        assert_eq!(run(&unlimited, &sized, true).0, Outcome::Passed, "no limit");
        for length in 0..sized.len() {
            assert_eq!(run(&ends(false), &sized[..length], true).0, Outcome::Passed, "cut to {length}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Tunnelled packets and SYN-ACKs with bytes changed and cut off: see `hold`.
    #[test]
    fn any_frame_is_left_alone_or_handled_whole(
        (kind, outer6, inner6) in (prop::sample::select(&KINDS[..]), any::<bool>(), any::<bool>()),
        marks in (0..4u8, 0..4u8), payload in 0..300usize, options in prop::collection::vec(0..12u8, 0..38),
        changes in prop::collection::vec((0..140usize, any::<u8>()), 0..5),
        cut in prop::option::of(0..400usize), out in any::<bool>(), right in any::<bool>(), known in any::<bool>(),
    ) {
        let mut frame = match out {
            true => syn_ack(inner6, &options),
            false => tunnelled(kind, outer6, marks.0, &request(inner6, marks.1, payload)),
        };
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut.unwrap_or(frame.len()));
        let header = frame.get(14).map_or(0, |b| usize::from(b & 15) * 4);
        if right && frame.get(12..14) == Some(&[8, 0]) && header >= 20 && frame.len() >= 14 + header {
            mend(&mut frame[14..]);
        }
        run(&ends(known), &frame, out);
    }
}
