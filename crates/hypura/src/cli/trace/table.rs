//! The numbers of a replay, for people.

use hypura_core::plan::human_bytes;
use std::fmt::Write as _;

use super::simulate::{Report, Row, TraceReport};

/// Title, and whether it is aligned left.
const COLUMNS: [(&str, bool); 6] = [
    ("cache", true),
    ("policy", true),
    ("hits", false),
    ("to Belady", false),
    ("read per token", false),
    ("tok/s", false),
];

/// All traces, one table each.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for (index, trace) in report.traces.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", headline(trace));
        table(&mut text, report, trace);
    }
    let _ = writeln!(text, "\n{}", machine(report));
    text
}

fn headline(trace: &TraceReport) -> String {
    let TraceReport { model, layers, experts, used, prompt_tokens, generated_tokens, .. } = trace;
    format!(
        "{model}: {layers} layers of {experts} experts, {} in all; a token uses {used} a layer, {}\n{generated_tokens} \
         generated tokens after a prompt of {prompt_tokens}",
        human_bytes(trace.all_experts * trace.expert_bytes),
        human_bytes(trace.routed_bytes_per_token as u64),
    )
}

/// What the numbers mean, and what they were computed for.
pub(super) fn machine(report: &Report) -> String {
    let Some(disk) = report.disk_bytes_per_s else {
        return "Hits are of the generated tokens. Say --disk 2GB/s to have speeds predicted.".to_owned();
    };
    let disk = disk_text(disk);
    let compute = match report.compute_ms {
        Some(ms) => format!("{ms} ms of computing a token, overlapped"),
        None => "computing not counted (--compute-ms)".to_owned(),
    };
    format!("Hits are of the generated tokens. Speed at {disk}, {compute}.")
}

pub(super) fn disk_text(bytes_per_s: f64) -> String {
    if bytes_per_s >= 1e9 {
        format!("{:.2} GB/s", bytes_per_s / 1e9)
    } else {
        format!("{:.0} MB/s", bytes_per_s / 1e6)
    }
}

fn table(text: &mut String, report: &Report, trace: &TraceReport) {
    let shown = if report.disk_bytes_per_s.is_some() { COLUMNS.len() } else { COLUMNS.len() - 1 };
    let mut lines = vec![COLUMNS.map(|(title, _)| title.to_owned())];
    let mut last = None;
    for row in &trace.results {
        let mut cells = cells(row);
        if last.replace(row.slots) == Some(row.slots) {
            cells[0].clear();
        }
        lines.push(cells);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..shown).map(width).collect();
    for (index, line) in lines.iter().enumerate() {
        if index > 1 && !line[0].is_empty() {
            text.push('\n');
        }
        let mut out = String::new();
        for ((cell, width), (_, left)) in line.iter().zip(&widths).zip(COLUMNS) {
            let _ = if left { write!(out, "  {cell:<width$}") } else { write!(out, "  {cell:>width$}") };
        }
        let _ = writeln!(text, "{}", out.trim_end());
    }
}

fn cells(row: &Row) -> [String; 6] {
    // Rounded first: -0.04 is no -0.0.
    let behind = (row.behind_belady * 1000.0).round() / 10.0;
    let to_belady = if behind == 0.0 { "0.0".to_owned() } else { format!("{:+.1}", -behind) };
    [
        format!("{:.1}%, {}", row.cache_fraction * 100.0, human_bytes(row.cache_bytes)),
        row.policy.to_owned(),
        format!("{:.1}%", row.hit_rate * 100.0),
        if row.policy == "belady" { String::new() } else { to_belady },
        human_bytes(row.bytes_read_per_token as u64),
        row.tokens_per_s.map_or("–".to_owned(), |speed| format!("{speed:.2}")),
    ]
}
