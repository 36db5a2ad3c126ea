//! The few questions about an interface that decide how the programs are attached:
//! asked here, by aya's only user, because attaching is a conversation with the same
//! kernel interfaces. Everything else about links is in the net crate.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const HEADER: usize = 16;

/// What the kernel says of a link.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    /// `veth`, `bridge`, ...; physical devices have none.
    pub kind: Option<String>,
    /// The XDP program on it.
    pub xdp: Option<Xdp>,
}

/// An XDP program on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Xdp {
    pub program: u32,
    /// In the network stack instead of the driver.
    pub generic: bool,
}

/// Asks for a link by name, or by index where the name is empty.
pub(super) fn link(name: &str, index: u32) -> io::Result<Link> {
    let mut body = vec![0u8; 16];
    put(&mut body, 4, &index.to_ne_bytes());
    if !name.is_empty() {
        attribute(&mut body, IFLA_IFNAME, &terminated(name));
    }
    let answer = ask(libc::NETLINK_ROUTE, RTM_GETLINK, &body)?;
    let mut link = Link { index: word(&answer, 4).unwrap_or_default(), ..Link::default() };
    for (kind, value) in attributes(answer.get(16..).unwrap_or_default()) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = word(value, 0).unwrap_or_default(),
            IFLA_LINKINFO => {
                link.kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND).map(|(_, value)| text(value));
            }
            IFLA_XDP => link.xdp = xdp(value),
            _ => {}
        }
    }
    Ok(link)
}

fn xdp(value: &[u8]) -> Option<Xdp> {
    let find = |wanted: u16| attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // 0 none, 1 driver, 2 generic, 3 hardware, 4 several
    let attached = *find(IFLA_XDP_ATTACHED)?.first()?;
    let ids = [IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID];
    let program = ids.into_iter().find_map(|kind| word(find(kind)?, 0))?;
    (attached != 0).then_some(Xdp { program, generic: attached == 2 })
}

/// The XDP features that the driver reports (bits `NETDEV_XDP_ACT_*`); nothing on
/// kernels before 6.3, which have no such question.
pub(super) fn xdp_features(index: u32) -> Option<u64> {
    let mut body = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    attribute(&mut body, CTRL_ATTR_FAMILY_NAME, &terminated("netdev"));
    let answer = ask(libc::NETLINK_GENERIC, GENL_ID_CTRL, &body).ok()?;
    let family = attributes(answer.get(4..)?).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)?.1;
    let family = u16::from_ne_bytes(*family.first_chunk::<2>()?);

    let mut body = vec![NETDEV_CMD_DEV_GET, 1, 0, 0];
    attribute(&mut body, NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes());
    let answer = ask(libc::NETLINK_GENERIC, family, &body).ok()?;
    let features = attributes(answer.get(4..)?).find(|(kind, _)| *kind == NETDEV_A_DEV_XDP_FEATURES)?.1;
    Some(u64::from_ne_bytes(*features.first_chunk::<8>()?))
}

/// The name of the driver behind an interface.
pub(super) fn driver(name: &str) -> Option<String> {
    const GET_DRIVER_INFO: u32 = 3;
    let driver = text(ethtool(name, GET_DRIVER_INFO)?.get(..32)?);
    (!driver.is_empty()).then_some(driver)
}

/// Whether the device takes VLAN tags off frames that come in.
pub(super) fn strips_tags(name: &str) -> bool {
    const GET_FLAGS: u32 = 0x25;
    const RX_VLAN: u32 = 1 << 8;
    ethtool(name, GET_FLAGS).and_then(|flags| word(&flags, 0)).is_some_and(|flags| flags & RX_VLAN != 0)
}

/// What the device answers to an ethtool command, behind the command.
fn ethtool(name: &str, command: u32) -> Option<[u8; 192]> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    /// As large as the largest of the structures that these commands fill (ethtool_drvinfo).
    #[repr(C)]
    struct Answer {
        command: u32,
        rest: [u8; 192],
    }
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        data: *mut Answer,
        rest: [u8; 16],
    }
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0).ok()?;
    let mut answer = Answer { command, rest: [0; 192] };
    let mut request = Request { name: [0; 16], data: &raw mut answer, rest: [0; 16] };
    request.name.get_mut(..name.len().min(15))?.copy_from_slice(name.as_bytes().get(..name.len().min(15))?);
    // SAFETY: an ifreq with a terminated name, whose data pointer leads to at least as much
    // room as this ethtool command fills.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    (result == 0).then_some(answer.rest)
}

fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no address is passed.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One request, one answer (without its netlink header), or the kernel's error.
fn ask(protocol: i32, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&1u16.to_ne_bytes()); // NLM_F_REQUEST
    request.extend_from_slice(&1u32.to_ne_bytes()); // sequence
    request.extend_from_slice(&0u32.to_ne_bytes());
    request.extend_from_slice(body);
    // SAFETY: a live buffer and its length. The socket is not connected, so the kernel is addressed.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = [const { MaybeUninit::<u8>::uninit() }; 32 * 1024];
    // SAFETY: the buffer may be written for its whole length.
    let received = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let answer: Vec<u8> = answer
        .get(..received)
        .unwrap_or_default()
        .iter()
        // SAFETY: the kernel has written the first `received` bytes.
        .map(|byte| unsafe { byte.assume_init() })
        .collect();

    let short = || io::Error::new(io::ErrorKind::InvalidData, "short netlink answer");
    let length = word(&answer, 0).ok_or_else(short)? as usize;
    let answer_kind = u16::from_ne_bytes(*answer.get(4..).and_then(<[u8]>::first_chunk).ok_or_else(short)?);
    let body = answer.get(HEADER..length).ok_or_else(short)?;
    if answer_kind == 2 {
        // NLMSG_ERROR
        let code = word(body, 0).ok_or_else(short)?.cast_signed();
        return Err(io::Error::from_raw_os_error(-code));
    }
    Ok(body.to_vec())
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&length.to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk::<2>()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The top bits say "nested" and "network byte order".
        Some((kind & 0x3fff, value))
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

fn terminated(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}
