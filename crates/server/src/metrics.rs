//! `/metrics` for Prometheus, in llama-server's names where it has them, and `/health`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use hypura_engine::request::SpeculationStats;
use hypura_engine::serve::Totals;
use hypura_engine::workers::WorkerShare;

use super::models::RunningModel;
use super::respond;
use super::state::Server;

/// The routes of this file.
pub fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/v1/health", get(health))
}

/// 503 only while the first model loads: later loads hold up nobody else.
async fn health(State(server): State<Arc<Server>>) -> Response {
    if server.models.loading().is_some() && server.models.loaded().is_empty() {
        let error = serde_json::json!({"code": 503, "message": "Loading model", "type": "unavailable_error"});
        return respond::json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({"error": error}));
    }
    respond::json(StatusCode::OK, &serde_json::json!({"status": "ok"}))
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let running = server.running().await;
    let text = render(&server, &running);
    let body = axum::body::Body::from(text);
    respond::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn render(server: &Server, running: &[RunningModel]) -> String {
    let mut out = String::new();
    llama_server(&mut out, running);
    speculation(&mut out, running);
    hypura(&mut out, running);
    let counters = &server.counters;
    let counted = |value: &AtomicU64| number(value.load(Ordering::Relaxed));
    for (name, kind, help, value) in [
        (
            "requests_total",
            "counter",
            "Requests that reached a model, or tried to.",
            counted(&counters.requests),
        ),
        ("requests_active", "gauge", "Requests that are not answered yet.", counted(&counters.active)),
        ("requests_failed_total", "counter", "Requests that failed.", counted(&counters.failures)),
        (
            "requests_abandoned_total",
            "counter",
            "Requests whose client disconnected.",
            counted(&counters.disconnects),
        ),
        ("first_tokens_total", "counter", "Answers that had a first token.", counted(&counters.first_tokens)),
        (
            "first_token_seconds_total",
            "counter",
            "Time from requests to their first tokens.",
            counted(&counters.first_token_micros) / 1e6,
        ),
        (
            "memory_budget_bytes",
            "gauge",
            "Memory for all models together.",
            number(server.models.budget_bytes()),
        ),
        ("uptime_seconds", "gauge", "Time since the server started.", server.started.elapsed().as_secs_f64()),
    ] {
        head(&mut out, &format!("hypura_{name}"), kind, help);
        line(&mut out, &format!("hypura_{name}"), value);
    }
    out
}

/// llama-server's names, summed over the models, as it has one.
fn llama_server(out: &mut String, running: &[RunningModel]) {
    let sum =
        |value: fn(&Totals) -> f64| -> f64 { running.iter().map(|model| value(&model.status.totals)).sum() };
    let prompt_tokens = sum(|totals| number(totals.prompt_tokens.saturating_sub(totals.reused_tokens)));
    let prompt_seconds = sum(|totals| totals.prefill.as_secs_f64());
    let tokens = sum(|totals| number(totals.generated_tokens));
    let seconds = sum(|totals| totals.decode.as_secs_f64());
    let rate = |count: f64, seconds: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
    let active: usize = running.iter().map(|model| model.status.active).sum();
    let queued: usize = running.iter().map(|model| model.status.queued).sum();
    for (name, kind, help, value) in [
        ("prompt_tokens_total", "counter", "Number of prompt tokens processed.", prompt_tokens),
        ("prompt_seconds_total", "counter", "Prompt process time.", prompt_seconds),
        ("tokens_predicted_total", "counter", "Number of generation tokens processed.", tokens),
        ("tokens_predicted_seconds_total", "counter", "Predict process time.", seconds),
        (
            "n_decode_total",
            "counter",
            "Total number of llama_decode() calls.",
            sum(|totals| number(totals.steps)),
        ),
        (
            "prompt_tokens_seconds",
            "gauge",
            "Average prompt throughput in tokens/s.",
            rate(prompt_tokens, prompt_seconds),
        ),
        (
            "predicted_tokens_seconds",
            "gauge",
            "Average generation throughput in tokens/s.",
            rate(tokens, seconds),
        ),
        ("requests_processing", "gauge", "Number of requests processing.", count(active)),
        ("requests_deferred", "gauge", "Number of requests deferred.", count(queued)),
    ] {
        head(out, &format!("llamacpp:{name}"), kind, help);
        line(out, &format!("llamacpp:{name}"), value);
    }
}

/// What became of drafts, in llama-server's names, summed over the models.
fn speculation(out: &mut String, running: &[RunningModel]) {
    let mut all = SpeculationStats::default();
    running.iter().for_each(|model| all.add(&model.status.totals.speculation));
    for (name, help, value) in [
        ("draft_tokens", "Draft tokens computed.", all.proposed),
        ("accepted_tokens", "Draft tokens kept.", all.accepted),
        ("drafts", "Steps of a request that had drafts.", all.steps),
    ] {
        let name = format!("llamacpp:spec_decode_num_{name}_total");
        head(out, &name, "counter", help);
        line(out, &name, number(value));
    }
    let name = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total";
    head(out, name, "counter", "Draft tokens kept, by position.");
    for (position, count) in all.accepted_at.iter().enumerate() {
        line(out, &format!("{name}{{position=\"{position}\"}}"), number(*count));
    }
    let name = "hypura_drafting_seconds_total";
    head(out, name, "counter", "Time for making drafts.");
    line(out, name, all.drafting.as_secs_f64());
}

