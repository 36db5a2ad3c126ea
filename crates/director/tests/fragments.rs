//! Pieces of datagrams (RFC 791 §3.2), and packets that are cut on their way out.
#![expect(clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::Reason;
use dirigent_director::direct::{Stage, direct, resume};
use dirigent_director::records::kind;
use dirigent_director::tables::Tables as _;
use dirigent_director::verdict::{Action, Verdict};
use dirigent_wire::checksum;
use proptest::prelude::*;
use support::{
    CLIENT_LINK, Frame, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VPORT, client4, frame4, ip_checksum_holds,
    server4,
};

/// A UDP request without DF, of this identification.
fn datagram(ident: u16, payload: usize) -> Vec<u8> {
    let spec = Spec { src: (client4(1), 4000), dst: (VIP4, VPORT), protocol: 17, flags: 0, ttl: 64, payload };
    let mut frame = frame4(spec);
    frame[18..20].copy_from_slice(&ident.to_be_bytes());
    frame[20] = 0;
    mend(&mut frame);
    frame
}

fn mend(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let check = !checksum::sum_bytes(&frame[14..34]);
    frame[24..26].copy_from_slice(&check.to_ne_bytes());
}

/// Cuts a frame as a router would, at these offsets (multiples of eight).
fn pieces(frame: &[u8], at: &[usize]) -> Vec<Vec<u8>> {
    let payload = &frame[34..];
    let ends = at.iter().copied().chain([payload.len()]);
    let mut from = 0;
    let mut out = Vec::new();
    for end in ends {
        let mut piece = [&frame[..34], &payload[from..end]].concat();
        piece[16..18].copy_from_slice(&((20 + end - from) as u16).to_be_bytes());
        let more = if end < payload.len() { 0x2000 } else { 0 };
        piece[20..22].copy_from_slice(&((from / 8) as u16 | more).to_be_bytes());
        mend(&mut piece);
        out.push(piece);
        from = end;
    }
    out
}

/// Puts pieces together again, whose headers must be sound: header and payload.
fn together(mut frames: Vec<Vec<u8>>) -> Vec<u8> {
    let place = |f: &Vec<u8>| u16::from_be_bytes([f[20], f[21]]);
    frames.sort_by_key(|f| place(f) & 0x1fff);
    let mut out = frames[0][..34].to_vec();
    let count = frames.len();
    for (i, frame) in frames.iter().enumerate() {
        assert!(ip_checksum_holds(frame));
        assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14);
        assert_eq!(usize::from(place(frame) & 0x1fff) * 8, out.len() - 34, "no hole, nothing twice");
        assert_eq!(place(frame) & 0x2000 != 0, i + 1 < count, "only the last says that it is");
        assert_eq!(frame[18..20], frames[0][18..20]);
        out.extend(&frame[34..]);
    }
    out
}

fn udp_checksum_holds(frame: &[u8]) -> bool {
    let l4 = &frame[34..];
    let pseudo = [&frame[26..34], &[0, 17], &(l4.len() as u16).to_be_bytes()].concat();
    checksum::add(checksum::sum_bytes(&pseudo), checksum::sum_bytes(l4)) == 0xffff
}

#[test]
fn each_piece_follows_its_first() {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1, 1]);
    let whole = datagram(7, 3000);
    let mut sent = Vec::new();
    for piece in pieces(&whole, &[1480, 2960]) {
        let (verdict, out) = m.run(&piece, CLIENT_LINK);
        assert_eq!(verdict, Verdict::out(Action::Transmit, Reason::Request, SERVER_LINK));
        sent.push(out);
    }
    assert!(sent.iter().all(|f| f[30..34] == sent[0][30..34]), "one server for all");
    let arrived = together(sent);
    assert_eq!(arrived[36..38], SERVER_PORT.to_be_bytes());
    assert!(udp_checksum_holds(&arrived), "over the translated datagram");
    assert_eq!(arrived[42..], whole[42..]);
}

