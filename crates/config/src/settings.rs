//! Settings of the director as a whole.

use crate::error::Violation;
use crate::model::MAX_PERSISTENCE_S;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Most connections that can be asked for: 16 Mi.
pub const MAX_CONNECTIONS: u64 = 1 << 24;
/// Most services that room can be asked for: 1 Mi.
pub const MAX_SERVICES: u32 = 1 << 20;
/// Most servers that room can be asked for: 16 Mi.
pub const MAX_SERVERS: u32 = 1 << 24;
/// Most slots that room can be asked for: 256 Mi, 2 GiB.
pub const MAX_SLOTS: u32 = 1 << 28;
/// Shortest timeout of a state.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest timeout of a state: 31 days, as in IPVS.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(MAX_PERSISTENCE_S as u64);

/// Where the packet path runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Native XDP where it can work, otherwise tc; the default.
    #[default]
    Auto,
    /// Native XDP or nothing.
    Xdp,
    /// XDP in the stack: for tests, slower than tc.
    XdpGeneric,
    /// tc only.
    Tc,
}

impl Mode {
    /// All.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Xdp, Self::XdpGeneric, Self::Tc];
    /// `auto`, `xdp`, `xdp-generic` or `tc`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tc => "tc",
        }
    }
}

/// What becomes of clients that ask for a port of a virtual address that no service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VipDefault {
    /// This host answers them; the default.
    #[default]
    Pass,
    /// They are refused.
    Reject,
}

impl VipDefault {
    /// All.
    pub const ALL: [Self; 2] = [Self::Pass, Self::Reject];
    /// `pass` or `reject`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Reject => "reject",
        }
    }
}

/// Time after its last packet that a TCP connection is kept, by its state
/// (IPVS's names and defaults).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpTimeouts {
    /// NONE, 3 s: a connection before its first state.
    pub none: Duration,
    /// ESTABLISHED, 900 s.
    pub established: Duration,
    /// SYN_SENT, 120 s.
    pub syn_sent: Duration,
    /// SYN_RECV, 60 s.
    pub syn_recv: Duration,
    /// FIN_WAIT, 120 s.
    pub fin_wait: Duration,
    /// TIME_WAIT, 120 s.
    pub time_wait: Duration,
    /// CLOSE, 10 s.
    pub close: Duration,
    /// CLOSE_WAIT, 60 s.
    pub close_wait: Duration,
    /// LAST_ACK, 30 s.
    pub last_ack: Duration,
    /// LISTEN, 120 s.
    pub listen: Duration,
    /// SYNACK, 120 s.
    pub synack: Duration,
}

impl TcpTimeouts {
    /// Keys in dirigent.toml, by IPVS's number of the state.
    pub const KEYS: [&'static str; 11] = [
        "tcp_none",
        "tcp_established",
        "tcp_syn_sent",
        "tcp_syn_recv",
        "tcp_fin_wait",
        "tcp_time_wait",
        "tcp_close",
        "tcp_close_wait",
        "tcp_last_ack",
        "tcp_listen",
        "tcp_synack",
    ];
    /// By IPVS's number of the state: 0 NONE, 1 ESTABLISHED, … 10 SYNACK.
    pub fn by_state(&self) -> [Duration; 11] {
        [
            self.none,
            self.established,
            self.syn_sent,
            self.syn_recv,
            self.fin_wait,
            self.time_wait,
            self.close,
            self.close_wait,
            self.last_ack,
            self.listen,
            self.synack,
        ]
    }
    /// The opposite of [`TcpTimeouts::by_state`].
    pub fn from_states(by_state: [Duration; 11]) -> Self {
        let [none, established, syn_sent, syn_recv, fin_wait, time_wait, close, close_wait, last_ack, listen, synack] =
            by_state;
        Self { none, established, syn_sent, syn_recv, fin_wait, time_wait, close, close_wait, last_ack, listen, synack }
    }
}

impl Default for TcpTimeouts {
    fn default() -> Self {
        Self::from_states([3, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120].map(Duration::from_secs))
    }
}

/// Time after its last packet that an SCTP association is kept, by IPVS's number of its
/// state: 0 NONE, 1 INIT1, … 8 ESTABLISHED, … 13 CLOSED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SctpTimeouts(pub [Duration; 14]);

