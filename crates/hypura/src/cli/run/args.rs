//! Flags of `hypura run`, and what they ask of the engine.

use hypura_engine::media::{MediaFile, MediaKind, Modalities};
use hypura_engine::request::REPEAT_LIMIT;
use hypura_engine::session::GenerateOptions;
use hypura_engine::stream::RouteSettings;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;

use super::answer::OptionsOf;
use super::chat::ChatSettings;
use super::media;
use super::model_defaults::ModelDefaults;
use super::screen::View;
use crate::bench::read_trace;
use crate::cli::flags::{ModelFlags, SamplingFlags};

/// Flags of `hypura run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) model: ModelFlags,

    /// What to answer [default: standard input; on a terminal, a chat]
    pub(super) prompt: Option<String>,

    /// Image to show with the prompt, for models with a projector; several times for several. Files that the
    /// prompt itself names are shown too (./cat.png)
    #[arg(long, value_name = "FILE")]
    pub(super) image: Vec<PathBuf>,

    /// Sound to play to the model with the prompt, for models with a projector for sounds: wav, mp3 or flac;
    /// several times for several. Sounds come after images
    #[arg(long, value_name = "FILE")]
    pub(super) audio: Vec<PathBuf>,

    /// Give the prompt to the model as it is, without its chat template
    #[arg(long)]
    pub(super) raw: bool,

    /// Most tokens to generate [default: until the answer or the context ends]
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) max_tokens: Option<u32>,

    /// Go on after the token that ends the answer
    #[arg(long)]
    pub(super) ignore_eos: bool,

    #[command(flatten)]
    pub(super) sampling: SamplingFlags,

    /// Do not break the lines of an answer between words
    #[arg(long)]
    pub(super) nowordwrap: bool,

    /// Show an answer as it was written: no bold, no lists, no headings
    #[arg(long)]
    pub(super) nomarkdown: bool,

    /// Load the model here, even if a server runs
    #[arg(long)]
    pub(super) local: bool,

    /// Also tell timings, the plan, and what each tier of memory did
    #[arg(short, long)]
    pub(super) verbose: bool,

    /// Write everything that was measured to FILE as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) stats_json: Option<PathBuf>,

    /// Hash all logits of every generated position: equal hashes mean equal bits
    #[arg(long)]
    pub(super) logits_hash: bool,

    /// Force the routers' choices from this trace (for tests: the text is nonsense, the reads are those of a
    /// real model)
    #[arg(long, value_name = "TRACE")]
    pub(super) routes: Option<PathBuf>,
}

impl Args {
    /// The model that is run.
    ///
    /// # Errors
    /// When the demo model is nowhere.
    pub(in crate::cli) fn model_path(&self) -> anyhow::Result<PathBuf> {
        self.model.path()
    }

    /// The pictures and sounds that flags name.
    pub(super) fn media(&self, modalities: Modalities) -> anyhow::Result<Vec<MediaFile>> {
        for (kind, paths, lacks) in [
            (MediaKind::Picture, &self.image, "sees no images"),
            (MediaKind::Sound, &self.audio, "hears no audio"),
        ] {
            if !modalities.has(kind) && !paths.is_empty() {
                anyhow::bail!(
                    "this model {lacks}: it has no projector for them, or none that can be found (--mmproj FILE names one)"
                );
            }
        }
        let pictures = self.image.iter().map(|path| (path, MediaKind::Picture));
        let sounds = self.audio.iter().map(|path| (path, MediaKind::Sound));
        pictures.chain(sounds).map(|(path, kind)| media::read(path, kind)).collect()
    }

    pub(super) fn forced_routes(&self) -> anyhow::Result<RouteSettings> {
        let forced = self.routes.as_deref().map(read_trace).transpose()?.map(Arc::new);
        Ok(RouteSettings { forced, forced_from: self.routes.clone(), log: None })
    }

    /// What a conversation begins with.
    pub(super) fn chat_settings(&self) -> ChatSettings {
        let view = View { wrap: !self.nowordwrap, markdown: !self.nomarkdown };
        ChatSettings::new(self.verbose, view)
    }

    /// The options of answers. What a conversation has set goes before flags, and these before the model.
    pub(super) fn generate_options(&self, defaults: &ModelDefaults) -> OptionsOf {
        let (sampling, parameters) = (self.sampling.clone(), defaults.parameters.clone());
        let (most, stops) = (self.max_tokens.or(defaults.max_tokens), defaults.stops.clone());
        let (hash_logits, ignore_end) = (self.logits_hash, self.ignore_eos);
        // Drawn once: a conversation has one seed.
        let drawn = sampling.options(&parameters, &Map::new()).seed;
        Box::new(move |set| {
            let limit = set.get("num_predict").and_then(Value::as_i64);
            // Negative numbers mean "no limit".
            let max_tokens = limit.map_or(most, |limit| u32::try_from(limit).ok());
            let own_stops = set.get("stop").and_then(Value::as_array);
            let own_stops =
                own_stops.map(|all| all.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect());
            let mut sampler = sampling.options(&parameters, set);
            if !set.contains_key("seed") {
                sampler.seed = drawn;
            }
            GenerateOptions {
                max_tokens,
                sampler,
                stops: own_stops.unwrap_or_else(|| stops.clone()),
                hash_logits,
                ignore_end,
                repeat_limit: max_tokens.is_none().then_some(REPEAT_LIMIT),
                ..Default::default()
            }
        })
    }
}
