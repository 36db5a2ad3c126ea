//! The master: packs connections into datagrams, numbers and keeps them, sends again what a peer
//! asks for, and everything if one joins.

use super::limits::Bucket;
use super::ring::Ring;
use super::{Identity, To};
use crate::auth;
use crate::extension::{self, Body, Hello, MAX_ASKED, MAX_DELETED, Origin, Range, Seen, Stamp, ability};
use crate::message::Packer;
use crate::reason::{Counts, Reason};
use crate::record::{Key, Recency, Record};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;

/// How a master behaves.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// Who this node is.
    pub identity: Identity,
    /// Sync id of all it sends.
    pub sync_id: u8,
    /// Longest datagram (UDP payload); 1472 of IPv4 in 1500.
    pub max_len: usize,
    /// How long a datagram that is not full is kept.
    pub flush_after_ms: u64,
    /// Numbers, hello, repair and bulks. Without it, it sends what a kernel sends.
    pub extension: bool,
    /// Signs what it sends; what it hears must be signed.
    pub key: Option<auth::Key>,
    /// Most datagrams kept to be sent again.
    pub ring_datagrams: usize,
    /// Most bytes of them.
    pub ring_bytes: usize,
    /// Most datagrams that wait to be taken with [`Master::next_action`]; further ones are only kept.
    pub queue_datagrams: usize,
    /// Bytes a second of a bulk.
    pub bulk_bytes_per_second: u64,
    /// Bytes a second of what is sent again.
    pub repair_bytes_per_second: u64,
    /// Time between two hellos.
    pub hello_ms: u64,
    /// A peer that was not heard for so long is gone: what was learned from it is this node's to
    /// tell.
    pub peer_timeout_ms: u64,
}

impl MasterConfig {
    /// The usual, without the extension's key.
    pub fn new(identity: Identity, sync_id: u8) -> Self {
        Self {
            identity,
            sync_id,
            max_len: 1472,
            flush_after_ms: Packer::FLUSH_AFTER_MS,
            extension: true,
            key: None,
            ring_datagrams: 16_384,
            ring_bytes: 16 << 20,
            queue_datagrams: 16_384,
            bulk_bytes_per_second: 4 << 20,
            repair_bytes_per_second: 8 << 20,
            hello_ms: 1000,
            peer_timeout_ms: 5000,
        }
    }
}

/// What the caller is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MasterAction {
    /// Send this datagram.
    Send {
        /// Where to.
        to: To,
        /// Its bytes.
        datagram: Vec<u8>,
    },
    /// Give the next connections for a bulk with [`Master::page`].
    Iterate {
        /// Where the last page ended; 0 at the begin.
        cursor: u64,
        /// How many at most.
        at_most: usize,
    },
}

/// Who handles a connection that is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// This node: it was opened here, or had a client's packet here since it was learned.
    Own,
    /// It was learned from that peer. It is not told on while that peer lives and has its tables: the
    /// peer tells it itself. Once the peer is gone, or has started with empty ones, it is.
    Learned(Origin),
}

/// Some connections for a bulk.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Connections as they are now.
    pub records: Vec<(Whose, Record)>,
    /// Where the next page begins; nothing if these were the last.
    pub next: Option<u64>,
}

/// What a master has done.
#[derive(Clone, Debug, Default)]
pub struct MasterMetrics {
    /// Records sent, bulks among them.
    pub records: u64,
    /// Numbered datagrams made.
    pub datagrams: u64,
    /// Not queued since the caller did not take them in time; peers ask for them.
    pub unsent: u64,
    /// Datagrams sent again.
    pub repaired: u64,
    /// Asked for, but too old.
    pub too_old: u64,
    /// Asked for beyond the budget.
    pub refused: u64,
    /// Bulks begun.
    pub bulks: u64,
    /// Not sent since a living peer tells them itself.
    pub echoes: u64,
    /// What was dropped of what was heard.
    pub dropped: Counts,
}

struct Peer {
    boot: u64,
    epoch: u64,
    heard_ms: u64,
    /// Number of its master's last hello, and of its backup's last request.
    hello: u64,
    asked: u64,
    /// Its last request for a bulk.
    request: Option<u32>,
}

struct Bulk {
    number: u32,
    cursor: u64,
    /// The caller was asked for a page.
    waiting: bool,
    /// Records since its begin, news among them.
    count: u64,
}

