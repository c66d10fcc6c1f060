//! How what former runs came to corrects a prediction.
//!
//! Records of the same model count alone where there are some; of other models only what processor and disk
//! did says something.
//!
//! Invariants: runs that others disturbed correct nothing; a correction never exceeds [`MOST`].

use crate::model::ModelShape;
use crate::profile::{AttentionRate, MatmulRate, Overhead, Profile, ProfileKey, ReadRate, Record, Storage};

/// Records that a correction is the median of.
const LATEST: usize = 5;
/// No rate is corrected by more than this factor: what is further off is another fault.
const MOST: f64 = 4.0;

/// What tells models apart.
#[must_use]
pub fn model_key(shape: &ModelShape) -> String {
    let name = shape.name.as_deref().unwrap_or(&shape.architecture);
    format!("{name}, {} bytes", shape.total_bytes())
}

/// Factors that former runs ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Correction {
    /// Of the time of computing.
    pub compute: f64,
    /// Of the disk's rate.
    pub disk: f64,
    /// Of the share of lookups that miss.
    pub misses: f64,
    /// Of the speed that follows.
    pub pace: f64,
    runs: usize,
    is_of_model: bool,
}

impl Correction {
    /// From records of the machine, the latest last; `None` where none says anything.
    pub fn of(records: &[Record], key: &ProfileKey, model: &str) -> Option<Self> {
        let sound = || records.iter().rev().filter(|record| record.key == *key && !record.disturbed);
        let own: Vec<&Record> = sound().filter(|record| record.model == model).take(LATEST).collect();
        let is_of_model = !own.is_empty();
        let used = if is_of_model { own } else { sound().take(LATEST).collect() };
        if used.is_empty() {
            return None;
        }
        let factor = |ratio: fn(&Record) -> Option<f64>| {
            let ratios = used.iter().filter_map(|record| ratio(record));
            let mut ratios: Vec<f64> = ratios.filter(|ratio| ratio.is_finite() && *ratio > 0.0).collect();
            ratios.sort_by(f64::total_cmp);
            ratios.get(ratios.len() / 2).map_or(1.0, |ratio| ratio.clamp(1.0 / MOST, MOST))
        };
        let of_model = |ratio: fn(&Record) -> Option<f64>| if is_of_model { factor(ratio) } else { 1.0 };
        Some(Self {
            compute: factor(|record| Some(record.measured.compute_s? / record.predicted.compute_s?)),
            disk: factor(|record| {
                Some(record.measured.disk_bytes_per_s? / record.predicted.disk_bytes_per_s?)
            }),
            misses: of_model(|record| {
                Some((1.0 - record.measured.hit_rate?) / (1.0 - record.predicted.hit_rate?))
            }),
            pace: of_model(|record| record.pace),
            runs: used.len(),
            is_of_model,
        })
    }

    /// A profile with the rates that runs had.
    pub fn apply(&self, profile: &Profile) -> Profile {
        let faster = |rate: Option<f64>| rate.map(|rate| rate / self.compute);
        let slower = |time_s: Option<f64>| time_s.map(|time_s| time_s * self.compute);
        let of_type = |rate: &MatmulRate| MatmulRate {
            quant: rate.quant.clone(),
            decode_bytes_per_s: faster(rate.decode_bytes_per_s),
            expert_bytes_per_s: faster(rate.expert_bytes_per_s),
            // Prompts are computed by other kernels.
            ..rate.clone()
        };
        let read = |read: &ReadRate| ReadRate {
            bytes_per_s: read.bytes_per_s.map(|rate| rate * self.disk),
            ..read.clone()
        };
        let attention = profile.attention;
        let overhead = profile.overhead;
        Profile {
            matmul: profile.matmul.iter().map(of_type).collect(),
            attention: AttentionRate {
                decode_flops_per_s: faster(attention.decode_flops_per_s),
                ..attention
            },
            overhead: Overhead {
                node_s: slower(overhead.node_s),
                call_s: slower(overhead.call_s),
                ..overhead
            },
            storage: profile.storage.as_ref().map(|storage| Storage {
                reads: storage.reads.iter().map(read).collect(),
                ..storage.clone()
            }),
            audit: Vec::new(),
            ..profile.clone()
        }
    }

    /// What is said of it.
    pub fn note(&self) -> String {
        let runs = match (self.runs, self.is_of_model) {
            (1, true) => "a run of this model".to_owned(),
            (runs, true) => format!("{runs} runs of this model"),
            (1, false) => "a run of another model".to_owned(),
            (runs, false) => format!("{runs} runs of other models"),
        };
        let mut what = vec![
            format!("computing takes {:.2} times what was measured", self.compute),
            format!("the disk gives {:.2} times", self.disk),
        ];
        if self.is_of_model {
            what.push(format!("experts miss {:.2} times as often as assumed", self.misses));
            what.push(format!("{:.2} times the speed that follows", self.pace));
        }
        format!("as {runs} came out: {}", what.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Tiers;

    fn tiers(tokens_per_s: f64, compute_s: f64, disk: f64, hit_rate: f64) -> Tiers {
        Tiers {
            tokens_per_s,
            compute_s: Some(compute_s),
            read_bytes: Some(1e8),
            disk_bytes_per_s: Some(disk),
            hit_rate: Some(hit_rate),
        }
    }

    fn record(model: &str, compute_s: f64, disturbed: bool) -> Record {
        Record {
            at_s: 1,
            key: ProfileKey::default(),
            model: model.to_owned(),
            tokens: 100,
            predicted: tiers(10.0, 0.1, 1e9, 0.8),
            measured: tiers(5.0, compute_s, 2e9, 0.9),
            pace: Some(0.9),
            disturbed,
        }
    }

    #[test]
    fn a_run_of_the_model_corrects_all_tiers_and_others_processor_and_disk() {
        let records = [record("a", 0.15, false), record("b", 0.3, false)];
        let own = Correction::of(&records, &ProfileKey::default(), "a").unwrap();
        assert!((own.compute - 1.5).abs() < 1e-9 && (own.disk - 2.0).abs() < 1e-9);
        assert!((own.misses - 0.5).abs() < 1e-9 && (own.pace - 0.9).abs() < 1e-9);
        let other = Correction::of(&records, &ProfileKey::default(), "c").unwrap();
        assert_eq!((other.misses, other.pace), (1.0, 1.0));
        assert!(other.note().contains("2 runs of other models"), "{}", other.note());
    }

    #[test]
    fn disturbed_runs_and_other_machines_correct_nothing() {
        let records = [record("a", 0.9, true)];
        assert_eq!(Correction::of(&records, &ProfileKey::default(), "a"), None);
        let elsewhere = ProfileKey { threads: 7, ..ProfileKey::default() };
        assert_eq!(Correction::of(&[record("a", 0.1, false)], &elsewhere, "a"), None);
    }

    #[test]
    fn the_median_of_the_latest_counts_within_bounds() {
        let mut records: Vec<Record> = (0..20).map(|_| record("a", 0.2, false)).collect();
        records.extend([0.1, 0.1, 0.1, 9.0].map(|compute_s| record("a", compute_s, false)));
        let found = Correction::of(&records, &ProfileKey::default(), "a").unwrap();
        assert!((found.compute - 1.0).abs() < 1e-9, "{found:?}");
        let far = [record("a", 50.0, false)];
        assert_eq!(Correction::of(&far, &ProfileKey::default(), "a").unwrap().compute, MOST);
    }
}
