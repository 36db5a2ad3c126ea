//! One virtual router: events in, actions out. It has no clock and no socket; whoever calls says
//! what time it is with every call, hears of every deadline, and does what [`Action`]s say, in their
//! order. The transitions themselves are in [`table`].
//!
//! # Late calls
//!
//! A process that was not scheduled (a busy machine, a stopped VM) finds its timers run out and the
//! world changed. Two rules, so that it neither answers beside another master nor takes over from one:
//!
//! * **A master is sure for [`Parameters::sure_for`]** after its last advert: no backup that heard
//!   this advert can have taken over before. Whatever happens later than that first makes it backup,
//!   without an advert, for a full master-down interval: if a peer took over it is heard in that time,
//!   and if none did there is none that could object. Any input counts: an advert of the new master
//!   that waited in the socket is heard by a backup, not answered by a master.
//! * **A backup that slept listens first.** Of its own timer alone it could not know: the timer may run
//!   out just before it wakes. So it wants to be called once in an advert interval, and whenever that
//!   or its timer was missed by more than [`Parameters::late_after`], it takes over no sooner than an advert
//!   interval and its skew time later, in which a living master sends at least one advert. Three
//!   times in a row without hearing one at most: who is always late takes over at last. Shorter sleeps
//!   are harmless to who reads its sockets before it polls.
//!
//! For the time in which the process does not run, [`Router::addresses_valid_until`] is when somebody
//! else (address lifetimes, a guard process) has to take the addresses away.

use crate::action::{Action, Event, Occasion, Role, Start, Why};
use crate::announce::Schedule;
use crate::contention::Contention;
use crate::packet::{Advert, Centis, Version};
use crate::parameters::{OWNER, Parameters};
use crate::time::{Time, earliest};
use dirigent_wire::Mac;
use std::net::IpAddr;
use std::time::Duration;

mod adverts;
pub mod table;
use table::{Signal, Step};

/// Times that a late backup listens again instead of taking over, until it hears an advert.
const LISTENS: u8 = 3;

/// A virtual router.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Router {
    parameters: Parameters,
    /// After tracking.
    priority: u8,
    state: State,
    /// Something needed is down: remembered while it does not run.
    faulted: bool,
    /// Handed over: no preemption until it was master again.
    yielded: bool,
    heard: Option<Heard>,
    /// The last advert of each of the two masters that were heard last.
    masters: [Option<Heard>; 2],
    /// Whose different addresses were reported last.
    differs: Option<IpAddr>,
    /// Whose addresses were looked at last (`skip_check_adv_addr`).
    checked: Option<IpAddr>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Initialize { starts_at: Option<Time> },
    Backup(Backup),
    Master(Master),
    Fault,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Backup {
    /// Master_Down_Timer.
    down_at: Time,
    /// Master_Adver_Interval.
    interval: Centis,
    /// Since when a lower master may be preempted (`preempt_delay`).
    preempt_at: Option<Time>,
    /// When it was called last.
    awake_at: Time,
    /// Times that it was late and then heard nobody.
    listens: u8,
    hand_over: Option<HandOver>,
    /// The lower master that was heard last, if it is not left alone.
    defied: Option<Heard>,
}

/// A hand-over that nobody has taken yet.
#[derive(Clone, PartialEq, Eq, Debug)]
struct HandOver {
    /// When priority 0 is said once more, if the first was lost.
    repeat_at: Option<Time>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Master {
    since: Time,
    sent_at: Time,
    /// Adver_Timer.
    advert_at: Time,
    /// The master before: one advert of it may still be under way.
    predecessor: Option<IpAddr>,
    announce: Schedule,
    contention: Contention,
}

/// The last advert of a master that was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Who sent it.
    pub source: IpAddr,
    /// Its priority, not 0.
    pub priority: u8,
    /// The interval that it said.
    pub interval: Centis,
    /// When it was heard.
    pub at: Time,
}

