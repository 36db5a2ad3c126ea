//! Connections: state changes, timeouts, expiry, and the exactness of the
//! active and inactive counters.
//!
//! One word decides. Every change of it is a compare-and-swap, and whoever wins
//! moves the server's counters; removal is such a change too (to [`Word::DEAD`]),
//! so it is counted once however many CPUs, and user space's sweep, try it.

use crate::family::{Address, Family, V4, V6};
use crate::packet::Packet;
use crate::persist::{self, Whose};
use crate::records::{Candidate, Conn, Server, Settings, Tuple, candidate, conn_flag, kind, setting};
use crate::reset;
use crate::sctp;
use crate::shared::S64;
use crate::tables::{Insert, Tables};
use crate::tcp::{self, Direction, Event};
use dirigent_wire::{Addr4, TcpHeader, ip::proto};

/// The word of a connection: state (8 bits), flags (8), a [`seal`] of its key (16), a
/// random tag (32) that makes words of different connections differ, so that a change meant
/// for an entry that was replaced meanwhile fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word(pub u64);

impl Word {
    const INACTIVE: u64 = 1 << 8;
    const DEAD: u64 = 1 << 9;
    /// Of a reply entry: its template knows that there was an answer.
    const NOTED: u64 = 1 << 10;
    /// Of a connection that is reset: who sends packets of this entry was told.
    const TOLD: u64 = 1 << 11;
    const SEAL: u64 = 0xffff_0000;

    /// A new connection's word.
    #[inline(always)]
    pub fn new(state: u8, active: bool, tag: u32) -> Self {
        let inactive = if active { 0 } else { Self::INACTIVE };
        Word(u64::from(tag) << 32 | inactive | u64::from(state))
    }
    /// The state.
    #[inline(always)]
    pub fn state(self) -> u8 {
        self.0 as u8
    }
    /// Counted among the active ones.
    #[inline(always)]
    pub fn active(self) -> bool {
        self.0 & Self::INACTIVE == 0
    }
    /// Being removed: to be treated as absent.
    #[inline(always)]
    pub fn dead(self) -> bool {
        self.0 & Self::DEAD != 0
    }
    #[inline(always)]
    fn noted(self) -> bool {
        self.0 & Self::NOTED != 0
    }
    /// Whether who sends packets of the entry was told of its reset: [`crate::reset`].
    #[inline(always)]
    pub fn told(self) -> bool {
        self.0 & Self::TOLD != 0
    }
    /// The same entry's, when that was done.
    #[inline(always)]
    pub(crate) fn when_told(self) -> Self {
        Word(self.0 | Self::TOLD)
    }
    #[inline(always)]
    fn seal(self) -> u64 {
        self.0 & Self::SEAL
    }
    /// The tag.
    #[inline(always)]
    pub fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
    /// Whether both are of one entry, whatever its state.
    #[inline(always)]
    pub(crate) fn is_of(self, other: Self) -> bool {
        self.0 >> 16 == other.0 >> 16
    }
    #[inline(always)]
    fn with(self, state: u8, active: bool) -> Self {
        let inactive = if active { 0 } else { Self::INACTIVE };
        Word(self.0 & !(Self::INACTIVE | 0xff) | inactive | u64::from(state))
    }
}

/// Counter changes of [`Server::load`]: active in the high half, inactive in
/// the low one.
mod load {
    pub const ACTIVE: u64 = 1 << 32;
    pub const INACTIVE: u64 = 1;

    pub fn of(active: bool) -> u64 {
        if active { ACTIVE } else { INACTIVE }
    }
}

