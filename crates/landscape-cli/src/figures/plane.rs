//! The plane figure in the manner of the reference: bands at log-spaced levels, the three points and the curve in them.
//!
//! # Source
//! `plane_plot.py` of timgaripov/dnn-mode-connectivity at f0bf253: levels at equal steps of ln(value − least), values above a greatest
//! one of 5 nats or 40 % in one last band. Ours differs in the colours (viridis, which colour-blind eyes can read), in that the first
//! step is a share of the range rather than an absolute number (the same at the reference's 5 and 40), and in that cells without a
//! number are grey.

use super::axis::{Panel, Range, TICK_SIZE, number_text, ticks};
use super::color::{MISSING, viridis};
use super::contour;
use super::plane_record::{PlaneRecord, Rows};
use super::scene::{Anchor, FAINT, INK, PAPER, Rgb, Scene, text_width};

const PANEL_WIDTH: f64 = 380.0;
const LEFT: f64 = 62.0;
/// Room for the colour bar and its labels.
const BAR: f64 = 92.0;
const ABOVE: f64 = 40.0;
const BELOW: f64 = 46.0;
/// How many bands below the last.
const N_BANDS: usize = 10;
/// From the first step to the greatest value, in powers of e: ln 5 + 5 and ln 40 + 1 in the reference.
const LOSS_SPAN: f64 = 6.6;
const ERROR_SPAN: f64 = 4.7;
/// Where the last band begins.
const LOSS_CLIP: f64 = 5.0;
const ERROR_CLIP_PERCENT: f64 = 40.0;

/// The figure: training loss, and test error where there is one.
pub fn draw(record: &PlaneRecord) -> Scene {
    let panels = surfaces(record);
    let places = layout(record, panels.len());
    let [last_right, bottom] = places.last().map_or([0.0, 0.0], |panel| [panel.right, panel.bottom]);
    let mut scene = Scene::new(last_right + BAR, bottom + BELOW);
    for (panel, surface) in places.iter().zip(&panels) {
        draw_panel(&mut scene, panel, record, surface);
    }
    scene
}

/// Where each sample of the curve stands on the sheet of [`draw`], panel by panel.
pub fn curve_places(record: &PlaneRecord) -> Vec<Vec<[f64; 2]>> {
    let samples = record.curve.as_ref().map_or(&[][..], |curve| &curve.samples);
    let panels = layout(record, surfaces(record).len());
    panels.iter().map(|panel| samples.iter().map(|s| panel.place(s.x, s.y)).collect()).collect()
}

fn surfaces(record: &PlaneRecord) -> Vec<Surface> {
    let mut panels = vec![loss_panel("Training loss", record, &record.train.loss)];
    match &record.test {
        Some(test) => match &test.error {
            Some(error) => panels.push(error_panel("Test error", error)),
            None => panels.push(loss_panel("Test loss", record, &test.loss)),
        },
        None => panels.extend(record.train.error.as_ref().map(|error| error_panel("Training error", error))),
    }
    panels
}

fn layout(record: &PlaneRecord, n_panels: usize) -> Vec<Panel> {
    let (xs, ys) = (record.xs(), record.ys());
    let range = |axis: &[f64]| Range { low: axis[0], high: axis[axis.len() - 1] };
    let (x, y) = (range(&xs), range(&ys));
    // As long each way as in weight space, unless that would leave a ribbon.
    let height = PANEL_WIDTH * ((y.high - y.low) / (x.high - x.low)).clamp(0.45, 1.1);
    let left = |idx: usize| LEFT + (LEFT + PANEL_WIDTH + BAR) * idx as f64;
    let panel = |idx| Panel { left: left(idx), top: ABOVE, right: left(idx) + PANEL_WIDTH, bottom: ABOVE + height, x, y };
    (0..n_panels).map(panel).collect()
}

/// What one panel shows.
struct Surface {
    title: String,
    values: Rows,
    clip: f64,
    span: f64,
}

fn loss_panel(title: &str, record: &PlaneRecord, rows: &Rows) -> Surface {
    let unit = if record.is_regression() { "squared error" } else { "nats" };
    let penalty = if record.settings["weight_decay"].as_f64().unwrap_or(0.0) > 0.0 { ", with L2 term" } else { "" };
    Surface { title: format!("{title} ({unit}{penalty})"), values: rows.clone(), clip: LOSS_CLIP, span: LOSS_SPAN }
}

fn error_panel(title: &str, rows: &Rows) -> Surface {
    let values = rows.iter().map(|row| row.iter().map(|v| v.map(|v| 100.0 * v)).collect()).collect();
    Surface { title: format!("{title} (%)"), values, clip: ERROR_CLIP_PERCENT, span: ERROR_SPAN }
}

