//! Goldens made with PyTorch (`tests/golden/make_goldens.py`, `make_exports.py`): reading them, the formula that fills weights and inputs on both
//! sides, and the summary (norm and three projections) by which a large tensor is compared.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;

/// How many projections a summary has.
pub const N_PROJECTIONS: usize = 3;

fn splitmix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The FNV-1a hash of a text.
pub fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// The 64 random bits of each index of the stream `name`, without end.
fn bits(name: &str) -> impl Iterator<Item = u64> {
    let start = fnv1a64(name);
    (1u64..).map(move |i| splitmix64(start.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15))))
}

/// `n` numbers in shift + [−scale, scale) of the stream `name`, each exactly an f32.
pub fn fill(name: &str, n: usize, scale: f64, shift: f64) -> Vec<f64> {
    let unit = bits(name).map(|z| (z >> 11) as f64 / (1u64 << 53) as f64);
    unit.take(n).map(|u| f64::from((shift + scale * (2.0 * u - 1.0)) as f32)).collect()
}

/// Multiples of ¼ in [−1, 1]: zeros and ties on purpose.
pub fn quarters(name: &str, n: usize) -> Vec<f64> {
    fill(name, n, 1.0, 0.0).into_iter().map(|v| (v * 4.0 + 0.5).floor() / 4.0).collect()
}

/// `n` class labels.
pub fn labels(name: &str, n: usize, n_classes: u32) -> Vec<u32> {
    bits(name).take(n).map(|z| ((z >> 33) % u64::from(n_classes)) as u32).collect()
}

/// The parameter `name` of control point `row`.
pub fn weight(row: &str, name: &str, shape: &[usize]) -> Vec<f64> {
    let stream = format!("{row}/{name}");
    let n = shape.iter().product();
    if shape.len() > 1 {
        let fan_in: usize = shape[1..].iter().product();
        fill(&stream, n, (6.0 / fan_in as f64).sqrt(), 0.0)
    } else if name.ends_with(".weight") {
        fill(&stream, n, 0.25, 1.0)
    } else {
        fill(&stream, n, 0.125, 0.0)
    }
}

/// Norm, and projections on vectors of random signs: for an error e of any shape the projections of e are as large as ‖e‖ in
/// the mean of squares, so three of them that agree leave little room for tensors that do not.
pub fn summary(values: &[f64]) -> [f64; 1 + N_PROJECTIONS] {
    let mut out = [0.0; 1 + N_PROJECTIONS];
    for (&v, z) in values.iter().zip(bits("projection")) {
        out[0] += v * v;
        for (j, sum) in out[1..].iter_mut().enumerate() {
            *sum += if z >> j & 1 == 1 { -v } else { v };
        }
    }
    out[0] = out[0].sqrt();
    out
}