/// A value of each model: name, type, help, and how to get it.
type Family = (&'static str, &'static str, &'static str, fn(&RunningModel) -> f64);

const FAMILIES: [Family; 20] = [
    ("storage_read_bytes_total", "counter", "Bytes of weights read from the disk.", |model| {
        number(model.status.totals.stream.bytes_read)
    }),
    ("table_rows_total", "counter", "Rows used of embedding tables that stream.", |model| {
        number(model.status.totals.stream.table_rows)
    }),
    ("table_hits_total", "counter", "Rows of these that were in memory.", |model| {
        number(model.status.totals.stream.table_hits)
    }),
    ("table_read_bytes_total", "counter", "Bytes read of these tables.", |model| {
        number(model.status.totals.stream.table_bytes_read)
    }),
    ("expert_hits_total", "counter", "Uses of experts that were in memory.", |model| {
        number(model.status.totals.stream.decode.hits + model.status.totals.stream.prefill.hits)
    }),
    ("expert_misses_total", "counter", "Uses of experts that had to be read.", |model| {
        number(model.status.totals.stream.decode.misses + model.status.totals.stream.prefill.misses)
    }),
    ("stall_seconds_total", "counter", "Time in which the computation waited for the disk.", |model| {
        model.status.totals.stream.read_stall.as_secs_f64()
    }),
    (
        "threads",
        "gauge",
        "Threads of the last step: fewer while other programs use the processors.",
        |model| f64::from(model.status.totals.stream.threads.last),
    ),
    (
        "steps_with_fewer_threads_total",
        "counter",
        "Steps with fewer threads, because other programs used the processors.",
        |model| number(model.status.totals.stream.threads.steps_with_fewer),
    ),
    (
        "thread_wait_seconds_total",
        "counter",
        "Time that computing threads waited for a processor; 0 where that is not measured.",
        |model| model.status.totals.stream.threads.waited.unwrap_or_default().as_secs_f64(),
    ),
    ("shared_bytes_total", "counter", "Bytes not read because requests shared experts.", |model| {
        number(model.status.totals.saved_bytes)
    }),
    ("prompt_tokens_reused_total", "counter", "Prompt tokens that were in the cache.", |model| {
        number(model.status.totals.reused_tokens)
    }),
    ("context_length_tokens", "gauge", "Context of one request.", |model| {
        f64::from(model.status.context_length)
    }),
    ("model_file_bytes", "gauge", "Bytes of the model's files.", |model| number(model.info.file_bytes)),
    (
        "disk_weight_bytes",
        "gauge",
        "Bytes of weights that are read from the disk as they are needed.",
        |model| number(model.status.weights_on_disk_bytes),
    ),
    ("held_pins", "gauge", "Slots of experts that must not be evicted; 0 between steps.", |model| {
        count(model.status.held.pins)
    }),
    ("held_loading_slots", "gauge", "Slots of experts that are being filled.", |model| {
        count(model.status.held.loading_slots)
    }),
    ("held_cells", "gauge", "Cells that are read into or wait to be used.", |model| {
        count(model.status.held.cells)
    }),
    ("held_reads", "gauge", "Reads that are out.", |model| count(model.status.held.reads)),
    ("sequences_busy", "gauge", "Sequences of the context that a request uses.", |model| {
        busy_sequences(model)
    }),
];

fn busy_sequences(model: &RunningModel) -> f64 {
    let busy = model.status.slots.iter().filter(|slot| slot.request.is_some());
    busy.map(|_| 1.0).sum()
}

fn hypura(out: &mut String, running: &[RunningModel]) {
    for (name, kind, help, value) in FAMILIES {
        let name = format!("hypura_{name}");
        head(out, &name, kind, help);
        for model in running {
            let label = escaped(&model.entry.name.to_string());
            line(out, &format!("{name}{{model=\"{label}\"}}"), value(model));
        }
    }
    head(out, "hypura_resident_bytes", "gauge", "Bytes held, by tier.");
    for model in running {
        let label = escaped(&model.entry.name.to_string());
        for (tier, bytes) in [("RAM", model.status.memory_bytes), ("GPU", model.status.device_bytes)] {
            line(out, &format!("hypura_resident_bytes{{model=\"{label}\",tier=\"{tier}\"}}"), number(bytes));
        }
    }
    workers(out, running);
}

/// Of each model, what each of its workers has, and what went over the link.
fn workers(out: &mut String, running: &[RunningModel]) {
    type OfWorker = fn(&WorkerShare) -> f64;
    let families: [(&str, &str, &str, OfWorker); 4] = [
        ("worker_bytes", "gauge", "Bytes of the worker's memory that are held.", |of| number(of.bytes)),
        ("worker_layers", "gauge", "Layers that the worker computes.", |of| f64::from(of.layers)),
        ("worker_sent_bytes_total", "counter", "Bytes sent to the worker.", |of| {
            number(of.traffic.sent_bytes)
        }),
        ("worker_received_bytes_total", "counter", "Bytes that came from the worker.", |of| {
            number(of.traffic.received_bytes)
        }),
    ];
    for (name, kind, help, value) in families {
        head(out, &format!("hypura_{name}"), kind, help);
        for model in running {
            let label = escaped(&model.entry.name.to_string());
            for worker in &model.status.workers {
                let labels = format!("{{model=\"{label}\",worker=\"{}\"}}", escaped(&worker.name));
                line(out, &format!("hypura_{name}{labels}"), value(worker));
            }
        }
    }
}

fn count(value: usize) -> f64 {
    number(value as u64)
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
fn number(value: u64) -> f64 {
    value as f64
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, value: f64) {
    // A sum of nothing is -0.0, which not every reader of these takes.
    let _ = writeln!(out, "{name} {}", value + 0.0);
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
