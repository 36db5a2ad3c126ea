//! The Model: what the director shall do.

use crate::check;
use crate::error::{IpvsError, Violation};
use crate::failover::Failover;
use crate::health::{ServerHealth, ServiceHealth};
use crate::mark::{MarkRule, Prefix};
use crate::settings::Settings;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Largest weight of a real server.
pub const MAX_WEIGHT: u32 = i32::MAX as u32;
/// Longest persistence, and longest timeout, seconds: 31 days.
pub const MAX_PERSISTENCE_S: u32 = 31 * 24 * 3600;
/// Persistence without a time, seconds.
pub const DEFAULT_PERSISTENCE_S: u32 = 360;
/// Longest slow start: a day.
pub const MAX_SLOW_START: Duration = Duration::from_secs(24 * 3600);

/// Prefixes of clients at most that a service may name.
pub const MAX_SOURCES: usize = 4096;

/// Transport protocol of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP, 6.
    Tcp,
    /// UDP, 17.
    Udp,
    /// SCTP, 132.
    Sctp,
}

impl Protocol {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The one of that [`Self::name`].
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
    /// The one of that [`Self::number`].
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.number() == number)
    }
    /// `tcp`, `udp` or `sctp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
    /// IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `address:port`, IPv6 in brackets.
pub(crate) fn join(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// Identity of a virtual service. Ordered as `ipvsadm -L` sorts them: those of addresses by
/// family, protocol, address, port; then those of firewall marks, by mark and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServiceKey {
    /// By address.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// Virtual address (VIP).
        address: IpAddr,
        /// Port; 0: all that have no service of their own.
        port: u16,
    },
    /// By firewall mark: all protocols, addresses and ports that are marked so.
    Mark {
        /// The mark.
        mark: NonZeroU32,
        /// The address family of the packets and, without a tunnel, of the servers.
        ipv6: bool,
    },
}

impl ServiceKey {
    /// Whether it is for IPv6 packets.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { ipv6, .. } => *ipv6,
        }
    }
    /// Its virtual address, if it has one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::Mark { .. } => None,
        }
    }
    /// Its protocol, if it has only one.
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Address { protocol, .. } => Some(*protocol),
            Self::Mark { .. } => None,
        }
    }
    /// Its port; 0: any.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address { port, .. } => *port,
            Self::Mark { .. } => 0,
        }
    }
    /// Its firewall mark; 0: none.
    pub fn mark(&self) -> u32 {
        match self {
            Self::Address { .. } => 0,
            Self::Mark { mark, .. } => mark.get(),
        }
    }
    fn rank(&self) -> (u32, bool, Option<Protocol>, Option<IpAddr>, u16) {
        (self.mark(), self.is_ipv6(), self.protocol(), self.address(), self.port())
    }
}
impl Ord for ServiceKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}
impl PartialOrd for ServiceKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl ServiceKey {
    /// The key of a service that need not be there yet: `tcp:192.0.2.10:80`, `fwmark:7`, `fwmark:7:6`, with what
    /// [`Self::is_called`] takes between the words.
    pub fn parse(name: &str) -> Option<Self> {
        let (word, rest) = name.trim().split_once([':', '/', ' '])?;
        if let Some(protocol) = Protocol::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(word)) {
            let at: SocketAddr = rest.trim().parse().ok()?;
            return Some(Self::Address { protocol, address: at.ip(), port: at.port() });
        }
        let mark = rest.split([':', '/', ' ']).find_map(|word| word.parse().ok())?;
        [false, true].map(|ipv6| Self::Mark { mark, ipv6 }).into_iter().find(|key| key.is_called(name))
    }
    /// Whether people call it so: `tcp 192.0.2.10:80`, or without its protocol; `fwmark 7`,
    /// `fwmark 7 IPv6` or `fwmark 7 6`, or as lists show the latter, `FWM  7 IPv6`. Between the
    /// words may be `:` or `/` as well.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        const BETWEEN: [char; 3] = [':', '/', ' '];
        let name = name.trim();
        match *self {
            Self::Address { protocol, address, port } => {
                let (word, rest) = name.split_once(BETWEEN).unwrap_or(("", name));
                let named = Protocol::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(word));
                let rest = if named.is_some() { rest.trim() } else { name };
                named.is_none_or(|p| p == protocol) && rest.parse() == Ok(SocketAddr::new(address, port))
            }
            Self::Mark { mark, ipv6 } => {
                let mut words = name.split(BETWEEN).filter(|word| !word.is_empty());
                let is = |word: &str, one: &[&str]| one.iter().any(|one| word.eq_ignore_ascii_case(one));
                let of = words.next().is_some_and(|word| is(word, &["fwmark", "fwm"]));
                let same = words.next().and_then(|word| word.parse().ok()) == Some(mark.get());
                let family = match words.next() {
                    Some(word) => is(word, if ipv6 { &["6", "ipv6"] } else { &["4", "ipv4"] }),
                    None => !ipv6,
                };
                of && same && family && words.next().is_none()
            }
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address, port } => write!(f, "{protocol} {}", join(*address, *port)),
            Self::Mark { mark, ipv6 } => write!(f, "fwmark {mark}{}", if *ipv6 { " IPv6" } else { "" }),
        }
    }
}

