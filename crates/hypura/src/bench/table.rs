//! The result of a benchmark as a person reads it: one column for each arm, then ratios, limits and warnings.

use hypura_core::plan::human_bytes;
use std::fmt::Write as _;

use super::arm::Arm;
use super::disk::CacheState;
use super::report::{ArmSummary, Report, Run};
use super::stats::Spread;

/// How tables look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Columns aligned with blanks, for a terminal.
    Plain,
    /// A table of GitHub's Markdown.
    Markdown,
}

/// What cannot be said.
const UNKNOWN: &str = "–";

/// One run in a line.
#[must_use]
pub fn progress(arm: Arm, run: &Run) -> String {
    let mut line = format!(
        "{:<8} {:>8} tok/s, prompt {:>8} tok/s",
        arm.name(),
        number(run.arm.decode.tps),
        number(run.arm.prefill.tps)
    );
    if let Some(why) = &run.disturbed {
        let _ = write!(line, " (disturbed: {why})");
    }
    line
}

/// The whole report.
#[must_use]
pub fn render(report: &Report, look: Look) -> String {
    let mut text = heading(report, look);
    text.push('\n');
    text.push_str(&grid(&rows(report), look));
    text.push('\n');
    for line in findings(report) {
        bullet(&mut text, &line, look);
    }
    for warning in &report.warnings {
        bullet(&mut text, &format!("warning: {warning}"), look);
    }
    text
}

fn bullet(text: &mut String, line: &str, look: Look) {
    let mark = if look == Look::Markdown { "* " } else { "" };
    let _ = writeln!(text, "{mark}{line}");
}

fn heading(report: &Report, look: Look) -> String {
    let Report { model, settings, disk, machine, .. } = report;
    let mut text = String::new();
    let work = settings.work;
    let name = if look == Look::Markdown { format!("**{}**", model.file) } else { model.file.clone() };
    let _ = writeln!(
        text,
        "{name} ({}, {}), prompt {} + {} warm-up + {} tokens, {} rounds, {} threads, context {}, ubatch {}",
        model.architecture,
        human_bytes(model.file_bytes),
        work.prompt,
        work.warmup,
        work.generate,
        settings.pairs,
        settings.threads,
        settings.context,
        settings.ubatch
    );
    let mut facts = vec![
        format!("{} ({} processors)", machine.cpu.as_deref().unwrap_or(&machine.arch), machine.processors),
        format!(
            "disk {} ({})",
            disk.device.as_deref().unwrap_or("unknown"),
            disk.file_system.as_deref().unwrap_or("unknown file system")
        ),
    ];
    if let (Some(speed), Some(first)) = (disk.bytes_per_s, disk.measured.first()) {
        facts.push(format!(
            "{} GB/s at {} x {} ({}; {} to {})",
            number(speed.median / 1e9),
            first.depth,
            human_bytes(first.request_bytes as u64),
            first.reader,
            number(speed.p10 / 1e9),
            number(speed.p90 / 1e9)
        ));
    }
    if let Some(cap) = settings.memcap_bytes {
        let by = settings.memcap_by.as_deref().unwrap_or("control group");
        facts.push(format!("cap {} with page cache ({by})", human_bytes(cap)));
    }
    if let Some(ahead) = &disk.read_ahead {
        facts.push(format!("read-ahead for mmap {} (found {})", kib(ahead.used_kb), kib(ahead.found_kb)));
    }
    facts.push(match disk.caches {
        CacheState::Cold => "page cache dropped before each run".to_owned(),
        CacheState::Warm => "page cache warm".to_owned(),
    });
    if let Some(routes) = &settings.routes {
        facts.push(format!("routes forced from {routes}"));
    }
    if let Some(accept) = &settings.accept {
        facts.push(format!("acceptance of drafts forced to {accept}"));
    }
    let _ = writeln!(text, "{}", facts.join(", "));
    text
}

fn kib(value: Option<u64>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |kb| format!("{kb} KiB"))
}

