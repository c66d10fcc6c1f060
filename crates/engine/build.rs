//! How the tests are linked: as the program is.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Backends that come as libraries (`hypura_ggml::libraries`) use the program's own copy of ggml. Without
    // a word to the linker a program exports nothing, and drops what it does not call itself.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        for names in ["ggml_*", "gguf_*", "quantize_*", "dequantize_*"] {
            println!("cargo:rustc-link-arg-tests=-Wl,--export-dynamic-symbol={names}");
        }
    }
}
