//! From a header and a profile to everything that `plan` tells, on the command line and over HTTP: nothing is
//! loaded, nothing is allocated.
//!
//! - `advice`: the plan and the prediction, from what is needed
//! - `of_model`: of a model that is here, as when it is loaded; with estimates of one that is elsewhere
//! - `document`: all of it as JSON

mod advice;
mod document;
mod of_model;

pub use advice::{Advice, AdviceError, AdviceSettings, advise};
pub use document::{Subject, document};
pub use of_model::advise_about;
