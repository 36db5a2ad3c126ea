//! Where probes live: health checks that reach a server the way clients' packets do. On the director itself the virtual
//! address is local, so they need a network namespace of their own, joined to the director's by a veth pair. What they
//! send comes out of the outside end, one of the director's links.
//!
//! The namespace has no name: it is its thread's, and goes with it, the veth pair too. So nothing is left of a daemon
//! that dies.

use crate::error::{Context, Error, Result};
use crate::links::{Link, Mac, link_named};
use crate::nl::{Netlink, RouteSpec, VethEnd};
use crate::sysctl;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// The other end of the pair, in the namespace.
const INSIDE: &str = "probes";
/// What the outside ends' names begin with; a hash of the director's name follows.
const OUTSIDE: &str = "dgp";
/// Settings of the namespace. It is the director that judges what comes in, whatever its source; and a check may have
/// any port, of which each is used but once a minute.
const SETTINGS: [(&str, &str); 8] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/ip_local_port_range", "1024 65535"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/all/router_solicitations", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// What NAT servers are probed from, if nothing else is asked for: of the prefix for benchmarks (RFC 2544, RFC 6815),
/// which no network has, and a unique local address (RFC 4193). Their answers come back only if the servers' way to
/// clients leads over the director, as those to clients.
pub const SOURCE4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The same for IPv6.
pub const SOURCE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xd1, 0x198, 0x18, 0, 0, 0, 1);

type Job = Box<dyn FnOnce() + Send>;

/// The addresses that probes come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Nobody else's: packets to them that belong to no probe go into the namespace too, and end there.
    pub own: BTreeSet<IpAddr>,
    /// Addresses of this host, by which servers of direct routing and tunnels answer to it.
    pub of_host: BTreeSet<IpAddr>,
}

impl Sources {
    /// [`SOURCE4`] and [`SOURCE6`].
    pub fn usual() -> Self {
        Self { own: BTreeSet::from([SOURCE4.into(), SOURCE6.into()]), of_host: BTreeSet::new() }
    }
    fn all(&self) -> BTreeSet<IpAddr> {
        self.own.union(&self.of_host).copied().collect()
    }
}

/// A namespace that is joined to nothing yet. To make it takes CAP_SYS_ADMIN, and nothing later does: a daemon that is to
/// do without makes it first, and keeps it: each of the clones is the same, which is there as long as any of them.
#[derive(Clone, Debug)]
pub struct Room {
    jobs: Sender<Job>,
    namespace: Arc<File>,
}

/// The namespace of one director, until it is dropped.
#[derive(Debug)]
pub struct ProbeNet {
    room: Room,
    outside: Link,
    sources: Mutex<Sources>,
    ipv6: bool,
}

fn hash(instance: &str) -> u32 {
    let fold = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    instance.bytes().fold(0x811c_9dc5_u32, fold)
}

/// The hardware address of both ends, by which a director knows its own.
fn mac(instance: &str) -> Mac {
    let [a, b, c, d] = hash(instance).to_be_bytes();
    [0x02, 0xd2, a, b, c, d]
}

/// The name of the outside end of a director of this name.
pub fn outside(instance: &str) -> String {
    format!("{OUTSIDE}{:08x}", hash(instance))
}

fn is_end(link: &Link, instance: &str) -> bool {
    link.kind.as_deref() == Some("veth") && link.mac == Some(mac(instance))
}

/// Removes what another daemon of this director has left, which without it is no use. Says whether there was any.
pub fn release(instance: &str) -> Result<bool> {
    let (name, mut netlink) = (outside(instance), Netlink::route()?);
    match netlink.links()?.iter().find(|link| link.name == name) {
        Some(link) if is_end(link, instance) => netlink.delete_link(&name),
        Some(_) => Err(Error::refused(
            format!("interface {name} is there already, and is not of the director {instance}"),
            format!("remove it: `ip link delete {name}`"),
        )),
        None => Ok(false),
    }
}

impl Room {
    /// Makes one, with a thread that stays in it.
    pub fn make() -> Result<Self> {
        let (jobs, orders) = channel::<Job>();
        let (made, namespace) = channel();
        let thread = std::thread::Builder::new().name("probes".into());
        let spawned = thread.spawn(move || {
            let begun = begin();
            let ready = begun.is_ok();
            // Nobody listens only if the asker is gone.
            let _ = made.send(begun);
            if ready {
                orders.into_iter().for_each(|job| job());
            }
        });
        spawned.context(|| "starting the thread of the probes")?;
        let namespace = namespace.recv().map_err(|_| ended())??;
        Ok(Self { jobs, namespace: Arc::new(namespace) })
    }

    /// Does something in the namespace, on its thread: what takes long keeps others waiting. Sockets made there stay
    /// there, whoever uses them; so do threads started there.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (answer, result) = channel();
        let job: Job = Box::new(move || {
            // Nobody listens only if the asker is gone.
            let _ = answer.send(work());
        });
        self.jobs.send(job).map_err(|_| ended())?;
        result.recv().map_err(|_| ended())
    }

    /// Joins it to the director of this name, whose namespace the calling thread is in, by a pair with this MTU. A pair
    /// that is there already goes: its probes have ended.
    pub fn join(self, instance: &str, mtu: u32) -> Result<ProbeNet> {
        release(instance)?;
        let name = outside(instance);
        let mut netlink = Netlink::route()?;
        let end = |name, namespace| VethEnd { name, mac: Some(mac(instance)), mtu: Some(mtu), namespace };
        netlink.add_veth(&end(&name, None), &end(INSIDE, Some(self.namespace.as_fd())))?;
        prepare(&mut netlink, &name)?;
        let ipv6 = sysctl::get("net/ipv6/conf/all/disable_ipv6").is_ok();
        self.run(|| prepare(&mut Netlink::route()?, INSIDE))??;
        let net = ProbeNet { room: self, outside: link_named(&name)?, sources: Mutex::default(), ipv6 };
        net.set_sources(&Sources::usual())?;
        Ok(net)
    }
}

