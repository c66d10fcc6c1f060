//! The document: the machine, and each loaded model.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hypura_engine::serve::{Rates, RunnerStatus, SequenceStatus};
use hypura_engine::workers::WorkerShare;
use hypura_store::ModelEntry;
use serde_json::{Value, json};

use super::machine::{self, Processors};
use crate::models::RunningModel;
use crate::models::backend::LoadProgress;
use crate::state::Server;
use crate::{time, without_paths};

/// The document, now. Waits for runners to say how they are, a tenth of a second each at most.
pub(super) fn of(server: &Arc<Server>, processors: &mut Processors) -> Value {
    let running = server.models.running();
    let profile = server.models.profile();
    let held: u64 = running.iter().map(|model| model.status.memory_bytes).sum();
    let mut machine = machine::document(profile.as_deref(), server.models.budget_bytes(), processors);
    machine["memory"]["held_bytes"] = held.into();
    let counters = &server.counters;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": server.started.elapsed().as_secs_f64(),
        "machine": machine,
        "loading": server.models.load_in_progress().map(|(entry, progress)| loading(&entry, progress)),
        "requests": {
            "active": counters.active.load(Ordering::Relaxed),
            "waiting_for_a_model": server.models.waiting(),
            "total": counters.requests.load(Ordering::Relaxed),
            "failed": counters.failures.load(Ordering::Relaxed),
        },
        "models": running.iter().map(model).collect::<Vec<_>>(),
    })
}

/// A load: where nothing was read yet, it is still being planned, or waits for room.
fn loading(entry: &ModelEntry, progress: LoadProgress) -> Value {
    let LoadProgress { read_bytes, total_bytes } = progress;
    json!({
        "name": entry.name.to_string(),
        "read_bytes": read_bytes.min(total_bytes),
        "total_bytes": (total_bytes > 0).then_some(total_bytes),
    })
}

fn model(model: &RunningModel) -> Value {
    let RunningModel { entry, status, info, .. } = model;
    let (live, parts, totals) = (&status.live, &status.parts, &status.totals);
    let experts = (info.experts > 0)
        .then(|| json!({"layers": info.layers, "per_layer": info.experts, "used": info.experts_used}));
    json!({
        "name": entry.name.to_string(),
        "digest": entry.digest,
        "architecture": info.architecture,
        "mode": info.mode.name(),
        "state": state(status),
        "expires_at": time::local(model.expires_at),
        "load_seconds": model.load_time.as_secs_f64(),
        "file_bytes": info.file_bytes,
        "tiers": {
            "GPU": status.device_bytes,
            "RAM": status.memory_bytes,
            "NVMe": status.weights_on_disk_bytes,
        },
        "workers": workers(status),
        "memory": {
            "weights_bytes": parts.weights,
            "streaming_bytes": parts.streaming,
            "kv_bytes": parts.kv,
            "compute_bytes": parts.compute,
            "other_bytes": parts.other,
        },
        "context": {
            "tokens": status.context_length,
            "cells": status.context_cells,
            "used_cells": status.slots.iter().map(|slot| slot.cached_tokens).sum::<usize>(),
            "trained": info.context_train,
            "kv_bytes": status.kv_bytes,
        },
        "experts": experts,
        "parallel": info.parallel,
        "active": status.active,
        "queued": status.queued,
        "slots": slots(model),
        "prefill": live.prefill.as_ref().map(rates),
        "decode": live.decode.as_ref().map(rates),
        "predicted": model.forecast,
        "threads": totals.stream.threads.last,
        "totals": {
            "requests": totals.requests,
            "prompt_tokens": totals.prompt_tokens,
            "reused_tokens": totals.reused_tokens,
            "generated_tokens": totals.generated_tokens,
            "read_bytes": totals.stream.bytes_read,
        },
        "notes": info.notes.iter().map(|note| without_paths(note)).collect::<Vec<_>>(),
    })
}

/// The other machines that have a part of the model.
pub(crate) fn workers(status: &RunnerStatus) -> Vec<Value> {
    let worker = |worker: &WorkerShare| {
        json!({
            "name": worker.name,
            "layers": [worker.first_layer, worker.first_layer + worker.layers.saturating_sub(1)],
            "bytes": worker.bytes,
            "budget_bytes": worker.budget_bytes,
            "round_trip_s": worker.round_trip_s,
            "link_bytes_per_s": worker.link_bytes_per_s,
            "sent_bytes": worker.traffic.sent_bytes,
            "received_bytes": worker.traffic.received_bytes,
        })
    };
    status.workers.iter().map(worker).collect()
}

/// What the model does, in one word.
fn state(status: &RunnerStatus) -> &'static str {
    let states = status.slots.iter().map(state_of_slot);
    let all: Vec<&str> = states.collect();
    ["generating", "prompt"].into_iter().find(|state| all.contains(state)).unwrap_or("idle")
}

fn state_of_slot(slot: &SequenceStatus) -> &'static str {
    match (slot.request, slot.generated_tokens) {
        (None, _) => "idle",
        (Some(_), 0) => "prompt",
        (Some(_), _) => "generating",
    }
}

/// The sequences: those at work, then the conversations that are remembered, most tokens first.
fn slots(model: &RunningModel) -> Vec<Value> {
    let prefill = model.status.live.prefill.map(|rates| rates.tokens_per_s);
    let mut slots: Vec<&SequenceStatus> = model.status.slots.iter().collect();
    slots.sort_by_key(|slot| (slot.request.is_none(), std::cmp::Reverse(slot.cached_tokens)));
    slots.into_iter().map(|slot| self::slot(slot, prefill)).collect()
}

fn slot(slot: &SequenceStatus, prefill_tokens_per_s: Option<f64>) -> Value {
    let state = state_of_slot(slot);
    let done = slot.cached_tokens.min(slot.prompt_tokens);
    let left = (slot.prompt_tokens - done) as f64;
    let left_s = prefill_tokens_per_s.filter(|rate| state == "prompt" && *rate > 0.0).map(|rate| left / rate);
    json!({
        "request": slot.request,
        "state": state,
        "cached_tokens": slot.cached_tokens,
        "prompt_tokens": slot.prompt_tokens,
        "prompt_done_tokens": done,
        "prompt_left_s": left_s,
        "generated_tokens": slot.generated_tokens,
    })
}

fn rates(rates: &Rates) -> Value {
    json!({
        "tokens_per_s": rates.tokens_per_s,
        "bytes_per_token": rates.bytes_per_token,
        "hit_rate": rates.hit_rate,
        "bound": rates.bound.map(|bound| bound.name()),
    })
}
