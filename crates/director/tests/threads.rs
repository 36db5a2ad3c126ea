//! Several CPUs at once on one set of tables: packets of the same few connections, time
//! that runs, the sweep, and changes of the configuration. One CPU runs at a time, and at each
//! access to a shared word or a table any other may come in between, as a seed says: each
//! interleaving can happen, and happens again with its seed. Lookups return entries that may be
//! removed meanwhile, as the kernel's do. In the end counters equal a recount.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use dirigent_director::conn;
use dirigent_director::direct::{direct, resume};
use dirigent_director::family::V4;
use dirigent_director::records::{
    Conn, Datagram, Known, Link, MarkRule, NextHop, Note, Noted, Piece, Place, Server, Service, Settings, Tuple,
    conn_flag, kind, server_flag, service_flag,
};
use dirigent_director::shared::S64;
use dirigent_director::sieve::SLOTS;
use dirigent_director::tables::{Insert, Route, Step, Tables};
use dirigent_director::tcp::State;
use dirigent_director::verdict::{Action, Reason, Verdict};
use dirigent_wire::{Addr4, Addr6, Be16};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use support::{CLIENT_LINK, Frame, Memory, SERVER_LINK, SERVER_PORT, Spec, VIP4, VPORT, client4, frame4, server4};

type Entries = Mutex<HashMap<Tuple<Addr4>, &'static Conn<Addr4>>>;

/// What all CPUs share.
struct Shared {
    entries: Entries,
    /// Elements that are free again, the last one first: as the kernel's preallocated ones.
    free: Mutex<Vec<&'static Conn<Addr4>>>,
    /// Keys whose elements are being written.
    inserting: Mutex<Vec<Tuple<Addr4>>>,
    room: usize,
    now: AtomicU32,
    service: Service,
    servers: Vec<Server>,
    hops: Vec<NextHop>,
    settings: Settings,
    link: Link,
    way_back: Route,
    errors: S64,
}

impl Shared {
    /// An element with this content. It may have been another's, and whoever looked that one up
    /// may still hold it, and see any part of the new content before any other.
    #[expect(unsafe_code, reason = "as the kernel does it")]
    fn element(&self, conn: &Conn<Addr4>, seed: u32) -> &'static Conn<Addr4> {
        const WORDS: usize = size_of::<Conn<Addr4>>() / 8;
        // What Rust rightly forbids, Miri notices: there an element is used once.
        let free = if cfg!(miri) { None } else { self.free.lock().unwrap().pop() };
        let Some(free) = free else {
            let element: &'static UnsafeCell<_> = Box::leak(Box::new(UnsafeCell::new(conn.clone())));
            // SAFETY: it is never freed.
            return unsafe { &*element.get() };
        };
        // SAFETY: of the same size, without padding.
        let content: [u64; WORDS] = unsafe { std::mem::transmute(conn.clone()) };
        let words = std::ptr::from_ref(free).cast::<AtomicU64>();
        for n in 0..WORDS {
            point();
            let n = (n + seed as usize) % WORDS;
            // SAFETY: within the element; words in it may change at any time, which the compiler
            // assumes of all of it where one may.
            unsafe { (*words.add(n)).store(content[n], Ordering::Relaxed) };
        }
        free
    }
}

/// Whose turn it is.
struct Turn {
    of: usize,
    ended: Vec<bool>,
    seed: u32,
}

/// Lets one CPU run at a time.
struct Turns {
    turn: Mutex<Turn>,
    passed: Condvar,
    /// At one in so many points another CPU goes on.
    seldom: u32,
}

thread_local! {
    static MINE: RefCell<Option<(Arc<Turns>, usize)>> = const { RefCell::new(None) };
}

/// Another CPU may come in between here.
fn point() {
    MINE.with_borrow(|mine| {
        if let Some((turns, me)) = mine {
            turns.pass(*me, false);
        }
    });
}

impl Turns {
    fn new(cpus: usize, seed: u32, seldom: u32) -> Self {
        let turn = Turn { of: 0, ended: vec![false; cpus], seed };
        Self { turn: Mutex::new(turn), passed: Condvar::new(), seldom }
    }
    fn pass(&self, me: usize, ended: bool) {
        let mut turn = self.turn.lock().unwrap();
        turn.seed = turn.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let drawn = turn.seed >> 8;
        turn.ended[me] = ended;
        if !ended && !drawn.is_multiple_of(self.seldom) {
            return;
        }
        let others: Vec<_> = (0..turn.ended.len()).filter(|n| !turn.ended[*n]).collect();
        let Some(next) = others.get((drawn / self.seldom) as usize % others.len().max(1)) else { return };
        turn.of = *next;
        self.passed.notify_all();
        while !ended && turn.of != me {
            turn = self.passed.wait(turn).unwrap();
        }
    }
}

