//! The packet path from its first byte to its verdict. Read this file first.

use crate::conn::{self, Held};
use crate::cut::{self, Parting, Pieces};
use crate::errors;
use crate::family::{Address as _, Family, L3, V4, V6, pseudo_tail};
use crate::forward;
use crate::ftp;
use crate::icmp;
use crate::mark;
use crate::open::{self, Wish};
use crate::packet::Packet;
use crate::parse::{self, Extent, Fragment, Ip, Payload, ReadIp, Transport};
use crate::persist;
use crate::pieces;
use crate::probe;
use crate::quic;
use crate::records::{Conn, Link, Settings, Tuple, conn_flag, hop, link_flag, server_flag, setting};
use crate::relay;
use crate::reset;
use crate::schedule::Client;
use crate::sctp::{self, Association};
use crate::sieve;
use crate::sync;
use crate::tables::Tables;
use crate::tcp;
use crate::verdict::{Action, Decision, Reason, Verdict};
use dirigent_wire::{Be16, Ipv6Header, TcpHeader, checksum, ip::proto};

/// A TCP, UDP or SCTP packet, read: what forwarding needs of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow<F: Family> {
    /// The IP header.
    pub ip: Ip<F::Addr>,
    /// The transport header.
    pub l4: Transport,
    /// The packet's own tuple: key of its connection entry.
    pub key: Tuple<F::Addr>,
}

impl<F: Family> Flow<F> {
    /// Sum of the pseudo header that the transport checksum covers.
    #[inline(always)]
    pub fn pseudo(&self) -> u16 {
        let addresses = checksum::add(self.ip.src.sum(), self.ip.dst.sum());
        checksum::add(addresses, pseudo_tail(self.key.proto(), self.ip.l4_len()))
    }
}

/// What a later stage works on. It lives outside the stack, which the kernel
/// limits to 512 bytes for a program and all it calls.
#[derive(Clone, Debug, Default)]
pub struct Work<F: Family> {
    /// The packet.
    pub flow: Flow<F>,
    /// The ICMP error, if it is one.
    pub message: icmp::Message<F>,
    /// The entry being made.
    pub conn: Conn<F::Addr>,
    /// The key of its reply entry.
    pub reply: Tuple<F::Addr>,
    /// What schedulers may know of the packet.
    pub client: Client,
    /// What a packet of FTP's control connection says.
    pub line: ftp::Line,
}

/// The later stages: what an earlier one leaves to them. Each is verified and
/// run as a program of its own, one for each address family, and reads the
/// packet anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// TCP and UDP in full: odd headers, expired connections, dead ends.
    Slow = 0,
    /// A packet that may open a connection.
    Open = 1,
    /// A packet of a one-packet service.
    OnePacket = 2,
    /// A packet of no connection and no service.
    Stranger = 3,
    /// An error to be sent about the packet.
    Refuse = 4,
    /// ICMP.
    Icmp = 5,
    /// An ICMP error that may open a connection.
    IcmpOpen = 6,
    /// An ICMP error about a tunnel; the family is the outer packet's.
    TunnelError = 7,
    /// A packet to be put into a tunnel.
    Encapsulate = 8,
    /// A finished packet that is too long for its way: its first piece.
    Cut = 9,
    /// The rest of such a packet.
    Rest = 10,
    /// SCTP of known associations: [`Stage::Slow`] for it.
    Sctp = 11,
    /// An ICMPv6 error that is too long for its way.
    Shorten = 12,
    /// A packet that finds its connection at the end.
    Over = 13,
    /// A packet that mark rules look at before it may open a connection.
    Mark = 14,
    /// A packet that may open a connection of a persistent service.
    Persist = 15,
    /// Something is in the way of a new connection.
    Clear = 16,
    /// A client of a persistent service that has no template, but a server now.
    Assign = 17,
    /// A new flow that needs a server, where a stage came before [`Stage::Open`]: of a persistent or a QUIC service.
    Choose = 18,
    /// A packet of a QUIC service and no connection: perhaps of one whose client moved.
    Quic = 19,
    /// A packet of an FTP control connection that says something.
    Ftp = 20,
    /// A SYN that an FTP server may have asked for.
    Claim = 21,
    /// A probe's packet, or one for it. Not where packets are handed on: see [`crate::probe`].
    Probe = 22,
    /// A client's packet after which other directors may have to be told of its connection.
    Tell = 23,
}

