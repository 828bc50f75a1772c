//! `landscape plane`: loss and error over the plane through three checkpoints, or through a run's ends and bend.

use crate::args::{AtOnceArgs, Common, PlaneArgs, RefreshArgs};
use crate::figures;
use crate::figures::plane_record::{Corner, PlaneCurve, PlaneRecord, PlaneSample, SCHEMA, Surfaces};
use crate::measure::Points;
use crate::output;
use crate::partial::{self, Partial};
use crate::path::MeasuredPath;
use crate::report;
use crate::run_folder::{RunFolder, Start, check_same_config};
use anyhow::{Context, bail};
use landscape_core::Seed;
use landscape_core::length::uniform_ts;
use landscape_core::plane::{Grid, Margins, Plane};
use landscape_core::profile::Measured;
use landscape_core::whole::{self, Overwrite};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Cells that are measured already.
const PARTIAL: &str = "plane.partial.jsonl";

/// More cells than any figure shows; a mistake in `--grid` must not run for ever.
const MAX_CELLS: usize = 1_000_000;

/// Samples of the curve that are drawn in, as many as the reference takes.
const N_CURVE_SAMPLES: usize = 61;

/// A plane to measure.
struct Measurement<'a> {
    path: &'a MeasuredPath,
    plane: Plane<f32>,
    names: [String; 3],
    grid: Grid,
    refresh: &'a RefreshArgs,
    fraction: f64,
    weight_decay: f64,
    at_once: &'a AtOnceArgs,
}

pub fn run(common: &Common, args: &PlaneArgs) -> anyhow::Result<()> {
    let [n_x, n_y] = parse_grid(&args.grid)?;
    if !(args.fraction > 0.0 && args.fraction <= 1.0) {
        bail!("`--fraction` must be above 0 and at most 1, got {}", args.fraction);
    }
    if n_x.saturating_mul(n_y) > MAX_CELLS {
        bail!("`--grid` must have at most {MAX_CELLS} cells, got {n_x} x {n_y}");
    }
    let margins = Margins { left: args.margin, right: args.margin, bottom: args.margin, top: args.margin };
    let grid = Grid::new(n_x, n_y, margins).with_context(|| format!("`--grid {}` with `--margin {}`", args.grid, args.margin))?;
    let mut path = match args.inputs.as_slice() {
        [run] if run.is_dir() => MeasuredPath::of_run(common, run, &args.data)?,
        [file] => bail!("`{}` is not a run folder; a plane needs one, or three checkpoints", file.display()),
        files @ [_, _, _] => MeasuredPath::through(common, files, &args.data, args.model.model.as_deref())?,
        files => bail!("a plane needs a run folder or three checkpoints, got {}", files.len()),
    };
    path.data.measure_in_batches_of(args.batch_size)?;
    if args.fraction < 1.0 {
        path.data.take_fraction(args.fraction, Seed::new(common.seed).child("fraction"))?;
    }
    let weight_decay = args.weight_decay.unwrap_or(path.weight_decay);
    if !(weight_decay.is_finite() && weight_decay >= 0.0) {
        bail!("`--weight-decay` must not be negative, got {weight_decay}");
    }
    let measurement = Measurement {
        plane: plane_of(&path)?,
        names: names_of(&path, &args.inputs),
        path: &path,
        grid,
        refresh: &args.refresh,
        fraction: args.fraction,
        weight_decay,
        at_once: &args.at_once,
    };
    let folder = match &path.folder {
        Some(folder) => {
            if let Some(out) = &common.out {
                bail!("the plane of a run goes into its folder `{}`, got `--out {}`", folder.path().display(), out.display());
            }
            folder.clone()
        }
        None => {
            let folder = RunFolder::for_output(common, "plane")?;
            let mut config = json!({"schema": "landscape-run/1", "command": "plane", "checkpoints": args.inputs});
            config["plane"] = measurement.settings(common)?;
            if let Start::Finished(result) = folder.begin(common, &config, None)? {
                return output::result(common, &result, &describe(&result));
            }
            folder
        }
    };
    let document = measurement.write(common, &folder)?;
    if path.folder.is_none() {
        folder.finish(&document)?;
    }
    output::result(common, &document, &describe(&document))
}

