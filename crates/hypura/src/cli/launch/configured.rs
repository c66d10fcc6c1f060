//! Agents and editors that read their settings from files alone: these are changed before they start.

use serde_json::{Value, json};

use super::json::Change;
use super::places::Places;
use super::setup::{FileEdit, Setup};
use super::target::Target;

/// Cline, which knows Ollama: as its own settings page writes it, and as versions before 3 have it.
pub(super) fn cline(target: &Target, places: &Places) -> Setup {
    let provider = ["providers", "ollama"];
    let at = |rest: &[&'static str]| [&provider, rest].concat();
    let providers = vec![
        Change::set(&["version"], 1),
        Change::set(&["lastUsedProvider"], "ollama"),
        Change::set(&at(&["settings", "provider"]), "ollama"),
        Change::set(&at(&["settings", "model"]), target.model.as_str()),
        Change::set(&at(&["settings", "baseUrl"]), target.openai_url()),
        Change::set(&at(&["settings", "apiKey"]), target.key()),
        Change::set(&at(&["tokenSource"]), "manual"),
        Change::set(&at(&["updatedAt"]), "2026-01-01T00:00:00.000Z"),
    ];
    let mut state = vec![Change::set(&["ollamaBaseUrl"], target.url.as_str())];
    for mode in ["act", "plan"] {
        state.push(Change::set(&[&format!("{mode}ModeApiProvider")], "ollama"));
        state.push(Change::set(&[&format!("{mode}ModeOllamaModelId")], target.model.as_str()));
        state.push(Change::set(&[&format!("{mode}ModeOllamaBaseUrl")], target.url.as_str()));
    }
    state.push(Change::set(&["ollamaApiOptionsCtxNum"], target.context_tokens.to_string()));
    state.push(Change::set(&["welcomeViewCompleted"], true));
    Setup {
        files: vec![
            FileEdit::json(places.cline.join("settings/providers.json"), providers),
            FileEdit::json(places.cline.join("globalState.json"), state),
        ],
        stands_in_files: true,
        ..Setup::default()
    }
}

/// Continue: a configuration of our own, which its command line takes by name, and its extensions offer
/// beside the person's.
pub(super) fn continue_dev(target: &Target, places: &Places) -> Setup {
    let path = places.home.join(".continue/agents/hypura.yaml");
    // Texts of JSON are texts of YAML.
    let text = |text: &str| Value::from(text).to_string();
    let mut capabilities = Vec::new();
    capabilities.extend(target.calls_tools.then_some("tool_use"));
    capabilities.extend(target.sees.then_some("image_input"));
    let yaml = format!(
        "name: Hypura\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: {model}\n    provider: openai\n    model: \
         {model}\n    apiBase: {url}\n    apiKey: {key}\n    roles: [chat, edit, apply]\n    capabilities: [{}]\n    \
         defaultCompletionOptions:\n      contextLength: {}\n      maxTokens: {}\n    requestOptions:\n      \
         timeout: 3600000\n",
        capabilities.join(", "),
        target.context_tokens,
        target.most_output_tokens(),
        model = text(&target.model),
        url = text(&target.openai_url()),
        key = text(target.key()),
    );
    Setup {
        arguments: vec!["--config".to_owned(), path.display().to_string()],
        hint: None,
        files: vec![FileEdit::whole(path, yaml)],
        stands_in_files: true,
        ..Setup::default()
    }
}

/// Zed, which knows Ollama.
pub(super) fn zed(target: &Target, places: &Places) -> Setup {
    let model = json!({
        "name": target.model,
        "display_name": target.model,
        "max_tokens": target.context_tokens,
        "supports_tools": target.calls_tools,
        "supports_images": target.sees,
        "supports_thinking": target.thinks,
    });
    let changes = vec![
        Change::set(&["language_models", "ollama", "api_url"], target.url.as_str()),
        Change::entry(&["language_models", "ollama", "available_models"], "name", model),
        Change::set(&["agent", "default_model", "provider"], "ollama"),
        Change::set(&["agent", "default_model", "model"], target.model.as_str()),
    ];
    let hint = target.secret().map(|_| {
        "Zed keeps keys in the system's key ring: enter the server's key once in Agent settings, Ollama."
            .to_owned()
    });
    Setup {
        files: vec![FileEdit::json(places.config.join("zed/settings.json"), changes)],
        stands_in_files: true,
        hint,
        ..Setup::default()
    }
}

/// Visual Studio Code: a server of Ollama's kind for Copilot Chat.
pub(super) fn vscode(target: &Target, places: &Places) -> Setup {
    let entry = json!({"vendor": "ollama", "name": "Hypura", "url": target.url});
    Setup {
        files: vec![FileEdit::json(
            places.vscode.join("chatLanguageModels.json"),
            vec![Change::entry(&[], "name", entry)],
        )],
        stands_in_files: true,
        hint: Some(format!(
            "In Visual Studio Code open Chat and pick {} in the list of models (under Other Models, if it is not \
             there yet).",
            target.model
        )),
        ..Setup::default()
    }
}

/// Pi, over `/v1/chat/completions`.
pub(super) fn pi(target: &Target, places: &Places) -> Setup {
    let input = if target.sees { json!(["text", "image"]) } else { json!(["text"]) };
    let model = json!({
        "id": target.model,
        "reasoning": target.thinks,
        "input": input,
        "contextWindow": target.context_tokens,
        "maxTokens": target.most_output_tokens(),
    });
    let provider = ["providers", "hypura"];
    let at = |name: &'static str| [&provider[..], &[name]].concat();
    let changes = vec![
        Change::set(&at("baseUrl"), target.openai_url()),
        Change::set(&at("api"), "openai-completions"),
        Change::set(&at("apiKey"), target.key()),
        Change::entry(&at("models"), "id", model),
    ];
    Setup {
        arguments: ["--provider", "hypura", "--model", &target.model].map(ToOwned::to_owned).to_vec(),
        files: vec![FileEdit::json(places.pi.join("models.json"), changes)],
        stands_in_files: true,
        ..Setup::default()
    }
}

/// Droid, over `/v1/chat/completions`.
pub(super) fn droid(target: &Target, places: &Places) -> Setup {
    let id = format!("custom:hypura-{}", target.model);
    let model = json!({
        "id": id,
        "model": target.model,
        "displayName": format!("{} (Hypura)", target.model),
        "baseUrl": target.openai_url(),
        "apiKey": target.key(),
        "provider": "generic-chat-completion-api",
        "maxOutputTokens": target.most_output_tokens(),
        "supportsImages": target.sees,
    });
    let changes = vec![
        Change::entry(&["customModels"], "id", model),
        Change::set(&["sessionDefaultSettings", "model"], id),
    ];
    Setup {
        files: vec![FileEdit::json(places.home.join(".factory/settings.json"), changes)],
        stands_in_files: true,
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

    fn applied(setup: &Setup, file: usize, before: &str) -> Value {
        serde_json::from_str(&setup.files[file].applied(Some(before)).unwrap()).unwrap()
    }

    #[test]
    fn every_file_takes_foreign_settings_and_refuses_broken_ones() {
        let target = Target::example(Some("secret"));
        for make in [cline, zed, pi, droid] {
            let setup = make(&target, &places());
            for file in &setup.files {
                let before = r#"{"mine": {"a": [1]}, "providers": {"x": 1}, "agent": {"y": 2}}"#;
                let after: Value = serde_json::from_str(&file.applied(Some(before)).unwrap()).unwrap();
                assert_eq!(after["mine"], json!({"a": [1]}), "{}", file.path.display());
                assert_eq!((&after["providers"]["x"], &after["agent"]["y"]), (&json!(1), &json!(2)));
                assert!(file.applied(None).is_ok());
                assert!(file.applied(Some("{\"a\"")).is_err() && file.applied(Some("[]")).is_err());
                assert!(file.path.starts_with("/home/a"));
            }
        }
    }

    #[test]
    fn cline_speaks_to_the_server_as_to_ollama() {
        let setup = cline(&Target::example(None), &places());
        let providers = applied(&setup, 0, "");
        let settings = &providers["providers"]["ollama"]["settings"];
        assert_eq!(
            (&settings["baseUrl"], &settings["model"]),
            (&json!("http://127.0.0.1:11434/v1"), &json!("qwen3-coder:30b"))
        );
        assert_eq!(providers["lastUsedProvider"], "ollama");
        assert_eq!(applied(&setup, 1, "")["planModeOllamaModelId"], "qwen3-coder:30b");
    }

    #[test]
    fn continue_gets_a_configuration_of_its_own() {
        let mut target = Target::example(Some("k: #1"));
        target.model = "a \"b\": c".to_owned();
        let setup = continue_dev(&target, &places());
        let yaml = setup.files[0].applied(None).unwrap();
        assert!(
            yaml.contains("    model: \"a \\\"b\\\": c\"\n") && yaml.contains("apiKey: \"k: #1\"\n"),
            "{yaml}"
        );
        assert!(yaml.contains("capabilities: [tool_use, image_input]\n"), "{yaml}");
        assert_eq!(setup.arguments[1], "/home/a/.continue/agents/hypura.yaml");
    }

    #[test]
    fn zed_keeps_other_models_of_ollama() {
        let setup = zed(&Target::example(None), &places());
        let before = r#"{"language_models": {"ollama": {"available_models": [{"name": "mine"}]}}}"#;
        let after = applied(&setup, 0, before);
        let models = after["language_models"]["ollama"]["available_models"].as_array().unwrap();
        assert_eq!(
            (models.len(), &models[0]["name"], &models[1]["max_tokens"]),
            (2, &json!("mine"), &json!(65536))
        );
        assert_eq!(after["agent"]["default_model"]["provider"], "ollama");
    }

    #[test]
    fn vscode_keeps_other_servers() {
        let setup = vscode(&Target::example(None), &places());
        let before = r#"[{"vendor": "ollama", "name": "Ollama", "url": "http://x"}, {"vendor": "custom"}]"#;
        let after = applied(&setup, 0, before);
        assert_eq!(after.as_array().unwrap().len(), 3);
        assert_eq!(after[2]["url"], "http://127.0.0.1:11434");
        assert!(setup.files[0].applied(Some("{}")).is_err());
    }

    #[test]
    fn pi_and_droid_replace_their_own_entry_only() {
        let target = Target::example(None);
        let before = r#"{"providers": {"hypura": {"models": [{"id": "other"}, {"id": "qwen3-coder:30b", "old": 1}]}}}"#;
        let after = applied(&pi(&target, &places()), 0, before);
        let models = after["providers"]["hypura"]["models"].as_array().unwrap();
        assert_eq!(
            (models.len(), &models[1]["contextWindow"], &models[1]["old"]),
            (2, &json!(65536), &Value::Null)
        );
        let after = applied(&droid(&target, &places()), 0, r#"{"customModels": [{"id": "mine"}]}"#);
        assert_eq!(after["customModels"].as_array().unwrap().len(), 2);
        assert_eq!(after["sessionDefaultSettings"]["model"], "custom:hypura-qwen3-coder:30b");
    }
}
