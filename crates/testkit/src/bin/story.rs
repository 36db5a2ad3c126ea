//! `story`: writes a document of docs/ anew, with what its commands print now.

use dirigent_testkit::story::retold;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: story --dirigent PROGRAM FILE...
  runs the commands of each document in a lab, and writes what they print below them (needs root)";

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("story: {e}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<(), String> {
    let (mut dirigent, mut files) = (None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            "--dirigent" => dirigent = arguments.next().map(PathBuf::from),
            _ => files.push(argument),
        }
    }
    let dirigent = dirigent.ok_or(USAGE)?;
    let dirigent = dirigent.canonicalize().map_err(|e| format!("{}: {e}", dirigent.display()))?;
    let lab = format!("story{}", std::process::id());
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
        let told = retold(&text, &dirigent, &lab)?;
        std::fs::write(Path::new(&file), told).map_err(|e| format!("{file}: {e}"))?;
        println!("{file}: told anew");
    }
    Ok(())
}
