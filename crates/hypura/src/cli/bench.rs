//! `hypura bench`: the same work in several ways, in turns; and the hidden `bench-arm`, one way in a process
//! of its own.

use anyhow::Context as _;
use clap::ValueEnum;
use hypura_core::speculate::AcceptanceCurve;
use hypura_engine::device::DeviceChoice;
use hypura_engine::load::{Drafting, LoadSettings};
use hypura_engine::machine;
use hypura_engine::profile::{Need, Wanted};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::failure::{UsageError, complain};
use super::flags::{Env, MemorySize, ModelFlags, parse_bytes};
use super::interrupt::Interrupt;
use super::profile::{disk_target, known_beside, remembered_with_gpu};
use super::workers;
use crate::bench::{
    Arm, Job, Launcher, Look, Predictor, Stop, Stopped, Work, read_trace, render, run, run_arm, wait_for_go,
};

/// Flags of `hypura bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelFlags,

    /// What is measured
    #[arg(long, value_enum, default_value = "auto", value_name = "ARM", help_heading = "Benchmark")]
    arm: Arm,

    /// What it is held against, several with commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "mmap",
        value_name = "ARM,…|none",
        help_heading = "Benchmark"
    )]
    against: Vec<Against>,

    /// Tokens of the prompt
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = at_least_one, help_heading = "Benchmark")]
    prompt: usize,

    /// Tokens decoded and measured
    #[arg(long = "gen", default_value_t = 64, value_name = "N", value_parser = at_least_one, help_heading = "Benchmark")]
    generate: usize,

    /// Tokens decoded before them, not measured
    #[arg(long, default_value_t = 8, value_name = "N", help_heading = "Benchmark")]
    warmup: usize,

    /// Rounds; in each of them every arm runs once, forwards and backwards in turn
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = at_least_one, help_heading = "Benchmark")]
    pairs: usize,

    /// Seed of the tokens
    #[arg(long, default_value_t = 1, value_name = "SEED", help_heading = "Benchmark")]
    seed: u64,

    /// Hold each arm to this much memory, page cache included, in a control group (root on Linux)
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Benchmark")]
    memcap: Option<u64>,

    /// Memory of the GPU for llama.cpp's own cache of experts, in the arms moe-cache and mmap-moe-cache
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Benchmark")]
    moe_cache: Option<u64>,

    /// Force the routers' choices from this trace (for tests: the text is nonsense, the reads are those of a
    /// real model)
    #[arg(long, value_name = "TRACE", help_heading = "Benchmark")]
    routes: Option<PathBuf>,

    /// Force how often drafts come true, by position: 0.88, or 0.9,0.8 (for models that agree with no draft;
    /// a model that --draft names still takes its time)
    #[arg(long, value_name = "CURVE", help_heading = "Benchmark")]
    accept: Option<AcceptanceCurve>,

    /// Percent of the answer's tokens that repeat those of the prompt, as when a text is edited
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100), help_heading = "Benchmark")]
    repeat: u64,

    /// Go on afterwards with prompts and answers of many lengths, for so many seconds in each run, and look
    /// at the memory
    #[arg(long, default_value_t = 0, value_name = "SECONDS", help_heading = "Benchmark")]
    soak: u64,

    /// Have the system back the memory of slots while loading, as it does that of resident weights: the
    /// prompt then pays for reading and computing only
    #[arg(long, help_heading = "Benchmark")]
    populate: bool,

    /// Predict nothing (a prediction measures this machine, once, for about 15 seconds)
    #[arg(long, help_heading = "Benchmark")]
    no_predict: bool,

    /// Also run what may drive the machine out of memory
    #[arg(long, help_heading = "Benchmark")]
    force: bool,

    /// Write the result to FILE as JSON; `-` is standard output, instead of the table
    #[arg(long, value_name = "FILE", help_heading = "Benchmark")]
    json: Option<PathBuf>,

    /// Print the table in Markdown
    #[arg(long, help_heading = "Benchmark")]
    markdown: bool,
}

/// `--against`: an arm, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    Nothing,
    Arm(Arm),
}

impl ValueEnum for Against {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Arm(Arm::Mmap),
            Self::Arm(Arm::Resident),
            Self::Arm(Arm::Plain),
            Self::Arm(Arm::CpuMoe),
            Self::Arm(Arm::MoeCache),
            Self::Arm(Arm::MmapMoeCache),
            Self::Arm(Arm::Auto),
            Self::Arm(Arm::Stream),
            Self::Arm(Arm::Naive),
            Self::Arm(Arm::Blind),
            Self::Arm(Arm::Undrafted),
            Self::Nothing,
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::Nothing => Some(clap::builder::PossibleValue::new("none").help("Nothing")),
            Self::Arm(arm) => arm.to_possible_value(),
        }
    }
}

/// Flags of the hidden `hypura bench-arm`: those of the benchmark, and which arm this is.
#[derive(Debug, clap::Args)]
pub struct ArmArgs {
    #[command(flatten)]
    bench: Args,

    /// The arm to run
    #[arg(long, value_enum)]
    run_arm: Arm,

    /// The disk of the model, by its name in /sys/block
    #[arg(long)]
    disk: Option<String>,
}

