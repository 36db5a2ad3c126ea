//! The invariants of a Model, and what this version does not do.

use crate::error::Violation;
use crate::failover::Failover;
use crate::mark::{MAX_MARK_RULES, MarkRule};
use crate::model::{
    MAX_PERSISTENCE_S, MAX_SLOW_START, MAX_SOURCES, MAX_WEIGHT, Method, Netmask, Persistence, Protocol, Scheduler,
    Server, Service, ServiceKey, Sources, Tunnel, TunnelChecksum, TunnelKind, VipPolicy,
};
use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

/// What is wrong with a service and its servers.
pub fn service(service: &Service) -> Vec<Violation> {
    let mut out = options(service);
    out.extend(service.health.faults().into_iter().map(Violation::Health));
    out.extend(sorry(service));
    let mut seen = HashSet::new();
    for s in &service.servers {
        out.extend(numbers(s));
        out.extend(server(service, s));
        out.extend(health(s));
        if !seen.insert(s.identity()) {
            out.push(duplicate(&service.key, s));
        }
    }
    out
}

pub fn duplicate(service: &ServiceKey, server: &Server) -> Violation {
    Violation::DuplicateServer { service: *service, server: server.name() }
}

/// What is wrong with a service apart from its servers.
pub fn options(service: &Service) -> Vec<Violation> {
    let mut out = Vec::new();
    match service.key {
        ServiceKey::Address { protocol, port, .. } => {
            if port == 0 && service.persistence.is_none() {
                out.push(Violation::PortZero(service.key));
            }
            if service.one_packet && protocol != Protocol::Udp {
                out.push(Violation::OnePacketNotUdp(service.key));
            }
        }
        ServiceKey::Mark { .. } => {
            if service.vip == VipPolicy::Manage {
                out.push(Violation::NoAddress(service.key));
            }
        }
    }
    if let Some(p) = &service.persistence {
        out.extend(persistence(p, service.key.is_ipv6()));
    }
    if service.stateless {
        out.extend(stateless(service));
    }
    if service.quic {
        out.extend(quic(service));
    }
    out.extend(service.table_size.and_then(|size| table_size(service, size)));
    if let Some(time) = service.slow_start {
        out.extend(slow_start(service));
        if !(Duration::from_secs(1)..=MAX_SLOW_START).contains(&time) {
            out.push(Violation::SlowStartTime(time));
        }
    }
    out.extend(sources(service));
    out
}

/// What is wrong with the clients' prefixes.
fn sources(service: &Service) -> Vec<Violation> {
    let Sources { allow, deny } = &service.sources;
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    for (key, prefix) in allow.iter().map(|p| ("allow", p)).chain(deny.iter().map(|p| ("deny", p))) {
        if prefix.address().is_ipv6() != service.key.is_ipv6() {
            out.push(Violation::SourceFamily { key, prefix: prefix.to_string() });
        }
        if !seen.insert(prefix) {
            out.push(Violation::SourceTwice { key, prefix: prefix.to_string() });
        }
    }
    if seen.len() > MAX_SOURCES {
        out.push(Violation::TooManySources(seen.len()));
    }
    out
}

/// What keeps connections that nobody knows from finding their servers.
fn stateless(service: &Service) -> Option<Violation> {
    let why = if !service.scheduler.hashes() {
        format!("scheduler {} does not choose by a hash alone", service.scheduler)
    } else if service.persistence.is_some() {
        "persistence is itself a state that a director loses".into()
    } else if service.key.protocol() == Some(Protocol::Udp) {
        "any packet of UDP opens a connection anyway".into()
    } else {
        return None;
    };
    Some(Violation::Stateless { service: service.key, why })
}

/// What keeps a scheduler's table from having so many slots.
fn table_size(service: &Service, size: u32) -> Option<Violation> {
    let sizes = service.scheduler.table().map_or(&[] as &[_], |table| table.sizes);
    let scheduler = service.scheduler.name();
    (sizes.len() < 2 || !sizes.contains(&size)).then_some(Violation::TableSize { scheduler, size, sizes })
}

/// What does not go together with QUIC.
fn quic(service: &Service) -> Option<Violation> {
    let why = if service.key.protocol() != Some(Protocol::Udp) {
        "it is not UDP"
    } else if service.persistence.is_some() {
        "persistence would send a client that moved by its new address"
    } else if service.one_packet {
        "one-packet scheduling knows no connections"
    } else {
        return None;
    };
    Some(Violation::Quic { service: service.key, why })
}

/// What keeps a weight that climbs from letting connections climb with it.
fn slow_start(service: &Service) -> Option<Violation> {
    let why = match service.scheduler {
        Scheduler::Wrr | Scheduler::Wlc | Scheduler::Sed | Scheduler::Nq | Scheduler::Twos => return None,
        hashes if hashes.hashes() => "each step of a weight would send clients of other servers elsewhere",
        Scheduler::Rr | Scheduler::Lc => "it does not look at weights",
        _ => "to it a weight is a rank or a limit, not a share",
    };
    Some(Violation::SlowStart { service: service.key, scheduler: service.scheduler.name(), why })
}

