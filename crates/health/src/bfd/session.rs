//! One session (RFC 5880 sections 6.2 and 6.8).
//!
//! ```text
//!                            +--+
//!                            |  | neighbour Up, AdminDown; timer
//!                            |  v
//!       neighbour Down  +------+  neighbour Init
//!          +------------|      |------------+
//!          |            | DOWN |            |
//!          |  +-------->|      |<--------+  |
//!          |  |         +------+         |  |
//!          |  | AdminDown, timer         |  | AdminDown, Down, timer
//!          v  |                          |  v
//!        +------+  neighbour Init, Up  +------+
//!        | INIT |--------------------->|  UP  |
//!        +------+                      +------+
//! ```

use super::packet::{Packet, State, diagnostic};
use crate::check::Bfd;
use crate::machine::{Outcome, Weight};
use crate::time::{after, share};
use crate::why::Why;
use std::time::{Duration, Instant};

/// Least time between packets of a session that is not up, µs (section 6.8.3).
const SLOW_US: u32 = 1_000_000;

/// Diagnostics that are told here.
const EXPIRED: u8 = 1;
const SIGNALLED: u8 = 3;
const ADMINISTRATIVE: u8 = 7;

/// What a session goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Least time between packets that it can take, µs.
    pub min_rx_us: u32,
    /// Least time between its own, µs.
    pub min_tx_us: u32,
    /// The same while it is not up, µs; a second at least.
    pub idle_tx_us: u32,
    /// Its detection multiplier; the neighbour goes by it.
    pub multiplier: u8,
    /// It waits for the neighbour to begin.
    pub passive: bool,
}

impl From<&Bfd> for Settings {
    /// Times are cut to what a packet can say, 71 minutes.
    fn from(bfd: &Bfd) -> Self {
        let us = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self {
            min_rx_us: us(bfd.min_rx),
            min_tx_us: us(bfd.min_tx),
            idle_tx_us: us(bfd.idle_tx).max(SLOW_US),
            multiplier: bfd.multiplier.max(1),
            passive: bfd.passive,
        }
    }
}

/// What the runner is to do.
#[must_use]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Send this to the neighbour.
    pub send: Option<Packet>,
    /// The session changed: from, to.
    pub change: Option<(State, State)>,
    /// What to tell the check's machine ([`crate::Machine::on_told`]): the session came up, or it no longer is, or it
    /// did not come up in the time that a failure would take to be seen.
    pub told: Option<Outcome>,
}

/// What is known of the neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remote {
    discriminator: u32,
    state: State,
    min_rx_us: u32,
    demand: bool,
    diagnostic: u8,
}

/// Section 6.8.1.
const UNKNOWN: Remote = Remote { discriminator: 0, state: State::Down, min_rx_us: 1, demand: false, diagnostic: 0 };

/// An interval: what packets say, and what is gone by until the neighbour has answered a poll (section 6.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    said_us: u32,
    used_us: u32,
}

impl Interval {
    fn new(us: u32) -> Self {
        Self { said_us: us, used_us: us }
    }
}

/// A poll sequence (section 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    None,
    /// What is said has changed, and no packet has said it with the Poll bit yet.
    Due,
    /// One has: an answer ends it.
    Sent,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    settings: Settings,
    discriminator: u32,
    state: State,
    diagnostic: u8,
    remote: Remote,
    tx: Interval,
    rx: Interval,
    poll: Poll,
    /// The last periodic packet, and when the next is due.
    sent: Option<Instant>,
    next: Option<Instant>,
    /// The interval by which that is.
    planned: Duration,
    /// When the neighbour is given up if nothing is heard.
    expiry: Option<Instant>,
    /// When a session that never came up is told to be down.
    settle: Option<Instant>,
}

impl Session {
    /// One that begins now. The discriminator is another for each session of this host, random, and not 0.
    pub fn new(settings: Settings, discriminator: u32, now: Instant, random: u64) -> Self {
        let mut session = Self {
            settings,
            discriminator: discriminator.max(1),
            state: State::Down,
            diagnostic: 0,
            remote: UNKNOWN,
            tx: Interval::new(settings.idle_tx_us),
            rx: Interval::new(settings.min_rx_us),
            poll: Poll::None,
            sent: None,
            next: None,
            planned: Duration::MAX,
            expiry: None,
            settle: None,
        };
        session.settle = Some(after(now, us(settings.idle_tx_us) * u32::from(settings.multiplier.max(3))));
        session.reschedule(now, random);
        session
    }

