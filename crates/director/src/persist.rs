//! Persistence (ipvs-semantics §5): templates, which send a client's new connections to the
//! server of its earlier ones.
//!
//! A template lies in the table of connections, under a key that no packet has. Its connections
//! know what is in that key, and its tag; it knows how many they are.

use crate::conn::{self, Expiry, Held, Word, age};
use crate::direct::{Stage, Work};
use crate::family::{Address, Family};
use crate::ftp;
use crate::open::{self, Bound, Wish};
use crate::packet::Packet;
use crate::records::{Conn, Server, Service, Settings, Tuple, conn_flag, kind, server_flag, service_flag, setting};
use crate::shared::{S32, S64};
use crate::sync;
use crate::tables::{Insert, Tables};
use crate::tcp;
use crate::verdict::{Decision, Reason, Verdict};
use dirigent_wire::Be16;

/// What a template's key stands for; the second byte of [`Tuple::protocol`].
pub mod of {
    /// A client of a virtual address.
    pub const ADDRESS: u8 = 1;
    /// A client of a firewall mark.
    pub const MARK: u8 = 2;
}

/// States of a template.
pub mod state {
    /// None of its connections was established yet.
    pub const NONE: u8 = 0;
    /// One was: defences against floods spare it.
    pub const ASSURED: u8 = 1;
}

/// Names as ipvsadm shows them, by state.
pub const NAMES: [&str; 2] = ["NONE", "ASSURED"];

/// Virtual port of a template that nobody shall find again, as in IPVS.
const ASIDE: u16 = 65535;

/// The ports in the key of a template that was put aside: one of several of a client, as the
/// tag in place of the client's port says.
#[inline(always)]
fn aside(tag: u32) -> (Be16, Be16) {
    (Be16::new(tag as u16), Be16::new(ASIDE))
}

/// Seconds that a template past its time lives on while it has connections.
const LAPSED_S: u32 = 60;

/// Tries of a compare-and-swap: as many CPUs would have to open connections of one client.
const TRIES: u32 = 16;

/// A template's tag (32 bits) and below it the number of its connections; 0: it is gone. One
/// word decides, so that nobody is counted by a template that goes or went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link(pub u64);

impl Link {
    /// How many connections.
    #[inline(always)]
    pub fn connections(self) -> u32 {
        self.0 as u32
    }
    #[inline(always)]
    fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
    #[inline(always)]
    fn gone(self) -> bool {
        self.0 == 0
    }
}

impl<A> Conn<A> {
    /// Of a template: who is counted by it.
    #[inline(always)]
    pub fn link(&self) -> Link {
        Link(self.link.load())
    }
}

/// What a connection knows of its template's key, besides what is in its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whose {
    /// [`Service::mask`].
    pub mask: u32,
    /// The firewall mark.
    pub mark: u32,
    /// The template's tag.
    pub tag: u32,
    /// Bits of [`conn_flag`]; 0: no template controls it.
    pub flags: u8,
}

