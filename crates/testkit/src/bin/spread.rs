//! `spread FILE`: draws how each scheduler spreads load, from runs in memory.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1).filter(|file| !file.starts_with('-')) else {
        eprintln!("usage: spread FILE\n  draws how each scheduler spreads load, as SVG (docs/schedulers.svg)");
        return ExitCode::from(2);
    };
    let drawn = dirigent_testkit::spread::picture();
    match drawn.and_then(|picture| std::fs::write(&file, picture).map_err(|e| format!("{file}: {e}"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
