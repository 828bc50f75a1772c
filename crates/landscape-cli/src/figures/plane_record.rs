//! `plane.json`: a plane, measured; the record behind its figures.

use crate::run_folder::RunFolder;
use anyhow::Context;
use landscape_core::plane::Grid;
use landscape_core::profile::{Measured, Values};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// The schema that this program writes.
pub const SCHEMA: &str = "landscape-plane/1";

/// Rows of cells from the lowest β, cells from the lowest α; NaN and infinity are `null`.
pub type Rows = Vec<Vec<Option<f64>>>;

/// A plane, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaneRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// The folder it is in, from where the command was started.
    pub run: PathBuf,
    /// What was measured and how.
    pub settings: Value,
    /// The three points: the origin, the point off the axis, and the point on the axis.
    pub points: [Corner; 3],
    /// The cells, row by row.
    pub grid: Grid,
    /// α of each column, in parts of `dx`.
    pub alphas: Vec<f64>,
    /// β of each row, in parts of `dy`.
    pub betas: Vec<f64>,
    /// Unit of α in weight space: the distance of the first and the last point.
    pub dx: f64,
    /// Unit of β in weight space: how far the second point is from the line through the others.
    pub dy: f64,
    /// What the training split gave.
    pub train: Surfaces,
    /// What the test split gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Surfaces>,
    /// Cells where something is NaN or infinite.
    pub n_not_finite: usize,
    /// The run's curve, projected to the plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<PlaneCurve>,
}

/// One of the three points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Corner {
    /// What it is.
    pub name: String,
    /// Its place, in units of weight space.
    pub x: f64,
    /// Its place, in units of weight space.
    pub y: f64,
}

/// One split over all cells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Surfaces {
    /// nll plus the L2 term.
    pub loss: Rows,
    /// Mean loss per example.
    pub nll: Rows,
    /// Share of wrong answers; absent for regression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Rows>,
}

/// A curve in the plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaneCurve {
    /// The curve's name.
    pub name: String,
    /// Its samples.
    pub samples: Vec<PlaneSample>,
}

/// A point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlaneSample {
    /// Where on the curve.
    pub t: f64,
    /// Along the first axis, in units of weight space.
    pub x: f64,
    /// Along the second axis, in units of weight space.
    pub y: f64,
    /// How far above the plane.
    pub distance: f64,
}

impl PlaneRecord {
    /// The plane in a run's folder, if one was measured.
    pub fn of_run(folder: &RunFolder) -> anyhow::Result<Option<Self>> {
        if !folder.file("plane.json").is_file() {
            return Ok(None);
        }
        let record = serde_json::from_value(folder.read_json("plane.json")?);
        let record: PlaneRecord = record.with_context(|| format!("`{}` is not a measured plane", folder.file("plane.json").display()))?;
        let fits = |rows: &Rows| rows.len() == record.betas.len() && rows.iter().all(|row| row.len() == record.alphas.len());
        let all = std::iter::once(&record.train).chain(&record.test);
        let complete = all.flat_map(|s| [Some(&s.loss), Some(&s.nll), s.error.as_ref()]).flatten().all(fits);
        anyhow::ensure!(complete, "`{}` has rows that are not as long as its axes", folder.file("plane.json").display());
        Ok(Some(record))
    }

    /// Places of the columns in units of weight space.
    pub fn xs(&self) -> Vec<f64> {
        self.alphas.iter().map(|a| a * self.dx).collect()
    }

    /// Places of the rows in units of weight space.
    pub fn ys(&self) -> Vec<f64> {
        self.betas.iter().map(|b| b * self.dy).collect()
    }

    /// What was trained on: the unit of losses.
    pub fn is_regression(&self) -> bool {
        self.train.error.is_none()
    }
}

