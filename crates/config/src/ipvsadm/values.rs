//! The values of ipvsadm's options, read in the order they stand: `-r` takes
//! the port of a service named before it, `-M` its address family, and so on.

use super::daemon::{Daemon, Link};
use super::names::Names;
use super::options::{Class, Id, Opt, class};
use super::{Command, Invocation, Layout, List, ServerRule, ServiceRule, Shown, usage};
use crate::error::OptionError;
use crate::model::{
    DEFAULT_PERSISTENCE_S, FlagFault, MAX_PERSISTENCE_S, MAX_WEIGHT, Method, Netmask, Persistence, Protocol,
    SchedulerFlags, Server, ServiceKey, Tunnel, TunnelChecksum, TunnelKind,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A command line as read so far.
pub struct Draft<'a> {
    /// Who knows what names stand for.
    names: &'a dyn Names,
    /// Classes of options that came.
    pub seen: BTreeSet<Class>,
    protocol: Protocol,
    address: IpAddr,
    port: u16,
    fwmark: Option<NonZeroU32>,
    ipv6: bool,
    scheduler: &'a str,
    flags: &'a str,
    scheduler_flags: SchedulerFlags,
    one_packet: bool,
    persistent_s: Option<u32>,
    mask: Netmask,
    engine: Option<&'a str>,
    server: (IpAddr, u16),
    method: Id,
    weight: u32,
    upper: u32,
    lower: u32,
    tunnel: &'a str,
    tunnel_port: u16,
    checksum: TunnelChecksum,
    link: Link,
}

impl<'a> Draft<'a> {
    /// Nothing read yet.
    pub fn new(names: &'a dyn Names) -> Self {
        Self {
            names,
            seen: BTreeSet::new(),
            protocol: Protocol::Tcp,
            address: NOWHERE,
            port: 0,
            fwmark: None,
            ipv6: false,
            scheduler: "",
            flags: "",
            scheduler_flags: SchedulerFlags::default(),
            one_packet: false,
            persistent_s: None,
            mask: Netmask::whole(false),
            engine: None,
            server: (NOWHERE, 0),
            method: Id::Dr,
            weight: 1,
            upper: 0,
            lower: 0,
            tunnel: "ipip",
            tunnel_port: 0,
            checksum: TunnelChecksum::None,
            link: Link::default(),
        }
    }
}

impl<'a> Draft<'a> {
    /// Takes an option in.
    pub fn take(&mut self, opt: &Opt<'a>) -> Result<(), OptionError> {
        if let Some(class) = class(opt.id)
            && !self.seen.insert(class)
        {
            return Err(usage(format!("multiple '{}' options specified", class.1)));
        }
        let text = opt.value.unwrap_or_default();
        match opt.id {
            Id::Tcp => self.service(Protocol::Tcp, text)?,
            Id::Udp => self.service(Protocol::Udp, text)?,
            Id::Sctp => self.service(Protocol::Sctp, text)?,
            Id::Fwmark => {
                self.ipv6 = false;
                let mark = number(text, 1, u32::MAX).and_then(NonZeroU32::new);
                self.fwmark = Some(mark.ok_or_else(|| usage(format!("invalid fwmark value `{text}' specified")))?);
            }
            Id::Ipv6 => {
                if self.fwmark.is_none() {
                    return Err(usage("-6 used before -f\n"));
                }
                self.ipv6 = true;
                self.mask = Netmask::whole(true);
            }
            Id::Scheduler => self.scheduler = text,
            Id::SchedulerFlags => self.flags = text,
            Id::OnePacket => self.one_packet = true,
            Id::Engine => self.engine = Some(text),
            Id::Persistent => {
                self.persistent_s = Some(match opt.value {
                    None => DEFAULT_PERSISTENCE_S,
                    Some(text) => timeout(text, 1)?,
                });
            }
            Id::Netmask => self.mask(text)?,
            Id::RealServer => {
                let illegal = || usage("illegal real server address[:port] specified");
                let (address, port) = address(text, self.protocol, self.names).ok_or_else(illegal)?;
                self.server = (address, port.unwrap_or(self.port));
            }
            Id::Nat | Id::Tun | Id::Dr => self.method = opt.id,
            Id::Weight => self.weight = bounded(text, "illegal weight specified")?,
            Id::Upper => self.upper = bounded(text, "illegal u_threshold specified")?,
            Id::Lower => self.lower = bounded(text, "illegal l_threshold specified")?,
            Id::TunType => {
                if !["ipip", "gue", "gre"].contains(&text) {
                    return Err(usage("illegal tunnel type specified"));
                }
                self.tunnel = text;
            }
            Id::TunPort => {
                self.tunnel_port = narrow(text, 1, 65535, "illegal tunnel port specified")?;
            }
            Id::TunCsum => self.checksum = TunnelChecksum::Full,
            Id::TunRemCsum => self.checksum = TunnelChecksum::Remote,
            Id::TunNoCsum => self.checksum = TunnelChecksum::None,
            Id::SyncIdentity => self.link.id = narrow(text, 0, 255, "illegal syncid specified")?,
            Id::SyncMaxlen => self.link.maxlen = Some(narrow(text, 1, 65507, "illegal sync-maxlen specified")?),
            Id::McastPort => self.link.port = narrow(text, 1, 65535, "illegal mcast-port specified")?,
            Id::McastTtl => self.link.ttl = narrow(text, 1, 255, "illegal mcast-ttl specified")?,
            Id::McastGroup => {
                let group: Option<IpAddr> = text.parse().ok();
                let family = if group.is_some_and(|group| group.is_ipv6()) { "IPv6" } else { "IPv4" };
                let group = group.filter(IpAddr::is_multicast);
                self.link.group = group.ok_or_else(|| usage(format!("invalid {family} mcast-group `{text}'")))?;
            }
            Id::McastInterface => self.link.interface = text.into(),
            // Refused by `options::check`, or only there or not.
            _ => {}
        }
        Ok(())
    }

