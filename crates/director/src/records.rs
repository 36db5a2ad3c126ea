//! The records that lie in the tables, shared by kernel and user space.
//!
//! Layouts are fixed: [`LAYOUT_VERSION`] rises with any change, a test below
//! holds sizes and offsets, and a daemon that finds pinned maps of another
//! version refuses them. Every byte is a field: the kernel compares keys byte
//! by byte, so no padding may be left to chance. Addresses and ports are in
//! network byte order, everything else in the machine's.

use crate::shared::{S32, S64};
use crate::tables::Tables;
use dirigent_wire::{Be16, Mac};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of every layout in this file, and of what entries are sealed with ([`crate::conn`]).
pub const LAYOUT_VERSION: u32 = 9;

/// Which way between client and server: the key of a connection entry is the
/// packet's own tuple, so NAT has one entry for each direction.
/// (Aligned for reading several fields at once.)
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C, align(8))]
pub struct Tuple<A> {
    /// Source address of the packet.
    pub src: A,
    /// Destination address of the packet.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// IP protocol, in the first byte; the rest is zero.
    pub protocol: [u8; 4],
}

impl<A: Copy> Tuple<A> {
    /// A key from its parts.
    #[inline(always)]
    pub fn new(protocol: u8, src: A, sport: Be16, dst: A, dport: Be16) -> Self {
        Self { src, dst, sport, dport, protocol: [protocol, 0, 0, 0] }
    }
    /// The IP protocol.
    #[inline(always)]
    pub fn proto(&self) -> u8 {
        let [p, _, _, _] = self.protocol;
        p
    }
    /// The tuple of a packet that goes the other way.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, protocol: self.protocol }
    }
}

/// An address and port with protocol: key of the service table and of the
/// table of real servers. Both also hold [`Place::whole`] of each address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Place<A> {
    /// Address.
    pub addr: A,
    /// Port.
    pub port: Be16,
    /// IP protocol.
    pub protocol: u8,
    /// Zero.
    pub zero: u8,
}

impl<A> Place<A> {
    /// A key from its parts.
    #[inline(always)]
    pub fn new(protocol: u8, addr: A, port: Be16) -> Self {
        Self { addr, port, protocol, zero: 0 }
    }
}

impl<A> Place<A> {
    /// Stands for the address with all its places: a virtual or a real server's address.
    #[inline(always)]
    pub fn whole(addr: A) -> Self {
        Self::new(0, addr, Be16::new(0))
    }
    /// Stands for a firewall mark: `mark` is [`crate::family::Address::of_mark`].
    #[inline(always)]
    pub fn mark(mark: A) -> Self {
        Self { addr: mark, port: Be16::new(0), protocol: 0, zero: 1 }
    }
}

/// A client of a service, whose longest prefix in the table says whether he may open
/// connections. There is one for the rest of the clients.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Source<A> {
    /// Index of the service, all bits of which are in every prefix.
    pub service: u32,
    /// The client's address.
    pub addr: A,
}

/// Which datagram a fragment is a piece of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Piece<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification (IPv4: 16 bits of it).
    pub ident: u32,
    /// IP protocol, in the first byte; the rest is zero.
    pub protocol: [u8; 4],
}

impl<A> Piece<A> {
    /// A key from its parts.
    #[inline(always)]
    pub fn new(protocol: u8, src: A, dst: A, ident: u32) -> Self {
        Self { src, dst, ident, protocol: [protocol, 0, 0, 0] }
    }
}

/// What the first piece of a datagram said.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Datagram {
    /// Source and destination port.
    pub ports: [Be16; 2],
    /// When it came, ticks.
    pub seen: u32,
}

/// Which way an entry's packets go, and what is done to them.
pub mod kind {
    /// From the client; NAT: destination becomes the server.
    pub const NAT_REQUEST: u8 = 1;
    /// From the server; NAT: source becomes the virtual address.
    pub const NAT_REPLY: u8 = 2;
    /// From the client; direct routing: only the MAC changes.
    pub const DR_REQUEST: u8 = 3;
    /// From the client; tunnelling: unchanged inside another packet.
    pub const TUN_REQUEST: u8 = 4;
    /// No connection: a persistence template.
    pub const TEMPLATE: u8 = 5;
    /// From the server, to a probe; direct routing and tunnelling: only the MAC changes. Of
    /// pins only.
    pub const PROBE_ANSWER: u8 = 6;
}

/// Flags of [`Conn`].
pub mod conn_flag {
    /// A template controls it.
    pub const CONTROLLED: u8 = 1;
    /// Its template's key has no port (port-0, FTP and mark services).
    pub const ANY_PORT: u8 = 2;
    /// Its template's key is the mark, whatever protocol and address.
    pub const BY_MARK: u8 = 4;
    /// A control connection of FTP: see [`crate::ftp`].
    pub const FTP: u8 = 8;
    /// A data connection of FTP: what stands for its template is its control connection.
    pub const FTP_DATA: u8 = 16;
}

