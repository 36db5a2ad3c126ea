//! Firewall marks. Neither XDP nor tc sees the marks that netfilter sets later, so the
//! director has rules of its own. For what only netfilter can tell there is a device that
//! `ip rule fwmark` leads packets to.

use crate::direct::Flow;
use crate::family::{Address, Family};
use crate::packet::Packet;
use crate::records::{Link, MarkRule, link_flag, mark_flag};
use crate::tables::{Step, Tables};

/// The packet as the rules see it, and its mark so far.
struct Walk<'f, F: Family> {
    base: u32,
    ingress: u32,
    flow: &'f Flow<F>,
    mark: u32,
}

impl<F: Family, T: Tables> Step<T> for Walk<'_, F> {
    #[inline(always)]
    fn step(&mut self, t: &T, i: u32) -> bool {
        let Some(rule) = t.mark_rule(self.base.wrapping_add(i)) else { return false };
        if self.matches(rule) {
            self.mark = self.mark & rule.keep ^ rule.value;
        }
        true
    }
}

/// Whether the address is in the prefix.
#[inline(always)]
fn within<A: Address>(address: &A, prefix: &[u16; 8], mask: &[u16; 8]) -> bool {
    A::from_words(prefix) == address.masked(&A::from_words(mask))
}

#[inline(always)]
fn between(port: u16, [first, last]: [u16; 2]) -> bool {
    first <= port && port <= last
}

impl<F: Family> Walk<'_, F> {
    #[inline(always)]
    fn matches(&self, rule: &MarkRule) -> bool {
        let (key, flags) = (&self.flow.key, rule.flags);
        // A part that must not match counts as one that matches when it does not.
        let holds = |matches: bool, inverted: u32| matches != (flags & inverted != 0);
        (flags & mark_flag::V6 != 0) == F::V6
            && (rule.ifindex == 0 || holds(rule.ifindex == self.ingress, mark_flag::NOT_LINK))
            && (rule.protocol == 0 || holds(rule.protocol == u32::from(key.proto()), mark_flag::NOT_PROTOCOL))
            && holds(within(&key.dst, &rule.dest, &rule.dest_mask), mark_flag::NOT_DEST)
            && holds(within(&key.src, &rule.source, &rule.source_mask), mark_flag::NOT_SOURCE)
            && holds(between(key.dport.get(), rule.dports), mark_flag::NOT_DPORT)
            && holds(between(key.sport.get(), rule.sports), mark_flag::NOT_SPORT)
    }
}

/// Takes a packet's mark from it where that has led it here: what goes on with it, to the
/// stack or another link, would be led here again.
#[inline(always)]
pub fn take<P: Packet, T: Tables>(p: &mut P, t: &T, link: &Link) {
    if P::LAST && link.flags & link_flag::MARKED != 0 {
        t.lead(p.take_mark());
    }
}

/// Whether its mark has led the packet here: it is for this host whatever its address.
#[inline(always)]
pub fn led_here<P: Packet, T: Tables>(p: &P, t: &T) -> bool {
    P::LAST && t.link(p.ingress()).is_some_and(|link| link.flags & link_flag::MARKED != 0)
}

/// The packet's mark: netfilter's where that has led it here, and what the rules in force
/// make of it; 0: none.
#[inline(always)]
pub fn of<F: Family, P: Packet, T: Tables>(p: &P, t: &T, flow: &Flow<F>) -> u32 {
    let rules = t.settings().map_or(0, |settings| settings.mark_rules);
    let mark = if led_here(p, t) { t.led() } else { 0 };
    let mut walk = Walk { base: rules >> 16, ingress: p.ingress(), flow, mark };
    t.walk(rules & 0xffff, &mut walk);
    walk.mark
}
