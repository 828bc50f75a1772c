//! `docs/PERFORMANCE.md` from the records: what stands between its markers is replaced, the rest is written by hand.

use super::figure;
use super::record::{self, Case, Measured, Record};
use super::run::OURS;
use super::statistics::{self, Quartiles};
use super::suite::{self, Suite, Unit};
use crate::shell;
use anyhow::Context;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Convolution alone: a peer below this share of the machine's limit is to be beaten, one above to be reached within this factor.
const NARROW_SHARE: f64 = 0.8;
const WIDE_SHARE: f64 = 0.95;

/// A case of a suite with its record.
struct Row<'a> {
    suite: &'a str,
    case: &'a suite::Case,
    record: &'a Case,
}

/// Writes the report and its figures.
pub fn write(suites: &[Suite]) -> anyhow::Result<()> {
    let records = suites.iter().map(|s| record::read(&s.name)).collect::<anyhow::Result<Vec<Option<Record>>>>()?;
    let path = shell::root().join("docs/PERFORMANCE.md");
    let mut text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut all: Vec<Row<'_>> = Vec::new();
    for (suite, record) in suites.iter().zip(&records) {
        let cases = record.iter().flat_map(|r| &r.cases);
        let rows: Vec<Row<'_>> = cases
            .filter_map(|r| Some(Row { suite: &suite.name, case: suite.cases.iter().find(|c| c.name == r.name)?, record: r }))
            .collect();
        let body = if rows.is_empty() { "Not measured yet.\n".to_owned() } else { suite_table(&rows) };
        replace(&mut text, &format!("suite {}", suite.name), &format!("### {}\n\n{}\n\n{body}", suite.title, suite.about.trim()))?;
        all.extend(rows);
    }
    replace(&mut text, "provenance", &provenance(&all))?;
    replace(&mut text, "rows", &rows_table(&all))?;
    replace(&mut text, "memory", &memory_table(&all))?;
    replace(&mut text, "growth", &growth_table(&all))?;
    let figures = shell::root().join("docs/figures");
    std::fs::write(figures.join("performance.svg"), figure::ratios(&bars(&all)))?;
    std::fs::write(figures.join("growth.svg"), figure::growth(&series(&all)))?;
    std::fs::write(&path, text)?;
    println!("wrote `{}`", path.display());
    Ok(())
}

fn replace(text: &mut String, name: &str, body: &str) -> anyhow::Result<()> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let from = text.find(&begin).with_context(|| format!("`{}` is missing from `docs/PERFORMANCE.md`", begin.trim()))? + begin.len();
    let to = text.find(&end).with_context(|| format!("`{end}` is missing from `docs/PERFORMANCE.md`"))?;
    text.replace_range(from..to, body);
    Ok(())
}

/// Machines, commits and versions, each with how many cases it stands for.
fn provenance(rows: &[Row<'_>]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut versions: BTreeMap<String, String> = BTreeMap::new();
    for row in rows {
        let p = &row.record.provenance;
        let path = row.record.ours().and_then(|ours| ours.kernel_path.clone()).unwrap_or_else(|| "-".to_owned());
        let changed = if p.dirty { " with uncommitted changes" } else { "" };
        let memory = p.memory_gib.map_or_else(String::new, |g| format!(", {g} GiB"));
        let machine = format!("{} ({} cores{memory}; {})", p.cpu, p.n_cores, p.instructions.join(" "));
        *counts.entry(format!("| {machine} | {path} | {}{changed} | {} | {} |", p.commit, p.date, p.rustc)).or_default() += 1;
        for side in &row.record.sides {
            versions.extend(side.versions.clone());
        }
    }
    let mut text = "| machine | kernel path | commit | date | compiler | cases |\n|---|---|---|---|---|---|\n".to_owned();
    for (line, n) in counts {
        let _ = writeln!(text, "{line} {n} |");
    }
    let versions: Vec<String> = versions.into_iter().map(|(name, version)| format!("{name} {version}")).collect();
    let _ = writeln!(text, "\nVersions: {}.", versions.join(", "));
    text
}

/// The rows that have marks.
fn rows_table(rows: &[Row<'_>]) -> String {
    let mut text = "| job | ours | against | number [quartiles] | reach | go for | | others: ratio | last record |\n".to_owned();
    text += "|---|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        let (Some(against), Some((reach, go_for))) = (&row.case.against, marks(row, rows)) else { continue };
        let unit = row.case.unit;
        let Some(value) = row.record.value(against, unit) else { continue };
        let title = row.record.side(against).map_or(against.as_str(), |side| side.title.as_str());
        let others: Vec<String> = row.record.sides.iter().skip(1).filter(|s| s.name != *against).map(|s| other(row.record, s)).collect();
        let last = row.record.last.as_ref().and_then(|last| {
            let ratio = *last.ratios.get(against)?;
            let number = if unit == Unit::Ratio { ratio } else { 1.0 / ratio };
            Some(format!("{} ({}, {})", number_text(number, unit), last.commit, last.date))
        });
        let _ = writeln!(
            text,
            "| {} | {} | {} {} | **{}** [{}, {}] | {} | {} | {} | {} | {} |",
            row.case.row,
            time_of(row.record.ours()),
            title,
            time_of(row.record.side(against)),
            number_text(value.median, unit),
            number_text(value.lower, unit),
            number_text(value.upper, unit),
            number_text(reach, unit),
            number_text(go_for, unit),
            verdict(value.median, reach, go_for, unit),
            if others.is_empty() { "-".to_owned() } else { others.join("; ") },
            last.as_deref().unwrap_or("-"),
        );
    }
    text
}

/// A row's marks: its own, or shares of what another case of its suite shows.
fn marks(row: &Row<'_>, rows: &[Row<'_>]) -> Option<(f64, f64)> {
    if let Some(of) = &row.case.marks_of {
        let other = rows.iter().find(|other| other.suite == row.suite && other.case.name == of.case)?;
        let value = other.record.value(other.case.against.as_ref()?, other.case.unit)?.median;
        return Some((of.reach * value, of.go_for * value));
    }
    Some((row.case.reach?, row.case.go_for?))
}

