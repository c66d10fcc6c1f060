//! Agents whose programs take all they need as variables and arguments, so that starting them changes no
//! file. What would let them find the server when they are started otherwise is in `lasting`.

use serde_json::{Map, Value, json};

use super::json::Change;
use super::places::Places;
use super::setup::{FileEdit, Setup};
use super::target::Target;

/// Prompts of agents take minutes where weights stream; an answer that is still coming is not late.
const PATIENCE_S: u64 = 3600;

/// Claude Code, over Anthropic's protocol. Settings on the command line go before those of files, which may
/// name another server.
pub(super) fn claude(target: &Target, places: &Places) -> Setup {
    let variables = claude_variables(target);
    let public: Map<String, Value> = variables
        .iter()
        .filter(|(name, _)| *name != "ANTHROPIC_AUTH_TOKEN")
        .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
        .collect();
    let settings = json!({"env": public}).to_string();
    let lasting = variables.iter().map(|(name, value)| Change::set(&["env", name], value.as_str())).collect();
    Setup {
        arguments: vec!["--settings".to_owned(), settings, "--model".to_owned(), target.model.clone()],
        variables,
        lasting: vec![FileEdit::json(places.claude.join("settings.json"), lasting)],
        ..Setup::default()
    }
}

fn claude_variables(target: &Target) -> Vec<(&'static str, String)> {
    let model = || target.model.clone();
    vec![
        ("ANTHROPIC_BASE_URL", target.url.clone()),
        ("ANTHROPIC_AUTH_TOKEN", target.key().to_owned()),
        // A key that happens to be set would go to this server, and a question would come first.
        ("ANTHROPIC_API_KEY", String::new()),
        ("ANTHROPIC_MODEL", model()),
        ("ANTHROPIC_DEFAULT_OPUS_MODEL", model()),
        ("ANTHROPIC_DEFAULT_SONNET_MODEL", model()),
        ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model()),
        ("CLAUDE_CODE_SUBAGENT_MODEL", model()),
        ("CLAUDE_CODE_AUTO_COMPACT_WINDOW", target.context_tokens.to_string()),
        // Both change the beginning of every prompt, which then has to be read again.
        ("CLAUDE_CODE_ATTRIBUTION_HEADER", "0".to_owned()),
        ("CLAUDE_CODE_TOTAL_TOKENS_REMINDER", "off".to_owned()),
        ("API_TIMEOUT_MS", (PATIENCE_S * 1000).to_string()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
    ]
}

/// Codex, over `/v1/responses`. Overrides on the command line go before its `config.toml`.
pub(super) fn codex(target: &Target, places: &Places) -> Setup {
    let mut arguments = Vec::new();
    for line in codex_settings(target) {
        arguments.extend(["-c".to_owned(), line]);
    }
    let profile = codex_settings(target).join("\n") + "\n";
    Setup {
        arguments,
        variables: codex_variables(target),
        lasting: vec![FileEdit::whole(places.codex.join("hypura.config.toml"), profile)],
        hint: None,
        ..Setup::default()
    }
}

fn codex_variables(target: &Target) -> Vec<(&'static str, String)> {
    target.secret().map(|key| ("HYPURA_API_KEY", key.to_owned())).into_iter().collect()
}

/// Lines that are TOML in a file and `KEY=VALUE` on the command line.
fn codex_settings(target: &Target) -> Vec<String> {
    let text = |text: &str| Value::from(text).to_string();
    let mut lines = vec![
        format!("model={}", text(&target.model)),
        "model_provider=\"hypura\"".to_owned(),
        format!("model_context_window={}", target.context_tokens),
        "model_providers.hypura.name=\"Hypura\"".to_owned(),
        format!("model_providers.hypura.base_url={}", text(&target.openai_url())),
        "model_providers.hypura.wire_api=\"responses\"".to_owned(),
        format!("model_providers.hypura.stream_idle_timeout_ms={}", PATIENCE_S * 1000),
    ];
    if target.secret().is_some() {
        lines.push("model_providers.hypura.env_key=\"HYPURA_API_KEY\"".to_owned());
    }
    lines
}

