//! Servers whatever service they are of: which way leads there, and whose hardware address that is. What is found here is
//! to blame for all ways to the server, which are not told of again.

use super::paths::{Tried, is_down};
use super::{AT_ONCE, ERROR, Subject, WARNING, here};
use crate::daemon::health::Job;
use dirigent_api::{Finding, NeighbourEntry};
use dirigent_config::health::{Check, Pace, Probe};
use dirigent_config::ruleset::Asked;
use dirigent_net::ask::who_has;
use dirigent_net::seen::hears;
use dirigent_net::{Mac, NextHop, NextHopState, mac_text};
use futures_util::{StreamExt as _, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Neighbours that are all asked for; of more only those that are set by hand, or whose server is silent.
const ALL: usize = 64;

/// How long the answer to a ping is waited for.
const PING: Duration = Duration::from_millis(500);

/// Who answered, by interface and address.
pub type Answering = BTreeMap<(u32, IpAddr), BTreeSet<Mac>>;

/// A server's neighbour: the server, or the router that leads there. Or whoever else is asked for.
pub type Neighbour = (u32, IpAddr);

fn neighbour(hop: &NextHop) -> Option<Neighbour> {
    Some((hop.ifindex, hop.neighbour?))
}

/// Who answers for the servers' neighbours. The kernel believes for a while what it knew.
pub async fn ask(subject: &Subject) -> Answering {
    let hops = subject.ways().filter_map(|way| subject.hops.get(&way.server.address));
    let all: BTreeSet<Neighbour> = hops.filter_map(neighbour).collect();
    let by_hand = |(link, ip): &Neighbour| entry(subject, *link, *ip).is_some_and(|entry| entry.permanent);
    let few = all.len() <= ALL;
    ask_for(subject, all.into_iter().filter(|one| few || by_hand(one)).collect()).await
}

/// Who answers for these addresses, each on its link; those that could not be asked for are not among them.
pub async fn ask_for(subject: &Subject, neighbours: BTreeSet<Neighbour>) -> Answering {
    let running: BTreeSet<u32> = subject.host.links.values().filter(|l| l.running).map(|link| link.index).collect();
    let asked = neighbours.into_iter().filter(|(link, _)| running.contains(link)).map(|(link, ip)| async move {
        match who_has(&subject.host, link, ip).await {
            Ok(macs) => Some(((link, ip), macs)),
            Err(error) => {
                tracing::warn!("the doctor asks who has {ip}: {error}");
                None
            }
        }
    });
    let asked: Vec<_> = asked.collect();
    stream::iter(asked).buffered(AT_ONCE).filter_map(|answer| async { answer }).collect().await
}

fn entry(subject: &Subject, link: u32, ip: IpAddr) -> Option<&dirigent_net::links::Neighbour> {
    subject.host.neighbour(link, ip)
}

/// Servers that answered nothing.
fn silent(tried: &[Tried<'_>]) -> impl Iterator<Item = IpAddr> {
    let silent = tried.iter().filter(|(_, outcome)| outcome.as_ref().is_err_and(|why| is_down(&why.to_string())));
    silent.map(|(way, _)| way.server.address)
}

/// What is wrong with them, and which servers something else is to blame for: what is found here, and faulty interfaces.
pub async fn judge(
    subject: &Subject,
    tried: &[Tried<'_>],
    mut answering: Answering,
    faulty: &BTreeSet<u32>,
) -> (Vec<Finding>, BTreeSet<IpAddr>) {
    let silent: BTreeSet<IpAddr> = silent(tried).collect();
    let unasked = silent.iter().filter_map(|ip| subject.hops.get(ip)).filter_map(neighbour);
    let unasked = unasked.filter(|one| !answering.contains_key(one)).collect();
    answering.extend(ask_for(subject, unasked).await);
    let failing: BTreeSet<IpAddr> =
        tried.iter().filter(|(_, outcome)| outcome.is_err()).map(|(way, _)| way.server.address).collect();
    let servers: BTreeSet<IpAddr> = subject.ways().map(|way| way.server.address).collect();
    let (mut all, mut blamed) = (Vec::new(), BTreeSet::new());
    for server in servers {
        let Some(hop) = subject.hops.get(&server) else { continue };
        let case = Case { subject, server, hop, silent: silent.contains(&server), failing: failing.contains(&server) };
        if case.is_behind(faulty) {
            blamed.insert(server);
        } else if let Some(finding) = case.finding(&answering) {
            if finding.severity == ERROR {
                blamed.insert(server);
            }
            all.push(finding);
        }
    }
    (all, blamed)
}

/// A server, and how it fares.
struct Case<'s> {
    subject: &'s Subject,
    server: IpAddr,
    hop: &'s NextHop,
    /// It answers nothing.
    silent: bool,
    /// A way to it is not right.
    failing: bool,
}

impl Case<'_> {
    /// Whether it cannot be right because of an interface: the one that leads there, or one that is down and maybe did.
    fn is_behind(&self, faulty: &BTreeSet<u32>) -> bool {
        let elsewhere = self.hop.state == NextHopState::NoRoute || self.hop.neighbour != Some(self.server);
        let astray = self.failing && elsewhere && faulty.iter().any(|link| !self.runs(*link));
        faulty.contains(&self.hop.ifindex) || astray
    }

    fn runs(&self, link: u32) -> bool {
        self.subject.host.links.get(&link).is_some_and(|link| link.running)
    }

    fn finding(&self, answering: &Answering) -> Option<Finding> {
        let NextHop { state, ifindex, mac, .. } = *self.hop;
        if state == NextHopState::NoRoute {
            return Some(self.no_route());
        }
        let asked = self.hop.neighbour?;
        let answers = answering.get(&(ifindex, asked));
        match answers.map(|macs| macs.iter().copied().collect::<Vec<_>>()).as_deref() {
            // It has only just begun to answer.
            Some([_, ..]) if state == NextHopState::NoNeighbour && !self.failing => None,
            Some([one, ..]) if state == NextHopState::NoNeighbour => Some(self.unheard(asked, *one)),
            _ if state == NextHopState::NoNeighbour => Some(self.absent(asked)),
            Some([]) if self.silent => Some(self.absent(asked)),
            Some([_, _, ..]) if asked == self.server => Some(self.twice(answers?)),
            Some([one]) if state == NextHopState::Resolved && *one != mac => Some(self.wrong(asked, *one)),
            _ => None,
        }
    }

    fn link(&self) -> &str {
        self.subject.link(self.hop.ifindex)
    }

    fn about(&self, name: &str, what: String) -> Finding {
        Finding {
            name: name.into(),
            severity: ERROR.into(),
            place: format!("server {}", self.server),
            what,
            ..Finding::default()
        }
    }

    fn no_route(&self) -> Finding {
        Finding {
            evidence: vec!["the routing table has no route to it".into()],
            rule: "packets to a server go by the kernel's routes".into(),
            remedy: "add a route to it, or remove it from the configuration".into(),
            ..self.about("no_route", "no route leads to it".into())
        }
    }

    fn absent(&self, asked: IpAddr) -> Finding {
        let link = self.link();
        Finding {
            evidence: vec![format!("{} for {asked} on {link} is not answered", protocol(asked))],
            rule: "a frame needs the MAC of its next hop".into(),
            remedy: format!("see that {asked} is up and on that link, or correct the address or the route"),
            ..self.about(
                "neighbour",
                format!("nobody answers for {asked} on {link}: packets to it have no hardware address"),
            )
        }
    }

    /// It answers, and the kernel does not take it.
    fn unheard(&self, asked: IpAddr, mac: Mac) -> Finding {
        let link = self.link();
        let answer = format!("asked by {} on {link} who has {asked}: {} answered", protocol(asked), mac_text(mac));
        Finding {
            evidence: vec![answer, format!("the kernel has no hardware address for {asked} on {link}")],
            rule: "a frame needs the MAC of its next hop".into(),
            remedy: "see what keeps the answer from the kernel: rules of netfilter, or an address on another network"
                .into(),
            ..self.about("neighbour", format!("{asked} answers on {link}, and this host does not take the answer"))
        }
    }

    /// Two have it.
    fn twice(&self, macs: &BTreeSet<Mac>) -> Finding {
        let (link, server) = (self.link(), self.server);
        let seen = macs.iter().map(|mac| {
            format!("asked by {} on {link} who has {server}: {} answered", protocol(server), mac_text(*mac))
        });
        Finding {
            severity: if self.failing { ERROR } else { WARNING }.into(),
            evidence: seen.chain([format!("packets go to {}", mac_text(self.hop.mac))]).collect(),
            rule: "an address is one host's: its packets go to whoever answered last".into(),
            remedy:
                "take it from the other host; of one host with two interfaces there, have one answer (arp_ignore = 1)"
                    .into(),
            ..self.about("server_twice", format!("{} hardware addresses answer for it on {link}", macs.len()))
        }
    }

    /// The kernel has another MAC than the one that answers.
    fn wrong(&self, asked: IpAddr, right: Mac) -> Finding {
        let (link, mac) = (self.link(), self.hop.mac);
        let by_hand = entry(self.subject, self.hop.ifindex, asked).is_some_and(|entry| entry.permanent);
        let whose = if by_hand { "an entry set by hand says that" } else { "this host still believes that" };
        let removed = NeighbourEntry { interface: link.into(), address: asked.to_string(), mac: mac_text(mac) };
        Finding {
            evidence: vec![
                format!("asked by {} on {link} who has {asked}: {} answered", protocol(asked), mac_text(right)),
                format!("{asked} dev {link} lladdr {}{}", mac_text(mac), if by_hand { " PERMANENT" } else { "" }),
            ],
            rule:
                "a frame goes to the MAC that the kernel has for its next hop; it never asks about an entry set by hand"
                    .into(),
            remedy: "remove the entry: the kernel asks anew".into(),
            commands: vec![here(format!("ip neigh del {asked} dev {link}"))],
            // What the kernel learned by itself it unlearns by itself.
            neighbours: if by_hand { vec![removed] } else { Vec::new() },
            ..self.about(
                "neighbour_wrong",
                format!("{whose} {asked} is at {}, and {} answers for it", mac_text(mac), mac_text(right)),
            )
        }
    }
}

/// Servers that answered nothing that got to this host's sockets, and whose answers to pings are seen on the link all the
/// same: netfilter drops them here, and they are no witness that the server is down.
pub async fn heard(subject: &Subject, tried: &[Tried<'_>], blamed: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let silent: BTreeSet<IpAddr> = silent(tried).filter(|server| !blamed.contains(server)).collect();
    let listens = silent.into_iter().filter_map(|server| {
        let (link, own) = (subject.hops.get(&server)?.ifindex, *subject.sources.get(&server)?);
        Some(async move {
            let ping = Check::new(Probe::Ping);
            let check = Check { pace: Pace { timeout: PING, ..ping.pace.clone() }, ..ping };
            let job = Job { check, to: SocketAddr::new(server, 0), along: None, needs: None };
            let hears = tokio::task::spawn_blocking(move || hears(link, server, own, PING));
            let (heard, _) = tokio::join!(hears, subject.trier.attempt(job));
            heard.is_ok_and(|heard| heard.is_ok_and(|heard| heard)).then_some(server)
        })
    });
    let listens: Vec<_> = listens.collect();
    stream::iter(listens).buffered(AT_ONCE).filter_map(|one| async move { one }).collect().await
}

/// By what one asks for this address.
pub fn protocol(ip: IpAddr) -> &'static str {
    Asked::of(ip).name()
}

/// Whose checks' answers the kernel drops because they come by another interface than its route leads by.
pub async fn strict(subject: &Subject, server: IpAddr) -> Option<(u32, Vec<String>)> {
    let hop = subject.hops.get(&server)?;
    let others = subject.running().filter(|link| *link != hop.ifindex);
    let strict = others.filter_map(|link| {
        let on = super::parameters(subject.link(link), "rp_filter", |value| value == "1");
        let loose = super::parameters(subject.link(link), "rp_filter", |value| value == "2");
        (!on.is_empty() && loose.is_empty()).then_some((link, on))
    });
    for (link, on) in strict {
        if who_has(&subject.host, link, server).await.is_ok_and(|macs| !macs.is_empty()) {
            return Some((link, on));
        }
    }
    None
}
