//! Tools of the tests: frames built by hand ([`packet`]), read field by field
//! ([`decode`]), the runner of the recordings of the real kernel ([`golden`]), the packet
//! path's speed ([`bench`]), what a failover costs clients ([`failover`]), others beside ours
//! ([`peers`]), documents that tell what commands print ([`story`], [`marked`], [`occasion`]), the hosts of
//! labs ([`hosts`]), how schedulers spread load ([`spread`]), and screens of terminals, drawn
//! ([`shot`]).
//!
//! Unlike the rest of the project this crate may panic: it is never in service.

pub mod bench;
mod command;
pub mod cpu;
pub mod decode;
pub mod failover;
pub mod golden;
pub mod hosts;
pub mod marked;
mod memory;
pub mod occasion;
pub mod packet;
pub mod peers;
pub mod progress;
pub mod scale;
pub mod shot;
pub mod spread;
pub mod story;
