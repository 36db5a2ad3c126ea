//! What `nft -j list ruleset` prints (libnftables-json(5)).

use super::{Addresses, Destination, Place, Rule, Ruleset, Verdict, ports, protocol};
use crate::mark::{Ports, Prefix};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Hooks that IPVS's packets went through, and ours do not.
const HOOKS: [&str; 4] = ["ingress", "prerouting", "input", "forward"];
/// Tables that iptables-nft keeps, whose rules iptables-save has whole.
const IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// Family, table, name.
pub(super) type Name<'v> = (&'v str, &'v str, &'v str);

/// Reads rules of all chains that are reached from those hooks. `without_iptables`: what iptables-save has as well is left
/// out. Fails if the text is not nft's JSON.
pub fn nft(text: &str, without_iptables: bool) -> Result<Ruleset, String> {
    let root: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    let list = root.get("nftables").and_then(Value::as_array).ok_or("not what `nft -j list ruleset` prints")?;
    let objects = |kind: &'static str| list.iter().filter_map(move |object| object.get(kind));
    let mut all = Ruleset::default();
    let mut reached: HashSet<Name> = HashSet::new();
    let theirs = |(family, table, chain): Name| {
        let built_in = chain.chars().all(|c| c.is_ascii_uppercase());
        without_iptables && matches!(family, "ip" | "ip6") && IPTABLES.contains(&table) && built_in
    };
    for chain in objects("chain") {
        let Some(name) = name(chain, "name") else { continue };
        if !text_of(chain, "hook").is_some_and(|hook| HOOKS.contains(&hook)) || theirs(name) {
            continue;
        }
        reached.insert(name);
        if text_of(chain, "policy") == Some("drop") {
            all.policies.push(format!("nft chain {} {} {}", name.0, name.1, name.2));
        }
    }
    let sets: HashMap<Name, &Value> =
        objects("set").chain(objects("map")).filter_map(|set| Some((name(set, "name")?, set.get("elem")?))).collect();
    let rules: Vec<(Name, &Value)> = objects("rule").filter_map(|rule| Some((name(rule, "chain")?, rule))).collect();
    // Chains that are jumped to from those, to any depth.
    loop {
        let from = rules.iter().filter(|(name, _)| reached.contains(name));
        let new: Vec<Name> = from
            .flat_map(|((family, table, _), rule)| targets(rule).into_iter().map(move |to| (*family, *table, to)))
            .filter(|name| !reached.contains(name))
            .collect();
        if new.is_empty() {
            break;
        }
        reached.extend(new);
    }
    for (name, rule) in rules.iter().filter(|(name, _)| reached.contains(name)) {
        let (family, table, chain) = name;
        let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default();
        let statements = rule.get("expr").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let elements = |set: &str| sets.get(&(*family, *table, set)).copied();
        let mut draft = Draft::new(format!("nft chain {family} {table} {chain}, handle {handle}"));
        statements.iter().for_each(|statement| draft.statement(statement, &elements));
        all.rules.extend(Some(draft.rule).filter(Rule::names));
    }
    Ok(all)
}

pub(super) fn text_of<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

pub(super) fn name<'v>(of: &'v Value, key: &str) -> Option<Name<'v>> {
    Some((text_of(of, "family")?, text_of(of, "table")?, text_of(of, key)?))
}

/// Chains that a rule leads to, in maps of verdicts too.
fn targets(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(object) => {
            let own = ["jump", "goto"].into_iter().filter_map(|key| text_of(object.get(key)?, "target"));
            own.chain(object.values().flat_map(targets)).collect()
        }
        Value::Array(items) => items.iter().flat_map(targets).collect(),
        _ => Vec::new(),
    }
}

/// A rule's own words.
pub(super) fn words(rule: &Value) -> String {
    let mut draft = Draft::new(String::new());
    rule.get("expr").and_then(Value::as_array).into_iter().flatten().for_each(|one| draft.statement(one, &|_| None));
    draft.rule.words
}

/// A rule that is being read.
struct Draft {
    rule: Rule,
}

/// What a field of a packet says of where it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Address,
    Port(Option<u8>),
    Protocol,
    Source,
    Other,
}