impl Whose {
    /// Of a new flow to this service, not yet with a tag.
    #[inline(always)]
    fn new<A>(service: &Service, key: &Tuple<A>, mark: u32) -> Self {
        let flags = if service.flags & service_flag::BY_MARK != 0 {
            conn_flag::BY_MARK
        } else if service.port != key.dport || service.port == Be16::new(ftp::CONTROL) {
            conn_flag::ANY_PORT
        } else {
            0
        };
        Self { mask: service.mask, mark, tag: 0, flags: flags | conn_flag::CONTROLLED | ftp::flag(key) }
    }
    /// Of a connection.
    #[inline(always)]
    pub fn of<A>(conn: &Conn<A>) -> Self {
        Self { mask: conn.mask, mark: conn.mark, tag: conn.template.load(), flags: conn.flags }
    }
    /// Whether a template, or a control connection of FTP, controls it.
    #[inline(always)]
    pub fn controlled(&self) -> bool {
        self.flags & (conn_flag::CONTROLLED | conn_flag::FTP_DATA) != 0
    }
    /// Writes the template's key.
    #[inline(always)]
    pub fn write<A: Address>(&self, key: &Tuple<A>, to: &mut Tuple<A>) {
        if self.flags & conn_flag::FTP_DATA != 0 {
            *to = *key;
            (to.sport, to.dport) = (Be16::new((self.mask >> 16) as u16), Be16::new(self.mask as u16));
            return;
        }
        let by_mark = self.flags & conn_flag::BY_MARK != 0;
        key.src.write_network(self.mask, &mut to.src);
        to.sport = Be16::new(0);
        to.dport = if self.flags & (conn_flag::ANY_PORT | conn_flag::BY_MARK) != 0 { Be16::new(0) } else { key.dport };
        (to.dst, to.protocol) = match by_mark {
            true => (A::of_mark(self.mark), [0, of::MARK, 0, 0]),
            false => (key.dst, [key.proto(), of::ADDRESS, 0, 0]),
        };
    }
    /// Writes the key that the template has once it was put aside.
    #[inline(always)]
    fn write_aside<A: Address>(&self, key: &Tuple<A>, to: &mut Tuple<A>) {
        self.write(key, to);
        (to.sport, to.dport) = aside(self.tag);
    }
}

/// What is found under a template's key.
enum Found {
    /// Nothing.
    Nothing,
    /// A template; new connections go to its server.
    Usable { server: u32, tag: u32 },
    /// One whose server takes no more.
    Useless,
    /// One whose time is over.
    Over,
}

/// Whether a template past its time is let go of; one that has connections goes on, as if
/// somebody had looked each time it lapsed.
#[inline(always)]
fn over<A>(settings: &Settings, entry: &Conn<A>, now: u32) -> bool {
    let (age, timeout) = (age(now, entry.last_seen.load()), entry.timeout.load());
    if age < timeout {
        return false;
    }
    if entry.link().connections() == 0 {
        return true;
    }
    let again = settings.hz.saturating_mul(LAPSED_S).max(1);
    entry.last_seen.store(now.wrapping_sub((age - timeout) % again));
    entry.timeout.store(again);
    false
}

/// Ticks that a template of this age is left, if somebody looks when they are over.
#[must_use]
pub fn remaining(age: u32, timeout: u32, hz: u32) -> u32 {
    let again = hz.saturating_mul(LAPSED_S).max(1);
    if age < timeout { timeout - age } else { again - (age - timeout) % again }
}

#[inline(always)]
fn find<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>) -> Found {
    let (Some(settings), Some(entry)) = (t.settings(), conn::held::<F, T>(t, key)) else { return Found::Nothing };
    if over(settings, &entry, t.now()) {
        return Found::Over;
    }
    let Some(server) = t.server(entry.server) else { return Found::Useless };
    let flags = server.flags.load();
    let quiesced = settings.flags & setting::EXPIRE_QUIESCENT != 0 && server.weight.load() == 0;
    if flags & server_flag::AVAILABLE == 0 || flags & server_flag::DRAINING != 0 || quiesced {
        return Found::Useless;
    }
    // Else another is there by now.
    let (server, tag) = (entry.server, entry.word.tag());
    if entry.link().tag() == tag { Found::Usable { server, tag } } else { Found::Nothing }
}

/// Counts a connection by its template, if that still is the one with this tag.
#[inline(always)]
fn attach<A>(entry: &Conn<A>, tag: u32) -> bool {
    let mut n = 0;
    while n < TRIES {
        let link = entry.link();
        if link.gone() || link.tag() != tag {
            return false;
        }
        if entry.link.swap_if(link.0, link.0 + 1) {
            return true;
        }
        n += 1;
    }
    false
}

