//! Health of real servers: what follows from their checks, whose settings `dirigent-health` has.

use crate::model::Method;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

pub use dirigent_health::check::{
    Bfd, Check, DEFAULT_HELO, Fault, Http, HttpVersion, MAX_TIME, Pace, Probe, REGEX_OPTIONS,
    REGEX_OPTIONS_UNAVAILABLE, Record, Regex, Request, Script, Target, Tls, Udp,
};

/// What becomes of a server whose checks fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnFailure {
    /// It is as if it were not there.
    #[default]
    Remove,
    /// Its weight is 0: what it has goes on.
    Quiesce,
}

impl OnFailure {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Remove, Self::Quiesce];
    /// `remove` or `quiesce`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Quiesce => "quiesce",
        }
    }
}

/// What becomes of the live connections of a server whose checks fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnFailureConnections {
    /// What `on_failure` makes of them: they go on, or wait for the server's return.
    #[default]
    Keep,
    /// Both sides are told at once that they are over.
    Reset,
}

impl OnFailureConnections {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Keep, Self::Reset];
    /// `keep` or `reset`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Reset => "reset",
        }
    }
}

/// Health of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerHealth {
    /// All must pass; none: the server is up.
    pub checks: Vec<Check>,
    /// Instead of the service's.
    pub on_failure: Option<OnFailure>,
    /// Run when it comes up.
    pub notify_up: Option<Box<Script>>,
    /// Run when it goes down.
    pub notify_down: Option<Box<Script>>,
    /// Whether changes are mailed; none: as set elsewhere.
    pub mail: Option<bool>,
}

impl ServerHealth {
    /// What is wrong with it.
    pub fn faults(&self) -> Vec<Fault> {
        let scripts = [("notify_up", &self.notify_up), ("notify_down", &self.notify_down)];
        let scripts = scripts.into_iter().filter_map(|(key, script)| script.as_ref()?.faults(key));
        scripts.chain(self.checks.iter().flat_map(Check::faults)).chain(self.requests()).collect()
    }
    fn requests(&self) -> impl Iterator<Item = Fault> + '_ {
        let http = self.checks.iter().filter_map(|check| match &check.probe {
            Probe::Http(http) => Some(http),
            _ => None,
        });
        http.flat_map(|http| &http.requests).flat_map(Request::faults)
    }
}

/// Who serves when too few servers are up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sorry {
    /// Address.
    pub address: IpAddr,
    /// Port; 0: the one the client used.
    pub port: u16,
    /// Forwarding method.
    pub method: Method,
    /// What becomes of it while it is not wanted.
    pub on_failure: OnFailure,
}

/// Health of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceHealth {
    /// What becomes of a server that fails.
    pub on_failure: OnFailure,
    /// And of its live connections.
    pub on_failure_connections: OnFailureConnections,
    /// Weight of live servers below which the service is down.
    pub quorum: u32,
    /// It is up at quorum and this, down at quorum less this.
    pub hysteresis: u32,
    /// Run when it comes up.
    pub quorum_up: Option<Box<Script>>,
    /// Run when it goes down.
    pub quorum_down: Option<Box<Script>>,
    /// When the director stops, what goes down is notified as down.
    pub notify_at_stop: bool,
    /// Checks rest while the virtual address is not on this host.
    pub only_with_address: bool,
    /// Whether changes are mailed; none: as set elsewhere.
    pub mail: Option<bool>,
    /// Serves when the service is down.
    pub sorry: Option<Box<Sorry>>,
}

impl Default for ServiceHealth {
    fn default() -> Self {
        Self {
            on_failure: OnFailure::Remove,
            on_failure_connections: OnFailureConnections::Keep,
            quorum: 1,
            hysteresis: 0,
            quorum_up: None,
            quorum_down: None,
            notify_at_stop: false,
            only_with_address: false,
            mail: None,
            sorry: None,
        }
    }
}

impl ServiceHealth {
    /// What is wrong with it, the sorry server apart.
    pub fn faults(&self) -> Vec<Fault> {
        let mut out: Vec<Fault> = Vec::new();
        if self.quorum == 0 {
            out.push(("quorum", "quorum is 0".into(), "use 1 or more"));
        } else if self.hysteresis >= self.quorum {
            let what = format!("hysteresis {} is not below the quorum, {}", self.hysteresis, self.quorum);
            out.push(("hysteresis", what, "lower hysteresis, or raise quorum"));
        }
        let scripts = [("quorum_up", &self.quorum_up), ("quorum_down", &self.quorum_down)];
        out.extend(scripts.into_iter().filter_map(|(key, script)| script.as_ref()?.faults(key)));
        out
    }
}
