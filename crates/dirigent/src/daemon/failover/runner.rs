//! The thread of virtual routers: sockets, clock, addresses. What is to be done, [`dirigent_failover`] says.
//!
//! Nothing here waits for anything but that addresses are taken off ([`Hands`]): a thread that is late is a master that is
//! not sure any more.

use super::fifos::Fifos;
use super::guard::Guard;
use super::hands::{Hands, Times};
use super::kept::{self, All, Belongings, Held, Holding, Kept, now};
use super::machine::{self, Machine, Member, Object, Shape};
use super::tracking::Tracking;
use super::view::{Seen, View};
use super::{PacketPath, Tracked};
use crate::daemon::events::Events;
use crate::daemon::health::scripts::Scripts;
use crate::failure::{Failure, Result};
use dirigent_api::Event as Told;
use dirigent_config::failover::{Failover, Notify, RouterAddress};
use dirigent_config::health::Script;
use dirigent_failover::ah::{self, AH_LEN};
use dirigent_failover::track::State;
use dirigent_failover::{
    Action, Alarm, Event, Forecast, MemberAction, Occasion, Received, Role, Start, Time, Verdict, WhatIf, Why, frame,
    packet, rehearse,
};
use dirigent_net::claims::{Claim, Claims};
use dirigent_net::raw::PacketSocket;
use dirigent_net::vrrp::{self, Hears, Heeded, Kind, Packet, VrrpSocket};
use dirigent_net::{Change, Mac, Netlink, Snapshot, Watcher};
use std::collections::HashSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::future::poll_fn;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::mpsc as answers;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{broadcast, mpsc};

/// Packets that are read from a socket before timers are looked at: more than wait in it when a turn begins. Who sends more
/// than can be read must not keep a master from its own adverts.
const AT_ONCE: usize = 1024;

/// A virtual router complains of packets no more often than so.
const COMPLAINTS: Duration = Duration::from_secs(1);

/// What the director wants.
pub enum Order {
    /// Virtual routers become what this says.
    Follow(Box<Failover>),
    /// The director forwards: who need not go on at once may begin.
    Ready,
    /// What is known of services and sessions that are tracked.
    Tracked(Tracked),
    /// Give way, or take part again (`back`).
    HandOver { router: Option<String>, back: bool, to: answers::Sender<Result<Vec<String>>> },
    /// What would happen.
    Rehearse { router: Option<String>, what_if: WhatIf, to: answers::Sender<Result<Vec<dirigent_api::Rehearsal>>> },
    /// Give all addresses up, in order, and end.
    End(answers::Sender<()>),
}

/// What others say about virtual addresses, by interface and whether it is of IPv6, with the addresses.
type Ears = BTreeMap<(u32, bool), (Vec<IpAddr>, Claims)>;

/// All that the thread has.
pub struct Runner {
    failover: Failover,
    machines: Vec<Machine>,
    instance: String,
    /// By interface and what they are for.
    sockets: BTreeMap<(u32, Kind), VrrpSocket>,
    /// Adverts of nobody who is heeded, and what the sockets' filters know of those who are.
    unheeded: BTreeMap<(u32, Kind), (VrrpSocket, Vec<Heeded>)>,
    claims: Ears,
    /// Claims, and adverts that are only to be told of, are not read before this.
    rest_until: Option<Instant>,
    /// This host's MACs: what comes from them is no other's claim.
    own_macs: HashSet<Mac>,
    /// Sends adverts from virtual MACs.
    frames: PacketSocket,
    hands: Hands,
    watcher: Watcher,
    tracking: Tracking,
    tracked: Option<Tracked>,
    scripts: Scripts,
    fifos: Fifos,
    /// What is told of services and servers, if a FIFO is to know.
    told: Option<broadcast::Receiver<Told>>,
    events: Events,
    view: View,
    kept: Kept,
    guard: Guard,
    /// What a daemon before this one left, and nobody has taken up yet.
    found: Vec<Holding>,
    written: Option<All>,
    ready: bool,
    /// What cannot be done was said.
    complained: HashSet<String>,
    /// Of which foreign virtual routers adverts were heard.
    unknown: HashSet<u8>,
}

/// Between two looks for a route to peers.
const SEARCH: Duration = Duration::from_secs(1);
/// Before a payload in AH: that and a plain IPv4 header.
const AH_HEADERS: usize = 20 + AH_LEN;
/// Claims of others that are read before adverts have their turn again.
const CLAIMS_AT_ONCE: usize = 32;
/// How long none are read after so many.
const CLAIMS_REST: Duration = Duration::from_millis(50);

/// All roles.
pub const ROLES: [Role; 4] = [Role::Initialize, Role::Backup, Role::Master, Role::Fault];

/// A role for people and scripts.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Initialize => "stopped",
        Role::Backup => "backup",
        Role::Master => "master",
        Role::Fault => "fault",
    }
}

impl Runner {
    /// Needs the runtime that it will run on.
    pub fn new(instance: &str, scripts: Scripts, events: Events, view: View, path: PacketPath) -> Result<Self> {
        let kept = Kept::of(instance);
        let found = kept.read().unwrap_or_else(|failure| {
            tracing::warn!("what an earlier daemon knew of virtual routers is not heeded: {failure}");
            None
        });
        Ok(Self {
            failover: Failover::default(),
            machines: Vec::new(),
            instance: instance.to_owned(),
            sockets: BTreeMap::new(),
            unheeded: BTreeMap::new(),
            claims: BTreeMap::new(),
            rest_until: None,
            own_macs: HashSet::new(),
            frames: PacketSocket::sender()?,
            hands: Hands::start(path)?,
            watcher: Watcher::of_own()?,
            tracking: Tracking::default(),
            tracked: None,
            scripts,
            fifos: Fifos::default(),
            told: None,
            events,
            view,
            kept,
            guard: Guard::new(instance),
            found: found.map(|all| all.holdings).unwrap_or_default(),
            written: None,
            ready: false,
            complained: HashSet::new(),
            unknown: HashSet::new(),
        })
    }

