//! The tables in memory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use dirigent_director::records::{
    Conn, Counters, Datagram, ERROR_WORDS, Known, Link, MARK_RULES, MarkRule, NextHop, Note, Noted, Piece, Place,
    Server, Service, Settings, Tuple, setting,
};
use dirigent_director::schedule::{self, Client};
use dirigent_director::shared::S64;
use dirigent_director::sieve;
use dirigent_director::tables::{Insert, Route, Step, Tables};
use dirigent_director::verdict::Reason;
use dirigent_wire::{Addr4, Addr6};

use super::routes::{LocalNet, Routes, SourceNet};
use super::seen::{Seen, Watch};
use crate::keys::{Flow, Spot};

/// How much the tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Entries of each connection table (NAT: two a connection).
    pub conns: usize,
    /// Virtual services.
    pub services: usize,
    /// Real servers.
    pub servers: usize,
    /// Slots for lists and mh tables.
    pub slots: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { conns: 1 << 16, services: 256, servers: 1024, slots: 1 << 16 }
    }
}

/// The tables of a director in memory, with a clock that only its owner moves. The
/// fields are open to tests; in service [`crate::control`] fills them.
#[derive(Clone, Debug)]
pub struct MemoryTables {
    /// Ticks.
    pub now: u32,
    /// Largest number of entries of each connection table.
    pub conn_limit: usize,
    /// Connections, IPv4.
    pub conns4: HashMap<Tuple<Addr4>, Conn<Addr4>>,
    /// Connections, IPv6.
    pub conns6: HashMap<Tuple<Addr6>, Conn<Addr6>>,
    /// Virtual services by place, IPv4.
    pub services4: HashMap<Place<Addr4>, u32>,
    /// Virtual services by place, IPv6.
    pub services6: HashMap<Place<Addr6>, u32>,
    /// NAT servers, IPv4.
    pub known4: HashMap<Place<Addr4>, Known>,
    /// NAT servers, IPv6.
    pub known6: HashMap<Place<Addr6>, Known>,
    /// Pins of probes, IPv4.
    pub pins4: HashMap<Tuple<Addr4>, Conn<Addr4>>,
    /// Pins of probes, IPv6.
    pub pins6: HashMap<Tuple<Addr6>, Conn<Addr6>>,
    /// First pieces of datagrams, IPv4.
    pub datagrams4: HashMap<Piece<Addr4>, Datagram>,
    /// First pieces of datagrams, IPv6.
    pub datagrams6: HashMap<Piece<Addr6>, Datagram>,
    /// This host's addresses, IPv4.
    pub local4: HashSet<Addr4>,
    /// This host's addresses, IPv6.
    pub local6: HashSet<Addr6>,
    /// Prefixes that are this host's.
    pub local_nets: BTreeSet<LocalNet>,
    /// Clients of services that judge them, and whether they may.
    pub sources: HashMap<SourceNet, bool>,
    /// Virtual services.
    pub services: Vec<Service>,
    /// Real servers.
    pub servers: Vec<Server>,
    /// Their next hops.
    pub next_hops: Vec<NextHop>,
    /// Lists and mh tables.
    pub slots: Vec<u32>,
    /// Mark rules.
    pub mark_rules: Vec<MarkRule>,
    /// Interfaces in use.
    pub links: HashMap<u32, Link>,
    /// Settings, once there are some.
    pub settings: Option<Settings>,
    /// Bits of addresses by slot: [`dirigent_director::sieve`].
    pub(crate) sieve: Box<[u8; sieve::SLOTS]>,
    /// The host's routing table.
    pub routes: Routes,
    counters: RefCell<Vec<Counters>>,
    pub(crate) origins: Vec<Counters>,
    pub(crate) bases: Vec<Counters>,
    reasons: RefCell<Vec<u64>>,
    errors: Vec<S64>,
    /// What lblc and lblcr noted.
    pub(crate) notes: RefCell<HashMap<Noted, Note>>,
    /// Connections and templates that other directors are to be told of.
    pub(crate) news4: RefCell<Vec<Tuple<Addr4>>>,
    pub(crate) news6: RefCell<Vec<Tuple<Addr6>>>,
    stashed: Cell<u64>,
    kept: Cell<u64>,
    led: Cell<u32>,
    random: Cell<u32>,
    watch: Watch,
    /// How often user space has written anything, each slot by itself.
    pub(crate) written: u64,
}

impl Default for MemoryTables {
    fn default() -> Self {
        Self::new(&Capacity::default())
    }
}

