//! A line and a curve on a function of one's own, with `landscape-core` alone and no candle in the tree.

use landscape_core::profile::{Measured, Profile, Values, measure_path};
use landscape_core::toy::{Surface, Toy};
use landscape_core::{ControlPoints, Curve, Objective, Pass, PolyChain, Result, Row, Segment};

/// Two wells at (±1, 0) with a hill of height 1 between them, and a ring |w| = 1 of minima around it: f(w) = (|w|² − 1)².
struct Ring;

impl Surface for Ring {
    fn n_dims(&self) -> usize {
        2
    }

    fn value(&self, w: &[f64]) -> f64 {
        (w[0] * w[0] + w[1] * w[1] - 1.0).powi(2)
    }

    fn gradient(&self, w: &[f64], gradient: &mut [f64]) {
        let slope = 4.0 * (w[0] * w[0] + w[1] * w[1] - 1.0);
        gradient.iter_mut().zip(w).for_each(|(g, w)| *g = slope * w);
    }
}

fn profile_through(corners: &[[f64; 2]], curve: &dyn Curve) -> Result<Profile> {
    let mut ring = Toy::<_, f64>::new(Ring);
    let rows = corners.iter().map(|corner| Ok(Row::Free(ring.point(corner)?))).collect::<Result<_>>()?;
    let ts: Vec<f64> = (0..41).map(|i| f64::from(i) / 40.0).collect();
    let samples = measure_path(&mut ring, &ControlPoints::new(rows)?, curve, &ts, |ring, _| {
        let tally = ring.measure(&(), Pass::EVALUATE)?;
        Ok::<_, landscape_core::Error>(Measured { train: Values::new(&tally, 0.0, 0.0), test: None })
    })?;
    Profile::of(samples, curve, 0.0, landscape_core::barrier::Thresholds::PROJECT)
}

/// Straight over the hill, and around it by three corners.
fn run() -> Result<(Profile, Profile)> {
    let line = profile_through(&[[-1.0, 0.0], [1.0, 0.0]], &Segment)?;
    let half = std::f64::consts::FRAC_1_SQRT_2;
    let around = [[-1.0, 0.0], [-half, half], [0.0, 1.0], [half, half], [1.0, 0.0]];
    Ok((line, profile_through(&around, &PolyChain::new(around.len())?)?))
}

fn main() -> Result<()> {
    let (line, around) = run()?;
    println!("barrier {:.4} straight on, {:.4} around", line.barriers.train_loss.above_line, around.barriers.train_loss.above_line);
    Ok(())
}

#[test]
fn the_hill_is_as_high_as_it_is_and_the_way_around_is_low() {
    let (line, around) = run().unwrap();
    assert!((line.barriers.train_loss.above_line - 1.0).abs() < 1e-12);
    assert!((line.length - 2.0).abs() < 1e-12);
    // The middle of an eighth's chord lies at cos(π/8) from the centre.
    let chord = (std::f64::consts::FRAC_PI_8.cos().powi(2) - 1.0).powi(2);
    assert!((around.summary.train_loss.max - chord).abs() < 1e-12, "{}", around.summary.train_loss.max);
    assert!((around.length - 8.0 * std::f64::consts::FRAC_PI_8.sin()).abs() < 1e-12);
}

#[test]
fn there_is_no_candle_in_the_tree() {
    let lock = include_str!("../Cargo.lock");
    assert!(lock.contains("name = \"landscape-core\""));
    assert!(!lock.contains("name = \"candle-core\"") && !lock.contains("name = \"tokenizers\""));
}
