//! Data sets: read into memory as the files hold them, identified by their content, made into batches by seed.
//!
//! | spec | data | divided by | then (x − mean)/std | augmentation |
//! |---|---|---|---|---|
//! | `digits` | UCI 8x8 digits, embedded, 1,437 + 360 | 16 | | |
//! | `mnist:DIR`, `fashion:DIR` | IDX files, as they are or `.gz` | 255 | | |
//! | `cifar10:DIR`, `cifar100:DIR` | binary version | 255 | .4914 .4822 .4465 / .2470 .2435 .2616 | crop with padding 4, flip |
//! | `npz:FILE` | own arrays, see [`npz`] | 255 for bytes, else 1 | | |
//! | `text:FILE`, `bytes:FILE`, either with `@PLACES` | text to predict the next character or byte of, see [`text`] | | | |
//!
//! `DIR` holds the data files themselves. CIFAR-100 gets CIFAR-10's mean and deviation, as in the reference (dnn-mode-connectivity),
//! which has one transformation for both; recipes made for CIFAR-100 alone often use .5071 .4867 .4408 / .2675 .2565 .2761.

pub mod digits;
pub mod idx;
pub mod cifar;
pub mod npz;
pub mod text;
pub mod batches;
pub mod held;

mod source;
mod npy;
mod dataset;
mod hash;
mod stratify;
mod normalize;
mod augment;

pub use augment::Augmentation;
pub use dataset::{Dataset, Inputs, Split, SplitTargets};
pub use landscape_core::metadata::Normalization;

use crate::error::{Error, Result};
use std::path::Path;

/// What [`open`] knows.
pub const KNOWN: &str = "`digits`, `mnist:DIR`, `fashion:DIR`, `cifar10:DIR`, `cifar100:DIR`, `npz:FILE`, `text:FILE` or `bytes:FILE`";

/// Opens the data set that `spec` names.
///
/// ```
/// let digits = landscape_zoo::data::open("digits")?;
/// assert_eq!((digits.train.n_examples, digits.test.n_examples, digits.n_outputs()), (1437, 360, 10));
/// assert!(landscape_zoo::data::open("letters").unwrap_err().to_string().contains("`digits`, `mnist:DIR`"));
/// # Ok::<(), landscape_zoo::Error>(())
/// ```
///
/// # Errors
/// If the data set is not known, or its files are missing or not in their format.
pub fn open(spec: &str) -> Result<Dataset> {
    let unknown = || Error::UnknownData { got: spec.to_owned(), known: KNOWN.to_owned() };
    let (name, place) = match spec.split_once(':') {
        None if spec == "digits" => return digits::open(),
        Some((name, place)) if !place.is_empty() => (name, Path::new(place)),
        _ => return Err(unknown()),
    };
    match name {
        "mnist" | "fashion" => idx::open(name, place),
        "cifar10" => cifar::open_10(place),
        "cifar100" => cifar::open_100(place),
        "npz" => npz::open(place),
        "text" | "bytes" => text::open(spec),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn unknown_data_are_answered_with_what_is_known() {
        for spec in ["", "mnist", "mnist:", "imagenet:x", "digits:x", "Digits", ":"] {
            let message = open(spec).err().unwrap().to_string();
            assert!(message.contains(&format!("unknown data `{spec}`")) && message.contains("`npz:FILE`"), "{message}");
        }
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        for spec in
            ["mnist:no/such", "fashion:no/such", "cifar10:no/such", "cifar100:no/such", "npz:no/such", "text:no/such", "bytes:no/such@8"]
        {
            assert!(open(spec).err().unwrap().to_string().contains("no/such"));
        }
    }
}
