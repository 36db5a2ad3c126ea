//! The maps, and the kernel's [`Tables`] over them. Sizes here are what a test
//! needs; the loader sets the real ones.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_NOEXIST, bpf_fib_lookup as FibParams};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_get_prandom_u32, bpf_jiffies64};
use aya_ebpf::macros::btf_map;
use dirigent_director::conn::Held;
use dirigent_director::direct::Work;
use dirigent_director::family::{V4, V6};
use dirigent_director::records::{
    CANDIDATES as MAX_CANDIDATES, Candidate, Conn, Counters, Datagram, ERROR_WORDS, Known, LESSONS as MAX_LESSONS,
    LINKS as MAX_LINKS, Lesson, Link, MARK_RULES as MAX_MARK_RULES, MarkRule, NEWS_BYTES, NextHop, Note, Noted, Piece,
    Place, Server, Service, Settings, Source, Tuple, local_net, setting,
};
use dirigent_director::schedule::{self, Client};
use dirigent_director::shared::S64;
use dirigent_director::sieve;
use dirigent_director::sync::learn::Room;
use dirigent_director::tables::{Insert, Route, Step, Tables};
use dirigent_director::verdict::Reason;
use dirigent_wire::{Addr4, Addr6, Mac};

use crate::window::{dirigent_forget, repeat};

/// User space maps these arrays into its memory and shares their atomic words.
const MMAPABLE: usize = 1 << 10;
/// Memory for what is in them only: user space fills these tables, packets never do.
const NO_PREALLOC: usize = 1;
/// Virtual services, and real servers of all of them together.
const MAX_SERVICES: usize = 16384;
const MAX_SERVERS: usize = 131_072;
/// Prefixes of clients, of all services together.
const MAX_SOURCES: usize = 65536;

#[btf_map]
static CONNS4: HashMap<Tuple<Addr4>, Conn<Addr4>, 65536> = HashMap::new();
#[btf_map]
static CONNS6: HashMap<Tuple<Addr6>, Conn<Addr6>, 65536> = HashMap::new();
#[btf_map]
static SERVICES4: HashMap<Place<Addr4>, u32, { 2 * MAX_SERVICES }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static SERVICES6: HashMap<Place<Addr6>, u32, { 2 * MAX_SERVICES }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static SERVICES: Array<Service, MAX_SERVICES, MMAPABLE> = Array::new();
#[btf_map]
static SERVERS: Array<Server, MAX_SERVERS, MMAPABLE> = Array::new();
#[btf_map]
static SLOTS: Array<u32, 4_194_304, MMAPABLE> = Array::new();
#[btf_map]
static NEXT_HOPS: Array<NextHop, MAX_SERVERS, MMAPABLE> = Array::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counters, MAX_SERVERS> = PerCpuArray::new();
// These two are user space's own, kept here as long as the counters are.
#[btf_map]
static ORIGINS: Array<Counters, MAX_SERVERS, MMAPABLE> = Array::new();
#[btf_map]
static BASES: Array<Counters, { MAX_SERVICES + 1 }> = Array::new();
#[btf_map]
static REASONS: PerCpuArray<u64, 64> = PerCpuArray::new();
#[btf_map]
static LOCAL4: HashMap<Addr4, u32, 4096> = HashMap::new();
#[btf_map]
static LOCAL6: HashMap<Addr6, u32, 4096> = HashMap::new();
#[btf_map]
static LOCAL_NETS4: LpmTrie<Addr4, u32, 16384> = LpmTrie::new();
#[btf_map]
static LOCAL_NETS6: LpmTrie<Addr6, u32, 16384> = LpmTrie::new();
#[btf_map]
static SOURCES4: LpmTrie<Source<Addr4>, u32, MAX_SOURCES> = LpmTrie::new();
#[btf_map]
static SOURCES6: LpmTrie<Source<Addr6>, u32, MAX_SOURCES> = LpmTrie::new();
#[btf_map]
static KNOWN4: HashMap<Place<Addr4>, Known, { 4 * MAX_SERVERS }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static KNOWN6: HashMap<Place<Addr6>, Known, { 4 * MAX_SERVERS }, NO_PREALLOC> = HashMap::new();
#[btf_map]
static DATAGRAMS4: LruHashMap<Piece<Addr4>, Datagram, 16384> = LruHashMap::new();
#[btf_map]
static DATAGRAMS6: LruHashMap<Piece<Addr6>, Datagram, 16384> = LruHashMap::new();
#[btf_map]
static LINKS: Array<Link, { MAX_LINKS as usize }> = Array::new();
#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
static SIEVE: Array<[u8; sieve::SLOTS], 1, MMAPABLE> = Array::new();
#[btf_map]
static ERRORS: Array<S64, { ERROR_WORDS as usize }> = Array::new();
#[btf_map]
static CANDIDATES: Array<Candidate, { MAX_CANDIDATES as usize }, MMAPABLE> = Array::new();
#[btf_map]
static MARK_RULES: Array<MarkRule, { 2 * MAX_MARK_RULES as usize }> = Array::new();