/// Measures the plane of a run into its folder, with the run's own settings; gives the JSON document.
pub fn measure_run(
    common: &Common,
    path: &MeasuredPath,
    folder: &RunFolder,
    refresh: &RefreshArgs,
    [n_x, n_y]: [usize; 2],
    at_once: &AtOnceArgs,
) -> anyhow::Result<Value> {
    let measurement = Measurement {
        plane: plane_of(path)?,
        names: names_of(path, &[]),
        path,
        grid: Grid::new(n_x, n_y, Margins::GARIPOV2018)?,
        refresh,
        fraction: 1.0,
        weight_decay: path.weight_decay,
        at_once,
    };
    measurement.write(common, folder)
}

/// Reads `41x31`.
fn parse_grid(text: &str) -> anyhow::Result<[usize; 2]> {
    let number = |part: &str| part.trim().parse::<usize>().ok().filter(|&n| n > 0);
    let both = text.split_once(['x', 'X', '×']).and_then(|(x, y)| Some([number(x)?, number(y)?]));
    both.with_context(|| format!("`--grid` must be two numbers above 0 such as `41x31`, got `{text}`"))
}

fn plane_of(path: &MeasuredPath) -> anyhow::Result<Plane<f32>> {
    let plane = if path.folder.is_some() { Plane::of_path(&path.points) } else { Plane::new(path.points.clone()) };
    plane.context("no plane through these points")
}

/// A run's points by what they are, checkpoints by their files.
fn names_of(path: &MeasuredPath, files: &[PathBuf]) -> [String; 3] {
    let name = |idx: usize, role: &str| {
        let file = files.get(idx).filter(|_| path.folder.is_none());
        file.and_then(|f: &PathBuf| Path::file_stem(f)).map_or(role.to_owned(), |stem| stem.to_string_lossy().into_owned())
    };
    [name(0, "start"), name(1, "bend"), name(2, "end")]
}

