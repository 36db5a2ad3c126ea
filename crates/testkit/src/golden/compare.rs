//! Whether what came out is what was recorded, but for fields that are random.

use super::bed::Side;
use super::executor::Row;
use crate::decode::{Ip, be16, packet};
use crate::packet::checksum;

/// Whether these frames are those that were recorded for an input by `side`.
pub fn same_frames(side: Side, expected: &[(Side, Vec<u8>)], got: &[(Side, Vec<u8>)]) -> bool {
    expected.len() == got.len()
        && expected.iter().zip(got).all(|(e, g)| e.0 == g.0 && same_frame(&e.1, &g.1, e.0 == side))
}

/// `made`: the frame goes back where the input came from, so the director or its host
/// made it, and chose identification and flow label.
pub fn same_frame(expected: &[u8], got: &[u8], made: bool) -> bool {
    let (Some(want), Some(have)) = (packet(expected), packet(got)) else { return expected == got };
    expected.get(..14) == got.get(..14) && masked(want, made, want) == masked(have, made, want)
}

/// The packet with its random fields taken from `model`, the recorded one.
fn masked(p: &[u8], made: bool, model: &[u8]) -> Vec<u8> {
    let mut out = p.to_vec();
    let (Some(ip), Some(like)) = (Ip::read(p), Ip::read(model)) else { return out };
    if p.len() != model.len() || ip.v6 != like.v6 || ip.l4 != like.l4 {
        return out;
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
    if made && ip.protocol == 1 && be16(model, 4) != Some(0) {
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

fn seconds(time: &str) -> Option<i64> {
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
