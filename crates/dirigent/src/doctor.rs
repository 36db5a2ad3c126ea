//! `dirigent doctor`: what the daemon's doctor found, and what `--fix` does about it on this host.

use crate::ask::Target;
use crate::changes::{self, Change, Terms};
use crate::cli::DoctorArgs;
use crate::failure::{Result, code};
use crate::print;
use dirigent_api::{Diagnosis, Finding, NeighbourEntry, Steering, path};
use dirigent_config::failover::mac_of;
use dirigent_net::sysctl;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

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
    let asked = target.post(&path);
    if !std::io::stderr().is_terminal() {
        return asked.await;
    }
    tokio::pin!(asked);
    let begun = Instant::now();
    loop {
        eprint!(
            "{CLEAR}looking: ways to servers, who has the virtual addresses, this host ({} s)",
            begun.elapsed().as_secs()
        );
        tokio::select! {
            answer = &mut asked => {
                eprint!("{CLEAR}");
                return answer;
            }
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// To the line's beginning, and nothing on it (ECMA-48: CR, EL).
const CLEAR: &str = "\r\x1b[K";
/// How often a terminal is told that it goes on.
const TICK: Duration = Duration::from_secs(1);

/// What is changed on this host.
fn fixes(found: &Diagnosis) -> Vec<Change> {
    let all = found.findings.iter();
    all.flat_map(|finding| sysctls(finding).chain(neighbours(finding)).chain(steering(finding))).collect()
}

fn sysctls(finding: &Finding) -> impl Iterator<Item = Change> {
    let wrong = finding.sysctls.iter().filter(|p| sysctl::get(&p.name).is_ok_and(|now| now != p.value));
    wrong.map(|parameter| Change::Sysctl {
        name: parameter.name.clone(),
        value: parameter.value.clone(),
        before: None,
        why: finding.what.clone(),
        right: false,
    })
}

fn steering(finding: &Finding) -> impl Iterator<Item = Change> {
    finding.steering.iter().map(|Steering { interface, queue, cpus }| Change::Steering {
        interface: interface.clone(),
        queue: queue.clone(),
        cpus: cpus.clone(),
        before: None,
        why: finding.what.clone(),
    })
}

fn neighbours(finding: &Finding) -> impl Iterator<Item = Change> {
    let remove = |entry: &NeighbourEntry| {
        Some(Change::Neighbour {
            interface: entry.interface.clone(),
            address: entry.address.parse().ok()?,
            mac: mac_of(&entry.mac)?,
            why: finding.what.clone(),
        })
    };
    finding.neighbours.iter().filter_map(remove)
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