/// What is wrong with the servers' ids, by the servers' places. Of a whole Model only: a change
/// from one to another may pass through a state in which two servers share an id.
pub fn ids(service: &Service) -> impl Iterator<Item = (usize, Violation)> + '_ {
    let mut seen = HashSet::new();
    service.servers.iter().enumerate().filter_map(move |(at, s)| {
        if !service.quic {
            return s.server_id.map(|_| (at, Violation::ServerIdWithoutQuic));
        }
        let violation = Violation::SharedServerId { server: s.name(), id: s.quic_id() };
        (!seen.insert(s.quic_id())).then_some((at, violation))
    })
}

fn persistence(p: &Persistence, ipv6: bool) -> Vec<Violation> {
    let mut out = Vec::new();
    if !(1..=MAX_PERSISTENCE_S).contains(&p.timeout_s) {
        out.push(Violation::PersistenceTime(p.timeout_s));
    }
    let fits = match p.mask {
        Netmask::V4(_) => !ipv6,
        Netmask::V6(length) => ipv6 && (1..=128).contains(&length),
    };
    if !fits {
        out.push(Violation::PersistenceMask(p.mask.to_string()));
    }
    out
}

/// What is wrong with a server's checks.
pub fn health(server: &Server) -> Vec<Violation> {
    server.health.faults().into_iter().map(Violation::Health).collect()
}

/// What is wrong with the sorry server: it must fit the service as any other.
pub fn sorry(service: &Service) -> Vec<Violation> {
    let sorry = service.health.sorry.as_ref();
    let sorry = sorry.map(|s| server(service, &Server::new(s.address, s.port, s.method)));
    sorry.unwrap_or_default()
}

/// The numbers of a server.
pub fn numbers(server: &Server) -> Vec<Violation> {
    let mut out = Vec::new();
    if server.weight > MAX_WEIGHT {
        out.push(Violation::Weight(server.weight));
    }
    if server.lower > server.upper {
        out.push(Violation::Thresholds { upper: server.upper, lower: server.lower });
    }
    out
}

/// What is wrong with a server in this service, numbers and duplicates apart.
pub fn server(service: &Service, server: &Server) -> Vec<Violation> {
    let mut out = Vec::new();
    if !unicast(server.address) {
        out.push(Violation::NotUnicast(server.address));
    }
    if service.key.port() == 0 && server.health.checks.iter().any(|check| check.target.real_path) {
        let what = format!("a check of {} goes the real path, and {} has no port to go to", server.name(), service.key);
        let remedy = "remove real_path, and give the check the server's port";
        out.push(Violation::Health(("real_path", what, remedy)));
    }
    let tunnel = matches!(server.method, Method::Tun(_));
    if server.address.is_ipv6() != service.key.is_ipv6() && !tunnel {
        out.push(Violation::FamilyMismatch(server.address));
    }
    // A mark has no port that a server's could differ from.
    if let ServiceKey::Address { port, .. } = service.key
        && server.method != Method::Nat
        && server.port != port
    {
        out.push(Violation::MethodKeepsPort { method: server.method.name(), server: server.port, service: port });
    }
    if let Method::Tun(Tunnel { kind, checksum }) = server.method {
        if kind == (TunnelKind::Gue { port: 0 }) {
            out.push(Violation::GueWithoutPort);
        }
        let fits = match kind {
            TunnelKind::Ipip => checksum == TunnelChecksum::None,
            TunnelKind::Gre => checksum != TunnelChecksum::Remote,
            TunnelKind::Gue { .. } => true,
        };
        if !fits {
            out.push(Violation::TunnelChecksum { tunnel: kind.name(), checksum: checksum.name() });
        }
    }
    out
}

/// Whether the kernel would take it for a server: unicast, and for IPv6 not
/// link-local. Loopback is allowed: the director may be a server itself.
pub fn unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, ..] = a.octets();
            first != 0 && !a.is_multicast() && !a.is_broadcast()
        }
        IpAddr::V6(a) => {
            !a.is_unspecified() && !a.is_multicast() && !a.is_unicast_link_local() && a.to_ipv4_mapped().is_none()
        }
    }
}

/// What is wrong with failover.
pub fn failover(failover: &Failover) -> Vec<Violation> {
    let named = |(part, fault)| Violation::Failover { part: failover.part_name(part), fault };
    failover.faults().into_iter().map(named).collect()
}

/// Which virtual addresses are held by the daemon and by a virtual router.
pub fn held_twice(failover: &Failover, services: &[Service]) -> Vec<Violation> {
    let named = |(service, router): (&Service, &crate::failover::VirtualRouter)| Violation::HeldTwice {
        service: service.key,
        router: router.name.clone(),
    };
    failover.held_twice(services).map(named).collect()
}

/// What is wrong with mark rules.
pub fn marks(rules: &[MarkRule]) -> Vec<Violation> {
    let too_many = (rules.len() > MAX_MARK_RULES).then_some(Violation::TooManyMarks(rules.len()));
    too_many.into_iter().chain(rules.iter().flat_map(MarkRule::violations)).collect()
}
