//! One side of a case as a process that waits: the other end of the protocol in `benches/src/worker.rs`.

use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A side that was set up.
pub struct Worker {
    child: Child,
    /// Gone once the process was told to stop.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    name: String,
    /// What it said of itself.
    pub ready: Value,
}

/// How a start ended.
pub enum Start {
    Ready(Box<Worker>),
    /// It cannot take part, and why.
    Skipped(String),
}

impl Worker {
    /// Starts a process and waits until it has its answer.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Start> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("the process has no stdout")?);
        let mut worker = Worker { child, stdin, stdout: BufReader::new(stdout), name: name.to_owned(), ready: Value::Null };
        let line = worker.line()?;
        if let Some(reason) = line["skip"].as_str() {
            return Ok(Start::Skipped(reason.to_owned()));
        }
        if line["ready"] != true {
            bail!("`{name}` said {line} instead of being ready");
        }
        worker.ready = line;
        Ok(Start::Ready(Box::new(worker)))
    }

    /// Runs a block; the seconds of each repetition.
    pub fn block(&mut self) -> anyhow::Result<Vec<f64>> {
        let stdin = self.stdin.as_mut().context("the process was told to stop")?;
        writeln!(stdin, "run").and_then(|()| stdin.flush()).with_context(|| format!("`{}` does not listen any more", self.name))?;
        let line = self.line()?;
        let seconds: Option<Vec<f64>> = line["seconds"].as_array().map(|s| s.iter().filter_map(Value::as_f64).collect());
        match seconds {
            Some(seconds) if !seconds.is_empty() => Ok(seconds),
            _ => bail!("`{}` said {line} instead of seconds", self.name),
        }
    }

    /// Ends the process; the most bytes that it had resident.
    pub fn finish(mut self) -> anyhow::Result<Option<u64>> {
        self.stdin = None;
        let last = self.line()?;
        self.child.wait()?;
        Ok(last["peak_bytes"].as_u64())
    }

    fn line(&mut self) -> anyhow::Result<Value> {
        let mut text = String::new();
        if self.stdout.read_line(&mut text)? == 0 {
            bail!("`{}` ended with {}", self.name, self.child.wait()?);
        }
        serde_json::from_str(&text).with_context(|| format!("`{}` said `{}`", self.name, text.trim()))
    }
}

/// A process that is not needed any more, after an error elsewhere, does not stay.
impl Drop for Worker {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
