//! Health of real servers, without any IO.
//!
//! [`check`] says what a check is, [`machine`] when it is made and whether it
//! is up, [`server`] and [`service`] what follows from that for weights and
//! the sorry server. [`judge`] says what a server's answer means, [`bfd`] is a
//! protocol of its own.
//!
//! The crate is pure: time and random numbers are passed in, bytes go in and
//! come out, no input makes it panic, and none makes it hold more than a fixed
//! amount of memory.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod bfd;
pub mod check;
pub mod duration;
pub mod judge;
pub mod machine;
pub mod path;
pub mod server;
pub mod service;
mod time;
mod why;

pub use machine::{Actions, Attempt, Change, Health, Machine, Outcome, Settings, Weight};
pub use server::{Finding, ServerState};
pub use service::{Edge, Live, Quorum, ServiceState};
pub use why::Why;
