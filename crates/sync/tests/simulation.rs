//! Two nodes and a network that loses, delays and doubles, by seed: after it has been quiet for
//! a while, each knows what the other has.
//!
//! The harness keeps a table for each node and does what the actions say, as a daemon would.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use dirigent_sync::backup::{self, Decision, Existing, Found, From, Owner};
use dirigent_sync::extension::Origin;
use dirigent_sync::machine::{
    Backup, BackupAction, BackupConfig, Identity, Master, MasterAction, MasterConfig, Page, To, Whose,
};
use dirigent_sync::{Ends, Flags, Key, Recency, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

struct Rand(u64);

impl Rand {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

/// Connections by their key, which is the client's port here, and how many are the node's own.
#[derive(Clone, Default)]
struct Table {
    rows: BTreeMap<u16, Entry>,
    own: u64,
}

impl Table {
    fn insert(&mut self, key: &Key, entry: Entry) {
        self.remove(key);
        self.own += u64::from(entry.whose == Whose::Own);
        self.rows.insert(key.client.port(), entry);
    }
    fn remove(&mut self, key: &Key) {
        if let Some(old) = self.rows.remove(&key.client.port()) {
            self.own -= u64::from(old.whose == Whose::Own);
        }
    }
    fn get(&self, key: &Key) -> Option<&Entry> {
        self.rows.get(&key.client.port())
    }
}

#[derive(Clone, Debug)]
struct Entry {
    record: Record,
    whose: Whose,
    mark: u32,
    /// When its last packet was seen, by this node's clock; of a learned one as the peer said.
    seen_ms: u64,
}

struct Node {
    identity: Identity,
    /// By the client's port: one connection each.
    table: Table,
    master: Master,
    backup: Backup,
    /// Its clock is so far ahead.
    ahead_ms: u64,
    up: bool,
    deletes: bool,
}

struct Shape {
    loss: u64,
    double: u64,
    reorder: u64,
    deletes: bool,
    small: bool,
    key: bool,
}

fn address(node: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], 8848))
}

impl Node {
    fn new(identity: Identity, ahead_ms: u64, now: u64, shape: &Shape) -> Self {
        let mut master = MasterConfig { flush_after_ms: 100, ..MasterConfig::new(identity, 7) };
        let mut backup = BackupConfig::new(identity, 7);
        if shape.small {
            // So small that repair often comes too late, and bulks must help.
            (master.ring_datagrams, master.max_len) = (24, 400);
            (backup.hold_datagrams, backup.window, backup.repair_tries) = (12, 60, 3);
        }
        if shape.key {
            let key = dirigent_sync::auth::Key::new(b"the secret of the simulation").unwrap();
            (master.key, backup.key, backup.plain) = (Some(key.clone()), Some(key), false);
        }
        let (master, backup) = (Master::new(master, now + ahead_ms), Backup::new(backup));
        Self { identity, table: Table::default(), master, backup, ahead_ms, up: true, deletes: shape.deletes }
    }

    /// A client's packet, or the end of a connection.
    fn change(&mut self, now: u64, rand: &mut Rand, ports: std::ops::Range<u64>) {
        let now = now + self.ahead_ms;
        let port = ports.start + rand.below(ports.end - ports.start);
        let record = record(port, rand.below(11) as u16, rand.below(2) == 0, 0);
        let key = record.key();
        if rand.percent(15) {
            if self.table.get(&key).is_some_and(|e| e.whose == Whose::Own) {
                self.table.remove(&key);
                if self.deletes {
                    self.master.delete(now, Whose::Own, key);
                }
            }
            return;
        }
        self.table.insert(&key, Entry { record: record.clone(), whose: Whose::Own, mark: 0, seen_ms: now });
        self.master.send(now, Whose::Own, &record);
    }

