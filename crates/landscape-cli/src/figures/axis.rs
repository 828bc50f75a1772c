//! Axes: round tick values, and the map from values to places on the sheet.

use super::scene::{Anchor, FAINT, GUIDE, INK, Label, Scene, Turn, text_width};

/// Size of tick labels.
pub const TICK_SIZE: f64 = 10.0;
/// Size of axis titles.
pub const TITLE_SIZE: f64 = 11.0;

/// Values from `low` to `high` along one side of a panel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    pub low: f64,
    pub high: f64,
}

impl Range {
    /// From zero (or the least value, if that is lower) to a little above the greatest.
    pub fn from_zero(values: impl IntoIterator<Item = f64>) -> Range {
        let (mut low, mut high) = (0.0f64, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|v| v.is_finite()) {
            low = low.min(value);
            high = high.max(value);
        }
        if high <= low {
            high = low + 1.0;
        }
        Range { low, high: high + 0.12 * (high - low) }
    }

    fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// About `n` round values within a range, 1, 2, 2.5 or 5 times a power of ten apart.
pub fn ticks(range: Range, n: usize) -> Vec<f64> {
    let rough = (range.high - range.low) / n.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|f| f * power >= rough * 0.8).unwrap_or(10.0);
    let step = factor * power;
    let first = (range.low / step - 1e-9).ceil() as i64;
    let last = (range.high / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// A tick's value with as many digits as tell it from its neighbours.
pub fn tick_text(value: f64, ticks: &[f64]) -> String {
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    let largest = ticks.iter().map(|t| t.abs()).fold(0.0, f64::max);
    if !step.is_finite() {
        return number_text(value);
    }
    if largest >= 1e5 || step < 1e-5 {
        return if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") };
    }
    let decimals = (0..6).find(|&d| {
        let scaled = step * 10f64.powi(d);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0)
    });
    let text = format!("{value:.*}", decimals.unwrap_or(5) as usize);
    if text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.') { text.trim_start_matches('-').to_owned() } else { text }
}

/// A number with three significant digits.
pub fn number_text(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { "not finite".to_owned() };
    }
    let magnitude = value.abs().log10().floor();
    if (-4.0..5.0).contains(&magnitude) { format!("{value:.*}", (2.0 - magnitude).max(0.0) as usize) } else { format!("{value:.2e}") }
}

/// A panel: a rectangle of the sheet with an axis on its left and one below.
#[derive(Debug, Clone, Copy)]
pub struct Panel {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
    pub x: Range,
    pub y: Range,
}

impl Panel {
    /// Where a pair of values stands on the sheet.
    pub fn place(&self, x: f64, y: f64) -> [f64; 2] {
        [self.left + self.x.share(x) * (self.right - self.left), self.bottom - self.y.share(y) * (self.bottom - self.top)]
    }

    /// Guide lines across the panel at the ticks.
    pub fn guides(&self, scene: &mut Scene, y_ticks: &[f64]) {
        for &value in y_ticks {
            scene.line(&[self.place(self.x.low, value), self.place(self.x.high, value)], GUIDE, 0.75);
        }
    }

    /// Both axes with ticks and titles; what is drawn before lies under them.
    pub fn axes(&self, scene: &mut Scene, x_ticks: &[f64], y_ticks: &[f64], x_title: &str, y_title: &str) {
        for &value in x_ticks {
            let [x, _] = self.place(value, self.y.low);
            scene.line(&[[x, self.bottom], [x, self.bottom + 4.0]], FAINT, 0.75);
            scene.write([x, self.bottom + 15.0], &tick_text(value, x_ticks), TICK_SIZE, Anchor::Middle, INK);
        }
        let mut widest: f64 = 0.0;
        for &value in y_ticks {
            let [_, y] = self.place(self.x.low, value);
            let text = tick_text(value, y_ticks);
            widest = widest.max(text_width(&text, TICK_SIZE));
            scene.line(&[[self.left - 4.0, y], [self.left, y]], FAINT, 0.75);
            scene.write([self.left - 7.0, y + 0.36 * TICK_SIZE], &text, TICK_SIZE, Anchor::End, INK);
        }
        scene.frame([self.left, self.top], [self.right, self.bottom], FAINT, 0.75);
        scene.write([(self.left + self.right) / 2.0, self.bottom + 31.0], x_title, TITLE_SIZE, Anchor::Middle, INK);
        scene.text(Label {
            at: [self.left - 14.0 - widest, (self.top + self.bottom) / 2.0],
            text: y_title.to_owned(),
            size: TITLE_SIZE,
            color: INK,
            anchor: Anchor::Middle,
            turn: Turn::Upwards,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let found = ticks(Range { low: 0.0, high: 2.37 }, 5);
        assert_eq!(found, [0.0, 0.5, 1.0, 1.5, 2.0]);
        for (low, high) in [(0.0, 1e-7), (-3.0, 17.0), (0.031, 0.044), (1e6, 9e6)] {
            let found = ticks(Range { low, high }, 5);
            assert!((3..=7).contains(&found.len()), "{found:?}");
            assert!(found.iter().all(|&t| t >= low - 1e-9 * high.abs() && t <= high * (1.0 + 1e-9)), "{found:?}");
            let texts: Vec<String> = found.iter().map(|&t| tick_text(t, &found)).collect();
            assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "{texts:?}");
        }
        assert!(ticks(Range { low: f64::NAN, high: 1.0 }, 5).is_empty());
    }

    #[test]
    fn tick_texts_have_no_more_digits_than_needed() {
        let of = |ticks: &[f64]| ticks.iter().map(|&t| tick_text(t, ticks)).collect::<Vec<_>>();
        assert_eq!(of(&[0.0, 0.25, 0.5]), ["0.00", "0.25", "0.50"]);
        assert_eq!(of(&[-10.0, 0.0, 10.0]), ["-10", "0", "10"]);
        assert_eq!(number_text(0.012_345), "0.0123");
        assert_eq!(number_text(-2.0), "-2.00");
        assert_eq!(number_text(1234.5), "1234");
    }

    #[test]
    fn a_range_covers_its_values_and_zero_and_survives_nan() {
        let range = Range::from_zero([0.5, f64::NAN, 2.0, f64::INFINITY]);
        assert!(range.low == 0.0 && range.high > 2.0 && range.high < 2.5);
        assert_eq!(Range::from_zero([]).low, 0.0);
    }

    #[test]
    fn a_panel_puts_its_corners_where_they_belong() {
        let range = Range { low: 0.0, high: 1.0 };
        let panel = Panel { left: 10.0, top: 20.0, right: 110.0, bottom: 70.0, x: range, y: range };
        assert_eq!(panel.place(0.0, 0.0), [10.0, 70.0]);
        assert_eq!(panel.place(1.0, 1.0), [110.0, 20.0]);
    }
}
