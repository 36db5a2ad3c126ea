//! What is configured, as the state machine has it: [`dirigent_failover`]'s parameters, the sync groups, and what is tracked.

use super::kept::{Belongings, Device, Held, Holding};
use super::programs::{Closed, Route};
use dirigent_config::failover::{Failover, Initial, Notify, RouterAddress, Tracking, VirtualRouter, mac_of};
use dirigent_failover::ah::{Key, Sequence};
use dirigent_failover::track::Tracked;
use dirigent_failover::{
    Addresses, Auth, Centis, Family, Format, Group, Parameters, Role, Router, Time, Tracker, UnicastPeer,
};
use dirigent_net::virtual_mac::is_standard;
use dirigent_net::vrrp::{Heeded, Kind};
use dirigent_net::{AddressOptions, Mac, Snapshot};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant, SystemTime};

/// Something that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    Interface(String),
    Script(String),
    File(String),
    Process(String),
    Service(String),
    Bfd(String),
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Script(name) => write!(f, "track_script {name}"),
            Self::File(name) => write!(f, "track_file {name}"),
            Self::Process(name) => write!(f, "track_process {name}"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Bfd(name) => write!(f, "bfd {name}"),
        }
    }
}

/// Virtual routers that move together, or one.
pub struct Machine {
    /// The sync group's name.
    pub name: Option<String>,
    /// Whom the group tells.
    pub notify: Notify,
    pub group: Group,
    pub members: Vec<Member>,
    /// Whether it was told to begin.
    pub begun: bool,
    /// The group's state, as was told last.
    pub told: Role,
    /// What its members look like in the configuration, by which it is known that nothing changed.
    pub shape: Shape,
    /// Something was done: what is kept and shown is out of date.
    pub touched: bool,
}

/// All of the configuration that makes a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    name: Option<String>,
    notify: Notify,
    routers: Vec<VirtualRouter>,
    objects: Vec<Vec<(Object, Tracked)>>,
}

/// One virtual router.
pub struct Member {
    pub config: VirtualRouter,
    /// The interface of the route to its peers, if none is configured.
    pub way: Option<String>,
    /// Its interface's number, while it is there.
    pub ifindex: Option<u32>,
    pub source: Option<IpAddr>,
    pub objects: Vec<Object>,
    pub tracker: Tracker,
    /// Why it cannot work.
    pub fault: Option<String>,
    /// The priority that tracking gave it last.
    pub priority: u8,
    /// When it came to its state, and why.
    pub since: SystemTime,
    pub why: String,
    /// What went wrong with sending, or with a peer's packets, was said already.
    pub complaint: Option<String>,
    /// When something was complained of last.
    pub complained_at: Option<Instant>,
    /// With AH: the number of the last packet.
    pub sequence: Sequence,
    /// Its interface's `promote_secondaries`, which was off.
    pub promoted: Option<String>,
}

/// After those of the interface itself: routes by a virtual MAC's device to the same networks.
const VIRTUAL_MAC_METRIC: u32 = 2048;

impl Member {
    /// The group that adverts go to; none: to peers.
    pub fn multicast(&self) -> Option<IpAddr> {
        let family = if self.config.ipv6 { Family::V6 } else { Family::V4 };
        let group = || self.config.multicast.unwrap_or(dirigent_failover::address::group(family));
        self.config.peers.is_empty().then(group)
    }

    /// The interface's name: the configured one, or that of the route to its peers; none as long as there is no route.
    pub fn interface(&self) -> &str {
        self.config.interface.as_deref().or(self.way.as_deref()).unwrap_or_default()
    }

    /// What its adverts go by.
    pub fn kind(&self) -> Kind {
        match &self.config.authentication {
            Some(auth) if auth.ah => Kind::Ah,
            _ if self.config.ipv6 => Kind::V6,
            _ => Kind::V4,
        }
    }

    /// The key of AH.
    pub fn key(&self) -> Option<Key> {
        let auth = self.config.authentication.as_ref().filter(|auth| auth.ah)?;
        Key::new(auth.password.0.as_bytes())
    }

