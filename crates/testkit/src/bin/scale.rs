//! `scale`: very many services, two CPUs, and what follows for larger machines.

use dirigent_testkit::bench::{Options as Bench, cores};
use dirigent_testkit::progress::{clear, progress, write};
use dirigent_testkit::scale::{Options, cores_table, daemon, page};
use dirigent_testkit::{marked, occasion};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: scale --dirigent PROGRAM [--services N] [--servers N] [--rounds N] [--connections N]
             [--only daemon|cores] [--json FILE] [--docs FILE]
  a daemon with very many services, and what two CPUs do at once (needs root)
  --services     virtual services (10000)
  --servers      real servers of each (100)
  --rounds       rounds of each case on two CPUs (40)
  --connections  connections of the cases with many, a power of two (524288)
  --only         only one of the two
  --json         writes all that was measured
  --docs         docs/capacity.md, whose tables are written";

#[derive(Serialize)]
struct All {
    scale: Option<dirigent_testkit::scale::Scale>,
    cores: Option<cores::Cores>,
}

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("scale: {e}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), String> {
    let (mut dirigent, mut json, mut docs) = (None, None, None);
    let (mut services, mut servers, mut only) = (10_000, 100, String::new());
    let mut options = Bench { rounds: 40, ..Bench::default() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if matches!(argument.as_str(), "-h" | "--help") {
            println!("{USAGE}");
            return Ok(());
        }
        let value = arguments.next().ok_or(format!("{argument} wants a value\n{USAGE}"))?;
        let number = || value.parse::<u32>().ok().filter(|n| *n > 0).ok_or(format!("{value} is no number\n{USAGE}"));
        match argument.as_str() {
            "--dirigent" => dirigent = Some(PathBuf::from(value)),
            "--json" => json = Some(PathBuf::from(value)),
            "--docs" => docs = Some(PathBuf::from(value)),
            "--only" if ["daemon", "cores"].contains(&value.as_str()) => only = value,
            "--services" => services = number()?,
            "--servers" => servers = number()?,
            "--rounds" => options.rounds = number()? as usize,
            "--connections" => options.connections = number()?.next_power_of_two(),
            _ => return Err(format!("{argument} {value}?\n{USAGE}")),
        }
    }
    let dirigent = dirigent.ok_or(format!("--dirigent is missing\n{USAGE}"))?;
    let dirigent = std::path::absolute(&dirigent).map_err(|e| format!("{}: {e}", dirigent.display()))?;
    let mut all = All { scale: None, cores: None };
    if only != "cores" {
        let scale = daemon::run(&Options { dirigent, services, servers }, &mut progress())?;
        clear();
        print!("{}", scale.table());
        all.scale = Some(scale);
    }
    if only != "daemon" {
        // The measurement leaves its thread in a namespace of its own.
        let measured = std::thread::scope(|scope| scope.spawn(|| cores::run(&options, &mut progress())).join());
        let cores = measured.map_err(|_| "the measurement on two CPUs panicked".to_owned())??;
        clear();
        print!("{}", cores_table(&cores));
        all.cores = Some(cores);
    }
    if let Some(path) = docs {
        let occasion = format!("on {}, Linux {}, {}", occasion::day(), occasion::kernel(), occasion::cpus());
        marked::rewrite(&path, |text| page(text, all.scale.as_ref(), all.cores.as_ref(), &occasion))?;
    }
    json.map_or(Ok(()), |path| write(&path, &all))
}