    fn page(&mut self, now: u64, cursor: u64, at_most: usize) {
        // The cursor is the key's client port and one; a daemon would use its map's.
        let rows = self.table.rows.range(cursor as u16..).map(|(_, e)| e).filter(|_| cursor < 65536);
        let records: Vec<_> = rows
            .take(at_most)
            .map(|e| {
                let idle_ms = (now + self.ahead_ms).saturating_sub(e.seen_ms) as u32;
                let recency = Some(Recency { idle_ms, node: 0 });
                (e.whose, Record { recency, ..e.record.clone() })
            })
            .collect();
        let next = (records.len() == at_most).then(|| u64::from(port(&records.last().unwrap().1)) + 1);
        self.master.page(now + self.ahead_ms, cursor, Page { records, next });
    }

    fn apply(&mut self, now: u64, origin: Origin, mark: u32, record: Record, idle_ms: u64, seen_by: u32) {
        let now = now + self.ahead_ms;
        let key = record.key();
        let existing = self.table.get(&key).map(|e| {
            let idle_ms = now.saturating_sub(e.seen_ms);
            let owner = match e.whose {
                Whose::Own => Owner::Own { idle_ms },
                Whose::Learned(origin) => Owner::Learned { node: origin.node, idle_ms },
            };
            Existing { flags: e.record.flags, real: e.record.ends.real(), bound: true, owner }
        });
        let found = Found { existing, configured: None, engine: true };
        let from = From { node: origin.node, here: self.identity.node, seen_by, idle_ms };
        match backup::decide(&record, &found, &from, 3) {
            Decision::Ignore(reason) => self.backup.ignored(reason),
            Decision::Update { .. } | Decision::Create { .. } => {
                let seen_ms = now.saturating_sub(idle_ms);
                let record = Record { recency: None, ..record };
                self.table.insert(&key, Entry { record, whose: Whose::Learned(origin), mark, seen_ms });
            }
        }
    }

    /// Does what is to be done; gives what is to be sent.
    fn act(&mut self, now: u64) -> Vec<(To, Vec<u8>)> {
        let mut out = Vec::new();
        loop {
            if let Some(action) = self.master.next_action() {
                match action {
                    MasterAction::Send { to, datagram } => out.push((to, datagram)),
                    MasterAction::Iterate { cursor, at_most } => self.page(now, cursor, at_most),
                }
            } else if let Some(action) = self.backup.next_action() {
                match action {
                    BackupAction::Send { to, datagram } => out.push((to, datagram)),
                    BackupAction::Apply { origin, mark, record, idle_ms, seen_by } => {
                        self.apply(now, origin, mark, record, idle_ms, seen_by);
                    }
                    BackupAction::Delete { origin, key } => {
                        let whose = self.table.get(&key).map(|e| e.whose);
                        if let Some(Whose::Learned(from)) = whose
                            && from.node == origin.node
                        {
                            self.table.remove(&key);
                            if self.deletes {
                                self.master.delete(now + self.ahead_ms, Whose::Learned(from), key);
                            }
                        }
                    }
                    BackupAction::Sweep { origin, epoch, mark } => self.table.rows.retain(|_, e| {
                        let theirs = matches!(e.whose, Whose::Learned(o) if o.node == origin.node && o.boot >= epoch);
                        !theirs || mark.wrapping_sub(e.mark) as i32 <= 0
                    }),
                }
            } else {
                return out;
            }
        }
    }

    fn own_count(&self) -> u64 {
        self.table.own
    }
    fn own(&self) -> BTreeSet<(u16, u16)> {
        self.table.rows.iter().filter(|(_, e)| e.whose == Whose::Own).map(|(k, e)| (*k, e.record.state)).collect()
    }
    /// What it tells a peer: what is its own, and what was learned from a start that is no more.
    fn told_to(&self, peer: Identity) -> BTreeSet<(u16, u16)> {
        let told = |e: &Entry| !matches!(e.whose, Whose::Learned(o) if o.boot >= peer.epoch);
        self.table.rows.iter().filter(|(_, e)| told(e)).map(|(k, e)| (*k, e.record.state)).collect()
    }
    fn learned_from(&self, origin: Origin) -> BTreeSet<(u16, u16)> {
        let from = |e: &Entry| e.whose == Whose::Learned(origin);
        self.table.rows.iter().filter(|(_, e)| from(e)).map(|(k, e)| (*k, e.record.state)).collect()
    }
    fn all(&self) -> BTreeMap<u16, u16> {
        self.table.rows.iter().map(|(k, e)| (*k, e.record.state)).collect()
    }
    fn origin(&self) -> Origin {
        Origin { node: self.identity.node, boot: self.identity.boot }
    }
}

