//! Virtual servers, their groups and their real servers.

use super::checkers::{self, Defaults};
use super::keywords::{SERVER_KNOWN, SERVICE_KNOWN};
use super::syntax::Node;
use super::values::{address, boolean, endpoint, integer32, method, port_of, script, word};
use super::{Globals, Said, values};
use crate::check;
use crate::health::{OnFailure, ServerHealth, ServiceHealth, Sorry};
use crate::model::{
    DEFAULT_PERSISTENCE_S, MAX_PERSISTENCE_S, MAX_WEIGHT, Method, Netmask, Persistence, Protocol, Scheduler,
    SchedulerFlags, Server, Service, ServiceKey,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

/// Addresses of one group.
const MOST_ADDRESSES: u128 = 65536;

/// What a virtual server is for.
#[derive(Clone, Copy, Debug)]
enum For {
    Address(IpAddr, u16),
    Mark(NonZeroU32, Option<bool>),
}

/// The services of all virtual servers.
pub fn services(nodes: &[Node], globals: &Globals, said: &mut Said) -> Vec<Service> {
    let mut groups: HashMap<&str, Vec<For>> = HashMap::new();
    for node in nodes.iter().filter(|n| n.keyword == "virtual_server_group") {
        let Some(name) = word(node, said) else { continue };
        let mut all = Vec::new();
        for entry in node.inside() {
            all.extend(group_entry(entry, said));
            if all.len() as u128 > MOST_ADDRESSES {
                let what = format!("virtual_server_group {name} has more than {MOST_ADDRESSES} addresses");
                said.fault(&entry.place, what, "use a firewall mark for a prefix");
                all.clear();
                break;
            }
        }
        if groups.insert(name, all).is_some() {
            said.fault(&node.place, format!("virtual_server_group {name} is there twice"), "join the two");
        }
    }
    let mut seen: HashMap<ServiceKey, usize> = HashMap::new();
    let mut out = Vec::new();
    for node in nodes.iter().filter(|n| n.keyword == "virtual_server") {
        for service in virtual_server(node, &groups, globals, said) {
            if let Some(first) = seen.get(&service.key) {
                let what = format!("virtual server {} is there twice, first in line {first}", service.key);
                said.fault(&node.place, what, "join the two, or change the address, port or protocol of one");
                continue;
            }
            let mut violations = check::service(&service);
            if let Some(ip) = service.key.address().filter(|ip| !check::unicast(*ip)) {
                said.fault(&node.place, format!("{ip} cannot be a virtual address"), "use a unicast address");
                continue;
            }
            violations.dedup();
            if violations.is_empty() {
                seen.insert(service.key, node.place.line);
                out.push(service);
            }
            for violation in violations {
                said.fault(&node.place, format!("virtual_server: {violation}"), violation.remedy());
            }
        }
    }
    out
}

fn mark(node: &Node, text: Option<&str>, said: &mut Said) -> Option<NonZeroU32> {
    let found = text.and_then(|text| text.parse().ok());
    if found.is_none() {
        let what = format!("{}: {:?} is no firewall mark", node.keyword, text.unwrap_or_default());
        said.fault(&node.place, what, "use a number from 1 to 4294967295");
    }
    found
}

/// A line of a group: its first word is the node's keyword.
fn group_entry(entry: &Node, said: &mut Said) -> Vec<For> {
    let text = entry.keyword.as_str();
    if text == "fwmark" {
        let family = match entry.value(1) {
            None => None,
            Some("inet") => Some(false),
            Some("inet6") => Some(true),
            Some(other) => {
                said.fault(&entry.place, format!("fwmark has {other:?}"), "use inet, inet6 or nothing");
                return Vec::new();
            }
        };
        return mark(entry, entry.value(0), said).map(|mark| For::Mark(mark, family)).into_iter().collect();
    }
    let port = match entry.value(0) {
        None => 0,
        Some(text) => match port_of(entry, text, said) {
            Some(port) => port,
            None => return Vec::new(),
        },
    };
    let Some((first, last)) = range(text) else {
        let remedy = "write ADDRESS, 192.0.2.1-9, ADDRESS-ADDRESS, ADDRESS/LENGTH or fwmark N, and a port";
        said.fault(&entry.place, format!("{text:?} names no addresses"), remedy);
        return Vec::new();
    };
    let (ipv6, from, to) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (false, u128::from(a.to_bits()), u128::from(b.to_bits())),
        (IpAddr::V6(a), IpAddr::V6(b)) => (true, a.to_bits(), b.to_bits()),
        _ => (false, 1, 0),
    };
    if from > to || to - from >= MOST_ADDRESSES {
        let what = format!("{text:?} is no range, or one of more than {MOST_ADDRESSES} addresses");
        said.fault(&entry.place, what, "write the lower address first, or use a firewall mark for a prefix");
        return Vec::new();
    }
    let address = |bits: u128| match ipv6 {
        true => IpAddr::from(Ipv6Addr::from_bits(bits)),
        false => Ipv4Addr::from_bits(bits as u32).into(),
    };
    (from..=to).map(|bits| For::Address(address(bits), port)).collect()
}

