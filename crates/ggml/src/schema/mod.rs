//! JSON schemas that an answer must fit: compiled by llguidance, asked token by token.
//!
//! - `error`: why a schema cannot be enforced
//! - `keywords`: which keywords nobody enforces
//! - `faults`: where in a schema something is wrong
//! - `disjoint`: alternatives that exclude each other
//! - `negations`: `not`, where it can be said otherwise
//! - `patterns`: regular expressions whose classes mean what they say
//! - `rewrite`: keywords said in others that llguidance knows, objects closed
//! - `compiler`: the tokens of a model as llguidance wants them, and what was compiled for them
//! - `matcher`: where in a schema an answer is
//! - `of_model`: the compiler that belongs to a model
//! - `placeholders`: the place of a schema in a grammar of llama.cpp's

#[cfg(test)]
mod bench_tests;
#[cfg(test)]
mod bomb_tests;
mod compiler;
mod disjoint;
mod error;
mod faults;
mod keywords;
#[cfg(test)]
mod mask_tests;
mod matcher;
mod negations;
mod of_model;
mod patterns;
mod placeholders;
mod rewrite;
#[cfg(test)]
mod suite_tests;

pub(crate) use compiler::SchemaCompiler;
pub use error::SchemaError;
pub(crate) use matcher::SchemaMatcher;
pub(crate) use placeholders::{
    PlaceholderTokens, placeholder_ending, placeholder_rule, placeholder_schema, shows_placeholders,
    with_marks,
};
