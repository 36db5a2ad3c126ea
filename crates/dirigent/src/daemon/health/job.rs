//! What is to be checked, with nothing left open.

use dirigent_config::health::{Check, Probe};
use dirigent_config::{Server, Service};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// One check of one server, or of several services that have the same server: jobs that are equal are made once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Job {
    /// What, and when.
    pub check: Check,
    /// The server, as the check's target has it. Scripts and files have none.
    pub to: SocketAddr,
    /// The check rests while this host does not have the address.
    pub needs: Option<IpAddr>,
}

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Job {
    /// A server's check.
    pub fn of(service: &Service, server: &Server, check: &Check) -> Self {
        let port = if server.port == 0 { service.key.port() } else { server.port };
        let to = match check.probe {
            Probe::Script { .. } | Probe::File { .. } => NOWHERE,
            _ => SocketAddr::new(check.target.address.unwrap_or(server.address), check.target.port.unwrap_or(port)),
        };
        let needs = service.health.only_with_address.then(|| service.key.address()).flatten();
        Self { check: check.clone(), to, needs }
    }

    /// The same, whenever it is made: what was found out by one holds for the other.
    pub fn whenever(&self) -> Self {
        let Check { probe, target, .. } = self.check.clone();
        Self { check: Check { target, ..Check::new(probe) }, to: self.to, needs: None }
    }

    /// For messages: `tcp 10.0.0.2:80`.
    pub fn name(&self) -> String {
        match &self.check.probe {
            Probe::Script { script, .. } => format!("script {}", script.command.first().map_or("", String::as_str)),
            Probe::File { path, .. } => format!("file {path}"),
            Probe::Ping | Probe::Bfd(_) => format!("{} {}", self.check.probe.name(), self.to.ip()),
            probe => format!("{} {}", probe.name(), self.to),
        }
    }
}
