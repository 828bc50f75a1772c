//! A drawing as a list of shapes, so that one description gives the SVG and the PNG.
//!
//! Lengths are in points of the finished figure, y downwards. Both back ends (plotters) take whole pixels only; they draw
//! [`SCALE`] times larger, and the SVG is scaled back by its view box, the PNG by averaging, which also smooths its edges.

use anyhow::{Context, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::sync::Once;

/// Back end pixels per point.
const SCALE: f64 = 4.0;
/// Back end pixels averaged into one of the PNG, each way.
const DOWNSAMPLE: usize = 2;
/// Of the embedded font; viewers without it take their own.
const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";
static FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

/// A colour.
pub type Rgb = [u8; 3];

/// Ink of axes and text.
pub const INK: Rgb = [34, 34, 34];
/// Ink of what stands back.
pub const FAINT: Rgb = [110, 110, 110];
/// Lines that guide the eye.
pub const GUIDE: Rgb = [226, 226, 226];
/// Paper.
pub const PAPER: Rgb = [255, 255, 255];

/// Which part of a text its place names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Which way a text runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Level,
    Upwards,
}

/// A text. Its place is on the base line.
#[derive(Debug, Clone)]
pub struct Label {
    pub at: [f64; 2],
    pub text: String,
    /// Height of the em square.
    pub size: f64,
    pub color: Rgb,
    pub anchor: Anchor,
    pub turn: Turn,
}

#[derive(Debug, Clone)]
enum Shape {
    Line { points: Vec<[f64; 2]>, color: Rgb, width: f64 },
    Area { points: Vec<[f64; 2]>, color: Rgb },
    Disc { center: [f64; 2], radius: f64, color: Rgb },
    Text(Label),
}

/// A drawing.
#[derive(Debug, Clone)]
pub struct Scene {
    width: f64,
    height: f64,
    shapes: Vec<Shape>,
}

impl Scene {
    /// An empty sheet of this size in points.
    pub fn new(width: f64, height: f64) -> Self {
        let mut scene = Scene { width, height, shapes: Vec::new() };
        scene.rectangle([0.0, 0.0], [width, height], PAPER);
        scene
    }

    /// Lines between points; parts that are not finite are left out.
    pub fn line(&mut self, points: &[[f64; 2]], color: Rgb, width: f64) {
        for part in points.split(|p| !(p[0].is_finite() && p[1].is_finite())) {
            if part.len() > 1 {
                self.shapes.push(Shape::Line { points: part.to_vec(), color, width });
            }
        }
    }

    /// Dashed lines between points; the dashes go on round the corners.
    pub fn dashed(&mut self, points: &[[f64; 2]], color: Rgb, width: f64, [on, off]: [f64; 2]) {
        for part in points.split(|p| !(p[0].is_finite() && p[1].is_finite())) {
            let mut phase = 0.0;
            let mut dash: Vec<[f64; 2]> = Vec::new();
            for pair in part.windows(2) {
                let [from, to] = [pair[0], pair[1]];
                let length = (to[0] - from[0]).hypot(to[1] - from[1]);
                let at = |s: f64| [from[0] + (to[0] - from[0]) * s / length, from[1] + (to[1] - from[1]) * s / length];
                let mut done = 0.0;
                while done < length {
                    let within = phase < on;
                    let left = if within { on - phase } else { on + off - phase };
                    let step = left.min(length - done);
                    if within {
                        if dash.is_empty() {
                            dash.push(at(done));
                        }
                        dash.push(at(done + step));
                    }
                    done += step;
                    phase += step;
                    if phase >= on && within && left <= step {
                        self.line(&std::mem::take(&mut dash), color, width);
                    }
                    if phase >= on + off {
                        phase = 0.0;
                    }
                }
            }
            self.line(&dash, color, width);
        }
    }

