//! Failover: virtual routers (VRRP), what they watch, and the synchronisation of connections with other directors.

use crate::health::{Bfd, Fault, MAX_TIME, Script, Target};
use crate::model::{Service, ServiceKey, VipPolicy};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Longest interval between adverts of VRRP version 2.
pub const MAX_INTERVAL_V2: Duration = Duration::from_secs(255);
/// Longest interval between adverts of VRRP version 3.
pub const MAX_INTERVAL_V3: Duration = Duration::from_millis(40_950);
/// Shortest interval between adverts, and what those of version 3 are a multiple of.
pub const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Longest [`VirtualRouter::preempt_delay`].
pub const MAX_PREEMPT_DELAY: Duration = Duration::from_secs(1000);
/// Addresses that adverts can name.
pub const MAX_ADDRESSES: usize = 255;
/// Largest weight of what is tracked, either way.
pub const MAX_TRACK_WEIGHT: i16 = 253;
/// Largest weight of tracked files and processes, either way.
pub const MAX_COUNT_WEIGHT: i16 = 254;
/// Fewest bytes of [`Sync::key`].
pub const MIN_SYNC_KEY: usize = 16;

/// A password or key: what is shown of it to people is that there is one.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Version of VRRP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Version {
    /// RFC 3768, IPv4 only.
    V2,
    /// RFC 9568.
    #[default]
    V3,
}

impl Version {
    /// 2 or 3.
    pub fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// How a virtual router begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Initial {
    /// It listens first.
    #[default]
    Backup,
    /// It is master until it hears of a better one.
    Master,
}

impl Initial {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Backup, Self::Master];
    /// `backup` or `master`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Master => "master",
        }
    }
}

/// An address that is this host's while the virtual router is master.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouterAddress {
    /// Address.
    pub address: IpAddr,
    /// Length of its prefix.
    pub length: u8,
    /// The device that gets it; none: the router's interface, or its virtual MAC's.
    pub device: Option<String>,
    /// IPv4: label.
    pub label: Option<String>,
    /// Scope by `ip address`' name or number: `global`, `link`, `host`, `site` …
    pub scope: Option<String>,
    /// IPv4: broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// The other end of a link from point to point, with the length of its prefix.
    pub peer: Option<(IpAddr, u8)>,
    /// It stands on a virtual MAC's device, though the router has none.
    pub virtual_mac: bool,
    /// That its device fails is the router's failure.
    pub track: bool,
    /// For how long it is preferred; none: for ever.
    pub preferred: Option<Duration>,
    /// Of [`ADDRESS_FLAGS`].
    pub flags: Vec<String>,
}

/// Names of [`RouterAddress::flags`], which are `ip address`'.
pub const ADDRESS_FLAGS: [&str; 5] = ["home", "nodad", "mngtmpaddr", "noprefixroute", "autojoin"];

impl RouterAddress {
    /// With defaults.
    pub fn new(address: IpAddr, length: u8) -> Self {
        Self {
            address,
            length,
            device: None,
            label: None,
            scope: None,
            broadcast: None,
            peer: None,
            virtual_mac: false,
            track: true,
            preferred: None,
            flags: Vec::new(),
        }
    }
    /// `192.0.2.10`, `192.0.2.10/24`, `2001:db8::10/64`.
    pub fn parse(text: &str) -> Option<(IpAddr, u8)> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().ok()?;
        let whole = bits(address);
        let length = match length {
            None => whole,
            Some(text) => text.parse().ok().filter(|length| (1..=whole).contains(length))?,
        };
        Some((address, length))
    }
    /// What [`Self::parse`] reads, without the length of a whole address.
    pub fn prefix(address: IpAddr, length: u8) -> String {
        if length == bits(address) { address.to_string() } else { format!("{address}/{length}") }
    }

    fn fault(&self) -> Option<(String, &'static str)> {
        let Self { address, label, .. } = self;
        if address.is_unspecified() || address.is_multicast() || *address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Some((format!("{address} cannot be a virtual address"), "use a unicast address"));
        }
        if !(1..=bits(*address)).contains(&self.length) {
            return Some((format!("{address} has a prefix of {} bits", self.length), "use one as long as its net's"));
        }
        if let Some(device) = self.device.as_ref().filter(|name| !is_interface(name)) {
            return Some((format!("{device:?} is no name of an interface"), INTERFACE));
        }
        if address.is_ipv6() && (label.is_some() || self.broadcast.is_some()) {
            return Some((format!("{address} has a label or broadcast address"), "remove it: they are IPv4's"));
        }
        if let Some(label) = label.as_ref().filter(|l| !(1..=15).contains(&l.len()) || !is_word(l)) {
            return Some((
                format!("label {label:?} of {address}"),
                "use at most 15 letters, begun with the device's name",
            ));
        }
        if let Some(scope) = self.scope.as_ref().filter(|s| !is_word(s)) {
            return Some((format!("scope {scope:?} of {address}"), "use global, site, link, host or a number"));
        }
        if let Some((peer, length)) = self.peer
            && (peer.is_ipv6() != address.is_ipv6() || !(1..=bits(peer)).contains(&length))
        {
            return Some((format!("peer {peer} of {address}"), "use an address of the same family"));
        }
        if self.preferred.is_some_and(|time| time.subsec_nanos() != 0 || time.as_secs() > u64::from(u32::MAX - 1)) {
            return Some((format!("preferred of {address}"), "use whole seconds, or leave it out"));
        }
        if let Some(flag) = self.flags.iter().find(|f| !ADDRESS_FLAGS.contains(&f.as_str())) {
            let remedy = "use home, nodad, mngtmpaddr, noprefixroute, autojoin";
            return Some((format!("{address} has a flag {flag:?}"), remedy));
        }
        None
    }
}

/// A router that adverts go to, one by one, instead of the group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Least TTL of its adverts; none: any.
    pub min_ttl: Option<u8>,
    /// Largest TTL of its adverts; none: any.
    pub max_ttl: Option<u8>,
}

impl Peer {
    /// Any number of hops away.
    pub fn new(address: IpAddr) -> Self {
        Self { address, min_ttl: None, max_ttl: None }
    }
}

/// What version 2 says who it is by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Authentication {
    /// IPsec's authentication header, not the password in the clear.
    pub ah: bool,
    /// Password, 1 to 8 bytes.
    pub password: Secret,
}

/// A device with the virtual router's own MAC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VirtualMac {
    /// Its name; none: one by the router's number.
    pub name: Option<String>,
    /// Another MAC than the standard's.
    pub mac: Option<String>,
    /// Adverts go by the interface itself.
    pub transmit_base: bool,
    /// Addresses with a device of their own get a virtual MAC there too.
    pub addresses: bool,
    /// Link group of the device; 0: none.
    pub group: u32,
}

