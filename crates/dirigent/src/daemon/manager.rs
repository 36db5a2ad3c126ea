//! What the daemon tells its service manager (sd_notify(3)), if it has one: `Type=notify-reload` with a watchdog.

use sd_notify::NotifyState;
use std::time::Duration;

/// It does its work now, which is said in a few words.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its configuration again; [`ready`] says when it has.
pub fn reloading() {
    // Without the time a manager would take an earlier answer for this one's.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("the service manager is not told: {error}"),
    }
}

/// It ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// It is alive: its own task has come round.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often that shall be said: twice in the time after which the manager would end it.
pub fn watchdog() -> Option<Duration> {
    Some(sd_notify::watchdog_enabled()? / 2).filter(|period| !period.is_zero())
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!("the service manager is not told: {error}");
    }
}