    /// The virtual router's own MAC: the standard's, or the one configured.
    pub fn mac(&self) -> Mac {
        let family = if self.config.ipv6 { Family::V6 } else { Family::V4 };
        let standard = || dirigent_failover::address::virtual_mac(family, self.config.vrid).bytes();
        let configured = self.config.virtual_mac.as_ref().and_then(|mac| mac_of(mac.mac.as_deref()?));
        configured.unwrap_or_else(standard)
    }

    /// The MAC that adverts come from, where that is not the interface's. To peers they always go by the interface, as the
    /// kernel routes them.
    pub fn speaks_as(&self) -> Option<Mac> {
        let own = self.config.virtual_mac.as_ref().filter(|mac| !mac.transmit_base);
        own.filter(|_| self.config.peers.is_empty()).map(|_| self.mac())
    }

    /// The device with the virtual MAC that an address is on, if it is on one.
    fn device_of(&self, address: &RouterAddress) -> Option<Device> {
        let on = address.device.as_deref().unwrap_or_else(|| self.interface());
        let own = on == self.interface();
        let configured = self.config.virtual_mac.as_ref();
        let wanted = configured.is_some_and(|mac| own || mac.addresses) || address.virtual_mac;
        let standard = self.config.virtual_mac_device();
        let name = if own {
            standard
        } else {
            // In the order in which the configuration names them.
            let others = self.config.all_addresses().filter_map(|a| a.device.as_deref());
            let mut others: Vec<_> = others.filter(|device| *device != self.interface()).collect();
            others.dedup();
            format!("{standard}.{}", others.iter().position(|device| *device == on).unwrap_or(0) + 1)
        };
        let group = configured.map_or(0, |mac| mac.group);
        wanted.then(|| Device { name, on: on.to_owned(), mac: self.mac(), group })
    }

    /// The interface on whose link an address is.
    pub fn link_of<'a>(&'a self, address: &'a RouterAddress) -> &'a str {
        address.device.as_deref().unwrap_or_else(|| self.interface())
    }

    /// Its addresses, and where they are put.
    pub fn held(&self) -> Vec<Held> {
        let one = |a: &RouterAddress| {
            let device = self.device_of(a);
            let options = AddressOptions { metric: device.as_ref().map(|_| VIRTUAL_MAC_METRIC), ..options(a) };
            let device = device.map_or_else(|| self.link_of(a).to_owned(), |device| device.name);
            // The prefix is that of the other end's network, if there is one.
            Held { device, address: a.address, length: a.peer.map_or(a.length, |(_, length)| length), options }
        };
        self.config.all_addresses().map(one).collect()
    }

    /// All that it has as master.
    pub fn belongings(&self, instance: &str) -> Belongings {
        let VirtualRouter { name, vrid, ipv6, routes, rules, .. } = &self.config;
        let mut devices: Vec<Device> = Vec::new();
        for device in self.config.all_addresses().filter_map(|a| self.device_of(a)) {
            if !devices.contains(&device) {
                devices.push(device);
            }
        }
        let addresses: Vec<IpAddr> = self.config.all_addresses().map(|a| a.address).collect();
        // An owner's are its own.
        let closed = !self.config.accept && self.config.priority != u8::MAX && !addresses.is_empty();
        let route = |rule| move |text: &String| Route::new(rule, text, *ipv6);
        Belongings {
            addresses: self.held(),
            devices,
            closed: closed.then(|| Closed::new(instance, name, *vrid, *ipv6, addresses)),
            routes: routes.iter().map(route(false)).chain(rules.iter().map(route(true))).collect(),
            promoted: self.promoted.clone(),
        }
    }

    /// Goes on with what an earlier one left.
    pub fn take_up(&mut self, holding: &Holding) {
        self.sequence = Sequence::after(holding.sequence);
        self.promoted = holding.belongings.promoted.clone().filter(|_| self.config.promote_secondaries);
    }
}

