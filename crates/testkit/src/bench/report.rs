//! What a run has shown, as text and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cases::{self, Case, Goal};
use super::{NOISE, fastest, median, spread};

/// One measurement against one floor; a floor's own has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The case.
    pub name: String,
    /// The fastest round, nanoseconds a packet, the wrapper included.
    pub min_ns: f64,
    /// The middle one.
    pub median_ns: f64,
    /// The floor, or another case.
    pub floor: Option<String>,
    /// The fastest round over the floor's fastest.
    pub ratio: Option<f64>,
    /// The ratio that is aimed at, at most.
    pub goal: Option<f64>,
    /// How much chance there is in the ratio, as a part of it, by the spread of rounds.
    #[serde(default)]
    pub noise: f64,
}

/// All rows, floors first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Report {
    /// See [`Row`].
    pub rows: Vec<Row>,
}

impl Report {
    /// From the times of each case's rounds.
    pub fn new<'c>(results: impl Iterator<Item = (&'c Case, Vec<f64>)>) -> Self {
        let results: Vec<(&Case, Vec<f64>)> = results.collect();
        let mut rows = Vec::new();
        for (case, times) in &results {
            let min = fastest(times);
            let row = |goal: Option<&Goal>| {
                let floor = goal.and_then(|goal| results.iter().find(|(case, _)| case.name == goal.floor));
                Row {
                    name: case.name.clone(),
                    min_ns: rounded(min, 10.0),
                    median_ns: rounded(median(times.clone()), 10.0),
                    floor: goal.map(|goal| goal.floor.to_owned()),
                    ratio: floor.map(|(_, floor)| rounded(min / fastest(floor), 1000.0)),
                    goal: goal.and_then(|goal| goal.factor),
                    noise: rounded(spread(times) + floor.map_or(0.0, |(_, floor)| spread(floor)), 1000.0),
                }
            };
            match case.goals.as_slice() {
                [] => rows.push(row(None)),
                goals => rows.extend(goals.iter().map(|goal| row(Some(goal)))),
            }
        }
        Self { rows }
    }

    /// A case's fastest round, nanoseconds a packet.
    #[must_use]
    pub fn fastest(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.name == name).map(|row| row.min_ns)
    }

    /// Its cases, each once.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.rows.iter().map(|row| &*row.name).collect();
        names.dedup();
        names
    }

    /// What makes the run worth nothing: cases that are missing, or floors that are not
    /// what they are on a sound machine.
    #[must_use]
    pub fn faults(&self, expected: &[Case]) -> Vec<String> {
        let mut faults = Vec::new();
        for case in expected.iter().filter(|case| !self.rows.iter().any(|row| row.name == case.name)) {
            faults.push(format!("case `{}` is missing", case.name));
        }
        let [hot, swap] = cases::SANITY.map(|name| self.fastest(name).unwrap_or(f64::NAN));
        if !cases::SANE.contains(&(hot / swap)) {
            faults.push(format!(
                "hot floor / macswap is {:.2}, not {:.1} to {:.1}: the machine or the method is not sound now",
                hot / swap,
                cases::SANE.start(),
                cases::SANE.end()
            ));
        }
        faults
    }

    /// A row's ratio to a floor, also where it is held against another case, which has one; and that floor.
    fn of_floor<'r>(&'r self, row: &'r Row) -> Option<(f64, &'r str)> {
        let (ratio, against) = (row.ratio?, row.floor.as_deref()?);
        let base = self.rows.iter().find(|base| base.name == against);
        let base = base.and_then(|base| Some((base.ratio?, base.floor.as_deref()?)));
        Some(base.map_or((ratio, against), |(of_floor, floor)| (ratio * of_floor, floor)))
    }

    /// What has become slower since these were saved, by more than chance.
    #[must_use]
    pub fn slower(&self, before: &Self) -> Vec<String> {
        let slower = |row: &Row| {
            let was = before.rows.iter().find(|was| was.name == row.name && was.floor == row.floor)?;
            let ((now, floor), (then, _)) = (self.of_floor(row)?, before.of_floor(was)?);
            let noise = NOISE.max(row.noise + was.noise);
            let told = || format!("{}: {now:.3} of {floor}, and {then:.3} before", row.name);
            (now > then * (1.0 + noise)).then(told)
        };
        self.rows.iter().filter_map(slower).collect()
    }

    /// How many of the goals are reached, of how many.
    #[must_use]
    pub fn reached(&self) -> (usize, usize) {
        let with_goal: Vec<bool> = self.rows.iter().filter_map(Row::reached).collect();
        (with_goal.iter().filter(|reached| **reached).count(), with_goal.len())
    }
}

