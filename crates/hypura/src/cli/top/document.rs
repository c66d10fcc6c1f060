//! What the server tells. What is missing, or null, was not measured.

use serde::Deserialize;

/// Where the status is.
pub(super) const STATUS: &str = "/api/hypura/status";
/// Where the experts of a model are; its name follows.
pub(super) const EXPERTS: &str = "/api/hypura/experts?model=";

/// The document.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub version: String,
    pub uptime_s: f64,
    pub machine: Machine,
    pub loading: Option<Loading>,
    pub requests: Requests,
    pub models: Vec<Model>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Machine {
    pub memory: Memory,
    pub processors: Processors,
    pub disk: Option<Disk>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub total_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
    pub budget_bytes: u64,
    pub held_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Processors {
    pub count: u64,
    pub busy: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Disk {
    pub sequential_bytes_per_s: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Loading {
    pub name: String,
    pub read_bytes: u64,
    /// Null until something is read.
    pub total_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Requests {
    pub active: u64,
    pub waiting_for_a_model: u64,
    pub total: u64,
    pub failed: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Model {
    pub name: String,
    pub mode: String,
    pub state: String,
    pub file_bytes: u64,
    pub tiers: Tiers,
    pub workers: Vec<Worker>,
    pub memory: Parts,
    pub context: Context,
    pub experts: Option<Experts>,
    pub parallel: u64,
    pub active: u64,
    pub queued: u64,
    pub slots: Vec<Slot>,
    pub prefill: Option<Rates>,
    pub decode: Option<Rates>,
    pub predicted: Option<Predicted>,
    pub notes: Vec<String>,
}

/// Bytes by tier.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tiers {
    #[serde(rename = "GPU")]
    pub gpu: u64,
    #[serde(rename = "RAM")]
    pub ram: u64,
    #[serde(rename = "NVMe")]
    pub nvme: u64,
}

/// What another machine has of a model.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Worker {
    pub name: String,
    pub bytes: u64,
}

/// Bytes in memory by what they are for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parts {
    pub weights_bytes: u64,
    pub streaming_bytes: u64,
    pub kv_bytes: u64,
    pub compute_bytes: u64,
    pub other_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Context {
    pub tokens: u64,
    pub cells: u64,
    pub used_cells: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Experts {
    pub per_layer: u64,
    pub used: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Slot {
    pub state: String,
    pub cached_tokens: u64,
    pub prompt_tokens: u64,
    pub prompt_done_tokens: u64,
    pub prompt_left_s: Option<f64>,
    pub generated_tokens: u64,
}

/// Over the last one or two seconds of work.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rates {
    pub tokens_per_s: f64,
    pub bytes_per_token: Option<f64>,
    pub hit_rate: Option<f64>,
    pub bound: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Predicted {
    pub decode: Option<PredictedDecode>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PredictedDecode {
    pub tokens_per_s: Option<Band>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Band {
    pub mid: f64,
}

/// Which experts are where.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ExpertMap {
    pub model: String,
    pub layers: Option<Vec<ExpertRow>>,
}

/// A layer: a digit for each expert.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ExpertRow {
    pub experts: String,
}

impl Model {
    /// The predicted speed of answers.
    pub fn predicted_tokens_per_s(&self) -> Option<f64> {
        Some(self.predicted.as_ref()?.decode.as_ref()?.tokens_per_s.as_ref()?.mid)
    }

    /// Whether it is at work.
    pub fn is_busy(&self) -> bool {
        self.state != "idle"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_null_was_not_measured() {
        let status: Status = serde_json::from_str(
            r#"{"models": [{"name": "a", "decode": null, "tiers": {"RAM": 5}, "predicted": {"decode": null}, "new": 1}],
                "machine": {"disk": null, "memory": {"total_bytes": null}}}"#,
        )
        .unwrap();
        let model = &status.models[0];
        assert_eq!((model.tiers.ram, model.tiers.gpu, model.predicted_tokens_per_s()), (5, 0, None));
        assert!(model.decode.is_none() && status.machine.memory.total_bytes.is_none());
    }
}