/// Band borders: the least value, log-spaced steps above it, and the greatest value shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    pub borders: Vec<f64>,
    /// Whether there are values above the last border.
    pub is_clipped: bool,
}

/// Borders for these values; none if no value is finite or all are equal.
pub fn levels(values: impl IntoIterator<Item = f64>, clip: f64, span: f64) -> Option<Levels> {
    let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.into_iter().filter(|v| v.is_finite()) {
        least = least.min(value);
        greatest = greatest.max(value);
    }
    // Where the least is above the clip there would be nothing to see.
    let shown = if least < 0.8 * clip { greatest.min(clip) } else { greatest };
    let range = shown - least;
    if !(range.is_finite() && range > 0.0) {
        return None;
    }
    let border = |k: usize| least + if k == 0 { 0.0 } else { range * (-span * (1.0 - k as f64 / N_BANDS as f64)).exp() };
    Some(Levels { borders: (0..=N_BANDS).map(border).collect(), is_clipped: greatest > shown })
}

impl Levels {
    fn color(&self, band: usize) -> Rgb {
        let n_bands = self.borders.len() - 1 + usize::from(self.is_clipped);
        viridis(band as f64 / (n_bands - 1) as f64)
    }
}

fn draw_panel(scene: &mut Scene, panel: &Panel, record: &PlaneRecord, surface: &Surface) {
    let (xs, ys) = (record.xs(), record.ys());
    scene.write([panel.left, panel.top - 14.0], &surface.title, 13.0, Anchor::Start, INK);
    match levels(surface.values.iter().flatten().filter_map(|v| *v), surface.clip, surface.span) {
        Some(levels) => {
            bands(scene, panel, &xs, &ys, &filled(&surface.values), &levels);
            missing(scene, panel, &xs, &ys, &surface.values);
            color_bar(scene, panel, &levels);
        }
        None => missing(scene, panel, &xs, &ys, &surface.values),
    }
    if let Some(curve) = &record.curve {
        let points: Vec<[f64; 2]> = curve.samples.iter().map(|s| panel.place(s.x, s.y)).collect();
        scene.line(&points, INK, 4.0);
        scene.line(&points, PAPER, 2.2);
    }
    marks(scene, panel, record);
    panel.axes(scene, &ticks(panel.x, 6), &ticks(panel.y, 5), "distance along the first axis", "distance along the second axis");
}

fn bands(scene: &mut Scene, panel: &Panel, xs: &[f64], ys: &[f64], values: &[Vec<f64>], levels: &Levels) {
    scene.rectangle([panel.left, panel.top], [panel.right, panel.bottom], levels.color(0));
    let top = if levels.is_clipped { levels.borders.len() } else { levels.borders.len() - 1 };
    let rings = contour::rings(xs, ys, values, &levels.borders[1..top]);
    let place = |points: &[[f64; 2]]| points.iter().map(|p| panel.place(p[0], p[1])).collect::<Vec<_>>();
    for ring in &rings {
        scene.area(&place(&ring.points), levels.color(ring.band_within()));
    }
    for ring in &rings {
        let mix = levels.color(ring.level_idx).map(|c| (f64::from(c) * 0.72) as u8);
        scene.line(&place(&ring.outline()), mix, 0.7);
    }
}

/// Numbers for the contours where there are none: the mean of what is next to them; the cells themselves are painted over.
fn filled(rows: &Rows) -> Vec<Vec<f64>> {
    let known: Vec<f64> = rows.iter().flatten().filter_map(|v| *v).collect();
    let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
    let at = |y: usize, x: usize| rows.get(y).and_then(|row| row.get(x)).copied().flatten();
    let fill = |y: usize, x: usize| {
        let around = (y.saturating_sub(1)..=y + 1).flat_map(|y| (x.saturating_sub(1)..=x + 1).map(move |x| (y, x)));
        let known: Vec<f64> = around.filter_map(|(y, x)| at(y, x)).collect();
        if known.is_empty() { mean } else { known.iter().sum::<f64>() / known.len() as f64 }
    };
    (0..rows.len()).map(|y| (0..rows[y].len()).map(|x| rows[y][x].unwrap_or_else(|| fill(y, x))).collect()).collect()
}

