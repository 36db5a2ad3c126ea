//! What `nft -j list ruleset` prints (libnftables-json(5)).

use super::draft::{self, Draft, once};
use super::{Does, Found, Imported, Reason};
use crate::mark::{self, MarkRule, Ports, Prefix, Test};
use serde_json::Value;
use std::collections::HashMap;

/// The priority of IPVS's own hook where packets come in for this host.
const IPVS: i64 = 98;

/// A chain's name: family, table, chain.
type Name = [String; 3];

/// Where packets meet a chain; ordered as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hook {
    Prerouting,
    Input,
}

/// Translates the rules that set marks before IPVS would see the packet. Fails if the text
/// is not nft's JSON.
pub fn nft(text: &str) -> Result<Imported, Reason> {
    let root: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    let list = root.get("nftables").and_then(Value::as_array).ok_or("not what `nft -j list ruleset` prints")?;
    let objects = |kind: &'static str| list.iter().filter_map(move |object| object.get(kind));
    let mut chains: HashMap<Name, (Hook, i64, usize)> = HashMap::new();
    for (order, chain) in objects("chain").enumerate() {
        let hook = match text_of(chain, "hook") {
            Some("prerouting") => Hook::Prerouting,
            Some("input") => Hook::Input,
            _ => continue,
        };
        let priority = chain.get("prio").and_then(Value::as_i64).unwrap_or(0);
        let families = ["ip", "ip6", "inet"];
        let before = hook == Hook::Prerouting || priority < IPVS;
        if let Some(name) = name(chain, "name").filter(|[family, ..]| before && families.contains(&family.as_str())) {
            chains.insert(name, (hook, priority, order));
        }
    }
    let mut found: HashMap<&Name, Vec<Found>> = HashMap::new();
    let mut imported = Imported::default();
    for rule in objects("rule") {
        let Some(name) = name(rule, "chain") else { continue };
        let handle = rule.get("handle").and_then(Value::as_u64).unwrap_or_default();
        let place = format!("{} handle {handle}", name.join(" "));
        let statements = rule.get("expr").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let does = match chains.get_key_value(&name) {
            Some((name, _)) => {
                let [family, ..] = name;
                let families: &[bool] = match family.as_str() {
                    "ip" => &[false],
                    "ip6" => &[true],
                    _ => &[false, true],
                };
                let does = does(statements, families).unwrap_or_else(Does::Refused);
                found.entry(name).or_default().push(Found { place, rule: String::new(), does });
                continue;
            }
            None => statements.iter().any(sets_mark),
        };
        if does {
            let reason = "packets do not go through this chain before IPVS".into();
            imported.refused.push(super::Refused { place, rule: String::new(), reason });
        }
    }
    let mut in_order: Vec<_> = found.into_iter().collect();
    in_order.sort_by_key(|(name, _)| chains.get(*name).copied());
    in_order.into_iter().for_each(|(_, rules)| imported.chain(rules));
    Ok(imported)
}

fn text_of<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn name(of: &Value, chain: &str) -> Option<Name> {
    Some([text_of(of, "family")?.into(), text_of(of, "table")?.into(), text_of(of, chain)?.into()])
}

/// The one key of an object, and its value.
fn only(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object()?;
    object.iter().next().filter(|_| object.len() == 1).map(|(key, value)| (key.as_str(), value))
}

fn is_mark(value: &Value) -> bool {
    value.get("meta").and_then(|meta| text_of(meta, "key")) == Some("mark")
}

fn sets_mark(statement: &Value) -> bool {
    statement.get("mangle").and_then(|mangle| mangle.get("key")).is_some_and(is_mark)
}

/// What a rule's statements do, one after the other.
fn does(statements: &[Value], families: &[bool]) -> Result<Does, Reason> {
    let mut draft = Draft::default();
    let mut rules: Vec<MarkRule> = Vec::new();
    let mut ends = false;
    // What is only asked for does nothing: it matters once a mark or a verdict follows.
    let mut doubt = None;
    for statement in statements {
        let Some((kind, value)) = only(statement) else { return Err("a statement that is none of nft's".into()) };
        match kind {
            "match" => {
                if let Err(reason) = matches(value, &mut draft) {
                    doubt.get_or_insert(reason);
                }
            }
            "mangle" if sets_mark(statement) => {
                if let Some(reason) = doubt {
                    return Err(reason);
                }
                let bits = value.get("value").ok_or("a mark without a value".to_owned()).and_then(Bits::of)?;
                rules.extend(draft.rules(families, bits.flip, !bits.keep)?);
            }
            "accept" | "return" => ends = true,
            "drop" | "reject" => return Err("the director sees packets before netfilter drops them".into()),
            "jump" | "goto" => {
                let chain = text_of(value, "target").unwrap_or_default();
                return Err(format!("it goes on in chain {chain}, whose rules must stand here"));
            }
            "limit" | "quota" | "connlimit" | "ct count" => {
                doubt.get_or_insert(format!("only netfilter keeps its {kind}"));
            }
            "vmap" => return Err("it chooses a verdict by a map".into()),
            // Counters, logs, changes of other fields.
            _ => {}
        }
    }
    Ok(match (rules.is_empty(), ends) {
        (true, true) => Does::Ends,
        (true, false) => Does::Nothing,
        (false, true) => Does::MarksAndEnds(rules),
        (false, false) => Does::Marks(rules),
    })
}

