//! Changes of the network as they happen.
//!
//! [`Watcher::changes`] waits, takes in everything that the kernel has reported, and says what it was about; the
//! watcher's snapshot is then up to date. When the kernel could not keep all reports (a burst larger than the socket's
//! buffer), everything is read again and [`Change::Everything`] says so: nothing is ever missed in silence.

use crate::error::{Context, Error, Result, libc};
use crate::links::{Snapshot, parse_address, parse_link, parse_neighbour};
use crate::nl::Netlink;
use crate::nl::codec::{Messages, Raw};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::IpAddr;
use tokio::io::unix::AsyncFd;

const BUFFER: usize = 4 << 20;
/// RTNLGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE, _NEXTHOP.
const GROUPS: [u32; 9] = [1, 3, 5, 7, 8, 9, 11, 19, 32];
/// `linux/rtnetlink.h`: nexthops that routes name. By default their routes are told of, too; not without `nexthop_compat_mode`.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
/// RTNLGRP_LINK, _IPV4_IFADDR, _IPV6_IFADDR.
const OWN: [u32; 3] = [1, 5, 9];

/// What a change was about. The new state is in the watcher's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// An interface is new, or its name, address, MTU, state or XDP program changed.
    Link(u32),
    /// An interface is gone.
    LinkGone(u32),
    /// An address was added.
    Address(u32, IpAddr),
    /// An address was removed.
    AddressGone(u32, IpAddr),
    /// Routes, or the rules that lead to them, changed: next hops must be asked for again.
    Routes,
    /// A neighbour's state or hardware address changed, or it is gone.
    Neighbour(u32, IpAddr),
    /// Reports were lost; everything was read again.
    Everything,
}

/// Watches the network namespace of the thread that started it.
pub struct Watcher {
    reports: AsyncFd<Socket>,
    netlink: Netlink,
    snapshot: Snapshot,
    routes_stale: bool,
    /// Links and addresses are all it looks at.
    own: bool,
}

impl Watcher {
    /// Subscribes, then reads everything, so that no change falls between. Needs a tokio runtime with IO.
    pub fn start() -> Result<Self> {
        Self::of(&GROUPS, false)
    }

    /// The same of links and addresses only: routes and neighbours, of which there may be very many, are neither read
    /// nor waited for.
    pub fn of_own() -> Result<Self> {
        Self::of(&OWN, true)
    }

    fn of(groups: &[u32], own: bool) -> Result<Self> {
        tokio::runtime::Handle::try_current().map_err(|error| {
            Error::refused(format!("changes cannot be watched: {error}"), "call it from async code")
        })?;
        let subscribe = || -> io::Result<AsyncFd<Socket>> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.set_non_blocking(true)?;
            groups.iter().try_for_each(|group| socket.add_membership(*group))?;
            // SAFETY: a netlink socket owns its descriptor, never exchanges it, and closes it only when dropped with the
            // `AsyncFd` that it moves into here.
            Ok(unsafe { AsyncFd::register(socket) }?)
        };
        let reports = subscribe().context(|| "subscribing to changes of the network")?;
        enlarge(reports.get_ref());
        let mut netlink = Netlink::route()?;
        let snapshot = if own { Snapshot::read_own(&mut netlink)? } else { Snapshot::read(&mut netlink)? };
        Ok(Watcher { reports, netlink, snapshot, routes_stale: false, own })
    }

    /// The network as of the last [`changes`](Self::changes). Reads the routes again if they have changed since.
    pub fn snapshot(&mut self) -> Result<&Snapshot> {
        if self.routes_stale && !self.own {
            self.snapshot.routes = self.netlink.routes()?;
            self.snapshot.rules = self.netlink.table_rules()?;
            self.routes_stale = false;
        }
        Ok(&self.snapshot)
    }

    /// A link as of the last [`changes`](Self::changes).
    pub fn own_link(&self, name: &str) -> Option<&crate::Link> {
        self.snapshot.link_named(name)
    }

    /// The same by its number.
    pub fn link_numbered(&self, index: u32) -> Option<&crate::Link> {
        self.snapshot.links.get(&index)
    }

    /// Reads everything anew, after a change of one's own that the snapshot is to have at once.
    pub fn refresh(&mut self) -> Result<()> {
        self.snapshot =
            if self.own { Snapshot::read_own(&mut self.netlink)? } else { Snapshot::read(&mut self.netlink)? };
        self.routes_stale = false;
        Ok(())
    }

    /// Waits until something changes and returns all changes reported so far, without repetitions. May be cancelled: a
    /// change not returned is returned by the next call.
    pub async fn changes(&mut self) -> Result<Vec<Change>> {
        loop {
            let mut ready = self.reports.readable().await.context(|| "waiting for changes of the network")?;
            let mut raw = Vec::new();
            let drained = drain(ready.get_inner(), &mut raw);
            ready.clear_ready();
            drop(ready);
            let changes = match drained {
                Ok(()) => self.take_in(&raw),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.refresh()?;
                    vec![Change::Everything]
                }
                Err(source) => return Err(Error::System { place: "reading changes of the network".into(), source }),
            };
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    fn take_in(&mut self, datagrams: &[Vec<u8>]) -> Vec<Change> {
        let mut changes = Vec::new();
        for raw in datagrams.iter().flat_map(|datagram| Messages(datagram)) {
            let Some(change) = apply(&mut self.snapshot, raw) else { continue };
            // The kernel drops the IPv4 routes of a link or address that goes without a word.
            let routes_too = !matches!(change, Change::Neighbour(..) | Change::Routes);
            self.routes_stale |= routes_too || change == Change::Routes;
            for change in std::iter::once(change).chain(routes_too.then_some(Change::Routes)) {
                if !changes.contains(&change) {
                    changes.push(change);
                }
            }
        }
        changes
    }
}

