//! Paths of the API.

/// GET: [`crate::Status`].
pub const STATUS: &str = "/v1/status";
/// GET: a list of [`crate::Service`].
pub const SERVICES: &str = "/v1/services";
/// GET: [`crate::Connections`]; `?limit=N`.
pub const CONNECTIONS: &str = "/v1/connections";
/// GET: [`crate::Stats`].
pub const STATS: &str = "/v1/stats";
/// POST: zeroes the counters, or those of one service and its servers, `?service=NAME`; [`crate::Changed`].
pub const ZERO: &str = "/v1/stats/zero";
/// POST: reads the configuration again; [`crate::Changed`].
pub const RELOAD: &str = "/v1/reload";
/// POST [`crate::ServerName`]: no new connections for it; [`crate::Drained`].
pub const DRAIN: &str = "/v1/drain";
/// POST [`crate::ServerName`]: the opposite; [`crate::Drained`].
pub const UNDRAIN: &str = "/v1/undrain";
/// POST: removes the director and ends the daemon; [`crate::Changed`].
pub const DETACH: &str = "/v1/detach";
