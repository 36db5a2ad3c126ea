//! The packet path from its first byte to its verdict. Read this file first.

use crate::conn;
use crate::family::{Family, L3, V4, V6};
use crate::forward;
use crate::icmp;
use crate::open;
use crate::packet::Packet;
use crate::parse::{self, Fragment, Ip, Payload, ReadIp, ReadTransport, Transport};
use crate::records::{Conn, Settings, Tuple, setting};
use crate::tables::Tables;
use crate::tcp;
use crate::verdict::{Action, Decision, Reason, Verdict};
use dirigent_wire::{Ports, TcpHeader, ip::proto};

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

/// The later stages: what the first leaves to them, untouched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// IPv4 TCP and UDP in full: new connections, errors to send, odd headers.
    Slow4 = 0,
    /// The same for IPv6.
    Slow6 = 1,
    /// ICMP.
    Icmp4 = 2,
    /// ICMPv6.
    Icmp6 = 3,
}

impl Stage {
    /// TCP and UDP in full.
    #[inline(always)]
    pub const fn slow(v6: bool) -> Self {
        if v6 { Stage::Slow6 } else { Stage::Slow4 }
    }
    /// ICMP errors.
    #[inline(always)]
    pub const fn icmp(v6: bool) -> Self {
        if v6 { Stage::Icmp6 } else { Stage::Icmp4 }
    }
    /// The verdict that continues there.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        Verdict::out(Action::Continue, Reason::LaterStage, self as u32)
    }
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
        Payload::Ipv4 => easy::<V4, P, T>(p, t),
        Payload::Ipv6 => easy::<V6, P, T>(p, t),
    }
}

/// The easy case, nearly always: a whole packet of a known, live connection.
#[inline(always)]
fn easy<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Decision<Verdict> {
    let later = Stage::slow(F::V6).verdict();
    let ip = F::read_plain(p, L3).ok_or(later)?;
    let flow = match ip.protocol {
        proto::TCP | proto::UDP => whole::<F, P>(p, &ip).ok_or(later)?,
        other if other == F::ICMP => return Err(Stage::icmp(F::V6).verdict()),
        _ => return Err(later),
    };
    let settings = t.settings().ok_or(Verdict::pass(Reason::NotConfigured))?;
    match F::conn(t, &flow.key) {
        Some(conn) if !is_over::<F>(settings, &flow, conn, t.now()) => Ok(if conn.is_reply() {
            forward::reply(p, t, &flow, conn)
        } else {
            forward::request(p, t, &flow, conn)
        }),
        Some(_) => Err(later),
        None if open::service::<F, T>(t, &flow.key).is_some() => Err(later),
        None if settings.flags & setting::KNOW_SERVERS != 0 => Err(later),
        None => Err(Verdict::pass(Reason::NoService)),
    }
}

/// The ports of a whole packet with a whole transport header.
#[inline(always)]
fn whole<F: Family, P: Packet>(p: &P, ip: &Ip<F::Addr>) -> Option<Flow<F>> {
    match (ip.fragment, parse::transport(p, ip)) {
        (Fragment::Whole, ReadTransport::Full(l4)) => {
            Some(Flow { ip: *ip, key: Tuple::new(ip.protocol, ip.src, l4.sport, ip.dst, l4.dport), l4 })
        }
        _ => None,
    }
}

