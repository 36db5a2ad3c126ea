//! Sockets of VRRP: raw ones of protocol 112 on one interface, for one address family.
//!
//! Packets go out with TTL (hop limit) 255, which a receiver takes for a sign that their sender is on the link, and from
//! the address that the caller names. What comes in is given with its addresses and its TTL: the caller judges it.

use crate::error::{Context, Error, Result, libc};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, recvmsg,
    sendmsg,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::task::{self, Poll};
use tokio::io::unix::AsyncFd;

/// VRRP's IP protocol number.
const PROTOCOL: i32 = 112;
/// AH's, around VRRP of version 2.
const PROTOCOL_AH: i32 = 51;
/// More than any advert: 8 bytes, 255 addresses of IPv6, and the largest IPv4 header.
const LARGEST: usize = 8192;
/// Room for what waits while the receiver does not run.
const BUFFER: usize = 256 << 10;
/// The TTL of packets to a group.
const TTL: u8 = 255;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// VRRP over IPv4.
    V4,
    /// VRRP over IPv6.
    V6,
    /// VRRP of version 2 in AH: whole IPv4 packets, header and all, in both directions.
    Ah,
}

/// Adverts that a virtual router may heed, as far as a filter in the kernel can tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Heeded {
    /// The first byte: version and type.
    pub head: u8,
    /// The second one.
    pub vrid: u8,
    /// The TTL (hop limit) must be 255.
    pub on_link: bool,
    /// Version 2's password.
    pub password: Option<[u8; 8]>,
}

/// Which adverts a socket hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hears {
    /// Those that may be heeded.
    Heeded,
    /// The others: what is only to be told of.
    Others,
}

/// More than so many cannot be told apart in the kernel: its room for a socket's filter ends (`net.core.optmem_max`).
pub const MOST_HEEDED: usize = 64;

/// A packet that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The sender.
    pub source: IpAddr,
    /// The group, or this host.
    pub destination: IpAddr,
    /// TTL, or hop limit.
    pub ttl: u8,
    /// The bytes after the IP header; of AH all.
    pub payload: Vec<u8>,
}

/// A socket, in the namespace of the thread that opened it. Needs a tokio runtime with IO.
#[derive(Debug)]
pub struct VrrpSocket {
    socket: AsyncFd<Socket>,
    interface: String,
    ifindex: u32,
    kind: Kind,
    groups: Vec<IpAddr>,
}

