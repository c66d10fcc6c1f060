//! Pipelines: `len (slice $.Messages $i) | eq 1`.

use super::GoTemplateError;
use super::lex::Word;
use super::scope::{Scope, Slot};

/// Calls and brackets within each other.
const MOST_DEPTH: usize = 40;

/// What has a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    /// `.`
    Dot,
    /// `$`
    Root,
    /// `$x`
    Variable(Slot),
    /// `.Name` of something.
    Field(Box<Expression>, String),
    /// In quotes.
    Text(String),
    /// As it is written.
    Number(String),
    /// `true`, `false`.
    Truth(bool),
    /// `nil`
    Nil,
    /// A function and its arguments.
    Call(Function, Vec<Expression>),
}

/// The functions that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Len,
    Index,
    Slice,
    Print,
    Println,
    Printf,
    Json,
    CurrentDate,
}

impl Function {
    fn parse(name: &str) -> Result<Self, GoTemplateError> {
        Ok(match name {
            "and" => Self::And,
            "or" => Self::Or,
            "not" => Self::Not,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "lt" => Self::Lt,
            "le" => Self::Le,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "len" => Self::Len,
            "index" => Self::Index,
            "slice" => Self::Slice,
            "print" => Self::Print,
            "println" => Self::Println,
            "printf" => Self::Printf,
            "json" => Self::Json,
            "currentDate" => Self::CurrentDate,
            _ => return Err(GoTemplateError::Unsupported(format!("the function {name}"))),
        })
    }

    /// Whether it takes so many arguments.
    fn takes(self, count: usize) -> bool {
        match self {
            Self::Not | Self::Len | Self::Json => count == 1,
            Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge => count == 2,
            Self::Eq => count >= 2,
            Self::Slice => (1..=3).contains(&count),
            Self::And | Self::Or | Self::Index | Self::Printf => count >= 1,
            Self::Print | Self::Println | Self::CurrentDate => true,
        }
    }
}

/// The words of a pipeline, from the front.
pub(super) struct Words<'a> {
    rest: &'a [Word],
    scope: &'a Scope,
    depth: usize,
}

/// A whole pipeline.
pub(super) fn pipeline(words: &[Word], scope: &Scope) -> Result<Expression, GoTemplateError> {
    let mut words = Words { rest: words, scope, depth: 0 };
    let value = words.pipeline()?;
    match words.rest.first() {
        None => Ok(value),
        Some(word) => Err(GoTemplateError::Unexpected(shown(word))),
    }
}

impl Words<'_> {
    fn pipeline(&mut self) -> Result<Expression, GoTemplateError> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(GoTemplateError::TooDeep);
        }
        let mut value = self.command(None)?;
        let mut steps = 0;
        while self.takes_sign('|') {
            steps += 1;
            if steps > MOST_DEPTH {
                return Err(GoTemplateError::TooDeep);
            }
            value = self.command(Some(value))?;
        }
        self.depth -= 1;
        Ok(value)
    }

    /// A function with its arguments, the value that was piped into it last; or a value.
    fn command(&mut self, piped: Option<Expression>) -> Result<Expression, GoTemplateError> {
        let function = match self.rest.first() {
            Some(Word::Name(name)) if !matches!(name.as_str(), "true" | "false" | "nil") => {
                Function::parse(name)?
            }
            _ => {
                let value = self.operand()?;
                return match piped {
                    None => Ok(value),
                    Some(_) => Err(GoTemplateError::Unexpected("a value behind |".to_owned())),
                };
            }
        };
        self.rest = &self.rest[1..];
        let mut arguments = Vec::new();
        while !matches!(self.rest.first(), None | Some(Word::Sign(')' | '|'))) {
            arguments.push(self.operand()?);
        }
        arguments.extend(piped);
        if !function.takes(arguments.len()) {
            return Err(GoTemplateError::Unexpected(
                format!("number of arguments of {function:?}").to_lowercase(),
            ));
        }
        Ok(Expression::Call(function, arguments))
    }

    /// One value and the fields behind it.
    fn operand(&mut self) -> Result<Expression, GoTemplateError> {
        let (word, rest) = self.rest.split_first().ok_or(GoTemplateError::Unclosed("an action"))?;
        self.rest = rest;
        let mut value = match word {
            Word::Field { name, .. } if name.is_empty() => Expression::Dot,
            Word::Field { name, .. } => Expression::Field(Box::new(Expression::Dot), name.clone()),
            Word::Variable(name) if name.is_empty() => Expression::Root,
            Word::Variable(name) => Expression::Variable(self.scope.find(name)?),
            Word::Text(text) => Expression::Text(text.clone()),
            Word::Number(text) => Expression::Number(text.clone()),
            Word::Name(name) => match name.as_str() {
                "true" | "false" => Expression::Truth(name == "true"),
                "nil" => Expression::Nil,
                // A function without arguments.
                _ => {
                    let function = Function::parse(name)?;
                    let plain = function.takes(0).then(|| Expression::Call(function, Vec::new()));
                    plain.ok_or_else(|| GoTemplateError::Unexpected(name.clone()))?
                }
            },
            Word::Sign('(') => {
                let inner = self.pipeline()?;
                if !self.takes_sign(')') {
                    return Err(GoTemplateError::Unclosed("a bracket"));
                }
                inner
            }
            Word::Sign(_) => return Err(GoTemplateError::Unexpected(shown(word))),
        };
        while let Some((Word::Field { name, joined: true }, rest)) = self.rest.split_first() {
            value = Expression::Field(Box::new(value), name.clone());
            self.rest = rest;
        }
        Ok(value)
    }

    fn takes_sign(&mut self, sign: char) -> bool {
        match self.rest.split_first() {
            Some((Word::Sign(found), rest)) if *found == sign => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }
}

/// A word as an error shows it.
pub(super) fn shown(word: &Word) -> String {
    match word {
        Word::Name(name) => name.clone(),
        Word::Field { name, .. } => format!(".{name}"),
        Word::Variable(name) => format!("${name}"),
        Word::Text(text) => format!("{text:?}"),
        Word::Number(text) => text.clone(),
        Word::Sign(':') => ":=".to_owned(),
        Word::Sign(sign) => sign.to_string(),
    }
}