/// Euclidean norm.
pub fn norm(a: &[f64]) -> f64 {
    a.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Euclidean norm of a − b.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// A part of a golden file, with the path that leads to it.
#[derive(Debug, Clone)]
pub struct Golden {
    place: String,
    value: Value,
}

impl Golden {
    /// Reads `tests/golden/NAME.json`.
    ///
    /// # Errors
    /// If it is missing or no JSON, or was not made by the committed script.
    pub fn open(name: &str) -> Result<Golden> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("golden `{name}`: run tests/golden/make_goldens.py"))?;
        let golden = Golden { place: name.to_owned(), value: serde_json::from_str(&text)? };
        let script = golden.at("header")?.at("script")?;
        let known = ["tests/golden/make_goldens.py", "tests/golden/make_exports.py"];
        ensure!(known.contains(&script.text()?), "`{name}` has another origin");
        Ok(golden)
    }

    /// The part under `key`.
    ///
    /// # Errors
    /// If there is none.
    pub fn at(&self, key: &str) -> Result<Golden> {
        let value = self.value.get(key).with_context(|| format!("`{}` has no `{key}`", self.place))?;
        Ok(Golden { place: format!("{}/{key}", self.place), value: value.clone() })
    }

    /// Whether there is a part under `key`.
    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    /// The parts and their keys.
    ///
    /// # Errors
    /// If this is no object.
    pub fn entries(&self) -> Result<Vec<(String, Golden)>> {
        let object = self.value.as_object().with_context(|| format!("`{}` is no object", self.place))?;
        object.keys().map(|key| Ok((key.clone(), self.at(key)?))).collect()
    }

    /// The parts of a list.
    ///
    /// # Errors
    /// If this is none.
    pub fn items(&self) -> Result<Vec<Golden>> {
        let list = self.value.as_array().with_context(|| format!("`{}` is no list", self.place))?;
        Ok(list.iter().enumerate().map(|(idx, value)| Golden { place: format!("{}/{idx}", self.place), value: value.clone() }).collect())
    }

    /// The part as JSON.
    pub fn json(&self) -> String {
        self.value.to_string()
    }

    /// A text.
    ///
    /// # Errors
    /// If it is something else.
    pub fn text(&self) -> Result<&str> {
        self.value.as_str().with_context(|| format!("`{}` is no text", self.place))
    }

    /// A number.
    ///
    /// # Errors
    /// If it is something else.
    pub fn number(&self) -> Result<f64> {
        self.value.as_f64().with_context(|| format!("`{}` is no number", self.place))
    }

    /// A truth value.
    ///
    /// # Errors
    /// If it is something else.
    pub fn flag(&self) -> Result<bool> {
        self.value.as_bool().with_context(|| format!("`{}` is neither true nor false", self.place))
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// If it is something else.
    pub fn numbers(&self) -> Result<Vec<f64>> {
        let list = self.value.as_array().with_context(|| format!("`{}` is no list", self.place))?;
        list.iter().map(|v| v.as_f64().with_context(|| format!("`{}` holds {v}", self.place))).collect()
    }

    /// A list of sizes.
    ///
    /// # Errors
    /// If it is something else.
    pub fn sizes(&self) -> Result<Vec<usize>> {
        Ok(self.numbers()?.into_iter().map(|v| v as usize).collect())
    }

    /// A pair of sizes.
    ///
    /// # Errors
    /// If it is something else.
    pub fn pair(&self) -> Result<[usize; 2]> {
        match self.sizes()?[..] {
            [a, b] => Ok([a, b]),
            _ => bail!("`{}` is no pair", self.place),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// If it is something else.
    pub fn texts(&self) -> Result<Vec<String>> {
        let list = self.value.as_array().with_context(|| format!("`{}` is no list", self.place))?;
        list.iter().map(|v| Ok(v.as_str().with_context(|| format!("`{}` holds {v}", self.place))?.to_owned())).collect()
    }

    /// Fails unless `values` are the golden's numbers, each to `tolerance` of the largest of them (at least 1e-3).
    ///
    /// # Errors
    /// Names the place and the element.
    pub fn check_values(&self, values: &[f64], tolerance: f64) -> Result<()> {
        let golden = self.numbers()?;
        ensure!(golden.len() == values.len(), "`{}`: {} values expected, {} found", self.place, golden.len(), values.len());
        let scale = golden.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
        for (idx, (&expected, &found)) in golden.iter().zip(values).enumerate() {
            // Written so that a NaN fails.
            let agrees = (expected - found).abs() <= tolerance * scale;
            ensure!(agrees, "`{}`: element {idx} is {found:e}, PyTorch has {expected:e}", self.place);
        }
        Ok(())
    }

    /// Distance of the summary of `values` from the golden's, in units of the golden's norm: the worst of norm and projections.
    /// A tensor whose norm is below `floor` is measured in units of `floor`.
    ///
    /// # Errors
    /// If the golden is no summary.
    pub fn relative_distance(&self, values: &[f64], floor: f64) -> Result<f64> {
        let golden = self.numbers()?;
        ensure!(golden.len() == 1 + N_PROJECTIONS, "`{}` is no summary", self.place);
        let found = summary(values);
        let worst = golden.iter().zip(found).map(|(g, f)| (g - f).abs()).fold(0.0, |m: f64, d| if m > d { m } else { d });
        Ok(worst / golden[0].max(floor))
    }

    /// Where in the file this is.
    pub fn place(&self) -> &str {
        &self.place
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The first values of splitmix64 from state 0 are published with its reference implementation.
    #[test]
    fn bits_are_those_of_splitmix64() {
        let from_zero: Vec<u64> = (1u64..=3).map(|i| splitmix64(i.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
        assert_eq!(from_zero, [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]);
    }

    #[test]
    fn projections_are_as_large_as_the_norm() {
        let mut ratio = 0.0;
        for stream in 0..100 {
            let found = summary(&fill(&format!("error {stream}"), 500, 1.0, 0.0));
            ratio += found[1..].iter().map(|p| p * p).sum::<f64>() / (300.0 * found[0] * found[0]);
        }
        assert!((ratio - 1.0).abs() < 0.3, "{ratio}");
    }

    #[test]
    fn nan_never_agrees() {
        let golden = Golden { place: "made up".to_owned(), value: serde_json::json!([1.0, 1.0, 1.0, 1.0]) };
        assert!(golden.check_values(&[1.0, f64::NAN, 1.0, 1.0], 1.0).is_err());
        assert!(golden.relative_distance(&[f64::NAN, 0.0], 0.0).unwrap().is_nan());
    }
}
