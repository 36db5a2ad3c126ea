//! What `GET /metrics` tells. Each scrape is made anew: from the tables, as the API reads them, and from what the daemon's
//! threads show anyway. The daemon's own task is not asked, and so not held up.

mod families;
mod ipvs;
mod process;

use super::failover::{ROLES, RouterView, role_name};
use super::naming;
use super::sync::SyncView;
use crate::failure::{Failure, Result};
use crate::report::{self, Reader};
use dirigent_api::metrics as table;
use dirigent_api::{Interface, Reason, Server, Service, Stats, StatsOf, Synchronisation, VirtualRouter};
use dirigent_datapath::control::Room;
use dirigent_datapath::control::report::kind_name;
use dirigent_director::verdict::ReasonKind;
use families::Families;
use process::Process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What an answer says of its body.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What only the daemon's own task knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Goes up with each change.
    pub generation: u64,
    /// Differences between what is configured and what the file says.
    pub runtime_changes: usize,
    /// Whether the file was taken when it was read last.
    pub taken: bool,
    /// When it was last taken.
    pub taken_at: SystemTime,
    /// Whether the names of node_exporter's ipvs collector are told too.
    pub ipvs_names: bool,
    /// What is suspected: service, server, cause.
    pub suspected: Vec<[String; 3]>,
}

/// The same, shared: the task shows it when it changes.
#[derive(Clone, Debug)]
pub struct Shown(Arc<Mutex<Configured>>);

impl Shown {
    /// That of a file that has just been taken.
    pub fn new() -> Self {
        let taken_at = SystemTime::now();
        let first = Configured {
            generation: 0,
            runtime_changes: 0,
            taken: true,
            taken_at,
            ipvs_names: false,
            suspected: Vec::new(),
        };
        Self(Arc::new(Mutex::new(first)))
    }
    fn configured(&self) -> MutexGuard<'_, Configured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Something of it is different now.
    pub fn change(&self, change: impl FnOnce(&mut Configured)) {
        change(&mut self.configured());
    }
}

/// Where a scrape finds what the tables do not have.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What is configured.
    pub shown: Shown,
    /// Virtual routers.
    pub routers: RouterView,
    /// Synchronisation.
    pub sync: SyncView,
}

/// All metrics as text.
pub fn scrape(reader: &Reader, sources: &Sources, format: Format) -> Result<String> {
    write(Scrape::of(reader, sources)?, format)
}

fn write(scrape: Scrape, format: Format) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut out = String::new();
    let written = match format {
        Format::Prometheus => prometheus_text::encode(&mut out, &registry),
        Format::OpenMetrics => text::encode(&mut out, &registry),
    };
    written.map_err(|_| Failure::new("/metrics", "the metrics could not be written", "please report this"))?;
    Ok(out)
}

/// What is there at one moment.
#[derive(Debug)]
struct Scrape {
    director: String,
    stats: Stats,
    /// Names of the services in it; none of what was removed.
    names: Vec<Option<String>>,
    interfaces: Vec<Interface>,
    size: Option<super::size::Size>,
    room: Room,
    configured: Configured,
    routers: Vec<VirtualRouter>,
    sync: Option<Synchronisation>,
    process: Process,
}

impl Scrape {
    fn of(reader: &Reader, sources: &Sources) -> Result<Self> {
        let mut stats = reader.stats(&StatsOf::default())?;
        for service in &mut stats.services {
            // One that was removed may still have connections beside its successor of the same address.
            let mut seen = HashSet::new();
            service.servers.retain(|server| seen.insert(server.address.clone()));
        }
        Ok(Self {
            director: reader.instance().name().to_owned(),
            names: stats.services.iter().map(|s| naming::listed_key(s).map(|key| key.to_string())).collect(),
            stats,
            interfaces: reader.interfaces()?,
            size: report::size(reader.instance()),
            room: reader.room(),
            configured: sources.shown.configured().clone(),
            routers: sources.routers.routers(),
            sync: sources.sync.report(),
            process: Process::look(),
        })
    }

    fn services(&self) -> impl Iterator<Item = (&str, &Service)> {
        let all = self.names.iter().zip(&self.stats.services);
        all.filter_map(|(name, service)| Some((name.as_deref()?, service)))
    }