    /// When [`Self::on_deadline`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        [self.next, self.expiry, self.settle].into_iter().flatten().min()
    }

    /// The deadline is reached; before it this does nothing.
    pub fn on_deadline(&mut self, now: Instant, random: u64) -> Actions {
        let mut actions = Actions::default();
        if self.expiry.is_some_and(|at| now >= at) {
            // Section 6.8.1: the neighbour may come back under another name; section 6.8.4.
            (self.expiry, self.remote) = (None, Remote { diagnostic: self.remote.diagnostic, ..UNKNOWN });
            if matches!(self.state, State::Init | State::Up) {
                self.enter(State::Down, EXPIRED, &mut actions);
            }
            // A passive one falls silent.
            self.reschedule(now, random);
        }
        if self.settle.is_some_and(|at| now >= at) {
            self.settle = None;
            actions.told.get_or_insert(Err(Why::of("no session came up")));
        }
        if actions.change.is_some() || self.next.is_some_and(|at| now >= at) {
            actions.send = self.send(now, random);
        }
        actions
    }

    /// A packet of this session, that [`super::find`] led here (section 6.8.6).
    pub fn on_packet(&mut self, now: Instant, packet: &Packet, random: u64) -> Actions {
        let mut actions = Actions::default();
        self.remote = Remote {
            discriminator: packet.mine,
            state: packet.state,
            min_rx_us: packet.required_min_rx_us,
            demand: packet.demand,
            diagnostic: packet.diagnostic,
        };
        if packet.last && self.poll == Poll::Sent {
            self.poll = Poll::None;
            self.tx.used_us = self.tx.said_us;
            self.rx.used_us = self.rx.said_us;
        }
        if self.state != State::AdminDown {
            match (self.state, packet.state) {
                (State::Down, State::Down) => self.enter(State::Init, self.diagnostic, &mut actions),
                (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                    self.enter(State::Up, 0, &mut actions);
                }
                (State::Up, State::Down) | (State::Init | State::Up, State::AdminDown) => {
                    self.enter(State::Down, SIGNALLED, &mut actions);
                }
                _ => {}
            }
        }
        let interval = self.rx.used_us.max(packet.desired_min_tx_us);
        self.expiry = Some(after(now, us(interval) * u32::from(packet.multiplier)));
        self.reschedule(now, random);
        if packet.poll && self.state != State::AdminDown {
            // At once, whatever the timer; and no poll of ours in the same packet.
            actions.send = Some(Packet { poll: false, last: true, ..self.packet() });
        } else if actions.change.is_some() {
            // Section 6.8.7: the neighbour is told sooner than it would be.
            actions.send = self.send(now, random);
        }
        actions
    }

    /// Held down, or no longer (section 6.8.16). Packets that say so go on.
    pub fn hold_down(&mut self, now: Instant, down: bool, random: u64) -> Actions {
        let mut actions = Actions::default();
        match (self.state, down) {
            (State::AdminDown, false) => self.enter(State::Down, 0, &mut actions),
            (State::Down | State::Init | State::Up, true) => {
                self.enter(State::AdminDown, ADMINISTRATIVE, &mut actions);
            }
            (State::AdminDown, true) | (State::Down | State::Init | State::Up, false) => return actions,
        }
        self.reschedule(now, random);
        actions.send = self.send(now, random);
        actions
    }

    /// Other settings; the session stays up. The neighbour is told by a poll.
    pub fn reconfigure(&mut self, now: Instant, settings: Settings, random: u64) {
        self.settings = settings;
        self.say_tx();
        let rx = settings.min_rx_us;
        if self.rx.said_us != rx {
            // A smaller one is what the neighbour does not know of yet: it would be given up too soon.
            let waits = self.state == State::Up && rx < self.rx.used_us;
            self.rx = Interval { said_us: rx, used_us: if waits { self.rx.used_us } else { rx } };
            self.poll = Poll::Due;
        }
        self.reschedule(now, random);
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its name in packets to it.
    pub fn discriminator(&self) -> u32 {
        self.discriminator
    }

    /// Time from one of its packets to the next, before it is made shorter at random.
    pub fn interval(&self) -> Duration {
        us(self.tx.used_us.max(self.remote.min_rx_us))
    }

    fn enter(&mut self, state: State, diagnostic_: u8, actions: &mut Actions) {
        let from = std::mem::replace(&mut self.state, state);
        (self.diagnostic, actions.change) = (diagnostic_, Some((from, state)));
        match (from, state) {
            (_, State::Up) => (self.settle, actions.told) = (None, Some(Ok(Weight::Keep))),
            (State::Up, _) | (_, State::AdminDown) => (self.settle, actions.told) = (None, Some(Err(self.why()))),
            _ => {}
        }
        self.say_tx();
    }

    /// Why it is not up.
    fn why(&self) -> Why {
        match (self.diagnostic, self.remote.state) {
            (SIGNALLED, State::AdminDown) => Why::of("the neighbour is administratively down"),
            (SIGNALLED, _) => Why::new(format!("the neighbour signalled down: {}", diagnostic(self.remote.diagnostic))),
            (code, _) => Why::of(diagnostic(code)),
        }
    }

    /// Section 6.8.3: what it wants to send at depends on the state, and a change of it is told by a poll.
    fn say_tx(&mut self) {
        let Settings { min_tx_us, idle_tx_us, .. } = self.settings;
        let said_us = if self.state == State::Up { min_tx_us } else { idle_tx_us.max(SLOW_US) };
        if said_us != self.tx.said_us {
            // A longer one is what the neighbour does not know of yet: it would give this side up.
            let waits = self.state == State::Up && said_us > self.tx.used_us;
            self.tx = Interval { said_us, used_us: if waits { self.tx.used_us } else { said_us } };
            self.poll = Poll::Due;
        }
    }

    /// Section 6.8.7.
    fn may_send(&self) -> bool {
        let Remote { discriminator, state, min_rx_us, demand, .. } = self.remote;
        let demanded = demand && self.state == State::Up && state == State::Up && self.poll == Poll::None;
        !(self.settings.passive && discriminator == 0) && min_rx_us != 0 && !demanded
    }

    /// The next periodic packet is not later than the interval in force wants it (section 6.8.3). One that is planned
    /// stays as long as that is no shorter: drawing anew with each packet that comes would favour short ones.
    fn reschedule(&mut self, now: Instant, random: u64) {
        if !self.may_send() {
            self.next = None;
        } else if self.next.is_none() || self.interval() < self.planned {
            let due = self.sent.map_or(now, |sent| after(sent, self.jittered(random)).max(now));
            self.next = Some(self.next.map_or(due, |next| next.min(due)));
            self.planned = self.interval();
        }
    }

    /// 75 to 100 % of the interval, 90 % with a multiplier of 1 (section 6.8.7): one of them missed would be the end.
    fn jittered(&self, random: u64) -> Duration {
        let interval = self.interval();
        let spread = if self.settings.multiplier == 1 { interval * 15 / 100 } else { interval / 4 };
        interval * 3 / 4 + share(spread, random)
    }

    /// A packet on time.
    fn send(&mut self, now: Instant, random: u64) -> Option<Packet> {
        if !self.may_send() {
            return None;
        }
        if self.poll == Poll::Due {
            self.poll = Poll::Sent;
        }
        (self.sent, self.next) = (Some(now), Some(after(now, self.jittered(random))));
        self.planned = self.interval();
        Some(self.packet())
    }

    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.poll == Poll::Sent,
            last: false,
            independent: false,
            authentication: false,
            demand: false,
            multiplier: self.settings.multiplier.max(1),
            mine: self.discriminator,
            yours: self.remote.discriminator,
            desired_min_tx_us: self.tx.said_us,
            required_min_rx_us: self.rx.said_us,
            required_min_echo_rx_us: 0,
        }
    }
}

fn us(micros: u32) -> Duration {
    Duration::from_micros(micros.into())
}

#[cfg(test)]
mod tests;