/// The opposite. Says whether it was its template.
#[inline(always)]
fn detach<A>(entry: &Conn<A>, tag: u32, settings: &Settings, now: u32) -> bool {
    // What lapsed while it had connections has lapsed now, if this is the last of them.
    over(settings, entry, now);
    let mut n = 0;
    while n < TRIES {
        let link = entry.link();
        if link.gone() || link.tag() != tag || link.connections() == 0 {
            return false;
        }
        if entry.link.swap_if(link.0, link.0 - 1) {
            return true;
        }
        n += 1;
    }
    false
}

/// Counts a data connection of `key` by its control connection, whose tag it learns.
#[inline(always)]
pub fn adopt<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>, whose: &mut Whose) -> bool {
    let Some(entry) = F::template(t, |to| whose.write(key, to)) else { return false };
    let mut n = 0;
    while n < TRIES {
        let link = entry.link();
        let new = if link.gone() { u64::from(t.random() | 1) << 32 } else { link.0 } + 1;
        if entry.link.swap_if(link.0, new) {
            whose.tag = Link(new).tag();
            // Or it went meanwhile, and another connection is there.
            let ours = entry.lasts();
            if !ours {
                disown(&entry, whose.tag);
            }
            return ours;
        }
        n += 1;
    }
    false
}

/// The opposite: unlike a template, a control connection has its time from its own packets.
#[inline(always)]
fn disown<A>(entry: &Conn<A>, tag: u32) {
    let mut n = 0;
    while n < TRIES {
        let link = entry.link();
        if link.tag() != tag || link.connections() == 0 || entry.link.swap_if(link.0, link.0 - 1) {
            return;
        }
        n += 1;
    }
}

/// A connection of `key` is gone: its template has one less.
#[inline(always)]
pub fn release<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>, whose: &Whose) {
    if whose.flags & conn_flag::FTP_DATA != 0 {
        if let Some(entry) = F::template(t, |to| whose.write(key, to)) {
            disown(&entry, whose.tag);
        }
        return;
    }
    let Some(settings) = t.settings() else { return };
    let now = t.now();
    if let Some(entry) = F::template(t, |to| whose.write(key, to))
        && detach(&entry, whose.tag, settings, now)
    {
        return;
    }
    if let Some(entry) = F::template(t, |to| whose.write_aside(key, to)) {
        detach(&entry, whose.tag, settings, now);
    }
}

/// A connection of `key` is established: its template is assured.
#[inline(always)]
pub fn assure<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>, whose: &Whose) {
    let own = F::template(t, |to| whose.write(key, to)).filter(|entry| entry.word.tag() == whose.tag);
    if let Some(entry) = own.or_else(|| F::template(t, |to| whose.write_aside(key, to))) {
        set_assured(&entry, whose.tag);
    }
}

#[inline(always)]
fn set_assured<A>(entry: &Conn<A>, tag: u32) {
    let word = entry.word();
    if word.tag() == tag && word.state() == state::NONE {
        entry.word.swap_if(word.0, word.0 | u64::from(state::ASSURED));
    }
}

/// Removes a template that nothing is counted by, once its time is over, or at once if `force`.
#[inline(always)]
pub fn expire<F: Family, T: Tables>(t: &mut T, key: &Tuple<F::Addr>, force: bool) -> Expiry {
    let Some(settings) = t.settings() else { return Expiry::Alive };
    let Some(Held { entry, word }) = conn::held::<F, T>(t, key) else { return Expiry::Absent };
    let link = entry.link();
    if link.gone() || link.tag() != word.tag() {
        return Expiry::Absent;
    }
    if !(over(settings, entry, t.now()) || force) || link.connections() != 0 || !entry.link.swap_if(link.0, 0) {
        return Expiry::Alive;
    }
    leave(t, entry.server);
    F::remove(t, key);
    Expiry::Gone
}

/// A template of this server is gone.
#[inline(always)]
fn leave<T: Tables>(t: &T, server: u32) {
    if let Some(server) = t.server(server) {
        server.persistent.add(1_u64.wrapping_neg());
        server.reopen();
    }
}

