//! The doctor: tries every way to a server as clients' packets go, asks who has the virtual addresses, and looks at what
//! this host must be. Each finding has what was seen, the rule behind it, and the remedy.
//!
//! The director's task gives what is known ([`Subject`]) and makes the way for the probes; the examination itself, which
//! waits, is its asker's. What is wrong with an interface or a server is said once, and not again for each way that it
//! breaks.

mod addresses;
mod answers;
mod clients;
mod firewall;
mod host;
mod known;
mod links;
mod paths;
mod servers;
mod spread;
mod way;

use super::director::{Director, Known};
use super::health::Trier;
use super::snapshot;
use crate::failure::{Failure, Result, code};
use crate::netfilter::Netfilter;
use dirigent_api::{Diagnosis, HostCommand, Parameter, Status};
use dirigent_config::{Model, Server, Service};
use dirigent_net::{NextHop, Snapshot, sysctl};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use way::{Checks, Way};

/// Questions to a link that are asked at once.
const AT_ONCE: usize = 64;

const ERROR: &str = "error";
const WARNING: &str = "warning";

/// What an examination needs to know.
pub struct Subject {
    /// What is configured.
    model: Model,
    /// How the director is doing.
    status: Status,
    /// What is known to be wrong.
    known: Known,
    /// The network.
    host: Snapshot,
    /// How servers are reached.
    hops: HashMap<IpAddr, NextHop>,
    /// This host's address on the way to each server.
    sources: HashMap<IpAddr, IpAddr>,
    /// The interfaces in use, the probes' own apart.
    interfaces: Vec<u32>,
    /// Of those, the ones that a program of ours is not on any more, and which.
    bare: BTreeMap<u32, Vec<String>>,
    /// Why XDP is not used where it would help.
    without_xdp: Vec<(u32, String)>,
    /// What the kernel cannot do.
    lacking: Vec<String>,
    /// All ways that there are.
    every: Vec<Way>,
    trier: Trier,
    /// Only about this.
    about: Option<String>,
}

impl Subject {
    /// The ways that are looked at.
    fn ways(&self) -> impl Iterator<Item = &Way> {
        self.every.iter().filter(|way| way.meant)
    }
    /// An interface's name.
    fn link(&self, index: u32) -> &str {
        self.host.links.get(&index).map_or("?", |link| link.name.as_str())
    }
    /// Of the interfaces in use, those that are up and have a carrier.
    fn running(&self) -> impl Iterator<Item = u32> {
        let runs = |index: &u32| self.host.links.get(index).is_some_and(|link| link.running);
        self.interfaces.iter().copied().filter(runs)
    }
}

/// What an examination tells the daemon.
#[derive(Default)]
pub struct Learned {
    /// The virtual addresses that nobody else answered for, which is more than what claims said before.
    pub unclaimed: BTreeSet<IpAddr>,
    /// Netfilter's rules as they are now.
    pub netfilter: Option<Netfilter>,
}

impl Director {
    /// Makes the way for the doctor's probes, and says what he needs to know.
    pub fn begin_examination(&mut self, about: Option<&str>) -> Result<Subject> {
        // Before the way for probes is made: with that all programs are attached anew.
        let bare = self.bare_interfaces()?;
        let checks = Checks::new();
        let of_service = |service: &Service| -> Vec<Way> {
            let way = |server: &Server| {
                let is_called = |name: &str| service.key.is_called(name) || server.name() == name;
                let meant = about.is_none_or(is_called);
                Way::of(service, server, &checks, self.carries(&service.key, server), meant)
            };
            service.servers.iter().map(way).collect()
        };
        let every: Vec<Way> = self.configured().services().iter().flat_map(of_service).collect();
        if let (Some(name), true) = (about, every.iter().all(|way| !way.meant)) {
            let failure = Failure::new(name, "no service or server is called so", "`dirigent server list` names them");
            return Err(Failure { code: code::ABSENT, ..failure });
        }
        let along = every.iter().filter(|way| way.meant).filter_map(|way| way.job.as_ref());
        self.set_examined(along.filter_map(|job| Some((job.along?, job.to.is_ipv6()))).collect())?;
        let hops: HashMap<_, _> = self.network.hops().map(|(ip, hop)| (*ip, *hop)).collect();
        let source = |ip: &IpAddr| Some((*ip, self.source_towards(*ip)?));
        Ok(Subject {
            model: self.configured().clone(),
            sources: hops.keys().filter_map(source).collect(),
            interfaces: self.clients_interfaces(),
            bare,
            without_xdp: self.without_xdp(),
            lacking: self.lacking(),
            trier: self.health.trier(),
            hops,
            every,
            status: self.status()?,
            known: self.known()?,
            host: snapshot(self.network.watcher())?,
            about: about.map(str::to_owned),
        })
    }

