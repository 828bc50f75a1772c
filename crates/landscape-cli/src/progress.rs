//! How far a run is: a bar with loss, accuracy and time left on a terminal, plain lines otherwise, nothing with `--quiet`.

use crate::args::Common;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A line at least every so often where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A running display of one piece of work.
pub struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    name: String,
    n_units: u64,
    n_done: u64,
    started: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    /// Shows `n_units` of work, the first `n_done` of which were done before.
    pub fn new(common: &Common, name: &str, n_units: u64, n_done: u64) -> Self {
        let terminal = std::io::stderr().is_terminal() && !common.quiet;
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(n_units), ProgressDrawTarget::stderr()).with_position(n_done);
            let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}  {msg}  {eta} left")
                .expect("the template is fixed and names known keys");
            bar.set_style(style);
            bar.set_prefix(name.to_owned());
            bar
        });
        let lines = !terminal && !common.quiet;
        Progress { bar, lines, name: name.to_owned(), n_units, n_done, started: Instant::now(), last_line: None }
    }

    /// Units done in all, and what they gave.
    pub fn update(&mut self, n_done: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(n_done);
            bar.set_message(message());
        } else if self.lines && (n_done == self.n_units || self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY)) {
            let done_here = n_done.saturating_sub(self.n_done).max(1);
            let left = self.started.elapsed().as_secs_f64() / done_here as f64 * self.n_units.saturating_sub(n_done) as f64;
            // A closed stderr must not end a run of hours.
            let _ = writeln!(std::io::stderr(), "{} {n_done}/{}  {}  {left:.0} s left", self.name, self.n_units, message());
            self.last_line = Some(Instant::now());
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
