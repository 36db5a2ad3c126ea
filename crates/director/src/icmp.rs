//! ICMP errors about a connection's packets, relayed to whom they concern
//! (ipvs-semantics §7, corrected by packet-rules §2.1).

use crate::conn::{self, Held};
use crate::direct::{Flow, MAX_L4, Stage, Work};
use crate::family::{Family, L3};
use crate::forward::{self, Rewrite, Way};
use crate::open::{self, addr_delta};
use crate::packet::{L4, Packet};
use crate::parse::{Fragment, Ip, ReadIp};
use crate::probe;
use crate::records::{Tuple, hop, kind, setting};
use crate::tables::Tables;
use crate::verdict::{Action, Decision, Reason, Verdict};
use dirigent_wire::{Be16, IcmpHeader, Ipv6Header, Ports, checksum, icmp, ip::proto};

/// Where the packet path meets the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// It came in by a link.
    Entering,
    /// This host sends it.
    Leaving,
}

/// Bytes made readable for an error: two IP headers with options or extension
/// headers, and the ports.
pub(crate) const QUOTE: u32 = 512;

/// An ICMP error with the connection it is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<F: Family> {
    /// Its IP header.
    pub ip: Ip<F::Addr>,
    /// Offset of the quoted IP header.
    pub quoted: usize,
    /// Offset of the quoted ports.
    pub ports: usize,
    /// The tuple of a packet that answers the quoted one.
    pub key: Tuple<F::Addr>,
    /// It is about none of TCP, UDP and SCTP: perhaps about a tunnel.
    pub other: bool,
}

/// Relates an ICMP message to a connection and relays it.
#[inline(always)]
pub fn relate<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>, at: Where) -> Decision<Verdict> {
    let unrelated = Verdict::pass(Reason::IcmpUnrelated);
    if w.flow.ip.fragment != Fragment::Whole {
        return Err(Verdict::pass(Reason::IcmpPiece));
    }
    read(p, t, w).ok_or(unrelated)?;
    if w.message.other && at == Where::Entering {
        return Err(Stage::TunnelError.verdict::<F>());
    }
    // What a tunnel spreads its flows by.
    w.flow.key = w.message.key;
    let message = &w.message;
    let conn = &match conn::held::<F, T>(t, &message.key) {
        Some(conn) if !conn.word.dead() => conn,
        _ if at == Where::Entering && probed::<F, T>(t, message) => return Err(probe::verdict::<F, P>()),
        _ if at == Where::Entering && tunnelled::<F, T>(t, message) => return Err(Stage::TunnelError.verdict::<F>()),
        _ if at == Where::Entering && schedules(t) => return Err(Stage::IcmpOpen.verdict::<F>()),
        _ => return Err(unrelated),
    };
    Ok(match (at, conn.is_reply()) {
        (Where::Entering, false) => to_server(p, t, &w.flow, message, conn),
        (Where::Entering, true) => to_client(p, t, message, conn),
        (Where::Leaving, true) => leaving(p, t, message, conn),
        (Where::Leaving, false) => Verdict::pass(Reason::IcmpUnrelated),
    })
}

/// Reads the message and what it quotes; `None` if it can concern no connection.
#[inline(always)]
fn read<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Option<()> {
    p.pull(QUOTE);
    let p = &*p;
    let ip = &w.flow.ip;
    let header = p.get::<IcmpHeader>(ip.l4)?;
    let error = if F::V6 {
        header.kind < icmp::v6::FIRST_INFORMATIONAL
    } else {
        matches!(header.kind, icmp::v4::UNREACHABLE | icmp::v4::SOURCE_QUENCH | icmp::v4::TIME_EXCEEDED)
    };
    if !error || ip.fragment != Fragment::Whole {
        return None;
    }
    let quoted = ip.l4 + 8;
    let inner = F::read(p, quoted, true)?;
    // An error goes to the source of what it quotes.
    if inner.fragment == Fragment::Later || ip.dst != inner.src {
        return None;
    }
    w.message = Message { ip: *ip, quoted, ..Message::default() };
    match inner.protocol {
        proto::TCP | proto::UDP | proto::SCTP => {}
        proto::IPIP | proto::IPV6 | proto::GRE => {
            w.message.other = true;
            return Some(());
        }
        _ => return None,
    }
    if inner.l4 + size_of::<Ports>() > L3 + ip.len as usize {
        return None;
    }
    let at = (t.forget(inner.l4 as u32) & MAX_L4) as usize;
    let ports = *p.get::<Ports>(at)?;
    w.message.ports = at;
    w.message.key = Tuple::new(inner.protocol, inner.dst, ports.dst, inner.src, ports.src);
    Some(())
}

/// Whether an error about UDP may be one about a tunnel of GUE: from this host to a port
/// that is no virtual service's client.
#[inline(always)]
fn tunnelled<F: Family, T: Tables>(t: &T, message: &Message<F>) -> bool {
    message.key.proto() == proto::UDP && open::service::<F, T>(t, &message.key).is_none()
}

