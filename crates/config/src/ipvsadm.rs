//! Rules as ipvsadm 1.31 takes them, a line each: `-A -t 192.0.2.10:80 -s rr`.
//!
//! Refusals come in two classes, as with ipvsadm itself: [`OptionError`], when
//! the line makes no sense (nothing was tried), and [`IpvsError`], when the
//! Model refuses what a sound line asks for.

pub mod console;
pub mod daemon;
pub mod list;
pub mod names;
mod options;
pub mod proc;
#[cfg(test)]
mod tests;
mod values;

use crate::error::{IpvsError, OptionError, Unsupported};
use crate::model::{
    Method, Model, Persistence, Scheduler, SchedulerFlags, Server, Service, ServiceKey, TunnelChecksum, TunnelKind,
};
use crate::plan::{Op, Plan};
use daemon::{Daemon, Link};
use options::Id;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use values::Draft;

/// What a whole command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// To change something.
    Rule(Command),
    /// `-L`.
    List(List),
    /// `-S`: rules that make the same table.
    Save {
        /// `-n`: without names.
        numeric: bool,
    },
    /// `-R`: do the rules on stdin.
    Restore,
    /// `-Z`: counters begin at zero, of one service or all.
    Zero(Option<ServiceKey>),
    /// `-h`.
    Help,
    /// `-v`.
    Version,
}

/// What `-L` shall show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// `-n`: without names.
    pub numeric: bool,
    /// What.
    pub shown: Shown,
}

/// What can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The table, or one service of it.
    Table {
        /// None: all.
        service: Option<ServiceKey>,
        /// How.
        layout: Layout,
        /// False (`--nosort`): in the order in which the kernel has them.
        sorted: bool,
    },
    /// `-c`.
    Connections {
        /// `--persistent-conn`: with columns for persistence engines.
        engines: bool,
    },
    /// `--timeout`.
    Timeouts,
    /// `--daemon`.
    Daemons,
}

/// The columns of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Method, weight, connections.
    Plain,
    /// Counters.
    Stats {
        /// Without K, M, G, T.
        exact: bool,
    },
    /// How fast they grow.
    Rate {
        /// Likewise.
        exact: bool,
    },
    /// Thresholds.
    Thresholds,
    /// Persistence templates.
    Persistent,
    /// What tunnels are made of.
    Tunnels,
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `-A`: add a service.
    AddService(ServiceRule),
    /// `-E`: replace all of a service but its servers.
    EditService(ServiceRule),
    /// `-D`: remove a service and its servers.
    DeleteService(ServiceKey),
    /// `-C`: remove all services.
    Clear,
    /// `-a`: add a server.
    AddServer(ServerRule),
    /// `-e`: replace all of a server but its address, port and place.
    EditServer(ServerRule),
    /// `-d`: remove a server.
    DeleteServer {
        /// Its service.
        service: ServiceKey,
        /// Its address.
        address: IpAddr,
        /// Its port.
        port: u16,
    },
    /// `--set`: timeouts in seconds; 0 keeps one.
    SetTimeouts {
        /// TCP ESTABLISHED.
        tcp: u32,
        /// TCP FIN_WAIT.
        tcp_fin: u32,
        /// UDP.
        udp: u32,
    },
    /// `--start-daemon`: tell of connections, or learn them.
    StartDaemon(Daemon, Link),
    /// `--stop-daemon`.
    StopDaemon(Daemon),
}

/// A service as a line describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRule {
    /// Which.
    pub service: ServiceKey,
    /// Name of the scheduler, known or not.
    pub scheduler: String,
    /// Its flags.
    pub scheduler_flags: SchedulerFlags,
    /// `-o`.
    pub one_packet: bool,
    /// `-p`, with `-M`.
    pub persistence: Option<Persistence>,
    /// `--pe`: name of the persistence engine, known or not.
    pub engine: Option<String>,
}

/// A server as a line describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRule {
    /// Its service.
    pub service: ServiceKey,
    /// The server.
    pub server: Server,
}

impl Command {
    /// Reads a line: options separated by blanks, with or without the leading
    /// word `ipvsadm`. None: the line is blank. There is no quoting and there
    /// are no comments, as in ipvsadm.
    pub fn parse(line: &str) -> Result<Option<Self>, OptionError> {
        let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.first() == Some(&"ipvsadm") {
            words.remove(0);
        }
        if words.is_empty() { Ok(None) } else { Self::from_args(&words).map(Some) }
    }

    /// Reads the arguments of ipvsadm, its name not among them, which must be a rule without names.
    pub fn from_args(args: &[&str]) -> Result<Self, OptionError> {
        match Invocation::from_args(args, &names::NoNames)? {
            Invocation::Rule(command) => Ok(command),
            _ => Err(usage("this command changes nothing")),
        }
    }
}