/// Cells without a number, in grey.
fn missing(scene: &mut Scene, panel: &Panel, xs: &[f64], ys: &[f64], rows: &Rows) {
    let side = |axis: &[f64], i: usize| {
        let middle = |a: usize, b: usize| 0.5 * (axis[a] + axis[b]);
        (middle(i.saturating_sub(1), i), middle(i, (i + 1).min(axis.len() - 1)))
    };
    let mut any = false;
    for (y, row) in rows.iter().enumerate() {
        for x in (0..row.len()).filter(|&x| row[x].is_none()) {
            let ((x0, x1), (y0, y1)) = (side(xs, x), side(ys, y));
            scene.rectangle(panel.place(x0, y1), panel.place(x1, y0), MISSING);
            any = true;
        }
    }
    if any {
        let n = rows.iter().flatten().filter(|v| v.is_none()).count();
        let text = format!("grey: {n} of {} cells not finite", rows.iter().map(Vec::len).sum::<usize>());
        scene.write([panel.right, panel.top - 5.0], &text, 9.0, Anchor::End, FAINT);
    }
}

fn color_bar(scene: &mut Scene, panel: &Panel, levels: &Levels) {
    let n_bands = levels.borders.len() - 1 + usize::from(levels.is_clipped);
    let (left, right) = (panel.right + 16.0, panel.right + 32.0);
    let y = |k: usize| panel.bottom - (panel.bottom - panel.top) * k as f64 / n_bands as f64;
    for band in 0..n_bands {
        scene.rectangle([left, y(band + 1)], [right, y(band)], levels.color(band));
    }
    scene.frame([left, panel.top], [right, panel.bottom], FAINT, 0.75);
    for (k, &border) in levels.borders.iter().enumerate() {
        scene.line(&[[right, y(k)], [right + 3.0, y(k)]], FAINT, 0.75);
        scene.write([right + 6.0, y(k) + 0.36 * TICK_SIZE], &number_text(border), TICK_SIZE, Anchor::Start, INK);
    }
    if levels.is_clipped {
        scene.write([right + 6.0, y(n_bands) + 0.36 * TICK_SIZE], "above", TICK_SIZE, Anchor::Start, INK);
    }
}

/// The three points with their names, above them or, near the top, below.
fn marks(scene: &mut Scene, panel: &Panel, record: &PlaneRecord) {
    let last = record.points.len() - 1;
    for (idx, corner) in record.points.iter().enumerate() {
        let [x, y] = panel.place(corner.x, corner.y);
        scene.disc([x, y], 6.0, INK);
        scene.disc([x, y], 4.6, PAPER);
        // The curve comes in between: names go to the outer side.
        let below = y - panel.top < 30.0 || idx == 0 || idx == last;
        let name_y = if below { y + 20.0 } else { y - 12.0 };
        let half = 0.5 * text_width(&corner.name, 10.5) + 5.0;
        let name_x = x.clamp(panel.left + half, (panel.right - half).max(panel.left + half));
        scene.tag([name_x, name_y], &corner.name, 10.5, Anchor::Middle, INK);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::plane_record::tests::example;
    use super::*;

    #[test]
    fn levels_are_those_of_the_reference_at_its_own_range() {
        // Least 0, clipped at 5: ln steps from −5 + step to ln 5.
        let found = levels([0.0, 1.0, 77.0], LOSS_CLIP, 5f64.ln() + 5.0).unwrap();
        assert!(found.is_clipped && found.borders[0] == 0.0 && (found.borders[N_BANDS] - 5.0).abs() < 1e-12);
        let step = (5f64.ln() + 5.0) / N_BANDS as f64;
        assert!((found.borders[1].ln() - (-5.0 + step)).abs() < 1e-12);
        // All above the clip: the whole range is shown.
        let high = levels([6.0, 9.0], LOSS_CLIP, LOSS_SPAN).unwrap();
        assert!(!high.is_clipped && high.borders[N_BANDS] == 9.0);
        assert_eq!(levels([2.0, 2.0, f64::NAN], LOSS_CLIP, LOSS_SPAN), None);
    }

    #[test]
    fn the_figure_has_both_panels_the_points_and_the_colour_bar() {
        let svg = draw(&example(21, 17, 0)).svg().unwrap();
        for text in ["Training loss (nats, with L2 term)", "Test error (%)", "start", "bend", "end", "above"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.matches("<polygon").count() > 20 && !svg.contains("not finite"));
    }

    #[test]
    fn cells_without_a_number_are_grey_and_counted() {
        let scene = draw(&example(21, 17, 3));
        let svg = scene.svg().unwrap();
        assert!(svg.contains("grey: 3 of 357 cells not finite"));
        assert_eq!(svg.matches("#B2B2B2").count(), 6);
        let mut all = example(4, 4, 16);
        all.curve = None;
        assert!(draw(&all).png().is_ok());
    }
}
