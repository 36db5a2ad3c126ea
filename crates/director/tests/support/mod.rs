//! The least that runs the packet path: a frame, tables in hash maps, a clock that the
//! test moves. (The executor of recordings and of `dirigent explain` is
//! `dirigent-datapath::memory`; this crate cannot depend on it.)
#![allow(dead_code, reason = "each test uses its part")]
#![expect(clippy::indexing_slicing, clippy::expect_used, reason = "tests")]

use dirigent_director::direct::{direct, resume};
use dirigent_director::family::Address as _;
use dirigent_director::ftp::Line;
use dirigent_director::packet::{Packet, Plainly};
use dirigent_director::records::{
    Conn, Counters, Datagram, ERROR_WORDS, Known, Link, MarkRule, NextHop, Note, Noted, Piece, Place, Server, Service,
    Settings, Tuple, hop, kind, link_flag, server_flag,
};
use dirigent_director::shared::{S32, S64};
use dirigent_director::sieve::SLOTS;
use dirigent_director::tables::{Insert, Route, Step, Tables};
use dirigent_director::tunnel::Outer;
use dirigent_director::verdict::{Action, Verdict};
use dirigent_wire::{Addr4, Addr6, Be16, Header, Mac, checksum, crc32c, eth::EthHeads};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use zerocopy::IntoBytes as _;

pub const CLIENT_LINK: u32 = 2;
pub const SERVER_LINK: u32 = 3;
pub const MARK_LINK: u32 = 4;
pub const PROBE_LINK: u32 = 9;
/// The director's MAC on all links.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const VIP4: [u8; 4] = [192, 0, 2, 10];
pub const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
pub const VPORT: u16 = 80;
pub const SERVER_PORT: u16 = 8080;

pub fn server4(n: u8) -> [u8; 4] {
    [10, 1, 0, 11 + n]
}
pub fn client4(n: u8) -> [u8; 4] {
    [198, 51, 100, n]
}
pub fn server6(n: u8) -> [u8; 16] {
    let mut a = VIP6;
    (a[5], a[15]) = (2, 11 + n);
    a
}
pub fn client6(n: u8) -> [u8; 16] {
    let mut a = VIP6;
    (a[5], a[15]) = (3, n);
    a
}

/// A frame under way.
#[derive(Clone)]
pub struct Frame<const EASY: bool> {
    words: Vec<u64>,
    start: usize,
    end: usize,
    ingress: u32,
    /// Bytes of each segment that the device will make of it; 0: none.
    pub gso_size: u32,
    /// What netfilter has marked it with.
    pub mark: u32,
    /// Copies left to [`dirigent_director::direct::Stage::Rest`], with their words.
    pub forks: Vec<(u64, Vec<u8>)>,
}

const HEADROOM: usize = 128;

impl<const E: bool> Frame<E> {
    pub fn new(bytes: &[u8], ingress: u32) -> Self {
        let end = HEADROOM + bytes.len();
        let words = vec![0; end.div_ceil(8)];
        let mut frame = Self { words, start: HEADROOM, end, ingress, gso_size: 0, mark: 0, forks: Vec::new() };
        frame.words.as_mut_bytes()[HEADROOM..end].copy_from_slice(bytes);
        frame
    }
    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[self.start..self.end]
    }
    pub fn later(self) -> Frame<false> {
        let Self { words, start, end, ingress, gso_size, mark, forks } = self;
        Frame { words, start, end, ingress, gso_size, mark, forks }
    }
}

impl<const E: bool> Packet for Frame<E> {
    type Words = Plainly;
    const EASY: bool = E;
    const LAST: bool = true;

