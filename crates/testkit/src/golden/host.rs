//! The host's stack beside the director, as far as recordings show it (packet-rules
//! §2.2 and §4.5): what it makes of a packet that the director leaves to it.

use std::net::{IpAddr, Ipv6Addr};

use dirigent_wire::Mac;

use super::bed::{Bed, Side};
use super::executor::Does;
use crate::decode::{Ip, be16, be32, packet as packet_of};
use crate::packet::{IpOptions, checksum, error, eth, icmp, proto, pseudo};

/// Frames that come out.
pub type Frames = Vec<(Side, Vec<u8>)>;

/// What comes out in the end of what the director does with a frame from this side.
pub fn outcome(bed: &Bed, side: Side, does: &Does) -> Frames {
    match does.clone() {
        Does::ToHost(frame) => host(bed, side, &frame),
        Does::Drop => Vec::new(),
        Does::Out(side, frame) => vec![(side, frame)],
        Does::Resolve(side, frame, via) => vec![(side, resolve(bed, side, frame, via))],
        Does::Pieces(pieces) => pieces.iter().flat_map(|piece| outcome(bed, side, piece)).collect(),
    }
}

/// What the host does with a frame from this side.
pub fn host(bed: &Bed, side: Side, frame: &[u8]) -> Frames {
    let Some(packet) = packet_of(frame) else { return Vec::new() };
    let Some(ip) = Ip::read(packet) else { return Vec::new() };
    if frame.get(..6) != Some(&side.mac()[..]) || !sound(packet, &ip) || martian(bed, &ip) {
        return Vec::new();
    }
    if !bed.is_local(ip.dst) {
        return forward(bed, side, packet, &ip);
    }
    let answer = if ip.fragment.is_some() { None } else { deliver(packet, &ip) };
    answer.map(|answer| (side, back(side, frame, &answer))).into_iter().collect()
}

