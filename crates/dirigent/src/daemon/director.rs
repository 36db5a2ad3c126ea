//! The director that a daemon holds: the Model in force, the kernel's tables and programs, and the network around them.

mod change;
mod edit;
mod examined;
mod known;
mod probed;

pub use change::Asked;
pub use edit::{Do, Edit};
pub use known::Known;

use probed::Probed;
pub use probed::{ClientsPath, Leave};

use super::config;
use super::events::Events;
use super::failover::{Failover, Tracked};
use super::health::{Health, Layered, News, View};
use super::interfaces::{Interfaces, with_xdp};
use super::kept::Kept;
use super::mail::Mailer;
use super::metrics::{Shown, Sources};
use super::rates::{Rates, Watch};
use super::resets::Resetter;
use super::size::Size;
use super::suspicion::{About, Suspicions, judge};
use super::sync::Sync;
use super::tables::{Seen, Sweeper, Tables};
use super::vip::{self, Vips};
use super::{naming, network, remove, snapshot};
use crate::failure::{Failure, Result};
use crate::netfilter::Netfilter;
use crate::print::count;
use crate::report::{self, Reader};
use dirigent_api::{Changed, Daemon, Event, Problem, Status};
use dirigent_config::{Model, Plan, ServiceKey, Settings};
use dirigent_datapath::control::KernelStore;
use dirigent_datapath::control::features;
use dirigent_datapath::control::paths::Networks;
use dirigent_datapath::kernel::{Instance, Kernel, LoadOptions, TcKind};
use dirigent_director::records::LAYOUT_VERSION;
use dirigent_net::links::Address;
use dirigent_net::mark_device::{self, MarkDevice};
use dirigent_net::probe::Room;
use dirigent_net::{Change, HopKeeper, NextHop, NextHopState, Snapshot, Update};
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The MTU of a device beside none other.
const ETHERNET_MTU: u32 = 1500;

/// Servers that one line of the log names.
const NAMED: usize = 5;

/// A director with its daemon.
pub struct Director {
    /// The network, whose changes are waited for.
    pub network: HopKeeper,
    /// The configuration file; none: everything comes at runtime.
    path: Option<PathBuf>,
    /// The name from the command line, which wins over the file's.
    named: Option<String>,
    /// What the file says: the lowest layer.
    file: Model,
    /// What is configured: the file, and what was changed at runtime. What is in force the tables know: over this it has
    /// what health says.
    model: Model,
    /// Health of the servers.
    pub health: Health,
    failover: Failover,
    sync: Sync,
    seen: Seen,
    /// Goes up with each change.
    generation: u64,
    kept: Kept,
    instance: Instance,
    kernel: Kernel,
    tables: Tables,
    sweeper: Option<Sweeper>,
    /// Started by the first service whose live connections are reset.
    resetter: Option<Resetter>,
    rates: Rates,
    watch: Option<Watch>,
    events: Events,
    /// For metrics.
    shown: Shown,
    mailer: Mailer,
    suspicions: Suspicions,
    /// As of the start, or the last reload.
    netfilter: Netfilter,
    interfaces: Interfaces,
    probed: Probed,
    vips: Vips,
    since: Instant,
    /// The settings it started with, of which some need a new start to change.
    began_with: Settings,
    /// What went wrong when the network last changed.
    problem: Option<Problem>,
    /// What the kernel cannot do, and is done without.
    lacking: Vec<String>,
    /// Why the last reload was refused: who sent a SIGHUP gets no other answer.
    refused: Vec<Problem>,
}

