//! Sync groups: virtual routers of one host that are master, backup or in fault together, such as
//! the one of the clients' side and the one of the servers'. A router without a group is a group of one.
//!
//! * A member that changes its state for a reason of its own pulls the others along.
//! * The group's priority is its members' lowest: with different ones each would win some elections
//!   and pull the rest, in turns with the peer, for ever.
//! * `state MASTER` counts if all members have it.
//! * A backup takes over when **all** members have heard no master. If the peer is gone, that is within
//!   an advert interval of the first; and if only one member's network lost the peer's adverts, the
//!   group stays backup instead of taking over and being pulled back again and again.
//! * When one member hears a lower master, or is rid of it, all announce their addresses.
//! * Of equal priority on both hosts, addresses may favour one host in one member and the other in
//!   the next, and then both may give way at once. So the host that lost in the first member waits an
//!   interval longer.

use crate::action::{Action, Alarm, Event, Occasion, Role, Why};
use crate::parameters::OWNER;
use crate::router::Router;
use crate::time::{Time, earliest};
use thiserror::Error;

/// Virtual routers that move together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    members: Vec<Member>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Member {
    router: Router,
    /// What it needs is down.
    faulted: bool,
    /// The priority that its own tracking gives.
    priority: u8,
}

/// An action of one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberAction {
    /// Whose, as in [`Group::new`].
    pub member: usize,
    /// What.
    pub action: Action,
}

/// Why routers cannot be a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum GroupError {
    /// There is nobody.
    #[error("a group without members")]
    Empty,
    /// An owner's priority is fixed, the others' would have to be as high.
    #[error("an owner of its addresses in one group with others that are not")]
    OwnerAndOthers,
}

impl Group {
    /// A group of routers that were not started.
    pub fn new(routers: Vec<Router>) -> Result<Self, GroupError> {
        let owners = routers.iter().filter(|router| router.parameters().priority == OWNER).count();
        if routers.is_empty() {
            return Err(GroupError::Empty);
        }
        if owners != 0 && owners != routers.len() {
            return Err(GroupError::OwnerAndOthers);
        }
        let member = |router: Router| Member { priority: router.priority(), faulted: false, router };
        let all_masters = routers.iter().all(|router| router.parameters().start_as_master);
        let mut group = Self { members: routers.into_iter().map(member).collect() };
        if !all_masters {
            group.members.iter_mut().for_each(|member| member.router.begin_as_backup());
        }
        group.agree_on_priority(Time::ZERO, &mut Vec::new());
        Ok(group)
    }

    /// The members.
    pub fn routers(&self) -> impl ExactSizeIterator<Item = &Router> {
        self.members.iter().map(|member| &member.router)
    }

    /// One member.
    pub fn router(&self, member: usize) -> Option<&Router> {
        self.members.get(member).map(|member| &member.router)
    }

    /// The state of all members (unless their `startup_delay`s differ, and one is still waiting).
    pub fn role(&self) -> Role {
        self.router(0).map_or(Role::Initialize, Router::role)
    }

    /// When [`Group::poll`] is due.
    pub fn deadline(&self) -> Option<Time> {
        earliest(self.routers().map(Router::deadline))
    }

    /// When the addresses of all members must be gone: see [`Router::addresses_valid_until`].
    pub fn addresses_valid_until(&self) -> Option<Time> {
        earliest(self.routers().map(Router::addresses_valid_until))
    }

    /// Something happened to `member`. Start, stop, hand-over and hand-back are the group's, whichever
    /// member is named.
    pub fn handle(&mut self, now: Time, member: usize, event: Event<'_>, out: &mut Vec<MemberAction>) {
        // Who is late is late in all members, before anything else.
        for each in 0..self.members.len() {
            self.one(now, each, out, |router, actions| router.settle(now, actions));
        }
        match event {
            Event::Start(_) | Event::Stop | Event::HandOver | Event::HandBack => self.all(now, event, out),
            Event::Advert { .. } | Event::Source(_) | Event::ForeignAnnouncement { .. } => {
                let before = out.len();
                self.one(now, member, out, |router, actions| router.handle(now, event, actions));
                let lower =
                    |of: &MemberAction| matches!(of.action, Action::Announce { occasion: Occasion::LowerPriority, .. });
                if out.get(before..).unwrap_or_default().iter().any(lower) {
                    self.announce(now, member, Occasion::LowerPriority, out);
                }
            }
            Event::Priority(priority) => {
                if let Some(member) = self.members.get_mut(member) {
                    member.priority = priority;
                }
                self.agree_on_priority(now, out);
            }
            Event::Fault => {
                if let Some(member) = self.members.get_mut(member) {
                    member.faulted = true;
                }
                // The one it is comes first and has the reason; the others are pulled, and are told so
                // that they stay in fault.
                self.one(now, member, out, |router, actions| router.handle(now, event, actions));
                self.all(now, event, out);
            }
            Event::Recovered => {
                if let Some(member) = self.members.get_mut(member) {
                    member.faulted = false;
                }
                if !self.members.iter().any(|member| member.faulted) {
                    self.all(now, event, out);
                }
            }
        }
    }

