//! `golden DIR`: runs every recording of a directory.

use std::path::Path;
use std::process::ExitCode;

use dirigent_testkit::golden::{Executor, memory::Memory, run_directory};

const USAGE: &str = "usage: golden [--strict] DIR
  --strict  steps of set-ups that this version has not got count as failed";

fn main() -> ExitCode {
    let mut strict = false;
    let mut directories = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--strict" => strict = true,
            other if other.starts_with('-') => return usage(),
            _ => directories.push(argument),
        }
    }
    let [directory] = directories.as_slice() else { return usage() };
    let mut executors: Vec<Box<dyn Executor>> = vec![Box::new(Memory::default())];
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
