//! Why a trace could not be read or written.

/// The only version so far.
pub const FORMAT: &str = "route-trace/1";

/// Longest line accepted. 61 layers of 8 experts with weights take 10 KB.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Why a trace could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The underlying reader or writer failed.
    #[error("routing trace, line {line}: {source}")]
    Io {
        /// Line number, from 1.
        line: u64,
        /// What the reader or writer said.
        source: std::io::Error,
    },
    /// The reader came to an end that its own format does not allow, as decompressors do.
    #[error("routing trace: the file is cut off in line {line}; copy it or record it again")]
    CutOff {
        /// Line number, from 1.
        line: u64,
    },
    /// A line is not the JSON it should be.
    #[error("routing trace, line {line}: {source}; each line must be one JSON object of the {FORMAT} format")]
    Json {
        /// Line number, from 1.
        line: u64,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A line is longer than any honest one.
    #[error(
        "routing trace, line {line} is longer than {MAX_LINE_BYTES} bytes; is this an uncompressed trace?"
    )]
    LineTooLong {
        /// Line number, from 1.
        line: u64,
    },
    /// The file ends before the header.
    #[error("routing trace is empty; its first line must be the {FORMAT} header")]
    NoHeader,
    /// The header announces something this version does not know or allow.
    #[error("routing trace header: {0}")]
    Header(String),
    /// A token breaks a rule of the format.
    #[error("routing trace, line {line}: {reason}; record the trace again from this model")]
    Token {
        /// Line number, from 1.
        line: u64,
        /// The rule and what broke it.
        reason: String,
    },
}
