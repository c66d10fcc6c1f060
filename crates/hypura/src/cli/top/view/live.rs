//! What the chosen model does now: speeds, bytes, what binds, prompts with the time left, users and queue.

use hypura_core::plan::human_bytes;
use ratatui::text::{Line, Span};

use super::bars;
use super::paint::{BOLD, BUSY, DIM, RAM};
use super::words::{bound, count, span, speed};
use crate::cli::top::app::App;
use crate::cli::top::document::{Model, Rates, Slot};

/// Letters before what a line says.
const TITLE: usize = 8;
/// Letters of the bar of a prompt.
const PROMPT_BAR: usize = 16;

/// Lines about a model, most important first.
pub(super) fn live(app: &App, model: &Model, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![answers(app, model, width)];
    lines.extend(model.decode.as_ref().map(|rates| cost("", rates)));
    lines.extend(model.prefill.as_ref().map(prompts));
    lines.push(titled("users", vec![Span::raw(users(model))]));
    let at_work = model.slots.iter().filter(|slot| slot.state != "idle").enumerate();
    lines.extend(at_work.map(|(number, slot)| user(number + 1, slot)));
    lines.push(titled("memory", vec![Span::styled(memory(model), DIM)]));
    lines.extend(model.notes.iter().map(|note| titled("note", vec![Span::styled(note.clone(), DIM)])));
    lines
}

fn titled(title: &str, rest: Vec<Span<'static>>) -> Line<'static> {
    let mut spans = vec![Span::styled(format!("{title:<TITLE$}"), BOLD)];
    spans.extend(rest);
    Line::from(spans)
}

fn answers(app: &App, model: &Model, width: usize) -> Line<'static> {
    let mut words = match &model.decode {
        Some(rates) => speed(rates.tokens_per_s),
        None => "not measured yet".to_owned(),
    };
    if let Some(predicted) = model.predicted_tokens_per_s() {
        words.push_str(&format!(" (predicted {})", speed(predicted)));
    }
    let room = width.saturating_sub(TITLE + words.chars().count() + 1);
    let line = bars::sparkline(room, app.speeds(&model.name));
    titled("answers", vec![Span::raw(words), Span::styled(format!(" {line}"), BUSY)])
}

fn prompts(rates: &Rates) -> Line<'static> {
    let mut words = speed(rates.tokens_per_s);
    if let Some(name) = &rates.bound {
        words.push_str(&format!(", {}", bound(name)));
    }
    titled("prompts", vec![Span::raw(words)])
}

fn cost(title: &str, rates: &Rates) -> Line<'static> {
    let mut parts = Vec::new();
    let bytes = rates.bytes_per_token.filter(|bytes| *bytes >= 1.0);
    parts.extend(bytes.map(|bytes| format!("{} read per token", human_bytes(bytes as u64))));
    parts.extend(rates.hit_rate.map(|rate| format!("{:.1}% hits", rate * 100.0)));
    parts.extend(rates.bound.as_deref().map(|name| bound(name).to_owned()));
    titled(title, vec![Span::raw(parts.join(", "))])
}

fn users(model: &Model) -> String {
    let mut words = format!("{} at work of {}", model.active, model.parallel);
    if model.queued > 0 {
        words.push_str(&format!(", {} wait", model.queued));
    }
    let kept = model.slots.iter().filter(|slot| slot.state == "idle" && slot.cached_tokens > 0).count();
    if kept > 0 {
        words.push_str(&format!(", {kept} remembered"));
    }
    words.push_str(&format!(
        "; {} of {} cells of context used",
        count(model.context.used_cells),
        count(model.context.cells)
    ));
    words
}

fn user(number: usize, slot: &Slot) -> Line<'static> {
    let title = format!("  {number}");
    if slot.state != "prompt" {
        let words = format!(
            "{} tokens written after a prompt of {}",
            count(slot.generated_tokens),
            count(slot.prompt_tokens)
        );
        return titled(&title, vec![Span::raw(words)]);
    }
    let mut spans = bars::parts(PROMPT_BAR, slot.prompt_tokens, &[(slot.prompt_done_tokens, '█', RAM)]);
    let left = slot.prompt_left_s.map(|left| format!(", {} left", span(left)));
    spans.push(Span::raw(format!(
        " prompt {} of {}{}",
        count(slot.prompt_done_tokens),
        count(slot.prompt_tokens),
        left.unwrap_or_default()
    )));
    titled(&title, spans)
}

fn memory(model: &Model) -> String {
    let parts = &model.memory;
    let all = [
        ("weights", parts.weights_bytes),
        ("streaming", parts.streaming_bytes),
        ("context", parts.kv_bytes),
        ("buffers", parts.compute_bytes),
        ("other", parts.other_bytes),
    ];
    let used = all.into_iter().filter(|(_, bytes)| *bytes > 0);
    let words: Vec<String> = used.map(|(what, bytes)| format!("{what} {}", human_bytes(bytes))).collect();
    format!("{}; file {}", words.join(", "), human_bytes(model.file_bytes))
}