    fn len(&self) -> u32 {
        (self.end - self.start) as u32
    }
    fn gso_size(&self) -> u32 {
        self.gso_size
    }
    fn ingress(&self) -> u32 {
        self.ingress
    }
    fn stripped_tag(&self) -> Option<u16> {
        None
    }
    fn take_mark(&mut self) -> u32 {
        std::mem::take(&mut self.mark)
    }
    fn get<H: Header>(&self, off: usize) -> Option<&H> {
        H::ref_from_bytes(self.bytes().get(off..off + H::LEN)?).ok()
    }
    fn get_mut<H: Header>(&mut self, off: usize) -> Option<&mut H> {
        let bytes = &mut self.words.as_mut_bytes()[self.start..self.end];
        H::mut_from_bytes(bytes.get_mut(off..off + H::LEN)?).ok()
    }
    fn pull(&mut self, _: u32) {}
    fn sum(&self, off: usize, len: u32) -> Option<u16> {
        Some(checksum::sum_bytes(self.bytes().get(off..off + len as usize)?))
    }
    fn load(&self, off: usize, len: u32, to: &mut Line) -> bool {
        let (from, to) = (self.bytes().get(off..off.saturating_add(len as usize)), to.0.get_mut(..len as usize));
        let (Some(from), Some(to)) = (from, to) else { return false };
        to.copy_from_slice(from);
        true
    }
    fn store(&mut self, off: usize, len: u32, from: &Line) -> bool {
        let bytes = &mut self.words.as_mut_bytes()[self.start..self.end];
        let to = bytes.get_mut(off..off + len as usize);
        let (Some(to), Some(from)) = (to, from.0.get(..len as usize)) else { return false };
        to.copy_from_slice(from);
        true
    }
    fn pop_tag(&mut self) -> bool {
        let Some(heads) = self.get::<EthHeads>(0).copied() else { return false };
        let Some(at) = self.get_mut::<EthHeads>(4) else { return false };
        *at = heads;
        self.start += 4;
        true
    }
    fn reshape(&mut self, keep: u32, grow: u32) -> bool {
        self.end = self.end.min(self.start.saturating_add(keep as usize));
        match self.start.checked_sub(grow as usize) {
            Some(start) => self.start = start,
            None => return false,
        }
        true
    }
    fn grow(&mut self, bytes: u32, _: Outer) -> bool {
        self.reshape(u32::MAX, bytes)
    }
    fn adjust(&mut self, header: u32, change: i32) -> bool {
        let at = 14 + header as usize;
        let mut bytes = self.bytes().to_vec();
        if change < 0 {
            bytes.drain(at..at + change.unsigned_abs() as usize);
        } else {
            bytes.splice(at..at, vec![0; change as usize]);
        }
        *self = Self { forks: std::mem::take(&mut self.forks), ..Self::new(&bytes, self.ingress) };
        true
    }
    fn fork(&mut self, word: u64) -> bool {
        self.forks.push((word, self.bytes().to_vec()));
        true
    }
}

/// The tables.
pub struct Memory {
    pub now: u32,
    pub settings: Settings,
    /// Bits by slot.
    pub sieve: Box<[u8; SLOTS]>,
    /// Entries (of either direction) there is room for.
    pub room: usize,
    pub conns4: HashMap<Tuple<Addr4>, Conn<Addr4>>,
    pub conns6: HashMap<Tuple<Addr6>, Conn<Addr6>>,
    pub places4: HashMap<Place<Addr4>, u32>,
    pub places6: HashMap<Place<Addr6>, u32>,
    /// Real servers by address.
    pub known4: HashMap<Place<Addr4>, Known>,
    pub known6: HashMap<Place<Addr6>, Known>,
    pub pins4: HashMap<Tuple<Addr4>, Conn<Addr4>>,
    pub pins6: HashMap<Tuple<Addr6>, Conn<Addr6>>,
    pub datagrams4: HashMap<Piece<Addr4>, Datagram>,
    pub datagrams6: HashMap<Piece<Addr6>, Datagram>,
    pub services: Vec<Service>,
    pub servers: Vec<Server>,
    pub hops: Vec<NextHop>,
    pub slots: Vec<u32>,
    pub local4: HashSet<Addr4>,
    pub local6: HashSet<Addr6>,
    pub link: Link,
    pub mark_rules: Vec<MarkRule>,
    /// What comes by it was led there by its mark.
    pub mark_link: Link,
    /// Probes come by it.
    pub probe_link: Link,
    pub counters: RefCell<Vec<Counters>>,
    pub errors: Vec<S64>,
    pub way_back: Route,
    /// Source address of the last route lookup.
    pub routed_from: Cell<[u16; 8]>,
    /// What user space is to tell other directors of.
    pub told4: RefCell<Vec<Tuple<Addr4>>>,
    pub told6: RefCell<Vec<Tuple<Addr6>>>,
    stash: Cell<u64>,
    kept: Cell<u64>,
    led: Cell<u32>,
    seed: Cell<u32>,
}