impl MemoryTables {
    /// Empty tables.
    #[must_use]
    pub fn new(capacity: &Capacity) -> Self {
        Self {
            // Shortly before the clock wraps: what forgets about it shows.
            now: u32::MAX - 2000,
            conn_limit: capacity.conns,
            conns4: HashMap::new(),
            conns6: HashMap::new(),
            services4: HashMap::new(),
            services6: HashMap::new(),
            known4: HashMap::new(),
            known6: HashMap::new(),
            pins4: HashMap::new(),
            pins6: HashMap::new(),
            datagrams4: HashMap::new(),
            datagrams6: HashMap::new(),
            local4: HashSet::new(),
            local6: HashSet::new(),
            local_nets: BTreeSet::new(),
            sources: HashMap::new(),
            services: vec![Service::default(); capacity.services],
            servers: vec![Server::default(); capacity.servers],
            next_hops: vec![NextHop::default(); capacity.servers],
            slots: vec![0; capacity.slots],
            mark_rules: vec![MarkRule::default(); 2 * MARK_RULES as usize],
            links: HashMap::new(),
            settings: None,
            sieve: Box::new([0; sieve::SLOTS]),
            routes: Routes::default(),
            counters: RefCell::new(vec![Counters::default(); capacity.servers]),
            origins: vec![Counters::default(); capacity.servers],
            bases: vec![Counters::default(); capacity.services + 1],
            reasons: RefCell::new(vec![0; Reason::ALL.len()]),
            errors: (0..ERROR_WORDS).map(|_| S64::new(0)).collect(),
            notes: RefCell::default(),
            news4: RefCell::default(),
            news6: RefCell::default(),
            stashed: Cell::new(0),
            kept: Cell::new(0),
            led: Cell::new(0),
            random: Cell::new(0x2545_f491),
            watch: Watch::default(),
            written: 0,
        }
    }
    /// The next lots and the budgets of errors are those of other tables: what no table of a director in service tells.
    pub fn share_luck(&mut self, with: &Self) {
        self.random = with.random.clone();
        self.errors = with.errors.clone();
    }
    /// From now on what packets look at is noted.
    pub fn watch(&mut self) {
        self.watch.begin();
    }
    /// What was noted since; nothing is from now on.
    pub fn seen(&mut self) -> Vec<Seen> {
        self.watch.end()
    }
    /// Notes what the executor does.
    pub(super) fn note(&self, seen: Seen) {
        self.watch.note(|| seen);
    }
    /// Packets of a reason so far.
    #[must_use]
    pub fn reason(&self, reason: Reason) -> u64 {
        self.reasons.borrow().get(reason as usize).copied().unwrap_or(0)
    }
    /// The next hop of the server that [`Action::Resolve`]'s stashed word names, if it does.
    ///
    /// [`Action::Resolve`]: dirigent_director::Action::Resolve
    #[must_use]
    pub fn resolved_by(&self) -> Option<&NextHop> {
        let via = (self.stashed.get() as u32).checked_sub(1)?;
        self.next_hops.get(via as usize)
    }
    /// Counts a reason, as the kernel's shells do.
    pub(super) fn count_reason(&self, reason: Reason) {
        if let Some(count) = self.reasons.borrow_mut().get_mut(reason as usize) {
            *count += 1;
        }
    }
    /// Counters of a server.
    #[must_use]
    pub fn counters(&self, server: u32) -> Counters {
        self.counters.borrow().get(server as usize).copied().unwrap_or_default()
    }
    /// Sets a server's counters to zero.
    pub fn zero_counters(&self, server: u32) {
        self.change_counters(server, |c| *c = Counters::default());
    }
    /// Whether one of the host's prefixes has the address; `by_mark`: for a marked packet.
    fn in_local_net(&self, address: IpAddr, by_mark: bool) -> bool {
        let wanted = self.settings.as_ref().is_some_and(|s| s.flags & setting::LOCAL_NETS != 0);
        wanted && self.local_nets.iter().any(|net| net.contains(address) && (by_mark || !net.marked))
    }
    /// What the longest prefix says of a service's client.
    fn allows(&self, service: u32, client: IpAddr) -> bool {
        let own = self.sources.iter().filter(|(net, _)| net.service == service && net.contains(client));
        own.max_by_key(|(net, _)| net.length).is_some_and(|(_, may)| *may)
    }
    fn change_counters(&self, server: u32, change: impl FnOnce(&mut Counters)) {
        if let Some(counters) = self.counters.borrow_mut().get_mut(server as usize) {
            change(counters);
        }
    }
}

