//! What a checkpoint tells about itself, as one canonical JSON text.
//!
//! Equal metadata give equal bytes: one line, keys sorted at every level, numbers in their shortest form. There is no path, time,
//! host or thread count in it, so that the same run leaves the same file everywhere.

use landscape_graph::Graph;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version that is written, and the newest that is read.
pub const FORMAT_VERSION: u32 = 1;

/// What a checkpoint tells about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Raised whenever an older program could misread the rest.
    pub format_version: u32,
    /// The network that the tensors are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// What it was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataIdentity>,
    /// How its inputs were normalised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// The seed of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What was measured at its end, by name; a number that is not finite is written as `null` and read back as NaN.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", serialize_with = "write_numbers", deserialize_with = "read_numbers")]
    pub metrics: BTreeMap<String, f64>,
    /// Where on which curve it lies, if it was taken from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<PointOrigin>,
}

/// A data set, by name and content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataIdentity {
    /// What it is called.
    pub name: String,
    /// The SHA-256 of its decoded content, in hexadecimal.
    pub sha256: String,
}

/// Inputs become (x − mean) / std, per channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// What is subtracted.
    pub mean: Vec<f64>,
    /// What it is divided by then.
    pub std: Vec<f64>,
}

/// A point of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointOrigin {
    /// The curve, as [`crate::Curve::name`] has it.
    pub curve: String,
    /// How many control points it has.
    pub n_points: usize,
    /// Where on it, in [0, 1].
    pub t: f64,
}

impl Default for Metadata {
    fn default() -> Self {
        Metadata {
            format_version: FORMAT_VERSION,
            graph: None,
            data: None,
            normalization: None,
            seed: None,
            metrics: BTreeMap::new(),
            point: None,
        }
    }
}

impl Metadata {
    /// Writes the canonical JSON.
    ///
    /// ```
    /// use landscape_core::metadata::Metadata;
    /// let metadata = Metadata { seed: Some(7), ..Metadata::default() };
    /// assert_eq!(metadata.to_json(), r#"{"format_version":1,"seed":7}"#);
    /// assert_eq!(Metadata::from_json(&metadata.to_json()), Ok(metadata));
    /// ```
    pub fn to_json(&self) -> String {
        let value = serde_json::to_value(self).expect("keys are strings, and numbers that are not finite become null");
        let mut text = String::new();
        write_canonical(&value, &mut text);
        text
    }

    /// Reads JSON and checks all of it; fields that are not known are skipped.
    ///
    /// # Errors
    /// A sentence that says which field is wrong; the caller adds the file.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        match value.get("format_version").and_then(Value::as_u64) {
            None => return Err("`format_version` is missing or no number".to_owned()),
            Some(got) if got == u64::from(FORMAT_VERSION) => {}
            Some(got) if got > u64::from(FORMAT_VERSION) => {
                return Err(format!("`format_version` is {got}, and this program reads up to {FORMAT_VERSION}: a newer one wrote it"));
            }
            Some(got) => return Err(format!("`format_version` must be {FORMAT_VERSION}, got {got}")),
        }
        let metadata: Metadata = serde_json::from_value(value).map_err(|e| e.to_string())?;
        metadata.check()?;
        Ok(metadata)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(Normalization { mean, std }) = &self.normalization
            && (mean.len() != std.len() || mean.iter().any(|m| !m.is_finite()) || std.iter().any(|s| !s.is_finite() || *s <= 0.0))
        {
            return Err(format!("`normalization` must have as many positive deviations as means, got {mean:?} and {std:?}"));
        }
        if let Some(point) = &self.point
            && !(0.0..=1.0).contains(&point.t)
        {
            return Err(format!("`point.t` must be between 0 and 1, got {}", point.t));
        }
        Ok(())
    }
}

fn write_numbers<S: Serializer>(numbers: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(numbers.iter().map(|(name, value)| (name, value.is_finite().then_some(*value))))
}

fn read_numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let numbers = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// Sorts keys itself: serde_json keeps their order of insertion as soon as any crate in the build asks it to.
pub(crate) fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            out.push('{');
            for (idx, (name, value)) in sorted.into_iter().enumerate() {
                if idx > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (idx, item) in items.iter().enumerate() {
                if idx > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use landscape_graph::{Bias, GraphBuilder};

    fn full() -> Metadata {
        let mut b = GraphBuilder::new([4]);
        let x = b.linear("fc", b.input(), 3, Bias::On).unwrap();
        Metadata {
            graph: Some(b.finish(x).unwrap()),
            data: Some(DataIdentity { name: "digits".to_owned(), sha256: "ab".repeat(32) }),
            normalization: Some(Normalization { mean: vec![0.4914], std: vec![0.247] }),
            seed: Some(u64::MAX),
            metrics: BTreeMap::from([("train_nll".to_owned(), 0.1), ("a_loss".to_owned(), 1e-300)]),
            point: Some(PointOrigin { curve: "bezier".to_owned(), n_points: 3, t: 0.3 }),
            ..Metadata::default()
        }
    }

    /// Every object's keys, in the order of the text.
    fn keys(value: &Value, into: &mut Vec<Vec<String>>) {
        match value {
            Value::Object(fields) => {
                into.push(fields.keys().cloned().collect());
                fields.values().for_each(|v| keys(v, into));
            }
            Value::Array(items) => items.iter().for_each(|v| keys(v, into)),
            _ => {}
        }
    }

    #[test]
    fn everything_comes_back_and_keys_are_sorted() {
        let metadata = full();
        let text = metadata.to_json();
        assert_eq!(Metadata::from_json(&text).unwrap(), metadata);
        assert!(!text.contains(['\n', ' ']), "{text}");
        let mut found = Vec::new();
        keys(&serde_json::from_str(&text).unwrap(), &mut found);
        assert!(found.len() > 6 && found.iter().all(|k| k.is_sorted()), "{found:?}");
        // The order in the text itself, whatever order the parser's map keeps.
        let position = |key: &str| text.find(&format!("\"{key}\":")).unwrap();
        let order = ["data", "format_version", "graph", "input_shape", "metrics", "normalization", "point", "seed"];
        assert!(order.map(position).is_sorted(), "{text}");
    }

    #[test]
    fn numbers_that_are_not_finite_come_back_as_nan() {
        let metadata = Metadata { metrics: BTreeMap::from([("nll".to_owned(), f64::INFINITY)]), ..Metadata::default() };
        assert!(metadata.to_json().contains(r#""nll":null"#));
        assert!(Metadata::from_json(&metadata.to_json()).unwrap().metrics["nll"].is_nan());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("{", "not JSON"),
            ("[]", "format_version"),
            (r#"{"format_version":2}"#, "a newer one wrote it"),
            (r#"{"format_version":0}"#, "must be 1"),
            (r#"{"format_version":1,"seed":-1}"#, "-1"),
            (r#"{"format_version":1,"normalization":{"mean":[0.5],"std":[0.0]}}"#, "positive deviations"),
            (r#"{"format_version":1,"normalization":{"mean":[0.5],"std":[]}}"#, "positive deviations"),
            (r#"{"format_version":1,"point":{"curve":"bezier","n_points":3,"t":2.0}}"#, "point.t"),
            (r#"{"format_version":1,"graph":{"format_version":1,"input_shape":[4],"nodes":[],"output":"x"}}"#, "no nodes"),
        ];
        for (text, part) in cases {
            let message = Metadata::from_json(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        assert!(Metadata::from_json(r#"{"format_version":1,"later":{}}"#).is_ok());
    }
}
