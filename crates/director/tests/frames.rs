//! Frames of any content: no panic, nothing read or written outside, what passes is
//! untouched, and a checksum that was right stays right.
#![expect(clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::records::{kind, setting};
use dirigent_director::verdict::{Action, ReasonKind};
use proptest::prelude::*;
use support::{
    CLIENT_LINK, MAC, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VIP6, VPORT, client4, client6, frame4, frame6,
    ip_checksum_holds, server4, server6,
};

/// A sound packet between client and service, in either direction.
fn sound() -> impl Strategy<Value = (Vec<u8>, u32)> {
    let parts = (any::<bool>(), any::<bool>(), 0..3u8, 1..4u16);
    let rest = (prop::sample::select(vec![6u8, 17]), any::<u8>(), 0..4u8, 0..1700usize);
    (parts, rest).prop_map(|((v6, from_server, who, port), (protocol, flags, ttl, payload))| {
        let ttl = if ttl == 0 { 1 } else { ttl * 64 };
        let link = if from_server { SERVER_LINK } else { CLIENT_LINK };
        let frame = if v6 {
            let (client, service) = ((client6(who), port), (VIP6, VPORT));
            let (src, dst) = if from_server { ((server6(0), SERVER_PORT), client) } else { (client, service) };
            frame6(Spec { src, dst, protocol, flags, ttl, payload })
        } else {
            let (client, service) = ((client4(who), port), (VIP4, VPORT));
            let (src, dst) = if from_server { ((server4(0), SERVER_PORT), client) } else { (client, service) };
            frame4(Spec { src, dst, protocol, flags, ttl, payload })
        };
        (frame, link)
    })
}

/// The same with bytes changed, cut off or put in front of the transport header.
fn odd() -> impl Strategy<Value = (Vec<u8>, u32)> {
    let changes = prop::collection::vec((12..100usize, any::<u8>()), 0..6);
    let extra = prop::collection::vec(any::<u8>(), 0..80);
    (sound(), changes, any::<prop::sample::Index>(), 0..8u8, extra).prop_map(
        |((mut frame, link), changes, cut, what, extra)| {
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            match what {
                0 => frame.truncate(cut.index(frame.len() + 1)),
                1 => {
                    let at = (14 + cut.index(60)).min(frame.len());
                    frame.splice(at..at, extra);
                }
                2 => frame = [&MAC[..], &[0; 6], &[8, 0, 0x45], &extra].concat(),
                3 => frame = [&MAC[..], &[0; 6], &[0x86, 0xdd, 0x60], &extra].concat(),
                4 => {
                    frame.splice(12..12, [0x81, 0, 0, 0]);
                }
                _ => {}
            }
            (frame, link)
        },
    )
}

/// An IPv4 header whose checksum is made right, options and all.
fn mend(frame: &mut [u8]) {
    let header = frame.get(14).map_or(0, |b| usize::from(b & 15) * 4);
    if frame.get(12..14) == Some(&[8, 0]) && header >= 20 && frame.len() >= 14 + header {
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = !dirigent_wire::checksum::sum_bytes(&frame[14..14 + header]);
        frame[24..26].copy_from_slice(&sum.to_ne_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_leave_consistent_verdicts(
        frames in prop::collection::vec((odd(), any::<bool>()), 1..12), flags in 0..8u32, wlc in any::<bool>(),
    ) {
        let scheduler = if wlc { 2 } else { 0 };
        let mut m = Memory::new(scheduler, kind::NAT_REQUEST, &[1]);
        m.settings.flags = flags & !setting::KNOW_SERVERS;
        m.settings.error_dest_rate = 0;
        for ((mut frame, link), sound_header) in frames {
            if sound_header {
                mend(&mut frame);
            }
            let right_before = ip_checksum_holds(&frame);
            let (verdict, out) = m.run(&frame, link);
            prop_assert_ne!(verdict.action, Action::Continue);
            match verdict.action {
                Action::Pass | Action::HandOver => {
                    // A priority tag (VLAN 0) is taken out on the way; else nothing is changed.
                    let tagged = frame.get(12..14) == Some(&[0x81, 0]);
                    prop_assert!(out == frame || tagged, "{:?} changed the frame", verdict);
                    prop_assert_eq!(verdict.reason.kind() == ReasonKind::Forwarded, verdict.action == Action::HandOver);
                }
                Action::Drop => prop_assert_eq!(verdict.reason.kind(), ReasonKind::Dropped),
                _ => {
                    prop_assert!(matches!(verdict.reason.kind(), ReasonKind::Forwarded | ReasonKind::Answered));
                    prop_assert!(out.len() >= 14 + 20 && (!right_before || ip_checksum_holds(&out)), "{:02x?}", out);
                }
            }
            prop_assert_eq!(m.recount(), m.counted());
        }
    }
}
