//! `hypura trace replay`: which traces, caches and machine, and where the answer goes.

use anyhow::Context as _;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::simulate::{Asked, CacheSizes, Policy, Report, simulate};
use super::{figure, table};
use crate::bench::read_trace;
use crate::cli::flags::{decimal_rate, parse_bytes};

/// Flags of `hypura trace replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Traces, plain or compressed with gzip
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Which policies, several with commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all", value_name = "POLICY,…")]
    policy: Vec<PolicyArg>,

    /// Sizes of the cache in percent of all experts, several with commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "5,10,25,50",
        value_name = "PERCENT,…",
        value_parser = percent,
        conflicts_with = "cache"
    )]
    fraction: Vec<f64>,

    /// Sizes of the cache in bytes instead: 4GiB,8GiB
    #[arg(long, value_delimiter = ',', value_name = "SIZE,…", value_parser = parse_bytes)]
    cache: Vec<u64>,

    /// Predict tokens per second from a disk of this rate: 2GB/s, 900MB/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    disk: Option<f64>,

    /// Milliseconds of computing for one token, for the prediction [default: none, so only the disk limits]
    #[arg(long, value_name = "MS", value_parser = milliseconds, requires = "disk")]
    compute_ms: Option<f64>,

    /// Tokens of the prompt that are computed at once
    #[arg(long, default_value_t = 512, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ubatch: u32,

    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,

    /// Draw the curves, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// `--policy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PolicyArg {
    All,
    One(Policy),
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let asked = args.asked();
    let mut report = Report::new(&asked);
    let mut curves = Vec::new();
    for path in &args.files {
        let trace = read_trace(path)?;
        let told = || format!("the trace {}", path.display());
        report.traces.push(simulate(path, &trace, &asked).with_context(told)?);
        if args.svg.is_some() {
            let points = Asked { sizes: figure::sizes(&asked.sizes, &trace), ..asked.clone() };
            curves.push(simulate(path, &trace, &points).with_context(told)?);
        }
    }
    if let Some(path) = &args.svg {
        let text = figure::figure(&report, &curves).svg();
        fs::write(path, text).with_context(|| format!("cannot write the curves to {}", path.display()))?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(out, "{}", table::text(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn asked(&self) -> Asked {
        let sizes = if self.cache.is_empty() {
            CacheSizes::Percent(self.fraction.clone())
        } else {
            CacheSizes::Bytes(self.cache.clone())
        };
        let mut policies = Vec::new();
        for policy in self.policy.iter().flat_map(|policy| policy.policies()) {
            if !policies.contains(policy) {
                policies.push(*policy);
            }
        }
        Asked {
            policies,
            sizes,
            ubatch: self.ubatch,
            disk_bytes_per_s: self.disk,
            compute_ms: self.compute_ms,
        }
    }
}

impl ValueEnum for PolicyArg {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::All,
            Self::One(Policy::LFRU),
            Self::One(Policy::LRU),
            Self::One(Policy::S3_FIFO),
            Self::One(Policy::Belady),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::All => PossibleValue::new("all").help("All of them"),
            Self::One(policy) => PossibleValue::new(policy.name()).help(policy.about()),
        })
    }
}

impl PolicyArg {
    const fn policies(&self) -> &[Policy] {
        match self {
            Self::All => &Policy::ALL,
            Self::One(policy) => std::slice::from_ref(policy),
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err(format!("`{text}` is no share of the experts: above 0 and up to 100, like 25 or 2.5%")),
    }
}

fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ms) if ms.is_finite() && ms >= 0.0 => Ok(ms),
        _ => Err(format!("`{text}` is no number of milliseconds")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let amount = text.trim().trim_end_matches("/s").trim_end();
    let rate = decimal_rate(amount).filter(|rate| rate.is_finite() && *rate >= 1.0);
    rate.ok_or_else(|| format!("`{text}` is no rate of a disk: write it like 2GB/s or 900MB/s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_decimal_unless_they_say_otherwise() {
        for text in ["2GB/s", "2 GB/s", "2g", "2000MB/s", "2000000000"] {
            assert_eq!(rate(text), Ok(2e9), "{text}");
        }
        assert_eq!(rate("1GiB/s"), Ok(1_073_741_824.0));
        for text in ["", "GB/s", "-1GB/s", "0", "2XB/s", "inf", "1e999"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_above_nothing_and_up_to_all() {
        assert_eq!(percent("2.5%"), Ok(2.5));
        assert_eq!(percent("100"), Ok(100.0));
        for text in ["0", "-5", "101", "NaN", "x", ""] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