/// TCP and UDP in full, a stage of its own: a known connection's packet is
/// forwarded, another may open one first.
#[inline(always)]
pub fn slow<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Verdict {
    match packet::<F, P, T>(p, t) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

#[inline(always)]
fn packet<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Decision<Verdict> {
    let ip = read::<F, P, T>(p, t)?;
    let flow = flow::<F, P, T>(p, t, &ip)?;
    if !known::<F, T>(t, &flow) {
        open::open::<F, P, T>(p, t, &flow)?;
    }
    match F::conn(t, &flow.key) {
        Some(conn) if conn.is_reply() => Ok(forward::reply(p, t, &flow, conn)),
        Some(conn) => Ok(forward::request(p, t, &flow, conn)),
        None => Err(Verdict::drop(Reason::Raced)),
    }
}

/// ICMP, a stage of its own.
#[inline(always)]
pub fn icmp<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, at: icmp::Where) -> Verdict {
    let related = match read::<F, P, T>(p, t) {
        Ok(ip) => icmp::relate::<F, P, T>(p, t, &ip, at),
        Err(verdict) => Err(verdict),
    };
    match related {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// The IP header with options and extension headers.
#[inline(always)]
fn read<F: ReadIp, P: Packet, T: Tables>(p: &P, t: &T) -> Decision<Ip<F::Addr>> {
    let mut ip = F::read(p, L3, false).ok_or(Verdict::pass(Reason::Malformed))?;
    // However the headers were walked, what follows is verified once.
    ip.l4 = (t.forget(ip.l4 as u32) & MAX_L4) as usize;
    Ok(ip)
}

/// A mask no offset of a transport header exceeds.
const MAX_L4: u32 = 0x7fff;

/// TCP and UDP: the ports, and what to do with packets that lack them.
#[inline(always)]
fn flow<F: Family, P: Packet, T: Tables>(p: &P, t: &T, ip: &Ip<F::Addr>) -> Decision<Flow<F>> {
    if !matches!(ip.protocol, proto::TCP | proto::UDP) {
        return Err(if ip.protocol == F::ICMP {
            Stage::icmp(F::V6).verdict() // behind extension headers
        } else {
            Verdict::pass(Reason::OtherProtocol)
        });
    }
    let key = |ports: Ports| Tuple::new(ip.protocol, ip.src, ports.src, ip.dst, ports.dst);
    let ports = match (ip.fragment, parse::transport(p, ip)) {
        (Fragment::Whole, ReadTransport::Full(l4)) => {
            let key = key(Ports { src: l4.sport, dst: l4.dport });
            return Ok(Flow { ip: *ip, key, l4 });
        }
        (Fragment::Later, _) => return Err(Verdict::pass(Reason::LaterFragment)),
        (Fragment::Whole, ReadTransport::Nothing) => return Err(Verdict::drop(Reason::ShortTransport)),
        (Fragment::First, ReadTransport::Nothing) => return Err(Verdict::drop(Reason::Fragment)),
        (_, ReadTransport::Full(l4)) => Ports { src: l4.sport, dst: l4.dport },
        (_, ReadTransport::PortsOnly(ports)) => ports,
    };
    let lost = if ip.fragment == Fragment::First { Reason::Fragment } else { Reason::ShortTransport };
    let ours = F::conn(t, &key(ports)).is_some() || open::service::<F, T>(t, &key(ports)).is_some();
    Err(if ours { Verdict::drop(lost) } else { Verdict::pass(Reason::NoService) })
}

/// Whether the packet finds its connection at the end: past its timeout, or
/// closed and reopened by a SYN.
#[inline(always)]
fn is_over<F: Family>(settings: &Settings, flow: &Flow<F>, conn: &Conn<F::Addr>, now: u32) -> bool {
    reopens(flow, conn) || conn::looks_idle(settings, flow.key.proto(), conn, now)
}

/// A SYN of a closed connection makes room for a new one in the same packet
/// (IPVS's conn_reuse_mode 1, without its dropped SYN).
#[inline(always)]
fn reopens<F: Family>(flow: &Flow<F>, conn: &Conn<F::Addr>) -> bool {
    let state = conn.word().state();
    flow.key.proto() == proto::TCP
        && flow.l4.flags & TcpHeader::SYN != 0
        && !conn.is_reply()
        && (state == tcp::State::TimeWait as u8 || state == tcp::State::Close as u8)
}

/// Whether the packet belongs to a live connection; one that is over is expired
/// first.
#[inline(always)]
fn known<F: Family, T: Tables>(t: &mut T, flow: &Flow<F>) -> bool {
    let now = t.now();
    let Some(settings) = t.settings() else { return false };
    let Some(conn) = F::conn(t, &flow.key) else { return false };
    if !is_over::<F>(settings, flow, conn, now) {
        return true;
    }
    let at_once = reopens(flow, conn);
    conn::expire::<F, T>(t, &flow.key, at_once) == conn::Expiry::Alive
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
    let ip = F::read_plain(p, L3).ok_or(Verdict::pass(Reason::OtherProtocol))?;
    if ip.protocol == F::ICMP {
        return Err(Stage::icmp(F::V6).verdict());
    }
    let flow = whole::<F, P>(p, &ip).ok_or(Verdict::pass(Reason::OtherProtocol))?;
    match F::conn(t, &flow.key) {
        // UDP over IPv4 may go without a checksum; translated it may stay so.
        Some(conn) if conn.is_reply() => Ok(forward::local_reply(p, t, &flow, conn)),
        _ => Err(Verdict::pass(Reason::NoService)),
    }
}
