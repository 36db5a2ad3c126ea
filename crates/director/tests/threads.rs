//! Several CPUs at once on one set of tables: packets of the same few connections, time
//! that runs, and the sweep. Lookups return entries that may be removed meanwhile, as the
//! kernel's do. In the end counters equal a recount and every connection has both entries.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::conn;
use dirigent_director::direct::{direct, resume};
use dirigent_director::family::V4;
use dirigent_director::records::Place;
use dirigent_director::records::{
    Conn, Datagram, Known, Link, MarkRule, NextHop, Note, Noted, Piece, Server, Service, Settings, Tuple, kind,
};
use dirigent_director::shared::S64;
use dirigent_director::tables::{Insert, Route, Step, Tables};
use dirigent_director::verdict::Action;
use dirigent_wire::{Addr4, Addr6};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, RwLock};
use support::{CLIENT_LINK, Frame, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VPORT, client4, frame4, server4};

type Entries = RwLock<HashMap<Tuple<Addr4>, &'static Conn<Addr4>>>;

/// What all CPUs share.
struct Shared {
    entries: Entries,
    room: usize,
    now: AtomicU32,
    phase: Barrier,
    service: Service,
    servers: Vec<Server>,
    hops: Vec<NextHop>,
    settings: Settings,
    link: Link,
    way_back: Route,
    errors: S64,
}

/// One CPU's view.
struct Cpu {
    shared: Arc<Shared>,
    stash: Cell<u64>,
    kept: Cell<u64>,
    seed: Cell<u32>,
}

