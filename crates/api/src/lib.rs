//! The types of the control API, which daemon and command line speak as JSON over HTTP on a Unix socket. No IO.
//!
//! Addresses with ports are text as people write them (`192.0.2.10:80`, `[2001:db8::10]:80`). Fields may be added in
//! later versions; readers ignore what they do not know.

pub mod log;
pub mod metrics;
pub mod path;
mod spec;
mod trace;
mod walk;

pub use spec::{PersistenceSpec, ScriptSpec, ServerSpec, ServiceSpec};
pub use trace::{Captured, RATE as TRACE_RATE, TraceEvent, TraceOf, Traced};
pub use walk::{Fits, Hop, MacAddress, OuterPacket, Traffic, Walk, Way};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use utoipa::{IntoParams, ToSchema};

/// What the doctor found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// The ways to servers that were tried.
    pub paths: Vec<TriedPath>,
}

/// A way to a server that was tried as clients' packets go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TriedPath {
    /// The service.
    pub service: String,
    /// The server.
    pub server: String,
    /// Whether an answer came back as a client's would.
    pub right: bool,
    /// What came of it.
    pub what: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Its name, which stays the same: docs/doctor.md has a row for each.
    pub name: String,
    /// `error`: clients suffer, or would; `warning`: they may.
    pub severity: String,
    /// What it is about.
    pub place: String,
    /// What is wrong, in a sentence.
    pub what: String,
    /// What was sent, seen or read.
    pub evidence: Vec<String>,
    /// Why that is wrong.
    pub rule: String,
    /// What helps.
    pub remedy: String,
    /// Commands that do it: on which host, and what.
    pub commands: Vec<HostCommand>,
    /// Kernel parameters of this host that `--fix` sets.
    pub sysctls: Vec<Parameter>,
    /// Entries of this host's neighbour table, set by hand, that `--fix` removes.
    #[serde(default)]
    pub neighbours: Vec<NeighbourEntry>,
    /// Receive queues whose packets `--fix` spreads over CPUs.
    #[serde(default)]
    pub steering: Vec<Steering>,
}

/// To which CPUs the kernel hands the packets of a receive queue (RPS).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Steering {
    /// The interface.
    pub interface: String,
    /// The queue, like `rx-0`.
    pub queue: String,
    /// A mask in hexadecimal, as in `/sys/class/net/INTERFACE/queues/QUEUE/rps_cpus`.
    pub cpus: String,
}

/// An entry of the table of neighbours (ARP, neighbour discovery).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NeighbourEntry {
    /// The interface.
    pub interface: String,
    /// Whose.
    pub address: String,
    /// The hardware address, like `02:00:00:00:03:01`.
    pub mac: String,
}

/// A command for a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostCommand {
    /// `director`, or a server's address.
    pub host: String,
    /// The command.
    pub command: String,
}

/// A kernel parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Parameter {
    /// Its name, with slashes: interfaces' names may hold dots.
    pub name: String,
    /// What it shall be.
    pub value: String,
}

/// Something is wrong: where, what, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where: a file with line and column, an address, an interface.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it; empty where nobody knows.
    pub remedy: String,
}

impl Problem {
    /// A problem from its parts.
    pub fn new(place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.what)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// The body of every answer that is no success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// Whether the configuration is at fault, not the system.
    pub invalid: bool,
    /// Whether the configuration is not the one that the change was meant for any more (status 409).
    #[serde(default)]
    pub stale: bool,
    /// Whether the asker, or the daemon, lacks the rights (status 403).
    #[serde(default)]
    pub denied: bool,
    /// Whether there is no such service or server (status 404).
    #[serde(default)]
    pub absent: bool,
    /// Whether the service or server that was to be added is there already (status 409).
    #[serde(default)]
    pub exists: bool,
    /// All that is wrong.
    pub problems: Vec<Problem>,
}

