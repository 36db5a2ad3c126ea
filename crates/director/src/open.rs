//! New connections: may this packet open one, with which server, and the two
//! entries of a NAT connection as one step.

use crate::conn::{self, Expiry, Held, Word};
use crate::direct::{Flow, Stage, Work};
use crate::errors::{self, Notice};
use crate::family::{Address, Family};
use crate::forward;
use crate::ftp;
use crate::mark;
use crate::packet::Packet;
use crate::parse::Fragment;
use crate::persist::Whose;
use crate::records::{Conn, NEW_FLOWS, Place, Server, Tuple, conn_flag, kind, service_flag, setting};
use crate::schedule::{self, Client};
use crate::sctp;
use crate::shared::{S32, S64};
use crate::tables::{Insert, Tables};
use crate::tcp::{self, Direction, Event, State};
use crate::verdict::{Action, Decision, Reason, Verdict};
use dirigent_wire::{Be16, TcpHeader, checksum, ip::proto};

/// The first port that needs no privilege (Linux's default).
const UNPRIVILEGED: u16 = 1024;

/// The service of just this place: its index.
#[inline(always)]
pub fn service<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>) -> Option<u32> {
    F::service(t, &Place::new(key.proto(), key.dst, key.dport))
}

/// The service a client's packet of this tuple is for, in IPVS's order: that of its mark, of
/// its place, of FTP's control connections if it may be one for data, of its address.
#[inline(always)]
pub fn find<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>, mark: u32) -> Option<u32> {
    if mark != 0
        && let Some(index) = F::service(t, &Place::mark(Address::of_mark(mark)))
    {
        return Some(index);
    }
    if let Some(index) = service::<F, T>(t, key) {
        return Some(index);
    }
    let (flags, port) = (t.settings()?.flags, key.dport.get());
    if flags & setting::FTP != 0
        && key.proto() == proto::TCP
        && (port == ftp::DATA || port >= UNPRIVILEGED)
        && let Some(index) = F::service(t, &Place::new(proto::TCP, key.dst, Be16::new(ftp::CONTROL)))
    {
        return Some(index);
    }
    if flags & setting::ANY_PORT == 0 {
        return None;
    }
    F::service(t, &Place::new(key.proto(), key.dst, Be16::new(0)))
}

/// A connection to be bound.
#[derive(Clone, Copy)]
pub struct Wish {
    /// Index of the virtual service.
    pub service: u32,
    /// Index of the real server, once chosen.
    pub server: u32,
    /// It is chosen.
    pub chosen: bool,
    /// What stands in the way of its answers was looked at, and stays.
    pub obstructed: bool,
    /// The interface of its first packet.
    pub ingress: u32,
    /// The first packet's firewall mark.
    pub mark: u32,
    /// Its template.
    pub whose: Whose,
    /// The state it begins in.
    pub state: u8,
    /// The port that its packets go to; 0: the server's own, or if it has none the packet's.
    pub port: Be16,
    /// One-packet scheduling.
    pub one_packet: bool,
    /// The service is a persistent one.
    pub persistent: bool,
    /// It is one of QUIC.
    pub quic: bool,
    /// Another director opened it, and counted it.
    pub learned: bool,
}

impl Wish {
    /// What stands where a server would is the service's index.
    const SERVICE: u64 = 1 << 60;
    /// No other server than the chosen one may have it: that one knows the connection.
    const ONLY: u64 = 1 << 61;
    const CHOSEN: u64 = 1 << 62;
    const OBSTRUCTED: u64 = 1 << 63;
    /// Bits of an index.
    const INDEX: u32 = 0x0fff_ffff;

