//! Sending a connection's packet on: the route, TTL and MTU rules
//! (ipvs-semantics §2.1, packet-rules §2.2), then the rewrite of NAT (§2.2, 2.3).

use crate::conn::{self, Held};
use crate::cut::Parting;
use crate::direct::{Flow, Stage};
use crate::errors::{self, Notice};
use crate::family::{Address, Family, L3, pseudo_tail};
use crate::open::addr_delta;
use crate::packet::{L4, Packet};
use crate::parse::Fragment;
use crate::records::{Conn, Known, NextHop, hop, kind, setting, tunnel};
use crate::sctp::{self, Unfinished};
use crate::sync;
use crate::tables::{Route, Tables};
use crate::tunnel::{Learned, encapsulate, may_cut_all, unfinished};
use crate::verdict::{Action, Reason, Verdict};
use crate::ways;
use dirigent_wire::{Be16, EthHeader, Mac, Ports, UdpHeader, checksum, ip::proto};

/// A way out, decided. (Always with MACs, if not known then zero: see
/// [`conn::partner`] for why no `Option`.)
#[derive(Clone, Copy)]
pub struct Way {
    /// Interface.
    pub ifindex: u32,
    /// The MACs are to be written; else the kernel finds the neighbour.
    pub resolved: bool,
    /// Source MAC.
    pub src: Mac,
    /// Destination MAC.
    pub dst: Mac,
    /// Whose neighbour the kernel finds: a server's index + 1, by its next hop; 0: it
    /// routes by the packet.
    pub via: u32,
    /// Bytes that this way carries in one piece, if the packet is longer; else 0.
    pub cut: u32,
    /// See [`crate::tunnel::Outer`].
    pub smaller: bool,
}

impl Way {
    /// To a real server, whose next hop was found to be in this state.
    #[inline(always)]
    pub fn to(next: &NextHop, state: u32, server: u32) -> Self {
        let resolved = state == hop::RESOLVED;
        Self { ifindex: next.ifindex, resolved, src: next.src, dst: next.dst, via: server + 1, cut: 0, smaller: false }
    }
    /// Whether it is resolved still, now that all of the next hop is read: then all was of one.
    #[inline(always)]
    fn holds(&self, next: &NextHop) -> bool {
        self.resolved && hop::has_macs(next.state.load())
    }
    /// By an interface, to whom the kernel finds out.
    #[inline(always)]
    pub(crate) fn by(ifindex: u32) -> Self {
        Self { ifindex, resolved: false, src: Mac([0; 3]), dst: Mac([0; 3]), via: 0, cut: 0, smaller: false }
    }
    /// Finishes the frame.
    #[inline(always)]
    pub fn send<F: Family, P: Packet, T: Tables>(self, p: &mut P, t: &T, reason: Reason) -> Verdict {
        if !frame(p, &self.src, &self.dst) {
            return failed();
        }
        self.go::<F, P, T>(t, reason)
    }
    /// Sends a finished frame.
    #[inline(always)]
    fn go<F: Family, P: Packet, T: Tables>(self, t: &T, reason: Reason) -> Verdict {
        if !P::EASY && self.cut != 0 {
            return self.in_pieces(t, F::V6, reason);
        }
        Self::depart(t, self.resolved, self.ifindex, self.via, reason)
    }
    /// Finishes a frame that is too long.
    #[inline(always)]
    fn in_pieces<T: Tables>(self, t: &T, v6: bool, reason: Reason) -> Verdict {
        t.stash(Parting::new(&self, self.cut, reason).0);
        Verdict::out(Action::Continue, Reason::LaterStage, Stage::Cut.number(v6))
    }
    /// The verdict about a finished frame.
    #[inline(always)]
    pub fn depart<T: Tables>(t: &T, resolved: bool, ifindex: u32, via: u32, reason: Reason) -> Verdict {
        if resolved {
            return Verdict::out(Action::Transmit, reason, ifindex);
        }
        t.stash(u64::from(via));
        Verdict::out(Action::Resolve, reason, ifindex)
    }
}

