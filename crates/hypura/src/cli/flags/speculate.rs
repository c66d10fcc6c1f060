//! Flags about drafts: tokens that probably come next and are computed together.

use clap::ValueEnum;
use hypura_engine::load::{Drafting, Speculation};
use std::path::{Path, PathBuf};

use super::named::{NamedModel, demo_draft};
use crate::cli::failure::UsageError;

/// Which tokens are drafted, and how many.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct SpeculateFlags {
    /// Try several tokens in one pass over the weights where that pays; no answer changes [default: off; auto
    /// with --draft]
    #[arg(long, value_enum, value_name = "WHO", help_heading = "Speculation")]
    speculate: Option<SpeculateArg>,

    /// A small model of the same vocabulary, a file or a name, that drafts for this one; it stays in memory
    #[arg(long, value_name = "MODEL", help_heading = "Speculation")]
    draft: Option<PathBuf>,

    /// Most drafts in one step [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=63), help_heading = "Speculation")]
    draft_max: Option<u32>,

    /// Always try so many drafts, whatever they cost, for measurements and tests
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u32).range(0..=63))]
    draft_fixed: Option<u32>,
}

/// `--speculate`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SpeculateArg {
    /// Nothing is drafted
    Off,
    /// Prompt lookup, and the draft model if there is one
    Auto,
    /// What was said before goes on as it did then
    Lookup,
    /// The model that --draft names
    Draft,
}

impl SpeculateFlags {
    /// Who drafts, and the file of the model that does.
    ///
    /// # Errors
    /// [`UsageError`] for flags that contradict each other; when there is no such model.
    pub fn resolve(&self) -> anyhow::Result<(Speculation, Option<PathBuf>)> {
        let drafting = match (self.speculate, &self.draft) {
            (Some(SpeculateArg::Draft), None) => {
                let why = "--speculate draft needs a model that drafts: name one with --draft";
                return Err(UsageError(why.to_owned()).into());
            }
            (Some(who @ (SpeculateArg::Off | SpeculateArg::Lookup)), Some(_)) => {
                let name = if who == SpeculateArg::Off { "off" } else { "lookup" };
                let why = format!("with --speculate {name} no model drafts: leave --draft out");
                return Err(UsageError(why).into());
            }
            (Some(SpeculateArg::Off), None) => Drafting::Off,
            (Some(SpeculateArg::Lookup), None) => Drafting::Lookup,
            (Some(SpeculateArg::Draft), Some(_)) => Drafting::Model,
            (Some(SpeculateArg::Auto), _) | (None, Some(_)) => Drafting::Auto,
            (None, None) => Drafting::default(),
        };
        let default = Speculation::default();
        let most = self.draft_max.unwrap_or(default.most);
        let speculation = Speculation { drafting, most, fixed: self.draft_fixed, ..default };
        Ok((speculation, self.draft.as_deref().map(draft_path).transpose()?))
    }
}

/// The file of a draft model.
fn draft_path(named: &Path) -> anyhow::Result<PathBuf> {
    if named == Path::new("demo") { demo_draft() } else { Ok(NamedModel::find(named)?.path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        flags: SpeculateFlags,
    }

    fn resolved(flags: &[&str]) -> anyhow::Result<(Speculation, Option<PathBuf>)> {
        Command::try_parse_from([&["x"], flags].concat())?.flags.resolve()
    }

    #[test]
    fn nothing_is_drafted_unless_asked_for_and_a_draft_model_is_asking() {
        let drafting = |flags: &[&str]| resolved(flags).unwrap().0.drafting;
        assert_eq!(drafting(&[]), Drafting::Requested);
        assert_eq!(drafting(&["--draft=x.gguf"]), Drafting::Auto);
        assert_eq!(drafting(&["--speculate=auto"]), Drafting::Auto);
        assert_eq!(drafting(&["--speculate=draft", "--draft=x.gguf"]), Drafting::Model);
        assert_eq!(drafting(&["--speculate=lookup"]), Drafting::Lookup);
        assert_eq!(drafting(&["--speculate=off"]), Drafting::Off);
        let (speculation, path) = resolved(&["--draft=x.gguf", "--draft-max=5", "--draft-fixed=3"]).unwrap();
        assert_eq!((speculation.most, speculation.fixed, path), (5, Some(3), Some("x.gguf".into())));
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for flags in [
            ["--speculate=draft"].as_slice(),
            &["--speculate=off", "--draft=x.gguf"],
            &["--speculate=lookup", "--draft=x.gguf"],
        ] {
            assert!(resolved(flags).unwrap_err().is::<UsageError>(), "{flags:?}");
        }
        assert!(resolved(&["--draft-max=0"]).is_err());
    }
}
