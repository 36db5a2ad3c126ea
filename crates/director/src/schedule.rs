//! Which real server gets a new connection. Each scheduler is a file below;
//! lists, ties and formulas are IPVS's (ipvs-semantics §4): servers are walked
//! from the newest to the oldest, and of equals the first met wins.

mod hashed;
mod least;
mod local;

use crate::family::Family;
use crate::open;
use crate::records::{Server, Service, Tuple, server_flag};
use crate::tables::{Step, Tables};

/// What a scheduler may know of the packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client {
    /// The client's address, folded for hashing ([`crate::family::Address::hash_fold`]).
    pub addr: u32,
    /// Its port.
    pub port: u16,
    /// The address that it asked for, folded.
    pub dest: u32,
    /// The same in full, IPv4 in the first two words.
    pub to: [u16; 8],
    /// Index of the service.
    pub service: u32,
    /// Its connection began elsewhere or long ago: it goes to the server of its hash, if
    /// there is still one, as packets of a known connection do, whatever weight and threshold say.
    pub resumes: bool,
}

/// A server as a scheduler's table is filled.
#[derive(Clone, Copy, Debug)]
pub struct TableServer {
    /// Its index: what a slot holds.
    pub index: u32,
    addr: u32,
    port: u16,
    weight: u32,
    last_weight: u32,
    // mh's work space.
    next: u32,
    skip: u32,
    turns: u32,
}

impl TableServer {
    /// `addr`: folded address; the weight, and the last one that was not 0.
    #[must_use]
    pub fn new(index: u32, addr: u32, port: u16, (weight, last_weight): (u32, u32)) -> Self {
        Self { index, addr, port, weight, last_weight, next: 0, skip: 0, turns: 0 }
    }
}

/// A slot of a table that nobody has.
pub const FREE: u32 = u32::MAX;

/// A table that a scheduler looks into, and user space fills.
#[derive(Clone, Copy)]
pub struct Table {
    /// Its slots, unless a service chooses others.
    pub size: u32,
    /// The sizes it may have, ascending.
    pub sizes: &'static [u32],
    /// Fills the slots (all [`FREE`] before), as many as one of its sizes, from the servers in list order.
    pub fill: fn(&mut [TableServer], &mut [u32]),
}

/// The schedulers: one line each, and a file of the same name with a function `pick`.
macro_rules! schedulers {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $module:ident
        $(, table $sizes:expr, $size:expr)? $(, flags $fallback:literal $port:literal)?;)*) => {
        $(mod $module;)*

        /// How the real server of a new connection is chosen.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u32)]
        pub enum Scheduler {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Scheduler {
            /// All, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// IPVS's name of it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($module),)*
                }
            }
            /// Its table, if it looks into one.
            #[must_use]
            pub fn table(self) -> Option<Table> {
                match self {
                    $($(Self::$variant => Some(Table { size: $size, sizes: $sizes, fill: $module::fill }),)?)*
                    _ => None,
                }
            }
            /// Whether a client's hash alone decides: whoever has the same servers chooses the same.
            #[must_use]
            pub fn hashes(self) -> bool {
                self.table().is_some()
            }
            /// ipvsadm's names of the flags that look further, and that hash the port.
            #[must_use]
            pub const fn flags(self) -> Option<(&'static str, &'static str)> {
                match self {
                    $($(Self::$variant => Some(($fallback, $port)),)?)*
                    _ => None,
                }
            }
        }

        /// Chooses a server of the client's service: its index.
        #[inline(always)]
        pub fn schedule<T: Tables>(t: &T, client: &Client) -> Option<u32> {
            let service = t.service(client.service)?;
            match service.scheduler {
                $($number => $module::pick(t, service, client),)*
                _ => None,
            }
        }
    };
}

schedulers! {
    /// Each in turn.
    Rr = 0, rr;
    /// Each in turn, in proportion to the weights.
    Wrr = 1, wrr;
    /// Fewest connections.
    Lc = 4, lc;
    /// Fewest connections in relation to the weight; the default.
    Wlc = 2, wlc;
    /// Shortest expected delay.
    Sed = 5, sed;
    /// An idle one, else the shortest expected delay.
    Nq = 6, nq;
    /// The heaviest takes all.
    Fo = 7, fo;
    /// The heaviest takes as many as its weight, then the next.
    Ovf = 8, ovf;
    /// The better of two at random.
    Twos = 9, twos;
    /// Hash of the client's address.
    Sh = 10, sh, table &[hashed::BUCKETS], hashed::BUCKETS, flags "sh-fallback" "sh-port";
    /// Hash of the address asked for.
    Dh = 11, dh, table &[hashed::BUCKETS], hashed::BUCKETS;
    /// The destination's own server, unless it has too much to do.
    Lblc = 12, lblc;
    /// The least loaded of the destination's own set of servers.
    Lblcr = 13, lblcr;
    /// Maglev hash of the client's address.
    Mh = 3, mh, table &mh::PRIMES, mh::SIZE, flags "mh-fallback" "mh-port";
}

impl Scheduler {
    /// By IPVS's name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.name() == name)
    }
    /// By the number in [`Service::scheduler`].
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| *s as u32 == number)
    }
}

impl core::fmt::Display for Scheduler {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the server takes new connections: weight, threshold, configured.
#[inline(always)]
pub fn available(server: &Server) -> bool {
    server.weight.load() > 0 && takes(server)
}

/// The same, whatever its weight.
#[inline(always)]
fn takes(server: &Server) -> bool {
    server.flags.load() & server_flag::AVAILABLE != 0 && server.full.load() == 0
}

/// Whether the server whose hash it is takes this client.
#[inline(always)]
fn serves(server: &Server, client: &Client) -> bool {
    available(server) || (client.resumes && server.flags.load() & server_flag::AVAILABLE != 0)
}

/// The service's list: where it begins in the slots, and its length.
#[inline(always)]
pub fn list(service: &Service) -> (u32, u32) {
    let word = service.list.load();
    ((word >> 32) as u32, word as u32)
}

/// Repeats a try that lost the race for the service's cursor; after the second
/// the choice stands without moving it. Written out: kernel 6.1 refuses a loop
/// whose end falls through to its middle, as the compiler likes to lay it out.
#[inline(always)]
fn settle(attempt: impl Fn() -> Option<(u32, bool)>) -> Option<u32> {
    let (index, moved) = attempt()?;
    if moved {
        return Some(index);
    }
    attempt().map(|(index, _)| index)
}

/// Looks for a server whose answers to `key` would not be mistaken.
struct Free<'k, F: Family> {
    base: u32,
    key: &'k Tuple<F::Addr>,
    found: Option<u32>,
}

impl<F: Family, T: Tables> Step<T> for Free<'_, F> {
    #[inline(always)]
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(index) = t.slot(self.base.wrapping_add(i)) else { return false };
        let Some(server) = t.server(index) else { return true };
        if !available(server) || F::conn(t, &open::reply_tuple::<F>(self.key, server)).is_some() {
            return true;
        }
        self.found = Some(index);
        false
    }
}

/// The first available server in list order that has no connection of `key`'s
/// client port yet: for a connection that its scheduled server cannot take.
#[inline(never)]
pub fn first_free<F: Family, T: Tables>(t: &T, service: u32, key: &Tuple<F::Addr>) -> Option<u32> {
    let (base, len) = list(t.service(service)?);
    let mut walk = Free::<F> { base, key, found: None };
    t.walk(len, &mut walk);
    walk.found
}
