//! The only user of netlink and raw sockets: network namespaces and the lab; links, addresses, routes, neighbours and
//! their changes; next hops; virtual addresses and their announcement.
//!
//! Calls that read or change the network work in the namespace of the calling thread ([`Namespace::run`] lends a thread
//! in another one). They are synchronous, because the kernel answers netlink at once; only [`watch`] waits for something.

pub mod error;
pub mod ethtool;
pub mod lab;
pub mod links;
pub mod netns;
mod nl;
pub mod sysctl;

pub use error::{Error, Result};
pub use nl::{Netlink, RouteSpec, VethEnd};
pub use netns::Namespace;
