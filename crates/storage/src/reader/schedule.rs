//! The schedule of a reader: which chunk goes to the device next and when a request is complete. Pure: no
//! I/O, threads or clock (the time is passed in), so that all readers behave alike and this can be tested
//! exhaustively.
//!
//! Invariants: demand chunks leave before prefetch chunks, otherwise first come, first served; a request is
//! answered once, after its last chunk came back; its `Arc`s are dropped before its completion can be seen.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::chunk::{Chunk, Counts};
use super::request::{Completion, Priority, ReadRequest, ReaderConfig, ReaderStats};
use crate::ReadError;

/// Requests by an id of our own, because tags may repeat.
type Key = u64;

pub(super) struct Schedule {
    config: ReaderConfig,
    requests: HashMap<Key, Entry>,
    next_key: Key,
    demand: VecDeque<Key>,
    prefetch: VecDeque<Key>,
    at_device: usize,
    prefetch_at_device: usize,
    /// Bytes of the requests that have not come back from the device and were not given up.
    backlog_bytes: usize,
    done: Vec<Completion>,
    stats: ReaderStats,
    busy_since: Option<Duration>,
}

struct Entry {
    request: ReadRequest,
    /// Bytes to read: `required`, rounded up to the alignment of the file.
    len: usize,
    /// Bytes handed out as chunks so far.
    handed_out: usize,
    chunks_at_device: usize,
    /// The error of the chunk nearest to the start, with that chunk's start.
    failure: Option<(usize, ReadError)>,
}

impl Schedule {
    pub(super) fn new(config: &ReaderConfig) -> Schedule {
        Schedule {
            config: config.in_range(),
            requests: HashMap::new(),
            next_key: 0,
            demand: VecDeque::new(),
            prefetch: VecDeque::new(),
            at_device: 0,
            prefetch_at_device: 0,
            backlog_bytes: 0,
            done: Vec::new(),
            stats: ReaderStats::default(),
            busy_since: None,
        }
    }

    /// Queues a request, or answers it at once if it is wrong or needs no byte.
    pub(super) fn submit(&mut self, request: ReadRequest) {
        self.stats.requests += 1;
        if let Some(reason) = fault_of(&request) {
            let ReadRequest { offset, len, ref file, .. } = request;
            let error = ReadError::Invalid { path: file.path().clone(), offset, len, reason };
            return self.answer(request, Err(error));
        }
        if request.required == 0 {
            return self.answer(request, Ok(()));
        }
        let len = request.required.next_multiple_of(request.file.alignment().offset);
        self.backlog_bytes += len;
        let key = self.next_key;
        self.next_key += 1;
        match request.priority {
            Priority::Demand => self.demand.push_back(key),
            Priority::Prefetch => self.prefetch.push_back(key),
        }
        let entry = Entry { request, len, handed_out: 0, chunks_at_device: 0, failure: None };
        self.requests.insert(key, entry);
    }

    /// The next chunk to read, if the device has room for one.
    pub(super) fn next_chunk(&mut self, now: Duration) -> Option<Chunk> {
        if self.at_device >= self.config.depth {
            return None;
        }
        let (queue, priority) = if !self.demand.is_empty() {
            (&mut self.demand, Priority::Demand)
        } else if self.prefetch_at_device < self.config.prefetch_depth {
            (&mut self.prefetch, Priority::Prefetch)
        } else {
            return None;
        };
        let key = *queue.front()?;
        let entry = self.requests.get_mut(&key)?;
        let start = entry.handed_out;
        let len = self.config.chunk_bytes.min(entry.len - start);
        entry.handed_out += len;
        entry.chunks_at_device += 1;
        if entry.handed_out == entry.len {
            queue.pop_front();
        }
        let chunk = Chunk::new(key, &entry.request, start, len, priority);
        self.at_device += 1;
        self.prefetch_at_device += usize::from(priority == Priority::Prefetch);
        self.busy_since.get_or_insert(now);
        Some(chunk)
    }

    /// Takes a chunk back from the device.
    pub(super) fn finish(&mut self, chunk: Chunk, outcome: Result<(), ReadError>, now: Duration) {
        let (key, start, priority, counts) = (chunk.key(), chunk.start(), chunk.priority(), chunk.counts());
        self.backlog_bytes -= chunk.len();
        drop(chunk);
        self.count(counts, priority);
        self.at_device -= 1;
        self.prefetch_at_device -= usize::from(priority == Priority::Prefetch);
        if self.at_device == 0
            && let Some(since) = self.busy_since.take()
        {
            self.stats.busy += now.saturating_sub(since);
        }
        let Some(entry) = self.requests.get_mut(&key) else { return };
        entry.chunks_at_device -= 1;
        if let Err(error) = outcome {
            if entry.handed_out < entry.len {
                self.backlog_bytes -= entry.len - entry.handed_out;
                entry.handed_out = entry.len;
                self.demand.retain(|&queued| queued != key);
                self.prefetch.retain(|&queued| queued != key);
            }
            match &entry.failure {
                Some((earlier, _)) if *earlier <= start => {}
                _ => entry.failure = Some((start, error)),
            }
        }
        if entry.chunks_at_device == 0
            && entry.handed_out == entry.len
            && let Some(Entry { request, failure, .. }) = self.requests.remove(&key)
        {
            self.answer(request, failure.map_or(Ok(()), |(_, error)| Err(error)));
        }
    }