/// One direction of a connection. The request entry is the connection: its
/// word decides; the reply entry carries a copy of the state that may lag.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Conn<A> {
    /// State, flags and tag: see [`crate::conn::Word`].
    pub word: S64,
    /// Templates, and control connections of FTP: see [`crate::persist::Link`]. Reply: see [`crate::ways`]. Else zero.
    pub link: S64,
    /// Time of this direction's last packet, ticks; of a template the last connection's.
    pub last_seen: S32,
    /// Packets of this direction, wrapping (synchronisation wants it).
    pub packets: S32,
    /// Index of the real server (and of its next hop and counters).
    pub server: u32,
    /// Index of the virtual service.
    pub service: u32,
    /// Reply, and pins: interface on which the client's first packet came in. Request and
    /// template: who knows of it, see [`crate::sync::Told`].
    pub extra: S32,
    /// Change of the transport checksum by the address rewrite.
    pub addr_delta: u16,
    /// Change of the transport checksum by the port rewrite.
    pub port_delta: u16,
    /// Address to write: the server's (request) or the virtual one (reply).
    pub addr: A,
    /// Port to write, with the address.
    pub port: Be16,
    /// One of [`kind`].
    pub kind: u8,
    /// Bits of [`conn_flag`].
    pub flags: u8,
    /// Firewall mark of the first packet.
    pub mark: u32,
    /// Which part of the client's address its template's key has: [`Service::mask`]. FTP's data:
    /// the client's and the virtual port of its control connection, the former in the high half.
    pub mask: u32,
    /// Tag of its template, or control connection. Template: see [`Conn::told_until`].
    pub template: S32,
    /// Template: ticks it lives without a new connection. Request: see [`Conn::told_until`]. Reply: see [`crate::ways`].
    pub timeout: S32,
}

/// Flags of [`Service`].
pub mod service_flag {
    /// One-packet scheduling (UDP).
    pub const ONE_PACKET: u32 = 1;
    /// sh and mh: the client's port is hashed too.
    pub const HASH_PORT: u32 = 2;
    /// sh and mh: look further when the slot's server is not available.
    pub const HASH_FALLBACK: u32 = 4;
    /// Clients stay with their server: [`super::Service::persistence`] is set.
    pub const PERSISTENT: u32 = 8;
    /// The service is a firewall mark's.
    pub const BY_MARK: u32 = 16;
    /// Connections that this director does not know go on with the server of their hash.
    pub const STATELESS: u32 = 32;
    /// QUIC: connection ids say which server made them; [`super::Service::ids`] says which.
    pub const QUIC: u32 = 64;
    /// Not every client may open connections: SOURCES4 and SOURCES6 say who may.
    pub const JUDGED: u32 = 128;
}

/// A virtual service. The scheduling fields are for new connections only.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Service {
    /// The server list in SLOTS: base in the high half, length in the low one;
    /// one word, so that a list is replaced at once. Newest server first.
    pub list: S64,
    /// Scheduler state: rr and wrr keep position + 1 (0: before the first) in
    /// the high half and wrr its current weight in the low one.
    pub cursor: S64,
    /// A [`crate::schedule::Scheduler`].
    pub scheduler: u32,
    /// Bits of [`service_flag`].
    pub flags: u32,
    /// wrr: largest weight − (gcd − 1).
    pub wrr_max: u32,
    /// wrr: greatest common divisor of the weights.
    pub wrr_step: u32,
    /// sh, dh and mh: where the scheduler's table is; one word, so that a table is replaced by
    /// one of another size at once. See [`Service::table`].
    pub table: S64,
    /// Ticks that a new persistence template lives.
    pub persistence: u32,
    /// Which part of a client's address persistence looks at: IPv4 a mask as it lies in
    /// the packet, IPv6 the length of a prefix.
    pub mask: u32,
    /// Its firewall mark; 0: none.
    pub mark: u32,
    /// Its port; 0: any.
    pub port: Be16,
    /// Zero.
    pub zero: u16,
    /// Two in one word, so that each may change while the other does: see [`Service::ids`] (the
    /// high half) and [`Service::try_lock`] (the low one).
    pub joint: S64,
}

impl Service {
    /// sh, dh and mh: where the scheduler's table begins in SLOTS, and its slots; 0: no table.
    #[inline(always)]
    pub fn table(&self) -> (u32, u32) {
        let word = self.table.load();
        (word as u32, (word >> 32) as u32)
    }
    /// The word that says so.
    #[must_use]
    pub fn with_table(base: u32, size: u32) -> u64 {
        u64::from(size) << 32 | u64::from(base)
    }
    /// QUIC: where the servers' ids begin in SLOTS; `None`: there are none. First stands how
    /// many, then an id and a server each, in the order of the ids.
    #[inline(always)]
    pub fn ids(&self) -> Option<u32> {
        ((self.joint.load() >> 32) as u32).checked_sub(1)
    }
    /// The word that says so.
    #[must_use]
    pub fn with_ids(base: Option<u32>) -> u64 {
        base.map_or(0, |base| u64::from(base.wrapping_add(1)) << 32)
    }
    /// lblcr: one CPU changes a set of servers. Says whether it is this one; it then must unlock.
    /// A function of its own: its caller is at the limit of the stack.
    #[inline(never)]
    pub fn try_lock(&self) -> bool {
        let word = self.joint.load();
        word as u32 == 0 && self.joint.swap_if(word, word | 1)
    }
    /// The end of that.
    #[inline(always)]
    pub fn unlock(&self) {
        self.joint.add(1_u64.wrapping_neg());
    }
}