impl Director {
    /// Loads or takes over, writes the tables, and only then attaches: the first packet finds everything in place.
    pub async fn start(path: Option<&Path>, named: Option<String>, file: Model, room: Option<Room>) -> Result<Self> {
        let settings = file.settings();
        let instance = Instance::new(&settings.instance)?;
        let events = Events::default();
        let mut failover = Failover::new(instance.name(), events.clone());
        // A master that goes on has no time to lose.
        if instance.exists() {
            failover.follow(file.failover())?;
        }
        let kept = Kept::of(instance.name());
        let begun = change::Begun::from(&kept, &file, instance.exists())?;
        let features = features(&begun.model);
        let found = report::size(&instance);
        let size = match found {
            // A default that came out differently is no reason to complain.
            Some(found) => found.as_said(settings),
            None => Size::of(settings, &begun.model)?,
        };
        let maps = size.maps();
        let options = LoadOptions { instance: Some(&instance), layout: LAYOUT_VERSION, map_sizes: &maps, features };
        let mut kernel = Kernel::load(&options)?;
        let mut lacking = Vec::new();
        if let Err(error) = kernel.count_losses() {
            let what = format!("frames that XDP loses after the verdict are not seen: {error}");
            tracing::warn!("{what}");
            lacking.push(what);
        }
        let actual = found.unwrap_or(size);
        tracing::info!("{}", actual.sentence(settings.connections == Some(actual.connections)));
        if kernel.took_over() {
            let director = instance.name();
            tracing::info!(
                event = "took_over",
                director,
                "took over the programs and maps of {director}, with their connections"
            );
        }
        let health = Health::start(&instance, kernel.took_over())?;
        let layered = health.over(&begun.model);
        let vips = Vips::open(instance.name())?;
        let seen = Seen::default();
        let sync = Sync::new(instance.name(), kernel.took_over(), seen.clone());
        let mut director = Self {
            network: HopKeeper::start()?,
            path: path.map(Path::to_owned),
            named,
            began_with: file.settings().clone(),
            file,
            generation: begun.generation,
            kept,
            vips,
            tables: Tables::open(&kernel, &layered.model)?,
            model: begun.model.clone(),
            health,
            failover,
            sync,
            seen,
            sweeper: None,
            resetter: None,
            rates: Rates::default(),
            watch: None,
            mailer: Mailer::new(events.clone()),
            suspicions: Suspicions::new(events.clone()),
            events,
            shown: Shown::new(),
            netfilter: Netfilter::read(),
            instance,
            kernel,
            interfaces: Interfaces::default(),
            probed: Probed::with(room),
            since: Instant::now(),
            problem: None,
            lacking,
            refused: Vec::new(),
        };
        if let Err(failure) = director.begin(layered).and_then(|()| director.settle_in(begun)) {
            director.give_up();
            return Err(failure);
        }
        Ok(director)
    }

    /// A start that failed leaves nothing behind, but nothing of an earlier daemon is touched: that goes on.
    fn give_up(&mut self) {
        if self.kernel.took_over() {
            tracing::warn!("what an earlier daemon of {} left goes on forwarding", self.instance.name());
        } else if let Err(second) = remove(&self.instance) {
            tracing::error!("cleaning up: {second}");
        }
    }

    fn begin(&mut self, layered: Layered) -> Result<()> {
        self.set_destinations()?;
        self.release_mark_device()?;
        if self.kernel.took_over() {
            let now = snapshot(self.network.watcher())?;
            self.interfaces.take_over(&mut self.kernel, &self.instance, &self.model, &now)?;
        }
        self.failover.tell_packet_path(KernelStore::new(&self.kernel)?);
        self.follow_network(false)?;
        // What an earlier daemon's packets remember may be gone by now.
        self.tables.ways_changed()?;
        self.probe(&self.model.clone())?;
        // Last: without the programs the host itself would answer its packets.
        self.vips.follow(&self.model)?;
        self.announce();
        self.mailer.follow(&self.model)?;
        self.health.enforce(&self.model, layered, &self.events);
        self.failover.follow(self.model.failover())?;
        self.follow_sync()?;
        self.tell_tracked();
        self.failover.ready()?;
        let sweeper = Sweeper::start(KernelStore::new(&self.kernel)?, self.seen.clone());
        self.sweeper = Some(sweeper.map_err(|e| Failure::io("starting the sweep", &e))?);
        let watch = Watch::start(KernelStore::new(&self.kernel)?, self.rates(), self.events(), self.health.doubts());
        self.watch = Some(watch.map_err(|e| Failure::io("starting to look at counters", &e))?);
        for problem in self.problems()? {
            let Problem { place, what, remedy } = &problem;
            tracing::warn!(event = "problem", place, what, remedy, "{problem}");
        }
        Ok(())
    }

