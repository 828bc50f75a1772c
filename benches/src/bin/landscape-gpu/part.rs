//! A part as a process that is ended when it takes too long.

use anyhow::Context;
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a part may take.
const LIMIT: Duration = Duration::from_secs(8 * 60);

/// Runs a part; one that fails leaves its reason, and the others run.
pub fn run(name: &str, kind: Kind, command: &mut Command) -> Value {
    let started = Instant::now();
    let result = match output_of(command, started) {
        Ok(text) => match kind {
            Kind::Document => serde_json::from_str(&text).unwrap_or_else(|error| json!({"failed": format!("no JSON document: {error}")})),
            Kind::Tests => {
                json!({"passed": true, "summary": text.lines().rfind(|line| line.starts_with("test result")).unwrap_or_default()})
            }
        },
        Err(error) => json!({"failed": format!("{error:#}")}),
    };
    json!({"part": name, "seconds": started.elapsed().as_secs_f64(), "result": result})
}

/// What a part's process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One JSON document.
    Document,
    /// Lines of a test program.
    Tests,
}

fn output_of(command: &mut Command, started: Instant) -> anyhow::Result<String> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let read = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What is not text is shown as well as it can be; a pipe that breaks ends the reading.
            let _ = stream.map(|mut stream| stream.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = read(child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let errors = read(child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("it took longer than {} minutes", LIMIT.as_secs() / 60);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let text = out.join().unwrap_or_default();
    if !status.success() {
        let errors = errors.join().unwrap_or_default();
        let tail: Vec<&str> = errors.lines().chain(text.lines()).rev().take(20).collect();
        anyhow::bail!("{status}: {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_tells_its_document_or_why_there_is_none() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        assert_eq!(run("a", Kind::Document, &mut shell("echo '[1, 2]'"))["result"], json!([1, 2]));
        assert_eq!(run("a", Kind::Tests, &mut shell("echo 'test result: ok. 3 passed'"))["result"]["passed"], true);
        let failed = |script: &str| run("a", Kind::Document, &mut shell(script))["result"]["failed"].as_str().map(str::to_owned);
        assert!(failed("echo broken >&2; exit 3").is_some_and(|why| why.contains("broken")));
        assert!(failed("echo text").is_some_and(|why| why.contains("JSON")));
        assert!(run("a", Kind::Document, &mut Command::new("/no/such/program"))["result"]["failed"].is_string());
    }
}
