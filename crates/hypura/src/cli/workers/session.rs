//! `hypura worker-session`: the process of one session of a worker, which is at the other end of its standard
//! input.
//!
//! It computes what it is asked, and nothing that goes wrong in it reaches the worker. It gives a sign of
//! life every second on its standard output, so that one that was stopped or hangs is seen.

use anyhow::Context as _;
use hypura_engine::crash;
use hypura_engine::machine::own_memory;
use hypura_engine::workers::{self, Served};
use hypura_server::runner::confine_worker;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How often it says that it is alive.
const PULSE: Duration = Duration::from_secs(1);
/// What it may take beyond the memory that it was given: the process itself.
const SLACK_BYTES: u64 = 1 << 30;

/// Arguments of the hidden command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Device that computes
    #[arg(long)]
    pub device: String,
    /// Threads that compute
    #[arg(long)]
    pub threads: u32,
    /// Fewer of them compute while other programs use the processor
    #[arg(long)]
    pub adapt: bool,
    /// Bytes of memory that may be used
    #[arg(long)]
    pub memory: u64,
    /// Folder of weights
    #[arg(long)]
    pub cache: Option<PathBuf>,
}

/// Serves until the other end is closed.
///
/// # Errors
/// When nobody is there, or the device cannot be used.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let socket = io::stdin().as_fd().try_clone_to_owned().context("a session is started by hypura worker")?;
    crash::install("", 1);
    // Its driver opens what it needs before that is given up.
    workers::describe(&args.device).with_context(|| format!("there is no device {}", args.device))?;
    confine_worker(args.cache.as_deref());
    let most_bytes = args.memory.saturating_add(SLACK_BYTES);
    std::thread::Builder::new().name("pulse".to_owned()).spawn(move || pulse(most_bytes))?;
    let (device, cache) = (args.device.as_str(), args.cache.as_deref());
    workers::serve(&socket, &Served { device, cache, threads: args.threads, adapt: args.adapt })?;
    Ok(ExitCode::SUCCESS)
}

fn pulse(most_bytes: u64) {
    loop {
        let mut stdout = io::stdout();
        if stdout.write_all(b".").and_then(|()| stdout.flush()).is_err() {
            crash::end("the worker is gone");
        }
        if own_memory(None).is_ok_and(|memory| memory.anonymous_bytes > most_bytes) {
            crash::end("it takes more memory than this worker offers");
        }
        std::thread::sleep(PULSE);
    }
}
