//! From one Model to another: table operations in order.
//!
//! After every prefix of a Plan each new connection goes to a server of the
//! old or the new Model: what is new is added before what is old is removed,
//! and a service that both have keeps a server throughout (a service that is
//! only in one has no servers for a moment).

#[cfg(test)]
mod tests;

use crate::error::IpvsError;
use crate::failover::Failover;
use crate::mark::MarkRule;
use crate::model::{Model, Server, Service, ServiceKey};
use crate::settings::Settings;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;

/// One table operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Replaces the settings.
    SetSettings(Box<Settings>),
    /// Replaces the mark rules, all at once.
    SetMarks(Vec<MarkRule>),
    /// Replaces failover: virtual routers, what they track, and synchronisation.
    SetFailover(Box<Failover>),
    /// Adds a service, which has no servers yet.
    AddService(Service),
    /// Replaces all of a service but its servers (none are in it).
    EditService(Service),
    /// Removes a service and its servers.
    RemoveService(ServiceKey),
    /// Adds a server, which becomes the newest of its service.
    AddServer {
        /// The service.
        service: ServiceKey,
        /// The server.
        server: Server,
    },
    /// Replaces method, weight and thresholds of a server; it keeps its place.
    EditServer {
        /// The service.
        service: ServiceKey,
        /// The server as it shall be.
        server: Server,
    },
    /// Removes a server.
    RemoveServer {
        /// The service.
        service: ServiceKey,
        /// Address of the server.
        address: IpAddr,
        /// Port of the server.
        port: u16,
    },
}

impl Op {
    /// Does it to a Model.
    pub fn apply(&self, model: &mut Model) -> Result<(), IpvsError> {
        match self {
            Self::SetSettings(settings) => model.set_settings((**settings).clone()),
            Self::SetMarks(marks) => model.set_marks(marks.clone()),
            Self::SetFailover(failover) => model.set_failover((**failover).clone()),
            Self::AddService(service) => model.add_service(service.clone()),
            Self::EditService(service) => model.edit_service(service),
            Self::RemoveService(key) => model.remove_service(key),
            Self::AddServer { service, server } => model.add_server(service, server.clone()),
            Self::EditServer { service, server } => model.edit_server(service, server.clone()),
            Self::RemoveServer { service, address, port } => model.remove_server(service, *address, *port),
        }
    }

    /// The service that it is about.
    pub fn service(&self) -> Option<ServiceKey> {
        match self {
            Self::SetSettings(_) | Self::SetMarks(_) | Self::SetFailover(_) => None,
            Self::AddService(service) | Self::EditService(service) => Some(service.key),
            Self::RemoveService(key) => Some(*key),
            Self::AddServer { service, .. } | Self::EditServer { service, .. } | Self::RemoveServer { service, .. } => {
                Some(*service)
            }
        }
    }

    /// Whether `next` does the same to another server of the service, or adds a server to the one
    /// that this adds: both can be seen at once, and a list of thousands is written once.
    pub fn is_continued_by(&self, next: &Self) -> bool {
        let alike = match next {
            Self::AddServer { .. } => matches!(self, Self::AddService(_) | Self::AddServer { .. }),
            Self::EditServer { .. } => matches!(self, Self::EditServer { .. }),
            Self::RemoveServer { .. } => matches!(self, Self::RemoveServer { .. }),
            _ => false,
        };
        alike && self.service() == next.service()
    }

    /// What takes it back, given the Model just before it: several operations
    /// where one is not enough to restore servers and their order. Empty if the
    /// operation would have been refused.
    pub fn undo(&self, before: &Model) -> Plan {
        let mut after = before.clone();
        match self.apply(&mut after) {
            Ok(()) => Plan::between(&after, before),
            Err(_) => Plan::default(),
        }
    }
}

/// Operations in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations.
    pub ops: Vec<Op>,
}

