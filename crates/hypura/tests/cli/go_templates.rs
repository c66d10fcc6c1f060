//! Templates in Go's language: what the model reads is what Ollama would give it.

use serde_json::{Value, json};

use crate::serving::Serving;

/// A template of messages, with all that those of Ollama's library do.
const MESSAGES: &str = r#"{{- $asked := -1 }}
{{- range $i, $_ := .Messages }}{{ if eq .Role "user" }}{{ $asked = $i }}{{ end }}{{ end }}
{{- if or .System .Tools }}<sys>{{ .System }}
{{- if .Tools }}
{{ range .Tools }}{{ .Function.Name }}(
{{- range $name, $about := .Function.Parameters.Properties }}{{ $name }}: {{ $about.Type }}, {{ end }}) {{ json . }}
{{- end }}
{{- end }}</sys>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "system" }}{{ continue }}{{ end }}
{{- if eq .Role "user" }}<u{{ if eq $i $asked }}!{{ end }}>{{ .Content }}</u>
{{ else if eq .Role "assistant" }}<a>{{ with .Content }}{{ . }}{{ else }}none{{ end }}
{{- range $n, $call := .ToolCalls }}{{ printf " %d:%s%%" $n .Function.Name }} {{ .Function.Arguments }}{{ end }}
{{- if not $last }}</a>
{{ end }}
{{- else if eq .Role "tool" "function" }}<t {{ .ToolName }}>{{ .Content }}</t>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<a>{{ if not $.Think }}no thoughts{{ end }}{{ .Thinking }}{{ end }}
{{- end }}"#;

/// One of a prompt and its answer.
const TURNS: &str = "{{ if .System }}[{{ .System }}] {{ end }}{{ if .Prompt }}Q: {{ .Prompt }} {{ end }}A: {{ .Response }}</s>\n";

fn messages() -> Value {
    json!([
        {"role": "system", "content": "Be 'brief'."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {"at": "sky", "n": 2}}}]},
        {"role": "tool", "tool_name": "look", "content": "rain"},
        {"role": "assistant", "content": "It \"rains\"."},
        {"role": "user", "content": "and"},
        {"role": "user", "content": "then?"},
    ])
}

fn create(server: &Serving, name: &str, template: &str) -> (u16, String) {
    server.send("/api/create", &json!({"model": name, "from": "demo", "template": template, "stream": false}))
}

fn rendered(server: &Serving, body: Value) -> String {
    let answer = server.post("/api/chat", &body);
    answer["_debug_info"]["rendered_template"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn conversations_are_written_as_go_templates_say() {
    let server = Serving::start(&[]);
    for (name, template) in [("messages", MESSAGES), ("turns", TURNS)] {
        assert_eq!(create(&server, name, template).0, 200, "{name}");
    }
    let tool = json!({"type": "function", "function": {
        "name": "look", "description": "Looks", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}, "at": {"type": "string"}}},
    }});
    let body = json!({"model": "messages", "messages": messages(), "tools": [tool], "think": false, "_debug_render_only": true});
    let expected = concat!(
        "<sys>Be 'brief'.\n",
        "look(at: string, n: integer, ) {\"type\":\"function\",\"function\":{\"name\":\"look\",\"description\":\"Looks\",",
        "\"parameters\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"},\"at\":{\"type\":\"string\"}}}}}</sys>\n",
        "<u>hi</u>\n<a>none 0:look% {\"at\":\"sky\",\"n\":2}</a>\n<t look>rain</t>\n",
        "<a>It \"rains\".</a>\n<u!>and\n\nthen?</u>\n<a>no thoughts",
    );
    assert_eq!(rendered(&server, body), expected);
    // A beginning of the answer stays open.
    let open = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "It"}]);
    let body = json!({"model": "messages", "messages": open, "_debug_render_only": true});
    assert_eq!(rendered(&server, body), "<u!>hi</u>\n<a>It");
    let body = json!({"model": "turns", "messages": messages(), "_debug_render_only": true});
    let expected = "[Be 'brief'.] Q: hi A: It \"rains\".</s>\nQ: and\n\nthen? A: ";
    assert_eq!(rendered(&server, body), expected);
    let shown = server.post("/api/show", &json!({"model": "messages"}));
    assert_eq!(shown["template"], MESSAGES);
    assert_eq!(shown["capabilities"], json!(["completion", "tools", "thinking"]));
    // It is written as it is read: the prompt has as many tokens as the text.
    let answer = server.post(
        "/api/chat",
        &json!({"model": "turns", "messages": messages(), "stream": false, "options": {"num_predict": 2}}),
    );
    assert!(answer["prompt_eval_count"].as_u64().unwrap() > 10, "{answer}");
}

#[test]
fn go_templates_that_cannot_be_used_are_refused_when_a_model_is_made() {
    let server = Serving::start(&[]);
    for (template, part) in [
        ("{{ html .Prompt }}", "template error: the function html is not supported here"),
        ("{{ if .Prompt }}", "template error: an if, with or range is not closed"),
    ] {
        let (status, text) = create(&server, "bad", template);
        assert!(status == 400 && text.contains(part), "{status} {text}");
    }
}