impl Router {
    /// A router that waits for [`Event::Start`]. The parameters should have been checked
    /// ([`Parameters::check`]); nonsense makes a useless router, not a panic.
    pub const fn new(parameters: Parameters) -> Self {
        Self {
            priority: parameters.priority,
            parameters,
            state: State::Initialize { starts_at: None },
            faulted: false,
            yielded: false,
            heard: None,
            masters: [None; 2],
            differs: None,
            checked: None,
        }
    }

    /// Its state.
    pub const fn role(&self) -> Role {
        match self.state {
            State::Initialize { .. } => Role::Initialize,
            State::Backup(_) => Role::Backup,
            State::Master(_) => Role::Master,
            State::Fault => Role::Fault,
        }
    }

    /// Its parameters.
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Its priority after tracking.
    pub const fn priority(&self) -> u8 {
        self.priority
    }

    /// The last advert of another master.
    pub const fn heard(&self) -> Option<&Heard> {
        self.heard.as_ref()
    }

    /// When it sent its last advert, if it is master: to be kept for [`Start::last_advert`].
    pub const fn last_advert(&self) -> Option<Time> {
        match &self.state {
            State::Master(master) => Some(master.sent_at),
            _ => None,
        }
    }

    /// Whether it handed over and does not preempt.
    pub const fn has_yielded(&self) -> bool {
        self.yielded
    }

    /// Whether it is master and has signs of another one.
    pub fn is_contended(&self) -> bool {
        matches!(&self.state, State::Master(master) if master.contention.is_on())
    }

    /// Which of its addresses another host claims of late, and by which MAC.
    pub fn claimed(&self) -> Option<(IpAddr, Mac)> {
        match &self.state {
            State::Master(master) => master.contention.claim(),
            _ => None,
        }
    }

    /// The advert that [`Action::SendAdvert`] of this priority means.
    pub fn advert(&self, priority: u8) -> Advert {
        let Parameters { vrid, advert_int, addresses, .. } = &self.parameters;
        Advert {
            version: self.parameters.version(),
            vrid: *vrid,
            priority,
            interval: *advert_int,
            addresses: addresses.clone(),
        }
    }

