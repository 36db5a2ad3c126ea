//! `dirigent run`: one task that owns the director and does everything in order; beside it the control socket.

pub mod config;
mod director;
mod doctor;
mod events;
pub mod failover;
pub mod health;
mod interfaces;
mod kept;
mod lock;
mod mail;
mod manager;
mod metrics;
pub mod naming;
mod network;
pub mod rates;
mod resets;
mod server;
pub mod size;
mod suspicion;
mod sync;
mod tables;
mod trace;
pub mod vip;

pub use kept::directory as state_directory;
pub use lock::{DIRECTORY, Lock, lock_path};

use crate::failure::{Failure, Result};
use crate::print::count;
use director::{Asked, Director};
pub use director::{ClientsPath, Leave};
use dirigent_api::{Changed, Event, Guard, Problem};
use dirigent_datapath::kernel::{self, Instance};
use dirigent_net::probe::{self, Room};
use dirigent_net::{Watcher, mark_device};
pub use interfaces::{in_use, with_xdp};
pub use server::openapi;
use server::{Ask, Change, Listeners, Operators, Served, Tls};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Between two looks at what removed servers still hold.
const TIDY: Duration = Duration::from_secs(1);
/// Between two announcements of a new virtual address.
const ANNOUNCE: Duration = Duration::from_millis(500);
/// Between two words to the packet path that changes of the network are followed.
const FOLLOW: Duration = Duration::from_millis(100);
/// Scripts that are told of a director's end have this time.
const FAREWELL: Duration = Duration::from_secs(10);
/// Operations of one change that the log tells.
const TOLD: usize = 100;

/// Runs the daemon until it is told to end.
/// `room`: for health checks along the clients' path, if it cannot be made later.
pub async fn run(
    file: Option<&Path>,
    instance: Option<String>,
    socket: Option<PathBuf>,
    room: Option<Room>,
) -> Result<()> {
    let mut signals = Signals::new()?;
    let model = config::layer(file, instance.clone())?;
    let name = model.settings().instance.clone();
    let lock = Lock::take(&name)?;
    let socket = socket.unwrap_or_else(|| model.settings().socket_path().into());
    let group = |key, name: &Option<String>| name.as_deref().map(|name| server::group(key, name)).transpose();
    let operators = group("operators", &model.settings().operators)?;
    // Operators that nobody else shares the socket with.
    let group = group("group", &model.settings().group)?.or(operators);
    let api = model.settings().api.clone();
    let names = api.as_ref().map(|api| api.operators.clone()).unwrap_or_default();
    let page = model.settings().page.clone();
    let browse = page.as_ref().is_some_and(|page| page.operate);
    let operators = Operators { group: operators, names, readers: group, browse };
    // Before anything is attached: a socket that cannot be is a reason not to start. Who asks meanwhile waits.
    let tls = api.map(Tls::of).transpose()?;
    let local = server::listen(&socket, group)?;
    let plain = [model.settings().metrics.listen, page.as_ref().and_then(|page| page.listen)];
    let end = match ports(tls, plain).await {
        Ok((remote, [scraped, browsed])) => {
            let listeners = Listeners { socket: local, remote, scraped, browsed };
            let doors = Doors { listeners, operators, page: page.is_some() };
            direct(Director::start(file, instance, model, room).await, doors, &socket, &mut signals).await
        }
        Err(failure) => Err(failure),
    };
    // A dead socket would only be in the way.
    if let Err(e) = std::fs::remove_file(&socket) {
        tracing::warn!("{}: {e}", socket.display());
    }
    drop(lock);
    end
}

/// The ways in, and who may come.
struct Doors {
    listeners: Listeners,
    operators: Operators,
    page: bool,
}

/// The port that TLS is served on, and those without: of metrics, and of the page.
async fn ports(
    tls: Option<Tls>,
    [metrics, page]: [Option<SocketAddr>; 2],
) -> Result<(Option<(TcpListener, Tls)>, [Option<TcpListener>; 2])> {
    let remote = match tls {
        Some(tls) => Some((tls.listen().await?, tls)),
        None => None,
    };
    let open = async |table, listen| match listen {
        Some(listen) => server::port(table, listen).await.map(Some),
        None => Ok(None),
    };
    Ok((remote, [open("[director.metrics]", metrics).await?, open("[director.page]", page).await?]))
}

