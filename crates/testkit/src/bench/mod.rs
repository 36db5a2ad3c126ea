//! `make bench`: nanoseconds a packet, ours and the floors', taken in one run by the
//! method of reference/performance.md §4.
//!
//! What is measured ([`cases`]) runs in the kernel by `BPF_PROG_TEST_RUN` on frames that a
//! wrapper puts back and addresses anew each time (bpf/src/bench/round.rs). Each director
//! and each floor has maps of its own ([`instance`]); rounds are short, interleaved over
//! all cases, and on one CPU. A packet that ends otherwise than expected fails the run.

pub mod against;
pub mod cases;
pub mod changes;
pub mod cores;
pub mod document;
pub mod instance;
pub mod instructions;
pub mod ipvs;
pub mod live;
mod locks;
pub mod options;
pub mod page;
pub mod report;
mod turns;

use std::collections::BTreeMap;

pub use cases::{Case, Goal};
pub use changes::Changes;
pub use instance::Instance;
pub use live::Live;
pub use report::Report;
pub use turns::Beside;

use crate::cpu::pin;
use crate::golden::kernel::namespace;
use crate::golden::{Bed, Side};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Rounds of each case.
    pub rounds: usize,
    /// Packets of a round.
    pub packets: u32,
    /// Connections of the cases with many; a power of two.
    pub connections: u32,
    /// The CPU that all runs on.
    pub cpu: usize,
    /// Most servers that schedulers are measured with.
    pub servers: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 150, packets: 20_000, connections: 1 << 19, cpu: 1, servers: 4096 }
    }
}

/// The fastest.
fn fastest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::NAN, f64::min)
}

/// How far the fastest of every other round is from the fastest of those in between, as a part of it: how much chance is in it.
fn spread(times: &[f64]) -> f64 {
    let half = |odd: usize| fastest(&times.iter().copied().skip(odd).step_by(2).collect::<Vec<_>>());
    if times.len() < 2 { 0.0 } else { (half(0) - half(1)).abs() / fastest(times) }
}

/// Differences up to this are chance, whatever the spread of a run says: runs of the same program differ by as much.
pub const NOISE: f64 = 0.05;

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A network namespace of this thread's own, with routes to clients and servers.
fn own_namespace() -> Result<Bed, String> {
    let routes = [
        "route add 100.64.0.0/10 via 10.1.0.99 dev r0",
        "route add 10.2.0.0/16 via 10.1.0.99 dev r0",
        "-6 route add 2001:db8:c::/96 via fd00:1::99 dev r0",
    ];
    namespace(&Bed::of(cases::SERVERS, 1500, 1500, &routes.map(String::from))?)
}

/// Cases that are set up, each to be measured round by round.
pub struct Bench {
    options: Options,
    ifindex: u32,
    cases: Vec<Case>,
    instances: BTreeMap<String, Instance>,
    /// Packets of each case so far.
    counters: Vec<u64>,
}

impl Bench {
    /// Sets up all cases whose name holds `only`, and what they are held against. The calling thread gets a network namespace of
    /// its own and stays in it. `progress` is told what is under way and how much of it is done, of how much.
    pub fn new(options: &Options, only: &str, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Self, String> {
        pin(0, &[options.cpu])?;
        let bed = own_namespace()?;
        let cases = chosen(cases::all(options), only);
        let mut names: Vec<&str> = cases.iter().map(|case| &*case.of).collect();
        names.sort_unstable();
        names.dedup();
        let mut instances = BTreeMap::new();
        for (done, name) in names.iter().enumerate() {
            progress("set up", done, names.len());
            let instance = Instance::new(&cases::setup(name, options), &bed).map_err(|e| format!("{name}: {e}"))?;
            instances.insert((*name).to_owned(), instance);
        }
        let counters = vec![0; cases.len()];
        Ok(Self { options: *options, ifindex: bed.ifindex(Side::R), cases, instances, counters })
    }

    /// What is measured.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// A round of the case of this number: nanoseconds a packet.
    pub fn round(&mut self, number: usize) -> Result<f64, String> {
        let (Some(case), Some(counter)) = (self.cases.get(number), self.counters.get_mut(number)) else {
            return Err(format!("there are {} cases, and none has number {number}", self.cases.len()));
        };
        let instance = self.instances.get_mut(&*case.of).ok_or("an instance is missing")?;
        let packets = case.packets(&self.options);
        let ns = instance.measure(case, self.ifindex, packets, *counter).map_err(|e| format!("{}: {e}", case.name))?;
        *counter += u64::from(packets);
        Ok(ns)
    }
}

/// Cases whose name holds these words, and all that they are held against, in the catalogue's order.
fn chosen(catalogue: Vec<Case>, only: &str) -> Vec<Case> {
    let mut wanted: Vec<bool> =
        catalogue.iter().map(|case| case.name.contains(only) || cases::SANITY.contains(&&*case.name)).collect();
    // What a case is held against may be held against something itself; it stands before it.
    for n in (0..catalogue.len()).rev() {
        let Some(case) = catalogue.get(n).filter(|_| wanted.get(n) == Some(&true)) else { continue };
        for (other, wanted) in catalogue.iter().zip(&mut wanted) {
            *wanted |= case.needs(other);
        }
    }
    catalogue.into_iter().zip(wanted).filter_map(|(case, wanted)| wanted.then_some(case)).collect()
}

/// Runs all cases whose name holds `only`, as [`Bench`] sets them up.
pub fn run(options: &Options, only: &str, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Report, String> {
    let mut bench = Bench::new(options, only, progress)?;
    let mut results = vec![Vec::with_capacity(options.rounds); bench.cases().len()];
    for round in 0..options.rounds {
        progress("measure", round, options.rounds);
        for (number, times) in results.iter_mut().enumerate() {
            times.push(bench.round(number)?);
        }
    }
    Ok(Report::new(bench.cases().iter().zip(results)))
}
