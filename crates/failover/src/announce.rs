//! When a master announces its addresses: bursts of gratuitous ARP requests or unsolicited
//! neighbour advertisements, by which switches and neighbours learn where the addresses are now.

use crate::action::{Action, Occasion};
use crate::parameters::Parameters;
use crate::time::{Time, earliest};
use std::time::Duration;

/// After two masters became one again, the one that is left announces at once and so long after:
/// a switch or neighbour that missed one burst, or heard the loser's last, has the next.
const AFTER_HEAL: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// A lower master's adverts are answered by a burst no more often than this.
const AT_MOST_EACH: Duration = Duration::from_secs(1);

/// What a master is still to announce.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Schedule {
    /// Bursts since it became master.
    burst: u32,
    second: Option<Time>,
    lower: Option<Time>,
    refresh: Option<Time>,
    /// Since when, and how many of [`AFTER_HEAL`] are done.
    heal: Option<(Time, usize)>,
    /// No burst for a lower master's sake before this.
    quiet_until: Time,
}

impl Schedule {
    /// Of a router that keeps its addresses through a restart: nothing to announce but refreshes.
    pub(crate) fn resumed(now: Time, p: &Parameters) -> Self {
        Self { refresh: nonzero(p.garp_master_refresh).map(|every| now + every), ..Self::default() }
    }

    /// Became master: the first burst now, the second after `garp_master_delay`.
    pub(crate) fn take_over(&mut self, now: Time, p: &Parameters, out: &mut Vec<Action>) {
        *self = Self::resumed(now, p);
        self.second = nonzero(p.garp_master_delay).map(|after| now + after);
        self.say(Occasion::TakeOver, p.garp_master_repeat, out);
    }

    /// A lower master was heard, whose announcements may have been the last.
    pub(crate) fn lower_heard(&mut self, now: Time, p: &Parameters, out: &mut Vec<Action>) {
        if now < self.quiet_until {
            return;
        }
        self.quiet_until = now + p.garp_lower_prio_delay().max(AT_MOST_EACH);
        self.lower = nonzero(p.garp_lower_prio_delay()).map(|after| now + after);
        self.say(Occasion::LowerPriority, p.garp_lower_prio_repeat(), out);
    }

    /// Another host claims an address.
    pub(crate) fn defend(&mut self, p: &Parameters, out: &mut Vec<Action>) {
        self.say(Occasion::Defence, p.garp_lower_prio_repeat(), out);
    }

    /// There is only one master again.
    pub(crate) fn healed(&mut self, now: Time, p: &Parameters, out: &mut Vec<Action>) {
        self.heal = Some((now, 0));
        self.say(Occasion::Healed, p.garp_master_repeat, out);
    }

    /// When there is something to say next.
    pub(crate) fn deadline(&self) -> Option<Time> {
        earliest([self.second, self.lower, self.refresh, self.next_heal()])
    }

    /// Says what is due. What was missed by lateness is said once.
    pub(crate) fn poll(&mut self, now: Time, p: &Parameters, out: &mut Vec<Action>) {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if due(self.second) {
            self.second = None;
            self.say(Occasion::Second, p.garp_master_repeat, out);
        }
        if due(self.lower) {
            self.lower = None;
            self.say(Occasion::LowerPriority, p.garp_lower_prio_repeat(), out);
        }
        if due(self.refresh) {
            self.refresh = nonzero(p.garp_master_refresh).map(|every| now + every);
            self.say(Occasion::Refresh, p.garp_master_refresh_repeat, out);
        }
        if due(self.next_heal()) {
            while due(self.next_heal()) {
                self.heal = self.heal.map(|(from, done)| (from, done + 1));
            }
            self.say(Occasion::Healed, p.garp_master_repeat, out);
        }
    }

    fn next_heal(&self) -> Option<Time> {
        let (from, done) = self.heal?;
        Some(from + *AFTER_HEAL.get(done)?)
    }

    fn say(&mut self, occasion: Occasion, repeat: u16, out: &mut Vec<Action>) {
        if repeat == 0 {
            return;
        }
        out.push(Action::Announce { burst: self.burst, repeat, occasion });
        self.burst = self.burst.saturating_add(1);
    }
}

fn nonzero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}