/// Flags of [`Server`].
pub mod server_flag {
    /// The server is configured; without it only its old connections refer to it.
    pub const AVAILABLE: u32 = 1;
    /// It is being drained: no new connections, whatever a template says.
    pub const DRAINING: u32 = 8;
    /// Its address is IPv6 (in a tunnel that need not be its service's family).
    pub const IPV6: u32 = 4;
    /// The weight that it is configured with is 0: of a drained one `weight` does not tell.
    pub const WEIGHTLESS: u32 = 16;
    /// It failed, and its connections are reset: see [`crate::reset`]. Packets do not look at it.
    pub const RESETTING: u32 = 32;

    /// The flags' high half: of a server that starts slowly, the share of the weight that it is
    /// configured with, in parts of 2^16; 0: all of it.
    #[must_use]
    pub const fn of_share(share: u16) -> u32 {
        (if share == 0 { 1 } else { share } as u32) << 16
    }
}

/// A real server of one virtual service.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Server {
    /// Active connections in the high half, inactive ones in the low one.
    pub load: S64,
    /// Persistence templates.
    pub persistent: S64,
    /// Address: IPv4 in the first two words.
    pub addr: [u16; 8],
    /// Port; 0: the packet's own.
    pub port: Be16,
    /// Request entry kind its connections get: one of [`kind`].
    pub method: u8,
    /// IP protocol of its service.
    pub protocol: u8,
    /// Weight for the schedulers; 0: quiesced, or drained. What it is configured with:
    /// [`Server::configured_weight`].
    pub weight: S32,
    /// Bits of [`server_flag`].
    pub flags: S32,
    /// Index of the service.
    pub service: u32,
    /// Threshold at which no more connections come; 0: none.
    pub upper: u32,
    /// Threshold under which they come again.
    pub lower: u32,
    /// The last configured weight that was not 0, by which user space fills mh's tables; packets do not look at it.
    pub last_weight: u32,
    /// 1 from the connection that reaches `upper` until enough have ended: packets write it.
    pub full: S32,
}

impl Server {
    /// The weight that it is configured with.
    #[must_use]
    pub fn configured_weight(&self) -> u32 {
        let flags = self.flags.load();
        let none = self.weight.load() == 0 && flags & server_flag::DRAINING == 0;
        if none || flags & server_flag::WEIGHTLESS != 0 { 0 } else { self.last_weight }
    }
    /// Of a server that starts slowly: the share of that weight which schedulers see, in parts
    /// of 2^16.
    #[must_use]
    pub fn share(&self) -> Option<u16> {
        let share = (self.flags.load() >> 16) as u16;
        (share != 0).then_some(share)
    }
}

/// States of a [`NextHop`].
pub mod hop {
    /// Nobody has looked yet: as without a route.
    pub const UNKNOWN: u32 = 0;
    /// MACs and interface are valid.
    pub const RESOLVED: u32 = 1;
    /// The interface is known, the neighbour's MAC is not.
    pub const NO_NEIGHBOUR: u32 = 2;
    /// No route to the server.
    pub const NO_ROUTE: u32 = 3;
    /// The server is this host.
    pub const LOCAL: u32 = 4;
    /// The server was removed; its connections wait for its return.
    pub const REMOVED: u32 = 5;

    /// Whether the MACs are whole: those of a server that is removed while a packet is on its way there stay.
    #[inline(always)]
    pub const fn has_macs(state: u32) -> bool {
        matches!(state, RESOLVED | REMOVED)
    }

    /// Whether there is a way out in this state, and so an MTU.
    #[inline(always)]
    pub const fn leads(state: u32) -> bool {
        matches!(state, RESOLVED | NO_NEIGHBOUR)
    }
}

/// What is put around tunnelled packets: [`NextHop::tunnel`] and its flags.
pub mod tunnel {
    /// Nothing: the server is not reached by a tunnel.
    pub const NONE: u8 = 0;
    /// Another IP header (RFC 2003, RFC 2473, RFC 4213).
    pub const IPIP: u8 = 1;
    /// IP and GRE (RFC 2784).
    pub const GRE: u8 = 2;
    /// IP, UDP and GUE (draft-ietf-intarea-gue, version 0).
    pub const GUE: u8 = 3;

    /// Flag: GRE's or UDP's checksum is there.
    pub const CHECKSUM: u8 = 1;
    /// Flag: [`super::NextHop::peer`] is an IPv6 address.
    pub const PEER_V6: u8 = 2;
    /// Flag: the checksum was asked for as a remote one. Only for lists: packets are the same.
    pub const REMOTE: u8 = 4;
}