impl Server {
    /// (active, inactive) connections.
    #[inline(always)]
    pub fn connections(&self) -> (u32, u32) {
        let load = self.load.load();
        ((load >> 32) as u32, load as u32)
    }
    /// Active and inactive connections.
    #[inline(always)]
    fn total(&self) -> u64 {
        let (active, inactive) = self.connections();
        u64::from(active) + u64::from(inactive)
    }
    /// Counts one connection more; the one that reaches the upper threshold is the last
    /// (ipvs-semantics §1.2).
    #[inline(always)]
    pub(crate) fn add_connection(&self, active: bool) {
        self.load.add(load::of(active));
        self.close_if_full();
    }
    /// Something is bound to the server: at the upper threshold it is the last.
    #[inline(always)]
    pub(crate) fn close_if_full(&self) {
        if self.upper != 0 && self.total() >= u64::from(self.upper) {
            self.full.store(1);
        }
    }
    /// The thresholds are new. (As kernel 6.1.192 has it: earlier ones only opened a server
    /// here, when its upper threshold rose or went.)
    pub fn follow_thresholds(&self) {
        self.reopen();
        self.close_if_full();
    }
    /// Takes one out of the count.
    #[inline(always)]
    pub(crate) fn remove_connection(&self, active: bool) {
        self.load.add(load::of(active).wrapping_neg());
        self.reopen();
    }
    /// Something left the server: below the lower threshold, or three quarters of the upper
    /// one, it gets connections again.
    #[inline(always)]
    pub(crate) fn reopen(&self) {
        if self.full.load() != 0 {
            let (total, upper, lower) = (self.total(), u64::from(self.upper), u64::from(self.lower));
            if if lower != 0 { total < lower } else { upper == 0 || 4 * total < 3 * upper } {
                self.full.store(0);
            }
        }
    }
    #[inline(always)]
    fn move_connection(&self, to_active: bool) {
        self.load.add(load::of(to_active).wrapping_sub(load::of(!to_active)));
    }
}

/// An entry in hand, with the word that told it is the key's. The table gives a removed
/// entry's memory to the next connection at once, though other CPUs may still hold a reference:
/// so changes of the word begin with this one, and what was read beside it counts only if the
/// entry [`lasts`](Held::lasts). Whoever removes an entry marks it dead before.
#[derive(Clone, Copy, Debug)]
pub struct Held<'t, A> {
    /// The entry.
    pub entry: &'t Conn<A>,
    /// Its word.
    pub word: Word,
}

impl<A> core::ops::Deref for Held<'_, A> {
    type Target = Conn<A>;
    #[inline(always)]
    fn deref(&self) -> &Conn<A> {
        self.entry
    }
}

impl<'t, A: Address> Held<'t, A> {
    /// An entry that is in no table, so that nobody else has it, or that the word tells.
    #[inline(always)]
    pub fn own(entry: &'t Conn<A>) -> Self {
        Self { entry, word: entry.word() }
    }
    /// The entry, if it is that of `key` (still).
    #[inline(always)]
    pub fn of(entry: &'t Conn<A>, key: &Tuple<A>) -> Option<Self> {
        let held = Self::own(entry);
        (seal(key) == held.word.seal()).then_some(held)
    }
}

impl<A> Held<'_, A> {
    /// Whether all that was read of the entry until now was its own.
    #[inline(always)]
    pub fn lasts(&self) -> bool {
        let word = self.entry.word();
        word.is_of(self.word) && !word.dead()
    }
}

/// Bits that tell an entry's key from others: but for one in 65,536.
#[inline(always)]
fn seal<A: Address>(key: &Tuple<A>) -> u64 {
    // Odd, so that no bit is lost, and irregular, so that each moves the uppermost ones.
    const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];
    let [protocol, template, ..] = key.protocol;
    let addresses = pair(key.src.digest(), key.dst.digest());
    let ports = u32::from(key.sport.raw()) | u32::from(key.dport.raw()) << 16;
    let rest = pair(ports, u32::from(protocol) | u32::from(template) << 8);
    let [a, b] = FACTORS;
    addresses.wrapping_mul(a).wrapping_add(rest.wrapping_mul(b)) >> 48 << 16
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The entry of `key`.
#[inline(always)]
pub fn held<'t, F: Family, T: Tables>(t: &'t T, key: &Tuple<F::Addr>) -> Option<Held<'t, F::Addr>> {
    F::conn(t, key).and_then(|entry| Held::of(entry, key))
}

