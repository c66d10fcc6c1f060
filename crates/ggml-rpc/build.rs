//! Compiles ggml's RPC backend from the very source that `llama-cpp-sys-4` compiled, with a transport of ours
//! in the place of its own (`src/transport.cpp`), and with three changes: which weights are so small that
//! they are sent again with each load, which operations a device takes (`src/layers.cpp`), and with how many
//! threads graphs are computed (`src/graphs.cpp`).
//!
//! Not as a feature of the sys crate, which would build all of llama.cpp again, and with a transport that
//! opens ports.

#![expect(clippy::expect_used, reason = "a build script has no caller: a panic is its error message")]

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    const TRANSPORT: &str = "src/transport.cpp";
    const OURS: [&str; 2] = ["src/layers.cpp", "src/graphs.cpp"];
    for file in OURS.into_iter().chain([TRANSPORT, "src/hooks.h", "build.rs"]) {
        println!("cargo:rerun-if-changed={file}");
    }
    let ggml = llama_source().join("ggml");
    let rpc = ggml.join("src/ggml-rpc");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false).opt_level(2).define("NDEBUG", None);
    build.include(ggml.join("include")).include(ggml.join("src")).include(&rpc).include("src");
    build.file(changed(&rpc.join("ggml-rpc.cpp"))).files(OURS).file(rpc.join("log.cpp")).file(TRANSPORT);
    build.compile("hypura_ggml_rpc");
}

/// The source with our changes. Weights of 4 KiB and more are asked for by their hash: its own threshold of
/// 10 MiB leaves out a quarter of the weights of a usual model of 8 billion parameters. And operations
/// without weights are taken where their layer is: otherwise the scheduler gives a worker the end of the
/// layer before its own, with all that goes into it, in place of one hidden state. And graphs are computed
/// by a call of ours, so that their threads give way to other programs as those of local models do.
fn changed(source: &Path) -> PathBuf {
    // What is there, how often, and what is put there.
    const CHANGES: [(&str, usize, &str); 4] = [
        ("#include \"transport.h\"\n", 1, "#include \"transport.h\"\n#include \"hooks.h\"\n"),
        ("const size_t HASH_THRESHOLD = 10 * 1024 * 1024;", 1, "const size_t HASH_THRESHOLD = 4 * 1024 - 1;"),
        (
            "    GGML_UNUSED(dev);\n    GGML_UNUSED(op);\n    //TO\x44O: call the remote backend and cache the results\n    return true;",
            1,
            "    return hypura_rpc_takes(dev, op);",
        ),
        (
            "ggml_backend_graph_compute_async(backends[device], graph)",
            2,
            "hypura_rpc_compute(backends[device], graph)",
        ),
    ];
    println!("cargo:rerun-if-changed={}", source.display());
    let mut text = fs::read_to_string(source).expect("the build of llama-cpp-sys-4 leaves ggml's sources");
    for (theirs, count, ours) in CHANGES {
        assert!(text.matches(theirs).count() == count, "ggml-rpc.cpp is no longer what is changed: {theirs}");
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