/// Peers that a master remembers.
const MAX_PEERS: usize = 16;
/// Least time between a hello and the next one that is somebody's answer.
const GREETING_MS: u64 = 50;
/// Most records of one page.
const PAGE: usize = 1024;
/// Rough bytes of a record, by which a page is sized.
const RECORD_BYTES: u64 = 64;

/// See the module.
pub struct Master {
    config: MasterConfig,
    packer: Packer,
    /// What is in the packer's datagram.
    packed: HashSet<Key>,
    deleted: Vec<Key>,
    deleted_since_ms: u64,
    ring: Ring,
    /// Number of the last hello or other message outside the sequence.
    spoken: u64,
    hello_due_ms: u64,
    connections: u64,
    started_ms: u64,
    /// Something was not told since its owner might live.
    doubtful: bool,
    peers: BTreeMap<u32, Peer>,
    /// When a connection was last told that was learned from that node.
    told: BTreeMap<u32, u64>,
    bulk: Option<Bulk>,
    bulk_wanted: bool,
    /// Who wants it.
    asked: Vec<Origin>,
    bulks: u32,
    pace: Bucket,
    repair: Bucket,
    queue: VecDeque<MasterAction>,
    /// Of them, those to send.
    queued: usize,
    metrics: MasterMetrics,
}

impl Master {
    /// A master that has sent nothing.
    pub fn new(config: MasterConfig, now_ms: u64) -> Self {
        let room = if config.extension { extension::stamp_room(config.key.as_ref()) } else { 0 };
        let max_len = config.max_len.saturating_sub(room);
        let burst = |per_second: u64| (per_second / 20).max(4096);
        Self {
            packer: Packer::new(config.sync_id, max_len, config.flush_after_ms),
            packed: HashSet::new(),
            deleted: Vec::new(),
            deleted_since_ms: now_ms,
            ring: Ring::new(config.ring_datagrams, config.ring_bytes),
            spoken: 0,
            hello_due_ms: now_ms,
            connections: 0,
            started_ms: now_ms,
            doubtful: false,
            peers: BTreeMap::new(),
            told: BTreeMap::new(),
            bulk: None,
            bulk_wanted: false,
            asked: Vec::new(),
            bulks: 0,
            pace: Bucket::new(config.bulk_bytes_per_second, burst(config.bulk_bytes_per_second), now_ms),
            repair: Bucket::new(config.repair_bytes_per_second, burst(config.repair_bytes_per_second), now_ms),
            queue: VecDeque::new(),
            queued: 0,
            metrics: MasterMetrics::default(),
            config,
        }
    }

    /// What is to be done next.
    pub fn next_action(&mut self) -> Option<MasterAction> {
        let action = self.queue.pop_front()?;
        if matches!(action, MasterAction::Send { .. }) {
            self.queued = self.queued.saturating_sub(1);
        }
        Some(action)
    }

    /// What was done so far.
    pub fn metrics(&self) -> &MasterMetrics {
        &self.metrics
    }

    /// Bytes of the datagrams that are kept.
    pub fn kept_bytes(&self) -> usize {
        self.ring.bytes()
    }

    /// How many connections and templates there are to tell of: peers say how many of them they know.
    pub fn set_connections(&mut self, count: u64) {
        self.connections = count;
    }

    /// A connection is to be sent, as the packet path says (§9.4). Its recency should be set; the
    /// node in it is put in here.
    pub fn send(&mut self, now_ms: u64, whose: Whose, record: &Record) {
        self.push(now_ms, whose, record);
    }

    /// A connection was removed, for whatever reason. Kernels do not take this; for peers it is
    /// optional: without it they keep the connection until it expires there.
    pub fn delete(&mut self, now_ms: u64, whose: Whose, key: Key) {
        let told = matches!(whose, Whose::Learned(origin) if self.told_lately(now_ms, origin.node));
        if !self.config.extension || self.is_echo(now_ms, whose) && !told {
            return;
        }
        if self.packed.contains(&key) {
            self.flush_records(now_ms);
        }
        if self.deleted.is_empty() {
            self.deleted_since_ms = now_ms;
        }
        self.deleted.push(key);
        if self.deleted.len() >= MAX_DELETED {
            self.flush_deleted(now_ms);
        }
    }

