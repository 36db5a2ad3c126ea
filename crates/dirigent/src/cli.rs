//! The command line's grammar.

mod edit;

pub use edit::{ServerEdit, ServerRemoval, ServiceEdit, ServiceRemoval};

use crate::explain::Flag;
use clap::{Args, Parser, Subcommand, ValueEnum};
use dirigent_config::{Mode, Protocol};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A layer-4 load balancer in the Linux kernel: IPVS remade on XDP and tc.
#[derive(Debug, Parser)]
#[command(name = "dirigent", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Which director: its name holds its pins, socket and lock
    #[arg(long, global = true, value_name = "NAME", env = "DIRIGENT_INSTANCE")]
    pub instance: Option<String>,
    /// The control socket [default: /run/dirigent/INSTANCE.sock]
    #[arg(long, global = true, value_name = "PATH", env = "DIRIGENT_SOCKET")]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// No options, as under another program's name: what the environment says holds.
    pub fn of_environment() -> Self {
        let name = |variable| std::env::var_os(variable);
        let instance = name("DIRIGENT_INSTANCE").map(|name| name.to_string_lossy().into_owned());
        Self {
            instance,
            socket: name("DIRIGENT_SOCKET").map(PathBuf::from),
            command: Command::Ipvsadm { args: Vec::new() },
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  dirigent check --config /etc/dirigent.toml    all mistakes at once, nothing changed
  dirigent run --config /etc/dirigent.toml      the daemon, in the foreground
  dirigent service list --watch                 virtual services and their servers
  dirigent server add 192.0.2.10:80 10.0.0.4    one more, at runtime
  dirigent server drain 192.0.2.10:80 10.0.0.2  take a server out, without breaking a connection
  dirigent stats --drops                        packets lost, and why
  dirigent top                                  services, servers and connections as they change
  dirigent stop --detach                        the only way to stop forwarding
  dirigent lab up --servers 3                   a network to try it in

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the configuration is invalid,
4 the kernel lacks a feature, or this user lacks the rights,
5 what was waited for did not come in time,
6 the configuration is another one than the change was meant for,
7 there is no service or server of that name, 8 it is there already,
9 the doctor found warnings, and no errors.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the director's daemon in the foreground
    #[command(after_help = "\
Examples:
  dirigent run --config /etc/dirigent.toml
  dirigent run --config test.toml --instance test
  dirigent run --config /etc/dirigent/dirigent.toml --user dirigent
  dirigent run --empty

SIGHUP reads the configuration again. SIGTERM ends the daemon and leaves forwarding in place; a new daemon takes it over.
The log goes to stderr: RUST_LOG says how much, DIRIGENT_LOG_FORMAT=json makes an object of each line.")]
    Run(RunArgs),
    /// As root, make what a daemon of another user needs: its directories, and what one before it left
    #[command(after_help = "\
Example:
  dirigent prepare --user dirigent --config /etc/dirigent/dirigent.toml    as the unit file does, before the daemon

`dirigent run --user` does the same by itself.")]
    Prepare {
        /// Whose the daemon will be
        #[arg(long, value_name = "USER")]
        user: String,
        /// The configuration, which names the director [default: --instance]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check a configuration file: all mistakes at once, each with line and remedy
    #[command(after_help = "\
Example:
  dirigent check --config /etc/dirigent.toml")]
    Check {
        /// The file.
        #[command(flatten)]
        config: ConfigArgs,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// Virtual services
    #[command(subcommand, arg_required_else_help = true)]
    Service(ServiceCommand),
    /// Real servers
    #[command(subcommand, arg_required_else_help = true)]
    Server(ServerCommand),
    /// Connections
    #[command(subcommand, arg_required_else_help = true)]
    Connection(ConnectionCommand),
    /// Counters by service, server and verdict
    #[command(after_help = "\
Examples:
  dirigent stats           traffic and all verdicts
  dirigent stats --drops   only what was lost, and why
  dirigent stats --rate    connections, packets and bytes each second
  dirigent stats --zero 'tcp 192.0.2.10:80'
  dirigent stats --json")]
    Stats {
        /// Only packets that were dropped or answered with an error
        #[arg(long)]
        drops: bool,
        /// How fast the counters grow: each second, as `ipvsadm --rate` has it
        #[arg(long, conflicts_with = "drops")]
        rate: bool,
        /// Have the counters of a service and its servers begin at zero; without SERVICE all
        #[arg(long, value_name = "SERVICE", num_args = 0..=1, conflicts_with_all = ["drops", "rate"])]
        zero: Option<Option<String>>,
        /// How to print.
        #[command(flatten)]
        list: ListArgs,
    },
    /// How the director is doing: interfaces, room, addresses, problems
    Status(ListArgs),
    /// Services, servers and connections with their rates, as they change: a screen for people
    #[command(after_help = "\
Examples:
  dirigent top
  dirigent top --service 192.0.2.10:80 --interval 500ms
  dirigent top --once | head
  ssh -t director dirigent top

? explains the keys. Rates are what was counted between two looks; of the first look the daemon's averages. What shows them
to programs is `dirigent stats --json`.")]
    Top(TopArgs),
    /// What would become of a packet now, step by step; nothing is sent
    #[command(after_help = "\
Examples:
  dirigent explain tcp 198.51.100.7:40000 192.0.2.10:80
  dirigent explain tcp 10.0.0.2:8080 198.51.100.7:40000 --flags syn,ack    a server's answer
  dirigent explain udp '[2001:db8::7]:4000' '[2001:db8::10]:53' --interface eth0 --json

The packet path itself decides, on a copy of the director's tables; the kernel is asked for the ways to both addresses.
Schedulers that draw lots may draw another one when a packet really comes.")]
    Explain(ExplainArgs),
    /// Try every way to a server, and look at what it needs: what is wrong, why, and what helps
    #[command(after_help = "\
Examples:
  dirigent doctor
  dirigent doctor tcp:192.0.2.10:80 --json
  dirigent doctor 10.0.0.2:8080
  dirigent doctor --fix --dry-run    what it would change on this host
  dirigent doctor --fix              and do it
  dirigent doctor --undo             take that back

Connections are made through the packet path to each server as clients make them, and reset at once; who has the virtual
addresses is asked on the links. Nothing is changed but with --fix, which shows first what it will change, and only on
this host: what helps on servers is said, host by host.
Exit code 0: nothing is wrong, 1: an error was found, 9: only warnings.")]
    Doctor(DoctorArgs),
    /// The way of a service's request and of its answer, hop by hop; nothing is sent
    #[command(after_help = "\
Examples:
  dirigent walk tcp:192.0.2.10:80
  dirigent walk 192.0.2.10:80 --server 10.0.0.2 --client 198.51.100.7
  dirigent walk fwmark:7 --to tcp:192.0.2.200:8080 --json

Addresses, MACs and TTL at each hop, there and back, who changes what, what must be so for it to work, and who carries which
traffic. The director's part is decided by the packet path itself, on a copy of its tables; of links that it is not on the
MACs cannot be known.")]
    Walk(WalkArgs),
    /// Packets as they go through: what was found, what was done, and why
    #[command(after_help = "\
Examples:
  dirigent trace --client 198.51.100.7
  dirigent trace --service tcp:192.0.2.10:80 --count 10 --pcap web.pcapng
  dirigent trace --server 10.0.0.2:8080 --json
  dirigent trace --reason dropped,no_server    docs/drops.md has all reasons

What is asked for must all be so. Each packet is told of as it came, with its connection or why it has none, the servers that a
scheduler had to choose from and what it saw of them, the verdict, and the packet as it left. tcpdump sees nothing of what XDP
takes; here it is, and --pcap writes both frames for Wireshark, with their story as comments. Without any filter, packets that
are none of the director's are left out. Nothing is traced, and nothing costs, when nobody looks. For operators.")]
    Trace(TraceArgs),
    /// What happens, as it happens: configuration applied, servers up or down, drops
    #[command(after_help = "\
Examples:
  dirigent events
  dirigent events --drops 100 --json    one object a line; drops only above 100 a second")]
    Events {
        /// Tell of dropped packets only above so many a second, by reason
        #[arg(long, value_name = "N", default_value_t = 0)]
        drops: u64,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// Have the daemon read its file again; what was changed at runtime stays
    #[command(after_help = "\
Examples:
  dirigent reload
  dirigent reload --replace --dry-run    what would happen if runtime changes were dropped")]
    Reload {
        /// Drop what was changed at runtime: nothing but the file holds
        #[arg(long)]
        replace: bool,
        /// On which terms.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Virtual routers: who is master of the virtual addresses
    #[command(subcommand, arg_required_else_help = true)]
    Failover(FailoverCommand),
    /// Take virtual addresses away when the daemon can not: started by it, not by people
    #[command(hide = true)]
    Guard,
    /// What is configured, how it came so, and how to change it as a whole
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Remove the director: programs, connections, counters and managed addresses
    #[command(after_help = "\
Example:
  dirigent stop --detach

To end only the daemon, and have forwarding go on, send it SIGTERM.")]
    Stop(StopArgs),
    /// dirigent.toml out of other programs' configuration
    #[command(subcommand, arg_required_else_help = true)]
    Import(ImportCommand),
    /// As ipvsadm: the same options, output and exit codes
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  dirigent ipvsadm -A -t 192.0.2.10:80 -s wrr
  dirigent ipvsadm -L -n --stats
  ln -s $(command -v dirigent) /usr/local/sbin/ipvsadm    and scripts made for ipvsadm run unchanged

DIRIGENT_INSTANCE and DIRIGENT_SOCKET name another director."
    )]
    Ipvsadm {
        /// Options of ipvsadm: see `dirigent ipvsadm -h`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        args: Vec<String>,
    },
    /// What IPVS's files in /proc/net would say
    #[command(after_help = "\
Examples:
  dirigent proc ip_vs
  dirigent proc /proc/net/ip_vs_conn")]
    Proc {
        /// ip_vs, ip_vs_app, ip_vs_conn, ip_vs_stats or ip_vs_stats_percpu
        name: String,
    },
    /// What IPVS's sysctls, net.ipv4.vs.NAME, would say
    #[command(after_help = "\
Examples:
  dirigent sysctl
  dirigent sysctl net.ipv4.vs.conn_reuse_mode

They are keys of [director] in dirigent.toml: docs/config.md.")]
    Sysctl {
        /// One of them
        name: Option<String>,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// What the shell needs to complete commands and options
    #[command(after_help = "\
Examples:
  dirigent completions bash > /usr/share/bash-completion/completions/dirigent
  dirigent completions zsh > /usr/share/zsh/vendor-completions/_dirigent")]
    Completions {
        /// Whose
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// The control API in OpenAPI's words
    #[command(after_help = "\
Examples:
  dirigent openapi > dirigent.json
  curl --unix-socket /run/dirigent/main.sock http://dirigent/v1/openapi.json")]
    Openapi,
    /// Manual pages: this program's on stdout, or those of all commands into a directory
    #[command(after_help = "\
Examples:
  dirigent man | man -l -
  dirigent man /usr/share/man/man8")]
    Man {
        /// Where to write them: dirigent.8, dirigent-service-list.8, …
        directory: Option<PathBuf>,
    },
    /// A network of namespaces with clients, servers and a director, to try things in
    #[command(subcommand, arg_required_else_help = true)]
    Lab(LabCommand),
    /// A real server's side of direct routing and tunnelling, on a machine without a director
    #[command(subcommand, arg_required_else_help = true)]
    Realserver(RealserverCommand),
}

/// What can be imported.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// A saved table of ipvsadm, or a script that makes one
    #[command(after_help = "\
Examples:
  ipvsadm -S -n | dirigent import ipvsadm - > /etc/dirigent.toml
  dirigent import ipvsadm /etc/ipvsadm.rules

Prints dirigent.toml. Lines that cannot be translated are named on stderr, each with the reason; then the exit code
is 1, and what could be translated is printed all the same.")]
    Ipvsadm {
        /// The file; - is stdin
        file: PathBuf,
    },
    /// keepalived.conf: virtual servers, their groups, real servers and checkers
    #[command(after_help = "\
Examples:
  dirigent import keepalived /etc/keepalived/keepalived.conf > /etc/dirigent.toml

Prints dirigent.toml. Lines without a counterpart, and those that are wrong, are named on stderr, each with its place and
the reason; then the exit code is 1, and what could be translated is printed all the same.
`dirigent run --config keepalived.conf` takes the file as it is.")]
    Keepalived {
        /// The file; - is stdin
        file: PathBuf,
    },
    /// MARK rules of iptables: what `iptables-save` prints, or command lines
    #[command(after_help = "\
Examples:
  iptables-save -t mangle  | dirigent import iptables -
  ip6tables-save -t mangle | dirigent import iptables -
  dirigent import iptables /etc/lvs/marks.sh

Prints [[mark]] tables for dirigent.toml. Rules that cannot be translated are named on stderr, each with its
line and the reason; then the exit code is 1, and what could be translated is printed all the same.")]
    Iptables {
        /// The file; - is stdin
        file: PathBuf,
        /// Where the text does not say whose rules they are: ip6tables'
        #[arg(short = '6', long = "ipv6")]
        ipv6: bool,
    },
    /// Rules of nft that set the mark: what `nft -j list ruleset` prints
    #[command(after_help = "\
Example:
  nft -j list ruleset | dirigent import nft -

Prints [[mark]] tables for dirigent.toml. Rules that cannot be translated are named on stderr, each with its
chain, handle and the reason; then the exit code is 1, and what could be translated is printed all the same.")]
    Nft {
        /// The file; - is stdin
        file: PathBuf,
    },
}

/// Commands on this machine as a real server.
#[derive(Debug, Subcommand)]
pub enum RealserverCommand {
    /// Set this machine up as a real server; shows first what it would change
    #[command(after_help = "\
Examples:
  dirigent realserver setup --mode dr --vip 192.0.2.10
  dirigent realserver setup --mode tun --vip 192.0.2.10 --vip 2001:db8::10 --tunnel gue --director 10.0.0.1
  dirigent realserver setup --mode dr  --vip 192.0.2.10 --gateway 10.0.0.254
  dirigent realserver setup --mode tun --vip 192.0.2.10 --dry-run

NAT needs nothing of this: there the server's default route leads to the director.")]
    Setup(RealserverSetup),
    /// Say what is right and what is wrong for a real server; exit code 1 if anything is wrong
    #[command(after_help = "\
Example:
  dirigent realserver check --mode tun --vip 192.0.2.10")]
    Check(RealserverCheck),
    /// Take back exactly what setup changed
    #[command(after_help = "\
Example:
  dirigent realserver undo --yes")]
    Undo(RealserverUndo),
}

/// How clients' packets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RealserverMode {
    /// Direct routing: as they are, by this machine's MAC.
    Dr,
    /// Tunnelling: inside other packets.
    Tun,
}

/// What kind of real server.
#[derive(Debug, Clone, Args)]
pub struct RealserverTarget {
    /// How clients' packets come: direct routing or tunnelling
    #[arg(long, value_enum)]
    pub mode: RealserverMode,
    /// A virtual address; several times for several
    #[arg(long, value_name = "ADDR", required = true)]
    pub vip: Vec<std::net::IpAddr>,
    /// The interface they come by [default: the default route's]
    #[arg(long, value_name = "DEV")]
    pub interface: Option<String>,
    /// What they are inside of [default: ipip]
    #[arg(long, value_name = "KIND", value_parser = ["ipip", "gre", "gue"])]
    pub tunnel: Vec<String>,
    /// UDP port of gue
    #[arg(long, value_name = "PORT", default_value_t = 6080, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Take tunnelled packets from this director only; several times for several
    #[arg(long, value_name = "ADDR")]
    pub director: Vec<std::net::IpAddr>,
    /// Answers from the virtual addresses leave by this router, whatever the default route is; once for each family
    #[arg(long, value_name = "ADDR")]
    pub gateway: Vec<std::net::IpAddr>,
    /// The routing table that says so
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = own_table)]
    pub table: u32,
}

/// A routing table that is not one of the kernel's.
fn own_table(word: &str) -> Result<u32, String> {
    match word.parse() {
        Ok(0 | 253..=255) => Err("tables 0 and 253 to 255 are the kernel's".into()),
        Ok(table) => Ok(table),
        Err(e) => Err(format!("{e}")),
    }
}

/// Where changes are recorded.
#[derive(Debug, Clone, Args)]
pub struct RealserverState {
    /// The record of what was changed
    #[arg(
        long,
        value_name = "FILE",
        env = "DIRIGENT_REALSERVER_STATE",
        default_value = "/var/lib/dirigent/realserver.json"
    )]
    pub state: PathBuf,
}

