//! Numbers and addresses that VRRP has to itself (RFC 9568 §5.1, §7.3).

use crate::packet::Family;
use dirigent_wire::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// VRRP's IP protocol number.
pub const PROTOCOL: u8 = 112;
/// AH's IP protocol number (RFC 2402), around VRRP version 2 with authentication type 2.
pub const PROTOCOL_AH: u8 = 51;
/// Where IPv4 adverts go.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where IPv6 adverts go.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// The TTL or hop limit of adverts: who has it is a neighbour, since no router passes it on.
pub const TTL: u8 = 255;

/// Where a family's adverts go if there are no unicast peers.
pub const fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(GROUP_V4),
        Family::V6 => IpAddr::V6(GROUP_V6),
    }
}

/// The MAC address of a virtual router: 00:00:5e:00:01:VRID for IPv4, 00:00:5e:00:02:VRID for IPv6.
pub const fn virtual_mac(family: Family, vrid: u8) -> Mac {
    let kind = match family {
        Family::V4 => 1,
        Family::V6 => 2,
    };
    Mac::new([0x00, 0x00, 0x5e, 0x00, kind, vrid])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_ends_in_family_and_vrid() {
        assert_eq!(virtual_mac(Family::V4, 51).bytes(), [0, 0, 0x5e, 0, 1, 51]);
        assert_eq!(virtual_mac(Family::V6, 255).bytes(), [0, 0, 0x5e, 0, 2, 255]);
    }
}
