//! The same packets by turns: while nothing else happens, and while another thread does something on another CPU. So what else
//! happens on the machine happens to both.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::{Options, median};
use crate::cpu::pin;

/// What the other thread does.
mod turn {
    pub const REST: u8 = 0;
    pub const WORK: u8 = 1;
    pub const END: u8 = 2;
}

/// Nanoseconds a packet of rounds without the work, and beside it.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Without.
    pub alone: Vec<f64>,
    /// With.
    pub beside: Vec<f64>,
    /// Steps of the work.
    pub steps: u64,
}

/// Measures rounds by turns until `enough` of either are there. `work` is done again and again; between its steps it calls what it
/// is given, which takes `pause` and waits for its turn.
pub(super) fn by_turns(
    options: &Options,
    pause: Duration,
    mut work: impl FnMut(&mut dyn FnMut()) -> Result<(), String> + Send,
    mut round: impl FnMut() -> Result<f64, String>,
    mut enough: impl FnMut(usize) -> bool,
) -> Result<Turns, String> {
    const WAIT: Duration = Duration::from_micros(100);
    let (turn, steps, rests) = (&AtomicU8::new(turn::REST), &AtomicU64::new(0), &AtomicBool::new(false));
    let other = usize::from(options.cpu == 0);
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            pin(0, &[other]).map_err(|e| format!("{e}: forwarding beside something wants two CPUs"))?;
            let mut rest = || {
                steps.fetch_add(1, Ordering::AcqRel);
                if turn.load(Ordering::Acquire) != turn::END {
                    std::thread::sleep(pause);
                }
                while turn.load(Ordering::Acquire) == turn::REST {
                    rests.store(true, Ordering::Release);
                    std::thread::sleep(WAIT);
                }
                rests.store(false, Ordering::Release);
            };
            while turn.load(Ordering::Acquire) != turn::END {
                rest();
                work(&mut rest)?;
            }
            Ok::<(), String>(())
        });
        let mut measured = || {
            let mut turns = Turns::default();
            while !enough(turns.beside.len()) && !worker.is_finished() {
                turn.store(turn::REST, Ordering::Release);
                while !rests.load(Ordering::Acquire) && !worker.is_finished() {
                    std::thread::sleep(WAIT);
                }
                turns.alone.push(round()?);
                let before = steps.load(Ordering::Acquire);
                turn.store(turn::WORK, Ordering::Release);
                // It is under way.
                while steps.load(Ordering::Acquire) == before && !worker.is_finished() {
                    std::thread::sleep(WAIT);
                }
                turns.beside.push(round()?);
                turns.steps += steps.load(Ordering::Acquire) - before;
            }
            Ok(turns)
        };
        let measured = measured();
        turn.store(turn::END, Ordering::Release);
        let worked = worker.join().map_err(|_| "the thread beside panicked")?;
        worked.and(measured)
    })
}

/// What forwarding costs beside something, of what it costs alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Beside {
    /// Nanoseconds a packet alone, the middle round.
    pub alone_ns: f64,
    /// Beside it.
    pub beside_ns: f64,
    /// The one over the other.
    pub ratio: f64,
    /// Rounds of either.
    pub rounds: usize,
}

impl Beside {
    pub(super) fn of(turns: &Turns) -> Self {
        let [alone_ns, beside_ns] = [&turns.alone, &turns.beside].map(|times| median(times.clone()));
        Self { alone_ns, beside_ns, ratio: beside_ns / alone_ns, rounds: turns.beside.len() }
    }
}
