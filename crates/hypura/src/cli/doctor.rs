//! `hypura doctor`: what of this machine helps or hinders, each with a verdict and a fix.

use anyhow::Context as _;
use hypura_core::plan::human_bytes;
use hypura_engine::doctor::{self, Finding, Verdict};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use hypura_store::Store;

/// Arguments of `hypura doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory whose disk is looked at
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand. What is found is no failure of the program, so the exit code is 0.
///
/// # Errors
/// When the directory is not there, or the output cannot be written.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    args.dir.metadata().with_context(|| format!("cannot look at {}", args.dir.display()))?;
    let mut findings = doctor::examine(&args.dir);
    findings.extend(hypura_server::runner::available());
    findings.extend(stores());
    let mut text = String::new();
    if args.json {
        text = serde_json::to_string_pretty(&findings)? + "\n";
    } else {
        findings.iter().for_each(|finding| render(&mut text, finding));
    }
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn render(out: &mut String, finding: &Finding) {
    let mark = match finding.verdict {
        Verdict::Good => "ok  ",
        Verdict::Slow => "slow",
        Verdict::Bad => "bad ",
        Verdict::Unknown => "?   ",
    };
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{mark} {:<14} {}", finding.what, finding.found);
    if let Some(fix) = &finding.fix {
        let _ = writeln!(out, "     {:<14} → {fix}", "");
    }
}

/// The folders with models, and what of them cannot be used.
fn stores() -> Vec<Finding> {
    let store = Store::of_environment();
    let listing = store.list();
    let mut findings: Vec<Finding> = Vec::new();
    let mut all = 0;
    for (origin, path) in store.places().existing() {
        let models = listing.models.iter().filter(|model| model.origin == origin).count();
        all += models;
        let skipped = listing.skipped.iter().filter(|skipped| skipped.origin == origin).count();
        let mut found = format!(
            "{origin}: {models} model{} in {} ({} free there)",
            if models == 1 { "" } else { "s" },
            path.display(),
            free(path)
        );
        if skipped > 0 {
            found.push_str(&format!(", {skipped} cannot be used"));
        }
        findings.push(if skipped > 0 {
            Finding::new("models", Verdict::Bad, found).fix("`hypura list --verbose` says which and why")
        } else {
            Finding::new("models", Verdict::Good, found)
        });
    }
    if all == 0 {
        let found = "no model of Hypura, Ollama, Hugging Face or LM Studio on this machine";
        let fix = "name a GGUF file; or begin with the model that comes along: hypura run demo";
        findings.push(Finding::new("models", Verdict::Unknown, found).fix(fix));
    }
    findings
}

fn free(path: &std::path::Path) -> String {
    hypura_engine::machine::free_bytes(path).map_or("?".to_owned(), human_bytes)
}