impl Memory {
    /// One service for each protocol and family on [`VPORT`], all with servers of this
    /// method and these weights, by this scheduler.
    pub fn new(scheduler: u32, method: u8, weights: &[u32]) -> Self {
        let mac = Mac::new(MAC);
        let mut m = Self {
            now: 1_000_000,
            settings: Settings::default(),
            room: 1 << 20,
            conns4: HashMap::new(),
            conns6: HashMap::new(),
            places4: HashMap::new(),
            places6: HashMap::new(),
            known4: HashMap::new(),
            known6: HashMap::new(),
            pins4: HashMap::new(),
            pins6: HashMap::new(),
            datagrams4: HashMap::new(),
            datagrams6: HashMap::new(),
            services: Vec::new(),
            servers: Vec::new(),
            hops: Vec::new(),
            slots: Vec::new(),
            sieve: Box::new([u8::MAX; SLOTS]),
            local4: HashSet::from([Addr4::new(VIP4)]),
            local6: HashSet::from([Addr6::new(VIP6)]),
            link: Link { mac, used: 1, ..Link::default() },
            mark_rules: Vec::new(),
            mark_link: Link { mac, used: 1, flags: link_flag::MARKED, ..Link::default() },
            probe_link: Link { mac, used: 1, flags: link_flag::PROBE, ..Link::default() },
            counters: RefCell::default(),
            errors: (0..ERROR_WORDS).map(|_| S64::new(0)).collect(),
            way_back: Route::To { ifindex: CLIENT_LINK, src: mac, dst: Mac::new([2, 0, 0, 0, 0, 0xfe]), mtu: 1500 },
            routed_from: Cell::default(),
            stash: Cell::new(0),
            told4: RefCell::default(),
            told6: RefCell::default(),
            kept: Cell::new(0),
            led: Cell::new(0),
            seed: Cell::new(1),
        };
        for (v6, protocol) in [(false, 6), (false, 17), (true, 6), (true, 17), (false, 132), (true, 132)] {
            let index = m.services.len() as u32;
            let base = m.slots.len() as u64;
            for (n, weight) in weights.iter().enumerate() {
                let mut addr = [0; 8];
                let port = Be16::new(SERVER_PORT);
                let known = Known { server: m.servers.len() as u32, ..Known::default() };
                if v6 {
                    addr = Addr6::new(server6(n as u8)).0;
                    m.known6.insert(Place::new(protocol, Addr6(addr), port), known);
                } else {
                    let server = Addr4::new(server4(n as u8));
                    addr[..2].copy_from_slice(&server.0);
                    m.known4.insert(Place::new(protocol, server, port), known);
                }
                m.slots.push(m.servers.len() as u32);
                m.servers.push(Server {
                    addr,
                    port,
                    method,
                    protocol,
                    weight: S32::new(*weight),
                    flags: S32::new(server_flag::AVAILABLE),
                    service: index,
                    ..Server::default()
                });
                let dst = Mac::new([2, 0, 0, 0, 1, n as u8]);
                let state = S32::new(hop::RESOLVED);
                m.hops.push(NextHop { state, ifindex: SERVER_LINK, mtu: 1500, src: mac, dst, ..NextHop::default() });
                m.counters.borrow_mut().push(Counters::default());
            }
            m.services.push(Service {
                list: S64::new(base << 32 | weights.len() as u64),
                scheduler,
                wrr_max: weights.iter().copied().max().unwrap_or(0),
                wrr_step: 1,
                port: Be16::new(VPORT),
                ..Service::default()
            });
            if v6 {
                m.places6.insert(Place::new(protocol, Addr6::new(VIP6), Be16::new(VPORT)), index);
            } else {
                m.places4.insert(Place::new(protocol, Addr4::new(VIP4), Be16::new(VPORT)), index);
            }
        }
        m
    }

