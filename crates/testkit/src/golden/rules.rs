//! Where this director differs from IPVS on purpose. Each rule is a predicate on set-up
//! and input with its number in docs/differences.md, never a file or a step, and says
//! what must come out instead.

use std::net::IpAddr;

use dirigent_config::{Method, Model, Protocol};

use super::bed::{Bed, Side};
use super::compare::same_frame;
use super::tunnel;
use crate::decode::{Ip, be16, packet};
use crate::packet::checksum;

/// A step that differs from its recording.
pub struct Case<'a> {
    /// The bed.
    pub bed: &'a Bed,
    /// The set-up.
    pub model: &'a Model,
    /// What came in before.
    pub seen: &'a Seen,
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
        id: "lag",
        about: "counters are of now",
        applies: |_, _, _| false, // about text: text.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "order",
        about: "in which order what has none is listed",
        applies: |_, _, _| false, // about text: text.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "percpu",
        about: "counters are kept for all CPUs together",
        applies: |_, _, _| false, // about text: text.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "qlen",
        about: "there is no queue of synchronisation",
        applies: |_, _, _| false, // about text: text.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "set",
        about: "timeouts hold for connections that are there",
        applies: |_, _, _| false, // about text: text.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "sip",
        about: "there are no persistence engines",
        applies: |_, _, _| false, // about text: text.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "twos",
        about: "the scheduler twos is there",
        applies: |_, _, _| false, // about text: text.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "C2",
        about: "pieces of a datagram go into a tunnel one by one",
        applies: |_, _, _| false, // compared as a whole datagram, not by steps: run.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "C6",
        about: "an MTU told about a tunnel counts at once",
        applies: |case, _, _| tunnel::told_mtu(case.input).is_some_and(believable) && told_about_tunnel(case, false),
        holds: tells_learned,
    },
    Rule {
        id: "C7",
        about: "an absurd MTU told about a tunnel is ignored",
        applies: |case, _, _| {
            tunnel::told_mtu(case.input).is_some_and(|mtu| !believable(mtu)) && told_about_tunnel(case, false)
        },
        holds: |case, _, _| case.got.is_empty(),
    },
    Rule {
        id: "C7",
        about: "after an absurd MTU the way carries what it did",
        applies: |case, _, ip| case.seen.absurd && !ip.v6 && towards_service(case.model, ip.dst),
        holds: fits_what_was_learned,
    },
    Rule {
        id: "C8",
        about: "an MTU told about an IPv6 tunnel is learned and told on",
        applies: |case, _, _| tunnel::told_mtu(case.input).is_some_and(believable6) && told_about_tunnel(case, true),
        holds: tells_learned,
    },
    Rule {
        id: "C8",
        about: "what an IPv6 tunnel was learned not to carry is refused",
        applies: |case, _, ip| case.seen.told6.is_some() && towards_service(case.model, ip.dst),
        holds: fits_what_was_learned,
    },
    Rule {
        id: "C18",
        about: "pieces that come before their first are dropped",
        applies: |_, _, _| false, // compared as a whole datagram, not by steps: run.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "reuse",
        about: "a connection that a packet ends makes way at once",
        applies: |_, _, _| false, // a difference between tables, not between frames: apart.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "timer",
        about: "a connection whose time is over is gone",
        applies: |_, _, _| false, // a difference between tables, not between frames: apart.rs
        holds: |_, _, _| false,
    },
    Rule {
        id: "unhooked",
        about: "connections of the last service wait for it as those of others",
        applies: |_, _, _| false, // of scripts: sched.rs
        holds: |_, _, _| false,
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

/// The rule that a difference is by, if any.
pub fn excuse(case: &Case<'_>) -> Option<&'static Rule> {
    let p = packet(case.input)?;
    let ip = Ip::read(p)?;
    RULES.iter().find(|rule| (rule.applies)(case, p, &ip) && (rule.holds)(case, p, &ip))
}

fn c1(_: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    ip.has_option(p, &FILLED_IN)
}

/// The frame is the recorded one but for options and what follows from them; of an error
/// about such a packet, kind and addresses are.
fn c1_holds(case: &Case<'_>, input: &[u8], _: &Ip) -> bool {
    if let [(Side::R, want), ..] = case.expected
        && tunnel::added(case.input, want)
    {
        return c1_holds_inside(case, input);
    }
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

/// In a tunnel: what is inside is the input, TTL and checksum apart, and what is recorded
/// is the same behind the options. (A test run of the kernel shows the first piece only.)
fn c1_holds_inside(case: &Case<'_>, input: &[u8]) -> bool {
    let inside = |frames: &[(Side, Vec<u8>)]| -> Option<Vec<u8>> {
        let packets: Vec<&[u8]> = frames.iter().filter_map(|(_, frame)| packet(frame)).collect();
        Some(tunnel::inner(&tunnel::put_together(&packets)?)?.to_vec())
    };
    let shown = case.got.len().min(case.expected.len());
    let (Some(want), Some(got)) = (inside(&case.expected[..shown]), inside(case.got)) else { return false };
    let Some(ip) = Ip::read(input) else { return false };
    case.got.iter().all(|(side, _)| *side == Side::R)
        && got.get(12..) == input.get(12..got.len())
        && got.get(ip.l4..) == want.get(ip.l4..)
        && got.get(..ip.l4).is_some_and(|header| checksum(&[header]) == 0)
}

/// The recorded frame with the input's fragment header put back. In a tunnel: the outer
/// packet has none.
fn c3_holds(case: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    if let [(Side::R, got)] = case.got
        && tunnel::added(case.input, got)
    {
        let outer = packet(got).and_then(Ip::read);
        return outer.is_some_and(|outer| outer.fragment_header.is_none())
            && packet(got).and_then(tunnel::inner).and_then(|inner| inner.get(8..)) == p.get(8..ip.len);
    }
    let ([(want_side, want)], [(side, got)]) = (case.expected, case.got) else { return false };
    let (Some(at), Some(want_p)) = (ip.fragment_header, packet(want)) else { return false };
    let mut with_header = want_p.to_vec();
    with_header.splice(at..at, p[at..at + 8].iter().copied());
    let len = (with_header.len() - 40) as u16;
    with_header[4..6].copy_from_slice(&len.to_be_bytes());
    with_header[6] = 44;
    let frame = [&want[..14], &with_header].concat();
    want_side == side && at == 40 && same_frame(&frame, got, false, false)
}

/// A transport header cut short, to a service or from a server.
fn c4(case: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    let least = match ip.protocol {
        6 => 20,
        17 => 8,
        132 => 12,
        _ => return false,
    };
    concerns_service(case.model, ip) && p.len() - ip.l4.min(p.len()) < least
}

/// Whether the packet goes to a service, or comes from a server. (Ports do not count:
/// later pieces have none, and errors quote theirs.)
pub fn concerns_service(model: &Model, ip: &Ip) -> bool {
    towards_service(model, ip.dst) || from_server(model, ip.src)
}

fn from_server(model: &Model, address: IpAddr) -> bool {
    model.services().iter().flat_map(|s| &s.servers).any(|s| s.address == address)
}

fn towards_service(model: &Model, address: IpAddr) -> bool {
    model.services().iter().any(|s| s.key.address() == Some(address))
}

/// The service that a one-packet answer is of, if there is just one.
fn one_packet_service(case: &Case<'_>, p: &[u8], ip: &Ip) -> Option<(IpAddr, u16)> {
    let (sport, _) = ip.ports(p)?;
    let mut services = case.model.services().iter().filter(|service| {
        service.one_packet
            && service.key.protocol() == Some(Protocol::Udp)
            && service.servers.iter().any(|s| {
                let port = if s.port == 0 { service.key.port() } else { s.port };
                s.method == Method::Nat && (s.address, port) == (ip.src, sport)
            })
    });
    let first = services.next()?;
    services.next().is_none().then_some((first.key.address()?, first.key.port()))
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

/// What came in that later steps depend on.
#[derive(Debug, Default)]
pub struct Seen {
    /// The smallest believable MTU told about a tunnel over IPv4, and over IPv6.
    pub told4: Option<u32>,
    /// The same over IPv6.
    pub told6: Option<u32>,
    /// An MTU below what must be believed was told.
    pub absurd: bool,
}

/// Less than this is no MTU of an IPv4 route (difference C7).
fn believable(mtu: u32) -> bool {
    mtu >= 576
}
fn believable6(mtu: u32) -> bool {
    mtu >= 1280
}

impl Seen {
    /// Notes an input.
    pub fn see(&mut self, input: &[u8]) {
        let (Some(mtu), true) = (tunnel::told_mtu(input), tunnel::about_a_tunnel(input)) else { return };
        let v6 = packet(input).and_then(Ip::read).is_some_and(|ip| ip.v6);
        let (told, believed) = match v6 {
            true => (&mut self.told6, believable6(mtu)),
            false => (&mut self.told4, believable(mtu)),
        };
        match believed {
            true => *told = Some(told.map_or(mtu, |old| old.min(mtu))),
            false => self.absurd = true,
        }
    }
}

fn told_about_tunnel(case: &Case<'_>, v6: bool) -> bool {
    tunnel::about_a_tunnel(case.input) && packet(case.input).and_then(Ip::read).is_some_and(|ip| ip.v6 == v6)
}

/// Bytes that the model's tunnels add.
fn overhead(model: &Model) -> u32 {
    use dirigent_config::{TunnelChecksum, TunnelKind};
    let server = model.services().iter().flat_map(|s| &s.servers).find_map(|server| match server.method {
        Method::Tun(tunnel) => Some((tunnel, server.address.is_ipv6())),
        _ => None,
    });
    let Some((tunnel, v6)) = server else { return 0 };
    let inside = match tunnel.kind {
        TunnelKind::Ipip => 0,
        TunnelKind::Gre if tunnel.checksum == TunnelChecksum::None => 4,
        TunnelKind::Gre => 8,
        TunnelKind::Gue { .. } => 12,
    };
    inside + if v6 { 40 } else { 20 }
}

/// One error to the client, which tells what the tunnel carries by what is known now.
fn tells_learned(case: &Case<'_>, _: &[u8], ip: &Ip) -> bool {
    let told = tunnel::told_mtu(case.input).unwrap_or(u32::MAX);
    let before = if ip.v6 { case.seen.told6 } else { case.seen.told4 };
    // What is inside could be cut: nobody is to be told.
    if case.got.is_empty() {
        let inner = tunnel::quoted(case.input).and_then(|(quote, _)| tunnel::inner(quote));
        return inner
            .is_some_and(|p| p.first().is_some_and(|b| b >> 4 == 4) && be16(p, 6).is_some_and(|f| f & 0x4000 == 0));
    }
    let [(Side::C, got)] = case.got else { return false };
    tunnel::told_mtu(got) == Some(told.min(before.unwrap_or(told)).min(case.bed.mtu_r) - overhead(case.model))
}

/// The packet went to its server if the way is known to carry it, else the client is told.
fn fits_what_was_learned(case: &Case<'_>, p: &[u8], ip: &Ip) -> bool {
    let learned = case.seen.told4.or(case.seen.told6).unwrap_or(case.bed.mtu_r).min(case.bed.mtu_r);
    let room = learned - overhead(case.model);
    let [(side, got)] = case.got else { return false };
    if ip.len as u32 <= room {
        let inside = packet(got).and_then(tunnel::inner);
        // Else it is as recorded, or wrong.
        let refused = case.expected.iter().any(|(side, frame)| *side == Side::C && tunnel::told_mtu(frame).is_some());
        return refused && *side == Side::R && inside.is_some_and(|inner| inner.get(ip.l4..) == p.get(ip.l4..ip.len));
    }
    *side == Side::C && tunnel::told_mtu(got) == Some(room)
}
