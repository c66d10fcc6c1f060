//! Do registered buffers help io_uring here? `cargo bench -p hypura-storage --bench registered_buffers
//! [FILE]`.
//!
//! Reads a file (or a scratch file of 1 GiB) directly at random places, once with plain and once with
//! registered buffers (`IORING_OP_READ_FIXED`), in interleaved pairs ABBA, and prints bandwidth and CPU time
//! a GiB: medians.
//!
//! Seen on 2 cores of a virtual machine with a disk of 2 GB/s, Linux 6.18, an arena of huge pages:
//!
//! | KiB | depth | MiB/s plain | registered | CPU ms/GiB plain | registered |
//! |---|---|---|---|---|---|
//! | 64 | 64 | 1481 | 1433 | 83.2 | 74.9 |
//! | 256 | 64 | 1922 | 1918 | 30.6 | 24.2 |
//! | 1024 | 64 | 1960 | 1916 | 9.6 | 5.6 |
//! | 4096 | 16 | 1799 | 1914 | 5.4 | 3.2 |
//!
//! No bandwidth, and at chunks of 1 MiB less than 1% of a core at 2 GB/s: the reader does not register its
//! buffers, which would count whole arenas against the limit of locked memory.

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use hypura_storage::{Arena, HugePages, SourceFile};
    use io_uring::{IoUring, opcode, types};

    type Outcome<T> = Result<T, Box<dyn Error>>;

    const PAIRS: usize = 6;
    const ROUND: Duration = Duration::from_millis(400);
    /// Memory at the device at most; the depth is 64 or what fits.
    const ARENA: usize = 64 << 20;

    pub fn main() -> Outcome<()> {
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
        let arena = Arena::new(ARENA, HugePages::Try)?;
        arena.fill(0..ARENA, 0);
        println!(
            "{:>8} {:>5} {:>12} {:>12} {:>12} {:>12}",
            "size", "depth", "plain", "registered", "plain", "registered"
        );
        println!(
            "{:>8} {:>5} {:>12} {:>12} {:>12} {:>12}",
            "KiB", "", "MiB/s", "MiB/s", "CPU ms/GiB", "CPU ms/GiB"
        );
        for size in [64 << 10, 256 << 10, 1 << 20, 4 << 20] {
            let depth = (ARENA / size).min(64);
            let mut rounds = [Vec::new(), Vec::new()];
            for pair in 0..PAIRS {
                let order = if pair % 2 == 0 { [0, 1] } else { [1, 0] };
                for kind in order {
                    rounds[kind].push(round(&file, &arena, size, depth, kind == 1, pair as u64)?);
                }
            }
            let [plain, registered] =
                rounds.map(|mut rounds| (median(&mut rounds, |r| r.0), median(&mut rounds, |r| r.1)));
            println!(
                "{:>8} {depth:>5} {:>12.0} {:>12.0} {:>12.1} {:>12.1}",
                size >> 10,
                plain.0,
                registered.0,
                plain.1,
                registered.1
            );
        }
        Ok(())
    }

    fn median(rounds: &mut [(f64, f64)], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
        rounds.sort_by(|a, b| of(a).total_cmp(&of(b)));
        (of(&rounds[(rounds.len() - 1) / 2]) + of(&rounds[rounds.len() / 2])) / 2.0
    }

    /// MiB/s and CPU milliseconds a GiB of one round.
    fn round(
        file: &SourceFile,
        arena: &Arc<Arena>,
        size: usize,
        depth: usize,
        registered: bool,
        seed: u64,
    ) -> Outcome<(f64, f64)> {
        let mut ring = IoUring::new(depth as u32)?;
        let base = arena.base().as_ptr();
        if registered {
            let whole = libc::iovec { iov_base: base.cast(), iov_len: arena.len() };
            // SAFETY: the arena outlives the ring, which is dropped at the end of this function.
            unsafe { ring.submitter().register_buffers(&[whole])? };
        }
        let places = file.len() / size as u64;
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut push = |ring: &mut IoUring, slot: usize| -> Outcome<()> {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let offset = state % places * size as u64;
            let fd = types::Fd(file.as_raw_fd());
            let to = base.wrapping_add(slot * size);
            let entry = if registered {
                opcode::ReadFixed::new(fd, to, size as u32, 0).offset(offset).build()
            } else {
                opcode::Read::new(fd, to, size as u32).offset(offset).build()
            };
            // SAFETY: slot * size + size <= ARENA, and `read_round` waits for every read or the process ends.
            unsafe { ring.submission().push(&entry.user_data(slot as u64))? };
            Ok(())
        };
        let (started, cpu) = (Instant::now(), cpu_time());
        let bytes = read_round(&mut ring, size, depth, started, &mut push).unwrap_or_else(|error| {
            // Reads may still be at the device, so the arena must not be freed: nothing but the end of the
            // process.
            eprintln!("the bench failed: {error}");
            std::process::abort()
        });
        let (wall, cpu) = (started.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
        let mib = bytes as f64 / f64::from(1 << 20);
        Ok((mib / wall, cpu * 1e3 * 1024.0 / mib))
    }

    /// Keeps `depth` reads at the device until the round is over; returns the bytes read.
    fn read_round(
        ring: &mut IoUring,
        size: usize,
        depth: usize,
        started: Instant,
        push: &mut dyn FnMut(&mut IoUring, usize) -> Outcome<()>,
    ) -> Outcome<usize> {
        (0..depth).try_for_each(|slot| push(ring, slot))?;
        let (mut flying, mut bytes) = (depth, 0);
        while flying > 0 {
            ring.submit_and_wait(1)?;
            let ended: Vec<(u64, i32)> =
                ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
            for (slot, result) in ended {
                if result != size as i32 {
                    return Err(format!("a read returned {result}").into());
                }
                bytes += size;
                flying -= 1;
                if started.elapsed() < ROUND {
                    push(ring, slot as usize)?;
                    flying += 1;
                }
            }
        }
        Ok(bytes)
    }

    /// User and system time of this process.
    fn cpu_time() -> Duration {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` has room for an rusage, and zeroed bytes are valid for its plain numbers.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        [usage.ru_utime, usage.ru_stime]
            .iter()
            .map(|time| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000))
            .sum()
    }
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("there is no io_uring here");
}
