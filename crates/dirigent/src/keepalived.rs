//! keepalived.conf with the files that it includes, and what it asks of its host.

use dirigent_config::import::{self, Keepalived, Loader};
use std::fs;
use std::path::Path;

/// Reads a text that came from the file `name`.
pub fn read(name: &str, text: &str) -> Keepalived {
    // What lines beginning with @ name is the host's, up to its first dot.
    let host = host_name();
    let id = host.split('.').next().unwrap_or_default();
    import::keepalived(name, text, id, &Files)
}

/// This host's name; empty if it has none.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

struct Files;

impl Loader for Files {
    fn load(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
        if pattern.contains(['{', '}']) {
            return Err("braces are not known here: name each file".into());
        }
        let directory = Path::new(from).parent().unwrap_or(Path::new(""));
        let whole = directory.join(pattern);
        let found = glob::glob(&whole.to_string_lossy()).map_err(|e| e.to_string())?;
        let mut files = Vec::new();
        for path in found.filter_map(Result::ok).filter(|path| path.is_file()) {
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            files.push((path.display().to_string(), text));
        }
        Ok(files)
    }
    fn environment(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}
