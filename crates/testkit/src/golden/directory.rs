//! Directories of recordings: which format each file is of, and who runs it.

use std::path::{Path, PathBuf};

use super::executor::Executor;
use super::recording::Recording;
use super::report::{Ran, Report};
use super::setup::NoSetup;
use super::states::{self, States};
use super::text::Text;
use super::{sched, script, xmit};

/// What to do with recordings of what this version has not got: other formats, set-ups
/// that the configuration refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Their steps count as failed.
    Fails,
    /// They are named, and not counted.
    IsSkipped,
}

/// A file of a directory, read.
enum File {
    Frames(Box<Recording>),
    Script(Box<script::Script>),
    States(Box<States>),
    Text(Box<Text>),
    /// Of a format with so many steps that is not this runner's.
    Other(usize),
    Broken(String),
}

fn read(path: &Path) -> Result<File, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("no JSON: {e}"))?;
    let steps = value.get("steps").and_then(|steps| steps.as_array()).cloned().unwrap_or_default();
    let some_have = |name: &str| steps.iter().any(|step| step.get(name).is_some());
    if value.get("setup").is_some() && some_have("frame") {
        return match serde_json::from_value::<Recording>(value).map_err(|e| e.to_string())? {
            recording if recording.steps.iter().all(xmit::is_step) => Ok(File::Frames(Box::new(recording))),
            _ => Err("a step has neither frame nor rows".into()),
        };
    }
    if value.get("setup").is_some() && value.get("scheduler").is_some() && some_have("op") {
        // From the text: the order of a step's servers counts.
        return serde_json::from_str(&text).map(|script| File::Script(Box::new(script))).map_err(|e| e.to_string());
    }
    if !steps.is_empty() && steps.iter().all(states::Step::is_one) {
        return serde_json::from_value(value).map(|states| File::States(Box::new(states))).map_err(|e| e.to_string());
    }
    if let Ok(text) = serde_json::from_value(value) {
        return Ok(File::Text(Box::new(text)));
    }
    Ok(File::Other(steps.len().max(1)))
}

/// The recordings of a directory, in order.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    match files.is_empty() {
        true => Err(format!("{}: no recordings (*.json) here", directory.display())),
        false => Ok(files),
    }
}

/// Runs every recording of a directory; `see` is shown each as it ends.
pub fn run_directory(
    directory: &Path,
    executors: &mut [Box<dyn Executor>],
    unsupported: Unsupported,
    see: &mut dyn FnMut(&Ran),
) -> Result<Report, String> {
    let mut report = Report::default();
    for path in files(directory)? {
        let file = read(&path).unwrap_or_else(File::Broken);
        for executor in executors.iter_mut() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let ran = Ran { recording: name.into_owned(), executor: executor.name(), ..Ran::default() };
            let ran = match &file {
                File::Frames(recording) => xmit::run_recording(executor.as_mut(), recording, unsupported),
                File::Script(script) => sched::run_script(executor.as_mut(), script, unsupported),
                File::States(states) => states::run_states(executor.as_mut(), states, unsupported),
                File::Text(text) => super::text::run_text(executor.as_mut(), text),
                File::Other(steps) => {
                    not_run(ran, NoSetup::NotYet("another format, not in this version".into()), *steps, unsupported)
                }
                File::Broken(why) => Ran { failed: 1, not_run: Some(why.clone()), ..ran },
            };
            see(&ran);
            report.add(ran);
        }
    }
    Ok(report)
}

/// No step could be run.
pub(super) fn not_run(ran: Ran, why: NoSetup, steps: usize, unsupported: Unsupported) -> Ran {
    match (why, unsupported) {
        (NoSetup::Wrong(why), _) => Ran { failed: steps, not_run: Some(format!("the set-up failed: {why}")), ..ran },
        (NoSetup::NotYet(why), Unsupported::Fails) => Ran { failed: steps, not_run: Some(why), ..ran },
        (NoSetup::NotYet(why), Unsupported::IsSkipped) => Ran { skipped: steps, not_run: Some(why), ..ran },
    }
}