impl SctpTimeouts {
    /// Keys in dirigent.toml, by the same number.
    pub const KEYS: [&'static str; 14] = [
        "sctp_none",
        "sctp_init1",
        "sctp_init",
        "sctp_cookie_sent",
        "sctp_cookie_replied",
        "sctp_cookie_wait",
        "sctp_cookie",
        "sctp_cookie_echoed",
        "sctp_established",
        "sctp_shutdown_sent",
        "sctp_shutdown_received",
        "sctp_shutdown_ack_sent",
        "sctp_rejected",
        "sctp_closed",
    ];
}

impl Default for SctpTimeouts {
    fn default() -> Self {
        Self([3, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61].map(Duration::from_secs))
    }
}

/// Time after its last packet that a connection is kept. A change applies to
/// existing connections too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// TCP, by state.
    pub tcp: TcpTimeouts,
    /// UDP, 300 s.
    pub udp: Duration,
    /// SCTP, by state.
    pub sctp: SctpTimeouts,
    /// lblc: a destination that nobody asks for is forgotten, 1 day.
    pub lblc_expiration: Duration,
    /// lblcr: the same, and a set that did not change loses its most loaded server, 1 day.
    pub lblcr_expiration: Duration,
}

impl Timeouts {
    /// All of them with their keys in dirigent.toml.
    pub fn by_key(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let tcp = TcpTimeouts::KEYS.into_iter().zip(self.tcp.by_state());
        let notes = [("lblc_expiration", self.lblc_expiration), ("lblcr_expiration", self.lblcr_expiration)];
        tcp.chain([("udp", self.udp)]).chain(SctpTimeouts::KEYS.into_iter().zip(self.sctp.0)).chain(notes)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self {
            tcp: TcpTimeouts::default(),
            udp: Duration::from_secs(300),
            sctp: SctpTimeouts::default(),
            lblc_expiration: day,
            lblcr_expiration: day,
        }
    }
}

/// Defence against floods (ipvs-semantics §3.7). The modes are IPVS's: 0 off; 1 and 2 on
/// while memory is scarce; 3 always on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defence {
    /// Connections that look like a flood's are dropped; 0.
    pub drop_entry: u8,
    /// Of packets that would open a connection one in so many is dropped; 0.
    pub drop_packet: u8,
    /// TCP connections count as established when the server says so; 0.
    pub secure_tcp: u8,
    /// Memory is scarce when fewer pages than this are free or hold buffers; 1024.
    pub amemthresh: u32,
    /// `drop_packet` 3: one packet in so many, 10; 0: none.
    pub am_droprate: u32,
}

impl Default for Defence {
    fn default() -> Self {
        Self { drop_entry: 0, drop_packet: 0, secure_tcp: 0, amemthresh: 1024, am_droprate: 10 }
    }
}

impl Defence {
    /// The highest mode.
    pub const MAX_MODE: u8 = 3;
    /// Most pages, and most packets, that can be said: as in IPVS.
    pub const MAX: u32 = i32::MAX as u32;

    /// Whether memory decides about any of it.
    pub fn is_automatic(&self) -> bool {
        [self.drop_entry, self.drop_packet, self.secure_tcp].iter().any(|mode| matches!(mode, 1 | 2))
    }
    /// Keys in dirigent.toml and IPVS's names, with the largest value.
    fn by_key(&self) -> [(&'static str, u32, u32); 5] {
        let mode = u32::from(Self::MAX_MODE);
        [
            ("drop_entry", self.drop_entry.into(), mode),
            ("drop_packet", self.drop_packet.into(), mode),
            ("secure_tcp", self.secure_tcp.into(), mode),
            ("amemthresh", self.amemthresh, Self::MAX),
            ("am_droprate", self.am_droprate, Self::MAX),
        ]
    }
}

/// How many ICMP errors the director makes itself at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLimits {
    /// Per second in total, 1000; 0: no limit.
    pub rate: u32,
    /// At once in total, 50.
    pub burst: u32,
    /// Per second to one destination, 10; 0: no limit.
    pub destination_rate: u32,
    /// At once to one destination, 20.
    pub destination_burst: u32,
}

impl Default for ErrorLimits {
    fn default() -> Self {
        Self { rate: 1000, burst: 50, destination_rate: 10, destination_burst: 20 }
    }
}