    /// For this service with these flags, of a packet that came in by `ingress`; `word` is
    /// what an earlier stage left of it: [`Wish::word`], [`Wish::of`] or 0.
    #[inline(always)]
    pub fn new(service: u32, flags: u32, ingress: u32, udp: bool, word: u64) -> Self {
        let mark = word as u32;
        Self {
            service,
            server: Self::server_of(word),
            chosen: word & Self::CHOSEN != 0,
            obstructed: word & Self::OBSTRUCTED != 0,
            ingress,
            mark,
            whose: Whose { mark, ..Whose::default() },
            state: 0,
            port: Be16::new(0),
            one_packet: udp && flags & service_flag::ONE_PACKET != 0,
            persistent: flags & service_flag::PERSISTENT != 0,
            quic: udp && flags & service_flag::QUIC != 0,
            learned: false,
        }
    }
    /// The server in such a word.
    #[inline(always)]
    pub fn server_of(word: u64) -> u32 {
        (word >> 32) as u32 & Self::INDEX
    }
    /// What a later stage has to know of it: the mark, and the server if one is chosen.
    #[inline(always)]
    pub fn word(mark: u32, server: Option<u32>) -> u64 {
        u64::from(mark) | server.map_or(0, |server| u64::from(server & Self::INDEX) << 32 | Self::CHOSEN)
    }
    /// The same where only this server knows the connection.
    #[inline(always)]
    pub fn only(mark: u32, server: u32) -> u64 {
        Self::word(mark, Some(server)) | Self::ONLY
    }
    /// What a later stage has to know of an unmarked packet whose service is found.
    #[inline(always)]
    pub fn of(service: u32) -> u64 {
        u64::from(service & Self::INDEX) << 32 | Self::SERVICE
    }
    /// The service in such a word.
    #[inline(always)]
    fn service_of(word: u64) -> Option<u32> {
        if word & Self::SERVICE != 0 { Some((word >> 32) as u32 & Self::INDEX) } else { None }
    }
}

/// Whether this packet may open a connection; for which service, or what becomes of it.
#[inline(always)]
pub fn admit<F: Family, P: Packet, T: Tables>(p: &P, t: &T, flow: &Flow<F>) -> Decision<Wish> {
    let (key, word) = (&flow.key, t.stashed());
    let found = Wish::service_of(word).or_else(|| find::<F, T>(t, key, word as u32));
    let Some(index) = found else { return Err(Stage::Stranger.verdict::<F>()) };
    if flow.ip.fragment == Fragment::Later {
        // Of a one-packet service it cannot follow its first.
        return Err(Verdict::drop(Reason::FragNoFirst));
    }
    let by_mark = || F::local_by_mark(t, &key.dst) || mark::led_here(p, t);
    if !F::local(t, &key.dst) && (word as u32 == 0 || !by_mark()) {
        return Err(Verdict::pass(Reason::NotHeld));
    }
    if key.src.impossible_source() || F::local(t, &key.src) {
        return Err(Verdict::drop(Reason::Martian));
    }
    let Some(settings) = t.settings() else { return Err(Verdict::pass(Reason::NotConfigured)) };
    let flags = t.service(index).map_or(0, |service| service.flags);
    let mut wish = Wish::new(index, flags, p.ingress(), key.proto() == proto::UDP, word);
    let stateless = flags & service_flag::STATELESS != 0;
    wish.whose.flags = t.forget(ftp::flag(key).into()) as u8;
    if key.proto() == proto::TCP {
        let sloppy = settings.flags & setting::SLOPPY_TCP != 0 || stateless;
        if flow.l4.flags & TcpHeader::RST != 0 || !(sloppy || flow.l4.flags & TcpHeader::SYN != 0) {
            return Err(Verdict::pass(Reason::NotSyn));
        }
        if key.sport == Be16::new(ftp::DATA) {
            return Err(Verdict::pass(Reason::FtpData));
        }
        if settings.flags & setting::SECURE_TCP == 0 {
            let state = tcp::next(Direction::In, Event::of(flow.l4.flags), State::None as u8);
            // Or all that follows is verified for each.
            wish.state = t.forget(state.into()) as u8;
        } // Else it depends on the server, and moves when the packet goes on.
    } else if key.proto() == proto::SCTP {
        let sloppy = settings.flags & setting::SLOPPY_SCTP != 0 || stateless;
        // The state moves when the packet goes on: a second INIT would move it again.
        match flow.l4.flags {
            sctp::event::INIT => {}
            sctp::event::NOTHING => return Err(Verdict::drop(Reason::ShortTransport)),
            said if sloppy && said != sctp::event::ABORT => {}
            _ => return Err(Verdict::pass(Reason::NotSyn)),
        }
        if key.sport == Be16::new(ftp::DATA) {
            return Err(Verdict::pass(Reason::FtpData));
        }
    }
    Ok(wish)
}

