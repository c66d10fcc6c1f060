//! Process-wide state of llama.cpp, and what it says about the machine.

use crate::libraries::Refused;
use crate::{kernels, libraries, log, sys};
use std::ffi::{CStr, CString, c_char};
use std::sync::{Once, OnceLock};

unsafe extern "C" {
    /// Does nothing. That it is called links the object file that it is in: `amx.cpp`.
    fn hypura_without_amx();
}

static INIT: Once = Once::new();

/// Initialises llama.cpp once; every entry point calls it.
pub(crate) fn init() {
    INIT.call_once(|| {
        log::install();
        kernels::choose();
        // SAFETY: the first does nothing; the second is called once, before any other use.
        unsafe {
            hypura_without_amx();
            sys::llama_backend_init();
        }
    });
}

/// Initialises llama.cpp, for who calls it past this crate.
pub fn prepare() {
    init();
}

/// Has CUDA pin host memory where it is asked to, which it otherwise refuses: without that, uploads take
/// three times as long. For the first line of a program; does nothing in a process that has other threads
/// already.
pub fn prepare_process() {
    const PINNING: &str = "GGML_CUDA_REGISTER_HOST";
    let alone = std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    if alone && std::env::var_os(PINNING).is_none() {
        // SAFETY: no other thread reads the environment: there is none.
        unsafe { std::env::set_var(PINNING, "1") };
    }
}

/// A device as ggml reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Short name: `CPU`, `CUDA0`, `Metal`.
    pub name: String,
    /// For people: the model of the chip, of Vulkan also the driver.
    pub description: String,
    /// The backend that it belongs to: `CPU`, `CUDA`, `Vulkan`, `MTL`.
    pub backend: String,
    /// PCI address (`0000:c1:00.0`), where the backend knows it: the same chip seen by two backends has it
    /// twice.
    pub pci_id: Option<String>,
    /// What kind of device it is.
    pub kind: DeviceKind,
    /// Whether its memory is the host's: what is free there is counted once.
    pub is_unified: bool,
    /// Memory in bytes, 0 when the device does not say.
    pub memory_total_bytes: u64,
    /// Free memory in bytes.
    pub memory_free_bytes: u64,
}

impl DeviceInfo {
    /// Whether layers can be placed on it.
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        matches!(self.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu)
    }
}

/// ggml's kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// A GPU with its own memory.
    Gpu,
    /// A GPU that shares the host's memory.
    IntegratedGpu,
    /// A library or unit that works beside the CPU (BLAS, AMX).
    Accelerator,
    /// Something newer than this program.
    Other,
}

impl DeviceKind {
    pub(crate) fn of(kind: sys::ggml_backend_dev_type) -> Self {
        match kind {
            sys::GGML_BACKEND_DEVICE_TYPE_CPU => Self::Cpu,
            sys::GGML_BACKEND_DEVICE_TYPE_GPU => Self::Gpu,
            sys::GGML_BACKEND_DEVICE_TYPE_IGPU => Self::IntegratedGpu,
            sys::GGML_BACKEND_DEVICE_TYPE_ACCEL => Self::Accelerator,
            _ => Self::Other,
        }
    }
}

/// All devices that ggml found.
#[must_use]
pub fn devices() -> Vec<DeviceInfo> {
    init();
    libraries::load();
    // SAFETY: ggml answers an index below the count with a device that lives for the whole process.
    unsafe {
        (0..sys::ggml_backend_dev_count()).map(|index| describe(sys::ggml_backend_dev_get(index))).collect()
    }
}

