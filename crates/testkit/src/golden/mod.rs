//! The golden runner: what the real kernel did, packet by packet, held against what
//! this director does.
//!
//! A recording is a set-up and steps in order, in one of several formats: frames in and out
//! ([`recording`], run by [`xmit`]), what clients and servers do and which server got
//! them ([`script`], run by [`sched`]), or states, packets and times ([`states`]).
//! What ipvsadm prints is a fourth ([`text`]). An [`Executor`] runs the frames: in memory, or the
//! BPF programs by `BPF_PROG_TEST_RUN`. What they leave to the host's stack is played by
//! [`host`]. A step that differs is excused only by a rule ([`rules`], [`apart`]): a
//! predicate on set-up and input, with a row in docs/differences.md.

pub mod apart;
pub mod bed;
pub mod compare;
pub mod directory;
pub mod executor;
pub mod host;
pub mod kernel;
pub mod memory;
pub mod recording;
pub mod report;
pub mod rules;
pub mod sched;
pub mod script;
pub mod setup;
pub mod states;
pub mod tables;
pub mod text;
pub mod tunnel;
pub mod xmit;

pub use bed::{Bed, Side};
pub use directory::{Unsupported, run_directory};
pub use executor::{Does, Executor, Load, Row};
pub use report::{Ran, Report};
pub use sched::run_script;
pub use states::run_states;
pub use text::run_text;
pub use xmit::run_recording;