    /// All connections have changed at once, or some were taken away unseen: peers are to be sent
    /// what there is now, and to forget what is not.
    pub fn resend_all(&mut self) {
        self.bulk_wanted = self.config.extension;
    }

    /// The connections that [`MasterAction::Iterate`] asked for.
    pub fn page(&mut self, now_ms: u64, cursor: u64, page: Page) {
        let expected = self.bulk.as_mut().filter(|b| b.waiting && b.cursor == cursor);
        let Some(bulk) = expected else { return };
        bulk.waiting = false;
        if let Some(next) = page.next {
            bulk.cursor = next;
        }
        let cost = page.records.len() as u64 * RECORD_BYTES;
        self.pace.take(now_ms, cost.max(1));
        for (whose, record) in &page.records {
            self.push(now_ms, *whose, record);
        }
        if page.next.is_none() {
            self.flush(now_ms);
            if let Some(Bulk { number, count, .. }) = self.bulk.take() {
                self.message(now_ms, &Body::BulkEnd { bulk: number, count });
            }
        }
        self.advance_bulk(now_ms);
    }

    /// Time has passed: what is due is done.
    pub fn poll(&mut self, now_ms: u64) {
        if self.packer.due_ms().is_some_and(|due| due <= now_ms) {
            self.flush_records(now_ms);
        }
        if self.deleted_due_ms().is_some_and(|due| due <= now_ms) {
            self.flush_deleted(now_ms);
        }
        if !self.config.extension {
            return;
        }
        if self.hello_due_ms <= now_ms {
            self.hello_due_ms = now_ms.saturating_add(self.config.hello_ms);
            let body = Body::Hello(Hello {
                abilities: ability::REPAIR | ability::BULK,
                epoch: self.config.identity.epoch,
                oldest: self.ring.oldest(),
                next: self.ring.next(),
                connections: self.connections,
            });
            self.speak(now_ms, To::Group, &body);
        }
        let timeout = self.config.peer_timeout_ms;
        let long = timeout.saturating_mul(10);
        self.told.retain(|_, at| now_ms.saturating_sub(*at) <= long);
        // An old start of a peer must not be taken for a new one, so it is remembered far longer.
        self.peers.retain(|_, p| now_ms.saturating_sub(p.heard_ms) <= timeout.saturating_mul(100));
        if self.doubtful && now_ms.saturating_sub(self.started_ms) > timeout {
            // Whose was it that was not told at the start? Of nobody who has said hello since.
            self.doubtful = false;
            self.bulk_wanted = true;
        }
        self.advance_bulk(now_ms);
    }

