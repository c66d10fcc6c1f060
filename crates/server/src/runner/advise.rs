//! A plan that nobody carries out, in a process of its own: llama.cpp reads the file for it.

use super::errand::{Errand, Lost};
use super::limits::Limits;
use super::message::{FromRunner, ToRunner};
use crate::Failure;
use crate::models::{LoadOrder, PlanQuestion};

/// The plan as JSON.
///
/// # Errors
/// 400: there is none, and why; 500 where the file ended its process.
pub(super) fn advise(limits: &Limits, order: LoadOrder, question: PlanQuestion) -> Result<String, Failure> {
    let model = order.model.clone();
    let order = ToRunner::Advise { order: Box::new(order), question };
    let mut errand = Errand::start("plan", &order).map_err(|error| {
        tracing::error!(%error, "no process to plan in");
        Failure::internal("cannot start a process to plan in")
    })?;
    let failed = |why: String| Err(Failure::internal(format!("model '{model}' cannot be planned: {why}")));
    match errand.hear(limits.plan) {
        Ok(FromRunner::Advised(advised)) => advised,
        Ok(_) => failed("its process gave an answer of the wrong kind".to_owned()),
        Err(Lost::Late(limit)) => failed(format!("it took longer than {} s", limit.as_secs())),
        Err(Lost::Ended(how)) => failed(how),
    }
}
