//! Who of several directors answers for the virtual addresses: VRRP version 2 (RFC 3768) and 3
//! (RFC 5798, RFC 9568), for IPv4 and IPv6.
//!
//! Pure: nothing here reads a clock, a socket, a file or a random source. Time comes in as [`Time`],
//! packets as bytes, and what is to be done goes out as [`Action`]s.
//!
//! | Module | What it decides |
//! |---|---|
//! | [`packet`], [`ah`] | bytes to adverts and back; what is forged, foreign or broken |
//! | [`frame`] | whole Ethernet frames, for adverts from a virtual MAC |
//! | [`parameters`] | keepalived's keywords and defaults, and the RFCs' times |
//! | [`router`] | one virtual router: states, timers, lateness; its table is [`router::table`] |
//! | [`group`] | virtual routers that move together |
//! | [`track`] | what interfaces, scripts and files do to a priority |
//! | [`mod@rehearse`] | what would happen if |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod action;
pub mod address;
pub mod ah;
mod announce;
mod contention;
#[doc(hidden)]
pub mod exercise;
pub mod frame;
pub mod group;
pub mod packet;
pub mod parameters;
pub mod rehearse;
pub mod router;
pub mod time;
pub mod track;

pub use action::{Action, Alarm, Discard, Event, Occasion, Role, Start, Why};
pub use group::{Group, GroupError, MemberAction};
pub use packet::{Addresses, Advert, Auth, Centis, Family, Format, Received, Rules, Version};
pub use parameters::{Parameters, UnicastPeer};
pub use rehearse::{Forecast, Peer, WhatIf, rehearse};
pub use router::{Heard, Router};
pub use time::Time;
pub use track::{RiseFall, Tracked, Tracker, Verdict};
