//! `make bench`: nanoseconds a packet, ours and the floors', taken in one run by the
//! method of reference/performance.md §4.
//!
//! What is measured ([`cases`]) runs in the kernel by `BPF_PROG_TEST_RUN` on frames that a
//! wrapper puts back and addresses anew each time (bpf/src/bench/round.rs). Each director
//! and each floor has maps of its own ([`instance`]); rounds are short, interleaved over
//! all cases, and on one CPU. A packet that ends otherwise than expected fails the run.

pub mod cases;
pub mod cores;
pub mod instance;
pub mod instructions;
pub mod ipvs;
pub mod live;
pub mod page;
pub mod report;

use std::collections::BTreeMap;

pub use cases::{Case, Goal};
pub use instance::Instance;
pub use live::Live;
pub use report::Report;

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

/// Runs all cases whose name holds `only`, and the floors they are held against. The
/// calling thread gets a network namespace of its own and stays in it. `progress` is told
/// what is under way and how much of it is done, of how much.
pub fn run(options: &Options, only: &str, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Report, String> {
    pin(0, &[options.cpu])?;
    let bed = own_namespace()?;
    let catalogue = cases::all(options);
    let wanted: Vec<&Case> = catalogue.iter().filter(|case| case.name.contains(only)).collect();
    let floors: Vec<&Case> = catalogue
        .iter()
        .filter(|case| {
            case.goals.is_empty() && (wanted.iter().any(|w| w.needs(case)) || cases::SANITY.contains(&&*case.name))
        })
        .filter(|case| !wanted.iter().any(|w| w.name == case.name))
        .collect();
    let cases: Vec<&Case> = floors.into_iter().chain(wanted).collect();

    let mut names: Vec<&str> = cases.iter().map(|case| &*case.of).collect();
    names.sort_unstable();
    names.dedup();
    let mut instances = BTreeMap::new();
    for (done, name) in names.iter().enumerate() {
        progress("set up", done, names.len());
        instances.insert(*name, Instance::new(&cases::setup(name, options), &bed)?);
    }
    let ifindex = bed.ifindex(Side::R);
    let mut results = vec![Vec::with_capacity(options.rounds); cases.len()];
    let mut counters = vec![0; cases.len()];
    for round in 0..options.rounds {
        progress("measure", round, options.rounds);
        for ((case, times), counter) in cases.iter().zip(&mut results).zip(&mut counters) {
            let instance = instances.get_mut(&*case.of).ok_or("an instance is missing")?;
            let packets = case.packets(options);
            times.push(instance.measure(case, ifindex, packets, *counter).map_err(|e| format!("{}: {e}", case.name))?);
            *counter += u64::from(packets);
        }
    }
    Ok(Report::new(cases.into_iter().zip(results)))
}