    /// A filled polygon.
    pub fn area(&mut self, points: &[[f64; 2]], color: Rgb) {
        self.shapes.push(Shape::Area { points: points.to_vec(), color });
    }

    /// A filled rectangle between two corners.
    pub fn rectangle(&mut self, [x0, y0]: [f64; 2], [x1, y1]: [f64; 2], color: Rgb) {
        self.area(&[[x0, y0], [x1, y0], [x1, y1], [x0, y1]], color);
    }

    /// The border of a rectangle.
    pub fn frame(&mut self, [x0, y0]: [f64; 2], [x1, y1]: [f64; 2], color: Rgb, width: f64) {
        self.line(&[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]], color, width);
    }

    /// A filled circle.
    pub fn disc(&mut self, center: [f64; 2], radius: f64, color: Rgb) {
        self.shapes.push(Shape::Disc { center, radius, color });
    }

    /// A text.
    pub fn text(&mut self, label: Label) {
        self.shapes.push(Shape::Text(label));
    }

    /// A level text in ink.
    pub fn write(&mut self, at: [f64; 2], text: &str, size: f64, anchor: Anchor, color: Rgb) {
        self.text(Label { at, text: text.to_owned(), size, color, anchor, turn: Turn::Level });
    }

    /// A level text on a patch of paper, to be read over anything.
    pub fn tag(&mut self, at: [f64; 2], text: &str, size: f64, anchor: Anchor, color: Rgb) {
        let width = text_width(text, size);
        let left = match anchor {
            Anchor::Start => at[0],
            Anchor::Middle => at[0] - width / 2.0,
            Anchor::End => at[0] - width,
        };
        self.rectangle([left - 3.0, at[1] - 0.92 * size], [left + width + 3.0, at[1] + 0.32 * size], PAPER);
        self.write(at, text, size, anchor, color);
    }

    /// The drawing as an SVG document.
    pub fn svg(&self) -> anyhow::Result<String> {
        register_font();
        let (width, height) = ((self.width * SCALE).round() as u32, (self.height * SCALE).round() as u32);
        let mut document = String::new();
        {
            let mut backend = SVGBackend::with_string(&mut document, (width, height));
            self.play(&mut backend, Strokes::Native)?;
            backend.present().map_err(failed)?;
        }
        let large = format!("width=\"{width}\" height=\"{height}\"");
        let small = format!("width=\"{}\" height=\"{}\"", self.width, self.height);
        Ok(document.replacen(&large, &small, 1))
    }

    /// The drawing as a PNG file.
    pub fn png(&self) -> anyhow::Result<Vec<u8>> {
        register_font();
        let step = DOWNSAMPLE;
        let [width, height] = [self.width, self.height].map(|v| (v * SCALE / step as f64).round() as usize);
        let mut large = vec![255u8; 3 * width * height * step * step];
        {
            let mut backend = BitMapBackend::with_buffer(&mut large, ((width * step) as u32, (height * step) as u32));
            self.play(&mut backend, Strokes::Filled)?;
            backend.present().map_err(failed)?;
        }
        let mut pixels = Vec::with_capacity(3 * width * height);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..3 {
                    let at = |dx: usize, dy: usize| large[3 * ((y * step + dy) * width * step + x * step + dx) + channel] as usize;
                    let sum: usize = (0..step * step).map(|i| at(i % step, i / step)).sum();
                    pixels.push(((sum + step * step / 2) / (step * step)) as u8);
                }
            }
        }
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Best);
        encoder.set_adaptive_filter(png::AdaptiveFilterType::Adaptive);
        encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels)).context("encoding a PNG")?;
        Ok(file)
    }

    fn play<B: DrawingBackend>(&self, backend: &mut B, strokes: Strokes) -> anyhow::Result<()> {
        let pixel = |[x, y]: [f64; 2]| ((x * SCALE).round() as i32, (y * SCALE).round() as i32);
        for shape in &self.shapes {
            match shape {
                Shape::Area { points, color } => backend.fill_polygon(points.iter().map(|&p| pixel(p)), &ink(*color)).map_err(failed)?,
                Shape::Disc { center, radius, color } => {
                    backend.draw_circle(pixel(*center), (radius * SCALE).round().max(1.0) as u32, &ink(*color), true).map_err(failed)?;
                }
                Shape::Line { points, color, width } => match strokes {
                    Strokes::Native => {
                        let stroke = ink(*color).stroke_width((width * SCALE).round().max(1.0) as u32);
                        backend.draw_path(points.iter().map(|&p| pixel(p)), &stroke).map_err(failed)?;
                    }
                    Strokes::Filled => {
                        let corners: Vec<_> = points.iter().map(|p| [p[0] * SCALE, p[1] * SCALE]).collect();
                        fill_strokes(backend, &corners, (width * SCALE).max(1.0), ink(*color))?;
                    }
                },
                Shape::Text(label) => draw_text(backend, label)?,
            }
        }
        Ok(())
    }
}

