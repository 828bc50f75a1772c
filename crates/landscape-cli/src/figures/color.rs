//! Colours that people with colour-blind eyes tell apart: two of Okabe and Ito's for lines, viridis for surfaces.

use super::scene::Rgb;

/// The straight line.
pub const LINE: Rgb = [213, 94, 0];
/// The curve.
pub const CURVE: Rgb = [0, 114, 178];
/// Cells without a number.
pub const MISSING: Rgb = [178, 178, 178];

/// Every eighth of viridis (matplotlib, CC0).
const VIRIDIS: [Rgb; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

/// The colour at `share` of the scale, from 0 (dark, low) to 1 (light, high).
pub fn viridis(share: f64) -> Rgb {
    let place = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let below = (place.floor() as usize).min(VIRIDIS.len() - 2);
    let part = place - below as f64;
    let mix = |channel: usize| f64::from(VIRIDIS[below][channel]) * (1.0 - part) + f64::from(VIRIDIS[below + 1][channel]) * part;
    [0, 1, 2].map(|channel| mix(channel).round() as u8)
}

/// As CSS has it.
pub fn css([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_grows_lighter_all_the_way() {
        let light = |c: Rgb| 0.2126 * f64::from(c[0]) + 0.7152 * f64::from(c[1]) + 0.0722 * f64::from(c[2]);
        let steps: Vec<f64> = (0..=100).map(|i| light(viridis(f64::from(i) / 100.0))).collect();
        assert!(steps.windows(2).all(|pair| pair[1] > pair[0] - 1.0));
        assert_eq!((css(viridis(-1.0)), css(viridis(2.0))), ("#440154".to_owned(), "#fde725".to_owned()));
    }
}
