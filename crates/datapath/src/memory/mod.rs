//! The packet path in memory: the twin of the kernel's programs, for tests, recordings
//! and explanation. The same `direct`, the same stages, over vectors and hash maps.

mod frame;
mod routes;
mod run;
mod seen;
mod tables;

pub use frame::{Buffer, Frame};
pub(crate) use routes::within;
pub use routes::{LocalNet, Routes, SourceNet, Target};
pub use run::{Incoming, Outcome, Ran, leave, run, run_slow, run_tc, run_xdp};
pub use seen::Seen;
pub use tables::{Capacity, MemoryTables};
