//! Health of real servers, as the director has it: which checks are made, what they say, and what is in force because of
//! that. The checks themselves are made on a thread of their own ([`checker`]).

mod attempt;
mod bfd;
mod checker;
mod job;
mod kept;
pub mod scripts;
mod view;
mod ways;

pub use checker::News;
pub use job::{Along, Job};
pub use view::View;
pub use ways::{Way, Ways};

use super::events::Events;
use crate::failure::Result;
use checker::{Checker, JobId, Order};
use dirigent_api::Event;
use dirigent_config::failover::{BfdSession, Failover};
use dirigent_config::health::{Check, OnFailureConnections, Script};
use dirigent_config::layers::health::{Memory, in_force, matters};
use dirigent_config::{Model, Server, Service, ServiceKey};
use dirigent_datapath::kernel::Instance;
use dirigent_health::{Edge, Finding, Outcome, ServerState, Weight, Why};
use kept::Kept;
use scripts::Scripts;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// What is known is written at once, unless that would take more than this part of the time.
const WRITING: u32 = 20;

/// News that are put into force together.
const AT_ONCE: usize = 100_000;

/// What is known of a check.
struct Known {
    job: Arc<Job>,
    finding: Finding,
    /// Whether there was a result, or it is only taken for so until the first.
    sure: bool,
    /// Whether the checker makes it.
    begun: bool,
    /// Whose servers it is about.
    services: BTreeSet<ServiceKey>,
}

/// What a Model comes to with health, and what is to be remembered once it is in force.
pub struct Layered {
    /// In force.
    pub model: Model,
    memories: BTreeMap<ServiceKey, Memory>,
    edges: Vec<(ServiceKey, Edge)>,
}

/// The health of all servers.
pub struct Health {
    checker: Checker,
    scripts: Scripts,
    ways: Ways,
    ids: HashMap<Arc<Job>, JobId>,
    /// The same, for jobs that differ only in when they are made.
    alike: HashMap<Job, JobId>,
    known: HashMap<JobId, Known>,
    /// The checks of the servers of each service whose checks are made, in the Model's order.
    checks: HashMap<ServiceKey, Vec<Vec<JobId>>>,
    next: JobId,
    memories: BTreeMap<ServiceKey, Memory>,
    /// Services whose servers' health the tables do not show yet.
    unsettled: BTreeSet<ServiceKey>,
    /// Servers that have failed and whose connections are to be reset.
    failed: Vec<(ServiceKey, IpAddr, u16)>,
    view: View,
    kept: Kept,
    /// When it was last written, how long that took, and whether it is out of date.
    written: Option<(Instant, Duration)>,
    stale: bool,
}

impl Health {
    /// Starts the threads. What an earlier daemon knew beside the maps that it left holds until a check says otherwise.
    pub fn start(instance: &Instance, took_over: bool) -> Result<Self> {
        let (scripts, ways) = (Scripts::start()?, Ways::default());
        let kept = Kept::of(instance.name());
        let was = if took_over { kept.read()? } else { None };
        let mut health = Self {
            checker: Checker::start(scripts.clone(), ways.clone())?,
            scripts,
            ways,
            ids: HashMap::new(),
            alike: HashMap::new(),
            known: HashMap::new(),
            checks: HashMap::new(),
            next: 0,
            memories: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            failed: Vec::new(),
            view: View::default(),
            kept,
            written: None,
            stale: false,
        };
        if let Some(was) = was {
            health.memories = was.services.into_iter().collect();
            for (job, why, weight) in was.jobs {
                let finding = Finding { why: why.map(Why::new), weight };
                health.remember(Arc::new(job), finding, true);
            }
        }
        Ok(health)
    }

