//! Paths of the API.

/// GET: [`crate::Status`].
pub const STATUS: &str = "/v1/status";
/// GET: a list of [`crate::Service`]. POST [`crate::ServiceSpec`]: adds one; [`crate::Changed`], as for every change.
pub const SERVICES: &str = "/v1/services";
/// GET: [`crate::Service`]. PUT [`crate::ServiceSpec`]: adds or replaces it, servers too. PATCH: changes the keys that
/// are given (RFC 7396). DELETE. Services are named `tcp:192.0.2.10:80` or `fwmark:7`.
pub const SERVICE: &str = "/v1/services/{service}";
/// GET: [`crate::ServiceSpec`], what it is configured with.
pub const SERVICE_SPEC: &str = "/v1/services/{service}/spec";
/// GET: a list of [`crate::Server`]. POST [`crate::ServerSpec`]: adds one.
pub const SERVERS: &str = "/v1/services/{service}/servers";
/// As [`SERVICE`], with [`crate::Server`] and [`crate::ServerSpec`]. Servers are named `10.0.0.2:8080`.
pub const SERVER: &str = "/v1/services/{service}/servers/{server}";
/// GET: this API in OpenAPI's words.
pub const OPENAPI: &str = "/v1/openapi.json";
/// GET: a stream of [`crate::Event`] as server-sent events, from now on.
pub const EVENTS: &str = "/v1/events";
/// GET: a list of [`crate::Happened`], the latest first, of the last ones since the daemon began; `?limit=N`.
pub const PAST_EVENTS: &str = "/v1/events/past";
/// GET: [`crate::Me`].
pub const ME: &str = "/v1/me";
/// GET: [`crate::Connections`]; [`crate::ConnectionsOf`] says which.
pub const CONNECTIONS: &str = "/v1/connections";
/// GET: [`crate::Explanation`]; `?protocol=tcp&from=198.51.100.7:40000&to=192.0.2.10:80`, and more.
pub const EXPLAIN: &str = "/v1/explain";
/// POST: tries every way to a server, and looks at what they need; [`crate::Diagnosis`]. `?about=NAME` of a service or
/// server only.
pub const DOCTOR: &str = "/v1/doctor";
/// GET: [`crate::Walk`]; `?service=tcp:192.0.2.10:80`, and more.
pub const WALK: &str = "/v1/walk";
/// Packets as they go through (POST): a stream.
pub const TRACE: &str = "/v1/trace";
/// GET: [`crate::Stats`]; [`crate::StatsOf`] says of which services.
pub const STATS: &str = "/v1/stats";
/// GET: [`crate::metrics::ALL`] as Prometheus scrapes them, by its text format or OpenMetrics.
pub const METRICS: &str = "/metrics";
/// POST: zeroes the counters, or those of one service and its servers, `?service=NAME`; [`crate::Changed`].
pub const ZERO: &str = "/v1/stats/zero";
/// POST: reads the file again; [`crate::Changed`]. `?replace=true` drops what was changed at runtime. As every change it
/// takes [`crate::Guard`].
pub const RELOAD: &str = "/v1/reload";
/// GET: [`crate::Configuration`]; `?layer=file` for what the file says.
pub const CONFIG: &str = "/v1/config";
/// POST [`crate::Document`]: services, mark rules and settings become what it says; [`crate::Changed`].
pub const APPLY: &str = "/v1/config/apply";
/// GET: a list of [`crate::Past`], the latest first; `?limit=N`.
pub const HISTORY: &str = "/v1/config/history";
/// POST: back to what a generation was, `?to=N`, or to before the last change; [`crate::Changed`].
pub const ROLLBACK: &str = "/v1/config/rollback";
/// POST: what was changed at runtime is kept over a reboot too; [`crate::Changed`].
pub const SAVE: &str = "/v1/config/save";
/// POST [`crate::IpvsadmLines`]: does what ipvsadm's rules say, one after the other; [`crate::IpvsadmDone`].
pub const IPVSADM: &str = "/v1/ipvsadm";
/// POST [`crate::ServerName`]: no new connections for it; [`crate::Drained`].
pub const DRAIN: &str = "/v1/drain";
/// POST [`crate::ServerName`]: the opposite; [`crate::Drained`].
pub const UNDRAIN: &str = "/v1/undrain";
/// GET: a list of [`crate::VirtualRouter`].
pub const FAILOVER: &str = "/v1/failover";
/// POST: masters give way, all or the one of `?router=NAME` with its group; with `?back=true` they take over again when
/// their priority says so; [`crate::Changed`].
pub const HAND_OVER: &str = "/v1/failover/now";
/// GET: a list of [`crate::Rehearsal`]; `?router=NAME`, `?what=hand-over|stop|link`.
pub const REHEARSE: &str = "/v1/failover/rehearse";
/// POST: removes the director and ends the daemon; [`crate::Changed`].
pub const DETACH: &str = "/v1/detach";
