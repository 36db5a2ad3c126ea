//! The two state machines: [`Master`] sends what it is given, numbered, and sends again what is
//! asked for; [`Backup`] puts in order what it hears, asks for what is missing, and says what to
//! apply. A node has one of each, with the same [`Identity`], and gives every datagram to both, the
//! master first; one that has no connections of its own still says hello.
//!
//! Events go in (a datagram, a connection, `poll`), with the time; what is to be done is taken out with
//! `next_action` until there is nothing. Times are milliseconds of the caller's clock, which must not go
//! back; the nodes' clocks need not agree.
//!
//! Whatever comes in, memory stays within what the configuration says.

mod backup;
mod lag;
mod limits;
mod master;
mod peer;
mod ring;

pub use backup::{Backup, BackupAction, BackupConfig, Metrics, PeerMetrics};
pub use master::{Master, MasterAction, MasterConfig, MasterMetrics, Page, Whose};

use crate::extension::{Origin, Stamp};
use std::net::SocketAddr;

/// Who this node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its number among the nodes of the group, from 1.
    pub node: u32,
    /// Greater at each start: milliseconds since 1970 at the start will do.
    pub boot: u64,
    /// The start at which its tables were last empty: `boot`, unless they outlived the daemon.
    pub epoch: u64,
}

impl Identity {
    fn stamp(self, number: u64, now_ms: u64) -> Stamp {
        Stamp { node: self.node, boot: self.boot, number, sent_ms: now_ms }
    }
    fn origin(self) -> Origin {
        Origin { node: self.node, boot: self.boot }
    }
}

/// Where a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// To the multicast group.
    Group,
    /// To the address that one of the peer's datagrams came from.
    Peer(SocketAddr),
}