/// First and last address.
fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if let Ok(one) = text.parse() {
        return Some((one, one));
    }
    if let Some((first, length)) = text.split_once('/') {
        let (first, length): (IpAddr, u32) = (first.parse().ok()?, length.parse().ok()?);
        return match first {
            IpAddr::V4(a) => {
                let free = u32::MAX.checked_shr(length).unwrap_or(0);
                (length <= 32 && a.to_bits() & free == 0).then(|| (first, Ipv4Addr::from(a.to_bits() | free).into()))
            }
            IpAddr::V6(a) => {
                let free = u128::MAX.checked_shr(length).unwrap_or(0);
                (length <= 128 && a.to_bits() & free == 0).then(|| (first, Ipv6Addr::from(a.to_bits() | free).into()))
            }
        };
    }
    let (first, last) = text.split_once('-')?;
    let first: IpAddr = first.parse().ok()?;
    let last = match (first, last.parse::<u8>()) {
        (IpAddr::V4(a), Ok(octet)) => Ipv4Addr::from(a.to_bits() & !0xff | u32::from(octet)).into(),
        _ => last.parse().ok()?,
    };
    Some((first, last))
}

fn headers(node: &Node, groups: &HashMap<&str, Vec<For>>, said: &mut Said) -> Vec<For> {
    match node.value(0) {
        Some("group") => {
            let name = node.value(1).unwrap_or_default();
            let found = groups.get(name);
            if found.is_none_or(Vec::is_empty) {
                let what = format!("there is no virtual_server_group {name:?} with addresses");
                said.fault(&node.place, what, "add it, or correct the name");
            }
            found.cloned().unwrap_or_default()
        }
        Some("fwmark") => mark(node, node.value(1), said).map(|mark| For::Mark(mark, None)).into_iter().collect(),
        _ => endpoint(node, 0, said).map(|(ip, port)| For::Address(ip, port.unwrap_or(0))).into_iter().collect(),
    }
}

/// What a virtual server says, but for its servers.
struct Options {
    scheduler: Scheduler,
    flags: SchedulerFlags,
    method: Option<Method>,
    protocol: Option<Protocol>,
    timeout: Option<u32>,
    granularity: Option<String>,
    ops: Option<Node>,
    defaults: Defaults,
    weight: u32,
    ipv6: Option<bool>,
    health: ServiceHealth,
    sorry: Option<(IpAddr, Option<u16>)>,
    sorry_method: Option<Method>,
    sorry_inhibit: bool,
}

