//! `make bench-scale`: how long a daemon with very many services takes to start, to reload and to take over, and its memory;
//! what two CPUs do at once ([`crate::bench::cores`]); and what follows for larger machines ([`capacity`]).

pub mod capacity;
pub mod daemon;
pub mod table;

use crate::bench::cores::Cores;
use crate::marked;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub dirigent: PathBuf,
    /// Virtual services.
    pub services: u32,
    /// Real servers of each.
    pub servers: u32,
}

/// Different addresses that the servers have: a fleet has fewer machines than places in services.
pub const HOSTS: u32 = 1000;

/// A number that was measured, with its unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What.
    pub what: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

/// What a daemon with that many services did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Virtual services.
    pub services: u32,
    /// Real servers of each.
    pub servers: u32,
    /// In the order in which it was measured.
    pub rows: Vec<Row>,
}

impl Scale {
    /// What was measured of this.
    pub fn value(&self, what: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.what == what).map(|row| row.value)
    }

    /// As a table.
    pub fn table(&self) -> String {
        let all = u64::from(self.services) * u64::from(self.servers);
        let mut out = format!(
            "{} services with {} servers each, {all} in all, on {HOSTS} hosts; scheduler `wrr`, no checks.\n\n| | |\n|---|---|\n",
            self.services, self.servers
        );
        for Row { what, value, unit } in &self.rows {
            let digits = if *value < 10.0 { 2 } else { 0 };
            let _ = writeln!(out, "| {what} | {value:.digits$} {unit} |");
        }
        out
    }
}

/// What two CPUs do, as a table.
pub fn cores_table(cores: &Cores) -> String {
    let mut out = format!(
        "{} rounds, {} connections where there are many.\n\n| case | one CPU, ns (least, middle) | two CPUs at once | of that waiting for locks |\n|---|---|---|---|\n",
        cores.rounds, cores.connections
    );
    for both in &cores.cases {
        let waits = both.waits.map_or("no `perf` here".to_owned(), |share| format!("{share:.2} %"));
        let _ = writeln!(
            out,
            "| {} | {:.0}, {:.0} | {:.2} times one | {waits} |",
            both.case, both.alone_ns, both.alone_median_ns, both.times
        );
    }
    out
}

/// Marks in docs/capacity.md.
pub mod mark {
    /// Around what a daemon with very many services does.
    pub const SCALE: &str = "make bench-scale writes what a daemon does";
    /// Around what two CPUs do.
    pub const CORES: &str = "make bench-scale writes what two CPUs do";
    /// Around the model.
    pub const MODEL: &str = "make bench-scale writes the model";
}

/// The page with what was measured; what was not stays as it was.
pub fn page(text: &str, scale: Option<&Scale>, cores: Option<&Cores>, occasion: &str) -> Result<String, String> {
    let mut text = text.to_owned();
    let measured = |table: &str| format!("{table}\nMeasured {occasion}.\n");
    if let Some(scale) = scale {
        text = marked::with(&text, mark::SCALE, &measured(&scale.table()))?;
    }
    if let Some(cores) = cores {
        text = marked::with(&text, mark::CORES, &measured(&cores_table(cores)))?;
        text = marked::with(&text, mark::MODEL, &capacity::tables(cores)?)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page has the marks that the command looks for, and other parts stay.
    #[test]
    fn the_page_has_room_for_the_tables() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/capacity.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows = vec![Row { what: "start", value: 3.25, unit: "s" }];
        let scale = Scale { services: 3, servers: 2, rows };
        assert_eq!(scale.value("start"), Some(3.25));
        let page = page(&text, Some(&scale), None, "today").unwrap();
        assert!(page.contains("3 services with 2 servers each, 6 in all") && page.contains("| start | 3.25 s |\n"));
        assert!(page.contains("Measured today."));
        for mark in [mark::CORES, mark::MODEL] {
            assert_eq!(marked::split(&page, mark).unwrap()[1], marked::split(&text, mark).unwrap()[1]);
        }
    }
}
