//! The report's tables and sentences, from profiles.

use crate::figures::axis::number_text;
use crate::figures::profile::{Profiles, curve_name};
use landscape_core::profile::{Measured, Profile, Quantity, Values};
use serde_json::Value;

/// A table of texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub caption: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// How many columns, from the first, hold names rather than numbers.
    pub n_names: usize,
}

/// A sentence that says whether something holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub text: String,
    pub short: String,
    pub holds: bool,
}

/// The profiles there are, the line first.
fn each(profiles: &Profiles) -> Vec<(&'static str, &Profile)> {
    let line = profiles.line.as_ref().map(|p| ("straight line", p));
    line.into_iter().chain(profiles.curve.as_ref().map(|p| (curve_name(p), p))).collect()
}

/// A value of a quantity: errors in percent.
fn value_text(quantity: Quantity, value: f64) -> String {
    if is_error(quantity) && value.is_finite() { format!("{:.2} %", 100.0 * value) } else { number_text(value) }
}

fn is_error(quantity: Quantity) -> bool {
    matches!(quantity, Quantity::TrainError | Quantity::TestError)
}

fn quantity_text(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::TrainLoss => "training loss",
        Quantity::TrainNll => "training nll",
        Quantity::TrainError => "training error",
        Quantity::TestLoss => "test loss",
        Quantity::TestNll => "test nll",
        Quantity::TestError => "test error",
    }
}