/// Takes one report into the snapshot (routes excepted); `None` when it changes nothing.
fn apply(snapshot: &mut Snapshot, raw: Raw<'_>) -> Option<Change> {
    match raw.kind {
        libc::RTM_NEWLINK => {
            let link = parse_link(raw.body)?;
            let index = link.index;
            let changed = snapshot.links.get(&index) != Some(&link);
            snapshot.links.insert(index, link);
            changed.then_some(Change::Link(index))
        }
        libc::RTM_DELLINK => {
            let index = parse_link(raw.body)?.index;
            snapshot.links.remove(&index)?;
            snapshot.addresses.retain(|address| address.ifindex != index);
            snapshot.neighbours.retain(|neighbour| neighbour.ifindex != index);
            Some(Change::LinkGone(index))
        }
        libc::RTM_NEWADDR => {
            let new = parse_address(raw.body)?;
            if snapshot.addresses.contains(&new) {
                return None;
            }
            snapshot.addresses.push(new);
            Some(Change::Address(new.ifindex, new.ip))
        }
        libc::RTM_DELADDR => {
            let gone = parse_address(raw.body)?;
            snapshot.addresses.retain(|address| *address != gone);
            Some(Change::AddressGone(gone.ifindex, gone.ip))
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE | libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Change::Routes),
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Change::Routes),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            let new = parse_neighbour(raw.body)?;
            let same = |old: &crate::links::Neighbour| (old.ifindex, old.ip) == (new.ifindex, new.ip);
            let old = snapshot.neighbours.iter().position(same).map(|at| snapshot.neighbours.swap_remove(at));
            let now = (raw.kind == libc::RTM_NEWNEIGH).then_some(new);
            snapshot.neighbours.extend(now);
            (old != now).then_some(Change::Neighbour(new.ifindex, new.ip))
        }
        _ => None,
    }
}

/// Reads all datagrams that are there.
fn drain(socket: &Socket, datagrams: &mut Vec<Vec<u8>>) -> io::Result<()> {
    loop {
        let mut buffer = Vec::with_capacity(32 * 1024);
        match socket.recv(&mut buffer, 0) {
            Ok(_) => datagrams.push(buffer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A larger buffer makes loss rarer; without the right to it the default serves.
fn enlarge(socket: &Socket) {
    let _ = setsockopt(socket, sockopt::RcvBufForce, &BUFFER);
}