/// What an address has beside itself, in the kernel's numbers.
fn options(a: &RouterAddress) -> AddressOptions {
    let flag = |name: &String| match name.as_str() {
        "home" => 0x10,
        "mngtmpaddr" => 0x100,
        "noprefixroute" => 0x200,
        "autojoin" => 0x400,
        // `nodad`: duplicates are never looked for.
        _ => 0,
    };
    AddressOptions {
        label: a.label.clone(),
        scope: a.scope.as_deref().and_then(scope).unwrap_or(0),
        broadcast: a.broadcast,
        peer: a.peer.map(|(peer, _)| peer),
        preferred: a.preferred.and_then(|time| u32::try_from(time.as_secs()).ok()),
        flags: a.flags.iter().map(flag).sum(),
        metric: None,
    }
}

/// A scope by the name that /etc/iproute2/rt_scopes has for it, or by its number.
fn scope(text: &str) -> Option<u8> {
    match text {
        "global" => Some(0),
        "site" => Some(200),
        "link" => Some(253),
        "host" => Some(254),
        "nowhere" => Some(255),
        number => number.parse().ok(),
    }
}

/// What is to be run of a configuration; and which virtual routers are not, and why.
pub fn shapes(failover: &Failover) -> (Vec<Shape>, Vec<(String, String)>) {
    let (mut shapes, mut refused) = (Vec::new(), Vec::new());
    let router = |name: &str| failover.routers.iter().find(|router| router.name == name);
    let alone = failover.routers.iter().filter(|r| !failover.groups.iter().any(|g| g.members.contains(&r.name)));
    let groups =
        failover.groups.iter().map(|group| (Some(group), group.members.iter().filter_map(|m| router(m)).collect()));
    let all = groups.chain(alone.map(|router| (None, vec![router])));
    for (group, routers) in all {
        let routers: Vec<&VirtualRouter> = routers;
        let wrong: Vec<_> =
            routers.iter().filter_map(|r| Some((r.name.clone(), parameters(r, failover).err()?))).collect();
        if let Some((culprit, _)) = wrong.first() {
            let others = routers.iter().filter(|r| !wrong.iter().any(|(name, _)| *name == r.name));
            refused.extend(others.map(|r| (r.name.clone(), format!("{culprit} of its group is not started"))));
            refused.extend(wrong);
            continue;
        }
        let objects = |router: &&VirtualRouter| {
            let mut all = Vec::new();
            if let Some(interface) = router.interface.clone().filter(|_| router.track_interface) {
                all.push((Object::Interface(interface), Tracked::new(0, false)));
            }
            // Those of addresses that are elsewhere, too.
            let others = router.all_addresses().filter(|a| a.track).filter_map(|a| a.device.clone());
            for other in others.filter(|other| router.interface.as_ref() != Some(other)) {
                let one = (Object::Interface(other), Tracked::new(0, false));
                if !all.contains(&one) {
                    all.push(one);
                }
            }
            all.extend(tracked(failover, &router.track, true));
            if let Some(group) = group {
                all.extend(tracked(failover, &group.track, group.track_weights));
            }
            all
        };
        shapes.push(Shape {
            name: group.map(|group| group.name.clone()),
            notify: group.map(|group| group.notify.clone()).unwrap_or_default(),
            objects: routers.iter().map(objects).collect(),
            routers: routers.into_iter().cloned().collect(),
        });
    }
    (shapes, refused)
}