/// The control API over TCP: TLS that both sides prove themselves with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// Address and port.
    pub listen: SocketAddr,
    /// Files in PEM: the director's certificate, with those that lead to its root.
    pub certificate: String,
    /// The key of it.
    pub key: String,
    /// The roots that clients' certificates must lead to.
    pub clients: String,
    /// Names in certificates whose owners may change the director; the others may read.
    pub operators: Vec<String>,
}

impl Api {
    /// The texts, by their key in dirigent.toml.
    pub fn files(&self) -> [(&'static str, &str); 3] {
        [("certificate", &self.certificate), ("key", &self.key), ("clients", &self.clients)]
    }
}

/// What Prometheus scrapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Address and port of an HTTP server for scrapers that can do without TLS; None: metrics come by the control API only.
    pub listen: Option<SocketAddr>,
    /// The names of node_exporter's ipvs collector are there too; off.
    pub ipvs_names: bool,
}

/// The web page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Page {
    /// Address and port of an HTTP server for browsers of this host, without TLS; None: the page is served by [`Api`] only.
    pub listen: Option<SocketAddr>,
    /// Who may change the director may do so from a browser; off.
    pub operate: bool,
}

/// Settings of one director.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Name of this director on its host: holds its pins, socket and lock.
    /// `main` by default; a letter, then letters, digits, `-`, `_`, 32 in all.
    pub instance: String,
    /// Interfaces to attach to; None (default): those that lead to clients and
    /// servers.
    pub interfaces: Option<Vec<String>>,
    /// Where the packet path runs.
    pub mode: Mode,
    /// What becomes of clients that ask for other ports of virtual addresses.
    pub vip_default: VipDefault,
    /// A device that the daemon makes, for `ip rule fwmark` to lead packets to; None: none.
    pub mark_device: Option<String>,
    /// Connections there is room for, 1 to [`MAX_CONNECTIONS`]; None (default):
    /// the smaller of 1 Mi and what 1/16 of memory holds.
    pub connections: Option<u64>,
    /// Virtual services there is room for, 1 to [`MAX_SERVICES`]; None (default): 16384, or more
    /// where the director begins with more.
    pub services: Option<u32>,
    /// Real servers there is room for, of all services together, 1 to [`MAX_SERVERS`]; None (default):
    /// 131072, or more where the director begins with more.
    pub servers: Option<u32>,
    /// Slots there is room for, of all services' lists and tables together, 1 to [`MAX_SLOTS`]; None
    /// (default): 4194304, or more where the director begins with more.
    pub slots: Option<u32>,
    /// ICMP errors about unknown connections are scheduled; off.
    pub schedule_icmp: bool,
    /// Packets of NAT servers that belong to no connection are refused; off.
    pub nat_icmp_send: bool,
    /// NAT answers are routed by their new source; on.
    pub snat_reroute: bool,
    /// Tunnels: DF of the inner packet is heeded and copied to the outer one; on.
    pub pmtu_disc: bool,
    /// Connections of a removed server end with their next packet, which goes on as one
    /// without; off: they wait for its return.
    pub expire_nodest_conn: bool,
    /// Persistence templates of servers with weight 0 are not heeded; off.
    pub expire_quiescent_template: bool,
    /// A TCP connection may begin without a SYN; off.
    pub sloppy_tcp: bool,
    /// An SCTP association may begin without an INIT; off.
    pub sloppy_sctp: bool,
    /// What a mark service has no server for goes where it was going; off.
    pub cache_bypass: bool,
    /// Bits: 1, or any: a new SYN of a closed connection opens another; 2: also one in FIN_WAIT
    /// whose answers are not seen (dr, tun). 1.
    pub conn_reuse_mode: u8,
    /// Defence against floods.
    pub defence: Defence,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Limits of ICMP errors.
    pub errors: ErrorLimits,
    /// Control socket; None: see [`Settings::socket_path`].
    pub socket: Option<String>,
    /// Group that may read through the socket; None: root only.
    pub group: Option<String>,
    /// Group whose members may change the director through the socket; None: root only.
    pub operators: Option<String>,
    /// The control API over TCP; None: only the socket.
    pub api: Option<Api>,
    /// Metrics.
    #[serde(default)]
    pub metrics: Metrics,
    /// The web page; None: there is none.
    #[serde(default)]
    pub page: Option<Page>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance: "main".into(),
            interfaces: None,
            mode: Mode::Auto,
            vip_default: VipDefault::Pass,
            mark_device: None,
            connections: None,
            services: None,
            servers: None,
            slots: None,
            schedule_icmp: false,
            nat_icmp_send: false,
            snat_reroute: true,
            pmtu_disc: true,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            sloppy_tcp: false,
            sloppy_sctp: false,
            cache_bypass: false,
            conn_reuse_mode: 1,
            defence: Defence::default(),
            timeouts: Timeouts::default(),
            errors: ErrorLimits::default(),
            socket: None,
            group: None,
            operators: None,
            api: None,
            metrics: Metrics::default(),
            page: None,
        }
    }
}

