//! The simple forms of Ollama's prompt templates: fields, `if`/`else`/`end`, trimmed blanks.
//!
//! That is what people put into a request's `template`. Anything else (`range`, functions, variables) is
//! refused with a reason, never ignored: a prompt in the wrong shape would only look like a bad model. Jinja,
//! the language of the templates in GGUF files, goes to llama.cpp instead.

/// What a template can name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    pub system: &'a str,
    pub prompt: &'a str,
    pub suffix: &'a str,
}

impl<'a> Values<'a> {
    fn get(&self, field: &str) -> Result<&'a str, String> {
        match field {
            ".System" => Ok(self.system),
            ".Prompt" => Ok(self.prompt),
            ".Suffix" => Ok(self.suffix),
            // The answer is not there yet.
            ".Response" => Ok(""),
            _ => Err(format!(
                "only .System, .Prompt, .Suffix, .Response, if, else and end are supported here, not {field:?}; a Jinja \
                 template is supported whole"
            )),
        }
    }
}

/// Whether a template is written in Jinja.
pub(super) fn is_jinja(template: &str) -> bool {
    template.contains("{%") || (template.contains("{{") && template.contains("messages"))
}

/// One open `if`.
struct Open {
    /// Whether the branch that we are in is shown.
    shown: bool,
    /// Whether what is around it is shown.
    outer: bool,
}

/// Renders a template up to where the answer begins.
///
/// # Errors
/// What is not supported or not closed.
pub(super) fn render(template: &str, values: &Values<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut open: Vec<Open> = Vec::new();
    let mut rest = template;
    let mut trim_next = false;
    loop {
        let (text, after) = match rest.find("{{") {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        let mut text = if trim_next { text.trim_start() } else { text };
        let trims_before = after.is_some_and(|after| after.starts_with("- "));
        if trims_before {
            text = text.trim_end();
        }
        let shown = open.last().is_none_or(|branch| branch.shown);
        if shown {
            out.push_str(text);
        }
        let Some(after) = after else { break };
        let end = after.find("}}").ok_or("an action is not closed: }} is missing")?;
        let action = after[..end].strip_prefix("- ").unwrap_or(&after[..end]);
        trim_next = action.ends_with(" -");
        let action = action.strip_suffix(" -").unwrap_or(action).trim();
        rest = &after[end + 2..];
        if act(action, values, &mut open, &mut out)? {
            break;
        }
    }
    if open.is_empty() { Ok(out) } else { Err("an if is not closed: {{ end }} is missing".to_owned()) }
}

/// Carries out one action. True when the answer begins here.
fn act(action: &str, values: &Values<'_>, open: &mut Vec<Open>, out: &mut String) -> Result<bool, String> {
    let shown = open.last().is_none_or(|branch| branch.shown);
    let words: Vec<&str> = action.split_whitespace().collect();
    match words.as_slice() {
        ["if", field] => {
            let holds = !values.get(field)?.is_empty();
            open.push(Open { shown: shown && holds, outer: shown });
        }
        ["else"] => {
            let branch = open.last_mut().ok_or("an else without an if")?;
            branch.shown = branch.outer && !branch.shown;
        }
        ["end"] => {
            open.pop().ok_or("an end without an if")?;
        }
        [".Response"] if shown && open.is_empty() => return Ok(true),
        [field] => {
            let value = values.get(field)?;
            if shown {
                out.push_str(value);
            }
        }
        _ => {
            values.get(action)?;
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALUES: Values<'_> = Values { system: "be brief", prompt: "hi", suffix: "" };

    #[test]
    fn generate_simple_go_templates() {
        let alpaca =
            "{{ if .System }}{{ .System }}\n\n{{ end }}### Instruction:\n{{ .Prompt }}\n\n### Response:\n";
        let wanted = "be brief\n\n### Instruction:\nhi\n\n### Response:\n";
        assert_eq!(render(alpaca, &VALUES).unwrap(), wanted);
        assert_eq!(render("a {{- if .Suffix }} x {{- else }} y {{- end }} b", &VALUES).unwrap(), "a y b");
        assert_eq!(render("<s>{{ .Prompt }}{{ .Response }}</s>", &VALUES).unwrap(), "<s>hi");
        assert_eq!(render("no actions", &VALUES).unwrap(), "no actions");
    }

    #[test]
    fn generate_what_is_not_supported_is_refused() {
        for template in
            ["{{ range .Messages }}{{ end }}", "{{ .Prompt", "{{ if .Prompt }}x", "{{ end }}", "{{ else }}"]
        {
            assert!(render(template, &VALUES).is_err(), "{template}");
        }
        assert!(render("{{ .Bogus }}", &VALUES).unwrap_err().contains(".Bogus"));
    }

    #[test]
    fn jinja_is_told_apart() {
        assert!(is_jinja("{% for m in messages %}{{ m.content }}{% endfor %}"));
        assert!(!is_jinja("{{ .Prompt }}"));
    }

    proptest! {
        #[test]
        fn any_template_is_judged_without_a_panic(template in "(\\{\\{|\\}\\}|- | -|if|end|else|\\.Prompt|\\.X| |é){0,20}") {
            let _ = render(&template, &VALUES);
        }
    }
}
