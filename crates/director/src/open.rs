//! New connections: may this packet open one, with which server, and the two
//! entries of a NAT connection as one step.

use crate::conn::{self, Expiry, Word};
use crate::direct::Flow;
use crate::errors;
use crate::family::{Address, Family};
use crate::forward;
use crate::packet::Packet;
use crate::records::{Conn, Place, Server, Tuple, kind, service_flag, setting};
use crate::schedule::{self, Client};
use crate::shared::{S32, S64};
use crate::tables::{Insert, Tables};
use crate::tcp::{self, Direction, Event, State};
use crate::verdict::{Decision, Reason, Verdict};
use dirigent_wire::{Be16, TcpHeader, checksum, ip::proto};

/// The port FTP servers connect from in active mode.
const FTP_DATA: u16 = 20;

/// The service a client's packet of this tuple is for: (index, held here).
#[inline(always)]
pub fn service<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>) -> Option<u32> {
    F::service(t, &Place::new(key.proto(), key.dst, key.dport))
}

/// Opens a connection for a packet that has none, or says what becomes of it.
#[inline(never)]
pub fn open<F: Family, P: Packet, T: Tables>(p: &mut P, t: &mut T, flow: &Flow<F>) -> Decision<()> {
    let key = &flow.key;
    let Some(index) = service::<F, T>(t, key) else { return Err(stranger(p, t, flow)) };
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
    }
    let one_packet = t.service(index).is_some_and(|s| s.flags & service_flag::ONE_PACKET != 0);
    if one_packet && key.proto() == proto::UDP {
        return Err(one_packet_request(p, t, flow, index));
    }
    match connect::<F, T>(t, key, index, state, p.ingress()) {
        Err(verdict) if verdict.reason == Reason::NoServer => {
            Err(forward::refuse(p, t, flow, errors::Kind::PortUnreachable, Reason::NoServer))
        }
        other => other,
    }
}

/// Schedules `key` on service `index` and inserts its entries in `state`.
/// `NoServer` without an error sent: the caller knows whom to tell.
#[inline(never)]
pub fn connect<F: Family, T: Tables>(
    t: &mut T, key: &Tuple<F::Addr>, index: u32, state: u8, ingress: u32,
) -> Decision<()> {
    let client = Client { addr: key.src.hash_fold(), port: key.sport.get() };
    let no_server = Verdict::drop(Reason::NoServer);
    let service = t.service(index).ok_or(no_server)?;
    let scheduled = schedule::schedule(t, service, client).ok_or(no_server)?;
    let mut wish = Wish { service: index, server: scheduled, state, ingress };
    match bind::<F, T>(t, key, &wish) {
        Bound::Done => return Ok(()),
        Bound::Refused(verdict) => return Err(verdict),
        Bound::Taken => {}
    }
    // This client port talks to that server by another virtual address already:
    // the answers could not be told apart. Another server keeps both alive.
    let taken = Verdict::drop(Reason::ReplyKeyTaken);
    wish.server = schedule::first_free::<F, T>(t, index, key).ok_or(taken)?;
    match bind::<F, T>(t, key, &wish) {
        Bound::Done => Ok(()),
        Bound::Refused(verdict) => Err(verdict),
        Bound::Taken => Err(taken),
    }
}

