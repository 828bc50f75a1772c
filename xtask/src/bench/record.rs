//! Records: one file per suite, one entry per case with all that was measured.

use super::machine::Provenance;
use super::run::{OURS, Side};
use super::statistics::{self, Quartiles};
use super::suite::{self, Suite, Unit};
use crate::shell;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The number after the slash grows when a field changes its meaning.
const SCHEMA: &str = "landscape-bench/1";

/// A file of `benches/records`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub schema: String,
    pub suite: String,
    pub cases: Vec<Case>,
}

/// A case as it was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    pub name: String,
    pub provenance: Provenance,
    pub sides: Vec<Measured>,
    /// Ours over theirs, per byte where both count bytes: of each round, and over the rounds.
    pub ratios: BTreeMap<String, Ratio>,
    /// The same case as it was recorded before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

/// A side as it was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    pub name: String,
    pub title: String,
    pub threads: usize,
    pub seed: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_path: Option<String>,
    pub answer: Vec<f64>,
    /// Over the medians of the rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<Quartiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Seconds of each repetition of each round.
    pub rounds: Vec<Vec<f64>>,
}

/// A ratio of ours over theirs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ratio {
    #[serde(flatten)]
    pub quartiles: Quartiles,
    pub rounds: Vec<f64>,
}

/// What an earlier record of a case said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Last {
    pub commit: String,
    pub date: String,
    pub cpu: String,
    pub seconds: Option<f64>,
    pub ratios: BTreeMap<String, f64>,
}

impl Case {
    /// What a run measured.
    pub fn of(case: &suite::Case, sides: Vec<Side>, provenance: &Provenance) -> Self {
        let sides: Vec<Measured> = sides.into_iter().map(Measured::of).collect();
        let ratios = sides[1..].iter().filter_map(|theirs| Some((theirs.name.clone(), ratio(&sides[0], theirs)?))).collect();
        Case { name: case.name.clone(), provenance: provenance.clone(), sides, ratios, last: None }
    }

    /// A side by name.
    pub fn side(&self, name: &str) -> Option<&Measured> {
        self.sides.iter().find(|side| side.name == name)
    }

    /// Our side.
    pub fn ours(&self) -> Option<&Measured> {
        self.side(OURS)
    }

    /// The number of a row: the ratio, or what the unit makes of it.
    pub fn value(&self, peer: &str, unit: Unit) -> Option<Quartiles> {
        let quartiles = self.ratios.get(peer)?.quartiles;
        Some(if unit == Unit::Ratio { quartiles } else { quartiles.inverse() })
    }

    /// Peak memory above the idle process, ours over theirs.
    pub fn memory_ratio(&self, peer: &str) -> Option<f64> {
        Some(self.ours()?.bytes_above_idle()? as f64 / self.side(peer)?.bytes_above_idle()? as f64)
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let seconds = |side: &Measured| side.seconds.map_or("-".to_owned(), |q| super::report::duration(q.median));
        let mut text = self.ours().map_or_else(String::new, |ours| format!("   ours {}", seconds(ours)));
        for side in self.sides.iter().filter(|side| side.name != OURS) {
            match (self.ratios.get(&side.name), &side.skipped) {
                (Some(r), _) => {
                    let q = r.quartiles;
                    text += &format!("; {} {}, ratio {:.3} [{:.3}, {:.3}]", side.title, seconds(side), q.median, q.lower, q.upper);
                }
                (None, reason) => text += &format!("; {}: {}", side.title, reason.as_deref().unwrap_or("no numbers")),
            }
        }
        text
    }
}

impl Measured {
    fn of(side: Side) -> Self {
        let medians: Vec<f64> = side.rounds.iter().map(|round| statistics::median(round)).collect();
        Measured {
            name: side.name,
            title: side.title,
            threads: side.threads,
            seed: side.seed,
            versions: side.versions,
            kernel_path: side.kernel_path,
            answer: side.answer,
            seconds: Quartiles::of(&medians),
            bytes: side.bytes,
            flops: side.flops,
            idle_bytes: side.idle_bytes,
            peak_bytes: side.peak_bytes,
            skipped: side.skipped,
            rounds: side.rounds.iter().map(|round| round.iter().map(|&s| four_digits(s)).collect()).collect(),
        }
    }

    /// Peak memory above the idle process.
    pub fn bytes_above_idle(&self) -> Option<u64> {
        Some(self.peak_bytes?.saturating_sub(self.idle_bytes?))
    }
}

fn ratio(ours: &Measured, theirs: &Measured) -> Option<Ratio> {
    let per_byte = match (ours.bytes, theirs.bytes) {
        (Some(a), Some(b)) if a > 0 => b as f64 / a as f64,
        _ => 1.0,
    };
    let of_round = |(a, b): (&Vec<f64>, &Vec<f64>)| four_digits(statistics::median(a) / statistics::median(b) * per_byte);
    let rounds: Vec<f64> = ours.rounds.iter().zip(&theirs.rounds).map(of_round).collect();
    Some(Ratio { quartiles: Quartiles::of(&rounds)?, rounds })
}

/// No clock is better than that.
fn four_digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn path(suite: &str) -> PathBuf {
    shell::root().join("benches/records").join(format!("{suite}.json"))
}

