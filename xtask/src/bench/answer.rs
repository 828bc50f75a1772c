//! Whether two sides did the same work.

use anyhow::bail;

/// Fails unless each of `got` is within `tolerance` of `expected`, relative to the larger.
pub fn check(name: &str, expected: &[f64], got: &[f64], tolerance: f64) -> anyhow::Result<()> {
    if expected.len() != got.len() || expected.iter().zip(got).any(|(a, b)| !near(*a, *b, tolerance)) {
        bail!("the answers differ by more than {tolerance}: {name} {expected:?}, got {got:?}");
    }
    Ok(())
}

/// NaN is near nothing.
fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_must_agree_in_number_and_size() {
        assert!(check("a", &[1.0, -2.0], &[1.0005, -2.0], 1e-3).is_ok());
        for (expected, got) in [(vec![1.0], vec![1.01]), (vec![1.0], vec![]), (vec![f64::NAN], vec![f64::NAN]), (vec![0.0], vec![1e-9])] {
            assert!(check("a", &expected, &got, 1e-3).is_err(), "{expected:?} {got:?}");
        }
    }
}
