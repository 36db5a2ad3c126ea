//! The thread of synchronisation.

use super::exchange::Exchange;
use super::tables::Tables;
use super::view::View;
use crate::daemon::failover::now_ms;
use crate::failure::Result;
use dirigent_api::Problem;
use dirigent_config::failover::Sync as Config;
use dirigent_datapath::control::Flow;
use dirigent_datapath::kernel::News;
use dirigent_net::sync::Waiter;
use std::time::Duration;
use tokio::sync::mpsc;

/// What the director wants.
pub enum Order {
    /// Synchronise so, or not at all.
    Follow(Option<Box<Config>>),
}

/// News that are taken before others have their turn.
const TURN: usize = 4096;
/// Between two reports; what cannot begin is tried again as often.
const REPORT: Duration = Duration::from_secs(1);

/// All that the thread has.
pub struct Runner {
    tables: Tables,
    news: News,
    came: Waiter,
    view: View,
    /// Milliseconds since 1970.
    boot: u64,
    config: Option<Config>,
    exchange: Option<Exchange>,
    /// There may be more news than were taken.
    more: bool,
}

impl Runner {
    /// Needs the runtime that it will run on.
    pub fn new(news: News, tables: Tables, boot: u64, view: View) -> Result<Self> {
        let came = Waiter::on(news.descriptor()?)?;
        Ok(Self { tables, news, came, view, boot, config: None, exchange: None, more: false })
    }

    /// Runs until the director goes.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut report = tokio::time::interval(REPORT);
        loop {
            let now = now_ms();
            let due = self.exchange.as_ref().and_then(|exchange| exchange.due_ms(now));
            let wait = if self.more { 0 } else { due.map_or(1000, |due| due.saturating_sub(now)) };
            let wait = Duration::from_millis(wait);
            let (exchange, came) = (&self.exchange, &self.came);
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Follow(config)) => {
                        self.config = config.map(|config| *config);
                        self.exchange = None;
                        self.begin();
                    }
                    None => return,
                },
                () = heard(exchange) => {}
                () = came.came() => {}
                () = tokio::time::sleep(wait) => {}
                _ = report.tick() => self.report(),
            }
            if let Err(failure) = self.turn() {
                tracing::error!("synchronisation: {failure}");
            }
        }
    }

    fn turn(&mut self) -> Result<()> {
        let mut news: Vec<Flow> = Vec::new();
        self.news.take(TURN, |flow| news.push(flow));
        self.more = news.len() == TURN;
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        exchange.hear(&mut self.tables, now_ms())?;
        if !news.is_empty() {
            exchange.tell(&news, &mut self.tables, now_ms())?;
        }
        exchange.poll(&mut self.tables, now_ms())
    }

    fn begin(&mut self) {
        let Some(config) = &self.config else {
            self.view.set(None);
            return;
        };
        match Exchange::open(config, &mut self.tables, self.boot, now_ms()) {
            Ok(exchange) => {
                self.exchange = Some(exchange);
                self.report();
            }
            Err(failure) => {
                let first = failure.problems.into_iter().next();
                self.view.fail(first.unwrap_or_else(|| Problem::new("sync", "it cannot begin", "see the log")));
            }
        }
    }

    fn report(&mut self) {
        match &mut self.exchange {
            Some(exchange) => self.view.set(Some(exchange.report(&self.tables, now_ms()))),
            None => {
                if self.config.is_some() {
                    self.begin();
                }
            }
        }
    }
}

async fn heard(exchange: &Option<Exchange>) {
    match exchange {
        Some(exchange) => exchange.readable().await,
        None => std::future::pending().await,
    }
}
