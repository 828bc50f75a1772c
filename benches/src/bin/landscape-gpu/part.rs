//! A part as a process that is ended when it takes too long.

use anyhow::Context;
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a part may take.
const LIMIT: Duration = Duration::from_secs(8 * 60);
/// How long the pipes of a process that has ended may stay open: its own children may hold them.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// What a part's process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines of a JSON document each.
    Rows,
    /// Lines of a test program.
    Tests,
}

/// Runs a part; one that fails leaves its reason and what it had said, and the others run.
pub fn run(name: &str, kind: Kind, command: &mut Command) -> Value {
    run_within(LIMIT, name, kind, command)
}

fn run_within(limit: Duration, name: &str, kind: Kind, command: &mut Command) -> Value {
    let started = Instant::now();
    let mut part = json!({"part": name});
    let mut failure = match said(command, started, limit) {
        Ok(said) => {
            let found = match kind {
                Kind::Rows => rows(&said.out, &mut part),
                Kind::Tests => tests(&said, &mut part),
            };
            // Why it ended tells more than what is wrong with the lines that this cut short.
            said.ended.err().or(found.err())
        }
        Err(error) => Some(format!("{error:#}")),
    };
    if let Some(why) = failure.take() {
        part["failed"] = json!(why);
    }
    part["seconds"] = json!(started.elapsed().as_secs_f64());
    part
}

/// Takes the rows up to the first line that is none.
fn rows(out: &str, part: &mut Value) -> Result<(), String> {
    let lines = out.lines().filter(|line| !line.trim().is_empty());
    let mut rows = Vec::new();
    let mut result = Ok(());
    for line in lines {
        match serde_json::from_str::<Value>(line) {
            Ok(row) => rows.push(row),
            Err(error) => {
                result = Err(format!("a line is no JSON document: {error}: {line}"));
                break;
            }
        }
    }
    if rows.is_empty() && result.is_ok() {
        result = Err("it gave no rows".to_owned());
    }
    part["rows"] = Value::Array(rows);
    result
}

/// Takes the last summary; tests that were skipped, or of which there were none, have not passed.
fn tests(said: &Said, part: &mut Value) -> Result<(), String> {
    let summary = said.out.lines().rfind(|line| line.starts_with("test result")).unwrap_or_default();
    part["summary"] = json!(summary);
    if let Some(line) = said.errors.lines().chain(said.out.lines()).find(|line| line.contains("skipped")) {
        return Err(format!("tests did not run: {line}"));
    }
    let passed = summary.starts_with("test result: ok.") && !summary.contains(" ok. 0 passed");
    if passed { Ok(()) } else { Err(format!("no test passed: `{summary}`")) }
}

/// What a process said, and how it ended.
struct Said {
    out: String,
    errors: String,
    ended: Result<(), String>,
}

fn said(command: &mut Command, started: Instant, limit: Duration) -> anyhow::Result<Said> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let out = Reader::of(child.stdout.take());
    let errors = Reader::of(child.stderr.take());
    let status: Option<ExitStatus> = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let (out, errors) = (out.text(), errors.text());
    let ended = match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => {
            let tail: Vec<&str> = errors.lines().chain(out.lines()).rev().take(20).collect();
            Err(format!("{status}: {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n")))
        }
        None => Err(format!("it took longer than {} seconds", limit.as_secs_f64())),
    };
    Ok(Said { out, errors, ended })
}

/// A pipe that is read as it fills.
struct Reader {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn of<R: Read + Send + 'static>(pipe: Option<R>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = bytes.clone();
        let thread = std::thread::spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = [0; 4096];
            // A pipe that breaks ends the reading.
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
            }
        });
        Reader { bytes, thread }
    }

    /// What came, after the end of the pipe or [`AFTERWARDS`]; what is not text is shown as well as it can be.
    fn text(self) -> String {
        let since = Instant::now();
        while !self.thread.is_finished() && since.elapsed() < AFTERWARDS {
            std::thread::sleep(Duration::from_millis(10));
        }
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn failed(kind: Kind, script: &str) -> String {
        run("a", kind, &mut shell(script))["failed"].as_str().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_part_tells_its_rows_or_why_there_are_no_more() {
        let whole = run("a", Kind::Rows, &mut shell("echo '{\"b\": 1}'; echo; echo '[1, 2]'"));
        assert_eq!((&whole["rows"], &whole["failed"], &whole["part"]), (&json!([{"b": 1}, [1, 2]]), &Value::Null, &json!("a")));
        assert!(failed(Kind::Rows, "echo broken >&2; exit 3").contains("broken"));
        assert!(failed(Kind::Rows, "echo text").contains("JSON"));
        assert!(failed(Kind::Rows, "true").contains("no rows"));
        assert!(run("a", Kind::Rows, &mut Command::new("/no/such/program"))["failed"].is_string());
    }

    /// A process that fails or takes too long loses only what it had not said.
    #[test]
    fn rows_before_a_failure_or_the_limit_are_kept() {
        let broken = run("a", Kind::Rows, &mut shell("echo 1; echo 2; echo why >&2; exit 1"));
        assert!(broken["rows"] == json!([1, 2]) && broken["failed"].as_str().is_some_and(|why| why.contains("why")), "{broken}");
        let late = run_within(Duration::from_secs(2), "a", Kind::Rows, &mut shell("echo 1; echo '{\"half'; exec sleep 60"));
        assert!(late["rows"] == json!([1]) && late["failed"].as_str().is_some_and(|why| why.contains("longer")), "{late}");
    }

    #[test]
    fn tests_that_were_skipped_have_not_passed() {
        let good = run("a", Kind::Tests, &mut shell("echo 'test result: ok. 3 passed; 0 failed'"));
        assert!(good["failed"].is_null() && good["summary"].as_str().is_some_and(|text| text.contains("3 passed")));
        assert!(failed(Kind::Tests, "echo 'skipped: no device' >&2; echo 'test result: ok. 3 passed'").contains("no device"));
        assert!(failed(Kind::Tests, "echo 'test result: ok. 0 passed'").contains("no test passed"));
        assert!(failed(Kind::Tests, "true").contains("no test passed"));
    }
}
