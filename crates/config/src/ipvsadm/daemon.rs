//! IPVS's two daemons of synchronisation, a master and a backup. One `[sync]` stands for both: its role
//! says which of them run.

use crate::error::IpvsError;
use crate::failover::{Sync, SyncRole};
use crate::model::{Model, Service};
use dirigent_api::Synchronisation;
use std::fmt;
use std::net::IpAddr;

/// What is said to the start of one on an interface that is not there (ENODEV).
pub const NO_DEVICE: &str = "No such device";

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// It tells of connections.
    Master,
    /// It learns them.
    Backup,
}

impl Daemon {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Master, Self::Backup];
    /// `master` or `backup`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
        }
    }
    /// What its name says.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|daemon| daemon.name() == name)
    }
    /// The role of one that runs alone.
    fn role(self) -> SyncRole {
        match self {
            Self::Master => SyncRole::Master,
            Self::Backup => SyncRole::Backup,
        }
    }
    /// The role of the other alone.
    fn others(self) -> SyncRole {
        match self {
            Self::Master => SyncRole::Backup,
            Self::Backup => SyncRole::Master,
        }
    }
}

/// What messages go by: what ipvsadm can say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// `--mcast-interface`.
    pub interface: String,
    /// `--syncid`.
    pub id: u8,
    /// `--sync-maxlen`; none: as the MTU lets it.
    pub maxlen: Option<u16>,
    /// `--mcast-group`.
    pub group: IpAddr,
    /// `--mcast-port`.
    pub port: u16,
    /// `--mcast-ttl`.
    pub ttl: u8,
}

impl Default for Link {
    fn default() -> Self {
        let Sync { id, maxlen, group, port, ttl, .. } = Sync::default();
        Self { interface: "eth0".into(), id, maxlen, group, port, ttl }
    }
}

impl Link {
    fn of(sync: &Sync) -> Self {
        let Sync { id, maxlen, group, port, ttl, .. } = *sync;
        Self { interface: sync.interface.clone().unwrap_or_default(), id, maxlen, group, port, ttl }
    }
    /// That of `sync`, with this instead; what ipvsadm cannot say stays.
    fn put(&self, sync: Sync) -> Sync {
        let Self { interface, id, maxlen, group, port, ttl } = self.clone();
        Sync { interface: Some(interface), id, maxlen, group, port, ttl, ..sync }
    }
}

/// As ipvsadm's options.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--mcast-interface {} --syncid {}", self.interface, self.id)?;
        if let Some(maxlen) = self.maxlen {
            write!(f, " --sync-maxlen {maxlen}")?;
        }
        write!(f, " --mcast-group {} --mcast-port {} --mcast-ttl {}", self.group, self.port, self.ttl)
    }
}

/// Starts a daemon.
pub fn start(model: &mut Model, daemon: Daemon, link: &Link) -> Result<(), IpvsError> {
    // No record can say that a server has another family than its service.
    let mixed = |s: &Service| s.servers.iter().any(|server| server.address.is_ipv6() != s.key.is_ipv6());
    if model.services().iter().any(mixed) {
        return Err(IpvsError::MixedFamilies);
    }
    let now = model.failover().sync.clone().unwrap_or(Sync { role: SyncRole::None, ..Sync::default() });
    let role = match now.role {
        SyncRole::None => daemon.role(),
        other if other == daemon.others() => SyncRole::Both,
        _ => return Err(IpvsError::DaemonRuns),
    };
    if role == SyncRole::Both && Link::of(&now) != *link {
        return Err(IpvsError::OtherDaemon { runs: Link::of(&now).to_string() });
    }
    set(model, Some(Sync { role, ..link.put(now) }))
}

/// Stops a daemon.
pub fn stop(model: &mut Model, daemon: Daemon) -> Result<(), IpvsError> {
    let now = model.failover().sync.clone().filter(|sync| sync.role.is(daemon.role()));
    let now = now.ok_or(IpvsError::NoDaemon)?;
    if let Some(router) = now.router {
        return Err(IpvsError::RouterSynchronises { router });
    }
    let role = if now.role == SyncRole::Both { daemon.others() } else { SyncRole::None };
    // Of what ipvsadm cannot say there may be something to keep for the next start.
    let made_by_start = Link::of(&now).put(Sync { role: now.role, ..Sync::default() }) == now;
    set(model, (role != SyncRole::None || !made_by_start).then_some(Sync { role, ..now }))
}

