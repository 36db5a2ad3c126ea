//! The options of ipvsadm 1.31: their spelling (as its option library, popt,
//! reads it) and which of them each command takes.

use super::usage;
use crate::error::OptionError;
use std::collections::BTreeSet;

/// What an option does, spelling apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    AddService,
    EditService,
    DeleteService,
    Clear,
    AddServer,
    EditServer,
    DeleteServer,
    Set,
    List,
    Zero,
    Restore,
    Save,
    Help,
    Version,
    StartDaemon,
    StopDaemon,
    Tcp,
    Udp,
    Sctp,
    Fwmark,
    Ipv6,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    Nat,
    Tun,
    Dr,
    Weight,
    Upper,
    Lower,
    OnePacket,
    Engine,
    SchedulerFlags,
    TunType,
    TunPort,
    TunNoCsum,
    TunCsum,
    TunRemCsum,
    // From here on: options of commands that are not about the Model.
    Numeric,
    Connection,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    Exact,
    TunInfo,
    SyncIdentity,
    SyncMaxlen,
    McastInterface,
    McastGroup,
    McastPort,
    McastTtl,
    /// Taken and ignored.
    Sort,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Word,
    /// A word, unless the next one begins with `-`.
    PerhapsWord,
}
use Takes::{Nothing, PerhapsWord, Word};

/// Long name, short name, argument, meaning.
const OPTIONS: &[(&str, Option<char>, Takes, Id)] = &[
    ("add-service", Some('A'), Nothing, Id::AddService),
    ("edit-service", Some('E'), Nothing, Id::EditService),
    ("delete-service", Some('D'), Nothing, Id::DeleteService),
    ("clear", Some('C'), Nothing, Id::Clear),
    ("add-server", Some('a'), Nothing, Id::AddServer),
    ("edit-server", Some('e'), Nothing, Id::EditServer),
    ("delete-server", Some('d'), Nothing, Id::DeleteServer),
    ("set", None, Nothing, Id::Set),
    ("list", Some('L'), Nothing, Id::List),
    ("list", Some('l'), Nothing, Id::List),
    ("zero", Some('Z'), Nothing, Id::Zero),
    ("restore", Some('R'), Nothing, Id::Restore),
    ("save", Some('S'), Nothing, Id::Save),
    ("help", Some('h'), Nothing, Id::Help),
    ("version", Some('v'), Nothing, Id::Version),
    ("start-daemon", None, Word, Id::StartDaemon),
    ("stop-daemon", None, Word, Id::StopDaemon),
    ("tcp-service", Some('t'), Word, Id::Tcp),
    ("udp-service", Some('u'), Word, Id::Udp),
    ("sctp-service", None, Word, Id::Sctp),
    ("fwmark-service", Some('f'), Word, Id::Fwmark),
    ("ipv6", Some('6'), Nothing, Id::Ipv6),
    ("scheduler", Some('s'), Word, Id::Scheduler),
    ("persistent", Some('p'), PerhapsWord, Id::Persistent),
    ("netmask", Some('M'), Word, Id::Netmask),
    ("real-server", Some('r'), Word, Id::RealServer),
    ("masquerading", Some('m'), Nothing, Id::Nat),
    ("ipip", Some('i'), Nothing, Id::Tun),
    ("gatewaying", Some('g'), Nothing, Id::Dr),
    ("weight", Some('w'), Word, Id::Weight),
    ("u-threshold", Some('x'), Word, Id::Upper),
    ("l-threshold", Some('y'), Word, Id::Lower),
    ("ops", Some('o'), Nothing, Id::OnePacket),
    ("pe", None, Word, Id::Engine),
    ("sched-flags", Some('b'), Word, Id::SchedulerFlags),
    ("tun-type", None, Word, Id::TunType),
    ("tun-port", None, Word, Id::TunPort),
    ("tun-nocsum", None, Nothing, Id::TunNoCsum),
    ("tun-csum", None, Nothing, Id::TunCsum),
    ("tun-remcsum", None, Nothing, Id::TunRemCsum),
    ("numeric", Some('n'), Nothing, Id::Numeric),
    ("connection", Some('c'), Nothing, Id::Connection),
    ("timeout", None, Nothing, Id::Timeout),
    ("daemon", None, Nothing, Id::Daemon),
    ("stats", None, Nothing, Id::Stats),
    ("rate", None, Nothing, Id::Rate),
    ("thresholds", None, Nothing, Id::Thresholds),
    ("persistent-conn", None, Nothing, Id::PersistentConn),
    ("nosort", None, Nothing, Id::NoSort),
    ("sort", None, Nothing, Id::Sort),
    ("exact", Some('X'), Nothing, Id::Exact),
    ("tun-info", None, Nothing, Id::TunInfo),
    ("syncid", None, Word, Id::SyncIdentity),
    ("sync-maxlen", None, Word, Id::SyncMaxlen),
    ("mcast-interface", None, Word, Id::McastInterface),
    ("mcast-group", None, Word, Id::McastGroup),
    ("mcast-port", None, Word, Id::McastPort),
    ("mcast-ttl", None, Word, Id::McastTtl),
];

