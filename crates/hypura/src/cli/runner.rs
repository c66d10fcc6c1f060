//! `hypura runner`: a process for one model, started by a server that is at the other end of its standard
//! input.

use anyhow::Context as _;
use hypura_engine::{crash, device};
use hypura_server::models::{LoadOrder, advise_here, engine};
use hypura_server::quantize_here;
use hypura_server::runner::{Confinement, Hooks, confine, confine_quantizing, confine_trial, serve};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::workers;

/// Exit code of a runner that its model's C++ ended.
const CRASHED: u8 = 70;

/// Serves one model until the server ends it, or is gone.
///
/// # Errors
/// When nobody at the other end speaks as a server does.
pub fn execute() -> anyhow::Result<ExitCode> {
    let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let socket = socket.and_then(|socket| socket.peer_addr().map(|_| socket));
    let socket = socket.context("a runner is started by hypura serve")?;
    crash::install("", CRASHED);
    // The server is told by whoever wants an end, and ends its runners.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::<AtomicBool>::default()).context("cannot listen to signals")?;
    }
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false).without_time();
    // A second log of one process changes nothing.
    let _ = log.with_target(false).with_level(false).with_writer(io::stderr).try_init();
    // Whatever it does then is for nobody, and may never end.
    let gone = || std::process::abort();
    let (plan, try_template, quantize) = (engine::plan, engine::try_template, quantize_here);
    let (confine, advise) = (open_and_confine, advise_here);
    serve(
        socket,
        Hooks { confine, plan, advise, confine_trial, try_template, confine_quantizing, quantize, gone },
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Sockets to workers, and what a GPU's driver needs, are opened first: neither is among what a runner keeps.
fn open_and_confine(order: &LoadOrder) -> Confinement {
    workers::open_in_runner(&order.settings.model.workers);
    let has_gpu = device::open(&order.settings.model.device);
    confine(order, has_gpu)
}
