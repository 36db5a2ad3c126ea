//! The backup: applies what kernels send as it comes, and what peers send in the order in which they
//! sent it; asks for what is missing, and for everything when it joins.

use super::limits::Bucket;
use super::peer::{Arrived, Ask, Held, Peer};
use super::{Identity, To};
use crate::auth;
use crate::extension::{self, Body, Origin, Seen, Stamp};
use crate::message::Datagram;
use crate::reason::{Counts, Reason};
use crate::record::{Key, Record};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// How a backup behaves.
#[derive(Clone, Debug)]
pub struct BackupConfig {
    /// Who this node is.
    pub identity: Identity,
    /// Sync id that is heard; 0: all.
    pub sync_id: u8,
    /// Addresses that are heard; none: all.
    pub sources: Vec<IpAddr>,
    /// Signs what it sends; of the extension, only what is signed is heard.
    pub key: Option<auth::Key>,
    /// Hear what has no stamp, as kernels send it. It cannot be signed.
    pub plain: bool,
    /// Hear and speak the extension. Without it, stamps are not looked at.
    pub extension: bool,
    /// Greater than the mark of any connection in the caller's table; 0 of an empty one.
    pub first_mark: u32,
    /// Most peers that speak the extension.
    pub peers: usize,
    /// Most addresses whose rate is limited apart.
    pub source_addresses: usize,
    /// Datagrams a second of one address.
    pub source_per_second: u64,
    /// Datagrams at once of one address.
    pub source_burst: u64,
    /// Most datagrams of one peer that wait for those before them.
    pub hold_datagrams: usize,
    /// Most bytes of them.
    pub hold_bytes: usize,
    /// Most datagrams that wait for the caller to take them with [`Backup::next_action`].
    pub queue_datagrams: usize,
    /// Numbers farther ahead than this are not waited for: what is before them is lost.
    pub window: u64,
    /// Time after which what was overtaken is missing.
    pub reorder_ms: u64,
    /// Time after which it is asked for again.
    pub repair_ms: u64,
    /// How often, before it is lost.
    pub repair_tries: u32,
    /// Time after which a bulk is asked for again.
    pub request_ms: u64,
    /// Time without news after which a bulk is taken to have stopped.
    pub bulk_timeout_ms: u64,
    /// Time after which a peer that is not heard may be replaced by another, or by an older start.
    pub peer_timeout_ms: u64,
}

impl BackupConfig {
    /// The usual: all sources, no key.
    pub fn new(identity: Identity, sync_id: u8) -> Self {
        Self {
            identity,
            sync_id,
            sources: Vec::new(),
            key: None,
            plain: true,
            extension: true,
            first_mark: 0,
            peers: 8,
            source_addresses: 64,
            source_per_second: 50_000,
            source_burst: 20_000,
            hold_datagrams: 4096,
            hold_bytes: 4 << 20,
            queue_datagrams: 4096,
            window: 1 << 16,
            reorder_ms: 20,
            repair_ms: 100,
            repair_tries: 10,
            request_ms: 1000,
            bulk_timeout_ms: 10_000,
            peer_timeout_ms: 10_000,
        }
    }
}

/// What the caller is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackupAction {
    /// Look the record up and do what [`crate::backup::decide`] says. If it is not ignored, the
    /// entry was learned from `origin` from now on, with that mark.
    Apply {
        /// Whom it is from.
        origin: Origin,
        /// To be kept in the entry, for [`BackupAction::Sweep`].
        mark: u32,
        /// The connection.
        record: Record,
        /// Milliseconds since its last packet was seen; 0 of kernels, which do not say.
        idle_ms: u64,
        /// By whom: the origin's node, or another for which it tells it.
        seen_by: u32,
    },
    /// The connection is no more, if it was learned from that node (whichever start of it). As any
    /// removal it is to be told to the master of this node, which knows whether to tell it on.
    Delete {
        /// Whom it is from.
        origin: Origin,
        /// Which one.
        key: Key,
    },
    /// All is known: connections that were learned from that node, from its start `epoch` on, and
    /// have an older mark than this one, are no more.
    Sweep {
        /// Whose.
        origin: Origin,
        /// From which start on.
        epoch: u64,
        /// The least mark (wrapping) of those that stay.
        mark: u32,
    },
    /// Send this datagram.
    Send {
        /// Where to.
        to: To,
        /// Its bytes.
        datagram: Vec<u8>,
    },
}

