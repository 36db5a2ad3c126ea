//! Running recordings and telling what differs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use dirigent_config::Model;
use dirigent_director::verdict::ReasonKind;

use super::bed::{Bed, Side};
use super::compare::{same_frames, same_row, same_rows};
use super::executor::{Does, Executor, Row};
use super::host::{Frames, host, resolve};
use super::recording::{NoSetup, Recording, Step};
use super::rules::{self, Case, FragmentFlows};
use crate::decode::{describe, packet};

/// Counts of steps, and what to read about them.
#[derive(Debug, Default)]
pub struct Report {
    /// Steps that were as recorded.
    pub passed: usize,
    /// Steps that were not.
    pub failed: usize,
    /// Steps that differ by a rule, by its number.
    pub excused: BTreeMap<&'static str, usize>,
    /// Steps of set-ups that this version has not got.
    pub skipped: usize,
    /// Mismatches and remarks, for people.
    pub text: String,
}

impl Report {
    fn add(&mut self, other: Report) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        for (rule, count) in other.excused {
            *self.excused.entry(rule).or_default() += count;
        }
        self.text += &other.text;
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
            writeln!(f, "not supported yet, not counted: {} steps", self.skipped)?;
        }
        writeln!(f, "{} passed, {} failed, {} excused", self.passed, self.failed, self.excused())
    }
}

/// Runs every recording of a directory. `strict`: steps of set-ups that this version has
/// not got count as failed.
pub fn run_directory(directory: &Path, executors: &mut [Box<dyn Executor>], strict: bool) -> Result<Report, String> {
    let fail = |e: std::io::Error| format!("{}: {e}", directory.display());
    let entries = std::fs::read_dir(directory).map_err(fail)?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    let mut report = Report::default();
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        match serde_json::from_str::<Recording>(&text) {
            Ok(recording) if recording.steps.iter().all(is_ours) => {
                for executor in executors.iter_mut() {
                    report.add(run_recording(executor.as_mut(), &recording, strict));
                }
            }
            _ => _ = writeln!(report.text, "{name}: not this runner's yet: another format"),
        }
    }
    if files.is_empty() {
        return Err(format!("{}: no recordings (*.json) here", directory.display()));
    }
    Ok(report)
}

fn is_ours(step: &Step) -> bool {
    step.conns.is_some() || (step.frame.is_some() && step.side.is_some())
}

/// Runs one recording.
pub fn run_recording(executor: &mut dyn Executor, recording: &Recording, strict: bool) -> Report {
    let mut report = Report::default();
    let title = format!("{} ({})", recording.name, executor.name());
    let steps = recording.steps.len();
    let (bed, model) = match set_up(executor, recording) {
        Ok(set_up) => set_up,
        Err(NoSetup::NotYet(why)) => {
            let _ = writeln!(report.text, "{title}: not supported yet: {why}");
            *(if strict { &mut report.failed } else { &mut report.skipped }) += steps;
            return report;
        }
        Err(NoSetup::Wrong(why)) => {
            let _ = writeln!(report.text, "{title}: the set-up failed: {why}");
            report.failed += steps;
            return report;
        }
    };
    let mut run = Run { executor, bed, running: model.clone(), model, fragments: FragmentFlows::default() };
    for (number, step) in recording.steps.iter().enumerate() {
        match run.step(step) {
            Ok(None) => report.passed += 1,
            Ok(Some(rule)) => *report.excused.entry(rule).or_default() += 1,
            Err(difference) => {
                report.failed += 1;
                let _ = writeln!(report.text, "{title} step {number}: {}\n{difference}", step.note);
            }
        }
    }
    let line = format!("{} passed, {} failed, {} excused", report.passed, report.failed, report.excused());
    let _ = writeln!(report.text, "{title}: {line}");
    report
}

fn set_up(executor: &mut dyn Executor, recording: &Recording) -> Result<(Bed, Model), NoSetup> {
    let model = recording.model()?;
    let bed = Bed::new(recording.mtu_c, recording.mtu_servers, &recording.routes).map_err(NoSetup::Wrong)?;
    executor.set_up(&bed, &model).map_err(NoSetup::Wrong)?;
    Ok((bed, model))
}

struct Run<'e> {
    executor: &'e mut dyn Executor,
    bed: Bed,
    /// As set up.
    model: Model,
    /// As it is now.
    running: Model,
    fragments: FragmentFlows,
}

