//! What one virtual router is told: keepalived's keywords of `vrrp_instance`, with its defaults, and
//! the times that follow from them by the RFCs' formulas.

use crate::address::TTL;
use crate::packet::{Addresses, Centis, Family, Format, Rules, Version};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use thiserror::Error;

/// The priority of the router whose own addresses the virtual ones are.
pub const OWNER: u8 = 255;

/// A router that is spoken to alone, instead of the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnicastPeer {
    /// Its address.
    pub address: IpAddr,
    /// TTLs that its adverts may have (`min_ttl`, `max_ttl`).
    pub ttl: RangeInclusive<u8>,
}

impl UnicastPeer {
    /// A peer any number of hops away, which is keepalived's default.
    pub const fn new(address: IpAddr) -> Self {
        Self { address, ttl: 0..=TTL }
    }
}

/// The parameters of a virtual router. Names and defaults are keepalived's, but for
/// `higher_prio_send_advert`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// `virtual_router_id`, 1 to 255.
    pub vrid: u8,
    /// `version`, family, `auth_type`, `v3_checksum_as_v2`.
    pub format: Format,
    /// `virtual_ipaddress`: what adverts say. (Where and how they are added is the caller's.)
    pub addresses: Addresses,
    /// The address that adverts are sent from; of equal priorities the higher one wins.
    pub source: IpAddr,
    /// `priority`, 1 to 255 (100). 255: the owner.
    pub priority: u8,
    /// `advert_int`, 10 ms to 255 s (1 s).
    pub advert_int: Centis,
    /// `down_timer_adverts`, 1 to 100 (3): so many adverts missed and a backup takes over.
    pub down_timer_adverts: u8,
    /// `state MASTER`: begins as master, without listening first. (backup)
    pub start_as_master: bool,
    /// `preempt`: a backup of higher priority takes over from a living master (yes). An owner always does.
    pub preempt: bool,
    /// `preempt_delay`, 0 to 1,000 s (0): how long a master of lower priority is left alone at first.
    pub preempt_delay: Duration,
    /// `vrrp_startup_delay` (0): how long after the start nothing is sent or heard.
    pub startup_delay: Duration,
    /// `garp_master_delay` (5 s): from the first burst of announcements to the second; 0: no second.
    pub garp_master_delay: Duration,
    /// `garp_master_repeat` (5): announcements of each address in a burst.
    pub garp_master_repeat: u16,
    /// `garp_lower_prio_delay` (`garp_master_delay`): the same after an advert of a lower master.
    pub garp_lower_prio_delay: Option<Duration>,
    /// `garp_lower_prio_repeat` (`garp_master_repeat`).
    pub garp_lower_prio_repeat: Option<u16>,
    /// `garp_master_refresh` (0: never): how often a master announces again.
    pub garp_master_refresh: Duration,
    /// `garp_master_refresh_repeat` (1).
    pub garp_master_refresh_repeat: u16,
    /// `lower_prio_no_advert` (no): leave a lower master's advert unanswered until the next is due.
    pub lower_prio_no_advert: bool,
    /// `higher_prio_send_advert` (here yes, keepalived: no): a master that gives way to a higher one
    /// sends a last advert, by which the higher one learns that there were two and announces again.
    /// Without it the winner of a healed split often never hears of it, and clients go on to the loser.
    pub higher_prio_send_advert: bool,
    /// `accept` (yes): whether a master that is not the owner takes packets for the addresses. Carried only.
    pub accept: bool,
    /// `skip_check_adv_addr` (no): the addresses in adverts are not looked at again while the sender
    /// is the same.
    pub skip_check_adv_addr: bool,
    /// `owner_ignore_adverts` (no): an owner does not look at others' adverts.
    pub owner_ignore_adverts: bool,
    /// `vrrp_strict` (no): no unicast, no authentication, no empty or different address lists.
    pub strict_mode: bool,
    /// `unicast_peer`; empty: adverts go to the group.
    pub unicast_peers: Vec<UnicastPeer>,
    /// `check_unicast_src` (no): only peers are heard.
    pub check_unicast_src: bool,
    /// How late [`crate::Router::poll`] may be before that counts as late; `None`: half an advert
    /// interval.
    pub late_after: Option<Duration>,
}

