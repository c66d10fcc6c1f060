//! What a server takes: flags, and what a flag does not say Ollama's variables, so that service files written
//! for Ollama work.
//!
//! A flag that makes no sense is an error; a variable that makes none is ignored with a warning, as in
//! Ollama, because it may be meant for that.

use hypura_engine::load::LoadSettings;
use hypura_engine::serve::RunnerSettings;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::environment::Env;
use super::load::{KvArg, LoadFlags};
use super::resolve::{Flags, beyond, resolve};
use super::size::{MemorySize, parse_bytes};
use crate::cli::failure::UsageError;
use hypura_server::HttpSettings;
use hypura_server::address::{Address, stripped};
use hypura_server::keep_alive::KeepAlive;
use hypura_server::models::ManagerSettings;
use hypura_server::origins::Origins;
use hypura_server::runner::Limits;

/// Ollama's defaults.
const DEFAULT_QUEUE: usize = 512;
const DEFAULT_LOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of KV cache on disk, where a folder for it is named.
const DEFAULT_KV_QUOTA_BYTES: u64 = 8 << 30;

/// Flags of `hypura serve`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeFlags {
    /// GGUF files to serve beside the installed models, or names of models that must be installed
    #[arg(value_name = "MODEL")]
    pub models: Vec<PathBuf>,

    /// Address to listen on [env: OLLAMA_HOST] [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,

    /// Port to listen on; 0 takes any that is free [env: OLLAMA_HOST] [default: 11434]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,

    /// Key that every request must bring, as `Authorization: Bearer KEY`
    #[arg(long, value_name = "KEY", env = "HYPURA_API_KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// File with that key, which other users cannot read off the list of processes
    #[arg(long, value_name = "FILE", env = "HYPURA_API_KEY_FILE", conflicts_with = "api_key")]
    api_key_file: Option<PathBuf>,

    /// Web pages that may call, with commas; `*` stands for anything [env: OLLAMA_ORIGINS]
    #[arg(long, value_name = "ORIGINS")]
    origins: Option<String>,

    /// Requests that one model works on at once [env: OLLAMA_NUM_PARALLEL] [default: 1]
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,

    /// Requests that may wait [env: OLLAMA_MAX_QUEUE] [default: 512]
    #[arg(long, value_name = "N")]
    max_queue: Option<usize>,

    /// Most models at once; 0: as many as fit [env: OLLAMA_MAX_LOADED_MODELS] [default: 0]
    #[arg(long, value_name = "N")]
    max_loaded: Option<usize>,

    /// How long a model stays after its last request: 5m, 300, -1 for ever [env: OLLAMA_KEEP_ALIVE] [default:
    /// 5m]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = keep_alive)]
    keep_alive: Option<KeepAlive>,

    /// Folder for the KV cache of idle conversations; without it nothing is written
    #[arg(long, value_name = "FOLDER")]
    kv_cache_dir: Option<PathBuf>,

    /// Most bytes in that folder [default: 8GiB]
    #[arg(long, value_name = "SIZE", requires = "kv_cache_dir", value_parser = some_bytes)]
    kv_cache_quota: Option<u64>,

    /// Log more [env: OLLAMA_DEBUG]
    #[arg(long, short)]
    verbose: bool,

    /// Memory for all models together: 8GiB, 60% [default: what is free, less headroom]
    #[arg(long, value_name = "SIZE", help_heading = "Memory")]
    memory: Option<MemorySize>,

    /// Context of requests that ask for none, in tokens [env: OLLAMA_CONTEXT_LENGTH] [default: 4096, or more
    /// where that takes little memory]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Model")]
    ctx: Option<u32>,

    /// Projector with which the GGUF file that is served sees images and hears sounds [default: the one
    /// beside it]
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub mmproj: Option<PathBuf>,

    /// Seconds without a sign of life after which a model's process is ended, for tests
    #[arg(long, value_name = "SECONDS", hide = true)]
    runner_deadline: Option<u64>,

    #[command(flatten)]
    load: LoadFlags,
}

