//! Which request is imagined: of which client, and to what.

use super::Question;
use crate::explain::{self, Coming, Flag, NOBODY, TTL, frame};
use crate::failure::{Failure, Result, code};
use crate::imagine::Imagination;
use dirigent_api::Service;
use dirigent_config::{Prefix, Protocol, ServiceKey};
use dirigent_datapath::control::snapshot::{Foretold, leave_only};
use dirigent_datapath::control::{Flow, Spot, Store as _, address, server_address};
use dirigent_datapath::memory::{Incoming, Seen};
use dirigent_director::records::{MarkRule, link_flag, mark_flag};
use dirigent_director::verdict::ReasonKind;
use dirigent_net::{NextHop, NextHopState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses of examples (RFC 5737, RFC 3849, RFC 9637), whose packets nobody gets: the first that is reached by a router.
const EXAMPLES: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc0, 0, 0, 0, 0, 7)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 7)),
];
/// The client's port, if it is free; else the next one that is.
const CLIENT_PORT: u16 = 40000;
/// The port that is asked for where any will do.
const ASKED_PORT: u16 = 80;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    protocol: Protocol,
    to: SocketAddr,
    /// What netfilter marks it with.
    mark: u32,
    /// The interface that it must come in by.
    interface: Option<String>,
}

/// A request that does not get to the server.
struct Miss {
    /// It is a packet of the service.
    reached: bool,
    failure: Failure,
}

/// Makes requests for a service, one for each server.
pub struct Asker<'n, 's> {
    /// The director and its host.
    pub now: &'n mut Imagination<'s>,
    service: u32,
    key: ServiceKey,
    asked: Vec<Asked>,
    /// What is asked follows from mark rules.
    guessed: bool,
    clients: Vec<(IpAddr, Option<u16>)>,
}

/// A request that is imagined, and what becomes of it.
pub struct Request {
    /// The packet.
    pub question: explain::Question,
    /// The interface it comes in by.
    pub ingress: u32,
    /// The way to the client: the client itself, or a router.
    pub client: NextHop,
    /// The frame as the director gets it.
    pub frame: Vec<u8>,
    /// What becomes of it.
    pub foretold: Foretold,
}

impl Request {
    /// Netfilter's mark has led the packet to the device that is there for it.
    pub fn is_led(&self) -> bool {
        self.question.mark != 0
    }

    /// The client is on a link of the director's.
    pub fn is_near(&self) -> bool {
        self.client.neighbour == Some(self.question.from.ip())
    }
}

fn invalid(place: &str, what: impl Into<String>, remedy: &str) -> Failure {
    Failure { code: code::INVALID, ..Failure::new(place, what, remedy) }
}

impl<'n, 's> Asker<'n, 's> {
    /// For a service, by its key and its index.
    pub fn new(
        now: &'n mut Imagination<'s>,
        key: ServiceKey,
        index: u32,
        service: &Service,
        question: &Question,
    ) -> Result<Self> {
        let v6 = service.family == 6;
        let asked = asked(now, key, question)?;
        let clients = clients(now, v6, service, question.client.as_deref())?;
        let guessed = matches!(key, ServiceKey::Mark { .. }) && question.to.is_none();
        Ok(Self { now, service: index, key, asked, guessed, clients })
    }

    /// The first request that gets to the server of this index.
    pub fn request(&mut self, server: u32) -> Result<Request> {
        let mut refused = None;
        for asked in self.asked.clone() {
            for client in self.clients.clone() {
                let request = self.imagine(&asked, client, server)?;
                match self.misses(&request, server)? {
                    None => return Ok(request),
                    // What was guessed from rules may be another service's.
                    Some(Miss { reached: false, .. }) if self.guessed => {}
                    Some(Miss { failure, .. }) => refused = refused.or(Some(failure)),
                }
            }
        }
        Err(refused.unwrap_or_else(|| {
            let what = "no mark rule of the director says which packets these are; netfilter's rules may";
            Failure::new(self.key.to_string(), what, "name one that is marked so, like --to tcp:192.0.2.10:80")
        }))
    }

