//! The thread that makes checks: one machine for each, one task for each attempt under way.
//!
//! It knows neither services nor tables. What changes about a check it tells the director's task, and nothing else: the
//! rest of ten thousand results a second stays here.

use super::attempt::{self, Late, Tools};
use super::bfd::{Heard, Sessions};
use super::job::Job;
use super::scripts::Scripts;
use super::ways::Ways;
use crate::failure::{Failure, Result};
use dirigent_config::health::Probe;
use dirigent_health::{Actions, Attempt, Finding, Health, Machine, Outcome, Settings, Why};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinError, JoinSet};

/// Names a job between director and checker.
pub type JobId = u64;

/// The clock of the runtime ticks in milliseconds; nothing is gained by looking at what is due more often.
const TICK: Duration = Duration::from_millis(1);

/// What the director wants.
pub enum Order {
    /// This check is made from now on; this was known of it before.
    Begin(JobId, Arc<Job>, Option<Outcome>),
    /// It is no more.
    End(JobId),
    /// This host's addresses.
    Addresses(HashSet<IpAddr>),
    /// This is tried once, now, whatever is made else; not scripts and the like.
    Once(Box<Job>, oneshot::Sender<Outcome>),
    /// Something passive casts doubt on a server: what checks it does so at once.
    Suspect(IpAddr),
}

/// A check is another than before.
#[derive(Debug)]
pub struct News {
    /// Which.
    pub id: JobId,
    /// Up, or why not; and what it says about the weight.
    pub finding: Finding,
    /// Whether that is known, or only taken for so until the first result.
    pub known: bool,
    /// When it came to be known.
    pub at: Instant,
}

/// The checker, as the director has it.
pub struct Checker {
    orders: mpsc::UnboundedSender<Order>,
    /// What changed.
    pub news: mpsc::UnboundedReceiver<News>,
}

impl Checker {
    /// Starts the thread. It ends when this is dropped.
    pub fn start(scripts: Scripts, ways: Ways) -> Result<Self> {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (tell, news) = mpsc::unbounded_channel();
        let fail = |e| Failure::io("starting health checks", &e);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let run = move || runtime.block_on(run(ordered, tell, Tools::new(scripts, ways)));
        std::thread::Builder::new().name("checks".into()).spawn(run).map_err(fail)?;
        Ok(Self { orders, news })
    }

    /// For who tells it more.
    pub fn orders(&self) -> mpsc::UnboundedSender<Order> {
        self.orders.clone()
    }

    /// Tells the checker.
    pub fn order(&self, order: Order) {
        // It only ends with this, or by a panic that was reported.
        let _ = self.orders.send(order);
    }
}

/// A job with its machine.
struct Entry {
    job: Arc<Job>,
    machine: Machine,
    running: Option<Running>,
    /// Which of the deadlines in the heap is the last.
    turn: u64,
}

/// An attempt under way.
struct Running {
    task: AbortHandle,
    number: u64,
    late: Late,
}

struct State {
    entries: HashMap<JobId, Entry>,
    /// Deadlines; those that are not of the entry's last turn are stale.
    due: BinaryHeap<Reverse<(Instant, JobId, u64)>>,
    attempts: JoinSet<(JobId, u64, Outcome)>,
    sessions: Sessions,
    addresses: HashSet<IpAddr>,
    tools: Tools,
    /// Where news go, each as soon as it is known: what else has come is yet to be looked at, and takes its time.
    tell: mpsc::UnboundedSender<News>,
}

impl Entry {
    /// The machine's deadline is reached. An attempt that ends by it may have more to say than that.
    fn on_deadline(&mut self, at: Instant, now: Instant) -> Actions {
        if self.machine.is_running()
            && let Some(Running { task, number, late }) = &self.running
            && let Some(why) = late.take()
        {
            task.abort();
            return self.machine.on_result(at, *number, Err(why), fastrand::u64(..));
        }
        self.machine.on_deadline(now.max(at), fastrand::u64(..))
    }
}

async fn run(mut orders: mpsc::UnboundedReceiver<Order>, tell: mpsc::UnboundedSender<News>, tools: Tools) {
    let (heard, mut packets) = mpsc::channel(1024);
    let mut state = State {
        entries: HashMap::new(),
        due: BinaryHeap::new(),
        attempts: JoinSet::new(),
        sessions: Sessions::new(heard),
        addresses: HashSet::new(),
        tools,
        tell,
    };
    loop {
        let next = state.due.peek().map(|Reverse((at, ..))| *at);
        let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => state.obey(order),
                None => return,
            },
            Some(done) = state.attempts.join_next() => state.done(done),
            Some(packet) = packets.recv() => state.hear(packet),
            () = tokio::time::sleep_until(next.into()) => state.look(),
        }
        // What has come meanwhile, before anything is waited for.
        while let Ok(order) = orders.try_recv() {
            state.obey(order);
        }
        while let Some(done) = state.attempts.try_join_next() {
            state.done(done);
        }
    }
}

