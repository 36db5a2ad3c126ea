//! Adverts that a router hears: which ones it heeds, and which [`Signal`] each one is.

use super::table::Signal;
use super::{Backup, Heard, Router, State};
use crate::action::{Action, Alarm, Discard, Role, Why};
use crate::packet::{Advert, Version};
use crate::parameters::{OWNER, Parameters};
use crate::time::Time;
use std::net::IpAddr;

impl Router {
    /// What an advert does: whose it is, and which signal.
    pub(super) fn on_advert(&mut self, now: Time, advert: &Advert, source: IpAddr, out: &mut Vec<Action>) {
        if let Err(why) = self.check(advert, source, out) {
            out.push(Action::Discarded { source, why });
            return;
        }
        let Advert { priority, interval, .. } = *advert;
        if priority == 0 {
            if self.another_lives(now, source) && self.role() == Role::Backup {
                out.push(Action::Discarded { source, why: Discard::NotTheMaster });
                return;
            }
            if let State::Master(master) = &mut self.state
                && let Some(alarm) = master.contention.end(now)
            {
                // The second master goes by itself.
                out.push(Action::Alarm(alarm));
                master.announce.healed(now, &self.parameters, out);
            }
            return self.signal(now, Signal::Zero, None, Why::NoAdvert, out);
        }
        let heard = Heard { source, priority, interval, at: now };
        let why = Why::BetterMaster { address: source, priority };
        let preempts = self.preempts();
        self.heard = Some(heard);
        let [last, before] = self.masters;
        self.masters = [Some(heard), if last.is_some_and(|last| last.source == source) { before } else { last }];
        match &mut self.state {
            State::Backup(backup) => {
                let defy = priority < self.priority && preempts && backup.may_preempt(now, &self.parameters);
                if priority >= self.priority {
                    backup.preempt_at = None;
                }
                backup.listens = 0;
                backup.hand_over = None;
                backup.defied = Some(heard).filter(|_| defy);
                self.signal(now, if defy { Signal::Defy } else { Signal::Heed }, Some(heard), why, out);
            }
            State::Master(master) => {
                if (priority, source) > (self.priority, self.parameters.source) {
                    return self.signal(now, Signal::Better, Some(heard), why, out);
                }
                // What the master before sent before it heard of this one is none of a second master's.
                let late_word = master.predecessor == Some(source)
                    && now.since(master.since) < self.parameters.advert_int.duration();
                if !late_word {
                    let until = now + self.parameters.master_down(1, interval);
                    out.extend(master.contention.advert(now, source, priority, until).map(Action::Alarm));
                }
                self.signal(now, Signal::Worse, Some(heard), why, out);
            }
            State::Initialize { .. } | State::Fault => {}
        }
    }

    /// Whether an advert is for this router and from one it listens to.
    fn check(&mut self, advert: &Advert, source: IpAddr, out: &mut Vec<Action>) -> Result<(), Discard> {
        let p = &self.parameters;
        if matches!(self.state, State::Initialize { .. } | State::Fault) {
            return Err(Discard::NotRunning);
        }
        if advert.vrid != p.vrid {
            return Err(Discard::Vrid(advert.vrid));
        }
        if advert.version != p.version() || advert.addresses.family() != p.family() {
            return Err(Discard::Format);
        }
        if source == p.source {
            return Err(Discard::OwnAddress);
        }
        if p.owner_ignore_adverts && p.priority == OWNER {
            return Err(Discard::Owner);
        }
        if p.check_unicast_src
            && !p.unicast_peers.is_empty()
            && !p.unicast_peers.iter().any(|peer| peer.address == source)
        {
            return Err(Discard::NotAPeer);
        }
        if p.version() == Version::V2 && advert.interval != p.advert_int {
            return Err(Discard::Interval { got: advert.interval, want: p.advert_int });
        }
        if p.skip_check_adv_addr && self.checked == Some(source) {
            return Ok(());
        }
        if !advert.addresses.same(&p.addresses) {
            // RFC 3768 §7.1 drops them unless the owner sent them; RFC 9568 §7.1 has it said only: two
            // routers in the middle of a change of configuration are not to become two masters.
            if p.strict_mode || p.version() == Version::V2 && advert.priority != OWNER {
                return Err(Discard::Addresses);
            }
            if self.differs.replace(source) != Some(source) {
                out.push(Action::Alarm(Alarm::OtherAddresses { address: source }));
            }
        } else if self.differs == Some(source) {
            self.differs = None;
        }
        self.checked = Some(source);
        Ok(())
    }

    /// `source` is master no more; whether another one was heard that is not overdue.
    ///
    /// Then priority 0 does not mean that there is none. RFC 9568 §6.4.2 does not ask; but
    /// overtaken by the new master's first advert, or said by the loser of a split, it would
    /// make backups take over from a living master.
    fn another_lives(&mut self, now: Time, source: IpAddr) -> bool {
        let adverts = u32::from(self.parameters.down_timer_adverts);
        let lives = |master: &Heard| master.source != source && now < master.at + master.interval.duration() * adverts;
        self.masters = self.masters.map(|master| master.filter(lives));
        self.masters.iter().any(Option::is_some)
    }

    const fn preempts(&self) -> bool {
        (self.parameters.preempt || self.owner()) && !self.yielded
    }
}

impl Backup {
    /// Whether `preempt_delay` is over; a lower master's first advert begins it.
    fn may_preempt(&mut self, now: Time, p: &Parameters) -> bool {
        p.preempt_delay.is_zero() || *self.preempt_at.get_or_insert(now + p.preempt_delay) <= now
    }
}
