//! The KV cache of a loaded model: who has which rows of it, and how they are shared, moved and kept.
//!
//! [`KvRows`] owns the model with its context; whatever computes goes through it. Invariant: between its
//! calls the context holds exactly what its [`rows::RowTable`] says, also after a failed or stopped decode,
//! which counts as never having happened.
//!
//! - `rows`: which tokens each row has, and which row a prompt gets: pure bookkeeping
//! - `share`: rows cut, copied, filled and emptied in llama.cpp's memory
//! - `grow`: a larger context without loading anything again
//! - `recall`, `disk`: idle conversations to disk and back

mod disk;
mod grow;
mod recall;
mod rows;
mod share;

pub(crate) use recall::Recall;
pub(crate) use share::{Added, Admitted, KvRows, index};
