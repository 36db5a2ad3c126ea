//! Fragments (RFC 791 §3.2, RFC 8200 §4.5): only the first piece of a datagram has ports.
//! They are remembered for the later ones, which follow it; each piece is translated or
//! put into a tunnel by itself. Nothing is held back: a piece that comes before its first
//! is dropped (difference C18), and its sender sends the datagram again.

use crate::conn::age;
use crate::family::Family;
use crate::parse::{Ip, Transport};
use crate::records::{Datagram, Piece, Place};
use crate::tables::Tables;
use crate::verdict::{Decision, Reason, Verdict};
use dirigent_wire::Be16;

/// Seconds a datagram's later pieces may take (Linux reassembles for 30).
const LIFE_S: u32 = 30;

/// Notes the ports of a datagram's first piece.
#[inline(always)]
pub fn remember<F: Family, T: Tables>(t: &mut T, ip: &Ip<F::Addr>, l4: &Transport) {
    let datagram = Datagram { ports: [l4.sport, l4.dport], seen: t.now() };
    F::remember(t, &Piece::new(ip.protocol, ip.src, ip.dst, ip.ident), &datagram);
}

/// The ports of a later piece, or what becomes of it without.
#[inline(always)]
pub fn ports<F: Family, T: Tables>(t: &T, ip: &Ip<F::Addr>) -> Decision<(Be16, Be16)> {
    let now = t.now();
    let hz = match t.settings() {
        Some(settings) => settings.hz,
        None => return Err(Verdict::pass(Reason::NotConfigured)),
    };
    if let Some(first) = F::datagram(t, &Piece::new(ip.protocol, ip.src, ip.dst, ip.ident))
        && age(now, first.seen) < LIFE_S.saturating_mul(hz)
    {
        let [sport, dport] = first.ports;
        return Ok((sport, dport));
    }
    let ours = F::service(t, &Place::whole(ip.dst)).is_some() || F::known(t, &Place::whole(ip.src)).is_some();
    Err(if ours { Verdict::drop(Reason::FragNoFirst) } else { Verdict::pass(Reason::LaterFragment) })
}
