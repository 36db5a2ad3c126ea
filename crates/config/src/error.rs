//! Everything this crate can object to.

use crate::health::Fault;
use crate::mark::{MAX_MARK_RULES, PROTOCOLS};
use crate::model::{MAX_PERSISTENCE_S, MAX_SOURCES, MAX_WEIGHT, ServerId, ServiceKey};
use std::fmt;
use std::net::IpAddr;
use thiserror::Error;

/// One objection to a text, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// File name as the caller gave it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, remedy } = self;
        write!(f, "{file}:{line}:{column}: {message}; {remedy}")
    }
}

/// All objections to a text, in the order of their places; never empty as an
/// error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

/// A Model that may not be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// Two services with one key.
    #[error("virtual service {0} is there twice")]
    DuplicateService(ServiceKey),
    /// Two real servers with one address and port in a service.
    #[error("real server {server} is twice in virtual service {service}")]
    DuplicateServer {
        /// The service.
        service: ServiceKey,
        /// address:port of the server.
        server: String,
    },
    /// Another address family than the service's, without a tunnel.
    #[error("real server {0} has another address family than its virtual service")]
    FamilyMismatch(IpAddr),
    /// Unspecified, multicast, broadcast, IPv6 link-local, IPv4-mapped.
    #[error("real server {0} is not a unicast address that can be routed")]
    NotUnicast(IpAddr),
    /// Port 0 means all ports, which only makes sense with persistence.
    #[error("virtual service {0} has port 0 (all ports) but no persistence")]
    PortZero(ServiceKey),
    /// One-packet scheduling of something else than UDP.
    #[error("one-packet scheduling of virtual service {0}, which is not UDP")]
    OnePacketNotUdp(ServiceKey),
    /// Connections without state shall go on where that cannot be.
    #[error("virtual service {service} cannot be stateless: {why}")]
    Stateless {
        /// The service.
        service: ServiceKey,
        /// Why not.
        why: String,
    },
    /// QUIC's connection ids shall be looked at where that makes no sense.
    #[error("virtual service {service} cannot be one of quic: {why}")]
    Quic {
        /// The service.
        service: ServiceKey,
        /// Why not.
        why: &'static str,
    },
    /// A scheduler's table shall have slots that it cannot have.
    #[error("table_size {size} with scheduler {scheduler}")]
    TableSize {
        /// The scheduler.
        scheduler: &'static str,
        /// The size.
        size: u32,
        /// Those that its table can have; with less than two there is no choice.
        sizes: &'static [u32],
    },
    /// A weight shall climb that the scheduler does not share connections out by.
    #[error("virtual service {service} cannot start servers slowly by scheduler {scheduler}: {why}")]
    SlowStart {
        /// The service.
        service: ServiceKey,
        /// Its scheduler.
        scheduler: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A slow start of no time, or for ever.
    #[error("slow_start of {}", crate::file::duration::format(*.0))]
    SlowStartTime(std::time::Duration),
    /// Two servers of one service cannot be told apart by connection ids.
    #[error("real server {server} has the server_id of another one, {id}")]
    SharedServerId {
        /// address:port of the server.
        server: String,
        /// The id.
        id: ServerId,
    },
    /// A server's id in a service that does not look for it.
    #[error("server_id in a virtual service without quic")]
    ServerIdWithoutQuic,
    /// No server can have that id.
    #[error("server_id is {0:?}")]
    ServerId(String),
    /// The daemon shall hold the address of a service that has none.
    #[error("virtual service {0} has no address that the daemon could hold")]
    NoAddress(ServiceKey),
    /// Weight over [`MAX_WEIGHT`].
    #[error("weight {0} is over {MAX_WEIGHT}")]
    Weight(u32),
    /// Lower threshold above the upper one, which 0 (none) is below all.
    #[error("the lower threshold {lower} is above the upper one, {upper}")]
    Thresholds {
        /// Upper threshold.
        upper: u32,
        /// Lower threshold.
        lower: u32,
    },
    /// A method that cannot change ports shall.
    #[error(
        "method {method} does not change ports, but the real server's port {server} differs from the service's, {service}"
    )]
    MethodKeepsPort {
        /// The method's name.
        method: &'static str,
        /// Port of the server.
        server: u16,
        /// Port of the service.
        service: u16,
    },
    /// Persistence shorter than 1 s or longer than [`MAX_PERSISTENCE_S`].
    #[error("persistence of {0} s is not within 1 s and {MAX_PERSISTENCE_S} s")]
    PersistenceTime(u32),
    /// The mask is not one of the service's address family.
    #[error("the persistence mask {0} does not fit the service's address family")]
    PersistenceMask(String),
    /// GUE without a port.
    #[error("a gue tunnel needs a port")]
    GueWithoutPort,
    /// A tunnel cannot carry its checksum that way.
    #[error("an {tunnel} tunnel has no {checksum} checksum")]
    TunnelChecksum {
        /// Name of the kind.
        tunnel: &'static str,
        /// Name of the checksum.
        checksum: &'static str,
    },
    /// Something about checks and what follows from them.
    #[error("{}", .0.1)]
    Health(Fault),
    /// Something about failover.
    #[error("{part}: {}", .fault.1)]
    Failover {
        /// The table of dirigent.toml, and its name.
        part: String,
        /// What is wrong.
        fault: Fault,
    },
    /// The daemon and a virtual router shall both hold a virtual address.
    #[error("vip of virtual service {service} is \"manage\", but virtual router {router} has its address")]
    HeldTwice {
        /// The service.
        service: ServiceKey,
        /// The router's name.
        router: String,
    },
    /// More mark rules than the table holds.
    #[error("{0} mark rules are over {MAX_MARK_RULES}")]
    TooManyMarks(usize),
    /// A client's prefix that is not of the service's family.
    #[error("{key} {prefix} has another address family than the virtual service")]
    SourceFamily {
        /// The key in dirigent.toml.
        key: &'static str,
        /// The addresses.
        prefix: String,
    },
    /// One prefix of clients is named twice.
    #[error("{key} holds {prefix}, which allow or deny holds already")]
    SourceTwice {
        /// The key in dirigent.toml.
        key: &'static str,
        /// The addresses.
        prefix: String,
    },
    /// More prefixes of clients than a service may name.
    #[error("{0} prefixes in allow and deny are over {MAX_SOURCES}")]
    TooManySources(usize),
    /// No interface can be called so.
    #[error("interface {0:?} is no name of an interface")]
    MarkInterface(String),
    /// An address of a mark rule that is not of the rule's family.
    #[error("{key} {prefix} has another address family than the mark rule")]
    MarkFamily {
        /// The key in dirigent.toml.
        key: &'static str,
        /// The addresses.
        prefix: String,
    },
    /// Nothing can be of this protocol.
    #[error("protocol is {0:?}")]
    MarkProtocol(String),
    /// A setting is out of its range.
    #[error("{name} {problem}")]
    Setting {
        /// Name of the setting: the key in dirigent.toml.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to write.
        remedy: &'static str,
    },
}