impl ProbeNet {
    /// A namespace for the director whose namespace the calling thread is in: [`Room::make`] and [`Room::join`].
    pub fn make(instance: &str, mtu: u32) -> Result<Self> {
        Room::make()?.join(instance, mtu)
    }

    /// The outside end: its name, number and hardware address, which both ends have.
    pub fn outside(&self) -> &Link {
        &self.outside
    }

    /// [`Room::run`].
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.room.run(work)
    }

    /// Says what addresses sockets can be bound to. To be called by a thread in the director's namespace.
    pub fn set_sources(&self, wanted: &Sources) -> Result<()> {
        let usable = |set: &BTreeSet<IpAddr>| set.iter().filter(|ip| self.ipv6 || ip.is_ipv4()).copied().collect();
        let wanted = Sources { own: usable(&wanted.own), of_host: usable(&wanted.of_host) };
        let mut held = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if *held == wanted {
            return Ok(());
        }
        let (old, new, ipv6) = (held.all(), wanted.all(), self.ipv6);
        self.run(move || {
            let mut netlink = Netlink::route()?;
            new.difference(&old).try_for_each(|ip| netlink.add_address(INSIDE, *ip, host(*ip)).map(|_| ()))?;
            old.difference(&new).try_for_each(|ip| netlink.delete_address(INSIDE, *ip, host(*ip)).map(|_| ()))?;
            // With a family's last address the kernel takes away its routes.
            default_routes(&mut netlink, ipv6)
        })??;
        // What comes late, when its probe is over, must not go on to another network.
        let route = |ip: &IpAddr| RouteSpec { ifindex: Some(self.outside.index), ..RouteSpec::to(*ip, host(*ip)) };
        let mut netlink = Netlink::route()?;
        held.own.difference(&wanted.own).try_for_each(|ip| netlink.delete_route(&route(ip)).map(|_| ()))?;
        wanted.own.difference(&held.own).try_for_each(|ip| netlink.add_route(&route(ip)).map(|_| ()))?;
        *held = wanted;
        Ok(())
    }

    /// A TCP socket that is bound to a source, with a port of its own if that is 0; not connected, and it does not block:
    /// its probe is to be pinned first.
    pub fn tcp(&self, from: SocketAddr) -> Result<OwnedFd> {
        self.run(move || bound(SockType::Stream, from))?
    }

    /// The same for UDP.
    pub fn udp(&self, from: SocketAddr) -> Result<OwnedFd> {
        self.run(move || bound(SockType::Datagram, from))?
    }
}

impl Drop for ProbeNet {
    /// The pair goes with the namespace, unless that is kept for another time.
    fn drop(&mut self) {
        let kept = Arc::strong_count(&self.room.namespace) > 1;
        // By then another may have the name.
        if kept && link_named(&self.outside.name).is_ok_and(|link| link.index == self.outside.index) {
            let removed = Netlink::route().and_then(|mut netlink| netlink.delete_link(&self.outside.name));
            if let Err(error) = removed {
                tracing::warn!("the probes' interface {} stays: {error}", self.outside.name);
            }
        }
    }
}

fn bound(kind: SockType, from: SocketAddr) -> Result<OwnedFd> {
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let made = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None);
    let made = made.context(|| "opening a socket for a probe")?;
    bind(made.as_raw_fd(), &SockaddrStorage::from(from)).context(|| format!("binding a probe to {from}"))?;
    Ok(made)
}

fn host(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn ended() -> Error {
    Error::refused("the thread of the probes ended", "see the log for why; a restart of the daemon makes another")
}

/// Moves the calling thread, which is to be nobody else's, into a new namespace.
fn begin() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context(|| "creating the network namespace of the probes")?;
    for (name, value) in SETTINGS {
        sysctl::set_if_there(name, value)?;
    }
    Netlink::route()?.set_up("lo", true)?;
    File::open("/proc/thread-self/ns/net").context(|| "opening the network namespace of the probes")
}

/// All that is said in the namespace leaves by the inside end.
fn default_routes(netlink: &mut Netlink, ipv6: bool) -> Result<()> {
    let ifindex = Some(netlink.index_of(INSIDE)?);
    netlink.replace_route(&RouteSpec { ifindex, ..RouteSpec::to(Ipv4Addr::UNSPECIFIED.into(), 0) })?;
    let v6 = RouteSpec { ifindex, ..RouteSpec::to(Ipv6Addr::UNSPECIFIED.into(), 0) };
    if ipv6 { netlink.replace_route(&v6) } else { Ok(()) }
}

/// Sets one end up. Without neighbours: frames out of it are for its own hardware address, which is the other's too.
fn prepare(netlink: &mut Netlink, end: &str) -> Result<()> {
    netlink.set_no_arp(end)?;
    sysctl::set_if_there(&format!("net/ipv4/conf/{end}/rp_filter"), "0")?;
    // 1: no link-local address.
    sysctl::set_if_there(&format!("net/ipv6/conf/{end}/addr_gen_mode"), "1")?;
    netlink.set_up(end, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let names = ["main", "main2", "a-name-that-is-as-long-as-it-may-be"].map(outside);
        assert!(names.iter().all(|name| name.len() < 16));
        assert!(names[0] != names[1] && names[1] != names[2]);
        assert_ne!(mac("main"), mac("main2"));
    }
}
