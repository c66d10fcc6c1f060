//! Reads in flight: what each one is for, and waiting for them.
//!
//! Owns the reader. Every tag handed to it is in `targets` until its completion was returned to the caller,
//! so that a failed or aborted step can tell exactly which reads are still out. What was read of a file that
//! has changed since it was opened is a failed read: nobody computes with a mixture of two files.

use hypura_core::plan::PartRead;
use hypura_storage::{
    Arena, Completion, Phase, Population, Priority, ReadError, ReadRequest, Reader, SourceFile,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::signals::Signals;
use crate::error::StreamError;

/// How long to sleep before looking whether the answer is still wanted. A disk that hangs takes a minute to
/// say so.
const PATIENCE: Duration = Duration::from_millis(50);

/// One finished read.
pub(crate) struct Landed<T> {
    pub target: T,
    pub result: Result<(), ReadError>,
}

/// A read that was handed to the reader.
struct Pending<T> {
    target: T,
    shard: usize,
}

/// A read to start.
pub(crate) struct TargetedRead<T> {
    pub target: T,
    pub shard: usize,
    pub read: PartRead,
    pub memory: Arc<Arena>,
    pub at: usize,
    pub priority: Priority,
}

/// The reader with the purpose of each read.
pub(crate) struct Io<T> {
    reader: Box<dyn Reader>,
    files: Vec<Arc<SourceFile>>,
    targets: HashMap<u64, Pending<T>>,
    next_tag: u64,
    completions: Vec<Completion>,
    stall: Duration,
    clock: bool,
    signals: Signals,
    /// Who touches pages while this waits.
    population: Option<Arc<Population>>,
}

impl<T: Copy> Io<T> {
    pub fn new(reader: Box<dyn Reader>, files: Vec<Arc<SourceFile>>) -> Self {
        Self {
            reader,
            files,
            targets: HashMap::new(),
            next_tag: 0,
            completions: Vec::new(),
            stall: Duration::ZERO,
            clock: true,
            signals: Signals::default(),
            population: None,
        }
    }

    /// Whether waiting is timed.
    pub fn with_clock(self, clock: bool) -> Self {
        Self { clock, ..self }
    }

    /// What ends waits, and what counts reads.
    pub fn with_signals(self, signals: Signals) -> Self {
        Self { signals, ..self }
    }

    /// Who may touch pages in waits that are long enough.
    pub fn with_population(self, population: Option<Arc<Population>>) -> Self {
        Self { population, ..self }
    }

    /// Starts reads; never blocks.
    pub fn submit(&mut self, reads: Vec<TargetedRead<T>>) {
        let mut requests = Vec::with_capacity(reads.len());
        for read in reads {
            let tag = self.next_tag;
            self.next_tag += 1;
            self.targets.insert(tag, Pending { target: read.target, shard: read.shard });
            requests.push(ReadRequest {
                tag,
                file: Arc::clone(&self.files[read.shard]),
                offset: read.read.offset,
                len: read.read.len,
                required: read.read.required,
                dst: read.memory,
                dst_offset: read.at,
                priority: read.priority,
            });
        }
        if !requests.is_empty() {
            self.reader.submit(requests);
        }
    }

    /// Bytes that the disk has still to deliver.
    pub fn backlog_bytes(&self) -> usize {
        self.reader.backlog_bytes()
    }

    /// Bytes that the disk delivers in `time`, as far as seen: its rate while it had something to do.
    pub fn bytes_in(&self, time: Duration) -> usize {
        let stats = self.reader.stats();
        let busy = stats.busy.as_secs_f64();
        if busy == 0.0 { 0 } else { (stats.device_bytes as f64 * time.as_secs_f64() / busy) as usize }
    }

    /// Gives prefetches the priority of demand reads.
    pub fn promote(&mut self, wanted: impl Fn(&T) -> bool) {
        let wanted = self.targets.iter().filter(|(_, pending)| wanted(&pending.target));
        let tags: Vec<u64> = wanted.map(|(tag, _)| *tag).collect();
        self.reader.promote(&tags);
    }

    /// What has finished, without waiting.
    pub fn poll(&mut self) -> Vec<Landed<T>> {
        self.resubmit();
        self.collect()
    }

    /// Starts what may start now that other reads have ended. Completions are reported later.
    pub fn resubmit(&mut self) {
        self.reader.poll(&mut self.completions);
    }

    /// Waits for at least one read.
    ///
    /// # Errors
    /// [`StreamError::Stopped`] when the abort flag is up; [`StreamError::LostRead`] when nothing is in
    /// flight.
    pub fn wait(&mut self) -> Result<Vec<Landed<T>>, StreamError> {
        let start = self.clock.then(Instant::now);
        let population = self.population.as_ref().filter(|population| {
            population.is_working() && self.backlog_bytes() >= self.bytes_in(population.piece_time())
        });
        let population = population.cloned();
        population.iter().for_each(|population| population.set_phase(Phase::Waiting));
        let landed = self.first_landed();
        population.iter().for_each(|population| population.set_phase(Phase::Computing));
        self.stall += start.map_or(Duration::ZERO, |start| start.elapsed());
        landed
    }

    fn first_landed(&mut self) -> Result<Vec<Landed<T>>, StreamError> {
        loop {
            if self.is_aborted() {
                return Err(StreamError::Stopped);
            }
            self.reader.wait_for(&mut self.completions, PATIENCE);
            let landed = self.collect();
            if !landed.is_empty() {
                return Ok(landed);
            }
            if self.reader.in_flight() == 0 {
                return Err(StreamError::LostRead);
            }
        }
    }

    /// Whether the answer is still wanted.
    ///
    /// # Errors
    /// [`StreamError::Stopped`] when the abort flag is up.
    pub fn ensure_wanted(&self) -> Result<(), StreamError> {
        if self.is_aborted() { Err(StreamError::Stopped) } else { Ok(()) }
    }

    fn is_aborted(&self) -> bool {
        self.signals.abort.load(Ordering::Relaxed)
    }

    /// Takes back what has not started, waits for the rest, and returns both. While the abort flag is up a
    /// disk that does not answer is not waited for: its reads stay in flight, and land later.
    pub fn quiesce(&mut self) -> (Vec<Landed<T>>, Vec<T>) {
        let cancelled = self.reader.cancel_queued(None);
        let taken_back = cancelled.iter().filter_map(|tag| Some(self.targets.remove(tag)?.target)).collect();
        let mut landed = self.poll();
        while self.reader.in_flight() > 0 {
            self.reader.wait_for(&mut self.completions, PATIENCE);
            let came = self.collect();
            if came.is_empty() && self.is_aborted() {
                break;
            }
            landed.extend(came);
        }
        (landed, taken_back)
    }

    /// Reads that were asked for and have not been answered.
    pub fn in_flight(&self) -> usize {
        self.targets.len()
    }

    /// Time spent waiting for reads with nothing left to compute.
    pub fn stall(&self) -> Duration {
        self.stall
    }

    /// Time with a read at the disk.
    pub fn disk_busy(&self) -> Duration {
        self.reader.stats().busy
    }

    /// Bytes that came from the disk, whole pages.
    pub fn device_bytes(&self) -> u64 {
        self.reader.stats().device_bytes
    }

    fn collect(&mut self) -> Vec<Landed<T>> {
        let Self { files, targets, completions, signals, .. } = self;
        signals.landed.fetch_add(completions.len() as u64, Ordering::Relaxed);
        // One look at each file, after all of these reads.
        let mut looked: Vec<(usize, Result<(), ReadError>)> = Vec::new();
        let mut unchanged = |shard: usize| match looked.iter().find(|(file, _)| *file == shard) {
            Some((_, unchanged)) => unchanged.clone(),
            None => {
                let unchanged = files[shard].check_unchanged();
                looked.push((shard, unchanged.clone()));
                unchanged
            }
        };
        let landed = completions.drain(..).filter_map(|completion| {
            let Pending { target, shard } = targets.remove(&completion.tag)?;
            Some(Landed { target, result: completion.result.and_then(|()| unchanged(shard)) })
        });
        landed.collect()
    }
}