    /// For lists.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// What changed about checks: all that is known by now, which is put into force at once.
    pub async fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        if self.checker.news.recv_many(&mut news, AT_ONCE).await == 0 {
            // The checker's thread has ended, which it told the log: there will be none.
            return std::future::pending().await;
        }
        news
    }

    fn remember(&mut self, job: Arc<Job>, finding: Finding, sure: bool) -> JobId {
        let id = self.next;
        self.next += 1;
        self.ids.insert(job.clone(), id);
        self.alike.insert(job.whenever(), id);
        self.known.insert(id, Known { job, finding, sure, begun: false, services: BTreeSet::new() });
        id
    }

    fn of(&self, job: &Job) -> Option<&Known> {
        let id = self.ids.get(job).or_else(|| self.alike.get(&job.whenever()))?;
        self.known.get(id)
    }

    /// What a check of a server says; and whether that is a result of its own.
    fn finding(&self, service: &Service, server: &Server, job: &Job) -> (Finding, bool) {
        match self.of(job) {
            Some(known) => (known.finding.clone(), known.sure),
            // A server that was down does not come up by having its checks edited.
            None if self.view.is_down(&service.key, server) => {
                let why = Some(Why::of("not checked since its checks were changed"));
                (Finding { why, weight: Weight::Keep }, false)
            }
            None => {
                let why = job.check.start_down.then(|| Why::of("not checked yet"));
                (Finding { why, weight: Weight::Keep }, false)
            }
        }
    }

    /// The servers of a service, whose checks may not be made yet.
    fn expected(&self, service: &Service) -> Vec<ServerState> {
        let state = |server: &Server| {
            let jobs = server.health.checks.iter().map(|check| Job::of(service, server, check));
            ServerState::of(server.weight, jobs.map(|job| self.finding(service, server, &job).0))
        };
        service.servers.iter().map(state).collect()
    }

    /// The same of a service whose checks are made.
    fn states(&self, service: &Service) -> Vec<ServerState> {
        let checks = self.checks.get(&service.key).into_iter().flatten();
        let finding = |id: &JobId| Some(self.known.get(id)?.finding.clone());
        let state = |(server, ids): (&Server, &Vec<_>)| ServerState::of(server.weight, ids.iter().filter_map(finding));
        service.servers.iter().zip(checks).map(state).collect()
    }

    /// What is in force of a Model. Changes nothing: [`Self::enforce`] does when it is in force.
    pub fn over(&self, model: &Model) -> Layered {
        let (mut memories, mut edges, mut over) = (BTreeMap::new(), Vec::new(), model.clone());
        for service in model.services().iter().filter(|service| matters(service)) {
            let mut memory = self.memories.get(&service.key).cloned().unwrap_or_default();
            let (force, edge) = in_force(service, &self.expected(service), &mut memory);
            edges.extend(edge.map(|edge| (service.key, edge)));
            memories.insert(service.key, memory);
            if let Err(error) = over.put_service(force) {
                tracing::error!("the health of {}'s servers cannot be heeded: {error}", service.key);
            }
        }
        Layered { model: over, memories, edges }
    }

    /// A Model is in force from now on: its checks are made, and others no more.
    pub fn enforce(&mut self, configured: &Model, layered: Layered, events: &Events) {
        let Layered { memories, edges, .. } = layered;
        self.memories = memories;
        for known in self.known.values_mut() {
            known.services.clear();
        }
        self.checks.clear();
        for service in configured.services().iter().filter(|service| matters(service)) {
            let mut checks = Vec::with_capacity(service.servers.len());
            for server in &service.servers {
                checks.push(server.health.checks.iter().map(|check| self.begin(service, server, check)).collect());
            }
            self.checks.insert(service.key, checks);
        }
        let sessions: Vec<JobId> = configured.failover().bfd.iter().map(|session| self.track(session)).collect();
        let unused = |(id, k): &(&JobId, &Known)| k.services.is_empty() && !sessions.contains(id);
        let gone: Vec<_> = self.known.iter().filter(unused).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(known) = self.known.remove(&id) {
                self.ids.remove(&known.job);
                // Its successor may have the place.
                if self.alike.get(&known.job.whenever()) == Some(&id) {
                    self.alike.remove(&known.job.whenever());
                }
                self.checker.order(Order::End(id));
            }
        }
        self.unsettled.clear();
        self.stale = true;
        self.view.begin(configured);
        let mut quorums = HashMap::new();
        for service in configured.services().iter().filter(|service| matters(service)) {
            let states = self.states(service);
            self.look(service, &states, events);
            quorums.insert(service.key, self.has_quorum(service));
        }
        self.view.set_quorums(quorums);
        for (key, edge) in edges {
            if let Some(service) = configured.service(&key) {
                self.quorum(service, edge, events);
            }
        }
    }

    /// A check is made from now on, if it is not already.
    fn begin(&mut self, service: &Service, server: &Server, check: &Check) -> JobId {
        let job = Job::of(service, server, check);
        let id = match self.ids.get(&job) {
            Some(id) => *id,
            None => {
                let (finding, sure) = self.finding(service, server, &job);
                self.remember(Arc::new(job), finding, sure)
            }
        };
        if let Some(known) = self.known.get_mut(&id) {
            known.services.insert(service.key);
            if !std::mem::replace(&mut known.begun, true) {
                // What it is only taken for, the first result decides; but down is down until then.
                let was = (known.sure || known.finding.why.is_some()).then(|| told(&known.finding));
                self.checker.order(Order::Begin(id, known.job.clone(), was));
            }
        }
        id
    }

    /// A session that virtual routers look at; a service's check of the same neighbour is the same session.
    fn track(&mut self, session: &BfdSession) -> JobId {
        let job = Job::of_session(session);
        let id = match self.ids.get(&job) {
            Some(id) => *id,
            None => self.remember(Arc::new(job), Finding { why: None, weight: Weight::Keep }, false),
        };
        if let Some(known) = self.known.get_mut(&id)
            && !std::mem::replace(&mut known.begun, true)
        {
            let was = known.sure.then(|| told(&known.finding));
            self.checker.order(Order::Begin(id, known.job.clone(), was));
        }
        id
    }

    /// Whether these sessions are up, as far as it is known.
    pub fn sessions(&self, failover: &Failover) -> HashMap<String, bool> {
        let of = |session: &BfdSession| {
            let known = self.of(&Job::of_session(session)).filter(|known| known.sure)?;
            Some((session.name.clone(), known.finding.why.is_none()))
        };
        failover.bfd.iter().filter_map(of).collect()
    }

    /// Takes news in; they come into force by [`Self::unsettled`].
    pub fn learn(&mut self, news: Vec<News>) {
        for News { id, finding, known: sure, .. } in news {
            let Some(known) = self.known.get_mut(&id) else { continue };
            (known.finding, known.sure) = (finding, sure);
            self.unsettled.extend(known.services.iter().copied());
            self.stale = true;
        }
    }

    /// What is not in force yet: the services as they shall be.
    pub fn unsettled(&mut self, configured: &Model, events: &Events) -> Vec<Service> {
        let keys = std::mem::take(&mut self.unsettled);
        let mut all = Vec::new();
        for service in keys.iter().filter_map(|key| configured.service(key)) {
            let states = self.states(service);
            let (force, edge) = in_force(service, &states, self.memories.entry(service.key).or_default());
            self.look(service, &states, events);
            if let Some(edge) = edge {
                self.view.put_quorum(service.key, edge == Edge::Up);
                self.quorum(service, edge, events);
            }
            all.push(force);
        }
        all
    }

    /// These could not be put into force: it is tried again.
    pub fn again(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        self.unsettled.extend(services);
    }

    /// Whether a service has its quorum; without checks it has.
    pub fn has_quorum(&self, service: &Service) -> bool {
        !matters(service) || self.memories.get(&service.key).cloned().unwrap_or_default().is_up()
    }

    /// Those that failed since this was asked last, and whose services have live connections reset.
    pub fn failed(&mut self) -> Vec<(ServiceKey, IpAddr, u16)> {
        std::mem::take(&mut self.failed)
    }

    /// Whether something waits to be put into force.
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// This host's addresses.
    pub fn addresses(&self, addresses: HashSet<IpAddr>) {
        self.checker.order(Order::Addresses(addresses));
    }

    /// Writes down what is known: a daemon that is killed now leaves it to the next.
    pub fn write(&mut self) {
        if !self.stale || self.written.is_some_and(|(when, took)| when.elapsed() < took * WRITING) {
            return;
        }
        let begun = Instant::now();
        let jobs = self.known.values().filter(|known| known.sure);
        let jobs = jobs.map(|k| ((*k.job).clone(), k.finding.why.as_ref().map(ToString::to_string), k.finding.weight));
        let memories = self.memories.iter().filter(|(_, memory)| **memory != Memory::default());
        let services = memories.map(|(key, memory)| (*key, memory.clone())).collect();
        if let Err(failure) = self.kept.write(jobs.collect(), services) {
            tracing::error!("what is known of servers' health is not kept for the next daemon: {failure}");
        }
        (self.written, self.stale) = (Some((Instant::now(), begun.elapsed())), false);
    }

    /// Tells what changed about a service's servers.
    fn look(&mut self, service: &Service, states: &[ServerState], events: &Events) {
        let Some(checks) = self.checks.get(&service.key) else { return };
        for ((server, state), ids) in service.servers.iter().zip(states).zip(checks) {
            if ids.is_empty() {
                continue;
            }
            let of = |id| self.known.get(id);
            let sure = ids.iter().all(|id| of(id).is_some_and(|known| known.sure));
            let name = |at: usize| ids.get(at).and_then(of).map_or_else(String::new, |known| known.job.name());
            let why = state.down.as_ref().map(|(at, why)| format!("{}: {why}", name(*at)));
            // What is found at the start is no change.
            let Some((was_up, was_sure)) = self.view.put(service.key, server, why.clone(), sure) else { continue };
            if was_up && why.is_some() && service.health.on_failure_connections == OnFailureConnections::Reset {
                self.failed.push((service.key, server.address, server.port));
            }
            match &why {
                Some(why) if !was_up && !was_sure && sure => {
                    said(service, &server.name(), Some(why));
                }
                _ if was_up != why.is_none() => self.tell(service, server, why, events),
                _ => {}
            }
        }
    }

    fn tell(&self, service: &Service, server: &Server, why: Option<String>, events: &Events) {
        let (name, up) = (server.name(), why.is_none());
        said(service, &name, why.as_deref());
        let script = if up { &server.health.notify_up } else { &server.health.notify_down };
        self.notify(script.as_deref(), || format!("server {name} of {}", service.key));
        events.tell(Event::Health { service: service.key.to_string(), server: name, up, why: why.unwrap_or_default() });
    }

    fn quorum(&self, service: &Service, edge: Edge, events: &Events) {
        let up = edge == Edge::Up;
        let sorry = service.health.sorry.as_deref().map(|sorry| std::net::SocketAddr::new(sorry.address, sorry.port));
        let what = match (up, sorry) {
            (true, _) => "has its quorum again".to_owned(),
            (false, Some(sorry)) => format!("has lost its quorum: the sorry server {sorry} serves"),
            (false, None) => "has lost its quorum".to_owned(),
        };
        if up {
            tracing::info!(event = "quorum", service = %service.key, up, "service {} {what}", service.key);
        } else {
            tracing::warn!(event = "quorum", service = %service.key, up, "service {} {what}", service.key);
        }
        let script = if up { &service.health.quorum_up } else { &service.health.quorum_down };
        self.notify(script.as_deref(), || format!("service {}", service.key));
        events.tell(Event::Quorum { service: service.key.to_string(), up });
    }

    fn notify(&self, script: Option<&Script>, of: impl FnOnce() -> String) {
        if let Some(script) = script {
            // Nobody waits for it: the director goes on.
            drop(self.scripts.notify(script, of()));
        }
    }

    /// The director is removed: whom that concerns is told that all is down. To be awaited before the end.
    pub fn farewell(&self, configured: &Model) -> impl Future<Output = ()> + use<> {
        let mut told = Vec::new();
        let mut tell = |script: Option<&Script>, of: String| {
            told.extend(script.map(|script| self.scripts.notify(script, of)));
        };
        for service in configured.services().iter().filter(|service| service.health.notify_at_stop) {
            for server in &service.servers {
                tell(server.health.notify_down.as_deref(), format!("server {} of {}", server.name(), service.key));
            }
            tell(service.health.quorum_down.as_deref(), format!("service {}", service.key));
        }
        async move {
            for one in told {
                // It was logged how it ended.
                let _ = one.await;
            }
        }
    }

    /// Servers of a Model that are checked along the real path, and whether their virtual addresses are IPv6.
    pub fn along(configured: &Model) -> HashSet<(Along, bool)> {
        let checks = configured.services().iter().flat_map(|service| {
            let of = move |server: &'_ Server| {
                let real = server.health.checks.iter().filter(|check| check.target.real_path);
                let jobs = real.map(|check| Job::of(service, server, check));
                jobs.filter_map(|job| Some((job.along?, job.to.is_ipv6()))).collect::<Vec<_>>()
            };
            service.servers.iter().flat_map(of)
        });
        checks.collect()
    }

    /// The ways to them.
    pub fn set_ways(&self, path: Option<Arc<super::ClientsPath>>, to: HashMap<(Along, bool), Way>) {
        self.ways.set(path, to);
    }

    /// Tries single checks.
    pub fn trier(&self) -> Trier {
        Trier(self.checker.orders())
    }

    /// Casts doubt on servers.
    pub fn doubts(&self) -> Doubts {
        Doubts(self.checker.orders())
    }
}