/// Answers in pieces too; and what nobody can tell the owner of goes nowhere.
#[test]
fn answers_follow_their_first_and_early_pieces_are_dropped() {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    let _ = m.run(&datagram(1, 10), CLIENT_LINK);
    let spec = Spec {
        src: (server4(0), SERVER_PORT),
        dst: (client4(1), 4000),
        protocol: 17,
        flags: 0,
        ttl: 64,
        payload: 2000,
    };
    let mut answer = frame4(spec);
    answer[20] = 0;
    mend(&mut answer);
    let parts = pieces(&answer, &[1000]);
    m.places4.insert(dirigent_director::records::Place::whole(dirigent_wire::Addr4::new(VIP4)), u32::MAX);
    m.known4
        .insert(dirigent_director::records::Place::whole(dirigent_wire::Addr4::new(server4(0))), Default::default());
    assert_eq!(
        m.run(&parts[1], SERVER_LINK).0,
        Verdict::drop(Reason::FragNoFirst),
        "it would leak the server's address"
    );
    let sent: Vec<_> = parts.iter().map(|piece| m.run(piece, SERVER_LINK).1).collect();
    let arrived = together(sent);
    assert_eq!((&arrived[26..30], udp_checksum_holds(&arrived)), (&VIP4[..], true));
    let early = &pieces(&datagram(9, 2000), &[1000])[1];
    assert_eq!(m.run(early, CLIENT_LINK).0, Verdict::drop(Reason::FragNoFirst));
}

/// Identifications are used again: a first piece of long ago says nothing.
#[test]
fn a_first_piece_is_forgotten_after_half_a_minute() {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    let parts = pieces(&datagram(7, 2000), &[1000]);
    let _ = m.run(&parts[0], CLIENT_LINK);
    m.now = m.now.wrapping_add(31 * m.settings.hz);
    assert_ne!(m.run(&parts[1], CLIENT_LINK).0.reason, Reason::Request);
}

/// A later piece that dies on its way gets no error (RFC 1122 §3.2.2), and opens nothing.
#[test]
fn no_error_about_a_later_piece() {
    let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
    let mut parts = pieces(&datagram(7, 2000), &[1000]);
    let _ = m.run(&parts[0], CLIENT_LINK);
    parts[1][22] = 1;
    mend(&mut parts[1]);
    assert_eq!(m.run(&parts[1], CLIENT_LINK).0, Verdict::drop(Reason::NoErrorAboutIcmp));
}

/// All frames that come of one, with what is left to later runs.
fn all(m: &mut Memory, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut first = Frame::<true>::new(frame, CLIENT_LINK);
    let mut verdict = direct(&mut first, m);
    let mut frame = first.later();
    let mut out = Vec::new();
    loop {
        while verdict.action == Action::Continue {
            verdict = resume(&mut frame, m, verdict.ifindex);
        }
        assert_eq!((verdict.action, verdict.reason), (Action::Transmit, Reason::Request));
        out.push(frame.bytes().to_vec());
        let Some((word, rest)) = frame.forks.pop() else { return out };
        m.stash(word);
        frame = Frame::<true>::new(&rest, CLIENT_LINK).later();
        verdict = Verdict::out(Action::Continue, Reason::LaterStage, Stage::Rest.number(false));
    }
}

proptest! {
    /// However long the packet and however narrow the way: pieces that fit, in order, and together what was sent.
    #[test]
    fn what_is_cut_is_whole_again(payload in 0usize..1473, mtu in 68u32..1500, options in 0usize..3) {
        let mut m = Memory::new(0, kind::NAT_REQUEST, &[1]);
        for hop in &mut m.hops {
            hop.mtu = mtu;
        }
        let mut frame = datagram(5, payload);
        // Options stay in every piece.
        let len = options * 4;
        frame.splice(34..34, vec![1; len]);
        frame[14] = 0x45 + options as u8;
        let total = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[24..26].fill(0);
        let check = !checksum::sum_bytes(&frame[14..34 + len]);
        frame[24..26].copy_from_slice(&check.to_ne_bytes());
        let mut parts = all(&mut m, &frame);
        for part in &mut parts {
            prop_assert!(part.len() - 14 <= mtu as usize);
            prop_assert_eq!(&part[34..34 + len], &vec![1; len][..]);
            prop_assert_eq!(checksum::sum_bytes(&part[14..34 + len]), 0xffff);
            // Without them, as `together` knows packets.
            part.drain(34..34 + len);
            part[14] = 0x45;
            let total = (part.len() - 14) as u16;
            part[16..18].copy_from_slice(&total.to_be_bytes());
            mend(part);
        }
        let arrived = together(parts);
        prop_assert!(udp_checksum_holds(&arrived));
        prop_assert_eq!(&arrived[42..], &frame[42 + len..]);
    }
}