impl VrrpSocket {
    /// Opens one on an interface.
    pub fn open(interface: &str, ifindex: u32, kind: Kind) -> Result<Self> {
        let ipv6 = kind == Kind::V6;
        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let protocol = if kind == Kind::Ah { PROTOCOL_AH } else { PROTOCOL };
        let open = || -> io::Result<AsyncFd<Socket>> {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
            socket.bind_device(Some(interface.as_bytes()))?;
            socket.set_nonblocking(true)?;
            if ipv6 {
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_hops_v6(TTL.into())?;
                socket.set_multicast_if_v6(ifindex)?;
                socket.set_recv_hoplimit_v6(true)?;
                nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6RecvPacketInfo, &true)?;
            } else {
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_ttl_v4(TTL.into())?;
                socket.set_header_included_v4(kind == Kind::Ah)?;
            }
            // What is refused is the default's matter.
            let _ = socket.set_recv_buffer_size(BUFFER);
            // SAFETY: a socket owns its descriptor, never exchanges it, and closes it only when dropped with the `AsyncFd`
            // that it moves into here.
            Ok(unsafe { AsyncFd::register(socket) }?)
        };
        let socket = open().context(|| format!("opening a socket of VRRP on {interface}"))?;
        Ok(Self { socket, interface: interface.to_owned(), ifindex, kind, groups: Vec::new() })
    }

    /// Hears a group's packets, too.
    pub fn join(&mut self, group: IpAddr) -> Result<()> {
        if self.groups.contains(&group) {
            return Ok(());
        }
        let socket = self.socket.get_ref();
        let joined = match group {
            IpAddr::V4(group) => socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(self.ifindex)),
            IpAddr::V6(group) => socket.join_multicast_v6(&group, self.ifindex),
        };
        joined.context(|| format!("joining {group} on interface number {}", self.ifindex))?;
        self.groups.push(group);
        Ok(())
    }

    /// The interface's name, when the socket was opened.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The groups that were joined.
    pub fn groups(&self) -> &[IpAddr] {
        &self.groups
    }

    /// From now on only these adverts are heard, or only others; of more than [`MOST_HEEDED`], all are. Not of
    /// [`Kind::Ah`], whose packets prove themselves whose they are.
    pub fn hear(&self, heeded: &[Heeded], which: Hears) -> Result<()> {
        let filter = match (heeded.len(), which) {
            (..=MOST_HEEDED, _) => filter(self.kind, heeded, which),
            (_, Hears::Heeded) => vec![answer(true)],
            (_, Hears::Others) => vec![answer(false)],
        };
        self.socket.get_ref().attach_filter(&filter).context(|| "giving a socket of VRRP its filter")
    }

    /// Sends from one of this host's addresses; `ttl` is that of packets to a single host.
    pub fn send(&self, source: IpAddr, destination: IpAddr, ttl: u8, payload: &[u8]) -> Result<()> {
        let fd = self.socket.get_ref().as_raw_fd();
        let bytes = [IoSlice::new(payload)];
        let ttl = libc::c_int::from(if destination.is_multicast() { TTL } else { ttl });
        let sent = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: self.ifindex as libc::c_int,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let control = [ControlMessage::Ipv4PacketInfo(&info), ControlMessage::Ipv4Ttl(&ttl)];
                let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
                sendmsg(fd, &bytes, &control, MsgFlags::empty(), Some(&to))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                    ipi6_ifindex: self.ifindex,
                };
                let control = [ControlMessage::Ipv6PacketInfo(&info), ControlMessage::Ipv6HopLimit(&ttl)];
                let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, self.scope(destination)));
                sendmsg(fd, &bytes, &control, MsgFlags::empty(), Some(&to))
            }
            _ => Err(Errno::EAFNOSUPPORT),
        };
        sent.context(|| format!("sending to {destination} from {source}")).map(|_| ())
    }

    fn scope(&self, to: Ipv6Addr) -> u32 {
        if to.is_multicast() || to.is_unicast_link_local() { self.ifindex } else { 0 }
    }

    /// Whether something may have come in; else the task is woken when it has.
    pub fn poll_readable(&self, context: &mut task::Context<'_>) -> Poll<()> {
        // An error shows when it is read.
        self.socket.poll_read_ready(context).map(|_| ())
    }

    /// The next packet that waits; `None` when none does.
    pub fn receive(&self) -> Result<Option<Packet>> {
        let mut bytes = vec![0; LARGEST];
        let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
        loop {
            let fd = self.socket.get_ref().as_raw_fd();
            let mut into = [IoSliceMut::new(&mut bytes)];
            let received = match recvmsg::<SockaddrStorage>(fd, &mut into, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => {
                    self.wait_anew();
                    return Ok(None);
                }
                Err(Errno::EINTR) => continue,
                other => other.context(|| "receiving an advert")?,
            };
            let length = received.bytes;
            let from = received.address.as_ref().and_then(address);
            let (mut ttl, mut to) = (None, None);
            for message in received.cmsgs().context(|| "receiving an advert")? {
                match message {
                    ControlMessageOwned::Ipv6HopLimit(hops) => ttl = u8::try_from(hops).ok(),
                    ControlMessageOwned::Ipv6PacketInfo(info) => to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
                    _ => {}
                }
            }
            let data = bytes.get(..length).unwrap_or_default();
            let packet = match (self.kind, from, to, ttl) {
                (Kind::V4, ..) => ipv4(data),
                (Kind::Ah, ..) => ipv4(data).map(|packet| Packet { payload: data.to_vec(), ..packet }),
                (Kind::V6, Some(source @ IpAddr::V6(_)), Some(to), Some(ttl)) => {
                    Some(Packet { source, destination: to.into(), ttl, payload: data.to_vec() })
                }
                _ => None,
            };
            // What is no packet of IP the kernel does not deliver: were it so, it is passed over.
            if packet.is_some() {
                return Ok(packet);
            }
        }
    }

    /// Nothing is left: the runtime says when there is more.
    fn wait_anew(&self) {
        let mut none = task::Context::from_waker(task::Waker::noop());
        if let Poll::Ready(Ok(mut ready)) = self.socket.poll_read_ready(&mut none) {
            ready.clear_ready();
        }
    }
}

/// The end of a filter: the packet is heard, or not.
fn answer(heard: bool) -> SockFilter {
    SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, if heard { u32::MAX } else { 0 })
}