impl Plan {
    /// What makes `new` of `old`. To take back a Plan that failed half-way:
    /// `between` the Model that was reached and the one before.
    pub fn between(old: &Model, new: &Model) -> Self {
        let mut ops = Vec::new();
        if old.settings() != new.settings() {
            ops.push(Op::SetSettings(Box::new(new.settings().clone())));
        }
        for service in new.services() {
            match old.service(&service.key) {
                Some(was) => ops.append(&mut Self::within(was, service).ops),
                None => {
                    ops.push(Op::AddService(service.without_servers()));
                    ops.extend(
                        service.servers.iter().map(|s| Op::AddServer { service: service.key, server: s.clone() }),
                    );
                }
            }
        }
        // When all that is marked by new rules has its service, and before the old ones' goes.
        if old.marks() != new.marks() {
            ops.push(Op::SetMarks(new.marks().to_vec()));
        }
        // A master gets addresses when their services are there, and loses them before.
        if old.failover() != new.failover() {
            ops.push(Op::SetFailover(Box::new(new.failover().clone())));
        }
        let gone = old.services().iter().filter(|s| new.service(&s.key).is_none());
        ops.extend(gone.map(|s| Op::RemoveService(s.key)));
        Self { ops }
    }

    /// What makes `new` of `old`, which have the same key.
    pub fn within(old: &Service, new: &Service) -> Self {
        let mut ops = Vec::new();
        let bare = new.without_servers();
        if old.without_servers() != bare {
            ops.push(Op::EditService(bare));
        }
        servers(old, new, &mut ops);
        Self { ops }
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Does all of it, or as much as `Model` accepts.
    pub fn apply(&self, model: &mut Model) -> Result<(), IpvsError> {
        self.ops.iter().try_for_each(|op| op.apply(model))
    }
}

/// Servers of a service that stays. A server can only be added at the end, so
/// the longest beginning of the new list that is in order in the old one stays
/// where it is; all the rest is added, in order, after being removed if it was
/// there. Servers that begin to take connections come first, those that cease
/// to last.
fn servers(old: &Service, new: &Service, ops: &mut Vec<Op>) {
    let service = new.key;
    let places: HashMap<_, _> = old.servers.iter().enumerate().map(|(at, s)| (s.identity(), at)).collect();
    let mut last = None;
    let kept = new.servers.iter().try_fold(0, |kept, s| match places.get(&s.identity()) {
        Some(at) if last.is_none_or(|last| *at > last) => {
            last = Some(*at);
            ControlFlow::Continue(kept + 1)
        }
        _ => ControlFlow::Break(kept),
    });
    let (ControlFlow::Continue(kept) | ControlFlow::Break(kept)) = kept;
    let (stay, rest) = new.servers.split_at_checked(kept).unwrap_or((&[], &new.servers));

    let (quiesced, edited): (Vec<_>, Vec<_>) = stay
        .iter()
        .filter(|s| places.get(&s.identity()).and_then(|at| old.servers.get(*at)) != Some(s))
        .map(|s| Op::EditServer { service, server: s.clone() })
        .partition(|op| matches!(op, Op::EditServer { server, .. } if !server.takes()));
    ops.extend(edited);
    for server in rest {
        let (address, port) = server.identity();
        if places.contains_key(&(address, port)) {
            ops.push(Op::RemoveServer { service, address, port });
        }
        ops.push(Op::AddServer { service, server: server.clone() });
    }
    ops.extend(quiesced);
    let there: HashSet<_> = new.servers.iter().map(Server::identity).collect();
    let gone = old.servers.iter().filter(|s| !there.contains(&s.identity()));
    ops.extend(gone.map(|s| Op::RemoveServer { service, address: s.address, port: s.port }));
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSettings(settings) => write!(f, "set {}", describe_settings(settings)),
            Self::SetMarks(marks) if marks.is_empty() => f.write_str("remove all mark rules"),
            Self::SetMarks(marks) => {
                f.write_str("set the mark rules to")?;
                marks.iter().try_for_each(|rule| write!(f, "\n  {rule}"))
            }
            Self::SetFailover(failover) => f.write_str(&describe_failover(failover)),
            Self::AddService(s) => write!(f, "add service {}", describe_service(s)),
            Self::EditService(s) => write!(f, "edit service {}", describe_service(s)),
            Self::RemoveService(key) => write!(f, "remove service {key}"),
            Self::AddServer { service, server } => write!(f, "add server {} to {service}", describe_server(server)),
            Self::EditServer { service, server } => write!(f, "edit server {} of {service}", describe_server(server)),
            Self::RemoveServer { service, address, port } => {
                write!(f, "remove server {} from {service}", crate::model::join(*address, *port))
            }
        }
    }
}

