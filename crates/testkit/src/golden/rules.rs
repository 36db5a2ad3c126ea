//! Where this director differs from IPVS on purpose. Each rule is a predicate on set-up
//! and input with its number in docs/differences.md, never a file or a step, and says
//! what must come out instead.

use std::collections::HashSet;
use std::net::IpAddr;

use dirigent_config::{Method, Model, Protocol};

use super::bed::{Bed, Side};
use super::compare::same_frame;
use super::executor::Row;
use crate::decode::{Ip, be16, packet};
use crate::packet::checksum;

/// A step that differs from its recording.
pub struct Case<'a> {
    /// The bed.
    pub bed: &'a Bed,
    /// The set-up.
    pub model: &'a Model,
    /// Where the frame came in.
    pub side: Side,
    /// The frame.
    pub input: &'a [u8],
    /// What was recorded.
    pub expected: &'a [(Side, Vec<u8>)],
    /// What came out.
    pub got: &'a [(Side, Vec<u8>)],
}

/// A deliberate difference.
pub struct Rule {
    /// Its number in docs/differences.md.
    pub id: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Whether set-up and input are such.
    applies: fn(&Case<'_>, &[u8], &Ip) -> bool,
    /// Whether what came out is what the rule says should.
    holds: fn(&Case<'_>, &[u8], &Ip) -> bool,
}

/// Record route and timestamp.
const FILLED_IN: [u8; 2] = [7, 68];

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        id: "F1",
        about: "fragments: next issue",
        applies: |case, _, ip| ip.fragment.is_some() && concerns_service(case.model, ip),
        holds: f1_holds,
    },
    Rule {
        id: "F2",
        about: "direct routing, to be cut: later issue",
        applies: f2,
        holds: |case, _, _| case.got.is_empty(),
    },
    Rule { id: "C1", about: "record route and timestamp are forwarded as they are", applies: c1, holds: c1_holds },
    Rule {
        id: "C3",
        about: "an IPv6 atomic fragment keeps its header",
        applies: |_, _, ip| ip.fragment.is_none() && ip.fragment_header.is_some(),
        holds: c3_holds,
    },
    Rule { id: "C4", about: "a packet without ports is dropped", applies: c4, holds: |case, _, _| case.got.is_empty() },
    Rule { id: "C9", about: "answers of one-packet services are translated", applies: c9, holds: c9_holds },
    Rule {
        id: "C14",
        about: "a source that cannot be is refused",
        applies: |case, _, ip| impossible(case.bed, ip.src),
        holds: |case, _, _| case.got.is_empty(),
    },
];

