//! Tracing: what is told of a packet's life in the director, and of which packets.
//!
//! Nothing of this is in the packet path. While somebody looks, its first programs hand each packet to one that notes how it
//! came, and its last ones to one that tells what became of it (`bpf/src/trace.rs`).

use crate::family::{Address as _, Family, L3, V4, V6};
use crate::packet::Packet;
use crate::parse::{Fragment, ReadIp, transport};
use crate::records::{Place, Tuple};
use crate::tables::Tables;
use crate::verdict::Verdict;
use dirigent_wire::{Be16, EthHeader, eth};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes that are kept of a packet, as it came and as it left.
pub const KEPT: usize = 2048;
/// Servers of a list that are told of.
pub const CANDIDATES: usize = 16;

/// Who decides about a packet.
pub mod by {
    /// Nobody who is looked at.
    pub const NOBODY: u32 = 0;
    /// `dirigent_xdp`.
    pub const XDP: u32 = 1;
    /// `dirigent_ingress`.
    pub const INGRESS: u32 = 2;
    /// `dirigent_egress`: what this host itself sends.
    pub const EGRESS: u32 = 3;
}

/// A connection's entry, before or after the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    /// See [`crate::conn::Word`].
    pub word: u64,
    /// 1: there is one.
    pub found: u32,
    /// Index of its real server.
    pub server: u32,
    /// Index of its virtual service.
    pub service: u32,
    /// One of [`crate::records::kind`].
    pub kind: u32,
}

/// A real server, as a scheduler found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Candidate {
    /// Active connections in the high half, inactive ones in the low one.
    pub load: u64,
    /// Its index.
    pub server: u32,
    /// Its weight.
    pub weight: u32,
    /// 1: it is at its limit of connections.
    pub full: u32,
    /// Zero.
    pub zero: u32,
}

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// When it came, nanoseconds of the monotonic clock.
    pub time: u64,
    /// [`crate::records::Service::cursor`] before the packet.
    pub cursor: u64,
    /// One of [`by`].
    pub by: u32,
    /// The interface that it came in by; of [`by::EGRESS`] the one that it goes out of.
    pub interface: u32,
    /// A [`crate::Action`].
    pub action: u32,
    /// A [`crate::Reason`].
    pub reason: u32,
    /// The interface that it goes out of, where the action has one.
    pub out: u32,
    /// What the program returns to the kernel.
    pub returned: u32,
    /// Its bytes as it came, and how many of them are kept.
    pub came: [u32; 2],
    /// The same as it left.
    pub left: [u32; 2],
    /// 4 or 6; 0: no IP packet that could be read.
    pub family: u32,
    /// Index of the virtual service that it asks for, and 1; 0: none.
    pub service: u32,
    /// Servers in that service's list, of which the first are [`Head::candidates`]; told where no connection was known.
    pub listed: u32,
    /// Source, IPv4 in the first two words. Of an ICMP error: of the packet that would answer the one quoted.
    pub src: [u16; 8],
    /// Destination.
    pub dst: [u16; 8],
    /// Source port, as in the packet.
    pub sport: u16,
    /// Destination port, as in the packet.
    pub dport: u16,
    /// IP protocol.
    pub protocol: u32,
    /// The CPU that did it.
    pub cpu: u32,
    /// The connection before the packet.
    pub before: Entry,
    /// The connection after it.
    pub after: Entry,
    /// Servers that a scheduler had to choose from, as they were before the packet.
    pub candidates: [Candidate; CANDIDATES],
}

/// A packet's life in the director.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Life {
    /// What is known of it.
    pub head: Head,
    /// Its first bytes as it came.
    pub incoming: [u8; KEPT],
    /// Its first bytes as it left.
    pub outgoing: [u8; KEPT],
}

