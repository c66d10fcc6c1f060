//! A model that is loaded here.

use anyhow::Context as _;
use hypura_engine::error::LoadError;
use hypura_engine::load::{Drafting, LoadSettings, prepare};
use hypura_engine::machine;
use hypura_engine::media::{MediaFile, Modalities, PlannedProjector};
use hypura_engine::request::Finish;
use hypura_engine::session::{Session, open};
use hypura_engine::source::ModelSource;
use hypura_engine::stream::{RouteLog, RouteSettings};
use serde_json::Map;
use std::cell::Cell;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::about::About;
use super::answer::Answerer;
use super::args::Args;
use super::border::Border;
use super::chat::Ended;
use super::model_defaults::ModelDefaults;
use super::prompt::{self, Input};
use super::stats::Start;
use super::stats_file::StatsFile;
use super::{chat, embedder, report};
use crate::cli::failure::complain;
use crate::cli::flags::{Env, beyond};
use crate::cli::interrupt::Interrupt;
use crate::cli::profile::known_beside;
use crate::cli::style::{Style, progress_bar};
use crate::cli::workers;

/// Loads the model and answers; `log` gets the experts that the tokens used.
///
/// # Errors
/// Whatever stands in the way of an answer.
pub(super) fn execute(args: &Args, log: Option<RouteLog>) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let mut settings = args.model.settings(&Env::of_process())?;
    settings.tuning.routes = RouteSettings { log, ..args.forced_routes()? };
    if settings.tuning.routes.log.is_some() {
        // What drafts that did not come true chose is no part of a trace.
        settings.tuning.speculation.drafting = Drafting::Off;
    }
    let named = args.model.find()?;
    args.model.settle_context(&mut settings, named.context_tokens());
    named.add_draft(&mut settings);
    settings.model.projector = named.projector.clone();
    let about = About::of(&named);
    let (path, defaults) = (named.path, ModelDefaults::of(named.entry));
    let start = Start { kernel_read_bytes: machine::storage_read_bytes().ok(), loaded_bytes: 0 };
    let border = Border::of(&path);
    // A model that is not there, or cannot answer, is said before anything is asked of the person.
    let source = ModelSource::open(&path)?;
    if source.is_for_embeddings() {
        return Err(embedder::refused(path.display()));
    }
    let media = args.media(modalities_of(settings.model.projector.as_deref(), args)?)?;
    let input = prompt::input(args.prompt.as_deref())?;
    let stats_file = args.stats_json.as_deref().map(StatsFile::create).transpose()?;
    border.watch(settings.model.budget_bytes).context("no thread to watch the model")?;
    workers::open(&settings.model.workers)?;
    if !settings.model.workers.is_empty() {
        settings.model.speeds = known_beside(&path, settings.tuning.threads);
    }
    let (mut session, start) = load(args, source, settings, start, &border)?;
    if let Some(template) = &defaults.template {
        border.rendering(|| session.use_template(template))?;
    }
    interrupt.also_raise(&session.loaded().abort)?;
    let options = args.generate_options(&defaults);
    if args.verbose {
        let seed = options(&Map::new()).sampler.seed;
        eprintln!("{}", Style::of_stderr().dim(&report::loaded_text(&session, seed)));
    }
    let beginning = defaults.beginning;
    let answerer = Answerer { session, interrupt, options, start, stats_file, about, beginning, border };
    converse(args, answerer, input, media)
}

fn converse(
    args: &Args,
    mut answerer: Answerer,
    input: Input,
    media: Vec<MediaFile>,
) -> anyhow::Result<ExitCode> {
    let settings = args.chat_settings();
    match input {
        Input::Text(text) => {
            let prompt = chat::first(args.raw, text, media, answerer.session.modalities());
            let outcome = answerer.answer(&prompt?, &settings)?;
            answerer.report(&outcome, args.verbose)?;
            let stopped = outcome.outcome.finish == Finish::Stopped;
            Ok(if stopped { Interrupt::exit_code() } else { ExitCode::SUCCESS })
        }
        Input::Terminal => match chat::talk(&mut answerer, args.raw, media, settings)? {
            Ended::Bye => Ok(ExitCode::SUCCESS),
            Ended::Load(name) => begin_again(&name, args.verbose),
        },
    }
}

/// Becomes `hypura run` of another model: no memory of this one is left, and no doubt about which of two
/// models a crash belongs to.
fn begin_again(model: &str, verbose: bool) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program to start it again")?;
    let mut command = Command::new(program);
    command.arg("run").args(verbose.then_some("--verbose")).arg("--").arg(model);
    Err(anyhow::Error::new(command.exec()).context(format!("cannot begin with {model}")))
}

/// What a model with this projector can be shown; looked for only where something is to be shown.
fn modalities_of(projector: Option<&Path>, args: &Args) -> anyhow::Result<Modalities> {
    match projector {
        Some(projector) if !(args.image.is_empty() && args.audio.is_empty()) => {
            Ok(PlannedProjector::of(projector, 1)?.modalities)
        }
        _ => Ok(Modalities::default()),
    }
}

fn load(
    args: &Args,
    source: ModelSource,
    settings: LoadSettings,
    start: Start,
    border: &Border,
) -> anyhow::Result<(Session, Start)> {
    let path = source.path.clone();
    let planned = border.planning(|| prepare(source, settings)).map_err(|error| match error {
        LoadError::Plan(_) => anyhow::Error::from(error).context(format!("cannot run {}", path.display())),
        // The others name the file.
        _ => error.into(),
    })?;
    let memory = Env::of_process().memory().ok();
    if let Some(warning) = memory.and_then(|memory| beyond(planned.settings.model.budget_bytes, &memory)) {
        complain(&format!("warning: {warning}"));
    }
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
