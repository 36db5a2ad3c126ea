//! Forwarding while the configuration changes: another thread gives servers other weights, adds and removes some, one change after
//! the other, in the tables that packets find their servers in.

use std::fmt;
use std::time::Duration;

use dirigent_config::Plan;
use serde::Serialize;

use super::cases;
use super::instance::Instance;
use super::turns::{Beside, by_turns};
use super::{Options, own_namespace};
use crate::cpu::pin;
use crate::golden::{Side, tables};

/// The cases that are measured so.
pub const CASES: [&str; 3] = ["nat v4 tcp request, 512K", "nat v4 wrr tcp new", "dr v4 wrr tcp new"];

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its packets.
    #[serde(flatten)]
    pub beside: Beside,
    /// Changes in a round, on average.
    pub changes: f64,
}

/// What a run has shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Changes {
    /// See [`Row`].
    pub rows: Vec<Row>,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:24}  {:>7}  {:>9}  {:>5}  {:>7}",
            "while configured, ns", "quiet", "changing", "ratio", "changes"
        )?;
        self.rows.iter().try_for_each(|Row { name, beside: Beside { alone_ns, beside_ns, ratio, .. }, changes }| {
            writeln!(f, "{name:24}  {alone_ns:7.1}  {beside_ns:9.1}  {ratio:5.2}  {changes:7.1}")
        })
    }
}

/// Runs them. The calling thread gets a network namespace of its own and stays in it.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Changes, String> {
    pin(0, &[options.cpu])?;
    let bed = own_namespace()?;
    let ifindex = bed.ifindex(Side::R);
    let catalogue = cases::all(options);
    // There is room for the connections of so many: each is one of two.
    let rounds = (options.rounds / 2).max(1);
    let mut rows = Vec::new();
    for name in CASES {
        let case = cases::named(&catalogue, name)?;
        let mut instance = Instance::new(&cases::setup(&case.of, options), &bed)?;
        let mut control = instance.take_control()?;
        let mut models = cases::changed(&case.of).into_iter().cycle();
        let work = |_: &mut dyn FnMut()| {
            let model = models.next().unwrap_or_default();
            let plan = Plan::between(control.model(), &model);
            tables::change(&mut control, &bed, &plan)
        };
        let mut counter = 0;
        let round = || {
            let packets = case.packets(options);
            let ns = instance.measure(case, ifindex, packets, counter).map_err(|e| format!("{name}: {e}"))?;
            counter += u64::from(packets);
            Ok(ns)
        };
        let enough = |done: usize| {
            progress(&format!("{name} while configured"), done, rounds);
            done >= rounds
        };
        let turns = by_turns(options, Duration::ZERO, work, round, enough)?;
        let changes = turns.steps as f64 / turns.beside.len() as f64;
        rows.push(Row { name: name.to_owned(), beside: Beside::of(&turns), changes });
    }
    Ok(Changes { rows })
}