/// The record of a suite, if there is one.
pub fn read(suite: &str) -> anyhow::Result<Option<Record>> {
    let path = path(suite);
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let record: Record = serde_json::from_str(&text).with_context(|| format!("`{}`", path.display()))?;
    anyhow::ensure!(record.schema == SCHEMA, "`{}` is of schema `{}`, expected `{SCHEMA}`", path.display(), record.schema);
    Ok(Some(record))
}

/// Puts a case into its suite's record, in the suite's order; what it replaces is remembered in it.
pub fn merge(suite: &Suite, mut case: Case) -> anyhow::Result<()> {
    let mut record =
        read(&suite.name)?.unwrap_or_else(|| Record { schema: SCHEMA.to_owned(), suite: suite.name.clone(), cases: Vec::new() });
    if let Some(place) = record.cases.iter().position(|old| old.name == case.name) {
        let old = record.cases.remove(place);
        case.last = Some(Last {
            commit: old.provenance.commit.clone(),
            date: old.provenance.date.clone(),
            cpu: old.provenance.cpu.clone(),
            seconds: old.ours().and_then(|side| Some(side.seconds?.median)),
            ratios: old.ratios.iter().map(|(name, ratio)| (name.clone(), ratio.quartiles.median)).collect(),
        });
    }
    record.cases.push(case);
    let order = |name: &str| suite.cases.iter().position(|c| c.name == name);
    record.cases.retain(|c| order(&c.name).is_some());
    record.cases.sort_by_key(|c| order(&c.name));
    std::fs::create_dir_all(shell::root().join("benches/records"))?;
    Ok(std::fs::write(path(&suite.name), text_of(&record)?)?)
}

/// Pretty JSON with arrays of numbers on one line each.
fn text_of(record: &Record) -> anyhow::Result<String> {
    let pretty = serde_json::to_string_pretty(record)?;
    let mut text = String::with_capacity(pretty.len());
    let mut depth_of_row = None;
    for line in pretty.lines() {
        let (indent, content) = (line.len() - line.trim_start().len(), line.trim_start());
        match depth_of_row {
            Some(depth) if content.starts_with(']') && indent == depth => {
                text += content;
                text.push('\n');
                depth_of_row = None;
            }
            Some(_) => {
                text += content;
                if content.ends_with(',') {
                    text.push(' ');
                }
            }
            None => {
                text += line;
                // A row of numbers begins where the next line is one; nothing else is put on one line.
                let rest = &pretty[offset(&pretty, line) + line.len()..];
                let next = rest.trim_start().as_bytes().first().copied();
                if content.ends_with('[') && next.is_some_and(|b| b.is_ascii_digit() || b == b'-') {
                    depth_of_row = Some(indent);
                } else {
                    text.push('\n');
                }
            }
        }
    }
    Ok(text)
}

/// Where a line that was borrowed from `text` begins in it.
fn offset(text: &str, line: &str) -> usize {
    line.as_ptr() as usize - text.as_ptr() as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn side(name: &str, bytes: Option<u64>, rounds: Vec<Vec<f64>>) -> Side {
        Side {
            name: name.to_owned(),
            title: name.to_owned(),
            threads: 2,
            seed: 1,
            answer: vec![1.5],
            versions: BTreeMap::new(),
            kernel_path: None,
            rounds,
            idle_bytes: Some(10),
            peak_bytes: Some(30),
            bytes,
            flops: None,
            skipped: None,
        }
    }

    fn recorded(bytes: [Option<u64>; 2]) -> Case {
        let provenance = Provenance {
            cpu: "c".into(),
            n_cores: 2,
            instructions: vec![],
            memory_gib: None,
            system: String::new(),
            rustc: String::new(),
            commit: "abc".into(),
            dirty: false,
            date: "2026-01-01".into(),
        };
        let case: suite::Case = toml::from_str("name = \"a\"").unwrap();
        let ours = side(OURS, bytes[0], vec![vec![1.0, 1.0, 9.0], vec![2.0], vec![3.0]]);
        let theirs = side("torch", bytes[1], vec![vec![2.0], vec![2.0], vec![2.0]]);
        Case::of(&case, vec![ours, theirs], &provenance)
    }

    #[test]
    fn ratios_are_of_medians_round_by_round() {
        let case = recorded([None, None]);
        assert_eq!(case.ratios["torch"].rounds, [0.5, 1.0, 1.5]);
        assert_eq!(case.value("torch", Unit::Ratio).unwrap().median, 1.0);
        assert_eq!(case.value("torch", Unit::Speedup).unwrap().lower, 1.0 / 1.25);
        assert_eq!(case.memory_ratio("torch"), Some(1.0));
        // Twice the bytes in the same time is half the cost of a byte.
        assert_eq!(recorded([Some(20), Some(10)]).ratios["torch"].rounds, [0.25, 0.5, 0.75]);
    }

    #[test]
    fn records_can_be_read_back_and_numbers_stand_in_rows() {
        let record = Record { schema: SCHEMA.to_owned(), suite: "s".into(), cases: vec![recorded([None, None])] };
        let text = text_of(&record).unwrap();
        assert!(text.contains("[1.0, 1.0, 9.0]"), "{text}");
        let back: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), serde_json::to_value(&record).unwrap());
    }
}
