//! Asking a link who has an address: an ARP request (RFC 826), or a neighbour solicitation (RFC 4861 section 7.2.2).

use crate::claims::Claims;
use crate::error::Result;
use crate::links::{Mac, Snapshot};
use crate::raw::PacketSocket;
use crate::vip::{ARP_REQUEST, arp, neighbour_message};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// After each question, of which one may be lost.
const PATIENCE: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(250)];
/// Answers that are read at once.
const AT_ONCE: usize = 64;

/// The MACs that answer for an address on a link, this host's own apart. Nobody learns anything by the question: in IPv4 it
/// comes from no address (a probe of RFC 5227), in IPv6 from the link-local one. Nobody is asked on a link that has no MAC
/// or, in IPv6, no link-local address. Needs a tokio runtime with IO and time.
pub async fn who_has(host: &Snapshot, ifindex: u32, ip: IpAddr) -> Result<BTreeSet<Mac>> {
    let Some(mac) = host.links.get(&ifindex).and_then(|link| link.mac) else { return Ok(BTreeSet::new()) };
    let question = match ip {
        IpAddr::V4(ip) => arp(mac, [0, 0, 0, 0].into(), ip, ARP_REQUEST),
        IpAddr::V6(ip) => {
            let own = host.addresses.iter().filter(|address| address.ifindex == ifindex);
            let own = own.filter_map(|address| match address.ip {
                IpAddr::V6(own) if own.is_unicast_link_local() => Some(own),
                _ => None,
            });
            let Some(own) = own.min() else { return Ok(BTreeSet::new()) };
            solicitation(mac, own, ip)
        }
    };
    let claims = Claims::open(ifindex, ip.is_ipv6(), &[ip])?;
    let socket = PacketSocket::sender()?;
    let mut all = BTreeSet::new();
    for patience in PATIENCE {
        socket.send(ifindex, &question)?;
        let hear = async {
            loop {
                poll_fn(|context| claims.poll_readable(context)).await;
                all.extend(claims.receive(AT_ONCE).into_iter().filter(|claim| claim.ip == ip).map(|claim| claim.mac));
                // An interface that went is always readable.
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _: std::result::Result<(), _> = timeout(patience, hear).await;
    }
    all.retain(|mac| !host.links.values().any(|link| link.mac == Some(*mac)));
    Ok(all)
}

/// A neighbour solicitation to the group of those who may have the address (RFC 4291 section 2.7.1).
fn solicitation(mac: Mac, from: Ipv6Addr, ip: Ipv6Addr) -> Vec<u8> {
    const SOLICITATION: u8 = 135;
    let [.., a, b, c] = ip.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let group_mac = [0x33, 0x33, 0xff, a, b, c]; // RFC 2464 section 7
    // With the source's link-layer address.
    neighbour_message((mac, from), (group_mac, group), [SOLICITATION, 0, 1], ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{LabGuard, LabSpec};

    /// Whoever has an address says so, whoever was told to be silent does not, and this host does not hear itself.
    /// Needs root.
    #[test]
    fn who_has_an_address_answers() {
        let spec = LabSpec { hold_vip: true, ..LabSpec::default() };
        let lab = LabGuard::up(&spec).unwrap();
        let ask = |ip: &str| {
            let ip = ip.parse().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let asked = || {
                let host = Snapshot::take().unwrap();
                let index = host.link_named("r0").unwrap().index;
                runtime.block_on(who_has(&host, index, ip)).unwrap()
            };
            lab.run("director", asked).unwrap()
        };
        let server = BTreeSet::from([[2, 0, 0, 0, 3, 1]]);
        for ip in ["10.0.0.2", "fd00::2"] {
            assert_eq!(ask(ip), server, "{ip}");
        }
        for ip in ["10.0.0.99", "fd00::99", "192.0.2.10", "2001:db8::10", "10.0.0.1", "fd00::1"] {
            assert_eq!(ask(ip), BTreeSet::new(), "{ip}");
        }
    }
}
