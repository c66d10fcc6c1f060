//! The quantisation that a file name tells.

use hypura_core::gguf::ShardName;

/// The quantisation that a file name ends with, in capitals: `Q4_K_M`, `UD-IQ2_XXS`, `BF16`, `MXFP4`.
pub(super) fn quantization_in(file: &str) -> Option<String> {
    let shard = ShardName::parse(file);
    let stem = shard.as_ref().map_or(file, |shard| &shard.prefix);
    let stem = stem.strip_suffix(".gguf").unwrap_or(stem);
    let (before, word) = stem.rsplit_once(['-', '.']).unwrap_or(("", stem));
    let word = word.to_ascii_uppercase();
    if !is_quantization(&word) {
        return None;
    }
    let dynamic = before.len() > 3 && before.to_ascii_uppercase().ends_with("-UD");
    Some(if dynamic { format!("UD-{word}") } else { word })
}

fn is_quantization(word: &str) -> bool {
    if matches!(word, "F16" | "F32" | "BF16" | "FP16" | "MXFP4" | "MXFP4_MOE") {
        return true;
    }
    let digits = ["IQ", "TQ", "Q"].iter().find_map(|start| word.strip_prefix(start));
    digits.is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantisations_are_read_from_file_names() {
        for (file, quant) in [
            ("Qwen3-30B-A3B-Q4_K_M.gguf", Some("Q4_K_M")),
            ("model.q8_0.gguf", Some("Q8_0")),
            ("GLM-4.6-UD-IQ2_XXS-00001-of-00003.gguf", Some("UD-IQ2_XXS")),
            ("x-bf16.gguf", Some("BF16")),
            ("gpt-oss-120b-mxfp4.gguf", Some("MXFP4")),
            ("Q4_0.gguf", Some("Q4_0")),
            ("Qwen3-30B.gguf", None),
            ("model-Quick.gguf", None),
            ("tinyllama.gguf", None),
        ] {
            assert_eq!(quantization_in(file).as_deref(), quant, "{file}");
        }
    }
}
