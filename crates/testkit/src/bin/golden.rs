//! `golden DIR`: runs every recording of a directory.

use std::path::Path;
use std::process::ExitCode;

use dirigent_testkit::golden::kernel::{InKernel, Path as KernelPath};
use dirigent_testkit::golden::{Executor, memory::Memory, run_directory};

const USAGE: &str = "usage: golden [--only memory|xdp|tc] [--strict] DIR
  runs every recording of DIR in memory, on XDP and on tc (which needs root)
  --only    in one of them only
  --strict  steps of set-ups that this version has not got count as failed";

fn main() -> ExitCode {
    let mut strict = false;
    let mut directories = Vec::new();
    let mut only = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--strict" => strict = true,
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
    match run_directory(Path::new(directory), &mut executors, strict) {
        Ok(report) => {
            print!("{}{report}", report.text);
            if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