/// The entry of `key`, if it is the other one of this connection: both have its tag.
#[inline(always)]
fn other<'t, F: Family, T: Tables>(t: &'t T, key: &Tuple<F::Addr>, of: Word) -> Option<Held<'t, F::Addr>> {
    F::conn(t, key).map(Held::own).filter(|held| held.word.tag() == of.tag())
}

/// Enters a connection, or a template, under `key`. (Not inlined: kernel 6.1's stack is short.)
#[inline(never)]
pub fn insert<F: Family, T: Tables>(t: &mut T, key: &Tuple<F::Addr>, conn: &mut Conn<F::Addr>) -> Insert {
    conn.word = S64::new(conn.word.load() & !Word::SEAL | seal(key));
    F::insert(t, key, conn)
}

impl<A> Conn<A> {
    /// The word.
    #[inline(always)]
    pub fn word(&self) -> Word {
        Word(self.word.load())
    }
    /// Whether this is the server's direction.
    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.kind == kind::NAT_REPLY
    }
    /// Notes a packet of this direction.
    #[inline(always)]
    pub fn touch(&self, now: u32) {
        // An unwritten cache line stays shared between CPUs.
        if self.last_seen.load() != now {
            self.last_seen.store(now);
        }
        self.packets.store(self.packets.load().wrapping_add(1));
    }
}

/// Ticks since `then`. A time slightly ahead (another CPU's clock tick) is no age.
#[inline(always)]
pub fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > u32::MAX - 0xffff { 0 } else { age }
}

/// Ticks an entry in this state lives without a packet.
#[inline(always)]
pub fn timeout(settings: &Settings, protocol: u8, state: u8) -> u32 {
    match protocol {
        proto::SCTP => association_timeout(settings, state),
        _ => plain_timeout(settings, protocol, state),
    }
}

#[inline(always)]
fn association_timeout(settings: &Settings, state: u8) -> u32 {
    match settings.sctp_timeouts.get(usize::from(state & 15)) {
        Some(ticks) => *ticks,
        None => 0,
    }
}

/// Of TCP and UDP, which is all that the easy path asks about.
#[inline(always)]
fn plain_timeout(settings: &Settings, protocol: u8, state: u8) -> u32 {
    if protocol == proto::TCP {
        match settings.tcp_timeouts.get(usize::from(state & 15)) {
            Some(ticks) => *ticks,
            None => 0,
        }
    } else {
        settings.udp_timeout
    }
}

/// Whether the connection has an entry for each direction.
#[inline(always)]
pub fn paired(kind: u8) -> bool {
    matches!(kind, kind::NAT_REQUEST | kind::NAT_REPLY)
}

/// The key of a [`paired`] connection's other entry. (No `Option`: the compiler
/// would carry its empty payload in registers that the verifier calls unset.)
#[inline(always)]
pub fn partner<F: Family>(key: &Tuple<F::Addr>, conn: &Conn<F::Addr>) -> Tuple<F::Addr> {
    if conn.is_reply() {
        // (server → client) writes the VIP: requests are (client → VIP).
        Tuple::new(key.proto(), key.dst, key.dport, conn.addr, conn.port)
    } else {
        // (client → VIP) writes the server: its answers are (server → client).
        Tuple::new(key.proto(), conn.addr, conn.port, key.src, key.sport)
    }
}

/// Whether the entry of `request` is one, and `reply` its [`partner`]: field by field, for
/// a tuple made to be compared would be stack that kernel 6.1 does not have left here.
#[inline(always)]
fn answered_by<F: Family>(request: &Tuple<F::Addr>, conn: &Conn<F::Addr>, reply: &Tuple<F::Addr>) -> bool {
    !conn.is_reply()
        && (conn.addr, conn.port) == (reply.src, reply.sport)
        && (request.src, request.sport) == (reply.dst, reply.dport)
}

/// Whether the entry of `reply` is one, and `request` its [`partner`].
#[inline(always)]
fn answers<F: Family>(reply: &Tuple<F::Addr>, conn: &Conn<F::Addr>, request: &Tuple<F::Addr>) -> bool {
    conn.is_reply()
        && (conn.addr, conn.port) == (request.dst, request.dport)
        && (reply.dst, reply.dport) == (request.src, request.sport)
}

