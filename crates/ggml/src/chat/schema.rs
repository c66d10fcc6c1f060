//! The check of grammars before use.

use super::ChatError;
use crate::{log, sys};
use std::ffi::CString;

/// Longest grammar accepted, bytes; a schema of a big API stays below a tenth of it.
const LONGEST: usize = 1 << 20;
/// Deepest nesting of groups in one line, below llama.cpp's own limit.
const DEEPEST: usize = 200;

/// Has llama.cpp read a grammar (GBNF), so that a bad one is refused before anything is queued.
///
/// # Errors
/// [`ChatError::Grammar`] with the reason.
pub fn check_grammar(gbnf: &str) -> Result<(), ChatError> {
    if gbnf.len() > LONGEST {
        return Err(ChatError::Grammar(format!("it is longer than {LONGEST} bytes")));
    }
    let source =
        CString::new(gbnf).map_err(|_| ChatError::Grammar("it contains a NUL character".to_owned()))?;
    // llama.cpp would refuse these too, but it prints the whole grammar on stderr then.
    if nesting(gbnf) > DEEPEST {
        return Err(ChatError::Grammar(format!("groups are nested more than {DEEPEST} levels deep")));
    }
    if gbnf.trim().is_empty() {
        return Err(ChatError::Grammar("it is empty".to_owned()));
    }
    super::quiet::quiet();
    log::clear();
    // SAFETY: both strings are NUL-terminated; a null vocabulary is allowed as long as nothing is sampled.
    // Nothing in here throws: the parser and the check for left recursion catch their own exceptions
    // (llama-grammar.cpp), and there are no trigger patterns to compile.
    let raw = unsafe { sys::llama_sampler_init_grammar(std::ptr::null(), source.as_ptr(), c"root".as_ptr()) };
    if raw.is_null() {
        return Err(ChatError::Grammar(explain(gbnf, log::take())));
    }
    // SAFETY: just made, freed once.
    unsafe { sys::llama_sampler_free(raw) };
    Ok(())
}

fn nesting(gbnf: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in gbnf.bytes() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'\n' => depth = 0,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// llama.cpp says only that the grammar does not parse: add what is easy to see.
fn explain(gbnf: &str, reason: String) -> String {
    let rules: Vec<&str> = gbnf.lines().filter_map(|line| Some(line.split_once("::=")?.0.trim())).collect();
    if rules.is_empty() {
        return "it has no rule of the form `name ::= …`".to_owned();
    }
    if !rules.contains(&"root") {
        return "it has no rule named `root`".to_owned();
    }
    let plain = "failed to parse grammar";
    if reason == plain {
        "it does not parse as GBNF, or uses a rule that it does not define".to_owned()
    } else {
        reason
    }
}