/// How the director is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the program that answers.
    pub version: String,
    /// Name of the director.
    pub instance: String,
    /// The daemon; none when the answer was read from the pinned maps.
    pub daemon: Option<Daemon>,
    /// Where the packet path is attached.
    pub interfaces: Vec<Interface>,
    /// Room for connections, of which NAT uses two entries each.
    pub connections: Room,
    /// How long connections without packets last.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// The virtual addresses.
    pub virtual_addresses: Vec<VirtualAddress>,
    /// The virtual routers.
    #[serde(default)]
    pub virtual_routers: Vec<VirtualRouter>,
    /// Synchronisation of connections with other directors; none: it is off, or the daemon does not run.
    #[serde(default)]
    pub synchronisation: Option<Synchronisation>,
    /// What is wrong now.
    pub problems: Vec<Problem>,
}

/// Synchronisation of connections with other directors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Synchronisation {
    /// `both`, `master` (it tells) or `backup` (it learns).
    pub role: String,
    /// This director's number among the others, written as an address.
    pub node: String,
    /// The interface that its messages go and come by; none: by routes, to single peers.
    pub interface: Option<String>,
    /// The id of its messages.
    pub id: u8,
    /// Longest message, bytes.
    pub maxlen: u16,
    /// The multicast group.
    pub group: String,
    /// UDP port.
    pub port: u16,
    /// TTL of what goes to the group.
    pub ttl: u8,
    /// Connections and templates that are this director's own.
    pub own: u64,
    /// Those that were learned from kernels with IPVS.
    pub kernels: u64,
    /// Records that were sent.
    pub sent: u64,
    /// Records that were heard.
    pub received: u64,
    /// Changes of the tables by them.
    pub applied: u64,
    /// What was dropped of what was heard, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// The other directors.
    pub peers: Vec<SyncPeer>,
    /// What went wrong when something was last sent.
    pub trouble: Option<String>,
}

/// Another director, as synchronisation knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncPeer {
    /// Its number, written as an address.
    pub node: String,
    /// Where its messages come from.
    pub address: String,
    /// All its connections are known here.
    pub whole: bool,
    /// Connections and templates that were learned from it, and are there still.
    pub known: u64,
    /// How many it says that it has.
    pub expected: u64,
    /// Milliseconds by which what is known is older than what it has.
    pub lag_ms: u64,
    /// Milliseconds since it was heard.
    pub silent_ms: u64,
    /// Times that something was missing.
    pub gaps: u64,
    /// Messages that came when they were asked for again.
    pub repaired: u64,
    /// Messages that never came.
    pub lost: u64,
}

/// A virtual router of this host (VRRP).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtualRouter {
    /// Its name.
    pub name: String,
    /// Its sync group.
    pub group: Option<String>,
    /// The interface that it speaks by.
    pub interface: String,
    /// Version of VRRP: 2 or 3.
    pub version: u8,
    /// Address family of its adverts: 4 or 6.
    pub family: u8,
    /// Its number on the link.
    pub vrid: u8,
    /// `master`, `backup`, `fault`, or `stopped`: it has not begun.
    pub state: String,
    /// Why it is so.
    pub why: String,
    /// When it came to be so, in seconds since 1970 (UTC).
    pub since_s: u64,
    /// Seconds since then.
    pub for_s: u64,
    /// Its priority now.
    pub priority: u8,
    /// Its priority without what is tracked.
    pub configured_priority: u8,
    /// The address that its adverts come from; none: its interface has none.
    pub source: Option<String>,
    /// Its addresses: this host's while it is master.
    pub addresses: Vec<String>,
    /// The other master that was heard last.
    pub master: Option<HeardMaster>,
    /// It is master, and there are signs of another one.
    pub contended: bool,
    /// One of its addresses that another host says is its own, and that host's MAC.
    #[serde(default)]
    pub claimed: Option<String>,
    /// It gave way when an operator asked, and takes over from nobody that lives.
    pub gave_way: bool,
    /// Times that it came into each state, since the daemon began; states that it never came into are not here.
    #[serde(default)]
    pub transitions: BTreeMap<String, u64>,
}

/// A master of a virtual router, on another host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeardMaster {
    /// Where its adverts come from.
    pub address: String,
    /// The priority that they say.
    pub priority: u8,
    /// Milliseconds since the last one.
    pub heard_ms: u64,
}

