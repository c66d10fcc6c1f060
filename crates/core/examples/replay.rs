//! Hit rates of the eviction policies on recorded routing traces.
//!
//! `cargo run --release -p hypura-core --example replay -- [--ubatch N] TRACE.jsonl...` prints, for each
//! trace and cache size (share of all experts), the hit rate over the whole trace and over its generated
//! tokens. Traces are plain JSON lines; decompress them first, for example `replay <(zcat trace.jsonl.gz)`.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;

use hypura_core::cache::{Admission, EvictionPolicy, ExpertCache, PolicyKind};
use hypura_core::sim::{Replay, ReplayOptions, belady_for, replay};
use hypura_core::trace::{Trace, TraceReader};

/// Cache sizes in per mille of all experts.
const SHARES: [u64; 6] = [25, 50, 100, 250, 500, 750];

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = ReplayOptions::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--ubatch" {
            options.ubatch_tokens = arguments.next().ok_or("--ubatch needs a number")?.parse()?;
            continue;
        }
        let trace = TraceReader::new(BufReader::new(File::open(&argument)?))?.into_trace()?;
        print_table(&trace, options);
    }
    Ok(())
}

fn print_table(trace: &Trace, options: ReplayOptions) {
    let header = &trace.header;
    let experts = u64::from(header.layers) * u64::from(header.experts);
    println!("{}: {} tokens, {experts} experts", header.model, trace.tokens.len());
    println!(
        "one token uses {} experts; hit % of all tokens / of generated tokens",
        header.layers * header.used
    );
    print!("{:>16}", "cache");
    for share in SHARES {
        print!("{:>14}", format!("{}%", share as f64 / 10.0));
    }
    println!();
    let lfru = |slots| PolicyKind::Lfru.build(slots, header.layers);
    let belady = |slots| -> Box<dyn EvictionPolicy + Send> { Box::new(belady_for(trace, slots, options)) };
    for kind in PolicyKind::ALL {
        print_row(trace, options, Admission::Always, kind.name(), |slots| kind.build(slots, header.layers));
    }
    print_row(trace, options, Admission::Always, "belady", belady);
    print_row(trace, options, Admission::IfWorth, "lfru if-worth", lfru);
    print_row(trace, options, Admission::IfWorth, "belady if-worth", belady);
}

fn print_row(
    trace: &Trace,
    options: ReplayOptions,
    admission: Admission,
    name: &str,
    policy: impl Fn(u32) -> Box<dyn EvictionPolicy + Send>,
) {
    print!("{name:>16}");
    for share in SHARES {
        let slots = u64::from(trace.header.layers) * u64::from(trace.header.experts) * share / 1000;
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let mut cache = ExpertCache::new(slots, policy(slots)).with_admission(admission);
        print!("{:>14}", cell(&replay(trace, &mut cache, options)));
    }
    println!();
}

fn cell(result: &Replay) -> String {
    let percent = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{:.1}", rate * 100.0));
    format!("{} / {}", percent(result.hit_rate()), percent(result.decode.hit_rate()))
}
