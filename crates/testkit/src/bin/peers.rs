//! `peers`: ours beside others that balance connections, and beside plain routing.

use dirigent_testkit::marked;
use dirigent_testkit::peers::{Options, page, plot, run, site};
use dirigent_testkit::progress::{clear, progress, write};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: peers --dirigent PROGRAM [--quick] [--rounds N] [--seconds N] [--only WORDS] [--json FILE] [--into DIRECTORY]
       peers --dirigent PROGRAM --clean
  throughput, requests, times to answer, new connections, datagrams and CPU time of Dirigent, nftables, HAProxy, nginx and
  plain routing, in namespaces (needs root)
  --quick    one round
  --rounds   rounds of all (5)
  --seconds  of one measurement (1)
  --only     only what has all these words: frames or offloads; stream, streams, down, requests, connections, datagrams or
             latency; routing, xdp, tc, nat, dr, tun, nftables, haproxy or nginx; of words between commas one. Plain routing is
             always measured beside it
  --json     writes all that was measured
  --into     the project: a run of everything writes the tables and pictures of its documents
  --clean    only takes away the labs of runs that were interrupted";

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), String> {
    let mut options = Options { dirigent: PathBuf::new(), rounds: 5, seconds: 1, only: Vec::new() };
    let (mut json, mut into, mut quick, mut clean) = (None, None, false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value\n{USAGE}"));
        let number = |text: String| text.parse::<u32>().map_err(|_| format!("{text} is no number\n{USAGE}"));
        match argument.as_str() {
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            "--dirigent" => options.dirigent = PathBuf::from(value()?),
            "--quick" => (options.rounds, quick) = (1, true),
            "--clean" => clean = true,
            "--rounds" => options.rounds = number(value()?)?.max(1) as usize,
            "--seconds" => options.seconds = number(value()?)?.max(1),
            "--only" => options.only.push(value()?),
            "--json" => json = Some(PathBuf::from(value()?)),
            "--into" => into = Some(PathBuf::from(value()?)),
            other => return Err(format!("{other}?\n{USAGE}")),
        }
    }
    if options.dirigent.as_os_str().is_empty() {
        return Err(format!("--dirigent is missing\n{USAGE}"));
    }
    let dirigent = std::path::absolute(&options.dirigent);
    options.dirigent = dirigent.map_err(|e| format!("{}: {e}", options.dirigent.display()))?;
    if clean {
        return site::clean_stale(&options.dirigent);
    }
    let report = run(&options, &mut progress())?;
    clear();
    print!("{report}");
    if let Some(file) = json {
        write(&file, &report.saved())?;
    }
    // A part would leave the rest of the tables empty, and one round says little.
    if let Some(project) = into.filter(|_| options.only.is_empty() && !quick) {
        for (file, table) in [("README.md", page::summary(&report)), ("docs/peers.md", page::tables(&report))] {
            marked::rewrite(&project.join(file), |text| marked::with(text, page::TABLES, &table))?;
        }
        let pictures = [
            ("peers", plot::rates(&report)),
            ("peers-cpu", plot::cpu(&report)),
            ("peers-latency", plot::latency(&report)),
        ];
        for (name, picture) in pictures {
            let path = project.join(format!("docs/{name}.svg"));
            std::fs::write(&path, picture).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        println!("tables in README.md and docs/peers.md, pictures beside it");
    }
    Ok(())
}