impl Stage {
    /// Programs of an executor: every stage for both families.
    pub const COUNT: u32 = 48;

    /// The number of this stage's program.
    #[inline(always)]
    pub const fn number(self, v6: bool) -> u32 {
        self as u32 * 2 + v6 as u32
    }
    /// The verdict that continues there.
    #[inline(always)]
    pub fn verdict<F: Family>(self) -> Verdict {
        Verdict::out(Action::Continue, Reason::LaterStage, self.number(F::V6))
    }

    /// What becomes of a packet whose stage has no program: an executor may do without those that nothing in its tables
    /// has a use for. Anybody's packets come to some of them, to be found nobody's business here.
    #[inline(always)]
    pub fn missing(number: u32) -> Verdict {
        const SCTP: u32 = Stage::Sctp as u32;
        const TUNNEL_ERROR: u32 = Stage::TunnelError as u32;
        match number / 2 {
            SCTP => Verdict::pass(Reason::OtherProtocol),
            TUNNEL_ERROR => Verdict::pass(Reason::IcmpUnrelated),
            _ => Verdict::drop(Reason::StageMissing),
        }
    }
}

/// Decides about a frame that came in, and rewrites it.
#[inline(always)]
pub fn direct<P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Verdict {
    match enter(p, t) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// Ethernet: frames for this interface's MACs that hold IP.
#[inline(always)]
fn enter<P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Decision<Verdict> {
    let link = t.link(p.ingress()).ok_or(Verdict::pass(Reason::UnusedLink))?;
    if link.flags & link_flag::PROBE != 0 {
        return Err(probe::arrived(p, link));
    }
    match ethernet(p, t, link)? {
        Payload::Ipv4 => easy::<V4, P, T>(p, t),
        Payload::Ipv6 => easy::<V6, P, T>(p, t),
    }
}

/// What came by a link: without its mark if that led it here.
#[inline(always)]
pub fn ethernet<P: Packet, T: Tables>(p: &mut P, t: &T, link: &Link) -> Decision<Payload> {
    mark::take(p, t, link);
    parse::ethernet(p, |mac| link.takes(t, mac))
}

/// Where a packet of no connection and no service of its own may be somebody's yet.
const LOOK_FURTHER: u32 =
    setting::KNOW_SERVERS | setting::FTP | setting::ANY_PORT | setting::LED | setting::REJECT | setting::PROBES;

/// The easy case, nearly always: a whole packet of a known, live connection.
#[inline(always)]
fn easy<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T) -> Decision<Verdict> {
    let header = p.get(L3).ok_or_else(|| later::<F, T>(t))?;
    if sieve::retains::<F, P, T>(t, header) {
        return Err(Verdict::pass(Reason::NoService));
    }
    let ip = F::plain(p, header, L3).ok_or_else(|| later::<F, T>(t))?;
    let flow = match ip.protocol {
        proto::TCP | proto::UDP => whole::<F, P>(p, &ip).ok_or_else(|| later::<F, T>(t))?,
        other if other == F::ICMP => return Err(Stage::Icmp.verdict::<F>()),
        _ => return Err(later::<F, T>(t)),
    };
    let settings = t.settings().ok_or(Verdict::pass(Reason::NotConfigured))?;
    match conn::held::<F, T>(t, &flow.key) {
        Some(conn) if !ftp::speaks::<F>(&flow, &conn) && !is_over::<F, P, T>(t, settings, &flow, &conn) => {
            Ok(if conn.is_reply() { forward::reply(p, t, &flow, &conn) } else { forward::request(p, t, &flow, &conn) })
        }
        Some(_) => Err(later::<F, T>(t)),
        None => Err(match open::service::<F, T>(t, &flow.key) {
            Some(service) => unknown::<F, P, T>(t, settings, &flow, Wish::of(service)),
            None if settings.flags & LOOK_FURTHER != 0 || settings.mark_rules != 0 => {
                unknown::<F, P, T>(t, settings, &flow, 0)
            }
            None => Verdict::pass(Reason::NoService),
        }),
    }
}

