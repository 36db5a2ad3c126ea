//! Virtual routers, as the director has them. They run on a thread of their own ([`runner`]), beside which a process stands
//! guard over their addresses ([`guard`]).

mod fifos;
pub mod guard;
mod hands;
mod kept;
mod locals;
mod machine;
mod programs;
mod runner;
mod tracking;
mod view;

pub use machine::undone;

use super::events::Events;
use super::health::scripts::Scripts;
use crate::failure::{Failure, Result};
use dirigent_api::{Problem, Rehearsal, VirtualRouter};
use dirigent_config::failover::Failover as Config;
use dirigent_datapath::control::KernelStore;
use dirigent_failover::WhatIf;
use dirigent_net::Mac;
use kept::Kept;
use locals::{Left, Locals};
use runner::{Order, Runner};
pub use runner::{ROLES, role_name};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc as answers};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use view::View;
pub use view::View as RouterView;

/// Which virtual MACs the packet path takes on which interface. Before it does, the host's own programs would answer with
/// resets what is for services, so that addresses are put on after that.
#[derive(Clone, Debug, Default)]
pub struct Taken(Arc<Mutex<BTreeMap<String, BTreeSet<Mac>>>>);

impl Taken {
    /// Of all interfaces that the packet path is on.
    fn set(&self, all: BTreeMap<String, BTreeSet<Mac>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Whether what is for that MAC is taken, or is for nobody to take.
    fn has(&self, interface: &str, mac: &Mac) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(interface).is_none_or(|macs| macs.contains(mac))
    }
}

/// What virtual routers and the packet path know of each other.
#[derive(Clone, Default)]
pub struct PacketPath {
    taken: Taken,
    locals: Locals,
}

/// How long the thread may take to answer; it never waits for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// All virtual routers.
pub struct Failover {
    instance: String,
    events: Events,
    view: View,
    path: PacketPath,
    /// The thread; none as long as there is nothing to do.
    orders: Option<mpsc::UnboundedSender<Order>>,
    config: Config,
    ready: bool,
    tracked: Option<Tracked>,
    left: Left,
}

/// What is known elsewhere of what virtual routers track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// The services that have their quorum; others have none.
    pub services: HashSet<String>,
    /// Whether sessions of BFD are up, as far as that is known.
    pub sessions: HashMap<String, bool>,
}

impl Failover {
    /// Nothing yet.
    pub fn new(instance: &str, events: Events) -> Self {
        Self {
            instance: instance.to_owned(),
            events,
            view: View::default(),
            path: PacketPath::default(),
            orders: None,
            config: Config::default(),
            ready: false,
            tracked: None,
            left: Left::default(),
        }
    }

    /// Virtual routers become what this says. Before [`Self::ready`] only those begin that a daemon before this one left as
    /// masters.
    pub fn follow(&mut self, config: &Config) -> Result<()> {
        if self.orders.is_none() {
            if config.routers.is_empty() && config.fifos.is_empty() {
                return Ok(());
            }
            self.start()?;
        } else if self.config == *config {
            return Ok(());
        }
        self.config = config.clone();
        self.order(Order::Follow(Box::new(config.clone())));
        Ok(())
    }

    /// What it shows.
    pub fn view(&self) -> RouterView {
        self.view.clone()
    }

    /// Which addresses are this host's for the packet path though the kernel, whose are `held`, says otherwise.
    pub fn left(&mut self, held: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        self.left.look(&self.config, held, Instant::now())
    }

    /// When to look at that again.
    pub fn deadline(&self) -> Option<Instant> {
        self.left.deadline()
    }

    /// The packet path's table, which learns of addresses before they are put on.
    pub fn tell_packet_path(&self, store: KernelStore) {
        self.path.locals.open(store);
    }