/// Opens a connection for a packet that has none, or says what becomes of it.
#[inline(always)]
pub fn open<F: Family, P: Packet, T: Tables>(p: &P, t: &mut T, w: &mut Work<F>) -> Decision<()> {
    let mut wish = admit::<F, P, T>(p, t, &w.flow)?;
    if !wish.chosen && denies::<F, T>(t, wish.service, &w.flow.key.src) {
        return Err(Verdict::drop(Reason::Denied));
    }
    // Once a packet: it may be here again when what was in its way is gone.
    if !wish.chosen && !wish.obstructed && is_shed(t) {
        return Err(Verdict::drop(Reason::DropPacket));
    }
    if wish.persistent {
        return Err(Stage::Persist.verdict::<F>());
    }
    if !wish.chosen {
        if wish.quic {
            return Err(Stage::Quic.verdict::<F>());
        }
        wish.server = choose::<F, T>(t, w, wish.service, wish.mark)?;
    }
    if wish.one_packet {
        return Err(Stage::OnePacket.verdict::<F>());
    }
    let Work { flow, conn, reply, .. } = w;
    connect::<F, T>(t, &flow.key, wish, (conn, reply))
}

/// Whether the service is not for this client. Looked at where connections are opened, and
/// nowhere else: those that are known cost no more for it.
#[inline(always)]
pub fn denies<F: Family, T: Tables>(t: &T, service: u32, client: &F::Addr) -> bool {
    let judged = t.service(service).is_some_and(|service| service.flags & service_flag::JUDGED != 0);
    judged && !F::allows(t, service, client)
}

/// The real server of a new flow of this service, which a later stage will find stashed too.
#[inline(always)]
fn choose<F: Family, T: Tables>(t: &T, w: &mut Work<F>, index: u32, mark: u32) -> Decision<u32> {
    let Work { flow, client, .. } = w;
    let key = &flow.key;
    t.keep(t.service(index).map_or(0, |service| service.cursor.load()));
    let resumes = resumes::<F, T>(t, flow, index);
    let server = server_for::<F, T>(t, key, index, resumes, client).ok_or_else(|| nobody::<F, T>(t, key, index))?;
    t.stash(if resumes { Wish::only(mark, server) } else { Wish::word(mark, Some(server)) });
    Ok(server)
}

/// [`Stage::Choose`].
#[inline(always)]
pub fn choose_first<F: Family, T: Tables>(t: &T, w: &mut Work<F>) -> Decision<()> {
    let mark = t.stashed() as u32;
    let index = find::<F, T>(t, &w.flow.key, mark).ok_or(Verdict::drop(Reason::Raced))?;
    choose::<F, T>(t, w, index, mark).map(|_| ())
}

/// Whether the connection of this packet began elsewhere: see [`Client::resumes`].
#[inline(always)]
fn resumes<F: Family, T: Tables>(t: &T, flow: &Flow<F>, index: u32) -> bool {
    let stateless = t.service(index).is_some_and(|service| service.flags & service_flag::STATELESS != 0);
    stateless
        && match flow.key.proto() {
            proto::TCP => flow.l4.flags & TcpHeader::SYN == 0,
            proto::SCTP => flow.l4.flags != sctp::event::INIT,
            _ => false,
        }
}

/// Schedules `key`.
#[inline(always)]
pub fn server_for<F: Family, T: Tables>(
    t: &T,
    key: &Tuple<F::Addr>,
    index: u32,
    resumes: bool,
    whose: &mut Client,
) -> Option<u32> {
    let service = t.service(index)?;
    // A packet that FTP's service got for its data: only persistence has it go anywhere.
    if service.flags & (service_flag::BY_MARK | service_flag::PERSISTENT) == 0 && service.port != key.dport {
        return None;
    }
    *whose = Client { resumes, ..client::<F>(key, index) };
    t.schedule(whose)
}

/// Whether a packet that would open a connection is the one in so many that is dropped
/// (`drop_packet`, ipvs-semantics §3.7): the first, and each `drop_rate`th after it.
#[inline(always)]
fn is_shed<T: Tables>(t: &T) -> bool {
    let rate = t.settings().map_or(0, |settings| settings.drop_rate);
    if rate == 0 {
        return false;
    }
    let Some(flows) = t.error_budget(NEW_FLOWS) else { return false };
    // Another CPU may read the same number: one in about so many.
    let seen = flows.load();
    flows.add(1);
    seen % u64::from(rate) == 0
}

