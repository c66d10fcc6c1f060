//! What Ollama does with a conversation before a template sees it, in Jinja.
//!
//! `v` has everything that outlives a block: the variables of the template too, because what Jinja sets
//! within a loop is forgotten at its end.

/// `v.System`: all system prompts. `v.Messages`: the messages, neighbours of one role joined, but for
/// results.
pub(super) const CONVERSATION: &str = concat!(
    "{% set v = namespace(System='', Messages=[], out='') %}",
    "{% for m in messages %}",
    "{% set text = m['content'] if m['content'] is string else '' %}",
    "{% if m['role'] == 'system' %}",
    "{% set v.System = (v.System + '\\n\\n' + text) if v.System else text %}",
    "{% endif %}",
    "{% set last = v.Messages[-1] if v.Messages else {'role': ''} %}",
    "{% if last['role'] == m['role'] and m['role'] != 'tool' %}",
    "{% set v.Messages = v.Messages[:-1] + [{'role': m['role'], ",
    "'content': last['content'] + '\\n\\n' + text, ",
    "'thinking': last['thinking'], 'tool_calls': last['tool_calls'] or m['tool_calls']}] %}",
    "{% else %}",
    "{% set v.Messages = v.Messages + [{'role': m['role'], 'content': text, ",
    "'thinking': m['reasoning_content'], 'tool_calls': m['tool_calls'], ",
    "'tool_name': m['name'], 'tool_call_id': m['tool_call_id']}] %}",
    "{% endif %}{% endfor %}",
);

/// `v.turns`: a system prompt, a prompt and an answer each, for templates that know nothing of messages.
pub(super) const TURNS: &str = concat!(
    "{% set v.turns = [] %}{% set v.s = '' %}{% set v.p = '' %}{% set v.r = '' %}",
    "{% for m in v.Messages %}",
    "{% if (m['role'] == 'system' and (v.p or v.r)) or (m['role'] == 'user' and v.r) %}",
    "{% set v.turns = v.turns + [{'system': v.s, 'prompt': v.p, 'response': v.r}] %}",
    "{% set v.s = '' %}{% set v.p = '' %}{% set v.r = '' %}",
    "{% endif %}",
    "{% if m['role'] == 'system' %}{% set v.s = m['content'] %}",
    "{% elif m['role'] == 'user' %}{% set v.p = m['content'] %}",
    "{% elif m['role'] == 'assistant' %}{% set v.r = m['content'] %}{% endif %}",
    "{% endfor %}",
    "{% set v.turns = v.turns + [{'system': v.s, 'prompt': v.p, 'response': v.r}] %}",
);