/// A mark as made of the one before: bits of it that stay, and bits that are flipped then.
#[derive(Clone, Copy)]
struct Bits {
    keep: u32,
    flip: u32,
}

impl Bits {
    fn of(value: &Value) -> Result<Self, Reason> {
        if let Some(number) = value.as_u64() {
            let flip = u32::try_from(number).map_err(|_| format!("{number} is no mark"))?;
            return Ok(Self { keep: 0, flip });
        }
        if is_mark(value) {
            return Ok(Self { keep: u32::MAX, flip: 0 });
        }
        let strange = || match only(value) {
            Some(("ct", _)) => "only netfilter knows the marks of its connections".to_owned(),
            Some((kind, _)) => format!("the director's rules cannot make a mark by {kind}"),
            None => "the director's rules cannot make this mark".to_owned(),
        };
        let (operator, operands) = only(value).ok_or_else(strange)?;
        let [first, others @ ..] = operands.as_array().map_or(&[][..], Vec::as_slice) else { return Err(strange()) };
        let mut bits = Self::of(first).map_err(|reason| if operands.is_array() { reason } else { strange() })?;
        for other in others {
            let mut other = Self::of(other)?;
            if other.keep != 0 {
                std::mem::swap(&mut bits, &mut other);
            }
            let Self { keep: 0, flip: constant } = other else {
                return Err("the director's rules take the mark once".into());
            };
            let Self { keep, flip } = bits;
            bits = match operator {
                "&" => Self { keep: keep & constant, flip: flip & constant },
                "|" => Self { keep: keep & !constant, flip: flip & !constant | constant },
                "^" => Self { keep, flip: flip ^ constant },
                "<<" | ">>" => return Err("the director's rules do not shift marks".into()),
                _ => return Err(strange()),
            };
        }
        Ok(bits)
    }
}

/// Takes a match into the draft.
fn matches(of: &Value, draft: &mut Draft) -> Result<(), Reason> {
    let (Some(left), Some(right)) = (of.get("left"), of.get("right")) else { return Err("half a match".into()) };
    let operator = text_of(of, "op").unwrap_or("==");
    let not = operator == "!=";
    if let Some(payload) = left.get("payload") {
        let (protocol, field) = (text_of(payload, "protocol").unwrap_or_default(), text_of(payload, "field"));
        return match (protocol, field.unwrap_or_default()) {
            ("ip" | "ip6", field @ ("saddr" | "daddr")) => {
                equals(operator)?;
                draft.family(protocol == "ip6")?;
                let tests = draft::prefixes(each(right, prefix)?.concat(), not)?;
                match field {
                    "saddr" => once(&mut draft.source, "source", tests),
                    _ => once(&mut draft.destination, "destination", tests),
                }
            }
            ("ip", "protocol") | ("ip6", "nexthdr") => {
                draft.family(protocol == "ip6")?;
                protocols(operator, right, draft)
            }
            (transport, field @ ("sport" | "dport")) => {
                if transport != "th" {
                    let number = mark::protocol(transport).ok_or(format!("protocol {transport} is not known here"))?;
                    once(&mut draft.protocol, "protocol", vec![Test::is(number)])?;
                }
                let tests = draft::ports(&ports(operator, right)?, not);
                match field {
                    "sport" => once(&mut draft.source_ports, "source port", tests),
                    _ => once(&mut draft.destination_ports, "destination port", tests),
                }
            }
            (protocol, field) => Err(format!("the director's rules do not look at {protocol} {field}")),
        };
    }
    if let Some(meta) = left.get("meta") {
        return match text_of(meta, "key").unwrap_or_default() {
            "iifname" | "iif" => {
                equals(operator)?;
                let names = each(right, |name| match name.as_str() {
                    Some(name) if name.ends_with('*') => {
                        Err(format!("{name} stands for several interfaces: name each"))
                    }
                    Some(name) => Ok(Test { is: name.to_owned(), not }),
                    None => Err("an interface without a name".into()),
                })?;
                if not && names.len() > 1 {
                    return Err("not one of several interfaces".into());
                }
                once(&mut draft.interface, "interface", names)
            }
            "l4proto" => protocols(operator, right, draft),
            "nfproto" | "protocol" if operator == "==" => match right.as_str() {
                Some("ipv4" | "ip") => draft.family(false),
                Some("ipv6" | "ip6") => draft.family(true),
                _ => Err("it asks for another family than IPv4 and IPv6".into()),
            },
            "mark" => Err("it looks at the mark, which the director's rules cannot".into()),
            key => Err(format!("the director's rules do not look at meta {key}")),
        };
    }
    // What is not for this host the director leaves alone anyway.
    let flags = left.get("fib").filter(|fib| text_of(fib, "result") == Some("type")).and_then(|fib| fib.get("flags"));
    let daddr = |flag: &Value| flag.as_str() == Some("daddr");
    if flags.is_some_and(|flags| daddr(flags) || flags.as_array().is_some_and(|all| all.iter().all(daddr)))
        && operator == "=="
        && right.as_str() == Some("local")
    {
        return Ok(());
    }
    let kind = only(left).map_or("what it compares", |(kind, _)| kind);
    Err(format!("only netfilter knows {kind}"))
}