/// How to set up.
#[derive(Debug, Args)]
pub struct RealserverSetup {
    /// What kind of real server.
    #[command(flatten)]
    pub target: RealserverTarget,
    /// Only show what would be changed
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
    /// Where changes are recorded.
    #[command(flatten)]
    pub state: RealserverState,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

/// What to check.
#[derive(Debug, Args)]
pub struct RealserverCheck {
    /// What kind of real server.
    #[command(flatten)]
    pub target: RealserverTarget,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

/// How to undo.
#[derive(Debug, Args)]
pub struct RealserverUndo {
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
    /// Where changes are recorded.
    #[command(flatten)]
    pub state: RealserverState,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

/// What to run.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", required_unless_present = "empty")]
    pub config: Option<PathBuf>,
    /// Begin without a file: everything comes at runtime, by ipvsadm's rules, `dirigent config apply` or the API
    #[arg(long, conflicts_with = "config")]
    pub empty: bool,
    /// Give up root: go on as this user, with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW only
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

/// A configuration file.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The configuration file, dirigent.toml
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// On which terms a change is made.
#[derive(Debug, Clone, Args)]
pub struct ChangeArgs {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Only if this generation is in force: else nothing is done, and the exit code is 6
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

/// Commands on virtual routers.
#[derive(Debug, Subcommand)]
pub enum FailoverCommand {
    /// Show them: state, priority, and which master was heard
    #[command(after_help = "\
Examples:
  dirigent failover status
  dirigent failover status --watch=500ms --json")]
    Status(ListArgs),
    /// Give way to another host now: all that are master here, or one with its group
    #[command(after_help = "\
Examples:
  dirigent failover now
  dirigent failover now web

Before maintenance. The other host takes over at once; with nobody there this one comes back. It does not take over
from a living master until `dirigent failover back`, or until it was master again.")]
    Now {
        /// A virtual router or a group of them [default: all]
        router: Option<String>,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// After `now`: take over again where the priority is higher
    #[command(after_help = "\
Example:
  dirigent failover back web")]
    Back {
        /// A virtual router or a group of them [default: all]
        router: Option<String>,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// Say what would happen, and change nothing: who takes over, and when
    #[command(after_help = "\
Examples:
  dirigent failover rehearse
  dirigent failover rehearse web --what link --json")]
    Rehearse {
        /// A virtual router or a group of them [default: all]
        router: Option<String>,
        /// hand-over, as `failover now`; stop, as `stop --detach`; link: this host is gone without a word
        #[arg(long, value_name = "WHAT", default_value = "hand-over", value_parser = ["hand-over", "stop", "link"])]
        what: String,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
}

/// Commands on what is configured.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print it as dirigent.toml: the file's, with all that was changed at runtime
    Show {
        /// Only what the file says
        #[arg(long)]
        file: bool,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// What was changed at runtime; with FILE, what applying it would do
    #[command(after_help = "\
Examples:
  dirigent config diff               runtime changes, each with what the file says
  dirigent config diff new.toml      the operations that `config apply new.toml` would do

Exit codes: 0 there is no difference, 1 there is.")]
    Diff {
        /// A configuration; - is stdin
        file: Option<PathBuf>,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// Make services, mark rules and settings what a file says, in one transaction
    #[command(after_help = "\
Examples:
  dirigent config apply new.toml              shows the operations, and asks
  dirigent config apply new.toml --yes
  dirigent config apply - --dry-run < new.toml

What differs from the daemon's own file is a runtime change: it stays over a restart, and over a reboot with `config save`.")]
    Apply {
        /// A configuration; - is stdin
        file: PathBuf,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
        /// On which terms.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// The changes that were made, the latest first
    History {
        /// No more than this many
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// Take back the last change, or all after a generation
    #[command(after_help = "\
Examples:
  dirigent config rollback            to what was before the last change
  dirigent config rollback 17         to what generation 17 was

That is a change, too, with a generation of its own: it can be taken back.")]
    Rollback {
        /// The generation
        to: Option<u64>,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
        /// On which terms.
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Keep what was changed at runtime over a reboot, too
    Save(ChangeArgs),
}

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
pub struct PrintArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How to print what is looked at.
#[derive(Debug, Clone, Copy, Args)]
pub struct ListArgs {
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
    /// Again and again, every so often [default: 2s]; with --json each time one line
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "2s", value_parser = period)]
    pub watch: Option<std::time::Duration>,
}

fn period(word: &str) -> Result<std::time::Duration, String> {
    let found = duration(word)?;
    if found < std::time::Duration::from_millis(100) { Err("that is less than 100ms".to_owned()) } else { Ok(found) }
}

/// How to look.
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// Between two looks
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = period)]
    pub interval: std::time::Duration,
    /// Begin at the servers of one: [PROTOCOL:]ADDRESS:PORT, or fwmark:MARK[:6]
    #[arg(long)]
    pub service: Option<String>,
    /// Print one look as text, and end; as wide as the terminal, or COLUMNS, or as it needs
    #[arg(long)]
    pub once: bool,
}

/// Commands on virtual services.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// List them
    List(ListArgs),
    /// Add one, without servers
    #[command(after_help = "\
Examples:
  dirigent service add tcp:192.0.2.10:80 --scheduler wrr
  dirigent service add udp:[2001:db8::10]:53 --one-packet
  dirigent service add fwmark:7 --persistence 5m --persistence-mask 255.255.255.0

What is changed at runtime stays over reload and restart, and over a reboot with `dirigent config save`.")]
    Add(ServiceEdit),
    /// Change options of one: those that are given
    #[command(after_help = "\
Examples:
  dirigent service edit tcp:192.0.2.10:80 --scheduler mh --scheduler-flag mh-port
  dirigent service edit tcp:192.0.2.10:80 --persistence none --dry-run")]
    Edit(ServiceEdit),
    /// Remove one with its servers
    #[command(
        visible_alias = "delete",
        after_help = "\
Example:
  dirigent service remove tcp:192.0.2.10:80 --dry-run"
    )]
    Remove(ServiceRemoval),
}

/// Commands on real servers.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// List them
    List(ListArgs),
    /// Add one to a virtual service
    #[command(after_help = "\
Examples:
  dirigent server add tcp:192.0.2.10:80 10.0.0.2:8080 --weight 3
  dirigent server add 192.0.2.10:80 10.0.0.3 --method dr
  dirigent server add 192.0.2.10:80 10.0.0.4 --method tun --tunnel gue --tunnel-port 6080

Without a port the server has the service's.")]
    Add(ServerEdit),
    /// Change options of one: those that are given
    #[command(after_help = "\
Example:
  dirigent server edit 192.0.2.10:80 10.0.0.2:8080 --weight 0")]
    Edit(ServerEdit),
    /// Remove one; `server drain` before that keeps its connections
    #[command(
        visible_alias = "delete",
        after_help = "\
Example:
  dirigent server remove 192.0.2.10:80 10.0.0.2:8080"
    )]
    Remove(ServerRemoval),
    /// Give a server no new connections, and wait until those that it has are gone
    #[command(after_help = "\
Examples:
  dirigent server drain 192.0.2.10:80 10.0.0.2:8080
  dirigent server drain tcp:192.0.2.10:80 10.0.0.2 --timeout 10m
  dirigent server drain fwmark:7 10.0.0.2 --no-wait

Existing connections go on. Clients with persistence get another server. The configured weight stays, and so does
the drain, whatever becomes of this command or the daemon, until `dirigent server undrain` or the server is removed.
Exit codes: 0 no connection is left, 5 the timeout came first: stderr says what is left, and the drain goes on.")]
    Drain(DrainArgs),
    /// Give a server new connections again
    #[command(after_help = "\
Example:
  dirigent server undrain 192.0.2.10:80 10.0.0.2:8080")]
    Undrain {
        /// Which one.
        #[command(flatten)]
        server: ServerArgs,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
}

/// Which real server of which virtual service.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// [PROTOCOL:]ADDRESS:PORT, or fwmark:MARK[:6]
    pub service: String,
    /// ADDRESS[:PORT]
    pub server: String,
}

