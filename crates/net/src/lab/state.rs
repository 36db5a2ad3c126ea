//! The record of a lab, `/run/dirigent/lab/NAME.json`: written before anything is made, so that `down` finds it all after
//! a crash at any moment.

use super::process::{Identity, ProcessRecord};
use super::spec::LabSpec;
use crate::error::{Context, Error, Result};
use crate::netns;
use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where labs are recorded.
pub const DIRECTORY: &str = "/run/dirigent/lab";
const VERSION: u32 = 1;

/// How far a lab has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Being built, or left half-built by a crash.
    Building,
    /// Complete.
    Up,
}

/// A host and its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostRecord {
    pub(crate) host: String,
    pub(crate) namespace: String,
}

/// Everything that was made for a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    pub(crate) spec: LabSpec,
    pub(crate) phase: Phase,
    /// The process that builds it, and without whom a test's lab is stale.
    pub(crate) builder: Identity,
    /// The lab lives no longer than its builder.
    pub(crate) owned: bool,
    pub(crate) hosts: Vec<HostRecord>,
    pub(crate) processes: Vec<ProcessRecord>,
}

impl State {
    pub(crate) fn new(spec: &LabSpec, hosts: impl Iterator<Item = String>, owned: bool) -> Result<Self> {
        let record = |host: String| HostRecord { namespace: format!("{}-{host}", spec.name), host };
        Ok(State {
            version: VERSION,
            spec: spec.clone(),
            phase: Phase::Building,
            builder: Identity::of_this_process()?,
            owned,
            hosts: hosts.map(record).collect(),
            processes: Vec::new(),
        })
    }

    /// The namespace of a host.
    pub(crate) fn namespace(&self, host: &str) -> Result<String> {
        let found = self.hosts.iter().find(|record| record.host == host);
        found.map(|record| record.namespace.clone()).ok_or_else(|| {
            let names: Vec<_> = self.hosts.iter().map(|record| record.host.as_str()).collect();
            Error::refused(
                format!("lab {} has no host {host:?}", self.spec.name),
                format!("its hosts are {}", names.join(", ")),
            )
        })
    }

    /// Writes the first record of a lab; refuses when there is one of that name.
    pub(crate) fn create(&self) -> Result<()> {
        let _lock = lock()?;
        if let Some(other) = read(&self.spec.name)? {
            return Err(other.in_the_way());
        }
        write(self)
    }

    fn in_the_way(&self) -> Error {
        let name = &self.spec.name;
        let what = match (self.phase, self.builder.is_alive()) {
            (Phase::Up, _) => format!("lab {name} is up already"),
            (Phase::Building, true) => format!("lab {name} is just being built by process {}", self.builder.pid),
            (Phase::Building, false) => format!("lab {name} was left unfinished by a crash"),
        };
        Error::refused(what, format!("run `dirigent lab down --name {name}` first, or choose another --name"))
    }

    /// Reads the record of a lab.
    pub(crate) fn load(name: &str) -> Result<Option<Self>> {
        check_name(name)?;
        read(name)
    }

    /// Changes the record of a lab under the lock. Nothing happens when the lab is gone.
    pub(crate) fn update(name: &str, change: impl FnOnce(&mut State)) -> Result<()> {
        let _lock = lock()?;
        let Some(mut state) = read(name)? else { return Ok(()) };
        change(&mut state);
        write(&state)
    }

    /// Removes the record and the logs.
    pub(crate) fn remove(name: &str) -> Result<()> {
        let _lock = lock()?;
        for result in [fs::remove_dir_all(log_directory(name)), fs::remove_file(file(name))] {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context(|| format!("removing the record of lab {name} in {DIRECTORY}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The names of all recorded labs.
    pub(crate) fn names() -> Result<Vec<String>> {
        let entries = match fs::read_dir(DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context(|| format!("listing {DIRECTORY}"))?,
        };
        let files = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = files.filter_map(|f| f.strip_suffix(".json").map(String::from)).collect();
        names.sort();
        Ok(names)
    }
}

/// Where the output of a lab's processes goes.
pub(crate) fn log_directory(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn check_name(name: &str) -> Result<()> {
    LabSpec { name: name.to_string(), ..LabSpec::default() }.check()
}

fn file(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{name}.json"))
}

fn read(name: &str) -> Result<Option<State>> {
    let path = file(name);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| format!("reading {}", path.display()))?,
    };
    let unusable = |why: String| {
        Error::refused(
            format!("the record {} is not usable ({why})", path.display()),
            format!(
                "remove the namespaces {name}-* with `ip netns delete`, then the file; \
                 or use the version of dirigent that made it"
            ),
        )
    };
    let state: State = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    if state.version != VERSION {
        return Err(unusable(format!("version {}, not {VERSION}", state.version)));
    }
    Ok(Some(state))
}

/// Writes aside, then renames: a reader sees the old or the new record, never half of one.
fn write(state: &State) -> Result<()> {
    let path = file(&state.spec.name);
    let aside = path.with_extension("new");
    let text = serde_json::to_string_pretty(state)
        .map_err(|error| Error::malformed(format!("writing {}", path.display()), error.to_string()))?;
    fs::write(&aside, text).context(|| format!("writing {}", aside.display()))?;
    fs::rename(&aside, &path).context(|| format!("renaming to {}", path.display()))
}

fn lock() -> Result<Flock<File>> {
    fs::create_dir_all(DIRECTORY).context(|| format!("creating {DIRECTORY}"))?;
    netns::lock(Path::new(DIRECTORY), "waiting for the lock on the labs' records")
}
