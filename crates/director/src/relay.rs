//! ICMP errors about our own tunnels (ipvs-semantics §7.4, packet-rules §2.1): from a
//! router between the director and a server, or from the server. What they tell about the
//! way is learned; the client whose packet was inside is told in its own terms.

use crate::direct::{MAX_L4, Work};
use crate::errors;
use crate::family::{Address, Family, L3, V4, V6};
use crate::forward::{self, Way};
use crate::icmp::{QUOTE, intact};
use crate::packet::Packet;
use crate::parse::{Fragment, Ip, ReadIp};
use crate::probe;
use crate::records::{Tuple, kind, tunnel};
use crate::tables::Tables;
use crate::tunnel::Learned;
use crate::verdict::{Action, Decision, Reason, Verdict};
use dirigent_wire::{
    Be16, EthHeader, GreChecksum, GreHeader, GueHeader, IcmpHeader, Ports, UdpHeader, eth, icmp, ip::proto,
};

/// The error as it came.
#[derive(Clone, Copy)]
struct Told<A> {
    /// Its IP header.
    ip: Ip<A>,
    /// Type and code.
    kind: (u8, u8),
    /// The word behind them.
    rest: u32,
    /// Where the quoted tunnel ends.
    peer: A,
    /// One of [`tunnel`]'s kinds.
    tunnel: u8,
    /// Offset of the inner packet's header.
    at: usize,
}

/// What a quoted packet of a tunnel holds: the tunnel's kind (NONE: it is none of ours),
/// whether the inner packet is IPv6, and where it begins.
#[inline(always)]
pub(crate) fn inside<P: Packet, A>(p: &P, quoted: &Ip<A>, l4: usize) -> (u8, bool, usize) {
    let none = (tunnel::NONE, false, 0);
    match quoted.protocol {
        proto::IPIP => (tunnel::IPIP, false, l4),
        proto::IPV6 => (tunnel::IPIP, true, l4),
        proto::GRE => {
            let Some(gre) = p.get::<GreHeader>(l4) else { return none };
            let flags = gre.flags.get();
            let options = if flags & GreHeader::CHECKSUM != 0 { size_of::<GreChecksum>() } else { 0 };
            let at = l4 + size_of::<GreHeader>() + options;
            match gre.protocol.get() {
                _ if flags & !GreHeader::CHECKSUM != 0 => none,
                eth::IPV4 => (tunnel::GRE, false, at),
                eth::IPV6 => (tunnel::GRE, true, at),
                _ => none,
            }
        }
        proto::UDP => {
            let at = l4 + size_of::<UdpHeader>();
            let Some(gue) = p.get::<GueHeader>(at) else { return none };
            match gue.protocol {
                _ if gue.version_len != 0 => none,
                proto::IPIP => (tunnel::GUE, false, at + size_of::<GueHeader>()),
                proto::IPV6 => (tunnel::GUE, true, at + size_of::<GueHeader>()),
                _ => none,
            }
        }
        _ => none,
    }
}

/// Relates an error that is about no connection's own packet to a tunnel.
#[inline(always)]
pub fn relay<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Decision<Verdict> {
    let unrelated = Verdict::pass(Reason::IcmpUnrelated);
    p.pull(QUOTE);
    let ip = w.flow.ip;
    let header = *p.get::<IcmpHeader>(ip.l4).ok_or(unrelated)?;
    let quoted = F::read(p, ip.l4 + size_of::<IcmpHeader>(), true).ok_or(unrelated)?;
    if quoted.src != ip.dst || quoted.fragment == Fragment::Later {
        return Err(unrelated);
    }
    let l4 = (t.forget(quoted.l4 as u32) & MAX_L4) as usize;
    let (tunnel, v6, at) = inside(p, &quoted, l4);
    if tunnel == tunnel::NONE {
        return Err(unrelated);
    }
    let at = (t.forget(at as u32) & MAX_L4) as usize;
    let told = Told { ip, kind: (header.kind, header.code), rest: header.rest.get(), peer: quoted.dst, tunnel, at };
    if v6 { tell::<F, V6, P, T>(p, t, &told) } else { tell::<F, V4, P, T>(p, t, &told) }
}

