//! IPVS's two daemons of synchronisation, a master and a backup. One `[sync]` stands for both: its role
//! says which of them run.

use crate::error::IpvsError;
use crate::failover::{Sync, SyncRole};
use crate::model::{Model, Service};
use dirigent_api::Synchronisation;
use std::fmt;
use std::net::IpAddr;

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
    let mut out = String::new();
    for s in sync {
        let role = SyncRole::ALL.into_iter().find(|role| role.name() == s.role).unwrap_or(SyncRole::None);
        for daemon in Daemon::ALL.into_iter().filter(|daemon| role.is(daemon.role())) {
            out += &format!(
                "{} sync daemon (mcast={}, syncid={}, maxlen={}, group={}, port={}, ttl={})\n",
                daemon.name(),
                s.interface.as_deref().unwrap_or_default(),
                s.id,
                s.maxlen,
                s.group,
                s.port,
                s.ttl
            );
        }
    }
    out
}
