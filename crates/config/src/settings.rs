//! Settings of the director as a whole.

use crate::error::Violation;
use crate::model::MAX_PERSISTENCE_S;
use std::collections::HashSet;
use std::time::Duration;

/// Most connections that can be asked for: 16 Mi.
pub const MAX_CONNECTIONS: u64 = 1 << 24;
/// Shortest timeout of a state.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest timeout of a state: 31 days, as in IPVS.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(MAX_PERSISTENCE_S as u64);

/// Where the packet path runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

/// Time after its last packet that a TCP connection is kept, by its state
/// (IPVS's names and defaults).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Time after its last packet that a connection is kept. A change applies to
/// existing connections too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, by state.
    pub tcp: TcpTimeouts,
    /// UDP, 300 s.
    pub udp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp: TcpTimeouts::default(), udp: Duration::from_secs(300) }
    }
}

/// How many ICMP errors the director makes itself at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Settings of one director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of this director on its host: holds its pins, socket and lock.
    /// `main` by default; a letter, then letters, digits, `-`, `_`, 32 in all.
    pub instance: String,
    /// Interfaces to attach to; None (default): those that lead to clients and
    /// servers.
    pub interfaces: Option<Vec<String>>,
    /// Where the packet path runs.
    pub mode: Mode,
    /// Connections there is room for, 1 to [`MAX_CONNECTIONS`]; None (default):
    /// the smaller of 1 Mi and what 1/16 of memory holds.
    pub connections: Option<u64>,
    /// ICMP errors about unknown connections are scheduled; off.
    pub schedule_icmp: bool,
    /// Packets of NAT servers that belong to no connection are refused; off.
    pub nat_icmp_send: bool,
    /// NAT answers are routed by their new source; on.
    pub snat_reroute: bool,
    /// Tunnels: DF of the inner packet is heeded and copied to the outer one; on.
    pub pmtu_disc: bool,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Limits of ICMP errors.
    pub errors: ErrorLimits,
    /// Control socket; None: see [`Settings::socket_path`].
    pub socket: Option<String>,
    /// Group that may read through the socket; None: root only.
    pub group: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance: "main".into(),
            interfaces: None,
            mode: Mode::Auto,
            connections: None,
            schedule_icmp: false,
            nat_icmp_send: false,
            snat_reroute: true,
            pmtu_disc: true,
            timeouts: Timeouts::default(),
            errors: ErrorLimits::default(),
            socket: None,
            group: None,
        }
    }
}

impl Settings {
    /// The control socket: as set, or `/run/dirigent/INSTANCE.sock`.
    pub fn socket_path(&self) -> String {
        self.socket.clone().unwrap_or_else(|| format!("/run/dirigent/{}.sock", self.instance))
    }

