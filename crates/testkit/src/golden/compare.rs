//! Whether what came out is what was recorded, but for fields that are random.

use super::bed::Side;
use super::executor::{Does, Row};
use super::tunnel;
use crate::decode::{Ip, be16, packet};
use crate::packet::checksum;

/// Whether these frames are those that were recorded for an input by `side`.
pub fn same_frames(side: Side, input: &[u8], expected: &[(Side, Vec<u8>)], got: &[(Side, Vec<u8>)]) -> bool {
    expected.len() == got.len()
        && expected.iter().zip(got).all(|(e, g)| {
            let made = e.0 == side || tunnel::about_a_tunnel(input);
            e.0 == g.0 && same_frame(&e.1, &g.1, made, tunnel::added(input, &e.1))
        })
        && one_ident(input, got)
}

/// Whether two executors did the same with a frame that came in by `side`, but for what
/// they chose at random, and for pieces after the first where one shows no more.
pub fn same_deed(side: Side, input: &[u8], a: &Does, b: &Does) -> bool {
    let same = |s: &Side, f: &[u8], g: &[u8]| {
        f.len() == g.len() && same_frame(f, g, *s == side || tunnel::about_a_tunnel(input), tunnel::added(input, f))
    };
    match (a, b) {
        _ if a == b => true, // the usual case, of millions
        (Does::Out(s, f), Does::Out(t, g)) => s == t && same(s, f, g),
        // The kernel writes the MACs.
        (Does::Resolve(s, f, _), Does::Resolve(t, g, _)) => {
            let mut g = g.clone();
            g.get_mut(..12).zip(f.get(..12)).is_some_and(|(to, from)| {
                to.copy_from_slice(from);
                true
            }) && s == t
                && same(s, f, &g)
        }
        (Does::Pieces(these), Does::Pieces(those)) => {
            these.len() == those.len() && these.iter().zip(those).all(|(a, b)| same_deed(side, input, a, b))
        }
        (Does::Pieces(pieces), one) => pieces.first().is_some_and(|first| same_deed(side, input, first, one)),
        _ => a == b,
    }
}

/// Pieces of one packet have one identification.
fn one_ident(input: &[u8], frames: &[(Side, Vec<u8>)]) -> bool {
    let ident = |frame: &[u8]| packet(frame).and_then(Ip::read).and_then(|ip| ip.fragment).map(|(ident, ..)| ident);
    let pieces: Vec<u32> = frames.iter().filter_map(|(_, frame)| ident(frame)).collect();
    ident(input).is_some() || pieces.windows(2).all(|pair| pair[0] == pair[1])
}

/// `made`: the director or its host made the packet, and chose identification and flow
/// label. `outer`: it put the packet into a tunnel, and chose the outer header's.
pub fn same_frame(expected: &[u8], got: &[u8], made: bool, outer: bool) -> bool {
    let (Some(want), Some(have)) = (packet(expected), packet(got)) else { return expected == got };
    expected.get(..14) == got.get(..14) && masked(want, made, outer, want) == masked(have, made, outer, want)
}

/// The packet with its random fields taken from `model`, the recorded one.
fn masked(p: &[u8], made: bool, outer: bool, model: &[u8]) -> Vec<u8> {
    let mut out = p.to_vec();
    let (Some(ip), Some(like)) = (Ip::read(p), Ip::read(model)) else { return out };
    if p.len() != model.len() || ip.v6 != like.v6 || ip.l4 != like.l4 {
        return out;
    }
    if outer && ip.protocol == 17 && ip.fragment.is_none_or(|(_, offset, _)| offset == 0) {
        tunnel::mask_source_port(&mut out, &ip, model);
    }
    if ip.v6 {
        if made {
            out[1] = out[1] & 0xf0 | model[1] & 0x0f;
            out[2..4].copy_from_slice(&model[2..4]);
        }
        if let (Some(at), true) = (ip.fragment_header, ip.fragment.is_some()) {
            out[at + 4..at + 8].copy_from_slice(&model[at + 4..at + 8]);
        }
        return out;
    }
    if p.get(..ip.l4).is_none_or(|header| checksum(&[header]) != 0) {
        return out; // a wrong checksum must be the recorded one
    }
    let chosen = made && ip.protocol == 1 || outer && be16(model, 6).is_some_and(|place| place & 0x4000 == 0);
    // 0 is no choice: it says that none is needed.
    if chosen && be16(model, 4) != Some(0) && be16(p, 4) != Some(0) {
        out[4..6].copy_from_slice(&model[4..6]);
    }
    stamps(&mut out, model, ip.l4);
    let (header, _) = out.split_at_mut(ip.l4);
    header[10..12].fill(0);
    let check = checksum(&[header]);
    header[10..12].copy_from_slice(&check.to_be_bytes());
    out
}

/// The times of an IP timestamp option (RFC 781).
fn stamps(out: &mut [u8], model: &[u8], end: usize) {
    let mut at = 20;
    while at + 1 < end {
        let len = match (out[at], out[at + 1]) {
            (0, _) => return,
            (1, _) => 1,
            (_, len) if len >= 2 => usize::from(len).min(end - at),
            _ => return,
        };
        if out[at] == 68 && len > 4 {
            out[at + 4..at + len].copy_from_slice(&model[at + 4..at + len]);
        }
        at += len;
    }
}

/// Seconds that timers may differ: gaps between steps were up to this (packet-rules §4.3).
const TIMER_S: i64 = 3;

/// A timer as ipvsadm shows it.
pub fn seconds(time: &str) -> Option<i64> {
    let (minutes, seconds) = time.split_once(':')?;
    Some(minutes.parse::<i64>().ok()? * 60 + seconds.parse::<i64>().ok()?)
}

/// Whether two rows are the same but for the timer.
pub fn same_row(a: &Row, b: &Row) -> bool {
    let near = match (seconds(&a[2]), seconds(&b[2])) {
        (Some(a), Some(b)) => (a - b).abs() <= TIMER_S,
        _ => false,
    };
    near && a.iter().zip(b).enumerate().all(|(i, (a, b))| i == 2 || a == b)
}

/// Whether the tables hold the same rows, in whatever order.
pub fn same_rows(expected: &[Row], got: &[Row]) -> bool {
    expected.len() == got.len() && expected.iter().all(|e| got.iter().any(|g| same_row(e, g)))
}

/// The same, or both to be read.
pub fn compare_rows(expected: &[Row], got: &[Row]) -> Result<(), String> {
    let show = |rows: &[Row]| rows.iter().map(|row| format!("      {}\n", row.join("  "))).collect::<String>();
    match same_rows(expected, got) {
        true => Ok(()),
        false => Err(format!("    expected rows:\n{}    got rows:\n{}", show(expected), show(got))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_may_differ_by_three_seconds() {
        let row = |time: &str| ["TCP", "NONE", time, "a", "b", "c"].map(String::from);
        assert!(same_row(&row("01:00"), &row("00:57")));
        assert!(!same_row(&row("01:00"), &row("00:56")));
        assert!(!same_rows(&[row("01:00")], &[]));
    }
}
