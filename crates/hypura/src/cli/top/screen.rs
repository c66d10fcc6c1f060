//! The terminal: taken over, drawn on, and given back, also when this program panics or is told to end.

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use rustix::event::{PollFd, PollFlags, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::process::{self, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use std::{io, thread};

use super::app::{Action, App};
use super::feed::{self, Seen, Wanted};
use super::view;
use crate::client::Client;

/// How long to wait for a key before looking whether there is something new.
const TICK: Duration = Duration::from_millis(50);

/// Exit code of a program whose terminal is gone, as shells report it: 128 + SIGHUP.
const HUNG_UP: i32 = 128 + SIGHUP;

/// Watches the server until the person leaves.
///
/// # Errors
/// When the terminal cannot be used.
pub(super) fn watch(client: &Client, interval: Duration) -> anyhow::Result<ExitCode> {
    let told_to_end = Arc::new(AtomicBool::new(false));
    heed_signals(&told_to_end).context("cannot listen to signals")?;
    end_with_terminal().context("no thread to look after the terminal")?;
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

/// Has signals raise a flag; the second one is the end, and so is the first one that says that the terminal
/// is gone.
fn heed_signals(told_to_end: &Arc<AtomicBool>) -> io::Result<()> {
    flag::register_conditional_shutdown(SIGHUP, HUNG_UP, Arc::new(AtomicBool::new(true)))?;
    for signal in [SIGTERM, SIGINT] {
        // Order matters: the exit looks at what the flag was before this signal.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(told_to_end))?;
        flag::register(signal, Arc::clone(told_to_end))?;
    }
    Ok(())
}

/// Ends the program when its terminal is gone, also where no signal tells (it is not the one that controls
/// us). Nothing is left to give back then, and crossterm would go on reading the end of it without a pause.
fn end_with_terminal() -> io::Result<()> {
    let watch = || {
        let terminal = io::stdin();
        // What is asked for is nothing: that it is gone is told in any case.
        let mut looked_at = [PollFd::new(&terminal, PollFlags::empty())];
        loop {
            match poll(&mut looked_at, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) if looked_at[0].revents().contains(PollFlags::HUP) => process::exit(HUNG_UP),
                // A system that cannot say: its signal is left.
                _ => return,
            }
        }
    };
    thread::Builder::new().name("terminal".to_owned()).spawn(watch).map(drop)
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