impl Row {
    /// Whether the goal is reached, if there is one.
    pub(super) fn reached(&self) -> Option<bool> {
        Some(self.ratio? <= self.goal?)
    }
}

fn rounded(value: f64, to: f64) -> f64 {
    (value * to).round() / to
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        writeln!(f, "{:width$}  {:>7}  {:>7}  {:>6}  {:>5}  floor", "ns/packet", "min", "median", "ratio", "goal")?;
        for row in &self.rows {
            let number = |value: Option<f64>| value.map(|v| format!("{v:.2}")).unwrap_or_default();
            let line = format!(
                "{:width$}  {:7.1}  {:7.1}  {:>6}  {:>5}  {}{}",
                row.name,
                row.min_ns,
                row.median_ns,
                number(row.ratio),
                number(row.goal),
                row.floor.as_deref().unwrap_or_default(),
                if row.reached() == Some(false) { "  (over)" } else { "" }
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        let (reached, of) = self.reached();
        writeln!(f, "{reached} of {of} goals reached")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, cases};
    use super::*;

    fn times(of: impl Fn(&Case) -> f64) -> Vec<(Case, Vec<f64>)> {
        let all = cases::all(&Options::default());
        all.into_iter().map(|case| (case.clone(), vec![of(&case) + 1.0, of(&case), of(&case) + 2.0])).collect()
    }
    fn report(results: &[(Case, Vec<f64>)]) -> Report {
        Report::new(results.iter().map(|(case, times)| (case, times.clone())))
    }
    fn sound(case: &Case) -> f64 {
        if case.name == "macswap" { 10.0 } else { 28.0 }
    }

    #[test]
    fn ratios_are_of_the_fastest_rounds() {
        let report = report(&times(|case| if case.goals.is_empty() { sound(case) } else { 42.0 }));
        let row = report.rows.iter().find(|row| row.name == "nat v4 tcp request, 1").unwrap();
        assert_eq!((row.min_ns, row.median_ns, row.ratio, row.goal), (42.0, 43.0, Some(1.5), Some(1.5)));
        assert_eq!(row.reached(), Some(true));
        assert!(report.faults(&cases::all(&Options::default())).is_empty());
    }

    #[test]
    fn a_missing_case_and_an_unsound_machine_are_faults() {
        let mut some = times(|case| if case.name == "macswap" { 20.0 } else { 28.0 });
        let gone = some.pop().unwrap().0;
        let faults = report(&some).faults(&cases::all(&Options::default()));
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains(&gone.name) && faults[1].contains("1.40"), "{faults:?}");
    }

    #[test]
    fn what_became_slower_by_more_than_chance_is_named() {
        let of = |nat: f64| report(&times(|case| if case.name == "nat v4 tcp request, 1" { nat } else { sound(case) }));
        let before = of(42.0);
        assert_eq!(of(43.9).slower(&before), [""; 0]);
        assert_eq!(of(30.0).slower(&before), [""; 0]);
        let slower = of(56.0).slower(&before);
        assert_eq!(slower, ["nat v4 tcp request, 1: 2.000 of hot floor, and 1.500 before"]);
        let read: Report = serde_json::from_value(serde_json::to_value(&before).unwrap()).unwrap();
        assert_eq!((of(56.0).slower(&read), of(56.0).slower(&Report::default())), (slower, Vec::new()));
    }

    #[test]
    fn the_json_is_an_array_of_rows() {
        let json = serde_json::to_value(report(&times(sound))).unwrap();
        for row in json.as_array().unwrap() {
            for field in ["name", "min_ns", "median_ns", "floor", "ratio", "goal", "noise"] {
                assert!(row.get(field).is_some(), "{field}: {row}");
            }
        }
    }
}