/// What is wrong with parameters.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ParameterError {
    /// 1 to 255.
    #[error("virtual_router_id 0")]
    Vrid,
    /// 1 to 255; 0 is what a master says that gives up.
    #[error("priority 0")]
    Priority,
    /// Version 2: whole seconds; version 3: at most 40.95 s.
    #[error("advert_int of {0} cs cannot be said in this version")]
    Interval(u16),
    /// 1 to 100.
    #[error("down_timer_adverts {0}, not 1 to 100")]
    DownTimerAdverts(u8),
    /// `nopreempt` is for routers that begin as backup (keepalived).
    #[error("nopreempt needs the initial state BACKUP")]
    NopreemptMaster,
    /// At most 1,000 s.
    #[error("preempt_delay of {0:?}, more than 1000 s")]
    PreemptDelay(Duration),
    /// An address is of the other family.
    #[error("{0}: not the virtual router's address family")]
    Family(IpAddr),
    /// The addresses are of the other family.
    #[error("virtual addresses are not of the virtual router's family")]
    AddressFamily,
    /// The count has eight bits.
    #[error("{0} virtual addresses, more than 255")]
    TooMany(usize),
    /// `vrrp_strict` and something that it rules out.
    #[error("vrrp_strict does not allow {0}")]
    Strict(&'static str),
}

impl Parameters {
    /// keepalived's defaults for everything that has one.
    pub const fn new(vrid: u8, format: Format, source: IpAddr, addresses: Addresses) -> Self {
        Self {
            vrid,
            format,
            addresses,
            source,
            priority: 100,
            advert_int: Centis::SECOND,
            down_timer_adverts: 3,
            start_as_master: false,
            preempt: true,
            preempt_delay: Duration::ZERO,
            startup_delay: Duration::ZERO,
            garp_master_delay: Duration::from_secs(5),
            garp_master_repeat: 5,
            garp_lower_prio_delay: None,
            garp_lower_prio_repeat: None,
            garp_master_refresh: Duration::ZERO,
            garp_master_refresh_repeat: 1,
            lower_prio_no_advert: false,
            higher_prio_send_advert: true,
            accept: true,
            skip_check_adv_addr: false,
            owner_ignore_adverts: false,
            strict_mode: false,
            unicast_peers: Vec::new(),
            check_unicast_src: false,
            late_after: None,
        }
    }

