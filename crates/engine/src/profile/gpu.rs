//! A GPU, measured once and remembered in a file of its own: how fast it computes, and how fast weights get
//! there from the host's memory.

use hypura_core::profile::{GpuRates, Overhead, PROFILE_FORMAT};
use hypura_ggml::measure::overhead;
use hypura_ggml::{Device, DeviceBuffer, Uploader};
use hypura_storage::{Arena, HugePages};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ProfileOptions;
use super::files::write;
use super::measure::{QUANTS, attention_rate, matmul_rate};
use super::timing::Timing;
use crate::device::{DeviceOptions, Gpu, choose};
use crate::hex::hex;
use crate::stream::slots::device::Source;

/// How long each of the about forty small measurements takes.
const CELL: Duration = Duration::from_millis(20);
/// No further type is measured after this: drivers compile a kernel when it is first used.
const MOST: Duration = Duration::from_secs(10);
/// Weights of a measurement: more than the caches of a GPU hold, and few enough for a small one.
const WEIGHT_BYTES: u64 = 256 << 20;
/// For a small one.
const FEW_WEIGHT_BYTES: u64 = 64 << 20;

/// What is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Another program, driver or chip needs another measurement.
    key: String,
    rates: GpuRates,
}

/// The rates of the GPU that `options` choose, remembered in `folder` or measured now; `None` where there is
/// none, or where nothing of it can be measured. Software drivers are for tests: compiling their kernels
/// alone takes minutes.
#[must_use]
pub fn gpu_rates(folder: Option<&Path>, options: &DeviceOptions) -> Option<GpuRates> {
    let gpu = choose(options).ok().flatten().filter(|gpu| !gpu.is_software())?;
    let key = key(&gpu);
    let path = folder.map(|folder| {
        let hash = hex(&Sha256::digest(key.as_bytes())[..4]);
        folder.join(format!("gpu-{}-{hash}.json", gpu.info.name.to_lowercase()))
    });
    let text = path.as_ref().and_then(|path| std::fs::read(path).ok());
    let kept = text.and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    if let Some(kept) = kept.filter(|kept| kept.key == key) {
        return Some(kept.rates);
    }
    let kept = Kept { key, rates: measure(&gpu)? };
    if let Some(path) = path {
        // Without a place it is measured again next time, which takes seconds.
        let _ = write(&path, &kept);
    }
    Some(kept.rates)
}

fn key(gpu: &Gpu) -> String {
    let info = &gpu.info;
    let total = info.memory_total_bytes;
    let version = env!("CARGO_PKG_VERSION");
    format!("{PROFILE_FORMAT}, {version}, {}, {}, {total} bytes", info.backend, info.description)
}

fn measure(gpu: &Gpu) -> Option<GpuRates> {
    let device = Some(gpu.device);
    let start = Instant::now();
    let roomy = gpu.info.memory_free_bytes > 8 * WEIGHT_BYTES;
    let options = ProfileOptions {
        cell: CELL,
        weight_bytes: if roomy { WEIGHT_BYTES } else { FEW_WEIGHT_BYTES },
        ..ProfileOptions::new(Path::new("."), 1)
    };
    let timing = &mut Timing::default();
    let in_time = QUANTS.iter().take_while(|_| start.elapsed() < MOST);
    let mut matmul: Vec<_> = in_time.map(|quant| matmul_rate(&options, device, *quant, timing)).collect();
    matmul.retain(|rate| rate.decode_bytes_per_s.is_some() && rate.prefill_flops_per_s.is_some());
    let overhead = overhead(device, 1, CELL, &mut || Duration::ZERO).ok();
    let attention =
        if gpu.flash_attention { attention_rate(&options, device, timing) } else { Default::default() };
    let rates = GpuRates {
        device: gpu.info.name.clone(),
        attention,
        overhead: Overhead {
            node_s: overhead.map(|(node_s, _)| node_s),
            call_s: overhead.map(|(_, call_s)| call_s),
            wake_s: None,
        },
        upload_bytes_per_s: upload_rate(gpu.device),
        matmul,
    };
    (!rates.matmul.is_empty()).then_some(rates)
}

/// Uploads of the size of an expert's part, several on their way at a time; the best of some rounds.
fn upload_rate(device: Device) -> Option<f64> {
    const SLICE: usize = 1 << 20;
    const SLICES: usize = 32;
    const ROUNDS: usize = 4;
    let arena = Arena::new(SLICE * SLICES, HugePages::Try).ok()?;
    arena.populate();
    let source = Source::of(&arena);
    let target = Arc::new(DeviceBuffer::new(device, SLICE * SLICES).ok()?);
    let mut uploader = Uploader::new(device).ok()?;
    uploader.import(&source);
    let mut best_s = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for at in (0..SLICES).map(|slice| slice * SLICE) {
            uploader.upload(&source, at..at + SLICE, &target, at).ok()?;
        }
        uploader.wait();
        best_s = best_s.min(start.elapsed().as_secs_f64());
    }
    Some((SLICE * SLICES) as f64 / best_s)
}