impl Violation {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::DuplicateService(_) => "put its real servers into one service, or change the address or port".into(),
            Self::DuplicateServer { .. } => "remove one, or give it more weight instead".into(),
            Self::FamilyMismatch(_) => "use an address of the service's family".into(),
            Self::NotUnicast(_) => "use an address of one host".into(),
            Self::PortZero(_) => "name a port, or add a persistence table".into(),
            Self::OnePacketNotUdp(_) => "set protocol = \"udp\", or remove one_packet".into(),
            Self::Stateless { .. } => {
                "remove stateless, or use scheduler = \"mh\" with tcp or sctp and no persistence".into()
            }
            Self::Quic { .. } => "remove quic, or use protocol = \"udp\" without persistence and one_packet".into(),
            Self::TableSize { sizes: [] | [_], .. } => "remove table_size, or use scheduler mh".into(),
            Self::TableSize { sizes, .. } => {
                let sizes: Vec<_> = sizes.iter().map(ToString::to_string).collect();
                format!("use one of {}", sizes.join(", "))
            }
            Self::SlowStart { .. } => "remove slow_start, or use scheduler wrr, wlc, sed, nq or twos".into(),
            Self::SlowStartTime(_) => "use 1s to 1d".into(),
            Self::SharedServerId { .. } => "give one of them another server_id".into(),
            Self::ServerIdWithoutQuic => "remove it, or set quic = true".into(),
            Self::ServerId(_) => "write four bytes as eight hexadecimal digits, like \"0a000002\"".into(),
            Self::NoAddress(_) => "remove vip, and see to it that marked packets come to this host".into(),
            Self::Weight(_) => format!("use 0 to {MAX_WEIGHT}; 0 takes no new connections"),
            Self::Thresholds { .. } => "set upper above lower, or remove lower".into(),
            Self::MethodKeepsPort { service, .. } => format!("use port {service}, or method = \"nat\""),
            Self::PersistenceTime(_) => format!("use 1s to {MAX_PERSISTENCE_S}s (31 days)"),
            Self::PersistenceMask(_) => {
                "use a mask like \"255.255.255.0\" for IPv4 or a prefix like \"/64\" for IPv6".into()
            }
            Self::GueWithoutPort => "set tunnel_port, usually 6080".into(),
            Self::TunnelChecksum { .. } => "remove tunnel_checksum, or choose \"none\"".into(),
            Self::Health((.., remedy)) | Self::Failover { fault: (.., remedy), .. } => (*remedy).into(),
            Self::HeldTwice { .. } => {
                "remove vip: the master of the virtual router has the address; or take it out of the router".into()
            }
            Self::TooManyMarks(_) => "use wider prefixes and port ranges, or fewer rules".into(),
            Self::SourceFamily { .. } => "use prefixes of the service's family".into(),
            Self::SourceTwice { .. } => "name it once, in allow or in deny".into(),
            Self::TooManySources(_) => "use wider prefixes".into(),
            Self::MarkInterface(_) => "name an interface as `ip link` shows it".into(),
            Self::MarkFamily { .. } => "use addresses of one family, or set family to theirs".into(),
            Self::MarkProtocol(_) => {
                let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
                format!("use \"{}\" or a number from 1 to 255 in quotes", names.join("\", \""))
            }
            Self::Setting { remedy, .. } => (*remedy).into(),
        }
    }

    /// The key of dirigent.toml that is to blame.
    pub fn key(&self) -> &'static str {
        match self {
            Self::DuplicateService(_)
            | Self::DuplicateServer { .. }
            | Self::FamilyMismatch(_)
            | Self::NotUnicast(_)
            | Self::MethodKeepsPort { .. }
            | Self::PortZero(_) => "address",
            Self::OnePacketNotUdp(_) => "one_packet",
            Self::Stateless { .. } => "stateless",
            Self::Quic { .. } => "quic",
            Self::TableSize { .. } => "table_size",
            Self::SlowStart { .. } | Self::SlowStartTime(_) => "slow_start",
            Self::SharedServerId { .. } | Self::ServerIdWithoutQuic | Self::ServerId(_) => "server_id",
            Self::NoAddress(_) | Self::HeldTwice { .. } => "vip",
            Self::Weight(_) => "weight",
            Self::Thresholds { .. } => "lower",
            Self::PersistenceTime(_) => "timeout",
            Self::PersistenceMask(_) => "mask",
            Self::GueWithoutPort => "tunnel",
            Self::TunnelChecksum { .. } => "tunnel_checksum",
            Self::Health((key, ..)) | Self::Failover { fault: (key, ..), .. } => key,
            Self::TooManyMarks(_) => "mark",
            Self::SourceFamily { key, .. } | Self::SourceTwice { key, .. } => key,
            Self::TooManySources(_) => "deny",
            Self::MarkInterface(_) => "interface",
            Self::MarkFamily { key, .. } => key,
            Self::MarkProtocol(_) => "protocol",
            Self::Setting { name, .. } => name,
        }
    }
}

