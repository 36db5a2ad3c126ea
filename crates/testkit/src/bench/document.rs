//! The tables of docs/performance.md that `make bench` writes, each between marks of its own.

use std::fmt::Write as _;
use std::path::Path;

use dirigent_director::schedule::Scheduler;

use super::cases::SERVERS_OF_SCHEDULERS;
use super::options::WITH;
use super::report::{Report, Row};
use super::{Changes, Live, Options, instructions};
use crate::{marked, occasion};

/// A part of the document: it stands between two marks that begin so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part(&'static str);

impl Part {
    /// All cases with goals, and the floors.
    pub const CASES: Self = Self("make bench ARGS=--write writes cases");
    /// New connections by scheduler and number of servers.
    pub const SCHEDULERS: Self = Self("make bench ARGS=--write writes new connections");
    /// The cost of options.
    pub const OPTIONS: Self = Self("make bench ARGS=--write writes options");
    /// Forwarding while the configuration changes.
    pub const CHANGES: Self = Self("make bench ARGS=--write writes changes");
    /// Live connections.
    pub const LIVE: Self = Self("make bench ARGS=--write writes live connections");
    /// Instructions a packet.
    pub const INSTRUCTIONS: Self = Self("make bench ARGS=--write writes instructions");
    /// All.
    pub const ALL: [Self; 6] =
        [Self::CASES, Self::SCHEDULERS, Self::OPTIONS, Self::CHANGES, Self::LIVE, Self::INSTRUCTIONS];
}

/// Writes these parts of a document anew.
pub fn write(file: &Path, parts: &[(Part, String)]) -> Result<(), String> {
    marked::rewrite(file, |text| with(text, parts))
}

fn with(text: &str, parts: &[(Part, String)]) -> Result<String, String> {
    parts.iter().try_fold(text.to_owned(), |text, (Part(mark), tables)| marked::with(&text, mark, tables))
}

/// When, on what, and how much of it.
fn when(kernel: &str, how: &str) -> String {
    format!("{}, Linux {kernel}{how}.\n\n", occasion::day())
}

fn now(options: &Options) -> String {
    when(&occasion::kernel(), &format!(", {} rounds of {} packets", options.rounds, options.packets))
}

/// The parts that a report has.
#[must_use]
pub fn of_report(report: &Report, options: &Options) -> Vec<(Part, String)> {
    vec![
        (Part::CASES, cases(report, options)),
        (Part::SCHEDULERS, schedulers(report, options)),
        (Part::OPTIONS, with_options(report, options)),
    ]
}

fn is_option(row: &Row) -> bool {
    row.name.starts_with(WITH)
}

/// The name of a scheduler's case.
fn scheduled(scheduler: Scheduler, servers: u32) -> String {
    format!("{} of {servers} tcp new", scheduler.name())
}

fn is_scheduled(row: &Row) -> bool {
    let each = |servers| Scheduler::ALL.iter().any(move |scheduler| scheduled(*scheduler, servers) == row.name);
    SERVERS_OF_SCHEDULERS.into_iter().any(each)
}

fn number(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.2}")).unwrap_or_default()
}

fn cases(report: &Report, options: &Options) -> String {
    let (reached, of) = report.reached();
    let mut text = now(options);
    let _ = writeln!(text, "{reached} of {of} goals are reached; what is over is bold.\n");
    text += "| case | ns, fastest round | middle round | ratio | goal | of |\n|---|---|---|---|---|---|\n";
    for row in report.rows.iter().filter(|row| !is_option(row) && !is_scheduled(row)) {
        let bold = if row.reached() == Some(false) { "**" } else { "" };
        let (ratio, goal, floor) = (number(row.ratio), number(row.goal), row.floor.as_deref().unwrap_or_default());
        let (name, min, median) = (&row.name, row.min_ns, row.median_ns);
        let _ = writeln!(text, "| {name} | {min:.1} | {median:.1} | {bold}{ratio}{bold} | {goal} | {floor} |");
    }
    text
}

fn schedulers(report: &Report, options: &Options) -> String {
    let thousands = |name: &str| {
        let row = report.rows.iter().find(|row| row.name == name)?;
        Some(format!("{:.0}", 1e6 / row.min_ns))
    };
    let mut text = now(options);
    let floor = thousands("insert floor").unwrap_or_default();
    let _ = writeln!(text, "Thousands a second on one CPU, in the fastest round; the insert floor reaches {floor}.\n");
    let names: Vec<_> = Scheduler::ALL.iter().map(|scheduler| scheduler.name()).collect();
    let _ = writeln!(text, "| servers | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for servers in SERVERS_OF_SCHEDULERS {
        let cell = |scheduler: &Scheduler| thousands(&scheduled(*scheduler, servers)).unwrap_or_default();
        let cells: Vec<_> = Scheduler::ALL.iter().map(cell).collect();
        let _ = writeln!(text, "| {servers} | {} |", cells.join(" | "));
    }
    text
}

fn with_options(report: &Report, options: &Options) -> String {
    let mut text = now(options);
    text += "| packets of a service | ns | of one without it | ns | ratio |\n|---|---|---|---|---|\n";
    for row in report.rows.iter().filter(|row| is_option(row)) {
        let base = row.floor.as_deref().unwrap_or_default();
        let without = report.rows.iter().find(|row| row.name == base).map_or(f64::NAN, |row| row.min_ns);
        let _ = writeln!(text, "| {} | {:.1} | {base} | {without:.1} | {} |", row.name, row.min_ns, number(row.ratio));
    }
    text
}