/// How lines get their width.
#[derive(Debug, Clone, Copy)]
enum Strokes {
    /// The back end knows.
    Native,
    /// As filled shapes with round joints: the back end's own polygons tear where corners are close together.
    Filled,
}

fn ink([red, green, blue]: Rgb) -> RGBColor {
    RGBColor(red, green, blue)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing a figure: {error}")
}

fn fill_strokes<B: DrawingBackend>(backend: &mut B, points: &[[f64; 2]], width: f64, color: RGBColor) -> anyhow::Result<()> {
    let half = width / 2.0;
    let round = |p: [f64; 2]| (p[0].round() as i32, p[1].round() as i32);
    for (idx, pair) in points.windows(2).enumerate() {
        let [a, b] = [pair[0], pair[1]];
        let length = (b[0] - a[0]).hypot(b[1] - a[1]);
        if length == 0.0 {
            continue;
        }
        let normal = [-(b[1] - a[1]) / length * half, (b[0] - a[0]) / length * half];
        if normal[0] == 0.0 || normal[1] == 0.0 {
            let (low, high) = ([a[0].min(b[0]), a[1].min(b[1])], [a[0].max(b[0]), a[1].max(b[1])]);
            let reach = [normal[0].abs(), normal[1].abs()];
            let (from, to) = (round([low[0] - reach[0], low[1] - reach[1]]), round([high[0] + reach[0], high[1] + reach[1]]));
            backend.draw_rect(from, to, &color, true).map_err(failed)?;
        } else {
            let corner = |p: [f64; 2], sign: f64| round([p[0] + sign * normal[0], p[1] + sign * normal[1]]);
            backend.fill_polygon([corner(a, 1.0), corner(b, 1.0), corner(b, -1.0), corner(a, -1.0)], &color).map_err(failed)?;
        }
        if idx > 0 && half >= 2.0 {
            backend.draw_circle(round(a), half.round() as u32, &color, true).map_err(failed)?;
        }
    }
    Ok(())
}

/// ab_glyph measures fonts by their height from the lowest to the highest glyph, and plotters writes that into the SVG divided by a
/// constant; this is the factor by which both come out close to the em square (exactly so in the SVG).
const FONT_UNITS_PER_EM: f64 = 1.24;

fn draw_text<B: DrawingBackend>(backend: &mut B, label: &Label) -> anyhow::Result<()> {
    let size = label.size * SCALE * FONT_UNITS_PER_EM;
    let anchor = match label.anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::End => HPos::Right,
    };
    let transform = match label.turn {
        Turn::Level => FontTransform::None,
        Turn::Upwards => FontTransform::Rotate270,
    };
    // Both back ends put the base line of a text that hangs from its top about this far below it.
    let drop = 0.76 * label.size * SCALE;
    let [x, y] = [label.at[0] * SCALE, label.at[1] * SCALE];
    let at = match label.turn {
        Turn::Level => (x.round() as i32, (y - drop).round() as i32),
        Turn::Upwards => ((x - drop).round() as i32, y.round() as i32),
    };
    let color = ink(label.color);
    let style = TextStyle::from((FAMILY, size).into_font().transform(transform)).color(&color).pos(Pos::new(anchor, VPos::Top));
    backend.draw_text(&label.text, &style, at).map_err(failed)
}