/// How to drain.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// Which one.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Wait no longer than this, like 90s, 10m or 1h [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<std::time::Duration>,
    /// Do not wait
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

fn duration(word: &str) -> Result<std::time::Duration, String> {
    dirigent_config::file::duration::parse(word).ok_or_else(|| "write a number with its unit: 90s, 10m, 1h".to_owned())
}

/// Commands on connections.
#[derive(Debug, Subcommand)]
pub enum ConnectionCommand {
    /// List them
    #[command(after_help = "\
Examples:
  dirigent connection list --service tcp:192.0.2.10:80
  dirigent connection list --server 10.0.0.2 --limit 100 --json")]
    List {
        /// No more than this many
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        limit: usize,
        /// Only those of a service: [PROTOCOL:]ADDRESS:PORT, or fwmark:MARK[:6]
        #[arg(long)]
        service: Option<String>,
        /// Only those of a server: ADDRESS[:PORT]
        #[arg(long)]
        server: Option<String>,
        /// How to print.
        #[command(flatten)]
        list: ListArgs,
    },
}

/// How to stop.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Yes, stop forwarding: existing connections break
    #[arg(long, required = true)]
    pub detach: bool,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

/// Commands on labs.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Build a lab, and start servers and the daemon in it
    #[command(after_help = "\
