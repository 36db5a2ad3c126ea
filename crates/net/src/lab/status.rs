//! What a lab looks like now.

use super::process::{Identity, ProcessRecord};
use super::spec::LabSpec;
use super::state::{HostRecord, Phase, State};
use crate::error::Result;
use crate::links::{self, mac_text};
use crate::netns::Namespace;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// A lab as it is found.
#[derive(Debug, Clone, Serialize)]
pub struct LabStatus {
    /// What it was built from.
    pub spec: LabSpec,
    /// How far it has come.
    pub phase: Phase,
    /// Its hosts.
    pub hosts: Vec<HostStatus>,
    /// The processes started in it.
    pub processes: Vec<ProcessStatus>,
}

/// A host as it is found.
#[derive(Debug, Clone, Serialize)]
pub struct HostStatus {
    /// Its name in the lab.
    pub host: String,
    /// The name of its namespace, for `ip netns exec`.
    pub namespace: String,
    /// The namespace is there.
    pub present: bool,
    /// Its interfaces but `lo`, unless `lo` has an address beyond its own.
    pub interfaces: Vec<InterfaceStatus>,
}

/// An interface as it is found.
#[derive(Debug, Clone, Serialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its MTU.
    pub mtu: u32,
    /// It is up and has a carrier.
    pub running: bool,
    /// Its addresses with their prefix lengths, without link-local ones.
    pub addresses: Vec<String>,
}

/// A process as it is found.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStatus {
    /// The host it was started on.
    pub host: String,
    /// What it was started as.
    pub label: String,
    /// Who it is.
    pub identity: Identity,
    /// Its command line.
    pub command: Vec<String>,
    /// Where its output goes.
    pub log: Option<PathBuf>,
    /// It still runs.
    pub running: bool,
}

impl LabStatus {
    pub(crate) fn of(state: &State) -> Result<Self> {
        let hosts = state.hosts.iter().map(host_status).collect::<Result<_>>()?;
        let processes = state.processes.iter().map(process_status).collect();
        Ok(LabStatus { spec: state.spec.clone(), phase: state.phase, hosts, processes })
    }

    /// Whether everything that was recorded is there.
    pub fn is_whole(&self) -> bool {
        self.phase == Phase::Up && self.hosts.iter().all(|host| host.present)
    }
}

fn host_status(record: &HostRecord) -> Result<HostStatus> {
    let present = Namespace::exists(&record.namespace);
    let interfaces = if present { Namespace::open(&record.namespace)?.run(interfaces)?? } else { Vec::new() };
    Ok(HostStatus { host: record.host.clone(), namespace: record.namespace.clone(), present, interfaces })
}

fn interfaces() -> Result<Vec<InterfaceStatus>> {
    let snapshot = links::Snapshot::take()?;
    let status = |link: &links::Link| InterfaceStatus {
        name: link.name.clone(),
        mac: link.mac.map(mac_text),
        mtu: link.mtu,
        running: link.running,
        addresses: snapshot
            .addresses
            .iter()
            .filter(|a| a.ifindex == link.index && a.is_global())
            .map(|a| format!("{}/{}", a.ip, a.prefix))
            .collect(),
    };
    let all = snapshot.links.values().map(status);
    Ok(all.filter(|interface| interface.name != "lo" || !interface.addresses.is_empty()).collect())
}

fn process_status(record: &ProcessRecord) -> ProcessStatus {
    ProcessStatus {
        host: record.host.clone(),
        label: record.label.clone(),
        identity: record.identity,
        command: record.command.clone(),
        log: record.log.clone(),
        running: record.identity.is_alive(),
    }
}

impl fmt::Display for LabStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arms = if self.spec.one_arm { "one arm" } else { "two arms" };
        let phase = match self.phase {
            Phase::Up if self.is_whole() => "up",
            Phase::Up => "damaged",
            Phase::Building => "not complete",
        };
        let spec = &self.spec;
        writeln!(f, "lab {}: {phase}, {arms}, {} servers", spec.name, spec.servers)?;
        let servers: Vec<_> = (1..=spec.servers).map(|k| spec.server(k).to_string()).collect();
        writeln!(f, "  client {}, virtual address {}, servers {}", spec.client(), spec.vip(), servers.join(" "))?;
        for host in &self.hosts {
            let missing = if host.present { "" } else { "  (missing)" };
            writeln!(f, "  {:<10} {}{missing}", host.host, host.namespace)?;
            for interface in &host.interfaces {
                let down = if interface.running { "" } else { "  down" };
                writeln!(
                    f,
                    "    {:<10} {:<17} mtu {}{down}  {}",
                    interface.name,
                    interface.mac.as_deref().unwrap_or("-"),
                    interface.mtu,
                    interface.addresses.join(" "),
                )?;
            }
        }
        for process in &self.processes {
            let word = if process.running { "running" } else { "ended" };
            let ProcessStatus { host, label, identity, command, .. } = process;
            let line = format!("  {label} on {host}: process {}, {word}: {}", identity.pid, command.join(" "));
            writeln!(f, "{}", shortened(line))?;
        }
        Ok(())
    }
}

/// At most a hundred columns of a line; JSON has all of it.
fn shortened(line: String) -> String {
    const MOST: usize = 100;
    match line.char_indices().nth(MOST) {
        Some(_) => line.chars().take(MOST - 1).chain(['…']).collect(),
        None => line,
    }
}
