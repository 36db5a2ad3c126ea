//! `dirigent doctor`: what the daemon's doctor found, and what `--fix` does about it on this host.

use crate::ask::Target;
use crate::changes::{self, Change, Terms};
use crate::cli::DoctorArgs;
use crate::failure::{Result, code};
use crate::print;
use dirigent_api::{Diagnosis, Finding, path};
use dirigent_net::sysctl;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs it; the exit code says how bad it is.
pub async fn run(target: &Target, args: &DoctorArgs) -> Result<ExitCode> {
    let record = record(&target.instance);
    if args.undo {
        changes::undo(&terms(&record, args))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut found = examine(target, args).await?;
    if args.fix {
        if !args.print.json {
            print::text(&text(&found))?;
        }
        if !changes::make(fixes(&found), &terms(&record, args), args.dry_run)? {
            return Ok(exit_code(&found));
        }
        found = examine(target, args).await?;
        if args.print.json {
            return Ok(exit_code(&found));
        }
    }
    match args.print.json {
        true => print::json(&found)?,
        false => print::text(&text(&found))?,
    }
    Ok(exit_code(&found))
}

fn terms<'a>(record: &'a Path, args: &DoctorArgs) -> Terms<'a> {
    Terms {
        record,
        yes: args.yes,
        json: args.print.json,
        nothing: "nothing is wrong that is to be changed on this host",
        undo: "dirigent doctor --undo",
    }
}

/// Where changes are noted. Kernel parameters do not outlive a reboot, nor need it.
fn record(instance: &str) -> PathBuf {
    format!("/run/dirigent/{instance}.doctor.json").into()
}

async fn examine(target: &Target, args: &DoctorArgs) -> Result<Diagnosis> {
    let query = args
        .about
        .as_deref()
        .map(|about| form_urlencoded::Serializer::new(String::new()).append_pair("about", about).finish());
    let path = query.map_or_else(|| path::DOCTOR.to_owned(), |query| format!("{}?{query}", path::DOCTOR));
    target.post(&path).await
}

fn fixes(found: &Diagnosis) -> Vec<Change> {
    let of = |finding: &Finding| {
        let why = finding.what.clone();
        let change = move |(name, value): (String, String)| Change::Sysctl {
            right: sysctl::get(&name).is_ok_and(|now| now == value),
            before: None,
            why: why.clone(),
            name,
            value,
        };
        let parameters = finding.sysctls.iter().map(|p| (p.name.clone(), p.value.clone()));
        parameters.map(change).collect::<Vec<_>>()
    };
    found.findings.iter().flat_map(of).filter(|change| !matches!(change, Change::Sysctl { right: true, .. })).collect()
}

fn exit_code(found: &Diagnosis) -> ExitCode {
    match (&found.findings[..], found.findings.iter().any(|finding| finding.severity == "error")) {
        ([], _) => ExitCode::SUCCESS,
        (_, true) => code::FAILED.into(),
        (_, false) => code::WARNINGS.into(),
    }
}

/// For people.
fn text(found: &Diagnosis) -> String {
    let mut out = String::new();
    for Finding { name, severity, place, what, evidence, rule, remedy, commands, .. } in &found.findings {
        let colour = if severity == "error" { 31 } else { 33 };
        out += &format!("{} {place}: {what} [{name}]\n", print::coloured(&format!("{severity}:"), colour));
        let lines = evidence.iter().map(|seen| ("seen", seen.clone()));
        let lines = lines.chain([("rule", rule.clone()), ("remedy", remedy.clone())]);
        let commands = commands.iter().map(|c| {
            let host = if c.host == "director" { "on this host".to_owned() } else { format!("on {}", c.host) };
            ("do", format!("{host}: {}", c.command))
        });
        for (word, line) in lines.chain(commands).filter(|(_, line)| !line.is_empty()) {
            out += &format!("  {word:<6} {line}\n");
        }
    }
    let right = found.paths.iter().filter(|path| path.right).count();
    out += &format!("{} tried, {right} right; ", print::count(found.paths.len(), "way"));
    let errors = found.findings.iter().filter(|finding| finding.severity == "error").count();
    out += &match found.findings.len() {
        0 => "nothing is wrong\n".to_owned(),
        all => format!("{}, {}\n", print::count(errors, "error"), print::count(all - errors, "warning")),
    };
    out
}