    fn imagine(&mut self, asked: &Asked, (client, port): (IpAddr, Option<u16>), server: u32) -> Result<Request> {
        let port = match port {
            Some(port) => port,
            None => self.free_port(asked, client)?,
        };
        let question = explain::Question {
            protocol: asked.protocol,
            from: SocketAddr::new(client, port),
            to: asked.to,
            interface: asked.interface.clone(),
            flags: vec![Flag::Syn],
            mark: asked.mark,
            length: 0,
        };
        let way = self.now.way(client)?;
        let ingress = self.now.ingress(&question)?;
        let near = way.neighbour == Some(client);
        let known = way.state == NextHopState::Resolved && way.ifindex == ingress;
        // A router took one off, and the host's stack where it led the packet on.
        let gone = u8::from(!near) + u8::from(asked.mark != 0);
        let source = if known { way.mac } else { NOBODY };
        let coming = Coming { source, ttl: TTL - gone, ..self.now.coming(ingress)? };
        let frame = frame(&question, coming)?;
        let incoming = Incoming { frame: &frame, ingress, mark: question.mark, ..Incoming::default() };
        let service = self.service;
        let foretold = self.now.foretell(&question, &incoming, |tables| leave_only(tables, service, server))?;
        Ok(Request { question, ingress, client: way, frame, foretold })
    }

    /// A port of the client from which there is no connection.
    fn free_port(&self, asked: &Asked, client: IpAddr) -> Result<u16> {
        for port in CLIENT_PORT..=u16::MAX {
            let (protocol, dst, dport) = (asked.protocol.number(), asked.to.ip(), asked.to.port());
            let flow = Flow { protocol, template: 0, src: client, sport: port, dst, dport };
            if self.now.store.entry(&flow)?.is_none() {
                return Ok(port);
            }
        }
        Err(Failure::new(client.to_string(), "has connections from all ports", "name another client: --client"))
    }

    /// Why a request does not get to the service, or to the server of this index.
    fn misses(&self, request: &Request, server: u32) -> Result<Option<Miss>> {
        let Foretold { outcome, seen, .. } = &request.foretold;
        let reason = outcome.verdict.reason;
        let found = seen.iter().any(|seen| matches!(seen, Seen::Service(_, Some(index)) if *index == self.service));
        if found && reason.kind() == ReasonKind::Forwarded {
            return self.elsewhere(request, server);
        }
        let explain::Question { protocol, from, to, mark, .. } = &request.question;
        let packet = format!("{} {from} → {to}", protocol.name());
        let by_mark = if *mark == 0 { String::new() } else { format!(" --mark {mark}") };
        let what = match found {
            true => format!("does not get to a server of {}: {} ({})", self.key, reason.text(), reason.name()),
            false => format!("is no packet of {}: {} ({})", self.key, reason.text(), reason.name()),
        };
        let remedy = format!("`dirigent explain {} {from} {to}{by_mark}` shows each step", protocol.name());
        Ok(Some(Miss { reached: found, failure: Failure::new(packet, what, remedy) }))
    }

    /// Persistence has the client go to another server.
    fn elsewhere(&self, request: &Request, server: u32) -> Result<Option<Miss>> {
        let explain::Question { protocol, from, to, .. } = &request.question;
        let (protocol, sport, dport) = (protocol.number(), from.port(), to.port());
        let flow = Flow { protocol, template: 0, src: from.ip(), sport, dst: to.ip(), dport };
        let other = request.foretold.tables.entry(&flow)?.map(|entry| entry.server).filter(|other| *other != server);
        let Some(other) = other else { return Ok(None) };
        let record = self.now.store.server(other)?;
        let other = SocketAddr::new(server_address(&record), record.port.get());
        let what = format!("persistence has this client go to {other}");
        let remedy = "name that one with --server, or another client with --client";
        Ok(Some(Miss { reached: true, failure: Failure::new(from.ip().to_string(), what, remedy) }))
    }
}

