//! A pull from its name to its last line, in the words of Ollama's API.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::file::{Arrived, End, Item, Job};
use super::landing::Landing;
use super::retry::Tries;
use super::{PullError, PullSettings, files, finish, space};
use crate::blobs::link_blob;
use crate::create::Progress;
use crate::fetch::{
    FetchError, Home, HttpError, Identity, Network, Remote, RemoteFile, RemoteModel, RemoteName,
};
use crate::layout::Layout;
use crate::lock::StoreLock;
use crate::{ModelEntry, Store, StoreError};

/// How often a model is begun anew when its server has another one while it arrives, or somebody removes
/// what arrived.
const MOST_ROUNDS: usize = 3;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// The name.
    pub name: String,
    /// Whether registries may be asked without TLS.
    pub insecure: bool,
    /// Whether to begin although the disk seems to have no room.
    pub force: bool,
}

/// Room for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that must still arrive.
    pub missing_bytes: u64,
    /// Bytes that are free where they go.
    pub free_bytes: u64,
}

impl Room {
    /// # Errors
    /// [`PullError::NoRoom`].
    pub fn check(self) -> Result<(), PullError> {
        space::check(self.missing_bytes, self.free_bytes)
    }
}

/// Pulls into a store.
#[derive(Clone, Copy)]
pub struct Pulls<'a>(pub(super) &'a Store);

impl Store {
    /// Models that arrive in this store.
    #[must_use]
    pub fn pulls(&self) -> Pulls<'_> {
        Pulls(self)
    }
}

impl Pulls<'_> {
    /// Asks other machines with this store's endpoints and tokens.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote::with_timeouts(Network::clone(&self.0.network), &self.0.pull_settings.timeouts())
    }

    /// What a model elsewhere needs of the disk.
    ///
    /// # Errors
    /// When there is no folder for it.
    pub fn room_for(&self, model: &RemoteModel) -> Result<Room, PullError> {
        let (folder, items) = self.items(model)?;
        let missing = |item: &Item| match item.landing.is_whole(item.file.bytes) {
            true => 0,
            false => item.file.bytes.saturating_sub(space::taken_bytes(&item.landing.data)),
        };
        Ok(Room {
            missing_bytes: items.iter().map(missing).fold(0, u64::saturating_add),
            free_bytes: space::free_bytes(&folder)?,
        })
    }

    /// Brings a model here, telling `watch` in Ollama's words, until `wanted` says that nobody wants it any
    /// more. Gives the name under which it is here. What is installed and cannot be asked for elsewhere is
    /// taken as it is.
    ///
    /// # Errors
    /// [`PullError`]. What arrived stays, and the next pull continues it.
    pub fn pull(
        &self,
        request: &PullRequest,
        watch: &mut dyn FnMut(Progress),
        wanted: &dyn Fn() -> bool,
    ) -> Result<String, PullError> {
        watch(Progress::status("pulling manifest"));
        let name = RemoteName::parse(&request.name).map_err(PullError::Find)?;
        let mut changed = (String::new(), None);
        for _ in 0..MOST_ROUNDS {
            // A new client in every round: stopping a file shuts the connections of its client.
            let remote = self.remote();
            let model = match find(&remote, &name, request.insecure, &self.0.pull_settings, wanted) {
                Ok(model) => model,
                Err(error) => {
                    let Some(entry) = self.installed(&name, &request.name, &error) else {
                        return Err(PullError::Find(error));
                    };
                    tell_installed(&entry, watch);
                    return Ok(entry.name.to_string());
                }
            };
            match self.round(&remote, &model, request, watch, wanted) {
                Ok(true) => {
                    watch(Progress::status("success"));
                    return Ok(model.name);
                }
                Ok(false) => changed = (model.name, None),
                Err(End::Changed(file, cause)) => changed = (file, cause),
                Err(End::Error(error)) => return Err(error),
            }
        }
        Err(match changed {
            (file, Some(source)) => PullError::Refused { file, source },
            (file, None) => PullError::Changed { file },
        })
    }

    /// Brings all files of a model here and names them; `false` when one of them was removed meanwhile.
    fn round(
        &self,
        remote: &Remote,
        model: &RemoteModel,
        request: &PullRequest,
        watch: &mut dyn FnMut(Progress),
        wanted: &dyn Fn() -> bool,
    ) -> Result<bool, End> {
        let (_, items) = self.items(model)?;
        self.take_over(model, &items)?;
        if !request.force {
            self.room_for(model)?.check()?;
        }
        let own = self.0.own().ok();
        let stopped = AtomicBool::new(false);
        let settings: &PullSettings = &self.0.pull_settings;
        let job = Job {
            client: &remote.client,
            access: &model.access,
            settings,
            model: &model.name,
            own: own.as_ref(),
            stopped: &stopped,
        };
        let mut told = Told::new(&items);
        let arrived = files::bring_all(&job, &items, &mut || {
            told.tell(&items, watch);
            wanted()
        })?;
        watch(Progress::status("verifying sha256 digest"));
        watch(Progress::status("writing manifest"));
        Ok(self.finish(model, &items, &arrived)?)
    }

    fn finish(&self, model: &RemoteModel, items: &[Item], arrived: &[Arrived]) -> Result<bool, PullError> {
        match &model.home {
            Home::HuggingFace(place) => {
                finish::snapshot(&self.hub()?, place, items, arrived)?;
                Ok(true)
            }
            Home::Registry { name, manifest } => finish::manifest(&self.0.own()?, name, manifest),
            Home::Files { name } => {
                finish::files(self.0, name, items, arrived)?;
                Ok(true)
            }
        }
    }

    /// The folder that a model goes to, and its files with their places.
    fn items(&self, model: &RemoteModel) -> Result<(std::path::PathBuf, Vec<Item>), PullError> {
        let folder = match &model.home {
            Home::HuggingFace(_) => self.hub()?,
            Home::Registry { .. } | Home::Files { .. } => self.0.own()?.root().to_path_buf(),
        };
        let landing = |file: &RemoteFile| -> Result<Landing, PullError> {
            Ok(match (&model.home, &file.identity) {
                (Home::HuggingFace(place), Identity::Content(digest)) => {
                    Landing::of_hub(&folder, place, digest.hex())
                }
                (Home::HuggingFace(place), Identity::Tag(tag)) => {
                    Landing::of_hub(&folder, place, &blob_name(tag, &file.name))
                }
                (_, Identity::Content(digest)) => Landing::of_blob(&self.0.own()?, digest),
                (_, Identity::Tag(_)) => Landing::of_url(&self.0.own()?, &file.url),
            })
        };
        let item = |file: &RemoteFile| {
            Ok(Item { file: file.clone(), landing: landing(file)?, have: AtomicU64::new(0) })
        };
        let items = model.files.iter().map(item).collect::<Result<_, PullError>>()?;
        Ok((folder, items))
    }

    /// Links blobs of a registry's model that Ollama's store has.
    fn take_over(&self, model: &RemoteModel, items: &[Item]) -> Result<(), PullError> {
        if !matches!(model.home, Home::Registry { .. }) {
            return Ok(());
        }
        let own = self.0.own()?;
        for item in items.iter().filter(|item| !item.landing.is_whole(item.file.bytes)) {
            let Some(digest) = item.file.identity.digest() else { continue };
            let theirs = self.0.places.ollama.iter().map(|folder| Layout::new(folder).blob(digest));
            let whole = |blob: &std::path::PathBuf| {
                std::fs::metadata(blob).is_ok_and(|about| about.is_file() && about.len() == item.file.bytes)
            };
            if let Some(blob) = theirs.into_iter().find(whole) {
                let _lock = StoreLock::acquire(&own)?;
                link_blob(&own, &blob, digest, item.file.bytes)?;
            }
        }
        Ok(())
    }

    /// The model as it is here, where that will do.
    fn installed(&self, name: &RemoteName, text: &str, error: &FetchError) -> Option<ModelEntry> {
        let unreachable = match error {
            FetchError::Offline(_) | FetchError::NoSuchModel { .. } => true,
            FetchError::Http(error) => {
                matches!(error, HttpError::Unreachable { .. } | HttpError::NotFound { .. })
            }
            _ => false,
        };
        let entry = || self.0.resolve(text).or_else(|_| self.0.resolve(&name.local_name())).ok();
        unreachable.then(entry).flatten()
    }

    /// The cache of Hugging Face that is written to.
    pub(crate) fn hub(&self) -> Result<std::path::PathBuf, StoreError> {
        self.0.places.hugging_face.first().cloned().ok_or(StoreError::NoHome)
    }
}

