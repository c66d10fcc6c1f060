//! Whether a draft model speaks the tokens of its target: the same ids must mean the same texts.
//!
//! The rule is llama.cpp's (`common_speculative_are_compatible`): the same kind of tokeniser, the same tokens
//! that begin and end texts, and equal texts of all tokens but the first few; one vocabulary may have some
//! tokens more, which are then never proposed.

use crate::gguf::Metadata;

/// Tokens that one vocabulary may have more.
const MOST_EXTRA: usize = 128;
/// The first tokens differ between versions of one vocabulary.
const FIRST_COMPARED: usize = 5;

/// Why a model cannot draft for another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VocabularyError {
    /// One of them has none.
    #[error("the {0} model has no vocabulary")]
    Missing(&'static str),
    /// Texts are cut by different rules.
    #[error("the draft model's tokeniser is {draft} and the model's is {target}")]
    Tokeniser {
        /// The model's.
        target: String,
        /// The draft model's.
        draft: String,
    },
    /// The vocabularies are of different lengths.
    #[error("the draft model's vocabulary has {draft} tokens and the model's has {target}")]
    Length {
        /// The model's.
        target: usize,
        /// The draft model's.
        draft: usize,
    },
    /// A token that begins or ends texts has another id.
    #[error("the {which} token of the draft model is another one than the model's")]
    Special {
        /// Which one.
        which: &'static str,
    },
    /// A token has another text.
    #[error("token {id} is {draft:?} for the draft model and {target:?} for the model")]
    Token {
        /// Its id.
        id: usize,
        /// Its text for the model.
        target: String,
        /// Its text for the draft model.
        draft: String,
    },
}

/// Checks the vocabularies of two headers.
///
/// # Errors
/// The first difference that matters.
pub fn check_vocabulary(target: &Metadata, draft: &Metadata) -> Result<(), VocabularyError> {
    let tokeniser = |of: &Metadata, which| {
        let found = of.str("tokenizer.ggml.model").ok().flatten();
        found.map(str::to_owned).ok_or(VocabularyError::Missing(which))
    };
    let (one, other) = (tokeniser(target, "target")?, tokeniser(draft, "draft")?);
    if one != other {
        return Err(VocabularyError::Tokeniser { target: one, draft: other });
    }
    for (which, key) in [("first", "tokenizer.ggml.bos_token_id"), ("last", "tokenizer.ggml.eos_token_id")] {
        let of = |metadata: &Metadata| metadata.u32(key).ok().flatten();
        if let (Some(one), Some(other)) = (of(target), of(draft))
            && one != other
        {
            return Err(VocabularyError::Special { which });
        }
    }
    let texts = |of: &'_ Metadata, which| match of.str_array("tokenizer.ggml.tokens") {
        Ok(Some(tokens)) => Ok(tokens.to_vec()),
        _ => Err(VocabularyError::Missing(which)),
    };
    let (one, other) = (texts(target, "target")?, texts(draft, "draft")?);
    if one.len().abs_diff(other.len()) > MOST_EXTRA {
        return Err(VocabularyError::Length { target: one.len(), draft: other.len() });
    }
    let differs = |(_, (one, other)): &(usize, (&String, &String))| one != other;
    match one.iter().zip(&other).enumerate().skip(FIRST_COMPARED).find(differs) {
        Some((id, (target, draft))) => {
            Err(VocabularyError::Token { id, target: target.clone(), draft: draft.clone() })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Array, Value};

    fn vocabulary(tokens: usize, change: impl Fn(usize) -> Option<&'static str>) -> Metadata {
        let mut metadata = Metadata::new();
        metadata.insert("tokenizer.ggml.model", Value::String("gpt2".to_owned()));
        metadata.insert("tokenizer.ggml.bos_token_id", Value::U32(1));
        let text = |id: usize| change(id).map_or_else(|| format!("t{id}"), str::to_owned);
        let texts = (0..tokens).map(text).collect();
        metadata.insert("tokenizer.ggml.tokens", Value::Array(Array::String(texts)));
        metadata
    }

    #[test]
    fn equal_vocabularies_and_those_with_a_few_tokens_more_go_together() {
        let target = vocabulary(300, |_| None);
        assert_eq!(check_vocabulary(&target, &vocabulary(300, |_| None)), Ok(()));
        assert_eq!(check_vocabulary(&target, &vocabulary(428, |_| None)), Ok(()));
        assert_eq!(check_vocabulary(&target, &vocabulary(300, |id| (id == 4).then_some("<pad>"))), Ok(()));
    }

    #[test]
    fn each_difference_that_matters_is_named() {
        let target = vocabulary(300, |_| None);
        let refused = |draft: &Metadata| check_vocabulary(&target, draft).unwrap_err();
        let longer = VocabularyError::Length { target: 300, draft: 429 };
        assert_eq!(refused(&vocabulary(429, |_| None)), longer);
        let other = refused(&vocabulary(300, |id| (id == 7).then_some("x")));
        assert_eq!(other.to_string(), r#"token 7 is "x" for the draft model and "t7" for the model"#);
        let mut begins = vocabulary(300, |_| None);
        begins.insert("tokenizer.ggml.bos_token_id", Value::U32(2));
        assert_eq!(refused(&begins), VocabularyError::Special { which: "first" });
        let mut kind = vocabulary(300, |_| None);
        kind.insert("tokenizer.ggml.model", Value::String("llama".to_owned()));
        assert!(matches!(refused(&kind), VocabularyError::Tokeniser { .. }));
        assert_eq!(refused(&Metadata::new()), VocabularyError::Missing("draft"));
    }
}
