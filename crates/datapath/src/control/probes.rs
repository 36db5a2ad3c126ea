//! Health checks along the clients' path: which servers they may go to, and their pins
//! (`dirigent_director::probe`).
//!
//! A server that is probed has a record of its own, whether it is in a list or not: only a next
//! hop, kept true with those of the same address. So health may take a server out of its
//! service, whose own record then waits for its return, and the probes go on.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use dirigent_config::Method;
use dirigent_director::family::{V4, V6};
use dirigent_director::probe;
use dirigent_director::records::{NextHop, Server, hop};
use dirigent_wire::{Be16, ip::proto};

use super::Error;
use super::apply::{Control, kind_of};
use super::store::Store;
use crate::keys::{Flow, address, words};

/// A server as probes reach it: of whatever service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its address.
    pub address: IpAddr,
    /// Its port, with NAT; 0: that of the probe's packets. With direct routing and tunnels that is the one anyway.
    pub port: u16,
    /// How it is reached.
    pub method: Method,
}

/// A target with its record: what pins need to know. Good as long as the target is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    target: Target,
    index: u32,
}

/// A probe that is pinned; it is let go with [`Pins::unpin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pinned {
    request: Flow,
    answer: Flow,
}

/// The servers that are probed.
#[derive(Debug, Default)]
pub(super) struct Targets(HashMap<Target, u32>);

impl Targets {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Flow {
    /// A probe's packets: from this address and port to the virtual ones.
    #[must_use]
    pub fn of_probe(protocol: u8, from: SocketAddr, to: SocketAddr) -> Self {
        Self { protocol, template: 0, src: from.ip(), sport: from.port(), dst: to.ip(), dport: to.port() }
    }
}

impl<S: Store> Control<S> {
    /// Says which servers are probed. The pins of those that are not any more go. Next hops come by
    /// [`Control::set_next_hop`] as for all servers.
    pub fn set_targets(&mut self, wanted: &HashSet<Target>) -> Result<(), Error> {
        let gone: HashMap<Target, u32> =
            self.targets.0.iter().filter(|(target, _)| !wanted.contains(target)).map(|(t, i)| (*t, *i)).collect();
        if !gone.is_empty() {
            let indexes: HashSet<u32> = gone.values().copied().collect();
            for (flow, server) in self.store.pins()? {
                if indexes.contains(&server) {
                    self.store.remove_pin(&flow)?;
                }
            }
        }
        for (target, index) in gone {
            self.targets.0.remove(&target);
            self.forget_user(target.address, index);
            self.store.put_next_hop(index, &NextHop::default())?;
            self.used_servers.remove(index);
        }
        for target in wanted {
            if !self.targets.0.contains_key(target) {
                let index = self.new_server()?;
                self.used_servers.insert(index);
                self.targets.0.insert(*target, index);
                self.add_user(target.address, index, target.method)?;
            }
        }
        self.settle_settings()
    }

    /// A target's record, if it is set.
    pub fn aim(&self, target: &Target) -> Option<Aim> {
        self.targets.0.get(target).map(|index| Aim { target: *target, index: *index })
    }

    /// This host's address on the way to a server: what probes by direct routing and tunnels come from, so that the
    /// answers come here. `None` while no way is known.
    pub fn source_towards(&self, server: IpAddr) -> Option<IpAddr> {
        let next = self.hops.get(&server).filter(|next| hop::leads(next.state.load()))?;
        let source = address(&next.source, server.is_ipv6());
        (!source.is_unspecified()).then_some(source)
    }

    /// [`Pins::pin`].
    pub fn pin(&mut self, flow: &Flow, to: &Aim, link: u32) -> Result<Pinned, Error> {
        pin(&mut self.store, flow, to, link)
    }

    /// [`Pins::unpin`].
    pub fn unpin(&mut self, pinned: &Pinned) -> Result<(), Error> {
        unpin(&mut self.store, pinned)
    }

