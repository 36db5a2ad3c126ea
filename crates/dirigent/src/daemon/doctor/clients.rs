//! The way back to clients from here: whether there is one, and whether packets of services are dropped meanwhile.

use super::{ERROR, Subject, WARNING, here};
use crate::report::Reader;
use dirigent_api::{Finding, Reason};
use dirigent_config::Method;
use dirigent_datapath::kernel::Instance;
use dirigent_net::Netlink;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Counts answers that no route leads to their client.
pub const UNROUTABLE: &str = "reply_unroutable";
/// The finding that this host has no way to clients.
pub const NO_WAY: &str = "no_way_to_clients";

/// Reasons for which this host, and not a sender or the configuration, is to blame; with what helps.
const OWN: [(&str, &str); 5] = [
    (UNROUTABLE, "add the route to the clients, mostly the default route (`ip route get CLIENT` says what is there)"),
    ("table_full", "set `connections` in [director] higher and start the director anew, or shorten timeouts"),
    (
        "transmit_failed",
        "see which interface cannot transmit what XDP redirects to it, or set mode = \"tc\" in [director]",
    ),
    ("uncut", "switch transmit offloads off where those packets come from (`ethtool -K DEV tx off gso off`)"),
    ("stage_missing", "start the daemon anew: it loads what is missing"),
];

/// Counters of the packet path, by reason; of one that cannot be read none.
pub async fn counts(subject: &Subject) -> BTreeMap<String, Reason> {
    let name = subject.status.instance.clone();
    let read = move || -> crate::failure::Result<Vec<Reason>> {
        Ok(Reader::open(&Instance::new(&name)?)?.stats(&Default::default())?.reasons)
    };
    let all = tokio::task::spawn_blocking(read).await.ok().and_then(Result::ok).unwrap_or_default();
    all.into_iter().map(|reason| (reason.name.clone(), reason)).collect()
}

/// What is wrong, by what was counted before and after the examination.
pub fn look(subject: &Subject, before: &BTreeMap<String, Reason>, after: &BTreeMap<String, Reason>) -> Vec<Finding> {
    let grown = OWN.iter().filter_map(|(name, remedy)| {
        let (old, new) = (before.get(*name).map_or(0, |reason| reason.count), after.get(*name)?);
        (new.count > old).then(|| dropped(new, new.count - old, remedy))
    });
    grown.chain(no_way(subject)).collect()
}

fn dropped(reason: &Reason, count: u64, remedy: &str) -> Finding {
    let packets = if count == 1 { "a packet was" } else { "packets were" };
    Finding {
        name: "packets_dropped".into(),
        severity: ERROR.into(),
        place: reason.name.clone(),
        what: format!("{packets} dropped while this was looked at: {}", reason.text),
        evidence: vec![format!("{}: {} more, {} in all", reason.name, count, reason.count)],
        rule: "what the director drops it counts by reason; for this one the host is to blame, and not whoever sent the packet"
            .into(),
        remedy: remedy.into(),
        commands: vec![here("dirigent stats".into())],
        ..Finding::default()
    }
}

/// NAT: answers go from here by this host's routes.
fn no_way(subject: &Subject) -> Vec<Finding> {
    let nat = subject.ways().filter(|way| way.server.method == Method::Nat);
    let families: BTreeSet<bool> = nat.filter_map(|way| Some(way.service.address()?.is_ipv6())).collect();
    let leads = |ipv6: bool| {
        let beyond = |route: &dirigent_net::links::RouteEntry| {
            let (network, prefix): (IpAddr, u8) = route.destination;
            let out = prefix == 0 || route.hops.iter().any(|hop| hop.gateway.is_some());
            network.is_ipv6() == ipv6 && !route.local && out
        };
        subject.host.routes.iter().any(beyond)
    };
    let finding = |ipv6: bool| {
        let (family, six) = if ipv6 { (6, "-6 ") } else { (4, "") };
        Finding {
            name: NO_WAY.into(),
            severity: WARNING.into(),
            place: format!("IPv{family} routes"),
            what: "no route leads beyond this host's own links: clients anywhere else get no answers".into(),
            evidence: vec![format!("`ip {six}route show` has no default route, and none by a router")],
            rule: "by NAT servers' answers leave this host by its own route to the client".into(),
            remedy: "add the route to the clients, mostly the default route".into(),
            ..Finding::default()
        }
    };
    families.into_iter().filter(|ipv6| !leads(*ipv6)).map(finding).collect()
}

/// A server whose answers to a client end here, for no route leads to him.
pub fn unreachable(place: &str, client: IpAddr, seen: String) -> Option<Finding> {
    let none = Netlink::route().and_then(|mut netlink| netlink.route_to(client)).is_ok_and(|route| route.is_none());
    let six = if client.is_ipv6() { "-6 " } else { "" };
    none.then(|| Finding {
        name: NO_WAY.into(),
        severity: ERROR.into(),
        place: place.into(),
        what: format!("this host has no route to its client {client}: its answers are dropped here"),
        evidence: vec![seen, format!("`ip {six}route get {client}` finds none")],
        rule: "by NAT servers' answers leave this host by its own route to the client".into(),
        remedy: "add the route to the clients, mostly the default route, or remove the one that leads nowhere".into(),
        ..Finding::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_meanwhile_is_told_with_its_count() {
        let reason = Reason {
            name: UNROUTABLE.into(),
            kind: "dropped".into(),
            text: "No route to the client.".into(),
            count: 7,
        };
        let found = dropped(&reason, 2, "add the route");
        assert_eq!((found.name.as_str(), found.place.as_str()), ("packets_dropped", UNROUTABLE));
        assert_eq!(found.evidence, ["reply_unroutable: 2 more, 7 in all"]);
    }

    /// Each of the reasons is one of the packet path's.
    #[test]
    fn reasons_that_the_host_is_to_blame_for_are_there() {
        for (name, _) in OWN {
            assert!(dirigent_director::verdict::Reason::ALL.iter().any(|reason| reason.name() == name), "{name}");
        }
    }
}
