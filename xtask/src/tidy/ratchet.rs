//! The ratchet: what was too large when its rule came, listed in `xtask/ratchet.toml` with its exact number.
//! A number may only fall: growth is a finding, and so is a number that is higher than the truth.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Finding;
use crate::tree::Tree;

pub(crate) const PATH: &str = "xtask/ratchet.toml";

/// The listed excesses.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ratchet {
    /// `path::function`, with the type of an `impl` between, to lines.
    pub(crate) functions: BTreeMap<String, usize>,
    /// `crate folder::Type` to lines of its `impl` blocks.
    pub(crate) types: BTreeMap<String, usize>,
    /// Path of a `mod.rs` to lines.
    pub(crate) modules: BTreeMap<String, usize>,
    pub(crate) widths: Widths,
}

/// How many lines of the whole tree may still be too wide. Not by file, so that files can be moved and split
/// freely.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Widths {
    /// Comment lines of Rust files.
    pub(crate) comments: usize,
    /// Lines of Markdown files.
    pub(crate) documents: usize,
}

impl Ratchet {
    /// The ratchet of this tree, empty if it has none.
    pub(crate) fn of(tree: &Tree) -> Result<Self> {
        match tree.text(PATH) {
            Some(text) => toml::from_str(text).with_context(|| format!("cannot read {PATH}")),
            None => Ok(Self::default()),
        }
    }
}

/// Something that has a length, under the key that the ratchet lists it by.
pub(crate) struct Measured {
    pub(crate) key: String,
    pub(crate) path: String,
    pub(crate) line: Option<usize>,
    pub(crate) length_lines: usize,
}

/// Holds what was measured against the limit, or against its listed number.
pub(crate) fn judge(
    what: &str,
    measured: &[Measured],
    limit_lines: usize,
    listed: &BTreeMap<String, usize>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Of things with one key (functions of two impls of one trait, say) the longest counts.
    let mut longest: BTreeMap<&str, &Measured> = BTreeMap::new();
    for item in measured {
        let entry = longest.entry(&item.key).or_insert(item);
        if item.length_lines > entry.length_lines {
            *entry = item;
        }
    }
    for item in longest.values() {
        if let Some((message, is_stale)) = judge_one(what, item, limit_lines, listed.get(&item.key).copied())
        {
            findings.push(Finding { path: item.path.clone(), line: item.line, message, is_stale });
        }
    }
    findings.extend(
        listed
            .keys()
            .filter(|key| !longest.contains_key(key.as_str()))
            .map(|key| Finding::of_file(PATH, format!("{what} `{key}` is gone: remove it")).stale()),
    );
    findings
}

/// What there is to say about one thing, and whether it is only that the ratchet should follow.
fn judge_one(
    what: &str,
    item: &Measured,
    limit_lines: usize,
    listed: Option<usize>,
) -> Option<(String, bool)> {
    let (key, length) = (&item.key, item.length_lines);
    match listed {
        None if length > limit_lines => {
            Some((format!("{what} has {length} lines, more than {limit_lines}: split it"), false))
        }
        Some(_) if length <= limit_lines => {
            Some((format!("{what} has become short: remove `{key}` from {PATH}"), true))
        }
        Some(number) if length > number => {
            Some((format!("{what} has grown from {number} to {length} lines: shorten it"), false))
        }
        Some(number) if length < number => Some((
            format!("{what} has shrunk to {length} lines: set `{key}` to it in {PATH}, now {number}"),
            true,
        )),
        _ => None,
    }
}
