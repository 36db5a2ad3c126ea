//! The tables of docs/peers.md and README.md, between marks that the command knows.

use super::case::{Case, Column};
use super::contestant::{ALL, Contestant, LIMIT, Program, Setting};
use super::report::{Report, Row, best, number};
use dirigent_net::lab::Mode;
use std::fmt::Write as _;

/// What the command writes: it stands between two marks, which begin so.
pub const TABLES: &str = "make bench-peers writes";

/// When and where, and how quiet it was.
fn occasion(report: &Report) -> String {
    format!(
        "{}, Linux {}, {} CPUs, {} rounds of {} s; of what the machine did meanwhile {:.0} % was others' work",
        report.day,
        report.kernel,
        report.cpus,
        report.rounds,
        report.seconds,
        report.others * 100.0
    )
}

/// All that was measured, for docs/peers.md.
pub fn tables(report: &Report) -> String {
    let cases = || Case::ALL.into_iter().filter(|case| *case != Case::Latency);
    let rates: Vec<_> = cases().map(Column::Rate).collect();
    let cpu: Vec<_> = cases().map(Column::Cpu).collect();
    let answers: Vec<_> = Column::all().filter(|column| matches!(column, Column::Answer(_))).collect();
    let mut text = format!("{}.\n", occasion(report));
    let mut section = |title: &str, setting, columns: &[Column]| {
        let _ = write!(text, "\n### {title}\n\n{}", table(report, setting, columns));
    };
    section("Frames as on a wire: what goes through", Setting::Frames, &rates);
    section("Frames as on a wire: CPU time", Setting::Frames, &cpu);
    let rate = (report.rate / 100.0).round() * 100.0;
    section(&format!("Frames as on a wire: time to answer {rate:.0} requests a second"), Setting::Frames, &answers);
    section("With offloads: what goes through", Setting::Offloads, &rates);
    section("With offloads: CPU time", Setting::Offloads, &cpu);
    text
}

fn table(report: &Report, setting: Setting, columns: &[Column]) -> String {
    let columns: Vec<_> = columns.iter().filter(|column| column.case().is_measured_in(setting)).collect();
    let mut head = String::from("| |");
    for column in &columns {
        let title = column.title();
        let title = title.strip_prefix("CPU: ").unwrap_or(&title);
        let _ = write!(head, " {title}, {} |", column.unit());
    }
    let mut text = format!("{head}\n|---|{}\n", "---|".repeat(columns.len()));
    for contestant in ALL.into_iter().filter(|contestant| contestant.fits(setting)) {
        let _ = write!(text, "| {} |", contestant.name);
        for column in &columns {
            let row = report.row(setting, **column, contestant);
            let _ = write!(text, " {} |", row.as_ref().map_or_else(|| "–".to_owned(), cell));
        }
        text.push('\n');
    }
    text
}

/// Best round, middle round, and what it is of plain routing.
fn cell(row: &Row) -> String {
    let ratio = row.ratio.filter(|_| row.contestant != LIMIT).map(|ratio| format!(" ({})", number(ratio)));
    format!("{} / {}{}", number(row.best), number(row.median), ratio.unwrap_or_default())
}

/// Of ours those that do what the others do.
fn is_nat(contestant: Contestant) -> bool {
    matches!(contestant.program, Program::Dirigent(_, Mode::Nat))
}

/// The table of README.md: case, ours, best peer, limit, ratio.
pub fn summary(report: &Report) -> String {
    let frames = Column::all().filter(|column| match column {
        Column::Rate(_) => true,
        Column::Cpu(case) => matches!(case, Case::Streams | Case::Datagrams),
        Column::Answer(of) => *of > 500,
    });
    let offloads = [Case::OneStream, Case::Streams, Case::Down].map(Column::Rate);
    let all = frames.map(|column| (Setting::Frames, column));
    let all = all.chain(offloads.map(|column| (Setting::Offloads, column)));
    let mut text =
        String::from("| case | ours, NAT | best peer | limit: plain routing | ours of limit | ours of peer |\n");
    text += "|---|---|---|---|---|---|\n";
    for (setting, column) in all {
        let rows = report.column(setting, column);
        let is_peer = |contestant: Contestant| !contestant.is_ours() && contestant != LIMIT;
        let (Some(ours), Some(peer)) = (best(&rows, is_nat), best(&rows, is_peer)) else { continue };
        let Some(limit) = rows.iter().find(|row| row.contestant == LIMIT) else { continue };
        let how = match (setting, column.more_is_better()) {
            (Setting::Offloads, _) => ", with offloads",
            (_, true) => "",
            (_, false) => " (less is better)",
        };
        let named = |row: &Row| format!("{} ({})", number(row.median), row.contestant.name);
        let of = |row: &Row| row.ratio.unwrap_or(f64::NAN);
        let _ = writeln!(
            text,
            "| {}{how}, {} | {} | {} | {} | {} | {} |",
            column.title(),
            column.unit(),
            named(ours),
            named(peer),
            number(limit.median),
            number(of(ours)),
            number(of(ours) / of(peer))
        );
    }
    let _ =
        write!(text, "\n`make bench-peers` on {}. Middle rounds, and the middle ratios of rounds.\n", occasion(report));
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::full;
    use super::*;

    fn rows(text: &str) -> Vec<Vec<&str>> {
        let lines = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
        lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    #[test]
    fn each_contestant_has_a_row_of_as_many_cells_as_the_head() {
        let text = tables(&full());
        let all = rows(&text);
        // Three tables of ten and two of seven, with a head each.
        assert_eq!(all.len(), 3 * 11 + 2 * 8);
        for part in text.split("\n### ").skip(1) {
            let rows = rows(part);
            assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{part}");
        }
        let haproxy = all.iter().find(|row| row[0] == "haproxy").unwrap();
        assert_eq!(haproxy[4..], ["600 / 400 (0.20)", "600 / 400 (0.20)", "–"]);
        assert_eq!(all[1][..2], ["routing", "3000 / 2000"]);
    }

    #[test]
    fn the_summary_compares_nat_with_the_best_peer_and_the_limit() {
        let text = summary(&full());
        let all = rows(&text);
        assert_eq!(all.len(), 1 + 6 + 2 + 2 + 3);
        let find = |begin: &str| all.iter().find(|row| row[0].starts_with(begin)).unwrap()[1..].to_vec();
        let requests = find("HTTP requests");
        assert_eq!(requests, ["1800 (xdp nat)", "600 (nftables)", "2000", "0.90", "3.00"]);
        let late = find("time to answer, p99 (less is better)");
        assert_eq!(late, ["400 (xdp nat)", "1600 (nftables)", "200", "2.00", "0.25"]);
        let offloads = find("TCP, one stream to the server, with offloads");
        assert_eq!(offloads[0], "1200 (tc nat)");
        assert!(text.contains("1 January 2026") && text.contains("25 % was others' work"), "{text}");
    }
}