    /// When to call [`Master::poll`] next, if nothing happens before.
    pub fn next_poll_ms(&self) -> Option<u64> {
        let extension = self.config.extension;
        let hello = extension.then_some(self.hello_due_ms);
        let waiting = self.bulk.as_ref().map_or(self.bulk_wanted, |b| !b.waiting);
        let bulk = (extension && waiting).then(|| self.pace.next_ms());
        [self.packer.due_ms(), self.deleted_due_ms(), hello, bulk].into_iter().flatten().min()
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
        // What is no message of the extension is the backup's; it is cheap to see, and so nobody is made
        // to check a tag twice.
        if !self.config.extension || bytes.get(5) != Some(&extension::VERSION) {
            return Ok(());
        }
        if bytes.get(1) != Some(&self.config.sync_id) {
            return Err(Reason::SyncId);
        }
        let Seen::Message(stamp, body) = extension::parse(bytes, self.config.key.as_ref())? else { return Ok(()) };
        if stamp.node == self.config.identity.node {
            return Err(Reason::Own);
        }
        match body {
            Body::Hello(hello) => {
                let met = self.has_met(&stamp);
                self.peer(now_ms, &stamp, true)?.epoch = hello.epoch;
                if !met {
                    self.greet(now_ms);
                }
                Ok(())
            }
            Body::Nack { to, ranges } if to == self.config.identity.origin() => {
                self.peer(now_ms, &stamp, false)?;
                self.send_again(now_ms, from, stamp.origin(), &ranges);
                Ok(())
            }
            Body::BulkRequest { to, request } if to == self.config.identity.origin() => {
                let peer = self.peer(now_ms, &stamp, false)?;
                if peer.request.replace(request) != Some(request) {
                    self.bulk_wanted = true;
                    // An older start of the asker's does not ask any more.
                    self.asked.retain(|o| o.node != stamp.node);
                    if self.asked.len() < MAX_ASKED {
                        self.asked.push(stamp.origin());
                    }
                    self.advance_bulk(now_ms);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The peer that sent a message, if it is newer than what came before of its sort.
    fn peer(&mut self, now_ms: u64, stamp: &Stamp, hello: bool) -> Result<&mut Peer, Reason> {
        let timeout = self.config.peer_timeout_ms;
        if !self.peers.contains_key(&stamp.node) && self.peers.len() >= MAX_PEERS {
            let silent = |p: &Peer| now_ms.saturating_sub(p.heard_ms) > timeout;
            let gone = self.peers.iter().find(|(_, p)| silent(p)).map(|(n, _)| *n).ok_or(Reason::Sources)?;
            self.peers.remove(&gone);
        }
        // Who asks has said hello, so that its start is known here and to this node's backup: else a
        // bulk would miss what that still learned from the start before, or tell back what is the
        // peer's own.
        if !hello && !self.has_met(stamp) {
            return Err(Reason::Stranger);
        }
        let new = || Peer { boot: stamp.boot, epoch: stamp.boot, heard_ms: now_ms, hello: 0, asked: 0, request: None };
        let peer = self.peers.entry(stamp.node).or_insert_with(new);
        if peer.boot < stamp.boot {
            *peer = new();
        }
        let last = if hello { &mut peer.hello } else { &mut peer.asked };
        if peer.boot > stamp.boot || *last >= stamp.number {
            return Err(Reason::Old);
        }
        *last = stamp.number;
        peer.heard_ms = now_ms;
        Ok(peer)
    }

    /// Whether that start of a node has said hello.
    fn has_met(&self, stamp: &Stamp) -> bool {
        self.peers.get(&stamp.node).is_some_and(|p| p.boot >= stamp.boot && p.hello > 0)
    }

    /// Who joins hears nothing of this node before its hello, so it comes at once, however many join.
    fn greet(&mut self, now_ms: u64) {
        let last_ms = self.hello_due_ms.saturating_sub(self.config.hello_ms);
        let soonest = last_ms.saturating_add(GREETING_MS).max(now_ms);
        self.hello_due_ms = self.hello_due_ms.min(soonest);
    }

    /// Whether a living peer tells it itself. Who has just started does not know yet who lives.
    fn is_echo(&self, now_ms: u64, whose: Whose) -> bool {
        let Whose::Learned(origin) = whose else { return false };
        let lives = |since: u64| now_ms.saturating_sub(since) <= self.config.peer_timeout_ms;
        match self.peers.get(&origin.node) {
            Some(p) => (p.epoch..=p.boot).contains(&origin.boot) && lives(p.heard_ms),
            None => origin != Origin::KERNEL && lives(self.started_ms),
        }
    }

    /// Whether connections of that node were told lately: a peer may have learned from this node what
    /// it was just about to take away.
    fn told_lately(&self, now_ms: u64, node: u32) -> bool {
        let long = self.config.peer_timeout_ms.saturating_mul(10);
        self.told.get(&node).is_some_and(|at| now_ms.saturating_sub(*at) <= long)
    }

    fn push(&mut self, now_ms: u64, whose: Whose, record: &Record) {
        if self.is_echo(now_ms, whose) {
            self.metrics.echoes += 1;
            if matches!(whose, Whose::Learned(origin) if !self.peers.contains_key(&origin.node)) {
                self.doubtful = true;
            }
            return;
        }
        if let Whose::Learned(origin) = whose
            && (self.told.len() < MAX_PEERS || self.told.contains_key(&origin.node))
        {
            self.told.insert(origin.node, now_ms);
        }
        let mut record = record.clone();
        let node = match whose {
            Whose::Own => self.config.identity.node,
            Whose::Learned(origin) => origin.node,
        };
        record.recency = record.recency.filter(|_| self.config.extension).map(|r| Recency { node, ..r });
        if self.deleted.contains(&record.key()) {
            self.flush_deleted(now_ms);
        }
        if let Some(full) = self.packer.push(now_ms, &record) {
            self.packed.clear();
            self.number(now_ms, full);
        }
        if self.config.extension {
            self.packed.insert(record.key());
        }
        self.metrics.records += 1;
        if let Some(bulk) = &mut self.bulk {
            bulk.count += 1;
        }
    }

    fn deleted_due_ms(&self) -> Option<u64> {
        (!self.deleted.is_empty()).then(|| self.deleted_since_ms.saturating_add(self.config.flush_after_ms))
    }

    fn flush_records(&mut self, now_ms: u64) {
        self.packed.clear();
        if let Some(datagram) = self.packer.flush() {
            self.number(now_ms, datagram);
        }
    }

    fn flush_deleted(&mut self, now_ms: u64) {
        let keys = std::mem::take(&mut self.deleted);
        if !keys.is_empty() {
            self.message(now_ms, &Body::Delete(keys));
        }
    }

    fn flush(&mut self, now_ms: u64) {
        self.flush_records(now_ms);
        self.flush_deleted(now_ms);
    }

    /// Sends records, with the next number.
    fn number(&mut self, now_ms: u64, mut datagram: Vec<u8>) {
        if self.config.extension {
            let stamp = self.config.identity.stamp(self.ring.next(), now_ms);
            extension::stamp_records(&mut datagram, &stamp, self.config.key.as_ref());
        }
        self.keep(datagram);
    }

    /// Sends a message with the next number.
    fn message(&mut self, now_ms: u64, body: &Body) {
        let stamp = self.config.identity.stamp(self.ring.next(), now_ms);
        self.keep(extension::emit(self.config.sync_id, &stamp, body, self.config.key.as_ref()));
    }

    fn keep(&mut self, datagram: Vec<u8>) {
        self.metrics.datagrams += 1;
        if self.queued < self.config.queue_datagrams {
            self.queued += 1;
            self.queue.push_back(MasterAction::Send { to: To::Group, datagram: datagram.clone() });
        } else {
            self.metrics.unsent += 1;
        }
        if self.config.extension {
            self.ring.push(datagram);
        }
    }

    /// Sends a message outside the sequence.
    fn speak(&mut self, now_ms: u64, to: To, body: &Body) {
        self.spoken += 1;
        let stamp = self.config.identity.stamp(self.spoken, now_ms);
        let datagram = extension::emit(self.config.sync_id, &stamp, body, self.config.key.as_ref());
        if self.queued < self.config.queue_datagrams {
            self.queued += 1;
            self.queue.push_back(MasterAction::Send { to, datagram });
        }
    }

    fn send_again(&mut self, now_ms: u64, from: SocketAddr, asker: Origin, ranges: &[Range]) {
        let oldest = self.ring.oldest();
        if ranges.iter().any(|r| r.first < oldest) {
            self.metrics.too_old += 1;
            self.speak(now_ms, To::Peer(from), &Body::Gone { to: asker, oldest });
        }
        for range in ranges {
            for number in range.first.max(oldest)..=range.last.min(self.ring.next().saturating_sub(1)) {
                let Some(datagram) = self.ring.get(number) else { continue };
                if self.queued >= self.config.queue_datagrams || !self.repair.take(now_ms, datagram.len() as u64) {
                    self.metrics.refused += 1;
                    return;
                }
                self.metrics.repaired += 1;
                self.queued += 1;
                let datagram = datagram.to_vec();
                self.queue.push_back(MasterAction::Send { to: To::Peer(from), datagram });
            }
        }
    }

    /// Begins a bulk if one is wanted, and asks for its next page if there is budget.
    fn advance_bulk(&mut self, now_ms: u64) {
        if self.bulk.is_none() && self.bulk_wanted && self.pace.available(now_ms) > 0 {
            self.bulk_wanted = false;
            self.bulks = self.bulks.wrapping_add(1);
            self.metrics.bulks += 1;
            self.flush(now_ms);
            let number = self.bulks;
            let asked = std::mem::take(&mut self.asked);
            self.message(now_ms, &Body::BulkBegin { bulk: number, asked });
            self.bulk = Some(Bulk { number, cursor: 0, waiting: false, count: 0 });
        }
        let budget = self.pace.available(now_ms) / RECORD_BYTES;
        // A caller that does not keep up is not given more.
        let room = self.queued.saturating_mul(2) <= self.config.queue_datagrams;
        if let Some(bulk) = self.bulk.as_mut().filter(|b| !b.waiting && budget > 0 && room) {
            bulk.waiting = true;
            let at_most = usize::try_from(budget).unwrap_or(PAGE).min(PAGE);
            self.queue.push_back(MasterAction::Iterate { cursor: bulk.cursor, at_most });
        }
    }
}
