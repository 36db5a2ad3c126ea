//! Programs that the daemon runs for an operator: checks, and notices of what happened.
//!
//! They run without rights. The thread that starts them has given up what it can: it gets no new privileges
//! (`no_new_privs`, which its children inherit, so that no set-user-id program helps them), and keeps of its
//! capabilities only what it takes to become another user and to end what it started. A daemon of root's runs them as an
//! unprivileged user; one that is nobody's root runs them as itself, without a capability.

use crate::failure::{Failure, Result};
use caps::{CapSet, Capability, CapsHashSet};
use dirigent_config::health::Script;
use dirigent_health::Why;
use dirigent_health::judge::script::Exit;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Group, Pid, User, geteuid};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Who runs scripts that name nobody: the first of them that there is.
const NOBODY: [&str; 2] = ["dirigent_script", "nobody"];
/// Between the signal that asks a script to end and the one that ends it.
const GRACE: Duration = Duration::from_secs(1);
/// Of notices: what takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where scripts look for programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One to run.
struct Run {
    script: Script,
    limit: Duration,
    done: oneshot::Sender<std::result::Result<Exit, Why>>,
}

/// Runs scripts, on a thread of its own.
#[derive(Clone)]
pub struct Scripts(mpsc::UnboundedSender<Run>);

impl Scripts {
    /// Starts the thread. It ends when the last of these is dropped.
    pub fn start() -> Result<Self> {
        let (to, mut runs) = mpsc::unbounded_channel::<Run>();
        let fail = |e| Failure::io("starting the thread of scripts", &e);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let (ready, readied) = std::sync::mpsc::channel();
        let work = move || {
            let given_up = give_up_rights();
            let may = given_up.is_ok();
            // Who asked has it, or has gone.
            let _ = ready.send(given_up);
            if may {
                runtime.block_on(async move {
                    while let Some(run) = runs.recv().await {
                        tokio::spawn(async move {
                            // Nobody may wait for it any more.
                            let _ = run.done.send(execute(&run.script, run.limit).await);
                        });
                    }
                });
            }
        };
        std::thread::Builder::new().name("scripts".into()).spawn(work).map_err(fail)?;
        readied.recv().unwrap_or_else(|_| Err(Failure::new("scripts", "their thread ended at once", "")))?;
        Ok(Self(to))
    }

    /// Runs one to its end; after `limit` it is ended.
    pub async fn run(&self, script: Script, limit: Duration) -> std::result::Result<Exit, Why> {
        let (done, end) = oneshot::channel();
        let gone = Why::of("the daemon is ending");
        self.0.send(Run { script, limit, done }).map_err(|_| gone.clone())?;
        end.await.map_err(|_| gone)?
    }

    /// Runs one that only tells somebody something. What becomes of it is logged.
    pub fn notify(&self, script: &Script, of: String) -> JoinHandle<()> {
        let (scripts, script) = (self.clone(), script.clone());
        tokio::spawn(async move {
            let name = script.command.first().cloned().unwrap_or_default();
            let why = match scripts.run(script, PATIENCE).await {
                Ok(Exit::Code(0)) => return tracing::debug!("{name} was told of {of}"),
                Ok(Exit::Code(code)) => format!("ended with code {code}"),
                Ok(Exit::Signal(signal)) => format!("was ended by signal {signal}"),
                Err(why) => format!("did not hear it: {why}"),
            };
            tracing::warn!(event = "script_failed", script = name, of, why, "{name}, told of {of}, {why}");
        })
    }
}

/// Of this thread alone.
fn give_up_rights() -> Result<()> {
    let fail = |e: caps::errors::CapsError| Failure::new("scripts", format!("giving up rights: {e}"), "");
    let root = geteuid().is_root();
    let kept = if root {
        CapsHashSet::from([Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_KILL])
    } else {
        CapsHashSet::new()
    };
    caps::clear(None, CapSet::Ambient).map_err(fail)?;
    if root && caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in caps::all() {
            if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, capability).map_err(fail)?;
            }
        }
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(fail)?;
    let had = caps::read(None, CapSet::Permitted).map_err(fail)?;
    let left: CapsHashSet = kept.intersection(&had).copied().collect();
    caps::set(None, CapSet::Effective, &left).map_err(fail)?;
    caps::set(None, CapSet::Permitted, &left).map_err(fail)?;
    nix::sys::prctl::set_no_new_privs().map_err(|e| Failure::io("scripts", &e.into()))
}

/// As whom a script runs. None: as the daemon, which is not root.
fn whom(script: &Script) -> std::result::Result<Option<(u32, u32)>, Why> {
    let unknown = |what: &str, name: &str| Why::new(format!("there is no {what} {name}"));
    let look_up = |name: &str| match name.parse() {
        Ok(number) => User::from_uid(nix::unistd::Uid::from_raw(number)).ok().flatten(),
        Err(_) => User::from_name(name).ok().flatten(),
    };
    let user = match &script.user {
        Some(name) => Some(look_up(name).ok_or_else(|| unknown("user", name))?),
        None => NOBODY.into_iter().find_map(look_up),
    };
    let group = match &script.group {
        Some(name) => {
            let group = match name.parse() {
                Ok(number) => Group::from_gid(nix::unistd::Gid::from_raw(number)).ok().flatten(),
                Err(_) => Group::from_name(name).ok().flatten(),
            };
            Some(group.ok_or_else(|| unknown("group", name))?.gid.as_raw())
        }
        None => None,
    };
    let own = geteuid();
    if !own.is_root() {
        return match user {
            Some(user) if script.user.is_some() && user.uid != own => {
                Err(Why::new(format!("a daemon without root cannot run it as {}", user.name)))
            }
            _ => Ok(None),
        };
    }
    let user = user.ok_or(Why::of("there is no unprivileged user to run it as (dirigent_script, nobody)"))?;
    if user.uid.is_root() {
        return Err(Why::of("scripts are not run as root"));
    }
    Ok(Some((user.uid.as_raw(), group.unwrap_or(user.gid.as_raw()))))
}

async fn execute(script: &Script, limit: Duration) -> std::result::Result<Exit, Why> {
    let [program, arguments @ ..] = script.command.as_slice() else { return Err(Why::of("it names no program")) };
    let mut command = std::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env_clear().env("PATH", PATH).current_dir("/").process_group(0);
    if let Some((uid, gid)) = whom(script)? {
        // With the user goes the last capability; supplementary groups go before it.
        command.uid(uid).gid(gid);
    }
    let failed = |e: std::io::Error| Why::new(format!("{program} does not run: {e}"));
    let mut child = Command::from(command).kill_on_drop(true).spawn().map_err(failed)?;
    let status = match tokio::time::timeout(limit, child.wait()).await {
        Ok(status) => status.map_err(failed)?,
        Err(_) => {
            // With all that it has started.
            let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
            for signal in [Signal::SIGTERM, Signal::SIGKILL] {
                if let Some(group) = group {
                    let _ = killpg(group, signal);
                }
                if tokio::time::timeout(GRACE, child.wait()).await.is_ok() {
                    break;
                }
            }
            return Err(Why::new(format!("{program} did not end within {}", humantime::format_duration(limit))));
        }
    };
    Ok(match (status.code().and_then(|code| u8::try_from(code).ok()), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    })
}