fn virtual_server(node: &Node, groups: &HashMap<&str, Vec<For>>, globals: &Globals, said: &mut Said) -> Vec<Service> {
    let headers = headers(node, groups, said);
    let mut s = Options {
        scheduler: Scheduler::Wlc,
        flags: SchedulerFlags::default(),
        method: None,
        protocol: None,
        timeout: None,
        granularity: None,
        ops: None,
        defaults: Defaults::default(),
        weight: 1,
        ipv6: None,
        health: ServiceHealth::default(),
        sorry: None,
        sorry_method: None,
        sorry_inhibit: false,
    };
    // A server has the method in force where its block begins.
    let mut blocks: Vec<(&Node, Option<Method>)> = Vec::new();
    for n in node.inside() {
        if n.keyword == "real_server" {
            blocks.push((n, s.method));
        } else {
            keyword(n, &mut s, globals, said);
        }
    }
    if s.health.hysteresis >= s.health.quorum {
        let most = s.health.quorum - 1;
        said.note(node, format!("hysteresis is not below quorum: it is {most}, as keepalived makes it"));
        s.health.hysteresis = most;
    }
    let usual = s.method.unwrap_or(Method::Nat);
    let servers: Vec<_> = blocks
        .iter()
        .filter_map(|(n, method)| Some((*n, real_server(n, method.unwrap_or(usual), &s, globals, said)?)))
        .collect();
    if servers.is_empty() {
        said.note(node, "it has no real_server, and keepalived leaves it out");
        return Vec::new();
    }
    headers.into_iter().enumerate().map(|(at, what)| service(node, what, &s, usual, &servers, at == 0, said)).collect()
}

type Found<'n> = (&'n Node, (Server, Option<u16>));

/// One of the services of a virtual server; the `first` says what all would.
fn service(
    node: &Node,
    what: For,
    s: &Options,
    usual: Method,
    servers: &[Found],
    first: bool,
    said: &mut Said,
) -> Service {
    let mut quiet = Said::default();
    let said = if first { said } else { &mut quiet };
    let key = match what {
        For::Address(address, port) => {
            ServiceKey::Address { protocol: s.protocol.unwrap_or(Protocol::Udp), address, port }
        }
        For::Mark(mark, family) => {
            let plain = servers.iter().find(|(_, (server, _))| !matches!(server.method, Method::Tun(_)));
            let same = servers.iter().all(|(_, (server, _))| server.address.is_ipv6());
            // What is not tunnelled says it; else the word does, or the servers' own family.
            let of_servers = plain.map(|(_, (server, _))| server.address.is_ipv6());
            ServiceKey::Mark { mark, ipv6: of_servers.or(family).or(s.ipv6).unwrap_or(same) }
        }
    };
    let mut service = Service::new(key);
    service.scheduler = s.scheduler;
    service.scheduler_flags = s.flags;
    service.health = s.health.clone();
    let all_ports = matches!(key, ServiceKey::Address { port: 0, .. });
    if all_ports && s.timeout.is_none() && s.granularity.is_none() {
        said.note(node, "port 0 needs persistence: it is 360 s, as keepalived makes it");
    }
    if s.timeout.is_some() || s.granularity.is_some() || all_ports {
        let mask = s.granularity.as_ref().map(|text| match text.parse() {
            Ok(length) => Netmask::V6(length),
            Err(_) => text.parse().map_or(Netmask::whole(key.is_ipv6()), Netmask::V4),
        });
        let mask = mask.unwrap_or(Netmask::whole(key.is_ipv6()));
        service.persistence = Some(Persistence { timeout_s: s.timeout.unwrap_or(DEFAULT_PERSISTENCE_S), mask });
    }
    if let Some(ops) = &s.ops {
        service.one_packet = key.protocol().is_none_or(|p| p == Protocol::Udp);
        if !service.one_packet {
            said.note(ops, "it is for UDP only, and keepalived ignores it");
        }
    }
    let fit = |port: Option<u16>, method: Method| match (key, method) {
        (ServiceKey::Mark { .. }, Method::Nat) => port.unwrap_or(0),
        (ServiceKey::Mark { .. }, _) => 0,
        (ServiceKey::Address { port: own, .. }, Method::Nat) => port.unwrap_or(own),
        (ServiceKey::Address { port: own, .. }, _) => own,
    };
    service.health.sorry = s.sorry.map(|(address, port)| {
        let method = s.sorry_method.unwrap_or(usual);
        let on_failure = if s.sorry_inhibit { OnFailure::Quiesce } else { OnFailure::Remove };
        Box::new(Sorry { address, port: fit(port, method), method, on_failure })
    });
    for (n, (server, port)) in servers {
        let server = Server { port: fit(*port, server.method), ..server.clone() };
        if port.is_some_and(|port| port != server.port) {
            let what = format!("with {} the port is the service's, as keepalived makes it", server.method.name());
            said.note(n, what);
        }
        if service.server(server.address, server.port).is_some() {
            said.note(n, "the virtual server has it already, and keepalived leaves it out");
        } else {
            service.servers.push(server);
        }
    }
    service
}

