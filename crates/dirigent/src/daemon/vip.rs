//! Virtual addresses that the daemon manages: added, announced, removed. What it added is recorded, so that it is
//! removed by whoever removes the director, also after a crash.

use super::lock::DIRECTORY;
use crate::failure::{Failure, Result};
use dirigent_api::VirtualAddress;
use dirigent_config::Model;
use dirigent_net::{Snapshot, vip};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Announcements are repeated this often, as frames may be lost.
const ANNOUNCEMENTS: u8 = 3;

/// What is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The network namespace the addresses are in.
    namespace: u64,
    /// The addresses that the daemon added.
    added: BTreeSet<IpAddr>,
}

/// The addresses a daemon manages.
#[derive(Debug)]
pub struct Vips {
    file: PathBuf,
    record: Record,
    wanted: BTreeSet<IpAddr>,
    due: Vec<(IpAddr, u8)>,
}

/// The record of an instance.
pub fn file(instance: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{instance}.vips"))
}

fn namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |m| m.ino())
}

fn load(file: &Path) -> Result<Record> {
    let text = match fs::read_to_string(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
        other => other.map_err(|e| Failure::io(file.display().to_string(), &e))?,
    };
    // A record that was cut short is as good as none: the addresses then stay.
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

impl Vips {
    /// What an earlier daemon of this name added here.
    pub fn open(instance: &str) -> Result<Self> {
        let file = file(instance);
        let mut record = load(&file)?;
        if record.namespace != namespace() {
            record = Record { namespace: namespace(), added: BTreeSet::new() };
        }
        Ok(Self { file, record, wanted: BTreeSet::new(), due: Vec::new() })
    }

    /// Adds what the Model wants managed, and removes what it no longer does.
    pub fn follow(&mut self, model: &Model) -> Result<()> {
        let all = super::config::virtual_addresses(model).into_iter();
        self.wanted = all.filter_map(|(ip, managed)| managed.then_some(ip)).collect();
        let gone: Vec<_> = self.record.added.difference(&self.wanted).copied().collect();
        for ip in &gone {
            vip::remove(*ip)?;
            tracing::info!(
                event = "address_removed", address = %ip, device = "lo", "removed the virtual address {ip}"
            );
            self.record.added.remove(ip);
        }
        if !gone.is_empty() {
            self.save()?;
        }
        self.hold()
    }

    /// Adds again what someone else removed.
    pub fn hold(&mut self) -> Result<()> {
        let mut new: BTreeSet<_> = self.wanted.difference(&self.record.added).copied().collect();
        if !new.is_empty() {
            Snapshot::take()?.addresses.iter().for_each(|address| _ = new.remove(&address.ip));
        }
        if !new.is_empty() {
            // Recorded first: after a crash between the two they are removed all the same.
            self.record.added.extend(new);
            self.save()?;
        }
        for ip in self.wanted.clone() {
            if self.record.added.contains(&ip) && vip::add(ip)? {
                tracing::info!(
                    event = "address_added", address = %ip, device = "lo", "added the virtual address {ip} to lo"
                );
                self.due.push((ip, ANNOUNCEMENTS));
            }
        }
        Ok(())
    }

    /// Announces all again: a link came back, and who is behind it may have forgotten.
    pub fn renew(&mut self) {
        let held = self.record.added.intersection(&self.wanted);
        self.due = held.map(|ip| (*ip, ANNOUNCEMENTS)).collect();
    }

    /// Whether an announcement is due.
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Announces what is new on these interfaces.
    pub fn announce<'a>(&mut self, interfaces: impl Iterator<Item = &'a str> + Clone) {
        for (ip, left) in &mut self.due {
            for interface in interfaces.clone() {
                if let Err(error) = vip::announce(interface, *ip) {
                    tracing::warn!("announcing {ip} on {interface}: {error}");
                }
            }
            *left = left.saturating_sub(1);
        }
        self.due.retain(|(_, left)| *left > 0);
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_string(&self.record).map_err(|e| Failure::new("JSON", e.to_string(), ""))?;
        fs::write(&self.file, text).map_err(|e| Failure::io(self.file.display().to_string(), &e))
    }
}

/// For the status.
pub fn report(model: &Model, snapshot: &Snapshot) -> Vec<VirtualAddress> {
    // There may be ten thousand of each.
    let holders = vip::holders(snapshot);
    let one = |(ip, managed): (IpAddr, bool)| {
        let holder = holders.get(&ip).map(|link| (*link).to_owned());
        let holder = holder.or_else(|| snapshot.is_local(ip).then(|| "a local route".to_owned()));
        VirtualAddress { address: ip.to_string(), managed, holder }
    };
    super::config::virtual_addresses(model).into_iter().map(one).collect()
}

/// Removes what a daemon of this name added, if it is in this network namespace. Says what it did.
pub fn release_recorded(instance: &str) -> Result<Vec<String>> {
    let file = file(instance);
    let record = load(&file)?;
    let mut done = Vec::new();
    if record.namespace == namespace() {
        for ip in &record.added {
            if vip::remove(*ip)? {
                done.push(format!("removed the virtual address {ip}"));
            }
        }
    }
    match fs::remove_file(&file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::io(file.display().to_string(), &e)),
        _ => Ok(done),
    }
}