/// No server takes a connection (ipvs-semantics §0.2).
#[inline(always)]
pub fn nobody<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>, service: u32) -> Verdict {
    let service = t.service(service);
    let by_mark = service.is_some_and(|service| service.flags & service_flag::BY_MARK != 0);
    let bypass = t.settings().is_some_and(|settings| settings.flags & setting::CACHE_BYPASS != 0);
    if by_mark && bypass {
        return Verdict::pass(Reason::Bypassed);
    }
    if key.dport != Be16::new(ftp::CONTROL) && service.is_some_and(|service| service.port == Be16::new(ftp::CONTROL)) {
        return Verdict::pass(Reason::FtpData);
    }
    errors::refuse::<F, T>(t, Notice::NoServer, 0)
}

/// Where a new entry and its reply's key are put together.
type Room<'w, F> = (&'w mut Conn<<F as Family>::Addr>, &'w mut Tuple<<F as Family>::Addr>);

/// What schedulers may know of a packet.
#[inline(always)]
pub fn client<F: Family>(key: &Tuple<F::Addr>, service: u32) -> Client {
    let (addr, dest) = (key.src.hash_fold(), key.dst.hash_fold());
    Client { addr, port: key.sport.get(), dest, to: key.dst.to_words(), service, resumes: false }
}

/// Inserts the entries of `key` on the wish's server, or on another if that one cannot be.
#[inline(always)]
pub fn connect<F: Family, T: Tables>(
    t: &mut T,
    key: &Tuple<F::Addr>,
    mut wish: Wish,
    (conn, reply): Room<'_, F>,
) -> Decision<()> {
    match bind::<F, T>(t, key, &wish, conn, reply) {
        Bound::Done | Bound::There => return Ok(()),
        Bound::Refused(verdict) => return Err(verdict),
        Bound::Taken if !wish.obstructed && idle::<F, T>(t, reply) => return Err(clear::<F, T>(t, &wish)),
        Bound::Taken => {}
    }
    // This client port talks to that server by another virtual address already:
    // the answers could not be told apart. Another server keeps both alive.
    let taken = Verdict::drop(Reason::ReplyKeyTaken);
    if t.stashed() & Wish::ONLY != 0 {
        return Err(taken);
    }
    wish.server = schedule::first_free::<F, T>(t, wish.service, key).ok_or(taken)?;
    match bind::<F, T>(t, key, &wish, conn, reply) {
        Bound::Done | Bound::There => Ok(()),
        Bound::Refused(verdict) => Err(verdict),
        Bound::Taken => Err(taken),
    }
}

/// How binding a connection to one server ended.
pub enum Bound {
    /// It is bound.
    Done,
    /// Another CPU opened it: that one's entry counts.
    There,
    /// The answers' tuple belongs to another connection.
    Taken,
    /// It cannot be.
    Refused(Verdict),
}

/// The change of a checksum when `old` becomes `new`.
#[inline(always)]
pub fn addr_delta<A: Address>(old: &A, new: &A) -> u16 {
    checksum::add(checksum::negate(old.sum()), new.sum())
}

/// The tuple of this server's answers to `key`, where it would be a NAT server.
#[inline(always)]
pub fn reply_tuple<F: Family>(key: &Tuple<F::Addr>, server: &Server) -> Tuple<F::Addr> {
    let port = if server.port != Be16::new(0) { server.port } else { key.dport };
    Tuple::new(key.proto(), Address::from_words(&server.addr), port, key.src, key.sport)
}

/// Writes the request entry of `key` on this server.
#[inline(always)]
pub(crate) fn fill_request<F: Family>(
    conn: &mut Conn<F::Addr>,
    key: &Tuple<F::Addr>,
    server: &Server,
    port: Be16,
    whose: &Whose,
) {
    let nat = server.method == kind::NAT_REQUEST;
    conn.addr = if nat { Address::from_words(&server.addr) } else { key.dst };
    let port = if port == Be16::new(0) { server.port } else { port };
    conn.port = if nat && port != Be16::new(0) { port } else { key.dport };
    conn.addr_delta = addr_delta(&key.dst, &conn.addr);
    conn.port_delta = checksum::delta(key.dport.raw(), conn.port.raw());
    (conn.kind, conn.flags, conn.extra) = (server.method, whose.flags, S32::new(0));
    (conn.mark, conn.mask, conn.template) = (whose.mark, whose.mask, S32::new(whose.tag));
    (conn.link, conn.timeout) = (S64::new(0), S32::new(0));
}

