//! What can go wrong with a change.

use dirigent_config::IpvsError;

use crate::kernel;

/// A change that was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Model refuses it.
    #[error(transparent)]
    Refused(#[from] IpvsError),
    /// A table has no room.
    #[error("no room for another {what}: the table holds {room}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many fit; of lists and tables, how many slots.
        room: u32,
        /// The key of `[director]` that says how many.
        key: &'static str,
    },
    /// An index that no table has.
    #[error("table {table} has no entry {index}")]
    NoEntry {
        /// The table.
        table: &'static str,
        /// The index.
        index: u32,
    },
    /// A probe was not pinned.
    #[error("no probe along the clients' path: {why}")]
    NotPinned {
        /// Why.
        why: &'static str,
    },
    /// The kernel refused a read or write.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// A change failed, and so did taking back what was done of it.
    #[error("{source}; taking the change back failed too: {undo}")]
    NotUndone {
        /// Why it failed.
        source: Box<Error>,
        /// Why it could not be taken back.
        undo: Box<Error>,
    },
}