fn keyword(n: &Node, s: &mut Options, globals: &Globals, said: &mut Said) {
    let health = &mut s.health;
    match n.keyword.as_str() {
        "lvs_sched" | "lb_algo" => {
            let Some(name) = word(n, said) else { return };
            match Scheduler::from_name(name) {
                Some(found) => s.scheduler = found,
                None => {
                    let names: Vec<_> = Scheduler::ALL.iter().map(|s| s.name()).collect();
                    let remedy = format!("use one of {}", names.join(", "));
                    said.fault(&n.place, format!("there is no scheduler {name:?}"), remedy);
                }
            }
        }
        "lvs_method" | "lb_kind" => s.method = method(n, said).or(s.method),
        "protocol" => {
            let Some(name) = word(n, said) else { return };
            s.protocol = Protocol::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(name));
            if s.protocol.is_none() {
                said.fault(&n.place, format!("protocol is {name:?}"), "use TCP, UDP or SCTP");
            }
        }
        "persistence_timeout" => {
            s.timeout = match n.values.is_empty() {
                true => Some(DEFAULT_PERSISTENCE_S),
                false => integer32(n, 1, MAX_PERSISTENCE_S, said),
            }
        }
        "persistence_granularity" => {
            let Some(text) = word(n, said) else { return };
            let good = text.parse::<Ipv4Addr>().is_ok() || text.parse().is_ok_and(|n: u8| (1..=128).contains(&n));
            if good {
                s.granularity = Some(text.to_owned());
            } else {
                let remedy = "use a netmask like 255.255.255.0, or the length of an IPv6 prefix";
                said.fault(&n.place, format!("persistence_granularity is {text:?}"), remedy);
            }
        }
        "persistence_engine" => {
            let why = "the director has no persistence engine: persistence by address, or the scheduler sh or mh, keeps a \
                       proxy's calls on one server";
            said.note(n, why);
        }
        "ops" => s.ops = Some(n.clone()),
        flag @ ("flag-1" | "flag-2" | "flag-3" | "sh-port" | "sh-fallback" | "mh-port" | "mh-fallback") => {
            if s.flags.set(flag, s.scheduler.name()).is_err() {
                let scheduler = flag.split('-').next().unwrap_or_default();
                let what = format!("{flag} without lvs_sched {scheduler} before it");
                said.fault(&n.place, what, format!("put lvs_sched {scheduler} in front, or remove it"));
            }
        }
        "hashed" => said.note(n, "it means nothing any more"),
        "inhibit_on_failure" => health.on_failure = OnFailure::Quiesce,
        "omega" => health.notify_at_stop = true,
        "quorum" => health.quorum = integer32(n, 1, u32::MAX, said).unwrap_or(health.quorum),
        "hysteresis" => health.hysteresis = integer32(n, 0, u32::MAX, said).unwrap_or(health.hysteresis),
        "quorum_up" => health.quorum_up = script(n, &globals.user, said).map(Box::new),
        "quorum_down" => health.quorum_down = script(n, &globals.user, said).map(Box::new),
        "weight" => s.weight = integer32(n, 1, MAX_WEIGHT, said).unwrap_or(s.weight),
        "ip_family" => match word(n, said) {
            Some("inet") => s.ipv6 = Some(false),
            Some("inet6") => s.ipv6 = Some(true),
            Some(other) => said.fault(&n.place, format!("ip_family is {other:?}"), "use inet or inet6"),
            None => {}
        },
        "ha_suspend" => health.only_with_address = true,
        "smtp_alert" => health.mail = boolean(n, said),
        "snmp_name" => said.note(n, "this version has no SNMP"),
        "sorry_server" => s.sorry = endpoint(n, 0, said),
        "sorry_server_inhibit" => s.sorry_inhibit = true,
        "sorry_server_lvs_method" => s.sorry_method = method(n, said),
        _ => {
            if n.keyword == "log_all_failures" || n.keyword == "nb_get_retry" || !s.defaults.take(n, 1, said) {
                said.unknown(n, "virtual_server", SERVICE_KNOWN);
            }
        }
    }
}

