//! What services and servers are configured with: the keys of dirigent.toml, as JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A virtual service: the keys of `[[service]]`, which docs/config.md describes. What is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSpec {
    /// `tcp`, `udp` or `sctp`. Not with `fwmark`. Where the address of the request names the service, this may be absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Virtual address and port. As `protocol`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The firewall mark of a service by mark. As `protocol`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub fwmark: Option<u32>,
    /// With `fwmark`: 4 (default) or 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<u8>,
    /// IPVS's name of the scheduler; default `wlc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// Flags of the scheduler, such as `mh-port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_flags: Option<Vec<String>>,
    /// Slots of the scheduler's table: with `mh` one of IPVS's primes, default 4093.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u32>,
    /// Each packet is scheduled alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_packet: Option<bool>,
    /// Connections that are not known go on with the server of their hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stateless: Option<bool>,
    /// Connection ids of QUIC say whose clients are whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<bool>,
    /// A server that comes takes its share little by little, in this time, like `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// Who holds the virtual address: `operator` or `manage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Clients that may open connections, as prefixes; none: all. The longest prefix decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Clients that may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<Vec<String>>,
    /// Clients' connections go to the server of their earlier ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistence: Option<PersistenceSpec>,
    /// What follows from its servers' health: the keys of `[service.health]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub health: Option<Map<String, Value>>,
    /// Its real servers, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Vec<ServerSpec>>,
}

/// Persistence: the keys of `[service.persistence]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PersistenceSpec {
    /// After the last connection, in whole seconds, like `6m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Clients that count as one: `255.255.255.0`, `/24`, or IPv6 `/64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// A real server: the keys of `[[service.server]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSpec {
    /// Address and port; without a port the service's. Where the address of the request names the server, this may be
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `nat`, `dr` or `tun`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// 0 to 2147483647; 0: no new connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Connections at which no more come; 0: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper: Option<u32>,
    /// Connections under which they come again; 0: three quarters of `upper`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower: Option<u32>,
    /// What packets are inside of: `ipip`, `gre` or `gue`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// UDP port of `gue`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_port: Option<u16>,
    /// `none`, `full` or `remote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel_checksum: Option<String>,
    /// QUIC: the id in connection ids that it makes, four bytes in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// What becomes of it when it fails: `remove` or `quiesce`; else what the service says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    /// Run when it is up again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_up: Option<ScriptSpec>,
    /// Run when it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_down: Option<ScriptSpec>,
    /// Mail says so; else what the service says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<bool>,
    /// How it is checked: the keys of `[[service.server.check]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub check: Option<Vec<Map<String, Value>>>,
}

/// A program and what it is given, as whom it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ScriptSpec {
    /// The program.
    Program(String),
    /// And what it is given.
    Command(Vec<String>),
    /// And as whom it runs: `command`, `user` and `group`.
    #[schema(value_type = Object)]
    As(Map<String, Value>),
}