/// What a name stands for. Servers that answer, and say that they cannot just now, are asked again.
fn find(
    remote: &Remote,
    name: &RemoteName,
    insecure: bool,
    settings: &PullSettings,
    wanted: &dyn Fn() -> bool,
) -> Result<RemoteModel, FetchError> {
    let mut tries = Tries::new(settings);
    loop {
        let found = remote.find(name, insecure);
        let end = found.and_then(|mut model| remote.complete(&mut model).map(|()| model));
        let Err(FetchError::Http(error @ HttpError::Refused { .. })) = &end else { return end };
        let wait = tries.next_wait(error.retry_after()).filter(|_| error.is_transient() && wanted());
        let Some(wait) = wait else { return end };
        std::thread::sleep(wait);
    }
}

/// What the blob of a file is called whose content is not known: by its tag, as Hugging Face's tools do.
fn blob_name(tag: &str, file: &str) -> String {
    let good = !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if good {
        tag.to_owned()
    } else {
        crate::Digest::of(format!("{tag}\n{file}").as_bytes()).hex().to_owned()
    }
}

/// What was told of each file.
struct Told(Vec<Option<u64>>);

impl Told {
    fn new(items: &[Item]) -> Self {
        Self(vec![None; items.len()])
    }

    /// Tells what changed.
    fn tell(&mut self, items: &[Item], watch: &mut dyn FnMut(Progress)) {
        for (told, item) in self.0.iter_mut().zip(items) {
            let have = item.have.load(Ordering::Relaxed);
            if *told == Some(have) || told.is_none() && have == 0 {
                continue;
            }
            *told = Some(have);
            watch(line(item.file.identity.digest(), &item.file.name, item.file.bytes, have));
        }
    }
}

/// `pulling 0123456789ab`, as Ollama calls a layer; of a file without a digest its name.
fn line(digest: Option<&crate::Digest>, name: &str, total: u64, completed: u64) -> Progress {
    let short = digest.map_or(name, |digest| digest.hex().get(..12).unwrap_or_default());
    Progress {
        status: format!("pulling {short}"),
        digest: digest.map(ToString::to_string),
        total: Some(total),
        completed: Some(completed.min(total)),
    }
}

/// What is told of a model that is here and cannot be asked for.
fn tell_installed(entry: &ModelEntry, watch: &mut dyn FnMut(Progress)) {
    let digest = crate::Digest::from_hex(&entry.digest);
    watch(line(digest.as_ref(), &entry.name.to_string(), entry.size, entry.size));
    watch(Progress::status("verifying sha256 digest"));
    watch(Progress::status("writing manifest"));
    watch(Progress::status("success"));
}