/// Writes the frame's MACs, from where they are: by way of the stack it would take twice as long. (Word by word: else
/// the compiler calls `memmove`, a loop over bytes.)
#[inline(always)]
fn frame<P: Packet>(p: &mut P, src: &Mac, dst: &Mac) -> bool {
    let Some(eth) = p.get_mut::<EthHeader>(0) else { return false };
    let (Mac([a, b, c]), Mac([d, e, f])) = (*src, *dst);
    eth.src = Mac([a, b, c]);
    eth.dst = Mac([d, e, f]);
    true
}

/// One end of a packet rewritten: where, to what, and the checksum's change.
#[derive(Clone, Copy)]
pub struct Rewrite<A> {
    /// Whether anything is (not for direct routing).
    pub nat: bool,
    /// The source (replies) or the destination (requests).
    pub source: bool,
    /// New address.
    pub addr: A,
    /// New port.
    pub port: Be16,
    /// Checksum change by the address.
    pub addr_delta: u16,
    /// Checksum change by the port.
    pub port_delta: u16,
}

impl<A: Address> Rewrite<A> {
    /// What the entry says.
    #[inline(always)]
    pub fn of(conn: &Conn<A>) -> Self {
        Self {
            nat: matches!(conn.kind, kind::NAT_REQUEST | kind::NAT_REPLY),
            source: conn.is_reply(),
            addr: conn.addr,
            port: conn.port,
            addr_delta: conn.addr_delta,
            port_delta: conn.port_delta,
        }
    }

    /// Rewrites address, port and checksums.
    #[inline(always)]
    pub fn apply<F: Family<Addr = A>, P: Packet>(&self, p: &mut P, flow: &Flow<F>) -> bool {
        if !self.nat {
            return true;
        }
        let offset = if self.source { F::SRC_AT } else { F::SRC_AT + size_of::<A>() };
        if !P::EASY && flow.ip.fragment == Fragment::Later {
            return F::write_addr(p, L3, offset, self.addr, self.addr_delta);
        }
        if P::SCTP {
            return sctp::rewrite_port(p, flow, self.port, self.source)
                && F::write_addr(p, L3, offset, self.addr, self.addr_delta);
        }
        let Some(ports) = p.get_mut::<Ports>(flow.ip.l4) else { return false };
        if self.source {
            ports.src = self.port;
        } else {
            ports.dst = self.port;
        }
        if !F::write_addr(p, L3, offset, self.addr, self.addr_delta) {
            return false;
        }
        if !P::EASY && flow.l4.no_check {
            if flow.ip.fragment != Fragment::Whole {
                return true; // none it stays: nobody sees all that it would cover
            }
            let other = if self.source { &flow.ip.dst } else { &flow.ip.src };
            let addresses = checksum::add(self.addr.sum(), other.sum());
            return fill_udp_checksum(p, flow.ip.l4, flow.ip.l4_len(), addresses);
        }
        let l4 = if P::ALONE || flow.key.proto() == proto::UDP { L4::Udp } else { L4::Tcp };
        p.patch_translated(flow.l4.check_at, self.addr_delta, self.port_delta, l4, F::V6, || flow.pseudo())
    }
}

/// UDP without a checksum gets a full one when translated, as in IPVS.
/// `addresses`: the sum of both.
#[inline(never)]
fn fill_udp_checksum<P: Packet>(p: &mut P, at: usize, len: u32, addresses: u16) -> bool {
    let Some(data) = p.sum(at, len) else { return false };
    let check = match !checksum::add(data, checksum::add(addresses, pseudo_tail(proto::UDP, len))) {
        0 => 0xffff,
        sum => sum,
    };
    let Some(field) = p.get_mut::<Be16>(at + UdpHeader::CHECK) else { return false };
    *field = Be16::from_raw(check);
    true
}

