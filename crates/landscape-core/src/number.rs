//! Numbers in JSON, which has neither NaN nor infinity: both are written as `null` and read back as NaN.

use serde::{Deserialize, Deserializer, Serializer};

/// Writes a number, or `null` if it is not finite.
pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_none() }
}

/// Reads a number, or NaN for `null`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
