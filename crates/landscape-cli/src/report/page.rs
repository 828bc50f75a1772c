//! Pages that need nothing but themselves: plotly's script stands in each of them, once, and nothing is fetched.

use crate::figures::plane_record::PlaneRecord;
use anyhow::Context;
use askama::Template;
use plotly::Plot;
use serde_json::Value;

/// The look of all pages.
pub const STYLE: &str = include_str!("../../templates/style.css");

/// Plotly's script without MathJax, which our pages have no use for.
pub fn plotly_script() -> anyhow::Result<String> {
    let both = Plot::offline_js_sources();
    let end = both.find("</script>").context("plotly's sources hold no script")? + "</script>".len();
    Ok(both[..end].to_owned())
}

/// A plot as plain JSON, to be put where a script reads it.
pub fn json_of(plot: &Plot) -> anyhow::Result<Value> {
    serde_json::from_str(&plot.to_json()).context("a plot is not JSON")
}

#[derive(Template)]
#[template(path = "surface.html")]
struct SurfacePage {
    title: String,
    caption: String,
    style: &'static str,
    plotly: String,
    plot: Value,
}

/// The page of one interactive surface.
pub fn of_surface(plot: &Plot, record: &PlaneRecord) -> anyhow::Result<String> {
    let [a, b, c] = &record.points;
    let page = SurfacePage {
        title: format!("Training loss in the plane through {}, {} and {}", a.name, b.name, c.name),
        caption: caption(record),
        style: STYLE,
        plotly: plotly_script()?,
        plot: json_of(plot)?,
    };
    Ok(page.render()?)
}

/// What a plane shows, in a sentence.
pub fn caption(record: &PlaneRecord) -> String {
    let mut text = format!("{} x {} cells; statistics taken anew in each. Distances are those of weight space.", record.grid.n_x, record.grid.n_y);
    if record.curve.is_some() {
        text += " The white line is the curve.";
    }
    if record.n_not_finite > 0 {
        text += &format!(" {} cells are not finite and left out.", record.n_not_finite);
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub mod tests {
    use super::*;
    use crate::figures::plane_record::tests::example;
    use crate::figures::surface;

    /// What a browser would have to fetch.
    pub fn fetched(page: &str) -> Vec<String> {
        // Plotly's own script holds addresses of maps and of its makers that none of our plots asks for.
        let script = plotly_script().unwrap();
        assert_eq!(page.matches(&script).count(), 1, "plotly's script once");
        let ours = page.replace(&script, "");
        let marks = ["src=", "href=", "url(", "@import", "fetch(", "import(", "http:", "https:"];
        let after = |mark: &'static str| {
            let places: Vec<usize> = ours.match_indices(mark).map(|(at, _)| at).collect();
            places.into_iter().map(|at| ours[at..].chars().take(60).collect::<String>()).collect::<Vec<_>>()
        };
        // The namespace of SVG is a name, not a place.
        marks.into_iter().flat_map(after).filter(|found| !found.starts_with("http://www.w3.org/2000/svg")).collect()
    }

    #[test]
    fn a_surface_page_stands_alone_and_escapes_names() {
        let mut record = example(5, 5, 0);
        record.points[0].name = "</script><script>alert(1)</script>".to_owned();
        let page = of_surface(&surface::plot(&record), &record).unwrap();
        assert_eq!(fetched(&page), Vec::<String>::new());
        assert!(!page.contains("<script>alert(1)"));
        assert!(page.len() < 6_000_000, "{}", page.len());
    }
}
