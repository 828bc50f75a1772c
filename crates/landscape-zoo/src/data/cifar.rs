//! CIFAR-10 and CIFAR-100 in the published binary layout.
//!
//! A record of CIFAR-10 is one label byte and 3,072 pixel bytes (red, green, blue planes of 32x32, row-major), of CIFAR-100 a coarse
//! and a fine label byte before the same pixels; the fine one is used. Files hold any whole number of records.
//!
//! # Source
//! Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, and the layout described with the data.

use super::augment::Augmentation;
use super::dataset::{Dataset, Inputs, Split, SplitTargets};
use super::source;
use crate::error::{Error, Result};
use landscape_core::metadata::Normalization;
use std::path::{Path, PathBuf};

const N_PIXELS: usize = 3 * 32 * 32;

const FILES_10: [&[&str]; 6] = [
    &["data_batch_1.bin"],
    &["data_batch_2.bin"],
    &["data_batch_3.bin"],
    &["data_batch_4.bin"],
    &["data_batch_5.bin"],
    &["test_batch.bin"],
];
const FILES_100: [&[&str]; 2] = [&["train.bin"], &["test.bin"]];

/// Reads CIFAR-10 from `dir`, which holds `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.
///
/// # Shapes
/// Inputs `[3, 32, 32]` bytes, to be divided by 255; labels below 10.
///
/// # Errors
/// If a file is missing, empty or no whole number of records, or if a label is out of range.
pub fn open_10(dir: &Path) -> Result<Dataset> {
    open("cifar10", dir, &FILES_10, Layout { n_label_bytes: 1, n_classes: 10 })
}

/// Reads CIFAR-100 from `dir`, which holds `train.bin` and `test.bin`.
///
/// # Shapes
/// Inputs `[3, 32, 32]` bytes, to be divided by 255; fine labels below 100.
///
/// # Errors
/// As [`open_10`].
pub fn open_100(dir: &Path) -> Result<Dataset> {
    open("cifar100", dir, &FILES_100, Layout { n_label_bytes: 2, n_classes: 100 })
}

/// What distinguishes the two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Label bytes before the pixels; the last one is the class.
    pub(crate) n_label_bytes: usize,
    /// How many classes there are.
    pub(crate) n_classes: usize,
}

fn open(name: &str, dir: &Path, files: &[&[&str]], layout: Layout) -> Result<Dataset> {
    let paths = source::find(dir, files).map_err(|error| explain_pickles(dir, error))?;
    let (test_path, train_paths) = paths.split_last().expect("the lists of files are not empty");
    let train = read_split(train_paths, layout)?;
    let test = read_split(std::slice::from_ref(test_path), layout)?;
    let mut data = Dataset::new(name, Some(layout.n_classes), train, test)?;
    data.normalization = Some(Normalization { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] });
    data.augmentation = Augmentation::CropFlip { padding: 4 };
    Ok(data)
}

/// The data are also published as Python pickles; who has those is told so.
fn explain_pickles(dir: &Path, error: Error) -> Error {
    match error {
        Error::MissingFiles { dir: place, missing, hint } if hint.is_empty() => {
            let pickled = ["data_batch_1", "train"].iter().any(|name| dir.join(name).is_file());
            let hint = if pickled { " (what is there is the version for Python; the binary version is read)" } else { "" };
            Error::MissingFiles { dir: place, missing, hint: hint.to_owned() }
        }
        other => other,
    }
}

fn read_split(paths: &[PathBuf], layout: Layout) -> Result<Split> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in paths {
        append_records(path, &source::read_file(path)?, layout, &mut pixels, &mut labels)?;
    }
    let n_examples = labels.len();
    let targets = SplitTargets::Classes(labels);
    Ok(Split { inputs: Inputs::U8(pixels), n_examples, input_shape: vec![3, 32, 32], divisor: 255.0, targets })
}

