//! Very many live connections: their memory, the sweep over them, forwarding beside it, and
//! their end.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dirigent_datapath::control::{KernelStore, PAUSE, Store as _, Sweep};
use serde::Serialize;

use super::cases;
use super::instance::Instance;
use super::{Options, median, own_namespace};
use crate::cpu::pin;
use crate::golden::Side;
use crate::golden::tables::text;

/// What forwarding may cost beside the sweep, of what it costs without.
pub const GOAL: f64 = 1.10;

/// What a run has shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Live {
    /// Connections by NAT, each with an entry for either direction.
    pub connections: u32,
    /// Bytes of kernel memory that the table takes for each connection there is room for.
    pub bytes_a_connection: f64,
    /// Seconds to open and establish them: three packets each.
    pub filled_s: f64,
    /// Seconds of a sweep at full speed.
    pub sweep_s: f64,
    /// Seconds of a sweep with the daemon's pauses.
    pub paced_sweep_s: f64,
    /// Connections that a sweep found idle, which none is.
    pub idle: u64,
    /// Rounds of packets with the daemon's sweep and without, by turns.
    pub rounds: usize,
    /// Nanoseconds a packet without the sweep, the middle round.
    pub alone_ns: f64,
    /// With it.
    pub beside_ns: f64,
    /// The one over the other.
    pub ratio: f64,
    /// See [`GOAL`].
    pub goal: f64,
    /// Seconds in which one sweep ends all connections, idle at once.
    pub ended_s: f64,
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = f64::from(self.connections) * 2.0;
        writeln!(f, "{} live connections by NAT", self.connections)?;
        writeln!(f, "  memory           {:8.1} bytes a connection", self.bytes_a_connection)?;
        writeln!(f, "  opened in        {:8.1} s", self.filled_s)?;
        let speed = entries / self.sweep_s / 1e6;
        writeln!(f, "  sweep            {:8.1} s, {speed:.1} million entries/s at full speed", self.sweep_s)?;
        writeln!(f, "  daemon's sweep   {:8.1} s", self.paced_sweep_s)?;
        writeln!(f, "  all expired in   {:8.1} s", self.ended_s)?;
        let over = if self.ratio > self.goal { "  (over)" } else { "" };
        write!(f, "  requests         {:8.1} ns/packet, {:.1} beside the sweep: ", self.alone_ns, self.beside_ns)?;
        writeln!(f, "{:.2} times, goal {:.2}{over}", self.ratio, self.goal)
    }
}

/// What the sweeping thread does.
mod turn {
    pub const REST: u8 = 0;
    pub const SWEEP: u8 = 1;
    pub const END: u8 = 2;
}

