//! Downloads that are not whole: listed, and removed when somebody says so and nobody writes to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::journal::Saved;
use super::landing::{JOURNAL_END, Landing};
use super::{PullError, Pulls};
use crate::layout::children;

/// A file that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The model that it belongs to, as a pull continues it.
    pub model: String,
    /// The file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// How much of that is here.
    pub have_bytes: u64,
    /// Whether somebody fetches it right now.
    pub busy: bool,
    /// Whether it comes from a URL, which is not kept, because it may hold a secret: its name alone does not
    /// continue it.
    pub is_of_url: bool,
    /// When something arrived last.
    pub modified: Option<SystemTime>,
    landing: Landing,
}

impl Pulls<'_> {
    /// All downloads that are not whole.
    #[must_use]
    pub fn partials(&self) -> Vec<Partial> {
        let mut all = Vec::new();
        if let Some(own) = &self.0.places.own {
            for name in journals(&own.join("partial")) {
                all.extend(read(Landing::of_own_journal(own, &name)));
            }
        }
        for hub in &self.0.places.hugging_face {
            for (folder, path) in children(hub) {
                for name in journals(&path.join("blobs")) {
                    all.extend(read(Landing::in_repository(hub, &folder, &name)));
                }
            }
        }
        all
    }

    /// Removes the downloads of a model that are not whole, those of all models without a name. What somebody
    /// fetches right now stays. Gives how many went, and how many stayed.
    ///
    /// # Errors
    /// When the store cannot be written to.
    pub fn remove_partials(&self, model: Option<&str>) -> Result<(usize, usize), PullError> {
        let (mut removed, mut busy) = (0, 0);
        let meant = |partial: &Partial| model.is_none_or(|model| is_of(partial, model));
        for partial in self.partials().into_iter().filter(meant) {
            match partial.landing.try_lock()? {
                Some(lock) => {
                    partial.landing.discard(&lock);
                    partial.landing.release(&lock);
                    removed += 1;
                }
                None => busy += 1,
            }
        }
        Ok((removed, busy))
    }
}

/// Whether a download belongs to the model that a text names, with or without what names leave out.
fn is_of(partial: &Partial, model: &str) -> bool {
    let key = |text: &str| {
        let name = text.replacen("huggingface.co/", "hf.co/", 1).replacen("hf:", "hf.co/", 1);
        crate::ModelName::parse(&name).map_or_else(|_| name.to_ascii_lowercase(), |name| name.key())
    };
    key(&partial.model) == key(model)
}

fn journals(folder: &Path) -> Vec<String> {
    let name = |(name, _): (String, PathBuf)| name.strip_suffix(JOURNAL_END).map(ToOwned::to_owned);
    children(folder).into_iter().filter_map(name).collect()
}

fn read(landing: Landing) -> Option<Partial> {
    let saved = Saved::read(&landing.journal)?;
    let busy = landing.try_lock().is_ok_and(|lock| lock.is_none());
    let modified = fs::metadata(&landing.journal).and_then(|about| about.modified()).ok();
    let have_bytes = saved.done_bytes();
    let is_of_url = landing.is_of_url();
    let header = saved.header;
    Some(Partial {
        model: header.model,
        file: header.file,
        bytes: header.bytes,
        have_bytes,
        busy,
        is_of_url,
        modified,
        landing,
    })
}
