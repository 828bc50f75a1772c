//! Where and of what a record was made.

use crate::shell;
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Machine, commit, compiler and day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub cpu: String,
    pub n_cores: usize,
    /// The vector instructions that our kernels and the peers' choose among.
    pub instructions: Vec<String>,
    pub memory_gib: Option<u64>,
    pub system: String,
    pub rustc: String,
    pub commit: String,
    /// Whether files differed from the commit's.
    pub dirty: bool,
    pub date: String,
}

/// The names that matter, as Linux writes them.
const INSTRUCTIONS: [&str; 7] = ["avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_tile"];

impl Provenance {
    /// Of this machine, now.
    pub fn now() -> anyhow::Result<Self> {
        let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            cpu_info.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name)).map(|(_, value)| value.trim())
        };
        let flags: Vec<&str> = field("flags").unwrap_or_default().split_whitespace().collect();
        let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Provenance {
            cpu: field("model name").unwrap_or("unknown").to_owned(),
            n_cores: std::thread::available_parallelism()?.get(),
            instructions: INSTRUCTIONS.into_iter().filter(|name| flags.contains(name)).map(str::to_owned).collect(),
            memory_gib: memory.map(|kib| (kib + (1 << 19)) >> 20),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            rustc: output("rustc", &["--version"]),
            commit: output("git", &["rev-parse", "--short=10", "HEAD"]),
            // What the task itself writes makes no difference to what was measured.
            dirty: !output("git", &["status", "--porcelain", "--", ".", ":!benches/records", ":!docs"]).is_empty(),
            date: date(seconds / 86_400),
        })
    }
}

/// What a program prints; nothing if it cannot be run.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(shell::root()).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

/// Year, month and day, `days` after 1970-01-01, in the Gregorian calendar: years are counted from March, so that the day that is
/// sometimes there comes last.
fn date(days: u64) -> String {
    let from_march_of_0 = days + 719_468;
    let (era, day) = (from_march_of_0 / 146_097, from_march_of_0 % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_have_their_dates() {
        let known = [(0, "1970-01-01"), (11_016, "2000-02-29"), (11_017, "2000-03-01"), (19_782, "2024-02-29"), (20_453, "2025-12-31")];
        for (days, text) in known {
            assert_eq!(date(days), text);
        }
    }
}