/// IP bytes of the longest packet that goes on the wire: of a segmentation
/// offload packet each segment counts, not the whole.
#[inline(always)]
fn wire_len<F: Family, P: Packet>(p: &P, flow: &Flow<F>) -> u32 {
    match p.gso_size() {
        0 => flow.ip.len,
        size => (flow.ip.l4 - L3) as u32 + flow.l4.header + size,
    }
}

/// A client's packet to its real server.
#[inline(always)]
pub fn request<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, flow: &Flow<F>, conn: &Held<'_, F::Addr>) -> Verdict {
    let server = conn.server;
    let Some(next) = t.next_hop(server) else { return Verdict::drop(Reason::ServerRemoved) };
    let state = next.state.load();
    let len = wire_len::<F, P>(p, flow);
    let mut long = len > next.room() && hop::leads(state);
    if !P::EASY && state == hop::REMOVED {
        return Verdict::drop(Reason::ServerRemoved);
    }
    if P::SCTP {
        let unfinished = sctp::unfinished(p, flow);
        let covered = next.tunnelled() && next.flags & tunnel::CHECKSUM != 0;
        if unfinished == Unfinished::Segments || (covered && unfinished == Unfinished::Crc) {
            return Verdict::drop(Reason::SctpOffload);
        }
        if sctp::changes_a_piece(&Rewrite::of(conn), flow) {
            return Verdict::drop(Reason::SctpPiece);
        }
    }
    let plain = !flow.l4.no_check && next.flags & tunnel::CHECKSUM == 0;
    let easy = state == hop::RESOLVED && !long && flow.ip.ttl > 1 && plain;
    if P::EASY && (!easy || conn::tells_template(&flow.key, conn, flow.l4.flags)) {
        return later::<F, T>(t);
    }
    if P::EASY && sync::concerns::<F, T>(t, &flow.key, conn, flow.l4.flags) {
        return Stage::Tell.verdict::<F>();
    }
    let mut smaller = false;
    if !P::EASY && long {
        if let Some(settings) = t.settings()
            && Learned::forget_old(next, settings, t.now())
        {
            long = len > next.room();
        }
        // Segments that the device has yet to make can as well be shorter.
        smaller = long && next.tunnelled() && p.gso_size() != 0 && len <= next.path_mtu();
        long &= !smaller;
    }
    let outside = !P::EASY && long && !F::V6 && may_cut_all(t, next);
    let cut = !P::EASY && long && (flow.ip.may_cut || outside);
    if !P::LAST && (state == hop::NO_NEIGHBOUR || cut) {
        return Verdict::of(Action::HandOver, Reason::HandedToTc);
    }
    if !P::EASY && cut && next.tunnelled() && !outside {
        if uncuttable(p, flow) {
            return Verdict::drop(Reason::Uncut);
        }
        // Each piece then comes along here by itself and gets an outer header of its own:
        // nobody has to put tunnelled packets together (RFC 4459 §3.1, difference C2).
        t.stash(Parting::again(next.room()).0);
        return Stage::Cut.verdict::<F>();
    }
    if !P::PROBE && (P::EASY || flow.ip.fragment != Fragment::Later) {
        conn::on_packet::<F, P, T>(t, &flow.key, conn, flow.l4.flags);
    }
    let rewrite = Rewrite::of(conn);
    if !conn.lasts() {
        return later::<F, T>(t);
    }
    if !P::PROBE {
        conn.touch(t.now());
        t.count(server, false, flow.ip.len);
    }
    if !P::EASY {
        match state {
            hop::RESOLVED | hop::NO_NEIGHBOUR => {}
            // The answer of this host's stack would not find back to the probe.
            hop::LOCAL if P::PROBE => return Verdict::drop(Reason::ClientOnDirector),
            hop::LOCAL => return deliver(p, flow, rewrite),
            _ => return errors::refuse::<F, T>(t, Notice::NoRoute, 0),
        }
        if flow.ip.ttl <= 1 {
            return errors::refuse::<F, T>(t, Notice::TimeExceeded, 0);
        }
        if cut && uncuttable(p, flow) {
            // The host's stack routes and cuts it, TTL included. But with the virtual
            // address still in it the packet would be one for the host itself.
            return match rewrite.nat && !P::PROBE {
                true if rewrite.apply(p, flow) => Verdict::of(Action::Forward, Reason::Request),
                _ => Verdict::drop(Reason::Uncut),
            };
        }
    }
    if !F::decrement_ttl(p) {
        return failed();
    }
    if !P::EASY && long && !cut {
        return errors::refuse::<F, T>(t, Notice::TooBig, next.room());
    }
    let mut way = Way::to(next, state, server);
    if cut {
        way.cut = next.path_mtu();
    }
    if !rewrite.apply(p, flow) {
        return failed();
    }
    way.smaller = smaller;
    dispatch(p, t, flow, next, way, Reason::Request)
}

