//! One job of a suite as a process: `landscape-bench-job '{"job": "step", "model": "resnet20", ...}'`; see `landscape_benches::worker`.

use anyhow::Context;
use landscape_benches::request::{Job, Request};
use landscape_benches::{jobs, worker};

fn main() -> anyhow::Result<()> {
    let argument = std::env::args().nth(1).context("the job is missing: one JSON argument, see `landscape_benches::request`")?;
    let request: Request = serde_json::from_str(&argument).with_context(|| format!("`{argument}` is not a job"))?;
    rayon::ThreadPoolBuilder::new().num_threads(request.threads).build_global()?;
    match &request.job {
        Job::Files { model, n_train, n_test, folder } => jobs::files::write(model, *n_train, *n_test, folder, request.seed),
        Job::Digits { folder } => jobs::files::write_digits(folder),
        _ => worker::serve(&request, std::io::stdin().lock(), std::io::stdout().lock()),
    }
}
