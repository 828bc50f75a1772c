//! Resident memory of this process, as Linux tells it.

/// Bytes resident now; none where `/proc` is not there.
pub fn resident_bytes() -> Option<u64> {
    field("VmRSS:")
}

/// The most bytes that were resident at once.
pub fn peak_bytes() -> Option<u64> {
    field("VmHWM:")
}

fn field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