/// Puts a useless template aside: under a port that nobody asks for, where its connections
/// find it. What another CPU changes meanwhile leaves it where it is: whoever wanted the key tries again.
#[inline(always)]
fn put_aside<F: Family, T: Tables>(t: &mut T, key: &mut Tuple<F::Addr>, copy: &mut Conn<F::Addr>) {
    let Some(held) = conn::held::<F, T>(t, key) else { return };
    *copy = held.entry.clone();
    let (link, ports) = (copy.link(), (key.sport, key.dport));
    if link.gone() || link.tag() != held.word.tag() || held.link().tag() != link.tag() {
        return;
    }
    copy.port = Be16::new(ASIDE);
    (key.sport, key.dport) = aside(link.tag());
    let there = match conn::insert::<F, T>(t, key, copy) {
        Insert::Done => true,
        // No room, or one of the same bits of tag is there: its connections go on without a template.
        Insert::Exists | Insert::Full => false,
    };
    (key.sport, key.dport) = ports;
    let taken = F::conn(t, key).is_some_and(|entry| entry.link.swap_if(link.0, 0));
    if taken {
        F::remove(t, key);
    }
    if taken && !there {
        leave(t, copy.server);
    }
    if !taken && there {
        (key.sport, key.dport) = aside(link.tag());
        F::remove(t, key);
        (key.sport, key.dport) = ports;
    }
}

/// A template for the client of `key` to this server.
#[inline(always)]
fn fill<F: Family>(
    entry: &mut Conn<F::Addr>,
    (number, server): (u32, &Server),
    (service, timeout): (u32, u32),
    whose: &Whose,
    now: u32,
) {
    let by_port = whose.flags & (conn_flag::ANY_PORT | conn_flag::BY_MARK) == 0;
    entry.word = S64::new(Word::new(state::NONE, false, whose.tag).0);
    entry.link = S64::new(u64::from(whose.tag) << 32);
    (entry.last_seen, entry.packets) = (S32::new(now), S32::new(0));
    (entry.server, entry.service, entry.extra) = (number, service, S32::new(0));
    (entry.addr_delta, entry.port_delta) = (0, 0);
    entry.addr = Address::from_words(&server.addr);
    entry.port = if by_port { server.port } else { Be16::new(0) };
    (entry.kind, entry.flags) = (kind::TEMPLATE, whose.flags & !conn_flag::CONTROLLED);
    (entry.mark, entry.mask, entry.template) = (whose.mark, whose.mask, S32::new(0));
    entry.timeout = S32::new(timeout);
}

/// Opens a connection of a persistent service with its template's server, or says what becomes
/// of the packet. Later stages make the template, or take a useless one away, and come back.
#[inline(always)]
pub fn open<F: Family, P: Packet, T: Tables>(p: &P, t: &mut T, w: &mut Work<F>) -> Decision<()> {
    let mut wish = open::admit::<F, P, T>(p, t, &w.flow)?;
    let Work { flow, reply: template, .. } = w;
    let key = &flow.key;
    let service = t.service(wish.service).ok_or(Verdict::drop(Reason::Raced))?;
    wish.whose = Whose::new(service, key, wish.mark);
    if service.port != key.dport {
        wish.port = key.dport;
    }
    wish.whose.write(key, template);
    (wish.server, wish.whose.tag) = match find::<F, T>(t, template) {
        Found::Usable { server, tag } => (server, tag),
        Found::Nothing => return Err(if wish.chosen { Stage::Assign } else { Stage::Choose }.verdict::<F>()),
        Found::Useless | Found::Over => {
            t.stash(Wish::word(wish.mark, None));
            return Err(Stage::Clear.verdict::<F>());
        }
    };
    // If it goes meanwhile: once more, from the beginning.
    let again = Stage::Persist.verdict::<F>();
    let entry = F::conn(t, template).ok_or(again)?;
    if !wish.one_packet && !attach(entry, wish.whose.tag) {
        return Err(again);
    }
    entry.last_seen.store(t.now());
    entry.packets.store(entry.packets.load().wrapping_add(1));
    // Without a SYN (sloppy_tcp, stateless) it begins so.
    if wish.state == tcp::State::Established as u8 {
        set_assured(entry, wish.whose.tag);
    }
    if wish.one_packet {
        sync::tell_template::<F, T>(t, template, entry);
        t.keep(service_cursor(t, wish.service));
        t.stash(Wish::word(wish.mark, Some(wish.server)));
        return Err(Stage::OnePacket.verdict::<F>());
    }
    bind::<F, T>(t, w, &wish)
}

