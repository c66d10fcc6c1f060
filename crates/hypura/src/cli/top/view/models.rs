//! The loaded models: one line of facts and one bar of tiers each.

use hypura_core::plan::human_bytes;
use ratatui::text::{Line, Span};

use super::paint::{BOLD, BUSY, DIM, GPU, NVME, RAM, WORKER};
use super::words::{count, speed};
use super::{bars, paint};
use crate::cli::top::app::App;
use crate::cli::top::document::Model;

/// Widest name that does not push the numbers away.
const LONGEST_NAME: usize = 34;

/// Lines about all models; those before the chosen one go first where not all fit in `height` lines.
pub(super) fn models(app: &App, width: usize, height: usize) -> Vec<Line<'static>> {
    let Some(status) = &app.status else { return Vec::new() };
    if status.models.is_empty() {
        return vec![Line::from(Span::styled(
            "No model is loaded: the first request for one loads it.",
            DIM,
        ))];
    }
    let selected = app.selected().unwrap_or(0);
    let each = if height >= 2 * status.models.len() { 2 } else { 1 };
    let first = (selected + 1).saturating_sub((height / each).max(1));
    let shown = status.models.iter().enumerate().skip(first);
    shown
        .flat_map(|(place, model)| {
            let mut lines = vec![facts(model, place == selected)];
            if each == 2 {
                lines.push(tiers(model, width));
            }
            lines
        })
        .collect()
}

fn facts(model: &Model, is_selected: bool) -> Line<'static> {
    let name: String = match model.name.chars().count() {
        0..=LONGEST_NAME => model.name.clone(),
        _ => model.name.chars().take(LONGEST_NAME - 1).chain(['…']).collect(),
    };
    let mark = if is_selected { "▸ " } else { "  " };
    let state = if model.is_busy() { BUSY } else { paint::DIM };
    let mut spans = vec![
        Span::styled(mark, BOLD),
        Span::styled(name, BOLD),
        Span::styled(format!("  {}", model.state), state),
    ];
    if let Some(decode) = model.decode.as_ref().filter(|_| model.is_busy()) {
        spans.push(Span::raw(format!("  {}", speed(decode.tokens_per_s))));
    }
    spans.push(Span::styled(format!("  {}", model.mode), DIM));
    spans.push(Span::styled(format!("  context {}", count(model.context.tokens)), DIM));
    Line::from(spans)
}

/// Where its bytes are.
fn tiers(model: &Model, width: usize) -> Line<'static> {
    let tiers = &model.tiers;
    let workers = model.workers.iter().map(|worker| (worker.name.as_str(), worker.bytes, '▒', WORKER));
    let here = [("GPU", tiers.gpu, '█', GPU), ("RAM", tiers.ram, '▓', RAM)];
    let all = here.into_iter().chain(workers).chain([("NVMe", tiers.nvme, '░', NVME)]);
    let used: Vec<_> = all.filter(|(_, bytes, ..)| *bytes > 0).collect();
    let words: Vec<(String, ratatui::style::Style)> = used
        .iter()
        .map(|(tier, bytes, _, style)| (format!(" {tier} {}", human_bytes(*bytes)), *style))
        .collect();
    let letters: usize = words.iter().map(|(word, _)| word.chars().count()).sum();
    let whole = used.iter().map(|(_, bytes, ..)| bytes).sum();
    let parts: Vec<_> = used.iter().map(|(_, bytes, sign, style)| (*bytes, *sign, *style)).collect();
    let mut spans = vec![Span::raw("  ")];
    spans.extend(bars::parts(width.saturating_sub(letters.max(36) + 2), whole, &parts));
    spans.extend(words.into_iter().map(|(word, style)| Span::styled(word, style)));
    Line::from(spans)
}
