//! `hypura doctor`: what of this machine helps or hinders, each with a verdict and a fix.

use hypura_core::plan::human_bytes;
use hypura_engine::doctor::{self, Finding, Verdict};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `hypura doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory whose disk is looked at
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Runs the subcommand. What is found is no failure of the program, so the exit code is 0.
///
/// # Errors
/// When the output cannot be written.
pub fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let mut findings = doctor::examine(&args.dir);
    findings.extend(stores());
    let mut text = String::new();
    for finding in &findings {
        render(&mut text, finding);
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

/// Folders in which other programs keep models, as they document them.
fn stores() -> Vec<Finding> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let at_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let places = [
        ("Ollama", named("OLLAMA_MODELS").or_else(|| at_home(".ollama/models"))),
        (
            "Hugging Face",
            named("HF_HUB_CACHE")
                .or_else(|| named("HF_HOME").map(|home| home.join("hub")))
                .or_else(|| at_home(".cache/huggingface/hub")),
        ),
        ("LM Studio", at_home(".lmstudio/models")),
        ("LM Studio", at_home(".cache/lm-studio/models")),
    ];
    let found =
        places.into_iter().filter_map(|(name, path)| Some((name, path.filter(|path| path.is_dir())?)));
    let findings: Vec<Finding> = found
        .map(|(name, path)| Finding {
            what: "models",
            verdict: Verdict::Good,
            found: format!("{name}: {} ({} free there)", path.display(), free(&path)),
            fix: None,
        })
        .collect();
    if findings.is_empty() {
        let found = "no store of Ollama, Hugging Face or LM Studio".to_owned();
        return vec![Finding { what: "models", verdict: Verdict::Good, found, fix: None }];
    }
    findings
}

fn free(path: &std::path::Path) -> String {
    hypura_engine::machine::free_bytes(path).map_or("?".to_owned(), human_bytes)
}