/// Which packets are told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Wanted {
    /// A bit for each [`crate::Reason`] that is.
    pub reasons: u64,
    /// 4 or 6: of this family and client; 0: of any.
    pub family: u32,
    /// Index of the virtual service, and 1; 0: any.
    pub service: u32,
    /// The bits of the client's address, IPv4 in the first two words, that [`Wanted::mask`] has.
    pub client: [u16; 8],
    /// The bits of an address that count.
    pub mask: [u16; 8],
    /// The real server's address; family of [`Wanted::server_family`].
    pub server: [u16; 8],
    /// 4 or 6: of this real server; 0: of any.
    pub server_family: u32,
    /// Its port as in packets; 0: any.
    pub server_port: u32,
}

impl Head {
    /// Reads whose packet it is.
    #[inline(always)]
    fn read<P: Packet>(&mut self, p: &P) {
        let Some(ethernet) = p.get::<EthHeader>(0) else { return };
        let (mut kind, mut at) = (ethernet.ethertype.get(), L3);
        if matches!(kind, eth::VLAN | eth::SERVICE_VLAN) {
            let Some(inner) = p.get::<Be16>(L3 + 2) else { return };
            (kind, at) = (inner.get(), L3 + 4);
        }
        match kind {
            eth::IPV4 => self.read_ip::<V4, P>(p, at),
            eth::IPV6 => self.read_ip::<V6, P>(p, at),
            _ => {}
        }
    }

    #[inline(always)]
    fn read_ip<F: ReadIp, P: Packet>(&mut self, p: &P, at: usize) {
        let Some(mut ip) = F::read(p, at, true) else { return };
        let errs = ip.protocol == F::ICMP && ip.fragment == Fragment::Whole;
        // An error quotes a packet, and is for whom that was from; anything else of ICMP quotes none.
        let quoted = if errs { F::read(p, ip.l4 + ICMP_HEADER, true) } else { None };
        let answers = match quoted {
            Some(inner) => {
                ip = inner;
                true
            }
            None => false,
        };
        let (_, l4) = transport(p, &ip);
        let ported = ip.fragment != Fragment::Later && ip.protocol != F::ICMP;
        let ports = if ported { [l4.sport.raw(), l4.dport.raw()] } else { [0, 0] };
        let (src, dst) = (ip.src.to_words(), ip.dst.to_words());
        self.family = if F::V6 { 6 } else { 4 };
        self.protocol = ip.protocol.into();
        [self.sport, self.dport] = ports;
        (self.src, self.dst) = (src, dst);
        if answers {
            (self.src, self.dst) = (dst, src);
            (self.sport, self.dport) = (self.dport, self.sport);
        }
    }

    #[inline(always)]
    fn key<F: Family>(&self) -> Tuple<F::Addr> {
        let (src, dst) = (F::Addr::from_words(&self.src), F::Addr::from_words(&self.dst));
        Tuple::new(self.protocol as u8, src, Be16::from_raw(self.sport), dst, Be16::from_raw(self.dport))
    }

    #[inline(always)]
    fn entry<F: Family, T: Tables>(&self, t: &T) -> Entry {
        let found = F::conn(t, &self.key::<F>());
        found.map_or_else(Entry::default, |conn| Entry {
            word: conn.word.load(),
            found: 1,
            server: conn.server,
            service: conn.service,
            kind: conn.kind.into(),
        })
    }

    #[inline(always)]
    fn look<T: Tables>(&self, t: &T) -> Entry {
        match self.family {
            4 => self.entry::<V4, T>(t),
            6 => self.entry::<V6, T>(t),
            _ => Entry::default(),
        }
    }

    /// The virtual service that the packet asks for.
    #[inline(always)]
    fn asked<F: Family, T: Tables>(&self, t: &T) -> u32 {
        let (protocol, addr) = (self.protocol as u8, F::Addr::from_words(&self.dst));
        let exact = F::service(t, &Place::new(protocol, addr, Be16::from_raw(self.dport)));
        let found = exact.or_else(|| F::service(t, &Place::new(protocol, addr, Be16::new(0))));
        found.map_or(0, |index| index + 1)
    }
}