/// What of them is not at its default.
fn describe_settings(s: &Settings) -> String {
    let d = Settings::default();
    let mut out = Vec::new();
    let mut note = |differs: bool, name: &str, value: String| {
        if differs {
            out.push(format!("{name} {value}"));
        }
    };
    note(s.instance != d.instance, "instance", s.instance.clone());
    note(
        s.interfaces != d.interfaces,
        "interfaces",
        s.interfaces.iter().flatten().cloned().collect::<Vec<_>>().join(","),
    );
    note(s.mode != d.mode, "mode", s.mode.name().into());
    note(s.vip_default != d.vip_default, "vip_default", s.vip_default.name().into());
    note(s.mark_device != d.mark_device, "mark_device", s.mark_device.clone().unwrap_or_default());
    note(s.connections != d.connections, "connections", s.connections.unwrap_or_default().to_string());
    for ((name, is), (_, default)) in s.rooms().into_iter().zip(d.rooms()) {
        note(is != default, name, is.unwrap_or_default().to_string());
    }
    for ((name, is), (_, default)) in s.switches().into_iter().zip(d.switches()) {
        note(is != default, name, is.to_string());
    }
    for ((name, is, _), (_, default, _)) in s.numbers().zip(d.numbers()) {
        note(is != default, name, is.to_string());
    }
    for ((name, is), (_, default)) in s.timeouts.by_key().zip(d.timeouts.by_key()) {
        note(is != default, name, format!("{is:?}"));
    }
    let (e, de) = (s.errors, d.errors);
    note(e.rate != de.rate, "rate", e.rate.to_string());
    note(e.burst != de.burst, "burst", e.burst.to_string());
    note(e.destination_rate != de.destination_rate, "destination_rate", e.destination_rate.to_string());
    note(e.destination_burst != de.destination_burst, "destination_burst", e.destination_burst.to_string());
    note(s.socket != d.socket, "socket", s.socket_path());
    note(s.group != d.group, "group", s.group.clone().unwrap_or_default());
    note(s.api != d.api, "api", s.api.as_ref().map_or_else(String::new, |api| api.listen.to_string()));
    let listen = s.metrics.listen.map_or_else(|| "nowhere".to_owned(), |listen| listen.to_string());
    note(s.metrics.listen != d.metrics.listen, "metrics.listen", listen);
    note(s.metrics.ipvs_names != d.metrics.ipvs_names, "metrics.ipvs_names", s.metrics.ipvs_names.to_string());
    let page = |page: &crate::Page| match (page.listen, page.operate) {
        (Some(listen), false) => listen.to_string(),
        (Some(listen), true) => format!("{listen}, for operators too"),
        (None, false) => "by TLS only".to_owned(),
        (None, true) => "by TLS only, for operators too".to_owned(),
    };
    note(s.page != d.page, "page", s.page.as_ref().map_or_else(String::new, page));
    note(s.operators != d.operators, "operators", s.operators.clone().unwrap_or_default());
    if out.is_empty() { "all settings to their defaults".into() } else { out.join(", ") }
}