/// Measures `connections` of them. The calling thread gets a network namespace of its own and
/// stays in it.
pub fn run(options: &Options, connections: u32, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Live, String> {
    pin(0, &[options.cpu])?;
    let needed = cases::LIVE_BYTES * u64::from(connections);
    let available = available()?;
    if needed > available {
        return Err(format!("{connections} connections take {needed} bytes, and {available} are available: --live N"));
    }
    let bed = own_namespace()?;
    let (setup, fill) = cases::live(connections);
    let mut instance = Instance::new(&setup, &bed)?;
    let ifindex = bed.ifindex(Side::R);

    const STEP: u32 = 250_000;
    let begun = Instant::now();
    let mut sent = 0;
    let of = connections as usize * fill.len();
    for packets in &fill {
        for first in (0..connections).step_by(STEP as usize) {
            progress("open connections", sent, of);
            let count = STEP.min(connections - first);
            instance.send("bench_director", packets, ifindex, count, first.into())?;
            sent += count as usize;
        }
    }
    let filled_s = begun.elapsed().as_secs_f64();
    let bytes = memory(&instance)?;

    let mut store = KernelStore::new(instance.kernel()).map_err(text)?;
    let mut sweep = Sweep::default();
    progress("sweep", 0, 3);
    let begun = Instant::now();
    let swept = sweep.run(&mut store, &mut || ()).map_err(text)?;
    let sweep_s = begun.elapsed().as_secs_f64();
    progress("sweep with pauses", 1, 3);
    let begun = Instant::now();
    sweep.run(&mut store, &mut || std::thread::sleep(PAUSE)).map_err(text)?;
    let paced_sweep_s = begun.elapsed().as_secs_f64();

    let (alone, beside) = beside_the_sweep(options, connections, &mut instance, ifindex, progress)?;
    let (alone_ns, beside_ns) = (median(alone), median(beside));

    progress("expire all", 2, 3);
    let begun = Instant::now();
    let mut settings = store.settings().map_err(text)?;
    settings.clock_offset = settings.clock_offset.wrapping_add(86_400 * settings.hz);
    store.put_settings(&settings).map_err(text)?;
    let ended = sweep.run(&mut store, &mut || ()).map_err(text)?;
    let ended_s = begun.elapsed().as_secs_f64();
    if swept.gone != 0 || ended.gone != u64::from(connections) {
        return Err(format!("{} connections ended before their time, and {} at the end", swept.gone, ended.gone));
    }
    Ok(Live {
        connections,
        bytes_a_connection: bytes as f64 / f64::from(cases::live_room(connections)),
        filled_s,
        sweep_s,
        paced_sweep_s,
        idle: swept.alive,
        rounds: options.rounds,
        alone_ns,
        beside_ns,
        ratio: beside_ns / alone_ns,
        goal: GOAL,
        ended_s,
    })
}

/// Times of rounds of requests of all connections: without the daemon's sweep, and with it on
/// another CPU; by turns, so that what else happens on the machine happens to both.
fn beside_the_sweep(
    options: &Options,
    connections: u32,
    instance: &mut Instance,
    ifindex: u32,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<(Vec<f64>, Vec<f64>), String> {
    let requests = cases::live_request(connections);
    let (turn, chunks) = (AtomicU8::new(turn::REST), AtomicU64::new(0));
    let mut store = KernelStore::new(instance.kernel()).map_err(text)?;
    let (turn, chunks) = (&turn, &chunks);
    let other = usize::from(options.cpu == 0);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(move || {
            pin(0, &[other]).map_err(|e| format!("{e}: forwarding beside the sweep wants two CPUs"))?;
            let mut sweep = Sweep::default();
            while turn.load(Ordering::Acquire) != turn::END {
                let mut rest = || {
                    chunks.fetch_add(1, Ordering::AcqRel);
                    std::thread::sleep(PAUSE);
                    while turn.load(Ordering::Acquire) == turn::REST {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                };
                rest();
                sweep.run(&mut store, &mut rest).map_err(text)?;
            }
            Ok::<(), String>(())
        });
        let mut measured = || {
            let mut times = (Vec::new(), Vec::new());
            let mut counter = 0_u64;
            for round in 0..options.rounds * 2 {
                progress("forward beside the sweep", round, options.rounds * 2);
                let sweeping = round % 2 == 1;
                turn.store(if sweeping { turn::SWEEP } else { turn::REST }, Ordering::Release);
                let before = chunks.load(Ordering::Acquire);
                // It is under way, or has come to rest.
                if sweeping {
                    while chunks.load(Ordering::Acquire) == before && !sweeper.is_finished() {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                } else {
                    std::thread::sleep(PAUSE * 2);
                }
                let ns = instance.send("bench_director", &requests, ifindex, options.packets, counter)?;
                counter = (counter + u64::from(options.packets)) % u64::from(connections - options.packets + 1);
                if sweeping { times.1.push(ns) } else { times.0.push(ns) }
            }
            Ok(times)
        };
        let measured = measured();
        turn.store(turn::END, Ordering::Release);
        let swept = sweeper.join().map_err(|_| "the sweep panicked")?;
        swept.and(measured)
    })
}

/// Bytes of kernel memory that the tables of connections take.
fn memory(instance: &Instance) -> Result<u64, String> {
    instance.kernel().map_bytes("CONNS4").map_err(text)
}

/// Bytes that processes may still get.
fn available() -> Result<u64, String> {
    let path = "/proc/meminfo";
    let info = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or(format!("{path} does not say MemAvailable"))
}
