//! `bench`: nanoseconds a packet, as multiples of floors measured beside them.

use std::path::PathBuf;
use std::process::ExitCode;

use dirigent_testkit::bench::{Options, cases, instructions, live, page, run};
use dirigent_testkit::progress::{clear, progress, write};

const USAGE: &str =
    "usage: bench [--rounds N] [--packets N] [--connections N] [--cpu N] [--only WORDS] [--json FILE] [--page FILE]
       bench --instructions
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
            "--page" => from = Some(value()?),
            other => return Err(format!("{other}?\n{USAGE}")),
        }
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
        Some(path) => page::differences(&std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?),
        None => Vec::new(),
    };
    let report = run(&options, &only, &mut progress())?;
    clear();
    print!("{report}");
    let expected: Vec<_> = cases::all(&options).into_iter().filter(|case| case.name.contains(&only)).collect();
    faults.extend(report.faults(&expected));
    json.as_deref().map_or(Ok(()), |file| write(file, &report))?;
    for fault in &faults {
        eprintln!("bench: {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
