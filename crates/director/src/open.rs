//! New connections: may this packet open one, with which server, and the two
//! entries of a NAT connection as one step.

use crate::conn::{self, Expiry, Word};
use crate::direct::{Flow, Stage, Work};
use crate::errors::{self, Notice};
use crate::family::{Address, Family};
use crate::forward;
use crate::packet::Packet;
use crate::parse::Fragment;
use crate::records::{Conn, Place, Server, Tuple, kind, service_flag, setting};
use crate::schedule::{self, Client};
use crate::sctp;
use crate::shared::{S32, S64};
use crate::tables::{Insert, Tables};
use crate::tcp::{self, Direction, Event, State};
use crate::verdict::{Action, Decision, Reason, Verdict};
use dirigent_wire::{Be16, TcpHeader, checksum, ip::proto};

/// The port FTP servers connect from in active mode.
const FTP_DATA: u16 = 20;

/// The service a client's packet of this tuple is for: (index, held here).
#[inline(always)]
pub fn service<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>) -> Option<u32> {
    F::service(t, &Place::new(key.proto(), key.dst, key.dport))
}

/// Opens a connection for a packet that has none, or says what becomes of it.
#[inline(always)]
pub fn open<F: Family, P: Packet, T: Tables>(p: &P, t: &mut T, w: &mut Work<F>) -> Decision<()> {
    let Work { flow, conn, reply, .. } = w;
    let key = &flow.key;
    let Some(index) = service::<F, T>(t, key) else { return Err(Stage::Stranger.verdict::<F>()) };
    if !F::local(t, &key.dst) {
        return Err(Verdict::pass(Reason::NotHeld));
    }
    if key.src.impossible_source() || F::local(t, &key.src) {
        return Err(Verdict::drop(Reason::Martian));
    }
    let mut state = 0;
    if key.proto() == proto::TCP {
        if flow.l4.flags & (TcpHeader::SYN | TcpHeader::RST) != TcpHeader::SYN {
            return Err(Verdict::pass(Reason::NotSyn));
        }
        if key.sport == Be16::new(FTP_DATA) {
            return Err(Verdict::pass(Reason::FtpData));
        }
        state = tcp::next(Direction::In, Event::of(flow.l4.flags), State::None as u8);
    } else if key.proto() == proto::SCTP {
        // The state moves when the packet goes on: a second INIT would move it again.
        match flow.l4.flags {
            sctp::event::INIT => {}
            sctp::event::NOTHING => return Err(Verdict::drop(Reason::ShortTransport)),
            _ => return Err(Verdict::pass(Reason::NotSyn)),
        }
        if key.sport == Be16::new(FTP_DATA) {
            return Err(Verdict::pass(Reason::FtpData));
        }
    } else if t.service(index).is_some_and(|s| s.flags & service_flag::ONE_PACKET != 0) {
        return Err(Stage::OnePacket.verdict::<F>());
    }
    let wish = Wish { service: index, server: 0, state, ingress: p.ingress() };
    connect::<F, T>(t, key, wish, (conn, reply)).map_err(|verdict| match verdict.reason {
        Reason::NoServer => errors::refuse::<F, T>(t, Notice::NoServer, 0),
        _ => verdict,
    })
}

/// A connection to be bound.
#[derive(Clone, Copy)]
pub struct Wish {
    /// Index of the virtual service.
    pub service: u32,
    /// Index of the real server, once scheduled.
    pub server: u32,
    /// The state it begins in.
    pub state: u8,
    /// The interface of its first packet.
    pub ingress: u32,
}

/// Where a new entry and its reply's key are put together.
type Room<'w, F> = (&'w mut Conn<<F as Family>::Addr>, &'w mut Tuple<<F as Family>::Addr>);

/// What schedulers may know of a packet.
#[inline(always)]
fn client<F: Family>(key: &Tuple<F::Addr>) -> Client {
    Client { addr: key.src.hash_fold(), port: key.sport.get(), dest: key.dst.hash_fold() }
}

/// Schedules `key` and inserts its entries. `NoServer` without an error sent:
/// the caller knows whom to tell.
#[inline(always)]
pub fn connect<F: Family, T: Tables>(
    t: &mut T,
    key: &Tuple<F::Addr>,
    mut wish: Wish,
    (conn, reply): Room<'_, F>,
) -> Decision<()> {
    let client = client::<F>(key);
    let no_server = Verdict::drop(Reason::NoServer);
    let service = t.service(wish.service).ok_or(no_server)?;
    wish.server = schedule::schedule(t, service, &client).ok_or(no_server)?;
    match bind::<F, T>(t, key, &wish, conn, reply) {
        Bound::Done => return Ok(()),
        Bound::Refused(verdict) => return Err(verdict),
        Bound::Taken => {}
    }
    // This client port talks to that server by another virtual address already:
    // the answers could not be told apart. Another server keeps both alive.
    let taken = Verdict::drop(Reason::ReplyKeyTaken);
    wish.server = schedule::first_free::<F, T>(t, wish.service, key).ok_or(taken)?;
    match bind::<F, T>(t, key, &wish, conn, reply) {
        Bound::Done => Ok(()),
        Bound::Refused(verdict) => Err(verdict),
        Bound::Taken => Err(taken),
    }
}