/// Gratuitous ARP, and unsolicited neighbour advertisements.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Announce {
    /// From the first burst of a new master to the second; 0: no second.
    pub delay: Duration,
    /// Announcements of each address in a burst.
    pub repeat: u16,
    /// The same after an advert of a lower master; none: as `delay`.
    pub lower_prio_delay: Option<Duration>,
    /// none: as `repeat`.
    pub lower_prio_repeat: Option<u16>,
    /// How often a master announces again; 0: never.
    pub refresh: Duration,
    /// Announcements of each address then.
    pub refresh_repeat: u16,
    /// Least time between two gratuitous ARPs on the interface.
    pub arp_interval: Duration,
    /// The same of neighbour advertisements.
    pub nd_interval: Duration,
    /// How often on other interfaces that hear of the virtual MAC; 0: never.
    pub extra_interval: Duration,
    /// On all of them, not only where the addresses are.
    pub extra_all: bool,
}

impl Default for Announce {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(5),
            repeat: 5,
            lower_prio_delay: None,
            lower_prio_repeat: None,
            refresh: Duration::ZERO,
            refresh_repeat: 1,
            arp_interval: Duration::ZERO,
            nd_interval: Duration::ZERO,
            extra_interval: Duration::ZERO,
            extra_all: false,
        }
    }
}

/// Something that is tracked, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tracked {
    /// Its name.
    pub name: String,
    /// What it changes the priority by; none: what the tracked thing itself says, or 0. 0: its failure is the
    /// router's.
    pub weight: Option<i16>,
    /// The other way around.
    pub reverse: bool,
}

impl Tracked {
    /// With its own weight.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), weight: None, reverse: false }
    }
}

/// What virtual routers and groups look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Tracking {
    /// Interfaces that must be up.
    pub interfaces: Vec<Tracked>,
    /// [`TrackScript`]s.
    pub scripts: Vec<Tracked>,
    /// [`TrackFile`]s.
    pub files: Vec<Tracked>,
    /// [`TrackProcess`]es.
    pub processes: Vec<Tracked>,
    /// [`BfdSession`]s.
    pub bfd: Vec<Tracked>,
    /// Virtual services that must have their quorum: `tcp:192.0.2.10:80`. One that is not there has none.
    pub services: Vec<Tracked>,
}

impl Tracking {
    /// By the keys of dirigent.toml, with the largest weight.
    pub fn lists(&self) -> [(&'static str, &[Tracked], i16); 6] {
        [
            ("interfaces", &self.interfaces, MAX_TRACK_WEIGHT),
            ("scripts", &self.scripts, MAX_TRACK_WEIGHT),
            ("files", &self.files, MAX_COUNT_WEIGHT),
            ("processes", &self.processes, MAX_COUNT_WEIGHT),
            ("bfd", &self.bfd, MAX_TRACK_WEIGHT),
            ("services", &self.services, MAX_TRACK_WEIGHT),
        ]
    }
    /// The tracked services.
    pub fn service_keys(&self) -> impl Iterator<Item = Option<ServiceKey>> + '_ {
        self.services.iter().map(|one| ServiceKey::parse(&one.name))
    }
}

/// Programs that are told of changes of state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Notify {
    /// It became master.
    pub master: Option<Box<Script>>,
    /// It became backup.
    pub backup: Option<Box<Script>>,
    /// It failed.
    pub fault: Option<Box<Script>>,
    /// The director stops.
    pub stop: Option<Box<Script>>,
    /// A reload removed it; none: as `fault`.
    pub deleted: Option<Box<Script>>,
    /// As master it heard an advert of a lower priority.
    pub lower_prio: Option<Box<Script>>,
    /// Each of these, with `INSTANCE` or `GROUP`, name, state and priority as further arguments.
    pub all: Option<Box<Script>>,
    /// The FIFOs are told of changed priorities.
    pub priority_changes: bool,
}

impl Notify {
    /// By the keys of dirigent.toml.
    pub fn scripts(&self) -> [(&'static str, &Option<Box<Script>>); 7] {
        [
            ("master", &self.master),
            ("backup", &self.backup),
            ("fault", &self.fault),
            ("stop", &self.stop),
            ("deleted", &self.deleted),
            ("lower_prio", &self.lower_prio),
            ("all", &self.all),
        ]
    }
}

/// A virtual router: one of several hosts has its addresses at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtualRouter {
    /// Name.
    pub name: String,
    /// The interface that it speaks by; none: that of the route to the peers.
    pub interface: Option<String>,
    /// VRF that unicast packets belong to, where no interface says it.
    pub vrf: Option<String>,
    /// Version of VRRP.
    pub version: Version,
    /// Adverts are of IPv6.
    pub ipv6: bool,
    /// Virtual router identifier, 1 to 255.
    pub vrid: u8,
    /// Priority, 1 to 255, which is the owner's.
    pub priority: u8,
    /// From one advert to the next.
    pub interval: Duration,
    /// How it begins.
    pub state: Initial,
    /// A backup takes over from a living master of lower priority.
    pub preempt: bool,
    /// How long it leaves such a one alone at first.
    pub preempt_delay: Duration,
    /// Adverts missed before a backup takes over, 1 to 100.
    pub down_timer_adverts: u8,
    /// The addresses that adverts name.
    pub addresses: Vec<RouterAddress>,
    /// Addresses that they do not name, of any family.
    pub excluded: Vec<RouterAddress>,
    /// Routes that a master has, as `ip route add` takes them; `no_track` may be among the words.
    pub routes: Vec<String>,
    /// Policy rules that a master has, as `ip rule add` takes them.
    pub rules: Vec<String>,
    /// Secondary addresses outlast the primary one (sysctl `promote_secondaries` of the interface).
    pub promote_secondaries: bool,
    /// Source address of adverts.
    pub source: Option<IpAddr>,
    /// That it is not there is the router's failure.
    pub track_source: bool,
    /// The group that adverts go to; none: the standard's.
    pub multicast: Option<IpAddr>,
    /// Adverts go to these instead.
    pub peers: Vec<Peer>,
    /// Adverts of others than the peers are dropped.
    pub check_unicast_src: bool,
    /// TTL of adverts to peers; none: 255.
    pub unicast_ttl: Option<u8>,
    /// That no peer can be reached is the router's failure.
    pub fault_without_peer: bool,
    /// Version 2's.
    pub authentication: Option<Authentication>,
    /// Version 3, IPv4: checksums are as in version 2, without a pseudo header.
    pub v3_checksum_as_v2: bool,
    /// A master that is not the owner takes packets for the addresses.
    pub accept: bool,
    /// A device with the standard's MAC.
    pub virtual_mac: Option<VirtualMac>,
    /// Announcements.
    pub announce: Announce,
    /// A lower master's advert is not answered before the next one is due.
    pub lower_prio_no_advert: bool,
    /// A master that gives way to a higher one sends a last advert.
    pub higher_prio_send_advert: bool,
    /// An owner does not look at adverts of others that say they are.
    pub owner_ignore_adverts: bool,
    /// The addresses in adverts are not compared again while the sender is the same.
    pub skip_check_adv_addr: bool,
    /// The standard to the letter: no peers, no authentication, no empty list of addresses.
    pub strict: bool,
    /// That the interface is down is the router's failure.
    pub track_interface: bool,
    /// What it looks at.
    pub track: Tracking,
    /// Who is told.
    pub notify: Notify,
    /// Whether changes are mailed; none: as set elsewhere.
    pub mail: Option<bool>,
}

