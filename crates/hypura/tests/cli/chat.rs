//! A conversation on a terminal: the program with a terminal of its own, as a person has it.

use crate::kit::{demo, hypura, interrupt, wait};
use crate::terminal::{leave, on_terminal};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// No answer of a few tokens takes a tenth of this.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program in a terminal.
struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    /// Starts `hypura run` of a model, of which next to nothing stays in memory.
    fn run(model: &Path, home: &Path) -> Self {
        Self::run_with(model, home, &["--temperature", "0", "-n", "8", "--threads", "1"])
    }

    /// The same with these flags.
    fn run_with(model: &Path, home: &Path, flags: &[&str]) -> Self {
        let mut command = hypura();
        command.arg("run").arg(model).args(["--residency", "stream", "--stream-cache", "5%"]);
        command.args(flags);
        command.env("HOME", home).env("XDG_STATE_HOME", home.join("state")).env("TERM", "xterm");
        let (keyboard, child) = on_terminal(&mut command);
        let mut from = keyboard.try_clone().unwrap();
        let screen = Arc::<Mutex<String>>::default();
        let seen = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the program is an error of its terminal.
            while let Ok(got @ 1..) = from.read(&mut bytes) {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..got]));
            }
        });
        Self { keyboard, screen, child }
    }

    fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\r").as_bytes()).unwrap();
    }

    /// Waits until `text` was on the screen `times` times.
    #[track_caller]
    fn expect(&self, text: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.screen.lock().unwrap().matches(text).count() < times {
            assert!(Instant::now() < deadline, "no {text:?} ({times}) on {:?}", self.screen.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that fails leaves nothing behind; after others it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_conversation_goes_on_after_a_failed_read_and_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    fs::copy(demo(), &model).unwrap();
    let mut terminal = Terminal::run(&model, folder.path());
    terminal.expect(">>> ", 1);
    terminal.type_line("What is a lynx?");
    terminal.expect("tok/s", 1);
    terminal.type_line("And a puma?");
    terminal.expect("tok/s", 2);
    terminal.type_line("/clear");
    terminal.expect("A new conversation.", 1);
    terminal.type_line("/nonsense");
    terminal.expect("There is no /nonsense", 1);

    // The file shrinks: the next answer fails, and names the file.
    let whole = fs::read(&model).unwrap();
    let mut file = OpenOptions::new().write(true).open(&model).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_len(4096).unwrap();
    terminal.type_line("What is a fox?");
    terminal.expect("ends early", 1);
    // As long as before: what is in it, nobody knows.
    file.write_all(&whole).unwrap();
    terminal.type_line("What is a wolf?");
    terminal.expect("was changed while it was in use", 1);
    // The same file, whole again: the conversation continues.
    file.sync_all().unwrap();
    file.set_modified(modified).unwrap();
    terminal.type_line("What is a wolf?");
    terminal.expect("tok/s", 3);
    terminal.type_line("/bye");
    assert_eq!(wait(&mut terminal.child), Some(0));

    let history = fs::read_to_string(folder.path().join("state/hypura/history")).unwrap();
    for line in ["What is a lynx?", "And a puma?", "/clear", "What is a wolf?", "/bye"] {
        assert!(history.lines().any(|kept| kept == line), "{line:?} is not in {history:?}");
    }
}

#[test]
fn a_conversation_has_ollamas_commands() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.gguf");
    fs::copy(demo(), &model).unwrap();
    let mut terminal = Terminal::run(&model, folder.path());
    terminal.expect(">>> ", 1);
    // What is typed before the next prompt is there is lost.
    let mut prompts = 1;
    for (line, wanted) in [
        ("/? set", "/set parameter NAME VALUE"),
        ("/set parameter temperature hot", "must be of type float32"),
        ("/set parameter num_predict 3", "num_predict is 3."),
        ("/show parameters", "Of this conversation"),
        ("/show info", "context length"),
        ("/set system Answer in one word.", "The system prompt is set."),
        ("/show system", "Answer in one word."),
        ("/set format json", "Answers are JSON."),
        ("What is a lynx?", "answers in a format need a server"),
        ("/set noformat", "Answers are text."),
        ("/set verbose", "Timings and tiers are on."),
        ("/load nowhere", "there is no model and no file called nowhere"),
    ] {
        terminal.type_line(line);
        terminal.expect(wanted, 1);
        prompts += 1;
        terminal.expect(">>> ", prompts);
    }
    terminal.type_line("\"\"\"What is");
    terminal.expect("... ", 1);
    terminal.type_line("a lynx?\"\"\"");
    terminal.expect("3 tokens", 1);
    terminal.expect("tiers  ", 1);
    terminal.expect(">>> ", prompts + 1);
    terminal.type_line("/save kept");
    terminal.expect("Saved as kept", 1);
    terminal.expect(">>> ", prompts + 2);
    // The same process number, another model.
    terminal.type_line("/load kept");
    terminal.expect("/bye leaves.", 2);
    terminal.expect(">>> ", prompts + 3);
    terminal.type_line("/show modelfile");
    terminal.expect("MESSAGE assistant", 1);
    terminal.expect("SYSTEM ", 1);
    terminal.expect(">>> ", prompts + 4);
    terminal.type_line("/bye");
    assert_eq!(wait(&mut terminal.child), Some(0));
}

#[test]
fn ctrl_c_stops_an_answer_and_the_conversation_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::run_with(&demo(), folder.path(), &["--ignore-eos", "--temperature", "1"]);
    terminal.expect(">>> ", 1);
    terminal.type_line("What is a lynx?");
    // Some of the answer is there.
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&terminal.child);
    terminal.expect("stopped", 1);
    terminal.type_line("/bye");
    assert_eq!(wait(&mut terminal.child), Some(0));
}

#[test]
fn a_terminal_that_goes_away_ends_the_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = hypura();
    command.arg("run").arg(demo()).args(["--residency", "stream"]).env("HOME", folder.path());
    let (terminal, mut child) =
        on_terminal(command.env("XDG_STATE_HOME", folder.path()).env("TERM", "xterm"));
    leave(terminal, ">>> ");
    assert!(wait(&mut child).is_some());
}
