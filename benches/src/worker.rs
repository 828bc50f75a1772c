//! The protocol between a job's process and `cargo xtask bench`: JSON lines out, one line in per block.
//!
//! | line | when |
//! |---|---|
//! | `{"ready": true, "answer": [..], "versions": {..}, "kernel_path": .., "idle_bytes": .., "bytes": .., "flops": ..}` | once, after the answer and a warm-up |
//! | `{"seconds": [..]}` | for each line `run` on stdin: the seconds of each repetition of a block |
//! | `{"done": true, "peak_bytes": ..}` | when stdin ends |
//!
//! Peers may answer `{"skip": "reason"}` instead of the first line.

use crate::memory;
use crate::request::Request;
use serde_json::json;
use std::io::{BufRead, Write};

/// A job that was set up.
pub trait Work {
    /// What it computes, for comparison with the peers; called once, before anything is timed.
    ///
    /// # Errors
    /// If the job fails.
    fn answer(&mut self) -> anyhow::Result<Vec<f64>>;

    /// Runs `n` repetitions and gives the seconds of each.
    ///
    /// # Errors
    /// If the job fails.
    fn run(&mut self, n: usize) -> anyhow::Result<Vec<f64>>;

    /// What one repetition moves through memory and computes, where the job is about that.
    fn cost(&self) -> Cost {
        Cost::default()
    }
}

/// The work of one repetition.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Bytes read and written, without what a cache fetches in order to write.
    pub bytes: Option<u64>,
    /// Additions and multiplications.
    pub flops: Option<u64>,
}

/// Serves blocks until `input` ends.
///
/// # Errors
/// If the job fails or nobody reads.
pub fn serve(request: &Request, input: impl BufRead, mut output: impl Write) -> anyhow::Result<()> {
    let idle_bytes = memory::resident_bytes();
    let mut work = crate::jobs::set_up(request)?;
    let answer = work.answer()?;
    // A job whose one repetition is a block was warmed by its answer.
    if request.repetitions > 1 {
        work.run(2)?;
    }
    let cost = work.cost();
    let ready = json!({
        "ready": true,
        "answer": answer,
        "versions": {"landscape": env!("CARGO_PKG_VERSION")},
        "kernel_path": landscape_kernels::gemm::kernel_path(request.job.precision()),
        "idle_bytes": idle_bytes,
        "bytes": cost.bytes,
        "flops": cost.flops,
    });
    writeln!(output, "{ready}")?;
    output.flush()?;
    for line in input.lines() {
        if line?.trim() != "run" {
            continue;
        }
        writeln!(output, "{}", json!({"seconds": work.run(request.repetitions)?}))?;
        output.flush()?;
    }
    writeln!(output, "{}", json!({"done": true, "peak_bytes": memory::peak_bytes()}))?;
    Ok(())
}