    fn count(&mut self, counts: Counts, priority: Priority) {
        self.stats.device_bytes += counts.bytes;
        self.stats.device_reads += counts.reads;
        self.stats.short_reads += counts.short_reads;
        self.stats.retries += counts.retries;
        if priority == Priority::Prefetch {
            self.stats.prefetch_bytes += counts.bytes;
        }
    }

    /// Answers a request, giving up its memory and file first.
    fn answer(&mut self, request: ReadRequest, result: Result<(), ReadError>) {
        match &result {
            Ok(()) => {
                self.stats.completed += 1;
                self.stats.bytes += request.required as u64;
            }
            Err(_) => self.stats.failed += 1,
        }
        let tag = request.tag;
        drop(request);
        self.done.push(Completion { tag, result });
    }

    /// Takes back what was not started: all of it, or the requests with these tags.
    pub(super) fn cancel_queued(&mut self, tags: Option<&[u64]>) -> Vec<u64> {
        let wanted: Option<HashSet<u64>> = tags.map(|tags| tags.iter().copied().collect());
        let mut cancelled = Vec::new();
        let requests = &mut self.requests;
        let mut keep = |key: &Key| {
            let Some(entry) = requests.get(key) else { return false };
            let tag = entry.request.tag;
            if entry.handed_out > 0 || wanted.as_ref().is_some_and(|wanted| !wanted.contains(&tag)) {
                return true;
            }
            self.backlog_bytes -= entry.len;
            requests.remove(key);
            cancelled.push(tag);
            false
        };
        self.demand.retain(&mut keep);
        self.prefetch.retain(&mut keep);
        self.stats.cancelled += cancelled.len() as u64;
        cancelled
    }

    /// The owner is gone: forgets everything that is not at the device.
    pub(super) fn abandon_queued(&mut self) {
        self.demand.clear();
        self.prefetch.clear();
        for entry in self.requests.values_mut() {
            self.backlog_bytes -= entry.len - entry.handed_out;
            entry.handed_out = entry.len;
        }
        self.requests.retain(|_, entry| entry.chunks_at_device > 0);
    }

    /// Moves queued prefetches to the end of the demand queue.
    pub(super) fn promote(&mut self, tags: &[u64]) {
        let wanted: HashSet<u64> = tags.iter().copied().collect();
        let (requests, demand) = (&mut self.requests, &mut self.demand);
        self.prefetch.retain(|key| {
            let Some(entry) = requests.get_mut(key) else { return false };
            if !wanted.contains(&entry.request.tag) {
                return true;
            }
            entry.request.priority = Priority::Demand;
            demand.push_back(*key);
            false
        });
    }

    /// Fails what was not started and cuts short what was: the ring is broken, nothing will be read any more.
    #[cfg(any(target_os = "linux", test))]
    pub(super) fn stop(&mut self, error: &ReadError) {
        self.demand.clear();
        self.prefetch.clear();
        let idle: Vec<Key> = self
            .requests
            .iter_mut()
            .filter_map(|(&key, entry)| {
                self.backlog_bytes -= entry.len - entry.handed_out;
                entry.handed_out = entry.len;
                entry.failure.get_or_insert((0, error.clone()));
                (entry.chunks_at_device == 0).then_some(key)
            })
            .collect();
        for key in idle {
            if let Some(entry) = self.requests.remove(&key) {
                self.answer(entry.request, Err(error.clone()));
            }
        }
    }

    /// Answers a request that came after [`stop`](Self::stop).
    #[cfg(target_os = "linux")]
    pub(super) fn refuse(&mut self, request: ReadRequest, error: &ReadError) {
        self.stats.requests += 1;
        self.answer(request, Err(error.clone()));
    }

    /// Requests that are not answered yet, or answered but not delivered.
    pub(super) fn in_flight(&self) -> usize {
        self.requests.len() + self.done.len()
    }

    /// Bytes asked for that the device has not delivered; a chunk counts until it has come back whole.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Whether requests wait to start (they may have to wait for room at the device).
    pub(super) fn has_queued(&self) -> bool {
        !self.demand.is_empty() || !self.prefetch.is_empty()
    }

    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    pub(super) fn deliver(&mut self, out: &mut Vec<Completion>) {
        out.append(&mut self.done);
    }

    pub(super) fn stats(&self, now: Duration) -> ReaderStats {
        let running = self.busy_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        ReaderStats { busy: self.stats.busy + running, ..self.stats.clone() }
    }
}

/// What is wrong with a request, if anything.
fn fault_of(request: &ReadRequest) -> Option<String> {
    let ReadRequest { offset, len, required, ref dst, dst_offset, .. } = *request;
    if required > len {
        return Some(format!("{required} bytes are required of only {len}"));
    }
    if i64::try_from(offset).ok().and_then(|start| start.checked_add(i64::try_from(len).ok()?)).is_none() {
        return Some("the range lies beyond the largest file offset".to_owned());
    }
    if dst_offset > dst.len() || len > dst.len() - dst_offset {
        return Some(format!(
            "the destination, {dst_offset} bytes into an arena of {} bytes, is too small",
            dst.len()
        ));
    }
    let need = request.file.alignment();
    let address = dst.base().as_ptr() as usize + dst_offset;
    if !offset.is_multiple_of(need.offset as u64) || !len.is_multiple_of(need.offset) {
        return Some(format!("offset and length must be multiples of {} bytes", need.offset));
    }
    if !address.is_multiple_of(need.memory) {
        return Some(format!("the destination must be aligned to {} bytes", need.memory));
    }
    None
}

#[cfg(test)]
mod tests;