impl Run<'_> {
    /// A step: passed, excused by a rule, or what differs.
    fn step(&mut self, step: &Step) -> Result<Option<&'static str>, String> {
        match &step.conns {
            Some(rows) => self.rows(rows),
            None => self.frame(step),
        }
    }

    fn rows(&mut self, expected: &[Row]) -> Result<Option<&'static str>, String> {
        let got = self.executor.conns()?;
        if same_rows(expected, &got) {
            return Ok(None);
        }
        let is_there = |row: &Row| got.iter().any(|other| same_row(row, other));
        let rest: Vec<Row> = expected.iter().filter(|row| is_there(row) || !self.fragments.only(row)).cloned().collect();
        if rest.len() < expected.len() && same_rows(&rest, &got) {
            return Ok(Some("F1"));
        }
        let show = |rows: &[Row]| rows.iter().map(|row| format!("      {}\n", row.join("  "))).collect::<String>();
        Err(format!("    expected rows:\n{}    got rows:\n{}", show(expected), show(&got)))
    }

    /// nat_icmp_send is switched between steps; only the notes tell (packet-rules §4.2).
    fn hidden_switch(&mut self, note: &str) -> Result<(), String> {
        let mut settings = self.model.settings().clone();
        for value in [0, 1] {
            if note.contains(&format!("nat_icmp_send {value}")) {
                settings.nat_icmp_send = value == 1;
            }
        }
        if *self.running.settings() != settings {
            self.running.set_settings(settings).map_err(|e| e.to_string())?;
            self.executor.change(&self.running)?;
        }
        Ok(())
    }

    fn frame(&mut self, step: &Step) -> Result<Option<&'static str>, String> {
        self.hidden_switch(&step.note)?;
        let (side, input) = step.input()?;
        let expected = step.output()?;
        self.fragments.see(&input);
        let (does, verdict) = self.executor.run(side, &input)?;
        let got = self.outcome(side, &does);
        let passed = verdict.is_some_and(|v| v.reason.kind() == ReasonKind::Passed);
        let changed = matches!(&does, Does::ToHost(frame) if packet(frame) != packet(&input));
        let leaked = matches!(does, Does::ToHost(_)) && !changed && expected.is_empty() && self.is_ours_to_drop(&input);
        let case = Case { bed: &self.bed, model: &self.model, side, input: &input, expected: &expected, got: &got };
        if let Some(rule) = rules::regardless(&case) {
            return Ok(Some(rule.id));
        }
        if same_frames(side, &expected, &got) && !(passed && changed) && !leaked {
            return Ok(None);
        }
        match rules::excuse(&case) {
            Some(rule) => Ok(Some(rule.id)),
            None => {
                let verdict = verdict.map_or_else(|| "?".into(), |v| format!("{:?} ({})", v.action, v.reason.name()));
                let leaked = if leaked { ", to the host, which must not see it" } else { "" };
                Err(format!(
                    "    in {}: {}\n    verdict {verdict}{leaked}\n    expected:{}\n    got:{}",
                    side.name(),
                    describe(&input),
                    show(&expected),
                    show(&got)
                ))
            }
        }
    }

    fn outcome(&self, side: Side, does: &Does) -> Frames {
        match does.clone() {
            Does::ToHost(frame) => host(&self.bed, side, &frame),
            Does::Drop => Vec::new(),
            Does::Out(side, frame) => vec![(side, frame)],
            Does::Resolve(side, frame) => vec![(side, resolve(&self.bed, side, frame))],
        }
    }

    /// A packet for a service whose transport header is cut short: a listener of the
    /// host's own must not get it (packet-rules §4.5).
    fn is_ours_to_drop(&self, input: &[u8]) -> bool {
        let Some(p) = packet(input) else { return false };
        let Some(ip) = crate::decode::Ip::read(p) else { return false };
        let least = match ip.protocol {
            6 => 20,
            17 => 8,
            _ => return false,
        };
        let short = ip.len <= p.len() && p.len() < ip.l4 + least;
        let service = self.model.services().iter().any(|s| {
            let port = ip.ports(p).is_none_or(|(_, dport)| s.key.port == dport);
            s.key.address == ip.dst && s.key.protocol.number() == ip.protocol && port
        });
        short && service
    }
}

fn show(frames: &Frames) -> String {
    match frames.is_empty() {
        true => " nothing".into(),
        false => frames.iter().map(|(side, frame)| format!("\n      {}: {}", side.name(), describe(frame))).collect(),
    }
}