/// A packet that is not easy. What an earlier packet's stages left says nothing of this one.
#[inline(always)]
fn later<F: Family, T: Tables>(t: &T) -> Verdict {
    t.stash(0);
    Stage::Slow.verdict::<F>()
}

/// The ports of a whole packet with a whole transport header.
#[inline(always)]
fn whole<F: Family, P: Packet>(p: &P, ip: &Ip<F::Addr>) -> Option<Flow<F>> {
    let (extent, l4) = parse::transport(p, ip);
    if ip.fragment != Fragment::Whole || extent != Extent::Full {
        return None;
    }
    Some(Flow { ip: *ip, key: Tuple::new(ip.protocol, ip.src, l4.sport, ip.dst, l4.dport), l4 })
}

/// Runs a later stage by its number, for packets that came in.
pub fn resume<P: Packet, T: Tables>(p: &mut P, t: &mut T, number: u32) -> Verdict {
    if number.is_multiple_of(2) {
        resume_as(p, t, number / 2, &mut Work::<V4>::default())
    } else {
        resume_as(p, t, number / 2, &mut Work::<V6>::default())
    }
}

fn resume_as<F: ReadIp + Pieces, P: Packet, T: Tables>(p: &mut P, t: &mut T, stage: u32, w: &mut Work<F>) -> Verdict {
    match stage {
        0 => slow(p, t, w),
        1 => open(p, t, w),
        2 => one_packet(p, t, w),
        3 => stranger(p, t, w),
        4 => refuse(p, t, w),
        5 => icmp(p, t, w),
        6 => icmp_open(p, t, w),
        7 => tunnel_error(p, t, w),
        8 => encapsulate(p, t, w),
        9 => cut(p, t, w),
        10 => rest(p, t, w),
        11 => sctp(p, t, w),
        12 => shorten(p, t, w),
        13 => over(p, t, w),
        14 => mark(p, t, w),
        15 => persist(p, t, w),
        16 => clear(p, t, w),
        17 => assign(p, t, w),
        18 => choose(p, t, w),
        19 => quic(p, t, w),
        20 => ftp(p, t, w),
        21 => claim(p, t, w),
        22 => probe(p, t, w),
        23 => tell(p, t, w),
        _ => Verdict::drop(Reason::StageMissing),
    }
}

#[inline(always)]
fn settle(decision: Decision<Verdict>) -> Verdict {
    match decision {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// [`Stage::Slow`]: a known connection's packet is forwarded, another may open one.
#[inline(always)]
pub fn slow<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_flow(p, t, w).map(|()| follow(p, t, w)))
}

/// [`Stage::Sctp`].
#[inline(always)]
pub fn sctp<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_association(p, t, w).map(|()| follow(&mut Association(p), t, w)))
}