fn set(model: &mut Model, sync: Option<Sync>) -> Result<(), IpvsError> {
    let mut failover = model.failover().clone();
    failover.sync = sync;
    model.set_failover(failover)
}

/// `-L --daemon`.
pub fn list(sync: Option<&Synchronisation>) -> String {
    let Some(s) = sync else { return String::new() };
    let role = SyncRole::ALL.into_iter().find(|role| role.name() == s.role).unwrap_or(SyncRole::None);
    let line = |daemon: Daemon| {
        let interface = s.interface.as_deref().unwrap_or_default();
        let Synchronisation { id, maxlen, group, port, ttl, .. } = s;
        format!(
            "{} sync daemon (mcast={interface}, syncid={id}, maxlen={maxlen}, group={group}, port={port}, ttl={ttl})\n",
            daemon.name()
        )
    };
    Daemon::ALL.into_iter().filter(|daemon| role.is(daemon.role())).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    /// What a line does to a Model, or what ipvsadm says to it.
    fn told(model: &mut Model, line: &str) -> Result<(), String> {
        let command = Command::parse(line).map_err(|e| e.message)?.unwrap();
        // As it goes to a daemon and into the history.
        assert_eq!(Command::parse(&command.to_string()).unwrap(), Some(command.clone()), "{line}");
        command.apply(model).map_err(|e| e.to_string())
    }

    fn role(model: &Model) -> Option<SyncRole> {
        model.failover().sync.as_ref().map(|sync| sync.role)
    }

    #[test]
    fn daemons_start_and_stop_one_by_one() {
        let mut model = Model::default();
        let start = "--start-daemon master --mcast-interface eth1 --syncid 7 --sync-maxlen 1000";
        assert_eq!(told(&mut model, "--stop-daemon master"), Err("No daemon is running".into()));
        told(&mut model, start).unwrap();
        let sync = model.failover().sync.clone().unwrap();
        assert_eq!((sync.interface.as_deref(), sync.id, sync.maxlen), (Some("eth1"), 7, Some(1000)));
        assert_eq!(told(&mut model, start), Err("Daemon has already run".into()));
        // One [sync] stands for both.
        let other = told(&mut model, "--start-daemon backup --mcast-interface eth1 --syncid 8").unwrap_err();
        assert!(other.contains("--syncid 7"), "{other}");
        told(&mut model, &start.replace("master", "backup")).unwrap();
        assert_eq!(role(&model), Some(SyncRole::Both));
        told(&mut model, "--stop-daemon master").unwrap();
        assert_eq!(role(&model), Some(SyncRole::Backup));
        told(&mut model, "--stop-daemon backup").unwrap();
        assert_eq!(role(&model), None);
    }

    #[test]
    fn what_ipvsadm_cannot_say_outlasts_a_stop() {
        let text = "version = 1\n[sync]\ninterface = \"eth1\"\nkey = \"0123456789abcdef\"\n";
        let mut model = crate::file::parse("f", text).unwrap();
        for daemon in ["master", "backup"] {
            told(&mut model, &format!("--stop-daemon {daemon}")).unwrap();
        }
        assert_eq!(role(&model), Some(SyncRole::None));
        assert_eq!(model.failover().synchronised(), None);
        told(&mut model, "--start-daemon master --mcast-interface eth1").unwrap();
        assert!(model.failover().synchronised().unwrap().key.is_some());
    }

    #[test]
    fn a_server_of_another_family_keeps_daemons_out() {
        let mut model = Model::default();
        told(&mut model, "-A -t 192.0.2.10:80").unwrap();
        told(&mut model, "-a -t 192.0.2.10:80 -r [2001:db8::2]:80 -i").unwrap();
        let refused = told(&mut model, "--start-daemon master").unwrap_err();
        assert!(refused.starts_with("Invalid operation"), "{refused}");
    }

    #[test]
    fn the_list_has_the_master_first() {
        let mut sync = Synchronisation {
            role: "both".into(),
            interface: Some("eth1".into()),
            id: 7,
            maxlen: 1472,
            group: "224.0.0.81".into(),
            port: 8848,
            ttl: 1,
            ..Synchronisation::default()
        };
        let rest = "sync daemon (mcast=eth1, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n";
        assert_eq!(list(Some(&sync)), format!("master {rest}backup {rest}"));
        sync.role = "backup".into();
        assert_eq!(list(Some(&sync)), format!("backup {rest}"));
        assert_eq!(list(None), "");
    }
}