/// A classic filter (`socket(7)`, SO_ATTACH_FILTER). A packet that ends before what is looked at is heard by nobody.
fn filter(kind: Kind, heeded: &[Heeded], which: Hears) -> Vec<SockFilter> {
    let op = |code: u32, k: u32| SockFilter::new(code as u16, 0, 0, k);
    // X is where VRRP begins: behind the header of IPv4, which such sockets see, and of IPv6 not.
    let begin = || match kind {
        Kind::V6 => op(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, 0),
        Kind::V4 | Kind::Ah => op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0),
    };
    let byte = |at: u32| op(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, at);
    let word = |at: u32| op(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, at);
    let ttl = match kind {
        Kind::V6 => (libc::SKF_NET_OFF as u32).wrapping_add(7),
        Kind::V4 | Kind::Ah => 8,
    };
    let mut program = Vec::new();
    for one in heeded {
        // What is loaded, and what it must be.
        let mut checks = vec![(vec![begin(), byte(0)], u32::from(one.head)), (vec![byte(1)], u32::from(one.vrid))];
        if one.on_link {
            checks.push((vec![op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, ttl)], u32::from(TTL)));
        }
        if let Some(password) = one.password {
            checks.push((vec![byte(4)], 1));
            // RFC 3768 §5.3: it is behind the addresses, of which the fourth byte says how many there are.
            let behind = vec![
                byte(3),
                op(libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K, 2),
                op(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0),
                op(libc::BPF_MISC | libc::BPF_TAX, 0),
                word(8),
            ];
            let [a, b, c, d, e, f, g, h] = password;
            checks.push((behind, u32::from_be_bytes([a, b, c, d])));
            checks.push((vec![word(12)], u32::from_be_bytes([e, f, g, h])));
        }
        let end = program.len() + checks.iter().map(|(loads, _)| loads.len() + 1).sum::<usize>();
        for (loads, value) in checks {
            program.extend(loads);
            // Else behind the answer, where the next one's begin.
            let past = u8::try_from(end - program.len()).unwrap_or(u8::MAX);
            let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
            program.push(SockFilter::new(equal, 0, past, value));
        }
        program.push(answer(which == Hears::Heeded));
    }
    program.push(answer(which == Hears::Others));
    program
}

fn address(from: &SockaddrStorage) -> Option<IpAddr> {
    match from.family()? {
        nix::sys::socket::AddressFamily::Inet => from.as_sockaddr_in().map(|a| a.ip().into()),
        nix::sys::socket::AddressFamily::Inet6 => from.as_sockaddr_in6().map(|a| a.ip().into()),
        _ => None,
    }
}

/// A raw socket of IPv4 gives the header, too.
fn ipv4(data: &[u8]) -> Option<Packet> {
    let header = usize::from(data.first()? & 0xf) * 4;
    let of = |at: usize| -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = data.get(at..at + 4)?.try_into().ok()?;
        Some(bytes.into())
    };
    let (source, destination, ttl) = (of(12)?.into(), of(16)?.into(), *data.get(8)?);
    Some(Packet { source, destination, ttl, payload: data.get(header.max(20)..)?.to_vec() })
}

/// Gives the calling thread precedence over all ordinary ones: the lowest real-time priority, in turns with others of it.
/// Threads and processes that it starts have none.
pub fn run_in_real_time() -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a whole `sched_param` that outlives the call, which only reads it; 0 is the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) };
    if done == 0 {
        return Ok(());
    }
    let what = format!("a real-time priority is not given: {}", io::Error::last_os_error());
    Err(Error::refused(what, "allow it: LimitRTPRIO=1 in the unit, or `ulimit -r 1`, and RestrictRealtime=no"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_after_the_options_is_the_payload() {
        let mut bytes = vec![0x46, 0, 0, 28, 0, 0, 0, 0, 254, 112, 0, 0, 10, 0, 0, 1, 224, 0, 0, 18];
        bytes.extend([1, 1, 1, 1, 7, 8]);
        let packet = ipv4(&bytes).unwrap();
        assert_eq!((packet.ttl, packet.payload), (254, vec![7, 8]));
        assert_eq!((packet.source, packet.destination), ("10.0.0.1".parse().unwrap(), "224.0.0.18".parse().unwrap()));
        assert_eq!(ipv4(&bytes[..19]), None);
    }
}
