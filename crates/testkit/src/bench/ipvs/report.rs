//! What follows from what was counted: above the drop baseline of each path, as a part of IPVS's.

use std::fmt::Write as _;

use serde::Serialize;

use super::counted::{Base, Counted, FAMILIES, Path, cases};
use super::page::Page;

/// At most so much of IPVS's instructions above the drop baseline.
pub const GOAL: f64 = 0.5;

/// One case on one of our paths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The case.
    pub case: String,
    /// The path.
    pub path: Path,
    /// Instructions a packet, less what the path takes to drop it at once.
    pub above_drop: f64,
    /// The same of IPVS.
    pub ipvs_above_drop: f64,
    /// Ours over IPVS's.
    pub ratio: f64,
    /// What is aimed at, at most.
    pub goal: f64,
}

impl Row {
    /// Whether the goal is reached.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.ratio <= self.goal
    }
}

/// What a path costs without a director, of one family.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Floor {
    /// The path.
    pub path: Path,
    /// `v4` or `v6`.
    pub family: &'static str,
    /// Instructions of a packet that is dropped at once, its sending and all: the baseline.
    pub drop: f64,
    /// Above that: sent on without a look at it; by IPVS's path routed by a host without rules.
    pub bare_above_drop: f64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The guest's kernel.
    pub kernel: String,
    /// Baselines.
    pub floors: Vec<Floor>,
    /// Cases, each on both paths.
    pub rows: Vec<Row>,
}

impl Report {
    /// Whoever is missing is an error.
    pub fn new(counted: &Counted) -> Result<Self, String> {
        let drop = |path, family: &str| counted.total(path, &Base::Drop.case(family));
        let mut floors = Vec::new();
        for family in FAMILIES {
            for path in Path::ALL {
                let bare = counted.total(path, &Base::Bare.case(family))?;
                let drop = drop(path, family)?;
                floors.push(Floor { path, family, drop, bare_above_drop: bare - drop });
            }
        }
        let mut rows = Vec::new();
        for case in cases() {
            let family = FAMILIES.into_iter().find(|family| words(&case).any(|word| word == *family));
            let family = family.ok_or_else(|| format!("{case}: of no family"))?;
            let above = |path| Ok::<_, String>(counted.total(path, &case)? - drop(path, family)?);
            for path in Path::OURS {
                let (above_drop, ipvs_above_drop) = (above(path)?, above(Path::Ipvs)?);
                let ratio = above_drop / ipvs_above_drop;
                rows.push(Row { case: case.clone(), path, above_drop, ipvs_above_drop, ratio, goal: GOAL });
            }
        }
        Ok(Self { kernel: counted.kernel.clone(), floors, rows })
    }

    /// Goals that are missed and not explained on the page, or by more than is explained there.
    #[must_use]
    pub fn faults(&self, page: &Page) -> Vec<String> {
        let missed = self.rows.iter().filter(|row| !row.reached());
        missed.filter_map(|row| page.excuse(row).err()).collect()
    }

    /// What the page explains although no goal is missed any more.
    #[must_use]
    pub fn outdated<'p>(&self, page: &'p Page) -> Vec<&'p str> {
        let needed = |line: &&str| self.rows.iter().any(|row| !row.reached() && page.excuse(row) == Ok(line));
        page.exceptions().filter(|line| !needed(line)).collect()
    }

    /// The tables, as Markdown.
    #[must_use]
    pub fn tables(&self) -> String {
        let (reached, of) = self.reached();
        let mut text = format!("Linux {}; {reached} of {of} goals are reached.\n\n", self.kernel);
        text += "| without a director | IPVS's path | XDP | tc |\n|---|---|---|---|\n";
        for family in FAMILIES {
            let of = |path| self.floors.iter().find(|floor| floor.family == family && floor.path == path);
            let line = |value: &dyn Fn(&Floor) -> f64| {
                Path::ALL.into_iter().filter_map(of).map(|floor| format!("{:.0}", value(floor))).collect::<Vec<_>>()
            };
            let _ = writeln!(text, "| {family}: dropped at once | {} |", line(&|floor| floor.drop).join(" | "));
            let sent_on = line(&|floor| floor.bare_above_drop).join(" | ");
            let _ = writeln!(text, "| {family}: sent on without a look, above that | {sent_on} |");
        }
        text += "\n| above the drop | IPVS | XDP | of IPVS | tc | of IPVS |\n|---|---|---|---|---|---|\n";
        for case in self.rows.chunk_by(|a, b| a.case == b.case) {
            let Some(first) = case.first() else { continue };
            let _ = write!(text, "| {} | {:.0} |", first.case, first.ipvs_above_drop);
            for row in case {
                // Over the goal is bold, as in the other tables.
                let mark = if row.reached() { "" } else { "**" };
                let _ = write!(text, " {:.0} | {mark}{:.2}{mark} |", row.above_drop, row.ratio);
            }
            text.push('\n');
        }
        text
    }

    /// How many goals are reached, of how many.
    #[must_use]
    pub fn reached(&self) -> (usize, usize) {
        (self.rows.iter().filter(|row| row.reached()).count(), self.rows.len())
    }
}

