//! Kernel settings under `/proc/sys`, of the calling thread's network namespace.

use crate::error::{Context, Result};
use std::fs;

/// Sets `net/ipv4/ip_forward` and its like (names with slashes, because interface names may hold dots).
pub fn set(name: &str, value: &str) -> Result<()> {
    fs::write(path(name), value).context(|| format!("setting {name} to {value}"))
}

/// Reads a setting, without its line end.
pub fn get(name: &str) -> Result<String> {
    Ok(fs::read_to_string(path(name)).context(|| format!("reading {name}"))?.trim_end().to_string())
}

/// Sets it if the kernel has it; says whether it has.
pub fn set_if_there(name: &str, value: &str) -> Result<bool> {
    if !std::path::Path::new(&path(name)).exists() {
        return Ok(false);
    }
    set(name, value).map(|()| true)
}

fn path(name: &str) -> String {
    format!("/proc/sys/{name}")
}
