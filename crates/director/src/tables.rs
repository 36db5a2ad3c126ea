//! What the packet path remembers, and the time. BPF maps in the kernel, plain
//! collections in the in-memory executor.

use crate::conn::Held;
use crate::records::{
    Conn, Datagram, Known, Link, MarkRule, NextHop, Note, Noted, Piece, Place, Server, Service, Settings, Tuple,
};
use crate::schedule::{self, Client};
use crate::shared::S64;
use crate::sieve;
use dirigent_wire::{Addr4, Addr6, Mac};

/// How an insertion ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insert {
    /// The entry is new.
    Done,
    /// There is one with this key; nothing was changed.
    Exists,
    /// The table is full; nothing was changed.
    Full,
}

/// What the host's routing table says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Out of `ifindex` with these MACs.
    To {
        /// Outgoing interface.
        ifindex: u32,
        /// Its MAC.
        src: Mac,
        /// The neighbour's.
        dst: Mac,
        /// Bytes of the largest IP packet that it carries; 0: not known.
        mtu: u32,
    },
    /// Out of this interface; the neighbour's MAC is not known yet.
    NoNeighbour(u32),
    /// Longer than this route carries (bytes of IP packet).
    TooBig(u32),
    /// The host does not forward (`ip_forward` is 0 on the incoming interface).
    NotForwarding,
    /// No route, a blackhole, or a local address.
    None,
}

/// One step of a walk; `false` ends it. It asks for neither settings nor time nor routes, and stashes nothing.
pub trait Step<T: ?Sized> {
    /// Visits number `i`.
    fn step(&mut self, t: &T, i: u32) -> bool;
}

/// The tables. Lookups borrow `&self`, everything that may reuse an element
/// `&mut self`, so an entry cannot be held across an insertion.
pub trait Tables {
    /// Ticks, wrapping.
    fn now(&self) -> u32;
    /// The same number; the BPF verifier forgets what it knew of it, so that it
    /// does not verify what follows once for every value.
    fn forget(&self, value: u32) -> u32 {
        self.forget_all(value.into()) as u32
    }
    /// The same for 64 bits.
    fn forget_all(&self, value: u64) -> u64 {
        value
    }
    /// Leaves a word for a later stage of the same packet.
    fn stash(&self, word: u64);
    /// The word an earlier stage left.
    fn stashed(&self) -> u64;
    /// Leaves a second one.
    fn keep(&self, word: u64);
    /// The second word.
    fn kept(&self) -> u64;
    /// Notes the mark that led the packet here.
    fn lead(&self, mark: u32);
    /// That mark: of packets by a link with [`crate::records::link_flag::MARKED`].
    fn led(&self) -> u32;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// The director's settings; `None` until it is configured.
    fn settings(&self) -> Option<&Settings>;
    /// The interface of this number, if the director uses it.
    fn link(&self, ifindex: u32) -> Option<&Link>;

