//! Flags that say how tokens are chosen.

use hypura_engine::SamplerOptions;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// How tokens are chosen. The defaults are the engine's.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How daring: 0 always takes the likeliest token [default: 0.8]
    #[arg(long, value_name = "T", value_parser = at_least_zero, help_heading = "Sampling")]
    temperature: Option<f32>,

    /// Choose among the K likeliest tokens; 0: among all [default: 40]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(i32).range(0..), help_heading = "Sampling")]
    top_k: Option<i32>,

    /// Choose among the likeliest tokens that together reach this probability [default: 0.9]
    #[arg(long, value_name = "P", value_parser = probability, help_heading = "Sampling")]
    top_p: Option<f32>,

    /// Drop tokens less likely than this fraction of the likeliest [default: 0]
    #[arg(long, value_name = "P", value_parser = probability, help_heading = "Sampling")]
    min_p: Option<f32>,

    /// Make recent tokens less likely; 1 is off [default: 1]
    #[arg(long, value_name = "X", value_parser = above_zero, help_heading = "Sampling")]
    repeat_penalty: Option<f32>,

    /// The same seed makes the same choices [default: random, told by --verbose]
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    seed: Option<u32>,
}

impl Args {
    pub(super) fn options(&self) -> SamplerOptions {
        let default = SamplerOptions::default();
        SamplerOptions {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(default.repeat_penalty),
            seed: self.seed.unwrap_or_else(random_seed),
            ..default
        }
    }
}

/// The standard library's hash keys are random for each process; no more is needed of a seed.
fn random_seed() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn number(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("it is no number".to_owned()),
    }
}

fn at_least_zero(text: &str) -> Result<f32, String> {
    number(text).and_then(|n| if n >= 0.0 { Ok(n) } else { Err("it must be 0 or more".to_owned()) })
}

fn above_zero(text: &str) -> Result<f32, String> {
    number(text).and_then(|n| if n > 0.0 { Ok(n) } else { Err("it must be more than 0".to_owned()) })
}

fn probability(text: &str) -> Result<f32, String> {
    number(text).and_then(|n| {
        if (0.0..=1.0).contains(&n) { Ok(n) } else { Err("it must be between 0 and 1".to_owned()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (parse, bad) in [
            (at_least_zero as fn(&str) -> _, "-0.1"),
            (at_least_zero, "NaN"),
            (at_least_zero, "inf"),
            (above_zero, "0"),
            (probability, "1.01"),
            (probability, "x"),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(probability("1"), Ok(1.0));
    }
}
