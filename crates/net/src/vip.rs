//! Holding a virtual address, and telling the neighbours where it is.

use crate::error::{Error, Result};
use crate::links::{Mac, Snapshot, link_named};
use crate::nl::Netlink;
use crate::raw::PacketSocket;
use crate::sysctl;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
pub(crate) const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Adds the address to `lo` as a host address, usable at once. False when it was there already.
pub fn add(ip: IpAddr) -> Result<bool> {
    Netlink::route()?.add_address("lo", ip, host_prefix(ip))
}

/// Removes the address from `lo`. False when it was not there.
pub fn remove(ip: IpAddr) -> Result<bool> {
    Netlink::route()?.delete_address("lo", ip, host_prefix(ip))
}

/// The names of the interfaces that have this host's addresses.
pub fn holders(snapshot: &Snapshot) -> HashMap<IpAddr, &str> {
    // Of several the first, as `holder`.
    let all = snapshot.addresses.iter().rev();
    all.filter_map(|address| Some((address.ip, snapshot.links.get(&address.ifindex)?.name.as_str()))).collect()
}

/// The name of the interface that has the address; `None` when this host does not hold it.
pub fn holder(snapshot: &Snapshot, ip: IpAddr) -> Option<&str> {
    let address = snapshot.addresses.iter().find(|address| address.ip == ip)?;
    snapshot.links.get(&address.ifindex).map(|link| link.name.as_str())
}

/// Tells everyone on an interface's link that `ip` is here: a gratuitous ARP request and reply, or an unsolicited
/// neighbour advertisement. The caller repeats it, as frames may be lost.
pub fn announce(interface: &str, ip: IpAddr) -> Result<()> {
    Announcer::open()?.announce(interface, ip)
}

/// Announces again and again by one socket: the end of a packet socket takes the kernel many milliseconds.
#[derive(Debug)]
pub struct Announcer {
    socket: PacketSocket,
}

impl Announcer {
    /// In the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: PacketSocket::sender()? })
    }

    /// As [`announce`].
    pub fn announce(&self, interface: &str, ip: IpAddr) -> Result<()> {
        let link = link_named(interface)?;
        let mac = link.mac.ok_or_else(|| {
            Error::refused(
                format!("{interface} has no hardware address, so nothing can be announced on it"),
                "announce on Ethernet interfaces only",
            )
        })?;
        match ip {
            IpAddr::V4(ip) => {
                self.socket.send(link.index, &gratuitous_arp(mac, ip, ARP_REQUEST))?;
                self.socket.send(link.index, &gratuitous_arp(mac, ip, ARP_REPLY))
            }
            IpAddr::V6(ip) => {
                // Hosts that route by this one must not learn that it is no router.
                let forwards = sysctl::get(&format!("net/ipv6/conf/{interface}/forwarding"))? == "1";
                self.socket.send(link.index, &unsolicited_advertisement(mac, ip, forwards))
            }
        }
    }
}

fn host_prefix(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// An ARP frame that says "`ip` is at `mac`" to everyone (RFC 5227 section 3, RFC 826).
pub(crate) fn gratuitous_arp(mac: Mac, ip: Ipv4Addr, operation: u8) -> Vec<u8> {
    arp(mac, ip, ip, operation)
}

/// An ARP frame to everyone about `ip`, from whoever has `mac` and `from`.
pub(crate) fn arp(mac: Mac, from: Ipv4Addr, ip: Ipv4Addr, operation: u8) -> Vec<u8> {
    let target = if operation == ARP_REQUEST { [0; 6] } else { mac };
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(mac);
    frame.extend([0x08, 0x06]); // ARP
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, operation]); // Ethernet, IPv4, their address lengths
    frame.extend(mac);
    frame.extend(from.octets());
    frame.extend(target);
    frame.extend(ip.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes, overriding what they know (RFC 4861 section 7.2.6).
pub(crate) fn unsolicited_advertisement(mac: Mac, ip: Ipv6Addr, router: bool) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    const ROUTER: u8 = 0x80;
    let flags = OVERRIDE | if router { ROUTER } else { 0 };
    // With the target's link-layer address.
    neighbour_message((mac, ip), (ALL_NODES_MAC, ALL_NODES), [NEIGHBOUR_ADVERTISEMENT, flags, 2], ip)
}

/// A frame of neighbour discovery about `target`, with the sender's MAC as its option (RFC 4861 section 4): from and to are
/// a MAC and an address each; then the message's type, its flags, and the option's type.
pub(crate) fn neighbour_message(
    from: (Mac, Ipv6Addr),
    to: (Mac, Ipv6Addr),
    [kind, flags, option]: [u8; 3],
    target: Ipv6Addr,
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend([option, 1]); // one unit of eight bytes
    message.extend(from.0);
    let checksum = checksum_v6(from.1, to.1, &message).to_be_bytes();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum);
    }
    let mut frame = Vec::with_capacity(86);
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend([0x86, 0xdd]); // IPv6
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, 255]); // hop limit 255, or it is not believed
    frame.extend(from.1.octets());
    frame.extend(to.1.octets());
    frame.extend(message);
    frame
}

/// The ICMPv6 checksum with its pseudo-header, over a message of even length.
fn checksum_v6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let addresses = source.segments().into_iter().chain(destination.segments());
    let words = message.chunks_exact(2).map(|pair| match pair {
        [high, low] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    });
    let mut sum: u32 = addresses.chain(words).map(u32::from).sum();
    sum += message.len() as u32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 2, 1];

    #[test]
    fn a_gratuitous_arp_names_the_address_twice() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(192, 0, 2, 10), ARP_REQUEST);
        let wanted = [
            255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 2, 1, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // request
            2, 0, 0, 0, 2, 1, 192, 0, 2, 10, // sender
            0, 0, 0, 0, 0, 0, 192, 0, 2, 10, // target
        ];
        assert_eq!(frame, wanted);
        let reply = gratuitous_arp(MAC, Ipv4Addr::new(192, 0, 2, 10), ARP_REPLY);
        assert_eq!((reply[21], &reply[32..38]), (2, &MAC[..]));
    }

    #[test]
    fn an_advertisement_has_a_true_checksum() {
        let ip: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let frame = unsolicited_advertisement(MAC, ip, true);
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[58], 0xa0, "router and override, not solicited");
        // With the checksum in place the sum comes out as zero.
        assert_eq!(checksum_v6(ip, ALL_NODES, &frame[54..]), 0);
    }
}
