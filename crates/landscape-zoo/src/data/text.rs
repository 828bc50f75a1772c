//! Text to predict the next character, or byte, of.
//!
//! | spec | tokens | classes |
//! |---|---|---|
//! | `text:FILE` | characters of a UTF-8 file, numbered in the order of their code points | as many as the file has |
//! | `bytes:FILE` | bytes | 256 |
//!
//! The file is cut into examples of 64 places that do not overlap, or of as many as `@PLACES` behind the name says: `text:novel.txt@128`.
//! The last tenth of the text is the test split, and every place's label is the token that follows. What is left behind the last whole
//! example of a split is not used.

use super::dataset::{Dataset, Inputs, Split, SplitTargets};
use super::source::read_file;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Places of an example unless the spec says.
const PLACES: usize = 64;
/// The most that it may say.
const MAX_PLACES: usize = 1 << 20;
/// One in so many tokens is of the test split.
const TEST_SHARE: usize = 10;

/// Opens `text:FILE` or `bytes:FILE`, either with `@PLACES`.
///
/// # Errors
/// If the file cannot be read, is not UTF-8 where characters are asked for, or is too short for an example in each split.
pub fn open(spec: &str) -> Result<Dataset> {
    let (name, place) = spec.split_once(':').unwrap_or((spec, ""));
    let (file, n_places) = match place.rsplit_once('@') {
        // A file of that very name comes first.
        Some((file, places)) if !Path::new(place).is_file() => match places.parse() {
            Ok(n_places) if (1..=MAX_PLACES).contains(&n_places) => (Path::new(file), n_places),
            _ => return Err(Error::config("data", format!("`{name}:FILE@PLACES` with 1 to {MAX_PLACES} places"), spec)),
        },
        _ => (Path::new(place), PLACES),
    };
    let bytes = read_file(file)?;
    let (tokens, n_classes) = if name == "bytes" { (bytes.into_iter().map(u32::from).collect(), 256) } else { characters(file, &bytes)? };
    let cut = tokens.len() - tokens.len() / TEST_SHARE;
    let (train, test) = (examples(&tokens[..cut], n_places), examples(&tokens[cut..], n_places));
    match (train, test) {
        (Some(train), Some(test)) => Dataset::new(name, Some(n_classes), train, test),
        _ => {
            let expected = format!("at least {} tokens, an example of {n_places} places in the last tenth", TEST_SHARE * (n_places + 1));
            Err(Error::format(file, expected, format!("{} tokens", tokens.len())))
        }
    }
}

/// The characters of a text as numbers, and how many there are.
fn characters(path: &Path, bytes: &[u8]) -> Result<(Vec<u32>, usize)> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::format(path, "text in UTF-8 (`bytes:FILE` takes any file)", format!("other bytes at {}", e.valid_up_to())))?;
    let known: Vec<char> = text.chars().collect::<BTreeSet<_>>().into_iter().collect();
    let number = |c: char| known.binary_search(&c).expect("every character was collected") as u32;
    Ok((text.chars().map(number).collect(), known.len()))
}

/// Examples that do not overlap; none if there is not one.
fn examples(tokens: &[u32], n_places: usize) -> Option<Split> {
    let n_examples = tokens.len().checked_sub(1)? / n_places;
    let (used, inputs) = (n_examples * n_places, tokens);
    (n_examples > 0).then(|| Split {
        inputs: Inputs::Tokens(inputs[..used].to_vec()),
        n_examples,
        input_shape: vec![n_places],
        divisor: 1.0,
        targets: SplitTargets::Places { n_places, labels: tokens[1..=used].to_vec() },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(name: &str, content: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("landscape-text-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        path
    }

    fn tokens(split: &Split) -> (Vec<u32>, Vec<u32>) {
        let (Inputs::Tokens(tokens), SplitTargets::Places { labels, .. }) = (&split.inputs, &split.targets) else { panic!("tokens") };
        (tokens.clone(), labels.clone())
    }

    #[test]
    fn every_label_is_the_token_that_follows() {
        let path = file("abc", "éabc".repeat(16).as_bytes());
        let data = open(&format!("text:{}@3", path.display())).unwrap();
        std::fs::remove_file(&path).unwrap();
        // 64 characters: 58 to train with, 6 to test with; a, b, c, é by code point.
        assert_eq!((data.n_classes, data.input_shape.as_slice()), (Some(4), &[3][..]));
        assert_eq!((data.train.n_examples, data.test.n_examples), (19, 1));
        let (inputs, labels) = tokens(&data.train);
        assert_eq!((&inputs[..6], &labels[..6]), (&[3, 0, 1, 2, 3, 0][..], &[0, 1, 2, 3, 0, 1][..]));
        assert_eq!(tokens(&data.test), (vec![1, 2, 3], vec![2, 3, 0]));
        assert_eq!((data.n_outputs(), data.sha256.len()), (4, 64));
        let half = data.train.select(&[1]).unwrap();
        assert_eq!(tokens(&half), (vec![2, 3, 0], vec![3, 0, 1]));
    }

    #[test]
    fn bytes_are_what_they_are_and_bad_files_are_refused() {
        let path = file("bytes", &[200u8; 700]);
        let spec = path.display().to_string();
        let data = open(&format!("bytes:{spec}")).unwrap();
        assert_eq!((data.n_classes, data.train.input_shape.clone(), tokens(&data.test).0[0]), (Some(256), vec![64], 200));
        let message = |spec: String| open(&spec).err().unwrap().to_string();
        assert!(message(format!("text:{spec}")).contains("UTF-8"));
        assert!(message(format!("bytes:{spec}@70")).contains("at least 710 tokens"));
        assert!(message(format!("bytes:{spec}@0")).contains("PLACES"));
        assert!(message(format!("bytes:{spec}@x")).contains("PLACES"));
        std::fs::remove_file(&path).unwrap();
        let empty = file("empty", b"");
        assert!(message(format!("text:{}", empty.display())).contains("0 tokens"));
        std::fs::remove_file(&empty).unwrap();
    }
}
