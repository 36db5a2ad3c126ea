//! `make bench-peers`: ours and others that balance connections, side by side with plain routing, in namespaces of one machine
//! and with real programs.
//!
//! Each contestant ([`contestant`]) has a lab of its own ([`site`]); all are there at once, and each round measures every case
//! ([`case`]) of every contestant in turn. Clients' programs run on one CPU, servers' on another, the director's on both: the
//! kernel carries a packet on the CPU that sent it. Results are compared with plain routing of the same round ([`report`]),
//! and written into the documents as tables ([`page`]) and pictures ([`plot`]).

pub mod case;
pub mod contestant;
pub mod datagrams;
pub mod open_loop;
pub mod page;
pub mod plot;
pub mod programs;
pub mod report;
pub mod site;

use crate::cpu;
use case::Case;
use contestant::{ALL, Contestant, LIMIT, Setting};
use report::{Point, Report};
use site::Site;
use std::path::PathBuf;
use std::time::Duration;

/// Where clients' programs run.
pub const CLIENT_CPU: usize = 0;
/// Where servers' programs run.
pub const SERVER_CPU: usize = 1;
/// Of what plain routing answers in a second at most, so much is asked where time to answer is measured.
const RATE: f64 = 0.2;

/// Before a measurement that failed is made again.
const PAUSE: Duration = Duration::from_secs(1);

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub dirigent: PathBuf,
    /// Rounds of all cases and contestants.
    pub rounds: usize,
    /// Seconds of one measurement.
    pub seconds: u32,
    /// Only those whose setting, case and contestant have all of these words, or of words between commas one; and what they
    /// are held against.
    pub only: Vec<String>,
}

/// A case of a contestant in a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    setting: Setting,
    case: Case,
    contestant: Contestant,
}

impl Cell {
    fn name(&self) -> String {
        format!("{} {} {}", self.setting.name(), self.case.name(), self.contestant.name)
    }

    fn has(&self, words: &[String]) -> bool {
        let name = self.name();
        let own: Vec<_> = name.split(' ').collect();
        let has = |word: &str| word.split(',').any(|one| own.contains(&one));
        words.iter().flat_map(|words| words.split_whitespace()).all(has)
    }
}

/// What is to be measured, in the order of a round.
fn cells(only: &[String]) -> Vec<Cell> {
    let mut all = Vec::new();
    for setting in Setting::ALL {
        for case in Case::ALL.into_iter().filter(|case| case.is_measured_in(setting)) {
            for contestant in ALL.into_iter().filter(|c| c.fits(setting) && case.is_for(*c)) {
                all.push(Cell { setting, case, contestant });
            }
        }
    }
    let wanted: Vec<_> = all.iter().copied().filter(|cell| cell.has(only)).collect();
    let needed = |cell: &Cell| {
        let same = |other: &Cell| (other.setting, other.case) == (cell.setting, cell.case);
        wanted.contains(cell) || (cell.contestant == LIMIT && wanted.iter().any(same))
    };
    all.into_iter().filter(needed).collect()
}

