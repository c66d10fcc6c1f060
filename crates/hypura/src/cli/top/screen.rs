//! The terminal: taken over, drawn on, and given back, also when this program panics or is told to end.

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::app::{Action, App};
use super::feed::{self, Seen, Wanted};
use super::view;
use crate::client::Client;

/// How long to wait for a key before looking whether there is something new.
const TICK: Duration = Duration::from_millis(50);

/// Watches the server until the person leaves.
///
/// # Errors
/// When the terminal cannot be used.
pub(super) fn watch(client: &Client, interval: Duration) -> anyhow::Result<ExitCode> {
    let told_to_end = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&told_to_end)).context("cannot listen to signals")?;
    }
    let wanted = Wanted::default();
    let news = feed::start(client, interval, &wanted).context("no thread to ask the server")?;
    let mut app = App::new(client.address());
    // Also has panics give the terminal back before they are told.
    let mut terminal = ratatui::try_init().context("cannot take over the terminal")?;
    let ended = follow(&mut terminal, &mut app, &news, &wanted, &told_to_end);
    ratatui::restore();
    ended.context("cannot use the terminal")?;
    Ok(ExitCode::SUCCESS)
}

/// Draws what is new, and does what keys say.
fn follow(
    terminal: &mut DefaultTerminal,
    app: &mut App,
    news: &Receiver<Seen>,
    wanted: &Wanted,
    told_to_end: &AtomicBool,
) -> io::Result<()> {
    let mut changed = true;
    while !told_to_end.load(Ordering::Relaxed) {
        while let Ok(seen) = news.try_recv() {
            app.see(seen);
            changed = true;
        }
        if changed {
            wanted.set(app.status.as_ref().and_then(|status| app.wanted_map(status)));
            terminal.draw(|frame| view::draw(app, frame.area(), frame.buffer_mut()))?;
        }
        // A trouble has an age, which goes on.
        changed = app.trouble.is_some();
        if event::poll(TICK)? {
            changed = true;
            match action(&event::read()?) {
                Some(Action::Quit) => break,
                Some(action) => app.step(action),
                None => {}
            }
        }
    }
    Ok(())
}

fn action(event: &Event) -> Option<Action> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Action::Quit),
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Action::Quit),
        KeyCode::Down | KeyCode::Right | KeyCode::Tab | KeyCode::Char('j' | 'n') => Some(Action::Next),
        KeyCode::Up | KeyCode::Left | KeyCode::BackTab | KeyCode::Char('k' | 'p') => Some(Action::Previous),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::KeyEvent;

    #[test]
    fn keys_have_the_usual_meanings() {
        let key = |code, modifiers| action(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Action::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Tab, KeyModifiers::NONE), Some(Action::Next));
        assert_eq!(action(&Event::Resize(1, 1)), None);
    }
}