/// How frames reach a real server; same index as the server. User space keeps
/// it true, all but `learned`. Written in two steps (state to `NO_NEIGHBOUR`,
/// then MACs, then `RESOLVED`) so that no CPU sees half a MAC.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct NextHop {
    /// One of [`hop`].
    pub state: S32,
    /// Outgoing interface.
    pub ifindex: u32,
    /// Largest IP packet that the route carries, a tunnel's headers included; bytes.
    pub mtu: u32,
    /// Source MAC: the interface's.
    pub src: Mac,
    /// Destination MAC: the server's or the gateway's.
    pub dst: Mac,
    /// One of [`tunnel`]'s kinds.
    pub tunnel: u8,
    /// Bits of [`tunnel`]'s flags.
    pub flags: u8,
    /// GUE: the server's UDP port.
    pub port: Be16,
    /// A smaller MTU on the way, learned from an ICMP error: see [`crate::tunnel::Learned`].
    pub learned: S32,
    /// This host's address on the way to `peer`: a tunnel's source.
    pub source: [u16; 8],
    /// Tunnel: the server's address, where it ends. Else whose MAC `dst` is: the server's
    /// or the gateway's address. IPv4 in the first two words.
    pub peer: [u16; 8],
}

/// An interface the director is attached to; index: its number.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Link {
    /// Its own MAC: frames to others pass.
    pub mac: Mac,
    /// 1 when the entry is in use.
    pub used: u16,
    /// Address of the errors sent out of it (RFC 1812 §4.3.2.4).
    pub addr4: [u16; 2],
    /// The same for IPv6.
    pub addr6: [u16; 8],
    /// Bits of [`link_flag`].
    pub flags: u32,
    /// Virtual routers whose MACs are this host's too, a bit for each number: 00:00:5e:00:01:xx (IPv4) in the first
    /// eight words, 00:00:5e:00:02:xx (IPv6) in the others (RFC 9568 §7.3).
    pub virtual_macs: [u32; 16],
}

/// Where [`Link::virtual_macs`] has a MAC: word and bit; none if it is no virtual router's.
#[inline(always)]
pub const fn virtual_mac(mac: Mac) -> Option<(u32, u32)> {
    const PREFIX: [u16; 2] = [0, u16::from_ne_bytes([0x5e, 0])];
    let Mac([a, b, c]) = mac;
    let [kind, vrid] = c.to_ne_bytes();
    if a != PREFIX[0] || b != PREFIX[1] || (kind != 1 && kind != 2) {
        return None;
    }
    let word = if kind == 2 { 8 } else { 0 } + (vrid >> 5) as u32;
    Some((word, 1 << (vrid & 31)))
}

impl Link {
    /// Whether frames to a MAC are for this host.
    #[inline(always)]
    pub fn takes<T: Tables>(&self, t: &T, mac: Mac) -> bool {
        // Unforgotten, the compiler knows that the mask is idle and drops it; kernel 6.1's verifier does not know.
        let has = |(word, bit)| self.virtual_macs.get((t.forget(word) & 15) as usize).is_some_and(|w| w & bit != 0);
        mac == self.mac || virtual_mac(mac).is_some_and(has)
    }
}

/// Bits of [`Link::flags`].
pub mod link_flag {
    /// The director's XDP program takes its packets: what XDP loses there is the director's loss.
    pub const XDP: u32 = 1;
    /// What comes by it was led here by a mark that netfilter gave it.
    pub const MARKED: u32 = 2;
    /// Probes come by it, and nothing else: see [`crate::probe`]. Both its ends have its MAC.
    pub const PROBE: u32 = 4;
}

/// Number of entries of the link table: interface numbers above are refused.
pub const LINKS: u32 = 4096;

/// Bits of [`Settings::flags`].
pub mod setting {
    /// Errors about unknown connections are scheduled (IPVS `schedule_icmp`).
    pub const SCHEDULE_ICMP: u32 = 1;
    /// Stray packets of NAT servers are refused (IPVS `nat_icmp_send`).
    pub const NAT_ICMP_SEND: u32 = 2;
    /// Replies are routed by their new source (IPVS `snat_reroute`).
    pub const SNAT_REROUTE: u32 = 4;
    /// The table of NAT servers must be asked about strangers.
    pub const KNOW_SERVERS: u32 = 8;
    /// Tunnels: DF of the inner packet is heeded and copied (IPVS `pmtu_disc`).
    pub const PMTU_DISC: u32 = 16;
    /// Connections of a removed server end with their next packet (IPVS `expire_nodest_conn`).
    pub const EXPIRE_NODEST: u32 = 32;
    /// Templates of quiesced servers are not heeded (IPVS `expire_quiescent_template`).
    pub const EXPIRE_QUIESCENT: u32 = 64;
    /// TCP connections may begin without a SYN (IPVS `sloppy_tcp`).
    pub const SLOPPY_TCP: u32 = 128;
    /// Associations may begin without an INIT (IPVS `sloppy_sctp`).
    pub const SLOPPY_SCTP: u32 = 256;
    /// TCP states by the table of IPVS's `secure_tcp`.
    pub const SECURE_TCP: u32 = 512;
    /// What a mark service has no server for goes where it was going (IPVS `cache_bypass`).
    pub const CACHE_BYPASS: u32 = 1024;
    /// A SYN of a closed connection opens a new one (IPVS `conn_reuse_mode` 1).
    pub const REUSE: u32 = 2048;
    /// The same in FIN_WAIT where answers are not seen (IPVS `conn_reuse_mode` 2).
    pub const REUSE_FIN_WAIT: u32 = 4096;
    /// Some service has port 21.
    pub const FTP: u32 = 8192;
    /// Some service has port 0.
    pub const ANY_PORT: u32 = 16384;
    /// Prefixes are local, not only addresses.
    pub const LOCAL_NETS: u32 = 32768;
    /// User space drops connections that look like a flood's (IPVS `drop_entry`); packets do not look at it.
    pub const DROP_ENTRY: u32 = 65536;
    /// Packets may come that a mark of netfilter's has led here.
    pub const LED: u32 = 131_072;
    /// Ports of a virtual address that no service has are refused (`vip_default`).
    pub const REJECT: u32 = 262_144;
    /// Packets may be a probe's, or answer one.
    pub const PROBES: u32 = 524_288;
    /// Connections are learned from other directors, or told to them.
    pub const SYNC: u32 = 1 << 20;
    /// They are told.
    pub const SYNC_MASTER: u32 = 1 << 21;
}

