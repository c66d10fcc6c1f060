//! Compiles ggml's RPC backend from the very source that `llama-cpp-sys-4` compiled, with a transport of ours
//! in the place of its own (`src/transport.cpp`), and with two changes: which weights are so small that they
//! are sent again with each load, and which operations a device takes (`src/layers.cpp`).
//!
//! Not as a feature of the sys crate, which would build all of llama.cpp again, and with a transport that
//! opens ports.

#![expect(clippy::expect_used, reason = "a build script has no caller: a panic is its error message")]

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    const TRANSPORT: &str = "src/transport.cpp";
    const LAYERS: &str = "src/layers.cpp";
    println!("cargo:rerun-if-changed={LAYERS}");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={TRANSPORT}");
    let ggml = llama_source().join("ggml");
    let rpc = ggml.join("src/ggml-rpc");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).opt_level(2).define("NDEBUG", None);
    build.include(ggml.join("include")).include(ggml.join("src")).include(&rpc);
    build.file(changed(&rpc.join("ggml-rpc.cpp"))).file(LAYERS).file(rpc.join("log.cpp")).file(TRANSPORT);
    build.compile("hypura_ggml_rpc");
}

/// The source with our changes. Weights of 4 KiB and more are asked for by their hash: its own threshold of
/// 10 MiB leaves out a quarter of the weights of a usual model of 8 billion parameters. And operations
/// without weights are taken where their layer is: otherwise the scheduler gives a worker the end of the
/// layer before its own, with all that goes into it, in place of one hidden state.
fn changed(source: &Path) -> PathBuf {
    const CHANGES: [(&str, &str); 2] = [
        ("const size_t HASH_THRESHOLD = 10 * 1024 * 1024;", "const size_t HASH_THRESHOLD = 4 * 1024 - 1;"),
        (
            "    GGML_UNUSED(dev);\n    GGML_UNUSED(op);\n    //TO\x44O: call the remote backend and cache the results\n    return true;",
            "    extern bool hypura_rpc_takes(ggml_backend_dev_t dev, const ggml_tensor * op);\n    return hypura_rpc_takes(dev, op);",
        ),
    ];
    println!("cargo:rerun-if-changed={}", source.display());
    let mut text = fs::read_to_string(source).expect("the build of llama-cpp-sys-4 leaves ggml's sources");
    for (theirs, ours) in CHANGES {
        assert!(text.matches(theirs).count() == 1, "ggml-rpc.cpp is no longer what is changed: {theirs}");
        text = text.replace(theirs, ours);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("ggml-rpc.cpp");
    fs::write(&out, text).expect("OUT_DIR can be written");
    out
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