    /// Runs a frame through every stage it needs.
    pub fn run(&mut self, frame: &[u8], ingress: u32) -> (Verdict, Vec<u8>) {
        self.run_segments(frame, ingress, 0)
    }
    /// The same for what stands for several segments.
    pub fn run_segments(&mut self, frame: &[u8], ingress: u32, gso_size: u32) -> (Verdict, Vec<u8>) {
        let (verdict, frame) = self.finish(Frame { gso_size, ..Frame::new(frame, ingress) });
        (verdict, frame.bytes().to_vec())
    }
    /// The same for what netfilter has marked: the verdict, and the mark that is left.
    pub fn run_marked(&mut self, frame: &[u8], ingress: u32, mark: u32) -> (Verdict, u32) {
        let (verdict, frame) = self.finish(Frame { mark, ..Frame::new(frame, ingress) });
        (verdict, frame.mark)
    }
    fn finish(&mut self, mut first: Frame<true>) -> (Verdict, Frame<false>) {
        let mut verdict = direct(&mut first, self);
        let mut later = first.later();
        let mut stages = 0;
        while verdict.action == Action::Continue {
            stages += 1;
            assert!(stages < 33, "more tail calls than the kernel allows");
            verdict = resume(&mut later, self, verdict.ifindex);
        }
        (verdict, later)
    }

    /// (active, inactive) of each server, counted anew from the entries; and every
    /// connection's two directions are there.
    pub fn recount(&self) -> Vec<(u32, u32)> {
        let mut loads = vec![(0, 0); self.servers.len()];
        count(&self.conns4, &mut loads);
        count(&self.conns6, &mut loads);
        loads
    }
    /// What the servers' own counters say.
    pub fn counted(&self) -> Vec<(u32, u32)> {
        self.servers.iter().map(Server::connections).collect()
    }
}

fn count<A>(conns: &HashMap<Tuple<A>, Conn<A>>, loads: &mut [(u32, u32)])
where
    A: dirigent_director::family::Address + Eq + std::hash::Hash,
{
    for (key, conn) in conns {
        assert!(!conn.word().dead(), "{key:?} is dead and still there");
        match conn.kind {
            kind::NAT_REPLY => {
                let request = Tuple::new(key.proto(), key.dst, key.dport, conn.addr, conn.port);
                let other = conns.get(&request).expect("the request entry of a reply entry");
                assert_eq!(other.server, conn.server);
                continue;
            }
            kind::NAT_REQUEST => {
                let reply = Tuple::new(key.proto(), conn.addr, conn.port, key.src, key.sport);
                assert_eq!(conns.get(&reply).map(|c| c.kind), Some(kind::NAT_REPLY), "the reply entry of {key:?}");
            }
            kind::TEMPLATE => continue,
            _ => {}
        }
        let load = &mut loads[conn.server as usize];
        if conn.word().active() {
            load.0 += 1;
        } else {
            load.1 += 1;
        }
    }
}