    /// Does what is due, after the sockets of all members were read.
    pub fn poll(&mut self, now: Time, out: &mut Vec<MemberAction>) {
        for member in 0..self.members.len() {
            // Nobody is due before all are.
            if let Some(latest) = self.routers().filter_map(Router::down_at).max() {
                self.members.iter_mut().for_each(|member| {
                    if member.router.down_at().is_some_and(|at| at <= now) {
                        member.router.wait_until(latest);
                    }
                });
            }
            self.one(now, member, out, |router, actions| router.poll(now, actions));
        }
    }

    /// Every member for itself, since it is told to all. Where not all could go on as masters (intervals
    /// differ, and the last advert is too long ago for one), none does.
    fn all(&mut self, now: Time, event: Event<'_>, out: &mut Vec<MemberAction>) {
        for (member, of) in self.members.iter_mut().enumerate() {
            let mut actions = Vec::new();
            of.router.handle(now, event, &mut actions);
            out.extend(actions.into_iter().map(|action| MemberAction { member, action }));
        }
        if self.routers().any(|router| router.role() == Role::Backup) {
            self.pull(now, Role::Backup, None, out);
        }
    }

    /// All but `actor` follow.
    fn pull(&mut self, now: Time, to: Role, actor: Option<usize>, out: &mut Vec<MemberAction>) {
        for (member, of) in self.members.iter_mut().enumerate().filter(|(member, _)| Some(*member) != actor) {
            let mut actions = Vec::new();
            of.router.pull(now, to, &mut actions);
            out.extend(actions.into_iter().map(|action| MemberAction { member, action }));
        }
    }

    fn agree_on_priority(&mut self, now: Time, out: &mut Vec<MemberAction>) {
        if let Some(lowest) = self.members.iter().map(|member| member.priority).min() {
            self.all(now, Event::Priority(lowest), out);
        }
    }

    /// One member acts, and the others follow.
    fn one(
        &mut self,
        now: Time,
        member: usize,
        out: &mut Vec<MemberAction>,
        act: impl FnOnce(&mut Router, &mut Vec<Action>),
    ) {
        let Some(actor) = self.members.get_mut(member) else { return };
        let mut actions = Vec::new();
        act(&mut actor.router, &mut actions);
        let priority = actor.router.priority();
        let mut tie_lost = false;
        let mut to = None;
        for action in &actions {
            if let Action::StateChanged { to: role, why, .. } = action {
                to = Some(*role).filter(|_| !matches!(why, Why::Started | Why::Resumed | Why::Recovered));
                tie_lost |= member == 0 && matches!(why, Why::BetterMaster { priority: p, .. } if *p == priority);
            }
        }
        let gone = |action: &Action| matches!(action, Action::Alarm(Alarm::SecondMasterGone { .. }));
        let healed = actor.router.role() == Role::Master && actions.iter().any(gone);
        out.extend(actions.into_iter().map(|action| MemberAction { member, action }));
        if healed {
            self.announce(now, member, Occasion::Healed, out);
        }
        let Some(to) = to else { return };
        self.pull(now, to, Some(member), out);
        if tie_lost && self.members.len() > 1 {
            self.wait_longer();
        }
    }

    /// What the others announce when one has seen another master: its siblings were pulled back
    /// without a word.
    fn announce(&mut self, now: Time, by: usize, occasion: Occasion, out: &mut Vec<MemberAction>) {
        for (member, of) in self.members.iter_mut().enumerate().filter(|(member, _)| *member != by) {
            let mut actions = Vec::new();
            of.router.announce_with_group(now, occasion, &mut actions);
            out.extend(actions.into_iter().map(|action| MemberAction { member, action }));
        }
    }

    fn wait_longer(&mut self) {
        for member in &mut self.members {
            if let Some(at) = member.router.down_at() {
                let longer = at + member.router.parameters().advert_int.duration();
                member.router.wait_until(longer);
            }
        }
    }
}

impl From<Router> for Group {
    fn from(router: Router) -> Self {
        Self { members: vec![Member { priority: router.priority(), faulted: false, router }] }
    }
}

#[cfg(test)]
mod tests;
