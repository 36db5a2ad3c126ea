//! `dirigent config`: what is configured, shown, compared, changed as a whole, and taken back.

use crate::ask::Target;
use crate::cli::{ChangeArgs, ConfigCommand};
use crate::commands;
use crate::failure::{Failure, Result, code};
use crate::print;
use dirigent_api::{Changed, Document, Guard, Past, path};
use serde::Serialize;
use std::io::{IsTerminal, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Carries it out.
pub async fn run(target: &Target, command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Show { file, print: as_ } => {
            let shown = target.configuration(*file).await?;
            if as_.json { print::json(&shown) } else { print::text(&shown.text) }
        }
        ConfigCommand::Diff { file: Some(file), print: as_ } => {
            let guard = Guard { dry_run: true, generation: None };
            let changed = target.reconfigure(path::APPLY, &[], guard, &document(file)?).await?;
            if as_.json {
                print::json(&changed)?
            } else {
                print::text(&commands::told(&changed))?
            }
            differs(!changed.operations.is_empty())
        }
        ConfigCommand::Diff { file: None, print: as_ } => {
            let drift = target.configuration(false).await?.drift;
            if as_.json {
                print::json(&drift)?;
            } else if drift.is_empty() {
                print::text("nothing was changed at runtime: what the file says is in force\n")?;
            } else {
                print::text(&drift.iter().map(|line| format!("{line}\n")).collect::<String>())?;
            }
            differs(!drift.is_empty())
        }
        ConfigCommand::Apply { file, yes, change } => {
            let document = document(file)?;
            confirmed(target, path::APPLY, &[], &document, *yes, change).await
        }
        ConfigCommand::Rollback { to, yes, change } => {
            let to = [("to", to.map(|to| to.to_string()))];
            confirmed(target, path::ROLLBACK, &to, &(), *yes, change).await
        }
        ConfigCommand::Save(change) => told(target, path::SAVE, &[], &(), change).await,
        ConfigCommand::History { limit, print: as_ } => {
            let history = target.history(*limit).await?;
            if as_.json { print::json(&history) } else { print::text(&history.iter().map(past).collect::<String>()) }
        }
    }
}

/// A change, and what it did.
pub async fn told(
    target: &Target,
    path: &str,
    parameters: &[(&str, Option<String>)],
    body: &impl Serialize,
    change: &ChangeArgs,
) -> Result<()> {
    let guard = Guard { dry_run: change.dry_run, generation: change.generation };
    let changed = target.reconfigure(path, parameters, guard, body).await?;
    if change.print.json { print::json(&changed) } else { print::text(&commands::told(&changed)) }
}

/// The same, but people are shown first what would be done, and asked. What they saw is what is done: if the
/// configuration changes meanwhile, nothing is.
async fn confirmed(
    target: &Target,
    path: &str,
    parameters: &[(&str, Option<String>)],
    body: &impl Serialize,
    yes: bool,
    change: &ChangeArgs,
) -> Result<()> {
    if yes || change.dry_run {
        return told(target, path, parameters, body, change).await;
    }
    let generation = target.configuration(false).await?.generation;
    let generation = change.generation.unwrap_or(generation);
    let guard = Guard { dry_run: true, generation: Some(generation) };
    let planned: Changed = target.reconfigure(path, parameters, guard, body).await?;
    if planned.operations.is_empty() {
        return if change.print.json { print::json(&planned) } else { print::text(&commands::told(&planned)) };
    }
    eprint!("{}", commands::told(&planned));
    if !std::io::stdin().is_terminal() {
        let remedy = "say --yes to do it without being asked, or --dry-run to only look";
        return Err(Failure::new("stdin", "nobody is there to be asked, so nothing was changed", remedy));
    }
    eprint!("Do this? [y/N] ");
    // If that fails the answer is no.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Failure::io("stdin", &e))?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        return Err(Failure::new("", "nothing was changed", ""));
    }
    let guard = Guard { dry_run: false, ..guard };
    let changed = target.reconfigure(path, parameters, guard, body).await?;
    match change.print.json {
        true => print::json(&changed),
        false => print::text(&format!("done; this is generation {}\n", changed.generation)),
    }
}

fn differs(differs: bool) -> Result<()> {
    // Said already.
    if differs { Err(Failure { code: code::FAILED, problems: Vec::new() }) } else { Ok(()) }
}

fn document(file: &Path) -> Result<Document> {
    let stdin = file == Path::new("-");
    let name = if stdin { "stdin".to_owned() } else { file.display().to_string() };
    let text = if stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|e| Failure::io(&name, &e))?;
    Ok(Document { name, text })
}

/// A change of the past, for people.
fn past(past: &Past) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(past.time_s));
    let mut text = format!("generation {} · {time} · {} · {}\n", past.generation, past.by, past.what);
    past.operations.iter().for_each(|line| text += &format!("    {line}\n"));
    if past.more > 0 {
        text += &format!("    and {} more\n", past.more);
    }
    if !past.undo {
        text += "    (what was before is not known)\n";
    }
    text
}
