//! One run as the report shows it, from what its folder holds.

use super::page;
use super::rerun::{self, Straight};
use super::tables::{self, Table, Verdict};
use crate::figures::color::{CURVE, LINE, css};
use crate::figures::plane_record::PlaneRecord;
use crate::figures::profile::{Profiles, curve_name};
use crate::figures::{plane, surface};
use crate::run_folder::RunFolder;
use landscape_core::profile::Profile;
use landscape_core::record::read_records;
use serde_json::{Value, json};

/// A run, ready to be put into a page.
pub struct Section {
    /// Its number in the report, for the page's own names.
    pub idx: usize,
    /// Its folder, as it was named.
    pub name: String,
    /// What kind of run it is.
    pub command: String,
    pub verdicts: Vec<Verdict>,
    pub tables: Vec<Table>,
    /// The plane as a drawing.
    pub plane_svg: Option<String>,
    pub plane_caption: String,
    pub has_surface: bool,
    pub has_profile: bool,
    pub has_slider: bool,
    pub n_slider_steps: usize,
    pub has_training: bool,
    pub configuration: Table,
    pub commands: Vec<String>,
    /// What the page's script draws.
    pub data: Value,
    /// One row of the overview of several runs.
    pub overview: Vec<String>,
}

impl Section {
    /// Reads a run's folder.
    pub fn of_run(idx: usize, folder: &RunFolder) -> anyhow::Result<Self> {
        let config = folder.config()?;
        let name = folder.path().display().to_string();
        let profiles = Profiles::of_run(folder)?;
        let record = PlaneRecord::of_run(folder)?;
        let result = folder.result().unwrap_or(Value::Null);
        let training = training(folder)?;
        let command = config["command"].as_str().unwrap_or("run").to_owned();
        let measured_at_end = tables::result(&result).filter(|_| command != "profile" && command != "plane");
        let found = [
            tables::endpoints(&profiles),
            tables::summary(&profiles),
            tables::barriers(&profiles),
            tables::decisions(&profiles),
            measured_at_end,
        ];
        let plane_svg = record.as_ref().map(|record| inline_svg(&plane::draw(record).svg()?)).transpose()?;
        let steps = profiles.curve.as_ref().or(profiles.line.as_ref());
        let n_slider_steps = steps.map_or(0, |p| p.points.len().saturating_sub(1));
        let mut commands = rerun::endpoints(&config);
        commands.extend(rerun::commands(&name, &config, &documents(folder)?, record.as_ref()));
        Ok(Section {
            idx,
            verdicts: tables::verdicts(&profiles),
            tables: found.into_iter().flatten().collect(),
            plane_caption: record.as_ref().map(page::caption).unwrap_or_default(),
            has_surface: record.is_some(),
            has_profile: n_slider_steps > 0,
            has_slider: n_slider_steps > 0,
            n_slider_steps,
            has_training: !training.is_empty(),
            configuration: tables::configuration(&config),
            commands,
            overview: overview(&name, &command, &profiles, &result),
            data: json!({
                "paths": paths(&profiles),
                "plane": record.as_ref().map(plane_data).transpose()?,
                "training": training,
            }),
            plane_svg,
            name,
            command,
        })
    }
}

/// The profiles as documents, for their settings.
fn documents(folder: &RunFolder) -> anyhow::Result<Vec<(Value, Straight)>> {
    let mut found = Vec::new();
    for (name, straight) in [("profile.json", Straight::No), ("profile_line.json", Straight::Yes)] {
        if folder.file(name).is_file() {
            found.push((folder.read_json(name)?, straight));
        }
    }
    Ok(found)
}

/// The lines of the charts.
fn paths(profiles: &Profiles) -> Vec<Value> {
    let path = |name: &str, color: &str, dash: &str, profile: &Profile| json!({"name": name, "color": color, "dash": dash, "points": profile.points, "weight_decay": profile.weight_decay});
    let line = profiles.line.as_ref().map(|p| path("straight line", &css(LINE), "dash", p));
    line.into_iter().chain(profiles.curve.as_ref().map(|p| path(curve_name(p), &css(CURVE), "solid", p))).collect()
}

fn plane_data(record: &PlaneRecord) -> anyhow::Result<Value> {
    let ts: Vec<f64> = record.curve.iter().flat_map(|curve| curve.samples.iter().map(|s| s.t)).collect();
    Ok(json!({"ts": ts, "places": plane::curve_places(record), "surface": surface::plot(record)?}))
}

/// The epochs of a training run.
fn training(folder: &RunFolder) -> anyhow::Result<Vec<Value>> {
    if !folder.records_path().is_file() {
        return Ok(Vec::new());
    }
    let keep = |record: Value| {
        let keys = ["epoch", "lr", "train_nll", "train_error", "test_nll", "test_error"];
        Value::Object(keys.iter().filter_map(|&key| Some((key.to_owned(), record.get(key)?.clone()))).collect())
    };
    Ok(read_records(&folder.records_path())?.into_iter().map(keep).collect())
}

/// A drawing to be put into a page: what comes before its root is left out, and it scales with the page.
fn inline_svg(document: &str) -> anyhow::Result<String> {
    let start = document.find("<svg").ok_or_else(|| anyhow::anyhow!("a drawing has no root"))?;
    let end = start + document[start..].find('>').unwrap_or(0);
    let root = &document[start..=end];
    let view = root.split("viewBox=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let new_root = format!("<svg viewBox=\"{view}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">");
    Ok(new_root + &document[end + 1..])
}

fn overview(name: &str, command: &str, profiles: &Profiles, result: &Value) -> Vec<String> {
    let rise = |profile: Option<&Profile>| profile.map_or("–".to_owned(), |p| format!("{:.4}", p.barriers.train_loss.above_worse_end));
    let error = |profile: Option<&Profile>, end: bool| {
        let summary = profile.and_then(|p| p.summary.test_error);
        summary.map_or("–".to_owned(), |s| format!("{:.2} %", 100.0 * if end { s.start.max(s.end) } else { s.max }))
    };
    let (line, curve) = (profiles.line.as_ref(), profiles.curve.as_ref());
    let end_error = match result["test"]["error"].as_f64() {
        Some(error) => format!("{:.2} %", 100.0 * error),
        None => error(curve.or(line), true),
    };
    vec![name.to_owned(), command.to_owned(), end_error, rise(line), error(line, false), rise(curve), error(curve, false)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn inlined_drawings_scale_and_keep_their_coordinates() {
        let svg = inline_svg("<?xml version=\"1.0\"?>\n<svg width=\"10\" height=\"5\" viewBox=\"0 0 40 20\" xmlns=\"x\">\n<rect/></svg>")
            .unwrap();
        assert!(svg.starts_with("<svg viewBox=\"0 0 40 20\"") && svg.ends_with("<rect/></svg>") && !svg.contains("width"), "{svg}");
        assert!(inline_svg("no drawing").is_err());
    }
}