impl Draft {
    fn new(place: String) -> Self {
        let rule = Rule {
            place,
            words: String::new(),
            destinations: Vec::new(),
            sources: None,
            more: false,
            verdict: Verdict::Other,
        };
        Self { rule }
    }

    fn say(&mut self, words: &str) {
        if !self.rule.words.is_empty() {
            self.rule.words.push(' ');
        }
        self.rule.words += words;
    }

    fn statement<'v>(&mut self, statement: &'v Value, sets: &impl Fn(&str) -> Option<&'v Value>) {
        let Some((kind, value)) = statement.as_object().and_then(|object| object.iter().next()) else {
            self.rule.more = true;
            return;
        };
        match kind.as_str() {
            "match" => {
                let (Some(left), Some(right)) = (value.get("left"), value.get("right")) else { return };
                let op = text_of(value, "op").unwrap_or("==");
                let sign = if op == "==" || op == "in" { String::new() } else { format!("{op} ") };
                self.say(&format!("{} {sign}{}", shown(left), shown(right)));
                match op {
                    "==" | "in" => self.asks(false, left, &elements(right, sets)),
                    "!=" => self.asks(true, left, &elements(right, sets)),
                    _ => self.rule.more = true,
                }
            }
            "vmap" => {
                let (Some(key), Some(data)) = (value.get("key"), value.get("data")) else { return };
                self.say(&format!("{} vmap {}", shown(key), shown(data)));
                let all = elements(data, sets);
                // Of each pair only the key asks for something.
                let keys: Vec<_> =
                    all.into_iter().filter_map(|pair| pair.as_array().and_then(|pair| pair.first())).collect();
                self.asks(false, key, &keys);
                self.rule.more = true;
            }
            "drop" | "reject" => {
                self.say(kind);
                self.rule.verdict = Verdict::Drop;
            }
            "accept" => {
                self.say(kind);
                self.rule.verdict = Verdict::Accept;
            }
            "counter" | "comment" | "log" => self.say(kind),
            other => {
                self.say(other);
                self.rule.more = true;
            }
        }
    }

    /// A field, or several at once, must be one of the elements.
    fn asks(&mut self, not: bool, left: &Value, elements: &[&Value]) {
        if let Some(Value::Array(fields)) = left.get("concat") {
            let fields: Vec<_> = fields.iter().map(field).collect();
            let place = |element: &&Value| {
                let parts = element.get("concat").and_then(Value::as_array)?;
                let mut whole = Place::default();
                for (field, part) in fields.iter().zip(parts) {
                    let one = place(*field, part).unwrap_or_default();
                    whole.address = whole.address.or(one.address);
                    whole.ports = whole.ports.or(one.ports);
                    whole.protocol = whole.protocol.or(one.protocol);
                }
                Some(whole)
            };
            self.rule.more |= fields.iter().any(|field| matches!(field, Field::Source | Field::Other));
            let any = elements.iter().filter_map(place).collect();
            self.rule.destinations.push(Destination { not, any });
            return;
        }
        match field(left) {
            Field::Source if !not && self.rule.sources.is_none() => {
                let all: Option<Vec<_>> = elements.iter().map(|element| prefix(element)).collect();
                self.rule.more |= all.is_none();
                self.rule.sources = all;
            }
            Field::Source | Field::Other => self.rule.more = true,
            field => {
                let any: Vec<_> = elements.iter().filter_map(|element| place(field, element)).collect();
                self.rule.more |= any.len() < elements.len();
                self.rule.destinations.push(Destination { not, any });
            }
        }
    }
}

/// What a field is.
fn field(left: &Value) -> Field {
    if let Some(payload) = left.get("payload") {
        return match (text_of(payload, "protocol"), text_of(payload, "field")) {
            (Some("ip" | "ip6"), Some("daddr")) => Field::Address,
            (Some("ip" | "ip6"), Some("saddr")) => Field::Source,
            (Some("ip"), Some("protocol")) | (Some("ip6"), Some("nexthdr")) => Field::Protocol,
            (Some("th"), Some("dport")) => Field::Port(None),
            (Some(name), Some("dport")) => Field::Port(protocol(name)),
            _ => Field::Other,
        };
    }
    match left.get("meta").and_then(|meta| text_of(meta, "key")) {
        Some("l4proto") => Field::Protocol,
        _ => Field::Other,
    }
}