    /// Runs until the director goes, or has it end.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        match vrrp::run_in_real_time() {
            Ok(()) => tracing::info!("virtual routers run with real-time priority"),
            Err(error) => tracing::warn!(
                "virtual routers run without real-time priority, so a busy host may cost them \
                                          their role: {error}"
            ),
        }
        loop {
            let now = now();
            let due = self.machines.iter().filter_map(|m| m.group.deadline()).min().map(|at| machine::until(at, now));
            let look = self.tracking.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            // A route that comes is told by nobody.
            let search = self.has_no_way().then_some(SEARCH);
            let rest = self.rest_until.map(|until| until.saturating_duration_since(Instant::now()));
            let wait = due.into_iter().chain(look).chain(search).chain(rest).min().unwrap_or(Duration::from_secs(3600));
            let (sockets, resting) = (&self.sockets, self.rest_until.is_some());
            let patient = Some((&self.claims, &self.unheeded)).filter(|_| !resting);
            let (watcher, tracking, told) = (&mut self.watcher, &mut self.tracking, &mut self.told);
            let looking = tracking.is_looking();
            tokio::select! {
                () = readable(sockets, patient) => {}
                () = tokio::time::sleep(wait) => {}
                order = orders.recv() => match order {
                    Some(order) => {
                        if self.obey(order).is_break() {
                            return;
                        }
                    }
                    // The addresses stay for the next daemon, or until the guard takes them away.
                    None => return,
                },
                changes = watcher.changes() => match changes {
                    Ok(changes) => self.network_changed(&changes),
                    Err(error) => {
                        tracing::error!("virtual routers no longer see changes of the network: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                () = tracking.found(), if looking => {}
                event = heard(told) => self.fifos.hear(&event),
            }
            self.turn();
        }
    }

    /// What is heard comes before what is due.
    fn turn(&mut self) {
        let (claims, unheeded) = self.read_patient();
        if self.has_no_way() {
            self.look_at_network();
        }
        self.read();
        unheeded.into_iter().for_each(|(key, packet)| self.heard(key, &packet));
        // Whoever announces addresses because he is master now has said that before.
        self.claimed(&claims);
        self.tracking.look(&self.scripts);
        self.judge();
        let now = now();
        for at in 0..self.machines.len() {
            let Some(machine) = self.machines.get_mut(at) else { continue };
            if machine.group.deadline().is_some_and(|due| due <= now) {
                let mut actions = Vec::new();
                machine.group.poll(now, &mut actions);
                self.act(at, now, actions);
            }
        }
        self.tell();
    }

    fn obey(&mut self, order: Order) -> ControlFlow<()> {
        match order {
            Order::Follow(failover) => self.follow(*failover),
            Order::Ready => {
                self.ready = true;
                self.begin();
                // What nobody has taken up is nobody's.
                for holding in std::mem::take(&mut self.found) {
                    self.drop(holding.belongings, &holding.router);
                }
            }
            Order::Tracked(tracked) => self.tracked = Some(tracked),
            Order::HandOver { router, back, to } => {
                // Who asked may have gone.
                let _ = to.send(self.hand_over(router.as_deref(), back));
            }
            Order::Rehearse { router, what_if, to } => {
                let _ = to.send(self.rehearse(router.as_deref(), what_if));
            }
            Order::End(to) => {
                for at in 0..self.machines.len() {
                    self.stop(at, false);
                }
                self.machines.clear();
                if let Err(failure) = self.kept.release() {
                    tracing::error!("{failure}");
                }
                self.view.set(Vec::new());
                let _ = to.send(());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Machines that are as they were go on; others give their addresses over to their successors, or up.
    fn follow(&mut self, failover: Failover) {
        let (mut shapes, refused) = machine::shapes(&failover);
        for (router, why) in refused {
            self.complain(format!("virtual router {router} is not started: {why}"));
        }
        let general = |f: &Failover| (f.startup_delay, f.boot_delay);
        let same_general = general(&failover) == general(&self.failover) || !self.machines.is_empty();
        let (mut keep, mut gone) = (Vec::new(), Vec::new());
        for machine in std::mem::take(&mut self.machines) {
            match shapes.iter().position(|shape| same_general && *shape == machine.shape) {
                Some(at) => {
                    shapes.remove(at);
                    keep.push(machine);
                }
                None => gone.push(machine),
            }
        }
        let wanted: HashSet<&str> = shapes.iter().flat_map(Shape::names).collect();
        // Who is configured otherwise now goes on with what he holds; who is no more says so.
        for machine in gone {
            let stays = machine.members.iter().any(|member| wanted.contains(member.config.name.as_str()));
            if stays {
                self.found.extend(holdings(&machine, &self.instance));
            } else {
                self.machines.push(machine);
                self.stop(self.machines.len() - 1, true);
                self.machines.pop();
            }
        }
        self.machines = keep;
        let now = now();
        let mut made = Vec::new();
        for shape in shapes {
            let names = shape.names().collect::<Vec<_>>().join(", ");
            match shape.machine(&failover, now) {
                Ok(machine) => made.push(machine),
                Err(why) => self.complain(format!("virtual router {names} is not started: {why}")),
            }
        }
        self.machines.extend(made);
        self.failover = failover;
        self.fifos.follow(&self.failover.fifos, &self.scripts);
        self.told = match self.told.take() {
            _ if !Fifos::of_services(&self.failover.fifos) => None,
            Some(told) => Some(told),
            None => Some(self.events.listen()),
        };
        let objects: Vec<Object> = self.machines.iter().flat_map(|m| m.shape.objects()).cloned().collect();
        self.tracking.follow(&self.failover, objects.iter());
        if !self.machines.is_empty() {
            self.watch_over();
        }
        self.look_at_network();
        self.judge();
        self.begin();
        self.machines.iter_mut().for_each(|machine| machine.touched = true);
        self.tell_states();
    }

    /// A reload tells FIFOs that want it what all virtual routers are.
    fn tell_states(&self) {
        for machine in self.machines.iter().filter(|machine| machine.begun) {
            let word = |role| state_notice(role, &machine.notify).0;
            for (member, router) in machine.members.iter().zip(machine.group.routers()) {
                self.fifos.tell_state("INSTANCE", &member.config.name, word(router.role()), router.priority());
            }
            if let Some(name) = &machine.name {
                self.fifos.tell_state("GROUP", name, word(machine.group.role()), 0);
            }
        }
    }

    /// The guard runs.
    fn watch_over(&mut self) {
        match self.guard.ensure() {
            Ok(true) => {
                self.written = None;
                self.write();
            }
            Ok(false) => {}
            Err(failure) => self.complain(format!("nobody takes addresses away if this daemon hangs: {failure}")),
        }
    }

    /// Those that have not begun begin: at once who goes on as master, the others when the director is ready.
    fn begin(&mut self) {
        let now = now();
        for at in 0..self.machines.len() {
            let Some(machine) = self.machines.get_mut(at).filter(|machine| !machine.begun) else { continue };
            let names: Vec<_> = machine.members.iter().map(|member| member.config.name.clone()).collect();
            let held = self.found.iter().filter(|holding| names.contains(&holding.router));
            let last_advert = held.clone().map(|holding| Time::from_ns(holding.last_advert_ns)).min();
            let all_held = held.count() == names.len();
            if !self.ready && !all_held {
                continue;
            }
            let (taken, rest) =
                std::mem::take(&mut self.found).into_iter().partition::<Vec<_>, _>(|h| names.contains(&h.router));
            self.found = rest;
            machine.begun = true;
            let mut left = Vec::new();
            for holding in taken {
                let Some(member) = machine.members.iter_mut().find(|m| m.config.name == holding.router) else {
                    continue;
                };
                member.take_up(&holding);
                left.push((holding.belongings.but(&member.belongings(&self.instance)), holding.router));
            }
            let start = Start {
                still_holds_addresses: all_held || last_advert.is_some(),
                last_advert: last_advert.filter(|_| all_held),
            };
            let mut actions = Vec::new();
            machine.group.handle(now, 0, Event::Start(start), &mut actions);
            self.act(at, now, actions);
            for (belongings, name) in left {
                self.drop(belongings, &name);
            }
        }
    }

    fn stop(&mut self, at: usize, deleted: bool) {
        let now = now();
        let Some(machine) = self.machines.get_mut(at) else { return };
        let mut actions = Vec::new();
        machine.group.handle(now, 0, Event::Stop, &mut actions);
        self.act(at, now, actions);
        let Some(machine) = self.machines.get(at) else { return };
        for member in &machine.members {
            let (notify, name) = (&member.config.notify, &member.config.name);
            let (word, script) = end_notice(deleted, notify);
            self.notify("INSTANCE", name, word, member.priority, script, notify);
        }
        if let Some(name) = &machine.name {
            let (word, script) = end_notice(deleted, &machine.notify);
            self.notify("GROUP", name, word, 0, script, &machine.notify);
        }
    }

    fn drop(&self, belongings: Belongings, router: &str) {
        if belongings.is_empty() {
            return;
        }
        for held in self.hands.remove(belongings) {
            let (address, device) = (&held.address, &held.device);
            tracing::info!(
                event = "address_removed", %address, device,
                "removed {address} from {device}, which virtual router {router} had"
            );
        }
    }

    fn network_changed(&mut self, changes: &[Change]) {
        self.look_at_network();
        // What a master lost without its doing it puts on again: it says that it has it.
        let gone = |held: &Held| {
            let gone =
                |c: &Change| matches!(c, Change::AddressGone(_, ip) if *ip == held.address) || *c == Change::Everything;
            changes.iter().any(gone)
        };
        let now = now();
        for at in 0..self.machines.len() {
            let Some(machine) = self.machines.get(at) else { continue };
            let sure = machine.group.addresses_valid_until().is_some_and(|until| now < until);
            if machine.group.role() != Role::Master || !sure {
                continue;
            }
            let lost: Vec<_> = machine.members.iter().flat_map(Member::held).filter(gone).collect();
            if !lost.is_empty() {
                let devices = machine.members.iter().flat_map(|m| m.belongings(&self.instance).devices).collect();
                self.hands.restore(Belongings { addresses: lost, devices, ..Belongings::default() });
            }
        }
    }

    /// Interfaces and source addresses as they are now; sockets on them.
    fn look_at_network(&mut self) {
        let virtual_addresses: HashSet<IpAddr> = self
            .machines
            .iter()
            .flat_map(|m| &m.members)
            .flat_map(|m| m.config.all_addresses())
            .map(|a| a.address)
            .collect();
        let found = self.found.iter().flat_map(|h| &h.belongings.addresses);
        let found: HashSet<IpAddr> = found.map(|held| held.address).collect();
        let is_virtual = |ip: IpAddr| virtual_addresses.contains(&ip) || found.contains(&ip);
        let snapshot = match self.watcher.snapshot() {
            Ok(snapshot) => snapshot.clone(),
            Err(error) => return self.complain(error.to_string()),
        };
        self.find_ways(&snapshot);
        let (mut wanted, mut moved) = (HashSet::new(), Vec::new());
        for (at, machine) in self.machines.iter_mut().enumerate() {
            for (m, member) in machine.members.iter_mut().enumerate() {
                member.ifindex = snapshot.link_named(member.interface()).map(|link| link.index);
                let source = machine::own_source(member, &snapshot, &is_virtual);
                if let Some(source) = source.filter(|source| member.source != Some(*source)) {
                    moved.push((at, m, source));
                }
                member.source = source;
                if let Some(ifindex) = member.ifindex {
                    wanted.insert((ifindex, member.kind(), member.interface().to_owned(), member.multicast()));
                }
            }
        }
        self.listen_for_claims(&snapshot);
        self.sockets.retain(|key, _| wanted.iter().any(|(ifindex, kind, ..)| *key == (*ifindex, *kind)));
        for (ifindex, kind, name, group) in wanted {
            if let Entry::Vacant(place) = self.sockets.entry((ifindex, kind)) {
                match VrrpSocket::open(&name, ifindex, kind) {
                    Ok(socket) => {
                        place.insert(socket);
                    }
                    Err(error) => self.complain(error.to_string()),
                }
            }
            let joined = self.sockets.get_mut(&(ifindex, kind)).zip(group).map(|(socket, group)| socket.join(group));
            if let Some(Err(error)) = joined {
                self.complain(error.to_string());
            }
        }
        self.part_adverts();
        let now = now();
        for (at, m, source) in moved {
            let mut actions = Vec::new();
            if let Some(machine) = self.machines.get_mut(at) {
                machine.group.handle(now, m, Event::Source(source), &mut actions);
            }
            self.act(at, now, actions);
        }
    }

    /// Adverts that no virtual router may heed come by sockets of their own, of which little is read at once: however many
    /// there are, they are in nobody's way. What is heeded is judged all the same, whichever socket it comes by.
    fn part_adverts(&mut self) {
        self.unheeded.retain(|key, _| self.sockets.contains_key(key));
        let mut complaints = Vec::new();
        for (key, socket) in self.sockets.iter().filter(|((_, kind), _)| *kind != Kind::Ah) {
            let (ifindex, kind) = *key;
            let mut heeded = Vec::new();
            for machine in &self.machines {
                for (m, member) in machine.members.iter().enumerate() {
                    let Some(router) = machine.group.router(m) else { continue };
                    if (member.ifindex, member.kind()) == (Some(ifindex), kind) {
                        heeded.push(machine::heeded(router.parameters(), member.multicast().is_some()));
                    }
                }
            }
            heeded.sort();
            heeded.dedup();
            let known = self.unheeded.get(key);
            let joined = known.map(|(of_others, _)| of_others.groups()) == Some(socket.groups());
            if joined && known.is_some_and(|(_, before)| *before == heeded) {
                continue;
            }
            let part = || {
                let mut others = VrrpSocket::open(socket.interface(), ifindex, kind)?;
                socket.groups().iter().try_for_each(|group| others.join(*group))?;
                // Till then both hear all, which is no harm.
                others.hear(&heeded, Hears::Others)?;
                socket.hear(&heeded, Hears::Heeded)?;
                Ok::<_, dirigent_net::Error>(others)
            };
            match part() {
                Ok(others) => _ = self.unheeded.insert(*key, (others, heeded)),
                Err(error) => complaints.push(error.to_string()),
            }
        }
        complaints.into_iter().for_each(|complaint| self.complain(complaint));
    }

    /// Whether some virtual router has no interface, because no route leads to its peers.
    fn has_no_way(&self) -> bool {
        self.machines.iter().flat_map(|m| &m.members).any(|member| member.interface().is_empty())
    }

    /// Virtual routers without an interface speak by that of the route to their first peer.
    fn find_ways(&mut self, snapshot: &Snapshot) {
        let mut failed = None;
        for member in self.machines.iter_mut().flat_map(|m| &mut m.members).filter(|m| m.config.interface.is_none()) {
            let Some(peer) = member.config.peers.first() else { continue };
            let source = member.config.source;
            let route = Netlink::route().and_then(|mut netlink| netlink.route_from(peer.address, source));
            match route {
                Ok(route) => {
                    let link = route.and_then(|route| snapshot.links.get(&route.ifindex));
                    member.way = link.filter(|link| link.running).map(|link| link.name.clone());
                }
                Err(error) => failed = Some(error.to_string()),
            }
        }
        if let Some(error) = failed {
            self.complain(error);
        }
    }

    /// Other hosts' claims to virtual addresses are heard on the links where these are.
    fn listen_for_claims(&mut self, snapshot: &Snapshot) {
        let members = || self.machines.iter().flat_map(|m| &m.members);
        self.own_macs = snapshot.links.values().filter_map(|link| link.mac).chain(members().map(Member::mac)).collect();
        let mut wanted: BTreeMap<(u32, bool), Vec<IpAddr>> = BTreeMap::new();
        for (member, address) in members().flat_map(|m| m.config.all_addresses().map(move |a| (m, a))) {
            if let Some(link) = snapshot.link_named(member.link_of(address)) {
                wanted.entry((link.index, address.address.is_ipv6())).or_default().push(address.address);
            }
        }
        self.claims.retain(|key, (addresses, _)| wanted.get(key) == Some(addresses));
        for (key, addresses) in wanted {
            if self.claims.contains_key(&key) {
                continue;
            }
            match Claims::open(key.0, key.1, &addresses) {
                Ok(claims) => {
                    self.claims.insert(key, (addresses, claims));
                }
                Err(error) => self.complain(error.to_string()),
            }
        }
    }

    /// A few of those that wait; after too many none for a while, so that a flood of them costs little.
    #[allow(clippy::type_complexity, reason = "two lists, each with where its items came by")]
    fn read_patient(&mut self) -> (Vec<(u32, Claim)>, Vec<((u32, Kind), Packet)>) {
        let now = Instant::now();
        if self.rest_until.is_some_and(|until| now < until) {
            return Default::default();
        }
        self.rest_until = None;
        let mut unheeded = Vec::new();
        for (key, (socket, _)) in &self.unheeded {
            let before = unheeded.len();
            unheeded.extend(waiting(socket, CLAIMS_AT_ONCE).map(|packet| (*key, packet)));
            if unheeded.len() - before == CLAIMS_AT_ONCE {
                self.rest_until = Some(now + CLAIMS_REST);
            }
        }
        let mut all = Vec::new();
        for ((ifindex, _), (_, claims)) in &self.claims {
            let heard = claims.receive(CLAIMS_AT_ONCE);
            if heard.len() == CLAIMS_AT_ONCE {
                self.rest_until = Some(now + CLAIMS_REST);
            }
            all.extend(heard.into_iter().map(|claim| (*ifindex, claim)));
        }
        all.retain(|(_, claim)| !self.own_macs.contains(&claim.mac));
        (all, unheeded)
    }

    fn claimed(&mut self, claims: &[(u32, Claim)]) {
        for (ifindex, Claim { ip, mac }) in claims {
            let here = self.watcher.link_numbered(*ifindex).map(|link| link.name.clone());
            for at in 0..self.machines.len() {
                for m in 0..self.machines.get(at).map_or(0, |machine| machine.members.len()) {
                    let Some(member) = self.member(at, m) else { continue };
                    let its = |a: &RouterAddress| a.address == *ip && Some(member.link_of(a)) == here.as_deref();
                    if !member.config.all_addresses().any(its) {
                        continue;
                    }
                    let (now, mut actions) = (now(), Vec::new());
                    let event = Event::ForeignAnnouncement { address: *ip, mac: dirigent_wire::Mac::new(*mac) };
                    if let Some(machine) = self.machines.get_mut(at) {
                        machine.group.handle(now, m, event, &mut actions);
                    }
                    self.act(at, now, actions);
                }
            }
        }
    }

    fn state(&mut self, object: &Object) -> State {
        let up = |up| if up { State::Up } else { State::Down };
        match object {
            Object::Interface(name) => {
                let running = self.watcher.own_link(name).is_some_and(|link| link.running);
                self.tracking.interface(name, running, &self.failover.interface_delays, Instant::now())
            }
            Object::Service(name) => {
                self.tracked.as_ref().map_or(State::Unknown, |all| up(all.services.contains(name)))
            }
            Object::Bfd(name) => {
                self.tracked.as_ref().and_then(|all| all.sessions.get(name)).map_or(State::Unknown, |is_up| up(*is_up))
            }
            Object::Script(_) | Object::File(_) | Object::Process(_) => self.tracking.state(object),
        }
    }

    /// What is tracked, and what follows for faults and priorities.
    fn judge(&mut self) {
        let (now, mut changed) = (now(), Vec::new());
        for at in 0..self.machines.len() {
            let members = self.machines.get(at).map_or(0, |machine| machine.members.len());
            for m in 0..members {
                let Some(member) = self.machines.get(at).and_then(|machine| machine.members.get(m)) else { continue };
                let objects = member.objects.clone();
                let states: Vec<_> = objects.iter().map(|object| self.state(object)).collect();
                let Some(machine) = self.machines.get_mut(at) else { continue };
                let Some(member) = machine.members.get_mut(m) else { continue };
                for (n, state) in states.into_iter().enumerate() {
                    member.tracker.learn(n, state);
                }
                let verdict = member.tracker.verdict(member.config.priority);
                let fault = match verdict {
                    _ if member.interface().is_empty() => Some("no route leads to its peers".to_owned()),
                    _ if member.ifindex.is_none() => Some(format!("there is no interface {}", member.interface())),
                    _ if member.config.fault_without_peer && member.config.peers.is_empty() => {
                        Some("it has no peer".to_owned())
                    }
                    _ if member.source.is_none() => Some(format!("{} has no address to send from", member.interface())),
                    Verdict::Fault => Some(culprit(member)),
                    Verdict::Priority(_) => None,
                };
                let mut events = Vec::new();
                match (&fault, &member.fault) {
                    (Some(_), None) => events.push(Event::Fault),
                    (None, Some(_)) => events.push(Event::Recovered),
                    _ => {}
                }
                member.fault = fault;
                if let Verdict::Priority(priority) = verdict
                    && priority != member.priority
                {
                    let (name, before) = (&member.config.name, member.priority);
                    tracing::info!(
                        event = "priority",
                        router = name,
                        priority,
                        "virtual router {name}: its priority is {priority}, before {before}"
                    );
                    member.priority = priority;
                    machine.touched = true;
                    changed.extend(member.config.notify.priority_changes.then(|| (name.clone(), priority)));
                    events.push(Event::Priority(priority));
                }
                for event in events {
                    let mut actions = Vec::new();
                    if let Some(machine) = self.machines.get_mut(at) {
                        machine.group.handle(now, m, event, &mut actions);
                    }
                    self.act(at, now, actions);
                }
            }
            let role = self.machines.get(at).map(|machine| machine.group.role());
            for (name, priority) in std::mem::take(&mut changed) {
                let word = match role {
                    Some(Role::Master) => "MASTER_PRIORITY",
                    Some(Role::Backup) => "BACKUP_PRIORITY",
                    _ => continue,
                };
                self.fifos.tell("INSTANCE", &name, word, priority);
            }
        }
    }

    /// The packets that wait.
    fn read(&mut self) {
        let mut packets = Vec::new();
        for (key, socket) in &self.sockets {
            packets.extend(waiting(socket, AT_ONCE).map(|packet| (*key, packet)));
        }
        for (key, packet) in packets {
            self.heard(key, &packet);
        }
    }

    fn heard(&mut self, (ifindex, kind): (u32, Kind), packet: &Packet) {
        let Packet { source, destination, ttl, payload } = packet;
        // Of AH the whole packet is there; what it says is believed later.
        let vrid_at = if kind == Kind::Ah { AH_HEADERS + 1 } else { 1 };
        let Some(vrid) = payload.get(vrid_at).copied() else { return };
        let mut known = false;
        for at in 0..self.machines.len() {
            let members = self.machines.get(at).map_or(0, |machine| machine.members.len());
            for m in 0..members {
                let Some(machine) = self.machines.get_mut(at) else { continue };
                let Some(member) = machine.members.get_mut(m) else { continue };
                let of = (member.config.vrid, member.kind(), member.ifindex);
                // One interface may have a router of that number in several groups.
                let ours = member.multicast().is_none_or(|group| group == *destination);
                if of != (vrid, kind, Some(ifindex))
                    || !ours
                    || destination.is_multicast() != member.multicast().is_some()
                {
                    continue;
                }
                known = true;
                let Some(router) = machine.group.router(m) else { continue };
                let opened = match member.key() {
                    Some(key) => ah::open(payload, &key, &mut member.sequence).map(|opened| opened.payload),
                    None => Ok(payload.as_slice()),
                };
                let parsed = opened.map_err(|e| e.to_string()).and_then(|payload| {
                    let received = Received { source: *source, destination: *destination, ttl: *ttl, payload };
                    packet::parse(&received, &router.parameters().rules(*source)).map_err(|e| e.to_string())
                });
                match parsed {
                    Ok(advert) => {
                        member.complaint = None;
                        let (now, mut actions) = (now(), Vec::new());
                        machine.group.handle(now, m, Event::Advert { advert: &advert, source: *source }, &mut actions);
                        machine.touched = true;
                        self.act(at, now, actions);
                    }
                    Err(error) => {
                        let complaint = format!("an advert of {source} is not heeded: {error}");
                        complain_once(member, complaint);
                    }
                }
            }
        }
        if !known && self.failover.log_unknown_vrids {
            // Whoever sends it: once for a number.
            if self.unknown.insert(vrid) {
                tracing::warn!("an advert of {source} is for virtual router {vrid}, which is none of ours");
            }
        }
    }

    fn act(&mut self, at: usize, now: Time, actions: Vec<MemberAction>) {
        if actions.is_empty() {
            return;
        }
        if let Some(machine) = self.machines.get_mut(at) {
            machine.touched = true;
        }
        let lower = |of: &MemberAction| matches!(of.action, Action::Announce { occasion: Occasion::LowerPriority, .. });
        let lower_heard = actions.iter().any(lower);
        for MemberAction { member, action } in actions {
            self.do_one(at, member, now, action);
        }
        self.tell_group(at);
        if let Some((name, machine)) = self.machines.get(at).and_then(|m| Some((m.name.clone()?, m)))
            && lower_heard
        {
            let script = machine.notify.lower_prio.as_deref();
            self.notify("GROUP", &name, "MASTER_RX_LOWER_PRI", 0, script, &machine.notify);
        }
    }

    fn do_one(&mut self, at: usize, m: usize, now: Time, action: Action) {
        let Some(machine) = self.machines.get(at) else { return };
        let Some((member, router)) = machine.members.get(m).zip(machine.group.router(m)) else { return };
        let name = member.config.name.clone();
        match action {
            Action::SendAdvert { priority, .. } => {
                let sent = self.send_advert(at, m, priority);
                if let (Err(error), Some(member)) = (sent, self.member(at, m)) {
                    complain_once(member, format!("its advert did not go out: {error}"));
                }
            }
            Action::AddAddresses => {
                if let Some(member) = self.member(at, m)
                    && member.config.promote_secondaries
                    && member.promoted.is_none()
                {
                    member.promoted =
                        Some(member.interface().to_owned()).filter(|interface| kept::drops_secondaries(interface));
                }
                // Written first: whoever comes after a crash knows of them.
                self.watch_over();
                self.write();
                self.guard.wake();
                if let Some(member) = self.machines.get(at).and_then(|machine| machine.members.get(m)) {
                    self.hands.add(&name, member.belongings(&self.instance));
                }
            }
            Action::RemoveAddresses => {
                self.hands.remove(member.belongings(&self.instance));
            }
            Action::Announce { repeat, occasion, .. } => {
                let announce = &member.config.announce;
                let times = Times { repeat, gaps: (announce.arp_interval, announce.nd_interval) };
                self.hands.announce(member.held(), times);
                if occasion == Occasion::LowerPriority {
                    let notify = &member.config.notify;
                    let script = notify.lower_prio.as_deref();
                    self.notify("INSTANCE", &name, "MASTER_RX_LOWER_PRI", router.priority(), script, notify);
                }
            }
            Action::StateChanged { to, why, .. } => {
                let why = why_text(why, member.fault.as_deref());
                let (role, notify) = (role_name(to), &member.config.notify);
                let told = format!("{role} {name}");
                if to == Role::Fault {
                    tracing::warn!(event = "role", role = told, why, "virtual router {name} is in {role}: {why}");
                } else {
                    tracing::info!(event = "role", role = told, why, "virtual router {name} is {role}: {why}");
                }
                self.view.came(&name, role);
                self.events.tell(Told::Role { role: told, why: why.clone() });
                if to != Role::Initialize {
                    let (word, script) = state_notice(to, notify);
                    self.notify("INSTANCE", &name, word, router.priority(), script, notify);
                }
                if let Some(member) = self.member(at, m) {
                    (member.since, member.why) = (SystemTime::now(), why);
                }
            }
            Action::Alarm(alarm) => {
                let what = alarm_text(alarm);
                tracing::warn!(event = "alarm", router = name, what, "virtual router {name}: {what}");
                self.events.tell(Told::Alarm { router: name, what });
            }
            Action::Discarded { source, why } => {
                tracing::debug!(
                    "virtual router {name} does not heed an advert of {source}: {why:?} (at {})",
                    now.as_ns()
                );
            }
            Action::Late { by } => {
                let late_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    event = "late",
                    router = name,
                    late_ms,
                    "virtual router {name}: this daemon did not run for {late_ms} ms more than it should"
                );
            }
        }
    }

    /// To the group or to all peers.
    fn send_advert(&mut self, at: usize, m: usize, priority: u8) -> std::result::Result<(), String> {
        let gone = || "there is nothing to send by".to_owned();
        let machine = self.machines.get_mut(at).ok_or_else(gone)?;
        let router = machine.group.router(m).ok_or_else(gone)?;
        let (advert, format) = (router.advert(priority), router.parameters().format);
        let peers = router.parameters().destinations();
        let member = machine.members.get_mut(m).ok_or_else(gone)?;
        let (ifindex, source) = member.ifindex.zip(member.source).ok_or_else(gone)?;
        let ttl = member.config.unicast_ttl.filter(|_| member.multicast().is_none()).unwrap_or(u8::MAX);
        let socket = self.sockets.get(&(ifindex, member.kind()));
        let to = member.multicast().map_or(peers, |group| vec![group]);
        let mut send = |to: IpAddr| -> std::result::Result<(), String> {
            let mut bytes = packet::emit(&advert, source, to, format).map_err(|e| e.to_string())?;
            let sealed = match (member.key(), source, to) {
                (Some(key), IpAddr::V4(source), IpAddr::V4(destination)) => {
                    // Any number but 0, for which the kernel would write another.
                    let id = (member.sequence.last() as u16).max(1);
                    let outer = ah::Outer { source, destination, ttl, id, tos: frame::CLASS };
                    let sealed = ah::seal(&outer, &bytes, &key, &mut member.sequence);
                    bytes = sealed.map_err(|e| e.to_string())?;
                    true
                }
                _ => false,
            };
            match member.speaks_as() {
                Some(mac) => {
                    let packet = if sealed { Some(bytes) } else { frame::ip(source, to, &bytes) };
                    let whole = packet.and_then(|packet| frame::ethernet(dirigent_wire::Mac::new(mac), to, &packet));
                    let whole = whole.ok_or("it cannot be sent from a virtual MAC")?;
                    self.frames.send(ifindex, &whole).map_err(|e| e.to_string())
                }
                None => socket.ok_or_else(gone)?.send(source, to, ttl, &bytes).map_err(|e| e.to_string()),
            }
        };
        // One that cannot be reached keeps nobody else from hearing it.
        to.into_iter().filter_map(|to| send(to).err()).last().map_or(Ok(()), Err)
    }

    fn member(&mut self, at: usize, m: usize) -> Option<&mut Member> {
        self.machines.get_mut(at)?.members.get_mut(m)
    }

    /// The sync group's scripts, once for all members.
    fn tell_group(&mut self, at: usize) {
        let Some(machine) = self.machines.get_mut(at) else { return };
        let role = machine.group.role();
        if std::mem::replace(&mut machine.told, role) == role || role == Role::Initialize {
            return;
        }
        let Some((name, machine)) = self.machines.get(at).and_then(|m| Some((m.name.clone()?, m))) else { return };
        let (word, script) = state_notice(role, &machine.notify);
        self.notify("GROUP", &name, word, 0, script, &machine.notify);
    }

    /// keepalived's arguments.
    fn notify(&self, kind: &str, name: &str, state: &str, priority: u8, one: Option<&Script>, notify: &Notify) {
        self.fifos.tell(kind, name, state, priority);
        if let Some(script) = one {
            self.scripts.notify(script, format!("virtual router {name}"));
        }
        if let Some(script) = &notify.all {
            let mut script = (**script).clone();
            script.command.extend([kind.to_owned(), name.to_owned(), state.to_owned(), priority.to_string()]);
            self.scripts.notify(&script, format!("virtual router {name}"));
        }
    }

    fn complain(&mut self, what: String) {
        if self.complained.len() > 1000 {
            self.complained.clear();
        }
        if self.complained.insert(what.clone()) {
            tracing::warn!("{what}");
        }
    }

    /// What has changed is written down, and shown.
    fn tell(&mut self) {
        if !self.machines.iter().any(|machine| machine.touched) {
            return;
        }
        self.write();
        self.machines.iter_mut().for_each(|machine| machine.touched = false);
        self.view.set(self.machines.iter().flat_map(seen).collect());
    }

    fn write(&mut self) {
        let mut all: Vec<_> = self.machines.iter().flat_map(|machine| holdings(machine, &self.instance)).collect();
        // Whose turn to go on has not come.
        all.extend(self.found.iter().cloned());
        let all = All::new(self.guard.pid(), all);
        if self.written.as_ref() == Some(&all) {
            return;
        }
        match self.kept.write(&all) {
            Ok(()) => self.written = Some(all),
            Err(failure) => self.complain(format!("the guard does not know what this daemon holds: {failure}")),
        }
    }

    /// Those that are meant: all, or the group of one.
    fn meant(&self, router: Option<&str>) -> Result<Vec<usize>> {
        let has = |machine: &Machine| {
            router.is_none_or(|name| {
                machine.name.as_deref() == Some(name) || machine.members.iter().any(|m| m.config.name == name)
            })
        };
        let all: Vec<_> = self.machines.iter().enumerate().filter(|(_, m)| has(m)).map(|(at, _)| at).collect();
        router.filter(|_| all.is_empty()).map_or(Ok(all), |name| Err(super::unknown(name)))
    }

    fn hand_over(&mut self, router: Option<&str>, back: bool) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for at in self.meant(router)? {
            let (now, mut actions) = (now(), Vec::new());
            let Some(machine) = self.machines.get_mut(at) else { continue };
            let names = machine.members.iter().map(|m| m.config.name.as_str()).collect::<Vec<_>>().join(", ");
            let (was, yielded) = (machine.group.role(), machine.group.routers().any(|r| r.has_yielded()));
            let bound = machine.group.routers().map(|r| r.hand_over_bound()).max().unwrap_or_default();
            machine.group.handle(now, 0, if back { Event::HandBack } else { Event::HandOver }, &mut actions);
            self.act(at, now, actions);
            match (back, was, yielded) {
                (false, Role::Master, _) => done.push(format!(
                    "virtual router {names} gave way; if nobody takes over within {} ms it comes back",
                    bound.as_millis()
                )),
                (true, _, true) => {
                    done.push(format!("virtual router {names} takes over again when its priority says so"))
                }
                _ => {}
            }
        }
        if done.is_empty() && !back && router.is_some() {
            let remedy = "run it on the host of the master: `dirigent failover status` says which that is";
            return Err(Failure::new(
                router.unwrap_or_default(),
                "it is not master here, so it cannot give way",
                remedy,
            ));
        }
        Ok(done)
    }

    fn rehearse(&self, router: Option<&str>, what_if: WhatIf) -> Result<Vec<dirigent_api::Rehearsal>> {
        let now = now();
        let mut all = Vec::new();
        for machine in self.meant(router)?.into_iter().filter_map(|at| self.machines.get(at)) {
            for (member, router) in machine.members.iter().zip(machine.group.routers()) {
                let peers: Vec<_> = router
                    .heard()
                    .map(|heard| rehearse::Peer {
                        address: heard.source,
                        priority: heard.priority,
                        heard_at: Some(heard.at),
                    })
                    .into_iter()
                    .collect();
                all.push(forecast(&member.config.name, now, rehearse(now, router, &peers, what_if)));
            }
        }
        Ok(all)
    }
}

/// The packets that wait at a socket, so many at most.
fn waiting(socket: &VrrpSocket, at_most: usize) -> impl Iterator<Item = Packet> {
    let next = || match socket.receive() {
        Ok(packet) => packet,
        Err(error) => {
            // Such as that the interface went down: that is netlink's to tell.
            tracing::debug!("{error}");
            None
        }
    };
    std::iter::from_fn(next).take(at_most)
}

/// Claims, and adverts that are only to be told of.
type Patient<'s> = (&'s Ears, &'s BTreeMap<(u32, Kind), (VrrpSocket, Vec<Heeded>)>);

async fn readable(sockets: &BTreeMap<(u32, Kind), VrrpSocket>, patient: Option<Patient<'_>>) {
    poll_fn(|context| {
        let (claims, unheeded) = patient.unzip();
        let unheeded = unheeded.into_iter().flat_map(BTreeMap::values).map(|(socket, _)| socket);
        let sockets = sockets.values().chain(unheeded);
        let ready = sockets.filter(|socket| socket.poll_readable(context).is_ready()).count();
        let claims = claims.into_iter().flat_map(BTreeMap::values);
        let ready = ready + claims.filter(|(_, claims)| claims.poll_readable(context).is_ready()).count();
        if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The next event, if they are listened to.
async fn heard(told: &mut Option<broadcast::Receiver<Told>>) -> Told {
    loop {
        let Some(receiver) = told else { return std::future::pending().await };
        match receiver.recv().await {
            Ok(event) => return event,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!("FIFOs are not told of {missed} events: there were too many at once");
            }
            // The daemon ends.
            Err(broadcast::error::RecvError::Closed) => *told = None,
        }
    }
}

/// Not what was said last, and not more often than somebody reads who is sent forged packets.
fn complain_once(member: &mut Member, complaint: String) {
    let quiet = member.complained_at.is_some_and(|at| at.elapsed() < COMPLAINTS);
    if member.complaint.as_ref() != Some(&complaint) && !quiet {
        member.complained_at = Some(Instant::now());
        tracing::warn!("virtual router {}: {complaint}", member.config.name);
        member.complaint = Some(complaint);
    }
}

/// What a machine's masters hold.
fn holdings(machine: &Machine, instance: &str) -> Vec<Holding> {
    let Some(until) = machine.group.addresses_valid_until() else { return Vec::new() };
    let members = machine.members.iter().zip(machine.group.routers());
    let held = members.filter_map(|(member, router)| {
        let last_advert_ns = router.last_advert()?.as_ns();
        let router = member.config.name.clone();
        let (belongings, sequence) = (member.belongings(instance), member.sequence.last());
        Some(Holding { router, belongings, until_ns: until.as_ns(), last_advert_ns, sequence })
    });
    held.collect()
}

fn seen(machine: &Machine) -> Vec<Seen> {
    let one = |(member, router): (&Member, &dirigent_failover::Router)| {
        let master = router.heard().filter(|_| router.role() != Role::Master || router.is_contended());
        let config = &member.config;
        let router = dirigent_api::VirtualRouter {
            name: config.name.clone(),
            group: machine.name.clone(),
            interface: member.interface().to_owned(),
            version: config.version.number(),
            family: if config.ipv6 { 6 } else { 4 },
            vrid: config.vrid,
            state: role_name(router.role()).to_owned(),
            why: member.why.clone(),
            since_s: member.since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            for_s: 0,
            priority: router.priority(),
            configured_priority: config.priority,
            source: member.source.map(|source| source.to_string()),
            addresses: config.all_addresses().map(|a| a.address.to_string()).collect(),
            master: master.map(|heard| dirigent_api::HeardMaster {
                address: heard.source.to_string(),
                priority: heard.priority,
                heard_ms: 0,
            }),
            contended: router.is_contended(),
            claimed: router.claimed().map(|(ip, mac)| format!("{ip} by {}", dirigent_net::mac_text(mac.bytes()))),
            gave_way: router.has_yielded(),
            // The view's to know.
            transitions: BTreeMap::new(),
        };
        Seen { router, since: member.since, heard: master.map(|heard| heard.at) }
    };
    machine.members.iter().zip(machine.group.routers()).map(one).collect()
}

/// Which tracked object is the fault.
fn culprit(member: &Member) -> String {
    let alone = |n: &usize| {
        let tracked = member.tracker.objects().get(*n).copied();
        let tracker = dirigent_failover::Tracker::new(tracked.into_iter().collect());
        tracker.verdict(member.config.priority) == Verdict::Fault
    };
    let found = (0..member.objects.len()).find(alone).and_then(|n| member.objects.get(n));
    found.map_or_else(|| "what it tracks".to_owned(), |object| format!("{object} is down"))
}

fn state_notice(role: Role, notify: &Notify) -> (&'static str, Option<&Script>) {
    match role {
        Role::Master => ("MASTER", notify.master.as_deref()),
        Role::Fault => ("FAULT", notify.fault.as_deref()),
        Role::Backup | Role::Initialize => ("BACKUP", notify.backup.as_deref()),
    }
}

fn end_notice(deleted: bool, notify: &Notify) -> (&'static str, Option<&Script>) {
    match deleted {
        true => ("DELETED", notify.deleted.as_deref().or(notify.fault.as_deref())),
        false => ("STOP", notify.stop.as_deref()),
    }
}

fn why_text(why: Why, fault: Option<&str>) -> String {
    match why {
        Why::Started => "it was started".to_owned(),
        Why::Resumed => "it goes on as the daemon before it".to_owned(),
        Why::Stopped => "it was stopped".to_owned(),
        Why::NoAdvert => "no master was heard".to_owned(),
        Why::Preempted { address, priority } => format!("it took over from {address} of priority {priority}"),
        Why::BetterMaster { address, priority } => format!("{address} of priority {priority} is master"),
        Why::Late { by } => format!("this daemon did not run, and could not be sure for {} ms", by.as_millis()),
        Why::Fault => fault.unwrap_or("another of its group failed").to_owned(),
        Why::Recovered => "all that it needs is up again".to_owned(),
        Why::HandOver => "an operator had it give way".to_owned(),
        Why::HandOverFailed => "it gave way, and nobody took over".to_owned(),
        Why::Group => "another of its group was first".to_owned(),
    }
}

fn alarm_text(alarm: Alarm) -> String {
    match alarm {
        Alarm::SecondMaster { address, priority } => format!("{address} of priority {priority} is master, too"),
        Alarm::ForeignAnnouncement { address, mac } => {
            format!("another host says that {address} is its own: {}", dirigent_net::mac_text(mac.bytes()))
        }
        Alarm::SecondMasterGone { lasted } => format!("it is the only master again, after {} ms", lasted.as_millis()),
        Alarm::OtherAddresses { address } => format!("{address} has other addresses for this virtual router"),
    }
}

fn forecast(name: &str, now: Time, forecast: Forecast) -> dirigent_api::Rehearsal {
    let ms = |at: Time| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
    let of = |outcome: &str, text: String| dirigent_api::Rehearsal {
        router: name.to_owned(),
        outcome: outcome.to_owned(),
        text,
        ..Default::default()
    };
    match forecast {
        Forecast::NothingChanges { master } => {
            let master = master.map(|address| address.to_string());
            let who =
                master.as_ref().map_or_else(|| "no master was heard".to_owned(), |who| format!("{who} is master"));
            dirigent_api::Rehearsal { by: master, ..of("nothing changes", format!("it is not master here: {who}")) }
        }
        Forecast::TakenOver { by, expected, latest } => {
            let text = format!(
                "{} of priority {} takes over in {} ms, {} ms at the latest",
                by.address,
                by.priority,
                ms(expected),
                ms(latest)
            );
            dirigent_api::Rehearsal {
                by: Some(by.address.to_string()),
                expected_ms: Some(ms(expected)),
                latest_ms: Some(ms(latest)),
                ..of("taken over", text)
            }
        }
        Forecast::Unknown { earliest, latest, comes_back } => {
            let back = comes_back.map(|at| format!("; if there is none, it comes back in {} ms", ms(at)));
            let text = format!(
                "no other master was ever heard; a backup, if there is one, takes over in {} to {} ms{}",
                ms(earliest),
                ms(latest),
                back.unwrap_or_default()
            );
            dirigent_api::Rehearsal {
                expected_ms: Some(ms(earliest)),
                latest_ms: Some(ms(latest)),
                comes_back_ms: comes_back.map(ms),
                ..of("unknown", text)
            }
        }
    }
}