/// How wide a text is, in points.
pub fn text_width(text: &str, size: f64) -> f64 {
    register_font();
    let font = (FAMILY, size * SCALE * FONT_UNITS_PER_EM).into_font();
    let measured = font.layout_box(text).map(|(low, high)| f64::from(high.0 - low.0) / SCALE);
    measured.unwrap_or(0.6 * size * text.chars().count() as f64)
}

fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The bytes are part of the program, and a test draws with them.
        let _ = plotters::style::register_font(FAMILY, FontStyle::Normal, FONT);
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pixels(scene: &Scene) -> (usize, Vec<u8>) {
        let file = scene.png().unwrap();
        let mut reader = png::Decoder::new(file.as_slice()).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width as usize, pixels)
    }

    fn dark(pixels: &[u8]) -> usize {
        pixels.chunks(3).filter(|p| p.iter().all(|&v| v < 128)).count()
    }

    #[test]
    fn texts_are_in_the_svg_and_drawn_in_the_png_by_the_embedded_font() {
        let mut scene = Scene::new(120.0, 40.0);
        scene.write([60.0, 25.0], "a < b & ‖w‖²", 12.0, Anchor::Middle, INK);
        let svg = scene.svg().unwrap();
        assert!(svg.contains("a &lt; b &amp; ‖w‖²") && svg.contains("width=\"120\"") && svg.contains("viewBox=\"0 0 480 160\""), "{svg}");
        let (width, pixels) = pixels(&scene);
        assert_eq!((width, pixels.len()), (240, 240 * 80 * 3));
        assert!(dark(&pixels) > 150, "{}", dark(&pixels));
        // Centred: about as much ink left of the middle as right of it, and none near the border.
        let ink_in = |columns: std::ops::Range<usize>| {
            (0..80).map(|y| dark(&pixels[3 * (240 * y + columns.start)..3 * (240 * y + columns.end)])).sum::<usize>()
        };
        assert_eq!(ink_in(0..20) + ink_in(220..240), 0);
    }

    #[test]
    fn lines_have_their_width_and_stop_where_they_are_not_finite() {
        let mut scene = Scene::new(100.0, 20.0);
        scene.line(&[[10.0, 10.0], [40.0, 10.0], [f64::NAN, 10.0], [60.0, 10.0], [90.0, 10.0]], [0, 0, 0], 2.0);
        // 2 pixels a point: 60 columns of 4 rows.
        assert_eq!(dark(&pixels(&scene).1), 2 * 60 * 4);
        assert_eq!(scene.svg().unwrap().matches("<polyline").count(), 2);
    }

    #[test]
    fn dashes_cover_their_share_also_round_corners() {
        let mut scene = Scene::new(100.0, 100.0);
        scene.dashed(&[[10.0, 10.0], [55.0, 10.0], [55.0, 65.0]], [0, 0, 0], 2.0, [4.0, 6.0]);
        let share = dark(&pixels(&scene).1) as f64 / (2.0 * 100.0 * 4.0);
        assert!((share - 0.4).abs() < 0.03, "{share}");
        assert_eq!(scene.svg().unwrap().matches("<polyline").count(), 10);
    }

    #[test]
    fn text_grows_with_its_size_and_length() {
        let width = text_width("barrier", 10.0);
        assert!((text_width("barrier", 20.0) / width - 2.0).abs() < 0.05);
        assert!(text_width("barrier barrier", 10.0) > 2.0 * width);
        assert!(width > 30.0 && width < 50.0, "{width}");
    }
}
