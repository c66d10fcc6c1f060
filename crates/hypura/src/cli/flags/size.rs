//! Sizes as people write them: `8GiB`, `8G`, `512MiB`, `1000000`, `60%`.

use hypura_core::plan::CacheSize;
use std::str::FromStr;

/// What `--memory` takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MemorySize {
    /// Bytes.
    Bytes(u64),
    /// Percent of the machine's memory, or of the limit on this process where that is smaller.
    Percent(f64),
}

impl MemorySize {
    /// The size on a machine with this much memory.
    #[must_use]
    pub fn of(self, machine_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (machine_bytes as f64 * (percent / 100.0)) as u64,
        }
    }
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = match parse_percent(text)? {
            Some(percent) => Self::Percent(percent),
            None => Self::Bytes(parse_bytes(text)?),
        };
        let nothing = matches!(size, Self::Bytes(0)) || size == Self::Percent(0.0);
        if nothing { Err("nothing runs in no memory".to_owned()) } else { Ok(size) }
    }
}

/// What `--stream-cache` takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheSizeArg(pub CacheSize);

impl FromStr for CacheSizeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match parse_percent(text)? {
            Some(percent) => CacheSize::Percent(percent),
            None => CacheSize::Bytes(parse_bytes(text)?),
        }))
    }
}

/// Reads a number of bytes with an optional unit. Units are powers of 1024, with or without `iB` or `B`; that
/// is what memory is counted in.
///
/// # Errors
/// What would have been right.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write it like 8GiB, 512MiB or 1000000");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(wrong);
    }
    let value: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = value * (1u64 << shift) as f64;
    // The bound is exact in f64; from there on the conversion would saturate.
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Bytes per second as disks are sold: in powers of 1000, so `GB/s` is one; `GiB/s` is a power of 1024. What
/// follows the number is `unit` of them, with or without its `B`, or nothing for bytes. `None` for what is no
/// such rate, or none at all.
pub fn decimal_rate(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1024.0 * 1024.0,
        "gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * unit)
}

fn parse_percent(text: &str) -> Result<Option<f64>, String> {
    let Some(number) = text.strip_suffix('%') else { return Ok(None) };
    match number.trim_end().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Some(percent)),
        _ => Err(format!("`{text}` is no share: write it like 60%, between 0% and 100%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for text in ["8GiB", "8G", "8g", "8 GiB", "8gb", "8589934592", "8192MiB", "8.0G"] {
            assert_eq!(parse_bytes(text), Ok(8 << 30), "{text}");
        }
        assert_eq!(parse_bytes("1.5k"), Ok(1536));
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "G", "-1", "1e3", "1.2.3", "8GiBs", "8XB", "99999999T", "18446744073709551616", "∞"]
        {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_of_the_machine() {
        assert_eq!("60%".parse(), Ok(MemorySize::Percent(60.0)));
        assert_eq!(MemorySize::Percent(60.0).of(1000), 600);
        assert_eq!(MemorySize::Bytes(7).of(1000), 7);
        assert_eq!("33%".parse(), Ok(CacheSizeArg(CacheSize::Percent(33.0))));
        assert_eq!("0".parse(), Ok(CacheSizeArg(CacheSize::Bytes(0))));
        for text in ["101%", "-1%", "NaN%", "%", "0%", "0"] {
            assert!(text.parse::<MemorySize>().is_err(), "{text}");
        }
    }
}
