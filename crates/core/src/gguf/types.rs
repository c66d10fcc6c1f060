//! The tensor types of ggml: ids as stored in a GGUF, names as llama.cpp prints them, and block geometry.
//!
//! Facts are those of `ggml.h` (`enum ggml_type`), `ggml-common.h` (block layouts) and the `type_traits`
//! table of `ggml.c` in the llama.cpp that `llama-cpp-sys-4` 0.11.0 carries. Ids that ggml has retired are
//! not types here.

use std::fmt;

/// Builds the enum and its tables from one list, so that an id, a name and a geometry cannot drift apart.
macro_rules! ggml_types {
    ($($variant:ident = $id:literal, $name:literal, $elements:literal per $bytes:literal;)*) => {
        /// How the elements of a tensor are encoded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(non_camel_case_types, reason = "the names by which people know the quantisations")]
        pub enum GgmlType {
            $(
                #[doc = concat!("`", $name, "`: ", $bytes, " bytes for every ", $elements, " elements.")]
                $variant,
            )*
        }

        impl GgmlType {
            /// Every type, by ascending id.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Elements in one block; 1 for plain numbers.
            pub const fn block_elements(self) -> u64 {
                match self { $(Self::$variant => $elements,)* }
            }

            /// Bytes of one block.
            pub const fn block_bytes(self) -> u64 {
                match self { $(Self::$variant => $bytes,)* }
            }

            /// The type of a stored id; `None` for ids that ggml never had, has retired, or has added since.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// The id stored in files.
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)* }
            }

            /// llama.cpp's name, for instance `q4_K`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

ggml_types! {
    F32 = 0, "f32", 1 per 4;
    F16 = 1, "f16", 1 per 2;
    Q4_0 = 2, "q4_0", 32 per 18;
    Q4_1 = 3, "q4_1", 32 per 20;
    Q5_0 = 6, "q5_0", 32 per 22;
    Q5_1 = 7, "q5_1", 32 per 24;
    Q8_0 = 8, "q8_0", 32 per 34;
    Q8_1 = 9, "q8_1", 32 per 36;
    Q2_K = 10, "q2_K", 256 per 84;
    Q3_K = 11, "q3_K", 256 per 110;
    Q4_K = 12, "q4_K", 256 per 144;
    Q5_K = 13, "q5_K", 256 per 176;
    Q6_K = 14, "q6_K", 256 per 210;
    Q8_K = 15, "q8_K", 256 per 292;
    IQ2_XXS = 16, "iq2_xxs", 256 per 66;
    IQ2_XS = 17, "iq2_xs", 256 per 74;
    IQ3_XXS = 18, "iq3_xxs", 256 per 98;
    IQ1_S = 19, "iq1_s", 256 per 50;
    IQ4_NL = 20, "iq4_nl", 32 per 18;
    IQ3_S = 21, "iq3_s", 256 per 110;
    IQ2_S = 22, "iq2_s", 256 per 82;
    IQ4_XS = 23, "iq4_xs", 256 per 136;
    I8 = 24, "i8", 1 per 1;
    I16 = 25, "i16", 1 per 2;
    I32 = 26, "i32", 1 per 4;
    I64 = 27, "i64", 1 per 8;
    F64 = 28, "f64", 1 per 8;
    IQ1_M = 29, "iq1_m", 256 per 56;
    BF16 = 30, "bf16", 1 per 2;
    TQ1_0 = 34, "tq1_0", 256 per 54;
    TQ2_0 = 35, "tq2_0", 256 per 66;
    MXFP4 = 39, "mxfp4", 32 per 17;
    NVFP4 = 40, "nvfp4", 64 per 36;
    Q1_0 = 41, "q1_0", 128 per 18;
    Q2_0 = 42, "q2_0", 64 per 18;
    F8_E4M3 = 43, "f8_e4m3", 1 per 1;
}

impl GgmlType {
    /// Bytes of a row of `elements` elements; `None` when they are not whole blocks or the size overflows.
    pub const fn row_bytes(self, elements: u64) -> Option<u64> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// The type that most weights of a quantisation have, by its name in any case: `Q4_K_M`, `UD-Q2_K_XL`.
    #[must_use]
    pub fn of_quantization(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("ud-").unwrap_or(&name);
        let rest = |ty: &Self| name.strip_prefix(&ty.name().to_ascii_lowercase());
        let is_name = |ty: &&Self| rest(ty).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        Self::ALL.iter().filter(is_name).max_by_key(|ty| ty.name().len()).copied()
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_ascend() {
        for &ty in GgmlType::ALL {
            assert_eq!(GgmlType::from_id(ty.id()), Some(ty));
        }
        assert!(GgmlType::ALL.windows(2).all(|pair| pair[0].id() < pair[1].id()));
    }

    #[test]
    fn retired_and_unknown_ids_are_no_types() {
        for id in [4, 5, 31, 32, 33, 36, 37, 38, 44, u32::MAX] {
            assert_eq!(GgmlType::from_id(id), None, "id {id}");
        }
    }

    #[test]
    fn quantizations_are_known_by_name() {
        for (name, ty) in [
            ("Q4_K_M", GgmlType::Q4_K),
            ("UD-Q2_K_XL", GgmlType::Q2_K),
            ("q8_0", GgmlType::Q8_0),
            ("BF16", GgmlType::BF16),
            ("IQ2_XXS", GgmlType::IQ2_XXS),
            ("f16", GgmlType::F16),
        ] {
            assert_eq!(GgmlType::of_quantization(name), Some(ty), "{name}");
        }
        for name in ["", "Q", "Q9", "F1", "F161", "latest"] {
            assert_eq!(GgmlType::of_quantization(name), None, "{name}");
        }
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(GgmlType::Q4_K.row_bytes(512), Some(288));
        assert_eq!(GgmlType::Q4_K.row_bytes(0), Some(0));
        assert_eq!(GgmlType::Q4_K.row_bytes(100), None);
        assert_eq!(GgmlType::MXFP4.row_bytes(2880), Some(1530));
        assert_eq!(GgmlType::F64.row_bytes(u64::MAX), None);
    }
}
