//! The identity of a data set: SHA-256 over its decoded content.
//!
//! What is hashed, in this order: the line `landscape-data 1`; the line `classes N` or `values N`; then for each of `x_train`,
//! `y_train`, `x_test`, `y_test` a line `name dtype shape` (shape with commas, e.g. `x_train u8/255 60000,1,28,28`) and the elements,
//! row-major and little-endian. Labels are u32, other targets f64, inputs what the file holds with what they are divided by.
//! So neither the container (packed or not, C or Fortran order, byte order) nor a path matters.

use super::dataset::{Inputs, Split, SplitTargets};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The hash, in hexadecimal.
pub(crate) fn of_content(n_classes: Option<usize>, train: &Split, test: &Split) -> String {
    let mut sha = Sha256::new();
    let targets = match (n_classes, &train.targets) {
        (Some(n), _) => format!("classes {n}"),
        (None, SplitTargets::Values { n_outputs, .. }) => format!("values {n_outputs}"),
        (None, SplitTargets::Classes(_) | SplitTargets::Places { .. }) => "classes".to_owned(),
    };
    sha.update(format!("landscape-data 1\n{targets}\n"));
    for (part, split) in [("train", train), ("test", test)] {
        let shape = split.input_shape.iter().fold(split.n_examples.to_string(), |line, n| format!("{line},{n}"));
        let dtype = match split.inputs {
            Inputs::U8(_) => "u8",
            Inputs::F32(_) => "f32",
            Inputs::F64(_) => "f64",
            Inputs::Tokens(_) => "u32",
        };
        sha.update(format!("x_{part} {dtype}/{} {shape}\n", split.divisor));
        match &split.inputs {
            Inputs::U8(values) => sha.update(values),
            Inputs::F32(values) => update(&mut sha, values, |v| v.to_le_bytes()),
            Inputs::F64(values) => update(&mut sha, values, |v| v.to_le_bytes()),
            Inputs::Tokens(values) => update(&mut sha, values, |v| v.to_le_bytes()),
        }
        match &split.targets {
            SplitTargets::Classes(labels) => {
                sha.update(format!("y_{part} u32 {}\n", split.n_examples));
                update(&mut sha, labels, |v| v.to_le_bytes());
            }
            SplitTargets::Values { n_outputs, values } => {
                sha.update(format!("y_{part} f64 {},{n_outputs}\n", split.n_examples));
                update(&mut sha, values, |v| v.to_le_bytes());
            }
            SplitTargets::Places { n_places, labels } => {
                sha.update(format!("y_{part} u32 {},{n_places}\n", split.n_examples));
                update(&mut sha, labels, |v| v.to_le_bytes());
            }
        }
    }
    sha.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        hex
    })
}

/// Feeds the bytes of `values` in pieces, so that no copy of the whole is made.
fn update<V: Copy, const N: usize>(sha: &mut Sha256, values: &[V], to_le_bytes: impl Fn(V) -> [u8; N]) {
    let mut piece = Vec::with_capacity(4096 * N);
    for values in values.chunks(4096) {
        piece.clear();
        values.iter().for_each(|&v| piece.extend_from_slice(&to_le_bytes(v)));
        sha.update(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(inputs: Inputs, n_examples: usize) -> Split {
        let width = inputs.len() / n_examples;
        Split { inputs, n_examples, input_shape: vec![width], divisor: 255.0, targets: SplitTargets::Classes(vec![1; n_examples]) }
    }

    #[test]
    fn the_bytes_are_those_of_the_description() {
        let (train, test) = (split(Inputs::U8(vec![7, 8, 9, 10]), 2), split(Inputs::F32(vec![1.5]), 1));
        let mut bytes = b"landscape-data 1\nclasses 2\nx_train u8/255 2,2\n\x07\x08\x09\x0ay_train u32 2\n\x01\0\0\0\x01\0\0\0".to_vec();
        bytes.extend(b"x_test f32/255 1,1\n\0\0\xc0\x3fy_test u32 1\n\x01\0\0\0");
        let naive: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(of_content(Some(2), &train, &test), naive);
    }

    #[test]
    fn every_part_counts() {
        let base = || (Some(2), split(Inputs::U8(vec![7, 8, 9, 10]), 2), split(Inputs::U8(vec![3, 4]), 1));
        let hash = |(n, train, test): (Option<usize>, Split, Split)| of_content(n, &train, &test);
        let mut hashes = vec![hash(base())];
        let mut changed = |change: fn(&mut (Option<usize>, Split, Split))| {
            let mut parts = base();
            change(&mut parts);
            hashes.push(hash(parts));
        };
        changed(|parts| parts.0 = Some(3));
        changed(|parts| parts.1.inputs = Inputs::U8(vec![7, 8, 9, 11]));
        changed(|parts| parts.2.inputs = Inputs::F32(vec![3.0, 4.0]));
        changed(|parts| parts.1.divisor = 16.0);
        changed(|parts| parts.1.input_shape = vec![1, 2, 1]);
        changed(|parts| parts.2.targets = SplitTargets::Classes(vec![0]));
        changed(|parts| std::mem::swap(&mut parts.1, &mut parts.2));
        let n = hashes.len();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), n);
    }
}
