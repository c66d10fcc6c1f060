//! GPUs: each one that ggml found, or what keeps it from finding one that is there.
//!
//! ggml sees only what it has a backend for (Cargo features `vulkan`, `cuda`, `metal`, or a library beside
//! the program) and what that backend finds a driver for, so an absent device has one of two causes, and each
//! has its own fix.

use hypura_core::plan::human_bytes;
use hypura_core::profile::Device;
use hypura_ggml::libraries;
use hypura_ggml::system::{self, DeviceInfo};
use std::path::Path;

use super::{Finding, Verdict};
use crate::profile::facts;

/// What the file system says about GPUs, whatever this build can use.
#[derive(Clone, Copy, Debug, Default)]
struct Drivers {
    /// NVIDIA's kernel driver is loaded.
    nvidia: bool,
    /// AMD's compute driver is loaded.
    amd: bool,
    /// Some kernel driver offers a device to render with.
    render_node: bool,
    /// A Vulkan driver is installed.
    vulkan: bool,
}

pub(super) fn examine() -> Vec<Finding> {
    let drivers = Drivers::of(&|path| Path::new(path).exists());
    let mut findings = judge(&system::devices(), &system::backends(), drivers);
    findings.extend(libraries::refused().iter().map(unusable));
    findings
}

/// A backend that is there as a library, for nothing. Packages bring libraries whose drivers a machine may
/// lack: then the system names what it did not find.
fn unusable(library: &libraries::Refused) -> Finding {
    let fix = if library.reason.contains("cannot open shared object file") {
        "install the driver's library that is named (Debian: libvulkan1 for Vulkan); without a GPU nothing is amiss"
    } else {
        "build it from the sources of this program: `make backend GPU=cuda` or `GPU=vulkan`"
    };
    Finding::new("GPU", Verdict::Slow, format!("{}: {}", library.path.display(), library.reason)).fix(fix)
}

impl Drivers {
    fn of(exists: &dyn Fn(&str) -> bool) -> Self {
        let any = |paths: &[&str]| paths.iter().any(|path| exists(path));
        Self {
            nvidia: any(&["/proc/driver/nvidia/version"]),
            amd: any(&["/dev/kfd"]),
            render_node: any(&["/dev/dri/renderD128"]),
            vulkan: any(&["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"]),
        }
    }

    fn names(self) -> Vec<&'static str> {
        let known = [
            (self.nvidia, "an NVIDIA driver"),
            (self.amd, "an AMD driver"),
            (self.render_node, "a render node"),
        ];
        known.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect()
    }
}

fn judge(devices: &[DeviceInfo], backends: &[String], drivers: Drivers) -> Vec<Finding> {
    let found: Vec<Finding> =
        devices.iter().filter(|device| device.is_gpu()).map(|gpu| usable(&facts::device(gpu))).collect();
    if found.is_empty() { vec![absent(backends, drivers)] } else { found }
}

fn usable(gpu: &Device) -> Finding {
    let bytes = |bytes: Option<u64>| bytes.map_or("?".to_owned(), human_bytes);
    let shared = if gpu.unified == Some(true) { " of the host's memory" } else { "" };
    let found = format!(
        "{}: {} ({}), {}{shared}, {} free",
        gpu.name,
        gpu.description,
        gpu.backend,
        bytes(gpu.memory_total_bytes),
        bytes(gpu.memory_free_bytes)
    );
    Finding::new("GPU", Verdict::Good, found).device(gpu.clone())
}