impl Invocation {
    /// Reads the arguments of ipvsadm, its name not among them. None at all list the table.
    pub fn from_args(args: &[&str], names: &dyn names::Names) -> Result<Self, OptionError> {
        if args.is_empty() {
            let shown = Shown::Table { service: None, layout: Layout::Plain, sorted: true };
            return Ok(Self::List(List { numeric: false, shown }));
        }
        let (given, rest) = options::split(args)?;
        let Some((first, others)) = given.split_first() else { return Err(options::try_help()) };
        let command = options::command(first).ok_or_else(options::try_help)?;
        let mut draft = Draft::new(names);
        for opt in others {
            if options::command(opt).is_some() {
                return Err(usage(format!("invalid option `{}'", opt.written)));
            }
            draft.take(opt)?;
        }
        // ipvsadm reads the times of --set from the words that belong to no option.
        let mut rest = rest.into_iter();
        let times = if first.id == Id::Set { Some(values::timeouts(&mut rest)?) } else { None };
        if let Some(extra) = rest.next() {
            return Err(usage(format!("unexpected argument {extra}")));
        }
        draft.finish_flags()?;
        options::check(command, &draft.seen)?;
        draft.build(first, times)
    }
}

impl Command {
    /// Does it to a Model, by IPVS's rules. Refuses what this version does not do.
    pub fn apply(&self, model: &mut Model) -> Result<(), IpvsError> {
        match self {
            Self::AddService(rule) => model.add_service(rule.service(model)?),
            Self::EditService(rule) => model.edit_service(&rule.service(model)?),
            Self::DeleteService(service) => model.remove_service(service),
            Self::Clear => {
                model.clear();
                Ok(())
            }
            Self::AddServer(rule) => rule.apply(model, Model::add_server),
            Self::EditServer(rule) => rule.apply(model, Model::edit_server),
            Self::DeleteServer { service, address, port } => model.remove_server(service, *address, *port),
            Self::SetTimeouts { tcp, tcp_fin, udp } => {
                let mut settings = model.settings().clone();
                let t = &mut settings.timeouts;
                for (to, seconds) in [(&mut t.tcp.established, tcp), (&mut t.tcp.fin_wait, tcp_fin), (&mut t.udp, udp)]
                {
                    if *seconds != 0 {
                        *to = Duration::from_secs((*seconds).into());
                    }
                }
                model.set_settings(settings)
            }
            Self::StartDaemon(daemon, link) => daemon::start(model, *daemon, link),
            Self::StopDaemon(daemon) => daemon::stop(model, *daemon),
        }
    }
}

impl Command {
    /// What it does to the tables of a director with this Model. Not always what stands
    /// between the Models before and after: see [`Command::edits`].
    pub fn plan(&self, model: &Model) -> Result<Plan, IpvsError> {
        let mut after = model.clone();
        self.apply(&mut after)?;
        match self {
            Self::EditServer(rule) => {
                Ok(Plan { ops: vec![Op::EditServer { service: rule.service, server: rule.server(model) }] })
            }
            _ => Ok(Plan::between(model, &after)),
        }
    }
    /// The server that it edits. Its operation has to be done even if nothing changes about it:
    /// wrr starts its round anew.
    pub fn edits(&self) -> Option<(ServiceKey, IpAddr, u16)> {
        match self {
            Self::EditServer(rule) => Some((rule.service, rule.server.address, rule.server.port)),
            _ => None,
        }
    }
    /// Whether it takes something away. What is added after that is new, with counters of its own.
    pub fn removes(&self) -> bool {
        matches!(self, Self::DeleteService(_) | Self::Clear | Self::DeleteServer { .. })
    }
    /// The interface that it needs, which no Model knows of.
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::StartDaemon(_, link) => Some(&link.interface),
            _ => None,
        }
    }
    /// Whether it adds something.
    pub fn adds(&self) -> bool {
        matches!(self, Self::AddService(_) | Self::AddServer(_))
    }
}

/// The only persistence engine of IPVS.
const SIP: Unsupported = Unsupported {
    what: "persistence engine sip",
    why: "it would read the text of every datagram; persistence without --pe, or scheduler sh or mh, keeps a proxy's \
          calls on one server by its address",
};

