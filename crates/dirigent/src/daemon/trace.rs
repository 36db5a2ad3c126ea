//! Tracing packets for somebody who listens: a thread that reads what the packet path tells, as long as he does.

use super::director::Director;
use crate::explain::Names;
use crate::failure::Result;
use crate::trace::{Teller, wanted};
use dirigent_api::{TRACE_RATE, TraceEvent, TraceOf};
use dirigent_datapath::control::KernelStore;
use dirigent_datapath::kernel::Tracer;
use dirigent_net::Snapshot;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

/// How often more packets are allowed.
const TICK: Duration = Duration::from_millis(100);
/// The same, for waiting.
const TICK_MS: u8 = 100;
/// How often it is told how many were withheld.
const WITHHELD: Duration = Duration::from_secs(1);

/// A trace that is on.
pub struct Tracing {
    tracer: Tracer,
    store: KernelStore,
    host: Snapshot,
    rate: f64,
    bytes: bool,
}

impl Director {
    /// Turns tracing on.
    pub fn trace(&mut self, of: &TraceOf) -> Result<Tracing> {
        let store = KernelStore::new(self.kernel_mut())?;
        let tracer = self.kernel_mut().trace(&wanted(of, &store)?)?;
        Ok(Tracing {
            tracer,
            store,
            host: super::snapshot(self.network.watcher())?,
            rate: of.rate.unwrap_or(TRACE_RATE).into(),
            bytes: of.bytes.unwrap_or(false),
        })
    }
}

impl Tracing {
    /// Tells `to` of packets until nobody listens any more, or something fails.
    pub fn run(self, to: &Sender<TraceEvent>) -> Result<()> {
        let Self { mut tracer, store, host, rate, bytes } = self;
        let teller = Teller::new(Names::of(&store, &host)?, bytes);
        let readable = tracer.descriptor()?;
        // What was told of and nobody took in time.
        let (mut missed, mut told) = (0, 0);
        // A second's worth at once.
        let (mut tokens, mut last, mut said) = (rate, Instant::now(), Instant::now());
        let _ = to.try_send(TraceEvent::Begun);
        while !to.is_closed() {
            let whole = tokens.floor();
            if whole >= 1.0 {
                tracer.allow((tracer.allowed()? + whole as u64).min(rate as u64))?;
                tokens -= whole;
            }
            // Interrupted or not, the next turn comes.
            let _ = poll(&mut [PollFd::new(readable.as_fd(), PollFlags::POLLIN)], PollTimeout::from(TICK_MS));
            while let Some(life) = tracer.take() {
                match to.try_send(TraceEvent::Packet(Box::new(teller.tell(&life)))) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => missed += 1,
                    Err(TrySendError::Closed(_)) => return Ok(()),
                }
            }
            let since = last.elapsed();
            if since >= TICK {
                tokens += rate * since.as_secs_f64();
                last = Instant::now();
            }
            let withheld = tracer.withheld()? + missed;
            if withheld != told && said.elapsed() >= WITHHELD {
                said = Instant::now();
                if to.try_send(TraceEvent::Withheld { packets: withheld }).is_ok() {
                    told = withheld;
                }
            }
        }
        Ok(())
    }
}
