//! The only user of netlink and raw sockets: network namespaces and the lab; links, addresses, routes, neighbours and
//! their changes; next hops; virtual addresses and their announcement.
//!
//! Calls that read or change the network work in the namespace of the calling thread ([`Namespace::run`] lends a thread
//! in another one). They are synchronous, because the kernel answers netlink at once; only [`watch`] waits for something.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod ask;
pub mod choose;
pub mod claims;
pub mod clsact;
pub mod error;
pub mod ethtool;
pub mod hops;
pub mod lab;
pub mod links;
pub mod mark_device;
pub mod netns;
pub mod nexthop;
mod nl;
pub mod probe;
pub mod raw;
pub mod raw_ip;
pub mod receive;
pub mod routes;
pub mod rules;
pub mod seen;
pub mod sync;
pub mod sysctl;
pub mod vip;
pub mod virtual_mac;
pub mod vrrp;
pub mod watch;

pub use error::{Error, Result};
pub use hops::{HopKeeper, Update};
pub use links::{Link, LocalNet, Mac, Snapshot, mac_text};
pub use netns::Namespace;
pub use nexthop::{NextHop, NextHopState, Resolver};
pub use nl::{AddressOptions, Netlink, RouteSpec, VethEnd};
pub use probe::ProbeNet;
pub use raw_ip::RawIp;
pub use routes::{Kept, Route};
pub use rules::{SourceRule, TableRule};
pub use watch::{Change, Watcher};