/// Bits that stand with a local prefix. The longest prefix that has an address says them for
/// all that have it.
pub mod local_net {
    /// For every packet.
    pub const ALWAYS: u32 = 1;
    /// For marked packets.
    pub const BY_MARK: u32 = 2;
}

/// Number of TCP states (RFC 9293 §3.3.2, and IPVS's SYNACK).
pub const TCP_STATES: usize = 11;

/// The director's settings, one record. Times in ticks (1/`hz` s).
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Settings {
    /// [`LAYOUT_VERSION`].
    pub version: u32,
    /// Bits of [`setting`].
    pub flags: u32,
    /// Ticks a second.
    pub hz: u32,
    /// Added to the kernel's clock; only tests move it.
    pub clock_offset: u32,
    /// Idle times by TCP state, the index of [`crate::tcp::State`].
    pub tcp_timeouts: [u32; 16],
    /// Idle time of UDP.
    pub udp_timeout: u32,
    /// Errors a second in total; 0: no limit.
    pub error_rate: u32,
    /// Errors at once in total.
    pub error_burst: u32,
    /// Errors a second to one destination; 0: no limit.
    pub error_dest_rate: u32,
    /// Errors at once to one destination.
    pub error_dest_burst: u32,
    /// Idle times by SCTP state, the index of [`crate::sctp::State`].
    pub sctp_timeouts: [u32; 16],
    /// lblc: ticks after which a destination that nobody asked for is forgotten.
    pub lblc_expiration: u32,
    /// lblcr: ticks after which a destination's set of servers shrinks.
    pub lblcr_expiration: u32,
    /// Mark rules: where they begin in MARK_RULES in the high half, how many in the low one.
    pub mark_rules: u32,
    /// Of so many packets that would open a connection one is dropped; 0: none.
    pub drop_rate: u32,
    /// Synchronisation: at which packet of each period a connection is told: [`crate::sync::when`].
    pub sync_threshold: u32,
    /// Packets in a period.
    pub sync_period: u32,
    /// Ticks in which a connection that only goes on is told once; 0: not limited.
    pub sync_refresh: u32,
    /// How often it is told again within that.
    pub sync_retries: u32,
    /// Ways to clients that were remembered under another number are asked for again: 1 to 65,535; 0: none is
    /// remembered. See [`crate::ways`].
    pub ways: u32,
    /// And those of another period: the bits of a time, in ticks, that say which it is.
    pub ways_period: u32,
    /// When user space last said that it would have told of changes, in ticks: for a while ways are good beyond their period.
    pub ways_followed: u32,
    /// Zero.
    pub spare: [u32; 12],
}

impl Default for Settings {
    fn default() -> Self {
        let hz = 250;
        let mut s = Self {
            version: LAYOUT_VERSION,
            flags: setting::SNAT_REROUTE | setting::PMTU_DISC | setting::REUSE,
            hz,
            clock_offset: 0,
            tcp_timeouts: [0; 16],
            udp_timeout: 300 * hz,
            error_rate: 1000,
            error_burst: 50,
            error_dest_rate: 10,
            error_dest_burst: 20,
            sctp_timeouts: [0; 16],
            lblc_expiration: 86_400 * hz,
            lblcr_expiration: 86_400 * hz,
            mark_rules: 0,
            drop_rate: 0,
            sync_threshold: 3,
            sync_period: 50,
            sync_refresh: 0,
            sync_retries: 0,
            ways: 0,
            ways_period: 0,
            ways_followed: 0,
            spare: [0; 12],
        };
        for (slot, seconds) in s.tcp_timeouts.iter_mut().zip(crate::tcp::TIMEOUTS_S) {
            *slot = seconds * hz;
        }
        for (slot, seconds) in s.sctp_timeouts.iter_mut().zip(crate::sctp::TIMEOUTS_S) {
            *slot = seconds * hz;
        }
        s
    }
}

