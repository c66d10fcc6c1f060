//! `hypura trace replay`: which traces, caches and machine, and where the answer goes.

use anyhow::Context as _;
use clap::ValueEnum;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use super::simulate::{Asked, CacheSizes, Policy, Report, simulate};
use super::{figure, table};
use crate::bench::read_trace;
use crate::cli::size::parse_bytes;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PolicyArg {
    /// All of them
    All,
    /// The one used least often of late; the default of `hypura run`
    Lfru,
    /// The one not used for longest
    Lru,
    /// Three queues
    S3fifo,
    /// The one needed again last: the optimum, for those who know the future
    Belady,
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

impl PolicyArg {
    const fn policies(self) -> &'static [Policy] {
        match self {
            Self::All => &Policy::ALL,
            Self::Lfru => &[Policy::LFRU],
            Self::Lru => &[Policy::LRU],
            Self::S3fifo => &[Policy::S3_FIFO],
            Self::Belady => &[Policy::Belady],
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

/// Bytes a second. Disks are sold and measured in powers of 1000, so GB is 10⁹ here, and GiB is 2³⁰.
fn rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is no rate of a disk: write it like 2GB/s or 900MB/s");
    let amount = text.trim().trim_end_matches("/s").trim_end();
    let digits = amount.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(amount.len());
    let (number, unit) = amount.split_at(digits);
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        _ => return Err(wrong()),
    };
    let rate = number.parse::<f64>().map_err(|_| wrong())? * unit;
    if rate.is_finite() && rate >= 1.0 { Ok(rate) } else { Err(wrong()) }
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
