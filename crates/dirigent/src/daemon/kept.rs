//! What a director remembers beside its pinned maps: what was changed at runtime, and the changes made so far.
//!
//! In `/run/dirigent`, which a reboot empties, lies what belongs to the maps; in the state directory
//! (`/var/lib/dirigent`, or what systemd's STATE_DIRECTORY names) what was saved for the next boot, and the history.

use crate::failure::{Failure, Result, code};
use dirigent_api::Past;
use dirigent_config::layers::Base;
use dirigent_config::{Model, Overlay};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Of the files.
const VERSION: u32 = 1;
/// Changes that are remembered; twice as many may lie in the file.
const REMEMBERED: usize = 1000;
/// Operations of one change that are told.
const TOLD: usize = 100;

/// What was changed at runtime.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Runtime {
    version: u32,
    /// That of the Model.
    pub generation: u64,
    /// What stands between the file and the Model.
    pub overlay: Overlay,
}

/// What the file said when it was last read.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    base: Base,
}

/// A change with what takes it back.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    past: Past,
    /// Of the Model after it makes the one before.
    back: Option<Overlay>,
}

/// Where it lies what outlasts a reboot.
pub fn directory() -> PathBuf {
    std::env::var_os("STATE_DIRECTORY").map_or_else(|| PathBuf::from("/var/lib/dirigent"), PathBuf::from)
}

/// The files of one director.
#[derive(Debug)]
pub struct Kept {
    runtime: PathBuf,
    file: PathBuf,
    saved: PathBuf,
    history: PathBuf,
    /// Lines of the history.
    entries: usize,
}

impl Kept {
    /// Those of a director of that name.
    pub fn of(instance: &str) -> Self {
        let state = directory();
        let run = Path::new(super::lock::DIRECTORY);
        Self {
            runtime: run.join(format!("{instance}.runtime.json")),
            file: run.join(format!("{instance}.file.json")),
            saved: state.join(format!("{instance}.saved.json")),
            history: state.join(format!("{instance}.history.jsonl")),
            entries: 0,
        }
    }

    /// What an earlier daemon left beside the maps that it left: its Model, and what of it was changed at runtime.
    pub fn runtime(&self) -> Result<Option<(Model, Runtime)>> {
        let Some(runtime): Option<Runtime> = read(&self.runtime)? else { return Ok(None) };
        let Some(file): Option<File> = read(&self.file)? else { return Ok(None) };
        check(&self.runtime, runtime.version)?;
        check(&self.file, file.version)?;
        let wrong = |all: Vec<_>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let base = file.base.into_model().map_err(|all| broken(&self.file, &wrong(all)))?;
        let (model, _) = runtime.overlay.apply(&base);
        Ok(Some((model, runtime)))
    }

    /// What was saved for the next boot.
    pub fn saved(&self) -> Result<Option<Runtime>> {
        let saved: Option<Runtime> = read(&self.saved)?;
        saved.map(|saved| check(&self.saved, saved.version).map(|()| saved)).transpose()
    }

    /// Remembers what the file says.
    pub fn put_file(&self, file: &Model) -> Result<()> {
        write(&self.file, &File { version: VERSION, base: Base::of(file) })?.commit()
    }

    /// Prepares to remember what was changed at runtime, which [`Staged::commit`] does.
    pub fn stage(&self, generation: u64, overlay: Overlay) -> Result<Staged> {
        write(&self.runtime, &Runtime { version: VERSION, generation, overlay })
    }

    /// Keeps it over a reboot, too; the file's name.
    pub fn save(&self, generation: u64, overlay: Overlay) -> Result<String> {
        write(&self.saved, &Runtime { version: VERSION, generation, overlay })?.commit()?;
        Ok(self.saved.display().to_string())
    }

    /// Forgets what was saved; whether anything was.
    pub fn unsave(&self) -> Result<bool> {
        remove(&self.saved)
    }

    /// What goes with the maps; what was saved stays.
    pub fn forget(&self) -> Result<()> {
        [&self.runtime, &self.file, &self.history].into_iter().try_for_each(|path| remove(path).map(|_| ()))
    }

    /// The latest generation that the history knows, and how long it is.
    pub fn open_history(&mut self) -> Result<u64> {
        let mut last = 0;
        self.entries = 0;
        for entry in self.entries()? {
            last = entry?.past.generation;
            self.entries += 1;
        }
        Ok(last)
    }

    /// Writes a change down. It has been made: what fails here is told, and no more.
    pub fn remember(&mut self, past: Past, back: Option<Overlay>) -> Result<()> {
        if self.entries >= 2 * REMEMBERED {
            let entries: Vec<Entry> = self.entries()?.collect::<Result<_>>()?;
            let late = entries.len().saturating_sub(REMEMBERED);
            let mut lines = Vec::new();
            for entry in entries.get(late..).unwrap_or_default() {
                lines.append(&mut line(entry)?);
            }
            Staged::write(&self.history, &lines)?.commit()?;
            self.entries = REMEMBERED;
        }
        make_parent(&self.history)?;
        let opened = fs::File::options().create(true).append(true).open(&self.history);
        let mut file = opened.map_err(|e| Failure::io(name(&self.history), &e))?;
        file.write_all(&line(&Entry { past, back })?).map_err(|e| Failure::io(name(&self.history), &e))?;
        self.entries += 1;
        Ok(())
    }

