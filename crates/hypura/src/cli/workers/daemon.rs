//! `hypura worker`: offers the memory of this machine to others that know its pairing code.

use anyhow::Context as _;
use hypura_core::plan::human_bytes;
use hypura_core::profile::{GpuRates, Profile, WorkerRates};
use hypura_engine::device::{DeviceChoice, DeviceOptions};
use hypura_engine::load::default_threads;
use hypura_engine::profile::{Need, Wanted, cache_folder, gpu_rates};
use hypura_engine::{machine, system, workers};
use hypura_workers::cache::WeightCache;
use hypura_workers::code::CodeFolder;
use hypura_workers::daemon::{Worker, serve};
use hypura_workers::discover::announce;
use hypura_workers::grants::Grants;
use hypura_workers::message::Offer;
use hypura_workers::{PORT, client};
use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::identity;
use crate::cli::failure::complain;
use crate::cli::flags::{MemorySize, parse_bytes};
use crate::cli::profile::remembered;

/// Most bytes of weights on the disk where nobody says how many, and the share of its free space.
const CACHE_BYTES: u64 = 64 << 30;
const CACHE_SHARE: u64 = 2;

/// Arguments of `hypura worker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the pairing code of this machine, and exit
    #[arg(long)]
    pair: bool,

    /// Address and port to listen on [default: all addresses, port 11436]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Memory to offer: 8GiB, 60% of the machine [default: what is free, less headroom]
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,

    /// Device that computes, as `hypura doctor` names it
    #[arg(long, value_name = "NAME", default_value = "CPU")]
    device: String,

    /// Threads that compute, always [default: one for each processor, fewer while other programs use them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: Option<u32>,

    /// Weights kept on the disk, so that they cross the link once; 0 for none [default: 64 GiB, at most half
    /// of what is free]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    cache: Option<u64>,

    /// Offer the rates in this file in place of measured ones, for tests
    #[arg(long, value_name = "FILE", hide = true)]
    rates: Option<PathBuf>,

    /// Do not announce the worker on the local network
    #[arg(long)]
    no_announce: bool,
}