/// Runs the benchmark.
///
/// # Errors
/// What stopped it.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let job = args.job()?;
    let stop = Stop::install()?;
    let mut say = |line: &str| {
        // Progress is optional; a closed stderr is no reason to stop.
        let _ = writeln!(io::stderr(), "{line}");
    };
    let report = match run(&job, &stop, &mut say) {
        Ok(report) => report,
        Err(error) if error.is::<Stopped>() => {
            complain("stopped; what the benchmark had changed on this machine is as it was");
            return Ok(Interrupt::exit_code());
        }
        Err(error) => return Err(error),
    };
    let json = serde_json::to_string_pretty(&report).context("cannot write the result as JSON")?;
    let mut out = io::stdout().lock();
    match args.json.as_deref() {
        Some(path) if path.as_os_str() == "-" => writeln!(out, "{json}")?,
        other => {
            if let Some(path) = other {
                std::fs::write(path, json + "\n")
                    .with_context(|| format!("cannot write the result to {}", path.display()))?;
            }
            let look = if args.markdown { Look::Markdown } else { Look::Plain };
            write!(out, "{}", render(&report, look))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs one arm; the result goes to stdout as JSON.
///
/// # Errors
/// What stopped it.
pub fn execute_arm(args: &ArmArgs) -> anyhow::Result<ExitCode> {
    wait_for_go()?;
    let bench = &args.bench;
    let disk = args.disk.as_deref();
    let (path, mut settings) = (bench.model.path()?, bench.settings()?);
    if args.run_arm == Arm::Auto {
        workers::open(&settings.model.workers)?;
        settings.model.speeds =
            known_beside(&path, settings.tuning.threads).filter(|_| !settings.model.workers.is_empty());
    } else {
        // What they are held against is this machine alone.
        settings.model.workers.clear();
    }
    let run = run_arm(&path, args.run_arm, settings, &bench.work(), disk)?;
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &run)?;
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn work(&self) -> Work {
        Work {
            prompt: self.prompt,
            warmup: self.warmup,
            generate: self.generate,
            seed: self.seed,
            soak_s: self.soak,
            moe_cache_bytes: self.moe_cache.unwrap_or(0),
            repeat_percent: self.repeat,
        }
    }

    fn settings(&self) -> anyhow::Result<LoadSettings> {
        let env = Env::of_process();
        let mut settings = self.model.settings(&env)?;
        if self.model.leaves_the_device_open(&env) {
            // Its arms are ways to stream beside the CPU; limits and predictions are the CPU's.
            settings.model.device.choice = DeviceChoice::None;
        }
        // All arms compute the same graphs, with the same threads.
        settings.tuning.threads_may_fall = false;
        settings.model.ubatch_may_grow = false;
        settings.model.context_may_grow = false;
        settings.hooks.populate_first = self.populate;
        let speculation = &mut settings.tuning.speculation;
        if self.accept.is_some() && speculation.drafting == Drafting::Requested {
            speculation.drafting = Drafting::Auto;
        }
        speculation.forced.clone_from(&self.accept);
        if let Some(path) = &self.routes {
            settings.tuning.routes.forced = Some(Arc::new(read_trace(path)?));
            settings.tuning.routes.forced_from = Some(path.clone());
        }
        Ok(settings)
    }

    fn job(&self) -> anyhow::Result<Job> {
        let asked = self.settings()?;
        Ok(Job {
            path: self.model.path()?,
            arms: self.arms()?,
            work: self.work(),
            pairs: self.pairs,
            memory_bytes: self.model.memory.map(|size| match size {
                MemorySize::Bytes(bytes) => bytes,
                MemorySize::Percent(_) => asked.model.budget_bytes,
            }),
            asked: asked.clone(),
            memcap_bytes: self.memcap,
            routes: self.routes.as_ref().map(|path| path.display().to_string()),
            accept: self.accept.as_ref().map(ToString::to_string),
            force: self.force,
            predictor: self.predictor(&asked)?,
            launcher: Launcher { program: this_program()?, flags: own_flags() },
        })
    }

    /// With the profile of the disk that the model is on.
    fn predictor(&self, asked: &LoadSettings) -> anyhow::Result<Option<Predictor>> {
        // Workers are not asked what they have free.
        if self.no_predict || !Predictor::is_about(self.arm) || !asked.model.workers.is_empty() {
            return Ok(None);
        }
        let path = self.model.path()?;
        let bytes = path.metadata().map(|metadata| metadata.len());
        let Ok(bytes) = bytes else { return Ok(None) };
        let target = disk_target(Some(&path), bytes);
        let need = Need { target: &target, threads: asked.tuning.threads, disk: true };
        let remembered = remembered_with_gpu(&need, Wanted::Sound, &asked.model.device)?;
        let mut asked = asked.clone();
        if let (None, Some(cap)) = (self.model.memory, self.memcap) {
            asked.model.budget_bytes = machine::default_budget_bytes(cap).min(asked.model.budget_bytes);
        }
        Ok(Predictor::new(remembered.profile, self.arm, &asked, self.work()))
    }

    /// The measured arm, then the others.
    fn arms(&self) -> anyhow::Result<Vec<Arm>> {
        let mut arms = vec![self.arm];
        for against in &self.against {
            match against {
                Against::Nothing if self.against.len() > 1 => {
                    let why = "--against none means nothing else: leave `none` or the rest out";
                    return Err(UsageError(why.to_owned()).into());
                }
                Against::Arm(arm) if arms.contains(arm) => {
                    let why = format!("the {} arm would be held against itself or run twice", arm.name());
                    return Err(UsageError(why).into());
                }
                Against::Arm(arm) => arms.push(*arm),
                Against::Nothing => {}
            }
        }
        Ok(arms)
    }
}

fn this_program() -> anyhow::Result<Vec<OsString>> {
    Ok(vec![std::env::current_exe().context("cannot find this program, to start it again")?.into()])
}

/// What came after `hypura bench`: arms get the same flags, so that none can be forgotten.
fn own_flags() -> Vec<OsString> {
    std::env::args_os().skip(2).collect()
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("`{text}` is no number")),
    }
}
