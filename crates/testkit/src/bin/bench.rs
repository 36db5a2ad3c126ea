//! `bench`: nanoseconds a packet, as multiples of floors measured beside them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dirigent_testkit::bench::{
    Bench, Live, Options, Report, against, cases, changes, document, instructions, ipvs, live, page, run,
};
use dirigent_testkit::progress::{clear, progress, write};

const USAGE: &str =
    "usage: bench [--rounds N] [--packets N] [--connections N] [--cpu N] [--only WORDS] [--json FILE] [--page FILE]
             [--before FILE] [--docs FILE --write]
       bench --against PROGRAM [--rounds N] [--packets N] [--connections N] [--cpu N] [--only WORDS] [--json FILE]
       bench --changes [--rounds N] [--packets N] [--cpu N] [--json FILE] [--docs FILE --write]
       bench --live N[,N]... [--rounds N] [--packets N] [--cpu N] [--json FILE] [--docs FILE --write]
       bench --instructions [--json FILE]
       bench --counted FILE [--docs FILE --write]
       bench --ipvs FILE|--ipvs-profile DIRECTORY --docs FILE [--write] [--json FILE]
  measures the packet path on XDP against floors in the same run (needs root)
  --rounds       rounds of each case, interleaved (150)
  --packets      packets of a round (20000)
  --connections  connections of the cases with many, a power of two (524288)
  --cpu          the CPU that all runs on (1)
  --only         only cases whose name holds these words, and their floors
  --before       ratios that another run has saved: what is slower now by more than chance is named
  --against      another revision's bench, measured in the same rounds (make bench ARGS=\"--against REV\" builds it)
  --driven       for such a run: cases are measured as standard input says
  --changes      forwarding while weights change and servers come and go
  --live         so many live connections by NAT: memory, sweep, forwarding beside it, and while a million expire
  --instructions where the clock counts instructions (scripts/bench-instructions.sh): those of packets of
                 known connections, and as if packets could not be traced
  --counted      what that has counted
  --ipvs         what scripts/bench-ipvs.py has counted: ours beside IPVS's (make bench-ipvs)
  --ipvs-profile its traces: which functions the director's instructions are of (make bench-ipvs ARGS=--profile)
  --docs         docs/performance.md, which says why IPVS's goals are missed; with --write its tables are written
  --json         writes what was measured; of cases name, min_ns, median_ns, floor, ratio, goal and noise
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

/// What is to be done.
#[derive(Debug, Default)]
enum Job {
    /// All cases, or some.
    #[default]
    Cases,
    /// Those, as standard input says.
    Driven,
    /// Those, beside another revision's program.
    Against(PathBuf),
    Changes,
    Live(Vec<u32>),
    /// What this guest counts.
    Instructions,
    /// What a guest has counted.
    Counted(String),
    Ipvs(String),
    IpvsProfile(String),
    /// A director of the guest that is held against IPVS, by this file of ipvsadm's lines.
    IpvsDirector(String),
}

/// The arguments.
#[derive(Debug, Default)]
struct Arguments {
    job: Job,
    options: Options,
    only: String,
    json: Option<PathBuf>,
    before: Option<PathBuf>,
    page: Option<String>,
    docs: Option<String>,
    write: bool,
}

impl Arguments {
    /// From the command line; nothing if only help was asked for.
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut read = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} wants a value\n{USAGE}"));
            let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text} is no number\n{USAGE}"));
            match argument.as_str() {
                "-h" | "--help" => return Ok(None),
                "--rounds" => read.options.rounds = number(&value()?)?.max(1) as usize,
                "--packets" => read.options.packets = number(&value()?)?.max(10),
                "--connections" => read.options.connections = number(&value()?)?,
                "--cpu" => read.options.cpu = number(&value()?)? as usize,
                "--only" => read.only = value()?,
                "--json" => read.json = Some(value()?.into()),
                "--before" => read.before = Some(value()?.into()),
                "--page" => read.page = Some(value()?),
                "--docs" => read.docs = Some(value()?),
                "--write" => read.write = true,
                against::DRIVEN => read.job = Job::Driven,
                "--against" => read.job = Job::Against(value()?.into()),
                "--changes" => read.job = Job::Changes,
                "--live" => read.job = Job::Live(value()?.split(',').map(number).collect::<Result<_, _>>()?),
                "--instructions" => read.job = Job::Instructions,
                "--counted" => read.job = Job::Counted(value()?),
                "--ipvs" => read.job = Job::Ipvs(value()?),
                "--ipvs-profile" => read.job = Job::IpvsProfile(value()?),
                "--ipvs-director" => read.job = Job::IpvsDirector(value()?),
                other => return Err(format!("{other}?\n{USAGE}")),
            }
        }
        if !read.options.connections.is_power_of_two() {
            return Err(format!("--connections {}: not a power of two", read.options.connections));
        }
        if read.write && !read.only.is_empty() {
            return Err("--write wants all cases, and --only leaves some out".into());
        }
        Ok(Some(read))
    }

    fn docs(&self) -> Result<&str, String> {
        self.docs.as_deref().ok_or(format!("--docs is missing\n{USAGE}"))
    }

    /// Writes parts of the document, if that is wanted.
    fn document(&self, parts: &[(document::Part, String)]) -> Result<(), String> {
        if self.write { document::write(Path::new(self.docs()?), parts) } else { Ok(()) }
    }

    fn save(&self, report: &impl serde::Serialize) -> Result<(), String> {
        self.json.as_deref().map_or(Ok(()), |file| write(file, report))
    }
}