fn equals(operator: &str) -> Result<(), Reason> {
    if ["==", "!=", "in"].contains(&operator) {
        Ok(())
    } else {
        Err(format!("the director's rules do not have {operator}"))
    }
}

/// Each of an anonymous set, or the one value.
fn each<T>(right: &Value, read: impl Fn(&Value) -> Result<T, Reason>) -> Result<Vec<T>, Reason> {
    if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
        return Err(format!("the elements of set {name} change: write them into the rule"));
    }
    match right.get("set") {
        Some(Value::Array(all)) => {
            all.iter().map(|one| read(one.get("elem").and_then(|elem| elem.get("val")).unwrap_or(one))).collect()
        }
        Some(one) => Ok(vec![read(one)?]),
        None => Ok(vec![read(right)?]),
    }
}

/// The two ends of a range.
fn ends(value: &Value) -> Option<(&Value, &Value)> {
    match value.get("range")?.as_array()?.as_slice() {
        [first, last] => Some((first, last)),
        _ => None,
    }
}

fn prefix(value: &Value) -> Result<Vec<Prefix>, Reason> {
    let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    let found = match (value.get("prefix"), ends(value)) {
        (Some(prefix), _) => {
            let length = prefix.get("len").and_then(Value::as_u64).and_then(|n| u8::try_from(n).ok());
            let address = prefix.get("addr").and_then(address);
            address.zip(length).and_then(|(address, length)| Prefix::new(address, length)).map(|one| vec![one])
        }
        (None, Some((first, last))) => {
            address(first).zip(address(last)).and_then(|(first, last)| draft::range(first, last))
        }
        _ => value.as_str().and_then(Prefix::parse).map(|one| vec![one]),
    };
    found.filter(|found| !found.is_empty()).ok_or(format!("{value} is no address or prefix in numbers"))
}

fn port(value: &Value) -> Result<u16, Reason> {
    value.as_u64().and_then(|n| u16::try_from(n).ok()).ok_or(format!("{value} is no port in numbers"))
}

fn ports(operator: &str, right: &Value) -> Result<Vec<Ports>, Reason> {
    let pair = |first, last| Ports::new(first, last).ok_or("it asks for no port at all".to_owned());
    match operator {
        "<" => {
            return port(right)?
                .checked_sub(1)
                .ok_or("it asks for no port at all".into())
                .and_then(|n| Ok(vec![pair(0, n)?]));
        }
        "<=" => return Ok(vec![pair(0, port(right)?)?]),
        ">" => {
            let first = port(right)?.checked_add(1).ok_or("it asks for no port at all")?;
            return Ok(vec![pair(first, u16::MAX)?]);
        }
        ">=" => return Ok(vec![pair(port(right)?, u16::MAX)?]),
        _ => equals(operator)?,
    }
    each(right, |one| match ends(one) {
        Some((first, last)) => pair(port(first)?, port(last)?),
        None => port(one).and_then(|only| pair(only, only)),
    })
}

fn protocols(operator: &str, right: &Value, draft: &mut Draft) -> Result<(), Reason> {
    equals(operator)?;
    let not = operator == "!=";
    let tests = each(right, |one| {
        let number = match one.as_str() {
            Some("ipv6-icmp") => Some(58),
            Some(name) => mark::protocol(name),
            None => one.as_u64().and_then(|n| u8::try_from(n).ok()).filter(|n| *n != 0),
        };
        number.map(|is| Test { is, not }).ok_or(format!("protocol {one} is not known here: write its number"))
    })?;
    if not && tests.len() > 1 {
        return Err("not one of several protocols".into());
    }
    once(&mut draft.protocol, "protocol", tests)
}