/// Whether the entry under `reply` is that of the answers to `request`, and not left over.
#[inline(always)]
pub fn is_young_reply_of<F: Family, T: Tables>(t: &T, reply: &Tuple<F::Addr>, request: &Tuple<F::Addr>) -> bool {
    let (Some(settings), Some(entry)) = (t.settings(), held::<F, T>(t, reply)) else { return false };
    answers::<F>(reply, &entry, request) && !looks_idle(settings, reply.proto(), &entry, t.now())
}

/// Whether the entry, by its own last packet, may be past its timeout.
#[inline(always)]
pub fn looks_idle<A>(settings: &Settings, protocol: u8, conn: &Held<'_, A>, now: u32) -> bool {
    age(now, conn.last_seen.load()) >= timeout(settings, protocol, conn.word.state())
}

/// The same, of SCTP or not.
#[inline(always)]
pub fn looks_over<A, P: Packet>(settings: &Settings, protocol: u8, conn: &Held<'_, A>, now: u32) -> bool {
    let state = conn.word.state();
    let timeout = match P::SCTP {
        true => association_timeout(settings, state),
        false => plain_timeout(settings, protocol, state),
    };
    age(now, conn.last_seen.load()) >= timeout
}

/// How an attempt to expire ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// Both directions are gone, counters are right.
    Gone,
    /// A packet of either direction came in time.
    Alive,
    /// There is no such connection (any more).
    Absent,
}

/// Expires the connection that `key` (of either direction) belongs to, if
/// neither direction had a packet within its timeout, or at once if `force`.
/// The packet path calls it for an entry it finds too old, user space's sweep
/// for idle candidates: one protocol, one winner.
#[inline(never)]
pub fn expire<F: Family, T: Tables>(t: &mut T, key: &Tuple<F::Addr>, force: bool) -> Expiry {
    let Some(found) = held::<F, T>(t, key) else { return Expiry::Absent };
    if found.kind == kind::TEMPLATE {
        return persist::expire::<F, T>(t, key, force);
    }
    let other = partner::<F>(key, &found);
    if found.is_reply() { retire::<F, T>(t, &other, key, force) } else { retire::<F, T>(t, key, &other, force) }
}

/// Removes a reply entry whose connection does not exist (any more), once it is old: a
/// young one is of a connection that another CPU is opening.
#[inline(always)]
fn abandon<F: Family, T: Tables>(t: &mut T, request: &Tuple<F::Addr>, reply: &Tuple<F::Addr>) -> Expiry {
    let Some(settings) = t.settings() else { return Expiry::Alive };
    let Some(entry) = held::<F, T>(t, reply) else { return Expiry::Absent };
    if !answers::<F>(reply, &entry, request) || !looks_idle(settings, reply.proto(), &entry, t.now()) {
        return Expiry::Alive;
    }
    if !bury(entry) {
        return Expiry::Alive;
    }
    F::remove(t, reply);
    Expiry::Gone
}

/// Marks an entry dead whose word decides nothing: who does removes it.
#[inline(always)]
fn bury<A>(held: Held<'_, A>) -> bool {
    let mut word = held.word;
    let mut n = 0;
    while n < TRIES && word.is_of(held.word) && !word.dead() {
        if held.entry.word.swap_if(word.0, word.0 | Word::DEAD) {
            return true;
        }
        word = held.entry.word();
        n += 1;
    }
    false
}

/// Removes the reply entry of this connection, unless somebody else does.
#[inline(always)]
pub fn remove_other<F: Family, T: Tables>(t: &mut T, reply: &Tuple<F::Addr>, of: Word) {
    if other::<F, T>(t, reply, of).is_some_and(bury) {
        F::remove(t, reply);
    }
}