/// Bytes of an ICMP error before what it quotes.
const ICMP_HEADER: usize = 8;

/// Notes the servers that a service has, the first of them.
#[inline(always)]
fn note<T: Tables>(t: &T, service: u32, head: &mut Head) {
    let Some(service) = t.service(service) else { return };
    let list = service.list.load();
    let (base, listed) = ((list >> 32) as u32, list as u32);
    head.listed = listed;
    head.cursor = service.cursor.load();
    let mut i = 0;
    while i < CANDIDATES {
        if i as u32 >= listed {
            return;
        }
        let Some(index) = t.slot(base.wrapping_add(i as u32)) else { return };
        let Some(server) = t.server(index) else { return };
        let Some(place) = head.candidates.get_mut(i) else { return };
        *place = Candidate {
            load: server.load.load(),
            server: index,
            weight: server.weight.load(),
            full: server.full.load(),
            zero: 0,
        };
        i += 1;
    }
}

/// Whether two addresses have the same bits where the mask has. (Equality of arrays may become a call of memcmp.)
#[inline(always)]
fn alike(one: &[u16; 8], other: &[u16; 8], mask: &[u16; 8]) -> bool {
    let [a, b, c, d, e, f, g, h] = *one;
    let [i, j, k, l, m, n, o, p] = *other;
    let [q, r, s, t, u, v, w, x] = *mask;
    let first = (a ^ i) & q | (b ^ j) & r | (c ^ k) & s | (d ^ l) & t;
    first | (e ^ m) & u | (f ^ n) & v | (g ^ o) & w | (h ^ p) & x == 0
}

/// A packet has come: says whether it may be wanted. Who calls has written to `head`, which is else zero, when and where.
#[inline(always)]
pub fn begin<P: Packet, T: Tables>(p: &P, t: &T, wanted: &Wanted, head: &mut Head) -> bool {
    head.read(p);
    let client = |addr: &[u16; 8]| alike(addr, &wanted.client, &wanted.mask);
    if wanted.family != 0 && (head.family != wanted.family || !client(&head.src) && !client(&head.dst)) {
        return false;
    }
    head.before = head.look(t);
    head.service = match head.family {
        4 => head.asked::<V4, T>(t),
        6 => head.asked::<V6, T>(t),
        _ => 0,
    };
    if head.before.found == 0 && head.service != 0 {
        note(t, head.service - 1, head);
    }
    true
}

/// It is decided what becomes of the packet.
#[inline(always)]
pub fn decided(head: &mut Head, verdict: &Verdict, returned: u32) {
    head.action = verdict.action as u32;
    head.reason = verdict.reason as u32;
    head.out = verdict.ifindex;
    head.returned = returned;
}

/// The director is done with the packet: says whether it is wanted.
#[inline(always)]
pub fn end<T: Tables>(t: &T, wanted: &Wanted, head: &mut Head) -> bool {
    if wanted.reasons >> (head.reason & 63) & 1 == 0 {
        return false;
    }
    head.after = head.look(t);
    let entry = if head.after.found == 0 { head.before } else { head.after };
    let service = if entry.found == 0 { head.service } else { entry.service + 1 };
    if wanted.service != 0 && wanted.service != service && wanted.service != head.service {
        return false;
    }
    if wanted.server_family == 0 {
        return true;
    }
    let is = |addr: &[u16; 8], port: u16| {
        let port = wanted.server_port == 0 || wanted.server_port == u32::from(port);
        port && alike(addr, &wanted.server, &[0xffff; 8])
    };
    // Its connections, and what comes from it and is of none.
    let its = entry.found != 0 && t.server(entry.server).is_some_and(|server| is(&server.addr, server.port.raw()));
    its || head.family == wanted.server_family && is(&head.src, head.sport)
}
