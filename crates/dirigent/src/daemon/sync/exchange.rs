//! What is said and heard with one configuration: socket, and the two state machines between it and the tables.

use super::tables::{Heard, Tables};
use crate::failure::{Failure, Result};
use dirigent_api::{SyncPeer, Synchronisation};
use dirigent_config::failover::{Sync as Config, SyncRole};
use dirigent_net::sync::{Ends, SyncSocket, source_towards};
use dirigent_net::{Netlink, Snapshot};
use dirigent_sync::auth::Key;
use dirigent_sync::backup::Owner;
use dirigent_sync::machine::{
    Backup, BackupAction, BackupConfig, Identity, Master, MasterAction, MasterConfig, Page, PeerMetrics, To,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Bytes of the headers before a datagram.
const HEADERS: (usize, usize) = (28, 48);
/// Of a link, and where none says.
const USUAL_MTU: usize = 1500;
/// How long a datagram waits for more to tell. The kernel's waits for two seconds, in which a failover costs all that is in it.
const FLUSH_AFTER_MS: u64 = 5;
/// Datagrams that are taken before others have their turn.
const TURN: usize = 512;

/// See the module.
pub struct Exchange {
    config: Config,
    identity: Identity,
    socket: SyncSocket,
    /// Of a backup, it has nothing to tell, but says hello: a backup that did not is answered by nobody.
    master: Master,
    backup: Option<Backup>,
    /// Which peers were whole when we last looked.
    whole: BTreeMap<u32, bool>,
    /// Longest datagram.
    maxlen: usize,
    /// What went wrong with the socket last.
    trouble: Option<String>,
}

/// A node's number from its address, which no other has.
fn number(ip: IpAddr) -> u32 {
    let number = match ip {
        IpAddr::V4(ip) => u32::from(ip),
        // FNV-1a: addresses of one network differ in few bits.
        IpAddr::V6(ip) => {
            ip.octets().iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
        }
    };
    number.max(1)
}

impl Exchange {
    /// Opens the socket. `boot`: the daemon's start, milliseconds since 1970; `now_ms`: the clock of all that follows.
    pub fn open(config: &Config, tables: &mut Tables, boot: u64, now_ms: u64) -> Result<Self> {
        let v6 = config.peers.first().unwrap_or(&config.group).is_ipv6();
        let own = Snapshot::read_own(&mut Netlink::route()?)?;
        let link = match &config.interface {
            Some(name) => {
                let missing = || Failure::new("sync", format!("there is no interface {name}"), "it is waited for");
                Some(own.links.values().find(|link| link.name == *name).ok_or_else(missing)?)
            }
            None => None,
        };
        let here = match (&link, config.peers.first()) {
            (Some(link), _) => {
                let on = own.addresses.iter().filter(|a| a.ifindex == link.index && a.ip.is_ipv6() == v6);
                on.map(|a| a.ip).next()
            }
            (None, Some(peer)) => source_towards(*peer),
            (None, None) => None,
        };
        let family = if v6 { "IPv6" } else { "IPv4" };
        let nameless = || {
            let what = format!("this host has no {family} address to send from");
            Failure::new("sync", what, "give its interface one; it is waited for")
        };
        let here = here.ok_or_else(nameless)?;
        let identity = Identity { node: number(here), boot, epoch: tables.epoch().min(boot) };
        let headers = if v6 { HEADERS.1 } else { HEADERS.0 };
        // Kernels' backups take no longer ones, whatever the MTU here.
        let length = link.map_or(USUAL_MTU, |link| USUAL_MTU.min(link.mtu as usize)).saturating_sub(headers);
        let socket = SyncSocket::open(Ends {
            interface: link.map(|link| (link.name.clone(), link.index)),
            group: config.group,
            port: config.port,
            ttl: config.ttl,
            peers: config.peers.clone(),
        })?;
        let short = || Failure::new("sync.key", "the key is too short", "give it 16 bytes at least");
        let key = || match &config.key {
            Some(key) => Key::new(key.0.as_bytes()).map(Some).ok_or_else(short),
            None => Ok(None),
        };
        let maxlen = config.maxlen.map_or(length, usize::from);
        let master = MasterConfig {
            max_len: maxlen,
            flush_after_ms: FLUSH_AFTER_MS,
            key: key()?,
            ..MasterConfig::new(identity, config.id)
        };
        let backup = BackupConfig {
            sources: config.peers.clone(),
            plain: config.key.is_none(),
            key: key()?,
            first_mark: tables.greatest_mark()?,
            ..BackupConfig::new(identity, config.id)
        };
        tables.templates_only = config.persist_mode;
        Ok(Self {
            socket,
            identity,
            master: Master::new(master, now_ms),
            backup: (config.role != SyncRole::Master).then(|| Backup::new(backup)),
            config: config.clone(),
            whole: BTreeMap::new(),
            maxlen,
            trouble: None,
        })
    }

    /// Whether it tells its connections.
    fn tells(&self) -> bool {
        self.config.role != SyncRole::Backup
    }

    /// Waits until something was sent here.
    pub async fn readable(&self) {
        self.socket.readable().await;
    }

    /// Takes what was sent here, for a turn.
    pub fn hear(&mut self, tables: &mut Tables, now_ms: u64) -> Result<()> {
        let Self { socket, master, backup, .. } = self;
        socket.take(TURN, |from, bytes| {
            // What is refused is counted there.
            let _ = master.on_datagram(now_ms, from, bytes);
            if let Some(backup) = backup {
                let _ = backup.on_datagram(now_ms, from, bytes);
            }
        });
        self.act(tables, now_ms)
    }

    /// Packets said that these have changed.
    pub fn tell(&mut self, news: &[dirigent_datapath::control::Flow], tables: &mut Tables, now_ms: u64) -> Result<()> {
        if !self.tells() {
            return Ok(());
        }
        for record in tables.records(news)? {
            self.master.send(now_ms, dirigent_sync::machine::Whose::Own, &record);
        }
        self.act(tables, now_ms)
    }

    /// Time has passed.
    pub fn poll(&mut self, tables: &mut Tables, now_ms: u64) -> Result<()> {
        self.master.poll(now_ms);
        if let Some(backup) = &mut self.backup {
            backup.poll(now_ms);
        }
        self.act(tables, now_ms)
    }

    /// When that is due next.
    pub fn due_ms(&self, now_ms: u64) -> Option<u64> {
        let backup = self.backup.as_ref().and_then(|backup| backup.next_poll_ms(now_ms));
        self.master.next_poll_ms().into_iter().chain(backup).min()
    }

    fn act(&mut self, tables: &mut Tables, now_ms: u64) -> Result<()> {
        while let Some(action) = self.master.next_action() {
            match action {
                MasterAction::Send { to, datagram } => self.send(to, &datagram),
                MasterAction::Iterate { cursor, at_most } => {
                    let page = if self.tells() { tables.page(cursor, at_most)? } else { Page::default() };
                    self.master.page(now_ms, cursor, page);
                }
            }
        }
        // Settings and time are read once for all that was heard.
        let mut moment = None;
        while let Some(action) = self.backup.as_mut().and_then(Backup::next_action) {
            let moment = match &mut moment {
                Some(moment) => moment,
                none => none.insert(tables.moment()?),
            };
            match action {
                BackupAction::Send { to, datagram } => self.send(to, &datagram),
                BackupAction::Delete { origin, key } => tables.delete(origin, &key, moment)?,
                BackupAction::Sweep { origin, epoch, mark } => tables.sweep(origin, epoch, mark)?,
                BackupAction::Apply { origin, mark, record, idle_ms, seen_by } => {
                    let heard = Heard { origin, mark, record: &record, idle_ms, seen_by };
                    let ignored = tables.apply(&heard, moment, self.identity.node, self.config.threshold)?;
                    if let (Some(reason), Some(backup)) = (ignored, &mut self.backup) {
                        backup.ignored(reason);
                    }
                }
            }
        }
        tables.finish()
    }

    fn send(&mut self, to: To, datagram: &[u8]) {
        let sent = match to {
            To::Group => self.socket.send_to_all(datagram),
            To::Peer(at) => self.socket.send(at, datagram),
        };
        let trouble = sent.err().map(|error| error.to_string());
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            tracing::warn!("synchronisation: {trouble}");
        }
        self.trouble = trouble;
    }

    /// How it is, once a second.
    pub fn report(&mut self, tables: &Tables, now_ms: u64) -> Synchronisation {
        let own = tables.own();
        self.master.set_connections(if self.tells() { own } else { 0 });
        let peers: Vec<PeerMetrics> = self.backup.iter().flat_map(|backup| backup.peers(now_ms)).collect();
        let mut dropped = BTreeMap::new();
        if let Some(backup) = &mut self.backup {
            for peer in &peers {
                backup.set_known(peer.origin, tables.learned_from(peer.origin.node));
            }
            let counts = backup.metrics().dropped.iter().filter(|(_, count)| *count > 0);
            dropped.extend(counts.map(|(reason, count)| (reason.name().to_owned(), count)));
        }
        for peer in &peers {
            let before = self.whole.insert(peer.origin.node, peer.whole);
            let node = Ipv4Addr::from(peer.origin.node);
            if before != Some(peer.whole) {
                let known = if peer.whole { "known here" } else { "being learned" };
                tracing::info!(
                    event = "sync_peer", %node, whole = peer.whole,
                    "synchronisation: the connections of node {node} are {known}"
                );
            }
        }
        let done = tables.done;
        for (name, count) in [
            ("entry_changed", done.changed),
            ("reply_taken", done.taken),
            ("table_full", done.full),
            ("server_gone", done.refused),
        ] {
            if count > 0 {
                dropped.insert(name.to_owned(), count);
            }
        }
        let peer = |p: &PeerMetrics| SyncPeer {
            node: Ipv4Addr::from(p.origin.node).to_string(),
            address: p.from.ip().to_string(),
            whole: p.whole,
            known: p.known,
            expected: p.expected,
            lag_ms: p.lag_ms,
            silent_ms: p.silent_ms,
            gaps: p.gaps,
            repaired: p.repaired,
            lost: p.lost,
        };
        Synchronisation {
            node: Ipv4Addr::from(self.identity.node).to_string(),
            maxlen: u16::try_from(self.maxlen).unwrap_or(u16::MAX),
            own,
            kernels: tables.learned_from(Owner::KERNEL),
            sent: self.master.metrics().records,
            received: self.backup.as_ref().map_or(0, |backup| backup.metrics().records),
            applied: done.done,
            dropped,
            peers: peers.iter().map(peer).collect(),
            trouble: self.trouble.clone(),
            ..configured(&self.config)
        }
    }
}

/// As long as nothing else is known.
pub fn configured(config: &Config) -> Synchronisation {
    Synchronisation {
        role: config.role.name().to_owned(),
        interface: config.interface.clone(),
        id: config.id,
        maxlen: config.maxlen.unwrap_or((USUAL_MTU - HEADERS.0) as u16),
        group: config.group.to_string(),
        port: config.port,
        ttl: config.ttl,
        ..Synchronisation::default()
    }
}