#[btf_map]
static NOTES: LruHashMap<Noted, Note, 65536> = LruHashMap::new();

/// Pins of probes, two each.
const MAX_PINS: usize = 65536;
#[btf_map]
static PINS4: HashMap<Tuple<Addr4>, Conn<Addr4>, MAX_PINS, NO_PREALLOC> = HashMap::new();
#[btf_map]
static PINS6: HashMap<Tuple<Addr6>, Conn<Addr6>, MAX_PINS, NO_PREALLOC> = HashMap::new();

#[btf_map]
static LESSONS: Array<Lesson, { MAX_LESSONS as usize }, MMAPABLE> = Array::new();
/// Connections and templates that other directors are to be told of: their keys.
#[btf_map]
static NEWS: RingBuf<Tuple<Addr6>, { NEWS_BYTES as usize }> = RingBuf::new();
/// Where what other directors told of is put together.
#[btf_map]
static ROOM4: Array<Room<V4>, 1> = Array::new();
#[btf_map]
static ROOM6: Array<Room<V6>, 1> = Array::new();

/// Words of the packet under way: two for a later stage (1 and 2), its mark (3). Each has been in its place since
/// there was a word 0: programs of that time may still run when the map is taken over.
#[btf_map]
static SCRATCH: PerCpuArray<u64, 4> = PerCpuArray::new();

/// A key that is looked for, and not to lie on the stack.
#[btf_map]
static KEY4: PerCpuArray<Tuple<Addr4>, 1> = PerCpuArray::new();
#[btf_map]
static KEY6: PerCpuArray<Tuple<Addr6>, 1> = PerCpuArray::new();

/// What a later stage works on.
#[btf_map]
static WORK4: PerCpuArray<Work<V4>, 1> = PerCpuArray::new();
#[btf_map]
static WORK6: PerCpuArray<Work<V6>, 1> = PerCpuArray::new();

/// The work space of this CPU: programs run to their end with softirqs off, so
/// there is one at a time.
#[inline(always)]
pub fn work4() -> Option<&'static mut Work<V4>> {
    // SAFETY: a per-CPU element, zero at first, which is a value of every field.
    WORK4.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// The same for IPv6.
#[inline(always)]
pub fn work6() -> Option<&'static mut Work<V6>> {
    // SAFETY: as `work4`.
    WORK6.get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

const _: () = assert!(Reason::ALL.len() <= 64);

/// Counts a verdict's reason.
#[inline(always)]
pub fn count_reason(reason: Reason) {
    count_reasons(reason, 1);
}

/// Counts a reason for several packets.
#[inline(always)]
pub fn count_reasons(reason: Reason, packets: u64) {
    if let Some(count) = REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { *count += packets };
    }
}

/// Candidate number `i` of the expire step.
#[inline(always)]
pub fn candidate(i: u32) -> Option<&'static mut Candidate> {
    // SAFETY: user space writes candidates before it runs the step and reads
    // them after; it runs one step at a time.
    CANDIDATES.get_ptr_mut(i).map(|c| unsafe { &mut *c })
}

