//! `hypura run`: answer one prompt, or chat.
//!
//! - `sampling`: flags that say how tokens are chosen
//! - `prompt`: where the prompt comes from
//! - `media`: images and sounds, by flag or by name in the prompt
//! - `answer`: one generation, shown as it comes
//! - `chat`: the conversation on a terminal
//! - `maker`: what the maker of a stored model said: system prompt, parameters, messages
//! - `remote`: the same over a running server
//! - `stats`, `stats_file`: what it cost, for programs
//! - `report`: what it cost, for people

mod answer;
mod chat;
mod maker;
mod media;
mod prompt;
mod remote;
mod report;
mod sampling;
mod stats;
mod stats_file;

use anyhow::Context as _;
use hypura_engine::error::LoadError;
use hypura_engine::load::{LoadSettings, prepare};
use hypura_engine::machine;
use hypura_engine::media::{MediaFile, MediaKind, PlannedProjector, Senses};
use hypura_engine::request::Finish;
use hypura_engine::session::{GenerateOptions, Session, open};
use hypura_engine::source::ModelSource;
use hypura_engine::stream::{RouteLog, RouteSettings};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::failure::complain;
use super::{Interrupt, ModelArgs, Style, progress_bar};
use crate::bench::read_trace;
use answer::Answerer;
use maker::Maker;
use prompt::Input;
use stats::Start;
use stats_file::StatsFile;

/// Flags of `hypura run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// What to answer [default: standard input; on a terminal, a chat]
    prompt: Option<String>,

    /// Image to show with the prompt, for models with a projector; several times for several. Files that the prompt itself names
    /// are shown too (./cat.png)
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,

    /// Sound to play to the model with the prompt, for models with a projector for sounds: wav, mp3 or flac; several times for several.
    /// Sounds come after images
    #[arg(long, value_name = "FILE")]
    audio: Vec<PathBuf>,

    /// Give the prompt to the model as it is, without its chat template
    #[arg(long)]
    raw: bool,

    /// Most tokens to generate [default: until the answer or the context ends]
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<u32>,

    /// Go on after the token that ends the answer
    #[arg(long)]
    ignore_eos: bool,

    #[command(flatten)]
    sampling: sampling::Args,

    /// Load the model here, even if a server runs
    #[arg(long)]
    local: bool,

    /// Also tell timings, the plan, and what each tier of memory did
    #[arg(short, long)]
    verbose: bool,

    /// Write everything that was measured to FILE as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    stats_json: Option<PathBuf>,

    /// Hash all logits of every generated position: equal hashes mean equal bits
    #[arg(long)]
    logits_hash: bool,

    /// Force the routers' choices from this trace (for tests: the text is nonsense, the reads are those of a real model)
    #[arg(long, value_name = "TRACE")]
    routes: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// Whatever stands in the way of an answer.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    match remote::find(args)? {
        Some(remote) => remote::execute(args, remote),
        None => execute_routed(args, None),
    }
}

/// Runs it, and logs which experts the tokens used.
///
/// # Errors
/// As [`execute`].
pub(super) fn execute_recorded(args: &Args, log: &RouteLog) -> anyhow::Result<ExitCode> {
    execute_routed(args, Some(log.clone()))
}

