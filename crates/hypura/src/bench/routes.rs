//! Routing traces from files, compressed or not. What a trace says and how much of it is believed is
//! `core::trace`'s part.

use anyhow::Context as _;
use flate2::bufread::MultiGzDecoder;
use hypura_core::trace::{Trace, TraceReader};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The first two bytes of a gzip file (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads a whole trace.
///
/// # Errors
/// What is wrong with it, and in which file.
pub fn read_trace(path: &Path) -> anyhow::Result<Trace> {
    let file = File::open(path).with_context(|| format!("cannot open the trace {}", path.display()))?;
    let trace = read(BufReader::new(file)).with_context(|| format!("the trace {}", path.display()))?;
    anyhow::ensure!(!trace.tokens.is_empty(), "the trace {} has no tokens", path.display());
    Ok(trace)
}

fn read(mut source: impl BufRead) -> anyhow::Result<Trace> {
    if source.fill_buf()?.starts_with(&GZIP) {
        return Ok(TraceReader::new(BufReader::new(MultiGzDecoder::new(source)))?.into_trace()?);
    }
    Ok(TraceReader::new(source)?.into_trace()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use hypura_core::trace::{LayerRoutes, Phase, TraceHeader, TraceToken, TraceWriter};
    use std::io::Write as _;

    fn trace() -> Trace {
        let layers = vec![LayerRoutes { layer: 0, experts: vec![3, 1], weights: Vec::new() }];
        Trace {
            header: TraceHeader::new("tiny", 1, 8, 2, 1000),
            tokens: vec![TraceToken { phase: Phase::Decode, layers }],
        }
    }

    fn text(trace: &Trace) -> Vec<u8> {
        let mut writer = TraceWriter::new(Vec::new(), trace.header.clone()).unwrap();
        trace.tokens.iter().for_each(|token| writer.token(token).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn compressed_and_plain_traces_are_the_same() {
        let plain = text(&trace());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&plain).unwrap();
        let compressed = encoder.finish().unwrap();
        assert_eq!(read(plain.as_slice()).unwrap().tokens, trace().tokens);
        assert_eq!(read(compressed.as_slice()).unwrap().tokens, trace().tokens);
    }

    #[test]
    fn a_file_that_is_missing_or_cut_off_is_named() {
        let error = read_trace(Path::new("/nonexistent.gz")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent.gz"), "{error}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&GZIP).unwrap();
        let error = format!("{:#}", read_trace(file.path()).unwrap_err());
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}
