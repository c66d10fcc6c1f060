//! The simulated reader: real bytes, invented time. It runs the same schedule as the others on a virtual
//! clock, with latencies, disorder and faults drawn from a seed, so that everything above a reader can be
//! tested with a disk that misbehaves on command.
//!
//! Invariants: the same seed and the same calls give the same completions in the same order; the destination
//! holds the bytes only from the moment at which the simulated read ends.

use std::io;
use std::time::{Duration, Instant};

use super::Reader;
use super::chunk::{Chunk, Step};
use super::request::{Completion, Priority, ReadRequest, ReaderConfig, ReaderStats};
use super::schedule::Schedule;
use crate::random::SplitMix64;

/// How long a simulated read call takes, before bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Anything between the two, evenly.
    Uniform {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
}

/// When simulated read calls fail with EIO. Calls are counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Eio {
    /// Never.
    #[default]
    Never,
    /// Only the call with this number.
    OnceAt(u64),
    /// Each call, with this probability.
    Probability(f64),
    /// This call and all that follow.
    ForeverFrom(u64),
    /// Every call of a prefetch that nobody waits for when it starts.
    Prefetches,
}

/// One read call that takes unusually long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The number of the call, counted from 0.
    pub at: u64,
    /// How much longer it takes.
    pub delay: Duration,
}

/// The character of a simulated disk.
#[derive(Clone, Debug, PartialEq)]
pub struct SimConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// Time of a read call.
    pub latency: Latency,
    /// Bytes per second that all reads share, if limited.
    pub bytes_per_s: Option<u64>,
    /// Whether reads may overtake each other (by their latencies) or end in the order in which they started.
    pub out_of_order: bool,
    /// How often a read call returns fewer bytes than asked for, 0 to 1.
    pub short_read_probability: f64,
    /// Failing calls.
    pub eio: Eio,
    /// How often a read call flips one bit of what it returns, without an error, 0 to 1.
    pub corruption_probability: f64,
    /// One slow call.
    pub stall: Option<Stall>,
    /// Fills the destination with this byte when a read starts, so that using it too early shows.
    pub poison: Option<u8>,
    /// How far `poll` moves the virtual clock.
    pub poll_step: Duration,
    /// Really sleep through the latencies in `wait`, and let `poll` follow the real clock.
    pub real_time: bool,
}

impl Default for SimConfig {
    /// A healthy disk: 100 µs a read, in order, no limit of bandwidth, poisoning destinations with 0xA5.
    fn default() -> Self {
        SimConfig {
            seed: 0,
            latency: Latency::Fixed(Duration::from_micros(100)),
            bytes_per_s: None,
            out_of_order: false,
            short_read_probability: 0.0,
            eio: Eio::Never,
            corruption_probability: 0.0,
            stall: None,
            poison: Some(0xA5),
            poll_step: Duration::from_micros(50),
            real_time: false,
        }
    }
}

/// Faults that a [`SimReader`] really injected, so that a test can tell a survived fault from one that never
/// happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Calls that failed with EIO.
    pub eio: u64,
    /// Calls that were shortened.
    pub short_reads: u64,
    /// Calls with a flipped bit.
    pub corruptions: u64,
    /// Calls that stalled.
    pub stalls: u64,
}

/// The simulated reader.
pub struct SimReader {
    sim: SimConfig,
    schedule: Schedule,
    random: SplitMix64,
    /// Read calls at the simulated device.
    calls: Vec<Call>,
    next_call: u64,
    now: Duration,
    /// When the shared bandwidth is free again.
    link_free: Duration,
    /// When the last call in order ends.
    last_end: Duration,
    injected: Injected,
    opened: Instant,
}

struct Call {
    chunk: Chunk,
    number: u64,
    ends: Duration,
    fate: Fate,
}

/// What the dice said about a call when it started.
#[derive(Clone, Copy)]
enum Fate {
    Eio,
    Read { limit: usize, corrupt: Option<u64> },
}

impl SimReader {
    /// A simulated disk over the real bytes of the files that are asked for.
    pub fn new(sim: SimConfig, config: &ReaderConfig) -> SimReader {
        SimReader {
            schedule: Schedule::new(config),
            random: SplitMix64(sim.seed),
            sim,
            calls: Vec::new(),
            next_call: 0,
            now: Duration::ZERO,
            link_free: Duration::ZERO,
            last_end: Duration::ZERO,
            injected: Injected::default(),
            opened: Instant::now(),
        }
    }

    /// The faults injected so far.
    pub fn injected(&self) -> Injected {
        self.injected
    }

    /// The virtual time since the reader was opened.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Lets the device take what it has room for.
    fn fill_device(&mut self) {
        while let Some(chunk) = self.schedule.next_chunk(self.now) {
            if let Some(byte) = self.sim.poison {
                let at = chunk.dst_position();
                chunk.dst().fill(at..at + chunk.remaining(), byte);
            }
            self.start(chunk);
        }
    }

