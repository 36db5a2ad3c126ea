//! The control socket: HTTP with JSON. Questions about tables are answered from the tables; everything that the daemon
//! knows or does goes through its own task, one after the other.

use super::director::Asked;
use super::rates::Rates;
use crate::failure::{Failure, Result, code};
use crate::report::Reader;
use axum::extract::connect_info::Connected;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use dirigent_api::{
    Changed, Configuration, Connections, Document, Drained, Guard, IpvsadmDone, IpvsadmLines, Past, ServerName,
    Service, Stats, Status, path,
};
use dirigent_datapath::kernel::Instance;
use serde::Deserialize;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How long the last answers may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Largest body of a request, bytes: 10,000 services with 10 servers each are 9 MB.
const LARGEST: usize = 64 << 20;
/// Changes that the history tells unless more are asked for.
const HISTORY: usize = 100;

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
        }
    }
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
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let stream: &UnixStream = stream.io();
        let cred = stream.peer_cred().ok();
        Self { uid: cred.map(|c| c.uid()), pid: cred.and_then(|c| c.pid()) }
    }
}

impl Peer {
    /// For the history.
    fn name(self) -> String {
        let user = |uid| nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
        let name = match self.uid {
            Some(uid) => user(uid).map_or_else(|| format!("user {uid}"), |user| user.name),
            None => "nobody known".to_owned(),
        };
        self.pid.map_or_else(|| name.clone(), |pid| format!("{name}, process {pid}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.code {
            code::STALE => StatusCode::CONFLICT,
            code::KERNEL => StatusCode::FORBIDDEN,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        (status, Json(self.refusal())).into_response()
    }
}

/// A request that cannot be one, with its status: said in JSON as all that is refused.
struct Rejected(StatusCode, Failure);

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        (self.0, Json(self.1.refusal())).into_response()
    }
}

impl From<JsonRejection> for Rejected {
    fn from(rejection: JsonRejection) -> Self {
        let remedy = "send JSON, with content-type application/json, of the form that docs/cli.md names";
        let failure = Failure::new("the request's body", rejection.body_text(), remedy);
        Self(rejection.status(), Failure { code: code::INVALID, ..failure })
    }
}

impl From<QueryRejection> for Rejected {
    fn from(rejection: QueryRejection) -> Self {
        let failure =
            Failure::new("the address's parameters", rejection.body_text(), "correct what stands behind the ?");
        Self(rejection.status(), Failure { code: code::INVALID, ..failure })
    }
}

/// A body in JSON.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Rejected))]
struct Body<T>(T);

/// What stands behind the `?` of an address.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Rejected))]
struct Parameters<T>(T);

async fn no_such_path(uri: Uri) -> Rejected {
    let remedy = "crates/api/src/path.rs has the paths that there are";
    Rejected(StatusCode::NOT_FOUND, Failure::new(uri.path(), "there is no such path", remedy))
}