impl Default for VirtualRouter {
    fn default() -> Self {
        Self {
            name: String::new(),
            interface: None,
            vrf: None,
            version: Version::V3,
            ipv6: false,
            vrid: 0,
            priority: 100,
            interval: Duration::from_secs(1),
            state: Initial::Backup,
            preempt: true,
            preempt_delay: Duration::ZERO,
            down_timer_adverts: 3,
            addresses: Vec::new(),
            excluded: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            promote_secondaries: false,
            source: None,
            track_source: false,
            multicast: None,
            peers: Vec::new(),
            check_unicast_src: false,
            unicast_ttl: None,
            fault_without_peer: false,
            authentication: None,
            v3_checksum_as_v2: false,
            accept: true,
            virtual_mac: None,
            announce: Announce::default(),
            lower_prio_no_advert: false,
            higher_prio_send_advert: true,
            owner_ignore_adverts: false,
            skip_check_adv_addr: false,
            strict: false,
            track_interface: true,
            track: Tracking::default(),
            notify: Notify::default(),
            mail: None,
        }
    }
}

impl VirtualRouter {
    /// The family that its addresses say, if any does.
    pub fn implied_family(&self) -> Option<bool> {
        let first = self.addresses.iter().map(|a| a.address).find(|a| !a.is_unspecified());
        let first = first.or(self.source).or(self.multicast);
        first.or_else(|| self.peers.first().map(|p| p.address)).map(|a| a.is_ipv6())
    }
    /// The name of the device with its virtual MAC, where it has one on its interface.
    pub fn virtual_mac_device(&self) -> String {
        let named = self.virtual_mac.as_ref().and_then(|mac| mac.name.clone());
        named.unwrap_or_else(|| format!("{}.{}", if self.ipv6 { "vrrp6" } else { "vrrp" }, self.vrid))
    }
    /// All addresses that it puts on interfaces.
    pub fn all_addresses(&self) -> impl Iterator<Item = &RouterAddress> {
        self.addresses.iter().chain(&self.excluded)
    }
}

/// Virtual routers that change together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncGroup {
    /// Name.
    pub name: String,
    /// Names of the virtual routers.
    pub members: Vec<String>,
    /// What it looks at.
    pub track: Tracking,
    /// Weights of what is tracked count for all members.
    pub track_weights: bool,
    /// Who is told.
    pub notify: Notify,
    /// Whether changes are mailed; none: as set elsewhere.
    pub mail: Option<bool>,
}

/// A program whose exit code is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrackScript {
    /// Name.
    pub name: String,
    /// The program.
    pub command: Script,
    /// From one run to the next.
    pub interval: Duration,
    /// A run that takes longer has failed; none: the interval.
    pub timeout: Option<Duration>,
    /// What it changes priorities by; 0: its failure is the router's.
    pub weight: i16,
    /// The other way around.
    pub reverse: bool,
    /// Successes before it counts as one.
    pub rise: u32,
    /// Failures before it counts as one.
    pub fall: u32,
    /// It has failed until the first success.
    pub start_down: bool,
}

impl Default for TrackScript {
    fn default() -> Self {
        Self {
            name: String::new(),
            command: Script { command: Vec::new(), user: None, group: None },
            interval: Duration::from_secs(1),
            timeout: None,
            weight: 0,
            reverse: false,
            rise: 1,
            fall: 1,
            start_down: false,
        }
    }
}

/// A file with a number in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrackFile {
    /// Name.
    pub name: String,
    /// The file.
    pub path: String,
    /// The number times this is added to the priority; 0: a number that is not 0 is the router's failure.
    pub weight: i16,
    /// The other way around.
    pub reverse: bool,
    /// The number that is written to it at the start, if it is not there.
    pub initial: Option<i32>,
    /// Also if it is there.
    pub overwrite: bool,
}

impl Default for TrackFile {
    fn default() -> Self {
        Self { name: String::new(), path: String::new(), weight: 1, reverse: false, initial: None, overwrite: false }
    }
}

/// How a process is known by its arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Arguments {
    /// They are not looked at, or all of them are the same.
    #[default]
    Exact,
    /// The first ones are the same.
    Initial,
    /// The last one may go on.
    Partial,
}

impl Arguments {
    /// All.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Initial, Self::Partial];
    /// `exact`, `initial` or `partial`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Initial => "initial",
            Self::Partial => "partial",
        }
    }
}

/// A program that must run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TrackProcess {
    /// Name.
    pub name: String,
    /// Program and, if it matters, its arguments.
    pub command: Vec<String>,
    /// How it is known by them.
    pub arguments: Arguments,
    /// The program's whole command line is looked at, not the kernel's name of the process.
    pub full_command: bool,
    /// What it changes priorities by; 0: that it does not run is the router's failure.
    pub weight: i16,
    /// The other way around.
    pub reverse: bool,
    /// So many must run.
    pub quorum: u16,
    /// And not more; none: any number.
    pub quorum_max: Option<u16>,
    /// How long it must run to count.
    pub start_delay: Duration,
    /// How long it must be gone to count.
    pub stop_delay: Duration,
}

impl Default for TrackProcess {
    fn default() -> Self {
        Self {
            name: String::new(),
            command: Vec::new(),
            arguments: Arguments::Exact,
            full_command: false,
            weight: 0,
            reverse: false,
            quorum: 1,
            quorum_max: None,
            start_delay: Duration::ZERO,
            stop_delay: Duration::ZERO,
        }
    }
}

/// A session of BFD that routers look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BfdSession {
    /// Name.
    pub name: String,
    /// The neighbour, and this side's address.
    pub target: Target,
    /// Its numbers.
    pub bfd: Bfd,
    /// What it changes priorities by; 0: its failure is the router's.
    pub weight: i16,
    /// The other way around.
    pub reverse: bool,
}

/// How long an interface must be down, or up, to count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InterfaceDelay {
    /// The interface.
    pub interface: String,
    /// Down.
    pub down: Duration,
    /// Up.
    pub up: Duration,
}

/// What a FIFO is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Events {
    /// All.
    #[default]
    All,
    /// Virtual routers.
    Routers,
    /// Services and their servers.
    Services,
}

impl Events {
    /// All.
    pub const ALL: [Self; 3] = [Self::All, Self::Routers, Self::Services];
    /// `all`, `routers` or `services`.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Routers => "routers",
            Self::Services => "services",
        }
    }
}

/// A FIFO that a line for each change of state is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fifo {
    /// Path.
    pub path: String,
    /// Which changes.
    pub events: Events,
    /// Whose it is.
    pub user: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// A program that reads it, with the path as its last argument; the director keeps it running.
    pub script: Option<Box<Script>>,
    /// A reload writes the states of all virtual routers.
    pub states_on_reload: bool,
}