impl Settings {
    /// The largest [`Settings::conn_reuse_mode`].
    pub const MAX_REUSE_MODE: u8 = 3;

    /// For what of a configuration there is room, by their keys in dirigent.toml.
    pub fn rooms(&self) -> [(&'static str, Option<u32>); 3] {
        [("services", self.services), ("servers", self.servers), ("slots", self.slots)]
    }

    /// The switches, by their keys in dirigent.toml, which are IPVS's names too.
    pub fn switches(&self) -> [(&'static str, bool); 9] {
        [
            ("schedule_icmp", self.schedule_icmp),
            ("nat_icmp_send", self.nat_icmp_send),
            ("snat_reroute", self.snat_reroute),
            ("pmtu_disc", self.pmtu_disc),
            ("expire_nodest_conn", self.expire_nodest_conn),
            ("expire_quiescent_template", self.expire_quiescent_template),
            ("sloppy_tcp", self.sloppy_tcp),
            ("sloppy_sctp", self.sloppy_sctp),
            ("cache_bypass", self.cache_bypass),
        ]
    }
    /// The numbers that are IPVS's, likewise, with the largest value.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, u32, u32)> {
        let reuse = ("conn_reuse_mode", self.conn_reuse_mode.into(), Self::MAX_REUSE_MODE.into());
        [reuse].into_iter().chain(self.defence.by_key())
    }

    /// The end of [`Settings::mark_device`] that the director is on: the same name with `-in`.
    pub fn mark_device_inside(&self) -> Option<String> {
        self.mark_device.as_ref().map(|name| format!("{name}-in"))
    }

    /// The control socket: as set, or `/run/dirigent/INSTANCE.sock`.
    pub fn socket_path(&self) -> String {
        self.socket.clone().unwrap_or_else(|| format!("/run/dirigent/{}.sock", self.instance))
    }

    /// Sets what a kernel parameter `net.ipv4.vs.NAME` of IPVS stands for (the
    /// prefix may be left out). One that makes no sense here is taken at its default, which
    /// is how the director behaves, and else refused with the reason.
    pub fn ipvs_sysctl(&mut self, name: &str, value: i64) -> Result<(), SysctlError> {
        let short = name.strip_prefix("net.ipv4.vs.").unwrap_or(name);
        let out_of = |possible| SysctlError::Value { name: short.into(), value, possible };
        let bad = || out_of("0 and 1");
        let switch = match value {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        let mode = || u8::try_from(value).ok().filter(|mode| *mode <= Defence::MAX_MODE).ok_or(out_of("0 to 3"));
        let number = || u32::try_from(value).ok().filter(|n| *n <= Defence::MAX).ok_or(out_of("0 to 2147483647"));
        let seconds = || {
            let time = u64::try_from(value).ok().map(Duration::from_secs);
            time.filter(|time| (MIN_TIMEOUT..=MAX_TIMEOUT).contains(time)).ok_or(out_of("1 to 2678400"))
        };
        let defence = &mut self.defence;
        match short {
            "schedule_icmp" => self.schedule_icmp = switch.ok_or_else(bad)?,
            "nat_icmp_send" => self.nat_icmp_send = switch.ok_or_else(bad)?,
            "snat_reroute" => self.snat_reroute = switch.ok_or_else(bad)?,
            "pmtu_disc" => self.pmtu_disc = switch.ok_or_else(bad)?,
            "expire_nodest_conn" => self.expire_nodest_conn = switch.ok_or_else(bad)?,
            "expire_quiescent_template" => self.expire_quiescent_template = switch.ok_or_else(bad)?,
            "sloppy_tcp" => self.sloppy_tcp = switch.ok_or_else(bad)?,
            "sloppy_sctp" => self.sloppy_sctp = switch.ok_or_else(bad)?,
            "cache_bypass" => self.cache_bypass = switch.ok_or_else(bad)?,
            "conn_reuse_mode" => self.conn_reuse_mode = mode()?,
            "drop_entry" => defence.drop_entry = mode()?,
            "drop_packet" => defence.drop_packet = mode()?,
            "secure_tcp" => defence.secure_tcp = mode()?,
            "amemthresh" => defence.amemthresh = number()?,
            "am_droprate" => defence.am_droprate = number()?,
            "lblc_expiration" => self.timeouts.lblc_expiration = seconds()?,
            "lblcr_expiration" => self.timeouts.lblcr_expiration = seconds()?,
            // The director makes no conntrack entries, so there are none to keep.
            "conntrack" => _ = switch.ok_or_else(bad)?,
            _ => {
                let Some((_, default, why)) = ELSEWHERE.iter().find(|(name, ..)| *name == short) else {
                    return Err(SysctlError::Unknown(name.into()));
                };
                if Some(value) != *default {
                    return Err(SysctlError::Refused { name: short.into(), value, why });
                }
            }
        }
        Ok(())
    }

    /// What IPVS's sysctls, by their names below `net.ipv4.vs`, would say; of those that have no meaning here only
    /// those of one possible value.
    pub fn ipvs_sysctls(&self) -> BTreeMap<String, String> {
        let seconds = |time: Duration| time.as_secs().to_string();
        let times = [
            ("lblc_expiration", seconds(self.timeouts.lblc_expiration)),
            ("lblcr_expiration", seconds(self.timeouts.lblcr_expiration)),
        ];
        let switches = self.switches().map(|(name, is)| (name, u8::from(is).to_string()));
        let numbers = self.numbers().map(|(name, is, _)| (name, is.to_string()));
        let fixed = ELSEWHERE.iter().filter_map(|(name, value, _)| Some((*name, (*value)?.to_string())));
        let others = [("conntrack", "0".to_owned()), ("sync_threshold", "3\t50".to_owned())];
        let all = switches.into_iter().chain(numbers).chain(times).chain(fixed).chain(others);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What is wrong with them.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut out = Vec::new();
        let mut bad = |name, problem: String, remedy| out.push(Violation::Setting { name, problem, remedy });

        let mut letters = self.instance.chars();
        let named = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
            && letters.all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !named || self.instance.len() > 32 {
            let remedy = "use a letter, then letters, digits, - and _, at most 32 in all";
            bad("instance", format!("{:?} is no name", self.instance), remedy);
        }
        if let Some(interfaces) = &self.interfaces {
            let remedy = "name interfaces as `ip link` shows them, or write \"auto\"";
            if interfaces.is_empty() {
                bad("interfaces", "is an empty list".into(), remedy);
            }
            let mut seen = HashSet::new();
            for name in interfaces {
                if !interface_name(name) {
                    bad("interfaces", format!("holds {name:?}, which no interface can be called"), remedy);
                } else if !seen.insert(name) {
                    bad("interfaces", format!("names {name:?} twice"), "name it once");
                }
            }
        }
        if let (Some(name), Some(inside)) = (&self.mark_device, self.mark_device_inside()) {
            let named = |name| self.interfaces.iter().flatten().any(|other| other == name);
            if !interface_name(&inside) {
                let remedy = "use at most 12 letters, digits, - and _";
                bad("mark_device", format!("{name:?} cannot be a device beside one called {inside:?}"), remedy);
            } else if named(name) || named(&inside) {
                let remedy = "leave it out of interfaces: the director is on it anyway";
                bad("mark_device", format!("{name:?} is among the interfaces too"), remedy);
            }
        }
        if let Some(n) = self.connections
            && !(1..=MAX_CONNECTIONS).contains(&n)
        {
            bad("connections", format!("is {n}"), "use 1 to 16777216, or leave it out");
        }
        let most = [
            (MAX_SERVICES, "use 1 to 1048576, or leave it out"),
            (MAX_SERVERS, "use 1 to 16777216, or leave it out"),
            (MAX_SLOTS, "use 1 to 268435456, or leave it out"),
        ];
        for ((key, room), (most, remedy)) in self.rooms().into_iter().zip(most) {
            if let Some(n) = room.filter(|n| !(1..=most).contains(n)) {
                bad(key, format!("is {n}"), remedy);
            }
        }
        for (name, value, most) in self.numbers().filter(|(_, value, most)| value > most) {
            let remedy = if most == Defence::MAX { "use 0 to 2147483647" } else { "use 0 to 3" };
            bad(name, format!("is {value}"), remedy);
        }
        for (name, timeout) in self.timeouts.by_key() {
            if !(MIN_TIMEOUT..=MAX_TIMEOUT).contains(&timeout) {
                bad(name, format!("is {timeout:?}"), "use 100ms to 2678400s (31 days)");
            }
        }
        let e = &self.errors;
        for (name, burst, rate) in
            [("burst", e.burst, e.rate), ("destination_burst", e.destination_burst, e.destination_rate)]
        {
            if burst == 0 && rate != 0 {
                bad(name, "is 0, so that no error is ever sent".into(), "use at least 1");
            }
        }
        if let Some(socket) = &self.socket {
            // sun_path holds 108 bytes with the final zero.
            if !socket.starts_with('/') || socket.len() > 107 || socket.contains('\0') {
                bad("socket", format!("{socket:?} is no socket path"), "use an absolute path of at most 107 bytes");
            }
        }
        if let Some(api) = &self.api {
            for (key, file) in api.files() {
                if !file.starts_with('/') || file.contains('\0') {
                    bad(key, format!("{file:?} is no absolute path"), "name a file in PEM, from / on");
                }
            }
            if api.listen.port() == 0 {
                bad("listen", "the port is 0".into(), "name a port, like 9443");
            }
            if api.operators.iter().any(String::is_empty) {
                bad("operator_names", "holds an empty name".into(), "name what stands in clients' certificates");
            }
        }
        if self.metrics.listen.is_some_and(|listen| listen.port() == 0) {
            bad("metrics", "listens on port 0".into(), "name a port, like 9103");
        }
        if let Some(page) = &self.page {
            match page.listen {
                None if self.api.is_none() => {
                    let remedy = "add listen = \"127.0.0.1:8090\", or [director.api], which serves it with TLS";
                    bad("page", "is served nowhere".into(), remedy);
                }
                Some(listen) if listen.port() == 0 => bad("page", "listens on port 0".into(), "name a port, like 8090"),
                Some(listen) if !listen.ip().is_loopback() => {
                    let remedy = "use 127.0.0.1 or [::1], which other hosts reach by `ssh -L`, or leave `listen` out and \
                                  configure [director.api], which serves the page with TLS";
                    bad("page", format!("listens on {}, for all the network and without TLS", listen.ip()), remedy);
                }
                _ => {}
            }
        }
        for (key, group) in [("group", &self.group), ("operators", &self.operators)] {
            if let Some(group) = group.as_ref().filter(|g| g.is_empty() || g.contains([':', '\0', '\n', ' '])) {
                bad(key, format!("{group:?} is no name of a group"), "use a name from /etc/group, or leave it out");
            }
        }
        out
    }
}

/// Linux's rule (dev_valid_name), and no control characters.
pub(crate) fn interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

/// A kernel parameter of IPVS that cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    /// The kernel would refuse the value too.
    #[error("net.ipv4.vs.{name} = {value}: only {possible} are possible")]
    Value {
        /// Name without prefix.
        name: String,
        /// Value.
        value: i64,
        /// The values that are.
        possible: &'static str,
    },
    /// IPVS has it, and here it would mean nothing, or nothing yet.
    #[error("net.ipv4.vs.{name} = {value} is refused: {why}")]
    Refused {
        /// Name without prefix.
        name: String,
        /// Value.
        value: i64,
        /// Why.
        why: &'static str,
    },
    /// IPVS has no such parameter.
    #[error("{0}: IPVS has no such parameter")]
    Unknown(String),
}

/// IPVS's parameters without a setting here: name, the value at which the director behaves as
/// IPVS would (if there is one, and it is one number), why no other is taken.
const ELSEWHERE: &[(&str, Option<i64>, &str)] = &[
    ("sync_version", Some(1), "connections are not synchronised yet"),
    ("sync_ports", Some(1), "connections are not synchronised yet"),
    ("sync_persist_mode", Some(0), "connections are not synchronised yet"),
    ("sync_qlen_max", None, "connections are not synchronised yet: there is no queue"),
    ("sync_sock_size", Some(0), "connections are not synchronised yet: there is no socket"),
    ("sync_threshold", None, "connections are not synchronised yet"),
    ("sync_refresh_period", Some(0), "connections are not synchronised yet"),
    ("sync_retries", Some(0), "connections are not synchronised yet"),
    ("backup_only", Some(0), "connections are not synchronised yet: there is no backup"),
    (
        "ignore_tunneled",
        Some(0),
        "what comes out of a tunnel is directed if its device is among the interfaces of the director: leave it out of \
         `interfaces` instead",
    ),
    ("run_estimation", Some(1), "counters cost nothing that could be saved, and are always kept"),
    ("est_cpulist", None, "there are no estimator threads to be placed"),
    ("est_nice", Some(0), "there are no estimator threads to be slowed down"),
    ("debug_level", Some(0), "there are no debug messages for each packet: use `dirigent stats --drops`"),
    ("conn_lfactor", Some(-4), "the table of connections has the size that `connections` sets"),
    ("svc_lfactor", Some(-3), "the table of services has room for all of them from the beginning"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_parameters() {
        let mut s = Settings::default();
        for (name, value) in [
            ("net.ipv4.vs.schedule_icmp", 1),
            ("nat_icmp_send", 1),
            ("net.ipv4.vs.snat_reroute", 0),
            ("net.ipv4.vs.conntrack", 1),
            ("net.ipv4.vs.conntrack", 0),
            ("net.ipv4.vs.pmtu_disc", 0),
            ("conn_lfactor", -4),
        ] {
            s.ipvs_sysctl(name, value).unwrap();
        }
        assert_eq!((s.schedule_icmp, s.nat_icmp_send, s.snat_reroute, s.pmtu_disc), (true, true, false, false));
        s.ipvs_sysctl("schedule_icmp", 0).unwrap();
        assert!(!s.schedule_icmp);
        // Each that is a setting is set by its name, and nothing else is by it.
        let names = s.switches().map(|(name, is)| (name, i64::from(!is)));
        let names =
            names.into_iter().chain(Settings::default().numbers().map(|(name, _, _)| (name, 2))).collect::<Vec<_>>();
        for (name, value) in names {
            let mut one = s.clone();
            one.ipvs_sysctl(name, value).unwrap();
            let all = |s: &Settings| {
                let switches = s.switches().map(|(name, is)| (name, i64::from(is)));
                switches.into_iter().chain(s.numbers().map(|(name, is, _)| (name, is.into()))).collect::<Vec<_>>()
            };
            let changed: Vec<_> = all(&one).into_iter().zip(all(&s)).filter(|(new, old)| new != old).collect();
            assert_eq!(changed.iter().map(|(new, _)| *new).collect::<Vec<_>>(), [(name, value)]);
        }
        // Each that is none is refused with a reason of its own, but for the value that changes nothing.
        for (name, default, why) in ELSEWHERE {
            let refused = s.clone().ipvs_sysctl(name, 7).unwrap_err().to_string();
            assert_eq!(refused, format!("net.ipv4.vs.{name} = 7 is refused: {why}"));
            if let Some(default) = default {
                s.clone().ipvs_sysctl(name, *default).unwrap();
            }
        }
        for (name, value, text) in [
            ("net.ipv4.vs.schedule_icmp", 2, "net.ipv4.vs.schedule_icmp = 2: only 0 and 1 are possible"),
            ("net.ipv4.vs.conntrack", -1, "net.ipv4.vs.conntrack = -1: only 0 and 1 are possible"),
            ("secure_tcp", 4, "net.ipv4.vs.secure_tcp = 4: only 0 to 3 are possible"),
            ("net.ipv4.ip_forward", 1, "net.ipv4.ip_forward: IPVS has no such parameter"),
        ] {
            let before = s.clone();
            assert_eq!(s.ipvs_sysctl(name, value).unwrap_err().to_string(), text);
            assert_eq!(s, before);
        }
    }

    #[test]
    fn timeouts_by_state() {
        let t = TcpTimeouts::default();
        assert_eq!(TcpTimeouts::from_states(t.by_state()), t);
        assert_eq!(t.by_state()[7], t.close_wait);
    }
}
