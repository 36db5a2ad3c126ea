//! The packet path: what happens to each packet, and the records it keeps.
//!
//! [`direct::direct`] is the whole of it: XDP, tc and the in-memory executor
//! implement [`packet::Packet`] and [`tables::Tables`] and map the verdict to an
//! action. No allocation, no panics, no clock of its own; `unsafe` only in
//! [`shared`].
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod conn;
pub mod cut;
pub mod direct;
pub mod endpoint;
pub mod errors;
pub mod family;
pub mod forward;
pub mod ftp;
pub mod icmp;
pub mod mark;
pub mod open;
pub mod packet;
pub mod parse;
pub mod persist;
pub mod pieces;
pub mod probe;
pub mod quic;
pub mod records;
pub mod relay;
pub mod reset;
pub mod schedule;
pub mod sctp;
pub mod shared;
pub mod sieve;
pub mod sync;
pub mod tables;
pub mod tcp;
pub mod trace;
pub mod tunnel;
pub mod verdict;
pub mod ways;

pub use direct::{Stage, direct, leave};
pub use verdict::{Action, Reason, ReasonKind, Verdict};