/// What is known of one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerMetrics {
    /// Which peer.
    pub origin: Origin,
    /// Where its last message came from.
    pub from: SocketAddr,
    /// All its connections are known, as of `lag_ms` ago.
    pub whole: bool,
    /// How many were learned from it and are there still, as the caller told
    /// ([`Backup::set_known`]).
    pub known: u64,
    /// How many it says it has.
    pub expected: u64,
    /// Milliseconds by which what was applied is older than what it has.
    pub lag_ms: u64,
    /// Milliseconds since it was heard.
    pub silent_ms: u64,
    /// Times that something was missing.
    pub gaps: u64,
    /// Datagrams that came when they were asked for.
    pub repaired: u64,
    /// Datagrams that never came.
    pub lost: u64,
}

/// What a backup has done.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Datagrams whose records were applied.
    pub datagrams: u64,
    /// Records read.
    pub records: u64,
    /// What was dropped, by reason.
    pub dropped: Counts,
}

enum Ready {
    Records { origin: Origin, mark: u32, late_ms: u64, bytes: Vec<u8> },
    Delete { origin: Origin, keys: Vec<Key> },
    Other(BackupAction),
}

struct Known {
    peer: Peer,
    known: u64,
}

/// See the module.
pub struct Backup {
    config: BackupConfig,
    peers: BTreeMap<u32, Known>,
    sources: HashMap<IpAddr, Bucket>,
    mark: u32,
    /// Number of the last request.
    asked: u64,
    ready: VecDeque<Ready>,
    ready_bytes: usize,
    unpacked: VecDeque<BackupAction>,
    metrics: Metrics,
}

impl Backup {
    /// A backup that knows nobody.
    pub fn new(config: BackupConfig) -> Self {
        Self {
            peers: BTreeMap::new(),
            sources: HashMap::new(),
            mark: config.first_mark,
            asked: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            unpacked: VecDeque::new(),
            metrics: Metrics::default(),
            config,
        }
    }

    /// What is to be done next.
    pub fn next_action(&mut self) -> Option<BackupAction> {
        loop {
            if let Some(action) = self.unpacked.pop_front() {
                return Some(action);
            }
            match self.ready.pop_front()? {
                Ready::Other(action) => return Some(action),
                Ready::Delete { origin, keys } => {
                    self.unpacked.extend(keys.into_iter().map(|key| BackupAction::Delete { origin, key }));
                }
                Ready::Records { origin, mark, late_ms, bytes } => {
                    self.ready_bytes -= bytes.len();
                    self.unpack(origin, mark, late_ms, &bytes);
                }
            }
        }
    }

    fn unpack(&mut self, origin: Origin, mark: u32, late_ms: u64, bytes: &[u8]) {
        let Ok(datagram) = Datagram::parse(bytes) else { return };
        self.metrics.datagrams += 1;
        for record in datagram.records() {
            match record {
                Ok(record) => {
                    self.metrics.records += 1;
                    let recency = record.recency.unwrap_or_default();
                    let idle_ms = u64::from(recency.idle_ms).saturating_add(late_ms);
                    let seen_by = if recency.node == 0 { origin.node } else { recency.node };
                    self.unpacked.push_back(BackupAction::Apply { origin, mark, record, idle_ms, seen_by });
                }
                Err(reason) => self.metrics.dropped.add(reason),
            }
        }
    }

    /// What was done so far.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a record that the caller ignored, as [`crate::backup::decide`] said.
    pub fn ignored(&mut self, reason: Reason) {
        self.metrics.dropped.add(reason);
    }