/// Flags of [`MarkRule`].
pub mod mark_flag {
    /// The rule is for IPv6 packets, else for IPv4.
    pub const V6: u32 = 1;
    /// Matches unless the interface is `ifindex`.
    pub const NOT_LINK: u32 = 2;
    /// Matches unless the source is in the prefix.
    pub const NOT_SOURCE: u32 = 4;
    /// Matches unless the destination is in the prefix.
    pub const NOT_DEST: u32 = 8;
    /// Matches unless the source port is in the range.
    pub const NOT_SPORT: u32 = 16;
    /// Matches unless the destination port is in the range.
    pub const NOT_DPORT: u32 = 32;
    /// Matches unless the protocol is `protocol`.
    pub const NOT_PROTOCOL: u32 = 64;
}

/// A rule that marks packets: all that it says must match. Rules are gone through in order,
/// each that matches sets `mark & keep ^ value`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MarkRule {
    /// Bits of [`mark_flag`].
    pub flags: u32,
    /// Interface that the packet came in by; 0: any.
    pub ifindex: u32,
    /// Source prefix, IPv4 in the first two words.
    pub source: [u16; 8],
    /// Its mask.
    pub source_mask: [u16; 8],
    /// Destination prefix.
    pub dest: [u16; 8],
    /// Its mask.
    pub dest_mask: [u16; 8],
    /// First and last source port, in the machine's byte order.
    pub sports: [u16; 2],
    /// First and last destination port.
    pub dports: [u16; 2],
    /// IP protocol; 0: any.
    pub protocol: u32,
    /// Bits of the mark that stay.
    pub keep: u32,
    /// Bits that are flipped then.
    pub value: u32,
    /// Zero.
    pub zero: u32,
}

/// What lblc and lblcr note of a destination: the first record is the destination's, whose
/// `server` is [`NOBODY`]; lblcr has one more for each server of its set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Noted {
    /// Index of the service.
    pub service: u32,
    /// Index of the server, or [`NOBODY`].
    pub server: u32,
    /// The address that clients asked for, IPv4 in the first two words.
    pub to: [u16; 8],
}

/// No server.
pub const NOBODY: u32 = u32::MAX;

/// The note. Of a server in a set only `server` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Note {
    /// lblc: the destination's server. lblcr: the newest of its set; of a server in the set the
    /// next older one. [`NOBODY`]: no more.
    pub server: u32,
    /// lblcr: servers in the set.
    pub size: u32,
    /// When somebody asked for it last, ticks.
    pub used: u32,
    /// lblcr: when its set changed last, ticks.
    pub changed: u32,
}

/// Mark rules at most. The table holds twice as many: a new set stands beside the old one.
pub const MARK_RULES: u32 = 4096;

/// Per-CPU counters of a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Counters {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets towards the server.
    pub in_packets: u64,
    /// Their IP bytes.
    pub in_bytes: u64,
    /// Packets towards the client.
    pub out_packets: u64,
    /// Their IP bytes.
    pub out_bytes: u64,
}

impl Counters {
    /// Each of them by this function of both.
    #[must_use]
    pub fn with(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            conns: f(self.conns, other.conns),
            in_packets: f(self.in_packets, other.in_packets),
            in_bytes: f(self.in_bytes, other.in_bytes),
            out_packets: f(self.out_packets, other.out_packets),
            out_bytes: f(self.out_bytes, other.out_bytes),
        }
    }
    /// Both together; wraps.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::wrapping_add)
    }
    /// What was counted since it was `earlier`; wraps.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.with(earlier, u64::wrapping_sub)
    }
}

/// What stands in the table of real servers by address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Known {
    /// Address of the one-packet service, IPv4 in the first two words.
    pub vip: [u16; 8],
    /// Its port.
    pub vport: Be16,
    /// 1: exactly one one-packet service has this server, the fields are set;
    /// 2: several have; 0: none.
    pub one_packet: u16,
    /// Index of the server.
    pub server: u32,
}

/// A candidate of the expire step: user space writes it, the step answers.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Candidate {
    /// Key of either entry; an IPv4 key's addresses in the first two words.
    pub key: Tuple<dirigent_wire::Addr6>,
    /// Bits of [`candidate`].
    pub flags: u32,
    /// What came of it: 1 gone, 2 alive, 3 absent; 0: not asked.
    pub result: u32,
}

/// Flags of [`Candidate`].
pub mod candidate {
    /// The key is of IPv6, else of IPv4.
    pub const IPV6: u32 = 1;
    /// At once, whatever its age.
    pub const AT_ONCE: u32 = 2;
    /// Its server failed: [`crate::reset::begin`].
    pub const RESET: u32 = 4;
}

/// Candidates of one call of the expire step.
pub const CANDIDATES: u32 = 1024;