impl Surfaces {
    /// The values of one split, cell by cell in the order of the grid.
    pub fn of(n_x: usize, cells: &[Values]) -> Self {
        let rows = |value: &dyn Fn(&Values) -> Option<f64>| -> Rows {
            cells.chunks(n_x).map(|row| row.iter().map(|v| value(v).filter(|v| v.is_finite())).collect()).collect()
        };
        let has_error = cells.iter().any(|v| v.error.is_some());
        Surfaces { loss: rows(&|v| Some(v.loss)), nll: rows(&|v| Some(v.nll)), error: has_error.then(|| rows(&|v| v.error)) }
    }

    /// Both splits, and how many cells are not finite.
    pub fn of_cells(n_x: usize, cells: &[Measured]) -> (Self, Option<Self>, usize) {
        let train: Vec<Values> = cells.iter().map(|c| c.train).collect();
        let test: Option<Vec<Values>> = cells.iter().map(|c| c.test).collect();
        let finite = |v: &Values| v.loss.is_finite() && v.nll.is_finite() && v.error.is_none_or(f64::is_finite);
        let n_not_finite = cells.iter().filter(|c| !finite(&c.train) || !c.test.as_ref().is_none_or(finite)).count();
        (Surfaces::of(n_x, &train), test.map(|test| Surfaces::of(n_x, &test)), n_not_finite)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use super::*;
    use landscape_core::plane::Margins;

    /// A valley along a parabola, with a hole where nothing is finite.
    pub fn example(n_x: usize, n_y: usize, n_missing: usize) -> PlaneRecord {
        let grid = Grid::new(n_x, n_y, Margins::GARIPOV2018).unwrap();
        let (dx, dy) = (21.0, 9.0);
        let cells: Vec<Measured> = (0..grid.n_cells())
            .map(|idx| {
                let cell = grid.cell(idx).unwrap();
                let off = cell.beta - 2.0 * cell.alpha * (1.0 - cell.alpha);
                let outside = (cell.alpha - 0.5).abs().max(0.5) - 0.5;
                let nll = if idx < n_missing { f64::NAN } else { 0.02 + 9.0 * off * off + 30.0 * outside * outside };
                let values = |factor: f64| Values {
                    loss: factor * nll + 0.05,
                    nll: factor * nll,
                    error: Some(if nll.is_nan() { nll } else { (0.12 * factor * nll).min(0.9) }),
                };
                Measured { train: values(1.0), test: Some(values(1.4)) }
            })
            .collect();
        let (train, test, n_not_finite) = Surfaces::of_cells(n_x, &cells);
        let samples =
            (0..=60).map(|i| f64::from(i) / 60.0).map(|t| PlaneSample { t, x: t * dx, y: 2.0 * t * (1.0 - t) * dy, distance: 0.0 });
        let corner = |name: &str, x: f64, y: f64| Corner { name: name.to_owned(), x, y };
        PlaneRecord {
            schema: SCHEMA.to_owned(),
            run: PathBuf::from("runs/0001-connect"),
            settings: serde_json::json!({"weight_decay": 1e-4}),
            points: [corner("start", 0.0, 0.0), corner("bend", 0.5 * dx, dy), corner("end", dx, 0.0)],
            alphas: grid.alphas(),
            betas: grid.betas(),
            grid,
            dx,
            dy,
            train,
            test,
            n_not_finite,
            curve: Some(PlaneCurve { name: "bezier".to_owned(), samples: samples.collect() }),
        }
    }

    #[test]
    fn cells_become_rows_and_what_is_not_finite_is_counted_and_null() {
        let record = example(5, 4, 2);
        assert_eq!((record.train.loss.len(), record.train.loss[0].len(), record.n_not_finite), (4, 5, 2));
        let json = serde_json::to_value(&record).unwrap();
        assert!(json["train"]["nll"][0][0].is_null() && json["train"]["nll"][0][2].is_number() && json["test"]["error"][0][1].is_null());
        assert_eq!(serde_json::from_value::<PlaneRecord>(json).unwrap(), record);
    }
}
