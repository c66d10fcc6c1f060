//! Generates Rust bindings of ggml's backend interface (`ggml-backend-impl.h`) and graph layout
//! (`ggml-impl.h`) from the headers of the very source that `llama-cpp-sys-4` compiled, so that they cannot
//! drift from what is linked; and compiles its mtmd library and the C border to it.

#![expect(clippy::expect_used, reason = "a build script has no caller: a panic is its error message")]

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Everything else these headers mention comes from `llama_cpp_sys_4` itself.
const TYPES: &[&str] = &[
    "ggml_backend_buffer_type_i",
    "ggml_backend_buffer_type",
    "ggml_backend_buffer_i",
    "ggml_backend_buffer",
    "ggml_backend_i",
    "ggml_backend",
    "ggml_backend_device_i",
    "ggml_backend_device",
    "ggml_backend_reg_i",
    "ggml_backend_reg",
    "ggml_backend_graph_optimize_params",
    "ggml_cgraph",
    "ggml_hash_set",
    "ggml_bitset_t",
    "ggml_cgraph_eval_order",
];
const FUNCTIONS: &[&str] = &["ggml_backend_buffer_init", "ggml_graph_view"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let llama = llama_source();
    build_crash(&llama);
    build_without_amx(&llama);
    build_media(&llama);
    let ggml = llama.join("ggml");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let header = out.join("abi.h");
    fs::write(&header, "#include \"ggml-backend-impl.h\"\n#include \"ggml-impl.h\"\n").expect("write abi.h");

    let mut builder = bindgen::Builder::default()
        .header(path_text(&header))
        .clang_arg(format!("-I{}", path_text(&ggml.join("include"))))
        .clang_arg(format!("-I{}", path_text(&ggml.join("src"))))
        .allowlist_recursively(false)
        .prepend_enum_name(false)
        .derive_debug(false)
        .layout_tests(true)
        .use_core()
        .allowlist_var("GGML_BACKEND_API_VERSION")
        .rust_edition(bindgen::RustEdition::Edition2024)
        .raw_line("use llama_cpp_sys_4::*;");
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    let bindings = builder.generate().expect("bindgen could not read the backend interface of ggml");
    bindings.write_to_file(out.join("abi.rs")).expect("write abi.rs");
}

/// The last words of a process that C++ ends: `src/crash.cpp`.
fn build_crash(llama: &Path) {
    const SOURCE: &str = "src/crash.cpp";
    println!("cargo:rerun-if-changed={SOURCE}");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file(SOURCE).include(llama.join("ggml/include")).compile("hypura_crash");
}

/// What keeps ggml from AMX: `src/amx.cpp` says why.
fn build_without_amx(llama: &Path) {
    const SOURCE: &str = "src/amx.cpp";
    println!("cargo:rerun-if-changed={SOURCE}");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file(SOURCE).include(llama.join("ggml/include")).compile("hypura_amx");
}

/// llama.cpp's mtmd library, and our C border to it (`src/media/shim.cpp`): its interface is C++ in part, and
/// throws.
///
/// Compiled here and not by the sys crate, whose feature for it builds all of llama.cpp's programs too, and
/// helpers that hand what they cannot read to an ffmpeg of the system. Pictures are decoded in Rust
/// (`engine::media`).
fn build_media(llama: &Path) {
    const SHIM: &str = "src/media/shim.cpp";
    println!("cargo:rerun-if-changed={SHIM}");
    let mtmd = llama.join("tools/mtmd");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).opt_level(3).define("NDEBUG", None).file(SHIM);
    for folder in ["include", "ggml/include", "src", "tools/mtmd", "vendor"] {
        build.include(llama.join(folder));
    }
    // Without its helpers, which decode pictures and sounds in C, and its programs.
    for file in ["clip.cpp", "mtmd.cpp", "mtmd-audio.cpp", "mtmd-image.cpp"] {
        build.file(mtmd.join(file));
    }
    build.files(sources(&mtmd.join("models")));
    build.compile("hypura_media");
}

/// The C++ files of a folder, in an order that is always the same.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the source of llama.cpp has its mtmd library");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cpp"));
    files.sort();
    files
}

/// The llama.cpp that was compiled: the source folder in the CMake cache of the sys crate's build, whose
/// place cargo hands us because that crate has `links = "llama"`.
fn llama_source() -> PathBuf {
    let root = env::var_os("DEP_LLAMA_ROOT").expect("llama-cpp-sys-4 tells cargo where it built llama.cpp");
    let cache = Path::new(&root).join("build/CMakeCache.txt");
    println!("cargo:rerun-if-changed={}", cache.display());
    let text = fs::read_to_string(&cache).expect("the build of llama-cpp-sys-4 leaves a CMakeCache.txt");
    let source = text.lines().find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    PathBuf::from(source.expect("CMakeCache.txt names its source folder"))
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("the build folder's path is UTF-8").to_owned()
}
