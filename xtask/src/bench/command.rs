//! Our side as a whole command: started anew for each repetition and timed from outside.

use super::programs::Programs;
use super::suite::{Case, CommandLine};
use crate::shell;
use anyhow::{Context, bail};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A command with the folder that it works in.
pub struct Prepared<'a> {
    line: &'a CommandLine,
    threads: usize,
    work: PathBuf,
    n_started: usize,
}

/// One run of it.
pub struct Timed {
    pub seconds: f64,
    pub answer: Vec<f64>,
    pub kernel_path: Option<String>,
}

/// The folder of a case's files.
pub fn work_folder(suite: &str, case: &Case, side: &str) -> PathBuf {
    shell::target().join("bench").join(suite).join(&case.name).join(side)
}

impl<'a> Prepared<'a> {
    /// Writes the files that the command works on.
    pub fn new(programs: &Programs, work: PathBuf, case: &'a Case, line: &'a CommandLine, threads: usize) -> anyhow::Result<Self> {
        if work.exists() {
            std::fs::remove_dir_all(&work).with_context(|| format!("cannot clear `{}`", work.display()))?;
        }
        std::fs::create_dir_all(&work)?;
        for job in &line.prepare {
            shell::run(&mut programs.job(&in_folder(&with_common(job, case), &work)))?;
        }
        Ok(Prepared { line, threads, work, n_started: 0 })
    }

    /// Runs it once.
    pub fn run(&mut self, programs: &Programs) -> anyhow::Result<Timed> {
        let work = self.work.display().to_string();
        let round = self.work.join(format!("round-{}", self.n_started));
        self.n_started += 1;
        let arguments = self.line.arguments.iter().map(|a| a.replace("{work}", &work).replace("{round}", &round.display().to_string()));
        let mut command = programs.landscape();
        command.args(arguments).args(["--json", "--quiet", "--threads", &self.threads.to_string()]);
        let started = Instant::now();
        let document = shell::json(&mut command)?;
        let seconds = started.elapsed().as_secs_f64();
        let answer = self.line.answer.iter().map(|what| extract(&document, what)).collect::<anyhow::Result<_>>()?;
        Ok(Timed { seconds, answer, kernel_path: document["kernel_path"].as_str().map(str::to_owned) })
    }
}

/// A job with the fields that all jobs have.
pub fn with_common(job: &Map<String, Value>, case: &Case) -> Map<String, Value> {
    let mut job = job.clone();
    for (key, value) in [("threads", case.threads as u64), ("seed", 1), ("repetitions", 1)] {
        job.entry(key).or_insert_with(|| value.into());
    }
    job
}

/// A job with `{work}` filled in.
pub fn in_folder(job: &Map<String, Value>, work: &Path) -> Map<String, Value> {
    let mut job = job.clone();
    for value in job.values_mut() {
        if let Value::String(text) = value {
            *text = text.replace("{work}", &work.display().to_string());
        }
    }
    job
}

/// `mean /pointer` or `min /pointer`: over all numbers of a document below that place.
fn extract(document: &Value, what: &str) -> anyhow::Result<f64> {
    let (reduction, pointer) = what.split_once(' ').with_context(|| format!("`{what}` is not `mean /pointer` or `min /pointer`"))?;
    let mut numbers = Vec::new();
    collect(document.pointer(pointer).with_context(|| format!("the document has no `{pointer}`"))?, &mut numbers);
    if numbers.is_empty() {
        bail!("there is no number below `{pointer}`");
    }
    match reduction {
        "mean" => Ok(numbers.iter().sum::<f64>() / numbers.len() as f64),
        "min" => Ok(numbers.into_iter().fold(f64::INFINITY, f64::min)),
        other => bail!("`{other}` is neither `mean` nor `min`"),
    }
}

fn collect(value: &Value, into: &mut Vec<f64>) {
    match value {
        Value::Number(n) => into.extend(n.as_f64()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        Value::Object(fields) => fields.values().for_each(|item| collect(item, into)),
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_taken_out_of_documents() {
        let document = json!({"test": {"nll": [[1.0, 2.0], [3.0, null]]}, "x": "text"});
        assert_eq!(extract(&document, "mean /test/nll").unwrap(), 2.0);
        assert_eq!(extract(&document, "min /test").unwrap(), 1.0);
        for wrong in ["mean", "mean /nothing", "mean /x", "most /test"] {
            assert!(extract(&document, wrong).is_err(), "{wrong}");
        }
    }
}
