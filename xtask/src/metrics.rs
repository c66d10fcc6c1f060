//! Figures of the code (`cargo xtask metrics`): one table that can be compared from commit to commit, and
//! with other code bases. They judge nothing; what must hold is `tidy`'s business.
//!
//! Everything is counted over `crates/*/src` without tests: files, modules and items that exist under
//! `#[cfg(test)]` are left out. A function has the lines from `fn` to its closing brace; an import cycle is a
//! set of modules that can all reach each other over `use crate::…`, `super::…` and such paths in code, where
//! a path leads to the module that defines what it names, and re-exports do not count.

mod counts;
pub(crate) mod cycles;

use std::fmt;

use anyhow::Result;

use crate::modules;
use crate::tidy::types;
use crate::tree::Tree;
use counts::Counts;
use cycles::Cycle;

/// Types that are listed.
const LARGEST_TYPES: usize = 10;

/// What was counted.
pub(crate) struct Metrics {
    counts: Counts,
    /// By crate folder.
    cycles: Vec<(String, Vec<Cycle>)>,
    /// Lines of `impl` blocks, largest first.
    types: Vec<(String, usize)>,
}

impl Metrics {
    pub(crate) fn of(tree: &Tree) -> Result<Self> {
        let mut counts = Counts::default();
        let mut cycles = Vec::new();
        let mut types = Vec::new();
        for found in modules::crates(tree)?.iter().filter(|found| found.folder.starts_with("crates/")) {
            counts.add(tree, found)?;
            cycles.push((found.folder.clone(), cycles::find(found)));
            types.extend(
                types::measure(found).into_iter().map(|measured| (measured.key, measured.length_lines)),
            );
        }
        types.sort_by(|(_, one), (_, other)| other.cmp(one));
        types.truncate(LARGEST_TYPES);
        Ok(Self { counts, cycles, types })
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { files, functions, lines, doc_lines, unwraps, unsafe_blocks, wide_lines } = &self.counts;
        writeln!(
            f,
            "| files | median file | fn median | p99 | max | doc | unwrap/expect | unsafe blocks | >100 col |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        writeln!(
            f,
            "| {} | {} | {} | {} | {} | {:.0}% | {unwraps} | {unsafe_blocks} | {:.1}% |",
            files.len(),
            quantile(files, 0.5),
            quantile(functions, 0.5),
            quantile(functions, 0.99),
            quantile(functions, 1.0),
            percent(*doc_lines, *lines),
            percent(*wide_lines, *lines),
        )?;
        let count: usize = self.cycles.iter().map(|(_, cycles)| cycles.len()).sum();
        writeln!(f, "\nImport cycles: {count}")?;
        for (folder, cycles) in &self.cycles {
            for cycle in cycles {
                writeln!(f, "- {folder}, {} modules: {}", cycle.modules.len(), cycle.modules.join(", "))?;
                for edge in &cycle.edges {
                    writeln!(f, "  - {edge}")?;
                }
            }
        }
        writeln!(f, "\nLines of impl blocks of the largest types:")?;
        for (name, lines) in &self.types {
            writeln!(f, "- {name}: {lines}")?;
        }
        Ok(())
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / (whole as f64).max(1.0)
}

/// The value below or at which this share of the values lies; 0 of none.
fn quantile(values: &[usize], share: f64) -> usize {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
