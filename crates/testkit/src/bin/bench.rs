//! `bench`: nanoseconds a packet, as multiples of floors measured beside them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dirigent_testkit::bench::{Options, cases, instructions, ipvs, live, page, run};
use dirigent_testkit::progress::{clear, progress, write};

const USAGE: &str =
    "usage: bench [--rounds N] [--packets N] [--connections N] [--cpu N] [--only WORDS] [--json FILE] [--page FILE]
       bench --instructions
       bench --ipvs FILE|--ipvs-profile DIRECTORY --docs FILE [--write] [--json FILE]
       bench --live N [--rounds N] [--packets N] [--cpu N] [--json FILE]
  measures the packet path on XDP against floors in the same run (needs root)
  --rounds       rounds of each case, interleaved (150)
  --packets      packets of a round (20000)
  --connections  connections of the cases with many, a power of two (524288)
  --cpu          the CPU that all runs on (1)
  --only         only cases whose name holds these words, and their floors
  --live         so many live connections by NAT: memory, sweep, forwarding beside it
  --instructions where the clock counts instructions (scripts/bench-instructions.sh): those of packets of
                 known connections, and as if packets could not be traced
  --ipvs         what scripts/bench-ipvs.py has counted: ours beside IPVS's (make bench-ipvs)
  --ipvs-profile its traces: which functions the director's instructions are of (make bench-ipvs ARGS=--profile)
  --docs         docs/performance.md, which says why goals are missed; with --write its tables are written
  --json         writes name, min_ns, median_ns, floor, ratio and goal of each case
  --page         reference/performance.md: each of its cases must be measured
  1 if a case is missing, a packet left its path, or the floors are not sound";

fn main() -> ExitCode {
    match bench() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<ExitCode, String> {
    let mut options = Options::default();
    let (mut only, mut json, mut from, mut alive) = (String::new(), None, None, None);
    let (mut counted, mut traces, mut docs, mut write_docs) = (None, None, None, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if matches!(argument.as_str(), "-h" | "--help") {
            println!("{USAGE}");
            return Ok(ExitCode::SUCCESS);
        }
        if argument == "--instructions" {
            let rows = instructions::run(&mut progress())?;
            clear();
            println!("{:24}  {:>8}  {:>8}  {:>6}", "instructions/packet", "director", "untraced", "ratio");
            rows.iter().for_each(|row| println!("{row}"));
            return Ok(ExitCode::from(u8::from(rows.iter().any(|row| row.ratio() > instructions::GOAL))));
        }
        if argument == "--ipvs-director" {
            let lines = arguments.next().ok_or("--ipvs-director wants a file of ipvsadm's lines")?;
            ipvs::director::serve(&read(&lines)?, std::io::stdin().lock(), std::io::stdout())?;
            return Ok(ExitCode::SUCCESS);
        }
        if argument == "--write" {
            write_docs = true;
            continue;
        }
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value\n{USAGE}"));
        let number = |text: String| text.parse::<u32>().map_err(|_| format!("{text} is no number\n{USAGE}"));
        match argument.as_str() {
            "--rounds" => options.rounds = number(value()?)?.max(1) as usize,
            "--packets" => options.packets = number(value()?)?.max(10),
            "--connections" => options.connections = number(value()?)?,
            "--cpu" => options.cpu = number(value()?)? as usize,
            "--live" => alive = Some(number(value()?)?),
            "--only" => only = value()?,
            "--json" => json = Some(PathBuf::from(value()?)),
            "--ipvs" => counted = Some(value()?),
            "--ipvs-profile" => traces = Some(value()?),
            "--docs" => docs = Some(value()?),
            "--page" => from = Some(value()?),
            other => return Err(format!("{other}?\n{USAGE}")),
        }
    }
    if counted.is_some() || traces.is_some() {
        let docs = docs.ok_or(format!("--docs is missing\n{USAGE}"))?;
        let page = ipvs::Page::read(&read(&docs)?).map_err(|e| format!("{docs}: {e}"))?;
        let (mark, tables, faults) = match (counted, traces) {
            (Some(counted), _) => beside_ipvs(&counted, &page, json.as_deref())?,
            (_, traces) => profile(&traces.unwrap_or_default(), json.as_deref())?,
        };
        if write_docs {
            std::fs::write(&docs, page.with(mark, &tables)?).map_err(|e| format!("{docs}: {e}"))?;
            println!("written to {docs}");
        }
        return Ok(judged(&faults));
    }
    if !options.connections.is_power_of_two() {
        return Err(format!("--connections {}: not a power of two", options.connections));
    }
    if let Some(connections) = alive {
        if connections < options.packets || connections > 1 << 28 {
            return Err(format!("--live {connections}: not from {} (--packets) to {}", options.packets, 1 << 28));
        }
        let report = live::run(&options, connections, &mut progress())?;
        clear();
        print!("{report}");
        json.as_deref().map_or(Ok(()), |file| write(file, &report))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut faults = match &from {
        Some(path) => page::differences(&read(path)?),
        None => Vec::new(),
    };
    let report = run(&options, &only, &mut progress())?;
    clear();
    print!("{report}");
    let expected: Vec<_> = cases::all(&options).into_iter().filter(|case| case.name.contains(&only)).collect();
    faults.extend(report.faults(&expected));
    json.as_deref().map_or(Ok(()), |file| write(file, &report))?;
    Ok(judged(&faults))
}

/// What `scripts/bench-ipvs.py` has counted, held against the goals and what the page explains: the page's mark, the tables for it,
/// and what is wrong.
fn beside_ipvs(
    counted: &str,
    page: &ipvs::Page,
    json: Option<&Path>,
) -> Result<(&'static str, String, Vec<String>), String> {
    let counted = ipvs::Counted::read(&read(counted)?).map_err(|e| format!("{counted}: {e}"))?;
    let astray = counted.faults();
    if !astray.is_empty() {
        return Err(astray.join("\nbench: "));
    }
    let report = ipvs::Report::new(&counted)?;
    let tables = report.tables();
    print!("{tables}");
    for line in report.outdated(page) {
        println!("explained, and no longer so: {line}");
    }
    json.map_or(Ok(()), |file| write(file, &report))?;
    Ok((ipvs::page::TABLES, tables, report.faults(page)))
}

/// Which functions the director's instructions are of, likewise.
fn profile(traces: &str, json: Option<&Path>) -> Result<(&'static str, String, Vec<String>), String> {
    let mut profiles = Vec::new();
    for (path, case) in ipvs::profile::traced() {
        let symbols = ipvs::profile::Symbols::read(&read(&format!("{traces}/kallsyms-{path}"))?);
        let trace = read(&format!("{traces}/trace-{path}_{}", case.replace(' ', "_")))?;
        profiles.push(ipvs::Profile::read(path, &case, &trace, &symbols)?);
    }
    let table = ipvs::profile::table(&profiles);
    print!("{table}");
    json.map_or(Ok(()), |file| write(file, &profiles))?;
    Ok((ipvs::page::PROFILE, table, Vec::new()))
}

/// Says what is wrong.
fn judged(faults: &[String]) -> ExitCode {
    for fault in faults {
        eprintln!("bench: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
}
