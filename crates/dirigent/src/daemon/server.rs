//! The control API: HTTP with JSON. Questions about tables are answered from the tables; everything that the daemon
//! knows or does goes through its own task, one after the other. The handlers and the API's description are one
//! definition: what is not described is not served. Beside it are the files of the web page, which asks the API.

mod accept;
mod browser;
mod events;
mod linger;
mod listen;
mod metrics;
mod owner;
mod page;
mod peer;
mod read;
mod refused;
mod tls;
mod trace;
mod write;

pub use accept::Listeners;
pub use listen::{group, listen, port};
pub use peer::Operators;
pub use tls::Tls;

use super::director::{Asked, Edit};
use super::doctor::{Learned, Subject};
use super::events::Events;
use super::health::View;
use super::metrics::Sources;
use super::rates::Rates;
use super::trace::Tracing;
use crate::failure::{Failure, Result};
use crate::report::Reader;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use axum::{Json, Router};
use dirigent_api::{
    Changed, Configuration, Document, Drained, IpvsadmDone, Past, Rehearsal, ServerName, ServiceSpec, Status, TraceOf,
    VirtualRouter, path,
};
use dirigent_datapath::kernel::Instance;
use dirigent_failover::WhatIf;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long the last answers may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Largest body of a request, bytes: 10,000 services with 10 servers each are 9 MB.
const LARGEST: usize = 64 << 20;
/// How many read tables at once: they may be large, and each answer is held in memory.
const READERS: usize = 4;

/// What only the daemon's own task can answer.
pub enum Ask {
    /// How it is doing.
    Status(oneshot::Sender<Result<Status>>),
    /// What is configured, or what the file says.
    Configuration {
        /// The latter.
        file: bool,
        /// The answer.
        to: oneshot::Sender<Result<Configuration>>,
    },
    /// What a service is configured with.
    Spec(String, oneshot::Sender<Result<ServiceSpec>>),
    /// What lists call a server.
    Name(ServerName, oneshot::Sender<Result<ServerName>>),
    /// So many of the latest changes.
    History(usize, oneshot::Sender<Result<Vec<Past>>>),
    /// Change what is configured.
    Change(Asked, Change, oneshot::Sender<Result<Changed>>),
    /// Do what rules of ipvsadm say.
    Ipvsadm(Asked, Vec<String>, oneshot::Sender<Result<IpvsadmDone>>),
    /// Zero the counters of everything or of the service of this name.
    Zero(Option<String>, oneshot::Sender<Result<Changed>>),
    /// Begin (true) or end the drain of a server.
    Drain(Asked, ServerName, bool, oneshot::Sender<Result<Drained>>),
    /// The virtual routers.
    Failover(oneshot::Sender<Result<Vec<VirtualRouter>>>),
    /// Virtual routers give way, or take part again.
    HandOver {
        /// Which, with its group; none: all.
        router: Option<String>,
        /// The latter.
        back: bool,
        /// The answer.
        to: oneshot::Sender<Result<Changed>>,
    },
    /// What would happen to them.
    Rehearse {
        /// Which, with its group; none: all.
        router: Option<String>,
        /// What is imagined.
        what_if: WhatIf,
        /// The answer.
        to: oneshot::Sender<Result<Vec<Rehearsal>>>,
    },
    /// Make the way for an examination, of everything or of what is called so.
    Examine(Option<String>, oneshot::Sender<Result<Subject>>),
    /// Trace packets.
    Trace(TraceOf, oneshot::Sender<Result<Tracing>>),
    /// It is over, and that is what it brought.
    Examined(Learned),
    /// Remove everything, and end.
    Detach(oneshot::Sender<Result<Changed>>),
}

/// A change of what is configured.
pub enum Change {
    /// Read the file again.
    Reload {
        /// Drop what was changed at runtime.
        replace: bool,
    },
    /// Become what a document says.
    Apply(Document),
    /// Go back.
    RollBack {
        /// To this generation; none: to before the last change.
        to: Option<u64>,
    },
    /// Keep what was changed at runtime over a reboot.
    Save,
    /// One service or server.
    Edit(Edit),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload { replace: false } => f.write_str("read the configuration again"),
            Self::Reload { replace: true } => f.write_str("read the configuration again, dropping runtime changes"),
            Self::Apply(document) => write!(f, "applying {}", document.name),
            Self::RollBack { to: Some(to) } => write!(f, "going back to generation {to}"),
            Self::RollBack { to: None } => f.write_str("going back to before the last change"),
            Self::Save => f.write_str("saving runtime changes"),
            Self::Edit(edit) => edit.fmt(f),
        }
    }
}

#[derive(Clone)]
struct Shared {
    asks: mpsc::Sender<Ask>,
    instance: Instance,
    rates: Rates,
    events: Events,
    health: View,
    metrics: Sources,
    operators: Operators,
    readers: Arc<Semaphore>,
    /// One examination at a time.
    doctor: Arc<Mutex<()>>,
    /// One trace at a time.
    tracing: Arc<Mutex<()>>,
    /// One scrape at a time: whoever may do nothing but scrape takes no more than one reader's place.
    scrapes: Arc<Semaphore>,
}

