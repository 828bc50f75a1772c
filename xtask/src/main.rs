//! Tasks of the workspace, one file each; they shell out and never link our crates.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tasks talk to the person who runs them")]

mod bench;
mod check_demo;
mod gpu;
mod outside;
mod ptx;
mod reliability;
mod shell;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Landscape workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build and run the packages of `tests/outside`, each of which uses one crate as a stranger would
    Outside,
    /// Fail unless a demo's JSON shows what the README promises
    CheckDemo {
        /// What `landscape demo --json` printed
        json: PathBuf,
    },
    /// Run the suites of `benches/suites`, with `--peers` interleaved with PyTorch and others, and write `docs/PERFORMANCE.md`
    Bench(bench::Args),
    /// Run everything that needs a GPU into `benches/records/gpu.json`, or pack it to run where there is no cargo
    Gpu(gpu::Args),
    /// Pairs of networks on digits, MNIST and CIFAR-10: line against curve, into `docs/RESULTS.md`
    Reliability(reliability::Args),
    /// Compile every `.cu` to the `.ptx` beside it, or check that what is committed is of the present sources
    Ptx(ptx::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Outside => outside::run(),
        Task::CheckDemo { json } => check_demo::run(&json),
        Task::Bench(args) => bench::run(&args),
        Task::Gpu(args) => gpu::run(&args),
        Task::Reliability(args) => reliability::run(&args),
        Task::Ptx(args) => ptx::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
