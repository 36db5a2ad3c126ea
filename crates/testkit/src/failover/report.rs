//! The table, and the same as JSON.

use serde::Serialize;
use std::fmt::Write as _;

/// What one scenario cost the clients of one service.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What happened.
    pub scenario: String,
    /// Whose failover it is.
    pub who: String,
    /// Forwarding method, or `plain` for a program on the master itself; and the family.
    pub mode: String,
    /// Long transfers that came back whole.
    pub survived: usize,
    /// Long transfers.
    pub transfers: usize,
    /// Short requests.
    pub requests: usize,
    /// Those without an answer in 1 s.
    pub lost: usize,
    /// The longest time from one answered request's beginning to the next one's.
    pub pause_ms: f64,
    /// When another host first announced the address, from the event on.
    pub announced_ms: Option<f64>,
    /// The longest time for which two hosts answered for the address.
    pub two_answerers_ms: f64,
    /// Why a transfer broke.
    pub broken: Option<String>,
}

/// Many failovers of a master whose links are cut.
#[derive(Clone, Debug, Serialize)]
pub struct Fast {
    /// Whose failover it is.
    pub who: String,
    /// The clients' longest pause in each run.
    pub pauses_ms: Vec<f64>,
    /// When the other host announced the address.
    pub announced_ms: Vec<f64>,
}

/// All that was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// From one advert to the next.
    pub interval_ms: u64,
    /// Whether the directors told each other of connections.
    pub sync: bool,
    /// The table.
    pub scenarios: Vec<Row>,
    /// With `--fast`.
    pub fast: Vec<Fast>,
}

/// Median, least and most.
pub fn summary(all: &[f64]) -> Option<(f64, f64, f64)> {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    let middle = all.get(all.len() / 2).copied()?;
    // Of an even number the mean of the two in the middle.
    let below = if all.len().is_multiple_of(2) { all.get(all.len() / 2 - 1).copied()? } else { middle };
    Some(((middle + below) / 2.0, *all.first()?, *all.last()?))
}

/// The table for people.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<13} {:<10} {:<8} {:>9} {:>13} {:>9} {:>12} {:>14}\n",
        "scenario", "failover", "mode", "survived", "lost", "pause ms", "announced ms", "two answer ms"
    );
    let mut last = "";
    for row in rows {
        if !last.is_empty() && last != row.scenario {
            text.push('\n');
        }
        last = &row.scenario;
        let announced = row.announced_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        let _ = writeln!(
            text,
            "{:<13} {:<10} {:<8} {:>9} {:>13} {:>9.1} {:>12} {:>14.1}",
            row.scenario,
            row.who,
            row.mode,
            format!("{}/{}", row.survived, row.transfers),
            format!("{}/{}", row.lost, row.requests),
            row.pause_ms,
            announced,
            row.two_answerers_ms
        );
    }
    text
}

/// The lines of `--fast`.
pub fn fast_lines(all: &[Fast]) -> String {
    let mut text = String::new();
    for fast in all {
        for (what, times) in [("clients waited", &fast.pauses_ms), ("announced after", &fast.announced_ms)] {
            let line = match summary(times) {
                Some((median, least, most)) => {
                    format!("median {median:.1} ms, least {least:.1}, most {most:.1} ({} runs)", times.len())
                }
                None => "never".to_owned(),
            };
            let _ = writeln!(text, "{:<10} {what:<15}: {line}", fast.who);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_the_median() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(summary(&[5.0, 1.0, 2.0, 100.0]), Some((3.5, 1.0, 100.0)));
    }
}
