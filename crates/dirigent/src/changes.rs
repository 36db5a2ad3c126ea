//! Changes of a host's network set-up: shown before they are made, noted while they are, and taken back.

mod change;
mod state;

pub use change::{Change, Tunnels, interface, segments, source_route};
pub use state::State;

use crate::failure::{Failure, Result};
use crate::print;
use serde::Serialize;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

/// A change as it is shown.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
    /// Whether it is so.
    pub done: bool,
}

impl Shown {
    /// What it is to people.
    pub fn of(change: &Change, done: bool) -> Self {
        let (what, why) = change.describe();
        Self { what, why, done }
    }
}

/// How changes are made and taken back.
pub struct Terms<'a> {
    /// Where they are noted.
    pub record: &'a Path,
    /// Nobody is asked.
    pub yes: bool,
    /// As JSON.
    pub json: bool,
    /// What is so when there is nothing to do.
    pub nothing: &'a str,
    /// The command that takes them back.
    pub undo: &'a str,
}

/// Shows changes and makes them, all or none. Says whether they were made.
pub fn make(mut todo: Vec<Change>, terms: &Terms<'_>, dry_run: bool) -> Result<bool> {
    let mut state = State::read(terms.record)?;
    let list: Vec<_> = todo.iter().map(|change| Shown::of(change, false)).collect();
    if terms.json && (dry_run || todo.is_empty()) {
        print::json(&list)?;
        return Ok(false);
    }
    if todo.is_empty() {
        print::text(&format!("nothing to do: {}\n", terms.nothing))?;
        return Ok(false);
    }
    if !terms.json {
        print::text("This will change:\n")?;
        for change in &list {
            print::text(&format!("  {}\n      {}\n", change.what, change.why))?;
        }
        print::text(&format!(
            "It is noted in {}; `{}` takes exactly this back.\n",
            terms.record.display(),
            terms.undo
        ))?;
    }
    if dry_run || !agreed(terms.yes)? {
        return Ok(false);
    }
    for (done, change) in todo.iter_mut().enumerate() {
        change.note(state.changes.iter().find(|old| old.same_thing(change)))?;
        // Of what is changed again (programs that are renewed; all, after the machine started anew) there is one record.
        state.changes.retain(|old| !old.same_thing(change));
        state.changes.push(change.clone());
        state.write(terms.record)?;
        if let Err(failure) = change.apply() {
            let back = take_back(&mut state, done + 1, terms.record);
            let mut failure = failure;
            failure.problems.extend(back.err().into_iter().flat_map(|f| f.problems));
            return Err(failure);
        }
    }
    match terms.json {
        true => print::json(&todo.iter().map(|change| Shown::of(change, true)).collect::<Vec<_>>())?,
        false => print::text("done\n")?,
    }
    Ok(true)
}

/// Undoes the last `count` changes.
fn take_back(state: &mut State, count: usize, path: &Path) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for _ in 0..count {
        let Some(change) = state.changes.last() else { break };
        said.push(change.undo()?);
        state.changes.pop();
        state.write(path)?;
    }
    Ok(said)
}

/// Whether the operator wants it.
fn agreed(yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("", "nobody is here to agree to this", "say --yes, or look first with --dry-run"));
    }
    print::text("Do it? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::io("stdin", &e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Shows what was changed and takes it back.
pub fn undo(terms: &Terms<'_>) -> Result<()> {
    let mut state = State::read(terms.record)?;
    let count = state.changes.len();
    if count == 0 {
        let nothing = format!("nothing to undo: {} records no change\n", terms.record.display());
        match terms.json {
            true => print::json::<Vec<String>>(&Vec::new())?,
            false => print::text(&nothing)?,
        }
        return Ok(());
    }
    if !terms.json {
        print::text("This will be taken back:\n")?;
        for change in state.changes.iter().rev() {
            print::text(&format!("  {}\n", change.describe().0))?;
        }
    }
    if !agreed(terms.yes)? {
        return Ok(());
    }
    let said = take_back(&mut state, count, terms.record)?;
    match terms.json {
        true => print::json(&said)?,
        false => said.iter().try_for_each(|line| print::text(&format!("{line}\n")))?,
    }
    Ok(())
}
