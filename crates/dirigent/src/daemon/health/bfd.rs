//! BFD's sessions: their sockets, and which packet is whose. What a packet does is `dirigent_health::bfd`'s.

use super::checker::JobId;
use super::job::Job;
use dirigent_config::health::Bfd;
use dirigent_health::Outcome;
use dirigent_health::bfd::{self, Actions, Packet, Session, Settings};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Instant;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Longest packet that is looked at, bytes: longer ones are none of BFD's.
const LONGEST: usize = 256;
/// Source ports that are tried before there is none.
const TRIES: u32 = 64;

/// A packet that came in.
pub struct Heard {
    from: IpAddr,
    ttl: u8,
    bytes: Vec<u8>,
    multihop: bool,
}

struct One {
    session: Session,
    bfd: Bfd,
    neighbour: IpAddr,
    socket: Socket,
    to: SockAddr,
}

/// All sessions of this director.
pub struct Sessions {
    heard: mpsc::Sender<Heard>,
    all: HashMap<JobId, One>,
    by_discriminator: HashMap<u32, JobId>,
    /// Who listens, by family and kind.
    ears: HashMap<(bool, bool), AbortHandle>,
}

impl Sessions {
    /// None yet; packets will come by this.
    pub fn new(heard: mpsc::Sender<Heard>) -> Self {
        Self { heard, all: HashMap::new(), by_discriminator: HashMap::new(), ears: HashMap::new() }
    }

    /// Begins one; held down, it says so to its neighbour.
    pub fn begin(&mut self, id: JobId, job: &Job, bfd: &Bfd, down: bool, now: Instant) -> io::Result<()> {
        let kind = (job.to.is_ipv6(), bfd.multihop);
        if let std::collections::hash_map::Entry::Vacant(ear) = self.ears.entry(kind) {
            ear.insert(listen(kind, self.heard.clone())?);
        }
        let socket = speaker(job, bfd)?;
        let discriminator = loop {
            let one = fastrand::u32(1..);
            if !self.by_discriminator.contains_key(&one) {
                break one;
            }
        };
        let session = Session::new(Settings::from(bfd), discriminator, now, fastrand::u64(..));
        let to = SockAddr::from(SocketAddr::new(job.to.ip(), bfd::port(bfd)));
        self.by_discriminator.insert(discriminator, id);
        self.all.insert(id, One { session, bfd: bfd.clone(), neighbour: job.to.ip(), socket, to });
        if down {
            self.hold_down(id, true, now);
        }
        Ok(())
    }

    /// Ends one, and says so.
    pub fn end(&mut self, id: JobId) {
        self.hold_down(id, true, Instant::now());
        let Some(one) = self.all.remove(&id) else { return };
        self.by_discriminator.remove(&one.session.discriminator());
        let kind = |one: &One| (one.neighbour.is_ipv6(), one.bfd.multihop);
        let own = kind(&one);
        if !self.all.values().any(|other| kind(other) == own)
            && let Some(ear) = self.ears.remove(&own)
        {
            ear.abort();
        }
    }

    /// Holds it down, or lets it come up.
    pub fn hold_down(&mut self, id: JobId, down: bool, now: Instant) {
        if let Some(one) = self.all.get_mut(&id) {
            let actions = one.session.hold_down(now, down, fastrand::u64(..));
            one.act(actions);
        }
    }

    /// When [`Self::on_deadline`] is to be called; none: it has none, or is no session.
    pub fn deadline(&self, id: JobId) -> Option<Instant> {
        self.all.get(&id)?.session.deadline()
    }

    /// The deadline of one is reached; what it tells. None: it is no session.
    pub fn on_deadline(&mut self, id: JobId, now: Instant) -> Option<Option<Outcome>> {
        let one = self.all.get_mut(&id)?;
        let actions = one.session.on_deadline(now, fastrand::u64(..));
        Some(one.act(actions))
    }