/// Tells the client, whose packet is of family `G`.
#[inline(always)]
fn tell<F: Family, G: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &T, told: &Told<F::Addr>) -> Decision<Verdict> {
    let unrelated = Verdict::pass(Reason::IcmpUnrelated);
    let inner = G::read(p, told.at, true).ok_or(unrelated)?;
    let l4 = (t.forget(inner.l4 as u32) & MAX_L4) as usize;
    let end = L3 + told.ip.len as usize;
    if l4 + size_of::<Ports>() > end || inner.fragment == Fragment::Later {
        return Err(unrelated);
    }
    let ports = *p.get::<Ports>(l4).ok_or(unrelated)?;
    let key = Tuple::new(inner.protocol, inner.src, ports.src, inner.dst, ports.dst);
    // A health check along the clients' path is no connection, and hears of it as one.
    let mut probes = 0;
    let conn = match G::conn(t, &key) {
        Some(conn) => conn,
        None => {
            probes = G::pin(t, &key.reversed()).ok_or(unrelated)?.extra.load();
            if !P::LAST {
                return Err(Verdict::of(Action::HandOver, Reason::HandedToTc));
            }
            G::pin(t, &key).ok_or(unrelated)?
        }
    };
    let next = t.next_hop(conn.server).ok_or(unrelated)?;
    // Whoever cannot name the client's connection and its server has no say.
    let of_ours = conn.kind == kind::TUN_REQUEST
        && !conn.word().dead()
        && next.tunnel == told.tunnel
        && (next.flags & tunnel::PEER_V6 != 0) == F::V6
        && F::Addr::from_words(&next.peer) == told.peer;
    if !of_ours {
        return Err(unrelated);
    }
    if !intact::<F, P>(p, &told.ip) {
        return Err(Verdict::drop(Reason::IcmpChecksum));
    }
    let (mut what, mut rest) = (same_error::<F, G>(told.kind), 0);
    if told.kind == F::ERRORS.too_big {
        let mtu = if F::V6 { told.rest } else { told.rest & 0xffff };
        if !Learned::note(next, mtu, t.now()) || (!G::V6 && inner.may_cut) {
            return Err(Verdict::drop(Reason::TunnelTold));
        }
        (what, rest) = (G::ERRORS.too_big, next.room());
    }
    let quote = (end as u32).wrapping_sub(told.at as u32).min(G::ERROR_MAX - G::HEADER as u32 - 8);
    let mut way = Way::by(probes);
    if probes == 0 {
        way = forward::way_out::<G, P, T>(p, t, &key.dst, &key.src, quote, false, p.ingress())?;
        t.count(conn.server, true, told.ip.len);
    }
    let before = L3 + G::HEADER + size_of::<IcmpHeader>();
    let surplus = told.at.wrapping_sub(before) as u32;
    if (surplus != 0 && !p.shed(surplus & MAX_L4, F::V6, G::V6)) || !p.reshape(before as u32 + quote, 0) {
        return Err(Verdict::drop(Reason::RewriteFailed));
    }
    let Some(ethernet) = p.get_mut::<EthHeader>(0) else { return Err(Verdict::drop(Reason::RewriteFailed)) };
    ethernet.ethertype = Be16::new(if G::V6 { eth::IPV6 } else { eth::IPV4 });
    let ident = (t.random() as u16) | 1;
    match errors::write::<G, P>(p, (key.dst, key.src), (what, rest), (inner.tos, ident), quote) {
        Some(()) if probes != 0 => Ok(probe::give(p, t, probes)),
        Some(()) => Ok(way.send::<G, P, T>(p, t, Reason::TunnelError)),
        None => Err(Verdict::drop(Reason::ErrorUnsent)),
    }
}

/// The error in the inner packet's family: the same, where families are.
#[inline(always)]
fn same_error<F: Family, G: Family>(kind: (u8, u8)) -> (u8, u8) {
    let expired = if F::V6 { icmp::v6::TIME_EXCEEDED } else { icmp::v4::TIME_EXCEEDED };
    match kind {
        same if F::V6 == G::V6 => same,
        (kind, _) if kind == expired => G::ERRORS.time_exceeded,
        _ => G::ERRORS.host_unreachable,
    }
}
