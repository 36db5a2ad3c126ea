//! Whole frames in and out of an interface (packet sockets).

use crate::error::{Context, Error, Result, libc};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrLike, bind, recvfrom, sendmmsg,
    sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use socket2::SockFilter;
use std::io::IoSlice;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The largest frame that is read: a full GSO packet with its Ethernet header.
const LARGEST: usize = 65_536 + 64;

/// A packet socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

/// A frame that was seen on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes from the Ethernet header on. A VLAN tag taken off by the kernel is not in them, and checksums may not
    /// be filled in yet on frames of this host.
    pub bytes: Vec<u8>,
    /// This host sent it.
    pub outgoing: bool,
}

/// A header before each frame: `PACKET_VNET_HDR` (`packet(7)`).
#[derive(Clone, Copy)]
struct DeviceHeader;
nix::setsockopt_impl!(DeviceHeader, libc::SOL_PACKET, libc::PACKET_VNET_HDR, bool, sockopt::SetBool);

impl PacketSocket {
    /// A socket that only sends.
    pub fn sender() -> Result<Self> {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .context(|| "opening a packet socket")?;
        Ok(PacketSocket { socket })
    }

    /// A socket that sees all frames of one interface, in and out. On the way in that is after XDP: what XDP takes or
    /// redirects is not seen.
    pub fn listening(ifindex: u32) -> Result<Self> {
        Self::sender()?.bound(ifindex)
    }

    /// The same with a `struct virtio_net_hdr` before each frame, which says what of it is left to a device.
    pub fn with_headers(ifindex: u32) -> Result<Self> {
        let opened = Self::sender()?;
        setsockopt(&opened.socket, DeviceHeader, &true).context(|| "asking for headers before frames")?;
        opened.bound(ifindex)
    }

    /// Sees packets only that go to one of these addresses; the kernel leaves out the others.
    pub fn only_to(self, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Self> {
        let filter = destination_filter(v4, v6);
        let attached = socket2::SockRef::from(&self.socket).attach_filter(&filter);
        attached.context(|| "giving a packet socket its filter")?;
        Ok(self)
    }

    fn bound(self, ifindex: u32) -> Result<Self> {
        let opened = self;
        let address = link_address(ifindex, (libc::ETH_P_ALL as u16).to_be())?;
        bind(opened.socket.as_raw_fd(), &address).context(|| format!("listening on interface number {ifindex}"))?;
        Ok(opened)
    }

    /// Sends a frame out of an interface.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> Result<()> {
        let address = link_address(ifindex, 0)?;
        sendto(self.socket.as_raw_fd(), frame, &address, MsgFlags::empty())
            .context(|| format!("sending a frame of {} bytes out of interface number {ifindex}", frame.len()))
            .map(|_| ())
    }

    /// Sends frames by as few calls as can be; how many went. What the queue had no room for is left out.
    pub fn send_all(&self, ifindex: u32, frames: &[Vec<u8>]) -> Result<usize> {
        const AT_ONCE: usize = 256;
        let address = link_address(ifindex, 0)?;
        let (mut sent, mut left) = (0, frames);
        while !left.is_empty() {
            let chunk: Vec<_> = left.iter().take(AT_ONCE).map(|frame| [IoSlice::new(frame)]).collect();
            let mut headers = MultiHeaders::preallocate(chunk.len(), None);
            let to = vec![Some(address); chunk.len()];
            let done = sendmmsg(self.socket.as_raw_fd(), &mut headers, &chunk, to, [], MsgFlags::empty());
            let done = done.map_or(0, Iterator::count);
            sent += done;
            left = left.get(done + usize::from(done < chunk.len())..).unwrap_or_default();
        }
        Ok(sent)
    }

    /// The next frame, waiting no longer than `patience` (to the microsecond; zero waits for ever). `None` when none came.
    pub fn receive(&self, patience: Duration) -> Result<Option<Frame>> {
        let microseconds = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &TimeVal::microseconds(microseconds))
            .context(|| "setting the time to wait for a frame")?;
        let mut bytes = vec![0; LARGEST];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut bytes) {
                Ok((length, from)) => {
                    bytes.truncate(length);
                    let outgoing = from.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
                    return Ok(Some(Frame { bytes, outgoing }));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(|| "receiving a frame"),
            }
        }
    }
}

/// A classic filter (`socket(7)`, SO_ATTACH_FILTER) that takes the frames of these IP packets whole, and no other.
fn destination_filter(v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<SockFilter> {
    const ETHERTYPE: u32 = 12;
    const DESTINATION4: u32 = 30;
    const DESTINATION6: u32 = 38;
    let half = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    let word = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    // Each comparison goes on with the next instruction, or by so many further.
    let mut filter = vec![
        SockFilter::new(half, 0, 0, ETHERTYPE),
        SockFilter::new(equal, 0, 2, libc::ETH_P_IP as u32),
        SockFilter::new(word, 0, 0, DESTINATION4),
        SockFilter::new(equal, 9, 10, v4.to_bits()),
        SockFilter::new(equal, 0, 9, libc::ETH_P_IPV6 as u32),
    ];
    let parts = v6.to_bits().to_be_bytes();
    for (at, part) in (0_u8..).zip(parts.chunks_exact(4)) {
        let value = part.iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
        filter.push(SockFilter::new(word, 0, 0, DESTINATION6 + 4 * u32::from(at)));
        filter.push(SockFilter::new(equal, 0, 7 - 2 * at, value));
    }
    filter.extend([SockFilter::new(end, 0, 0, LARGEST as u32), SockFilter::new(end, 0, 0, 0)]);
    filter
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(crate) fn link_address(ifindex: u32, protocol: u16) -> Result<LinkAddr> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let pointer: *const libc::sockaddr_ll = &address;
    // SAFETY: the pointer is to a whole `sockaddr_ll` whose family says so, and its length is given with it.
    let made = unsafe { LinkAddr::from_raw(pointer.cast(), Some(size_of::<libc::sockaddr_ll>() as libc::socklen_t)) };
    made.ok_or_else(|| {
        Error::refused(format!("interface number {ifindex} makes no link address"), "please report this")
    })
}
