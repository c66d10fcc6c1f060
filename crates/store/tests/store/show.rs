//! What `show` tells.

use hypura_core::gguf::{Array, Value};
use serde_json::{Value as Json, json};

use super::kit::{JINJA, Machine, gguf, put};

fn show(machine: &Machine, name: &str, verbose: bool) -> Json {
    serde_json::to_value(machine.store().show(name, verbose).unwrap()).unwrap()
}

#[test]
fn everything_about_a_model_of_ollama() {
    let machine = Machine::new();
    machine.ollama_llama();
    let show = show(&machine, "llama3.2:3b", false);
    assert_eq!(show["license"], "MIT");
    assert_eq!(show["system"], "Be brief.");
    // Its own template is in Go: what is used, and decides, is that of the GGUF.
    assert_eq!(show["template"], JINJA);
    let lines = "num_ctx                        4096\nstop                           \"<|eot|>\"";
    assert_eq!(show["parameters"], lines);
    assert_eq!(show["messages"], json!([{"role": "user", "content": "hi"}]));
    assert_eq!(show["capabilities"], json!(["completion", "tools"]));
    assert_eq!(show["details"]["family"], "llama");
    let modelfile = show["modelfile"].as_str().unwrap();
    for part in
        ["FROM llama3.2:3b", "SYSTEM \"Be brief.\"", "PARAMETER stop \"<|eot|>\"", "MESSAGE user \"hi\""]
    {
        assert!(modelfile.contains(part), "{part} in {modelfile}");
    }
    assert!(!show.to_string().contains(machine.folder.path().to_str().unwrap()), "no path is shown");
}

#[test]
fn metadata_have_their_keys_and_no_more() {
    let machine = Machine::new();
    machine.ollama_llama();
    let show = show(&machine, "llama3.2:3b", false);
    let expected = json!({
        "general.architecture": "llama", "general.file_type": 15, "general.parameter_count": 1024,
        "llama.context_length": 8192, "llama.embedding_length": 256, "tokenizer.ggml.tokens": [],
    });
    assert_eq!(show["model_info"], expected);
    for absent in ["tensors", "renderer", "parser", "requires"] {
        assert!(show.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn verbose_adds_long_arrays_and_tensors() {
    let machine = Machine::new();
    machine.ollama_llama();
    let show = show(&machine, "llama3.2:3b", true);
    assert_eq!(show["model_info"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 10);
    assert_eq!(show["tensors"], json!([{"name": "token_embd.weight", "type": "Q8_0", "shape": [256, 4]}]));
}

#[test]
fn a_plain_file_shows_the_template_of_its_gguf() {
    let machine = Machine::new();
    put(&machine.at("lmstudio/a/b/m.gguf"), gguf(&[]));
    let show = show(&machine, "a/b", false);
    assert_eq!(show["template"], JINJA);
    assert_eq!(show["parameters"], "");
    assert!(show.get("system").is_none() && show.get("license").is_none() && show.get("messages").is_none());
}

#[test]
fn a_template_in_go_of_another_program_counts_only_where_the_file_has_none() {
    let machine = Machine::new();
    let go = "{{ .Prompt }}{{ .Suffix }}{{ .Tools }}<think>{{ .Thinking }}</think>";
    let (none, both) = (json!(["completion"]), json!(["completion", "tools", "thinking"]));
    for (name, own, go, shown, can) in [
        ("jinja", "{{ messages }}", go, "{{ messages }}", &none),
        ("none", "", go, go, &both),
        // One that cannot be read is none.
        ("other", "", "{{ html .Prompt }}{{ .Tools }}", "", &none),
    ] {
        let model = gguf(&[("tokenizer.chat_template", own.into())]);
        machine.ollama(
            &format!("registry.ollama.ai/library/{name}/latest"),
            &[("model", &model), ("template", go.as_bytes())],
        );
        let show = show(&machine, name, false);
        assert_eq!((&show["template"], &show["capabilities"]), (&json!(shown), can), "{name}");
        assert_eq!(show["modelfile"].as_str().unwrap().contains(".Prompt"), shown == go, "{show}");
    }
    // One in Jinja counts, also where it can less than that of the GGUF.
    let model = gguf(&[("tokenizer.chat_template", "{{ tools }}<think></think>".into())]);
    let layers: [(&str, &[u8]); 2] =
        [("model", &model), ("template", b"{% for m in messages %}{% endfor %}")];
    machine.ollama("registry.ollama.ai/library/own/latest", &layers);
    assert_eq!(show(&machine, "own", false)["capabilities"], json!(["completion"]));
}

#[test]
fn capabilities_by_template_tokens_and_pooling() {
    let machine = Machine::new();
    let tokens = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"].map(ToOwned::to_owned).to_vec();
    let fim = [
        ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))),
        ("tokenizer.chat_template", "x".into()),
    ];
    put(&machine.at("lmstudio/a/fim/m.gguf"), gguf(&fim));
    put(
        &machine.at("lmstudio/a/thinks/m.gguf"),
        gguf(&[("tokenizer.chat_template", "<think></think>{{tools}}".into())]),
    );
    put(
        &machine.at("lmstudio/a/embeds/m.gguf"),
        gguf(&[("llama.pooling_type", Value::U32(1)), ("tokenizer.chat_template", "".into())]),
    );
    assert_eq!(show(&machine, "a/fim", false)["capabilities"], json!(["completion", "insert"]));
    assert_eq!(show(&machine, "a/thinks", false)["capabilities"], json!(["completion", "tools", "thinking"]));
    assert_eq!(show(&machine, "a/embeds", false)["capabilities"], json!(["embedding"]));
}