    fn service(&mut self, protocol: Protocol, text: &str) -> Result<(), OptionError> {
        let illegal = || usage("illegal virtual server address[:port] specified");
        let (address, port) = address(text, protocol, self.names).ok_or_else(illegal)?;
        self.protocol = protocol;
        (self.address, self.port) = (address, port.unwrap_or(0));
        self.ipv6 = address.is_ipv6();
        // As in ipvsadm, which sets the mask of IPv6 here, over an earlier -M.
        if self.ipv6 {
            self.mask = Netmask::whole(true);
        }
        Ok(())
    }

    fn mask(&mut self, text: &str) -> Result<(), OptionError> {
        self.mask = if self.ipv6 {
            let length = number(text, 1, 128).and_then(|n| u8::try_from(n).ok());
            Netmask::V6(length.ok_or_else(|| usage("illegal ipv6 netmask specified"))?)
        } else {
            let mask = inet_aton(text).ok_or_else(|| usage("illegal virtual server persistent mask specified"))?;
            Netmask::V4(mask)
        };
        Ok(())
    }

    /// Reads the flags of `-b`, which wait for the scheduler's name.
    pub fn finish_flags(&mut self) -> Result<(), OptionError> {
        for flag in self.flags.split(',').filter(|f| !f.is_empty()) {
            self.scheduler_flags.set(flag, self.scheduler).map_err(|fault| match fault {
                FlagFault::Incompatible => usage(format!("incompatible scheduler flag `{flag}'")),
                FlagFault::Unknown => usage(format!("invalid scheduler flag `{flag}'")),
            })?;
        }
        Ok(())
    }

    fn key(&self) -> ServiceKey {
        match self.fwmark {
            Some(mark) => ServiceKey::Mark { mark, ipv6: self.ipv6 },
            None => ServiceKey::Address { protocol: self.protocol, address: self.address, port: self.port },
        }
    }

    /// What is asked for, after ipvsadm's last checks.
    pub fn build(self, command: &Opt, times: Option<[u32; 3]>) -> Result<Invocation, OptionError> {
        let given = |id: Id| class(id).is_some_and(|c| self.seen.contains(&c));
        let numeric = given(Id::Numeric);
        let service = given(Id::Tcp).then(|| self.key());
        Ok(match command.id {
            Id::List => Invocation::List(List { numeric, shown: self.shown()? }),
            Id::Zero => Invocation::Zero(service),
            Id::Restore => Invocation::Restore,
            Id::Save => Invocation::Save { numeric },
            Id::Help => Invocation::Help,
            Id::Version => Invocation::Version,
            Id::StartDaemon | Id::StopDaemon => {
                let start = command.id == Id::StartDaemon;
                let word = if start { "start-daemon parameter" } else { "start_daemon" };
                let daemon = command.value.and_then(Daemon::from_name);
                let daemon = daemon.ok_or_else(|| usage(format!("illegal {word} specified")))?;
                Invocation::Rule(match start {
                    true => Command::StartDaemon(daemon, self.link),
                    false => Command::StopDaemon(daemon),
                })
            }
            other => Invocation::Rule(self.rule(other, times)?),
        })
    }