Examples:
  dirigent lab up --mode nat --family 4 --servers 3
  dirigent lab up --name mine --one-arm --no-daemon
  dirigent lab exec client -- curl http://192.0.2.10/
  dirigent lab down")]
    Up(LabUp),
    /// Remove a lab with everything in it, also one that is half-built or damaged
    Down(LabName),
    /// Show a lab, or all
    Status {
        /// Which lab.
        #[command(flatten)]
        lab: LabName,
        /// How to print.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// Run a command on a host of a lab
    #[command(after_help = "\
Examples:
  dirigent lab exec client -- curl http://192.0.2.10/
  dirigent lab exec director -- dirigent status")]
    Exec {
        /// Which lab.
        #[command(flatten)]
        lab: LabName,
        /// client, router, director, server1, …
        host: String,
        /// The command with its arguments
        #[arg(required = true, last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Show one request and its reply as captured at every hop
    Walk {
        /// Which lab.
        #[command(flatten)]
        lab: LabName,
        /// Address family [default: the lab's]
        #[arg(long, value_enum)]
        family: Option<Family>,
        /// Then have server 1 answer around the director, and show who refuses that
        #[arg(long, conflicts_with = "json")]
        around: bool,
        /// How to print: as JSON all that was captured, by host and interface.
        #[command(flatten)]
        print: PrintArgs,
    },
    /// Show one request and its reply in several labs next to each other, and the bytes on each side of the director
    #[command(after_help = "\
Example:
  dirigent lab up --name a; dirigent lab up --name b --mode dr; dirigent lab up --name c --mode tun
  dirigent lab compare a b c")]
    Compare {
        /// The labs, with two arms each; their forwarding methods head the columns
        #[arg(required = true, value_name = "L")]
        labs: Vec<String>,
        /// Address family
        #[arg(long, value_enum, default_value = "4")]
        family: Family,
    },
    /// Show how requests were distributed over the servers, and the bytes on each side of the director
    Traffic(LabName),
}

/// Which lab.
#[derive(Debug, Clone, Args)]
pub struct LabName {
    /// The lab's name
    #[arg(long, value_name = "L", default_value = dirigent_net::lab::DEFAULT_NAME, env = "DIRIGENT_LAB")]
    pub name: String,
}

/// What lab to build.
#[derive(Debug, Clone, Args)]
pub struct LabUp {
    /// Which lab.
    #[command(flatten)]
    pub lab: LabName,
    /// Forwarding method the routes are made for
    #[arg(long, value_enum, default_value = "nat")]
    pub mode: LabMode,
    /// What packets to servers are inside of, in mode tun
    #[arg(long, value_name = "KIND", default_value = "ipip", value_parser = ["ipip", "gre", "gue"])]
    pub tunnel: String,
    /// Address family of what they are inside of [default: each packet's own]
    #[arg(long, value_enum, value_name = "F")]
    pub tunnel_family: Option<Family>,
    /// Address family that is shown; both are there
    #[arg(long, value_enum, default_value = "4")]
    pub family: Family,
    /// How many servers, 1 to 250
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=250))]
    pub servers: u8,
    /// One interface for clients and servers
    #[arg(long)]
    pub one_arm: bool,
    /// Do not start the daemon
    #[arg(long)]
    pub no_daemon: bool,
    /// The daemon's configuration instead of one made for the lab
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Checksum and segmentation offloads off, as native XDP on virtual links needs
    #[arg(long)]
    pub no_offloads: bool,
    /// Where the packet path runs [default: auto, or as the given configuration says]
    #[arg(long, value_name = "PATH", value_parser = packet_path)]
    pub path: Option<Mode>,
}

