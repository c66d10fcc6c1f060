//! Pictures and sounds in prompts: files that a flag or the prompt itself names.

use anyhow::Context as _;
use hypura_engine::media::{MediaFile, MediaKind, Modalities, probe};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::home;

/// Larger files are neither.
const MOST_BYTES: u64 = 256 << 20;

/// How the names of pictures end.
const PICTURES: [&str; 6] = [".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"];

/// How the names of sounds end.
const SOUNDS: [&str; 3] = [".wav", ".mp3", ".flac"];

/// What paths begin with, so that they can be distinguished from other words.
const BEGINNINGS: [&str; 4] = ["/", "./", "../", "~/"];

/// Reads a picture or a sound, and looks whether it is one.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn read(path: &Path, kind: MediaKind) -> anyhow::Result<MediaFile> {
    let (name, word) = (path.display(), kind.name());
    let about = fs::metadata(path).with_context(|| format!("cannot read the {word} {name}"))?;
    if about.len() > MOST_BYTES {
        anyhow::bail!("{name} is larger than {} MiB: no {word} is", MOST_BYTES >> 20);
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read the {word} {name}"))?;
    let found = probe(&bytes).map_err(anyhow::Error::msg).with_context(|| name.to_string())?;
    if found != kind {
        anyhow::bail!(
            "{name} is no {word}: it is {} file",
            match found {
                MediaKind::Picture => "an image",
                MediaKind::Sound => "an audio",
            }
        );
    }
    Ok(Arc::new(bytes))
}

/// The pictures and sounds that a prompt names, as far as the model takes their modality, and the prompt
/// without their names, as Ollama's program has it. Only files that are there count: everything else is text.
/// Blanks in names have a `\` before them, or the name is in quotes.
pub(super) fn named_in(text: &str, modalities: Modalities) -> (String, Vec<(PathBuf, MediaKind)>) {
    let (mut rest, mut paths) = (String::with_capacity(text.len()), Vec::new());
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        let before = text[..at].chars().next_back();
        let begins_word = before.is_none_or(|c| c.is_whitespace() || matches!(c, '"' | '\'' | '('));
        match begins_word.then(|| path_at(&text[at..], before, modalities)).flatten() {
            Some((length, path, kind)) => {
                let quote = before.filter(|c| matches!(c, '"' | '\''));
                at += length;
                if quote.is_some_and(|quote| rest.ends_with(quote) && text[at..].starts_with(quote)) {
                    rest.pop();
                    at += 1;
                }
                paths.push((path, kind));
            }
            None => {
                rest.push(character);
                at += character.len_utf8();
            }
        }
    }
    if paths.is_empty() {
        return (text.to_owned(), paths);
    }
    (rest.trim().to_owned(), paths)
}

/// The path of a file that a text begins with, what its name says it is, and its length there.
fn path_at(text: &str, quote: Option<char>, modalities: Modalities) -> Option<(usize, PathBuf, MediaKind)> {
    if !BEGINNINGS.iter().any(|beginning| text.starts_with(beginning)) {
        return None;
    }
    let line = text.lines().next()?;
    let quoted = quote.filter(|c| matches!(c, '"' | '\'')).and_then(|quote| line.find(quote));
    let line = quoted.map_or(line, |end| &line[..end]);
    let lower = line.to_ascii_lowercase();
    let endings = [(MediaKind::Picture, &PICTURES[..]), (MediaKind::Sound, &SOUNDS[..])];
    let mut ends: Vec<(usize, MediaKind)> = endings
        .into_iter()
        .filter(|(kind, _)| modalities.has(*kind))
        .flat_map(|(kind, endings)| endings.iter().map(move |ending| (kind, *ending)))
        .flat_map(|(kind, ending)| {
            lower.match_indices(ending).map(move |(at, ending)| (at + ending.len(), kind))
        })
        .filter(|(end, _)| !line[*end..].starts_with(|c: char| c.is_alphanumeric()))
        .collect();
    ends.sort_unstable_by_key(|(end, _)| *end);
    ends.into_iter().find_map(|(end, kind)| {
        let name = &line[..end];
        let path = if quoted.is_some() { name.to_owned() } else { name.replace("\\ ", " ") };
        let path = home::expanded(&path);
        path.is_file().then_some((end, path, kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_there_are_taken_out_of_the_prompt() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "x").unwrap();
            path.display().to_string()
        };
        let (one, two) = (file("one.PNG"), file("two words.jpeg"));
        let told = |text: &str| {
            let (text, paths) = named_in(text, Modalities { pictures: true, sounds: true });
            (text, paths.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(told(&format!("what is {one}?")), ("what is ?".to_owned(), vec![one.clone()]));
        let escaped = two.replace(' ', "\\ ");
        assert_eq!(
            told(&format!("{escaped} and {one} differ")),
            ("and  differ".to_owned(), vec![two.clone(), one.clone()])
        );
        assert_eq!(told(&format!("look at '{two}' now")), ("look at  now".to_owned(), vec![two.clone()]));
        let missing = format!("what is {one}x or /not/there.png or a/b.png?");
        assert_eq!(told(&missing), (missing.clone(), vec![]));
        let song = file("song.Wav");
        assert_eq!(told(&format!("hear {song} {one}")), ("hear".to_owned(), vec![song.clone(), one.clone()]));
        let (text, paths) =
            named_in(&format!("hear {song} {one}"), Modalities { pictures: false, sounds: true });
        assert_eq!(text, format!("hear  {one}"));
        assert_eq!(paths, [(PathBuf::from(song), MediaKind::Sound)]);
        assert_eq!(told("http://x/y.png"), ("http://x/y.png".to_owned(), vec![]));
        assert_eq!(told("ünïcode ./ä.png /"), ("ünïcode ./ä.png /".to_owned(), vec![]));
    }

    #[test]
    fn what_is_no_image_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        assert!(read(&path, MediaKind::Picture).unwrap_err().to_string().contains("a.png"));
        fs::write(&path, "no picture").unwrap();
        let error = format!("{:#}", read(&path, MediaKind::Picture).unwrap_err());
        assert!(error.contains("a.png") && error.contains("jpeg"), "{error}");
        fs::write(&path, hypura_core::synth::sound(1, 0.1)).unwrap();
        let error = format!("{:#}", read(&path, MediaKind::Picture).unwrap_err());
        assert!(error.contains("no image") && error.contains("audio"), "{error}");
        assert!(read(&path, MediaKind::Sound).is_ok());
    }
}