/// How changes are mailed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mail {
    /// Name or address of the SMTP server.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// To whom.
    pub to: Vec<String>,
    /// From whom; none: `dirigent@` the host.
    pub from: Option<String>,
    /// The name given to the server; none: the host's.
    pub helo: Option<String>,
    /// The host's name in mails; none: its own.
    pub host: Option<String>,
    /// Longest wait for the server.
    pub timeout: Duration,
    /// Whether virtual routers are mailed that do not say it; none: no.
    pub routers: Option<bool>,
    /// Whether services and servers are mailed that do not say it; none: servers.
    pub services: Option<bool>,
    /// Not when a virtual router fails.
    pub no_faults: bool,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            server: String::new(),
            port: 25,
            to: Vec::new(),
            from: None,
            helo: None,
            host: None,
            timeout: Duration::from_secs(30),
            routers: None,
            services: None,
            no_faults: false,
        }
    }
}

/// Which end of the synchronisation this director is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SyncRole {
    /// It sends and takes, or as [`Sync::router`] is master or not.
    #[default]
    Both,
    /// It sends its connections.
    Master,
    /// It takes those of others.
    Backup,
    /// Neither, for now.
    None,
}

impl SyncRole {
    /// All.
    pub const ALL: [Self; 4] = [Self::Both, Self::Master, Self::Backup, Self::None];
    /// `both`, `master`, `backup` or `none`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Master => "master",
            Self::Backup => "backup",
            Self::None => "none",
        }
    }
    /// Whether it is the other too.
    pub fn is(self, other: Self) -> bool {
        self == other || self == Self::Both
    }
}

/// Synchronisation of connections, as IPVS does it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Sync {
    /// Which end this is.
    pub role: SyncRole,
    /// It is master while this virtual router is, else backup; none: by the role.
    pub router: Option<String>,
    /// The interface that messages go and come by.
    pub interface: Option<String>,
    /// Only messages of this id are taken.
    pub id: u8,
    /// The group that messages go to.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// TTL of messages to the group.
    pub ttl: u8,
    /// Longest message, bytes; none: as the interface's MTU lets it.
    pub maxlen: Option<u16>,
    /// Packets of a connection before it is told of (`sync_threshold`).
    pub threshold: u32,
    /// And again each time it has had so many more; 0: by time alone.
    pub period: u32,
    /// Or after so long (`sync_refresh_period`); 0: by packets alone.
    pub refresh_period: Duration,
    /// How often within that it is told again (`sync_retries`), 0 to 3.
    pub retries: u8,
    /// Messages go to these, one by one, instead of the group.
    pub peers: Vec<IpAddr>,
    /// What messages are signed with; all directors must have it, and the kernel's cannot.
    pub key: Option<Secret>,
    /// Of persistent services only the templates are told of (`sync_persist_mode`).
    pub persist_mode: bool,
    /// While it is backup, this host forwards no packet (`backup_only`).
    pub backup_only: bool,
}

impl Default for Sync {
    fn default() -> Self {
        Self {
            role: SyncRole::Both,
            router: None,
            interface: None,
            id: 0,
            group: Ipv4Addr::new(224, 0, 0, 81).into(),
            port: 8848,
            ttl: 1,
            maxlen: None,
            threshold: 3,
            period: 50,
            refresh_period: Duration::ZERO,
            retries: 0,
            peers: Vec::new(),
            key: None,
            persist_mode: false,
            backup_only: false,
        }
    }
}

/// All that is configured of failover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Failover {
    /// From the director's start until virtual routers do anything.
    pub startup_delay: Duration,
    /// From the host's start until then.
    pub boot_delay: Duration,
    /// Adverts of unknown virtual routers are logged.
    pub log_unknown_vrids: bool,
    /// Virtual routers.
    pub routers: Vec<VirtualRouter>,
    /// Groups of them.
    pub groups: Vec<SyncGroup>,
    /// Tracked programs' exit codes.
    pub scripts: Vec<TrackScript>,
    /// Tracked files.
    pub files: Vec<TrackFile>,
    /// Tracked processes.
    pub processes: Vec<TrackProcess>,
    /// Tracked sessions of BFD.
    pub bfd: Vec<BfdSession>,
    /// Patience with interfaces.
    pub interface_delays: Vec<InterfaceDelay>,
    /// FIFOs.
    pub fifos: Vec<Fifo>,
    /// Mail.
    pub mail: Option<Mail>,
    /// Synchronisation of connections.
    pub sync: Option<Sync>,
}

/// What of [`Failover`] a [`Fault`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Header of the table in dirigent.toml.
    pub table: &'static str,
    /// Which table of those.
    pub at: usize,
    /// Which item of the list that the fault's key has.
    pub item: Option<usize>,
}

/// A fault with what it is about, and the name of that.
pub type Blamed = (Part, Fault);

const INTERFACE: &str = "name one as `ip link` shows it";
const NAME: &str = "write 1 to 64 letters, digits and signs without quotes";
const ADDRESS: &str = "use a unicast address of the virtual router's family";

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn is_interface(name: &str) -> bool {
    (1..=15).contains(&name.len()) && is_word(name) && !name.contains('/') && name != "." && name != ".."
}

/// One word of a command.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"')
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.chars().count())
        && text.trim() == text
        && !text.contains(|c: char| c.is_control() || c == '"')
}

/// The MAC of one device, as it is configured.
pub fn mac_of(text: &str) -> Option<[u8; 6]> {
    let byte = |b: &str| {
        let digits = b.len() == 2 && b.bytes().all(|c| c.is_ascii_hexdigit());
        u8::from_str_radix(b, 16).ok().filter(|_| digits)
    };
    let bytes: Vec<u8> = text.split(':').map(byte).collect::<Option<_>>()?;
    // Not that of a group.
    <[u8; 6]>::try_from(bytes).ok().filter(|[first, ..]| first & 1 == 0)
}

/// Collects the faults of one table.
struct Of<'o> {
    part: Part,
    out: &'o mut Vec<Blamed>,
}

