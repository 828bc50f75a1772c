//! One case: all sides set up, answers compared, blocks in turn.

use super::answer;
use super::command::{self, Prepared};
use super::programs::Programs;
use super::suite::{Case, Peer, PeerProgram, Suite};
use super::worker::{Start, Worker};
use anyhow::Context;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What our side is called among the sides.
pub const OURS: &str = "ours";

/// What one side did.
#[derive(Debug)]
pub struct Side {
    pub name: String,
    pub title: String,
    pub threads: usize,
    pub seed: u64,
    pub answer: Vec<f64>,
    pub versions: BTreeMap<String, String>,
    pub kernel_path: Option<String>,
    /// Seconds of each repetition of each round.
    pub rounds: Vec<Vec<f64>>,
    pub idle_bytes: Option<u64>,
    pub peak_bytes: Option<u64>,
    /// Bytes moved and arithmetic done by one repetition.
    pub bytes: Option<u64>,
    pub flops: Option<u64>,
    /// Why it did not take part.
    pub skipped: Option<String>,
}

/// A side while the case runs.
enum Runner<'a> {
    Process(Box<Worker>),
    Command(Box<Prepared<'a>>),
    Absent,
}

impl Runner<'_> {
    fn block(&mut self, programs: &Programs) -> anyhow::Result<Vec<f64>> {
        match self {
            Runner::Process(worker) => worker.block(),
            Runner::Command(command) => Ok(vec![command.run(programs)?.seconds]),
            Runner::Absent => Ok(Vec::new()),
        }
    }
}

/// Our answer alone, for the check.
pub fn answer_of(programs: &Programs, suite: &Suite, case: &Case) -> anyhow::Result<Vec<f64>> {
    Ok(own_side(programs, suite, case, OURS, "ours", &command::with_common(&case.job, case))?.0.answer)
}

/// Runs a case.
pub fn case(programs: &Programs, suite: &Suite, case: &Case, rounds: Option<usize>) -> anyhow::Result<Vec<Side>> {
    let mut sides = vec![own_side(programs, suite, case, OURS, "ours", &command::with_common(&case.job, case))?];
    if !case.expect.is_empty() {
        answer::check("expected", &case.expect, &sides[0].0.answer, case.expect_tolerance)?;
    }
    for name in &case.peers {
        let peer = &programs.peers[name];
        if programs.has(peer) {
            let mut side = peer_side(programs, suite, case, name, peer).with_context(|| format!("the peer `{name}`"))?;
            // A peer that computes something else is a row without numbers that says so, and no end to an hour's run.
            if let Err(error) = compare(case, peer, &sides[0].0, &side.0) {
                side.0.skipped = Some(format!("{error:#}"));
            }
            sides.push(side);
        }
    }
    for round in 0..rounds.unwrap_or(case.rounds) {
        for (side, runner) in &mut sides {
            let max = programs.peers.get(&side.name).and_then(|peer| peer.max_rounds).unwrap_or(usize::MAX);
            if round < max && side.skipped.is_none() {
                side.rounds.push(runner.block(programs)?);
            }
        }
    }
    let mut finished = Vec::new();
    for (mut side, runner) in sides {
        if let Runner::Process(worker) = runner {
            side.peak_bytes = worker.finish()?;
        }
        finished.push(side);
    }
    Ok(finished)
}

/// A side that is run by our own job or command, with its answer.
fn own_side<'a>(
    programs: &Programs,
    suite: &Suite,
    case: &'a Case,
    name: &str,
    title: &str,
    job: &Map<String, Value>,
) -> anyhow::Result<(Side, Runner<'a>)> {
    let Some(line) = &case.command else {
        return process(name, title, job, &mut programs.job(job));
    };
    let mut side = Side::new(name, title, job);
    let work = command::work_folder(&suite.name, case, name);
    let mut command = Prepared::new(programs, work, case, line, side.threads)?;
    // The first run, whose time is not kept, warms the file cache and gives the answer.
    let first = command.run(programs)?;
    side.answer = first.answer;
    side.kernel_path = first.kernel_path;
    Ok((side, Runner::Command(Box::new(command))))
}

fn peer_side<'a>(programs: &Programs, suite: &Suite, case: &'a Case, name: &str, peer: &Peer) -> anyhow::Result<(Side, Runner<'a>)> {
    let mut job = command::with_common(&case.job, case);
    job.extend(peer.options.clone());
    if peer.program == PeerProgram::Ours {
        return own_side(programs, suite, case, name, &peer.title, &job);
    }
    let job = command::in_folder(&job, &command::work_folder(&suite.name, case, OURS));
    match process(name, &peer.title, &job, &mut programs.peer(peer, &job)?) {
        // A peer that breaks is a row without numbers, not the end of the run.
        Err(error) => {
            let mut side = Side::new(name, &peer.title, &job);
            side.skipped = Some(format!("{error:#}"));
            Ok((side, Runner::Absent))
        }
        started => started,
    }
}

fn process<'a>(name: &str, title: &str, job: &Map<String, Value>, start: &mut std::process::Command) -> anyhow::Result<(Side, Runner<'a>)> {
    let mut side = Side::new(name, title, job);
    match Worker::start(name, start)? {
        Start::Skipped(reason) => {
            side.skipped = Some(reason);
            Ok((side, Runner::Absent))
        }
        Start::Ready(worker) => {
            let ready = &worker.ready;
            side.answer = ready["answer"].as_array().map(|a| a.iter().filter_map(Value::as_f64).collect()).unwrap_or_default();
            if let Some(versions) = ready["versions"].as_object() {
                side.versions = versions.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
            }
            side.kernel_path = ready["kernel_path"].as_str().map(str::to_owned);
            side.idle_bytes = ready["idle_bytes"].as_u64();
            side.bytes = ready["bytes"].as_u64();
            side.flops = ready["flops"].as_u64();
            Ok((side, Runner::Process(worker)))
        }
    }
}

/// Fails unless a peer computed what we did.
fn compare(case: &Case, peer: &Peer, ours: &Side, theirs: &Side) -> anyhow::Result<()> {
    if theirs.skipped.is_some() {
        return Ok(());
    }
    let n = peer.n_comparable.unwrap_or(usize::MAX);
    let part = |side: &Side| side.answer[..side.answer.len().min(n)].to_vec();
    answer::check("ours", &part(ours), &part(theirs), case.tolerance).with_context(|| format!("`{}` did other work", theirs.title))
}

impl Side {
    fn new(name: &str, title: &str, job: &Map<String, Value>) -> Self {
        let number = |key: &str| job.get(key).and_then(Value::as_u64).unwrap_or_default();
        Side {
            name: name.to_owned(),
            title: title.to_owned(),
            threads: number("threads") as usize,
            seed: number("seed"),
            answer: Vec::new(),
            versions: BTreeMap::new(),
            kernel_path: None,
            rounds: Vec::new(),
            idle_bytes: None,
            peak_bytes: None,
            bytes: None,
            flops: None,
            skipped: None,
        }
    }
}
