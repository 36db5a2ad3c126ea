//! dirigent.toml.

mod failover;
mod health;
pub mod json;
pub mod keys;
mod print;
mod reader;
#[cfg(test)]
mod tests;

use crate::check;
use crate::error::{Diagnostics, Violation};
use crate::health::Sorry;
use crate::mark::{self, MAX_MARK_RULES, MarkRule, Ports, Prefix, Test};
use crate::model::{
    DEFAULT_PERSISTENCE_S, FlagFault, MAX_WEIGHT, Method, Model, Netmask, Persistence, Protocol, Scheduler,
    SchedulerFlags, Server, ServerId, Service, ServiceKey, Sources, Tunnel, TunnelChecksum, TunnelKind, VipPolicy,
};
use crate::settings::{
    Api, Defence, ErrorLimits, MAX_CONNECTIONS, MAX_SERVERS, MAX_SERVICES, MAX_SLOTS, Metrics, Mode, Page,
    SctpTimeouts, Settings, TcpTimeouts, Timeouts, VipDefault,
};
use reader::{Report, Table, kind, one_of};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use toml::de::DeTable;

pub use dirigent_health::duration;
pub use print::{marks_to_toml, to_toml};

/// Version of the format.
pub const VERSION: u64 = 1;

/// The Model that the text describes, or all that is wrong with it. `file` is
/// its name, for the messages.
pub fn parse(file: &str, text: &str) -> Result<Model, Diagnostics> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut report = Report::new(text);
    for error in &errors {
        let at = error.span().map_or(0, |s| s.start);
        report.add(at, format!("not TOML: {}", error.message().trim()), syntax_remedy(error.message()));
    }
    if report.misplaced() {
        return Err(Diagnostics(report.finish(file)));
    }
    let mut reader = Reader { report: report.on_other_lines(), gaps: !errors.is_empty() };
    let root = root.get_ref();
    let model = reader.version(root).and_then(|()| {
        let root = Table::open(keys::ROOT, root, 0, &mut reader.report);
        let settings = reader.settings(&root);
        let marks = reader.marks(&root);
        let (services, managed) = reader.services(&root);
        let failover = failover::read(&root, &services, reader.gaps, &mut reader.report);
        let managed = |key: &ServiceKey| managed.get(key).copied().unwrap_or(0);
        failover::held_twice(&failover, &services, managed, &mut reader.report);
        Model::whole(settings, services, marks, failover)
            .map_err(|violations| {
                // All of them have been reported with their places; if one was not, it is now.
                if reader.report.is_empty() {
                    violations.iter().for_each(|v| reader.report.add(0, v.to_string(), v.remedy()));
                }
            })
            .ok()
    });
    match model {
        Some(model) if reader.report.is_empty() => Ok(model),
        _ => Err(Diagnostics(reader.report.finish(file))),
    }
}

fn syntax_remedy(message: &str) -> &'static str {
    if message.contains("duplicate key") {
        "keep one of the two"
    } else {
        "write KEY = VALUE, text in quotes, one a line"
    }
}

struct Reader<'t> {
    report: Report<'t>,
    /// Parts of the file are not TOML: what is missing may stand there.
    gaps: bool,
}

/// What a service is known by.
struct Named {
    key: ServiceKey,
    /// Its address or mark is known.
    placed: bool,
    /// All of it is known.
    whole: bool,
}

/// What a value of a mark rule must be, and how it is written.
const PREFIX: (&str, &str) = ("address or prefix", "write it like \"192.0.2.0/24\" or \"2001:db8::/32\"");
const PORTS: (&str, &str) = ("port or range of ports", "write it like \"80\" or \"8000-8999\"");