fn words(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// The verdicts in words.
pub fn verdicts(profiles: &Profiles) -> Vec<Verdict> {
    let mut found = Vec::new();
    for (name, profile) in each(profiles) {
        let (summary, barriers) = (&profile.summary.train_loss, &profile.barriers.train_loss);
        let worse_end = summary.start.max(summary.end);
        let is_line = name == "straight line";
        let holds = if is_line { profile.verdicts.is_lmc } else { profile.verdicts.is_connected };
        let mut text = if summary.n_not_finite > 0 {
            format!("On the {name}, {} of {} points are not finite", summary.n_not_finite, profile.points.len())
        } else if barriers.above_worse_end > 0.0 {
            format!(
                "Along the {name} the training loss rises from {} at the worse end to {} at t = {:.2}, {} above it",
                number_text(worse_end),
                number_text(summary.max),
                summary.t_max,
                number_text(barriers.above_worse_end)
            )
        } else {
            format!("Along the {name} the training loss is never above the worse end ({})", number_text(worse_end))
        };
        if let (Some(error), Some(barrier)) = (&profile.summary.test_error, &profile.barriers.test_error) {
            let rise = 100.0 * barrier.above_worse_end;
            text += &format!("; the test error is at most {:.2} %, ", 100.0 * error.max);
            text +=
                &if rise > 0.0 { format!("{rise:.2} points above the worse end") } else { "no higher than at the worse end".to_owned() };
        }
        let short = match (is_line, holds) {
            (true, true) => "Linearly mode connected",
            (true, false) => "Not linearly mode connected",
            (false, true) => "Connected by the curve",
            (false, false) => "Not connected by the curve",
        };
        found.push(Verdict { text: text + ".", short: short.to_owned(), holds });
    }
    found
}

/// The ends as their checkpoints have them, and with statistics taken anew.
pub fn endpoints(profiles: &Profiles) -> Option<Table> {
    let profile = profiles.curve.as_ref().filter(|p| !p.endpoints.is_empty()).or(profiles.line.as_ref())?;
    let has_error = profile.summary.train_error.is_some();
    let mut head = words(&["network", "statistics", "train loss", "train nll"]);
    head.extend(has_error.then(|| "train error".to_owned()));
    head.extend(words(&["test loss", "test nll"]));
    head.extend(has_error.then(|| "test error".to_owned()));
    let cells = |values: Option<&Values>| -> Vec<String> {
        let Some(values) = values else { return vec!["".to_owned(); if has_error { 3 } else { 2 }] };
        let mut cells = vec![number_text(values.loss), number_text(values.nll)];
        cells.extend(has_error.then(|| value_text(Quantity::TrainError, values.error.unwrap_or(f64::NAN))));
        cells
    };
    let row = |name: &str, statistics: &str, measured: &Measured| {
        let mut row = words(&[name, statistics]);
        row.extend(cells(Some(&measured.train)));
        row.extend(cells(measured.test.as_ref()));
        row
    };
    let last = profile.endpoints.len().checked_sub(1)?;
    let mut rows = Vec::new();
    for (idx, endpoint) in profile.endpoints.iter().enumerate() {
        let name = if idx == 0 {
            "start"
        } else if idx == last {
            "end"
        } else {
            "between"
        };
        rows.push(row(name, "as stored", &endpoint.stored));
        rows.push(row("", "taken anew", &endpoint.refreshed));
    }
    Some(Table { caption: "The networks at the ends".to_owned(), head, rows, n_names: 2 })
}

/// Every quantity summed up along each path.
pub fn summary(profiles: &Profiles) -> Option<Table> {
    let mut rows = Vec::new();
    for (name, profile) in each(profiles) {
        for (idx, quantity) in Quantity::ALL.into_iter().filter(|&q| profile.summary.get(q).is_some()).enumerate() {
            let Some(s) = profile.summary.get(quantity) else { continue };
            let text = |value: f64| value_text(quantity, value);
            let mut row = vec![if idx == 0 { name.to_owned() } else { String::new() }, quantity_text(quantity).to_owned()];
            row.extend([s.start, s.end, s.min, s.max].map(text));
            row.push(format!("{:.3}", s.t_max));
            row.extend([s.max_refined, s.mean, s.integral].map(text));
            rows.push(row);
        }
    }
    let head = words(&["path", "quantity", "start", "end", "min", "max", "at t", "max refined", "mean", "mean along length"]);
    let caption =
        "Along the path: greatest and least over the samples; “max refined” is the top of the parabola through the greatest three";
    (!rows.is_empty()).then(|| Table { caption: caption.to_owned(), head, rows, n_names: 2 })
}

/// Every definition of the barrier.
pub fn barriers(profiles: &Profiles) -> Option<Table> {
    let mut rows = Vec::new();
    for (name, profile) in each(profiles) {
        for (idx, quantity) in Quantity::ALL.into_iter().filter(|&q| profile.barriers.get(q).is_some()).enumerate() {
            let Some(b) = profile.barriers.get(quantity) else { continue };
            let text = |value: f64| value_text(quantity, value);
            let ratio = |value: f64| if value.is_finite() { number_text(value) } else { "–".to_owned() };
            let mut row = vec![if idx == 0 { name.to_owned() } else { String::new() }, quantity_text(quantity).to_owned()];
            row.extend([b.above_line, b.above_mean_of_ends, b.signed_deviation, b.saddle].map(text));
            row.push(ratio(b.saddle_over_mean_of_ends));
            row.push(text(b.above_worse_end));
            row.extend([b.over_worse_end, b.over_minimum].map(ratio));
            rows.push(row);
        }
    }
    let head = words(&[
        "path",
        "quantity",
        "A above line",
        "B above mean of ends",
        "C signed",
        "D saddle",
        "D over mean of ends",
        "above worse end",
        "over worse end",
        "over minimum",
    ]);
    (!rows.is_empty()).then(|| Table { caption: "The barrier in every definition in use".to_owned(), head, rows, n_names: 2 })
}

/// Yes and no, with the thresholds they depend on.
pub fn decisions(profiles: &Profiles) -> Option<Table> {
    let yes = |holds: bool| if holds { "yes" } else { "no" }.to_owned();
    let row = |(name, p): (&str, &Profile)| {
        let t = &p.thresholds;
        vec![
            name.to_owned(),
            p.n_points.to_string(),
            number_text(p.length),
            format!("{} (A under {} % of the larger end)", yes(p.verdicts.is_lmc), number_text(100.0 * t.lmc_fraction)),
            format!("{} (max over larger end under {})", yes(p.verdicts.is_connected), number_text(t.connected_ratio)),
        ]
    };
    let rows: Vec<Vec<String>> = each(profiles).into_iter().map(row).collect();
    let head = words(&["path", "control points", "length", "as good as linear", "connected"]);
    (!rows.is_empty()).then(|| Table { caption: "Verdicts on the training loss".to_owned(), head, rows, n_names: 1 })
}

/// What a command's own result says: numbers by name.
pub fn result(result: &Value) -> Option<Table> {
    let mut rows = Vec::new();
    for split in ["train", "test"] {
        let Some(values) = result[split].as_object() else { continue };
        for (name, value) in values {
            let Some(value) = value.as_f64() else { continue };
            let percent = name == "error" || name == "accuracy";
            rows.push(vec![format!("{split} {name}"), if percent { format!("{:.2} %", 100.0 * value) } else { number_text(value) }]);
        }
    }
    for (key, unit) in [("steps", ""), ("wall_seconds", " s"), ("total_seconds", " s"), ("threads", "")] {
        if let Some(value) = result[key].as_f64() {
            let text = if unit.is_empty() { format!("{value:.0}") } else { format!("{value:.1}{unit}") };
            rows.push(vec![key.replace('_', " "), text]);
        }
    }
    rows.extend(result["kernel_path"].as_str().map(|path| vec!["kernels".to_owned(), path.to_owned()]));
    (!rows.is_empty()).then(|| Table { caption: "How the run ended".to_owned(), head: words(&["", "value"]), rows, n_names: 1 })
}

/// Every field of a configuration but the graph, one a row.
pub fn configuration(config: &Value) -> Table {
    let mut rows = Vec::new();
    flatten("", config, &mut rows);
    Table { caption: String::new(), head: words(&["field", "value"]), rows, n_names: 1 }
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields.iter().filter(|(name, _)| prefix.is_empty().then_some(name.as_str()) != Some("graph")) {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, rows);
            }
        }
        Value::String(text) => rows.push(vec![prefix.to_owned(), text.clone()]),
        other => rows.push(vec![prefix.to_owned(), other.to_string()]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::figures::profile::tests::example;

    #[test]
    fn verdicts_are_in_words_and_agree_with_the_record() {
        let profiles = example(true, true);
        let found = verdicts(&profiles);
        assert_eq!(found.iter().map(|v| v.holds).collect::<Vec<_>>(), [false, true]);
        assert!(found[0].text.contains("2.10 above it") && found[0].short == "Not linearly mode connected", "{found:?}");
        assert!(found[1].text.contains("never above the worse end") && found[1].text.contains("test error is at most"), "{found:?}");
    }

    #[test]
    fn rows_are_as_long_as_their_heads() {
        for (has_test, has_error) in [(true, true), (true, false), (false, true), (false, false)] {
            let profiles = example(has_test, has_error);
            let tables = [summary(&profiles), barriers(&profiles), decisions(&profiles)];
            for table in tables.into_iter().flatten() {
                assert!(table.rows.iter().all(|row| row.len() == table.head.len()), "{table:?}");
            }
        }
        let n_rows = |has_test, has_error| summary(&example(has_test, has_error)).unwrap().rows.len();
        assert_eq!([n_rows(true, true), n_rows(false, true), n_rows(false, false)], [12, 6, 4]);
    }

    #[test]
    fn endpoints_have_both_statistics() {
        let mut profiles = example(true, true);
        let mut curve = profiles.curve.take().unwrap();
        let at = |idx: usize| Measured { train: curve.points[idx].train, test: curve.points[idx].test };
        curve.endpoints = [0, 60].map(|idx| landscape_core::profile::Endpoint { stored: at(idx), refreshed: at(idx) }).to_vec();
        profiles.curve = Some(curve);
        let table = endpoints(&profiles).unwrap();
        assert_eq!(table.rows.iter().map(|r| r[0].as_str()).collect::<Vec<_>>(), ["start", "", "end", ""]);
        assert!(table.rows.iter().all(|row| row.len() == table.head.len()));
        assert_eq!(endpoints(&example(true, true)), None);
    }

    #[test]
    fn configurations_are_flat_and_without_the_graph() {
        let table =
            configuration(&serde_json::json!({"graph": {"nodes": []}, "data": {"spec": "digits", "normalization": null}, "seed": 3}));
        assert_eq!(
            table.rows,
            [["data.normalization", "null"], ["data.spec", "digits"], ["seed", "3"]].map(|r| r.map(str::to_owned).to_vec())
        );
    }
}