/// # Safety
/// `device` is one of ggml's devices.
unsafe fn describe(device: sys::ggml_backend_dev_t) -> DeviceInfo {
    // SAFETY: the struct is plain data, for which zeroes are valid.
    let mut props: sys::ggml_backend_dev_props = unsafe { std::mem::zeroed() };
    // SAFETY: the device is alive (caller), as are its registry and its NUL-terminated strings; ggml fills
    // the struct.
    let (name, description, backend, pci_id) = unsafe {
        sys::ggml_backend_dev_get_props(device, &raw mut props);
        let registry = sys::ggml_backend_dev_backend_reg(device);
        (
            text(sys::ggml_backend_dev_name(device)),
            text(sys::ggml_backend_dev_description(device)),
            text(sys::ggml_backend_reg_name(registry)),
            text(props.device_id),
        )
    };
    let kind = DeviceKind::of(props.type_);
    DeviceInfo {
        name: name.unwrap_or_default(),
        description: description.unwrap_or_default(),
        backend: backend.unwrap_or_default(),
        pci_id,
        kind,
        // Metal calls its devices GPUs and says by this alone that they read the host's memory.
        is_unified: kind == DeviceKind::IntegratedGpu
            || (kind == DeviceKind::Gpu && props.caps.buffer_from_host_ptr),
        memory_total_bytes: props.memory_total as u64,
        memory_free_bytes: props.memory_free as u64,
    }
}

/// # Safety
/// `text` is null or a NUL-terminated string.
unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Names of the buffer types of GPUs. Host memory that a GPU's driver has pinned is not among them.
pub(crate) fn gpu_buffer_types() -> Vec<CString> {
    init();
    // SAFETY: plain queries; ggml answers an index below the count with a device, and a device with a buffer
    // type, that live for the whole process.
    let names = (0..unsafe { sys::ggml_backend_dev_count() }).filter_map(|index| unsafe {
        let device = sys::ggml_backend_dev_get(index);
        let is_gpu = matches!(
            sys::ggml_backend_dev_type(device),
            sys::GGML_BACKEND_DEVICE_TYPE_GPU | sys::GGML_BACKEND_DEVICE_TYPE_IGPU
        );
        let name = || sys::ggml_backend_buft_name(sys::ggml_backend_dev_buffer_type(device));
        is_gpu.then(|| CStr::from_ptr(name()).to_owned())
    });
    names.collect()
}

/// Names of the backends that are compiled in.
#[must_use]
pub fn backends() -> Vec<String> {
    init();
    libraries::load();
    // SAFETY: plain queries; ggml returns static strings.
    unsafe {
        (0..sys::ggml_backend_reg_count())
            .map(|index| CStr::from_ptr(sys::ggml_backend_reg_name(sys::ggml_backend_reg_get(index))))
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }
}

/// What the linked llama.cpp was compiled for and uses (`AVX2 = 1 | …`).
#[must_use]
pub fn compiled_features() -> String {
    /// llama.cpp writes its answer to one string for all threads, so it is asked once.
    static ANSWER: OnceLock<String> = OnceLock::new();
    let ask = || {
        init();
        // SAFETY: nobody else asks (`OnceLock`), so that the string is not written to while it is read.
        let all = unsafe { CStr::from_ptr(sys::llama_print_system_info()) }.to_string_lossy().into_owned();
        // It is compiled in and kept from being used: `amx.cpp`.
        all.replace("AMX_INT8 = 1 | ", "").trim().to_owned()
    };
    ANSWER.get_or_init(ask).clone()
}

/// The library whose kernels the CPU computes with (`haswell`, `zen4`): the best for this processor of those
/// that came with the program. `None` where the linked kernels compute.
#[must_use]
pub fn kernels() -> Option<&'static str> {
    init();
    kernels::name()
}

/// Libraries with kernels for the CPU that are broken. Those for other processors are not among them.
#[must_use]
pub fn refused_kernels() -> Vec<Refused> {
    init();
    kernels::refused()
}

/// The version of the linked ggml. Its commit is not asked for: the build takes that of whatever repository
/// it runs in.
#[must_use]
pub fn ggml_version() -> String {
    // SAFETY: returns a static string.
    unsafe { CStr::from_ptr(sys::ggml_version()) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_libraries_the_linked_kernels_compute() {
        assert_eq!(kernels(), None);
        assert!(refused_kernels().is_empty());
        assert!(backends().contains(&"CPU".to_owned()));
    }

    #[test]
    fn many_threads_may_ask_what_was_compiled_at_once() {
        let answers: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(compiled_features)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
        });
        assert!(answers[0].contains(" = "), "{}", answers[0]);
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    }
}
