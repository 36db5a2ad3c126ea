//! `golden DIR`: runs every recording of a directory.

use std::path::Path;
use std::process::ExitCode;

use dirigent_testkit::golden::kernel::{InKernel, Path as KernelPath};
use dirigent_testkit::golden::{Executor, Ran, Unsupported, memory::Memory, run_directory};

const USAGE: &str = "usage: golden [--only memory|xdp|tc] [--skip-unsupported] [--json] DIR
  runs every recording of DIR in memory, on XDP and on tc (which needs root), prints
  each mismatch, and closes with \"N passed, N failed, N excused\"; 1 if any failed
  --only              in one of them only
  --skip-unsupported  set-ups and formats that this version has not got are named but
                      not counted; without it their steps count as failed
  --json              one JSON document instead of text";

fn main() -> ExitCode {
    let (mut json, mut unsupported) = (false, Unsupported::Fails);
    let mut directories = Vec::new();
    let mut only = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--skip-unsupported" => unsupported = Unsupported::IsSkipped,
            "--json" => json = true,
            "--only" => only = arguments.next(),
            other if other.starts_with('-') => return usage(),
            _ => directories.push(argument),
        }
    }
    let [directory] = directories.as_slice() else { return usage() };
    let mut executors: Vec<Box<dyn Executor>> = vec![
        Box::new(Memory::default()),
        Box::new(InKernel::new(KernelPath::Xdp)),
        Box::new(InKernel::new(KernelPath::Tc)),
    ];
    executors.retain(|executor| only.as_deref().is_none_or(|only| only == executor.name()));
    if executors.is_empty() {
        return usage();
    }
    // Each recording's lines as soon as it has ended: loading programs takes a second or so.
    let mut see = |ran: &Ran| if json { eprintln!("{} ({})", ran.recording, ran.executor) } else { print!("{ran}") };
    match run_directory(Path::new(directory), &mut executors, unsupported, &mut see) {
        Ok(report) => {
            match json {
                true => println!("{}", serde_json::to_string_pretty(&report).unwrap()),
                false => print!("{report}"),
            }
            if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
