//! What the server asks and waits for: text, prompts, requests.
//!
//! Each call has a thread of its own, with a stack that the recursion of C++ over a long text does not
//! exhaust: address space only, pages that are not touched cost nothing. A conversation keeps its thread
//! while it is open, because what was decoded for it stays there.

use std::sync::{Arc, mpsc};

use hypura_engine::Token;

use super::shared::{Host, Render};
use crate::Failure;
use crate::models::backend::{ChatInput, Engine, Prompt, RenderError};
use crate::runner::message::{Answer, Call, Chat, FromRunner};

/// Bytes of stack for text.
const STACK: usize = 256 << 20;

/// Begins a call; its answer is sent when it is there.
pub(super) fn begin(host: &Arc<Host>, id: u64, call: Call) {
    if let Call::Render { chat, messages } = call {
        let open = host.chats().get(&chat).cloned();
        let sent = open.is_some_and(|open| open.send(Render { id, messages }).is_ok());
        if !sent {
            answer(host, id, Err(Failure::internal("the conversation is closed")));
        }
        return;
    }
    // Quick, also where there is no thread for it.
    match call {
        Call::Status => return answer(host, id, status(host)),
        Call::Experts => return answer(host, id, experts(host)),
        _ => {}
    }
    let at_work = Arc::clone(host);
    let work = move || match call {
        Call::OpenChat { chat, messages } => converse(&at_work, *chat, Render { id, messages }),
        call => {
            let done = done(&at_work, id, call);
            answer(&at_work, id, done);
        }
    };
    let thread = std::thread::Builder::new().name("text".to_owned()).stack_size(STACK);
    if let Err(error) = thread.spawn(work) {
        tracing::warn!(%error, "no thread for a call");
        answer(host, id, Err(Failure::busy()));
    }
}

fn answer(host: &Host, id: u64, answer: Result<Answer, Failure>) {
    host.outgoing.say(&FromRunner::Answer { id, answer });
}

fn status(host: &Host) -> Result<Answer, Failure> {
    let engine = host.engine()?;
    Ok(Answer::Status { status: Box::new(engine.status()), is_open: engine.is_alive() })
}

fn experts(host: &Host) -> Result<Answer, Failure> {
    Ok(Answer::Experts(host.engine()?.experts()))
}

fn done(host: &Host, id: u64, call: Call) -> Result<Answer, Failure> {
    let engine = host.engine()?.as_ref();
    Ok(match call {
        Call::RenderText(chat) => Answer::Text(engine.render_text(&chat.read()?)?),
        Call::Tokenize { text, begin, control } => {
            Answer::Tokens(Some(engine.tokenize(&text, begin, control)))
        }
        Call::TokenizeWithMedia { text, media } => {
            let media: Vec<_> = media.into_iter().map(|file| file.0).collect();
            let input = engine.tokenize_with_media(&text, &media)?;
            let prompt = Prompt { input, stops: Vec::new(), grammar: None, parser: None };
            Answer::Prompt(Box::new(host.answers.keep(prompt)))
        }
        Call::Detokenize { tokens } => Answer::Text(engine.detokenize(&tokens)),
        Call::Pieces { tokens } => Answer::Texts(engine.pieces(&tokens)),
        Call::Infill { before, after } => Answer::Tokens(engine.infill(&before, &after)),
        Call::Grammar(format) => Answer::Grammar(engine.grammar(&format.read()?)?),
        Call::Submit(submit) => {
            host.answers.submit(engine, id, *submit)?;
            Answer::Done
        }
        Call::Embed { inputs } => embed(host, engine, id, inputs)?,
        Call::Status | Call::Experts | Call::Render { .. } | Call::OpenChat { .. } => {
            return Err(Failure::internal("a call of another kind"));
        }
    })
}

fn embed(host: &Host, engine: &dyn Engine, id: u64, inputs: Vec<Vec<Token>>) -> Result<Answer, Failure> {
    host.answers.embed(engine, id, inputs)?;
    Ok(Answer::Done)
}

/// Opens a conversation with its first prompt, and renders what else is asked of it until it is closed.
fn converse(host: &Arc<Host>, chat: Chat, first: Render) {
    let id = first.id;
    let opened = chat.read().and_then(|chat| Ok((chat, host.engine()?)));
    let (chat, engine): (ChatInput, _) = match opened {
        Ok(opened) => opened,
        Err(failure) => return answer(host, id, Err(failure)),
    };
    let renderer = match engine.renderer(&chat) {
        Ok(renderer) => renderer,
        Err(failure) => return answer(host, id, Err(failure)),
    };
    let (sender, work) = mpsc::channel();
    // Before the answer, which the next prompt follows.
    host.chats().insert(id, sender);
    for Render { id, messages } in std::iter::once(first).chain(work) {
        let made = match renderer.render(&messages) {
            Ok(prompt) => Answer::Prompt(Box::new(host.answers.keep(prompt))),
            Err(RenderError::Template(failure)) => Answer::NoPrompt { by_template: true, failure },
            Err(RenderError::Other(failure)) => Answer::NoPrompt { by_template: false, failure },
        };
        answer(host, id, Ok(made));
    }
}
