//! How far a long command is, and what it leaves behind.

use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// On a terminal a line that is written over, else a line every ten seconds.
pub fn progress() -> impl FnMut(&str, usize, usize) {
    let terminal = std::io::stderr().is_terminal();
    let pause = Duration::from_secs(if terminal { 0 } else { 10 });
    let mut last = None::<Instant>;
    move |what, done, of| {
        if last.is_none_or(|last| last.elapsed() >= pause) {
            last = Some(Instant::now());
            let (begin, end) = if terminal { ("\r\x1b[K", "") } else { ("", "\n") };
            eprint!("{begin}{what}: {done} of {of}{end}");
            let _ = std::io::stderr().flush();
        }
    }
}

/// Ends the line of the progress.
pub fn clear() {
    eprint!("{}", if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" });
}

/// Writes what was measured as JSON, and says so.
pub fn write(path: &Path, report: &impl Serialize) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(fail)?;
    }
    let text = serde_json::to_string_pretty(report).map_err(|e| e.to_string())?;
    std::fs::write(path, text + "\n").map_err(fail)?;
    println!("written to {}", path.display());
    Ok(())
}