    /// The changes, the latest first.
    pub fn history(&self, limit: usize) -> Result<Vec<Past>> {
        let mut all: Vec<Past> = self.entries()?.map(|entry| entry.map(|e| e.past)).collect::<Result<_>>()?;
        all.reverse();
        all.truncate(limit);
        Ok(all)
    }

    /// What the Model was in a generation, going back from the one in force; none: in that before the last change.
    pub fn back(&self, to: Option<u64>, model: &Model) -> Result<(Model, u64)> {
        let mut entries: Vec<Entry> = self.entries()?.collect::<Result<_>>()?;
        let remedy = "`dirigent config history` names the generations";
        let Some(latest) = entries.last().map(|e| e.past.generation) else {
            return Err(Failure::new("", "no change was made so far", remedy));
        };
        let to = to.unwrap_or(latest.saturating_sub(1));
        if to >= latest {
            return Err(Failure::new(format!("generation {to}"), format!("the last one is {latest}"), remedy));
        }
        let mut model = model.clone();
        while entries.last().is_some_and(|entry| entry.past.generation > to) {
            let Some(Entry { past, back }) = entries.pop() else { break };
            let lost = || {
                let what = format!("what was before generation {} is not known", past.generation);
                Failure::new(format!("generation {to}"), what, remedy)
            };
            let back = back.ok_or_else(lost)?;
            model = back.apply(&model).0;
            if past.generation == to + 1 {
                return Ok((model, to));
            }
        }
        Err(Failure::new(format!("generation {to}"), "it is too long ago", remedy))
    }

    fn entries(&self) -> Result<impl Iterator<Item = Result<Entry>> + use<>> {
        let file = match fs::File::open(&self.history) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Failure::io(name(&self.history), &e)),
            file => file.ok(),
        };
        let lines = file.into_iter().flat_map(|file| BufReader::new(file).lines());
        let path = self.history.clone();
        Ok(lines.filter_map(move |line| match line {
            // The last line of a daemon that was killed while it wrote.
            Ok(line) => serde_json::from_str(&line).ok().map(Ok),
            Err(e) => Some(Err(Failure::io(name(&path), &e))),
        }))
    }
}

/// A sentence about a change for the history.
pub fn past(generation: u64, by: &str, what: &str, mut operations: Vec<String>, undo: bool) -> Past {
    let more = operations.len().saturating_sub(TOLD);
    operations.truncate(TOLD);
    // A clock before 1970 is no reason to refuse a change.
    let time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    Past { generation, time_s, by: by.to_owned(), what: what.to_owned(), operations, more, undo }
}

fn line(entry: &Entry) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(entry).map_err(|e| Failure::new("JSON", e.to_string(), ""))?;
    line.push(b'\n');
    Ok(line)
}

/// A file written beside its place.
#[derive(Debug)]
pub struct Staged {
    from: PathBuf,
    to: PathBuf,
}

impl Staged {
    fn write(to: &Path, bytes: &[u8]) -> Result<Self> {
        make_parent(to)?;
        let from = to.with_extension("new");
        let fail = |e| Failure::io(name(&from), &e);
        let mut file = fs::File::create(&from).map_err(fail)?;
        file.write_all(bytes).map_err(fail)?;
        Ok(Self { from, to: to.to_owned() })
    }

    /// Puts it in its place.
    pub fn commit(self) -> Result<()> {
        fs::rename(&self.from, &self.to).map_err(|e| Failure::io(name(&self.to), &e))
    }
}

pub(super) fn write(to: &Path, what: &impl Serialize) -> Result<Staged> {
    let bytes = serde_json::to_vec(what).map_err(|e| Failure::new("JSON", e.to_string(), ""))?;
    Staged::write(to, &bytes)
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| broken(path, &e.to_string())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::io(name(path), &e)),
    }
}

fn check(path: &Path, version: u32) -> Result<()> {
    if version == VERSION { Ok(()) } else { Err(broken(path, &format!("it is of version {version}, not {VERSION}"))) }
}

fn broken(path: &Path, why: &str) -> Failure {
    let remedy = "forwarding goes on as it is; remove the file to start with what the configuration says alone";
    let what = format!("what was changed at runtime cannot be read: {why}");
    Failure { code: code::INVALID, ..Failure::new(name(path), what, remedy) }
}

pub(super) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Failure::io(name(path), &e)),
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(|e| Failure::io(name(parent), &e))
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
