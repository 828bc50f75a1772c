//! One file a command: parse, call the libraries, record.

mod connect;
mod demo;
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

/// More threads than any machine runs at once.
const MAX_THREADS: usize = 4096;

/// Runs the command.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    let common = &cli.common;
    landscape_kernels::Device::parse(&common.device)?;
    if let Some(threads) = common.threads {
        if threads.get() > MAX_THREADS {
            anyhow::bail!("`--threads` must be at most {MAX_THREADS}, got {threads}");
        }
        rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build_global()?;
    }
    crate::interrupt::listen()?;
    match &cli.command {
        Command::Train(args) => train::run(common, args),
        Command::Connect(args) => connect::run(common, args),
        Command::Profile(args) => profile::run(common, args),
        Command::Point(args) => point::run(common, args),
        Command::Plane(args) => plane::run(common, args),
        Command::Report(args) => report::run(common, args),
        Command::Inspect(args) => inspect::run(common, args),
        Command::Demo(args) => demo::run(common, args),
        Command::Completions { shell } => {
            // Into memory first: the generator panics where its output is closed.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "landscape", &mut script);
            crate::output::script(&script)
        }
    }
}