fn tracked(failover: &Failover, tracking: &Tracking, weights: bool) -> Vec<(Object, Tracked)> {
    let mut all = Vec::new();
    for (key, list, _) in tracking.lists() {
        for one in list {
            let object = match key {
                "interfaces" => Object::Interface(one.name.clone()),
                "scripts" => Object::Script(one.name.clone()),
                "files" => Object::File(one.name.clone()),
                "processes" => Object::Process(one.name.clone()),
                "bfd" => Object::Bfd(one.name.clone()),
                _ => Object::Service(one.name.clone()),
            };
            let own = match &object {
                Object::Script(name) => failover.scripts.iter().any(|s| s.name == *name && s.reverse),
                Object::File(name) => failover.files.iter().any(|s| s.name == *name && s.reverse),
                Object::Process(name) => failover.processes.iter().any(|s| s.name == *name && s.reverse),
                Object::Bfd(name) => failover.bfd.iter().any(|s| s.name == *name && s.reverse),
                Object::Interface(_) | Object::Service(_) => false,
            };
            let weight = if weights { failover.weight_of(key, one) } else { 0 };
            all.push((object, Tracked::new(weight, one.reverse != own)));
        }
    }
    all
}

impl Shape {
    /// The virtual routers' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.routers.iter().map(|router| router.name.as_str())
    }

    /// What it looks at.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().flatten().map(|(object, _)| object)
    }

    /// A machine that has not begun; or why there cannot be one.
    pub fn machine(self, failover: &Failover, now: Time) -> Result<Machine, String> {
        let delay = failover.startup_delay.max(failover.boot_delay.saturating_sub(now.since(Time::ZERO)));
        let made = self.routers.iter().map(|router| {
            let parameters = Parameters { startup_delay: delay, ..parameters(router, failover)? };
            Ok(Router::new(parameters))
        });
        let routers = made.collect::<Result<Vec<_>, String>>()?;
        let group = Group::new(routers).map_err(|e| e.to_string())?;
        let member = |(config, objects): (&VirtualRouter, &Vec<(Object, Tracked)>)| Member {
            way: None,
            ifindex: None,
            source: None,
            objects: objects.iter().map(|(object, _)| object.clone()).collect(),
            tracker: Tracker::new(objects.iter().map(|(_, tracked)| *tracked).collect()),
            fault: None,
            priority: config.priority,
            since: SystemTime::now(),
            why: "not started yet".to_owned(),
            complaint: None,
            complained_at: None,
            sequence: Sequence::default(),
            promoted: None,
            config: config.clone(),
        };
        Ok(Machine {
            name: self.name.clone(),
            notify: self.notify.clone(),
            members: self.routers.iter().zip(&self.objects).map(member).collect(),
            group,
            begun: false,
            told: Role::Initialize,
            shape: self,
            touched: true,
        })
    }
}

/// Unspecified where the interface has to say it.
fn source(router: &VirtualRouter) -> IpAddr {
    let unknown = if router.ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    router.source.unwrap_or(unknown)
}

