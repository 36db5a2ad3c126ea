//! Netfilter's rules that speak of service traffic. IPVS sat behind INPUT; the director answers before any of netfilter's
//! hooks, so these rules no longer see what it takes.

mod fate;
mod iptables;
mod nft;
#[cfg(test)]
mod tests;

use crate::mark::{Ports, Prefix};
use crate::model::{Model, Protocol, ServiceKey};
use dirigent_api::Problem;
use std::net::IpAddr;

pub use fate::{Asked, Chains};
pub use iptables::iptables;
pub use nft::nft;

/// Rules that are told one by one; of more only the number.
const TOLD: usize = 50;

/// What of a host's rules may matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Rules that ask for a destination, in the order of the text.
    rules: Vec<Rule>,
    /// Chains whose policy drops, by their place.
    policies: Vec<String>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Table, chain and handle, or the line.
    place: String,
    /// Its own words.
    words: String,
    /// What packets must be.
    destinations: Vec<Destination>,
    /// The only clients that it is about; none: all, or who they are cannot be told.
    sources: Option<Vec<Prefix>>,
    /// Whether it asks for more than destination, protocol and source.
    more: bool,
    verdict: Verdict,
}

/// One thing that a rule asks of where packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Destination {
    /// Whether it must not be so.
    not: bool,
    /// Any of these.
    any: Vec<Place>,
}

/// Where packets go, as far as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    address: Option<Addresses>,
    ports: Option<Ports>,
    /// Its number; none: any.
    protocol: Option<u8>,
}

/// Addresses in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    first: IpAddr,
    last: IpAddr,
}

/// What becomes of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Drop,
    Accept,
    /// Anything else: it counts, limits, marks, jumps.
    Other,
}

impl Addresses {
    fn one(ip: IpAddr) -> Self {
        Self { first: ip, last: ip }
    }
    fn prefix(prefix: Prefix) -> Self {
        let (first, length) = (prefix.address(), u32::from(prefix.length()));
        let last = match first {
            IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() | u32::MAX.checked_shr(length).unwrap_or(0)).into()),
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() | u128::MAX.checked_shr(length).unwrap_or(0)).into()),
        };
        Self { first, last }
    }
    fn holds(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&ip)
    }
    /// Every address: that names none.
    fn is_all(self) -> bool {
        let bits = |ip| match ip {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), u128::from(u32::MAX)),
            IpAddr::V6(ip) => (ip.to_bits(), u128::MAX),
        };
        bits(self.first).0 == 0 && bits(self.last).0 == bits(self.last).1
    }
}

impl Place {
    /// Whether packets of a service go there, as far as that is known of a service by mark.
    fn is_of(&self, key: &ServiceKey) -> bool {
        let (Some(address), Some(protocol)) = (key.address(), key.protocol()) else { return false };
        self.address.is_none_or(|addresses| addresses.holds(address))
            && self.protocol.is_none_or(|number| number == protocol.number())
            && self.ports.is_none_or(|ports| key.port() == 0 || (ports.first()..=ports.last()).contains(&key.port()))
    }
    /// Whether it says more than a protocol.
    fn names(&self) -> bool {
        self.ports.is_some() || self.address.is_some_and(|addresses| !addresses.is_all())
    }
}

impl Rule {
    fn is_about(&self, key: &ServiceKey) -> bool {
        // Not to be an address of one family is said of that family's packets.
        let foreign = |place: &Place| place.address.is_some_and(|all| all.first.is_ipv6() != key.is_ipv6());
        let holds = |destination: &Destination| {
            let is = destination.any.iter().any(|place| place.is_of(key));
            is != destination.not && !destination.any.iter().all(foreign)
        };
        let client = |prefix: &Prefix| prefix.address().is_ipv6() == key.is_ipv6();
        self.destinations.iter().all(holds) && self.sources.as_ref().is_none_or(|all| all.iter().any(client))
    }
    fn names(&self) -> bool {
        self.destinations.iter().flat_map(|destination| &destination.any).any(Place::names)
    }

    /// What to write instead.
    fn remedy(&self) -> String {
        let list = |sources: &[Prefix]| {
            let all: Vec<_> = sources.iter().map(|prefix| format!("\"{prefix}\"")).collect();
            format!("[{}]", all.join(", "))
        };
        match (self.verdict, &self.sources, self.more) {
            (Verdict::Drop, Some(sources), false) => format!("write deny = {} in the service", list(sources)),
            (Verdict::Accept, Some(sources), false) => {
                format!("if no others may connect, write allow = {} in the service", list(sources))
            }
            (Verdict::Drop, None, false) => "remove the service, or the rule".to_owned(),
            (Verdict::Accept, None, false) => "remove it: the service is reached without it".to_owned(),
            _ => {
                "say by `allow` and `deny` of the service what of it is about clients' addresses; the rest is for the \
                  servers, or for a machine before this one"
                    .to_owned()
            }
        }
    }
}

impl Ruleset {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.rules.extend(other.rules);
        self.policies.extend(other.policies);
        self
    }

    /// A warning for each rule that names a virtual address or a port of a service and is about its packets, and for each
    /// policy that drops. None without services.
    pub fn warnings(&self, model: &Model) -> Vec<Problem> {
        let services = model.services();
        if services.is_empty() {
            return Vec::new();
        }
        let mut all = Vec::new();
        let mut more = 0;
        for rule in self.rules.iter().filter(|rule| rule.names()) {
            let mut about = services.iter().map(|service| &service.key).filter(|key| rule.is_about(key));
            let Some(first) = about.next() else { continue };
            if all.len() >= TOLD {
                more += 1;
                continue;
            }
            let others = about.count();
            let others = if others == 0 { String::new() } else { format!(" and {others} more") };
            let what = format!(
                "this rule of netfilter's no longer sees packets of {first}{others}, which the director takes before: {}",
                rule.words
            );
            all.push(Problem::new(rule.place.clone(), what, rule.remedy()));
        }
        for place in &self.policies {
            let what = "its policy drops what no rule accepts, but the director takes packets of services before it";
            let remedy = "say by `allow` of each service who may connect, if not everybody may";
            all.push(Problem::new(place.clone(), what, remedy));
        }
        if more > 0 {
            let what =
                format!("{more} more rules name virtual addresses or ports of services, which they no longer see");
            all.push(Problem::new("netfilter", what, "look through them: `nft list ruleset`, `iptables-save`"));
        }
        all
    }
}

/// A port, or `first-last` or `first:last`.
fn ports(text: &str) -> Option<Ports> {
    Ports::parse(&text.replace(':', "-"))
}

/// A protocol by name or number.
fn protocol(name: &str) -> Option<u8> {
    let known = Protocol::of_name(name).map(Protocol::number);
    known.or_else(|| crate::mark::protocol(name))
}