    /// When [`Router::poll`] is due. After a poll it is later than the poll.
    pub fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Initialize { starts_at } => *starts_at,
            State::Backup(backup) => {
                let repeat = backup.hand_over.as_ref().and_then(|hand_over| hand_over.repeat_at);
                earliest([Some(backup.due(self.parameters.advert_int)), repeat])
            }
            State::Master(master) => {
                earliest([Some(master.advert_at), master.announce.deadline(), master.contention.deadline()])
            }
            State::Fault => None,
        }
    }

    /// When a master's addresses must be gone unless it was called again before and said otherwise.
    /// `None`: it does not hold any.
    ///
    /// Backups take over `down_timer_adverts` intervals and their skew time after the last advert they
    /// heard. This is a little before, counted from the last one sent ([`Parameters::sure_for`]). So
    /// if no advert is lost nobody answers beside a router that hangs, and each advert lost right before
    /// costs an interval of two that answer. To be asked again after every call.
    pub fn addresses_valid_until(&self) -> Option<Time> {
        match &self.state {
            State::Master(master) => Some(master.sent_at + self.parameters.sure_for()),
            _ => None,
        }
    }

    /// How long a router that gave way waits for a peer to take over.
    pub fn hand_over_bound(&self) -> Duration {
        // A peer has missed all adverts of priority 0, or heard the second only. Then the peer's first
        // advert has an interval's time to come.
        let interval = self.parameters.advert_int.duration();
        let unheard = interval * u32::from(self.parameters.down_timer_adverts);
        unheard.max(self.repeat_zero_after()) + self.parameters.longest_skew(self.parameters.advert_int) + interval
    }

    /// Something happened.
    pub fn handle(&mut self, now: Time, event: Event<'_>, out: &mut Vec<Action>) {
        self.settle(now, out);
        match event {
            Event::Start(start) => self.on_start(now, start, out),
            Event::Stop => {
                if let State::Initialize { starts_at } = &mut self.state {
                    *starts_at = None;
                }
                self.signal(now, Signal::Stop, None, Why::Stopped, out);
                (self.heard, self.masters, self.yielded) = (None, [None; 2], false);
            }
            Event::Advert { advert, source } => self.on_advert(now, advert, source, out),
            Event::Fault => {
                self.faulted = true;
                if !matches!(self.state, State::Initialize { .. }) {
                    self.signal(now, Signal::Fault, None, Why::Fault, out);
                }
            }
            Event::Recovered => {
                self.faulted = false;
                let signal = if self.owner() { Signal::RecoverMaster } else { Signal::Recover };
                self.signal(now, signal, None, Why::Recovered, out);
            }
            Event::Priority(priority) => self.on_priority(priority),
            Event::HandOver => {
                let was_master = self.role() == Role::Master;
                self.signal(now, Signal::HandOver, None, Why::HandOver, out);
                self.yielded |= was_master;
            }
            Event::HandBack => self.yielded = false,
            Event::Source(source) => self.parameters.source = source,
            Event::ForeignAnnouncement { address, mac } => {
                if let State::Master(master) = &mut self.state {
                    let (defend, alarm) = master.contention.announcement(now, address, mac);
                    out.extend(alarm.map(Action::Alarm));
                    if defend {
                        master.announce.defend(&self.parameters, out);
                    }
                }
            }
        }
    }

    /// Does what is due. To be called at [`Router::deadline`], after the sockets were read; earlier
    /// does no harm.
    pub fn poll(&mut self, now: Time, out: &mut Vec<Action>) {
        self.settle(now, out);
        match &mut self.state {
            State::Initialize { starts_at } if starts_at.is_some_and(|at| at <= now) => {
                *starts_at = None;
                self.start(now, out);
            }
            State::Backup(backup) => {
                if backup.down_at <= now {
                    self.on_master_down(now, out);
                } else if let Some(hand_over) = &mut backup.hand_over
                    && hand_over.repeat_at.is_some_and(|at| at <= now)
                {
                    hand_over.repeat_at = None;
                    self.send(0, out);
                }
            }
            State::Master(master) => {
                let late = now.since(master.advert_at);
                if late > self.parameters.late_after() {
                    out.push(Action::Late { by: late });
                }
                if let Some(alarm) = master.contention.poll(now) {
                    out.push(Action::Alarm(alarm));
                    master.announce.healed(now, &self.parameters, out);
                }
                master.announce.poll(now, &self.parameters, out);
                if master.advert_at <= now {
                    self.signal(now, Signal::AdvertDue, None, Why::Started, out);
                }
            }
            State::Initialize { .. } | State::Fault => {}
        }
    }

    /// The sync group does not begin as master.
    pub(crate) const fn begin_as_backup(&mut self) {
        self.parameters.start_as_master = false;
    }

    /// The sync group changed its state.
    pub(crate) fn pull(&mut self, now: Time, to: Role, out: &mut Vec<Action>) {
        let signal = match to {
            Role::Master => Signal::PullMaster,
            Role::Backup => Signal::PullBackup,
            Role::Fault => Signal::Fault,
            Role::Initialize => return,
        };
        self.signal(now, signal, None, Why::Group, out);
    }

    /// A member of the sync group announces its addresses because of another master.
    pub(crate) fn announce_with_group(&mut self, now: Time, occasion: Occasion, out: &mut Vec<Action>) {
        if let State::Master(master) = &mut self.state {
            match occasion {
                Occasion::Healed => master.announce.healed(now, &self.parameters, out),
                _ => master.announce.lower_heard(now, &self.parameters, out),
            }
        }
    }

    /// When it takes over if nobody is heard.
    pub(crate) const fn down_at(&self) -> Option<Time> {
        match &self.state {
            State::Backup(backup) => Some(backup.down_at),
            _ => None,
        }
    }

    /// Does not take over before `until`: the sync group is not agreed.
    pub(crate) fn wait_until(&mut self, until: Time) {
        if let State::Backup(backup) = &mut self.state {
            backup.down_at = backup.down_at.max(until);
        }
    }

    /// Before anything else: a master that can no longer be sure is none, and a backup that slept
    /// listens.
    pub(crate) fn settle(&mut self, now: Time, out: &mut Vec<Action>) {
        let (own, late_after) = (self.parameters.advert_int, self.parameters.late_after());
        match &mut self.state {
            State::Master(master) => {
                let until = master.sent_at + self.parameters.sure_for();
                if until <= now {
                    out.push(Action::Late { by: now.since(master.advert_at) });
                    self.signal(now, Signal::Late, None, Why::Late { by: now.since(until) }, out);
                }
            }
            State::Backup(backup) => {
                let late = now.since(backup.due(own));
                backup.awake_at = now;
                if late > late_after {
                    out.push(Action::Late { by: late });
                    if backup.listens < LISTENS {
                        backup.listens += 1;
                        self.signal(now, Signal::WokeLate, None, Why::NoAdvert, out);
                    }
                }
            }
            State::Initialize { .. } | State::Fault => {}
        }
    }

    fn on_start(&mut self, now: Time, start: Start, out: &mut Vec<Action>) {
        if self.role() != Role::Initialize {
            return;
        }
        let sure = start.last_advert.is_some_and(|at| at <= now && now < at + self.parameters.sure_for());
        if start.still_holds_addresses && sure && !self.faulted {
            return self.signal(now, Signal::Resume, None, Why::Resumed, out);
        }
        if start.still_holds_addresses {
            // Too late to know whether they are another's by now.
            out.push(Action::RemoveAddresses);
        }
        if self.parameters.startup_delay.is_zero() {
            self.start(now, out);
        } else {
            self.state = State::Initialize { starts_at: Some(now + self.parameters.startup_delay) };
        }
    }

    fn start(&mut self, now: Time, out: &mut Vec<Action>) {
        let (signal, why) = if self.faulted {
            (Signal::Fault, Why::Fault)
        } else if self.owner() || self.parameters.start_as_master {
            (Signal::StartMaster, Why::Started)
        } else {
            (Signal::Start, Why::Started)
        };
        self.signal(now, signal, None, why, out);
    }

    fn on_master_down(&mut self, now: Time, out: &mut Vec<Action>) {
        let State::Backup(backup) = &self.state else { return };
        // A defied master that is not heard any more is dead like any other.
        let alive = |heard: &Heard| now.since(heard.at) <= self.parameters.master_down(self.priority, heard.interval);
        let why = match backup.defied.filter(alive) {
            _ if backup.hand_over.is_some() => Why::HandOverFailed,
            Some(Heard { source, priority, .. }) => Why::Preempted { address: source, priority },
            None => Why::NoAdvert,
        };
        self.signal(now, Signal::MasterDown, None, why, out);
    }

    fn on_priority(&mut self, priority: u8) {
        if self.owner() {
            return;
        }
        let before = self.priority;
        self.priority = priority.clamp(1, OWNER - 1);
        // A master that was defied until now is not any more: it is owed its time.
        if let (State::Backup(backup), Some(heard)) = (&mut self.state, self.heard)
            && (self.priority..before).contains(&heard.priority)
        {
            let until = heard.at + self.parameters.master_down(self.priority, heard.interval);
            backup.down_at = backup.down_at.max(until);
            backup.defied = None;
        }
    }

    /// One row of the table.
    fn signal(&mut self, now: Time, signal: Signal, heard: Option<Heard>, why: Why, out: &mut Vec<Action>) {
        let from = self.role();
        let Some(row) = table::row(from, signal) else { return };
        if row.next != from {
            if let State::Master(master) = &mut self.state {
                out.extend(master.contention.end(now).map(Action::Alarm));
            }
            self.enter(now, row.next);
        }
        for step in row.steps {
            self.step(now, *step, heard, out);
        }
        if row.next != from {
            out.push(Action::StateChanged { from, to: row.next, why });
        }
    }

    fn enter(&mut self, now: Time, role: Role) {
        let own = self.parameters.advert_int;
        self.state = match role {
            Role::Initialize => State::Initialize { starts_at: None },
            Role::Fault => State::Fault,
            Role::Backup => State::Backup(Backup {
                down_at: now + self.parameters.master_down(self.priority, own),
                interval: own,
                preempt_at: None,
                awake_at: now,
                listens: 0,
                hand_over: None,
                defied: None,
            }),
            Role::Master => {
                self.yielded = false;
                State::Master(Master {
                    since: now,
                    sent_at: now,
                    advert_at: now + own.duration(),
                    predecessor: self.heard.map(|heard| heard.source),
                    announce: Schedule::default(),
                    contention: Contention::default(),
                })
            }
        };
    }

    fn step(&mut self, now: Time, step: Step, heard: Option<Heard>, out: &mut Vec<Action>) {
        match step {
            Step::SendAdvert => self.send_timed(now, out),
            Step::Answer if self.parameters.lower_prio_no_advert => {}
            Step::Answer => self.send_timed(now, out),
            Step::SendLast if self.parameters.higher_prio_send_advert => self.send(self.priority, out),
            Step::SendLast => {}
            Step::SendZero => self.send(0, out),
            Step::AddAddresses => out.push(Action::AddAddresses),
            Step::RemoveAddresses => out.push(Action::RemoveAddresses),
            Step::Announce | Step::AnnounceAgain | Step::ResumeAnnouncing => self.announce(now, step, out),
            Step::AdoptInterval | Step::SetMasterDown | Step::SetSkew | Step::SetListen | Step::SetHandOver => {
                self.set_timer(now, step, heard);
            }
        }
    }

    fn announce(&mut self, now: Time, step: Step, out: &mut Vec<Action>) {
        let State::Master(master) = &mut self.state else { return };
        match step {
            Step::Announce => master.announce.take_over(now, &self.parameters, out),
            Step::ResumeAnnouncing => master.announce = Schedule::resumed(now, &self.parameters),
            _ => master.announce.lower_heard(now, &self.parameters, out),
        }
    }

    fn set_timer(&mut self, now: Time, step: Step, heard: Option<Heard>) {
        let p = &self.parameters;
        let after_hand_over = (self.hand_over_bound(), self.repeat_zero_after());
        let State::Backup(backup) = &mut self.state else { return };
        let skew = crate::parameters::skew_time(p.version(), self.priority, backup.interval);
        match step {
            // RFC 9568 §6.4.2; in version 2 the intervals are the same.
            Step::AdoptInterval => {
                if let (Version::V3, Some(heard)) = (p.version(), heard) {
                    backup.interval = heard.interval;
                }
            }
            Step::SetSkew => backup.down_at = now + skew,
            Step::SetListen => backup.down_at = backup.down_at.max(now + backup.interval.duration() + skew),
            Step::SetHandOver => {
                backup.down_at = now + after_hand_over.0;
                backup.hand_over = Some(HandOver { repeat_at: Some(now + after_hand_over.1) });
            }
            _ => backup.down_at = now + p.master_down(self.priority, backup.interval),
        }
    }

    /// An advert, from which the next one and the peers' timers count.
    fn send_timed(&mut self, now: Time, out: &mut Vec<Action>) {
        self.send(self.priority, out);
        if let State::Master(master) = &mut self.state {
            master.sent_at = now;
            master.advert_at = now + self.parameters.advert_int.duration();
        }
    }

    fn send(&self, priority: u8, out: &mut Vec<Action>) {
        out.push(Action::SendAdvert { priority, interval: self.parameters.advert_int });
    }

    /// Later than a peer that heard the first priority 0 has taken over: a second one would set
    /// its timer back.
    pub(crate) fn repeat_zero_after(&self) -> Duration {
        let interval = self.parameters.advert_int;
        self.parameters.longest_skew(interval) + interval.duration()
    }

    const fn owner(&self) -> bool {
        self.parameters.priority == OWNER
    }
}

impl Backup {
    /// When it wants to be called: when its timer runs out, and once in an advert interval.
    fn due(&self, own: Centis) -> Time {
        self.down_at.min(self.awake_at + own.duration())
    }
}

#[cfg(test)]
mod tests;