    /// Sets what a kernel parameter `net.ipv4.vs.NAME` of IPVS stands for (the
    /// prefix may be left out). One that the director has no such thing for is
    /// taken at its default, which is how the director behaves.
    pub fn ipvs_sysctl(&mut self, name: &str, value: i64) -> Result<(), SysctlError> {
        let short = name.strip_prefix("net.ipv4.vs.").unwrap_or(name);
        let bad = || SysctlError::Value { name: short.into(), value };
        let switch = match value {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        match short {
            "schedule_icmp" => self.schedule_icmp = switch.ok_or_else(bad)?,
            "nat_icmp_send" => self.nat_icmp_send = switch.ok_or_else(bad)?,
            "snat_reroute" => self.snat_reroute = switch.ok_or_else(bad)?,
            "pmtu_disc" => self.pmtu_disc = switch.ok_or_else(bad)?,
            // The director makes no conntrack entries, so there are none to keep.
            "conntrack" => _ = switch.ok_or_else(bad)?,
            _ => {
                let Some((_, default, why)) = ELSEWHERE.iter().find(|(name, ..)| *name == short) else {
                    return Err(SysctlError::Unknown(name.into()));
                };
                if value != *default {
                    return Err(SysctlError::NotInThisVersion { name: short.into(), value, default: *default, why });
                }
            }
        }
        Ok(())
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
        if let Some(n) = self.connections
            && !(1..=MAX_CONNECTIONS).contains(&n)
        {
            bad("connections", format!("is {n}"), "use 1 to 16777216, or leave it out");
        }
        let tcp = TcpTimeouts::KEYS.into_iter().zip(self.timeouts.tcp.by_state());
        for (name, timeout) in tcp.chain([("udp", self.timeouts.udp)]) {
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
        if let Some(group) = &self.group
            && (group.is_empty() || group.contains([':', '\0', '\n', ' ']))
        {
            bad("group", format!("{group:?} is no name of a group"), "use a name from /etc/group, or leave it out");
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
    #[error("net.ipv4.vs.{name} = {value}: only 0 and 1 are possible")]
    Value {
        /// Name without prefix.
        name: String,
        /// Value.
        value: i64,
    },
    /// IPVS has it, this version not.
    #[error("net.ipv4.vs.{name} = {value} is not in this version, only {default}: {why}")]
    NotInThisVersion {
        /// Name without prefix.
        name: String,
        /// Value.
        value: i64,
        /// The value that is possible.
        default: i64,
        /// What it is about.
        why: &'static str,
    },
    /// IPVS has no such parameter.
    #[error("{0}: IPVS has no such parameter")]
    Unknown(String),
}

/// IPVS's parameters without a setting here: name, default, why not.
const ELSEWHERE: &[(&str, i64, &str)] = &[
    ("amemthresh", 1024, "defence against floods comes later"),
    ("am_droprate", 10, "defence against floods comes later"),
    ("drop_entry", 0, "defence against floods comes later"),
    ("drop_packet", 0, "defence against floods comes later"),
    ("secure_tcp", 0, "defence against floods comes later"),
    ("sync_version", 1, "connection synchronisation comes later"),
    ("sync_ports", 1, "connection synchronisation comes later"),
    ("sync_persist_mode", 0, "connection synchronisation comes later"),
    ("sync_sock_size", 0, "connection synchronisation comes later"),
    ("sync_refresh_period", 0, "connection synchronisation comes later"),
    ("sync_retries", 0, "connection synchronisation comes later"),
    ("backup_only", 0, "connection synchronisation comes later"),
    ("cache_bypass", 0, "the transparent proxy method is not done"),
    ("expire_nodest_conn", 0, "connections of a removed server always wait for its return"),
    ("sloppy_tcp", 0, "a connection begins with a SYN only"),
    ("sloppy_sctp", 0, "an association begins with an INIT only"),
    ("expire_quiescent_template", 0, "persistence comes later"),
    ("conn_reuse_mode", 1, "a new SYN of a closed connection is always scheduled afresh"),
    ("ignore_tunneled", 0, "tunnels come later"),
    ("run_estimation", 1, "counters are always kept"),
    ("est_nice", 0, "the director needs no estimator threads"),
    ("lblc_expiration", 86400, "scheduler lblc comes later"),
    ("lblcr_expiration", 86400, "scheduler lblcr comes later"),
    ("debug_level", 0, "use dirigent stats"),
    ("conn_lfactor", -4, "the table has the size that connections sets"),
    ("svc_lfactor", -3, "the table of services needs none"),
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
        for (name, value, text) in [
            ("net.ipv4.vs.schedule_icmp", 2, "net.ipv4.vs.schedule_icmp = 2: only 0 and 1 are possible"),
            ("net.ipv4.vs.conntrack", -1, "net.ipv4.vs.conntrack = -1: only 0 and 1 are possible"),
            (
                "secure_tcp",
                3,
                "net.ipv4.vs.secure_tcp = 3 is not in this version, only 0: defence against floods comes later",
            ),
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
