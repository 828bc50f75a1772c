//! One file a command: parse, call the libraries, record.

mod compare;
mod connect;
mod demo;
mod import;
mod inspect;
mod plane;
mod point;
mod profile;
mod report;
mod seeds;
mod train;
mod training;

pub use seeds::Seeds;

use crate::args::{Cli, Command};
use clap::CommandFactory;
use std::num::NonZeroUsize;

/// More threads than any machine runs at once.
const MAX_THREADS: usize = 4096;
/// As much as the main thread has where nothing else is said.
const STACK_BYTES: usize = 8 << 20;

/// Runs the command.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    let common = &cli.common;
    common.check_device()?;
    if computes(&cli.command) {
        // Once, and before any work: the commands take these.
        common.devices()?;
    }
    if let Some(level) = common.kernels {
        landscape_kernels::simd::force(level)?;
    }
    let n_threads = common.threads.map_or(0, NonZeroUsize::get);
    if n_threads > MAX_THREADS {
        anyhow::bail!("`--threads` must be at most {MAX_THREADS}, got {n_threads}");
    }
    let trains = matches!(cli.command, Command::Train(_) | Command::Connect(_));
    if common.max_steps.is_some() && !trains {
        anyhow::bail!("`--max-steps` ends training, so it is for `train` and `connect` only");
    }
    if common.activation_mib.is_some() && !trains {
        anyhow::bail!("`--activation-mib` limits training steps, so it is for `train` and `connect` only");
    }
    crate::interrupt::listen()?;
    // The command itself runs on a thread of the pool: from any other, every op would be handed over and waited for.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).stack_size(STACK_BYTES).build()?;
    pool.install(|| dispatch(cli))
}

/// Whether a command has work for devices.
fn computes(command: &Command) -> bool {
    match command {
        Command::Train(_)
        | Command::Connect(_)
        | Command::Profile(_)
        | Command::Point(_)
        | Command::Plane(_)
        | Command::Compare(_)
        | Command::Demo(_) => true,
        Command::Report(_) | Command::Inspect(_) | Command::Import(_) | Command::ExportScript | Command::Completions { .. } => false,
    }
}

fn dispatch(cli: &Cli) -> anyhow::Result<()> {
    let common = &cli.common;
    match &cli.command {
        Command::Train(args) => train::run(common, args),
        Command::Connect(args) => connect::run(common, args),
        Command::Profile(args) => profile::run(common, args),
        Command::Point(args) => point::run(common, args),
        Command::Plane(args) => plane::run(common, args),
        Command::Report(args) => report::run(common, args),
        Command::Compare(args) => compare::run(common, args),
        Command::Inspect(args) => inspect::run(common, args),
        Command::Import(args) => import::run(common, args),
        Command::Demo(args) => demo::run(common, args),
        Command::ExportScript => crate::output::script(include_bytes!("../export_graph.py")),
        Command::Completions { shell } => {
            // Into memory first: the generator panics where its output is closed.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "landscape", &mut script);
            crate::output::script(&script)
        }
    }
}
