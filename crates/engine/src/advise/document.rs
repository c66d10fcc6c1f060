//! The plan for programs. Bytes and seconds; what is unknown is null.

use hypura_core::model::ModelShape;
use hypura_core::plan::{
    Estimate, HitRate, Prediction, Purpose, RoleGroup, TierBytes, group_reason, mode_reason,
};
use hypura_core::profile::Profile;
use hypura_core::speculate::ASSUMED_ACCEPTANCE;
use serde_json::{Map, Value, json};

use super::advice::Advice;

/// A model as it is named, and what it is made of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a ModelShape,
    /// Its files.
    pub shards: usize,
}

/// Everything about the plan: what is where and why, what is predicted, what would change it.
#[must_use]
pub fn document(subject: Subject<'_>, profile: &Profile, advice: &Advice) -> Value {
    let Subject { name, shape, shards } = subject;
    let roles: Map<String, Value> =
        advice.tiers.roles.iter().map(|(group, bytes)| role(shape, advice, *group, bytes)).collect();
    let others = advice.alternatives.iter().map(|other| {
        json!({
            "change": other.change,
            "note": other.note,
            "decode_tokens_per_s": other.decode_tokens_per_s.map(band),
            "gain_tokens_per_s": other.gain_tokens_per_s,
        })
    });
    json!({
        "model": {
            "name": name,
            "title": shape.name,
            "architecture": shape.architecture,
            "layers": shape.layers,
            "experts": shape.experts,
            "experts_used": shape.experts_used,
            "bytes": shape.total_bytes(),
            "shards": shards,
            "context_train": shape.context_train,
        },
        "plan": plan_of(shape, advice),
        "tiers": {
            "roles": roles,
            "layers": advice.tiers.layers.iter().map(tier).collect::<Vec<_>>(),
            "outside": tier(&advice.tiers.outside),
        },
        "prediction": prediction(&advice.prediction),
        "speculation": advice.speculation.map(|cost| json!({
            "assumed_acceptance": ASSUMED_ACCEPTANCE,
            "tokens_per_s": cost.tokens_per_s,
            "drafts": cost.drafts,
            "tokens_per_step": cost.tokens_per_step,
        })),
        "profile": { "measured_at_s": profile.measured_at_s, "others_share": profile.others_share },
        "disk_obstacle": profile.storage.as_ref().and_then(|storage| storage.obstacle.as_ref()),
        "alternatives": others.collect::<Vec<_>>(),
    })
}

fn role(shape: &ModelShape, advice: &Advice, group: RoleGroup, bytes: &TierBytes) -> (String, Value) {
    let mut value = tier(bytes);
    value["reason"] = group_reason(group, bytes, shape, &advice.layout, &advice.plan).into();
    (group.name().to_owned(), value)
}

fn plan_of(shape: &ModelShape, advice: &Advice) -> Value {
    let plan = &advice.plan;
    let bytes = |purpose| plan.ledger.bytes_for(purpose);
    let (experts, dense) = (plan.experts.as_ref(), plan.dense.as_ref());
    json!({
        "mode": plan.mode().name(),
        "reason": mode_reason(shape, plan),
        "budget_bytes": plan.budget_bytes(),
        "floor_bytes": plan.floor_bytes,
        "total_bytes": plan.total_bytes(),
        "device_layers": plan.homes.device_layers(),
        "workers": advice.workers,
        "ledger": plan.ledger,
        "resident_bytes": plan.resident_bytes(),
        "slot_bytes": plan.slot_bytes(),
        "slots": plan.slots(&advice.layout),
        "cells": experts.map_or(0, |experts| experts.cells),
        "cell_bytes": experts.map_or(0, |experts| experts.cell_bytes),
        "ring_cells": dense.map_or(0, |dense| dense.cells),
        "ring_cell_bytes": dense.map_or(0, |dense| dense.cell_bytes),
        "streamed_dense_bytes": plan.streamed_dense_bytes(shape),
        "streamed_table_bytes": plan.streamed_table_bytes(shape),
        "row_cache_bytes": bytes(Purpose::Rows),
        "kv_bytes": bytes(Purpose::Kv),
        "kv_type": plan.context.kv.name(),
        "notes": advice.notes,
        "compute_bytes": bytes(Purpose::Compute),
        "process_bytes": bytes(Purpose::Process),
        "driver_bytes": bytes(Purpose::Driver),
        "media_bytes": bytes(Purpose::Media),
        "draft_bytes": bytes(Purpose::Draft),
        "context_tokens": plan.context.context_tokens,
        "ubatch_tokens": plan.context.ubatch_tokens,
        "cached_fraction": plan.cached_fraction(shape, &advice.layout),
    })
}

fn prediction(prediction: &Prediction) -> Value {
    json!({
        "load_s": prediction.load_s.map(band),
        "prefill": prediction.prefill.map(|prefill| json!({
            "tokens_per_s": band(prefill.tokens_per_s),
            "first_token_s": band(prefill.first_token_s),
            "compute_s": prefill.compute_s,
            "link_s": prefill.link_s,
            "read_s": prefill.read_s,
            "read_bytes": prefill.read_bytes,
            "bound": prefill.bound.name(),
        })),
        "decode": prediction.decode.map(|decode| json!({
            "tokens_per_s": band(decode.tokens_per_s),
            "roofline_tokens_per_s": decode.roofline_tokens_per_s,
            "compute_s": decode.compute_s,
            "sync_s": decode.sync_s,
            "link_s": decode.link_s,
            "read_s": decode.read_s,
            "read_bytes": decode.read_bytes,
            "hit_rate": decode.hits.map(hits),
            "bound": decode.bound.name(),
        })),
        "missing": prediction.missing,
        "assumptions": prediction.assumptions,
    })
}

fn band(estimate: Estimate) -> Value {
    json!({"low": estimate.low, "mid": estimate.mid, "high": estimate.high})
}

fn hits(rate: HitRate) -> Value {
    json!({"low": rate.low, "mid": rate.mid, "high": rate.high})
}

fn tier(bytes: &TierBytes) -> Value {
    json!({
        "device_bytes": bytes.device_bytes,
        "resident_bytes": bytes.resident_bytes,
        "streamed_bytes": bytes.streamed_bytes,
        "cached_bytes": bytes.cached_bytes,
    })
}