    fn servers(&self) -> impl Iterator<Item = ([&str; 2], &Server)> {
        self.services().flat_map(|(name, service)| {
            service.servers.iter().map(move |server| ([name, server.address.as_str()], server))
        })
    }

    fn director(&self, to: &mut Families<'_>) -> fmt::Result {
        to.put(&table::BUILD_INFO, [([env!("CARGO_PKG_VERSION"), &self.director], 1u64)])?;
        let total = self.stats.total;
        to.one(&table::CONNECTIONS, total.connections)?;
        to.one(&table::INCOMING_PACKETS, total.in_packets)?;
        to.one(&table::INCOMING_BYTES, total.in_bytes)?;
        to.one(&table::OUTGOING_PACKETS, total.out_packets)?;
        to.one(&table::OUTGOING_BYTES, total.out_bytes)?;
        for (metric, kind) in [
            (table::PACKETS_FORWARDED, ReasonKind::Forwarded),
            (table::PACKETS_PASSED, ReasonKind::Passed),
            (table::PACKETS_ANSWERED, ReasonKind::Answered),
            (table::PACKETS_DROPPED, ReasonKind::Dropped),
        ] {
            let of_kind = |reason: &&Reason| reason.kind == kind_name(kind);
            let reasons = self.stats.reasons.iter().filter(of_kind);
            to.put(&metric, reasons.map(|reason| ([&reason.name], reason.count)))?;
        }
        let attached = self.interfaces.iter().filter(|one| !one.name.is_empty());
        to.put(&table::INTERFACE_ATTACHED, attached.map(|one| ([&one.name, &one.path], 1u64)))
    }

    fn tables(&self, to: &mut Families<'_>) -> fmt::Result {
        let families = [(4, "ipv4"), (6, "ipv6")];
        let used = families.map(|(family, name)| {
            let services = self.stats.services.iter().filter(|service| service.family == family);
            ([name], services.flat_map(|service| &service.servers).map(entries).sum::<u64>())
        });
        to.put(&table::TABLE_ENTRIES, used)?;
        if let Some(size) = self.size {
            to.put(&table::TABLE_ENTRIES_LIMIT, families.map(|(_, name)| ([name], u64::from(size.entries()))))?;
            to.one(&table::TABLE_BYTES, size.bytes())?;
        }
        to.one(&table::SERVICES, self.services().count())?;
        to.one(&table::SERVICES_LIMIT, u64::from(self.room.services))?;
        to.one(&table::SERVERS, self.servers().count())?;
        to.one(&table::SERVERS_LIMIT, u64::from(self.room.servers))
    }

