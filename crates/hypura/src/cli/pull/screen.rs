//! What is about to come, on one screen.

use hypura_core::plan::{Estimate, human_bytes};
use std::fmt::Write as _;

use super::forecast::{Forecast, Row};
use super::offer::Offer;
use hypura_store::fetch::RemoteModel;

/// The files of a model, a line each, and their bytes.
pub(super) fn files(model: &RemoteModel) -> String {
    let mut text = String::new();
    for file in &model.files {
        line(&mut text, &human_bytes(file.bytes), &file.name);
    }
    text.push('\n');
    text
}

/// What the model is, needs and will do, and what its other quantisations would.
pub(super) fn render(offer: &Offer) -> String {
    let Offer { model, room, forecast } = offer;
    let mut text = format!("{}{}\n", model.name, about(forecast));
    let files = match model.files.len() {
        1 => "in a file".to_owned(),
        count => format!("in {count} files"),
    };
    let size = model.bytes();
    let here = size.saturating_sub(room.missing_bytes);
    let there = if here > 0 { format!(", of which {} are here", human_bytes(here)) } else { String::new() };
    row(&mut text, "size", &format!("{} {files}{there}", human_bytes(size)));
    row(&mut text, "disk", &format!("{} free", human_bytes(room.free_bytes)));
    match forecast {
        Ok(forecast) => speeds(&mut text, forecast),
        Err(error) => row(&mut text, "plan", &format!("none: {error:#}")),
    }
    if let Ok(forecast) = forecast
        && forecast.rows.len() > 1
    {
        table(&mut text, &forecast.rows);
    }
    text
}

fn about(forecast: &Result<Forecast, anyhow::Error>) -> String {
    let Ok(Forecast { shape, .. }) = forecast else { return String::new() };
    let experts = match shape.is_dense() {
        true => String::new(),
        false => format!(", {} of {} experts a token", shape.experts_used, shape.experts),
    };
    format!(": {}, {} layers{experts}", shape.architecture, shape.layers)
}

fn speeds(text: &mut String, forecast: &Forecast) {
    let advice = &forecast.advice;
    row(text, "mode", advice.plan.mode().name());
    let memory =
        format!("{} of {}", human_bytes(advice.plan.total_bytes()), human_bytes(advice.plan.budget_bytes()));
    row(text, "memory", &memory);
    match &advice.prediction.decode {
        Some(decode) => {
            let bound = format!("{}, bound by {}", band(decode.tokens_per_s, "tok/s"), decode.bound.name());
            row(text, "speed", &bound);
        }
        None => row(text, "speed", &format!("unknown: {}", advice.prediction.missing.join(", "))),
    }
    if let Some(prefill) = &advice.prediction.prefill {
        row(
            text,
            "first token",
            &format!("{} after a prompt of 512 tokens", band(prefill.first_token_s, "s")),
        );
    }
}

fn table(text: &mut String, rows: &[Row]) {
    let width = rows.iter().map(|row| row.variant.tag.chars().count()).max().unwrap_or(0).max(12);
    let _ = writeln!(text, "\n{:<width$} {:>11}  {:<17} {:>9}", "quantisation", "size", "mode", "tok/s");
    for row in rows {
        let speed = row.decode_tokens_per_s.map_or_else(|| "-".to_owned(), |speed| number(speed.mid));
        let about = if row.is_estimated { "≈" } else { "" };
        let mode = row.mode.map_or("does not run", |mode| mode.name());
        let mut notes = Vec::new();
        notes.extend(row.is_chosen.then_some("this one"));
        notes.extend(row.is_best.then_some("best here"));
        let notes = if notes.is_empty() { String::new() } else { format!("  ← {}", notes.join(", ")) };
        let size = human_bytes(row.variant.bytes);
        let speed = format!("{about}{speed}");
        let _ = writeln!(text, "{:<width$} {size:>11}  {mode:<17} {speed:>9}{notes}", row.variant.tag);
    }
    if rows.iter().any(|row| row.is_estimated) {
        let _ = writeln!(
            text,
            "≈ estimated from the header of this one, as if all weights were of the other type"
        );
    }
}

fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<11} {value}");
}

fn line(text: &mut String, bytes: &str, name: &str) {
    let _ = writeln!(text, "{bytes:>11}  {name}");
}

fn band(estimate: Estimate, unit: &str) -> String {
    format!("{} {unit} ({}–{})", number(estimate.mid), number(estimate.low), number(estimate.high))
}

fn number(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