pub use dirigent_director::schedule::Scheduler;

/// A scheduler as its name: the type is the packet path's, which knows no serde.
mod scheduler {
    use super::Scheduler;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(scheduler: &Scheduler, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(scheduler.name())
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Scheduler, D::Error> {
        let name = String::deserialize(from)?;
        Scheduler::from_name(&name).ok_or_else(|| D::Error::custom(format!("there is no scheduler {name:?}")))
    }
}

/// Flags whose meaning is the scheduler's (IPVS SCHED1 to SCHED3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SchedulerFlags {
    /// flag-1; sh-fallback, mh-fallback: clients of an unavailable server go to another.
    pub fallback: bool,
    /// flag-2; sh-port, mh-port: the client's port is hashed too.
    pub port: bool,
    /// flag-3; of no scheduler so far.
    pub third: bool,
}

/// Why a word is no flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagFault {
    /// It is another scheduler's.
    Incompatible,
    /// It is none's.
    Unknown,
}

impl SchedulerFlags {
    /// Sets a flag by ipvsadm's name of it.
    pub(crate) fn set(&mut self, flag: &str, scheduler: &str) -> Result<(), FlagFault> {
        let slot = match flag {
            "flag-1" => &mut self.fallback,
            "flag-2" => &mut self.port,
            "flag-3" => &mut self.third,
            other => {
                let owner = Scheduler::ALL.iter().find(|s| s.flags().is_some_and(|(a, b)| other == a || other == b));
                let owner = owner.ok_or(FlagFault::Unknown)?;
                if owner.name() != scheduler {
                    return Err(FlagFault::Incompatible);
                }
                if owner.flags().is_some_and(|(fallback, _)| other == fallback) {
                    &mut self.fallback
                } else {
                    &mut self.port
                }
            }
        };
        *slot = true;
        Ok(())
    }
    /// The names of those set, as ipvsadm takes them with this scheduler.
    pub fn names(self, scheduler: Scheduler) -> Vec<&'static str> {
        let (fallback, port) = scheduler.flags().unwrap_or(("flag-1", "flag-2"));
        [(self.fallback, fallback), (self.port, port), (self.third, "flag-3")]
            .into_iter()
            .filter_map(|(set, name)| set.then_some(name))
            .collect()
    }
}

/// Which part of a client's address persistence looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Netmask {
    /// Bits of an IPv4 address; holes are allowed, as in IPVS.
    V4(Ipv4Addr),
    /// Length of an IPv6 prefix, 1 to 128.
    V6(u8),
}

