//! What is to be checked, with nothing left open.

use dirigent_config::failover::BfdSession;
use dirigent_config::health::{Check, Probe};
use dirigent_config::{Method, Server, Service};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// One check of one server, or of several services that have the same server: jobs that are equal are made once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Job {
    /// What, and when.
    pub check: Check,
    /// The server, as the check's target has it; along the real path the virtual address. Scripts and files have none.
    pub to: SocketAddr,
    /// Along the real path: the server that it leads to.
    pub along: Option<Along>,
    /// The check rests while this host does not have the address.
    pub needs: Option<IpAddr>,
}

/// A server as clients' packets reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Along {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Forwarding method.
    pub method: Method,
}

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Job {
    /// A server's check.
    pub fn of(service: &Service, server: &Server, check: &Check) -> Self {
        let port = if server.port == 0 { service.key.port() } else { server.port };
        let along = check.target.real_path.then_some(Along { address: server.address, port, method: server.method });
        let to = match check.probe {
            _ if along.is_some() => {
                service.key.address().map_or(NOWHERE, |vip| SocketAddr::new(vip, service.key.port()))
            }
            Probe::Script { .. } | Probe::File { .. } => NOWHERE,
            _ => SocketAddr::new(check.target.address.unwrap_or(server.address), check.target.port.unwrap_or(port)),
        };
        let needs = service.health.only_with_address.then(|| service.key.address()).flatten();
        Self { check: check.clone(), to, along, needs }
    }

    /// A session of BFD that virtual routers look at.
    pub fn of_session(session: &BfdSession) -> Self {
        let check = Check { target: session.target.clone(), ..Check::new(Probe::Bfd(session.bfd.clone())) };
        let to = session.target.address.map_or(NOWHERE, |address| SocketAddr::new(address, 0));
        Self { check, to, along: None, needs: None }
    }

    /// The same, whenever it is made: what was found out by one holds for the other.
    pub fn whenever(&self) -> Self {
        let Check { probe, target, .. } = self.check.clone();
        Self { check: Check { target, ..Check::new(probe) }, to: self.to, along: self.along, needs: None }
    }

    /// The server's address, if it is about one.
    pub fn server(&self) -> IpAddr {
        self.along.map_or(self.to.ip(), |along| along.address)
    }

    /// For messages: `tcp 10.0.0.2:80`; along the real path `tcp 192.0.2.10:80 on 10.0.0.2`.
    pub fn name(&self) -> String {
        match &self.check.probe {
            probe if self.along.is_some() => format!("{} {} on {}", probe.name(), self.to, self.server()),
            Probe::Script { script, .. } => format!("script {}", script.command.first().map_or("", String::as_str)),
            Probe::File { path, .. } => format!("file {path}"),
            Probe::Ping | Probe::Bfd(_) => format!("{} {}", self.check.probe.name(), self.to.ip()),
            probe => format!("{} {}", probe.name(), self.to),
        }
    }
}