    /// He has done.
    pub fn end_examination(&mut self, learned: Learned) {
        self.unclaimed(&learned.unclaimed);
        if let Some(netfilter) = learned.netfilter {
            self.set_netfilter(netfilter);
        }
        if let Err(failure) = self.set_examined(Default::default()) {
            tracing::warn!("after an examination: {failure}");
        }
    }
}

/// All of it.
pub async fn examine(subject: &Subject) -> (Diagnosis, Learned) {
    let links::Looked { mut findings, faulty } = links::look(subject);
    let whole = subject.about.is_none();
    let before = clients::counts(subject).await;
    let by_cpu = spread::counts(subject).await;
    let ears = answers::Ears::open(subject);
    let tries = async {
        let tried = paths::try_all(subject).await;
        (tried, ears.close().await)
    };
    let ((tried, answers), asked, answering, netfilter, offloaded) = tokio::join!(
        tries,
        addresses::look(subject),
        servers::ask(subject),
        firewall::read(whole),
        links::offloaded(subject),
    );
    let addresses::Asked { findings: claimed, twice, unclaimed } = asked;
    let (of_servers, mut blamed) = servers::judge(subject, &tried, answering, &faulty).await;
    blamed.extend(subject.sources.iter().filter(|(_, own)| twice.contains(own)).map(|(server, _)| *server));
    let heard = servers::heard(subject, &tried, &blamed).await;
    findings.extend(answers::judge(subject, &tried, &answers, &blamed));
    let (paths, of_ways) = paths::judge(subject, tried, &blamed, &heard, &answers);
    findings.extend(offloaded);
    findings.extend(of_servers);
    findings.extend(of_ways);
    findings.extend(claimed);
    if whole {
        findings.extend(host::look(subject));
        findings.extend(clients::look(subject, &before, &clients::counts(subject).await));
        findings.extend(spread::look(subject, by_cpu.as_ref(), spread::counts(subject).await.as_ref()));
    }
    if let Some(netfilter) = &netfilter {
        findings.extend(firewall::look(subject, netfilter));
    }
    let known = known::look(subject, &findings, &blamed, &paths, &unclaimed).await;
    findings.extend(known);
    if findings.iter().any(|finding| finding.name == clients::NO_WAY) {
        // Which is why they are dropped.
        findings.retain(|finding| finding.place != clients::UNROUTABLE);
    }
    findings.sort_by_key(|finding| finding.severity != ERROR);
    (Diagnosis { findings, paths }, Learned { unclaimed, netfilter })
}

/// A command on a server.
fn on_server(server: IpAddr, command: String) -> HostCommand {
    HostCommand { host: server.to_string(), command }
}

/// A command on this host.
fn here(command: String) -> HostCommand {
    HostCommand { host: "director".into(), command }
}

/// A kernel parameter as people write it.
fn dotted(name: &str) -> String {
    name.replace('/', ".")
}

/// Sets kernel parameters: the commands, and what `--fix` does.
fn set(names: &[String], value: &str) -> (Vec<HostCommand>, Vec<Parameter>) {
    let set = |name: &String| {
        let command = here(format!("sysctl -w {}={value}", dotted(name)));
        (command, Parameter { name: name.clone(), value: value.into() })
    };
    names.iter().map(set).unzip()
}

/// The names of a kernel parameter of IPv4, of all interfaces and of this one, where its value is such. (Names have
/// slashes, for interfaces' names may hold dots.)
fn parameters(interface: &str, key: &str, such: impl Fn(&str) -> bool) -> Vec<String> {
    let names = ["all", interface].map(|of| format!("net/ipv4/conf/{of}/{key}"));
    names.into_iter().filter(|name| sysctl::get(name).is_ok_and(|value| such(&value))).collect()
}

/// What parameters are, as evidence.
fn read_out(names: &[String]) -> Vec<String> {
    let line = |name: &String| Some(format!("{} = {}", dotted(name), sysctl::get(name).ok()?));
    names.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    /// Each row of docs/doctor.md is a finding's name somewhere here. (That each finding has a row, tests/doctor.rs sees.)
    #[test]
    fn documented_findings_are_made() {
        let sources = [
            include_str!("doctor/addresses.rs"),
            include_str!("doctor/answers.rs"),
            include_str!("doctor/clients.rs"),
            include_str!("doctor/firewall.rs"),
            include_str!("doctor/host.rs"),
            include_str!("doctor/known.rs"),
            include_str!("doctor/links.rs"),
            include_str!("doctor/paths.rs"),
            include_str!("doctor/servers.rs"),
            include_str!("doctor/spread.rs"),
            include_str!("suspicion.rs"),
        ];
        let table = include_str!("../../../../docs/doctor.md");
        let rows = table.lines().filter(|line| line.contains("` | error |") || line.contains("` | warning |"));
        let names: Vec<&str> = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
        assert!(names.len() > 25, "{names:?}");
        for name in names {
            let literal = format!("\"{name}\"");
            assert!(sources.iter().any(|source| source.contains(&literal)), "nothing is called {name}");
        }
    }
}
