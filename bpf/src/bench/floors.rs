//! Programs that do the least that must be done, in the same language, by the same
//! compiler, with the same access to packets: what a director's cost is a multiple of.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST, xdp_action, xdp_md};
use aya_ebpf::btf_maps::{HashMap, LruHashMap};
use aya_ebpf::helpers::{bpf_jiffies64, bpf_xdp_adjust_head};
use aya_ebpf::macros::btf_map;
use dirigent_director::shared::S32;
use dirigent_wire::{Addr4, Be16, EthHeader, Header, Ipv4Header, Mac, Ports, TcpHeader, checksum, eth, ip::proto};

use crate::window::header;
use crate::xdp::Frame;

const L3: usize = 14;
const L4: usize = 34;

#[inline(always)]
fn at<H: Header>(ctx: *mut xdp_md, off: usize) -> Option<&'static mut H> {
    // SAFETY: it lies in the packet, and is looked for anew after what moves the packet.
    header::<Frame<true>, H>(ctx.cast(), off).map(|at| unsafe { &mut *at })
}

/// Nothing: what the wrapper costs.
#[inline(always)]
pub fn nothing(_: *mut xdp_md) -> u32 {
    xdp_action::XDP_TX
}

/// Swaps the MACs.
#[inline(always)]
pub fn macswap(ctx: *mut xdp_md) -> u32 {
    let Some(eth) = at::<EthHeader>(ctx, 0) else { return xdp_action::XDP_DROP };
    (eth.src, eth.dst) = (eth.dst, eth.src);
    xdp_action::XDP_TX
}

/// An outer IPv4 header with its checksum (RFC 2003).
#[inline(always)]
pub fn ipip(ctx: *mut xdp_md) -> u32 {
    let Some(old) = at::<EthHeader>(ctx, 0).map(|eth| (eth.src, eth.dst)) else { return xdp_action::XDP_DROP };
    // SAFETY: ctx is the program's.
    if unsafe { bpf_xdp_adjust_head(ctx, -20) } != 0 {
        return xdp_action::XDP_DROP;
    }
    let Some(eth) = at::<EthHeader>(ctx, 0) else { return xdp_action::XDP_DROP };
    (eth.dst, eth.src, eth.ethertype) = (old.0, old.1, Be16::new(eth::IPV4));
    let Some(ip) = at::<Ipv4Header>(ctx, L3) else { return xdp_action::XDP_DROP };
    *ip = Ipv4Header {
        version_ihl: 0x45,
        tos: 0,
        total_len: Be16::new(102),
        id: Be16::new(0),
        fragment: Be16::new(0x4000),
        ttl: 64,
        protocol: proto::IPIP,
        check: Be16::new(0),
        src: SOURCE,
        dst: SERVER.addr,
    };
    ip.check = Be16::from_raw(!ip.sum());
    xdp_action::XDP_TX
}

const SOURCE: Addr4 = Addr4([u16::from_ne_bytes([10, 1]), u16::from_ne_bytes([0, 1])]);

/// A connection's key: its packets' own tuple.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Key {
    src: Addr4,
    dst: Addr4,
    sport: Be16,
    dport: Be16,
    protocol: u32,
}

/// What is to be written.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Server {
    addr: Addr4,
    port: Be16,
    mac: Mac,
    source: Mac,
}

const SERVER: Server = Server {
    addr: Addr4([u16::from_ne_bytes([10, 1]), u16::from_ne_bytes([0, 11])]),
    port: Be16::new(8080),
    mac: Mac([u16::from_ne_bytes([2, 0]), u16::from_ne_bytes([0, 0]), u16::from_ne_bytes([1, 1])]),
    source: Mac([u16::from_ne_bytes([2, 0]), u16::from_ne_bytes([0, 0]), u16::from_ne_bytes([1, 0])]),
};

/// With the 16 bytes of a key and the kernel's 48 an element of 128 bytes.
#[repr(C)]
pub struct Padded {
    server: Server,
    seen: S32,
    rest: [u32; 10],
}

const _: () = assert!(size_of::<Key>() == 16 && size_of::<Padded>() == 64);

