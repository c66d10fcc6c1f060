//! The tree of a template.

use super::GoTemplateError;
use super::expression::{Expression, pipeline, shown};
use super::lex::{Part, Word, parts};
use super::scope::{Scope, Slot};

/// Blocks within each other.
const MOST_DEPTH: usize = 40;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// Prints a value.
    Print(Expression),
    /// Gives a variable a value.
    Set(Slot, Expression),
    If {
        condition: Expression,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `over` is kept in a slot of its own.
    Range {
        over: Expression,
        own: Slot,
        key: Option<Slot>,
        item: Option<Slot>,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Expression,
        own: Slot,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// What ended a list of nodes.
enum End {
    /// The template.
    Template,
    /// `{{ end }}`
    Closed,
    /// `{{ else }}`, with the words behind it.
    Else(Vec<Word>),
}

/// Reads a template.
pub(super) fn parse(source: &str) -> Result<Vec<Node>, GoTemplateError> {
    let parts = parts(source)?;
    let mut parser = Parser { parts: parts.into_iter(), scope: Scope::default(), depth: 0, ranges: 0 };
    match parser.list()? {
        (nodes, End::Template) => Ok(nodes),
        (_, End::Closed) => Err(GoTemplateError::Unexpected("end".to_owned())),
        (_, End::Else(_)) => Err(GoTemplateError::Unexpected("else".to_owned())),
    }
}

struct Parser {
    parts: std::vec::IntoIter<Part>,
    scope: Scope,
    depth: usize,
    /// Ranges around what is being read.
    ranges: usize,
}

impl Parser {
    /// Nodes up to an end. Variables that they declare are seen no further.
    fn list(&mut self) -> Result<(Vec<Node>, End), GoTemplateError> {
        let (mut nodes, seen) = (Vec::new(), self.scope.seen());
        let end = loop {
            match self.parts.next() {
                None => break End::Template,
                Some(Part::Text(text)) => nodes.push(Node::Text(text)),
                Some(Part::Action(words)) => match name_of(&words) {
                    "end" => break End::Closed,
                    "else" => break End::Else(words.into_iter().skip(1).collect()),
                    _ => nodes.push(self.action(&words)?),
                },
            }
        };
        self.scope.forget(seen);
        Ok((nodes, end))
    }

    fn action(&mut self, words: &[Word]) -> Result<Node, GoTemplateError> {
        match name_of(words) {
            "if" | "with" | "range" => self.block(words),
            name @ ("break" | "continue") => {
                if self.ranges == 0 || words.len() > 1 {
                    return Err(GoTemplateError::Unexpected(name.to_owned()));
                }
                Ok(if name == "break" { Node::Break } else { Node::Continue })
            }
            name @ ("define" | "template" | "block") => Err(GoTemplateError::Unsupported(name.to_owned())),
            _ => match words {
                [Word::Variable(name), Word::Sign(':'), value @ ..] => {
                    let value = pipeline(value, &self.scope)?;
                    Ok(Node::Set(self.scope.declare(name), value))
                }
                [Word::Variable(name), Word::Sign('='), value @ ..] => {
                    Ok(Node::Set(self.scope.find(name)?, pipeline(value, &self.scope)?))
                }
                _ => Ok(Node::Print(pipeline(words, &self.scope)?)),
            },
        }
    }

    /// `if`, `with` or `range`, up to its end.
    fn block(&mut self, words: &[Word]) -> Result<Node, GoTemplateError> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(GoTemplateError::TooDeep);
        }
        let seen = self.scope.seen();
        let node = match name_of(words) {
            "range" => self.range(&words[1..]),
            "with" => self.with(&words[1..]),
            _ => self.condition(&words[1..]),
        };
        self.scope.forget(seen);
        self.depth -= 1;
        node
    }

    fn condition(&mut self, words: &[Word]) -> Result<Node, GoTemplateError> {
        if let [Word::Variable(_), Word::Sign(':' | '='), ..] = words {
            return Err(GoTemplateError::Unsupported("a variable of an if".to_owned()));
        }
        let condition = pipeline(words, &self.scope)?;
        let (then, otherwise) = self.branches()?;
        Ok(Node::If { condition, then, otherwise })
    }

    fn with(&mut self, words: &[Word]) -> Result<Node, GoTemplateError> {
        let (value, own) = match words {
            [Word::Variable(name), Word::Sign(':'), value @ ..] => {
                (pipeline(value, &self.scope)?, self.scope.declare(name))
            }
            _ => (pipeline(words, &self.scope)?, self.scope.unnamed()),
        };
        let (then, otherwise) = self.branches()?;
        Ok(Node::With { value, own, then, otherwise })
    }

    fn range(&mut self, words: &[Word]) -> Result<Node, GoTemplateError> {
        let (key, item, over) = match words {
            [Word::Variable(key), Word::Sign(','), Word::Variable(item), Word::Sign(':'), over @ ..] => {
                (Some(key), Some(item), over)
            }
            [Word::Variable(item), Word::Sign(':'), over @ ..] => (None, Some(item), over),
            _ => (None, None, words),
        };
        let over = pipeline(over, &self.scope)?;
        let own = self.scope.unnamed();
        let key = key.map(|name| self.scope.declare(name));
        let item = item.map(|name| self.scope.declare(name));
        self.ranges += 1;
        let branches = self.branches();
        self.ranges -= 1;
        let (body, otherwise) = branches?;
        Ok(Node::Range { over, own, key, item, body, otherwise })
    }

    /// Both branches of a block.
    fn branches(&mut self) -> Result<(Vec<Node>, Vec<Node>), GoTemplateError> {
        match self.list()? {
            (then, End::Closed) => Ok((then, Vec::new())),
            (_, End::Template) => Err(GoTemplateError::Unclosed("an if, with or range")),
            (then, End::Else(words)) if words.is_empty() => match self.list()? {
                (otherwise, End::Closed) => Ok((then, otherwise)),
                (_, End::Else(_)) => Err(GoTemplateError::Unexpected("else".to_owned())),
                (_, End::Template) => Err(GoTemplateError::Unclosed("an else")),
            },
            // `else if` ends with the same `end`.
            (then, End::Else(words)) => match name_of(&words) {
                "if" | "with" => Ok((then, vec![self.block(&words)?])),
                _ => Err(GoTemplateError::Unexpected(words.first().map(shown).unwrap_or_default())),
            },
        }
    }
}

/// The name that an action begins with.
fn name_of(words: &[Word]) -> &str {
    match words.first() {
        Some(Word::Name(name)) => name,
        _ => "",
    }
}