/// What may be asked, the likeliest first.
fn asked(now: &Imagination<'_>, key: ServiceKey, question: &Question) -> Result<Vec<Asked>> {
    let to = question.to.as_deref().map(destination).transpose()?;
    let plain = |(protocol, to)| Asked { protocol, to, mark: 0, interface: None };
    match key {
        ServiceKey::Address { protocol, address, port } => {
            let own = |port| (protocol, SocketAddr::new(address, port));
            match to {
                None if port != 0 => Ok(vec![plain(own(port))]),
                None => Ok(vec![plain(own(port_without_a_service(now, protocol, address)?))]),
                Some(to) if to == own(port) || (port == 0 && to == own(to.1.port())) => Ok(vec![plain(to)]),
                Some((protocol, to)) => {
                    let what = format!("is not {key}'s: {} {to} is asked there", protocol.name());
                    Err(invalid("--to", what, "leave it out, or name an address and port of the service"))
                }
            }
        }
        ServiceKey::Mark { mark, ipv6 } => match to {
            // Marked by the director's rules, or else by netfilter.
            Some(to) => {
                let led = mark_device(now)?.map(|name| Asked { mark: mark.get(), interface: Some(name), ..plain(to) });
                Ok(std::iter::once(plain(to)).chain(led).collect())
            }
            None => by_rules(now, mark.get(), ipv6),
        },
    }
}

/// `tcp:192.0.2.10:80`.
fn destination(text: &str) -> Result<(Protocol, SocketAddr)> {
    match ServiceKey::parse(text) {
        Some(ServiceKey::Address { protocol, address, port }) if port != 0 => {
            Ok((protocol, SocketAddr::new(address, port)))
        }
        _ => Err(invalid("--to", format!("{text} is no destination"), "write it like tcp:192.0.2.10:80")),
    }
}

/// Of a service of all ports: one that no other service has.
fn port_without_a_service(now: &Imagination<'_>, protocol: Protocol, address: IpAddr) -> Result<u16> {
    for port in ASKED_PORT..=u16::MAX {
        if now.store.place(&Spot { address, port, protocol: protocol.number(), mark: false })?.is_none() {
            return Ok(port);
        }
    }
    Err(Failure::new(address.to_string(), "each of its ports has a service of its own", "name one of those services"))
}

/// The device that netfilter's marks lead packets to.
fn mark_device(now: &Imagination<'_>) -> Result<Option<String>> {
    let links = now.store.links()?;
    let device = links.into_iter().find(|(_, link)| link.flags & link_flag::MARKED != 0).map(|(index, _)| index);
    Ok(device.and_then(|index| now.host.links.get(&index)).map(|link| link.name.clone()))
}

/// Packets that the director's mark rules speak of, first those of rules that set this very mark.
fn by_rules(now: &Imagination<'_>, mark: u32, ipv6: bool) -> Result<Vec<Asked>> {
    let word = now.store.settings()?.mark_rules;
    let mut rules = now.store.mark_rules(word >> 16, word & 0xffff)?;
    rules.sort_by_key(|rule| rule.value != mark);
    let link = |index: u32| now.host.links.get(&index).map(|link| link.name.clone());
    Ok(rules.iter().flat_map(|rule| of_rule(rule, ipv6, &link)).collect())
}

/// Packets that a rule takes; none if it says only which it does not take, or no address.
fn of_rule(rule: &MarkRule, ipv6: bool, link: &dyn Fn(u32) -> Option<String>) -> Vec<Asked> {
    let not = |bit| rule.flags & bit != 0;
    if not(mark_flag::V6) != ipv6 || not(mark_flag::NOT_DEST) || rule.dest_mask == [0; 8] {
        return Vec::new();
    }
    let to = address(&rule.dest, ipv6);
    let [first, last] = rule.dports;
    let port = match (first..=last).contains(&ASKED_PORT) {
        inside if inside != not(mark_flag::NOT_DPORT) => ASKED_PORT,
        false => first.max(1),
        true => last.saturating_add(1),
    };
    let given = u8::try_from(rule.protocol).ok().and_then(Protocol::of_number);
    let protocols = Protocol::ALL
        .into_iter()
        .filter(|protocol| rule.protocol == 0 || (given == Some(*protocol)) != not(mark_flag::NOT_PROTOCOL));
    let interface = if rule.ifindex == 0 || not(mark_flag::NOT_LINK) { None } else { link(rule.ifindex) };
    protocols
        .map(|protocol| Asked { protocol, to: SocketAddr::new(to, port), mark: 0, interface: interface.clone() })
        .collect()
}