fn packet_path(word: &str) -> Result<Mode, String> {
    let names = Mode::ALL.map(Mode::name).join(", ");
    Mode::ALL.into_iter().find(|mode| mode.name() == word).ok_or_else(|| format!("it is none of {names}"))
}

/// Forwarding methods a lab can be built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LabMode {
    /// Servers answer through the director.
    Nat,
    /// Direct routing: servers hold the virtual address and answer on their own.
    Dr,
    /// Tunnelling: the same, and packets come to them inside others.
    Tun,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4.
    #[value(name = "4")]
    V4,
    /// IPv6.
    #[value(name = "6")]
    V6,
}

impl From<Family> for dirigent_net::lab::Family {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4,
            Family::V6 => Self::V6,
        }
    }
}

/// Whom the doctor looks at, and what he may do.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Only this service or server, like tcp:192.0.2.10:80 or 10.0.0.2:8080
    pub about: Option<String>,
    /// Change what is wrong on this host
    #[arg(long, conflicts_with = "undo")]
    pub fix: bool,
    /// Take back what --fix changed
    #[arg(long, conflicts_with = "about")]
    pub undo: bool,
    /// Only show what would be changed
    #[arg(long, requires = "fix")]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

/// The packet that `explain` is about.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// tcp, udp or sctp
    #[arg(value_parser = protocol)]
    pub protocol: Protocol,
    /// Its source: address and port
    pub from: SocketAddr,
    /// Its destination: address and port
    pub to: SocketAddr,
    /// The interface it comes in by [default: by which its source is reached]
    #[arg(long, value_name = "INTERFACE")]
    pub interface: Option<String>,
    /// Flags of TCP
    #[arg(long, value_enum, value_delimiter = ',', default_value = "syn")]
    pub flags: Vec<Flag>,
    /// What netfilter has marked it with
    #[arg(long, value_name = "MARK", default_value_t = 0)]
    pub mark: u32,
    /// Bytes of its payload
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub length: u16,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