/// A connection to be bound.
struct Wish {
    service: u32,
    server: u32,
    state: u8,
    ingress: u32,
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

/// The request entry of `key` on this server.
#[inline(always)]
fn request_entry<F: Family>(
    key: &Tuple<F::Addr>, server: &Server, number: u32, service: u32, word: Word, now: u32,
) -> Conn<F::Addr> {
    let nat = server.method == kind::NAT_REQUEST;
    let addr: F::Addr = if nat { Address::from_words(&server.addr) } else { key.dst };
    let port = if nat && server.port != Be16::new(0) { server.port } else { key.dport };
    Conn {
        word: S64::new(word.0),
        last_seen: S32::new(now),
        packets: S32::new(0),
        server: number,
        service,
        client_link: 0,
        addr_delta: addr_delta(&key.dst, &addr),
        port_delta: checksum::delta(key.dport.raw(), port.raw()),
        addr,
        port,
        kind: server.method,
        zero: 0,
        spare: [0; 6],
    }
}

#[inline(never)]
fn bind<F: Family, T: Tables>(t: &mut T, key: &Tuple<F::Addr>, wish: &Wish) -> Bound {
    let Wish { service, server: number, state, ingress } = *wish;
    let now = t.now();
    let word = Word::new(state, key.proto() == proto::TCP && tcp::active(state), t.random());
    let mut conn = {
        let Some(server) = t.server(number) else { return Bound::Refused(Verdict::drop(Reason::Raced)) };
        let conn = request_entry::<F>(key, server, number, service, word, now);
        if conn.kind == kind::NAT_REQUEST && conn.addr == key.src {
            return Bound::Refused(Verdict::drop(Reason::ServerIsClient));
        }
        server.add_connection(word.active());
        conn
    };
    let reply = conn::partner::<F>(key, &conn);
    let paired = conn::paired(conn.kind);
    if paired {
        let request = (conn.addr, conn.port, conn.addr_delta, conn.port_delta);
        (conn.addr, conn.port) = (key.dst, key.dport);
        (conn.addr_delta, conn.port_delta) = (checksum::negate(request.2), checksum::negate(request.3));
        (conn.kind, conn.client_link) = (kind::NAT_REPLY, ingress);
        match insert_reply::<F, T>(t, &reply, &conn) {
            Insert::Done => {}
            Insert::Full => {
                undo(t, number, word);
                return Bound::Refused(Verdict::drop(Reason::TableFull));
            }
            Insert::Exists => {
                undo(t, number, word);
                // Either another connection has this reply tuple, or another CPU
                // is opening this very connection.
                return if F::conn(t, key).is_some() { Bound::Done } else { Bound::Taken };
            }
        }
        (conn.addr, conn.port, conn.addr_delta, conn.port_delta) = request;
        (conn.kind, conn.client_link) = (kind::NAT_REQUEST, 0);
    }
    let bound = F::insert(t, key, &conn);
    if paired && bound != Insert::Done {
        F::remove(t, &reply);
    }
    match bound {
        Insert::Done => {
            t.count_conn(number);
            Bound::Done
        }
        Insert::Exists => {
            undo(t, number, word);
            Bound::Done // another CPU opened it: its entry counts
        }
        Insert::Full => {
            undo(t, number, word);
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
#[inline(never)]
fn one_packet_request<F: Family, P: Packet, T: Tables>(
    p: &mut P, t: &mut T, flow: &Flow<F>, index: u32,
) -> Verdict {
    let client = Client { addr: flow.key.src.hash_fold(), port: flow.key.sport.get() };
    let number = t.service(index).and_then(|s| schedule::schedule(t, s, client));
    let Some(number) = number else {
        return forward::refuse(p, t, flow, errors::Kind::PortUnreachable, Reason::NoServer);
    };
    let Some(server) = t.server(number) else { return Verdict::drop(Reason::Raced) };
    let conn = request_entry::<F>(&flow.key, server, number, index, Word::new(0, false, 0), t.now());
    let verdict = forward::request(p, t, flow, &conn);
    if verdict.action != crate::verdict::Action::HandOver {
        t.count_conn(number);
    }
    verdict
}

/// A packet of no connection and no service: perhaps a NAT server's.
#[inline(never)]
fn stranger<F: Family, P: Packet, T: Tables>(p: &mut P, t: &mut T, flow: &Flow<F>) -> Verdict {
    let pass = Verdict::pass(Reason::NoService);
    let Some(settings) = t.settings() else { return Verdict::pass(Reason::NotConfigured) };
    let flags = settings.flags;
    if flags & setting::KNOW_SERVERS == 0 {
        return pass;
    }
    let place = Place::new(flow.key.proto(), flow.key.src, flow.key.sport);
    let Some(known) = F::known(t, &place).copied() else { return pass };
    match known.one_packet {
        1 => return forward::one_packet_reply(p, t, flow, &known),
        0 => {}
        _ => return Verdict::drop(Reason::OnePacketAmbiguous),
    }
    let reset = flow.key.proto() == proto::TCP && flow.l4.flags & TcpHeader::RST != 0;
    if flags & setting::NAT_ICMP_SEND == 0 || reset || flow.ip.ttl <= 1 {
        return pass;
    }
    let Some(link) = t.link(p.ingress()) else { return pass };
    let from = F::link_addr(link);
    // IPVS refuses it after the host's forwarding: with the TTL decremented.
    if !F::decrement_ttl(p) {
        return Verdict::drop(Reason::ErrorUnsent);
    }
    let notice = errors::Notice { from, kind: errors::Kind::PortUnreachable, reason: Reason::Stray };
    errors::send::<F, P, T>(p, t, &flow.ip, &notice)
}
