//! What is read and what is refused. That the Jinja says the same is tested where llama.cpp renders it.

use proptest::prelude::*;

use super::*;

fn jinja(source: &str) -> String {
    GoTemplate::parse(source).unwrap().jinja
}

fn refused(source: &str) -> String {
    GoTemplate::parse(source).unwrap_err().to_string()
}

#[test]
fn what_a_template_has_a_place_for_is_seen() {
    let tools = GoTemplate::parse("{{ range .Messages }}{{ $.Tools }}{{ end }}").unwrap();
    assert_eq!((tools.takes_tools, tools.shows_thinking), (true, false));
    let thinking = GoTemplate::parse("{{ range .Messages }}{{ .Thinking }}{{ end }}").unwrap();
    assert_eq!((thinking.takes_tools, thinking.shows_thinking), (false, true));
}

#[test]
fn texts_are_expressions_and_blanks_are_gos() {
    let text = jinja(
        "a {{- /* no */ -}} 'b'\n{% {{ `{{` }} \t{{- \"\\u00e9\\\"\" -}} \n c{{ range .Messages }}{{ end }}",
    );
    assert!(
        text.ends_with(concat!(
            "{{ 'a' }}{{ '\\'b\\'\\n{% ' }}{{ '{{' }}{{ 'é\"' }}{{ 'c' }}",
            "{% set v.x1 = v.Messages or [] %}",
            "{% for e1 in (v.x1 | list | sort if v.x1 is mapping else v.x1) %}",
            "{% set v.x1_item = v.x1[e1] if v.x1 is mapping else e1 %}{% endfor %}"
        )),
        "{text}"
    );
}

#[test]
fn variables_are_those_that_go_sees() {
    let text =
        jinja("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x = 3 }}{{ end }}{{ $x = 4 }}{{ len .Messages }}");
    let sets: Vec<&str> = text.split("{% set v.x").skip(1).map(|part| &part[..5]).collect();
    assert_eq!(sets, ["1 = 1", "2 = 2", "2 = 3", "1 = 4"]);
    assert!(refused("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}").contains("undefined variable $x"));
    assert!(refused("{{ $y = 1 }}").contains("undefined variable $y"));
}

#[test]
fn a_template_of_turns_ends_where_the_last_answer_begins() {
    let text = jinja("<u>{{ .Prompt }}</u>{{ if .Response }}<a>{{ .Response }}</a>{{ else }}no{{ end }}end");
    let (open, whole) = text.split_once("{% else %}{{ '<u>' }}").unwrap();
    assert!(
        open.ends_with("{% if t['response'] %}{{ '<a>' }}{{ (t['response'] or '') }}{% endif %}"),
        "{open}"
    );
    assert!(whole.contains("'</a>'") && whole.contains("'no'") && whole.contains("'end'"), "{whole}");
    // Who says nothing of an answer has it at the end.
    assert!(
        jinja("{{ .Prompt }}").contains("{{ (t['prompt'] or '') }}{{ (t['response'] or '') }}{% else %}")
    );
}

#[test]
fn what_is_printed_together_is_joined() {
    for (source, expected) in [
        ("{{ print .Prompt \"a\" }}", "((t['prompt'] or '') ~ 'a')"),
        ("{{ println }}", "'\\n'"),
        ("{{ println .Prompt .System }}", "((t['prompt'] or '') ~ ' ' ~ (t['system'] or '') ~ '\\n')"),
        ("{{ printf \"%s%%: %v\" .Prompt .System }}", "((t['prompt'] or '') ~ '%: ' ~ (t['system'] or ''))"),
    ] {
        let text = jinja(source);
        assert!(text.contains(&format!("{{{{ {expected} }}}}")), "{source}: {text}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (source, part) in [
        ("{{ define \"x\" }}{{ end }}", "define is not supported"),
        ("{{ html .Prompt }}", "the function html is not supported"),
        ("{{ toTypeScriptType .Prompt }}", "toTypeScriptType"),
        ("{{ 0x1f }}", "0x1f"),
        ("{{ .Prompt", "an action is not closed"),
        ("{{ /* x }}", "a comment is not closed"),
        ("{{ \"x }}", "a text is not closed"),
        ("{{ if .Prompt }}", "an if, with or range is not closed"),
        ("{{ end }}", "unexpected end"),
        ("{{ else }}", "unexpected else"),
        ("{{ if .Prompt }}{{ else }}{{ else }}{{ end }}", "unexpected else"),
        ("{{ break }}", "unexpected break"),
        ("{{ (len .Prompt }}", "a bracket is not closed"),
        ("{{ len }}", "number of arguments of len"),
        ("{{ not .Prompt .Prompt }}", "number of arguments of not"),
        ("{{ .Prompt | .Prompt }}", "a value behind |"),
        ("{{ .Prompt ) }}", "unexpected )"),
        ("{{ % }}", "unexpected '%'"),
    ] {
        let message = refused(source);
        assert!(message.contains(part), "{source}: {message}");
    }
}

#[test]
fn nesting_has_an_end() {
    assert!(refused(&"{{ if .Prompt }}".repeat(5000)).contains("too deeply"));
    assert!(refused(&format!("{{{{ {}.Prompt }}}}", "(".repeat(5000))).contains("too deeply"));
    assert!(refused(&format!("{{{{ .Prompt{} }}}}", " | json".repeat(5000))).contains("too deeply"));
    let chain = format!("{{{{ if .Prompt }}}}{}{{{{ end }}}}", "{{ else if .Prompt }}".repeat(5000));
    assert!(refused(&chain).contains("too deeply"));
}

proptest! {
    #[test]
    fn any_template_is_read_or_refused(
        template in "(\\{\\{|\\}\\}|- | -|if|with|range|end|else|break|\\.Prompt|\\.Messages|\\$x|:=|,|\\(|\\)|\\||eq|\"|`| |é|\n){0,30}"
    ) {
        let _ = GoTemplate::parse(&template);
    }
}
