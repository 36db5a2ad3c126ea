//! Virtual routers, as the director has them. They run on a thread of their own ([`runner`]), beside which a process stands
//! guard over their addresses ([`guard`]).

pub mod guard;
mod hands;
mod kept;
mod locals;
mod machine;
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
use kept::Kept;
use locals::{Left, Locals};
use runner::{Order, Runner};
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::mpsc as answers;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use view::View;

/// How long the thread may take to answer; it never waits for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// All virtual routers.
pub struct Failover {
    instance: String,
    events: Events,
    view: View,
    /// The thread; none as long as there is nothing to do.
    orders: Option<mpsc::UnboundedSender<Order>>,
    config: Config,
    ready: bool,
    services: Option<HashSet<String>>,
    locals: Locals,
    left: Left,
}

impl Failover {
    /// Nothing yet.
    pub fn new(instance: &str, events: Events) -> Self {
        Self {
            instance: instance.to_owned(),
            events,
            view: View::default(),
            orders: None,
            config: Config::default(),
            ready: false,
            services: None,
            locals: Locals::default(),
            left: Left::default(),
        }
    }

    /// Virtual routers become what this says. Before [`Self::ready`] only those begin that a daemon before this one left as
    /// masters.
    pub fn follow(&mut self, config: &Config) -> Result<()> {
        if self.orders.is_none() {
            if config.routers.is_empty() {
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
        self.locals.open(store);
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
        let (instance, events, view) = (self.instance.clone(), self.events.clone(), self.view.clone());
        let locals = self.locals.clone();
        let (began, begun) = answers::channel();
        let work = move || {
            runtime.block_on(async move {
                match Runner::new(&instance, scripts, events, view, locals) {
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
        if let Some(services) = self.services.clone() {
            self.order(Order::Services(services));
        }
        Ok(())
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // It ends with this, or by a panic that was reported.
            let _ = orders.send(order);
        }
    }

    /// Services that have their quorum, of those that are tracked.
    pub fn services(&mut self, up: HashSet<String>) {
        if self.services.as_ref() != Some(&up) {
            self.services = Some(up.clone());
            self.order(Order::Services(up));
        }
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