impl State {
    fn obey(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Begin(id, job, known) => {
                let mut machine = Machine::new(Settings::from(&job.check));
                if let Some(known) = known {
                    let _ = machine.on_told(now, known);
                }
                let may = self.may_run(&job);
                match &job.check.probe {
                    // A neighbour is not asked: the session tells.
                    Probe::Bfd(bfd) => {
                        if let Err(e) = self.sessions.begin(id, &job, bfd, !may, now) {
                            tracing::error!("the check {} is not made: {e}", job.name());
                        }
                    }
                    _ => machine.start(now, fastrand::u64(..)),
                }
                if !may {
                    let _ = machine.pause();
                }
                self.entries.insert(id, Entry { job, machine, running: None, turn: 0 });
                self.schedule(id);
            }
            Order::End(id) => {
                self.sessions.end(id);
                if let Some(running) = self.entries.remove(&id).and_then(|entry| entry.running) {
                    running.task.abort();
                }
            }
            Order::Addresses(addresses) => {
                self.addresses = addresses;
                for id in self.entries.keys().copied().collect::<Vec<_>>() {
                    self.rest_or_go_on(id, now);
                }
            }
            Order::Once(job, told) => {
                let late = Late::default();
                let tools = self.tools.with(late.clone());
                tokio::spawn(async move {
                    let made = tokio::time::timeout(job.check.pace.timeout, attempt::make(&job, None, &tools)).await;
                    // Nobody waits any more: then it was for nothing.
                    let _ = told.send(made.unwrap_or_else(|_| Err(late.take().unwrap_or(Why::TIMEOUT))));
                });
            }
            Order::Suspect(server) => {
                let those = self.entries.iter().filter(|(_, entry)| entry.job.server() == server);
                for id in those.map(|(id, _)| *id).collect::<Vec<_>>() {
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.machine.suspect(now);
                    }
                    self.schedule(id);
                }
            }
        }
    }

    fn may_run(&self, job: &Job) -> bool {
        job.needs.is_none_or(|address| self.addresses.contains(&address))
    }

    fn rest_or_go_on(&mut self, id: JobId, now: Instant) {
        let Some(job) = self.entries.get(&id).map(|entry| entry.job.clone()) else { return };
        let may = self.may_run(&job);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match (may, entry.machine.is_paused()) {
            (true, true) if matches!(entry.job.check.probe, Probe::Bfd(_)) => self.sessions.hold_down(id, false, now),
            (true, true) => entry.machine.resume(now, fastrand::u64(..)),
            (false, false) => {
                let actions = entry.machine.pause();
                self.sessions.hold_down(id, true, now);
                self.act(id, actions);
            }
            _ => return,
        }
        self.schedule(id);
    }

    /// Enters the machine's deadline.
    fn schedule(&mut self, id: JobId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.turn += 1;
        if let Some(at) = self.sessions.deadline(id).or_else(|| entry.machine.deadline()) {
            self.due.push(Reverse((at, id, entry.turn)));
        }
    }

    /// Deals with what is due.
    fn look(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, ..))) = self.due.peek()
            && *at <= now + TICK
        {
            let Some(Reverse((at, id, turn))) = self.due.pop() else { return };
            let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.turn == turn) else { continue };
            let actions = match self.sessions.on_deadline(id, now.max(at)) {
                Some(told) => told.map(|told| entry.machine.on_told(now, told)).unwrap_or_default(),
                None => entry.on_deadline(at, now),
            };
            self.act(id, actions);
            self.schedule(id);
        }
    }

    /// A packet of BFD's.
    fn hear(&mut self, packet: Heard) {
        let now = Instant::now();
        let Some((id, told)) = self.sessions.hear(&packet, now) else { return };
        if let (Some(told), Some(entry)) = (told, self.entries.get_mut(&id)) {
            let actions = entry.machine.on_told(now, told);
            self.act(id, actions);
        }
        self.schedule(id);
    }

    fn done(&mut self, done: std::result::Result<(JobId, u64, Outcome), JoinError>) {
        let (id, number, outcome) = match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => return,
            // A fault of ours: the machine's timeout will call it a failure.
            Err(error) => return tracing::error!("a health check: {error}"),
        };
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let actions = entry.machine.on_result(Instant::now(), number, outcome, fastrand::u64(..));
        self.act(id, actions);
        self.schedule(id);
    }

    fn act(&mut self, id: JobId, actions: Actions) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if actions.abandon
            && let Some(running) = entry.running.take()
        {
            running.task.abort();
        }
        if let Some(why) = actions.failed {
            // Changes are told by the director, with what follows from them.
            if entry.job.check.log_failures && actions.change.is_none() {
                let check = entry.job.name();
                tracing::info!(event = "check_failed", check, %why, "the check {check} failed: {why}");
            } else {
                tracing::debug!("the check {} failed: {why}", entry.job.name());
            }
        }
        if actions.change.is_some() || actions.weighed {
            let known = entry.machine.health() != Health::Unknown;
            // Nobody hears it: then the orders end, too.
            let _ = self.tell.send(News { id, finding: Finding::from(&entry.machine), known, at: Instant::now() });
        }
        if let Some(Attempt { number, part }) = actions.probe {
            let late = Late::default();
            let (job, tools) = (entry.job.clone(), self.tools.with(late.clone()));
            let attempt = async move { (id, number, attempt::make(&job, part, &tools).await) };
            entry.running = Some(Running { task: self.attempts.spawn(attempt), number, late });
        }
    }
}