/// Which packets `trace` tells of.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// From or to this client: ADDRESS[/LENGTH]
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<String>,
    /// Of this virtual service: [PROTOCOL:]ADDRESS:PORT, or fwmark:MARK[:6]
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Of connections of this real server, or from it: ADDRESS[:PORT]
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// With one of these reasons, or forwarded, passed, answered, dropped
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    pub reason: Vec<String>,
    /// No more than so many packets a second
    #[arg(long, value_name = "N", default_value_t = dirigent_api::TRACE_RATE, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Write them to this file as pcapng, as they came and as they left
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<std::path::PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

/// Whose way `walk` shows.
#[derive(Args, Clone, Debug)]
pub struct WalkArgs {
    /// [PROTOCOL:]ADDRESS:PORT, or fwmark:MARK[:6]
    pub service: String,
    /// One of its servers: ADDRESS[:PORT] [default: one of each forwarding method]
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// The client: ADDRESS[:PORT] [default: an example that the default route leads to]
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<String>,
    /// What is asked, where the service does not say it: PROTOCOL:ADDRESS:PORT
    #[arg(long, value_name = "DESTINATION")]
    pub to: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub print: PrintArgs,
}

fn protocol(name: &str) -> Result<Protocol, String> {
    Protocol::of_name(name).ok_or_else(|| "it is tcp, udp or sctp".to_owned())
}
