//! The packet path from its first byte to its verdict. Read this file first.

use crate::conn;
use crate::family::{Family, L3, V4, V6};
use crate::forward;
use crate::icmp;
use crate::open;
use crate::packet::Packet;
use crate::parse::{self, Fragment, Ip, Payload, ReadIp, ReadTransport, Transport};
use crate::records::{Conn, Tuple};
use crate::tables::Tables;
use crate::tcp;
use crate::verdict::{Decision, Reason, Verdict};
use dirigent_wire::{TcpHeader, ip::proto};

/// A TCP or UDP packet, read: what forwarding needs of it.
#[derive(Clone, Copy, Debug)]
pub struct Flow<F: Family> {
    /// The IP header.
    pub ip: Ip<F::Addr>,
    /// The transport header.
    pub l4: Transport,
    /// The packet's own tuple: key of its connection entry.
    pub key: Tuple<F::Addr>,
}

/// Decides about a frame that came in, and rewrites it.
#[inline(always)]
pub fn direct<P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Verdict {
    match enter(p, t) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// Ethernet: frames for this interface's MAC that hold IP.
#[inline(always)]
fn enter<P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Decision<Verdict> {
    let link = t.link(p.ingress()).ok_or(Verdict::pass(Reason::UnusedLink))?;
    match parse::ethernet(p, link.mac)? {
        Payload::Ipv4 => packet::<V4, P, T>(p, t),
        Payload::Ipv6 => packet::<V6, P, T>(p, t),
    }
}

/// IP: a known connection's packet is forwarded; another may open one first.
#[inline(always)]
fn packet<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Decision<Verdict> {
    let ip = F::read(p, L3, false).ok_or(Verdict::pass(Reason::Malformed))?;
    let flow = match ip.protocol {
        proto::TCP | proto::UDP => flow::<F, P, T>(p, t, &ip)?,
        other if other == F::ICMP => return icmp::relate::<F, P, T>(p, t, &ip, icmp::Where::Entering),
        _ => return Err(Verdict::pass(Reason::OtherProtocol)),
    };
    if !known::<F, T>(t, &flow) {
        open::open::<F, P, T>(p, t, &flow)?;
    }
    match F::conn(t, &flow.key) {
        Some(conn) if conn.is_reply() => Ok(forward::reply(p, t, &flow, conn)),
        Some(conn) => Ok(forward::request(p, t, &flow, conn)),
        None => Err(Verdict::drop(Reason::Raced)),
    }
}

/// TCP and UDP: the ports, and what to do with packets that lack them.
#[inline(always)]
fn flow<F: Family, P: Packet, T: Tables>(p: &P, t: &T, ip: &Ip<F::Addr>) -> Decision<Flow<F>> {
    let key = |ports: dirigent_wire::Ports| Tuple::new(ip.protocol, ip.src, ports.src, ip.dst, ports.dst);
    let ports = match (ip.fragment, parse::transport(p, ip)) {
        (Fragment::Whole, ReadTransport::Full(l4)) => {
            return Ok(Flow { ip: *ip, key: Tuple::new(ip.protocol, ip.src, l4.sport, ip.dst, l4.dport), l4 });
        }
        (Fragment::Later, _) => return Err(Verdict::pass(Reason::LaterFragment)),
        (Fragment::Whole, ReadTransport::Nothing) => return Err(Verdict::drop(Reason::ShortTransport)),
        (_, ReadTransport::Full(l4)) => Some(dirigent_wire::Ports { src: l4.sport, dst: l4.dport }),
        (_, ReadTransport::PortsOnly(ports)) => Some(ports),
        (Fragment::First, ReadTransport::Nothing) => None,
    };
    let lost = if ip.fragment == Fragment::First { Reason::Fragment } else { Reason::ShortTransport };
    let ours = match ports {
        Some(ports) => F::conn(t, &key(ports)).is_some() || open::service::<F, T>(t, &key(ports)).is_some(),
        None => true,
    };
    Err(if ours { Verdict::drop(lost) } else { Verdict::pass(Reason::NoService) })
}

/// Whether the packet belongs to a live connection. One past its timeout is
/// expired first, and a SYN of a closed one makes room for a new one in the
/// same packet (IPVS's conn_reuse_mode 1, without its dropped SYN).
#[inline(always)]
fn known<F: Family, T: Tables>(t: &mut T, flow: &Flow<F>) -> bool {
    let now = t.now();
    let Some(settings) = t.settings() else { return false };
    let Some(conn) = F::conn(t, &flow.key) else { return false };
    let proto = flow.key.proto();
    let reopens = proto == proto::TCP && flow.l4.flags & TcpHeader::SYN != 0 && closed(conn);
    if !reopens && !conn::looks_idle(settings, proto, conn, now) {
        return true;
    }
    conn::expire::<F, T>(t, &flow.key, reopens) == conn::Expiry::Alive
}

#[inline(always)]
fn closed<A>(conn: &Conn<A>) -> bool {
    let state = conn.word().state();
    !conn.is_reply() && (state == tcp::State::TimeWait as u8 || state == tcp::State::Close as u8)
}

/// Decides about a packet that this host itself sends (tc egress): answers of a
/// real server on this host become answers of the virtual service.
#[inline(always)]
pub fn leave<P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Verdict {
    p.pull(parse::HEADERS);
    let ethertype = match p.get::<dirigent_wire::EthHeader>(0) {
        Some(eth) => eth.ethertype.get(),
        None => return Verdict::pass(Reason::OtherEthertype),
    };
    let out = match ethertype {
        dirigent_wire::eth::IPV4 => leave_ip::<V4, P, T>(p, t),
        dirigent_wire::eth::IPV6 => leave_ip::<V6, P, T>(p, t),
        _ => Err(Verdict::pass(Reason::OtherEthertype)),
    };
    match out {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn leave_ip<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Decision<Verdict> {
    let ip = F::read(p, L3, false).ok_or(Verdict::pass(Reason::Malformed))?;
    if ip.protocol == F::ICMP {
        return icmp::relate::<F, P, T>(p, t, &ip, icmp::Where::Leaving);
    }
    let ReadTransport::Full(l4) = parse::transport(p, &ip) else {
        return Err(Verdict::pass(Reason::OtherProtocol));
    };
    let flow: Flow<F> = Flow { ip, l4, key: Tuple::new(ip.protocol, ip.src, l4.sport, ip.dst, l4.dport) };
    match F::conn(t, &flow.key) {
        Some(conn) if conn.is_reply() => Ok(forward::local_reply(p, t, &flow, conn)),
        _ => Err(Verdict::pass(Reason::NoService)),
    }
}