/// How binding a connection to one server ended.
enum Bound {
    Done,
    /// The answers' tuple belongs to another connection.
    Taken,
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
fn fill_request<F: Family>(conn: &mut Conn<F::Addr>, key: &Tuple<F::Addr>, server: &Server) {
    let nat = server.method == kind::NAT_REQUEST;
    conn.addr = if nat { Address::from_words(&server.addr) } else { key.dst };
    conn.port = if nat && server.port != Be16::new(0) { server.port } else { key.dport };
    conn.addr_delta = addr_delta(&key.dst, &conn.addr);
    conn.port_delta = checksum::delta(key.dport.raw(), conn.port.raw());
    (conn.kind, conn.flags, conn.client_link) = (server.method, 0, 0);
    (conn.mark, conn.mask, conn.template) = (0, 0, 0);
    (conn.link, conn.timeout) = (S64::new(0), S32::new(0));
}

/// Turns the request entry into that of the answers.
#[inline(always)]
fn turn_to_reply<F: Family>(conn: &mut Conn<F::Addr>, key: &Tuple<F::Addr>, ingress: u32) {
    (conn.addr, conn.port) = (key.dst, key.dport);
    conn.addr_delta = checksum::negate(conn.addr_delta);
    conn.port_delta = checksum::negate(conn.port_delta);
    (conn.kind, conn.client_link) = (kind::NAT_REPLY, ingress);
}

#[inline(never)]
fn bind<F: Family, T: Tables>(
    t: &mut T,
    key: &Tuple<F::Addr>,
    wish: &Wish,
    conn: &mut Conn<F::Addr>,
    reply: &mut Tuple<F::Addr>,
) -> Bound {
    let word = Word::new(wish.state, key.proto() == proto::TCP && tcp::active(wish.state), t.random());
    conn.word = S64::new(word.0);
    conn.last_seen = S32::new(t.now());
    conn.packets = S32::new(0);
    (conn.server, conn.service) = (wish.server, wish.service);
    {
        let Some(server) = t.server(wish.server) else { return Bound::Refused(Verdict::drop(Reason::Raced)) };
        fill_request::<F>(conn, key, server);
        server.add_connection(word.active());
    }
    let paired = conn::paired(conn.kind);
    let bound = if !paired {
        F::insert(t, key, conn)
    } else if conn.addr == key.src {
        undo(t, wish.server, word);
        return Bound::Refused(Verdict::drop(Reason::ServerIsClient));
    } else {
        *reply = conn::partner::<F>(key, conn);
        turn_to_reply::<F>(conn, key, wish.ingress);
        match insert_reply::<F, T>(t, reply, conn) {
            Insert::Exists => {
                undo(t, wish.server, word);
                // Either another connection has this reply tuple, or another CPU
                // is opening this very connection.
                return if F::conn(t, key).is_some() { Bound::Done } else { Bound::Taken };
            }
            Insert::Full => Insert::Full,
            Insert::Done => {
                if let Some(server) = t.server(wish.server) {
                    fill_request::<F>(conn, key, server);
                }
                match F::insert(t, key, conn) {
                    Insert::Done => Insert::Done,
                    failed => {
                        F::remove(t, reply);
                        failed
                    }
                }
            }
        }
    };
    match bound {
        Insert::Done => {
            t.count_conn(wish.server);
            Bound::Done
        }
        Insert::Exists => {
            undo(t, wish.server, word);
            Bound::Done // another CPU opened it: its entry counts
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

/// Inserts the reply entry; one of an expired connection makes room.
#[inline(always)]
fn insert_reply<F: Family, T: Tables>(t: &mut T, key: &Tuple<F::Addr>, conn: &Conn<F::Addr>) -> Insert {
    match F::insert(t, key, conn) {
        Insert::Exists if conn::expire::<F, T>(t, key, false) == Expiry::Gone => F::insert(t, key, conn),
        other => other,
    }
}

/// A packet of a one-packet service: scheduled and sent, nothing remembered.
#[inline(always)]
pub fn one_packet<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, w: &mut Work<F>) -> Verdict {
    let Work { flow, conn, client: whose, .. } = w;
    let Some(index) = service::<F, T>(t, &flow.key) else { return Verdict::drop(Reason::Raced) };
    *whose = client::<F>(&flow.key);
    let Some(scheduled) = t.service(index) else { return Verdict::drop(Reason::Raced) };
    let cursor = scheduled.cursor.load();
    let number = schedule::schedule(t, scheduled, whose);
    let Some(number) = number else { return errors::refuse::<F, T>(t, Notice::NoServer, 0) };
    let Some(server) = t.server(number) else { return Verdict::drop(Reason::Raced) };
    (conn.server, conn.service) = (number, index);
    fill_request::<F>(conn, &flow.key, server);
    let verdict = forward::request(p, t, flow, conn);
    if verdict.action == Action::HandOver {
        // tc schedules it again, and must come to the same server.
        scheduled.cursor.store(cursor);
    } else {
        t.count_conn(number);
    }
    verdict
}

/// A packet of no connection and no service: perhaps a NAT server's.
#[inline(always)]
pub fn stranger<F: Family, P: Packet, T: Tables>(p: &mut P, t: &T, flow: &Flow<F>) -> Verdict {
    let pass = Verdict::pass(Reason::NoService);
    let Some(settings) = t.settings() else { return Verdict::pass(Reason::NotConfigured) };
    let flags = settings.flags;
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