impl Netmask {
    /// The whole address of that family.
    pub fn whole(ipv6: bool) -> Self {
        if ipv6 { Self::V6(128) } else { Self::V4(Ipv4Addr::BROADCAST) }
    }
}

impl fmt::Display for Netmask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(mask) => write!(f, "{mask}"),
            Self::V6(length) => write!(f, "/{length}"),
        }
    }
}

/// A client's connections go to the server of its earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Persistence {
    /// Seconds after the last connection, 1 to [`MAX_PERSISTENCE_S`].
    pub timeout_s: u32,
    /// Clients that count as one.
    pub mask: Netmask,
}

/// Who puts the virtual address on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VipPolicy {
    /// The operator, or failover; the default.
    #[default]
    Operator,
    /// The daemon: adds, announces and removes it.
    Manage,
}

impl VipPolicy {
    /// `operator` or `manage`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Manage => "manage",
        }
    }
}

/// Header around a tunnelled packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TunnelKind {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation, to that port (not 0).
    Gue {
        /// UDP port of the server.
        port: u16,
    },
    /// GRE.
    Gre,
}

impl TunnelKind {
    /// `ipip`, `gue` or `gre`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue { .. } => "gue",
            Self::Gre => "gre",
        }
    }
}

/// Checksum of the outer header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TunnelChecksum {
    /// None; the default, and ipip's only one.
    #[default]
    None,
    /// Over the whole packet; gue and gre.
    Full,
    /// Remote checksum offload; gue only.
    Remote,
}

impl TunnelChecksum {
    /// `none`, `full` or `remote`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Full => "full",
            Self::Remote => "remote",
        }
    }
}

/// How a tunnel to a real server is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tunnel {
    /// Header.
    pub kind: TunnelKind,
    /// Checksum.
    pub checksum: TunnelChecksum,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self { kind: TunnelKind::Ipip, checksum: TunnelChecksum::None }
    }
}

/// How packets get to a real server, and its answers back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// Addresses and ports rewritten; answers come back through the director.
    Nat,
    /// Direct routing: the frame readdressed; the server answers on its own.
    Dr,
    /// Tunnelled; the server answers on its own.
    Tun(Tunnel),
}

impl Method {
    /// `nat`, `dr` or `tun`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Tun(_) => "tun",
        }
    }
}

/// What stands for a server in QUIC's connection ids: four bytes, the first the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerId(pub u32);

impl ServerId {
    /// Of eight hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
        u32::from_str_radix(text, 16).ok().filter(|_| digits).map(Self)
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A real server of one virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Server {
    /// Address; with port its identity in the service.
    pub address: IpAddr,
    /// Port; 0: the one the client used.
    pub port: u16,
    /// Forwarding method.
    pub method: Method,
    /// 0 to [`MAX_WEIGHT`]; 0: no new connections.
    pub weight: u32,
    /// Connections at which no more come; 0: no limit.
    pub upper: u32,
    /// Connections under which they come again; 0: three quarters of `upper`.
    pub lower: u32,
    /// QUIC: the id in connection ids that it makes; none: see [`Server::quic_id`]. Not
    /// IPVS's: ipvsadm rules leave it.
    pub server_id: Option<ServerId>,
    /// How it is checked. Not IPVS's: as `server_id`. Shared: a service of thousands is copied for each change of a
    /// server's health.
    #[serde(default)]
    pub health: Arc<ServerHealth>,
    /// It takes no new connections, whatever its weight, and clients' persistence ends: those
    /// it has go on. Neither IPVS's nor the file's, but an operator's while the director runs.
    pub draining: bool,
}

impl Server {
    /// A server with weight 1 and no thresholds.
    pub fn new(address: IpAddr, port: u16, method: Method) -> Self {
        Self {
            address,
            port,
            method,
            weight: 1,
            upper: 0,
            lower: 0,
            server_id: None,
            health: Arc::default(),
            draining: false,
        }
    }
    /// Its id in QUIC's connection ids: the last four bytes of its address, if it has no other.
    pub fn quic_id(&self) -> ServerId {
        self.server_id.unwrap_or_else(|| {
            let last = match self.address {
                IpAddr::V4(a) => a.to_bits(),
                IpAddr::V6(a) => a.to_bits() as u32,
            };
            ServerId(last)
        })
    }
    /// Whether it is meant to take new connections.
    pub fn takes(&self) -> bool {
        self.weight > 0 && !self.draining
    }
    /// Its identity in its service.
    pub fn identity(&self) -> (IpAddr, u16) {
        (self.address, self.port)
    }
    /// `address:port`.
    pub fn name(&self) -> String {
        join(self.address, self.port)
    }
}

/// Which clients may open connections to a virtual service. The longest prefix that holds a
/// client decides; one that none holds may, unless `allow` names any. Not IPVS's, which left
/// that to netfilter: as [`Service::vip`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sources {
    /// They may.
    pub allow: Vec<Prefix>,
    /// They may not.
    pub deny: Vec<Prefix>,
}

