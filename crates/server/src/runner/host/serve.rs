//! One model from its plan to its end.

use std::io::{self, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hypura_engine::budget::SharedMemory;
use hypura_engine::media::prompt::adopt_marker;

use super::calls;
use super::memory::{Alive as _, ServerMemory};
use super::shared::Host;
use crate::Failure;
use crate::models::backend::{ChatInput, Fit, LoadHost, LoadProgress, Plan};
use crate::models::{LoadOrder, PlanQuestion};
use crate::runner::confine::Confinement;
use crate::runner::frame;
use crate::runner::message::{FromRunner, Loaded, Planned, ToRunner};

/// How often it says that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How often it tells that a load gets on.
const PROGRESS: Duration = Duration::from_millis(50);

/// Input, output, quantisation, and who is told how much of how much is done.
type Quantize = fn(&Path, &Path, &str, &mut dyn FnMut(u64, u64)) -> Result<(), String>;

/// What the process around it does.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Called once it is known what to load, before there is any other thread.
    pub confine: fn(&LoadOrder) -> Confinement,
    /// Called where it loads nothing and only tries a template.
    pub confine_trial: fn(),
    /// Tries a conversation's own template; the texts of BOS and EOS. Gives the bytes that it makes.
    pub try_template: fn(ChatInput, (&str, &str)) -> Result<usize, Failure>,
    /// What loading as ordered would be like.
    pub plan: fn(LoadOrder) -> Result<Fit, Failure>,
    /// What loading as ordered would be like on another machine, as JSON.
    pub advise: fn(&LoadOrder, &PlanQuestion) -> Result<String, Failure>,
    /// Called where it loads nothing and only quantises this file into that one.
    pub confine_quantizing: fn(&Path, &Path),
    /// Quantises.
    pub quantize: Quantize,
    /// The server is gone.
    pub gone: fn(),
}

/// What the main thread is asked.
enum Order {
    Load,
    Stop { drain: bool },
}

/// Reads what the server says until it is gone.
fn read(host: &Arc<Host>, stream: &mut BufReader<UnixStream>, orders: &mpsc::Sender<Order>, gone: fn()) {
    loop {
        let message = match frame::receive(stream) {
            Ok(Some(message)) => message,
            Ok(None) | Err(_) => break,
        };
        match message {
            ToRunner::Plan { .. }
            | ToRunner::Try { .. }
            | ToRunner::Advise { .. }
            | ToRunner::Quantize { .. } => break,
            ToRunner::Load => drop(orders.send(Order::Load)),
            ToRunner::Stop { drain } => {
                host.abandon();
                drop(orders.send(Order::Stop { drain }));
            }
            ToRunner::Call { id, call } => calls::begin(host, id, call),
            ToRunner::Cancel { request } => host.answers.cancel(request),
            ToRunner::CloseChat { chat } => drop(host.chats().remove(&chat)),
            ToRunner::Forget { prompt } => host.answers.forget(prompt),
            ToRunner::Memory { id, bytes } => host.memory.answered(id, bytes),
        }
    }
    host.abandon();
    host.memory.close();
    gone();
}

/// The load as the engine sees it.
struct Loading<'a> {
    host: &'a Host,
    told: std::cell::Cell<Instant>,
}

impl LoadHost for Loading<'_> {
    fn advanced(&self, progress: LoadProgress) -> bool {
        if self.told.get().elapsed() >= PROGRESS {
            self.told.set(Instant::now());
            self.host.outgoing.say(&FromRunner::Progress(progress));
        }
        self.is_wanted()
    }

    fn is_wanted(&self) -> bool {
        self.host.wanted.load(Ordering::Relaxed)
    }

    fn memory(&self) -> Arc<dyn SharedMemory> {
        let memory: Arc<ServerMemory> = Arc::clone(&self.host.memory);
        memory
    }
}