    fn config(&self, to: &mut Families<'_>) -> fmt::Result {
        let Configured { generation, runtime_changes, taken, taken_at, .. } = self.configured;
        let suspected = &self.configured.suspected;
        to.one(&table::CONFIG_GENERATION, generation)?;
        to.one(&table::CONFIG_RUNTIME_CHANGES, runtime_changes)?;
        to.one(&table::CONFIG_RELOAD_SUCCESSFUL, taken)?;
        to.one(&table::CONFIG_RELOAD_TIME, taken_at.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()))?;
        to.put(&table::SUSPECTED, suspected.iter().map(|names| (names.clone(), 1u64)))
    }

    fn each_service(&self, to: &mut Families<'_>) -> fmt::Result {
        let info = self.services().map(|(name, s)| ([name, s.protocol.as_str(), s.scheduler.as_str()], 1u64));
        to.put(&table::SERVICE_INFO, info)?;
        to.put(&table::SERVICE_QUORUM, self.services().filter_map(|(name, s)| Some(([name], s.quorum?))))?;
        to.put(&table::SERVICE_CONNECTIONS, self.services().map(|(name, s)| ([name], s.counters.connections)))?;
        to.put(&table::SERVICE_INCOMING_PACKETS, self.services().map(|(name, s)| ([name], s.counters.in_packets)))?;
        to.put(&table::SERVICE_INCOMING_BYTES, self.services().map(|(name, s)| ([name], s.counters.in_bytes)))?;
        to.put(&table::SERVICE_OUTGOING_PACKETS, self.services().map(|(name, s)| ([name], s.counters.out_packets)))?;
        to.put(&table::SERVICE_OUTGOING_BYTES, self.services().map(|(name, s)| ([name], s.counters.out_bytes)))
    }

    fn each_server(&self, to: &mut Families<'_>) -> fmt::Result {
        let info = self.servers().map(|([service, name], s)| ([service, name, s.method.as_str()], 1u64));
        to.put(&table::SERVER_INFO, info)?;
        let checked = || self.servers().filter_map(|(names, s)| Some((names, s.health.as_ref()?)));
        to.put(&table::SERVER_UP, checked().map(|(names, health)| (names, health.state != "down")))?;
        to.put(&table::SERVER_HEALTH_TIME, checked().map(|(names, health)| (names, health.since_s)))?;
        // Whoever is out of the tables has no next hop.
        let there = self.servers().filter(|(_, s)| s.next_hop.state != "removed");
        let reached = |s: &Server| matches!(s.next_hop.state.as_str(), "resolved" | "local");
        to.put(&table::SERVER_REACHABLE, there.map(|(names, s)| (names, reached(s))))?;
        to.put(&table::SERVER_WEIGHT, self.servers().map(|(names, s)| (names, s.weight)))?;
        to.put(&table::SERVER_EFFECTIVE_WEIGHT, self.servers().map(|(names, s)| (names, s.effective_weight)))?;
        to.put(&table::SERVER_ACTIVE, self.servers().map(|(names, s)| (names, s.active)))?;
        to.put(&table::SERVER_INACTIVE, self.servers().map(|(names, s)| (names, s.inactive)))?;
        to.put(&table::SERVER_TEMPLATES, self.servers().map(|(names, s)| (names, s.templates)))?;
        to.put(&table::SERVER_CONNECTIONS, self.servers().map(|(names, s)| (names, s.counters.connections)))?;
        to.put(&table::SERVER_INCOMING_PACKETS, self.servers().map(|(names, s)| (names, s.counters.in_packets)))?;
        to.put(&table::SERVER_INCOMING_BYTES, self.servers().map(|(names, s)| (names, s.counters.in_bytes)))?;
        to.put(&table::SERVER_OUTGOING_PACKETS, self.servers().map(|(names, s)| (names, s.counters.out_packets)))?;
        to.put(&table::SERVER_OUTGOING_BYTES, self.servers().map(|(names, s)| (names, s.counters.out_bytes)))
    }

    fn failover(&self, to: &mut Families<'_>) -> fmt::Result {
        let routers = || self.routers.iter().map(|router| ([router.name.as_str()], router));
        let info = |router: &VirtualRouter| {
            let family = if router.family == 6 { "ipv6" } else { "ipv4" };
            [router.name.clone(), router.interface.clone(), router.vrid.to_string(), family.to_owned()]
        };
        to.put(&table::ROUTER_INFO, routers().map(|(_, router)| (info(router), 1u64)))?;
        let states: Vec<_> =
            routers().flat_map(|([name], router)| ROLES.map(|role| (name, role_name(role), router))).collect();
        let is = states.iter().map(|(name, state, router)| ([*name, *state], router.state == *state));
        to.put(&table::ROUTER_STATE, is)?;
        let times = |(name, state, router): &(_, _, &VirtualRouter)| {
            ([*name, *state], router.transitions.get(*state).copied().unwrap_or(0))
        };
        to.put(&table::ROUTER_TRANSITIONS, states.iter().map(times))?;
        to.put(&table::ROUTER_STATE_TIME, routers().map(|(name, router)| (name, router.since_s)))?;
        to.put(&table::ROUTER_PRIORITY, routers().map(|(name, router)| (name, u64::from(router.priority))))?;
        to.put(&table::ROUTER_CONTENDED, routers().map(|(name, router)| (name, router.contended)))?;
        to.put(&table::ROUTER_CLAIMED, routers().map(|(name, router)| (name, router.claimed.is_some())))
    }

    fn synchronisation(&self, to: &mut Families<'_>) -> fmt::Result {
        let Some(sync) = &self.sync else { return Ok(()) };
        to.one(&table::SYNC_SENT, sync.sent)?;
        to.one(&table::SYNC_RECEIVED, sync.received)?;
        to.one(&table::SYNC_APPLIED, sync.applied)?;
        to.put(&table::SYNC_DROPPED, sync.dropped.iter().map(|(reason, count)| ([reason], *count)))?;
        let peers = || sync.peers.iter().map(|peer| ([peer.node.as_str()], peer));
        let seconds = |ms: u64| ms as f64 / 1000.0;
        to.put(&table::SYNC_PEER_COMPLETE, peers().map(|(node, peer)| (node, peer.whole)))?;
        to.put(&table::SYNC_PEER_CONNECTIONS, peers().map(|(node, peer)| (node, peer.known)))?;
        to.put(&table::SYNC_PEER_EXPECTED, peers().map(|(node, peer)| (node, peer.expected)))?;
        to.put(&table::SYNC_PEER_LAG, peers().map(|(node, peer)| (node, seconds(peer.lag_ms))))?;
        to.put(&table::SYNC_PEER_SILENCE, peers().map(|(node, peer)| (node, seconds(peer.silent_ms))))?;
        to.put(&table::SYNC_PEER_GAPS, peers().map(|(node, peer)| (node, peer.gaps)))?;
        to.put(&table::SYNC_PEER_REPAIRED, peers().map(|(node, peer)| (node, peer.repaired)))?;
        to.put(&table::SYNC_PEER_LOST, peers().map(|(node, peer)| (node, peer.lost)))
    }
}