/// Whether an error is about a probe.
#[inline(always)]
fn probed<F: Family, T: Tables>(t: &T, message: &Message<F>) -> bool {
    t.settings().is_some_and(|settings| probe::pinned::<F, T>(t, settings, &message.key))
}

/// An error about a probe's packet, which goes to the probe as it would to a client.
#[inline(always)]
pub fn to_probe<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Decision<Verdict> {
    let unrelated = Verdict::pass(Reason::IcmpUnrelated);
    read(p, t, w).ok_or(unrelated)?;
    let m = &w.message;
    let pin = F::pin(t, &m.key).ok_or(unrelated)?;
    if pin.is_reply() {
        if m.ip.ttl <= 1 {
            return Err(Verdict::drop(Reason::NoErrorAboutIcmp));
        }
        if !intact::<F, P>(p, &m.ip) {
            return Err(Verdict::drop(Reason::IcmpChecksum));
        }
        if !F::decrement_ttl(p) || !rewrite(p, m, &Rewrite::of(pin)) {
            return Err(Verdict::drop(Reason::RewriteFailed));
        }
    } else if pin.kind != kind::PROBE_ANSWER {
        return Err(unrelated);
    }
    Ok(probe::give(p, t, pin.extra.load()))
}

/// Whether errors of no known connection open one (schedule_icmp).
#[inline(always)]
fn schedules<T: Tables>(t: &T) -> bool {
    t.settings().is_some_and(|s| s.flags & setting::SCHEDULE_ICMP != 0)
}

/// Opens a connection (state NONE) for an error that has none, a stage of its own.
#[inline(always)]
pub fn open<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Decision<()> {
    let unrelated = Verdict::pass(Reason::IcmpUnrelated);
    read(p, t, w).ok_or(unrelated)?;
    let Work { message, conn, reply, client, .. } = w;
    let key = &message.key;
    if !F::local(t, &key.dst) {
        return Err(unrelated);
    }
    let service = open::find::<F, T>(t, key, 0).ok_or(unrelated)?;
    if open::denies::<F, T>(t, service, &key.src) {
        return Err(Verdict::drop(Reason::Denied));
    }
    let mut wish = open::Wish { obstructed: true, ..open::Wish::new(service, 0, p.ingress(), false, 0) };
    // No error is sent about an error.
    wish.server =
        open::server_for::<F, T>(t, key, service, false, client).ok_or(Verdict::drop(Reason::NoErrorAboutIcmp))?;
    open::connect::<F, T>(t, key, wish, (conn, reply))
}

/// Whether the message's checksum is right; IPVS asks before it translates.
#[inline(always)]
pub(crate) fn intact<F: Family, P: Packet>(p: &P, ip: &Ip<F::Addr>) -> bool {
    let len = ip.l4_len();
    let pseudo = F::icmp_pseudo_sum(&ip.src, &ip.dst, len);
    p.sum(ip.l4, len).is_some_and(|sum| checksum::add(sum, pseudo) == 0xffff)
}

/// Rewrites outer and quoted addresses and the quoted port. Request direction:
/// outer destination and quoted source; reply direction the other two.
#[inline(always)]
fn rewrite<F: Family, P: Packet>(p: &mut P, m: &Message<F>, new: &Rewrite<F::Addr>) -> bool {
    let (src, dst) = (F::SRC_AT, F::SRC_AT + size_of::<F::Addr>());
    let (outer, inner, old) = if new.source { (src, dst, m.ip.src) } else { (dst, src, m.ip.dst) };
    let outer_delta = addr_delta(&old, &new.addr);
    let Some(ports) = p.get_mut::<Ports>(m.ports) else { return false };
    if new.source {
        ports.dst = new.port;
    } else {
        ports.src = new.port;
    }
    if !F::write_addr(p, m.quoted, inner, new.addr, new.addr_delta)
        || !F::write_addr(p, L3, outer, new.addr, outer_delta)
    {
        return false;
    }
    // The quoted IPv4 header sums to the same as before, its own checksum
    // included; IPv6 has none, and its ICMP covers the pseudo header.
    let (outer_delta, inner_delta) =
        if F::V6 { (outer_delta, checksum::add(new.addr_delta, new.port_delta)) } else { (0, new.port_delta) };
    p.patch_l4(m.ip.l4 + CHECK, outer_delta, inner_delta, L4::Tcp, F::V6)
}

/// Offset of the checksum in an ICMP header.
const CHECK: usize = 2;

