//! Expressions, in Jinja.

use super::expression::{Expression, Function};
use super::names::{is_text, key_of};
use super::scope::Slot;

/// What stands for `.` and `$`.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// Whether the template sees messages; otherwise a turn, `t`.
    pub messages: bool,
    /// The value of `.` within a range or a `with`.
    pub dot: Option<String>,
}

impl Context {
    /// The same with another `.`.
    pub fn within(&self, dot: String) -> Self {
        Self { dot: Some(dot), ..self.clone() }
    }

    /// An expression.
    pub fn value(&self, value: &Expression) -> String {
        match value {
            // The whole of it is of no use, and never printed.
            Expression::Root => "v".to_owned(),
            Expression::Dot => self.dot.clone().unwrap_or_else(|| "v".to_owned()),
            Expression::Variable(slot) => slot_name(*slot),
            Expression::Text(text) => literal(text),
            Expression::Number(text) => text.clone(),
            Expression::Truth(truth) => truth.to_string(),
            Expression::Nil => "none".to_owned(),
            Expression::Field(of, name) => match **of {
                Expression::Root => self.root(name),
                Expression::Dot if self.dot.is_none() => self.root(name),
                _ => format!("{}[{}]", self.value(of), literal(key_of(name))),
            },
            Expression::Call(function, arguments) => self.call(*function, arguments),
        }
    }

    /// A field of what the template is given.
    fn root(&self, name: &str) -> String {
        match (name, self.messages) {
            ("System", true) => "v.System",
            ("Messages", _) => "v.Messages",
            ("System", false) => "t['system']",
            ("Prompt", false) => "t['prompt']",
            ("Response", false) => "t['response']",
            ("Tools", _) => "tools",
            ("Think", _) => "(enable_thinking is defined and enable_thinking)",
            ("IsThinkSet", _) => "(enable_thinking is defined)",
            ("ThinkLevel", _) => "(reasoning_effort or '')",
            // Nothing is set there, as in Go.
            _ => "''",
        }
        .to_owned()
    }

    fn call(&self, function: Function, arguments: &[Expression]) -> String {
        let all: Vec<String> = arguments.iter().map(|argument| self.value(argument)).collect();
        let argument = |index: usize| all.get(index).map(String::as_str).unwrap_or_default();
        let compared = |sign: &str| format!("({} {sign} {})", argument(0), argument(1));
        match function {
            Function::And => format!("({})", all.join(" and ")),
            Function::Or => format!("({})", all.join(" or ")),
            Function::Not => format!("(not {})", argument(0)),
            Function::Eq => {
                let each: Vec<String> =
                    all.iter().skip(1).map(|other| format!("{} == {other}", argument(0))).collect();
                format!("({})", each.join(" or "))
            }
            Function::Ne => compared("!="),
            Function::Lt => compared("<"),
            Function::Le => compared("<="),
            Function::Gt => compared(">"),
            Function::Ge => compared(">="),
            Function::Len => format!("(({} or []) | length)", argument(0)),
            Function::Index => {
                let rest: String = all.iter().skip(1).map(|index| format!("[{index}]")).collect();
                format!("{}{rest}", argument(0))
            }
            Function::Slice => format!("{}[{}:{}]", argument(0), argument(1), argument(2)),
            Function::Json => json(argument(0)),
            Function::CurrentDate => "strftime_now('%Y-%m-%d')".to_owned(),
            Function::Printf => self.formatted(arguments),
            Function::Print => joined(arguments.iter().map(|argument| self.printed(argument))),
            Function::Println => {
                let mut parts: Vec<String> =
                    arguments.iter().map(|argument| self.printed(argument)).collect();
                if let Some(last) = parts.last_mut() {
                    last.push_str(" ~ '\\n'");
                }
                if parts.is_empty() { "'\\n'".to_owned() } else { format!("({})", parts.join(" ~ ' ' ~ ")) }
            }
        }
    }

    /// `printf`: its format is a text that stands in the template.
    fn formatted(&self, arguments: &[Expression]) -> String {
        let Some((Expression::Text(format), rest)) = arguments.split_first() else {
            return joined(arguments.iter().map(|argument| self.printed(argument)));
        };
        let (mut parts, mut rest, mut text) = (Vec::new(), rest.iter(), String::new());
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            let verb = if c == '%' { chars.next() } else { None };
            match verb {
                None => text.push(c),
                Some('%') => text.push('%'),
                Some(verb) => {
                    parts.push(literal(&std::mem::take(&mut text)));
                    let value = rest.next();
                    parts.extend(value.map(|value| match verb {
                        'q' => json(&self.value(value)),
                        _ => self.printed(value),
                    }));
                }
            }
        }
        parts.push(literal(&text));
        joined(parts.into_iter())
    }

    /// A value as Go prints it: texts as they are, nothing as nothing, the rest as JSON.
    pub fn printed(&self, value: &Expression) -> String {
        let shown = self.value(value);
        match value {
            Expression::Text(_) => shown,
            Expression::Field(_, name) if is_text(name) => format!("({shown} or '')"),
            Expression::Call(Function::Printf | Function::Print | Function::Println | Function::Json, _) => {
                shown
            }
            _ => format!(
                "({shown} if {shown} is string else ('' if {shown} is none or {shown} is undefined else {}))",
                json(&shown)
            ),
        }
    }
}

/// Where a variable is.
pub(super) fn slot_name(slot: Slot) -> String {
    format!("v.x{slot}")
}

/// JSON without blanks, as Go writes it.
fn json(value: &str) -> String {
    format!("({value} | tojson(separators=[',', ':']))")
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.filter(|part| part != "''").collect();
    if parts.is_empty() { "''".to_owned() } else { format!("({})", parts.join(" ~ ")) }
}

/// A text in Jinja's quotes.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(c),
        }
    }
    out.push('\'');
    out
}