/// A connection or template that another director told of: user space writes it, the learning
/// step answers. See [`crate::sync::learn`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Lesson {
    /// Key of the request entry or template; an IPv4 key's addresses in the first two words.
    pub key: Tuple<dirigent_wire::Addr6>,
    /// Bits of [`lesson`].
    pub flags: u32,
    /// What came of it, one of [`lesson`]'s results; 0: not asked.
    pub result: u32,
    /// Tag of the entry that is there; 0: there is none.
    pub tag: u32,
    /// Index of the real server.
    pub server: u32,
    /// Index of the virtual service.
    pub service: u32,
    /// State.
    pub state: u32,
    /// Ticks since its last packet.
    pub idle: u32,
    /// Packets of the client.
    pub packets: u32,
    /// Template: ticks it lives without a new connection.
    pub timeout: u32,
    /// A [`crate::sync::Told`].
    pub told: u32,
    /// [`Conn::told_until`].
    pub until: u32,
    /// Firewall mark of the first packet.
    pub mark: u32,
    /// NAT: port that the server has; 0: the service's.
    pub port: Be16,
    /// Zero.
    pub zero: u16,
    /// Zero.
    pub spare: u32,
}

/// Flags and results of [`Lesson`].
pub mod lesson {
    /// The key is IPv6.
    pub const V6: u32 = 1;
    /// The entry goes.
    pub const FORGET: u32 = 2;
    /// But not if a packet of its client came here since it was learned.
    pub const UNLESS_OWN: u32 = 16;
    /// Of a template's key: the service has port 0, or is FTP's or a mark's.
    pub const ANY_PORT: u32 = 4;
    /// Of a template's key: it is a mark's.
    pub const BY_MARK: u32 = 8;

    /// Done.
    pub const DONE: u32 = 1;
    /// The entry is another one by now, or there is one: look again.
    pub const CHANGED: u32 = 2;
    /// The answers' tuple belongs to another connection.
    pub const TAKEN: u32 = 3;
    /// The table is full.
    pub const FULL: u32 = 4;
    /// It cannot be: the server is gone, or is the client itself.
    pub const REFUSED: u32 = 5;
}

/// Lessons of one call of the learning step.
pub const LESSONS: u32 = 512;

/// Bytes of the ring by which packets say which connections are to be told: each takes 24, or 48
/// of IPv6.
pub const NEWS_BYTES: u32 = 1 << 21;

/// Error budget: destinations share a bucket by hash.
pub const ERROR_BUCKETS: u32 = 1024;

/// The word behind the buckets: packets counted by `drop_packet`, [`Settings::drop_rate`].
pub const NEW_FLOWS: u32 = ERROR_BUCKETS;
/// Words of the table.
pub const ERROR_WORDS: u32 = ERROR_BUCKETS + 1;

/// Names of the maps, as pinned and as the BPF object calls them.
pub mod map {
    /// `Tuple<Addr4>` to `Conn<Addr4>`.
    pub const CONNS4: &str = "CONNS4";
    /// `Tuple<Addr6>` to `Conn<Addr6>`.
    pub const CONNS6: &str = "CONNS6";
    /// `Place<Addr4>` to the index of a service.
    pub const SERVICES4: &str = "SERVICES4";
    /// `Place<Addr6>` to the index of a service.
    pub const SERVICES6: &str = "SERVICES6";
    /// Index to `Service`.
    pub const SERVICES: &str = "SERVICES";
    /// Index to `Server`.
    pub const SERVERS: &str = "SERVERS";
    /// Server lists, tables of schedulers and ids of QUIC servers.
    pub const SLOTS: &str = "SLOTS";
    /// Server index to `NextHop`.
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// Server index to `Counters`, per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// Server index to the `Counters` that count as none: what it had when it was zeroed.
    pub const ORIGINS: &str = "ORIGINS";
    /// Service index to the `Counters` of servers that it had; behind them those of all
    /// services that were.
    pub const BASES: &str = "BASES";
    /// Reason to packets, per CPU.
    pub const REASONS: &str = "REASONS";
    /// `Addr4` set of this host's addresses.
    pub const LOCAL4: &str = "LOCAL4";
    /// `Addr6` set of this host's addresses.
    pub const LOCAL6: &str = "LOCAL6";
    /// Prefixes of `Addr4` that are this host's, to bits of [`super::local_net`].
    pub const LOCAL_NETS4: &str = "LOCAL_NETS4";
    /// Prefixes of `Addr6` that are this host's, likewise.
    pub const LOCAL_NETS6: &str = "LOCAL_NETS6";
    /// Prefixes of `Source<Addr4>` to 1 (may open connections) or 0.
    pub const SOURCES4: &str = "SOURCES4";
    /// Prefixes of `Source<Addr6>`, likewise.
    pub const SOURCES6: &str = "SOURCES6";
    /// `Place<Addr4>` of NAT servers to `Known`.
    pub const KNOWN4: &str = "KNOWN4";
    /// `Place<Addr6>` of NAT servers to `Known`.
    pub const KNOWN6: &str = "KNOWN6";
    /// `Piece<Addr4>` to `Datagram`, oldest forgotten first.
    pub const DATAGRAMS4: &str = "DATAGRAMS4";
    /// `Piece<Addr6>` to `Datagram`.
    pub const DATAGRAMS6: &str = "DATAGRAMS6";
    /// Interface number to `Link`.
    pub const LINKS: &str = "LINKS";
    /// `Settings`, one entry.
    pub const SETTINGS: &str = "SETTINGS";
    /// Slot of an address to bits, all in one entry: see [`crate::sieve`].
    pub const SIEVE: &str = "SIEVE";
    /// Error budgets: bucket 0 is the total. Behind them [`super::NEW_FLOWS`].
    pub const ERRORS: &str = "ERRORS";

