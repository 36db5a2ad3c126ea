//! The doctor: tries every way to a server as clients' packets go, asks who has the virtual addresses, and looks at what
//! this host must be. Each finding has what was seen, the rule behind it, and the remedy.
//!
//! The director's task gives what is known ([`Subject`]) and makes the way for the probes; the examination itself, which
//! waits, is its asker's.

mod addresses;
mod host;
mod paths;

use super::director::Director;
use super::health::{Along, Job, Trier};
use super::snapshot;
use super::suspicion::claims_place;
use crate::failure::{Failure, Result, code};
use dirigent_api::{Diagnosis, Finding, HostCommand, Status};
use dirigent_config::health::{Check, Pace, Probe, Target as CheckTarget};
use dirigent_config::{Model, Protocol, Server, Service, ServiceKey};
use dirigent_net::{NextHop, Snapshot};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

/// How long a server has to answer; at half of it, how it answers by its own address is looked at.
const PATIENCE: Duration = Duration::from_millis(1500);

/// One server of a service, to be looked at.
pub struct Way {
    /// The service.
    pub service: ServiceKey,
    /// The server.
    pub server: Server,
    /// A connection as clients make it, which leads there; of other protocols than TCP no answer can be expected.
    pub job: Option<Job>,
    /// Bytes of the largest packet that the way carries, and of the largest of a client's; nothing while it is in no list.
    pub carries: Option<(u32, u32)>,
}

impl Way {
    fn of(service: &Service, server: &Server, carries: Option<(u32, u32)>) -> Self {
        // A service of all ports or of a mark has no port to try.
        let tried = service.key.protocol() == Some(Protocol::Tcp) && service.key.port() != 0;
        let plain = Check::new(Probe::Tcp);
        let target = CheckTarget { real_path: true, ..plain.target.clone() };
        let check = Check { target, pace: Pace { timeout: PATIENCE, ..plain.pace.clone() }, ..plain };
        let job = tried.then(|| Job::of(service, server, &check));
        Self { service: service.key, server: server.clone(), job, carries }
    }
    /// As problems name it.
    fn place(&self) -> String {
        format!("server {} of {}", self.server.name(), self.service)
    }
}

/// What an examination needs to know.
pub struct Subject {
    /// What is configured.
    model: Model,
    /// How the director is doing.
    status: Status,
    /// The network.
    host: Snapshot,
    /// How servers are reached.
    hops: HashMap<IpAddr, NextHop>,
    /// This host's address on the way to each server.
    sources: HashMap<IpAddr, IpAddr>,
    /// The interfaces in use, the probes' own apart.
    interfaces: Vec<u32>,
    /// Those that are looked at.
    ways: Vec<Way>,
    /// All that there are.
    every: Vec<Way>,
    trier: Trier,
    /// Only about this.
    about: Option<String>,
}

impl Director {
    /// Makes the way for the doctor's probes, and says what he needs to know.
    pub fn begin_examination(&mut self, about: Option<&str>) -> Result<Subject> {
        let all = |meant: &dyn Fn(&Service, &Server) -> bool| -> Vec<Way> {
            let services = self.configured().services().iter();
            let servers = services.flat_map(|service| service.servers.iter().map(move |server| (service, server)));
            let these = servers.filter(|(service, server)| meant(service, server));
            these.map(|(service, server)| Way::of(service, server, self.carries(&service.key, server))).collect()
        };
        let is_called = |service: &Service, server: &Server| {
            about.is_none_or(|name| service.key.is_called(name) || server.name() == name)
        };
        let (ways, every) = (all(&is_called), all(&|_, _| true));
        if let (Some(name), true) = (about, ways.is_empty()) {
            let failure = Failure::new(name, "no service or server is called so", "`dirigent server list` names them");
            return Err(Failure { code: code::ABSENT, ..failure });
        }
        let along = ways.iter().filter_map(|way| way.job.as_ref());
        self.set_examined(along.filter_map(|job| Some((job.along?, job.to.is_ipv6()))).collect())?;
        let hops: HashMap<_, _> = self.network.hops().map(|(ip, hop)| (*ip, *hop)).collect();
        let source = |ip: &IpAddr| Some((*ip, self.source_towards(*ip)?));
        Ok(Subject {
            model: self.configured().clone(),
            sources: hops.keys().filter_map(source).collect(),
            interfaces: self.clients_interfaces(),
            trier: self.health.trier(),
            hops,
            ways,
            every,
            status: self.status()?,
            host: snapshot(self.network.watcher())?,
            about: about.map(str::to_owned),
        })
    }

    /// He has done.
    pub fn end_examination(&mut self, unclaimed: &BTreeSet<IpAddr>) {
        self.unclaimed(unclaimed);
        if let Err(failure) = self.set_examined(Default::default()) {
            tracing::warn!("after an examination: {failure}");
        }
    }
}

/// All of it; and the virtual addresses that nobody else answered for, which is more than what claims said before.
pub async fn examine(subject: &Subject) -> (Diagnosis, BTreeSet<IpAddr>) {
    let (tried, asked) = tokio::join!(paths::try_all(subject), addresses::look(subject));
    let (paths, mut findings) = tried;
    let addresses::Asked { findings: claimed, unclaimed } = asked;
    findings.extend(claimed);
    if subject.about.is_none() {
        findings.extend(host::look(subject));
    }
    let over: Vec<String> = unclaimed.iter().map(|ip| claims_place(*ip)).collect();
    let reported = reported(subject, &findings).into_iter().filter(|finding| !over.contains(&finding.place));
    findings.extend(reported);
    findings.sort_by_key(|finding| finding.severity != ERROR);
    (Diagnosis { findings, paths }, unclaimed)
}

const ERROR: &str = "error";
const WARNING: &str = "warning";

/// What the daemon says of itself, where nothing was found that says more.
fn reported(subject: &Subject, found: &[Finding]) -> Vec<Finding> {
    let about = |place: &str| {
        let Some(name) = subject.about.as_deref() else { return true };
        place.contains(name) || subject.ways.iter().any(|way| place == way.place())
    };
    let told = |place: &str| {
        // Of a server: whatever was found on a way to it.
        let server = place.strip_prefix("server ");
        let same = |finding: &Finding| {
            finding.place == place || server.is_some_and(|ip| finding.place.starts_with(&format!("server {ip}:")))
        };
        found.iter().any(same)
    };
    let problems = subject.status.problems.iter().filter(|p| about(&p.place) && !told(&p.place));
    let finding = |problem: &dirigent_api::Problem| Finding {
        name: "reported".into(),
        severity: WARNING.into(),
        place: problem.place.clone(),
        what: problem.what.clone(),
        evidence: vec!["`dirigent status` says so".into()],
        remedy: problem.remedy.clone(),
        ..Finding::default()
    };
    problems.map(finding).collect()
}

/// A command on a server.
fn on_server(server: IpAddr, command: String) -> HostCommand {
    HostCommand { host: server.to_string(), command }
}

/// Whether a way is along the clients' path to this.
fn along(way: &Way) -> Option<Along> {
    way.job.as_ref()?.along
}