/// A line of the table: its name and how to fill a cell.
type Line = (&'static str, fn(&ArmSummary) -> Option<String>);

const LINES: &[Line] = &[
    ("mode", |arm| Some(arm.mode.clone())),
    ("decode tok/s (p10–p90)", |arm| arm.decode_tps.map(spread)),
    ("prompt tok/s (p10–p90)", |arm| arm.prefill_tps.map(spread)),
    ("token ms p50 / p99", |arm| Some(pair(arm.token_ms_p50, arm.token_ms_p99, number))),
    ("load ms", |arm| arm.load_ms.map(number)),
    ("read per token, ours / kernel", |arm| {
        Some(pair(arm.read_bytes_per_token, arm.kernel_read_bytes_per_token, bytes))
    }),
    ("hit rate", |arm| arm.hit_rate.map(percent)),
    ("misses read ahead", |arm| arm.prefetched_share.map(percent)),
    ("read stall ms per token", |arm| arm.read_stall_ms_per_token.map(number)),
    ("CPU ms per token, compute / reader", |arm| {
        Some(pair(arm.cpu_compute_ms_per_token, arm.cpu_reader_ms_per_token, number))
    }),
    ("peak RSS / cgroup", |arm| {
        let float = |value: Option<u64>| value.map(|bytes| bytes as f64);
        Some(pair(float(arm.peak_rss_bytes), float(arm.cgroup_peak_bytes), bytes))
    }),
    ("planned / budget", |arm| {
        let float = |value: Option<u64>| value.map(|bytes| bytes as f64);
        Some(pair(float(arm.planned_bytes), float(arm.budget_bytes), bytes))
    }),
    ("efficiency (p10–p90)", |arm| arm.efficiency.map(percents)),
    ("bound by", |arm| arm.bound_by.map(|bound| bound.name().to_owned())),
    ("predicted decode tok/s", |arm| {
        off(arm.predicted.as_ref()?.decode_tps?, arm.prediction_error?.decode, number)
    }),
    ("  with the measured hit rate", |arm| {
        off(arm.predicted_given_hits.as_ref()?.decode_tps?, arm.error_given_hits?.decode, number)
    }),
    ("predicted prompt tok/s", |arm| {
        off(arm.predicted.as_ref()?.prefill_tps?, arm.prediction_error?.prefill, number)
    }),
    ("predicted load ms", |arm| off(arm.predicted.as_ref()?.load_ms?, arm.prediction_error?.load, number)),
    ("predicted read per token", |arm| {
        off(arm.predicted.as_ref()?.read_bytes_per_token?, arm.prediction_error?.read_bytes, bytes)
    }),
    ("disturbed runs", |arm| Some(format!("{} of {}", arm.disturbed, arm.runs.len()))),
];

/// Lines about which no arm has anything to say are left out.
fn rows(report: &Report) -> Vec<Vec<String>> {
    let name = |arm: &ArmSummary| match (report.settings.memcap_bytes, arm.memcap_bytes) {
        (Some(_), None) => format!("{} (no cap)", arm.arm.name()),
        _ => arm.arm.name().to_owned(),
    };
    let mut rows = vec![std::iter::once(String::new()).chain(report.arms.iter().map(name)).collect()];
    for (title, fill) in LINES {
        let cells: Vec<Option<String>> = report.arms.iter().map(fill).collect();
        let nothing = pair(None, None, number);
        if cells.iter().all(|cell| cell.as_deref().is_none_or(|text| text == nothing)) {
            continue;
        }
        let cells = cells.into_iter().map(|cell| match cell {
            Some(text) if text != nothing => text,
            _ => UNKNOWN.to_owned(),
        });
        rows.push(std::iter::once((*title).to_owned()).chain(cells).collect());
    }
    rows
}

/// The first row is the head, the first column the names.
fn grid(rows: &[Vec<String>], look: Look) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let cells: Vec<String> = cells.collect();
        match look {
            Look::Plain => {
                let _ = writeln!(text, "{}", cells.join("  ").trim_end());
            }
            Look::Markdown => {
                let _ = writeln!(text, "| {} |", cells.join(" | "));
                if at == 0 {
                    let _ = writeln!(text, "|---|{}", "---:|".repeat(columns.saturating_sub(1)));
                }
            }
        }
    }
    text
}

/// Sentences about the measured arm.
fn findings(report: &Report) -> Vec<String> {
    let Some(measured) = report.arms.first() else { return Vec::new() };
    let mut lines = Vec::new();
    for comparison in &report.comparisons {
        let Some(decode) = comparison.decode else { continue };
        let prompt = comparison.prefill.map(|prefill| format!("; prompt {}×", number(prefill.median)));
        lines.push(format!(
            "{} / {}: decode {}× (p10–p90 {}–{}){}",
            measured.arm.name(),
            comparison.against.name(),
            number(decode.median),
            number(decode.p10),
            number(decode.p90),
            prompt.unwrap_or_default()
        ));
    }
    let limits = measured.runs.iter().filter_map(|run| run.roofline);
    let median = |value: fn(&super::roofline::Roofline) -> f64| {
        super::stats::median(limits.clone().map(|limit| value(&limit)))
    };
    if let (Some(limit), Some(compute), Some(read), Some(bytes_needed)) = (
        median(|limit| limit.limit_tps),
        median(|limit| limit.compute_ms),
        median(|limit| limit.read_ms),
        median(|limit| limit.read_bytes),
    ) {
        lines.push(format!(
            "limit {} tok/s: computing takes {} ms a token, the disk {} ms for {}",
            number(limit),
            number(compute),
            number(read),
            bytes(bytes_needed)
        ));
    }
    lines
}

/// A prediction and its error.
fn off(said: f64, error: Option<f64>, show: fn(f64) -> String) -> Option<String> {
    Some(match error {
        Some(error) => format!("{} ({:+.0}%)", show(said), error * 100.0),
        None => show(said),
    })
}

fn pair(first: Option<f64>, second: Option<f64>, show: fn(f64) -> String) -> String {
    let text = |value: Option<f64>| value.map_or_else(|| UNKNOWN.to_owned(), show);
    format!("{} / {}", text(first), text(second))
}

fn spread(spread: Spread) -> String {
    format!("{} ({}–{})", number(spread.median), number(spread.p10), number(spread.p90))
}

fn percents(spread: Spread) -> String {
    format!("{} ({}–{})", percent(spread.median), percent(spread.p10), percent(spread.p90))
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn bytes(value: f64) -> String {
    human_bytes(value.max(0.0).round() as u64)
}

/// Three digits that matter.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 99.95 => 0,
        middle if middle >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests;