    /// Pins of an earlier daemon, whose probes have ended with it.
    pub(super) fn clear_pins(&mut self) -> Result<(), Error> {
        let left = self.store.pins()?;
        left.iter().try_for_each(|(flow, _)| self.store.remove_pin(flow))
    }
}

/// The pins, for who makes probes: it needs nothing else of the tables, and nobody else writes these.
#[derive(Debug)]
pub struct Pins<S>(S);

impl<S: Store> Pins<S> {
    /// Those of a store.
    pub fn new(store: S) -> Self {
        Self(store)
    }
    /// Pins a probe to a server, before its first packet. `link`: the number of the link that it comes by.
    pub fn pin(&mut self, flow: &Flow, to: &Aim, link: u32) -> Result<Pinned, Error> {
        pin(&mut self.0, flow, to, link)
    }
    /// Lets it go, after its last packet.
    pub fn unpin(&mut self, pinned: &Pinned) -> Result<(), Error> {
        unpin(&mut self.0, pinned)
    }
    /// Many of them, each with what came of it.
    pub fn pin_all(&mut self, probes: &[(Flow, Aim)], link: u32) -> Vec<Result<Pinned, Error>> {
        probes.iter().map(|(flow, to)| self.pin(flow, to, link)).collect()
    }
    /// Many of them. All that can be are let go; the first error is told.
    pub fn unpin_all(&mut self, pinned: &[Pinned]) -> Result<(), Error> {
        let mut done = Ok(());
        for one in pinned {
            done = done.and(self.unpin(one));
        }
        done
    }
    /// How many packets' tuples are pinned: two for each probe.
    pub fn len(&self) -> Result<usize, Error> {
        Ok(self.0.pins()?.len())
    }
    /// Whether none is.
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }
}

fn pin<S: Store>(store: &mut S, flow: &Flow, to: &Aim, link: u32) -> Result<Pinned, Error> {
    let Aim { target, index } = to;
    let refused = |why| Err(Error::NotPinned { why });
    if !matches!(flow.protocol, proto::TCP | proto::UDP) {
        return refused("only TCP and UDP can be probed so");
    }
    if store.next_hop(*index)?.state.load() == hop::LOCAL {
        return refused("the server is this host itself, which answers no probe along the clients' path");
    }
    let nat = target.method == Method::Nat;
    if nat && target.address.is_ipv6() != flow.dst.is_ipv6() {
        return refused("the server's address is of the other family");
    }
    let server = Server {
        addr: words(target.address),
        port: Be16::new(target.port),
        method: kind_of(target.method),
        ..Server::default()
    };
    let port = if target.port == 0 { flow.dport } else { target.port };
    let (from, port) = if nat { (target.address, port) } else { (flow.dst, flow.dport) };
    let pinned = Pinned { request: *flow, answer: flow.reply(from, port) };
    let added = match (flow.tuple4(), flow.tuple6()) {
        (Some(key), _) => {
            let [request, answer] = probe::pins::<V4>(&key, &server, *index, link);
            store.add_pin4(&answer)?.then(|| store.add_pin4(&request))
        }
        (_, Some(key)) => {
            let [request, answer] = probe::pins::<V6>(&key, &server, *index, link);
            store.add_pin6(&answer)?.then(|| store.add_pin6(&request))
        }
        _ => return refused("source and destination are of different families"),
    };
    match added {
        Some(Ok(true)) => Ok(pinned),
        Some(not) => {
            store.remove_pin(&pinned.answer)?;
            not.and(refused("a probe with these addresses and ports is under way"))
        }
        None => refused("a probe from this address and port to the same server is under way"),
    }
}

fn unpin<S: Store>(store: &mut S, pinned: &Pinned) -> Result<(), Error> {
    // Without its answers a probe is not heard any more; without its request it says nothing.
    let said = store.remove_pin(&pinned.request);
    said.and(store.remove_pin(&pinned.answer))
}