    /// Starts one read call: all its dice are thrown here, in the order of the calls.
    fn start(&mut self, chunk: Chunk) {
        let number = self.next_call;
        self.next_call += 1;
        let latency = match self.sim.latency {
            Latency::Fixed(latency) => latency,
            Latency::Uniform { min, max } => min + max.saturating_sub(min).mul_f64(self.random.unit()),
        };
        let mut ends = self.now + latency;
        if let Some(rate) = self.sim.bytes_per_s {
            let transfer = Duration::from_secs_f64(chunk.remaining() as f64 / rate.max(1) as f64);
            self.link_free = self.link_free.max(self.now) + transfer;
            ends = ends.max(self.link_free);
        }
        if let Some(Stall { at, delay }) = self.sim.stall
            && at == number
        {
            self.injected.stalls += 1;
            ends += delay;
        }
        if !self.sim.out_of_order {
            ends = ends.max(self.last_end);
            self.last_end = ends;
        }
        let fate = self.draw_fate(number, &chunk);
        self.calls.push(Call { chunk, number, ends, fate });
    }

    fn draw_fate(&mut self, number: u64, chunk: &Chunk) -> Fate {
        let fails = match self.sim.eio {
            Eio::Never => false,
            Eio::OnceAt(at) => number == at,
            Eio::Probability(probability) => self.random.unit() < probability,
            Eio::ForeverFrom(from) => number >= from,
            Eio::Prefetches => chunk.priority() == Priority::Prefetch,
        };
        if fails {
            self.injected.eio += 1;
            return Fate::Eio;
        }
        let mut limit = chunk.remaining();
        if self.random.unit() < self.sim.short_read_probability {
            let need = chunk.file().alignment();
            let block = need.offset.max(need.memory);
            let blocks = limit.div_ceil(block);
            if blocks > 1 {
                limit = block * (1 + self.random.below(blocks as u64 - 1) as usize);
                self.injected.short_reads += 1;
            }
        }
        let corrupt = (self.random.unit() < self.sim.corruption_probability)
            .then(|| self.random.below(limit as u64 * 8));
        Fate::Read { limit, corrupt }
    }

    /// Ends the calls whose time has come.
    fn end_due_calls(&mut self) {
        self.fill_device();
        while let Some(index) = self.earliest()
            && self.calls[index].ends <= self.now
        {
            let Call { mut chunk, fate, .. } = self.calls.swap_remove(index);
            let outcome = match fate {
                Fate::Eio => Err(io::Error::from_raw_os_error(libc::EIO)),
                Fate::Read { limit, corrupt } => self.read(&chunk, limit, corrupt),
            };
            match chunk.advance(outcome) {
                Step::Again => self.start(chunk),
                Step::Over(result) => self.schedule.finish(chunk, result, self.now),
            }
            self.fill_device();
        }
    }

    fn read(&mut self, chunk: &Chunk, limit: usize, corrupt: Option<u64>) -> io::Result<usize> {
        let got = chunk.read_once(limit)?;
        if let Some(bit) = corrupt
            && (bit / 8) < got as u64
        {
            let at = chunk.dst_position() + (bit / 8) as usize;
            chunk.dst().cells()[at].fetch_xor(1 << (bit % 8), std::sync::atomic::Ordering::Relaxed);
            self.injected.corruptions += 1;
        }
        Ok(got)
    }

    fn earliest(&self) -> Option<usize> {
        (0..self.calls.len()).min_by_key(|&index| (self.calls[index].ends, self.calls[index].number))
    }
}

impl Reader for SimReader {
    fn submit(&mut self, requests: Vec<ReadRequest>) {
        for request in requests {
            self.schedule.submit(request);
        }
    }

    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.now = if self.sim.real_time { self.opened.elapsed() } else { self.now + self.sim.poll_step };
        self.end_due_calls();
        self.schedule.deliver(out);
    }

    fn wait_for(&mut self, out: &mut Vec<Completion>, patience: Duration) {
        self.end_due_calls();
        let until = self.now + patience;
        while !self.schedule.has_done()
            && self.now < until
            && let Some(index) = self.earliest()
        {
            let ends = self.calls[index].ends.min(until);
            if self.sim.real_time {
                std::thread::sleep(ends.saturating_sub(self.opened.elapsed()));
            }
            self.now = self.now.max(ends);
            self.end_due_calls();
        }
        self.schedule.deliver(out);
    }

    fn in_flight(&self) -> usize {
        self.schedule.in_flight()
    }

    fn backlog_bytes(&self) -> usize {
        self.schedule.backlog_bytes()
    }

    fn cancel_queued(&mut self, tags: Option<&[u64]>) -> Vec<u64> {
        self.schedule.cancel_queued(tags)
    }

    fn promote(&mut self, tags: &[u64]) {
        self.schedule.promote(tags);
    }

    fn stats(&self) -> ReaderStats {
        self.schedule.stats(self.now)
    }

    fn name(&self) -> &'static str {
        "sim"
    }
}