    /// Everything that is wrong with them.
    pub fn check(&self) -> Vec<ParameterError> {
        use ParameterError as E;
        let family = self.family();
        let alien = |address: &IpAddr| Family::of(*address) != family;
        let strict = |rule: bool, what| (self.strict_mode && rule).then_some(E::Strict(what));
        let authenticated = matches!(self.format, Format::V2 { auth } if auth != crate::packet::Auth::None);
        let mut wrong: Vec<E> = [
            (self.vrid == 0).then_some(E::Vrid),
            (self.priority == 0).then_some(E::Priority),
            (!self.advert_int.fits(self.version())).then(|| E::Interval(self.advert_int.get())),
            (!(1..=100).contains(&self.down_timer_adverts)).then_some(E::DownTimerAdverts(self.down_timer_adverts)),
            (self.start_as_master && !self.preempt).then_some(E::NopreemptMaster),
            (self.preempt_delay > Duration::from_secs(1000)).then_some(E::PreemptDelay(self.preempt_delay)),
            (self.addresses.family() != family).then_some(E::AddressFamily),
            (self.addresses.len() > 255).then(|| E::TooMany(self.addresses.len())),
            strict(!self.unicast_peers.is_empty(), "unicast peers"),
            strict(authenticated, "authentication"),
            strict(self.addresses.is_empty(), "an empty list of addresses"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let speakers = self.unicast_peers.iter().map(|peer| peer.address).chain([self.source]);
        wrong.extend(speakers.filter(alien).map(E::Family));
        wrong
    }

    /// The version.
    pub const fn version(&self) -> Version {
        self.format.version()
    }

    /// The family.
    pub const fn family(&self) -> Family {
        self.format.family()
    }

    /// The rules by which a packet from `source` is parsed. An unknown sender's must be as those of
    /// the group, if it is heard at all.
    pub fn rules(&self, source: IpAddr) -> Rules {
        let peer = self.unicast_peers.iter().find(|peer| peer.address == source);
        let ttl = match peer {
            Some(peer) => peer.ttl.clone(),
            None if self.unicast_peers.is_empty() || self.strict_mode => TTL..=TTL,
            None => 0..=TTL,
        };
        Rules { ttl, no_addresses: self.addresses.is_empty(), ..Rules::new(self.format) }
    }

    /// Where adverts go.
    pub fn destinations(&self) -> Vec<IpAddr> {
        if self.unicast_peers.is_empty() {
            return vec![crate::address::group(self.family())];
        }
        self.unicast_peers.iter().map(|peer| peer.address).collect()
    }

    /// How long a backup of `priority` waits for the next advert of a master that sends them every
    /// `interval` (Master_Down_Interval, RFC 3768 §6.1; Active_Down_Interval, RFC 9568 §6.1).
    pub fn master_down(&self, priority: u8, interval: Centis) -> Duration {
        interval.duration() * u32::from(self.down_timer_adverts) + skew_time(self.version(), priority, interval)
    }

    /// The longest skew time that a router of any priority has.
    pub fn longest_skew(&self, interval: Centis) -> Duration {
        skew_time(self.version(), 1, interval)
    }

    /// How long after its last advert a master may be sure that no backup takes over for want of one
    /// before it hears the next: the peers' master-down interval with the least skew there could be,
    /// 0, less a quarter of an advert interval in which an advert arrives, or addresses are taken
    /// away. (Shorter than an advert interval and what a poll may be late it cannot be: with
    /// `down_timer_adverts` 1 nobody is ever sure.)
    pub fn sure_for(&self) -> Duration {
        let interval = self.advert_int.duration();
        (interval * u32::from(self.down_timer_adverts)).saturating_sub(interval / 4).max(interval + self.late_after())
    }

    /// How late a poll may be before that counts as late.
    pub fn late_after(&self) -> Duration {
        self.late_after.unwrap_or(self.advert_int.duration() / 2)
    }

    pub(crate) fn garp_lower_prio_delay(&self) -> Duration {
        self.garp_lower_prio_delay.unwrap_or(self.garp_master_delay)
    }

    pub(crate) fn garp_lower_prio_repeat(&self) -> u16 {
        self.garp_lower_prio_repeat.unwrap_or(self.garp_master_repeat)
    }
}

/// Skew_Time: backups of higher priority wait less. RFC 3768 §6.1: (256 - priority) / 256 seconds;
/// RFC 9568 §6.1: (256 - priority) / 256 of the master's interval.
pub fn skew_time(version: Version, priority: u8, interval: Centis) -> Duration {
    let of = match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => interval.duration(),
    };
    // 256 divides the nanoseconds of a second and of a centisecond's double: exact to half of one.
    of * (256 - u32::from(priority)) / 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Auth;

    fn parameters(format: Format) -> Parameters {
        Parameters::new(51, format, IpAddr::from([192, 0, 2, 1]), Addresses::V4(vec![]))
    }

    /// The usual numbers: priority 100, an advert each second.
    #[test]
    fn skew_is_of_a_second_in_version_2_and_of_the_interval_in_version_3() {
        let v2 = parameters(Format::V2 { auth: Auth::None });
        let v3 = parameters(Format::V3Ipv4 { checksum_as_v2: false });
        let cs = |n| Centis::new(n).unwrap();
        let ns = |p: &Parameters, priority, interval| p.master_down(priority, interval).as_nanos();
        //                                adverts          skew
        assert_eq!(ns(&v2, 100, cs(100)), 3_000_000_000 + 609_375_000);
        assert_eq!(ns(&v2, 100, cs(1000)), 30_000_000_000 + 609_375_000);
        assert_eq!(ns(&v2, 255, cs(100)), 3_000_000_000 + 3_906_250);
        assert_eq!(ns(&v3, 100, cs(100)), 3_000_000_000 + 609_375_000);
        assert_eq!(ns(&v3, 100, cs(1000)), 30_000_000_000 + 6_093_750_000);
        assert_eq!(ns(&v3, 254, cs(1)), 30_000_000 + 78_125);
        assert_eq!(ns(&v3, 1, cs(4095)), 122_850_000_000 + 40_790_039_062);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut p = parameters(Format::V2 { auth: Auth::Ah });
        assert_eq!(p.check(), []);
        p.vrid = 0;
        p.priority = 0;
        p.advert_int = Centis::new(50).unwrap();
        p.down_timer_adverts = 101;
        (p.start_as_master, p.preempt) = (true, false);
        p.preempt_delay = Duration::from_secs(1001);
        p.source = "2001:db8::1".parse().unwrap();
        p.unicast_peers = vec![UnicastPeer::new(IpAddr::from([192, 0, 2, 2]))];
        p.strict_mode = true;
        let said: Vec<_> = p.check().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "virtual_router_id 0",
                "priority 0",
                "advert_int of 50 cs cannot be said in this version",
                "down_timer_adverts 101, not 1 to 100",
                "nopreempt needs the initial state BACKUP",
                "preempt_delay of 1001s, more than 1000 s",
                "vrrp_strict does not allow unicast peers",
                "vrrp_strict does not allow authentication",
                "vrrp_strict does not allow an empty list of addresses",
                "2001:db8::1: not the virtual router's address family",
            ]
        );
    }

    #[test]
    fn only_unicast_peers_may_be_hops_away() {
        let mut p = parameters(Format::V3Ipv4 { checksum_as_v2: false });
        let (near, far) = (IpAddr::from([192, 0, 2, 2]), IpAddr::from([198, 51, 100, 1]));
        assert_eq!(p.rules(near).ttl, 255..=255);
        p.unicast_peers = vec![UnicastPeer { address: far, ttl: 250..=253 }];
        assert_eq!(p.rules(far).ttl, 250..=253);
        assert_eq!(p.destinations(), [far]);
    }
}