    /// Each peer's.
    pub fn peers(&self, now_ms: u64) -> impl Iterator<Item = PeerMetrics> + '_ {
        self.peers.values().map(move |Known { peer, known }| {
            let silent_ms = now_ms.saturating_sub(peer.heard_ms);
            PeerMetrics {
                origin: peer.origin,
                from: peer.from,
                whole: peer.whole,
                known: *known,
                expected: peer.hello.connections,
                lag_ms: if peer.in_step() { peer.lag.delivery() } else { peer.lag.behind(now_ms) },
                silent_ms,
                gaps: peer.losses.gaps,
                repaired: peer.losses.repaired,
                lost: peer.losses.lost,
            }
        })
    }

    /// How many connections there are that were learned from a peer, for its [`PeerMetrics`].
    pub fn set_known(&mut self, origin: Origin, count: u64) {
        if let Some(k) = self.peers.get_mut(&origin.node).filter(|k| k.peer.origin == origin) {
            k.known = count;
        }
    }

    /// Bytes of datagrams that are kept for any reason.
    pub fn kept_bytes(&self) -> usize {
        self.ready_bytes + self.peers.values().map(|k| k.peer.held_bytes()).sum::<usize>()
    }

    /// A datagram was heard: of the group, or sent to this node.
    pub fn on_datagram(&mut self, now_ms: u64, from: SocketAddr, bytes: &[u8]) -> Result<(), Reason> {
        let result = self.hear(now_ms, from, bytes);
        if let Err(reason) = result {
            self.metrics.dropped.add(reason);
        }
        result
    }

    fn hear(&mut self, now_ms: u64, from: SocketAddr, bytes: &[u8]) -> Result<(), Reason> {
        self.admit(now_ms, from.ip())?;
        let datagram = Datagram::parse(bytes)?;
        if self.config.sync_id != 0 && datagram.sync_id() != self.config.sync_id {
            return Err(Reason::SyncId);
        }
        let seen = if self.config.extension { extension::parse(bytes, self.config.key.as_ref())? } else { Seen::Plain };
        let room = self.ready.len() < self.config.queue_datagrams;
        match seen {
            Seen::Plain if !self.config.plain => Err(Reason::Unauthentic),
            Seen::Plain if datagram.count() == 0 => Ok(()),
            Seen::Plain if !room => Err(Reason::Room),
            Seen::Plain => {
                self.ready_bytes += bytes.len();
                let (origin, mark) = (Origin::KERNEL, self.mark);
                self.ready.push_back(Ready::Records { origin, mark, late_ms: 0, bytes: bytes.to_vec() });
                Ok(())
            }
            Seen::Records(stamp) => self.numbered(now_ms, from, &stamp, bytes, room),
            Seen::Message(stamp, body) if body.numbered() => self.numbered(now_ms, from, &stamp, bytes, room),
            Seen::Message(stamp, body) => self.spoken(now_ms, from, &stamp, body, datagram.sync_id()),
        }
    }

    /// Whether the address may send, and how much.
    fn admit(&mut self, now_ms: u64, ip: IpAddr) -> Result<(), Reason> {
        if !self.config.sources.is_empty() && !self.config.sources.contains(&ip) {
            return Err(Reason::Source);
        }
        if !self.sources.contains_key(&ip) && self.sources.len() >= self.config.source_addresses {
            let idle = self.sources.iter().min_by_key(|(_, b)| b.used_ms()).map(|(ip, b)| (*ip, b.used_ms()));
            match idle {
                Some((idle, used)) if now_ms.saturating_sub(used) > 1000 => self.sources.remove(&idle),
                _ => return Err(Reason::Sources),
            };
        }
        let (rate, burst) = (self.config.source_per_second, self.config.source_burst);
        let bucket = self.sources.entry(ip).or_insert_with(|| Bucket::new(rate, burst, now_ms));
        if bucket.take(now_ms, 1) { Ok(()) } else { Err(Reason::Limit) }
    }

    fn numbered(
        &mut self,
        now_ms: u64,
        from: SocketAddr,
        stamp: &Stamp,
        bytes: &[u8],
        room: bool,
    ) -> Result<(), Reason> {
        if stamp.node == self.config.identity.node {
            return Err(Reason::Own);
        }
        let Some(Known { peer, .. }) = self.peers.get_mut(&stamp.node) else { return Err(Reason::Stranger) };
        if peer.origin != stamp.origin() {
            return Err(if stamp.boot < peer.origin.boot { Reason::Old } else { Reason::Stranger });
        }
        if !room {
            return Err(Reason::Room);
        }
        peer.heard_ms = now_ms;
        peer.from = from;
        let held = Held { sent_ms: stamp.sent_ms, bytes: bytes.to_vec() };
        let arrived = peer.on_number(now_ms, stamp.number, held, &self.config);
        self.drain(now_ms, stamp.node);
        match arrived {
            Arrived::Kept => Ok(()),
            Arrived::Old => Err(Reason::Old),
            Arrived::NoRoom => Err(Reason::Room),
        }
    }

    fn spoken(&mut self, now_ms: u64, from: SocketAddr, stamp: &Stamp, body: Body, sync_id: u8) -> Result<(), Reason> {
        if stamp.node == self.config.identity.node {
            return Err(Reason::Own);
        }
        let here = self.config.identity.origin();
        match body {
            Body::Hello(hello) => {
                let config = &self.config;
                match self.peers.get_mut(&stamp.node) {
                    Some(k) if k.peer.origin == stamp.origin() => {
                        if !k.peer.newer(stamp.number) {
                            return Err(Reason::Old);
                        }
                        k.peer.heard_ms = now_ms;
                        k.peer.from = from;
                        k.peer.lag.arrived(now_ms, stamp.sent_ms);
                        k.peer.on_hello(now_ms, hello, config);
                    }
                    Some(k)
                        if stamp.boot < k.peer.origin.boot
                            && now_ms.saturating_sub(k.peer.heard_ms) <= config.peer_timeout_ms =>
                    {
                        return Err(Reason::Old);
                    }
                    _ => {
                        self.make_room(now_ms, stamp.node)?;
                        let mut peer = Peer::new(stamp.origin(), from, stamp.number, hello, sync_id, now_ms);
                        peer.lag.arrived(now_ms, stamp.sent_ms);
                        self.peers.insert(stamp.node, Known { peer, known: 0 });
                    }
                }
                self.drain(now_ms, stamp.node);
                self.ask(now_ms, stamp.node);
                Ok(())
            }
            Body::Gone { to, oldest } if to == here => {
                let Some(k) = self.peers.get_mut(&stamp.node).filter(|k| k.peer.origin == stamp.origin()) else {
                    return Err(Reason::Stranger);
                };
                if !k.peer.newer(stamp.number) {
                    return Err(Reason::Old);
                }
                k.peer.on_gone(oldest);
                self.drain(now_ms, stamp.node);
                self.ask(now_ms, stamp.node);
                Ok(())
            }
            // The master's to answer, or to others.
            _ => Ok(()),
        }
    }

    /// A place for a peer: one that has gone silent makes it.
    fn make_room(&mut self, now_ms: u64, node: u32) -> Result<(), Reason> {
        if self.peers.contains_key(&node) || self.peers.len() < self.config.peers {
            return Ok(());
        }
        let silent = |k: &Known| now_ms.saturating_sub(k.peer.heard_ms) > self.config.peer_timeout_ms;
        let gone = self.peers.iter().filter(|(_, k)| silent(k)).min_by_key(|(_, k)| k.peer.heard_ms);
        let node = gone.map(|(node, _)| *node).ok_or(Reason::Sources)?;
        self.peers.remove(&node);
        Ok(())
    }

    /// Takes what is next in order.
    fn drain(&mut self, now_ms: u64, node: u32) {
        let Some(Known { peer, .. }) = self.peers.get_mut(&node) else { return };
        let origin = peer.origin;
        while let Some(held) = peer.take(now_ms) {
            // It was read when it came; what a tag says of it was checked then.
            match extension::parse(&held.bytes, None) {
                Ok(Seen::Records(_)) => {
                    let count = Datagram::parse(&held.bytes).map_or(0, |d| d.count());
                    peer.on_records(u64::from(count));
                    self.ready_bytes += held.bytes.len();
                    let late_ms = peer.lag.since(now_ms, held.sent_ms);
                    self.ready.push_back(Ready::Records { origin, mark: self.mark, late_ms, bytes: held.bytes });
                }
                Ok(Seen::Message(_, Body::Delete(keys))) => self.ready.push_back(Ready::Delete { origin, keys }),
                Ok(Seen::Message(_, Body::BulkBegin { bulk, asked })) => {
                    self.mark = self.mark.wrapping_add(1);
                    let ours = asked.contains(&self.config.identity.origin());
                    peer.on_begin(now_ms, bulk, self.mark, ours);
                }
                Ok(Seen::Message(_, Body::BulkEnd { bulk, count })) => {
                    if let Some(mark) = peer.on_end(bulk, count) {
                        self.ready.push_back(Ready::Other(BackupAction::Sweep {
                            origin,
                            epoch: peer.hello.epoch,
                            mark,
                        }));
                    }
                }
                _ => {}
            }
        }
    }

    /// Time has passed: what is due is asked for.
    pub fn poll(&mut self, now_ms: u64) {
        let nodes: Vec<u32> = self.peers.keys().copied().collect();
        for node in nodes {
            self.ask(now_ms, node);
            // What was given up frees what waited for it.
            self.drain(now_ms, node);
        }
    }

    fn ask(&mut self, now_ms: u64, node: u32) {
        let Some(Known { peer, .. }) = self.peers.get_mut(&node) else { return };
        // Nobody answers: it will say hello.
        if now_ms.saturating_sub(peer.heard_ms) > self.config.peer_timeout_ms {
            return;
        }
        let (to, from) = (peer.origin, peer.from);
        for ask in peer.poll(now_ms, &self.config) {
            let body = match ask {
                Ask::Again(ranges) => Body::Nack { to, ranges },
                Ask::All { request } => Body::BulkRequest { to, request },
            };
            self.asked += 1;
            let stamp = self.config.identity.stamp(self.asked, now_ms);
            // A sync id of 0 hears all; what is asked for must have the one that the peer sends.
            let datagram = extension::emit(peer.sync_id, &stamp, &body, self.config.key.as_ref());
            if self.ready.len() < self.config.queue_datagrams.saturating_mul(2) {
                self.ready.push_back(Ready::Other(BackupAction::Send { to: To::Peer(from), datagram }));
            }
        }
    }

    /// When to call [`Backup::poll`] next, if nothing happens before.
    pub fn next_poll_ms(&self, now_ms: u64) -> Option<u64> {
        let heard = |k: &&Known| now_ms.saturating_sub(k.peer.heard_ms) <= self.config.peer_timeout_ms;
        self.peers.values().filter(heard).filter_map(|k| k.peer.due_ms(&self.config)).min()
    }
}