fn execute_routed(args: &Args, log: Option<RouteLog>) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let mut settings = args.model.settings()?;
    settings.tuning.routes = RouteSettings { log, ..args.forced_routes()? };
    let named = args.model.find()?;
    settings.model.projector = named.projector;
    let (path, maker) = (named.path, Maker::of(named.entry));
    let media = args.media(senses_of(settings.model.projector.as_deref(), args)?)?;
    if args.model.ctx.is_none() {
        settings.model.context = maker.context.unwrap_or(settings.model.context);
    }
    let input = prompt::input(args.prompt.as_deref())?;
    let stats_file = args.stats_json.as_deref().map(StatsFile::create).transpose()?;
    let start = Start { kernel_read_bytes: machine::storage_read_bytes().ok(), loaded_bytes: 0 };
    let (mut session, start) = load(args, &path, settings, start)?;
    if let Some(template) = &maker.template {
        session.use_template(template)?;
    }
    interrupt.also_raise(&session.loaded().abort)?;
    let options = args.generate_options(&maker);
    if args.verbose {
        eprintln!("{}", Style::of_stderr().dim(&report::loaded_text(&session, options.sampler.seed)));
    }
    let mut answerer = Answerer {
        session,
        interrupt,
        options,
        start,
        verbose: args.verbose,
        stats_file,
        beginning: maker.beginning,
    };
    match input {
        Input::Text(text) => {
            let prompt = chat::first(args.raw, text, media, answerer.session.senses());
            let outcome = answerer.answer(&prompt?)?;
            answerer.report(&outcome)?;
            let stopped = outcome.outcome.finish == Finish::Stopped;
            Ok(if stopped { Interrupt::exit_code() } else { ExitCode::SUCCESS })
        }
        Input::Terminal => chat::talk(&mut answerer, args.raw, media),
    }
}

/// What a model with this projector can be shown; looked for only where something is to be shown.
fn senses_of(projector: Option<&Path>, args: &Args) -> anyhow::Result<Senses> {
    match projector {
        Some(projector) if !(args.image.is_empty() && args.audio.is_empty()) => {
            Ok(PlannedProjector::of(projector, 1)?.senses)
        }
        _ => Ok(Senses::default()),
    }
}

fn load(args: &Args, path: &Path, settings: LoadSettings, start: Start) -> anyhow::Result<(Session, Start)> {
    let planned = prepare(ModelSource::open(path)?, settings).map_err(|error| match error {
        LoadError::Plan(_) => anyhow::Error::from(error).context(format!("cannot run {}", path.display())),
        // The others name the file.
        _ => error.into(),
    })?;
    let context = planned.plan.context.context_tokens;
    if args.model.ctx.is_some_and(|asked| asked > context) {
        complain(&format!(
            "note: this model was trained for a context of {context} tokens, so it gets no more"
        ));
    }
    for note in &planned.notes {
        complain(&format!("note: {note}"));
    }
    let progress = progress_bar("loading");
    let loaded_bytes = Cell::new(0);
    let session = open(planned, &mut |done, total| {
        loaded_bytes.set(done);
        progress.set(done, total);
    })
    .with_context(|| format!("cannot load {}", path.display()))?;
    Ok((session, Start { loaded_bytes: loaded_bytes.get(), ..start }))
}

impl Args {
    /// The model that is run.
    ///
    /// # Errors
    /// When the demo model is nowhere.
    pub(super) fn model_path(&self) -> anyhow::Result<PathBuf> {
        self.model.path()
    }

    /// The pictures and sounds that flags name.
    fn media(&self, senses: Senses) -> anyhow::Result<Vec<MediaFile>> {
        for (kind, paths, lacks) in [
            (MediaKind::Picture, &self.image, "sees no images"),
            (MediaKind::Sound, &self.audio, "hears no audio"),
        ] {
            if !senses.has(kind) && !paths.is_empty() {
                anyhow::bail!(
                    "this model {lacks}: it has no projector for them, or none that can be found (--mmproj FILE names one)"
                );
            }
        }
        let pictures = self.image.iter().map(|path| (path, MediaKind::Picture));
        let sounds = self.audio.iter().map(|path| (path, MediaKind::Sound));
        pictures.chain(sounds).map(|(path, kind)| media::read(path, kind)).collect()
    }

    fn forced_routes(&self) -> anyhow::Result<RouteSettings> {
        let forced = self.routes.as_deref().map(read_trace).transpose()?.map(Arc::new);
        Ok(RouteSettings { forced, forced_from: self.routes.clone(), log: None })
    }

    fn generate_options(&self, maker: &Maker) -> GenerateOptions {
        GenerateOptions {
            max_tokens: self.max_tokens.or(maker.max_tokens),
            sampler: self.sampling.options(&maker.parameters),
            stops: maker.stops.clone(),
            hash_logits: self.logits_hash,
            ignore_end: self.ignore_eos,
            ..Default::default()
        }
    }
}
