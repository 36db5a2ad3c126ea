//! The sweep: connections that nobody's packet ends.

use dirigent_director::conn::{self, Word};
use dirigent_director::persist::Link;
use dirigent_director::records::{Settings, hop, kind, service_flag, setting};
use dirigent_director::sync::Told;
use dirigent_director::{reset, sctp, tcp};
use dirigent_wire::ip::proto;

use super::Error;
use super::paths::{Networks, Paths, opens};
use super::store::{Due, Entry, Expired, Store};

/// How long the daemon pauses after each few thousand entries of a sweep.
pub const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Seconds after which a connection is swept that is reset and whose last packet was so long ago: by then
/// [`super::Resets`] is through, however many there are.
const RESET_LASTS_S: u32 = 120;

/// What a sweep did.
pub type Swept = Expired;

/// How many connections and templates there are, by whom they were learned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census([u64; 256]);

impl Default for Census {
    fn default() -> Self {
        Self([0; 256])
    }
}

impl Census {
    /// This director's own (0), or those that were learned from the one with this number.
    pub fn of(&self, origin: u8) -> u64 {
        self.0.get(usize::from(origin)).copied().unwrap_or(0)
    }
    /// All of them.
    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }
    fn add(&mut self, entry: &Entry) {
        let origin = if entry.kind == kind::NAT_REPLY { return } else { Told(entry.extra).origin() };
        if let Some(count) = self.0.get_mut(usize::from(origin)) {
            *count += 1;
        }
    }
}

/// Sweeps, one after the other.
#[derive(Debug, Default)]
pub struct Sweep {
    drops: Drops,
    census: Census,
    paths: Paths,
    networks: Networks,
}

impl Sweep {
    /// Walks over both tables once and expires what is idle, whose server is gone
    /// (`expire_nodest_conn`), or what `drop_entry` is for. `pause` is called every few
    /// thousand entries, so that a sweep of millions disturbs nobody.
    pub fn run<S: Store>(&mut self, store: &mut S, pause: &mut dyn FnMut()) -> Result<Swept, Error> {
        let settings = store.settings()?;
        let now = store.now();
        let drops = &mut self.drops;
        drops.begin(&settings, now);
        let (mut census, mut paths) = (Census::default(), Paths::begin(&settings, now));
        let mut due = |store: &S, entry: &Entry| {
            census.add(entry);
            paths.look(store, entry, &self.networks)?;
            let age = conn::age(now, entry.last_seen);
            if reset::is_marked(entry.flow.protocol, Word(entry.word)) && entry.kind != kind::NAT_REPLY {
                // Who resets it ends it, unless it ended before.
                return Ok(if age >= RESET_LASTS_S * settings.hz { Due::AtOnce } else { Due::Not });
            }
            let timeout = conn::timeout(&settings, entry.flow.protocol, Word(entry.word).state());
            let idle = match entry.kind {
                // The request entry is the connection. A reply entry is looked at only to find
                // one that lost it (a daemon or CPU that stopped half-way).
                kind::NAT_REPLY => age >= timeout.saturating_add(60 * settings.hz),
                kind::TEMPLATE => age >= entry.timeout,
                _ => age >= timeout,
            };
            if idle {
                return Ok(Due::IfIdle);
            }
            let controls = entry.kind == kind::TEMPLATE && Link(entry.link).connections() != 0;
            if entry.kind == kind::NAT_REPLY || controls {
                return Ok(Due::Not);
            }
            let removed = settings.flags & setting::EXPIRE_NODEST != 0
                && store.next_hop(entry.server)?.state.load() == hop::REMOVED;
            let gone = removed || drops.takes(store, entry, now, &settings)?;
            Ok(if gone { Due::AtOnce } else { Due::Not })
        };
        let swept = store.sweep(&mut due, pause)?;
        (self.census, self.paths) = (census, paths);
        Ok(swept)
    }

    /// The networks that the director is in: servers and clients may be in one.
    pub fn set_networks(&mut self, networks: Networks) {
        self.networks = networks;
    }

    /// What the last sweep saw of the ways between clients and servers.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// What the last sweep counted.
    pub fn census(&self) -> &Census {
        &self.census
    }
}

/// The defence `drop_entry` (ipvs-semantics §3.7). IPVS looks at one entry in 32 each second;
/// here each sweep looks at as many as in the time since the last one.
#[derive(Debug, Default)]
struct Drops {
    /// When the last sweep began; nothing while the defence is off.
    last: Option<u32>,
    /// Out of 2^32, how many entries are looked at in this sweep.
    share: u64,
    /// Which ones.
    round: u32,
    /// By number of packets: how many candidates are spared before the next one goes.
    spare: [u32; Drops::PACKETS],
}

impl Drops {
    /// One entry in so many a second.
    const SHARE: u64 = 32;
    /// Seconds without a packet.
    const SILENT_S: u32 = 60;
    /// So many packets a connection has that is no longer suspected.
    const PACKETS: usize = 9;

    /// A sweep begins.
    fn begin(&mut self, settings: &Settings, now: u32) {
        let on = settings.flags & setting::DROP_ENTRY != 0;
        let since = self.last.filter(|_| on).map_or(0, |last| conn::age(now, last));
        self.last = on.then_some(now);
        self.share = (u64::from(since) << 32) / (Self::SHARE * u64::from(settings.hz.max(1)));
        self.round = self.round.wrapping_add(0x9e37_79b9);
    }

    /// Whether this entry is dropped.
    fn takes<S: Store>(&mut self, store: &S, entry: &Entry, now: u32, settings: &Settings) -> Result<bool, Error> {
        // A word's upper half is random; mixed as in MurmurHash3's last steps.
        let mixed = ((entry.word >> 32) as u32 ^ self.round).wrapping_mul(0x85eb_ca6b);
        let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
        if u64::from(mixed ^ mixed >> 16) >= self.share {
            return Ok(false);
        }
        const ESTABLISHED: u8 = tcp::State::Established as u8;
        const ASSOCIATED: u8 = sctp::State::Established as u8;
        let state = Word(entry.word).state();
        if entry.kind == kind::TEMPLATE {
            let one_packet = store.service(entry.service)?.flags & service_flag::ONE_PACKET != 0;
            return if one_packet { self.is_old(store, entry, now, settings) } else { Ok(state == 0) };
        }
        match (entry.flow.protocol, state) {
            (protocol, state) if opens(protocol, state) == Some(true) => Ok(true),
            (proto::TCP, ESTABLISHED) | (proto::SCTP, ASSOCIATED) => self.is_old(store, entry, now, settings),
            (proto::TCP | proto::SCTP, _) => Ok(false),
            _ => self.is_old(store, entry, now, settings),
        }
    }

    /// Silent for a minute after few packets: the fewer, the sooner it goes.
    fn is_old<S: Store>(&mut self, store: &S, entry: &Entry, now: u32, settings: &Settings) -> Result<bool, Error> {
        let packets = entry.packets;
        let Some(spare) = self.spare.get_mut(packets as usize).filter(|_| packets != 0) else { return Ok(false) };
        let mut silent = conn::age(now, entry.last_seen);
        if entry.kind == kind::NAT_REQUEST
            && let Some(reply) = store.entry(&entry.flow.reply(entry.address, entry.port))?
        {
            silent = silent.min(conn::age(now, reply.last_seen));
        }
        if silent < Self::SILENT_S * settings.hz {
            return Ok(false);
        }
        if *spare > 1 {
            *spare -= 1;
            return Ok(false);
        }
        *spare = packets;
        Ok(true)
    }
}
