//! The reference's `curve.npz`, so that existing notebooks go on working.
//!
//! # Source
//! `eval_curve.py` of timgaripov/dnn-mode-connectivity at f0bf253: `ts`, `dl`, {`tr`, `te`}_{`loss`, `nll`, `acc`, `err`} along the
//! curve, and `_min`, `_max`, `_avg`, `_int` of all but the accuracies; errors and accuracies in percent. Ours differs in that keys of
//! what was not measured (errors in regression, a test split that is not there) are left out.

use anyhow::Context;
use landscape_core::profile::{Profile, Quantity};
use landscape_core::whole::{self, Overwrite};
use npyz::WriterBuilder;
use std::io::{Cursor, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Writes a profile under the reference's names, replacing what was there.
pub fn write_curve(path: &Path, profile: &Profile) -> anyhow::Result<()> {
    let bytes = archive(&arrays(profile)).with_context(|| format!("writing `{}`", path.display()))?;
    Ok(whole::write(path, &bytes, Overwrite::Replace)?)
}

/// An array of no dimension, or of one.
#[derive(Debug, Clone, PartialEq)]
enum Array {
    Scalar(f64),
    Vector(Vec<f64>),
}

fn arrays(profile: &Profile) -> Vec<(String, Array)> {
    let mut arrays = vec![
        ("ts".to_owned(), Array::Vector(profile.points.iter().map(|p| p.t).collect())),
        ("dl".to_owned(), Array::Vector(profile.points.iter().map(|p| p.dl).collect())),
    ];
    for quantity in Quantity::ALL {
        let (Some(values), Some(summary)) = (quantity.series(&profile.points), profile.summary.get(quantity)) else { continue };
        let (name, factor) = match quantity {
            Quantity::TrainLoss => ("tr_loss", 1.0),
            Quantity::TrainNll => ("tr_nll", 1.0),
            Quantity::TrainError => ("tr_err", 100.0),
            Quantity::TestLoss => ("te_loss", 1.0),
            Quantity::TestNll => ("te_nll", 1.0),
            Quantity::TestError => ("te_err", 100.0),
        };
        if factor != 1.0 {
            let accuracies = values.iter().map(|e| 100.0 * (1.0 - e)).collect();
            arrays.push((name.replace("err", "acc"), Array::Vector(accuracies)));
        }
        arrays.push((name.to_owned(), Array::Vector(values.iter().map(|v| factor * v).collect())));
        let statistics = [("min", summary.min), ("max", summary.max), ("avg", summary.mean), ("int", summary.integral)];
        arrays.extend(statistics.map(|(statistic, value)| (format!("{name}_{statistic}"), Array::Scalar(factor * value))));
    }
    arrays
}

fn archive(arrays: &[(String, Array)]) -> anyhow::Result<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // The same profile gives the same file: no time of writing (zip's own default is 1980).
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, array) in arrays {
        let (shape, values) = match array {
            Array::Scalar(value) => (vec![], std::slice::from_ref(value)),
            Array::Vector(values) => (vec![values.len() as u64], values.as_slice()),
        };
        let mut file = Vec::new();
        let mut writer = npyz::WriteOptions::<f64>::new().default_dtype().shape(&shape).writer(&mut file).begin_nd()?;
        writer.extend(values.iter().copied())?;
        writer.finish()?;
        archive.start_file(npyz::npz::file_name_from_array_name(name), options)?;
        archive.write_all(&file)?;
    }
    Ok(archive.finish()?.into_inner())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use landscape_core::barrier::Thresholds;
    use landscape_core::curve::Segment;
    use landscape_core::profile::{Sample, Values};
    use std::io::Read;

    fn profile(with_test: bool) -> Profile {
        let values = |loss: f64| Values { loss, nll: loss - 0.25, error: Some(loss / 8.0) };
        let sample = |(t, loss)| Sample {
            t,
            dl: 0.5 * f64::from(u8::from(t > 0.0)),
            train: values(loss),
            test: with_test.then(|| values(2.0 * loss)),
        };
        let samples = [(0.0, 1.0), (0.5, 4.0), (1.0, 2.0)].map(sample).to_vec();
        Profile::of(samples, &Segment, 0.0, Thresholds::PROJECT).unwrap()
    }

    #[test]
    fn the_archive_has_the_reference_s_keys_in_percent() {
        let bytes = archive(&arrays(&profile(true))).unwrap();
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        let mut names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        names.sort();
        let mut expected = vec!["ts.npy".to_owned(), "dl.npy".to_owned()];
        for split in ["tr", "te"] {
            for quantity in ["loss", "nll", "err", "acc"] {
                expected.push(format!("{split}_{quantity}.npy"));
                if quantity != "acc" {
                    expected.extend(["min", "max", "avg", "int"].map(|s| format!("{split}_{quantity}_{s}.npy")));
                }
            }
        }
        expected.sort();
        assert_eq!(names, expected);
        let mut read = |name: &str| {
            let mut file = Vec::new();
            archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut file).unwrap();
            let array = npyz::NpyFile::new(file.as_slice()).unwrap();
            (array.shape().to_vec(), array.into_vec::<f64>().unwrap())
        };
        assert_eq!(read("tr_err"), (vec![3], vec![12.5, 50.0, 25.0]));
        assert_eq!(read("tr_acc"), (vec![3], vec![87.5, 50.0, 75.0]));
        assert_eq!(read("te_err_max"), (vec![], vec![100.0]));
        assert_eq!(read("tr_loss_int"), (vec![], vec![2.75]));
        assert_eq!(read("te_nll"), (vec![3], vec![1.75, 7.75, 3.75]));
        assert_eq!(read("dl"), (vec![3], vec![0.0, 0.5, 0.5]));
    }

    #[test]
    fn what_was_not_measured_has_no_key() {
        assert!(arrays(&profile(false)).iter().all(|(name, _)| !name.starts_with("te_")));
    }
}
