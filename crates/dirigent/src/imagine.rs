//! What becomes of packets that nobody sends: the packet path on a copy of a director's tables, with what the kernel knows of
//! links, routes and neighbours now.

use crate::explain::{Coming, NOBODY, Names, Question, TTL};
use crate::failure::{Failure, Result, code};
use dirigent_datapath::control::snapshot::{Foretold, foretell};
use dirigent_datapath::control::{KernelStore, Store as _};
use dirigent_datapath::memory::{Incoming, MemoryTables, Outcome, Target, run, run_tc};
use dirigent_net::{NextHop, NextHopState, Resolver, Snapshot};
use dirigent_wire::Mac;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A director and its host as they are now.
pub struct Imagination<'a> {
    /// The director's tables.
    pub store: &'a KernelStore,
    /// Links, addresses and routes.
    pub host: Snapshot,
    /// The interfaces that have XDP.
    xdp: &'a BTreeSet<u32>,
    resolver: Resolver,
}

impl<'a> Imagination<'a> {
    /// Of these tables, on this host. `xdp`: the interfaces that have it.
    pub fn new(store: &'a KernelStore, xdp: &'a BTreeSet<u32>) -> Result<Self> {
        Ok(Self { store, host: Snapshot::take()?, xdp, resolver: Resolver::new()? })
    }

    /// Whether an interface has XDP.
    pub fn has_xdp(&self, ifindex: u32) -> bool {
        self.xdp.contains(&ifindex)
    }

    /// What the kernel's routing table says of an address.
    pub fn way(&mut self, to: IpAddr) -> Result<NextHop> {
        Ok(self.resolver.resolve(to)?)
    }

    /// The interface that is named, or the one that leads to the source.
    pub fn ingress(&mut self, question: &Question) -> Result<u32> {
        if let Some(name) = &question.interface {
            let found = self.host.links.values().find(|link| link.name == *name).map(|link| link.index);
            let missing = || Failure::new(name, "there is no such interface", "`ip link` names them");
            return found.ok_or_else(|| Failure { code: code::INVALID, ..missing() });
        }
        let way = self.way(question.from.ip())?;
        if way.state == NextHopState::NoRoute {
            let what = "no route leads there: by which interface would its packets come in?";
            return Err(Failure {
                code: code::INVALID,
                ..Failure::new(question.from.to_string(), what, "say so: --interface")
            });
        }
        Ok(way.ifindex)
    }

    /// The MAC of an interface of the director; none if it is not one of its.
    pub fn mac(&self, ifindex: u32) -> Result<Option<Mac>> {
        Ok(self.store.links()?.into_iter().find(|(index, _)| *index == ifindex).map(|(_, link)| link.mac))
    }

    /// Of a neighbour that is nobody's, with all hops left.
    pub fn coming(&self, ingress: u32) -> Result<Coming> {
        let destination = self.mac(ingress)?.unwrap_or_default().bytes();
        Ok(Coming { source: NOBODY, destination, ttl: TTL })
    }

    /// What would become of a frame that comes in. `change` may change the copy before.
    pub fn foretell(
        &mut self,
        question: &Question,
        incoming: &Incoming<'_>,
        change: impl FnOnce(&mut MemoryTables),
    ) -> Result<Foretold> {
        let xdp = self.has_xdp(incoming.ingress);
        let (store, mut ways) = (self.store, Ok(()));
        let foretold = foretell(store, incoming, xdp, |tables| {
            ways = self.find_ways(tables, question);
            change(tables);
        })?;
        ways.map(|()| foretold)
    }

    /// What becomes of another frame, on tables that one has gone through already.
    pub fn run(&self, tables: &mut MemoryTables, incoming: &Incoming<'_>) -> Outcome {
        if self.has_xdp(incoming.ingress) { run(tables, incoming) } else { run_tc(tables, incoming) }
    }

    /// What the kernel's routing table says of both ends: answers go to the one, errors to the other.
    fn find_ways(&mut self, tables: &mut MemoryTables, question: &Question) -> Result<()> {
        let family = if question.from.is_ipv6() { "ipv6/conf/all/forwarding" } else { "ipv4/ip_forward" };
        let forwards = std::fs::read_to_string(format!("/proc/sys/net/{family}"));
        tables.routes.not_forwarding = forwards.is_ok_and(|value| value.trim() == "0");
        for end in [question.from.ip(), question.to.ip()] {
            let way = self.way(end)?;
            let dst = (way.state == NextHopState::Resolved).then(|| Mac::new(way.mac));
            let target = Target { ifindex: way.ifindex, mtu: way.mtu, src: Mac::new(way.source_mac), dst };
            let leads = matches!(way.state, NextHopState::Resolved | NextHopState::NoNeighbour);
            tables.routes.set(end, if end.is_ipv6() { 128 } else { 32 }, leads.then_some(target));
        }
        Ok(())
    }

    /// Names of what has only numbers in the tables.
    pub fn names(&self) -> Result<Names<'a, KernelStore>> {
        Names::of(self.store, &self.host)
    }
}
