//! Sets the threads of a context before each step, and learns from it.

use hypura_core::threads::ThreadPolicy;
use hypura_ggml::Context;
use hypura_storage::threads::{CoreTimes, with_thread_name};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::meter::Meter;
use super::thread_use::ThreadUse;

/// Chooses the threads of one context.
pub(crate) struct ThreadControl {
    /// What is measured and what follows from it; `None`: the number of threads is fixed.
    adaptive: Option<(Meter, ThreadPolicy)>,
    /// Name of the context's threads, unlike any other context's.
    name: String,
    usage: ThreadUse,
}

impl ThreadControl {
    /// Makes a context whose threads can be told from others, and what chooses how many of them compute:
    /// `most`, always, or with `adapt` fewer while other programs use the cores. That has what the cores had
    /// done a while ago, if it is known.
    pub fn around<E>(
        most: u32,
        adapt: Option<Option<CoreTimes>>,
        make: impl FnOnce() -> Result<Context, E>,
    ) -> Result<(Context, Self), E> {
        static CONTEXTS: AtomicU32 = AtomicU32::new(0);
        let name = format!("hypura-{}", CONTEXTS.fetch_add(1, Ordering::Relaxed));
        let context = with_thread_name(&name, make)?;
        let adaptive = adapt.filter(|_| most > 1).and_then(|before| {
            let cores = before.and_then(|before| before.cores_to_be_had());
            Some((Meter::new(&name)?, ThreadPolicy::new(most, cores)))
        });
        let waited = adaptive.is_some().then_some(Duration::ZERO);
        let usage = ThreadUse { most, last: most, waited, ..ThreadUse::default() };
        Ok((context, Self { adaptive, name, usage }))
    }

    /// How many threads computed so far.
    pub fn usage(&self) -> ThreadUse {
        self.usage
    }

    /// A step of so many tokens begins.
    pub fn begin_step(&mut self, context: &mut Context, tokens: usize) {
        let Some((meter, policy)) = &mut self.adaptive else { return };
        let threads = policy.threads(u32::try_from(tokens).unwrap_or(u32::MAX));
        if context.threads() != threads {
            // Threads that cannot be started leave those that there are.
            let _ = with_thread_name(&self.name, || context.set_threads(threads));
            meter.find_threads();
        }
        meter.begin_step();
    }

    /// A step of so many tokens was computed, for so long.
    pub fn end_step(&mut self, context: &Context, tokens: usize, compute: Duration) {
        let usage = &mut self.usage;
        usage.last = context.threads();
        usage.steps += 1;
        usage.compute += compute;
        if usage.last < usage.most {
            usage.steps_with_fewer += 1;
            usage.compute_with_fewer += compute;
        }
        let Some((meter, policy)) = &mut self.adaptive else { return };
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let Some(measured) = meter.end_step(tokens, compute, usage.last < usage.most) else { return };
        usage.waited = usage.waited.map(|sum| sum + measured.waited);
        policy.observe(&measured.window());
    }

    /// A step failed or was stopped.
    pub fn drop_step(&mut self) {
        if let Some((meter, _)) = &mut self.adaptive {
            meter.drop_step();
        }
    }
}
