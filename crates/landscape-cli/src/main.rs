//! The `landscape` command: arguments to commands, errors to exit codes.
//!
//! Exit codes: 0; 1 the run failed; 2 the request or an input is wrong; 130 interrupted, with the state saved.

mod args;
mod commands;
mod failure;
mod interrupt;
mod job;
mod measure;
mod output;
mod partial;
mod path;
mod progress;
mod run_folder;
mod figures;
mod report;

use clap::Parser;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    output::init_tracing(&cli.common);
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
