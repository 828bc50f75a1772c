//! MNIST and Fashion-MNIST: IDX files, as they are or packed with gzip.
//!
//! An IDX file begins with a big-endian word whose third byte is the element type (8: unsigned bytes) and whose fourth is the number
//! of dimensions, then one big-endian word per dimension, then the bytes.
//!
//! # Source
//! The format as described with the MNIST database (LeCun, Cortes, Burges); file names as published there.

use super::dataset::{Dataset, Inputs, Split, SplitTargets};
use super::source;
use crate::error::{Error, Result};
use std::path::Path;

const N_CLASSES: usize = 10;

const FILES: [&[&str]; 4] = [
    &["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "train-images.idx3-ubyte", "train-images.idx3-ubyte.gz"],
    &["train-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz", "train-labels.idx1-ubyte", "train-labels.idx1-ubyte.gz"],
    &["t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "t10k-images.idx3-ubyte", "t10k-images.idx3-ubyte.gz"],
    &["t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz", "t10k-labels.idx1-ubyte", "t10k-labels.idx1-ubyte.gz"],
];

/// Reads the four files of MNIST or Fashion-MNIST in `dir`; `name` is the data set's.
///
/// # Shapes
/// Inputs `[1, h, w]` bytes, to be divided by 255; labels below 10.
///
/// # Errors
/// If a file is missing, is not in its format, is empty, is shorter or longer than its header says, if images and labels differ in
/// number, training and test images in size, or if a label is out of range.
pub fn open(name: &str, dir: &Path) -> Result<Dataset> {
    let paths = source::find(dir, &FILES)?;
    let files = paths.iter().map(|path| source::read_file(path)).collect::<Result<Vec<_>>>()?;
    let train = split([&paths[0], &paths[1]], [&files[0], &files[1]])?;
    let test = split([&paths[2], &paths[3]], [&files[2], &files[3]])?;
    if train.input_shape != test.input_shape {
        let [expected, found] = [&train, &test].map(|split| format!("images of shape {:?}", split.input_shape));
        return Err(Error::format(&paths[2], format!("{expected} as in `{}`", paths[0].display()), found));
    }
    Dataset::new(name, Some(N_CLASSES), train, test)
}

/// Images and labels of one split.
pub(crate) fn split(paths: [&Path; 2], files: [&[u8]; 2]) -> Result<Split> {
    let images = parse(paths[0], files[0], 3)?;
    let labels = parse(paths[1], files[1], 1)?;
    if images.shape[0] != labels.shape[0] {
        let expected = format!("{} labels, as many as images in `{}`", images.shape[0], paths[0].display());
        return Err(Error::format(paths[1], expected, labels.shape[0].to_string()));
    }
    if let Some(row) = labels.bytes.iter().position(|&label| usize::from(label) >= N_CLASSES) {
        return Err(Error::format(paths[1], format!("labels below {N_CLASSES}"), format!("label {} at row {row}", labels.bytes[row])));
    }
    let input_shape = vec![1, images.shape[1], images.shape[2]];
    let targets = SplitTargets::Classes(labels.bytes.into_iter().map(u32::from).collect());
    Ok(Split { inputs: Inputs::U8(images.bytes), n_examples: images.shape[0], input_shape, divisor: 255.0, targets })
}

/// An array of bytes.
pub(crate) struct Idx {
    /// Its dimensions, none of them zero.
    pub(crate) shape: Vec<usize>,
    /// Its elements, row-major.
    pub(crate) bytes: Vec<u8>,
}

/// Reads an IDX file of unsigned bytes with `n_dims` dimensions.
pub(crate) fn parse(path: &Path, file: &[u8], n_dims: u8) -> Result<Idx> {
    let (mut reader, limit) = source::unpacked(file);
    let mut header = vec![0u8; 4 + 4 * usize::from(n_dims)];
    reader.read_exact(&mut header).map_err(|e| Error::format(path, format!("an IDX header of {} bytes", header.len()), e.to_string()))?;
    let words: Vec<u32> = header.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]])).collect();
    let magic = 0x0800 | u32::from(n_dims);
    if words[0] != magic {
        let expected = format!("the magic number {magic:#010x} (unsigned bytes in {n_dims} dimensions)");
        return Err(Error::format(path, expected, format!("{:#010x}", words[0])));
    }
    let shape: Vec<usize> = words[1..].iter().map(|&n| n as usize).collect();
    if shape.contains(&0) {
        return Err(Error::format(path, "at least one example of at least one byte", format!("shape {shape:?}")));
    }
    let n_bytes = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n)).filter(|&n| n as u64 <= limit);
    let Some(n_bytes) = n_bytes else {
        let found = format!("shape {shape:?} in the header of a file of {} bytes", file.len());
        return Err(Error::format(path, "as many bytes as the header's shape asks for", found));
    };
    let bytes = source::read_rest(path, &format!("data (shape {shape:?})"), &mut reader, n_bytes)?;
    Ok(Idx { shape, bytes })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;
    use std::path::PathBuf;

    fn idx(shape: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut file = (0x0800 | shape.len() as u32).to_be_bytes().to_vec();
        shape.iter().for_each(|n| file.extend(n.to_be_bytes()));
        file.extend(bytes);
        file
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn refused(file: &[u8], n_dims: u8) -> String {
        parse(Path::new("some/file"), file, n_dims).err().unwrap().to_string()
    }

    #[test]
    fn both_containers_give_the_same_array() {
        let raw = idx(&[2, 2, 3], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255]);
        for file in [raw.clone(), gz(&raw)] {
            let array = parse(Path::new("x"), &file, 3).unwrap();
            assert_eq!((array.shape, array.bytes), (vec![2, 2, 3], vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255]));
        }
    }

    #[test]
    fn every_fault_names_the_file_what_was_expected_and_what_was_found() {
        let whole = idx(&[4], &[1, 2, 3, 4]);
        assert!(refused(&whole, 3).contains("`some/file`"));
        let message = refused(&[whole.clone(), vec![0; 20]].concat(), 3);
        assert!(message.contains("0x00000803") && message.contains("found 0x00000801"), "{message}");
        assert!(refused(&whole[..7], 1).contains("header of 8 bytes"));
        assert!(refused(&whole[..10], 1).contains("2 (the file is truncated)"));
        assert!(refused(&[whole.clone(), vec![9]].concat(), 1).contains("bytes follow"));
        assert!(refused(&idx(&[0], &[]), 1).contains("at least one"));
        assert!(refused(&[], 1).contains("header"));
        let packed = gz(&whole);
        assert!(refused(&packed[..packed.len() - 5], 1).contains("damaged"), "{}", refused(&packed[..packed.len() - 5], 1));
        let mut flipped = packed.clone();
        let at = packed.len() - 8;
        flipped[at] ^= 1;
        assert!(refused(&flipped, 1).contains("damaged"), "the checksum is looked at");
        assert!(refused(&gz(&idx(&[5], &[1, 2, 3, 4])), 1).contains("truncated"));
        assert!(refused(&gz(&idx(&[3], &[1, 2, 3, 4])), 1).contains("bytes follow"));
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused_before_anything_is_allocated() {
        for file in [idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 64]), idx(&[u32::MAX, 1000, 1000], &[0; 64])] {
            assert!(refused(&file, 3).contains("header's shape"), "{}", refused(&file, 3));
            assert!(refused(&gz(&file), 3).contains("header's shape"));
        }
    }

    #[test]
    fn counts_and_labels_are_checked() {
        let paths = [Path::new("images"), Path::new("labels")];
        let images = idx(&[2, 1, 1], &[3, 4]);
        let error = |labels: &[u8]| split(paths, [&images, labels]).err().unwrap().to_string();
        assert!(error(&idx(&[3], &[0, 1, 2])).contains("expected 2 labels"));
        assert!(error(&idx(&[2], &[0, 10])).contains("label 10 at row 1"));
        assert!(split(paths, [&images, &idx(&[2], &[0, 9])]).is_ok());
    }

    #[test]
    fn missing_files_are_all_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = open("mnist", dir.path()).err().unwrap().to_string();
        for names in FILES {
            assert!(names.iter().all(|name| message.contains(name)), "{message}");
        }
        let below = dir.path().join("raw");
        std::fs::create_dir(&below).unwrap();
        for (names, shape) in FILES.iter().zip([vec![1, 1, 1], vec![1], vec![1, 1, 1], vec![1]]) {
            std::fs::write(below.join(names[1]), gz(&idx(&shape, &[1]))).unwrap();
        }
        let message = open("mnist", dir.path()).err().unwrap().to_string();
        assert!(message.contains("raw` has them all"), "{message}");
        assert_eq!(open("mnist", &below).unwrap().train.n_examples, 1);
        let message = open("mnist", &dir.path().join("nowhere")).err().unwrap().to_string();
        assert!(message.contains("nothing there"), "{message}");
    }

    proptest! {
        #[test]
        fn mutated_files_are_read_or_refused(at in 0usize..200, value: u8, keep in 0usize..200, packed: bool) {
            let whole = idx(&[3, 4, 5], &(0..60).collect::<Vec<u8>>());
            let mut file = if packed { gz(&whole) } else { whole };
            let at = at % file.len();
            file[at] = value;
            file.truncate(keep.max(1));
            if let Ok(array) = parse(Path::new("x"), &file, 3) {
                prop_assert_eq!(array.shape.iter().product::<usize>(), array.bytes.len());
            }
        }

        #[test]
        fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..300), magic: bool) {
            let file = if magic { [&[0, 0, 8, 3], &noise[..]].concat() } else { noise };
            if let Ok(array) = parse(Path::new("x"), &file, 3) {
                prop_assert_eq!(array.shape.iter().product::<usize>(), array.bytes.len());
            }
        }
    }

    #[test]
    fn the_published_mnist() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/mnist");
        if !dir.is_dir() {
            eprintln!("skipped: no MNIST beside the repository");
            return;
        }
        let data = open("mnist", &dir).unwrap();
        assert_eq!((data.train.n_examples, data.test.n_examples), (60_000, 10_000));
        assert_eq!((data.input_shape.as_slice(), data.n_classes), ([1, 28, 28].as_slice(), Some(10)));
        let SplitTargets::Classes(labels) = &data.train.targets else { panic!("labels are classes") };
        assert_eq!(labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        let SplitTargets::Classes(labels) = &data.test.targets else { panic!("labels are classes") };
        assert_eq!(labels[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
        let Inputs::U8(pixels) = &data.train.inputs else { panic!("pixels are bytes") };
        // The constants that everybody normalises MNIST with.
        let n = pixels.len() as f64;
        let mean = pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / n / 255.0;
        let square = pixels.iter().map(|&p| (f64::from(p) / 255.0).powi(2)).sum::<f64>() / n;
        assert!((mean - 0.1307).abs() < 5e-5 && ((square - mean * mean).sqrt() - 0.3081).abs() < 5e-5, "{mean}");
    }
}
