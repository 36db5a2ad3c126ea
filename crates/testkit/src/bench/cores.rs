//! What two CPUs do at once, beside what each does alone: packets of different connections of the same services. Where both
//! write one cache line, or wait for one lock, two do less than twice as much.

use super::cases::{self, Case};
use super::instance::{Instance, Times};
use super::locks::Samples;
use super::{Options, median, own_namespace};
use crate::golden::Side;
use serde::Serialize;

/// The cases of [`cases::all`] that are measured; the last ones open connections.
pub const CASES: [&str; 5] = [
    "nat v4 tcp request, 512K",
    "nat v4 tcp reply, 512K",
    "dr v4 tcp request, 512K",
    "nat v4 wrr tcp new",
    "nat v4 mh tcp new",
];

/// A case on one CPU and on two.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Both {
    /// Its name.
    pub case: String,
    /// Nanoseconds a packet on one CPU while the other has none: the fastest round.
    pub alone_ns: f64,
    /// The same, the middle round.
    pub alone_median_ns: f64,
    /// What both do in a time, over what one does in it: the middle round. 2: they do not disturb each other.
    pub times: f64,
    /// Of a hundred samples of both at once, those in which one waited for a lock; none without `perf`.
    pub waits: Option<f64>,
}

/// The measurements, and what a connection takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cores {
    /// Rounds, each of all cases, alone and at once.
    pub rounds: usize,
    /// Connections of the cases with many.
    pub connections: u32,
    /// The cases.
    pub cases: Vec<Both>,
    /// Bytes of kernel memory that a connection by NAT takes.
    pub bytes_a_connection: f64,
}

impl Cores {
    /// A case.
    pub fn case(&self, name: &str) -> Option<&Both> {
        self.cases.iter().find(|both| both.case == name)
    }
}

/// So many times as much as one: packets of both over the time from the first to the last.
fn times(alone_ns: f64, both: &[Times; 2], count: u32) -> f64 {
    let (begun, ended) = both.iter().fold((u64::MAX, 0), |(b, e), t| (b.min(t.begun), e.max(t.ended)));
    2.0 * f64::from(count) * alone_ns / ended.saturating_sub(begun).max(1) as f64
}

/// Measures on CPUs 0 and 1. The calling thread gets a network namespace of its own and stays in it.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Cores, String> {
    let bed = own_namespace()?;
    let catalogue = cases::all(options);
    let wanted: Vec<&Case> = CASES.iter().map(|name| cases::named(&catalogue, name)).collect::<Result<_, _>>()?;
    let ifindex = bed.ifindex(Side::R);
    crate::cpu::pin(0, &[0])?;
    let mut measured = Vec::new();
    for (done, case) in wanted.iter().enumerate() {
        progress("set up", done, wanted.len());
        measured.push((*case, Instance::new(&cases::setup(&case.of, options), &bed)?, 0_u64, Vec::new(), Vec::new()));
    }
    let known = measured.first().ok_or("nothing is measured")?;
    let room =
        cases::setup(&known.0.of, options).map_sizes.iter().find(|(name, _)| *name == "CONNS4").map_or(1, |(_, n)| *n);
    let bytes = known.1.kernel().map_bytes("CONNS4").map_err(|e| e.to_string())?;
    for round in 0..options.rounds {
        progress("two CPUs", round, options.rounds);
        for (case, instance, counter, alone, both) in &mut measured {
            let count = case.packets(options);
            let fail = |e: String| format!("{}: {e}", case.name);
            let mut next = || {
                *counter += u64::from(count);
                *counter - u64::from(count)
            };
            let mut one = [0.0; 2];
            for (cpu, ns) in one.iter_mut().enumerate() {
                let from = [next()];
                let [times] =
                    instance.send_on([Some(cpu)], case.program, &case.packets, ifindex, count, from).map_err(fail)?;
                *ns = (times.ended - times.begun) as f64 / f64::from(count);
            }
            let from = [next(), next()];
            let at_once = instance
                .send_on([Some(0), Some(1)], case.program, &case.packets, ifindex, count, from)
                .map_err(fail)?;
            alone.extend(one);
            both.push(times((one[0] + one[1]) / 2.0, &at_once, count));
        }
    }
    let mut cases = Vec::new();
    for (done, (case, mut instance, mut counter, alone, both)) in measured.into_iter().enumerate() {
        progress("locks", done, wanted.len());
        let count = case.packets(options);
        // Apart from the rounds that are timed: sampling takes time.
        let samples = Samples::begin()?;
        for _ in 0..if samples.is_some() { options.rounds } else { 0 } {
            let from = [counter, counter + u64::from(count)];
            counter += 2 * u64::from(count);
            instance.send_on([Some(0), Some(1)], case.program, &case.packets, ifindex, count, from)?;
        }
        cases.push(Both {
            case: case.name.clone(),
            alone_ns: alone.iter().copied().fold(f64::INFINITY, f64::min),
            alone_median_ns: median(alone),
            times: median(both),
            waits: samples.map(Samples::end).transpose()?,
        });
    }
    Ok(Cores {
        rounds: options.rounds,
        connections: options.connections,
        cases,
        // An entry for each direction.
        bytes_a_connection: bytes as f64 / f64::from(room) * 2.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_do_not_disturb_each_other_do_twice_as_much() {
        let both = |a: u64, b: u64| [Times { begun: 1000, ended: 1000 + a }, Times { begun: 1000, ended: 1000 + b }];
        assert_eq!(times(100.0, &both(100_000, 100_000), 1000), 2.0);
        assert_eq!(times(100.0, &both(200_000, 150_000), 1000), 1.0);
    }

    #[test]
    fn the_cases_are_some_of_the_benchs() {
        let all = cases::all(&Options::default());
        for name in CASES {
            assert!(all.iter().any(|case| case.name == name), "{name}");
        }
    }
}