/// Measures all of it. `progress` is told what is under way and how much of it is done, of how much.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str, usize, usize)) -> Result<Report, String> {
    let cells = cells(&options.only);
    if cells.is_empty() {
        return Err(format!("nothing is called {}", options.only.join(" ")));
    }
    site::clean_stale(&options.dirigent)?;
    let mut wanted: Vec<(Setting, Contestant)> = Vec::new();
    for cell in &cells {
        if !wanted.contains(&(cell.setting, cell.contestant)) {
            wanted.push((cell.setting, cell.contestant));
        }
    }
    let mut sites: Vec<Site> = Vec::new();
    for (setting, contestant) in &wanted {
        progress("set up", sites.len(), wanted.len());
        sites.push(Site::up(&options.dirigent, *contestant, *setting)?);
    }
    let mut measure = case::Measure { time: Duration::from_secs(options.seconds.into()), rate: 0.0 };
    if let Some(site) = sites.iter().find(|site| site.is_limit()) {
        measure.rate = case::rate(site, measure)? * RATE;
    }
    let mut report = Report::new(options.rounds, options.seconds, measure.rate);
    let (begun, ours) = (cpu::machine_busy(), cpu_of(&sites));
    for round in 0..options.rounds {
        for (done, cell) in turned(&cells, round).enumerate() {
            progress(&cell.name(), round * cells.len() + done, options.rounds * cells.len());
            let site = sites.iter().find(|s| (s.setting, s.contestant) == (cell.setting, cell.contestant));
            let Some(site) = site else { continue };
            let outcome = measure.run(cell.case, site).or_else(|e| {
                // Once: a program of the last measurement may not be done yet.
                eprintln!("{}, and again: {e}", cell.name());
                std::thread::sleep(PAUSE);
                measure.run(cell.case, site).map_err(|e| format!("{}: {e}", cell.name()))
            })?;
            if outcome.errors > 0 {
                eprintln!("{}: {} failed", cell.name(), outcome.errors);
            }
            report.points.extend(outcome.values.iter().map(|(column, value)| Point {
                setting: cell.setting,
                column: *column,
                contestant: cell.contestant,
                round,
                value: *value,
            }));
        }
    }
    let busy = cpu::machine_busy().saturating_sub(begun);
    report.others = others(busy, cpu_of(&sites).saturating_sub(ours));
    Ok(report)
}

/// The share of the machine's work that was not this bench's.
fn others(busy: Duration, ours: Duration) -> f64 {
    if busy.is_zero() { 0.0 } else { (1.0 - ours.as_secs_f64() / busy.as_secs_f64()).max(0.0) }
}

fn cpu_of(sites: &[Site]) -> Duration {
    // What all share, such as this process, is in each account.
    let shared = cpu::Account::of([]).taken();
    sites.iter().map(|site| site.cpu().saturating_sub(shared)).sum::<Duration>() + shared
}

/// Each round begins with another contestant, so that none is always measured after the same one.
fn turned(cells: &[Cell], round: usize) -> impl Iterator<Item = &Cell> {
    let mut rest = cells;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let length = rest.iter().take_while(|c| (c.setting, c.case) == (first.setting, first.case)).count();
        let (group, after) = rest.split_at(length);
        rest = after;
        Some(group.iter().cycle().skip(round % length).take(length))
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_is_measured_in_every_case_that_is_for_it() {
        let all = cells(&[]);
        let count = |setting, case| all.iter().filter(|c| (c.setting, c.case) == (setting, case)).count();
        assert_eq!(count(Setting::Frames, Case::Requests), 10);
        assert_eq!(count(Setting::Frames, Case::Datagrams), 9, "HAProxy carries none");
        assert_eq!(count(Setting::Offloads, Case::OneStream), 7, "not by XDP");
        assert_eq!(count(Setting::Offloads, Case::Datagrams), 0, "offloads do nothing for them");
    }

    #[test]
    fn words_choose_and_the_limit_comes_with_them() {
        let some = cells(&["frames requests".to_owned(), "xdp".to_owned()]);
        let names: Vec<_> = some.iter().map(|cell| (cell.case, cell.contestant.name)).collect();
        let requests = |name| (Case::Requests, name);
        assert_eq!(names, [requests("routing"), requests("xdp nat"), requests("xdp dr"), requests("xdp tun")]);
        let two = cells(&["frames down,latency nginx".to_owned()]);
        assert_eq!(two.iter().filter(|cell| cell.contestant.name == "nginx").count(), 2);
        assert!(cells(&["nothing".to_owned()]).is_empty());
    }

    #[test]
    fn rounds_begin_with_another_contestant_and_leave_none_out() {
        let some = cells(&["frames".to_owned()]);
        for round in 0..11 {
            let order: Vec<_> = turned(&some, round).collect();
            assert!(some.iter().all(|cell| order.contains(&cell)) && order.len() == some.len());
            assert_eq!(order[0].contestant, ALL[round % 10]);
            assert!(order.windows(2).filter(|two| two[0].case != two[1].case).count() == Case::ALL.len() - 1);
        }
    }

    #[test]
    fn what_is_not_ours_is_others() {
        let s = Duration::from_secs;
        assert!((others(s(10), s(9)) - 0.1).abs() < 1e-9);
        assert_eq!((others(s(0), s(0)), others(s(1), s(2))), (0.0, 0.0));
    }
}
