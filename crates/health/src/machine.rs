//! One check over time: when the next attempt is due, and whether the check is up.
//!
//! The machine has no clock and makes no attempt. Its runner calls [`Machine::on_deadline`] when
//! [`Machine::deadline`] is reached, makes the attempt that it is told to make, and brings the result.
//!
//! ```text
//!            first success                       first failure
//!        ┌──────────────────── Unknown ────────────────────────────┐
//!        ▼                                                         ▼
//!       Up ── more than `retries` failures in a row ────────────► Down
//!        ▲                                                         │
//!        └──────────────── `rise` successes in a row ──────────────┘
//! ```
//!
//! Whether a server counts as up before the first result is `start_down`'s to say; either way the first result decides
//! alone, as keepalived has it. Only runs count: a success ends a run of failures and the other way around, however
//! long ago the first of them was, so that a server that fails once an hour is not called down after a day.

use crate::check::{Check, Pace, Probe};
use crate::time::{after, share};
use crate::why::Why;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Least time from one attempt to one that a suspicion brings forward: a passive signal may come with every packet.
const LEAST_BETWEEN_SUSPICIONS: Duration = Duration::from_millis(100);

/// Least time between tries: with none a server that refuses connections would be tried without a pause.
const LEAST_BETWEEN_TRIES: Duration = Duration::from_millis(1);

/// What a success says about the server's weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Weight {
    /// Nothing.
    #[default]
    Keep,
    /// It is this, not the configured one: a script's exit code less 2.
    Set(u32),
    /// This is added: a file's number times its weight.
    Add(i64),
}

/// What came of an attempt.
pub type Outcome = Result<Weight, Why>;

/// What is known of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// There was no result yet.
    Unknown,
    /// It passes.
    Up,
    /// It fails.
    Down,
}

/// What the machine goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When, and how often.
    pub pace: Pace,
    /// Until the first result the check counts as down.
    pub start_down: bool,
    /// In so many parts, one each interval, a check that was down is made until it counts as one success. 1: whole.
    pub parts: u32,
}

impl From<&Check> for Settings {
    fn from(check: &Check) -> Self {
        let parts = match &check.probe {
            Probe::Http(http) if !http.fast_recovery => u32::try_from(http.requests.len()).unwrap_or(u32::MAX),
            _ => 1,
        };
        Self { pace: check.pace.clone(), start_down: check.start_down, parts }
    }
}

/// An attempt that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// To be given back with the result.
    pub number: u64,
    /// Only this part of the check, from 0: the request of an HTTP check. None: all of it.
    pub part: Option<u32>,
}

/// The check went up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: Health,
    /// From now on.
    pub to: Health,
    /// Why it is down.
    pub why: Option<Why>,
    /// When that was.
    pub since: Instant,
}

/// What the runner is to do.
#[must_use]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Drop the attempt that is being made: its result will not count.
    pub abandon: bool,
    /// Make this attempt.
    pub probe: Option<Attempt>,
    /// An attempt failed, whether or not that changed anything: for the log.
    pub failed: Option<Why>,
    /// The check went up or down.
    pub change: Option<Change>,
    /// What it says about the weight is another thing than before.
    pub weighed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    Up { failures: u32 },
    Down { why: Why, successes: u32, part: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Not started.
    Idle,
    /// Resting: the virtual address is elsewhere.
    Paused,
    Waiting {
        at: Instant,
    },
    /// An attempt is being made; `suspect`: another one is wanted right after it.
    Running {
        since: Instant,
        suspect: bool,
    },
}

/// The state of one check.
#[derive(Clone, Debug)]
pub struct Machine {
    settings: Settings,
    state: State,
    phase: Phase,
    weight: Weight,
    /// When the state became what it is.
    since: Option<Instant>,
    /// When the last attempt began.
    last: Option<Instant>,
    /// Number of the last attempt.
    number: u64,
}

impl Machine {
    /// One that waits for [`Self::start`].
    pub fn new(settings: Settings) -> Self {
        let (state, phase) = (State::Unknown, Phase::Idle);
        Self { settings, state, phase, weight: Weight::Keep, since: None, last: None, number: 0 }
    }

