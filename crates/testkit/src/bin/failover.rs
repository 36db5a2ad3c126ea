//! `failover`: what a failover costs clients, with keepalived measured beside.

use dirigent_testkit::failover::lab::{Lab, PAIRS, Wanted};
use dirigent_testkit::failover::report::{Report, fast_lines, table};
use dirigent_testkit::failover::scenario::{Scenario, fast, run, servers};
use dirigent_testkit::progress::write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: failover --dirigent PROGRAM [--only SCENARIO] [--interval MS] [--no-sync] [--json FILE]
       failover --dirigent PROGRAM --fast [--runs N] [--interval MS] [--json FILE]
  two directors, two hosts of keepalived, clients and servers in namespaces (needs root)
  --only      planned, power-off, kill, hang, split, slow or lost-adverts; can be given again
  --interval  from one advert to the next, in steps of 10 ms (100; with --fast 10)
  --no-sync   directors do not make connections known to each other
  --fast      the master's links are cut again and again: how long clients wait
  --runs      so often (20)
  --json      writes all that was measured";

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("failover: {e}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), String> {
    let (mut dirigent, mut json, mut only, mut interval) = (None, None, Vec::new(), None);
    let (mut sync, mut is_fast, mut runs) = (true, false, 20);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value\n{USAGE}"));
        let number = |text: String| text.parse::<u32>().map_err(|_| format!("{text} is no number\n{USAGE}"));
        match argument.as_str() {
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            "--dirigent" => dirigent = Some(PathBuf::from(value()?)),
            "--json" => json = Some(PathBuf::from(value()?)),
            "--interval" => interval = Some(number(value()?)?),
            "--runs" => runs = number(value()?)?.max(1) as usize,
            "--no-sync" => sync = false,
            "--fast" => is_fast = true,
            "--only" => {
                let name = value()?;
                let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
                only.push(found.ok_or(format!("{name} is no scenario\n{USAGE}"))?);
            }
            other => return Err(format!("{other}?\n{USAGE}")),
        }
    }
    let dirigent = dirigent.ok_or(format!("--dirigent is missing\n{USAGE}"))?;
    let dirigent = std::path::absolute(&dirigent).map_err(|e| format!("{}: {e}", dirigent.display()))?;
    let interval_ms = u64::from(interval.unwrap_or(if is_fast { 10 } else { 100 }));
    let wanted = Wanted { dirigent, interval: Duration::from_millis(interval_ms), sync };
    let mut lab = Lab::up(wanted);
    let mut report = Report { interval_ms, sync: lab.sync, ..Report::default() };
    let _servers = servers(&lab);
    println!(
        "adverts every {interval_ms} ms; directors {} each other of connections",
        if lab.sync { "tell" } else { "do not tell" }
    );
    if is_fast {
        report.fast = fast(&mut lab, runs);
        print!("{}", fast_lines(&report.fast));
    } else {
        let all = if only.is_empty() { Scenario::ALL.to_vec() } else { only };
        lab.start_pairs(&PAIRS);
        for scenario in all {
            let rows = run(&mut lab, scenario);
            for row in rows.iter().filter(|row| row.broken.is_some()) {
                let why = row.broken.as_deref().unwrap_or_default();
                eprintln!("{}, {} {}: the first transfer that broke: {why}", row.scenario, row.who, row.mode);
            }
            report.scenarios.extend(rows);
        }
        print!("\n{}", table(&report.scenarios));
    }
    if let Some(file) = json {
        write(&file, &report)?;
    }
    Ok(())
}
