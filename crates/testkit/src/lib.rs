//! Tools of the tests: frames built by hand ([`packet`]), read field by field
//! ([`decode`]), and the runner of the recordings of the real kernel ([`golden`]).
//!
//! Unlike the rest of the project this crate may panic: it is never in service.

pub mod decode;
pub mod golden;
pub mod packet;
