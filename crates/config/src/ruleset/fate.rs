//! What becomes of ARP and neighbour discovery in netfilter's chains: whether a rule surely drops them. (What cannot be told
//! from the rules alone, sets and limits for instance, is no drop.)

use super::nft::{Name, name, text_of, words};
use serde_json::Value;
use std::net::IpAddr;

/// Jumps from chain to chain that are followed: as many as the kernel allows.
const DEEPEST: u32 = 16;

/// By what hosts on a link find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// ARP: IPv4.
    Arp,
    /// Neighbour discovery: IPv6.
    NeighbourDiscovery,
}

impl Asked {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Arp, Self::NeighbourDiscovery];

    /// By what this address is asked for.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::Arp } else { Self::NeighbourDiscovery }
    }

    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arp => "ARP",
            Self::NeighbourDiscovery => "neighbour discovery",
        }
    }

    /// What comes of it when it is dropped.
    pub fn harm(self) -> &'static str {
        match self {
            Self::Arp => "servers and routers lose this host, and it them, as soon as what they know grows old",
            Self::NeighbourDiscovery => {
                "in IPv6 servers and routers lose this host, and it them, as soon as what they know grows old"
            }
        }
    }

    /// The family that needs it.
    pub fn is_ipv6(self) -> bool {
        self == Self::NeighbourDiscovery
    }

    fn hooks(self, incoming: bool) -> &'static [(&'static str, &'static str)] {
        match (self, incoming) {
            (Self::Arp, true) => &[("netdev", "ingress"), ("arp", "input")],
            (Self::Arp, false) => &[("arp", "output"), ("netdev", "egress")],
            (_, true) => &[
                ("netdev", "ingress"),
                ("inet", "ingress"),
                ("ip6", "prerouting"),
                ("inet", "prerouting"),
                ("ip6", "input"),
                ("inet", "input"),
            ],
            (_, false) => &[
                ("ip6", "output"),
                ("inet", "output"),
                ("ip6", "postrouting"),
                ("inet", "postrouting"),
                ("netdev", "egress"),
            ],
        }
    }
}

/// A question or an answer, on its way in or out.
struct Packet<'a> {
    asked: Asked,
    question: bool,
    incoming: bool,
    link: &'a str,
}

/// What a rule asks, of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Yes,
    No,
    Maybe,
}

impl Is {
    fn so(so: bool) -> Self {
        if so { Self::Yes } else { Self::No }
    }
    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
        }
    }
}

/// What becomes of it.
enum Fate {
    /// It is dropped: by which rule or policy, and its words.
    Dropped(String, String),
    Accepted,
    /// No rule says anything: back to where the chain was jumped to from.
    Through,
    Unknown,
}

/// All chains and their rules.
#[derive(Clone, Debug, Default)]
pub struct Chains(Vec<Value>);

impl Chains {
    /// Of what `nft -j list ruleset` prints; of other text none.
    pub fn read(text: &str) -> Self {
        let root: Option<Value> = serde_json::from_str(text).ok();
        Self(root.as_ref().and_then(|root| root.get("nftables")?.as_array().cloned()).unwrap_or_default())
    }

    /// The rule or policy that surely drops it on this interface, and its words.
    pub fn drops(&self, asked: Asked, link: &str) -> Option<(String, String)> {
        let packets = [(true, true), (true, false), (false, true), (false, false)];
        packets.into_iter().find_map(|(incoming, question)| {
            let packet = Packet { asked, question, incoming, link };
            asked.hooks(incoming).iter().find_map(|hook| self.dropped_at(*hook, &packet))
        })
    }

    fn objects<'s>(&'s self, kind: &'static str) -> impl Iterator<Item = &'s Value> {
        self.0.iter().filter_map(move |object| object.get(kind))
    }

    fn dropped_at(&self, (family, hook): (&str, &str), packet: &Packet<'_>) -> Option<(String, String)> {
        let there = |chain: &&Value| {
            let on =
                chain.get("dev").is_none_or(|dev| values(dev).is_some_and(|all| all.iter().any(|d| d == packet.link)));
            text_of(chain, "family") == Some(family) && text_of(chain, "hook") == Some(hook) && on
        };
        self.objects("chain").filter(there).find_map(|chain| {
            let of = name(chain, "name")?;
            match self.walk(of, packet, 0) {
                Fate::Dropped(place, words) => Some((place, words)),
                Fate::Through if text_of(chain, "policy") == Some("drop") => {
                    Some((format!("nft chain {} {} {}", of.0, of.1, of.2), "policy drop".into()))
                }
                _ => None,
            }
        })
    }