/// A class of options, of which a line has at most one, with ipvsadm's name for
/// it. Ordered as they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(pub u8, pub &'static str);

const SERVICE: Class = Class(2, "service-address");
const SERVER: Class = Class(6, "real-server");
const CONNECTION: Class = Class(1, "connection");
const TIMEOUT: Class = Class(12, "timeout");
const DAEMON: Class = Class(13, "daemon");

/// The class of an option; None: it has none, and may be repeated.
pub fn class(id: Id) -> Option<Class> {
    Some(match id {
        Id::Numeric => Class(0, "numeric"),
        Id::Connection => CONNECTION,
        Id::Tcp | Id::Udp | Id::Sctp | Id::Fwmark => SERVICE,
        Id::Scheduler => Class(3, "scheduler"),
        Id::Persistent => Class(4, "persistent"),
        Id::Netmask => Class(5, "netmask"),
        Id::RealServer => SERVER,
        Id::Nat | Id::Tun | Id::Dr => Class(7, "forwarding-method"),
        Id::Weight => Class(8, "weight"),
        Id::Upper => Class(9, "u-threshold"),
        Id::Lower => Class(10, "l-threshold"),
        Id::McastInterface => Class(11, "mcast-interface"),
        Id::Timeout => TIMEOUT,
        Id::Daemon => DAEMON,
        Id::Stats => Class(14, "stats"),
        Id::Rate => Class(15, "rate"),
        Id::Thresholds => Class(16, "thresholds"),
        Id::PersistentConn => Class(17, "persistent-conn"),
        Id::NoSort => Class(18, "nosort"),
        Id::SyncIdentity => Class(19, "syncid"),
        Id::Exact => Class(20, "exact"),
        Id::OnePacket => Class(21, "ops"),
        Id::Engine => Class(22, "pe"),
        Id::SchedulerFlags => Class(23, "sched-flags"),
        Id::TunInfo => Class(24, "tun-info"),
        Id::TunType => Class(25, "tun-type"),
        Id::TunPort => Class(26, "tun-port"),
        Id::TunNoCsum => Class(27, "tun-nocsum"),
        Id::TunCsum => Class(28, "tun-csum"),
        Id::TunRemCsum => Class(29, "tun-remcsum"),
        Id::SyncMaxlen => Class(30, "sync-maxlen"),
        Id::McastGroup => Class(31, "mcast-group"),
        Id::McastPort => Class(32, "mcast-port"),
        Id::McastTtl => Class(33, "mcast-ttl"),
        _ => return None,
    })
}

/// What a command takes: its name in messages, what it needs, what it may have.
#[derive(Clone, Copy)]
pub struct Shape {
    name: &'static str,
    needs: &'static [Class],
    may: &'static [Id],
    /// Of these at most one.
    one_of: &'static [Class],
}

/// The shape of a command; None: the option is no command.
pub fn command(opt: &Opt) -> Option<Shape> {
    const SERVICE_OPTIONS: &[Id] =
        &[Id::Scheduler, Id::Persistent, Id::Netmask, Id::OnePacket, Id::Engine, Id::SchedulerFlags];
    const SERVER_OPTIONS: &[Id] = &[
        Id::Nat,
        Id::Weight,
        Id::Upper,
        Id::Lower,
        Id::TunType,
        Id::TunPort,
        Id::TunNoCsum,
        Id::TunCsum,
        Id::TunRemCsum,
    ];
    const LIST_OPTIONS: &[Id] = &[
        Id::Numeric,
        Id::Connection,
        Id::Tcp,
        Id::Timeout,
        Id::Daemon,
        Id::Stats,
        Id::Rate,
        Id::Thresholds,
        Id::PersistentConn,
        Id::NoSort,
        Id::SyncIdentity,
        Id::Exact,
        Id::TunInfo,
    ];
    const START_OPTIONS: &[Id] =
        &[Id::McastInterface, Id::SyncIdentity, Id::SyncMaxlen, Id::McastGroup, Id::McastPort, Id::McastTtl];
    let (name, needs, may): (_, &'static [Class], &'static [Id]) = match opt.id {
        Id::AddService => ("add-service", &[SERVICE], SERVICE_OPTIONS),
        Id::EditService => ("edit-service", &[SERVICE], SERVICE_OPTIONS),
        Id::DeleteService => ("delete-service", &[SERVICE], &[]),
        Id::Clear => ("flush", &[], &[]),
        Id::AddServer => ("add-server", &[SERVICE, SERVER], SERVER_OPTIONS),
        Id::EditServer => ("edit-server", &[SERVICE, SERVER], SERVER_OPTIONS),
        Id::DeleteServer => ("delete-server", &[SERVICE, SERVER], &[]),
        Id::Set => ("set", &[], &[]),
        Id::List => ("list", &[], LIST_OPTIONS),
        Id::Zero => ("zero", &[], &[Id::Tcp]),
        Id::Restore => ("restore", &[], &[]),
        Id::Save => ("save", &[], &[Id::Numeric]),
        Id::StartDaemon => ("start-daemon", &[], START_OPTIONS),
        Id::StopDaemon => ("stop-daemon", &[], &[Id::SyncIdentity]),
        Id::Help | Id::Version => ("", &[], &[]),
        _ => return None,
    };
    let one_of: &[Class] = if opt.id == Id::List { &[CONNECTION, SERVICE, TIMEOUT, DAEMON] } else { &[] };
    Some(Shape { name, needs, may, one_of })
}