/// Serves until a signal.
///
/// # Errors
/// A port that is taken, a device that does not exist, files of codes that others may read.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let codes = CodeFolder::of_environment().context("there is no folder for pairing codes: set HOME")?;
    let code = codes.own()?;
    if args.pair {
        writeln!(io::stdout(), "{code}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(io::stderr);
    // A second log of one process changes nothing.
    let _ = log.with_target(false).try_init();
    let device = workers::describe(&args.device)
        .with_context(|| format!("there is no device {}: `hypura doctor` lists them", args.device))?;
    let memory_bytes = memory_bytes(args)?;
    // What is wrong is told before anything is measured.
    let listener = listen(args.listen.as_deref())?;
    let threads = args.threads.unwrap_or_else(default_threads);
    let cache = cache(args.cache)?;
    let rates = rates(args, threads)?;
    let local = listener.local_addr().context("the port has no address")?;
    let identity = identity();
    // Where the network has no multicast, it is found by its address.
    let announced = (!args.no_announce).then(|| announce(&identity, local.port()));
    let announced = announced.and_then(|announced| {
        announced.inspect_err(|error| complain(&format!("note: not announced: {error}"))).ok()
    });
    writeln!(
        io::stdout(),
        "worker on {local}: {} of memory, {device}, {threads} threads",
        human_bytes(memory_bytes)
    )?;
    io::stdout().flush()?;
    let folder = cache.as_ref().map(|cache| cache.folder().to_owned());
    let offer = Offer { memory_bytes, total_bytes: memory_bytes, device, threads, rates: Some(rates) };
    let command = command(args.device.clone(), threads, args.threads.is_none(), folder);
    let worker = Worker { identity, code, grants: Grants::of(memory_bytes), offer, cache, command };
    serve(worker, &listener)?;
    drop(announced);
    Ok(ExitCode::SUCCESS)
}

/// How fast this machine computes, measured once, for those that plan with it.
fn rates(args: &Args, threads: u32) -> anyhow::Result<String> {
    if let Some(path) = &args.rates {
        return std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let rates =
        if args.device == "CPU" {
            let need = Need { target: Path::new("/"), threads, disk: false };
            let Profile { matmul, attention, overhead, .. } = remembered(&need, Wanted::Any)?.profile;
            WorkerRates { matmul, attention, overhead, ..WorkerRates::default() }
        } else {
            let choice = DeviceChoice::Named(args.device.clone());
            let options = DeviceOptions { choice, ..DeviceOptions::default() };
            let found = gpu_rates(cache_folder().as_deref(), &options);
            found.map_or_else(WorkerRates::default, |GpuRates { matmul, attention, overhead, .. }| {
                WorkerRates { matmul, attention, overhead, ..WorkerRates::default() }
            })
        };
    Ok(serde_json::to_string(&rates)?)
}

/// The command of a session's process: this program again.
fn command(
    device: String,
    threads: u32,
    adapt: bool,
    cache: Option<PathBuf>,
) -> Box<dyn Fn(u64) -> io::Result<Command> + Send + Sync> {
    Box::new(move |memory_bytes| {
        // Also where its file was replaced meanwhile.
        let program = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe()?
        };
        let mut command = Command::new(program);
        command.arg("worker-session").args(["--device", &device]).args(["--threads", &threads.to_string()]);
        command.args(["--memory", &memory_bytes.to_string()]);
        if adapt {
            command.arg("--adapt");
        }
        if let Some(cache) = &cache {
            command.arg("--cache").arg(cache);
        }
        // ggml would start a debugger to print a stack.
        command.env("GGML_NO_BACKTRACE", "1").env("RUST_BACKTRACE", "0");
        Ok(command)
    })
}

fn listen(address: Option<&str>) -> anyhow::Result<TcpListener> {
    let failed = |address: &str| format!("cannot listen on {address}");
    match address {
        Some(address) if address.ends_with(":0") => {
            TcpListener::bind(address).with_context(|| failed(address))
        }
        Some(address) => {
            let address = client::address_of(address)?;
            TcpListener::bind(&address).with_context(|| failed(&address))
        }
        // Both versions of the protocol where the system has both.
        None => TcpListener::bind(("::", PORT))
            .or_else(|_| TcpListener::bind(("0.0.0.0", PORT)))
            .with_context(|| failed(&format!("port {PORT}"))),
    }
}

fn memory_bytes(args: &Args) -> anyhow::Result<u64> {
    if let Some(MemorySize::Bytes(bytes)) = args.memory {
        return Ok(bytes);
    }
    let device = system::devices().into_iter().find(|device| device.name == args.device && device.is_gpu());
    if let Some(device) = device.filter(|device| !device.is_unified && args.memory.is_none()) {
        // Drivers and kernels allocate there, too.
        return Ok(device.memory_free_bytes - device.memory_free_bytes / 16);
    }
    let found =
        machine::memory_available().context("cannot find out how much memory is free: use --memory")?;
    Ok(match args.memory {
        Some(size) => size.of(machine::machine_bytes(&found)),
        None => machine::default_budget_bytes(found.room_bytes()),
    })
}

/// The folder of weights. Where nobody asked for one and it cannot be made, none are kept.
fn cache(bytes: Option<u64>) -> anyhow::Result<Option<WeightCache>> {
    let folder = cache_folder().map(|folder| folder.join("worker-weights")).filter(|_| bytes != Some(0));
    let Some(folder) = folder else { return Ok(None) };
    let open = || -> anyhow::Result<WeightCache> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let bytes = bytes.unwrap_or_else(|| CACHE_BYTES.min(free_bytes(&folder) / CACHE_SHARE));
        Ok(WeightCache::open(&folder, bytes)?)
    };
    match open().with_context(|| format!("weights cannot be kept in {}", folder.display())) {
        Ok(cache) => Ok(Some(cache)),
        Err(error) if bytes.is_none() => {
            complain(&format!("note: each load sends all of its weights: {error:#}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn free_bytes(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |facts| facts.f_bavail.saturating_mul(facts.f_frsize))
}
