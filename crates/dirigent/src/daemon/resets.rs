//! The thread that resets the connections of servers that failed (`on_failure_connections = "reset"`).
//!
//! It marks them, and has the packet path answer whoever speaks with a reset. Who is silent is asked: by a segment that is
//! not his connection's next, to which he answers. Kernels answer such a segment but once in half a second (Linux:
//! `tcp_invalid_ratelimit`), and packets get lost, so it is sent some times; then what is left of the connections ends.

use crate::failure::{Failure, Result};
use dirigent_datapath::control::{Error, Flow, KernelStore, Resets};
use dirigent_net::RawIp;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Who is silent is asked so often, …
const ROUNDS: u32 = 4;
/// … at this distance, which is more than a kernel lets pass without an answer.
const BETWEEN: Duration = Duration::from_millis(600);
/// Segments a second at most, …
const RATE: u32 = 50_000;
/// … and in one go.
const BURST: u32 = 250;
/// Between parts of the walk through the tables.
const PAUSE: Duration = Duration::from_millis(1);

/// The thread, until this is dropped.
pub struct Resetter(Sender<Failed>);

/// Servers that failed together.
struct Failed {
    names: String,
    of: Resets,
}

/// What is being done about them.
struct Work {
    failed: Failed,
    /// How often was asked.
    round: u32,
    due: Instant,
    begun: Instant,
    /// Connections that needed no reset; segments sent.
    ended: u64,
    sent: u64,
}

impl Resetter {
    /// Starts it, in the director's namespace.
    pub fn start(store: KernelStore) -> Result<Self> {
        let raw = RawIp::open()?;
        let (orders, ordered) = channel();
        let run = move || run(&ordered, store, &raw);
        std::thread::Builder::new()
            .name("resets".into())
            .spawn(run)
            .map_err(|e| Failure::io("starting to reset connections", &e))?;
        Ok(Self(orders))
    }

    /// The servers of these indexes have failed.
    pub fn reset(&self, names: String, servers: Vec<u32>) {
        // It only ends with this, or by a panic that was reported.
        let _ = self.0.send(Failed { names, of: Resets::of(servers) });
    }
}

fn run(orders: &Receiver<Failed>, mut store: KernelStore, raw: &RawIp) {
    let mut works: Vec<Work> = Vec::new();
    loop {
        let next = works.iter().map(|work| work.due).min();
        let ordered = match next {
            Some(due) => orders.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match ordered {
            Ok(failed) => {
                let now = Instant::now();
                works.push(Work { failed, round: 0, due: now, begun: now, ended: 0, sent: 0 });
            }
            Err(RecvTimeoutError::Timeout) => {}
            // What is marked gets its resets without this, and is swept.
            Err(RecvTimeoutError::Disconnected) => return,
        }
        works.retain_mut(|work| {
            if work.due > Instant::now() {
                return true;
            }
            work.go_on(&mut store, raw).unwrap_or_else(|error| {
                tracing::error!("resetting the connections of {}: {error}", work.failed.names);
                false
            })
        });
    }
}

impl Work {
    /// One round. Says whether there is more to do.
    fn go_on(&mut self, store: &mut KernelStore, raw: &RawIp) -> std::result::Result<bool, Error> {
        let mut pause = || std::thread::sleep(PAUSE);
        let Failed { names, of } = &self.failed;
        self.ended += of.mark(store, &mut pause)?;
        let mut paced = Paced { begun: Instant::now(), sent: 0 };
        let mut silent = 0_u64;
        let last = self.round == ROUNDS;
        of.untold(store, &mut |flow| {
            silent += 1;
            if !last {
                ask(raw, flow, &mut paced);
            }
        })?;
        self.sent += u64::from(paced.sent);
        if self.round > 0 {
            tracing::debug!(
                "resetting the connections of {names}: after round {}, {silent} ends are silent",
                self.round
            );
        }
        // In the first round all are: whom nobody had to ask is told when he speaks.
        if last || (silent == 0 && self.round > 0) {
            let reset = of.end(store, &mut pause)?;
            tracing::info!(
                event = "connections_reset",
                servers = names,
                connections = reset,
                "the connections of {names} are over: {reset} were reset, and {} ended without, in {} ms; {} segments asked \
                 for an answer, and {silent} ends gave none",
                self.ended,
                self.begun.elapsed().as_millis(),
                self.sent
            );
            return Ok(false);
        }
        self.round += 1;
        self.due = Instant::now() + BETWEEN;
        Ok(true)
    }
}

/// What was sent since when.
struct Paced {
    begun: Instant,
    sent: u32,
}

fn ask(raw: &RawIp, flow: &Flow, paced: &mut Paced) {
    let Some(segment) = flow.challenge(fastrand::u64(..)) else { return };
    // What does not leave is tried in the next round.
    raw.send(flow.src, &segment);
    paced.sent += 1;
    if paced.sent.is_multiple_of(BURST) {
        let ahead = Duration::from_secs(1) * paced.sent / RATE;
        std::thread::sleep(ahead.saturating_sub(paced.begun.elapsed()));
    }
}
