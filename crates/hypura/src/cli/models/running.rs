//! `hypura ps` and `hypura stop`: what the server has loaded.

use hypura_core::plan::human_bytes;
use serde_json::Value;
use std::process::ExitCode;

use super::place::server;
use super::text::{human_span, print, short_digest, table};

/// Beyond this many years a model stays for ever.
const FOREVER_YEARS: i64 = 20;

/// Arguments of `hypura ps`.
#[derive(Debug, clap::Args)]
pub struct PsArgs {
    /// As JSON, like /api/ps
    #[arg(long)]
    json: bool,
}

/// Arguments of `hypura stop`.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Its name
    model: String,
}

/// Lists what is loaded.
///
/// # Errors
/// When no server of ours runs.
pub fn ps(args: &PsArgs) -> anyhow::Result<ExitCode> {
    let answer = server()?.get("/api/ps")?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let titles = ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL", "TIERS"];
    let mut rows = vec![titles.map(ToOwned::to_owned).to_vec()];
    let now = jiff::Timestamp::now();
    rows.extend(answer["models"].as_array().into_iter().flatten().map(|model| row(model, now)));
    print(&table(&rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Unloads a model. That it was not loaded is no fault.
///
/// # Errors
/// When no server of ours runs, or there is no such model.
pub fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    server()?.unload(&args.model)?;
    Ok(ExitCode::SUCCESS)
}

fn row(model: &Value, now: jiff::Timestamp) -> Vec<String> {
    let text = |key: &str| model[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| model[key].as_u64().unwrap_or(0);
    vec![
        text("name"),
        short_digest(&text("digest")),
        human_bytes(number("size")),
        processor(number("size"), number("size_vram")),
        number("context_length").to_string(),
        until(&text("expires_at"), now),
        tiers(&model["hypura"]),
    ]
}

/// Where the model computes, by its memory: Ollama's words.
fn processor(size: u64, size_vram: u64) -> String {
    if size_vram == 0 {
        return "100% CPU".to_owned();
    }
    if size_vram >= size {
        return "100% GPU".to_owned();
    }
    let on_cpu = ((size - size_vram) as f64 / size as f64 * 100.0).round();
    format!("{on_cpu:.0}%/{:.0}% CPU/GPU", 100.0 - on_cpu)
}

fn until(time: &str, now: jiff::Timestamp) -> String {
    let Ok(time) = time.parse::<jiff::Timestamp>() else { return "?".to_owned() };
    let seconds = time.as_second() - now.as_second();
    if seconds > FOREVER_YEARS * 31_536_000 {
        return "Forever".to_owned();
    }
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => {
            format!("{} from now", human_span(std::time::Duration::from_secs(seconds)))
        }
        _ => "Stopping...".to_owned(),
    }
}

/// What lies where, without the tiers that hold nothing; other machines by name, before the disk.
pub(in crate::cli) fn tiers(model: &Value) -> String {
    let tier = |name: &str| (name.to_owned(), model["tiers"][name].as_u64().unwrap_or(0));
    let worker = |worker: &Value| {
        let name = worker["name"].as_str().unwrap_or_default().to_owned();
        (name, worker["bytes"].as_u64().unwrap_or(0))
    };
    let workers = model["workers"].as_array().into_iter().flatten().map(worker);
    let all = [tier("GPU"), tier("RAM")].into_iter().chain(workers).chain([tier("NVMe")]);
    let used = all.filter(|(_, bytes)| *bytes > 0);
    used.map(|(name, bytes)| format!("{name} {}", human_bytes(bytes))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_loaded_model_is_a_row() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let model = json!({
            "name": "x:latest", "digest": "0123456789abcdef", "size": 2_u64 << 30, "size_vram": 0, "context_length": 4096,
            "expires_at": "2026-01-01T01:05:01.5+01:00", "hypura": {"tiers": {"GPU": 0, "RAM": 2_u64 << 30, "NVMe": 1 << 20}},
        });
        let expected = [
            "x:latest",
            "0123456789ab",
            "2.00 GiB",
            "100% CPU",
            "4096",
            "5 minutes from now",
            "RAM 2.00 GiB, NVMe 1.00 MiB",
        ];
        assert_eq!(row(&model, now), expected);
    }

    #[test]
    fn machines_are_tiers_by_their_names() {
        let model = json!({
            "tiers": {"GPU": 0, "RAM": 1_u64 << 30, "NVMe": 0},
            "workers": [{"name": "box:11436", "bytes": 2_u64 << 30, "layers": [12, 23]}],
        });
        assert_eq!(tiers(&model), "RAM 1.00 GiB, box:11436 2.00 GiB");
    }

    #[test]
    fn the_processor_is_told_by_its_memory() {
        assert_eq!(processor(100, 100), "100% GPU");
        assert_eq!(processor(100, 25), "75%/25% CPU/GPU");
        assert_eq!(processor(0, 0), "100% CPU");
    }

    #[test]
    fn the_end_is_far_or_near() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(until("2318-01-01T00:00:00Z", now), "Forever");
        assert_eq!(until("2025-01-01T00:00:00Z", now), "Stopping...");
        assert_eq!(until("", now), "?");
    }
}