    /// The director forwards from now on.
    pub fn ready(&mut self) -> Result<()> {
        self.ready = true;
        if self.orders.is_none() {
            // What a daemon with other virtual routers left.
            for done in Kept::of(&self.instance).release()? {
                tracing::info!("{done}, which no virtual router has any more");
            }
        }
        self.order(Order::Ready);
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let fail = |e| Failure::io("starting virtual routers", &e);
        let scripts = Scripts::start()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let (orders, ordered) = mpsc::unbounded_channel();
        let (instance, events) = (self.instance.clone(), self.events.clone());
        let (view, path) = (self.view.clone(), self.path.clone());
        let (began, begun) = answers::channel();
        let work = move || {
            runtime.block_on(async move {
                match Runner::new(&instance, scripts, events, view, path) {
                    Ok(runner) => {
                        // Who asked waits for it.
                        let _ = began.send(Ok(()));
                        runner.run(ordered).await;
                    }
                    Err(failure) => {
                        let _ = began.send(Err(failure));
                    }
                }
            });
        };
        std::thread::Builder::new().name("failover".into()).spawn(work).map_err(fail)?;
        begun.recv().unwrap_or_else(|_| Err(Failure::new("failover", "its thread ended at once", "")))?;
        self.orders = Some(orders);
        if self.ready {
            self.order(Order::Ready);
        }
        if let Some(tracked) = self.tracked.clone() {
            self.order(Order::Tracked(tracked));
        }
        Ok(())
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // It ends with this, or by a panic that was reported.
            let _ = orders.send(order);
        }
    }

    /// What is known of services and sessions that are tracked.
    pub fn tracked(&mut self, tracked: Tracked) {
        if self.tracked.as_ref() != Some(&tracked) {
            self.tracked = Some(tracked.clone());
            self.order(Order::Tracked(tracked));
        }
    }

    /// The packet path takes these virtual MACs, by interface that it is on.
    pub fn taken(&self, all: BTreeMap<String, BTreeSet<Mac>>) {
        self.path.taken.set(all);
    }

    /// That the thread has ended, which only a fault of ours does.
    pub fn problem(&self) -> Option<Problem> {
        let ended = self.orders.as_ref().is_some_and(mpsc::UnboundedSender::is_closed);
        let what = "virtual routers do not run any more, and this host is master of none; what is listed is past";
        let remedy = "restart the daemon, and report its log please";
        ended.then(|| Problem::new("failover", what, remedy))
    }

    /// For the status.
    pub fn routers(&self) -> Vec<VirtualRouter> {
        self.view.routers()
    }

    fn ask<T>(
        &self,
        router: Option<&str>,
        ask: impl FnOnce(Option<String>, answers::Sender<Result<Vec<T>>>) -> Order,
    ) -> Result<Vec<T>> {
        if self.orders.is_none() {
            return router.map_or_else(|| Ok(Vec::new()), |name| Err(unknown(name)));
        }
        let (to, answer) = answers::channel();
        self.order(ask(router.map(str::to_owned), to));
        let silent = || Failure::new("failover", "virtual routers do not answer", "see the daemon's log");
        answer.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(silent()))
    }

    /// Masters give way, all or one with its group; or take part again. What was done.
    pub fn hand_over(&self, router: Option<&str>, back: bool) -> Result<Vec<String>> {
        self.ask(router, |router, to| Order::HandOver { router, back, to })
    }

    /// What would happen.
    pub fn rehearse(&self, router: Option<&str>, what_if: WhatIf) -> Result<Vec<Rehearsal>> {
        self.ask(router, |router, to| Order::Rehearse { router, what_if, to })
    }

    /// Gives all addresses up, in order: the director is removed.
    pub fn end(&mut self) {
        let (to, done) = answers::channel();
        if self.orders.is_some() {
            self.order(Order::End(to));
            if done.recv_timeout(PATIENCE).is_err() {
                tracing::error!("virtual routers did not end in order");
            }
        }
        self.orders = None;
    }
}

/// Nobody is called so.
fn unknown(name: &str) -> Failure {
    let failure = Failure::new(name, "there is no such virtual router", "`dirigent failover status` names them");
    Failure { code: crate::failure::code::ABSENT, ..failure }
}

/// Milliseconds of the clock that virtual routers and synchronisation go by.
pub fn now_ms() -> u64 {
    kept::now().as_ns() / 1_000_000
}

/// Takes away what a daemon of that name holds, without it. What was done.
pub fn release(instance: &str) -> Result<Vec<String>> {
    Kept::of(instance).release()
}