impl Measurement<'_> {
    /// Measures, and adds record, figures and surface to the folder; gives the JSON document.
    fn write(&self, common: &Common, folder: &RunFolder) -> anyhow::Result<Value> {
        let file = folder.file("plane.json");
        let settings = self.settings(common)?;
        if file.exists() && !common.force {
            let old = folder.read_json("plane.json")?;
            if !common.resume {
                bail!("`{}` exists already; `--force` replaces it", file.display());
            }
            check_same_config(&old["settings"], &settings, &file)?;
            partial::discard(&folder.file(PARTIAL))?;
            return Ok(old);
        }
        let mut partial: Partial<Measured> = Partial::open(&folder.file(PARTIAL), &settings, common.resume)?;
        self.measure(common, &mut partial)?;
        let record = self.record(folder, settings, &partial.done)?;
        // The record last: a folder that has it has the figures too.
        figures::write_figure(&folder.file("plane"), &figures::plane::draw(&record))?;
        let page = report::page::of_surface(&record)?;
        whole::write(&folder.file("plane.html"), page.as_bytes(), Overwrite::Replace)?;
        let document = serde_json::to_value(&record)?;
        folder.write_json("plane.json", &document)?;
        partial::discard(&folder.file(PARTIAL))?;
        Ok(document)
    }

    fn settings(&self, common: &Common) -> anyhow::Result<Value> {
        let mut settings = json!({
            "content": self.path.content()?,
            "grid": self.grid,
            "fraction": self.fraction,
            "weight_decay": self.weight_decay,
            "refresh": format!("{:?}", self.refresh.refresh),
            "refresh_augmented": self.refresh.refresh_augmented,
            "batch_size": self.path.data.batch_size,
            "data": self.path.data.to_json(),
            "seed": common.seed,
        });
        self.at_once.record(&mut settings);
        common.record_computation(&mut settings);
        Ok(settings)
    }

    /// Measures the cells that are not done yet.
    fn measure(&self, common: &Common, partial: &mut Partial<Measured>) -> anyhow::Result<()> {
        let cells = (0..self.grid.n_cells()).filter_map(|idx| self.grid.cell(idx));
        let coefficients = cells.map(|cell| self.plane.coefficients(cell.alpha, cell.beta)).collect::<landscape_core::Result<Vec<_>>>()?;
        let points = Points {
            control: self.plane.points(),
            coefficients: &coefficients,
            graph: &self.path.endpoints[0].graph,
            data: &self.path.data,
            refresh: self.refresh,
            weight_decay: self.weight_decay,
            at_once: self.at_once,
        };
        points.measure(common, "plane", partial)
    }

    fn record(&self, folder: &RunFolder, settings: Value, cells: &[Measured]) -> anyhow::Result<PlaneRecord> {
        let (train, test, n_not_finite) = Surfaces::of_cells(self.grid.n_x, cells);
        let mut names = self.names.iter().cloned();
        let points = self.plane.corners().map(|[x, y]| Corner { name: names.next().unwrap_or_default(), x, y });
        let curve = match self.path.folder {
            Some(_) => {
                let ts = uniform_ts(N_CURVE_SAMPLES)?;
                let projections = self.plane.project_path(&self.path.points, self.path.curve.as_ref(), &ts)?;
                let samples = ts.iter().zip(projections).map(|(&t, p)| PlaneSample { t, x: p.x, y: p.y, distance: p.distance });
                Some(PlaneCurve { name: self.path.curve.name().to_owned(), samples: samples.collect() })
            }
            None => None,
        };
        Ok(PlaneRecord {
            schema: SCHEMA.to_owned(),
            run: folder.path().to_owned(),
            settings,
            points,
            grid: self.grid,
            alphas: self.grid.alphas(),
            betas: self.grid.betas(),
            dx: self.plane.dx(),
            dy: self.plane.dy(),
            train,
            test,
            n_not_finite,
            curve,
        })
    }
}

/// The summary for people.
fn describe(document: &Value) -> String {
    let Ok(record) = serde_json::from_value::<PlaneRecord>(document.clone()) else { return document.to_string() };
    let range = |rows: &[Vec<Option<f64>>]| {
        let finite = rows.iter().flatten().flatten();
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
    };
    let mut text = String::new();
    let (low, high) = range(&record.train.loss);
    text += &format!("train loss from {low:.4} to {high:.4}");
    if let Some(error) = record.test.as_ref().and_then(|test| test.error.as_ref()) {
        let (low, high) = range(error);
        text += &format!(", test error from {:.2} to {:.2} %", 100.0 * low, 100.0 * high);
    }
    text += &format!(" over {} x {} cells\n", record.grid.n_x, record.grid.n_y);
    if record.n_not_finite > 0 {
        text += &format!("{} cells are NaN or infinite\n", record.n_not_finite);
    }
    if let Some(curve) = &record.curve {
        let farthest = curve.samples.iter().map(|s| s.distance).fold(0.0, f64::max);
        if farthest > 1e-4 * record.dx {
            text += &format!("the curve leaves the plane by up to {farthest:.3}; it is drawn where it projects to\n");
        }
    }
    let run = record.run.display();
    text + &format!("wrote {run}: plane.json, plane.png, plane.svg, plane.html")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_two_numbers() {
        assert_eq!(parse_grid("41x31").ok(), Some([41, 31]));
        assert_eq!(parse_grid("5X7").ok(), Some([5, 7]));
        for wrong in ["", "41", "0x5", "5x0", "-1x4", "4x", "axb", "4x5x6"] {
            let message = parse_grid(wrong).map_err(|e| e.to_string());
            assert!(message.as_ref().is_err_and(|m| m.contains("`--grid`") && m.contains("41x31")), "{wrong}: {message:?}");
        }
    }
}