    fn shown(&self) -> Result<Shown, OptionError> {
        let given = |id: Id| class(id).is_some_and(|c| self.seen.contains(&c));
        let exact = given(Id::Exact);
        let counts = [Id::Stats, Id::Rate, Id::Thresholds].into_iter().any(given);
        let times = given(Id::Timeout) || given(Id::Daemon);
        if (counts && (times || given(Id::Connection))) || (times && given(Id::PersistentConn)) {
            return Err(usage("options conflicts in the list command"));
        }
        if given(Id::Connection) {
            return Ok(Shown::Connections { engines: given(Id::PersistentConn) });
        }
        if given(Id::Timeout) {
            return Ok(Shown::Timeouts);
        }
        if given(Id::Daemon) {
            return Ok(Shown::Daemons);
        }
        let layouts = [
            (Id::Stats, Layout::Stats { exact }),
            (Id::Rate, Layout::Rate { exact }),
            (Id::Thresholds, Layout::Thresholds),
            (Id::PersistentConn, Layout::Persistent),
            (Id::TunInfo, Layout::Tunnels),
        ];
        let layout = layouts.into_iter().find(|(id, _)| given(*id)).map_or(Layout::Plain, |(_, layout)| layout);
        Ok(Shown::Table { service: given(Id::Tcp).then(|| self.key()), layout, sorted: !given(Id::NoSort) })
    }

    fn rule(self, command: Id, times: Option<[u32; 3]>) -> Result<Command, OptionError> {
        let service = self.key();
        let (address, port) = self.server;
        Ok(match command {
            Id::AddService => Command::AddService(self.service_rule()?),
            Id::EditService => Command::EditService(self.service_rule()?),
            Id::DeleteService => Command::DeleteService(service),
            Id::AddServer => Command::AddServer(ServerRule { service, server: self.build_server()? }),
            Id::EditServer => Command::EditServer(ServerRule { service, server: self.build_server()? }),
            Id::DeleteServer => Command::DeleteServer { service, address, port },
            Id::Clear => Command::Clear,
            _ => {
                let [tcp, tcp_fin, udp] = times.unwrap_or_default();
                Command::SetTimeouts { tcp, tcp_fin, udp }
            }
        })
    }

    fn service_rule(self) -> Result<ServiceRule, OptionError> {
        let service = self.key();
        if let ServiceKey::Address { protocol, port, .. } = service {
            if port == 0 && self.persistent_s.is_none() {
                return Err(usage("Zero port specified for non-persistent service"));
            }
            if self.one_packet && protocol != Protocol::Udp {
                return Err(usage("One-Packet Scheduling is only for UDP virtual services"));
            }
        }
        Ok(ServiceRule {
            service,
            scheduler: if self.scheduler.is_empty() { "wlc".into() } else { self.scheduler.into() },
            scheduler_flags: self.scheduler_flags,
            one_packet: self.one_packet,
            persistence: self.persistent_s.map(|timeout_s| Persistence { timeout_s, mask: self.mask }),
            engine: self.engine.map(Into::into),
        })
    }

    fn build_server(self) -> Result<Server, OptionError> {
        let (address, port) = self.server;
        if address.is_ipv6() != self.ipv6 && self.method != Id::Tun {
            return Err(usage("Different address family is allowed only for tunneling servers"));
        }
        let method = self.method()?;
        // Neither changes ports, so the server's is the service's, unless that is a mark.
        let port = if method != Method::Nat && self.fwmark.is_none() { self.port } else { port };
        Ok(Server { weight: self.weight, upper: self.upper, lower: self.lower, ..Server::new(address, port, method) })
    }

    fn method(&self) -> Result<Method, OptionError> {
        let options = [Id::TunType, Id::TunPort, Id::TunNoCsum, Id::TunCsum, Id::TunRemCsum];
        let given = |id: Id| class(id).is_some_and(|c| self.seen.contains(&c));
        if self.method != Id::Tun {
            if options.into_iter().any(given) {
                return Err(usage("Tunnel options conflict with forward method"));
            }
            return Ok(if self.method == Id::Nat { Method::Nat } else { Method::Dr });
        }
        let (kind, illegal): (_, &[Id]) = match self.tunnel {
            "gue" => (TunnelKind::Gue { port: self.tunnel_port }, &[]),
            "gre" => (TunnelKind::Gre, &[Id::TunPort, Id::TunRemCsum]),
            _ => (TunnelKind::Ipip, &[Id::TunPort, Id::TunNoCsum, Id::TunCsum, Id::TunRemCsum]),
        };
        let tunnel = kind.name();
        if kind == (TunnelKind::Gue { port: 0 }) {
            return Err(usage(format!("You need to supply the 'tun-port' option for the '{tunnel}' tunnel type")));
        }
        if let Some(Class(_, name)) = illegal.iter().filter(|id| given(**id)).find_map(|id| class(*id)) {
            return Err(usage(format!("Illegal '{name}' option with the '{tunnel}' tunnel type")));
        }
        let checksums = [Id::TunNoCsum, Id::TunCsum, Id::TunRemCsum];
        let mut checksums = checksums.into_iter().filter(|id| given(*id)).filter_map(class);
        if let (Some(Class(_, one)), Some(Class(_, other))) = (checksums.next(), checksums.next()) {
            return Err(usage(format!(
                "The option '{one}' conflicts with the '{other}' option for the '{tunnel}' tunnel type"
            )));
        }
        Ok(Method::Tun(Tunnel { kind, checksum: self.checksum }))
    }
}

