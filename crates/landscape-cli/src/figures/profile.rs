//! The profile figure: loss and error along the straight line and along the curve, on the training and on the test split.

use super::axis::{Panel, Range, TITLE_SIZE, number_text, ticks};
use super::color::{CURVE, LINE};
use super::scene::{Anchor, FAINT, INK, PAPER, Rgb, Scene, text_width};
use super::write_figure;
use crate::partial;
use crate::run_folder::RunFolder;
use landscape_core::profile::{Profile, Quantity};

const PANEL_WIDTH: f64 = 330.0;
const PANEL_HEIGHT: f64 = 205.0;
/// Room for tick labels and the axis title left of a panel.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 18.0;
/// Room for the panel's title and what its lines reach, above it.
const ABOVE: f64 = 62.0;
const BELOW: f64 = 46.0;
/// Room for the legend.
const HEAD: f64 = 30.0;

/// What was measured of one pair of ends, by path.
#[derive(Debug, Clone, Default)]
pub struct Profiles {
    pub line: Option<Profile>,
    pub curve: Option<Profile>,
}

impl Profiles {
    /// What a run's folder holds. A profile that is not there is none; one that cannot be read is an error.
    pub fn of_run(folder: &RunFolder) -> anyhow::Result<Self> {
        let read = |name: &str| -> anyhow::Result<Option<Profile>> {
            if !folder.file(name).is_file() {
                return Ok(None);
            }
            let document = folder.read_json(name)?;
            let not_one = |e| anyhow::anyhow!("`{}` is not a profile: {e}", folder.file(name).display());
            Ok(Some(serde_json::from_value(document).map_err(not_one)?))
        };
        Ok(Profiles { line: read("profile_line.json")?, curve: read("profile.json")? })
    }

    /// The profiles there are, the line first, with name and colour.
    fn each(&self) -> Vec<(&'static str, Rgb, &Profile)> {
        let line = self.line.as_ref().map(|p| ("straight line", LINE, p));
        let curve = self.curve.as_ref().map(|p| (curve_name(p), CURVE, p));
        line.into_iter().chain(curve).collect()
    }

    fn has(&self, quantity: Quantity) -> bool {
        self.each().iter().any(|(_, _, p)| p.summary.get(quantity).is_some())
    }
}

/// How figures name a curve.
pub fn curve_name(profile: &Profile) -> &'static str {
    match profile.curve.as_str() {
        "bezier" => "Bézier curve",
        "polychain" | "poly_chain" => "polygonal chain",
        "segment" => "straight line",
        _ => "curve",
    }
}

/// Whether the figure is there.
pub fn is_drawn(folder: &RunFolder) -> bool {
    folder.file("profile.png").exists() && folder.file("profile.svg").exists()
}

/// Takes the figure away, since what it shows is about to change.
pub fn discard(folder: &RunFolder) -> anyhow::Result<()> {
    partial::discard(&folder.file("profile.png"))?;
    partial::discard(&folder.file("profile.svg"))
}

/// Draws the profiles of a run's folder into it.
pub fn draw_run(folder: &RunFolder) -> anyhow::Result<()> {
    let profiles = Profiles::of_run(folder)?;
    if profiles.each().is_empty() { Ok(()) } else { write_figure(&folder.file("profile"), &draw(&profiles)) }
}

/// The figure.
pub fn draw(profiles: &Profiles) -> Scene {
    use Quantity::{TestError, TestLoss, TrainError, TrainLoss};
    let columns: Vec<[Quantity; 2]> =
        [[TrainLoss, TrainError], [TestLoss, TestError]].into_iter().filter(|column| profiles.has(column[0])).collect();
    let n_rows = if profiles.has(TrainError) || profiles.has(TestError) { 2 } else { 1 };
    let (step_x, step_y) = (LEFT + PANEL_WIDTH + RIGHT, ABOVE + PANEL_HEIGHT + BELOW);
    let mut scene = Scene::new(step_x * columns.len() as f64, HEAD + step_y * n_rows as f64);
    legend(&mut scene, profiles);
    for (x, column) in columns.iter().enumerate() {
        for (y, &quantity) in column.iter().take(n_rows).enumerate() {
            let origin = [LEFT + step_x * x as f64, HEAD + ABOVE + step_y * y as f64];
            if profiles.has(quantity) {
                panel(&mut scene, profiles, quantity, origin);
            }
        }
    }
    scene
}