/// Turns the request entry into that of the answers.
#[inline(always)]
pub(crate) fn turn_to_reply<F: Family>(conn: &mut Conn<F::Addr>, key: &Tuple<F::Addr>, ingress: u32) {
    (conn.addr, conn.port) = (key.dst, key.dport);
    conn.addr_delta = checksum::negate(conn.addr_delta);
    conn.port_delta = checksum::negate(conn.port_delta);
    (conn.kind, conn.extra) = (kind::NAT_REPLY, S32::new(ingress));
}

/// Binds a connection to the wish's server: its entries and counts, all or nothing.
#[inline(never)]
pub fn bind<F: Family, T: Tables>(
    t: &mut T,
    key: &Tuple<F::Addr>,
    wish: &Wish,
    conn: &mut Conn<F::Addr>,
    reply: &mut Tuple<F::Addr>,
) -> Bound {
    let word = Word::new(wish.state, conn::is_active(key.proto(), wish.state), t.random());
    conn.word = S64::new(word.0);
    conn.last_seen = S32::new(t.now());
    conn.packets = S32::new(0);
    (conn.server, conn.service) = (wish.server, wish.service);
    {
        let Some(server) = t.server(wish.server) else { return Bound::Refused(Verdict::drop(Reason::Raced)) };
        fill_request::<F>(conn, key, server, wish.port, &wish.whose);
        server.add_connection(word.active());
    }
    let paired = conn::paired(conn.kind);
    let bound = if !paired {
        conn::insert::<F, T>(t, key, conn)
    } else if conn.addr == key.src {
        undo(t, wish.server, word);
        return Bound::Refused(Verdict::drop(Reason::ServerIsClient));
    } else {
        *reply = conn::partner::<F>(key, conn);
        turn_to_reply::<F>(conn, key, wish.ingress);
        match conn::insert::<F, T>(t, reply, conn) {
            Insert::Exists => {
                undo(t, wish.server, word);
                // Either another connection has this reply tuple, or another CPU is opening
                // this very connection: its other entry is there when the packet has come round.
                let ours = F::conn(t, key).is_some() || conn::is_young_reply_of::<F, T>(t, reply, key);
                return if ours { Bound::There } else { Bound::Taken };
            }
            Insert::Full => Insert::Full,
            Insert::Done => {
                if let Some(server) = t.server(wish.server) {
                    fill_request::<F>(conn, key, server, wish.port, &wish.whose);
                }
                match conn::insert::<F, T>(t, key, conn) {
                    Insert::Done => Insert::Done,
                    failed => {
                        conn::remove_other::<F, T>(t, reply, word);
                        failed
                    }
                }
            }
        }
    };
    match bound {
        Insert::Done => {
            // Data connections were not scheduled.
            if wish.whose.flags & conn_flag::FTP_DATA == 0 && !wish.learned {
                t.count_conn(wish.server);
            }
            Bound::Done
        }
        Insert::Exists => {
            undo(t, wish.server, word);
            Bound::There
        }
        Insert::Full => {
            undo(t, wish.server, word);
            Bound::Refused(Verdict::drop(Reason::TableFull))
        }
    }
}

#[inline(always)]
fn undo<T: Tables>(t: &T, number: u32, word: Word) {
    if let Some(server) = t.server(number) {
        server.remove_connection(word.active());
    }
}

/// Whether the entry under this key may be past its timeout.
#[inline(always)]
pub fn idle<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>) -> bool {
    let (Some(settings), Some(entry)) = (t.settings(), conn::held::<F, T>(t, key)) else { return true };
    conn::looks_idle(settings, key.proto(), &entry, t.now())
}

/// To have what is in the way of the answers of this wish's server looked at.
#[inline(always)]
pub fn clear<F: Family, T: Tables>(t: &T, wish: &Wish) -> Verdict {
    t.stash(Wish::word(wish.mark, Some(wish.server)) | t.stashed() & Wish::ONLY);
    Stage::Clear.verdict::<F>()
}