impl Tables for Memory {
    fn now(&self) -> u32 {
        self.now.wrapping_add(self.settings.clock_offset)
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
    fn lead(&self, mark: u32) {
        self.led.set(mark);
    }
    fn led(&self) -> u32 {
        self.led.get()
    }
    fn random(&self) -> u32 {
        self.seed.set(self.seed.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.seed.get()
    }
    fn sieve(&self) -> Option<&[u8; SLOTS]> {
        Some(&self.sieve)
    }
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }
    fn link(&self, ifindex: u32) -> Option<&Link> {
        match ifindex {
            CLIENT_LINK | SERVER_LINK => Some(&self.link),
            MARK_LINK => Some(&self.mark_link),
            PROBE_LINK => Some(&self.probe_link),
            _ => None,
        }
    }
    fn conn4(&self, key: &Tuple<Addr4>) -> Option<&Conn<Addr4>> {
        self.conns4.get(key)
    }
    fn conn6(&self, key: &Tuple<Addr6>) -> Option<&Conn<Addr6>> {
        self.conns6.get(key)
    }
    fn tell4(&self, key: &Tuple<Addr4>) -> bool {
        self.told4.borrow_mut().push(*key);
        true
    }
    fn tell6(&self, key: &Tuple<Addr6>) -> bool {
        self.told6.borrow_mut().push(*key);
        true
    }
    fn insert4(&mut self, key: &Tuple<Addr4>, conn: &Conn<Addr4>) -> Insert {
        insert(&mut self.conns4, self.room, key, conn)
    }
    fn insert6(&mut self, key: &Tuple<Addr6>, conn: &Conn<Addr6>) -> Insert {
        insert(&mut self.conns6, self.room, key, conn)
    }
    fn remove4(&mut self, key: &Tuple<Addr4>) {
        self.conns4.remove(key);
    }
    fn remove6(&mut self, key: &Tuple<Addr6>) {
        self.conns6.remove(key);
    }
    fn service4(&self, at: &Place<Addr4>) -> Option<u32> {
        self.places4.get(at).copied()
    }
    fn service6(&self, at: &Place<Addr6>) -> Option<u32> {
        self.places6.get(at).copied()
    }
    fn local4(&self, addr: &Addr4) -> bool {
        self.local4.contains(addr)
    }
    fn local6(&self, addr: &Addr6) -> bool {
        self.local6.contains(addr)
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
    fn known4(&self, at: &Place<Addr4>) -> Option<&Known> {
        self.known4.get(at)
    }
    fn known6(&self, at: &Place<Addr6>) -> Option<&Known> {
        self.known6.get(at)
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
    fn service(&self, index: u32) -> Option<&Service> {
        self.services.get(index as usize)
    }
    fn server(&self, index: u32) -> Option<&Server> {
        self.servers.get(index as usize)
    }
    fn next_hop(&self, server: u32) -> Option<&NextHop> {
        self.hops.get(server as usize)
    }
    fn slot(&self, index: u32) -> Option<u32> {
        self.slots.get(index as usize).copied()
    }
    fn note(&self, _: &Noted) -> Option<Note> {
        None
    }
    fn write_note(&self, _: &Noted, _: &Note) -> bool {
        false
    }
    fn forget_note(&self, _: &Noted) {}
    fn mark_rule(&self, index: u32) -> Option<&MarkRule> {
        self.mark_rules.get(index as usize)
    }
    fn walk<S: Step<Self>>(&self, n: u32, step: &mut S) {
        (0..n).find(|i| !step.step(self, *i));
    }
    fn route4(&self, _: u32, src: &Addr4, _: &Addr4, len: u32) -> Route {
        self.routed_from.set(src.to_words());
        if len > 1500 { Route::TooBig(1500) } else { self.way_back }
    }
    fn route6(&self, _: u32, src: &Addr6, _: &Addr6, len: u32) -> Route {
        self.routed_from.set(src.to_words());
        if len > 1500 { Route::TooBig(1500) } else { self.way_back }
    }
    fn count_conn(&self, server: u32) {
        self.counters.borrow_mut()[server as usize].conns += 1;
    }
    fn count(&self, server: u32, reply: bool, bytes: u32) {
        let c = &mut self.counters.borrow_mut()[server as usize];
        let (packets, total) =
            if reply { (&mut c.out_packets, &mut c.out_bytes) } else { (&mut c.in_packets, &mut c.in_bytes) };
        *packets += 1;
        *total += u64::from(bytes);
    }
    fn error_budget(&self, bucket: u32) -> Option<&S64> {
        self.errors.get(bucket as usize)
    }
}

fn insert<A: Eq + std::hash::Hash + Copy>(
    conns: &mut HashMap<Tuple<A>, Conn<A>>,
    room: usize,
    key: &Tuple<A>,
    conn: &Conn<A>,
) -> Insert {
    if conns.contains_key(key) {
        return Insert::Exists;
    }
    if conns.len() >= room {
        return Insert::Full;
    }
    conns.insert(*key, conn.clone());
    Insert::Done
}

/// A packet to be built. `flags`: TCP's; of SCTP the type of the chunk, that there is always.
#[derive(Clone, Copy, Debug)]
pub struct Spec<A> {
    pub src: (A, u16),
    pub dst: (A, u16),
    pub protocol: u8,
    pub flags: u8,
    pub ttl: u8,
    pub payload: usize,
}

fn transport<A>(spec: &Spec<A>, addresses: &[u8]) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(spec.src.1.to_be_bytes());
    l4.extend(spec.dst.1.to_be_bytes());
    if spec.protocol == 132 {
        l4.extend([0, 0, 0, 7, 0, 0, 0, 0, spec.flags, 0]);
        l4.extend((4 + spec.payload as u16).to_be_bytes());
        l4.extend((0..spec.payload).map(|i| i as u8));
        let check = crc32c::of(&l4);
        l4[8..12].copy_from_slice(&check.to_le_bytes());
        return l4;
    }
    let check_at = if spec.protocol == 6 {
        l4.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, spec.flags, 0x20, 0, 0, 0, 0, 0]);
        16
    } else {
        l4.extend((8 + spec.payload as u16).to_be_bytes());
        l4.extend([0, 0]);
        6
    };
    l4.extend((0..spec.payload).map(|i| i as u8));
    let mut covered = addresses.to_vec();
    covered.extend([0, spec.protocol]);
    covered.extend((l4.len() as u16).to_be_bytes());
    covered.extend(&l4);
    let check = match !checksum::sum_bytes(&covered) {
        0 if spec.protocol == 17 => 0xffff,
        sum => sum,
    };
    l4[check_at..check_at + 2].copy_from_slice(&check.to_ne_bytes());
    l4
}

