//! `--what-if disk=7GB/s,memory=64GiB,compute=2x,hits=80%,quant=Q8_0`.

use hypura_core::gguf::GgmlType;
use hypura_core::plan::WhatIf;
use std::str::FromStr;

use crate::cli::flags::{decimal_rate, parse_bytes};

/// What `--what-if` takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WhatIfArg(pub WhatIf);

impl FromStr for WhatIfArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut what_if = WhatIf::default();
        for fact in text.split(',') {
            let (name, value) = fact.trim().split_once('=').ok_or_else(|| {
                format!("`{fact}` is no fact: write it like disk=7GB/s, memory=64GiB, compute=2x or hits=80%")
            })?;
            let value = value.trim();
            let known = match name.trim() {
                "disk" => what_if.disk_bytes_per_s.replace(rate(value)?).is_some(),
                "memory" => what_if.memory_bytes.replace(parse_bytes(value)?).is_some(),
                "compute" => what_if.compute_factor.replace(factor(value)?).is_some(),
                "hits" => what_if.hit_rate.replace(share(value)?).is_some(),
                "quant" => what_if.weights.replace(quantization(value)?).is_some(),
                other => {
                    return Err(format!(
                        "`{other}` is not known here: there are disk, memory, compute, hits and quant"
                    ));
                }
            };
            if known {
                return Err(format!("`{}` is given twice", name.trim()));
            }
        }
        what_if.check().map_err(|error| error.to_string())?;
        Ok(Self(what_if))
    }
}

/// A rate with its unit: a bare number may mean anything.
fn rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is no speed of a disk: write it like 7GB/s or 500MB/s");
    let amount = text.strip_suffix("/s").ok_or_else(wrong)?.trim_end();
    decimal_rate(amount).filter(|_| amount.ends_with(['b', 'B'])).ok_or_else(wrong)
}

fn factor(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text);
    number.parse().map_err(|_| format!("`{text}` is no factor: write it like 2x"))
}

fn quantization(text: &str) -> Result<GgmlType, String> {
    GgmlType::of_quantization(text)
        .ok_or_else(|| format!("`{text}` is no quantisation: write it like Q4_K_M"))
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    percent.map(|percent| percent / 100.0).ok_or_else(|| format!("`{text}` is no share: write it like 80%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_people_write_them() {
        let facts: WhatIfArg = "disk=7GB/s, memory=64GiB,compute=1.5x,hits=80%,quant=q8_0".parse().unwrap();
        let expected = WhatIf {
            disk_bytes_per_s: Some(7e9),
            memory_bytes: Some(64 << 30),
            compute_factor: Some(1.5),
            hit_rate: Some(0.8),
            weights: Some(GgmlType::Q8_0),
        };
        assert_eq!(facts.0, expected);
        assert_eq!(rate("500 MiB/s"), Ok(500.0 * 1024.0 * 1024.0));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = [
            "",
            "disk",
            "disk=",
            "disk=7",
            "disk=7GB",
            "disk=0GB/s",
            "disk=-1GB/s",
            "disk=9999TB/s",
            "disk=fast/s",
            "memory=0",
            "memory=1e9",
            "memory=lots",
            "compute=0x",
            "compute=NaN",
            "hits=2",
            "hits=101%",
            "gpu=1",
            "disk=1GB/s,disk=2GB/s",
            "disk=1GB/s,",
            "hits=NaN%",
            "quant=Q9",
            "quant=",
        ];
        for text in wrong {
            assert!(text.parse::<WhatIfArg>().is_err(), "{text}");
        }
    }
}