fn other(record: &Case, side: &Measured) -> String {
    match (record.ratios.get(&side.name), &side.skipped) {
        (Some(ratio), _) => format!("{} {:.2}", side.title, ratio.quartiles.median),
        (None, reason) => format!("{}: {}", side.title, reason.as_deref().unwrap_or("no numbers").replace('|', "/")),
    }
}

fn verdict(value: f64, reach: f64, go_for: f64, unit: Unit) -> &'static str {
    let is_at = |mark: f64| if unit == Unit::Ratio { value <= mark } else { value >= mark };
    match (is_at(reach), is_at(go_for)) {
        (_, true) => "both",
        (true, false) => "reached",
        (false, false) => "above",
    }
}

fn number_text(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ratio => format!("{value:.2}"),
        Unit::Share => format!("{:.0} %", 100.0 * value),
        Unit::Speedup => format!("{value:.2}x"),
    }
}

fn memory_table(rows: &[Row<'_>]) -> String {
    let mut text = "| job | ours, MB | against, MB | ratio | reach | go for | |\n|---|---|---|---|---|---|---|\n".to_owned();
    let mb =
        |side: Option<&Measured>| side.and_then(Measured::bytes_above_idle).map_or("-".to_owned(), |b| format!("{:.0}", b as f64 / 1e6));
    for row in rows {
        let (Some(marks), Some(against)) = (row.case.memory, &row.case.against) else { continue };
        let Some(ratio) = row.record.memory_ratio(against) else { continue };
        let verdict = verdict(ratio, marks.reach, marks.go_for, Unit::Ratio);
        let (ours, theirs) = (mb(row.record.ours()), mb(row.record.side(against)));
        let title = row.record.side(against).map_or("", |side| &side.title);
        let _ = writeln!(
            text,
            "| {} | {ours} | {title} {theirs} | **{ratio:.2}** | {:.1} | {:.1} | {verdict} |",
            row.case.row, marks.reach, marks.go_for
        );
    }
    text
}

/// All cases of a suite with all their sides; cases of a sweep stand in the table of growth.
fn suite_table(rows: &[Row<'_>]) -> String {
    let mut peers: Vec<(&str, &str)> = Vec::new();
    let rows: Vec<&Row<'_>> = rows.iter().filter(|row| row.case.place.is_none()).collect();
    for side in rows.iter().flat_map(|row| row.record.sides.iter().skip(1)) {
        if !peers.iter().any(|(name, _)| *name == side.name) {
            peers.push((&side.name, &side.title));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let has_rate = rows.iter().any(|row| row.record.ours().is_some_and(|o| o.flops.or(o.bytes).is_some()));
    let has_convolutions = rows.iter().any(|row| row.case.job.get("job").is_some_and(|job| job == "convolution"));
    let limit = limit(&rows);
    let mut text = "| case | ours |".to_owned();
    let mut rule = "|---|---|".to_owned();
    for (_, title) in &peers {
        let _ = write!(text, " {title} | ratio |");
        rule += "---|---|";
    }
    if has_convolutions {
        text += " mark | |";
        rule += "---|---|";
    }
    text = format!("{text}\n{rule}\n");
    for row in &rows {
        let cell = |side: Option<&Measured>| if has_rate { rate_of(side) } else { time_of(side) };
        let _ = write!(text, "| {} | {} |", row.case.row, cell(row.record.ours()));
        for (name, _) in &peers {
            let side = row.record.side(name);
            match (row.record.ratios.get(*name).map(|r| r.quartiles), side.and_then(|s| s.skipped.as_deref())) {
                (Some(q), _) => {
                    let _ = write!(text, " {} | {:.2} [{:.2}, {:.2}] |", cell(side), q.median, q.lower, q.upper);
                }
                (None, reason) => {
                    let _ = write!(text, " {} | - |", reason.unwrap_or("-").replace('|', "/"));
                }
            }
        }
        if has_convolutions {
            text += &convolution_mark(row, limit);
        }
        text.push('\n');
    }
    if has_convolutions {
        let _ = writeln!(
            text,
            "\nThe limit is taken as the highest rate that a peer reached here, {:.0} GFLOP/s. Where PyTorch is below {:.0} % of it the mark is 1, elsewhere 1/{WIDE_SHARE}.",
            limit / 1e9,
            100.0 * NARROW_SHARE
        );
    }
    text
}

/// The highest rate of arithmetic that a peer reached. Ours are not asked: beside the border they leave products out that are counted.
fn limit(rows: &[&Row<'_>]) -> f64 {
    let peers = rows.iter().flat_map(|row| &row.record.sides).filter(|side| side.name != OURS);
    peers.filter_map(flops_per_second).fold(0.0, f64::max)
}

fn flops_per_second(side: &Measured) -> Option<f64> {
    Some(side.flops? as f64 / side.seconds?.median)
}

fn convolution_mark(row: &Row<'_>, limit: f64) -> String {
    let torch = row.record.side("torch");
    let (Some(rate), Some(ratio)) = (torch.and_then(flops_per_second), row.record.ratios.get("torch")) else {
        return " - | - |".to_owned();
    };
    let mark = if rate < NARROW_SHARE * limit { 1.0 } else { 1.0 / WIDE_SHARE };
    format!(" {mark:.2} | {} |", if ratio.quartiles.median <= mark { "reached" } else { "above" })
}

/// A series: its points, and the exponent through them.
fn series(rows: &[Row<'_>]) -> Vec<figure::Series> {
    let mut all: Vec<figure::Series> = Vec::new();
    for row in rows {
        let (Some(place), Some(seconds)) = (&row.case.place, row.record.ours().and_then(|o| o.seconds)) else { continue };
        let point = (place.x, seconds.median);
        match all.iter_mut().find(|s| s.title == place.series) {
            Some(series) => series.points.push(point),
            None => all.push(figure::Series { title: place.series.clone(), axis: place.axis.clone(), points: vec![point], exponent: None }),
        }
    }
    for series in &mut all {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        series.exponent = statistics::exponent(&series.points);
    }
    all
}

fn growth_table(rows: &[Row<'_>]) -> String {
    let mut text = "| job | grows | times | exponent | of the upper half |\n|---|---|---|---|---|\n".to_owned();
    for s in series(rows) {
        let points: Vec<String> = s.points.iter().map(|(x, y)| format!("{}: {}", figure::short(*x), duration(*y))).collect();
        let number = |e: Option<f64>| e.map_or("-".to_owned(), |e| format!("{e:.2}"));
        let upper = statistics::exponent(&s.points[s.points.len() / 2..]);
        let _ = writeln!(text, "| {} | {} | {} | {} | {} |", s.title, s.axis, points.join(", "), number(s.exponent), number(upper));
    }
    text
}

/// The bars of the figure: the rows with marks that are ratios.
fn bars(rows: &[Row<'_>]) -> Vec<figure::Bar> {
    let bar = |row: &Row<'_>| {
        let against = row.case.against.as_ref()?;
        let quartiles: Quartiles = row.record.value(against, Unit::Ratio).filter(|_| row.case.unit == Unit::Ratio)?;
        Some(figure::Bar { title: row.case.row.clone(), quartiles, reach: row.case.reach?, go_for: row.case.go_for? })
    };
    rows.iter().filter_map(bar).collect()
}

fn time_of(side: Option<&Measured>) -> String {
    side.and_then(|s| s.seconds).map_or("-".to_owned(), |q| duration(q.median))
}

/// The time with the rate, where the job is about one.
fn rate_of(side: Option<&Measured>) -> String {
    let Some((side, seconds)) = side.and_then(|s| Some((s, s.seconds?.median))) else { return "-".to_owned() };
    match (side.flops, side.bytes) {
        (Some(flops), _) => format!("{} ({:.0} GFLOP/s)", duration(seconds), flops as f64 / seconds / 1e9),
        (None, Some(bytes)) => format!("{} ({:.1} GB/s)", duration(seconds), bytes as f64 / seconds / 1e9),
        (None, None) => duration(seconds),
    }
}

/// Seconds with three digits and a unit.
pub fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let n_decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.n_decimals$} {unit}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let all = [0.000_004_56, 0.012_34, 0.123_4, 1.234, 123.4].map(duration);
        assert_eq!(all, ["4.56 µs", "12.3 ms", "123 ms", "1.23 s", "123 s"]);
    }

    #[test]
    fn marks_are_upper_bounds_of_ratios_and_lower_bounds_of_shares() {
        assert_eq!(verdict(0.8, 0.8, 0.5, Unit::Ratio), "reached");
        assert_eq!(verdict(0.5, 0.8, 0.5, Unit::Ratio), "both");
        assert_eq!(verdict(0.81, 0.8, 0.5, Unit::Ratio), "above");
        assert_eq!(verdict(0.9, 0.8, 0.95, Unit::Share), "reached");
        assert_eq!(verdict(1.7, 1.8, 1.95, Unit::Speedup), "above");
    }

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let mut text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n".to_owned();
        replace(&mut text, "x", "new\n").unwrap();
        assert_eq!(text, "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n");
        assert!(replace(&mut text, "y", "").is_err());
    }
}