    /// The name.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The programs in the kernel.
    pub fn kernel_mut(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// How fast its counters grow.
    pub fn rates(&self) -> Rates {
        self.rates.clone()
    }

    /// Where it tells what happens.
    pub fn events(&self) -> Events {
        self.events.clone()
    }

    /// What lists say of servers' health.
    pub fn view(&self) -> View {
        self.health.view()
    }

    /// What metrics tell beside tables.
    pub fn metrics(&self) -> Sources {
        Sources { shown: self.shown.clone(), routers: self.failover.view(), sync: self.sync.view() }
    }

    /// What changed about checks comes into force.
    pub fn health_changed(&mut self, news: Vec<News>) {
        let first = news.iter().map(|one| one.at).min();
        self.health.learn(news);
        self.settle_health();
        if let Some(first) = first {
            tracing::debug!("what checks say is in force {} us after it was known", first.elapsed().as_micros());
        }
        self.health.write();
    }

    /// What is said when the director is removed.
    pub fn farewell(&self) -> impl Future<Output = ()> + use<> {
        self.health.farewell(&self.model)
    }

    /// Servers that failed or came back, in the tables. What cannot be done is tried again.
    fn settle_health(&mut self) {
        let services = self.health.unsettled(&self.model, &self.events);
        let old = |key: &ServiceKey| self.tables.model().service(key);
        let plan = services.iter().filter_map(|new| Some(Plan::within(old(&new.key)?, new)));
        let plan = Plan { ops: plan.flat_map(|plan| plan.ops).collect() };
        if let Err(failure) = self.tables.apply(&plan) {
            tracing::error!("servers' health is not in force yet: {failure}");
            self.health.again(services.iter().map(|service| service.key));
        } else {
            self.reset_connections();
        }
        self.tell_tracked();
    }

    /// Of servers that failed, where their services say so. To be called when they get no new ones.
    fn reset_connections(&mut self) {
        let failed = self.health.failed();
        if failed.is_empty() {
            return;
        }
        let names = failed.iter().map(|(key, address, port)| format!("{} of {key}", SocketAddr::new(*address, *port)));
        let names = names.take(NAMED).collect::<Vec<_>>().join(", ");
        let names = match failed.len().checked_sub(NAMED) {
            None | Some(0) => names,
            Some(more) => format!("{names} and {}", count(more, "more server")),
        };
        let mut begin = || -> Result<()> {
            let mut servers = Vec::new();
            for server in &failed {
                servers.extend(self.tables.allow_resets(server)?);
            }
            let resetter = match self.resetter.take() {
                Some(resetter) => resetter,
                None => Resetter::start(KernelStore::new(&self.kernel)?)?,
            };
            self.resetter.insert(resetter).reset(names.clone(), servers);
            Ok(())
        };
        match begin() {
            Ok(()) => tracing::info!("the connections of {names} are reset"),
            Err(failure) => tracing::error!("the connections of {names} are not reset: {failure}"),
        }
    }

    /// Zeroes all counters, or those of the service of this name and its servers.
    pub fn zero(&mut self, name: Option<&str>) -> Result<Changed> {
        let service = name.map(|name| naming::service(&self.model, name)).transpose()?;
        let key = service.map(|service| service.key);
        self.tables.zero(key.as_ref(), &self.rates)?;
        let what =
            key.map_or_else(|| "all counters".to_owned(), |key| format!("the counters of {key} and its servers"));
        Ok(Changed { generation: self.generation, operations: vec![format!("zeroed {what}")], notes: Vec::new() })
    }

    /// Says that it is ready.
    pub fn say_ready(&self, socket: &Path) {
        let services = self.model.services();
        tracing::info!(
            event = "ready",
            generation = self.generation,
            services = services.len(),
            servers = services.iter().map(|service| service.servers.len()).sum::<usize>(),
            "ready: {}; control socket {}",
            self.summary(),
            socket.display()
        );
    }

    /// What it does, for people.
    pub fn summary(&self) -> String {
        let services = self.model.services();
        let servers = count(services.iter().map(|s| s.servers.len()).sum(), "server");
        let used = self.interfaces.all().map(|(_, u)| format!("{} ({})", u.attachment.interface, u.attachment.path));
        let on = used.collect::<Vec<_>>().join(", ");
        let on = if on.is_empty() { "no interface yet".to_owned() } else { on };
        format!("forwarding {} to {servers} on {on}", count(services.len(), "service"))
    }

    /// What changed in the network is carried into the tables. What cannot be is told, and tried again with the next change.
    pub fn network_changed(&mut self, update: &Update) {
        let outcome = self.carry(update);
        self.network_followed(outcome);
    }

    /// It is time for [`Self::leaves_at`].
    pub fn leave(&mut self) {
        let outcome = self.follow_network(false);
        self.network_followed(outcome);
    }

    fn network_followed(&mut self, outcome: Result<()>) {
        self.problem = outcome.err().map(|failure| {
            tracing::error!("following a change of the network: {failure}");
            Problem::new("network", failure.to_string(), "it is tried again with the next change")
        });
    }

    /// When virtual addresses that were given up are not this host's any more, for the packet path either.
    pub fn leaves_at(&self) -> Option<Instant> {
        self.failover.deadline()
    }

    fn carry(&mut self, update: &Update) -> Result<()> {
        if !update.changes.is_empty() {
            self.tables.ways_changed()?;
        }
        for (ip, hop) in &update.hops {
            let (up, why) = network::reached(hop);
            tracing::info!(
                event = "server", address = %ip, up, why,
                "the next hop of {ip}: {:?} by interface {}", hop.state, hop.ifindex
            );
            self.events.tell(Event::Server { address: ip.to_string(), up, why: why.to_owned() });
            set_hop(&mut self.kernel, &mut self.tables, *ip, hop)?;
        }
        let beyond = |change: &Change| !matches!(change, Change::Neighbour(..));
        if !update.changes.iter().any(beyond) && self.problem.is_none() {
            return Ok(());
        }
        if update.changes.iter().any(|change| matches!(change, Change::AddressGone(..) | Change::LinkGone(_))) {
            self.vips.hold()?;
        }
        if update.changes.iter().any(|change| matches!(change, Change::Link(_))) {
            self.vips.renew();
        }
        self.follow_network(false)
    }

    /// This host's addresses, and the interfaces: known to the tables before programs see their packets.
    fn follow_network(&mut self, strictly: bool) -> Result<()> {
        self.hold_mark_device()?;
        let snapshot = snapshot(self.network.watcher())?;
        let mut local = network::local(&snapshot, &config::virtual_addresses(&self.model));
        self.health.addresses(local.iter().copied().collect());
        local.extend(self.failover.left(&local));
        self.tables.set_local(local)?;
        self.tables.set_local_nets(&snapshot.local_nets())?;
        let names = snapshot.links.values().map(|link| (link.name.clone(), link.index));
        self.tables.set_interfaces(names.collect())?;
        let planned = self.interfaces.planned(&self.model, &snapshot);
        let xdp = with_xdp(&self.instance)?;
        let marked = self.model.settings().mark_device_inside();
        let own = self.interfaces.own(marked.as_deref());
        self.tables.set_links(network::links(&planned, &xdp, own, &snapshot))?;
        self.interfaces.follow(&mut self.kernel, &self.instance, &self.model, &snapshot, strictly)?;
        let xdp = with_xdp(&self.instance)?;
        let own = self.interfaces.own(marked.as_deref());
        let links = network::links(&self.interfaces.indexes(), &xdp, own, &snapshot);
        let name = |index: &u32| snapshot.links.get(index).map(|link| link.name.clone());
        let taken = links.iter().filter_map(|(index, facts)| Some((name(index)?, facts.virtual_macs.clone())));
        let taken = taken.collect();
        self.tables.set_links(links)?;
        self.failover.taken(taken);
        self.inform_suspicions(&snapshot);
        self.settle_sources()?;
        self.show_ways(&self.model);
        if strictly { self.release_mark_device() } else { Ok(()) }
    }

    /// The device that marks lead packets to, with room for whatever comes by the interfaces in use.
    fn hold_mark_device(&mut self) -> Result<()> {
        let settings = self.model.settings();
        let (Some(name), Some(inside)) = (settings.mark_device.clone(), settings.mark_device_inside()) else {
            return Ok(());
        };
        let snapshot = snapshot(self.network.watcher())?;
        let used = self.interfaces.planned(&self.model, &snapshot);
        let used = snapshot.links.values().filter(|link| used.contains(&link.index) && link.name != inside);
        let mtu = used.map(|link| link.mtu).max().unwrap_or(ETHERNET_MTU);
        let device = MarkDevice { name: &name, inside: &inside, instance: self.instance.name() };
        if device.hold(mtu)? {
            tracing::info!("made the device {name} for `ip rule fwmark`, whose packets come out of {inside}");
            self.network.watcher().refresh()?;
        }
        Ok(())
    }

    /// Removes a device of that kind that is not wanted.
    fn release_mark_device(&mut self) -> Result<()> {
        let gone = mark_device::release(self.instance.name(), self.model.settings().mark_device.as_deref())?;
        for name in &gone {
            tracing::info!("removed the device {name}, which is not wanted any more");
        }
        if !gone.is_empty() {
            self.network.watcher().refresh()?;
        }
        Ok(())
    }

    fn set_destinations(&mut self) -> Result<()> {
        let mut servers = config::servers(&self.model);
        servers.extend(self.probed.addresses());
        self.network.set_destinations(&servers)?;
        // All, not only the new ones: a server that came back has a new place in the tables.
        for (ip, hop) in self.network.hops() {
            set_hop(&mut self.kernel, &mut self.tables, *ip, hop)?;
        }
        Ok(())
    }

    /// What comes now and then.
    pub fn tidy(&mut self) {
        if !self.health.is_settled() {
            self.settle_health();
        }
        self.health.write();
        if let Err(failure) = self.tables.collect() {
            tracing::error!("freeing what removed servers held: {failure}");
        }
        if let Err(failure) = self.tables.defend() {
            tracing::error!("defence against floods: {failure}");
        }
        if let Err(failure) = self.tables.pace() {
            tracing::error!("weights of servers that start slowly: {failure}");
        }
        if let Err(failure) = self.suspect() {
            tracing::error!("looking for what connections show: {failure}");
        }
    }

    /// What connections and other hosts' ARP show. Of what is known to be down nothing more need be said.
    fn suspect(&mut self) -> Result<()> {
        let shown = self.seen.suspected();
        let members = self.tables.members(&shown.iter().map(|(path, _)| path.server).collect());
        let (networks, view) = (self.seen.networks(), self.health.view());
        let leads = |state| matches!(state, NextHopState::Resolved | NextHopState::Local);
        let reached: HashSet<_> = match shown.is_empty() {
            true => HashSet::new(),
            false => self.network.hops().filter(|(_, hop)| leads(hop.state)).map(|(ip, _)| *ip).collect(),
        };
        let mut all = Vec::new();
        for (path, witness) in shown {
            let Some((key, address, port)) = members.get(&path.server) else { continue };
            let found = self.model.service(key).and_then(|service| service.server(*address, *port));
            let Some(server) = found.filter(|s| reached.contains(address) && !view.is_down(key, s)) else { continue };
            let network = path.near.then(|| networks.shared(*address, witness.example.src)).flatten();
            let director = self.tables.source_towards(*address);
            all.push(judge(&About { service: *key, server, director, network }, &witness));
        }
        let claims = self.suspicions.heard();
        if !claims.is_empty() {
            self.suspicions.claimed(&claims, self.network.watcher().snapshot()?, &config::servers(&self.model));
        }
        self.suspicions.follow(all);
        self.shown.change(|shown| shown.suspected = self.suspicions.names());
        Ok(())
    }

    /// What suspicions need to know of the network.
    fn inform_suspicions(&mut self, snapshot: &Snapshot) {
        let on_link = |a: &&Address| a.prefix < if a.ip.is_ipv6() { 128 } else { 32 } && !a.ip.is_loopback();
        let networks = snapshot.addresses.iter().filter(on_link).map(|a| (a.ip, a.prefix)).collect();
        self.seen.set_networks(Networks(networks));
        // Of those that virtual routers have these hear, who know about more than one master.
        let routers = self.model.failover().routers.iter();
        let theirs: BTreeSet<_> = routers.flat_map(|r| r.all_addresses()).map(|address| address.address).collect();
        let all = config::virtual_addresses(&self.model).into_iter().map(|(ip, _)| ip);
        self.suspicions.listen(&self.interfaces.indexes(), &all.filter(|ip| !theirs.contains(ip)).collect());
    }

    /// If changes of the network that came in are in the tables, packets may rely on it.
    pub fn say_followed(&mut self) {
        if self.problem.is_none()
            && let Err(failure) = self.tables.ways_followed()
        {
            tracing::debug!("packets go on asking for their ways: {failure}");
        }
    }

    /// New virtual addresses are announced on all interfaces in use.
    pub fn announce(&mut self) {
        if self.vips.is_due() {
            let inside = self.model.settings().mark_device_inside();
            let own = self.interfaces.own(inside.as_deref());
            let all = self.interfaces.all().map(|(_, used)| used.attachment.interface.as_str());
            self.vips.announce(all.filter(|name| ![own.marked, own.probes].contains(&Some(name))));
        }
    }

    /// Carries a Plan out, with all that follows from it.
    fn go(&mut self, plan: &Plan, interfaces_differ: bool) -> Result<()> {
        self.tables.apply(plan)?;
        self.set_destinations()?;
        self.follow_network(interfaces_differ)?;
        self.vips.follow(&self.model)?;
        self.mailer.follow(&self.model)?;
        self.failover.follow(self.model.failover())?;
        self.follow_sync()
    }

    /// Connections are synchronised as the Model says, or not.
    fn follow_sync(&mut self) -> Result<()> {
        let sync = self.model.failover().synchronised();
        self.tables.set_sync(sync)?;
        self.sync.follow(sync, &self.kernel)
    }

    /// Virtual routers hear what is known of services and sessions of BFD that they track.
    fn tell_tracked(&mut self) {
        let failover = self.model.failover();
        let tracks = failover.routers.iter().map(|r| &r.track).chain(failover.groups.iter().map(|g| &g.track));
        let up = |name: &String| {
            let key = ServiceKey::parse(name);
            key.and_then(|key| self.model.service(&key)).is_some_and(|service| self.health.has_quorum(service))
        };
        let names = tracks.flat_map(|track| &track.services).map(|tracked| tracked.name.clone());
        let (services, sessions) = (names.filter(up).collect(), self.health.sessions(failover));
        self.failover.tracked(Tracked { services, sessions });
    }

    /// The virtual routers.
    pub fn virtual_routers(&self) -> Vec<dirigent_api::VirtualRouter> {
        self.failover.routers()
    }

    /// Virtual routers give way, or take part again.
    pub fn hand_over(&self, router: Option<&str>, back: bool) -> Result<Changed> {
        let operations = self.failover.hand_over(router, back)?;
        Ok(Changed { generation: self.generation, operations, notes: Vec::new() })
    }

    /// What would happen to virtual routers.
    pub fn rehearse(
        &self,
        router: Option<&str>,
        what_if: dirigent_failover::WhatIf,
    ) -> Result<Vec<dirigent_api::Rehearsal>> {
        self.failover.rehearse(router, what_if)
    }

    /// For the API.
    pub fn status(&mut self) -> Result<Status> {
        let reader = Reader::open(&self.instance)?;
        let snapshot = snapshot(self.network.watcher())?;
        let interface = |(index, used): (&u32, &super::interfaces::Used)| dirigent_api::Interface {
            name: used.attachment.interface.clone(),
            index: *index,
            path: used.attachment.path.to_string(),
            reasons: used.why.iter().chain([&used.attachment.reason]).cloned().collect(),
        };
        Ok(Status {
            daemon: Some(Daemon {
                pid: std::process::id(),
                uptime_s: self.since.elapsed().as_secs(),
                config: self.place(),
                generation: self.generation,
                drift: self.drift(),
                took_over: self.kernel.took_over(),
            }),
            interfaces: self.interfaces.all().map(interface).collect(),
            virtual_addresses: vip::report(&self.model, &snapshot),
            virtual_routers: self.failover.routers(),
            synchronisation: self.sync.report(),
            problems: self.problems()?,
            ..reader.status()?
        })
    }
}

/// A server on this host gets packets only once its answers are seen.
fn set_hop(kernel: &mut Kernel, tables: &mut Tables, ip: IpAddr, hop: &NextHop) -> Result<()> {
    if hop.state == NextHopState::Local {
        kernel.see_answers(TcKind::Auto)?;
    }
    tables.set_hop(ip, hop)
}
