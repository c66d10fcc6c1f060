//! What does a read cost besides the disk? `cargo bench -p hypura-storage --bench round_trip [FILE]`.
//!
//! For each reader, in turns ABBA: the time from `submit` of three reads of 864 KiB (an expert) at random
//! places until the last is there, the part of it that is `submit`, the processor time of the process for
//! each such group, and the bandwidth of 64 reads of 1 MiB kept in flight. Medians over all groups and
//! rounds.
//!
//! Seen on 2 busy cores of a virtual machine, Linux 6.18, medians of 8 interleaved runs of 2000 groups, of
//! the io_uring reader and of what it might have been:
//!
//! | | group µs | submit µs | CPU µs | MiB/s | CPU ms/GiB |
//! |---|---|---|---|---|---|
//! | inline | 1138 | 47 | 78 | 2063 | 9.7 |
//! | inline with DEFER_TASKRUN and SINGLE_ISSUER | 1199 | 49 | 81 | 1871 | 9.9 |
//! | with a thread of its own | 1241 | 3 | 113 | 1851 | 10.8 |

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypura_storage::{
    Arena, Completion, HugePages, PAGE, Priority, ReadRequest, Reader, ReaderConfig, ReaderKind, SourceFile,
    open_reader,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 8;
const GROUPS: usize = 250;
const GROUP: usize = 3;
const EXPERT: usize = 864 << 10;
const STREAM_DEPTH: usize = 64;
const STREAM_CHUNK: usize = 1 << 20;
const STREAM_READS: usize = 1024;

#[derive(Default)]
struct Seen {
    group_us: Vec<f64>,
    submit_us: Vec<f64>,
    group_cpu_us: Vec<f64>,
    stream_mib_s: Vec<f64>,
    stream_cpu_ms_per_gib: Vec<f64>,
}

fn main() -> Outcome<()> {
    let scratch = tempfile::NamedTempFile::with_prefix(".hypura-bench-")?;
    let path = match std::env::args().skip(1).find(|argument| !argument.starts_with("--")) {
        Some(path) => PathBuf::from(path),
        None => {
            let block: Vec<u8> =
                (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            for _ in 0..1024 {
                scratch.as_file().write_all(&block)?;
            }
            scratch.as_file().sync_all()?;
            scratch.path().to_owned()
        }
    };
    let file = SourceFile::open(&path)?;
    if let Some(reason) = file.buffered_because() {
        return Err(format!("{} is not read directly: {reason}", path.display()).into());
    }
    let arena = Arena::new(STREAM_DEPTH * STREAM_CHUNK, HugePages::Try)?;
    arena.fill(0..arena.len(), 0);
    let kinds = [ReaderKind::Uring, ReaderKind::Pread];
    let mut seen = [Seen::default(), Seen::default()];
    let mut places = Places { file, arena, state: 0x9E37_79B9_7F4A_7C15 };
    for round in 0..ROUNDS {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for kind in order {
            let mut reader = open_reader(&kinds[kind], &ReaderConfig::default())?.reader;
            groups(reader.as_mut(), &mut places, &mut seen[kind])?;
            stream(reader.as_mut(), &mut places, &mut seen[kind])?;
        }
    }
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "reader", "group µs", "p90 µs", "submit µs", "CPU µs", "MiB/s", "CPU ms/GiB"
    );
    for (kind, mut seen) in kinds.iter().zip(seen) {
        println!(
            "{:>8} {:>12.0} {:>12.0} {:>12.1} {:>12.0} {:>12.0} {:>12.1}",
            format!("{kind:?}").to_lowercase(),
            quantile(&mut seen.group_us, 0.5),
            quantile(&mut seen.group_us, 0.9),
            quantile(&mut seen.submit_us, 0.5),
            quantile(&mut seen.group_cpu_us, 0.5),
            quantile(&mut seen.stream_mib_s, 0.5),
            quantile(&mut seen.stream_cpu_ms_per_gib, 0.5),
        );
    }
    Ok(())
}

fn quantile(values: &mut [f64], at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * at).round() as usize]
}

/// Random places in a file and where in the arena they go.
struct Places {
    file: Arc<SourceFile>,
    arena: Arc<Arena>,
    state: u64,
}

impl Places {
    fn request(&mut self, tag: u64, len: usize) -> ReadRequest {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let pages = (self.file.len() - len as u64) / PAGE as u64;
        ReadRequest {
            tag,
            file: Arc::clone(&self.file),
            offset: self.state % pages * PAGE as u64,
            len,
            required: len,
            dst: Arc::clone(&self.arena),
            dst_offset: tag as usize * STREAM_CHUNK,
            priority: Priority::Demand,
        }
    }
}

fn groups(reader: &mut dyn Reader, places: &mut Places, seen: &mut Seen) -> Outcome<()> {
    let cpu = cpu_time();
    let mut completions = Vec::new();
    for _ in 0..GROUPS {
        let requests = (0..GROUP).map(|tag| places.request(tag as u64, EXPERT)).collect();
        let started = Instant::now();
        reader.submit(requests);
        let submitted = started.elapsed();
        reader.drain(&mut completions);
        seen.group_us.push(micros(started.elapsed()));
        seen.submit_us.push(micros(submitted));
        check(completions.drain(..))?;
    }
    seen.group_cpu_us.push(micros(cpu_time() - cpu) / GROUPS as f64);
    Ok(())
}

fn stream(reader: &mut dyn Reader, places: &mut Places, seen: &mut Seen) -> Outcome<()> {
    let (started, cpu) = (Instant::now(), cpu_time());
    reader.submit((0..STREAM_DEPTH).map(|tag| places.request(tag as u64, STREAM_CHUNK)).collect());
    let (mut begun, mut completions) = (STREAM_DEPTH, Vec::new());
    while reader.in_flight() > 0 {
        reader.wait(&mut completions);
        let room = completions.len().min(STREAM_READS - begun);
        let next = completions[..room]
            .iter()
            .map(|completion| places.request(completion.tag, STREAM_CHUNK))
            .collect();
        begun += room;
        reader.submit(next);
        check(completions.drain(..))?;
    }
    let gib = (STREAM_READS * STREAM_CHUNK) as f64 / f64::from(1 << 30);
    seen.stream_mib_s.push(gib * 1024.0 / started.elapsed().as_secs_f64());
    seen.stream_cpu_ms_per_gib.push(micros(cpu_time() - cpu) / 1000.0 / gib);
    Ok(())
}

fn check(mut completions: impl Iterator<Item = Completion>) -> Outcome<()> {
    Ok(completions.try_for_each(|completion| completion.result)?)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// User and system time of all threads of this process.
fn cpu_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is ours to be written to.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
    assert_eq!(outcome, 0, "there is no clock of processor time");
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