/// What answers need.
pub struct Served {
    /// Takes what only the daemon's own task can answer.
    pub asks: mpsc::Sender<Ask>,
    /// Whose tables.
    pub instance: Instance,
    /// How fast they count.
    pub rates: Rates,
    /// What happens.
    pub events: Events,
    /// What lists say of servers' health.
    pub health: View,
    /// What metrics tell beside tables.
    pub metrics: Sources,
    /// Who may read and change the director, beside root.
    pub operators: Operators,
    /// Whether the web page is there.
    pub page: bool,
}

/// The server that runs.
pub struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Lets the answers under way go out, and ends.
    pub async fn end(self) {
        // Both only fail when it has ended already, or hangs: nobody waits for that.
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(LAST_WORDS, self.task).await;
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Dirigent's control API",
        description = "Whoever may open the control socket may read; root and the members of the group `operators` may \
                       change. A change takes `generation`, which makes it fail with 409 if another one is in force, \
                       and `dry_run`."
    ),
    // What all operations may answer is not found by itself.
    components(schemas(dirigent_api::Refusal, dirigent_api::Problem)),
    tags(
        (name = "director", description = "The director as a whole"),
        (name = "services", description = "Virtual services"),
        (name = "servers", description = "Real servers"),
        (name = "connections", description = "Connections"),
        (name = "stats", description = "Counters"),
        (name = "failover", description = "Virtual routers"),
        (name = "config", description = "What is configured, and how it came so"),
    )
)]
struct Description;

/// All that is served, with its description.
fn described() -> (Router<Shared>, OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(read::status))
        .routes(routes!(read::me))
        .routes(routes!(events::events))
        .routes(routes!(events::past_events))
        .routes(routes!(read::services, write::add_service))
        .routes(routes!(read::service, write::put_service, write::patch_service, write::remove_service))
        .routes(routes!(read::spec))
        .routes(routes!(read::servers, write::add_server))
        .routes(routes!(read::server, write::put_server, write::patch_server, write::remove_server))
        .routes(routes!(read::connections))
        .routes(routes!(read::explain))
        .routes(routes!(write::doctor))
        .routes(routes!(read::walk))
        .routes(routes!(trace::trace))
        .routes(routes!(read::stats))
        .routes(routes!(metrics::metrics))
        .routes(routes!(write::zero))
        .routes(routes!(read::configuration))
        .routes(routes!(read::history))
        .routes(routes!(write::reload))
        .routes(routes!(write::apply))
        .routes(routes!(write::roll_back))
        .routes(routes!(write::save))
        .routes(routes!(write::ipvsadm))
        .routes(routes!(write::drain))
        .routes(routes!(write::undrain))
        .routes(routes!(read::failover))
        .routes(routes!(read::rehearse))
        .routes(routes!(write::hand_over))
        .routes(routes!(write::detach))
        .split_for_parts()
}

/// The API in OpenAPI's words.
pub fn openapi() -> OpenApi {
    described().1
}

/// Serves until it is told to end.
pub fn serve(listeners: Listeners, served: Served) -> Running {
    let Served { asks, instance, rates, events, health, metrics, operators, page } = served;
    let shared = Shared {
        asks,
        instance,
        rates,
        events,
        health,
        metrics,
        operators: operators.clone(),
        readers: Arc::new(Semaphore::new(READERS)),
        doctor: Arc::default(),
        tracing: Arc::default(),
        scrapes: Arc::new(Semaphore::new(1)),
    };
    let scraped = metrics::alone(shared.clone());
    let (routes, description) = described();
    let known = Arc::new(refused::Known::of(&description));
    let routes = routes
        .layer(axum::middleware::from_fn_with_state(known, refused::known_parameters))
        .route(path::OPENAPI, get(async move || Json(description)))
        .merge(if page { page::routes() } else { Router::new() })
        .fallback(refused::no_such_path)
        .method_not_allowed_fallback(refused::no_such_method)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), peer::operators_only))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), browser::own_page_only))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(shared);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(accept::serve(listeners, [routes, scraped], operators, stopped));
    Running { stop, task }
}

impl Shared {
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<Result<T>>) -> Ask) -> Result<T> {
        let ending = |_| Failure::new("", "the daemon is ending", "ask again in a moment");
        let (answer, answered) = oneshot::channel();
        self.asks.send(ask(answer)).await.map_err(|e| ending(e.to_string()))?;
        answered.await.map_err(|e| ending(e.to_string()))?
    }

    /// Reads tables aside, for they may be large.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&Reader) -> Result<T> + Send + 'static) -> Result<T> {
        // Never closed.
        let _turn = self.readers.acquire().await;
        let (instance, rates, health) = (self.instance.clone(), self.rates.now(), self.health.clone());
        let task = tokio::task::spawn_blocking(move || read(&Reader::open(&instance)?.with_daemon(rates, health)));
        task.await.map_err(|e| Failure::new("", format!("reading the tables: {e}"), "please report this"))?
    }
}

type Answer<T> = Result<Json<T>, Failure>;