/// opencode: a configuration in a variable is laid over that of files.
pub(super) fn opencode(target: &Target, places: &Places) -> Setup {
    let provider = opencode_provider(target);
    let model = format!("hypura/{}", target.model);
    let content = json!({
        "$schema": "https://opencode.ai/config.json",
        "provider": {"hypura": provider},
        "model": model,
        "small_model": model,
    });
    let path = Places::present(&places.config.join("opencode"), &["opencode.json", "opencode.jsonc"]);
    let lasting = vec![
        Change::set(&["$schema"], "https://opencode.ai/config.json"),
        Change::set(&["provider", "hypura"], provider),
        Change::set(&["model"], model.as_str()),
    ];
    Setup {
        variables: vec![("OPENCODE_CONFIG_CONTENT", content.to_string())],
        lasting: vec![FileEdit::json(path, lasting)],
        ..Setup::default()
    }
}

fn opencode_provider(target: &Target) -> Value {
    let mut model = json!({
        "name": target.model,
        "tool_call": target.calls_tools,
        "reasoning": target.thinks,
        "limit": {"context": target.context_tokens, "output": target.most_output_tokens()},
    });
    if target.sees {
        model["modalities"] = json!({"input": ["text", "image"], "output": ["text"]});
    }
    json!({
        "npm": "@ai-sdk/openai-compatible",
        "name": "Hypura",
        "options": {"baseURL": target.openai_url(), "apiKey": target.key(), "timeout": PATIENCE_S * 1000},
        "models": {target.model.as_str(): model},
    })
}

/// aider, over `/v1/chat/completions`. Its flags go before its files; what it does not know of a model is in
/// a file of ours.
pub(super) fn aider(target: &Target, places: &Places) -> Setup {
    let model = format!("openai/{}", target.model);
    let metadata = json!({model.as_str(): {
        "max_input_tokens": target.context_tokens,
        "max_output_tokens": target.most_output_tokens(),
        "input_cost_per_token": 0,
        "output_cost_per_token": 0,
        "litellm_provider": "openai",
        "mode": "chat",
        "supports_vision": target.sees,
    }});
    let file = places.own("aider.model-metadata.json");
    let flags = [
        ("--model", model.clone()),
        ("--weak-model", model),
        ("--openai-api-base", target.openai_url()),
        ("--model-metadata-file", file.display().to_string()),
        ("--timeout", PATIENCE_S.to_string()),
    ];
    Setup {
        arguments: flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(),
        variables: vec![
            ("OPENAI_API_KEY", target.key().to_owned()),
            ("AIDER_OPENAI_API_KEY", target.key().to_owned()),
        ],
        files: vec![FileEdit::whole(file, format!("{metadata:#}\n"))],
        ..Setup::default()
    }
}

/// GitHub Copilot CLI, over `/v1/responses`.
pub(super) fn copilot(target: &Target) -> Setup {
    Setup {
        variables: vec![
            ("COPILOT_PROVIDER_BASE_URL", target.openai_url()),
            ("COPILOT_PROVIDER_API_KEY", target.secret().unwrap_or_default().to_owned()),
            ("COPILOT_PROVIDER_WIRE_API", "responses".to_owned()),
            ("COPILOT_MODEL", target.model.clone()),
        ],
        arguments: vec!["--model".to_owned(), target.model.clone()],
        ..Setup::default()
    }
}

/// goose, over `/v1/chat/completions`.
pub(super) fn goose(target: &Target) -> Setup {
    Setup {
        variables: vec![
            ("GOOSE_PROVIDER", "openai".to_owned()),
            ("GOOSE_MODEL", target.model.clone()),
            ("GOOSE_CONTEXT_LIMIT", target.context_tokens.to_string()),
            ("OPENAI_HOST", target.url.clone()),
            ("OPENAI_BASE_PATH", "v1/chat/completions".to_owned()),
            ("OPENAI_API_KEY", target.key().to_owned()),
            ("OPENAI_TIMEOUT", PATIENCE_S.to_string()),
        ],
        without_arguments: vec!["session".to_owned()],
        ..Setup::default()
    }
}