impl Cpu {
    fn draw(&self) -> u32 {
        self.seed.set(self.seed.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.seed.get() >> 8
    }
    /// Lets others run between any two table operations.
    fn pause(&self) {
        if self.draw().is_multiple_of(5) {
            std::thread::yield_now();
        }
    }
    fn run(&mut self, bytes: &[u8], link: u32) {
        let mut first = Frame::<true>::new(bytes, link);
        let mut verdict = direct(&mut first, self);
        let mut later = first.later();
        while verdict.action == Action::Continue {
            verdict = resume(&mut later, self, verdict.ifindex);
        }
    }
}

impl Tables for Cpu {
    fn now(&self) -> u32 {
        self.shared.now.load(Ordering::Relaxed)
    }
    fn stash(&self, word: u64) {
        self.stash.set(word);
    }
    fn stashed(&self) -> u64 {
        self.stash.get()
    }
    fn keep(&self, word: u64) {
        self.kept.set(word);
    }
    fn kept(&self) -> u64 {
        self.kept.get()
    }
    fn random(&self) -> u32 {
        self.draw() << 8 ^ self.draw()
    }
    fn settings(&self) -> Option<&Settings> {
        Some(&self.shared.settings)
    }
    fn link(&self, ifindex: u32) -> Option<&Link> {
        [CLIENT_LINK, SERVER_LINK].contains(&ifindex).then_some(&self.shared.link)
    }
    fn conn4(&self, key: &Tuple<Addr4>) -> Option<&Conn<Addr4>> {
        self.pause();
        self.shared.entries.read().unwrap().get(key).copied()
    }
    fn conn6(&self, _: &Tuple<Addr6>) -> Option<&Conn<Addr6>> {
        None
    }
    fn insert4(&mut self, key: &Tuple<Addr4>, conn: &Conn<Addr4>) -> Insert {
        self.pause();
        let mut entries = self.shared.entries.write().unwrap();
        if entries.contains_key(key) {
            return Insert::Exists;
        }
        if entries.len() >= self.shared.room {
            return Insert::Full;
        }
        // Leaked: whoever looked it up may still hold it when it is removed.
        entries.insert(*key, Box::leak(Box::new(conn.clone())));
        Insert::Done
    }
    fn insert6(&mut self, _: &Tuple<Addr6>, _: &Conn<Addr6>) -> Insert {
        Insert::Full
    }
    fn remove4(&mut self, key: &Tuple<Addr4>) {
        self.pause();
        self.shared.entries.write().unwrap().remove(key);
    }
    fn remove6(&mut self, _: &Tuple<Addr6>) {}
    fn service4(&self, at: &Place<Addr4>) -> Option<u32> {
        (at.addr.bytes() == VIP4 && at.port.get() == VPORT && at.protocol == 6).then_some(0)
    }
    fn service6(&self, _: &Place<Addr6>) -> Option<u32> {
        None
    }
    fn local4(&self, addr: &Addr4) -> bool {
        addr.bytes() == VIP4
    }
    fn local6(&self, _: &Addr6) -> bool {
        false
    }
    fn local_by_mark4(&self, _: &Addr4) -> bool {
        false
    }
    fn local_by_mark6(&self, _: &Addr6) -> bool {
        false
    }
    fn known4(&self, _: &Place<Addr4>) -> Option<&Known> {
        None
    }
    fn known6(&self, _: &Place<Addr6>) -> Option<&Known> {
        None
    }
    fn datagram4(&self, _: &Piece<Addr4>) -> Option<&Datagram> {
        None
    }
    fn datagram6(&self, _: &Piece<Addr6>) -> Option<&Datagram> {
        None
    }
    fn remember4(&mut self, _: &Piece<Addr4>, _: &Datagram) {}
    fn remember6(&mut self, _: &Piece<Addr6>, _: &Datagram) {}
    fn service(&self, index: u32) -> Option<&Service> {
        (index == 0).then_some(&self.shared.service)
    }
    fn server(&self, index: u32) -> Option<&Server> {
        self.shared.servers.get(index as usize)
    }
    fn next_hop(&self, server: u32) -> Option<&NextHop> {
        self.shared.hops.get(server as usize)
    }
    fn slot(&self, index: u32) -> Option<u32> {
        Some(index)
    }
    fn note(&self, _: &Noted) -> Option<Note> {
        None
    }
    fn write_note(&self, _: &Noted, _: &Note) -> bool {
        false
    }
    fn forget_note(&self, _: &Noted) {}
    fn mark_rule(&self, _: u32) -> Option<&MarkRule> {
        None
    }
    fn walk<S: Step<Self>>(&self, n: u32, step: &mut S) {
        (0..n).all(|i| step.step(self, i));
    }
    fn route4(&self, _: u32, _: &Addr4, _: &Addr4, _: u32) -> Route {
        self.shared.way_back
    }
    fn route6(&self, _: u32, _: &Addr6, _: &Addr6, _: u32) -> Route {
        Route::None
    }
    fn count_conn(&self, _: u32) {}
    fn count(&self, _: u32, _: bool, _: u32) {}
    fn error_budget(&self, _: u32) -> Option<&S64> {
        Some(&self.shared.errors)
    }
}

/// Operations of each CPU between two steps of the clock.
const PHASE: u32 = 8;

/// One CPU's share of a run.
fn work(mut cpu: Cpu, rounds: u32) {
    const FLAGS: [u8; 6] = [0x02, 0x10, 0x11, 0x04, 0x12, 0x02];
    for round in 0..rounds {
        // Time runs while all stand: no packet is under way for minutes.
        if round % PHASE == 0 {
            if cpu.shared.phase.wait().is_leader() {
                cpu.shared.now.fetch_add(cpu.draw() % 40_000, Ordering::Relaxed);
            }
            cpu.shared.phase.wait();
        }
        let (what, port) = (cpu.draw() % 16, 1000 + (cpu.draw() % 3) as u16);
        let flags = FLAGS[(cpu.draw() % 6) as usize];
        let client = (client4(1), port);
        let (ttl, payload, protocol) = (64, 0, 6);
        match what {
            0..8 => {
                let spec = Spec { src: client, dst: (VIP4, VPORT), protocol, flags, ttl, payload };
                cpu.run(&frame4(spec), CLIENT_LINK);
            }
            8..14 => {
                let src = (server4((cpu.draw() % 2) as u8), SERVER_PORT);
                cpu.run(&frame4(Spec { src, dst: client, protocol, flags, ttl, payload }), SERVER_LINK);
            }
            _ => {
                let keys: Vec<_> = cpu.shared.entries.read().unwrap().keys().copied().collect();
                let force = what == 15 && cpu.draw().is_multiple_of(4);
                for key in keys {
                    let _ = conn::expire::<V4, _>(&mut cpu, &key, force);
                }
            }
        }
    }
}

/// (active, inactive) counted anew, and the connections that lack an entry.
fn recount(shared: &Shared) -> (Vec<(u32, u32)>, Vec<String>) {
    let entries = shared.entries.read().unwrap();
    let (mut loads, mut broken) = (vec![(0, 0); shared.servers.len()], Vec::new());
    for (key, conn) in entries.iter() {
        let other = conn::partner::<V4>(key, conn);
        if entries.get(&other).is_none_or(|c| c.is_reply() == conn.is_reply() || c.server != conn.server) {
            broken.push(format!("{key:?}: {conn:?}"));
        }
        if !conn.is_reply() {
            let load = &mut loads[conn.server as usize];
            if conn.word().active() {
                load.0 += 1;
            } else {
                load.1 += 1;
            }
        }
    }
    (loads, broken)
}

/// `runs` fresh tables, each worked on by four threads.
fn many_cpus(runs: u32, rounds: u32) -> (u32, u32) {
    let (mut wrong_counts, mut broken_pairs) = (0, 0);
    for run in 0..runs {
        let m = Memory::new(run % 3, kind::NAT_REQUEST, &[1, 2]);
        let shared = Arc::new(Shared {
            entries: Entries::default(),
            room: if run % 4 == 3 { 3 } else { 1000 },
            now: AtomicU32::new(u32::MAX - 100_000),
            phase: Barrier::new(4),
            service: m.services[0].clone(),
            servers: m.servers[..2].to_vec(),
            hops: m.hops[..2].to_vec(),
            settings: m.settings.clone(),
            link: m.link.clone(),
            way_back: m.way_back,
            errors: S64::new(0),
        });
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let cpu = Cpu {
                    shared: Arc::clone(&shared),
                    stash: Cell::new(0),
                    kept: Cell::new(0),
                    seed: Cell::new(run * 7919 + n * 104_729),
                };
                std::thread::spawn(move || work(cpu, rounds))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let (loads, broken) = recount(&shared);
        let counted: Vec<_> = shared.servers.iter().map(Server::connections).collect();
        if loads != counted {
            eprintln!("run {run}: counted {counted:?}, there are {loads:?}");
            wrong_counts += 1;
        }
        if !broken.is_empty() {
            eprintln!("run {run}: without the other entry: {broken:#?}");
            broken_pairs += 1;
        }
    }
    (wrong_counts, broken_pairs)
}

/// Fewer where threads are slow.
const RUNS: u32 = if cfg!(miri) { 2 } else { 300 };

#[test]
fn counters_stay_exact_with_many_cpus() {
    assert_eq!(many_cpus(RUNS, 40).0, 0, "runs with wrong counters");
}

#[test]
fn connections_keep_both_entries_with_many_cpus() {
    assert_eq!(many_cpus(RUNS, 40).1, 0, "runs with half connections");
}