impl Sources {
    /// Whether every client may.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
    /// Every prefix with whether its clients may, and first of all what holds for the rest.
    /// Of an empty one nothing.
    pub fn rules(&self, ipv6: bool) -> impl Iterator<Item = (Prefix, bool)> {
        let rest = (!self.is_empty()).then_some((Prefix::everyone(ipv6), self.allow.is_empty()));
        let allow = self.allow.iter().map(|prefix| (*prefix, true));
        rest.into_iter().chain(allow).chain(self.deny.iter().map(|prefix| (*prefix, false)))
    }
}

/// A virtual service with its real servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Identity.
    pub key: ServiceKey,
    /// Scheduler.
    #[serde(with = "scheduler")]
    pub scheduler: Scheduler,
    /// Its flags.
    pub scheduler_flags: SchedulerFlags,
    /// Slots of the scheduler's table, where it may have others than by default: one of
    /// [`Scheduler::table`]'s sizes; None: the default. Not IPVS's, where all have the kernel's: as `vip`.
    #[serde(default)]
    pub table_size: Option<u32>,
    /// Each packet is scheduled alone, without a connection; UDP only.
    pub one_packet: bool,
    /// Persistence, if any.
    pub persistence: Option<Persistence>,
    /// Connections that the director does not know go on with the server of their hash, as
    /// after the failure of another director; TCP and SCTP. Not IPVS's: as `vip`.
    pub stateless: bool,
    /// The servers' ids in QUIC's connection ids say whose clients are whose; UDP only. Not
    /// IPVS's: as `vip`.
    pub quic: bool,
    /// A server that comes, or returns, takes its share of new connections little by little, in
    /// this time. Not IPVS's: as `vip`.
    pub slow_start: Option<Duration>,
    /// Which clients may open connections.
    #[serde(default)]
    pub sources: Sources,
    /// Who holds the virtual address. Not IPVS's: [`Model::edit_service`] and
    /// plans set it, ipvsadm rules leave it.
    pub vip: VipPolicy,
    /// What follows from its servers' checks. Not IPVS's: as `vip`.
    #[serde(default)]
    pub health: ServiceHealth,
    /// Real servers, oldest first. The schedulers go the other way: see
    /// [`Service::servers_in_list_order`].
    pub servers: Vec<Server>,
}