/// Sends a packet that is as its server will see it: in a tunnel, if there is one.
#[inline(always)]
pub fn dispatch<F: Family, P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    flow: &Flow<F>,
    next: &NextHop,
    way: Way,
    reason: Reason,
) -> Verdict {
    if !next.tunnelled() {
        if !frame(p, &next.src, &next.dst) {
            return failed();
        }
        return Way { resolved: way.holds(next), ..way }.go::<F, P, T>(t, reason);
    }
    if !P::CARRIES {
        t.stash(Load::new(&way, reason).0);
        return Stage::Encapsulate.verdict::<F>();
    }
    if !encapsulate(p, t, flow, next, (false, false)) {
        return failed();
    }
    Way::depart(t, way.holds(next), way.ifindex, 0, reason)
}

/// What [`Stage::Encapsulate`] needs to know: one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load(pub u64);

impl Load {
    const CUT: u64 = 1 << 32;
    const SMALLER: u64 = 1 << 33;
    const ICMP: u64 = 1 << 34;
    const RESOLVED: u64 = 1 << 35;

    #[inline(always)]
    fn new(way: &Way, reason: Reason) -> Self {
        let bit = |set, bit| if set { bit } else { 0 };
        let icmp = reason as u8 == Reason::IcmpRequest as u8;
        let bits = bit(way.cut != 0, Self::CUT) | bit(way.smaller, Self::SMALLER) | bit(icmp, Self::ICMP);
        let bits = bits | bit(way.resolved, Self::RESOLVED);
        Load(u64::from(way.via.wrapping_sub(1)) | bits)
    }
}

/// Puts a packet, whose TTL is decremented already, into its server's tunnel.
#[inline(always)]
pub fn carry<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, flow: &Flow<F>, load: Load) -> Verdict {
    let server = load.0 as u32;
    let Some(next) = t.next_hop(server) else { return Verdict::drop(Reason::ServerRemoved) };
    let reason = if load.0 & Load::ICMP != 0 { Reason::IcmpRequest } else { Reason::Request };
    let is = |bit| load.0 & bit != 0;
    if !encapsulate(p, t, flow, next, (is(Load::SMALLER), is(Load::CUT))) {
        return failed();
    }
    let cut = if is(Load::CUT) { next.path_mtu() } else { 0 };
    let state = if is(Load::RESOLVED) { hop::RESOLVED } else { hop::NO_NEIGHBOUR };
    let way = Way { via: 0, cut, ..Way::to(next, state, server) };
    if cut != 0 {
        return way.in_pieces(t, next.flags & tunnel::PEER_V6 != 0, reason);
    }
    Way::depart(t, way.holds(next), way.ifindex, 0, reason)
}

/// Whether a packet stands for several, or its checksum for one that the device has yet
/// to finish: pieces of such a packet would be wrong.
#[inline(always)]
fn uncuttable<F: Family, P: Packet>(p: &P, flow: &Flow<F>) -> bool {
    if P::SCTP {
        return sctp::unfinished(p, flow) != Unfinished::No;
    }
    p.gso_size() != 0 || p.sum(flow.ip.l4, flow.ip.l4_len()).is_none_or(|sum| unfinished(p, flow, sum))
}

