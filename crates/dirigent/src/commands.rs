//! The commands that ask or change a director that runs.

use crate::ask::Target;
use crate::cli::{Command, ConnectionCommand, ListArgs, PrintArgs, ServerCommand, ServiceCommand};
use crate::daemon::config;
use crate::failure::{Failure, Result};
use crate::netfilter::Netfilter;
use crate::{configure, daemon, drain, edit, events, explain, failover, print, top, trace, walk, watch};
use dirigent_api::{Changed, ConnectionsOf, Problem, Reason, Stats, path};
use dirigent_datapath::kernel::Instance;
use dirigent_net::Snapshot;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Carries a command out.
pub async fn run(command: Command, instance: Option<String>, socket: Option<PathBuf>) -> Result<()> {
    let target = Target::new(instance.clone(), socket);
    match command {
        Command::Check { config, print } => check(&config.config, instance, print),
        Command::Service(ServiceCommand::List(list)) => {
            watched(list, async |as_| show(&target.services().await?, as_, |s| print::services(s))).await
        }
        Command::Service(command) => edit::service(&target, &command).await.map(|_| ()),
        Command::Server(ServerCommand::Drain(args)) => drain::run(&target, &args).await,
        Command::Server(ServerCommand::Undrain { server, print: as_ }) => {
            let done = target.drain(&drain::name(&server), false).await?;
            show(&done, How::once(as_), |done| told(&done.changed))
        }
        Command::Server(ServerCommand::List(list)) => watched(list, async |as_| servers(&target, as_).await).await,
        Command::Server(command) => edit::server(&target, &command).await.map(|_| ()),
        Command::Connection(ConnectionCommand::List { limit, service, server, list }) => {
            let of = ConnectionsOf { limit: Some(limit), service, server };
            watched(list, async |as_| connections(&target, limit, &of, as_).await).await
        }
        Command::Stats { zero: Some(service), list, .. } => {
            show(&target.zero(service.as_deref()).await?, How::once(list.print), told)
        }
        Command::Stats { rate: true, list, .. } => watched(list, async |as_| rates(&target.stats().await?, as_)).await,
        Command::Stats { drops, list, .. } => watched(list, async |as_| stats(&target, drops, as_).await).await,
        Command::Status(list) => watched(list, async |as_| show(&target.status().await?, as_, print::status)).await,
        Command::Top(args) => top::run(target, &args).await,
        Command::Explain(args) => {
            let as_ = How::once(args.print);
            show(&target.explain(&args.into()).await?, as_, explain::text)
        }
        Command::Walk(args) => {
            let as_ = How::once(args.print);
            show(&target.walk(&args.into()).await?, as_, walk::text)
        }
        Command::Events { drops, print: as_ } => events::run(&target, drops, as_.json).await,
        Command::Trace(args) => trace::run(&target, &args).await,
        Command::Reload { replace, change: args } => {
            let extra = [("replace", replace.then(|| "true".to_owned()))];
            configure::told(&target, path::RELOAD, &extra, &(), &args).await
        }
        Command::Failover(command) => failover::run(&target, command).await,
        Command::Config(command) => configure::run(&target, &command).await,
        Command::Stop(stop) => show(&detach(&target).await?, How::once(stop.print), told),
        Command::Guard | Command::Run(_) | Command::Lab(_) | Command::Realserver(_) | Command::Import(_) => Ok(()),
        Command::Doctor(_) => Ok(()),
        Command::Ipvsadm { .. } | Command::Proc { .. } | Command::Sysctl { .. } => Ok(()),
        Command::Completions { .. } | Command::Man { .. } | Command::Openapi | Command::Prepare { .. } => Ok(()),
    }
}

/// How something is printed.
#[derive(Clone, Copy)]
pub struct How {
    json: bool,
    /// It is printed again and again: JSON by the line.
    again: bool,
}

impl How {
    /// Once.
    pub fn once(print: PrintArgs) -> Self {
        Self { json: print.json, again: false }
    }
    fn json<T: Serialize>(self, value: &T) -> Result<()> {
        if self.again { print::json_line(value) } else { print::json(value) }
    }
}

