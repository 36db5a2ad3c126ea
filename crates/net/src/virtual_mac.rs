//! The device of a virtual router with its own MAC: a macvlan on the router's interface, which is there while this host is
//! master. What must be undone with it stands in its alias, so that whoever removes it needs to know nothing else.

use crate::error::{Error, Result, libc};
use crate::links::{Link, Mac, mac_text, parse_link};
use crate::nl::Netlink;
use crate::nl::codec::{Attributes, read_str};
use crate::sysctl;

/// What an alias begins with; the rest is what [`BELOW`] was before the device was made.
const ALIAS: &str = "dirigent virtual router, below it was ";
/// What the interface below must be set to, at least: it neither answers for the device's addresses, nor asks in their name
/// where others are, by which these would learn the wrong MAC.
const BELOW: [(&str, u32); 2] = [("arp_ignore", 1), ("arp_announce", 2)];
const IFLA_IFALIAS: u16 = 20;

/// A device that there is, or is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualMac<'a> {
    /// Its name.
    pub name: &'a str,
    /// The interface that it is on.
    pub on: &'a str,
    /// Its MAC.
    pub mac: Mac,
    /// Its link group.
    pub group: u32,
}

impl VirtualMac<'_> {
    /// Makes it, and sets it up. Says whether it was made.
    pub fn hold(&self, netlink: &mut Netlink) -> Result<bool> {
        let Self { name, on, mac, group } = *self;
        let all = devices(netlink)?;
        let find = |wanted: &str| all.iter().find(|(link, _)| link.name == wanted);
        let below = find(on).ok_or_else(|| {
            Error::refused(format!("there is no interface {on} for {name}"), "see `ip link`, and name another")
        })?;
        let index = below.0.index;
        if let Some((there, was)) = find(name) {
            if was.is_none() {
                return Err(Error::refused(
                    format!("interface {name} is there already, and is no virtual router's with {}", mac_text(mac)),
                    format!("remove it (`ip link delete {name}`), or give virtual_mac another name"),
                ));
            }
            if there.mac == Some(mac) && there.lower == Some(index) {
                if !there.up {
                    netlink.set_up(name, true)?;
                }
                return Ok(false);
            }
            // It was configured otherwise.
            release(netlink, name)?;
            return self.hold(netlink);
        }
        // Others made before have changed it already.
        let others = all.iter().find(|(link, was)| link.lower == Some(index) && was.is_some());
        let before = match others.and_then(|(_, was)| was.clone()) {
            Some(before) => before,
            None => {
                let values = BELOW.iter().map(|(key, _)| sysctl::get(&of(on, key)));
                values.collect::<Result<Vec<_>>>()?.join(" ")
            }
        };
        netlink.add_macvlan(name, index, mac, &format!("{ALIAS}{before}"), group)?;
        self.prepare(netlink, &before)?;
        Ok(true)
    }

    /// Each of the two speaks for its own addresses. Answers to what comes by this one leave by the interface below, which
    /// strict filters of source addresses would not have.
    fn prepare(&self, netlink: &mut Netlink, before: &str) -> Result<()> {
        let Self { name, on, .. } = *self;
        for ((key, least), was) in BELOW.iter().zip(before.split(' ')) {
            if was.parse().is_ok_and(|was: u32| was < *least) {
                sysctl::set(&of(on, key), &least.to_string())?;
            }
        }
        for (key, value) in [("arp_ignore", "1"), ("rp_filter", "2")] {
            sysctl::set(&of(name, key), value)?;
        }
        // No address but those that it is given.
        for (key, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_dad", "0")] {
            sysctl::set_if_there(&format!("net/ipv6/conf/{name}/{key}"), value)?;
        }
        netlink.set_up(name, true)
    }
}

/// Whether it is one of those that virtual routers have by the standard (RFC 9568 section 7.3).
pub fn is_standard(mac: Mac) -> bool {
    matches!(mac, [0, 0, 0x5e, 0, 1 | 2, _])
}

/// Removes one, and undoes what was changed for it. False when there is none of that name that is a virtual router's.
pub fn release(netlink: &mut Netlink, name: &str) -> Result<bool> {
    let all = devices(netlink)?;
    let Some((link, Some(before))) = all.iter().find(|(link, _)| link.name == name) else { return Ok(false) };
    if !netlink.delete_link(name)? {
        return Ok(false);
    }
    let sibling = all.iter().any(|(other, was)| other.lower == link.lower && was.is_some() && other.name != name);
    let below = all.iter().find(|(other, _)| Some(other.index) == link.lower);
    if let (false, Some((below, _))) = (sibling, below) {
        for ((key, _), was) in BELOW.iter().zip(before.split(' ')) {
            sysctl::set_if_there(&of(&below.name, key), was)?;
        }
    }
    Ok(true)
}

fn of(interface: &str, key: &str) -> String {
    format!("net/ipv4/conf/{interface}/{key}")
}

/// All links, and of virtual routers' devices what their alias says.
fn devices(netlink: &mut Netlink) -> Result<Vec<(Link, Option<String>)>> {
    let read = |body: &[u8]| {
        let link = parse_link(body)?;
        let alias = Attributes::after(body, 16).find(|(kind, _)| *kind == IFLA_IFALIAS).map(|(_, text)| read_str(text));
        let was = alias.filter(|_| link.kind.as_deref() == Some("macvlan"));
        let was = was.and_then(|alias| alias.strip_prefix(ALIAS).map(str::to_owned));
        Some((link, was))
    };
    netlink.dump(libc::RTM_GETLINK, &[0; 16], libc::RTM_NEWLINK, "listing the interfaces", read)
}
