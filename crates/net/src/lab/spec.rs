//! What a lab looks like: its parameters and its fixed addresses.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address family that a lab is printed and used with. Both are always configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "4")]
    V4,
    /// IPv6.
    #[serde(rename = "6")]
    V6,
}

/// The forwarding method that a lab's servers and routes are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// Servers answer through the director, which is their default route.
    Nat,
    /// Direct routing: servers answer on their own, by the router.
    Dr,
    /// Tunnelling: the same.
    Tun,
}

/// The parameters of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabSpec {
    /// The lab's name; its namespaces are called `NAME-client` and so on.
    pub name: String,
    /// The forwarding method.
    pub mode: Mode,
    /// The family that [`LabSpec::vip`] and the other address functions answer for.
    pub family: Family,
    /// How many servers, 1 to 250.
    pub servers: u8,
    /// The director has one interface `eth0`, on the servers' switch, instead of `c0` and `r0`.
    pub one_arm: bool,
    /// The MTU of every link on the servers' switch.
    pub server_mtu: u32,
    /// The MTU of the link between client and router.
    pub client_mtu: u32,
    /// The MTU of the link between router and director (two arms only).
    pub outside_mtu: u32,
    /// Leave checksum, segmentation and GRO offloads on. Native XDP over veth needs them off.
    pub offloads: bool,
    /// Give the director the virtual address on `lo`; without it nobody holds it.
    pub hold_vip: bool,
}

/// The name of a lab when none is given.
pub const DEFAULT_NAME: &str = "lab";

impl Default for LabSpec {
    fn default() -> Self {
        LabSpec {
            name: DEFAULT_NAME.to_string(),
            mode: Mode::Nat,
            family: Family::V4,
            servers: 2,
            one_arm: false,
            server_mtu: 1500,
            client_mtu: 1500,
            outside_mtu: 1500,
            offloads: true,
            hold_vip: true,
        }
    }
}

impl LabSpec {
    /// Refuses what cannot be built.
    pub fn check(&self) -> Result<()> {
        let name_fits = !self.name.is_empty()
            && self.name.len() <= 32
            && self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !name_fits {
            return Err(Error::refused(
                format!("{:?} is no name for a lab", self.name),
                "use up to 32 letters, digits, `-` and `_`, a letter or digit first",
            ));
        }
        if !(1..=250).contains(&self.servers) {
            return Err(Error::refused(format!("a lab cannot have {} servers", self.servers), "ask for 1 to 250"));
        }
        for (which, mtu) in [("server", self.server_mtu), ("client", self.client_mtu), ("outside", self.outside_mtu)] {
            if !(1280..=65_535).contains(&mtu) {
                return Err(Error::refused(
                    format!("{which} MTU {mtu} does not fit"),
                    "IPv6 needs 1280 at least, and veth takes 65535 at most",
                ));
            }
        }
        Ok(())
    }

    /// The virtual address.
    pub fn vip(&self) -> IpAddr {
        VIP.of(self.family)
    }

    /// The client's address.
    pub fn client(&self) -> IpAddr {
        CLIENT.of(self.family)
    }

    /// The address of server `k`, counted from 1.
    pub fn server(&self, k: u8) -> IpAddr {
        server(k).of(self.family)
    }

    /// The director's address on the servers' network.
    pub fn director(&self) -> IpAddr {
        DIRECTOR_INSIDE.of(self.family)
    }

    /// The director's interfaces: towards the clients and towards the servers (the same with one arm).
    pub fn director_interfaces(&self) -> (&'static str, &'static str) {
        if self.one_arm { ("eth0", "eth0") } else { ("c0", "r0") }
    }
}

/// One address in each family, with the prefix length of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// IPv4 address and prefix length.
    pub v4: (Ipv4Addr, u8),
    /// IPv6 address and prefix length.
    pub v6: (Ipv6Addr, u8),
}

impl Pair {
    const fn new(v4: (Ipv4Addr, u8), v6: (Ipv6Addr, u8)) -> Self {
        Pair { v4, v6 }
    }

    /// The address of one family.
    pub fn of(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.0.into(),
            Family::V6 => self.v6.0.into(),
        }
    }

    /// Both, with their prefix lengths.
    pub fn both(self) -> [(IpAddr, u8); 2] {
        [(self.v4.0.into(), self.v4.1), (self.v6.0.into(), self.v6.1)]
    }

    /// The same addresses with the prefix lengths of a single host.
    pub fn host(self) -> Self {
        Pair { v4: (self.v4.0, 32), v6: (self.v6.0, 128) }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn doc6(third: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, third, 0, 0, 0, 0, last)
}

const fn inside6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

/// The virtual address: 192.0.2.10 and 2001:db8::10.
pub const VIP: Pair = Pair::new((v4(192, 0, 2, 10), 32), (doc6(0, 0x10), 128));
/// The network that virtual addresses are taken from; the router sends all of it to the director.
pub const VIP_NETWORK: Pair = Pair::new((v4(192, 0, 2, 0), 24), (doc6(0, 0), 64));
/// The client.
pub const CLIENT: Pair = Pair::new((v4(198, 51, 100, 7), 24), (doc6(0x51, 7), 64));
/// The router, seen by the client.
pub const ROUTER_CLIENTS: Pair = Pair::new((v4(198, 51, 100, 1), 24), (doc6(0x51, 1), 64));
/// The router, seen by the director (two arms).
pub const ROUTER_OUTSIDE: Pair = Pair::new((v4(203, 0, 113, 1), 30), (doc6(1, 1), 64));
/// The director, seen by the router (two arms).
pub const DIRECTOR_OUTSIDE: Pair = Pair::new((v4(203, 0, 113, 2), 30), (doc6(1, 2), 64));
/// The servers' network.
pub const SERVER_NETWORK: Pair = Pair::new((v4(10, 0, 0, 0), 24), (inside6(0), 64));
/// The director, seen by the servers.
pub const DIRECTOR_INSIDE: Pair = Pair::new((v4(10, 0, 0, 1), 24), (inside6(1), 64));
/// The router, on the servers' switch: the way around the director.
pub const ROUTER_INSIDE: Pair = Pair::new((v4(10, 0, 0, 254), 24), (inside6(0x254), 64));

/// Server `k`, counted from 1: 10.0.0.(k+1) and fd00::(k+1).
pub fn server(k: u8) -> Pair {
    let last = k.saturating_add(1);
    Pair::new((v4(10, 0, 0, last), 24), (inside6(last.into()), 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_labs_are_refused_with_a_remedy() {
        let good = LabSpec::default();
        assert!(good.check().is_ok());
        for bad in [
            LabSpec { name: "../etc".into(), ..good.clone() },
            LabSpec { name: String::new(), ..good.clone() },
            LabSpec { servers: 0, ..good.clone() },
            LabSpec { servers: 251, ..good.clone() },
            LabSpec { server_mtu: 576, ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_follow_the_family() {
        let spec = LabSpec { family: Family::V6, ..LabSpec::default() };
        assert_eq!(spec.vip().to_string(), "2001:db8::10");
        assert_eq!(spec.server(1).to_string(), "fd00::2");
        assert_eq!(LabSpec::default().server(2).to_string(), "10.0.0.3");
    }
}