impl Of<'_> {
    fn add(&mut self, key: &'static str, what: impl Into<String>, remedy: &'static str) {
        self.out.push((self.part, (key, what.into(), remedy)));
    }
    fn item(&mut self, item: usize, key: &'static str, what: impl Into<String>, remedy: &'static str) {
        self.out.push((Part { item: Some(item), ..self.part }, (key, what.into(), remedy)));
    }
    fn within(&mut self, table: &'static str) -> Of<'_> {
        Of { part: Part { table, ..self.part }, out: self.out }
    }
    fn name(&mut self, name: &str) {
        if !is_name(name) {
            self.add("name", format!("name is {name:?}"), NAME);
        }
    }
    fn time(&mut self, key: &'static str, time: Duration, least: Duration, most: Duration) {
        if time < least || time > most || !time.as_nanos().is_multiple_of(1_000_000) {
            let text = crate::file::duration::format(time);
            self.add(key, format!("{key} is {text}"), "use at most a day, and more than nothing where it is needed");
        }
    }
    fn script(&mut self, key: &'static str, script: &Option<Box<Script>>) {
        if let Some((key, what, remedy)) = script.as_ref().and_then(|script| script.faults(key)) {
            self.add(key, what, remedy);
        }
    }
    fn weight(&mut self, weight: i16, most: i16) {
        if !(-most..=most).contains(&weight) {
            self.add(
                "weight",
                format!("weight is {weight}"),
                "use -253 to 253, or -254 to 254 for files and processes",
            );
        }
    }
    fn interface(&mut self, key: &'static str, name: &Option<String>) {
        if let Some(name) = name.as_ref().filter(|name| !is_interface(name)) {
            self.add(key, format!("{name:?} is no name of an interface"), INTERFACE);
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const MS: Duration = Duration::from_millis(1);

impl Failover {
    /// Nothing is configured.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How connections are synchronised, if they are.
    pub fn synchronised(&self) -> Option<&Sync> {
        self.sync.as_ref().filter(|sync| sync.role != SyncRole::None)
    }

    /// Everything that is wrong with it.
    pub fn faults(&self) -> Vec<Blamed> {
        let mut out = Vec::new();
        let of = |table, at| Part { table, at, item: None };
        let part = of("[failover]", 0);
        let mut general = Of { part, out: &mut out };
        general.time("startup_delay", self.startup_delay, Duration::ZERO, DAY);
        general.time("boot_delay", self.boot_delay, Duration::ZERO, DAY);
        for (at, router) in self.routers.iter().enumerate() {
            let mut of = Of { part: of("[[router]]", at), out: &mut out };
            self.router(router, &mut of);
            self.twins(at, router, &mut of);
        }
        for (at, group) in self.groups.iter().enumerate() {
            self.group(at, group, &mut Of { part: of("[[router_group]]", at), out: &mut out });
        }
        for (at, one) in self.scripts.iter().enumerate() {
            script(one, &mut Of { part: of("[[track_script]]", at), out: &mut out });
        }
        for (at, one) in self.files.iter().enumerate() {
            let mut of = Of { part: of("[[track_file]]", at), out: &mut out };
            of.name(&one.name);
            of.weight(one.weight, MAX_COUNT_WEIGHT);
            if !one.path.starts_with('/') || one.path.contains(char::is_control) {
                of.add("path", format!("path is {:?}", one.path), "write the whole path: \"/run/…\"");
            }
            if one.overwrite && one.initial.is_none() {
                of.add("overwrite", "overwrite without initial", "add initial = 0, or remove overwrite");
            }
        }
        for (at, one) in self.processes.iter().enumerate() {
            process(one, &mut Of { part: of("[[track_process]]", at), out: &mut out });
        }
        for (at, one) in self.bfd.iter().enumerate() {
            bfd(one, &mut Of { part: of("[[bfd]]", at), out: &mut out });
        }
        let names: [(&'static str, Vec<&str>); 6] = [
            ("[[router]]", self.routers.iter().map(|r| r.name.as_str()).collect()),
            ("[[router_group]]", self.groups.iter().map(|r| r.name.as_str()).collect()),
            ("[[track_script]]", self.scripts.iter().map(|r| r.name.as_str()).collect()),
            ("[[track_file]]", self.files.iter().map(|r| r.name.as_str()).collect()),
            ("[[track_process]]", self.processes.iter().map(|r| r.name.as_str()).collect()),
            ("[[bfd]]", self.bfd.iter().map(|r| r.name.as_str()).collect()),
        ];
        for (table, names) in names {
            let mut seen = HashSet::new();
            for (at, name) in names.into_iter().enumerate().filter(|(_, name)| !seen.insert(*name)) {
                let mut of = Of { part: of(table, at), out: &mut out };
                of.add("name", format!("the name {name:?} is there twice"), "change one of the two");
            }
        }
        let mut seen = HashSet::new();
        for (at, one) in self.interface_delays.iter().enumerate() {
            let mut of = Of { part: of("[[interface_delay]]", at), out: &mut out };
            of.interface("interface", &Some(one.interface.clone()));
            of.time("down", one.down, Duration::ZERO, DAY);
            of.time("up", one.up, Duration::ZERO, DAY);
            if !seen.insert(&one.interface) {
                of.add("interface", format!("interface {:?} is there twice", one.interface), "join the two");
            }
        }
        for (at, one) in self.fifos.iter().enumerate() {
            let mut of = Of { part: of("[[fifo]]", at), out: &mut out };
            if !one.path.starts_with('/') || one.path.contains(char::is_control) {
                of.add("path", format!("path is {:?}", one.path), "write the whole path: \"/run/…\"");
            }
            if self.fifos.iter().take(at).any(|other| other.path == one.path) {
                of.add("path", format!("the FIFO {:?} is there twice", one.path), "give each its own");
            }
            of.script("script", &one.script);
        }
        if let Some(mail) = &self.mail {
            self::mail(mail, &mut Of { part: of("[mail]", 0), out: &mut out });
        }
        if let Some(sync) = &self.sync {
            self.sync(sync, &mut Of { part: of("[sync]", 0), out: &mut out });
        }
        out
    }

    /// What a fault's part is called.
    pub fn part_name(&self, part: Part) -> String {
        let name = match part.table.trim_start_matches('[').split([']', '.']).next().unwrap_or_default() {
            "router" => self.routers.get(part.at).map(|r| &r.name),
            "router_group" => self.groups.get(part.at).map(|r| &r.name),
            "track_script" => self.scripts.get(part.at).map(|r| &r.name),
            "track_file" => self.files.get(part.at).map(|r| &r.name),
            "track_process" => self.processes.get(part.at).map(|r| &r.name),
            "bfd" => self.bfd.get(part.at).map(|r| &r.name),
            _ => None,
        };
        match name {
            Some(name) => format!("{} {name}", part.table),
            None => part.table.to_owned(),
        }
    }

    /// Which services' addresses are held by the daemon and by a virtual router as well.
    pub fn held_twice<'a>(&'a self, services: &'a [Service]) -> impl Iterator<Item = (&'a Service, &'a VirtualRouter)> {
        let managed = services.iter().filter(|s| s.vip == VipPolicy::Manage);
        managed.filter_map(|service| {
            let address = service.key.address()?;
            let router = self.routers.iter().find(|r| r.all_addresses().any(|a| a.address == address))?;
            Some((service, router))
        })
    }

    fn router(&self, r: &VirtualRouter, of: &mut Of) {
        of.name(&r.name);
        of.interface("interface", &r.interface);
        of.interface("vrf", &r.vrf);
        if r.interface.is_none() && (r.peers.is_empty() || r.source.is_none()) {
            let remedy = "add interface = \"eth0\", or for unicast source and peers";
            of.add("interface", format!("virtual router {} has no interface", r.name), remedy);
        }
        for (key, zero) in [("vrid", r.vrid == 0), ("priority", r.priority == 0)] {
            if zero {
                of.add(key, format!("{key} is 0"), "use 1 to 255");
            }
        }
        let (most, step, remedy) = match r.version {
            Version::V2 => (MAX_INTERVAL_V2, 1000, "use whole seconds, 1s to 255s, or version = 3"),
            Version::V3 => (MAX_INTERVAL_V3, 10, "use 10ms to 40950ms in steps of 10ms"),
        };
        if r.interval < MIN_INTERVAL || r.interval > most || !r.interval.as_nanos().is_multiple_of(step * 1_000_000) {
            let text = crate::file::duration::format(r.interval);
            of.add("interval", format!("interval is {text} in version {}", r.version.number()), remedy);
        }
        if !(1..=100).contains(&r.down_timer_adverts) {
            let what = format!("down_timer_adverts is {}", r.down_timer_adverts);
            of.add("down_timer_adverts", what, "use 1 to 100");
        }
        if r.version == Version::V2 && r.ipv6 {
            of.add("version", "version 2 has no IPv6", "use version = 3, or IPv4 addresses");
        }
        if r.state == Initial::Master && !r.preempt {
            let remedy = "set state = \"backup\", or remove preempt";
            of.add("preempt", "state master without preempt would take over at each start", remedy);
        }
        of.time("preempt_delay", r.preempt_delay, Duration::ZERO, MAX_PREEMPT_DELAY);
        if !r.preempt && !r.preempt_delay.is_zero() {
            of.add("preempt_delay", "preempt_delay without preempt", "remove one of the two");
        }
        self.addresses(r, of);
        self.unicast(r, of);
        if let Some(auth) = &r.authentication {
            let mut of = of.within("[router.authentication]");
            if r.version == Version::V3 {
                of.add("password", "version 3 has no authentication", "remove it, or use version = 2");
            }
            if !(1..=8).contains(&auth.password.0.len()) {
                let what = format!("the password has {} bytes", auth.password.0.len());
                of.add("password", what, "use 1 to 8 bytes");
            }
        }
        if r.v3_checksum_as_v2 && (r.version == Version::V2 || r.ipv6) {
            of.add("v3_checksum_as_v2", "v3_checksum_as_v2 is for IPv4 of version 3", "remove it");
        }
        if let Some(mac) = &r.virtual_mac {
            let mut of = of.within("[router.virtual_mac]");
            of.interface("name", &mac.name);
            if let Some(text) = mac.mac.as_ref().filter(|text| mac_of(text).is_none()) {
                of.add("mac", format!("{text:?} is no MAC of one device"), "write it like \"02:00:00:00:00:51\"");
            }
            if r.interface.is_none() {
                of.add("name", "a virtual MAC without interface", "add interface to the router");
            }
        }
        announce(&r.announce, &mut of.within("[router.announce]"));
        self.track(&r.track, &mut of.within("[router.track]"));
        notify(&r.notify, &mut of.within("[router.notify]"));
        if r.strict {
            for (key, wrong, what) in [
                ("peers", !r.peers.is_empty(), "unicast peers"),
                ("strict", r.authentication.is_some(), "authentication"),
                ("strict", r.addresses.is_empty(), "an empty list of addresses"),
            ] {
                if wrong {
                    of.add(key, format!("strict does not allow {what}"), "remove strict, or the other");
                }
            }
        }
    }

    /// Other routers that cannot be told apart from this one.
    fn twins(&self, at: usize, r: &VirtualRouter, of: &mut Of) {
        let same = |other: &&VirtualRouter| {
            let id = |r: &VirtualRouter| (r.vrid, r.ipv6, r.interface.clone(), r.multicast, r.peers.is_empty());
            id(other) == id(r) && (r.peers.is_empty() || other.source == r.source)
        };
        if let Some(other) = self.routers.iter().take(at).find(same) {
            let what = format!("vrid {} on this interface is that of {} too", r.vrid, other.name);
            of.add("vrid", what, "give one of them another vrid");
        }
        let device = |r: &VirtualRouter| r.virtual_mac.as_ref().map(|_| r.virtual_mac_device());
        if let Some(name) = device(r)
            && self.routers.iter().take(at).any(|other| device(other).as_ref() == Some(&name))
        {
            let what = format!("the device {name} with the virtual MAC is another virtual router's, too");
            of.within("[router.virtual_mac]").add("name", what, "give one of the two another name");
        }
    }

    fn addresses(&self, r: &VirtualRouter, of: &mut Of) {
        if r.addresses.len() > MAX_ADDRESSES {
            let what = format!("{} addresses are over {MAX_ADDRESSES}", r.addresses.len());
            of.add("addresses", what, "put the rest into excluded");
        }
        let mut seen = HashSet::new();
        for (key, list) in [("addresses", &r.addresses), ("excluded", &r.excluded)] {
            for (at, one) in list.iter().enumerate() {
                if let Some((what, remedy)) = one.fault() {
                    of.item(at, key, what, remedy);
                }
                if key == "addresses" && one.address.is_ipv6() != r.ipv6 {
                    let remedy = "use addresses of one family, and put others into excluded";
                    of.item(at, key, format!("{} is of another family than the virtual router", one.address), remedy);
                }
                if !seen.insert((one.address, one.device.as_deref())) {
                    of.item(at, key, format!("{} is there twice", one.address), "remove one");
                }
            }
        }
        for (key, list, check) in
            [("routes", &r.routes, route as fn(&str) -> Option<String>), ("rules", &r.rules, rule)]
        {
            for (at, text) in list.iter().enumerate() {
                if let Some(what) = check(text) {
                    let remedy = "write it as `ip route add` or `ip rule add` takes it, without that command";
                    of.item(at, key, what, remedy);
                }
            }
        }
    }

    fn unicast(&self, r: &VirtualRouter, of: &mut Of) {
        if let Some(source) = r.source
            && (source.is_ipv6() != r.ipv6 || source.is_multicast() || source.is_unspecified())
        {
            of.add("source", format!("source is {source}"), ADDRESS);
        }
        if r.track_source && r.source.is_none() {
            of.add("track_source", "track_source without source", "add source, or remove it");
        }
        if let Some(group) = r.multicast
            && (group.is_ipv6() != r.ipv6 || !group.is_multicast())
        {
            let remedy = "use a multicast address of the virtual router's family";
            of.add("multicast", format!("multicast is {group}"), remedy);
        }
        let mut seen = HashSet::new();
        for (at, peer) in r.peers.iter().enumerate() {
            let address = peer.address;
            if address.is_ipv6() != r.ipv6 || address.is_multicast() || address.is_unspecified() {
                of.item(at, "peers", format!("{address} cannot be a peer"), ADDRESS);
            }
            if !seen.insert(address) {
                of.item(at, "peers", format!("peer {address} is there twice"), "remove one");
            }
            if Some(address) == r.source {
                of.item(at, "peers", format!("peer {address} is this host itself"), "name the others only");
            }
            if let (Some(least), Some(most)) = (peer.min_ttl, peer.max_ttl)
                && least > most
            {
                let what = format!("min_ttl {least} of peer {address} is over max_ttl {most}");
                of.item(at, "peers", what, "swap the two");
            }
        }
    }

    fn track(&self, track: &Tracking, of: &mut Of) {
        let known = |key: &str, name: &str| match key {
            "interfaces" => is_interface(name),
            "scripts" => self.scripts.iter().any(|one| one.name == name),
            "files" => self.files.iter().any(|one| one.name == name),
            "processes" => self.processes.iter().any(|one| one.name == name),
            "bfd" => self.bfd.iter().any(|one| one.name == name),
            _ => ServiceKey::parse(name).is_some(),
        };
        for (key, list, most) in track.lists() {
            let mut seen = HashSet::new();
            for (at, one) in list.iter().enumerate() {
                if !known(key, &one.name) {
                    let (what, remedy) = match key {
                        "interfaces" => ("is no name of an interface", INTERFACE),
                        "scripts" => ("is no track_script", "add a table [[track_script]], or correct the name"),
                        "files" => ("is no track_file", "add a table [[track_file]], or correct the name"),
                        "processes" => ("is no track_process", "add a table [[track_process]], or correct the name"),
                        "bfd" => ("is no session of bfd", "add a table [[bfd]], or correct the name"),
                        _ => ("is no service", "write it like \"tcp:192.0.2.10:80\" or \"fwmark:7\""),
                    };
                    of.item(at, key, format!("{:?} {what}", one.name), remedy);
                }
                if !seen.insert(&one.name) {
                    of.item(at, key, format!("{key} holds {:?} twice", one.name), "remove one");
                }
                if one.weight.is_some_and(|weight| !(-most..=most).contains(&weight)) {
                    let what = format!("weight of {:?} is {}", one.name, one.weight.unwrap_or_default());
                    of.item(at, key, what, "use -253 to 253, or -254 to 254 for files and processes");
                }
                if one.reverse && one.weight.is_none() {
                    let remedy = "add its weight, or set it where the tracked thing is described";
                    of.item(at, key, format!("reverse of {:?} without weight", one.name), remedy);
                }
            }
        }
    }

    /// What something tracked changes a priority by.
    pub fn weight_of(&self, key: &str, one: &Tracked) -> i16 {
        let own = || match key {
            "scripts" => self.scripts.iter().find(|s| s.name == one.name).map(|s| s.weight),
            "files" => self.files.iter().find(|s| s.name == one.name).map(|s| s.weight),
            "processes" => self.processes.iter().find(|s| s.name == one.name).map(|s| s.weight),
            "bfd" => self.bfd.iter().find(|s| s.name == one.name).map(|s| s.weight),
            _ => None,
        };
        one.weight.or_else(own).unwrap_or(0)
    }

    fn group(&self, at: usize, group: &SyncGroup, of: &mut Of) {
        of.name(&group.name);
        if group.members.is_empty() {
            of.add("members", format!("router_group {} has no members", group.name), "name its virtual routers");
        }
        for (item, member) in group.members.iter().enumerate() {
            if !self.routers.iter().any(|r| r.name == *member) {
                let what = format!("there is no virtual router {member:?}");
                of.item(item, "members", what, "add a table [[router]], or correct the name");
            }
            let before = self.groups.iter().take(at).map(|g| (g, &g.members[..])).collect::<Vec<_>>();
            let own = group.members.get(..item).unwrap_or_default();
            let other = before.into_iter().chain([(group, own)]).find(|(_, members)| members.contains(member));
            if let Some((other, _)) = other {
                let what = format!("virtual router {member:?} is in router_group {} already", other.name);
                of.item(item, "members", what, "a virtual router can be in one group, once");
            }
        }
        if !group.track_weights {
            const REMEDY: &str = "set the weight to 0, or track_weights of the router_group to true";
            let part = |table, at| Part { table, at, item: None };
            let routers = self.routers.iter().enumerate().filter(|(_, r)| group.members.contains(&r.name));
            let all = routers.map(|(at, r)| (part("[router.track]", at), &r.track));
            for (part, track) in all.chain([(part("[router_group.track]", at), &group.track)]) {
                for (key, list, _) in track.lists() {
                    for (item, one) in list.iter().enumerate().filter(|(_, one)| self.weight_of(key, one) != 0) {
                        let what = format!(
                            "{} has a weight in router_group {}, whose members change together",
                            one.name, group.name
                        );
                        of.out.push((Part { item: Some(item), ..part }, (key, what, REMEDY)));
                    }
                }
            }
        }
        self.track(&group.track, &mut of.within("[router_group.track]"));
        notify(&group.notify, &mut of.within("[router_group.notify]"));
    }

    fn sync(&self, sync: &Sync, of: &mut Of) {
        of.interface("interface", &sync.interface);
        if sync.interface.is_none() && sync.peers.is_empty() {
            of.add("interface", "synchronisation has no interface", "add interface = \"eth1\", or peers");
        }
        if let Some(name) = sync.router.as_ref().filter(|name| !self.routers.iter().any(|r| r.name == **name)) {
            let what = format!("there is no virtual router {name:?}");
            of.add("router", what, "add a table [[router]], or correct the name");
        }
        if sync.router.is_some() && !matches!(sync.role, SyncRole::Both | SyncRole::None) {
            of.add("role", format!("role {} with router", sync.role.name()), "remove one of the two");
        }
        if !sync.group.is_multicast() {
            of.add("group", format!("group is {}", sync.group), "use a multicast address, or peers");
        }
        for (key, zero) in [("port", sync.port == 0), ("ttl", sync.ttl == 0), ("maxlen", sync.maxlen == Some(0))] {
            if zero {
                of.add(key, format!("{key} is 0"), "use 1 or more");
            }
        }
        if sync.maxlen.is_some_and(|n| n > 65507) {
            of.add("maxlen", "maxlen is over 65507", "use what a datagram can carry");
        }
        if sync.period != 0 && sync.threshold >= sync.period {
            let what = format!("threshold {} is not below period {}", sync.threshold, sync.period);
            of.add("threshold", what, "use a larger period, or 0");
        }
        of.time("refresh_period", sync.refresh_period, Duration::ZERO, MAX_TIME);
        if sync.retries > 3 {
            of.add("retries", format!("retries is {}", sync.retries), "use 0 to 3");
        }
        let mut seen = HashSet::new();
        for (at, peer) in sync.peers.iter().enumerate() {
            if peer.is_multicast() || peer.is_unspecified() {
                of.item(at, "peers", format!("{peer} cannot be a peer"), "use the address of another director");
            }
            if !seen.insert(peer) {
                of.item(at, "peers", format!("peer {peer} is there twice"), "remove one");
            }
        }
        if sync.key.as_ref().is_some_and(|key| key.0.len() < MIN_SYNC_KEY) {
            of.add(
                "key",
                format!("key has less than {MIN_SYNC_KEY} bytes"),
                "use 16 bytes or more that nobody can guess",
            );
        }
    }
}

fn announce(a: &Announce, of: &mut Of) {
    for (key, time) in [
        ("delay", a.delay),
        ("lower_prio_delay", a.lower_prio_delay.unwrap_or_default()),
        ("refresh", a.refresh),
        ("arp_interval", a.arp_interval),
        ("nd_interval", a.nd_interval),
        ("extra_interval", a.extra_interval),
    ] {
        of.time(key, time, Duration::ZERO, DAY);
    }
    for (key, count) in [
        ("repeat", Some(a.repeat)),
        ("lower_prio_repeat", a.lower_prio_repeat.filter(|n| *n > 0)),
        ("refresh_repeat", Some(a.refresh_repeat)),
    ] {
        if count == Some(0) {
            of.add(key, format!("{key} is 0"), "use 1 or more");
        }
    }
}

fn notify(n: &Notify, of: &mut Of) {
    n.scripts().into_iter().for_each(|(key, script)| of.script(key, script));
}

fn script(s: &TrackScript, of: &mut Of) {
    of.name(&s.name);
    if let Some((key, what, remedy)) = s.command.faults("command") {
        of.add(key, what, remedy);
    }
    of.time("interval", s.interval, MS, DAY);
    if let Some(timeout) = s.timeout {
        of.time("timeout", timeout, MS, DAY);
    }
    of.weight(s.weight, MAX_TRACK_WEIGHT);
    for (key, count) in [("rise", s.rise), ("fall", s.fall)] {
        if count == 0 {
            of.add(key, format!("{key} is 0"), "use 1 or more");
        }
    }
}

fn process(p: &TrackProcess, of: &mut Of) {
    of.name(&p.name);
    if p.command.first().is_none_or(String::is_empty) {
        of.add("command", "command names no program", "write [\"program\"], with arguments if they matter");
    }
    of.weight(p.weight, MAX_COUNT_WEIGHT);
    of.time("start_delay", p.start_delay, Duration::ZERO, DAY);
    of.time("stop_delay", p.stop_delay, Duration::ZERO, DAY);
    if p.quorum == 0 {
        of.add("quorum", "quorum is 0", "use 1 or more");
    }
    if p.quorum_max.is_some_and(|most| most < p.quorum) {
        of.add("quorum_max", "quorum_max is below quorum", "use quorum or more");
    }
}

fn bfd(s: &BfdSession, of: &mut Of) {
    of.name(&s.name);
    of.weight(s.weight, MAX_TRACK_WEIGHT);
    let probe = crate::health::Probe::Bfd(s.bfd.clone());
    let check = crate::health::Check { target: s.target.clone(), ..crate::health::Check::new(probe) };
    check.faults().into_iter().for_each(|(key, what, remedy)| of.add(key, what, remedy));
}

fn mail(m: &Mail, of: &mut Of) {
    if !is_word(&m.server) {
        of.add("server", format!("server is {:?}", m.server), "write a name or address");
    }
    if m.port == 0 {
        of.add("port", "port is 0", "use 1 to 65535, usually 25");
    }
    if m.to.is_empty() {
        of.add("to", "mail goes to nobody", "add to = [\"ops@example.com\"]");
    }
    let line = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_control());
    for (at, to) in m.to.iter().enumerate().filter(|(_, to)| !line(to)) {
        of.item(at, "to", format!("to holds {to:?}"), "write an address in one line");
    }
    if let Some(from) = m.from.as_ref().filter(|from| !line(from)) {
        of.add("from", format!("from is {from:?}"), "write an address in one line");
    }
    for (key, text) in [("helo", &m.helo), ("host", &m.host)] {
        if let Some(text) = text.as_ref().filter(|text| !is_word(text)) {
            of.add(key, format!("{key} is {text:?}"), "write a name without blanks");
        }
    }
    of.time("timeout", m.timeout, MS, DAY);
}

const ROUTE_TYPES: [&str; 11] = [
    "unicast",
    "local",
    "broadcast",
    "multicast",
    "throw",
    "unreachable",
    "prohibit",
    "blackhole",
    "nat",
    "anycast",
    "to",
];
const ROUTE_WORDS: [&str; 47] = [
    "src",
    "via",
    "dev",
    "oif",
    "to",
    "or",
    "table",
    "metric",
    "priority",
    "preference",
    "weight",
    "scope",
    "tos",
    "dsfield",
    "protocol",
    "proto",
    "mtu",
    "lock",
    "hoplimit",
    "advmss",
    "rtt",
    "rttvar",
    "reordering",
    "window",
    "cwnd",
    "ssthresh",
    "realms",
    "realm",
    "rto_min",
    "initcwnd",
    "initrwnd",
    "features",
    "ecn",
    "quickack",
    "congctl",
    "pref",
    "fastopen_no_cookie",
    "ttl-propagate",
    "encap",
    "nexthop",
    "onlink",
    "pervasive",
    "inet",
    "inet6",
    "no_track",
    "from",
    "as",
];
const RULE_WORDS: [&str; 34] = [
    "from",
    "to",
    "not",
    "priority",
    "pref",
    "preference",
    "order",
    "tos",
    "dsfield",
    "fwmark",
    "iif",
    "dev",
    "oif",
    "l3mdev",
    "uidrange",
    "lookup",
    "table",
    "realms",
    "suppress_prefixlength",
    "suppress_ifgroup",
    "goto",
    "type",
    "ipproto",
    "sport",
    "dport",
    "protocol",
    "tun_id",
    "no_track",
    "inet",
    "inet6",
    "blackhole",
    "unreachable",
    "prohibit",
    "nop",
];

/// What a list of words is, to see which of them are keywords.
fn words(text: &str) -> Result<Vec<&str>, String> {
    if text.contains(|c: char| c.is_control() && c != '\t') {
        return Err(format!("{text:?} has control characters"));
    }
    let words: Vec<_> = text.split_whitespace().collect();
    if words.is_empty() { Err("it is empty".into()) } else { Ok(words) }
}

/// Whether the value after each of these words is an address or prefix.
fn addresses(words: &[&str], of: &[&str]) -> Option<String> {
    let pairs = words.iter().zip(words.iter().skip(1));
    for (word, value) in pairs.filter(|(word, _)| of.contains(word)) {
        let value = value.strip_prefix("inet6").or(value.strip_prefix("inet")).unwrap_or(value);
        let known = value.is_empty() || ["all", "any", "default"].contains(&value) || ROUTE_TYPES.contains(&value);
        if !known && RouterAddress::parse(value).is_none() && !value.ends_with("/0") {
            return Some(format!("{value:?} after {word} is no address"));
        }
    }
    words.last().filter(|word| of.contains(word)).map(|word| format!("nothing follows {word}"))
}

/// What is wrong with a route.
fn route(text: &str) -> Option<String> {
    let words = match words(text) {
        Ok(words) => words,
        Err(what) => return Some(what),
    };
    let mut rest = &words[..];
    while let [first, others @ ..] = rest
        && ROUTE_TYPES.contains(first)
    {
        rest = others;
    }
    let to = rest.first().copied().unwrap_or_default();
    let prefix = to == "default" || RouterAddress::parse(to).is_some() || to.ends_with("/0");
    if !prefix && !ROUTE_WORDS.contains(&to) {
        return Some(format!("a route begins with {to:?}, which is no prefix"));
    }
    if !words.iter().any(|w| *w == "default" || RouterAddress::parse(w).is_some() || w.ends_with("/0")) {
        return Some(format!("the route {text:?} leads nowhere"));
    }
    addresses(&words, &["src", "via", "to"])
}

/// What is wrong with a policy rule.
fn rule(text: &str) -> Option<String> {
    let words = match words(text) {
        Ok(words) => words,
        Err(what) => return Some(what),
    };
    let first = words.first().copied().unwrap_or_default();
    if !RULE_WORDS.contains(&first) {
        return Some(format!("a rule begins with {first:?}"));
    }
    addresses(&words, &["from", "to"])
}