fn port(record: &Record) -> u16 {
    record.ends.client().port()
}

fn record(port: u64, state: u16, inactive: bool, idle_ms: u32) -> Record {
    // One server for each connection: which of two wins is another test's.
    let client = ([203, 0, 113, 5].into(), port as u16);
    Record {
        protocol: 6,
        flags: Flags(if inactive { 0x100 } else { 0 }),
        state,
        ends: Ends::v4(client, ([192, 0, 2, 10].into(), 80), ([10, 1, 0, 11].into(), 80)),
        fwmark: 0,
        timeout_seconds: 900,
        sequence: None,
        pe: None,
        recency: Some(Recency { idle_ms, node: 0 }),
    }
}

struct World {
    nodes: Vec<Node>,
    /// What is under way: by time, to whom.
    network: BTreeMap<(u64, u64), (usize, SocketAddr, Vec<u8>)>,
    now: u64,
    serial: u64,
    rand: Rand,
    shape: Shape,
}

impl World {
    fn new(seed: u64, shape: Shape) -> Self {
        let mut rand = Rand(seed);
        let nodes = (1..=2)
            .map(|node| Node::new(Identity { node, boot: 1, epoch: 1 }, rand.below(1 << 40), 0, &shape))
            .collect();
        Self { nodes, network: BTreeMap::new(), now: 0, serial: 0, rand, shape }
    }

    fn send(&mut self, from: usize, to: To, datagram: &[u8]) {
        for node in 0..self.nodes.len() {
            let own = self.nodes[node].identity.node;
            let meant = match to {
                To::Group => node != from,
                To::Peer(a) => a == address(own),
            };
            if !meant {
                continue;
            }
            let copies = 1 + u64::from(self.rand.percent(self.shape.double));
            for _ in 0..copies {
                if self.rand.percent(self.shape.loss) {
                    continue;
                }
                let late = if self.rand.percent(self.shape.reorder) { self.rand.below(150) } else { 0 };
                self.serial += 1;
                let source = address(self.nodes[from].identity.node);
                self.network.insert((self.now + 1 + late, self.serial), (node, source, datagram.to_vec()));
            }
        }
    }