#[inline(always)]
fn later<F: Family, T: Tables>(t: &T) -> Verdict {
    // What an earlier packet's stages left says nothing of this one.
    t.stash(0);
    Stage::Slow.verdict::<F>()
}

#[inline(always)]
fn failed() -> Verdict {
    Verdict::drop(Reason::RewriteFailed)
}

/// The server is this host: up the stack, no TTL, no MTU.
#[inline(always)]
fn deliver<F: Family, P: Packet>(p: &mut P, flow: &Flow<F>, rewrite: Rewrite<F::Addr>) -> Verdict {
    if !rewrite.apply(p, flow) {
        return failed();
    }
    Verdict::of(Action::Deliver, Reason::LocalServer)
}

/// The way to the client, or the verdict that stands instead. `link`: where the
/// client's packets come in, for a host that does not forward.
#[inline(always)]
pub fn way_out<F: Family, P: Packet, T: Tables>(
    p: &P,
    t: &T,
    from: &F::Addr,
    to: &F::Addr,
    len: u32,
    may_cut: bool,
    link: u32,
) -> Result<Way, Verdict> {
    follow::<F, P, T>(t, F::route(t, p.ingress(), from, to, len), may_cut, link)
}

/// The way that the routing table told of, or the verdict that stands instead.
#[inline(always)]
fn follow<F: Family, P: Packet, T: Tables>(t: &T, route: Route, may_cut: bool, link: u32) -> Result<Way, Verdict> {
    match route {
        Route::To { ifindex, src, dst, .. } => Ok(Way { resolved: true, src, dst, ..Way::by(ifindex) }),
        Route::TooBig(_) if !may_cut => Err(Verdict::pass(Reason::ReplyTooBig)),
        Route::TooBig(_) if P::EASY => Err(later::<F, T>(t)),
        Route::None => Err(Verdict::drop(Reason::ReplyUnroutable)),
        _ if !P::LAST => Err(Verdict::of(Action::HandOver, Reason::HandedToTc)),
        Route::NoNeighbour(ifindex) => Ok(Way::by(ifindex)),
        Route::NotForwarding => Ok(Way::by(link)),
        // The stage that cuts it asks where the pieces go.
        Route::TooBig(mtu) => Ok(Way { cut: mtu, ..Way::by(link) }),
    }
}

/// The source address by which a reply is routed.
#[inline(always)]
fn routed_source<F: Family, T: Tables>(t: &T, flow: &Flow<F>, vip: F::Addr) -> F::Addr {
    let reroute = t.settings().is_some_and(|s| s.flags & setting::SNAT_REROUTE != 0);
    if reroute { vip } else { flow.ip.src }
}

/// The way of a server's packet to its client: the one that it went by just now, or what the routing table says. (Of
/// packets that are not easy, which are few, the table's: else each later program would have all of it twice.)
#[inline(always)]
fn way_back<F: Family, P: Packet, T: Tables>(
    p: &P,
    t: &T,
    flow: &Flow<F>,
    conn: &Held<'_, F::Addr>,
) -> Result<Way, Verdict> {
    let Some(settings) = t.settings() else { return Err(Verdict::pass(Reason::NotConfigured)) };
    let len = wire_len::<F, P>(p, flow);
    if P::EASY
        && let Some(way) = ways::recall(t, settings, conn, len)
    {
        return Ok(way);
    }
    let from = routed_source::<F, T>(t, flow, conn.addr);
    let route = F::route(t, p.ingress(), &from, &flow.ip.dst, len);
    if P::EASY {
        ways::remember(t, settings, conn, &route);
    }
    follow::<F, P, T>(t, route, flow.ip.may_cut, conn.extra.load())
}