fn parameters(router: &VirtualRouter, failover: &Failover) -> Result<Parameters, String> {
    let r = router;
    let format = match (r.version, r.ipv6, &r.authentication) {
        (dirigent_config::failover::Version::V2, _, None) => Format::V2 { auth: Auth::None },
        (dirigent_config::failover::Version::V2, _, Some(auth)) if auth.ah => {
            Key::new(auth.password.0.as_bytes()).ok_or("the password is longer than 8 bytes")?;
            Format::V2 { auth: Auth::Ah }
        }
        (dirigent_config::failover::Version::V2, _, Some(auth)) => {
            let auth = Auth::password(auth.password.0.as_bytes()).ok_or("the password is longer than 8 bytes")?;
            Format::V2 { auth }
        }
        (dirigent_config::failover::Version::V3, false, _) => Format::V3Ipv4 { checksum_as_v2: r.v3_checksum_as_v2 },
        (dirigent_config::failover::Version::V3, true, _) => Format::V3Ipv6,
    };
    let named = r.addresses.iter().map(|a| a.address);
    let addresses = match r.ipv6 {
        false => Addresses::V4(named.filter_map(|a| if let IpAddr::V4(a) = a { Some(a) } else { None }).collect()),
        true => Addresses::V6(named.filter_map(|a| if let IpAddr::V6(a) = a { Some(a) } else { None }).collect()),
    };
    let advert_int = u16::try_from(r.interval.as_millis() / 10).ok().and_then(Centis::new);
    let peer = |p: &dirigent_config::failover::Peer| UnicastPeer {
        address: p.address,
        ttl: p.min_ttl.unwrap_or(0)..=p.max_ttl.unwrap_or(u8::MAX),
    };
    let parameters = Parameters {
        priority: r.priority,
        advert_int: advert_int.ok_or_else(|| format!("an interval of {:?}", r.interval))?,
        down_timer_adverts: r.down_timer_adverts,
        start_as_master: r.state == Initial::Master,
        preempt: r.preempt,
        preempt_delay: r.preempt_delay,
        startup_delay: failover.startup_delay,
        garp_master_delay: r.announce.delay,
        garp_master_repeat: r.announce.repeat,
        garp_lower_prio_delay: r.announce.lower_prio_delay,
        garp_lower_prio_repeat: r.announce.lower_prio_repeat,
        garp_master_refresh: r.announce.refresh,
        garp_master_refresh_repeat: r.announce.refresh_repeat,
        lower_prio_no_advert: r.lower_prio_no_advert,
        higher_prio_send_advert: r.higher_prio_send_advert,
        accept: r.accept,
        skip_check_adv_addr: r.skip_check_adv_addr,
        owner_ignore_adverts: r.owner_ignore_adverts,
        strict_mode: r.strict,
        unicast_peers: r.peers.iter().map(peer).collect(),
        check_unicast_src: r.check_unicast_src,
        ..Parameters::new(r.vrid, format, source(r), addresses)
    };
    let wrong: Vec<_> = parameters.check().iter().map(ToString::to_string).collect();
    if wrong.is_empty() { Ok(parameters) } else { Err(wrong.join("; ")) }
}

/// What a filter in the kernel may know of the adverts that a router heeds. Those of unicast peers may have come a way.
pub fn heeded(of: &Parameters, group: bool) -> Heeded {
    /// Of an advert, whose type is the lower half of the first byte.
    const ADVERT: u8 = 1;
    let password = match of.format {
        Format::V2 { auth: Auth::Password(password) } => Some(password),
        _ => None,
    };
    Heeded { head: of.format.version().number() << 4 | ADVERT, vrid: of.vrid, on_link: group, password }
}

/// The address that a router's adverts come from.
pub fn own_source(member: &Member, snapshot: &Snapshot, virtual_addresses: &dyn Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let ifindex = member.ifindex?;
    if let Some(source) = member.config.source {
        let there = !member.config.track_source || snapshot.addresses.iter().any(|a| a.ip == source);
        return there.then_some(source);
    }
    let own = snapshot.addresses.iter().filter(|a| a.ifindex == ifindex && !virtual_addresses(a.ip));
    // The kernel lists the primary one first; that of IPv6 is the link's own (RFC 9568 §5.1.2.1).
    own.map(|a| a.ip).find(|ip| match ip {
        IpAddr::V4(_) => !member.config.ipv6,
        IpAddr::V6(ip) => member.config.ipv6 && ip.is_unicast_link_local(),
    })
}

/// What of a configuration is not done: what it is about, and what is not done.
pub fn undone(failover: &Failover) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, why) in shapes(failover).1 {
        all.push((format!("router {name}"), format!("it is not started: {why}")));
    }
    for r in &failover.routers {
        let a = &r.announce;
        let of = [
            ("vrf of a router without interface", r.vrf.is_some() && r.interface.is_none()),
            (
                "virtual_mac.mac: services are not served by another MAC than the standard's",
                r.virtual_mac.as_ref().and_then(|mac| mac_of(mac.mac.as_deref()?)).is_some_and(|mac| !is_standard(mac)),
            ),
            ("announce.extra_interval", !a.extra_interval.is_zero()),
        ];
        let of = of.into_iter().filter(|(_, there)| *there);
        all.extend(of.map(|(what, _)| (format!("router {}", r.name), format!("not done yet: {what}"))));
    }
    all
}

/// Least time until a machine is to be called; zero if that has come.
pub fn until(at: Time, now: Time) -> Duration {
    at.since(now)
}
