//! Ollama's API over a scripted engine. Names of tests begin with the endpoint or the subject.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "the fake's tokens are characters"
)]

mod fake;
mod fake_catalog;
#[expect(dead_code, reason = "shared with the tests of the store, which need more of it")]
#[path = "../../../store/tests/pull/server.rs"]
mod hub;
mod kit;

mod chat;
mod embed;
mod fuzz;
mod general;
mod generate;
mod hostile;
mod images;
mod life;
mod memory;
mod models;
mod page;
mod patience;
mod pull;
mod sounds;
mod status;
mod store;
mod transcriptions;
mod transport;
