//! Line charts as SVG, for documents and issues.
//!
//! - `axis`: round numbers for ticks
//! - `svg`: a [`Figure`] as text
//!
//! Written by hand rather than with a plotting crate: a figure has one kind of mark, and what matters most
//! here, colours that follow the reader's light or dark scheme through style classes, is what such crates do
//! not write. The figure stands on a card of its own, so that it can be read on any page. The same figure
//! gives the same bytes everywhere.

mod axis;
mod svg;

/// Panels in rows, under one title and one legend.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// Under what circumstances; may be empty.
    pub subtitle: String,
    /// Panels in a row.
    pub columns: usize,
    /// Row by row.
    pub panels: Vec<Panel>,
}

/// One chart.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// The first lies on top. Series of one name look alike in every panel and are named once in the legend.
    pub series: Vec<Series>,
}

/// One axis; it begins at 0.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What is counted, with its unit.
    pub label: String,
    /// What the axis must reach at least.
    pub reach: f64,
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// A bound rather than a competitor: drawn thin and dashed.
    pub bound: bool,
    /// The curve, from left to right. Points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Points to mark.
    pub marks: Vec<(f64, f64)>,
}