fn absent(backends: &[String], drivers: Drivers) -> Finding {
    let built = |name: &str| backends.iter().any(|backend| backend == name);
    let names = drivers.names();
    if built("CUDA") || built("Vulkan") {
        let found = format!("none found by {}", backends.join(", "));
        let fix = match (built("CUDA"), drivers.vulkan) {
            (true, _) => {
                "CUDA needs NVIDIA's kernel driver, as new as the toolkit of the build: `nvidia-smi` shows it"
            }
            (_, false) => "install a Vulkan driver (Debian: mesa-vulkan-drivers, or NVIDIA's own)",
            (_, true) => {
                "the Vulkan driver offers no GPU: `vulkaninfo --summary` shows what it offers; in a container, pass /dev/dri"
            }
        };
        let verdict = if names.is_empty() { Verdict::Good } else { Verdict::Slow };
        return Finding::new("GPU", verdict, found).fix(fix);
    }
    if names.is_empty() {
        return Finding::new("GPU", Verdict::Good, "none found; the CPU computes");
    }
    let toolkit = if drivers.nvidia {
        "`make build GPU=cuda` or `make build GPU=vulkan`"
    } else {
        "`make build GPU=vulkan`"
    };
    Finding::new(
        "GPU",
        Verdict::Slow,
        format!("{}, for which this build has no backend", names.join(" and ")),
    )
    .fix(format!("build with one: {toolkit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypura_ggml::system::DeviceKind;

    fn gpu(kind: DeviceKind, is_unified: bool) -> DeviceInfo {
        DeviceInfo {
            name: "Vulkan0".to_owned(),
            description: "fast".to_owned(),
            backend: "Vulkan".to_owned(),
            pci_id: Some("0000:c1:00.0".to_owned()),
            kind,
            is_unified,
            memory_total_bytes: 8 << 30,
            memory_free_bytes: 7 << 30,
        }
    }

    #[test]
    fn devices_are_named_with_backend_and_memory_for_people_and_programs() {
        let finding = &judge(&[gpu(DeviceKind::Gpu, false)], &["Vulkan".to_owned()], Drivers::default())[0];
        for part in ["Vulkan0", "fast", "(Vulkan)", "8.00 GiB,", "7.00 GiB free"] {
            assert!(finding.found.contains(part), "{part}: {finding:?}");
        }
        let json = serde_json::to_value(finding).unwrap();
        assert_eq!(json["device"]["backend"], "Vulkan");
        assert_eq!(json["device"]["memory_free_bytes"], 7u64 << 30);
        assert_eq!(json["device"]["unified"], false);
        let unified = &judge(&[gpu(DeviceKind::IntegratedGpu, true)], &[], Drivers::default())[0];
        assert!(unified.found.contains("of the host's memory"), "{unified:?}");
    }

    #[test]
    fn a_library_that_cannot_be_loaded_is_reported_with_the_reason() {
        let reason = "undefined symbol: ggml_new".to_owned();
        let finding = unusable(&libraries::Refused { path: "/opt/libggml-cuda.so".into(), reason });
        assert!(finding.found.contains("libggml-cuda.so: undefined symbol"), "{finding:?}");
        assert_eq!(finding.verdict, Verdict::Slow);
        assert!(finding.fix.is_some_and(|fix| fix.contains("make backend")));
    }

    #[test]
    fn a_library_whose_driver_is_not_installed_names_the_driver() {
        let reason = "libvulkan.so.1: cannot open shared object file: No such file or directory".to_owned();
        let finding = unusable(&libraries::Refused { path: "/usr/lib/libggml-vulkan.so".into(), reason });
        assert!(finding.fix.is_some_and(|fix| fix.contains("libvulkan1")));
    }

    #[test]
    fn a_gpu_that_the_build_cannot_use_is_reported_with_the_build_that_can() {
        let cpu = ["CPU".to_owned()];
        let nvidia = Drivers::of(&|path| path == "/proc/driver/nvidia/version");
        let amd = Drivers::of(&|path| path == "/dev/kfd");
        let finding = |drivers| judge(&[], &cpu, drivers).remove(0);
        assert!(finding(nvidia).fix.is_some_and(|fix| fix.contains("GPU=cuda")));
        assert!(finding(amd).fix.is_some_and(|fix| fix.contains("GPU=vulkan") && !fix.contains("cuda")));
        assert_eq!(finding(nvidia).verdict, Verdict::Slow);
        assert_eq!(finding(Drivers::default()).verdict, Verdict::Good);
        assert_eq!(serde_json::to_value(finding(amd)).unwrap().get("device"), None);
    }

    #[test]
    fn a_backend_without_a_device_is_reported_with_the_driver_it_lacks() {
        let finding =
            |backend: &str, drivers| judge(&[], &["CPU".to_owned(), backend.to_owned()], drivers).remove(0);
        let there = Drivers { render_node: true, ..Drivers::default() };
        let fix = |finding: Finding| finding.fix.unwrap_or_default();
        assert!(fix(finding("Vulkan", there)).contains("install a Vulkan driver"));
        assert!(fix(finding("Vulkan", Drivers { vulkan: true, ..there })).contains("vulkaninfo"));
        assert!(fix(finding("CUDA", there)).contains("nvidia-smi"));
        assert_eq!(finding("Vulkan", there).verdict, Verdict::Slow);
        assert_eq!(
            finding("Vulkan", Drivers::default()).verdict,
            Verdict::Good,
            "a build may be made elsewhere"
        );
    }
}