/// One line for each virtual router and group, and for what is there besides.
fn describe_failover(failover: &Failover) -> String {
    use crate::file::duration::format as time;
    if failover.is_empty() {
        return "remove failover: no virtual routers, no synchronisation".into();
    }
    let mut out = "set failover to".to_owned();
    let mut line = |text: String| out += &format!("\n  {text}");
    for r in &failover.routers {
        let of = r.interface.as_ref().map_or_else(String::new, |name| format!(" on {name}"));
        let addresses: Vec<_> = r.all_addresses().map(|a| a.address.to_string()).collect();
        let mut text = format!(
            "virtual router {} vrid {}{of} version {} priority {} begins as {} advert {} addresses {}",
            r.name,
            r.vrid,
            r.version.number(),
            r.priority,
            r.state.name(),
            time(r.interval),
            if addresses.is_empty() { "none".into() } else { addresses.join(",") },
        );
        if !r.preempt {
            text += " nopreempt";
        }
        if !r.peers.is_empty() {
            let peers: Vec<_> = r.peers.iter().map(|p| p.address.to_string()).collect();
            text += &format!(" peers {}", peers.join(","));
        }
        if r.authentication.is_some() {
            text += " authenticated";
        }
        if r.virtual_mac.is_some() {
            text += " virtual MAC";
        }
        for (key, list, _) in r.track.lists().into_iter().filter(|(_, list, _)| !list.is_empty()) {
            let names: Vec<_> = list.iter().map(|one| one.name.as_str()).collect();
            text += &format!(" tracks {key} {}", names.join(","));
        }
        line(text);
    }
    for group in &failover.groups {
        line(format!("router group {} of {}", group.name, group.members.join(",")));
    }
    let counts = [
        ("scripts", failover.scripts.len()),
        ("files", failover.files.len()),
        ("processes", failover.processes.len()),
        ("BFD sessions", failover.bfd.len()),
        ("interface delays", failover.interface_delays.len()),
        ("FIFOs", failover.fifos.len()),
    ];
    let counts: Vec<_> = counts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what} {n}")).collect();
    if !counts.is_empty() {
        line(counts.join(", "));
    }
    if let Some(mail) = &failover.mail {
        line(format!("mail by {} to {}", mail.server, mail.to.join(",")));
    }
    if let Some(sync) = &failover.sync {
        let role = || sync.role.name().to_owned();
        let router = failover.synchronised().and(sync.router.as_ref());
        let by = router.map_or_else(role, |name| format!("by router {name}"));
        let on = sync.interface.as_ref().map_or_else(String::new, |name| format!(" on {name}"));
        let signed = if sync.key.is_some() { " signed" } else { "" };
        line(format!("synchronisation {by}{on} id {} port {}{signed}", sync.id, sync.port));
    }
    let d = Failover::default();
    let times = [("startup_delay", failover.startup_delay), ("boot_delay", failover.boot_delay)];
    times.iter().filter(|(_, t)| !t.is_zero()).for_each(|(key, t)| line(format!("{key} {}", time(*t))));
    if failover.log_unknown_vrids != d.log_unknown_vrids {
        line("log_unknown_vrids true".into());
    }
    out
}

fn describe_service(s: &Service) -> String {
    let mut out = format!("{} scheduler {}", s.key, s.scheduler);
    let flags = s.scheduler_flags.names(s.scheduler);
    if !flags.is_empty() {
        out += &format!(" ({})", flags.join(","));
    }
    if let Some(size) = s.table_size {
        out += &format!(" table of {size}");
    }
    if s.one_packet {
        out += " one-packet";
    }
    if let Some(p) = &s.persistence {
        out += &format!(" persistent {}s mask {}", p.timeout_s, p.mask);
    }
    if s.stateless {
        out += " stateless";
    }
    if s.quic {
        out += " quic";
    }
    if let Some(time) = s.slow_start {
        out += &format!(" slow start {}", crate::file::duration::format(time));
    }
    for (word, prefixes) in [("allow", &s.sources.allow), ("deny", &s.sources.deny)] {
        if !prefixes.is_empty() {
            let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
            out += &format!(" {word} {}", prefixes.join(","));
        }
    }
    if s.vip == crate::model::VipPolicy::Manage {
        out += " vip managed";
    }
    if s.health != crate::health::ServiceHealth::default() {
        out += &format!(" quorum {}", s.health.quorum);
        if let Some(sorry) = &s.health.sorry {
            out += &format!(" sorry server {}", crate::model::join(sorry.address, sorry.port));
        }
    }
    out
}

fn describe_server(s: &Server) -> String {
    let mut out = format!("{} method {} weight {}", s.name(), s.method.name(), s.weight);
    if let crate::model::Method::Tun(t) = s.method {
        out += &format!(" ({}", t.kind.name());
        if let crate::model::TunnelKind::Gue { port } = t.kind {
            out += &format!(" port {port}");
        }
        out += &format!(", checksum {})", t.checksum.name());
    }
    if s.upper != 0 {
        out += &format!(" upper {} lower {}", s.upper, s.lower);
    }
    if let Some(id) = s.server_id {
        out += &format!(" server_id {id}");
    }
    if !s.health.checks.is_empty() {
        let names: Vec<_> = s.health.checks.iter().map(|c| c.probe.name()).collect();
        out += &format!(" checks {}", names.join(", "));
    }
    if s.draining {
        out += " draining";
    }
    out
}
