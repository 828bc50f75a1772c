//! Suites as files: what runs, on what, against whom, the expected answer, and the marks.

use crate::shell;
use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A file of `benches/suites`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The file's name.
    #[serde(skip)]
    pub name: String,
    /// Its heading in the report.
    pub title: String,
    /// What the report says about it.
    pub about: String,
    /// The case that CI runs.
    pub cheapest: String,
    /// The cases; those of the sweeps are added on reading.
    #[serde(default, rename = "case")]
    pub cases: Vec<Case>,
    #[serde(default, rename = "sweep")]
    sweeps: Vec<Sweep>,
}

/// One row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Short, unique in the suite.
    pub name: String,
    /// What it is, for tables.
    #[serde(default)]
    pub row: String,
    /// Our side as a job of `landscape-bench-job`; for a command, what the peers are given.
    #[serde(default)]
    pub job: Map<String, Value>,
    /// Our side as a command of `landscape`, timed from start to end.
    pub command: Option<CommandLine>,
    /// The other sides, by their names in `benches/peers/peers.toml`.
    #[serde(default)]
    pub peers: Vec<String>,
    /// The side that the marks are against.
    pub against: Option<String>,
    /// What the number shows.
    #[serde(default)]
    pub unit: Unit,
    /// The mark to reach.
    pub reach: Option<f64>,
    /// And the one after.
    pub go_for: Option<f64>,
    /// Marks that are shares of what another case of the suite shows.
    pub marks_of: Option<MarksOf>,
    /// Marks of the peak memory above the idle process, where that is a row too.
    pub memory: Option<Marks>,
    /// Blocks of each side.
    #[serde(default = "seven")]
    pub rounds: usize,
    /// Threads of each side.
    #[serde(default = "two")]
    pub threads: usize,
    /// What our side computes, and how far from it, relatively, it may be: kernel paths round differently.
    #[serde(default)]
    pub expect: Vec<f64>,
    #[serde(default = "rounding")]
    pub expect_tolerance: f64,
    /// How far, relatively, the peers' answers may be from ours.
    #[serde(default = "rounding")]
    pub tolerance: f64,
    /// Its place in a series, for cases of a sweep.
    #[serde(skip)]
    pub place: Option<Place>,
}

/// The marks of a row.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Marks {
    pub reach: f64,
    pub go_for: f64,
}

/// Marks as shares of another case's number: a job that the memory bounds cannot gain more than a triad gains.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarksOf {
    pub case: String,
    pub reach: f64,
    pub go_for: f64,
}

/// What the number of a row is made of `ratio`, ours over theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// The ratio of times itself: smaller is better.
    #[default]
    Ratio,
    /// The share of the other side's bandwidth: 1 / ratio per byte, larger is better.
    Share,
    /// How many times faster: 1 / ratio, larger is better.
    Speedup,
}

/// A command of ours.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLine {
    /// Jobs that write the files it works on, run once before; `{work}` in them and in the arguments is a folder for this case.
    #[serde(default)]
    pub prepare: Vec<Map<String, Value>>,
    /// Its arguments; `{round}` is a fresh path each time.
    pub arguments: Vec<String>,
    /// The answer: `mean /pointer` or `min /pointer` over all numbers below that place of its JSON document.
    pub answer: Vec<String>,
}

/// The same case for several values of one thing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sweep {
    /// What grows.
    axis: String,
    /// The field of the job that it is.
    key: String,
    /// Its values.
    values: Vec<Value>,
    /// The same as numbers, where the values are none.
    #[serde(default)]
    x: Vec<f64>,
    /// The expected answer of the first value.
    #[serde(default)]
    expect: Vec<f64>,
    /// The rest. `{value}` in a command's arguments is the value.
    case: Case,
}

/// A case's place in a series.
#[derive(Debug, Clone)]
pub struct Place {
    pub series: String,
    pub axis: String,
    pub x: f64,
}

/// A peer of `benches/peers/peers.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What tables call it.
    pub title: String,
    /// Who runs it.
    pub program: PeerProgram,
    /// Fields that it sets in the job.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// How many of the answer's numbers, from the first on, can be the same as ours; all without it.
    pub n_comparable: Option<usize>,
    /// A slow peer need not run in every round.
    pub max_rounds: Option<usize>,
}

/// Who runs a peer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerProgram {
    /// A script of `benches/peers`.
    Python(String),
    /// A package of `benches/peers`, built apart from our workspace's other packages, so that its dependencies have the features it asks for.
    Cargo(String),
    /// Our own job or command.
    Ours,
}

/// The peers by name.
pub fn read_peers() -> anyhow::Result<BTreeMap<String, Peer>> {
    let path = shell::root().join("benches/peers/peers.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    toml::from_str(&text).with_context(|| format!("`{}`", path.display()))
}

/// All suites, by name.
pub fn read_all() -> anyhow::Result<Vec<Suite>> {
    let folder = shell::root().join("benches/suites");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot list `{}`", folder.display()))?
        .map(|e| Ok(e?.path()))
        .collect::<anyhow::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    paths.sort();
    let peers = read_peers()?;
    let mut suites = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path)?;
        suites.push(parse(&name, &text, &peers).with_context(|| format!("`{}`", path.display()))?);
    }
    Ok(suites)
}