/// Lesson number `i` of the learning step, with the room for it.
#[inline(always)]
pub fn lesson(i: u32) -> Option<(&'static mut Lesson, &'static mut Room<V4>, &'static mut Room<V6>)> {
    let (lesson, four, six) = (LESSONS.get_ptr_mut(i)?, ROOM4.get_ptr_mut(0)?, ROOM6.get_ptr_mut(0)?);
    // SAFETY: as `candidate`; zero at first, which is a value of every field.
    Some(unsafe { (&mut *lesson, &mut *four, &mut *six) })
}

/// The kernel's tables.
pub struct KernelTables {
    /// The program's context, which route lookups need.
    ctx: *mut c_void,
    /// Looked up once: they are asked for again and again. (The loader writes their version: there always are some.)
    settings: Option<&'static Settings>,
}

/// What `bpf_loop` calls for each number.
extern "C" fn visit<S: Step<KernelTables>>(i: u32, step: *mut c_void) -> i64 {
    // A step asks for no more: see [`Step`].
    let tables = KernelTables { ctx: core::ptr::null_mut(), settings: None };
    // SAFETY: `walk` passes its own `&mut S`.
    let step = unsafe { &mut *step.cast::<S>() };
    i64::from(!step.step(&tables, i))
}

/// The schedulers, as a global function: see [`dirigent_forget`]. Returns the index of a server, or [`u64::MAX`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dirigent_schedule(client: *const Client) -> u64 {
    // SAFETY: callers hand over a reference.
    let client = unsafe { client.as_ref() };
    let tables = KernelTables::aside();
    client.and_then(|client| schedule::schedule(&tables, client)).map_or(u64::MAX, u64::from)
}

fn inserted(result: Result<(), i32>) -> Insert {
    const EEXIST: i32 = -17;
    match result {
        Ok(()) => Insert::Done,
        Err(EEXIST) => Insert::Exists,
        Err(_) => Insert::Full,
    }
}

/// What a table holds lies at a multiple of eight bytes: said to the compiler, it reads and copies neighbours at once.
#[inline(always)]
fn aligned<T>(record: &T) -> &T {
    // SAFETY: the kernel rounds the sizes of values, and what stands in front of them, up to eight bytes.
    unsafe { core::hint::assert_unchecked(core::ptr::from_ref(record) as usize & 7 == 0) };
    record
}

impl KernelTables {
    /// For a packet.
    #[inline(always)]
    pub fn new(ctx: *mut c_void) -> Self {
        Self { ctx, settings: SETTINGS.get(0) }
    }
    /// For what asks for no routes.
    #[inline(always)]
    pub fn aside() -> Self {
        Self::new(core::ptr::null_mut())
    }
    /// Whether prefixes are to be looked at.
    #[inline(always)]
    fn local_nets(&self) -> bool {
        self.settings.is_some_and(|s| s.flags & setting::LOCAL_NETS != 0)
    }
    /// Asks the kernel's routing table; `fill` writes the addresses.
    #[inline(always)]
    fn route(&self, family: u8, ingress: u32, len: u32, fill: impl FnOnce(&mut FibParams)) -> Route {
        const SIZE: usize = size_of::<FibParams>();
        let mut zeroed = MaybeUninit::<[u64; SIZE / 8]>::uninit();
        let words = zeroed.as_mut_ptr().cast::<u64>();
        let mut i = 0;
        while i < SIZE / 8 {
            // SAFETY: within the array; volatile, lest it become a memset call.
            unsafe { words.add(i).write_volatile(0) };
            i += 1;
        }
        // SAFETY: all bytes are set and any bytes are a value; 8-aligned.
        let params = unsafe { &mut *zeroed.as_mut_ptr().cast::<FibParams>() };
        params.family = family;
        params.ifindex = ingress;
        params.__bindgen_anon_1.tot_len = if len > 0xffff { 0xffff } else { len as u16 };
        fill(params);
        // SAFETY: ctx is the program's context, params valid for its size.
        let answer = unsafe { bpf_fib_lookup(self.ctx, params, SIZE as i32, 0) };
        match answer {
            0 => {
                // SAFETY: the kernel set the field.
                let mtu = u32::from(unsafe { params.__bindgen_anon_1.mtu_result });
                Route::To { ifindex: params.ifindex, src: Mac::new(params.smac), dst: Mac::new(params.dmac), mtu }
            }
            5 => Route::NotForwarding,
            7 => Route::NoNeighbour(params.ifindex),
            // SAFETY: the kernel set the field.
            8 => Route::TooBig(u32::from(unsafe { params.__bindgen_anon_1.mtu_result })),
            _ => Route::None,
        }
    }
}