impl ServiceRule {
    /// The service, without servers; what IPVS does not have stays as it was.
    fn service(&self, model: &Model) -> Result<Service, IpvsError> {
        let key = self.service;
        let scheduler = Scheduler::from_name(&self.scheduler).ok_or(IpvsError::SchedulerNotFound)?;
        match self.engine.as_deref() {
            None => {}
            Some("sip") => return Err(SIP.into()),
            Some(_) => return Err(IpvsError::SchedulerNotFound),
        }
        let old = model.service(&key);
        Ok(Service {
            key,
            scheduler,
            scheduler_flags: self.scheduler_flags,
            // It goes with the scheduler that it is of, as flags do.
            table_size: old.filter(|s| s.scheduler == scheduler).and_then(|s| s.table_size),
            one_packet: self.one_packet,
            persistence: self.persistence,
            stateless: old.is_some_and(|s| s.stateless),
            slow_start: old.and_then(|s| s.slow_start),
            sources: old.map(|s| s.sources.clone()).unwrap_or_default(),
            quic: old.is_some_and(|s| s.quic),
            vip: old.map(|s| s.vip).unwrap_or_default(),
            health: old.map(|s| s.health.clone()).unwrap_or_default(),
            servers: Vec::new(),
        })
    }
}

impl ServerRule {
    /// The server; what IPVS does not have stays as it was.
    fn server(&self, model: &Model) -> Server {
        let old = model.service(&self.service).and_then(|s| s.server(self.server.address, self.server.port));
        Server {
            server_id: old.and_then(|s| s.server_id),
            health: old.map(|s| s.health.clone()).unwrap_or_default(),
            draining: old.is_some_and(|s| s.draining),
            ..self.server.clone()
        }
    }
    fn apply(
        &self,
        model: &mut Model,
        change: fn(&mut Model, &ServiceKey, Server) -> Result<(), IpvsError>,
    ) -> Result<(), IpvsError> {
        let server = self.server(model);
        change(model, &self.service, server)
    }
}

/// With numbers for all names, as [`Command::parse`] reads it.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddService(rule) => write!(f, "-A {rule}"),
            Self::EditService(rule) => write!(f, "-E {rule}"),
            Self::DeleteService(key) => write!(f, "-D {}", Named(key)),
            Self::Clear => f.write_str("-C"),
            Self::AddServer(rule) => write!(f, "-a {rule}"),
            Self::EditServer(rule) => write!(f, "-e {rule}"),
            Self::DeleteServer { service, address, port } => {
                write!(f, "-d {} -r {}", Named(service), crate::model::join(*address, *port))
            }
            Self::SetTimeouts { tcp, tcp_fin, udp } => write!(f, "--set {tcp} {tcp_fin} {udp}"),
            Self::StartDaemon(daemon, link) => write!(f, "--start-daemon {} {link}", daemon.name()),
            Self::StopDaemon(daemon) => write!(f, "--stop-daemon {}", daemon.name()),
        }
    }
}

/// A service as options name it.
struct Named<'a>(&'a ServiceKey);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            ServiceKey::Address { protocol, address, port } => {
                let option = match protocol {
                    crate::Protocol::Tcp => "-t",
                    crate::Protocol::Udp => "-u",
                    crate::Protocol::Sctp => "--sctp-service",
                };
                write!(f, "{option} {}", crate::model::join(address, port))
            }
            ServiceKey::Mark { mark, ipv6 } => write!(f, "-f {mark}{}", if ipv6 { " -6" } else { "" }),
        }
    }
}

impl fmt::Display for ServiceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -s {}", Named(&self.service), self.scheduler)?;
        if let Some(Persistence { timeout_s, mask }) = &self.persistence {
            write!(f, " -p {timeout_s} -M {}", mask.to_string().trim_start_matches('/'))?;
        }
        if let Some(engine) = &self.engine {
            write!(f, " --pe {engine}")?;
        }
        if self.one_packet {
            f.write_str(" -o")?;
        }
        let flags = self.scheduler_flags;
        let set = [(flags.fallback, "flag-1"), (flags.port, "flag-2"), (flags.third, "flag-3")];
        let set: Vec<_> = set.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
        if set.is_empty() { Ok(()) } else { write!(f, " -b {}", set.join(",")) }
    }
}

impl fmt::Display for ServerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Server { method, weight, upper, lower, .. } = &self.server;
        write!(f, "{} -r {} ", Named(&self.service), self.server.name())?;
        match method {
            Method::Nat => f.write_str("-m")?,
            Method::Dr => f.write_str("-g")?,
            Method::Tun(tunnel) => {
                write!(f, "-i --tun-type {}", tunnel.kind.name())?;
                if let TunnelKind::Gue { port } = tunnel.kind {
                    write!(f, " --tun-port {port}")?;
                }
                f.write_str(match tunnel.checksum {
                    TunnelChecksum::None => "",
                    TunnelChecksum::Full => " --tun-csum",
                    TunnelChecksum::Remote => " --tun-remcsum",
                })?;
            }
        }
        write!(f, " -w {weight} -x {upper} -y {lower}")
    }
}

/// A refusal by ipvsadm itself.
fn usage(message: impl Into<String>) -> OptionError {
    OptionError { exit_code: 2, message: message.into() }
}
