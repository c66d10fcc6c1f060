//! What `/?` says.

/// All commands.
pub(super) const COMMANDS: &str = "  /set      change a setting of this conversation (/? set)
  /show     show what is known of the model (/? show)
  /load     begin a conversation with another model: /load MODEL
  /save     keep the model with these settings and this conversation: /save NAME
  /clear    begin a new conversation
  /bye      leave (so does Ctrl-D)
  /?        this; /? set, /? show and /? shortcuts tell more
  \"\"\"       begin and end a prompt of several lines
  Images and sounds are shown by their paths in the text: ./cat.png
  Ctrl-C    stop the answer";

const SET: &str =
    "  /set parameter NAME VALUE   a parameter (/? parameters); /set parameter NAME takes it back
  /set system TEXT            the system prompt; \"\"\" begins and ends one of several lines
  /set think [low|medium|high]   have the model think; /set nothink: not
  /set format json            answers are JSON; /set format {SCHEMA}; /set noformat: text
  /set verbose                tell timings and tiers after each answer; /set quiet: less
  /set wordwrap               break lines between words; /set nowordwrap: not
  /set markdown               show bold, code, lists and headings as such; /set nomarkdown: as written
  /set history                remember what is typed; /set nohistory: not";

const SHOW: &str = "  /show info         what the model is
  /show parameters   its parameters, and those of this conversation
  /show system       its system prompt, or that of this conversation
  /show template     its chat template
  /show modelfile    the Modelfile that makes it
  /show license      its licences";

const SHORTCUTS: &str = "  Ctrl-A, Ctrl-E     to the beginning, to the end of the line
  Alt-B, Alt-F       back, forward by a word
  Ctrl-K, Ctrl-U     delete to the end, to the beginning of the line
  Ctrl-W             delete the word before
  Ctrl-L             clear the screen
  Ctrl-R             search what was typed before
  Up, Down           what was typed before
  Ctrl-C             stop the answer, or drop the line
  Ctrl-D             leave";

/// Parameters of `/set parameter`, and what they do.
pub(super) const PARAMETERS: [(&str, &str); 13] = [
    ("num_ctx", "tokens of context at least (with a server)"),
    ("num_predict", "most tokens of an answer; -1: no limit"),
    ("seed", "the same seed makes the same choices"),
    ("temperature", "how daring; 0 takes the likeliest token"),
    ("top_k", "choose among so many of the likeliest tokens"),
    ("top_p", "choose among the likeliest that reach this probability"),
    ("min_p", "drop tokens less likely than this fraction of the likeliest"),
    ("typical_p", "prefer tokens about as surprising as expected"),
    ("repeat_last_n", "how far back repetitions count; -1: the context"),
    ("repeat_penalty", "make recent tokens less likely; 1 is off"),
    ("presence_penalty", "make tokens that occurred less likely"),
    ("frequency_penalty", "the same, by how often they did"),
    ("stop", "texts that end the answer, several with blanks between"),
];

/// Help about a topic.
pub(super) fn about(topic: &str) -> String {
    match topic.trim_start_matches('/') {
        "set" => SET.to_owned(),
        "show" => SHOW.to_owned(),
        "shortcuts" => SHORTCUTS.to_owned(),
        "parameters" | "parameter" | "set parameter" => parameters(),
        _ => COMMANDS.to_owned(),
    }
}

pub(super) fn parameters() -> String {
    let rows = PARAMETERS.iter().map(|(name, what)| format!("  /set parameter {name:<18} {what}"));
    rows.collect::<Vec<_>>().join("\n")
}