#[inline(always)]
fn to_server<F: Family, P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    flow: &Flow<F>,
    m: &Message<F>,
    conn: &Held<'_, F::Addr>,
) -> Verdict {
    let (server, new) = (conn.server, Rewrite::of(conn));
    if !conn.lasts() {
        return Verdict::drop(Reason::Raced);
    }
    let Some(next) = t.next_hop(server) else { return Verdict::drop(Reason::ServerRemoved) };
    let state = next.state.load();
    let long = m.ip.len > next.room() && hop::leads(state);
    if state == hop::REMOVED {
        return Verdict::drop(Reason::ServerRemoved);
    }
    if !P::LAST && (state == hop::NO_NEIGHBOUR || long) {
        return Verdict::of(Action::HandOver, Reason::HandedToTc);
    }
    if F::V6 && long && m.ip.ttl > 1 {
        return too_long(t, m, next.room());
    }
    if new.nat && !intact::<F, P>(p, &m.ip) {
        return Verdict::drop(Reason::IcmpChecksum);
    }
    t.count(server, false, m.ip.len);
    let dead_end = match state {
        hop::LOCAL => false,
        hop::RESOLVED | hop::NO_NEIGHBOUR => m.ip.ttl <= 1,
        _ => true,
    };
    if dead_end {
        return Verdict::drop(Reason::NoErrorAboutIcmp);
    }
    if new.nat && !rewrite(p, m, &new) {
        return Verdict::drop(Reason::RewriteFailed);
    }
    if state == hop::LOCAL {
        return Verdict::of(Action::Deliver, Reason::LocalServer);
    }
    if !F::decrement_ttl(p) {
        return Verdict::drop(Reason::RewriteFailed);
    }
    // An error is cut whether DF forbids it or not: nobody would hear of its loss.
    let cut = if long { next.path_mtu() } else { 0 };
    let way = Way { cut, ..Way::to(next, state, server) };
    forward::dispatch(p, t, flow, next, way, Reason::IcmpRequest)
}

/// An ICMPv6 error longer than its way: longer, too, than RFC 4443 §2.4 allows (c), but in
/// narrow tunnels. Routers do not cut IPv6, but what an error quotes may be shorter
/// (difference C13), if only the ports are left.
#[inline(always)]
fn too_long<F: Family, T: Tables>(t: &T, m: &Message<F>, room: u32) -> Verdict {
    let keep = room.min(F::ERROR_MAX);
    if keep >= m.ip.len || keep < (m.ports + size_of::<Ports>() - L3) as u32 {
        return Verdict::drop(Reason::NoErrorAboutIcmp);
    }
    t.stash(u64::from(keep));
    Stage::Shorten.verdict::<F>()
}

/// Cuts an ICMPv6 error to as many bytes of IP packet as [`too_long`] said.
#[inline(always)]
pub fn shorten<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Decision<()> {
    let failed = Verdict::drop(Reason::RewriteFailed);
    let ip = &w.flow.ip;
    let (keep, before) = (t.stashed() as u32 & 0xffff, (ip.l4 - L3) as u32);
    // With a new checksum a wrong message would be right.
    if !intact::<F, P>(p, ip) {
        return Err(Verdict::drop(Reason::IcmpChecksum));
    }
    if !F::V6 || keep <= before || keep > ip.len || !p.reshape(L3 as u32 + keep, 0) {
        return Err(failed);
    }
    p.get_mut::<Ipv6Header>(L3).ok_or(failed)?.payload_len = Be16::new((keep as u16).wrapping_sub(40));
    p.get_mut::<IcmpHeader>(ip.l4).ok_or(failed)?.check = Be16::new(0);
    let sum = p.sum(ip.l4, keep - before).ok_or(failed)?;
    let pseudo = F::icmp_pseudo_sum(&ip.src, &ip.dst, keep - before);
    p.get_mut::<IcmpHeader>(ip.l4).ok_or(failed)?.check = Be16::from_raw(!checksum::add(sum, pseudo));
    Ok(())
}

#[inline(always)]
fn to_client<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, m: &Message<F>, conn: &Held<'_, F::Addr>) -> Verdict {
    if m.ip.ttl <= 1 {
        return Verdict::drop(Reason::NoErrorAboutIcmp);
    }
    let (server, link, new) = (conn.server, conn.extra.load(), Rewrite::of(conn));
    if !conn.lasts() {
        return Verdict::drop(Reason::Raced);
    }
    let way = match forward::way_out::<F, P, T>(p, t, &new.addr, &m.ip.dst, m.ip.len, !F::V6, link) {
        Ok(way) => way,
        Err(v) if v.reason == Reason::ReplyTooBig && !P::LAST => {
            return Verdict::of(Action::HandOver, Reason::HandedToTc);
        }
        Err(v) if v.reason == Reason::ReplyTooBig => return too_long(t, m, F::ERROR_MAX),
        Err(verdict) => return verdict,
    };
    if !intact::<F, P>(p, &m.ip) {
        return Verdict::drop(Reason::IcmpChecksum);
    }
    t.count(server, true, m.ip.len);
    if !F::decrement_ttl(p) || !rewrite(p, m, &new) {
        return Verdict::drop(Reason::RewriteFailed);
    }
    way.send::<F, P, T>(p, t, Reason::IcmpReply)
}

/// An error of this host's own stack about a request to its local server.
#[inline(always)]
fn leaving<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, m: &Message<F>, conn: &Held<'_, F::Addr>) -> Verdict {
    let (server, new) = (conn.server, Rewrite::of(conn));
    if !conn.lasts() {
        return Verdict::pass(Reason::IcmpUnrelated);
    }
    t.count(server, true, m.ip.len);
    if rewrite(p, m, &new) {
        Verdict::of(Action::Deliver, Reason::LocalReply)
    } else {
        Verdict::drop(Reason::RewriteFailed)
    }
}
