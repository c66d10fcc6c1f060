//! `hypura serve`: flags and environment become a server.
//!
//! What a flag does not say, the environment says in Ollama's variables, so that service files written for Ollama work;
//! quotes and blanks around their values are taken off.

use anyhow::Context as _;
use hypura_engine::load::{LoadSettings, default_threads};
use hypura_engine::machine;
use hypura_engine::media::PlannedProjector;
use hypura_engine::serve::RunnerSettings;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::{MemorySize, UsageError};
use hypura_server::address::{Address, stripped};
use hypura_server::keep_alive::KeepAlive;
use hypura_server::models::{
    Catalog, EngineBackend, LookupError, ManagerSettings, ModelManager, StoreCatalog,
};
use hypura_server::origins::Origins;
use hypura_server::{HttpSettings, Server, serve};
use hypura_store::Store;

/// Context when neither a request, nor the model, nor the environment asks for another.
const DEFAULT_CONTEXT: u32 = 4096;
/// Ollama's defaults.
const DEFAULT_QUEUE: usize = 512;
const DEFAULT_LOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of KV cache on disk, where a folder for it is named.
const DEFAULT_KV_QUOTA_BYTES: u64 = 8 << 30;

/// Flags of `hypura serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// GGUF files to serve beside the installed models, or names of models that must be installed
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,

    /// Address to listen on [env: OLLAMA_HOST] [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,

    /// Port to listen on; 0 takes any that is free [env: OLLAMA_HOST] [default: 11434]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Key that every request must bring, as `Authorization: Bearer KEY`
    #[arg(long, value_name = "KEY", env = "HYPURA_API_KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// Web pages that may call, with commas; `*` stands for anything [env: OLLAMA_ORIGINS]
    #[arg(long, value_name = "ORIGINS")]
    origins: Option<String>,

    /// Memory for all models together: 8GiB, 60% [default: what is free, less headroom]
    #[arg(long, value_name = "SIZE")]
    memory: Option<MemorySize>,

    /// Requests that one model works on at once [env: OLLAMA_NUM_PARALLEL] [default: 1]
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,

    /// Requests that may wait [env: OLLAMA_MAX_QUEUE] [default: 512]
    #[arg(long, value_name = "N")]
    max_queue: Option<usize>,

    /// Most models at once; 0: as many as fit [env: OLLAMA_MAX_LOADED_MODELS] [default: 0]
    #[arg(long, value_name = "N")]
    max_loaded: Option<usize>,

    /// How long a model stays after its last request: 5m, 300, -1 for ever [env: OLLAMA_KEEP_ALIVE] [default: 5m]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    keep_alive: Option<String>,

    /// Context of requests that ask for none, in tokens [env: OLLAMA_CONTEXT_LENGTH] [default: 4096]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    ctx: Option<u32>,

    /// Folder for the KV cache of idle conversations; without it nothing is written
    #[arg(long, value_name = "FOLDER")]
    kv_cache_dir: Option<PathBuf>,

    /// Most bytes in that folder [default: 8GiB]
    #[arg(long, value_name = "SIZE", requires = "kv_cache_dir")]
    kv_cache_quota: Option<MemorySize>,

    /// Projector with which the GGUF file that is served sees images and hears sounds [default: the one beside it]
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,

    /// Threads that compute [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: Option<u32>,

    /// Log more
    #[arg(long, short)]
    verbose: bool,
}

/// Serves until a signal.
///
/// # Errors
/// Wrong usage, a port that is taken, models that are nowhere.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    start_log(args.verbose || variable("OLLAMA_DEBUG").is_some_and(|value| value != "0" && value != "false"));
    let address = address(args);
    if let Some(warning) = &address.warning {
        tracing::warn!("{warning}");
    }
    let (store, catalog) = catalog(args)?;
    let manager = manager_settings(args)?;
    let http = HttpSettings {
        origins: Origins::of_list(
            &args.origins.clone().or_else(|| variable("OLLAMA_ORIGINS")).unwrap_or_default(),
        ),
        api_key: args.api_key.as_deref().map(stripped).filter(|key| !key.is_empty()).map(str::to_owned),
        loopback: is_loopback(&address.host),
        ..HttpSettings::default()
    };
    let backend = backend(args, store)?;
    serve::raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads that serve")?;
    runtime.block_on(async {
        let listener = serve::listen(&address).await?;
        let local = listener.local_addr().context("the port has no address")?;
        let stop = serve::stop_on_signals().context("cannot watch for signals")?;
        let models = ModelManager::start(Arc::new(backend), manager).context("cannot start the loader")?;
        let installed = catalog.list().len();
        let server = Server::new(Arc::new(catalog), models, http);
        tracing::info!(address = %local, budget_bytes = manager.budget_bytes, "listening");
        serve::announce(local, installed).context("cannot write to stdout")?;
        serve::run(listener, server, stop).await.context("the server failed")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A variable without the quotes and blanks around it; empty is unset.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    Some(stripped(&value).to_owned()).filter(|value| !value.is_empty())
}

/// A number of a variable; one that is none is told and ignored.
fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = variable(name)?;
    let number = value.parse().ok();
    if number.is_none() {
        tracing::warn!("{name}={value} is no number and is ignored");
    }
    number
}

