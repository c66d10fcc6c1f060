//! Process-wide state of llama.cpp, and what it says about the machine.

use crate::{device, log, sys};
use std::ffi::CStr;
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
        // SAFETY: the first does nothing; the second is called once, before any other use.
        unsafe {
            hypura_without_amx();
            sys::llama_backend_init();
        }
    });
}

/// llama.cpp's own log on stderr, for debugging.
pub fn set_log_echo(on: bool) {
    log::set_echo(on);
}

/// A device as ggml reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Short name: `CPU`, `CUDA0`, `Metal`.
    pub name: String,
    /// For people.
    pub description: String,
    /// What kind of device it is.
    pub kind: DeviceKind,
    /// Memory in bytes, 0 when the device does not say.
    pub memory_total_bytes: u64,
    /// Free memory in bytes.
    pub memory_free_bytes: u64,
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

/// All devices that ggml found.
#[must_use]
pub fn devices() -> Vec<DeviceInfo> {
    init();
    // SAFETY: plain queries; ggml returns static strings and fills the two numbers.
    unsafe {
        (0..sys::ggml_backend_dev_count())
            .map(|index| {
                let device = sys::ggml_backend_dev_get(index);
                let (mut free, mut total) = (0, 0);
                sys::ggml_backend_dev_memory(device, &raw mut free, &raw mut total);
                DeviceInfo {
                    name: CStr::from_ptr(sys::ggml_backend_dev_name(device)).to_string_lossy().into_owned(),
                    description: CStr::from_ptr(sys::ggml_backend_dev_description(device))
                        .to_string_lossy()
                        .into_owned(),
                    kind: match sys::ggml_backend_dev_type(device) {
                        sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
                        sys::GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
                        sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
                        sys::GGML_BACKEND_DEVICE_TYPE_ACCEL => DeviceKind::Accelerator,
                        _ => DeviceKind::Other,
                    },
                    memory_total_bytes: total as u64,
                    memory_free_bytes: free as u64,
                }
            })
            .collect()
    }
}

/// Whether ggml's CPU device has been decorated: once it was, everything in this process goes through ours.
#[must_use]
pub fn is_decorated() -> bool {
    device::is_installed()
}

/// Names of the backends that are compiled in.
#[must_use]
pub fn backends() -> Vec<String> {
    init();
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

/// The version of the linked ggml. Its commit is not asked for: the build takes that of whatever repository it runs in.
#[must_use]
pub fn ggml_version() -> String {
    // SAFETY: returns a static string.
    unsafe { CStr::from_ptr(sys::ggml_version()) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