/// Sends a packet of a known connection on; another may open one.
#[inline(always)]
fn follow<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    if !F::V6 && parse::source_routed(p, t, w.flow.ip.l4) {
        return Verdict::pass(Reason::Malformed);
    }
    let Some(settings) = t.settings() else { return Verdict::pass(Reason::NotConfigured) };
    let Some(conn) = &conn::held::<F, T>(t, &w.flow.key) else {
        return unknown::<F, P, T>(t, settings, &w.flow, 0);
    };
    if !P::SCTP && ftp::speaks::<F>(&w.flow, conn) && t.stashed() < sync::TOLD {
        t.stash(ftp::HEARD);
        return Stage::Ftp.verdict::<F>();
    }
    if is_over::<F, P, T>(t, settings, &w.flow, conn) {
        return Stage::Over.verdict::<F>();
    }
    if P::SCTP {
        w.flow.l4.header = sctp::crc_change(conn, &w.flow);
    }
    if conn.is_reply() {
        return forward::reply(p, t, &w.flow, conn);
    }
    if t.stashed() != sync::TOLD && sync::concerns::<F, T>(t, &w.flow.key, conn, w.flow.l4.flags) {
        return Stage::Tell.verdict::<F>();
    }
    forward::request(p, t, &w.flow, conn)
}

/// Where a packet of no connection goes on; with what is known of its wish, [`Wish::of`] or 0.
#[inline(always)]
fn unknown<F: Family, P: Packet, T: Tables>(t: &T, settings: &Settings, flow: &Flow<F>, wish: u64) -> Verdict {
    if !P::SCTP && ftp::may_claim::<F>(settings.flags, flow) {
        return Stage::Claim.verdict::<F>();
    }
    unclaimed::<F, P, T>(t, settings, &flow.key, wish)
}

/// The same if no FTP server has asked for it.
#[inline(always)]
fn unclaimed<F: Family, P: Packet, T: Tables>(t: &T, settings: &Settings, key: &Tuple<F::Addr>, wish: u64) -> Verdict {
    t.stash(wish);
    if !P::SCTP && probe::pinned::<F, T>(t, settings, key) {
        return probe::verdict::<F, P>();
    }
    let marked = settings.mark_rules != 0 || settings.flags & setting::LED != 0;
    if marked { Stage::Mark } else { Stage::Open }.verdict::<F>()
}

/// [`Stage::Ftp`]: the packet then goes on as any other.
#[inline(always)]
pub fn ftp<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    let heard = read_flow(p, t, w).and_then(|()| ftp::listen(p, t, w));
    settle(heard.map(|()| Stage::Slow.verdict::<F>()))
}

/// [`Stage::Claim`].
#[inline(always)]
pub fn claim<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_flow(p, t, w).and_then(|()| ftp::claim(p, t, w)).map(|claimed| match t.settings() {
        _ if claimed => Stage::Slow.verdict::<F>(),
        Some(settings) => unclaimed::<F, P, T>(t, settings, &w.flow.key, 0),
        None => Verdict::pass(Reason::NotConfigured),
    }))
}

/// [`Stage::Probe`].
#[inline(always)]
pub fn probe<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    let is_error = |w: &Work<F>| w.flow.ip.protocol == F::ICMP;
    let read = read(p, t, w).and_then(|()| match w.flow.ip.protocol {
        proto::TCP | proto::UDP => read_ports(p, t, w),
        other if other == F::ICMP => Ok(()),
        _ => Err(Verdict::pass(Reason::OtherProtocol)),
    });
    match (probe::comes_from_one(p, t), read) {
        (true, Ok(())) if !is_error(w) => probe::request(p, t, w),
        (true, _) => Verdict::drop(Reason::Unpinned),
        (false, Err(verdict)) => verdict,
        (false, Ok(())) if is_error(w) => settle(icmp::to_probe(p, t, w)),
        (false, Ok(())) => probe::answer(p, t, w),
    }
}

/// [`Stage::Tell`]: the packet then goes on as any other.
#[inline(always)]
pub fn tell<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_any(p, t, w).map(|()| {
        sync::tell::<F, P, T>(p, t, &w.flow);
        t.stash(sync::TOLD);
        Stage::Slow.verdict::<F>()
    }))
}