/// A server, fully decided.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Where it listens.
    pub address: Address,
    /// How it speaks HTTP.
    pub http: HttpSettings,
    /// How models come and go.
    pub manager: ManagerSettings,
    /// How each model is loaded; budget, sequences and, where a request asks, context are set for each.
    pub load: LoadSettings,
    /// How requests run.
    pub runner: RunnerSettings,
    /// What the process of each model is held to.
    pub limits: Limits,
    /// Whether more is logged.
    pub verbose: bool,
    /// Variables that were ignored, and why.
    pub warnings: Vec<String>,
}

impl ServeFlags {
    /// Decides, with the variables for what no flag says.
    ///
    /// # Errors
    /// As [`resolve`]; [`UsageError`] for an address that is none.
    pub fn resolve(&self, env: &Env) -> anyhow::Result<Serving> {
        let mut variables = Variables { env, warnings: Vec::new() };
        let address = self.address(&mut variables)?;
        let load = self.load_settings(&mut variables)?;
        let max_queue =
            self.max_queue.or_else(|| variables.number("OLLAMA_MAX_QUEUE")).unwrap_or(DEFAULT_QUEUE);
        let parallel = self.parallel.or_else(|| variables.number("OLLAMA_NUM_PARALLEL")).unwrap_or(1).max(1);
        let manager = self.manager(&mut variables, load.model.budget_bytes, max_queue);
        variables.warnings.extend(env.memory().ok().and_then(|memory| beyond(manager.budget_bytes, &memory)));
        let http = self.http(&address, env)?;
        if !http.loopback && http.api_key.is_none() {
            let address = address.authority();
            variables.warnings.push(format!(
                "every machine that reaches {address} may use this server, load and delete models: --api-key-file \
                 or HYPURA_API_KEY asks for a key"
            ));
        }
        Ok(Serving {
            http,
            limits: self.limits(manager.load_timeout),
            manager,
            runner: RunnerSettings {
                parallel,
                max_queue,
                kv_cache_dir: self.kv_cache_dir.clone(),
                kv_cache_quota_bytes: self.kv_cache_quota.unwrap_or(DEFAULT_KV_QUOTA_BYTES),
                memory: None,
            },
            verbose: self.verbose || env.variable("OLLAMA_DEBUG").is_some_and(|value| !is_no(&value)),
            address,
            load,
            warnings: variables.warnings,
        })
    }

    /// Flags over the variable: what `--host` leaves open, port or host, is as the variable says.
    fn address(&self, variables: &mut Variables<'_>) -> anyhow::Result<Address> {
        let named = Address::parse(&variables.env.variable("OLLAMA_HOST").unwrap_or_default());
        let mut address = match self.host.as_deref() {
            None => named.clone(),
            Some(host) => {
                let given = Address::parse(host);
                if let Some(warning) = given.warning {
                    return Err(UsageError(format!("--host {host}: {warning}")).into());
                }
                let port = if given.names_port { given.port } else { named.port };
                Address { port, warning: None, ..given }
            }
        };
        address.port = self.port.unwrap_or(address.port);
        // A bad port that nothing uses is nobody's business.
        let used = self.port.is_none() && address.port == named.port;
        if let Some(warning) = named.warning.filter(|_| used) {
            variables.warnings.push(format!("OLLAMA_HOST: {warning}"));
        }
        Ok(address)
    }

    fn http(&self, address: &Address, env: &Env) -> anyhow::Result<HttpSettings> {
        let origins = self.origins.clone().or_else(|| env.variable("OLLAMA_ORIGINS")).unwrap_or_default();
        Ok(HttpSettings {
            origins: Origins::of_list(&origins),
            api_key: self.key()?,
            loopback: is_loopback(&address.host),
            ..HttpSettings::default()
        })
    }

