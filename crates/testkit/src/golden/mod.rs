//! The golden runner: what the real kernel did, packet by packet, held against what
//! this director does.
//!
//! A recording is a set-up and steps in order ([`recording`]). An [`Executor`] runs the
//! frames: in memory, or the BPF programs by `BPF_PROG_TEST_RUN`. What they leave to the
//! host's stack is played by [`host`]. A step that differs is excused only by a rule
//! ([`rules`]): a predicate on set-up and input, with a row in docs/differences.md.

pub mod bed;
pub mod compare;
pub mod executor;
pub mod host;
pub mod kernel;
pub mod memory;
pub mod recording;
pub mod report;
pub mod rules;
pub mod run;
pub mod tunnel;

pub use bed::{Bed, Side};
pub use executor::{Does, Executor, Row};
pub use report::{Ran, Report};
pub use run::{Unsupported, run_directory, run_recording};
