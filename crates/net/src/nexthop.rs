//! Next hops: everything that a packet to a destination needs to leave by itself.

use crate::error::Result;
use crate::links::Mac;
use crate::nl::Netlink;
use crate::routes::Kept;
use std::net::IpAddr;

/// How far a destination can be reached now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHopState {
    /// Everything is known.
    Resolved,
    /// The way is known, but not the hardware address of the neighbour (yet), or the interface has none.
    NoNeighbour,
    /// No route leads there.
    NoRoute,
    /// It is this host.
    Local,
}

/// The next hop of a destination. What does not apply in a state is zero or `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// What of the rest is known.
    pub state: NextHopState,
    /// The interface that packets leave by.
    pub ifindex: u32,
    /// The address to resolve: the gateway's, or the destination itself.
    pub neighbour: Option<IpAddr>,
    /// The interface's hardware address.
    pub source_mac: Mac,
    /// The neighbour's hardware address.
    pub mac: Mac,
    /// The largest IP packet: the route's MTU where it has one, never more than the link's.
    pub mtu: u32,
    /// The source address that this host uses towards it.
    pub source: Option<IpAddr>,
}

impl NextHop {
    const NOWHERE: NextHop = NextHop {
        state: NextHopState::NoRoute,
        ifindex: 0,
        neighbour: None,
        source_mac: [0; 6],
        mac: [0; 6],
        mtu: 0,
        source: None,
    };
}

/// Finds next hops in the namespace of the thread that made it.
pub struct Resolver {
    netlink: Netlink,
}

impl Resolver {
    /// A resolver for the calling thread's namespace.
    pub fn new() -> Result<Self> {
        Ok(Resolver { netlink: Netlink::route()? })
    }

    /// The next hop to `destination` as of now.
    pub fn resolve(&mut self, destination: IpAddr) -> Result<NextHop> {
        let Some(route) = self.netlink.route_to(destination)? else { return Ok(NextHop::NOWHERE) };
        let Some(link) = self.netlink.link(route.ifindex)? else { return Ok(NextHop::NOWHERE) };
        let neighbour = route.gateway.unwrap_or(destination);
        let mut hop = NextHop {
            state: NextHopState::Local,
            ifindex: route.ifindex,
            neighbour: None,
            source_mac: link.mac.unwrap_or_default(),
            mtu: route.mtu.unwrap_or(link.mtu).min(link.mtu),
            source: route.prefsrc,
            ..NextHop::NOWHERE
        };
        if route.local {
            return Ok(hop);
        }
        hop.neighbour = Some(neighbour);
        hop.state = NextHopState::NoNeighbour;
        if let (Some(_), Some(mac)) = (link.mac, self.netlink.neighbour(route.ifindex, neighbour)?) {
            hop.mac = mac;
            hop.state = NextHopState::Resolved;
        }
        Ok(hop)
    }

    /// The same, and the kernel is told to resolve the neighbour and keep it so. `None` where there is nothing to keep.
    pub fn resolve_and_keep(&mut self, destination: IpAddr) -> Result<(NextHop, Option<Kept>)> {
        let hop = self.resolve(destination)?;
        let Some(neighbour) = hop.neighbour else { return Ok((hop, None)) };
        let kept = self.netlink.keep_neighbour(hop.ifindex, neighbour)?;
        Ok((hop, Some(kept)))
    }

    /// The socket, for single questions.
    pub fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }
}