/// Appends the records of one file.
pub(crate) fn append_records(path: &Path, file: &[u8], layout: Layout, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    let n_record_bytes = layout.n_label_bytes + N_PIXELS;
    if file.is_empty() || !file.len().is_multiple_of(n_record_bytes) {
        let expected = format!("a whole number of records of {n_record_bytes} bytes, at least one");
        let found = format!("{} bytes, {} and {} over", file.len(), file.len() / n_record_bytes, file.len() % n_record_bytes);
        return Err(Error::format(path, expected, found));
    }
    let n_records = file.len() / n_record_bytes;
    pixels.reserve_exact(n_records * N_PIXELS);
    for (row, record) in file.chunks_exact(n_record_bytes).enumerate() {
        let label = record[layout.n_label_bytes - 1];
        if usize::from(label) >= layout.n_classes {
            return Err(Error::format(path, format!("labels below {}", layout.n_classes), format!("label {label} at record {row}")));
        }
        labels.push(u32::from(label));
        pixels.extend_from_slice(&record[layout.n_label_bytes..]);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Record `idx` of a made-up file; the label bytes stand first.
    fn record(labels: &[u8], idx: usize) -> Vec<u8> {
        let pixels = (0..N_PIXELS).map(|p| ((p * 7 + idx * 13) % 256) as u8);
        labels.iter().copied().chain(pixels).collect()
    }

    fn write_10(dir: &Path) {
        for (file, names) in FILES_10.iter().enumerate() {
            let bytes: Vec<u8> = (0..3).flat_map(|i| record(&[((file + i) % 10) as u8], file * 3 + i)).collect();
            std::fs::write(dir.join(names[0]), bytes).unwrap();
        }
    }

    #[test]
    fn records_are_read_in_the_order_of_the_files() {
        let dir = tempfile::tempdir().unwrap();
        write_10(dir.path());
        let data = open_10(dir.path()).unwrap();
        assert_eq!((data.train.n_examples, data.test.n_examples, data.n_classes), (15, 3, Some(10)));
        let SplitTargets::Classes(labels) = &data.train.targets else { panic!("labels are classes") };
        assert_eq!(labels[..7], [0, 1, 2, 1, 2, 3, 2]);
        let Inputs::U8(pixels) = &data.train.inputs else { panic!("pixels are bytes") };
        for idx in 0..15 {
            assert_eq!(pixels[idx * N_PIXELS..][..N_PIXELS], record(&[], idx), "record {idx}");
        }
    }

    #[test]
    fn cifar_100_takes_the_fine_label() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("train.bin"), [record(&[3, 99], 0), record(&[19, 0], 1)].concat()).unwrap();
        std::fs::write(dir.path().join("test.bin"), record(&[255, 42], 2)).unwrap();
        let data = open_100(dir.path()).unwrap();
        assert_eq!(data.train.targets, SplitTargets::Classes(vec![99, 0]));
        assert_eq!(data.test.targets, SplitTargets::Classes(vec![42]));
    }

    #[test]
    fn faults_name_the_file_what_was_expected_and_what_was_found() {
        let dir = tempfile::tempdir().unwrap();
        write_10(dir.path());
        let refused = |name: &str, bytes: &[u8]| {
            let whole = std::fs::read(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name), bytes).unwrap();
            let message = open_10(dir.path()).err().unwrap().to_string();
            std::fs::write(dir.path().join(name), whole).unwrap();
            assert!(message.contains(name), "{message}");
            message
        };
        assert!(refused("data_batch_3.bin", &record(&[1], 0)[..3000]).contains("3073"));
        assert!(refused("data_batch_3.bin", &[record(&[1], 0), vec![0]].concat()).contains("3074 bytes, 1 and 1 over"));
        assert!(refused("data_batch_5.bin", &[]).contains("0 bytes"));
        assert!(refused("test_batch.bin", &[record(&[1], 0), record(&[10], 0)].concat()).contains("label 10 at record 1"));
        std::fs::remove_file(dir.path().join("data_batch_2.bin")).unwrap();
        std::fs::remove_file(dir.path().join("test_batch.bin")).unwrap();
        let message = open_10(dir.path()).err().unwrap().to_string();
        assert!(message.contains("`data_batch_2.bin`; `test_batch.bin`"), "{message}");
        std::fs::write(dir.path().join("data_batch_1"), []).unwrap();
        let message = open_10(dir.path()).err().unwrap().to_string();
        assert!(message.contains("version for Python"), "{message}");
    }

    proptest! {
        #[test]
        fn mutated_files_are_read_or_refused(at in 0usize..6146, value: u8, keep in 0usize..6200) {
            let mut file = [record(&[1], 0), record(&[2], 1)].concat();
            file[at] = value;
            file.resize(keep, 77);
            let (mut pixels, mut labels) = (Vec::new(), Vec::new());
            let result = append_records(Path::new("x"), &file, Layout { n_label_bytes: 1, n_classes: 10 }, &mut pixels, &mut labels);
            prop_assert_eq!(pixels.len(), labels.len() * N_PIXELS);
            prop_assert!(labels.iter().all(|&label| label < 10));
            if result.is_ok() {
                prop_assert_eq!(file.len(), labels.len() * 3073);
            }
        }
    }
}
