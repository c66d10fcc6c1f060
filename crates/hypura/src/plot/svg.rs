//! A figure as SVG. Coordinates are pixels from the top left; the y axis of a panel points up.

use std::fmt::Write as _;

use super::axis::Scale;
use super::{Figure, Panel, Series};

/// Width of a panel with its labels.
const PANEL_WIDTH: f64 = 460.0;
/// Height of a panel with its labels.
const PANEL_HEIGHT: f64 = 330.0;
/// Between panels, and around all of them.
const MARGIN: f64 = 20.0;
/// Title, subtitle and legend.
const HEAD_HEIGHT: f64 = 88.0;
/// Room of labels left, above, right of and below the plotting area of a panel.
const INSET: [f64; 4] = [58.0, 34.0, 14.0, 52.0];
/// Average width of a letter of the legend.
const LETTER: f64 = 7.2;

/// Colours that can be told apart by people with any colour vision (Okabe and Ito, "Color Universal Design",
/// 2008), and lighter ones for dark pages; `bound` is for bounds.
const STYLE: &str = "
  text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; font-size: 12px; fill: #57606a }
  .title { font-size: 16px; font-weight: 600; fill: #1f2328 }
  .name { font-size: 13px; font-weight: 600; fill: #1f2328 }
  .card { fill: #ffffff; stroke: #d0d7de }
  .grid { stroke: #d8dee4; stroke-width: 1 }
  .axis { stroke: #8c959f; stroke-width: 1 }
  .curve { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round }
  .s0 { stroke: #0072b2; fill: #0072b2 } .s1 { stroke: #d55e00; fill: #d55e00 } .s2 { stroke: #009e73; fill: #009e73 }
  .s3 { stroke: #cc79a7; fill: #cc79a7 } .bound { stroke: #6e7781; fill: #6e7781 }
  .curve.bound { stroke-width: 1.6; stroke-dasharray: 5 4 } .curve { fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .title, .name { fill: #f0f6fc } .card { fill: #0d1117; stroke: #3d444d }
    .grid { stroke: #262c36 } .axis { stroke: #656c76 }
    .s0 { stroke: #56b4e9; fill: #56b4e9 } .s1 { stroke: #f0883e; fill: #f0883e } .s2 { stroke: #2fd0a0; fill: #2fd0a0 }
    .s3 { stroke: #e5a3c8; fill: #e5a3c8 } .bound { stroke: #9198a1; fill: #9198a1 } .curve { fill: none }
  }
";
/// How many colours there are.
const COLOURS: usize = 4;

impl Figure {
    /// The figure as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let columns = self.columns.clamp(1, self.panels.len().max(1));
        let rows = self.panels.len().div_ceil(columns);
        let width = MARGIN + columns as f64 * (PANEL_WIDTH + MARGIN);
        let height = HEAD_HEIGHT + rows as f64 * (PANEL_HEIGHT + MARGIN);
        let names = self.legend();
        let mut out = Document(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} \
             {height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n",
            escape(&self.title)
        ));
        out.line(&format!(
            "<rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>",
            width - 1.0,
            height - 1.0
        ));
        out.text((MARGIN, 30.0), "start", "title", &self.title);
        out.text((MARGIN, 50.0), "start", "", &self.subtitle);
        draw_legend(&mut out, &names);
        for (index, panel) in self.panels.iter().enumerate() {
            let left = MARGIN + (index % columns) as f64 * (PANEL_WIDTH + MARGIN);
            let top = HEAD_HEIGHT + (index / columns) as f64 * (PANEL_HEIGHT + MARGIN);
            draw_panel(&mut out, panel, (left, top), &names);
        }
        out.line("</svg>");
        out.0
    }

    /// Each name once, with its class.
    fn legend(&self) -> Vec<(String, String)> {
        let mut names: Vec<(String, String)> = Vec::new();
        let mut colours = 0;
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            if names.iter().any(|(name, _)| *name == series.name) {
                continue;
            }
            let class = if series.bound {
                "bound".to_owned()
            } else {
                colours += 1;
                format!("s{}", (colours - 1) % COLOURS)
            };
            names.push((series.name.clone(), class));
        }
        names
    }
}

fn draw_legend(out: &mut Document, names: &[(String, String)]) {
    let mut x = MARGIN;
    let y = 70.0;
    for (name, class) in names {
        out.line(&format!("<path class=\"curve {class}\" d=\"M{x:.1} {:.1}h26\"/>", y - 4.0));
        if class != "bound" {
            out.mark((x + 13.0, y - 4.0), class);
        }
        out.text((x + 33.0, y), "start", "", name);
        x += 33.0 + name.chars().count() as f64 * LETTER + 22.0;
    }
}

/// The plotting area of a panel.
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
    x: Scale,
    y: Scale,
}

impl Area {
    fn at_x(&self, value: f64) -> f64 {
        self.left + value / self.x.end() * (self.right - self.left)
    }

    fn at_y(&self, value: f64) -> f64 {
        self.bottom - value / self.y.end() * (self.bottom - self.top)
    }

    /// Where a point is drawn; `None` for one that is not finite. What is beyond the axes is drawn at their
    /// end.
    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let inside = x.is_finite() && y.is_finite();
        inside.then(|| (self.at_x(x.clamp(0.0, self.x.end())), self.at_y(y.clamp(0.0, self.y.end()))))
    }
}

fn draw_panel(out: &mut Document, panel: &Panel, (left, top): (f64, f64), names: &[(String, String)]) {
    let area = Area {
        left: left + INSET[0],
        top: top + INSET[1],
        right: left + PANEL_WIDTH - INSET[2],
        bottom: top + PANEL_HEIGHT - INSET[3],
        x: Scale::reaching(panel.x.reach),
        y: Scale::reaching(panel.y.reach),
    };
    out.text((area.left, top + 16.0), "start", "name", &panel.title);
    for (value, text) in area.y.ticks() {
        let y = area.at_y(value);
        out.line(&format!("<path class=\"grid\" d=\"M{:.1} {y:.1}H{:.1}\"/>", area.left, area.right));
        out.text((area.left - 8.0, y + 4.0), "end", "", &text);
    }
    for (value, text) in area.x.ticks() {
        let x = area.at_x(value);
        out.line(&format!("<path class=\"axis\" d=\"M{x:.1} {:.1}v5\"/>", area.bottom));
        out.text((x, area.bottom + 20.0), "middle", "", &text);
    }
    out.line(&format!("<path class=\"axis\" d=\"M{:.1} {:.1}H{:.1}\"/>", area.left, area.bottom, area.right));
    out.text(((area.left + area.right) / 2.0, area.bottom + 41.0), "middle", "", &panel.x.label);
    let (x, y) = (left + 13.0, (area.top + area.bottom) / 2.0);
    out.line(&format!(
        "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        escape(&panel.y.label)
    ));
    for series in panel.series.iter().rev() {
        let class = names.iter().find(|(name, _)| *name == series.name).map_or("s0", |(_, class)| class);
        draw_series(out, series, &area, class);
    }
}

fn draw_series(out: &mut Document, series: &Series, area: &Area, class: &str) {
    let mut path = String::new();
    for (x, y) in series.points.iter().filter_map(|point| area.place(*point)) {
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
    }
    if !path.is_empty() {
        out.line(&format!("<path class=\"curve {class}\" d=\"{path}\"/>"));
    }
    if class != "bound" {
        for point in series.marks.iter().filter_map(|point| area.place(*point)) {
            out.mark(point, class);
        }
    }
}

/// The text so far.
struct Document(String);

impl Document {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, class: &str, text: &str) {
        if !text.is_empty() {
            let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
            let text = escape(text);
            self.line(&format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{class}>{text}</text>"
            ));
        }
    }

    fn mark(&mut self, (x, y): (f64, f64), class: &str) {
        self.line(&format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"/>"));
    }
}

/// Text that is only text in XML: names come from files. Control characters are not allowed there at all.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not characters of XML 1.0.
            '\u{fffe}' | '\u{ffff}' => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::Axis;

    fn series(name: &str, bound: bool, points: &[(f64, f64)]) -> Series {
        Series { name: name.to_owned(), bound, points: points.to_vec(), marks: points.to_vec() }
    }

    fn figure(series: Vec<Series>) -> Figure {
        let axis = |label: &str| Axis { label: label.to_owned(), reach: 100.0 };
        let panel = Panel { title: "panel".to_owned(), x: axis("size, %"), y: axis("hits, %"), series };
        Figure {
            title: "a <b> & \"c\"\u{1b}".to_owned(),
            subtitle: String::new(),
            columns: 2,
            panels: vec![panel.clone(), panel],
        }
    }

    #[test]
    fn names_are_text_and_nothing_else() {
        let svg = figure(vec![series("x</svg><script>", false, &[])]).svg();
        assert!(svg.contains("a &lt;b&gt; &amp; &quot;c&quot;</title>"), "{svg}");
        assert!(!svg.contains("<script>") && !svg.contains('\u{1b}'), "{svg}");
        assert_eq!(svg.matches("</svg>").count(), 1);
    }

    #[test]
    fn a_name_is_in_the_legend_once_and_looks_alike_everywhere() {
        let svg = figure(vec![
            series("best", true, &[(0.0, 0.0), (100.0, 100.0)]),
            series("lfru", false, &[(0.0, 0.0), (50.0, 50.0)]),
        ])
        .svg();
        assert_eq!((svg.matches(">best<").count(), svg.matches(">lfru<").count()), (1, 1));
        // The legend and two panels.
        assert_eq!((svg.matches("curve bound\"").count(), svg.matches("curve s0\"").count()), (3, 3));
        assert!(svg.contains(">size, %<") && svg.contains(">hits, %<"));
    }

    #[test]
    fn points_are_where_they_belong_and_never_outside() {
        let area = Area {
            left: 10.0,
            right: 110.0,
            top: 0.0,
            bottom: 200.0,
            x: Scale::reaching(100.0),
            y: Scale::reaching(100.0),
        };
        assert_eq!(area.place((0.0, 0.0)), Some((10.0, 200.0)));
        assert_eq!(area.place((50.0, 25.0)), Some((60.0, 150.0)));
        assert_eq!(area.place((500.0, 1e300)), Some((110.0, 0.0)));
        assert_eq!(area.place((1.0, f64::INFINITY)), None);
        assert_eq!(area.place((f64::NAN, 1.0)), None);
        let svg = figure(vec![series("a", false, &[(f64::NAN, 1.0), (10.0, f64::INFINITY)])]).svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