    fn walk(&self, chain: Name<'_>, packet: &Packet<'_>, depth: u32) -> Fate {
        if depth > DEEPEST {
            return Fate::Unknown;
        }
        for rule in self.objects("rule").filter(|rule| name(rule, "chain") == Some(chain)) {
            match self.rule(rule, chain, packet, depth) {
                Fate::Through => {}
                // `return`.
                Fate::Accepted if returns(rule) => return Fate::Through,
                end => return end,
            }
        }
        Fate::Through
    }

    fn rule(&self, rule: &Value, chain: Name<'_>, packet: &Packet<'_>, depth: u32) -> Fate {
        let mut matched = Is::Yes;
        for statement in rule.get("expr").and_then(Value::as_array).into_iter().flatten() {
            let Some((kind, value)) = statement.as_object().and_then(|object| object.iter().next()) else { continue };
            let verdict = match kind.as_str() {
                "match" => {
                    match matches(value, packet) {
                        Is::No => return Fate::Through,
                        Is::Maybe => matched = Is::Maybe,
                        Is::Yes => {}
                    }
                    continue;
                }
                "vmap" => match mapped(value, packet) {
                    Ok(Some(verdict)) => verdict,
                    Ok(None) => return Fate::Through,
                    Err(()) => return Fate::Unknown,
                },
                "accept" | "drop" | "reject" | "return" | "jump" | "goto" | "queue" => statement,
                // They pass what they see.
                "counter" | "log" | "mangle" | "notrack" | "comment" => continue,
                _ => {
                    matched = Is::Maybe;
                    continue;
                }
            };
            return self.verdict(verdict, matched, rule, chain, packet, depth);
        }
        Fate::Through
    }

    fn verdict(
        &self,
        verdict: &Value,
        matched: Is,
        rule: &Value,
        chain: Name<'_>,
        packet: &Packet<'_>,
        depth: u32,
    ) -> Fate {
        let (family, table, named) = chain;
        let is = |kind: &str| verdict.get(kind).is_some() || verdict.as_str() == Some(kind);
        let drops = is("drop") || is("reject");
        match matched {
            Is::Maybe if drops => Fate::Through,
            Is::Maybe => Fate::Unknown,
            _ if drops => {
                let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default();
                Fate::Dropped(format!("nft chain {family} {table} {named}, handle {handle}"), words(rule))
            }
            _ if is("accept") || is("return") => Fate::Accepted,
            _ if is("queue") => Fate::Unknown,
            _ => {
                let to = ["jump", "goto"].into_iter().find_map(|kind| text_of(verdict.get(kind)?, "target"));
                let Some(to) = to else { return Fate::Unknown };
                self.walk((family, table, to), packet, depth + 1)
            }
        }
    }
}

/// Whether a rule goes back instead of accepting.
fn returns(rule: &Value) -> bool {
    let statements = rule.get("expr").and_then(Value::as_array);
    statements.and_then(|all| all.last()).is_some_and(|last| last.get("return").is_some())
}

/// The verdict that a map has for the packet; fails if that cannot be told.
fn mapped<'v>(map: &'v Value, packet: &Packet<'_>) -> Result<Option<&'v Value>, ()> {
    let (key, data) = map.get("key").zip(map.get("data")).ok_or(())?;
    let elements = data.get("set").and_then(Value::as_array).ok_or(())?;
    for element in elements {
        let [value, verdict] = element.as_array().map(Vec::as_slice).ok_or(())? else { return Err(()) };
        match asks(key, "==", value, packet) {
            Is::Yes => return Ok(Some(verdict)),
            Is::No => {}
            Is::Maybe => return Err(()),
        }
    }
    Ok(None)
}

fn matches(value: &Value, packet: &Packet<'_>) -> Is {
    let Some((left, right)) = value.get("left").zip(value.get("right")) else { return Is::Maybe };
    asks(left, text_of(value, "op").unwrap_or("=="), right, packet)
}

