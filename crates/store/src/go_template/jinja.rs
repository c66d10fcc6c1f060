//! The tree, in Jinja. Texts are expressions, so that no rule of Jinja about blanks touches them.

use super::expression::Expression;
use super::names::{Uses, names_response};
use super::parse::Node;
use super::prologue::{CONVERSATION, TURNS};
use super::values::{Context, literal, slot_name};

/// A template that goes through messages.
pub(super) fn of_messages(nodes: &[Node]) -> String {
    let mut out = CONVERSATION.to_owned();
    write(&mut out, nodes, &Context { messages: true, dot: None });
    out
}

/// A template of a prompt and its answer: once for each turn, the last time up to where the answer begins.
pub(super) fn of_turns(mut nodes: Vec<Node>, uses: &Uses) -> String {
    if !uses.response {
        let root = Box::new(Expression::Root);
        nodes.push(Node::Print(Expression::Field(root, "Response".to_owned())));
    }
    let context = Context { messages: false, dot: None };
    let mut out = format!("{CONVERSATION}{TURNS}{{% for t in v.turns %}}");
    out.push_str("{% if loop.last and add_generation_prompt %}");
    let mut open = nodes.clone();
    cut(&mut open);
    write(&mut out, &open, &context);
    out.push_str("{% else %}");
    write(&mut out, &nodes, &context);
    out.push_str("{% endif %}{% endfor %}");
    out
}

/// Takes away what stands behind the answer. Whether it was found.
fn cut(nodes: &mut Vec<Node>) -> bool {
    for index in 0..nodes.len() {
        let found = match nodes.get_mut(index) {
            Some(Node::Print(value)) => names_response(value),
            Some(
                Node::If { then, otherwise, .. }
                | Node::With { then, otherwise, .. }
                | Node::Range { body: then, otherwise, .. },
            ) => {
                let first = cut(then);
                if first {
                    otherwise.clear();
                }
                first || cut(otherwise)
            }
            _ => false,
        };
        if found {
            nodes.truncate(index + 1);
            return true;
        }
    }
    false
}

fn write(out: &mut String, nodes: &[Node], context: &Context) {
    for node in nodes {
        match node {
            Node::Text(text) => print(out, &literal(text)),
            Node::Print(value) => print(out, &context.printed(value)),
            Node::Set(slot, value) => set(out, &slot_name(*slot), &context.value(value)),
            Node::If { condition, then, otherwise } => {
                out.push_str(&format!("{{% if {} %}}", context.value(condition)));
                write(out, then, context);
                branch(out, otherwise, context);
                out.push_str("{% endif %}");
            }
            Node::With { value, own, then, otherwise } => {
                let own = slot_name(*own);
                set(out, &own, &context.value(value));
                out.push_str(&format!("{{% if {own} %}}"));
                write(out, then, &context.within(own));
                branch(out, otherwise, context);
                out.push_str("{% endif %}");
            }
            Node::Range { .. } => write_range(out, node, context),
            Node::Break => out.push_str("{% break %}"),
            Node::Continue => out.push_str("{% continue %}"),
        }
    }
}

/// Over a list, or over a map in the order of its keys.
fn write_range(out: &mut String, node: &Node, context: &Context) {
    let Node::Range { over, own, key, item, body, otherwise } = node else { return };
    let (each, own) = (format!("e{own}"), slot_name(*own));
    set(out, &own, &format!("{} or []", context.value(over)));
    out.push_str(&format!("{{% for {each} in ({own} | list | sort if {own} is mapping else {own}) %}}"));
    if let Some(key) = key {
        set(out, &slot_name(*key), &format!("{each} if {own} is mapping else loop.index0"));
    }
    // Each turn has an item of its own, whatever loops within it do.
    let dot = item.map_or_else(|| format!("{own}_item"), slot_name);
    set(out, &dot, &format!("{own}[{each}] if {own} is mapping else {each}"));
    write(out, body, &context.within(dot));
    branch(out, otherwise, context);
    out.push_str("{% endfor %}");
}

fn branch(out: &mut String, nodes: &[Node], context: &Context) {
    if !nodes.is_empty() {
        out.push_str("{% else %}");
        write(out, nodes, context);
    }
}

fn set(out: &mut String, name: &str, value: &str) {
    out.push_str(&format!("{{% set {name} = {value} %}}"));
}

fn print(out: &mut String, value: &str) {
    out.push_str(&format!("{{{{ {value} }}}}"));
}
