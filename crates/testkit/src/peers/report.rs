//! What a run has shown: for each setting, column and contestant the best round, the middle one, and what that is of plain
//! routing.

use super::case::Column;
use super::contestant::{ALL, Contestant, LIMIT, Setting};
use crate::failover::report::summary;
use crate::occasion;
use serde::Serialize;
use std::fmt;

/// One value of one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// How links were.
    pub setting: Setting,
    /// What it says.
    pub column: Column,
    /// Of whom.
    pub contestant: Contestant,
    /// In which round.
    pub round: usize,
    /// In the column's unit.
    pub value: f64,
}

/// All rounds of one contestant in one column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// How links were.
    #[serde(serialize_with = "setting")]
    pub setting: Setting,
    /// What is measured.
    #[serde(serialize_with = "title")]
    pub column: Column,
    /// The unit of the numbers.
    pub unit: &'static str,
    /// Otherwise less is.
    pub more_is_better: bool,
    /// Of whom.
    #[serde(serialize_with = "name")]
    pub contestant: Contestant,
    /// In the order of rounds.
    pub rounds: Vec<f64>,
    /// The most where more is better, otherwise the minimum.
    pub best: f64,
    /// The middle round.
    pub median: f64,
    /// The middle one of what each round's value is of plain routing's in the same round.
    pub ratio: Option<f64>,
}

fn setting<S: serde::Serializer>(value: &Setting, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(value.name())
}

fn title<S: serde::Serializer>(value: &Column, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.title())
}

fn name<S: serde::Serializer>(value: &Contestant, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(value.name)
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// When, for people.
    pub day: String,
    /// The kernel's release.
    pub kernel: String,
    /// The machine's CPUs.
    pub cpus: usize,
    /// How often everything was measured.
    pub rounds: usize,
    /// How long each time.
    pub seconds: u32,
    /// Requests a second where time to answer was measured.
    pub rate: f64,
    /// The share of the machine's work meanwhile that was not the bench's.
    pub others: f64,
    /// See [`Point`].
    pub points: Vec<Point>,
}

/// The JSON of a run.
#[derive(Serialize)]
pub struct Saved<'r> {
    day: &'r str,
    kernel: &'r str,
    cpus: usize,
    rounds: usize,
    seconds: u32,
    rate: f64,
    others: f64,
    rows: Vec<Row>,
}

impl Report {
    /// One without values yet, of here and now.
    pub fn new(rounds: usize, seconds: u32, rate: f64) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            day: occasion::day(),
            kernel: occasion::kernel(),
            cpus,
            rounds,
            seconds,
            rate,
            others: 0.0,
            points: Vec::new(),
        }
    }

    /// A contestant's rounds in a column.
    pub fn row(&self, setting: Setting, column: Column, contestant: Contestant) -> Option<Row> {
        let of = |contestant| move |p: &&Point| (p.setting, p.column, p.contestant) == (setting, column, contestant);
        let own: Vec<&Point> = self.points.iter().filter(of(contestant)).collect();
        let rounds: Vec<f64> = own.iter().map(|point| point.value).collect();
        let (median, least, most) = summary(&rounds)?;
        let limit = |round| self.points.iter().filter(of(LIMIT)).find(|p| p.round == round);
        let ratios: Vec<f64> = own.iter().filter_map(|p| Some(p.value / limit(p.round)?.value)).collect();
        let more_is_better = column.more_is_better();
        Some(Row {
            setting,
            column,
            unit: column.unit(),
            more_is_better,
            contestant,
            best: if more_is_better { most } else { least },
            median,
            ratio: summary(&ratios).map(|(median, ..)| median),
            rounds,
        })
    }

    /// All of a column, in the order of tables.
    pub fn column(&self, setting: Setting, column: Column) -> Vec<Row> {
        ALL.into_iter().filter_map(|contestant| self.row(setting, column, contestant)).collect()
    }

    /// For `target/bench/peers.json`.
    pub fn saved(&self) -> Saved<'_> {
        let all = Setting::ALL.into_iter().flat_map(|s| Column::all().map(move |column| (s, column)));
        let rows = all.flat_map(|(setting, column)| self.column(setting, column)).collect();
        let Self { day, kernel, cpus, rounds, seconds, rate, others, .. } = self;
        let (cpus, rounds, seconds, rate, others) = (*cpus, *rounds, *seconds, *rate, *others);
        Saved { day, kernel, cpus, rounds, seconds, rate, others, rows }
    }
}

/// The best of some rows, by what they are of plain routing.
pub fn best(rows: &[Row], wanted: impl Fn(Contestant) -> bool) -> Option<&Row> {
    let better = |one: &&Row, other: &&Row| {
        let [one, other] = [one, other].map(|row| row.ratio.unwrap_or(f64::NAN));
        if rows.iter().all(|row| row.more_is_better) { one.total_cmp(&other) } else { other.total_cmp(&one) }
    };
    rows.iter().filter(|row| row.ratio.is_some() && wanted(row.contestant)).max_by(better)
}