impl Reader<'_> {
    /// Whether the rest of the file can be understood.
    fn version(&mut self, root: &DeTable) -> Option<()> {
        let Some(value) = root.get("version") else {
            if !self.gaps {
                self.report.add(0, "version is missing", "begin the file with version = 1");
            }
            return Some(());
        };
        let at = value.span().start;
        let Some(version) = value.get_ref().as_integer() else {
            let message = format!("version is {}, not an integer", kind(value.get_ref()));
            self.report.add(at, message, "write version = 1");
            return Some(());
        };
        if u64::from_str_radix(version.as_str(), version.radix()) == Ok(VERSION) {
            return Some(());
        }
        self.report.add(at, format!("version {version} is not known"), "write version = 1, or use a newer dirigent");
        None
    }

    fn violation(&mut self, table: &Table, violation: &Violation) {
        self.report.add(table.place(violation.key()), violation.to_string(), violation.remedy());
    }

    fn missing(&mut self, table: &Table, key: &str, example: &str) {
        if self.gaps {
            return;
        }
        self.report.add(table.at, format!("{key} is missing"), format!("add {key} = \"{example}\""));
    }

    fn settings(&mut self, root: &Table) -> Settings {
        let default = Settings::default();
        let Some(t) = root.table("director", keys::DIRECTOR, &mut self.report) else { return default };
        let api_table = t.table("api", keys::API, &mut self.report);
        let api = api_table.as_ref().and_then(|t| self.api(t));
        let metrics_table = t.table("metrics", keys::METRICS, &mut self.report);
        let metrics = metrics_table.as_ref().map_or_else(Metrics::default, |t| self.metrics(t));
        let page_table = t.table("page", keys::PAGE, &mut self.report);
        let page = page_table.as_ref().map(|t| self.page(t));
        let report = &mut self.report;
        let timeouts = t.table("timeouts", keys::TIMEOUTS, report);
        let errors = t.table("errors", keys::ERRORS, report);
        let text = |key, report: &mut _| t.string(key, report).map(|(text, _)| text.to_owned());
        let settings = Settings {
            instance: text("instance", report).unwrap_or(default.instance),
            interfaces: interfaces(&t, report),
            mode: t.choice("mode", &Mode::ALL.map(|m| (m.name(), m)), report).unwrap_or_default(),
            vip_default: t.choice("vip_default", &VipDefault::ALL.map(|v| (v.name(), v)), report).unwrap_or_default(),
            mark_device: text("mark_device", report),
            connections: t.integer("connections", 1, MAX_CONNECTIONS, report),
            services: t.integer32("services", 1, MAX_SERVICES, report),
            servers: t.integer32("servers", 1, MAX_SERVERS, report),
            slots: t.integer32("slots", 1, MAX_SLOTS, report),
            schedule_icmp: t.boolean("schedule_icmp", report).unwrap_or(default.schedule_icmp),
            nat_icmp_send: t.boolean("nat_icmp_send", report).unwrap_or(default.nat_icmp_send),
            snat_reroute: t.boolean("snat_reroute", report).unwrap_or(default.snat_reroute),
            pmtu_disc: t.boolean("pmtu_disc", report).unwrap_or(default.pmtu_disc),
            expire_nodest_conn: t.boolean("expire_nodest_conn", report).unwrap_or(default.expire_nodest_conn),
            expire_quiescent_template: t
                .boolean("expire_quiescent_template", report)
                .unwrap_or(default.expire_quiescent_template),
            sloppy_tcp: t.boolean("sloppy_tcp", report).unwrap_or(default.sloppy_tcp),
            sloppy_sctp: t.boolean("sloppy_sctp", report).unwrap_or(default.sloppy_sctp),
            cache_bypass: t.boolean("cache_bypass", report).unwrap_or(default.cache_bypass),
            conn_reuse_mode: mode(&t, "conn_reuse_mode", default.conn_reuse_mode, report),
            defence: read_defence(&t, report),
            timeouts: timeouts.as_ref().map_or(default.timeouts, |t| read_timeouts(t, report)),
            errors: errors.as_ref().map_or(default.errors, |t| read_limits(t, report)),
            socket: text("socket", report),
            group: text("group", report),
            operators: text("operators", report),
            api,
            metrics,
            page,
        };
        for violation in settings.violations() {
            let has = |table: &keys::Table| table.keys.iter().any(|k| k.name == violation.key());
            let table = [(&timeouts, keys::TIMEOUTS), (&errors, keys::ERRORS), (&api_table, keys::API)]
                .into_iter()
                .find_map(|(table, keys)| table.as_ref().filter(|_| has(&keys)))
                .unwrap_or(&t);
            self.violation(table, &violation);
        }
        settings
    }

    /// The control API over TCP, if all of it can be understood.
    fn api(&mut self, t: &Table) -> Option<Api> {
        let mut file = |key, example| {
            if t.get(key).is_none() {
                self.missing(t, key, example);
            }
            t.string(key, &mut self.report).map(|(text, _)| text.to_owned())
        };
        let certificate = file("certificate", "/etc/dirigent/tls/director.pem");
        let key = file("key", "/etc/dirigent/tls/director.key");
        let clients = file("clients", "/etc/dirigent/tls/clients.pem");
        let listen = file("listen", "192.0.2.2:9443").and_then(|text| self.listen(t, &text));
        let operators = t.strings("operator_names", &mut self.report).unwrap_or_default();
        let operators = operators.into_iter().map(|(name, _)| name.to_owned()).collect();
        Some(Api { listen: listen?, certificate: certificate?, key: key?, clients: clients?, operators })
    }

    /// What metrics there are, and where.
    fn metrics(&mut self, t: &Table) -> Metrics {
        let listen = t.string("listen", &mut self.report).map(|(text, _)| text);
        Metrics {
            listen: listen.and_then(|text| self.listen(t, text)),
            ipvs_names: t.boolean("ipvs_names", &mut self.report).unwrap_or_default(),
        }
    }

    /// The web page, and where.
    fn page(&mut self, t: &Table) -> Page {
        let listen = t.string("listen", &mut self.report).map(|(text, _)| text);
        Page {
            listen: listen.and_then(|text| self.listen(t, text)),
            operate: t.boolean("operate", &mut self.report).unwrap_or_default(),
        }
    }

    /// The value of `listen`.
    fn listen(&mut self, t: &Table, text: &str) -> Option<SocketAddr> {
        let listen = text.parse().ok();
        if listen.is_none() {
            let remedy = "write ADDRESS:PORT in numbers, like \"192.0.2.2:9443\" or \"[::1]:9443\"";
            self.report.add(t.place("listen"), format!("{text:?} is no address and port"), remedy);
        }
        listen
    }

    /// The services, and where each says who holds its address.
    fn services(&mut self, root: &Table) -> (Vec<Service>, HashMap<ServiceKey, usize>) {
        let mut seen: HashMap<ServiceKey, usize> = HashMap::new();
        let mut managed = HashMap::new();
        let mut out = Vec::new();
        for table in root.tables("service", keys::SERVICE, &mut self.report) {
            let Some(service) = self.service(&table) else { continue };
            let at = table.place(if service.key.mark() == 0 { "address" } else { "fwmark" });
            if let Some(first) = seen.get(&service.key) {
                let (line, _) = self.report.place(*first);
                let violation = Violation::DuplicateService(service.key);
                self.report.add(at, format!("{violation}, first in line {line}"), violation.remedy());
            } else {
                seen.insert(service.key, at);
            }
            managed.insert(service.key, table.place("vip"));
            out.push(service);
        }
        (out, managed)
    }

    /// A service, if its key and options can be understood.
    fn service(&mut self, t: &Table) -> Option<Service> {
        let Named { key, placed, whole } = self.service_key(t);
        let scheduler = self.scheduler(t);
        let scheduler_flags = self.scheduler_flags(t, scheduler);
        let table_size = t.integer32("table_size", 1, u32::MAX, &mut self.report);
        // Who names the default has it whatever it is called.
        let table_size = table_size.filter(|size| scheduler.table().is_none_or(|table| table.size != *size));
        let one_packet = t.boolean("one_packet", &mut self.report).unwrap_or(false);
        let slow_start = t.duration("slow_start", &mut self.report);
        let stateless = t.boolean("stateless", &mut self.report).unwrap_or(false);
        let quic = t.boolean("quic", &mut self.report).unwrap_or(false);
        let sources = Sources { allow: self.prefixes(t, "allow"), deny: self.prefixes(t, "deny") };
        let policies = [VipPolicy::Operator, VipPolicy::Manage].map(|v| (v.name(), v));
        let vip = t.choice("vip", &policies, &mut self.report).unwrap_or_default();
        let persistence_table = t.table("persistence", keys::PERSISTENCE, &mut self.report);
        let persistence = persistence_table.as_ref().map(|p| self.persistence(p, key.is_ipv6()));
        let health_table = t.table("health", keys::HEALTH, &mut self.report);
        let mut health = health_table.as_ref().map_or_else(Default::default, |t| health::service(t, &mut self.report));
        let sorry_table = health_table.as_ref().and_then(|t| t.table("sorry", keys::SORRY, &mut self.report));
        health.sorry = sorry_table.as_ref().and_then(|t| self.sorry(t, placed.then_some(&key))).map(Box::new);
        let server_tables = t.tables("server", keys::SERVER, &mut self.report);
        let mut service = Service {
            key,
            scheduler,
            scheduler_flags,
            table_size,
            one_packet,
            persistence,
            stateless,
            slow_start,
            sources,
            quic,
            vip,
            health,
            servers: Vec::new(),
        };
        if let Some(table) = sorry_table.as_ref().filter(|_| placed) {
            check::sorry(&service).iter().for_each(|v| self.violation(table, v));
        }
        if whole {
            for violation in check::options(&service) {
                let in_persistence = matches!(violation, Violation::PersistenceTime(_) | Violation::PersistenceMask(_));
                let table = persistence_table.as_ref().filter(|_| in_persistence).unwrap_or(t);
                self.violation(table, &violation);
            }
        }
        let mut read = Vec::new();
        for table in &server_tables {
            let Some(server) = self.server(table, placed.then_some(&key)) else { continue };
            if let Some(first) = service.servers.iter().position(|s| s.identity() == server.identity()) {
                let first = server_tables.get(first).map_or(0, |t| self.report.place(t.place("address")).0);
                let violation = check::duplicate(&key, &server);
                let message = format!("{violation}, first in line {first}");
                self.report.add(table.place("address"), message, violation.remedy());
            }
            if placed {
                let violations = check::numbers(&server).into_iter().chain(check::server(&service, &server));
                violations.for_each(|v| self.violation(table, &v));
            }
            service.servers.push(server);
            read.push(table);
        }
        for (at, violation) in check::ids(&service) {
            let Some(table) = read.get(at) else { continue };
            let at = table.get("server_id").map_or_else(|| table.place("address"), |(_, at)| at);
            self.report.add(at, violation.to_string(), violation.remedy());
        }
        whole.then_some(service)
    }

    /// A list of prefixes.
    fn prefixes(&mut self, t: &Table, key: &str) -> Vec<Prefix> {
        let (what, remedy) = PREFIX;
        let mut read = Vec::new();
        for (text, at) in t.strings(key, &mut self.report).unwrap_or_default() {
            match Prefix::parse(text) {
                Some(prefix) => read.push(prefix),
                None => self.report.add(at, format!("{key} holds {text:?}, no {what}"), remedy),
            }
        }
        read
    }

    /// What a service is known by. Where that is not to be understood, what is wrong with its
    /// servers can still be told.
    fn service_key(&mut self, t: &Table) -> Named {
        if t.get("fwmark").is_some() {
            for key in ["protocol", "address"] {
                if let Some((_, at)) = t.get(key) {
                    let remedy = format!("remove one of the two: a mark stands for every {key}");
                    self.report.add(at, format!("{key} with fwmark"), remedy);
                }
            }
            let family = self.family(t);
            let mark = t.integer32("fwmark", 1, u32::MAX, &mut self.report).and_then(NonZeroU32::new);
            let key = ServiceKey::Mark { mark: mark.unwrap_or(NonZeroU32::MIN), ipv6: family.unwrap_or(false) };
            return Named { key, placed: true, whole: mark.is_some() };
        }
        if let Some((_, at)) = t.get("family") {
            self.report.add(at, "family without fwmark", "remove it: the address says it");
        }
        let protocol = t.choice("protocol", &Protocol::ALL.map(|p| (p.name(), p)), &mut self.report);
        if t.get("protocol").is_none() {
            self.missing(t, "protocol", "tcp");
        }
        let address = self.service_address(t);
        let (ip, port) = address.unwrap_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1));
        let key = ServiceKey::Address { protocol: protocol.unwrap_or(Protocol::Tcp), address: ip, port };
        Named { key, placed: address.is_some(), whole: protocol.is_some() && address.is_some() }
    }

    /// Whether `family` says IPv6; nothing if it says nothing that makes sense.
    fn family(&mut self, t: &Table) -> Option<bool> {
        let (value, at) = t.get("family")?;
        match value.as_integer().map(|number| number.as_str()) {
            Some("4") => Some(false),
            Some("6") => Some(true),
            Some(other) => {
                self.report.add(at, format!("family is {other}"), "use 4 or 6");
                None
            }
            None => {
                self.report.add(at, format!("family is {}, not an integer", kind(value)), "use 4 or 6, without quotes");
                None
            }
        }
    }

    fn marks(&mut self, root: &Table) -> Vec<MarkRule> {
        let tables = root.tables("mark", keys::MARK, &mut self.report);
        if tables.len() > MAX_MARK_RULES {
            self.violation(root, &Violation::TooManyMarks(tables.len()));
        }
        tables.iter().filter_map(|t| self.mark(t)).collect()
    }

    /// A mark rule, if it can be understood.
    fn mark(&mut self, t: &Table) -> Option<MarkRule> {
        const NAMES: [&str; 6] =
            ["interface", "source", "destination", "protocol", "source_ports", "destination_ports"];
        let family = self.family(t);
        let mut not = Vec::new();
        for (name, at) in t.strings("not", &mut self.report).unwrap_or_default() {
            if !NAMES.contains(&name) {
                self.report.add(at, format!("not holds {name:?}"), one_of(name, &NAMES));
            } else if t.get(name).is_none() {
                self.report.add(
                    at,
                    format!("not holds {name:?}, which the rule does not have"),
                    "remove it, or add it",
                );
            } else if not.contains(&name) {
                self.report.add(at, format!("not holds {name:?} twice"), "name it once");
            }
            not.push(name);
        }
        let not = |key| not.contains(&key);
        let source = self.test(t, "source", not, PREFIX, Prefix::parse);
        let destination = self.test(t, "destination", not, PREFIX, Prefix::parse);
        let source_ports = self.test(t, "source_ports", not, PORTS, Ports::parse);
        let destination_ports = self.test(t, "destination_ports", not, PORTS, Ports::parse);
        let protocol = t.string("protocol", &mut self.report).and_then(|(text, at)| {
            let found = mark::protocol(text);
            if found.is_none() {
                let violation = Violation::MarkProtocol(text.into());
                self.report.add(at, violation.to_string(), violation.remedy());
            }
            found.map(|is| Test { is, not: not("protocol") })
        });
        let interface = t.string("interface", &mut self.report);
        let interface = interface.map(|(name, _)| Test { is: name.to_owned(), not: not("interface") });
        let mask = t.integer32("mask", 0, u32::MAX, &mut self.report).unwrap_or(u32::MAX);
        if t.get("set").is_none() && !self.gaps {
            self.report.add(t.at, "set is missing", "add set = 1, or what the mark shall be");
        }
        let set = t.integer32("set", 0, u32::MAX, &mut self.report)?;
        let by_address = source.or(destination).map(|test| test.is.address().is_ipv6());
        let ipv6 = family.or(by_address).unwrap_or(false);
        let rule =
            MarkRule { ipv6, interface, source, destination, protocol, source_ports, destination_ports, set, mask };
        rule.violations().iter().for_each(|violation| self.violation(t, violation));
        Some(rule)
    }

    /// What a mark rule asks of one thing.
    fn test<T>(
        &mut self,
        t: &Table,
        key: &'static str,
        not: impl Fn(&'static str) -> bool,
        (what, remedy): (&str, &str),
        read: fn(&str) -> Option<T>,
    ) -> Option<Test<T>> {
        let (text, at) = t.string(key, &mut self.report)?;
        let found = read(text);
        if found.is_none() {
            self.report.add(at, format!("{key} is {text:?}, which is no {what}"), remedy);
        }
        found.map(|is| Test { is, not: not(key) })
    }

    fn service_address(&mut self, t: &Table) -> Option<(IpAddr, u16)> {
        if t.get("address").is_none() {
            self.missing(t, "address", "192.0.2.10:80");
        }
        let (text, at) = t.string("address", &mut self.report)?;
        let (ip, port) = self.address(text, at)?;
        let Some(port) = port else {
            let whole = if ip.is_ipv6() { format!("[{ip}]:80") } else { format!("{ip}:80") };
            self.report.add(at, format!("address {text:?} has no port"), format!("write it like \"{whole}\""));
            return None;
        };
        if !check::unicast(ip) {
            self.report.add(
                at,
                format!("{ip} cannot be a virtual address"),
                "use a unicast address that is routed to the director",
            );
        }
        Some((ip, port))
    }

    fn address(&mut self, text: &str, at: usize) -> Option<(IpAddr, Option<u16>)> {
        let found = address(text);
        if found.is_none() {
            let remedy = "write ADDRESS:PORT in numbers, like \"192.0.2.10:80\" or \"[2001:db8::10]:80\"";
            self.report.add(at, format!("{text:?} is no address and port"), remedy);
        }
        found
    }

    fn scheduler(&mut self, t: &Table) -> Scheduler {
        const DEFAULT: Scheduler = Scheduler::Wlc;
        let Some((name, at)) = t.string("scheduler", &mut self.report) else { return DEFAULT };
        Scheduler::from_name(name).unwrap_or_else(|| {
            let names: Vec<_> = Scheduler::ALL.iter().map(|s| s.name()).collect();
            self.report.add(at, format!("there is no scheduler {name:?}"), one_of(name, &names));
            DEFAULT
        })
    }

    fn scheduler_flags(&mut self, t: &Table, scheduler: Scheduler) -> SchedulerFlags {
        let mut flags = SchedulerFlags::default();
        for (name, at) in t.strings("scheduler_flags", &mut self.report).unwrap_or_default() {
            if let Err(fault) = flags.set(name, scheduler.name()) {
                let remedy = match fault {
                    FlagFault::Incompatible => "remove it, or change the scheduler".into(),
                    FlagFault::Unknown => {
                        let named = Scheduler::ALL.iter().filter_map(|s| s.flags()).flat_map(|(a, b)| [a, b]);
                        one_of(name, &named.chain(["flag-1", "flag-2", "flag-3"]).collect::<Vec<_>>())
                    }
                };
                self.report.add(at, format!("scheduler {scheduler} has no flag {name:?}"), remedy);
            }
        }
        flags
    }

    fn persistence(&mut self, t: &Table, ipv6: bool) -> Persistence {
        let timeout = t.duration("timeout", &mut self.report);
        if timeout.is_some_and(|d| d.subsec_nanos() != 0) {
            self.report.add(t.place("timeout"), "persistence lasts whole seconds", "round it up: \"1s\"");
        }
        let timeout_s = timeout.map_or(DEFAULT_PERSISTENCE_S, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
        let mut mask = Netmask::whole(ipv6);
        if let Some((text, at)) = t.string("mask", &mut self.report) {
            match netmask(text, mask) {
                Some(found) => mask = found,
                None => {
                    let violation = Violation::PersistenceMask(text.into());
                    self.report.add(at, violation.to_string(), violation.remedy());
                }
            }
        }
        Persistence { timeout_s, mask }
    }

    /// A server of the service, whose key may not be known.
    fn server(&mut self, t: &Table, service: Option<&ServiceKey>) -> Option<Server> {
        let weight = t.integer32("weight", 0, MAX_WEIGHT, &mut self.report).unwrap_or(1);
        let upper = t.integer32("upper", 0, MAX_WEIGHT, &mut self.report).unwrap_or(0);
        let lower = t.integer32("lower", 0, MAX_WEIGHT, &mut self.report).unwrap_or(0);
        let method = self.method(t);
        if t.get("address").is_none() {
            self.missing(t, "address", "10.0.0.2:8080");
        }
        let (text, at) = t.string("address", &mut self.report)?;
        let (address, port) = self.address(text, at)?;
        let port = port.or_else(|| service.map(ServiceKey::port)).unwrap_or(0);
        let server_id = t.string("server_id", &mut self.report).and_then(|(text, at)| {
            let id = ServerId::parse(text);
            if id.is_none() {
                let violation = Violation::ServerId(text.into());
                self.report.add(at, violation.to_string(), violation.remedy());
            }
            id
        });
        let health = health::server(t, &mut self.report).into();
        Some(Server { address, port, method, weight, upper, lower, server_id, health, draining: false })
    }

    /// Who serves when too few servers are up.
    fn sorry(&mut self, t: &Table, service: Option<&ServiceKey>) -> Option<Sorry> {
        let method = self.method(t);
        let on_failure = health::sorry_on_failure(t, &mut self.report);
        if t.get("address").is_none() {
            self.missing(t, "address", "10.0.0.9:8080");
        }
        let (text, at) = t.string("address", &mut self.report)?;
        let (address, port) = self.address(text, at)?;
        let port = port.or_else(|| service.map(ServiceKey::port)).unwrap_or(0);
        Some(Sorry { address, port, method, on_failure })
    }

    fn method(&mut self, t: &Table) -> Method {
        let report = &mut self.report;
        let methods = [Method::Nat, Method::Dr, Method::Tun(Tunnel::default())].map(|m| (m.name(), m));
        let method = t.choice("method", &methods, report).unwrap_or(Method::Nat);
        let port = t.integer32("tunnel_port", 1, 65535, report).and_then(|p| u16::try_from(p).ok());
        let kinds =
            [TunnelKind::Ipip, TunnelKind::Gue { port: port.unwrap_or(0) }, TunnelKind::Gre].map(|k| (k.name(), k));
        let kind = t.choice("tunnel", &kinds, report).unwrap_or(TunnelKind::Ipip);
        let checksums = [TunnelChecksum::None, TunnelChecksum::Full, TunnelChecksum::Remote].map(|c| (c.name(), c));
        let checksum = t.choice("tunnel_checksum", &checksums, report).unwrap_or_default();
        let Method::Tun(_) = method else {
            for key in ["tunnel", "tunnel_port", "tunnel_checksum"] {
                if let Some((_, at)) = t.get(key) {
                    report.add(
                        at,
                        format!("{key} with method {}", method.name()),
                        "remove it, or set method = \"tun\"",
                    );
                }
            }
            return method;
        };
        if let (Some((_, at)), TunnelKind::Ipip | TunnelKind::Gre) = (t.get("tunnel_port"), kind) {
            report.add(at, format!("tunnel_port with an {} tunnel", kind.name()), "remove it, or set tunnel = \"gue\"");
        }
        Method::Tun(Tunnel { kind, checksum })
    }
}

fn interfaces(t: &Table, report: &mut Report) -> Option<Vec<String>> {
    match t.get("interfaces")?.0.as_str() {
        Some("auto") => None,
        Some(other) => {
            report.add(
                t.place("interfaces"),
                format!("interfaces is {other:?}"),
                format!("write [{other:?}], or \"auto\""),
            );
            None
        }
        None => Some(t.strings("interfaces", report)?.into_iter().map(|(name, _)| name.to_owned()).collect()),
    }
}

fn read_timeouts(t: &Table, report: &mut Report) -> Timeouts {
    let default = Timeouts::default();
    let mut tcp = default.tcp.by_state();
    for (key, timeout) in TcpTimeouts::KEYS.into_iter().zip(&mut tcp) {
        *timeout = t.duration(key, report).unwrap_or(*timeout);
    }
    let udp = t.duration("udp", report).unwrap_or(default.udp);
    let mut sctp = default.sctp.0;
    for (key, timeout) in SctpTimeouts::KEYS.into_iter().zip(&mut sctp) {
        *timeout = t.duration(key, report).unwrap_or(*timeout);
    }
    Timeouts {
        tcp: TcpTimeouts::from_states(tcp),
        udp,
        sctp: SctpTimeouts(sctp),
        lblc_expiration: t.duration("lblc_expiration", report).unwrap_or(default.lblc_expiration),
        lblcr_expiration: t.duration("lblcr_expiration", report).unwrap_or(default.lblcr_expiration),
    }
}

/// One of IPVS's modes, 0 to 3.
fn mode(t: &Table, key: &str, default: u8, report: &mut Report) -> u8 {
    let mode = t.integer32(key, 0, Defence::MAX_MODE.into(), report);
    mode.and_then(|mode| u8::try_from(mode).ok()).unwrap_or(default)
}

fn read_defence(t: &Table, report: &mut Report) -> Defence {
    let default = Defence::default();
    let number = |key, default, report: &mut _| t.integer32(key, 0, Defence::MAX, report).unwrap_or(default);
    Defence {
        drop_entry: mode(t, "drop_entry", default.drop_entry, report),
        drop_packet: mode(t, "drop_packet", default.drop_packet, report),
        secure_tcp: mode(t, "secure_tcp", default.secure_tcp, report),
        amemthresh: number("amemthresh", default.amemthresh, report),
        am_droprate: number("am_droprate", default.am_droprate, report),
    }
}

fn read_limits(t: &Table, report: &mut Report) -> ErrorLimits {
    let default = ErrorLimits::default();
    let mut number = |key, default| t.integer32(key, 0, u32::MAX, report).unwrap_or(default);
    ErrorLimits {
        rate: number("rate", default.rate),
        burst: number("burst", default.burst),
        destination_rate: number("destination_rate", default.destination_rate),
        destination_burst: number("destination_burst", default.destination_burst),
    }
}

/// `192.0.2.10:80`, `[2001:db8::10]:80`, or one without port.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    match text.parse() {
        Ok(SocketAddr::V4(a)) => return Some(((*a.ip()).into(), Some(a.port()))),
        Ok(SocketAddr::V6(a)) => return (!text.contains('%')).then(|| ((*a.ip()).into(), Some(a.port()))),
        Err(_) => {}
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).filter(|t| t.contains(':')).unwrap_or(text);
    bare.parse().ok().map(|ip| (ip, None))
}

/// `255.255.255.0` or `/24`, of the family of `whole`.
fn netmask(text: &str, whole: Netmask) -> Option<Netmask> {
    let prefix = text.strip_prefix('/').map(str::parse::<u8>);
    match (whole, prefix) {
        (Netmask::V4(_), None) => text.parse().ok().map(Netmask::V4),
        (Netmask::V4(_), Some(Ok(length @ 0..=32))) => {
            let bits = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Some(Netmask::V4(bits.into()))
        }
        (Netmask::V6(_), Some(Ok(length @ 1..=128))) => Some(Netmask::V6(length)),
        _ => None,
    }
}