/// [`Stage::Clear`]: ends a connection past its timeout whose answers would be mistaken for
/// those of the new one.
#[inline(always)]
pub fn make_way<F: Family, T: Tables>(t: &mut T, w: &mut Work<F>, word: u64) {
    let Work { flow, reply, .. } = w;
    let Some(server) = t.server(Wish::server_of(word)) else { return };
    *reply = reply_tuple::<F>(&flow.key, server);
    if conn::expire::<F, T>(t, reply, false) == Expiry::Alive {
        t.stash(word | Wish::OBSTRUCTED);
    }
}

/// A packet of a one-packet service: it is UDP, and of no connection whose state it could move.
pub struct Alone<'p, P>(&'p mut P);

impl<P: Packet> Packet for Alone<'_, P> {
    const EASY: bool = false;
    const LAST: bool = P::LAST;
    const ALONE: bool = true;
    crate::packet::as_the_one_inside!();
}

/// [`Stage::OnePacket`]: sends the packet to the server that was chosen; nothing is remembered.
#[inline(always)]
pub fn one_packet<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Verdict {
    let Work { flow, conn, .. } = w;
    let word = t.stashed();
    let Some(index) = find::<F, T>(t, &flow.key, word as u32) else { return Verdict::drop(Reason::Raced) };
    let Some(service) = t.service(index) else { return Verdict::drop(Reason::Raced) };
    let number = Wish::server_of(word);
    let Some(server) = t.server(number) else { return Verdict::drop(Reason::Raced) };
    (conn.server, conn.service) = (number, index);
    let own = service.flags & service_flag::PERSISTENT == 0 || service.port == flow.key.dport;
    let port = if own { Be16::new(0) } else { flow.key.dport };
    fill_request::<F>(conn, &flow.key, server, port, &Whose::default());
    let verdict = forward::request(&mut Alone(p), t, flow, &Held::own(conn));
    if verdict.action != Action::HandOver {
        t.count_conn(conn.server);
    } else if let Some(service) = t.service(conn.service) {
        // tc schedules it again, and must come to the same server.
        service.cursor.store(t.kept());
    }
    verdict
}

/// Whether a client asks for a port of a virtual address that no service has. Answers to what
/// this host itself asked from such an address are not meant, where they can be told apart.
#[inline(always)]
fn asks_in_vain<F: Family, T: Tables>(t: &T, flow: &Flow<F>) -> bool {
    let Flow { key, l4, .. } = flow;
    let begins = match key.proto() {
        proto::TCP => l4.flags & (TcpHeader::SYN | TcpHeader::ACK | TcpHeader::RST) == TcpHeader::SYN,
        proto::SCTP => l4.flags == sctp::event::INIT,
        _ => true,
    };
    begins
        && F::service(t, &Place::whole(key.dst)).is_some()
        && F::local(t, &key.dst)
        && !key.src.impossible_source()
        && !F::local(t, &key.src)
}

/// A packet of no connection and no service: perhaps a NAT server's.
#[inline(always)]
pub fn stranger<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, flow: &Flow<F>) -> Verdict {
    let pass = Verdict::pass(Reason::NoService);
    let Some(settings) = t.settings() else { return Verdict::pass(Reason::NotConfigured) };
    let flags = settings.flags;
    if flags & setting::REJECT != 0 && asks_in_vain::<F, T>(t, flow) {
        return errors::refuse::<F, T>(t, Notice::NoPort, 0);
    }
    if flags & setting::KNOW_SERVERS == 0 {
        return pass;
    }
    let place = Place::new(flow.key.proto(), flow.key.src, flow.key.sport);
    let Some(known) = F::known(t, &place) else { return pass };
    match known.one_packet {
        1 => return forward::one_packet_reply(p, t, flow, known),
        0 => {}
        _ => return Verdict::drop(Reason::OnePacketAmbiguous),
    }
    if flow.ip.fragment == Fragment::Later {
        return Verdict::pass(Reason::LaterFragment);
    }
    let reset = match flow.key.proto() {
        proto::TCP => flow.l4.flags & TcpHeader::RST != 0,
        proto::SCTP => flow.l4.flags == sctp::event::ABORT,
        _ => false,
    };
    if flags & setting::NAT_ICMP_SEND == 0 || reset || flow.ip.ttl <= 1 {
        return pass;
    }
    // IPVS refuses it after the host's forwarding: with the TTL decremented.
    if !F::decrement_ttl(p) {
        return Verdict::drop(Reason::ErrorUnsent);
    }
    errors::refuse::<F, T>(t, Notice::Stray, 0)
}