/// What a server's connections and templates take in the table.
fn entries(server: &Server) -> u64 {
    let each = if server.method == "nat" { 2 } else { 1 };
    (u64::from(server.active) + u64::from(server.inactive)) * each + server.templates
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Families::to(encoder);
        self.director(&mut to)?;
        self.tables(&mut to)?;
        self.config(&mut to)?;
        self.each_service(&mut to)?;
        self.each_server(&mut to)?;
        self.failover(&mut to)?;
        self.synchronisation(&mut to)?;
        self.process.tell(&mut to)?;
        if self.configured.ipvs_names { ipvs::tell(&self.stats, &mut to) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_api::metrics::{ALL, Kind};
    use dirigent_api::{Counters, Health, NextHop, SyncPeer};
    use std::collections::BTreeMap;

    /// Names as nobody should give them: they stand between quotes.
    const ODD: &str = "a\"b\\c\nd";
    const ESCAPED: &str = "a\\\"b\\\\c\\nd";

    /// One of everything.
    fn everything() -> Scrape {
        let counters = Counters { connections: u64::MAX, in_packets: 2, in_bytes: 3, out_packets: 4, out_bytes: 5 };
        let server = |address: &str, method: &str| Server {
            address: address.to_owned(),
            method: method.to_owned(),
            state: "available".to_owned(),
            effective_weight: 0.25,
            active: 3,
            inactive: 2,
            templates: 1,
            next_hop: NextHop { state: "resolved".to_owned(), ..NextHop::default() },
            health: Some(Health { state: "up".to_owned(), since_s: 1_700_000_000, ..Health::default() }),
            counters,
            ..Server::default()
        };
        let service = Service {
            protocol: "tcp".to_owned(),
            address: "192.0.2.10:80".to_owned(),
            family: 4,
            quorum: Some(true),
            servers: vec![server("10.0.0.2:80", "nat"), server("10.0.0.3:80", "dr")],
            counters,
            ..Service::default()
        };
        // Removed, with connections that are left.
        let removed = Service {
            protocol: "tcp".to_owned(),
            address: "removed".to_owned(),
            family: 6,
            servers: vec![server("[fd00::2]:80", "nat")],
            ..Service::default()
        };
        let reasons = ["forwarded", "passed", "answered", "dropped"];
        let reasons =
            reasons.map(|kind| Reason { name: "why".to_owned(), kind: kind.to_owned(), count: 9, ..Reason::default() });
        let router = VirtualRouter {
            name: ODD.to_owned(),
            state: "master".to_owned(),
            transitions: BTreeMap::from([("master".to_owned(), 7)]),
            ..VirtualRouter::default()
        };
        let sync = Synchronisation {
            dropped: BTreeMap::from([("late".to_owned(), 1)]),
            peers: vec![SyncPeer { node: "10.0.0.1".to_owned(), lag_ms: 1500, ..SyncPeer::default() }],
            ..Synchronisation::default()
        };
        let stats =
            Stats { total: counters, services: vec![service, removed], reasons: reasons.to_vec(), ..Stats::default() };
        let room = Room { services: 10, servers: 20, slots: 30 };
        Scrape {
            director: ODD.to_owned(),
            names: vec![Some("tcp 192.0.2.10:80".to_owned()), None],
            stats,
            interfaces: vec![Interface { name: "eth0".to_owned(), path: "xdp".to_owned(), ..Interface::default() }],
            size: Some(crate::daemon::size::Size { connections: 50, room }),
            room,
            configured: Configured {
                generation: 17,
                runtime_changes: 2,
                taken: false,
                taken_at: UNIX_EPOCH + std::time::Duration::from_millis(1500),
                ipvs_names: true,
                suspected: vec![[ODD.to_owned(), ODD.to_owned(), "replies_bypass".to_owned()]],
            },
            routers: vec![router],
            sync: Some(sync),
            process: Process::look(),
        }
    }

    fn written(format: Format) -> String {
        write(everything(), format).unwrap()
    }

    /// Each with its help and type, and the labels of the table in its order.
    #[test]
    fn every_metric_of_the_table_is_told() {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let text = written(format);
            for row in ALL {
                // OpenMetrics names counters without their suffix, but for the samples.
                let name = match (format, row.kind) {
                    (Format::OpenMetrics, Kind::Counter) => row.name.trim_end_matches("_total"),
                    _ => row.name,
                };
                assert!(text.contains(&format!("# HELP {name} {}\n", row.help)), "{name} in\n{text}");
                assert!(text.contains(&format!("# TYPE {name} {}\n", row.kind.name())), "{name} in\n{text}");
                let open = if row.labels.is_empty() { " " } else { "{" };
                let samples: Vec<_> =
                    text.lines().filter_map(|line| line.strip_prefix(row.name)?.strip_prefix(open)).collect();
                assert!(!samples.is_empty(), "{} in\n{text}", row.name);
                for sample in samples {
                    let mut rest = sample;
                    for label in row.labels {
                        let (before, after) = rest.split_once(&format!("{label}=\"")).unwrap();
                        assert!(before.is_empty() || before.ends_with(','), "{} {sample}", row.name);
                        rest = after;
                    }
                }
            }
            assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE ")).count(), ALL.len());
        }
    }

    #[test]
    fn values_are_whole_and_labels_escaped() {
        let text = written(Format::Prometheus);
        for line in [
            format!("dirigent_build_info{{version=\"{}\",director=\"{ESCAPED}\"}} 1", env!("CARGO_PKG_VERSION")),
            format!("dirigent_virtual_router_state{{router=\"{ESCAPED}\",state=\"master\"}} 1"),
            format!("dirigent_virtual_router_state{{router=\"{ESCAPED}\",state=\"backup\"}} 0"),
            format!("dirigent_virtual_router_transitions_total{{router=\"{ESCAPED}\",state=\"master\"}} 7"),
            "dirigent_connections_total 18446744073709551615".to_owned(),
            "dirigent_server_effective_weight{service=\"tcp 192.0.2.10:80\",server=\"10.0.0.2:80\"} 0.25".to_owned(),
            "dirigent_sync_peer_lag_seconds{node=\"10.0.0.1\"} 1.5".to_owned(),
            "dirigent_config_last_reload_success_timestamp_seconds 1.5".to_owned(),
            "dirigent_config_last_reload_successful 0".to_owned(),
            // NAT has two entries for each of 5 connections, and all have one for their template; so has what was removed.
            "dirigent_connection_table_entries{family=\"ipv4\"} 17".to_owned(),
            "dirigent_connection_table_entries{family=\"ipv6\"} 11".to_owned(),
            "dirigent_connection_table_entries_limit{family=\"ipv6\"} 100".to_owned(),
            "dirigent_services 1".to_owned(),
            "dirigent_servers 2".to_owned(),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("removed"), "{text}");
    }
}
