//! Flags of `hypura run`, and what they ask of the engine.

use hypura_engine::media::{MediaFile, MediaKind, Modalities};
use hypura_engine::request::REPEAT_LIMIT;
use hypura_engine::session::GenerateOptions;
use hypura_engine::stream::RouteSettings;
use std::path::PathBuf;
use std::sync::Arc;

use super::media;
use super::model_defaults::ModelDefaults;
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

    pub(super) fn generate_options(&self, defaults: &ModelDefaults) -> GenerateOptions {
        let max_tokens = self.max_tokens.or(defaults.max_tokens);
        GenerateOptions {
            max_tokens,
            sampler: self.sampling.options(&defaults.parameters),
            stops: defaults.stops.clone(),
            hash_logits: self.logits_hash,
            ignore_end: self.ignore_eos,
            repeat_limit: max_tokens.is_none().then_some(REPEAT_LIMIT),
            ..Default::default()
        }
    }
}