/// Tries checks that no service has.
pub struct Trier(mpsc::UnboundedSender<Order>);

impl Trier {
    /// Once, now.
    pub async fn attempt(&self, job: Job) -> Outcome {
        let ended = || Why::of("health checks have ended");
        let (tell, told) = oneshot::channel();
        self.0.send(Order::Once(Box::new(job), tell)).map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }
}

/// Casts doubt on servers: those that stop to answer are checked at once.
pub struct Doubts(mpsc::UnboundedSender<Order>);

impl Doubts {
    /// On this one.
    pub fn cast(&self, server: IpAddr) {
        tracing::info!("server {server} gets packets of clients and answers none: what checks it does so at once");
        // The checker has ended: then there is nobody to hear of it.
        let _ = self.0.send(Order::Suspect(server));
    }
}

/// Forgets what a director of that name knew.
pub fn forget(instance: &str) -> Result<()> {
    Kept::of(instance).forget()
}

/// A server went up, or down.
fn said(service: &Service, server: &str, why: Option<&str>) {
    let key = service.key;
    match why {
        None => tracing::info!(
            event = "health", service = %key, server, up = true, why = "", "server {server} of {key} is up"
        ),
        Some(why) => tracing::warn!(
            event = "health", service = %key, server, up = false, why, "server {server} of {key} is down: {why}"
        ),
    }
}

/// A finding as a result.
fn told(finding: &Finding) -> dirigent_health::Outcome {
    match &finding.why {
        Some(why) => Err(why.clone()),
        None => Ok(finding.weight),
    }
}