/// Refuses a command that lacks an option or has one it does not take.
pub fn check(shape: Shape, seen: &BTreeSet<Class>) -> Result<(), OptionError> {
    if shape.name.is_empty() {
        // Help and version look at nothing else.
        return Ok(());
    }
    let mut one: Option<Class> = None;
    let may = shape.may.iter().filter_map(|id| class(*id));
    let allowed: BTreeSet<Class> = may.chain(shape.needs.iter().copied()).collect();
    let relevant: BTreeSet<Class> = seen.iter().chain(shape.needs).copied().collect();
    for class in relevant {
        if !seen.contains(&class) {
            let message = format!("You need to supply the '{}' option for the '{}' command", class.1, shape.name);
            return Err(usage(message));
        }
        if !allowed.contains(&class) {
            return Err(usage(format!("Illegal '{}' option with the '{}' command", class.1, shape.name)));
        }
        if shape.one_of.contains(&class) {
            if let Some(Class(_, other)) = one {
                let message = format!(
                    "The option '{}' conflicts with the '{other}' option in the '{}' command",
                    class.1, shape.name
                );
                return Err(usage(message));
            }
            one = Some(class);
        }
    }
    Ok(())
}

/// An option as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Which.
    pub id: Id,
    /// Its argument, if it has one.
    pub value: Option<&'a str>,
    /// The word it stands in.
    pub written: &'a str,
}

/// Options, in order, and the words that belong to none.
type Split<'a> = (Vec<Opt<'a>>, Vec<&'a str>);

/// Separates options from other words. Short ones may stand together, and
/// before their argument (`-At`, `-w5`); long ones take it after `=` too.
pub fn split<'a>(args: &[&'a str]) -> Result<Split<'a>, OptionError> {
    const UNKNOWN: &str = "unknown option";
    const MISSING: &str = "missing argument";
    let mut options: Vec<Opt> = Vec::new();
    let mut rest = Vec::new();
    let mut args = args.iter().copied().peekable();
    while let Some(word) = args.next() {
        if word == "--" {
            rest.extend(args.by_ref());
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, inline) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let found = OPTIONS.iter().find(|(n, ..)| *n == name);
            let (_, _, takes, id) = found.ok_or_else(|| refused(&options, word, UNKNOWN))?;
            if *takes == Nothing && inline.is_some() {
                return Err(refused(&options, word, "option does not take an argument"));
            }
            let value = argument(*takes, inline, &mut args).map_err(|Missing| refused(&options, word, MISSING))?;
            options.push(Opt { id: *id, value, written: word });
        } else if let Some(letters) = word.strip_prefix('-').filter(|l| !l.is_empty()) {
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                let found = OPTIONS.iter().find(|(_, short, ..)| *short == Some(letter));
                let (_, _, takes, id) = found.ok_or_else(|| refused(&options, word, UNKNOWN))?;
                let inline = match letters.as_str() {
                    "" => None,
                    rest => Some(rest.strip_prefix('=').unwrap_or(rest)),
                };
                let value = argument(*takes, inline, &mut args).map_err(|Missing| refused(&options, word, MISSING))?;
                options.push(Opt { id: *id, value, written: word });
                if *takes != Nothing {
                    break;
                }
            }
        } else {
            rest.push(word);
        }
    }
    Ok((options, rest))
}

struct Missing;

/// The argument of an option.
fn argument<'a>(
    takes: Takes,
    inline: Option<&'a str>,
    args: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
) -> Result<Option<&'a str>, Missing> {
    match (takes, inline) {
        (Nothing, _) => Ok(None),
        (_, Some(value)) => Ok(Some(value)),
        (Word, None) => args.next().map(Some).ok_or(Missing),
        (PerhapsWord, None) => Ok(args.next_if(|next| !next.starts_with('-'))),
    }
}

/// popt's own refusals; of the first option, which must be the command, ipvsadm
/// only says that there is help.
fn refused(before: &[Opt], word: &str, why: &str) -> OptionError {
    if before.is_empty() {
        return try_help();
    }
    OptionError { exit_code: 255, message: format!("{word}: {why}") }
}

pub fn try_help() -> OptionError {
    let message = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.".into();
    OptionError { exit_code: 255, message }
}
