//! Who answers for the virtual addresses, and for this host's own: only this director may.

use super::paths::set_up;
use super::servers::{Answering, ask_for, protocol};
use super::{ERROR, Subject, on_server};
use crate::daemon::suspicion::{claims_place, who};
use dirigent_api::Finding;
use dirigent_config::Method;
use dirigent_net::{Mac, mac_text};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Own addresses that are asked for; of more the first ones are.
const OWN: usize = 64;

/// What came of it.
pub struct Asked {
    /// Others that answered.
    pub findings: Vec<Finding>,
    /// This host's own addresses for which others did.
    pub twice: BTreeSet<IpAddr>,
    /// The addresses for which nobody else did.
    pub unclaimed: BTreeSet<IpAddr>,
}

/// Asks on every link in use. Addresses of virtual routers that are not master here belong to others.
pub async fn look(subject: &Subject) -> Asked {
    let addresses: BTreeSet<IpAddr> = subject.ways().filter_map(|way| way.service.address()).collect();
    let others = subject.status.virtual_routers.iter().filter(|router| router.state != "master");
    let others: BTreeSet<IpAddr> = others.flat_map(|r| r.addresses.iter().filter_map(|ip| ip.parse().ok())).collect();
    let mut unclaimed: BTreeSet<IpAddr> = addresses.difference(&others).copied().collect();
    let questions = unclaimed.iter().flat_map(|ip| subject.running().map(move |link| (link, *ip)));
    let questions: BTreeSet<_> = questions.collect();
    let answering = ask_for(subject, questions.clone()).await;
    // By the address, and the server among those that answer.
    let mut answers: BTreeMap<_, Vec<(u32, Mac)>> = BTreeMap::new();
    for (link, ip) in questions {
        match answering.get(&(link, ip)) {
            Some(macs) => macs.iter().for_each(|mac| {
                let (server, _) = who_is(subject, ip, *mac);
                answers.entry((ip, server)).or_default().push((link, *mac));
            }),
            None => _ = unclaimed.remove(&ip),
        }
    }
    unclaimed.retain(|ip| !answers.keys().any(|(claimed, _)| claimed == ip));
    let mut findings: Vec<_> =
        answers.iter().map(|((ip, server), macs)| finding(subject, *ip, *server, macs)).collect();
    let own = own(subject, &addresses).await;
    findings.extend(own.iter().map(|((link, ip), macs)| twice(subject, *ip, *link, macs)));
    Asked { findings, twice: own.into_keys().map(|(_, ip)| ip).collect(), unclaimed }
}

/// Others that answer for this host's own addresses on the interfaces in use: servers answer to those, or by them, and
/// routers send there what is for virtual addresses.
async fn own(subject: &Subject, virtual_ones: &BTreeSet<IpAddr>) -> Answering {
    let running: BTreeSet<u32> = subject.running().collect();
    let own = subject.host.addresses.iter().filter(|own| running.contains(&own.ifindex));
    let own = own.filter(|own| match own.ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    });
    let own = own.map(|own| (own.ifindex, own.ip)).filter(|(_, ip)| !virtual_ones.contains(ip));
    let mut others = ask_for(subject, own.take(OWN).collect()).await;
    others.retain(|_, macs| !macs.is_empty());
    others
}

/// Another host has an address of this one.
fn twice(subject: &Subject, ip: IpAddr, link: u32, macs: &BTreeSet<Mac>) -> Finding {
    let (protocol, on) = (protocol(ip), subject.link(link));
    let who: Vec<String> = macs.iter().map(|mac| who_is(subject, ip, *mac).1).collect();
    let seen = macs.iter().map(|mac| format!("asked by {protocol} on {on} who has {ip}: {} answered", mac_text(*mac)));
    Finding {
        name: "own_address_twice".into(),
        severity: ERROR.into(),
        place: format!("interface {on}"),
        what: format!(
            "{} answers for {ip}, which is this host's: what servers and routers send to the director may go there",
            who.join(" and ")
        ),
        evidence: seen.collect(),
        rule: "an address is one host's: its packets go to whoever answered last".into(),
        remedy: format!("take {ip} from the other host"),
        ..Finding::default()
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
