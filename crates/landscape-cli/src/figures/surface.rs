//! The plane as an interactive surface, with the curve lifted onto it (plotly).

use super::color::{css, viridis};
use super::plane_record::PlaneRecord;
use anyhow::Context;
use plotly::common::{ColorScale, ColorScaleElement, Line, Marker, Mode, Title};
use plotly::layout::{AspectRatio, Axis, Camera, Eye, LayoutScene, Margin};
use plotly::{Layout, Plot, Scatter3D, Surface};
use serde_json::{Value, json};

/// The surface is cut off at this many times the range that it has between the three points, so that the valley can be seen.
const CUT: f64 = 1.25;

/// The training loss over the plane as a surface, with the curve and the three points on it: `data` and `layout` as plotly takes them.
pub fn plot(record: &PlaneRecord) -> anyhow::Result<Value> {
    let mut plot: Value = serde_json::from_str(&typed(record).to_json()).context("a plot is not JSON")?;
    // The crate's three-dimensional scatter has no font of its own.
    if let Some(points) = plot["data"].as_array_mut().and_then(|traces| traces.last_mut()) {
        points["textfont"] = json!({"color": "#d55e00", "size": 15});
    }
    Ok(plot)
}

fn typed(record: &PlaneRecord) -> Plot {
    let (xs, ys) = (record.xs(), record.ys());
    let top = cut(record);
    let heights: Vec<Vec<Option<f64>>> = record.train.loss.iter().map(|row| row.iter().map(|v| v.map(|v| v.min(top))).collect()).collect();
    let lift = 0.012 * (top - heights.iter().flatten().flatten().copied().fold(f64::INFINITY, f64::min));
    let scale: Vec<ColorScaleElement> = (0..=8).map(|i| ColorScaleElement(f64::from(i) / 8.0, css(viridis(f64::from(i) / 8.0)))).collect();
    let mut plot = Plot::new();
    plot.add_trace(Surface::new(heights.clone()).x(xs.clone()).y(ys.clone()).color_scale(ColorScale::Vector(scale)).name("training loss"));
    if let Some(curve) = &record.curve {
        let heights = curve.samples.iter().map(|s| height(&xs, &ys, &heights, s.x, s.y).map(|h| h + lift)).collect();
        let trace = Scatter3D::new(curve.samples.iter().map(|s| s.x).collect(), curve.samples.iter().map(|s| s.y).collect(), heights)
            .mode(Mode::Lines)
            .name("curve")
            .line(Line::new().color("#ffffff").width(7.0));
        plot.add_trace(trace);
    }
    let at = |x: f64, y: f64| height(&xs, &ys, &heights, x, y).map(|h| h + lift);
    let marks = Scatter3D::new(
        record.points.iter().map(|p| p.x).collect(),
        record.points.iter().map(|p| p.y).collect(),
        record.points.iter().map(|p| at(p.x, p.y)).collect(),
    )
    .mode(Mode::MarkersText)
    .text_array(record.points.iter().map(|p| p.name.clone()).collect())
    .name("points")
    .marker(Marker::new().color("#d55e00").size(5));
    plot.add_trace(marks);
    let titled = |title: &str| Axis::new().title(Title::with_text(title));
    let scene = LayoutScene::new()
        .x_axis(titled("first axis"))
        .y_axis(titled("second axis"))
        .z_axis(titled("training loss"))
        .camera(Camera::new().eye(Eye::from((0.4, 1.85, 0.95))))
        .aspect_ratio(AspectRatio::new().x(1.2).y(1.0).z(0.7));
    plot.set_layout(
        Layout::new()
            .scene(scene)
            .show_legend(false)
            .paper_background_color("rgba(0,0,0,0)")
            .margin(Margin::new().left(0).right(0).top(10).bottom(0)),
    );
    plot
}

/// Where the surface is cut off.
fn cut(record: &PlaneRecord) -> f64 {
    let (mut least, mut within, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY);
    let inside = |share: f64| (0.0..=1.0).contains(&share);
    for (row, &beta) in record.train.loss.iter().zip(&record.betas) {
        for (value, &alpha) in row.iter().zip(&record.alphas) {
            let Some(value) = *value else { continue };
            least = least.min(value);
            greatest = greatest.max(value);
            if inside(alpha) && inside(beta) {
                within = within.max(value);
            }
        }
    }
    if within > least { greatest.min(least + CUT * (within - least)) } else { greatest }
}

/// The surface between its cells, bilinear; none beside it or next to cells without a number.
fn height(xs: &[f64], ys: &[f64], rows: &[Vec<Option<f64>>], x: f64, y: f64) -> Option<f64> {
    let place = |axis: &[f64], v: f64| {
        let i = axis.partition_point(|&a| a <= v).clamp(1, axis.len() - 1) - 1;
        let part = (v - axis[i]) / (axis[i + 1] - axis[i]);
        (-1e-9..=1.0 + 1e-9).contains(&part).then_some((i, part))
    };
    let ((i, u), (j, v)) = (place(xs, x)?, place(ys, y)?);
    let [a, b, c, d] = [rows[j][i]?, rows[j][i + 1]?, rows[j + 1][i]?, rows[j + 1][i + 1]?];
    Some((1.0 - v) * ((1.0 - u) * a + u * b) + v * ((1.0 - u) * c + u * d))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::plane_record::tests::example;
    use super::*;

    #[test]
    fn heights_between_cells_are_bilinear() {
        let (xs, ys) = ([0.0, 1.0, 3.0], [0.0, 2.0]);
        let f = |x: f64, y: f64| 1.0 + 2.0 * x - y + 0.5 * x * y;
        let rows: Vec<Vec<Option<f64>>> = ys.iter().map(|&y| xs.iter().map(|&x| Some(f(x, y))).collect()).collect();
        for (x, y) in [(0.0, 0.0), (0.3, 1.7), (1.0, 2.0), (2.9, 0.1), (3.0, 2.0)] {
            assert!((height(&xs, &ys, &rows, x, y).unwrap() - f(x, y)).abs() < 1e-12);
        }
        assert_eq!(height(&xs, &ys, &rows, 3.2, 1.0), None);
    }

    #[test]
    fn the_plot_has_surface_curve_and_points() {
        let json = plot(&example(9, 7, 1)).unwrap();
        let types: Vec<&str> = json["data"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["surface", "scatter3d", "scatter3d"]);
        assert!(json["data"][0]["z"][0][0].is_null() && json["data"][0]["z"][0][1].is_number());
        assert_eq!(json["data"][1]["z"].as_array().unwrap().len(), 61);
    }
}