/// Expires the connection with these two keys.
#[inline(never)]
fn retire<F: Family, T: Tables>(t: &mut T, request: &Tuple<F::Addr>, reply: &Tuple<F::Addr>, force: bool) -> Expiry {
    let now = t.now();
    let Some(conn) = held::<F, T>(t, request) else { return abandon::<F, T>(t, request, reply) };
    if !answered_by::<F>(request, &conn, reply) {
        return abandon::<F, T>(t, request, reply);
    }
    let Held { entry, word } = conn;
    if word.dead() {
        return Expiry::Absent;
    }
    let server = entry.server;
    let (paired, whose) = (paired(conn.kind), Whose::of(entry));
    if !force {
        let Some(settings) = t.settings() else { return Expiry::Alive };
        // A control connection of FTP may be silent as long as its data flows.
        if entry.link().connections() != 0 {
            return Expiry::Alive;
        }
        let mut idle = age(now, entry.last_seen.load());
        if paired && let Some(copy) = F::conn(t, reply) {
            idle = idle.min(age(now, copy.last_seen.load()));
        }
        if idle < timeout(settings, request.proto(), word.state()) {
            return Expiry::Alive;
        }
    }
    if !entry.word.swap_if(word.0, word.0 | Word::DEAD) {
        return Expiry::Alive; // a packet, or another expiry, was faster
    }
    if let Some(server) = t.server(server) {
        server.remove_connection(word.active());
    }
    if paired {
        remove_other::<F, T>(t, reply, word);
    }
    F::remove(t, request);
    if whose.controlled() {
        persist::release::<F, T>(t, request, &whose);
    }
    Expiry::Gone
}

/// Tries of a compare-and-swap before the change is given up: more CPUs than
/// this would have to change one connection's state at the same instant.
const TRIES: u32 = 8;

/// Whether connections in this state are counted as active.
#[inline(always)]
pub(crate) fn is_active(protocol: u8, state: u8) -> bool {
    match protocol {
        proto::TCP => tcp::active(state),
        proto::SCTP => sctp::active(state),
        _ => false,
    }
}

/// Moves an entry to that state, whatever it was in, and its server's counters with it; of a
/// template only the state. Says whether it did: a packet may be faster.
#[inline(always)]
pub(crate) fn set_state<F: Family, T: Tables>(
    t: &T,
    key: &Tuple<F::Addr>,
    held: &Held<'_, F::Addr>,
    state: u8,
) -> bool {
    let (word, kind) = (held.word, held.kind);
    let active = kind != kind::TEMPLATE && is_active(key.proto(), state);
    let new = word.with(state, active);
    if !held.entry.word.swap_if(word.0, new.0) {
        return false;
    }
    if active != word.active()
        && let Some(server) = t.server(held.server)
    {
        server.move_connection(active);
    }
    if paired(kind) {
        copy_state::<F, T>(t, key, held, new);
    }
    true
}

/// The reply entry's copy of the state.
#[inline(never)]
fn copy_state<F: Family, T: Tables>(t: &T, request: &Tuple<F::Addr>, conn: &Held<'_, F::Addr>, word: Word) {
    if let Some(copy) = other::<F, T>(t, &partner::<F>(request, conn), word) {
        copy.entry.word.swap_if(copy.word.0, copy.word.with(word.state(), word.active()).0);
    }
}

/// A protocol's states.
trait Machine {
    /// What a packet says.
    type Event: Copy;
    /// The same, of [`crate::parse::Transport::flags`].
    fn event(said: u8) -> Self::Event;
    /// The state in which both sides talk.
    const ESTABLISHED: u8;
    /// The row of `event`, which [`tcp::read`] reads; `secure`: with `secure_tcp`.
    fn row(secure: bool, direction: Direction, event: Self::Event) -> u64;
    /// Whether connections in this state are counted as active.
    fn active(state: u8) -> bool;
}

struct Tcp;
struct Sctp;

impl Machine for Tcp {
    type Event = Event;
    const ESTABLISHED: u8 = tcp::State::Established as u8;
    #[inline(always)]
    fn event(said: u8) -> Event {
        Event::of(said)
    }
    #[inline(always)]
    fn row(secure: bool, direction: Direction, event: Event) -> u64 {
        if secure { tcp::secure_row(direction, event) } else { tcp::row_of(direction, event) }
    }
    #[inline(always)]
    fn active(state: u8) -> bool {
        tcp::active(state)
    }
}

