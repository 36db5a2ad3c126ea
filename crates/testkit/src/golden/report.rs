//! What came of running recordings, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::rules;

/// A step that is not as recorded.
#[derive(Debug, Serialize)]
pub struct Mismatch {
    /// Its number, from 0.
    pub step: usize,
    /// What it is about.
    pub note: String,
    /// What came in, what the director did and why, what was recorded and what came out.
    pub difference: String,
}

/// One recording by one executor.
#[derive(Debug, Default, Serialize)]
pub struct Ran {
    /// The recording's name.
    pub recording: String,
    /// `memory`, `xdp` or `tc`.
    pub executor: &'static str,
    /// Steps that were as recorded.
    pub passed: usize,
    /// Steps that were not.
    pub failed: usize,
    /// Steps that differ by a rule, by its number.
    pub excused: BTreeMap<&'static str, Vec<usize>>,
    /// Steps of a set-up that this version has not got, where those are not counted.
    pub skipped: usize,
    /// Why no step could be run.
    pub not_run: Option<String>,
    /// Steps that failed.
    pub mismatches: Vec<Mismatch>,
}

impl Ran {
    /// Number of steps that differ by a rule.
    pub fn excused(&self) -> usize {
        self.excused.values().map(Vec::len).sum()
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = format!("{} ({})", self.recording, self.executor);
        for Mismatch { step, note, difference } in &self.mismatches {
            writeln!(f, "{title} step {step}: {note}\n{difference}")?;
        }
        match &self.not_run {
            Some(why) => write!(f, "{title}: {why}: {} steps", self.failed + self.skipped)?,
            None => write!(f, "{title}")?,
        }
        match self.skipped {
            0 => writeln!(f, ": {} passed, {} failed, {} excused", self.passed, self.failed, self.excused()),
            _ => writeln!(f, ", not counted"),
        }
    }
}

/// All of them.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Steps that were as recorded.
    pub passed: usize,
    /// Steps that were not.
    pub failed: usize,
    /// How many steps differ by a rule, by its number.
    pub excused: BTreeMap<&'static str, usize>,
    /// Steps of set-ups that this version has not got, where those are not counted.
    pub skipped: usize,
    /// One by one.
    pub runs: Vec<Ran>,
}

impl Report {
    /// Counts one more.
    pub fn add(&mut self, ran: Ran) {
        self.passed += ran.passed;
        self.failed += ran.failed;
        self.skipped += ran.skipped;
        for (rule, steps) in &ran.excused {
            *self.excused.entry(rule).or_default() += steps.len();
        }
        self.runs.push(ran);
    }
    /// Steps that differ by a rule.
    pub fn excused(&self) -> usize {
        self.excused.values().sum()
    }
}

/// The closing lines.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, count) in &self.excused {
            let about = rules::RULES.iter().find(|r| r.id == *rule).map_or("", |r| r.about);
            writeln!(f, "excused by {rule} ({about}): {count}")?;
        }
        if self.skipped > 0 {
            writeln!(f, "not in this version, not counted: {} steps", self.skipped)?;
        }
        writeln!(f, "{} passed, {} failed, {} excused", self.passed, self.failed, self.excused())
    }
}
