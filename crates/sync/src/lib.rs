//! IPVS connection synchronisation, without IO: what goes over the wire, when a master sends,
//! what a backup does with it, and an extension that makes the one-way multicast of IPVS
//! into something a backup can rely on.
//!
//! Nothing here reads a clock, a socket, a file or a random source: time, datagrams and
//! identities are passed in, and what is to be done comes out.
//!
//! * [`message`] — the datagrams of IPVS, versions 0 and 1; [`record`] and [`state`] — what
//!   is in them.
//! * [`backup`] — what a backup does with one record, given what it has.
//! * [`extension`] — messages that real kernels ignore; [`auth`] signs them.
//! * [`machine`] — the two state machines, [`machine::Master`] and [`machine::Backup`].
//!
//! The format of the extension is in docs/sync.md. Rules are cited as §9.x: those of the
//! reference of IPVS's behaviour.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic))]

pub mod auth;
pub mod backup;
mod cursor;
pub mod extension;
pub mod machine;
pub mod message;
pub mod reason;
pub mod record;
pub mod state;

pub use message::Packer;
pub use reason::{Counts, Reason, Scope};
pub use record::{Ends, Flags, Key, Pe, Recency, Record, Sequence};
