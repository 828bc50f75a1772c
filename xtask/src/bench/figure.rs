//! The two figures, as SVG text: ratios with their marks, and times that grow.

use super::statistics::Quartiles;
use std::fmt::Write;

/// A row of the figure of ratios.
pub struct Bar {
    pub title: String,
    pub quartiles: Quartiles,
    pub reach: f64,
    pub go_for: f64,
}

/// A line of the figure of growth.
pub struct Series {
    pub title: String,
    pub axis: String,
    /// (x, seconds), by x.
    pub points: Vec<(f64, f64)>,
    pub exponent: Option<f64>,
}

const FONT: &str = "font-family=\"sans-serif\" font-size=\"12\"";
const BAR_HEIGHT: f64 = 26.0;
const LABEL_WIDTH: f64 = 330.0;
const PLOT_WIDTH: f64 = 430.0;
const TOP: f64 = 34.0;

/// A logarithmic axis from `low` to `high` on [0, width].
struct Axis {
    low: f64,
    high: f64,
    width: f64,
}

impl Axis {
    /// Decades around all values, or halves and doubles of one where they are closer.
    fn around(values: impl Iterator<Item = f64> + Clone, width: f64) -> Self {
        let low = values.clone().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        let high = values.fold(0.0, f64::max);
        if !(low.is_finite() && high > 0.0) {
            return Axis { low: 0.1, high: 1.0, width };
        }
        Axis { low: low / 1.25, high: high * 1.25, width }
    }

    fn at(&self, value: f64) -> f64 {
        (value.max(self.low) / self.low).ln() / (self.high / self.low).ln() * self.width
    }

    /// Numbers to write at the axis: 1, 2 and 5 of each decade, or powers of ten alone where there are many decades.
    fn ticks(&self) -> Vec<f64> {
        let leading: &[f64] = if self.high / self.low > 300.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|d| leading.iter().map(move |l| l * 10f64.powi(d)));
        all.filter(|t| (self.low..=self.high).contains(t)).collect()
    }
}

/// Ratios of times, ours over theirs, with the marks as lines: solid to reach, dotted to go for.
pub fn ratios(bars: &[Bar]) -> String {
    let height = TOP + BAR_HEIGHT * bars.len() as f64 + 30.0;
    let values = bars.iter().flat_map(|b| [b.quartiles.lower, b.quartiles.upper, b.quartiles.median, b.reach, b.go_for, 1.0]);
    let axis = Axis::around(values, PLOT_WIDTH);
    let mut svg = open(LABEL_WIDTH + PLOT_WIDTH + 70.0, height);
    let _ = writeln!(
        svg,
        "<text x=\"{LABEL_WIDTH}\" y=\"18\">time of ours over theirs (bar: median, line: quartiles; │ reach, ┆ go for)</text>"
    );
    let bottom = height - 30.0;
    for tick in axis.ticks() {
        let x = LABEL_WIDTH + axis.at(tick);
        let colour = if tick == 1.0 { "#555" } else { "#ddd" };
        line(&mut svg, (x, TOP - 6.0), (x, bottom), colour, "");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", bottom + 16.0, short(tick));
    }
    for (i, bar) in bars.iter().enumerate() {
        let y = TOP + BAR_HEIGHT * i as f64;
        let middle = y + BAR_HEIGHT / 2.0 - 3.0;
        let x = |value| LABEL_WIDTH + axis.at(value);
        let q = bar.quartiles;
        let colour = if q.median <= bar.go_for {
            "#2a7f3f"
        } else if q.median <= bar.reach {
            "#4a7fb5"
        } else {
            "#c0622f"
        };
        let _ = writeln!(
            svg,
            "<rect x=\"{LABEL_WIDTH}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>",
            y,
            axis.at(q.median),
            BAR_HEIGHT - 8.0
        );
        line(&mut svg, (x(q.lower), middle), (x(q.upper), middle), "#000", "");
        line(&mut svg, (x(bar.reach), y - 3.0), (x(bar.reach), y + BAR_HEIGHT - 5.0), "#000", "");
        line(&mut svg, (x(bar.go_for), y - 3.0), (x(bar.go_for), y + BAR_HEIGHT - 5.0), "#000", " stroke-dasharray=\"2 2\"");
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LABEL_WIDTH - 8.0,
            middle + 4.0,
            escape(&bar.title)
        );
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>", LABEL_WIDTH + PLOT_WIDTH + 8.0, middle + 4.0, q.median);
    }
    svg + "</svg>\n"
}

