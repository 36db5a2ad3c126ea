//! A rule on its way: tests with alternatives, of which each becomes a mark rule.

use super::Reason;
use crate::mark::{MAX_MARK_RULES, MarkRule, Ports, Prefix, Test};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Alternatives of each test; none: everything passes.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Whether the rule is for IPv6, if that is said.
    pub ipv6: Option<bool>,
    pub interface: Vec<Test<String>>,
    pub source: Vec<Test<Prefix>>,
    pub destination: Vec<Test<Prefix>>,
    pub protocol: Vec<Test<u8>>,
    pub source_ports: Vec<Test<Ports>>,
    pub destination_ports: Vec<Test<Ports>>,
    /// One of source and destination port.
    pub either_port: Vec<Ports>,
}

/// Adds a test, of which a rule may have one.
pub fn once<T: PartialEq>(slot: &mut Vec<T>, what: &str, new: Vec<T>) -> Result<(), Reason> {
    if !slot.is_empty() && *slot != new {
        return Err(format!("it asks for the {what} more than once"));
    }
    *slot = new;
    Ok(())
}

/// One address of several prefixes, or none of just one.
pub fn prefixes(found: Vec<Prefix>, not: bool) -> Result<Vec<Test<Prefix>>, Reason> {
    if not && found.len() > 1 {
        return Err("not one of several prefixes".into());
    }
    Ok(found.into_iter().map(|is| Test { is, not }).collect())
}

/// A port of several ranges, or of none of them.
pub fn ports(found: &[Ports], not: bool) -> Vec<Test<Ports>> {
    match (found, not) {
        ([one], _) => vec![Test { is: *one, not }],
        (_, false) => merged(found).into_iter().map(Test::is).collect(),
        (_, true) => gaps(found).into_iter().map(Test::is).collect(),
    }
}

/// The same ports as ranges that do not touch.
pub fn merged(ranges: &[Ports]) -> Vec<Ports> {
    let mut sorted: Vec<(u16, u16)> = ranges.iter().map(|r| (r.first(), r.last())).collect();
    sorted.sort_unstable();
    let mut out: Vec<(u16, u16)> = Vec::new();
    for (first, last) in sorted {
        match out.last_mut() {
            Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
            _ => out.push((first, last)),
        }
    }
    out.into_iter().filter_map(|(first, last)| Ports::new(first, last)).collect()
}

/// All other ports.
pub fn gaps(ranges: &[Ports]) -> Vec<Ports> {
    let mut out = Vec::new();
    let mut next = Some(0u16);
    for range in merged(ranges) {
        let before = next.and_then(|next| Some((next, range.first().checked_sub(1)?)));
        out.extend(before.and_then(|(first, last)| Ports::new(first, last)));
        next = range.last().checked_add(1);
    }
    out.extend(next.and_then(|next| Ports::new(next, u16::MAX)));
    out
}

/// The prefixes that make up a range of addresses.
pub fn range(first: IpAddr, last: IpAddr) -> Option<Vec<Prefix>> {
    let (bits, mut from, to) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (32u32, u128::from(a.to_bits()), u128::from(b.to_bits())),
        (IpAddr::V6(a), IpAddr::V6(b)) => (128, a.to_bits(), b.to_bits()),
        _ => return None,
    };
    let mut out = Vec::new();
    while from <= to {
        // As many low bits as are zero in the first address and fit before the last.
        let mut free = from.trailing_zeros().min(bits);
        let end = |free: u32| from | 1u128.checked_shl(free).map_or(u128::MAX, |size| size - 1);
        while end(free) > to {
            free -= 1;
        }
        let end = end(free);
        let address = match first {
            IpAddr::V4(_) => Ipv4Addr::from_bits(from as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(from).into(),
        };
        out.extend(Prefix::new(address, (bits - free) as u8));
        match end.checked_add(1) {
            Some(next) if end < to => from = next,
            _ => break,
        }
    }
    Some(out)
}

impl Draft {
    /// The packet's address of this family.
    pub fn family(&mut self, ipv6: bool) -> Result<(), Reason> {
        match self.ipv6.replace(ipv6) {
            Some(other) if other != ipv6 => Err("no packet is of both families".into()),
            _ => Ok(()),
        }
    }

    /// The mark rules: cleared of `mask`, flipped by `set`. Without a family in the rule, one
    /// for each of `families`.
    pub fn rules(&self, families: &[bool], set: u32, mask: u32) -> Result<Vec<MarkRule>, Reason> {
        let families: Vec<bool> = match self.ipv6 {
            Some(ipv6) if !families.contains(&ipv6) => return Err("no packet of this table matches".into()),
            Some(ipv6) => vec![ipv6],
            None => families.to_vec(),
        };
        if !self.either_port.is_empty() {
            return self.by_either_port(&families, set, mask);
        }
        self.product(&families, set, mask)
    }

    /// A rule for the source port and one for the destination port, both of which a packet
    /// may meet.
    fn by_either_port(&self, families: &[bool], set: u32, mask: u32) -> Result<Vec<MarkRule>, Reason> {
        if set & !mask != 0 {
            return Err("it flips bits by either port, which a rule for each would do twice".into());
        }
        let either = Self { either_port: Vec::new(), ..self.clone() };
        let mut source = either.clone();
        once(&mut source.source_ports, "port", ports(&self.either_port, false))?;
        let mut destination = either;
        once(&mut destination.destination_ports, "port", ports(&self.either_port, false))?;
        let mut rules = source.product(families, set, mask)?;
        rules.extend(destination.product(families, set, mask)?);
        Ok(rules)
    }

    fn product(&self, families: &[bool], set: u32, mask: u32) -> Result<Vec<MarkRule>, Reason> {
        let lengths = [
            families.len(),
            self.interface.len(),
            self.source.len(),
            self.destination.len(),
            self.protocol.len(),
            self.source_ports.len(),
            self.destination_ports.len(),
        ];
        let count = lengths.into_iter().fold(1usize, |count, length| count.saturating_mul(length.max(1)));
        if count > MAX_MARK_RULES {
            return Err(format!("it would become {count} rules, more than {MAX_MARK_RULES}"));
        }
        let all = families.iter().map(|ipv6| MarkRule { mask, ..MarkRule::all(*ipv6, set) }).collect();
        let all = each(all, &self.interface, |rule, test| rule.interface = Some(test));
        let all = each(all, &self.source, |rule, test| rule.source = Some(test));
        let all = each(all, &self.destination, |rule, test| rule.destination = Some(test));
        let all = each(all, &self.protocol, |rule, test| rule.protocol = Some(test));
        let all = each(all, &self.source_ports, |rule, test| rule.source_ports = Some(test));
        let all = each(all, &self.destination_ports, |rule, test| rule.destination_ports = Some(test));
        match all.iter().flat_map(MarkRule::violations).next() {
            Some(violation) => Err(violation.to_string()),
            None => Ok(all),
        }
    }
}

/// Each rule with each alternative.
fn each<T: Clone>(rules: Vec<MarkRule>, tests: &[T], put: impl Fn(&mut MarkRule, T)) -> Vec<MarkRule> {
    if tests.is_empty() {
        return rules;
    }
    let with = |rule: &MarkRule, test: &T| {
        let mut rule = rule.clone();
        put(&mut rule, test.clone());
        rule
    };
    rules.iter().flat_map(|rule| tests.iter().map(|test| with(rule, test))).collect()
}
