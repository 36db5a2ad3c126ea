//! What is seen on a link before netfilter and the host's sockets: whether a host answers at all, and whether frames come
//! whose checksum was left to a device. Frames that XDP takes are not seen.

use crate::error::Result;
use crate::links::Mac;
use crate::raw::{Frame, PacketSocket};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes of `struct virtio_net_hdr` before each frame.
const HEADER: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// How often who listens until he is told to stop looks whether he is.
const TURN: Duration = Duration::from_millis(20);

/// Whether a frame comes in by an interface within that time whose checksum is not filled in: on virtual links it stays so
/// until somebody does.
pub fn sees_unfinished(ifindex: u32, patience: Duration) -> Result<bool> {
    let socket = PacketSocket::with_headers(ifindex)?;
    any(&socket, patience, |frame| frame.bytes.first().is_some_and(|flags| flags & NEEDS_CHECKSUM != 0))
}

/// Whether a packet of that source to that destination comes in within that time.
pub fn hears(ifindex: u32, from: IpAddr, to: IpAddr, patience: Duration) -> Result<bool> {
    let socket = PacketSocket::with_headers(ifindex)?;
    any(&socket, patience, |frame| addresses(frame.bytes.get(HEADER..).unwrap_or_default()) == Some((from, to)))
}

/// Of packets to one of these addresses that come in by an interface until `stop` is set: who sent them, and what hardware
/// address their frames came from.
pub fn senders(ifindex: u32, v4: Ipv4Addr, v6: Ipv6Addr, stop: &AtomicBool) -> Result<BTreeSet<(IpAddr, Mac)>> {
    let socket = PacketSocket::listening(ifindex)?.only_to(v4, v6)?;
    let mut senders = BTreeSet::new();
    loop {
        // Asked first: what came before the end was called for is heard.
        let last = stop.load(Ordering::Acquire);
        // However many come, a turn is no longer.
        any(&socket, TURN, |frame| {
            // Frames that came in before the socket had its filter are among them.
            let meant = addresses(&frame.bytes).filter(|(_, to)| [IpAddr::from(v4), IpAddr::from(v6)].contains(to));
            let sender = |(from, _)| Some((from, Mac::try_from(frame.bytes.get(6..12)?).ok()?));
            senders.extend(meant.and_then(sender));
            false
        })?;
        if last {
            return Ok(senders);
        }
    }
}

fn any(socket: &PacketSocket, patience: Duration, mut is_it: impl FnMut(&Frame) -> bool) -> Result<bool> {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // No time at all would be for ever.
        if left.as_micros() == 0 {
            return Ok(false);
        }
        match socket.receive(left)? {
            Some(frame) if !frame.outgoing && is_it(&frame) => return Ok(true),
            Some(_) => {}
            None => return Ok(false),
        }
    }
}

/// Source and destination of an IP packet, from Ethernet on.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| -> Option<IpAddr> { Some(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?.into()) };
    let v6 = |at: usize| -> Option<IpAddr> { Some(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?.into()) };
    match frame.get(12..14)? {
        [0x08, 0x00] => v4(26).zip(v4(30)),
        [0x86, 0xdd] => v6(22).zip(v6(38)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_both_families() {
        let four: Vec<u8> = [&[0; 12][..], &[8, 0], &[0x45; 12], &[10, 0, 0, 2], &[10, 0, 0, 1]].concat();
        assert_eq!(addresses(&four), Some((IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 1]))));
        let six: Vec<u8> = [&[0; 12][..], &[0x86, 0xdd], &[0x60; 8], &[0xfd; 16], &[0xfe; 16]].concat();
        assert_eq!(addresses(&six), Some((IpAddr::from([0xfd; 16]), IpAddr::from([0xfe; 16]))));
        assert_eq!(addresses(&six[..40]), None);
    }
}
