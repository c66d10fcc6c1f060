//! Compiles ggml's RPC backend from the very source that `llama-cpp-sys-4` compiled, with a transport of ours
//! in the place of its own (`src/transport.cpp`).
//!
//! Not as a feature of the sys crate, which would build all of llama.cpp again, and with a transport that
//! opens ports.

#![expect(clippy::expect_used, reason = "a build script has no caller: a panic is its error message")]

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    const TRANSPORT: &str = "src/transport.cpp";
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={TRANSPORT}");
    let ggml = llama_source().join("ggml");
    let rpc = ggml.join("src/ggml-rpc");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).opt_level(2).define("NDEBUG", None);
    build.include(ggml.join("include")).include(ggml.join("src")).include(&rpc);
    build.file(rpc.join("ggml-rpc.cpp")).file(rpc.join("log.cpp")).file(TRANSPORT);
    build.compile("hypura_ggml_rpc");
}

/// The source folder in the CMake cache of the sys crate's build (as in `crates/ggml/build.rs`).
fn llama_source() -> PathBuf {
    let root = env::var_os("DEP_LLAMA_ROOT").expect("llama-cpp-sys-4 tells cargo where it built llama.cpp");
    let cache = Path::new(&root).join("build/CMakeCache.txt");
    println!("cargo:rerun-if-changed={}", cache.display());
    let text = fs::read_to_string(&cache).expect("the build of llama-cpp-sys-4 leaves a CMakeCache.txt");
    let source = text.lines().find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    PathBuf::from(source.expect("CMakeCache.txt names its source folder"))
}
