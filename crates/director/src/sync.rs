//! Synchronisation with other directors: which packets make a connection told to them, and
//! ([`learn`]) how one that they told of is entered. Messages and peers are user space's.

pub mod learn;
pub mod when;

use crate::conn::{self, Held};
use crate::direct::Flow;
#[cfg(doc)]
use crate::direct::Stage;
use crate::family::Family;
use crate::packet::Packet;
use crate::records::{Conn, Settings, Tuple, kind, setting};
use crate::sctp;
use crate::shared::S32;
use crate::tables::Tables;
use crate::tcp::{self, Event};
use dirigent_wire::ip::proto;
use when::{Asked, Remembered};

/// What a request entry or a template knows of it: the state that was told last (the lowest 8
/// bits), and from whom it was learned (the next 8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told(pub u32);

impl Told {
    /// Of a connection that is this director's own: opened here, or with a packet of its client
    /// here since it was learned.
    #[inline(always)]
    #[must_use]
    pub const fn own(state: u8) -> Self {
        Told(state as u32)
    }
    /// Of one that was learned from the director with this number in user space's list, from 1.
    #[inline(always)]
    #[must_use]
    pub const fn learned(origin: u8, state: u8) -> Self {
        Told((origin as u32) << 8 | state as u32)
    }
    /// The state that was told last.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> u8 {
        self.0 as u8
    }
    /// From whom it was learned; 0: it is this director's own.
    #[inline(always)]
    #[must_use]
    pub const fn origin(self) -> u8 {
        (self.0 >> 8) as u8
    }
}

impl<A> Conn<A> {
    /// Of a request entry or template.
    #[inline(always)]
    pub fn told(&self) -> Told {
        Told(self.extra.load())
    }
    /// Of an own one: [`Remembered::end`]. Of a learned one the mark by which user space finds
    /// what its peer no longer knows. (A template has its time where others have their
    /// template's tag, and the reverse.)
    #[inline(always)]
    pub fn told_until(&self) -> &S32 {
        if self.kind == kind::TEMPLATE { &self.template } else { &self.timeout }
    }
}

impl Settings {
    #[inline(always)]
    fn when(&self) -> when::Settings {
        when::Settings {
            threshold: self.sync_threshold,
            period: self.sync_period,
            refresh_ticks: self.sync_refresh,
            retries: self.sync_retries,
            // Which connections it is not for user space knows better, which is told of them.
            persist_mode: false,
            ticks_per_second: self.hz,
        }
    }
}

/// Whether the connection is to be told, once its client's packet has led to this state.
#[inline(always)]
fn decide<A>(settings: &Settings, now: u32, protocol: u8, state: u8, conn: &Conn<A>) -> Option<Remembered> {
    let asked = Asked {
        template: false,
        persistent: false,
        one_packet: false,
        protocol,
        state,
        packets: conn.packets.load().wrapping_add(1),
        timeout_ticks: conn::timeout(settings, protocol, state),
        now_ticks: now,
    };
    let remembered = Remembered { end: conn.told_until().load(), state: conn.told().state() };
    when::decide(&asked, remembered, &settings.when()).send()
}

/// What [`Stage::Tell`] leaves when it is done with a packet.
pub const TOLD: u64 = u64::MAX - 1;

/// Whether other directors may have to be told after a client's packet: [`Stage::Tell`] looks
/// closer. `said`: what the packet says ([`crate::parse::Transport::flags`]).
#[inline(always)]
pub fn concerns<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>, conn: &Held<'_, F::Addr>, said: u8) -> bool {
    let Some(settings) = t.settings() else { return false };
    settings.flags & setting::SYNC != 0
        && is_news(settings, t.now(), conn, u32::from(key.proto()) << 8 | u32::from(said))
}

#[inline(never)]
fn is_news<A>(settings: &Settings, now: u32, conn: &Conn<A>, packet: u32) -> bool {
    let (protocol, said) = ((packet >> 8) as u8, packet as u8);
    let state = conn.word().state();
    if conn.told().origin() != 0 || after(conn, protocol, said, state) != state {
        return true;
    }
    settings.flags & setting::SYNC_MASTER != 0 && decide(settings, now, protocol, state, conn).is_some()
}

/// The state after a client's packet.
#[inline(always)]
fn after<A>(conn: &Conn<A>, protocol: u8, said: u8, state: u8) -> u8 {
    let direction = conn::whence(conn.kind);
    match protocol {
        proto::TCP => tcp::next(direction, Event::of(said), state),
        proto::SCTP => sctp::next(direction, said, state),
        _ => state,
    }
}

/// [`Stage::Tell`]: if other directors are to be told of the connection that a client's packet is
/// of, user space hears. A connection that was learned is this director's own from now on, and
/// its peers hear that.
#[inline(always)]
pub fn tell<F: Family, P: Packet, T: Tables>(p: &P, t: &T, flow: &Flow<F>) {
    let key = &flow.key;
    let (Some(settings), Some(conn)) = (t.settings(), conn::held::<F, T>(t, key)) else { return };
    if key.proto() == proto::TCP {
        // User space reads the state when it hears, which may be before the packet has gone its way.
        conn::on_packet::<F, P, T>(t, key, &conn, flow.l4.flags);
    }
    let told = conn.told();
    let taken = told.origin() != 0;
    if taken {
        conn.told_until().store(0);
        conn.extra.store(Told::own(told.state()).0);
        // Who told of it does not know where its client's packets come in.
        if conn::paired(conn.kind)
            && let Some(reply) = F::conn(t, &conn::partner::<F>(key, &conn))
        {
            reply.extra.store(p.ingress());
        }
    }
    if settings.flags & setting::SYNC_MASTER == 0 {
        return;
    }
    let state = after(&conn, key.proto(), flow.l4.flags, conn.entry.word().state());
    let anyway = Remembered { end: 0, state: told.state() };
    let due = decide(settings, t.now(), key.proto(), state, &conn).or(if taken { Some(anyway) } else { None });
    // What finds no room is still due.
    if let Some(remembered) = due
        && F::tell(t, key)
    {
        conn.told_until().store(remembered.end);
        conn.extra.store(Told::own(remembered.state).0);
    }
}

/// A template of a one-packet service had a packet: no connection is told in its place.
#[inline(always)]
pub fn tell_template<F: Family, T: Tables>(t: &T, key: &Tuple<F::Addr>, template: &Conn<F::Addr>) {
    let Some(settings) = t.settings() else { return };
    if settings.flags & setting::SYNC_MASTER == 0 {
        return;
    }
    if settings.when().counts(template.packets.load()) {
        F::tell(t, key);
    }
}