fn insert<K: std::hash::Hash + Eq, V>(table: &mut HashMap<K, V>, limit: usize, key: K, value: V) -> Insert {
    if table.contains_key(&key) {
        return Insert::Exists;
    }
    if table.len() >= limit {
        return Insert::Full;
    }
    table.insert(key, value);
    Insert::Done
}

impl Tables for MemoryTables {
    fn now(&self) -> u32 {
        self.now.wrapping_add(self.settings.as_ref().map_or(0, |s| s.clock_offset))
    }
    fn stash(&self, word: u64) {
        self.stashed.set(word);
    }
    fn stashed(&self) -> u64 {
        self.stashed.get()
    }
    fn keep(&self, word: u64) {
        self.kept.set(word);
    }
    fn kept(&self) -> u64 {
        self.kept.get()
    }
    fn lead(&self, mark: u32) {
        self.led.set(mark);
    }
    fn led(&self) -> u32 {
        self.led.get()
    }
    /// Xorshift: the same numbers in every run.
    fn random(&self) -> u32 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random.set(x);
        x
    }
    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref().filter(|s| s.version != 0)
    }
    fn link(&self, ifindex: u32) -> Option<&Link> {
        let link = self.links.get(&ifindex).filter(|l| l.used != 0);
        self.watch.note(|| Seen::Link(ifindex, link.is_some()));
        link
    }

    fn conn4(&self, key: &Tuple<Addr4>) -> Option<&Conn<Addr4>> {
        let conn = self.conns4.get(key);
        self.watch.note(|| Seen::Conn { flow: Flow::of4(key), server: conn.map(|conn| conn.server) });
        conn
    }
    fn conn6(&self, key: &Tuple<Addr6>) -> Option<&Conn<Addr6>> {
        let conn = self.conns6.get(key);
        self.watch.note(|| Seen::Conn { flow: Flow::of6(key), server: conn.map(|conn| conn.server) });
        conn
    }
    fn tell4(&self, key: &Tuple<Addr4>) -> bool {
        self.news4.borrow_mut().push(*key);
        true
    }
    fn tell6(&self, key: &Tuple<Addr6>) -> bool {
        self.news6.borrow_mut().push(*key);
        true
    }
    fn insert4(&mut self, key: &Tuple<Addr4>, conn: &Conn<Addr4>) -> Insert {
        let done = insert(&mut self.conns4, self.conn_limit, *key, conn.clone());
        self.watch.note(|| Seen::Insert(Flow::of4(key), done));
        done
    }
    fn insert6(&mut self, key: &Tuple<Addr6>, conn: &Conn<Addr6>) -> Insert {
        let done = insert(&mut self.conns6, self.conn_limit, *key, conn.clone());
        self.watch.note(|| Seen::Insert(Flow::of6(key), done));
        done
    }
    fn remove4(&mut self, key: &Tuple<Addr4>) {
        self.conns4.remove(key);
        self.watch.note(|| Seen::Remove(Flow::of4(key)));
    }
    fn remove6(&mut self, key: &Tuple<Addr6>) {
        self.conns6.remove(key);
        self.watch.note(|| Seen::Remove(Flow::of6(key)));
    }

    fn pin4(&self, key: &Tuple<Addr4>) -> Option<&Conn<Addr4>> {
        self.pins4.get(key)
    }
    fn pin6(&self, key: &Tuple<Addr6>) -> Option<&Conn<Addr6>> {
        self.pins6.get(key)
    }
    fn datagram4(&self, piece: &Piece<Addr4>) -> Option<&Datagram> {
        self.datagrams4.get(piece)
    }
    fn datagram6(&self, piece: &Piece<Addr6>) -> Option<&Datagram> {
        self.datagrams6.get(piece)
    }
    fn remember4(&mut self, piece: &Piece<Addr4>, datagram: &Datagram) {
        self.datagrams4.insert(*piece, *datagram);
    }
    fn remember6(&mut self, piece: &Piece<Addr6>, datagram: &Datagram) {
        self.datagrams6.insert(*piece, *datagram);
    }

    fn service4(&self, at: &Place<Addr4>) -> Option<u32> {
        let index = self.services4.get(at).copied();
        self.watch.note(|| Seen::Service(Spot::of4(at), index));
        index
    }
    fn service6(&self, at: &Place<Addr6>) -> Option<u32> {
        let index = self.services6.get(at).copied();
        self.watch.note(|| Seen::Service(Spot::of6(at), index));
        index
    }
    fn sieve(&self) -> Option<&[u8; sieve::SLOTS]> {
        Some(&self.sieve)
    }
    fn local4(&self, addr: &Addr4) -> bool {
        let address = IpAddr::from(addr.bytes());
        let is = self.local4.contains(addr) || self.in_local_net(address, false);
        self.watch.note(|| Seen::Local(address, is));
        is
    }
    fn local6(&self, addr: &Addr6) -> bool {
        let address = IpAddr::from(addr.bytes());
        let is = self.local6.contains(addr) || self.in_local_net(address, false);
        self.watch.note(|| Seen::Local(address, is));
        is
    }
    fn local_by_mark4(&self, addr: &Addr4) -> bool {
        let address = IpAddr::from(addr.bytes());
        let is = self.in_local_net(address, true);
        self.watch.note(|| Seen::LocalByMark(address, is));
        is
    }
    fn local_by_mark6(&self, addr: &Addr6) -> bool {
        let address = IpAddr::from(addr.bytes());
        let is = self.in_local_net(address, true);
        self.watch.note(|| Seen::LocalByMark(address, is));
        is
    }
    fn allows4(&self, service: u32, client: &Addr4) -> bool {
        let client = IpAddr::from(client.bytes());
        let may = self.allows(service, client);
        self.watch.note(|| Seen::Allows(service, client, may));
        may
    }
    fn allows6(&self, service: u32, client: &Addr6) -> bool {
        let client = IpAddr::from(client.bytes());
        let may = self.allows(service, client);
        self.watch.note(|| Seen::Allows(service, client, may));
        may
    }
    fn known4(&self, at: &Place<Addr4>) -> Option<&Known> {
        let known = self.known4.get(at);
        self.watch.note(|| Seen::Known(Spot::of4(at), known.map(|known| known.server)));
        known
    }
    fn known6(&self, at: &Place<Addr6>) -> Option<&Known> {
        let known = self.known6.get(at);
        self.watch.note(|| Seen::Known(Spot::of6(at), known.map(|known| known.server)));
        known
    }

    fn service(&self, index: u32) -> Option<&Service> {
        self.services.get(index as usize)
    }
    fn server(&self, index: u32) -> Option<&Server> {
        self.watch.note(|| Seen::Server(index));
        self.servers.get(index as usize)
    }
    fn next_hop(&self, server: u32) -> Option<&NextHop> {
        self.watch.note(|| Seen::NextHop(server));
        self.next_hops.get(server as usize)
    }
    fn slot(&self, index: u32) -> Option<u32> {
        self.slots.get(index as usize).copied()
    }
    fn note(&self, of: &Noted) -> Option<Note> {
        self.notes.borrow().get(of).copied()
    }
    fn write_note(&self, of: &Noted, note: &Note) -> bool {
        self.notes.borrow_mut().insert(*of, *note);
        true
    }
    fn forget_note(&self, of: &Noted) {
        self.notes.borrow_mut().remove(of);
    }
    fn mark_rule(&self, index: u32) -> Option<&MarkRule> {
        self.watch.note(|| Seen::Rule(index));
        self.mark_rules.get(index as usize)
    }
    fn walk<S: Step<Self>>(&self, n: u32, step: &mut S) {
        (0..n).all(|i| step.step(self, i));
    }
    fn schedule(&self, client: &Client) -> Option<u32> {
        self.watch.note(|| Seen::Scheduling(true));
        let chosen = schedule::schedule(self, client);
        self.watch.note(|| Seen::Scheduling(false));
        chosen
    }

    fn route4(&self, _: u32, _: &Addr4, dst: &Addr4, len: u32) -> Route {
        let to = IpAddr::from(dst.bytes());
        let answer = self.routes.route(to, len);
        self.watch.note(|| Seen::Route(to, len, answer));
        answer
    }
    fn route6(&self, _: u32, _: &Addr6, dst: &Addr6, len: u32) -> Route {
        let to = IpAddr::from(dst.bytes());
        let answer = self.routes.route(to, len);
        self.watch.note(|| Seen::Route(to, len, answer));
        answer
    }

    fn count_conn(&self, server: u32) {
        self.change_counters(server, |c| c.conns += 1);
    }
    fn count(&self, server: u32, reply: bool, bytes: u32) {
        self.watch.note(|| Seen::Count(server, reply));
        self.change_counters(server, |c| {
            let (packets, sum) = match reply {
                true => (&mut c.out_packets, &mut c.out_bytes),
                false => (&mut c.in_packets, &mut c.in_bytes),
            };
            *packets += 1;
            *sum += u64::from(bytes);
        });
    }
    fn error_budget(&self, bucket: u32) -> Option<&S64> {
        self.errors.get(bucket as usize)
    }
}