    /// Begins: the first attempt comes at random within the warmup, or within the interval if there is none, so that
    /// thousands of checks do not begin together. Does nothing to one that has begun.
    pub fn start(&mut self, now: Instant, random: u64) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Waiting { at: self.warm(now, random) };
        }
    }

    /// When [`Self::on_deadline`] is to be called: the next attempt is due, or the one being made has taken too long.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle | Phase::Paused => None,
            Phase::Waiting { at } => Some(at),
            Phase::Running { since, .. } => Some(self.expiry(since)),
        }
    }

    /// The deadline is reached; before it this does nothing.
    pub fn on_deadline(&mut self, now: Instant, random: u64) -> Actions {
        match self.phase {
            Phase::Waiting { at } if now >= at => {
                self.phase = Phase::Running { since: now, suspect: false };
                self.last = Some(now);
                self.number = self.number.wrapping_add(1);
                let probe = Some(Attempt { number: self.number, part: self.part() });
                Actions { probe, ..Actions::default() }
            }
            Phase::Running { since, suspect } if now >= self.expiry(since) => {
                let actions = self.conclude(now, (since, suspect), Err(Why::TIMEOUT), random);
                Actions { abandon: true, ..actions }
            }
            _ => Actions::default(),
        }
    }

    /// Attempt `number` has come to an end. One that was given up does not count; one that took longer than the
    /// timeout has failed, whatever it says.
    pub fn on_result(&mut self, now: Instant, number: u64, outcome: Outcome, random: u64) -> Actions {
        match self.phase {
            Phase::Running { since, suspect } if number == self.number => {
                let outcome = if now > self.expiry(since) { Err(Why::TIMEOUT) } else { outcome };
                self.conclude(now, (since, suspect), outcome, random)
            }
            _ => Actions::default(),
        }
    }

    /// A check that is not asked but tells, such as a session of BFD, says how it is. Nothing is counted: BFD has
    /// counted already.
    pub fn on_told(&mut self, now: Instant, outcome: Outcome) -> Actions {
        let state = match &outcome {
            Ok(_) => State::Up { failures: 0 },
            Err(why) => State::Down { why: why.clone(), successes: 0, part: 0 },
        };
        self.enter(now, state, outcome)
    }

    /// Something passive (connections reset, SYNs without an answer) casts doubt on the server: the next attempt is
    /// made at once, but not sooner after the last than tries follow each other.
    pub fn suspect(&mut self, now: Instant) {
        let soonest = self.soonest(now);
        match &mut self.phase {
            Phase::Waiting { at } => *at = (*at).min(soonest),
            Phase::Running { suspect, .. } => *suspect = true,
            Phase::Idle | Phase::Paused => {}
        }
    }

    /// Rests. Up stays up and down stays down, but runs begin anew.
    pub fn pause(&mut self) -> Actions {
        let abandon = matches!(self.phase, Phase::Running { .. });
        self.phase = Phase::Paused;
        match &mut self.state {
            State::Unknown => {}
            State::Up { failures } => *failures = 0,
            State::Down { successes, part, .. } => (*successes, *part) = (0, 0),
        }
        Actions { abandon, ..Actions::default() }
    }

    /// Goes on after [`Self::pause`], as if it began.
    pub fn resume(&mut self, now: Instant, random: u64) {
        if self.phase == Phase::Paused {
            self.phase = Phase::Waiting { at: self.warm(now, random) };
        }
    }

    /// Other settings. What is known of the check stays, and so do runs; the next attempt comes when it would by the
    /// new pace, if that is sooner.
    pub fn reconfigure(&mut self, now: Instant, settings: Settings, random: u64) {
        self.settings = settings;
        if let Phase::Waiting { at } = self.phase {
            let anew = match self.state {
                State::Unknown => self.warm(now, random),
                State::Up { failures } if failures > 0 => after(now, self.between_tries()),
                _ => after(now, self.interval(random)),
            };
            self.phase = Phase::Waiting { at: at.min(anew) };
        }
    }

    /// What is known.
    pub fn health(&self) -> Health {
        match self.state {
            State::Unknown => Health::Unknown,
            State::Up { .. } => Health::Up,
            State::Down { .. } => Health::Down,
        }
    }

    /// What the check counts as.
    pub fn is_up(&self) -> bool {
        match self.state {
            State::Unknown => !self.settings.start_down,
            State::Up { .. } => true,
            State::Down { .. } => false,
        }
    }

    /// Why it counts as down: the last failure.
    pub fn why(&self) -> Option<&Why> {
        const NOT_YET: &Why = &Why::of("not checked yet");
        match &self.state {
            State::Down { why, .. } => Some(why),
            State::Unknown if self.settings.start_down => Some(NOT_YET),
            State::Unknown | State::Up { .. } => None,
        }
    }

    /// What it says about the weight: the last success.
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// Since when it is up or down.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether an attempt is being made.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Whether it rests.
    pub fn is_paused(&self) -> bool {
        self.phase == Phase::Paused
    }

    fn expiry(&self, since: Instant) -> Instant {
        after(since, self.settings.pace.timeout)
    }

    fn warm(&self, now: Instant, random: u64) -> Instant {
        let Pace { warmup, interval, .. } = self.settings.pace;
        after(now, share(warmup.unwrap_or(interval), random))
    }

    fn interval(&self, random: u64) -> Duration {
        let Pace { interval, jitter, .. } = self.settings.pace;
        interval.saturating_add(share(jitter, random))
    }

    fn between_tries(&self) -> Duration {
        self.settings.pace.retry_interval.max(LEAST_BETWEEN_TRIES)
    }

    /// When a suspicion may have an attempt made.
    fn soonest(&self, now: Instant) -> Instant {
        let Pace { interval, retry_interval, .. } = self.settings.pace;
        let pause = retry_interval.max(LEAST_BETWEEN_SUSPICIONS).min(interval);
        self.last.map_or(now, |last| after(last, pause).max(now))
    }

    fn part(&self) -> Option<u32> {
        match self.state {
            State::Down { part, .. } if self.settings.parts > 1 => Some(part.min(self.settings.parts - 1)),
            _ => None,
        }
    }

    /// The attempt that began at `since` is over: counts it and sets the next.
    fn conclude(&mut self, now: Instant, (since, suspect): (Instant, bool), outcome: Outcome, random: u64) -> Actions {
        let next = self.next(&outcome);
        let usual = match next {
            // Between tries the time from the end counts: a timeout is longer than it.
            State::Up { failures } if failures > 0 => after(now, self.between_tries()),
            // The interval is from start to start, so that the rate does not depend on the answer's delay.
            _ => after(since, self.interval(random)).max(now),
        };
        let at = if suspect { usual.min(self.soonest(now)) } else { usual };
        self.phase = Phase::Waiting { at };
        self.enter(now, next, outcome)
    }

    /// The table.
    fn next(&self, outcome: &Outcome) -> State {
        let Settings { pace: Pace { retries, rise, .. }, parts, .. } = &self.settings;
        let up = |failures| State::Up { failures };
        let down = |why: &Why, successes, part| State::Down { why: why.clone(), successes, part };
        match (&self.state, outcome) {
            (State::Unknown | State::Up { .. }, Ok(_)) => up(0),
            (State::Up { failures }, Err(_)) if failures < retries => up(failures + 1),
            (State::Down { why, successes, part }, Ok(_)) if part.saturating_add(1) < *parts => {
                down(why, *successes, part + 1)
            }
            (State::Down { why, successes, .. }, Ok(_)) if successes.saturating_add(1) < *rise => {
                down(why, successes + 1, 0)
            }
            (State::Down { .. }, Ok(_)) => up(0),
            (_, Err(why)) => down(why, 0, 0),
        }
    }

    fn enter(&mut self, now: Instant, state: State, outcome: Outcome) -> Actions {
        let from = self.health();
        self.state = state;
        let to = self.health();
        let change = (from != to).then(|| {
            self.since = Some(now);
            let why = if to == Health::Down { self.why().cloned() } else { None };
            Change { from, to, why, since: now }
        });
        let mut actions = Actions { change, ..Actions::default() };
        match outcome {
            Ok(weight) => {
                actions.weighed = self.weight != weight;
                self.weight = weight;
            }
            Err(why) => actions.failed = Some(why),
        }
        actions
    }
}

#[cfg(test)]
mod tests;
