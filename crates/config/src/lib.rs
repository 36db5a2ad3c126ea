//! What the director shall do, and how to get there.
//!
//! Text comes in ([`mod@file`]: dirigent.toml; [`ipvsadm`]: rules), a [`Model`]
//! comes out, whose invariants hold by construction. Two Models make a
//! [`Plan`]: table operations in an order that leaves no new connection
//! without a server of either.
//!
//! The crate is pure: it reads no file, socket, clock or random source, and no
//! input makes it panic.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod check;
pub mod error;
pub mod failover;
pub mod file;
pub mod health;
pub mod import;
pub mod ipvsadm;
pub mod layers;
pub mod mark;
pub mod model;
pub mod plan;
pub mod ruleset;
pub mod settings;
#[cfg(test)]
mod testing;

pub use error::{Diagnostic, Diagnostics, IpvsError, OptionError, Unsupported, Violation};
pub use failover::Failover;
pub use ipvsadm::Command;
pub use layers::Overlay;
pub use mark::{MarkRule, Ports, Prefix, Test};
pub use model::{
    Method, Model, Netmask, Persistence, Protocol, Scheduler, SchedulerFlags, Server, ServerId, Service, ServiceKey,
    Sources, Tunnel, TunnelChecksum, TunnelKind, VipPolicy,
};
pub use plan::{Op, Plan};
pub use settings::{
    Api, Defence, ErrorLimits, MAX_SERVERS, MAX_SERVICES, MAX_SLOTS, Metrics, Mode, Page, SctpTimeouts, Settings,
    SysctlError, TcpTimeouts, Timeouts, VipDefault,
};