    /// The key of the file, or the one that was named.
    fn key(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.api_key_file else {
            let key = self.api_key.as_deref().map(stripped).filter(|key| !key.is_empty());
            return Ok(key.map(str::to_owned));
        };
        let cannot =
            |why: String| UsageError(format!("the API key cannot be read from {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| cannot(error.to_string()))?;
        match text.trim() {
            "" => Err(cannot("it is empty".to_owned()).into()),
            key => Ok(Some(key.to_owned())),
        }
    }

    fn manager(&self, variables: &mut Variables<'_>, budget_bytes: u64, max_queue: usize) -> ManagerSettings {
        let keep_alive = self.keep_alive.or_else(|| variables.time("OLLAMA_KEEP_ALIVE"));
        let load_timeout = match variables.time("OLLAMA_LOAD_TIMEOUT") {
            None => DEFAULT_LOAD_TIMEOUT,
            Some(KeepAlive::For(timeout)) if !timeout.is_zero() => timeout,
            Some(_) => Duration::MAX,
        };
        let max_loaded = self.max_loaded.or_else(|| variables.number("OLLAMA_MAX_LOADED_MODELS"));
        ManagerSettings {
            budget_bytes,
            keep_alive: keep_alive.unwrap_or(KeepAlive::DEFAULT),
            max_loaded: max_loaded.unwrap_or(0),
            max_queue,
            load_timeout,
        }
    }

    fn limits(&self, load_timeout: Duration) -> Limits {
        let limits = Limits { load: load_timeout, ..Limits::default() };
        match self.runner_deadline.map(Duration::from_secs) {
            Some(deadline) => Limits {
                silence: deadline,
                text: deadline,
                template: deadline,
                plan: deadline,
                step: deadline,
                ..limits
            },
            None => limits,
        }
    }

    fn load_settings(&self, variables: &mut Variables<'_>) -> anyhow::Result<LoadSettings> {
        let context = self.ctx.or_else(|| variables.number("OLLAMA_CONTEXT_LENGTH"));
        let kv = self.load.kv.or_else(|| variables.kv("OLLAMA_KV_CACHE_TYPE"));
        let load = LoadFlags { kv, ..self.load.clone() };
        let flags = Flags {
            memory: self.memory,
            // Zero is the default, as in Ollama.
            context: context.filter(|tokens| *tokens > 0),
            // A projector belongs to its model.
            projector: None,
            load: &load,
        };
        let mut settings = resolve(&flags, variables.env)?;
        // Nobody waits long for another's prompt.
        settings.model.ubatch_may_grow = false;
        Ok(settings)
    }
}

/// The variables, and what was wrong with them.
struct Variables<'a> {
    env: &'a Env,
    warnings: Vec<String>,
}

impl Variables<'_> {
    fn read<T>(&mut self, name: &str, kind: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.env.variable(name)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.warnings.push(format!("{name}={value} is no {kind} and is ignored"));
        }
        parsed
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        self.read(name, "number", |text| text.parse().ok())
    }

    fn time(&mut self, name: &str) -> Option<KeepAlive> {
        self.read(name, "time like 5m, 300 or -1", KeepAlive::of_env)
    }

    fn kv(&mut self, name: &str) -> Option<KvArg> {
        self.read(name, "type of a KV cache that Hypura has (f16, q8_0)", |text| {
            match text.to_ascii_lowercase().as_str() {
                "f16" => Some(KvArg::F16),
                "q8_0" => Some(KvArg::Q8_0),
                _ => None,
            }
        })
    }
}