const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 9];

pub fn frame4(spec: Spec<[u8; 4]>) -> Vec<u8> {
    let l4 = transport(&spec, &[spec.src.0, spec.dst.0].concat());
    let mut ip = vec![0x45, 0];
    ip.extend((20 + l4.len() as u16).to_be_bytes());
    ip.extend([0, 1, 0x40, 0, spec.ttl, spec.protocol, 0, 0]);
    ip.extend(spec.src.0);
    ip.extend(spec.dst.0);
    let check = !checksum::sum_bytes(&ip);
    ip[10..12].copy_from_slice(&check.to_ne_bytes());
    [&MAC[..], &PEER_MAC, &[8, 0], &ip, &l4].concat()
}

pub fn frame6(spec: Spec<[u8; 16]>) -> Vec<u8> {
    let l4 = transport(&spec, &[spec.src.0, spec.dst.0].concat());
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend((l4.len() as u16).to_be_bytes());
    ip.extend([spec.protocol, spec.ttl]);
    ip.extend(spec.src.0);
    ip.extend(spec.dst.0);
    [&MAC[..], &PEER_MAC, &[0x86, 0xdd], &ip, &l4].concat()
}

/// Whether the IPv4 header's own checksum is right (an IPv6 header has none).
pub fn ip_checksum_holds(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([8, 0]) => {
            let header = frame.get(14).map_or(0, |b| usize::from(b & 15) * 4);
            frame.get(14..14 + header).is_some_and(|h| checksum::sum_bytes(h) == 0xffff)
        }
        _ => true,
    }
}

/// Whether IP and transport checksums are those of a recomputation, for frames without
/// options and extension headers.
pub fn checksums_hold(frame: &[u8]) -> bool {
    let (addresses, protocol, l4) = match frame.get(12..14) {
        Some([8, 0]) => (&frame[26..34], frame[23], &frame[34..]),
        _ => (&frame[22..54], frame[20], &frame[54..]),
    };
    if protocol == 132 {
        return ip_checksum_holds(frame) && crc_holds(l4);
    }
    let mut covered = addresses.to_vec();
    covered.extend([0, protocol]);
    covered.extend((l4.len() as u16).to_be_bytes());
    covered.extend(l4);
    ip_checksum_holds(frame) && checksum::sum_bytes(&covered) == 0xffff
}

/// Whether the CRC of an SCTP packet is right.
pub fn crc_holds(l4: &[u8]) -> bool {
    let zeroed = [&l4[..8], &[0; 4], &l4[12..]].concat();
    l4[8..12] == crc32c::of(&zeroed).to_le_bytes()
}
