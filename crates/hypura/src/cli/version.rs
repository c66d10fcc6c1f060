//! What `--version` says.

use hypura_engine::system;

/// `-V`
pub(super) fn short() -> String {
    format!("hypura {}", env!("CARGO_PKG_VERSION"))
}

/// `--version`: also which llama.cpp is inside, and what it was compiled for.
pub(super) fn long() -> String {
    let features = system::compiled_features();
    // `CPU : AVX = 1 | AVX2 = 1 |`: what is not there is not listed.
    let features = features.replace(" = 1", "").replace(" | ", " ");
    let features = features.trim_start_matches("CPU : ").trim_end_matches([' ', '|']);
    let chosen = system::kernels().map(|name| format!(" ({name})")).unwrap_or_default();
    format!(
        "{}\nllama.cpp with ggml {}, linked statically; its kernels{chosen} are for a CPU with {features}",
        short(),
        system::ggml_version()
    )
}