/// Of a case's name.
pub(super) fn words(case: &str) -> impl Iterator<Item = &str> {
    case.split_whitespace()
}

#[cfg(test)]
mod tests {
    use super::super::counted::tests::recorded;
    use super::super::page::tests::page as text;
    use super::*;

    fn report(of_ipvs: f64, ours: f64) -> Report {
        Report::new(&Counted::read(&recorded(of_ipvs, ours)).unwrap()).unwrap()
    }
    fn page(exceptions: &str) -> Page {
        Page::read(&text(exceptions)).unwrap()
    }

    #[test]
    fn each_path_is_held_against_its_own_baseline() {
        let report = report(4000.0, 1500.0);
        assert_eq!((report.rows.len(), report.reached()), (44, (44, 44)));
        for row in &report.rows {
            assert_eq!((row.above_drop, row.ipvs_above_drop, row.ratio), (1500.0, 4000.0, 0.375), "{row:?}");
        }
        let tables = report.tables();
        for line in [
            "Linux 6.1.0; 44 of 44 goals are reached.",
            "| v6: dropped at once | 4000 | 6000 | 4000 |",
            "| v4: sent on without a look, above that | 1200 | 1200 | 1200 |",
            "| nat v4 tcp reply | 4000 | 1500 | 0.38 | 1500 | 0.38 |",
        ] {
            assert!(tables.lines().any(|one| one == line), "{line}:\n{tables}");
        }
        assert_eq!(report.faults(&page("")), Vec::<String>::new());
    }

    #[test]
    fn what_is_missed_is_bold_and_wants_an_explanation() {
        let report = report(4000.0, 2400.0);
        assert!(report.tables().contains("| dr v6 tcp new | 4000 | 2400 | **0.60** | 2400 | **0.60** |"));
        assert_eq!(report.faults(&page("")).len(), 44);
        // Of all words, on one path, and up to so much.
        let faults = report.faults(&page("| xdp | v4 nat | 0.65 | Because. |\n| tc | dr | 0.55 | For less. |\n"));
        assert_eq!(faults.len(), 44 - 5, "{faults:?}");
        assert!(faults.iter().all(|fault| !fault.starts_with("xdp: nat v4")), "{faults:?}");
        assert!(faults.contains(&"tc: dr v6 udp request: 0.60 of IPVS's, and 0.55 is explained".into()), "{faults:?}");
        assert!(
            faults.contains(&"tc: tun v6 tcp new: 0.60 of IPVS's, the goal is 0.50, and nothing is explained".into()),
            "{faults:?}"
        );
    }

    #[test]
    fn explanations_of_nothing_are_named() {
        let needless = "| xdp | v6 tun | 0.70 | Once it was. |";
        let page = page(&format!("| tc | nat | 0.70 | Since. |\n{needless}\n"));
        assert_eq!(report(4000.0, 2400.0).outdated(&page), Vec::<&str>::new());
        let mut some = report(4000.0, 2400.0);
        for row in some.rows.iter_mut().filter(|row| row.path == Path::Xdp) {
            row.ratio = 0.4;
        }
        assert_eq!(some.outdated(&page), [needless]);
    }

    #[test]
    fn what_was_not_counted_is_said() {
        let mut counted = Counted::read(&recorded(4000.0, 1500.0)).unwrap();
        counted.rows.retain(|row| row.case != "tun v6 tcp new" || row.path != Path::Ipvs);
        assert_eq!(Report::new(&counted), Err("ipvs: tun v6 tcp new is missing".into()));
    }
}
