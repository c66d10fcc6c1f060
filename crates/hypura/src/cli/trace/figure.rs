//! The numbers of a replay, as curves: a row for each trace, hit rates on the left and, with a disk, speeds
//! on the right.

use hypura_core::plan::human_bytes;
use hypura_core::trace::Trace;

use super::simulate::{CacheSizes, Report, Row, TraceReport};
use super::table;
use crate::plot::{Axis, Figure, Panel, Series};

/// The curves have points here, in percent of all experts, as far as the sizes asked for reach; and at those.
const GRID: [f64; 17] =
    [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0];

/// The sizes to compute for the curves of a trace.
pub(super) fn sizes(asked: &CacheSizes, trace: &Trace) -> CacheSizes {
    let mut percent = match asked {
        CacheSizes::Percent(list) => list.clone(),
        CacheSizes::Bytes(list) => {
            let experts = trace.expert_layers().len() as f64 * f64::from(trace.header.experts);
            let all = experts * trace.header.expert_bytes as f64;
            list.iter().map(|bytes| (*bytes as f64 / all * 100.0).min(100.0)).collect()
        }
    };
    let most = percent.iter().copied().fold(0.0, f64::max);
    percent.extend(GRID.into_iter().filter(|point| *point < most));
    CacheSizes::Percent(percent)
}

/// Draws `curves`; the sizes that `report` has are marked.
pub(super) fn figure(report: &Report, curves: &[TraceReport]) -> Figure {
    let mut panels = Vec::new();
    for (marked, curve) in report.traces.iter().zip(curves) {
        panels
            .push(panel(marked, curve, "hits, % of lookups", Some(100.0), |row| Some(row.hit_rate * 100.0)));
        if report.disk_bytes_per_s.is_some() {
            panels.push(panel(marked, curve, "speed, tokens/s", None, |row| row.tokens_per_s));
        }
    }
    Figure {
        title: "Expert cache: hit rate and size".to_owned(),
        subtitle: table::machine(report).replace(" Say --disk 2GB/s to have speeds predicted.", ""),
        columns: 2,
        panels,
    }
}

fn panel(
    marked: &TraceReport,
    curve: &TraceReport,
    label: &str,
    reach: Option<f64>,
    value: impl Fn(&Row) -> Option<f64>,
) -> Panel {
    let points = |report: &TraceReport, policy: &str| -> Vec<(f64, f64)> {
        let rows = report.results.iter().filter(|row| row.policy == policy);
        rows.filter_map(|row| Some((row.cache_fraction * 100.0, value(row)?))).collect()
    };
    let mut names: Vec<&str> = Vec::new();
    for row in &curve.results {
        if !names.contains(&row.policy) {
            names.push(row.policy);
        }
    }
    let series: Vec<Series> = names
        .into_iter()
        .map(|name| Series {
            name: if name == "belady" { "Belady, the optimum".to_owned() } else { name.to_owned() },
            bound: name == "belady",
            points: points(curve, name),
            marks: points(marked, name),
        })
        .collect();
    let highest = |axis: fn(&(f64, f64)) -> f64| {
        series.iter().flat_map(|series| &series.points).map(axis).fold(0.0, f64::max)
    };
    Panel {
        title: curve.model.clone(),
        x: Axis {
            label: format!(
                "cache, % of all experts (100% = {})",
                human_bytes(curve.all_experts * curve.expert_bytes)
            ),
            reach: highest(|point| point.0),
        },
        y: Axis { label: label.to_owned(), reach: reach.unwrap_or_else(|| highest(|point| point.1)) },
        series,
    }
}
