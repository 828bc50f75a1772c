//! The plane as an interactive surface, with the curve lifted onto it (plotly).

use super::color::{css, viridis};
use super::plane_record::{PlaneRecord, Rows};
use plotly::common::{ColorScale, ColorScaleElement, Line, Marker, Mode, Title};
use plotly::layout::{AspectRatio, Axis, LayoutScene, Margin};
use plotly::{Layout, Plot, Scatter3D, Surface};

/// Values above this many times the upper quartile of the surface are cut off, so that the valley can be seen.
const CUT: f64 = 3.0;

/// The training loss over the plane as a surface, with the curve and the three points on it.
pub fn plot(record: &PlaneRecord) -> Plot {
    let (xs, ys) = (record.xs(), record.ys());
    let top = cut(&record.train.loss);
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
        .aspect_ratio(AspectRatio::new().x(1.2).y(1.0).z(0.7));
    plot.set_layout(Layout::new().scene(scene).show_legend(false).margin(Margin::new().left(0).right(0).top(10).bottom(0)));
    plot
}

/// Where the surface is cut off.
fn cut(rows: &Rows) -> f64 {
    let mut values: Vec<f64> = rows.iter().flatten().filter_map(|v| *v).collect();
    values.sort_by(f64::total_cmp);
    let (Some(&least), Some(&greatest)) = (values.first(), values.last()) else { return 1.0 };
    let quartile = values[(values.len() - 1) * 3 / 4];
    greatest.min(least + CUT * (quartile - least).max(1e-12))
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
        let json: serde_json::Value = serde_json::from_str(&plot(&example(9, 7, 1)).to_json()).unwrap();
        let types: Vec<&str> = json["data"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["surface", "scatter3d", "scatter3d"]);
        assert!(json["data"][0]["z"][0][0].is_null() && json["data"][0]["z"][0][1].is_number());
        assert_eq!(json["data"][1]["z"].as_array().unwrap().len(), 61);
    }
}
