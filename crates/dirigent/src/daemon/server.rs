//! The control socket: HTTP with JSON. Questions about tables are answered from the tables; everything that the daemon
//! knows or does goes through its own task, one after the other.

use super::rates::Rates;
use crate::failure::{Failure, Result};
use crate::report::Reader;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use dirigent_api::{Changed, Connections, Drained, ServerName, Service, Stats, Status, path};
use dirigent_datapath::kernel::Instance;
use serde::Deserialize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How long the last answers may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What only the daemon's own task can answer.
pub enum Ask {
    /// How it is doing.
    Status(oneshot::Sender<Result<Status>>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<Changed>>),
    /// Zero the counters of everything or of the service of this name.
    Zero(Option<String>, oneshot::Sender<Result<Changed>>),
    /// Begin (true) or end the drain of a server.
    Drain(ServerName, bool, oneshot::Sender<Result<Drained>>),
    /// Remove everything, and end.
    Detach(oneshot::Sender<Result<Changed>>),
}

#[derive(Clone)]
struct Shared {
    asks: mpsc::Sender<Ask>,
    instance: Instance,
    rates: Rates,
}

/// Who asks.
#[derive(Clone, Copy)]
struct Peer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let stream: &UnixStream = stream.io();
        Self { uid: stream.peer_cred().ok().map(|c| c.uid()) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Json(self.refusal())).into_response()
    }
}

/// Opens the socket in place of a dead daemon's. Its group may read; the caller holds the lock.
pub fn listen(socket: &Path, group: Option<&str>) -> Result<UnixListener> {
    let place = || socket.display().to_string();
    let fail = |e: std::io::Error| Failure::io(place(), &e);
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory).map_err(fail)?;
    }
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let group = group.map(|name| {
        let unknown = || Failure::new(place(), format!("there is no group {name}"), "create it, or change `group`");
        nix::unistd::Group::from_name(name).map_err(|e| fail(e.into()))?.ok_or_else(unknown)
    });
    let group = group.transpose()?;
    // Closed to all until its group is right.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket);
    nix::sys::stat::umask(before);
    let listener = listener.map_err(fail)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(socket, None, Some(group.gid.as_raw())).map_err(fail)?;
    }
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660)).map_err(fail)?;
    Ok(listener)
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

/// Serves until it is told to end.
pub fn serve(listener: UnixListener, instance: Instance, rates: Rates, asks: mpsc::Sender<Ask>) -> Running {
    let routes = Router::new()
        .route(path::STATUS, get(status))
        .route(path::SERVICES, get(services))
        .route(path::CONNECTIONS, get(connections))
        .route(path::STATS, get(stats))
        .route(path::ZERO, post(zero))
        .route(path::RELOAD, post(reload))
        .route(path::DRAIN, post(drain))
        .route(path::UNDRAIN, post(undrain))
        .route(path::DETACH, post(detach))
        .with_state(Shared { asks, instance, rates });
    let service = routes.into_make_service_with_connect_info::<Peer>();
    let (stop, stopped) = oneshot::channel::<()>();
    let told = async move {
        let _ = stopped.await;
    };
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(told).await {
            tracing::error!("the control socket: {error}");
        }
    });
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
        let (instance, rates) = (self.instance.clone(), self.rates.clone());
        let task = tokio::task::spawn_blocking(move || read(&Reader::open(&instance)?.with_rates(rates)));
        task.await.map_err(|e| Failure::new("", format!("reading the tables: {e}"), "please report this"))?
    }
}

type Answer<T> = Result<Json<T>, Failure>;

async fn status(State(shared): State<Shared>) -> Answer<Status> {
    shared.ask(Ask::Status).await.map(Json)
}

async fn services(State(shared): State<Shared>) -> Answer<Vec<Service>> {
    shared.read(|reader| reader.services()).await.map(Json)
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn connections(State(shared): State<Shared>, Query(query): Query<Limit>) -> Answer<Connections> {
    shared.read(move |reader| reader.connections(query.limit.unwrap_or(usize::MAX))).await.map(Json)
}

async fn stats(State(shared): State<Shared>) -> Answer<Stats> {
    shared.read(|reader| reader.stats()).await.map(Json)
}

#[derive(Deserialize)]
struct Which {
    service: Option<String>,
}

async fn zero(
    State(shared): State<Shared>,
    Query(which): Query<Which>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Answer<Changed> {
    may_change(peer)?;
    shared.ask(|to| Ask::Zero(which.service, to)).await.map(Json)
}

async fn reload(State(shared): State<Shared>, ConnectInfo(peer): ConnectInfo<Peer>) -> Answer<Changed> {
    may_change(peer)?;
    shared.ask(Ask::Reload).await.map(Json)
}

type Peered = ConnectInfo<Peer>;

async fn drain(State(shared): State<Shared>, ConnectInfo(peer): Peered, body: Json<ServerName>) -> Answer<Drained> {
    may_change(peer)?;
    shared.ask(|to| Ask::Drain(body.0, true, to)).await.map(Json)
}

async fn undrain(State(shared): State<Shared>, ConnectInfo(peer): Peered, body: Json<ServerName>) -> Answer<Drained> {
    may_change(peer)?;
    shared.ask(|to| Ask::Drain(body.0, false, to)).await.map(Json)
}

async fn detach(State(shared): State<Shared>, ConnectInfo(peer): ConnectInfo<Peer>) -> Answer<Changed> {
    may_change(peer)?;
    shared.ask(Ask::Detach).await.map(Json)
}

/// The group of the socket may read; only root and the daemon's own user change anything.
fn may_change(peer: Peer) -> Result<()> {
    let own = nix::unistd::geteuid().as_raw();
    match peer.uid {
        Some(uid) if uid == 0 || uid == own => Ok(()),
        _ => Err(Failure::new("", "only root may change a director", "run it as root")),
    }
}