    /// Candidates of the expire step.
    pub const CANDIDATES: &str = "CANDIDATES";
    /// Index to `MarkRule`.
    pub const MARK_RULES: &str = "MARK_RULES";
    /// `Noted` to `Note`, oldest forgotten first.
    pub const NOTES: &str = "NOTES";
    /// `Tuple<Addr4>` of a probe's packets, or of the answers, to a `Conn<Addr4>` that is no
    /// connection: see [`crate::probe`].
    pub const PINS4: &str = "PINS4";
    /// `Tuple<Addr6>`, likewise.
    pub const PINS6: &str = "PINS6";

    /// What other directors told.
    pub const LESSONS: &str = "LESSONS";
    /// Ring of keys of connections and templates that are to be told to other directors.
    pub const NEWS: &str = "NEWS";

    /// All of them.
    pub const ALL: [&str; 30] = [
        CONNS4,
        CONNS6,
        SERVICES4,
        SERVICES6,
        SERVICES,
        SERVERS,
        SLOTS,
        NEXT_HOPS,
        COUNTERS,
        REASONS,
        LOCAL4,
        LOCAL6,
        KNOWN4,
        KNOWN6,
        DATAGRAMS4,
        DATAGRAMS6,
        LINKS,
        SETTINGS,
        ERRORS,
        CANDIDATES,
        MARK_RULES,
        LOCAL_NETS4,
        LOCAL_NETS6,
        SOURCES4,
        SOURCES6,
        NOTES,
        PINS4,
        PINS6,
        LESSONS,
        NEWS,
    ];
}

const _: () = {
    use dirigent_wire::{Addr4, Addr6};
    assert!(size_of::<Tuple<Addr4>>() == 16);
    assert!(size_of::<Tuple<Addr6>>() == 40);
    assert!(size_of::<Place<Addr4>>() == 8);
    assert!(size_of::<Place<Addr6>>() == 20);
    assert!(size_of::<Source<Addr4>>() == 8);
    assert!(size_of::<Source<Addr6>>() == 20);
    assert!(size_of::<Piece<Addr4>>() == 16);
    assert!(size_of::<Piece<Addr6>>() == 40);
    assert!(size_of::<Datagram>() == 8);
    // With a 16-byte key the kernel's element is exactly two cache lines.
    assert!(size_of::<Conn<Addr4>>() == 64);
    assert!(size_of::<Conn<Addr6>>() == 80);
    assert!(size_of::<Service>() == 64);
    assert!(size_of::<Server>() == 64);
    assert!(size_of::<NextHop>() == 64);
    assert!(size_of::<Link>() == 96);
    assert!(size_of::<Settings>() == 256);
    assert!(size_of::<Counters>() == 40);
    assert!(size_of::<Known>() == 24);
    assert!(size_of::<Candidate>() == 48);
    assert!(size_of::<Lesson>() == 96);
    assert!(size_of::<MarkRule>() == 96);
    assert!(size_of::<Noted>() == 24 && size_of::<Note>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use dirigent_wire::{Addr4, Addr6};

    /// A change here needs a new [`LAYOUT_VERSION`]: pinned maps of the old one
    /// are then refused instead of misread.
    #[test]
    fn layouts_of_version_9() {
        assert_eq!(LAYOUT_VERSION, 9);
        let conn4 = [
            offset_of!(Conn<Addr4>, last_seen),
            offset_of!(Conn<Addr4>, server),
            offset_of!(Conn<Addr4>, addr_delta),
            offset_of!(Conn<Addr4>, addr),
            offset_of!(Conn<Addr4>, port),
            offset_of!(Conn<Addr4>, kind),
        ];
        assert_eq!(conn4, [16, 24, 36, 40, 44, 46]);
        assert_eq!([offset_of!(Conn<Addr6>, addr), offset_of!(Conn<Addr6>, port)], [40, 56]);
        assert_eq!(
            [offset_of!(Service, cursor), offset_of!(Service, scheduler), offset_of!(Service, joint)],
            [8, 16, 56]
        );
        assert_eq!([offset_of!(Server, addr), offset_of!(Server, weight)], [16, 36]);
        assert_eq!([offset_of!(NextHop, src), offset_of!(NextHop, dst)], [12, 18]);
        let hop = [
            offset_of!(NextHop, tunnel),
            offset_of!(NextHop, port),
            offset_of!(NextHop, learned),
            offset_of!(NextHop, source),
            offset_of!(NextHop, peer),
        ];
        assert_eq!(hop, [24, 26, 28, 32, 48]);
        assert_eq!([offset_of!(Link, used), offset_of!(Link, flags), offset_of!(Link, virtual_macs)], [6, 28, 32]);
        assert_eq!([offset_of!(Settings, tcp_timeouts), offset_of!(Settings, udp_timeout)], [16, 80]);
    }
}
