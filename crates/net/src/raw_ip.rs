//! Whole IP packets, from whatever address: the kernel finds the way, by its routes to the destination.

use crate::error::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{IpAddr, SocketAddr};

/// IPPROTO_RAW: the caller writes the header, and nothing is received.
const RAW: i32 = 255;

/// A sender, in the namespace of the thread that opened it. Takes CAP_NET_RAW.
#[derive(Debug)]
pub struct RawIp {
    v4: Socket,
    /// None: this host has no IPv6.
    v6: Option<Socket>,
}

impl RawIp {
    /// Opens it.
    pub fn open() -> Result<Self> {
        let open = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)));
        let v4 = open(Domain::IPV4).context(|| "opening a raw socket")?;
        Ok(Self { v4, v6: open(Domain::IPV6).ok() })
    }

    /// Sends a packet, whose header says where it comes from, to `to`. Says whether it left: no route leads there, or
    /// there was no room.
    pub fn send(&self, to: IpAddr, packet: &[u8]) -> bool {
        let socket = if to.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        socket.is_some_and(|socket| socket.send_to(packet, &SockAddr::from(SocketAddr::new(to, 0))).is_ok())
    }
}