impl Service {
    /// A service with defaults only and no server.
    pub fn new(key: ServiceKey) -> Self {
        Self {
            key,
            scheduler: Scheduler::Wlc,
            scheduler_flags: SchedulerFlags::default(),
            table_size: None,
            one_packet: false,
            persistence: None,
            stateless: false,
            quic: false,
            slow_start: None,
            sources: Sources::default(),
            vip: VipPolicy::Operator,
            health: ServiceHealth::default(),
            servers: Vec::new(),
        }
    }
    /// IPVS's list, which schedulers walk: newest first.
    pub fn servers_in_list_order(&self) -> impl DoubleEndedIterator<Item = &Server> + ExactSizeIterator {
        self.servers.iter().rev()
    }
    /// The server with that identity.
    pub fn server(&self, address: IpAddr, port: u16) -> Option<&Server> {
        self.servers.iter().find(|s| s.identity() == (address, port))
    }
    /// Slots of the scheduler's table; 0: it looks into none.
    pub fn table_slots(&self) -> u32 {
        self.scheduler.table().map_or(0, |table| self.table_size.unwrap_or(table.size))
    }
    /// The same without servers.
    pub fn without_servers(&self) -> Self {
        Self { servers: Vec::new(), ..self.clone() }
    }
}

/// Settings, services, mark rules and failover. Changes go through the methods, which keep the
/// invariants ([`Violation`] lists them) and refuse as the kernel does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    settings: Settings,
    /// Sorted by key.
    services: Vec<Service>,
    /// In the order in which packets meet them.
    marks: Vec<MarkRule>,
    failover: Failover,
}

impl Model {
    /// A Model without failover, or all that is wrong with it. Services may come in any order.
    pub fn new(settings: Settings, services: Vec<Service>, marks: Vec<MarkRule>) -> Result<Self, Vec<Violation>> {
        Self::whole(settings, services, marks, Failover::default())
    }

    /// A Model, or all that is wrong with it. Services may come in any order.
    pub fn whole(
        settings: Settings,
        services: Vec<Service>,
        marks: Vec<MarkRule>,
        failover: Failover,
    ) -> Result<Self, Vec<Violation>> {
        let mut violations = settings.violations();
        violations.extend(check::marks(&marks));
        violations.extend(check::failover(&failover));
        violations.extend(check::held_twice(&failover, &services));
        let mut model = Self { settings, services: Vec::new(), marks, failover };
        for service in services {
            violations.extend(check::service(&service));
            violations.extend(check::ids(&service).map(|(_, violation)| violation));
            match model.position(&service.key) {
                Ok(_) => violations.push(Violation::DuplicateService(service.key)),
                Err(at) => model.services.insert(at, service),
            }
        }
        if violations.is_empty() { Ok(model) } else { Err(violations) }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    /// The services, ordered by key.
    pub fn services(&self) -> &[Service] {
        &self.services
    }
    /// The service of that key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.position(key).ok().and_then(|at| self.services.get(at))
    }

    /// How many checks of servers are configured.
    pub fn checks(&self) -> usize {
        self.services.iter().flat_map(|s| &s.servers).map(|s| s.health.checks.len()).sum()
    }
    /// The mark rules, in the order in which packets meet them.
    pub fn marks(&self) -> &[MarkRule] {
        &self.marks
    }

    /// Failover.
    pub fn failover(&self) -> &Failover {
        &self.failover
    }
    /// Replaces failover. That no virtual address is held twice is asked of whole Models only: a change from one to
    /// another may pass through a state in which one is.
    pub fn set_failover(&mut self, failover: Failover) -> Result<(), IpvsError> {
        first(check::failover(&failover))?;
        self.failover = failover;
        Ok(())
    }
    /// Which virtual addresses are held by the daemon and by a virtual router.
    pub fn held_twice(&self) -> Vec<Violation> {
        check::held_twice(&self.failover, &self.services)
    }