fn bench() -> Result<ExitCode, String> {
    let Some(arguments) = Arguments::read(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let (options, only) = (&arguments.options, &*arguments.only);
    match &arguments.job {
        Job::Cases => return of_cases(&arguments),
        Job::Driven => {
            let mut bench = Bench::new(options, only, &mut |_, _, _| ())?;
            against::serve(&mut bench, std::io::stdin().lock(), std::io::stdout())?;
        }
        Job::Against(program) => {
            let report = against::run(program, options, only, &mut progress())?;
            clear();
            print!("{report}");
            arguments.save(&report)?;
        }
        Job::Changes => {
            let report = changes::run(options, &mut progress())?;
            clear();
            print!("{report}");
            arguments.save(&report)?;
            arguments.document(&[document::changes(&report, options)])?;
        }
        Job::Live(numbers) => of_live(&arguments, numbers)?,
        Job::Instructions => {
            let counted = instructions::run(&mut progress())?;
            clear();
            print!("{counted}");
            arguments.save(&counted)?;
        }
        Job::Counted(file) => {
            let counted = serde_json::from_str(&read(file)?).map_err(|e| format!("{file}: {e}"))?;
            print!("{counted}");
            arguments.document(&[document::instructions(&counted)])?;
            return Ok(judged(&counted.faults()));
        }
        Job::Ipvs(_) | Job::IpvsProfile(_) => return of_ipvs(&arguments),
        Job::IpvsDirector(lines) => {
            ipvs::director::serve(&read(lines)?, std::io::stdin().lock(), std::io::stdout())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Cases, beside their floors.
fn of_cases(arguments: &Arguments) -> Result<ExitCode, String> {
    let mut faults = match &arguments.page {
        Some(path) => page::differences(&read(path)?),
        None => Vec::new(),
    };
    // Read before this run is saved, perhaps in the same place.
    let before: Option<Report> = match &arguments.before {
        Some(file) if file.exists() => {
            let text = read(&file.display().to_string())?;
            Some(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?)
        }
        _ => None,
    };
    let report = run(&arguments.options, &arguments.only, &mut progress())?;
    clear();
    print!("{report}");
    let expected = cases::all(&arguments.options).into_iter().filter(|case| case.name.contains(&arguments.only));
    faults.extend(report.faults(&expected.collect::<Vec<_>>()));
    match (&arguments.before, before) {
        (Some(_), Some(before)) => {
            let slower = report.slower(&before);
            println!("{} slower by more than chance than the last saved ratios", slower.len());
            slower.iter().for_each(|line| println!("slower: {line}"));
        }
        (Some(file), None) => println!("nothing to compare with: there is no {} yet", file.display()),
        (None, _) => {}
    }
    arguments.save(&report)?;
    if faults.is_empty() {
        arguments.document(&document::of_report(&report, &arguments.options))?;
    }
    Ok(judged(&faults))
}

/// Live connections, each number of them in turn.
fn of_live(arguments: &Arguments, numbers: &[u32]) -> Result<(), String> {
    let least = arguments.options.packets;
    if let Some(wrong) = numbers.iter().find(|number| **number < least || **number > 1 << 28) {
        return Err(format!("--live {wrong}: not from {least} (--packets) to {}", 1 << 28));
    }
    let mut runs: Vec<Live> = Vec::new();
    for number in numbers {
        let run = live::run(&arguments.options, *number, &mut progress())?;
        clear();
        print!("{run}");
        runs.push(run);
    }
    arguments.save(&runs)?;
    arguments.document(&[document::live(&runs, &arguments.options)])
}

/// Instructions beside IPVS's.
fn of_ipvs(arguments: &Arguments) -> Result<ExitCode, String> {
    let docs = arguments.docs()?;
    let json = arguments.json.as_deref();
    let page = ipvs::Page::read(&read(docs)?).map_err(|e| format!("{docs}: {e}"))?;
    let (mark, tables, faults) = match &arguments.job {
        Job::Ipvs(counted) => beside_ipvs(counted, &page, json)?,
        Job::IpvsProfile(traces) => profile(traces, json)?,
        other => return Err(format!("{other:?} is not of IPVS")),
    };
    if arguments.write {
        std::fs::write(docs, page.with(mark, &tables)?).map_err(|e| format!("{docs}: {e}"))?;
        println!("written to {docs}");
    }
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
