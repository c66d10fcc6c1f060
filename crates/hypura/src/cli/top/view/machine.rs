//! The machine: memory against the budget, processors, disk, requests.

use hypura_core::plan::human_bytes;
use ratatui::text::{Line, Span};

use super::bars;
use super::paint::{BOLD, BUSY, DIM, RAM};
use super::words;
use crate::cli::top::document::{Loading, Status};

/// Letters before a bar.
const TITLE: usize = 8;

/// Lines about the machine, of this width.
pub(super) fn machine(status: &Status, width: usize) -> Vec<Line<'static>> {
    let memory = &status.machine.memory;
    let held = format!(" {} of {}", human_bytes(memory.held_bytes), human_bytes(memory.budget_bytes));
    let mut lines = vec![titled(
        "memory",
        bars::parts(bar_width(width, &held), memory.budget_bytes, &[(memory.held_bytes, '█', RAM)]),
        held,
    )];
    let processors = &status.machine.processors;
    if let Some(busy) = processors.busy {
        let words = format!(" {:.0}% of {}", busy * 100.0, processors.count);
        let parts = [((busy * 1e6) as u64, '█', BUSY)];
        lines.push(titled("cores", bars::parts(bar_width(width, &words), 1_000_000, &parts), words));
    }
    lines.push(Line::from(facts(status)));
    lines
}

fn titled(title: &'static str, bar: Vec<Span<'static>>, words: String) -> Line<'static> {
    let mut spans = vec![Span::styled(format!("{title:<TITLE$}"), BOLD)];
    spans.extend(bar);
    spans.push(Span::raw(words));
    Line::from(spans)
}

/// What is left for a bar beside its words.
fn bar_width(width: usize, words: &str) -> usize {
    width.saturating_sub(TITLE + words.chars().count().max(24))
}

/// A load, as far as it is.
fn loading(load: &Loading) -> String {
    match load.total_bytes {
        Some(total) if total > 0 => {
            let share = 100.0 * load.read_bytes as f64 / total as f64;
            format!("loading {}: {share:.0}% of {}", load.name, human_bytes(total))
        }
        _ => format!("loading {}", load.name),
    }
}

fn facts(status: &Status) -> Vec<Span<'static>> {
    let mut facts = Vec::new();
    let memory = &status.machine.memory;
    if let (Some(available), Some(total)) = (memory.available_bytes, memory.total_bytes) {
        facts.push(format!("{} of {} free", human_bytes(available), human_bytes(total)));
    }
    let disk = status.machine.disk.as_ref().and_then(|disk| disk.sequential_bytes_per_s);
    facts.extend(disk.map(|rate| format!("disk {}/s", human_bytes(rate as u64))));
    let requests = &status.requests;
    facts.push(format!("{} at work", words::requests(requests.active)));
    match requests.waiting_for_a_model {
        0 => {}
        1 => facts.push("1 waits for a model".to_owned()),
        many => facts.push(format!("{many} wait for a model")),
    }
    facts.extend(status.loading.as_ref().map(loading));
    vec![Span::styled(facts.join(" · "), DIM)]
}
