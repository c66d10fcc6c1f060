//! `hypura profile`: what this machine can do, measured and explained.

use anyhow::{Context as _, ensure};
use hypura_core::plan::human_bytes;
use hypura_core::profile::{AttentionRate, MatmulRate, Overhead, Pattern, Profile, Storage, WorkerRates};
use hypura_engine::device::{DeviceChoice, DeviceOptions};
use hypura_engine::load::default_threads;
use hypura_engine::profile::{
    DISTURBED_SHARE, MOST, Need, Origin, ProfileOptions, Remembered, Wanted, cache_folder, gpu_rates, known,
    known_workers, measure, recall,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `hypura profile`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure again, whatever was measured before
    #[arg(long)]
    refresh: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Directory whose disk is measured, or a large file on it
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Threads that compute [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: Option<u32>,
}

/// Runs the subcommand.
///
/// # Errors
/// When the directory is not there.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let threads = args.threads.unwrap_or_else(default_threads);
    let wanted = if args.refresh { Wanted::New } else { Wanted::Sound };
    let device = DeviceOptions { choice: DeviceChoice::Auto, ..DeviceOptions::default() };
    let need = Need { target: &args.dir, threads, disk: true };
    let mut remembered = remembered_with_gpu(&need, wanted, &device)?;
    remembered.profile.workers = cache_folder().map(|folder| known_workers(&folder)).unwrap_or_default();
    let text = if args.json {
        serde_json::to_string_pretty(&remembered.profile)? + "\n"
    } else {
        render(&remembered.profile)
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The profile that is needed; when it has to be measured, that is said, because it takes a while.
///
/// # Errors
/// When the target is not there.
pub(in crate::cli) fn remembered(need: &Need<'_>, wanted: Wanted) -> anyhow::Result<Remembered> {
    let target = need.target;
    let metadata = target.metadata().with_context(|| format!("cannot look at {}", target.display()))?;
    ensure!(
        metadata.is_dir() || metadata.is_file(),
        "{} is neither a directory nor a file",
        target.display()
    );
    let remembered = recall(cache_folder().as_deref(), need, wanted, &mut |because| {
        // Nowhere is left to report that stderr is closed.
        let _ = writeln!(
            io::stderr(),
            "hypura: measuring this machine once, for {} seconds at most: {because}",
            MOST.as_secs()
        );
        measured(need)
    });
    if let Origin::Measured { not_kept: Some(why), .. } = &remembered.origin {
        let _ = writeln!(io::stderr(), "hypura: the measurement could not be kept for the next time: {why}");
    }
    if let Some(share) = remembered.profile.others_share.filter(|share| *share > DISTURBED_SHARE) {
        let _ = writeln!(io::stderr(), "hypura: {}", disturbed(share, &remembered.profile));
    }
    Ok(remembered)
}

/// What other programs have done to a profile, and what becomes of it.
fn disturbed(share: f64, profile: &Profile) -> String {
    let lost = profile.doubtful_share.unwrap_or(1.0);
    let rates = if lost > 0.0 {
        format!("{:.0}% of its speeds are too low", 100.0 * lost)
    } else {
        "what they took is left out, but memory and disk may be slower than alone".to_owned()
    };
    format!(
        "other programs used {:.0}% of the processor while this machine was measured: {rates}. It is measured \
         again by itself once they have stopped, or with hypura profile --refresh",
        100.0 * share
    )
}

/// The same, with the rates of the GPU that would compute, where one would.
///
/// # Errors
/// As [`remembered`].
pub(super) fn remembered_with_gpu(
    need: &Need<'_>,
    wanted: Wanted,
    device: &DeviceOptions,
) -> anyhow::Result<Remembered> {
    let mut remembered = remembered(need, wanted)?;
    remembered.profile.gpu = gpu_rates(cache_folder().as_deref(), device);
    Ok(remembered)
}

/// What is known of this machine, beside the disk of a model; measures nothing.
pub(in crate::cli) fn known_beside(path: &Path, threads: u32) -> Option<Profile> {
    let bytes = path.metadata().map_or(0, |metadata| metadata.len());
    let target = disk_target(Some(path), bytes);
    known(&cache_folder()?, &Need { target: &target, threads, disk: true })
}

/// A large model is itself what the disk is measured with; otherwise a file is written to its folder for a
/// moment.
pub(super) fn disk_target(path: Option<&Path>, first_file_bytes: u64) -> PathBuf {
    const LARGE: u64 = 1 << 30;
    let Some(path) = path else { return PathBuf::from(".") };
    if first_file_bytes >= LARGE {
        return path.to_owned();
    }
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Measures with a progress bar.
fn measured(need: &Need<'_>) -> Profile {
    let bar = ProgressBar::new(1000);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar:.dim}") {
        bar.set_style(style.progress_chars("━╸ "));
    }
    let options = ProfileOptions { disk: need.disk, ..ProfileOptions::new(need.target, need.threads) };
    let profile = measure(&options, &mut |part, what| {
        bar.set_message(what.to_owned());
        bar.set_position((part * 1000.0) as u64);
    });
    bar.finish_and_clear();
    profile
}

/// A rate for people, in powers of 1000 as disks and memory are sold.
fn human_rate(bytes_per_s: f64) -> String {
    if bytes_per_s >= 1e9 {
        format!("{:.2} GB/s", bytes_per_s / 1e9)
    } else {
        format!("{:.1} MB/s", bytes_per_s / 1e6)
    }
}

fn rate_or_dash(rate: Option<f64>) -> String {
    rate.map_or("-".to_owned(), human_rate)
}

fn bytes_or_dash(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), human_bytes)
}