/// Once, or until it is interrupted.
pub async fn watched(list: ListArgs, mut once: impl AsyncFnMut(How) -> Result<()>) -> Result<()> {
    let how = How { again: list.watch.is_some(), ..How::once(list.print) };
    watch::run(list.watch, async || once(how).await).await
}

/// As JSON, or as text.
pub fn show<T: Serialize>(value: &T, as_: How, text: impl Fn(&T) -> String) -> Result<()> {
    if as_.json { as_.json(value) } else { print::text(&text(value)) }
}

async fn servers(target: &Target, as_: How) -> Result<()> {
    let services = target.services().await?;
    if as_.json {
        let servers: Vec<_> = services.into_iter().flat_map(|s| s.servers).collect();
        return as_.json(&servers);
    }
    print::text(&print::servers(&services))
}

async fn connections(target: &Target, limit: usize, of: &ConnectionsOf, as_: How) -> Result<()> {
    let connections = target.connections(of).await?;
    show(&connections, as_, print::connections)?;
    if connections.more {
        eprintln!("there are more than {limit}; ask for them with --limit");
    }
    Ok(())
}

/// What a change did, for people.
pub fn told(changed: &Changed) -> String {
    if changed.operations.is_empty() && changed.notes.is_empty() {
        return "nothing to do\n".to_owned();
    }
    changed.operations.iter().chain(&changed.notes).map(|line| format!("{line}\n")).collect()
}

/// The same structure with `--json`: rates stand beside the counters there.
fn rates(stats: &Stats, as_: How) -> Result<()> {
    if !as_.json && stats.rates.is_none() {
        let remedy = "start the daemon, `dirigent run`, and ask again two seconds later";
        return Err(Failure::new("", "rates need a daemon, which looks at the counters every two seconds", remedy));
    }
    show(stats, as_, print::rates)
}

async fn stats(target: &Target, drops: bool, as_: How) -> Result<()> {
    let mut stats = target.stats().await?;
    if !drops {
        return show(&stats, as_, print::stats);
    }
    stats.reasons.retain(Reason::is_loss);
    if as_.json {
        return as_.json(&stats.reasons);
    }
    let lost: Vec<_> = stats.reasons.iter().filter(|r| r.count > 0).collect();
    if lost.is_empty() {
        return print::text("no packet was dropped or answered with an error\n");
    }
    print::text(&print::reasons(lost.into_iter()))
}

/// What `check` found.
#[derive(Serialize)]
struct Checked {
    valid: bool,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

fn check(file: &Path, instance: Option<String>, as_: PrintArgs) -> Result<()> {
    let (model, mut warnings) = match config::load(Some(file), instance) {
        Ok(loaded) => loaded,
        Err(failure) => {
            if as_.json {
                print::json(&Checked { valid: false, problems: failure.problems.clone(), warnings: Vec::new() })?;
            }
            return Err(failure);
        }
    };
    // What is not so now may be by the time it is used.
    warnings.extend(config::warnings(&model, &Snapshot::take()?));
    warnings.extend(Netfilter::read().warnings(&model));
    if as_.json {
        return print::json(&Checked { valid: true, problems: Vec::new(), warnings });
    }
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let servers: usize = model.services().iter().map(|s| s.servers.len()).sum();
    let services = model.services().len();
    let (services, servers) = (print::count(services, "service"), print::count(servers, "server"));
    print::text(&format!("{}: valid, {services}, {servers}\n", file.display()))
}

/// Waits for the end of a daemon that has detached: its socket goes last, and then a new one may start.
async fn ended(socket: &Path) {
    let begun = Instant::now();
    while socket.exists() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Through the daemon, or without one.
async fn detach(target: &Target) -> Result<Changed> {
    if let Some(changed) = target.change(path::DETACH).await? {
        ended(&target.socket).await;
        return Ok(changed);
    }
    let instance = Instance::new(&target.instance)?;
    if !instance.directory().exists() {
        return Err(target.absent());
    }
    let _lock = daemon::Lock::take(&target.instance)?;
    daemon::remove(&instance)
}