/// [`Stage::Over`]: ends the connection, unless its other direction had a packet in time; the
/// packet then goes on as any other.
#[inline(always)]
pub fn over<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_any(p, t, w).map(|()| {
        let flow = &w.flow;
        let Some(settings) = t.settings() else { return Verdict::pass(Reason::NotConfigured) };
        if conn::held::<F, T>(t, &flow.key).is_some_and(|conn| reset::is_marked(flow.key.proto(), conn.word)) {
            return reset::meet::<F, T>(t, flow);
        }
        let at_once = conn::held::<F, T>(t, &flow.key).is_some_and(|conn| match flow.key.proto() {
            proto::SCTP => ends::<F, Association<'_, P>, T>(t, settings, flow, &conn),
            _ => ends::<F, P, T>(t, settings, flow, &conn),
        });
        let alive = conn::expire::<F, T>(t, &flow.key, at_once) == conn::Expiry::Alive;
        // So that it is not found over again.
        if alive && let Some(conn) = conn::held::<F, T>(t, &flow.key) {
            conn.last_seen.store(t.now());
        }
        Stage::Slow.verdict::<F>()
    }))
}

/// [`Stage::Mark`].
#[inline(always)]
pub fn mark<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_any(p, t, w).map(|()| {
        t.stash(mark::of(p, t, &w.flow).into());
        Stage::Open.verdict::<F>()
    }))
}

/// [`Stage::Persist`].
#[inline(always)]
pub fn persist<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    let opened = read_any(p, t, w).and_then(|()| persist::open(p, t, w));
    settle(opened.map(|()| Stage::Slow.verdict::<F>()))
}

/// [`Stage::Assign`].
#[inline(always)]
pub fn assign<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    let assigned = read_any(p, t, w).and_then(|()| persist::assign(t, w));
    settle(assigned.map(|()| Stage::Persist.verdict::<F>()))
}

/// [`Stage::Choose`].
#[inline(always)]
pub fn choose<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    let chosen = read_any(p, t, w).and_then(|()| open::choose_first(t, w));
    settle(chosen.map(|()| Stage::Open.verdict::<F>()))
}

/// [`Stage::Quic`].
#[inline(always)]
pub fn quic<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_flow(p, t, w).map(|()| {
        let next = if quic::look(p, t, &w.flow) { Stage::Open } else { Stage::Choose };
        next.verdict::<F>()
    }))
}

/// [`Stage::Clear`].
#[inline(always)]
pub fn clear<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    let word = t.stashed();
    settle(read_any(p, t, w).map(|()| {
        if word >> 32 == 0 {
            persist::make_way(t, w, word as u32);
        } else {
            open::make_way(t, w, word);
        }
        Stage::Open.verdict::<F>()
    }))
}

/// [`Stage::Open`]: opens the connection, or says what becomes of the packet.
#[inline(always)]
pub fn open<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    let opened = read_any(p, t, w).and_then(|()| open::open(p, t, w));
    settle(opened.map(|()| first(p, t, &w.flow)))
}

/// The first packet of a connection that is open now. (Not inlined: the verifier would go through it once for all that is
/// known of the packet on each way that leads here.)
#[inline(never)]
fn first<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &T, flow: &Flow<F>) -> Verdict {
    match conn::held::<F, T>(t, &flow.key) {
        Some(conn) if is_plain(flow) && !conn.is_reply() && !ftp::speaks(flow, &conn) => {
            forward::request(&mut Plain(p), t, flow, &conn)
        }
        _ => Stage::Slow.verdict::<F>(),
    }
}

/// Whether the packet is one that the first stage would have read.
#[inline(always)]
fn is_plain<F: Family>(Flow { ip, .. }: &Flow<F>) -> bool {
    parse::has_ports(ip.protocol) && ip.fragment == Fragment::Whole && ip.l4 == L3 + F::HEADER
}

/// A packet of which a later stage knows that it is easy, as the first one.
struct Plain<'p, P>(&'p mut P);

impl<P: Packet> Packet for Plain<'_, P> {
    const EASY: bool = true;
    const LAST: bool = P::LAST;
    const CARRIES: bool = false;
    crate::packet::as_the_one_inside!();
}

/// [`Stage::OnePacket`].
#[inline(always)]
pub fn one_packet<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_flow(p, t, w).map(|()| open::one_packet(p, t, w)))
}