impl Machine for Sctp {
    type Event = u8;
    const ESTABLISHED: u8 = sctp::State::Established as u8;
    #[inline(always)]
    fn event(said: u8) -> u8 {
        said
    }
    #[inline(always)]
    fn row(_: bool, direction: Direction, event: u8) -> u64 {
        sctp::row_of(direction, event)
    }
    #[inline(always)]
    fn active(state: u8) -> bool {
        sctp::active(state)
    }
}

/// Moves the connection's state by `event` and the server's counters with it.
/// Gives the new word, if it changed.
#[inline(always)]
fn step<T: Tables, M: Machine, A>(t: &T, conn: &Held<'_, A>, direction: Direction, event: M::Event) -> Option<Word> {
    let secure = t.settings().is_some_and(|settings| settings.flags & setting::SECURE_TCP != 0);
    // Or all that follows is verified for each row.
    let row = t.forget_all(M::row(secure, direction, event));
    let mut word = conn.word;
    let mut n = 0;
    while n < TRIES {
        let next = tcp::read(row, word.state());
        if next == word.state() || word.dead() || !word.is_of(conn.word) {
            return None;
        }
        let (active, server) = (M::active(next), conn.server);
        let new = word.with(next, active);
        if conn.entry.word.swap_if(word.0, new.0) {
            if active != word.active()
                && let Some(server) = t.server(server)
            {
                server.move_connection(active);
            }
            return Some(new);
        }
        word = conn.entry.word();
        n += 1;
    }
    None
}

/// State change by a packet that `key` is the tuple of; `said` is what it says:
/// [`crate::parse::Transport::flags`].
#[inline(always)]
pub fn on_packet<F: Family, P: Packet, T: Tables>(t: &T, key: &Tuple<F::Addr>, conn: &Held<'_, F::Addr>, said: u8) {
    if P::ALONE {
        return;
    }
    if P::SCTP {
        on_association::<F, P, T>(t, key, conn, said);
    } else if key.proto() == proto::TCP {
        on_segment::<F, P, T>(t, key, conn, said);
    } else if !P::EASY && unanswered(conn) {
        note_answer::<F, T>(t, key, conn);
    }
}

/// Whether a packet has more to do than the easy path can: a template is to be told that a
/// connection of it is established, or answered.
#[inline(always)]
pub fn tells_template<A: Copy>(key: &Tuple<A>, conn: &Held<'_, A>, said: u8) -> bool {
    if conn.flags & conn_flag::CONTROLLED == 0 {
        return false;
    }
    if key.proto() != proto::TCP {
        return unanswered(conn);
    }
    let state = conn.word.state();
    state != tcp::State::Established as u8
        && tcp::next(whence(conn.kind), Event::of(said), state) == tcp::State::Established as u8
}

/// Who sends packets of such entries.
#[inline(always)]
pub(crate) fn whence(kind: u8) -> Direction {
    match kind {
        kind::NAT_REQUEST => Direction::In,
        kind::NAT_REPLY => Direction::Out,
        _ => Direction::InOnly,
    }
}

/// State change by a TCP segment. Pure data and acknowledgements in a settled state need
/// nothing but the reply entry's copy of the state.
#[inline(always)]
fn on_segment<F: Family, P: Packet, T: Tables>(t: &T, key: &Tuple<F::Addr>, conn: &Held<'_, F::Addr>, flags: u8) {
    const DECISIVE: u8 = TcpHeader::SYN | TcpHeader::FIN | TcpHeader::RST;
    let (direction, event) = (whence(conn.kind), Event::of(flags));
    let state = conn.word.state();
    if direction != Direction::Out {
        if tcp::next(direction, event, state) != state {
            changed::<F, P, T, Tcp>(t, key, conn, false, flags);
        }
        return;
    }
    if flags & DECISIVE == 0 && tcp::next(direction, event, state) == state {
        return;
    }
    let request = partner::<F>(key, conn);
    if let Some(master) = other::<F, T>(t, &request, conn.word) {
        changed::<F, P, T, Tcp>(t, &request, &master, true, flags);
    }
}

