//! What is suspected without anybody's asking, from what connections and other hosts' ARP show: servers whose answers
//! pass the director by, servers that clients never get through to, and virtual addresses that other hosts claim.

use super::events::Events;
use crate::print::count;
use dirigent_api::{Event, Problem};
use dirigent_config::{Method, Server, ServiceKey, Tunnel};
use dirigent_datapath::control::paths::Witness;
use dirigent_net::claims::{Claim, Claims};
use dirigent_net::{Mac, Snapshot, mac_text};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Claims to virtual addresses are told of for so long after the last one: hosts repeat them rarely.
const CLAIM_LASTS: Duration = Duration::from_secs(300);
/// Claims that are read at once on one interface; the rest waits, and what does not fit is lost.
const CLAIMS_AT_ONCE: usize = 64;

/// What is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// NAT: the server answers its checks, and clients not by here.
    RepliesBypass,
    /// The same of clients in the server's own network.
    RepliesBypassNearby,
    /// NAT: no answers, and no checks to know whether the server lives.
    NoAnswers,
    /// Direct routing and tunnels: clients only ask.
    NeverEstablished,
    /// Another host claims a virtual address.
    AddressClaimed,
}

impl Cause {
    /// As events and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RepliesBypass => "replies_bypass",
            Self::RepliesBypassNearby => "replies_bypass_nearby",
            Self::NoAnswers => "no_answers",
            Self::NeverEstablished => "never_established",
            Self::AddressClaimed => "address_claimed",
        }
    }
}

/// About whom: a service, or a virtual address; and a server of it, or nothing.
type Subject = (String, String, Cause);

/// Of what, in sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// What it is about.
    subject: Subject,
    what: String,
    remedy: String,
    /// One of the clients that ask in vain.
    pub client: Option<IpAddr>,
}

impl Suspicion {
    /// Why it is suspected.
    pub fn cause(&self) -> Cause {
        self.subject.2
    }
    /// For people.
    pub fn problem(&self) -> Problem {
        let (service, server, _) = &self.subject;
        let place = if server.is_empty() { service.clone() } else { format!("server {server} of {service}") };
        Problem::new(place, &self.what, &self.remedy)
    }
}

/// What is known of a server of which connections bear witness.
pub struct About<'m> {
    /// Its service.
    pub service: ServiceKey,
    /// What is configured.
    pub server: &'m Server,
    /// This host's address on the way to it.
    pub director: Option<IpAddr>,
    /// The network that it shares with these clients.
    pub network: Option<(IpAddr, u8)>,
}

/// What follows from what connections show.
pub fn judge(about: &About<'_>, witness: &Witness) -> Suspicion {
    let About { service, server, director, network } = about;
    let asked = format!(
        "the {} of {} asked {} more in vain, such as {}",
        if witness.stuck == 1 { "client" } else { "clients" },
        count(witness.stuck as usize, "connection"),
        if witness.retries == 1 { "once".to_owned() } else { format!("{} times", witness.retries) },
        SocketAddr::new(witness.example.src, witness.example.sport),
    );
    let director = director.map_or_else(String::new, |ip| format!(", {ip}"));
    let checked = !server.health.checks.is_empty();
    let (cause, what, remedy) = match (server.method, network) {
        (Method::Nat, Some((ip, length))) => (
            Cause::RepliesBypassNearby,
            format!(
                "none of its answers to clients in its own network ({ip}/{length}) comes back through the director: {asked}"
            ),
            format!(
                "it reaches those clients directly, and they know no connection with it: use direct routing for them, or \
                 have its route to them lead through the director{director}, without redirects"
            ),
        ),
        (Method::Nat, None) if checked => (
            Cause::RepliesBypass,
            format!(
                "it answers its checks, but none of its answers to clients comes back through the director: {asked}"
            ),
            format!("its route to the clients, mostly the default route, must lead to the director{director}"),
        ),
        (Method::Nat, None) => (
            Cause::NoAnswers,
            format!("none of its answers comes back through the director: {asked}"),
            format!(
                "see whether it serves at all (a check would tell); its route to the clients, mostly the default route, \
                 must lead to the director{director}"
            ),
        ),
        (method, _) => {
            let holds = service.address().map_or_else(|| "the virtual addresses".to_owned(), |ip| ip.to_string());
            let unwraps = match method {
                Method::Tun(Tunnel { kind, .. }) => format!(", unwraps {}", kind.name()),
                _ => String::new(),
            };
            (
                Cause::NeverEstablished,
                format!("connections to it never get past their first packet: {asked}"),
                format!(
                    "see that it serves, holds {holds}{unwraps}, and reaches the clients: `dirigent realserver check` on \
                     the server says what is wrong"
                ),
            )
        }
    };
    Suspicion { subject: (service.to_string(), server.name(), cause), what, remedy, client: Some(witness.example.src) }
}

/// What problems with claims to an address are about.
pub fn claims_place(ip: IpAddr) -> String {
    format!("virtual address {ip}")
}

/// Whose MAC it is that speaks for `ip`, as far as neighbours tell: the real server's address if it is one's, and what to
/// call it.
pub fn who(mac: Mac, ip: IpAddr, host: &Snapshot, is_server: impl Fn(IpAddr) -> bool) -> (Option<IpAddr>, String) {
    let known = || host.neighbours.iter().filter(|n| n.mac == Some(mac) && n.ip != ip).map(|n| n.ip);
    let (server, mac) = (known().find(|ip| is_server(*ip)), mac_text(mac));
    let called = match (server, known().next()) {
        (Some(ip), _) => format!("the real server {ip} ({mac})"),
        (None, Some(ip)) => format!("{ip} ({mac})"),
        (None, None) => format!("another host ({mac})"),
    };
    (server, called)
}