/// [`Stage::Stranger`].
#[inline(always)]
pub fn stranger<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_any(p, t, w).map(|()| open::stranger(p, t, &w.flow)))
}

/// [`Stage::Refuse`].
#[inline(always)]
pub fn refuse<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read(p, t, w).map(|()| errors::send::<F, P, T>(p, t, &w.flow.ip)))
}

/// [`Stage::Icmp`] for messages that came in.
#[inline(always)]
pub fn icmp<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read(p, t, w).and_then(|()| icmp::relate(p, t, w, icmp::Where::Entering)))
}

/// [`Stage::Icmp`] for messages that this host sends.
#[inline(always)]
pub fn leave_icmp<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read(p, t, w).and_then(|()| icmp::relate(p, t, w, icmp::Where::Leaving)))
}

/// [`Stage::Sctp`] for packets that this host sends.
#[inline(always)]
pub fn leave_sctp<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    settle(read_association(p, t, w).map(|()| {
        if w.flow.ip.fragment != Fragment::Whole {
            return Verdict::pass(Reason::OtherProtocol);
        }
        match conn::held::<F, T>(t, &w.flow.key) {
            Some(conn) if conn.is_reply() => {
                w.flow.l4.header = sctp::crc_change(&conn, &w.flow);
                forward::local_reply(&mut Association(p), t, &w.flow, &conn)
            }
            _ => own_client::<F, T>(t, &w.flow.key),
        }
    }))
}

/// [`Stage::Shorten`].
#[inline(always)]
pub fn shorten<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Verdict {
    let shortened = read(p, t, w).and_then(|()| icmp::shorten(p, t, w));
    settle(shortened.map(|()| Stage::Icmp.verdict::<F>()))
}

/// [`Stage::IcmpOpen`].
#[inline(always)]
pub fn icmp_open<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    let opened = read(p, t, w).and_then(|()| icmp::open(p, t, w));
    settle(opened.map(|()| Stage::Icmp.verdict::<F>()))
}

/// [`Stage::TunnelError`].
#[inline(always)]
pub fn tunnel_error<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Verdict {
    settle(read(p, t, w).and_then(|()| relay::relay(p, t, w)))
}

/// [`Stage::Encapsulate`].
#[inline(always)]
pub fn encapsulate<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Verdict {
    let load = forward::Load(t.stashed());
    if read_any(p, t, w).is_err() {
        // An ICMP error: its flow is that of the two hosts.
        let ip = &w.flow.ip;
        w.flow.key = Tuple::new(ip.protocol, ip.src, Be16::new(0), ip.dst, Be16::new(0));
    }
    // As on arrival: see `tunnel::encapsulate`.
    w.flow.ip.ttl = w.flow.ip.ttl.wrapping_add(1);
    forward::carry(p, t, &w.flow, load)
}

/// [`Stage::Cut`].
#[inline(always)]
pub fn cut<F: ReadIp + Pieces, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Verdict {
    let parting = Parting(t.stashed());
    match read(p, t, w) {
        Ok(()) => cut::cut(p, t, w, parting),
        Err(_) => Verdict::drop(Reason::RewriteFailed),
    }
}

/// [`Stage::Rest`].
#[inline(always)]
pub fn rest<F: ReadIp + Pieces, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Verdict {
    let parting = Parting(t.stashed());
    match read(p, t, w) {
        Ok(()) if cut::rest(p, t, w, parting) => Stage::Cut.verdict::<F>(),
        _ => Verdict::drop(Reason::RewriteFailed),
    }
}

/// The IP header with options and extension headers.
#[inline(always)]
fn read<F: ReadIp, P: Packet, T: Tables>(p: &P, t: &T, w: &mut Work<F>) -> Decision<()> {
    w.flow.ip = F::read(p, L3, false).ok_or(Verdict::pass(Reason::Malformed))?;
    // However the headers were walked, what follows is verified once.
    w.flow.ip.l4 = (t.forget(w.flow.ip.l4 as u32) & MAX_L4) as usize;
    Ok(())
}

