//! Prompt templates in Go's language, as Modelfiles of Ollama have them: written again in Jinja, which
//! llama.cpp renders, and from which it learns how calls look. So one engine renders all templates.
//!
//! - `lex`: text, actions and their words
//! - `parse`, `expression`, `scope`: the tree, with variables resolved
//! - `names`: what fields are called in Jinja
//! - `jinja`, `values`: the tree written in Jinja, and its expressions
//! - `prologue`: what Ollama does with a conversation before a template sees it
//! - [`error`](GoTemplateError): what is wrong, or beyond the subset
//! - [`template`](GoTemplate): all of that together
//!
//! Supported is what the templates of Ollama's library use: fields, variables with `:=` and `=`, `if`,
//! `else if`, `with`, `range` over lists and maps, `break`, `continue`, `and`, `or`, `not`, `eq`, `ne`, `lt`,
//! `le`, `gt`, `ge`, `len`, `index`, `slice`, `print`, `println`, `printf`, `json`, `currentDate`, pipes,
//! comments, trimmed blanks. Anything else is refused by name. Where Go prints JSON, keys stand in the order
//! of the request, and `<`, `>` and `&` as they are.

mod error;
mod expression;
mod jinja;
mod lex;
mod names;
mod parse;
mod prologue;
mod scope;
mod template;
mod values;

#[cfg(test)]
mod tests;

pub use error::GoTemplateError;
pub use template::GoTemplate;
