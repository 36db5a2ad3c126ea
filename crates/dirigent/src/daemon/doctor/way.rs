//! A way to a server, and what is tried on it.

use crate::daemon::health::{Along, Job};
use dirigent_config::health::{Check, Pace, Probe, Target, Udp};
use dirigent_config::{Protocol, Server, Service, ServiceKey};
use std::time::Duration;

/// How long a server has to answer; at half of it, how it answers by its own address is looked at.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What is tried, without the server.
pub struct Checks {
    tcp: Check,
    /// Nothing need come back, but no word may come that nobody listens.
    udp: Check,
}

impl Checks {
    /// Along the clients' path.
    pub fn new() -> Self {
        Self { tcp: tried(Probe::Tcp), udp: tried(Probe::Udp(Udp::default())) }
    }
}

fn tried(probe: Probe) -> Check {
    let plain = Check::new(probe);
    let target = Target { real_path: true, ..plain.target.clone() };
    Check { target, pace: Pace { timeout: PATIENCE, ..plain.pace.clone() }, ..plain }
}

/// One server of a service.
pub struct Way {
    /// The service.
    pub service: ServiceKey,
    /// The server.
    pub server: Server,
    /// What is tried: a connection as clients make it, or a datagram. Of SCTP nothing is.
    pub job: Option<Job>,
    /// Bytes of the largest packet that the way carries, and of the largest of a client's; nothing while it is in no list.
    pub carries: Option<(u32, u32)>,
    /// Whether it is looked at.
    pub meant: bool,
}

impl Way {
    /// With what to try there.
    pub fn of(service: &Service, server: &Server, checks: &Checks, carries: Option<(u32, u32)>, meant: bool) -> Self {
        let job = match service.key.protocol() {
            // A service of all ports or of a mark has no port to try.
            _ if service.key.port() == 0 => None,
            Some(Protocol::Tcp) => Some(Job::of(service, server, &checks.tcp)),
            Some(Protocol::Udp) => {
                // What the service's own check sends it understands, and what it wants must come.
                let mut own = server.health.checks.iter().map(|check| &check.probe);
                let own = own.find(|probe| matches!(probe, Probe::Udp(_) | Probe::Dns { .. }));
                let own = own.map(|probe| tried(probe.clone()));
                Some(Job::of(service, server, own.as_ref().unwrap_or(&checks.udp)))
            }
            _ => None,
        };
        Self { service: service.key, server: server.clone(), job, carries, meant }
    }
    /// As problems name it.
    pub fn place(&self) -> String {
        format!("server {} of {}", self.server.name(), self.service)
    }
    /// How clients' packets get to the server, if anything is tried there.
    pub fn along(&self) -> Option<Along> {
        self.job.as_ref()?.along
    }
    /// Datagrams.
    pub fn is_udp(&self) -> bool {
        self.service.protocol() == Some(Protocol::Udp)
    }
}