/// Elements of a set, named or not; or the value itself.
fn elements<'v>(right: &'v Value, sets: &impl Fn(&str) -> Option<&'v Value>) -> Vec<&'v Value> {
    let listed = match right {
        Value::String(name) => name.strip_prefix('@').and_then(sets),
        _ => right.get("set"),
    };
    let plain = |element: &'v Value| element.get("elem").and_then(|elem| elem.get("val")).unwrap_or(element);
    match listed {
        Some(Value::Array(all)) => all.iter().map(plain).collect(),
        Some(one) => vec![plain(one)],
        // A set without elements has no key for them.
        None if right.as_str().is_some_and(|name| name.starts_with('@')) => Vec::new(),
        None => vec![plain(right)],
    }
}

fn place(field: Field, value: &Value) -> Option<Place> {
    Some(match field {
        Field::Address => Place { address: Some(addresses(value)?), ..Place::default() },
        Field::Port(protocol) => Place { ports: Some(port(value)?), protocol, ..Place::default() },
        Field::Protocol => Place { protocol: number(value).or_else(|| protocol(value.as_str()?)), ..Place::default() },
        Field::Source | Field::Other => return None,
    })
}

fn number(value: &Value) -> Option<u8> {
    value.as_u64().and_then(|number| u8::try_from(number).ok())
}

fn prefix(value: &Value) -> Option<Prefix> {
    if let Some(prefix) = value.get("prefix") {
        let length = prefix.get("len").and_then(Value::as_u64)?;
        return Prefix::parse(&format!("{}/{length}", text_of(prefix, "addr")?));
    }
    Prefix::parse(value.as_str()?)
}

fn addresses(value: &Value) -> Option<Addresses> {
    if let Some(Value::Array(range)) = value.get("range") {
        let [first, last] = range.as_slice() else { return None };
        let ip = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
        return Some(Addresses { first: ip(first)?, last: ip(last)? });
    }
    if let Some(ip) = value.as_str().and_then(|text| text.parse().ok()) {
        return Some(Addresses::one(ip));
    }
    prefix(value).map(Addresses::prefix)
}

fn port(value: &Value) -> Option<Ports> {
    if let Some(Value::Array(range)) = value.get("range") {
        let [first, last] = range.as_slice() else { return None };
        return ports(&format!("{}-{}", first.as_u64()?, last.as_u64()?));
    }
    match value {
        Value::Number(number) => ports(&number.to_string()),
        // nft says names with -j only if it is asked to; those that are common are known all the same.
        Value::String(name) => match name.as_str() {
            "http" => ports("80"),
            "https" => ports("443"),
            "domain" => ports("53"),
            "ssh" => ports("22"),
            number => ports(number),
        },
        _ => None,
    }
}

/// A value in nft's own words, as far as they are short.
fn shown(value: &Value) -> String {
    if let Some(payload) = value.get("payload") {
        let word = |key| text_of(payload, key).unwrap_or("?");
        return format!("{} {}", word("protocol"), word("field"));
    }
    if let Some(prefix) = value.get("prefix") {
        let length = prefix.get("len").map(ToString::to_string).unwrap_or_default();
        return format!("{}/{length}", text_of(prefix, "addr").unwrap_or("?"));
    }
    let joined = |items: &[Value], between: &str| items.iter().take(4).map(shown).collect::<Vec<_>>().join(between);
    for (key, between) in [("range", "-"), ("concat", " . ")] {
        if let Some(Value::Array(items)) = value.get(key) {
            return joined(items, between);
        }
    }
    if let Some(Value::Array(items)) = value.get("set") {
        let dots = if items.len() > 4 { ", …" } else { "" };
        return format!("{{ {}{dots} }}", joined(items, ", "));
    }
    if let Some(elem) = value.get("elem").and_then(|elem| elem.get("val")) {
        return shown(elem);
    }
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Object(object) => match object.iter().next() {
            Some((key, inner)) => match inner.get("key") {
                Some(Value::String(name)) => format!("{key} {name}"),
                _ => key.clone(),
            },
            None => "…".to_owned(),
        },
        Value::Array(items) => joined(items, " : "),
        _ => "…".to_owned(),
    }
}