/// Serves one model to the server at the other end of the stream, until one of them ends.
///
/// # Errors
/// When the server says nothing sensible first, or there are no threads.
pub fn serve(stream: UnixStream, hooks: Hooks) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (order, marker) = match frame::receive(&mut reader)? {
        Some(ToRunner::Plan { order, marker }) => (order, marker),
        Some(ToRunner::Try { chat, bos, eos }) => {
            (hooks.confine_trial)();
            let tried = chat.read().and_then(|chat| (hooks.try_template)(chat, (&bos, &eos)));
            return (&stream).write_all(&frame::encode(&FromRunner::Tried(tried))?);
        }
        Some(ToRunner::Advise { order, question }) => {
            (hooks.confine)(&order);
            let advised = (hooks.advise)(&order, &question);
            return (&stream).write_all(&frame::encode(&FromRunner::Advised(advised))?);
        }
        Some(ToRunner::Quantize { input, output, kind }) => {
            (hooks.confine_quantizing)(&input, &output);
            let say = |message| (&stream).write_all(&frame::encode(&message)?);
            // Whoever does not hear of progress is gone, and ends this process.
            let mut watch = |done, all| drop(say(FromRunner::Quantizing { done, all }));
            let quantized = (hooks.quantize)(&input, &output, &kind, &mut watch);
            return say(FromRunner::Quantized(quantized));
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no order came first")),
    };
    adopt_marker(marker);
    let confinement = (hooks.confine)(&order);
    let host = Host::new(stream);
    host.outgoing.say(&FromRunner::Confined(confinement));
    let (sender, orders) = mpsc::channel();
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let reading = Arc::clone(&host);
    thread("read").spawn(move || read(&reading, &mut reader, &sender, hooks.gone))?;
    let living = Arc::downgrade(&host);
    thread("alive").spawn(move || {
        while let Some(host) = living.upgrade() {
            host.say_alive();
            drop(host);
            std::thread::sleep(SIGN_OF_LIFE);
        }
    })?;
    let plan = plan(&host, (hooks.plan)(*order));
    obey(&host, plan, &orders);
    Ok(())
}

/// Tells what a plan is like.
fn plan(host: &Host, fit: Result<Fit, Failure>) -> Option<Box<dyn Plan>> {
    let (plan, planned) = match fit {
        Ok(Fit::Resident(plan)) => {
            let planned = Planned::Resident(plan.bytes());
            (Some(plan), Ok(planned))
        }
        Ok(Fit::Streaming(plan)) => {
            let planned = Planned::Streaming(plan.bytes());
            (Some(plan), Ok(planned))
        }
        Ok(Fit::TooSmall(failure)) => (None, Ok(Planned::TooSmall(failure))),
        Err(failure) => (None, Err(failure)),
    };
    host.outgoing.say(&FromRunner::Planned(planned));
    plan
}

/// Does what the server orders until it ends this runner.
fn obey(host: &Arc<Host>, mut plan: Option<Box<dyn Plan>>, orders: &mpsc::Receiver<Order>) {
    for order in orders {
        match order {
            Order::Load => {
                let Some(plan) = plan.take() else { continue };
                let loaded = plan.load(&Loading { host, told: std::cell::Cell::new(Instant::now()) });
                let loaded = loaded.map(|engine| {
                    let loaded = Loaded {
                        info: engine.info().clone(),
                        status: engine.status(),
                        lacks_template: engine.lacks_template(),
                        forecast: engine.forecast(),
                        expected: engine.expected(),
                    };
                    // Loaded once only.
                    let _ = host.engine.set(engine);
                    Box::new(loaded)
                });
                host.outgoing.say(&FromRunner::Loaded(loaded));
            }
            Order::Stop { drain } => {
                if let Ok(engine) = host.engine() {
                    engine.stop(drain);
                }
                host.answers.wait();
                host.outgoing.say(&FromRunner::Stopped);
                return;
            }
        }
    }
}