/// The director's life, from its start on.
async fn direct(started: Result<Director>, doors: Doors, socket: &Path, signals: &mut Signals) -> Result<()> {
    let mut director = started?;
    let (asks, mut asked) = mpsc::channel(16);
    let (instance, rates, events) = (director.instance().clone(), director.rates(), director.events());
    let (health, metrics) = (director.view(), director.metrics());
    let Doors { listeners, operators, page } = doors;
    let served = Served { asks, instance, rates, events, health, metrics, operators, page };
    let server = server::serve(listeners, served);
    director.say_ready(socket);
    manager::ready(&director.summary());
    let end = serve(&mut director, signals, &mut asked).await;
    let why = match &end {
        Ok(()) => "the daemon was told to end".to_owned(),
        Err(failure) => failure.to_string(),
    };
    director.events().end(Event::Role { role: "ended".into(), why });
    manager::stopping();
    drop(asked);
    server.end().await;
    end
}

/// Removes a director from the kernel: programs, tables, and the addresses that a daemon of its name added here.
pub fn remove(instance: &Instance) -> Result<Changed> {
    // First: without the programs what is led there would come back to it again and again.
    let devices = mark_device::release(instance.name(), None)?;
    let mut operations: Vec<_> = devices.iter().map(|name| format!("removed the device {name}")).collect();
    if probe::release(instance.name())? {
        operations.push("removed the interface of health checks along the clients' path".to_owned());
    }
    let gone = kernel::detach_all(instance)?;
    operations.extend(gone.iter().map(|a| format!("detached {} of interface {}", a.hook, a.ifindex)));
    operations.push("removed the maps, with all connections and counters".to_owned());
    operations.extend(vip::release_recorded(instance.name())?);
    operations.extend(failover::release(instance.name())?);
    kept::Kept::of(instance.name()).forget()?;
    health::forget(instance.name())?;
    sync::forget(instance.name())?;
    Ok(Changed { generation: 0, operations, notes: Vec::new() })
}

/// Forgets all that directors of that name ever were told at runtime, what was saved too.
pub fn forget(instance: &str) -> Result<()> {
    let kept = kept::Kept::of(instance);
    kept.unsave()?;
    kept.forget()
}

/// The daemon's own task.
async fn serve(director: &mut Director, signals: &mut Signals, asked: &mut mpsc::Receiver<Ask>) -> Result<()> {
    let mut tidy = tokio::time::interval(TIDY);
    let mut announce = tokio::time::interval(ANNOUNCE);
    // From this task, which takes changes in: where it stands still, the packet path looks after itself.
    let mut follow = tokio::time::interval(FOLLOW);
    follow.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // From this task, so that it stands still when this task does.
    let watchdog = manager::watchdog();
    let mut alive = tokio::time::interval(watchdog.unwrap_or(TIDY));
    loop {
        let leaves_at = director.leaves_at();
        tokio::select! {
            update = director.network.update() => match update {
                Ok(update) => director.network_changed(&update),
                Err(error) => return Err(lost_sight(&error)),
            },
            news = director.health.news() => director.health_changed(news),
            Some(ask) = asked.recv() => {
                if answer(director, ask).is_break() {
                    let _ = tokio::time::timeout(FAREWELL, director.farewell()).await;
                    return Ok(());
                }
            }
            _ = tidy.tick() => director.tidy(),
            () = tokio::time::sleep_until(leaves_at.unwrap_or_else(Instant::now).into()), if leaves_at.is_some() => {
                director.leave();
            }
            _ = announce.tick() => director.announce(),
            _ = follow.tick() => director.say_followed(),
            _ = alive.tick(), if watchdog.is_some() => manager::alive(),
            _ = signals.hangup.recv() => {
                manager::reloading();
                let asked = Asked { by: "SIGHUP".into(), guard: Guard::default() };
                // Said already.
                let _ = told(director.reload(&asked, false), "read the configuration again");
                manager::ready(&director.summary());
            }
            () = signals.end.asked() => {
                tracing::info!(
                    event = "role",
                    role = "ended",
                    why = "the daemon was told to end",
                    "the daemon ends, and forwarding goes on: programs and maps of {} stay in the kernel, and a new daemon \
                     takes them over, and what virtual routers hold, if it comes in time; `dirigent stop --detach` removes them",
                    director.instance().name()
                );
                return Ok(());
            }
        }
    }
}

