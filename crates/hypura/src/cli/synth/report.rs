//! What was written, and what could be: for people.

use anyhow::Context as _;
use hypura_core::plan::human_bytes;
use hypura_core::synth::{Quant, Shape, SynthOptions, SynthPlan};
use std::io::{self, Write as _};

use super::write::Written;

/// One line about a model that was written. `unique`: repeated bytes were asked for.
pub(super) fn summary(plan: &SynthPlan, written: &Written, seconds: f64, unique: bool) -> String {
    let total = human_bytes(plan.file_bytes());
    let rate = human_bytes((written.made_bytes as f64 / seconds.max(1e-3)) as u64);
    let parameters = people_count(plan.parameters());
    let mut text = format!("{total}, {parameters} parameters, written in {seconds:.1} s ({rate}/s)");
    if written.shared_bytes > 0 {
        text.push_str(&format!(
            "; {} of it are shared extents, the disk holds {}",
            human_bytes(written.shared_bytes),
            human_bytes(written.made_bytes)
        ));
    } else if unique {
        text.push_str(
            "; this file system shares no ranges of files (XFS, btrfs and bcachefs do; APFS only whole files), so all of \
             it was written: benchmarks/reflink-image.sh of the sources makes an XFS in a file",
        );
    }
    text
}

/// `30.5B`, as people count parameters.
fn people_count(count: u64) -> String {
    let count = count as f64;
    match count {
        _ if count >= 1e12 => format!("{:.2}T", count / 1e12),
        _ if count >= 1e9 => format!("{:.1}B", count / 1e9),
        _ => format!("{:.1}M", count / 1e6),
    }
}

/// Prints every shape with its parameters and its size in this quantisation.
///
/// # Errors
/// When standard output is gone.
pub(super) fn list(quant: Quant) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:<20} {:>10} {:>12}", "SHAPE", "PARAMETERS", quant.name())?;
    for shape in Shape::ALL {
        let plan = SynthPlan::new(&SynthOptions::new(*shape, quant))
            .with_context(|| format!("cannot plan {shape}"))?;
        let (parameters, size) = (people_count(plan.parameters()), human_bytes(plan.file_bytes()));
        writeln!(out, "{:<20} {parameters:>10} {size:>12}", shape.name())?;
    }
    let quants: Vec<&str> = Quant::ALL.iter().map(|quant| quant.name()).collect();
    writeln!(out, "\nQuantisations (--quant): {}", quants.join(", "))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_as_people_do() {
        assert_eq!(people_count(1_026_000_000_000), "1.03T");
        assert_eq!(people_count(30_532_000_000), "30.5B");
        assert_eq!(people_count(5_012_000), "5.0M");
    }
}
