//! Probes: health checks that reach one given server the way clients' packets do, and so find
//! what is wrong on that way.
//!
//! They live in a network namespace of their own, behind a link that is flagged
//! [`PROBE`](link_flag::PROBE). Before one begins, user space *pins* its packets to the server: an
//! entry of PINS4 or PINS6 under the packets' tuple, and one under that of the answers. Both are
//! records of connections, but no connections: nothing is scheduled or counted, no packet changes
//! them, and they end when user space removes them. So a probe reaches a server whose weight is 0,
//! that is full, drained, or in no list, and finds it the same when the table of connections is full.
//!
//! What comes by such a link and is not pinned goes nowhere. Answers are known by their tuple and go
//! into the link, whatever address they have. XDP leaves all of this to tc, since not every
//! driver can redirect into a veth.

use crate::conn::{self, Held};
use crate::direct::{Stage, Work};
use crate::family::Family;
use crate::forward::{self, Rewrite};
use crate::open;
use crate::packet::Packet;
use crate::parse;
use crate::persist::Whose;
use crate::records::{Conn, Link, Server, Settings, Tuple, kind, link_flag, setting};
use crate::shared::S32;
use crate::tables::Tables;
use crate::verdict::{Action, Reason, Verdict};
use dirigent_wire::{Be16, EthHeader, eth};

/// A packet that is known to be a probe's: of its server's counters, states and times it moves
/// none.
pub struct Probe<'p, P>(pub &'p mut P);

impl<P: Packet> Packet for Probe<'_, P> {
    const EASY: bool = false;
    const LAST: bool = P::LAST;
    const SCTP: bool = P::SCTP;
    const PROBE: bool = true;
    crate::packet::as_the_one_inside!();
}

/// What a probe of this tuple is pinned by: an entry for its packets and one for the answers,
/// each with its key. It goes to a server with this address, port and method, whose next hop is
/// number `server`, and comes from the link of this number.
#[must_use]
pub fn pins<F: Family>(key: &Tuple<F::Addr>, to: &Server, server: u32, link: u32) -> [Pin<F>; 2] {
    let mut conn = Conn { server, ..Conn::default() };
    open::fill_request::<F>(&mut conn, key, to, Be16::new(0), &Whose::default());
    let request = (*key, conn.clone());
    let answer = if conn::paired(conn.kind) {
        let answer = conn::partner::<F>(key, &conn);
        open::turn_to_reply::<F>(&mut conn, key, link);
        answer
    } else {
        (conn.kind, conn.extra) = (kind::PROBE_ANSWER, S32::new(link));
        key.reversed()
    };
    [request, (answer, conn)]
}

/// An entry of PINS4 or PINS6.
pub type Pin<F> = (Tuple<<F as Family>::Addr>, Conn<<F as Family>::Addr>);

/// Whether a packet of this tuple is a probe's, or answers one.
#[inline(always)]
pub fn pinned<F: Family, T: Tables>(t: &T, settings: &Settings, key: &Tuple<F::Addr>) -> bool {
    settings.flags & setting::PROBES != 0 && F::pin(t, key).is_some()
}

/// Where such a packet goes on.
#[inline(always)]
pub fn verdict<F: Family, P: Packet>() -> Verdict {
    if P::LAST { Stage::Probe.verdict::<F>() } else { Verdict::of(Action::HandOver, Reason::HandedToTc) }
}

/// Where what comes by a link of probes goes on, IP or not.
#[inline(always)]
pub fn arrived<P: Packet>(p: &mut P, link: &Link) -> Verdict {
    if !P::LAST {
        return Verdict::of(Action::HandOver, Reason::HandedToTc);
    }
    p.pull(parse::HEADERS);
    match p.get::<EthHeader>(0) {
        Some(heads) if heads.dst == link.mac && p.stripped_tag().is_none() => match heads.ethertype.get() {
            eth::IPV4 => Stage::Probe.verdict::<crate::family::V4>(),
            eth::IPV6 => Stage::Probe.verdict::<crate::family::V6>(),
            _ => Verdict::drop(Reason::Unpinned),
        },
        _ => Verdict::drop(Reason::Unpinned),
    }
}

/// Whether the packet came by a link of probes.
#[inline(always)]
pub fn comes_from_one<P: Packet, T: Tables>(p: &P, t: &T) -> bool {
    t.link(p.ingress()).is_some_and(|link| link.flags & link_flag::PROBE != 0)
}

/// A probe's packet goes to the server it is pinned to, as a client's to the one it was
/// scheduled to.
#[inline(always)]
pub fn request<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, w: &Work<F>) -> Verdict {
    match F::pin(t, &w.flow.key) {
        Some(pin) if matches!(pin.kind, kind::NAT_REQUEST | kind::DR_REQUEST | kind::TUN_REQUEST) => {
            forward::request(&mut Probe(p), t, &w.flow, &Held::own(pin))
        }
        _ => Verdict::drop(Reason::Unpinned),
    }
}

/// A server's packet to a probe.
#[inline(always)]
pub fn answer<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, w: &Work<F>) -> Verdict {
    let Some(pin) = F::pin(t, &w.flow.key) else { return Verdict::pass(Reason::NoService) };
    match pin.kind {
        kind::PROBE_ANSWER => {}
        // As to a client: the host tells the server.
        kind::NAT_REPLY if w.flow.ip.ttl <= 1 => return Verdict::pass(Reason::ReplyExpires),
        kind::NAT_REPLY => {
            if !F::decrement_ttl(p) || !Rewrite::of(pin).apply(p, &w.flow) {
                return Verdict::drop(Reason::RewriteFailed);
            }
        }
        // With the addresses of a probe's packet, but not from where probes are.
        _ => return Verdict::drop(Reason::Unpinned),
    }
    give(p, t, pin.extra.load())
}

/// A finished packet goes into a link of probes.
#[inline(always)]
pub fn give<P: Packet, T: Tables>(p: &mut P, t: &T, ifindex: u32) -> Verdict {
    let link = t.link(ifindex).filter(|link| link.flags & link_flag::PROBE != 0);
    let (Some(link), Some(heads)) = (link, p.get_mut::<EthHeader>(0)) else {
        return Verdict::drop(Reason::RewriteFailed);
    };
    (heads.src, heads.dst) = (link.mac, link.mac);
    Verdict::out(Action::Transmit, Reason::ProbeReply, ifindex)
}
