//! What this host must be.

use super::{ERROR, Subject, WARNING, parameters, read_out, set};
use dirigent_api::{Finding, Room};
use dirigent_config::Method;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Part of the connection table that may be in use, percent.
const FULL: u64 = 80;
/// Smallest MTU that each link must have: RFC 8200 section 5, RFC 791.
const LEAST: [(bool, u32); 2] = [(false, 576), (true, 1280)];

/// All of that.
pub fn look(subject: &Subject) -> Vec<Finding> {
    let mut all = redirects(subject);
    all.extend(table(&subject.status.connections));
    all.extend(tunnels(subject));
    all.extend(lacking(&subject.lacking));
    all
}

/// What the kernel cannot do, and is done without.
fn lacking(what: &[String]) -> Vec<Finding> {
    let finding = |what: &String| Finding {
        name: "kernel_lacks".into(),
        severity: WARNING.into(),
        place: "kernel".into(),
        what: what.clone(),
        evidence: vec!["the kernel refused it when the director was started".into()],
        rule: "what the director needs of the kernel it asks for at its start, and does without what it can".into(),
        remedy: "use a kernel that has it, as built by distributions (BTF and raw tracepoints)".into(),
        ..Finding::default()
    };
    what.iter().map(finding).collect()
}

/// Where clients and NAT servers are behind one interface, this host's redirects teach servers the way around it.
fn redirects(subject: &Subject) -> Vec<Finding> {
    let servers = subject.model.services().iter().flat_map(|s| &s.servers).filter(|s| s.method == Method::Nat);
    let mut links: BTreeSet<u32> = servers
        .filter(|server| server.address.is_ipv4())
        .filter_map(|server| subject.hops.get(&server.address).map(|hop| hop.ifindex))
        .collect();
    let default = |r: &dirigent_net::links::RouteEntry| r.destination == (IpAddr::from([0, 0, 0, 0]), 0);
    let outward: BTreeSet<u32> =
        subject.host.routes.iter().filter(|r| default(r)).flat_map(|r| r.hops.iter().map(|hop| hop.ifindex)).collect();
    links.retain(|link| outward.contains(link));
    let mut all = Vec::new();
    for link in links.iter().filter_map(|index| subject.host.links.get(index)) {
        // The kernel sends them if either is set.
        let on = parameters(&link.name, "send_redirects", |value| value == "1");
        if on.is_empty() {
            continue;
        }
        let (commands, sysctls) = set(&on, "0");
        all.push(Finding {
            name: "redirects".into(),
            severity: WARNING.into(),
            place: format!("interface {}", link.name),
            what: "this host sends redirects there, which teach NAT servers the way around the director".into(),
            evidence: read_out(&on),
            rule: "servers and clients are behind one interface: a redirect (RFC 792) for a server's other packets to a client \
                   holds for its answers, too"
                .into(),
            remedy: "send none".into(),
            commands,
            sysctls,
            ..Finding::default()
        });
    }
    all
}

fn table(room: &Room) -> Option<Finding> {
    (room.connections > 0 && room.used * 100 >= room.connections * FULL).then(|| Finding {
        name: "table_nearly_full".into(),
        severity: WARNING.into(),
        place: "connections".into(),
        what: format!("{} of {} connections that there is room for are in use", room.used, room.connections),
        evidence: vec![format!("{} connections in the tables", room.used)],
        rule: "when the table is full, no new connection gets through".into(),
        remedy: "set `connections` in [director] higher and start the director anew, or shorten timeouts".into(),
        ..Finding::default()
    })
}

/// What a tunnel leaves of the MTU.
fn tunnels(subject: &Subject) -> Vec<Finding> {
    let (mut all, mut told) = (Vec::new(), BTreeSet::new());
    for way in subject.ways().filter(|way| matches!(way.server.method, Method::Tun(_))) {
        let Some((mtu, left)) = way.carries else { continue };
        let ipv6 = way.service.is_ipv6();
        let least = LEAST.iter().find(|(of, _)| *of == ipv6).map_or(0, |(_, least)| *least);
        if left >= least || !told.insert((way.server.address, ipv6)) {
            continue;
        }
        let need = least + (mtu - left);
        all.push(Finding {
            name: "tunnel_mtu".into(),
            severity: ERROR.into(),
            place: format!("server {}", way.server.address),
            what: format!(
                "the tunnel carries packets of {left} bytes, and IPv{} needs {least}",
                if ipv6 { 6 } else { 4 }
            ),
            evidence: vec![format!(
                "the way to {} carries {} bytes, and the tunnel's headers take {}",
                way.server.address,
                mtu,
                mtu - left
            )],
            rule: "each link must carry 1280 bytes of IPv6 (RFC 8200 section 5), 576 of IPv4 (RFC 791)".into(),
            remedy: format!(
                "raise the MTU on the way to the server to {need} or more; TCP goes on meanwhile if segments have at most {} \
                 bytes (MSS)",
                left.saturating_sub(if ipv6 { 60 } else { 40 })
            ),
            ..Finding::default()
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded: neither can be made in a test's time, or on this machine.
    #[test]
    fn what_the_kernel_cannot_do_and_a_full_table_are_warnings() {
        let room = |used| Room { connections: 1000, bytes: 1 << 20, used };
        assert_eq!(table(&room(799)), None);
        let full = table(&room(800)).unwrap();
        assert_eq!((full.name.as_str(), full.severity.as_str()), ("table_nearly_full", "warning"));
        assert!(full.what.starts_with("800 of 1000 connections"), "{}", full.what);
        assert_eq!(table(&Room::default()), None);
        let [lacking] = &lacking(&["frames that XDP loses are not seen: no BTF".to_owned()])[..] else { panic!("one") };
        assert_eq!((lacking.name.as_str(), lacking.severity.as_str()), ("kernel_lacks", "warning"));
        assert!(lacking.what.ends_with("no BTF") && !lacking.evidence.is_empty() && !lacking.remedy.is_empty());
    }
}