/// Whether this is a reply entry of a persistent UDP service without an answer so far.
#[inline(always)]
fn unanswered<A>(conn: &Held<'_, A>) -> bool {
    conn.flags & conn_flag::CONTROLLED != 0 && conn.is_reply() && !conn.word.noted()
}

/// The first answer assures the template.
#[inline(never)]
fn note_answer<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>, conn: &Held<'_, F::Addr>) {
    let whose = Whose::of(conn);
    let request = partner::<F>(key, conn);
    if conn.entry.word.swap_if(conn.word.0, conn.word.0 | Word::NOTED) {
        persist::assure::<F, T>(t, &request, &whose);
    }
}

/// State change by an SCTP packet, of either side.
#[inline(always)]
fn on_association<F: Family, P: Packet, T: Tables>(t: &T, key: &Tuple<F::Addr>, conn: &Held<'_, F::Addr>, event: u8) {
    let direction = whence(conn.kind);
    if direction != Direction::Out {
        changed::<F, P, T, Sctp>(t, key, conn, false, event);
        return;
    }
    let state = conn.word.state();
    // Data in a settled state, by the copy of the state, which may lag.
    if event == sctp::event::DATA && sctp::next(direction, event, state) == state {
        return;
    }
    let request = partner::<F>(key, conn);
    if let Some(master) = other::<F, T>(t, &request, conn.word) {
        changed::<F, P, T, Sctp>(t, &request, &master, true, event);
    }
}

/// The rare part of a state change: the swap, and the copy in the reply entry. Here it is found out anew what the packet
/// says, or all of this is verified for each thing that it may say.
#[inline(never)]
fn changed<F: Family, P: Packet, T: Tables, M: Machine>(
    t: &T,
    request: &Tuple<F::Addr>,
    conn: &Held<'_, F::Addr>,
    by_server: bool,
    said: u8,
) {
    // While the word is the same, so is all else.
    let kind = conn.kind;
    let direction = if by_server { Direction::Out } else { whence(kind) };
    let Some(word) = step::<T, M, F::Addr>(t, conn, direction, M::event(said)) else { return };
    if !P::EASY && conn.flags & conn_flag::CONTROLLED != 0 && word.state() == M::ESTABLISHED {
        assure::<F, T>(t, request, conn);
    }
    if paired(kind) {
        copy_state::<F, T>(t, request, conn, word);
    }
}

/// A connection is established: its template is assured. (Not inlined, as [`copy_state`]: one frame on the stack after the
/// other is less than both in one, of which kernel 6.1 has no more here.)
#[inline(never)]
fn assure<F: Family, T: Tables>(t: &T, request: &Tuple<F::Addr>, conn: &Held<'_, F::Addr>) {
    let whose = Whose::of(conn);
    if conn.lasts() {
        persist::assure::<F, T>(t, request, &whose);
    }
}

/// What user space wants of a candidate.
#[inline(always)]
fn end<F: Family, T: Tables>(t: &mut T, key: &Tuple<F::Addr>, flags: u32) -> Expiry {
    match flags & candidate::RESET != 0 {
        true => reset::begin::<F, T>(t, key),
        false => expire::<F, T>(t, key, flags & candidate::AT_ONCE != 0),
    }
}

/// Number `i` of the candidates that user space wrote: expired if it is due.
#[inline(always)]
pub fn expire_candidate<T: Tables>(t: &mut T, candidate: &mut Candidate) {
    let flags = candidate.flags;
    let outcome = if flags & candidate::IPV6 != 0 {
        end::<V6, T>(t, &candidate.key, flags)
    } else {
        let key = &candidate.key;
        let ([a, b, ..], [c, d, ..]) = (key.src.0, key.dst.0);
        let key = Tuple {
            src: Addr4([a, b]),
            dst: Addr4([c, d]),
            sport: key.sport,
            dport: key.dport,
            protocol: key.protocol,
        };
        end::<V4, T>(t, &key, flags)
    };
    candidate.result = match outcome {
        Expiry::Gone => 1,
        Expiry::Alive => 2,
        Expiry::Absent => 3,
    };
}
