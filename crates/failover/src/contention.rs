//! Two masters at once: when that begins, and when it is over.

use crate::action::Alarm;
use crate::time::Time;
use dirigent_wire::Mac;
use std::net::IpAddr;
use std::time::Duration;

/// So long without a foreign announcement, and whoever made it is taken to be gone. No more often are addresses defended
/// (RFC 5227 §1.1, DEFEND_INTERVAL).
const AFTER_ANNOUNCEMENT: Duration = Duration::from_secs(10);

/// What a master knows of other masters. An episode begins with the first sign of any and ends when
/// none was seen for as long as one would take to send the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Contention {
    episode: Option<Episode>,
    claim: Option<Claim>,
}

/// What another host said last of one of the addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Claim {
    address: IpAddr,
    mac: Mac,
    defended_at: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Episode {
    since: Time,
    until: Time,
}

impl Contention {
    /// An advert of a lower master, whose next are heard before `until` or it is gone.
    pub(crate) fn advert(&mut self, now: Time, address: IpAddr, priority: u8, until: Time) -> Option<Alarm> {
        self.sign(now, until).then_some(Alarm::SecondMaster { address, priority })
    }

    /// Somebody else said that one of the addresses is his: whether the address is to be defended now, and what is new about
    /// it. RFC 5227 §2.4(c): who cannot give the address up says so once in an interval, or two that both defend
    /// themselves would do nothing else.
    pub(crate) fn announcement(&mut self, now: Time, address: IpAddr, mac: Mac) -> (bool, Option<Alarm>) {
        let begun = self.sign(now, now + AFTER_ANNOUNCEMENT);
        let before = self.claim.filter(|_| !begun);
        if before.is_some_and(|claim| now < claim.defended_at + AFTER_ANNOUNCEMENT) {
            return (false, None);
        }
        self.claim = Some(Claim { address, mac, defended_at: now });
        let same = before.is_some_and(|claim| (claim.address, claim.mac) == (address, mac));
        (true, (!same).then_some(Alarm::ForeignAnnouncement { address, mac }))
    }

    /// Who claims which address, of late.
    pub(crate) fn claim(&self) -> Option<(IpAddr, Mac)> {
        self.claim.map(|claim| (claim.address, claim.mac))
    }

    /// Whether an episode began.
    fn sign(&mut self, now: Time, until: Time) -> bool {
        match &mut self.episode {
            Some(episode) => {
                episode.until = episode.until.max(until);
                false
            }
            None => {
                self.episode = Some(Episode { since: now, until });
                true
            }
        }
    }

    /// When the episode is over unless there is another sign.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.episode.map(|episode| episode.until)
    }

    /// Ends the episode if it is time.
    pub(crate) fn poll(&mut self, now: Time) -> Option<Alarm> {
        if self.deadline()? <= now { self.end(now) } else { None }
    }

    /// Ends the episode, because this router is no master any more or the other one said so.
    pub(crate) fn end(&mut self, now: Time) -> Option<Alarm> {
        let episode = self.episode.take()?;
        self.claim = None;
        Some(Alarm::SecondMasterGone { lasted: now.since(episode.since) })
    }

    /// Whether there is one.
    pub(crate) fn is_on(&self) -> bool {
        self.episode.is_some()
    }
}
