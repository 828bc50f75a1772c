//! Pages that need nothing but themselves: plotly's script stands in each of them, once, and nothing is fetched.

use super::run::Section;
use crate::figures::plane_record::PlaneRecord;
use crate::figures::surface;
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

/// What a report's slider and charts do.
const SCRIPT: &str = include_str!("../../templates/report.js");

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage<'a> {
    title: &'a str,
    sections: &'a [Section],
    overview_head: &'a [&'a str],
    style: &'static str,
    script: &'static str,
    plotly: String,
    version: &'static str,
    command: String,
    data: Vec<&'a Value>,
}

/// The report of some runs.
pub fn of_sections(title: &str, sections: &[Section], command: String) -> anyhow::Result<String> {
    let page = ReportPage {
        title,
        sections,
        overview_head: &["run", "command", "worse end, test error", "line: rise", "line: test error", "curve: rise", "curve: test error"],
        style: STYLE,
        script: SCRIPT,
        plotly: plotly_script()?,
        version: env!("CARGO_PKG_VERSION"),
        command,
        data: sections.iter().map(|section| &section.data).collect(),
    };
    Ok(page.render()?)
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
pub fn of_surface(record: &PlaneRecord) -> anyhow::Result<String> {
    let [a, b, c] = &record.points;
    let page = SurfacePage {
        title: format!("Training loss in the plane through {}, {} and {}", a.name, b.name, c.name),
        caption: caption(record),
        style: STYLE,
        plotly: plotly_script()?,
        plot: surface::plot(record)?,
    };
    Ok(page.render()?)
}

/// What a plane shows, in a sentence.
pub fn caption(record: &PlaneRecord) -> String {
    let mut text =
        format!("{} x {} cells; statistics taken anew in each. Distances are those of weight space.", record.grid.n_x, record.grid.n_y);
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
        let page = of_surface(&record).unwrap();
        assert_eq!(fetched(&page), Vec::<String>::new());
        assert!(!page.contains("<script>alert(1)"));
        assert!(page.len() < 6_000_000, "{}", page.len());
    }
}