/// Runs these on a CPU each, in an order that the seed says, until all are through.
fn interleave<'a>(seed: u32, seldom: u32, cpus: Vec<Box<dyn FnOnce() + Send + 'a>>) {
    let turns = Arc::new(Turns::new(cpus.len(), seed, seldom));
    std::thread::scope(|scope| {
        for (me, work) in cpus.into_iter().enumerate() {
            let turns = Arc::clone(&turns);
            scope.spawn(move || {
                {
                    let mut turn = turns.turn.lock().unwrap();
                    while turn.of != me {
                        turn = turns.passed.wait(turn).unwrap();
                    }
                }
                MINE.set(Some((Arc::clone(&turns), me)));
                dirigent_director::shared::model::at_each_access(Some(point));
                work();
                dirigent_director::shared::model::at_each_access(None);
                MINE.set(None);
                turns.pass(me, true);
            });
        }
    });
}

/// One CPU's view.
struct Cpu {
    shared: Arc<Shared>,
    stash: Cell<u64>,
    kept: Cell<u64>,
    seed: Cell<u32>,
    /// The server of the last packet that was counted.
    counted: Cell<Option<u32>>,
}

impl Cpu {
    fn draw(&self) -> u32 {
        self.seed.set(self.seed.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.seed.get() >> 8
    }
    /// Runs a frame, and says to which address it goes.
    fn run(&mut self, bytes: &[u8], link: u32) -> Result<[u8; 4], Reason> {
        let mut first = Frame::<true>::new(bytes, link);
        let mut verdict = direct(&mut first, self);
        let mut later = first.later();
        // The kernel's limit of tail calls; the shells drop what reaches it.
        for _ in 0..33 {
            if verdict.action == Action::Continue {
                verdict = resume(&mut later, self, verdict.ifindex);
            }
        }
        if verdict.action == Action::Continue {
            verdict = Verdict::drop(Reason::StageMissing);
        }
        match verdict.action {
            Action::Transmit => Ok(later.bytes()[30..34].try_into().unwrap()),
            _ => Err(verdict.reason),
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
    fn lead(&self, _: u32) {}
    fn led(&self) -> u32 {
        0
    }
    fn random(&self) -> u32 {
        self.draw() << 8 ^ self.draw()
    }
    fn sieve(&self) -> Option<&[u8; SLOTS]> {
        None
    }
    fn settings(&self) -> Option<&Settings> {
        Some(&self.shared.settings)
    }
    fn link(&self, ifindex: u32) -> Option<&Link> {
        [CLIENT_LINK, SERVER_LINK].contains(&ifindex).then_some(&self.shared.link)
    }
    fn conn4(&self, key: &Tuple<Addr4>) -> Option<&Conn<Addr4>> {
        point();
        self.shared.entries.lock().unwrap().get(key).copied()
    }
    fn conn6(&self, _: &Tuple<Addr6>) -> Option<&Conn<Addr6>> {
        None
    }
    fn tell4(&self, _: &Tuple<Addr4>) -> bool {
        true
    }
    fn tell6(&self, _: &Tuple<Addr6>) -> bool {
        true
    }
    fn insert4(&mut self, key: &Tuple<Addr4>, conn: &Conn<Addr4>) -> Insert {
        point();
        self.shared.inserting.lock().unwrap().push(*key);
        let element = self.shared.element(conn, self.random());
        let mut entries = self.shared.entries.lock().unwrap();
        let full = entries.len() >= self.shared.room;
        let inserted = match entries.entry(*key) {
            Entry::Vacant(place) if !full => {
                place.insert(element);
                Insert::Done
            }
            place => {
                self.shared.free.lock().unwrap().push(element);
                if matches!(place, Entry::Occupied(_)) { Insert::Exists } else { Insert::Full }
            }
        };
        let mut inserting = self.shared.inserting.lock().unwrap();
        if let Some(at) = inserting.iter().position(|other| other == key) {
            inserting.remove(at);
        }
        inserted
    }
    fn insert6(&mut self, _: &Tuple<Addr6>, _: &Conn<Addr6>) -> Insert {
        Insert::Full
    }
    fn remove4(&mut self, key: &Tuple<Addr4>) {
        point();
        // The kernel writes an element and enters it under the lock of its bucket, which a removal waits for.
        while self.shared.inserting.lock().unwrap().contains(key) {
            point();
        }
        let removed = self.shared.entries.lock().unwrap().remove(key);
        self.shared.free.lock().unwrap().extend(removed);
    }
    fn remove6(&mut self, _: &Tuple<Addr6>) {}
    fn service4(&self, at: &Place<Addr4>) -> Option<u32> {
        (at.addr.bytes() == VIP4 && at.port.get() == VPORT && [6, 17].contains(&at.protocol)).then_some(0)
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
    fn allows4(&self, _: u32, _: &Addr4) -> bool {
        true
    }
    fn allows6(&self, _: u32, _: &Addr6) -> bool {
        true
    }
    fn known4(&self, _: &Place<Addr4>) -> Option<&Known> {
        None
    }
    fn known6(&self, _: &Place<Addr6>) -> Option<&Known> {
        None
    }
    fn pin4(&self, _: &Tuple<Addr4>) -> Option<&Conn<Addr4>> {
        None
    }
    fn pin6(&self, _: &Tuple<Addr6>) -> Option<&Conn<Addr6>> {
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
    fn count(&self, server: u32, _: bool, _: u32) {
        self.counted.set(Some(server));
    }
    fn error_budget(&self, _: u32) -> Option<&S64> {
        Some(&self.shared.errors)
    }
}

/// Operations of each CPU between two steps of the clock: no packet is under way for minutes.
const PHASE: u32 = 4;

/// One CPU's share of a phase.
fn work(cpu: &mut Cpu) {
    const FLAGS: [u8; 6] = [0x02, 0x10, 0x11, 0x04, 0x12, 0x02];
    for _ in 0..PHASE {
        let (what, port) = (cpu.draw() % 17, 1000 + (cpu.draw() % 3) as u16);
        let flags = FLAGS[(cpu.draw() % 6) as usize];
        let client = (client4(1), port);
        let (ttl, payload, protocol) = (64, 0, 6);
        match what {
            0..8 => {
                let spec = Spec { src: client, dst: (VIP4, VPORT), protocol, flags, ttl, payload };
                let _ = cpu.run(&frame4(spec), CLIENT_LINK);
            }
            8..14 => {
                let src = (server4((cpu.draw() % 2) as u8), SERVER_PORT);
                let _ = cpu.run(&frame4(Spec { src, dst: client, protocol, flags, ttl, payload }), SERVER_LINK);
            }
            14..16 => {
                let mut keys: Vec<_> = cpu.shared.entries.lock().unwrap().keys().copied().collect();
                keys.sort_by_key(|key| (key.protocol, key.src.bytes(), key.sport.get(), key.dst.bytes()));
                let force = what == 15 && cpu.draw().is_multiple_of(4);
                for key in keys {
                    let _ = conn::expire::<V4, _>(cpu, &key, force);
                }
            }
            // User space: another list, a server quiesced, removed and back.
            _ => {
                let n = (cpu.draw() % 2) as usize;
                let shared = Arc::clone(&cpu.shared);
                match cpu.draw() % 3 {
                    0 => shared.service.list.store([2, 1, 1 << 32 | 1][(cpu.draw() % 3) as usize]),
                    1 => shared.servers[n].weight.store(cpu.draw() % 2),
                    _ => shared.servers[n].flags.store([0, server_flag::AVAILABLE][(cpu.draw() % 2) as usize]),
                }
            }
        }
    }
}

/// What is counted wrongly, and the connections that lack an entry.
fn recount(shared: &Shared, method: u8) -> Vec<String> {
    let entries = shared.entries.lock().unwrap();
    let (mut loads, mut templates, mut wrong) = (vec![(0, 0); 2], vec![0; 2], Vec::new());
    let mut controlled: HashMap<u32, u32> = HashMap::new();
    for (key, conn) in entries.iter() {
        if conn.kind == kind::TEMPLATE {
            templates[conn.server as usize] += 1;
            continue;
        }
        let other = conn::partner::<V4>(key, conn);
        let has = |c: &&&Conn<Addr4>| c.is_reply() != conn.is_reply() && c.server == conn.server;
        if method == kind::NAT_REQUEST && entries.get(&other).filter(has).is_none() {
            wrong.push(format!("without the other entry: {key:?}: {conn:?}"));
        }
        if !conn.is_reply() {
            let load = &mut loads[conn.server as usize];
            if conn.word().active() {
                load.0 += 1;
            } else {
                load.1 += 1;
            }
            if conn.flags & conn_flag::CONTROLLED != 0 {
                *controlled.entry(conn.template.load()).or_default() += 1;
            }
        }
    }
    for (key, conn) in entries.iter().filter(|(_, conn)| conn.kind == kind::TEMPLATE) {
        let (tag, counted) = ((conn.link.load() >> 32) as u32, conn.link().connections());
        let there = controlled.get(&tag).copied().unwrap_or(0);
        if counted != there {
            wrong.push(format!("a template counts {counted}, there are {there}: {key:?}"));
        }
    }
    for (n, server) in shared.servers.iter().enumerate() {
        if server.connections() != loads[n] || server.persistent.load() != templates[n] {
            let (counted, persistent) = (server.connections(), server.persistent.load());
            wrong.push(format!("server {n}: {counted:?}, {persistent}; there are {:?}, {}", loads[n], templates[n]));
        }
    }
    wrong
}

fn shared(scheduler: u32, method: u8, persistent: bool, room: usize) -> Arc<Shared> {
    let m = Memory::new(scheduler, method, &[1, 2]);
    let mut service = m.services[0].clone();
    if persistent {
        (service.flags, service.persistence) = (service.flags | service_flag::PERSISTENT, 30_000);
        (service.mask, service.port) = (u32::MAX, Be16::new(VPORT));
    }
    Arc::new(Shared {
        entries: Entries::default(),
        free: Mutex::default(),
        inserting: Mutex::default(),
        room,
        now: AtomicU32::new(u32::MAX - 100_000),
        service,
        servers: m.servers[..2].to_vec(),
        hops: m.hops[..2].to_vec(),
        settings: m.settings.clone(),
        link: m.link.clone(),
        way_back: m.way_back,
        errors: S64::new(0),
    })
}

fn cpus(shared: &Arc<Shared>, count: u32, seed: u32) -> Vec<Cpu> {
    let cpu = |n| Cpu {
        shared: Arc::clone(shared),
        stash: Cell::new(0),
        kept: Cell::new(0),
        seed: Cell::new(seed.wrapping_mul(7919).wrapping_add(n * 104_729)),
        counted: Cell::new(None),
    };
    (0..count).map(cpu).collect()
}

/// `runs` fresh tables, each worked on by three CPUs.
fn many_cpus(runs: u32, method: u8, persistent: bool) {
    for run in 0..runs {
        let shared = shared(run % 3, method, persistent, if run % 4 == 3 { 3 } else { 1000 });
        let mut all = cpus(&shared, 3, run);
        for phase in 0..6 {
            let work = all.iter_mut().map(|cpu| Box::new(|| work(cpu)) as Box<dyn FnOnce() + Send>);
            interleave(run * 31 + phase, 1 << (run % 4), work.collect());
            shared.now.fetch_add(all[0].draw() % 40_000, Ordering::Relaxed);
        }
        let wrong = recount(&shared, method);
        assert!(wrong.is_empty(), "run {run}: {wrong:#?}");
    }
}

/// Fewer where threads are slow.
const RUNS: u32 = if cfg!(miri) { 2 } else { 250 };

#[test]
fn counters_stay_exact_with_many_cpus() {
    many_cpus(RUNS, kind::NAT_REQUEST, false);
}

#[test]
fn counters_stay_exact_with_many_cpus_in_direct_routing() {
    many_cpus(RUNS, kind::DR_REQUEST, false);
}

#[test]
fn counters_stay_exact_with_many_cpus_and_persistence() {
    many_cpus(RUNS, kind::NAT_REQUEST, true);
    many_cpus(RUNS, kind::DR_REQUEST, true);
}

/// One connection, on one server, to which both packets go.
#[test]
fn two_cpus_racing_one_packet_make_one_connection() {
    for (run, protocol) in (0..RUNS * 4).zip([6, 17].into_iter().cycle()) {
        let method = [kind::NAT_REQUEST, kind::DR_REQUEST][(run / 2 % 2) as usize];
        let shared = shared(run % 3, method, run / 4 % 2 == 1, 1000);
        let spec = Spec { src: (client4(1), 1000), dst: (VIP4, VPORT), protocol, flags: 0x02, ttl: 64, payload: 0 };
        let frame = frame4(spec);
        let mut went = [Err(Reason::NoService); 2];
        let (mut all, frame) = (cpus(&shared, 2, run), &frame);
        let work = all.iter_mut().zip(&mut went);
        let work = work.map(|(cpu, to)| Box::new(|| *to = cpu.run(frame, CLIENT_LINK)) as Box<dyn FnOnce() + Send>);
        interleave(run, 1 + run % 3, work.collect());
        assert!(went[0].is_ok() && went[0] == went[1], "run {run}: {went:?}");
        let entries = shared.entries.lock().unwrap().values().filter(|c| c.kind != kind::TEMPLATE).count();
        assert_eq!(entries, if method == kind::NAT_REQUEST { 2 } else { 1 }, "run {run}");
        let wrong = recount(&shared, method);
        assert!(wrong.is_empty(), "run {run}: {wrong:#?}");
    }
}

/// A connection ends and another takes its element, while a CPU has it in hand for a packet: that
/// one goes to its own server, or nowhere, and moves neither the other's state nor any counter.
#[test]
fn an_element_that_is_used_again_sends_nothing_astray() {
    const FLAGS: [u8; 4] = [0x10, 0x11, 0x04, 0x12];
    let mut forwarded = 0;
    for run in 0..RUNS * 16 {
        let (method, from_server) =
            [(kind::NAT_REQUEST, false), (kind::DR_REQUEST, false), (kind::NAT_REQUEST, true)][(run / 2 % 3) as usize];
        let shared = shared(0, method, false, 1000);
        let mut all = cpus(&shared, 2, run);
        let (ttl, payload, protocol, vip) = (64, 0, 6, (VIP4, VPORT));
        let request = |n: u8, flags| frame4(Spec { src: (client4(n), 1000), dst: vip, protocol, flags, ttl, payload });
        all[0].run(&request(1, 0x02), CLIENT_LINK).unwrap();
        let server = all[0].counted.take().unwrap();
        let src = (server4(server as u8), SERVER_PORT);
        let answer = |flags| frame4(Spec { src, dst: (client4(1), 1000), protocol, flags, ttl, payload });
        let flags = FLAGS[(run / 6 % 4) as usize];
        let (one, other) = all.split_at_mut(1);
        let (one, other) = (&mut one[0], &mut other[0]);
        let mut went = Err(Reason::NoService);
        let forward = || {
            went = match from_server {
                true => one.run(&answer(flags), SERVER_LINK),
                false => one.run(&request(1, flags), CLIENT_LINK),
            }
        };
        let key = |n| Tuple::new(6, Addr4::new(client4(n)), Be16::new(1000), Addr4::new(VIP4), Be16::new(VPORT));
        let replace = || {
            let _ = conn::expire::<V4, _>(other, &key(1), true);
            other.run(&request(2, 0x02), CLIENT_LINK).unwrap();
        };
        interleave(run, 1 + run % 3, vec![Box::new(forward), Box::new(replace)]);
        let about = format!("run {run}, flags {flags:#x}, from the server: {from_server}");
        if let Ok(to) = went {
            forwarded += 1;
            // One that says SYN may have come when its connection was gone, and opened another.
            let opened = shared.entries.lock().unwrap().get(&key(1)).map(|conn| conn.server);
            let server = opened.filter(|_| flags & 0x02 != 0).unwrap_or(server);
            let goes_to = match (method, from_server) {
                (_, true) => client4(1),
                (kind::NAT_REQUEST, _) => server4(server as u8),
                _ => VIP4,
            };
            assert_eq!((to, all[0].counted.get()), (goes_to, Some(server)), "{about}");
        }
        let state = shared.entries.lock().unwrap()[&key(2)].word().state();
        assert_eq!(state, State::SynRecv as u8, "{about}");
        let wrong = recount(&shared, method);
        assert!(wrong.is_empty(), "{about}: {wrong:#?}");
    }
    assert!(forwarded > RUNS, "{forwarded}");
}
