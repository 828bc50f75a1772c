use super::*;
use proptest::prelude::*;
use std::io::{Cursor, Write};
use zip::{ZipWriter, write::SimpleFileOptions};

const CLASSES: &[u8] = include_bytes!("fixtures/classes.npz");
const VALUES: &[u8] = include_bytes!("fixtures/values.npz");

fn load(file: &[u8]) -> Result<Dataset> {
    read(Path::new("own.npz"), Cursor::new(file), file.len() as u64)
}

fn refused(file: &[u8]) -> String {
    let message = load(file).err().unwrap().to_string();
    assert!(message.contains("own.npz"), "{message}");
    message
}

/// An array in NumPy's format.
fn npy(dtype: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let shape = shape.iter().fold(String::new(), |text, n| format!("{text}{n}, "));
    let text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((text.len() as u16).to_le_bytes());
    file.extend(text.as_bytes());
    file.extend(data);
    file
}

fn f32s(shape: &[usize], values: &[f32]) -> Vec<u8> {
    npy("<f4", shape, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

fn i64s(shape: &[usize], values: &[i64]) -> Vec<u8> {
    npy("<i8", shape, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

fn archive(method: CompressionMethod, arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in arrays {
        zip.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(array).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A small whole archive, with some arrays exchanged.
fn with(changes: &[(&'static str, Vec<u8>)]) -> Vec<u8> {
    let mut arrays = vec![
        ("x_train", f32s(&[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
        ("y_train", i64s(&[3], &[0, 1, 2])),
        ("x_test", f32s(&[1, 2], &[6.0, 7.0])),
        ("y_test", i64s(&[1], &[1])),
    ];
    for (name, array) in changes {
        arrays.iter_mut().find(|(of, _)| of == name).unwrap().1 = array.clone();
    }
    archive(CompressionMethod::Deflated, &arrays)
}

#[test]
fn numpys_own_archives_are_read() {
    let data = load(CLASSES).unwrap();
    assert_eq!((data.input_shape.as_slice(), data.n_classes), ([3, 2, 5].as_slice(), Some(4)));
    assert_eq!((data.train.n_examples, data.test.n_examples, data.train.divisor), (6, 2, 255.0));
    // Column-major bytes come out row-major: 0, 1, 2, ...
    assert_eq!(data.train.inputs, Inputs::U8((0..180).collect()));
    assert_eq!(data.train.targets, SplitTargets::Classes(vec![0, 1, 2, 3, 0, 1]));
    let channels_reversed: Vec<u8> =
        (0..2).flat_map(|i| (0..3).rev().flat_map(move |c| (0..10).map(move |p| i * 30 + c * 10 + p))).collect();
    assert_eq!(data.test.inputs, Inputs::U8(channels_reversed));
    assert_eq!(data.test.targets, SplitTargets::Classes(vec![3, 2]));

    let data = load(VALUES).unwrap();
    assert_eq!((data.input_shape.as_slice(), data.n_classes, data.n_outputs()), ([3].as_slice(), None, 2));
    assert_eq!(data.train.inputs, Inputs::F64((0..12).map(|i| f64::from(i) / 8.0).collect()));
    let targets = [0.0, -1.0, 3.0, -4.0, 6.0, -7.0, 9.0, -10.0].map(|v| v / 8.0).to_vec();
    assert_eq!(data.train.targets, SplitTargets::Values { n_outputs: 2, values: targets });
    assert_eq!(data.test.targets, SplitTargets::Values { n_outputs: 2, values: vec![0.5, 0.25] });
}

#[test]
fn the_hash_does_not_depend_on_the_container() {
    let arrays = [
        ("x_train", f32s(&[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
        ("y_train", npy("|u1", &[3, 1], &[0, 1, 2])),
        ("x_test", f32s(&[1, 2], &[6.0, 7.0])),
        ("y_test", i64s(&[1], &[1])),
    ];
    let (plain, packed) = (archive(CompressionMethod::Stored, &arrays), with(&[]));
    let hash = load(&plain).unwrap().sha256;
    assert_eq!(hash, load(&packed).unwrap().sha256);
    assert_ne!(hash, load(&with(&[("y_test", i64s(&[1], &[2]))])).unwrap().sha256);
}

#[test]
fn images_without_channels_have_one() {
    let images = with(&[("x_train", npy("|u1", &[3, 2, 2], &[7; 12])), ("x_test", npy("|u1", &[1, 2, 2], &[8; 4]))]);
    assert_eq!(load(&images).unwrap().input_shape, [1, 2, 2]);
}

#[test]
fn shapes_and_dtypes_that_do_not_fit_name_array_expected_and_found() {
    let test = |changes: &[(&'static str, Vec<u8>)], parts: &[&str]| {
        let message = refused(&with(changes));
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    test(&[("x_train", npy("|i1", &[3, 2], &[0; 6]))], &["`x_train`", "dtype u8, f16, f32 or f64", "`|i1`"]);
    test(&[("x_train", i64s(&[3, 2], &[0; 6]))], &["`x_test`", "tokens as in `x_train`", "floats"]);
    test(&[("x_train", i64s(&[3, 1, 2], &[0; 6]))], &["`x_train`", "tokens of shape [n, places]", "[3, 1, 2]"]);
    test(&[("x_train", f32s(&[6], &[0.0; 6]))], &["`x_train`", "[n, features]", "shape [6]"]);
    test(&[("x_train", f32s(&[3, 1, 1, 1, 2], &[0.0; 6]))], &["`x_train`", "[n, c, h, w]", "[3, 1, 1, 1, 2]"]);
    test(&[("x_train", f32s(&[0, 2], &[]))], &["`x_train`", "at least one example", "[0, 2]"]);
    test(&[("x_train", f32s(&[], &[1.0]))], &["`x_train`", "at least one example", "[]"]);
    test(&[("x_test", f32s(&[1, 3], &[0.0; 3]))], &["`x_test`", "[2] as in `x_train`", "[1, 3]"]);
    test(&[("x_test", npy("|u1", &[1, 2], &[0; 2]))], &["`x_test`", "floats as in `x_train`", "bytes"]);
    test(&[("y_train", i64s(&[2], &[0, 1]))], &["`y_train`", "3 targets", "[2]"]);
    test(&[("y_train", i64s(&[3, 2], &[0; 6]))], &["`y_train`", "[n, 1]", "[3, 2]"]);
    let deep = [("y_train", f32s(&[3, 1, 1], &[0.0; 3])), ("y_test", f32s(&[1], &[0.0]))];
    test(&deep, &["`y_train`", "[n, k]", "[3, 1, 1]"]);
    test(&[("y_test", f32s(&[1], &[0.0]))], &["`y_test`", "class labels as in `y_train`", "regression"]);
    test(&[("y_train", f32s(&[3, 2], &[0.0; 6])), ("y_test", f32s(&[1], &[0.0]))], &["`y_test`", "2 numbers per example", "[1]"]);
    test(&[("y_train", i64s(&[3], &[0; 3])), ("y_test", i64s(&[1], &[0]))], &["`y_train`", "two classes"]);
    test(&[("y_train", npy("<U3", &[3], &[0; 36]))], &["`y_train`", "numbers", "`<U3`"]);
}

#[test]
fn values_that_cannot_be_used_name_the_row() {
    let test = |changes: &[(&'static str, Vec<u8>)], parts: &[&str]| {
        let message = refused(&with(changes));
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    test(&[("y_train", i64s(&[3], &[0, -1, 2]))], &["`y_train`", "label -1 at row 1"]);
    test(&[("y_test", i64s(&[1], &[i64::MAX]))], &["`y_test`", "label 9223372036854775807 at row 0"]);
    test(&[("y_test", npy("<u8", &[1], &[255; 8]))], &["`y_test`", "label 18446744073709551615 at row 0"]);
    test(&[("x_train", i64s(&[3, 2], &[0, 0, 0, -5, 0, 0]))], &["`x_train`", "token -5 at row 1, element 1"]);
    test(&[("x_train", f32s(&[3, 2], &[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0]))], &["`x_train`", "NaN at row 1, element 1"]);
    test(&[("x_test", f32s(&[1, 2], &[f32::INFINITY, 0.0]))], &["`x_test`", "inf at row 0, element 0"]);
    let large = npy("<f8", &[1, 2], &[0.0f64, 1e39].map(f64::to_le_bytes).concat());
    test(&[("x_test", large)], &["`x_test`", "at row 0, element 1", "range of single precision"]);
    let targets = [("y_train", f32s(&[3], &[0.0, f32::NAN, 1.0])), ("y_test", f32s(&[1], &[0.0]))];
    test(&targets, &["`y_train`", "NaN at row 1, element 0"]);
}

#[test]
fn archives_that_are_none_are_refused() {
    assert!(refused(b"").contains("zip"));
    assert!(refused(b"\x93NUMPY plain").contains("zip"));
    assert!(refused(&CLASSES[..CLASSES.len() / 2]).contains("zip"));
    let message = refused(&archive(CompressionMethod::Stored, &[("x_train", f32s(&[1, 2], &[0.0; 2])), ("labels", vec![])]));
    assert!(message.contains("`y_train`") && message.contains("`labels.npy`"), "{message}");
}

#[test]
fn sizes_that_disagree_are_refused_before_anything_is_allocated() {
    // A header that asks for 4 TB, one that asks for less than there is, and one for more.
    for (shape, data) in [(&[1 << 20, 1 << 20][..], &[0; 64][..]), (&[2, 2], &[0; 24]), (&[3, 2], &[0; 20])] {
        let message = refused(&with(&[("x_train", npy("<f4", shape, data))]));
        assert!(message.contains("`x_train`") && message.contains("bytes for shape"), "{message}");
    }
    // The central directory claims sizes that the file cannot hold: the entry's size stands 24 bytes after its signature.
    let mut file = with(&[]);
    let at = file.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap() + 24;
    file[at..at + 4].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    let message = refused(&file);
    assert!(message.contains("can hold") || message.contains("readable entry"), "{message}");
}

#[test]
fn damaged_contents_are_noticed_by_their_checksum() {
    let mut n_refused = 0;
    for at in (0..VALUES.len()).step_by(3) {
        let mut file = VALUES.to_vec();
        file[at] ^= 0x10;
        match load(&file) {
            Err(_) => n_refused += 1,
            Ok(data) => assert_eq!(data.sha256, load(VALUES).unwrap().sha256, "byte {at} changed the data unnoticed"),
        }
    }
    assert!(n_refused > 100);
}

proptest! {
    #[test]
    fn mutated_archives_are_read_or_refused(which: bool, at: prop::sample::Index, value: u8, cut: prop::sample::Index, short: bool) {
        let mut file = if which { CLASSES.to_vec() } else { VALUES.to_vec() };
        let at = at.index(file.len());
        file[at] = value;
        if short {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(data) = load(&file) {
            prop_assert_eq!(data.train.inputs.len() % data.train.n_examples, 0);
        }
    }

    #[test]
    fn mutated_arrays_in_whole_archives_are_read_or_refused(at in 0usize..80, value: u8) {
        let mut array = f32s(&[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let at = at % array.len();
        array[at] = value;
        if let Ok(data) = load(&with(&[("x_train", array)])) {
            prop_assert_eq!(data.train.inputs.len(), data.train.n_examples * data.input_shape.iter().product::<usize>());
        }
    }
}
