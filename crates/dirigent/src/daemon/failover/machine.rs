//! What is configured, as the state machine has it: [`dirigent_failover`]'s parameters, the sync groups, and what is tracked.

use super::kept::Held;
use dirigent_config::failover::{Events, Failover, Initial, Notify, Tracking, VirtualRouter};
use dirigent_failover::track::Tracked;
use dirigent_failover::{
    Addresses, Auth, Centis, Family, Format, Group, Parameters, Role, Router, Time, Tracker, UnicastPeer,
};
use dirigent_net::Snapshot;
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
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Script(name) => write!(f, "track_script {name}"),
            Self::File(name) => write!(f, "track_file {name}"),
            Self::Process(name) => write!(f, "track_process {name}"),
            Self::Service(name) => write!(f, "service {name}"),
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
}

impl Member {
    /// The group that adverts go to; none: to peers.
    pub fn multicast(&self) -> Option<IpAddr> {
        let family = if self.config.ipv6 { Family::V6 } else { Family::V4 };
        let group = || self.config.multicast.unwrap_or(dirigent_failover::address::group(family));
        self.config.peers.is_empty().then(group)
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        self.config.interface.as_deref().unwrap_or_default()
    }

    /// Its addresses, and where they are put.
    pub fn held(&self) -> Vec<Held> {
        let one = |a: &dirigent_config::failover::RouterAddress| Held {
            device: a.device.clone().unwrap_or_else(|| self.interface().to_owned()),
            address: a.address,
            length: a.length,
        };
        self.config.all_addresses().map(one).collect()
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
                "services" => Object::Service(one.name.clone()),
                // Named by `undone`.
                _ => continue,
            };
            let own = match &object {
                Object::Script(name) => failover.scripts.iter().any(|s| s.name == *name && s.reverse),
                Object::File(name) => failover.files.iter().any(|s| s.name == *name && s.reverse),
                Object::Process(name) => failover.processes.iter().any(|s| s.name == *name && s.reverse),
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
    if r.interface.is_none() {
        return Err("a virtual router without interface, by the route to its peers, is not done yet".to_owned());
    }
    let format = match (r.version, r.ipv6, &r.authentication) {
        (dirigent_config::failover::Version::V2, _, None) => Format::V2 { auth: Auth::None },
        (dirigent_config::failover::Version::V2, _, Some(auth)) if auth.ah => {
            return Err("authentication by AH is not done yet".to_owned());
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
        strict_mode: r.strict,
        unicast_peers: r.peers.iter().map(peer).collect(),
        check_unicast_src: r.check_unicast_src,
        ..Parameters::new(r.vrid, format, source(r), addresses)
    };
    let wrong: Vec<_> = parameters.check().iter().map(ToString::to_string).collect();
    if wrong.is_empty() { Ok(parameters) } else { Err(wrong.join("; ")) }
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
        let addresses = || r.all_addresses();
        let of = [
            ("virtual_mac: the interface's own MAC is used", r.virtual_mac.is_some()),
            ("vrf", r.vrf.is_some()),
            ("routes", !r.routes.is_empty()),
            ("rules", !r.rules.is_empty()),
            ("promote_secondaries", r.promote_secondaries),
            ("accept = false: the host takes packets for the addresses", !r.accept),
            ("owner_ignore_adverts", r.owner_ignore_adverts),
            ("fault_without_peer", r.fault_without_peer),
            ("announce.arp_interval and nd_interval", !a.arp_interval.is_zero() || !a.nd_interval.is_zero()),
            ("announce.extra_interval", !a.extra_interval.is_zero()),
            ("mail", r.mail == Some(true)),
            ("notify.priority_changes", r.notify.priority_changes),
            (
                "addresses with a label, scope, broadcast, peer, preferred or flags: they are added without",
                addresses().any(odd),
            ),
            ("addresses on a virtual MAC's device: the device itself is used", addresses().any(|a| a.virtual_mac)),
            ("track.bfd", !r.track.bfd.is_empty()),
        ];
        let of = of.into_iter().filter(|(_, there)| *there);
        all.extend(of.map(|(what, _)| (format!("router {}", r.name), format!("not done yet: {what}"))));
    }
    for g in &failover.groups {
        let of = [("track.bfd", !g.track.bfd.is_empty()), ("mail", g.mail == Some(true))];
        let of = of.into_iter().filter(|(_, there)| *there);
        all.extend(of.map(|(what, _)| (format!("router_group {}", g.name), format!("not done yet: {what}"))));
    }
    let general = [
        ("interface_delay", !failover.interface_delays.is_empty()),
        ("fifo.user and fifo.group", failover.fifos.iter().any(|f| f.user.is_some() || f.group.is_some())),
        ("fifo.script", failover.fifos.iter().any(|f| f.script.is_some())),
        ("fifo.states_on_reload", failover.fifos.iter().any(|f| f.states_on_reload)),
        ("fifo: lines about services and servers", failover.fifos.iter().any(|f| f.events != Events::Routers)),
        ("mail of virtual routers", failover.mail.is_some()),
    ];
    let general = general.into_iter().filter(|(_, there)| *there);
    all.extend(general.map(|(what, _)| ("failover".to_owned(), format!("not done yet: {what}"))));
    all
}

fn odd(a: &dirigent_config::failover::RouterAddress) -> bool {
    let global = |scope: &String| scope == "global" || scope == "0";
    a.label.is_some()
        || !a.scope.as_ref().is_none_or(global)
        || a.broadcast.is_some()
        || a.peer.is_some()
        || a.preferred.is_some()
        // Duplicates are never looked for.
        || a.flags.iter().any(|flag| flag != "nodad")
}

/// Least time until a machine is to be called; zero if that has come.
pub fn until(at: Time, now: Time) -> Duration {
    at.since(now)
}
