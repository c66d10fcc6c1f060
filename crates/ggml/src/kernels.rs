//! The CPU's kernels that suit this processor: ggml's CPU backend, built several times as libraries
//! `libggml-cpu-NAME.so` (`scripts/dist/kernels.sh`), of which the best one takes the place of the kernels
//! that were linked. A program without such libraries keeps those: that is what `make build` makes, for the
//! very processor that builds it.
//!
//! ggml's own score of a library says whether the processor can run it, and how good it is there. The library
//! has its own tables and threads, and uses the program's copy of everything else of ggml. That the linked
//! kernels stay in the program does no harm: everything reaches kernels through the registry, except the
//! facts about types that `ggml_get_type_traits_cpu` tells here (which form products want their input in),
//! and those do not depend on the processor.
//!
//! Invariant: libraries are looked at once, before anything else of ggml is used, so that a process computes
//! with one set of kernels.

use crate::libraries::{self, Refused};
use crate::{log, sys};
use std::ffi::{CStr, CString, c_int, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

/// ggml's names of the function that judges a library.
const SCORE: &CStr = c"ggml_backend_score";

static CHOICE: OnceLock<Choice> = OnceLock::new();

/// What became of the libraries that were found.
#[derive(Debug, Default)]
struct Choice {
    name: Option<String>,
    refused: Vec<Refused>,
}

/// The name of the library whose kernels compute, after [`choose`].
pub(crate) fn name() -> Option<&'static str> {
    CHOICE.get()?.name.as_deref()
}

/// The libraries that should be usable and are not, after [`choose`].
pub(crate) fn refused() -> Vec<Refused> {
    CHOICE.get().map(|choice| choice.refused.clone()).unwrap_or_default()
}

/// Puts the best library's kernels in the place of the linked ones. Called once, by `system::init`.
pub(crate) fn choose() {
    let mut choice = Choice::default();
    let mut best: Option<Library> = None;
    for path in libraries::kernels_in(libraries::folder().as_deref()) {
        match Library::open(path) {
            Ok(library) if !is_runnable(library.score) => {}
            Ok(library) if best.as_ref().is_some_and(|best| best.score >= library.score) => {}
            Ok(library) => best = Some(library),
            Err(refused) => choice.refused.push(refused),
        }
    }
    if let Some(library) = best {
        let name = libraries::kernels_name(&library.path).map(str::to_owned);
        match library.take_over() {
            Ok(()) => choice.name = name,
            Err(refused) => choice.refused.push(refused),
        }
    }
    // Called once.
    let _ = CHOICE.set(choice);
}

/// A library that has been opened; closed when it is dropped.
#[derive(Debug)]
struct Library {
    path: PathBuf,
    file: CString,
    handle: *mut c_void,
    score: c_int,
}

impl Library {
    fn open(path: PathBuf) -> Result<Self, Refused> {
        let Ok(file) = CString::new(path.as_os_str().as_encoded_bytes()) else {
            return Err(Refused { path, reason: "its name cannot be given to the system".to_owned() });
        };
        // SAFETY: a NUL-terminated string. What a library runs when it is opened is as trusted as the
        // program: both were put there by the same person.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(Refused { path, reason: last_error() });
        }
        let mut library = Self { path, file, handle, score: 0 };
        // SAFETY: the handle is open, the name NUL-terminated.
        let function = unsafe { libc::dlsym(library.handle, SCORE.as_ptr()) };
        if function.is_null() {
            let reason = format!("it has no function {}", SCORE.to_string_lossy());
            return Err(Refused { path: library.path.clone(), reason });
        }
        // SAFETY: ggml declares the function of this name so (`ggml_backend_score_t`). It is compiled
        // without the instructions that it asks for.
        library.score = unsafe {
            let score: unsafe extern "C" fn() -> c_int = std::mem::transmute(function);
            score()
        };
        Ok(library)
    }

    /// Registers the library's CPU in the place of the linked one.
    fn take_over(self) -> Result<(), Refused> {
        log::clear();
        // SAFETY: a NUL-terminated string; ggml checks the version of the library's interface. The linked
        // CPU's registry entry is static, so that it stays alive when it is taken from the list.
        let loaded = unsafe {
            let linked = sys::ggml_backend_reg_by_name(c"CPU".as_ptr());
            let loaded = sys::ggml_backend_load(self.file.as_ptr());
            if !loaded.is_null() && !linked.is_null() {
                sys::ggml_backend_unload(linked);
            }
            loaded
        };
        if loaded.is_null() {
            return Err(Refused { path: self.path.clone(), reason: log::take() });
        }
        // ggml closes a library whose device leaves the registry, as the decorated one makes the CPU's
        // leave: this handle keeps it in memory for as long as the process lives.
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once; nothing of the library is in use.
        unsafe { libc::dlclose(self.handle) };
    }
}

/// Why the system did not open a library.
fn last_error() -> String {
    // SAFETY: the answer is null or a NUL-terminated string that lives until the next call on this thread.
    let reason = unsafe {
        let reason = libc::dlerror();
        (!reason.is_null()).then(|| CStr::from_ptr(reason).to_string_lossy().into_owned())
    };
    reason.unwrap_or_else(|| "no reason given".to_owned())
}

/// Whether kernels of this score can run here. ggml asks the processor alone (0: it cannot); the registers of
/// wide vectors also need a system that saves them, which virtual machines and boot flags may prevent.
fn is_runnable(score: c_int) -> bool {
    score > 0 && registers_are_saved(score)
}

/// ggml adds a power of two to 1 for each extension: from bit 4 on AVX is among them, from bit 7 on AVX-512.
#[cfg(target_arch = "x86_64")]
fn registers_are_saved(score: c_int) -> bool {
    let extensions = score - 1;
    (extensions < 1 << 4 || std::arch::is_x86_feature_detected!("avx"))
        && (extensions < 1 << 7 || std::arch::is_x86_feature_detected!("avx512f"))
}

#[cfg(not(target_arch = "x86_64"))]
fn registers_are_saved(_: c_int) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_none_is_refused_with_the_reason() {
        let path = std::env::temp_dir().join(format!("libggml-cpu-none-{}.so", std::process::id()));
        std::fs::write(&path, "not a library").unwrap();
        let refused = Library::open(path.clone()).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(refused.path, path);
        assert!(refused.reason.contains("libggml-cpu-none"), "{}", refused.reason);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_that_does_not_judge_itself_is_refused() {
        let refused = Library::open("libm.so.6".into()).unwrap_err();
        assert!(refused.reason.contains("ggml_backend_score"), "{}", refused.reason);
    }

    #[test]
    fn kernels_for_other_processors_do_not_run() {
        assert!(!is_runnable(0));
        // SSE 4.2, as ggml counts it: every processor of the last fifteen years has it.
        assert!(is_runnable(1 + (1 << 2)));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn wide_registers_need_a_system_that_saves_them() {
        assert_eq!(is_runnable(1 + (1 << 4)), std::arch::is_x86_feature_detected!("avx"));
        assert_eq!(is_runnable(1 + (1 << 10)), std::arch::is_x86_feature_detected!("avx512f"));
    }
}
