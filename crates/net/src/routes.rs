//! Questions about single routes and neighbours, and the care for neighbours.

use crate::error::{Error, Result, libc};
use crate::links::{Mac, Neighbour, mac_text, parse_any_route, parse_neighbour};
use crate::nl::codec::Message;
use crate::nl::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, Netlink, absent, family_of};
use std::net::IpAddr;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_FLAGS_EXT: u16 = 15;
const NTF_EXT_MANAGED: u32 = 1;
const NTF_USE: u8 = 1;
const NUD_NONE: u16 = 0;
const NUD_PERMANENT: u16 = 0x80;

/// Where packets to one address go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The interface they leave by.
    pub ifindex: u32,
    /// The next router; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that this host would use.
    pub prefsrc: Option<IpAddr>,
    /// The MTU of the route or the path, where it is known to be other than the link's.
    pub mtu: Option<u32>,
    /// The destination is this host.
    pub local: bool,
}

/// How a neighbour is kept resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// By the kernel for good (it asks again by itself), or it needs no asking.
    ByKernel,
    /// The kernel was asked to resolve it once; ask again within its reachable time (about 30 s).
    Once,
}

impl Netlink {
    /// Where packets of this host to `ip` go; `None` when nowhere.
    pub fn route_to(&mut self, ip: IpAddr) -> Result<Option<Route>> {
        self.route_from(ip, None)
    }

    /// The same with a source address of this host, for policy routing.
    pub fn route_from(&mut self, ip: IpAddr, source: Option<IpAddr>) -> Result<Option<Route>> {
        let length = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
        let source_length = source.map_or(0, length);
        let header = [family_of(ip), length(ip), source_length, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut message = Message::new(libc::RTM_GETROUTE, NLM_F_REQUEST | NLM_F_ACK, &header).attr_ip(RTA_DST, ip);
        if let Some(source) = source {
            message = message.attr_ip(RTA_SRC, source);
        }
        let place = || format!("asking for the route to {ip}");
        let replies = match self.request(message, &place) {
            // Unreachable, blackhole (EINVAL) and prohibited destinations are all nowhere.
            Err(Error::Netlink { source, .. })
                if matches!(
                    source.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)
                ) =>
            {
                return Ok(None);
            }
            other => other?,
        };
        let reply = replies.first().ok_or_else(|| Error::malformed(place(), "no route in it"))?;
        let kind = reply.body.get(7).copied().unwrap_or(0);
        let entry = parse_any_route(&reply.body).ok_or_else(|| Error::malformed(place(), "a route cut short"))?;
        let (Some(hop), RTN_UNICAST | RTN_LOCAL) = (entry.hops.first(), kind) else { return Ok(None) };
        Ok(Some(Route {
            ifindex: hop.ifindex,
            gateway: hop.gateway,
            prefsrc: entry.prefsrc,
            mtu: entry.mtu,
            local: kind == RTN_LOCAL,
        }))
    }

    /// What the kernel knows of a neighbour; `None` when nothing.
    pub fn neighbour_entry(&mut self, ifindex: u32, ip: IpAddr) -> Result<Option<Neighbour>> {
        let message =
            Message::new(libc::RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_ACK, &neighbour_header(ifindex, ip, NUD_NONE, 0))
                .attr_ip(NDA_DST, ip);
        let place = || format!("asking for the neighbour {ip} on interface number {ifindex}");
        let Some(replies) = absent(self.request(message, &place))? else { return Ok(None) };
        Ok(replies.iter().find_map(|reply| parse_neighbour(&reply.body)))
    }

    /// The hardware address of a neighbour, if it may be used now.
    pub fn neighbour(&mut self, ifindex: u32, ip: IpAddr) -> Result<Option<Mac>> {
        Ok(self.neighbour_entry(ifindex, ip)?.and_then(|neighbour| neighbour.usable()))
    }

    /// Has the kernel resolve a neighbour and keep it so. One that is set by hand is left as it is. The kernel forgets it
    /// when the interface goes down or changes its own hardware address: keep it again then, as
    /// [`HopKeeper`](crate::HopKeeper) does.
    pub fn keep_neighbour(&mut self, ifindex: u32, ip: IpAddr) -> Result<Kept> {
        if let Some(known) = self.neighbour_entry(ifindex, ip)?
            && (known.permanent || known.managed)
        {
            return Ok(Kept::ByKernel);
        }
        let place = || format!("having the kernel keep the neighbour {ip} on interface number {ifindex}");
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let message = |ntf| {
            Message::new(libc::RTM_NEWNEIGH, flags, &neighbour_header(ifindex, ip, NUD_NONE, ntf)).attr_ip(NDA_DST, ip)
        };
        let managed = self.ask(message(0).attr_u32(NDA_FLAGS_EXT, NTF_EXT_MANAGED), &place);
        // A kernel before 5.16 refuses the flag or does not know it: only the entry tells.
        if managed.is_ok() && self.neighbour_entry(ifindex, ip)?.is_some_and(|entry| entry.managed) {
            return Ok(Kept::ByKernel);
        }
        self.ask(message(NTF_USE), &place).map(|()| Kept::Once)
    }

    /// Ends the care for a neighbour: its entry is removed unless it was set by hand. The kernel makes a new one on need.
    pub fn release_neighbour(&mut self, ifindex: u32, ip: IpAddr) -> Result<()> {
        match self.neighbour_entry(ifindex, ip)? {
            Some(known) if !known.permanent => self.delete_neighbour(ifindex, ip).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Removes a neighbour's entry. False when there was none.
    pub fn delete_neighbour(&mut self, ifindex: u32, ip: IpAddr) -> Result<bool> {
        let message =
            Message::new(libc::RTM_DELNEIGH, NLM_F_REQUEST | NLM_F_ACK, &neighbour_header(ifindex, ip, NUD_NONE, 0))
                .attr_ip(NDA_DST, ip);
        let deleted = self.ask(message, &|| format!("removing the neighbour {ip} of interface number {ifindex}"));
        Ok(absent(deleted)?.is_some())
    }

    /// Sets a neighbour by hand, for good.
    pub fn set_neighbour(&mut self, ifindex: u32, ip: IpAddr, mac: Mac) -> Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let message = Message::new(libc::RTM_NEWNEIGH, flags, &neighbour_header(ifindex, ip, NUD_PERMANENT, 0))
            .attr_ip(NDA_DST, ip)
            .attr(NDA_LLADDR, &mac);
        self.ask(message, &|| format!("setting the neighbour {ip} of interface number {ifindex} to {}", mac_text(mac)))
    }
}

/// `struct ndmsg`: family, padding, interface, state, flags, type.
fn neighbour_header(ifindex: u32, ip: IpAddr, state: u16, flags: u8) -> [u8; 12] {
    let [i0, i1, i2, i3] = ifindex.to_ne_bytes();
    let [s0, s1] = state.to_ne_bytes();
    [family_of(ip), 0, 0, 0, i0, i1, i2, i3, s0, s1, flags, 0]
}