fn legend(scene: &mut Scene, profiles: &Profiles) {
    let mut x = LEFT;
    let y = 22.0;
    for (name, color, _) in profiles.each() {
        stroke(scene, &[[x, y - 4.0], [x + 30.0, y - 4.0]], color);
        scene.write([x + 37.0, y], name, TITLE_SIZE, Anchor::Start, INK);
        x += 37.0 + text_width(name, TITLE_SIZE) + 26.0;
    }
    scene.dashed(&[[x, y - 4.0], [x + 30.0, y - 4.0]], FAINT, 1.0, [2.0, 3.0]);
    scene.write([x + 37.0, y], "worse end", TITLE_SIZE, Anchor::Start, INK);
}

/// The line is dashed, the curve is not, so that they differ without colour too.
fn stroke(scene: &mut Scene, points: &[[f64; 2]], color: Rgb) {
    if color == LINE { scene.dashed(points, color, 2.2, [7.0, 4.0]) } else { scene.line(points, color, 2.2) }
}

/// What a quantity is called, its unit, and the factor from the record to the figure.
fn titles(quantity: Quantity, profile: &Profile) -> (&'static str, String, f64) {
    let is_regression = profile.summary.train_error.is_none();
    let unit = if is_regression { "squared error" } else { "nats" };
    let loss = if profile.weight_decay > 0.0 { format!("loss ({unit}, with L2 term)") } else { format!("loss ({unit})") };
    match quantity {
        Quantity::TrainLoss => ("Training loss", loss, 1.0),
        Quantity::TestLoss => ("Test loss", loss, 1.0),
        Quantity::TrainNll => ("Training nll", format!("nll ({unit})"), 1.0),
        Quantity::TestNll => ("Test nll", format!("nll ({unit})"), 1.0),
        Quantity::TrainError => ("Training error", "error (%)".to_owned(), 100.0),
        Quantity::TestError => ("Test error", "error (%)".to_owned(), 100.0),
    }
}

fn panel(scene: &mut Scene, profiles: &Profiles, quantity: Quantity, [left, top]: [f64; 2]) {
    let each = profiles.each();
    let Some(&(_, _, first)) = each.first() else { return };
    let (title, axis_title, factor) = titles(quantity, first);
    let series: Vec<(&str, Rgb, &Profile, Vec<f64>)> = each
        .iter()
        .filter_map(|&(name, color, profile)| {
            let values = quantity.series(&profile.points)?.into_iter().map(|v| factor * v).collect();
            Some((name, color, profile, values))
        })
        .collect();
    let panel = Panel {
        left,
        top,
        right: left + PANEL_WIDTH,
        bottom: top + PANEL_HEIGHT,
        x: Range { low: 0.0, high: 1.0 },
        y: Range::from_zero(series.iter().flat_map(|(_, _, _, values)| values.iter().copied())),
    };
    let (x_ticks, y_ticks) = (ticks(panel.x, 5), ticks(panel.y, 5));
    panel.guides(scene, &y_ticks);
    panel.axes(scene, &x_ticks, &y_ticks, "t along the path", &axis_title);
    scene.write([left, top - 38.0], title, 13.0, Anchor::Start, INK);
    let mut ends = Vec::new();
    for (idx, (name, color, profile, values)) in series.iter().enumerate() {
        let Some(summary) = profile.summary.get(quantity) else { continue };
        let (unit, rise_unit) = if factor == 1.0 { ("", "") } else { (" %", " points") };
        let points: Vec<[f64; 2]> = profile.points.iter().zip(values).map(|(p, &v)| panel.place(p.t, v)).collect();
        let worse_end = factor * summary.start.max(summary.end);
        if idx == 0 {
            let level = [panel.place(0.0, worse_end), panel.place(1.0, worse_end)];
            scene.dashed(&level, FAINT, 1.0, [2.0, 3.0]);
        }
        stroke(scene, &points, *color);
        ends.extend([points.first(), points.last()].into_iter().flatten().filter(|p| p[1].is_finite()));
        let max = factor * summary.max;
        let text = if summary.n_not_finite > 0 {
            format!("{name}: {} of {} points not finite", summary.n_not_finite, values.len())
        } else if max > worse_end {
            format!("{name}: highest {}{unit}, {}{rise_unit} above the worse end", number_text(max), number_text(max - worse_end))
        } else {
            format!("{name}: never above the worse end ({}{unit})", number_text(worse_end))
        };
        scene.write([left, top - 22.0 + 13.0 * idx as f64], &text, 9.5, Anchor::Start, *color);
        let rise = panel.place(0.0, worse_end)[1] - panel.place(0.0, max)[1];
        if rise > 30.0 {
            barrier(scene, &panel, summary.t_max, [worse_end, max], &format!("+{}", number_text(max - worse_end)), *color);
        }
    }
    for end in ends {
        scene.disc(end, 4.0, PAPER);
        scene.disc(end, 3.2, INK);
    }
}