/// Qwen Code, over `/v1/chat/completions`.
pub(super) fn qwen(target: &Target) -> Setup {
    Setup {
        variables: vec![
            ("OPENAI_API_KEY", target.key().to_owned()),
            ("OPENAI_BASE_URL", target.openai_url()),
            ("OPENAI_MODEL", target.model.clone()),
        ],
        arguments: ["--auth-type", "openai", "--model", &target.model].map(ToOwned::to_owned).to_vec(),
        ..Setup::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn places() -> Places {
        Places::of(|name| (name == "HOME").then(|| PathBuf::from("/home/a"))).unwrap()
    }

    fn lasting(setup: &Setup, before: Option<&str>) -> String {
        setup.lasting[0].applied(before).unwrap()
    }

    #[test]
    fn claude_gets_every_model_and_no_key_on_the_command_line() {
        let setup = claude(&Target::example(Some("secret")), &places());
        let variable = |name: &str| setup.variables.iter().find(|(key, _)| *key == name).unwrap().1.as_str();
        assert_eq!(variable("ANTHROPIC_BASE_URL"), "http://127.0.0.1:11434");
        assert_eq!(variable("ANTHROPIC_AUTH_TOKEN"), "secret");
        assert_eq!(variable("ANTHROPIC_API_KEY"), "");
        assert_eq!(variable("ANTHROPIC_DEFAULT_HAIKU_MODEL"), "qwen3-coder:30b");
        assert!(setup.arguments.iter().all(|word| !word.contains("secret")), "{:?}", setup.arguments);
        let settings: Value = serde_json::from_str(&setup.arguments[1]).unwrap();
        assert_eq!(settings["env"]["ANTHROPIC_BASE_URL"], "http://127.0.0.1:11434");
        let before =
            r#"{"permissions": {"allow": ["Read"]}, "env": {"MINE": "1", "ANTHROPIC_BASE_URL": "x"}}"#;
        let after: Value = serde_json::from_str(&lasting(&setup, Some(before))).unwrap();
        assert_eq!(after["permissions"]["allow"][0], "Read");
        assert_eq!(
            (&after["env"]["MINE"], &after["env"]["ANTHROPIC_AUTH_TOKEN"]),
            (&json!("1"), &json!("secret"))
        );
        assert_eq!(setup.lasting[0].path, PathBuf::from("/home/a/.claude/settings.json"));
    }

    #[test]
    fn codex_gets_one_override_for_each_line_of_its_profile() {
        let setup = codex(&Target::example(None), &places());
        assert!(setup.variables.is_empty());
        assert_eq!(setup.arguments.len() % 2, 0);
        assert!(setup.arguments.contains(&"model_context_window=65536".to_owned()));
        let profile = lasting(&setup, None);
        assert!(profile.contains("model=\"qwen3-coder:30b\"\n") && !profile.contains("env_key"), "{profile}");
        let setup = codex(&Target::example(Some("secret")), &places());
        assert_eq!(setup.variables, [("HYPURA_API_KEY", "secret".to_owned())]);
        assert!(!setup.arguments.iter().any(|word| word.contains("secret")));
        assert!(!lasting(&setup, None).contains("secret"));
    }

    #[test]
    fn opencode_keeps_other_providers_and_comments() {
        let setup = opencode(&Target::example(None), &places());
        let content: Value = serde_json::from_str(&setup.variables[0].1).unwrap();
        assert_eq!(content["model"], "hypura/qwen3-coder:30b");
        let model = &content["provider"]["hypura"]["models"]["qwen3-coder:30b"];
        assert_eq!(
            (&model["limit"]["context"], &model["modalities"]["input"][1]),
            (&json!(65536), &json!("image"))
        );
        let before = "{\n  // mine\n  \"provider\": {\"other\": {}},\n  \"theme\": \"dark\",\n}\n";
        let after = lasting(&setup, Some(before));
        for kept in
            ["// mine", "\"other\": {}", "\"theme\": \"dark\"", "\"baseURL\": \"http://127.0.0.1:11434/v1\""]
        {
            assert!(after.contains(kept), "{kept} is not in {after}");
        }
    }

    #[test]
    fn aider_is_told_by_flags_and_a_file_of_ours() {
        let setup = aider(&Target::example(Some("secret")), &places());
        assert!(setup.arguments.windows(2).any(|pair| pair == ["--model", "openai/qwen3-coder:30b"]));
        assert!(!setup.arguments.iter().any(|word| word.contains("secret")));
        let metadata: Value = serde_json::from_str(&setup.files[0].applied(Some("broken")).unwrap()).unwrap();
        assert_eq!(metadata["openai/qwen3-coder:30b"]["max_input_tokens"], 65536);
        assert!(setup.files[0].is_ours());
    }

    #[test]
    fn others_are_told_by_variables() {
        let target = Target::example(None);
        for setup in [copilot(&target), goose(&target), qwen(&target)] {
            let values: Vec<&str> = setup.variables.iter().map(|(_, value)| value.as_str()).collect();
            assert!(values.iter().any(|value| value.starts_with("http://127.0.0.1:11434")), "{values:?}");
            assert!(values.contains(&"qwen3-coder:30b"), "{values:?}");
            assert!(setup.files.is_empty() && setup.lasting.is_empty());
        }
    }
}