/// To where the frame came from.
fn back(side: Side, frame: &[u8], packet: &[u8]) -> Vec<u8> {
    let to = frame.get(6..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    eth(to, side.mac(), packet)
}

fn sound(p: &[u8], ip: &Ip) -> bool {
    if ip.len > p.len() || ip.len < ip.l4.min(40) {
        return false;
    }
    // Loose and strict source routes are refused (accept_source_route).
    ip.v6 || (ip.l4 >= 20 && p.get(..ip.l4).is_some_and(|h| checksum(&[h]) == 0) && !ip.has_option(p, &[131, 137]))
}

fn martian(bed: &Bed, ip: &Ip) -> bool {
    match ip.src {
        IpAddr::V4(a) => {
            let first = a.octets()[0];
            first == 127 || a.is_unspecified() || a.is_multicast() || a.is_broadcast() || bed.locals.contains(&ip.src)
        }
        IpAddr::V6(a) => a.is_multicast() || a.is_loopback(),
    }
}

/// The host's answer to a packet for it that no socket wants.
fn deliver(p: &[u8], ip: &Ip) -> Option<Vec<u8>> {
    let l4 = p.get(ip.l4..)?;
    let good = |pseudo: &[u8]| checksum(&[pseudo, l4]) == 0;
    let with_pseudo = pseudo(ip.src, ip.dst, ip.protocol, l4.len());
    match ip.protocol {
        proto::TCP if l4.len() >= 20 && good(&with_pseudo) => reset(l4, ip),
        proto::UDP if l4.len() >= 8 && (good(&with_pseudo) || (!ip.v6 && be16(l4, 6) == Some(0))) => {
            let unreachable = if ip.v6 { (1, 4) } else { (3, 3) };
            Some(about(ip.dst, p, ip, unreachable, 0))
        }
        proto::TCP | proto::UDP => None,
        proto::ICMP if !ip.v6 && good(&[]) && l4.first() == Some(&8) => {
            let answer = icmp(0, 0, be32(l4, 4)?, l4.get(8..)?, None);
            Some(crate::packet::ip(ip.dst, ip.src, proto::ICMP, &answer, &plain(ip.tos)))
        }
        proto::ICMPV6 if ip.v6 && good(&with_pseudo) && l4.first() == Some(&128) => {
            let answer = icmp(129, 0, be32(l4, 4)?, l4.get(8..)?, addresses6(ip.dst, ip.src));
            Some(crate::packet::ip(ip.dst, ip.src, proto::ICMPV6, &answer, &plain(ip.tos)))
        }
        proto::ICMP | proto::ICMPV6 => None,
        _ if ip.v6 => Some(about(ip.dst, p, ip, (4, 1), ip.next_at as u32)),
        _ => Some(about(ip.dst, p, ip, (3, 2), 0)),
    }
}

fn plain(tos: u8) -> IpOptions {
    IpOptions { fragment: 0, tos, ..IpOptions::default() }
}

fn addresses6(src: IpAddr, dst: IpAddr) -> Option<(Ipv6Addr, Ipv6Addr)> {
    match (src, dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some((src, dst)),
        _ => None,
    }
}

/// The reset of a segment for a closed port.
fn reset(l4: &[u8], ip: &Ip) -> Option<Vec<u8>> {
    let flags = l4[13];
    if flags & 4 != 0 {
        return None;
    }
    let (sport, dport, seq, ack) = (be16(l4, 0)?, be16(l4, 2)?, be32(l4, 4)?, be32(l4, 8)?);
    let data = l4.len().checked_sub(usize::from(l4[12] >> 4) * 4)?;
    let taken = data as u32 + u32::from(flags & 2 != 0) + u32::from(flags & 1 != 0);
    let (seq, ack, flags) = if flags & 16 != 0 { (ack, 0, 4) } else { (0, seq.wrapping_add(taken), 4 | 16) };
    let mut out = Vec::new();
    out.extend(dport.to_be_bytes());
    out.extend(sport.to_be_bytes());
    out.extend(seq.to_be_bytes());
    out.extend(ack.to_be_bytes());
    out.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let check = checksum(&[&pseudo(ip.dst, ip.src, proto::TCP, out.len()), &out]);
    out[16..18].copy_from_slice(&check.to_be_bytes());
    let with = IpOptions { ident: 0, tos: ip.tos & !3, ..IpOptions::default() };
    Some(crate::packet::ip(ip.dst, ip.src, proto::TCP, &out, &with))
}

/// An error about a packet.
fn about(from: IpAddr, p: &[u8], of: &Ip, kind: (u8, u8), rest: u32) -> Vec<u8> {
    let quote = if of.v6 { 1280 - 48 } else { 576 - 28 };
    let mut out = error(from, of.src, kind, rest, p, quote);
    if !of.v6 {
        out[1] = (of.tos & 0x1e) | 0xc0;
        renew_header(&mut out);
    }
    out
}

fn renew_header(p: &mut [u8]) {
    let header = usize::from(p[0] & 15) * 4;
    p[10..12].fill(0);
    let check = checksum(&[&p[..header]]);
    p[10..12].copy_from_slice(&check.to_be_bytes());
}

/// Forwarding: also of requests that the director rewrote and left to be cut.
fn forward(bed: &Bed, side: Side, p: &[u8], ip: &Ip) -> Frames {
    let quiet = matches!(ip.protocol, proto::ICMP | proto::ICMPV6)
        && p.get(ip.l4).is_some_and(|kind| !informational(ip, *kind));
    let tell = |kind, rest| -> Frames {
        if quiet {
            return Vec::new();
        }
        let from = side.addresses()[usize::from(ip.v6)];
        let Some(target) = bed.routes.find(ip.src) else { return Vec::new() };
        let to = target.dst.unwrap_or_default().bytes();
        vec![(side, eth(to, side.mac(), &about(from, p, ip, kind, rest)))]
    };
    if ip.ttl <= 1 {
        return tell(if ip.v6 { (3, 0) } else { (11, 0) }, 0);
    }
    let Some(target) = bed.routes.find(ip.dst) else { return tell(if ip.v6 { (1, 0) } else { (3, 0) }, 0) };
    let (Some(out), Some(to)) = (bed.side(target.ifindex), target.dst.map(Mac::bytes)) else { return Vec::new() };
    let keep = ip.v6 || be16(p, 6).is_some_and(|place| place & 0x4000 != 0);
    // ICMP errors over IPv4 are cut whatever they say.
    if p.len() > target.mtu as usize && keep && (!quiet || ip.v6) {
        return tell(if ip.v6 { (2, 0) } else { (3, 4) }, target.mtu);
    }
    let mut p = p.to_vec();
    if ip.v6 {
        p[7] -= 1;
    } else {
        p[8] -= 1;
        renew_header(&mut p);
    }
    let pieces = if p.len() > target.mtu as usize { cut(&p, target.mtu as usize) } else { vec![p] };
    pieces.iter().map(|piece| (out, eth(to, out.mac(), piece))).collect()
}

fn informational(ip: &Ip, kind: u8) -> bool {
    if ip.v6 { kind >= 128 } else { !matches!(kind, 3 | 4 | 5 | 11 | 12) }
}

/// Cuts an IPv4 packet (RFC 791 §2.3): options without the copy bit only in the first piece.
fn cut(p: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let header = usize::from(p[0] & 15) * 4;
    let room = (mtu - header) & !7;
    let (place, data) = (be16(p, 6).unwrap_or(0), &p[header..]);
    let mut pieces = Vec::new();
    for (i, part) in data.chunks(room).enumerate() {
        let more = (i + 1) * room < data.len() || place & 0x2000 != 0;
        let mut piece = [&p[..header], part].concat();
        let at = (place & 0x1fff) + (i * room / 8) as u16;
        let total = (header + part.len()) as u16;
        piece[2..4].copy_from_slice(&total.to_be_bytes());
        piece[6..8].copy_from_slice(&(at | if more { 0x2000 } else { 0 }).to_be_bytes());
        if i > 0 {
            blank_options(&mut piece[20..header]);
        }
        renew_header(&mut piece);
        pieces.push(piece);
    }
    pieces
}

fn blank_options(mut left: &mut [u8]) {
    while let Some(kind) = left.first().copied() {
        let len = match (kind, left.get(1)) {
            (0, _) => return,
            (1, _) => 1,
            (_, Some(len)) if *len >= 2 => usize::from(*len).min(left.len()),
            _ => return,
        };
        let (option, rest) = left.split_at_mut(len);
        if kind & 0x80 == 0 {
            option.fill(1);
        }
        left = rest;
    }
}

/// Finishes a frame that the kernel finds the neighbour of: of `via`, or of the packet's
/// own destination.
pub fn resolve(bed: &Bed, side: Side, mut frame: Vec<u8>, via: Option<IpAddr>) -> Vec<u8> {
    let to = via.or_else(|| packet_of(&frame).and_then(Ip::read).map(|ip| ip.dst));
    let to = to.and_then(|to| bed.routes.find(to)).and_then(|t| t.dst);
    frame[..6].copy_from_slice(&to.unwrap_or_default().bytes());
    frame[6..12].copy_from_slice(&side.mac());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole() {
        let with = IpOptions { fragment: 0, options: vec![7, 3, 4, 0], ..IpOptions::default() };
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let whole = crate::packet::ip(a, b, 17, &[7; 3000], &with);
        let pieces = cut(&whole, 1400);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[0].len(), 24 + 1376);
        let data: usize = pieces.iter().map(|p| p.len() - 24).sum();
        assert_eq!(data, 3000);
        assert_eq!((&pieces[0][20..24], &pieces[1][20..24]), (&[7, 3, 4, 0][..], &[1, 1, 1, 0][..]));
        assert!(pieces.iter().all(|p| checksum(&[&p[..24]]) == 0));
    }
}
