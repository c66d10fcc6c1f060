//! Models by name: Hypura's own store, and (read only) those of Ollama, Hugging Face and LM Studio.
//!
//! - [`name`](ModelName): names of models
//! - `store`, `find`: lists, and models by name
//! - `places`: which folders
//! - `layout`, `digest`, `files`: manifests and blobs on disk
//! - `gather`, `quantization`: what is where, by file names
//! - `projectors`: which projector belongs to which model, by the same
//! - `facts`, `cache`: what headers say, remembered
//! - `shards`: links by which sharded blobs are opened
//! - `entry`, `show`: what is reported about a model; `unusable`: why one cannot be used
//! - `go_template`: templates in Go's language, in Jinja
//! - `modelfile`: reading and writing Modelfiles
//! - `settings`: what a Modelfile sets beside the weights
//! - `blobs`, `create`, `edit`: changes of our own store, in order by its `lock`; `naming`: which blobs
//!   manifests name; `hub`: deleting from Hugging Face's cache
//! - [`fetch`]: what names stand for elsewhere, and the headers of models there, over `web`
//! - `pull`: models arrive
//!
//! Invariants: no other program's folder is ever written to, but for Hugging Face's cache, which is shared by
//! design: pulls add to it and `delete` removes from it; nothing that a manifest, a request or a link
//! says leads a write out of our folder; a broken model is skipped with a reason and stops nobody else's;
//! nothing here loads a model, so every call is quick (the exceptions, hashing a file and `verbose`, say so).
//! All calls block: from async code use a blocking task. `Store` is `Sync` and holds no lock while it reads
//! files.
#![deny(unsafe_code)]

mod blobs;
mod cache;
mod create;
mod digest;
mod edit;
mod entry;
mod error;
mod facts;
pub mod fetch;
mod files;
mod find;
mod gather;
mod go_template;
mod hub;
mod layout;
mod lock;
mod modelfile;
mod name;
mod naming;
mod places;
mod projectors;
mod pull;
mod quantization;
mod settings;
mod shards;
mod show;
mod store;
mod unusable;
mod web;

pub use blobs::{BlobWriter, Stored, remove_leftovers};
pub use cache::HeaderError;
pub use create::{CreateRequest, Progress, Quantizer, Texts};
pub use digest::{Digest, NotADigest};
pub use entry::{Details, ModelEntry, TemplateLanguage, template_language};
pub use error::StoreError;
pub use facts::{Capability, Facts, TensorRow, human_number};
pub use gather::{Skipped, shards_of};
pub use go_template::{GoTemplate, GoTemplateError};
pub use modelfile::{Modelfile, ModelfileError};
pub use name::{DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, Locality, ModelName, NameError};
pub use places::{Origin, Places, demo_candidates};
pub use projectors::{is_projector_name, projector_beside};
pub use pull::{Partial, PullError, PullRequest, PullSettings, Pulls, Room};
pub use settings::{Message, ModelSettings};
pub use show::{Show, parameter_lines};
pub use store::{Listing, Store};
pub use unusable::Unusable;
