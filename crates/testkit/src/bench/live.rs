//! Very many live connections: their memory, the sweep over them, forwarding beside it, their
//! end, and forwarding while many end.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dirigent_datapath::control::{KernelStore, PAUSE, Store as _, Sweep};
use dirigent_director::tcp::State;
use serde::Serialize;

use super::cases::{self, Packets};
use super::instance::Instance;
use super::turns::{Beside, by_turns};
use super::{Options, own_namespace};
use crate::cpu::pin;
use crate::golden::Side;
use crate::golden::tables::text;
use crate::memory;

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
    /// Requests of all connections, beside the daemon's sweep.
    pub beside_sweep: Beside,
    /// See [`GOAL`].
    pub goal: f64,
    /// Seconds in which one sweep ends all connections, idle at once.
    pub ended_s: f64,
    /// How many connections the daemon's sweep then ends beside requests of others.
    pub expiring: u32,
    /// Those requests.
    pub beside_expiry: Beside,
}

/// So many end beside requests, or as many as there are.
const EXPIRING: u32 = 1_000_000;

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
        let expiring = format!("{} expire", self.expiring);
        for (what, Beside { alone_ns, beside_ns, ratio, .. }) in
            [("sweep", self.beside_sweep), (&*expiring, self.beside_expiry)]
        {
            let over = if ratio > self.goal { "  (over)" } else { "" };
            write!(f, "  requests         {alone_ns:8.1} ns/packet, {beside_ns:.1} beside {what}: ")?;
            writeln!(f, "{ratio:.2} times, goal {:.2}{over}", self.goal)?;
        }
        Ok(())
    }
}

/// Measures `connections` of them. The calling thread gets a network namespace of its own and
/// stays in it.
pub fn run(options: &Options, connections: u32, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Live, String> {
    pin(0, &[options.cpu])?;
    let needed = cases::LIVE_BYTES * u64::from(connections);
    let available = memory::bytes("/proc/meminfo", "MemAvailable")?;
    if needed > available {
        return Err(format!("{connections} connections take {needed} bytes, and {available} are available: --live N"));
    }
    let bed = own_namespace()?;
    let (setup, fill) = cases::live(connections);
    let mut instance = Instance::new(&setup, &bed)?;
    let ifindex = bed.ifindex(Side::R);

    let begun = Instant::now();
    open(&mut instance, &fill, ifindex, 0..connections, progress)?;
    let filled_s = begun.elapsed().as_secs_f64();
    let bytes = instance.kernel().map_bytes("CONNS4").map_err(text)?;

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

    let beside_sweep = beside_the_sweep(options, connections, &mut instance, ifindex, progress)?;

    progress("expire all", 2, 3);
    let begun = Instant::now();
    later(&mut store, 86_400)?;
    let ended = sweep.run(&mut store, &mut || ()).map_err(text)?;
    let ended_s = begun.elapsed().as_secs_f64();
    if swept.gone != 0 || ended.gone != u64::from(connections) {
        return Err(format!("{} connections ended before their time, and {} at the end", swept.gone, ended.gone));
    }
    let expiring = EXPIRING.min(connections);
    let beside_expiry = beside_expiry(options, expiring, &mut instance, ifindex, progress)?;
    Ok(Live {
        connections,
        bytes_a_connection: bytes as f64 / f64::from(cases::live_room(connections)),
        filled_s,
        sweep_s,
        paced_sweep_s,
        idle: swept.alive,
        beside_sweep,
        goal: GOAL,
        ended_s,
        expiring,
        beside_expiry,
    })
}

/// Opens and establishes connections of these numbers.
fn open(
    instance: &mut Instance,
    fill: &[Packets],
    ifindex: u32,
    numbers: Range<u32>,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<(), String> {
    const STEP: u32 = 250_000;
    let of = numbers.len() * fill.len();
    let mut sent = 0;
    for packets in fill {
        for first in numbers.clone().step_by(STEP as usize) {
            progress("open connections", sent, of);
            let count = STEP.min(numbers.end - first);
            instance.send("bench_director", packets, ifindex, count, first.into())?;
            sent += count as usize;
        }
    }
    Ok(())
}

/// Moves the packet path's clock.
fn later(store: &mut KernelStore, seconds: u32) -> Result<(), String> {
    let mut settings = store.settings().map_err(text)?;
    settings.clock_offset = settings.clock_offset.wrapping_add(seconds * settings.hz);
    store.put_settings(&settings).map_err(text)
}

/// Rounds of requests of all connections: without the daemon's sweep, and with it.
fn beside_the_sweep(
    options: &Options,
    connections: u32,
    instance: &mut Instance,
    ifindex: u32,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Beside, String> {
    let requests = cases::live_request(connections);
    let mut store = KernelStore::new(instance.kernel()).map_err(text)?;
    let mut sweep = Sweep::default();
    let work = |rest: &mut dyn FnMut()| sweep.run(&mut store, rest).map(|_| ()).map_err(text);
    let mut counter = 0_u64;
    let round = || {
        let ns = instance.send("bench_director", &requests, ifindex, options.packets, counter)?;
        counter = (counter + u64::from(options.packets)) % u64::from(connections - options.packets + 1);
        Ok(ns)
    };
    let enough = |rounds: usize| {
        progress("forward beside the sweep", rounds, options.rounds);
        rounds >= options.rounds
    };
    by_turns(options, PAUSE, work, round, enough).map(|turns| Beside::of(&turns))
}

/// Rounds of requests of some connections: while nothing happens, and while the daemon's sweep ends so many others in the same
/// table, until they are gone.
fn beside_expiry(
    options: &Options,
    expiring: u32,
    instance: &mut Instance,
    ifindex: u32,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Beside, String> {
    let kept = options.packets;
    let all = kept + expiring;
    let (_, fill) = cases::live(all);
    let mut store = KernelStore::new(instance.kernel()).map_err(text)?;
    // Two thirds of the time that an established connection is kept, twice: those that were opened in between stay.
    let settings = store.settings().map_err(text)?;
    let established = settings.tcp_timeouts.get(State::Established as usize).copied().unwrap_or_default();
    let slice = established / settings.hz * 2 / 3;
    open(instance, &fill, ifindex, kept..all, progress)?;
    later(&mut store, slice)?;
    open(instance, &fill, ifindex, 0..kept, progress)?;
    later(&mut store, slice)?;

    let gone = &AtomicU64::new(0);
    let mut sweep = Sweep::default();
    let work = |rest: &mut dyn FnMut()| {
        let swept = sweep.run(&mut store, rest).map_err(text)?;
        gone.fetch_add(swept.gone, Ordering::AcqRel);
        Ok(())
    };
    let requests = cases::live_request(all);
    let round = || instance.send("bench_director", &requests, ifindex, options.packets, 0);
    let enough = |rounds: usize| {
        progress("forward while connections expire", rounds, rounds + 1);
        gone.load(Ordering::Acquire) > 0 && rounds > 1
    };
    let turns = by_turns(options, PAUSE, work, round, enough)?;
    match gone.load(Ordering::Acquire) {
        all if all == u64::from(expiring) => Ok(Beside::of(&turns)),
        gone => Err(format!("{gone} of {expiring} connections expired beside others")),
    }
}