fn address(args: &Args) -> Address {
    let mut address = Address::parse(&variable("OLLAMA_HOST").unwrap_or_default());
    if let Some(host) = &args.host {
        let given = Address::parse(host);
        // A host alone leaves the port as it was.
        let has_port = given.port != Address::parse("").port;
        address.port = if has_port { given.port } else { address.port };
        address.host = given.host;
    }
    if let Some(port) = args.port {
        address.port = port;
    }
    address
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The installed models and the files that were named.
fn catalog(args: &Args) -> anyhow::Result<(Arc<Store>, StoreCatalog)> {
    let (files, names): (Vec<PathBuf>, Vec<PathBuf>) =
        args.models.iter().cloned().partition(|path| path.is_file());
    if let Some(projector) = &args.mmproj {
        if files.len() != 1 {
            let why = "--mmproj belongs to one GGUF file: name exactly one to serve";
            return Err(UsageError(why.to_owned()).into());
        }
        // Better now than with the first picture.
        PlannedProjector::of(projector, 1)?;
    }
    let store = Store::of_environment().with_files(files).with_projector(args.mmproj.clone());
    let store = Arc::new(store);
    let catalog = StoreCatalog::new(Arc::clone(&store));
    for name in names {
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
    Ok((store, catalog))
}

fn manager_settings(args: &Args) -> anyhow::Result<ManagerSettings> {
    let keep_alive = match args.keep_alive.clone().or_else(|| variable("OLLAMA_KEEP_ALIVE")) {
        None => KeepAlive::DEFAULT,
        Some(text) => KeepAlive::of_env(&text).ok_or_else(|| {
            UsageError(format!("{text} is no time to keep a model: write it like 5m, 300 or -1"))
        })?,
    };
    let load_timeout = variable("OLLAMA_LOAD_TIMEOUT").and_then(|text| KeepAlive::of_env(&text));
    Ok(ManagerSettings {
        budget_bytes: budget_bytes(args.memory)?,
        keep_alive,
        max_loaded: args.max_loaded.or_else(|| number("OLLAMA_MAX_LOADED_MODELS")).unwrap_or(0),
        max_queue: max_queue(args),
        load_timeout: match load_timeout {
            Some(KeepAlive::For(timeout)) if !timeout.is_zero() => timeout,
            Some(_) => Duration::MAX,
            None => DEFAULT_LOAD_TIMEOUT,
        },
    })
}

fn max_queue(args: &Args) -> usize {
    args.max_queue.or_else(|| number("OLLAMA_MAX_QUEUE")).unwrap_or(DEFAULT_QUEUE)
}

fn budget_bytes(memory: Option<MemorySize>) -> anyhow::Result<u64> {
    if let Some(MemorySize::Bytes(bytes)) = memory {
        return Ok(bytes);
    }
    let found = machine::memory_available().context(
        "cannot find out how much memory this machine has: say how much may be used with --memory",
    )?;
    Ok(match memory {
        Some(size) => size.of(machine::machine_bytes(&found)),
        None => machine::default_budget_bytes(found.room_bytes()),
    })
}

fn backend(args: &Args, store: Arc<Store>) -> anyhow::Result<EngineBackend> {
    let parallel = args.parallel.or_else(|| number("OLLAMA_NUM_PARALLEL")).unwrap_or(1).max(1);
    let quota = match args.kv_cache_quota {
        None => DEFAULT_KV_QUOTA_BYTES,
        Some(MemorySize::Bytes(bytes)) => bytes,
        Some(MemorySize::Percent(_)) => {
            return Err(UsageError("--kv-cache-quota takes a size, not a share".to_owned()).into());
        }
    };
    Ok(EngineBackend {
        store,
        settings: LoadSettings::default().with_threads(args.threads.unwrap_or_else(default_threads)),
        default_context: args
            .ctx
            .or_else(|| number("OLLAMA_CONTEXT_LENGTH"))
            .unwrap_or(DEFAULT_CONTEXT)
            .max(1),
        runner: RunnerSettings {
            parallel,
            max_queue: max_queue(args),
            kv_cache_dir: args.kv_cache_dir.clone(),
            kv_cache_quota_bytes: quota,
            memory: None,
        },
    })
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