/// Go's words for false.
fn is_no(text: &str) -> bool {
    matches!(text, "0" | "f" | "F" | "false" | "False" | "FALSE")
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn keep_alive(text: &str) -> Result<KeepAlive, String> {
    KeepAlive::of_env(text).ok_or_else(|| "write it like 5m, 300 or -1".to_owned())
}

fn some_bytes(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("nothing can be kept in no bytes".to_owned()),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use hypura_core::plan::{CacheSize, Residency};
    use hypura_engine::load::PolicyKind;
    use hypura_engine::{KvType, ReaderKind};

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        serve: ServeFlags,
    }

    fn serving(flags: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Serving> {
        Command::try_parse_from([&["x"], flags].concat())?.serve.resolve(&Env::for_tests(variables))
    }

    fn address(flags: &[&str], host: &str) -> String {
        serving(flags, &[("OLLAMA_HOST", host)]).unwrap().address.authority()
    }

    #[test]
    fn a_host_flag_with_the_default_port_wins_over_the_variables_port() {
        assert_eq!(address(&["--host", "127.0.0.1:11434"], ":9999"), "127.0.0.1:11434");
        assert_eq!(address(&["--host", "[::1]:11434"], ":9999"), "[::1]:11434");
        assert_eq!(address(&["--host", "http://box"], ":9999"), "box:80", "a scheme has a port");
        assert_eq!(
            address(&["--host", "0.0.0.0"], "box:9999"),
            "0.0.0.0:9999",
            "a host alone leaves the port"
        );
        assert_eq!(address(&["--host", ":5"], "box:9999"), "127.0.0.1:5");
        assert_eq!(address(&["--port", "7"], "box:9999"), "box:7");
        assert_eq!(address(&["--host", "a:5", "--port", "7"], "box:9999"), "a:7");
        assert_eq!(address(&[], ""), "127.0.0.1:11434");
    }

    #[test]
    fn a_key_comes_from_a_file_or_the_server_does_not_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let flags = ["--api-key-file", path.to_str().unwrap()];
        assert!(
            serving(&flags, &[]).unwrap_err().is::<UsageError>(),
            "never without the key that was asked for"
        );
        std::fs::write(&path, " \n").unwrap();
        assert!(serving(&flags, &[]).unwrap_err().is::<UsageError>());
        std::fs::write(&path, "secret\n").unwrap();
        assert_eq!(serving(&flags, &[]).unwrap().http.api_key.as_deref(), Some("secret"));
    }

    #[test]
    fn an_open_server_without_a_key_is_warned_about() {
        let warnings = |flags: &[&str]| serving(flags, &[]).unwrap().warnings.join("\n");
        assert!(warnings(&["--host", "0.0.0.0"]).contains("every machine that reaches 0.0.0.0:11434"));
        assert!(warnings(&["--host", "::"]).contains("every machine"));
        assert_eq!(warnings(&["--host", "0.0.0.0", "--api-key", "k"]), "");
        assert_eq!(warnings(&["--host", "127.0.0.2"]), "");
    }

    #[test]
    fn a_bad_port_is_an_error_in_a_flag_and_a_warning_in_a_variable() {
        let error = serving(&["--host", "box:99999"], &[]).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("99999"), "{error}");
        let bad = [("OLLAMA_HOST", "box:x")];
        let found = serving(&[], &bad).unwrap();
        assert_eq!(found.address.authority(), "box:11434");
        assert!(found.warnings.iter().any(|warning| warning.contains("OLLAMA_HOST")), "{:?}", found.warnings);
        let warnings = serving(&["--port", "5"], &bad).unwrap().warnings;
        assert!(
            !warnings.iter().any(|warning| warning.contains("OLLAMA_HOST")),
            "nothing uses it: {warnings:?}"
        );
    }

    fn context(serving: &Serving) -> (u32, bool) {
        (serving.load.model.context, serving.load.model.context_may_grow)
    }

    #[test]
    fn every_variable_that_makes_no_sense_is_told_and_ignored() {
        let names = [
            "OLLAMA_LOAD_TIMEOUT",
            "OLLAMA_KEEP_ALIVE",
            "OLLAMA_NUM_PARALLEL",
            "OLLAMA_MAX_QUEUE",
            "OLLAMA_MAX_LOADED_MODELS",
            "OLLAMA_CONTEXT_LENGTH",
            "OLLAMA_KV_CACHE_TYPE",
        ];
        let bad = names.map(|name| (name, "soon"));
        let found = serving(&[], &bad).unwrap();
        for name in names {
            let told =
                found.warnings.iter().filter(|warning| warning.contains(&format!("{name}=soon"))).count();
            assert_eq!(told, 1, "{name}: {:?}", found.warnings);
        }
        let none = serving(&[], &[]).unwrap();
        assert_eq!(none.warnings, Vec::<String>::new());
        assert_eq!(found.manager.load_timeout, Duration::from_secs(300));
        assert_eq!(found.manager.keep_alive, KeepAlive::DEFAULT);
        assert_eq!((found.runner.parallel, found.runner.max_queue), (1, 512));
        assert_eq!((found.manager.max_loaded, context(&found)), (0, (4096, true)));
        assert!(found.load.model.kv_may_shrink);
    }

    #[test]
    fn variables_count_where_no_flag_says_otherwise() {
        let variables = [
            ("OLLAMA_LOAD_TIMEOUT", "'90s'"),
            ("OLLAMA_KEEP_ALIVE", "-1"),
            ("OLLAMA_NUM_PARALLEL", "3"),
            ("OLLAMA_MAX_QUEUE", "9"),
            ("OLLAMA_MAX_LOADED_MODELS", "2"),
            ("OLLAMA_CONTEXT_LENGTH", "512"),
            ("OLLAMA_KV_CACHE_TYPE", "q8_0"),
            ("OLLAMA_DEBUG", "1"),
        ];
        let found = serving(&[], &variables).unwrap();
        assert_eq!(found.manager.load_timeout, Duration::from_secs(90));
        assert_eq!((found.manager.keep_alive, found.manager.max_loaded), (KeepAlive::Ever, 2));
        assert_eq!((found.runner.parallel, found.runner.max_queue, found.manager.max_queue), (3, 9, 9));
        assert_eq!((context(&found), found.load.model.kv), ((512, false), KvType::Q8_0));
        assert!(found.verbose);
        let flags =
            ["--keep-alive=1h", "--parallel=2", "--max-queue=1", "--max-loaded=1", "--ctx=64", "--kv=auto"];
        let found = serving(&flags, &variables).unwrap();
        assert_eq!(found.manager.keep_alive, KeepAlive::For(Duration::from_secs(3600)));
        assert_eq!((found.runner.parallel, found.runner.max_queue, found.manager.max_loaded), (2, 1, 1));
        assert_eq!((context(&found), found.load.model.kv), ((64, false), KvType::F16));
        let zero = [("OLLAMA_CONTEXT_LENGTH", "0"), ("OLLAMA_LOAD_TIMEOUT", "0"), ("OLLAMA_DEBUG", "FALSE")];
        let found = serving(&[], &zero).unwrap();
        assert_eq!((context(&found), found.manager.load_timeout), ((4096, true), Duration::MAX));
        assert!(!found.verbose);
    }

    #[test]
    fn a_server_takes_the_flags_of_a_run() {
        let flags = [
            "--memory=1GiB",
            "--residency=stream",
            "--stream-cache=2GiB",
            "--cache-policy=lru",
            "--reader=pread",
            "--ubatch=64",
            "--threads=3",
            "--kv=q8_0",
        ];
        let found = serving(&flags, &[]).unwrap();
        assert_eq!(found.manager.budget_bytes, 1 << 30);
        let LoadSettings { model, tuning, .. } = found.load;
        assert_eq!((model.residency, model.cache), (Residency::Stream, Some(CacheSize::Bytes(2 << 30))));
        assert_eq!((model.kv, model.kv_may_shrink, model.ubatch), (KvType::Q8_0, false, 64));
        assert_eq!((tuning.policy, tuning.threads), (PolicyKind::Lru, 3));
        assert!(matches!(tuning.reader, ReaderKind::Pread));
        assert!(
            !serving(&[], &[]).unwrap().load.model.ubatch_may_grow,
            "others would wait for a long prompt"
        );
    }

    #[test]
    fn times_and_quotas_that_are_none_are_refused() {
        for flags in [&["--keep-alive", "soon"][..], &["--kv-cache-dir", "x", "--kv-cache-quota", "50%"]] {
            assert!(Command::try_parse_from([&["x"], flags].concat()).is_err(), "{flags:?}");
        }
    }
}
