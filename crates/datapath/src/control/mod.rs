//! User space's side of the tables: a Model written into them, and read back.
//!
//! [`Control`] turns plans into table writes, over any [`Store`]: the kernel's maps or
//! the tables in memory. Every change of a service is one write that the packet path
//! sees (its list's place in the slots), made when all that it leads to stands.

mod apply;
mod clock;
mod connections;
mod defence;
mod error;
mod features;
mod kernel;
mod known;
mod lists;
mod marks;
mod memory;
mod notes;
mod pace;
pub mod paths;
mod probes;
pub mod report;
mod resets;
mod shapes;
mod slots;
pub mod snapshot;
mod store;
mod sweep;
pub mod sync;
mod takeover;
pub mod tally;
#[cfg(test)]
mod tests;
mod trash;

pub use crate::keys::{Flow, Spot, address, words};
pub use apply::{Control, ServerStatus};
pub use connections::{Connection, connection_of, connections, state_name};
pub use error::Error;
pub use features::features;
pub use kernel::{KernelStore, Page};
pub use probes::{Aim, Pinned, Pins, Target};
pub use resets::Resets;
pub use store::{Due, Entry, Expired, Room, Store, server_address};
pub use sweep::{Census, PAUSE, Sweep, Swept};