#[inline(always)]
fn service_cursor<T: Tables>(t: &T, index: u32) -> u64 {
    t.service(index).map_or(0, |service| service.cursor.load())
}

/// [`Stage::Assign`]: a template for a client that has none, to the server that was chosen.
#[inline(always)]
pub fn assign<F: Family, T: Tables>(t: &mut T, w: &mut Work<F>) -> Decision<()> {
    let Work { flow, conn, reply: template, .. } = w;
    let (key, word, raced) = (&flow.key, t.stashed(), Verdict::drop(Reason::Raced));
    let (mark, number) = (word as u32, Wish::server_of(word));
    let index = open::find::<F, T>(t, key, mark).ok_or(raced)?;
    let service = t.service(index).ok_or(raced)?;
    let mut whose = Whose::new(service, key, mark);
    whose.tag = t.random() | 1;
    whose.write(key, template);
    let of = (number, index, service.persistence);
    // Another CPU's template is as good.
    match enter::<F, T>(t, template, conn, of, &whose).ok_or(raced)? {
        Insert::Full => Err(Verdict::drop(Reason::TableFull)),
        Insert::Done | Insert::Exists => Ok(()),
    }
}

/// Enters a template to a server of a service, both by number, that lives so many ticks;
/// `None`: there is no such server.
#[inline(always)]
pub(crate) fn enter<F: Family, T: Tables>(
    t: &mut T,
    template: &Tuple<F::Addr>,
    conn: &mut Conn<F::Addr>,
    (number, service, timeout): (u32, u32, u32),
    whose: &Whose,
) -> Option<Insert> {
    let server = t.server(number)?;
    fill::<F>(conn, (number, server), (service, timeout), whose, t.now());
    server.persistent.add(1);
    server.close_if_full();
    let inserted = conn::insert::<F, T>(t, template, conn);
    if inserted != Insert::Done {
        leave(t, number);
    }
    Some(inserted)
}

/// [`Stage::Clear`]: a template that is over, or whose server takes no more, makes room.
#[inline(always)]
pub fn make_way<F: Family, T: Tables>(t: &mut T, w: &mut Work<F>, mark: u32) {
    let Work { flow, conn, reply: template, .. } = w;
    let Some(service) = open::find::<F, T>(t, &flow.key, mark).and_then(|index| t.service(index)) else { return };
    Whose::new(service, &flow.key, mark).write(&flow.key, template);
    match find::<F, T>(t, template) {
        Found::Useless => put_aside::<F, T>(t, template, conn),
        Found::Over => _ = expire::<F, T>(t, template, false),
        Found::Nothing | Found::Usable { .. } => {}
    }
}

/// Binds the connection, which its template counts already.
#[inline(always)]
fn bind<F: Family, T: Tables>(t: &mut T, w: &mut Work<F>, wish: &Wish) -> Decision<()> {
    let Work { flow, conn, reply, .. } = w;
    let refused = match open::bind::<F, T>(t, &flow.key, wish, conn, reply) {
        Bound::Done => return Ok(()),
        Bound::There => None,
        Bound::Refused(verdict) => Some(verdict),
        Bound::Taken if !wish.obstructed && open::idle::<F, T>(t, reply) => Some(open::clear::<F, T>(t, wish)),
        Bound::Taken => Some(Verdict::drop(Reason::ReplyKeyTaken)),
    };
    release::<F, T>(t, &flow.key, &wish.whose);
    refused.map_or(Ok(()), Err)
}
