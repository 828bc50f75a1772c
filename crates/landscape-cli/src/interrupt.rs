//! Ctrl-C and SIGTERM ask for a stop after the present step; a second one ends the process at once.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Signals so soon after the first are the same wish: `timeout` and shells send one to the process and one to its group.
const SAME_WISH: Duration = Duration::from_millis(500);

static FIRST: OnceLock<Instant> = OnceLock::new();

/// Listens from now on.
pub fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if FIRST.get_or_init(Instant::now).elapsed() > SAME_WISH {
            std::process::exit(130);
        }
    })?;
    Ok(())
}

/// Whether a stop was asked for.
pub fn asked() -> bool {
    FIRST.get().is_some()
}