#[btf_map]
static FLOOR_SERVICES: HashMap<u64, u32, 64> = HashMap::new();
#[btf_map]
static FLOOR_LRU: LruHashMap<Key, Server, 1024> = LruHashMap::new();
#[btf_map]
static FLOOR_HASH: HashMap<Key, Padded, 1024> = HashMap::new();

/// A table of connections.
pub trait Conns {
    /// The known one's server; an unknown one is inserted.
    fn find(key: &Key) -> Option<Server>;
}

/// With silent eviction.
pub struct Lru;

impl Conns for Lru {
    #[inline(always)]
    fn find(key: &Key) -> Option<Server> {
        // SAFETY: read for one packet.
        match unsafe { FLOOR_LRU.get(key) } {
            Some(server) => Some(*server),
            None => {
                let server = SERVER;
                FLOOR_LRU.insert(key, &server, u64::from(BPF_ANY)).ok().map(|()| server)
            }
        }
    }
}

#[inline(always)]
fn jiffies() -> u32 {
    // SAFETY: no arguments.
    unsafe { bpf_jiffies64() as u32 }
}

#[inline(always)]
fn insert(key: &Key) -> Option<Server> {
    let padded = Padded { server: SERVER, seen: S32::new(jiffies()), rest: [0; 10] };
    FLOOR_HASH.insert(key, &padded, u64::from(BPF_NOEXIST)).ok().map(|()| SERVER)
}

/// Preallocated, nothing evicted.
pub struct Hash;

impl Conns for Hash {
    #[inline(always)]
    fn find(key: &Key) -> Option<Server> {
        // SAFETY: read for one packet.
        match unsafe { FLOOR_HASH.get(key) } {
            Some(padded) => {
                padded.seen.store(jiffies());
                Some(padded.server)
            }
            None => insert(key),
        }
    }
}

/// The same; what was inserted is removed again, and its element the next one's.
pub struct Renewed;

impl Conns for Renewed {
    #[inline(always)]
    fn find(key: &Key) -> Option<Server> {
        let found = Hash::find(key);
        let _ = FLOOR_HASH.remove(key);
        found
    }
}

/// Ethernet, IPv4, TCP; one service lookup, one connection lookup, destination address,
/// port and checksums rewritten, MACs.
#[inline(always)]
pub fn balance<C: Conns>(ctx: *mut xdp_md) -> u32 {
    balanced::<C>(ctx).unwrap_or(xdp_action::XDP_DROP)
}

#[inline(always)]
fn balanced<C: Conns>(ctx: *mut xdp_md) -> Option<u32> {
    if at::<EthHeader>(ctx, 0)?.ethertype.get() != eth::IPV4 {
        return None;
    }
    let ip = at::<Ipv4Header>(ctx, L3)?;
    if ip.version_ihl != 0x45 || ip.protocol != proto::TCP {
        return None;
    }
    let (src, dst) = (ip.src, ip.dst);
    let ports = *at::<Ports>(ctx, L4)?;
    let [a, b] = dst.0;
    let service = u64::from(a) | u64::from(b) << 16 | u64::from(ports.dst.raw()) << 32 | 6 << 48;
    // SAFETY: a word.
    unsafe { FLOOR_SERVICES.get(&service) }?;
    let key = Key { src, dst, sport: ports.src, dport: ports.dst, protocol: 6 };
    let server = C::find(&key)?;
    let [c, d] = server.addr.0;
    let addr_delta = checksum::add(checksum::delta(a, c), checksum::delta(b, d));
    let port_delta = checksum::delta(ports.dst.raw(), server.port.raw());
    let ip = at::<Ipv4Header>(ctx, L3)?;
    ip.dst = server.addr;
    ip.decrement_ttl();
    ip.patch_check(addr_delta);
    let tcp = at::<TcpHeader>(ctx, L4)?;
    tcp.ports.dst = server.port;
    tcp.check = Be16::from_raw(checksum::apply(tcp.check.raw(), checksum::add(addr_delta, port_delta)));
    let eth = at::<EthHeader>(ctx, 0)?;
    (eth.dst, eth.src) = (server.mac, server.source);
    Some(xdp_action::XDP_TX)
}