/// What would happen to a virtual router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rehearsal {
    /// Its name.
    pub router: String,
    /// `taken over`, `unknown` (no other router was ever heard), or `nothing changes`: it is not master here.
    pub outcome: String,
    /// Who takes over, or is master.
    pub by: Option<String>,
    /// In how many milliseconds, if no advert is lost.
    pub expected_ms: Option<u64>,
    /// And at the latest.
    pub latest_ms: Option<u64>,
    /// When it comes back if there is nobody else.
    pub comes_back_ms: Option<u64>,
    /// The same for people.
    pub text: String,
}

/// The daemon of a director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Daemon {
    /// Process number.
    pub pid: u32,
    /// Seconds since it took up its work.
    pub uptime_s: u64,
    /// The configuration file; empty: there is none.
    pub config: String,
    /// Goes up by one with each change of what is configured.
    #[serde(default)]
    pub generation: u64,
    /// What was changed at runtime, each with what the file says.
    #[serde(default)]
    pub drift: Vec<String>,
    /// Whether it took over the programs and maps of an earlier one.
    pub took_over: bool,
}

/// Room in the connection tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Room {
    /// Connections there is room for, of each address family.
    pub connections: u64,
    /// Kernel memory of both tables, bytes.
    pub bytes: u64,
    /// Connections there are, active and inactive.
    pub used: u64,
}

/// An interface with the packet path on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// Its name; empty when it is not in the asker's namespace.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// `xdp`, `xdp-generic` or `tc`: which program sees packets first.
    pub path: String,
    /// Why that path, and why this interface.
    pub reasons: Vec<String>,
}

/// A virtual address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtualAddress {
    /// The address.
    pub address: String,
    /// Whether the daemon adds and removes it.
    pub managed: bool,
    /// The interface that has it; none: nobody here holds it.
    pub holder: Option<String>,
}

/// Traffic counters, sums over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets towards servers.
    pub in_packets: u64,
    /// Their bytes, from the IP header on.
    pub in_bytes: u64,
    /// Packets towards clients.
    pub out_packets: u64,
    /// Their bytes.
    pub out_bytes: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        let pairs = [
            (&mut self.connections, other.connections),
            (&mut self.in_packets, other.in_packets),
            (&mut self.in_bytes, other.in_bytes),
            (&mut self.out_packets, other.out_packets),
            (&mut self.out_bytes, other.out_bytes),
        ];
        for (sum, more) in pairs {
            *sum = sum.wrapping_add(more);
        }
    }
}

/// A virtual service with its real servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// `tcp`, `udp` or `sctp`; `fwm` for a service by firewall mark, as ipvsadm calls it.
    pub protocol: String,
    /// Virtual address and port; of a service by firewall mark the mark.
    pub address: String,
    /// The firewall mark, if it has one.
    pub fwmark: Option<u32>,
    /// Whose packets: 4 or 6.
    pub family: u8,
    /// IPVS's name of the scheduler.
    pub scheduler: String,
    /// Flags: `one-packet`, `mh-port`, `mh-fallback`.
    pub flags: Vec<String>,
    /// Slots of the scheduler's table; none: it looks into none.
    #[serde(default)]
    pub table_size: Option<u32>,
    /// Clients' connections go to the server of their earlier ones.
    pub persistence: Option<Persistence>,
    /// Prefixes of the clients that may open connections; none here and in `deny`: all may.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Prefixes of the clients that may not, but for those of a longer prefix in `allow`.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Whether it has its quorum of servers that pass their checks; none: nothing is checked, or there is no daemon.
    #[serde(default)]
    pub quorum: Option<bool>,
    /// Its servers, oldest first.
    pub servers: Vec<Server>,
    /// Its traffic, that of servers that it had too.
    pub counters: Counters,
    /// The same each second, a moving average as IPVS's; none without a daemon.
    pub rates: Option<Counters>,
}

impl Service {
    /// `tcp 192.0.2.10:80`; of a firewall mark as ipvsadm writes it, `FWM  7 IPv6`.
    pub fn name(&self) -> String {
        match self.fwmark {
            Some(mark) => format!("FWM  {mark}{}", if self.family == 6 { " IPv6" } else { "" }),
            None => format!("{} {}", self.protocol, self.address),
        }
    }
}