/// An arrow from the level of the worse end to the top.
fn barrier(scene: &mut Scene, panel: &Panel, t: f64, [low, high]: [f64; 2], text: &str, color: Rgb) {
    let (foot, head) = (panel.place(t, low), panel.place(t, high));
    let tip = [head[0], head[1] + 2.0];
    scene.line(&[foot, tip], color, 1.0);
    scene.area(&[tip, [tip[0] - 3.5, tip[1] + 8.0], [tip[0] + 3.5, tip[1] + 8.0]], color);
    let (anchor, dx) = if t < 0.75 { (Anchor::Start, 8.0) } else { (Anchor::End, -8.0) };
    // Low down, where the bump is wide.
    scene.tag([foot[0] + dx, foot[1] - 0.3 * (foot[1] - head[1]) + 4.0], text, 10.5, anchor, color);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use super::*;
    use landscape_core::barrier::Thresholds;
    use landscape_core::curve::{Bezier, Segment};
    use landscape_core::profile::{Sample, Values};

    /// Profiles that look like those of two networks, the line with a barrier and the curve without.
    pub fn example(has_test: bool, has_error: bool) -> Profiles {
        let samples = |height: f64, dip: f64| -> Vec<Sample> {
            let sample = |i: usize| {
                let t = i as f64 / 60.0;
                let bump = (4.0 * t * (1.0 - t)).powi(2);
                let values = |offset: f64| {
                    let nll = 0.02 + offset + height * bump - dip * 4.0 * t * (1.0 - t) * offset.max(0.03);
                    Values { loss: nll + 0.05, nll, error: has_error.then_some(0.1 * nll) }
                };
                Sample { t, dl: if i == 0 { 0.0 } else { 0.3 }, train: values(0.03), test: has_test.then(|| values(0.12)) }
            };
            (0..61).map(sample).collect()
        };
        let line = Profile::of(samples(2.1, 0.0), &Segment, 1e-4, Thresholds::PROJECT).unwrap();
        let curve = Profile::of(samples(0.0, 0.4), &Bezier::new(3).unwrap(), 1e-4, Thresholds::PROJECT).unwrap();
        Profiles { line: Some(line), curve: Some(curve) }
    }

    #[test]
    fn the_figure_names_its_panels_lines_and_the_barrier() {
        let svg = draw(&example(true, true)).svg().unwrap();
        for text in ["Training loss", "Test loss", "Training error", "Test error", "straight line", "Bézier curve", "worse end", "+2.10"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.contains("Bézier curve: never above the worse end"));
    }

    #[test]
    fn panels_are_only_for_what_was_measured() {
        let svg = draw(&example(false, false)).svg().unwrap();
        assert!(svg.contains("Training loss") && svg.contains("squared error") && !svg.contains("Test") && !svg.contains("%"));
        let line = Profiles { curve: None, ..example(true, true) };
        assert!(!draw(&line).svg().unwrap().contains("curve"));
    }

    #[test]
    fn a_point_that_is_not_a_number_breaks_the_line_and_is_named() {
        let mut profiles = example(true, true);
        let curve = profiles.curve.take().unwrap();
        let mut samples = curve.points;
        samples[20].train.loss = f64::NAN;
        profiles.curve = Some(Profile::of(samples, &Bezier::new(3).unwrap(), 1e-4, Thresholds::PROJECT).unwrap());
        let scene = draw(&profiles);
        assert!(scene.svg().unwrap().contains("1 of 61 points not finite"));
        assert!(scene.png().unwrap().len() > 10_000);
    }
}