    /// Takes a packet in: whose it was, and what that session tells.
    pub fn hear(&mut self, heard: &Heard, now: Instant) -> Option<(JobId, Option<Outcome>)> {
        let refused =
            |why: &dyn std::fmt::Display| tracing::debug!("a packet of BFD's from {} is refused: {why}", heard.from);
        let packet = Packet::parse(&heard.bytes).map_err(|why| refused(&why)).ok()?;
        let by_name = |name| self.by_discriminator.get(&name).copied();
        let is_his = |one: &One| one.neighbour == heard.from && one.bfd.multihop == heard.multihop;
        let by_neighbour = || self.all.iter().find(|(_, one)| is_his(one)).map(|(id, _)| *id);
        let id = bfd::find(&packet, by_name, by_neighbour).map_err(|why| refused(&why)).ok()?;
        let one = self.all.get_mut(&id).filter(|one| is_his(one))?;
        bfd::near_enough(&one.bfd, heard.ttl).map_err(|why| refused(&why)).ok()?;
        let actions = one.session.on_packet(now, &packet, fastrand::u64(..));
        Some((id, one.act(actions)))
    }
}

impl One {
    fn act(&self, actions: Actions) -> Option<Outcome> {
        if let Some(packet) = actions.send
            && let Err(e) = self.socket.send_to(&packet.emit(), &self.to)
        {
            // As one that was lost: the neighbour will miss it.
            tracing::debug!("a packet of BFD's to {} was not sent: {e}", self.neighbour);
        }
        if let Some((from, to)) = actions.change {
            tracing::debug!("BFD with {}: {from:?} to {to:?}", self.neighbour);
        }
        actions.told
    }
}

/// A socket of one session's: a source port of its own, and a TTL by which the neighbour knows that it is near
/// (RFC 5881 sections 4 and 5).
fn speaker(job: &Job, bfd: &Bfd) -> io::Result<Socket> {
    let target = &job.check.target;
    let socket = Socket::new(Domain::for_address(job.to), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if target.mark != 0 {
        socket.set_mark(target.mark)?;
    }
    if let Some(interface) = &target.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    let ttl = u32::from(bfd::ttl(bfd));
    if job.to.is_ipv4() {
        socket.set_ttl_v4(ttl)?
    } else {
        socket.set_unicast_hops_v6(ttl)?
    }
    let source = target.source.unwrap_or_else(|| any(job.to.is_ipv6()));
    let mut refused = None;
    for _ in 0..TRIES {
        let port = target.source_port.unwrap_or_else(|| fastrand::u16(bfd::SOURCE_PORTS));
        match socket.bind(&SockAddr::from(SocketAddr::new(source, port))) {
            Ok(()) => return Ok(socket),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && target.source_port.is_none() => refused = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn any(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// Listens for the packets of all sessions of a family, over one hop or several.
fn listen((ipv6, multihop): (bool, bool), heard: mpsc::Sender<Heard>) -> io::Result<AbortHandle> {
    let port = if multihop { bfd::MULTIHOP_PORT } else { bfd::PORT };
    let at = SocketAddr::new(any(ipv6), port);
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if ipv6 {
        socket.set_only_v6(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
    }
    socket.bind(&SockAddr::from(at)).map_err(|e| io::Error::new(e.kind(), format!("port {port} for BFD: {e}")))?;
    let socket = UdpSocket::from_std(socket.into())?;
    let task = tokio::spawn(async move {
        loop {
            match socket.async_io(Interest::READABLE, || receive(&socket, multihop)).await {
                // Nobody keeps up with that: as if it were lost on the way.
                Ok(Some(packet)) => drop(heard.try_send(packet)),
                Ok(None) => {}
                Err(e) => tracing::warn!("receiving BFD: {e}"),
            }
        }
    });
    Ok(task.abort_handle())
}

fn receive(socket: &UdpSocket, multihop: bool) -> io::Result<Option<Heard>> {
    let mut bytes = [0; LONGEST];
    let mut space = nix::cmsg_space!(i32);
    let mut pieces = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut pieces, Some(&mut space), MsgFlags::empty())?;
    let ttl = message.cmsgs()?.find_map(|one| match one {
        ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => u8::try_from(ttl).ok(),
        _ => None,
    });
    let from = message.address.as_ref().and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    let length = message.bytes;
    let (Some(ttl), Some(from)) = (ttl, from) else { return Ok(None) };
    Ok(Some(Heard { from, ttl, bytes: bytes.get(..length).unwrap_or_default().to_vec(), multihop }))
}