/// A server, and the port it names.
fn real_server(
    node: &Node,
    method: Method,
    s: &Options,
    globals: &Globals,
    said: &mut Said,
) -> Option<(Server, Option<u16>)> {
    let text = word(node, said)?;
    let ip = address(node, text, said);
    let port = match node.value(1) {
        None => Some(None),
        Some(text) => port_of(node, text, said).map(Some),
    };
    let mut server = Server { weight: s.weight, ..Server::new(ip.unwrap_or([127, 0, 0, 1].into()), 0, method) };
    let mut defaults = Defaults::default();
    let mut checkers = Vec::new();
    let mut health = ServerHealth::default();
    for n in node.inside() {
        match n.keyword.as_str() {
            "weight" => server.weight = integer32(n, 0, MAX_WEIGHT, said).unwrap_or(server.weight),
            "lvs_method" => server.method = values::method(n, said).unwrap_or(server.method),
            "uthreshold" => server.upper = integer32(n, 0, u32::MAX, said).unwrap_or(0),
            "lthreshold" => server.lower = integer32(n, 0, u32::MAX, said).unwrap_or(0),
            "inhibit_on_failure" => {
                let quiesce = boolean(n, said);
                health.on_failure = quiesce.map(|q| if q { OnFailure::Quiesce } else { OnFailure::Remove });
            }
            // The first definition wins.
            "notify_up" if health.notify_up.is_some() => said.note(n, "the first one wins"),
            "notify_down" if health.notify_down.is_some() => said.note(n, "the first one wins"),
            "notify_up" => health.notify_up = script(n, &globals.user, said).map(Box::new),
            "notify_down" => health.notify_down = script(n, &globals.user, said).map(Box::new),
            "smtp_alert" => health.mail = boolean(n, said),
            "snmp_name" => said.note(n, "this version has no SNMP"),
            word if word.ends_with("_CHECK") || word.ends_with("_GET") => {
                if SERVER_KNOWN.contains(&word) {
                    checkers.push(n);
                } else {
                    said.unknown(n, "real_server", SERVER_KNOWN);
                }
            }
            "log_all_failures" | "nb_get_retry" => said.unknown(n, "real_server", SERVER_KNOWN),
            _ => {
                if !defaults.take(n, 1, said) {
                    said.unknown(n, "real_server", SERVER_KNOWN);
                }
            }
        }
    }
    if let Some(violation) = check::numbers(&server).first() {
        said.fault(&node.place, format!("real_server: {violation}"), violation.remedy());
        (server.upper, server.lower) = (0, 0);
    }
    let defaults = defaults.or(&s.defaults);
    health.checks = checkers.iter().filter_map(|n| checkers::check(n, &defaults, globals, said)).collect();
    if !health.faults().is_empty() {
        // They have been told of.
        health.checks.clear();
    }
    server.health = health.into();
    ip?;
    Some((server, port?))
}