    /// Replaces the mark rules.
    pub fn set_marks(&mut self, marks: Vec<MarkRule>) -> Result<(), IpvsError> {
        first(check::marks(&marks))?;
        self.marks = marks;
        Ok(())
    }
    /// Replaces the settings.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), IpvsError> {
        if let Some(violation) = settings.violations().into_iter().next() {
            return Err(violation.into());
        }
        self.settings = settings;
        Ok(())
    }
    /// Adds a service with its servers.
    pub fn add_service(&mut self, service: Service) -> Result<(), IpvsError> {
        let Err(at) = self.position(&service.key) else {
            return Err(IpvsError::ServiceExists);
        };
        first(check::service(&service))?;
        self.services.insert(at, service);
        Ok(())
    }
    /// Replaces all of a service but its servers; those of `service` are ignored.
    pub fn edit_service(&mut self, service: &Service) -> Result<(), IpvsError> {
        let old = self.service_mut(&service.key).ok_or(IpvsError::NoSuchService)?;
        let new = Service { servers: std::mem::take(&mut old.servers), ..service.without_servers() };
        let verdict = first(check::service(&new));
        match verdict {
            Ok(()) => *old = new,
            Err(_) => old.servers = new.servers,
        }
        verdict
    }
    /// Adds a service with its servers, or replaces the one of that key with its servers.
    pub fn put_service(&mut self, service: Service) -> Result<(), IpvsError> {
        let mut violations = check::service(&service);
        violations.extend(check::ids(&service).map(|(_, violation)| violation));
        violations.extend(check::held_twice(&self.failover, std::slice::from_ref(&service)));
        first(violations)?;
        match self.services.binary_search_by(|s| s.key.cmp(&service.key)) {
            Ok(at) => self.services.get_mut(at).into_iter().for_each(|old| *old = service.clone()),
            Err(at) => self.services.insert(at, service),
        }
        Ok(())
    }
    /// Removes a service and its servers.
    pub fn remove_service(&mut self, key: &ServiceKey) -> Result<(), IpvsError> {
        let at = self.position(key).map_err(|_| IpvsError::NoSuchService)?;
        self.services.remove(at);
        Ok(())
    }
    /// Adds a server, which becomes the newest.
    pub fn add_server(&mut self, key: &ServiceKey, server: Server) -> Result<(), IpvsError> {
        let service = self.service_mut(key).ok_or(IpvsError::ServiceNotDefined)?;
        check_number(&server)?;
        if service.server(server.address, server.port).is_some() {
            return Err(IpvsError::ServerExists);
        }
        first(check::server(service, &server))?;
        first(check::health(&server))?;
        service.servers.push(server);
        Ok(())
    }
    /// Replaces a server of the same address and port; it keeps its place.
    pub fn edit_server(&mut self, key: &ServiceKey, server: Server) -> Result<(), IpvsError> {
        let service = self.service_mut(key).ok_or(IpvsError::ServiceNotDefined)?;
        check_number(&server)?;
        let verdict = first(check::server(service, &server)).and_then(|()| first(check::health(&server)));
        let Some(old) = service.servers.iter_mut().find(|s| s.identity() == server.identity()) else {
            return Err(IpvsError::NoSuchServer);
        };
        verdict?;
        *old = server;
        Ok(())
    }
    /// Removes a server.
    pub fn remove_server(&mut self, key: &ServiceKey, address: IpAddr, port: u16) -> Result<(), IpvsError> {
        let service = self.service_mut(key).ok_or(IpvsError::ServiceNotDefined)?;
        let at = service.servers.iter().position(|s| s.identity() == (address, port));
        service.servers.remove(at.ok_or(IpvsError::NoSuchServer)?);
        Ok(())
    }
    /// Removes all services.
    pub fn clear(&mut self) {
        self.services.clear();
    }

    fn position(&self, key: &ServiceKey) -> Result<usize, usize> {
        self.services.binary_search_by(|s| s.key.cmp(key))
    }
    fn service_mut(&mut self, key: &ServiceKey) -> Option<&mut Service> {
        self.position(key).ok().and_then(|at| self.services.get_mut(at))
    }
}

fn first(violations: Vec<Violation>) -> Result<(), IpvsError> {
    violations.into_iter().next().map_or(Ok(()), |v| Err(v.into()))
}

/// The kernel looks at the numbers before it looks the server up.
fn check_number(server: &Server) -> Result<(), IpvsError> {
    first(check::numbers(server))
}