/// Persistence of a virtual service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Persistence {
    /// Seconds after the last connection.
    pub timeout_s: u32,
    /// Clients that count as one: `255.255.255.0`, or IPv6 `/64`.
    pub mask: String,
}

/// A real server of one virtual service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Server {
    /// Name of its service.
    pub service: String,
    /// Address and port.
    pub address: String,
    /// `nat`, `dr` or `tun`.
    pub method: String,
    /// Of `tun`: what packets are inside of.
    #[serde(default)]
    pub tunnel: Option<Tunnel>,
    /// The weight that it is configured with, or that its checks give it; 0: no new connections.
    pub weight: u32,
    /// The weight by which it gets new connections now: less than `weight` while it starts
    /// slowly, 0 while it is drained.
    pub effective_weight: f64,
    /// Upper threshold; 0: none.
    pub upper: u32,
    /// Lower threshold; 0: three quarters of the upper one.
    pub lower: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Persistence templates.
    pub templates: u64,
    /// `available`, `starting` (slowly), `draining`, `quiesced` (weight 0), `overloaded`, `down` (its checks fail), `away` (the
    /// sorry server serves in its stead), or `removed` (its connections wait for its return).
    pub state: String,
    /// How frames reach it.
    pub next_hop: NextHop,
    /// Its traffic.
    pub counters: Counters,
    /// The same each second, a moving average as IPVS's; none without a daemon.
    pub rates: Option<Counters>,
    /// What its checks say; none: it has none, or there is no daemon.
    #[serde(default)]
    pub health: Option<Health>,
}

impl Server {
    /// Whether IPVS's table would have it: it is neither removed nor kept out by its health.
    pub fn is_in_table(&self) -> bool {
        self.state != "removed" && self.next_hop.state != "removed"
    }
}

/// What a real server's checks say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `up`, `down`, or `unknown`: not checked yet, and taken for up.
    pub state: String,
    /// Which check fails, and why; none: it is up.
    pub why: Option<String>,
    /// When it went up or down, in seconds since 1970 (UTC).
    pub since_s: u64,
    /// Seconds since then.
    pub for_s: u64,
    /// Kinds of its checks.
    pub checks: Vec<String>,
}

/// What tunnelled packets are inside of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tunnel {
    /// `ipip`, `gre` or `gue`.
    pub kind: String,
    /// The server's UDP port, of `gue`.
    pub port: Option<u16>,
    /// `none`, `full` or `remote`.
    pub checksum: String,
}

/// How frames reach a real server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextHop {
    /// `resolved`, `no neighbour`, `no route`, `local`, `removed` or `unknown`.
    pub state: String,
    /// The number of the interface.
    pub interface: u32,
    /// Hardware address of the server or its gateway.
    pub mac: String,
    /// Largest IP packet, bytes.
    pub mtu: u32,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address and port of the client.
    pub client: String,
    /// The virtual service's.
    pub virtual_address: String,
    /// The real server's.
    pub server: String,
    /// IPVS's name of the state.
    pub state: String,
    /// Seconds until it expires without a packet.
    pub expires_s: u32,
    /// Packets of the client.
    pub in_packets: u32,
    /// Packets of the server.
    pub out_packets: u32,
}

/// A part of the connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// No more than were asked for.
    pub connections: Vec<Connection>,
    /// There are more.
    pub more: bool,
}

/// Which connections are told: parameters of the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ConnectionsOf {
    /// No more than this many.
    pub limit: Option<usize>,
    /// Only those of this service, like `tcp:192.0.2.10:80` or `fwmark:7`.
    pub service: Option<String>,
    /// Only those of this server, like `10.0.0.2:8080`; without a port of all that have the address.
    pub server: Option<String>,
}

impl ConnectionsOf {
    /// As many as are told at once.
    pub const EVERY: Self = Self { limit: Some(usize::MAX), service: None, server: None };
}

/// What would become of a packet now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The packet, like `tcp 198.51.100.7:40000 → 192.0.2.10:80 [SYN]`.
    pub packet: String,
    /// The interface it comes in by.
    pub interface: String,
    /// `xdp` or `tc`: what sees it first there.
    pub path: String,
    /// What is looked at and done, in order.
    pub steps: Vec<String>,
    /// Name of the verdict's counter.
    pub reason: String,
    /// `forwarded`, `passed`, `answered` or `dropped`.
    pub kind: String,
    /// The verdict in a sentence.
    pub verdict: String,
    /// What is sent, in order: the packet as it is rewritten, its pieces, or the error that answers it. What goes to this
    /// host's own stack is here too, without an interface.
    pub sent: Vec<Sent>,
}

