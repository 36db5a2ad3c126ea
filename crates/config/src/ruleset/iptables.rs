//! What `iptables-save` and `ip6tables-save` print.

use super::{Addresses, Destination, Place, Rule, Ruleset, Verdict, ports, protocol};
use crate::mark::{Ports, Prefix};

/// Chains that IPVS's packets went through, and ours do not.
const BUILT_IN: [&str; 3] = ["PREROUTING", "INPUT", "FORWARD"];

/// Reads rules of all tables; `what` is whose they are: `iptables`, `ip6tables`. What is not understood counts as asking
/// for more than could be told.
pub fn iptables(what: &str, text: &str) -> Ruleset {
    let mut all = Ruleset::default();
    let mut table = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            if let (Some(name), Some("DROP")) = (words.next(), words.next())
                && BUILT_IN.contains(&name)
            {
                all.policies.push(format!("{what} -t {table}, chain {name}"));
            }
        } else if line.starts_with("-A ") {
            all.rules.extend(rule(what, table, line));
        }
    }
    all
}

/// Words as iptables-save quotes them.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut word, mut quoted, mut begun) = (String::new(), false, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => (quoted, begun) = (!quoted, true),
            '\\' if quoted => word.extend(letters.next()),
            letter if letter.is_whitespace() && !quoted => {
                if begun || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            letter => word.push(letter),
        }
    }
    if begun || !word.is_empty() {
        all.push(word);
    }
    all
}

fn prefix(text: &str) -> Option<Prefix> {
    // An IPv4 mask may be written out.
    let Some((address, mask)) = text.split_once('/') else { return Prefix::parse(text) };
    match mask.parse::<std::net::Ipv4Addr>() {
        Ok(mask) if mask.to_bits().leading_ones() == mask.to_bits().count_ones() => {
            Prefix::parse(&format!("{address}/{}", mask.to_bits().leading_ones()))
        }
        Ok(_) => None,
        Err(_) => Prefix::parse(text),
    }
}

fn rule(what: &str, table: &str, line: &str) -> Option<Rule> {
    let words = words(line);
    let mut words = words.iter().map(String::as_str).skip(1);
    let chain = words.next()?;
    let mut rule = Rule {
        place: format!("{what} -t {table}, chain {chain}"),
        words: line.to_owned(),
        destinations: Vec::new(),
        sources: None,
        more: false,
        verdict: Verdict::Other,
    };
    let (mut not, mut protocol_is) = (false, None);
    let mut asked_ports: Vec<(bool, Vec<Ports>)> = Vec::new();
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word {
            "!" => {
                not = true;
                continue;
            }
            "-p" | "--protocol" => {
                let number = protocol(value());
                if not || number.is_none() {
                    rule.more = true;
                } else {
                    protocol_is = number;
                }
            }
            "-s" | "--source" => match prefix(value()) {
                Some(prefix) if !not => rule.sources = Some(vec![prefix]),
                _ => rule.more = true,
            },
            "-d" | "--destination" => match prefix(value()) {
                Some(prefix) => {
                    let place = Place { address: Some(Addresses::prefix(prefix)), ..Place::default() };
                    rule.destinations.push(Destination { not, any: vec![place] });
                }
                None => rule.more = true,
            },
            "--dport" | "--dports" | "--destination-port" | "--destination-ports" => {
                let all: Option<Vec<_>> = value().split(',').map(ports).collect();
                match all {
                    Some(all) => asked_ports.push((not, all)),
                    None => rule.more = true,
                }
            }
            "-m" | "--match" => {
                let name = value();
                rule.more |= !["tcp", "udp", "sctp", "multiport", "comment"].contains(&name);
            }
            "--comment" => _ = value(),
            "-j" | "--jump" | "-g" | "--goto" => match value() {
                "DROP" | "REJECT" => rule.verdict = Verdict::Drop,
                "ACCEPT" => rule.verdict = Verdict::Accept,
                _ => rule.more = true,
            },
            "--reject-with" => _ = value(),
            _ => rule.more = true,
        }
        not = false;
    }
    for (not, all) in asked_ports {
        let place = |ports| Place { ports: Some(ports), protocol: protocol_is, ..Place::default() };
        rule.destinations.push(Destination { not, any: all.into_iter().map(place).collect() });
    }
    if protocol_is.is_some() {
        let place = Place { protocol: protocol_is, ..Place::default() };
        rule.destinations.push(Destination { not: false, any: vec![place] });
    }
    Some(rule).filter(Rule::names)
}