/// A mask no offset of a transport header exceeds.
pub(crate) const MAX_L4: u32 = 0x7fff;

/// TCP and UDP: the ports, and what to do with packets that lack them.
#[inline(always)]
fn read_flow<F: ReadIp, P: Packet, T: Tables>(p: &P, t: &mut T, w: &mut Work<F>) -> Decision<()> {
    read(p, t, w)?;
    match w.flow.ip.protocol {
        proto::TCP | proto::UDP => read_ports(p, t, w),
        proto::SCTP => Err(Stage::Sctp.verdict::<F>()),
        other if other == F::ICMP => Err(Stage::Icmp.verdict::<F>()), // behind extension headers
        _ => Err(Verdict::pass(Reason::OtherProtocol)),
    }
}

/// The same for SCTP.
#[inline(always)]
fn read_association<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Decision<()> {
    read(p, t, w)?;
    match w.flow.ip.protocol {
        proto::SCTP => read_ports(&Association(p), t, w),
        _ => Err(Verdict::pass(Reason::OtherProtocol)),
    }
}

/// Either.
#[inline(always)]
fn read_any<F: ReadIp, P: Packet, T: Tables>(p: &mut P, t: &mut T, w: &mut Work<F>) -> Decision<()> {
    read(p, t, w)?;
    match w.flow.ip.protocol {
        proto::TCP | proto::UDP => read_ports(p, t, w),
        proto::SCTP => read_ports(&Association(p), t, w),
        _ => Err(Verdict::pass(Reason::OtherProtocol)),
    }
}

/// The ports, of a later piece those of its first.
#[inline(always)]
fn read_ports<F: ReadIp, P: Packet, T: Tables>(p: &P, t: &mut T, w: &mut Work<F>) -> Decision<()> {
    let Flow { ip, l4, key } = &mut w.flow;
    if ip.fragment == Fragment::Later {
        *l4 = Transport::default();
        (l4.sport, l4.dport) = pieces::ports::<F, T>(t, ip)?;
        *key = Tuple::new(ip.protocol, ip.src, l4.sport, ip.dst, l4.dport);
        return Ok(());
    }
    let extent;
    (extent, *l4) = if P::SCTP { sctp::transport(p, ip) } else { parse::transport(p, ip) };
    *key = Tuple::new(ip.protocol, ip.src, l4.sport, ip.dst, l4.dport);
    if extent != Extent::Full {
        let ours = F::conn(t, key).is_some() || open::service::<F, T>(t, key).is_some();
        let ours = ours || extent == Extent::Nothing;
        return Err(if ours { Verdict::drop(Reason::ShortTransport) } else { Verdict::pass(Reason::NoService) });
    }
    if ip.fragment == Fragment::First {
        if F::V6 && l4.no_check {
            return Err(Verdict::drop(Reason::NoChecksum));
        }
        pieces::remember::<F, T>(t, ip, l4);
    }
    Ok(())
}

/// Whether the packet finds its connection at the end: past its timeout, or ended by this
/// very packet.
#[inline(always)]
fn is_over<F: Family, P: Packet, T: Tables>(
    t: &T,
    settings: &Settings,
    flow: &Flow<F>,
    conn: &Held<'_, F::Addr>,
) -> bool {
    // Which of them does end it, a later stage finds out: that is none of the easy ones.
    let ended = if P::EASY { begins::<F, P>(flow, conn) } else { ends::<F, P, T>(t, settings, flow, conn) };
    ended || conn::looks_over::<_, P>(settings, flow.key.proto(), conn, t.now())
}

/// Whether the packet is one that begins connections: a client's SYN or INIT.
#[inline(always)]
fn begins<F: Family, P: Packet>(flow: &Flow<F>, conn: &Conn<F::Addr>) -> bool {
    let said = match P::SCTP {
        true => flow.l4.flags == sctp::event::INIT,
        false => flow.key.proto() == proto::TCP && flow.l4.flags & TcpHeader::SYN != 0,
    };
    said && !conn.is_reply()
}

