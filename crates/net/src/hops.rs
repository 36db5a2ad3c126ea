//! The next hops of all servers and clients' gateways, kept true.
//!
//! The packet path holds an index into a table of next hops; whoever writes that table asks a [`HopKeeper`] what belongs
//! in it, and waits for its updates. It has the kernel keep the neighbours, and has them kept again when an interface
//! that went down, or changed its own hardware address, has lost them.

use crate::error::Result;
use crate::nexthop::{NextHop, Resolver};
use crate::watch::{Change, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How often everything is looked at without a report: for neighbours that an old kernel does not keep by itself.
const ROUND: Duration = Duration::from_secs(10);

/// What [`HopKeeper::update`] brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// What happened in the network; empty when only the time came to look again.
    pub changes: Vec<Change>,
    /// The destinations whose next hop is another now.
    pub hops: Vec<(IpAddr, NextHop)>,
}

/// Keeps the next hops of a set of destinations.
pub struct HopKeeper {
    watcher: Watcher,
    resolver: Resolver,
    hops: BTreeMap<IpAddr, NextHop>,
    next_round: tokio::time::Instant,
}

impl HopKeeper {
    /// Starts watching the calling thread's namespace, without destinations. Needs a tokio runtime with IO and time.
    pub fn start() -> Result<Self> {
        let (watcher, resolver) = (Watcher::start()?, Resolver::new()?);
        Ok(HopKeeper { watcher, resolver, hops: BTreeMap::new(), next_round: tokio::time::Instant::now() + ROUND })
    }

    /// Sets the destinations. Returns the next hops of the new ones; neighbours that nobody needs any more are let go.
    pub fn set_destinations(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<Vec<(IpAddr, NextHop)>> {
        let mut gone = BTreeMap::new();
        self.hops.retain(|destination, hop| {
            let stays = wanted.contains(destination);
            if let (false, Some(neighbour)) = (stays, hop.neighbour) {
                gone.insert((hop.ifindex, neighbour), ());
            }
            stays
        });
        for (ifindex, neighbour) in gone.into_keys() {
            if !self.hops.values().any(|hop| (hop.ifindex, hop.neighbour) == (ifindex, Some(neighbour))) {
                // An interface that has just gone took its neighbours along.
                crate::nl::absent(self.resolver.netlink().release_neighbour(ifindex, neighbour))?;
            }
        }
        let new: Vec<_> = wanted.iter().copied().filter(|ip| !self.hops.contains_key(ip)).collect();
        self.look_at(&new)
    }

    /// The next hop of a destination as last reported.
    pub fn hop(&self, destination: IpAddr) -> Option<&NextHop> {
        self.hops.get(&destination)
    }

    /// All destinations with their next hops.
    pub fn hops(&self) -> impl Iterator<Item = (&IpAddr, &NextHop)> {
        self.hops.iter()
    }

    /// The watcher, for its snapshot.
    pub fn watcher(&mut self) -> &mut Watcher {
        &mut self.watcher
    }

    /// Waits for changes of the network. May be cancelled without losing one. Returns also when no next hop is touched,
    /// because links and addresses matter to others too.
    pub async fn update(&mut self) -> Result<Update> {
        loop {
            let changes = match tokio::time::timeout_at(self.next_round, self.watcher.changes()).await {
                Ok(changes) => changes?,
                Err(_elapsed) => {
                    self.next_round = tokio::time::Instant::now() + ROUND;
                    Vec::new()
                }
            };
            let hops = self.look_at(&self.touched(&changes))?;
            if !(changes.is_empty() && hops.is_empty()) {
                return Ok(Update { changes, hops });
            }
        }
    }

    /// The destinations that the changes may concern: those of a neighbour, or all.
    fn touched(&self, changes: &[Change]) -> Vec<IpAddr> {
        let concerns = |hop: &NextHop, change: &Change| match change {
            Change::Neighbour(ifindex, ip) => (hop.ifindex, hop.neighbour) == (*ifindex, Some(*ip)),
            _ => true,
        };
        let touched = self
            .hops
            .iter()
            .filter(|(_, hop)| changes.is_empty() || changes.iter().any(|change| concerns(hop, change)));
        touched.map(|(destination, _)| *destination).collect()
    }

    /// Asks for the next hops of some destinations; returns those that differ from what was known.
    fn look_at(&mut self, destinations: &[IpAddr]) -> Result<Vec<(IpAddr, NextHop)>> {
        let mut differing = Vec::new();
        for destination in destinations {
            let hop = match self.resolver.resolve_and_keep(*destination) {
                Ok((hop, _)) => hop,
                // The link went down or away between the questions: its report will bring us here again.
                Err(error) if error.errno().is_some() => self.resolver.resolve(*destination)?,
                Err(error) => return Err(error),
            };
            if self.hops.insert(*destination, hop) != Some(hop) {
                differing.push((*destination, hop));
            }
        }
        Ok(differing)
    }
}