/// Forwarding while the configuration changes.
#[must_use]
pub fn changes(changes: &Changes, options: &Options) -> (Part, String) {
    let mut text = now(options);
    text += "| packets | ns, quiet | ns, while it changes | ratio | changes in a round |\n|---|---|---|---|---|\n";
    for row in &changes.rows {
        let (quiet, changing, ratio) = (row.beside.alone_ns, row.beside.beside_ns, row.beside.ratio);
        let _ = writeln!(text, "| {} | {quiet:.1} | {changing:.1} | {ratio:.2} | {:.1} |", row.name, row.changes);
    }
    (Part::CHANGES, text)
}

/// Live connections, a column for each number of them.
#[must_use]
pub fn live(runs: &[Live], options: &Options) -> (Part, String) {
    let mut text = now(options);
    let mut line = |name: &str, cell: &dyn Fn(&Live) -> String| {
        let cells: Vec<_> = runs.iter().map(cell).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    };
    line("connections", &|live| live.connections.to_string());
    line("---", &|_| "---".into());
    line("bytes of memory for each there is room for", &|live| format!("{:.1}", live.bytes_a_connection));
    line("opened and established, by three packets each, s", &|live| format!("{:.1}", live.filled_s));
    line("a sweep at full speed, s", &|live| format!("{:.1}", live.sweep_s));
    line("a sweep as the daemon does it, s", &|live| format!("{:.1}", live.paced_sweep_s));
    line("all expired in one sweep, s", &|live| format!("{:.1}", live.ended_s));
    line("requests, one of each: ns, and beside the daemon's sweep", &|live| {
        let of = live.beside_sweep;
        format!("{:.0}, {:.0}: {:.2} times", of.alone_ns, of.beside_ns, of.ratio)
    });
    line("requests of others while connections expire: how many, ns before, and beside it", &|live| {
        let of = live.beside_expiry;
        format!("{}; {:.0}, {:.0}: {:.2} times", live.expiring, of.alone_ns, of.beside_ns, of.ratio)
    });
    (Part::LIVE, text)
}

/// Instructions a packet.
#[must_use]
pub fn instructions(counted: &instructions::Counted) -> (Part, String) {
    let mut text = when(&counted.kernel, "");
    text += "| known connection | director | untraced | ratio |\n|---|---|---|---|\n";
    for row in &counted.rows {
        let _ = writeln!(text, "| {} | {:.0} | {:.0} | {:.3} |", row.name, row.director, row.untraced, row.ratio());
    }
    (Part::INSTRUCTIONS, text)
}

#[cfg(test)]
mod tests {
    use super::super::{Beside, cases as catalogue, changes};
    use super::*;

    fn report() -> Report {
        let all = catalogue::all(&Options::default());
        Report::new(all.iter().map(|case| (case, vec![if case.goals.is_empty() { 100.0 } else { 200.0 }])))
    }

    #[test]
    fn the_document_of_this_tree_has_room_for_all_parts() {
        let page = include_str!("../../../../docs/performance.md");
        let parts = Part::ALL.map(|part| (part, format!("| {} |\n", part.0)));
        let text = with(page, &parts).unwrap();
        assert!(parts.iter().all(|(_, tables)| text.contains(tables)));
        let error = with("nothing", &parts).unwrap_err();
        assert!(error.contains("writes cases from here"), "{error}");
    }

    #[test]
    fn each_case_is_in_one_table() {
        let (report, options) = (report(), Options::default());
        let parts: [(Part, String); 3] = of_report(&report, &options).try_into().unwrap();
        let [cases, schedulers, with] = parts.map(|(_, text)| text);
        for row in &report.rows {
            let line = format!("\n| {} | ", row.name);
            let tables = [&cases, &with].map(|text| text.contains(&line));
            assert_eq!(tables, [!is_option(row) && !is_scheduled(row), is_option(row)], "{}", row.name);
        }
        assert!(cases.contains("| nat v4 tcp request, 1 | 200.0 | 200.0 | **2.00** | 1.50 | hot floor |"), "{cases}");
        assert!(schedulers.contains("the insert floor reaches 10000."), "{schedulers}");
        assert!(schedulers.contains("\n| 4096 | 5000 | 5000 | "), "{schedulers}");
        assert!(with.contains("| with ftp, request | 200.0 | nat v4 tcp request, 1 | 200.0 | 1.00 |"), "{with}");
    }

    #[test]
    fn what_is_measured_beside_something_is_in_its_tables() {
        let options = Options::default();
        let beside = Beside { alone_ns: 100.0, beside_ns: 130.0, ratio: 1.3, rounds: 9 };
        let rows = vec![changes::Row { name: "nat".into(), beside, changes: 2.5 }];
        let (_, text) = super::changes(&Changes { rows }, &options);
        assert!(text.ends_with("| nat | 100.0 | 130.0 | 1.30 | 2.5 |\n"), "{text}");
        let of = |connections| Live {
            connections,
            bytes_a_connection: 303.7,
            filled_s: 1.0,
            sweep_s: 2.0,
            paced_sweep_s: 3.0,
            idle: 0,
            beside_sweep: beside,
            goal: 1.1,
            ended_s: 4.0,
            expiring: 7,
            beside_expiry: beside,
        };
        let (_, text) = live(&[of(10), of(20)], &options);
        assert!(text.contains("| connections | 10 | 20 |\n| --- | --- | --- |\n"), "{text}");
        assert!(text.ends_with(" | 7; 100, 130: 1.30 times | 7; 100, 130: 1.30 times |\n"), "{text}");
    }
}
