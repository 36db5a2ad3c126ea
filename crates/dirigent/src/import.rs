//! `dirigent import`: other programs' configuration as dirigent.toml.

use crate::cli::ImportCommand;
use crate::failure::{Failure, Result, code};
use crate::ipvsadm::SystemNames;
use crate::keepalived;
use crate::netfilter::Netfilter;
use crate::print;
use dirigent_config::Model;
use dirigent_config::file::{marks_to_toml, to_toml};
use dirigent_config::import::{self, Family, Imported, Refused};
use dirigent_config::mark::MAX_MARK_RULES;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

/// Carries it out. What was translated is printed, even if not all was.
pub fn run(command: &ImportCommand) -> Result<ExitCode> {
    let (file, imported) = match command {
        ImportCommand::Ipvsadm { file } => {
            let table = import::ipvsadm(&read(file)?, &SystemNames::default());
            print::text(&to_toml(&table.model))?;
            firewall(&table.model);
            return Ok(refused(file, &table.refused));
        }
        ImportCommand::Keepalived { file } => {
            let found = keepalived::read(&name(file), &read(file)?);
            print::text(&to_toml(&found.model))?;
            firewall(&found.model);
            found.faults.iter().for_each(|fault| eprintln!("wrong: {fault}"));
            found.refused.iter().for_each(|one| eprintln!("not translated: {one}"));
            let all = found.faults.is_empty() && found.refused.is_empty();
            return Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(code::FAILED) });
        }
        ImportCommand::Iptables { file, ipv6 } => {
            let family = if *ipv6 { Family::V6 } else { Family::V4 };
            (file, import::iptables(&read(file)?, family))
        }
        ImportCommand::Nft { file } => {
            let remedy = "give it what `nft -j list ruleset` prints";
            (file, import::nft(&read(file)?).map_err(|what| Failure::new(name(file), what, remedy))?)
        }
    };
    let Imported { rules, refused: others } = imported;
    let text = marks_to_toml(&rules);
    print::text(text.trim_start())?;
    let code = refused(file, &others);
    if rules.len() > MAX_MARK_RULES {
        let what = format!("{} rules came of it, more than {MAX_MARK_RULES}", rules.len());
        return Err(Failure::new(name(file), what, "join rules of neighbouring prefixes or ports"));
    }
    Ok(code)
}

/// Rules that stood before IPVS on this host, and do not before the director. Elsewhere nothing is known of them.
fn firewall(model: &Model) {
    Netfilter::read().warnings(model).iter().for_each(|warning| eprintln!("warning: {warning}"));
}

/// Names what could not be translated; the exit code.
fn refused(file: &Path, all: &[Refused]) -> ExitCode {
    all.iter().for_each(|one| eprintln!("not translated: {}: {one}", name(file)));
    if all.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(code::FAILED) }
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "stdin".into() } else { file.display().to_string() }
}

fn read(file: &Path) -> Result<String> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|e| Failure::io(name(file), &e))
}