/// The client that is named, or examples: first those that a router leads to, which are those of most services.
fn clients(
    now: &mut Imagination<'_>,
    v6: bool,
    service: &Service,
    named: Option<&str>,
) -> Result<Vec<(IpAddr, Option<u16>)>> {
    if let Some(text) = named {
        let whole: Option<SocketAddr> = text.parse().ok();
        let found = whole.map(|at| (at.ip(), Some(at.port()))).or_else(|| text.parse().ok().map(|ip| (ip, None)));
        let Some(found) = found else {
            return Err(invalid("--client", format!("{text} is no address"), "write it like 198.51.100.7"));
        };
        if found.0.is_ipv6() != v6 {
            let family = if v6 { "IPv6" } else { "IPv4" };
            let what = format!("{} is not of the family of {}", found.0, service.name());
            return Err(invalid("--client", what, &format!("name an address of {family}")));
        }
        return Ok(vec![found]);
    }
    let allowed = service.allow.iter().filter_map(|prefix| Prefix::parse(prefix)).map(|prefix| second(&prefix));
    let (mut far, mut near) = (Vec::new(), Vec::new());
    for ip in EXAMPLES.into_iter().chain(allowed).filter(|ip| ip.is_ipv6() == v6) {
        let way = now.way(ip)?;
        match way.neighbour {
            Some(neighbour) if neighbour != ip => far.push((ip, None)),
            Some(_) => near.push((ip, None)),
            None => {}
        }
    }
    far.append(&mut near);
    if far.is_empty() {
        let what = "no route leads to any client that could be an example";
        return Err(Failure::new(service.name(), what, "name a client: --client ADDR"));
    }
    Ok(far)
}

/// An address of a prefix: the one after the first, which often is the network's.
fn second(prefix: &Prefix) -> IpAddr {
    match prefix.address() {
        IpAddr::V4(ip) if prefix.length() < 32 => Ipv4Addr::from_bits(ip.to_bits() | 1).into(),
        IpAddr::V6(ip) if prefix.length() < 128 => Ipv6Addr::from_bits(ip.to_bits() | 1).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_datapath::control::words;

    #[test]
    fn a_rule_says_what_may_be_asked() {
        let link = |index: u32| Some(format!("eth{index}"));
        let dest = |ip: &str| words(ip.parse().unwrap());
        let rule = MarkRule {
            dest: dest("192.0.2.192"),
            dest_mask: dest("255.255.255.192"),
            dports: [8000, 8100],
            protocol: 6,
            ifindex: 2,
            ..MarkRule::default()
        };
        let asked = of_rule(&rule, false, &link);
        let to = "192.0.2.192:8000".parse().unwrap();
        assert_eq!(asked, [Asked { protocol: Protocol::Tcp, to, mark: 0, interface: Some("eth2".into()) }]);
        let ports = |dports, flags| {
            let rule = MarkRule { dports, flags, ifindex: 0, ..rule };
            of_rule(&rule, false, &link).iter().map(|asked| asked.to.port()).collect::<Vec<_>>()
        };
        assert_eq!(ports([0, u16::MAX], 0), [80]);
        assert_eq!(ports([0, 79], mark_flag::NOT_DPORT), [80]);
        assert_eq!(ports([0, 99], mark_flag::NOT_DPORT), [100]);
        assert_eq!(ports([0, 7], 0), [1]);
        let none = [
            MarkRule { flags: mark_flag::V6, ..rule },
            MarkRule { flags: mark_flag::NOT_DEST, ..rule },
            MarkRule { dest_mask: [0; 8], ..rule },
        ];
        assert!(none.iter().all(|rule| of_rule(rule, false, &link).is_empty()));
        let not_tcp = of_rule(&MarkRule { flags: mark_flag::NOT_PROTOCOL, ..rule }, false, &link);
        assert_eq!(not_tcp.iter().map(|asked| asked.protocol).collect::<Vec<_>>(), [Protocol::Udp, Protocol::Sctp]);
    }

    #[test]
    fn destinations_are_written_like_services() {
        assert_eq!(destination("udp:[2001:db8::10]:53").unwrap().1.port(), 53);
        for wrong in ["192.0.2.10:80", "tcp:192.0.2.10:0", "fwmark:7", "tcp:x"] {
            assert_eq!(destination(wrong).unwrap_err().code, code::INVALID, "{wrong}");
        }
    }

    #[test]
    fn allowed_clients_are_in_their_prefix() {
        for (prefix, ip) in [("10.9.0.0/16", "10.9.0.1"), ("10.9.0.4/32", "10.9.0.4"), ("fd00:9::/32", "fd00:9::1")] {
            assert_eq!(second(&Prefix::parse(prefix).unwrap()).to_string(), ip);
        }
    }
}
