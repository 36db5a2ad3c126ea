//! Mark rules, and the prefixes that are this host's for marked packets.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use dirigent_config::{MarkRule as Wanted, Ports, Prefix, Test};
use dirigent_director::records::{MARK_RULES, MarkRule, mark_flag};

use super::Error;
use super::apply::Control;
use super::store::Store;
use crate::keys::words;
use crate::memory::LocalNet;

/// A set of rules that was left may still be gone through by a packet for as long.
const GRACE: Duration = Duration::from_millis(100);

/// No interface has this number: what names one that is not there matches nothing.
const NO_INTERFACE: u32 = u32::MAX;

/// What the rules depend on.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Numbers of interfaces by name, once that is known.
    interfaces: Option<HashMap<String, u32>>,
    /// When one set took the other's place.
    since: Option<Instant>,
}

impl Marks {
    /// The other half's rules are in force from now on.
    pub fn switched(&mut self) {
        self.since = Some(Instant::now());
    }
    /// Waits until no packet goes through the half that is not in force.
    fn settle(&self) {
        if let Some(rest) = self.since.and_then(|since| GRACE.checked_sub(since.elapsed())) {
            std::thread::sleep(rest);
        }
    }
    fn record(&self, rule: &Wanted) -> MarkRule {
        let any = if rule.ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
        let prefix = |test: &Option<Test<Prefix>>| {
            let (address, mask) = test.map_or((any, any), |test| (test.is.address(), test.is.mask()));
            (words(address), words(mask))
        };
        let ports = |test: &Option<Test<Ports>>| test.map_or([0, u16::MAX], |test| [test.is.first(), test.is.last()]);
        let interface = rule.interface.as_ref();
        let number =
            |name: &str| self.interfaces.as_ref().and_then(|all| all.get(name)).copied().unwrap_or(NO_INTERFACE);
        let ((source, source_mask), (dest, dest_mask)) = (prefix(&rule.source), prefix(&rule.destination));
        let bit = |set, bit| if set { bit } else { 0 };
        MarkRule {
            flags: bit(rule.ipv6, mark_flag::V6)
                | bit(interface.is_some_and(|test| test.not), mark_flag::NOT_LINK)
                | bit(rule.source.is_some_and(|test| test.not), mark_flag::NOT_SOURCE)
                | bit(rule.destination.is_some_and(|test| test.not), mark_flag::NOT_DEST)
                | bit(rule.source_ports.is_some_and(|test| test.not), mark_flag::NOT_SPORT)
                | bit(rule.destination_ports.is_some_and(|test| test.not), mark_flag::NOT_DPORT)
                | bit(rule.protocol.is_some_and(|test| test.not), mark_flag::NOT_PROTOCOL),
            ifindex: interface.map_or(0, |test| number(&test.is)),
            source,
            source_mask,
            dest,
            dest_mask,
            sports: ports(&rule.source_ports),
            dports: ports(&rule.destination_ports),
            protocol: rule.protocol.map_or(0, |test| test.is.into()),
            keep: !rule.mask,
            value: rule.set,
            zero: 0,
        }
    }
}

impl<S: Store> Control<S> {
    /// Says which interfaces there are, by name and number: mark rules name some.
    pub fn set_interfaces(&mut self, interfaces: HashMap<String, u32>) -> Result<(), Error> {
        self.marks.interfaces = Some(interfaces);
        self.settle_settings()
    }

    /// Says which prefixes are this host's.
    pub fn set_local_nets(&mut self, nets: &BTreeSet<LocalNet>) -> Result<(), Error> {
        let nets = effective(nets);
        // What is in the table under another condition is written over.
        let place = |net: &LocalNet| (net.address, net.length);
        let gone: Vec<LocalNet> =
            self.local_nets.iter().filter(|old| !nets.iter().any(|new| place(new) == place(old))).copied().collect();
        for net in nets.difference(&self.local_nets) {
            self.store.set_local_net(net, true)?;
        }
        for net in gone {
            self.store.set_local_net(&net, false)?;
        }
        self.local_nets = nets;
        self.settle_settings()
    }

    /// Writes the rules beside those in force, unless they are the same: what the settings
    /// are to say of them.
    pub(super) fn prepare_marks(&mut self, in_force: u32) -> Result<u32, Error> {
        let (base, len) = (in_force >> 16, in_force & 0xffff);
        let rules: Vec<MarkRule> = self.model.marks().iter().map(|rule| self.marks.record(rule)).collect();
        let old = self.store.mark_rules(base, len)?;
        // Before a new daemon has looked which interfaces there are, the old one's numbers hold.
        let known = self.marks.interfaces.is_some();
        let ifindex = |rule: &MarkRule| if known || rule.ifindex == 0 { rule.ifindex } else { NO_INTERFACE };
        let same = |(old, new): (&MarkRule, &MarkRule)| MarkRule { ifindex: ifindex(old), ..*old } == *new;
        if rules.len() == old.len() && old.iter().zip(&rules).all(same) {
            return Ok(in_force);
        }
        let base = if base == 0 { MARK_RULES } else { 0 };
        self.marks.settle();
        self.store.put_mark_rules(base, &rules)?;
        Ok(base << 16 | rules.len() as u32)
    }
}

/// Each prefix once. What lies in a prefix that is local to every packet is so too.
fn effective(nets: &BTreeSet<LocalNet>) -> BTreeSet<LocalNet> {
    let always: Vec<&LocalNet> = nets.iter().filter(|net| !net.marked).collect();
    let covered = |net: &LocalNet| always.iter().any(|wide| wide.length <= net.length && wide.contains(net.address));
    nets.iter().map(|net| LocalNet { marked: net.marked && !covered(net), ..*net }).collect()
}