/// A server's packet to its client.
#[inline(always)]
pub fn reply<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, flow: &Flow<F>, conn: &Held<'_, F::Addr>) -> Verdict {
    if flow.ip.ttl <= 1 {
        return Verdict::pass(Reason::ReplyExpires);
    }
    if P::EASY && (flow.l4.no_check || conn::tells_template(&flow.key, conn, flow.l4.flags)) {
        return later::<F, T>(t);
    }
    if P::SCTP {
        if sctp::unfinished(p, flow) == Unfinished::Segments {
            return Verdict::drop(Reason::SctpOffload);
        }
        if sctp::changes_a_piece(&Rewrite::of(conn), flow) {
            return Verdict::drop(Reason::SctpPiece);
        }
    }
    let way = match way_back::<F, P, T>(p, t, flow, conn) {
        Ok(way) => way,
        Err(verdict) => return verdict,
    };
    if !P::EASY && way.cut != 0 && uncuttable(p, flow) {
        return Verdict::drop(Reason::Uncut);
    }
    if P::EASY || flow.ip.fragment != Fragment::Later {
        conn::on_packet::<F, P, T>(t, &flow.key, conn, flow.l4.flags);
    }
    let (server, rewrite) = (conn.server, Rewrite::of(conn));
    if !conn.lasts() {
        return later::<F, T>(t);
    }
    conn.touch(t.now());
    t.count(server, true, flow.ip.len);
    if !F::decrement_ttl(p) || !rewrite.apply(p, flow) {
        return failed();
    }
    way.send::<F, P, T>(p, t, Reason::Reply)
}

/// An answer of a real server on this host, on its way out: translated in
/// place, the host's own route and TTL stand.
#[inline(always)]
pub fn local_reply<F: Family, P: Packet, T: Tables>(
    p: &mut P,
    t: &T,
    flow: &Flow<F>,
    conn: &Held<'_, F::Addr>,
) -> Verdict {
    if P::SCTP && sctp::unfinished(p, flow) == Unfinished::Segments {
        return Verdict::drop(Reason::SctpOffload);
    }
    conn::on_packet::<F, P, T>(t, &flow.key, conn, flow.l4.flags);
    let (server, rewrite) = (conn.server, Rewrite::of(conn));
    if !conn.lasts() {
        return Verdict::pass(Reason::NoService);
    }
    conn.touch(t.now());
    t.count(server, true, flow.ip.len);
    if !rewrite.apply(p, flow) {
        return failed();
    }
    Verdict::of(Action::Deliver, Reason::LocalReply)
}

/// An answer to a one-packet service: no entry says whose it is, but only one
/// such service has this server (difference C9: IPVS lets it leak).
#[inline(always)]
pub fn one_packet_reply<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, flow: &Flow<F>, known: &Known) -> Verdict {
    let (vip, vport): (F::Addr, Be16) = (Address::from_words(&known.vip), known.vport);
    if flow.ip.ttl <= 1 {
        return Verdict::pass(Reason::ReplyExpires);
    }
    let from = routed_source::<F, T>(t, flow, vip);
    let way = match way_out::<F, P, T>(p, t, &from, &flow.ip.dst, flow.ip.len, flow.ip.may_cut, p.ingress()) {
        Ok(way) => way,
        Err(verdict) => return verdict,
    };
    if way.cut != 0 && uncuttable(p, flow) {
        return Verdict::drop(Reason::Uncut);
    }
    t.count(known.server, true, flow.ip.len);
    let rewrite = Rewrite {
        nat: true,
        source: true,
        addr: vip,
        port: vport,
        addr_delta: addr_delta(&flow.ip.src, &vip),
        port_delta: checksum::delta(flow.key.sport.raw(), vport.raw()),
    };
    if !F::decrement_ttl(p) || !rewrite.apply(p, flow) {
        return failed();
    }
    way.send::<F, P, T>(p, t, Reason::OnePacketReply)
}
