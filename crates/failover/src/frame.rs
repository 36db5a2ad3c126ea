//! Adverts to a group as whole Ethernet frames: those from a virtual router's own MAC, by which switches learn where it is
//! (RFC 9568 §7.3).

use crate::address::{PROTOCOL, TTL};
use dirigent_wire::{Mac, checksum};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Internetwork control, as keepalived and routing protocols have it: DSCP CS6.
pub const CLASS: u8 = 0xc0;

/// The MAC of a group (RFC 1112 §6.4, RFC 2464 §7); none: it is no group's address.
pub fn group_mac(group: IpAddr) -> Option<Mac> {
    match group {
        IpAddr::V4(group) if group.is_multicast() => {
            let [_, b, c, d] = group.octets();
            Some(Mac::new([0x01, 0, 0x5e, b & 0x7f, c, d]))
        }
        IpAddr::V6(group) if group.is_multicast() => {
            let [.., a, b, c, d] = group.octets();
            Some(Mac::new([0x33, 0x33, a, b, c, d]))
        }
        _ => None,
    }
}

/// An advert in an IP packet; none: the addresses are of different families, or it is too long.
pub fn ip(source: IpAddr, destination: IpAddr, advert: &[u8]) -> Option<Vec<u8>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(source, destination, advert),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(source, destination, advert),
        _ => None,
    }
}

/// An IP packet to a group in a frame from a MAC.
pub fn ethernet(from: Mac, group: IpAddr, packet: &[u8]) -> Option<Vec<u8>> {
    let ethertype = if group.is_ipv6() { dirigent_wire::eth::IPV6 } else { dirigent_wire::eth::IPV4 };
    let mut frame = Vec::with_capacity(14 + packet.len());
    frame.extend(group_mac(group)?.bytes());
    frame.extend(from.bytes());
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    Some(frame)
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, advert: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(20 + advert.len()).ok()?;
    let [high, low] = length.to_be_bytes();
    // Not to be cut, so that it needs no number.
    let mut packet = vec![0x45, CLASS, high, low, 0, 0, 0x40, 0, TTL, PROTOCOL, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let check = !checksum::sum_bytes(&packet);
    packet.get_mut(10..12)?.copy_from_slice(&check.to_ne_bytes());
    packet.extend(advert);
    Some(packet)
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, advert: &[u8]) -> Option<Vec<u8>> {
    let [high, low] = u16::try_from(advert.len()).ok()?.to_be_bytes();
    let mut packet = vec![0x60 | CLASS >> 4, CLASS << 4, 0, 0, high, low, PROTOCOL, TTL];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(advert);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{GROUP_V4, GROUP_V6, virtual_mac};
    use crate::packet::Family;

    #[test]
    fn a_frame_goes_to_the_group_from_the_virtual_mac() {
        let advert = [0x31, 51, 100, 0, 0, 100, 0, 0];
        let packet = ip(Ipv4Addr::new(192, 0, 2, 5).into(), GROUP_V4.into(), &advert).unwrap();
        #[rustfmt::skip]
        let want = [
            0x45, 0xc0, 0, 28, 0, 0, 0x40, 0, 255, 112, 0xd8, 0x99, 192, 0, 2, 5, 224, 0, 0, 18,
            0x31, 51, 100, 0, 0, 100, 0, 0,
        ];
        assert_eq!(packet, want);
        assert_eq!(checksum::sum_bytes(&packet[..20]), 0xffff, "a true checksum");
        let frame = ethernet(virtual_mac(Family::V4, 51), GROUP_V4.into(), &packet).unwrap();
        assert_eq!(frame[..14], [1, 0, 0x5e, 0, 0, 18, 0, 0, 0x5e, 0, 1, 51, 8, 0]);
        assert_eq!(frame[14..], packet);

        let packet = ip("fe80::5".parse().unwrap(), GROUP_V6.into(), &advert).unwrap();
        assert_eq!(packet[..8], [0x6c, 0, 0, 0, 0, 8, 112, 255]);
        assert_eq!(packet[40..], advert);
        let frame = ethernet(virtual_mac(Family::V6, 51), GROUP_V6.into(), &packet).unwrap();
        assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 0x12, 0, 0, 0x5e, 0, 2, 51, 0x86, 0xdd]);
    }

    #[test]
    fn only_groups_have_such_frames() {
        let (host, group) = (IpAddr::from([192, 0, 2, 5]), IpAddr::from([239, 255, 1, 2]));
        assert_eq!(group_mac(group).map(Mac::bytes), Some([1, 0, 0x5e, 0x7f, 1, 2]));
        assert_eq!(ethernet(Mac::new([2; 6]), host, &[]), None);
        assert_eq!(ip(host, GROUP_V6.into(), &[]), None);
        assert_eq!(ip(host, group, &vec![0; 65_516]), None);
    }
}