/// The rule that excuses a step even where it is as recorded: that a piece of a datagram
/// came to nothing proves nothing while its last piece does too.
pub fn regardless(case: &Case<'_>) -> Option<&'static Rule> {
    excuse(case).filter(|rule| rule.id == "F1")
}

/// The rule that a difference is by, if any.
pub fn excuse(case: &Case<'_>) -> Option<&'static Rule> {
    let p = packet(case.input)?;
    let ip = Ip::read(p)?;
    RULES.iter().find(|rule| (rule.applies)(case, p, &ip) && (rule.holds)(case, p, &ip))
}

/// First pieces are dropped. Later ones have no ports: nobody knows whose they are, and
/// the servers may have traffic of their own, so the host does with them as it likes.
fn f1_holds(case: &Case<'_>, _: &[u8], ip: &Ip) -> bool {
    case.got.is_empty() || ip.fragment.is_some_and(|(_, offset, _)| offset > 0)
}

/// Without DF, for a service with direct routing, over the servers' MTU.
fn f2(case: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    let direct =
        |s: &dirigent_config::Service| s.key.address == ip.dst && s.servers.iter().any(|s| s.method == Method::Dr);
    let may_cut = !ip.v6 && be16(p, 6).is_some_and(|place| place & 0x4000 == 0);
    may_cut && p.len() > case.bed.mtu_r as usize && case.model.services().iter().any(direct)
}

fn c1(_: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    ip.has_option(p, &FILLED_IN)
}

/// The frame is the recorded one but for options and what follows from them; of an error
/// about such a packet, kind and addresses are.
fn c1_holds(case: &Case<'_>, input: &[u8], _: &Ip) -> bool {
    let ([(want_side, want)], [(side, got)]) = (case.expected, case.got) else { return false };
    let (Some(want_ip), Some(got_ip)) = (packet(want).and_then(Ip::read), packet(got).and_then(Ip::read)) else {
        return false;
    };
    let (want_p, got_p) = (packet(want).unwrap_or_default(), packet(got).unwrap_or_default());
    let header_right = got_p.get(..got_ip.l4).is_some_and(|header| checksum(&[header]) == 0);
    let same_ends = want_side == side
        && want.get(..14) == got.get(..14)
        && (want_ip.src, want_ip.dst, want_ip.ttl, want_ip.tos) == (got_ip.src, got_ip.dst, got_ip.ttl, got_ip.tos);
    if !header_right || !same_ends {
        return false;
    }
    if want_ip.protocol == 1 && *side == case.side {
        // Type, code, unused and MTU; then the quote: the packet as it came, TTL aside.
        let (want, got) = (want_p.get(want_ip.l4..), got_p.get(got_ip.l4..));
        let (Some(want), Some(got)) = (want, got) else { return false };
        let quote = &got[8..];
        return got_ip.options(got_p).is_empty()
            && checksum(&[got]) == 0
            && (&want[..2], &want[4..8]) == (&got[..2], &got[4..8])
            && input.get(12..quote.len()) == quote.get(12..);
    }
    let input_options = Ip::read(input).map(|ip| ip.options(input).to_vec()).unwrap_or_default();
    got_ip.options(got_p) == input_options && want_p.get(want_ip.l4..) == got_p.get(got_ip.l4..)
}

/// The recorded frame with the input's fragment header put back.
fn c3_holds(case: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    let ([(want_side, want)], [(side, got)]) = (case.expected, case.got) else { return false };
    let (Some(at), Some(want_p)) = (ip.fragment_header, packet(want)) else { return false };
    let mut with_header = want_p.to_vec();
    with_header.splice(at..at, p[at..at + 8].iter().copied());
    let len = (with_header.len() - 40) as u16;
    with_header[4..6].copy_from_slice(&len.to_be_bytes());
    with_header[6] = 44;
    let frame = [&want[..14], &with_header].concat();
    want_side == side && at == 40 && same_frame(&frame, got, false)
}

/// A transport header cut short, to a service or from a server.
fn c4(case: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    let least = if ip.protocol == 6 { 20 } else { 8 };
    concerns_service(case.model, ip) && matches!(ip.protocol, 6 | 17) && p.len() - ip.l4.min(p.len()) < least
}

/// Whether the packet goes to a service, or comes from a server. (Ports do not count:
/// later pieces have none, and errors quote theirs.)
fn concerns_service(model: &Model, ip: &Ip) -> bool {
    towards_service(model, ip.dst) || from_server(model, ip.src)
}

fn from_server(model: &Model, address: IpAddr) -> bool {
    model.services().iter().flat_map(|s| &s.servers).any(|s| s.address == address)
}

fn towards_service(model: &Model, address: IpAddr) -> bool {
    model.services().iter().any(|s| s.key.address == address)
}

/// The service that a one-packet answer is of, if there is just one.
fn one_packet_service(case: &Case<'_>, p: &[u8], ip: &Ip) -> Option<(IpAddr, u16)> {
    let (sport, _) = ip.ports(p)?;
    let mut services = case.model.services().iter().filter(|service| {
        service.one_packet
            && service.key.protocol == Protocol::Udp
            && service.servers.iter().any(|s| {
                let port = if s.port == 0 { service.key.port } else { s.port };
                s.method == Method::Nat && (s.address, port) == (ip.src, sport)
            })
    });
    let first = services.next()?;
    services.next().is_none().then_some((first.key.address, first.key.port))
}

fn c9(case: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    case.side == Side::R && ip.protocol == 17 && one_packet_service(case, p, ip).is_some()
}

fn c9_holds(case: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    let [(Side::C, got)] = case.got else { return false };
    let Some(out) = packet(got) else { return false };
    let Some(got_ip) = Ip::read(out) else { return false };
    let (from, dst) = (got_ip.ports(out).map(|(sport, _)| (got_ip.src, sport)), got_ip.dst);
    let l4 = out.get(got_ip.l4..).unwrap_or_default();
    let right = checksum(&[&crate::packet::pseudo(got_ip.src, dst, 17, l4.len()), l4]) == 0 || be16(l4, 6) == Some(0);
    from == one_packet_service(case, p, ip) && dst == ip.dst && got_ip.ttl + 1 == ip.ttl && right
}

fn impossible(bed: &Bed, src: IpAddr) -> bool {
    bed.locals.contains(&src)
        || match src {
            IpAddr::V4(a) => matches!(a.octets()[0], 0 | 127 | 224..),
            IpAddr::V6(a) => a.is_unspecified() || a.is_loopback() || a.is_multicast(),
        }
}

/// Flows of which the director has seen fragments only: rule F1 about rows of the table.
#[derive(Default)]
pub struct FragmentFlows {
    fragments: HashSet<(String, String)>,
    whole: HashSet<(String, String)>,
}

impl FragmentFlows {
    /// Notes an input.
    pub fn see(&mut self, input: &[u8]) {
        let Some(p) = packet(input) else { return };
        let Some(ip) = Ip::read(p) else { return };
        let Some((sport, dport)) = ip.ports(p) else { return };
        let place = |address, port| std::net::SocketAddr::new(address, port).to_string();
        let flow = (place(ip.src, sport), place(ip.dst, dport));
        let set = if ip.fragment.is_some() { &mut self.fragments } else { &mut self.whole };
        set.insert(flow);
    }
    /// Whether a recorded row is of such a flow.
    pub fn only(&self, row: &Row) -> bool {
        let flow = (row[3].clone(), row[4].clone());
        self.fragments.contains(&flow) && !self.whole.contains(&flow)
    }
}