const PANEL: f64 = 260.0;
const PANEL_HEIGHT: f64 = 220.0;
const MARGIN: f64 = 56.0;
const PANELS_IN_ROW: usize = 3;

/// One panel per series, both axes logarithmic.
pub fn growth(series: &[Series]) -> String {
    let n_rows = series.len().div_ceil(PANELS_IN_ROW).max(1);
    let mut svg = open(PANELS_IN_ROW as f64 * (PANEL + MARGIN) + 20.0, n_rows as f64 * (PANEL_HEIGHT + MARGIN) + 10.0);
    for (i, s) in series.iter().enumerate() {
        let left = MARGIN + (i % PANELS_IN_ROW) as f64 * (PANEL + MARGIN);
        let bottom = (i / PANELS_IN_ROW) as f64 * (PANEL_HEIGHT + MARGIN) + PANEL_HEIGHT;
        panel(&mut svg, s, left, bottom);
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, s: &Series, left: f64, bottom: f64) {
    let plot_height = PANEL_HEIGHT - 40.0;
    let x_axis = Axis::around(s.points.iter().map(|p| p.0), PANEL - 10.0);
    let y_axis = Axis::around(s.points.iter().map(|p| p.1), plot_height);
    let (x, y) = (|v| left + x_axis.at(v), |v| bottom - y_axis.at(v));
    for tick in x_axis.ticks() {
        line(svg, (x(tick), bottom), (x(tick), bottom - plot_height), "#ddd", "");
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", x(tick), bottom + 15.0, short(tick));
    }
    for tick in y_axis.ticks() {
        line(svg, (left, y(tick)), (left + PANEL - 10.0, y(tick)), "#ddd", "");
        let text = super::report::duration(tick);
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", left - 4.0, y(tick) + 4.0);
    }
    let path: Vec<String> = s.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
    let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"#2a5f9f\" stroke-width=\"2\"/>", path.join(" "));
    for p in &s.points {
        let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#2a5f9f\"/>", x(p.0), y(p.1));
    }
    let exponent = s.exponent.map_or_else(String::new, |e| format!(": exponent {e:.2}"));
    let _ =
        writeln!(svg, "<text x=\"{left:.1}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>", bottom - plot_height - 20.0, escape(&s.title));
    let _ = writeln!(svg, "<text x=\"{left:.1}\" y=\"{:.1}\">against {}{exponent}</text>", bottom - plot_height - 6.0, escape(&s.axis));
}

fn open(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" {FONT}>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    )
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, more: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"1.5\"{more}/>",
        from.0, from.1, to.0, to.1
    );
}

/// A number as people write it at an axis.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.3}", v / 1e6).trim_end_matches('0').trim_end_matches('.').to_owned() + "M",
        v if v >= 1e4 => format!("{:.3}", v / 1e3).trim_end_matches('0').trim_end_matches('.').to_owned() + "k",
        v => v.to_string(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_puts_the_geometric_mean_in_the_middle() {
        let axis = Axis { low: 0.1, high: 10.0, width: 100.0 };
        assert!((axis.at(1.0) - 50.0).abs() < 1e-9);
        assert_eq!(axis.ticks().len(), 7);
    }

    #[test]
    fn figures_hold_their_titles_and_stay_whole_without_data() {
        let quartiles = Quartiles { median: 0.6, lower: 0.5, upper: 0.7 };
        let svg = ratios(&[Bar { title: "a < b".into(), quartiles, reach: 1.0, go_for: 0.5 }]);
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n"));
        assert!(ratios(&[]).ends_with("</svg>\n") && !ratios(&[]).contains("NaN"));
        let points = vec![(1e5, 1e-3), (1e6, 1e-2)];
        let svg = growth(&[Series { title: "t".into(), axis: "parameters".into(), points, exponent: Some(1.0) }]);
        assert!(svg.contains("exponent 1.00") && !svg.contains("NaN"));
    }

    #[test]
    fn numbers_at_axes_are_short() {
        assert_eq!([1e5, 1.5e6, 441.0, 0.5].map(short), ["100k", "1.5M", "441", "0.5"]);
    }
}