/// Whether the longest local prefix of an address has this bit.
#[inline(always)]
fn in_net4(addr: &Addr4, bit: u32) -> bool {
    LOCAL_NETS4.get(&Key::new(32, *addr)).is_some_and(|bits| bits & bit != 0)
}

/// The same for IPv6.
#[inline(always)]
fn in_net6(addr: &Addr6, bit: u32) -> bool {
    LOCAL_NETS6.get(&Key::new(128, *addr)).is_some_and(|bits| bits & bit != 0)
}

fn word(hi: u16, lo: u16) -> u32 {
    u32::from(lo) << 16 | u32::from(hi)
}

fn words6(a: &Addr6) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h] = a.0;
    [word(a, b), word(c, d), word(e, f), word(g, h)]
}

impl Tables for KernelTables {
    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: no arguments.
        let jiffies = unsafe { bpf_jiffies64() } as u32;
        match self.settings {
            Some(settings) => jiffies.wrapping_add(settings.clock_offset),
            None => jiffies,
        }
    }
    #[inline(always)]
    fn forget_all(&self, value: u64) -> u64 {
        dirigent_forget(value)
    }
    #[inline(always)]
    fn stash(&self, value: u64) {
        if let Some(word) = SCRATCH.get_ptr_mut(1) {
            // SAFETY: a per-CPU element.
            unsafe { *word = value };
        }
    }
    #[inline(always)]
    fn stashed(&self) -> u64 {
        // SAFETY: a per-CPU element.
        SCRATCH.get_ptr_mut(1).map_or(0, |word| unsafe { *word })
    }
    #[inline(always)]
    fn keep(&self, value: u64) {
        if let Some(word) = SCRATCH.get_ptr_mut(2) {
            // SAFETY: a per-CPU element.
            unsafe { *word = value };
        }
    }
    #[inline(always)]
    fn kept(&self) -> u64 {
        // SAFETY: a per-CPU element.
        SCRATCH.get_ptr_mut(2).map_or(0, |word| unsafe { *word })
    }
    #[inline(always)]
    fn lead(&self, mark: u32) {
        if let Some(word) = SCRATCH.get_ptr_mut(3) {
            // SAFETY: a per-CPU element.
            unsafe { *word = u64::from(mark) };
        }
    }
    #[inline(always)]
    fn led(&self) -> u32 {
        // SAFETY: a per-CPU element.
        SCRATCH.get_ptr_mut(3).map_or(0, |word| unsafe { *word as u32 })
    }
    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no arguments.
        unsafe { bpf_get_prandom_u32() }
    }
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        self.settings
    }
    #[inline(always)]
    fn link(&self, ifindex: u32) -> Option<&Link> {
        LINKS.get(ifindex).map(aligned).filter(|l| l.used != 0)
    }

    #[inline(always)]
    fn conn4(&self, key: &Tuple<Addr4>) -> Option<&Conn<Addr4>> {
        // SAFETY: an element may be replaced while we hold it (preallocated
        // map): every field that decides is a word of its own, and changes of
        // it are compare-and-swaps on a tagged word.
        unsafe { CONNS4.get(key) }.map(aligned)
    }
    #[inline(always)]
    fn conn6(&self, key: &Tuple<Addr6>) -> Option<&Conn<Addr6>> {
        // SAFETY: as `conn4`.
        unsafe { CONNS6.get(key) }.map(aligned)
    }
    #[inline(always)]
    fn template4(&self, make: impl FnOnce(&mut Tuple<Addr4>)) -> Option<Held<'_, Addr4>> {
        // SAFETY: a per-CPU element, all of which `make` writes; then as `conn4`.
        let key = KEY4.get_ptr_mut(0).map(|key| unsafe { &mut *key })?;
        make(key);
        Held::of(self.conn4(key)?, key)
    }
    #[inline(always)]
    fn template6(&self, make: impl FnOnce(&mut Tuple<Addr6>)) -> Option<Held<'_, Addr6>> {
        // SAFETY: as `template4`.
        let key = KEY6.get_ptr_mut(0).map(|key| unsafe { &mut *key })?;
        make(key);
        Held::of(self.conn6(key)?, key)
    }
    #[inline(always)]
    fn tell4(&self, key: &Tuple<Addr4>) -> bool {
        NEWS.output_untyped::<Tuple<Addr4>>(key, 0).is_ok()
    }
    #[inline(always)]
    fn tell6(&self, key: &Tuple<Addr6>) -> bool {
        NEWS.output_untyped::<Tuple<Addr6>>(key, 0).is_ok()
    }
    #[inline(always)]
    fn insert4(&mut self, key: &Tuple<Addr4>, conn: &Conn<Addr4>) -> Insert {
        inserted(CONNS4.insert(key, conn, u64::from(BPF_NOEXIST)))
    }
    #[inline(always)]
    fn insert6(&mut self, key: &Tuple<Addr6>, conn: &Conn<Addr6>) -> Insert {
        inserted(CONNS6.insert(key, conn, u64::from(BPF_NOEXIST)))
    }
    #[inline(always)]
    fn remove4(&mut self, key: &Tuple<Addr4>) {
        let _ = CONNS4.remove(key);
    }
    #[inline(always)]
    fn remove6(&mut self, key: &Tuple<Addr6>) {
        let _ = CONNS6.remove(key);
    }

    #[inline(always)]
    fn service4(&self, at: &Place<Addr4>) -> Option<u32> {
        // SAFETY: a word, written whole.
        unsafe { SERVICES4.get(at).copied() }
    }
    #[inline(always)]
    fn service6(&self, at: &Place<Addr6>) -> Option<u32> {
        // SAFETY: a word, written whole.
        unsafe { SERVICES6.get(at).copied() }
    }
    #[inline(always)]
    fn sieve(&self) -> Option<&[u8; sieve::SLOTS]> {
        SIEVE.get(0)
    }
    #[inline(always)]
    fn local4(&self, addr: &Addr4) -> bool {
        LOCAL4.get_ptr(addr).is_some() || self.local_nets() && in_net4(addr, local_net::ALWAYS)
    }
    #[inline(always)]
    fn local6(&self, addr: &Addr6) -> bool {
        LOCAL6.get_ptr(addr).is_some() || self.local_nets() && in_net6(addr, local_net::ALWAYS)
    }
    #[inline(always)]
    fn local_by_mark4(&self, addr: &Addr4) -> bool {
        self.local_nets() && in_net4(addr, local_net::BY_MARK)
    }
    #[inline(always)]
    fn local_by_mark6(&self, addr: &Addr6) -> bool {
        self.local_nets() && in_net6(addr, local_net::BY_MARK)
    }
    #[inline(always)]
    fn allows4(&self, service: u32, client: &Addr4) -> bool {
        let of = Source { service, addr: *client };
        SOURCES4.get(&Key::new(64, of)).is_some_and(|may| *may != 0)
    }
    #[inline(always)]
    fn allows6(&self, service: u32, client: &Addr6) -> bool {
        let of = Source { service, addr: *client };
        SOURCES6.get(&Key::new(160, of)).is_some_and(|may| *may != 0)
    }
    #[inline(always)]
    fn known4(&self, at: &Place<Addr4>) -> Option<&Known> {
        // SAFETY: read for one packet; a replaced one misleads at most that one.
        unsafe { KNOWN4.get(at) }.map(aligned)
    }
    #[inline(always)]
    fn known6(&self, at: &Place<Addr6>) -> Option<&Known> {
        // SAFETY: as `known4`.
        unsafe { KNOWN6.get(at) }.map(aligned)
    }

    #[inline(always)]
    fn pin4(&self, key: &Tuple<Addr4>) -> Option<&Conn<Addr4>> {
        // SAFETY: read for one packet; packets write none, and user space only whole ones.
        unsafe { PINS4.get(key) }.map(aligned)
    }
    #[inline(always)]
    fn pin6(&self, key: &Tuple<Addr6>) -> Option<&Conn<Addr6>> {
        // SAFETY: as `pin4`.
        unsafe { PINS6.get(key) }.map(aligned)
    }

    #[inline(always)]
    fn datagram4(&self, piece: &Piece<Addr4>) -> Option<&Datagram> {
        // SAFETY: read for one packet; a replaced one misleads at most that one.
        unsafe { DATAGRAMS4.get(piece) }
    }
    #[inline(always)]
    fn datagram6(&self, piece: &Piece<Addr6>) -> Option<&Datagram> {
        // SAFETY: as `datagram4`.
        unsafe { DATAGRAMS6.get(piece) }
    }
    #[inline(always)]
    fn remember4(&mut self, piece: &Piece<Addr4>, datagram: &Datagram) {
        // Failed: the later pieces are dropped, and counted then.
        let _ = DATAGRAMS4.insert(piece, datagram, 0);
    }
    #[inline(always)]
    fn remember6(&mut self, piece: &Piece<Addr6>, datagram: &Datagram) {
        let _ = DATAGRAMS6.insert(piece, datagram, 0);
    }

    #[inline(always)]
    fn service(&self, index: u32) -> Option<&Service> {
        SERVICES.get(index).map(aligned)
    }
    #[inline(always)]
    fn server(&self, index: u32) -> Option<&Server> {
        SERVERS.get(index).map(aligned)
    }
    #[inline(always)]
    fn next_hop(&self, server: u32) -> Option<&NextHop> {
        NEXT_HOPS.get(server).map(aligned)
    }
    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        SLOTS.get(index).copied()
    }
    #[inline(always)]
    fn note(&self, of: &Noted) -> Option<Note> {
        // SAFETY: copied; a replaced one misleads one choice.
        unsafe { NOTES.get(of).copied() }
    }
    #[inline(always)]
    fn write_note(&self, of: &Noted, note: &Note) -> bool {
        NOTES.insert(of, note, 0).is_ok()
    }
    #[inline(always)]
    fn forget_note(&self, of: &Noted) {
        let _ = NOTES.remove(of);
    }
    #[inline(always)]
    fn mark_rule(&self, index: u32) -> Option<&MarkRule> {
        MARK_RULES.get(index)
    }
    #[inline(always)]
    fn walk<S: Step<Self>>(&self, n: u32, step: &mut S) {
        // SAFETY: `visit::<S>` casts the pointer back to what it is.
        unsafe { repeat(n, visit::<S>, core::ptr::from_mut(step).cast()) };
    }
    #[inline(always)]
    fn schedule(&self, client: &Client) -> Option<u32> {
        u32::try_from(dirigent_schedule(client)).ok()
    }

    #[inline(always)]
    fn route4(&self, ingress: u32, src: &Addr4, dst: &Addr4, len: u32) -> Route {
        let ([a, b], [c, d]) = (src.0, dst.0);
        self.route(2, ingress, len, |params| {
            params.__bindgen_anon_3.ipv4_src = word(a, b);
            params.__bindgen_anon_4.ipv4_dst = word(c, d);
        })
    }
    #[inline(always)]
    fn route6(&self, ingress: u32, src: &Addr6, dst: &Addr6, len: u32) -> Route {
        self.route(10, ingress, len, |params| {
            params.__bindgen_anon_3.ipv6_src = words6(src);
            params.__bindgen_anon_4.ipv6_dst = words6(dst);
        })
    }

    #[inline(always)]
    fn count_conn(&self, server: u32) {
        if let Some(counters) = COUNTERS.get_ptr_mut(server) {
            // SAFETY: a per-CPU element; only this CPU writes it.
            unsafe { (*counters).conns += 1 };
        }
    }
    #[inline(always)]
    fn count(&self, server: u32, reply: bool, bytes: u32) {
        if let Some(counters) = COUNTERS.get_ptr_mut(server) {
            // SAFETY: a per-CPU element; only this CPU writes it.
            unsafe {
                if reply {
                    (*counters).out_packets += 1;
                    (*counters).out_bytes += u64::from(bytes);
                } else {
                    (*counters).in_packets += 1;
                    (*counters).in_bytes += u64::from(bytes);
                }
            }
        }
    }
    #[inline(always)]
    fn error_budget(&self, bucket: u32) -> Option<&S64> {
        ERRORS.get(bucket)
    }
}
