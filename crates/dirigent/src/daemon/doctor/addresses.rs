//! Who answers for the virtual addresses: only this director may.

use super::paths::set_up;
use super::servers::protocol;
use super::{AT_ONCE, ERROR, Subject, on_server};
use crate::daemon::suspicion::{claims_place, who};
use dirigent_api::Finding;
use dirigent_config::Method;
use dirigent_net::ask::who_has;
use dirigent_net::{Mac, mac_text};
use futures_util::{StreamExt as _, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What came of it.
pub struct Asked {
    /// Others that answered.
    pub findings: Vec<Finding>,
    /// The addresses for which nobody else did.
    pub unclaimed: BTreeSet<IpAddr>,
}

/// Asks on every link in use. Addresses of virtual routers that are not master here belong to others.
pub async fn look(subject: &Subject) -> Asked {
    let addresses: BTreeSet<IpAddr> = subject.ways().filter_map(|way| way.service.address()).collect();
    let others = subject.status.virtual_routers.iter().filter(|router| router.state != "master");
    let others: BTreeSet<IpAddr> = others.flat_map(|r| r.addresses.iter().filter_map(|ip| ip.parse().ok())).collect();
    let mut unclaimed: BTreeSet<IpAddr> = addresses.difference(&others).copied().collect();
    let questions = unclaimed.iter().flat_map(|ip| subject.running().map(move |link| (*ip, link)));
    let asked = questions.map(|(ip, link)| async move { (ip, link, who_has(&subject.host, link, ip).await) });
    let asked: Vec<_> = asked.collect();
    // By the address, and the server among those that answer.
    let mut answers: BTreeMap<_, Vec<(u32, Mac)>> = BTreeMap::new();
    for (ip, link, answer) in stream::iter(asked).buffered(AT_ONCE).collect::<Vec<_>>().await {
        match answer {
            Ok(macs) => macs.into_iter().for_each(|mac| {
                let (server, _) = who_is(subject, ip, mac);
                answers.entry((ip, server)).or_default().push((link, mac));
            }),
            Err(error) => {
                unclaimed.remove(&ip);
                tracing::warn!("the doctor asks who has {ip}: {error}");
            }
        }
    }
    unclaimed.retain(|ip| !answers.keys().any(|(claimed, _)| claimed == ip));
    Asked {
        findings: answers.iter().map(|((ip, server), macs)| finding(subject, *ip, *server, macs)).collect(),
        unclaimed,
    }
}

/// Who has this MAC, and what to call it.
fn who_is(subject: &Subject, ip: IpAddr, mac: Mac) -> (Option<IpAddr>, String) {
    who(mac, ip, &subject.host, |ip| subject.every.iter().any(|way| way.server.address == ip))
}

/// One host or several, of which none or one is a server, answer for an address.
fn finding(subject: &Subject, ip: IpAddr, server: Option<IpAddr>, answers: &[(u32, Mac)]) -> Finding {
    let who: BTreeSet<String> = answers.iter().map(|(_, mac)| who_is(subject, ip, *mac).1).collect();
    let who = who.into_iter().collect::<Vec<_>>().join(" and ");
    let protocol = protocol(ip);
    let server = subject.every.iter().find(|way| Some(way.server.address) == server);
    let (name, remedy, commands) = match server {
        Some(way) => {
            let command = match way.server.method {
                Method::Nat => on_server(way.server.address, format!("ip address del {ip} dev lo")),
                _ => set_up(subject, way),
            };
            ("server_answers_arp", "have the server hold it without telling anybody", vec![command])
        }
        None => (
            "second_director",
            "only one host may have it: take it from the other, or let virtual routers decide",
            Vec::new(),
        ),
    };
    let seen = answers.iter().map(|(on, mac)| {
        format!("asked by {protocol} on {} who has {ip}: {} answered", subject.link(*on), mac_text(*mac))
    });
    Finding {
        name: name.into(),
        severity: ERROR.into(),
        place: claims_place(ip),
        what: format!("{protocol} for it is answered by {who}: packets of clients go there, past the director"),
        evidence: seen.collect(),
        rule: "whoever answers for the virtual address gets the clients' packets: that must be the director alone"
            .into(),
        remedy: remedy.into(),
        commands,
        ..Finding::default()
    }
}