fn asks(left: &Value, op: &str, right: &Value, packet: &Packet<'_>) -> Is {
    let Some(own) = field(left, packet) else { return Is::Maybe };
    // A field that the packet does not have: not even `!=` holds.
    let Some(own) = own else { return Is::No };
    let Some(any) = values(right) else { return Is::Maybe };
    let is = Is::so(any.iter().any(|value| own.contains(&value.as_str())));
    match op {
        "==" | "in" => is,
        "!=" => is.not(),
        _ => Is::Maybe,
    }
}

/// What a field of the packet is, by all its names; none: the packet has no such field. `None`: that is not known.
fn field<'a>(left: &Value, packet: &Packet<'a>) -> Option<Option<Vec<&'a str>>> {
    let arp = packet.asked == Asked::Arp;
    let of = |known: &[&'static str]| Some(Some(known.to_vec()));
    if let Some(meta) = left.get("meta") {
        return match text_of(meta, "key")? {
            "protocol" => of(if arp { &["arp", "0x0806", "2054"] } else { &["ip6", "0x86dd", "34525"] }),
            "nfproto" if !arp => of(&["ipv6", "10"]),
            "l4proto" if !arp => of(&["ipv6-icmp", "icmpv6", "58"]),
            "l4proto" => Some(None),
            "iifname" | "iif" => Some(Some(vec![if packet.incoming { packet.link } else { "" }])),
            "oifname" | "oif" => Some(Some(vec![if packet.incoming { "" } else { packet.link }])),
            _ => None,
        };
    }
    if let Some(ct) = left.get("ct") {
        // The kernel tracks neither.
        return if text_of(ct, "key")? == "state" { of(&["untracked"]) } else { None };
    }
    let payload = left.get("payload")?;
    match (text_of(payload, "protocol")?, text_of(payload, "field")?) {
        ("ether", "type") => of(if arp { &["arp", "0x0806", "2054"] } else { &["ip6", "0x86dd", "34525"] }),
        ("ether" | "vlan", _) => None,
        ("arp", "operation") if arp => of(if packet.question { &["request", "1"] } else { &["reply", "2"] }),
        ("arp", _) if arp => None,
        ("icmpv6", "type") if !arp => {
            of(if packet.question { &["nd-neighbor-solicit", "135"] } else { &["nd-neighbor-advert", "136"] })
        }
        ("icmpv6", "code") if !arp => of(&["no-route", "0"]),
        ("ip6", "nexthdr") if !arp => of(&["ipv6-icmp", "icmpv6", "58"]),
        ("ip6", "hoplimit") if !arp => of(&["255"]),
        ("icmpv6" | "ip6", _) if !arp => None,
        // Another protocol's.
        _ => Some(None),
    }
}

