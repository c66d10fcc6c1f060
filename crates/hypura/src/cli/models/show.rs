//! `hypura show`: what is known of a model, without loading it.

use anyhow::Context as _;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::process::ExitCode;

use super::place::Place;
use super::text::print;
use hypura_server::time;

/// Arguments of `hypura show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name
    model: String,

    /// The Modelfile that makes it again
    #[arg(long, group = "part")]
    modelfile: bool,

    /// Its parameters
    #[arg(long, group = "part")]
    parameters: bool,

    /// Its chat template
    #[arg(long, group = "part")]
    template: bool,

    /// Its system prompt
    #[arg(long, group = "part")]
    system: bool,

    /// Its licences
    #[arg(long, group = "part")]
    license: bool,

    /// Everything, as JSON, like /api/show
    #[arg(long, group = "part")]
    json: bool,

    /// Also long metadata and all tensors
    #[arg(short, long)]
    verbose: bool,
}

/// Shows it.
///
/// # Errors
/// When there is no such model.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let all = match Place::find() {
        Place::Server(client) => {
            client.post("/api/show", &json!({"model": args.model, "verbose": args.verbose}))?
        }
        Place::Store(store) => {
            let show = store.show(&args.model, args.verbose)?;
            let mut all = serde_json::to_value(&show).context("cannot write what is known of the model")?;
            all["modified_at"] = time::local(show.modified).into();
            all
        }
    };
    let parts = [
        (args.modelfile, "modelfile"),
        (args.parameters, "parameters"),
        (args.template, "template"),
        (args.system, "system"),
        (args.license, "license"),
    ];
    let text = match parts.iter().find(|(asked, _)| *asked) {
        Some((_, part)) => all[part].as_str().unwrap_or_default().to_owned(),
        None if args.json => serde_json::to_string_pretty(&all)?,
        None => summary(&all, args.verbose),
    };
    print(text.trim_end_matches('\n'))?;
    print("\n")?;
    Ok(ExitCode::SUCCESS)
}

/// What is known of a model (as /api/show tells it), for people.
pub(in crate::cli) fn summary(all: &Value, verbose: bool) -> String {
    let (details, info) = (&all["details"], &all["model_info"]);
    let architecture = info["general.architecture"].as_str().unwrap_or("unknown");
    let number =
        |name: &str| info[format!("{architecture}.{name}")].as_u64().map(|number| number.to_string());
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    let mut out = String::new();
    let rows = [
        ("architecture", Some(architecture.to_owned())),
        ("parameters", text(&details["parameter_size"])),
        ("context length", number("context_length")),
        ("embedding length", number("embedding_length")),
        ("experts", number("expert_count")),
        ("experts per token", number("expert_used_count")),
        ("quantization", text(&details["quantization_level"])),
    ];
    section(
        &mut out,
        "Model",
        rows.into_iter().filter_map(|(key, value)| Some(format!("{key:<20}{}", value?))),
    );
    section(&mut out, "Projector", projector(&all["projector_info"]));
    let capabilities = all["capabilities"].as_array().into_iter().flatten();
    section(&mut out, "Capabilities", capabilities.filter_map(Value::as_str).map(ToOwned::to_owned));
    let lines = |key: &str, most: usize| {
        let text = all[key].as_str().unwrap_or_default();
        text.lines().take(most).map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
    };
    section(&mut out, "Parameters", lines("parameters", usize::MAX).into_iter());
    section(&mut out, "System", lines("system", 5).into_iter());
    section(&mut out, "License", lines("license", 2).into_iter());
    if verbose {
        let rows = info
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key:<40} {}", shortened(value)));
        section(&mut out, "Metadata", rows);
        let tensors = all["tensors"].as_array().into_iter().flatten();
        let row = |tensor: &Value| {
            let text = |key: &str| tensor[key].as_str().unwrap_or_default().to_owned();
            format!("{:<40} {:<8} {}", text("name"), text("type"), tensor["shape"])
        };
        section(&mut out, "Tensors", tensors.map(row));
    }
    out
}

/// What there is to say of what a model sees and hears with.
fn projector(info: &Value) -> impl Iterator<Item = String> {
    let number = |key: &str| info[key].as_u64();
    let text = |key: &str| info[key].as_str().map(ToOwned::to_owned);
    let parameters = number("general.parameter_count").map(hypura_store::human_number);
    let rows = [
        ("architecture", text("general.architecture")),
        ("type", text("clip.projector_type").or_else(|| text("clip.vision.projector_type"))),
        ("parameters", parameters),
        ("embedding length", number("clip.vision.embedding_length").map(|number| number.to_string())),
        ("dimensions", number("clip.vision.projection_dim").map(|number| number.to_string())),
        ("audio type", text("clip.audio.projector_type")),
        ("audio embedding", number("clip.audio.embedding_length").map(|number| number.to_string())),
        ("audio dimensions", number("clip.audio.projection_dim").map(|number| number.to_string())),
    ];
    rows.into_iter().filter_map(|(key, value)| Some(format!("{key:<20}{}", value?)))
}

/// Values of arrays are for `--json`.
fn shortened(value: &Value) -> String {
    const MOST: usize = 100;
    let text = value.to_string();
    if text.chars().count() <= MOST {
        return text;
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start}…")
}

fn section(out: &mut String, title: &str, rows: impl Iterator<Item = String>) {
    let mut rows = rows.filter(|row| !row.trim().is_empty()).peekable();
    if rows.peek().is_none() {
        return;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(out, "  {title}");
    for row in rows {
        let _ = writeln!(out, "    {row}");
    }
    out.push('\n');
}