fn render(profile: &Profile) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_machine(&mut text, profile);
    let _ = write_matmul(&mut text, &profile.matmul, &profile.attention, &profile.overhead);
    if let Some(gpu) = &profile.gpu {
        let _ = writeln!(text, "\n{}", gpu.device);
        let _ = write_matmul(&mut text, &gpu.matmul, &gpu.attention, &gpu.overhead);
        let _ = writeln!(text, "uploads {}", rate_or_dash(gpu.upload_bytes_per_s));
    }
    for worker in &profile.workers {
        let _ = write_worker(&mut text, worker);
    }
    if let Some(storage) = &profile.storage {
        let _ = write_storage(&mut text, storage);
    }
    text
}

fn write_machine(out: &mut String, profile: &Profile) -> std::fmt::Result {
    let cpu = &profile.cpu;
    let cores = cpu.cores.map_or("?".to_owned(), |cores| cores.to_string());
    writeln!(out, "processor   {}, {cores} cores", cpu.model.as_deref().unwrap_or("unknown"))?;
    writeln!(out, "            {}", cpu.features.join(" "))?;
    let memory = &profile.memory;
    let limit = memory.limit_bytes.map(|limit| format!(", limit {}", human_bytes(limit))).unwrap_or_default();
    writeln!(
        out,
        "memory      {}, {} free{limit}, {} with all threads",
        bytes_or_dash(memory.total_bytes),
        bytes_or_dash(memory.room_bytes),
        rate_or_dash(memory.read_bytes_per_s)
    )?;
    for device in &profile.devices {
        let unified = if device.unified == Some(true) { ", shares the host's memory" } else { "" };
        let size = bytes_or_dash(device.memory_total_bytes);
        writeln!(
            out,
            "device      {} ({}), {}, {size}{unified}",
            device.name, device.kind, device.description
        )?;
    }
    Ok(())
}

fn write_matmul(
    out: &mut String,
    rates: &[MatmulRate],
    attention: &AttentionRate,
    overhead: &Overhead,
) -> std::fmt::Result {
    let flops = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{:.1} GFLOP/s", rate / 1e9));
    writeln!(out, "\nweights       one token     experts       many tokens    experts")?;
    for rate in rates {
        writeln!(
            out,
            "{:<13} {:<13} {:<13} {:<14} {}",
            rate.quant,
            rate_or_dash(rate.decode_bytes_per_s),
            rate_or_dash(rate.expert_bytes_per_s),
            flops(rate.prefill_flops_per_s),
            flops(rate.expert_prefill_flops_per_s)
        )?;
    }
    let (one, many) = (attention.decode_flops_per_s, attention.prefill_flops_per_s);
    writeln!(out, "attention     {:<27} {}", flops(one), flops(many))?;
    if let (Some(node), Some(call)) = (overhead.node_s, overhead.call_s) {
        let wake = overhead.wake_s;
        let wake = wake.map(|wake| format!(", waking threads {:.1} µs", wake * 1e6)).unwrap_or_default();
        writeln!(out, "a node costs {:.1} µs, a call {:.1} µs{wake}", node * 1e6, call * 1e6)?;
    }
    Ok(())
}

fn write_worker(out: &mut String, worker: &WorkerRates) -> std::fmt::Result {
    let (round_trip_ms, link) = (worker.round_trip_s * 1e3, human_rate(worker.bytes_per_s));
    writeln!(out, "\nworker {}: {round_trip_ms:.2} ms there and back, {link}", worker.name)?;
    write_matmul(out, &worker.matmul, &worker.attention, &worker.overhead)
}

fn write_storage(out: &mut String, storage: &Storage) -> std::fmt::Result {
    let kind = match storage.rotational {
        Some(true) => ", a spinning disk",
        Some(false) => "",
        None => ", of a kind that the system does not tell",
    };
    let system = storage.file_system.as_deref().unwrap_or("unknown file system");
    writeln!(
        out,
        "\ndisk        {}: {system} on {}{kind}",
        storage.target,
        storage.device.as_deref().unwrap_or("-")
    )?;
    if let Some(obstacle) = &storage.obstacle {
        return writeln!(out, "            not measured: {obstacle}");
    }
    let mut rows: Vec<(Pattern, u64, &str)> =
        storage.reads.iter().map(|read| (read.pattern, read.request_bytes, read.reader.as_str())).collect();
    rows.dedup();
    let mut depths: Vec<u32> = storage.reads.iter().map(|read| read.depth).collect();
    depths.sort_unstable();
    depths.dedup();
    rows.sort_by_key(|(pattern, bytes, reader)| (*pattern == Pattern::Sequential, *bytes, reader.to_owned()));
    rows.dedup();
    write!(out, "direct reads, at once:            ")?;
    for depth in &depths {
        write!(out, "{depth:>13}")?;
    }
    writeln!(out)?;
    for (pattern, bytes, reader) in rows {
        let order = if pattern == Pattern::Random { "random" } else { "in order" };
        write!(out, "  {order:<9} {:>10} {reader:<9}", human_bytes(bytes))?;
        for depth in &depths {
            let found = storage.reads.iter().find(|read| {
                (read.pattern, read.request_bytes, read.depth) == (pattern, bytes, *depth)
                    && read.reader == reader
            });
            write!(out, "{:>13}", rate_or_dash(found.and_then(|read| read.bytes_per_s)))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