/// What follows from another host's claim.
fn judge_claim(claim: &Claim, host: &Snapshot, servers: &BTreeSet<IpAddr>) -> Suspicion {
    let (server, who) = who(claim.mac, claim.ip, host, |ip| servers.contains(&ip));
    let remedy = match server {
        Some(_) => {
            "a real server must hold it without saying so: arp_ignore = 1 and arp_announce = 2 there, as `dirigent \
             realserver setup` has it"
        }
        None => "only one host may have it: take it from the other, or let virtual routers decide who has it",
    };
    let subject = (claims_place(claim.ip), String::new(), Cause::AddressClaimed);
    let what = format!("{who} claims it: packets of clients may go there");
    Suspicion { subject, what, remedy: remedy.to_owned(), client: None }
}

/// All that is suspected now.
pub struct Suspicions {
    events: Events,
    now: BTreeMap<Subject, Suspicion>,
    ears: BTreeMap<(u32, bool), (Vec<IpAddr>, Claims)>,
    claims: BTreeMap<Subject, (Instant, Suspicion)>,
}

impl Suspicions {
    /// None yet; these hear of them.
    pub fn new(events: Events) -> Self {
        Self { events, now: BTreeMap::new(), ears: BTreeMap::new(), claims: BTreeMap::new() }
    }

    /// This is all that connections show now.
    pub fn follow(&mut self, shown: Vec<Suspicion>) {
        self.claims.retain(|_, (heard, _)| heard.elapsed() < CLAIM_LASTS);
        let claims = self.claims.values().map(|(_, suspicion)| suspicion.clone());
        let now: BTreeMap<_, _> = shown.into_iter().chain(claims).map(|one| (one.subject.clone(), one)).collect();
        for (subject, over) in self.now.iter().filter(|(subject, _)| !now.contains_key(subject)) {
            self.tell(subject, String::new(), true, &over.problem());
        }
        for (subject, begun) in now.iter().filter(|(subject, _)| !self.now.contains_key(subject)) {
            self.tell(subject, begun.what.clone(), false, &begun.problem());
        }
        self.now = now;
    }

    fn tell(&self, (service, server, cause): &Subject, what: String, over: bool, problem: &Problem) {
        let (service, server, cause) = (service.clone(), server.clone(), cause.name().to_owned());
        if over {
            tracing::info!(event = "suspected", service, server, cause, what, over, "it is over that: {problem}");
        } else {
            tracing::warn!(event = "suspected", service, server, cause, what, over, "{problem}");
        }
        self.events.tell(Event::Suspected { service, server, cause, what, over });
    }

    /// Other hosts' claims to these addresses are heard on these interfaces from now on.
    pub fn listen(&mut self, interfaces: &BTreeSet<u32>, addresses: &BTreeSet<IpAddr>) {
        let of = |ipv6| -> Vec<IpAddr> { addresses.iter().filter(|ip| ip.is_ipv6() == ipv6).copied().collect() };
        let families = [of(false), of(true)];
        let wanted = |(interface, ipv6): &(u32, bool)| -> Option<&Vec<IpAddr>> {
            families.get(usize::from(*ipv6)).filter(|all| !all.is_empty() && interfaces.contains(interface))
        };
        self.ears.retain(|key, (heard, _)| wanted(key) == Some(heard));
        for key in interfaces.iter().flat_map(|interface| [(*interface, false), (*interface, true)]) {
            let Some(addresses) = wanted(&key).filter(|_| !self.ears.contains_key(&key)) else { continue };
            match Claims::open(key.0, key.1, addresses) {
                Ok(claims) => _ = self.ears.insert(key, (addresses.clone(), claims)),
                // An interface that goes; the next change of the network comes by here again.
                Err(error) => tracing::debug!("{error}"),
            }
        }
    }

    /// What was claimed since this was asked last.
    pub fn heard(&self) -> Vec<Claim> {
        self.ears.values().flat_map(|(_, claims)| claims.receive(CLAIMS_AT_ONCE)).collect()
    }

    /// Judges claims, this host's own apart.
    pub fn claimed(&mut self, heard: &[Claim], snapshot: &Snapshot, servers: &BTreeSet<IpAddr>) {
        let own: HashSet<_> = snapshot.links.values().filter_map(|link| link.mac).collect();
        for claim in heard.iter().filter(|claim| !own.contains(&claim.mac)) {
            let suspicion = judge_claim(claim, snapshot, servers);
            self.claims.insert(suspicion.subject.clone(), (Instant::now(), suspicion));
        }
    }

    /// Nobody else answers for these addresses any more.
    pub fn unclaimed(&mut self, addresses: &BTreeSet<IpAddr>) {
        let over: BTreeSet<String> = addresses.iter().map(|ip| claims_place(*ip)).collect();
        // What the answers to questions before these were heard as.
        for (_, claims) in self.ears.values() {
            let _ = claims.receive(CLAIMS_AT_ONCE);
        }
        self.claims.retain(|(place, ..), _| !over.contains(place));
    }

    /// For metrics: service, server and cause.
    pub fn names(&self) -> Vec<[String; 3]> {
        let names = |(service, server, cause): &Subject| [service.clone(), server.clone(), cause.name().to_owned()];
        self.now.keys().map(names).collect()
    }

    /// All of them.
    pub fn now(&self) -> impl Iterator<Item = &Suspicion> {
        self.now.values()
    }
}
