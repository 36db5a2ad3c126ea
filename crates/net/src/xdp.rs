//! What a device can do with XDP, from the `netdev` family of generic netlink (kernel 6.3 and newer).

use crate::error::{Error, Result, libc};
use crate::nl::codec::{Attributes, Message, read_u16, read_u32, read_u64};
use crate::nl::{NLM_F_ACK, NLM_F_REQUEST, Netlink};

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// `struct genlmsghdr`.
const GENL_HEADER: usize = 4;

/// What a device says it can do with XDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XdpFeatures {
    bits: u64,
}

impl XdpFeatures {
    /// From the kernel's bit mask.
    pub const fn from_bits(bits: u64) -> Self {
        XdpFeatures { bits }
    }

    /// The kernel's bit mask.
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// Runs programs natively (drop, pass, tx).
    pub const fn basic(self) -> bool {
        self.bits & 1 != 0
    }

    /// Can redirect what it received.
    pub const fn redirect(self) -> bool {
        self.bits & 2 != 0
    }

    /// Sends what others redirect to it. On veth only while the peer runs XDP or GRO.
    pub const fn transmit(self) -> bool {
        self.bits & 4 != 0
    }

    /// Receives packets in several buffers (frags).
    pub const fn receive_frags(self) -> bool {
        self.bits & 32 != 0
    }

    /// Sends redirected packets in several buffers.
    pub const fn transmit_frags(self) -> bool {
        self.bits & 64 != 0
    }
}

/// What the device can do; `None` when the kernel is too old to say, or the device is gone.
pub fn features(ifindex: u32) -> Result<Option<XdpFeatures>> {
    let mut netlink = Netlink::generic()?;
    let Some(family) = netdev_family(&mut netlink)? else { return Ok(None) };
    let place = || format!("asking for the XDP features of interface number {ifindex}");
    let message = Message::new(family, NLM_F_REQUEST | NLM_F_ACK, &[NETDEV_CMD_DEV_GET, 1, 0, 0])
        .attr_u32(NETDEV_A_DEV_IFINDEX, ifindex);
    let replies = match netlink.request(message, &place) {
        Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => return Ok(None),
        other => other?,
    };
    let body = &replies.first().ok_or_else(|| Error::malformed(place(), "no device in it"))?.body;
    let found = Attributes::after(body, GENL_HEADER).find(|(kind, _)| *kind == NETDEV_A_DEV_XDP_FEATURES);
    // The kernel sends the smaller form of an unsigned number where it fits.
    let bits = found.and_then(|(_, v)| read_u64(v, 0).or_else(|| read_u32(v, 0).map(u64::from)));
    Ok(bits.map(XdpFeatures::from_bits))
}

fn netdev_family(netlink: &mut Netlink) -> Result<Option<u16>> {
    let message = Message::new(GENL_ID_CTRL, NLM_F_REQUEST | NLM_F_ACK, &[CTRL_CMD_GETFAMILY, 1, 0, 0])
        .attr_str(CTRL_ATTR_FAMILY_NAME, "netdev");
    let replies = match netlink.request(message, &|| "looking for the netdev netlink family".into()) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
        other => other?,
    };
    let Some(reply) = replies.first() else { return Ok(None) };
    let id = Attributes::after(&reply.body, GENL_HEADER).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
    Ok(id.and_then(|(_, v)| read_u16(v, 0)))
}