/// Three digits that mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 99.95 => format!("{value:.0}"),
        middle if middle >= 9.995 => format!("{value:.1}"),
        small if small >= 0.1 || small == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// For a terminal.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for setting in Setting::ALL {
            for column in Column::all() {
                let rows = self.column(setting, column);
                if rows.is_empty() {
                    continue;
                }
                writeln!(f, "{}, {} ({})", column.title(), column.unit(), setting.name())?;
                for row in rows {
                    let ratio = row.ratio.map(number).unwrap_or_default();
                    let [best, median] = [row.best, row.median].map(number);
                    writeln!(
                        f,
                        "  {:<9} best {best:>7}  median {median:>7}  of routing {ratio:>5}",
                        row.contestant.name
                    )?;
                }
            }
        }
        writeln!(f, "others took {:.0} % of the work that this machine did meanwhile", self.others * 100.0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::case::Case;
    use super::*;

    /// Three rounds of everything: each contestant reaches 100, 200 and 300 times its number, counted from the end, so that
    /// routing is ten times what nginx is; what takes time takes as many times as long.
    pub fn full() -> Report {
        let mut report = Report {
            day: "1 January 2026".to_owned(),
            kernel: "6.18".to_owned(),
            others: 0.25,
            ..Report::new(3, 1, 2000.0)
        };
        for setting in Setting::ALL {
            for (column, (at, contestant)) in
                Column::all().flat_map(|c| ALL.into_iter().enumerate().map(move |x| (c, x)))
            {
                let is_measured = column.case().is_measured_in(setting) && column.case().is_for(contestant);
                if !is_measured || !contestant.fits(setting) {
                    continue;
                }
                let factor = if column.more_is_better() { (10 - at) as f64 } else { (at + 1) as f64 };
                let point = |round: usize| Point {
                    setting,
                    column,
                    contestant,
                    round,
                    value: factor * 100.0 * (round + 1) as f64,
                };
                report.points.extend((0..3).map(point));
            }
        }
        report
    }

    #[test]
    fn ratios_are_of_the_same_round_and_the_best_is_what_is_better() {
        let report = full();
        let nginx = ALL[9];
        let row = report.row(Setting::Frames, Column::Rate(Case::Requests), nginx).unwrap();
        assert_eq!((row.best, row.median, row.ratio), (300.0, 200.0, Some(0.1)));
        let row = report.row(Setting::Frames, Column::Answer(990), nginx).unwrap();
        assert_eq!((row.best, row.median, row.ratio), (1000.0, 2000.0, Some(10.0)));
        assert_eq!(report.row(Setting::Offloads, Column::Answer(990), nginx), None);
    }

    #[test]
    fn a_slow_round_of_all_does_not_change_the_ratio() {
        let mut report = full();
        let slow = |point: &&mut Point| point.round == 1;
        report.points.iter_mut().filter(slow).for_each(|point| point.value /= 50.0);
        let row = report.row(Setting::Frames, Column::Rate(Case::Streams), ALL[5]).unwrap();
        assert_eq!(row.ratio, Some(0.5));
    }

    #[test]
    fn the_best_is_the_fastest_or_the_shortest() {
        let report = full();
        for column in [Column::Rate(Case::Datagrams), Column::Cpu(Case::Datagrams)] {
            let rows = report.column(Setting::Frames, column);
            assert_eq!(best(&rows, Contestant::is_ours).map(|row| row.contestant.name), Some("xdp nat"));
            assert_eq!(best(&rows, |c| c == ALL[8]), None, "HAProxy carries no datagrams");
        }
    }

    #[test]
    fn the_json_has_a_row_for_each_contestant_and_column() {
        let json = serde_json::to_value(full().saved()).unwrap();
        let rows = json["rows"].as_array().unwrap();
        // Of 15 columns with frames two are of datagrams, which nine carry; with offloads six columns of seven.
        assert_eq!(rows.len(), 13 * 10 + 2 * 9 + 6 * 7);
        for field in ["setting", "column", "unit", "contestant", "rounds", "best", "median", "ratio", "more_is_better"]
        {
            assert!(rows.iter().all(|row| !row[field].is_null()), "{field}");
        }
        assert_eq!((json["rate"].as_f64(), json["others"].as_f64()), (Some(2000.0), Some(0.25)));
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.01234, 0.1234, 1.234, 9.996, 12.34, 99.96, 1234.4].map(number);
        assert_eq!(texts, ["0.00", "0.012", "0.12", "1.23", "10.0", "12.3", "100", "1234"]);
    }
}
