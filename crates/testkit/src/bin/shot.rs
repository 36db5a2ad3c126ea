//! `shot COLUMNS ROWS FILE TITLE < SCREEN`: draws a terminal's screen, as `tmux capture-pane -ep` prints it, as SVG.

use std::io::Read as _;
use std::process::ExitCode;

fn drawn(args: &[String]) -> Result<(), String> {
    let [columns, rows, file, title] = args else {
        return Err("usage: shot COLUMNS ROWS FILE TITLE < SCREEN".into());
    };
    let size = |what: &str, word: &str| word.parse().map_err(|e| format!("{what} {word}: {e}"));
    let mut screen = String::new();
    std::io::stdin().read_to_string(&mut screen).map_err(|e| format!("stdin: {e}"))?;
    if screen.trim().is_empty() {
        return Err("stdin: there is nothing on the screen".into());
    }
    let svg = dirigent_testkit::shot::svg(&screen, size("columns", columns)?, size("rows", rows)?, title);
    std::fs::write(file, svg).map_err(|e| format!("{file}: {e}"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match drawn(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