/// Something of IPVS that is refused, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{what} is refused: {why}")]
pub struct Unsupported {
    /// What, like `persistence engine sip`.
    pub what: &'static str,
    /// Why, and what to use instead.
    pub why: &'static str,
}

/// An operation on a Model refused as the kernel would refuse it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IpvsError {
    /// Add: there is such a service (EEXIST).
    #[error("Service already exists")]
    ServiceExists,
    /// Edit or delete: there is none (ESRCH).
    #[error("No such service")]
    NoSuchService,
    /// Add or edit: the name is no scheduler's or persistence engine's (ENOENT).
    #[error("Scheduler or persistence engine not found")]
    SchedulerNotFound,
    /// Server operation on a service that is not there (ESRCH).
    #[error("Service not defined")]
    ServiceNotDefined,
    /// Add: there is such a server (EEXIST).
    #[error("Destination already exists")]
    ServerExists,
    /// Edit or delete: there is none (ENOENT).
    #[error("No such destination")]
    NoSuchServer,
    /// Weight or thresholds (ERANGE).
    #[error("Numerical result out of range")]
    OutOfRange(#[source] Violation),
    /// Everything else the Model does not allow (EINVAL).
    #[error("Invalid operation.  Possibly wrong module version, address not unicast, ...")]
    Invalid(#[source] Violation),
    /// Start of a synchronisation daemon while a server has another address family than its service (EINVAL).
    #[error("Invalid operation.  Possibly wrong module version, address not unicast, ...")]
    MixedFamilies,
    /// Start: it runs (EEXIST).
    #[error("Daemon has already run")]
    DaemonRuns,
    /// Stop: it does not run (ESRCH).
    #[error("No daemon is running")]
    NoDaemon,
    /// Start: IPVS's daemons may differ from each other, ours may not (EOPNOTSUPP).
    #[error(
        "master and backup go by one [sync], and the other runs with {runs}: start this one so too, or stop the other first"
    )]
    OtherDaemon {
        /// With what, as options.
        runs: String,
    },
    /// Stop of one that a virtual router starts and stops (EOPNOTSUPP).
    #[error("virtual router {router} says which daemon runs: remove router of [sync], or set its role to \"none\"")]
    RouterSynchronises {
        /// Its name.
        router: String,
    },
    /// IPVS would; Dirigent does not (EOPNOTSUPP).
    #[error("{0}")]
    Unsupported(#[source] Unsupported),
}

impl IpvsError {
    /// Linux's number of the error.
    pub fn errno(&self) -> i32 {
        match self {
            Self::SchedulerNotFound | Self::NoSuchServer => 2,
            Self::NoSuchService | Self::ServiceNotDefined | Self::NoDaemon => 3,
            Self::ServiceExists | Self::ServerExists | Self::DaemonRuns => 17,
            Self::Invalid(_) | Self::MixedFamilies => 22,
            Self::OutOfRange(_) => 34,
            Self::OtherDaemon { .. } | Self::RouterSynchronises { .. } | Self::Unsupported(_) => 95,
        }
    }
}

impl From<Violation> for IpvsError {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Weight(_) | Violation::Thresholds { .. } => Self::OutOfRange(violation),
            _ => Self::Invalid(violation),
        }
    }
}

impl From<Unsupported> for IpvsError {
    fn from(unsupported: Unsupported) -> Self {
        Self::Unsupported(unsupported)
    }
}

/// A command line ipvsadm itself refuses, before any kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct OptionError {
    /// ipvsadm's exit status: 2, or 255 for what its option library refuses.
    pub exit_code: u8,
    /// ipvsadm's words.
    pub message: String,
}
