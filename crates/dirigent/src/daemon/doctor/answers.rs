//! Where NAT servers' answers to the probes come from. A probe's answer comes back as one to a client does; that it comes is
//! not all: answers to clients may go another way if another router is on it.

use super::paths::{Tried, route_back};
use super::{Subject, WARNING};
use dirigent_api::Finding;
use dirigent_config::Method;
use dirigent_net::probe::{SOURCE4, SOURCE6};
use dirigent_net::{Mac, mac_text, seen};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Interfaces that are listened on; a host may have thousands.
const AT_MOST: usize = 32;

/// By server: the interfaces that its answers came in by, and whose frames they were in.
pub type Answers = BTreeMap<IpAddr, BTreeSet<(u32, Mac)>>;

/// Of one interface: who answered, in whose frames.
type Heard = dirigent_net::Result<BTreeSet<(IpAddr, Mac)>>;

/// Listens for them. (The packet path leaves answers to probes to tc, before which they are seen, on XDP too.)
pub struct Ears {
    stop: Arc<AtomicBool>,
    threads: Vec<(u32, JoinHandle<Heard>)>,
}

impl Ears {
    /// On the interfaces of this host that run: those that the director uses, then others.
    pub fn open(subject: &Subject) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let links = subject.host.links.values().filter(|link| link.running && !link.loopback);
        let mut links: Vec<u32> = links.map(|link| link.index).collect();
        links.sort_by_key(|link| !subject.interfaces.contains(link));
        let threads = links.into_iter().take(AT_MOST).map(|index| {
            let stop = stop.clone();
            (index, std::thread::spawn(move || seen::senders(index, SOURCE4, SOURCE6, &stop)))
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    /// What was heard.
    pub async fn close(self) -> Answers {
        self.stop.store(true, Ordering::Release);
        let gather = move || {
            let mut answers = Answers::new();
            for (link, thread) in self.threads {
                match thread.join() {
                    Ok(Ok(senders)) => {
                        senders
                            .into_iter()
                            .for_each(|(from, mac)| _ = answers.entry(from).or_default().insert((link, mac)));
                    }
                    Ok(Err(error)) => tracing::warn!("the doctor listens on interface number {link}: {error}"),
                    Err(_) => tracing::warn!("the doctor does not listen on interface number {link}"),
                }
            }
            answers
        };
        tokio::task::spawn_blocking(gather).await.unwrap_or_default()
    }
}

/// The servers whose answers come back, but not from themselves.
pub fn judge(subject: &Subject, tried: &[Tried<'_>], answers: &Answers, blamed: &BTreeSet<IpAddr>) -> Vec<Finding> {
    let right = tried.iter().filter(|(way, outcome)| outcome.is_ok() && way.server.method == Method::Nat);
    let servers: BTreeSet<IpAddr> = right.map(|(way, _)| way.server.address).collect();
    servers.difference(blamed).copied().filter_map(|server| detour(subject, server, answers.get(&server)?)).collect()
}

fn detour(subject: &Subject, server: IpAddr, came: &BTreeSet<(u32, Mac)>) -> Option<Finding> {
    // A router that leads there may well have two hardware addresses, one of them VRRP's.
    let hop = subject.hops.get(&server).filter(|hop| hop.neighbour == Some(server))?;
    if came.iter().any(|(_, mac)| *mac == hop.mac) {
        return None;
    }
    let (link, mac) = came.first()?;
    let whose = |mac: &Mac| {
        let entries = subject.host.neighbours.iter();
        let its = entries.filter(|entry| entry.mac.as_ref() == Some(mac)).map(|entry| entry.ip.to_string());
        let its: Vec<String> = its.collect();
        if its.is_empty() { String::new() } else { format!(" ({})", its.join(", ")) }
    };
    Some(Finding {
        name: "answers_detour".into(),
        severity: WARNING.into(),
        place: format!("server {server}"),
        what: format!(
            "its answers come from {}{} on {}, not from itself: another router is on their way, which may send those to \
             clients elsewhere",
            mac_text(*mac),
            whose(mac),
            subject.link(*link)
        ),
        evidence: vec![
            format!("a probe was sent to {server} by {} to {}", subject.link(hop.ifindex), mac_text(hop.mac)),
            seen_from(subject, came),
        ],
        rule: "by NAT the answer to every client must come back through the director: what another router knows of \
               clients, it may send them by itself"
            .into(),
        remedy: "have the server's route to clients, mostly its default route, lead to the director".into(),
        commands: route_back(subject, server, None).into_iter().collect(),
        ..Finding::default()
    })
}

/// Whether a server's answers come back as they should: from itself, and to an interface in use.
pub fn come_straight(subject: &Subject, server: IpAddr, came: &BTreeSet<(u32, Mac)>) -> bool {
    let mac = subject.hops.get(&server).map(|hop| hop.mac);
    came.iter().any(|(link, from)| Some(*from) == mac && subject.interfaces.contains(link))
}

/// Where a server's answers were seen, as evidence.
pub fn seen_from(subject: &Subject, came: &BTreeSet<(u32, Mac)>) -> String {
    let one = |(link, mac): &(u32, Mac)| {
        let unused = if subject.interfaces.contains(link) { "" } else { ", which the director does not use" };
        format!("on {} from {}{unused}", subject.link(*link), mac_text(*mac))
    };
    format!("its answers were seen {}", came.iter().map(one).collect::<Vec<_>>().join(", and "))
}