/// Without reports of the network, next hops would go stale unseen: better to be restarted.
fn lost_sight(error: &dirigent_net::Error) -> Failure {
    let remedy = "forwarding goes on as it is; start the daemon again";
    Failure::new("", format!("changes of the network can no longer be seen: {error}"), remedy)
}

fn answer(director: &mut Director, ask: Ask) -> ControlFlow<()> {
    // An asker that has gone needs no answer.
    match ask {
        Ask::Status(to) => {
            let _ = to.send(director.status());
        }
        Ask::Configuration { file, to } => {
            let _ = to.send(Ok(director.configuration(file)));
        }
        Ask::Spec(service, to) => {
            let _ = to.send(director.spec(&service));
        }
        Ask::Name(name, to) => {
            let _ = to.send(director.name(&name));
        }
        Ask::History(limit, to) => {
            let _ = to.send(director.history(limit));
        }
        Ask::Change(asked, change, to) => {
            let did = change.to_string();
            let outcome = match change {
                Change::Reload { replace } => director.reload(&asked, replace),
                Change::Apply(document) => director.apply_document(&asked, &document),
                Change::RollBack { to } => director.roll_back(&asked, to),
                Change::Save => director.save(&asked),
                Change::Edit(edit) => director.edit(&asked, &edit),
            };
            let _ = to.send(told(outcome, &did));
        }
        Ask::Ipvsadm(asked, lines, to) => {
            let _ = to.send(director.ipvsadm(&asked, &lines));
        }
        Ask::Zero(service, to) => {
            let _ = to.send(director.zero(service.as_deref()));
        }
        Ask::Drain(asked, name, drain, to) => {
            let done = director.drain(&asked, &name, drain);
            for line in done.iter().flat_map(|done| &done.changed.operations) {
                tracing::info!("asked for: {line}");
            }
            let _ = to.send(done);
        }
        Ask::Failover(to) => {
            let _ = to.send(Ok(director.virtual_routers()));
        }
        Ask::HandOver { router, back, to } => {
            let _ = to.send(told(director.hand_over(router.as_deref(), back), "failover"));
        }
        Ask::Rehearse { router, what_if, to } => {
            let _ = to.send(director.rehearse(router.as_deref(), what_if));
        }
        Ask::Examine(about, to) => {
            let _ = to.send(director.begin_examination(about.as_deref()));
        }
        Ask::Trace(of, to) => {
            let _ = to.send(director.trace(&of));
        }
        Ask::Examined(learned) => director.end_examination(learned),
        Ask::Detach(to) => {
            let done = director.detach();
            let ended = done.is_ok();
            let _ = to.send(done);
            if ended {
                let name = director.instance().name();
                tracing::info!(
                    event = "detached",
                    director = name,
                    "detached: nothing of this director is left in the kernel, and the daemon ends"
                );
                return ControlFlow::Break(());
            }
        }
    }
    ControlFlow::Continue(())
}

/// Tells the log what became of a change.
fn told(outcome: Result<Changed>, did: &str) -> Result<Changed> {
    match &outcome {
        Ok(changed) if changed.operations.is_empty() => tracing::info!("{did}: nothing to change"),
        Ok(changed) => {
            tracing::info!("{did}: {}", count(changed.operations.len(), "change"));
            changed.operations.iter().take(TOLD).for_each(|op| tracing::info!("{op}"));
            if changed.operations.len() > TOLD {
                tracing::info!("and {} more", changed.operations.len() - TOLD);
            }
        }
        Err(failure) => {
            tracing::error!("{did}: refused, and the old one stays in force:");
            for problem in &failure.problems {
                let Problem { place, what, remedy } = problem;
                tracing::error!(event = "refused", place, what, remedy, "{problem}");
            }
        }
    }
    for note in outcome.iter().flat_map(|changed| &changed.notes) {
        tracing::warn!("{note}");
    }
    outcome
}

/// Signals the daemon minds.
struct Signals {
    hangup: Signal,
    end: End,
}

/// The two that end it.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).map_err(|e| Failure::io("signals", &e));
        Ok(Self {
            hangup: on(SignalKind::hangup())?,
            end: End { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? },
        })
    }
}

impl End {
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// For the status: the watcher's view.
fn snapshot(watcher: &mut Watcher) -> Result<dirigent_net::Snapshot> {
    Ok(watcher.snapshot()?.clone())
}
