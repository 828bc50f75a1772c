//! What goes where: with `--json` exactly one JSON document on stdout; everything for people on stderr, or on stdout without it.

use crate::args::Common;
use std::io::Write;

/// Diagnostics of the libraries go to stderr.
pub fn init_tracing(common: &Common) {
    let level = if common.quiet { tracing::Level::ERROR } else { tracing::Level::WARN };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).without_time().with_target(false).init();
}

/// A line for the person who watches; nothing with `--quiet`.
pub fn note(common: &Common, line: &str) {
    if !common.quiet {
        // A closed stderr must not end a run of hours.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// The result: the JSON document with `--json`, else the text for people.
pub fn result(common: &Common, json: &serde_json::Value, text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = if common.json {
        serde_json::to_writer_pretty(&mut stdout, json).map_err(std::io::Error::from).and_then(|()| writeln!(stdout))
    } else if common.quiet {
        Ok(())
    } else {
        writeln!(stdout, "{}", text.trim_end())
    };
    unless_closed(written)
}

/// Bytes to stdout as they are.
pub fn script(bytes: &[u8]) -> anyhow::Result<()> {
    unless_closed(std::io::stdout().lock().write_all(bytes))
}

/// Who closed the pipe has seen enough.
fn unless_closed(written: std::io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