/// Any of these; `None`: what they are is not written there.
fn values(right: &Value) -> Option<Vec<String>> {
    match right {
        Value::String(name) if name.starts_with('@') || name.ends_with('*') => None,
        Value::String(text) => Some(vec![text.clone()]),
        Value::Number(number) => Some(vec![number.to_string()]),
        Value::Array(all) => all.iter().map(values).collect::<Option<Vec<_>>>().map(|all| all.concat()),
        Value::Object(object) => object.get("set").and_then(values),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Chains of these families, hooks and policies, with these rules.
    fn chains(all: &[(&str, &str, &str, Vec<Value>)]) -> Chains {
        let mut list = Vec::new();
        for (family, hook, policy, rules) in all {
            let mut chain = json!({"family": family, "table": "t", "name": hook, "hook": hook, "policy": policy});
            if *family == "netdev" {
                chain["dev"] = json!("eth0");
            }
            list.push(json!({"chain": chain}));
            for (i, rule) in rules.iter().enumerate() {
                let rule = json!({"family": family, "table": "t", "chain": hook, "handle": i + 4, "expr": rule});
                list.push(json!({"rule": rule}));
            }
        }
        Chains::read(&json!({"nftables": list}).to_string())
    }

    fn meta(key: &str, right: &Value) -> Value {
        json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": right}})
    }

    fn icmp6(types: &Value) -> Value {
        let left = json!({"payload": {"protocol": "icmpv6", "field": "type"}});
        json!({"match": {"op": "==", "left": left, "right": types}})
    }

    fn verdict(kind: &str) -> Value {
        json!({kind: null})
    }

    #[test]
    fn policies_drop_what_no_rule_accepts() {
        let strict = |rules| chains(&[("inet", "input", "drop", rules)]);
        let all = strict(vec![]);
        let (place, words) = all.drops(Asked::NeighbourDiscovery, "eth0").unwrap();
        assert_eq!((place.as_str(), words.as_str()), ("nft chain inet t input", "policy drop"));
        assert_eq!(all.drops(Asked::Arp, "eth0"), None, "no ARP comes there");
        let accept = verdict("accept");
        for accepted in [
            meta("l4proto", &json!("ipv6-icmp")),
            meta("iifname", &json!("eth0")),
            icmp6(&json!({"set": ["nd-neighbor-advert", "nd-neighbor-solicit"]})),
            json!({"match": {"op": "!=", "left": {"meta": {"key": "nfproto"}}, "right": "ipv4"}}),
            // Nobody knows what is in there.
            meta("iifname", &json!("@trusted")),
            json!({"limit": {"rate": 10, "per": "second"}}),
        ] {
            let chains = strict(vec![json!([accepted, {"counter": {"packets": 0, "bytes": 0}}, accept])]);
            assert_eq!(chains.drops(Asked::NeighbourDiscovery, "eth0"), None, "{accepted}");
        }
        for other in [
            meta("l4proto", &json!("tcp")),
            meta("iifname", &json!("eth1")),
            icmp6(&json!("nd-neighbor-advert")),
            json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}),
        ] {
            let chains = strict(vec![json!([other, accept])]);
            assert!(chains.drops(Asked::NeighbourDiscovery, "eth0").is_some(), "{other}");
        }
    }

    #[test]
    fn rules_drop_what_they_match() {
        let arp = |field: &str, right: &str| {
            let left = json!({"payload": {"protocol": "arp", "field": field}});
            json!({"match": {"op": "==", "left": left, "right": right}})
        };
        let drop = verdict("drop");
        let of = |expr: Vec<Value>| chains(&[("arp", "input", "accept", vec![json!(expr)])]);
        let (place, words) = of(vec![arp("operation", "request"), drop.clone()]).drops(Asked::Arp, "eth0").unwrap();
        assert_eq!(place, "nft chain arp t input, handle 4");
        assert!(words.contains("request") && words.ends_with("drop"), "{words}");
        // Of whom is not looked at.
        assert_eq!(of(vec![arp("saddr ip", "10.0.0.9"), drop.clone()]).drops(Asked::Arp, "eth0"), None);
        let on_link = chains(&[("netdev", "ingress", "drop", vec![])]);
        assert!(on_link.drops(Asked::Arp, "eth0").is_some() && on_link.drops(Asked::Arp, "eth1").is_none());
    }

    #[test]
    fn jumps_and_maps_of_verdicts_are_followed() {
        let icmp = meta("l4proto", &json!("ipv6-icmp"));
        let list = |last: Value| {
            let base = json!({"family": "inet", "table": "t", "name": "in", "hook": "input", "policy": "accept"});
            let rule = |chain: &str, expr: Value| json!({"rule": {"family": "inet", "table": "t", "chain": chain, "expr": expr}});
            let all = json!({"nftables": [
                {"chain": base}, {"chain": {"family": "inet", "table": "t", "name": "own"}},
                rule("in", json!([icmp, {"jump": {"target": "own"}}])), rule("in", json!([last])),
                rule("own", json!([icmp6(&json!("echo-request")), {"accept": null}])),
            ]});
            Chains::read(&all.to_string())
        };
        assert!(list(verdict("drop")).drops(Asked::NeighbourDiscovery, "eth0").is_some());
        let left = json!({"payload": {"protocol": "icmpv6", "field": "type"}});
        let map = |kind: &str| {
            let set = json!([["nd-neighbor-solicit", {kind: null}], ["nd-neighbor-advert", {kind: null}]]);
            json!({"vmap": {"key": left, "data": {"set": set}}})
        };
        assert!(list(map("drop")).drops(Asked::NeighbourDiscovery, "eth0").is_some());
        assert!(list(map("accept")).drops(Asked::NeighbourDiscovery, "eth0").is_none());
    }
}
