//! The packet path where it runs: in the kernel, by BPF programs that this crate
//! builds, embeds, loads, attaches and pins; and in memory, for tests and explanation.

pub mod control;
pub mod kernel;
mod keys;
pub mod memory;
pub mod names;
pub mod object;
