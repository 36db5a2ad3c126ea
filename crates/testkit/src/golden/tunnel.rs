//! Tunnelled packets and pieces of datagrams, taken apart for comparison.

use crate::decode::{Ip, be16, be32, packet};
use crate::packet::{checksum, pseudo};

/// Ports that GUE packets may come from (packet-rules §4.7).
const PORTS: std::ops::RangeInclusive<u16> = 32768..=60999;

/// Whether a packet got an outer header on its way: it is inside, or, of a later piece,
/// both ends are others.
pub fn added(input: &[u8], output: &[u8]) -> bool {
    let (Some(came), Some(outer)) = (packet(input).and_then(Ip::read), packet(output).and_then(Ip::read)) else {
        return false;
    };
    if outer.fragment.is_some_and(|(_, offset, _)| offset > 0) {
        return came.src != outer.src && came.dst != outer.dst && came.src != outer.dst;
    }
    let inside = packet(output).and_then(inner).and_then(Ip::read);
    inside.is_some_and(|inside| (inside.src, inside.dst) == (came.src, came.dst))
}

/// Whether the input is an ICMP error about a tunnel.
pub fn about_a_tunnel(input: &[u8]) -> bool {
    quoted(input).is_some_and(|(p, ip)| match ip.protocol {
        4 | 41 | 47 => true,
        17 => be16(p, ip.l4 + 2) == Some(6080),
        _ => false,
    })
}

/// What an ICMP error quotes.
pub fn quoted(input: &[u8]) -> Option<(&[u8], Ip)> {
    let p = packet(input)?;
    let ip = Ip::read(p)?;
    let kind = *p.get(ip.l4)?;
    let error = match ip.protocol {
        1 => matches!(kind, 3 | 4 | 11),
        58 => kind < 128,
        _ => false,
    };
    let quote = p.get(ip.l4 + 8..).filter(|_| error)?;
    Some((quote, Ip::read(quote)?))
}

/// The MTU that an ICMP error tells.
pub fn told_mtu(input: &[u8]) -> Option<u32> {
    let p = packet(input)?;
    let ip = Ip::read(p)?;
    let kind = (*p.get(ip.l4)?, *p.get(ip.l4 + 1)?);
    match (ip.protocol, kind) {
        (1, (3, 4)) => be16(p, ip.l4 + 6).map(u32::from),
        (58, (2, 0)) => be32(p, ip.l4 + 4),
        _ => None,
    }
}

/// Takes the UDP source port of the recorded packet where this one's is a fit one, with
/// the checksum, where that is right.
pub fn mask_source_port(out: &mut [u8], ip: &Ip, model: &[u8]) {
    let at = ip.l4;
    let (Some(port), Some(model_port)) = (be16(out, at), model.get(at..at + 2)) else { return };
    if !PORTS.contains(&port) {
        return;
    }
    let right = |p: &[u8]| {
        let whole = ip.fragment.is_none();
        let l4 = p.get(at..).unwrap_or_default();
        !whole || checksum(&[&pseudo(ip.src, ip.dst, 17, l4.len()), l4]) == 0
    };
    let summed = be16(out, at + 6) != Some(0) && be16(model, at + 6) != Some(0);
    if summed && right(out) && right(model) {
        out[at + 6..at + 8].copy_from_slice(&model[at + 6..at + 8]);
    }
    out[at..at + 2].copy_from_slice(model_port);
}

/// The packet inside a whole tunnelled one.
pub fn inner(p: &[u8]) -> Option<&[u8]> {
    let ip = Ip::read(p)?;
    let at = match ip.protocol {
        4 | 41 => ip.l4,
        47 => ip.l4 + if be16(p, ip.l4)? & 0x8000 != 0 { 8 } else { 4 },
        17 => ip.l4 + 12,
        _ => return None,
    };
    p.get(at..)
}

/// The datagram that these packets are pieces of: protocol, ends, and payload; or that of
/// one whole packet.
pub fn whole(pieces: &[&[u8]]) -> Option<(u8, (std::net::IpAddr, std::net::IpAddr), Vec<u8>)> {
    let mut parts = Vec::new();
    let mut head = None;
    for p in pieces {
        let ip = Ip::read(p)?;
        let (_, offset, _) = ip.fragment.unwrap_or((0, 0, false));
        if offset == 0 {
            head = Some((ip.protocol, (ip.src, ip.dst)));
        }
        parts.push((offset, p.get(ip.l4..ip.len.min(p.len()))?.to_vec()));
    }
    parts.sort();
    let mut payload = Vec::new();
    for (offset, part) in parts {
        if offset != payload.len() {
            return None;
        }
        payload.extend(part);
    }
    let (protocol, ends) = head?;
    Some((protocol, ends, payload))
}

/// Whether what a piece carries is what its datagram has at that place.
pub fn is_part(piece: &[u8], payload: &[u8]) -> bool {
    let Some(ip) = Ip::read(piece) else { return false };
    let at = ip.fragment.map_or(0, |(_, at, _)| at);
    let data = piece.get(ip.l4..ip.len.min(piece.len())).unwrap_or_default();
    payload.get(at..at + data.len()) == Some(data)
}

/// A reassembled packet with a plain header, to be read on.
pub fn put_together(pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let first = pieces.iter().find(|p| Ip::read(p).is_some_and(|ip| ip.fragment.is_none_or(|(_, at, _)| at == 0)))?;
    let ip = Ip::read(first)?;
    let (protocol, _, payload) = whole(pieces)?;
    if ip.v6 {
        let mut out = first.get(..40)?.to_vec();
        out[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        out[6] = protocol;
        out.extend(payload);
        return Some(out);
    }
    let mut out = first.get(..ip.l4)?.to_vec();
    out[2..4].copy_from_slice(&((ip.l4 + payload.len()) as u16).to_be_bytes());
    out[6..8].fill(0);
    out.extend(payload);
    Some(out)
}