/// The three times of `--set`.
pub fn timeouts<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<[u32; 3], OptionError> {
    let (Some(tcp), Some(fin), Some(udp)) = (words.next(), words.next(), words.next()) else {
        return Err(usage("--set option requires 3 timeout values"));
    };
    Ok([timeout(tcp, 0)?, timeout(fin, 0)?, timeout(udp, 0)?])
}

fn timeout(text: &str, min: u32) -> Result<u32, OptionError> {
    number(text, min, MAX_PERSISTENCE_S).ok_or_else(|| usage(format!("invalid timeout value `{text}' specified")))
}

fn bounded(text: &str, refusal: &str) -> Result<u32, OptionError> {
    number(text, 0, MAX_WEIGHT).ok_or_else(|| usage(refusal))
}

/// A number of no more bits than `max` has.
fn narrow<T: TryFrom<u32>>(text: &str, min: u32, max: u32, refusal: &str) -> Result<T, OptionError> {
    number(text, min, max).and_then(|n| T::try_from(n).ok()).ok_or_else(|| usage(refusal))
}

fn number(text: &str, min: u32, max: u32) -> Option<u32> {
    text.parse().ok().filter(|n| (min..=max).contains(n))
}

/// An address, with a port if one was given. Only IPv4 hosts go by name, as in ipvsadm.
fn address(text: &str, protocol: Protocol, names: &dyn Names) -> Option<(IpAddr, Option<u16>)> {
    let number = |text: &str| match text.parse() {
        Ok(port) => Some(port),
        Err(_) if text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) => names.port(text, protocol),
        Err(_) => None,
    };
    let host = |text: &str| inet_aton(text).or_else(|| names.host(text));
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let (inside, port) = bracketed.split_once("]:")?;
        let ip = inside.parse::<Ipv6Addr>().ok()?;
        return Some((ip.into(), Some(number(port)?)));
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some((ip.into(), None));
    }
    match text.rsplit_once(':') {
        Some((ip, port)) => Some((host(ip)?.into(), Some(number(port)?))),
        None => Some((host(text)?.into(), None)),
    }
}

/// An IPv4 address as C's inet_aton reads it: one to four numbers, decimal,
/// octal (0…) or hexadecimal (0x…), the last of which fills the bytes left.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(c_number).collect::<Option<_>>()?;
    let (last, bytes) = parts.split_last()?;
    let free = 4u32.checked_sub(u32::try_from(bytes.len()).ok()?).filter(|free| *free > 0)?;
    if bytes.iter().any(|b| *b > 255) || u64::from(*last) >= 1 << (8 * free) {
        return None;
    }
    let high = bytes.iter().zip([24, 16, 8]).fold(0, |sum, (byte, shift)| sum | byte << shift);
    Some(Ipv4Addr::from(high | last))
}

fn c_number(text: &str) -> Option<u32> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match hex {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let plain = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inet_aton_as_in_c() {
        for (text, is) in [
            ("192.0.2.1", Some([192, 0, 2, 1])),
            ("24", Some([0, 0, 0, 24])),
            ("10.1", Some([10, 0, 0, 1])),
            ("10.1.256", Some([10, 1, 1, 0])),
            ("0x7f.1", Some([127, 0, 0, 1])),
            ("010.0.0.1", Some([8, 0, 0, 1])),
            ("4294967295", Some([255, 255, 255, 255])),
            ("4294967296", None),
            ("300.0.2.11", None),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("", None),
            ("1..2", None),
            ("+1.2.3.4", None),
            ("08.0.0.1", None),
        ] {
            assert_eq!(inet_aton(text), is.map(Ipv4Addr::from), "{text}");
        }
    }
}