async fn no_such_method(method: Method, uri: Uri) -> Rejected {
    let remedy = if method == Method::GET { "ask by POST" } else { "ask by GET" };
    Rejected(StatusCode::METHOD_NOT_ALLOWED, Failure::new(uri.path(), format!("{method} is not for this path"), remedy))
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
        .route(path::CONFIG, get(configuration))
        .route(path::HISTORY, get(history))
        .route(path::APPLY, post(apply))
        .route(path::ROLLBACK, post(roll_back))
        .route(path::SAVE, post(save))
        .route(path::IPVSADM, post(ipvsadm))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(axum::middleware::from_fn(operators_only))
        .layer(DefaultBodyLimit::max(LARGEST))
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
        let (instance, rates) = (self.instance.clone(), self.rates.now());
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

async fn connections(State(shared): State<Shared>, Parameters(query): Parameters<Limit>) -> Answer<Connections> {
    shared.read(move |reader| reader.connections(query.limit.unwrap_or(usize::MAX))).await.map(Json)
}

async fn stats(State(shared): State<Shared>) -> Answer<Stats> {
    shared.read(|reader| reader.stats()).await.map(Json)
}

#[derive(Deserialize)]
struct Which {
    service: Option<String>,
}

async fn zero(State(shared): State<Shared>, Parameters(which): Parameters<Which>) -> Answer<Changed> {
    shared.ask(|to| Ask::Zero(which.service, to)).await.map(Json)
}

/// Who asks for a change, and on which terms.
fn asked(peer: Peer, guard: Guard) -> Asked {
    Asked { by: peer.name(), guard }
}

type Peered = ConnectInfo<Peer>;

impl Shared {
    async fn change(&self, guard: Guard, peer: Peer, change: Change) -> Answer<Changed> {
        let asked = asked(peer, guard);
        self.ask(|to| Ask::Change(asked, change, to)).await.map(Json)
    }
}

#[derive(Deserialize)]
struct Reload {
    #[serde(default)]
    replace: bool,
}

async fn reload(
    State(shared): State<Shared>,
    Parameters(Reload { replace }): Parameters<Reload>,
    Parameters(guard): Parameters<Guard>,
    ConnectInfo(peer): Peered,
) -> Answer<Changed> {
    shared.change(guard, peer, Change::Reload { replace }).await
}

async fn apply(
    State(shared): State<Shared>,
    Parameters(guard): Parameters<Guard>,
    ConnectInfo(peer): Peered,
    Body(document): Body<Document>,
) -> Answer<Changed> {
    shared.change(guard, peer, Change::Apply(document)).await
}

#[derive(Deserialize)]
struct RollBack {
    to: Option<u64>,
}

async fn roll_back(
    State(shared): State<Shared>,
    Parameters(RollBack { to }): Parameters<RollBack>,
    Parameters(guard): Parameters<Guard>,
    ConnectInfo(peer): Peered,
) -> Answer<Changed> {
    shared.change(guard, peer, Change::RollBack { to }).await
}

async fn save(
    State(shared): State<Shared>,
    Parameters(guard): Parameters<Guard>,
    ConnectInfo(peer): Peered,
) -> Answer<Changed> {
    shared.change(guard, peer, Change::Save).await
}

#[derive(Deserialize)]
struct Layer {
    layer: Option<String>,
}

async fn configuration(State(shared): State<Shared>, Parameters(query): Parameters<Layer>) -> Answer<Configuration> {
    let file = match query.layer.as_deref() {
        None | Some("all") => false,
        Some("file") => true,
        Some(other) => {
            let failure = Failure::new(format!("layer {other}"), "there is no such layer", "it is file or all");
            return Err(Failure { code: code::INVALID, ..failure });
        }
    };
    shared.ask(|to| Ask::Configuration { file, to }).await.map(Json)
}

async fn history(State(shared): State<Shared>, Parameters(query): Parameters<Limit>) -> Answer<Vec<Past>> {
    shared.ask(|to| Ask::History(query.limit.unwrap_or(HISTORY), to)).await.map(Json)
}

async fn ipvsadm(
    State(shared): State<Shared>,
    ConnectInfo(peer): Peered,
    Body(IpvsadmLines { lines, generation }): Body<IpvsadmLines>,
) -> Answer<IpvsadmDone> {
    let asked = asked(peer, Guard { generation, dry_run: false });
    shared.ask(|to| Ask::Ipvsadm(asked, lines, to)).await.map(Json)
}

async fn drain(
    State(shared): State<Shared>,
    Parameters(guard): Parameters<Guard>,
    ConnectInfo(peer): Peered,
    Body(name): Body<ServerName>,
) -> Answer<Drained> {
    let asked = asked(peer, guard);
    shared.ask(|to| Ask::Drain(asked, name, true, to)).await.map(Json)
}

async fn undrain(
    State(shared): State<Shared>,
    Parameters(guard): Parameters<Guard>,
    ConnectInfo(peer): Peered,
    Body(name): Body<ServerName>,
) -> Answer<Drained> {
    let asked = asked(peer, guard);
    shared.ask(|to| Ask::Drain(asked, name, false, to)).await.map(Json)
}

async fn detach(State(shared): State<Shared>) -> Answer<Changed> {
    shared.ask(Ask::Detach).await.map(Json)
}

/// The group of the socket may read; only root and the daemon's own user change anything. Nobody else's body is read.
async fn operators_only(ConnectInfo(peer): Peered, request: Request, next: Next) -> Response {
    let own = nix::unistd::geteuid().as_raw();
    let may = request.method() == Method::GET || peer.uid.is_some_and(|uid| uid == 0 || uid == own);
    if may {
        return next.run(request).await;
    }
    let failure = Failure::new("the control socket", "only root may change a director", "run it as root");
    Failure { code: code::KERNEL, ..failure }.into_response()
}
