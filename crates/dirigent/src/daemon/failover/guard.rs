//! The guard: a small process of its own that takes virtual addresses away when a daemon that hangs, or is dead, did
//! neither that nor said in time that it is still master. Else two hosts would answer for them.
//!
//! It reads what [`Kept`] says: when it is woken by a byte from the daemon, and when the earliest time in it has come. The
//! end of its input is the daemon's end. It outlives that until the last address is gone, or another guard has it.

use super::kept::{Holding, Kept, now};
use crate::failure::{Failure, Result};
use dirigent_failover::Time;
use dirigent_net::{Netlink, vrrp};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The guard, as the daemon has it.
pub struct Guard {
    instance: String,
    process: Option<Child>,
}

impl Guard {
    /// None yet.
    pub fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), process: None }
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Starts it, unless it runs. Whether it was started.
    pub fn ensure(&mut self) -> Result<bool> {
        if let Some(child) = &mut self.process
            && matches!(child.try_wait(), Ok(None))
        {
            return Ok(false);
        }
        let fail = |e| Failure::io("starting the guard of virtual addresses", &e);
        let program = std::env::current_exe().map_err(fail)?;
        let mut command = Command::new(program);
        command.args(["--instance", &self.instance, "guard"]).stdin(Stdio::piped()).stdout(Stdio::null());
        // Its own group: what ends the daemon's at a terminal does not end it.
        let child = command.current_dir("/").process_group(0).spawn().map_err(fail)?;
        if let Some(pipe) = &child.stdin {
            // A daemon must not wait for a guard that does not read.
            let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
            nix::fcntl::fcntl(pipe, flags).map_err(|e| fail(e.into()))?;
        }
        self.process = Some(child);
        Ok(true)
    }

    /// Has it look again: something is new for it.
    pub fn wake(&mut self) {
        let pipe = self.process.as_mut().and_then(|child| child.stdin.as_mut());
        // A full pipe wakes it as well, and that it has ended is found by `ensure`.
        let _ = pipe.map(|pipe| pipe.write(b"!"));
    }
}

/// The guard's whole life.
pub fn run(instance: &str) -> Result<()> {
    let fail = |e: Errno| Failure::io("guard", &e.into());
    // It ends when its work is done, not with the daemon that is told to end.
    let mut kept_out = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE].into_iter().for_each(|s| kept_out.add(s));
    kept_out.thread_block().map_err(fail)?;
    if let Err(error) = vrrp::run_in_real_time() {
        tracing::debug!("the guard runs like any other process: {error}");
    }
    let kept = Kept::of(instance);
    let timer =
        TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK).map_err(fail)?;
    let mut input = std::io::stdin();
    let (mut alone, mut done) = (false, Vec::new());
    loop {
        let all = kept.read().unwrap_or_else(|failure| {
            tracing::error!("guard: {failure}");
            None
        });
        let all = all.unwrap_or_default();
        if alone && all.guard.is_some_and(|guard| guard != std::process::id()) {
            return Ok(());
        }
        let now = now();
        let due = |holding: &&Holding| Time::from_ns(holding.until_ns) <= now;
        for holding in all.holdings.iter().filter(due).filter(|h| !done.contains(*h)) {
            let mut netlink = match Netlink::route() {
                Ok(netlink) => netlink,
                Err(error) => {
                    tracing::error!("guard: virtual addresses cannot be removed: {error}");
                    continue;
                }
            };
            for held in holding.belongings.take_addresses(&mut netlink) {
                tracing::warn!(
                    event = "address_removed", address = %held.address, device = held.device,
                    "guard: took {} off {}: the daemon has neither said in time that virtual router {} is still master \
                     nor done it itself",
                    held.address,
                    held.device,
                    holding.router
                );
            }
            for what in holding.belongings.take_rest(&mut netlink) {
                tracing::warn!("guard: {what}, of virtual router {}", holding.router);
            }
        }
        done = all.holdings.iter().filter(due).cloned().collect();
        let next = all.holdings.iter().filter(|h| !due(h)).map(|h| h.until_ns).min();
        if alone && next.is_none() {
            return Ok(());
        }
        match next {
            Some(at) => {
                let at = TimeSpec::from_duration(Duration::from_nanos(at));
                timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME).map_err(fail)?;
            }
            None => timer.unset().map_err(fail)?,
        }
        let mut ready = vec![PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
        if !alone {
            ready.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(fail(error)),
        }
        let said = ready.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
        if said {
            alone = !matches!(input.read(&mut [0; 64]), Ok(1..));
        }
    }
}