fn parse(name: &str, text: &str, peers: &BTreeMap<String, Peer>) -> anyhow::Result<Suite> {
    let mut suite: Suite = toml::from_str(text)?;
    suite.name = name.to_owned();
    for sweep in std::mem::take(&mut suite.sweeps) {
        suite.cases.extend(sweep.cases()?);
    }
    let mut names = std::collections::BTreeSet::new();
    for case in &suite.cases {
        if !names.insert(&case.name) {
            bail!("two cases are called `{}`", case.name);
        }
        if case.rounds == 0 || case.threads == 0 {
            bail!("`rounds` and `threads` of `{}` must be at least 1", case.name);
        }
        if let Some(unknown) = case.peers.iter().find(|peer| !peers.contains_key(*peer)) {
            bail!("`{}` is against `{unknown}`, which `benches/peers/peers.toml` does not have", case.name);
        }
        if let Some(of) = case.marks_of.as_ref().filter(|of| suite.cases.iter().all(|c| c.name != of.case)) {
            bail!("the marks of `{}` are shares of `{}`, which is not there", case.name, of.case);
        }
        if let Some(against) = case.against.as_ref().filter(|against| !case.peers.contains(against)) {
            bail!("the marks of `{}` are against `{against}`, which is none of its peers", case.name);
        }
    }
    if suite.cheapest()?.expect.is_empty() {
        bail!("the cheapest case `{}` has no `expect`", suite.cheapest);
    }
    Ok(suite)
}

impl Suite {
    /// The case that CI runs.
    pub fn cheapest(&self) -> anyhow::Result<&Case> {
        self.cases.iter().find(|case| case.name == self.cheapest).with_context(|| format!("there is no case `{}`", self.cheapest))
    }
}

impl Sweep {
    fn cases(self) -> anyhow::Result<Vec<Case>> {
        let numbers: Option<Vec<f64>> = if self.x.is_empty() { self.values.iter().map(Value::as_f64).collect() } else { Some(self.x) };
        let numbers = numbers.filter(|x| x.len() == self.values.len());
        let Some(numbers) = numbers else {
            bail!("the sweep `{}` needs `x`, a number for each of its values", self.case.name);
        };
        let case = |(idx, (value, x)): (usize, (Value, f64))| {
            let mut case = self.case.clone();
            case.expect = if idx == 0 { self.expect.clone() } else { Vec::new() };
            case.name = format!("{}-{x}", case.name);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            for argument in case.command.iter_mut().flat_map(|c| &mut c.arguments) {
                *argument = argument.replace("{value}", &text);
            }
            case.job.insert(self.key.clone(), value);
            case.place = Some(Place { series: self.case.row.clone(), axis: self.axis.clone(), x });
            case
        };
        Ok(self.values.iter().cloned().zip(numbers).enumerate().map(case).collect())
    }
}

fn seven() -> usize {
    7
}

fn two() -> usize {
    2
}

fn rounding() -> f64 {
    1e-3
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_of_the_repository_can_be_read() {
        let suites = read_all().unwrap();
        assert!(!suites.is_empty());
        for suite in &suites {
            assert!(!suite.cases.is_empty(), "{}", suite.name);
        }
    }

    #[test]
    fn a_sweep_is_a_case_per_value() {
        let text = r#"
            title = "t"
            about = "a"
            cheapest = "s-2"
            [[sweep]]
            axis = "cells"
            key = "grid"
            values = ["1x2", "3x4"]
            x = [2, 12]
            expect = [1.0]
            [sweep.case]
            name = "s"
            row = "grows"
            job = { job = "plane" }
            command = { arguments = ["--grid", "{value}"], answer = [] }
        "#;
        let suite = parse("x", text, &BTreeMap::new()).unwrap();
        assert_eq!(suite.cases.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["s-2", "s-12"]);
        assert_eq!(suite.cases[1].command.as_ref().unwrap().arguments, ["--grid", "3x4"]);
        assert_eq!(suite.cases[1].job["grid"], "3x4");
        assert_eq!((suite.cases[0].expect.len(), suite.cases[1].expect.len()), (1, 0));
    }

    #[test]
    fn a_suite_must_hang_together() {
        let case = "[[case]]\nname = \"a\"\nexpect = [1.0]\n";
        let head = |cheapest: &str| format!("title = \"t\"\nabout = \"\"\ncheapest = \"{cheapest}\"\n");
        assert!(parse("x", &format!("{}{case}", head("a")), &BTreeMap::new()).is_ok());
        for wrong in [
            format!("{}{case}", head("b")),
            format!("{}{case}{case}", head("a")),
            format!("{}{case}against = \"torch\"\n", head("a")),
            format!("{}{case}peers = [\"nobody\"]\n", head("a")),
            format!("{}{case}rounds = 0\n", head("a")),
            format!("{}{case}marks_of = {{ case = \"b\", reach = 0.9, go_for = 1.0 }}\n", head("a")),
            format!("{}{case}unknown = 0\n", head("a")),
        ] {
            assert!(parse("x", &wrong, &BTreeMap::new()).is_err(), "{wrong}");
        }
    }
}
