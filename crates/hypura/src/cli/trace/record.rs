//! `hypura trace record`: a run like any other, with its routes written down.

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use hypura_core::trace::{TraceError, TraceHeader, TraceToken, TraceWriter};
use hypura_engine::source::ModelSource;
use hypura_engine::stream::{RouteLog, trace_header};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::run;
use crate::cli::style::Style;

/// Flags of `hypura trace record`: those of `hypura run`, and where the trace goes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    run: run::Args,

    /// Where the trace goes; compressed if the name ends in .gz
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the model and writes the trace, also when the run was stopped. Nothing is written when it failed.
pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let path = args.run.model_path()?;
    let shape = ModelSource::open(&path)?.shape;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = shape.name.clone().or(stem).unwrap_or_default();
    let header = trace_header(&name, &shape).with_context(|| {
        format!("{} has no routed experts, so there is nothing to record", path.display())
    })?;
    let file = NewFile::create(&args.out)?;
    let log = RouteLog::default();
    let code = run::execute_recorded(&args.run, &log)?;
    let tokens = log.take();
    file.fill(header, &tokens)?;
    let text = format!("routes of {} tokens written to {}", tokens.len(), args.out.display());
    // The trace is there; a closed stderr is no failure.
    let _ = writeln!(io::stderr(), "{}", Style::of_stderr().dim(&text));
    Ok(code)
}

/// A file that appears under its name only when it is whole.
struct NewFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl NewFile {
    /// Fails at once where the file could not be written in the end.
    fn create(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot write the trace to {}", path.display());
        anyhow::ensure!(!path.is_dir(), "{}: it is a folder", cannot());
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).with_context(cannot)?;
        Ok(Self { file, part, path: path.to_owned() })
    }

    fn fill(self, header: TraceHeader, tokens: &[TraceToken]) -> anyhow::Result<()> {
        let cannot = || format!("cannot write the trace to {}", self.path.display());
        let sink = BufWriter::new(&self.file);
        if self.path.extension().is_some_and(|extension| extension == "gz") {
            let encoder = write(GzEncoder::new(sink, Compression::default()), header, tokens);
            encoder.with_context(cannot)?.finish().and_then(|mut sink| sink.flush()).with_context(cannot)?;
        } else {
            write(sink, header, tokens).with_context(cannot)?;
        }
        fs::rename(&self.part, &self.path).with_context(cannot)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Gone already after a success.
        let _ = fs::remove_file(&self.part);
    }
}

fn write<W: io::Write>(sink: W, header: TraceHeader, tokens: &[TraceToken]) -> Result<W, TraceError> {
    let mut writer = TraceWriter::new(sink, header)?;
    for token in tokens {
        writer.token(token)?;
    }
    writer.finish()
}
