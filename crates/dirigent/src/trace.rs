//! `dirigent trace`: packets as they go through the director, each with what was found, done, and why.

mod capture;
mod command;
mod tell;
mod wanted;

pub use command::run;
pub use tell::Teller;
pub use wanted::wanted;
