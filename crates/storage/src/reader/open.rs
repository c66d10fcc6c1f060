//! Choosing a reader: what was asked for, or the best that this machine allows, with a note that says why.

use std::fmt;
use std::str::FromStr;

use super::{OpenReaderError, Reader, ReaderConfig, SimConfig, SimReader, open_pread};

/// Which reader to open.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum ReaderKind {
    /// io_uring where the system has it and allows it, otherwise `pread`.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// Threads that call `pread`.
    Pread,
    /// The simulated reader. It stays in its process.
    #[serde(skip)]
    Sim(SimConfig),
}

impl FromStr for ReaderKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(ReaderKind::Auto),
            "uring" => Ok(ReaderKind::Uring),
            "pread" => Ok(ReaderKind::Pread),
            "sim" => Ok(ReaderKind::Sim(SimConfig::default())),
            _ => Err(format!("no reader is called {name:?}; choose auto, uring, pread or sim")),
        }
    }
}

/// A reader, and what the user should know about the choice.
pub struct OpenedReader {
    /// The reader.
    pub reader: Box<dyn Reader>,
    /// Why it is not the one that would be best, if so.
    pub note: Option<String>,
}

impl fmt::Debug for OpenedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedReader").field("reader", &self.reader.name()).field("note", &self.note).finish()
    }
}

/// Opens a reader. [`ReaderKind::Auto`] falls back to `pread` when io_uring is refused and says why in the
/// note.
pub fn open_reader(kind: &ReaderKind, config: &ReaderConfig) -> Result<OpenedReader, OpenReaderError> {
    let plain = |reader| OpenedReader { reader, note: None };
    match kind {
        ReaderKind::Uring => boxed_uring(config).map(plain),
        ReaderKind::Pread => Ok(plain(Box::new(open_pread(config)?))),
        ReaderKind::Sim(sim) => Ok(plain(Box::new(SimReader::new(sim.clone(), config)))),
        ReaderKind::Auto => match boxed_uring(config) {
            Ok(reader) => Ok(plain(reader)),
            // Where there is no io_uring, pread is the best there is: nothing to say.
            Err(OpenReaderError::NoUring) => Ok(plain(Box::new(open_pread(config)?))),
            Err(refusal) => {
                let reader = Box::new(open_pread(config)?);
                Ok(OpenedReader { reader, note: Some(format!("reading with pread threads: {refusal}")) })
            }
        },
    }
}

#[cfg(target_os = "linux")]
fn boxed_uring(config: &ReaderConfig) -> Result<Box<dyn Reader>, OpenReaderError> {
    Ok(Box::new(super::open_uring(config)?))
}

#[cfg(not(target_os = "linux"))]
fn boxed_uring(_config: &ReaderConfig) -> Result<Box<dyn Reader>, OpenReaderError> {
    Err(OpenReaderError::NoUring)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_refused_ring_falls_back_to_pread_and_says_why() {
        for errno in [libc::ENOSYS, libc::EPERM, libc::ENOMEM] {
            let config = ReaderConfig { simulate_uring_refusal: Some(errno), ..ReaderConfig::default() };
            let opened = open_reader(&ReaderKind::Auto, &config).unwrap();
            assert_eq!(opened.reader.name(), "pread");
            let note = opened.note.unwrap();
            assert!(note.contains(&std::io::Error::from_raw_os_error(errno).to_string()), "{note}");
            let error = open_reader(&ReaderKind::Uring, &config).unwrap_err();
            assert!(error.to_string().contains("--reader pread"), "{error}");
        }
    }

    #[test]
    fn names_are_parsed_and_wrong_ones_are_explained() {
        assert_eq!("auto".parse(), Ok(ReaderKind::Auto));
        assert_eq!("uring".parse(), Ok(ReaderKind::Uring));
        assert_eq!("pread".parse(), Ok(ReaderKind::Pread));
        assert!("mmap".parse::<ReaderKind>().unwrap_err().contains("auto, uring, pread"));
    }
}
