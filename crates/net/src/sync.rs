//! The socket of connection synchronisation: UDP on one port, to and from a group on an interface, or single peers.

use crate::error::{Context, Result};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Room for what waits while the receiver does not run: some thousand datagrams.
const BUFFER: usize = 4 << 20;
/// More than any datagram.
const LARGEST: usize = 65_536;

/// What it speaks to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// The interface that messages come and go by: name and number. None with single peers: by routes.
    pub interface: Option<(String, u32)>,
    /// The group.
    pub group: IpAddr,
    /// UDP port, of both ends.
    pub port: u16,
    /// TTL (hop limit) of what goes to the group.
    pub ttl: u8,
    /// Single peers, instead of the group.
    pub peers: Vec<IpAddr>,
}

impl Ends {
    fn is_v6(&self) -> bool {
        self.peers.first().unwrap_or(&self.group).is_ipv6()
    }
}

/// The socket, in the namespace of the thread that opened it. Needs a tokio runtime with IO.
#[derive(Debug)]
pub struct SyncSocket {
    socket: AsyncFd<Socket>,
    ends: Ends,
    buffer: Vec<u8>,
}

impl SyncSocket {
    /// Opens it, and joins the group if there are no single peers.
    pub fn open(ends: Ends) -> Result<Self> {
        let v6 = ends.is_v6();
        let open = || -> io::Result<AsyncFd<Socket>> {
            let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
            // Others of this host may listen, too, as with the kernel's.
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            // What is refused is the default's matter.
            let _ = socket.set_recv_buffer_size(BUFFER);
            let _ = socket.set_send_buffer_size(BUFFER);
            if v6 {
                socket.set_only_v6(true)?;
            }
            if let Some((name, _)) = &ends.interface {
                socket.bind_device(Some(name.as_bytes()))?;
            }
            let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            socket.bind(&SockAddr::from(SocketAddr::new(any, ends.port)))?;
            if ends.peers.is_empty() {
                let index = ends.interface.as_ref().map_or(0, |(_, index)| *index);
                match ends.group {
                    IpAddr::V4(group) => {
                        socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))?;
                        socket.set_multicast_loop_v4(false)?;
                        socket.set_multicast_ttl_v4(ends.ttl.into())?;
                    }
                    IpAddr::V6(group) => {
                        socket.join_multicast_v6(&group, index)?;
                        socket.set_multicast_if_v6(index)?;
                        socket.set_multicast_loop_v6(false)?;
                        socket.set_multicast_hops_v6(ends.ttl.into())?;
                    }
                }
            }
            // SAFETY: a socket owns its descriptor, never exchanges it, and closes it only when dropped with the `AsyncFd`
            // that it moves into here.
            Ok(unsafe { AsyncFd::register(socket) }?)
        };
        let socket = open().context(|| format!("opening the socket of synchronisation on port {}", ends.port))?;
        Ok(Self { socket, ends, buffer: vec![0; LARGEST] })
    }

    fn at(&self, ip: IpAddr) -> SocketAddr {
        let scope = self.ends.interface.as_ref().map_or(0, |(_, index)| *index);
        match ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast() => {
                SocketAddrV6::new(ip, self.ends.port, 0, scope).into()
            }
            _ => SocketAddr::new(ip, self.ends.port),
        }
    }

    /// To the group, or to each single peer. What the kernel does not take at once is lost, as on the way.
    pub fn send_to_all(&self, datagram: &[u8]) -> Result<()> {
        if self.ends.peers.is_empty() {
            return self.send(self.at(self.ends.group), datagram);
        }
        let mut done = Ok(());
        for peer in &self.ends.peers {
            done = done.and(self.send(self.at(*peer), datagram));
        }
        done
    }

    /// To one address.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) -> Result<()> {
        match self.socket.get_ref().send_to(datagram, &SockAddr::from(to)) {
            Ok(_) => Ok(()),
            // Nobody listens there, says an earlier datagram's answer; or the queue is full.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock) => Ok(()),
            Err(e) => Err(e).context(|| format!("sending to {to}")),
        }
    }

    /// Waits until something came.
    pub async fn readable(&self) {
        // An error is seen by who reads.
        if let Ok(mut guard) = self.socket.ready(Interest::READABLE).await {
            guard.retain_ready();
        }
    }

    /// Takes what came, at most so many datagrams, with their senders; says whether there may be more.
    pub fn take(&mut self, at_most: usize, mut see: impl FnMut(SocketAddr, &[u8])) -> bool {
        for _ in 0..at_most {
            let buffer = &mut self.buffer;
            let came = self.socket.try_io(Interest::READABLE, |socket| receive(socket, buffer));
            match came {
                Ok((length, from)) => see(from, self.buffer.get(..length).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                // An earlier datagram's error.
                Err(_) => {}
            }
        }
        true
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    use nix::sys::socket::{SockaddrStorage, recvfrom};
    use std::os::fd::AsRawFd as _;
    let (length, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer)?;
    let four = from.and_then(|from| from.as_sockaddr_in().map(|a| SocketAddr::from(std::net::SocketAddrV4::from(*a))));
    let six = from.and_then(|from| from.as_sockaddr_in6().map(|a| SocketAddr::from(SocketAddrV6::from(*a))));
    let from = four.or(six).ok_or_else(|| io::Error::other("a datagram from nowhere"))?;
    Ok((length, from))
}

/// Waits for something to come by a descriptor that somebody else reads. Needs a tokio runtime with IO.
#[derive(Debug)]
pub struct Waiter(AsyncFd<OwnedFd>);

impl Waiter {
    /// On a duplicate of the reader's.
    pub fn on(fd: OwnedFd) -> Result<Self> {
        // SAFETY: it owns its descriptor, never exchanges it, and closes it only when dropped with the `AsyncFd` that it
        // moves into here.
        let waiter = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        waiter.map(Self).map_err(io::Error::from).context(|| "waiting for a descriptor")
    }

    /// Until something has come since the last call; then all that is there is to be read.
    pub async fn came(&self) {
        if let Ok(mut ready) = self.0.readable().await {
            ready.clear_ready();
        }
    }
}

/// This host's address towards another, by its routes.
pub fn source_towards(peer: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if peer.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((peer, 9)).ok()?;
    socket.local_addr().ok().map(|at| at.ip())
}
