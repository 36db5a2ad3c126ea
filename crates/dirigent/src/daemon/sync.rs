//! Synchronisation of connections with other directors, as the director has it. It runs on a thread of its own ([`runner`]).

mod exchange;
mod origins;
mod runner;
mod tables;
mod view;

pub use origins::forget;

use super::tables::Seen;
use crate::failure::{Failure, Result};
use dirigent_api::{Problem, Synchronisation};
use dirigent_config::failover::Sync as Config;
use dirigent_datapath::control::KernelStore;
use dirigent_datapath::kernel::{Kernel, News};
use runner::{Order, Runner};
use std::time::{SystemTime, UNIX_EPOCH};
use tables::Tables;
use tokio::sync::mpsc;
use view::View;
pub use view::View as SyncView;

/// Synchronisation, on or off.
pub struct Sync {
    instance: String,
    /// The tables were there before this daemon.
    took_over: bool,
    seen: Seen,
    view: View,
    /// The thread; none as long as there is nothing to do.
    orders: Option<mpsc::UnboundedSender<Order>>,
    config: Option<Config>,
}

impl Sync {
    /// Nothing yet.
    pub fn new(instance: &str, took_over: bool, seen: Seen) -> Self {
        let (instance, view) = (instance.to_owned(), View::default());
        Self { instance, took_over, seen, view, orders: None, config: None }
    }

    /// It becomes what this says.
    pub fn follow(&mut self, config: Option<&Config>, kernel: &Kernel) -> Result<()> {
        if self.config.as_ref() == config {
            return Ok(());
        }
        if self.orders.is_none() {
            self.start(kernel)?;
        }
        self.config = config.cloned();
        if let Some(orders) = &self.orders {
            // It ends with this, or by a panic that was reported.
            let _ = orders.send(Order::Follow(config.cloned().map(Box::new)));
        }
        Ok(())
    }

    fn start(&mut self, kernel: &Kernel) -> Result<()> {
        let fail = |e| Failure::io("starting synchronisation", &e);
        let (store, news) = (KernelStore::new(kernel)?, News::of(kernel)?);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let origins = origins::Origins::open(&self.instance, self.took_over, boot)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let (orders, ordered) = mpsc::unbounded_channel();
        let (view, seen) = (self.view.clone(), self.seen.clone());
        let work = move || {
            runtime.block_on(async move {
                match Runner::new(news, Tables::new(store, origins, seen), boot, view) {
                    Ok(runner) => runner.run(ordered).await,
                    Err(failure) => tracing::error!("synchronisation: {failure}"),
                }
            });
        };
        std::thread::Builder::new().name("sync".into()).spawn(work).map_err(fail)?;
        self.orders = Some(orders);
        Ok(())
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<Problem> {
        self.config.as_ref()?;
        if self.orders.as_ref().is_some_and(mpsc::UnboundedSender::is_closed) {
            let what = "connections are not synchronised any more";
            return Some(Problem::new("sync", what, "restart the daemon, and report its log please"));
        }
        self.view.problem()
    }

    /// What it shows.
    pub fn view(&self) -> SyncView {
        self.view.clone()
    }

    /// For the status.
    pub fn report(&self) -> Option<Synchronisation> {
        self.config.as_ref().map(|config| self.view.report().unwrap_or_else(|| exchange::configured(config)))
    }
}