/// A frame that leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sent {
    /// The interface; empty: to this host's own stack.
    pub interface: String,
    /// Whom the frame is from.
    pub source_mac: String,
    /// Whom it is for.
    pub destination_mac: String,
    /// What is in it.
    pub packet: String,
    /// Its bytes, Ethernet header and all.
    pub bytes: usize,
}

/// What became of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Name of the counter; docs/drops.md has a row for each.
    pub name: String,
    /// `forwarded`, `passed`, `answered` or `dropped`.
    pub kind: String,
    /// One sentence for people.
    pub text: String,
    /// Packets.
    pub count: u64,
}

impl Reason {
    /// Whether the packet did not get where it was sent: it was dropped, or answered with an error.
    pub fn is_loss(&self) -> bool {
        matches!(self.kind.as_str(), "dropped" | "answered")
    }
}

/// All counters, sums over all CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// All since the director was loaded or all was zeroed, that of services that are gone too.
    pub total: Counters,
    /// The same each second.
    pub rates: Option<Counters>,
    /// By service and server.
    pub services: Vec<Service>,
    /// By verdict.
    pub reasons: Vec<Reason>,
    /// So many services there are that were asked for, of which `services` may be a part.
    #[serde(default)]
    pub matching: usize,
}

/// Which of the services' counters are told beside those of everything: parameters of the address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct StatsOf {
    /// Those of services at all (default), or `false`: none.
    pub services: Option<bool>,
    /// Only those of this service, like `tcp:192.0.2.10:80` or `fwmark:7`.
    pub service: Option<String>,
    /// Only those in whose name, or in the name or state of a server of theirs, is each of these words.
    pub filter: Option<String>,
    /// Which come first; default `listed`.
    #[param(inline)]
    pub order: Option<Order>,
    /// Without the first so many.
    pub skip: Option<usize>,
    /// No more than this many.
    pub limit: Option<usize>,
}

/// The order of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As lists have them.
    #[default]
    Listed,
    /// Those with the most bytes each second.
    Traffic,
    /// Those without a quorum, and then those with the most servers that take no connections against their will.
    Trouble,
}

/// Whoever asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// What the history calls him.
    pub name: String,
    /// Whether he may change the director, by the way that he asks.
    pub operates: bool,
}

/// A real server of a virtual service. Asked for in any form that the command line takes;
/// answered as lists have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerName {
    /// The service, like `tcp:192.0.2.10:80`.
    pub service: String,
    /// Its server, like `10.0.0.2:8080`.
    pub server: String,
}

/// A server's drain began, or ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drained {
    /// Which server.
    #[serde(flatten)]
    pub name: ServerName,
    /// What was done.
    #[serde(flatten)]
    pub changed: Changed,
}

/// Timeouts as ipvsadm knows them, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Timeouts {
    /// TCP ESTABLISHED.
    pub tcp_s: u32,
    /// TCP FIN_WAIT.
    pub tcp_fin_s: u32,
    /// UDP.
    pub udp_s: u32,
}

/// How far a drain has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// Which server.
    #[serde(flatten)]
    pub name: ServerName,
    /// `drained`: no connection is left; else `draining`, `undrained` (by somebody, meanwhile) or
    /// `removed`.
    pub state: String,
    /// Active connections left.
    pub active: u32,
    /// Inactive connections left.
    pub inactive: u32,
    /// Persistence templates left. They send nobody there any more, and nobody waits for them.
    pub templates: u64,
    /// Seconds since the command began.
    pub seconds: u64,
}

/// On which terms a change is made: parameters of the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct Guard {
    /// The generation that it is meant for: refused with status 409 if another is in force.
    pub generation: Option<u64>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// A configuration as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// What messages call it: the file's name.
    pub name: String,
    /// dirigent.toml, or whatever `dirigent run --config` takes.
    pub text: String,
}

