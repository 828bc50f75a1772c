//! The UCI 8x8 digits, embedded: data to try everything with, without a download.
//!
//! 1,797 images of 8x8 pixels, counts 0..16, of handwritten digits. `assets/ATTRIBUTION.md` says whose they are and under which
//! licence; `assets/make_digits.py` takes the file out of scikit-learn's wheel.
//!
//! The split is stratified and fixed: of each class, `total` 360 shared by largest remainder, the first of the images in the order
//! of a shuffle seeded by `Seed::new(0).child("digits/split")` and the class are for testing; both parts keep the file's order.

use super::dataset::{Dataset, Inputs, Split, SplitTargets};
use super::{source, stratify};
use crate::error::{Error, Result};
use landscape_core::Seed;
use std::io::Read;
use std::path::Path;

const FILE: &[u8] = include_bytes!("../../assets/digits.csv.gz");
const N_EXAMPLES: usize = 1797;
const N_TEST: usize = 360;
const N_PIXELS: usize = 64;
const N_CLASSES: usize = 10;

/// The digits: 1,437 to train with, 360 to test with.
///
/// # Shapes
/// Inputs `[1, 8, 8]` bytes 0..16, to be divided by 16; labels below 10.
///
/// # Errors
/// Never, unless the embedded file was damaged.
///
/// # Source
/// E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998 (CC BY 4.0).
pub fn open() -> Result<Dataset> {
    let path = Path::new("digits.csv.gz (embedded)");
    let (mut reader, _) = source::unpacked(FILE);
    let mut text = String::new();
    reader.read_to_string(&mut text).map_err(|source| Error::read(path, source))?;
    let (pixels, labels) = parse(path, &text)?;
    let targets = SplitTargets::Classes(labels.clone());
    let whole = Split { inputs: Inputs::U8(pixels), n_examples: labels.len(), input_shape: vec![1, 8, 8], divisor: 16.0, targets };
    let test = stratify::choose(&labels, N_TEST, Seed::new(0).child("digits/split"));
    let train: Vec<usize> = (0..labels.len()).filter(|idx| test.binary_search(idx).is_err()).collect();
    Dataset::new("digits", Some(N_CLASSES), whole.select(&train)?, whole.select(&test)?)
}

/// Lines of 64 pixels and a digit.
fn parse(path: &Path, text: &str) -> Result<(Vec<u8>, Vec<u32>)> {
    let (mut pixels, mut labels) = (Vec::with_capacity(N_EXAMPLES * N_PIXELS), Vec::with_capacity(N_EXAMPLES));
    for (row, line) in text.lines().enumerate() {
        let numbers: Vec<u8> = line.split(',').map_while(|number| number.parse().ok()).collect();
        match numbers.split_last() {
            Some((&label, image)) if image.len() == N_PIXELS && usize::from(label) < N_CLASSES && image.iter().all(|&p| p <= 16) => {
                pixels.extend_from_slice(image);
                labels.push(u32::from(label));
            }
            _ => return Err(Error::format(path, "64 pixels up to 16 and a digit per line", format!("`{line}` at row {row}"))),
        }
    }
    if labels.len() == N_EXAMPLES {
        Ok((pixels, labels))
    } else {
        Err(Error::format(path, format!("{N_EXAMPLES} lines"), labels.len().to_string()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_stratified_and_does_not_move() {
        let data = open().unwrap();
        assert_eq!((data.train.n_examples, data.test.n_examples), (1437, 360));
        let count = |split: &Split| {
            let SplitTargets::Classes(labels) = &split.targets else { panic!("labels are classes") };
            (0..10).map(|class| labels.iter().filter(|&&label| label == class).count()).collect::<Vec<_>>()
        };
        let (train, test) = (count(&data.train), count(&data.test));
        // The class sizes that scikit-learn documents.
        let whole: Vec<usize> = train.iter().zip(&test).map(|(a, b)| a + b).collect();
        assert_eq!(whole, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        for (n, n_test) in whole.iter().zip(&test) {
            assert!((*n_test as f64 - *n as f64 * 360.0 / 1797.0).abs() < 1.0);
        }
        assert_eq!(data.sha256, "e9161212b35a43ff09547962ce66fed6cba69e67ce77247710f658a1bf59580d");
    }

    #[test]
    fn no_example_is_lost_or_doubled() {
        let data = open().unwrap();
        let (mut reader, _) = source::unpacked(FILE);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let mut lines: Vec<Vec<u8>> = text.lines().map(|line| line.split(',').map(|n| n.parse().unwrap()).collect()).collect();
        let mut found = Vec::new();
        for split in [&data.train, &data.test] {
            let (Inputs::U8(pixels), SplitTargets::Classes(labels)) = (&split.inputs, &split.targets) else { panic!("bytes and classes") };
            for (image, &label) in pixels.chunks(64).zip(labels) {
                found.push([image, &[label as u8]].concat());
            }
        }
        lines.sort();
        found.sort();
        assert_eq!(lines, found);
    }

    #[test]
    fn damaged_text_is_refused() {
        let path = Path::new("x");
        assert!(parse(path, "1,2,3\n").err().unwrap().to_string().contains("`1,2,3` at row 0"));
        assert!(parse(path, "").err().unwrap().to_string().contains("1797 lines"));
        let line = |pixel: &str, label: &str| [vec![pixel; 64], vec![label]].concat().join(",");
        assert!(parse(path, &line("17", "0")).is_err() && parse(path, &line("16", "10")).is_err());
        assert!(parse(path, &line("16", "9")).err().unwrap().to_string().contains("1797 lines"));
    }
}
