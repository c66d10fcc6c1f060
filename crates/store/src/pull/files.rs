//! All files of a model, several at a time: a large one by many connections, small ones by one each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::file::{Arrived, End, Item, Job};

/// Connections that are free.
struct Connections {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Connections {
    /// Waits until `count` are free, and takes them while `work` lasts.
    fn with<T>(&self, count: usize, work: impl FnOnce() -> T) -> T {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.changed.wait_while(free, |free| *free < count).unwrap_or_else(PoisonError::into_inner);
        *free -= count;
        drop(free);
        let done = work();
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += count;
        self.changed.notify_all();
        done
    }
}

/// Brings all files here; in their order. `tick` is called in the meantime, and ends all when it says so.
pub(super) fn bring_all(
    job: &Job<'_>,
    items: &[Item],
    tick: &mut dyn FnMut() -> bool,
) -> Result<Vec<Arrived>, End> {
    let most = job.settings.connections.max(1);
    let connections = Connections { free: Mutex::new(most), changed: Condvar::new() };
    let next = AtomicUsize::new(0);
    let ends: Mutex<Vec<(usize, Result<Arrived, End>)>> = Mutex::default();
    let waiting = thread::current();
    thread::scope(|scope| {
        let worker = || {
            while let Some((index, item)) = pick(&next, items) {
                let parts = item.file.bytes.div_ceil(job.settings.part_bytes);
                let wanted = usize::try_from(parts).unwrap_or(most).clamp(1, most);
                let end = connections.with(wanted, || job.bring(item, wanted));
                if end.is_err() {
                    job.stopped.store(true, Ordering::Relaxed);
                }
                ends.lock().unwrap_or_else(PoisonError::into_inner).push((index, end));
            }
            waiting.unpark();
        };
        let workers: Vec<_> = (0..most.min(items.len())).map(|_| scope.spawn(worker)).collect();
        let mut shut = false;
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            let wanted = tick();
            if !wanted {
                job.stopped.store(true, Ordering::Relaxed);
            }
            if !shut && job.stopped.load(Ordering::Relaxed) {
                // Whoever waits for a server need not.
                job.client.shut_down();
                shut = true;
            }
            thread::park_timeout(job.settings.report_every);
        }
        tick();
    });
    in_order(ends.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn pick<'a>(next: &AtomicUsize, items: &'a [Item]) -> Option<(usize, &'a Item)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    items.get(index).map(|item| (index, item))
}

/// All files in their order, or the first failure that is one: the others were stopped because of it.
fn in_order(mut ends: Vec<(usize, Result<Arrived, End>)>) -> Result<Vec<Arrived>, End> {
    use super::PullError::Cancelled;
    let is_cause =
        |end: &Result<Arrived, End>| end.as_ref().is_err_and(|end| !matches!(end, End::Error(Cancelled)));
    if let Some(cause) = ends.iter().position(|(_, end)| is_cause(end)) {
        return Err(ends.swap_remove(cause).1.err().unwrap_or(End::Error(Cancelled)));
    }
    ends.sort_by_key(|(index, _)| *index);
    ends.into_iter().map(|(_, end)| end).collect()
}
