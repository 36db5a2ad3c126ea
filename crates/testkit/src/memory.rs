//! What procfs says of memory.

/// Bytes that a line of a file like `/proc/meminfo` tells (proc_meminfo(5), proc_pid_status(5)).
pub fn bytes(path: &str, key: &str) -> Result<u64, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or(format!("{path} does not say {key}"))
}