/// Whether the packet ends its connection at once, and goes on as one without: a new one of a
/// closed connection (ipvs-semantics §3.8), or any where the server was removed (§0, step 5).
/// IPVS drops such a SYN where netfilter knows it, and waits for the next. (Not inlined: the
/// verifier would go through all that follows once for each way through it.)
///
/// A server may go while a connection to it is being opened: the packet that opens it is to go to another. That one is
/// chosen among those that are available, so that this happens once.
#[inline(never)]
fn ends<F: Family, P: Packet, T: Tables>(t: &T, settings: &Settings, flow: &Flow<F>, conn: &Held<'_, F::Addr>) -> bool {
    let begins = begins::<F, P>(flow, conn);
    if settings.flags & setting::EXPIRE_NODEST != 0 && !conn.is_reply() {
        let removed = t.next_hop(conn.server).is_some_and(|next| next.state.load() == hop::REMOVED);
        if removed || (begins && t.server(conn.server).is_some_and(|server| server.weight.load() == 0)) {
            return true;
        }
    }
    if (begins || flow.key.proto() == proto::UDP) && conn.packets.load() == 0 && !conn.is_reply() {
        let gone = t.server(conn.server).is_some_and(|server| server.flags.load() & server_flag::AVAILABLE == 0);
        if gone && t.next_hop(conn.server).is_some_and(|next| next.state.load() == hop::REMOVED) {
            return true;
        }
    }
    begins && reopens::<F, P>(settings, conn)
}

/// Whether a new SYN or INIT of this connection opens another (`conn_reuse_mode`).
#[inline(always)]
fn reopens<F: Family, P: Packet>(settings: &Settings, conn: &Held<'_, F::Addr>) -> bool {
    if settings.flags & setting::REUSE == 0 || conn.flags & (conn_flag::CONTROLLED | conn_flag::FTP_DATA) != 0 {
        return false;
    }
    let state = conn.word.state();
    if P::SCTP {
        return state == sctp::State::Closed as u8;
    }
    let unanswered = settings.flags & setting::REUSE_FIN_WAIT != 0 && !conn::paired(conn.kind);
    state == tcp::State::TimeWait as u8
        || state == tcp::State::Close as u8
        || (unanswered && state == tcp::State::FinWait as u8)
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
    let Some(ip) = F::read_plain(p, L3) else {
        // Not so plain over IPv6, where only what nearly all packets are is.
        let sctp = F::V6 && p.get::<Ipv6Header>(L3).is_some_and(|ip| ip.next_header == proto::SCTP);
        return Err(if sctp { Stage::Sctp.verdict::<F>() } else { Verdict::pass(Reason::OtherProtocol) });
    };
    if ip.protocol == F::ICMP {
        return Err(Stage::Icmp.verdict::<F>());
    }
    if ip.protocol == proto::SCTP {
        return Err(Stage::Sctp.verdict::<F>());
    }
    let flow = whole::<F, P>(p, &ip).ok_or(Verdict::pass(Reason::OtherProtocol))?;
    match conn::held::<F, T>(t, &flow.key) {
        // UDP over IPv4 may go without a checksum; translated it may stay so.
        Some(conn) if conn.is_reply() => Ok(forward::local_reply(p, t, &flow, &conn)),
        _ => Err(own_client::<F, T>(t, &flow.key)),
    }
}

/// A packet of this host to a virtual service that this host itself holds: it
/// would meet the host's own closed port (on `lo`, no link), not a server.
#[inline(always)]
fn own_client<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>) -> Verdict {
    if open::service::<F, T>(t, key).is_some() && F::local(t, &key.dst) {
        return Verdict::drop(Reason::ClientOnDirector);
    }
    Verdict::pass(Reason::NoService)
}
