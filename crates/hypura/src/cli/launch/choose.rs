//! The model, asked of the person at the terminal.

use anyhow::Context as _;
use hypura_core::plan::human_bytes;
use serde_json::Value;
use std::io::{self, BufRead as _, IsTerminal as _};

use super::agent::Agent;
use crate::cli::failure::UsageError;
use crate::client::Client;

/// Asks which of the server's models the agent is to work with.
///
/// # Errors
/// Without a terminal, without a model, or when nothing is chosen.
pub(super) fn model(client: &Client, agent: Agent) -> anyhow::Result<String> {
    let answer = client.get("/api/tags")?;
    let models: Vec<Value> = answer["models"].as_array().into_iter().flatten().cloned().collect();
    let models = suitable(&models, agent.needs_tools());
    if models.is_empty() {
        anyhow::bail!(
            "the server at {} has no model that can answer: `hypura pull NAME` brings one",
            client.address()
        );
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(UsageError("which model? Name one with --model".to_owned()).into());
    }
    eprintln!("Models for {}:", agent.title());
    for (number, line) in models.iter().enumerate() {
        eprintln!("  {:>2}  {}", number + 1, described(line));
    }
    eprint!("Which one? [1] ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("cannot read the answer")?;
    chosen(&models, line.trim()).context("there is no such model in the list: nothing was started")
}

fn can(model: &Value, capability: &str) -> bool {
    model["capabilities"].as_array().is_some_and(|all| all.contains(&capability.into()))
}

/// Those that can answer, those that call tools first.
fn suitable(models: &[Value], tools: bool) -> Vec<&Value> {
    let mut models: Vec<&Value> = models.iter().filter(|model| can(model, "completion")).collect();
    if tools {
        models.sort_by_key(|model| !can(model, "tools"));
    }
    models
}

fn name(model: &Value) -> &str {
    model["name"].as_str().unwrap_or_default()
}

fn described(model: &Value) -> String {
    let tools = if can(model, "tools") { "" } else { ", calls no tools" };
    format!("{} ({}{tools})", name(model), human_bytes(model["size"].as_u64().unwrap_or(0)))
}

/// By number, or by the beginning of a name that only one has; nothing stands for the first.
fn chosen(models: &[&Value], answer: &str) -> Option<String> {
    if answer.is_empty() {
        return models.first().map(|model| name(model).to_owned());
    }
    if let Ok(number) = answer.parse::<usize>() {
        return models.get(number.checked_sub(1)?).map(|model| name(model).to_owned());
    }
    let mut beginning = models.iter().filter(|model| name(model).starts_with(answer));
    let first = beginning.next()?;
    let exact = models.iter().find(|model| name(model) == answer);
    match (exact, beginning.next()) {
        (Some(model), _) => Some(name(model).to_owned()),
        (None, None) => Some(name(first).to_owned()),
        (None, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn models_are_chosen_by_number_or_name() {
        let all = [
            json!({"name": "a:1", "size": 1, "capabilities": ["completion"]}),
            json!({"name": "b:1", "size": 1 << 30, "capabilities": ["completion", "tools"]}),
            json!({"name": "b:12", "capabilities": ["completion", "tools"]}),
            json!({"name": "vectors", "capabilities": ["embedding"]}),
        ];
        let models = suitable(&all, true);
        assert_eq!(models.iter().map(|model| name(model)).collect::<Vec<_>>(), ["b:1", "b:12", "a:1"]);
        assert_eq!(name(suitable(&all, false)[0]), "a:1");
        for (answer, wanted) in [
            ("", Some("b:1")),
            ("3", Some("a:1")),
            ("0", None),
            ("4", None),
            ("b:1", Some("b:1")),
            ("b", None),
            ("a", Some("a:1")),
            ("x", None),
        ] {
            assert_eq!(chosen(&models, answer).as_deref(), wanted, "{answer:?}");
        }
        assert_eq!(described(models[0]), "b:1 (1.00 GiB)");
        assert!(described(models[2]).contains("calls no tools"));
    }
}
