//! A setup as text: commands of a shell, and files as they would be.

use super::agent::Agent;
use super::files;
use super::setup::Setup;

/// What `--print` prints.
///
/// # Errors
/// When a file that would be changed is broken.
pub(super) fn setup(agent: Agent, setup: &Setup, arguments: &[String]) -> anyhow::Result<String> {
    let mut text = String::new();
    for (title, edits) in [("", &setup.files), (" (with --config)", &setup.lasting)] {
        for change in files::changes(edits)? {
            text.push_str(&format!("# {}{title}:\n{}\n", change.path.display(), change.after));
        }
    }
    for (name, value) in &setup.variables {
        text.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    let mut words = vec![agent.command().to_owned()];
    words.extend(setup.arguments.iter().map(|word| quoted(word)));
    let own = if arguments.is_empty() { &setup.without_arguments } else { arguments };
    words.extend(own.iter().map(|word| quoted(word)));
    text.push_str(&words.join(" "));
    text.push('\n');
    Ok(text)
}

/// As a word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("http://127.0.0.1:11434/v1"), "http://127.0.0.1:11434/v1");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn variables_come_before_the_command() {
        let setup_ = Setup {
            variables: vec![("A", "1".to_owned()), ("B", "x y".to_owned())],
            arguments: vec!["--model".to_owned(), "m".to_owned()],
            without_arguments: vec!["session".to_owned()],
            ..Setup::default()
        };
        let text = setup(Agent::Goose, &setup_, &[]).unwrap();
        assert_eq!(text, "export A=1\nexport B='x y'\ngoose --model m session\n");
        let text = setup(Agent::Goose, &setup_, &["run".to_owned()]).unwrap();
        assert!(text.ends_with("goose --model m run\n"), "{text}");
    }
}
