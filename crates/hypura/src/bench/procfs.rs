//! What the kernel counts, as text in and numbers out: `/proc/stat`, `/proc/self/task/*/schedstat`,
//! `/sys/block/*/stat`. Nothing here opens a file, so that all of it can be tested everywhere.

/// The kernel's unit in `/proc/stat`: USER_HZ, which is 100 on every Linux that we run on.
const TICKS_PER_S: f64 = 100.0;
/// The kernel's unit in `/sys/block/*/stat`, whatever the device's own sector is.
const SECTOR_BYTES: u64 = 512;

/// Processor time of the whole machine since it started, all processors together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineCpu {
    /// Time in any process or in the kernel, in seconds.
    pub busy_s: f64,
    /// Time that a hypervisor gave to others, in seconds.
    pub steal_s: f64,
}

/// Bytes of a disk since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskBytes {
    /// Read by anybody.
    pub read: u64,
    /// Written by anybody.
    pub written: u64,
}

/// The first line of `/proc/stat` (proc(5): user nice system idle iowait irq softirq steal guest guest_nice;
/// guests are part of user).
#[must_use]
pub fn parse_stat(text: &str) -> Option<MachineCpu> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else { return None };
    let busy = user + nice + system + irq + softirq;
    Some(MachineCpu { busy_s: busy as f64 / TICKS_PER_S, steal_s: steal as f64 / TICKS_PER_S })
}

/// `/sys/block/*/stat` (Documentation/block/stat.rst: the third field is sectors read, the seventh sectors
/// written).
#[must_use]
pub fn parse_disk(text: &str) -> Option<DiskBytes> {
    let fields: Vec<u64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [_, _, read, _, _, _, written, ..] = fields[..] else { return None };
    Some(DiskBytes { read: read * SECTOR_BYTES, written: written * SECTOR_BYTES })
}

/// Processor time of a thread in seconds, from its `schedstat` (nanoseconds on a processor, waiting, time
/// slices).
#[must_use]
pub fn parse_schedstat(text: &str) -> Option<f64> {
    let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}

/// Whether a thread of this name reads from the disk: our readers, and the workers that the kernel starts for
/// io_uring.
#[must_use]
pub fn is_reader_thread(name: &str) -> bool {
    let name = name.trim();
    ["hypura-pread", "iou-"].iter().any(|prefix| name.starts_with(prefix))
}

/// The model of the processor, from `/proc/cpuinfo`.
#[must_use]
pub fn parse_cpu_model(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_of_the_machine() {
        let text = "cpu  1000 200 300 9999 888 10 20 50 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 5\n";
        let cpu = parse_stat(text).unwrap();
        assert!((cpu.busy_s - 15.3).abs() < 1e-9, "idle, iowait and guests are not busy: {cpu:?}");
        assert!((cpu.steal_s - 0.5).abs() < 1e-9);
        assert_eq!(parse_stat("cpu0 1 2 3\n"), None);
        assert_eq!(parse_stat("cpu  1 2 x\n"), None);
    }

    #[test]
    fn bytes_of_a_disk() {
        let text = "  100 3 2048 77  50 1 16 5 0 40 82 0 0 0 0 0 0\n";
        assert_eq!(parse_disk(text), Some(DiskBytes { read: 1 << 20, written: 8192 }));
        assert_eq!(parse_disk("1 2 3"), None);
    }

    #[test]
    fn processor_time_of_threads() {
        assert_eq!(parse_schedstat("2500000000 12 3\n"), Some(2.5));
        assert_eq!(parse_schedstat(""), None);
        assert!(is_reader_thread("hypura-pread-3\n") && is_reader_thread("iou-wrk-77"));
        assert!(!is_reader_thread("hypura\n"));
    }

    #[test]
    fn the_name_of_a_processor() {
        assert_eq!(
            parse_cpu_model("vendor_id\t: X\nmodel name\t: Some CPU @ 2 GHz\n").unwrap(),
            "Some CPU @ 2 GHz"
        );
        assert_eq!(parse_cpu_model(""), None);
    }
}