/// What is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Configuration {
    /// Goes up by one with each change.
    pub generation: u64,
    /// The configuration file; none: everything comes at runtime.
    pub file: Option<String>,
    /// What was changed at runtime, each with what the file says.
    pub drift: Vec<String>,
    /// As dirigent.toml.
    pub text: String,
    /// What IPVS's sysctls (`net.ipv4.vs.NAME`) would say.
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
}

/// A change that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Past {
    /// The generation that it made.
    pub generation: u64,
    /// When, in seconds since 1970 (UTC).
    pub time_s: u64,
    /// Who: a user and process, or a signal.
    pub by: String,
    /// What was asked for.
    pub what: String,
    /// The operations in order, one sentence each; of many only the first.
    pub operations: Vec<String>,
    /// So many more there were.
    pub more: usize,
    /// Whether it can be taken back.
    pub undo: bool,
}

/// Rules as ipvsadm takes them, with numbers for all names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IpvsadmLines {
    /// `-A -t 192.0.2.10:80 -s rr`, one after the other.
    pub lines: Vec<String>,
    /// As in [`Guard`].
    #[serde(default)]
    pub generation: Option<u64>,
}

/// What became of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IpvsadmDone {
    /// The generation afterwards.
    pub generation: u64,
    /// Those that were refused; all others were done.
    pub refused: Vec<IpvsadmRefused>,
}

/// A rule that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IpvsadmRefused {
    /// Which, from 0.
    pub line: usize,
    /// What the kernel would say: `Service already exists`.
    pub what: String,
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The generation in force; with [`Guard::dry_run`] the one that it would be made to.
    #[serde(default)]
    pub generation: u64,
    /// The operations in order, one sentence each; empty: there was nothing to do.
    pub operations: Vec<String>,
    /// What it could not change without a restart.
    pub notes: Vec<String>,
}

/// An event that is over, and when it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Happened {
    /// Goes up by one with each.
    pub number: u64,
    /// When, in seconds since 1970 (UTC).
    pub time_s: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened, as the stream of events tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A configuration was applied.
    Applied {
        /// The generation that it made.
        generation: u64,
        /// Who: a user and process, or a signal.
        by: String,
        /// What was asked for.
        what: String,
        /// So many operations it took.
        operations: usize,
    },
    /// A real server can be reached, or cannot be any more.
    Server {
        /// Its address.
        address: String,
        /// Whether it can be reached.
        up: bool,
        /// How, or why not: as [`NextHop::state`].
        why: String,
    },
    /// A real server's checks began to fail, or to pass.
    Health {
        /// Its service.
        service: String,
        /// The server.
        server: String,
        /// Whether they pass.
        up: bool,
        /// Which check fails, and why.
        why: String,
    },
    /// A service has its quorum again, or lost it.
    Quorum {
        /// The service.
        service: String,
        /// Whether it has it.
        up: bool,
    },
    /// What the director is for its addresses changed.
    Role {
        /// `active`, or `ended`: the daemon ends, and forwarding goes on or is removed. Of a virtual router its state and
        /// its name: `master web`.
        role: String,
        /// Why.
        why: String,
    },
    /// Something is wrong about a virtual router's addresses: another master, or another host that has them.
    Alarm {
        /// The virtual router.
        router: String,
        /// What is wrong, or is over.
        what: String,
    },
    /// Connections or other hosts' ARP show that something is wrong, or not any more: nobody asked.
    Suspected {
        /// The service, or the virtual address.
        service: String,
        /// Its server; empty for a virtual address.
        server: String,
        /// `replies_bypass`, `replies_bypass_nearby` (clients in the server's own network), `no_answers`,
        /// `never_established` or `address_claimed`.
        cause: String,
        /// In a sentence; empty when it is over.
        what: String,
        /// Whether it is over.
        over: bool,
    },
    /// Packets were dropped, more than the asker's threshold.
    Drops {
        /// Name of the counter; docs/drops.md has a row for each.
        reason: String,
        /// One sentence for people.
        text: String,
        /// Packets each second, over the last two.
        per_second: u64,
    },
    /// The asker was too slow: so many events he did not get.
    Missed {
        /// How many.
        events: u64,
    },
}