    /// The entry of an IPv4 packet's tuple.
    fn conn4(&self, key: &Tuple<Addr4>) -> Option<&Conn<Addr4>>;
    /// The entry of an IPv6 packet's tuple.
    fn conn6(&self, key: &Tuple<Addr6>) -> Option<&Conn<Addr6>>;
    /// The IPv4 entry of the key that `make` writes, from zero.
    fn template4(&self, make: impl FnOnce(&mut Tuple<Addr4>)) -> Option<Held<'_, Addr4>> {
        let mut key = Tuple::default();
        make(&mut key);
        Held::of(self.conn4(&key)?, &key)
    }
    /// The IPv6 entry of the key that `make` writes, from zero.
    fn template6(&self, make: impl FnOnce(&mut Tuple<Addr6>)) -> Option<Held<'_, Addr6>> {
        let mut key = Tuple::default();
        make(&mut key);
        Held::of(self.conn6(&key)?, &key)
    }
    /// Has user space tell other directors of an IPv4 entry; says whether there was room.
    fn tell4(&self, key: &Tuple<Addr4>) -> bool;
    /// Has user space tell other directors of an IPv6 entry.
    fn tell6(&self, key: &Tuple<Addr6>) -> bool;
    /// Adds an IPv4 entry.
    fn insert4(&mut self, key: &Tuple<Addr4>, conn: &Conn<Addr4>) -> Insert;
    /// Adds an IPv6 entry.
    fn insert6(&mut self, key: &Tuple<Addr6>, conn: &Conn<Addr6>) -> Insert;
    /// Removes an IPv4 entry.
    fn remove4(&mut self, key: &Tuple<Addr4>);
    /// Removes an IPv6 entry.
    fn remove6(&mut self, key: &Tuple<Addr6>);

    /// Index of the IPv4 virtual service at this place.
    fn service4(&self, at: &Place<Addr4>) -> Option<u32>;
    /// Index of the IPv6 virtual service at this place.
    fn service6(&self, at: &Place<Addr6>) -> Option<u32>;
    /// Bits of addresses by slot: [`sieve`].
    fn sieve(&self) -> Option<&[u8; sieve::SLOTS]>;
    /// Whether the address is this host's.
    fn local4(&self, addr: &Addr4) -> bool;
    /// Whether the address is this host's.
    fn local6(&self, addr: &Addr6) -> bool;
    /// The same for a marked packet: rules by mark may lead to routes that make prefixes
    /// local. To be asked when the address is not this host's anyway.
    fn local_by_mark4(&self, addr: &Addr4) -> bool;
    /// The same for IPv6.
    fn local_by_mark6(&self, addr: &Addr6) -> bool;
    /// Whether the client may open connections to a service with [`JUDGED`].
    ///
    /// [`JUDGED`]: crate::records::service_flag::JUDGED
    fn allows4(&self, service: u32, client: &Addr4) -> bool;
    /// The same for IPv6.
    fn allows6(&self, service: u32, client: &Addr6) -> bool;
    /// The NAT server at this place.
    fn known4(&self, at: &Place<Addr4>) -> Option<&Known>;
    /// The NAT server at this place.
    fn known6(&self, at: &Place<Addr6>) -> Option<&Known>;

    /// The pin of an IPv4 packet's tuple: see [`crate::probe`].
    fn pin4(&self, key: &Tuple<Addr4>) -> Option<&Conn<Addr4>>;
    /// The pin of an IPv6 packet's tuple.
    fn pin6(&self, key: &Tuple<Addr6>) -> Option<&Conn<Addr6>>;

    /// What the first piece of an IPv4 datagram said.
    fn datagram4(&self, piece: &Piece<Addr4>) -> Option<&Datagram>;
    /// What the first piece of an IPv6 datagram said.
    fn datagram6(&self, piece: &Piece<Addr6>) -> Option<&Datagram>;
    /// Notes what the first piece of an IPv4 datagram said.
    fn remember4(&mut self, piece: &Piece<Addr4>, datagram: &Datagram);
    /// Notes what the first piece of an IPv6 datagram said.
    fn remember6(&mut self, piece: &Piece<Addr6>, datagram: &Datagram);

    /// A virtual service by index.
    fn service(&self, index: u32) -> Option<&Service>;
    /// A real server by index.
    fn server(&self, index: u32) -> Option<&Server>;
    /// How frames reach that server.
    fn next_hop(&self, server: u32) -> Option<&NextHop>;
    /// A slot of a server list or mh table: a server's index.
    fn slot(&self, index: u32) -> Option<u32>;
    /// What lblc or lblcr noted.
    fn note(&self, of: &Noted) -> Option<Note>;
    /// Notes it anew. Says whether there was room.
    fn write_note(&self, of: &Noted, note: &Note) -> bool;
    /// Forgets it.
    fn forget_note(&self, of: &Noted);
    /// A mark rule, by its place in the table.
    fn mark_rule(&self, index: u32) -> Option<&MarkRule>;
    /// Calls `step` for 0, 1, … `n` − 1 until it says stop.
    fn walk<S: Step<Self>>(&self, n: u32, step: &mut S);
    /// [`schedule::schedule`]: the index of a server. The kernel verifies the schedulers once for each program, not once
    /// for each way that leads to them.
    fn schedule(&self, client: &Client) -> Option<u32>
    where
        Self: Sized,
    {
        schedule::schedule(self, client)
    }

    /// Asks the routing table about an IPv4 packet of `len` bytes.
    fn route4(&self, ingress: u32, src: &Addr4, dst: &Addr4, len: u32) -> Route;
    /// Asks the routing table about an IPv6 packet of `len` bytes.
    fn route6(&self, ingress: u32, src: &Addr6, dst: &Addr6, len: u32) -> Route;

    /// Counts a connection of this server.
    fn count_conn(&self, server: u32);
    /// Counts a packet towards the server (`reply` false) or the client.
    fn count(&self, server: u32, reply: bool, bytes: u32);
    /// Budget of errors to send: bucket 0 is the total; [`crate::records::NEW_FLOWS`] is a count.
    fn error_budget(&self, bucket: u32) -> Option<&S64>;
}
