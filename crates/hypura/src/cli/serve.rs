//! `hypura serve`: what was decided from flags and environment becomes a server.

use anyhow::Context as _;
use hypura_engine::media::PlannedProjector;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::failure::UsageError;
use super::flags::{Env, ServeFlags, Serving};
use hypura_server::models::{Catalog, EngineBackend, LookupError, ModelManager, StoreCatalog};
use hypura_server::runner::ProcessBackend;
use hypura_server::{Server, serve};
use hypura_store::{Store, remove_leftovers};

/// Flags of `hypura serve`.
pub type Args = ServeFlags;

/// Serves until a signal.
///
/// # Errors
/// Wrong usage, a port that is taken, models that are nowhere.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let mut serving = args.resolve(&Env::of_process())?;
    start_log(serving.verbose);
    for warning in &serving.warnings {
        tracing::warn!("{warning}");
    }
    let store = Arc::new(store(args)?);
    remove_leftovers(&store);
    let catalog = catalog(args, &store)?;
    serving.http.most_connections = serve::raise_open_files();
    let stopping = serving.http.drain_limit + serve::UNLOAD_LIMIT;
    serve::end_by_force(stopping).context("cannot watch for signals")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads that serve")?;
    runtime.block_on(listen(serving, store, catalog))?;
    // Work that nobody waits for any more does not hold up the end.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn listen(serving: Serving, store: Arc<Store>, catalog: StoreCatalog) -> anyhow::Result<()> {
    let Serving { address, http, manager, load, runner, limits, .. } = serving;
    let listener = serve::listen(&address).await?;
    let local = listener.local_addr().context("the port has no address")?;
    let stop = serve::stop_on_signals().context("cannot watch for signals")?;
    let orders = EngineBackend { store, settings: load, runner };
    let backend = ProcessBackend::new(orders, limits);
    let models = ModelManager::start(Arc::new(backend), manager).context("cannot start the loader")?;
    let installed = catalog.list().len();
    let server = Server::new(Arc::new(catalog), models, http);
    tracing::info!(address = %local, budget_bytes = manager.budget_bytes, "listening");
    serve::announce(local, installed).context("cannot write to stdout")?;
    serve::run(listener, server, stop).await.context("the server failed")
}

/// The installed models, and the files that were named.
fn store(args: &Args) -> anyhow::Result<Store> {
    let files: Vec<PathBuf> = args.models.iter().filter(|path| path.is_file()).cloned().collect();
    if let Some(projector) = &args.mmproj {
        if files.len() != 1 {
            let why = "--mmproj belongs to one GGUF file: name exactly one to serve";
            return Err(UsageError(why.to_owned()).into());
        }
        // Better now than with the first picture.
        PlannedProjector::check(projector)?;
    }
    Ok(Store::of_environment().with_files(files).with_projector(args.mmproj.clone()))
}

/// What can be served; every model that was named by name is installed.
fn catalog(args: &Args, store: &Arc<Store>) -> anyhow::Result<StoreCatalog> {
    let catalog = StoreCatalog::new(Arc::clone(store));
    for name in args.models.iter().filter(|path| !path.is_file()) {
        let text = name.to_string_lossy();
        match catalog.resolve(&text) {
            Ok(_) => {}
            Err(LookupError::Refused(failure)) => anyhow::bail!("cannot serve {text}: {failure}"),
            Err(LookupError::Invalid | LookupError::NotInstalled) => {
                let why =
                    format!("{text} is neither a file nor an installed model: `hypura list` shows those");
                return Err(UsageError(why).into());
            }
        }
    }
    Ok(catalog)
}

/// The log goes to stderr; stdout has the one line that scripts wait for.
fn start_log(verbose: bool) {
    let level = if verbose { tracing::Level::DEBUG } else { tracing::Level::INFO };
    let colours =
        std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(colours).with_target(false);
    // A second log of one process changes nothing.
    let _ = log.with_writer(std::io::stderr).try_init();
}
