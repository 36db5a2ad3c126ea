//! The state machine of a virtual router as a table: RFC 3768 §6.4 and RFC 9568 §6.4, with what
//! keepalived and this crate add. What a [`Signal`] is, [`super`] decides; what a [`Step`] does, it
//! carries out.
//!
//! ```text
//!                    ┌────────────┐  StartMaster, Resume
//!        ┌───────────│ Initialize │───────────────────┐
//!  Start │     Stop  └────────────┘  Stop             │
//!        ▼    ┌──────────▲   ▲──────────┐             ▼
//!      ┌────────┐   MasterDown, PullMaster         ┌────────┐
//!      │ Backup │─────────────────────────────────►│ Master │
//!      │        │◄─────────────────────────────────│        │
//!      └────────┘   Better, Late, HandOver,        └────────┘
//!        │    ▲     PullBackup                        │
//!  Fault │    │ Recover  ┌───────┐                    │ Fault
//!        └────┴──────────│ Fault │◄───────────────────┘     RecoverMaster: Fault to Master
//!                        └───────┘
//! ```

use crate::action::Role;

/// What happened, as far as the table cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Begin, and listen first.
    Start,
    /// Begin as master: the owner, or `state MASTER`.
    StartMaster,
    /// Begin as the master that the predecessor was: it is too early for anyone else to be.
    Resume,
    /// End.
    Stop,
    /// Something needed is down.
    Fault,
    /// It is up again.
    Recover,
    /// It is up again, of an owner.
    RecoverMaster,
    /// The master-down timer ran out (Master_Down_Timer; Active_Down_Timer).
    MasterDown,
    /// A backup slept, and adverts may be waiting.
    WokeLate,
    /// The advert timer ran out (Adver_Timer).
    AdvertDue,
    /// A master came so late that a peer may have taken over.
    Late,
    /// An advert of priority 0.
    Zero,
    /// Backup: an advert of equal or higher priority, or of a lower one that is left alone.
    Heed,
    /// Backup: an advert of lower priority that is not.
    Defy,
    /// Master: an advert of higher priority, or of an equal one and a higher address.
    Better,
    /// Master: any other.
    Worse,
    /// Give way.
    HandOver,
    /// The sync group became master.
    PullMaster,
    /// The sync group is master no more.
    PullBackup,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Send an advert, and set the advert timer to the interval.
    SendAdvert,
    /// Send an advert of priority 0.
    SendZero,
    /// Send an advert although no master any more, unless not `higher_prio_send_advert`.
    SendLast,
    /// [`Step::SendAdvert`], unless `lower_prio_no_advert`.
    Answer,
    /// Put the virtual addresses on.
    AddAddresses,
    /// Take them off.
    RemoveAddresses,
    /// Begin to announce the addresses.
    Announce,
    /// Keep quiet, but for refreshes: the neighbours know.
    ResumeAnnouncing,
    /// Announce them again, because of another master.
    AnnounceAgain,
    /// Take the master's interval for granted (version 3 only).
    AdoptInterval,
    /// Master-down timer := the master-down interval.
    SetMasterDown,
    /// Master-down timer := the skew time.
    SetSkew,
    /// Master-down timer := an advert interval and the skew time, if it is not longer: to hear what waits.
    SetListen,
    /// Master-down timer := the time within which a peer must have taken over.
    SetHandOver,
}

/// What follows: the next state, and the steps, which are carried out in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The next state.
    pub next: Role,
    /// What is to be done.
    pub steps: &'static [Step],
}

/// The row of a signal in a state; `None`: cannot be, or means nothing there, and nothing happens.
///
/// A master takes its addresses off before it tells the others: what they do upon it, they do later.
#[rustfmt::skip]
pub const fn row(role: Role, signal: Signal) -> Option<Row> {
    use Role::{Backup, Fault, Initialize, Master};
    use Step::{AddAddresses, AdoptInterval, Announce, AnnounceAgain, Answer, RemoveAddresses, ResumeAnnouncing,
        SendAdvert, SendLast, SendZero, SetHandOver, SetListen, SetMasterDown, SetSkew};
    let (next, steps): (Role, &'static [Step]) = match (role, signal) {
        // RFC 9568 §6.4.1
        (Initialize, Signal::Start)          => (Backup,     &[SetMasterDown]),
        (Initialize, Signal::StartMaster)    => (Master,     &[SendAdvert, AddAddresses, Announce]),
        (Initialize, Signal::Resume)         => (Master,     &[SendAdvert, AddAddresses, ResumeAnnouncing]),
        (Initialize, Signal::Fault)          => (Fault,      &[]),

        // RFC 9568 §6.4.2
        (Backup,     Signal::Stop)           => (Initialize, &[]),
        (Backup,     Signal::MasterDown)     => (Master,     &[SendAdvert, AddAddresses, Announce]),
        (Backup,     Signal::Zero)           => (Backup,     &[SetSkew]),
        (Backup,     Signal::Heed)           => (Backup,     &[AdoptInterval, SetMasterDown]),
        (Backup,     Signal::Defy)           => (Backup,     &[]),
        (Backup,     Signal::WokeLate)       => (Backup,     &[SetListen]),
        (Backup,     Signal::PullMaster)     => (Master,     &[SendAdvert, AddAddresses, Announce]),
        (Backup,     Signal::Fault)          => (Fault,      &[]),

        // RFC 9568 §6.4.3
        (Master,     Signal::Stop)           => (Initialize, &[RemoveAddresses, SendZero]),
        (Master,     Signal::AdvertDue)      => (Master,     &[SendAdvert]),
        (Master,     Signal::Zero)           => (Master,     &[SendAdvert]),
        (Master,     Signal::Better)         => (Backup,     &[RemoveAddresses, SendLast, AdoptInterval, SetMasterDown]),
        (Master,     Signal::Worse)          => (Master,     &[Answer, AnnounceAgain]),
        (Master,     Signal::Late)           => (Backup,     &[RemoveAddresses, SetMasterDown]),
        (Master,     Signal::HandOver)       => (Backup,     &[RemoveAddresses, SendZero, SetHandOver]),
        (Master,     Signal::PullBackup)     => (Backup,     &[RemoveAddresses, SetMasterDown]),
        (Master,     Signal::Fault)          => (Fault,      &[RemoveAddresses, SendZero]),

        // keepalived's fourth state
        (Fault,      Signal::Stop)           => (Initialize, &[]),
        (Fault,      Signal::Recover)        => (Backup,     &[SetMasterDown]),
        (Fault,      Signal::RecoverMaster)  => (Master,     &[SendAdvert, AddAddresses, Announce]),

        _ => return None,
    };
    Some(Row { next, steps })
}
