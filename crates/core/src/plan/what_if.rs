//! Another machine than this one, or another quantisation: what a plan would be with a faster disk, more
//! memory or smaller weights.
//!
//! Also how a plan is made where something could not be measured: an assumption that the user states. Never
//! one of ours.

use crate::gguf::GgmlType;
use crate::profile::{Pattern, Profile, ReadRate, Storage};

/// Facts to take in place of the measured ones. `None` keeps the measured one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WhatIf {
    /// Bandwidth of the disk at its best, in bytes per second.
    pub disk_bytes_per_s: Option<f64>,
    /// Memory that may be used, in bytes.
    pub memory_bytes: Option<u64>,
    /// Speed of the processor as a multiple of the measured one.
    pub compute_factor: Option<f64>,
    /// Share of expert lookups that find their expert in memory, 0 to 1.
    pub hit_rate: Option<f64>,
    /// Weights in another type, as another quantisation of the model has them.
    pub weights: Option<GgmlType>,
}

/// Why facts make no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WhatIfError {
    /// A number out of any range.
    #[error("{name}={value} makes no sense: it must be {expected}")]
    OutOfRange {
        /// Which fact.
        name: &'static str,
        /// Its value, as people write it.
        value: String,
        /// What would make sense.
        expected: &'static str,
    },
}

/// Slowest and fastest disk that is believed, in bytes per second: a floppy drive, and beyond any memory bus.
const DISK_RANGE: std::ops::RangeInclusive<f64> = 1e4..=1e13;
/// Least and most memory that is believed: 1 MiB and 1 PiB.
const MEMORY_RANGE: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 50;
/// Slowest and fastest processor that is believed, relative to this one.
const COMPUTE_RANGE: std::ops::RangeInclusive<f64> = 1e-3..=1e4;

impl WhatIf {
    /// Checks that each fact could be one of a machine.
    ///
    /// # Errors
    /// [`WhatIfError`] naming the first that could not.
    pub fn check(&self) -> Result<(), WhatIfError> {
        let refuse = |name, value: String, expected| Err(WhatIfError::OutOfRange { name, value, expected });
        if let Some(rate) = self.disk_bytes_per_s.filter(|rate| !DISK_RANGE.contains(rate)) {
            return refuse("disk", format!("{rate} B/s"), "between 10 KB/s and 10 TB/s, like 7GB/s");
        }
        if let Some(bytes) = self.memory_bytes.filter(|bytes| !MEMORY_RANGE.contains(bytes)) {
            return refuse("memory", format!("{bytes} bytes"), "between 1 MiB and 1 PiB, like 64GiB");
        }
        if let Some(factor) = self.compute_factor.filter(|factor| !COMPUTE_RANGE.contains(factor)) {
            return refuse("compute", format!("{factor}x"), "between 0.001x and 10000x, like 2x");
        }
        if let Some(rate) = self.hit_rate.filter(|rate| !(0.0..=1.0).contains(rate)) {
            return refuse("hits", format!("{}%", rate * 100.0), "between 0% and 100%");
        }
        Ok(())
    }

    /// The profile with these facts in it. A disk that was measured keeps the form of its curve: all rates
    /// are scaled so that the best one is the stated one. One that was not gets the stated rate at every size
    /// and depth.
    #[must_use]
    pub fn apply(&self, profile: &Profile) -> Profile {
        let mut changed = profile.clone();
        if let Some(rate) = self.disk_bytes_per_s {
            changed.storage = Some(with_rate(profile.storage.as_ref(), rate));
        }
        if let Some(factor) = self.compute_factor {
            scale_compute(&mut changed, factor);
        }
        changed
    }
}

fn with_rate(storage: Option<&Storage>, rate: f64) -> Storage {
    let mut storage = storage.cloned().unwrap_or_default();
    let best = storage.reads.iter().filter_map(|read| read.bytes_per_s).fold(0.0, f64::max);
    if best > 0.0 {
        for read in &mut storage.reads {
            read.bytes_per_s = read.bytes_per_s.map(|measured| measured * rate / best);
        }
        return storage;
    }
    let flat = |pattern| ReadRate {
        reader: "assumed".to_owned(),
        pattern,
        request_bytes: 1 << 20,
        depth: 1,
        bytes_per_s: Some(rate),
    };
    storage.reads = vec![flat(Pattern::Sequential), flat(Pattern::Random)];
    storage
}

fn scale_compute(profile: &mut Profile, factor: f64) {
    let faster = |rate: &mut Option<f64>| *rate = rate.map(|rate| rate * factor);
    for rate in &mut profile.matmul {
        faster(&mut rate.decode_bytes_per_s);
        faster(&mut rate.expert_bytes_per_s);
        faster(&mut rate.prefill_flops_per_s);
        faster(&mut rate.expert_prefill_flops_per_s);
    }
    faster(&mut profile.attention.decode_flops_per_s);
    faster(&mut profile.attention.prefill_flops_per_s);
    faster(&mut profile.memory.read_bytes_per_s);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_disk_keeps_the_form_of_its_curve() {
        let read = |depth, rate| ReadRate {
            reader: "uring".to_owned(),
            pattern: Pattern::Random,
            request_bytes: 4096,
            depth,
            bytes_per_s: rate,
        };
        let storage = Storage {
            reads: vec![read(1, Some(1e8)), read(8, Some(2e9)), read(16, None)],
            ..Storage::default()
        };
        let profile = Profile { storage: Some(storage), ..Profile::default() };
        let what_if = WhatIf { disk_bytes_per_s: Some(8e9), ..WhatIf::default() };
        let rates: Vec<_> =
            what_if.apply(&profile).storage.unwrap().reads.iter().map(|read| read.bytes_per_s).collect();
        assert_eq!(rates, [Some(4e8), Some(8e9), None]);
    }

    #[test]
    fn an_unmeasured_disk_is_as_fast_as_the_user_says() {
        let what_if = WhatIf { disk_bytes_per_s: Some(7e9), ..WhatIf::default() };
        let storage = what_if.apply(&Profile::default()).storage.unwrap();
        for pattern in [Pattern::Sequential, Pattern::Random] {
            assert_eq!(storage.rate(pattern, 1 << 16, 4.0), Some(7e9));
        }
        assert_eq!(WhatIf::default().apply(&Profile::default()), Profile::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let disk = |rate| WhatIf { disk_bytes_per_s: Some(rate), ..WhatIf::default() };
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e20] {
            let error = disk(rate).check().unwrap_err();
            assert!(error.to_string().starts_with("disk="), "{error}");
        }
        let memory = WhatIf { memory_bytes: Some(0), ..WhatIf::default() };
        assert!(memory.check().unwrap_err().to_string().contains("64GiB"));
        let hits = WhatIf { hit_rate: Some(1.5), ..WhatIf::default() };
        assert!(hits.check().unwrap_err().to_string().contains("150%"));
        let compute = WhatIf { compute_factor: Some(0.0), ..WhatIf::default() };
        assert!(compute.check().is_err());
        assert_eq!(disk(7e9).check(), Ok(()));
    }
}
