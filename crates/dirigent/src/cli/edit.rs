//! Options of services and servers: the keys of dirigent.toml.

use super::ChangeArgs;
use clap::Args;
use serde_json::{Map, Value};

/// A virtual service.
#[derive(Debug, Clone, Args)]
pub struct ServiceName {
    /// PROTOCOL:ADDRESS:PORT, like tcp:192.0.2.10:80, or fwmark:MARK[:6]
    pub service: String,
}

/// What a service is configured with.
#[derive(Debug, Clone, Args)]
pub struct ServiceOptions {
    /// rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh or twos
    #[arg(long, short, value_name = "NAME")]
    pub scheduler: Option<String>,
    /// A flag of the scheduler, like mh-port; several times for several; none for none
    #[arg(long, value_name = "FLAG")]
    pub scheduler_flag: Vec<String>,
    /// Slots of mh's table: 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521 or 131071; none for 4093
    #[arg(long, value_name = "N")]
    pub table_size: Option<String>,
    /// Each packet is scheduled alone; udp only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub one_packet: Option<bool>,
    /// Connections that are not known go on with the server of their hash
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub stateless: Option<bool>,
    /// Connection ids of QUIC say whose clients are whose; udp only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub quic: Option<bool>,
    /// Servers that come take their share little by little, in this time, like 30s; none for at once
    #[arg(long, value_name = "DURATION")]
    pub slow_start: Option<String>,
    /// Who holds the virtual address: operator or manage
    #[arg(long, value_name = "WHO")]
    pub vip: Option<String>,
    /// Only these clients may open connections, like 192.0.2.0/24; several times for several; none for all
    #[arg(long, value_name = "PREFIX")]
    pub allow: Vec<String>,
    /// These clients may not; several times for several; none for none
    #[arg(long, value_name = "PREFIX")]
    pub deny: Vec<String>,
    /// Clients' connections go to the server of their earlier ones for this time, like 5m; none for never
    #[arg(long, short, value_name = "DURATION")]
    pub persistence: Option<String>,
    /// Clients that count as one, like 255.255.255.0 or /64
    #[arg(long, value_name = "MASK")]
    pub persistence_mask: Option<String>,
}

/// What a server is configured with.
#[derive(Debug, Clone, Args)]
pub struct ServerOptions {
    /// Forwarding method: nat, dr or tun
    #[arg(long, short, value_name = "METHOD")]
    pub method: Option<String>,
    /// 0 takes no new connections
    #[arg(long, short, value_name = "N")]
    pub weight: Option<u64>,
    /// Connections at which no more come; 0 for no limit
    #[arg(long, value_name = "N")]
    pub upper: Option<u64>,
    /// Connections under which they come again
    #[arg(long, value_name = "N")]
    pub lower: Option<u64>,
    /// What packets are inside of: ipip, gre or gue
    #[arg(long, value_name = "KIND")]
    pub tunnel: Option<String>,
    /// UDP port of gue
    #[arg(long, value_name = "PORT")]
    pub tunnel_port: Option<u64>,
    /// none, full or remote
    #[arg(long, value_name = "KIND")]
    pub tunnel_checksum: Option<String>,
    /// QUIC: the id in connection ids that it makes, eight hexadecimal digits; none for its address
    #[arg(long, value_name = "ID")]
    pub server_id: Option<String>,
}

/// A service, and what it is to be.
#[derive(Debug, Clone, Args)]
pub struct ServiceEdit {
    /// Which.
    #[command(flatten)]
    pub name: ServiceName,
    /// What.
    #[command(flatten)]
    pub options: ServiceOptions,
    /// On which terms.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// A service that goes.
#[derive(Debug, Clone, Args)]
pub struct ServiceRemoval {
    /// Which.
    #[command(flatten)]
    pub name: ServiceName,
    /// On which terms.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// A server, and what it is to be.
#[derive(Debug, Clone, Args)]
pub struct ServerEdit {
    /// Which.
    #[command(flatten)]
    pub server: super::ServerArgs,
    /// What.
    #[command(flatten)]
    pub options: ServerOptions,
    /// On which terms.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// A server that goes.
#[derive(Debug, Clone, Args)]
pub struct ServerRemoval {
    /// Which.
    #[command(flatten)]
    pub server: super::ServerArgs,
    /// On which terms.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Keys that are given; the word `none` is the default.
#[derive(Default)]
struct Keys(Map<String, Value>);

impl Keys {
    fn set(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            let value = match value.into() {
                Value::String(word) if word == "none" && key != "tunnel_checksum" => Value::Null,
                value => value,
            };
            self.0.insert(key.to_owned(), value);
        }
    }
}

impl ServiceOptions {
    /// As the API takes them.
    pub fn keys(&self) -> Map<String, Value> {
        let mut keys = Keys::default();
        keys.set("scheduler", self.scheduler.clone());
        for (key, given) in [("scheduler_flags", &self.scheduler_flag), ("allow", &self.allow), ("deny", &self.deny)] {
            let all: Vec<_> = given.iter().filter(|word| *word != "none").cloned().collect();
            keys.set(key, Some(all).filter(|_| !given.is_empty()));
        }
        let number = |text: &String| text.parse::<u64>().map_or_else(|_| Value::from(text.as_str()), Value::from);
        keys.set("table_size", self.table_size.as_ref().map(number));
        keys.set("one_packet", self.one_packet);
        keys.set("stateless", self.stateless);
        keys.set("quic", self.quic);
        keys.set("slow_start", self.slow_start.clone());
        keys.set("vip", self.vip.clone());
        let mut persistence = Keys::default();
        persistence.set("timeout", self.persistence.clone());
        persistence.set("mask", self.persistence_mask.clone());
        let none = self.persistence.as_deref() == Some("none");
        let persistence = if none { Value::Null } else { Value::Object(persistence.0) };
        let given = self.persistence.is_some() || self.persistence_mask.is_some();
        keys.set("persistence", given.then_some(persistence));
        keys.0
    }
}

impl ServerOptions {
    /// As the API takes them.
    pub fn keys(&self) -> Map<String, Value> {
        let mut keys = Keys::default();
        keys.set("method", self.method.clone());
        keys.set("weight", self.weight);
        keys.set("upper", self.upper);
        keys.set("lower", self.lower);
        keys.set("tunnel", self.tunnel.clone());
        keys.set("tunnel_port", self.tunnel_port);
        keys.set("tunnel_checksum", self.tunnel_checksum.clone());
        keys.set("server_id", self.server_id.clone());
        keys.0
    }
}
