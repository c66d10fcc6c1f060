//! What the system says of itself: processor, memory, devices. No measuring.

use hypura_core::profile::{Cpu, Device, Memory};
use hypura_ggml::system::{self, DeviceInfo, DeviceKind};

/// The processor, and what the kernels were compiled for.
pub(super) fn cpu(threads: u32) -> Cpu {
    Cpu {
        model: cpu_model(),
        cores: std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok()),
        threads: Some(threads),
        features: enabled(&system::compiled_features()),
    }
}

/// The name of the processor, from the kernel.
pub(super) fn cpu_model() -> Option<String> {
    if let Ok(text) = std::fs::read_to_string("/proc/cpuinfo") {
        return model_of_cpuinfo(&text);
    }
    let output =
        std::process::Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// x86 says `model name`, some arm64 boards `Model` or `Hardware`, others nothing.
fn model_of_cpuinfo(text: &str) -> Option<String> {
    ["model name", "Hardware", "Model"].iter().find_map(|key| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        let name = line.split_once(':')?.1.trim();
        (!name.is_empty()).then(|| name.to_owned())
    })
}

/// The features that llama.cpp reports as `NAME = 1`.
fn enabled(report: &str) -> Vec<String> {
    let fields = report.split(['|', ':']);
    fields
        .filter_map(|field| field.trim().split_once(" = "))
        .filter(|(_, value)| value.trim() == "1")
        .map(|(name, _)| name.trim().to_owned())
        .collect()
}

/// Time of all processors so far, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CpuTimes {
    all: u64,
    busy: u64,
    own: u64,
}

impl CpuTimes {
    /// Now; `None` where the system has no `/proc`.
    pub fn now() -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).ok();
        Self::parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    /// From `/proc/stat` and `/proc/self/stat` (proc(5)).
    fn parse(stat: &str, own: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
        let ticks = fields.take(8).map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let all: u64 = ticks.iter().sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        // Behind the name, which may hold blanks: state is field 3, user and system time are 14 and 15.
        let mut times = own.rsplit_once(')')?.1.split_whitespace().skip(11);
        let own = times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?;
        Some(Self { all, busy: all - idle, own })
    }

    /// Share of the processors that others used since `before`.
    pub fn others_share(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let busy = self.busy.checked_sub(before.busy)?;
        Some(busy.saturating_sub(self.own.saturating_sub(before.own)) as f64 / all as f64)
    }
}

/// Memory now.
pub(super) fn memory() -> Memory {
    let Ok(memory) = hypura_storage::memory::memory_available() else { return Memory::default() };
    Memory {
        total_bytes: Some(memory.total_bytes),
        available_bytes: Some(memory.available_bytes),
        limit_bytes: memory.limit.as_ref().map(|limit| limit.limit_bytes),
        room_bytes: Some(memory.room_bytes()),
        read_bytes_per_s: None,
        touch_bytes_per_s: None,
        touch_ready_bytes: None,
    }
}

/// All devices that ggml found.
pub(super) fn devices() -> Vec<Device> {
    system::devices().iter().map(device).collect()
}

pub(crate) fn device(info: &DeviceInfo) -> Device {
    let kind = match info.kind {
        DeviceKind::Cpu => "cpu",
        DeviceKind::Gpu => "gpu",
        DeviceKind::IntegratedGpu => "integrated gpu",
        DeviceKind::Accelerator => "accelerator",
        DeviceKind::Other => "other",
    };
    let known = |bytes: u64| (bytes > 0).then_some(bytes);
    Device {
        name: info.name.clone(),
        description: info.description.clone(),
        backend: info.backend.clone(),
        pci_id: info.pci_id.clone(),
        kind: kind.to_owned(),
        unified: info.is_gpu().then_some(info.is_unified),
        memory_total_bytes: known(info.memory_total_bytes),
        memory_free_bytes: known(info.memory_free_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_used_is_what_was_busy_less_our_own() {
        let own = |user: u64| format!("7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 {user} 5 0 0 20");
        let stat = |user: u64, idle: u64| format!("cpu  {user} 0 0 {idle} 0 0 0 0 3 0\ncpu0 1 2\n");
        let before = CpuTimes::parse(&stat(100, 100), &own(10)).unwrap();
        let after = CpuTimes::parse(&stat(160, 140), &own(40)).unwrap();
        assert_eq!(after.others_share(before), Some(0.3));
        assert_eq!(before.others_share(before), None);
        assert_eq!(CpuTimes::parse("", &own(1)), None);
        assert_eq!(CpuTimes::parse(&stat(1, 1), "7 (x) S"), None);
    }

    #[test]
    fn features_are_those_that_are_on() {
        let report = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | REPACK = 1 | ";
        assert_eq!(enabled(report), ["SSE3", "AVX2", "REPACK"]);
        assert!(enabled("").is_empty());
    }

    #[test]
    fn processors_are_named_as_the_kernel_names_them() {
        let text = "processor\t: 0\nvendor_id\t: X\nmodel name\t: Fast CPU 9000\n";
        assert_eq!(model_of_cpuinfo(text).as_deref(), Some("Fast CPU 9000"));
        assert_eq!(model_of_cpuinfo("Hardware\t: Board\n").as_deref(), Some("Board"));
        assert_eq!(model_of_cpuinfo("processor\t: 0\n"), None);
        assert_eq!(model_of_cpuinfo("model name\t:\n"), None);
    }
}
