//! Linux: names of threads, how long they waited for a core, and how long cores were idle.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// `schedstat` of some threads, open.
#[derive(Debug, Default)]
pub(crate) struct RunDelays(Vec<File>);

impl RunDelays {
    /// Of all threads of this name and of the calling one; `None` where the kernel does not count.
    pub fn open(name: &str) -> Option<Self> {
        let own = File::open("/proc/thread-self/schedstat").ok()?;
        run_delay(&own)?;
        let mut files = vec![own];
        for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
            let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if comm.trim_end_matches('\n') == name {
                files.extend(File::open(task.path().join("schedstat")));
            }
        }
        Some(Self(files))
    }

    pub fn total(&self) -> Duration {
        self.0.iter().filter_map(run_delay).sum()
    }
}

/// The second of three numbers: nanoseconds of waiting on a run queue. `None` for a thread that has ended.
fn run_delay(file: &File) -> Option<Duration> {
    let mut text = [0; 96];
    let length = file.read_at(&mut text, 0).ok()?;
    let nanos = std::str::from_utf8(&text[..length]).ok()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// The calling thread's name.
pub(crate) fn thread_name() -> Option<String> {
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, a C string, to the address that it gets.
    if unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) } != 0 {
        return None;
    }
    let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Names the calling thread; what is beyond 15 bytes is cut off.
pub(crate) fn set_thread_name(name: &str) {
    let Ok(name) = CString::new(name) else { return };
    // SAFETY: PR_SET_NAME reads a C string; a refusal changes nothing.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
    }
}

/// Time that processors spent on this process.
pub(crate) fn processor_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for a timespec.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } != 0;
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    (!failed).then(|| Duration::new(seconds, nanos))
}

/// The fourth and fifth number of the lines `cpuN` of `/proc/stat`, of the cores that this process may use.
pub(crate) fn idle_time() -> Option<Duration> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks = idle_ticks(&stat, allowed)?;
    // USER_HZ is 100 on every architecture that Linux has.
    Some(Duration::from_millis(10 * ticks))
}

/// Idle time, and idle time with a read at the disk, of all cores in a list like `0-3,8`.
fn idle_ticks(stat: &str, allowed: &str) -> Option<u64> {
    let ranges: Vec<(u32, u32)> = allowed.split(',').map(range).collect::<Option<_>>()?;
    let mut ticks = None;
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let Some(core) = words.next().and_then(|name| name.strip_prefix("cpu")?.parse::<u32>().ok()) else {
            continue;
        };
        if ranges.iter().any(|(first, last)| (*first..=*last).contains(&core)) {
            let idle: u64 = words.skip(3).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
            *ticks.get_or_insert(0) += idle;
        }
    }
    ticks
}

fn range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_that_of_the_allowed_cores() {
        let stat = "cpu  9 9 9 999 9\ncpu0 1 2 3 40 5 6\ncpu1 1 2 3 100 0 6\ncpu10 1 2 3 7 1 6\nintr 5 5\n";
        assert_eq!(idle_ticks(stat, "0-1"), Some(145));
        assert_eq!(idle_ticks(stat, "1"), Some(100));
        assert_eq!(idle_ticks(stat, "0,8-12"), Some(53));
        assert_eq!(idle_ticks(stat, "77"), None);
        assert_eq!(idle_ticks(stat, "all"), None);
    }
}
