//! The device that `ip rule fwmark` leads packets to: one end of a veth pair, on whose other end the director is. tc sees
//! there the mark that netfilter has given a packet, which it cannot where the packet came in.

use crate::error::{Error, Result};
use crate::links::{Link, Mac};
use crate::nl::{Netlink, VethEnd};
use crate::sysctl;

/// The device of one director.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkDevice<'a> {
    /// The end that packets are routed to.
    pub name: &'a str,
    /// The end they come out of.
    pub inside: &'a str,
    /// The director's own name.
    pub instance: &'a str,
}

/// The hardware address of both ends, by which a director knows its own: an address that is administered locally, with
/// a hash (FNV-1a) of the director's name.
fn mac(instance: &str) -> Mac {
    let hash = instance.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    [0x02, 0xd1, a, b, c, d]
}

/// Whether it is an end of such a pair of this director.
fn is_end(link: &Link, instance: &str) -> bool {
    link.kind.as_deref() == Some("veth") && link.mac == Some(mac(instance))
}

impl MarkDevice<'_> {
    /// Makes it if it is not there, and sees that it is as it must be: up, with this MTU. Says whether it was made.
    pub fn hold(&self, mtu: u32) -> Result<bool> {
        let Self { name, inside, instance } = *self;
        let mut netlink = Netlink::route()?;
        let links = netlink.links()?;
        let ends = [name, inside].map(|end| links.iter().find(|link| link.name == end));
        if let Some(foreign) = ends.into_iter().flatten().find(|link| !is_end(link, instance)) {
            return Err(Error::refused(
                format!("interface {} is there already, and is not of the director {instance}", foreign.name),
                format!("remove it (`ip link delete {}`), or give mark_device another name", foreign.name),
            ));
        }
        let new = match ends {
            [Some(_), Some(_)] => false,
            [None, None] => true,
            // One of them was renamed: the pair is no use, and goes.
            [one, other] => {
                one.or(other).map_or(Ok(false), |end| netlink.delete_link(&end.name))?;
                true
            }
        };
        if new {
            let end = |name| VethEnd { name, mac: Some(mac(instance)), mtu: Some(mtu), namespace: None };
            netlink.add_veth(&end(name), &end(inside))?;
        }
        for (end, there) in [name, inside].into_iter().zip(ends) {
            if new || there.is_some_and(|link| !link.up) {
                prepare(&mut netlink, end)?;
            }
            if !new && there.is_some_and(|link| link.mtu != mtu) {
                netlink.set_mtu(end, mtu)?;
            }
        }
        Ok(new)
    }
}

/// Sets one end up. It has no addresses, so that the director's errors about packets, which leave by the way they came,
/// come back in with one of the host's other ones: they must not look forged.
fn prepare(netlink: &mut Netlink, end: &str) -> Result<()> {
    netlink.set_up(end, false)?;
    netlink.set_no_arp(end)?;
    sysctl::set_if_there(&format!("net/ipv4/conf/{end}/rp_filter"), "0")?;
    sysctl::set_if_there(&format!("net/ipv4/conf/{end}/accept_local"), "1")?;
    // 1: no link-local address.
    sysctl::set_if_there(&format!("net/ipv6/conf/{end}/addr_gen_mode"), "1")?;
    netlink.set_up(end, true)
}

/// Removes the pairs of a director but for the one of this name. Says which.
pub fn release(instance: &str, but: Option<&str>) -> Result<Vec<String>> {
    let mut netlink = Netlink::route()?;
    let (links, mut gone) = (netlink.links()?, Vec::new());
    for link in links.iter().filter(|link| is_end(link, instance)) {
        let names = [Some(link), link.lower.and_then(|peer| links.iter().find(|other| other.index == peer))];
        let stays = names.into_iter().flatten().any(|end| Some(end.name.as_str()) == but);
        // The other end goes with the first.
        if !stays && netlink.delete_link(&link.name)? {
            gone.push(link.name.clone());
        }
    }
    Ok(gone)
}