    /// Five milliseconds.
    fn step(&mut self) {
        self.now += 5;
        let later = self.network.split_off(&(self.now + 1, 0));
        for (_, (node, from, datagram)) in std::mem::replace(&mut self.network, later) {
            let n = &mut self.nodes[node];
            if n.up {
                let now = self.now + n.ahead_ms;
                let _ = n.master.on_datagram(now, from, &datagram);
                let _ = n.backup.on_datagram(now, from, &datagram);
            }
        }
        for i in 0..self.nodes.len() {
            let n = &mut self.nodes[i];
            if !n.up {
                continue;
            }
            let now = self.now + n.ahead_ms;
            let own = n.own_count();
            n.master.set_connections(own);
            // As a daemon: only when it is due, or something came.
            if n.master.next_poll_ms().is_some_and(|due| due <= now) {
                n.master.poll(now);
            }
            if n.backup.next_poll_ms(now).is_some_and(|due| due <= now) {
                n.backup.poll(now);
            }
            for (to, datagram) in n.act(self.now) {
                self.send(i, to, &datagram);
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.step();
        }
    }

    /// The node starts anew, with its table or without.
    fn restart(&mut self, i: usize, keep: bool) {
        let old = &self.nodes[i];
        let mark = old.table.rows.values().map(|e| e.mark).max().unwrap_or(0);
        let Identity { node, boot, epoch } = old.identity;
        let identity = Identity { node, boot: boot + 1, epoch: if keep { epoch } else { boot + 1 } };
        let ahead = if keep { old.ahead_ms } else { self.rand.below(1 << 40) };
        let mut new = Node::new(identity, ahead, self.now, &self.shape);
        if keep {
            // The kernel's tables outlive the daemon, whose clock they have.
            new.table = old.table.clone();
            let mut config = BackupConfig::new(new.identity, 7);
            config.first_mark = mark + 1;
            if let Some(key) = self.shape.key.then(|| dirigent_sync::auth::Key::new(b"the secret of the simulation")) {
                (config.key, config.plain) = (key, false);
            }
            new.backup = Backup::new(config);
        }
        self.nodes[i] = new;
    }

    /// Each knows exactly what the other has, and says so.
    fn check(&self, what: &str) {
        for (a, b) in [(0, 1), (1, 0)] {
            let (a, b) = (&self.nodes[a], &self.nodes[b]);
            let now = self.now + b.ahead_ms;
            let peer = b.backup.peers(now).find(|p| p.origin == a.origin());
            let peer = peer.unwrap_or_else(|| panic!("{what}: {:?} does not know {:?}", b.identity, a.identity));
            assert!(peer.whole, "{what}: {:?} has not caught up: {peer:?}", b.identity);
            assert!(peer.lag_ms < 1000, "{what}: {peer:?}");
            let (own, learned) = (a.told_to(b.identity), b.learned_from(a.origin()));
            let missing: Vec<_> = own.difference(&learned).take(3).collect();
            let more: Vec<_> = learned.difference(&own).take(3).collect();
            assert!(own == learned, "{what}: missing {missing:?}, too many {more:?}, {peer:?}");
        }
    }
}

fn shape(seed: u64) -> Shape {
    let mut r = Rand(seed ^ 0xabcd);
    Shape {
        loss: [0, 1, 5, 20, 40][r.below(5) as usize],
        double: r.below(20),
        reorder: r.below(50),
        deletes: r.below(2) == 0,
        small: r.below(3) == 0,
        key: r.below(8) == 0,
    }
}

/// Waits for the network to be quiet, then for as long as it may take to find out what is missing:
/// a hello, a repair or a bulk. The network is no better than before but for the last seconds.
fn settle(world: &mut World) {
    world.run(4000);
    (world.shape.loss, world.shape.reorder) = (0, 0);
    world.run(8000);
    if !world.shape.deletes {
        // Nobody said what was taken away: a bulk does.
        world.nodes.iter_mut().for_each(|n| n.master.resend_all());
        world.run(2000);
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    // DIRIGENT_SYNC_SEEDS=FROM..TO for more.
    match std::env::var("DIRIGENT_SYNC_SEEDS").ok().and_then(|s| {
        let (a, b) = s.split_once("..")?;
        Some(a.parse().ok()?..b.parse().ok()?)
    }) {
        Some(range) => range,
        None => 0..default,
    }
}

/// Both active, each with clients of its own: what one has the other learns.
#[test]
fn both_active_with_restarts() {
    for seed in seeds(200) {
        let mut world = World::new(seed, shape(seed));
        let rounds = 2 + world.rand.below(3);
        for _ in 0..rounds {
            for _ in 0..world.rand.below(150) {
                for i in 0..2u64 {
                    for _ in 0..world.rand.below(6) {
                        let now = world.now;
                        world.nodes[i as usize].change(now, &mut world.rand, 1000 * (i + 1)..1000 * (i + 1) + 300);
                    }
                }
                world.step();
            }
            match world.rand.below(5) {
                // Away for so long that the other forgets it is there, or not.
                0 => {
                    let i = world.rand.below(2) as usize;
                    world.nodes[i].up = false;
                    let away = world.rand.below(8000);
                    world.run(away);
                    world.restart(i, false);
                }
                1 => {
                    let i = world.rand.below(2) as usize;
                    world.restart(i, true);
                }
                _ => {}
            }
        }
        settle(&mut world);
        world.check(&format!("seed {seed}"));
    }
}

/// Clients move between the nodes: whoever saw a packet last has it, and both agree.
#[test]
fn connections_that_move_are_the_last_ones() {
    for seed in seeds(60) {
        let mut world = World::new(seed, Shape { loss: shape(seed).loss.min(20), ..shape(seed) });
        let mut last: BTreeMap<Key, (usize, u16)> = BTreeMap::new();
        for _ in 0..40 {
            // A connection has packets at one node for a while.
            let i = world.rand.below(2) as usize;
            for _ in 0..5 {
                let port = 3000 + world.rand.below(100);
                let state = world.rand.below(11) as u16;
                let r = record(port, state, false, 0);
                let node = &mut world.nodes[i];
                let now = world.now + node.ahead_ms;
                last.insert(r.key(), (i, state));
                let entry = Entry { record: r.clone(), whose: Whose::Own, mark: 0, seen_ms: now };
                node.table.insert(&r.key(), entry);
                node.master.send(now, Whose::Own, &r);
            }
            // The way is at most 150 ms: what comes closer together may be ordered either way.
            world.run(250);
        }
        settle(&mut world);
        // A last bulk of each, so that all was compared on a quiet network.
        for node in &mut world.nodes {
            node.master.resend_all();
        }
        world.run(3000);
        assert_eq!(world.nodes[0].all(), world.nodes[1].all(), "seed {seed}");
        for (key, (i, state)) in &last {
            for (n, node) in world.nodes.iter().enumerate() {
                let entry = node.table.get(key).unwrap();
                assert_eq!(entry.record.state, *state, "seed {seed}: node {n}, last at {i}");
                assert_eq!(entry.whose == Whose::Own, n == *i, "seed {seed}: node {n}, last at {i}, {entry:?}");
            }
        }
    }
}

/// What was learned is not told back, nor kept from a peer that has lost it.
#[test]
fn a_node_that_lost_all_gets_back_what_was_learned_from_it() {
    let quiet = Shape { loss: 0, double: 0, reorder: 0, deletes: true, small: false, key: false };
    let mut world = World::new(1, quiet);
    for _ in 0..200 {
        let now = world.now;
        world.nodes[0].change(now, &mut world.rand, 1000..1300);
        world.step();
    }
    world.run(5000);
    let before = world.nodes[0].own();
    assert!(before.len() > 50);
    assert_eq!(world.nodes[1].master.metrics().records, 0, "no echo");
    world.restart(0, false);
    world.run(5000);
    assert_eq!(world.nodes[0].learned_from(world.nodes[1].origin()), before);
    assert_eq!(world.nodes[1].all(), world.nodes[0].all());
    // And no loop: node 1 has nothing of its own.
    assert_eq!(world.nodes[0].master.metrics().records, 0);
}

/// A backup joins a master that has very many connections, while there is news.
#[test]
fn a_backup_that_joins_learns_all() {
    for (seed, count) in [(1, 10_000u64), (2, 10_000), (3, 50_000)] {
        let lossy = Shape { loss: 3 * (seed % 2), double: 1, reorder: 10, deletes: true, small: false, key: false };
        let mut world = World::new(seed, lossy);
        world.nodes[1].up = false;
        for port in 0..count {
            let r = record(port, 1, false, 0);
            let key = r.key();
            let seen_ms = world.nodes[0].ahead_ms;
            world.nodes[0].table.insert(&key, Entry { record: r, whose: Whose::Own, mark: 0, seen_ms });
        }
        world.run(1000);
        world.restart(1, false);
        let joined = world.now;
        let whole = |world: &World| {
            let n = &world.nodes[1];
            n.backup.peers(world.now + n.ahead_ms).any(|p| p.whole)
        };
        while !whole(&world) {
            for _ in 0..3 {
                let now = world.now;
                world.nodes[0].change(now, &mut world.rand, 0..count);
            }
            world.step();
            assert!(world.now - joined < 30_000, "seed {seed}: not whole in time");
        }
        // Paced: 64 bytes are reckoned for a connection.
        let least = count * 64 * 1000 / (4 << 20);
        assert!(world.now - joined >= least.saturating_sub(100), "{} ms", world.now - joined);
        settle(&mut world);
        world.check(&format!("seed {seed}"));
        let metrics: Vec<_> = world.nodes[1].backup.peers(world.now + world.nodes[1].ahead_ms).collect();
        assert_eq!(metrics[0].expected, world.nodes[0].own().len() as u64);
        assert!(seed % 2 == 0 || metrics[0].repaired > 0, "{metrics:?}");
    }
}
