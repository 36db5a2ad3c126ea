//! What a router is told and what it wants done.

use crate::packet::{Advert, Centis};
use crate::time::Time;
use dirigent_wire::Mac;
use std::net::IpAddr;
use std::time::Duration;

/// The states of a virtual router: the RFCs', and keepalived's Fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// Not started, or stopped.
    Initialize,
    /// Listens for a master's adverts. RFC 9568 has the same name.
    Backup,
    /// Answers for the addresses and sends adverts. RFC 9568: Active.
    Master,
    /// Something that it needs is down.
    Fault,
}

/// How a router begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Start {
    /// A predecessor left the virtual addresses on this host, and nobody has taken them away.
    pub still_holds_addresses: bool,
    /// When the predecessor sent its last advert, by the same clock.
    pub last_advert: Option<Time>,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Begin.
    Start(Start),
    /// End, in order.
    Stop,
    /// An advert came in. Its packet was parsed by [`crate::Parameters::rules`].
    Advert {
        /// What it says.
        advert: &'a Advert,
        /// Who sent it.
        source: IpAddr,
    },
    /// Something that the router needs is down (interface, tracked object of weight 0).
    Fault,
    /// All that it needs is up again.
    Recovered,
    /// The priority after tracking; clamped to 1..=254, and without effect on an owner.
    Priority(u8),
    /// A planned hand-over: give way now, and stay backup. With nobody to take over it comes back
    /// after [`crate::Router::hand_over_bound`].
    HandOver,
    /// The hand-over is over: preempt again.
    HandBack,
    /// The address that adverts are sent from changed.
    Source(IpAddr),
    /// Another host announced one of the virtual addresses (gratuitous ARP, unsolicited NA).
    ForeignAnnouncement {
        /// The address.
        address: IpAddr,
        /// The MAC that it said.
        mac: Mac,
    },
}

/// What is to be done, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send [`crate::Router::advert`] to all [`crate::Parameters::destinations`].
    SendAdvert {
        /// 0: gives up.
        priority: u8,
        /// The interval that it says.
        interval: Centis,
    },
    /// Put the virtual addresses on. They may be there already.
    AddAddresses,
    /// Take the virtual addresses off. They may be gone already.
    RemoveAddresses,
    /// Announce each address `repeat` times.
    Announce {
        /// Bursts before this one since the router became master.
        burst: u32,
        /// Packets for each address.
        repeat: u16,
        /// Why.
        occasion: Occasion,
    },
    /// The state changed. Comes after what the change needs done.
    StateChanged {
        /// From.
        from: Role,
        /// To.
        to: Role,
        /// Why.
        why: Why,
    },
    /// Somebody should know.
    Alarm(Alarm),
    /// An advert was not heeded.
    Discarded {
        /// Who sent it.
        source: IpAddr,
        /// Why.
        why: Discard,
    },
    /// The caller came later than the deadline, by more than [`crate::Parameters::late_after`].
    Late {
        /// By so much.
        by: Duration,
    },
}

/// Why addresses are announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Occasion {
    /// Became master.
    TakeOver,
    /// `garp_master_delay` after that.
    Second,
    /// A lower master was heard.
    LowerPriority,
    /// `garp_master_refresh`.
    Refresh,
    /// There were two masters, now there is one.
    Healed,
    /// Another host claims an address.
    Defence,
}

/// Why a state changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Was told to start.
    Started,
    /// Started again before anyone else could have taken over.
    Resumed,
    /// Was told to stop.
    Stopped,
    /// Heard no master for a master-down interval.
    NoAdvert,
    /// Took over from a master of lower priority.
    Preempted {
        /// Its address.
        address: IpAddr,
        /// Its priority.
        priority: u8,
    },
    /// Gave way to a better master.
    BetterMaster {
        /// Its address.
        address: IpAddr,
        /// Its priority.
        priority: u8,
    },
    /// Was not scheduled for so long that another may have taken over.
    Late {
        /// Since it was last sure to be master.
        by: Duration,
    },
    /// Something that it needs went down.
    Fault,
    /// All that it needs is up again.
    Recovered,
    /// A planned hand-over.
    HandOver,
    /// A planned hand-over that nobody took.
    HandOverFailed,
    /// Another member of the sync group did.
    Group,
}

/// What should not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// Another router is master too; once for each episode.
    SecondMaster {
        /// Its address.
        address: IpAddr,
        /// Its priority.
        priority: u8,
    },
    /// Another host claims an address; once for each episode, unless it is another address or MAC later.
    ForeignAnnouncement {
        /// The virtual address.
        address: IpAddr,
        /// Whose it is said to be.
        mac: Mac,
    },
    /// The episode is over.
    SecondMasterGone {
        /// How long it was.
        lasted: Duration,
    },
    /// A router of the same number has other addresses; once for each sender in a row.
    OtherAddresses {
        /// Its address.
        address: IpAddr,
    },
}

/// Why an advert was not heeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discard {
    /// For another virtual router.
    Vrid(u8),
    /// Not of the router's version or family.
    Format,
    /// Not from a unicast peer (`check_unicast_src`).
    NotAPeer,
    /// Our own, or of a router with our address.
    OwnAddress,
    /// Version 2: another interval than ours (RFC 3768 §7.1).
    Interval {
        /// The advert's.
        got: Centis,
        /// Ours.
        want: Centis,
    },
    /// Other addresses than ours: version 2, but for an owner's advert (RFC 3768 §7.1); `vrrp_strict`.
    Addresses,
    /// A backup heard priority 0 while another master lives.
    NotTheMaster,
    /// An owner does not look at others' (`owner_ignore_adverts`).
    Owner,
    /// The router is not running.
    NotRunning,
}
