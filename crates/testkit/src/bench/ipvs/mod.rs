//! `make bench-ipvs`: instructions a packet of this director and of the kernel's IPVS, side by side.
//!
//! `scripts/bench-ipvs.py` counts them in the oracle's guest, where frames go through devices; [`director`] is there what it
//! attaches. [`counted`] is what it counted, [`report`] what follows, and [`page`] where people read it and what they have
//! explained. [`profile`] says which functions the director's instructions are of.

pub mod counted;
pub mod director;
pub mod page;
pub mod profile;
pub mod report;

pub use counted::Counted;
pub use page::Page;
pub use profile::Profile;
pub use report::Report;
